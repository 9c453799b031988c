//! Studies: algorithms x environments x seeds, against published scores.
//!
//! A study is a TOML file; those that come with pgrad are [`STUDIES`], embedded like the presets.
//! ```toml
//! title = "PPO on classic control"
//! note = "What was done and how."
//! episodes = 100                  # of each evaluation; 100 when left out
//!
//! [[entry]]
//! label = "PPO short"             # "ALGO ENV STEPS" when left out; no two are equal
//! env = "CartPole-v1"
//! algo = "ppo"                    # when left out
//! steps = 100_000
//! iterations = 20                 # stop after so many, where a paper counts those; `steps` is then the most
//! seeds = { first = 1, count = 20 }
//! preset = true                   # when left out: start from the preset, not from the defaults; or a preset's name
//! evaluation = "greedy"           # when left out; "stochastic" draws the actions of E
//! settings = { gamma = 0.98 }     # laid over it
//! [[entry.anchor]]
//! measure = "E"
//! value = 500.0
//! standard_error = 0.0            # 0, and when left out: not published
//! at_most = false                 # when left out; true: a bound from above, see below
//! source = "RL Zoo, benchmark.md, one run"
//! ```
//! An anchor is a score to be reached, and the verdict is `beaten`, `reproduced` or `short`. With `at_most = true` it is
//! what nobody can get more than (a policy without a memory where one is needed): the verdict is `bounded`, or `exceeded`
//! when the scores speak against it. Such a bound is exact and has no standard error.
//!
//! Two scores are taken of every run, and never mixed:
//!
//! - **E**: mean return of the final policy over `episodes` episodes, most probable actions, normaliser
//!   frozen; the seed of the evaluation is [`eval_seed`] of the run's, which no training run of a study has.
//!   With `evaluation = "stochastic"` actions are drawn instead, for policies that are right to be random, and
//!   for comparison with scores that were taken so: tables then say `E (drawn)`, and all entries that are
//!   compared with each other should have it alike;
//! - **T**: mean return of the last 100 training episodes (of all, when there were fewer), actions drawn.
//!
//! A run gives the same bits as `pgrad train` with the same settings and seed, on one thread; runs go side by
//! side on several. What is measured depends on neither the number of threads nor the order.
//!
//! ```no_run
//! use pgrad_study::{Study, StudyEvent, StudyOptions, run_study};
//!
//! let study = Study::load("ppo-classic")?; // a name, or the path of a file
//! let mut listen = |event: StudyEvent<'_>| {
//!     if let StudyEvent::Run(row) = event {
//!         eprintln!("{} seed {}: E {}", row.entry, row.seed, row.e);
//!     }
//! };
//! let options = StudyOptions { threads: 2, ..StudyOptions::new("studies-out/ppo-classic", &mut listen) };
//! let result = run_study(&study, options)?;
//! eprintln!("{}", result.to_markdown());
//! # Ok::<(), pgrad_study::StudyError>(())
//! ```
//! The folder of the results holds [`RESULTS`] (a line for every run), [`CURVES`] (learning curves),
//! `summary.md`, `summary.json` and a picture for every environment. A study that was stopped is continued by
//! running it again with the same folder: runs whose line is there, made with the same settings by the same
//! sources ([`SOURCES`]), are not run again. Lines of other runs are kept and not counted: a mean is never taken
//! over rows that different programs made. Entries that one other program did as a whole count where its sources
//! are accepted ([`StudyOptions::accept`]), and the tables name them.
//!
//! A file with a `kind` measures something else than training runs, see [`Measurement`]; [`AnyStudy`] reads both.
//!
//! **Must never know:** terminals.

mod file;
mod kinds;
mod measurement;
mod report;
mod rows;
pub mod scores;
mod work;

pub use file::Source;
pub use kinds::KINDS;
pub use measurement::{
    AnyStudy, Bench, Bound, Csv, Findings, Kind, MeasuredResult, MeasuredStudy, Measurement, Quantity,
    number, run_measured,
};
pub use report::{EntryResult, JudgedAnchor, Score};
pub use rows::RunRow;
pub use work::{run_digest, run_study};

