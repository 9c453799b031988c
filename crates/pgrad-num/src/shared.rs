//! Numbers that threads share without locks.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering::Relaxed};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Numbers of a block. A block is read number by number and then worked on as vectors: it is so large that
/// the first numbers are in the cache by then, since a processor cannot hand several small stores to one wide
/// load. Models of all interleavings have to make do with less.
const BLOCK: usize = if cfg!(loom) { 2 } else { 256 };

/// A vector of single-precision numbers that threads read and write at the same time, without locks and
/// without undefined behaviour: atomic loads and stores in no particular order (Hogwild, Recht et al. 2011,
/// arXiv:1106.5730).
///
/// A number is never torn. A vector may be: who reads while another thread writes gets some old and some new
/// numbers, and of two threads that change the same numbers at the same time one may lose its change. Two
/// numbers travel together in one atomic of 64 bits, for half the loads and stores: nothing wider is atomic
/// in Rust, and compilers do not vectorise atomics.
#[derive(Debug)]
pub struct SharedVec {
    pairs: Vec<AtomicU64>,
    len: usize,
}

#[inline(always)]
fn pack(low: f32, high: f32) -> u64 {
    u64::from(low.to_bits()) | u64::from(high.to_bits()) << 32
}

#[inline(always)]
fn unpack(bits: u64) -> [f32; 2] {
    [f32::from_bits(bits as u32), f32::from_bits((bits >> 32) as u32)]
}

impl SharedVec {
    /// Numbers of a block: see [`SharedVec::blocks`].
    pub const BLOCK: usize = BLOCK;

    /// A shared copy of `values`.
    #[must_use]
    pub fn new(values: &[f32]) -> Self {
        let pair = |p: &[f32]| AtomicU64::new(pack(p[0], p.get(1).copied().unwrap_or(0.0)));
        Self { pairs: values.chunks(2).map(pair).collect(), len: values.len() }
    }
    /// Number of numbers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Copies all numbers to `to`.
    ///
    /// # Panics
    /// When `to` has another length.
    pub fn read(&self, to: &mut [f32]) {
        assert_eq!(to.len(), self.len);
        let (whole, rest) = to.as_chunks_mut::<2>();
        for (to, pair) in whole.iter_mut().zip(&self.pairs) {
            *to = unpack(pair.load(Relaxed));
        }
        for (to, pair) in rest.iter_mut().zip(self.pairs.last()) {
            *to = unpack(pair.load(Relaxed))[0];
        }
    }
    /// Copies all numbers from `from`.
    ///
    /// # Panics
    /// When `from` has another length.
    pub fn write(&self, from: &[f32]) {
        assert_eq!(from.len(), self.len);
        for (from, pair) in from.chunks(2).zip(&self.pairs) {
            pair.store(pack(from[0], from.get(1).copied().unwrap_or(0.0)), Relaxed);
        }
    }
    /// The starts of all blocks: numbers `start..start + BLOCK`, fewer in the last.
    pub fn blocks(&self) -> impl Iterator<Item = usize> {
        (0..self.len).step_by(BLOCK)
    }
    /// The starts of all blocks, each with that of the next one (of the last one: its own), from the first to
    /// the last or `backwards`. Two threads that go over the numbers in the same direction at the same time
    /// take every block from each other again and again; in opposite directions they meet once.
    #[inline(always)]
    pub fn pass(&self, backwards: bool) -> impl Iterator<Item = (usize, usize)> {
        let n = self.len.div_ceil(BLOCK);
        let at = move |i: usize| if backwards { (n - 1 - i) * BLOCK } else { i * BLOCK };
        (0..n).map(move |i| (at(i), at((i + 1).min(n - 1))))
    }
    /// Reads the block that starts at `start`, with zeros behind the last number.
    ///
    /// # Panics
    /// When no block starts there.
    #[inline(always)]
    pub fn read_block(&self, start: usize, to: &mut [f32; Self::BLOCK]) {
        let pairs = &self.pairs[self.block(start)];
        let (to, _) = to.as_chunks_mut::<2>();
        if let Ok(pairs) = <&[AtomicU64; BLOCK / 2]>::try_from(pairs) {
            for (to, pair) in to.iter_mut().zip(pairs) {
                *to = unpack(pair.load(Relaxed));
            }
        } else {
            to.fill([0.0; 2]);
            for (to, pair) in to.iter_mut().zip(pairs) {
                *to = unpack(pair.load(Relaxed));
            }
        }
    }
    /// Writes the block that starts at `start`; what is behind the last number is ignored.
    ///
    /// # Panics
    /// When no block starts there.
    #[inline(always)]
    pub fn write_block(&self, start: usize, from: &[f32; Self::BLOCK]) {
        let pairs = &self.pairs[self.block(start)];
        let (from, _) = from.as_chunks::<2>();
        for (from, pair) in from.iter().zip(pairs) {
            pair.store(pack(from[0], from[1]), Relaxed);
        }
    }
    /// Says that the block that starts at `start` will be changed soon, if there is one: a hint without an
    /// effect on what anybody reads. Other threads' caches give its lines up while this thread still works on
    /// something else, and in one step instead of two, first for reading and then for writing.
    #[inline(always)]
    pub fn will_change(&self, start: usize) {
        for line in self.pairs.get(start / 2..).unwrap_or_default().chunks(8).take(BLOCK / 16) {
            hint_of_change(&line[0]);
        }
    }
    #[inline(always)]
    fn block(&self, start: usize) -> std::ops::Range<usize> {
        assert!(start.is_multiple_of(BLOCK) && start < self.len, "no block starts at {start}");
        start / 2..((start + BLOCK) / 2).min(self.pairs.len())
    }
}

