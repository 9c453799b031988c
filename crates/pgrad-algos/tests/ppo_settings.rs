//! Every setting of PPO does what it says: one test a setting, by name, and none may be missing.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

#[path = "../../pgrad-collect/tests/common/mod.rs"]
mod common;

use common::{OBS, Task, wide};
use pgrad_algos::{AlgoConfig, Algorithm, Groups, PpoConfig, Report, Setup};
use pgrad_engine::Cpu;
use pgrad_env::{
    Action, BatchResult, BoxSpace, Each, End, Env, EnvSpec, Obs, Part, Space, Step,
    probe::{ActionKind, ActionReward, ConstantReward, DelayedReward, EndlessReward},
    spec_of,
};
use pgrad_model::ActorCritic;
use pgrad_num::{Array, Cols, Record, Stream};
use pgrad_settings::apply_pair;
use std::sync::{Arc, Mutex};

/// A test for each setting, called like it, and the list of them.
macro_rules! settings_that_are_tested {
    ($($key:ident => $body:block)*) => {
        $(#[test] fn $key() $body)*
        const TESTED: &[&str] = &[$(stringify!($key)),*];
    };
}

#[test]
fn no_setting_is_without_a_test() {
    let config = PpoConfig::default();
    let mut declared: Vec<&str> =
        config.parts().iter().flat_map(|p| p.declarations().iter().map(|s| s.key)).collect();
    declared.push("seed"); // not the algorithm's own
    declared.sort_unstable();
    let mut tested = TESTED.to_vec();
    tested.sort_unstable();
    assert_eq!(tested, declared);
}

/// 4 environments, 8 steps, one epoch, one minibatch, a linear model.
fn config(pairs: &[&str]) -> PpoConfig {
    let mut c = PpoConfig::default();
    let small = ["n_envs=4", "n_steps=8", "minibatch_size=32", "epochs=1", "hidden=", "max_grad_norm=none"];
    for pair in small.iter().chain(pairs) {
        let PpoConfig { rollout, ppo, model, recurrent, trunk, normalize } = &mut c;
        apply_pair(pair, "test", &mut [rollout, ppo, model, recurrent, trunk, normalize]).unwrap();
    }
    c
}

fn each<E: Env + 'static>(make: impl Fn() -> E + 'static) -> impl Fn(usize) -> BatchResult {
    Each::maker(make)
}

fn build(make: &dyn Fn(usize) -> BatchResult, pairs: &[&str], total_steps: u64) -> Box<dyn Algorithm> {
    let setup = Setup {
        spec: &spec_of(make).unwrap(),
        make_env: make,
        seed: 1,
        total_steps,
        cpu: Cpu::new(1).unwrap(),
    };
    let mut ppo = config(pairs).build(&setup).unwrap();
    ppo.start().unwrap();
    ppo
}

fn step(ppo: &mut dyn Algorithm) -> Report {
    ppo.iterate().unwrap()
}

#[test]
fn a_product_in_a_product_is_refused_before_anything_is_built() {
    let product = |space| Space::Product { parts: vec![Part { name: "gear".into(), space }] };
    let refused = |space| {
        let make = Task::new(space, false, Some(9)).make();
        let setup = Setup {
            spec: &spec_of(&make).unwrap(),
            make_env: &make,
            seed: 1,
            total_steps: 1000,
            cpu: Cpu::new(1).unwrap(),
        };
        config(&[]).build(&setup).map(drop).err().map(|e| e.to_string())
    };
    let choice = || Space::Discrete { n: 2 };
    assert_eq!(refused(product(choice())), None);
    let error = refused(product(product(choice()))).unwrap();
    assert!(error.contains("product in a product"), "{error}");
}

/// One iteration from the start.
fn first(make: &dyn Fn(usize) -> BatchResult, pairs: &[&str]) -> (Box<dyn Algorithm>, Report) {
    let mut ppo = build(make, pairs, 1_000_000);
    let report = step(&mut *ppo);
    (ppo, report)
}

/// Puts parameters in place of those named `name`.
fn set(ppo: &mut dyn Algorithm, name: &str, values: &[f32]) {
    let view = ppo.model().views().into_iter().find(|v| v.name == name).unwrap();
    let mut theta = ppo.model().theta.clone();
    theta[view.range].copy_from_slice(values);
    let mut record = Record::new();
    for (key, array) in ppo.save().iter() {
        record.put(key, if key == "theta" { Array::from(theta.clone()) } else { array.clone() });
    }
    ppo.load(&record).unwrap();
}

fn parameters(model: &ActorCritic, name: &str) -> Vec<f64> {
    let view = model.views().into_iter().find(|v| v.name == name).unwrap();
    wide(&model.theta[view.range])
}

/// The gradient of the first update, as it went into Adam.
fn gradient(ppo: &dyn Algorithm) -> Vec<f64> {
    let m = wide(ppo.save().f32s("adam.m", ppo.model().theta.len()).unwrap());
    m.iter().map(|m| m / 0.1).collect()
}

