//! Natural against vanilla gradient flows, exact, and the same gradients from samples.
//!
//! Two tasks, both solved in closed form, so that `θ' = ∇J(θ)` (vanilla) and `θ' = (F(θ) + ε I)⁻¹ ∇J(θ)` (natural)
//! are ordinary differential equations:
//!
//! - [`KakadeMdp`] with `π(stay | s) = σ(θ_s)`, one number a state; `J = η`, the average reward; `F` the mean of
//!   `∇log π ∇log πᵀ` under the stationary distribution, diagonal;
//! - [`KakadeLqg`] with `π(u | x) ∝ exp(θ₁ s₁ u² + θ₂ s₂ x u)`, `s` the scales of the parameters; `J` minus the mean
//!   cost of a step; `F` the mean over the steps of a trajectory.
//!
//! The third part draws trajectories with pgrad's own pieces (network, distribution, score, reward-to-go,
//! [`PolicyMetric`], conjugate gradient) and compares gradient, Fisher matrix and natural gradient with the exact
//! ones, component by component.
//!
//! Source: S. Kakade, "A natural policy gradient", NIPS 14 (2002), sections 3 to 5.

use super::flow::{self, Point};
use crate::{Bench, Csv, Findings, Measurement, Quantity, SEED_LIMIT, Source, StudyError, number};
use pgrad_agent::PolicyMetric;
use pgrad_draw::plot::{Line, PlotOptions, Scale, render_lines_svg};
use pgrad_env::{Actions, BatchEnv, VecEnv};
use pgrad_envs::{KakadeLqg, KakadeMdp};
use pgrad_nn::{Activation, Head, Mlp};
use pgrad_num::cg::{CgParams, CgScratch, solve};
use pgrad_num::linop::LinOp;
use pgrad_num::{Cols, ColsMut, Stream, Tb, TbMut};
use pgrad_rl::dist::{ActionDist, Actions as Drawn, ActionsMut};
use pgrad_rl::{returns, surrogate};
use serde::Deserialize;
use toml::Spanned;

/// Purpose number of the streams of sampled actions.
const STREAM_ACTIONS: u32 = 0x4b41;
/// Longest time of a flow.
const MAX_TIME: f64 = 1e12;

