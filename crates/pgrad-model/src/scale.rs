//! From the numbers that a Gaussian policy chooses to those that an environment takes.
//!
//! A Gaussian policy starts near 0 with a standard deviation of about 1. What is far from that it would never
//! reach: of `Box(500, 1000)` it would only ever see the lower edge, with no gradient to leave it. Numbers
//! that are *rescaled* are chosen in units of their range, -1 for its lower and 1 for its upper end, at the
//! last place before the environment.

use pgrad_env::Space;

/// Half-widths of ranges about 0 that a standard Gaussian covers without rescaling.
pub const NEAR: std::ops::RangeInclusive<f64> = 0.25..=4.0;
/// Bounds from here on are none: the largest number of single precision is often written for infinity.
const ENDLESS: f32 = f32::MAX / 4.0;

/// How one number of an action is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bounded {
    /// On both sides, with 0 in the middle, and as wide as a standard Gaussian, more or less ([`NEAR`]).
    Near,
    /// On both sides, but otherwise.
    Far,
    /// On one side.
    Half,
    /// On no side.
    Not,
}

impl Bounded {
    /// How a number between these bounds is bounded.
    #[must_use]
    pub fn of(low: f32, high: f32) -> Self {
        match [low, high].map(|x| x.abs() < ENDLESS) {
            [true, true] if low == -high && NEAR.contains(&f64::from(high)) => Self::Near,
            [true, true] => Self::Far,
            [false, false] => Self::Not,
            _ => Self::Half,
        }
    }
    /// Whether it can be rescaled.
    #[must_use]
    pub fn has_range(self) -> bool {
        matches!(self, Self::Near | Self::Far)
    }
}

/// Which numbers of actions are rescaled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rescale {
    /// Those that are [`Bounded::Far`].
    Far,
    /// All that have a range.
    All,
    /// None.
    #[default]
    Nothing,
}

impl Rescale {
    /// Whether each number of an action of `space` is rescaled; empty where none is.
    #[must_use]
    pub fn numbers(self, space: &Space) -> Vec<bool> {
        let numbers: Vec<bool> = action_bounds(space)
            .map(|(low, high)| match self {
                Self::Far => Bounded::of(low, high) == Bounded::Far,
                Self::All => Bounded::of(low, high).has_range(),
                Self::Nothing => false,
            })
            .collect();
        if numbers.contains(&true) { numbers } else { Vec::new() }
    }
}

/// Lower and upper bound of each number of an action of `space`.
pub fn action_bounds(space: &Space) -> impl Iterator<Item = (f32, f32)> {
    space.boxes().into_iter().flat_map(|b| b.low.iter().copied().zip(b.high.iter().copied()))
}

/// Whether the numbers that are marked have ranges, and there is a mark for each.
pub(crate) fn can_be_rescaled(space: &Space, marks: &[bool]) -> bool {
    let all = Rescale::All.numbers(space);
    all.len() == marks.len() && marks.iter().zip(all).all(|(mark, can)| can || !mark)
}

/// Numbers of actions, and how many of them lay outside their bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clipping {
    /// Numbers outside.
    pub outside: u64,
    /// All numbers.
    pub all: u64,
}

impl Clipping {
    /// Adds other numbers.
    pub fn merge(&mut self, other: Self) {
        self.outside += other.outside;
        self.all += other.all;
    }
    /// All of them together.
    #[must_use]
    pub fn sum(of: impl Iterator<Item = Self>) -> Self {
        of.fold(Self::default(), |mut sum, other| {
            sum.merge(other);
            sum
        })
    }
    /// The share outside; `None` where there were no numbers.
    #[must_use]
    pub fn share(self) -> Option<f64> {
        (self.all > 0).then(|| self.outside as f64 / self.all as f64)
    }
}

/// One number's way to the environment.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Way {
    low: f32,
    high: f32,
    /// Middle and half-width of its range, where it is rescaled.
    range: Option<(f64, f64)>,
}

impl Way {
    /// The number as the environment counts, not yet clipped. In double precision, so that -1 and 1 give the
    /// bounds.
    fn place(self, a: f32) -> f32 {
        self.range.map_or(a, |(middle, half)| (middle + half * f64::from(a)) as f32)
    }
}

/// The way of all numbers of an action.
#[derive(Clone, Debug, Default)]
pub(crate) struct Door(Vec<Way>);

