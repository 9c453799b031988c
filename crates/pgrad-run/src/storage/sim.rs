//! Storage in memory that can crash and fail, for tests of durability.
//!
//! Every change is a [`SimOp`] in a log. An operation becomes durable when a later sync covers it: writes
//! by a sync of their file, names by a sync of their folder. A crash after the first `k` operations keeps
//! what was durable by then and asks, for each other operation, what became of it: POSIX allows any
//! subset, in any combination, and half-written data.

use super::fs::not_regular;
use super::{Entry, EntryKind, Operation, Storage, StorageError};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One change. Files and folders are numbered; 0 is the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SimOp {
    /// A new folder or file `node` called `name` in `dir`.
    Link {
        /// Folder that holds the name.
        dir: usize,
        /// The name.
        name: String,
        /// What it names.
        node: usize,
        /// Whether `node` is a folder.
        is_dir: bool,
    },
    /// `data` at `offset` of file `node`.
    Write {
        /// The file.
        node: usize,
        /// First byte.
        offset: usize,
        /// The bytes.
        data: Vec<u8>,
    },
    /// File `node` cut to `len` bytes.
    Truncate {
        /// The file.
        node: usize,
        /// New length.
        len: usize,
    },
    /// Content of file `node` forced to the disk.
    SyncFile {
        /// The file.
        node: usize,
    },
    /// Names in folder `dir` forced to the disk.
    SyncDir {
        /// The folder.
        dir: usize,
    },
    /// `node` renamed; what had the new name is gone. One step, as POSIX promises.
    Move {
        /// Old folder.
        from_dir: usize,
        /// Old name.
        from: String,
        /// New folder.
        to_dir: usize,
        /// New name.
        to: String,
        /// What is renamed.
        node: usize,
    },
    /// A name removed.
    Unlink {
        /// Folder that held the name.
        dir: usize,
        /// The name.
        name: String,
    },
}

impl SimOp {
    /// Whether a sync `self` makes the earlier operation `op` durable.
    fn covers(&self, op: &SimOp) -> bool {
        match (self, op) {
            (Self::SyncFile { node: s }, Self::Write { node, .. } | Self::Truncate { node, .. }) => s == node,
            (Self::SyncDir { dir: s }, Self::Link { dir, .. } | Self::Unlink { dir, .. }) => s == dir,
            (Self::SyncDir { dir: s }, Self::Move { from_dir, to_dir, .. }) => s == from_dir || s == to_dir,
            _ => false,
        }
    }
}

/// What became of an operation that was not durable when the machine stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It had reached the disk.
    Kept,
    /// It had not.
    Lost,
    /// Of a write, only so many bytes had; other operations count as lost.
    Torn(usize),
    /// Of a write, so many bytes had, and the file has its full length with zeros behind them; other
    /// operations count as lost.
    Zeroed(usize),
}

#[derive(Clone, Debug)]
enum Node {
    Dir(BTreeMap<String, usize>),
    File(Vec<u8>),
}

type Nodes = BTreeMap<usize, Node>;

fn apply(nodes: &mut Nodes, op: &SimOp) {
    match op {
        SimOp::Link { dir, name, node, is_dir } => {
            // A node exists from its first link on; the log's order makes sure that links come first.
            let fresh = if *is_dir { Node::Dir(BTreeMap::new()) } else { Node::File(Vec::new()) };
            nodes.entry(*node).or_insert(fresh);
            entries_mut(nodes, *dir).insert(name.clone(), *node);
        }
        SimOp::Write { node, offset, data } => {
            let file = content_mut(nodes, *node);
            if file.len() < offset + data.len() {
                file.resize(offset + data.len(), 0);
            }
            file[*offset..offset + data.len()].copy_from_slice(data);
        }
        SimOp::Truncate { node, len } => content_mut(nodes, *node).resize(*len, 0),
        SimOp::SyncFile { .. } | SimOp::SyncDir { .. } => {}
        SimOp::Move { from_dir, from, to_dir, to, node } => {
            let old = entries_mut(nodes, *from_dir);
            if old.get(from) == Some(node) {
                old.remove(from);
            }
            entries_mut(nodes, *to_dir).insert(to.clone(), *node);
        }
        SimOp::Unlink { dir, name } => {
            entries_mut(nodes, *dir).remove(name);
        }
    }
}