use pgrad_draw::plot::PlotError;
use pgrad_run::clock::{Clock, SystemClock};
use pgrad_run::config::{RunConfig, RunConfigError};
use pgrad_run::run_dir::RunDirError;
use pgrad_run::storage::{FsStorage, Storage, StorageError};
use pgrad_settings::ConfigErrors;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use thiserror::Error;

/// The line of every run.
pub const RESULTS: &str = "results.csv";
/// The learning curves.
pub const CURVES: &str = "curves.csv";
/// The table for people.
pub const SUMMARY_MD: &str = "summary.md";
/// The table for programs.
pub const SUMMARY_JSON: &str = "summary.json";

/// Version of pgrad, and part of the digest of a run.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Digest of the sources that this program was built from, as far as the bits of a run depend on them: the crates
/// from the numbers up to this one, and the versions of those that they use. Every line of a study has it.
/// `unknown` when the build could not tell.
pub const SOURCES: &str = env!("PGRAD_SOURCES");
/// The commit that this program was built from, with a `+` where sources had been changed after it; `unknown` when
/// it was not built in pgrad's repository.
pub const REVISION: &str = env!("PGRAD_REVISION");

/// Who made it, for tables.
fn maker(version: &str) -> String {
    format!("pgrad {version} (sources {SOURCES}, revision {REVISION})")
}

/// Training seeds of a study are below this; those of its evaluations are not.
pub const SEED_LIMIT: u64 = 1_000_000_000_000;

/// Seed of the evaluation that belongs to a training seed: `seed` + [`SEED_LIMIT`]. `pgrad eval --seed` takes
/// it too.
#[must_use]
pub fn eval_seed(seed: u64) -> u64 {
    seed + SEED_LIMIT
}

/// A study that comes with pgrad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmbeddedStudy {
    /// Its name.
    pub name: &'static str,
    /// Its text.
    pub toml: &'static str,
}

/// All studies that come with pgrad.
pub static STUDIES: &[EmbeddedStudy] = &[
    EmbeddedStudy { name: "acktr-classic", toml: include_str!("../../../studies/acktr-classic.toml") },
    EmbeddedStudy { name: "journey", toml: include_str!("../../../studies/journey.toml") },
    EmbeddedStudy { name: "ppo-classic", toml: include_str!("../../../studies/ppo-classic.toml") },
    EmbeddedStudy { name: "lunar-lander", toml: include_str!("../../../studies/lunar-lander.toml") },
    EmbeddedStudy { name: "bipedal-walker", toml: include_str!("../../../studies/bipedal-walker.toml") },
    EmbeddedStudy { name: "online-classic", toml: include_str!("../../../studies/online-classic.toml") },
    EmbeddedStudy { name: "trpo-classic", toml: include_str!("../../../studies/trpo-classic.toml") },
    EmbeddedStudy { name: "trpo-cartpole", toml: include_str!("../../../studies/trpo-cartpole.toml") },
    EmbeddedStudy { name: "ppo-kl", toml: include_str!("../../../studies/ppo-kl.toml") },
    EmbeddedStudy { name: "a2c-classic", toml: include_str!("../../../studies/a2c-classic.toml") },
    EmbeddedStudy { name: "reinforce", toml: include_str!("../../../studies/reinforce.toml") },
    EmbeddedStudy { name: "short-corridor", toml: include_str!("../../../studies/short-corridor.toml") },
    EmbeddedStudy { name: "variance", toml: include_str!("../../../studies/variance.toml") },
    EmbeddedStudy { name: "minatar-ppo", toml: include_str!("../../../studies/minatar-ppo.toml") },
    EmbeddedStudy { name: "off-pac", toml: include_str!("../../../studies/off-pac.toml") },
    EmbeddedStudy { name: "gae-cartpole", toml: include_str!("../../../studies/gae-cartpole.toml") },
    EmbeddedStudy { name: "async-speedup", toml: include_str!("../../../studies/async-speedup.toml") },
    EmbeddedStudy { name: "async-classic", toml: include_str!("../../../studies/async-classic.toml") },
    EmbeddedStudy { name: "async-minatar", toml: include_str!("../../../studies/async-minatar.toml") },
    EmbeddedStudy { name: "a3c-vs-a2c", toml: include_str!("../../../studies/a3c-vs-a2c.toml") },
    EmbeddedStudy { name: "recurrent", toml: include_str!("../../../studies/recurrent.toml") },
    EmbeddedStudy { name: "kakade", toml: include_str!("../../../studies/kakade.toml") },
    #[cfg(feature = "mujoco")]
    EmbeddedStudy { name: "ppo-table1", toml: include_str!("../../../studies/ppo-table1.toml") },
    #[cfg(feature = "mujoco")]
    EmbeddedStudy { name: "mujoco-v4", toml: include_str!("../../../studies/mujoco-v4.toml") },
    #[cfg(feature = "mujoco")]
    EmbeddedStudy { name: "mujoco-v5", toml: include_str!("../../../studies/mujoco-v5.toml") },
    #[cfg(feature = "mujoco")]
    EmbeddedStudy { name: "mujoco-npg-a2c", toml: include_str!("../../../studies/mujoco-npg-a2c.toml") },
];

