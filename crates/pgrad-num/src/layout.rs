//! Samples as columns, which are computed on, and as rows, which are gathered.

use crate::Cols;

/// `[dim x n]`, batch contiguous, to a row of `dim` for each of `n` samples.
pub fn transpose<T: Copy>(columns: &[T], rows: &mut [T], n: usize) {
    if n == 1 {
        return rows.copy_from_slice(columns);
    }
    let dim = columns.len() / n;
    for (i, row) in rows.chunks_exact_mut(dim.max(1)).enumerate() {
        for (d, x) in row.iter_mut().enumerate() {
            *x = columns[d * n + i];
        }
    }
}

/// A row for each of `n` samples to `[dim x n]`, batch contiguous.
pub fn rows_to_columns<T: Copy>(rows: &[T], columns: &mut [T], n: usize) {
    let dim = rows.len() / n.max(1);
    for (i, row) in rows.chunks_exact(dim.max(1)).enumerate() {
        for (d, x) in row.iter().enumerate() {
            columns[d * n + i] = *x;
        }
    }
}

/// The rows `from..from + n` as columns `[dim x n]`, in a buffer that has room for `room` of them.
pub fn row_columns<'a, T: Copy>(
    rows: &[T],
    to: &'a mut [T],
    room: usize,
    from: usize,
    n: usize,
) -> Cols<'a, T> {
    let dim = to.len() / room;
    let to = &mut to[..dim * n];
    rows_to_columns(&rows[from * dim..(from + n) * dim], to, n);
    Cols::new(to, dim, n)
}
