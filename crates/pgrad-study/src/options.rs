//! How a study is run, and what is heard of it.

use crate::{OtherSeeds, RunRow};
use pgrad_run::clock::{Clock, SystemClock};
use pgrad_run::storage::{FsStorage, Storage};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

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
    /// Run only the first N seeds of each entry.
    pub seeds: Option<u64>,
    /// Run the entries on other seeds; those on their own seeds stand beside them where the folder has them.
    pub other_seeds: Option<OtherSeeds>,
    /// Digests of other sources: what their programs did with the same settings is not done again, an entry
    /// at a time.
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
            other_seeds: None,
            accept: Vec::new(),
            command: None,
            stop: Arc::new(AtomicBool::new(false)),
            listen,
            clock: Arc::new(SystemClock::new()),
            storage: Arc::new(FsStorage),
        }
    }
}
