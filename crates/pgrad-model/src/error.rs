//! What can stop an iteration.

use pgrad_env::EnvError;
use pgrad_num::cg::CgError;
use thiserror::Error;

/// Why an iteration could not be done. Parameters and normalisers are then as they were before it, or as
/// the last whole step left them.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum AgentError {
    /// An environment broke its contract.
    #[error(transparent)]
    Env(#[from] EnvError),
    /// A network output for one observation is not finite.
    #[error("environment {env}, episode {episode}, step {step}: output {index} of the {network} is {value}")]
    Output {
        /// `policy` or `critic`.
        network: &'static str,
        /// Environment.
        env: usize,
        /// Episode of that environment, from 0.
        episode: u64,
        /// Step of the episode.
        step: u32,
        /// Which output.
        index: usize,
        /// Its value.
        value: f32,
    },
    /// A number of an action that the policy drew is not finite: its standard deviation is too large.
    #[error(
        "environment {env}, episode {episode}, step {step}: component {index} of the drawn action is {value}"
    )]
    Action {
        /// Environment.
        env: usize,
        /// Episode of that environment, from 0.
        episode: u64,
        /// Step of the episode.
        step: u32,
        /// Which number of the action.
        index: usize,
        /// Its value.
        value: f32,
    },
    /// The value of a stored observation is not finite.
    #[error("rollout step {step}, environment {env}: the critic's value is {value}")]
    Value {
        /// Environment.
        env: usize,
        /// Step of the rollout, from 0.
        step: usize,
        /// The value.
        value: f32,
    },
    /// An advantage or a return is not finite.
    #[error("rollout step {step}, environment {env}: the {what} is {value}")]
    Estimate {
        /// `advantage`, `return` or `reward`.
        what: &'static str,
        /// Environment.
        env: usize,
        /// Step of the rollout, from 0.
        step: usize,
        /// Its value.
        value: f32,
    },
    /// Something that one step of an environment led to is not finite.
    #[error("environment {env}, episode {episode}, step {step}: the {what} is {value}")]
    Step {
        /// `value`, `TD error`, ...
        what: &'static str,
        /// Environment.
        env: usize,
        /// Episode of that environment, from 0.
        episode: u64,
        /// Step of the episode.
        step: u32,
        /// Its value.
        value: f32,
    },
    /// An update of a method that learns at every step is not finite.
    #[error("environment step {step}: the update of `{tensor}` at index {index} is {value}")]
    Update {
        /// Name of the parameter.
        tensor: String,
        /// Index in that parameter.
        index: usize,
        /// Environment steps of the run before it, over all environments.
        step: u64,
        /// Its value.
        value: f32,
    },
    /// An episode goes on and on, and only whole episodes can be learnt from.
    #[error(
        "environment {env}, episode {episode}: the episode has not ended after {steps} steps, but this \
         method learns from complete episodes only; give the task a time limit (max_episode_steps)"
    )]
    Endless {
        /// Environment.
        env: usize,
        /// Episode of that environment, from 0.
        episode: u64,
        /// Steps so far.
        steps: u32,
    },
    /// The episodes of a batch are too long together.
    #[error(
        "the episodes of the batch have {samples} steps in total, but at most {} are possible; use \
        fewer episodes",
        u32::MAX
    )]
    Batch {
        /// Steps of the batch.
        samples: usize,
    },
    /// A loss is not finite.
    #[error("epoch {epoch}, minibatch {minibatch}: the {what} is {value}")]
    Loss {
        /// Which part of the loss.
        what: &'static str,
        /// Epoch, from 0.
        epoch: usize,
        /// Minibatch of the epoch, from 0.
        minibatch: usize,
        /// Its value.
        value: f64,
    },
    /// A gradient is not finite.
    #[error("epoch {epoch}, minibatch {minibatch}: the gradient of `{tensor}` at index {index} is {value}")]
    Gradient {
        /// Name of the parameter.
        tensor: String,
        /// Index in that parameter.
        index: usize,
        /// Epoch, from 0.
        epoch: usize,
        /// Minibatch of the epoch, from 0.
        minibatch: usize,
        /// Its value.
        value: f32,
    },
    /// A natural direction `F⁻¹ g` cannot be computed.
    #[error("the natural gradient: {0}")]
    Natural(#[from] CgError),
    /// A step would make a parameter that is not finite.
    #[error("the step would make `{tensor}` at index {index} {value}; a smaller step size may help")]
    Parameter {
        /// Name of the parameter.
        tensor: String,
        /// Index in that parameter.
        index: usize,
        /// Its value.
        value: f32,
    },
    /// One of several actor-learners could not go on; the others were stopped.
    #[error("actor-learner {worker}: {cause}")]
    Worker {
        /// Which, from 0: its environment has the same number.
        worker: usize,
        /// Why.
        cause: Box<AgentError>,
    },
    /// An actor-learner panicked.
    #[error("environment {env}, episode {episode}, step {step}: the environment panicked: {message}")]
    Panic {
        /// Environment that it acts in.
        env: usize,
        /// Episode of that environment, from 0.
        episode: u64,
        /// Step of the episode.
        step: u32,
        /// What the panic said.
        message: String,
    },
    /// A recorded run cannot be followed any further.
    #[error("cannot replay the recording: at turn {turn} of {turns}, {reason}")]
    Replay {
        /// Turn that is next, from 0.
        turn: usize,
        /// Turns of the recording.
        turns: usize,
        /// Why.
        reason: &'static str,
    },
}

impl AgentError {
    /// Whether learning diverged, so that going back and taking a smaller step may help; broken environments
    /// stay broken.
    #[must_use]
    pub fn is_divergence(&self) -> bool {
        match self {
            Self::Worker { cause, .. } => cause.is_divergence(),
            Self::Env(_)
            | Self::Endless { .. }
            | Self::Batch { .. }
            | Self::Panic { .. }
            | Self::Replay { .. } => false,
            _ => true,
        }
    }
    /// Whether somebody's code panicked.
    #[must_use]
    pub fn is_panic(&self) -> bool {
        match self {
            Self::Worker { cause, .. } => cause.is_panic(),
            other => matches!(other, Self::Panic { .. }),
        }
    }
}
