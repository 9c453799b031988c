//! Independent bits, on their logits `z`: `p = 1/(1 + exp(-z))`.

use pgrad_num::{Cols, ColsMut, Real, Stream, simd};

/// `(p, 1 - p)`, without overflow.
#[inline(always)]
fn p<R: Real>(z: R) -> (R, R) {
    let e = (-z.abs()).exp();
    let larger = R::ONE / (R::ONE + e);
    let smaller = e * larger;
    if z >= R::ZERO { (larger, smaller) } else { (smaller, larger) }
}

/// `(ln p, ln(1 - p))`: `min(±z, 0) - ln(1 + exp(-|z|))`.
#[inline(always)]
fn ln_p<R: Real>(z: R) -> (R, R) {
    let l = (R::ONE + (-z.abs()).exp()).ln();
    (z.at_most(R::ZERO) - l, (-z).at_most(R::ZERO) - l)
}

#[inline(always)]
pub(super) fn logp<R: Real>(params: Cols<'_, R>, actions: Cols<'_, u32>, logp: &mut [R]) {
    for r in 0..params.rows() {
        for ((out, z), a) in logp.iter_mut().zip(params.row(r)).zip(actions.row(r)) {
            let (ln_p, ln_q) = ln_p(*z);
            *out += if *a == 1 { ln_p } else { ln_q };
        }
    }
}

#[inline(always)]
pub(super) fn entropy<R: Real>(params: Cols<'_, R>, entropy: &mut [R]) {
    for r in 0..params.rows() {
        for (h, z) in entropy.iter_mut().zip(params.row(r)) {
            let ((p, q), (ln_p, ln_q)) = (p(*z), ln_p(*z));
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
    for r in 0..params.rows() {
        let (z, d_z) = (params.row(r), d_out.row_mut(r));
        if let Some((actions, d_logp)) = logp {
            let taken = actions.row(r).iter().zip(d_logp);
            for ((d, z), (a, d_logp)) in d_z.iter_mut().zip(z).zip(taken) {
                let (p, q) = p(*z);
                *d += *d_logp * if *a == 1 { q } else { -p };
            }
        }
        if let Some(d_entropy) = d_entropy {
            for ((d, z), d_h) in d_z.iter_mut().zip(z).zip(d_entropy) {
                let (p, q) = p(*z);
                *d -= *d_h * (p * q * *z);
            }
        }
    }
}

#[inline(always)]
pub(super) fn kl<R: Real>(params_old: Cols<'_, R>, params_new: Cols<'_, R>, kl: &mut [R]) {
    for r in 0..params_old.rows() {
        for ((kl, old), new) in kl.iter_mut().zip(params_old.row(r)).zip(params_new.row(r)) {
            let (p, q) = p(*old);
            let ((ln_p_old, ln_q_old), (ln_p_new, ln_q_new)) = (ln_p(*old), ln_p(*new));
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
    for r in 0..params_old.rows() {
        let params = params_old.row(r).iter().zip(params_new.row(r));
        for ((d, (old, new)), d_kl) in d_out.row_mut(r).iter_mut().zip(params).zip(d_kl) {
            *d += *d_kl * (p(*new).0 - p(*old).0);
        }
    }
}

#[inline(always)]
pub(super) fn fisher_mul<R: Real>(params: Cols<'_, R>, v: Cols<'_, R>, out: &mut ColsMut<'_, R>) {
    for ((out, z), v) in out.data_mut().iter_mut().zip(params.data()).zip(v.data()) {
        let (p, q) = p(*z);
        *out = p * q * *v;
    }
}

pub(super) fn sample<R: Real>(params: Cols<'_, R>, rngs: &mut [Stream], actions: &mut ColsMut<'_, u32>) {
    for r in 0..params.rows() {
        let a = actions.row_mut(r);
        // The uniform numbers wait in the actions' own memory, so that the rest is one loop.
        for (a, rng) in a.iter_mut().zip(&mut *rngs) {
            *a = rng.uniform_f32().to_bits();
        }
        simd!(|| {
            for (a, z) in a.iter_mut().zip(params.row(r)) {
                let u = R::of(f64::from(f32::from_bits(*a)));
                *a = u32::from(u < p(*z).0);
            }
        });
    }
}

#[inline(always)]
pub(super) fn mode<R: Real>(params: Cols<'_, R>, actions: &mut ColsMut<'_, u32>) {
    for (a, z) in actions.data_mut().iter_mut().zip(params.data()) {
        *a = u32::from(*z > R::ZERO);
    }
}
