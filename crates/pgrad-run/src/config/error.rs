//! What is wrong with a configuration.

use crate::{env::EnvNameError, memory::TooLarge, storage::StorageError};
use pgrad_algos::BuildError;
use pgrad_env::MakeError;
use pgrad_settings::ConfigErrors;
use thiserror::Error;

/// A configuration that cannot be used, most often with exit code 64.
#[derive(Debug, Error)]
pub enum RunConfigError {
    /// No algorithm of that name.
    #[error("there is no algorithm `{name}`; there are {known}{}", hint(suggestion.as_deref()))]
    Algorithm {
        /// The name asked for.
        name: String,
        /// The names that there are.
        known: String,
        /// The name that was probably meant.
        suggestion: Option<String>,
    },
    /// No environment of that name.
    #[error(transparent)]
    Env(#[from] pgrad_envs::UnknownEnv),
    /// An environment that cannot be made.
    #[error(transparent)]
    Make(#[from] MakeError),
    /// Settings that are wrong.
    #[error(transparent)]
    Settings(#[from] ConfigErrors),
    /// Settings that do not fit together.
    #[error(transparent)]
    Build(BuildError),
    /// No preset of that name.
    #[error(
        "there is no preset `{name}` of {algo} for {env}; there are {known}\n  hint: `pgrad list presets`"
    )]
    Preset {
        /// The algorithm.
        algo: String,
        /// The environment.
        env: String,
        /// The name asked for.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// A file that a setting names cannot be read.
    #[error("`{key}`: {cause}")]
    File {
        /// The setting.
        key: &'static str,
        /// Why, with its path.
        cause: StorageError,
    },
    /// It does not fit into memory.
    #[error(transparent)]
    Memory(#[from] TooLarge),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}\n  hint: ask for fewer with --threads")]
    Threads(std::io::Error),
    /// A configuration file that names another algorithm or environment than the command.
    #[error("{origin} is for {key} `{theirs}`, but `{ours}` was asked for\n  hint: leave out one of the two")]
    Conflict {
        /// Where the other name stands.
        origin: String,
        /// `algo` or `env`.
        key: &'static str,
        /// Name in the file.
        theirs: String,
        /// Name asked for.
        ours: String,
    },
}

impl RunConfigError {
    /// Exit code of a command that ends with this error: 64, but what an environment's own failure gives.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Make(e) => e.exit_code(),
            Self::Threads(_) => 74,
            _ => 64,
        }
    }
}

impl From<BuildError> for RunConfigError {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Make(e) => Self::Make(e),
            other => Self::Build(other),
        }
    }
}

impl From<EnvNameError> for RunConfigError {
    fn from(error: EnvNameError) -> Self {
        match error {
            EnvNameError::Unknown(e) => Self::Env(e),
            EnvNameError::Make(e) => Self::Make(e),
        }
    }
}

fn hint(suggestion: Option<&str>) -> String {
    suggestion.map_or_else(String::new, |s| format!("\n  hint: did you mean `{s}`?"))
}
