//! Oracles for tests: finite differences, the adjoint law, dense matrices, a counter of allocations, a
//! Python.
//!
//! The oracles know nothing but closures over `&[f64]`, and the crate depends on nothing, so that what it
//! checks cannot leak into how it checks.
//!
//! - [`finite_difference_gradient`], [`finite_difference_jvp`], [`check_gradient`], [`assert_gradient`];
//! - [`adjoint_law`], [`assert_adjoint`]: `<u, J v> = <Jᵀ u, v>`;
//! - [`Dense`]: a small matrix, read off an operator column by column, with products and solves;
//! - [`SplitMix`], [`random_vector`]: numbers that are the same everywhere and for ever;
//! - [`python`]: the Python of tests that need one;
//! - [`CountingAllocator`], [`assert_allocates_nothing`].

mod adjoint;
mod allocator;
mod dense;
mod gradient;
mod python;
mod random;

pub use adjoint::{AdjointCheck, adjoint_law, assert_adjoint};
pub use allocator::{
    CountingAllocator, allocations, allocations_during, allocations_of_all_threads, assert_allocates_nothing,
    most_bytes_during,
};
pub use dense::Dense;
pub use gradient::{
    GradientCheck, assert_gradient, check_gradient, finite_difference_gradient, finite_difference_jvp,
};
pub use python::python;
#[cfg(unix)]
pub use python::python_with;
pub use random::{SplitMix, random_vector};
