//! Numbers of actions are clipped to the bounds of their space on the way to the environment, and nowhere
//! else: what is learnt from is the action as it was drawn, whose probability was written down.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

mod common;

use common::{OBS, Seen, Task};
use pgrad_collect::{Candidates, Collector, EpisodesShape, RolloutShape, Stepper};
use pgrad_engine::Cpu;
use pgrad_env::{BoxSpace, Space};
use pgrad_model::{ActorCritic, Critic, ModelShape, Trunk};
use pgrad_nn::Activation;

const N: usize = 3;
/// Both sides, above alone, below alone.
const LOW: [f32; 3] = [-0.3, f32::NEG_INFINITY, -0.1];
const HIGH: [f32; 3] = [0.2, 0.1, f32::INFINITY];

fn task() -> Task {
    Task::new(Space::Box(BoxSpace::new(LOW.to_vec(), HIGH.to_vec())), false, Some(9))
}

/// A policy whose mean is `mean` everywhere, with a standard deviation of e.
fn model(mean: f32) -> ActorCritic {
    let shape = ModelShape {
        obs_dim: OBS,
        action: task().action,
        hidden: Vec::new(),
        activation: Activation::Tanh,
        trunk: Trunk::Separate,
        critic: Critic::State,
        log_std_init: 1.0,
    };
    let mut model = ActorCritic::new(shape, true, 5).unwrap();
    for view in
        model.views().into_iter().filter(|v| v.name.starts_with("actor.") && !v.name.ends_with("log_std"))
    {
        let value = if view.name.ends_with("bias") { mean } else { 0.0 };
        model.theta[view.range].fill(value);
    }
    model
}

fn clipped(drawn: &[f32]) -> Vec<f32> {
    drawn.iter().zip(LOW.iter().zip(HIGH)).map(|(a, (low, high))| a.max(*low).min(high)).collect()
}

/// Everything lies within the bounds, and each bound was reached.
fn within(seen: &[Vec<Seen>]) {
    let all: Vec<&Vec<f32>> = seen.iter().flatten().map(|s| &s.real).collect();
    assert!(all.len() > 20);
    for (i, (low, high)) in LOW.into_iter().zip(HIGH).enumerate() {
        assert!(all.iter().all(|a| (low..=high).contains(&a[i])), "{i}");
        for bound in [low, high].into_iter().filter(|b| b.is_finite()) {
            assert!(all.iter().any(|a| a[i] == bound), "{i}: {bound} was never reached");
        }
    }
}

#[test]
fn a_rollout_hands_out_clipped_actions_and_keeps_those_that_were_drawn() {
    let (task, model) = (task(), model(0.0));
    let shape = RolloutShape { n_envs: N, n_steps: 40, envs_per_shard: 2, bootstrap_truncated: true };
    let cpu = Cpu::new(1).unwrap();
    let mut c = Collector::steps(shape, task.make(), &model, (None, None), 3, &cpu).unwrap();
    c.start().unwrap();
    c.collect(&model).unwrap();
    let log = task.log.lock().unwrap();
    within(&log);
    let mut outside = 0;
    for data in &c.store().shards {
        for (row, drawn) in data.real_actions.chunks_exact(3).enumerate() {
            let seen = &log[data.first + row % data.b][row / data.b];
            assert_eq!(seen.real, clipped(drawn));
            outside += usize::from(seen.real != drawn);
            // Its density, not that of the bound: standard deviation e around 0.
            let z2: f64 = drawn.iter().map(|a| (f64::from(*a) / 1f64.exp()).powi(2)).sum();
            let logp = -0.5 * z2 - 3.0 * (1.0 + 0.5 * (2.0 * std::f64::consts::PI).ln());
            assert!((f64::from(data.logp[row]) - logp).abs() < 1e-4, "{} {logp}", data.logp[row]);
        }
    }
    assert!(outside > 60, "{outside}");
}

#[test]
fn whole_episodes_have_clipped_actions() {
    let (task, model) = (task(), model(0.0));
    let shape = EpisodesShape { n_envs: N, n_episodes: 12, envs_per_shard: 2, bootstrap_truncated: true };
    let cpu = Cpu::new(1).unwrap();
    let mut c = Collector::episodes(shape, task.make(), &model, (None, None), 3, &cpu).unwrap();
    c.start().unwrap();
    c.collect(&model).unwrap();
    within(&task.log.lock().unwrap());
}

#[test]
fn one_step_at_a_time_has_clipped_actions() {
    let (task, model) = (task(), model(0.0));
    let mut stepper = Stepper::new(N, task.make(), &model, 5, 100).unwrap();
    stepper.start().unwrap();
    for t in 0..40 {
        stepper.act(&model).unwrap();
        stepper.advance().unwrap();
        for b in 0..N {
            let drawn = stepper.transition(b).action.real;
            assert_eq!(task.log.lock().unwrap()[b][t].real, clipped(drawn.data()));
        }
    }
    within(&task.log.lock().unwrap());
}

#[test]
fn candidates_have_clipped_actions() {
    for (mean, at) in [(-7.0, [-0.3, -7.0, -0.1]), (7.0, [0.2, 0.1, 7.0])] {
        let (task, model) = (task(), model(mean));
        let actor = model.theta[model.actor().params.clone()].to_vec();
        let cpu = Cpu::new(1).unwrap();
        let mut c = Candidates::new(1, 2, task.make(), &model, 3, &cpu).unwrap();
        c.start().unwrap();
        c.play(&model, &[actor], &mut [0.0]).unwrap();
        assert!(task.log.lock().unwrap().iter().flatten().all(|s| s.real == at));
    }
}
