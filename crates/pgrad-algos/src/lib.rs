//! One file per algorithm.
//!
//! An algorithm is a page that calls the vocabulary of the lower floors in the order of its paper. It is
//! found by name in [`REGISTRY`]; adding one is one file and one line there.
//!
//! **Must never know:** concrete environments, files, clocks.

pub mod acktr;
mod algorithm;
mod common;
mod natural;
pub mod npg;
pub mod ppo;
pub mod reinforce;
pub mod trpo;

pub use acktr::{Acktr, AcktrConfig, AcktrSettings};
pub use algorithm::{AlgoConfig, Algorithm, BuildError, Phase, PhaseObserver, Report, Setup};
pub use common::{EpisodeSettings, ModelSettings, NormalizeSettings, RolloutSettings, TrunkSettings};
pub use natural::{CriticSettings, NaturalSettings};
pub use npg::{Npg, NpgConfig, NpgSettings};
pub use ppo::{Ppo, PpoConfig, PpoSettings};
pub use reinforce::{Reinforce, ReinforceConfig, ReinforceSettings};
pub use trpo::{Trpo, TrpoConfig, TrpoSettings};

/// An algorithm of the registry.
#[derive(Clone, Copy, Debug)]
pub struct AlgoEntry {
    /// Name on the command line.
    pub name: &'static str,
    /// What it is, in a line.
    pub title: &'static str,
    /// Where it was published.
    pub source: &'static str,
    /// Its settings at their defaults.
    pub config: fn() -> Box<dyn AlgoConfig>,
}

/// All algorithms.
pub static REGISTRY: &[AlgoEntry] = &[acktr::ENTRY, npg::ENTRY, ppo::ENTRY, reinforce::ENTRY, trpo::ENTRY];

/// The algorithm called `name`.
#[must_use]
pub fn find(name: &str) -> Option<&'static AlgoEntry> {
    REGISTRY.iter().find(|e| e.name == name)
}
