//! Gradient, Fisher matrix and natural gradient from sampled trajectories, against the exact ones.

use super::exact::Lqg;
use crate::StudyError;
use pgrad_engine::PolicyMetric;
use pgrad_env::{Actions, BatchEnv, VecEnv};
use pgrad_envs::{KakadeLqg, KakadeMdp};
use pgrad_math::{
    dist::{ActionDist, Actions as Drawn, ActionsMut},
    returns, surrogate,
};
use pgrad_nn::{Activation, Head, Network};
use pgrad_num::{
    Cols, ColsMut, Stream, Tb, TbMut,
    cg::{CgParams, CgScratch, solve},
    linop::LinOp,
};

/// Purpose number of the streams of sampled actions.
const STREAM_ACTIONS: u32 = 0x4b41;

/// A policy, its task, and what is known about both.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) net: Network,
    pub(super) dist: ActionDist,
    pub(super) theta: Vec<f64>,
    pub(super) make: fn(usize) -> Box<dyn BatchEnv>,
    pub(super) steps: usize,
    pub(super) exact: Estimate,
}

/// Gradient of the return of a trajectory, Fisher matrix (row after row), natural gradient.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Estimate {
    pub(super) gradient: Vec<f64>,
    pub(super) fisher: Vec<f64>,
    pub(super) natural: Vec<f64>,
}

impl Estimate {
    pub(super) fn parts(&self) -> [(&'static str, &[f64]); 3] {
        [("gradient", &self.gradient), ("Fisher", &self.fisher), ("natural gradient", &self.natural)]
    }
}

/// Solves `(A + ε I) x = b` by elimination: the exact side of the comparison does not use conjugate gradient.
fn dense_solve(a: &[f64], b: &[f64], damping: f64) -> Vec<f64> {
    let n = b.len();
    let mut rows: Vec<Vec<f64>> = (0..n)
        .map(|i| {
            let mut row = a[i * n..(i + 1) * n].to_vec();
            row[i] += damping;
            row.push(b[i]);
            row
        })
        .collect();
    // Positive definite: no pivots are needed.
    for i in 0..n {
        let pivot = rows[i].clone();
        for (_, row) in rows.iter_mut().enumerate().filter(|(r, _)| *r != i) {
            let factor = row[i] / pivot[i];
            for (x, p) in row.iter_mut().zip(&pivot) {
                *x -= factor * p;
            }
        }
    }
    (0..n).map(|i| rows[i][n] / rows[i][i]).collect()
}

fn shape(e: &pgrad_nn::ShapeError) -> StudyError {
    StudyError::Measure { reason: e.to_string() }
}

/// A linear policy on the two-state task; the logit of staying in `s` is that of crossing plus `θ_s`.
pub(super) fn mdp_case(stay: [f64; 2], damping: f64) -> Result<Case, StudyError> {
    let head = Head::Linear { name: "logits", rows: 2, gain: 1.0 };
    let net = Network::mlp(2, &[], Activation::Tanh, vec![head]).map_err(|e| shape(&e))?;
    let half = stay.map(|p| 0.5 * (p / (1.0 - p)).ln());
    // Rows: crossing, staying; columns: i, j; then the biases.
    let theta = vec![-half[0], -half[1], half[0], half[1], 0.0, 0.0];
    // Carry the probability q of i, and its derivatives, through the steps.
    let steps = KakadeMdp::new(1).spec().max_episode_steps.unwrap_or(1) as usize;
    let ([a, b], [r_i, r_j]) = (stay, KakadeMdp::STAY);
    let (mut q, mut q_a, mut q_b) = (KakadeMdp::FIRST_I, 0.0, 0.0);
    let (mut d_a, mut d_b, mut mean_q) = (0.0, 0.0, 0.0);
    for _ in 0..steps {
        mean_q += q / steps as f64;
        let slope = a * r_i - b * r_j;
        d_a += q * r_i + q_a * slope;
        d_b += (1.0 - q) * r_j + q_b * slope;
        let keep = a - (1.0 - b);
        (q, q_a, q_b) = (q * a + (1.0 - q) * (1.0 - b), q + keep * q_a, keep * q_b - (1.0 - q));
    }
    let weight = [mean_q, 1.0 - mean_q];
    let slope: [f64; 2] = std::array::from_fn(|s| stay[s] * (1.0 - stay[s]));
    let g = [d_a * slope[0], d_b * slope[1]];
    let gradient = vec![-g[0], -g[1], g[0], g[1], -g[0] - g[1], g[0] + g[1]];
    // Jᵀ F_out J of each state; F_out = slope [[1, -1], [-1, 1]]; a parameter moves its own output by 1 in
    // the state that it sees (a bias in both).
    let output = [0, 0, 1, 1, 0, 1];
    let sees = [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 1.0]];
    let mut fisher = vec![0.0; 36];
    for (p, q) in (0..6).flat_map(|p| (0..6).map(move |q| (p, q))) {
        let sign = if output[p] == output[q] { 1.0 } else { -1.0 };
        fisher[p * 6 + q] = (0..2).map(|s| weight[s] * slope[s] * sign * sees[p][s] * sees[q][s]).sum();
    }
    let natural = dense_solve(&fisher, &gradient, damping);
    Ok(Case {
        name: "two states",
        net,
        dist: ActionDist::Categorical { n: 2 },
        theta,
        make: |n| Box::new(KakadeMdp::new(n)),
        steps,
        exact: Estimate { gradient, fisher, natural },
    })
}

