//! One space.

use crate::{Dtype, Part};
use std::fmt;

/// Bounds that are written one by one; of more, the first and the last.
const WRITTEN: usize = 8;

/// A box in `R^n`: every number between its own bounds, which may be infinite.
#[derive(Clone, Debug, PartialEq)]
pub struct BoxSpace {
    /// Lowest value of each number.
    pub low: Vec<f32>,
    /// Highest value of each number.
    pub high: Vec<f32>,
    /// How the numbers lie, the last index fastest; their product is `n`.
    pub shape: Vec<usize>,
    /// What the numbers are where they come from.
    pub dtype: Dtype,
}

impl BoxSpace {
    /// A vector of numbers with these bounds.
    #[must_use]
    pub fn new(low: Vec<f32>, high: Vec<f32>) -> Self {
        Self { shape: vec![low.len()], dtype: Dtype::default(), low, high }
    }
    /// A vector of `n` numbers with the same bounds.
    #[must_use]
    pub fn uniform(low: f32, high: f32, n: usize) -> Self {
        Self::new(vec![low; n], vec![high; n])
    }
    /// All of `R^n`.
    #[must_use]
    pub fn unbounded(n: usize) -> Self {
        Self::uniform(f32::NEG_INFINITY, f32::INFINITY, n)
    }
    /// The same numbers in another form.
    ///
    /// # Panics
    /// When `shape` is of another number of numbers.
    #[must_use]
    pub fn shaped(mut self, shape: &[usize], dtype: Dtype) -> Self {
        assert_eq!(shape.iter().product::<usize>(), self.dim(), "numbers of {shape:?}");
        (self.shape, self.dtype) = (shape.to_vec(), dtype);
        self
    }
    /// Number of numbers.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.low.len()
    }
}

/// One space.
#[derive(Clone, Debug, PartialEq)]
pub enum Space {
    /// One of `n` alternatives, `0..n`.
    Discrete {
        /// Number of alternatives.
        n: usize,
    },
    /// Several choices at once, choice `i` from `0..nvec[i]`.
    MultiDiscrete {
        /// Number of alternatives of each choice.
        nvec: Vec<usize>,
    },
    /// `n` switches, each 0 or 1.
    MultiBinary {
        /// Number of switches.
        n: usize,
    },
    /// Numbers between bounds.
    Box(BoxSpace),
    /// Several spaces at once, of actions: what Gymnasium calls `Dict` or `Tuple`.
    Product {
        /// The spaces, with names of their own. None of them is a product.
        parts: Vec<Part>,
    },
}

