//! Cholesky factors of small symmetric positive definite matrices, in double precision.

use thiserror::Error;

/// A matrix without a Cholesky factor.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
#[error(
    "a Cholesky factor needs a positive definite matrix, but pivot {row} is {pivot:e}; raise the damping"
)]
pub struct NotPositiveDefinite {
    /// Row of the pivot.
    pub row: usize,
    /// Its value: not positive, or not a number.
    pub pivot: f64,
}

/// `A = L Lᵀ` of a symmetric positive definite `A`: what a solve needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cholesky {
    dim: usize,
    /// `L`, row after row; what is above the diagonal is not used.
    l: Vec<f64>,
}

impl Cholesky {
    /// Factors `a + shift·I`, `[dim x dim]`, of which only the lower triangle is read. Memory is reused.
    ///
    /// # Errors
    /// When the matrix is not positive definite. The former factor is lost.
    ///
    /// # Panics
    /// When `a` is not square.
    pub fn factor(&mut self, a: &[f64], dim: usize, shift: f64) -> Result<(), NotPositiveDefinite> {
        assert_eq!(a.len(), dim * dim);
        self.dim = dim;
        self.l.clear();
        self.l.extend_from_slice(a);
        for i in 0..dim {
            for j in 0..=i {
                let (above, below) = self.l.split_at_mut(i * dim);
                let row_i = &mut below[..dim];
                let diagonal = i == j;
                let row_j = if diagonal { &row_i[..j] } else { &above[j * dim..j * dim + j] };
                let known: f64 = row_i[..j].iter().zip(row_j).map(|(x, y)| x * y).sum();
                let left = row_i[j] - known;
                if diagonal {
                    let pivot = left + shift;
                    if !(pivot > 0.0 && pivot.is_finite()) {
                        return Err(NotPositiveDefinite { row: i, pivot });
                    }
                    row_i[i] = pivot.sqrt();
                } else {
                    row_i[j] = left / above[j * dim + j];
                }
            }
        }
        Ok(())
    }

    /// Solves `(A + shift·I) X = B` in place for `b` of `[dim x n]`, row after row.
    ///
    /// # Panics
    /// When the shape does not fit.
    pub fn solve(&self, b: &mut [f64], n: usize) {
        let dim = self.dim;
        assert_eq!(b.len(), dim * n);
        for i in 0..dim {
            self.eliminate(b, n, i, 0..i, |j| self.l[i * dim + j]);
        }
        for i in (0..dim).rev() {
            self.eliminate(b, n, i, i + 1..dim, |j| self.l[j * dim + i]);
        }
    }

    /// `b_i ← (b_i − Σ_j c_j b_j) / L_ii`.
    fn eliminate(
        &self,
        b: &mut [f64],
        n: usize,
        i: usize,
        others: std::ops::Range<usize>,
        coefficient: impl Fn(usize) -> f64,
    ) {
        let (before, rest) = b.split_at_mut(i * n);
        let (row, after) = rest.split_at_mut(n);
        for j in others {
            let other =
                if j < i { &before[j * n..(j + 1) * n] } else { &after[(j - i - 1) * n..(j - i) * n] };
            let c = coefficient(j);
            row.iter_mut().zip(other).for_each(|(x, y)| *x -= c * y);
        }
        let pivot = self.l[i * self.dim + i];
        row.iter_mut().for_each(|x| *x /= pivot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `BᵀB + shift I` of a random `B`.
    fn spd(n: usize, seed: u64) -> Vec<f64> {
        let mut rng = crate::Stream::new(seed, 0, 0);
        let b: Vec<f64> = (0..n * n).map(|_| rng.normal()).collect();
        let at = |i: usize, j: usize| (0..n).map(|k| b[k * n + i] * b[k * n + j]).sum::<f64>();
        (0..n * n).map(|k| at(k / n, k % n)).collect()
    }

    #[test]
    fn a_solve_gives_back_what_was_multiplied() {
        for (dim, n) in [(1, 1), (2, 3), (7, 4), (65, 17)] {
            let (a, shift) = (spd(dim, dim as u64), 0.3);
            let mut rng = crate::Stream::new(9, 0, 0);
            let x: Vec<f64> = (0..dim * n).map(|_| rng.normal()).collect();
            let mut b: Vec<f64> = (0..dim * n)
                .map(|k| {
                    let (i, j) = (k / n, k % n);
                    shift * x[k] + (0..dim).map(|l| a[i * dim + l] * x[l * n + j]).sum::<f64>()
                })
                .collect();
            let mut factor = Cholesky::default();
            factor.factor(&a, dim, shift).unwrap();
            factor.solve(&mut b, n);
            assert!(b.iter().zip(&x).all(|(p, q)| (p - q).abs() < 1e-9), "[{dim} x {n}]");
        }
    }

    #[test]
    fn a_matrix_that_is_not_positive_definite_is_refused() {
        let mut factor = Cholesky::default();
        let e = factor.factor(&[1.0, 2.0, 2.0, 1.0], 2, 0.0).unwrap_err();
        assert_eq!((e.row, e.pivot), (1, -3.0));
        assert!(factor.factor(&[1.0, 2.0, 2.0, 1.0], 2, 1.5).is_ok(), "damping mends it");
        assert!(factor.factor(&[f64::NAN], 1, 1.0).is_err());
    }
}
