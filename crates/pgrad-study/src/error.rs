//! Why a study could not be run or read.

use crate::stamp::RESULTS;
use crate::study::SEED_LIMIT;
use pgrad_draw::plot::PlotError;
use pgrad_run::config::RunConfigError;
use pgrad_run::run_dir::RunDirError;
use pgrad_run::storage::StorageError;
use pgrad_settings::ConfigErrors;
use std::path::PathBuf;
use thiserror::Error;

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
    #[error("--seeds does not apply: a study of kind `{kind}` has no choice of seeds")]
    SeedsIgnored {
        /// The kind.
        kind: &'static str,
    },
    /// Sources were to be accepted where that has no meaning.
    #[error("--accept does not apply: all measurements of a study of kind `{kind}` are made by one program")]
    AcceptIgnored {
        /// The kind.
        kind: &'static str,
    },
    /// Other seeds where the seeds are part of what is measured.
    #[error(
        "--seeds FIRST.. does not apply: a study of kind `{kind}` is measured on seeds of its own\n  hint: `--seeds N` takes \
         the first N of them"
    )]
    OtherSeedsIgnored {
        /// The kind.
        kind: &'static str,
    },
    /// Sources are to be accepted that did nothing here.
    #[error(
        "--accept: no line of `{RESULTS}` in `{folder}` was made by sources `{sources}`\n  hint: the last \
         column says what made a line",
        folder = folder.display()
    )]
    Accept {
        /// Their digest.
        sources: String,
        /// The folder of the results.
        folder: PathBuf,
    },
    /// It was asked to stop.
    #[error(
        "stopped before all measurements were made\n  hint: run the same command to continue from the \
        results in its folder"
    )]
    Stopped,
    /// It cannot be measured.
    #[error("{reason}")]
    Measure {
        /// What happened.
        reason: String,
    },
    /// Earlier results that cannot be read.
    #[error(
        "{path}:{line}: {reason}\n  hint: without its line in `{RESULTS}` a run is repeated",
        path = path.display()
    )]
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
    #[error("cannot start a thread: {0}\n  hint: ask for fewer with --threads")]
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
    #[error("a label has 1 to 80 characters: letters, digits, spaces and `._-+()/:`")]
    Characters,
    /// Nothing to learn from.
    #[error("`iterations` is at least 1; leave it out to train for all `steps`")]
    Iterations,
    /// Seeds outside the range.
    #[error("seeds must be below {SEED_LIMIT}, because evaluations use those above")]
    Seeds,
    /// An anchor that cannot be compared with.
    #[error(
        "an anchor is a finite number, and its standard error is finite and not negative; one that is `at_most` a \
         bound has no standard error"
    )]
    Anchor,
    /// A study does not mend runs.
    #[error("`on_divergence` is \"stop\" in a study: a run that diverges is reported, not rolled back")]
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
            | Self::OtherSeedsIgnored { .. }
            | Self::SeedsIgnored { .. } => 64,
            Self::Rows { .. } | Self::Measure { .. } => 65,
            Self::Stopped => 75,
            Self::RunDir(e) => e.exit_code(),
            Self::Plot(e) => e.exit_code(),
            Self::Storage(_) | Self::Threads(_) => 74,
        }
    }
}
