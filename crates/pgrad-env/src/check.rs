//! Finds what is wrong with an environment.

use crate::{BatchEnv, Env};

/// One thing that is wrong with an environment.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding;

/// Checks one environment made by `make`.
pub fn check_env<E: Env>(_make: impl Fn() -> E, _seed: u64) -> Vec<Finding> {
    Vec::new()
}

/// Checks a batch environment made by `make(n)`.
pub fn check_batch_env(_make: impl Fn(usize) -> Box<dyn BatchEnv>, _seed: u64) -> Vec<Finding> {
    Vec::new()
}
