//! The tasks of the papers against their exact solutions.

#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

use pgrad_env::{Actions, End, RandomActions, VecEnv};
use pgrad_envs::{KakadeLqg, KakadeMdp, make};
use pgrad_num::{Cols, Stream};

/// Mean and standard error.
fn mean_and_error(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, (variance / n).sqrt())
}

/// The return of one episode of each of `n` copies, alternatives drawn by `right(observation) = P(action 1)`.
fn returns(id: &str, n: usize, right: impl Fn(&[f32]) -> f64) -> Vec<f64> {
    let mut envs = VecEnv::new(make(id, n).unwrap(), 5, 0);
    let mut random = Stream::new(17, 1, 0);
    envs.start().unwrap();
    let mut first = vec![None; n];
    let mut actions = vec![0; n];
    while first.contains(&None) {
        for (b, action) in actions.iter_mut().enumerate() {
            let obs: Vec<f32> = (0..envs.obs().rows()).map(|i| envs.obs().at(i, b)).collect();
            *action = u32::from(random.uniform() < right(&obs));
        }
        envs.step(Actions::index(Cols::new(&actions, 1, n))).unwrap();
        for e in envs.finished() {
            first[e.env].get_or_insert(e.episode_return);
        }
        envs.clear_finished();
    }
    first.into_iter().map(Option::unwrap).collect()
}

/// Solves `A x = b` by elimination.
fn solve<const N: usize>(mut a: [[f64; N]; N], mut b: [f64; N]) -> [f64; N] {
    for i in 0..N {
        let pivot = (i..N).max_by(|r, s| a[*r][i].abs().total_cmp(&a[*s][i].abs())).unwrap();
        a.swap(i, pivot);
        b.swap(i, pivot);
        for r in 0..N {
            if r != i {
                let factor = a[r][i] / a[i][i];
                for c in 0..N {
                    a[r][c] -= factor * a[i][c];
                }
                b[r] -= factor * b[i];
            }
        }
    }
    std::array::from_fn(|i| b[i] / a[i][i])
}

/// Values of the corridor's places, from the library's own steps: `v = r + P v`.
fn corridor_values(p: f64) -> [f64; 3] {
    let mut env = make("ShortCorridor-v0", 1).unwrap();
    let (mut a, mut b) = ([[0.0; 3]; 3], [0.0; 3]);
    for place in 0..3 {
        a[place][place] += 1.0;
        for (action, weight) in [(0, 1.0 - p), (1, p)] {
            assert!(env.load(0, &[place as f64]));
            let (mut reward, mut end) = ([0.0], [End::Truncated]);
            let mut rng = [Stream::new(0, 0, 0)];
            env.step(Actions::index(Cols::new(&[action], 1, 1)), &mut rng, &mut reward, &mut end);
            b[place] += weight * reward[0];
            let next = env.save(0).unwrap()[0] as usize;
            assert_eq!(next == 3, end[0] == End::Terminated);
            if next < 3 {
                a[place][next] -= weight;
            }
        }
    }
    solve(a, b)
}

#[test]
fn the_corridor_has_the_books_value() {
    let formula = |p: f64| (2.0 * p - 4.0) / (p * (1.0 - p));
    for p in [0.05, 0.3, 0.5, 0.586, 0.9, 0.95] {
        let v = corridor_values(p)[0];
        assert!((v - formula(p)).abs() < 1e-9 * v.abs(), "{p}: {v}, not {}", formula(p));
    }
    // The optimum, and the two ε-greedy policies of the book.
    let best = 2.0 - 2f64.sqrt();
    assert!((corridor_values(best)[0] + 11.66).abs() < 0.005);
    assert!([best - 0.01, best + 0.01].iter().all(|p| corridor_values(*p)[0] < corridor_values(best)[0]));
    assert!((corridor_values(0.95)[0] + 44.2).abs() < 0.05 && (corridor_values(0.05)[0] + 82.1).abs() < 0.05);
}

#[test]
fn episodes_of_the_corridor_have_that_value_on_average() {
    for p in [0.25, 0.586, 0.8] {
        let (mean, error) = mean_and_error(&returns("ShortCorridor-v0", 8000, |obs| {
            assert_eq!(obs, [1.0]);
            p
        }));
        let exact = corridor_values(p)[0];
        assert!((mean - exact).abs() < 4.0 * error, "{p}: {mean} ± {error}, not {exact}");
        assert!(error < 0.3);
    }
    // Always left never comes out: cut, not ended.
    let cut = returns("ShortCorridor-v0", 2, |_| 0.0);
    assert_eq!(cut, [-1000.0; 2]);
}

