//! A Gaussian with diagonal covariance, on `dim` rows of means and `dim` rows of log standard deviations.

use pgrad_num::{Cols, ColsMut, Real, Stream, simd};

/// `ln(2π)/2`.
const HALF_LN_TAU: f64 = 0.918_938_533_204_672_8;

/// `(mean, log_std)` of all samples, component `i`.
#[inline(always)]
fn component<R: Real>(params: Cols<'_, R>, i: usize) -> impl Iterator<Item = (&R, &R)> {
    params.row(i).iter().zip(params.row(params.rows() / 2 + i))
}

/// The same two rows, to write.
#[inline(always)]
fn component_mut<'a, R: Real>(
    out: &'a mut ColsMut<'_, R>,
    i: usize,
) -> impl Iterator<Item = (&'a mut R, &'a mut R)> {
    let dim = out.rows() / 2;
    let (mean, log_std) = out.two_rows_mut(i, dim + i);
    mean.iter_mut().zip(log_std)
}

#[inline(always)]
pub(super) fn logp<R: Real>(params: Cols<'_, R>, actions: Cols<'_, R>, logp: &mut [R]) {
    for i in 0..actions.rows() {
        for ((out, (mean, log_std)), a) in logp.iter_mut().zip(component(params, i)).zip(actions.row(i)) {
            let z = (*a - *mean) * (-*log_std).exp();
            *out -= R::of(0.5) * z * z + *log_std + R::of(HALF_LN_TAU);
        }
    }
}

#[inline(always)]
pub(super) fn entropy<R: Real>(params: Cols<'_, R>, entropy: &mut [R]) {
    for i in params.rows() / 2..params.rows() {
        for (h, log_std) in entropy.iter_mut().zip(params.row(i)) {
            *h += *log_std + R::of(HALF_LN_TAU + 0.5);
        }
    }
}

#[inline(always)]
pub(super) fn vjp<R: Real>(
    params: Cols<'_, R>,
    logp: Option<(Cols<'_, R>, &[R])>,
    d_entropy: Option<&[R]>,
    d_out: &mut ColsMut<'_, R>,
) {
    let dim = params.rows() / 2;
    if let Some((actions, d_logp)) = logp {
        for i in 0..dim {
            let inputs = component(params, i).zip(actions.row(i)).zip(d_logp);
            for ((d_mean, d_log_std), (((mean, log_std), a), d)) in component_mut(d_out, i).zip(inputs) {
                let precision = (-*log_std).exp();
                let z = (*a - *mean) * precision;
                *d_mean += *d * z * precision;
                *d_log_std += *d * (z * z - R::ONE);
            }
        }
    }
    if let Some(d_entropy) = d_entropy {
        for i in dim..2 * dim {
            for (d, d_h) in d_out.row_mut(i).iter_mut().zip(d_entropy) {
                *d += *d_h;
            }
        }
    }
}

/// `(μ_new - μ_old)/σ_new` and `(σ_old/σ_new)²`.
#[inline(always)]
fn shift_and_ratio<R: Real>(old: (&R, &R), new: (&R, &R), precision_new: R) -> (R, R) {
    let s = *old.1 - *new.1;
    ((*new.0 - *old.0) * precision_new, (s + s).exp())
}

#[inline(always)]
pub(super) fn kl<R: Real>(params_old: Cols<'_, R>, params_new: Cols<'_, R>, kl: &mut [R]) {
    for i in 0..params_old.rows() / 2 {
        let pairs = component(params_old, i).zip(component(params_new, i));
        for (kl, (old, new)) in kl.iter_mut().zip(pairs) {
            let (z, ratio) = shift_and_ratio(old, new, (-*new.1).exp());
            *kl += *new.1 - *old.1 + R::of(0.5) * (ratio + z * z - R::ONE);
        }
    }
}

#[inline(always)]
pub(super) fn kl_vjp<R: Real>(
    params_old: Cols<'_, R>,
    params_new: Cols<'_, R>,
    d_kl: &[R],
    d_out: &mut ColsMut<'_, R>,
) {
    for i in 0..params_old.rows() / 2 {
        let pairs = component(params_old, i).zip(component(params_new, i)).zip(d_kl);
        for ((d_mean, d_log_std), ((old, new), d)) in component_mut(d_out, i).zip(pairs) {
            let precision = (-*new.1).exp();
            let (z, ratio) = shift_and_ratio(old, new, precision);
            *d_mean += *d * z * precision;
            *d_log_std += *d * (R::ONE - ratio - z * z);
        }
    }
}

#[inline(always)]
pub(super) fn fisher_mul<R: Real>(params: Cols<'_, R>, v: Cols<'_, R>, out: &mut ColsMut<'_, R>) {
    for i in 0..params.rows() / 2 {
        let inputs = component(params, i).zip(component(v, i));
        for ((mean, log_std), ((_, params), (v_mean, v_log_std))) in component_mut(out, i).zip(inputs) {
            *mean = (-(*params + *params)).exp() * *v_mean;
            *log_std = *v_log_std + *v_log_std;
        }
    }
}

pub(super) fn sample<R: Real>(params: Cols<'_, R>, rngs: &mut [Stream], actions: &mut ColsMut<'_, R>) {
    for i in 0..actions.rows() {
        let (a, mean) = (actions.row_mut(i), params.row(i));
        simd!(|| {
            for (a, (_, log_std)) in a.iter_mut().zip(component(params, i)) {
                *a = log_std.exp();
            }
        });
        for ((a, rng), mean) in a.iter_mut().zip(&mut *rngs).zip(mean) {
            *a = *mean + *a * R::of(rng.normal());
        }
    }
}
