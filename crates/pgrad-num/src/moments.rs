//! Running mean and variance.

use crate::{Record, RecordError};

/// Count, mean and sum of squared deviations of many features, in `f64`.
///
/// Two sets merge by Chan, Golub and LeVeque's formula, so partial moments of shards give the moments of
/// the whole, in whatever fixed order they are merged.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    count: f64,
    mean: Vec<f64>,
    m2: Vec<f64>,
}

impl Moments {
    /// Moments of nothing, for `features` features.
    #[must_use]
    pub fn new(features: usize) -> Self {
        Self { count: 0.0, mean: vec![0.0; features], m2: vec![0.0; features] }
    }
    /// Number of samples seen.
    #[must_use]
    pub fn count(&self) -> f64 {
        self.count
    }
    /// Mean of each feature; 0 before the first sample.
    #[must_use]
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }
    /// Variance (divided by the count) of feature `i`; 1 before the first sample.
    #[must_use]
    pub fn variance(&self, i: usize) -> f64 {
        if self.count == 0.0 { 1.0 } else { self.m2[i] / self.count }
    }
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.count = 0.0;
        self.mean.fill(0.0);
        self.m2.fill(0.0);
    }
    /// Adds a batch of `count` samples of feature values given by their mean and sum of squared deviations.
    fn add(&mut self, count: f64, mean: impl Fn(usize) -> f64, m2: impl Fn(usize) -> f64) {
        let total = self.count + count;
        for i in 0..self.mean.len() {
            let delta = mean(i) - self.mean[i];
            self.mean[i] += delta * count / total;
            self.m2[i] += m2(i) + delta * delta * self.count * count / total;
        }
        self.count = total;
    }
    /// Adds a batch `[features x samples]`, samples contiguous.
    ///
    /// # Panics
    /// When the number of rows is not the number of features.
    pub fn add_cols(&mut self, x: crate::Cols<'_, f32>) {
        assert_eq!(x.rows(), self.mean.len());
        let n = x.cols();
        if n == 0 {
            return;
        }
        let total = self.count + n as f64;
        for i in 0..self.mean.len() {
            let row = x.row(i);
            let mean = crate::kernels::sum(row) / n as f64;
            let m2 = crate::kernels::sum_of_squares(row, mean);
            let delta = mean - self.mean[i];
            self.mean[i] += delta * n as f64 / total;
            self.m2[i] += m2 + delta * delta * self.count * n as f64 / total;
        }
        self.count = total;
    }
    /// Adds all that `other` has seen.
    ///
    /// # Panics
    /// When the numbers of features differ.
    pub fn merge(&mut self, other: &Moments) {
        assert_eq!(self.mean.len(), other.mean.len());
        if other.count > 0.0 {
            self.add(other.count, |i| other.mean[i], |i| other.m2[i]);
        }
    }
    /// Saves the moments.
    #[must_use]
    pub fn save(&self) -> Record {
        let mut r = Record::new();
        r.put("count", vec![self.count]);
        r.put("mean", self.mean.clone());
        r.put("m2", self.m2.clone());
        r
    }
    /// Restores what [`Moments::save`] saved.
    ///
    /// # Errors
    /// When an entry is missing, has another size, or cannot be a moment.
    pub fn load(&mut self, from: &Record) -> Result<(), RecordError> {
        let n = self.mean.len();
        let (count, mean, m2) = (from.f64("count")?, from.f64s("mean", n)?, from.f64s("m2", n)?);
        let bad = |name: &str, reason: &str| RecordError::Value { name: name.into(), reason: reason.into() };
        if !(count.is_finite() && count >= 0.0) {
            return Err(bad("count", "a count is finite and not negative"));
        }
        if !mean.iter().all(|x| x.is_finite()) {
            return Err(bad("mean", "a mean is finite"));
        }
        if !m2.iter().all(|x| x.is_finite() && *x >= 0.0) {
            return Err(bad("m2", "a sum of squares is finite and not negative"));
        }
        self.count = count;
        self.mean.copy_from_slice(mean);
        self.m2.copy_from_slice(m2);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cols, Stream};

    #[test]
    fn batches_and_merges_agree_with_the_two_pass_formula() {
        let mut s = Stream::new(2, 0, 0);
        let n = 1000;
        let x: Vec<f32> = (0..2 * n).map(|i| (1e3 * (i / n) as f64 + s.normal()) as f32).collect();
        let mut whole = Moments::new(2);
        let mut parts = vec![Moments::new(2); 3];
        // Uneven batches, dealt to three parts.
        let mut at = 0;
        for (i, len) in [1usize, 7, 64, 300, 628].into_iter().enumerate() {
            let batch: Vec<f32> = x[at..at + len].iter().chain(&x[n + at..n + at + len]).copied().collect();
            whole.add_cols(Cols::new(&batch, 2, len));
            parts[i % 3].add_cols(Cols::new(&batch, 2, len));
            at += len;
        }
        assert_eq!(at, n);
        let mut merged = Moments::new(2);
        for p in &parts {
            merged.merge(p);
        }
        for f in 0..2 {
            let row = &x[f * n..(f + 1) * n];
            let mean = row.iter().map(|v| f64::from(*v)).sum::<f64>() / n as f64;
            let var = row.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n as f64;
            for m in [&whole, &merged] {
                assert!((m.mean()[f] - mean).abs() < 1e-9 * (1.0 + mean.abs()));
                assert!((m.variance(f) - var).abs() < 1e-9);
                assert_eq!(m.count(), n as f64);
            }
        }
    }

    #[test]
    fn impossible_moments_are_refused() {
        let mut m = Moments::new(1);
        let mut r = Record::new();
        r.put("count", vec![-1.0]);
        r.put("mean", vec![0.0]);
        r.put("m2", vec![0.0]);
        assert!(matches!(m.load(&r), Err(RecordError::Value { .. })));
        assert_eq!(m, Moments::new(1));
    }
}
