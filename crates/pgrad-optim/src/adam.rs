//! Adam.

use crate::parts::{self, Part, RunParts, StepRule};
use pgrad_num::{Real, Record, RecordError, kernels, simd};

/// Adam's constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamParams {
    /// Decay of the mean of gradients, `β₁`.
    pub beta1: f64,
    /// Decay of the mean of squared gradients, `β₂`.
    pub beta2: f64,
    /// Added to the root of the mean square, `ε`.
    pub epsilon: f64,
}

impl Default for AdamParams {
    /// `β₁ = 0.9`, `β₂ = 0.999` as in the paper; `ε = 1e-5` as in the reference implementations of PPO (the
    /// paper has 1e-8).
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-5 }
    }
}

/// Adam (Kingma and Ba 2015, arXiv:1412.6980, Algorithm 1): descends along
/// `m̂ / (√v̂ + ε)`, with `m ← β₁ m + (1−β₁) g`, `v ← β₂ v + (1−β₂) g²`, `m̂ = m/(1−β₁ᵗ)`, `v̂ = v/(1−β₂ᵗ)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Adam<R> {
    params: AdamParams,
    m: Vec<R>,
    v: Vec<R>,
    t: u64,
}

impl<R: Real> Adam<R> {
    /// Adam at rest, for `n` parameters.
    #[must_use]
    pub fn new(n: usize, params: AdamParams) -> Self {
        Self { params, m: vec![R::ZERO; n], v: vec![R::ZERO; n], t: 0 }
    }

    /// One step down the gradient with step size `alpha`. One pass over memory.
    ///
    /// # Panics
    /// When the sizes differ from the number of parameters.
    pub fn step(&mut self, theta: &mut [R], gradient: &[R], alpha: f64) {
        let n = self.m.len();
        assert_eq!((theta.len(), gradient.len()), (n, n));
        let rule = self.next(1.0, alpha);
        rule.apply(theta, gradient, &mut self.m, &mut self.v);
    }

    /// Counts a step, and tells its rule.
    fn next(&mut self, scale: f64, alpha: f64) -> Rule<R> {
        self.t += 1;
        let AdamParams { beta1, beta2, epsilon } = self.params;
        let correct1 = 1.0 - beta1.powf(self.t as f64);
        let correct2 = 1.0 - beta2.powf(self.t as f64);
        // α m̂ / (√v̂ + ε) = (α √c₂/c₁) m / (√v + ε √c₂), which needs no division but the last.
        let rate = R::of(alpha * correct2.sqrt() / correct1);
        let epsilon = R::of(epsilon * correct2.sqrt());
        let (keep1, take1) = (R::of(beta1), R::of(1.0 - beta1));
        let (keep2, take2) = (R::of(beta2), R::of(1.0 - beta2));
        Rule { rate, epsilon, keep1, take1, keep2, take2, scale: R::of(scale) }
    }
}

impl StepRule for Adam<f32> {
    fn step_parts(
        &mut self,
        ends: &[usize],
        theta: &mut [f32],
        gradient: &[f32],
        scale: f64,
        alpha: f64,
        on: &impl RunParts,
    ) {
        let n = self.m.len();
        assert_eq!((theta.len(), gradient.len()), (n, n));
        let rule = self.next(scale, alpha);
        let whole = Part::whole(theta, gradient, &mut self.m, &mut self.v);
        parts::each(whole, ends, on, |theta, gradient, m, v| rule.apply(theta, gradient, m, v));
    }
}

/// What one step does to each parameter.
#[derive(Clone, Copy, Debug)]
struct Rule<R> {
    rate: R,
    epsilon: R,
    keep1: R,
    take1: R,
    keep2: R,
    take2: R,
    scale: R,
}

impl<R: Real> Rule<R> {
    fn apply(self, theta: &mut [R], gradient: &[R], ms: &mut [R], vs: &mut [R]) {
        let Self { rate, epsilon, keep1, take1, keep2, take2, scale } = self;
        let n = theta.len();
        let (gradient, ms, vs) = (&gradient[..n], &mut ms[..n], &mut vs[..n]);
        simd!(|| {
            for i in 0..n {
                let g = scale * gradient[i];
                let m = keep1.mul_add(ms[i], take1 * g);
                let v = keep2.mul_add(vs[i], take2 * g * g);
                ms[i] = m;
                vs[i] = v;
                theta[i] -= rate * m / (v.sqrt() + epsilon);
            }
        });
    }
}

