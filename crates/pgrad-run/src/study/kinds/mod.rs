//! The kinds of measurement that come with pgrad, one file each. How to add one: [`super::measurement`].

mod corridor;
mod variance;

use super::measurement::Kind;

/// All kinds, by name.
pub static KINDS: &[Kind] =
    &[Kind::of::<corridor::Corridor>("short-corridor"), Kind::of::<variance::Variance>("variance")];
