//! Counter-based random streams.

use crate::{Record, RecordError};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Where a [`Stream`] stands: enough to continue it exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamPosition(pub u64);

/// A random stream: one seed, one purpose, one index.
///
/// Streams of different `(purpose, index)` under one seed are independent (they are different nonces of
/// one ChaCha8 key), and a stream's position can be read and set, so that a saved run continues with the
/// same numbers. Each environment and each consumer of randomness has its own.
#[derive(Clone, Debug)]
pub struct Stream {
    rng: ChaCha8Rng,
}

impl Stream {
    /// The stream of `seed` for `(purpose, index)`, at its start.
    #[must_use]
    pub fn new(seed: u64, purpose: u32, index: u32) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(u64::from(purpose) << 32 | u64::from(index));
        Self { rng }
    }
    /// The next 32 random bits.
    #[inline]
    pub fn bits32(&mut self) -> u32 {
        self.rng.next_u32()
    }
    /// The next 64 random bits.
    #[inline]
    pub fn bits64(&mut self) -> u64 {
        u64::from(self.rng.next_u32()) << 32 | u64::from(self.rng.next_u32())
    }
    /// Uniform on `[0, 1)` with 24 random bits.
    #[inline]
    pub fn uniform_f32(&mut self) -> f32 {
        (self.bits32() >> 8) as f32 * (1.0 / 16_777_216.0)
    }
    /// Uniform on `[0, 1)` with 53 random bits.
    #[inline]
    pub fn uniform(&mut self) -> f64 {
        (self.bits64() >> 11) as f64 * (1.0 / 9_007_199_254_740_992.0)
    }
    /// Uniform on `[low, high)`.
    #[inline]
    pub fn uniform_in(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }
    /// Standard normal, by Box and Muller's transform: two uniforms a number, so that the position after
    /// `n` numbers is always the same.
    #[inline]
    pub fn normal(&mut self) -> f64 {
        let u1 = 1.0 - self.uniform();
        let u2 = self.uniform();
        (-2.0 * u1.ln()).sqrt() * (std::f64::consts::TAU * u2).cos()
    }
    /// Uniform on `0..n` (bias below `n / 2^32`, one word a number).
    ///
    /// # Panics
    /// When `n` is 0.
    #[inline]
    pub fn below(&mut self, n: u32) -> u32 {
        assert!(n > 0, "a choice needs at least one alternative");
        ((u64::from(self.bits32()) * u64::from(n)) >> 32) as u32
    }
    /// Shuffles in place (Fisher and Yates), `len - 1` words.
    pub fn shuffle(&mut self, items: &mut [u32]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u32 + 1) as usize);
        }
    }
    /// Where the stream stands.
    #[must_use]
    pub fn position(&self) -> StreamPosition {
        StreamPosition(self.rng.get_word_pos() as u64)
    }
    /// Continues from a position read earlier from the same stream.
    pub fn set_position(&mut self, position: StreamPosition) {
        self.rng.set_word_pos(u128::from(position.0));
    }
    /// Saves the positions of many streams under one name.
    pub fn save_all(streams: &[Stream], name: &str, out: &mut Record) {
        out.put(name, streams.iter().map(|s| s.position().0).collect::<Vec<u64>>());
    }
    /// Restores what [`Stream::save_all`] saved.
    ///
    /// # Errors
    /// When the entry is missing or holds another number of streams.
    pub fn load_all(streams: &mut [Stream], name: &str, from: &Record) -> Result<(), RecordError> {
        let positions = from.u64s(name, streams.len())?;
        for (s, p) in streams.iter_mut().zip(positions) {
            s.set_position(StreamPosition(*p));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn position_restores_the_stream_exactly() {
        let mut a = Stream::new(7, 3, 5);
        for _ in 0..37 {
            a.bits32();
        }
        let p = a.position();
        let expected: Vec<u64> = (0..100).map(|_| a.bits64()).collect();
        let mut b = Stream::new(7, 3, 5);
        b.set_position(p);
        assert_eq!(expected, (0..100).map(|_| b.bits64()).collect::<Vec<u64>>());
        assert_eq!(a.position(), b.position());
    }

    #[test]
    fn streams_differ_by_seed_purpose_and_index() {
        let first = |s, p, i| Stream::new(s, p, i).bits64();
        let all = [first(1, 0, 0), first(2, 0, 0), first(1, 1, 0), first(1, 0, 1)];
        for i in 0..all.len() {
            for j in 0..i {
                assert_ne!(all[i], all[j]);
            }
        }
    }

    #[test]
    fn uniform_and_normal_have_their_moments() {
        let mut s = Stream::new(11, 0, 0);
        let n = 200_000;
        let u: Vec<f64> = (0..n).map(|_| s.uniform()).collect();
        let z: Vec<f64> = (0..n).map(|_| s.normal()).collect();
        let mean = |x: &[f64]| x.iter().sum::<f64>() / n as f64;
        let var = |x: &[f64]| {
            let m = mean(x);
            x.iter().map(|v| (v - m).powi(2)).sum::<f64>() / n as f64
        };
        assert!(u.iter().all(|v| (0.0..1.0).contains(v)));
        assert!((mean(&u) - 0.5).abs() < 4.0 * (1.0 / 12.0 / n as f64).sqrt());
        assert!((var(&u) - 1.0 / 12.0).abs() < 1e-3);
        assert!(mean(&z).abs() < 4.0 / (n as f64).sqrt());
        assert!((var(&z) - 1.0).abs() < 0.02);
        // A normal variable leaves [-1.96, 1.96] one time in twenty.
        let out = z.iter().filter(|v| v.abs() > 1.959_964).count() as f64 / n as f64;
        assert!((out - 0.05).abs() < 0.002, "{out}");
    }

    #[test]
    fn below_is_uniform_and_shuffle_is_a_permutation() {
        let mut s = Stream::new(5, 0, 0);
        let mut counts = [0usize; 5];
        for _ in 0..50_000 {
            counts[s.below(5) as usize] += 1;
        }
        assert!(counts.iter().all(|c| (9_600..10_400).contains(c)), "{counts:?}");
        let mut x: Vec<u32> = (0..1000).collect();
        s.shuffle(&mut x);
        assert!(x.iter().enumerate().filter(|(i, v)| *i as u32 == **v).count() < 10);
        x.sort_unstable();
        assert!(x.iter().enumerate().all(|(i, v)| i as u32 == *v));
    }
}
