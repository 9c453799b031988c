//! The gradient that PPO follows, end to end, against finite differences of Eq. 9 in `f64`, with each
//! objective of Table 1: environments, masks, endings, bootstrap values, GAE, V-trace, advantage
//! normalisation, both losses, both trunks.
//!
//! Adam keeps `m ← 0.9 m + 0.1 g`, so the gradients of the first two updates can be read off its state.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

#[path = "../../pgrad-collect/tests/common/mod.rs"]
mod common;

use common::{Batch, Seen, Task, relative_difference, tasks, wide};
use pgrad_algos::{
    AlgoConfig, Algorithm, PpoConfig, Report, Setup,
    ppo::{Advantage, Bound},
};
use pgrad_engine::Cpu;
use pgrad_env::{End, Space, spec_of};
use pgrad_model::ActorCritic;
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
        let PpoConfig { rollout, ppo, model, recurrent, trunk, normalize } = &mut c;
        apply_pair(pair, "test", &mut [rollout, ppo, model, recurrent, trunk, normalize]).unwrap();
    }
    c
}

/// Model before, model after `epochs` updates of one iteration, Adam's mean gradient, β after it, what was
/// reported.
struct Trained {
    before: ActorCritic,
    after: ActorCritic,
    m: Vec<f64>,
    beta: f64,
    report: Report,
}

fn build(config: &PpoConfig, task: &Task) -> Box<dyn Algorithm> {
    let make = task.make();
    let setup = Setup {
        spec: &spec_of(&make).unwrap(),
        make_env: &make,
        seed: 2,
        total_steps: 1_000_000,
        cpu: Cpu::new(1).unwrap(),
    };
    config.build(&setup).unwrap()
}

fn train(config: &PpoConfig, task: &Task, epochs: usize) -> Trained {
    let mut config = config.clone();
    config.ppo.epochs = epochs;
    let mut ppo = build(&config, task);
    let before = ppo.model().clone();
    task.log.lock().unwrap().clear();
    ppo.start().unwrap();
    let report = ppo.iterate().unwrap();
    assert_eq!(report.get("learn/updates"), Some(epochs as f64));
    let m = wide(ppo.save().f32s("adam.m", before.theta.len()).unwrap());
    let beta = ppo.save().f64("beta").unwrap();
    Trained { before, after: ppo.model().clone(), m, beta, report }
}

