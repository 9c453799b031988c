//! What the runner sees of an algorithm.

use crate::memory::Needs;
use pgrad_engine::Cpu;
use pgrad_env::{BatchResult, EnvSpec, Episode, MakeError};
use pgrad_model::{ActorCritic, AgentError, ObsNormalizer, Policy};
use pgrad_num::{Record, RecordError};
use pgrad_settings::Settings;
use std::fmt::Debug;
use thiserror::Error;

/// What an algorithm is built from, besides its settings.
pub struct Setup<'a> {
    /// What the environments are.
    pub spec: &'a EnvSpec,
    /// Makes a batch of `n` of them.
    pub make_env: &'a dyn Fn(usize) -> BatchResult,
    /// Seed of all random streams.
    pub seed: u64,
    /// Environment steps of the whole run: what schedules refer to.
    pub total_steps: u64,
    /// The threads that it works on: see [`AlgoConfig::threads`].
    pub cpu: Cpu,
}

impl Debug for Setup<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setup").field("seed", &self.seed).finish_non_exhaustive()
    }
}

/// Settings that do not fit together, or not with the environment.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BuildError {
    /// An environment could not be made.
    #[error(transparent)]
    Make(#[from] MakeError),
    /// Two settings contradict each other.
    #[error("`{key}` = {value} does not fit: {reason}")]
    Inconsistent {
        /// The setting to change.
        key: &'static str,
        /// Its value.
        value: String,
        /// Why, and what would fit.
        reason: String,
    },
    /// The environment is of a kind that the algorithm cannot learn.
    #[error("`{env}` does not fit: {reason}")]
    Environment {
        /// Name of the environment.
        env: String,
        /// Why.
        reason: String,
    },
}

/// The groups of settings that an algorithm has: what `config!` writes.
pub trait Groups {
    /// The groups of settings.
    fn parts(&self) -> Vec<&dyn Settings>;
    /// The groups of settings, to change.
    fn parts_mut(&mut self) -> Vec<&mut dyn Settings>;
    /// A copy.
    fn boxed_clone(&self) -> Box<dyn AlgoConfig>;
    /// A file that the settings ask for: the setting that names it, and its path. Who runs the algorithm
    /// reads it and hands it over by [`Groups::take_file`] before it checks or builds.
    fn file(&self) -> Option<(&'static str, &str)> {
        None
    }
    /// Takes the bytes of [`Groups::file`].
    fn take_file(&mut self, _bytes: &[u8]) {}
}

