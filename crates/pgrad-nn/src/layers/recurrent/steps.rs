//! One step of a recurrent layer, element by element, on matrices `[rows x cols]`.

use pgrad_num::kernels::BLOCK;
use pgrad_num::{Real, simd};
use std::ops::Range;

/// Work space of a step, `[size x cols]` each.
#[derive(Clone, Debug)]
pub(super) struct Work<R> {
    inputs: usize,
    size: usize,
    cols: usize,
    /// `h` before the step, then after it.
    h: Vec<R>,
    /// `c` before the step.
    c: Vec<R>,
    /// Cotangents or tangents of `h` and of `c`.
    d_h: Vec<R>,
    d_c: Vec<R>,
    /// The same of the gates' inputs, `[4·size x cols]`, and of the layer's input, `[inputs x cols]`.
    d_gates: Vec<R>,
    d_x: Vec<R>,
}

/// Derivatives of a step: of the gates' inputs, of `h`, and of the layer's input.
pub(super) struct Derivatives<'a, R> {
    pub(super) d_gates: &'a mut [R],
    pub(super) d_h: &'a mut [R],
    pub(super) d_x: &'a mut [R],
}

impl<R: Real> Work<R> {
    pub(super) fn new(inputs: usize, size: usize, max_cols: usize) -> Self {
        let zeros = |rows: usize| vec![R::ZERO; rows * max_cols];
        let (h, c, d_h, d_c) = (zeros(size), zeros(size), zeros(size), zeros(size));
        Self { inputs, size, cols: 0, h, c, d_h, d_c, d_gates: zeros(4 * size), d_x: zeros(inputs) }
    }
    pub(super) fn begin(&mut self, cols: usize) {
        self.cols = cols;
    }
    fn span(&self) -> usize {
        self.size * self.cols
    }
    pub(super) fn h(&self) -> &[R] {
        &self.h[..self.span()]
    }
    /// The memory cells as a step finds them.
    pub(super) fn set_c(&mut self, c: &[R], fresh: &[bool]) {
        let span = self.span();
        self.c[..span].copy_from_slice(c);
        forget(&mut self.c[..span], fresh);
    }
    pub(super) fn h_mut(&mut self) -> &mut [R] {
        let span = self.span();
        &mut self.h[..span]
    }
    pub(super) fn derivatives(&mut self) -> Derivatives<'_, R> {
        let (span, inputs) = (self.span(), self.inputs * self.cols);
        Derivatives {
            d_gates: &mut self.d_gates[..4 * span],
            d_h: &mut self.d_h[..span],
            d_x: &mut self.d_x[..inputs],
        }
    }
    /// No derivative has come from a neighbouring step yet.
    pub(super) fn begin_derivative(&mut self) {
        let span = self.span();
        self.d_h[..span].fill(R::ZERO);
        self.d_c[..span].fill(R::ZERO);
    }
    /// `∂h += ∂h'`, where the cotangent of the step's outputs lies at `columns` among `n`.
    pub(super) fn add_cotangent(&mut self, d_out: &[R], columns: Range<usize>, n: usize) {
        let Self { d_h, cols, .. } = self;
        for (to, from) in d_h.chunks_exact_mut(*cols).zip(d_out.chunks_exact(n)) {
            to.iter_mut().zip(&from[columns.clone()]).for_each(|(to, from)| *to += *from);
        }
    }
    /// No derivative goes past a state that was forgotten.
    pub(super) fn forget_derivative(&mut self, fresh: &[bool]) {
        let span = self.span();
        forget(&mut self.d_h[..span], fresh);
        forget(&mut self.d_c[..span], fresh);
    }
}

/// Sets the columns to 0 that are flagged.
pub(super) fn forget<R: Real>(x: &mut [R], fresh: &[bool]) {
    if fresh.contains(&true) {
        for row in x.chunks_exact_mut(fresh.len()) {
            for (x, _) in row.iter_mut().zip(fresh).filter(|(_, fresh)| **fresh) {
                *x = R::ZERO;
            }
        }
    }
}

