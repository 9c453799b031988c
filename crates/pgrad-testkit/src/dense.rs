//! A small dense matrix, slow and plain.

/// A `[rows x cols]` matrix of `f64`.
#[derive(Clone, Debug, PartialEq)]
pub struct Dense {
    rows: usize,
    cols: usize,
    data: Vec<f64>,
}

impl Dense {
    /// The zero matrix.
    #[must_use]
    pub fn zeros(rows: usize, cols: usize) -> Self {
        Self { rows, cols, data: vec![0.0; rows * cols] }
    }
    /// The matrix of elements `f(i, j)`.
    #[must_use]
    pub fn from_fn(rows: usize, cols: usize, mut f: impl FnMut(usize, usize) -> f64) -> Self {
        let data = (0..rows * cols).map(|k| f(k / cols, k % cols)).collect();
        Self { rows, cols, data }
    }
    /// Reads a linear operator column by column: column `j` is `apply(e_j)`, written by the closure into an
    /// `out` of `rows` numbers that starts at zero.
    #[must_use]
    pub fn of_operator(rows: usize, cols: usize, mut apply: impl FnMut(&[f64], &mut [f64])) -> Self {
        let mut a = Self::zeros(rows, cols);
        for j in 0..cols {
            let mut unit = vec![0.0; cols];
            unit[j] = 1.0;
            let mut column = vec![0.0; rows];
            apply(&unit, &mut column);
            for (i, x) in column.iter().enumerate() {
                a.set(i, j, *x);
            }
        }
        a
    }
    /// `BᵀB + shift I` for a random square `B`: symmetric and, for `shift > 0`, positive definite.
    #[must_use]
    pub fn random_spd(n: usize, shift: f64, seed: u64) -> Self {
        let mut random = crate::SplitMix::new(seed);
        let b = Self::from_fn(n, n, |_, _| random.uniform_in(-1.0, 1.0));
        let mut a = b.transpose().matmul(&b);
        for i in 0..n {
            a.set(i, i, a.at(i, i) + shift);
        }
        a
    }
    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }
    /// Number of columns.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }
    /// Elements, row after row.
    #[must_use]
    pub fn data(&self) -> &[f64] {
        &self.data
    }
    /// Element `(i, j)`.
    #[must_use]
    pub fn at(&self, i: usize, j: usize) -> f64 {
        self.data[i * self.cols + j]
    }
    /// Sets element `(i, j)`.
    pub fn set(&mut self, i: usize, j: usize, value: f64) {
        self.data[i * self.cols + j] = value;
    }
    /// The transpose.
    #[must_use]
    pub fn transpose(&self) -> Self {
        Self::from_fn(self.cols, self.rows, |i, j| self.at(j, i))
    }
    /// The product with another matrix.
    ///
    /// # Panics
    /// When the shapes do not fit.
    #[must_use]
    pub fn matmul(&self, other: &Self) -> Self {
        assert_eq!(self.cols, other.rows, "[. x {}] times [{} x .]", self.cols, other.rows);
        Self::from_fn(self.rows, other.cols, |i, j| {
            (0..self.cols).map(|k| self.at(i, k) * other.at(k, j)).sum()
        })
    }
    /// `A v`.
    ///
    /// # Panics
    /// When `v` has not as many numbers as `A` has columns.
    #[must_use]
    pub fn mul(&self, v: &[f64]) -> Vec<f64> {
        assert_eq!(self.cols, v.len(), "[. x {}] times {} numbers", self.cols, v.len());
        (0..self.rows).map(|i| (0..self.cols).map(|j| self.at(i, j) * v[j]).sum()).collect()
    }
    /// `out = A v`.
    ///
    /// # Panics
    /// When the shapes do not fit.
    pub fn mul_into(&self, v: &[f64], out: &mut [f64]) {
        out.copy_from_slice(&self.mul(v));
    }
    /// The `x` with `A x = b`, by Gaussian elimination with row pivots.
    ///
    /// # Panics
    /// When `A` is not square, `b` does not fit, or a pivot is zero.
    #[must_use]
    pub fn solve(&self, b: &[f64]) -> Vec<f64> {
        let n = self.rows;
        assert!(self.cols == n && b.len() == n, "a solve needs a square matrix and a fitting right side");
        let mut a = self.clone();
        let mut x = b.to_vec();
        for k in 0..n {
            let pivot = (k..n).max_by(|p, q| a.at(*p, k).abs().total_cmp(&a.at(*q, k).abs())).unwrap_or(k);
            assert!(a.at(pivot, k) != 0.0, "the matrix is singular");
            for j in 0..n {
                a.data.swap(k * n + j, pivot * n + j);
            }
            x.swap(k, pivot);
            for i in k + 1..n {
                let factor = a.at(i, k) / a.at(k, k);
                for j in k..n {
                    a.set(i, j, a.at(i, j) - factor * a.at(k, j));
                }
                x[i] -= factor * x[k];
            }
        }
        for k in (0..n).rev() {
            let known: f64 = (k + 1..n).map(|j| a.at(k, j) * x[j]).sum();
            x[k] = (x[k] - known) / a.at(k, k);
        }
        x
    }
    /// Largest `|a_ij - b_ij|`; infinite when an element is NaN.
    ///
    /// # Panics
    /// When the shapes differ.
    #[must_use]
    pub fn max_difference(&self, other: &Self) -> f64 {
        assert_eq!((self.rows, self.cols), (other.rows, other.cols), "shapes differ");
        let worst = |m: f64, d: f64| if d.is_nan() { f64::INFINITY } else { m.max(d) };
        self.data.iter().zip(&other.data).map(|(a, b)| (a - b).abs()).fold(0.0, worst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_an_operator_and_solves() {
        // Needs a pivot: the first diagonal element is zero.
        let a = Dense::from_fn(3, 3, |i, j| [[0.0, 2.0, 1.0], [3.0, -1.0, 0.5], [1.0, 1.0, 1.0]][i][j]);
        assert_eq!(Dense::of_operator(3, 3, |v, out| a.mul_into(v, out)), a);
        let x = [0.5, -2.0, 7.0];
        let solved = a.solve(&a.mul(&x));
        assert!(x.iter().zip(&solved).all(|(x, y)| (x - y).abs() < 1e-13), "{solved:?}");
    }

    #[test]
    fn random_spd_is_symmetric_with_positive_curvature() {
        let a = Dense::random_spd(6, 0.1, 9);
        assert!(a.max_difference(&a.transpose()) < 1e-15);
        let shifted = Dense::random_spd(6, 5.1, 9);
        let five = Dense::from_fn(6, 6, |i, j| a.at(i, j) + if i == j { 5.0 } else { 0.0 });
        assert!(shifted.max_difference(&five) < 1e-14);
        for seed in 0..20 {
            let v = crate::random_vector(seed, 6);
            let (vv, vav): (f64, f64) =
                v.iter().zip(a.mul(&v)).fold((0.0, 0.0), |(vv, vav), (x, y)| (vv + x * x, vav + x * y));
            assert!(vav >= 0.1 * vv);
        }
    }
}
