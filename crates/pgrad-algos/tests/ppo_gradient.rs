//! The gradient that PPO follows, end to end, against finite differences of Eq. 9 in `f64`: environments,
//! masks, endings, bootstrap values, GAE, advantage normalisation, both losses, both trunks.
//!
//! Adam keeps `m ← 0.9 m + 0.1 g`, so the gradients of the first two updates can be read off its state.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

#[path = "../../pgrad-agent/tests/common/mod.rs"]
mod common;

use common::{Batch, Seen, Task, relative_difference, tasks, wide};
use pgrad_agent::ActorCritic;
use pgrad_algos::{Algorithm, Ppo, PpoConfig, Setup};
use pgrad_env::End;
use pgrad_num::Team;
use pgrad_settings::apply_pair;
use pgrad_testkit::finite_difference_gradient;

const N_ENVS: usize = 5;
const N_STEPS: usize = 33;

fn config(pairs: &[&str]) -> PpoConfig {
    let mut c = PpoConfig::default();
    c.rollout.n_envs = N_ENVS;
    c.rollout.n_steps = N_STEPS;
    c.rollout.gamma = 0.9;
    c.ppo.lambda = 0.8;
    c.ppo.minibatch_size = N_ENVS * N_STEPS;
    c.ppo.learning_rate = 0.05;
    c.ppo.max_grad_norm = None;
    c.model.hidden = vec![5];
    for pair in ["envs_per_shard=2"].iter().chain(pairs) {
        let PpoConfig { rollout, ppo, model, trunk, normalize } = &mut c;
        apply_pair(pair, "test", &mut [rollout, ppo, model, trunk, normalize]).unwrap();
    }
    c
}

/// Model before, model after `epochs` updates of one iteration, Adam's mean gradient, what was reported.
struct Trained {
    before: ActorCritic,
    after: ActorCritic,
    m: Vec<f64>,
    clip_fraction: f64,
}

fn train(config: &PpoConfig, task: &Task, epochs: usize) -> Trained {
    let mut config = config.clone();
    config.ppo.epochs = epochs;
    let make = task.make();
    let setup = Setup { make_env: &make, seed: 2, total_steps: 1_000_000, threads: 1 };
    let mut ppo = Ppo::new(&config, &setup).unwrap();
    let before = ppo.model().clone();
    task.log.lock().unwrap().clear();
    ppo.start().unwrap();
    let report = ppo.iterate(&Team::new(1).unwrap()).unwrap();
    assert_eq!(report.get("learn/updates"), Some(epochs as f64));
    let m = wide(ppo.save().f32s("adam.m", before.theta.len()).unwrap());
    let clip_fraction = report.get("learn/clip_fraction").unwrap();
    Trained { before, after: ppo.model().clone(), m, clip_fraction }
}

/// One iteration's data and what is computed from it, from the definitions.
struct Slow<'a> {
    config: &'a PpoConfig,
    model: &'a ActorCritic,
    paths: Vec<Vec<Seen>>,
    batch: Batch,
    logp_old: Vec<f64>,
    v_old: Vec<f64>,
}

