//! The gradient of a loss over a minibatch: against finite differences of the same loss in `f64`, for every
//! kind of action space and both trunks, and the same bits for any number of threads.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

mod common;

use common::{Batch, OBS, Seen, Task, relative_difference, tasks, wide};
use pgrad_collect::{Collector, RolloutShape};
use pgrad_engine::{
    Cpu, Engine, Estimated, Losses, Minibatch, Objective, PolicyChunk, PolicyTerm, ValueChunk, ValueTerm,
};
use pgrad_math::surrogate;
use pgrad_model::{ActorCritic, Critic, ModelShape, Trunk};
use pgrad_nn::Activation;
use pgrad_num::{Stream, kernels};
use pgrad_testkit::finite_difference_gradient;

const ENTROPY_COEF: f32 = 0.3;

/// `−Σ r A − 0.3 Σ S`, a loss that uses everything that a chunk shows.
fn policy_loss(p: PolicyChunk<'_>) {
    let [ratio, value, d_logp, entropy] = p.work;
    surrogate::ratio(p.logp, p.logp_old, p.adv, ratio, value, d_logp);
    p.sums.surrogate += kernels::sum(value);
    p.dist.entropy(p.params, entropy);
    p.sums.entropy += kernels::sum(entropy);
    kernels::scale(-1.0, d_logp);
    entropy.fill(-ENTROPY_COEF);
    p.dist.logp_entropy_vjp(p.params, p.actions, d_logp, entropy, p.d_out);
}

/// `Σ (V − target)²/2 + (V − V_old)²/2`.
fn value_loss(chunk: ValueChunk<'_>) {
    let ValueChunk { v, v_old, ret, d_v, work, sums } = chunk;
    surrogate::squared(v, ret, work, d_v);
    sums.value_loss += kernels::sum(work);
    for ((d, v), v_old) in d_v.iter_mut().zip(v).zip(v_old) {
        *d += v - v_old;
    }
}

struct Case {
    task: Task,
    shape: RolloutShape,
    /// The model that acted.
    old: ActorCritic,
    /// The model that learns.
    new: ActorCritic,
    collector: Collector,
}

fn case(task: Task, trunk: Trunk, hidden: &[usize], n_envs: usize, n_steps: usize) -> Case {
    let shape = ModelShape {
        obs_dim: OBS,
        action: task.action.clone(),
        hidden: hidden.to_vec(),
        activation: Activation::Tanh,
        trunk,
        critic: Critic::State,
        log_std_init: -0.4,
    };
    let mut old = ActorCritic::new(shape, true, 5).unwrap();
    let mut rng = Stream::new(9, 0, 0);
    old.theta.iter_mut().for_each(|x| *x += 0.3 * rng.normal() as f32);
    let mut new = old.clone();
    new.theta.iter_mut().for_each(|x| *x += 0.1 * rng.normal() as f32);
    // Shards of unequal size.
    let shape = RolloutShape { n_envs, n_steps, envs_per_shard: 2, bootstrap_truncated: true };
    let mut collector =
        Collector::steps(shape, task.make(), &old, (None, None), 3, &Cpu::new(1).unwrap()).unwrap();
    collector.start().unwrap();
    collector.collect(&old).unwrap();
    Case { task, shape, old, new, collector }
}

/// Advantages and targets that are made of the rewards; values of `old`.
fn estimated<'a>(collector: &'a mut Collector, old: &ActorCritic) -> Estimated<'a> {
    let mut engine = Engine::new(&Cpu::new(1).unwrap()).with_values(old, &collector.spec().clone(), 2);
    let data = engine.values(old, collector.batch()).unwrap();
    let estimate = |p: pgrad_engine::Paths<'_>| {
        let (mut adv, mut ret) = (p.adv, p.ret);
        for (i, r) in p.reward.data().iter().enumerate() {
            adv.data_mut()[i] = 0.5 * r - 0.2;
            ret.data_mut()[i] = 1.0 - 2.0 * r;
        }
    };
    engine.estimate(data, estimate).unwrap()
}

/// An engine with room for gradients over `max_samples`.
fn engine(model: &ActorCritic, max_samples: usize, threads: usize) -> Engine {
    Engine::new(&Cpu::new(threads).unwrap()).with_gradients(model, max_samples)
}

