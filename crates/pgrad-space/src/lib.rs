//! Spaces: what observations and actions look like.
//!
//! - [`Space`], [`BoxSpace`]: one space, with shape, number type and bounds;
//! - [`Dtype`]: the type of its numbers where they come from;
//! - [`ObsSpace`], [`Part`]: the space of observations, parts with names; a plain space is one part without.
//!
//! Numbers are learnt from in single precision, one after the other (row-major, part after part). What they
//! were before, and how they hang together, is said here. Spaces are written as Gymnasium writes them:
//! `Box(0, 255, (84, 84, 4), uint8)`.
//!
//! **Must never know:** environments, learning, files.

mod dtype;
mod observation;
mod space;

pub use dtype::Dtype;
pub use observation::{ObsSpace, Outside, Part};
pub use space::{BoxSpace, Space};
