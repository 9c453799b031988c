//! Scalar objectives in log-probability space, and value losses, with their derivatives.
//!
//! # Conventions
//! - A surrogate is **maximised**, a value loss is **minimised**. A descent on a surrogate passes
//!   `-d_logp` on.
//! - Values and derivatives are **per sample**, neither summed nor averaged: the caller scales (by
//!   `1/N`, by a coefficient) and so decides what `N` is.
//! - `logp` is log π(a|s) under the parameters that are being changed, `logp_old` under those that drew
//!   the data, both `[N]`; `r = π/π_old = exp(logp - logp_old)`.
//! - A KL penalty is composed by the caller from [`ratio`] and
//!   [`ActionDist::kl`](crate::dist::ActionDist::kl).
//!
//! # Panics
//! All slices of one call have the same length.

use pgrad_num::{Real, simd};

#[inline(always)]
fn log_ratio_exp<R: Real>(logp: &[R], logp_old: &[R], r: &mut [R]) {
    for ((r, new), old) in r.iter_mut().zip(logp).zip(logp_old) {
        *r = *new - *old;
    }
    R::exp_slice(r);
}

fn same_length(n: usize, lengths: &[usize]) {
    assert!(lengths.iter().all(|l| *l == n), "slices of one surrogate differ in length: {n}, {lengths:?}");
}

/// The score-function surrogate, `L = log π(a|s) Ψ`, `∂L/∂log π = Ψ`.
///
/// Its gradient is the policy-gradient estimate `Ψ ∇ log π` (Schulman et al. 2016, Eq. 1; REINFORCE,
/// Williams 1992, with Ψ the return). Shapes: all `[N]`.
///
/// # Panics
/// When lengths differ.
pub fn score<R: Real>(logp: &[R], psi: &[R], value: &mut [R], d_logp: &mut [R]) {
    same_length(logp.len(), &[psi.len(), value.len(), d_logp.len()]);
    simd!(|| {
        for ((v, lp), psi) in value.iter_mut().zip(logp).zip(psi) {
            *v = *lp * *psi;
        }
    });
    d_logp.copy_from_slice(psi);
}

/// The importance-weighted surrogate, `L = r Ψ`, `∂L/∂log π = r Ψ` (TRPO, Schulman et al. 2015, Eq. 14;
/// `L^CPI` of PPO, Schulman et al. 2017, Eq. 6).
///
/// At `π = π_old` its derivative is that of [`score`]. Shapes: all `[N]`; `ratio` receives `r`.
///
/// # Panics
/// When lengths differ.
pub fn ratio<R: Real>(
    logp: &[R],
    logp_old: &[R],
    psi: &[R],
    ratio: &mut [R],
    value: &mut [R],
    d_logp: &mut [R],
) {
    same_length(logp.len(), &[logp_old.len(), psi.len(), ratio.len(), value.len(), d_logp.len()]);
    simd!(|| {
        log_ratio_exp(logp, logp_old, ratio);
        for (((v, d), r), psi) in value.iter_mut().zip(d_logp.iter_mut()).zip(&*ratio).zip(psi) {
            *v = *r * *psi;
            *d = *v;
        }
    });
}

/// One action of the self-normalised surrogate of a state with several actions,
/// `L_n = Σ_k w_k r_k Q_k / Σ_k w_k r_k`: **adds** `w r Q` to `numerator` and `w r` to `denominator`
/// (Schulman et al. 2015, section 5.2).
///
/// `w = π_old/q` is the weight of an action that `q` chose, so that `w r = π/q`. With every action of a
/// finite space once, and `w = π_old`, the denominator is 1 and `L_n = Σ_a π(a|s) Q(s, a)` is exact. A weight
/// of 0 is an action that does not count, whatever its ratio. Shapes: all `[N]`.
///
/// # Panics
/// When lengths differ.
pub fn add_self_normalized<R: Real>(
    logp: &[R],
    logp_old: &[R],
    weight: &[R],
    q: &[R],
    ratio: &mut [R],
    numerator: &mut [R],
    denominator: &mut [R],
) {
    let lengths = [logp_old.len(), weight.len(), q.len(), ratio.len(), numerator.len(), denominator.len()];
    same_length(logp.len(), &lengths);
    simd!(|| {
        log_ratio_exp(logp, logp_old, ratio);
        for i in 0..ratio.len() {
            let share = if weight[i] > R::ZERO { weight[i] * ratio[i] } else { R::ZERO };
            numerator[i] += share * q[i];
            denominator[i] += share;
        }
    });
}

