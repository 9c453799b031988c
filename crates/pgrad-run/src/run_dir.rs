//! The folder of a run.
//!
//! ```text
//! runs/CartPole-v1-ppo-s1-20261122-171930-9f86d081884c7d65/
//!     config.toml           the effective settings, complete
//!     metrics.jsonl         what the run reports
//!     events.out.tfevents.* the same for TensorBoard
//!     changes.jsonl         settings that were changed when it was resumed
//!     checkpoints/step-N/   what `resume` continues from
//!     policy.safetensors    the trained policy
//!     turns.safetensors     the order of asynchronous actor-learners, when it is recorded
//!     run.lock              taken by the process that writes
//! ```
//!
//! A folder is made exclusively and never shared: two runs cannot write into one.

use crate::clock::WallTime;
#[cfg(unix)]
use crate::storage::Folder;
use crate::storage::{
    Entry, FsStorage, Operation, Storage, StorageError, is_leftover, parent_of, remove_leftovers,
    unique_suffix,
};
use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

/// Folder of the runs that were given no name.
pub const RUNS: &str = "runs";
/// Effective settings.
pub const CONFIG: &str = "config.toml";
/// What the run reports.
pub const METRICS: &str = "metrics.jsonl";
/// Settings that were changed when the run was resumed.
pub const CHANGES: &str = "changes.jsonl";
/// Folder of the checkpoints.
pub const CHECKPOINTS: &str = "checkpoints";
/// The trained policy.
pub const POLICY: &str = "policy.safetensors";
/// The order of asynchronous actor-learners.
pub const TURNS: &str = "turns.safetensors";
/// Taken by the process that writes.
pub const LOCK: &str = "run.lock";

/// What is wrong with the folder of a run.
#[derive(Debug, Error)]
pub enum RunDirError {
    /// The folder that was asked for is in use.
    #[error(
        "`{path}` exists and is not empty; to continue that run: `pgrad resume {path}`; for a new run choose another --run-dir",
        path = path.display()
    )]
    Taken {
        /// The folder.
        path: PathBuf,
    },
    /// The path that was asked for is not a folder.
    #[error("`{path}` is not a folder; choose another --run-dir", path = path.display())]
    NotADir {
        /// The path.
        path: PathBuf,
    },
    /// The folder holds no run.
    #[error("`{path}` is not the folder of a run: {reason}", path = path.display())]
    NotARun {
        /// The folder.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// Another process writes to it.
    #[error(
        "`{path}` is in use by another process{holder}; wait until it ends, or stop it",
        path = path.display(),
        holder = holder.map(|p| format!(" (number {p})")).unwrap_or_default()
    )]
    Locked {
        /// The folder.
        path: PathBuf,
        /// Its process number, when the lock says so.
        holder: Option<u32>,
    },
    /// Storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl RunDirError {
    /// Exit code of a command that ends with this error: 64 bad usage, 65 bad input, 74 input or output
    /// failed, 75 try again.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Taken { .. } | Self::NotADir { .. } => 64,
            Self::NotARun { .. } => 65,
            Self::Storage(_) => 74,
            Self::Locked { .. } => 75,
        }
    }
}

/// What the name of a run says of it.
#[derive(Clone, Copy, Debug)]
pub struct RunLabel<'a> {
    /// Name of the environment.
    pub env: &'a str,
    /// Name of the algorithm.
    pub algo: &'a str,
    /// Seed of the run.
    pub seed: u64,
    /// When it was started.
    pub wall: WallTime,
}

impl RunLabel<'_> {
    /// `env-algo-sSEED-yyyymmdd-hhmmss-RANDOM`, 64 random bits; letters, digits and `._-` only.
    #[must_use]
    pub fn unique_name(&self) -> String {
        let plain = |text: &str| -> String {
            let keep = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
            text.trim_start_matches('.').chars().take(64).map(keep).collect()
        };
        let (env, algo) = (plain(self.env), plain(self.algo));
        format!("{env}-{algo}-s{}-{}-{}", self.seed, self.wall.compact(), unique_suffix())
    }
}

