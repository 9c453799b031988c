//! Scores over seeds: their summary, and the verdict against a published score.

use pgrad_run::stats::{Interval, StatsError, bootstrap_interval, mean, standard_error, std};

/// Interquartile mean: the mean of the middle half. A quarter of the weight is cut from each end; where
/// `n / 4` is not whole, the number at the edge keeps part of its weight. NaN of nothing.
///
/// Agarwal et al., 'Deep Reinforcement Learning at the Edge of the Statistical Precipice', 2021.
#[must_use]
pub fn iqm(x: &[f64]) -> f64 {
    let mut sorted = x.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len() as f64;
    let (low, high) = (n / 4.0, n * 3.0 / 4.0);
    // Number `i` stands for the interval `[i, i + 1)`; its weight is the part inside `[low, high)`.
    let weight = |i: usize| ((i as f64 + 1.0).min(high) - (i as f64).max(low)).max(0.0);
    sorted.iter().enumerate().map(|(i, v)| weight(i) * v).sum::<f64>() / (high - low)
}

/// What is said of the scores of one algorithm on one task.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Number of seeds.
    pub n: usize,
    /// Mean.
    pub mean: f64,
    /// Sample standard deviation.
    pub std: f64,
    /// Standard error of the mean.
    pub standard_error: f64,
    /// 95 % interval of the mean.
    pub mean_interval: Interval,
    /// Interquartile mean.
    pub iqm: f64,
    /// 95 % interval of the interquartile mean.
    pub iqm_interval: Interval,
    /// Lowest score.
    pub min: f64,
    /// Highest score.
    pub max: f64,
}

impl Summary {
    /// The summary of one score a seed.
    ///
    /// # Errors
    /// Below two scores, or when one is not finite.
    pub fn of(scores: &[f64], seed: u64) -> Result<Self, StatsError> {
        Ok(Self {
            mean_interval: bootstrap_interval(scores, seed, mean)?,
            iqm_interval: bootstrap_interval(scores, seed, iqm)?,
            n: scores.len(),
            mean: mean(scores),
            std: std(scores),
            standard_error: standard_error(scores),
            iqm: iqm(scores),
            min: scores.iter().copied().fold(f64::INFINITY, f64::min),
            max: scores.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        })
    }
}

/// Our scores against a published one. More is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The lower end of the 95 % interval of our mean is above the anchor.
    Beaten,
    /// Our mean is no worse than the anchor by more than one combined standard error.
    Reproduced,
    /// Neither.
    Short,
    /// Of an anchor that is an upper bound: our scores do not speak against it.
    Bounded,
    /// Of an upper bound: the lower end of the 95 % interval of our mean is above it.
    Exceeded,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Beaten => "beaten",
            Self::Reproduced => "reproduced",
            Self::Short => "short",
            Self::Bounded => "bounded",
            Self::Exceeded => "exceeded",
        })
    }
}

/// The verdict on `scores` against `anchor` with its standard error (0 when it was not published). The
/// combined standard error is `sqrt(ours^2 + anchor_se^2)`.
///
/// # Errors
/// Below two scores, or when one is not finite.
///
/// # Panics
/// When the anchor is not finite or its standard error negative: anchors come with the program.
pub fn verdict(scores: &[f64], anchor: f64, anchor_se: f64, seed: u64) -> Result<Verdict, StatsError> {
    assert!(anchor.is_finite() && anchor_se >= 0.0, "anchor {anchor} with standard error {anchor_se}");
    if bootstrap_interval(scores, seed, mean)?.low > anchor {
        return Ok(Verdict::Beaten);
    }
    let combined = standard_error(scores).hypot(anchor_se);
    Ok(if mean(scores) >= anchor - combined { Verdict::Reproduced } else { Verdict::Short })
}

