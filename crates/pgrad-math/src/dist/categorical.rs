//! One choice among alternatives, on the rows of its logits or log-probabilities.

use super::{BLOCK, blocks};
use pgrad_num::{Cols, ColsMut, Real, Stream};
use std::ops::Range;

#[inline(always)]
fn forbidden<R: Real>() -> R {
    R::of(f64::NEG_INFINITY)
}

/// `p ln p`, which is 0 for a forbidden alternative.
#[inline(always)]
fn p_ln_p<R: Real>(p: R, logp: R) -> R {
    p * logp.at_least(R::of(-1e30))
}

#[inline(always)]
pub(super) fn forbid<R: Real>(z: &mut ColsMut<'_, R>, mask: Cols<'_, bool>) {
    for (z, allowed) in z.data_mut().iter_mut().zip(mask.data()) {
        *z = if *allowed { *z } else { forbidden() };
    }
}

#[inline(always)]
pub(super) fn log_softmax<R: Real>(z: &mut ColsMut<'_, R>, rows: Range<usize>) {
    for block in blocks(z.cols()) {
        let (mut max, mut sum) = ([forbidden::<R>(); BLOCK], [R::ZERO; BLOCK]);
        let (max, sum) = (&mut max[..block.len()], &mut sum[..block.len()]);
        for r in rows.clone() {
            for (m, z) in max.iter_mut().zip(&z.row(r)[block.clone()]) {
                *m = z.at_least(*m);
            }
        }
        for r in rows.clone() {
            for ((z, m), s) in z.row_mut(r)[block.clone()].iter_mut().zip(&*max).zip(&mut *sum) {
                *z -= *m;
                *s += z.exp();
            }
        }
        for s in &mut *sum {
            *s = s.ln();
        }
        for r in rows.clone() {
            for (z, s) in z.row_mut(r)[block.clone()].iter_mut().zip(&*sum) {
                *z -= *s;
            }
        }
    }
}

#[inline(always)]
pub(super) fn logp<R: Real>(params: Cols<'_, R>, rows: Range<usize>, action: &[u32], logp: &mut [R]) {
    for (i, r) in rows.enumerate() {
        for ((out, a), lp) in logp.iter_mut().zip(action).zip(params.row(r)) {
            *out += if *a == i as u32 { *lp } else { R::ZERO };
        }
    }
}

#[inline(always)]
pub(super) fn entropy<R: Real>(params: Cols<'_, R>, rows: Range<usize>, entropy: &mut [R]) {
    for r in rows {
        for (h, lp) in entropy.iter_mut().zip(params.row(r)) {
            *h -= p_ln_p(lp.exp(), *lp);
        }
    }
}

/// `d_z_i += d_logp (1[i = a] - p_i) - d_entropy p_i (ln p_i + H)`.
#[inline(always)]
pub(super) fn vjp<R: Real>(
    params: Cols<'_, R>,
    rows: Range<usize>,
    logp: Option<(&[u32], &[R])>,
    d_entropy: Option<&[R]>,
    d_out: &mut ColsMut<'_, R>,
) {
    for block in blocks(params.cols()) {
        // What all alternatives have in common: -(d_logp + d_entropy H).
        let mut common = [R::ZERO; BLOCK];
        let common = &mut common[..block.len()];
        if let Some(d_entropy) = d_entropy {
            for r in rows.clone() {
                for (w, lp) in common.iter_mut().zip(&params.row(r)[block.clone()]) {
                    *w += p_ln_p(lp.exp(), *lp);
                }
            }
            for (w, d) in common.iter_mut().zip(&d_entropy[block.clone()]) {
                *w *= *d;
            }
        }
        if let Some((_, d_logp)) = logp {
            for (w, d) in common.iter_mut().zip(&d_logp[block.clone()]) {
                *w -= *d;
            }
        }
        for (i, r) in rows.clone().enumerate() {
            let lp = &params.row(r)[block.clone()];
            let d_z = &mut d_out.row_mut(r)[block.clone()];
            if let Some(d_entropy) = d_entropy {
                let weights = common.iter().zip(&d_entropy[block.clone()]);
                for ((d, lp), (w, d_h)) in d_z.iter_mut().zip(lp).zip(weights) {
                    let p = lp.exp();
                    *d += p.mul_add(*w, -(*d_h * p_ln_p(p, *lp)));
                }
            } else {
                for ((d, lp), w) in d_z.iter_mut().zip(lp).zip(&*common) {
                    *d = lp.exp().mul_add(*w, *d);
                }
            }
            if let Some((action, d_logp)) = logp {
                let taken = action[block.clone()].iter().zip(&d_logp[block.clone()]);
                for ((d, lp), (a, d_logp)) in d_z.iter_mut().zip(lp).zip(taken) {
                    let own = (*a == i as u32) & (*lp != forbidden());
                    *d += if own { *d_logp } else { R::ZERO };
                }
            }
        }
    }
}

