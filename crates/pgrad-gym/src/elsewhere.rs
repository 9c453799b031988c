//! What stands in where the system is not Linux: nothing can be opened.

use crate::name::{News, check_name};
use crate::settings::GymSettings;
use pgrad_env::{BatchEnv, EnvSpec, MakeError, MakeErrorKind};

/// An environment of Gymnasium; on this system there is none.
#[derive(Debug)]
pub enum Gym {}

impl Gym {
    /// Says that there is none.
    ///
    /// # Errors
    /// Always.
    pub fn open(id: &str, _settings: &GymSettings) -> Result<Self, MakeError> {
        check_name(id)?;
        Err(MakeError::new(MakeErrorKind::Usage, format!("`{id}`: environments of Gymnasium need Linux")))
    }
    /// Says that there is none.
    ///
    /// # Errors
    /// Always.
    pub fn open_drawn(id: &str, settings: &GymSettings) -> Result<Self, MakeError> {
        Self::open(id, settings)
    }
    /// What it is.
    #[must_use]
    pub fn spec(&self) -> &EnvSpec {
        match *self {}
    }
    /// A batch of `n` copies.
    #[must_use]
    pub fn make(&self, _n: usize) -> Box<dyn BatchEnv> {
        match *self {}
    }
    /// The time limit that the environment has by itself.
    #[must_use]
    pub fn own_limit(&self) -> Option<u64> {
        match *self {}
    }
    /// What Python calls the source of its action masks.
    #[must_use]
    pub fn masks(&self) -> Option<&'static str> {
        match *self {}
    }
    /// Whether every episode has a seed of its own.
    #[must_use]
    pub fn seeds_episodes(&self) -> bool {
        match *self {}
    }
    /// Versions of Gymnasium, numpy and Python.
    #[must_use]
    pub fn versions(&self) -> &str {
        match *self {}
    }
    /// What there is to tell.
    #[must_use]
    pub fn news(&self) -> News {
        match *self {}
    }
}