/// Mean return of 100 steps of Kakade's task, by carrying the distribution forward; and the average reward
/// and the part of the time in `i` in the long run.
fn mdp_exact(a: f64, b: f64) -> (f64, f64, f64) {
    let mut rho = [KakadeMdp::FIRST_I, 1.0 - KakadeMdp::FIRST_I];
    let reward = |rho: [f64; 2]| rho[0] * a + 2.0 * rho[1] * b;
    let mut total = 0.0;
    for t in 0..10_000 {
        if t < 100 {
            total += reward(rho);
        }
        rho = [rho[0] * a + rho[1] * (1.0 - b), rho[1] * b + rho[0] * (1.0 - a)];
    }
    (total, reward(rho), rho[0])
}

#[test]
fn kakades_states_pay_and_follow_as_drawn() {
    for (a, b) in [(0.8, 0.1), (0.5, 0.5), (0.3, 0.9)] {
        let stay = |obs: &[f32]| {
            assert!(obs == [1.0, 0.0] || obs == [0.0, 1.0]);
            if obs[0] == 1.0 { a } else { b }
        };
        let (mean, error) = mean_and_error(&returns("KakadeMdp-v0", 4000, stay));
        let (total, average, rho_i) = mdp_exact(a, b);
        assert!((mean - total).abs() < 4.0 * error, "{a} {b}: {mean} ± {error}, not {total}");
        // The formulas of the task's page.
        let rho = (1.0 - b) / ((1.0 - a) + (1.0 - b));
        assert!((rho - rho_i).abs() < 1e-12 && (a * rho + 2.0 * b * (1.0 - rho) - average).abs() < 1e-12);
    }
    // Staying for ever: 100 steps of 1 or 2.
    let stayed = returns("KakadeMdp-v0", 1000, |_| 1.0);
    assert!(stayed.iter().all(|r| [100.0, 200.0].contains(r)));
    let first_i = stayed.iter().filter(|r| **r == 100.0).count() as f64 / 1000.0;
    assert!((first_i - 0.8).abs() < 4.0 * (0.16f64 / 1000.0).sqrt(), "{first_i}");
    assert!(returns("KakadeMdp-v0", 3, |_| 0.0).iter().all(|r| *r == 0.0));
}

#[test]
fn the_lqg_costs_what_the_variance_says() {
    for (k, sigma2, known) in [(-0.7, 0.0, Some(20.0)), (-0.5, 0.625, Some(33.8)), (0.1, 0.3, None)] {
        // P <- (0.7 + k)^2 P + sigma^2 + 1, summed over the horizon.
        let (mut p, mut cost) = (0.0, 0.0);
        for _ in 0..20 {
            p = (0.7f64 + k).powi(2) * p + sigma2 + 1.0;
            cost += p;
        }
        assert!(known.is_none_or(|c: f64| (c - cost).abs() < 0.05), "{cost}");
        let n = 8000;
        let mut envs = VecEnv::new(make("KakadeLqg-v0", n).unwrap(), 9, 0);
        let mut random = Stream::new(3, 1, 0);
        envs.start().unwrap();
        assert_eq!(envs.obs().row(0), vec![0.0; n]);
        let mut actions = vec![0.0; n];
        for t in 0..KakadeLqg::HORIZON {
            assert!(envs.finished().is_empty(), "step {t}");
            for (b, u) in actions.iter_mut().enumerate() {
                *u = (k * f64::from(envs.obs().at(0, b)) + f64::sqrt(sigma2) * random.normal()) as f32;
            }
            envs.step(Actions::real(Cols::new(&actions, 1, n))).unwrap();
        }
        assert!(envs.ends().iter().all(|e| *e == End::Terminated));
        let returns: Vec<f64> = envs.finished().iter().map(|e| e.episode_return).collect();
        let (mean, error) = mean_and_error(&returns);
        assert_eq!(returns.len(), n);
        assert!((mean + cost).abs() < 4.0 * error, "{k} {sigma2}: {mean} ± {error}, not -{cost}");
        assert!(error < 0.02 * cost);
    }
}

