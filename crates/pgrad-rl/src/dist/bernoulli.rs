//! Independent bits, on their logits `z`: `p = 1/(1 + exp(-z))`.

use super::{BLOCK, blocks};
use pgrad_num::kernels::simd;
use pgrad_num::{Cols, ColsMut, Real, Stream};
use std::ops::Range;

/// Probabilities and their logarithms for one block of one row.
struct Bits<R> {
    /// `exp(-|z|)`, then `ln p` of the less probable side is `-|z| + shared`.
    e: [R; BLOCK],
    /// `-ln(1 + exp(-|z|))`, the logarithm of the probability of the more probable side.
    ln_larger: [R; BLOCK],
}

impl<R: Real> Bits<R> {
    #[inline(always)]
    fn new() -> Self {
        Self { e: [R::ZERO; BLOCK], ln_larger: [R::ZERO; BLOCK] }
    }
    #[inline(always)]
    fn exp(&mut self, z: &[R]) {
        for (e, z) in self.e.iter_mut().zip(z) {
            *e = -z.abs();
        }
        R::exp_slice(&mut self.e[..z.len()]);
    }
    #[inline(always)]
    fn exp_ln(&mut self, z: &[R]) {
        self.exp(z);
        for (l, e) in self.ln_larger.iter_mut().zip(&self.e).take(z.len()) {
            *l = R::ONE + *e;
        }
        R::ln_slice(&mut self.ln_larger[..z.len()]);
        for l in &mut self.ln_larger[..z.len()] {
            *l = -*l;
        }
    }
    /// `(p, 1 - p)`.
    #[inline(always)]
    fn p(&self, c: usize, z: R) -> (R, R) {
        let larger = R::ONE / (R::ONE + self.e[c]);
        let smaller = self.e[c] * larger;
        if z >= R::ZERO { (larger, smaller) } else { (smaller, larger) }
    }
    /// `(ln p, ln(1 - p))`.
    #[inline(always)]
    fn ln_p(&self, c: usize, z: R) -> (R, R) {
        (z.at_most(R::ZERO) + self.ln_larger[c], (-z).at_most(R::ZERO) + self.ln_larger[c])
    }
}

/// Calls `f(row, block)` for every block of every row.
#[inline(always)]
fn each_block(rows: usize, cols: usize, mut f: impl FnMut(usize, Range<usize>)) {
    for r in 0..rows {
        for block in blocks(cols) {
            f(r, block);
        }
    }
}

#[inline(always)]
pub(super) fn logp<R: Real>(params: Cols<'_, R>, actions: Cols<'_, u32>, logp: &mut [R]) {
    let mut bits = Bits::new();
    each_block(params.rows(), params.cols(), |r, block| {
        let (z, a) = (&params.row(r)[block.clone()], &actions.row(r)[block.clone()]);
        bits.exp_ln(z);
        for (c, out) in logp[block].iter_mut().enumerate() {
            let (ln_p, ln_q) = bits.ln_p(c, z[c]);
            *out += if a[c] == 1 { ln_p } else { ln_q };
        }
    });
}

#[inline(always)]
pub(super) fn entropy<R: Real>(params: Cols<'_, R>, entropy: &mut [R]) {
    let mut bits = Bits::new();
    each_block(params.rows(), params.cols(), |r, block| {
        let z = &params.row(r)[block.clone()];
        bits.exp_ln(z);
        for (c, h) in entropy[block].iter_mut().enumerate() {
            let ((p, q), (ln_p, ln_q)) = (bits.p(c, z[c]), bits.ln_p(c, z[c]));
            *h -= p * ln_p + q * ln_q;
        }
    });
}