/// Which score of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
pub enum Measure {
    /// Final policy, most probable actions.
    E,
    /// Last 100 training episodes.
    T,
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::E => "E",
            Self::T => "T",
        })
    }
}

/// How the actions of the final policy are chosen when it is scored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Evaluated {
    /// The most probable action.
    #[default]
    Greedy,
    /// Actions are drawn from the policy.
    Stochastic,
}

impl fmt::Display for Evaluated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Greedy => "greedy",
            Self::Stochastic => "stochastic",
        })
    }
}

/// A published score.
#[derive(Clone, Debug, PartialEq)]
pub struct Anchor {
    /// What it is compared with.
    pub measure: Measure,
    /// The score.
    pub value: f64,
    /// Its standard error over seeds; 0 when it was not published.
    pub standard_error: f64,
    /// Whether it is an upper bound, not a score to be reached.
    pub at_most: bool,
    /// Who published it, where, with which protocol.
    pub source: String,
}

/// One algorithm on one environment, with several seeds.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Name in tables; letters, digits, spaces and `._-+()/:` only.
    pub label: String,
    /// What is run. The seed in it does not matter.
    pub config: RunConfig,
    /// Iterations after which a run stops, though it has not done all its steps.
    pub iterations: Option<u64>,
    /// How the final policy acts when E is taken.
    pub evaluated: Evaluated,
    /// First seed; the others follow it.
    pub first_seed: u64,
    /// Number of seeds.
    pub seeds: u64,
    /// Published scores.
    pub anchors: Vec<Anchor>,
}

/// A study.
#[derive(Clone, Debug)]
pub struct Study {
    /// Name or file, as the command takes it.
    pub name: String,
    /// Title of the table.
    pub title: String,
    /// What was done and how, as Markdown.
    pub note: String,
    /// Episodes of each evaluation.
    pub episodes: usize,
    /// What is run.
    pub entries: Vec<Entry>,
}

impl Study {
    /// A study without a name: the runs that a measurement is made of.
    fn of_entries<'e>(episodes: usize, entries: impl Iterator<Item = &'e Entry>) -> Self {
        let nothing = String::new;
        Self {
            name: nothing(),
            title: nothing(),
            note: nothing(),
            episodes,
            entries: entries.cloned().collect(),
        }
    }
    /// The study of training runs with this name, or else in this file. [`AnyStudy::load`] reads those of
    /// other kinds too.
    ///
    /// # Errors
    /// When there is none, it is of another kind, or wrong in any way: with the line.
    pub fn load(name_or_file: &str) -> Result<Self, StudyError> {
        let (text, origin) = measurement::text_of(name_or_file)?;
        Self::parse(&text, &origin, name_or_file)
    }
    /// The study in a text. `origin` names the text in errors, `name` the study in tables.
    ///
    /// # Errors
    /// When it is wrong in any way: with the line.
    pub fn parse(text: &str, origin: &str, name: &str) -> Result<Self, StudyError> {
        file::parse(text, origin, name)
    }
}

