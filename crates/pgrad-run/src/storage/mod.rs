//! Files and folders behind a trait, so that crashes and full disks can be tested at every operation.
//!
//! [`FsStorage`] is the file system; [`SimStorage`] lives in memory, records every operation, and can
//! 'crash' after any of them or let any of them fail.

#[cfg(unix)]
mod folder;
mod fs;
mod sim;

#[cfg(unix)]
pub(crate) use folder::Folder;
pub use fs::FsStorage;
pub use sim::{Fate, SimOp, SimStorage};

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// What was being done when storage failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Making a folder.
    CreateDir,
    /// Making a file.
    CreateFile,
    /// Writing or appending to a file.
    Write,
    /// Cutting a file.
    Truncate,
    /// Forcing a file to the disk.
    SyncFile,
    /// Forcing a folder's entries to the disk.
    SyncDir,
    /// Renaming.
    Rename,
    /// Listing a folder.
    List,
    /// Reading a file.
    Read,
    /// Asking what a path is.
    Inspect,
    /// Removing a file.
    RemoveFile,
    /// Removing a folder.
    RemoveDir,
    /// Taking the lock of a run.
    Lock,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CreateDir => "create the folder",
            Self::CreateFile => "create the file",
            Self::Write => "write to",
            Self::Truncate => "cut the end off",
            Self::SyncFile => "force to the disk the file",
            Self::SyncDir => "force to the disk the folder",
            Self::Rename => "rename",
            Self::List => "list the folder",
            Self::Read => "read",
            Self::Inspect => "look at",
            Self::RemoveFile => "remove the file",
            Self::RemoveDir => "remove the folder",
            Self::Lock => "lock",
        })
    }
}

/// A failed operation: what, on which path, why, and how to mend it.
#[derive(Debug, Error)]
#[error("cannot {operation} `{path}`: {cause}{advice}", path = path.display(), advice = advice(cause))]
pub struct StorageError {
    /// What was being done.
    pub operation: Operation,
    /// To which path (for a rename, the new name).
    pub path: PathBuf,
    /// What the operating system said.
    pub cause: io::Error,
}

impl StorageError {
    pub(crate) fn new(operation: Operation, path: &Path, cause: io::Error) -> Self {
        Self { operation, path: path.to_owned(), cause }
    }
}

/// How to mend it, as the rest of a sentence; empty when there is nothing to say.
fn advice(cause: &io::Error) -> &'static str {
    const EIO: i32 = 5;
    match cause.kind() {
        io::ErrorKind::StorageFull => {
            "; the disk is full: free some space, or put the run on another disk (--run-dir)"
        }
        io::ErrorKind::QuotaExceeded => {
            "; the quota is used up: free some space, or put the run on another disk (--run-dir)"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "; the file system is read-only: put the run on another disk (--run-dir), or mount it writable"
        }
        io::ErrorKind::PermissionDenied => {
            "; this user may not do that: change the permissions, or choose another place (--run-dir)"
        }
        io::ErrorKind::NotFound => "; check the path",
        io::ErrorKind::AlreadyExists => "; remove it, or choose another name",
        _ if cause.raw_os_error() == Some(EIO) => {
            "; the device reports an error: look into the system's log, and put the run on another disk"
        }
        _ => "",
    }
}

/// What a path is. Symbolic links are not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file of so many bytes.
    File {
        /// Length in bytes.
        len: u64,
    },
    /// A folder.
    Dir,
    /// A symbolic link, wherever it points to.
    Symlink,
    /// A pipe, a device, a socket.
    Other,
}

/// An entry of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name. Bytes that are not UTF-8 are replaced, so that such a name can be shown.
    pub name: String,
    /// What it is.
    pub kind: EntryKind,
}