/// One iteration's data and what is computed from it, from the definitions.
struct Slow<'a> {
    config: &'a PpoConfig,
    model: &'a ActorCritic,
    paths: Vec<Vec<Seen>>,
    batch: Batch,
    theta_old: Vec<f64>,
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
        Self { config, model, paths, batch, theta_old: theta, logp_old, v_old }
    }
    /// GAE: `Â_t = Σ_l (γλ)^l δ_{t+l}` up to the end of the path, and `V_t^targ = Â_t + V(s_t)`.
    ///
    /// V-trace, Espeholt et al. 2018, Eq. 1:
    /// `V_t^targ = vs_t = V(s_t) + Σ_l γ^l (Π_{i<l} c_{t+i}) ρ_{t+l} δ_{t+l}`, and
    /// `Â_t = r_t + γ vs_{t+1} − V(s_t)`.
    fn estimates(&self, theta: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let (c, gamma, lambda) = (&self.config.ppo, self.config.rollout.gamma, self.config.ppo.lambda);
        let v = self.batch.values(self.model, theta, &self.batch.obs);
        let v_after = self.batch.values(self.model, theta, &self.batch.next);
        let logp = self.batch.policy(self.model, theta).0;
        let (mut adv, mut ret) = (Vec::new(), Vec::new());
        for (b, steps) in self.paths.iter().enumerate() {
            let at = |t: usize| b * N_STEPS + t;
            let v_next = |t: usize| if steps[t].end == End::Terminated { 0.0 } else { v_after[at(t)] };
            let delta = |t: usize| steps[t].reward + gamma * v_next(t) - v[at(t)];
            let end = |t: usize| (t..N_STEPS).find(|s| steps[*s].end != End::Running).unwrap_or(N_STEPS - 1);
            let ratio = |t: usize| (logp[at(t)] - self.logp_old[at(t)]).exp();
            let vs = |t: usize| -> f64 {
                let term = |s: usize| {
                    let traces: f64 = (t..s).map(|i| lambda * ratio(i).min(c.c_bar)).product();
                    gamma.powi((s - t) as i32) * traces * ratio(s).min(c.rho_bar) * delta(s)
                };
                v[at(t)] + (t..=end(t)).map(term).sum::<f64>()
            };
            for t in 0..N_STEPS {
                if c.advantage != Advantage::Vtrace {
                    let sum: f64 =
                        (t..=end(t)).map(|s| (gamma * lambda).powi((s - t) as i32) * delta(s)).sum();
                    let g = sum + v[at(t)];
                    adv.push(if c.advantage == Advantage::Gae { sum } else { g });
                    ret.push(g);
                } else {
                    let next = if t == end(t) { v_next(t) } else { vs(t + 1) };
                    adv.push(steps[t].reward + gamma * next - v[at(t)]);
                    ret.push(vs(t));
                }
            }
        }
        (adv, ret)
    }
    /// Mean `KL(π_θold ‖ π_θ)`.
    fn kl(&self, theta: &[f64]) -> f64 {
        let kl = self.batch.kl(self.model, &self.theta_old, theta);
        kl.iter().sum::<f64>() / kl.len() as f64
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
            let surrogate = match c.objective {
                Bound::Clip => (r * a).min(r.clamp(1.0 - c.clip, 1.0 + c.clip) * a),
                _ => r * a,
            };
            let mut error = (v[i] - ret[i]).powi(2);
            if let Some(range) = c.value_clip {
                let moved = self.v_old[i] + (v[i] - self.v_old[i]).clamp(-range, range);
                error = error.max((moved - ret[i]).powi(2));
            }
            loss += -surrogate + c.value_coef * error - c.entropy_coef * entropy[i];
        }
        let penalty = match c.objective {
            Bound::KlAdaptive | Bound::KlFixed => c.kl_coef * self.kl(theta),
            Bound::Clip | Bound::Nothing => 0.0,
        };
        loss / n + penalty
    }
}

/// Checks an update on fresh data and one on stale data; returns what came of the latter, and the mean KL
/// before and after it.
fn check(pairs: &[&str], task: &Task) -> (Trained, [f64; 2]) {
    let config = config(pairs);
    let name = format!("{} masked {} {pairs:?}", task.action, task.masked);
    // V-trace is for two epochs at least: its first update is part of both runs.
    let fresh = config.ppo.advantage != Advantage::Vtrace;
    let epochs = if fresh { 1 } else { 2 };
    let one = train(&config, task, epochs);
    let two = train(&config, task, epochs + 1);
    let slow = Slow::new(&config, &one.before, task);
    let theta_old = wide(&one.before.theta);
    let (adv, ret) = slow.estimates(&theta_old);

    if fresh {
        // How much of the targets' variance the critic explains, its mean error left aside.
        let spread = |x: &dyn Fn(usize) -> f64| {
            let mean = (0..ret.len()).map(x).sum::<f64>() / ret.len() as f64;
            (0..ret.len()).map(|i| (x(i) - mean).powi(2)).sum::<f64>()
        };
        let explained = 1.0 - spread(&|i| ret[i] - slow.v_old[i]) / spread(&|i| ret[i]);
        let reported = one.report.get("learn/explained_variance").unwrap();
        assert!((reported - explained).abs() < 1e-4, "{name}: {reported} {explained}");
        // At θ_old every ratio is 1.
        let expected = finite_difference_gradient(|t| slow.loss(t, &adv, &ret), &theta_old);
        let got: Vec<f64> = one.m.iter().map(|m| m / 0.1).collect();
        let error = relative_difference(&got, &expected);
        assert!(error < 2e-4, "{name}, first update: {error:e}");
    }

    // After one update the ratios differ, and some are clipped.
    let theta = wide(&one.after.theta);
    let (adv, ret) = if config.ppo.recompute_advantage { slow.estimates(&theta) } else { (adv, ret) };
    let expected = finite_difference_gradient(|t| slow.loss(t, &adv, &ret), &theta);
    let got: Vec<f64> = two.m.iter().zip(&one.m).map(|(two, one)| (two - 0.9 * one) / 0.1).collect();
    let error = relative_difference(&got, &expected);
    assert!(error < 2e-4, "{name}, second update: {error:e}");
    let kl = [slow.kl(&theta), slow.kl(&wide(&two.after.theta))];
    (two, kl)
}

