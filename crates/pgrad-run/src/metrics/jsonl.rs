//! `metrics.jsonl`: one JSON object a line.
//!
//! ```text
//! {"step":1024,"train/return_mean_100":21.5,"loss/policy":-0.0123,"time/steps_per_second":215034.0}
//! ```
//!
//! The first key is `step`, the others are names with a number or `null`. JSON has no NaN and no infinity:
//! a value that is not finite is written as `null` and reads as NaN, here as in pandas
//! (`pandas.read_json(path, lines=True)`). Numbers are written with as many digits as give back the same
//! `f64`.
//!
//! There is no checksum a line: it would be one more column for every reader, and would make lines differ
//! whose training was equal. A line that was cut off has no line end; a line of zeros or of half-written
//! blocks is not JSON. Both are found without one.

use super::{Appender, Mark, MetricsError, MetricsRow, MetricsSink, TIME_PREFIX};
use crate::storage::{Storage, parent_of, unique_suffix};
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Longest accepted file.
const MAX_LEN: u64 = 8 << 30;

/// A row as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Environment steps done.
    pub step: u64,
    /// Names and values in the order of the file; NaN where the file has `null`.
    pub values: Vec<(String, f64)>,
}

impl Row {
    /// The value of `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values.iter().find(|(n, _)| n == name).map(|(_, v)| *v)
    }
}

/// Bytes behind the last whole row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// Where they begin.
    pub offset: u64,
    /// What is wrong with them.
    pub reason: String,
}

/// All rows of a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetricsLog {
    /// The rows, steps never falling.
    pub rows: Vec<Row>,
    /// A last row that was cut off, as while a run is writing or after a crash.
    pub torn: Option<TornTail>,
}

impl MetricsLog {
    /// Steps and values of `name`, where it is there and finite.
    #[must_use]
    pub fn series(&self, name: &str) -> Vec<(u64, f64)> {
        let point = |row: &Row| row.get(name).filter(|v| v.is_finite()).map(|v| (row.step, v));
        self.rows.iter().filter_map(point).collect()
    }
    /// All names, in name order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let names: BTreeSet<&String> =
            self.rows.iter().flat_map(|r| r.values.iter().map(|(n, _)| n)).collect();
        names.into_iter().cloned().collect()
    }
    /// The rows without the values that depend on the clock: what two equal runs agree in, to the last bit.
    #[must_use]
    pub fn without_time(&self) -> Vec<Row> {
        let keep = |row: &Row| Row {
            step: row.step,
            values: row.values.iter().filter(|(n, _)| !n.starts_with(TIME_PREFIX)).cloned().collect(),
        };
        self.rows.iter().map(keep).collect()
    }
}

/// A number or `null`.
struct Number(f64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN)))
    }
}

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Row;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object that begins with `step`")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Row, A::Error> {
                if map.next_key::<String>()?.as_deref() != Some("step") {
                    return Err(de::Error::custom("the first key must be `step`"));
                }
                let mut row = Row { step: map.next_value()?, values: Vec::new() };
                while let Some((name, Number(value))) = map.next_entry::<String, Number>()? {
                    if name == "step" || row.values.iter().any(|(n, _)| *n == name) {
                        return Err(de::Error::custom(format!("`{name}` appears twice")));
                    }
                    row.values.push((name, value));
                }
                Ok(row)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// The rows before the first line that is not one, and what comes behind them.
struct Parsed {
    rows: Vec<Row>,
    /// Where each row begins.
    starts: Vec<u64>,
    broken: Option<Broken>,
}

struct Broken {
    /// Line, from 1.
    line: usize,
    tail: TornTail,
    /// Whether it is the last line.
    last: bool,
    /// The lowest step of the whole rows behind it.
    lowest_step_behind: Option<u64>,
}

fn parse(bytes: &[u8]) -> Parsed {
    let mut parsed = Parsed { rows: Vec::new(), starts: Vec::new(), broken: None };
    let mut offset = 0;
    for (i, text) in bytes.split_inclusive(|b| *b == b'\n').enumerate() {
        let row = match text.strip_suffix(b"\n") {
            None => Err("the line has no end".to_owned()),
            Some(text) => serde_json::from_slice::<Row>(text).map_err(|e| e.to_string()),
        };
        let row = row.and_then(|row| match parsed.rows.last() {
            Some(last) if last.step > row.step => {
                Err(format!("step {} comes after step {}", row.step, last.step))
            }
            _ => Ok(row),
        });
        match (&mut parsed.broken, row) {
            (None, Ok(row)) => {
                parsed.starts.push(offset);
                parsed.rows.push(row);
            }
            (None, Err(reason)) => {
                let tail = TornTail { offset, reason };
                parsed.broken = Some(Broken { line: i + 1, tail, last: true, lowest_step_behind: None });
            }
            (Some(broken), row) => {
                broken.last = false;
                if let Ok(row) = row {
                    let lowest = broken.lowest_step_behind.map_or(row.step, |s| s.min(row.step));
                    broken.lowest_step_behind = Some(lowest);
                }
            }
        }
        offset += text.len() as u64;
    }
    parsed
}

fn damaged(path: &Path, broken: &Broken) -> MetricsError {
    MetricsError::Line { path: path.to_owned(), line: broken.line, reason: broken.tail.reason.clone() }
}

/// Reads a file of metrics, also one that a run is writing just now.
///
/// # Errors
/// When it cannot be read, or a line that is not the last is not a row.
pub fn read_log(storage: &dyn Storage, path: &Path) -> Result<MetricsLog, MetricsError> {
    let parsed = parse(&storage.read(path, MAX_LEN)?);
    match parsed.broken {
        Some(broken) if !broken.last => Err(damaged(path, &broken)),
        broken => Ok(MetricsLog { rows: parsed.rows, torn: broken.map(|b| b.tail) }),
    }
}

