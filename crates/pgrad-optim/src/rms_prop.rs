//! RMSProp.

use crate::parts::{self, Part, RunParts, StepRule};
use pgrad_num::{Real, Record, RecordError, kernels, simd};

/// Which program's RMSProp: the two differ in where `ε` stands and where the mean square starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RmsPropForm {
    /// `g / √(v + ε)`, `v` from 1 (TensorFlow's `RMSPropOptimizer`, with which OpenAI baselines' A2C was run;
    /// Mnih et al. 2016, Equation S3, has the same divisor). With `ε = 1e-5` no divisor is below 0.003, and
    /// the first steps are about `α g` long.
    #[default]
    TensorFlow,
    /// `g / (√v + ε)`, `v` from 0 (PyTorch's `RMSprop`, with which Stable-Baselines3's A2C is run). With
    /// `ε = 1e-5` divisors go down to 0.00001; the first step of every parameter is `α/√(1−ρ)` long, whatever
    /// its gradient.
    PyTorch,
}

impl RmsPropForm {
    /// Where the mean square starts.
    fn start<R: Real>(self) -> R {
        match self {
            Self::TensorFlow => R::ONE,
            Self::PyTorch => R::ZERO,
        }
    }
}

/// RMSProp's constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RmsPropParams {
    /// Decay of the mean of squared gradients, `ρ`.
    pub decay: f64,
    /// Bounds the divisor from below, `ε`; the form says where it is added.
    pub epsilon: f64,
}

impl Default for RmsPropParams {
    /// `ρ = 0.99` and `ε = 1e-5`, as in OpenAI baselines' A2C.
    fn default() -> Self {
        Self { decay: 0.99, epsilon: 1e-5 }
    }
}

/// RMSProp without momentum: `v ← ρ v + (1−ρ) g²`, then down along `g` over its root mean square, as the
/// [`RmsPropForm`] says (Mnih et al. 2016, supplement, optimisation details).
#[derive(Clone, Debug, PartialEq)]
pub struct RmsProp<R> {
    params: RmsPropParams,
    form: RmsPropForm,
    v: Vec<R>,
}

impl<R: Real> RmsProp<R> {
    /// RMSProp at rest, for `n` parameters.
    #[must_use]
    pub fn new(n: usize, params: RmsPropParams, form: RmsPropForm) -> Self {
        Self { params, form, v: vec![form.start(); n] }
    }

    /// One step down the gradient with step size `alpha`. One pass over memory.
    ///
    /// # Panics
    /// When the sizes differ from the number of parameters.
    pub fn step(&mut self, theta: &mut [R], gradient: &[R], alpha: f64) {
        let n = self.v.len();
        assert_eq!((theta.len(), gradient.len()), (n, n));
        self.params.apply(self.form, 1.0, alpha, theta, gradient, &mut self.v);
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
        let (params, form) = (self.params, self.form);
        let whole = Part::whole(theta, gradient, &mut [], &mut self.v);
        parts::each(whole, ends, on, |theta, gradient, _, v| {
            params.apply(form, scale, alpha, theta, gradient, v);
        });
    }
}

