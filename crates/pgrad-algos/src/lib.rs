//! One file per algorithm.
//!
//! An algorithm is a page that calls the vocabulary of the lower floors in the order of its paper. It is
//! found by name in [`REGISTRY`]; adding one is one file and one line there.
//!
//! **Must never know:** concrete environments, files, clocks.

pub mod a2c;
pub mod a3c;
pub mod acktr;
mod algorithm;
pub mod async_nstep_q;
pub mod async_q;
mod asynchronous;
pub mod cem;
mod common;
pub mod gq;
pub mod nac;
mod natural;
pub mod npg;
pub mod off_pac;
mod off_policy;
mod online;
pub mod ppo;
pub mod q_lambda;
pub mod qac;
pub mod reinforce;
mod shell;
pub mod td_ac;
pub mod trpo;
mod vine;

pub use a2c::{A2cConfig, A2cRollout, A2cSettings};
pub use a3c::{A3cConfig, A3cSettings};
pub use acktr::{AcktrConfig, AcktrRollout, AcktrSettings};
pub use algorithm::{
    AlgoConfig, Algorithm, BuildError, Groups, Phase, PhaseObserver, Report, Reproducible, Setup,
};
pub use async_nstep_q::AsyncNstepQConfig;
pub use async_q::{AsyncQConfig, AsyncSarsaConfig};
pub use asynchronous::{AsyncOptimizer, AsyncSettings, AsyncValueSettings, EpsilonDraw, QNetworkSettings};
pub use cem::{CemConfig, CemSettings};
pub use common::{
    Activation, EpisodeSettings, ModelSettings, NormalizeSettings, Recurrent, RecurrentSettings,
    RolloutSettings, Schedule, Trunk, TrunkSettings, default_shard,
};
pub use gq::{GreedyGqConfig, GreedyGqSettings, SoftmaxGqConfig, SoftmaxGqSettings};
pub use nac::{NacConfig, NacSettings};
pub use natural::{BatchSettings, CriticSettings, NaturalSettings};
pub use npg::{NpgConfig, NpgSettings};
pub use off_pac::{OffPacConfig, OffPacSettings};
pub use off_policy::{BehaviourKind, BehaviourSettings, FeatureSettings};
pub use online::OnlineSettings;
pub use ppo::{PpoConfig, PpoSettings};
pub use q_lambda::{QLambdaConfig, QLambdaSettings};
pub use qac::{QacConfig, QacSettings};
pub use reinforce::{ReinforceConfig, ReinforceSettings};
pub use shell::{Agent, Method, Source};
pub use td_ac::{TdAcConfig, TdAcSettings};
pub use trpo::{TrpoConfig, TrpoSettings};
pub use vine::{TrpoBatch, TrpoCritic, TrpoNatural, VineSettings};

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
    a2c::ENTRY,
    a3c::ENTRY,
    acktr::ENTRY,
    async_nstep_q::ENTRY,
    async_q::ENTRY,
    async_q::SARSA,
    cem::ENTRY,
    gq::GREEDY,
    nac::ENTRY,
    npg::ENTRY,
    off_pac::ENTRY,
    ppo::ENTRY,
    q_lambda::ENTRY,
    qac::ENTRY,
    reinforce::ENTRY,
    gq::SOFTMAX,
    td_ac::ENTRY,
    trpo::ENTRY,
];

/// The algorithm called `name`.
#[must_use]
pub fn find(name: &str) -> Option<&'static AlgoEntry> {
    REGISTRY.iter().find(|e| e.name == name)
}
