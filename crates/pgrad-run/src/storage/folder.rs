//! The file system below one folder that was opened once.
//!
//! A name is looked up in the opened folder, not along a path: a folder that was moved is written to where it
//! is now, one that was removed refuses, and another one that was made in its place is never touched. No
//! symbolic link is followed below the folder.

use super::{
    Entry, EntryKind, Operation, Storage, StorageError,
    fs::{not_regular, read_at_most},
};
use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, mkdirat, openat, renameat, statat, unlinkat},
    io::Errno,
};
use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path, PathBuf},
};

/// How a folder is opened, to look names up in it and to sync it.
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// How a file is opened: a link is refused, and a pipe does not wait for its other end.
const FILE: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);
const NEW_FILE: Mode = Mode::from_raw_mode(0o666);
const NEW_FOLDER: Mode = Mode::from_raw_mode(0o777);

/// The folder at `root`, open.
#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
    fd: OwnedFd,
}

fn failed(operation: Operation, path: &Path) -> impl FnOnce(Errno) -> StorageError {
    move |cause| StorageError::new(operation, path, cause.into())
}

fn failed_io(operation: Operation, path: &Path) -> impl FnOnce(io::Error) -> StorageError {
    move |cause| StorageError::new(operation, path, cause)
}

fn kind_of(stat: &rustix::fs::Stat) -> EntryKind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => EntryKind::Symlink,
        FileType::Directory => EntryKind::Dir,
        FileType::RegularFile => EntryKind::File { len: u64::try_from(stat.st_size).unwrap_or(0) },
        _ => EntryKind::Other,
    }
}

/// Removes what is in a folder. Links are removed, not followed.
fn empty(fd: &OwnedFd) -> Result<(), Errno> {
    for (name, kind) in entries(fd)? {
        if kind == EntryKind::Dir {
            let inner = openat(fd, &name, FOLDER | OFlags::NOFOLLOW, Mode::empty())?;
            empty(&inner)?;
            unlinkat(fd, &name, AtFlags::REMOVEDIR)?;
        } else {
            unlinkat(fd, &name, AtFlags::empty())?;
        }
    }
    Ok(())
}

fn entries(fd: &OwnedFd) -> Result<Vec<(OsString, EntryKind)>, Errno> {
    let mut all = Vec::new();
    for entry in Dir::read_from(fd)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            all.push((name.to_owned(), kind_of(&statat(fd, name, AtFlags::SYMLINK_NOFOLLOW)?)));
        }
    }
    Ok(all)
}

impl Folder {
    /// Opens the folder at `root`; a link to a folder is as good as the folder.
    pub(crate) fn open(root: &Path) -> Result<Self, StorageError> {
        let fd = openat(rustix::fs::CWD, root, FOLDER, Mode::empty());
        Ok(Self { root: root.to_owned(), fd: fd.map_err(failed(Operation::List, root))? })
    }

    /// The names that lead from the folder to `path`.
    fn names<'p>(&self, path: &'p Path) -> Result<Vec<&'p OsStr>, Errno> {
        let below = path.strip_prefix(&self.root).map_err(|_| Errno::XDEV)?;
        let name = |c| match c {
            Component::Normal(name) => Ok(name),
            _ => Err(Errno::XDEV),
        };
        below.components().filter(|c| *c != Component::CurDir).map(name).collect()
    }

    /// Opens the folder that `names` lead to.
    fn walk(&self, names: &[&OsStr]) -> Result<OwnedFd, Errno> {
        let mut fd = self.fd.try_clone().map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
        for name in names {
            fd = openat(&fd, *name, FOLDER | OFlags::NOFOLLOW, Mode::empty())?;
        }
        Ok(fd)
    }

    /// The open folder that holds `path`, and the name in it.
    fn place<'p>(&self, path: &'p Path) -> Result<(OwnedFd, &'p OsStr), Errno> {
        let names = self.names(path)?;
        let (name, folders) = names.split_last().ok_or(Errno::ISDIR)?;
        Ok((self.walk(folders)?, name))
    }

    fn open_file(&self, path: &Path, flags: OFlags) -> io::Result<File> {
        let (folder, name) = self.place(path)?;
        let fd = openat(folder, name, FILE | flags, NEW_FILE).map_err(|cause| match cause {
            Errno::LOOP => io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is a symbolic link; remove it or put the file there",
            ),
            other => other.into(),
        })?;
        match kind_of(&fstat(&fd)?) {
            EntryKind::File { .. } => Ok(fd.into()),
            other => Err(io::Error::new(io::ErrorKind::InvalidInput, not_regular(other))),
        }
    }

    /// Opens the file of a lock, which is made when missing.
    ///
    /// # Errors
    /// When it is a link, has another name somewhere else, or the system refuses.
    pub(crate) fn lock_file(&self, path: &Path) -> io::Result<File> {
        let file = self.open_file(path, OFlags::RDWR | OFlags::CREATE)?;
        if fstat(&file)?.st_nlink > 1 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is a second name of another file; remove it",
            ));
        }
        Ok(file)
    }
}

