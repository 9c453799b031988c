//! The step that A2C takes, end to end, against finite differences of its objective in `f64` and the formula
//! of RMSProp; and a test for each setting.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

#[path = "../../pgrad-collect/tests/common/mod.rs"]
mod common;

use common::{Batch, Seen, Task, relative_difference, tasks, wide};
use pgrad_algos::a2c::{A2cSettings, Advantage};
use pgrad_algos::{A2cConfig, AlgoConfig, Report, Setup};
use pgrad_engine::Cpu;
use pgrad_env::{
    Each, End, Space,
    probe::{ActionKind, ActionReward},
    spec_of,
};
use pgrad_model::ActorCritic;
use pgrad_settings::{Settings, apply_pair};
use pgrad_testkit::finite_difference_gradient;

const N_ENVS: usize = 5;
const N_STEPS: usize = 33;

macro_rules! settings_that_are_tested {
    ($($key:ident => $body:block)*) => {
        $(#[test] fn $key() $body)*
        const TESTED: &[&str] = &[$(stringify!($key)),*];
    };
}

#[test]
fn no_setting_is_without_a_test() {
    let mut declared: Vec<&str> = A2cSettings::default().declarations().iter().map(|s| s.key).collect();
    declared.sort_unstable();
    let mut tested = TESTED.to_vec();
    tested.sort_unstable();
    assert_eq!(tested, declared);
}

fn config(pairs: &[&str]) -> A2cConfig {
    let mut c = A2cConfig::default();
    let (n_envs, n_steps) = (format!("n_envs={N_ENVS}"), format!("n_steps={N_STEPS}"));
    let small = [
        &n_envs[..],
        &n_steps,
        "envs_per_shard=2",
        "gamma=0.9",
        "hidden=5",
        "max_grad_norm=none",
        "learning_rate=0.5",
        "learning_rate_schedule=constant",
    ];
    for pair in small.iter().chain(pairs) {
        let A2cConfig { rollout, a2c, model, recurrent, trunk, normalize } = &mut c;
        apply_pair(pair, "test", &mut [rollout, a2c, model, recurrent, trunk, normalize]).unwrap();
    }
    c
}

struct Trained {
    before: ActorCritic,
    after: ActorCritic,
    /// RMSProp's mean square.
    v: Vec<f64>,
    report: Report,
}

fn train(config: &A2cConfig, task: &Task, total_steps: u64, iterations: usize) -> Trained {
    let make = task.make();
    let setup = Setup {
        spec: &spec_of(&make).unwrap(),
        make_env: &make,
        seed: 2,
        total_steps,
        cpu: Cpu::new(1).unwrap(),
    };
    let mut a2c = config.build(&setup).unwrap();
    let before = a2c.model().clone();
    task.log.lock().unwrap().clear();
    a2c.start().unwrap();
    let report = (0..iterations).map(|_| a2c.iterate().unwrap()).last().unwrap();
    let v = wide(a2c.save().f32s("rmsprop.v", before.theta.len()).unwrap());
    Trained { before, after: a2c.model().clone(), v, report }
}

fn first(pairs: &[&str]) -> Trained {
    train(&config(pairs), &Task::new(Space::Discrete { n: 4 }, false, Some(9)), 1_000_000, 1)
}

/// The gradient that RMSProp got, from the step that it made: `g = Δθ √(v + ε)/α`.
fn gradient(from: &ActorCritic, to: &ActorCritic, v: &[f64], c: &A2cSettings) -> Vec<f64> {
    let steps = wide(&from.theta).into_iter().zip(wide(&to.theta)).map(|(a, b)| a - b);
    steps.zip(v).map(|(step, v)| step * (v + c.rmsprop_epsilon).sqrt() / c.learning_rate).collect()
}

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// One iteration's data and what is computed from it, from the definitions.
struct Slow<'a> {
    config: &'a A2cConfig,
    model: &'a ActorCritic,
    paths: Vec<Vec<Seen>>,
    batch: Batch,
    logp_old: Vec<f64>,
}