impl Adam<f32> {
    /// Saves the state.
    #[must_use]
    pub fn save(&self) -> Record {
        let mut r = Record::new();
        r.put("m", self.m.clone());
        r.put("v", self.v.clone());
        r.put("t", vec![self.t]);
        r
    }
    /// Restores what [`Adam::save`] saved.
    ///
    /// # Errors
    /// When an entry is missing, has another size, or cannot be.
    pub fn load(&mut self, from: &Record) -> Result<(), RecordError> {
        let n = self.m.len();
        let (m, v, t) = (from.f32s("m", n)?, from.f32s("v", n)?, from.u64("t")?);
        let bad = |name: &str, reason: &str| RecordError::Value { name: name.into(), reason: reason.into() };
        if !kernels::all_finite(m) {
            return Err(bad("m", "a mean gradient is finite"));
        }
        if !kernels::all_finite(v) || v.iter().any(|x| *x < 0.0) {
            return Err(bad("v", "a mean square is finite and not negative"));
        }
        self.m.copy_from_slice(m);
        self.v.copy_from_slice(v);
        self.t = t;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Algorithm 1 of the paper, line by line, for one parameter.
    struct Paper {
        m: f64,
        v: f64,
        t: i32,
    }
    impl Paper {
        fn step(&mut self, theta: f64, g: f64, alpha: f64, p: AdamParams) -> f64 {
            self.t += 1;
            self.m = p.beta1 * self.m + (1.0 - p.beta1) * g;
            self.v = p.beta2 * self.v + (1.0 - p.beta2) * g * g;
            let m_hat = self.m / (1.0 - p.beta1.powi(self.t));
            let v_hat = self.v / (1.0 - p.beta2.powi(self.t));
            theta - alpha * m_hat / (v_hat.sqrt() + p.epsilon)
        }
    }

    #[test]
    fn follows_the_paper() {
        let p = AdamParams { beta1: 0.85, beta2: 0.99, epsilon: 1e-3 };
        let mut adam = Adam::<f64>::new(2, p);
        let mut theta = [1.0, -2.0];
        let mut papers = [Paper { m: 0.0, v: 0.0, t: 0 }, Paper { m: 0.0, v: 0.0, t: 0 }];
        let mut expected = theta;
        for k in 0..50 {
            let g = [(f64::from(k) * 0.3).sin(), 0.1 * f64::from(k) - 2.0];
            let alpha = 0.01 / (1.0 + f64::from(k));
            adam.step(&mut theta, &g, alpha);
            for i in 0..2 {
                expected[i] = papers[i].step(expected[i], g[i], alpha, p);
            }
        }
        assert!((theta[0] - expected[0]).abs() < 1e-12 && (theta[1] - expected[1]).abs() < 1e-12);
    }

    #[test]
    fn a_saved_state_continues_exactly() {
        let mut a = Adam::<f32>::new(3, AdamParams::default());
        let mut theta = [0.5f32, 1.0, -1.0];
        for k in 0..7 {
            a.step(&mut theta, &[0.1 * k as f32, -0.2, 0.3], 1e-2);
        }
        let mut b = Adam::<f32>::new(3, AdamParams::default());
        b.load(&a.save()).unwrap();
        let mut other = theta;
        a.step(&mut theta, &[1.0, 2.0, 3.0], 1e-2);
        b.step(&mut other, &[1.0, 2.0, 3.0], 1e-2);
        assert_eq!((theta, a), (other, b));
    }

    #[test]
    fn an_impossible_state_is_refused() {
        let mut a = Adam::<f32>::new(1, AdamParams::default());
        for (m, v) in [(f32::NAN, 0.0), (0.0, -1.0), (0.0, f32::INFINITY)] {
            let mut r = Record::new();
            r.put("m", vec![m]);
            r.put("v", vec![v]);
            r.put("t", vec![1u64]);
            assert!(a.load(&r).is_err());
        }
        assert_eq!(a, Adam::new(1, AdamParams::default()));
    }
}
