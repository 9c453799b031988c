//! Checkpoints that survive a crash at any moment, and a loader that believes nothing.
//!
//! `checkpoints/step-N/` holds the files of one checkpoint and `manifest.json`, which names each with its
//! length and BLAKE3 digest and carries a digest of itself.
//!
//! **Saving**: everything is written to `step-N.tmp-XXXX/`, each file forced to the disk, the manifest
//! last; the folder is forced to the disk, renamed to `step-N` (never over an existing name), and the
//! rename forced to the disk. Only then are old checkpoints removed. So `step-N` is whole whenever it is
//! there, and what [`CheckpointStore::save`] returned `Ok` for is never lost.
//!
//! **Loading** checks everything before it hands anything out: the manifest byte for byte, the list of
//! files, their kinds, lengths and digests. Memory is taken only for bytes that are there.

use crate::storage::{Entry, EntryKind, Operation, Storage, StorageError, parent_of, unique_suffix};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

/// Version of the format that this program writes and reads.
pub const FORMAT_VERSION: u32 = 1;
/// What the manifest of a checkpoint says it is.
const KIND: &str = "pgrad-checkpoint";
const MANIFEST: &str = "manifest.json";
/// Longest accepted manifest.
const MAX_MANIFEST_LEN: u64 = 1 << 20;
/// Most files in a checkpoint.
const MAX_FILES: usize = 4_096;
/// Longest name of a file in a checkpoint.
const MAX_NAME_LEN: usize = 128;
const TEMPORARY: &str = ".tmp-";

/// One file in a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Plain name, `[a-z0-9._-]`.
    pub name: String,
    /// Length in bytes.
    pub length: u64,
    /// BLAKE3 digest in hexadecimal.
    pub blake3: String,
}

/// What a checkpoint says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the format, [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Version of the program that wrote it.
    pub code_version: String,
    /// What it is.
    pub kind: String,
    /// Environment steps done.
    pub step: u64,
    /// The files, in name order.
    pub files: Vec<FileEntry>,
    /// BLAKE3 digest of this manifest as written, with this field empty.
    pub digest: String,
}

impl Manifest {
    fn new(step: u64, files: &[(&str, &[u8])]) -> Self {
        let mut entries: Vec<FileEntry> = files
            .iter()
            .map(|(name, bytes)| FileEntry {
                name: (*name).to_owned(),
                length: bytes.len() as u64,
                blake3: blake3::hash(bytes).to_hex().to_string(),
            })
            .collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let mut manifest = Self {
            format_version: FORMAT_VERSION,
            code_version: env!("CARGO_PKG_VERSION").to_owned(),
            kind: KIND.to_owned(),
            step,
            files: entries,
            digest: String::new(),
        };
        manifest.digest = manifest.own_digest();
        manifest
    }

