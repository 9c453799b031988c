//! What a run reports, row by row: `metrics.jsonl` and TensorBoard event files.
//!
//! Both are append-only and equal, after a crash and a `resume`, to those of an uninterrupted run, but for
//! the values whose name begins with [`TIME_PREFIX`]. To keep that across a power cut, the driver syncs the
//! sinks before it saves a checkpoint: the rows up to a checkpoint are then never younger than it.

mod jsonl;
mod tensorboard;

pub use jsonl::{Cut, JsonlWriter, MetricsLog, Row, TornTail, read_log};
pub use tensorboard::{TensorBoardWriter, crc32c, masked_crc32c};

use crate::storage::{Storage, StorageError};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

/// Values under this prefix depend on the clock: two equal runs may differ in them.
pub const TIME_PREFIX: &str = "time/";

/// One row: values after `step` environment steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetricsRow {
    /// Environment steps done.
    pub step: u64,
    /// Names and values, in the order in which they are written.
    pub values: Vec<(&'static str, f64)>,
}

impl MetricsRow {
    /// An empty row.
    #[must_use]
    pub fn new(step: u64) -> Self {
        Self { step, values: Vec::new() }
    }
    /// Adds a value.
    pub fn push(&mut self, name: &'static str, value: f64) {
        self.values.push((name, value));
    }
}

/// Where rows go.
pub trait MetricsSink: Send {
    /// Writes a row; it is in the file (not yet forced to the disk) when this returns. After an error the
    /// file holds the rows before, and the next row may be tried.
    ///
    /// # Errors
    /// When storage fails.
    fn write(&mut self, row: &MetricsRow) -> Result<(), MetricsError>;
    /// Forces all rows to the disk.
    ///
    /// # Errors
    /// When storage fails.
    fn sync(&mut self) -> Result<(), MetricsError>;
    /// What a checkpoint keeps of the file, to know it again.
    fn mark(&self) -> Option<Mark> {
        None
    }
}

/// What a checkpoint knows of the metrics: the beginning of the file that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// Its bytes.
    pub length: u64,
    /// Their BLAKE3 digest in hexadecimal.
    pub blake3: String,
}

impl Mark {
    /// Whether `bytes` begin with what this is a mark of.
    #[must_use]
    pub fn is_of(&self, bytes: &[u8]) -> bool {
        let beginning = usize::try_from(self.length).ok().and_then(|length| bytes.get(..length));
        beginning.is_some_and(|b| blake3::hash(b).to_hex().as_str() == self.blake3)
    }
}

/// What went wrong with a file of metrics.
#[derive(Debug, Error)]
pub enum MetricsError {
    /// Storage failed.
    #[error("metrics: {0}")]
    Storage(#[from] StorageError),
    /// A line that is not a row, before the end of the file.
    #[error(
        "`{path}`, line {line}: {reason}. The file was changed or damaged; move it away to continue without \
         the earlier rows",
        path = path.display()
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

impl MetricsError {
    /// Exit code of a command that ends with this error: 65 bad input, 74 input or output failed.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Storage(_) => 74,
            Self::Line { .. } => 65,
        }
    }
}

/// A file that only grows by whole records: a record that could not be written whole is cut off again.
#[derive(Debug)]
struct Appender {
    storage: Arc<dyn Storage>,
    path: PathBuf,
    /// Length of the whole records.
    len: u64,
    /// Whether bytes of a broken record may stand behind them.
    torn: bool,
}

impl Appender {
    fn new(storage: Arc<dyn Storage>, path: &Path, len: u64) -> Self {
        Self { storage, path: path.to_owned(), len, torn: false }
    }

    fn append(&mut self, record: &[u8]) -> Result<(), StorageError> {
        if self.torn {
            self.storage.truncate(&self.path, self.len)?;
            self.torn = false;
        }
        if let Err(e) = self.storage.append(&self.path, record) {
            // When this fails as well, the next record tries again.
            self.torn = self.storage.truncate(&self.path, self.len).is_err();
            return Err(e);
        }
        self.len += record.len() as u64;
        Ok(())
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.storage.sync_file(&self.path)
    }
}
