//! Step rules for parameters that threads share without locks.

use crate::RmsPropParams;
use pgrad_num::{Record, RecordError, SharedVec, kernels, simd};

const BLOCK: usize = SharedVec::BLOCK;

/// How a thread's gradient `Δθ` changes the shared parameters `θ` (Mnih et al. 2016, supplement,
/// Equations S1 to S3).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum HogwildRule {
    /// `m ← μ m + (1−μ) Δθ`, `θ ← θ − α m`, with a momentum vector for each thread.
    Momentum {
        /// `μ`.
        momentum: f64,
    },
    /// `g ← ρ g + (1−ρ) Δθ²`, `θ ← θ − α Δθ / √(g + ε)`, with a `g` for each thread.
    RmsProp(RmsPropParams),
    /// The same with one `g`, which all threads share as they share `θ`.
    SharedRmsProp(RmsPropParams),
}

/// Applies gradients of many threads to shared parameters, without locks.
///
/// Every number is read, changed and written by itself; a thread may read what another is about to change,
/// and a change may be lost. A mean square is of TensorFlow's form ([`RmsPropForm`](crate::RmsPropForm)),
/// whose divisor is the paper's, and starts at 1; momentum starts at 0.
#[derive(Debug)]
pub struct Hogwild {
    rule: HogwildRule,
    shared: Option<SharedVec>,
    n: usize,
}

impl Hogwild {
    /// The rule at rest, for `n` parameters.
    #[must_use]
    pub fn new(n: usize, rule: HogwildRule) -> Self {
        let shared = matches!(rule, HogwildRule::SharedRmsProp(_)).then(|| SharedVec::new(&vec![1.0; n]));
        Self { rule, shared, n }
    }
    /// What a thread keeps for itself, at rest: `m` or `g`, nothing when it is shared.
    #[must_use]
    pub fn own(&self) -> Vec<f32> {
        match self.rule {
            HogwildRule::Momentum { .. } => vec![0.0; self.n],
            HogwildRule::RmsProp(_) => vec![1.0; self.n],
            HogwildRule::SharedRmsProp(_) => Vec::new(),
        }
    }
    /// One step down `gradient` with step size `alpha`, by a thread with its `own` state. One pass over
    /// memory, from the last parameter to the first if `backwards`: the same numbers, and half of the threads
    /// had better do so ([`SharedVec::pass`]).
    ///
    /// # Panics
    /// When a size differs from the number of parameters, or `own` is of another rule.
    pub fn step(&self, theta: &SharedVec, own: &mut [f32], gradient: &[f32], alpha: f64, backwards: bool) {
        assert_eq!((theta.len(), gradient.len()), (self.n, self.n));
        assert_eq!(own.len(), if self.shared.is_some() { 0 } else { self.n }, "a state of this rule");
        let alpha = alpha as f32;
        match (self.rule, &self.shared) {
            (HogwildRule::Momentum { momentum }, _) => simd!(|| {
                let (keep, take) = (momentum as f32, (1.0 - momentum) as f32);
                let mut x = [0.0; BLOCK];
                for (start, next) in theta.pass(backwards) {
                    theta.will_change(next);
                    theta.read_block(start, &mut x);
                    let (m, d) = (&mut own[start..], &gradient[start..]);
                    for ((x, m), d) in x.iter_mut().zip(m).zip(d) {
                        *m = keep.mul_add(*m, take * d);
                        *x -= alpha * *m;
                    }
                    theta.write_block(start, &x);
                }
            }),
            (HogwildRule::RmsProp(p), None) => simd!(|| {
                let (p, mut x) = (Rates::of(p, alpha), [0.0; BLOCK]);
                for (start, next) in theta.pass(backwards) {
                    theta.will_change(next);
                    theta.read_block(start, &mut x);
                    p.step(&mut x, &mut own[start..], &gradient[start..]);
                    theta.write_block(start, &x);
                }
            }),
            (HogwildRule::RmsProp(p) | HogwildRule::SharedRmsProp(p), Some(shared)) => simd!(|| {
                let (p, mut x, mut g) = (Rates::of(p, alpha), [0.0; BLOCK], [0.0; BLOCK]);
                for (start, next) in theta.pass(backwards) {
                    theta.will_change(next);
                    shared.will_change(next);
                    theta.read_block(start, &mut x);
                    shared.read_block(start, &mut g);
                    p.step(&mut x, &mut g, &gradient[start..]);
                    theta.write_block(start, &x);
                    shared.write_block(start, &g);
                }
            }),
            (HogwildRule::SharedRmsProp(_), None) => unreachable!("made together in `new`"),
        }
    }
    /// Saves what threads share.
    #[must_use]
    pub fn save(&self) -> Record {
        let mut r = Record::new();
        if let Some(shared) = &self.shared {
            let mut g = vec![0.0; self.n];
            shared.read(&mut g);
            r.put("g", g);
        }
        r
    }
    /// Restores what [`Hogwild::save`] saved.
    ///
    /// # Errors
    /// When an entry is missing, has another size, or cannot be.
    pub fn load(&self, from: &Record) -> Result<(), RecordError> {
        if let Some(shared) = &self.shared {
            shared.write(check_mean_square(from.f32s("g", self.n)?, "g")?);
        }
        Ok(())
    }
    /// Restores a thread's own state from the entry `name`.
    ///
    /// # Errors
    /// As [`Hogwild::load`].
    pub fn load_own(&self, own: &mut [f32], name: &str, from: &Record) -> Result<(), RecordError> {
        let saved = from.f32s(name, own.len())?;
        match self.rule {
            HogwildRule::Momentum { .. } if !kernels::all_finite(saved) => {
                return Err(RecordError::Value { name: name.into(), reason: "momentum is finite".into() });
            }
            HogwildRule::Momentum { .. } => own.copy_from_slice(saved),
            _ => own.copy_from_slice(check_mean_square(saved, name)?),
        }
        Ok(())
    }
}

