//! One file per algorithm.
//!
//! An algorithm is a page that calls the vocabulary of the lower floors in the order of its paper. It is
//! found by name in [`REGISTRY`]; adding one is one file and one line there.
//!
//! **Must never know:** concrete environments, files, clocks.

mod actor_critic;
mod algorithm;
mod asynchronous;
mod common;
mod memory;
mod natural;
mod off_policy;
mod online;
mod prelude;
mod shell;
mod state;
mod vine;

pub use algorithm::{
    AlgoConfig, AlgoEntry, Algorithm, BuildError, Groups, Phase, PhaseObserver, Report, Reproducible, Setup,
};
pub use asynchronous::{AsyncOptimizer, AsyncSettings, AsyncValueSettings, EpsilonDraw, QNetworkSettings};
pub use common::{
    Activation, EpisodeSettings, ModelSettings, NormalizeSettings, Recurrent, RecurrentSettings,
    RescaleActions, RolloutSettings, Schedule, Trunk, TrunkSettings, default_shard,
};
pub use memory::{Need, Needs};
pub use natural::{BatchSettings, CriticSettings, NaturalSettings};
pub use off_policy::{BehaviourKind, BehaviourSettings, FeatureSettings};
pub use online::OnlineSettings;
pub use shell::{Agent, Method, Source};
pub use vine::{TrpoBatch, TrpoCritic, TrpoNatural, VineSettings};

/// Declares the modules of the methods, and the registry: `module: Config,` for each method. A second method
/// of a module has it in parentheses.
macro_rules! methods {
    ($($($module:ident)? $(($other:ident))?: $config:ident,)+) => {
        $($(pub mod $module;)?)+
        $(pub use $($module)? $($other)?::$config;)+

        /// All algorithms.
        pub static REGISTRY: &[AlgoEntry] = &[$($config::ENTRY),+];
    };
}

methods! {
    a2c: A2cConfig,
    a3c: A3cConfig,
    acktr: AcktrConfig,
    async_nstep_q: AsyncNstepQConfig,
    async_q: AsyncQConfig,
    (async_q): AsyncSarsaConfig,
    cem: CemConfig,
    gq: GreedyGqConfig,
    nac: NacConfig,
    npg: NpgConfig,
    off_pac: OffPacConfig,
    ppo: PpoConfig,
    q_lambda: QLambdaConfig,
    qac: QacConfig,
    reinforce: ReinforceConfig,
    (gq): SoftmaxGqConfig,
    td_ac: TdAcConfig,
    trpo: TrpoConfig,
}

/// The algorithm called `name`.
#[must_use]
pub fn find(name: &str) -> Option<&'static AlgoEntry> {
    REGISTRY.iter().find(|e| e.name == name)
}
