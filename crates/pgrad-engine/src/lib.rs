//! What is computed: from a [`Batch`] to values, estimates and the gradient of an [`Objective`].
//!
//! - [`Engine`]: values, estimates and gradients over a minibatch, in fixed chunks of 64 columns, or of 32
//!   sequences where the networks are recurrent; its one executor, the [`Cpu`], alone knows the team of
//!   threads;
//! - [`Batch`] → [`Valued`] → [`Estimated`]: the data of an iteration, and what becomes of them;
//!   [`bootstrap`] is the one place that turns endings into bootstrap values;
//! - [`Minibatches`]: which samples or sequences make a minibatch;
//! - [`PolicyMetric`]: the Fisher matrix of a policy, `Jᵀ F_out J`, applied and never formed;
//!   [`LocalPolicy`]: gradient, Fisher matrix and trials of the policy over all samples of a batch;
//!   [`Curvature`]: its Kronecker factors, layer by layer, with the critic's beside them;
//! - [`Transition`], [`Traces`], [`PointGradients`]: for methods that learn at every step;
//! - [`Segment`], [`SegmentPasses`]: for actor-learners on threads of their own.
//!
//! **Must never know:** environments at work, files, clocks, algorithms.

mod batch;
pub mod bootstrap;
mod cpu;
mod curvature;
mod engine;
mod fisher;
mod gather;
mod gradient;
mod lanes;
mod local;
mod memory;
mod minibatch;
mod objective;
mod point;
mod segment;
mod traces;
mod transition;
mod values;

pub use batch::{Batch, Branches, Estimated, Paths, Samples, Store, Valued, cuts};
pub use cpu::Cpu;
pub use curvature::Curvature;
pub use engine::{Engine, Losses};
pub use fisher::PolicyMetric;
pub use lanes::LANES;
pub use local::KEPT_BYTES;
pub use local::{Fisher, LocalPolicy};
pub use minibatch::{Minibatch, Minibatches};
pub use objective::{LossSums, Objective, PolicyChunk, PolicyTerm, ValueChunk, ValueTerm};
pub use point::PointGradients;
pub use segment::{Segment, SegmentOutputs, SegmentPasses};
pub use traces::Traces;
pub use transition::Transition;
