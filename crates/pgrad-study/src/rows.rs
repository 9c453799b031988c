//! The files that a study grows: a line for every run, and the learning curves.

use crate::{CURVES, RESULTS, StudyError};
use pgrad_run::storage::{Storage, StorageError, write_atomic};
use std::fmt::Write;
use std::path::{Path, PathBuf};

const HEADER: &str = "entry,env,algo,steps,seed,E,T,seconds,settings,sources,lost,curve,digest";
/// Cells of a line.
const CELLS: usize = 13;
/// Headers of lines that say less; they are read, and written anew with what is not known at their end.
const OLD_HEADERS: [(&str, &str); 3] = [
    ("entry,env,algo,steps,seed,E,T,seconds,settings", ",unknown,,"),
    ("entry,env,algo,steps,seed,E,T,seconds,settings,sources", ",,"),
    ("entry,env,algo,steps,seed,E,T,seconds,settings,sources,lost", ","),
];
const CURVES_HEADER: &str = "entry,seed,settings,steps,return_mean_100";
/// Largest file that is read.
const MAX_LEN: u64 = 1 << 28;

/// What came of one run.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRow {
    /// Label of the entry.
    pub entry: String,
    /// Environment.
    pub env: String,
    /// Algorithm.
    pub algo: String,
    /// Environment steps done: those asked for, and what was left of the last iteration.
    pub steps: u64,
    /// Seed.
    pub seed: u64,
    /// Mean return of the final policy.
    pub e: f64,
    /// Mean return of the last 100 training episodes; none when none was finished.
    pub t: Option<f64>,
    /// Seconds of training on one thread, evaluation not counted, to the millisecond.
    pub seconds: f64,
    /// Digest of everything that the scores depend on: settings, seed, version and sources.
    pub settings: String,
    /// Digest of the sources that made it, [`SOURCES`](crate::SOURCES) then.
    pub sources: String,
    /// Episodes of the evaluation that were lost, and do not count in E; none where nobody wrote it down.
    pub lost: Option<u64>,
    /// Digest of its learning curve; none where nobody wrote it down.
    pub curve: Option<String>,
}

/// The digest that goes with a text: enough letters to find what was damaged or changed.
fn digest_of(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex()[..16].to_owned()
}

/// The digest of a learning curve.
pub(super) fn curve_digest(curve: &[Point]) -> String {
    digest_of(&curve.iter().map(|(steps, value)| format!("{steps},{value}\n")).collect::<String>())
}

impl RunRow {
    fn to_line(&self) -> String {
        let Self { entry, env, algo, steps, seed, e, t, seconds, settings, sources, lost, curve } = self;
        let t = t.map_or_else(String::new, |t| t.to_string());
        let lost = lost.map_or_else(String::new, |lost| lost.to_string());
        let curve = curve.as_deref().unwrap_or_default();
        Self::sealed(&format!(
            "{entry},{env},{algo},{steps},{seed},{e},{t},{seconds},{settings},{sources},{lost},{curve}"
        ))
    }
    /// The line of these cells: they and their digest.
    fn sealed(cells: &str) -> String {
        format!("{cells},{}\n", digest_of(cells))
    }
    fn from_line(line: &str) -> Result<Self, String> {
        let cells: Vec<&str> = line.split(',').collect();
        let [entry, env, algo, steps, seed, e, t, seconds, settings, sources, lost, curve, written] =
            cells[..]
        else {
            return Err(format!("a line has the {CELLS} cells {HEADER}, but this one has {}", cells.len()));
        };
        let digest = digest_of(&line[..line.len() - written.len() - 1]);
        if digest != written {
            return Err(format!(
                "the line was damaged or changed after it was written: its digest is {digest}, but it says `{written}`"
            ));
        }
        let number = |name: &str, cell: &str| {
            let value = cell.parse::<f64>().ok().filter(|v| v.is_finite());
            value.ok_or_else(|| format!("`{name}` is a finite number, but got `{cell}`"))
        };
        let whole = |name: &str, cell: &str| {
            cell.parse::<u64>().map_err(|_| format!("`{name}` is a whole number, but got `{cell}`"))
        };
        Ok(Self {
            entry: entry.to_owned(),
            env: env.to_owned(),
            algo: algo.to_owned(),
            steps: whole("steps", steps)?,
            seed: whole("seed", seed)?,
            e: number("E", e)?,
            t: if t.is_empty() { None } else { Some(number("T", t)?) },
            seconds: number("seconds", seconds)?,
            settings: settings.to_owned(),
            sources: sources.to_owned(),
            lost: if lost.is_empty() { None } else { Some(whole("lost", lost)?) },
            curve: Some(curve).filter(|curve| !curve.is_empty()).map(str::to_owned),
        })
    }
}

