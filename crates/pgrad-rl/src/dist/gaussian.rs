//! A Gaussian with diagonal covariance, on `dim` rows of means and `dim` rows of log standard deviations.

use super::{BLOCK, row_blocks};
use pgrad_num::{Cols, ColsMut, Real, Stream};
use std::ops::Range;

/// `ln(2π)/2`.
const HALF_LN_TAU: f64 = 0.918_938_533_204_672_8;

#[inline(always)]
fn exp_of<'a, R: Real>(a: f64, x: &[R], out: &'a mut [R; BLOCK]) -> &'a [R] {
    let out = &mut out[..x.len()];
    for (o, x) in out.iter_mut().zip(x) {
        *o = R::of(a) * *x;
    }
    R::exp_slice(out);
    out
}

#[inline(always)]
pub(super) fn logp<R: Real>(params: Cols<'_, R>, actions: Cols<'_, R>, logp: &mut [R]) {
    let (dim, mut precision) = (params.rows() / 2, [R::ZERO; BLOCK]);
    for (i, block) in row_blocks(dim, params.cols()) {
        let (mean, log_std) = (&params.row(i)[block.clone()], &params.row(dim + i)[block.clone()]);
        let a = &actions.row(i)[block.clone()];
        let precision = exp_of(-1.0, log_std, &mut precision);
        for (c, out) in logp[block].iter_mut().enumerate() {
            let z = (a[c] - mean[c]) * precision[c];
            *out -= R::of(0.5) * z * z + log_std[c] + R::of(HALF_LN_TAU);
        }
    }
}

#[inline(always)]
pub(super) fn entropy<R: Real>(params: Cols<'_, R>, entropy: &mut [R]) {
    let dim = params.rows() / 2;
    for i in dim..2 * dim {
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
    let (dim, mut precision) = (params.rows() / 2, [R::ZERO; BLOCK]);
    if let Some((actions, d_logp)) = logp {
        for (i, block) in row_blocks(dim, params.cols()) {
            let (mean, log_std) = (&params.row(i)[block.clone()], &params.row(dim + i)[block.clone()]);
            let (a, d_logp) = (&actions.row(i)[block.clone()], &d_logp[block.clone()]);
            let precision = exp_of(-1.0, log_std, &mut precision);
            let (d_mean, d_log_std) = d_out.two_rows_mut(i, dim + i);
            let d = d_mean[block.clone()].iter_mut().zip(&mut d_log_std[block]);
            for (c, (d_mean, d_log_std)) in d.enumerate() {
                let z = (a[c] - mean[c]) * precision[c];
                *d_mean += d_logp[c] * z * precision[c];
                *d_log_std += d_logp[c] * (z * z - R::ONE);
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

#[inline(always)]
pub(super) fn kl<R: Real>(params_old: Cols<'_, R>, params_new: Cols<'_, R>, kl: &mut [R]) {
    let dim = params_old.rows() / 2;
    let (mut precision, mut ratio) = ([R::ZERO; BLOCK], [R::ZERO; BLOCK]);
    for (i, block) in row_blocks(dim, params_old.cols()) {
        let (mean_old, log_std_old) = rows(params_old, i, &block);
        let (mean_new, log_std_new) = rows(params_new, i, &block);
        let precision = exp_of(-1.0, log_std_new, &mut precision);
        let ratio = exp_of(1.0, log_std_old, &mut ratio);
        for (c, kl) in kl[block].iter_mut().enumerate() {
            let z = (mean_old[c] - mean_new[c]) * precision[c];
            let s = ratio[c] * precision[c];
            *kl += log_std_new[c] - log_std_old[c] + R::of(0.5) * (s * s + z * z - R::ONE);
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
    let dim = params_old.rows() / 2;
    let (mut precision, mut std_old) = ([R::ZERO; BLOCK], [R::ZERO; BLOCK]);
    for (i, block) in row_blocks(dim, params_old.cols()) {
        let (mean_old, log_std_old) = rows(params_old, i, &block);
        let (mean_new, log_std_new) = rows(params_new, i, &block);
        let precision = exp_of(-1.0, log_std_new, &mut precision);
        let std_old = exp_of(1.0, log_std_old, &mut std_old);
        let d_kl = &d_kl[block.clone()];
        let (d_mean, d_log_std) = d_out.two_rows_mut(i, dim + i);
        let d = d_mean[block.clone()].iter_mut().zip(&mut d_log_std[block]);
        for (c, (d_mean, d_log_std)) in d.enumerate() {
            let z = (mean_new[c] - mean_old[c]) * precision[c];
            let s = std_old[c] * precision[c];
            *d_mean += d_kl[c] * z * precision[c];
            *d_log_std += d_kl[c] * (R::ONE - s * s - z * z);
        }
    }
}

/// Mean and log standard deviation of component `i`, one block.
#[inline(always)]
fn rows<'a, R: Real>(params: Cols<'a, R>, i: usize, block: &Range<usize>) -> (&'a [R], &'a [R]) {
    (&params.row(i)[block.clone()], &params.row(params.rows() / 2 + i)[block.clone()])
}

#[inline(always)]
pub(super) fn fisher_mul<R: Real>(params: Cols<'_, R>, v: Cols<'_, R>, out: &mut ColsMut<'_, R>) {
    let (dim, mut precision) = (params.rows() / 2, [R::ZERO; BLOCK]);
    for (i, block) in row_blocks(dim, params.cols()) {
        let ((_, log_std), (v_mean, v_log_std)) = (rows(params, i, &block), rows(v, i, &block));
        let precision = exp_of(-2.0, log_std, &mut precision);
        let (mean, std) = out.two_rows_mut(i, dim + i);
        let out = mean[block.clone()].iter_mut().zip(&mut std[block]);
        for (c, (mean, log_std)) in out.enumerate() {
            *mean = precision[c] * v_mean[c];
            *log_std = v_log_std[c] + v_log_std[c];
        }
    }
}

pub(super) fn sample<R: Real>(params: Cols<'_, R>, rngs: &mut [Stream], actions: &mut ColsMut<'_, R>) {
    let mut std = [R::ZERO; BLOCK];
    for (i, block) in row_blocks(params.rows() / 2, params.cols()) {
        let (mean, log_std) = rows(params, i, &block);
        let std = exp_of(1.0, log_std, &mut std);
        for (c, (a, rng)) in actions.row_mut(i)[block.clone()].iter_mut().zip(&mut rngs[block]).enumerate() {
            *a = std[c].mul_add(R::of(rng.normal()), mean[c]);
        }
    }
}
