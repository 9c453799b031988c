//! The kinds of measurement that come with pgrad, one file each. How to add one: [`super::measurement`].

mod corridor;
mod flow;
mod grid;
mod kakade;
mod normalised;
mod race;
mod variance;

use super::measurement::Kind;

/// All kinds, by name.
pub static KINDS: &[Kind] = &[
    Kind::of::<corridor::Corridor>("short-corridor"),
    Kind::of::<grid::Grid>("grid"),
    Kind::of::<kakade::Kakade>("kakade"),
    Kind::of::<normalised::Normalised>("normalised"),
    Kind::of::<race::Race>("race"),
    Kind::of::<variance::Variance>("variance"),
];