/// What [`JsonlWriter::resume`] did to the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Rows that stay.
    pub rows_kept: usize,
    /// Whole rows beyond the step, which the run will write again.
    pub rows_dropped: usize,
    /// Bytes cut off, a torn row included.
    pub bytes_dropped: u64,
    /// The first line that was not a row, if there was one: it and all behind it is among what was cut.
    pub torn: Option<TornTail>,
    /// Where the whole file was put when it is not the one that the run wrote.
    pub aside: Option<PathBuf>,
}

/// Writes `metrics.jsonl`.
#[derive(Debug)]
pub struct JsonlWriter {
    file: Appender,
    line: String,
    /// Of everything in the file.
    hasher: blake3::Hasher,
}

impl JsonlWriter {
    /// Begins a new file.
    ///
    /// # Errors
    /// When the name is taken or storage fails.
    pub fn create(storage: Arc<dyn Storage>, path: &Path) -> Result<Self, MetricsError> {
        storage.write_new(path, b"")?;
        storage.sync_dir(parent_of(path))?;
        Ok(Self::behind(storage, path, b""))
    }

    fn behind(storage: Arc<dyn Storage>, path: &Path, bytes: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(bytes);
        Self { file: Appender::new(storage, path, bytes.len() as u64), line: String::new(), hasher }
    }

    /// Continues a file after the rows up to `step`: later rows and what a crash has torn are cut off. A
    /// missing file is begun anew.
    ///
    /// `marks` are what checkpoints up to `step` say of the file, newest first. A file that is not what the
    /// newest of them says (cut short, changed, of another run) is put aside, and what an older one vouches
    /// for is continued. Without marks the rows are believed.
    ///
    /// # Errors
    /// When storage fails, or, without marks, when a line is not a row though a row up to `step` comes after
    /// it: no crash does that to rows that were synced.
    pub fn resume(
        storage: Arc<dyn Storage>,
        path: &Path,
        step: u64,
        marks: &[Mark],
    ) -> Result<(Self, Cut), MetricsError> {
        let nothing = Cut { rows_kept: 0, rows_dropped: 0, bytes_dropped: 0, torn: None, aside: None };
        if storage.kind(path)?.is_none() {
            return Ok((Self::create(storage, path)?, nothing));
        }
        let bytes = storage.read(path, MAX_LEN)?;
        let Parsed { rows, starts, broken } = parse(&bytes);
        let vouched = marks.iter().position(|mark| mark.is_of(&bytes));
        if let Some(newest) = marks.first().filter(|_| vouched != Some(0)) {
            let kept = vouched.map_or(0, |i| marks[i].length);
            let aside = path.with_extension(format!("jsonl.not-of-step-{step}-{}", unique_suffix()));
            storage.rename(path, &aside)?;
            let kept = &bytes[..usize::try_from(kept).unwrap_or(0)];
            storage.write_new(path, kept)?;
            storage.sync_dir(parent_of(path))?;
            let rows_kept = kept.iter().filter(|b| **b == b'\n').count();
            let cut = Cut {
                rows_kept,
                rows_dropped: rows.len().saturating_sub(rows_kept),
                bytes_dropped: newest.length.max(bytes.len() as u64) - kept.len() as u64,
                torn: broken.map(|b| b.tail),
                aside: Some(aside),
            };
            return Ok((Self::behind(storage, path, kept), cut));
        }
        let lowest = |b: &&Broken| marks.is_empty() && b.lowest_step_behind.is_some_and(|s| s <= step);
        if let Some(broken) = broken.as_ref().filter(lowest) {
            return Err(damaged(path, broken));
        }
        let len = match marks.first() {
            Some(mark) => mark.length,
            None => {
                let whole = broken.as_ref().map_or(bytes.len() as u64, |b| b.tail.offset);
                starts.get(rows.partition_point(|r| r.step <= step)).copied().unwrap_or(whole)
            }
        };
        let rows_kept = starts.partition_point(|start| *start < len);
        let cut = Cut {
            rows_kept,
            rows_dropped: rows.len() - rows_kept,
            bytes_dropped: bytes.len() as u64 - len,
            torn: broken.map(|b| b.tail),
            aside: None,
        };
        if cut.bytes_dropped > 0 {
            storage.truncate(path, len)?;
            storage.sync_file(path)?;
        }
        Ok((Self::behind(storage, path, &bytes[..usize::try_from(len).unwrap_or(0)]), cut))
    }
}

impl MetricsSink for JsonlWriter {
    /// # Panics
    /// When a name is empty, `step`, or not plain (`[A-Za-z0-9._/-]`): names come from the program.
    fn write(&mut self, row: &MetricsRow) -> Result<(), MetricsError> {
        self.line.clear();
        // Writing to a string cannot fail.
        let _ = write!(self.line, "{{\"step\":{}", row.step);
        for (name, value) in &row.values {
            assert!(is_plain_name(name), "`{name}` is not a valid metric name");
            let _ = match value.is_finite() {
                // `{:?}` gives the shortest digits that read back as the same number.
                true => write!(self.line, ",\"{name}\":{value:?}"),
                false => write!(self.line, ",\"{name}\":null"),
            };
        }
        self.line.push_str("}\n");
        self.file.append(self.line.as_bytes())?;
        self.hasher.update(self.line.as_bytes());
        Ok(())
    }

    fn mark(&self) -> Option<Mark> {
        Some(Mark { length: self.file.len, blake3: self.hasher.finalize().to_hex().to_string() })
    }

    fn sync(&mut self) -> Result<(), MetricsError> {
        Ok(self.file.sync()?)
    }
}

fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && name != "step"
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._/-".contains(&b))
}