/// A linear Gaussian policy on the linear-quadratic task: `u ~ N(k x + bias, σ²)`.
pub(super) fn lqg_case([alpha, beta]: [f64; 2], damping: f64) -> Result<Case, StudyError> {
    let (variance, gain) = (-0.5 / alpha, -0.5 * beta / alpha);
    let log_std = 0.5 * f64::ln(variance);
    let heads = vec![
        Head::Linear { name: "mean", rows: 1, gain: 1.0 },
        Head::Free { name: "log_std", rows: 1, value: log_std },
    ];
    let net = Network::mlp(1, &[], Activation::Tanh, heads).map_err(|e| shape(&e))?;
    let exact = Lqg::at(gain, variance);
    // Of the return, minus the cost; the mean of x is 0, and so is the gradient of the bias.
    let gradient = vec![-exact.d_gain, 0.0, -exact.d_variance * 2.0 * variance];
    let mut fisher = vec![0.0; 9];
    (fisher[0], fisher[4], fisher[8]) = (exact.second_moment / variance, 1.0 / variance, 2.0);
    let natural = dense_solve(&fisher, &gradient, damping);
    Ok(Case {
        name: "LQG",
        net,
        dist: ActionDist::DiagGaussian { dim: 1 },
        theta: vec![gain, 0.0, log_std],
        make: |n| Box::new(KakadeLqg::new(n)),
        steps: KakadeLqg::HORIZON,
        exact: Estimate { gradient, fisher, natural },
    })
}

