//! Eligibility traces.

use pgrad_num::{Record, RecordError, kernels};

/// Accumulating eligibility traces, one for each environment, over the same parameters.
///
/// What is added to a trace keeps its effect on later updates, less by the decay at each step.
#[derive(Clone, Debug, PartialEq)]
pub struct Traces {
    z: Vec<f32>,
    n_params: usize,
}

impl Traces {
    /// Traces of zeros for `n_envs` environments over `n_params` parameters.
    #[must_use]
    pub fn new(n_envs: usize, n_params: usize) -> Self {
        Self { z: vec![0.0; n_envs * n_params], n_params }
    }
    /// `z_b ← decay · z_b + weight · gradient`; returns the new `z_b`.
    ///
    /// # Panics
    /// When there is no environment `b`, or the gradient has another length.
    pub fn accumulate(&mut self, b: usize, decay: f32, weight: f32, gradient: &[f32]) -> &mut [f32] {
        let z = &mut self.z[b * self.n_params..(b + 1) * self.n_params];
        assert_eq!(z.len(), gradient.len());
        pgrad_num::simd!(|| {
            for (z, g) in z.iter_mut().zip(gradient) {
                *z = decay * *z + weight * g;
            }
        });
        z
    }
    /// The trace of environment `b`.
    #[must_use]
    pub fn get(&self, b: usize) -> &[f32] {
        &self.z[b * self.n_params..(b + 1) * self.n_params]
    }
    /// Forgets environment `b`: its episode ended.
    pub fn reset(&mut self, b: usize) {
        self.z[b * self.n_params..(b + 1) * self.n_params].fill(0.0);
    }
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.z.fill(0.0);
    }
    /// Saves the traces as the entry `name`.
    pub fn save(&self, name: &str, out: &mut Record) {
        out.put(name, self.z.clone());
    }
    /// Restores what [`Traces::save`] saved.
    ///
    /// # Errors
    /// When the entry does not fit, or has a number that is not finite.
    pub fn load(&mut self, name: &str, from: &Record) -> Result<(), RecordError> {
        let z = from.f32s(name, self.z.len())?;
        if !kernels::all_finite(z) {
            return Err(RecordError::Value { name: name.into(), reason: "a trace is not finite".into() });
        }
        self.z.copy_from_slice(z);
        Ok(())
    }
}