#[cfg(all(target_arch = "x86_64", not(loom), not(miri)))]
#[inline(always)]
#[expect(unsafe_code, reason = "the hint has no safe form")]
fn hint_of_change(line: &AtomicU64) {
    // SAFETY: `prefetchw` reads and writes no memory that anybody could see, changes no flag and never
    // faults.
    unsafe {
        core::arch::asm!(
            "prefetchw [{0}]",
            in(reg) line.as_ptr(),
            options(nostack, preserves_flags, readonly)
        );
    }
}
#[cfg(not(all(target_arch = "x86_64", not(loom), not(miri))))]
#[inline(always)]
fn hint_of_change(_: &AtomicU64) {}

/// A number that threads count with, on a pair of cache lines of its own, so that counting does not slow down
/// who reads its neighbours. No count is lost, and who has counted sees later numbers only; about anything
/// else nothing is said.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct SharedCounter(AtomicU64);

impl SharedCounter {
    /// The number, now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
    /// Sets the number.
    pub fn set(&self, to: u64) {
        self.0.store(to, Relaxed);
    }
    /// Adds `n`; returns what there was before.
    pub fn add(&self, n: u64) -> u64 {
        self.0.fetch_add(n, Relaxed)
    }
}

/// Models: every interleaving of the threads, and every value that relaxed loads may see.
#[cfg(test)]
#[cfg(loom)]
mod models {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    #[test]
    fn loom_a_number_is_never_torn_nor_one_of_a_pair_without_the_other() {
        loom::model(|| {
            let shared = Arc::new(SharedVec::new(&[0.0, 0.0]));
            let writer = |x: f32| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.write(&[x, x]))
            };
            let writers = [writer(1.0), writer(-3.5)];
            let reader = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    let mut seen = [9.0; 2];
                    shared.read(&mut seen);
                    assert!(seen[0] == seen[1] && [0.0, 1.0, -3.5].contains(&seen[0]), "{seen:?}");
                })
            };
            writers.into_iter().chain([reader]).for_each(|t| t.join().unwrap());
            let mut seen = [9.0; 2];
            shared.read(&mut seen);
            assert!(seen[0] == seen[1] && [1.0, -3.5].contains(&seen[0]), "{seen:?}");
        });
    }

    /// Two threads add to the same numbers, over two blocks.
    #[test]
    fn loom_a_change_may_be_lost_but_none_is_made_up() {
        loom::model(|| {
            let shared = Arc::new(SharedVec::new(&[0.0; 3]));
            let add = |what: f32| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    for start in shared.blocks() {
                        let mut block = [0.0; BLOCK];
                        shared.read_block(start, &mut block);
                        block.iter_mut().for_each(|x| *x += what);
                        shared.write_block(start, &block);
                    }
                })
            };
            [add(1.0), add(4.0)].into_iter().for_each(|w| w.join().unwrap());
            let mut found = [0.0; 3];
            shared.read(&mut found);
            assert!(found.iter().all(|x| [1.0, 4.0, 5.0].contains(x)) && found[0] == found[1], "{found:?}");
        });
    }

    /// Staleness is what others counted between a look and one's own count.
    #[test]
    fn loom_no_count_is_lost_and_staleness_is_never_negative() {
        loom::model(|| {
            let updates = Arc::new(SharedCounter::default());
            let worker = |others: u64| {
                let updates = Arc::clone(&updates);
                thread::spawn(move || {
                    let copied_at = updates.get();
                    let before = updates.add(1);
                    assert!((copied_at..=copied_at + others).contains(&before));
                    assert!(updates.get() > before);
                    before
                })
            };
            let mut places: Vec<u64> =
                [worker(1), worker(1)].into_iter().map(|w| w.join().unwrap()).collect();
            places.sort_unstable();
            assert_eq!((places, updates.get()), (vec![0, 1], 2));
        });
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn counts_of_threads_add_up() {
        let counter = SharedCounter::default();
        counter.set(5);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..1000).for_each(|_| _ = counter.add(3)));
            }
        });
        assert_eq!((counter.add(1), counter.get()), (6005, 6006));
        assert!(size_of::<SharedCounter>() == 128 && align_of::<SharedCounter>() == 128);
    }

    #[test]
    fn numbers_come_back_bit_for_bit_in_one_piece_and_in_blocks() {
        for n in [1usize, 2, 255, 256, 257, 511, 700] {
            let values: Vec<f32> = (0..n).map(|i| (i as f32 - 3.5) * 1.7e-3).collect();
            let shared = SharedVec::new(&values);
            let (mut whole, mut pieces) = (vec![f32::NAN; n], Vec::new());
            shared.read(&mut whole);
            let mut block = [f32::NAN; BLOCK];
            for start in shared.blocks() {
                shared.read_block(start, &mut block);
                pieces.extend_from_slice(&block);
            }
            assert_eq!((&whole, shared.len()), (&values, n));
            let forwards: Vec<(usize, usize)> = shared.pass(false).collect();
            let mut starts: Vec<usize> = shared.blocks().collect();
            assert!(forwards.iter().map(|(start, _)| *start).eq(starts.iter().copied()));
            assert!(forwards.windows(2).all(|w| w[0].1 == w[1].0));
            starts.reverse();
            assert!(shared.pass(true).map(|(start, _)| start).eq(starts));
            shared.pass(true).for_each(|(_, next)| shared.will_change(next));
            assert_eq!(pieces[..n], values);
            assert!(pieces[n..].iter().all(|x| *x == 0.0));

            let other: Vec<f32> = values.iter().map(|x| -2.0 * x).collect();
            shared.write(&other);
            shared.read(&mut whole);
            assert_eq!(whole, other);
            for start in shared.blocks() {
                shared.read_block(start, &mut block);
                block.iter_mut().for_each(|x| *x += 1.0);
                shared.write_block(start, &block);
            }
            shared.read(&mut whole);
            assert_eq!(whole, other.iter().map(|x| x + 1.0).collect::<Vec<_>>());
        }
    }

    /// What Miri and the thread sanitiser look at: two threads change all numbers at once.
    #[test]
    fn threads_may_change_the_same_numbers_at_once() {
        const ROUNDS: usize = if cfg!(miri) { 5 } else { 2000 };
        let shared = SharedVec::new(&vec![0.0; 300]);
        let add = |what: f32| {
            let mut block = [0.0; BLOCK];
            for _ in 0..ROUNDS {
                for start in shared.blocks() {
                    shared.read_block(start, &mut block);
                    block.iter_mut().for_each(|x| *x += what);
                    shared.write_block(start, &block);
                }
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| add(1.0));
            scope.spawn(|| add(4096.0));
        });
        let mut found = vec![f32::NAN; 300];
        shared.read(&mut found);
        // Changes may be lost, but no number is ever anything but a sum of such changes.
        for x in found {
            let (high, low) = ((x / 4096.0).floor(), x % 4096.0);
            assert!((0.0..=ROUNDS as f32).contains(&high) && (0.0..=ROUNDS as f32).contains(&low), "{x}");
            assert!(high + low >= 1.0, "some change of the last round stays");
        }
    }
}
