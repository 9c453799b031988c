//! Kronecker factors of a rollout against finite differences of `log π(a|s)` and `V(s)`, sample by sample, in
//! `f64`.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

mod common;

use common::{Batch, OBS, Task, relative_difference, tasks, wide};
use pgrad_collect::{Collector, RolloutShape};
use pgrad_engine::{Cpu, Engine};
use pgrad_model::{ActorCritic, Critic, ModelShape, Trunk};
use pgrad_nn::{Activation, Affine};

struct Case {
    model: ActorCritic,
    collector: Collector,
    batch: Batch,
}

/// 5 environments, 41 steps: chunks that are not full.
fn case(task: &Task, trunk: Trunk, hidden: &[usize]) -> Case {
    let shape = ModelShape {
        obs_dim: OBS,
        action: task.action.clone(),
        hidden: hidden.to_vec(),
        activation: Activation::Tanh,
        trunk,
        critic: Critic::State,
        log_std_init: -0.4,
    };
    let mut model = ActorCritic::new(shape, true, 3).unwrap();
    task.log.lock().unwrap().clear();
    // Away from the nearly uniform start.
    model.theta.iter_mut().enumerate().for_each(|(i, t)| *t += 0.3 * (i as f32 * 0.7).sin());
    let shape = RolloutShape { n_envs: 5, n_steps: 41, envs_per_shard: 2, bootstrap_truncated: true };
    let mut collector =
        Collector::steps(shape, task.make(), &model, (None, None), 1, &Cpu::new(1).unwrap()).unwrap();
    collector.start().unwrap();
    collector.collect(&model).unwrap();
    let log = task.log.lock().unwrap();
    let seen: Vec<_> = log.iter().flatten().cloned().collect();
    let batch = Batch::new(&seen, task.masked);
    Case { model, collector, batch }
}

/// Derivative of `f(θ)`, a number for each sample, in direction of parameter `i`.
fn derivative(theta: &[f64], i: usize, f: &dyn Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    const H: f64 = 1e-5;
    let at = |h: f64| {
        let mut moved = theta.to_vec();
        moved[i] += h;
        f(&moved)
    };
    at(H).iter().zip(at(-H)).map(|(p, m)| (p - m) / (2.0 * H)).collect()
}

/// `E[g gᵀ]` of a layer, and `E[x̄ x̄ᵀ]` where cotangents can be divided by.
fn slow(theta: &[f64], layer: &Affine, f: &dyn Fn(&[f64]) -> Vec<f64>) -> [Vec<f64>; 2] {
    let second = |rows: &[Vec<f64>]| -> Vec<f64> {
        let n = rows[0].len() as f64;
        let mean = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>() / n;
        rows.iter().flat_map(|a| rows.iter().map(move |b| mean(a, b))).collect()
    };
    let g: Vec<Vec<f64>> = layer.bias.clone().map(|i| derivative(theta, i, f)).collect();
    // Row r of the weights has the derivative g_r x.
    let x: Vec<Vec<f64>> = (0..layer.cols)
        .map(|c| {
            let d = derivative(theta, layer.weight.start + c, f);
            d.iter().zip(&g[0]).map(|(d, g)| d / g).collect()
        })
        .chain([vec![1.0; g[0].len()]])
        .collect();
    [second(&x), second(&g)]
}

#[test]
fn factors_are_those_of_single_samples() {
    let cpu = Cpu::new(2).unwrap();
    for task in tasks(Some(7)) {
        for (trunk, hidden) in [(Trunk::Separate, &[4, 3][..]), (Trunk::Shared, &[4]), (Trunk::Separate, &[])]
        {
            let Case { model, collector, batch } = case(&task, trunk, hidden);
            let mut engine = Engine::new(&cpu).with_curvature(&model);
            let curvature = engine.curvature(&model, collector.store());
            let theta = wide(&model.theta);
            let logp = |t: &[f64]| batch.policy(&model, t).0;
            let value = |t: &[f64]| batch.values(&model, t, &batch.obs);
            for (i, layer) in curvature.layers().iter().enumerate() {
                let of_policy = slow(&theta, layer, &logp);
                let of_value = slow(&theta, layer, &value);
                let [inputs, cotangents] = curvature.moments(i);
                let sum: Vec<f64> = of_policy[1].iter().zip(&of_value[1]).map(|(p, v)| p + v).collect();
                let error = relative_difference(cotangents, &sum);
                assert!(error < 1e-3, "{:?} {trunk:?}, layer {i}: cotangents differ by {error}", task.action);
                // Inputs are seen through whichever cotangent is there.
                let expected = of_policy.into_iter().next().unwrap();
                let expected =
                    if expected.iter().all(|x| x.is_finite()) { expected } else { of_value[0].clone() };
                if expected.iter().all(|x| x.is_finite()) {
                    let error = relative_difference(inputs, &expected);
                    assert!(error < 1e-2, "{trunk:?}, layer {i}: inputs differ by {error}");
                }
            }
        }
    }
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    let task = tasks(Some(7)).remove(0);
    let Case { model, collector, .. } = case(&task, Trunk::Separate, &[4, 3]);
    let found = [1, 2, 4].map(|threads| {
        let mut engine = Engine::new(&Cpu::new(threads).unwrap()).with_curvature(&model);
        let curvature = engine.curvature(&model, collector.store());
        (0..curvature.layers().len()).flat_map(|i| curvature.moments(i).concat()).collect::<Vec<f64>>()
    });
    assert_eq!(found[0], found[1]);
    assert_eq!(found[0], found[2]);
}