/// Files and folders.
///
/// What is written is durable (survives a power cut) only after [`Storage::sync_file`], and a new, renamed
/// or removed name only after [`Storage::sync_dir`] of the folder that holds it. A failed sync means that
/// the data must be taken for lost: nobody calls it again for the same file.
pub trait Storage: Send + Sync + fmt::Debug {
    /// Makes a folder.
    ///
    /// # Errors
    /// When the name is taken, the parent is missing, or the system refuses.
    fn create_dir(&self, path: &Path) -> Result<(), StorageError>;
    /// Makes a folder and all its missing parents; one that is there already is fine.
    ///
    /// # Errors
    /// When the system refuses.
    fn create_dir_all(&self, path: &Path) -> Result<(), StorageError>;
    /// Makes a new file, writes all of it and forces it to the disk, through one handle: an error of the
    /// delayed writing is reported to the handle that wrote. The name itself needs [`Storage::sync_dir`].
    ///
    /// # Errors
    /// When the name is taken or the system refuses. Part of the file may then be there.
    fn write_new(&self, path: &Path, bytes: &[u8]) -> Result<(), StorageError>;
    /// Appends to a file, which is made when missing. Not forced to the disk.
    ///
    /// # Errors
    /// When the system refuses. Part of the bytes may then be there.
    fn append(&self, path: &Path, bytes: &[u8]) -> Result<(), StorageError>;
    /// Cuts a file to `len` bytes.
    ///
    /// # Errors
    /// When the file is missing or the system refuses.
    fn truncate(&self, path: &Path, len: u64) -> Result<(), StorageError>;
    /// Forces a file's content to the disk.
    ///
    /// # Errors
    /// When the system refuses: the content must then be taken for lost.
    fn sync_file(&self, path: &Path) -> Result<(), StorageError>;
    /// Forces a folder's entries to the disk.
    ///
    /// # Errors
    /// When the system refuses.
    fn sync_dir(&self, path: &Path) -> Result<(), StorageError>;
    /// Renames a file or folder and refuses to replace anything. One writer is assumed (the run's lock):
    /// between looking and renaming, nobody else may make the new name.
    ///
    /// # Errors
    /// When `to` exists or the system refuses.
    fn rename(&self, from: &Path, to: &Path) -> Result<(), StorageError>;
    /// Renames a file and replaces what had that name, in one step.
    ///
    /// # Errors
    /// When the system refuses.
    fn replace(&self, from: &Path, to: &Path) -> Result<(), StorageError>;
    /// The entries of a folder, in name order.
    ///
    /// # Errors
    /// When there is no such folder or the system refuses.
    fn list(&self, path: &Path) -> Result<Vec<Entry>, StorageError>;
    /// What a path is; `None` when nothing has that name. Links are not followed.
    ///
    /// # Errors
    /// When the system refuses.
    fn kind(&self, path: &Path) -> Result<Option<EntryKind>, StorageError>;
    /// Reads a regular file of at most `max_len` bytes.
    ///
    /// # Errors
    /// When it is missing, longer, not a regular file (a link, a pipe), or the system refuses.
    fn read(&self, path: &Path, max_len: u64) -> Result<Vec<u8>, StorageError>;
    /// Removes a file.
    ///
    /// # Errors
    /// When it is missing or the system refuses.
    fn remove_file(&self, path: &Path) -> Result<(), StorageError>;
    /// Removes a folder with everything in it. Links inside are removed, not followed.
    ///
    /// # Errors
    /// When it is missing or the system refuses.
    fn remove_dir_all(&self, path: &Path) -> Result<(), StorageError>;
    /// Whether this is the file system itself, of which a folder can be opened and held.
    fn is_file_system(&self) -> bool {
        false
    }
}

/// Removes the temporary files that a process that was killed within [`write_atomic`] has left in `dir`.
///
/// # Errors
/// When the folder cannot be listed, or a file in it not removed.
pub fn remove_leftovers(storage: &dyn Storage, dir: &Path) -> Result<(), StorageError> {
    for entry in storage.list(dir)?.iter().filter(|e| is_leftover(e)) {
        storage.remove_file(&dir.join(&entry.name))?;
    }
    Ok(())
}

/// Whether [`write_atomic`] has left this.
pub(crate) fn is_leftover(entry: &Entry) -> bool {
    let suffix = entry.name.rsplit_once(TEMPORARY).map_or("", |(_, suffix)| suffix);
    matches!(entry.kind, EntryKind::File { .. })
        && suffix.len() == 16
        && suffix.bytes().all(|b| b.is_ascii_hexdigit())
}

/// What comes between a file's name and the random end of its temporary name.
const TEMPORARY: &str = ".tmp-";

/// Puts `bytes` at `path` so that, whenever the machine stops, the old or the new content is there whole.
///
/// # Errors
/// As the operations of [`Storage`]; the old content then still stands.
pub fn write_atomic(storage: &dyn Storage, path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    let parent = parent_of(path);
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let temporary = parent.join(format!("{name}{TEMPORARY}{}", unique_suffix()));
    let written = storage.write_new(&temporary, bytes).and_then(|()| storage.replace(&temporary, path));
    if written.is_err() {
        // The first error is the one to report; a leftover temporary file does no harm.
        let _ = storage.remove_file(&temporary);
    }
    written?;
    storage.sync_dir(parent)
}

/// The folder that holds `path`; `.` for a bare name.
#[must_use]
pub fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    }
}

/// 64 random bits in hexadecimal, from the operating system, for names that must not collide. They never
/// enter a computation of the run.
pub(crate) fn unique_suffix() -> String {
    format!("{:016x}", RandomState::new().hash_one(std::process::id()))
}
