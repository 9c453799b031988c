//! The score-function estimate `(r − b) ∇ log π(a)` against exact gradients of `E[r]` (Williams 1992, Theorem
//! 1): unbiased within four standard errors, with and without a baseline; the baseline `b = E[r]` lowers the
//! variance.

use pgrad_math::{
    dist::{ActionDist, Actions, ActionsMut},
    surrogate,
};
use pgrad_num::{Cols, ColsMut, Stream};

const SAMPLES: usize = 100_000;

/// A unit, its raw parameters, the reward of an action, and the exact `E[r]` and its gradient.
struct Unit {
    name: &'static str,
    dist: ActionDist,
    outputs: Vec<f64>,
    reward: fn(&[f64]) -> f64,
    mean: f64,
    gradient: Vec<f64>,
}

fn bit_reward(a: &[f64]) -> f64 {
    3.0 + 2.0 * a[0] - a[1] + 1.5 * a[0] * a[2]
}

fn choice_reward(a: &[f64]) -> f64 {
    [5.0, 2.0, 3.5, 6.0][a[0] as usize]
}

fn quadratic_reward(a: &[f64]) -> f64 {
    10.0 - (a[0] - 2.0).powi(2) + 0.5 * a[0] * a[1]
}

/// Independent bits: sums over all eight outcomes of `r ∂P/∂l`.
fn bits() -> Unit {
    let outputs = vec![0.4, -1.1, 0.8];
    let p: Vec<f64> = outputs.iter().map(|l: &f64| 1.0 / (1.0 + (-l).exp())).collect();
    let (mut mean, mut gradient) = (0.0, vec![0.0; 3]);
    for outcome in 0..8 {
        let a: Vec<f64> = (0..3).map(|i| f64::from(outcome >> i & 1)).collect();
        let each = |i: usize| if a[i] == 1.0 { p[i] } else { 1.0 - p[i] };
        let chance: f64 = (0..3).map(each).product();
        mean += chance * bit_reward(&a);
        for (i, g) in gradient.iter_mut().enumerate() {
            // ∂P(a)/∂l_i: the i-th factor has the slope ±p (1 − p).
            let others: f64 = (0..3).filter(|j| *j != i).map(each).product();
            *g += others * (2.0 * a[i] - 1.0) * p[i] * (1.0 - p[i]) * bit_reward(&a);
        }
    }
    Unit {
        name: "Bernoulli",
        dist: ActionDist::Bernoulli { n: 3 },
        outputs,
        reward: bit_reward,
        mean,
        gradient,
    }
}

/// `∂E/∂l_i = p_i (r_i − E[r])`.
fn choice() -> Unit {
    let outputs = vec![0.3, -0.5, 1.2, 0.1];
    let total: f64 = outputs.iter().map(|l: &f64| l.exp()).sum();
    let p: Vec<f64> = outputs.iter().map(|l| l.exp() / total).collect();
    let r = |i: usize| choice_reward(&[i as f64]);
    let mean = (0..4).map(|i| p[i] * r(i)).sum();
    let gradient = (0..4).map(|i| p[i] * (r(i) - mean)).collect();
    let dist = ActionDist::Categorical { n: 4 };
    Unit { name: "softmax", dist, outputs, reward: choice_reward, mean, gradient }
}

/// `E[r] = 10 − (μ₀ − 2)² − σ₀² + μ₀ μ₁ / 2`.
fn gaussian() -> Unit {
    let outputs = vec![0.7, -0.4, -0.3, 0.2];
    let (m0, m1, s0) = (outputs[0], outputs[1], f64::exp(outputs[2]));
    let mean = 10.0 - (m0 - 2.0_f64).powi(2) - s0 * s0 + 0.5 * m0 * m1;
    let gradient = vec![-2.0 * (m0 - 2.0) + 0.5 * m1, 0.5 * m0, -2.0 * s0 * s0, 0.0];
    let dist = ActionDist::DiagGaussian { dim: 2 };
    Unit { name: "Gaussian", dist, outputs, reward: quadratic_reward, mean, gradient }
}

/// `Ψ ∇ log π` of every sample, `[n_outputs x SAMPLES]`, with `Ψ = r − b`.
fn estimates(unit: &Unit, baseline: f64) -> Vec<f64> {
    let (dist, rows) = (&unit.dist, unit.dist.n_outputs());
    let mut params: Vec<f64> = unit.outputs.iter().flat_map(|x| [*x].repeat(SAMPLES)).collect();
    dist.prepare(ColsMut::new(&mut params, rows, SAMPLES), None);
    let params = Cols::new(&params, rows, SAMPLES);
    let mut rngs: Vec<Stream> = (0..SAMPLES).map(|i| Stream::new(11, 1, i as u32)).collect();
    let (index_rows, real_rows) = (dist.index_rows(), dist.real_rows());
    let (mut index, mut real) = (vec![0; index_rows * SAMPLES], vec![0.0; real_rows * SAMPLES]);
    let mut actions = ActionsMut {
        index: ColsMut::new(&mut index, index_rows, SAMPLES),
        real: ColsMut::new(&mut real, real_rows, SAMPLES),
    };
    dist.sample(params, &mut rngs, actions.reborrow());
    let (mut logp, mut value, mut d_logp) = (vec![0.0; SAMPLES], vec![0.0; SAMPLES], vec![0.0; SAMPLES]);
    dist.logp(params, actions.as_actions(), &mut logp);
    let Actions { index, real } = actions.as_actions();
    let at = |row: usize, i: usize| {
        if row < index_rows { f64::from(index.at(row, i)) } else { real.at(row - index_rows, i) }
    };
    let psi: Vec<f64> = (0..SAMPLES)
        .map(|i| {
            let a: Vec<f64> = (0..index_rows + real_rows).map(|row| at(row, i)).collect();
            (unit.reward)(&a) - baseline
        })
        .collect();
    surrogate::score(&logp, &psi, &mut value, &mut d_logp);
    let mut d_out = vec![0.0; rows * SAMPLES];
    dist.logp_vjp(params, actions.as_actions(), &d_logp, ColsMut::new(&mut d_out, rows, SAMPLES));
    d_out
}

fn mean_and_variance(x: &[f64]) -> (f64, f64) {
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    (mean, x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0))
}

#[test]
fn score_functions_are_unbiased_and_a_baseline_lowers_their_variance() {
    for unit in [bits(), choice(), gaussian()] {
        let mut variances = Vec::new();
        for baseline in [0.0, unit.mean] {
            let estimates = estimates(&unit, baseline);
            let mut total = 0.0;
            for (i, (x, exact)) in estimates.chunks(SAMPLES).zip(&unit.gradient).enumerate() {
                let (mean, variance) = mean_and_variance(x);
                let error = (variance / SAMPLES as f64).sqrt();
                let off = (mean - exact) / error;
                assert!(off.abs() < 4.0, "{} {i}, b = {baseline}: {mean}, exactly {exact}: {off}", unit.name);
                // Sharp enough to see a wrong gradient.
                assert!(error < 0.05, "{} {i}: {error}", unit.name);
                total += variance;
            }
            variances.push(total);
        }
        let ratio = variances[1] / variances[0];
        assert!(ratio < 0.5, "{}: the baseline leaves {ratio} of the variance", unit.name);
    }
}
