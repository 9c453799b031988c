//! Independent bits, on their logits `z`: `p = 1/(1 + exp(-z))`.

use super::{BLOCK, row_blocks};
use pgrad_num::{Cols, ColsMut, Real, Stream};

/// Room for what one block of one row needs.
type Block<R> = [R; BLOCK];

/// `e = exp(-|z|)`.
#[inline(always)]
fn exp<'a, R: Real>(z: &[R], e: &'a mut Block<R>) -> &'a [R] {
    let e = &mut e[..z.len()];
    for (e, z) in e.iter_mut().zip(z) {
        *e = -z.abs();
    }
    R::exp_slice(e);
    e
}

/// `ln(1 + e)`: minus the logarithm of the probability of the more probable side.
#[inline(always)]
fn ln_1p<'a, R: Real>(e: &[R], l: &'a mut Block<R>) -> &'a [R] {
    let l = &mut l[..e.len()];
    for (l, e) in l.iter_mut().zip(e) {
        *l = R::ONE + *e;
    }
    R::ln_slice(l);
    l
}

/// `(p, 1 - p)` from `z` and `e = exp(-|z|)`.
#[inline(always)]
fn p<R: Real>(z: R, e: R) -> (R, R) {
    let larger = R::ONE / (R::ONE + e);
    let smaller = e * larger;
    if z >= R::ZERO { (larger, smaller) } else { (smaller, larger) }
}

/// `(ln p, ln(1 - p))` from `z` and `l = ln(1 + exp(-|z|))`.
#[inline(always)]
fn ln_p<R: Real>(z: R, l: R) -> (R, R) {
    (z.at_most(R::ZERO) - l, (-z).at_most(R::ZERO) - l)
}

#[inline(always)]
pub(super) fn logp<R: Real>(params: Cols<'_, R>, actions: Cols<'_, u32>, logp: &mut [R]) {
    let (mut e, mut l) = ([R::ZERO; BLOCK], [R::ZERO; BLOCK]);
    for (r, block) in row_blocks(params.rows(), params.cols()) {
        let (z, a) = (&params.row(r)[block.clone()], &actions.row(r)[block.clone()]);
        let e = exp(z, &mut e);
        let l = ln_1p(e, &mut l);
        for (c, out) in logp[block].iter_mut().enumerate() {
            let (ln_p, ln_q) = ln_p(z[c], l[c]);
            *out += if a[c] == 1 { ln_p } else { ln_q };
        }
    }
}

#[inline(always)]
pub(super) fn entropy<R: Real>(params: Cols<'_, R>, entropy: &mut [R]) {
    let (mut e, mut l) = ([R::ZERO; BLOCK], [R::ZERO; BLOCK]);
    for (r, block) in row_blocks(params.rows(), params.cols()) {
        let z = &params.row(r)[block.clone()];
        let e = exp(z, &mut e);
        let l = ln_1p(e, &mut l);
        for (c, h) in entropy[block].iter_mut().enumerate() {
            let ((p, q), (ln_p, ln_q)) = (p(z[c], e[c]), ln_p(z[c], l[c]));
            *h -= p * ln_p + q * ln_q;
        }
    }
}

