//! The policy's surrogate, metric and trials over a rollout: against finite differences and dense matrices in
//! `f64` made of what the environments saw, for every kind of action space; the same bits for any number of
//! threads and whatever is kept.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

mod common;

use common::{Batch, OBS, Seen, Task, relative_difference, tasks, wide};
use pgrad_collect::{Collector, RolloutShape};
use pgrad_engine::{Cpu, Engine, Estimated, Fisher, LocalPolicy};
use pgrad_env::Space;
use pgrad_model::{ActorCritic, Critic, ModelShape, Trunk};
use pgrad_nn::Activation;
use pgrad_num::{Cols, ColsMut, Stream};
use pgrad_optim::{Local, LocalMetric, LocalTrial};
use pgrad_testkit::{Dense, finite_difference_gradient, finite_difference_jvp, random_vector};
use std::cell::RefCell;

const N_ENVS: usize = 5;
const N_STEPS: usize = 41;

struct Case {
    task: Task,
    model: ActorCritic,
    collector: RefCell<Collector>,
}

/// A policy that is far from uniform and what it saw: 205 samples, shards of 2, 2 and 1 environments.
fn case(task: Task, hidden: &[usize]) -> Case {
    let shape = ModelShape {
        obs_dim: OBS,
        action: task.action.clone(),
        hidden: hidden.to_vec(),
        activation: Activation::Tanh,
        trunk: Trunk::Separate,
        critic: Critic::State,
        log_std_init: -0.4,
    };
    let mut model = ActorCritic::new(shape, true, 5).unwrap();
    let mut rng = Stream::new(9, 0, 0);
    model.theta.iter_mut().for_each(|x| *x += 0.3 * rng.normal() as f32);
    let shape =
        RolloutShape { n_envs: N_ENVS, n_steps: N_STEPS, envs_per_shard: 2, bootstrap_truncated: true };
    let mut collector = Collector::steps(shape, task.make(), &model, (None, None), 3, &cpu(1)).unwrap();
    collector.start().unwrap();
    collector.collect(&model).unwrap();
    Case { task, model, collector: RefCell::new(collector) }
}

fn cpu(threads: usize) -> Cpu {
    Cpu::new(threads).unwrap()
}

/// Advantages that are made of the rewards.
fn estimated<'a>(collector: &'a mut Collector, model: &ActorCritic) -> Estimated<'a> {
    let mut engine = Engine::new(&cpu(1)).with_values(model, &collector.spec().clone(), 2);
    let data = engine.values(model, collector.batch()).unwrap();
    let estimate = |p: pgrad_engine::Paths<'_>| {
        let (mut adv, mut ret) = (p.adv, p.ret);
        for (i, r) in p.reward.data().iter().enumerate() {
            adv.data_mut()[i] = 0.5 * r - 0.2;
            ret.data_mut()[i] = 0.0;
        }
    };
    engine.estimate(data, estimate).unwrap()
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for hidden in [&[][..], &[6, 4]] {
        cases.extend(tasks(Some(9)).into_iter().map(|task| case(task, hidden)));
    }
    // Few outputs of wide layers: products by the slopes of the outputs.
    let few = Task::new(Space::Discrete { n: 2 }, false, Some(9));
    cases.push(case(few, &[32, 33]));
    assert!(cases.iter().filter(|c| c.model.actor().net.jacobian_pays()).count() == 1);
    cases
}

/// What the environments saw, from the definitions.
struct Slow<'a> {
    model: &'a ActorCritic,
    batch: Batch,
    adv: Vec<f64>,
    theta_old: Vec<f64>,
}