/// Accelerations of cart and pole by Lagrange's equations with their friction, solved as a system:
/// `M ẍ + m l cos θ θ̈ = F + m l θ̇² sin θ − μ_c sign ẋ` and
/// `m l cos θ ẍ + 4/3 m l² θ̈ = m g l sin θ − μ_p θ̇`.
fn accelerations([_, x_dot, theta, theta_dot]: [f64; 4], force: f64) -> [f64; 2] {
    let (m, l, mass, g, friction_cart, friction_pole) = (0.1, 0.5, 1.1, 9.8, 0.0005, 0.000_002);
    let cross = m * l * theta.cos();
    let sign = if x_dot == 0.0 { 0.0 } else { x_dot.signum() };
    solve(
        [[mass, cross], [cross, 4.0 / 3.0 * m * l * l]],
        [
            force + m * l * theta_dot.powi(2) * theta.sin() - friction_cart * sign,
            m * g * l * theta.sin() - friction_pole * theta_dot,
        ],
    )
}

#[test]
fn bartos_pole_moves_by_lagranges_equations() {
    let mut random = Stream::new(23, 1, 0);
    let n = 500;
    let mut env = make("BartoCartPole-v0", n).unwrap();
    let mut states = Vec::new();
    let mut actions = Vec::new();
    for b in 0..n {
        let mut state = [2.5, 3.0, 0.22, 3.0].map(|high| random.uniform_in(-high, high));
        if b % 10 == 0 {
            state[1] = 0.0;
        }
        assert!(env.load(b, &state));
        states.push(state);
        // Some outside the range: as much as there is.
        actions.push(random.uniform_in(-1.5, 1.5) as f32);
    }
    let (mut rewards, mut ends) = (vec![0.0; n], vec![End::Truncated; n]);
    let mut rngs = vec![Stream::new(0, 0, 0); n];
    env.step(Actions::real(Cols::new(&actions, 1, n)), &mut rngs, &mut rewards, &mut ends);
    let mut fallen = 0;
    for b in 0..n {
        let force = 10.0 * f64::from(actions[b]).clamp(-1.0, 1.0);
        let s = states[b];
        let [x_acc, theta_acc] = accelerations(s, force);
        let next = [s[0] + 0.02 * s[1], s[1] + 0.02 * x_acc, s[2] + 0.02 * s[3], s[3] + 0.02 * theta_acc];
        let got = env.save(b).unwrap();
        for i in 0..4 {
            assert!((got[i] - next[i]).abs() < 1e-12, "copy {b}, number {i}: {} not {}", got[i], next[i]);
        }
        let out = next[0].abs() > 2.4 || next[2].abs() > 12f64.to_radians();
        fallen += u32::from(out);
        assert_eq!(ends[b], if out { End::Terminated } else { End::Running });
        let reward = if out { 0.0 } else { 9.0 + next[2].cos() - 1e-5 * force * force };
        assert!((rewards[b] - reward).abs() < 1e-12, "copy {b}: {} not {reward}", rewards[b]);
    }
    assert!((50..400).contains(&fallen), "{fallen}");
}

#[test]
fn bartos_pole_stands_with_a_linear_policy_and_falls_without() {
    let run = |gains: Option<[f32; 4]>| {
        let n = 16;
        let mut envs = VecEnv::new(make("BartoCartPole-v0", n).unwrap(), 1, 0);
        envs.start().unwrap();
        let mut random = RandomActions::new(&envs.spec().action, n, 1, 0);
        let mut actions = vec![0.0; n];
        while envs.finished().len() < n {
            for (b, u) in actions.iter_mut().enumerate() {
                *u = gains.map_or(0.0, |g| (0..4).map(|i| g[i] * envs.obs().at(i, b)).sum());
            }
            let real = Actions::real(Cols::new(&actions, 1, n));
            envs.step(if gains.is_some() { real } else { random.draw() }).unwrap();
        }
        envs.finished()[..n].iter().map(|e| (e.length, e.episode_return)).collect::<Vec<_>>()
    };
    // Gains of a linear-quadratic regulator, rounded, in units of 10 N.
    for (length, total) in run(Some([0.1, 0.2, 3.0, 0.6])) {
        assert_eq!(length, 1000);
        assert!((9_990.0..=10_000.0).contains(&total), "{total}");
    }
    let fallen = run(None);
    assert!(fallen.iter().all(|(length, _)| (5..300).contains(length)), "{fallen:?}");
}
