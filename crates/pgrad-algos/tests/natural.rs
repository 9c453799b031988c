//! The steps of natural policy gradient and TRPO against dense matrices, dense solves and divergences in
//! `f64`, made of what the environments saw; what each setting does; equal bits over threads and after a
//! resume.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

#[path = "../../pgrad-collect/tests/common/mod.rs"]
mod common;

use common::{Batch, OBS, Seen, Task, relative_difference, tasks, wide};
use pgrad_algos::{AlgoConfig, Algorithm, PpoConfig, Report, Setup};
use pgrad_engine::Cpu;
use pgrad_env::{
    BatchResult, BoxSpace, Each, End, Space,
    probe::{ActionKind, EndlessReward, ObservedActionReward, RightChoices},
    spec_of,
};
use pgrad_model::ActorCritic;
use pgrad_num::{Cols, ColsMut, Record};
use pgrad_settings::apply_pair;
use pgrad_testkit::{Dense, finite_difference_gradient, finite_difference_jvp};

const N_ENVS: usize = 5;
const N_STEPS: usize = 33;
const N: usize = N_ENVS * N_STEPS;

fn config(algo: &str, pairs: &[&str]) -> Box<dyn AlgoConfig> {
    let mut config = (pgrad_algos::find(algo).unwrap().config)();
    let small = [
        "n_envs=5",
        "n_steps=33",
        "envs_per_shard=2",
        "gamma=0.9",
        "lambda=0.8",
        "hidden=4",
        "critic_hidden=4",
        "minibatch_size=165",
        "critic_epochs=1",
        "cg_iterations=200",
    ];
    for pair in small.iter().chain(pairs) {
        apply_pair(pair, "test", &mut config.parts_mut()).unwrap();
    }
    config
}

fn build(
    algo: &str,
    pairs: &[&str],
    make: &dyn Fn(usize) -> BatchResult,
    threads: usize,
) -> Box<dyn Algorithm> {
    let setup = Setup {
        spec: &spec_of(make).unwrap(),
        make_env: make,
        seed: 2,
        total_steps: 1_000_000,
        cpu: Cpu::new(threads).unwrap(),
    };
    let mut algo = config(algo, pairs).build(&setup).unwrap();
    algo.start().unwrap();
    algo
}

/// One iteration from the start: the model before and after it, what was reported, what is saved.
struct Trained {
    before: ActorCritic,
    after: ActorCritic,
    report: Report,
    saved: Record,
}

fn train(algo: &str, pairs: &[&str], task: &Task) -> Trained {
    let setup = Setup {
        spec: &spec_of(&task.make()).unwrap(),
        make_env: &task.make(),
        seed: 2,
        total_steps: 1_000_000,
        cpu: Cpu::new(1).unwrap(),
    };
    let mut algo = config(algo, pairs).build(&setup).unwrap();
    let before = algo.model().clone();
    task.log.lock().unwrap().clear();
    algo.start().unwrap();
    let report = algo.iterate().unwrap();
    Trained { before, after: algo.model().clone(), report, saved: algo.save() }
}

impl Trained {
    fn get(&self, name: &str) -> f64 {
        self.report.get(name).unwrap()
    }
    fn actor(model: &ActorCritic) -> &[f32] {
        &model.theta[model.actor().params.clone()]
    }
    /// The policy's parameters after the iteration.
    fn theta(&self) -> &[f32] {
        Self::actor(&self.after)
    }
    fn theta_old(&self) -> &[f32] {
        Self::actor(&self.before)
    }
    fn step(&self) -> Vec<f64> {
        self.theta().iter().zip(self.theta_old()).map(|(a, b)| f64::from(*a) - f64::from(*b)).collect()
    }
}

/// What follows from the definitions, in `f64`.
struct Slow<'a> {
    model: &'a ActorCritic,
    batch: Batch,
    theta_old: Vec<f64>,
    adv: Vec<f64>,
    ret: Vec<f64>,
}