impl Door {
    /// To a space, of which the numbers marked in `rescaled` are rescaled.
    pub(crate) fn new(space: &Space, rescaled: &[bool]) -> Self {
        let way = |(i, (low, high)): (usize, (f32, f32))| {
            let (l, h) = (f64::from(low), f64::from(high));
            let range = rescaled.get(i).is_some_and(|r| *r).then_some((0.5 * l + 0.5 * h, 0.5 * h - 0.5 * l));
            Way { low, high, range }
        };
        Self(action_bounds(space).enumerate().map(way).collect())
    }
    /// Takes the numbers `[rows x n]` through.
    pub(crate) fn pass(&self, from: &[f32], to: &mut [f32], n: usize) -> Clipping {
        let mut outside = 0;
        for (way, (from, to)) in self.0.iter().zip(from.chunks_exact(n).zip(to.chunks_exact_mut(n))) {
            for (a, to) in from.iter().zip(to) {
                let placed = way.place(*a);
                *to = placed.clamp(way.low, way.high);
                outside += u64::from(*to != placed);
            }
        }
        Clipping { outside, all: (self.0.len() * n) as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgrad_env::BoxSpace;

    #[test]
    fn a_range_is_near_far_half_or_none() {
        let inf = f32::INFINITY;
        for (low, high, expected) in [
            (-1.0, 1.0, Bounded::Near),
            (-0.4, 0.4, Bounded::Near),
            (-3.0, 3.0, Bounded::Near),
            (-0.1, 0.1, Bounded::Far),
            (-5.0, 5.0, Bounded::Far),
            (0.0, 1.0, Bounded::Far),
            (500.0, 1000.0, Bounded::Far),
            (2.0, 2.0, Bounded::Far),
            (0.0, inf, Bounded::Half),
            (f32::MIN, 1.0, Bounded::Half),
            (-inf, inf, Bounded::Not),
            (f32::MIN, f32::MAX, Bounded::Not),
        ] {
            assert_eq!(Bounded::of(low, high), expected, "{low} to {high}");
        }
    }

    #[test]
    fn numbers_are_rescaled_one_by_one() {
        let space =
            Space::Box(BoxSpace::new(vec![-1.0, 0.0, 0.0, 2.0], vec![1.0, 255.0, f32::INFINITY, 2.0]));
        assert_eq!(Rescale::Far.numbers(&space), [false, true, false, true]);
        assert_eq!(Rescale::All.numbers(&space), [true, true, false, true]);
        assert!(Rescale::Nothing.numbers(&space).is_empty());
        let near = Space::Box(BoxSpace::uniform(-2.0, 2.0, 3));
        assert!(Rescale::Far.numbers(&near).is_empty());
        assert!(Rescale::All.numbers(&Space::Discrete { n: 2 }).is_empty());
    }

    #[test]
    fn the_ends_of_a_range_are_reached_exactly_and_what_is_clipped_is_counted() {
        let (low, high) = (vec![500.0, -0.1, 0.3, -1.0], vec![1000.0, 0.1, 0.7, f32::INFINITY]);
        let space = Space::Box(BoxSpace::new(low.clone(), high.clone()));
        let door = Door::new(&space, &Rescale::Far.numbers(&space));
        let columns = [-1.0, 1.0, 0.0, 0.2, 1.5, -7.0];
        let from: Vec<f32> = columns.repeat(4);
        let mut to = vec![0.0; from.len()];
        let clipping = door.pass(&from, &mut to, columns.len());
        for i in 0..3 {
            let row = &to[i * 6..(i + 1) * 6];
            assert_eq!(
                [row[0], row[1], row[4], row[5]].map(f32::to_bits),
                [low[i], high[i], high[i], low[i]].map(f32::to_bits)
            );
        }
        assert_eq!(to[..4], [500.0, 1000.0, 750.0, 800.0]);
        assert_eq!(to[18..], [-1.0, 1.0, 0.0, 0.2, 1.5, -1.0], "as it is, but above its bound");
        // Two of each rescaled number, one of the last.
        assert_eq!(clipping, Clipping { outside: 7, all: 24 });
        assert_eq!(clipping.share(), Some(7.0 / 24.0));
        assert_eq!(Door::new(&Space::Discrete { n: 3 }, &[]).pass(&[], &mut [], 1).share(), None);
    }
}
