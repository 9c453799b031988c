//! What observations and actions look like.

/// A box in `R^n`: every number between its own bounds, which may be infinite.
#[derive(Clone, Debug, PartialEq)]
pub struct BoxSpace {
    /// Lowest value of each number.
    pub low: Vec<f32>,
    /// Highest value of each number.
    pub high: Vec<f32>,
}

impl BoxSpace {
    /// A box with the same bounds for all `n` numbers.
    #[must_use]
    pub fn uniform(low: f32, high: f32, n: usize) -> Self {
        Self { low: vec![low; n], high: vec![high; n] }
    }
    /// All of `R^n`.
    #[must_use]
    pub fn unbounded(n: usize) -> Self {
        Self::uniform(f32::NEG_INFINITY, f32::INFINITY, n)
    }
    /// Number of numbers.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.low.len()
    }
}

/// A space of observations or actions.
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
    /// Real numbers between bounds.
    Box(BoxSpace),
}

impl Space {
    /// How many numbers an observation of this space has as network input: a discrete observation is
    /// written one-hot.
    #[must_use]
    pub fn obs_dim(&self) -> usize {
        match self {
            Self::Discrete { n } | Self::MultiBinary { n } => *n,
            Self::MultiDiscrete { nvec } => nvec.iter().sum(),
            Self::Box(b) => b.dim(),
        }
    }
    /// How many numbers an action of this space has: 1 for `Discrete`.
    #[must_use]
    pub fn action_dim(&self) -> usize {
        match self {
            Self::Discrete { .. } => 1,
            Self::MultiDiscrete { nvec } => nvec.len(),
            Self::MultiBinary { n } => *n,
            Self::Box(b) => b.dim(),
        }
    }
    /// How many entries an action mask has: one for each alternative of each choice; 0 where a mask has
    /// no meaning.
    #[must_use]
    pub fn mask_dim(&self) -> usize {
        match self {
            Self::Discrete { n } => *n,
            Self::MultiDiscrete { nvec } => nvec.iter().sum(),
            Self::MultiBinary { .. } | Self::Box(_) => 0,
        }
    }
}

impl std::fmt::Display for Space {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Discrete { n } => write!(f, "Discrete({n})"),
            Self::MultiDiscrete { nvec } => write!(f, "MultiDiscrete({nvec:?})"),
            Self::MultiBinary { n } => write!(f, "MultiBinary({n})"),
            Self::Box(b) => {
                let all = |x: &[f32]| x.iter().all(|v| *v == x[0]);
                if b.dim() > 0 && all(&b.low) && all(&b.high) {
                    write!(f, "Box({}, {}, [{}])", b.low[0], b.high[0], b.dim())
                } else {
                    write!(f, "Box({:?}, {:?})", b.low, b.high)
                }
            }
        }
    }
}

impl Space {
    /// Number of alternatives of each choice; empty for `Box` and `MultiBinary`.
    #[must_use]
    pub fn choices(&self) -> Vec<usize> {
        match self {
            Self::Discrete { n } => vec![*n],
            Self::MultiDiscrete { nvec } => nvec.clone(),
            Self::MultiBinary { .. } | Self::Box(_) => Vec::new(),
        }
    }
}
