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
    /// Our mean is above the anchor, by more than the 95 % intervals of both together.
    Beaten,
    /// Our mean is no worse than the anchor by more than one standard error of their difference, nor by more
    /// than [`LARGEST_MISS`] of the anchor.
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

/// A seed has failed whose score is below the anchor by more than this part of the anchor.
pub const FAILED_BELOW: f64 = 0.25;
/// A mean that is below the anchor by more than this part of the anchor is short, however large its error is.
pub const LARGEST_MISS: f64 = 0.1;

/// A verdict, and what it was made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// Our mean minus the anchor.
    pub difference: f64,
    /// Standard error of the difference: ours and the anchor's. Failed seeds do not count in it, so that one
    /// that lowers the mean cannot excuse it as well.
    pub error: f64,
    /// Seeds that failed ([`FAILED_BELOW`]).
    pub failed: usize,
}

/// The verdict on `scores` against `anchor` with its standard error (0 when it was not published).
///
/// # Errors
/// Below two scores, or when one is not finite.
///
/// # Panics
/// When the anchor is not finite or its standard error negative: anchors come with the program.
pub fn judge(scores: &[f64], anchor: f64, anchor_se: f64, seed: u64) -> Result<Judgement, StatsError> {
    assert!(anchor.is_finite() && anchor_se >= 0.0, "anchor {anchor} with standard error {anchor_se}");
    let (ours, low) = (mean(scores), bootstrap_interval(scores, seed, mean)?.low);
    let has_failed = |x: &f64| *x < anchor - FAILED_BELOW * anchor.abs();
    let others: Vec<f64> = scores.iter().copied().filter(|x| !has_failed(x)).collect();
    // Where hardly any is left, the bound of a tenth alone decides.
    let own = standard_error(if others.len() < 2 { scores } else { &others });
    let (difference, error) = (ours - anchor, own.hypot(anchor_se));
    let verdict = if difference > (ours - low).hypot(NORMAL_95 * anchor_se) {
        Verdict::Beaten
    } else if difference >= -error.min(LARGEST_MISS * anchor.abs()) {
        Verdict::Reproduced
    } else {
        Verdict::Short
    };
    Ok(Judgement { verdict, difference, error, failed: scores.len() - others.len() })
}

/// Half of a 95 % interval, in standard errors.
const NORMAL_95: f64 = 1.96;

/// The verdict on `scores` against an exact upper bound, what nobody can get more than on average:
/// [`Verdict::Bounded`] or [`Verdict::Exceeded`]. No seed fails.
///
/// # Errors
/// As [`judge`].
pub fn judge_at_most(scores: &[f64], bound: f64, seed: u64) -> Result<Judgement, StatsError> {
    let above = bootstrap_interval(scores, seed, mean)?.low > bound;
    let verdict = if above { Verdict::Exceeded } else { Verdict::Bounded };
    let (difference, error) = (mean(scores) - bound, standard_error(scores));
    Ok(Judgement { verdict, difference, error, failed: 0 })
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

    fn verdict(scores: &[f64], anchor: f64, anchor_se: f64, seed: u64) -> Result<Verdict, StatsError> {
        judge(scores, anchor, anchor_se, seed).map(|j| j.verdict)
    }
    fn verdict_at_most(scores: &[f64], bound: f64, seed: u64) -> Result<Verdict, StatsError> {
        judge_at_most(scores, bound, seed).map(|j| j.verdict)
    }

    /// Twenty seeds, one of which learnt nothing: what it takes from the mean is not given back by the error.
    #[test]
    fn a_failed_seed_does_not_excuse_itself() {
        let mut x = [93.0; 20];
        x[..10].fill(94.0);
        assert_eq!(verdict(&x, 92.5, 0.0, 1), Ok(Verdict::Beaten));
        x[7] = -20.0;
        // The mean is 87.75 - 0.05; the error of the other 19, by hand: sqrt(19 * (9/19) * (10/19) / 18 /
        // 19).
        let judged = judge(&x, 92.5, 0.0, 1).unwrap();
        assert_eq!((judged.verdict, judged.failed), (Verdict::Short, 1));
        close(judged.difference, (10.0 * 93.0 + 9.0 * 94.0 - 20.0) / 20.0 - 92.5, 1e-12);
        close(judged.error, (90.0f64 / 19.0 / 18.0 / 19.0).sqrt(), 1e-12);
        assert!(standard_error(&x) > 5.0, "with it, the mean would have been within one error");
        // Two failed of three: an error of one score is none, and that of all, 31.8, does not excuse them.
        let judged = judge(&[0.0, 10.0, 100.0], 100.0, 0.0, 1).unwrap();
        assert_eq!((judged.verdict, judged.failed), (Verdict::Short, 2));
        close(judged.error, (9100.0f64 / 9.0).sqrt(), 1e-9);
        // Of negative scores a quarter below is further from zero.
        assert_eq!(judge(&[-100.0, -124.0, -126.0], -100.0, 0.0, 1).unwrap().failed, 1);
    }

    #[test]
    fn a_miss_of_more_than_a_tenth_is_short_however_large_the_error() {
        let noisy = [80.0, 80.0, 100.0, 110.0];
        let judged = judge(&noisy, 100.0, 0.0, 1).unwrap();
        assert!(judged.error > 7.0 && judged.failed == 0);
        assert_eq!(judged.verdict, Verdict::Reproduced, "7.5 below");
        let judged = judge(&noisy, 104.0, 20.0, 1).unwrap();
        assert_eq!(judged.verdict, Verdict::Short, "11.5 below, with an error of {}", judged.error);
    }

    /// An anchor that may be off by more than we are above it is not beaten.
    #[test]
    fn the_anchors_error_counts_where_it_is_beaten_too() {
        let x = [90.0, 100.0, 110.0, 100.0];
        assert_eq!(verdict(&x, 85.0, 0.0, 1), Ok(Verdict::Beaten));
        assert_eq!(verdict(&x, 85.0, 10.0, 1), Ok(Verdict::Reproduced));
        assert_eq!(verdict(&x, 60.0, 10.0, 1), Ok(Verdict::Beaten));
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
