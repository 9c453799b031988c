//! Returns and advantages against sums written from the equations, path by path.
//!
//! The slow side knows episodes (a list of rewards, the values of its states, how it ended); the library
//! knows `(r, v, v_next, carry)`. [`Batch`] makes both from one random history.

use pgrad_math::returns;
use pgrad_num::{Tb, TbMut};
use pgrad_testkit::SplitMix;
use proptest::prelude::*;

/// A stretch of one environment's history without an ending inside.
struct Path {
    env: usize,
    start: usize,
    rewards: Vec<f64>,
    ratios: Vec<f64>,
    /// Values of the states before each reward, then the value of what follows the last: 0 after a
    /// termination.
    values: Vec<f64>,
}

struct Batch {
    t: usize,
    b: usize,
    r: Vec<f64>,
    v: Vec<f64>,
    v_next: Vec<f64>,
    carry: Vec<f64>,
    ratio: Vec<f64>,
    paths: Vec<Path>,
    terminated: usize,
    truncated: usize,
}

impl Batch {
    fn random(t: usize, b: usize, seed: u64) -> Self {
        let mut random = SplitMix::new(seed);
        let n = t * b;
        let mut batch = Self {
            t,
            b,
            r: vec![0.0; n],
            v: vec![0.0; n],
            v_next: vec![0.0; n],
            carry: vec![0.0; n],
            ratio: vec![0.0; n],
            paths: vec![],
            terminated: 0,
            truncated: 0,
        };
        for env in 0..b {
            let mut start = 0;
            while start < t {
                let (mut rewards, mut ratios, mut values) =
                    (vec![], vec![], vec![random.uniform_in(-2.0, 2.0)]);
                let mut at = start;
                loop {
                    rewards.push(random.uniform_in(-1.0, 1.0));
                    ratios.push(random.uniform_in(-1.0, 1.0).exp());
                    at += 1;
                    if random.chance(0.15) {
                        values.push(0.0);
                        batch.terminated += 1;
                        break;
                    }
                    // Value of the next state: of the final observation when the path is cut here.
                    values.push(random.uniform_in(-2.0, 2.0));
                    let truncated = random.chance(0.15);
                    batch.truncated += usize::from(truncated);
                    if truncated || at == t {
                        break;
                    }
                }
                for (k, r) in rewards.iter().enumerate() {
                    let i = (start + k) * b + env;
                    batch.r[i] = *r;
                    batch.ratio[i] = ratios[k];
                    batch.v[i] = values[k];
                    batch.v_next[i] = values[k + 1];
                    // The last row's carry must not matter: give it both values.
                    let last_row = start + k + 1 == t;
                    let inside = k + 1 < rewards.len();
                    batch.carry[i] = if inside || (last_row && env % 2 == 0) { 1.0 } else { 0.0 };
                }
                batch.paths.push(Path { env, start, rewards, ratios, values });
                start = at;
            }
        }
        batch
    }
    fn tb<'a>(&self, data: &'a [f64]) -> Tb<'a, f64> {
        Tb::new(data, self.t, self.b)
    }
    /// Runs a function of the library that fills `[T, B]`.
    fn run(&self, f: impl FnOnce(TbMut<'_, f64>)) -> Vec<f64> {
        let mut out = vec![f64::NAN; self.t * self.b];
        f(TbMut::new(&mut out, self.t, self.b));
        out
    }
    /// `[T, B]` from a function of a path and a step inside it.
    fn slow(&self, f: impl Fn(&Path, usize) -> f64) -> Vec<f64> {
        let mut out = vec![f64::NAN; self.t * self.b];
        for p in &self.paths {
            for k in 0..p.rewards.len() {
                out[(p.start + k) * self.b + p.env] = f(p, k);
            }
        }
        out
    }
    fn gae(&self, gamma: f64, lambda: f64) -> Vec<f64> {
        let (r, v, n, c) = (self.tb(&self.r), self.tb(&self.v), self.tb(&self.v_next), self.tb(&self.carry));
        self.run(|out| returns::gae(r, v, n, c, gamma, lambda, out))
    }
    fn td_residual(&self, gamma: f64) -> Vec<f64> {
        let (r, v, n) = (self.tb(&self.r), self.tb(&self.v), self.tb(&self.v_next));
        self.run(|out| returns::td_residual(r, v, n, gamma, out))
    }
    fn lambda_return(&self, gamma: f64, lambda: f64) -> Vec<f64> {
        let (r, n, c) = (self.tb(&self.r), self.tb(&self.v_next), self.tb(&self.carry));
        self.run(|out| returns::lambda_return(r, n, c, gamma, lambda, out))
    }
    fn n_step(&self, gamma: f64, n: usize) -> Vec<f64> {
        let (r, v_next, c) = (self.tb(&self.r), self.tb(&self.v_next), self.tb(&self.carry));
        self.run(|out| returns::n_step(r, v_next, c, gamma, n, out))
    }
    fn reward_to_go(&self, gamma: f64, bootstrap: bool) -> Vec<f64> {
        let (r, n, c) = (self.tb(&self.r), self.tb(&self.v_next), self.tb(&self.carry));
        self.run(|out| returns::reward_to_go(r, bootstrap.then_some(n), c, gamma, out))
    }
    fn total_return(&self, gamma: f64, bootstrap: bool) -> Vec<f64> {
        let (r, n, c) = (self.tb(&self.r), self.tb(&self.v_next), self.tb(&self.carry));
        self.run(|out| returns::total_return(r, bootstrap.then_some(n), c, gamma, out))
    }
    fn vtrace(&self, ratio: &[f64], gamma: f64, lambda: f64, rho_bar: f64, c_bar: f64) -> [Vec<f64>; 2] {
        let (r, v, n, c) = (self.tb(&self.r), self.tb(&self.v), self.tb(&self.v_next), self.tb(&self.carry));
        let mut adv = vec![f64::NAN; self.t * self.b];
        let vs = self.run(|vs| {
            let adv = TbMut::new(&mut adv, self.t, self.b);
            returns::vtrace(r, v, n, c, self.tb(ratio), gamma, lambda, rho_bar, c_bar, vs, adv);
        });
        [vs, adv]
    }
    fn one_step_advantage(&self, vs: &[f64], gamma: f64) -> Vec<f64> {
        let (r, v, n, c) = (self.tb(&self.r), self.tb(&self.v), self.tb(&self.v_next), self.tb(&self.carry));
        self.run(|out| returns::one_step_advantage(r, v, n, c, self.tb(vs), gamma, out))
    }
}

