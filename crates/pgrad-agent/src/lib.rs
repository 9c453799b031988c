//! The agent: everything between the mathematics and the algorithms.
//!
//! - [`ActorCritic`]: policy = network × distribution, critic beside it or on the same trunk, one flat `θ`;
//! - [`Rollout`]: `T` steps of `N` environments under one policy, or whole episodes
//!   ([`Rollout::whole_episodes`]), or a vine of short ones ([`Rollout::vine`]), collected by a team of threads, and the values that belong to them;
//!   [`bootstrap`] is the one place that turns endings into bootstrap values;
//! - [`Stepper`], [`Traces`], [`PointGradients`]: one step of `N` environments at a time, and what methods need
//!   that learn at every step;
//! - [`Segment`], [`SegmentPasses`], [`Turns`]: what actor-learners on threads of their own need;
//! - [`Learner`]: the gradient of a loss over a minibatch, in fixed chunks of 64 columns, or of 32 sequences where the
//!   networks are recurrent ([`Recurrence`]);
//! - [`Minibatches`]: which samples or sequences make a minibatch;
//! - [`ObsNormalizer`], [`RewardNormalizer`]: running normalisation with `f64` moments;
//! - [`Policy`]: what is left when training is over: it loads from bytes and acts;
//! - [`PolicyMetric`]: the Fisher matrix of a policy, `Jᵀ F_out J`, applied and never formed;
//!   [`PolicyProblem`]: gradient, Fisher matrix and trials of the policy over all samples of a rollout;
//! - [`Curvature`]: its Kronecker factors, layer by layer, with the critic's beside them.
//!
//! **Must never know:** files, clocks, concrete environments, algorithms.

pub mod bootstrap;
mod candidates;
mod curvature;
mod error;
mod fisher;
mod hogwild;
mod learner;
mod local;
mod minibatch;
mod model;
mod normalize;
mod online;
mod policy;
mod rollout;
pub mod tensors;

pub use candidates::Candidates;
pub use curvature::Curvature;
pub use error::AgentError;
pub use fisher::PolicyMetric;
pub use hogwild::{Segment, SegmentOutputs, SegmentPasses, Turns};
pub use learner::{GradientPass, Learner, LossSums, PolicyChunk, ValueChunk};
pub use local::{Fisher, LocalPolicy, PolicyProblem};
pub use minibatch::Minibatches;
pub use model::{ActorCritic, Critic, ModelShape, Part, Recurrence, Trunk};
pub use normalize::{ObsNormalizer, RewardNormalizer};
pub use online::{PointGradients, Stepper, Traces, Transition};
pub use policy::{ActionValue, Policy, PolicyError};
pub use rollout::{Branch, EpisodesShape, Paths, Rollout, RolloutShape, VineActions, VineShape};

/// Samples that pass through a network together. A layer of 64 units and its input then stay in the cache
/// (larger batches are slower per sample), and sums over a batch are made of the same partial sums whatever
/// the number of threads.
pub const CHUNK: usize = 64;
