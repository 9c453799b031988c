//! The matrix product, on the `gemm` crate, single-threaded: parallelism belongs to the [`Team`](crate::Team).

use crate::Real;
use gemm::Parallelism;

/// A matrix in memory: element `(i, j)` is `data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy, Debug)]
pub struct Mat<'a, R> {
    data: &'a [R],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a, R> Mat<'a, R> {
    /// A `[rows x cols]` matrix stored row after row.
    ///
    /// # Panics
    /// When `data.len() != rows * cols`.
    #[must_use]
    pub fn new(data: &'a [R], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "a [{rows} x {cols}] matrix needs {} elements", rows * cols);
        Self { data, rows, cols, row_stride: cols, col_stride: 1 }
    }
    /// The transpose, without moving data.
    #[must_use]
    pub fn t(self) -> Self {
        Self {
            data: self.data,
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }
}

/// Whether a product replaces what the output holds or is added to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// `C = A B`.
    Replace,
    /// `C += A B`.
    Add,
}

/// `C = A B` or `C += A B`, with `C` of `[a.rows x b.cols]` stored row after row.
///
/// # Panics
/// When the shapes do not fit.
#[expect(unsafe_code, reason = "the gemm crate takes pointers; shapes are checked right here")]
pub fn matmul<R: Real>(c: &mut [R], write: Write, a: Mat<'_, R>, b: Mat<'_, R>) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    assert_eq!(b.rows, k, "[{m} x {k}] times [{} x {n}]", b.rows);
    assert_eq!(c.len(), m * n, "the product is [{m} x {n}]");
    // Computed as Cᵀ = Bᵀ Aᵀ: the batch is contiguous in both C and B, and gemm wants its output and its
    // left factor contiguous along the first axis.
    //
    // SAFETY: `Mat::new` ties each pointer to rows*cols initialised elements and `t` only swaps the
    // axes, so every (i, j) below (rows, cols) is in bounds; the assertions above fix the output's size;
    // `c` is borrowed mutably, so it overlaps neither factor.
    unsafe {
        gemm::gemm(
            n,
            m,
            k,
            c.as_mut_ptr(),
            n as isize,
            1,
            write == Write::Add,
            b.data.as_ptr(),
            b.row_stride as isize,
            b.col_stride as isize,
            a.data.as_ptr(),
            a.row_stride as isize,
            a.col_stride as isize,
            R::ONE,
            R::ONE,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_triple_loop_for_every_layout() {
        let mut seed = crate::Stream::new(1, 0, 0);
        for (m, k, n) in [(1, 1, 1), (3, 4, 5), (64, 4, 64), (2, 64, 17), (64, 64, 64), (1, 64, 3)] {
            let a: Vec<f64> = (0..m * k).map(|_| seed.normal()).collect();
            let b: Vec<f64> = (0..k * n).map(|_| seed.normal()).collect();
            let at: Vec<f64> = (0..k * m).map(|i| a[(i % m) * k + i / m]).collect();
            let bt: Vec<f64> = (0..n * k).map(|i| b[(i % k) * n + i / k]).collect();
            let slow: Vec<f64> =
                (0..m * n).map(|i| (0..k).map(|l| a[i / n * k + l] * b[l * n + i % n]).sum()).collect();
            for (ma, mb) in [
                (Mat::new(&a, m, k), Mat::new(&b, k, n)),
                (Mat::new(&at, k, m).t(), Mat::new(&b, k, n)),
                (Mat::new(&a, m, k), Mat::new(&bt, n, k).t()),
                (Mat::new(&at, k, m).t(), Mat::new(&bt, n, k).t()),
            ] {
                let mut c = vec![7.0; m * n];
                matmul(&mut c, Write::Replace, ma, mb);
                assert!(c.iter().zip(&slow).all(|(x, y)| (x - y).abs() < 1e-12));
                matmul(&mut c, Write::Add, ma, mb);
                assert!(c.iter().zip(&slow).all(|(x, y)| (x - 2.0 * y).abs() < 1e-12));
            }
        }
    }

    /// What recurrent networks rest on: training computes a column beside others than the rollout did.
    #[test]
    fn from_eight_columns_on_a_column_has_its_bits_whatever_stands_beside_it() {
        let mut rng = crate::Stream::new(2, 0, 0);
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
                    for n in [8, 9, 13, 16, 31, 32, 64, 100, 256] {
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