/// A point of a learning curve: environment steps, and the mean return of the last 100 episodes there.
pub(super) type Point = (u64, f64);

/// The folder of a study's results.
pub(super) struct Folder<'a> {
    pub(super) storage: &'a dyn Storage,
    pub(super) root: &'a Path,
}

impl Folder<'_> {
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
    /// Adds a finished run: first its curve, then its line, so that a line means that all is there.
    pub(super) fn add(&self, row: &RunRow, curve: &[Point]) -> Result<(), StudyError> {
        let mut text = String::new();
        for (steps, value) in curve {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{},{},{},{steps},{value}", row.entry, row.seed, row.settings);
        }
        self.append(CURVES, CURVES_HEADER, &text)?;
        self.append(RESULTS, HEADER, &row.to_line())
    }
    fn append(&self, name: &str, header: &str, text: &str) -> Result<(), StudyError> {
        let path = self.path(name);
        if self.storage.kind(&path)?.is_none() {
            write_atomic(self.storage, &path, format!("{header}\n").as_bytes())?;
        }
        self.storage.append(&path, text.as_bytes())?;
        Ok(self.storage.sync_file(&path)?)
    }
    /// Whether a file is there.
    pub(super) fn has(&self, name: &str) -> Result<bool, StudyError> {
        Ok(self.storage.kind(&self.path(name))?.is_some())
    }
    /// The lines of all runs that are there. What a write that was cut short left of a last line goes, also
    /// in the curves: what is added would be joined to it.
    pub(super) fn rows(&self) -> Result<Vec<RunRow>, StudyError> {
        self.whole(CURVES)?;
        self.mark_old_lines()?;
        self.lines(RESULTS, HEADER)?
            .into_iter()
            .map(|(line, text)| RunRow::from_line(&text).map_err(|reason| self.wrong(RESULTS, line, reason)))
            .collect()
    }
    /// Gives lines that say less the mark of what is not known.
    fn mark_old_lines(&self) -> Result<(), StudyError> {
        let text = self.whole(RESULTS)?.unwrap_or_default();
        let old = |(header, mark)| text.strip_prefix(&format!("{header}\n")).map(|lines| (lines, mark));
        let Some((lines, mark)) = OLD_HEADERS.into_iter().find_map(old) else { return Ok(()) };
        let marked: String = lines.lines().map(|line| RunRow::sealed(&format!("{line}{mark}"))).collect();
        Ok(self.write(RESULTS, &format!("{HEADER}\n{marked}"))?)
    }
    /// The learning curves of these runs, in this order; a run's is empty when it is not there.
    pub(super) fn curves(&self, rows: &[RunRow]) -> Result<Vec<Vec<Point>>, StudyError> {
        let mut curves = vec![Vec::new(); rows.len()];
        let mut begin = vec![1; rows.len()];
        for (line, text) in self.lines(CURVES, CURVES_HEADER)? {
            let cells: Vec<&str> = text.split(',').collect();
            let point = match cells[..] {
                [_, _, digest, steps, value] => {
                    steps.parse::<u64>().ok().zip(value.parse::<f64>().ok()).map(|p| (digest, p))
                }
                _ => None,
            };
            let Some((digest, point)) = point else {
                return Err(self.wrong(CURVES, line, format!("a line has the 5 cells {CURVES_HEADER}")));
            };
            for i in (0..rows.len()).filter(|i| rows[*i].settings == digest) {
                if curves[i].is_empty() {
                    begin[i] = line;
                }
                curves[i].push(point);
            }
        }
        for ((curve, row), line) in curves.iter_mut().zip(rows).zip(begin) {
            let Some(digest) = row.curve.as_deref().filter(|_| !curve.is_empty()) else {
                curve.sort_by_key(|(steps, _)| *steps);
                curve.dedup_by_key(|(steps, _)| *steps);
                continue;
            };
            // A crash between the curve and the line of a run leaves points of an earlier try before its own.
            let Some(own) = (0..curve.len()).find(|from| curve_digest(&curve[*from..]) == digest) else {
                let reason = format!(
                    "the curve of `{}`, seed {}, was damaged or changed after it was written; its digest should be \
                     {digest}",
                    row.entry, row.seed
                );
                return Err(self.wrong(CURVES, line, reason));
            };
            curve.drain(..own);
        }
        Ok(curves)
    }
    /// The whole lines of a file, none when it is not there. What is left of a last line is cut off.
    fn whole(&self, name: &str) -> Result<Option<String>, StudyError> {
        let path = self.path(name);
        if self.storage.kind(&path)?.is_none() {
            return Ok(None);
        }
        let mut bytes = self.storage.read(&path, MAX_LEN)?;
        let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        if whole < bytes.len() {
            self.storage.truncate(&path, whole as u64)?;
            self.storage.sync_file(&path)?;
            bytes.truncate(whole);
        }
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }
    /// The lines of a file below its header, with their numbers.
    fn lines(&self, name: &str, header: &str) -> Result<Vec<(usize, String)>, StudyError> {
        let Some(text) = self.whole(name)? else { return Ok(Vec::new()) };
        let mut lines = text.lines();
        if lines.next() != Some(header) {
            return Err(self.wrong(name, 1, format!("the first line is `{header}`")));
        }
        Ok(lines.enumerate().map(|(i, line)| (i + 2, line.to_owned())).collect())
    }
    fn wrong(&self, name: &str, line: usize, reason: String) -> StudyError {
        StudyError::Rows { path: self.path(name), line, reason }
    }
    /// Writes the lines anew: these, in this order.
    pub(super) fn rewrite<'r>(&self, rows: impl Iterator<Item = &'r RunRow>) -> Result<(), StorageError> {
        let text: String = rows.map(RunRow::to_line).collect();
        self.write(RESULTS, &format!("{HEADER}\n{text}"))
    }
    /// Puts a small file in place.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<(), StorageError> {
        write_atomic(self.storage, &self.path(name), text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_of_a_line_is_refused() {
        let row = RunRow {
            entry: "pole".into(),
            env: "CartPole-v1".into(),
            algo: "ppo".into(),
            steps: 1024,
            seed: 3,
            e: 21.5,
            t: None,
            seconds: 0.125,
            settings: "5e77".into(),
            sources: "0123".into(),
            lost: Some(0),
            curve: Some(curve_digest(&[(512, 20.0)])),
        };
        let line = row.to_line();
        let line = line.trim_end();
        assert_eq!(RunRow::from_line(line).unwrap(), row);
        for at in 0..line.len() {
            for bit in 0..7 {
                let mut flipped = line.as_bytes().to_vec();
                flipped[at] ^= 1 << bit;
                let flipped = String::from_utf8(flipped).unwrap();
                assert!(RunRow::from_line(&flipped).is_err(), "{flipped}");
            }
        }
        assert_eq!(HEADER.split(',').count(), CELLS);
    }
}