impl Storage for Folder {
    fn create_dir(&self, path: &Path) -> Result<(), StorageError> {
        self.place(path)
            .and_then(|(folder, name)| mkdirat(folder, name, NEW_FOLDER))
            .map_err(failed(Operation::CreateDir, path))
    }

    fn create_dir_all(&self, path: &Path) -> Result<(), StorageError> {
        let make = || {
            let names = self.names(path)?;
            for n in 1..=names.len() {
                match mkdirat(self.walk(&names[..n - 1])?, names[n - 1], NEW_FOLDER) {
                    Err(Errno::EXIST) | Ok(()) => {}
                    Err(e) => return Err(e),
                }
            }
            Ok(())
        };
        make().map_err(failed(Operation::CreateDir, path))
    }

    fn write_new(&self, path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
        let mut file = self
            .open_file(path, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)
            .map_err(failed_io(Operation::CreateFile, path))?;
        file.write_all(bytes).map_err(failed_io(Operation::Write, path))?;
        file.sync_all().map_err(failed_io(Operation::SyncFile, path))
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
        let mut file = self
            .open_file(path, OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND)
            .map_err(failed_io(Operation::CreateFile, path))?;
        file.write_all(bytes).map_err(failed_io(Operation::Write, path))
    }

    fn truncate(&self, path: &Path, len: u64) -> Result<(), StorageError> {
        self.open_file(path, OFlags::WRONLY)
            .and_then(|file| file.set_len(len))
            .map_err(failed_io(Operation::Truncate, path))
    }

    fn sync_file(&self, path: &Path) -> Result<(), StorageError> {
        self.open_file(path, OFlags::WRONLY)
            .and_then(|file| file.sync_all())
            .map_err(failed_io(Operation::SyncFile, path))
    }

    fn sync_dir(&self, path: &Path) -> Result<(), StorageError> {
        self.names(path)
            .and_then(|names| self.walk(&names))
            .and_then(rustix::fs::fsync)
            .map_err(failed(Operation::SyncDir, path))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), StorageError> {
        if self.kind(to)?.is_some() {
            return Err(StorageError::new(Operation::Rename, to, io::ErrorKind::AlreadyExists.into()));
        }
        self.replace(from, to)
    }

    fn replace(&self, from: &Path, to: &Path) -> Result<(), StorageError> {
        let rename = || {
            let ((old_folder, old), (new_folder, new)) = (self.place(from)?, self.place(to)?);
            renameat(old_folder, old, new_folder, new)
        };
        rename().map_err(failed(Operation::Rename, to))
    }

