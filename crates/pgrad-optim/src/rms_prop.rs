//! RMSProp.

use crate::parts::{self, Part, RunParts, StepRule};
use pgrad_num::{Real, Record, RecordError, kernels, simd};

/// RMSProp's constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RmsPropParams {
    /// Decay of the mean of squared gradients, `ρ`.
    pub decay: f64,
    /// Added to the mean square, `ε`.
    pub epsilon: f64,
}

impl Default for RmsPropParams {
    /// `ρ = 0.99` and `ε = 1e-5`, as in OpenAI baselines' A2C.
    fn default() -> Self {
        Self { decay: 0.99, epsilon: 1e-5 }
    }
}

/// RMSProp without momentum: descends along `g / √(v + ε)`, with `v ← ρ v + (1−ρ) g²` (Mnih et al. 2016,
/// supplement, optimisation details).
///
/// `ε` stands **inside** the root, as in that paper and in TensorFlow; PyTorch adds it to the root, `√v + ε`, and the
/// two differ most where gradients are small: with `ε = 1e-5` no divisor is below 0.003 here, and 0.00001 there. `v`
/// starts at 1, as in TensorFlow, with which A2C's results were made: the first steps are then about `α g` long; from
/// `v = 0` each would be `α/√(1−ρ)`, ten times the step size, whatever the gradient.
#[derive(Clone, Debug, PartialEq)]
pub struct RmsProp<R> {
    params: RmsPropParams,
    v: Vec<R>,
}

impl<R: Real> RmsProp<R> {
    /// RMSProp at rest, for `n` parameters.
    #[must_use]
    pub fn new(n: usize, params: RmsPropParams) -> Self {
        Self { params, v: vec![R::ONE; n] }
    }

    /// One step down the gradient with step size `alpha`. One pass over memory.
    ///
    /// # Panics
    /// When the sizes differ from the number of parameters.
    pub fn step(&mut self, theta: &mut [R], gradient: &[R], alpha: f64) {
        let n = self.v.len();
        assert_eq!((theta.len(), gradient.len()), (n, n));
        self.params.apply(1.0, alpha, theta, gradient, &mut self.v);
    }
}

impl StepRule for RmsProp<f32> {
    fn step_parts(
        &mut self,
        ends: &[usize],
        theta: &mut [f32],
        gradient: &[f32],
        scale: f64,
        alpha: f64,
        on: &impl RunParts,
    ) {
        let n = self.v.len();
        assert_eq!((theta.len(), gradient.len()), (n, n));
        let params = self.params;
        let whole = Part::whole(theta, gradient, &mut [], &mut self.v);
        parts::each(whole, ends, on, |theta, gradient, _, v| params.apply(scale, alpha, theta, gradient, v));
    }
}

impl RmsPropParams {
    fn apply<R: Real>(self, scale: f64, alpha: f64, theta: &mut [R], gradient: &[R], vs: &mut [R]) {
        let n = theta.len();
        let (keep, take) = (R::of(self.decay), R::of(1.0 - self.decay));
        let (epsilon, alpha, scale) = (R::of(self.epsilon), R::of(alpha), R::of(scale));
        let (gradient, vs) = (&gradient[..n], &mut vs[..n]);
        simd!(|| {
            for i in 0..n {
                let g = scale * gradient[i];
                let v = keep.mul_add(vs[i], take * g * g);
                vs[i] = v;
                theta[i] -= alpha * g / (v + epsilon).sqrt();
            }
        });
    }
}

impl RmsProp<f32> {
    /// Saves the state.
    #[must_use]
    pub fn save(&self) -> Record {
        let mut r = Record::new();
        r.put("v", self.v.clone());
        r
    }
    /// Restores what [`RmsProp::save`] saved.
    ///
    /// # Errors
    /// When an entry is missing, has another size, or cannot be.
    pub fn load(&mut self, from: &Record) -> Result<(), RecordError> {
        let v = from.f32s("v", self.v.len())?;
        if !kernels::all_finite(v) || v.iter().any(|x| *x < 0.0) {
            let reason = "a mean square is finite and not negative".into();
            return Err(RecordError::Value { name: "v".into(), reason });
        }
        self.v.copy_from_slice(v);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_paper_with_epsilon_inside_the_root() {
        let p = RmsPropParams { decay: 0.9, epsilon: 1e-2 };
        let mut rms = RmsProp::<f64>::new(2, p);
        let mut theta = [1.0, -2.0];
        let (mut expected, mut outside, mut v) = (theta, theta, [1.0f64; 2]);
        for k in 0..60 {
            let g = [(f64::from(k) * 0.3).sin(), 0.01];
            let alpha = 0.01 / (1.0 + f64::from(k));
            rms.step(&mut theta, &g, alpha);
            for i in 0..2 {
                v[i] = 0.9 * v[i] + 0.1 * g[i] * g[i];
                expected[i] -= alpha * g[i] / (v[i] + 1e-2).sqrt();
                outside[i] -= alpha * g[i] / (v[i].sqrt() + 1e-2);
            }
        }
        assert!((theta[0] - expected[0]).abs() < 1e-12 && (theta[1] - expected[1]).abs() < 1e-12);
        assert!((theta[1] - outside[1]).abs() > 1e-5, "the other placement is another rule");
    }

    #[test]
    fn the_first_step_is_no_longer_than_the_gradient_says() {
        let mut rms = RmsProp::<f64>::new(1, RmsPropParams::default());
        let mut theta = [0.0];
        rms.step(&mut theta, &[0.1], 1.0);
        assert!((theta[0] + 0.1).abs() < 1e-3, "{}", theta[0]);
    }

    #[test]
    fn a_saved_state_continues_exactly() {
        let mut a = RmsProp::<f32>::new(3, RmsPropParams::default());
        let mut theta = [0.5f32, 1.0, -1.0];
        for k in 0..7 {
            a.step(&mut theta, &[0.1 * k as f32, -0.2, 0.3], 1e-2);
        }
        let mut b = RmsProp::<f32>::new(3, RmsPropParams::default());
        b.load(&a.save()).unwrap();
        let mut other = theta;
        a.step(&mut theta, &[1.0, 2.0, 3.0], 1e-2);
        b.step(&mut other, &[1.0, 2.0, 3.0], 1e-2);
        assert_eq!((theta, a), (other, b));
    }

    #[test]
    fn an_impossible_state_is_refused() {
        let mut a = RmsProp::<f32>::new(1, RmsPropParams::default());
        for v in [f32::NAN, f32::INFINITY, -1.0] {
            let mut r = Record::new();
            r.put("v", vec![v]);
            assert!(a.load(&r).is_err());
        }
        assert_eq!(a, RmsProp::new(1, RmsPropParams::default()));
    }
}
