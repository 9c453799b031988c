//! Scores over seeds: means, spread, intervals, and the verdict against a published score.

use pgrad_num::Stream;
use thiserror::Error;

/// Purpose number of the random stream of the bootstrap.
const STREAM_BOOTSTRAP: u32 = 0x5354_4154;
/// Resamples of an interval.
pub const RESAMPLES: usize = 10_000;

/// What cannot be computed from the scores given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StatsError {
    /// Too few scores.
    #[error("{needed} scores are needed at least, {got} are there: run more seeds")]
    TooFew {
        /// Fewest that would do.
        needed: usize,
        /// How many there are.
        got: usize,
    },
    /// A score that is not finite.
    #[error("score number {index} (from 0) is not finite: look at that run")]
    NotFinite {
        /// Which one.
        index: usize,
    },
}

fn check(x: &[f64], needed: usize) -> Result<(), StatsError> {
    if x.len() < needed {
        return Err(StatsError::TooFew { needed, got: x.len() });
    }
    match x.iter().position(|v| !v.is_finite()) {
        Some(index) => Err(StatsError::NotFinite { index }),
        None => Ok(()),
    }
}

/// Arithmetic mean; NaN of nothing.
#[must_use]
pub fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len() as f64
}

/// The middle value: for an even count the mean of the two in the middle. NaN for nothing.
#[must_use]
pub fn median(x: &[f64]) -> f64 {
    let mut sorted = x.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    if n == 0 { f64::NAN } else { 0.5 * (sorted[(n - 1) / 2] + sorted[n / 2]) }
}

/// Sample standard deviation, `sqrt(sum (x - mean)^2 / (n - 1))`; NaN below two numbers.
#[must_use]
pub fn std(x: &[f64]) -> f64 {
    if x.len() < 2 {
        return f64::NAN;
    }
    let m = mean(x);
    (x.iter().map(|v| (v - m).powi(2)).sum::<f64>() / (x.len() - 1) as f64).sqrt()
}

/// Standard error of the mean, `std / sqrt(n)`; NaN below two numbers.
#[must_use]
pub fn standard_error(x: &[f64]) -> f64 {
    std(x) / (x.len() as f64).sqrt()
}

/// Interquartile mean: the mean of the middle half. A quarter of the weight is cut from each end; where
/// `n / 4` is not whole, the number at the edge keeps part of its weight. NaN of nothing.
///
/// Agarwal et al., 'Deep Reinforcement Learning at the Edge of the Statistical Precipice', 2021.
#[must_use]
pub fn iqm(x: &[f64]) -> f64 {
    let mut sorted = x.to_vec();
    sorted.sort_by(f64::total_cmp);
    iqm_of_sorted(&sorted)
}

fn iqm_of_sorted(sorted: &[f64]) -> f64 {
    let n = sorted.len() as f64;
    let (low, high) = (n / 4.0, n * 3.0 / 4.0);
    // Number `i` stands for the interval `[i, i + 1)`; its weight is the part inside `[low, high)`.
    let weight = |i: usize| ((i as f64 + 1.0).min(high) - (i as f64).max(low)).max(0.0);
    sorted.iter().enumerate().map(|(i, v)| weight(i) * v).sum::<f64>() / (high - low)
}

/// The `p`-quantile of sorted numbers, `0 <= p <= 1`, by linear interpolation (NumPy's default).
fn quantile_of_sorted(sorted: &[f64], p: f64) -> f64 {
    let at = p * (sorted.len() - 1) as f64;
    let (i, part) = (at.floor() as usize, at.fract());
    let next = sorted[(i + 1).min(sorted.len() - 1)];
    sorted[i] + part * (next - sorted[i])
}

/// An interval `[low, high]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// The 95 % percentile bootstrap interval of a statistic: its 2.5 % and 97.5 % quantiles over
/// [`RESAMPLES`] samples of the same size, drawn with replacement (Efron, 1979). Equal seeds give equal
/// intervals.
///
/// # Errors
/// Below two scores, or when one is not finite.
pub fn bootstrap_interval(
    x: &[f64],
    seed: u64,
    statistic: impl Fn(&[f64]) -> f64,
) -> Result<Interval, StatsError> {
    bootstrap(x, seed, RESAMPLES, statistic)
}

pub(crate) fn bootstrap(
    x: &[f64],
    seed: u64,
    resamples: usize,
    statistic: impl Fn(&[f64]) -> f64,
) -> Result<Interval, StatsError> {
    check(x, 2)?;
    let mut random = Stream::new(seed, STREAM_BOOTSTRAP, 0);
    let mut sample = vec![0.0; x.len()];
    let mut values: Vec<f64> = (0..resamples)
        .map(|_| {
            for s in &mut sample {
                *s = x[random.below(x.len() as u32) as usize];
            }
            statistic(&sample)
        })
        .collect();
    values.sort_by(f64::total_cmp);
    Ok(Interval { low: quantile_of_sorted(&values, 0.025), high: quantile_of_sorted(&values, 0.975) })
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

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    fn close(a: f64, b: f64, tolerance: f64) {
        assert!((a - b).abs() <= tolerance, "{a} against {b}");
    }

    #[test]
    fn mean_std_and_standard_error_by_hand() {
        // 2 4 4 4 5 5 7 9: mean 5, squares 9 1 1 1 0 0 4 16 = 32, 32 / 7.
        let x = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0];
        close(mean(&x), 5.0, 0.0);
        close(std(&x), (32.0f64 / 7.0).sqrt(), 1e-15);
        close(standard_error(&x), (32.0f64 / 56.0).sqrt(), 1e-15);
        assert!(std(&[1.0]).is_nan() && standard_error(&[]).is_nan() && mean(&[]).is_nan());
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
    fn quantiles_by_hand() {
        // numpy.quantile([1, 2, 4, 8], q).
        for (p, q) in [(0.0, 1.0), (0.5, 3.0), (0.25, 1.75), (0.975, 7.7), (1.0, 8.0)] {
            close(quantile_of_sorted(&[1.0, 2.0, 4.0, 8.0], p), q, 1e-12);
        }
    }

    #[test]
    fn the_bootstrap_of_two_values_is_the_binomial() {
        // 10 zeros and 10 ones: the resampled mean is Binomial(20, 1/2) / 20, whose 2.5 % and 97.5 % points
        // are 6/20 and 14/20 (cumulative 0.0207 at 5, 0.0577 at 6; symmetric).
        let x: Vec<f64> = (0..20).map(|i| f64::from(i % 2)).collect();
        let got = bootstrap_interval(&x, 1, mean).unwrap();
        assert_eq!(got, Interval { low: 0.3, high: 0.7 });
        assert_eq!(bootstrap_interval(&[3.0; 5], 1, mean).unwrap(), Interval { low: 3.0, high: 3.0 });
    }

    #[test]
    fn the_bootstrap_approaches_the_normal_interval() {
        let mut random = Stream::new(3, 1, 0);
        let x: Vec<f64> = (0..400).map(|_| random.normal()).collect();
        let got = bootstrap_interval(&x, 5, mean).unwrap();
        let half = 1.959_964 * standard_error(&x);
        close(got.low, mean(&x) - half, 0.05 * half);
        close(got.high, mean(&x) + half, 0.05 * half);
        assert_eq!(got, bootstrap_interval(&x, 5, mean).unwrap());
        assert_ne!(got, bootstrap_interval(&x, 6, mean).unwrap());
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