/// What a caller hears while a study goes on.
#[derive(Debug)]
pub enum StudyEvent<'a> {
    /// Where it stands: a few times a second.
    Progress(StudyProgress),
    /// A run is done.
    Run(&'a RunRow),
    /// A run failed; the others go on.
    Failed(&'a RunFailure),
    /// Something worth a line.
    Notice(&'a str),
}

/// Where a study stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StudyProgress {
    /// Runs done by this call.
    pub runs: usize,
    /// Runs that this call has to do.
    pub total_runs: usize,
    /// Environment steps done by this call, in all runs together.
    pub steps: u64,
    /// Environment steps that this call has to do.
    pub total_steps: u64,
    /// Seconds since it began.
    pub seconds: f64,
}

/// A run that could not be finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFailure {
    /// Label of the entry.
    pub entry: String,
    /// Seed.
    pub seed: u64,
    /// Why.
    pub reason: String,
}

/// How to run a study.
pub struct StudyOptions<'a> {
    /// Runs that go side by side; the results do not depend on it.
    pub threads: usize,
    /// Folder of the results; made when missing, continued when not.
    pub out: PathBuf,
    /// Only so many seeds of each entry.
    pub seeds: Option<u64>,
    /// Digests of other sources: what their programs did with the same settings is not done again, an entry at a time.
    pub accept: Vec<String>,
    /// The command that was typed, for the record.
    pub command: Option<String>,
    /// When this becomes true, runs are left where they are, and the call ends.
    pub stop: Arc<AtomicBool>,
    /// Hears of progress.
    pub listen: &'a mut dyn FnMut(StudyEvent<'_>),
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Disk.
    pub storage: Arc<dyn Storage>,
}

impl fmt::Debug for StudyOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StudyOptions")
            .field("threads", &self.threads)
            .field("out", &self.out)
            .finish_non_exhaustive()
    }
}

impl<'a> StudyOptions<'a> {
    /// One thread, all seeds, the real disk and clock.
    pub fn new(out: impl Into<PathBuf>, listen: &'a mut dyn FnMut(StudyEvent<'_>)) -> Self {
        Self {
            threads: 1,
            out: out.into(),
            seeds: None,
            accept: Vec::new(),
            command: None,
            stop: Arc::new(AtomicBool::new(false)),
            listen,
            clock: Arc::new(SystemClock::new()),
            storage: Arc::new(FsStorage),
        }
    }
}

/// What a study found. The same is in the folder of the results.
#[derive(Clone, Debug)]
pub struct StudyResult {
    /// Name of the study.
    pub name: String,
    /// Its title.
    pub title: String,
    /// Its note.
    pub note: String,
    /// Episodes of each evaluation.
    pub episodes: usize,
    /// The command that makes it again.
    pub command: String,
    /// Version of pgrad.
    pub version: &'static str,
    /// Folder of the results.
    pub out: PathBuf,
    /// Whether it was stopped before its end. No summary was written then.
    pub stopped: bool,
    /// A line for every run that is done, in the order of the study.
    pub rows: Vec<RunRow>,
    /// How many of them were there before.
    pub reused: usize,
    /// Runs that failed.
    pub failures: Vec<RunFailure>,
    /// The entries with their scores.
    pub entries: Vec<EntryResult>,
}