    fn list(&self, path: &Path) -> Result<Vec<Entry>, StorageError> {
        let list = || entries(&self.walk(&self.names(path)?)?);
        let mut all: Vec<Entry> = list()
            .map_err(failed(Operation::List, path))?
            .into_iter()
            .map(|(name, kind)| Entry { name: name.to_string_lossy().into_owned(), kind })
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    fn kind(&self, path: &Path) -> Result<Option<EntryKind>, StorageError> {
        let look = || {
            if self.names(path)?.is_empty() {
                // A folder without a name was removed.
                return match fstat(self.fd.as_fd())?.st_nlink {
                    0 => Err(Errno::NOENT),
                    _ => Ok(EntryKind::Dir),
                };
            }
            let (folder, name) = self.place(path)?;
            Ok(kind_of(&statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?))
        };
        match look() {
            Ok(kind) => Ok(Some(kind)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(failed(Operation::Inspect, path)(e)),
        }
    }

    fn read(&self, path: &Path, max_len: u64) -> Result<Vec<u8>, StorageError> {
        if let Some(EntryKind::Symlink) = self.kind(path)? {
            let cause = io::Error::new(io::ErrorKind::InvalidInput, not_regular(EntryKind::Symlink));
            return Err(StorageError::new(Operation::Read, path, cause));
        }
        let file = self.open_file(path, OFlags::RDONLY).map_err(failed_io(Operation::Read, path))?;
        read_at_most(file, max_len).map_err(failed_io(Operation::Read, path))
    }

    fn remove_file(&self, path: &Path) -> Result<(), StorageError> {
        self.place(path)
            .and_then(|(folder, name)| unlinkat(folder, name, AtFlags::empty()))
            .map_err(failed(Operation::RemoveFile, path))
    }

    fn remove_dir_all(&self, path: &Path) -> Result<(), StorageError> {
        let remove = || {
            empty(&self.walk(&self.names(path)?)?)?;
            let (folder, name) = self.place(path)?;
            unlinkat(folder, name, AtFlags::REMOVEDIR)
        };
        remove().map_err(failed(Operation::RemoveDir, path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::write_atomic;
    use std::fs;

    fn at(root: &Path) -> (Folder, PathBuf) {
        fs::create_dir(root).unwrap();
        (Folder::open(root).unwrap(), root.join("file"))
    }

    #[test]
    fn a_folder_that_is_moved_is_written_to_where_it_is() {
        let tmp = tempfile::tempdir().unwrap();
        let (root, moved) = (tmp.path().join("run"), tmp.path().join("old"));
        let (folder, file) = at(&root);
        fs::rename(&root, &moved).unwrap();
        fs::create_dir(&root).unwrap();
        folder.append(&file, b"one\n").unwrap();
        write_atomic(&folder, &root.join("settings"), b"x").unwrap();
        folder.create_dir(&root.join("inner")).unwrap();
        folder.write_new(&root.join("inner/a"), b"y").unwrap();
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
        assert_eq!(fs::read(moved.join("file")).unwrap(), b"one\n");
        assert_eq!(fs::read(moved.join("inner/a")).unwrap(), b"y");
        let names: Vec<String> = folder.list(&root).unwrap().into_iter().map(|e| e.name).collect();
        assert_eq!(names, ["file", "inner", "settings"]);
        folder.remove_dir_all(&root.join("inner")).unwrap();
        assert_eq!(folder.kind(&root.join("inner")).unwrap(), None);
    }

    #[test]
    fn a_folder_that_is_removed_refuses() {
        let tmp = tempfile::tempdir().unwrap();
        let root = tmp.path().join("run");
        let (folder, file) = at(&root);
        assert_eq!(folder.kind(&root).unwrap(), Some(EntryKind::Dir));
        fs::remove_dir(&root).unwrap();
        fs::create_dir(&root).unwrap();
        assert_eq!(folder.kind(&root).unwrap(), None);
        let e = folder.append(&file, b"x").unwrap_err();
        assert_eq!(e.cause.kind(), io::ErrorKind::NotFound, "{e}");
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    }

    #[test]
    fn links_are_not_followed_and_pipes_do_not_wait() {
        let tmp = tempfile::tempdir().unwrap();
        let (folder, file) = at(&tmp.path().join("run"));
        let victim = tmp.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, &file).unwrap();
        let refusals = [
            folder.append(&file, b"x").unwrap_err().to_string(),
            folder.truncate(&file, 0).unwrap_err().to_string(),
            folder.lock_file(&file).unwrap_err().to_string(),
            folder.read(&file, 100).unwrap_err().to_string(),
        ];
        for refusal in refusals {
            assert!(refusal.contains("it is a symbolic link"), "{refusal}");
        }
        folder.remove_file(&file).unwrap();
        fs::hard_link(&victim, &file).unwrap();
        assert!(folder.lock_file(&file).is_err());
        folder.remove_file(&file).unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"precious");

        rustix::fs::mkfifoat(rustix::fs::CWD, &file, NEW_FILE).unwrap();
        assert!(folder.read(&file, 100).unwrap_err().to_string().contains("a pipe"));
        assert!(folder.append(&file, b"x").is_err());
        // Nothing outside is reached by a name that leads out.
        assert!(folder.kind(&tmp.path().join("run/../victim")).is_err());
    }
}
