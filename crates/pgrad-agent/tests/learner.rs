//! The gradient of a loss over a minibatch: against finite differences of the same loss in `f64`, for every
//! kind of action space and both trunks, and the same bits for any number of threads.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

mod common;

use common::{Batch, OBS, Seen, Task, relative_difference, tasks, wide};
use pgrad_agent::{
    ActorCritic, Critic, GradientPass, Learner, ModelShape, PolicyChunk, Rollout, RolloutShape, Trunk,
    ValueChunk,
};
use pgrad_nn::Activation;
use pgrad_num::{Stream, Team, kernels};
use pgrad_rl::surrogate;
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
    rollout: Rollout,
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
    let team = Team::new(1).unwrap();
    let mut rollout = Rollout::new(shape, task.make(), &old, None, None, 3, 1).unwrap();
    rollout.start().unwrap();
    rollout.collect(&old, &team).unwrap();
    rollout.evaluate(&old, &team).unwrap();
    rollout
        .estimate(&team, |p| {
            let (mut adv, mut ret) = (p.adv, p.ret);
            for (i, r) in p.reward.data().iter().enumerate() {
                adv.data_mut()[i] = 0.5 * r - 0.2;
                ret.data_mut()[i] = 1.0 - 2.0 * r;
            }
        })
        .unwrap();
    Case { task, shape, old, new, rollout }
}

impl Case {
    /// What the environments saw, in the order of the samples' numbers.
    fn seen(&self) -> Vec<Seen> {
        let log = self.task.log.lock().unwrap();
        let (size, t) = (self.shape.envs_per_shard, self.shape.n_steps);
        (0..self.rollout.len())
            .map(|i| {
                let first = i / (size * t) * size;
                let (at, b) = (i % (size * t), size.min(self.shape.n_envs - first));
                log[first + at % b][at / b].clone()
            })
            .collect()
    }
    fn gradient(&self, samples: &[u32], max_samples: usize, threads: usize) -> (Vec<f32>, GradientPass) {
        let mut learner = Learner::new(&self.new, max_samples, threads);
        self.gradient_of(&mut learner, samples, threads)
    }
    fn gradient_of(
        &self,
        learner: &mut Learner,
        samples: &[u32],
        threads: usize,
    ) -> (Vec<f32>, GradientPass) {
        let team = Team::new(threads).unwrap();
        // What was there before must not matter.
        let mut g = vec![f32::NAN; self.new.theta.len()];
        let pass =
            learner.gradient(&self.new, &self.rollout, samples, &team, &mut g, policy_loss, value_loss);
        (g, pass)
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
                let case = case(task.clone(), trunk, hidden, 5, 41);
                task.log.lock().unwrap().iter().for_each(|steps| assert!(steps.len() >= 41));
                // One chunk, one sample short of it, one more, and an uneven last one.
                let order = shuffled(205);
                for n in [1, 63, 64, 65, 200] {
                    let samples = &order[..n];
                    let batch = case.batch(samples);
                    let (got, GradientPass { sums, norm }) = case.gradient(samples, n, 1);
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
fn a_learner_for_large_minibatches_takes_small_ones() {
    let case = case(tasks(None).remove(0), Trunk::Separate, &[5], 5, 41);
    let order = shuffled(205);
    let mut learner = Learner::new(&case.new, 205, 1);
    let whole = case.gradient_of(&mut learner, &order, 1);
    // The uneven last minibatch, after a full one.
    let last = case.gradient_of(&mut learner, &order[..13], 1);
    assert_eq!(last, case.gradient(&order[..13], 13, 1));
    assert_eq!(case.gradient_of(&mut learner, &order, 1), whole);
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    for trunk in [Trunk::Separate, Trunk::Shared] {
        let case = case(tasks(None).remove(5), trunk, &[16], 33, 41);
        let order = shuffled(33 * 41);
        for n in [1, 64, 200, 512, 513, 1353] {
            let one = case.gradient(&order[..n], n, 1);
            for threads in [2, 4] {
                assert_eq!(case.gradient(&order[..n], n, threads), one, "{n} samples, {threads} threads");
            }
        }
    }
}

/// The exact divergence of the policy that learns from the one that acted, and the ratio of each sample, without a
/// gradient: as their definitions say, for every kind of action space and both trunks.
#[test]
fn looks_at_the_policy_without_a_gradient() {
    for task in tasks(Some(7)) {
        for trunk in [Trunk::Separate, Trunk::Shared] {
            let mut c = case(task.clone(), trunk, &[6], 5, 31);
            task.log.lock().unwrap().clear();
            let team = Team::new(2).unwrap();
            c.rollout = Rollout::new(c.shape, task.make(), &c.old, None, None, 3, 2).unwrap();
            c.rollout.keep_policy_params(&c.old);
            c.rollout.start().unwrap();
            c.rollout.collect(&c.old, &team).unwrap();
            let batch = Batch::new(&c.seen(), task.masked);
            let (old, new) = (wide(&c.old.theta), wide(&c.new.theta));
            let samples: Vec<u32> = (0..c.rollout.len() as u32).rev().collect();
            let mut learner = Learner::new(&c.new, samples.len(), 2);
            let sums = learner.look(&c.new, &c.rollout, &samples, &team, |p| {
                let [kl, ..] = p.work;
                p.dist.kl(p.params_old, p.params, kl);
                p.sums.kl += kernels::sum(kl);
                p.sums.surrogate += kernels::sum(p.logp);
            });
            let slow: f64 = batch.kl(&c.new, &old, &new).iter().sum();
            assert!(slow > 0.1 && (sums.kl / slow - 1.0).abs() < 1e-4, "{} {slow}", sums.kl);
            let (logp, logp_old) = (batch.policy(&c.new, &new).0, batch.policy(&c.new, &old).0);
            assert!((sums.surrogate / logp.iter().sum::<f64>() - 1.0).abs() < 1e-5);

            let ratios = |rollout: &mut Rollout| {
                let found = std::sync::Mutex::new(Vec::new());
                let see = |p: pgrad_agent::Paths<'_>| {
                    let (mut adv, mut ret) = (p.adv, p.ret);
                    adv.data_mut().fill(0.0);
                    ret.data_mut().fill(0.0);
                    found.lock().unwrap().push(p.ratio.data().to_vec());
                };
                rollout.estimate(&Team::new(1).unwrap(), see).unwrap();
                found.into_inner().unwrap().concat()
            };
            assert!(ratios(&mut c.rollout).iter().all(|r| *r == 1.0), "fresh data");
            c.rollout.evaluate_ratios(&c.new, &team).unwrap();
            let found = wide(&ratios(&mut c.rollout));
            let slow: Vec<f64> = logp.iter().zip(&logp_old).map(|(new, old)| (new - old).exp()).collect();
            assert!(relative_difference(&found, &slow) < 1e-5, "{}", task.action);
            c.rollout.collect(&c.old, &team).unwrap();
            assert!(ratios(&mut c.rollout).iter().all(|r| *r == 1.0), "new data are fresh");
        }
    }
}