impl Case {
    /// What the environments saw, in the order of the samples' numbers.
    fn seen(&self) -> Vec<Seen> {
        let log = self.task.log.lock().unwrap();
        let (size, t) = (self.shape.envs_per_shard, self.shape.n_steps);
        (0..self.collector.store().len())
            .map(|i| {
                let first = i / (size * t) * size;
                let (at, b) = (i % (size * t), size.min(self.shape.n_envs - first));
                log[first + at % b][at / b].clone()
            })
            .collect()
    }
    fn gradient(&mut self, samples: &[u32], max_samples: usize, threads: usize) -> (Vec<f32>, Losses) {
        let mut engine = engine(&self.new, max_samples, threads);
        self.gradient_of(&mut engine, samples)
    }
    fn gradient_of(&mut self, engine: &mut Engine, samples: &[u32]) -> (Vec<f32>, Losses) {
        let data = estimated(&mut self.collector, &self.old);
        let objective = Objective {
            policy: Some(PolicyTerm::Custom(&policy_loss)),
            value: Some(ValueTerm::Custom(&value_loss)),
            ..Objective::default()
        };
        let losses = engine.gradient(&self.new, &data, Minibatch::whole(samples, 0), &objective).unwrap();
        (engine.descent().to_vec(), losses)
    }
    /// The parts of the loss, from the definition, in `f64`.
    fn loss(&self, samples: &[u32], batch: &Batch, theta: &[f64]) -> [f64; 3] {
        let old = wide(&self.old.theta);
        let ((logp_old, _), v_old) =
            (batch.policy(&self.old, &old), batch.values(&self.old, &old, &batch.obs));
        let ((logp, entropy), v) =
            (batch.policy(&self.new, theta), batch.values(&self.new, theta, &batch.obs));
        let seen = self.seen();
        let mut sums = [0.0; 3];
        for (k, i) in samples.iter().enumerate() {
            let r = seen[*i as usize].reward;
            sums[0] += (logp[k] - logp_old[k]).exp() * (0.5 * r - 0.2);
            sums[1] += entropy[k];
            sums[2] += 0.5 * (v[k] - (1.0 - 2.0 * r)).powi(2) + 0.5 * (v[k] - v_old[k]).powi(2);
        }
        sums
    }
    fn batch(&self, samples: &[u32]) -> Batch {
        let seen = self.seen();
        let chosen: Vec<Seen> = samples.iter().map(|i| seen[*i as usize].clone()).collect();
        Batch::new(&chosen, self.task.masked)
    }
}

fn shuffled(n: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..n as u32).collect();
    Stream::new(8, 0, 0).shuffle(&mut order);
    order
}

#[test]
fn gradients_agree_with_finite_differences_of_the_loss() {
    for trunk in [Trunk::Separate, Trunk::Shared] {
        for task in tasks(None) {
            for hidden in [&[5][..], &[]] {
                let name = format!("{} masked {} {trunk:?} {hidden:?}", task.action, task.masked);
                let mut case = case(task.clone(), trunk, hidden, 5, 41);
                task.log.lock().unwrap().iter().for_each(|steps| assert!(steps.len() >= 41));
                // One chunk, one sample short of it, one more, and an uneven last one.
                let order = shuffled(205);
                for n in [1, 63, 64, 65, 200] {
                    let samples = &order[..n];
                    let batch = case.batch(samples);
                    let (got, Losses { sums, norm, .. }) = case.gradient(samples, n, 1);
                    let loss = |theta: &[f64]| {
                        let [surrogate, entropy, value] = case.loss(samples, &batch, theta);
                        -surrogate - f64::from(ENTROPY_COEF) * entropy + value
                    };
                    let theta = wide(&case.new.theta);
                    let expected = finite_difference_gradient(loss, &theta);
                    let error = relative_difference(&wide(&got), &expected);
                    assert!(error < 2e-5, "{name}, {n} samples: {error:e}");
                    let length = wide(&got).iter().map(|g| g * g).sum::<f64>().sqrt();
                    assert!((norm - length).abs() < 1e-12 * length, "{name}, {n} samples: {norm} {length}");
                    let [surrogate, entropy, _] = case.loss(samples, &batch, &theta);
                    assert!((sums.surrogate - surrogate).abs() < 1e-4 * n as f64, "{name}: {sums:?}");
                    assert!((sums.entropy - entropy).abs() < 1e-5 * n as f64, "{name}: {sums:?}");
                }
                task.log.lock().unwrap().clear();
            }
        }
    }
}

