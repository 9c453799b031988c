//! Surrogates and value losses against their equations, one sample at a time, and finite differences.

use pgrad_math::surrogate;
use pgrad_testkit::{SplitMix, assert_gradient};

const N: usize = 83;

fn vectors(seed: u64) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let mut random = SplitMix::new(seed);
    let logp: Vec<f64> = (0..N).map(|_| random.uniform_in(-3.0, 0.0)).collect();
    let logp_old = logp.iter().map(|l| l + random.uniform_in(-0.6, 0.6)).collect();
    (logp, logp_old, random.vector(N))
}

fn zeros() -> Vec<f64> {
    vec![f64::NAN; N]
}

fn clip(logp: &[f64], logp_old: &[f64], adv: &[f64], epsilon: f64) -> (Vec<f64>, Vec<f64>, Vec<f64>, usize) {
    let n = logp.len();
    let (mut r, mut value, mut d) = (vec![f64::NAN; n], vec![f64::NAN; n], vec![f64::NAN; n]);
    let outside = surrogate::clip(logp, logp_old, adv, epsilon, &mut r, &mut value, &mut d);
    (r, value, d, outside)
}

#[test]
fn score_is_logp_times_psi() {
    let (logp, _, psi) = vectors(1);
    let (mut value, mut d) = (zeros(), zeros());
    surrogate::score(&logp, &psi, &mut value, &mut d);
    for i in 0..N {
        assert_eq!(value[i], logp[i] * psi[i]);
    }
    let sum = |x: &[f64]| {
        let mut value = zeros();
        surrogate::score(x, &psi, &mut value, &mut zeros());
        value.iter().sum()
    };
    assert_gradient(sum, &logp, &d, 1e-7);
}

#[test]
fn ratio_is_the_importance_weighted_psi() {
    let (logp, logp_old, psi) = vectors(2);
    let (mut r, mut value, mut d) = (zeros(), zeros(), zeros());
    surrogate::ratio(&logp, &logp_old, &psi, &mut r, &mut value, &mut d);
    for i in 0..N {
        assert!((r[i] - logp[i].exp() / logp_old[i].exp()).abs() < 1e-14);
        assert!((value[i] - logp[i].exp() / logp_old[i].exp() * psi[i]).abs() < 1e-14);
    }
    let sum = |x: &[f64]| {
        let mut value = zeros();
        surrogate::ratio(x, &logp_old, &psi, &mut zeros(), &mut value, &mut zeros());
        value.iter().sum()
    };
    assert_gradient(sum, &logp, &d, 1e-7);
}

#[test]
fn all_surrogates_have_the_same_derivative_where_nothing_has_moved() {
    let (logp, _, psi) = vectors(3);
    let (mut score, mut ratio) = (zeros(), zeros());
    surrogate::score(&logp, &psi, &mut zeros(), &mut score);
    surrogate::ratio(&logp, &logp, &psi, &mut zeros(), &mut zeros(), &mut ratio);
    let (r, _, clipped, outside) = clip(&logp, &logp, &psi, 0.2);
    assert_eq!(score, ratio);
    assert_eq!(score, clipped);
    assert_eq!((r, outside), (vec![1.0; N], 0));
}

#[test]
fn clip_is_equation_7() {
    let epsilon = 0.2;
    let (logp, logp_old, adv) = vectors(4);
    let (r, value, d, outside) = clip(&logp, &logp_old, &adv, epsilon);
    let mut slow_outside = 0;
    for i in 0..N {
        let slow_r = (logp[i] - logp_old[i]).exp();
        let slow = (slow_r * adv[i]).min(slow_r.clamp(1.0 - epsilon, 1.0 + epsilon) * adv[i]);
        assert!((r[i] - slow_r).abs() < 1e-14 && (value[i] - slow).abs() < 1e-14);
        slow_outside += usize::from((slow_r - 1.0).abs() > epsilon);
    }
    assert_eq!(outside, slow_outside);
    assert!((20..N - 20).contains(&outside), "the sample sees both sides: {outside}");
    assert_gradient(|x| clip(x, &logp_old, &adv, epsilon).1.iter().sum(), &logp, &d, 1e-7);
}

