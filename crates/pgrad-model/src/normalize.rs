//! Running normalisation of observations and rewards.

use pgrad_env::End;
use pgrad_num::{Cols, ColsMut, Moments, Record, RecordError};

const EPSILON: f64 = 1e-8;

/// Observations shifted and scaled to mean 0 and variance 1, clipped to `±clip`.
///
/// The moments are frozen while a rollout is collected: every shard of environments sees the same numbers
/// without waiting for the others, and the policy that acted is the policy that is trained. What the rollout
/// saw is added afterwards. (Stable-Baselines3 updates at every step instead.)
#[derive(Clone, Debug, PartialEq)]
pub struct ObsNormalizer {
    moments: Moments,
    mean: Vec<f32>,
    inverse_std: Vec<f32>,
    clip: f32,
}

impl ObsNormalizer {
    /// A normaliser that has seen nothing and changes nothing but for the clip.
    #[must_use]
    pub fn new(features: usize, clip: f64) -> Self {
        Self {
            moments: Moments::new(features),
            mean: vec![0.0; features],
            inverse_std: vec![1.0; features],
            clip: clip as f32,
        }
    }
    /// Normalises a batch `[features x cols]` in place: `clip((x − mean) / √(var + 1e-8))`.
    pub fn apply(&self, mut x: ColsMut<'_, f32>) {
        let clip = self.clip;
        for i in 0..x.rows() {
            let (mean, scale) = (self.mean[i], self.inverse_std[i]);
            for v in x.row_mut(i) {
                *v = ((*v - mean) * scale).clamp(-clip, clip);
            }
        }
    }
    /// Normalises one observation in place.
    pub fn apply_one(&self, x: &mut [f32]) {
        let n = x.len();
        self.apply(ColsMut::new(x, n, 1));
    }
    /// Adds what a rollout saw.
    pub fn merge(&mut self, seen: &Moments) {
        self.moments.merge(seen);
        self.refresh();
    }
    fn refresh(&mut self) {
        for i in 0..self.mean.len() {
            self.mean[i] = self.moments.mean()[i] as f32;
            self.inverse_std[i] = (1.0 / (self.moments.variance(i) + EPSILON).sqrt()) as f32;
        }
    }
    /// Number of features.
    #[must_use]
    pub fn features(&self) -> usize {
        self.mean.len()
    }
    /// The clip.
    #[must_use]
    pub fn clip(&self) -> f64 {
        f64::from(self.clip)
    }
    /// Saves the moments.
    #[must_use]
    pub fn save(&self) -> Record {
        self.moments.save()
    }
    /// Restores what [`ObsNormalizer::save`] saved.
    ///
    /// # Errors
    /// When the record does not fit or cannot be.
    pub fn load(&mut self, from: &Record) -> Result<(), RecordError> {
        self.moments.load(from)?;
        self.refresh();
        Ok(())
    }
}

/// Rewards divided by the standard deviation of the discounted return, clipped to `±clip`.
///
/// `R_b ← γ R_b + r` for each environment, from 0 at the start of an episode; the variance is that of all
/// `R_b` seen, the present rollout included (Engstrom et al. 2020, "reward scaling"). The mean is left
/// alone: shifting rewards would change what is optimal.
#[derive(Clone, Debug, PartialEq)]
pub struct RewardNormalizer {
    moments: Moments,
    returns: Vec<f64>,
    gamma: f64,
    clip: f32,
    seen: Vec<f32>,
    lost: Vec<bool>,
}

