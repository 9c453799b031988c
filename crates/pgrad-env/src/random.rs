//! Random actions: for benchmarks, checks and baselines.

use crate::{Actions, BoxSpace, Space};
use pgrad_num::{Cols, Stream};

/// Purpose number of the stream of random actions.
const STREAM_RANDOM_ACTIONS: u32 = 0x5241;

/// Draws random actions of any space for a batch of environments, all from one stream.
///
/// - `Discrete`, `MultiDiscrete`, `MultiBinary`: every allowed alternative equally likely;
/// - `Box`, by the bounds of each number: both finite, uniform between them; one finite, an exponential
///   variable away from it; none, standard normal.
#[derive(Clone, Debug)]
pub struct RandomActions {
    space: Space,
    stream: Stream,
    len: usize,
    indices: Vec<u32>,
    numbers: Vec<f32>,
}

impl RandomActions {
    /// Actions for `len` environments. `index` tells the streams of several shards under one seed apart.
    #[must_use]
    pub fn new(space: &Space, len: usize, seed: u64, index: u32) -> Self {
        let size = space.action_dim() * len;
        let real = matches!(space, Space::Box(_));
        Self {
            space: space.clone(),
            stream: Stream::new(seed, STREAM_RANDOM_ACTIONS, index),
            len,
            indices: vec![0; if real { 0 } else { size }],
            numbers: vec![0.0; if real { size } else { 0 }],
        }
    }
    /// The next actions, `[action_dim x len]`.
    pub fn draw(&mut self) -> Actions<'_> {
        match &self.space {
            Space::Discrete { n } => below(&mut self.indices, *n, &mut self.stream),
            Space::MultiBinary { .. } => below(&mut self.indices, 2, &mut self.stream),
            Space::MultiDiscrete { nvec } => {
                for (row, n) in self.indices.chunks_exact_mut(self.len.max(1)).zip(nvec) {
                    below(row, *n, &mut self.stream);
                }
            }
            Space::Box(bounds) => real(&mut self.numbers, self.len, bounds, &mut self.stream),
        }
        self.last()
    }
    /// The next actions, among those that `masks` (`[mask_dim x len]`) allow. Spaces without masks ignore
    /// them; a choice of which nothing is allowed takes alternative 0.
    ///
    /// # Panics
    /// When `masks` has another shape.
    pub fn draw_allowed(&mut self, masks: Cols<'_, bool>) -> Actions<'_> {
        if self.space.mask_dim() == 0 {
            return self.draw();
        }
        assert_eq!((masks.rows(), masks.cols()), (self.space.mask_dim(), self.len), "shape of the masks");
        let mut from = 0;
        for (choice, n) in self.space.choices().into_iter().enumerate() {
            for b in 0..self.len {
                let allowed = |i: &usize| masks.at(from + i, b);
                let count = (0..n).filter(allowed).count().max(1);
                let which = self.stream.below(count as u32) as usize;
                let action = (0..n).filter(allowed).nth(which).unwrap_or(0);
                self.indices[choice * self.len + b] = action as u32;
            }
            from += n;
        }
        self.last()
    }
    /// The actions drawn last, `[action_dim x len]`.
    #[must_use]
    pub fn last(&self) -> Actions<'_> {
        let rows = self.space.action_dim();
        if matches!(self.space, Space::Box(_)) {
            Actions::Real(Cols::new(&self.numbers, rows, self.len))
        } else {
            Actions::Index(Cols::new(&self.indices, rows, self.len))
        }
    }
}

fn below(out: &mut [u32], n: usize, stream: &mut Stream) {
    let n = u32::try_from(n).unwrap_or(u32::MAX).max(1);
    for x in out {
        *x = stream.below(n);
    }
}

fn real(out: &mut [f32], len: usize, bounds: &BoxSpace, stream: &mut Stream) {
    for (i, row) in out.chunks_exact_mut(len.max(1)).enumerate() {
        let (low, high) = (bounds.low[i], bounds.high[i]);
        for x in row {
            *x = match (low.is_finite(), high.is_finite()) {
                // Halves, so that the width of the widest box does not overflow.
                (true, true) => {
                    let u = stream.uniform_f32();
                    (2.0 * (0.5 * low + (0.5 * high - 0.5 * low) * u)).clamp(low, high)
                }
                (true, false) => low + exponential(stream),
                (false, true) => high - exponential(stream),
                (false, false) => stream.normal() as f32,
            };
        }
    }
}

