//! The one place that says in what order partial sums are added.
//!
//! Chunk `c` of a batch goes to lane `c mod LANES`; a lane adds its chunks up one after the other, and the lanes are
//! added in their order. Which thread takes a lane makes no difference.

use pgrad_num::kernels;

/// Partial sums of a batch, at most.
pub(crate) const LANES: usize = 8;

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