    /// The one way to write this manifest.
    fn to_bytes(&self) -> Vec<u8> {
        // Writing strings and integers to memory cannot fail.
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    fn own_digest(&self) -> String {
        let blank = Self { digest: String::new(), ..self.clone() };
        blake3::hash(&blank.to_bytes()).to_hex().to_string()
    }

    fn parse(bytes: &[u8]) -> Result<Self, Defect> {
        // The version alone first: a later format may have fields that are unknown here.
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
            #[serde(default)]
            code_version: String,
        }
        let malformed = |e: serde_json::Error| Defect::Malformed { reason: e.to_string() };
        let version: Version = serde_json::from_slice(bytes).map_err(malformed)?;
        if version.format_version != FORMAT_VERSION {
            // Shown to a person: nothing that could act on a terminal.
            let plain = |c: &char| c.is_ascii_alphanumeric() || ".-+_".contains(*c);
            return Err(Defect::FormatVersion {
                found: version.format_version,
                written_by: version.code_version.chars().filter(plain).take(32).collect(),
            });
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(malformed)?;
        if manifest.to_bytes() != bytes {
            return Err(Defect::NotCanonical);
        }
        if manifest.own_digest() != manifest.digest {
            return Err(Defect::ManifestDigest);
        }
        if manifest.kind != KIND {
            return Err(Defect::Kind { found: manifest.kind });
        }
        if manifest.files.len() > MAX_FILES {
            return Err(Defect::TooManyFiles { count: manifest.files.len() });
        }
        for entry in &manifest.files {
            if !is_plain_name(&entry.name) {
                return Err(Defect::FileName { name: entry.name.clone() });
            }
        }
        for pair in manifest.files.windows(2) {
            if pair[0].name >= pair[1].name {
                return Err(Defect::DuplicateFile { name: pair[1].name.clone() });
            }
        }
        Ok(manifest)
    }
}

/// Whether `name` can be a file of a checkpoint. Small letters only, so that no two names are one name on a
/// file system that ignores case; no separator, no leading dot, so that no name leads out of the folder.
fn is_plain_name(name: &str) -> bool {
    (1..=MAX_NAME_LEN).contains(&name.len())
        && !name.starts_with('.')
        && name != MANIFEST
        && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
}

/// Why a checkpoint is not valid.
#[derive(Debug, Error)]
pub enum Defect {
    /// There is no manifest: saving was interrupted, or the folder is not a checkpoint.
    #[error("it has no `{MANIFEST}`")]
    NoManifest,
    /// The manifest is not the JSON that it should be.
    #[error("`{MANIFEST}` is malformed: {reason}")]
    Malformed {
        /// What the parser found.
        reason: String,
    },
    /// The manifest was written by another version of the format.
    #[error(
        "it has format version {found} (written by pgrad {written_by}), but this program reads version \
         {FORMAT_VERSION}; use pgrad {written_by}"
    )]
    FormatVersion {
        /// Version found.
        found: u32,
        /// Program version that wrote it.
        written_by: String,
    },
    /// The manifest says the right things in other bytes than those that were written.
    #[error("`{MANIFEST}` was changed after it was written (spacing, order or spelling)")]
    NotCanonical,
    /// The manifest was changed.
    #[error("`{MANIFEST}` was changed after it was written: its digest does not match")]
    ManifestDigest,
    /// The manifest is that of something else.
    #[error("it is a {found:?}, not a {KIND:?}")]
    Kind {
        /// What it says it is.
        found: String,
    },
    /// The folder's name and the manifest disagree.
    #[error("its folder says step {folder}, its manifest step {manifest}")]
    Step {
        /// Step in the folder's name.
        folder: u64,
        /// Step in the manifest.
        manifest: u64,
    },
    /// More files than a checkpoint may have.
    #[error("its manifest names {count} files, but the limit is {MAX_FILES}")]
    TooManyFiles {
        /// Number of files.
        count: usize,
    },
    /// A name that could lead out of the folder, or that this program does not write.
    #[error("its manifest names a file {name:?}; only lower-case letters, digits and `._-` are allowed")]
    FileName {
        /// The name.
        name: String,
    },
    /// Names that are not in strict order.
    #[error("its manifest names {name:?} twice, or not in order")]
    DuplicateFile {
        /// The name.
        name: String,
    },
    /// A file that the manifest names is not there.
    #[error("its file `{name}` is missing")]
    MissingFile {
        /// The name.
        name: String,
    },
    /// A link, folder, pipe or device in place of a file.
    #[error("{name:?} in it is {what}, not a regular file")]
    NotRegular {
        /// The name.
        name: String,
        /// What it is.
        what: &'static str,
    },
    /// A file of another length.
    #[error("its file `{name}` has {found} bytes, its manifest says {expected}")]
    Length {
        /// The name.
        name: String,
        /// Length in the manifest.
        expected: u64,
        /// Length found.
        found: u64,
    },
    /// A file of other content.
    #[error("its file `{name}` was changed after it was written: its digest does not match")]
    FileDigest {
        /// The name.
        name: String,
    },
    /// A folder that is called like a checkpoint and is none.
    #[error("it is {what}, not a folder called step-N")]
    NotACheckpoint {
        /// What it is.
        what: &'static str,
    },
    /// It could not be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// A checkpoint that was passed over, and why.
#[derive(Debug)]
pub struct Skipped {
    /// Its folder.
    pub path: PathBuf,
    /// What is wrong with it.
    pub defect: Defect,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.path.display(), self.defect)
    }
}

/// What went wrong with a checkpoint.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// Saving failed; the earlier checkpoints stand.
    #[error("the checkpoint of step {step} was not saved (earlier ones are untouched): {cause}")]
    NotSaved {
        /// Step of the checkpoint.
        step: u64,
        /// The operation that failed.
        cause: StorageError,
    },
    /// A valid checkpoint of this step with other content is there.
    #[error(
        "`{path}` already exists and holds another state; remove it, or continue in a new run folder",
        path = path.display()
    )]
    AlreadySaved {
        /// Its folder.
        path: PathBuf,
    },
    /// The folder of checkpoints could not be read.
    #[error("cannot read the checkpoints: {0}")]
    Unreadable(#[source] StorageError),
    /// No checkpoint is there, or none is valid.
    #[error(
        "no valid checkpoint in `{dir}`{list}; start a new run",
        dir = dir.display(),
        list = list(skipped)
    )]
    NoneValid {
        /// The folder of checkpoints.
        dir: PathBuf,
        /// What was found, newest first.
        skipped: Vec<Skipped>,
    },
    /// The checkpoint that was asked for is not valid.
    #[error("checkpoint {0}. `resume` falls back to the newest valid one")]
    Invalid(Skipped),
}

