//! Step rules: what to do with a gradient.
//!
//! - [`Adam`] and [`RmsProp`] ([`StepRule`]), and [`clip_global_norm`] before them;
//! - [`Hogwild`]: RMSProp and momentum for parameters that threads share without locks;
//! - [`Kfac`]: natural directions by Kronecker-factored curvature;
//! - [`Schedule`]: how a setting changes over a run;
//! - [`Local`], [`LocalMetric`], [`LocalTrial`]: what a step rule may ask of the problem it climbs. A rule
//!   asks only for what it needs: a gradient, a metric as well, or trial evaluations too.
//!
//! **Must never know:** networks, environments.

mod adam;
mod clip;
mod hogwild;
mod kfac;
mod local;
mod parts;
mod rms_prop;
mod schedule;

pub use adam::{Adam, AdamParams};
pub use clip::{clip_global_norm, clip_scale};
pub use hogwild::{Hogwild, HogwildRule};
pub use kfac::{Kfac, KfacParams, KroneckerBlock};
pub use local::{Local, LocalMetric, LocalTrial, Trial};
pub use parts::{Part, RunParts, StepRule};
pub use rms_prop::{RmsProp, RmsPropForm, RmsPropParams};
pub use schedule::Schedule;
