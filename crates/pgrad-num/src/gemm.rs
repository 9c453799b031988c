//! The matrix product for thin batches, single-threaded: parallelism belongs to the [`Team`](crate::Team).
//!
//! Everything that a network does is `C = A B` where a row of `B` and of `C` is one unit's value for all
//! samples of a chunk, or a sum over the samples of a chunk. So `B` is small (64 columns), one element of `A`
//! meets a whole row of `B`, and neither factor has to be copied before the work begins: that is what makes
//! these loops faster here than a general library, which packs both.
//!
//! - **Tile**: 6 rows × 2 vectors of `C` stay in registers while `k` runs. A step of `k` loads 2 vectors of
//!   `B`, broadcasts 6 numbers of `A` and does 12 fused multiply-adds. 12 of them hide the latency of the two
//!   units (4 cycles, two a cycle: at least 8), and 12 sums, 2 vectors of `B` and 1 of `A` fit the 16
//!   registers of AVX2. The bound is the two multiply-adds of a cycle; the 8 loads need 4 of the 6 cycles.
//!   `Aᵀ` costs the same as `A`: only the place that a broadcast reads changes.
//! - **Strip**: 24 rows of `C` across a panel. When their sums are complete they are still in the first
//!   cache, and there [`Then`] gets them (activation, its derivative).
//! - **Panel**: 64 rows × 64 columns of `B`, 16 KiB of `f32`: half of the first cache. It is read in place
//!   where it lies together; else (`Bᵀ`, batches wider than a panel, columns that do not fill a vector) it is
//!   copied, filled up with zeros.
//!
//! In wide layers `A` does not stay in the first cache, but it is read in order, once for each panel, and an
//! element serves 64 columns: from the second and the third cache it comes fast enough. A single sample has
//! loops of its own, along the rows.
//!
//! # Determinism
//! An element of `C` is one chain of fused multiply-adds over `k`, in order, from what it starts with.
//! Between panels the chain waits in `C`, which loses nothing. So its bits depend on its row of `A` and its
//! column of `B` alone: not on the samples beside it, its place, or the width of the vectors. [`add_outer`]
//! has a second order for narrow products, fixed by the layers' width.

mod dots;
pub(crate) mod lanes;
mod then;
mod tiles;
mod vector;

use crate::{Cols, Real, simd};
use dots::{Dots, RowSums};
use lanes::Kernel;
pub use then::Then;
use tiles::by_tiles;
use vector::by_vector;

/// A matrix in memory: element `(i, j)` is `data[i * row_stride + j * col_stride]`, and one of the strides is
/// 1.
#[derive(Clone, Copy, Debug)]
pub struct Mat<'a, R> {
    data: &'a [R],
    rows: usize,
    cols: usize,
    /// Elements from one line of memory to the next.
    stride: usize,
    /// Whether a line of memory is a column.
    flipped: bool,
}

impl<'a, R> Mat<'a, R> {
    /// A `[rows x cols]` matrix stored row after row.
    ///
    /// # Panics
    /// When `data.len() != rows * cols`.
    #[must_use]
    pub fn new(data: &'a [R], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "a [{rows} x {cols}] matrix needs {} elements", rows * cols);
        Self { data, rows, cols, stride: cols, flipped: false }
    }
    /// The transpose, without moving data.
    #[must_use]
    pub fn t(self) -> Self {
        Self { rows: self.cols, cols: self.rows, flipped: !self.flipped, ..self }
    }
    /// From element `(i, j)` to the end of memory.
    #[inline(always)]
    fn after(&self, i: usize, j: usize) -> &'a [R] {
        let (line, at) = if self.flipped { (j, i) } else { (i, j) };
        &self.data[line * self.stride + at..]
    }
}

impl<'a, R> From<Cols<'a, R>> for Mat<'a, R> {
    fn from(x: Cols<'a, R>) -> Self {
        Self::new(x.data(), x.rows(), x.cols())
    }
}

/// What a product does with what the output holds.
#[derive(Clone, Copy, Debug)]
pub enum Write<'a, R> {
    /// `C = A B`.
    Replace,
    /// `C += A B`.
    Add,
    /// `C = A B + b 1ᵀ`: a number for each row.
    Bias(&'a [R]),
}

