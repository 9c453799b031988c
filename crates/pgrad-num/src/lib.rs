//! The ground floor: numbers, and nothing that knows what they mean.
//!
//! - [`Real`]: the scalar type, `f32` in production and `f64` in gradient tests;
//! - [`Cols`], [`ColsMut`], [`Tb`], [`TbMut`]: views with a shape;
//! - [`transpose`], [`rows_to_columns`]: a row for each sample to a column for each, and back;
//! - [`kernels`]: SIMD `tanh`, `exp`, `ln` and reductions with a fixed order;
//! - [`trig`]: SIMD `sin` and `cos` in double precision;
//! - [`gemm`]: the matrix product;
//! - [`Stream`]: counter-based random streams with a position that can be saved;
//! - [`Moments`]: running mean and variance in `f64`;
//! - [`linop`], [`cg`], [`line_search`]: linear operators, conjugate gradient, backtracking;
//! - [`cholesky`]: factors of small matrices, for block-wise inverses;
//! - [`Team`]: a spinning team of threads for pieces of work of some 50 µs;
//! - [`SharedVec`], [`SharedCounter`]: numbers that threads read and write at once, without locks;
//! - [`Record`]: a bag of named arrays, the form in which every part saves its state.
//!
//! **Must never know:** any word of reinforcement learning, files, clocks.
//!
//! # Determinism
//! Every reduction uses a fixed number of virtual lanes, and every kernel does the same operations for
//! an element whatever the vector width, so results do not depend on the number of threads or on where
//! in a slice an element stands.

mod aligned;
pub mod cg;
pub mod cholesky;
pub mod gemm;
pub mod kernels;
mod layout;
pub mod line_search;
pub mod linop;
mod moments;
mod real;
mod record;
mod shared;
mod stay;
mod stream;
mod team;
pub mod trig;
mod view;

pub use aligned::Aligned;
pub use layout::{row_columns, rows_to_columns, transpose};
pub use moments::Moments;
pub use real::Real;
pub use record::{Array, Record, RecordError};
pub use shared::{SharedCounter, SharedVec};
pub use stream::{Stream, StreamPosition};
pub use team::Team;
pub use view::{Cols, ColsMut, Tb, TbMut};
