//! The kinds of measurement that come with pgrad, one file each. How to add one:
//! [`Measurement`](crate::Measurement).

mod corridor;
mod flow;
mod grid;
mod kakade;
mod normalised;
mod race;
mod variance;

use crate::Kind;

/// All kinds, by name.
pub static KINDS: &[Kind] = &[
    Kind::of::<corridor::Corridor>("short-corridor"),
    Kind::of::<grid::Grid>("grid"),
    Kind::of::<kakade::Kakade>("kakade"),
    Kind::of::<normalised::Normalised>("normalised"),
    Kind::of::<race::Race>("race"),
    Kind::of::<variance::Variance>("variance"),
];
