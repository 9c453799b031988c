//! Value, gradient and Fisher matrix of both tasks in closed form.

use pgrad_envs::{KakadeLqg, KakadeMdp};

/// Average reward of the two-state task and what follows from it, at logits `θ`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mdp {
    /// Stationary distribution.
    pub(super) rho: [f64; 2],
    /// `η = Σ_s ρ(s) π(stay|s) r(s)`.
    pub(super) eta: f64,
    /// `∂η/∂θ`.
    pub(super) gradient: [f64; 2],
    /// Diagonal of `F = Σ_s ρ(s) Σ_a π ∇log π ∇log πᵀ`.
    pub(super) fisher: [f64; 2],
}

pub(super) fn sigmoid(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

impl Mdp {
    pub(super) fn at(theta: [f64; 2]) -> Self {
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
    pub(super) fn natural(&self, damping: f64) -> [f64; 2] {
        std::array::from_fn(|s| self.gradient[s] / (self.fisher[s] + damping))
    }
}

/// Cost of the linear-quadratic task under `u ~ N(k x, σ²)`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lqg {
    /// Mean cost of a trajectory.
    pub(super) cost: f64,
    /// `∂cost/∂k`.
    pub(super) d_gain: f64,
    /// `∂cost/∂σ²`.
    pub(super) d_variance: f64,
    /// Mean of `x²` over the states in which an action is taken.
    pub(super) second_moment: f64,
}

impl Lqg {
    pub(super) fn at(gain: f64, variance: f64) -> Self {
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
pub(super) struct LqgExponents {
    pub(super) cost: f64,
    /// Gradient of minus the mean cost of a step.
    pub(super) gradient: [f64; 2],
    /// `F`, mean over the steps: `[αα, αβ, ββ]`.
    pub(super) fisher: [f64; 3],
}

impl LqgExponents {
    pub(super) fn at([alpha, beta]: [f64; 2]) -> Self {
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
    pub(super) fn flow(&self, scales: [f64; 2], damping: Option<f64>) -> [f64; 2] {
        let g: [f64; 2] = std::array::from_fn(|i| scales[i] * self.gradient[i]);
        let Some(damping) = damping else { return g };
        let aa = scales[0] * scales[0] * self.fisher[0] + damping;
        let ab = scales[0] * scales[1] * self.fisher[1];
        let bb = scales[1] * scales[1] * self.fisher[2] + damping;
        let det = aa * bb - ab * ab;
        [(bb * g[0] - ab * g[1]) / det, (aa * g[1] - ab * g[0]) / det]
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn near(a: f64, b: f64, tolerance: f64) {
        assert!((a - b).abs() <= tolerance * (1.0 + b.abs()), "{a} is not {b}");
    }

    /// Central differences of `f` at `x`.
    pub(in super::super) fn differences<const N: usize>(
        f: impl Fn([f64; N]) -> f64,
        x: [f64; N],
    ) -> [f64; N] {
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
}