#[test]
fn clip_is_flat_exactly_where_the_paper_says() {
    let epsilon = 0.25; // 1 - ε and 1 + ε are exact, so that a ratio can sit on them
    let edge = |r: f64| {
        // The logarithm whose exponential is r, bit for bit, or the nearest ones on either side.
        let x = r.ln();
        [x, f64::from_bits(x.to_bits() + 1), f64::from_bits(x.to_bits() - 1)]
            .into_iter()
            .find(|x| x.exp() == r)
            .unwrap()
    };
    let (low, high) = (edge(0.75), edge(1.25));
    let (r, value, d, outside) = clip(&[low, high, low, high], &[0.0; 4], &[2.0, 2.0, -2.0, -2.0], epsilon);
    assert_eq!(r, [0.75, 1.25, 0.75, 1.25]);
    assert_eq!(value, [1.5, 2.5, -1.5, -2.5]);
    assert_eq!(d, value, "on an edge the derivative is that of r A");
    assert_eq!(outside, 0);
    for (adv, at, flat_above, flat_below) in [
        (2.0, high, true, false),
        (2.0, low, false, false),
        (-2.0, low, false, true),
        (-2.0, high, false, false),
    ] {
        for (step, flat) in [(1e-9, flat_above), (-1e-9, flat_below), (0.5, flat_above), (-0.5, flat_below)] {
            // Half a unit below the upper edge crosses the whole range, and the reverse.
            if (at == high && step == -0.5) || (at == low && step == 0.5) {
                continue;
            }
            let (r, value, d, _) = clip(&[at + step], &[0.0], &[adv], epsilon);
            assert_eq!(d[0] == 0.0, flat, "adv {adv}, ratio {}", r[0]);
            let expected = if flat { at.exp() * adv } else { r[0] * adv };
            assert!((value[0] - expected).abs() < 1e-15);
            if step.abs() > 1e-3 {
                assert_gradient(|x| clip(x, &[0.0], &[adv], epsilon).1[0], &[at + step], &d, 1e-7);
            }
        }
    }
    // A zero advantage pulls nowhere.
    assert_eq!(clip(&[1.0, -1.0, 0.1], &[0.0; 3], &[0.0; 3], epsilon).2, [0.0; 3]);
}

#[test]
fn clip_passes_nan_on() {
    for (logp, adv) in [(f64::NAN, 1.0), (0.0, f64::NAN), (1.0, f64::NAN)] {
        let (_, value, d, _) = clip(&[logp], &[0.0], &[adv], 0.2);
        assert!(value[0].is_nan() && d[0].is_nan());
    }
}

#[test]
fn kl_estimators_average_to_the_divergence() {
    // Two categoricals: the exact mean over actions drawn by old.
    let (old, new) = ([0.5f64, 0.3, 0.2], [0.2f64, 0.5, 0.3]);
    let logs = |p: &[f64]| p.iter().map(|p| p.ln()).collect::<Vec<f64>>();
    let (mut k1, mut k3) = (vec![0.0; 3], vec![0.0; 3]);
    surrogate::kl_k1(&logs(&new), &logs(&old), &mut k1);
    surrogate::kl_k3(&logs(&new), &logs(&old), &mut k3);
    let mean = |k: &[f64]| old.iter().zip(k).map(|(p, k)| p * k).sum::<f64>();
    let exact: f64 = old.iter().zip(&new).map(|(p, q)| p * (p / q).ln()).sum();
    let reverse: f64 = new.iter().zip(&old).map(|(p, q)| p * (p / q).ln()).sum();
    assert!((mean(&k1) - exact).abs() < 1e-15 && (mean(&k3) - exact).abs() < 1e-15);
    assert!((exact - reverse).abs() > 1e-3, "the directions can be told apart");
    assert!(k3.iter().all(|k| *k > 0.0) && k1.iter().any(|k| *k < 0.0));
}

#[test]
fn k3_keeps_its_digits_for_small_and_large_steps() {
    let steps = [1e-6, -1e-5, 1e-4, 1e-3, 0.03, 0.3, 0.499_999, 0.500_001, -0.499_999, -0.500_001, 2.0, -4.0];
    let logp32: Vec<f32> = steps.iter().map(|x| *x as f32).collect();
    let (mut k32, mut k64) = (vec![0.0f32; steps.len()], vec![0.0f64; steps.len()]);
    surrogate::kl_k3(&logp32, &vec![0.0; steps.len()], &mut k32);
    surrogate::kl_k3(&steps, &vec![0.0; steps.len()], &mut k64);
    for (i, x) in steps.iter().enumerate() {
        let exact = x.exp_m1() - x;
        // The difference loses digits when x is small; the leading terms of its series do not.
        let series: f64 = (2..9).map(|k| x.powi(k) / (1..=k).map(f64::from).product::<f64>()).sum();
        let exact = if x.abs() < 1e-2 { series } else { exact };
        assert!((k64[i] / exact - 1.0).abs() < 1e-12, "{x}: {} {exact}", k64[i]);
        assert!((f64::from(k32[i]) / exact - 1.0).abs() < 3e-6, "{x}: {} {exact}", k32[i]);
    }
}