impl CheckpointError {
    /// Exit code of a command that ends with this error: 65 bad input, 74 input or output failed.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotSaved { .. } | Self::Unreadable(_) => 74,
            Self::AlreadySaved { .. } | Self::NoneValid { .. } | Self::Invalid(_) => 65,
        }
    }
}

fn list(skipped: &[Skipped]) -> String {
    if skipped.is_empty() {
        return " (it holds none at all)".into();
    }
    skipped.iter().map(|s| format!("\n  skipped {s}")).collect()
}

/// A checkpoint that was saved.
#[derive(Debug)]
pub struct Saved {
    /// Its folder.
    pub path: PathBuf,
    /// Bytes in it, the manifest not counted.
    pub bytes: u64,
    /// The checkpoint is safe, but something old could not be removed.
    pub cleanup: Option<StorageError>,
}

/// A checkpoint that was loaded and is valid.
#[derive(Debug)]
pub struct Loaded {
    /// Environment steps done.
    pub step: u64,
    /// Content of each file.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Newer checkpoints that are not valid, newest first.
    pub skipped: Vec<Skipped>,
}

/// The checkpoints of one run.
#[derive(Clone, Debug)]
pub struct CheckpointStore {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    keep: usize,
}

impl CheckpointStore {
    /// Checkpoints in `dir` (made at the first save), of which the newest `keep` valid ones are kept; less
    /// than two are never kept.
    #[must_use]
    pub fn new(storage: Arc<dyn Storage>, dir: impl Into<PathBuf>, keep: usize) -> Self {
        Self { storage, dir: dir.into(), keep: keep.max(2) }
    }

    /// The folder of the checkpoint of `step`.
    #[must_use]
    pub fn path(&self, step: u64) -> PathBuf {
        self.dir.join(format!("step-{step}"))
    }

    /// Saves a checkpoint. When this returns `Ok`, it is on the disk.
    ///
    /// Saving again what is saved already is fine. A damaged checkpoint of the same step is put aside and
    /// replaced.
    ///
    /// # Errors
    /// When storage fails (all earlier checkpoints stand), or when there is a valid checkpoint of this step
    /// with another content.
    ///
    /// # Panics
    /// When a name is not plain (`[a-z0-9._-]`, no leading dot, not `manifest.json`) or is given twice: the
    /// names come from the program.
    pub fn save(&self, step: u64, files: &[(&str, &[u8])]) -> Result<Saved, CheckpointError> {
        let mut names = BTreeSet::new();
        for (name, _) in files {
            assert!(is_plain_name(name), "`{name}` is not a valid name for a file in a checkpoint");
            assert!(names.insert(*name), "two files of the checkpoint are called `{name}`");
        }
        assert!(files.len() <= MAX_FILES, "{} files in a checkpoint", files.len());
        let manifest = Manifest::new(step, files);
        let path = self.path(step);
        let bytes = files.iter().map(|(_, b)| b.len() as u64).sum();
        let not_saved = |cause| CheckpointError::NotSaved { step, cause };

        self.make_dir().map_err(not_saved)?;
        let mut cleanup = self.remove_leftovers().err();
        let taken = self.storage.kind(&path).map_err(not_saved)?.is_some();
        if taken && let Ok(old) = self.check(step) {
            if old.manifest.files != manifest.files {
                return Err(CheckpointError::AlreadySaved { path });
            }
            // It may have been renamed by a save that could not force the rename to the disk.
            self.storage.sync_dir(&self.dir).map_err(not_saved)?;
            return Ok(Saved { path, bytes, cleanup });
        }

        let temporary = self.temporary(step);
        if let Err(cause) = self.write(&temporary, files, &manifest, taken.then_some(step), &path) {
            // Makes room on a full disk. The first error is the one to report.
            let _ = self.storage.remove_dir_all(&temporary);
            return Err(not_saved(cause));
        }
        self.storage.sync_dir(&self.dir).map_err(not_saved)?;
        if let Err(e) = self.prune(step) {
            cleanup = Some(e);
        }
        Ok(Saved { path, bytes, cleanup })
    }

