//! Batches of whole episodes against what the environments saw.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

mod common;

use common::{Batch, OBS, Seen, Task, relative_difference, tasks, wide};
use pgrad_collect::{Collector, EpisodesShape};
use pgrad_engine::{Cpu, Engine, Minibatch, Minibatches, Objective, PolicyTerm, ValueTerm};
use pgrad_env::{Action, BoxSpace, Each, End, Env, EnvSpec, Episode, Obs, Space, Step};
use pgrad_math::returns;
use pgrad_model::{ActorCritic, AgentError, Critic, ModelShape, ObsNormalizer, RewardNormalizer, Trunk};
use pgrad_nn::Activation;
use pgrad_num::Stream;
use pgrad_testkit::finite_difference_gradient;
use std::sync::Mutex;

fn model(action: Space, critic: Critic) -> ActorCritic {
    let shape = ModelShape {
        obs_dim: OBS,
        action,
        hidden: vec![5],
        activation: Activation::Tanh,
        trunk: Trunk::Separate,
        critic,
        log_std_init: -0.4,
    };
    let mut model = ActorCritic::new(shape, true, 5).unwrap();
    let mut rng = Stream::new(9, 0, 0);
    model.theta.iter_mut().for_each(|x| *x += 0.3 * rng.normal() as f32);
    model
}

const SHAPE: EpisodesShape =
    EpisodesShape { n_envs: 5, n_episodes: 12, envs_per_shard: 2, bootstrap_truncated: true };

/// Episodes of environment `i` in a batch of 12 for 5 environments.
const SHARE: [usize; 5] = [3, 3, 2, 2, 2];

fn cpu(threads: usize) -> Cpu {
    Cpu::new(threads).unwrap()
}

fn collector(task: &Task, model: &ActorCritic, threads: usize) -> Collector {
    let mut c = Collector::episodes(SHAPE, task.make(), model, (None, None), 3, &cpu(threads)).unwrap();
    c.start().unwrap();
    c
}

fn engine(model: &ActorCritic, c: &Collector, threads: usize) -> Engine {
    Engine::new(&cpu(threads)).with_values(model, c.spec(), 2)
}

/// Steps that `share` episodes take.
fn steps_of(seen: &[Seen], share: usize) -> usize {
    seen.iter().enumerate().filter(|(_, s)| s.end != End::Running).nth(share - 1).unwrap().0 + 1
}

/// What belongs to each batch, in the order of the samples, from what the environments logged: the first
/// episodes of each environment, and nothing of what it did while it waited for its shard.
fn batches(task: &Task, count: usize) -> Vec<Vec<Seen>> {
    let log = task.log.lock().unwrap();
    let mut at = [0; SHAPE.n_envs];
    (0..count)
        .map(|_| {
            let mut batch = Vec::new();
            for shard in [&[0, 1][..], &[2, 3], &[4]] {
                let lens: Vec<usize> =
                    shard.iter().map(|e| steps_of(&log[*e][at[*e]..], SHARE[*e])).collect();
                for (env, len) in shard.iter().zip(&lens) {
                    batch.extend_from_slice(&log[*env][at[*env]..at[*env] + len]);
                    at[*env] += lens.iter().max().unwrap();
                }
            }
            batch
        })
        .collect()
}

fn assert_logs_are_used_up(task: &Task, count: usize) {
    let log = task.log.lock().unwrap();
    for shard in [&[0, 1][..], &[2, 3], &[4]] {
        let lens: Vec<usize> = shard.iter().map(|e| log[*e].len()).collect();
        assert!(lens.iter().all(|l| *l == lens[0]), "{count} batches: a shard steps together");
    }
}

