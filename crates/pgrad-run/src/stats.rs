//! Means, spread and intervals of scores.

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
    #[error("at least {needed} scores are needed, but there are {got}: run more seeds")]
    TooFew {
        /// Fewest that would do.
        needed: usize,
        /// How many there are.
        got: usize,
    },
    /// A score that is not finite.
    #[error("score {index} (counted from 0) is not finite: check that run")]
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

/// [`bootstrap_interval`] with another number of samples.
///
/// # Errors
/// As [`bootstrap_interval`].
pub fn bootstrap(
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
}