/// `G^{(n)}_k` inside a path; `n` may reach beyond its end.
fn slow_n_step(p: &Path, k: usize, gamma: f64, n: usize) -> f64 {
    let end = (k + n).min(p.rewards.len());
    let rewards: f64 = (k..end).map(|i| gamma.powi((i - k) as i32) * p.rewards[i]).sum();
    rewards + gamma.powi((end - k) as i32) * p.values[end]
}

fn difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |m, d| if d.is_nan() { f64::INFINITY } else { m.max(d) })
}

#[track_caller]
fn assert_close(a: &[f64], b: &[f64]) {
    assert!(difference(a, b) < 1e-12, "{}", difference(a, b));
}

fn minus(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

/// Batches with every kind of ending, some of width or height 1.
fn batches() -> Vec<Batch> {
    let all: Vec<Batch> = [(20, 37), (1, 5), (7, 1), (33, 16), (2, 2)]
        .into_iter()
        .enumerate()
        .map(|(i, (t, b))| Batch::random(t, b, i as u64))
        .collect();
    assert!(all[0].terminated > 20 && all[0].truncated > 20, "the batch sees both endings");
    all
}

#[test]
fn gae_is_equation_16() {
    let (gamma, lambda) = (0.97, 0.9);
    for batch in batches() {
        let slow = batch.slow(|p, k| {
            let delta = |i: usize| p.rewards[i] + gamma * p.values[i + 1] - p.values[i];
            (k..p.rewards.len()).map(|i| (gamma * lambda).powi((i - k) as i32) * delta(i)).sum()
        });
        assert_close(&batch.gae(gamma, lambda), &slow);
    }
}

#[test]
fn td_residual_is_one_step() {
    for batch in batches() {
        let slow = batch.slow(|p, k| p.rewards[k] + 0.97 * p.values[k + 1] - p.values[k]);
        assert_close(&batch.td_residual(0.97), &slow);
    }
}

#[test]
fn n_step_is_the_truncated_sum() {
    for batch in batches() {
        for n in [1, 2, 3, 5, batch.t, batch.t + 3] {
            assert_close(&batch.n_step(0.97, n), &batch.slow(|p, k| slow_n_step(p, k, 0.97, n)));
        }
    }
}

#[test]
fn lambda_return_is_the_mixture_of_n_step_returns() {
    let (gamma, lambda) = (0.97f64, 0.8f64);
    for batch in batches() {
        let slow = batch.slow(|p, k| {
            let left = p.rewards.len() - k;
            let inner: f64 = (1..left).map(|n| lambda.powi(n as i32 - 1) * slow_n_step(p, k, gamma, n)).sum();
            (1.0 - lambda) * inner + lambda.powi(left as i32 - 1) * slow_n_step(p, k, gamma, left)
        });
        assert_close(&batch.lambda_return(gamma, lambda), &slow);
    }
}

#[test]
fn reward_to_go_and_total_return_are_plain_sums() {
    let gamma = 0.97f64;
    for batch in batches() {
        for bootstrap in [false, true] {
            let from = |p: &Path, k: usize| {
                let end = p.rewards.len();
                let rewards: f64 = (k..end).map(|i| gamma.powi((i - k) as i32) * p.rewards[i]).sum();
                rewards + if bootstrap { gamma.powi((end - k) as i32) * p.values[end] } else { 0.0 }
            };
            assert_close(&batch.reward_to_go(gamma, bootstrap), &batch.slow(from));
            assert_close(&batch.total_return(gamma, bootstrap), &batch.slow(|p, _| from(p, 0)));
        }
    }
}

#[test]
fn a_baseline_is_taken_off_and_states_are_discounted_from_the_start_of_their_path() {
    let gamma = 0.97f64;
    for batch in batches() {
        let (v, carry) = (batch.tb(&batch.v), batch.tb(&batch.carry));
        let to_go = batch.reward_to_go(gamma, true);
        let psi = batch.run(|out| returns::subtract(batch.tb(&to_go), v, out));
        let end = |p: &Path, k: usize| -> f64 {
            let n = p.rewards.len();
            let rewards: f64 = (k..n).map(|i| gamma.powi((i - k) as i32) * p.rewards[i]).sum();
            rewards + gamma.powi((n - k) as i32) * p.values[n]
        };
        assert_close(&psi, &batch.slow(|p, k| end(p, k) - p.values[k]));
        let weighed = batch.run(|mut out| {
            out.data_mut().copy_from_slice(&psi);
            returns::discount(carry, gamma, out);
        });
        let slow = batch.slow(|p, k| gamma.powi(k as i32) * (end(p, k) - p.values[k]));
        assert_close(&weighed, &slow);
    }
}

#[test]
fn reward_to_go_reads_values_at_the_ends_of_paths_only() {
    let mut batch = Batch::random(20, 8, 3);
    let clean = batch.reward_to_go(0.97, true);
    for i in 0..(batch.t - 1) * batch.b {
        if batch.carry[i] == 1.0 {
            batch.v_next[i] = f64::NAN;
        }
    }
    assert_eq!(batch.reward_to_go(0.97, true), clean);
}

#[test]
fn vtrace_is_equation_1() {
    let (gamma, lambda, rho_bar, c_bar) = (0.97f64, 0.95, 1.2f64, 1.0f64);
    for batch in batches() {
        let vs_of = |p: &Path, k: usize| {
            if k == p.rewards.len() {
                return p.values[k];
            }
            let mut sum = p.values[k];
            for i in k..p.rewards.len() {
                let product: f64 = (k..i).map(|j| lambda * p.ratios[j].min(c_bar)).product();
                let delta = p.ratios[i].min(rho_bar) * (p.rewards[i] + gamma * p.values[i + 1] - p.values[i]);
                sum += gamma.powi((i - k) as i32) * product * delta;
            }
            sum
        };
        let [vs, adv] = batch.vtrace(&batch.ratio, gamma, lambda, rho_bar, c_bar);
        assert_close(&vs, &batch.slow(vs_of));
        let slow_adv = batch
            .slow(|p, k| p.ratios[k].min(rho_bar) * (p.rewards[k] + gamma * vs_of(p, k + 1) - p.values[k]));
        assert_close(&adv, &slow_adv);
        let slow_adv = batch.slow(|p, k| p.rewards[k] + gamma * vs_of(p, k + 1) - p.values[k]);
        assert_close(&batch.one_step_advantage(&vs, gamma), &slow_adv);
    }
}

#[test]
fn a_truncation_is_not_a_termination() {
    // One reward, then the end: the two endings differ by the value of the final observation.
    let gae = |v_next: f64| {
        let mut adv = [f64::NAN];
        let one = |x: &'static [f64]| Tb::new(x, 1, 1);
        let v_next = [v_next];
        returns::gae(
            one(&[1.0]),
            one(&[0.5]),
            Tb::new(&v_next, 1, 1),
            one(&[0.0]),
            0.9,
            0.9,
            TbMut::new(&mut adv, 1, 1),
        );
        adv[0]
    };
    assert!((gae(0.0) - 0.5).abs() < 1e-15);
    assert!((gae(10.0) - 9.5).abs() < 1e-15);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn laws(t in 1usize..30, b in 1usize..20, seed: u64, gamma in 0.5f64..1.0, lambda in 0.0f64..1.0) {
        let batch = Batch::random(t, b, seed);
        let ones = vec![1.0; t * b];
        // λ = 0 is the TD residual; λ = 1 is Monte Carlo with a bootstrapped tail, minus V.
        prop_assert!(difference(&batch.gae(gamma, 0.0), &batch.td_residual(gamma)) < 1e-12);
        let monte_carlo = batch.reward_to_go(gamma, true);
        prop_assert!(difference(&batch.gae(gamma, 1.0), &minus(&monte_carlo, &batch.v)) < 1e-12);
        // GAE + V is the λ-return.
        let lambda_return = batch.lambda_return(gamma, lambda);
        prop_assert!(difference(&batch.gae(gamma, lambda), &minus(&lambda_return, &batch.v)) < 1e-12);
        // n = T is λ = 1; n = 1 is λ = 0.
        prop_assert!(difference(&batch.n_step(gamma, t), &batch.lambda_return(gamma, 1.0)) < 1e-12);
        prop_assert!(difference(&batch.n_step(gamma, 1), &batch.lambda_return(gamma, 0.0)) < 1e-12);
        // On-policy V-trace is the n-step return with n = T (Espeholt et al. 2018, Eq. 2), or the λ-return.
        let [vs, adv] = batch.vtrace(&ones, gamma, 1.0, 1.0, 1.0);
        prop_assert!(difference(&vs, &batch.n_step(gamma, t)) < 1e-12);
        prop_assert!(difference(&adv, &minus(&vs, &batch.v)) < 1e-12);
        prop_assert!(difference(&batch.one_step_advantage(&vs, gamma), &batch.gae(gamma, 1.0)) < 1e-12);
        prop_assert!(difference(&batch.vtrace(&ones, gamma, lambda, 1.0, 1.0)[0], &lambda_return) < 1e-12);
        // Ratios of 0 leave V where it is.
        prop_assert!(difference(&batch.vtrace(&vec![0.0; t * b], gamma, 1.0, 1.0, 1.0)[0], &batch.v) < 1e-12);
        // The first row of a path has the path's total return.
        let total = batch.total_return(gamma, false);
        let to_go = batch.reward_to_go(gamma, false);
        for p in &batch.paths {
            prop_assert!(total[p.start * b + p.env] == to_go[p.start * b + p.env]);
        }
    }
}

#[test]
fn single_precision_agrees_with_double() {
    let batch = Batch::random(128, 64, 11);
    let f32s = |x: &[f64]| x.iter().map(|v| *v as f32).collect::<Vec<f32>>();
    let (r, v, n, c) = (f32s(&batch.r), f32s(&batch.v), f32s(&batch.v_next), f32s(&batch.carry));
    let mut adv = vec![f32::NAN; 128 * 64];
    fn tb(x: &[f32]) -> Tb<'_, f32> {
        Tb::new(x, 128, 64)
    }
    returns::gae(tb(&r), tb(&v), tb(&n), tb(&c), 0.99, 0.95, TbMut::new(&mut adv, 128, 64));
    let adv: Vec<f64> = adv.iter().map(|x| f64::from(*x)).collect();
    assert!(difference(&adv, &batch.gae(0.99, 0.95)) < 2e-5);
}