#[test]
fn room_for_large_minibatches_takes_small_ones() {
    let mut case = case(tasks(None).remove(0), Trunk::Separate, &[5], 5, 41);
    let order = shuffled(205);
    let mut engine = engine(&case.new, 205, 1);
    let whole = case.gradient_of(&mut engine, &order);
    // The uneven last minibatch, after a full one.
    let last = case.gradient_of(&mut engine, &order[..13]);
    assert_eq!(last, case.gradient(&order[..13], 13, 1));
    assert_eq!(case.gradient_of(&mut engine, &order), whole);
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    for trunk in [Trunk::Separate, Trunk::Shared] {
        let mut case = case(tasks(None).remove(5), trunk, &[16], 33, 41);
        let order = shuffled(33 * 41);
        for n in [1, 64, 200, 512, 513, 1353] {
            let one = case.gradient(&order[..n], n, 1);
            for threads in [2, 4] {
                assert_eq!(case.gradient(&order[..n], n, threads), one, "{n} samples, {threads} threads");
            }
        }
    }
}

/// The exact divergence of the policy that learns from the one that acted, and the ratio of each sample,
/// without a gradient: as their definitions say, for every kind of action space and both trunks.
#[test]
fn divergence_and_ratios_are_those_of_their_definitions() {
    for task in tasks(Some(7)) {
        for trunk in [Trunk::Separate, Trunk::Shared] {
            let mut c = case(task.clone(), trunk, &[6], 5, 31);
            task.log.lock().unwrap().clear();
            let cpu = Cpu::new(2).unwrap();
            c.collector = Collector::steps(c.shape, task.make(), &c.old, (None, None), 3, &cpu).unwrap();
            c.collector.keep_policy_params(&c.old);
            c.collector.start().unwrap();
            c.collector.collect(&c.old).unwrap();
            let batch = Batch::new(&c.seen(), task.masked);
            let (old, new) = (wide(&c.old.theta), wide(&c.new.theta));
            let samples: Vec<u32> = (0..c.collector.store().len() as u32).rev().collect();
            let spec = c.collector.spec().clone();
            let mut engine =
                Engine::new(&cpu).with_values(&c.old, &spec, 2).with_gradients(&c.new, samples.len());
            let slow = batch.kl(&c.new, &old, &new).iter().sum::<f64>() / samples.len() as f64;
            let kl = engine.divergence(&c.new, &estimated(&mut c.collector, &c.old), &samples);
            assert!(slow > 1e-3 && (kl / slow - 1.0).abs() < 1e-4, "{kl} {slow}");
            let (logp, logp_old) = (batch.policy(&c.new, &new).0, batch.policy(&c.new, &old).0);

            let see = |engine: &mut Engine, c: &mut Case, stale: bool| {
                let mut data = engine.values(&c.old, c.collector.batch()).unwrap();
                if stale {
                    engine.ratios(&c.new, &mut data).unwrap();
                }
                let found = std::sync::Mutex::new(Vec::new());
                let look = |p: pgrad_engine::Paths<'_>| {
                    let (mut adv, mut ret) = (p.adv, p.ret);
                    adv.data_mut().fill(0.0);
                    ret.data_mut().fill(0.0);
                    found.lock().unwrap().push((p.reward.data()[0].to_bits(), p.ratio.data().to_vec()));
                };
                engine.estimate(data, look).unwrap();
                let mut found = found.into_inner().unwrap();
                // Shards are seen in any order.
                let shards = &c.collector.store().shards;
                let place = |first: u32| shards.iter().position(|s| s.reward[0].to_bits() == first);
                found.sort_by_key(|(first, _)| place(*first));
                found.into_iter().flat_map(|(_, ratios)| ratios).collect::<Vec<f32>>()
            };
            assert!(see(&mut engine, &mut c, false).iter().all(|r| *r == 1.0), "fresh data");
            let found = wide(&see(&mut engine, &mut c, true));
            let slow: Vec<f64> = logp.iter().zip(&logp_old).map(|(new, old)| (new - old).exp()).collect();
            assert!(relative_difference(&found, &slow) < 1e-5, "{}", task.action);
            c.collector.collect(&c.old).unwrap();
            assert!(see(&mut engine, &mut c, false).iter().all(|r| *r == 1.0), "new data are fresh");
        }
    }
}
