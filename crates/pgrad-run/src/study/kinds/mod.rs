//! The kinds of measurement that come with pgrad, one file each. How to add one: [`super::measurement`].

use super::measurement::Kind;

/// All kinds, by name.
pub static KINDS: &[Kind] = &[];