/// Writes the matrix of a step to `columns` of one with `n` columns.
pub(super) fn scatter<R: Real>(step: &[R], all: &mut [R], columns: Range<usize>, n: usize) {
    for (to, from) in all.chunks_exact_mut(n).zip(step.chunks_exact(columns.len())) {
        to[columns.clone()].copy_from_slice(from);
    }
}

/// Reads the matrix of a step from `columns` of one with `n` columns.
pub(super) fn gather<R: Real>(all: &[R], step: &mut [R], columns: Range<usize>, n: usize) {
    for (to, from) in step.chunks_exact_mut(columns.len()).zip(all.chunks_exact(n)) {
        to.copy_from_slice(&from[columns.clone()]);
    }
}

/// `σ(z) = ½ + ½ tanh(z/2)` in place, in one pass.
fn sigmoid<R: Real>(z: &mut [R]) {
    let half = R::of(0.5);
    in_blocks(
        z,
        #[inline(always)]
        |z| z.iter_mut().for_each(|z| *z *= half),
        #[inline(always)]
        |z| z.iter_mut().for_each(|z| *z = z.mul_add(half, half)),
    );
}

/// `before`, `tanh`, `after` of a block while it is in registers, block after block.
#[inline(always)]
fn in_blocks<R: Real>(z: &mut [R], before: impl Fn(&mut [R]), after: impl Fn(&mut [R])) {
    let (blocks, rest) = z.as_chunks_mut::<BLOCK>();
    simd!(|| {
        for z in blocks {
            before(z);
            R::tanh_block(z);
            after(z);
        }
        before(rest);
        rest.iter_mut().for_each(|z| *z = z.tanh());
        after(rest);
    });
}

/// Four matrices of a step.
fn four<R>(x: &[R]) -> [&[R]; 4] {
    let span = x.len() / 4;
    std::array::from_fn(|i| &x[i * span..(i + 1) * span])
}

fn four_mut<R>(x: &mut [R]) -> [&mut [R]; 4] {
    let (ab, cd) = x.split_at_mut(x.len() / 2);
    let ((a, b), (c, d)) = (ab.split_at_mut(ab.len() / 2), cd.split_at_mut(cd.len() / 2));
    [a, b, c, d]
}

/// Gates `i, f, g, o` in place of their inputs, `c'` and `tanh(c')` to the tape, `h'` to the work space.
pub(super) fn lstm<R: Real>(gates: &mut [R], memory: &mut [R], work: &mut Work<R>) {
    let span = work.span();
    let [i, f, g, o] = four_mut(gates);
    sigmoid(i);
    sigmoid(f);
    R::tanh_slice(g);
    sigmoid(o);
    let (c_new, tanh_c) = memory.split_at_mut(span);
    let (h, c) = (&mut work.h[..span], &work.c[..span]);
    let (i, f, g, o) = (&i[..span], &f[..span], &g[..span], &o[..span]);
    simd!(|| for k in 0..span {
        c_new[k] = f[k].mul_add(c[k], i[k] * g[k]);
    });
    tanh_c.copy_from_slice(c_new);
    R::tanh_slice(tanh_c);
    simd!(|| h.iter_mut().zip(o).zip(&*tanh_c).for_each(|((h, o), c)| *h = *o * *c));
}

/// From the cotangent of `h'` and `c'` to those of the gates' inputs and of `c`.
pub(super) fn lstm_vjp<R: Real>(gates: &[R], memory: &[R], work: &mut Work<R>) {
    let span = work.span();
    let [i, f, g, o] = four(gates);
    let tanh_c = &memory[span..2 * span];
    let Work { c, d_h, d_c, d_gates, .. } = work;
    let (c, d_h, d_c) = (&c[..span], &d_h[..span], &mut d_c[..span]);
    let [d_i, d_f, d_g, d_o] = four_mut(&mut d_gates[..4 * span]);
    let one = R::ONE;
    simd!(|| for k in 0..span {
        let through = d_h[k] * o[k] * (one - tanh_c[k] * tanh_c[k]);
        let d = d_c[k] + through;
        d_o[k] = d_h[k] * tanh_c[k] * o[k] * (one - o[k]);
        d_i[k] = d * g[k] * i[k] * (one - i[k]);
        d_f[k] = d * c[k] * f[k] * (one - f[k]);
        d_g[k] = d * i[k] * (one - g[k] * g[k]);
        d_c[k] = d * f[k];
    });
}