/// `C = A B`, `C += A B` or `C = A B + b 1ᵀ`, with `C` of `[a.rows x b.cols]` stored row after row.
///
/// # Panics
/// When the shapes do not fit.
pub fn matmul<R: Real>(c: &mut [R], write: Write<'_, R>, a: Mat<'_, R>, b: Mat<'_, R>) {
    matmul_then(c, write, a, b, Then::Leave);
}

/// [`matmul`], after which `then` happens to a strip of `C` while it is still in the first cache.
///
/// # Panics
/// When the shapes do not fit.
pub fn matmul_then<R: Real>(
    c: &mut [R],
    write: Write<'_, R>,
    a: Mat<'_, R>,
    b: Mat<'_, R>,
    then: Then<'_, R>,
) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    assert_eq!(b.rows, k, "[{m} x {k}] times [{} x {n}]", b.rows);
    assert_eq!(c.len(), m * n, "the product is [{m} x {n}]");
    then.check(m * n);
    if let Write::Bias(bias) = write {
        assert_eq!(bias.len(), m, "a number for each row");
    }
    if n == 1 {
        by_vector(c, write, a, b.data);
        then.apply(c);
    } else {
        by_tiles(c, write, a, b, then);
    }
}

/// Up to so many rows or columns `C` is narrow: too few for vectors along them.
const NARROW: usize = 4;

/// `C += A Bᵀ`, the sum over the samples of a batch of the outer products of their columns; `C` is
/// `[a.rows x b.rows]`, row after row.
///
/// Where `C` is narrow, an element is a scalar product along the batch: 16 virtual lanes, folded in halves,
/// then the samples that fill no lane. Elsewhere it is [`matmul`]'s chain, and `Bᵀ` is copied panel by panel.
///
/// # Panics
/// When the shapes do not fit.
pub fn add_outer<R: Real>(c: &mut [R], a: Cols<'_, R>, b: Cols<'_, R>) {
    let (m, k) = (a.rows(), b.rows());
    assert_eq!(a.cols(), b.cols(), "batches of {} and {} samples", a.cols(), b.cols());
    assert_eq!(c.len(), m * k, "the sum is [{m} x {k}]");
    if a.cols() == 1 {
        simd!(|| for (row, a) in c.chunks_exact_mut(k.max(1)).zip(a.data()) {
            for (c, b) in row.iter_mut().zip(b.data()) {
                *c = a.mul_add(*b, *c);
            }
        });
        return;
    }
    if m.min(k) > NARROW {
        by_tiles(c, Write::Add, a.into(), Mat::from(b).t(), Then::Leave);
        return;
    }
    let (long, short, long_stride, short_stride) = if m < k { (b, a, 1, k) } else { (a, b, k, 1) };
    R::run(Kernel::Dots(Dots { c, long, short, long_stride, short_stride }));
}