impl Case {
    /// The samples with these numbers.
    fn slow(&self, numbers: impl Iterator<Item = usize>) -> Slow<'_> {
        let log = self.task.log.lock().unwrap();
        let seen: Vec<Seen> = numbers
            .map(|i| {
                let first = i / (2 * N_STEPS) * 2;
                let (at, b) = (i % (2 * N_STEPS), 2.min(N_ENVS - first));
                log[first + at % b][at / b].clone()
            })
            .collect();
        let adv = seen.iter().map(|s| 0.5 * s.reward - 0.2).collect();
        let batch = Batch::new(&seen, self.task.masked);
        let theta_old = wide(&self.model.theta[self.model.actor().params.clone()]);
        Slow { model: &self.model, batch, adv, theta_old }
    }
    fn all(&self) -> Slow<'_> {
        self.slow(0..N_ENVS * N_STEPS)
    }
    fn engine(&self) -> Engine {
        Engine::new(&cpu(1)).with_local_problem(&self.model, N_ENVS * N_STEPS)
    }
    fn around<'a>(
        &'a self,
        engine: &'a mut Engine,
        fisher: Fisher,
        standardize: bool,
        every: usize,
    ) -> LocalPolicy<'a> {
        let mut collector = self.collector.borrow_mut();
        let data = estimated(&mut collector, &self.model);
        engine.local(&self.model, &data, fisher, standardize, every)
    }
}

impl Slow<'_> {
    fn logp(&self, theta: &[f64]) -> Vec<f64> {
        self.batch.policy(self.model, theta).0
    }
    /// Prepared parameters of all samples.
    fn params(&self, theta: &[f64]) -> Vec<f64> {
        let (net, dist, n) = (&self.model.actor().net, self.model.dist(), self.batch.n);
        let mut tape = net.tape::<f64>(n);
        let mut out = net.forward(theta, Cols::new(&self.batch.obs, OBS, n), &mut tape);
        dist.prepare(out.reborrow(), self.batch.mask.as_ref().map(|m| Cols::new(m, dist.mask_rows(), n)));
        out.into_data().to_vec()
    }
    /// `KL(π_old ‖ π_θ)` of every sample.
    fn kl(&self, theta: &[f64]) -> Vec<f64> {
        let (rows, n) = (self.model.dist().n_outputs(), self.batch.n);
        let (old, new) = (self.params(&self.theta_old), self.params(theta));
        let mut kl = vec![0.0; n];
        self.model.dist().kl(Cols::new(&old, rows, n), Cols::new(&new, rows, n), &mut kl);
        kl
    }
    /// Gradient of the mean `KL(π_old ‖ π_θ)`.
    fn kl_gradient(&self, theta: &[f64]) -> Vec<f64> {
        let (net, dist, n) = (&self.model.actor().net, self.model.dist(), self.batch.n);
        let rows = dist.n_outputs();
        let (old, new) = (self.params(&self.theta_old), self.params(theta));
        let mut d_out = vec![0.0; rows * n];
        let weights = vec![1.0 / n as f64; n];
        dist.kl_vjp(
            Cols::new(&old, rows, n),
            Cols::new(&new, rows, n),
            &weights,
            ColsMut::new(&mut d_out, rows, n),
        );
        let x = Cols::new(&self.batch.obs, OBS, n);
        let mut tape = net.tape::<f64>(n);
        net.forward(theta, x, &mut tape);
        let mut g = vec![0.0; theta.len()];
        net.vjp(theta, x, &mut tape, Cols::new(&d_out, rows, n), &mut g, None);
        g
    }
    /// `∇ log π_old(a|s)` of every sample, a row each, by finite differences.
    fn scores(&self) -> Vec<Vec<f64>> {
        let (n, dim) = (self.batch.n, self.theta_old.len());
        let j = Dense::of_operator(n, dim, |v, out| {
            let jv = finite_difference_jvp(|t, o| o.copy_from_slice(&self.logp(t)), &self.theta_old, v, n);
            out.copy_from_slice(&jv);
        });
        (0..n).map(|s| (0..dim).map(|i| j.at(s, i)).collect()).collect()
    }
    fn surrogate(&self, theta: &[f64], adv: &[f64]) -> f64 {
        let (new, old) = (self.logp(theta), self.logp(&self.theta_old));
        let ratio_adv = new.iter().zip(&old).zip(adv).map(|((new, old), a)| (new - old).exp() * a);
        ratio_adv.sum::<f64>() / adv.len() as f64
    }
}