/// From the tangents of the gates' inputs and of `c` to those of `h'` and `c'`.
pub(super) fn lstm_jvp<R: Real>(gates: &[R], memory: &[R], work: &mut Work<R>) {
    let span = work.span();
    let [i, f, g, o] = four(gates);
    let tanh_c = &memory[span..2 * span];
    let Work { c, d_h, d_c, d_gates, .. } = work;
    let (c, d_h, d_c) = (&c[..span], &mut d_h[..span], &mut d_c[..span]);
    let [v_i, v_f, v_g, v_o] = four(&d_gates[..4 * span]);
    let one = R::ONE;
    simd!(|| for k in 0..span {
        let from_i = v_i[k] * i[k] * (one - i[k]) * g[k];
        let from_f = v_f[k] * f[k] * (one - f[k]) * c[k];
        let from_g = v_g[k] * i[k] * (one - g[k] * g[k]);
        d_c[k] = f[k].mul_add(d_c[k], from_i + from_f + from_g);
        let through = o[k] * (one - tanh_c[k] * tanh_c[k]) * d_c[k];
        d_h[k] = v_o[k] * o[k] * (one - o[k]) * tanh_c[k] + through;
    });
}

/// Gates `r, z` and the candidate `n` in place of their inputs (`n` of its input's part alone), `h'` to the
/// work space.
pub(super) fn gru<R: Real>(gates: &mut [R], work: &mut Work<R>) {
    let [r, z, q, n] = four_mut(gates);
    sigmoid(r);
    sigmoid(z);
    simd!(|| n.iter_mut().zip(&*r).zip(&*q).for_each(|((n, r), q)| *n = r.mul_add(*q, *n)));
    R::tanh_slice(n);
    let h = work.h_mut();
    simd!(|| h.iter_mut().zip(&*z).zip(&*n).for_each(|((h, z), n)| *h = z.mul_add(*h - *n, *n)));
}

/// From the cotangent of `h'` to those of the gates' inputs, and to what `h` gets without them.
pub(super) fn gru_vjp<R: Real>(gates: &[R], h: &[R], work: &mut Work<R>) {
    let span = work.span();
    let [r, z, q, n] = four(gates);
    let Work { d_h, d_gates, .. } = work;
    let (h, d_h) = (&h[..span], &mut d_h[..span]);
    let [d_r, d_z, d_q, d_n] = four_mut(&mut d_gates[..4 * span]);
    let one = R::ONE;
    simd!(|| for k in 0..span {
        let d = d_h[k];
        d_z[k] = d * (h[k] - n[k]) * z[k] * (one - z[k]);
        d_n[k] = d * (one - z[k]) * (one - n[k] * n[k]);
        d_q[k] = d_n[k] * r[k];
        d_r[k] = d_n[k] * q[k] * r[k] * (one - r[k]);
        d_h[k] = d * z[k];
    });
}

/// From the tangents of the gates' inputs and of `h` to that of `h'`.
pub(super) fn gru_jvp<R: Real>(gates: &[R], h: &[R], work: &mut Work<R>) {
    let span = work.span();
    let [r, z, q, n] = four(gates);
    let Work { d_h, d_gates, .. } = work;
    let (h, d_h) = (&h[..span], &mut d_h[..span]);
    let [v_r, v_z, v_q, v_n] = four(&d_gates[..4 * span]);
    let one = R::ONE;
    simd!(|| for k in 0..span {
        let from_r = v_r[k] * r[k] * (one - r[k]) * q[k];
        let of_n = (v_n[k] + from_r + r[k] * v_q[k]) * (one - n[k] * n[k]);
        let from_z = v_z[k] * z[k] * (one - z[k]) * (h[k] - n[k]);
        d_h[k] = z[k].mul_add(d_h[k], from_z + (one - z[k]) * of_n);
    });
}
