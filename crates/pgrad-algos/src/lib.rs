//! One file per algorithm.
//!
//! An algorithm is a page that calls the vocabulary of the lower floors in the order of its paper. It is
//! found by name in [`REGISTRY`]; adding one is one file and one line there.
//!
//! **Must never know:** concrete environments, files, clocks.

pub mod acktr;
mod algorithm;
mod common;
pub mod nac;
mod natural;
pub mod npg;
mod online;
pub mod ppo;
pub mod qac;
pub mod reinforce;
pub mod td_ac;
pub mod trpo;

pub use acktr::{Acktr, AcktrConfig, AcktrSettings};
pub use algorithm::{AlgoConfig, Algorithm, BuildError, Phase, PhaseObserver, Report, Setup};
pub use common::{
    Activation, EpisodeSettings, ModelSettings, NormalizeSettings, RolloutSettings, Schedule, Trunk,
    TrunkSettings,
};
pub use nac::{Nac, NacConfig, NacSettings};
pub use natural::{CriticSettings, NaturalSettings};
pub use npg::{Npg, NpgConfig, NpgSettings};
pub use online::OnlineSettings;
pub use ppo::{Ppo, PpoConfig, PpoSettings};
pub use qac::{Qac, QacConfig, QacSettings};
pub use reinforce::{Reinforce, ReinforceConfig, ReinforceSettings};
pub use td_ac::{TdAc, TdAcConfig, TdAcSettings};
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
pub static REGISTRY: &[AlgoEntry] = &[
    acktr::ENTRY,
    nac::ENTRY,
    npg::ENTRY,
    ppo::ENTRY,
    qac::ENTRY,
    reinforce::ENTRY,
    td_ac::ENTRY,
    trpo::ENTRY,
];

/// The algorithm called `name`.
#[must_use]
pub fn find(name: &str) -> Option<&'static AlgoEntry> {
    REGISTRY.iter().find(|e| e.name == name)
}
