//! Initial parameters.

use pgrad_num::Stream;

/// A `[rows x cols]` matrix with orthonormal rows or columns (whichever are fewer), times `gain`.
///
/// Saxe, McClelland and Ganguli 2014 (arXiv:1312.6120): such layers keep the norm of what passes through.
/// Gaussian vectors are made orthonormal by Gram and Schmidt's process, done twice for accuracy.
#[must_use]
pub fn orthogonal(rows: usize, cols: usize, gain: f64, rng: &mut Stream) -> Vec<f64> {
    let (count, len) = (rows.min(cols), rows.max(cols));
    let mut basis: Vec<Vec<f64>> = Vec::with_capacity(count);
    while basis.len() < count {
        let mut v: Vec<f64> = (0..len).map(|_| rng.normal()).collect();
        for _ in 0..2 {
            for b in &basis {
                let along: f64 = v.iter().zip(b).map(|(x, y)| x * y).sum();
                for (x, y) in v.iter_mut().zip(b) {
                    *x -= along * y;
                }
            }
        }
        let norm = v.iter().map(|x| x * x).sum::<f64>().sqrt();
        if norm > 1e-6 {
            v.iter_mut().for_each(|x| *x /= norm);
            basis.push(v);
        }
    }
    (0..rows * cols)
        .map(|i| {
            let (r, c) = (i / cols, i % cols);
            gain * if rows <= cols { basis[r][c] } else { basis[c][r] }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_or_columns_are_orthogonal_with_norm_gain() {
        for (rows, cols) in [(3, 3), (2, 5), (64, 4), (64, 64), (1, 64)] {
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
                    assert!((dot - expected).abs() < 1e-12, "{rows} x {cols}: {dot}");
                }
            }
        }
    }
}