    fn make_dir(&self) -> Result<(), StorageError> {
        if self.storage.kind(&self.dir)?.is_none() {
            self.storage.create_dir(&self.dir)?;
        }
        // Also when it was there: a crash may have come between making it and this.
        self.storage.sync_dir(parent_of(&self.dir))
    }

    fn temporary(&self, step: u64) -> PathBuf {
        self.dir.join(format!("step-{step}{TEMPORARY}{}", unique_suffix()))
    }

    /// Writes all of a checkpoint to `temporary` and gives it its name.
    fn write(
        &self,
        temporary: &Path,
        files: &[(&str, &[u8])],
        manifest: &Manifest,
        damaged: Option<u64>,
        path: &Path,
    ) -> Result<(), StorageError> {
        self.storage.create_dir(temporary)?;
        for (name, bytes) in files {
            self.storage.write_new(&temporary.join(name), bytes)?;
        }
        self.storage.write_new(&temporary.join(MANIFEST), &manifest.to_bytes())?;
        self.storage.sync_dir(temporary)?;
        if let Some(step) = damaged {
            self.storage.rename(path, &self.temporary(step))?;
        }
        self.storage.rename(temporary, path)
    }

    /// Removes what interrupted saves and removals have left.
    fn remove_leftovers(&self) -> Result<(), StorageError> {
        let mut first_error = None;
        for entry in self.storage.list(&self.dir)? {
            if entry.name.starts_with("step-") && entry.name.contains(TEMPORARY) {
                first_error = first_error.or(self.remove_entry(&self.dir.join(&entry.name)).err());
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Removes what is older than the newest `keep` valid checkpoints; never the one of step `saved`.
    fn prune(&self, saved: u64) -> Result<(), StorageError> {
        let mut valid = 0;
        let mut old = Vec::new();
        for step in self.steps()? {
            if valid >= self.keep && step != saved {
                old.push(step);
            } else if step == saved || self.check(step).is_ok() {
                valid += 1;
            }
        }
        self.remove(&old)
    }

    /// Removes checkpoints so that a half-removed one never looks like a checkpoint.
    fn remove(&self, steps: &[u64]) -> Result<(), StorageError> {
        if steps.is_empty() {
            return Ok(());
        }
        let mut aside = Vec::new();
        for step in steps {
            let to = self.temporary(*step);
            self.storage.rename(&self.path(*step), &to)?;
            aside.push(to);
        }
        self.storage.sync_dir(&self.dir)?;
        aside.iter().try_for_each(|path| self.remove_entry(path))
    }

    /// Removes what is at `path`: what is called like a checkpoint may be a file that somebody put there.
    fn remove_entry(&self, path: &Path) -> Result<(), StorageError> {
        match self.storage.kind(path)? {
            None => Ok(()),
            Some(EntryKind::Dir) => self.storage.remove_dir_all(path),
            Some(_) => self.storage.remove_file(path),
        }
    }

    /// Steps of the folders that are called like checkpoints, newest first. Nothing is checked.
    ///
    /// # Errors
    /// When the folder cannot be listed. One that does not exist holds none.
    pub fn steps(&self) -> Result<Vec<u64>, StorageError> {
        let mut steps: Vec<u64> = self.entries()?.iter().filter_map(|e| step_of(&e.name)).collect();
        steps.sort_unstable_by(|a, b| b.cmp(a));
        Ok(steps)
    }

    fn entries(&self) -> Result<Vec<Entry>, StorageError> {
        match self.storage.kind(&self.dir)? {
            None => Ok(Vec::new()),
            Some(_) => self.storage.list(&self.dir),
        }
    }

    /// Loads the newest valid checkpoint and says what it passed over.
    ///
    /// # Errors
    /// When there is none, or the folder cannot be listed.
    pub fn load_newest(&self) -> Result<Loaded, CheckpointError> {
        let mut skipped: Vec<Skipped> = Vec::new();
        for entry in self.entries().map_err(CheckpointError::Unreadable)? {
            if entry.name.starts_with("step-")
                && step_of(&entry.name).is_none()
                && !entry.name.contains(TEMPORARY)
            {
                let defect = Defect::NotACheckpoint { what: what(entry.kind) };
                skipped.push(Skipped { path: self.dir.join(entry.name), defect });
            }
        }
        self.load_from(u64::MAX, skipped)
    }

    /// Loads the newest valid checkpoint before `step`: for one that is whole and cannot be used.
    ///
    /// # Errors
    /// As [`CheckpointStore::load_newest`].
    pub fn load_before(&self, step: u64) -> Result<Loaded, CheckpointError> {
        self.load_from(step, Vec::new())
    }

    fn load_from(&self, before: u64, mut skipped: Vec<Skipped>) -> Result<Loaded, CheckpointError> {
        let steps = self.steps().map_err(CheckpointError::Unreadable)?;
        for step in steps.into_iter().filter(|step| before == u64::MAX || *step < before) {
            match self.check(step) {
                Ok(found) => return Ok(Loaded { step, files: found.files, skipped }),
                Err(defect) => skipped.push(Skipped { path: self.path(step), defect }),
            }
        }
        Err(CheckpointError::NoneValid { dir: self.dir.clone(), skipped })
    }

    /// Loads the checkpoint of `step` and no other.
    ///
    /// # Errors
    /// When it is not valid.
    pub fn load(&self, step: u64) -> Result<Loaded, CheckpointError> {
        match self.check(step) {
            Ok(found) => Ok(Loaded { step, files: found.files, skipped: Vec::new() }),
            Err(defect) => Err(CheckpointError::Invalid(Skipped { path: self.path(step), defect })),
        }
    }

    /// Checks the checkpoint of `step`, and says what it says of itself.
    ///
    /// # Errors
    /// When it is not valid.
    pub fn verify(&self, step: u64) -> Result<Manifest, CheckpointError> {
        match self.check(step) {
            Ok(found) => Ok(found.manifest),
            Err(defect) => Err(CheckpointError::Invalid(Skipped { path: self.path(step), defect })),
        }
    }

    /// Removes all checkpoints after `step`, valid or not: for a run that goes back and then differs.
    ///
    /// # Errors
    /// When storage fails.
    pub fn discard_after(&self, step: u64) -> Result<(), StorageError> {
        let newer: Vec<u64> = self.steps()?.into_iter().filter(|s| *s > step).collect();
        self.remove(&newer)
    }

    fn check(&self, step: u64) -> Result<Checked, Defect> {
        let dir = self.path(step);
        match self.storage.kind(&dir)? {
            Some(EntryKind::Dir) => {}
            Some(other) => return Err(Defect::NotACheckpoint { what: what(other) }),
            None => {
                let missing = StorageError::new(Operation::List, &dir, std::io::ErrorKind::NotFound.into());
                return Err(missing.into());
            }
        }
        // What else lies in the folder, as a file manager leaves it there, is nothing to a checkpoint.
        let kinds: BTreeMap<String, EntryKind> =
            self.storage.list(&dir)?.into_iter().map(|entry| (entry.name, entry.kind)).collect();
        let length = |name: &str| match kinds.get(name) {
            Some(EntryKind::File { len }) => Ok(Some(*len)),
            Some(other) => Err(Defect::NotRegular { name: name.to_owned(), what: what(*other) }),
            None => Ok(None),
        };
        if length(MANIFEST)?.is_none() {
            return Err(Defect::NoManifest);
        }
        let manifest = Manifest::parse(&self.storage.read(&dir.join(MANIFEST), MAX_MANIFEST_LEN)?)?;
        if manifest.step != step {
            return Err(Defect::Step { folder: step, manifest: manifest.step });
        }
        for entry in &manifest.files {
            let name = || entry.name.clone();
            match length(&entry.name)? {
                None => return Err(Defect::MissingFile { name: name() }),
                Some(found) if found != entry.length => {
                    return Err(Defect::Length { name: name(), expected: entry.length, found });
                }
                Some(_) => {}
            }
        }
        let mut files = BTreeMap::new();
        for entry in &manifest.files {
            let bytes = self.storage.read(&dir.join(&entry.name), entry.length)?;
            // Equal digests imply equal lengths, should the file have shrunk meanwhile.
            if blake3::hash(&bytes).to_hex().as_str() != entry.blake3 {
                return Err(Defect::FileDigest { name: entry.name.clone() });
            }
            files.insert(entry.name.clone(), bytes);
        }
        Ok(Checked { manifest, files })
    }
}

struct Checked {
    manifest: Manifest,
    files: BTreeMap<String, Vec<u8>>,
}

/// The step in `step-N`, when it is written as this program writes it.
fn step_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("step-")?;
    let step: u64 = digits.parse().ok()?;
    (step.to_string() == digits).then_some(step)
}

fn what(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::File { .. } => "a file",
        EntryKind::Dir => "a folder",
        EntryKind::Symlink => "a symbolic link",
        EntryKind::Other => "a pipe, a device or a socket",
    }
}