#[test]
fn standardize_gives_mean_0_and_deviation_1() {
    let mut x: Vec<f64> = SplitMix::new(1).vector(1001).iter().map(|v| 1e3 + 5.0 * v).collect();
    let before = x.clone();
    let (mean, std) = returns::standardize(&mut x);
    let slow_mean = before.iter().sum::<f64>() / 1001.0;
    let slow_std = (before.iter().map(|v| (v - slow_mean).powi(2)).sum::<f64>() / 1001.0).sqrt();
    assert!((mean - slow_mean).abs() < 1e-10 && (std - slow_std).abs() < 1e-10);
    for (x, b) in x.iter().zip(&before) {
        assert!((x - (b - slow_mean) / (slow_std + 1e-8)).abs() < 1e-10);
    }
    // No spread: zeros, not NaN.
    for n in [1, 3] {
        let mut same = vec![7.5f32; n];
        assert_eq!(returns::standardize(&mut same), (7.5, 0.0));
        assert_eq!(same, vec![0.0; n]);
    }
    assert_eq!(returns::standardize::<f32>(&mut []), (0.0, 0.0));
}

#[test]
#[should_panic(expected = "same [T, B]")]
fn shapes_that_differ_are_refused() {
    let (a, b) = ([0.0; 6], [0.0; 6]);
    let mut out = [0.0; 6];
    returns::td_residual(
        Tb::new(&a, 2, 3),
        Tb::new(&b, 3, 2),
        Tb::new(&a, 2, 3),
        1.0,
        TbMut::new(&mut out, 2, 3),
    );
}
