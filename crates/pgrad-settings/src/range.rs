//! Which numbers a setting accepts.

use std::fmt;
use std::ops::{Range, RangeFrom, RangeInclusive};

/// An interval of whole numbers, both ends inside.
///
/// Made of `1..`, `1..=9` or `1..10`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntRange {
    /// Smallest value.
    pub low: u64,
    /// Largest value; `u64::MAX` stands for no upper end.
    pub high: u64,
}

impl IntRange {
    /// Every whole number from 0.
    pub const ALL: Self = Self { low: 0, high: u64::MAX };

    /// Whether `x` lies inside.
    #[must_use]
    pub fn contains(&self, x: i128) -> bool {
        x >= i128::from(self.low) && x <= i128::from(self.high)
    }
}

impl fmt::Display for IntRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self { low, high: u64::MAX } => write!(f, "{low} or more"),
            Self { low, high } => write!(f, "{low} to {high}"),
        }
    }
}

impl From<RangeInclusive<u64>> for IntRange {
    fn from(r: RangeInclusive<u64>) -> Self {
        Self { low: *r.start(), high: *r.end() }
    }
}
impl From<RangeFrom<u64>> for IntRange {
    fn from(r: RangeFrom<u64>) -> Self {
        Self { low: r.start, high: u64::MAX }
    }
}
impl From<Range<u64>> for IntRange {
    fn from(r: Range<u64>) -> Self {
        Self { low: r.start, high: r.end.saturating_sub(1) }
    }
}

/// An interval of numbers. Each end is inside (closed) or outside (open).
///
/// Made of `0.0..=1.0` for `[0, 1]`, `0.0..1.0` for `[0, 1)`, `0.0..` for `[0, inf)`, [`above`]`(0.0)` for
/// `(0, inf)`, `above(0.0).to(1.0)` for `(0, 1]` and `above(0.0).below(1.0)` for `(0, 1)`. NaN is never
/// inside; infinity only when it is a closed end: `0.0..=f64::INFINITY`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FloatRange {
    /// Lower end.
    pub low: f64,
    /// Whether the lower end is outside.
    pub low_open: bool,
    /// Upper end.
    pub high: f64,
    /// Whether the upper end is outside.
    pub high_open: bool,
}

/// The open interval `(low, inf)`.
#[must_use]
pub const fn above(low: f64) -> FloatRange {
    FloatRange { low, low_open: true, high: f64::INFINITY, high_open: true }
}

impl FloatRange {
    /// Every finite number.
    pub const FINITE: Self =
        Self { low: f64::NEG_INFINITY, low_open: true, high: f64::INFINITY, high_open: true };

    /// The same interval up to `high`, inside.
    #[must_use]
    pub const fn to(self, high: f64) -> Self {
        Self { high, high_open: false, ..self }
    }
    /// The same interval up to `high`, outside.
    #[must_use]
    pub const fn below(self, high: f64) -> Self {
        Self { high, high_open: true, ..self }
    }
    /// Whether `x` lies inside.
    #[must_use]
    pub fn contains(&self, x: f64) -> bool {
        (if self.low_open { x > self.low } else { x >= self.low })
            && (if self.high_open { x < self.high } else { x <= self.high })
    }
}

impl fmt::Display for FloatRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = if self.low_open { '(' } else { '[' };
        let close = if self.high_open { ')' } else { ']' };
        if *self == Self::FINITE {
            return f.write_str("any finite number");
        }
        // `{:?}` writes 1e-8 as such, `{}` writes 1.0 as 1.
        let short = |x: f64| if x.abs() < 1e-3 || x.abs() > 1e6 { format!("{x:?}") } else { format!("{x}") };
        let [low, high] = [self.low, self.high].map(|x| if x == 0.0 { "0".to_owned() } else { short(x) });
        write!(f, "{open}{low}, {high}{close}")
    }
}

impl From<RangeInclusive<f64>> for FloatRange {
    fn from(r: RangeInclusive<f64>) -> Self {
        Self { low: *r.start(), low_open: false, high: *r.end(), high_open: false }
    }
}
impl From<Range<f64>> for FloatRange {
    fn from(r: Range<f64>) -> Self {
        Self { low: r.start, low_open: false, high: r.end, high_open: true }
    }
}
impl From<RangeFrom<f64>> for FloatRange {
    fn from(r: RangeFrom<f64>) -> Self {
        Self { low: r.start, low_open: false, high: f64::INFINITY, high_open: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_inside_or_outside_as_declared() {
        let (lo, hi) = (0.0f64, 1.0f64);
        for (range, low_in, high_in, text) in [
            (FloatRange::from(0.0..=1.0), true, true, "[0, 1]"),
            (FloatRange::from(0.0..1.0), true, false, "[0, 1)"),
            (above(0.0).to(1.0), false, true, "(0, 1]"),
            (above(0.0).below(1.0), false, false, "(0, 1)"),
        ] {
            assert_eq!(range.contains(lo), low_in, "{range}");
            assert_eq!(range.contains(hi), high_in, "{range}");
            assert!(range.contains(0.5) && !range.contains(lo.next_down()) && !range.contains(hi.next_up()));
            assert!(range.contains(lo.next_up()) && range.contains(hi.next_down()));
            assert!(!range.contains(f64::NAN));
            assert_eq!(range.to_string(), text);
        }
    }

    #[test]
    fn infinity_has_to_be_declared() {
        assert!(!FloatRange::from(0.0..).contains(f64::INFINITY));
        assert!(
            !FloatRange::FINITE.contains(f64::INFINITY) && !FloatRange::FINITE.contains(f64::NEG_INFINITY)
        );
        assert!(FloatRange::from(0.0..=f64::INFINITY).contains(f64::INFINITY));
        assert_eq!(FloatRange::from(0.0..).to_string(), "[0, inf)");
        assert_eq!(FloatRange::from(1e-8..=1e9).to_string(), "[1e-8, 1000000000.0]");
    }

    #[test]
    fn whole_ranges() {
        assert_eq!(IntRange::from(2..5), IntRange { low: 2, high: 4 });
        assert_eq!(IntRange::from(2..=5).to_string(), "2 to 5");
        assert_eq!(IntRange::from(2..).to_string(), "2 or more");
        assert!(!IntRange::ALL.contains(-1) && !IntRange::ALL.contains(i128::from(u64::MAX) + 1));
    }
}
