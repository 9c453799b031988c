//! Samples of a minibatch as columns.

use crate::batch::{SampleSet, Samples};

/// Where the samples of a chunk lie. They are found once; each array is then gathered in a loop of its own,
/// whose reads do not wait for one another.
#[derive(Debug)]
pub(crate) struct Places(Vec<(u32, u32)>);

impl Places {
    /// Room for `samples`.
    pub(crate) fn new(samples: usize) -> Self {
        Self(Vec::with_capacity(samples))
    }
    /// Finds the samples `ids`.
    pub(crate) fn find(&mut self, set: SampleSet<'_>, ids: &[u32]) {
        self.0.clear();
        self.0.extend(ids.iter().map(|id| set.place(*id)));
    }
    /// Writes `rows` numbers of each sample, `[rows x samples]`. `of` is where a shard keeps them, a sample
    /// after the other.
    ///
    /// # Panics
    /// When `to` is too short.
    #[inline]
    pub(crate) fn gather<'a, T: Copy + 'a>(
        &self,
        set: SampleSet<'a>,
        to: &mut [T],
        rows: usize,
        of: impl Fn(&'a Samples) -> &'a [T],
    ) {
        let n = self.0.len();
        if rows == 1 {
            for (to, (shard, at)) in to[..n].iter_mut().zip(&self.0) {
                *to = of(set.shard(*shard))[*at as usize];
            }
            return;
        }
        let to = &mut to[..rows * n];
        for (j, (shard, at)) in self.0.iter().enumerate() {
            let sample = &of(set.shard(*shard))[*at as usize * rows..][..rows];
            for (r, x) in sample.iter().enumerate() {
                to[r * n + j] = *x;
            }
        }
    }
}