impl RewardNormalizer {
    /// A normaliser for `n_envs` environments.
    #[must_use]
    pub fn new(n_envs: usize, gamma: f64, clip: f64) -> Self {
        Self {
            moments: Moments::new(1),
            returns: vec![0.0; n_envs],
            gamma,
            clip: clip as f32,
            seen: Vec::new(),
            lost: Vec::new(),
        }
    }
    /// Adds the rewards of a shard, `[T, B]` flat, environments `first..first + b`; not those of lost
    /// episodes.
    pub fn observe(&mut self, first: usize, b: usize, rewards: &[f32], ends: &[End]) {
        self.seen.clear();
        self.lost.clear();
        if ends.contains(&End::Lost) {
            self.lost.resize(ends.len(), false);
            mark_lost(ends, b, &mut self.lost);
        }
        for (t, (row, ends)) in rewards.chunks_exact(b).zip(ends.chunks_exact(b)).enumerate() {
            for i in 0..b {
                let ret = &mut self.returns[first + i];
                *ret = self.gamma * *ret + f64::from(row[i]);
                // Finite rewards may sum to more than single precision holds: infinity would spoil the
                // moments.
                if !self.lost.get(t * b + i).is_some_and(|lost| *lost) {
                    self.seen.push(ret.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32);
                }
                if ends[i] != End::Running {
                    *ret = 0.0;
                }
            }
        }
        self.moments.add_cols(Cols::new(&self.seen, 1, self.seen.len()));
    }
    /// Makes room for `samples` rewards a shard, so that [`RewardNormalizer::observe`] never allocates.
    pub fn reserve(&mut self, samples: usize) {
        self.seen.reserve(samples);
    }
    /// Scales rewards in place: `clip(r / √(var + 1e-8))`.
    pub fn apply(&self, rewards: &mut [f32]) {
        let scale = (1.0 / (self.moments.variance(0) + EPSILON).sqrt()) as f32;
        for r in rewards {
            *r = (*r * scale).clamp(-self.clip, self.clip);
        }
    }
    /// Saves the moments and the running returns.
    #[must_use]
    pub fn save(&self) -> Record {
        let mut r = self.moments.save();
        r.put("returns", self.returns.clone());
        r
    }
    /// Restores what [`RewardNormalizer::save`] saved.
    ///
    /// # Errors
    /// When the record does not fit or cannot be.
    pub fn load(&mut self, from: &Record) -> Result<(), RecordError> {
        let returns = from.f64s("returns", self.returns.len())?;
        if returns.iter().any(|x| !x.is_finite()) {
            return Err(RecordError::Value { name: "returns".into(), reason: "a return is finite".into() });
        }
        self.moments.load(from)?;
        self.returns.copy_from_slice(returns);
        Ok(())
    }
}

/// Marks the steps of lost episodes of `b` environments, `[T, B]`.
pub fn mark_lost(ends: &[End], b: usize, flags: &mut [bool]) {
    for i in 0..b {
        let mut begin = i;
        for at in (i..ends.len()).step_by(b) {
            if ends[at] == End::Lost {
                (begin..=at).step_by(b).for_each(|at| flags[at] = true);
            }
            if ends[at] != End::Running {
                begin = at + b;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgrad_num::Stream;

    #[test]
    fn observations_get_mean_zero_and_variance_one() {
        let mut s = Stream::new(1, 0, 0);
        let n = 5000;
        let x: Vec<f32> = (0..2 * n)
            .map(|i| if i < n { 50.0 + 3.0 * s.normal() } else { 0.1 * s.normal() } as f32)
            .collect();
        let mut norm = ObsNormalizer::new(2, 10.0);
        let mut untouched = x.clone();
        norm.apply(ColsMut::new(&mut untouched, 2, n));
        assert_eq!(untouched[0], 10.0, "before the first rollout only the clip acts");
        let mut seen = Moments::new(2);
        seen.add_cols(Cols::new(&x, 2, n));
        norm.merge(&seen);
        let mut y = x.clone();
        norm.apply(ColsMut::new(&mut y, 2, n));
        for row in y.chunks(n) {
            let mean = row.iter().map(|v| f64::from(*v)).sum::<f64>() / n as f64;
            let var = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / n as f64;
            assert!(mean.abs() < 1e-4 && (var - 1.0).abs() < 1e-3, "{mean} {var}");
        }
        let mut far = [1e6, 0.0];
        norm.apply_one(&mut far);
        assert_eq!(far[0], 10.0);
        let mut copy = ObsNormalizer::new(2, 10.0);
        copy.load(&norm.save()).unwrap();
        assert_eq!(copy, norm);
    }

    #[test]
    fn rewards_are_divided_by_the_spread_of_the_discounted_return() {
        // Two environments, reward 1 and 2 for ever, the second cut every third step.
        let (t, gamma) = (300, 0.9);
        let rewards: Vec<f32> = (0..2 * t).map(|i| if i % 2 == 0 { 1.0 } else { 2.0 }).collect();
        let ends: Vec<End> = (0..2 * t)
            .map(|i| if i % 2 == 1 && (i / 2) % 3 == 2 { End::Truncated } else { End::Running })
            .collect();
        let mut all = Vec::new();
        for (b, r) in [1.0, 2.0].into_iter().enumerate() {
            let mut ret = 0.0;
            for step in 0..t {
                ret = gamma * ret + r;
                all.push(ret);
                if b == 1 && step % 3 == 2 {
                    ret = 0.0;
                }
            }
        }
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        let var = all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / all.len() as f64;
        let mut norm = RewardNormalizer::new(2, gamma, 10.0);
        norm.observe(0, 2, &rewards, &ends);
        let mut scaled = rewards.clone();
        norm.apply(&mut scaled);
        assert!((f64::from(scaled[1]) - 2.0 / var.sqrt()).abs() < 1e-5);
        assert!((scaled[1] - 2.0 * scaled[0]).abs() < 1e-6, "scaled, not shifted");
    }
}