/// The folder of a run, held against other writers as long as this lives.
#[derive(Debug)]
pub struct RunDir {
    root: PathBuf,
    lock: Lock,
}

impl RunDir {
    /// Makes the folder of a new run: `given`, which must not exist or be empty, or a new name under
    /// `runs/`.
    ///
    /// # Errors
    /// When the folder is in use or cannot be made or written.
    pub fn create(given: Option<&Path>, label: &RunLabel<'_>) -> Result<Self, RunDirError> {
        let storage = FsStorage;
        let root = match given {
            None => {
                let root = Path::new(RUNS).join(label.unique_name());
                storage.create_dir_all(Path::new(RUNS))?;
                storage.create_dir(&root)?;
                root
            }
            Some(given) => {
                // A link to an empty folder is as good as the folder.
                if given.exists() && !given.is_dir() {
                    return Err(RunDirError::NotADir { path: given.to_owned() });
                }
                storage.create_dir_all(given)?;
                if !is_unused(&storage.list(given)?) {
                    return Err(RunDirError::Taken { path: given.to_owned() });
                }
                given.to_owned()
            }
        };
        storage.sync_dir(parent_of(&root))?;
        let lock = lock(&root, true)?;
        // Another process may have found the folder empty at the same moment and been faster.
        if !is_unused(&storage.list(&root)?) {
            return Err(RunDirError::Taken { path: root });
        }
        storage.sync_dir(&root)?;
        Ok(Self { root, lock })
    }

    /// Opens the folder of an earlier run to continue it.
    ///
    /// # Errors
    /// When it is not the folder of a run, or another process writes to it.
    pub fn open(root: &Path) -> Result<Self, RunDirError> {
        check(root)?;
        let lock = lock(root, false)?;
        Ok(Self { root: root.to_owned(), lock })
    }

    /// `storage` as it is to be used for this folder: see [`Lock::storage`].
    #[must_use]
    pub fn storage(&self, storage: &Arc<dyn Storage>) -> Arc<dyn Storage> {
        self.lock.storage(storage)
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }
    /// `config.toml`.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.root.join(CONFIG)
    }
    /// `metrics.jsonl`.
    #[must_use]
    pub fn metrics(&self) -> PathBuf {
        self.root.join(METRICS)
    }
    /// `changes.jsonl`.
    #[must_use]
    pub fn changes(&self) -> PathBuf {
        self.root.join(CHANGES)
    }
    /// `checkpoints/`.
    #[must_use]
    pub fn checkpoints(&self) -> PathBuf {
        self.root.join(CHECKPOINTS)
    }
    /// `turns.safetensors`.
    #[must_use]
    pub fn turns(&self) -> PathBuf {
        self.root.join(TURNS)
    }
    /// `policy.safetensors`.
    #[must_use]
    pub fn policy(&self) -> PathBuf {
        self.root.join(POLICY)
    }
}

/// Whether `root` is the folder of a run, for commands that only read it.
///
/// # Errors
/// When it is not.
pub fn check(root: &Path) -> Result<(), RunDirError> {
    let not_a_run = |reason: String| RunDirError::NotARun { path: root.to_owned(), reason };
    if !root.exists() {
        return Err(not_a_run("it does not exist".into()));
    }
    if !root.is_dir() {
        return Err(not_a_run("it is not a folder".into()));
    }
    match FsStorage.kind(&root.join(CONFIG))? {
        Some(_) => Ok(()),
        None => Err(not_a_run(format!("it has no `{CONFIG}`"))),
    }
}

/// Whether a folder holds no more than what a start that ended before there was a configuration leaves
/// behind.
fn is_unused(entries: &[Entry]) -> bool {
    entries.iter().all(|entry| entry.name == LOCK || is_leftover(entry))
}

