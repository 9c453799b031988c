//! What can go wrong in an environment.

use thiserror::Error;

/// Why an environment could not be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}{}", hint.as_ref().map_or_else(String::new, |h| format!("\n  hint: {h}")))]
pub struct MakeError {
    /// What kind of failure it is.
    pub kind: MakeErrorKind,
    /// What was expected and what came, with the environment's name.
    pub message: String,
    /// How to mend it.
    pub hint: Option<String>,
}

/// Who can mend an environment that could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MakeErrorKind {
    /// Who named or configured it: no such environment, a setting that it does not take, a package that is
    /// missing.
    Usage,
    /// Who wrote it: it fails, or is of a kind that cannot be used.
    Data,
    /// The machine: a file that cannot be read, a process that cannot be started.
    Io,
}

impl MakeError {
    /// An error without a hint.
    #[must_use]
    pub fn new(kind: MakeErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }
    /// The same with a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    /// Exit code of a command that ends with this error.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            MakeErrorKind::Usage => 64,
            MakeErrorKind::Data => 65,
            MakeErrorKind::Io => 74,
        }
    }
}

/// What an environment did that it must not do. `env` counts the environments of the run.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum EnvError {
    /// An observation that is not finite.
    #[error(
        "environment {env} (`{id}`), episode {episode}, step {step}: {component} of the observation is {value}"
    )]
    Observation {
        /// Name of the task.
        id: Box<str>,
        /// Environment.
        env: usize,
        /// Episode of that environment, from 0.
        episode: u64,
        /// Step of the episode; 0 is the reset.
        step: u32,
        /// Which number of the observation, by part and shape
        /// ([`ObsSpace::component`](crate::ObsSpace::component)).
        component: Box<str>,
        /// Its value.
        value: f32,
    },
    /// A reward that is not finite (in the single precision in which it is learnt from).
    #[error("environment {env} (`{id}`), episode {episode}, step {step}: the reward is {value}")]
    Reward {
        /// Name of the task.
        id: String,
        /// Environment.
        env: usize,
        /// Episode of that environment, from 0.
        episode: u64,
        /// Step of the episode.
        step: u32,
        /// The reward.
        value: f64,
    },
    /// An observation with a wrong number of numbers.
    #[error(
        "environment {env} (`{id}`), episode {episode}, step {step}: the observation has {got} numbers, its \
         space has {expected}"
    )]
    Shape {
        /// Name of the task.
        id: String,
        /// Environment.
        env: usize,
        /// Episode of that environment, from 0.
        episode: u64,
        /// Step of the episode; 0 is the reset.
        step: u32,
        /// Numbers of the observation space.
        expected: usize,
        /// Numbers written; 0 when nothing was written.
        got: usize,
    },
    /// An environment that failed, and what it gives cannot be used or had again.
    #[error("environment {env} (`{id}`), episode {episode}, step {step}: {reason}")]
    Failed {
        /// Name of the task.
        id: String,
        /// Environment.
        env: usize,
        /// Episode of that environment, from 0.
        episode: u64,
        /// Step of the episode; 0 is the reset.
        step: u32,
        /// What happened.
        reason: Box<str>,
    },
    /// A mask that forbids every alternative of a choice.
    #[error(
        "environment {env} (`{id}`), episode {episode}, step {step}: the action mask allows no alternative \
         of choice {choice}"
    )]
    Mask {
        /// Name of the task.
        id: String,
        /// Environment.
        env: usize,
        /// Episode of that environment, from 0.
        episode: u64,
        /// Step of the episode.
        step: u32,
        /// Which choice (0 for `Discrete`).
        choice: usize,
    },
    /// A state that was to be kept and cannot be.
    #[error("environment {env} (`{id}`) must return to an earlier state, but cannot save it")]
    NoState {
        /// Name of the task.
        id: String,
        /// Environment.
        env: usize,
    },
    /// A saved state that the environment refuses.
    #[error("environment {env} (`{id}`) rejects its own saved state")]
    State {
        /// Name of the task.
        id: String,
        /// Environment.
        env: usize,
    },
}