/// The verdict on `scores` against an exact upper bound, what nobody can get more than on average: [`Verdict::Bounded`] or
/// [`Verdict::Exceeded`].
///
/// # Errors
/// As [`verdict`].
pub fn verdict_at_most(scores: &[f64], bound: f64, seed: u64) -> Result<Verdict, StatsError> {
    let above = bootstrap_interval(scores, seed, mean)?.low > bound;
    Ok(if above { Verdict::Exceeded } else { Verdict::Bounded })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64, tolerance: f64) {
        assert!((a - b).abs() <= tolerance, "{a} against {b}");
    }

    #[test]
    fn interquartile_mean_by_hand() {
        close(iqm(&[8.0, 1.0, 2.0, 7.0, 3.0, 6.0, 4.0, 5.0]), 4.5, 1e-15);
        // The middle half alone counts.
        close(iqm(&[-1e9, 2.0, 4.0, 1e9]), 3.0, 1e-12);
        // n = 5: 1.25 is cut from each end, so weights 0, 0.75, 1, 0.75, 0 over 2.5.
        close(iqm(&[0.0, 1.0, 2.0, 10.0, 99.0]), (0.75 + 2.0 + 7.5) / 2.5, 1e-15);
        // n = 3: weights 0.25, 1, 0.25 over 1.5.
        close(iqm(&[9.0, 0.0, 3.0]), (3.0 + 0.25 * 9.0) / 1.5, 1e-15);
        close(iqm(&[7.0]), 7.0, 1e-15);
        close(iqm(&[1.0, 2.0]), 1.5, 1e-15);
    }

    #[test]
    fn verdicts() {
        let x = [90.0, 100.0, 110.0, 100.0];
        // Mean 100, standard error sqrt(200 / 3 / 4) = 4.0825; 5 with an anchor's 2.887.
        assert_eq!(verdict(&x, 80.0, 0.0, 1), Ok(Verdict::Beaten));
        assert_eq!(verdict(&x, 100.0, 0.0, 1), Ok(Verdict::Reproduced));
        // A mean above the anchor is not enough: the interval reaches below it.
        assert_eq!(verdict(&x, 99.0, 0.0, 1), Ok(Verdict::Reproduced));
        assert_eq!(verdict(&x, 104.08, 0.0, 1), Ok(Verdict::Reproduced));
        assert_eq!(verdict(&x, 104.09, 0.0, 1), Ok(Verdict::Short));
        assert_eq!(verdict(&x, 104.99, 2.887, 1), Ok(Verdict::Reproduced));
        assert_eq!(verdict(&x, 105.01, 2.887, 1), Ok(Verdict::Short));
        // Negative scores, more is better.
        assert_eq!(verdict(&[-70.0, -71.0, -72.0], -73.5, 0.0, 1), Ok(Verdict::Beaten));
        // A perfect score cannot be beaten, only reproduced.
        assert_eq!(verdict(&[500.0; 20], 500.0, 0.0, 1), Ok(Verdict::Reproduced));
    }

    #[test]
    fn verdicts_on_upper_bounds() {
        let x = [1.9, 2.0, 2.1, 2.0];
        // A mean above the bound is not enough to speak against it: the interval reaches below.
        assert_eq!(verdict_at_most(&x, 1.95, 1), Ok(Verdict::Bounded));
        assert_eq!(verdict_at_most(&x, 3.0, 1), Ok(Verdict::Bounded));
        assert_eq!(verdict_at_most(&x, 1.8, 1), Ok(Verdict::Exceeded));
        assert_eq!(verdict_at_most(&[4.0; 10], 1.95, 1), Ok(Verdict::Exceeded));
        assert_eq!(verdict_at_most(&[1.95; 10], 1.95, 1), Ok(Verdict::Bounded));
        assert_eq!(verdict_at_most(&[1.0], 1.95, 1), Err(StatsError::TooFew { needed: 2, got: 1 }));
    }

    #[test]
    fn what_cannot_be_judged_is_an_error() {
        assert_eq!(verdict(&[1.0], 0.0, 0.0, 1), Err(StatsError::TooFew { needed: 2, got: 1 }));
        assert_eq!(Summary::of(&[1.0, f64::NAN], 1), Err(StatsError::NotFinite { index: 1 }));
    }

    #[test]
    fn the_summary_says_all_of_it() {
        let x = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0];
        let s = Summary::of(&x, 9).unwrap();
        assert_eq!((s.n, s.mean, s.min, s.max), (8, 5.0, 2.0, 9.0));
        close(s.iqm, 4.5, 1e-15);
        assert!(s.mean_interval.low < 5.0 && s.mean_interval.high > 5.0);
        assert!(s.iqm_interval.low <= 4.5 && s.iqm_interval.high >= 4.5);
    }
}
