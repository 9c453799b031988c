//! Why a run ended before its time.

use super::changes::refusal;
use crate::{
    checkpoint::CheckpointError,
    config::{Change, RunConfigError},
    metrics::MetricsError,
    run_dir::RunDirError,
    storage::StorageError,
    tensors::TensorsError,
};
use pgrad_model::{AgentError, PolicyError};
use pgrad_num::RecordError;
use std::path::PathBuf;
use thiserror::Error;

/// The state's file in a checkpoint.
pub(super) const STATE: &str = "state.safetensors";
/// What a checkpoint says of the metrics, in a file of it.
pub(super) const MARK: &str = "metrics.json";

/// Why a run ended before its time. [`RunError::exit_code`] is what a command returns.
#[derive(Debug, Error)]
pub enum RunError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] RunConfigError),
    /// The folder cannot be used.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    /// Storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A checkpoint could not be saved or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The metrics of an earlier part of the run cannot be read.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// A checkpoint is whole, but does not fit this configuration.
    #[error("{path}: {cause}\n  hint: it was saved with other settings or by another version", path = path.display())]
    State {
        /// The checkpoint.
        path: PathBuf,
        /// What does not fit.
        cause: StateError,
    },
    /// Settings that results depend on were changed since a checkpoint was saved.
    #[error("{}", refusal(config, *step, changes))]
    Changed {
        /// The run's settings.
        config: PathBuf,
        /// Step of the checkpoint.
        step: u64,
        /// What was changed.
        changes: Vec<Change>,
    },
    /// An iteration could not be done.
    #[error("run `{run}`, after {steps} steps: {cause}\n  hint: {hint}", run = run.display())]
    Agent {
        /// Folder of the run.
        run: PathBuf,
        /// Environment steps done.
        steps: u64,
        /// What went wrong.
        cause: AgentError,
        /// What is safe, and what may help.
        hint: String,
    },
    /// The policy could not be written.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// What does not fit in a saved state.
#[derive(Debug, Error)]
pub enum StateError {
    /// The file cannot be read.
    #[error(transparent)]
    Tensors(#[from] TensorsError),
    /// An entry is missing or wrong.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The checkpoint lacks a file.
    #[error("it has no `{name}`")]
    Missing {
        /// The file.
        name: &'static str,
    },
}

impl RunError {
    /// 64 configuration, 65 input file or environment data, 70 learning diverged, 74 input or output
    /// failed, 75 try again.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(e) => e.exit_code(),
            Self::RunDir(e) => e.exit_code(),
            Self::Checkpoint(e) => e.exit_code(),
            Self::Metrics(e) => e.exit_code(),
            Self::Changed { .. } => 64,
            Self::State { .. } => 65,
            Self::Agent { cause, .. } if cause.is_divergence() || cause.is_panic() => 70,
            Self::Agent { .. } => 65,
            Self::Policy(_) => 70,
            Self::Storage(_) => 74,
        }
    }
}
