//! What is kept: the agent's parameters, what it looks through, and how it acts.
//!
//! - [`ActorCritic`]: policy = network × distribution, critic beside it or on the same trunk, one flat `θ`;
//! - [`ObsNormalizer`], [`RewardNormalizer`]: running normalisation with `f64` moments;
//! - [`Actor`]: the one act loop, in training, evaluation and finished policies;
//! - [`States`]: what recurrent networks remember before each sequence of a batch;
//! - [`Policy`]: a trained policy, which loads from bytes and acts.
//!
//! **Must never know:** files, clocks, threads, concrete environments, how anything is learnt.

mod act;
mod card;
mod error;
mod model;
mod normalize;
mod policy;
mod scale;
mod states;
pub mod tensors;

pub use act::{Actor, action_rows, mask_rows};
pub use error::AgentError;
pub use model::{ActorCritic, ChunkShape, Critic, ModelShape, Part, Recurrence, Role, Trunk};
pub use normalize::{ObsNormalizer, RewardNormalizer, mark_lost};
pub use policy::{ActionValue, Policy, PolicyError};
pub use scale::{Bounded, Clipping, NEAR, Rescale, action_bounds};
pub use states::{States, forget, load_state};

/// Samples that pass through a network together. A layer of 64 units and its input then stay in the cache
/// (larger batches are slower per sample), and sums over a batch are made of the same partial sums whatever
/// the number of threads.
pub const CHUNK: usize = 64;
