//! What every registered environment must do.

#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

use pgrad_env::{RandomActions, VecEnv, check_batch_env};
use pgrad_envs::{EnvEntry, REGISTRY};
use pgrad_num::ColsMut;
use pgrad_testkit::{CountingAllocator, assert_allocates_nothing};

/// The tasks that are code of ours; those that the MuJoCo library steps are in `mujoco.rs`.
fn own() -> impl Iterator<Item = &'static EnvEntry> {
    REGISTRY.iter().filter(|e| !e.is_elsewhere())
}

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

#[test]
fn every_environment_passes_the_check() {
    for e in own() {
        for seed in 0..5 {
            assert_eq!(check_batch_env(|n| e.make(n), seed), Ok(vec![]), "{}", e.id);
        }
    }
}

/// Tasks that nobody would recognise in a picture.
const WITHOUT_A_PICTURE: [&str; 3] = ["ShortCorridor-v0", "KakadeMdp-v0", "KakadeLqg-v0"];

#[test]
fn what_an_environment_looks_like_follows_its_state() {
    for e in REGISTRY {
        // `tests/mujoco.rs` looks at the others.
        if e.is_elsewhere() {
            continue;
        }
        let mut envs = VecEnv::new(e.make(2).unwrap(), 7, 0);
        envs.start().unwrap();
        if WITHOUT_A_PICTURE.contains(&e.id) {
            assert_eq!(envs.picture(0).unwrap_err().id, e.id);
            continue;
        }
        let first = envs.picture(1).unwrap();
        assert!(first.frames_per_second >= 1.0, "{}", e.id);
        assert_eq!(envs.picture(1).unwrap(), first, "{}: looking changes nothing", e.id);
        let mut random: Vec<RandomActions> =
            (0..2).map(|b| RandomActions::new(&envs.spec().action, 1, 7, b)).collect();
        let moved = (0..20).any(|_| {
            step(&mut envs, &mut random);
            envs.picture(1).unwrap() != first
        });
        assert!(moved, "{}", e.id);
    }
}

/// Bits of all that a shard shows over `steps` steps, one entry an environment.
fn trace(e: &EnvEntry, first: usize, n: usize, steps: usize) -> Vec<Vec<u64>> {
    let mut envs = VecEnv::new(e.make(n).unwrap(), 7, first);
    envs.start().unwrap();
    // One stream of actions for each environment, so that a batch and single ones get the same.
    let mut random: Vec<RandomActions> =
        (0..n).map(|b| RandomActions::new(&envs.spec().action, 1, 7, (first + b) as u32)).collect();
    let mut bits = vec![Vec::new(); n];
    for _ in 0..steps {
        step(&mut envs, &mut random);
        for (b, bits) in bits.iter_mut().enumerate() {
            for i in 0..envs.obs().rows() {
                bits.push(u64::from(envs.obs().at(i, b).to_bits()));
                bits.push(u64::from(envs.final_obs().at(i, b).to_bits()));
            }
            bits.push(envs.rewards()[b].to_bits());
            bits.push(envs.ends()[b] as u64);
        }
    }
    bits
}

fn step(envs: &mut VecEnv, random: &mut [RandomActions]) {
    use pgrad_env::Actions;
    use pgrad_num::Cols;
    let (mut indices, mut numbers) = (Vec::new(), Vec::new());
    for r in random {
        let Actions { index, real } = r.draw();
        indices.extend(index.data());
        numbers.extend(real.data());
    }
    let n = envs.len();
    let (index, real) =
        (Cols::new(&indices, indices.len() / n, n), Cols::new(&numbers, numbers.len() / n, n));
    envs.step(Actions { index, real }).unwrap();
}

#[test]
fn a_copy_has_the_same_bits_alone_and_in_a_batch() {
    for e in own() {
        let together = trace(e, 0, 7, 300);
        for (b, bits) in together.iter().enumerate() {
            assert!(trace(e, b, 1, 300)[0] == *bits, "{}: copy {b} of 7", e.id);
        }
        assert!((0..7).all(|b| (0..b).all(|a| together[a] != together[b])), "{}: copies are equal", e.id);
    }
}

#[test]
fn a_saved_shard_continues_exactly() {
    for e in own() {
        let mut original = VecEnv::new(e.make(5).unwrap(), 3, 0);
        original.start().unwrap();
        let mut random = RandomActions::new(&original.spec().action, 5, 3, 0);
        for _ in 0..137 {
            original.step(random.draw()).unwrap();
        }
        original.clear_finished();
        let saved = original.save();
        let mut restored = VecEnv::new(e.make(5).unwrap(), 3, 0);
        assert_eq!(restored.load(&saved), Ok(true), "{}", e.id);
        assert_eq!(restored.obs().data(), original.obs().data(), "{}", e.id);
        for _ in 0..600 {
            let actions = random.draw();
            original.step(actions).unwrap();
            restored.step(actions).unwrap();
            assert_eq!(restored.obs().data(), original.obs().data(), "{}", e.id);
            assert_eq!(restored.rewards(), original.rewards(), "{}", e.id);
        }
        assert_eq!(restored.finished(), original.finished(), "{}", e.id);
        assert_eq!(restored.save(), original.save(), "{}", e.id);
    }
}

