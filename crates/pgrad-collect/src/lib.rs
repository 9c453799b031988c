//! What is gathered: a policy acts in environments, and what came of it is stored.
//!
//! - [`Collector`]: steps of `N` environments ([`Collector::steps`]), complete episodes
//!   ([`Collector::episodes`]) or a vine of short ones ([`Collector::vine`]), in shards that the
//!   configuration alone decides;
//! - [`Stepper`]: one step of `N` environments at a time;
//! - [`Candidates`]: whole episodes of many policies;
//! - [`Turns`]: actor-learners on threads of their own take turns, and the turns can be replayed.
//!
//! **Must never know:** files, clocks, concrete environments, algorithms, how gradients are computed.

mod candidates;
mod collector;
mod episodes;
mod shard;
mod stepper;
mod turns;
mod vine;

pub use candidates::Candidates;
pub use collector::{Collector, Normalizers, RolloutShape};
pub use episodes::EpisodesShape;
pub use stepper::Stepper;
pub use turns::Turns;
pub use vine::{Branch, VineActions, VineShape};
