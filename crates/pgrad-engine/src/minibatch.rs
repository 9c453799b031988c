//! Which samples make a minibatch.

use crate::Store;
use pgrad_num::{Record, RecordError, Stream};

/// Purpose number of the stream that shuffles.
const STREAM_SHUFFLE: u32 = 3;

/// Some samples of a batch, by number, and which minibatch of which epoch they are: what errors name.
#[derive(Clone, Copy, Debug)]
pub struct Minibatch<'a> {
    /// The samples; those of a recurrent model in whole sequences, one after the other.
    pub ids: &'a [u32],
    /// The pass over the data, from 0.
    pub epoch: usize,
    /// The minibatch of that pass, from 0.
    pub number: usize,
}

impl<'a> Minibatch<'a> {
    /// All of a batch at once, in pass `epoch`.
    #[must_use]
    pub fn whole(ids: &'a [u32], epoch: usize) -> Self {
        Self { ids, epoch, number: 0 }
    }
}

/// The samples of a batch in a new random order for every epoch, cut into minibatches. Sequences of a
/// recurrent model stay whole, and are what is put in order.
#[derive(Clone, Debug)]
pub struct Minibatches {
    order: Vec<u32>,
    size: usize,
    rng: Stream,
    sequences: Option<Sequences>,
}

/// How samples make sequences.
#[derive(Clone, Debug)]
struct Sequences {
    length: usize,
    /// Of each its first sample, and how far apart the numbers of its samples are.
    all: Vec<(u32, u32)>,
    order: Vec<u32>,
}

impl Sequences {
    /// Writes the samples, sequence after sequence.
    fn write(&self, samples: &mut [u32]) {
        for (samples, sequence) in samples.chunks_exact_mut(self.length).zip(&self.order) {
            let (first, stride) = self.all[*sequence as usize];
            for (t, sample) in samples.iter_mut().enumerate() {
                *sample = first + t as u32 * stride;
            }
        }
    }
}

impl Minibatches {
    /// Minibatches of `size` of `samples` samples, or 0 until [`Minibatches::resize`]. The last one of an
    /// epoch is smaller when `size` does not divide `samples`.
    ///
    /// # Panics
    /// When `size` is 0.
    #[must_use]
    pub fn new(samples: usize, size: usize, seed: u64) -> Self {
        assert!(size > 0, "a minibatch has at least one sample");
        Self {
            order: (0..samples as u32).collect(),
            size: if samples == 0 { size } else { size.min(samples) },
            rng: Stream::new(seed, STREAM_SHUFFLE, 0),
            sequences: None,
        }
    }
    /// Minibatches of `size` of the samples of `store`, or of its sequences when its model is recurrent.
    ///
    /// # Panics
    /// When `size` is 0, or cuts a sequence.
    #[must_use]
    pub fn of(store: &Store, size: usize, seed: u64) -> Self {
        let mut minibatches = Self::new(store.len(), size, seed);
        if let Some((length, sequences)) = store.sequences() {
            assert_eq!(minibatches.size % length, 0, "a minibatch holds whole sequences of {length} steps");
            let all: Vec<_> = sequences.collect();
            let sequences = Sequences { length, order: (0..all.len() as u32).collect(), all };
            sequences.write(&mut minibatches.order);
            minibatches.sequences = Some(sequences);
        }
        minibatches
    }
    /// From now on there are `samples` samples, in batches whose size varies. Minibatches keep the size that
    /// they were made for.
    pub fn resize(&mut self, samples: usize) {
        debug_assert!(self.sequences.is_none() || samples == self.order.len());
        self.order.resize(samples, 0);
    }
    /// From now on the samples are those of `store`, in its order: their number varies with whole episodes,
    /// and where some are lost.
    ///
    /// # Panics
    /// When the batch has sequences and the one that these minibatches were made for had none, or the other
    /// way round.
    pub fn follow(&mut self, store: &Store) {
        match (&mut self.sequences, store.sequences()) {
            (None, None) => {}
            (Some(own), Some((_, all))) => {
                own.all.clear();
                own.all.extend(all);
                own.order.resize(own.all.len(), 0);
            }
            _ => panic!("a model stays recurrent, or not"),
        }
        store.write_order(&mut self.order);
    }
    /// Number of minibatches of an epoch.
    #[must_use]
    pub fn count(&self) -> usize {
        self.order.len().div_ceil(self.size)
    }
    /// Size of the largest minibatch.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }
    /// All samples, in the order of the epoch.
    #[must_use]
    pub fn all(&self) -> &[u32] {
        &self.order
    }
    /// Draws the order of the next epoch.
    ///
    /// The order starts from the identity each time, so that it depends on the stream's position only.
    pub fn shuffle(&mut self) {
        let Self { order, rng, sequences, .. } = self;
        let drawn = sequences.as_mut().map_or(&mut *order, |s| &mut s.order);
        for (i, o) in drawn.iter_mut().enumerate() {
            *o = i as u32;
        }
        rng.shuffle(drawn);
        if let Some(sequences) = sequences {
            sequences.write(order);
        }
    }
    /// All samples in one minibatch of pass `epoch`.
    #[must_use]
    pub fn whole(&self, epoch: usize) -> Minibatch<'_> {
        Minibatch::whole(&self.order, epoch)
    }
    /// Draws the order of pass `epoch`, and cuts it into minibatches.
    pub fn shuffled(&mut self, epoch: usize) -> impl Iterator<Item = Minibatch<'_>> {
        self.shuffle();
        self.order.chunks(self.size).enumerate().map(move |(number, ids)| Minibatch { ids, epoch, number })
    }
    /// Minibatch `i` of the epoch.
    #[must_use]
    pub fn get(&self, i: usize) -> &[u32] {
        &self.order[i * self.size..((i + 1) * self.size).min(self.order.len())]
    }
    /// Saves the position of the stream.
    #[must_use]
    pub fn save(&self) -> Record {
        let mut r = Record::new();
        Stream::save_all(std::slice::from_ref(&self.rng), "stream", &mut r);
        r
    }
    /// Restores what [`Minibatches::save`] saved.
    ///
    /// # Errors
    /// When the record does not fit.
    pub fn load(&mut self, from: &Record) -> Result<(), RecordError> {
        Stream::load_all(std::slice::from_mut(&mut self.rng), "stream", from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_has_every_sample_once_and_the_next_has_another_order() {
        let mut m = Minibatches::new(10, 4, 3);
        assert_eq!((m.count(), m.size()), (3, 4));
        let epoch = |m: &mut Minibatches| {
            m.shuffle();
            (0..m.count()).flat_map(|i| m.get(i).to_vec()).collect::<Vec<u32>>()
        };
        let (a, b) = (epoch(&mut m), epoch(&mut m));
        assert_ne!(a, b);
        for mut order in [a, b] {
            order.sort_unstable();
            assert_eq!(order, (0..10).collect::<Vec<u32>>());
        }
        assert_eq!(m.get(2).len(), 2);
        assert_eq!(m.all(), [m.get(0), m.get(1), m.get(2)].concat());
    }

    #[test]
    fn a_saved_stream_gives_the_same_next_epoch() {
        let mut a = Minibatches::new(100, 32, 3);
        a.shuffle();
        let mut b = Minibatches::new(100, 32, 3);
        b.load(&a.save()).unwrap();
        a.shuffle();
        b.shuffle();
        assert_eq!(a.get(1), b.get(1));
    }
}