#[inline(always)]
pub(super) fn kl<R: Real>(params_old: Cols<'_, R>, params_new: Cols<'_, R>, kl: &mut [R]) {
    for r in 0..params_old.rows() {
        for ((kl, old), new) in kl.iter_mut().zip(params_old.row(r)).zip(params_new.row(r)) {
            let p = old.exp();
            *kl += if p == R::ZERO { R::ZERO } else { p * (*old - *new) };
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
    for r in 0..params_old.rows() {
        let params = params_old.row(r).iter().zip(params_new.row(r));
        for ((d, (old, new)), d_kl) in d_out.row_mut(r).iter_mut().zip(params).zip(d_kl) {
            *d += *d_kl * (new.exp() - old.exp());
        }
    }
}

#[inline(always)]
pub(super) fn fisher_mul<R: Real>(
    params: Cols<'_, R>,
    rows: Range<usize>,
    v: Cols<'_, R>,
    out: &mut ColsMut<'_, R>,
) {
    for block in blocks(params.cols()) {
        let mut mean = [R::ZERO; BLOCK];
        let mean = &mut mean[..block.len()];
        for r in rows.clone() {
            let inputs = params.row(r)[block.clone()].iter().zip(&v.row(r)[block.clone()]);
            let outputs = out.row_mut(r)[block.clone()].iter_mut().zip(&mut *mean);
            for ((lp, v), (p, m)) in inputs.zip(outputs) {
                *p = lp.exp();
                *m = p.mul_add(*v, *m);
            }
        }
        for r in rows.clone() {
            let p = &mut out.row_mut(r)[block.clone()];
            for ((p, v), m) in p.iter_mut().zip(&v.row(r)[block.clone()]).zip(&*mean) {
                *p *= *v - *m;
            }
        }
    }
}

/// The first alternative whose cumulative probability exceeds a uniform number.
pub(super) fn sample<R: Real>(
    params: Cols<'_, R>,
    rows: Range<usize>,
    rngs: &mut [Stream],
    action: &mut [u32],
) {
    for block in blocks(params.cols()) {
        let (mut u, mut below, mut last_possible) = ([R::ZERO; BLOCK], [R::ZERO; BLOCK], [0u32; BLOCK]);
        let len = block.len();
        let (u, below, last_possible) = (&mut u[..len], &mut below[..len], &mut last_possible[..len]);
        for (u, rng) in u.iter_mut().zip(&mut rngs[block.clone()]) {
            *u = R::of(f64::from(rng.uniform_f32()));
        }
        let action = &mut action[block.clone()][..len];
        action.fill(0);
        pgrad_num::simd!(|| {
            for (i, r) in rows.clone().enumerate() {
                let lp = &params.row(r)[block.clone()][..len];
                for c in 0..len {
                    let p = lp[c].exp();
                    below[c] += p;
                    action[c] += u32::from(below[c] <= u[c]);
                    last_possible[c] = if p > R::ZERO { i as u32 } else { last_possible[c] };
                }
            }
            // Probabilities may sum to a little less than 1.
            for (a, last) in action.iter_mut().zip(&*last_possible) {
                *a = (*a).min(*last);
            }
        });
    }
}

#[inline(always)]
pub(super) fn mode<R: Real>(params: Cols<'_, R>, rows: Range<usize>, action: &mut [u32]) {
    for block in blocks(params.cols()) {
        let mut best = [forbidden::<R>(); BLOCK];
        let action = &mut action[block.clone()];
        action.fill(0);
        for (i, r) in rows.clone().enumerate() {
            for ((best, a), lp) in best.iter_mut().zip(&mut *action).zip(&params.row(r)[block.clone()]) {
                *a = if *lp > *best { i as u32 } else { *a };
                *best = lp.at_least(*best);
            }
        }
    }
}