fn exponential(stream: &mut Stream) -> f32 {
    -(1.0 - stream.uniform()).ln() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 20_000;

    #[test]
    fn every_alternative_is_equally_likely() {
        for (space, nvec) in [
            (Space::Discrete { n: 3 }, vec![3]),
            (Space::MultiDiscrete { nvec: vec![2, 5] }, vec![2, 5]),
            (Space::MultiBinary { n: 3 }, vec![2, 2, 2]),
        ] {
            let mut random = RandomActions::new(&space, LEN, 1, 0);
            let Actions::Index(actions) = random.draw() else { panic!("{space}: numbers") };
            assert_eq!(actions.rows(), nvec.len());
            for (i, n) in nvec.iter().enumerate() {
                for a in 0..*n as u32 {
                    let count = actions.row(i).iter().filter(|x| **x == a).count() as f64;
                    let p = 1.0 / *n as f64;
                    let sigma = (LEN as f64 * p * (1.0 - p)).sqrt();
                    assert!((count - LEN as f64 * p).abs() < 4.0 * sigma, "{space}: {count} of {a}");
                }
                assert!(actions.row(i).iter().all(|x| (*x as usize) < *n));
            }
        }
    }

    #[test]
    fn numbers_follow_their_bounds() {
        let inf = f32::INFINITY;
        let space = Space::Box(BoxSpace::new(
            vec![-2.0, f32::MIN, 3.0, -inf, -inf],
            vec![1.0, f32::MAX, inf, 5.0, inf],
        ));
        let mut random = RandomActions::new(&space, LEN, 1, 0);
        let Actions::Real(actions) = random.draw() else { panic!("alternatives") };
        let mean = |i: usize| actions.row(i).iter().map(|x| f64::from(*x)).sum::<f64>() / LEN as f64;
        let tolerance = 4.0 / (LEN as f64).sqrt();
        assert!(actions.row(0).iter().all(|x| (-2.0..=1.0).contains(x)));
        assert!((mean(0) + 0.5).abs() < tolerance);
        assert!(actions.row(1).iter().all(|x| x.is_finite()) && actions.row(1).iter().any(|x| *x > 1e38));
        assert!(actions.row(2).iter().all(|x| *x >= 3.0) && (mean(2) - 4.0).abs() < tolerance);
        assert!(actions.row(3).iter().all(|x| *x <= 5.0) && (mean(3) - 4.0).abs() < tolerance);
        assert!(mean(4).abs() < tolerance && actions.row(4).iter().any(|x| *x > 2.0));
    }

    #[test]
    fn masks_are_obeyed() {
        let mut random = RandomActions::new(&Space::MultiDiscrete { nvec: vec![3, 2] }, 2, 1, 0);
        // Environment 0 allows {0, 2} and {1}; environment 1 allows {1} and both.
        let masks = [true, false, false, true, true, false, false, true, true, true];
        let mut seen = [0usize; 3];
        for _ in 0..200 {
            let Actions::Index(a) = random.draw_allowed(Cols::new(&masks, 5, 2)) else { panic!("numbers") };
            assert!(a.at(0, 0) != 1 && a.at(1, 0) == 1 && a.at(0, 1) == 1);
            seen[a.at(0, 0) as usize] += 1;
        }
        assert!(seen[0] > 60 && seen[2] > 60, "{seen:?}");
    }

    #[test]
    fn shards_differ_and_seeds_repeat() {
        let draw = |seed, index| {
            let mut random = RandomActions::new(&Space::Discrete { n: 1000 }, 8, seed, index);
            let Actions::Index(a) = random.draw() else { panic!("numbers") };
            a.data().to_vec()
        };
        assert_eq!(draw(1, 0), draw(1, 0));
        assert_ne!(draw(1, 0), draw(1, 1));
        assert_ne!(draw(1, 0), draw(2, 0));
    }
}
