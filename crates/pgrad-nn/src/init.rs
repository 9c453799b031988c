//! Initial parameters.

use pgrad_num::Stream;
use pgrad_num::gemm::{Mat, Write, matmul};

/// More vectors than this are made orthonormal block by block: one by one, 4096 would take minutes.
const ONE_BY_ONE: usize = 512;
/// Vectors of a block.
const BLOCK: usize = 32;

/// A `[rows x cols]` matrix with orthonormal rows or columns (whichever are fewer), times `gain`.
///
/// Saxe, McClelland and Ganguli 2014 (arXiv:1312.6120): such layers keep the norm of what passes through.
/// Gaussian vectors are made orthonormal by Gram and Schmidt's process, done twice for accuracy; above 512
/// vectors in blocks, by products in single precision.
#[must_use]
pub fn orthogonal(rows: usize, cols: usize, gain: f64, rng: &mut Stream) -> Vec<f64> {
    let (count, len) = (rows.min(cols), rows.max(cols));
    if count > ONE_BY_ONE {
        let basis = in_blocks(count, len, rng);
        return arranged(rows, cols, |i, j| gain * f64::from(basis[i * len + j]));
    }
    let mut basis: Vec<Vec<f64>> = Vec::with_capacity(count);
    while basis.len() < count {
        let v = (0..len).map(|_| rng.normal()).collect();
        push_orthonormal(&mut basis, v);
    }
    arranged(rows, cols, |i, j| gain * basis[i][j])
}

/// The matrix whose rows or columns, whichever are fewer, are vectors: number `j` of vector `i` is
/// `at(i, j)`.
fn arranged(rows: usize, cols: usize, at: impl Fn(usize, usize) -> f64) -> Vec<f64> {
    let at = |(r, c)| if rows <= cols { at(r, c) } else { at(c, r) };
    (0..rows * cols).map(|i| at((i / cols, i % cols))).collect()
}

/// Adds what of `v` is orthogonal to all vectors of `basis`, with length 1; nothing, and false, where nothing
/// is.
fn push_orthonormal(basis: &mut Vec<Vec<f64>>, mut v: Vec<f64>) -> bool {
    for _ in 0..2 {
        for b in &*basis {
            let along: f64 = v.iter().zip(b).map(|(x, y)| x * y).sum();
            for (x, y) in v.iter_mut().zip(b) {
                *x -= along * y;
            }
        }
    }
    let norm = v.iter().map(|x| x * x).sum::<f64>().sqrt();
    let is_long = norm > 1e-6;
    if is_long {
        v.iter_mut().for_each(|x| *x /= norm);
        basis.push(v);
    }
    is_long
}

/// `count` orthonormal vectors of `len` numbers, one after the other.
fn in_blocks(count: usize, len: usize, rng: &mut Stream) -> Vec<f32> {
    let mut basis: Vec<f32> = Vec::with_capacity(count * len);
    while basis.len() < count * len {
        let done = basis.len() / len;
        let n = BLOCK.min(count - done);
        let mut block: Vec<f32> = (0..n * len).map(|_| rng.normal() as f32).collect();
        // The second time, what rounding has left of the others is removed.
        let whole = (0..2).all(|_| {
            if done > 0 {
                let others = Mat::new(&basis, done, len);
                let mut along = vec![0.0; n * done];
                matmul(&mut along, Write::Replace, Mat::new(&block, n, len), others.t());
                along.iter_mut().for_each(|x| *x = -*x);
                matmul(&mut block, Write::Add, Mat::new(&along, n, done), others);
            }
            let mut own = Vec::with_capacity(n);
            let mut vectors = block.chunks_exact(len).map(|v| v.iter().map(|x| f64::from(*x)).collect());
            let whole = vectors.all(|v| push_orthonormal(&mut own, v));
            block.clear();
            block.extend(own.iter().flatten().map(|x| *x as f32));
            whole
        });
        if whole {
            basis.append(&mut block);
        }
    }
    basis
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_or_columns_are_orthogonal_with_norm_gain() {
        for (rows, cols, tolerance) in [
            (3, 3, 1e-12),
            (2, 5, 1e-12),
            (64, 4, 1e-12),
            (64, 64, 1e-12),
            (1, 64, 1e-12),
            (512, 512, 1e-12),
            // In blocks, the last of which is not full.
            (530, 530, 2e-6),
            (520, 600, 2e-6),
            (600, 530, 2e-6),
        ] {
            let w = orthogonal(rows, cols, 1.5, &mut Stream::new(3, 0, 0));
            let at = |r: usize, c: usize| w[r * cols + c];
            for i in 0..rows.min(cols) {
                for j in 0..=i {
                    let dot: f64 = if rows <= cols {
                        (0..cols).map(|c| at(i, c) * at(j, c)).sum()
                    } else {
                        (0..rows).map(|r| at(r, i) * at(r, j)).sum()
                    };
                    let expected = if i == j { 2.25 } else { 0.0 };
                    assert!((dot - expected).abs() < tolerance, "{rows} x {cols}: {dot}");
                }
            }
        }
    }
}
