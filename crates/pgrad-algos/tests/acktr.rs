//! Every setting of ACKTR does what it says, and its step is the natural one. The settings that it has in
//! common with PPO are tested there (`ppo_settings.rs`).
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

#[path = "../../pgrad-collect/tests/common/mod.rs"]
mod common;

use common::{Batch, Memory, OBS, Task, relative_difference, wide};
use pgrad_algos::acktr::AcktrSettings;
use pgrad_algos::{AcktrConfig, AlgoConfig, Algorithm, Report, Setup};
use pgrad_engine::Cpu;
use pgrad_env::{Space, spec_of};
use pgrad_num::{Array, Record};
use pgrad_settings::{Settings, apply_pair};
use pgrad_testkit::Dense;

/// A test for each setting, called like it, and the list of them.
macro_rules! settings_that_are_tested {
    ($($key:ident => $body:block)*) => {
        $(#[test] fn $key() $body)*
        const TESTED: &[&str] = &[$(stringify!($key)),*];
    };
}

#[test]
fn no_setting_is_without_a_test() {
    let mut declared: Vec<&str> = AcktrSettings::default().declarations().iter().map(|s| s.key).collect();
    declared.sort_unstable();
    let mut tested = TESTED.to_vec();
    tested.sort_unstable();
    assert_eq!(tested, declared);
}

const TOTAL: u64 = 1000;

fn task() -> Task {
    Task::new(Space::Discrete { n: 3 }, false, Some(7))
}

/// 5 environments, 8 steps, a linear model; no bound on the step, no memory of the one before.
fn build(task: &Task, pairs: &[&str]) -> Box<dyn Algorithm> {
    let mut c = AcktrConfig::default();
    let plain = [
        "n_envs=5",
        "n_steps=8",
        "hidden=",
        "max_grad_norm=none",
        "momentum=0",
        "trust_region=1e9",
        "learning_rate_schedule=constant",
        "damping=0.1",
    ];
    for pair in plain.iter().chain(pairs) {
        let AcktrConfig { rollout, acktr, model, trunk, normalize } = &mut c;
        apply_pair(pair, "test", &mut [rollout, acktr, model, trunk, normalize]).unwrap();
    }
    let make = task.make();
    let setup = Setup {
        spec: &spec_of(&make).unwrap(),
        make_env: &make,
        seed: 1,
        total_steps: TOTAL,
        cpu: Cpu::new(1).unwrap(),
    };
    let mut acktr = c.build(&setup).unwrap();
    acktr.start().unwrap();
    acktr
}

fn step(acktr: &mut dyn Algorithm) -> Report {
    acktr.iterate().unwrap()
}

/// How far an iteration moves the parameters.
fn move_of(acktr: &mut dyn Algorithm) -> Vec<f64> {
    let before = wide(&acktr.model().theta);
    step(acktr);
    wide(&acktr.model().theta).iter().zip(before).map(|(a, b)| a - b).collect()
}

/// The move of iteration `k` (from 0), and of the actor's part alone.
fn moves(pairs: &[&str], k: usize) -> (Vec<f64>, Vec<f64>) {
    let mut acktr = build(&task(), pairs);
    for _ in 0..k {
        step(&mut *acktr);
    }
    let all = move_of(&mut *acktr);
    let actor = all[acktr.model().actor().params.clone()].to_vec();
    (all, actor)
}

fn scaled(x: &[f64], by: f64) -> Vec<f64> {
    x.iter().map(|x| x * by).collect()
}

#[track_caller]
fn same(a: &[f64], b: &[f64]) {
    let difference = relative_difference(a, b);
    assert!(difference < 2e-3, "differ by {difference}");
}

#[track_caller]
fn differ(a: &[f64], b: &[f64]) {
    assert!(relative_difference(a, b) > 0.02, "the same");
}

/// What a linear policy's first step was, and what it is made of.
struct Natural {
    /// The damped Fisher matrix `A ⊗ G`, over the parameters of the policy.
    fisher: Dense,
    gradient: Vec<f64>,
    /// The step that was made, its parameters in the order of the matrix.
    found: Vec<f64>,
}

/// One linear layer: A of the observations and the constant, G of the scores, both from what the environment
/// saw.
fn natural(more: &[&str]) -> Natural {
    let task = task();
    let pairs = [&["lambda=0", "entropy_coef=0", "gamma=0", "value_coef=0"], more].concat();
    let mut acktr = build(&task, &pairs);
    let theta = wide(&acktr.model().theta);
    let (model, found) = (acktr.model().clone(), move_of(&mut *acktr));
    let log = task.log.lock().unwrap();
    let seen: Vec<_> = log.iter().flatten().cloned().collect();
    let batch = Batch::new(&seen, false);
    let (n, rows, cols) = (batch.n, 3, OBS + 1);
    let x = |s: usize, c: usize| if c < OBS { batch.obs[c * n + s] } else { 1.0 };
    // The score of a softmax by finite differences in the biases.
    let bias = rows * OBS;
    let score = |r: usize| -> Vec<f64> {
        let at = |h: f64| {
            let mut moved = theta.clone();
            moved[bias + r] += h;
            batch.policy(&model, &moved).0
        };
        at(1e-5).iter().zip(at(-1e-5)).map(|(p, m)| (p - m) / 2e-5).collect()
    };
    let g: Vec<Vec<f64>> = (0..rows).map(score).collect();
    // γ = λ = 0: the advantage is r − V(s).
    let v = batch.values(&model, &theta, &batch.obs);
    let adv: Vec<f64> = seen.iter().zip(v).map(|(s, v)| f64::from(s.reward as f32) - v).collect();
    let mean = |f: &dyn Fn(usize) -> f64| (0..n).map(f).sum::<f64>() / n as f64;
    let a = Dense::from_fn(cols, cols, |i, j| mean(&|s| x(s, i) * x(s, j)));
    let f = Dense::from_fn(rows, rows, |i, j| mean(&|s| g[i][s] * g[j][s]));
    let trace = |m: &Dense, d: usize| (0..d).map(|i| m.at(i, i)).sum::<f64>() / d as f64;
    let pi = (trace(&a, cols) / trace(&f, rows)).sqrt();
    let root = 0.1f64.sqrt();
    let damped = |m: &Dense, d: usize, by: f64| {
        Dense::from_fn(d, d, |i, j| m.at(i, j) + if i == j { by } else { 0.0 })
    };
    let (a, f) = (damped(&a, cols, pi * root), damped(&f, rows, root / pi));
    // (A ⊗ G) vec(Δ) = vec(∇), columns of Δ one after the other.
    let fisher =
        Dense::from_fn(rows * cols, rows * cols, |p, q| a.at(p / rows, q / rows) * f.at(p % rows, q % rows));
    let gradient: Vec<f64> =
        (0..rows * cols).map(|p| mean(&|s| adv[s] * g[p % rows][s] * x(s, p / rows))).collect();
    let actor = &found[model.actor().params.clone()];
    // Weights are kept row by row, and the biases behind them.
    let at = |p: usize| if p < rows * OBS { (p % rows) * OBS + p / rows } else { p };
    Natural { fisher, gradient, found: (0..rows * cols).map(|p| actor[at(p)]).collect() }
}

#[test]
fn a_step_is_the_kronecker_factored_natural_gradient() {
    let Natural { fisher, gradient, found } = natural(&["learning_rate=0.5"]);
    same(&found, &scaled(&fisher.solve(&gradient), 0.5));
}

/// `δ = ½ ΔθᵀF̂Δθ` exactly where the region ends the step, and a shorter step is left alone (section 3.2).
#[test]
fn a_step_to_the_edge_of_the_trust_region_has_its_divergence_in_the_model() {
    let divergence = |Natural { fisher, found, .. }: &Natural| {
        let n = found.len();
        (0..n)
            .flat_map(|p| (0..n).map(move |q| (p, q)))
            .map(|(p, q)| 0.5 * found[p] * fisher.at(p, q) * found[q])
            .sum::<f64>()
    };
    for delta in [1e-2, 1e-3, 1e-4] {
        let step = natural(&["learning_rate=1e6", &format!("trust_region={delta}")]);
        let found = divergence(&step);
        assert!((found / delta - 1.0).abs() < 5e-3, "{found} within a region of {delta}");
    }
    let inside = natural(&["learning_rate=1e-3", "trust_region=1e-2"]);
    assert!(divergence(&inside) < 1e-3);
    same(&inside.found, &scaled(&inside.fisher.solve(&inside.gradient), 1e-3));
}

#[test]
fn the_trust_region_bounds_the_divergence() {
    for delta in [1e-2, 1e-3, 1e-4] {
        let task = task();
        // Damping makes the modelled divergence larger than the real one, and the step shorter.
        let pairs = [&format!("trust_region={delta}"), "learning_rate=100", "damping=0.01", "n_envs=50"];
        let mut acktr = build(&task, &pairs);
        let old = acktr.model().clone();
        step(&mut *acktr);
        let log = task.log.lock().unwrap();
        let seen: Vec<_> = log.iter().flatten().cloned().collect();
        let batch = Batch::new(&seen, false);
        // KL(old, new) by summing over all actions.
        let logp = |theta: &[f32], action: u32| {
            let batch = Batch {
                index: vec![action; batch.n],
                obs: batch.obs.clone(),
                next: Vec::new(),
                mask: None,
                real: Vec::new(),
                n: batch.n,
                memory: Memory::default(),
            };
            batch.policy(&old, &wide(theta)).0
        };
        let kl = (0..3)
            .map(|a| {
                let (p, q) = (logp(&old.theta, a), logp(&acktr.model().theta, a));
                p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>()
            })
            .sum::<f64>()
            / batch.n as f64;
        assert!(kl > 0.1 * delta && kl < 2.0 * delta, "KL {kl} with a trust region of {delta}");
    }
}

settings_that_are_tested! {
    psi => {
        // γ = λ = 0: r − V(s), or r; with V = 0 they are the same.
        let with = |psi: &str, more: &[&str]| {
            let psi = format!("psi={psi}");
            moves(&[&[&psi[..], "gamma=0", "lambda=0"], more].concat(), 0).1
        };
        differ(&with("gae", &[]), &with("lambda-return", &[]));
        let actor = |psi: &str| {
            let mut acktr = build(&task(), &[&format!("psi={psi}"), "gamma=0", "lambda=0", "max_grad_norm=none"]);
            let critic = acktr.model().critic().params.clone();
            let mut theta = acktr.model().theta.clone();
            theta[critic].fill(0.0);
            let mut record = Record::new();
            for (key, array) in acktr.save().iter() {
                record.put(key, if key == "theta" { Array::from(theta.clone()) } else { array.clone() });
            }
            acktr.load(&record).unwrap();
            let all = move_of(&mut *acktr);
            all[acktr.model().actor().params.clone()].to_vec()
        };
        same(&actor("gae"), &actor("lambda-return"));
    }
    lambda => {
        differ(&moves(&["lambda=0"], 0).1, &moves(&["lambda=1"], 0).1);
    }
    learning_rate => {
        same(&moves(&["learning_rate=0.4"], 0).0, &scaled(&moves(&["learning_rate=0.1"], 0).0, 4.0));
    }
    learning_rate_schedule => {
        let of = |schedule: &str| {
            let mut acktr = build(&task(), &[&format!("learning_rate_schedule={schedule}")]);
            step(&mut *acktr);
            step(&mut *acktr).get("learn/learning_rate").unwrap()
        };
        assert_eq!(of("constant"), 0.25);
        // 40 of 1000 steps are done before the second iteration.
        assert!((of("linear") - 0.25 * 0.96).abs() < 1e-12);
    }
    trust_region => {
        let of = |delta: &str| moves(&[delta, "learning_rate=1e6"], 0).0;
        same(&of("trust_region=4e-4"), &scaled(&of("trust_region=1e-4"), 2.0));
        // Both networks end on their boundary, whatever the scale of their losses.
        same(&moves(&["trust_region=1e-4", "learning_rate=1e6", "value_coef=1"], 0).0, &of("trust_region=1e-4"));
    }
    damping => {
        // Far above the curvature the step is the plain gradient over the damping.
        let of = |damping: &str| moves(&[damping, "learning_rate=1e5"], 0).0;
        same(&scaled(&of("damping=2e6"), 2.0), &of("damping=1e6"));
        differ(&scaled(&moves(&["damping=0.02"], 0).0, 2.0), &moves(&["damping=0.01"], 0).0);
    }
    stats_decay => {
        // The first batch is all there is; the second is mixed with it, or stands alone.
        same(&moves(&["stats_decay=0"], 0).0, &moves(&["stats_decay=0.9"], 0).0);
        differ(&moves(&["stats_decay=0"], 1).0, &moves(&["stats_decay=0.9"], 1).0);
    }
    momentum => {
        same(&scaled(&moves(&["momentum=0.75"], 0).0, 4.0), &moves(&["momentum=0"], 0).0);
        // Without a new gradient what is left is the last step, shrunk.
        let mut acktr = build(&task(), &["momentum=0.5"]);
        let first = move_of(&mut *acktr);
        acktr.scale_step_size(0.0);
        same(&move_of(&mut *acktr), &scaled(&first, 0.5));
    }
    value_coef => {
        let of = |coef: &str| {
            let acktr = build(&task(), &[]);
            moves(&[coef], 0).0[acktr.model().critic().params.clone()].to_vec()
        };
        assert!(of("value_coef=0").iter().all(|d| *d == 0.0));
        same(&of("value_coef=1"), &scaled(&of("value_coef=0.25"), 4.0));
    }
    entropy_coef => {
        // The bonus is linear in the gradient, and the direction is linear in that.
        let of = |coef: &str| moves(&[coef], 0).1;
        let (none, one, two) = (of("entropy_coef=0"), of("entropy_coef=10"), of("entropy_coef=20"));
        let change = |a: &[f64]| a.iter().zip(&none).map(|(a, b)| a - b).collect::<Vec<f64>>();
        same(&change(&two), &scaled(&change(&one), 2.0));
        // And it keeps the policy random.
        let entropy = |coef: &str| {
            let mut acktr = build(&task(), &[coef, "learning_rate=1"]);
            (0..10).map(|_| step(&mut *acktr).get("learn/entropy").unwrap()).last().unwrap()
        };
        assert!(entropy("entropy_coef=1") > entropy("entropy_coef=0") + 0.05);
    }
    max_grad_norm => {
        let free = moves(&[], 0).0;
        let norm = step(&mut *build(&task(), &[])).get("learn/grad_norm").unwrap();
        let bounded = moves(&[&format!("max_grad_norm={}", norm / 8.0)], 0).0;
        same(&scaled(&bounded, 8.0), &free);
        same(&moves(&[&format!("max_grad_norm={}", norm * 2.0)], 0).0, &free);
    }
}