/// `d_z += d_logp (a - p) - d_entropy p (1 - p) z`.
#[inline(always)]
pub(super) fn vjp<R: Real>(
    params: Cols<'_, R>,
    logp: Option<(Cols<'_, u32>, &[R])>,
    d_entropy: Option<&[R]>,
    d_out: &mut ColsMut<'_, R>,
) {
    let mut bits = Bits::new();
    each_block(params.rows(), params.cols(), |r, block| {
        let z = &params.row(r)[block.clone()];
        let d_z = &mut d_out.row_mut(r)[block.clone()];
        bits.exp(z);
        if let Some((actions, d_logp)) = logp {
            let (a, d_logp) = (&actions.row(r)[block.clone()], &d_logp[block.clone()]);
            for (c, d) in d_z.iter_mut().enumerate() {
                let (p, q) = bits.p(c, z[c]);
                *d += d_logp[c] * if a[c] == 1 { q } else { -p };
            }
        }
        if let Some(d_entropy) = d_entropy {
            let d_entropy = &d_entropy[block];
            for (c, d) in d_z.iter_mut().enumerate() {
                let (p, q) = bits.p(c, z[c]);
                *d -= d_entropy[c] * (p * q * z[c]);
            }
        }
    });
}

#[inline(always)]
pub(super) fn kl<R: Real>(params_old: Cols<'_, R>, params_new: Cols<'_, R>, kl: &mut [R]) {
    let (mut old, mut new) = (Bits::new(), Bits::new());
    each_block(params_old.rows(), params_old.cols(), |r, block| {
        let (z_old, z_new) = (&params_old.row(r)[block.clone()], &params_new.row(r)[block.clone()]);
        old.exp_ln(z_old);
        new.exp_ln(z_new);
        for (c, kl) in kl[block].iter_mut().enumerate() {
            let (p, q) = old.p(c, z_old[c]);
            let ((ln_p_old, ln_q_old), (ln_p_new, ln_q_new)) = (old.ln_p(c, z_old[c]), new.ln_p(c, z_new[c]));
            *kl += p * (ln_p_old - ln_p_new) + q * (ln_q_old - ln_q_new);
        }
    });
}

#[inline(always)]
pub(super) fn kl_vjp<R: Real>(
    params_old: Cols<'_, R>,
    params_new: Cols<'_, R>,
    d_kl: &[R],
    d_out: &mut ColsMut<'_, R>,
) {
    let (mut old, mut new) = (Bits::new(), Bits::new());
    each_block(params_old.rows(), params_old.cols(), |r, block| {
        let (z_old, z_new) = (&params_old.row(r)[block.clone()], &params_new.row(r)[block.clone()]);
        old.exp(z_old);
        new.exp(z_new);
        let d_kl = &d_kl[block.clone()];
        for (c, d) in d_out.row_mut(r)[block].iter_mut().enumerate() {
            *d += d_kl[c] * (new.p(c, z_new[c]).0 - old.p(c, z_old[c]).0);
        }
    });
}

#[inline(always)]
pub(super) fn fisher_mul<R: Real>(params: Cols<'_, R>, v: Cols<'_, R>, out: &mut ColsMut<'_, R>) {
    let mut bits = Bits::new();
    each_block(params.rows(), params.cols(), |r, block| {
        let (z, v) = (&params.row(r)[block.clone()], &v.row(r)[block.clone()]);
        bits.exp(z);
        for (c, out) in out.row_mut(r)[block].iter_mut().enumerate() {
            let (p, q) = bits.p(c, z[c]);
            *out = p * q * v[c];
        }
    });
}

pub(super) fn sample<R: Real>(params: Cols<'_, R>, rngs: &mut [Stream], actions: &mut ColsMut<'_, u32>) {
    let mut bits = Bits::new();
    each_block(params.rows(), params.cols(), |r, block| {
        let z = &params.row(r)[block.clone()];
        bits.exp(z);
        for (c, (a, rng)) in actions.row_mut(r)[block.clone()].iter_mut().zip(&mut rngs[block]).enumerate() {
            let u = R::of(f64::from(rng.uniform_f32()));
            *a = u32::from(u < bits.p(c, z[c]).0);
        }
    });
}

#[inline(always)]
pub(super) fn mode<R: Real>(params: Cols<'_, R>, actions: &mut ColsMut<'_, u32>) {
    simd(|| {
        for (a, z) in actions.data_mut().iter_mut().zip(params.data()) {
            *a = u32::from(*z > R::ZERO);
        }
    });
}