impl Case {
    /// Draws `n` trajectories side by side and estimates all three from them.
    pub(super) fn sample(&self, n: usize, seed: u64, damping: f64) -> Result<Estimate, StudyError> {
        let failed =
            |e: &dyn std::fmt::Display| StudyError::Measure { reason: format!("{}: {e}", self.name) };
        let mut envs = VecEnv::new((self.make)(n), seed, 0);
        envs.start().map_err(|e| failed(&e))?;
        let mut rngs: Vec<Stream> = (0..n).map(|b| Stream::new(seed, STREAM_ACTIONS, b as u32)).collect();
        let (inputs, samples) = (self.net.n_inputs(), self.steps * n);
        let discrete = self.dist.real_rows() == 0;
        // One column a step and environment, step after step.
        let mut x = vec![0.0; inputs * samples];
        let (mut indices, mut numbers) = (vec![0; samples], vec![0.0; samples]);
        let mut rewards = vec![0.0; samples];
        let mut tape = self.net.tape::<f64>(samples);
        for t in 0..self.steps {
            let now = t * n..(t + 1) * n;
            let mut obs = vec![0.0; inputs * n];
            for i in 0..inputs {
                for (b, o) in envs.obs().row(i).iter().enumerate() {
                    obs[i * n + b] = f64::from(*o);
                }
                x[i * samples..][now.clone()].copy_from_slice(&obs[i * n..(i + 1) * n]);
            }
            let mut out = self.net.forward(&self.theta, Cols::new(&obs, inputs, n), &mut tape);
            self.dist.prepare(out.reborrow(), None);
            if discrete {
                let row = &mut indices[now.clone()];
                self.dist.sample(out.as_cols(), &mut rngs, ActionsMut::index(ColsMut::new(row, 1, n)));
                envs.step(Actions::index(Cols::new(row, 1, n))).map_err(|e| failed(&e))?;
            } else {
                let row = &mut numbers[now.clone()];
                self.dist.sample(out.as_cols(), &mut rngs, ActionsMut::real(ColsMut::new(row, 1, n)));
                // What the environment is given is what was done.
                let given: Vec<f32> = row.iter().map(|u| *u as f32).collect();
                row.iter_mut().zip(&given).for_each(|(u, g)| *u = f64::from(*g));
                envs.step(Actions::real(Cols::new(&given, 1, n))).map_err(|e| failed(&e))?;
            }
            rewards[now].copy_from_slice(envs.rewards());
        }

        // ĝ = (1/n) Σ_trajectories Σ_t ∇log π(a_t|s_t) G_t
        let (carry, mut psi) = (vec![1.0; samples], vec![0.0; samples]);
        let tb = |data| Tb::new(data, self.steps, n);
        returns::reward_to_go(tb(&rewards), None, tb(&carry), 1.0, TbMut::new(&mut psi, self.steps, n));
        let x = Cols::new(&x, inputs, samples);
        let mut out = self.net.forward(&self.theta, x, &mut tape);
        self.dist.prepare(out.reborrow(), None);
        let params = out.into_data().to_vec();
        let params = Cols::new(&params, self.dist.n_outputs(), samples);
        let actions = if discrete {
            Drawn::index(Cols::new(&indices, 1, samples))
        } else {
            Drawn::real(Cols::new(&numbers, 1, samples))
        };
        let (mut logp, mut value, mut d_logp) = (vec![0.0; samples], vec![0.0; samples], vec![0.0; samples]);
        self.dist.logp(params, actions, &mut logp);
        surrogate::score(&logp, &psi, &mut value, &mut d_logp);
        let mut d_out = vec![0.0; params.data().len()];
        self.dist.logp_vjp(params, actions, &d_logp, ColsMut::new(&mut d_out, params.rows(), samples));
        let dim = self.net.n_params();
        let mut gradient = vec![0.0; dim];
        let d_out = Cols::new(&d_out, params.rows(), samples);
        self.net.vjp(&self.theta, x, &mut tape, d_out, &mut gradient, None);
        gradient.iter_mut().for_each(|g| *g /= n as f64);

        // F̂, a column at a time, and (F̂ + ε I)⁻¹ ĝ
        let mut metric = PolicyMetric::new(&self.net, &self.dist, &self.theta, x, 0.0);
        let mut fisher = vec![0.0; dim * dim];
        for (i, column) in fisher.chunks_exact_mut(dim).enumerate() {
            let unit: Vec<f64> = (0..dim).map(|k| f64::from(u8::from(k == i))).collect();
            metric.apply(&unit, column);
        }
        let mut metric = PolicyMetric::new(&self.net, &self.dist, &self.theta, x, damping);
        let mut natural = vec![0.0; dim];
        let params = CgParams { max_iterations: 10 * dim, tolerance: 1e-12 };
        solve(&mut metric, &gradient, &mut natural, params, &mut CgScratch::new(dim))
            .map_err(|e| failed(&e))?;
        Ok(Estimate { gradient, fisher, natural })
    }
}

/// A component of an estimate against the exact value.
pub(super) struct Compared {
    pub(super) part: &'static str,
    pub(super) index: usize,
    pub(super) exact: f64,
    pub(super) mean: f64,
    pub(super) error: f64,
}

impl Compared {
    /// Distance in standard errors; rounding of what does not vary is none.
    pub(super) fn z(&self) -> f64 {
        let distance = (self.mean - self.exact).abs();
        if distance <= 1e-9 * (1.0 + self.exact.abs()) { 0.0 } else { distance / self.error }
    }
}

