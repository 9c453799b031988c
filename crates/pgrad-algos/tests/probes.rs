//! PPO on tasks with known answers, each of which can fail for one reason only.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

use pgrad_agent::ActionValue;
use pgrad_algos::{Algorithm, Ppo, PpoConfig, Setup};
use pgrad_env::probe::{
    ActionKind, ActionReward, ConstantReward, DelayedReward, EndlessReward, MaskedAction,
    ObservedActionReward, ObservedReward, RightChoices, RightSwitches,
};
use pgrad_env::{BatchEnv, Each, Env};
use pgrad_num::{Cols, Team};
use pgrad_settings::apply_pair;

const KINDS: [ActionKind; 2] = [ActionKind::Discrete, ActionKind::Continuous];

fn train<E: Env + Clone + 'static>(env: &E, iterations: u64, pairs: &[&str]) -> Ppo {
    let mut c = PpoConfig::default();
    c.rollout.n_envs = 16;
    c.rollout.n_steps = 8;
    c.rollout.gamma = 0.9;
    c.ppo.minibatch_size = 64;
    c.ppo.learning_rate = 0.01;
    c.model.hidden = vec![16];
    let all = ["learning_rate_schedule=linear"];
    for pair in all.iter().chain(pairs) {
        let PpoConfig { rollout, ppo, model, normalize } = &mut c;
        apply_pair(pair, "test", &mut [rollout, ppo, model, normalize]).unwrap();
    }
    let make = |n| -> Box<dyn BatchEnv> { Box::new(Each::new(n, || env.clone())) };
    let total_steps = iterations * (c.rollout.n_envs * c.rollout.n_steps) as u64;
    let setup = Setup { make_env: &make, seed: 1, total_steps, threads: 1 };
    let team = Team::new(1).unwrap();
    let mut ppo = Ppo::new(&c, &setup).unwrap();
    ppo.start().unwrap();
    while ppo.steps() < total_steps {
        ppo.iterate(&team).unwrap();
    }
    ppo
}

fn value(ppo: &Ppo, obs: &[f32]) -> f64 {
    let mut tape = ppo.model().critic().net.tape(1);
    f64::from(ppo.model().values(Cols::new(obs, obs.len(), 1), &mut tape)[0])
}

#[track_caller]
fn close(got: f64, expected: f64, tolerance: f64) {
    assert!((got - expected).abs() <= tolerance, "{got}, expected {expected} ± {tolerance}");
}

fn number(ppo: &Ppo, obs: f32) -> f64 {
    match ppo.policy(1).act(&[obs]).unwrap() {
        ActionValue::Box(a) => f64::from(a[0]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_value_of_a_constant_reward() {
    for kind in KINDS {
        close(value(&train(&ConstantReward::new(kind), 60, &[]), &[0.0]), 1.0, 0.01);
    }
}

#[test]
fn a_value_that_depends_on_the_observation() {
    for kind in KINDS {
        for trunk in ["trunk=separate", "trunk=shared"] {
            let ppo = train(&ObservedReward::new(kind), 60, &[trunk]);
            close(value(&ppo, &[1.0]), 1.0, 0.02);
            close(value(&ppo, &[-1.0]), -1.0, 0.02);
        }
    }
}

#[test]
fn a_reward_that_comes_later_is_discounted() {
    for kind in KINDS {
        for gamma in [0.9, 0.3] {
            let ppo = train(&DelayedReward::new(kind), 80, &[&format!("gamma={gamma}")]);
            close(value(&ppo, &[0.0]), gamma, 0.02);
            close(value(&ppo, &[1.0]), 1.0, 0.02);
        }
    }
}

#[test]
fn the_better_action_is_found() {
    for trunk in ["trunk=separate", "trunk=shared"] {
        let ppo = train(&ActionReward::new(ActionKind::Discrete), 60, &[trunk]);
        assert_eq!(ppo.policy(1).act(&[0.0]).unwrap(), ActionValue::Discrete(1));
        close(value(&ppo, &[0.0]), 1.0, 0.05);
        let ppo = train(&ActionReward::new(ActionKind::Continuous), 300, &[trunk]);
        close(number(&ppo, 0.0), 2.0, 0.1);
        close(value(&ppo, &[0.0]), 0.0, 0.3);
    }
}

#[test]
fn the_better_action_depends_on_the_observation() {
    for trunk in ["trunk=separate", "trunk=shared"] {
        let ppo = train(&ObservedActionReward::new(ActionKind::Discrete), 60, &[trunk]);
        assert_eq!(ppo.policy(1).act(&[1.0]).unwrap(), ActionValue::Discrete(1));
        assert_eq!(ppo.policy(1).act(&[-1.0]).unwrap(), ActionValue::Discrete(0));
        close(value(&ppo, &[1.0]), 1.0, 0.1);
        let ppo = train(&ObservedActionReward::new(ActionKind::Continuous), 300, &[trunk]);
        close(number(&ppo, 1.0), 2.0, 0.15);
        close(number(&ppo, -1.0), -2.0, 0.15);
        close(value(&ppo, &[-1.0]), 0.0, 0.4);
    }
}

/// Mean of `(1 − γⁿ)/(1 − γ)` over the steps `n` = 1 to `limit` left.
fn value_without_bootstrap(gamma: f64, limit: i32) -> f64 {
    (1..=limit).map(|n| (1.0 - gamma.powi(n)) / (1.0 - gamma)).sum::<f64>() / f64::from(limit)
}

#[test]
fn a_time_limit_is_not_the_end_of_the_task() {
    for kind in KINDS {
        let env = EndlessReward::new(kind, 20);
        let pairs = &["n_steps=40", "n_envs=4", "minibatch_size=40", "lambda=1", "learning_rate=0.02"];
        let right = value(&train(&env, 150, pairs), &[0.0]);
        close(right, 10.0, 0.1);
        // 40 steps are two whole episodes of 20: without bootstrap the targets are what is left of them.
        let wrong = [&pairs[..], &["bootstrap_time_limit=false"]].concat();
        close(value(&train(&env, 150, &wrong), &[0.0]), value_without_bootstrap(0.9, 20), 0.15);
    }
    assert!(value_without_bootstrap(0.9, 20) < 6.1, "the wrong answer is far from 10");
}

#[test]
fn several_choices_and_switches_are_learnt_at_once() {
    let ppo = train(&RightChoices, 120, &[]);
    assert_eq!(ppo.policy(1).act(&[0.0]).unwrap(), ActionValue::MultiDiscrete(RightChoices::ANSWER.to_vec()));
    close(value(&ppo, &[0.0]), 1.0, 0.1);
    let ppo = train(&RightSwitches, 120, &[]);
    assert_eq!(ppo.policy(1).act(&[0.0]).unwrap(), ActionValue::MultiBinary(RightSwitches::ANSWER.to_vec()));
    close(value(&ppo, &[0.0]), 1.0, 0.1);
}

#[test]
fn a_mask_is_obeyed_while_learning() {
    // A forbidden action has no reward, and would stop the run.
    let ppo = train(&MaskedAction::default(), 150, &[]);
    let mut policy = ppo.policy(1);
    assert_eq!(policy.act_masked(&[1.0, 0.0], &[true; 3]).unwrap(), ActionValue::Discrete(2));
    assert_eq!(policy.act_masked(&[0.0, 1.0], &[true, true, false]).unwrap(), ActionValue::Discrete(1));
    close(value(&ppo, &[1.0, 0.0]), 1.0, 0.1);
    close(value(&ppo, &[0.0, 1.0]), 0.5, 0.1);
}