#[test]
fn squared_is_half_the_square() {
    let (v, _, ret) = vectors(6);
    let (mut loss, mut d) = (zeros(), zeros());
    surrogate::squared(&v, &ret, &mut loss, &mut d);
    for i in 0..N {
        assert!((loss[i] - 0.5 * (v[i] - ret[i]).powi(2)).abs() < 1e-15);
    }
    let sum = |x: &[f64]| {
        let mut loss = zeros();
        surrogate::squared(x, &ret, &mut loss, &mut zeros());
        loss.iter().sum()
    };
    assert_gradient(sum, &v, &d, 1e-7);
}

#[test]
fn squared_clipped_is_the_larger_of_two() {
    let epsilon = 0.2;
    let (v, v_old, ret) = vectors(7);
    let ret: Vec<f64> = ret.iter().zip(&v).map(|(r, v)| r + v).collect();
    let run = |v: &[f64]| {
        let (mut loss, mut d) = (zeros(), zeros());
        surrogate::squared_clipped(v, &v_old, &ret, epsilon, &mut loss, &mut d);
        (loss, d)
    };
    let (loss, d) = run(&v);
    let (mut flat, mut clipped_range) = (0, 0);
    for i in 0..N {
        let v_clip = v_old[i] + (v[i] - v_old[i]).clamp(-epsilon, epsilon);
        let (plain, clipped) = ((v[i] - ret[i]).powi(2), (v_clip - ret[i]).powi(2));
        assert!((loss[i] - 0.5 * plain.max(clipped)).abs() < 1e-14);
        let outside = (v[i] - v_old[i]).abs() > epsilon;
        assert_eq!(d[i] == 0.0, outside && clipped > plain);
        flat += usize::from(d[i] == 0.0);
        clipped_range += usize::from(outside);
    }
    assert!(flat > 10 && clipped_range > flat + 10, "the sample sees all branches: {flat} {clipped_range}");
    assert_gradient(|x| run(x).0.iter().sum(), &v, &d, 1e-7);
    // On the edge of the range the derivative is that of the plain term.
    let (mut loss, mut d) = (vec![0.0; 2], vec![0.0; 2]);
    surrogate::squared_clipped(&[1.25, 0.75], &[1.0, 1.0], &[3.0, -1.0], 0.25, &mut loss, &mut d);
    assert_eq!(d, [-1.75, 1.75]);
}

#[test]
fn single_precision_agrees_with_double() {
    let (logp, logp_old, adv) = vectors(8);
    let f32s = |x: &[f64]| x.iter().map(|v| *v as f32).collect::<Vec<f32>>();
    let (mut r, mut value, mut d) = (vec![0.0f32; N], vec![0.0f32; N], vec![0.0f32; N]);
    let outside =
        surrogate::clip(&f32s(&logp), &f32s(&logp_old), &f32s(&adv), 0.2, &mut r, &mut value, &mut d);
    let (r64, value64, d64, outside64) = clip(&logp, &logp_old, &adv, 0.2);
    assert_eq!(outside, outside64);
    for i in 0..N {
        for (x, y) in [(r[i], r64[i]), (value[i], value64[i]), (d[i], d64[i])] {
            assert!((f64::from(x) - y).abs() < 2e-6, "{x} {y}");
        }
    }
}

#[test]
#[should_panic(expected = "differ in length")]
fn slices_of_different_length_are_refused() {
    surrogate::kl_k1(&[0.0f32; 3], &[0.0; 3], &mut [0.0; 2]);
}

#[test]
fn several_actions_of_a_state_make_the_self_normalised_surrogate() {
    // Three actions in each of 20 states.
    let n = 20;
    let draw = |seed: u64| pgrad_testkit::random_vector(seed, n);
    let (mut top, mut bottom, mut ratio) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
    let (mut slow_top, mut slow_bottom) = (vec![0.0; n], vec![0.0; n]);
    for k in 0..3 {
        let [new, old, q] = [draw(10 + k), draw(20 + k), draw(30 + k)];
        let weight: Vec<f64> = draw(40 + k).iter().map(|w| w.abs()).collect();
        surrogate::add_self_normalized(&new, &old, &weight, &q, &mut ratio, &mut top, &mut bottom);
        for i in 0..n {
            let share = weight[i] * new[i].exp() / old[i].exp();
            slow_top[i] += share * q[i];
            slow_bottom[i] += share;
        }
    }
    for i in 0..n {
        assert!((top[i] - slow_top[i]).abs() < 1e-12 && (bottom[i] - slow_bottom[i]).abs() < 1e-12);
    }
    // What has no weight does not count, even where its ratio has no value.
    let before = (top.clone(), bottom.clone());
    let (new, old, q) = (vec![1e4; n], vec![f64::NEG_INFINITY; n], vec![1.0; n]);
    surrogate::add_self_normalized(&new, &old, &vec![0.0; n], &q, &mut ratio, &mut top, &mut bottom);
    assert_eq!((top, bottom), before);
}