#[test]
fn a_batch_is_the_first_whole_episodes_of_every_environment() {
    for task in [Task::new(Space::Discrete { n: 4 }, true, Some(9)), tasks(Some(9)).remove(5)] {
        let model = model(task.action.clone(), Critic::State);
        let mut c = collector(&task, &model, 1);
        let mut engine = engine(&model, &c, 1);
        assert!(c.store().is_empty());
        let got = Mutex::new(Vec::new());
        let mut sizes = Vec::new();
        let mut episodes: Vec<Vec<Episode>> = Vec::new();
        for _ in 0..3 {
            let data = engine.values(&model, c.collect(&model).unwrap()).unwrap();
            let look = |p: pgrad_engine::Paths<'_>| {
                let rows: Vec<[f32; 4]> = (0..p.reward.t())
                    .map(|t| [p.reward.row(t)[0], p.v.row(t)[0], p.v_next.row(t)[0], p.carry.row(t)[0]])
                    .collect();
                got.lock().unwrap().push(rows);
            };
            sizes.push(engine.estimate(data, look).unwrap().len());
            episodes.push(c.finished().copied().collect());
        }
        assert_logs_are_used_up(&task, 3);
        let theta = wide(&model.theta);
        let mut ways = [0; 2];
        for (k, expected) in batches(&task, 3).iter().enumerate() {
            let got = &got.lock().unwrap()[k];
            assert_eq!((sizes[k], got.len()), (expected.len(), expected.len()));
            let batch = Batch::new(expected, false);
            let v = batch.values(&model, &theta, &batch.obs);
            let next = batch.values(&model, &theta, &batch.next);
            for (i, (got, seen)) in got.iter().zip(expected).enumerate() {
                let carry = if seen.end == End::Running { 1.0 } else { 0.0 };
                let v_next = if seen.end == End::Terminated { 0.0 } else { next[i] };
                let want = [seen.reward, v[i], v_next, carry];
                for (g, w) in got.iter().zip(want) {
                    assert!((f64::from(*g) - w).abs() < 1e-5, "sample {i}: {got:?}, expected {want:?}");
                }
            }
            // The episodes' statistics are those of the batch, in each environment in the order of play.
            let ends: Vec<End> = expected.iter().map(|s| s.end).filter(|e| *e != End::Running).collect();
            let mut own = episodes[k].clone();
            own.sort_by_key(|e| e.env);
            assert_eq!(own.iter().map(|e| e.end).collect::<Vec<_>>(), ends);
            assert_eq!(own.iter().map(|e| e.length as usize).sum::<usize>(), expected.len());
            let sum: f64 = expected.iter().map(|s| s.reward).sum();
            assert!((own.iter().map(|e| e.episode_return).sum::<f64>() - sum).abs() < 1e-9);
            for (env, share) in SHARE.iter().enumerate() {
                assert_eq!(own.iter().filter(|e| e.env == env).count(), *share);
            }
            ways[0] += ends.iter().filter(|e| **e == End::Terminated).count();
            ways[1] += ends.iter().filter(|e| **e == End::Truncated).count();
        }
        assert!(ways[0] > 5 && ways[1] > 5, "both kinds of ending occur: {ways:?}");
        // No episode is longer than the limit: each began at its reset, in every batch.
        assert!(episodes.concat().iter().all(|e| e.length <= 9));
    }
}

/// Two batches, rewards-to-go as `Ψ` and targets, and the gradient of
/// `−Σ Ψ log π − 0.3 Σ S + ½ Σ (V − target)²` over all samples of the second.
fn two_batches(task: &Task, model: &ActorCritic, threads: usize) -> (usize, Vec<f32>, Vec<f32>) {
    let mut c = collector(task, model, threads);
    let mut engine = engine(model, &c, threads).with_gradients(model, usize::MAX);
    let psi = Mutex::new(Vec::new());
    let estimate = |p: pgrad_engine::Paths<'_>| {
        let (mut adv, mut ret) = (p.adv, p.ret);
        returns::reward_to_go(p.reward, Some(p.v_next), p.carry, 0.9, adv.reborrow());
        ret.data_mut().copy_from_slice(adv.data_mut());
        *psi.lock().unwrap() = adv.data_mut().to_vec();
    };
    c.collect(model).unwrap();
    let data = engine.values(model, c.collect(model).unwrap()).unwrap();
    let data = engine.estimate(data, estimate).unwrap();
    let mut minibatches = Minibatches::new(0, 100_000, 7);
    minibatches.resize(data.len());
    minibatches.shuffle();
    assert_eq!(minibatches.count(), 1);
    let objective = Objective {
        policy: Some(PolicyTerm::Score),
        entropy: 0.3,
        value: model.has_critic().then_some(ValueTerm::Squared { c1: 0.5 }),
        divisor: Some(1.0),
        ..Objective::default()
    };
    engine.gradient(model, &data, Minibatch::whole(minibatches.get(0), 0), &objective).unwrap();
    (data.len(), psi.into_inner().unwrap(), engine.descent().to_vec())
}