fn entries_mut(nodes: &mut Nodes, dir: usize) -> &mut BTreeMap<String, usize> {
    match nodes.entry(dir).or_insert_with(|| Node::Dir(BTreeMap::new())) {
        Node::Dir(entries) => entries,
        Node::File(_) => unreachable!("node {dir} is a folder in the log"),
    }
}

fn content_mut(nodes: &mut Nodes, file: usize) -> &mut Vec<u8> {
    match nodes.entry(file).or_insert_with(|| Node::File(Vec::new())) {
        Node::File(content) => content,
        Node::Dir(_) => unreachable!("node {file} is a file in the log"),
    }
}

#[derive(Clone, Debug)]
struct Failure {
    at: usize,
    errno: i32,
    sticky: bool,
}

#[derive(Debug)]
struct State {
    /// What was durable before the first operation of the log.
    base: Nodes,
    live: Nodes,
    next_node: usize,
    ops: Vec<SimOp>,
    /// Calls of any kind, reads too: the count that [`SimStorage::fail_at`] speaks of.
    calls: usize,
    failure: Option<Failure>,
}

/// Storage in memory. Clones share one content.
#[derive(Clone, Debug)]
pub struct SimStorage {
    state: Arc<Mutex<State>>,
}

impl Default for SimStorage {
    fn default() -> Self {
        Self::new()
    }
}

impl SimStorage {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::from_nodes(BTreeMap::from([(0, Node::Dir(BTreeMap::new()))]))
    }

    fn from_nodes(nodes: Nodes) -> Self {
        let next_node = nodes.keys().next_back().map_or(1, |n| n + 1);
        let live = nodes.clone();
        let state = State { base: nodes, live, next_node, ops: Vec::new(), calls: 0, failure: None };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The changes so far, in order.
    #[must_use]
    pub fn ops(&self) -> Vec<SimOp> {
        self.state().ops.clone()
    }

    /// Number of changes so far.
    #[must_use]
    pub fn op_count(&self) -> usize {
        self.state().ops.len()
    }

    /// Number of calls so far, reads and failed ones too.
    #[must_use]
    pub fn call_count(&self) -> usize {
        self.state().calls
    }

    /// The disk as a new machine finds it when this one stopped after the first `ops` changes. `fate` is
    /// asked for each change that was not durable by then, in order, with its number.
    ///
    /// # Panics
    /// When there were fewer changes.
    #[must_use]
    pub fn crash(&self, ops: usize, mut fate: impl FnMut(usize, &SimOp) -> Fate) -> Self {
        let state = self.state();
        let log = &state.ops[..ops];
        let mut nodes = state.base.clone();
        for (i, op) in log.iter().enumerate() {
            let durable = log[i + 1..].iter().any(|later| later.covers(op));
            let fate = if durable { Fate::Kept } else { fate(i, op) };
            match (fate, op) {
                (Fate::Kept, _) => apply(&mut nodes, op),
                (Fate::Torn(n), SimOp::Write { node, offset, data }) => {
                    let data = data[..n.min(data.len())].to_vec();
                    apply(&mut nodes, &SimOp::Write { node: *node, offset: *offset, data });
                }
                (Fate::Zeroed(n), SimOp::Write { node, offset, data }) => {
                    let mut data = data.clone();
                    let n = n.min(data.len());
                    data[n..].fill(0);
                    apply(&mut nodes, &SimOp::Write { node: *node, offset: *offset, data });
                }
                // Without its name a node still exists: a later rename that was kept may name it.
                (_, SimOp::Link { node, is_dir: true, .. }) => {
                    entries_mut(&mut nodes, *node);
                }
                (_, SimOp::Link { node, is_dir: false, .. }) => {
                    content_mut(&mut nodes, *node);
                }
                _ => {}
            }
        }
        Self::from_nodes(nodes)
    }

    /// The disk as it is, all of it durable, with an empty log and no failure set: a starting point.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self::from_nodes(self.state().live.clone())
    }

    /// Lets call number `call` (from 0, reads counted) fail with the system's error number `errno`. A
    /// write that fails leaves half of its bytes.
    pub fn fail_at(&self, call: usize, errno: i32) {
        self.state().failure = Some(Failure { at: call, errno, sticky: false });
    }

    /// As [`SimStorage::fail_at`], and every later call that changes something fails too: a full or
    /// read-only disk.
    pub fn fail_from(&self, call: usize, errno: i32) {
        self.state().failure = Some(Failure { at: call, errno, sticky: true });
    }

    /// Changes a file's bytes behind everybody's back: a defect of the disk.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn corrupt(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let node = state.find(path).expect("the file to corrupt exists");
        change(content_mut(&mut state.live, node));
    }
}