fn actor_gradient(ppo: &dyn Algorithm) -> Vec<f64> {
    gradient(ppo)[ppo.model().actor().params.clone()].to_vec()
}

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn value(model: &ActorCritic, obs: &[f32]) -> f64 {
    let mut tape = model.critic().net.tape(1);
    f64::from(model.values(Cols::new(obs, obs.len(), 1), &mut tape)[0])
}

#[track_caller]
fn close(got: f64, expected: f64) {
    assert!((got - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{got}, expected {expected}");
}

fn get(report: &Report, name: &str) -> f64 {
    report.get(name).unwrap()
}

/// Always this observation and this reward, one step.
#[derive(Clone)]
struct Fixed {
    obs: f32,
    reward: f64,
}

impl Env for Fixed {
    fn spec(&self) -> EnvSpec {
        EnvSpec {
            id: "Fixed".into(),
            observation: BoxSpace::unbounded(1).into(),
            action: Space::Discrete { n: 2 },
            max_episode_steps: None,
            reward_threshold: None,
            masks_actions: false,
        }
    }
    fn reset(&mut self, _: &mut Stream, obs: &mut Obs<'_>) {
        obs.write(&[self.obs]);
    }
    fn step(&mut self, _: Action<'_>, _: &mut Stream, obs: &mut Obs<'_>) -> Step {
        obs.write(&[self.obs]);
        Step { reward: self.reward, end: End::Terminated }
    }
    fn save(&self) -> Option<Vec<f64>> {
        Some(Vec::new())
    }
    fn load(&mut self, state: &[f64]) -> bool {
        state.is_empty()
    }
}

fn random_task() -> Task {
    Task::new(Space::Discrete { n: 4 }, false, Some(9))
}

fn continuous_task() -> Task {
    Task::new(Space::Box(BoxSpace::unbounded(2)), false, Some(9))
}

/// Mean squared target of `V(0) = V(1) = 0` on the two-step chain, from the value loss: the targets are
/// `γ λ` (as an advantage) and 1.
fn chain_loss(pairs: &[&str]) -> f64 {
    let make = each(|| DelayedReward::new(ActionKind::Discrete));
    let mut ppo = build(&make, pairs, 1_000_000);
    set(&mut *ppo, "critic.value.weight", &[0.0]);
    get(&step(&mut *ppo), "learn/value_loss")
}

/// Mean entropy over the last of 30 iterations on a task with a right action.
fn entropy_after_training(pairs: &[&str]) -> f64 {
    let make = each(|| ActionReward::new(ActionKind::Discrete));
    let pairs = [&["learning_rate=0.05", "epochs=4"], pairs].concat();
    let mut ppo = build(&make, &pairs, 1_000_000);
    (0..30).map(|_| get(&step(&mut *ppo), "learn/entropy")).last().unwrap()
}

/// Mean `KL(old ‖ new)` of linear policies over 100 states.
fn mean_kl(old: &ActorCritic, new: &ActorCritic) -> f64 {
    let x: Vec<f32> = (0..OBS * 100).map(|i| (i as f32 * 0.7).sin() * 1.4).collect();
    let params = |model: &ActorCritic| {
        let mut tape = model.actor().net.tape(100);
        let mut out = model.policy_outputs(Cols::new(&x, OBS, 100), &mut tape);
        model.dist().prepare(out.reborrow(), None);
        out.into_data().to_vec()
    };
    let (old_params, new_params, mut kl) = (params(old), params(new), vec![0.0; 100]);
    let rows = old.dist().n_outputs();
    old.dist().kl(Cols::new(&old_params, rows, 100), Cols::new(&new_params, rows, 100), &mut kl);
    wide(&kl).iter().sum::<f64>() / 100.0
}

/// A bound of V-trace changes what is learnt when ratios reach it, and only then.
fn v_trace_bound(name: &str) {
    let trained = |bound: &str| {
        let pairs = [
            "advantage=vtrace",
            "recompute_advantage=true",
            "epochs=3",
            "learning_rate=0.05",
            &format!("{name}={bound}"),
        ];
        first(&random_task().make(), &pairs).0.model().theta.clone()
    };
    assert_ne!(trained("1"), trained("0.5"));
    assert_ne!(trained("1"), trained("1000"));
    assert_eq!(trained("1000"), trained("2000"), "no ratio is that large");
}

settings_that_are_tested! {
    n_envs => {
        for n in [1, 3, 7] {
            let task = random_task();
            let (ppo, _) =
                first(&task.make(), &[&format!("n_envs={n}"), "minibatch_size=8", "n_steps=8"]);
            assert_eq!(task.log.lock().unwrap().len(), n);
            assert_eq!((ppo.steps_per_iteration(), ppo.steps()), (8 * n as u64, 8 * n as u64));
        }
    }
    n_steps => {
        for n in [8, 13] {
            let task = random_task();
            let (ppo, _) = first(&task.make(), &[&format!("n_steps={n}"), "minibatch_size=32"]);
            assert!(task.log.lock().unwrap().iter().all(|steps| steps.len() == n));
            assert_eq!(ppo.steps(), 4 * n as u64);
        }
    }
    gamma => {
        for gamma in [0.0, 0.3, 0.99, 1.0] {
            close(chain_loss(&[&format!("gamma={gamma}"), "lambda=1"]), (gamma * gamma + 1.0) / 2.0);
        }
    }
    bootstrap_time_limit => {
        // Every step is cut by the limit; V = 5 everywhere, γ = 0.9: the target is 1 + 4.5, or 1 without.
        for (on, target) in [("true", 5.5), ("false", 1.0)] {
            let make = each(|| EndlessReward::new(ActionKind::Discrete, 1));
            let pairs = ["gamma=0.9", &format!("bootstrap_time_limit={on}")];
            let mut ppo = build(&make, &pairs, 1_000_000);
            set(&mut *ppo, "critic.value.bias", &[5.0]);
            close(get(&step(&mut *ppo), "learn/value_loss"), (5.0f64 - target).powi(2));
        }
    }
    envs_per_shard => {
        // Without a number it is half of them, at least 4 and at most 32.
        for (n_envs, size, shards) in [
            (10, "4", vec![4, 4, 2]),
            (10, "10", vec![10]),
            (10, "32", vec![10]),
            (10, "1", vec![1; 10]),
            (10, "none", vec![5, 5]),
            (6, "none", vec![4, 2]),
            (100, "none", vec![32, 32, 32, 4]),
        ] {
            let made = Arc::new(Mutex::new(Vec::new()));
            let seen = Arc::clone(&made);
            let make = move |n| -> BatchResult {
                seen.lock().unwrap().push(n);
                Ok(Box::new(Each::new(n, || ConstantReward::new(ActionKind::Discrete))))
            };
            first(&make, &[&format!("n_envs={n_envs}"), &format!("envs_per_shard={size}")]);
            // The first one is asked what it is.
            assert_eq!(made.lock().unwrap()[1..], shards);
        }
        // Without a number: half of the environments, at least 4 and at most 32.
        for (n_envs, shards) in [(3, vec![3]), (8, vec![4, 4]), (100, vec![32, 32, 32, 4])] {
            let made = Arc::new(Mutex::new(Vec::new()));
            let seen = Arc::clone(&made);
            let make = move |n| -> BatchResult {
                seen.lock().unwrap().push(n);
                Ok(Box::new(Each::new(n, || ConstantReward::new(ActionKind::Discrete))))
            };
            first(&make, &[&format!("n_envs={n_envs}"), "minibatch_size=8"]);
            assert_eq!(made.lock().unwrap()[1..], shards);
        }
    }
    lambda => {
        for lambda in [0.0, 0.4, 1.0] {
            let advantage = 0.5 * lambda;
            close(chain_loss(&[&format!("lambda={lambda}"), "gamma=0.5"]), (advantage * advantage + 1.0) / 2.0);
        }
    }
    epochs => {
        for epochs in [1, 3] {
            let (_, report) =
                first(&random_task().make(), &[&format!("epochs={epochs}"), "minibatch_size=16"]);
            assert_eq!(get(&report, "learn/updates"), 2.0 * f64::from(epochs));
        }
    }
    minibatch_size => {
        for (size, updates) in [(32, 1.0), (16, 2.0), (15, 3.0), (1, 32.0)] {
            let (_, report) = first(&random_task().make(), &[&format!("minibatch_size={size}")]);
            assert_eq!(get(&report, "learn/updates"), updates);
        }
        let too_large = config(&["minibatch_size=33"]);
        let make = each(|| ConstantReward::new(ActionKind::Discrete));
        let error = too_large.check(&spec_of(&make).unwrap()).unwrap_err().to_string();
        assert!(error.contains("minibatch_size") && error.contains("32"), "{error}");
    }
    clip => {
        let fraction = |clip: &str| {
            let pairs = ["learning_rate=0.05", "epochs=4", &format!("clip={clip}")];
            let (_, report) = first(&random_task().make(), &pairs);
            close(get(&report, "learn/clip"), clip.parse().unwrap());
            get(&report, "learn/clip_fraction")
        };
        // The first of the four epochs has ratios of 1.
        assert!(fraction("1e-6") > 0.7);
        assert_eq!(fraction("1e6"), 0.0);
    }
    objective => {
        // Far from the old policy every sample with a positive advantage is clipped; penalties pull back.
        let kl_after = |pairs: &[&str]| {
            let far = ["epochs=30", "learning_rate=0.05", "entropy_coef=0"];
            let mut ppo = build(&random_task().make(), &[&far, pairs].concat(), 1_000_000);
            let old = ppo.model().clone();
            step(&mut *ppo);
            mean_kl(&old, ppo.model())
        };
        let free = kl_after(&["objective=none"]);
        let clip = kl_after(&["objective=clip"]);
        let [weak, strong] = ["3", "100"].map(|b| kl_after(&["objective=kl-fixed", &format!("kl_coef={b}")]));
        let adaptive = kl_after(&["objective=kl-adaptive", "kl_coef=100"]);
        assert!(strong < weak && weak < free && clip < free, "{strong} {weak} {clip} {free}");
        assert_eq!(adaptive, strong, "within an iteration the weight stays");
        assert_eq!(kl_after(&["objective=clip", "clip=1e30"]), free, "no bound is none");
    }
    kl_coef => {
        for objective in ["kl-fixed", "kl-adaptive"] {
            for coef in [0.25, 7.0] {
                let pairs = [&format!("objective={objective}")[..], &format!("kl_coef={coef}")];
                let (ppo, report) = first(&random_task().make(), &pairs);
                assert_eq!(get(&report, "learn/kl_coef"), coef);
                // One step with a ratio of 1 all over: no divergence, no penalty; and then a little.
                let adapted = if objective == "kl-adaptive" { coef / 2.0 } else { coef };
                assert_eq!(ppo.save().f64("beta"), Ok(adapted));
            }
        }
    }
    kl_target => {
        let far = ["objective=kl-adaptive", "epochs=4", "learning_rate=0.01", "kl_coef=0.125"];
        let run = |target: f64| {
            let target = format!("kl_target={target}");
            let (ppo, report) = first(&random_task().make(), &[&far[..], &[&target]].concat());
            (get(&report, "learn/kl_after"), ppo.save().f64("beta").unwrap())
        };
        let (d, _) = run(1.0);
        assert!(d > 1e-3, "{d}");
        // d < d_targ/1.5: half; d > 1.5 d_targ: double.
        for (target, beta) in
            [(1.51 * d, 0.0625), (1.49 * d, 0.125), (d, 0.125), (d / 1.49, 0.125), (d / 1.51, 0.25)]
        {
            assert_eq!(run(target), (d, beta), "{target}");
        }
        // Every iteration, and never so far that it could not come back.
        let mut ppo = build(&random_task().make(), &[&far[..], &["kl_target=1e9"]].concat(), 1_000_000);
        let weights: Vec<f64> = (0..40).map(|_| get(&step(&mut *ppo), "learn/kl_coef")).collect();
        assert_eq!(weights[..4], [0.125, 0.0625, 0.03125, 0.015625]);
        assert_eq!(weights[39], 2f64.powi(-30));
        let mut ppo = build(&random_task().make(), &[&far[..], &["kl_target=1e-30"]].concat(), 1_000_000);
        let weights: Vec<f64> = (0..40).map(|_| get(&step(&mut *ppo), "learn/kl_coef")).collect();
        assert_eq!(weights[..4], [0.125, 0.25, 0.5, 1.0]);
        assert!(weights.iter().all(|w| *w <= 2f64.powi(30)), "{weights:?}");
    }
    advantage => {
        let trained = |advantage: &str, epochs: &str| {
            let pairs = [
                &format!("advantage={advantage}")[..], &format!("epochs={epochs}"), "lambda=1", "gamma=0.9",
                "recompute_advantage=true", "learning_rate=0.05",
            ];
            first(&random_task().make(), &pairs).0.model().theta.clone()
        };
        assert_ne!(trained("gae", "2"), trained("vtrace", "2"), "the second epoch's data are stale");
        // V(s) is in it or not; the full formula is in ppo_gradient.rs.
        assert_ne!(trained("gae", "1"), trained("lambda-return", "1"));
        // Data that cannot grow stale have no V-trace.
        for pairs in [["epochs=1", "recompute_advantage=true"], ["epochs=2", "recompute_advantage=false"]] {
            let wrong = config(&[&["advantage=vtrace"][..], &pairs].concat());
            let make = each(|| ConstantReward::new(ActionKind::Discrete));
            let error = wrong.check(&spec_of(&make).unwrap()).unwrap_err().to_string();
            assert!(error.contains("`advantage` = vtrace") && error.contains("recompute_advantage"), "{error}");
        }
    }
    rho_bar => { v_trace_bound("rho_bar"); }
    c_bar => { v_trace_bound("c_bar"); }
    clip_schedule => {
        for (schedule, expected) in [("linear", [0.2, 0.15, 0.1, 0.05]), ("constant", [0.2; 4])] {
            let pairs = [&format!("clip_schedule={schedule}")[..]];
            let mut ppo = build(&random_task().make(), &pairs, 4 * 32);
            for clip in expected {
                close(get(&step(&mut *ppo), "learn/clip"), clip);
            }
        }
    }
    learning_rate => {
        let moved = |rate: f64| {
            let task = random_task();
            let ppo = build(&task.make(), &[&format!("learning_rate={rate}")], 1_000_000);
            let before = wide(&ppo.model().theta);
            let (ppo, report) = first(&random_task().make(), &[&format!("learning_rate={rate}")]);
            close(get(&report, "learn/learning_rate"), rate);
            wide(&ppo.model().theta).iter().zip(before).map(|(a, b)| a - b).collect::<Vec<f64>>()
        };
        let (whole, half) = (moved(0.02), moved(0.01));
        assert!(norm(&whole) > 0.05);
        for (w, h) in whole.iter().zip(&half) {
            assert!((w - 2.0 * h).abs() < 1e-6, "{w} {h}");
        }
        // Adam's first step is the step size for every parameter with a gradient to speak of.
        assert!(whole.iter().all(|w| w.abs() < 0.02 + 1e-6));
        assert!(whole.iter().filter(|w| (w.abs() - 0.02).abs() < 1e-4).count() > whole.len() / 2);
    }
    learning_rate_schedule => {
        for (schedule, factors) in [("linear", [1.0, 0.75, 0.5, 0.25]), ("constant", [1.0; 4])] {
            let pairs = [&format!("learning_rate_schedule={schedule}")[..], "learning_rate=0.02"];
            let mut ppo = build(&random_task().make(), &pairs, 4 * 32);
            for factor in factors {
                close(get(&step(&mut *ppo), "learn/learning_rate"), 0.02 * factor);
            }
        }
    }
    adam_epsilon => {
        for epsilon in [1e-8, 0.05, 10.0] {
            let task = random_task();
            let pairs = [&format!("adam_epsilon={epsilon}")[..], "learning_rate=0.5"];
            let before = wide(&build(&task.make(), &pairs, 1_000_000).model().theta);
            let (ppo, _) = first(&random_task().make(), &pairs);
            for ((b, a), g) in before.iter().zip(wide(&ppo.model().theta)).zip(gradient(&*ppo)) {
                close(a, b - 0.5 * g / (g.abs() + epsilon));
            }
        }
    }
    value_coef => {
        let trained = |coef: &str| first(&random_task().make(), &[&format!("value_coef={coef}")]).0;
        let critic = |ppo: &dyn Algorithm| gradient(ppo)[ppo.model().critic().params.clone()].to_vec();
        let (none, half, one) = (trained("0"), trained("0.5"), trained("1"));
        let before = build(&random_task().make(), &[], 1_000_000).model().clone();
        let params = before.critic().params.clone();
        assert_eq!(none.model().theta[params.clone()], before.theta[params.clone()], "no weight, no change");
        assert_ne!(half.model().theta[params.clone()], before.theta[params]);
        assert!(norm(&critic(&*half)) > 0.1);
        for (half, one) in critic(&*half).iter().zip(critic(&*one)) {
            close(one, 2.0 * half);
        }
        assert_eq!(actor_gradient(&*half), actor_gradient(&*none), "the policy has a network of its own");
    }
    entropy_coef => {
        let (none, much) = (entropy_after_training(&[]), entropy_after_training(&["entropy_coef=10"]));
        assert!(none < 0.2, "the right action is taken: {none}");
        assert!((much - 2.0f64.ln()).abs() < 0.02, "almost uniform over two: {much}");
    }
    max_grad_norm => {
        let (free, report) = first(&random_task().make(), &["max_grad_norm=none"]);
        let length = get(&report, "learn/grad_norm");
        assert!(length > 0.5);
        assert!((norm(&gradient(&*free)) / length - 1.0).abs() < 1e-4);
        for bound in [0.01, 0.3] {
            let (ppo, report) = first(&random_task().make(), &[&format!("max_grad_norm={bound}")]);
            close(get(&report, "learn/grad_norm"), length);
            let clipped = gradient(&*ppo);
            assert!((norm(&clipped) / bound - 1.0).abs() < 1e-4, "{}", norm(&clipped));
            for (c, f) in clipped.iter().zip(gradient(&*free)) {
                assert!((c - f * bound / length).abs() < 1e-5, "the direction stays");
            }
        }
        let (ppo, _) = first(&random_task().make(), &["max_grad_norm=1000"]);
        assert_eq!(gradient(&*ppo), gradient(&*free), "a gradient within the bound stays");
    }
    normalize_advantage => {
        // Without a critic (V = 0) advantages scale with the rewards.
        let gradient_at = |scale: f64, on: &str| {
            let task = Task { scale, ..random_task() };
            let mut ppo = build(&task.make(), &[&format!("normalize_advantage={on}")], 1_000_000);
            set(&mut *ppo, "critic.value.weight", &[0.0; OBS]);
            // What the environments do depends on their streams' positions, not on what was set.
            step(&mut *ppo);
            norm(&actor_gradient(&*ppo))
        };
        let on = gradient_at(100.0, "true") / gradient_at(1.0, "true");
        let off = gradient_at(100.0, "false") / gradient_at(1.0, "false");
        assert!((on - 1.0).abs() < 1e-3 && (off - 100.0).abs() < 0.1, "{on} {off}");
    }
    value_clip => {
        // Only the bias can move (the observation is 0), by a thousandth an update towards 1.
        let moved = |clip: &str| {
            let make = each(|| ConstantReward::new(ActionKind::Discrete));
            let pairs = ["epochs=100", "learning_rate=0.001", &format!("value_clip={clip}")];
            value(first(&make, &pairs).0.model(), &[0.0])
        };
        let (free, bounded) = (moved("none"), moved("0.01"));
        assert!(free > 0.08, "{free}");
        assert!((0.01..0.03).contains(&bounded), "beyond the bound there is no gradient: {bounded}");
    }
    target_kl => {
        let run = |target: &str| {
            let pairs = ["epochs=20", "learning_rate=0.01", &format!("target_kl={target}")];
            let (_, report) = first(&random_task().make(), &pairs);
            (get(&report, "learn/updates"), get(&report, "learn/kl_stopped"))
        };
        assert_eq!(run("none"), (20.0, 0.0));
        assert_eq!(run("1000"), (20.0, 0.0));
        let ((near, stopped), (far, _)) = (run("0.001"), run("0.01"));
        assert!(stopped == 1.0 && 1.0 <= near && near < far && far < 20.0, "{near} {far}");
        // The estimate before the first update is 0, the one before the second is the mean's other half.
        let pairs = ["epochs=2", "learning_rate=0.01"];
        let kl = 2.0 * get(&first(&random_task().make(), &pairs).1, "learn/kl");
        for (share, updates) in [(0.99, 1.0), (1.01, 2.0)] {
            let target = format!("target_kl={}", share * kl / 1.5);
            let (_, report) = first(&random_task().make(), &[&pairs[..], &[&target]].concat());
            assert_eq!(get(&report, "learn/updates"), updates, "1.5 times the target is the bound");
        }
    }
    recompute_advantage => {
        // V is 0 at first and 0.1 after one step of Adam; the target of the second epoch is 1 + 0.9 · 0 with
        // the values of the rollout, 1 + 0.9 · 0.1 when they are computed anew.
        for (on, target) in [("false", 1.0), ("true", 1.09)] {
            let make = each(|| EndlessReward::new(ActionKind::Discrete, 1000));
            let pairs = [
                &format!("recompute_advantage={on}")[..],
                "gamma=0.9", "lambda=0", "epochs=2", "learning_rate=0.1", "adam_epsilon=1e-8",
            ];
            let (_, report) = first(&make, &pairs);
            close(get(&report, "learn/value_loss"), (1.0 + (0.1f64 - target).powi(2)) / 2.0);
        }
    }
    hidden => {
        let shapes = |hidden: &str| {
            let ppo = build(&random_task().make(), &[&format!("hidden={hidden}")], 1);
            ppo.model().views().into_iter().filter(|v| v.shape.len() == 2).map(|v| v.shape).collect::<Vec<_>>()
        };
        assert_eq!(shapes(""), [[4, 3], [1, 3]]);
        assert_eq!(shapes("7,5"), [[7, 3], [5, 7], [4, 5], [7, 3], [5, 7], [1, 5]]);
    }
    activation => {
        // Without biases, a network of positive parts doubles with its input; one of tanh does not.
        let ratio = |activation: &str| {
            let pairs = ["hidden=16", &format!("activation={activation}")];
            let ppo = build(&random_task().make(), &pairs, 1);
            value(ppo.model(), &[2.0, -4.0, 1.0]) / value(ppo.model(), &[1.0, -2.0, 0.5])
        };
        close(ratio("relu"), 2.0);
        assert!((ratio("tanh") - 2.0).abs() > 0.1, "{}", ratio("tanh"));
    }
    recurrent => {
        let names = |recurrent: &str| {
            let make = random_task().make();
            let (ppo, _) = first(&make, &[&format!("recurrent={recurrent}"), "hidden=8"]);
            let part = |owner: &str| {
                let views = ppo.model().views();
                views[views.iter().position(|v| v.name.starts_with(owner)).unwrap()].name.clone()
            };
            (part("actor."), part("critic."))
        };
        let of = |layer: &str| (format!("actor.{layer}.weight"), format!("critic.{layer}.weight"));
        assert_eq!(names("none"), of("hidden.0"));
        assert_eq!(names("lstm"), of("lstm.input"));
        assert_eq!(names("gru"), of("gru.input"));
        let make = random_task().make();
        let (ppo, _) = first(&make, &["recurrent=gru", "trunk=shared", "hidden=8"]);
        assert!(ppo.model().views().iter().all(|v| v.name.starts_with("shared.")));
        assert_eq!(ppo.model().views().iter().filter(|v| v.name.contains("gru")).count(), 4, "one memory for both");
    }
    recurrent_size => {
        for size in [5, 9] {
            let make = random_task().make();
            let (ppo, _) = first(&make, &["recurrent=lstm", &format!("recurrent_size={size}"), "hidden=8"]);
            let shape = |name: &str| ppo.model().views().into_iter().find(|v| v.name == name).unwrap().shape;
            assert_eq!(shape("actor.lstm.recurrent.weight"), [4 * size, size]);
            assert_eq!(shape("critic.lstm.recurrent.weight"), [4 * size, size]);
            assert_eq!(shape("actor.hidden.0.weight"), [8, size]);
        }
    }
    sequence_length => {
        let gradient_of = |length: &[&str]| {
            let make = random_task().make();
            let (ppo, _) = first(&make, &[&["recurrent=lstm", "recurrent_size=4"], length].concat());
            actor_gradient(&*ppo)
        };
        // Without a number the longest that fills 8 steps and 32 samples; shorter ones stop gradients
        // earlier.
        let [one, four, eight] =
            ["1", "4", "8"].map(|length| gradient_of(&[&format!("sequence_length={length}")]));
        assert_eq!(gradient_of(&[]), eight);
        let far = |a: &[f64], b: &[f64]| norm(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>()) / norm(b);
        assert!(far(&one, &eight) > far(&four, &eight) && far(&four, &eight) > 1e-3);
        let make = random_task().make();
        let setup = Setup { spec: &spec_of(&make).unwrap(), make_env: &make, seed: 1, total_steps: 100, cpu: Cpu::new(1).unwrap() };
        for (length, sizes) in [("3", &["n_steps=8"][..]), ("8", &["minibatch_size=12"])] {
            let length = format!("sequence_length={length}");
            let error = config(&[&["recurrent=gru", &length], sizes].concat()).build(&setup).map(drop).unwrap_err();
            assert!(error.to_string().contains("`sequence_length`"), "{error}");
        }
    }
    memory_span => {
        let kept = |pairs: &[&str]| {
            let make = random_task().make();
            let ppo = build(&make, &[&["recurrent=gru", "recurrent_size=50"], pairs].concat(), 1000);
            let bias = parameters(ppo.model(), "critic.gru.bias");
            bias[50..100].iter().fold(0.0f64, |m, b| m.max(b.exp()))
        };
        assert_eq!(kept(&[]), 1.0);
        assert!((8.0..=9.0).contains(&kept(&["memory_span=10"])));
        assert!((80.0..=99.0).contains(&kept(&["memory_span=100"])));
    }
    initial_state => {
        let theta = |which: &str| {
            let make = random_task().make();
            let pairs = ["recurrent=gru", "recurrent_size=6", "sequence_length=2", "epochs=2", "learning_rate=0.05",
                &format!("initial_state={which}")];
            first(&make, &pairs).0.model().theta.clone()
        };
        let (stored, recomputed) = (theta("stored"), theta("recomputed"));
        assert_ne!(stored, recomputed);
        assert_eq!(theta("stored"), stored);
        // In the first epoch there is nothing to recompute.
        let make = random_task().make();
        let setup = Setup { spec: &spec_of(&make).unwrap(), make_env: &make, seed: 1, total_steps: 100, cpu: Cpu::new(1).unwrap() };
        let error = config(&["recurrent=gru", "initial_state=recomputed"]).build(&setup).map(drop).unwrap_err();
        assert!(error.to_string().contains("set at least 2 `epochs`"), "{error}");
    }
    trunk => {
        let built = |trunk: &str| {
            let pairs = ["hidden=8", "entropy_coef=0", &format!("trunk={trunk}")];
            build(&random_task().make(), &pairs, 1_000_000)
        };
        let (separate, shared) = (built("separate"), built("shared"));
        let hidden = |ppo: &dyn Algorithm| {
            ppo.model().views().iter().filter(|v| v.name.ends_with("hidden.0.weight")).count()
        };
        assert_eq!((hidden(&*separate), hidden(&*shared)), (2, 1));
        // The critic's loss reaches the layers that the policy uses.
        let actor = |trunk: &str, coef: &str| {
            let pairs =
                ["hidden=8", &format!("trunk={trunk}")[..], &format!("value_coef={coef}")];
            actor_gradient(&*first(&random_task().make(), &pairs).0)[..24].to_vec()
        };
        assert_eq!(actor("separate", "0"), actor("separate", "5"));
        assert_ne!(actor("shared", "0"), actor("shared", "5"));
    }
    orthogonal_init => {
        let weights = |on: &str| {
            let pairs = ["hidden=3", &format!("orthogonal_init={on}")];
            parameters(build(&random_task().make(), &pairs, 1).model(), "actor.hidden.0.weight")
        };
        let product = |w: &[f64], i: usize, j: usize| (0..3).map(|k| w[3 * i + k] * w[3 * j + k]).sum::<f64>();
        let (on, off) = (weights("true"), weights("false"));
        for i in 0..3 {
            for j in 0..3 {
                assert!((product(&on, i, j) - if i == j { 2.0 } else { 0.0 }).abs() < 1e-5);
            }
        }
        assert!(off.iter().all(|w| w.abs() <= 1.0 / 3.0f64.sqrt()));
        assert!(product(&off, 0, 1).abs() > 1e-3);
    }
    log_std_init => {
        for init in [-1.5, 0.25] {
            let pairs = [&format!("log_std_init={init}")[..]];
            let (ppo, report) = first(&continuous_task().make(), &pairs);
            let before = build(&continuous_task().make(), &pairs, 1);
            assert_eq!(parameters(before.model(), "actor.log_std"), [init; 2]);
            assert_ne!(parameters(ppo.model(), "actor.log_std"), [init; 2], "it is learnt");
            let entropy = 2.0 * (init + 0.5 * (2.0 * std::f64::consts::PI * std::f64::consts::E).ln());
            close(get(&report, "learn/entropy"), entropy);
        }
    }
    rescale_actions => {
        let space = Space::Box(BoxSpace::new(vec![0.0, -1.0, 0.0], vec![255.0, 1.0, f32::INFINITY]));
        let task = Task::new(space, false, Some(9));
        let numbers = |how: &str| build(&task.make(), &[how], 1).model().rescaled().to_vec();
        assert_eq!(numbers("rescale_actions=far"), [true, false, false]);
        assert_eq!(numbers("rescale_actions=all"), [true, true, false]);
        assert_eq!(numbers("rescale_actions=none"), [false; 0]);
    }
    normalize_obs => {
        let task = random_task();
        let (ppo, _) = first(&task.make(), &["normalize_obs=true"]);
        let record = ppo.save().record("experience.obs_norm");
        let (mean, m2) = (record.f64s("mean", OBS).unwrap(), record.f64s("m2", OBS).unwrap());
        assert_eq!(record.f64("count"), Ok(32.0));
        let log = task.log.lock().unwrap().concat();
        for i in 0..OBS {
            let x: Vec<f64> = log.iter().map(|s| f64::from(s.obs[i])).collect();
            let slow = x.iter().sum::<f64>() / 32.0;
            close(mean[i], slow);
            close(m2[i], x.iter().map(|x| (x - slow).powi(2)).sum());
        }
        // The second rollout is normalised: a constant observation far away becomes 0, and only biases learn.
        let make = each(|| Fixed { obs: 1000.0, reward: 1.0 });
        let (mut ppo, _) = first(&make, &["normalize_obs=true"]);
        let weight = parameters(ppo.model(), "critic.value.weight")[0];
        let bias = parameters(ppo.model(), "critic.value.bias")[0];
        close(get(&step(&mut *ppo), "learn/value_loss"), (bias - 1.0).powi(2));
        assert!(weight.abs() > 0.5);
        let (ppo, _) = first(&make, &[]);
        assert!(ppo.obs_norm().is_none());
    }
    normalize_reward => {
        let loss_at = |scale: f64, on: &str| {
            let task = Task { scale, ..random_task() };
            let mut ppo = build(&task.make(), &[&format!("normalize_reward={on}")], 1_000_000);
            set(&mut *ppo, "critic.value.weight", &[0.0; OBS]);
            get(&step(&mut *ppo), "learn/value_loss")
        };
        let on = loss_at(100.0, "true") / loss_at(1.0, "true");
        let off = loss_at(100.0, "false") / loss_at(1.0, "false");
        assert!((on - 1.0).abs() < 1e-3 && (off / 1e4 - 1.0).abs() < 1e-3, "{on} {off}");
    }
    clip_obs => {
        for clip in [2.0, 5.0] {
            let make = each(|| Fixed { obs: 1000.0, reward: 1.0 });
            let mut ppo = build(&make, &["normalize_obs=true", &format!("clip_obs={clip}")], 1_000_000);
            set(&mut *ppo, "critic.value.weight", &[1.0]);
            // V is the observation that the network sees.
            close(get(&step(&mut *ppo), "learn/value_loss"), (clip - 1.0f64).powi(2));
        }
    }
    clip_reward => {
        // Rewards that never vary are divided by almost 0: the clip is all that bounds them.
        for clip in [0.5, 3.0] {
            let make = each(|| Fixed { obs: 0.0, reward: 1.0 });
            let pairs = ["normalize_reward=true", &format!("clip_reward={clip}")];
            close(get(&first(&make, &pairs).1, "learn/value_loss"), clip * clip);
        }
    }
    seed => {
        let trained = |seed: u64| {
            let task = random_task();
            let make = task.make();
            let setup = Setup { spec: &spec_of(&make).unwrap(), make_env: &make, seed, total_steps: 1_000_000, cpu: Cpu::new(1).unwrap() };
            let mut ppo = config(&["minibatch_size=8"]).build(&setup).unwrap();
            let initial = ppo.model().theta.clone();
            ppo.start().unwrap();
            step(&mut *ppo);
            let log = task.log.lock().unwrap();
            let (obs, actions) = (log[0][0].obs.clone(), log.concat().iter().map(|s| s.index[0]).collect());
            (initial, obs, actions, ppo.model().theta.clone())
        };
        let (one, again, two): (_, _, (_, _, Vec<u32>, _)) = (trained(1), trained(1), trained(2));
        assert_eq!(one, again);
        assert!(one.0 != two.0 && one.1 != two.1 && one.2 != two.2, "parameters, environments, actions");
    }
}