fn narrow(x: &[f64]) -> Vec<f32> {
    x.iter().map(|v| *v as f32).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn the_gradient_is_that_of_the_surrogate_at_the_old_policy() {
    for case in cases() {
        let slow = case.all();
        for normalize in [false, true] {
            let n = slow.adv.len() as f64;
            let mean = slow.adv.iter().sum::<f64>() / n;
            let std = (slow.adv.iter().map(|a| (a - mean).powi(2)).sum::<f64>() / n).sqrt();
            let adv: Vec<f64> =
                slow.adv.iter().map(|a| if normalize { (a - mean) / std } else { *a }).collect();
            let mut engine = case.engine();
            let mut local = case.around(&mut engine, Fisher::KlHessian, normalize, 1);
            let mut g = vec![f32::NAN; local.dim()];
            let value = local.gradient(&mut g);
            let expected = finite_difference_gradient(|t| slow.surrogate(t, &adv), &slow.theta_old);
            let error = relative_difference(&wide(&g), &expected);
            assert!(error < 1e-4, "{} {normalize}: {error:e}", case.task.action);
            let at_old = slow.surrogate(&slow.theta_old, &adv);
            assert!((value - at_old).abs() < 1e-6, "{value} {at_old}");
        }
    }
}

#[test]
fn the_metric_is_the_hessian_of_the_mean_divergence() {
    for case in cases() {
        let slow = case.all();
        let mut engine = case.engine();
        let mut local = case.around(&mut engine, Fisher::KlHessian, true, 1);
        for seed in 0..3 {
            let v = random_vector(seed, local.dim());
            let mut got = vec![f32::NAN; v.len()];
            local.fisher_mul(&narrow(&v), &mut got);
            let expected = finite_difference_jvp(
                |t, o| o.copy_from_slice(&slow.kl_gradient(t)),
                &slow.theta_old,
                &v,
                v.len(),
            );
            let error = relative_difference(&wide(&got), &expected);
            assert!(error < 1e-5, "{}: {error:e}", case.task.action);
        }
    }
}

#[test]
fn the_empirical_metric_is_the_mean_of_the_scores_outer_products() {
    for case in cases() {
        let slow = case.all();
        let scores = slow.scores();
        let mut engine = case.engine();
        let mut local = case.around(&mut engine, Fisher::Empirical, true, 1);
        let dim = local.dim();
        let dense = Dense::from_fn(dim, dim, |i, j| {
            scores.iter().map(|g| g[i] * g[j]).sum::<f64>() / scores.len() as f64
        });
        let v = random_vector(7, dim);
        let mut got = vec![f32::NAN; dim];
        local.fisher_mul(&narrow(&v), &mut got);
        let error = relative_difference(&wide(&got), &dense.mul(&v));
        assert!(error < 1e-4, "{}: {error:e}", case.task.action);
    }
}

#[test]
fn every_kth_sample_makes_the_metric_and_all_the_gradient() {
    let case = case(tasks(Some(9)).swap_remove(1), &[6, 4]);
    let n = N_ENVS * N_STEPS;
    for (every, samples) in [(2, 128), (3, 128), (4, 64), (100, 64), (1000, 64)] {
        // Whole chunks: the rest is filled up with samples 1, k + 1, 2k + 1, ...
        let order = (0..every.min(n)).flat_map(|r| (r..n).step_by(every)).take(samples);
        let slow = case.slow(order);
        let mut engine = case.engine();
        let mut local = case.around(&mut engine, Fisher::KlHessian, false, every);
        let v = random_vector(every as u64, local.dim());
        let mut got = vec![f32::NAN; v.len()];
        local.fisher_mul(&narrow(&v), &mut got);
        let gradient = |t: &[f64], o: &mut [f64]| o.copy_from_slice(&slow.kl_gradient(t));
        let expected = finite_difference_jvp(gradient, &slow.theta_old, &v, v.len());
        let error = relative_difference(&wide(&got), &expected);
        assert!(error < 1e-5, "every {every}: {error:e}");
        let all = case.all();
        let mut g = vec![f32::NAN; v.len()];
        local.gradient(&mut g);
        let expected = finite_difference_gradient(|t| all.surrogate(t, &all.adv), &all.theta_old);
        assert!(relative_difference(&wide(&g), &expected) < 1e-4, "every {every}");
    }
}

#[test]
fn a_trial_tells_surrogate_and_divergence() {
    for case in cases() {
        let slow = case.all();
        let mut engine = case.engine();
        let mut local = case.around(&mut engine, Fisher::KlHessian, false, 1);
        let old = local.trial(&narrow(&slow.theta_old));
        assert!(old.kl.abs() < 1e-7 && old.largest_kl < 1e-5, "{old:?}");
        for (seed, length) in [(1, 0.05), (2, 0.5)] {
            let step = random_vector(seed, slow.theta_old.len());
            let theta: Vec<f64> = slow.theta_old.iter().zip(&step).map(|(t, s)| t + length * s).collect();
            let theta = wide(&narrow(&theta));
            let trial = local.trial(&narrow(&theta));
            let kl = slow.kl(&theta);
            let mean = kl.iter().sum::<f64>() / kl.len() as f64;
            let largest = kl.iter().fold(0.0f64, |m, k| m.max(*k));
            let surrogate = slow.surrogate(&theta, &slow.adv);
            assert!(
                (trial.surrogate - surrogate).abs() < 1e-5 * surrogate.abs().max(1.0),
                "{}",
                case.task.action
            );
            assert!((trial.kl - mean).abs() < 1e-5 * mean.max(0.1), "{} {mean}", trial.kl);
            assert!((trial.largest_kl - largest).abs() < 1e-5 * largest.max(0.1), "{largest}");
            assert!(largest > 1.5 * mean);
        }
        // The trial at θ_old again: nothing is left of the others. Entropy: of the old policy.
        assert_eq!(local.trial(&narrow(&slow.theta_old)), old);
        let entropy = slow.batch.policy(&case.model, &slow.theta_old).1;
        let mean = entropy.iter().sum::<f64>() / entropy.len() as f64;
        assert!((local.entropy() - mean).abs() < 1e-5);
        // NaN is not hidden by the maximum.
        let trial = local.trial(&vec![f32::NAN; slow.theta_old.len()]);
        assert!(!trial.kl.is_finite() && !trial.largest_kl.is_finite() && trial.surrogate.is_nan());
    }
}

#[test]
fn the_largest_quadratic_form_is_that_of_the_worst_state() {
    for case in cases() {
        let slow = case.all();
        let mut engine = case.engine();
        let v = random_vector(3, slow.theta_old.len());
        // Twice the divergence of a small step, over its square.
        let small = 1e-4;
        let theta: Vec<f64> = slow.theta_old.iter().zip(&v).map(|(t, v)| t + small * v).collect();
        let expected = slow.kl(&theta).iter().fold(0.0f64, |m, k| m.max(2.0 * k / (small * small)));
        let got = case.around(&mut engine, Fisher::KlHessian, false, 1).largest_quadratic_form(&narrow(&v));
        assert!((got / expected - 1.0).abs() < 1e-2, "{}: {got} {expected}", case.task.action);
        let expected = slow.scores().iter().fold(0.0f64, |m, g| m.max(dot(g, &v).powi(2)));
        let got = case.around(&mut engine, Fisher::Empirical, false, 1).largest_quadratic_form(&narrow(&v));
        assert!((got / expected - 1.0).abs() < 1e-4, "{}: {got} {expected}", case.task.action);
    }
}

#[test]
fn threads_and_what_is_kept_do_not_change_a_bit() {
    for case in cases() {
        let all = |threads: usize, kept: usize| {
            // Room for fewer samples than there are: it grows.
            let mut engine = Engine::new(&cpu(threads)).with_local_problem_keeping(&case.model, 10, kept);
            let mut results = Vec::new();
            for fisher in [Fisher::KlHessian, Fisher::Empirical] {
                let mut local = case.around(&mut engine, fisher, true, 1);
                let v = narrow(&random_vector(1, local.dim()));
                let (mut g, mut product) = (vec![0.0; v.len()], vec![0.0; v.len()]);
                let value = local.gradient(&mut g);
                local.fisher_mul(&v, &mut product);
                let form = local.largest_quadratic_form(&v);
                results.push((g, product, value.to_bits(), form.to_bits(), local.trial(&v)));
            }
            results
        };
        let one = all(1, usize::MAX);
        for (threads, kept) in [(2, usize::MAX), (5, usize::MAX), (1, 0), (3, 2)] {
            assert_eq!(all(threads, kept), one, "{threads} threads, {kept} kept");
        }
    }
}