fn parts(path: &Path) -> impl DoubleEndedIterator<Item = String> + '_ {
    path.components().filter_map(|c| match c {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    })
}

fn error(operation: Operation, path: &Path, kind: io::ErrorKind) -> StorageError {
    StorageError::new(operation, path, kind.into())
}

impl State {
    fn find(&self, path: &Path) -> Option<usize> {
        parts(path).try_fold(0, |node, name| match self.live.get(&node) {
            Some(Node::Dir(entries)) => entries.get(&name).copied(),
            _ => None,
        })
    }

    fn kind_of(&self, node: usize) -> EntryKind {
        match self.live.get(&node) {
            Some(Node::File(content)) => EntryKind::File { len: content.len() as u64 },
            _ => EntryKind::Dir,
        }
    }

    /// Counts a call and fails it when it is the one to fail.
    fn call(&mut self, operation: Operation, path: &Path) -> Result<(), StorageError> {
        let number = self.calls;
        self.calls += 1;
        let changes = !matches!(operation, Operation::List | Operation::Read | Operation::Inspect);
        match &self.failure {
            Some(f) if number == f.at || (f.sticky && number > f.at && changes) => {
                Err(StorageError::new(operation, path, io::Error::from_raw_os_error(f.errno)))
            }
            _ => Ok(()),
        }
    }

    fn commit(&mut self, op: SimOp) {
        apply(&mut self.live, &op);
        self.ops.push(op);
    }

    fn expect(&self, operation: Operation, path: &Path) -> Result<usize, StorageError> {
        self.find(path).ok_or_else(|| error(operation, path, io::ErrorKind::NotFound))
    }

    fn expect_file(&self, operation: Operation, path: &Path) -> Result<usize, StorageError> {
        let node = self.expect(operation, path)?;
        match self.kind_of(node) {
            EntryKind::File { .. } => Ok(node),
            other => Err(StorageError::new(
                operation,
                path,
                io::Error::new(io::ErrorKind::InvalidInput, not_regular(other)),
            )),
        }
    }

    /// The folder that holds `path`, and the name in it.
    fn place(&self, operation: Operation, path: &Path) -> Result<(usize, String), StorageError> {
        let name =
            parts(path).next_back().ok_or_else(|| error(operation, path, io::ErrorKind::InvalidInput))?;
        let parent = path.parent().unwrap_or(Path::new(""));
        let dir = self.expect(operation, parent)?;
        match self.kind_of(dir) {
            EntryKind::Dir => Ok((dir, name)),
            _ => Err(error(operation, path, io::ErrorKind::NotADirectory)),
        }
    }

    fn link(&mut self, operation: Operation, path: &Path, is_dir: bool) -> Result<usize, StorageError> {
        self.call(operation, path)?;
        let (dir, name) = self.place(operation, path)?;
        if self.find(path).is_some() {
            return Err(error(operation, path, io::ErrorKind::AlreadyExists));
        }
        let node = self.next_node;
        self.next_node += 1;
        self.commit(SimOp::Link { dir, name, node, is_dir });
        Ok(node)
    }

    fn write(&mut self, path: &Path, node: usize, bytes: &[u8]) -> Result<(), StorageError> {
        let offset = content_mut(&mut self.live, node).len();
        match self.call(Operation::Write, path) {
            Ok(()) => {
                self.commit(SimOp::Write { node, offset, data: bytes.to_vec() });
                Ok(())
            }
            Err(e) => {
                self.commit(SimOp::Write { node, offset, data: bytes[..bytes.len() / 2].to_vec() });
                Err(e)
            }
        }
    }

    fn unlink_tree(&mut self, path: &Path) -> Result<(), StorageError> {
        let node = self.expect(Operation::RemoveDir, path)?;
        let names: BTreeSet<String> = match self.live.get(&node) {
            Some(Node::Dir(entries)) => entries.keys().cloned().collect(),
            _ => return Err(error(Operation::RemoveDir, path, io::ErrorKind::NotADirectory)),
        };
        for name in names {
            let child = path.join(&name);
            match self.kind_of(self.expect(Operation::RemoveDir, &child)?) {
                EntryKind::Dir => self.unlink_tree(&child)?,
                _ => {
                    self.call(Operation::RemoveFile, &child)?;
                    self.commit(SimOp::Unlink { dir: node, name });
                }
            }
        }
        self.call(Operation::RemoveDir, path)?;
        let (dir, name) = self.place(Operation::RemoveDir, path)?;
        self.commit(SimOp::Unlink { dir, name });
        Ok(())
    }
}