/// What is measured, from the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kakade {
    two_state: Spanned<TwoState>,
    lqg: Spanned<LqgFlow>,
    sampled: Spanned<Sampled>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TwoState {
    /// First probabilities of staying in `i` and in `j`.
    stay: [f64; 2],
    /// Average reward to reach.
    target_reward: f64,
    /// `ε` of the natural gradient.
    damping: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LqgFlow {
    /// First `θ₁ s₁` and `θ₂ s₂`.
    start: [f64; 2],
    /// Each `s₁, s₂`.
    scales: Vec<[f64; 2]>,
    /// Cost of 20 steps to reach.
    target_cost: f64,
    /// `ε` of the natural gradient.
    damping: f64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sampled {
    /// Seed of the first batch.
    first_seed: u64,
    /// Batches.
    batches: u64,
    /// Trajectories of a batch.
    trajectories: usize,
    /// `ε` of the natural gradient.
    damping: f64,
}

/// Average reward of the two-state task and what follows from it, at logits `θ`.
#[derive(Clone, Copy, Debug)]
struct Mdp {
    /// Stationary distribution.
    rho: [f64; 2],
    /// `η = Σ_s ρ(s) π(stay|s) r(s)`.
    eta: f64,
    /// `∂η/∂θ`.
    gradient: [f64; 2],
    /// Diagonal of `F = Σ_s ρ(s) Σ_a π ∇log π ∇log πᵀ`.
    fisher: [f64; 2],
}

fn sigmoid(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

impl Mdp {
    fn at(theta: [f64; 2]) -> Self {
        let [a, b] = theta.map(sigmoid);
        // 1 - a and 1 - b, exact where a and b are near 1.
        let [leave_i, leave_j] = theta.map(|z| sigmoid(-z));
        let [r_i, r_j] = KakadeMdp::STAY;
        let sum = leave_i + leave_j;
        let rho = [leave_j / sum, leave_i / sum];
        let gain = r_i * a * leave_j + r_j * b * leave_i;
        // η = gain / sum, and both sums fall by 1 for each unit of a or b.
        let d_a = ((r_i * leave_j - r_j * b) * sum + gain) / (sum * sum);
        let d_b = ((r_j * leave_i - r_i * a) * sum + gain) / (sum * sum);
        let slope = [a * leave_i, b * leave_j];
        Self {
            rho,
            eta: gain / sum,
            gradient: [d_a * slope[0], d_b * slope[1]],
            fisher: [rho[0] * slope[0], rho[1] * slope[1]],
        }
    }
    fn natural(&self, damping: f64) -> [f64; 2] {
        std::array::from_fn(|s| self.gradient[s] / (self.fisher[s] + damping))
    }
}

/// Cost of the linear-quadratic task under `u ~ N(k x, σ²)`.
#[derive(Clone, Copy, Debug)]
struct Lqg {
    /// Mean cost of a trajectory.
    cost: f64,
    /// `∂cost/∂k`.
    d_gain: f64,
    /// `∂cost/∂σ²`.
    d_variance: f64,
    /// Mean of `x²` over the states in which an action is taken.
    second_moment: f64,
}

impl Lqg {
    fn at(gain: f64, variance: f64) -> Self {
        let mut out = Self { cost: 0.0, d_gain: 0.0, d_variance: 0.0, second_moment: 0.0 };
        let (mut p, mut p_gain, mut p_variance) = (0.0, 0.0, 0.0);
        let c = KakadeLqg::DECAY + gain;
        for _ in 0..KakadeLqg::HORIZON {
            out.second_moment += p / KakadeLqg::HORIZON as f64;
            p_gain = 2.0 * c * p + c * c * p_gain;
            p_variance = 1.0 + c * c * p_variance;
            p = c * c * p + variance + 1.0;
            out.cost += p;
            out.d_gain += p_gain;
            out.d_variance += p_variance;
        }
        out
    }
}

/// The linear-quadratic task at the exponents `α u² + β x u`.
#[derive(Clone, Copy, Debug)]
struct LqgExponents {
    cost: f64,
    /// Gradient of minus the mean cost of a step.
    gradient: [f64; 2],
    /// `F`, mean over the steps: `[αα, αβ, ββ]`.
    fisher: [f64; 3],
}

impl LqgExponents {
    fn at([alpha, beta]: [f64; 2]) -> Self {
        let (variance, gain) = (-0.5 / alpha, -0.5 * beta / alpha);
        let Lqg { cost, d_gain, d_variance, second_moment: s } = Lqg::at(gain, variance);
        let slope = 0.5 / (alpha * alpha);
        let per_step = -1.0 / KakadeLqg::HORIZON as f64;
        Self {
            cost,
            gradient: [per_step * slope * (d_variance + beta * d_gain), per_step * d_gain * -0.5 / alpha],
            // Covariance of u² and x u: given x, u is N(k x, σ²).
            fisher: [
                2.0 * variance * variance + 4.0 * variance * gain * gain * s,
                2.0 * gain * variance * s,
                variance * s,
            ],
        }
    }
    /// `θ'` for parameters of these scales; `damping` gives the natural gradient.
    fn flow(&self, scales: [f64; 2], damping: Option<f64>) -> [f64; 2] {
        let g: [f64; 2] = std::array::from_fn(|i| scales[i] * self.gradient[i]);
        let Some(damping) = damping else { return g };
        let aa = scales[0] * scales[0] * self.fisher[0] + damping;
        let ab = scales[0] * scales[1] * self.fisher[1];
        let bb = scales[1] * scales[1] * self.fisher[2] + damping;
        let det = aa * bb - ab * ab;
        [(bb * g[0] - ab * g[1]) / det, (aa * g[1] - ab * g[0]) / det]
    }
}

/// A flow with its name.
struct Flow {
    label: String,
    points: Vec<Point>,
}

impl Flow {
    fn time(&self) -> f64 {
        self.points.last().map_or(f64::NAN, |p| p.0)
    }
    fn line(&self, value: impl Fn([f64; 2]) -> f64) -> Line {
        let points = self.points.iter().map(|(t, x)| (*t, value(*x))).collect();
        Line { label: self.label.clone(), points, band: vec![] }
    }
}

impl Kakade {
    /// The flows of the two-state task: natural, vanilla.
    fn two_state_flows(&self) -> Result<[Flow; 2], StudyError> {
        let TwoState { stay, target_reward, damping } = *self.two_state.get_ref();
        let start = stay.map(|p| (p / (1.0 - p)).ln());
        let run = |label: &str, f: &dyn Fn(&Mdp) -> [f64; 2]| {
            let margin = |theta| Mdp::at(theta).eta - target_reward;
            let points = flow::until(|theta| f(&Mdp::at(theta)), start, margin, MAX_TIME)
                .map_err(|why| StudyError::Measure { reason: format!("two states, {label}: {why}") })?;
            Ok::<Flow, StudyError>(Flow { label: label.to_owned(), points })
        };
        Ok([run("natural", &|m| m.natural(damping))?, run("vanilla", &|m| m.gradient)?])
    }
    /// The flows of the linear-quadratic task: for each pair of scales natural, vanilla.
    fn lqg_flows(&self) -> Result<Vec<[Flow; 2]>, StudyError> {
        let LqgFlow { start, scales, target_cost, damping } = self.lqg.get_ref();
        let run = |name: &str, s: [f64; 2], damping: Option<f64>| {
            let label = format!("{name}, scales {} and {}", s[0], s[1]);
            let at = |theta: [f64; 2]| LqgExponents::at([theta[0] * s[0], theta[1] * s[1]]);
            let from = [start[0] / s[0], start[1] / s[1]];
            let margin = |theta| target_cost - at(theta).cost;
            let points = flow::until(|theta| at(theta).flow(s, damping), from, margin, MAX_TIME)
                .map_err(|why| StudyError::Measure { reason: format!("LQG, {label}: {why}") })?;
            let exponents = |(t, x): &Point| (*t, [x[0] * s[0], x[1] * s[1]]);
            Ok::<Flow, StudyError>(Flow { label, points: points.iter().map(exponents).collect() })
        };
        scales.iter().map(|s| Ok([run("natural", *s, Some(*damping))?, run("vanilla", *s, None)?])).collect()
    }
}

/// A policy, its task, and what is known about both.
struct Case {
    name: &'static str,
    net: Mlp,
    dist: ActionDist,
    theta: Vec<f64>,
    make: fn(usize) -> Box<dyn BatchEnv>,
    steps: usize,
    exact: Estimate,
}

/// Gradient of the return of a trajectory, Fisher matrix (row after row), natural gradient.
#[derive(Clone, Debug, PartialEq)]
struct Estimate {
    gradient: Vec<f64>,
    fisher: Vec<f64>,
    natural: Vec<f64>,
}

impl Estimate {
    fn parts(&self) -> [(&'static str, &[f64]); 3] {
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
fn mdp_case(stay: [f64; 2], damping: f64) -> Result<Case, StudyError> {
    let head = Head::Linear { name: "logits", rows: 2, gain: 1.0 };
    let net = Mlp::new(2, &[], Activation::Tanh, vec![head]).map_err(|e| shape(&e))?;
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
    // Jᵀ F_out J of each state; F_out = slope [[1, -1], [-1, 1]]; a parameter moves its own output by 1 in the
    // state that it sees (a bias in both).
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
fn lqg_case([alpha, beta]: [f64; 2], damping: f64) -> Result<Case, StudyError> {
    let (variance, gain) = (-0.5 / alpha, -0.5 * beta / alpha);
    let log_std = 0.5 * f64::ln(variance);
    let heads = vec![
        Head::Linear { name: "mean", rows: 1, gain: 1.0 },
        Head::Free { name: "log_std", rows: 1, value: log_std },
    ];
    let net = Mlp::new(1, &[], Activation::Tanh, heads).map_err(|e| shape(&e))?;
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
    fn sample(&self, n: usize, seed: u64, damping: f64) -> Result<Estimate, StudyError> {
        let failed =
            |e: &dyn std::fmt::Display| StudyError::Measure { reason: format!("{}: {e}", self.name) };
        let mut envs = VecEnv::new((self.make)(n), seed, 0);
        envs.start().map_err(|e| failed(&e))?;
        let mut rngs: Vec<Stream> = (0..n).map(|b| Stream::new(seed, STREAM_ACTIONS, b as u32)).collect();
        let (inputs, samples) = (self.net.n_inputs(), self.steps * n);
        let discrete = self.dist.is_discrete();
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
                self.dist.sample(out.as_cols(), &mut rngs, ActionsMut::Index(ColsMut::new(row, 1, n)));
                envs.step(Actions::Index(Cols::new(row, 1, n))).map_err(|e| failed(&e))?;
            } else {
                let row = &mut numbers[now.clone()];
                self.dist.sample(out.as_cols(), &mut rngs, ActionsMut::Real(ColsMut::new(row, 1, n)));
                // What the environment is given is what was done.
                let given: Vec<f32> = row.iter().map(|u| *u as f32).collect();
                row.iter_mut().zip(&given).for_each(|(u, g)| *u = f64::from(*g));
                envs.step(Actions::Real(Cols::new(&given, 1, n))).map_err(|e| failed(&e))?;
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
            Drawn::Index(Cols::new(&indices, 1, samples))
        } else {
            Drawn::Real(Cols::new(&numbers, 1, samples))
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
struct Compared {
    part: &'static str,
    index: usize,
    exact: f64,
    mean: f64,
    error: f64,
}

impl Compared {
    /// Distance in standard errors; rounding of what does not vary is none.
    fn z(&self) -> f64 {
        let distance = (self.mean - self.exact).abs();
        if distance <= 1e-9 * (1.0 + self.exact.abs()) { 0.0 } else { distance / self.error }
    }
}

fn compare(exact: &Estimate, found: &[Estimate]) -> Vec<Compared> {
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

impl Measurement for Kakade {
    fn check(&mut self, source: &Source<'_>) -> Result<(), StudyError> {
        let wrong = |at: usize, what: &str| Err(source.error(at, what));
        let at = self.two_state.span().start;
        let TwoState { stay, target_reward, damping } = *self.two_state.get_ref();
        if !stay.iter().all(|p| *p > 0.0 && *p < 1.0) {
            return wrong(at, "`stay` are two probabilities between 0 and 1");
        }
        let eta = Mdp::at(stay.map(|p| (p / (1.0 - p)).ln())).eta;
        let best = KakadeMdp::STAY[1];
        if !(target_reward > eta && target_reward < best) {
            let range =
                format!("`target_reward` is between the first average reward, {eta}, and the best, {best}");
            return wrong(at, &range);
        }
        let at_lqg = self.lqg.span().start;
        let lqg = self.lqg.get_ref();
        let at_sampled = self.sampled.span().start;
        let sampled = *self.sampled.get_ref();
        for (at, damping) in [(at, damping), (at_lqg, lqg.damping), (at_sampled, sampled.damping)] {
            if !(damping >= 0.0 && damping.is_finite()) {
                return wrong(at, "`damping` is finite and at least 0");
            }
        }
        if !(lqg.start[0] < 0.0 && lqg.start.iter().all(|x| x.is_finite())) {
            return wrong(
                at_lqg,
                "`start` are two finite numbers, the first negative: minus the inverse of 2 σ²",
            );
        }
        if lqg.scales.is_empty() || !lqg.scales.iter().flatten().all(|s| *s > 0.0 && s.is_finite()) {
            return wrong(at_lqg, "`scales` are pairs of numbers above 0");
        }
        let (cost, best) = (LqgExponents::at(lqg.start).cost, KakadeLqg::HORIZON as f64);
        if !(lqg.target_cost > best && lqg.target_cost < cost) {
            let range = format!("`target_cost` is between the best cost, {best}, and the first, {cost}");
            return wrong(at_lqg, &range);
        }
        let last = sampled.first_seed.checked_add(sampled.batches);
        if sampled.batches < 2 || last.is_none_or(|last| last > SEED_LIMIT) {
            return wrong(at_sampled, "`batches` is at least 2, and seeds stay below a million million");
        }
        if sampled.trajectories == 0 || sampled.damping == 0.0 {
            // Logits have a direction in which nothing changes.
            return wrong(at_sampled, "`trajectories` is at least 1, and `damping` here is above 0");
        }
        Ok(())
    }

    fn quantities(&self) -> Vec<String> {
        let mut names: Vec<String> = [
            "two states: natural time",
            "two states: vanilla time",
            "two states: vanilla over natural time",
            "two states: natural least probability of j",
            "two states: natural least probability of a state",
            "two states: vanilla least probability of j",
            "LQG: first cost",
            "LQG: natural time, least",
            "LQG: natural time, greatest",
            "LQG: natural time, spread",
        ]
        .map(str::to_owned)
        .to_vec();
        for s in &self.lqg.get_ref().scales {
            names.push(format!("LQG: vanilla over natural time, scales {} and {}", s[0], s[1]));
        }
        for case in ["two states", "LQG"] {
            for part in ["gradient", "Fisher", "natural gradient"] {
                names.push(format!("{case}: sampled {part}, largest distance"));
            }
        }
        names
    }

    fn extent(&self) -> String {
        let sampled = self.sampled.get_ref();
        format!("{} flows, {} batches", 2 + 2 * self.lqg.get_ref().scales.len(), 2 * sampled.batches)
    }

    fn has_seeds(&self) -> bool {
        true
    }

    fn measure(&self, bench: &mut Bench<'_>) -> Result<Findings, StudyError> {
        let mut rows = Vec::new();
        let mut row = |task: &str, curve: &str, what: &str, at: f64, value: f64| {
            let cells = [task.to_owned(), curve.replace(',', ";"), what.to_owned(), at.to_string()];
            rows.push(cells.into_iter().chain([value.to_string()]).collect());
        };

        let two = self.two_state_flows()?;
        for flow in &two {
            for (t, theta) in &flow.points {
                let m = Mdp::at(*theta);
                row("two states", &flow.label, "average reward", *t, m.eta);
                row("two states", &flow.label, "probability of j", *t, m.rho[1]);
            }
        }
        let least = |flow: &Flow, of: &dyn Fn(Mdp) -> f64| {
            flow.points.iter().map(|p| of(Mdp::at(p.1))).fold(f64::INFINITY, f64::min)
        };
        let lqg = self.lqg_flows()?;
        for flow in lqg.iter().flatten() {
            for (t, exponents) in &flow.points {
                row("LQG", &flow.label, "cost", *t, LqgExponents::at(*exponents).cost);
            }
        }
        let times: Vec<f64> = lqg.iter().map(|pair| pair[0].time()).collect();
        let (low, high) =
            times.iter().fold((f64::INFINITY, 0.0), |(l, h), t| (f64::min(l, *t), f64::max(h, *t)));
        let [natural, vanilla] = &two;
        let mut values = vec![
            natural.time(),
            vanilla.time(),
            vanilla.time() / natural.time(),
            least(natural, &|m| m.rho[1]),
            least(natural, &|m| m.rho[0].min(m.rho[1])),
            least(vanilla, &|m| m.rho[1]),
            LqgExponents::at(self.lqg.get_ref().start).cost,
            low,
            high,
            (high - low) / (high + low),
        ];
        values.extend(lqg.iter().map(|pair| pair[1].time() / pair[0].time()));

        let Sampled { first_seed, batches, trajectories, damping } = *self.sampled.get_ref();
        let batches = bench.seeds.map_or(batches, |n| n.min(batches));
        if batches < 2 {
            return Err(StudyError::Measure { reason: "a standard error needs two batches at least".into() });
        }
        let cases =
            [mdp_case(self.two_state.get_ref().stay, damping)?, lqg_case(self.lqg.get_ref().start, damping)?];
        let mut text = format!(
            "Sampled: {batches} batches of {trajectories} trajectories, gradient of the return of a trajectory \
             (100 steps, 20 steps), {damping} I added to F; distances in standard errors over the batches.\n\n\
             | task | what | component | exact | sampled | standard error | distance |\n|---|---|--:|--:|--:|--:|--:|\n"
        );
        for case in &cases {
            let found =
                bench.map(batches as usize, |i| case.sample(trajectories, first_seed + i as u64, damping))?;
            let compared = compare(&case.exact, &found);
            for (part, _) in case.exact.parts() {
                let worst = compared.iter().filter(|c| c.part == part).map(Compared::z).fold(0.0, f64::max);
                values.push(worst);
            }
            for c in &compared {
                row(case.name, c.part, "sampled mean", c.index as f64, c.mean);
                // The whole of a Fisher matrix is in the file.
                if c.part != "Fisher" {
                    text += &format!(
                        "| {} | {} | {} | {} | {} | {} | {:.2} |\n",
                        case.name,
                        c.part,
                        c.index,
                        number(c.exact),
                        number(c.mean),
                        number(c.error),
                        c.z()
                    );
                }
            }
        }
        let names = self.quantities();
        Ok(Findings {
            quantities: names.into_iter().zip(values).map(|(n, v)| Quantity::exact(n, v)).collect(),
            results: Some(Csv { header: vec!["task", "curve", "what", "at", "value"], rows }),
            text,
            pictures: self.pictures(&two, &lqg)?,
        })
    }
}

impl Kakade {
    fn pictures(&self, two: &[Flow; 2], lqg: &[[Flow; 2]]) -> Result<Vec<(String, String)>, StudyError> {
        let options = |title: &str, y_label: &str| PlotOptions {
            title: title.to_owned(),
            x_label: "time of the flow".to_owned(),
            y_label: y_label.to_owned(),
            x_scale: Scale::Log10,
            ..PlotOptions::default()
        };
        let lines = |value: &dyn Fn([f64; 2]) -> f64| two.iter().map(|f| f.line(value)).collect::<Vec<_>>();
        let reward = PlotOptions {
            threshold: Some((self.two_state.get_ref().target_reward, "target".to_owned())),
            ..options("Two states: average reward", "average reward")
        };
        let rho = PlotOptions {
            y_scale: Scale::Log10,
            ..options("Two states: part of the time in j", "stationary probability of j")
        };
        let cost = PlotOptions {
            threshold: Some((self.lqg.get_ref().target_cost, "target".to_owned())),
            ..options("LQG: cost of 20 steps", "cost")
        };
        let costs: Vec<Line> = lqg.iter().flatten().map(|f| f.line(|x| LqgExponents::at(x).cost)).collect();
        Ok(vec![
            ("two-states-reward.svg".into(), render_lines_svg(&lines(&|x| Mdp::at(x).eta), &reward)?),
            ("two-states-probability.svg".into(), render_lines_svg(&lines(&|x| Mdp::at(x).rho[1]), &rho)?),
            ("lqg-cost.svg".into(), render_lines_svg(&costs, &cost)?),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AnyStudy, KINDS};

    const TEXT: &str = include_str!("../../../../studies/kakade.toml");

    fn near(a: f64, b: f64, tolerance: f64) {
        assert!((a - b).abs() <= tolerance * (1.0 + b.abs()), "{a} is not {b}");
    }

    /// Central differences of `f` at `x`.
    fn differences<const N: usize>(f: impl Fn([f64; N]) -> f64, x: [f64; N]) -> [f64; N] {
        let h = 1e-5;
        std::array::from_fn(|i| {
            let at = |d: f64| {
                let mut y = x;
                y[i] += d;
                f(y)
            };
            (at(h) - at(-h)) / (2.0 * h)
        })
    }

    /// Second differences of `f` at `x`.
    fn hessian(f: impl Fn([f64; 2]) -> f64, x: [f64; 2]) -> [[f64; 2]; 2] {
        let h = 1e-4;
        std::array::from_fn(|i| {
            std::array::from_fn(|k| {
                let at = |a: f64, b: f64| {
                    let mut y = x;
                    y[i] += a;
                    y[k] += b;
                    f(y)
                };
                (at(h, h) - at(h, -h) - at(-h, h) + at(-h, -h)) / (4.0 * h * h)
            })
        })
    }

    /// The long-run distribution, by carrying it forward.
    fn carried(theta: [f64; 2]) -> ([f64; 2], f64) {
        let [a, b] = theta.map(|z| 1.0 / (1.0 + (-z).exp()));
        let mut rho = [0.5, 0.5];
        for _ in 0..100_000 {
            rho = [rho[0] * a + rho[1] * (1.0 - b), rho[1] * b + rho[0] * (1.0 - a)];
        }
        (rho, rho[0] * a + 2.0 * rho[1] * b)
    }

    #[test]
    fn average_reward_gradient_and_fisher_of_two_states() {
        for theta in [[1.386, -2.197], [0.3, 0.7], [3.0, -4.0]] {
            let m = Mdp::at(theta);
            let (rho, eta) = carried(theta);
            near(m.eta, eta, 1e-9);
            near(m.rho[0], rho[0], 1e-9);
            near(m.rho[1], rho[1], 1e-9);
            let g = differences(|t| Mdp::at(t).eta, theta);
            // The Hessian of the mean KL(old, new) at new = old.
            let kl = |new: [f64; 2]| -> f64 {
                (0..2)
                    .map(|s| {
                        let (p, q) = (sigmoid(theta[s]), sigmoid(new[s]));
                        rho[s] * (p * (p / q).ln() + (1.0 - p) * ((1.0 - p) / (1.0 - q)).ln())
                    })
                    .sum()
            };
            let f = hessian(kl, theta);
            for s in 0..2 {
                near(m.gradient[s], g[s], 1e-8);
                near(m.fisher[s], f[s][s], 1e-6);
                near(m.natural(0.1)[s], g[s] / (f[s][s] + 0.1), 1e-5);
            }
            near(f[0][1], 0.0, 1e-6);
        }
    }

    #[test]
    fn cost_gradient_and_fisher_of_the_lqg() {
        for exponents in [[-0.8, -0.8], [-2.0, -1.0], [-0.5, 0.1]] {
            let at = LqgExponents::at(exponents);
            let g = differences(|e| -LqgExponents::at(e).cost / 20.0, exponents);
            let normal = |[alpha, beta]: [f64; 2]| (-0.5 / alpha, -0.5 * beta / alpha);
            let (variance, gain) = normal(exponents);
            let s = Lqg::at(gain, variance).second_moment;
            let kl = |new: [f64; 2]| {
                let (v, k) = normal(new);
                0.5 * (v / variance).ln() + (variance + (gain - k).powi(2) * s) / (2.0 * v) - 0.5
            };
            let f = hessian(kl, exponents);
            for i in 0..2 {
                near(at.gradient[i], g[i], 1e-8);
            }
            near(at.fisher[0], f[0][0], 1e-5);
            near(at.fisher[1], f[0][1], 1e-5);
            near(at.fisher[2], f[1][1], 1e-5);
            // Without damping the exponents move alike for all scales; the vanilla flow does not.
            let moves = |s: [f64; 2], damping: Option<f64>| {
                let v = at.flow(s, damping);
                [v[0] * s[0], v[1] * s[1]]
            };
            let (one, other) = (moves([1.0, 1.0], Some(0.0)), moves([0.1, 7.0], Some(0.0)));
            near(one[0], other[0], 1e-9);
            near(one[1], other[1], 1e-9);
            near(f[0][0] * one[0] + f[0][1] * one[1], g[0], 1e-4);
            assert!((moves([1.0, 1.0], None)[1] - moves([0.1, 7.0], None)[1]).abs() > 1e-3);
        }
    }

    #[test]
    fn what_samples_are_compared_with_is_exact() {
        let stay = [0.8, 0.1];
        let case = mdp_case(stay, 0.01).unwrap();
        // 100 steps of the two-state task, by carrying the distribution forward; the six parameters are
        // [output x state] weights and two biases, and the logit of staying in s is w[1][s] + b[1] - w[0][s] - b[0].
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

    #[test]
    fn wrong_parameters_are_refused_with_their_line() {
        let read = |text: &str| AnyStudy::parse_with(text, "k.toml", "k", KINDS);
        assert!(read(TEXT).is_ok());
        for (right, wrong, expected) in [
            ("stay = [0.8, 0.1]", "stay = [0.8, 1.1]", "`stay` are two probabilities"),
            ("stay = [0.8, 0.1]", "stay = [0.8]", "expected an array of length 2"),
            ("target_reward = 1.9", "target_reward = 2.1", "`target_reward` is between"),
            ("damping = 1e-3", "damping = -1.0", "`damping` is finite and at least 0"),
            ("damping = 1e-3", "dampng = 1e-3", "did you mean `damping`?"),
            ("start = [-0.8, -0.8]", "start = [0.8, -0.8]", "the first negative"),
            ("[1.0, 10.0]", "[0.0, 10.0]", "`scales` are pairs"),
            ("target_cost = 22.0", "target_cost = 19.0", "`target_cost` is between the best cost, 20,"),
            ("batches = 20", "batches = 1", "`batches` is at least 2"),
            ("trajectories = 2000", "trajectories = 0", "`trajectories` is at least 1"),
        ] {
            assert!(TEXT.contains(right), "{right}");
            let e = read(&TEXT.replacen(right, wrong, 1)).unwrap_err().to_string();
            assert!(e.contains(expected) && e.starts_with("k.toml:"), "{wrong}: {e}");
        }
    }
}