fn check_mean_square<'a>(g: &'a [f32], name: &str) -> Result<&'a [f32], RecordError> {
    if kernels::all_finite(g) && g.iter().all(|x| *x >= 0.0) {
        return Ok(g);
    }
    let reason = "a mean square is finite and not negative".into();
    Err(RecordError::Value { name: name.into(), reason })
}

/// RMSProp's constants and the step size.
#[derive(Clone, Copy)]
struct Rates {
    keep: f32,
    take: f32,
    epsilon: f32,
    alpha: f32,
}

impl Rates {
    #[inline(always)]
    fn of(p: RmsPropParams, alpha: f32) -> Self {
        Self { keep: p.decay as f32, take: (1.0 - p.decay) as f32, epsilon: p.epsilon as f32, alpha }
    }
    #[inline(always)]
    fn step(self, x: &mut [f32; BLOCK], g: &mut [f32], d: &[f32]) {
        for ((x, g), d) in x.iter_mut().zip(g).zip(d) {
            (*x, *g) = self.one(*x, *g, *d);
        }
    }
    /// `θ_i` and `g_i` after a step.
    #[inline(always)]
    fn one(self, x: f32, g: f32, d: f32) -> (f32, f32) {
        let g = self.keep.mul_add(g, self.take * d * d);
        (x - self.alpha * d / (g + self.epsilon).sqrt(), g)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const N: usize = 530;
    const RMSPROP: RmsPropParams = RmsPropParams { decay: 0.9, epsilon: 1e-2 };

    fn gradient(k: usize, thread: usize) -> Vec<f32> {
        (0..N)
            .map(|i| ((i * 7 + k * 3 + thread * 11) as f32 * 0.37).sin() * (i as f32 + 1.0) * 0.02)
            .collect()
    }

    /// Two threads that take turns, and the same from the equations in double precision.
    fn after_40_steps(rule: HogwildRule, slow: impl Fn(usize, f64, &mut [f64; 2]) -> f64) {
        let theta = SharedVec::new(&[0.5; N]);
        let hogwild = Hogwild::new(N, rule);
        let mut own = [hogwild.own(), hogwild.own()];
        let start = if matches!(rule, HogwildRule::Momentum { .. }) { 0.0 } else { 1.0 };
        let (mut expected, mut state) = ([0.5f64; N], [[start; 2]; N]);
        for k in 0..40 {
            let (thread, alpha) = (k % 3 / 2, 0.05 / (1.0 + k as f64));
            let d = gradient(k, thread);
            hogwild.step(&theta, &mut own[thread], &d, alpha, thread == 1);
            for i in 0..N {
                expected[i] -= alpha * slow(thread, f64::from(d[i]), &mut state[i]);
            }
        }
        let mut found = [0.0; N];
        theta.read(&mut found);
        for i in 0..N {
            assert!((f64::from(found[i]) - expected[i]).abs() < 2e-6, "{rule:?}: {i}");
        }
    }

    #[test]
    fn every_rule_follows_its_equation() {
        after_40_steps(HogwildRule::Momentum { momentum: 0.9 }, |thread, d, m| {
            m[thread] = 0.9 * m[thread] + 0.1 * d;
            m[thread]
        });
        after_40_steps(HogwildRule::RmsProp(RMSPROP), |thread, d, g| {
            g[thread] = 0.9 * g[thread] + 0.1 * d * d;
            d / (g[thread] + 1e-2).sqrt()
        });
        after_40_steps(HogwildRule::SharedRmsProp(RMSPROP), |_, d, g| {
            g[0] = 0.9 * g[0] + 0.1 * d * d;
            d / (g[0] + 1e-2).sqrt()
        });
    }

    #[test]
    fn one_thread_steps_as_the_rule_without_sharing() {
        for rule in [HogwildRule::RmsProp(RMSPROP), HogwildRule::SharedRmsProp(RMSPROP)] {
            let (theta, hogwild) = (SharedVec::new(&[0.5; N]), Hogwild::new(N, rule));
            let mut own = hogwild.own();
            let mut alone = crate::RmsProp::<f32>::new(N, RMSPROP, crate::RmsPropForm::TensorFlow);
            let mut expected = [0.5f32; N];
            for k in 0..30 {
                hogwild.step(&theta, &mut own, &gradient(k, 0), 0.01, k % 2 == 1);
                alone.step(&mut expected, &gradient(k, 0), 0.01);
            }
            let mut found = [0.0; N];
            theta.read(&mut found);
            assert_eq!(found, expected, "bit for bit");
        }
    }

    #[test]
    fn a_saved_state_continues_exactly() {
        for rule in [
            HogwildRule::Momentum { momentum: 0.9 },
            HogwildRule::RmsProp(RMSPROP),
            HogwildRule::SharedRmsProp(RMSPROP),
        ] {
            let (theta, a) = (SharedVec::new(&[0.5; N]), Hogwild::new(N, rule));
            let mut own = a.own();
            for k in 0..7 {
                a.step(&theta, &mut own, &gradient(k, 0), 0.01, false);
            }
            let b = Hogwild::new(N, rule);
            b.load(&a.save()).unwrap();
            let mut record = Record::new();
            record.put("own", own.clone());
            let mut own_b = b.own();
            b.load_own(&mut own_b, "own", &record).unwrap();
            let mut numbers = [0.0; N];
            theta.read(&mut numbers);
            let other = SharedVec::new(&numbers);
            a.step(&theta, &mut own, &gradient(9, 0), 0.01, false);
            b.step(&other, &mut own_b, &gradient(9, 0), 0.01, true);
            let mut found = [0.0; N];
            theta.read(&mut numbers);
            other.read(&mut found);
            assert_eq!(numbers, found);
        }
    }

    #[test]
    fn an_impossible_state_is_refused() {
        for x in [f32::NAN, f32::INFINITY, -1.0] {
            let mut r = Record::new();
            r.put("g", vec![x; N]);
            assert!(Hogwild::new(N, HogwildRule::SharedRmsProp(RMSPROP)).load(&r).is_err());
            let each = Hogwild::new(N, HogwildRule::RmsProp(RMSPROP));
            assert!(each.load_own(&mut each.own(), "g", &r).is_err());
            let momentum = Hogwild::new(N, HogwildRule::Momentum { momentum: 0.9 });
            assert_eq!(momentum.load_own(&mut momentum.own(), "g", &r).is_ok(), x.is_finite());
        }
    }
}