/// All settings of an algorithm.
pub trait AlgoConfig: Groups + Debug + Send + Sync {
    /// Threads of the team that runs it, where `asked` were asked for. An asynchronous method has as many as
    /// it has actor-learners: they are part of what it does.
    fn threads(&self, asked: usize) -> usize {
        asked
    }
    /// What it takes of memory in environments like `env`, on `threads` threads: see [`Needs`].
    ///
    /// # Errors
    /// When no network can be built for the environment.
    fn needs(&self, env: &EnvSpec, threads: usize) -> Result<Needs, BuildError>;
    /// Checks that the settings fit together and to the environment.
    ///
    /// # Errors
    /// The first contradiction.
    fn check(&self, _env: &EnvSpec) -> Result<(), BuildError> {
        Ok(())
    }
    /// Writes down the defaults that follow from other settings, which have been checked.
    fn resolve(&mut self) {}
    /// Checks what only a look at an environment can tell. One is made where there is such a thing.
    ///
    /// # Errors
    /// When the algorithm cannot learn in it, or it cannot be made.
    fn check_env(&self, _make: &dyn Fn(usize) -> BatchResult) -> Result<(), BuildError> {
        Ok(())
    }
    /// Puts the algorithm together, of settings that have been checked.
    ///
    /// # Errors
    /// When no network can be built for the environment, or no environment made.
    fn assemble(&self, setup: &Setup<'_>) -> Result<Box<dyn Algorithm>, BuildError>;
    /// Builds the algorithm; environments are made but not started.
    ///
    /// # Errors
    /// As [`AlgoConfig::check`], [`AlgoConfig::check_env`] and [`AlgoConfig::assemble`].
    fn build(&self, setup: &Setup<'_>) -> Result<Box<dyn Algorithm>, BuildError> {
        self.check(setup.spec)?;
        self.check_env(setup.make_env)?;
        self.assemble(setup)
    }
}

impl Clone for Box<dyn AlgoConfig> {
    fn clone(&self) -> Self {
        (**self).boxed_clone()
    }
}

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

/// Declares an algorithm: its entry in the registry, and all its settings, a struct of groups that are at
/// their defaults by `default()`. `with bytes of group` behind it adds a field for the bytes of the file that
/// the group's settings name.
macro_rules! config {
    (
        name: $algo:literal, title: $title:literal, source: $source:literal;
        $(#[$doc:meta])* pub struct $name:ident { $($group:ident: $settings:ty),* $(,)? }
        $(with $bytes:ident of $names:ident)?
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name {
            $(#[doc = concat!("[`", stringify!($settings), "`]")] pub $group: $settings,)*
            $(
                /// Bytes of the file that the settings name.
                pub $bytes: Option<Vec<u8>>,
            )?
        }

        impl $name {
            /// The registry's entry.
            pub const ENTRY: $crate::AlgoEntry = $crate::AlgoEntry {
                name: $algo,
                title: $title,
                source: $source,
                config: || Box::new(Self::default()),
            };
        }

        impl $crate::algorithm::Groups for $name {
            fn parts(&self) -> Vec<&dyn pgrad_settings::Settings> {
                vec![$(&self.$group),*]
            }
            fn parts_mut(&mut self) -> Vec<&mut dyn pgrad_settings::Settings> {
                vec![$(&mut self.$group),*]
            }
            fn boxed_clone(&self) -> Box<dyn $crate::AlgoConfig> {
                Box::new(self.clone())
            }
            $(
                fn file(&self) -> Option<(&'static str, &str)> {
                    self.$names.file()
                }
                fn take_file(&mut self, bytes: &[u8]) {
                    self.$bytes = Some(bytes.to_vec());
                }
            )?
        }
    };
}
pub(crate) use config;

impl BuildError {
    /// The refusal of `value` for the setting `key`.
    pub(crate) fn setting(key: &'static str, value: &impl ToString, reason: impl Into<String>) -> Self {
        Self::Inconsistent { key, value: value.to_string(), reason: reason.into() }
    }
    /// The refusal of an environment.
    pub(crate) fn environment(env: &EnvSpec, reason: impl Into<String>) -> Self {
        Self::Environment { env: env.id.clone(), reason: reason.into() }
    }
}

/// A phase of an iteration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The policy acts in the environments.
    Collect,
    /// Values, advantages, gradients, steps.
    Learn,
    /// The iteration is over.
    Done,
}

/// Whether a run can be had again, bit for bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reproducible {
    /// The same settings give the same bits.
    Yes,
    /// With its recording: [`Algorithm::recording`].
    ByRecording,
    /// Not: threads raced, and nobody wrote down who came first.
    No,
}

/// Is told when a phase begins. The runner reads its clock there; algorithms have none.
pub type PhaseObserver = Box<dyn FnMut(Phase) + Send>;

/// An algorithm at work.
pub trait Algorithm: Send {
    /// Starts the environments.
    ///
    /// # Errors
    /// When an environment breaks its contract.
    fn start(&mut self) -> Result<(), AgentError>;
    /// One iteration: collect, then learn.
    ///
    /// # Errors
    /// When something is not finite or an environment breaks its contract: see [`AgentError`].
    fn iterate(&mut self) -> Result<Report, AgentError>;
    /// Tells `observer` of the phases of every later iteration.
    fn observe_phases(&mut self, observer: PhaseObserver);
    /// Floating-point operations in matrix products of learning so far.
    fn flops(&self) -> f64;
    /// Environment steps done so far.
    fn steps(&self) -> u64;
    /// Environment steps of one iteration; of a typical one, where they vary.
    fn steps_per_iteration(&self) -> u64;
    /// What the environments are.
    fn spec(&self) -> &EnvSpec;
    /// Steps that were not learnt from because their environment failed
    /// ([`End::Lost`](pgrad_env::End::Lost)), since it was built; they are not among [`Algorithm::steps`].
    fn lost_steps(&self) -> u64 {
        0
    }
    /// Episodes that ended during the last iteration.
    fn episodes(&self) -> Box<dyn Iterator<Item = &Episode> + '_>;
    /// The normaliser of observations, if there is one.
    fn obs_norm(&self) -> Option<&ObsNormalizer>;
    /// The model.
    fn model(&self) -> &ActorCritic;
    /// Multiplies the step size from now on: what follows a divergence.
    fn scale_step_size(&mut self, factor: f64);
    /// Everything that the next iteration depends on.
    fn save(&self) -> Record;
    /// Restores what [`Algorithm::save`] saved. Returns whether the environments continue exactly.
    ///
    /// # Errors
    /// When the record does not fit.
    fn load(&mut self, from: &Record) -> Result<bool, RecordError>;
    /// Whether the same settings give the same bits again.
    fn reproducible(&self) -> Reproducible;
    /// A file that lets another run follow this one, bit for bit, where that takes more than the settings.
    fn recording(&self) -> Option<Vec<u8>>;
    /// A copy of the present policy, for batches of up to `batch` observations.
    fn policy(&self, batch: usize) -> Policy;
}

/// What an iteration reports: named numbers, in order, without allocation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    entries: [(&'static str, f64); Self::CAPACITY],
    len: usize,
}

impl Default for Report {
    fn default() -> Self {
        Self { entries: [("", 0.0); Self::CAPACITY], len: 0 }
    }
}

impl Report {
    const CAPACITY: usize = 28;
    /// Adds a number, or nothing where there is none.
    ///
    /// # Panics
    /// When the report is full.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Option<f64>>) -> Self {
        let Some(value) = value.into() else { return self };
        assert!(self.len < Self::CAPACITY, "a report holds {} numbers", Self::CAPACITY);
        self.entries[self.len] = (name, value);
        self.len += 1;
        self
    }
    /// The number called `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<f64> {
        self.iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }
    /// All numbers, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, f64)> + '_ {
        self.entries[..self.len].iter().copied()
    }
}
