//! The file system.

use super::{Entry, EntryKind, Operation, Storage, StorageError};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

/// The file system of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct FsStorage;

fn failed(operation: Operation, path: &Path) -> impl FnOnce(io::Error) -> StorageError {
    move |cause| StorageError::new(operation, path, cause)
}

fn kind_of(meta: &fs::Metadata) -> EntryKind {
    let t = meta.file_type();
    if t.is_symlink() {
        EntryKind::Symlink
    } else if t.is_dir() {
        EntryKind::Dir
    } else if t.is_file() {
        EntryKind::File { len: meta.len() }
    } else {
        EntryKind::Other
    }
}

impl Storage for FsStorage {
    fn create_dir(&self, path: &Path) -> Result<(), StorageError> {
        fs::create_dir(path).map_err(failed(Operation::CreateDir, path))
    }

    fn create_dir_all(&self, path: &Path) -> Result<(), StorageError> {
        fs::create_dir_all(path).map_err(failed(Operation::CreateDir, path))
    }

    fn write_new(&self, path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(failed(Operation::CreateFile, path))?;
        file.write_all(bytes).map_err(failed(Operation::Write, path))?;
        file.sync_all().map_err(failed(Operation::SyncFile, path))
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .map_err(failed(Operation::CreateFile, path))?;
        file.write_all(bytes).map_err(failed(Operation::Write, path))
    }

    fn truncate(&self, path: &Path, len: u64) -> Result<(), StorageError> {
        let file = OpenOptions::new().write(true).open(path).map_err(failed(Operation::Truncate, path))?;
        file.set_len(len).map_err(failed(Operation::Truncate, path))
    }

    fn sync_file(&self, path: &Path) -> Result<(), StorageError> {
        // Opened for writing: some systems refuse to sync a file that is open for reading only.
        let file = OpenOptions::new().write(true).open(path).map_err(failed(Operation::SyncFile, path))?;
        file.sync_all().map_err(failed(Operation::SyncFile, path))
    }

    #[cfg(unix)]
    fn sync_dir(&self, path: &Path) -> Result<(), StorageError> {
        File::open(path).and_then(|d| d.sync_all()).map_err(failed(Operation::SyncDir, path))
    }

    #[cfg(not(unix))]
    fn sync_dir(&self, _path: &Path) -> Result<(), StorageError> {
        // Elsewhere a folder cannot be opened as a file; the system's journal orders its entries.
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), StorageError> {
        if self.kind(to)?.is_some() {
            return Err(StorageError::new(Operation::Rename, to, io::ErrorKind::AlreadyExists.into()));
        }
        fs::rename(from, to).map_err(failed(Operation::Rename, to))
    }

    fn replace(&self, from: &Path, to: &Path) -> Result<(), StorageError> {
        fs::rename(from, to).map_err(failed(Operation::Rename, to))
    }

    fn list(&self, path: &Path) -> Result<Vec<Entry>, StorageError> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path).map_err(failed(Operation::List, path))? {
            let entry = entry.map_err(failed(Operation::List, path))?;
            let meta =
                fs::symlink_metadata(entry.path()).map_err(failed(Operation::Inspect, &entry.path()))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            entries.push(Entry { name, kind: kind_of(&meta) });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn kind(&self, path: &Path) -> Result<Option<EntryKind>, StorageError> {
        match fs::symlink_metadata(path) {
            Ok(meta) => Ok(Some(kind_of(&meta))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(StorageError::new(Operation::Inspect, path, e)),
        }
    }

    fn read(&self, path: &Path, max_len: u64) -> Result<Vec<u8>, StorageError> {
        // Looked at before it is opened: opening a pipe would wait for its writer.
        match self.kind(path)? {
            None => {
                return Err(StorageError::new(Operation::Read, path, io::ErrorKind::NotFound.into()));
            }
            Some(EntryKind::File { .. }) => {}
            Some(other) => {
                let cause = io::Error::new(io::ErrorKind::InvalidInput, not_regular(other));
                return Err(StorageError::new(Operation::Read, path, cause));
            }
        }
        File::open(path).and_then(|file| read_at_most(file, max_len)).map_err(failed(Operation::Read, path))
    }

    fn remove_file(&self, path: &Path) -> Result<(), StorageError> {
        fs::remove_file(path).map_err(failed(Operation::RemoveFile, path))
    }

    fn remove_dir_all(&self, path: &Path) -> Result<(), StorageError> {
        fs::remove_dir_all(path).map_err(failed(Operation::RemoveDir, path))
    }

    fn is_file_system(&self) -> bool {
        true
    }
}

/// The bytes of an open file, of which there are at most `max_len`.
pub(super) fn read_at_most(file: File, max_len: u64) -> io::Result<Vec<u8>> {
    let too_large = |text: String| Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    let len = file.metadata()?.len();
    if len > max_len {
        return too_large(format!("it has {len} bytes; at most {max_len} were expected"));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
    // It may grow meanwhile: one byte more than allowed is read to see that.
    file.take(max_len.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_len {
        return too_large(format!("it has more than {max_len} bytes"));
    }
    Ok(bytes)
}

pub(super) fn not_regular(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::File { .. } => "it is a regular file",
        EntryKind::Dir => "it is a folder, not a file",
        EntryKind::Symlink => "it is a symbolic link; a regular file was expected",
        EntryKind::Other => "it is a pipe, a device or a socket; a regular file was expected",
    }
}
