//! The facade: one crate that re-exports what a user of the library needs.
