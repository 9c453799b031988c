//! Pictures: [`plot`] draws learning curves, lines and heat maps, [`video`] films a policy at work.
//!
//! **Must never know:** terminals, studies.

pub mod plot;
pub mod video;