impl<'a> Slow<'a> {
    fn new(trained: &'a Trained, task: &Task, lambda: f64, normalize: bool) -> Self {
        Self::with_psi(trained, task, lambda, normalize, "gae")
    }
    fn with_psi(trained: &'a Trained, task: &Task, lambda: f64, normalize: bool, psi: &str) -> Self {
        let model = &trained.before;
        let paths: Vec<Vec<Seen>> = task.log.lock().unwrap().clone();
        assert_eq!(paths.iter().map(Vec::len).collect::<Vec<_>>(), [N_STEPS; N_ENVS]);
        let batch = Batch::new(&paths.concat(), task.masked);
        let theta = wide(&model.theta);
        let v = batch.values(model, &theta, &batch.obs);
        let v_after = batch.values(model, &theta, &batch.next);
        let mut adv = Vec::new();
        for (b, steps) in paths.iter().enumerate() {
            let delta = |t: usize| {
                let i = b * N_STEPS + t;
                let v_next = if steps[t].end == End::Terminated { 0.0 } else { v_after[i] };
                steps[t].reward + 0.9 * v_next - v[i]
            };
            for t in 0..N_STEPS {
                let end = (t..N_STEPS).find(|s| steps[*s].end != End::Running).unwrap_or(N_STEPS - 1);
                adv.push((t..=end).map(|s| (0.9 * lambda).powi((s - t) as i32) * delta(s)).sum::<f64>());
            }
        }
        let ret: Vec<f64> = adv.iter().zip(&v).map(|(a, v)| a + v).collect();
        if psi == "lambda-return" {
            adv.clone_from(&ret);
        }
        if normalize {
            let mean = adv.iter().sum::<f64>() / N as f64;
            let std = (adv.iter().map(|a| (a - mean).powi(2)).sum::<f64>() / N as f64).sqrt();
            adv.iter_mut().for_each(|a| *a = (*a - mean) / std);
        }
        let theta_old = wide(trained.theta_old());
        Self { model, batch, theta_old, adv, ret }
    }
    fn surrogate(&self, theta: &[f64]) -> f64 {
        let logp = |theta: &[f64]| self.batch.policy(self.model, theta).0;
        let (new, old) = (logp(theta), logp(&self.theta_old));
        let each = new.iter().zip(&old).zip(&self.adv).map(|((new, old), a)| (new - old).exp() * a);
        each.sum::<f64>() / N as f64
    }
    fn improvement(&self, theta: &[f64]) -> f64 {
        self.surrogate(theta) - self.surrogate(&self.theta_old)
    }
    fn gradient(&self) -> Vec<f64> {
        finite_difference_gradient(|t| self.surrogate(t), &self.theta_old)
    }
    fn params(&self, theta: &[f64]) -> Vec<f64> {
        let (net, dist) = (&self.model.actor().net, self.model.dist());
        let mut tape = net.tape::<f64>(N);
        let mut out = net.forward(theta, Cols::new(&self.batch.obs, OBS, N), &mut tape);
        dist.prepare(out.reborrow(), self.batch.mask.as_ref().map(|m| Cols::new(m, dist.mask_rows(), N)));
        out.into_data().to_vec()
    }
    fn kl(&self, theta: &[f64]) -> Vec<f64> {
        let rows = self.model.dist().n_outputs();
        let (old, new) = (self.params(&self.theta_old), self.params(theta));
        let mut kl = vec![0.0; N];
        self.model.dist().kl(Cols::new(&old, rows, N), Cols::new(&new, rows, N), &mut kl);
        kl
    }
    fn mean_kl(&self, theta: &[f64]) -> f64 {
        self.kl(theta).iter().sum::<f64>() / N as f64
    }
    fn largest_kl(&self, theta: &[f64]) -> f64 {
        self.kl(theta).iter().fold(0.0, |m, k| m.max(*k))
    }
    fn kl_gradient(&self, theta: &[f64]) -> Vec<f64> {
        let (net, dist) = (&self.model.actor().net, self.model.dist());
        let rows = dist.n_outputs();
        let (old, new) = (self.params(&self.theta_old), self.params(theta));
        let (old, new) = (Cols::new(&old, rows, N), Cols::new(&new, rows, N));
        let (mut d_out, mut g) = (vec![0.0; rows * N], vec![0.0; theta.len()]);
        dist.kl_vjp(old, new, &[1.0 / N as f64; N], ColsMut::new(&mut d_out, rows, N));
        let x = Cols::new(&self.batch.obs, OBS, N);
        let mut tape = net.tape::<f64>(N);
        net.forward(theta, x, &mut tape);
        net.vjp(theta, x, &mut tape, Cols::new(&d_out, rows, N), &mut g, None);
        g
    }
    /// The Hessian of the mean divergence, and the mean outer product of the scores.
    fn fisher(&self, empirical: bool, damping: f64) -> Dense {
        let dim = self.theta_old.len();
        let f = if empirical {
            let scores = Dense::of_operator(N, dim, |v, out| {
                let logp = |t: &[f64], o: &mut [f64]| o.copy_from_slice(&self.batch.policy(self.model, t).0);
                out.copy_from_slice(&finite_difference_jvp(logp, &self.theta_old, v, N));
            });
            let outer = scores.transpose().matmul(&scores);
            Dense::from_fn(dim, dim, |i, j| outer.at(i, j) / N as f64)
        } else {
            Dense::of_operator(dim, dim, |v, out| {
                let gradient = |t: &[f64], o: &mut [f64]| o.copy_from_slice(&self.kl_gradient(t));
                out.copy_from_slice(&finite_difference_jvp(gradient, &self.theta_old, v, dim));
            })
        };
        Dense::from_fn(dim, dim, |i, j| f.at(i, j) + if i == j { damping } else { 0.0 })
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn the_natural_step_is_that_of_the_dense_solve() {
    for task in tasks(Some(9)) {
        for (fisher, empirical) in [("kl-hessian", false), ("empirical", true)] {
            for (normalize, lambda) in [(true, 0.8), (false, 0.3)] {
                let pairs = [
                    &format!("fisher={fisher}"),
                    &format!("normalize_advantage={normalize}"),
                    &format!("lambda={lambda}"),
                    "cg_damping=0.05",
                ];
                let pairs: Vec<&str> = pairs.iter().map(|p| &p[..]).collect();
                let fixed = train("npg", &[&pairs[..], &["step=fixed", "step_size=0.3"]].concat(), &task);
                let slow = Slow::new(&fixed, &task, lambda, normalize);
                let (g, f) = (slow.gradient(), slow.fisher(empirical, 0.05));
                let s = f.solve(&g);
                let got: Vec<f64> = fixed.step().iter().map(|d| d / 0.3).collect();
                let error = relative_difference(&got, &s);
                assert!(error < 2e-3, "{} {pairs:?}: {error:e}", task.action);
                assert!((fixed.get("learn/grad_norm") / dot(&g, &g).sqrt() - 1.0).abs() < 1e-3);

                // ½ α² sᵀFs = δ.
                let scaled = train("npg", &[&pairs[..], &["step=kl", "delta=0.002"]].concat(), &task);
                let alpha = (2.0 * 0.002 / dot(&s, &f.mul(&s))).sqrt();
                assert!((scaled.get("learn/step_size") / alpha - 1.0).abs() < 1e-3);
                let got: Vec<f64> = scaled.step().iter().map(|d| d / alpha).collect();
                assert!(relative_difference(&got, &s) < 2e-3, "{} {pairs:?}", task.action);
                let theta = wide(scaled.theta());
                for (name, expected) in [
                    ("learn/surrogate", slow.improvement(&theta)),
                    ("learn/kl", slow.mean_kl(&theta)),
                    ("learn/largest_kl", slow.largest_kl(&theta)),
                ] {
                    let got = scaled.get(name);
                    assert!((got - expected).abs() < 1e-5 + 1e-3 * expected.abs(), "{name} {got} {expected}");
                }
            }
        }
    }
}

#[test]
fn a_step_is_the_same_policy_whatever_the_parameters_scale() {
    // Observations twice as large and weights half as large are the same policy; with F undamped the natural
    // step is the same, too. A linear policy: the first weights are its only ones.
    let policy_after = |algo: &str, scale: f32, pairs: &[&str]| {
        let task = Task::new(Space::Discrete { n: 3 }, false, Some(9));
        let scaled = Task { obs_scale: scale, ..task };
        let pairs = [&["hidden=", "critic_hidden=", "cg_damping=1e-6", "lambda=1", "critic_epochs=1"], pairs]
            .concat();
        let make = scaled.make();
        let mut algo = build(algo, &pairs, &make, 1);
        // The critic is the same function: no weights.
        let mut theta = algo.model().theta.clone();
        for view in algo.model().views() {
            let factor = match &view.name[..] {
                "actor.logits.weight" => 1.0 / scale,
                "critic.value.weight" => 0.0,
                _ => 1.0,
            };
            theta[view.range].iter_mut().for_each(|x| *x *= factor);
        }
        let mut record = Record::new();
        for (key, array) in algo.save().iter() {
            record.put(key, if key == "theta" { theta.clone().into() } else { array.clone() });
        }
        let _ = algo.load(&record).unwrap();
        algo.iterate().unwrap();
        let model = algo.model();
        let view = model.views().into_iter().find(|v| v.name == "actor.logits.weight").unwrap();
        let w: Vec<f64> = wide(&model.theta[view.range]).iter().map(|w| w * f64::from(scale)).collect();
        // A number added to all logits is the same policy.
        let mean = |i: usize| (0..3).map(|k| w[k * OBS + i % OBS]).sum::<f64>() / 3.0;
        (0..w.len()).map(|i| w[i] - mean(i)).collect::<Vec<f64>>()
    };
    for (algo, pairs) in [("npg", &["step=fixed", "step_size=0.1"][..]), ("npg", &[]), ("trpo", &[])] {
        let (one, two) = (policy_after(algo, 1.0, pairs), policy_after(algo, 4.0, pairs));
        assert!(relative_difference(&two, &one) < 1e-2, "{algo} {pairs:?}: {one:?} {two:?}");
    }
}

/// What the line search of one try did with the first step, and what should have been done.
#[derive(Debug, Default)]
struct Outcomes {
    accepted: usize,
    too_far: usize,
    no_better: usize,
}

#[test]
fn a_step_is_taken_exactly_when_it_improves_and_stays_within_the_bound() {
    let mut outcomes = [Outcomes::default(), Outcomes::default(), Outcomes::default()];
    for task in tasks(Some(9)) {
        for delta in [0.001, 0.05, 0.5, 3.0, 100.0] {
            for (fisher, damping) in
                [("kl-hessian", "0.1"), ("kl-hessian", "1e-3"), ("empirical", "0.1"), ("empirical", "1e-4")]
            {
                let (fisher, damping) =
                    (&format!("fisher={fisher}")[..], &format!("cg_damping={damping}")[..]);
                let delta_pair = format!("delta={delta}");
                // The same first step, without a line search.
                let first = train("npg", &[&delta_pair, fisher, damping], &task);
                let slow = Slow::new(&first, &task, 0.8, true);
                let check = |at: &[f32], taken: &Trained, within: bool, better: f64, count: &mut Outcomes| {
                    if better.abs() < 1e-6 {
                        return;
                    }
                    let expected = within && better > 0.0;
                    let (what, accepted) = (task.action.clone(), taken.get("learn/accepted") == 1.0);
                    assert_eq!(accepted, expected, "{what} {delta}: within {within}, better {better}");
                    assert_eq!(taken.get("learn/tries"), 1.0);
                    if accepted {
                        assert_eq!(taken.theta(), at, "the step itself");
                        count.accepted += 1;
                    } else {
                        // Bit for bit.
                        assert_eq!(taken.theta(), taken.theta_old());
                        assert_eq!(taken.get("learn/step_size"), 0.0);
                        assert_eq!(taken.get("learn/kl"), 0.0);
                        if within { count.no_better += 1 } else { count.too_far += 1 }
                    }
                };
                let theta = wide(first.theta());
                let (kl, better) = (slow.mean_kl(&theta), slow.improvement(&theta));
                let once = [&delta_pair[..], fisher, damping, "backtrack_tries=1"];
                let taken = train("trpo", &once, &task);
                check(first.theta(), &taken, kl <= delta, better, &mut outcomes[0]);

                // The largest divergence: the first step is shorter, in proportion.
                let taken = train("trpo", &[&once[..], &["constraint=max-kl"]].concat(), &task);
                let free =
                    train("trpo", &[&once[..], &["constraint=penalty", "penalty_coef=1e-9"]].concat(), &task);
                assert_eq!(free.get("learn/accepted"), 0.0, "a step of length 1e9 is no good");
                if taken.get("learn/accepted") == 1.0 {
                    let theta = wide(taken.theta());
                    assert!(slow.largest_kl(&theta) <= delta * 1.0001 && slow.improvement(&theta) > 0.0);
                    assert!(taken.get("learn/step_size") < first.get("learn/step_size"));
                    outcomes[1].accepted += 1;
                } else {
                    assert_eq!(taken.theta(), taken.theta_old());
                    outcomes[1].too_far += 1;
                }

                // A price instead of a bound: first step 1/C.
                let price = 1.0 / first.get("learn/step_size");
                let pairs = [
                    fisher,
                    damping,
                    "backtrack_tries=1",
                    "constraint=penalty",
                    &format!("penalty_coef={price}"),
                ];
                let taken = train("trpo", &pairs, &task);
                let gain = better - price * kl;
                let at: Vec<f32> =
                    if taken.get("learn/accepted") == 1.0 { taken.theta().to_vec() } else { vec![] };
                check(&at, &taken, true, gain, &mut outcomes[2]);
                if !at.is_empty() {
                    assert!(relative_difference(&wide(&at), &theta) < 1e-5, "1/C is the first step's length");
                }
            }
        }
    }
    let [mean, max, penalty] = &outcomes;
    assert!(mean.accepted > 5 && mean.too_far > 2 && mean.no_better > 2, "{outcomes:?}");
    assert!(max.accepted > 5 && max.too_far > 2, "{outcomes:?}");
    assert!(penalty.accepted > 5 && penalty.no_better > 5, "{outcomes:?}");
}

#[test]
fn a_shorter_step_is_tried_until_one_is_good() {
    let mut shortened = 0;
    for task in tasks(Some(9)) {
        for (constraint, delta) in [("mean-kl", 0.5), ("mean-kl", 3.0), ("max-kl", 0.5), ("max-kl", 3.0)] {
            let pairs =
                [&format!("constraint={constraint}")[..], &format!("delta={delta}"), "backtrack_ratio=0.7"];
            let long = [&pairs[..], &["backtrack_tries=30", "cg_damping=1e-3"]].concat();
            let taken = train("trpo", &long, &task);
            let slow = Slow::new(&taken, &task, 0.8, true);
            let tries = taken.get("learn/tries") as i32;
            assert_eq!(taken.get("learn/accepted"), 1.0, "{} {constraint} {delta}", task.action);
            let theta = wide(taken.theta());
            let kl = |theta: &[f64]| {
                if constraint == "mean-kl" { slow.mean_kl(theta) } else { slow.largest_kl(theta) }
            };
            assert!(kl(&theta) <= delta * 1.0001 && slow.improvement(&theta) > 0.0, "{}", kl(&theta));
            if tries > 1 {
                // The try before was no good.
                let before: Vec<f64> =
                    slow.theta_old.iter().zip(taken.step()).map(|(t, d)| t + d / 0.7).collect();
                assert!(kl(&before) > delta * 0.9999 || slow.improvement(&before) < 1e-6);
                shortened += 1;
                let fewer = format!("backtrack_tries={}", tries - 1);
                let fewer = [&long[..], &[&fewer]].concat();
                let none = train("trpo", &fewer, &task);
                assert_eq!((none.theta(), none.get("learn/accepted")), (none.theta_old(), 0.0));
            }
        }
    }
    assert!(shortened > 5, "{shortened}");
}

#[test]
fn without_advantages_nothing_moves() {
    // Rewards of 0 and a critic that says 0: the gradient is 0.
    for algo in ["npg", "trpo"] {
        let task = Task { scale: 0.0, ..Task::new(Space::Discrete { n: 4 }, false, Some(9)) };
        let mut algo = build(algo, &["hidden=", "critic_hidden="], &task.make(), 1);
        let mut theta = algo.model().theta.clone();
        let critic = algo.model().critic().params.clone();
        theta[critic].fill(0.0);
        let mut record = Record::new();
        for (key, array) in algo.save().iter() {
            record.put(key, if key == "theta" { theta.clone().into() } else { array.clone() });
        }
        let _ = algo.load(&record).unwrap();
        let report = algo.iterate().unwrap();
        assert_eq!(algo.model().theta, theta);
        assert_eq!(report.get("learn/step_size"), Some(0.0));
    }
}

#[test]
fn the_critic_follows_the_gradient_of_its_squared_error() {
    for task in tasks(Some(9)) {
        for algo in ["npg", "trpo"] {
            let one = train(algo, &[], &task);
            let slow = Slow::new(&one, &task, 0.8, true);
            let params = one.before.critic().params.clone();
            let loss = |critic: &[f64]| {
                let mut theta = wide(&one.before.theta);
                theta[params.clone()].copy_from_slice(critic);
                let v = slow.batch.values(&one.before, &theta, &slow.batch.obs);
                v.iter().zip(&slow.ret).map(|(v, r)| (v - r).powi(2)).sum::<f64>() / N as f64
            };
            let before = wide(&one.before.theta[params.clone()]);
            let expected = finite_difference_gradient(loss, &before);
            // Adam's first mean gradient is a tenth of the gradient.
            let m = wide(one.saved.f32s("critic.adam.m", params.len()).unwrap());
            let got: Vec<f64> = m.iter().map(|m| m / 0.1).collect();
            let error = relative_difference(&got, &expected);
            assert!(error < 2e-4, "{algo} {}: {error:e}", task.action);
            assert!((one.get("learn/value_loss") / loss(&before) - 1.0).abs() < 1e-4);
        }
    }
}

// ---- settings ----

fn random_task() -> Task {
    Task::new(Space::Discrete { n: 4 }, false, Some(9))
}

fn gaussian_task() -> Task {
    Task::new(Space::Box(BoxSpace::unbounded(2)), false, Some(9))
}

/// A test for each setting of both that is not shared with PPO, called like it, and the list of them.
macro_rules! settings_that_are_tested {
    ($($key:ident => $body:block)*) => {
        mod settings {
            use super::*;
            $(#[test] fn $key() $body)*
        }
        const TESTED: &[&str] = &[$(stringify!($key)),*];
    };
}

#[test]
fn no_setting_is_without_a_test() {
    let shared = PpoConfig::default();
    let shared: Vec<&str> = [
        &shared.rollout as &dyn pgrad_settings::Settings,
        &shared.model,
        &shared.recurrent,
        &shared.normalize,
    ]
    .iter()
    .flat_map(|p| p.declarations().iter().map(|s| s.key))
    .collect();
    let mut declared: Vec<&str> = Vec::new();
    for algo in ["npg", "trpo"] {
        let config = (pgrad_algos::find(algo).unwrap().config)();
        let own = config
            .parts()
            .into_iter()
            .flat_map(|p| p.declarations().iter().map(|s| s.key).collect::<Vec<_>>());
        declared.extend(own.filter(|key| !shared.contains(key)));
    }
    declared.sort_unstable();
    declared.dedup();
    let mut tested = TESTED.to_vec();
    tested.sort_unstable();
    assert_eq!(tested, declared);
}

/// What both do with a setting.
fn both(pairs: &[&str], task: &Task) -> [Trained; 2] {
    ["npg", "trpo"].map(|algo| train(algo, pairs, task))
}

settings_that_are_tested! {
    psi => {
        for (psi, other) in [("gae", "lambda-return"), ("lambda-return", "gae")] {
            let pairs = [&format!("psi={psi}")[..], "normalize_advantage=false"];
            for algo in ["npg", "trpo"] {
                let task = random_task();
                let trained = train(algo, &pairs, &task);
                let norm = |psi| {
                    let g = Slow::with_psi(&trained, &task, 0.8, false, psi).gradient();
                    dot(&g, &g).sqrt()
                };
                let got = trained.get("learn/grad_norm");
                assert!((got / norm(psi) - 1.0).abs() < 1e-3, "{algo} {psi}: {got}");
                assert!((got / norm(other) - 1.0).abs() > 1e-2, "{algo}: {psi} is not {other}");
                // The critic's target is the same.
                let critic = |t: &Trained| t.after.theta[t.after.critic().params.clone()].to_vec();
                assert_eq!(critic(&trained), critic(&train(algo, &["normalize_advantage=false"], &task)));
            }
        }
    }
    lambda => {
        // In full: `the_natural_step_is_that_of_the_dense_solve`.
        for (a, b) in both(&["lambda=0"], &random_task()).iter().zip(&both(&["lambda=1"], &random_task())) {
            assert_ne!(a.theta(), b.theta());
        }
    }
    normalize_advantage => {
        // Without it the gradient has the scale of the rewards.
        for (normalize, factor) in [("true", 1.0), ("false", 100.0)] {
            let pairs = ["lambda=1", "hidden=", "critic_hidden=", &format!("normalize_advantage={normalize}")];
            let norm = |scale: f64| {
                both(&pairs, &Task { scale, ..random_task() }).map(|t| t.get("learn/grad_norm"))
            };
            // The critic's share of the advantages does not grow with the rewards: large ones.
            for (large, small) in norm(1e6).iter().zip(norm(1e4)) {
                assert!((large / small / factor - 1.0).abs() < 1e-2, "{large} {small}");
            }
        }
    }
    fisher => {
        for (a, b) in both(&[], &gaussian_task()).iter().zip(&both(&["fisher=empirical"], &gaussian_task())) {
            assert_ne!(a.theta(), b.theta());
        }
    }
    fisher_every => {
        // 165 samples: all of them, or 83 rounded up to two chunks, or one chunk.
        let step = |every: &str| both(&[&format!("fisher_every={every}")], &random_task());
        let (all, half, few) = (step("1"), step("2"), step("100"));
        for i in 0..2 {
            assert_ne!(all[i].theta(), half[i].theta());
            assert_ne!(half[i].theta(), few[i].theta());
            let norm = few[i].get("learn/grad_norm") / all[i].get("learn/grad_norm");
            assert!((norm - 1.0).abs() < 1e-6, "the gradient takes all: {norm}");
        }
    }
    cg_iterations => {
        for n in [1, 3] {
            for trained in both(&[&format!("cg_iterations={n}"), "cg_tolerance=0"], &random_task()) {
                assert_eq!(trained.get("learn/cg_products"), f64::from(n));
            }
        }
        // One product: along the gradient itself.
        for trained in both(&["cg_iterations=1"], &random_task()) {
            let task = random_task();
            let again = train("npg", &["cg_iterations=1"], &task);
            let g = Slow::new(&again, &task, 0.8, true).gradient();
            let d = trained.step();
            assert!(dot(&d, &g) / (dot(&d, &d) * dot(&g, &g)).sqrt() > 0.9999);
        }
    }
    cg_tolerance => {
        for (tolerance, small) in [(0.5, false), (1e-3, true)] {
            for trained in both(&[&format!("cg_tolerance={tolerance}")], &random_task()) {
                let residual = trained.get("learn/cg_residual");
                assert!(residual <= tolerance && (residual < 0.01) == small, "{residual}");
            }
        }
    }
    cg_damping => {
        // A damping far above F leaves the gradient, divided by it.
        let task = random_task();
        let trained = train("npg", &["cg_damping=1e4", "step=fixed", "step_size=1"], &task);
        let g = Slow::new(&trained, &task, 0.8, true).gradient();
        let got: Vec<f64> = trained.step().iter().map(|d| d * 1e4).collect();
        assert!(relative_difference(&got, &g) < 1e-2);
    }
    batch => {
        for algo in ["npg", "trpo"] {
            let task = random_task();
            let t = train(algo, &["batch=episodes", "n_episodes=20"], &task);
            // As many steps as these episodes have; of each environment the first four.
            let log = task.log.lock().unwrap();
            let lengths = log.iter().flat_map(|steps| {
                let ended = |s: &Seen| s.end != End::Running;
                let mut lengths = Vec::new();
                let mut length = 0;
                for (i, step) in steps.iter().enumerate() {
                    length += 1;
                    // The recorder does not know the time limit of nine steps by the end it gives itself.
                    if ended(step) || length == 9 {
                        lengths.push(length);
                        length = 0;
                    }
                    assert!(i < steps.len());
                }
                lengths.truncate(4);
                lengths
            });
            let steps: u64 = lengths.map(|l: u64| l).sum();
            assert_eq!(t.saved.u64("steps").unwrap(), steps);
            assert_eq!(train(algo, &["batch=steps"], &random_task()).saved.u64("steps").unwrap(), N as u64);
            assert_ne!(t.theta(), t.theta_old());
        }
    }
    n_episodes => {
        for (n, algo) in [(5, "npg"), (13, "trpo")] {
            let mut algo = build(algo, &["batch=episodes", &format!("n_episodes={n}")], &random_task().make(), 1);
            algo.iterate().unwrap();
            assert_eq!(algo.episodes().count(), n);
            let lengths: u64 = algo.episodes().map(|e| u64::from(e.length)).sum();
            assert_eq!((algo.steps(), algo.steps_per_iteration()), (lengths, lengths));
        }
        let make = random_task().make();
        let error = config("trpo", &["batch=episodes", "n_episodes=4"]).check(&spec_of(&make).unwrap()).unwrap_err();
        assert!(error.to_string().contains("n_episodes"), "{error}");
    }
    critic_hidden => {
        for t in both(&["hidden=", "critic_hidden=7,3"], &random_task()) {
            assert_eq!(t.after.critic_hidden(), [7, 3]);
            assert_eq!(t.after.critic().params.len(), (OBS * 7 + 7) + (7 * 3 + 3) + (3 + 1));
            assert_eq!(t.after.actor().params.len(), OBS * 4 + 4);
        }
    }
    critic_epochs => {
        let t = |n: &str| {
            both(&[&format!("critic_epochs={n}")], &random_task()).map(|t| t.saved.u64("critic.adam.t").unwrap())
        };
        assert_eq!((t("1"), t("7")), ([1, 1], [7, 7]));
    }
    minibatch_size => {
        let t = |n: &str| {
            both(&[&format!("minibatch_size={n}")], &random_task()).map(|t| t.saved.u64("critic.adam.t").unwrap())
        };
        assert_eq!((t("165"), t("55"), t("50")), ([1, 1], [3, 3], [4, 4]));
        let make = random_task().make();
        for algo in ["npg", "trpo"] {
            let error = config(algo, &["minibatch_size=166"]).check(&spec_of(&make).unwrap()).unwrap_err().to_string();
            assert!(error.contains("minibatch_size") && error.contains("165"), "{error}");
        }
    }
    critic_learning_rate => {
        for rate in [0.01, 0.02] {
            for t in both(&[&format!("critic_learning_rate={rate}"), "adam_epsilon=1e-12"], &random_task()) {
                let params = t.before.critic().params.clone();
                let moved = t.after.theta[params.clone()].iter().zip(&t.before.theta[params]).map(|(a, b)| (a - b).abs());
                let largest = moved.fold(0.0f32, f32::max);
                assert!((f64::from(largest) / rate - 1.0).abs() < 1e-3, "Adam's first step: {largest}");
            }
        }
    }
    adam_epsilon => {
        for t in both(&["adam_epsilon=1e6"], &random_task()) {
            let params = t.before.critic().params.clone();
            let moved = t.after.theta[params.clone()].iter().zip(&t.before.theta[params]).map(|(a, b)| (a - b).abs());
            assert!(moved.fold(0.0f32, f32::max) < 1e-6);
        }
    }
    step => {
        let step = |pairs: &[&str]| train("npg", pairs, &random_task()).get("learn/step_size");
        assert_eq!(step(&["step=fixed", "step_size=0.25"]), 0.25);
        let kl = |delta: f64| step(&["step=kl", &format!("delta={delta}")]);
        assert!((kl(0.04) / kl(0.01) - 2.0).abs() < 1e-6);
    }
    step_size => {
        let step = |a: &str| train("npg", &["step=fixed", &format!("step_size={a}")], &random_task()).step();
        let (one, two) = (step("0.1"), step("0.2"));
        assert!(relative_difference(&two, &one.iter().map(|d| 2.0 * d).collect::<Vec<_>>()) < 1e-4);
    }
    delta => {
        for delta in [1e-5, 1e-4] {
            for t in both(&[&format!("delta={delta}"), "cg_damping=1e-4"], &random_task()) {
                let kl = t.get("learn/kl");
                assert!(0.5 * delta < kl && kl < 1.5 * delta, "{kl}");
            }
        }
    }
    constraint => {
        // `a_step_is_taken_exactly_when_it_improves_and_stays_within_the_bound` has the rest.
        let t = |c: &str| train("trpo", &[&format!("constraint={c}")], &random_task());
        let (mean, max) = (t("mean-kl"), t("max-kl"));
        assert!(mean.get("learn/largest_kl") > 0.01 && max.get("learn/largest_kl") <= 0.01);
        assert!(max.get("learn/kl") < mean.get("learn/kl"));
        assert_ne!(t("penalty").theta(), mean.theta());
    }
    sampling => {
        // One iteration in a task with steps of one: every rollout is a step.
        let run = |kind: ActionKind, pairs: &[&str]| {
            let mut algo = build("trpo", pairs, &probe(kind), 1);
            let report = algo.iterate().unwrap();
            (algo, report)
        };
        let mut seen: Vec<Vec<u32>> = Vec::new();
        for (sampling, rollouts) in [("single-path", 0), ("vine", 4), ("vine-uniform", 4), ("vine-every", 2)] {
            let (algo, report) = run(ActionKind::Discrete, &[&format!("sampling={sampling}"), "hidden=", "critic_hidden=64,64"]);
            let vine = rollouts > 0;
            assert_eq!(algo.steps(), (N + 125 * rollouts) as u64, "{sampling}");
            assert_eq!(algo.steps_per_iteration(), algo.steps());
            assert_eq!(algo.model().has_critic(), !vine);
            assert_eq!(report.get("learn/value_loss").is_none(), vine);
            assert_eq!(report.get("learn/explained_variance").is_none(), vine);
            assert_eq!(report.get("learn/accepted"), Some(1.0));
            let policy = pgrad_model::Policy::from_bytes(&algo.policy(1).to_bytes().unwrap()).unwrap();
            assert_eq!(policy.obs_dim(), 1);
            let theta = algo.model().theta[algo.model().actor().params.clone()].iter().map(|x| x.to_bits()).collect();
            assert!(!seen.contains(&theta), "{sampling}");
            seen.push(theta);
        }
        let (algo, _) = run(ActionKind::Continuous, &["sampling=vine"]);
        assert_eq!(algo.steps(), (N + 125 * 4) as u64);
        // What the space or the batch does not have.
        let refused = |spec: &pgrad_env::EnvSpec, pairs: &[&str], key: &str| {
            let error = config("trpo", pairs).check(spec).unwrap_err().to_string();
            assert!(error.contains(&format!("`{key}`")), "{error}");
        };
        let continuous = spec_of(&probe(ActionKind::Continuous)).unwrap();
        refused(&continuous, &["sampling=vine-every"], "sampling");
        refused(&continuous, &["sampling=vine-uniform"], "sampling");
        let choices = spec_of(&Each::maker(|| RightChoices)).unwrap();
        refused(&choices, &["sampling=vine-every"], "sampling");
        config("trpo", &["sampling=vine-uniform"]).check(&choices).unwrap();
        refused(&choices, &["sampling=vine", "batch=episodes"], "batch");
        // A task that cannot go back to a state, before anything starts.
        let make = random_task().make();
        for (sampling, accepted) in [("single-path", true), ("vine", false)] {
            let config = config("trpo", &[&format!("sampling={sampling}")]);
            let looked = config.check_env(&make);
            assert_eq!(looked.is_ok(), accepted);
            let setup = Setup { spec: &spec_of(&make).unwrap(), make_env: &make, seed: 2, total_steps: 1, cpu: Cpu::new(1).unwrap() };
            let built = config.build(&setup).map(|_| ());
            assert_eq!(looked, built);
            if let Err(e) = built {
                let e = e.to_string();
                assert!(e.contains("Recorder") && e.contains("Env::save") && e.contains("single-path"), "{e}");
            }
        }
    }
    vine_states => {
        for n in [1, 7, N] {
            let pairs = ["sampling=vine", &format!("vine_states={n}")];
            let mut algo = build("trpo", &pairs, &probe(ActionKind::Discrete), 1);
            algo.iterate().unwrap();
            assert_eq!(algo.steps(), (N + 4 * n) as u64);
        }
        let spec = spec_of(&probe(ActionKind::Discrete)).unwrap();
        let error = config("trpo", &["sampling=vine", "vine_states=166"]).check(&spec).unwrap_err().to_string();
        assert!(error.contains("`vine_states` = 166") && error.contains("= 165"), "{error}");
        config("trpo", &["vine_states=166"]).check(&spec).unwrap();
    }
    vine_rollouts => {
        for k in [2, 5, 100] {
            let pairs = ["sampling=vine", "vine_states=30", &format!("vine_rollouts={k}")];
            let mut algo = build("trpo", &pairs, &probe(ActionKind::Continuous), 1);
            algo.iterate().unwrap();
            assert_eq!(algo.steps(), (N + 30 * k) as u64);
        }
    }
    vine_length => {
        // A task without an end: as many steps as there may be, behind the time limit of 2 as well.
        let make = Each::maker(|| EndlessReward::new(ActionKind::Discrete, 2));
        for length in [1, 9] {
            let pairs = ["sampling=vine", "vine_states=30", &format!("vine_length={length}")];
            let mut algo = build("trpo", &pairs, &make, 1);
            algo.iterate().unwrap();
            assert_eq!(algo.steps(), (N + 30 * 4 * length) as u64);
        }
    }
    penalty_coef => {
        let step = |c: &str| {
            train("trpo", &["constraint=penalty", &format!("penalty_coef={c}")], &random_task()).get("learn/step_size")
        };
        assert!((step("100") - 0.01).abs() < 1e-9 && (step("1000") - 0.001).abs() < 1e-9);
    }
    backtrack_ratio => {
        for ratio in [0.5, 0.9] {
            let pairs = ["delta=3", "cg_damping=1e-3", "backtrack_tries=40", &format!("backtrack_ratio={ratio}")];
            let task = random_task();
            let (first, taken) = (train("npg", &pairs[..2], &task), train("trpo", &pairs, &random_task()));
            let tries = taken.get("learn/tries") as i32;
            assert!(tries > 1);
            let expected = first.get("learn/step_size") * f64::powi(ratio, tries - 1);
            assert!((taken.get("learn/step_size") / expected - 1.0).abs() < 1e-6);
        }
    }
    backtrack_tries => {
        // No step of this length is good, however little it is shortened.
        let pairs = ["constraint=penalty", "penalty_coef=1e-6", "backtrack_ratio=0.99", "backtrack_tries=3"];
        let t = train("trpo", &pairs, &random_task());
        assert_eq!((t.get("learn/tries"), t.get("learn/accepted")), (3.0, 0.0));
    }
}

// ---- bits ----

fn probe(kind: ActionKind) -> impl Fn(usize) -> BatchResult {
    Each::maker(move || ObservedActionReward::new(kind))
}

const VARIANTS: &[(&str, &[&str])] = &[
    ("npg", &[]),
    ("npg", &["step=fixed", "fisher=empirical", "fisher_every=2"]),
    ("trpo", &["normalize_obs=true", "normalize_reward=true"]),
    ("trpo", &["constraint=max-kl", "minibatch_size=50", "critic_epochs=3"]),
    ("trpo", &["constraint=penalty", "fisher=empirical"]),
    ("trpo", &["sampling=vine", "vine_states=40", "normalize_obs=true", "normalize_reward=true"]),
    ("trpo", &["sampling=vine", "vine_rollouts=2", "fisher=empirical", "fisher_every=2"]),
    ("npg", &["batch=episodes", "n_episodes=150", "minibatch_size=64"]),
    ("trpo", &["batch=episodes", "n_episodes=12", "critic_hidden=5"]),
];

fn bits(algo: &dyn Algorithm) -> Vec<u32> {
    algo.model().theta.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    for kind in [ActionKind::Discrete, ActionKind::Continuous] {
        for (name, pairs) in VARIANTS {
            let run = |threads: usize| {
                let mut algo = build(name, pairs, &probe(kind), threads);
                let reports: Vec<Report> = (0..5).map(|_| algo.iterate().unwrap()).collect();
                (bits(&*algo), format!("{reports:?}"))
            };
            let one = run(1);
            for threads in [2, 4] {
                assert!(run(threads) == one, "{name} {pairs:?}: {threads} threads differ");
            }
        }
    }
}

#[test]
fn a_saved_run_goes_on_with_the_same_bits() {
    for kind in [ActionKind::Discrete, ActionKind::Continuous] {
        for (name, pairs) in VARIANTS {
            let mut whole = build(name, pairs, &probe(kind), 1);
            for _ in 0..3 {
                whole.iterate().unwrap();
            }
            whole.scale_step_size(0.5);
            let saved = whole.save();
            let mut resumed = build(name, pairs, &probe(kind), 1);
            assert!(resumed.load(&saved).unwrap(), "the environments continue exactly");
            for _ in 0..3 {
                let (a, b) = (whole.iterate().unwrap(), resumed.iterate().unwrap());
                assert_eq!(format!("{a:?}"), format!("{b:?}"), "{name} {pairs:?}");
            }
            assert!(bits(&*whole) == bits(&*resumed), "{name} {pairs:?}");
            assert_eq!(whole.steps(), resumed.steps());
            assert!(whole.steps() >= 6 * 12);
        }
    }
}

#[test]
fn a_divergence_shortens_every_step() {
    for algo in ["npg", "trpo"] {
        // The policy's, and the critic's: Adam's first step is as long as its step size.
        let size = |factor: f64| {
            let mut algo = build(algo, &["delta=1e-4", "adam_epsilon=1e-12"], &random_task().make(), 1);
            algo.scale_step_size(factor);
            let (params, before) = (algo.model().critic().params.clone(), algo.model().theta.clone());
            let report = algo.iterate().unwrap();
            let moved =
                algo.model().theta[params.clone()].iter().zip(&before[params]).map(|(a, b)| (a - b).abs());
            (report.get("learn/step_size").unwrap(), f64::from(moved.fold(0.0f32, f32::max)))
        };
        let (half, whole) = (size(0.5), size(1.0));
        assert!(
            (half.0 / whole.0 - 0.5).abs() < 1e-9 && (half.1 / whole.1 - 0.5).abs() < 1e-3,
            "{half:?} {whole:?}"
        );
    }
}

#[test]
fn a_step_to_infinity_is_refused_and_named() {
    let mut algo = build("npg", &["step=fixed", "step_size=1e39"], &random_task().make(), 1);
    let before = bits(&*algo);
    let error = algo.iterate().unwrap_err();
    assert!(error.is_divergence() && error.to_string().contains("actor."), "{error}");
    assert!(bits(&*algo) == before);
}
