//! The one place that says in what order samples are taken and partial sums added.
//!
//! Chunk `c` of a batch goes to lane `c mod LANES`; a lane adds its chunks up one after the other, and the
//! lanes are added in their order. Which thread takes a lane makes no difference.

use pgrad_num::kernels;

/// Partial sums of a batch, at most.
pub const LANES: usize = 8;

/// The chunks of `lane`, of `chunks` in all.
pub(crate) fn chunks_of(lane: usize, chunks: usize) -> impl Iterator<Item = usize> {
    (lane..chunks).step_by(LANES)
}

/// Writes the sum of the lanes; 0 where there is none.
pub(crate) fn add_up<'l>(mut lanes: impl Iterator<Item = &'l [f32]>, sum: &mut [f32]) {
    match lanes.next() {
        Some(first) => sum.copy_from_slice(first),
        None => sum.fill(0.0),
    }
    lanes.for_each(|lane| kernels::axpy(1.0, lane, sum));
}

/// Element `i` of `0, k, 2k, ..., 1, k + 1, ..., k - 1, ...`, the numbers below `n`: every `k`-th comes
/// first.
pub(crate) fn strided(i: usize, n: usize, k: usize) -> usize {
    // The first `n mod k` remainders have one number more than the others.
    let (each, longer) = (n / k, n % k);
    let border = longer * (each + 1);
    if i < border {
        i % (each + 1) * k + i / (each + 1)
    } else {
        (i - border) % each * k + longer + (i - border) / each
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kth_number_comes_first_and_none_is_missing() {
        for n in [1, 2, 5, 12, 13, 100] {
            for k in [1, 2, 3, 7, 12, 13, 200] {
                let order: Vec<usize> = (0..n).map(|i| strided(i, n, k)).collect();
                let first: Vec<usize> = (0..n).step_by(k).collect();
                assert_eq!(order[..first.len()], first, "n {n}, k {k}");
                let mut sorted = order.clone();
                sorted.sort_unstable();
                assert_eq!(sorted, (0..n).collect::<Vec<_>>(), "n {n}, k {k}");
            }
        }
    }
}