impl<'a> Slow<'a> {
    fn new(config: &'a A2cConfig, model: &'a ActorCritic, task: &Task) -> Self {
        let paths = task.log.lock().unwrap().clone();
        assert_eq!(paths.iter().map(Vec::len).collect::<Vec<_>>(), [N_STEPS; N_ENVS]);
        let batch = Batch::new(&paths.concat(), task.masked);
        let logp_old = batch.policy(model, &wide(&model.theta)).0;
        Self { config, model, paths, batch, logp_old }
    }
    /// Advantages and targets.
    fn estimates(&self, theta: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let (c, gamma) = (&self.config.a2c, self.config.rollout.gamma);
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
            let discounted = |t: usize, s: usize| gamma.powi((s - t) as i32);
            let vs = |t: usize| -> f64 {
                let term = |s: usize| {
                    let traces: f64 = (t..s).map(|i| c.lambda * ratio(i).min(c.c_bar)).product();
                    discounted(t, s) * traces * ratio(s).min(c.rho_bar) * delta(s)
                };
                v[at(t)] + (t..=end(t)).map(term).sum::<f64>()
            };
            for t in 0..N_STEPS {
                let e = end(t);
                let (a, r) = match c.advantage {
                    Advantage::NStep => {
                        let sum: f64 = (t..=e).map(|s| discounted(t, s) * steps[s].reward).sum();
                        let r = sum + gamma * discounted(t, e) * v_next(e);
                        (r - v[at(t)], r)
                    }
                    Advantage::Gae => {
                        let term = |s: usize| c.lambda.powi((s - t) as i32) * discounted(t, s) * delta(s);
                        let a: f64 = (t..=e).map(term).sum();
                        (a, a + v[at(t)])
                    }
                    Advantage::LambdaReturn => {
                        let term = |s: usize| c.lambda.powi((s - t) as i32) * discounted(t, s) * delta(s);
                        let g = v[at(t)] + (t..=e).map(term).sum::<f64>();
                        (g, g)
                    }
                    Advantage::Vtrace => {
                        let next = if t == e { v_next(t) } else { vs(t + 1) };
                        let a = ratio(t).min(c.rho_bar) * (steps[t].reward + gamma * next - v[at(t)]);
                        (a, vs(t))
                    }
                };
                adv.push(a);
                ret.push(r);
            }
        }
        (adv, ret)
    }
    /// What is descended, with advantages and targets held.
    fn loss(&self, theta: &[f64], adv: &[f64], ret: &[f64]) -> f64 {
        let c = &self.config.a2c;
        let (logp, entropy) = self.batch.policy(self.model, theta);
        let v = self.batch.values(self.model, theta, &self.batch.obs);
        let each = |i: usize| {
            -logp[i] * adv[i] + c.value_coef * (v[i] - ret[i]).powi(2) - c.entropy_coef * entropy[i]
        };
        (0..adv.len()).map(each).sum::<f64>() / adv.len() as f64
    }
}

fn check(pairs: &[&str], task: &Task) -> Trained {
    let mut config = config(pairs);
    let name = format!("{} masked {} {pairs:?}", task.action, task.masked);
    let mut one = train(&config, task, 1_000_000, 1);
    let slow_config = config.clone();
    let model = one.before.clone();
    let slow = Slow::new(&slow_config, &model, task);
    if config.a2c.advantage == Advantage::Vtrace {
        // One step more on the same data: the third one, on data that are stale.
        config.a2c.epochs += 1;
        let more = train(&config, task, 1_000_000, 1);
        one = Trained { before: one.after, ..more };
    }
    let theta = wide(&one.before.theta);
    let (adv, ret) = slow.estimates(&theta);
    let expected = finite_difference_gradient(|t| slow.loss(t, &adv, &ret), &theta);
    let got = gradient(&one.before, &one.after, &one.v, &config.a2c);
    let error = relative_difference(&got, &expected);
    assert!(error < 3e-4, "{name}: {error:e}");
    one
}