/// `c += A 1`: adds the sum of each row over the samples of a batch, in 16 virtual lanes, folded in halves,
/// then the samples that fill no lane.
///
/// # Panics
/// When `c` has not one element a row.
pub fn add_row_sums<R: Real>(c: &mut [R], a: Cols<'_, R>) {
    assert_eq!(c.len(), a.rows(), "a sum a row");
    R::run(Kernel::RowSums(RowSums { c, x: a }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Stream;

    const SHAPES: [(usize, usize, usize); 25] = [
        (1, 1, 1),
        (2, 64, 64),
        (1, 64, 3),
        (3, 4, 5),
        (5, 3, 9),
        (6, 7, 16),
        (4, 0, 8),
        (7, 1, 8),
        (11, 65, 24),
        (12, 17, 12),
        (64, 4, 64),
        (64, 64, 64),
        (64, 64, 32),
        (64, 64, 4),
        (25, 2, 40),
        (29, 63, 63),
        (65, 66, 67),
        (30, 129, 64),
        (13, 8, 72),
        (9, 20, 150),
        (48, 200, 8),
        (26, 11, 300),
        (64, 37, 1),
        (3, 64, 1),
        (140, 20, 1),
    ];

    fn random(n: usize, rng: &mut Stream) -> Vec<f64> {
        (0..n).map(|_| rng.normal()).collect()
    }
    fn single(x: &[f64]) -> Vec<f32> {
        x.iter().map(|x| *x as f32).collect()
    }
    /// The transpose of a `[rows x cols]` matrix.
    fn turned<R: Copy>(x: &[R], rows: usize, cols: usize) -> Vec<R> {
        (0..rows * cols).map(|i| x[i % rows * cols + i / rows]).collect()
    }

    /// Runs every layout of the factors.
    fn for_every_layout<R: Real>(
        a: &[R],
        b: &[R],
        (m, k, n): (usize, usize, usize),
        mut f: impl FnMut(Mat<'_, R>, Mat<'_, R>),
    ) {
        let (at, bt) = (turned(a, m, k), turned(b, k, n));
        for ma in [Mat::new(a, m, k), Mat::new(&at, k, m).t()] {
            for mb in [Mat::new(b, k, n), Mat::new(&bt, n, k).t()] {
                f(ma, mb);
            }
        }
    }

    fn agrees<R: Real>(round: impl Fn(&[f64]) -> Vec<R>, tolerance: f64) {
        let mut rng = Stream::new(1, 0, 0);
        for (m, k, n) in SHAPES {
            let (a, b) = (random(m * k, &mut rng), random(k * n, &mut rng));
            let (bias, held) = (random(m, &mut rng), random(m * n, &mut rng));
            let slow: Vec<f64> =
                (0..m * n).map(|i| (0..k).map(|l| a[i / n * k + l] * b[l * n + i % n]).sum()).collect();
            let near = |c: &[R], start: &dyn Fn(usize) -> f64| {
                (0..m * n).all(|i| (c[i].f64() - slow[i] - start(i)).abs() < tolerance)
            };
            for_every_layout(&round(&a), &round(&b), (m, k, n), |ma, mb| {
                let mut c = round(&held);
                matmul(&mut c, Write::Add, ma, mb);
                assert!(near(&c, &|i| held[i]), "C += A B, {m} x {k} x {n}");
                matmul(&mut c, Write::Replace, ma, mb);
                assert!(near(&c, &|_| 0.0), "C = A B, {m} x {k} x {n}");
                matmul(&mut c, Write::Bias(&round(&bias)), ma, mb);
                assert!(near(&c, &|i| bias[i / n]), "C = A B + b, {m} x {k} x {n}");
            });
            // By tiles too where there is a single column.
            for_every_layout(&round(&a), &round(&b), (m, k, n), |ma, mb| {
                let mut c = round(&held);
                by_tiles(&mut c, Write::Add, ma, mb, Then::Leave);
                assert!(near(&c, &|i| held[i]), "by tiles, {m} x {k} x {n}");
            });
            let (a, bt, mut c) = (round(&a), turned(&round(&b), k, n), round(&held));
            add_outer(&mut c, Cols::new(&a, m, k), Cols::new(&bt, n, k));
            assert!(near(&c, &|i| held[i]), "sum of outer products, {m} x {k} x {n}");
        }
    }

    #[test]
    fn agrees_with_the_triple_loop_for_every_shape_and_layout() {
        agrees(<[f64]>::to_vec, 1e-12);
        agrees(single, 1e-4);
    }

    /// Every size from 1 to 130 as rows, as inner size and as columns.
    #[test]
    fn agrees_with_a_slow_sum_for_every_size() {
        let mut rng = Stream::new(5, 0, 0);
        for s in 1..=130 {
            let (t, u) = (s * 37 % 130 + 1, s * 53 % 130 + 1);
            for (m, k, n) in [(s, t, u), (u, s, t), (t, u, s)] {
                let (a, b) = (single(&random(m * k, &mut rng)), single(&random(k * n, &mut rng)));
                let held = single(&random(m * n, &mut rng));
                let slow: Vec<f64> = (0..m * n)
                    .map(|i| {
                        (0..k).map(|l| f64::from(a[i / n * k + l]) * f64::from(b[l * n + i % n])).sum::<f64>()
                            + f64::from(held[i])
                    })
                    .collect();
                let near = |c: &[f32]| c.iter().zip(&slow).all(|(c, s)| (f64::from(*c) - s).abs() < 1e-4);
                for_every_layout(&a, &b, (m, k, n), |ma, mb| {
                    let mut c = held.clone();
                    matmul(&mut c, Write::Add, ma, mb);
                    assert!(near(&c), "{m} x {k} x {n}");
                });
                let (bt, mut c) = (turned(&b, k, n), held.clone());
                add_outer(&mut c, Cols::new(&a, m, k), Cols::new(&bt, n, k));
                assert!(near(&c), "outer products, {m} x {k} x {n}");
            }
        }
    }

    /// The chain that the first page promises, one element at a time.
    #[test]
    fn an_element_is_one_chain_wherever_it_stands() {
        let mut rng = Stream::new(2, 0, 0);
        for (m, k, n) in SHAPES {
            let (a, b) = (single(&random(m * k, &mut rng)), single(&random(k * n, &mut rng)));
            let bias = single(&random(m, &mut rng));
            let chain =
                |i: usize| (0..k).fold(bias[i / n], |c, l| a[i / n * k + l].mul_add(b[l * n + i % n], c));
            let chains: Vec<f32> = (0..m * n).map(chain).collect();
            for_every_layout(&a, &b, (m, k, n), |ma, mb| {
                let mut c = vec![0.0; m * n];
                by_tiles(&mut c, Write::Bias(&bias), ma, mb, Then::Leave);
                assert_eq!(c, chains, "{m} x {k} x {n}");
            });
        }
    }

    /// Skipping what adds nothing leaves every chain as it is.
    #[test]
    fn zeros_of_a_single_sample_change_no_bit() {
        let mut rng = Stream::new(9, 0, 0);
        for (m, k) in [(1, 7), (2, 40), (3, 1001), (5, 64), (7, 33), (8, 100), (29, 130), (70, 300)] {
            for kept in [0.0, 0.02, 0.5] {
                let (a, bias) = (single(&random(m * k, &mut rng)), single(&random(m, &mut rng)));
                let x: Vec<f32> =
                    (0..k).map(|_| if rng.uniform() < kept { rng.normal() as f32 } else { 0.0 }).collect();
                let chain = |i: usize| (0..k).fold(bias[i], |c, l| a[i * k + l].mul_add(x[l], c));
                let chains: Vec<f32> = (0..m).map(chain).collect();
                let at = turned(&a, m, k);
                for a in [Mat::new(&a, m, k), Mat::new(&at, k, m).t()] {
                    let mut c = vec![0.0; m];
                    matmul(&mut c, Write::Bias(&bias), a, Mat::new(&x, k, 1));
                    assert_eq!(c, chains, "{m} x {k}, {kept} of the numbers");
                }
            }
        }
    }

    #[test]
    fn a_row_of_a_narrow_sum_is_the_same_in_a_block_and_alone() {
        let mut rng = Stream::new(3, 0, 0);
        for n in [1, 15, 16, 50, 64, 100] {
            let (a, b) = (single(&random(21 * n, &mut rng)), single(&random(3 * n, &mut rng)));
            let mut all = vec![0.0f32; 21 * 3];
            add_outer(&mut all, Cols::new(&a, 21, n), Cols::new(&b, 3, n));
            let mut other_way = vec![0.0f32; 3 * 21];
            add_outer(&mut other_way, Cols::new(&b, 3, n), Cols::new(&a, 21, n));
            assert_eq!(all, turned(&other_way, 3, 21));
            for i in 0..21 {
                let mut alone = [0.0f32; 3];
                let row = Cols::new(&a[i * n..(i + 1) * n], 1, n);
                add_outer(&mut alone, row, Cols::new(&b, 3, n));
                assert_eq!(alone, all[i * 3..(i + 1) * 3]);
            }
        }
    }

    /// What becomes of an element, in `f64`, from the definitions.
    #[test]
    fn every_element_goes_through_then_once() {
        let mut rng = Stream::new(6, 0, 0);
        for (m, k, n) in SHAPES {
            let (a, b) = (random(m * k, &mut rng), random(k * n, &mut rng));
            let h: Vec<f64> = (0..m * n).map(|_| rng.uniform_in(-1.0, 1.0)).collect();
            let product = |then| {
                let mut c = vec![0.0; m * n];
                matmul_then(&mut c, Write::Replace, Mat::new(&a, m, k), Mat::new(&b, k, n), then);
                c
            };
            let plain = product(Then::Leave);
            let slow = |f: &dyn Fn(f64, f64) -> f64| -> Vec<f64> {
                plain.iter().zip(&h).map(|(c, h)| f(*c, *h)).collect()
            };
            assert_eq!(product(Then::Tanh), slow(&|c, _| c.tanh()), "{m} x {k} x {n}");
            assert_eq!(product(Then::Relu), slow(&|c, _| if c > 0.0 { c } else { 0.0 }));
            assert_eq!(product(Then::TimesReluSlope(&h)), slow(&|c, h| if h > 0.0 { c } else { 0.0 }));
            let times_slope = slow(&|c, h| c * (1.0 - h * h));
            let near = |(x, y): (&f64, &f64)| (x - y).abs() <= 1e-14 * x.abs().max(1.0);
            assert!(product(Then::TimesTanhSlope(&h)).iter().zip(&times_slope).all(near));
        }
    }

    #[test]
    fn a_row_sum_has_every_element_once() {
        for (rows, n) in [(1, 0), (3, 1), (8, 15), (9, 16), (17, 17), (24, 64), (7, 100)] {
            let x: Vec<f32> = (0..rows * n).map(|i| i as f32).collect();
            let mut sums = vec![1.0f32; rows];
            add_row_sums(&mut sums, Cols::new(&x, rows, n));
            for (r, sum) in sums.iter().enumerate() {
                assert_eq!(*sum, 1.0 + (0..n).map(|s| (r * n + s) as f32).sum::<f32>());
            }
        }
    }

    /// The same column in batches of other sizes, and at other places in them.
    #[test]
    fn a_column_does_not_depend_on_those_beside_it() {
        let mut rng = Stream::new(4, 0, 0);
        for (m, k) in [
            (64, 64),
            (64, 4),
            (2, 64),
            (1, 64),
            (7, 13),
            (128, 128),
            (70, 128),
            (3, 1),
            (129, 64),
            (75, 300),
            (2, 530),
        ] {
            let a = single(&random(m * k, &mut rng));
            let (bias, x) = (single(&random(m, &mut rng)), single(&random(k, &mut rng)));
            let at = turned(&a, m, k);
            for a in [Mat::new(&a, m, k), Mat::new(&at, k, m).t()] {
                let mut alone = vec![0.0; m];
                matmul(&mut alone, Write::Bias(&bias), a, Mat::new(&x, k, 1));
                for n in [2, 3, 7, 8, 9, 16, 33, 64, 65, 130] {
                    for place in [0, n / 2, n - 1] {
                        let mut b = single(&random(k * n, &mut rng));
                        for (l, x) in x.iter().enumerate() {
                            b[l * n + place] = *x;
                        }
                        let mut c = vec![0.0; m * n];
                        matmul(&mut c, Write::Bias(&bias), a, Mat::new(&b, k, n));
                        let column: Vec<f32> = c.iter().skip(place).step_by(n).copied().collect();
                        assert_eq!(column, alone, "{m} x {k}, column {place} of {n}");
                    }
                }
            }
        }
    }

    /// What recurrent networks rest on: training computes a column beside others than the rollout did.
    #[test]
    fn a_column_has_its_bits_whatever_stands_beside_it() {
        let mut rng = Stream::new(2, 0, 0);
        for m in [1, 2, 3, 16, 64, 192, 256] {
            for k in [1, 2, 3, 4, 28, 64, 65, 300] {
                let mut normal = |n: usize| (0..n).map(|_| rng.normal() as f32).collect::<Vec<f32>>();
                let all = 700;
                let (a, b, held) = (normal(m * k), normal(k * all), normal(m));
                let product = |write, n: usize| {
                    // The columns from `all - n` on.
                    let part: Vec<f32> = (0..k * n).map(|i| b[i / n * all + all - n + i % n]).collect();
                    let mut c: Vec<f32> = (0..m * n).map(|i| held[i / n]).collect();
                    matmul(&mut c, write, Mat::new(&a, m, k), Mat::new(&part, k, n));
                    c
                };
                for write in [Write::Replace, Write::Add] {
                    let together = product(write, all);
                    for n in [1, 2, 3, 7, 8, 9, 13, 16, 31, 32, 64, 100, 256] {
                        for (i, c) in product(write, n).iter().enumerate() {
                            let other = together[i / n * all + all - n + i % n];
                            assert_eq!(
                                c.to_bits(),
                                other.to_bits(),
                                "[{m} x {k}] times {n} columns, {write:?}"
                            );
                        }
                    }
                }
            }
        }
    }
}
