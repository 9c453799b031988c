//! Linear operators that are applied, never formed.

use crate::Real;

/// A square linear operator.
pub trait LinOp<R: Real> {
    /// Number of rows and columns.
    fn dim(&self) -> usize;
    /// `out = A v`.
    fn apply(&mut self, v: &[R], out: &mut [R]);
}
