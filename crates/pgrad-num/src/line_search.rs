//! Backtracking line search.

/// How steps shrink.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BacktrackParams {
    /// Each try is this fraction of the one before, between 0 and 1. Default 0.8.
    pub ratio: f64,
    /// Most tries. Default 10.
    pub max_tries: usize,
}

impl Default for BacktrackParams {
    fn default() -> Self {
        Self { ratio: 0.8, max_tries: 10 }
    }
}

/// What a try found, with whatever it wants to report.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Trial<T> {
    /// The step is good: stop here.
    Accept(T),
    /// Try a shorter one.
    Reject(T),
}

/// What a search did. Rejecting every step is an ordinary outcome: the caller keeps its old point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BacktrackInfo<T> {
    /// The accepted step length; `None` when every try was rejected.
    pub step: Option<f64>,
    /// Number of tries.
    pub tries: usize,
    /// What the last try reported; `None` when there was no try.
    pub last: Option<T>,
}

/// Tries the step lengths `initial`, `initial ratio`, `initial ratio²`, ... until one is accepted.
///
/// `attempt(step)` judges a step; one that meets a number that is not finite should reject.
///
/// # Panics
/// When `ratio` is not between 0 and 1.
pub fn backtrack<T>(
    params: BacktrackParams,
    initial: f64,
    mut attempt: impl FnMut(f64) -> Trial<T>,
) -> BacktrackInfo<T> {
    assert!(params.ratio > 0.0 && params.ratio < 1.0, "the ratio {} is not between 0 and 1", params.ratio);
    let mut info = BacktrackInfo { step: None, tries: 0, last: None };
    let mut step = initial;
    while info.tries < params.max_tries {
        info.tries += 1;
        match attempt(step) {
            Trial::Accept(report) => {
                info.step = Some(step);
                info.last = Some(report);
                return info;
            }
            Trial::Reject(report) => info.last = Some(report),
        }
        step *= params.ratio;
    }
    info
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_first_step_that_is_accepted() {
        let mut seen = vec![];
        let params = BacktrackParams { ratio: 0.5, max_tries: 10 };
        let info = backtrack(params, 8.0, |step| {
            seen.push(step);
            if step < 1.5 { Trial::Accept(-step) } else { Trial::Reject(step) }
        });
        assert_eq!(seen, [8.0, 4.0, 2.0, 1.0]);
        assert_eq!(info, BacktrackInfo { step: Some(1.0), tries: 4, last: Some(-1.0) });
    }

    #[test]
    fn says_when_no_step_was_good() {
        let params = BacktrackParams { ratio: 0.1, max_tries: 3 };
        let info = backtrack(params, 1.0, Trial::Reject);
        assert_eq!((info.step, info.tries), (None, 3));
        assert!((info.last.unwrap() - 0.01).abs() < 1e-15);
        let none = backtrack(BacktrackParams { max_tries: 0, ..params }, 1.0, Trial::Accept);
        assert_eq!(none, BacktrackInfo { step: None, tries: 0, last: None });
    }

    #[test]
    #[should_panic(expected = "not between 0 and 1")]
    fn a_ratio_that_does_not_shrink_is_refused() {
        backtrack(BacktrackParams { ratio: 1.0, max_tries: 3 }, 1.0, |_| Trial::Accept(()));
    }
}
