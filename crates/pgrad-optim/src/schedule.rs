//! How a setting changes over a run.

/// A factor on a setting, as a function of the part of the run that is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Schedule {
    /// Always 1.
    #[default]
    Constant,
    /// From 1 at the start to 0 at the end.
    Linear,
}

impl Schedule {
    /// The factor when `done` of `total` steps are done. Beyond the end it stays at the last value.
    ///
    /// The linear factor is `1 − done/total`.
    #[must_use]
    pub fn factor(self, done: u64, total: u64) -> f64 {
        match self {
            Self::Constant => 1.0,
            Self::Linear if total == 0 => 0.0,
            Self::Linear => 1.0 - (done.min(total) as f64 / total as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_falls_from_one_to_zero() {
        assert_eq!([0, 25, 100, 200].map(|d| Schedule::Linear.factor(d, 100)), [1.0, 0.75, 0.0, 0.0]);
        assert_eq!([0, 100].map(|d| Schedule::Constant.factor(d, 100)), [1.0, 1.0]);
    }
}