pub(super) fn compare(exact: &Estimate, found: &[Estimate]) -> Vec<Compared> {
    let n = found.len() as f64;
    let mut out = Vec::new();
    for (which, (part, exact)) in exact.parts().into_iter().enumerate() {
        for (index, exact) in exact.iter().enumerate() {
            let values: Vec<f64> = found.iter().map(|e| e.parts()[which].1[index]).collect();
            let mean = values.iter().sum::<f64>() / n;
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
            out.push(Compared { part, index, exact: *exact, mean, error: (variance / n).sqrt() });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{
        super::exact::{
            sigmoid,
            tests::{differences, near},
        },
        *,
    };

    #[test]
    fn what_samples_are_compared_with_is_exact() {
        let stay = [0.8, 0.1];
        let case = mdp_case(stay, 0.01).unwrap();
        // 100 steps of the two-state task, by carrying the distribution forward; the six parameters are
        // [output x state] weights and two biases, and the logit of staying in s is w[1][s] + b[1] - w[0][s]
        // - b[0].
        let walk = |p: [f64; 6], visit: &mut dyn FnMut([f64; 2], [f64; 2])| {
            let stay: [f64; 2] = std::array::from_fn(|s| sigmoid(p[2 + s] + p[5] - p[s] - p[4]));
            let mut rho = [0.8, 0.2];
            for _ in 0..100 {
                visit(rho, stay);
                let [a, b] = stay;
                rho = [rho[0] * a + rho[1] * (1.0 - b), rho[1] * b + rho[0] * (1.0 - a)];
            }
        };
        let total = |p: [f64; 6]| {
            let mut sum = 0.0;
            walk(p, &mut |rho, stay| sum += rho[0] * stay[0] + 2.0 * rho[1] * stay[1]);
            sum
        };
        let theta: [f64; 6] = case.theta.clone().try_into().unwrap();
        for (g, d) in case.exact.gradient.iter().zip(differences(total, theta)) {
            near(*g, d, 1e-7);
        }
        let mut visits = [0.0; 2];
        walk(theta, &mut |rho, _| (0..2).for_each(|s| visits[s] += rho[s] / 100.0));
        // F by its definition: the score of each action in each state.
        let mut fisher = vec![0.0; 36];
        for (s, visit) in visits.iter().enumerate() {
            for (action, p) in [(0, 1.0 - stay[s]), (1, stay[s])] {
                let score: Vec<f64> = (0..6)
                    .map(|i| {
                        let (output, seen) = if i < 4 { (i / 2, i % 2 == s) } else { (i - 4, true) };
                        let pi = if output == 1 { stay[s] } else { 1.0 - stay[s] };
                        if seen { f64::from(u8::from(output == action)) - pi } else { 0.0 }
                    })
                    .collect();
                for (i, f) in fisher.iter_mut().enumerate() {
                    *f += visit * p * score[i / 6] * score[i % 6];
                }
            }
        }
        for (a, b) in case.exact.fisher.iter().zip(&fisher) {
            near(*a, *b, 1e-12);
        }
        for (i, g) in case.exact.gradient.iter().enumerate() {
            let product: f64 = (0..6).map(|k| fisher[i * 6 + k] * case.exact.natural[k]).sum();
            near(product + 0.01 * case.exact.natural[i], *g, 1e-9);
        }

        let case = lqg_case([-0.8, -0.7], 0.01).unwrap();
        let cost = |[gain, bias, log_std]: [f64; 3]| {
            let variance = (2.0 * log_std).exp();
            let (mut mean, mut p, mut total) = (0.0, 0.0, 0.0);
            for _ in 0..20 {
                (mean, p) = ((0.7 + gain) * mean + bias, (0.7 + gain).powi(2) * p + variance + 1.0);
                total += p + mean * mean;
            }
            -total
        };
        let theta: [f64; 3] = case.theta.clone().try_into().unwrap();
        for (g, d) in case.exact.gradient.iter().zip(differences(cost, theta)) {
            near(*g, d, 1e-7);
        }
    }

    #[test]
    fn samples_are_unbiased_and_a_wrong_gradient_is_seen() {
        for case in [mdp_case([0.8, 0.1], 1e-3).unwrap(), lqg_case([-0.8, -0.8], 1e-3).unwrap()] {
            let found: Vec<Estimate> = (0..8).map(|i| case.sample(400, 100 + i, 1e-3).unwrap()).collect();
            let worst = |exact: &Estimate| compare(exact, &found).iter().map(Compared::z).fold(0.0, f64::max);
            // Eight batches: Student's distribution with seven degrees of freedom.
            assert!(worst(&case.exact) < 5.5, "{}: {}", case.name, worst(&case.exact));
            let mut wrong = case.exact.clone();
            wrong.gradient.iter_mut().for_each(|g| *g *= 3.0);
            assert!(worst(&wrong) > 8.0, "{}: {}", case.name, worst(&wrong));
            assert_eq!(case.sample(50, 3, 1e-3).unwrap(), case.sample(50, 3, 1e-3).unwrap());
            assert_ne!(case.sample(50, 3, 1e-3).unwrap(), case.sample(50, 4, 1e-3).unwrap());
        }
    }
}