/// `d_z += d_logp (a - p) - d_entropy p (1 - p) z`.
#[inline(always)]
pub(super) fn vjp<R: Real>(
    params: Cols<'_, R>,
    logp: Option<(Cols<'_, u32>, &[R])>,
    d_entropy: Option<&[R]>,
    d_out: &mut ColsMut<'_, R>,
) {
    let mut e = [R::ZERO; BLOCK];
    for (r, block) in row_blocks(params.rows(), params.cols()) {
        let z = &params.row(r)[block.clone()];
        let d_z = &mut d_out.row_mut(r)[block.clone()];
        let e = exp(z, &mut e);
        if let Some((actions, d_logp)) = logp {
            let (a, d_logp) = (&actions.row(r)[block.clone()], &d_logp[block.clone()]);
            for (c, d) in d_z.iter_mut().enumerate() {
                let (p, q) = p(z[c], e[c]);
                *d += d_logp[c] * if a[c] == 1 { q } else { -p };
            }
        }
        if let Some(d_entropy) = d_entropy {
            let d_entropy = &d_entropy[block];
            for (c, d) in d_z.iter_mut().enumerate() {
                let (p, q) = p(z[c], e[c]);
                *d -= d_entropy[c] * (p * q * z[c]);
            }
        }
    }
}

#[inline(always)]
pub(super) fn kl<R: Real>(params_old: Cols<'_, R>, params_new: Cols<'_, R>, kl: &mut [R]) {
    let (mut e_old, mut e_new) = ([R::ZERO; BLOCK], [R::ZERO; BLOCK]);
    let (mut l_old, mut l_new) = ([R::ZERO; BLOCK], [R::ZERO; BLOCK]);
    for (r, block) in row_blocks(params_old.rows(), params_old.cols()) {
        let (z_old, z_new) = (&params_old.row(r)[block.clone()], &params_new.row(r)[block.clone()]);
        let (e_old, e_new) = (exp(z_old, &mut e_old), exp(z_new, &mut e_new));
        let (l_old, l_new) = (ln_1p(e_old, &mut l_old), ln_1p(e_new, &mut l_new));
        for (c, kl) in kl[block].iter_mut().enumerate() {
            let (p, q) = p(z_old[c], e_old[c]);
            let ((ln_p_old, ln_q_old), (ln_p_new, ln_q_new)) =
                (ln_p(z_old[c], l_old[c]), ln_p(z_new[c], l_new[c]));
            *kl += p * (ln_p_old - ln_p_new) + q * (ln_q_old - ln_q_new);
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
    let (mut e_old, mut e_new) = ([R::ZERO; BLOCK], [R::ZERO; BLOCK]);
    for (r, block) in row_blocks(params_old.rows(), params_old.cols()) {
        let (z_old, z_new) = (&params_old.row(r)[block.clone()], &params_new.row(r)[block.clone()]);
        let (e_old, e_new) = (exp(z_old, &mut e_old), exp(z_new, &mut e_new));
        let d_kl = &d_kl[block.clone()];
        for (c, d) in d_out.row_mut(r)[block].iter_mut().enumerate() {
            *d += d_kl[c] * (p(z_new[c], e_new[c]).0 - p(z_old[c], e_old[c]).0);
        }
    }
}

#[inline(always)]
pub(super) fn fisher_mul<R: Real>(params: Cols<'_, R>, v: Cols<'_, R>, out: &mut ColsMut<'_, R>) {
    let mut e = [R::ZERO; BLOCK];
    for (r, block) in row_blocks(params.rows(), params.cols()) {
        let (z, v) = (&params.row(r)[block.clone()], &v.row(r)[block.clone()]);
        let e = exp(z, &mut e);
        for (c, out) in out.row_mut(r)[block].iter_mut().enumerate() {
            let (p, q) = p(z[c], e[c]);
            *out = p * q * v[c];
        }
    }
}

pub(super) fn sample<R: Real>(params: Cols<'_, R>, rngs: &mut [Stream], actions: &mut ColsMut<'_, u32>) {
    let mut e = [R::ZERO; BLOCK];
    for (r, block) in row_blocks(params.rows(), params.cols()) {
        let z = &params.row(r)[block.clone()];
        let e = exp(z, &mut e);
        for (c, (a, rng)) in actions.row_mut(r)[block.clone()].iter_mut().zip(&mut rngs[block]).enumerate() {
            let u = R::of(f64::from(rng.uniform_f32()));
            *a = u32::from(u < p(z[c], e[c]).0);
        }
    }
}

#[inline(always)]
pub(super) fn mode<R: Real>(params: Cols<'_, R>, actions: &mut ColsMut<'_, u32>) {
    for (a, z) in actions.data_mut().iter_mut().zip(params.data()) {
        *a = u32::from(*z > R::ZERO);
    }
}
