//! The product with a single sample.

use super::lanes::{BLOCK, Kernel};
use super::{Mat, Write};
use crate::{Real, simd};
use pulp::{Simd, WithSimd};

/// The product with a vector `x`, or with a matrix without columns: the same chains as [`super::tiles::by_tiles`] has, in vectors along
/// the rows.
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
        simd!(|| for (line, x) in a.data.chunks_exact(a.rows).zip(x) {
            for (c, a) in c.iter_mut().zip(line) {
                *c = a.mul_add(*x, *c);
            }
        });
    } else {
        R::run(Kernel::Vector(Vector { c, a, x }));
    }
}

/// `c += A x` for rows that lie along the memory: blocks of 8 × 8 are turned over on the way.
#[derive(Debug)]
pub struct Vector<'a, R> {
    c: &'a mut [R],
    a: Mat<'a, R>,
    x: &'a [R],
}

impl<R: Real> WithSimd for Vector<'_, R> {
    type Output = ();
    #[expect(unsafe_code, reason = "turns over blocks by pointer")]
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { c, a, x } = self;
        let k = a.cols;
        let (blocks, rest) = c.as_chunks_mut::<BLOCK>();
        let whole = k / BLOCK * BLOCK;
        let first_of_rest = blocks.len() * BLOCK;
        for (b, c) in blocks.iter_mut().enumerate() {
            let lines = &a.data[b * BLOCK * k..(b + 1) * BLOCK * k];
            let mut sum = *c; // in a register, where `c` would go through memory
            for from in (0..whole).step_by(BLOCK) {
                let mut turned = [[R::ZERO; BLOCK]; BLOCK];
                // SAFETY: `lines` has 8 rows of `k` numbers and `from + 8 <= k`; `turned` is 8 x 8.
                unsafe {
                    let to = turned.as_flattened_mut().as_mut_ptr();
                    R::flip(simd, lines.as_ptr().add(from), k, to, BLOCK);
                }
                for (column, x) in turned.iter().zip(&x[from..from + BLOCK]) {
                    for i in 0..BLOCK {
                        sum[i] = column[i].mul_add(*x, sum[i]);
                    }
                }
            }
            for at in whole..k {
                for i in 0..BLOCK {
                    sum[i] = lines[i * k + at].mul_add(x[at], sum[i]);
                }
            }
            *c = sum;
        }
        for (i, c) in rest.iter_mut().enumerate() {
            let line = &a.data[(first_of_rest + i) * k..][..k];
            *c = line.iter().zip(x).fold(*c, |c, (a, x)| a.mul_add(*x, c));
        }
    }
}