impl Space {
    /// The spaces that it is made of, with their names: itself, without a name, or the parts of a product.
    #[must_use]
    pub fn leaves(&self) -> Vec<(&str, &Self)> {
        match self {
            Self::Product { parts } => parts.iter().map(|part| (&part.name[..], &part.space)).collect(),
            leaf => vec![("", leaf)],
        }
    }
    /// The boxes among its leaves: an action has their numbers one after the other.
    #[must_use]
    pub fn boxes(&self) -> Vec<&BoxSpace> {
        self.leaves()
            .into_iter()
            .filter_map(|(_, leaf)| match leaf {
                Self::Box(b) => Some(b),
                _ => None,
            })
            .collect()
    }
    /// A number for each part of a product, all together.
    fn sum(parts: &[Part], number: impl Fn(&Self) -> usize) -> usize {
        parts.iter().map(|part| number(&part.space)).sum()
    }
    /// How many numbers an observation of this space has as network input: a discrete observation is
    /// written one-hot.
    #[must_use]
    pub fn obs_dim(&self) -> usize {
        match self {
            Self::Discrete { n } | Self::MultiBinary { n } => *n,
            Self::MultiDiscrete { nvec } => nvec.iter().sum(),
            Self::Box(b) => b.dim(),
            Self::Product { parts } => Self::sum(parts, Self::obs_dim),
        }
    }
    /// How many alternatives an action names: one for each choice and each switch. In a product they lie one
    /// after the other, whatever lies between the parts.
    #[must_use]
    pub fn index_dim(&self) -> usize {
        match self {
            Self::Discrete { .. } => 1,
            Self::MultiDiscrete { nvec } => nvec.len(),
            Self::MultiBinary { n } => *n,
            Self::Box(_) => 0,
            Self::Product { parts } => Self::sum(parts, Self::index_dim),
        }
    }
    /// How many real numbers an action has: those of its boxes.
    #[must_use]
    pub fn real_dim(&self) -> usize {
        match self {
            Self::Box(b) => b.dim(),
            Self::Product { parts } => Self::sum(parts, Self::real_dim),
            Self::Discrete { .. } | Self::MultiDiscrete { .. } | Self::MultiBinary { .. } => 0,
        }
    }
    /// How many numbers an action of this space has: 1 for `Discrete`.
    #[must_use]
    pub fn action_dim(&self) -> usize {
        self.index_dim() + self.real_dim()
    }
    /// How many entries an action mask has: one for each alternative of each choice; 0 where a mask has
    /// no meaning.
    #[must_use]
    pub fn mask_dim(&self) -> usize {
        match self {
            Self::Discrete { n } => *n,
            Self::MultiDiscrete { nvec } => nvec.iter().sum(),
            Self::MultiBinary { .. } | Self::Box(_) => 0,
            Self::Product { parts } => Self::sum(parts, Self::mask_dim),
        }
    }
    /// Number of alternatives of each choice; empty for `Box` and `MultiBinary`.
    #[must_use]
    pub fn choices(&self) -> Vec<usize> {
        match self {
            Self::Discrete { n } => vec![*n],
            Self::MultiDiscrete { nvec } => nvec.clone(),
            Self::MultiBinary { .. } | Self::Box(_) => Vec::new(),
            Self::Product { parts } => parts.iter().flat_map(|part| part.space.choices()).collect(),
        }
    }
    /// Which number of an observation lies outside, and what the space says of it. Choices are one-hot.
    #[must_use]
    pub(crate) fn outside(&self, obs: &[f32]) -> Option<(usize, String)> {
        let zero_or_one = |x: &f32| *x == 0.0 || *x == 1.0;
        let one_hot = |from: usize, n: usize| {
            let block = &obs[from..from + n];
            let wrong = block.iter().position(|x| !zero_or_one(x));
            let ones = block.iter().filter(|x| **x == 1.0).count();
            let wrong = wrong.or((ones != 1).then_some(0))?;
            Some((from + wrong, format!("one 1 and otherwise 0 among numbers {from} to {}", from + n - 1)))
        };
        match self {
            Self::Discrete { n } => one_hot(0, *n),
            Self::MultiDiscrete { nvec } => {
                let mut from = 0;
                nvec.iter().find_map(|n| {
                    from += n;
                    one_hot(from - n, *n)
                })
            }
            Self::MultiBinary { .. } => {
                obs.iter().position(|x| !zero_or_one(x)).map(|i| (i, "0 or 1".to_owned()))
            }
            Self::Box(b) if b.dtype == Dtype::Bool => {
                obs.iter().position(|x| !zero_or_one(x)).map(|i| (i, "0 or 1".to_owned()))
            }
            Self::Box(b) => (0..obs.len())
                .find(|i| {
                    let (low, high) = (f64::from(b.low[*i]), f64::from(b.high[*i]));
                    let slack = b.dtype.slack(low, high);
                    !(low - slack..=high + slack).contains(&f64::from(obs[*i]))
                })
                .map(|i| {
                    let slack = b.dtype.slack(f64::from(b.low[i]), f64::from(b.high[i]));
                    let rounding =
                        if slack > 0.0 { format!(", give or take {slack}") } else { String::new() };
                    (i, format!("{} to {}{rounding}", b.low[i], b.high[i]))
                }),
            Self::Product { parts } => {
                let mut from = 0;
                parts.iter().find_map(|part| {
                    let own = from..from + part.space.obs_dim();
                    from = own.end;
                    let (i, expected) = part.space.outside(&obs[own.clone()])?;
                    Some((own.start + i, expected))
                })
            }
        }
    }
    /// Number `i` by its place in the shape: `3`, or `[0, 12, 2]` where there is more than one index.
    pub(crate) fn index(&self, i: usize) -> String {
        let Self::Box(b) = self else { return i.to_string() };
        if b.shape.len() < 2 {
            return i.to_string();
        }
        let mut rest = i;
        let mut index: Vec<usize> = b
            .shape
            .iter()
            .rev()
            .map(|n| {
                let own = rest % n;
                rest /= n;
                own
            })
            .collect();
        index.reverse();
        format!("{index:?}")
    }
}

impl From<BoxSpace> for Space {
    fn from(space: BoxSpace) -> Self {
        Self::Box(space)
    }
}

impl fmt::Display for BoxSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bounds = |f: &mut fmt::Formatter<'_>, x: &[f32]| {
            if let Some(first) = x.first()
                && x.iter().all(|v| v == first)
            {
                return self.dtype.write(*first, f);
            }
            let skipped = if x.len() > WRITTEN { WRITTEN / 2..x.len() - WRITTEN / 2 } else { 0..0 };
            for (i, v) in x.iter().enumerate().filter(|(i, _)| !skipped.contains(i)) {
                f.write_str(if i == 0 { "[" } else { " " })?;
                if i > 0 && i == skipped.end {
                    f.write_str("... ")?;
                }
                self.dtype.write(*v, f)?;
            }
            f.write_str(if x.is_empty() { "[]" } else { "]" })
        };
        f.write_str("Box(")?;
        bounds(f, &self.low)?;
        f.write_str(", ")?;
        bounds(f, &self.high)?;
        let shape: Vec<String> = self.shape.iter().map(usize::to_string).collect();
        let comma = if shape.len() == 1 { "," } else { "" };
        write!(f, ", ({}{comma}), {})", shape.join(", "), self.dtype)
    }
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Discrete { n } => write!(f, "Discrete({n})"),
            Self::MultiDiscrete { nvec } => {
                let nvec: Vec<String> = nvec.iter().map(usize::to_string).collect();
                write!(f, "MultiDiscrete([{}])", nvec.join(" "))
            }
            Self::MultiBinary { n } => write!(f, "MultiBinary({n})"),
            Self::Box(b) => write!(f, "{b}"),
            Self::Product { parts } => Part::write_all(parts, f),
        }
    }
}
