//! Pictures: [`plot`] draws learning curves and other lines, [`heat_map`] a value for every pair of settings,
//! [`video`] films a policy at work.
//!
//! **Must never know:** terminals, studies.

pub mod heat_map;
mod pixels;
pub mod plot;
mod style;
pub mod video;
