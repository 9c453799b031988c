//! Sums over the samples of a batch: scalar products of rows, and sums of rows.
//!
//! An element is a sum in 16 virtual lanes, folded in halves, then the samples that fill no lane: the same in
//! a block of rows and alone, and for every width of vectors.

use super::lanes::BLOCK;
use crate::{Cols, Real};
use pulp::{Simd, WithSimd};
use std::mem::MaybeUninit;

/// Virtual lanes of a sum over samples.
const LANES: usize = 16;
const HALF: usize = LANES / 2;

/// `c[i * long_stride + j * short_stride] += Σ_s long[i, s] short[j, s]`.
#[derive(Debug)]
pub struct Dots<'a, R> {
    pub(super) c: &'a mut [R],
    pub(super) long: Cols<'a, R>,
    pub(super) short: Cols<'a, R>,
    pub(super) long_stride: usize,
    pub(super) short_stride: usize,
}

impl<R: Real> WithSimd for Dots<'_, R> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { c, long, short, long_stride, short_stride } = self;
        let whole = long.rows() / BLOCK * BLOCK;
        for first in (0..whole).step_by(BLOCK) {
            for j in 0..short.rows() {
                let sums = block::<R, S, true>(simd, long.row_range(first, first + BLOCK), short.row(j));
                for (i, sum) in sums.into_iter().enumerate() {
                    c[(first + i) * long_stride + j * short_stride] += sum;
                }
            }
        }
        for i in whole..long.rows() {
            for j in 0..short.rows() {
                let y = short.row(j);
                c[i * long_stride + j * short_stride] += one(long.row(i), |s, x, sum| x.mul_add(y[s], sum));
            }
        }
    }
}

/// `c[i] += Σ_s x[i, s]`.
#[derive(Debug)]
pub struct RowSums<'a, R> {
    pub(super) c: &'a mut [R],
    pub(super) x: Cols<'a, R>,
}

impl<R: Real> WithSimd for RowSums<'_, R> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { c, x } = self;
        let (blocks, rest) = c.as_chunks_mut::<BLOCK>();
        let whole = blocks.len() * BLOCK;
        for (b, c) in blocks.iter_mut().enumerate() {
            let rows = x.row_range(b * BLOCK, (b + 1) * BLOCK);
            let sums = block::<R, S, false>(simd, rows, &[]);
            for i in 0..BLOCK {
                c[i] += sums[i];
            }
        }
        for (i, c) in rest.iter_mut().enumerate() {
            *c += one(x.row(whole + i), |_, x, sum| sum + x);
        }
    }
}

/// `Σ_s x[i, s] y[s]` of 8 rows, or without `TIMES` `Σ_s x[i, s]`: a vector of `y` meets 8 rows, and the
/// lanes of a row are added where 8 rows lie side by side.
#[expect(unsafe_code, reason = "the bounds of all rows are checked at once")]
#[inline(always)]
fn block<R: Real, S: Simd, const TIMES: bool>(simd: S, x: Cols<'_, R>, y: &[R]) -> [R; BLOCK] {
    const { assert!(HALF == BLOCK, "half of the lanes are turned over as a block") };
    let (n, lanes) = (x.cols(), R::lanes::<S>());
    assert!(x.data().len() == BLOCK * n && (!TIMES || y.len() == n));
    let whole = n / LANES * LANES;
    let (x_start, y_start) = (x.data().as_ptr(), y.as_ptr());
    // Every number of these is written before it is read.
    let mut all = MaybeUninit::<[[R; LANES]; BLOCK]>::uninit();
    let mut turned = MaybeUninit::<[[R; BLOCK]; HALF]>::uninit();
    for at in (0..LANES).step_by(lanes) {
        let mut sum = [R::splat(simd, R::ZERO); BLOCK];
        for s in (at..whole).step_by(LANES) {
            // SAFETY: `s` is `at` plus a multiple of 16, and `at` a multiple of the vector's length, which
            // divides 16: so `s + lanes <= whole <= n`, and the assertion says that each of the 8 rows, and
            // `y` where it is read, has `n` numbers. Vectors are read without alignment; any bits are one.
            unsafe {
                let x = {
                    #[inline(always)]
                    |i: usize| x_start.add(i * n + s).cast::<R::Vector<S>>().read_unaligned()
                };
                if TIMES {
                    let y = y_start.add(s).cast::<R::Vector<S>>().read_unaligned();
                    for i in 0..BLOCK {
                        sum[i] = R::fma(simd, x(i), y, sum[i]);
                    }
                } else {
                    for i in 0..BLOCK {
                        sum[i] = R::sum(simd, sum[i], x(i));
                    }
                }
            }
        }
        for i in 0..BLOCK {
            // SAFETY: `i < BLOCK` and `at + lanes <= LANES`; see above.
            unsafe {
                all.as_mut_ptr()
                    .cast::<R>()
                    .add(i * LANES + at)
                    .cast::<R::Vector<S>>()
                    .write_unaligned(sum[i]);
            };
        }
    }
    // SAFETY: the loop above goes through all `at`, so each row has all its lanes.
    let all = unsafe { all.assume_init_ref() };
    let halves: [[R; HALF]; BLOCK] = std::array::from_fn(
        #[inline(always)]
        |i| {
            std::array::from_fn(
                #[inline(always)]
                |l| all[i][l] + all[i][l + HALF],
            )
        },
    );
    // SAFETY: both are arrays of 8 x 8 numbers, and all of `turned` is written.
    let turned = unsafe {
        R::flip(simd, halves.as_flattened().as_ptr(), HALF, turned.as_mut_ptr().cast(), BLOCK);
        turned.assume_init_ref()
    };
    let mut sums = [R::ZERO; BLOCK];
    for i in 0..BLOCK {
        let quarter = |l: usize| turned[l][i] + turned[l + 4][i];
        sums[i] = (quarter(0) + quarter(2)) + (quarter(1) + quarter(3));
    }
    if whole < n {
        for i in 0..BLOCK {
            let tail = (whole..n).fold(R::ZERO, |t, s| {
                let x = x.data()[i * n + s];
                if TIMES { x.mul_add(y[s], t) } else { t + x }
            });
            sums[i] += tail;
        }
    }
    sums
}

/// The sum over one row: `add(s, x[s], sum)` adds a sample.
#[inline(always)]
fn one<R: Real>(x: &[R], add: impl Fn(usize, R, R) -> R) -> R {
    let mut lanes = [R::ZERO; LANES];
    let whole = x.len() / LANES * LANES;
    for s in (0..whole).step_by(LANES) {
        for l in 0..LANES {
            lanes[l] = add(s + l, x[s + l], lanes[l]);
        }
    }
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
    }
    if whole < x.len() {
        lanes[0] += (whole..x.len()).fold(R::ZERO, |t, s| add(s, x[s], t));
    }
    lanes[0]
}