#[test]
fn follows_the_equations_for_every_action_space_and_trunk() {
    for task in tasks(Some(9)) {
        for trunk in ["trunk=separate", "trunk=shared"] {
            let (trained, _) = check(&[trunk, "entropy_coef=0.03", "clip=0.05"], &task);
            let clipped = trained.report.get("learn/clip_fraction").unwrap();
            assert!(clipped > 0.02, "{}: the second update clips some ratios: {clipped}", task.action);
        }
    }
}

#[test]
fn follows_the_penalties_of_table_1() {
    for task in tasks(Some(9)) {
        for trunk in ["trunk=separate", "trunk=shared"] {
            // A large β, so that the penalty is most of the second gradient.
            for objective in ["objective=kl-fixed", "objective=kl-adaptive"] {
                let pairs = [trunk, objective, "kl_coef=20", "kl_target=0.1", "entropy_coef=0.03"];
                let (trained, kl) = check(&pairs, &task);
                assert!(kl[0] > 0.002, "the first step moves the policy far: {kl:?}");
                assert_eq!(trained.report.get("learn/kl_coef"), Some(20.0));
                // The first epoch has no divergence, the second that of the first step.
                let found = trained.report.get("learn/kl").unwrap();
                assert!((2.0 * found / kl[0] - 1.0).abs() < 1e-3, "{found} {kl:?}");
                match trained.report.get("learn/kl_after") {
                    Some(after) => {
                        assert!((after / kl[1] - 1.0).abs() < 1e-3, "{after} {kl:?}");
                        assert_eq!(trained.beta, 10.0, "far below the target");
                    }
                    None => assert_eq!((trained.beta, objective), (20.0, "objective=kl-fixed")),
                }
            }
            check(&[trunk, "objective=none"], &task);
        }
    }
}

#[test]
fn follows_v_trace_with_the_ratios_of_each_epoch() {
    for task in tasks(Some(9)) {
        for trunk in ["trunk=separate", "trunk=shared"] {
            for more in [&["clip=1000"][..], &["objective=none", "rho_bar=1.1", "c_bar=0.9", "lambda=1"]] {
                let pairs = [&[trunk, "advantage=vtrace", "recompute_advantage=true"], more].concat();
                check(&pairs, &task);
            }
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
        check(&["advantage=lambda-return", "normalize_advantage=false"], task);
        check(&["lambda=0", "gamma=0.5"], task);
        check(&["lambda=1", "gamma=1", "activation=relu"], task);
        check(&["hidden=", "trunk=shared", "value_clip=0.02"], task);
        check(&["hidden=6,4", "recompute_advantage=true", "trunk=shared"], task);
    }
}

/// One sample alone has the mean of its minibatch: it teaches the policy nothing, whatever the rest of the
/// batch is.
#[test]
fn advantages_are_normalised_within_each_minibatch() {
    let task = Task::new(Space::Discrete { n: 4 }, false, Some(9));
    for (normalised, size) in [(true, 1), (false, 1), (true, 5)] {
        let config =
            config(&[&format!("normalize_advantage={normalised}"), &format!("minibatch_size={size}")]);
        let mut ppo = build(&config, &task);
        let before = ppo.model().clone();
        ppo.start().unwrap();
        ppo.iterate().unwrap();
        let moved = |range: std::ops::Range<usize>| ppo.model().theta[range.clone()] != before.theta[range];
        assert_eq!(moved(before.actor().params.clone()), !(normalised && size == 1), "{normalised} {size}");
        assert!(moved(before.critic().params.clone()));
    }
}