/// The lock of a folder. Dropping it gives it back, at once: a program that was started meanwhile from
/// another thread may hold a copy of the file for a moment, and closing ours alone would leave the lock with
/// it.
#[derive(Debug)]
pub struct Lock {
    file: File,
    /// The folder that is locked, where it can be held.
    folder: Option<Arc<dyn Storage>>,
}

impl Lock {
    /// `storage` as it is to be used for the folder. On the file system it is the very folder that is locked:
    /// when another one takes its path, that one is left alone.
    #[must_use]
    pub fn storage(&self, storage: &Arc<dyn Storage>) -> Arc<dyn Storage> {
        let folder = self.folder.as_ref().filter(|_| storage.is_file_system());
        Arc::clone(folder.unwrap_or(storage))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // When it cannot be unlocked, closing the file does it.
        let _ = self.file.unlock();
    }
}

/// Takes the lock of a folder; the lock of a `new` one is made to last. What a process that was killed has
/// left half written is removed.
///
/// # Errors
/// When another process has it, or it cannot be written.
pub fn lock(root: &Path, new: bool) -> Result<Lock, RunDirError> {
    let path = root.join(LOCK);
    let failed = |cause| StorageError::new(Operation::Lock, &path, cause);
    #[cfg(unix)]
    let (mut file, folder) = {
        let folder = Folder::open(root)?;
        let file = folder.lock_file(&path).map_err(failed)?;
        (file, Some(Arc::new(folder) as Arc<dyn Storage>))
    };
    #[cfg(not(unix))]
    let (mut file, folder) = {
        let file =
            std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        (file.map_err(failed)?, None)
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // The number helps to find the holder; without it the message is still right.
            let _ = (&mut file).take(32).read_to_string(&mut text);
            return Err(RunDirError::Locked { path: root.to_owned(), holder: text.trim().parse().ok() });
        }
        Err(TryLockError::Error(cause)) => return Err(failed(cause).into()),
    }
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())?;
        if new { file.sync_all() } else { Ok(()) }
    };
    write(&mut file).map_err(failed)?;
    remove_leftovers(folder.as_deref().unwrap_or(&FsStorage), root)?;
    Ok(Lock { file, folder })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn label() -> RunLabel<'static> {
        RunLabel { env: "ALE/Pong-v5", algo: "ppo", seed: 7, wall: WallTime::from_unix_secs(1_795_367_970) }
    }

    fn create(path: &Path) -> Result<RunDir, RunDirError> {
        RunDir::create(Some(path), &label())
    }

    #[test]
    fn names_are_plain_and_never_the_same() {
        let names: BTreeSet<String> = (0..10_000).map(|_| label().unique_name()).collect();
        assert_eq!(names.len(), 10_000);
        let name = names.first().unwrap();
        assert!(name.starts_with("ALE_Pong-v5-ppo-s7-20261122-171930-"), "{name}");
        assert_eq!(name.len(), "ALE_Pong-v5-ppo-s7-20261122-171930-".len() + 16);
        let hostile = RunLabel { env: "../../\u{1b}[2J\0é", ..label() }.unique_name();
        assert!(hostile.starts_with("___.._") || hostile.starts_with("_.._"), "{hostile}");
        assert!(hostile.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)), "{hostile}");
    }

    #[test]
    fn a_folder_in_use_is_refused_and_an_empty_one_is_fine() {
        let tmp = tempfile::tempdir().unwrap();
        let root = tmp.path().join("a/b");
        let run = create(&root).unwrap();
        assert_eq!(run.metrics(), root.join("metrics.jsonl"));
        let e = create(&root).unwrap_err();
        assert!(matches!(&e, RunDirError::Locked { .. }) && e.exit_code() == 75, "{e}");
        std::fs::write(run.config(), "").unwrap();
        let e = create(&root).unwrap_err();
        assert!(matches!(&e, RunDirError::Taken { .. }), "{e}");
        assert!(e.to_string().contains("pgrad resume"), "{e}");
        assert_eq!(e.exit_code(), 64);
        let empty = tmp.path().join("empty");
        std::fs::create_dir(&empty).unwrap();
        create(&empty).unwrap();
        let file = tmp.path().join("file");
        std::fs::write(&file, "x").unwrap();
        assert!(matches!(create(&file), Err(RunDirError::NotADir { .. })));
    }

    #[test]
    fn a_second_writer_is_refused_until_the_first_is_gone() {
        let tmp = tempfile::tempdir().unwrap();
        let root = tmp.path().join("run");
        let run = create(&root).unwrap();
        std::fs::write(run.config(), "").unwrap();
        for _ in 0..20 {
            let e = RunDir::open(&root).unwrap_err();
            assert!(
                matches!(e, RunDirError::Locked { holder, .. } if holder == Some(std::process::id())),
                "{e}"
            );
        }
        drop(run);
        let run = RunDir::open(&root).unwrap();
        assert!(RunDir::open(&root).is_err());
        drop(run);
    }

    #[test]
    fn a_start_that_ended_early_blocks_nothing() {
        let tmp = tempfile::tempdir().unwrap();
        let root = tmp.path().join("run");
        drop(create(&root).unwrap());
        let leftover = root.join("config.toml.tmp-0123456789abcdef");
        std::fs::write(&leftover, "half").unwrap();
        let run = create(&root).unwrap();
        assert!(!leftover.exists());
        // A file of somebody's own is no leftover.
        drop(run);
        std::fs::write(root.join("notes.tmp-mine"), "x").unwrap();
        assert!(matches!(create(&root), Err(RunDirError::Taken { .. })));
        assert!(root.join("notes.tmp-mine").exists());
    }

    #[cfg(unix)]
    #[test]
    fn a_lock_that_leads_elsewhere_is_refused() {
        let tmp = tempfile::tempdir().unwrap();
        let (root, victim) = (tmp.path().join("run"), tmp.path().join("victim"));
        drop(create(&root).unwrap());
        std::fs::write(root.join(CONFIG), "").unwrap();
        std::fs::write(&victim, "precious").unwrap();
        std::fs::remove_file(root.join(LOCK)).unwrap();
        std::os::unix::fs::symlink(&victim, root.join(LOCK)).unwrap();
        let e = RunDir::open(&root).unwrap_err();
        assert_eq!(e.exit_code(), 74, "{e}");
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    }

    #[test]
    fn what_is_not_a_run_is_named() {
        let tmp = tempfile::tempdir().unwrap();
        for (path, reason) in
            [(tmp.path().to_owned(), "config.toml"), (tmp.path().join("none"), "does not exist")]
        {
            let e = RunDir::open(&path).unwrap_err();
            assert!(e.to_string().contains(reason), "{e}");
            assert_eq!(e.exit_code(), 65);
        }
        assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), 0, "looking must leave nothing behind");
    }

    #[test]
    fn many_starts_at_once_share_nothing() {
        let tmp = tempfile::tempdir().unwrap();
        let root = tmp.path().join("same");
        // All but one of those who want the same folder are refused.
        let won: Vec<Option<RunDir>> = std::thread::scope(|s| {
            let all: Vec<_> = (0..32).map(|_| s.spawn(|| create(&root).ok())).collect();
            all.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(won.iter().flatten().count(), 1);
    }

    #[test]
    fn a_folder_that_cannot_be_made_says_where() {
        // A file where a parent should be fails for every user, the administrator too.
        let tmp = tempfile::tempdir().unwrap();
        let file = tmp.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let e = create(&file.join("run")).unwrap_err();
        assert_eq!(e.exit_code(), 74, "{e}");
        assert!(e.to_string().contains("file/run"), "{e}");
    }
}
