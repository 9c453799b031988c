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
        Self {
            space: space.clone(),
            stream: Stream::new(seed, STREAM_RANDOM_ACTIONS, index),
            len,
            indices: vec![0; space.index_dim() * len],
            numbers: vec![0.0; space.real_dim() * len],
        }
    }
    /// The next actions.
    pub fn draw(&mut self) -> Actions<'_> {
        self.draw_among(None);
        self.last()
    }
    /// The next actions, among those that `masks` (`[mask_dim x len]`) allow; a choice of which nothing is
    /// allowed takes alternative 0.
    ///
    /// # Panics
    /// When `masks` has another shape.
    pub fn draw_allowed(&mut self, masks: Cols<'_, bool>) -> Actions<'_> {
        assert_eq!((masks.rows(), masks.cols()), (self.space.mask_dim(), self.len), "shape of the masks");
        self.draw_among((masks.rows() > 0).then_some(masks));
        self.last()
    }
    fn draw_among(&mut self, masks: Option<Cols<'_, bool>>) {
        let (mut indices, mut numbers) = (&mut self.indices[..], &mut self.numbers[..]);
        let mut mask_rows = 0;
        let (len, stream) = (self.len, &mut self.stream);
        let mut leaf = |leaf: &Space| {
            let (index, rest) = std::mem::take(&mut indices).split_at_mut(leaf.index_dim() * len);
            let (real, rest_real) = std::mem::take(&mut numbers).split_at_mut(leaf.real_dim() * len);
            (indices, numbers) = (rest, rest_real);
            let masks = masks.map(|m| m.row_range(mask_rows, mask_rows + leaf.mask_dim()));
            mask_rows += leaf.mask_dim();
            draw_leaf(leaf, len, index, real, masks, stream);
        };
        match &self.space {
            Space::Product { parts } => parts.iter().for_each(|part| leaf(&part.space)),
            own => leaf(own),
        }
    }
    /// The actions drawn last.
    #[must_use]
    pub fn last(&self) -> Actions<'_> {
        Actions {
            index: Cols::new(&self.indices, self.space.index_dim(), self.len),
            real: Cols::new(&self.numbers, self.space.real_dim(), self.len),
        }
    }
}

/// Actions of a space that is no product, of which a choice has the rows of `masks` in order.
fn draw_leaf(
    leaf: &Space,
    len: usize,
    index: &mut [u32],
    numbers: &mut [f32],
    masks: Option<Cols<'_, bool>>,
    stream: &mut Stream,
) {
    let nvec = match leaf {
        Space::Discrete { n } => std::slice::from_ref(n),
        Space::MultiDiscrete { nvec } => nvec,
        Space::MultiBinary { .. } => return below(index, 2, stream),
        Space::Box(bounds) => return real(numbers, len, bounds, stream),
        Space::Product { .. } => return,
    };
    let mut from = 0;
    for (row, n) in index.chunks_exact_mut(len.max(1)).zip(nvec) {
        match masks {
            Some(masks) => allowed(row, masks.row_range(from, from + n), stream),
            None => below(row, *n, stream),
        }
        from += n;
    }
}

/// One of the alternatives that `masks` `[n x len]` allows, for each environment.
fn allowed(out: &mut [u32], masks: Cols<'_, bool>, stream: &mut Stream) {
    for (b, x) in out.iter_mut().enumerate() {
        let among = || (0..masks.rows()).filter(|i| masks.at(*i, b));
        let which = stream.below(among().count().max(1) as u32) as usize;
        *x = among().nth(which).unwrap_or(0) as u32;
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
    use crate::Part;

    const LEN: usize = 20_000;

    #[test]
    fn every_alternative_is_equally_likely() {
        for (space, nvec) in [
            (Space::Discrete { n: 3 }, vec![3]),
            (Space::MultiDiscrete { nvec: vec![2, 5] }, vec![2, 5]),
            (Space::MultiBinary { n: 3 }, vec![2, 2, 2]),
        ] {
            let mut random = RandomActions::new(&space, LEN, 1, 0);
            let actions = random.draw().index;
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
        let actions = random.draw().real;
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
            let a = random.draw_allowed(Cols::new(&masks, 5, 2)).index;
            assert!(a.at(0, 0) != 1 && a.at(1, 0) == 1 && a.at(0, 1) == 1);
            seen[a.at(0, 0) as usize] += 1;
        }
        assert!(seen[0] > 60 && seen[2] > 60, "{seen:?}");
    }

    #[test]
    fn each_part_of_a_product_has_its_own_rows() {
        let part = |(name, space): (&str, Space)| Part { name: name.to_owned(), space };
        let parts = [
            ("push", Space::Box(BoxSpace::uniform(3.0, 4.0, 1))),
            ("gear", Space::Discrete { n: 3 }),
            ("lamps", Space::MultiBinary { n: 2 }),
            ("aim", Space::Box(BoxSpace::uniform(-6.0, -5.0, 2))),
            ("grip", Space::MultiDiscrete { nvec: vec![4, 2] }),
        ];
        let space = Space::Product { parts: parts.map(part).to_vec() };
        assert_eq!((space.index_dim(), space.real_dim(), space.mask_dim()), (5, 3, 9));
        assert_eq!(space.choices(), [3, 4, 2]);
        let mut random = RandomActions::new(&space, LEN, 1, 0);
        let Actions { index, real } = random.draw();
        for (row, n) in [3, 2, 2, 4, 2].into_iter().enumerate() {
            let mut seen: Vec<u32> = index.row(row).to_vec();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen, (0..n).collect::<Vec<u32>>(), "row {row}");
        }
        for (row, range) in [3.0..4.0, -6.0..-5.0, -6.0..-5.0].into_iter().enumerate() {
            assert!(real.row(row).iter().all(|x| range.contains(x)), "row {row}");
        }
        // Of the choices only 2, 1 and 0 are allowed; a switch has no mask.
        let allowed = [false, false, true, false, true, false, false, true, false];
        let masks: Vec<bool> = allowed.iter().flat_map(|a| [*a; LEN]).collect();
        let index = random.draw_allowed(Cols::new(&masks, 9, LEN)).index;
        for (row, only) in [(0, 2), (3, 1), (4, 0)] {
            assert!(index.row(row).iter().all(|x| *x == only), "row {row}");
        }
        assert!([1, 2].iter().all(|row| index.row(*row).contains(&0) && index.row(*row).contains(&1)));
    }

    #[test]
    fn shards_differ_and_seeds_repeat() {
        let draw = |seed, index| {
            let mut random = RandomActions::new(&Space::Discrete { n: 1000 }, 8, seed, index);
            let a = random.draw().index;
            a.data().to_vec()
        };
        assert_eq!(draw(1, 0), draw(1, 0));
        assert_ne!(draw(1, 0), draw(1, 1));
        assert_ne!(draw(1, 0), draw(2, 0));
    }
}