#[test]
fn the_gradient_over_a_batch_agrees_with_finite_differences_over_what_was_seen() {
    for task in tasks(Some(9)) {
        let model = model(task.action.clone(), Critic::State);
        let (len, psi, gradient) = two_batches(&task, &model, 1);
        let seen = batches(&task, 2).remove(1);
        assert_eq!(seen.len(), len);
        let batch = Batch::new(&seen, task.masked);
        let theta = wide(&model.theta);
        let next = batch.values(&model, &theta, &batch.next);
        // Rewards-to-go by the sum itself.
        let slow: Vec<f64> = (0..seen.len())
            .map(|i| {
                let (mut sum, mut discount) = (0.0, 1.0);
                for (k, s) in seen.iter().enumerate().skip(i) {
                    sum += discount * s.reward;
                    discount *= 0.9;
                    match s.end {
                        End::Running => {}
                        End::Terminated | End::Lost => break,
                        End::Truncated => {
                            sum += discount * next[k];
                            break;
                        }
                    }
                }
                sum
            })
            .collect();
        assert!(relative_difference(&wide(&psi), &slow) < 1e-5);
        let loss = |theta: &[f64]| {
            let (logp, entropy) = batch.policy(&model, theta);
            let v = batch.values(&model, theta, &batch.obs);
            (0..seen.len())
                .map(|i| -slow[i] * logp[i] - 0.3 * entropy[i] + 0.5 * (v[i] - slow[i]).powi(2))
                .sum()
        };
        let error = relative_difference(&wide(&gradient), &finite_difference_gradient(loss, &theta));
        assert!(error < 2e-5, "{} masked {}: {error:e}", task.action, task.masked);
    }
}

#[test]
fn the_number_of_threads_changes_no_bit_of_a_batch() {
    for action in [Space::Discrete { n: 4 }, Space::Box(BoxSpace::unbounded(2))] {
        let model = model(action.clone(), Critic::State);
        let of = |threads| {
            let (_, psi, gradient) = two_batches(&Task::new(action.clone(), false, Some(9)), &model, threads);
            (psi, gradient)
        };
        let one = of(1);
        assert!(one.0.len() > 60);
        for threads in [2, 3, 4] {
            assert_eq!(of(threads), one, "{threads} threads");
        }
    }
}

#[test]
fn without_a_critic_nothing_is_bootstrapped() {
    let task = Task::new(Space::Discrete { n: 4 }, false, Some(5));
    let model = model(task.action.clone(), Critic::None);
    let (_, psi, _) = two_batches(&task, &model, 1);
    let seen = batches(&task, 2).remove(1);
    let mut to_go = vec![0.0; seen.len()];
    for i in (0..seen.len()).rev() {
        let rest = if seen[i].end == End::Running { to_go[i + 1] } else { 0.0 };
        to_go[i] = seen[i].reward + 0.9 * rest;
    }
    assert!(relative_difference(&wide(&psi), &to_go) < 1e-5);
}

#[test]
fn normalisers_see_the_episodes_of_the_batch_and_nothing_else() {
    let task = Task::new(Space::Discrete { n: 4 }, false, Some(9));
    let model = model(task.action.clone(), Critic::State);
    let (obs, reward) = (ObsNormalizer::new(OBS, 10.0), RewardNormalizer::new(SHAPE.n_envs, 0.9, 1e3));
    let norms = (Some(obs), Some(reward));
    let mut c = Collector::episodes(SHAPE, task.make(), &model, norms, 3, &cpu(2)).unwrap();
    let mut engine = engine(&model, &c, 2);
    c.start().unwrap();
    c.collect(&model).unwrap();
    let got = Mutex::new(Vec::new());
    let data = engine.values(&model, c.collect(&model).unwrap()).unwrap();
    engine.estimate(data, |p| *got.lock().unwrap() = p.reward.data().to_vec()).unwrap();
    let batches = batches(&task, 2);
    let all = batches.concat();
    let moments = |x: &[f64]| {
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        (mean, x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / x.len() as f64)
    };
    let saved = c.obs_norm().unwrap().save();
    assert_eq!(saved.f64("count").unwrap(), all.len() as f64);
    for d in 0..OBS {
        let x: Vec<f64> = all.iter().map(|s| f64::from(s.obs[d])).collect();
        assert!((saved.f64s("mean", OBS).unwrap()[d] - moments(&x).0).abs() < 1e-6);
    }
    let (mut running, mut sums) = (0.0, Vec::new());
    for s in &all {
        running = 0.9 * running + s.reward;
        sums.push(running);
        if s.end != End::Running {
            running = 0.0;
        }
    }
    let scale = 1.0 / (moments(&sums).1 + 1e-8).sqrt();
    let expected: Vec<f64> = batches[1].iter().map(|s| s.reward * scale).collect();
    assert!(relative_difference(&wide(&got.into_inner().unwrap()), &expected) < 1e-5);
}

