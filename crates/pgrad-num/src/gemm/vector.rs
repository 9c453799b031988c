//! The product with a single sample.
//!
//! Numbers of the sample that are 0 are skipped, in blocks: they add nothing to a chain. What a tile coder
//! gives is 0 nearly everywhere, and what goes through a ReLU half of the time.

use super::lanes::{BLOCK, Kernel};
use super::{Mat, Write};
use crate::{Real, simd};
use pulp::{Simd, WithSimd};

/// The product with a vector `x`, or with a matrix without columns: the same chains as
/// [`super::tiles::by_tiles`] has, in vectors along the rows.
pub(super) fn by_vector<R: Real>(c: &mut [R], write: Write<'_, R>, a: Mat<'_, R>, x: &[R]) {
    if c.is_empty() {
        return;
    }
    match write {
        Write::Replace => c.fill(R::ZERO),
        Write::Add => {}
        Write::Bias(bias) => c.copy_from_slice(bias),
    }
    if a.flipped {
        simd!(|| for (line, x) in a.data.chunks_exact(a.rows).zip(x).filter(|(_, x)| **x != R::ZERO) {
            for (c, a) in c.iter_mut().zip(line) {
                *c = a.mul_add(*x, *c);
            }
        });
    } else {
        R::run(Kernel::Vector(Vector { c, a, x }));
    }
}

/// Blocks of rows that are computed side by side: so many chains hide the latency of one.
const TOGETHER: usize = 3;

/// `c += A x` for rows that lie along the memory: blocks of 8 × 8 are turned over on the way.
#[derive(Debug)]
pub struct Vector<'a, R> {
    c: &'a mut [R],
    a: Mat<'a, R>,
    x: &'a [R],
}

impl<R: Real> WithSimd for Vector<'_, R> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { c, a, x } = self;
        let k = a.cols;
        // Short rows are over before there is latency to hide.
        let in_groups = if k < 2 * BLOCK { 0 } else { c.len() / (TOGETHER * BLOCK) * (TOGETHER * BLOCK) };
        let (groups, rest) = c.split_at_mut(in_groups);
        let (groups, _) = groups.as_chunks_mut::<{ TOGETHER * BLOCK }>();
        let (group_lines, rest_lines) = a.data.split_at(groups.len() * TOGETHER * BLOCK * k);
        for (g, c) in groups.iter_mut().enumerate() {
            let lines = &group_lines[g * TOGETHER * BLOCK * k..][..TOGETHER * BLOCK * k];
            add_blocks::<R, S, TOGETHER>(simd, c, lines, x);
        }
        let (blocks, rest) = rest.as_chunks_mut::<BLOCK>();
        let (block_lines, rest_lines) = rest_lines.split_at(blocks.len() * BLOCK * k);
        for (b, c) in blocks.iter_mut().enumerate() {
            add_blocks::<R, S, 1>(simd, c, &block_lines[b * BLOCK * k..][..BLOCK * k], x);
        }
        match rest.len() {
            0 => {}
            1 => add_lines::<R, 1>(rest, rest_lines, x),
            2 => add_lines::<R, 2>(rest, rest_lines, x),
            3 => add_lines::<R, 3>(rest, rest_lines, x),
            4 => add_lines::<R, 4>(rest, rest_lines, x),
            5 => add_lines::<R, 5>(rest, rest_lines, x),
            6 => add_lines::<R, 6>(rest, rest_lines, x),
            _ => add_lines::<R, 7>(rest, rest_lines, x),
        }
    }
}

/// `c += A x` for the `N` rows that fill no block, side by side: their chains hide each other's latency.
#[inline(always)]
fn add_lines<R: Real, const N: usize>(c: &mut [R], lines: &[R], x: &[R]) {
    let k = x.len();
    let line: [&[R]; N] = std::array::from_fn(|i| &lines[i * k..(i + 1) * k]);
    let mut sum: [R; N] = std::array::from_fn(|i| c[i]);
    let (blocks, tail) = x.as_chunks::<BLOCK>();
    let mut add = |from: usize, x: &[R]| {
        for (at, x) in x.iter().enumerate() {
            for i in 0..N {
                sum[i] = line[i][from + at].mul_add(*x, sum[i]);
            }
        }
    };
    for (b, x) in blocks.iter().enumerate() {
        if adds(x) {
            add(b * BLOCK, x);
        }
    }
    add(blocks.len() * BLOCK, tail);
    c.copy_from_slice(&sum);
}

/// Whether any of these is not 0: without a branch for each, in vectors.
#[inline(always)]
fn adds<R: Real>(x: &[R; BLOCK]) -> bool {
    x.iter().fold(false, |any, x| any | (*x != R::ZERO))
}

/// `c += A x` for `N` blocks of rows; `lines` are the rows of `A`.
#[expect(unsafe_code, reason = "turns over blocks by pointer")]
#[inline(always)]
fn add_blocks<R: Real, S: Simd, const N: usize>(simd: S, c: &mut [R], lines: &[R], x: &[R]) {
    let k = x.len();
    assert!(c.len() == N * BLOCK && lines.len() == N * BLOCK * k);
    let whole = k / BLOCK * BLOCK;
    // In registers, where `c` would go through memory.
    let mut sum: [[R; BLOCK]; N] = std::array::from_fn(|b| std::array::from_fn(|i| c[b * BLOCK + i]));
    for (from, x) in (0..whole).step_by(BLOCK).zip(x.as_chunks::<BLOCK>().0) {
        if !adds(x) {
            continue;
        }
        for (b, sum) in sum.iter_mut().enumerate() {
            let mut turned = [[R::ZERO; BLOCK]; BLOCK];
            // SAFETY: `lines` has `8 N` rows of `k` numbers and `from + 8 <= k`; `turned` is 8 x 8.
            unsafe {
                let to = turned.as_flattened_mut().as_mut_ptr();
                R::flip(simd, lines.as_ptr().add(b * BLOCK * k + from), k, to, BLOCK);
            }
            for (column, x) in turned.iter().zip(x) {
                for i in 0..BLOCK {
                    sum[i] = column[i].mul_add(*x, sum[i]);
                }
            }
        }
    }
    for at in whole..k {
        for (b, sum) in sum.iter_mut().enumerate() {
            for i in 0..BLOCK {
                sum[i] = lines[(b * BLOCK + i) * k + at].mul_add(x[at], sum[i]);
            }
        }
    }
    c.copy_from_slice(sum.as_flattened());
}