#[test]
fn follows_the_equations_for_every_action_space_and_trunk() {
    for task in tasks(Some(9)) {
        for trunk in ["trunk=separate", "trunk=shared"] {
            check(&[trunk, "entropy_coef=0.3"], &task);
            check(&[trunk, "advantage=gae", "lambda=0.7", "value_coef=2"], &task);
            check(&[trunk, "advantage=lambda-return", "lambda=0.6"], &task);
            check(&[trunk, "advantage=vtrace", "lambda=0.9", "rho_bar=1.1", "c_bar=0.95"], &task);
        }
    }
}

/// What is learnt with `pairs`.
fn theta(pairs: &[&str]) -> Vec<f32> {
    first(pairs).after.theta
}

/// A bound of V-trace changes what is learnt when ratios reach it, and only then.
fn v_trace_bound(name: &str) {
    let with = |bound: &str| theta(&["advantage=vtrace", &format!("{name}={bound}")]);
    assert_ne!(with("1"), with("0.5"));
    assert_ne!(with("1"), with("1000"));
    assert_eq!(with("1000"), with("2000"), "no ratio is that large");
}

/// Largest difference between elements.
fn difference(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

settings_that_are_tested! {
    advantage => {
        let (n_step, gae) = (theta(&["advantage=n-step"]), theta(&["advantage=gae", "lambda=0.5"]));
        assert!(difference(&n_step, &gae) > 1e-3);
        assert!(difference(&gae, &theta(&["advantage=lambda-return", "lambda=0.5"])) > 1e-3);
        let whole = theta(&["advantage=gae", "lambda=1"]);
        assert!(difference(&n_step, &whole) < 1e-5, "the longest return is n-step");
    }
    lambda => {
        for advantage in ["advantage=gae", "advantage=lambda-return", "advantage=vtrace"] {
            assert_ne!(theta(&[advantage, "lambda=0.5"]), theta(&[advantage, "lambda=0.9"]));
        }
    }
    epochs => {
        for (pairs, updates) in [
            (&["advantage=n-step"][..], 1.0),
            (&["advantage=gae"], 1.0),
            (&["advantage=vtrace"], 2.0),
            (&["advantage=vtrace", "epochs=4"], 4.0),
        ] {
            assert_eq!(first(pairs).report.get("learn/updates"), Some(updates));
        }
    }
    rho_bar => { v_trace_bound("rho_bar"); }
    c_bar => { v_trace_bound("c_bar"); }
    learning_rate => {
        let step = |rate: f64| {
            let t = first(&[&format!("learning_rate={rate}")]);
            assert_eq!(t.report.get("learn/learning_rate"), Some(rate));
            wide(&t.after.theta).iter().zip(wide(&t.before.theta)).map(|(a, b)| a - b).collect::<Vec<f64>>()
        };
        let (whole, half) = (step(0.5), step(0.25));
        assert!(norm(&whole) > 0.05);
        assert!(whole.iter().zip(&half).all(|(w, h)| (w - 2.0 * h).abs() < 1e-6));
    }
    learning_rate_schedule => {
        let task = Task::new(Space::Discrete { n: 4 }, false, Some(9));
        let steps = (N_ENVS * N_STEPS) as u64;
        for (schedule, third) in [("linear", 0.25), ("constant", 0.5)] {
            let c = config(&[&format!("learning_rate_schedule={schedule}")]);
            let report = train(&c, &task, 4 * steps, 3).report;
            assert_eq!(report.get("learn/learning_rate"), Some(third));
        }
    }
    rmsprop_decay => {
        let plain = first(&[]);
        for decay in [0.0, 0.5, 0.99] {
            let t = first(&[&format!("rmsprop_decay={decay}")]);
            let c = config(&[&format!("rmsprop_decay={decay}")]).a2c;
            let g = gradient(&plain.before, &plain.after, &plain.v, &config(&[]).a2c);
            for (v, g) in t.v.iter().zip(&g) {
                let expected = c.rmsprop_decay + (1.0 - c.rmsprop_decay) * g * g;
                assert!((v - expected).abs() < 1e-4, "{v} {expected}");
            }
        }
    }
    rmsprop_form => {
        let c = config(&[]).a2c;
        let plain = first(&[]);
        let g = gradient(&plain.before, &plain.after, &plain.v, &c);
        let t = first(&["rmsprop_form=pytorch", "rmsprop_epsilon=1e-3"]);
        // From a mean square of 0: outside the root, and a first step that hardly knows how long the gradient
        // is.
        for ((a, b), (g, v)) in wide(&t.after.theta).iter().zip(wide(&t.before.theta)).zip(g.iter().zip(&t.v)) {
            assert!((v - 0.01 * g * g).abs() < 1e-6, "{v} {g}");
            let root = (0.01 * g * g).sqrt();
            assert!((a - (b - 0.5 * g / (root + 1e-3))).abs() < 2e-2 * (0.5 * g / (root + 1e-3)).abs() + 1e-3, "{a} {b} {g}");
        }
    }
    rmsprop_epsilon => {
        let plain = first(&[]);
        let g = gradient(&plain.before, &plain.after, &plain.v, &config(&[]).a2c);
        // Inside the root.
        let t = first(&["rmsprop_epsilon=3"]);
        for ((a, b), (g, v)) in wide(&t.after.theta).iter().zip(wide(&t.before.theta)).zip(g.iter().zip(&t.v)) {
            assert!((a - (b - 0.5 * g / (v + 3.0).sqrt())).abs() < 1e-5);
        }
    }
    value_coef => {
        let critic = |coef: &str| {
            let t = first(&[&format!("value_coef={coef}")]);
            let g = gradient(&t.before, &t.after, &t.v, &config(&[]).a2c);
            g[t.before.critic().params.clone()].to_vec()
        };
        let (none, half, one) = (critic("0"), critic("0.5"), critic("1"));
        assert!(norm(&none) == 0.0 && norm(&half) > 0.1);
        assert!(half.iter().zip(&one).all(|(h, o)| (o - 2.0 * h).abs() < 1e-4));
    }
    entropy_coef => {
        let entropy = |coef: &str| {
            let make =
                Each::maker(|| ActionReward::new(ActionKind::Discrete));
            let c = config(&["learning_rate=0.1", "rmsprop_decay=0.9", &format!("entropy_coef={coef}")]);
            let setup = Setup { spec: &spec_of(&make).unwrap(), make_env: &make, seed: 2, total_steps: 1_000_000, cpu: Cpu::new(1).unwrap() };
            let mut a2c = c.build(&setup).unwrap();
            a2c.start().unwrap();
            (0..60).map(|_| a2c.iterate().unwrap().get("learn/entropy").unwrap()).last().unwrap()
        };
        let (none, much) = (entropy("0"), entropy("10"));
        assert!(none < 0.2, "the right action is taken: {none}");
        assert!((much - 2f64.ln()).abs() < 0.02, "almost uniform over two: {much}");
    }
    max_grad_norm => {
        let free = first(&[]);
        let c = config(&[]).a2c;
        let g = gradient(&free.before, &free.after, &free.v, &c);
        let length = free.report.get("learn/grad_norm").unwrap();
        assert!((norm(&g) / length - 1.0).abs() < 1e-3);
        let bound = 0.3 * length;
        let clipped = first(&[&format!("max_grad_norm={bound}")]);
        assert!((clipped.report.get("learn/grad_norm").unwrap() / length - 1.0).abs() < 1e-9);
        let h = gradient(&clipped.before, &clipped.after, &clipped.v, &c);
        assert!(g.iter().zip(&h).all(|(g, h)| (0.3 * g - h).abs() < 1e-4), "the direction stays");
    }
}