/// A walk of random length that can be saved.
struct Walk {
    left: u32,
}

impl Env for Walk {
    fn spec(&self) -> EnvSpec {
        EnvSpec {
            id: "Walk".into(),
            observation: BoxSpace::unbounded(OBS).into(),
            action: Space::Discrete { n: 2 },
            max_episode_steps: None,
            reward_threshold: None,
            masks_actions: false,
        }
    }
    fn reset(&mut self, rng: &mut Stream, obs: &mut Obs<'_>) {
        self.left = 3 + rng.below(20);
        obs.write(&[self.left as f32, 0.0, 1.0]);
    }
    fn step(&mut self, action: Action<'_>, _: &mut Stream, obs: &mut Obs<'_>) -> Step {
        let Action::Discrete(a) = action else { unreachable!() };
        self.left -= 1;
        obs.write(&[self.left as f32, 0.0, 1.0]);
        let end = if self.left == 0 { End::Terminated } else { End::Running };
        Step { reward: a as f64 + f64::from(self.left), end }
    }
    fn save(&self) -> Option<Vec<f64>> {
        Some(vec![f64::from(self.left)])
    }
    fn load(&mut self, state: &[f64]) -> bool {
        self.left = state[0] as u32;
        true
    }
}

#[test]
fn a_saved_collector_plays_the_same_next_batch() {
    let make = Each::maker(|| Walk { left: 0 });
    let model = model(Space::Discrete { n: 2 }, Critic::State);
    let new = || {
        let mut c = Collector::episodes(SHAPE, &make, &model, (None, None), 3, &cpu(1)).unwrap();
        c.start().unwrap();
        c
    };
    let play = |c: &mut Collector| {
        let len = c.collect(&model).unwrap().len();
        (len, c.finished().copied().collect::<Vec<_>>())
    };
    let mut a = new();
    play(&mut a);
    let saved = a.save();
    let mut b = new();
    assert!(b.load(&saved).unwrap());
    for _ in 0..3 {
        assert_eq!(play(&mut a), play(&mut b));
    }
}

#[test]
fn an_episode_without_end_is_an_error_and_no_wait() {
    struct Endless;
    impl Env for Endless {
        fn spec(&self) -> EnvSpec {
            Walk { left: 1 }.spec()
        }
        fn reset(&mut self, _: &mut Stream, obs: &mut Obs<'_>) {
            obs.write(&[0.0; OBS]);
        }
        fn step(&mut self, _: Action<'_>, _: &mut Stream, obs: &mut Obs<'_>) -> Step {
            obs.write(&[0.0; OBS]);
            Step { reward: 0.0, end: End::Running }
        }
    }
    let make = Each::maker(|| Endless);
    let model = model(Space::Discrete { n: 2 }, Critic::None);
    let shape = EpisodesShape { n_envs: 1, n_episodes: 1, envs_per_shard: 1, bootstrap_truncated: true };
    let mut c = Collector::episodes(shape, &make, &model, (None, None), 3, &cpu(1)).unwrap();
    c.start().unwrap();
    let e = c.collect(&model).unwrap_err();
    assert!(matches!(e, AgentError::Endless { env: 0, episode: 0, steps: 1_048_576 }), "{e}");
    assert!(!e.is_divergence() && e.to_string().contains("max_episode_steps"));
}
