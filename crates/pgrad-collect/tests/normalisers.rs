//! The normalisers of a rollout see every environment, in whatever shards these run: moments and what is made
//! of them, against what the environments logged, computed slowly in `f64`.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

mod common;

use common::{OBS, Seen, Task, relative_difference, wide};
use pgrad_collect::{Collector, RolloutShape};
use pgrad_engine::Cpu;
use pgrad_env::{End, Space};
use pgrad_model::{ActorCritic, Critic, ModelShape, ObsNormalizer, RewardNormalizer, Trunk};
use pgrad_nn::Activation;

const N: usize = 5;
const STEPS: usize = 24;
const GAMMA: f64 = 0.9;
/// Reached by some observations and rewards.
const CLIP: f64 = 2.0;

fn model() -> ActorCritic {
    let shape = ModelShape {
        obs_dim: OBS,
        action: Space::Discrete { n: 4 },
        hidden: vec![5],
        activation: Activation::Tanh,
        trunk: Trunk::Separate,
        critic: Critic::State,
        log_std_init: 0.0,
    };
    ActorCritic::new(shape, true, 5).unwrap()
}

/// Two rollouts: of the collector, and what its environments logged.
fn twice(envs_per_shard: usize) -> (Collector, Vec<Vec<Seen>>) {
    let task = Task { obs_scale: 3.0, scale: 5.0, ..Task::new(Space::Discrete { n: 4 }, false, Some(9)) };
    let shape = RolloutShape { n_envs: N, n_steps: STEPS, envs_per_shard, bootstrap_truncated: true };
    let norms = (Some(ObsNormalizer::new(OBS, CLIP)), Some(RewardNormalizer::new(N, GAMMA, CLIP)));
    let cpu = Cpu::new(2).unwrap();
    let model = model();
    let mut collector = Collector::steps(shape, task.make(), &model, norms, 3, &cpu).unwrap();
    collector.start().unwrap();
    for _ in 0..2 {
        collector.collect(&model).unwrap();
    }
    let log = task.log.lock().unwrap().clone();
    assert_eq!(log.iter().map(Vec::len).collect::<Vec<_>>(), [2 * STEPS; N]);
    (collector, log)
}

/// Mean and sum of squared differences from it.
fn moments(x: &[f64]) -> (f64, f64) {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    (mean, x.iter().map(|v| (v - mean).powi(2)).sum())
}

#[track_caller]
fn close(got: f64, expected: f64) {
    assert!((got - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{got}, expected {expected}");
}

#[test]
fn observations_are_normalised_by_all_that_every_environment_saw_before() {
    for shard in [1, 2, 3, 5] {
        let (collector, log) = twice(shard);
        let saved = collector.obs_norm().unwrap().save();
        assert_eq!(saved.f64("count"), Ok((2 * N * STEPS) as f64));
        let column = |steps: usize, d: usize| -> Vec<f64> {
            log.iter().flat_map(|seen| &seen[..steps]).map(|s| f64::from(s.obs[d])).collect()
        };
        for d in 0..OBS {
            let (mean, m2) = moments(&column(2 * STEPS, d));
            close(saved.f64s("mean", OBS).unwrap()[d], mean);
            close(saved.f64s("m2", OBS).unwrap()[d], m2);
        }
        // The second rollout goes by the moments of the first, and so do the observations that a time limit
        // cut off.
        let before: Vec<(f64, f64)> = (0..OBS).map(|d| moments(&column(STEPS, d))).collect();
        let normal = |obs: &[f32]| -> Vec<f64> {
            let one = |(x, (mean, m2)): (&f32, &(f64, f64))| {
                ((f64::from(*x) - mean) / (m2 / (N * STEPS) as f64).sqrt()).clamp(-CLIP, CLIP)
            };
            obs.iter().zip(&before).map(one).collect()
        };
        let (mut cut, mut clipped) = (0, false);
        for data in &collector.store().shards {
            for (row, got) in data.obs.chunks_exact(OBS).enumerate() {
                let seen = &log[data.first + row % data.b][STEPS + row / data.b];
                let expected = normal(&seen.obs);
                assert!(relative_difference(&wide(got), &expected) < 1e-4, "{got:?} {expected:?}");
                clipped |= expected.contains(&CLIP);
            }
            for (at, got) in data.cut.iter().zip(data.cut_obs.chunks_exact(OBS)) {
                let row = *at as usize;
                let seen = &log[data.first + row % data.b][STEPS + row / data.b];
                assert_eq!(seen.end, End::Truncated);
                assert!(relative_difference(&wide(got), &normal(&seen.next)) < 1e-4);
                cut += 1;
            }
        }
        assert!(cut > 0 && clipped);
    }
}

#[test]
fn rewards_are_scaled_by_the_discounted_returns_of_every_environment() {
    for shard in [1, 2, 3, 5] {
        let (collector, log) = twice(shard);
        let (mut sums, mut running) = (Vec::new(), [0.0; N]);
        for (seen, sum) in log.iter().zip(&mut running) {
            for s in seen {
                *sum = GAMMA * *sum + s.reward;
                sums.push(*sum);
                if s.end != End::Running {
                    *sum = 0.0;
                }
            }
        }
        let saved = collector.save().record("reward_norm");
        let (mean, m2) = moments(&sums);
        assert_eq!(saved.f64("count"), Ok((2 * N * STEPS) as f64));
        close(saved.f64s("mean", 1).unwrap()[0], mean);
        close(saved.f64s("m2", 1).unwrap()[0], m2);
        for (got, expected) in saved.f64s("returns", N).unwrap().iter().zip(running) {
            close(*got, expected);
        }
        // The present rollout counts, too.
        let spread = (m2 / (2 * N * STEPS) as f64).sqrt();
        for data in &collector.store().shards {
            for (row, got) in data.reward.iter().enumerate() {
                let seen = &log[data.first + row % data.b][STEPS + row / data.b];
                close(f64::from(*got), (seen.reward / spread).clamp(-CLIP, CLIP));
            }
        }
    }
}