/// Why a study could not be run or read.
#[derive(Debug, Error)]
pub enum StudyError {
    /// No study of that name, and no file.
    #[error(
        "there is no study `{name}` and no such file; there are {known}{}",
        suggestion.as_ref().map_or_else(String::new, |s| format!("\n  hint: did you mean `{s}`?"))
    )]
    Unknown {
        /// What was asked for.
        name: String,
        /// The names that there are.
        known: String,
        /// The name that was probably meant.
        suggestion: Option<String>,
    },
    /// A file that is wrong.
    #[error("{origin}:{line}: {message}")]
    File {
        /// The file.
        origin: String,
        /// Line, from 1.
        line: usize,
        /// What is wrong and what is expected.
        message: String,
    },
    /// A setting in a file that is wrong.
    #[error(transparent)]
    Setting(#[from] ConfigErrors),
    /// An entry that cannot be run.
    #[error("entry `{entry}`: {cause}")]
    Entry {
        /// Its label.
        entry: String,
        /// Why.
        cause: EntryError,
    },
    /// Nothing to do.
    #[error("a study needs at least one seed of each entry")]
    NoSeeds,
    /// Seeds were asked for where there are none.
    #[error("--seeds does not apply: a study of kind `{kind}` has no seeds to choose from")]
    SeedsIgnored {
        /// The kind.
        kind: &'static str,
    },
    /// Sources were to be accepted where that has no meaning.
    #[error(
        "--accept does not apply: what a study of kind `{kind}` measures is always measured by one program"
    )]
    AcceptIgnored {
        /// The kind.
        kind: &'static str,
    },
    /// Sources are to be accepted that did nothing here.
    #[error(
        "--accept: no line of `{RESULTS}` in `{folder}` was made by sources `{sources}`\n  hint: the last column says what made a line",
        folder = folder.display()
    )]
    Accept {
        /// Their digest.
        sources: String,
        /// The folder of the results.
        folder: PathBuf,
    },
    /// It was asked to stop.
    #[error("stopped before all was measured\n  hint: the same command goes on from what is in its folder")]
    Stopped,
    /// It cannot be measured.
    #[error("{reason}")]
    Measure {
        /// What happened.
        reason: String,
    },
    /// Earlier results that cannot be read.
    #[error("{path}:{line}: {reason}\n  hint: mend or remove that line; its run is then done again", path = path.display())]
    Rows {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// The folder is in use.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    /// Storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A picture could not be drawn.
    #[error(transparent)]
    Plot(#[from] PlotError),
    /// A thread could not be started.
    #[error("a thread could not be started: {0}\n  hint: ask for fewer with --threads")]
    Threads(std::io::Error),
}

/// Why an entry cannot be run.
#[derive(Debug, Error)]
pub enum EntryError {
    /// Its configuration is wrong.
    #[error(transparent)]
    Config(#[from] RunConfigError),
    /// Two entries with one label.
    #[error("another entry has the same label; give each a `label` of its own")]
    Label,
    /// A label with characters that a table cannot hold.
    #[error("a label has 1 to 80 letters, digits, spaces and `._-+()/:`")]
    Characters,
    /// Nothing to learn from.
    #[error("`iterations` is at least 1; leave it out to train for all `steps`")]
    Iterations,
    /// Seeds outside the range.
    #[error("seeds are below {SEED_LIMIT}, so that evaluations have seeds of their own")]
    Seeds,
    /// An anchor that cannot be compared with.
    #[error(
        "an anchor is a finite number, and its standard error is finite and not negative; one that is `at_most` a \
         bound has no standard error"
    )]
    Anchor,
    /// A study does not mend runs.
    #[error("`on_divergence` is \"stop\" in a study: a run that diverges is reported, not mended")]
    Divergence,
}

impl StudyError {
    /// Exit code of a command that ends with this error: 64 bad usage or configuration, 65 bad input, 74
    /// input or output failed, 75 try again.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Entry { cause: EntryError::Config(e), .. } => e.exit_code(),
            Self::Unknown { .. }
            | Self::File { .. }
            | Self::Setting(_)
            | Self::Entry { .. }
            | Self::NoSeeds
            | Self::Accept { .. }
            | Self::AcceptIgnored { .. }
            | Self::SeedsIgnored { .. } => 64,
            Self::Rows { .. } | Self::Measure { .. } => 65,
            Self::Stopped => 75,
            Self::RunDir(e) => e.exit_code(),
            Self::Plot(e) => e.exit_code(),
            Self::Storage(_) | Self::Threads(_) => 74,
        }
    }
}