impl Storage for SimStorage {
    fn create_dir(&self, path: &Path) -> Result<(), StorageError> {
        self.state().link(Operation::CreateDir, path, true).map(drop)
    }

    fn create_dir_all(&self, path: &Path) -> Result<(), StorageError> {
        let mut state = self.state();
        let mut so_far = PathBuf::new();
        for name in parts(path) {
            so_far.push(name);
            if state.find(&so_far).is_none() {
                state.link(Operation::CreateDir, &so_far, true)?;
            }
        }
        Ok(())
    }

    fn write_new(&self, path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
        let mut state = self.state();
        let node = state.link(Operation::CreateFile, path, false)?;
        state.write(path, node, bytes)?;
        state.call(Operation::SyncFile, path)?;
        state.commit(SimOp::SyncFile { node });
        Ok(())
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
        let mut state = self.state();
        let node = match state.find(path) {
            Some(_) => state.expect_file(Operation::Write, path)?,
            None => state.link(Operation::CreateFile, path, false)?,
        };
        state.write(path, node, bytes)
    }

    fn truncate(&self, path: &Path, len: u64) -> Result<(), StorageError> {
        let mut state = self.state();
        state.call(Operation::Truncate, path)?;
        let node = state.expect_file(Operation::Truncate, path)?;
        let len = usize::try_from(len)
            .map_err(|_| error(Operation::Truncate, path, io::ErrorKind::FileTooLarge))?;
        state.commit(SimOp::Truncate { node, len });
        Ok(())
    }

    fn sync_file(&self, path: &Path) -> Result<(), StorageError> {
        let mut state = self.state();
        state.call(Operation::SyncFile, path)?;
        let node = state.expect_file(Operation::SyncFile, path)?;
        state.commit(SimOp::SyncFile { node });
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> Result<(), StorageError> {
        let mut state = self.state();
        state.call(Operation::SyncDir, path)?;
        let dir = state.expect(Operation::SyncDir, path)?;
        state.commit(SimOp::SyncDir { dir });
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), StorageError> {
        if self.state().find(to).is_some() {
            return Err(error(Operation::Rename, to, io::ErrorKind::AlreadyExists));
        }
        self.replace(from, to)
    }

    fn replace(&self, from: &Path, to: &Path) -> Result<(), StorageError> {
        let mut state = self.state();
        state.call(Operation::Rename, to)?;
        let node = state.expect(Operation::Rename, from)?;
        let (from_dir, from) = state.place(Operation::Rename, from)?;
        let (to_dir, to) = state.place(Operation::Rename, to)?;
        state.commit(SimOp::Move { from_dir, from, to_dir, to, node });
        Ok(())
    }

    fn list(&self, path: &Path) -> Result<Vec<Entry>, StorageError> {
        let mut state = self.state();
        state.call(Operation::List, path)?;
        let node = state.expect(Operation::List, path)?;
        match state.live.get(&node) {
            Some(Node::Dir(entries)) => Ok(entries
                .iter()
                .map(|(name, child)| Entry { name: name.clone(), kind: state.kind_of(*child) })
                .collect()),
            _ => Err(error(Operation::List, path, io::ErrorKind::NotADirectory)),
        }
    }

    fn kind(&self, path: &Path) -> Result<Option<EntryKind>, StorageError> {
        let mut state = self.state();
        state.call(Operation::Inspect, path)?;
        Ok(state.find(path).map(|node| state.kind_of(node)))
    }

    fn read(&self, path: &Path, max_len: u64) -> Result<Vec<u8>, StorageError> {
        let mut state = self.state();
        state.call(Operation::Read, path)?;
        let node = state.expect_file(Operation::Read, path)?;
        let content = content_mut(&mut state.live, node);
        if content.len() as u64 > max_len {
            return Err(error(Operation::Read, path, io::ErrorKind::FileTooLarge));
        }
        Ok(content.clone())
    }

    fn remove_file(&self, path: &Path) -> Result<(), StorageError> {
        let mut state = self.state();
        state.call(Operation::RemoveFile, path)?;
        state.expect_file(Operation::RemoveFile, path)?;
        let (dir, name) = state.place(Operation::RemoveFile, path)?;
        state.commit(SimOp::Unlink { dir, name });
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> Result<(), StorageError> {
        self.state().unlink_tree(path)
    }
}