impl<'a> Slow<'a> {
    fn new(config: &'a PpoConfig, model: &'a ActorCritic, task: &Task) -> Self {
        let paths = task.log.lock().unwrap().clone();
        assert_eq!(paths.iter().map(Vec::len).collect::<Vec<_>>(), [N_STEPS; N_ENVS]);
        let batch = Batch::new(&paths.concat(), task.masked);
        let theta = wide(&model.theta);
        let logp_old = batch.policy(model, &theta).0;
        let v_old = batch.values(model, &theta, &batch.obs);
        Self { config, model, paths, batch, logp_old, v_old }
    }
    /// `Â_t = Σ_l (γλ)^l δ_{t+l}` up to the end of the path, and `V_t^targ = Â_t + V(s_t)`.
    fn estimates(&self, theta: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let (gamma, lambda) = (self.config.rollout.gamma, self.config.ppo.lambda);
        let v = self.batch.values(self.model, theta, &self.batch.obs);
        let v_after = self.batch.values(self.model, theta, &self.batch.next);
        let mut adv = Vec::new();
        for (b, steps) in self.paths.iter().enumerate() {
            let delta = |t: usize| {
                let i = b * N_STEPS + t;
                let v_next = if steps[t].end == End::Terminated { 0.0 } else { v_after[i] };
                steps[t].reward + gamma * v_next - v[i]
            };
            for t in 0..N_STEPS {
                let end = (t..N_STEPS).find(|s| steps[*s].end != End::Running).unwrap_or(N_STEPS - 1);
                adv.push((t..=end).map(|s| (gamma * lambda).powi((s - t) as i32) * delta(s)).sum());
            }
        }
        let ret = adv.iter().zip(&v).map(|(a, v)| a + v).collect();
        (adv, ret)
    }
    /// `−L(θ)` of Eq. 9, with the advantages and targets of `theta_estimates`.
    fn loss(&self, theta: &[f64], adv: &[f64], ret: &[f64]) -> f64 {
        let c = &self.config.ppo;
        let n = adv.len() as f64;
        let (mean, std) = if c.normalize_advantage {
            let mean = adv.iter().sum::<f64>() / n;
            (mean, (adv.iter().map(|a| (a - mean).powi(2)).sum::<f64>() / n).sqrt())
        } else {
            (0.0, 1.0)
        };
        let (logp, entropy) = self.batch.policy(self.model, theta);
        let v = self.batch.values(self.model, theta, &self.batch.obs);
        let mut loss = 0.0;
        for i in 0..adv.len() {
            let (r, a) = ((logp[i] - self.logp_old[i]).exp(), (adv[i] - mean) / std);
            let surrogate = (r * a).min(r.clamp(1.0 - c.clip, 1.0 + c.clip) * a);
            let mut error = (v[i] - ret[i]).powi(2);
            if let Some(range) = c.value_clip {
                let moved = self.v_old[i] + (v[i] - self.v_old[i]).clamp(-range, range);
                error = error.max((moved - ret[i]).powi(2));
            }
            loss += -surrogate + c.value_coef * error - c.entropy_coef * entropy[i];
        }
        loss / n
    }
}

fn check(pairs: &[&str], task: &Task) -> f64 {
    let config = config(pairs);
    let name = format!("{} masked {} {pairs:?}", task.action, task.masked);
    let one = train(&config, task, 1);
    let two = train(&config, task, 2);
    let slow = Slow::new(&config, &one.before, task);

    // At θ_old every ratio is 1.
    let theta_old = wide(&one.before.theta);
    let (adv, ret) = slow.estimates(&theta_old);
    let expected = finite_difference_gradient(|t| slow.loss(t, &adv, &ret), &theta_old);
    let got: Vec<f64> = one.m.iter().map(|m| m / 0.1).collect();
    let error = relative_difference(&got, &expected);
    assert!(error < 2e-4, "{name}, first update: {error:e}");

    // After one update the ratios differ, and some are clipped.
    let theta = wide(&one.after.theta);
    let (adv, ret) = if config.ppo.recompute_advantage { slow.estimates(&theta) } else { (adv, ret) };
    let expected = finite_difference_gradient(|t| slow.loss(t, &adv, &ret), &theta);
    let got: Vec<f64> = two.m.iter().zip(&one.m).map(|(two, one)| (two - 0.9 * one) / 0.1).collect();
    let error = relative_difference(&got, &expected);
    assert!(error < 2e-4, "{name}, second update: {error:e}");
    two.clip_fraction
}

#[test]
fn follows_the_equations_for_every_action_space_and_trunk() {
    for task in tasks(Some(9)) {
        for trunk in ["trunk=separate", "trunk=shared"] {
            let clipped = check(&[trunk, "entropy_coef=0.03", "clip=0.05"], &task);
            assert!(clipped > 0.02, "{}: the second update clips some ratios: {clipped}", task.action);
        }
    }
}

#[test]
fn follows_the_equations_under_every_setting_that_changes_them() {
    let tasks = tasks(Some(9));
    for task in [&tasks[1], &tasks[5]] {
        check(&["normalize_advantage=false", "entropy_coef=0.5"], task);
        check(&["value_clip=0.02", "value_coef=2"], task);
        check(&["recompute_advantage=true"], task);
        check(&["lambda=0", "gamma=0.5"], task);
        check(&["lambda=1", "gamma=1", "activation=relu"], task);
        check(&["hidden=", "trunk=shared", "value_clip=0.02"], task);
        check(&["hidden=6,4", "recompute_advantage=true", "trunk=shared"], task);
    }
}