impl RmsPropParams {
    fn apply<R: Real>(
        self,
        form: RmsPropForm,
        scale: f64,
        alpha: f64,
        theta: &mut [R],
        gradient: &[R],
        vs: &mut [R],
    ) {
        let n = theta.len();
        let (keep, take) = (R::of(self.decay), R::of(1.0 - self.decay));
        let (alpha, scale) = (R::of(alpha), R::of(scale));
        let (inside, outside) = match form {
            RmsPropForm::TensorFlow => (R::of(self.epsilon), R::ZERO),
            RmsPropForm::PyTorch => (R::ZERO, R::of(self.epsilon)),
        };
        let (gradient, vs) = (&gradient[..n], &mut vs[..n]);
        simd!(|| {
            for i in 0..n {
                let g = scale * gradient[i];
                let v = keep.mul_add(vs[i], take * g * g);
                vs[i] = v;
                // To add zero changes no bit of a number that is not negative.
                theta[i] -= alpha * g / ((v + inside).sqrt() + outside);
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

    /// Sixty steps of both forms, and what PyTorch's and TensorFlow's documentations say, one number at a
    /// time.
    #[test]
    fn each_form_follows_its_program() {
        let p = RmsPropParams { decay: 0.9, epsilon: 1e-2 };
        let slow = |form, v: f64| match form {
            RmsPropForm::TensorFlow => (v + 1e-2).sqrt(),
            RmsPropForm::PyTorch => v.sqrt() + 1e-2,
        };
        let mut ends = Vec::new();
        for (form, start) in [(RmsPropForm::TensorFlow, 1.0f64), (RmsPropForm::PyTorch, 0.0)] {
            let mut rms = RmsProp::<f64>::new(2, p, form);
            let mut theta = [1.0, -2.0];
            let (mut expected, mut v) = (theta, [start; 2]);
            for k in 0..60 {
                let g = [(f64::from(k) * 0.3).sin(), 0.01];
                let alpha = 0.01 / (1.0 + f64::from(k));
                rms.step(&mut theta, &g, alpha);
                for i in 0..2 {
                    v[i] = 0.9 * v[i] + 0.1 * g[i] * g[i];
                    expected[i] -= alpha * g[i] / slow(form, v[i]);
                }
            }
            assert!((theta[0] - expected[0]).abs() < 1e-12 && (theta[1] - expected[1]).abs() < 1e-12);
            ends.push(theta[1]);
        }
        assert!((ends[0] - ends[1]).abs() > 1e-3, "where gradients are small, they are two rules: {ends:?}");
    }

    /// By hand: from a mean square of 1 the divisor is about 1; from 0 it is √(0.01 · 0.1²) = 0.01.
    #[test]
    fn the_first_step_tells_where_the_mean_square_starts() {
        for (form, first) in [(RmsPropForm::TensorFlow, 0.1), (RmsPropForm::PyTorch, 10.0)] {
            let mut rms = RmsProp::<f64>::new(1, RmsPropParams::default(), form);
            let mut theta = [0.0];
            rms.step(&mut theta, &[0.1], 1.0);
            assert!((theta[0] / first + 1.0).abs() < 1e-2, "{form:?}: {}", theta[0]);
        }
    }

    /// No gradient, no step, also where the mean square is 0 and nothing else holds the divisor up.
    #[test]
    fn nothing_moves_without_a_gradient() {
        for form in [RmsPropForm::TensorFlow, RmsPropForm::PyTorch] {
            let mut rms = RmsProp::<f32>::new(1, RmsPropParams::default(), form);
            let mut theta = [0.5];
            rms.step(&mut theta, &[0.0], 1.0);
            assert_eq!(theta, [0.5]);
        }
    }

    #[test]
    fn a_saved_state_continues_exactly() {
        let mut a = RmsProp::<f32>::new(3, RmsPropParams::default(), RmsPropForm::PyTorch);
        let mut theta = [0.5f32, 1.0, -1.0];
        for k in 0..7 {
            a.step(&mut theta, &[0.1 * k as f32, -0.2, 0.3], 1e-2);
        }
        let mut b = RmsProp::<f32>::new(3, RmsPropParams::default(), RmsPropForm::PyTorch);
        b.load(&a.save()).unwrap();
        let mut other = theta;
        a.step(&mut theta, &[1.0, 2.0, 3.0], 1e-2);
        b.step(&mut other, &[1.0, 2.0, 3.0], 1e-2);
        assert_eq!((theta, a), (other, b));
    }

    #[test]
    fn an_impossible_state_is_refused() {
        let mut a = RmsProp::<f32>::new(1, RmsPropParams::default(), RmsPropForm::TensorFlow);
        for v in [f32::NAN, f32::INFINITY, -1.0] {
            let mut r = Record::new();
            r.put("v", vec![v]);
            assert!(a.load(&r).is_err());
        }
        assert_eq!(a, RmsProp::new(1, RmsPropParams::default(), RmsPropForm::TensorFlow));
    }
}