#[test]
fn impossible_states_are_refused() {
    for e in own() {
        let mut env = e.make(2).unwrap();
        let state = env.save(1).unwrap();
        assert!(env.load(1, &state), "{}", e.id);
        assert!(!env.load(1, &state[1..]) && !env.load(1, &[]), "{}: too short", e.id);
        assert!(!env.load(1, &[&state[..], &[0.0]].concat()), "{}: too long", e.id);
        for i in 0..state.len() {
            for bad in [f64::NAN, f64::INFINITY] {
                let mut changed = state.clone();
                changed[i] = bad;
                assert!(!env.load(1, &changed), "{}: number {i} is {bad}", e.id);
            }
        }
        assert_eq!(env.save(1).unwrap(), state, "{}: a refused state was loaded", e.id);
    }
}

#[test]
fn first_states_are_spread_over_their_range() {
    /// A number of the observation, and its lowest and highest value in the first state.
    type Range = (usize, f32, f32);
    let ranges: [(&str, &[Range]); 6] = [
        ("CartPole-v1", &[(0, -0.05, 0.05), (1, -0.05, 0.05), (2, -0.05, 0.05), (3, -0.05, 0.05)]),
        (
            "Acrobot-v1",
            &[(1, -0.099_833_4, 0.099_833_4), (3, -0.099_833_4, 0.099_833_4), (4, -0.1, 0.1), (5, -0.1, 0.1)],
        ),
        ("MountainCar-v0", &[(0, -0.6, -0.4)]),
        ("MountainCarContinuous-v0", &[(0, -0.6, -0.4)]),
        ("BartoCartPole-v0", &[(0, -0.05, 0.05), (1, -0.05, 0.05), (2, -0.05, 0.05), (3, -0.05, 0.05)]),
        ("Pendulum-v1", &[(0, -1.0, 1.0), (1, -1.0, 1.0), (2, -1.0, 1.0)]),
    ];
    let n = 4000;
    for (id, rows) in ranges {
        let mut envs = VecEnv::new(pgrad_envs::make(id, n).unwrap(), 11, 0);
        envs.start().unwrap();
        for (i, low, high) in rows {
            let row = envs.obs().row(*i);
            let (min, max) = row.iter().fold((f32::MAX, f32::MIN), |(a, b), x| (a.min(*x), b.max(*x)));
            let width = high - low;
            assert!(min >= *low && min < low + 0.01 * width, "{id}, number {i}: least {min}");
            assert!(max <= *high && max > high - 0.01 * width, "{id}, number {i}: greatest {max}");
            let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / n as f64;
            let middle = f64::from(0.5 * (low + high));
            // Four standard errors; the cosine of a uniform angle has the widest spread, 0.71 of 2.
            let error = 4.0 * 0.36 * f64::from(width) / (n as f64).sqrt();
            assert!((mean - middle).abs() < error, "{id}, number {i}: mean {mean}");
        }
    }
    for id in ["MountainCar-v0", "MountainCarContinuous-v0"] {
        let mut envs = VecEnv::new(pgrad_envs::make(id, 9).unwrap(), 11, 0);
        envs.start().unwrap();
        assert_eq!(envs.obs().row(1), [0.0; 9], "{id} starts at rest");
    }
}

#[test]
fn stepping_allocates_nothing() {
    for e in own() {
        let mut envs = VecEnv::new(e.make(64).unwrap(), 1, 0);
        envs.start().unwrap();
        // Long enough that every episode has ended once; without a limit the longest has 2501 steps
        // (Freeway).
        let steps = envs.spec().max_episode_steps.map_or(2600, |limit| limit.max(1000) + 100);
        envs.reserve_episodes(64 * steps as usize);
        let mut random = RandomActions::new(&envs.spec().action, 64, 1, 0);
        assert_allocates_nothing(|| {
            for _ in 0..steps {
                envs.step(random.draw()).unwrap();
            }
        });
        assert!(envs.finished().len() >= 64, "{}", e.id);
    }
}

#[test]
fn observe_one_is_a_column_of_observe() {
    for e in own() {
        let mut envs = VecEnv::new(e.make(3).unwrap(), 2, 0);
        envs.start().unwrap();
        let dim = envs.spec().observation.obs_dim();
        let state = envs.save();
        let lengths = state.u64s("lengths", 3).unwrap();
        let states = state.f64s("states", lengths.iter().sum::<u64>() as usize).unwrap();
        let mut env = e.make(3).unwrap();
        for b in 0..3 {
            let n = lengths[b] as usize;
            assert!(env.load(b, &states[b * n..(b + 1) * n]));
        }
        let (mut all, mut one) = (vec![f32::NAN; 3 * dim], vec![f32::NAN; dim]);
        env.observe(ColsMut::new(&mut all, dim, 3));
        assert_eq!(all, envs.obs().data(), "{}", e.id);
        for b in 0..3 {
            env.observe_one(b, &mut one);
            assert!((0..dim).all(|i| one[i] == all[i * 3 + b]), "{}", e.id);
        }
    }
}
