//! Returns, surrogates and action distributions: pure functions on slices.
//!
//! - [`dist`]: action distributions over a batch of network outputs, in closed form: log-probability,
//!   entropy, KL divergence, their gradients, the Fisher matrix times a vector, sampling;
//! - [`surrogate`]: scalar objectives of `(log π, log π_old, Ψ)` and value losses, each with its derivative;
//! - [`returns`]: Ψ from rewards and values: returns, n-step, λ-returns, GAE, V-trace.
//!
//! Nothing here allocates, and every loop runs over the batch. `f32` in production, `f64` in gradient
//! tests.
//!
//! **Must never know:** networks, environments, files, clocks.

pub mod dist;
pub mod returns;
pub mod surrogate;
