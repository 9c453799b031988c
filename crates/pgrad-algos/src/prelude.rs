//! What the files of methods call: one line of imports for all of them.

pub(crate) use crate::actor_critic::{Totals, actor_critic, actor_critic_needs};
pub(crate) use crate::algorithm::{AlgoConfig, Algorithm, BuildError, Groups, Phase, Report, Setup, config};
pub(crate) use crate::common::{
    EpisodeSettings, InitialState, ModelSettings, NormalizeSettings, Psi, RecurrentSettings, RolloutSettings,
    Rule, Schedule, TrunkSettings,
};
pub(crate) use crate::memory::{Needs, Sizes};
pub(crate) use crate::shell::{Agent, Method};
pub(crate) use crate::state::state;
pub(crate) use pgrad_collect::{Candidates, Collector};
pub(crate) use pgrad_engine::bootstrap::after_step;
pub(crate) use pgrad_engine::{
    Batch, Engine, Estimated, LocalPolicy, Minibatches, Objective, Paths, PolicyTerm, Traces, ValueTerm,
};
pub(crate) use pgrad_env::{BatchResult, EnvSpec, Space};
pub(crate) use pgrad_math::returns;
pub(crate) use pgrad_model::{ActorCritic, AgentError, Critic, Role, Trunk};
pub(crate) use pgrad_num::line_search::{BacktrackParams, Trial as Try, backtrack};
pub(crate) use pgrad_num::linop::{Damped, FnOp};
pub(crate) use pgrad_num::{Stream, cg, kernels};
pub(crate) use pgrad_optim::{
    Adam, AdamParams, Local, LocalMetric, LocalTrial, RmsProp, RmsPropParams, Trial,
};
pub(crate) use pgrad_settings::{above, choice, settings, settings_like};
