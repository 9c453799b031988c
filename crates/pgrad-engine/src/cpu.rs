//! The threads of this process.

use pgrad_num::Team;
use pgrad_optim::{Part, RunParts};
use std::sync::Arc;

/// The threads that engine and collector share. Pieces of work are handed out by number: what comes of a
/// piece belongs to the piece, so that a result does not depend on how many threads there are.
#[derive(Clone, Debug)]
pub struct Cpu(Arc<Team>);

impl Cpu {
    /// `threads` threads, the caller's included.
    ///
    /// # Errors
    /// When the system refuses a thread.
    ///
    /// # Panics
    /// When `threads` is 0.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        Ok(Self(Arc::new(Team::new(threads)?)))
    }
    /// Number of threads, the caller's included.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.0.threads()
    }
    /// One `T` for each thread: scratch for [`Cpu::each_with`].
    pub fn scratch<T>(&self, make: impl FnMut() -> T) -> Vec<T> {
        std::iter::repeat_with(make).take(self.threads()).collect()
    }
    /// Runs `f(i, &mut items[i])` for every item, and returns when all are done.
    ///
    /// # Panics
    /// When `f` panics.
    pub fn each<T: Send>(&self, items: &mut [T], f: impl Fn(usize, &mut T) + Sync) {
        self.0.each(items, f);
    }
    /// [`Cpu::each`] with scratch for each thread.
    ///
    /// # Panics
    /// When `scratch` has fewer elements than there are threads, or `f` panics.
    pub fn each_with<T: Send, S: Send>(
        &self,
        items: &mut [T],
        scratch: &mut [S],
        f: impl Fn(usize, &mut T, &mut S) + Sync,
    ) {
        self.0.each_with(items, scratch, f);
    }
    /// [`Cpu::each`] for pieces of a few microseconds: each stays with the thread that had it the last time.
    ///
    /// # Panics
    /// When `f` panics.
    pub fn each_near<T: Send>(&self, items: &mut [T], f: impl Fn(usize, &mut T) + Sync) {
        self.0.each_near(items, f);
    }
    /// Runs `f(i, &mut a[i], &mut b[i])` for every index, and returns when all are done.
    ///
    /// # Panics
    /// When the slices differ in length, or `f` panics.
    pub fn each_zip<A: Send, B: Send>(
        &self,
        a: &mut [A],
        b: &mut [B],
        f: impl Fn(usize, &mut A, &mut B) + Sync,
    ) {
        self.0.each_zip(a, b, f);
    }
}

impl RunParts for Cpu {
    fn run(&self, parts: &mut [Part<'_, f32>], step: &(dyn Fn(&mut Part<'_, f32>) + Sync)) {
        self.each_near(parts, |_, part| step(part));
    }
}