/// The clipped surrogate, `L = min(r A, clip(r, 1 - ε, 1 + ε) A)` (PPO, Schulman et al. 2017, Eq. 7).
///
/// `∂L/∂log π` is 0 where the clipped term is the strictly smaller one, that is for `A > 0` and
/// `r > 1 + ε`, or `A < 0` and `r < 1 - ε`; `r A` elsewhere, edges included. Shapes: all `[N]`; `ratio`
/// receives `r`. Returns the number of samples with `r` outside `[1 - ε, 1 + ε]`, whatever the sign of
/// `A` (divided by `N`: the usual *clip fraction*).
///
/// # Panics
/// When lengths differ.
pub fn clip<R: Real>(
    logp: &[R],
    logp_old: &[R],
    adv: &[R],
    epsilon: R,
    ratio: &mut [R],
    value: &mut [R],
    d_logp: &mut [R],
) -> usize {
    same_length(logp.len(), &[logp_old.len(), adv.len(), ratio.len(), value.len(), d_logp.len()]);
    let (low, high) = (R::ONE - epsilon, R::ONE + epsilon);
    simd!(|| {
        log_ratio_exp(logp, logp_old, ratio);
        let mut outside = 0u32;
        for (((v, d), r), adv) in value.iter_mut().zip(d_logp.iter_mut()).zip(&*ratio).zip(adv) {
            let (above, below) = (*r > high, *r < low);
            let plain = *r * *adv;
            let clipped = if above { high } else { low } * *adv;
            let flat = (above & (*adv > R::ZERO)) | (below & (*adv < R::ZERO));
            *v = if flat { clipped } else { plain };
            *d = if flat { R::ZERO } else { plain };
            outside += u32::from(above | below);
        }
        outside as usize
    })
}

/// Estimator `k1 = -ln r` of KL(old ‖ new) from actions drawn by old: unbiased, may be negative
/// (Schulman 2020, "Approximating KL Divergence"). Shapes: all `[N]`; the estimate is the mean.
///
/// # Panics
/// When lengths differ.
pub fn kl_k1<R: Real>(logp: &[R], logp_old: &[R], k1: &mut [R]) {
    same_length(logp.len(), &[logp_old.len(), k1.len()]);
    simd!(|| {
        for ((k, new), old) in k1.iter_mut().zip(logp).zip(logp_old) {
            *k = *old - *new;
        }
    });
}

/// 1/14, 1/13, ..., 1/3.
const INVERSES: [f64; 12] = {
    let mut inverses = [0.0; 12];
    let mut i = 0;
    while i < 12 {
        inverses[i] = 1.0 / (14 - i) as f64;
        i += 1;
    }
    inverses
};

/// Estimator `k3 = (r - 1) - ln r` of KL(old ‖ new) from actions drawn by old: unbiased, never negative,
/// smaller variance than [`kl_k1`] (Schulman 2020, "Approximating KL Divergence"). Shapes: all `[N]`; the
/// estimate is the mean.
///
/// # Panics
/// When lengths differ.
pub fn kl_k3<R: Real>(logp: &[R], logp_old: &[R], k3: &mut [R]) {
    same_length(logp.len(), &[logp_old.len(), k3.len()]);
    simd!(|| {
        log_ratio_exp(logp, logp_old, k3);
        for ((k, new), old) in k3.iter_mut().zip(logp).zip(logp_old) {
            let x = *new - *old;
            // Near x = 0 the difference cancels; its series there is x²/2 (1 + x/3 (1 + x/4 (1 + ...))).
            let mut s = R::ONE;
            for inverse in INVERSES {
                s = (x * R::of(inverse)).mul_add(s, R::ONE);
            }
            let series = R::of(0.5) * x * x * s;
            *k = if x.abs() < R::of(0.5) { series } else { *k - R::ONE - x };
        }
    });
}

/// The squared value loss, `L = (V - ret)²/2`, `∂L/∂V = V - ret`. Minimised. Shapes: all `[N]`.
///
/// # Panics
/// When lengths differ.
pub fn squared<R: Real>(v: &[R], ret: &[R], loss: &mut [R], d_v: &mut [R]) {
    same_length(v.len(), &[ret.len(), loss.len(), d_v.len()]);
    simd!(|| {
        for (((loss, d), v), ret) in loss.iter_mut().zip(d_v.iter_mut()).zip(v).zip(ret) {
            *d = *v - *ret;
            *loss = R::of(0.5) * *d * *d;
        }
    });
}

/// The clipped value loss of OpenAI Baselines' PPO2 (in no equation of the paper):
/// `L = max((V - ret)², (V_clip - ret)²)/2`, `V_clip = V_old + clip(V - V_old, -ε, ε)`. Minimised.
///
/// `∂L/∂V` is 0 where the second term is the strictly larger one, `V - ret` elsewhere. Shapes: all `[N]`.
///
/// # Panics
/// When lengths differ.
pub fn squared_clipped<R: Real>(v: &[R], v_old: &[R], ret: &[R], epsilon: R, loss: &mut [R], d_v: &mut [R]) {
    same_length(v.len(), &[v_old.len(), ret.len(), loss.len(), d_v.len()]);
    simd!(|| {
        let inputs = v.iter().zip(v_old).zip(ret);
        for ((loss, d), ((v, v_old), ret)) in loss.iter_mut().zip(d_v.iter_mut()).zip(inputs) {
            let step = *v - *v_old;
            let plain = *v - *ret;
            // Inside the range the two terms are the same number, rounding included.
            let clipped = if step > epsilon {
                *v_old + epsilon - *ret
            } else if step < -epsilon {
                *v_old - epsilon - *ret
            } else {
                plain
            };
            let flat = clipped * clipped > plain * plain;
            let error = if flat { clipped } else { plain };
            *loss = R::of(0.5) * error * error;
            *d = if flat { R::ZERO } else { plain };
        }
    });
}
