//! The agent: everything between the mathematics and the algorithms.
//!
//! - [`ActorCritic`]: policy = network × distribution, critic beside it or on the same trunk, one flat `θ`;
//! - [`Collector`]: steps of `N` environments ([`Collector::steps`]), complete episodes ([`Collector::episodes`]) or
//!   a vine of short ones ([`Collector::vine`]), collected by a team of threads into a [`Batch`];
//!   [`bootstrap`] is the one place that turns endings into bootstrap values;
//! - [`Stepper`], [`Traces`], [`PointGradients`]: one step of `N` environments at a time, and what methods need
//!   that learn at every step;
//! - [`Segment`], [`SegmentPasses`], [`Turns`]: what actor-learners on threads of their own need;
//! - [`Engine`]: values, estimates, and the gradient of an [`Objective`] over a minibatch, in fixed chunks of 64 columns, or of 32 sequences where the
//!   networks are recurrent ([`Recurrence`]);
//! - [`Minibatches`]: which samples or sequences make a minibatch;
//! - [`ObsNormalizer`], [`RewardNormalizer`]: running normalisation with `f64` moments;
//! - [`Policy`]: a trained policy, which loads from bytes and acts;
//! - [`PolicyMetric`]: the Fisher matrix of a policy, `Jᵀ F_out J`, applied and never formed;
//!   [`LocalPolicy`]: gradient, Fisher matrix and trials of the policy over all samples of a batch;
//! - [`Curvature`]: its Kronecker factors, layer by layer, with the critic's beside them.
//!
//! **Must never know:** files, clocks, concrete environments, algorithms.

mod act;
pub mod batch;
pub mod bootstrap;
mod candidates;
mod card;
mod collector;
mod cpu;
mod curvature;
mod engine;
mod episodes;
mod error;
mod fisher;
mod gradient;
mod lanes;
mod local;
mod memory;
mod minibatch;
mod model;
mod normalize;
mod objective;
mod point;
mod policy;
mod segment;
mod shard;
mod states;
mod stepper;
pub mod tensors;
mod traces;
mod turns;
mod values;
mod vine;

pub use batch::{Batch, Estimated, Paths, Store, Valued};
pub use candidates::Candidates;
pub use collector::{Collector, Normalizers, RolloutShape};
pub use cpu::Cpu;
pub use curvature::Curvature;
pub use engine::{Engine, Losses};
pub use episodes::EpisodesShape;
pub use error::AgentError;
pub use fisher::PolicyMetric;
pub use local::{Fisher, LocalPolicy};
pub use minibatch::{Minibatch, Minibatches};
pub use model::{ActorCritic, Critic, ModelShape, Part, Recurrence, Role, Trunk};
pub use normalize::{ObsNormalizer, RewardNormalizer};
pub use objective::{LossSums, Objective, PolicyChunk, PolicyTerm, ValueChunk, ValueTerm};
pub use point::PointGradients;
pub use policy::{ActionValue, Policy, PolicyError};
pub use segment::{Segment, SegmentOutputs, SegmentPasses};
pub use states::States;
pub use stepper::{Stepper, Transition};
pub use traces::Traces;
pub use turns::Turns;
pub use vine::{Branch, VineActions, VineShape};

/// Samples that pass through a network together. A layer of 64 units and its input then stay in the cache
/// (larger batches are slower per sample), and sums over a batch are made of the same partial sums whatever
/// the number of threads.
pub const CHUNK: usize = 64;
