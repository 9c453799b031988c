//! The tasks of Degris, White and Sutton (2012) against trajectories computed apart
//! (`goldens/degris/make.py`), and tile-coded tasks against the laws of every task.

#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

use pgrad_env::{Actions, End, VecEnv, check_batch_env};
use pgrad_envs::{ContinuousGridWorld, REGISTRY, find, make};
use pgrad_num::{Cols, ColsMut, Stream};
use std::path::Path;

fn golden(task: &str) -> Vec<Vec<f64>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../goldens/degris/{task}.csv"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines().map(|l| l.split(',').map(|c| c.parse().unwrap()).collect()).collect()
}

#[test]
fn every_step_is_the_definitions() {
    for task in ["DegrisMountainCar-v0", "DegrisPendulum-v0"] {
        let rows = golden(task);
        let n = rows.len();
        assert!(n >= 300);
        let mut env = make(task, n).unwrap();
        for (b, row) in rows.iter().enumerate() {
            assert!(env.load(b, &row[2..4]), "{task}: {row:?}");
        }
        let actions: Vec<u32> = rows.iter().map(|r| r[4] as u32).collect();
        let mut rngs = vec![Stream::new(0, 0, 0); n];
        let (mut rewards, mut ends) = (vec![f64::NAN; n], vec![End::Truncated; n]);
        env.step(Actions::index(Cols::new(&actions, 1, n)), &mut rngs, &mut rewards, &mut ends);
        let mut obs = vec![f32::NAN; 2 * n];
        env.observe(ColsMut::new(&mut obs, 2, n));
        let mut terminated = 0;
        for (b, row) in rows.iter().enumerate() {
            let state = env.save(b).unwrap();
            for i in 0..2 {
                assert!((state[i] - row[5 + i]).abs() < 1e-12, "{task}, row {b}: {state:?}, not {row:?}");
                assert_eq!(obs[i * n + b], state[i] as f32);
            }
            assert!((rewards[b] - row[7]).abs() < 1e-12, "{task}, row {b}: {}", rewards[b]);
            assert_eq!(ends[b] == End::Terminated, row[8] == 1.0, "{task}, row {b}");
            terminated += usize::from(ends[b] == End::Terminated);
        }
        assert_eq!(terminated > 0, task == "DegrisMountainCar-v0");
    }
}

#[test]
fn a_whole_trajectory_is_the_definitions() {
    for task in ["DegrisMountainCar-v0", "DegrisPendulum-v0"] {
        // The first trajectory, from its first state to its last.
        let rows: Vec<Vec<f64>> = golden(task).into_iter().filter(|r| r[0] == 0.0).collect();
        let mut env = make(task, 1).unwrap();
        assert!(env.load(0, &rows[0][2..4]));
        let (mut rng, mut reward, mut end) = ([Stream::new(0, 0, 0)], [0.0], [End::Running]);
        for row in &rows {
            env.step(Actions::index(Cols::new(&[row[4] as u32], 1, 1)), &mut rng, &mut reward, &mut end);
            let state = env.save(0).unwrap();
            let apart = (state[0] - row[5]).abs().max((state[1] - row[6]).abs());
            // What passes the top of the pendulum amplifies rounding.
            assert!(apart < 1e-6, "{task}, step {}: {state:?}, not {row:?}", row[1]);
        }
    }
}

#[test]
fn the_mountain_car_starts_where_it_must_and_is_cut_after_5000_steps() {
    let mut envs = VecEnv::new(make("DegrisMountainCar-v0", 2).unwrap(), 1, 0);
    envs.start().unwrap();
    for _ in 0..4999 {
        assert_eq!(envs.finished().len(), 0);
        envs.step(Actions::index(Cols::new(&[1, 1], 1, 2))).unwrap();
    }
    envs.step(Actions::index(Cols::new(&[1, 1], 1, 2))).unwrap();
    assert_eq!(envs.ends(), [End::Truncated; 2]);
    assert_eq!(envs.finished()[1].episode_return, -5000.0);
    assert_eq!(envs.obs().data(), [-0.5, -0.5, 0.0, 0.0]);
}

#[test]
fn the_reward_of_the_grid_world_is_the_sum_of_three_puddles() {
    for row in golden("ContinuousGridWorld-v0") {
        let [x, y, reward, _] = row[..] else { panic!("four numbers") };
        let got = ContinuousGridWorld::reward(x, y);
        assert!((got - reward).abs() < 1e-12 * reward.abs(), "({x}, {y}): {got}, not {reward}");
    }
}

#[test]
fn the_grid_world_moves_by_its_action_and_a_small_noise() {
    let n = 5 * 4000;
    let mut env = make("ContinuousGridWorld-v0", n).unwrap();
    let actions: Vec<u32> = (0..n as u32).map(|b| b % 5).collect();
    let mut rngs: Vec<Stream> = (0..n as u32).map(|b| Stream::new(3, 0, b)).collect();
    (0..n).for_each(|b| assert!(env.load(b, &[0.5, 0.5])));
    let (mut rewards, mut ends) = (vec![0.0; n], vec![End::Truncated; n]);
    env.step(Actions::index(Cols::new(&actions, 1, n)), &mut rngs, &mut rewards, &mut ends);
    let moves = [[-0.05, 0.0], [0.05, 0.0], [0.0, -0.05], [0.0, 0.05], [0.0, 0.0]];
    let mut sums = [[0.0; 2]; 2];
    for b in 0..n {
        let state = env.save(b).unwrap();
        for i in 0..2 {
            let noise = state[i] - 0.5 - moves[b % 5][i];
            assert!(noise.abs() <= 0.0025 + 1e-12, "action {}: {state:?}", b % 5);
            sums[i][0] += noise / n as f64;
            sums[i][1] += noise * noise / n as f64;
        }
        assert_eq!(rewards[b], ContinuousGridWorld::reward(state[0], state[1]));
        assert_eq!(ends[b], End::Running);
    }
    for [mean, square] in sums {
        // Uniform on ±h: variance h²/3; four standard errors of the mean.
        assert!(mean.abs() < 4.0 * 0.0025 / (3.0 * n as f64).sqrt(), "{mean}");
        assert!((square / (0.0025f64.powi(2) / 3.0) - 1.0).abs() < 0.03, "{square}");
    }
    // Walls hold, and the goal is a triangle in the corner.
    for (start, action, expected, end) in [
        ([0.0, 0.5], 0, [0.0, 0.5], End::Running),
        ([1.0, 0.0], 1, [1.0, 0.0], End::Running),
        ([0.96, 0.92], 3, [0.96, 0.97], End::Terminated),
        ([0.94, 0.90], 3, [0.94, 0.95], End::Running),
    ] {
        let mut env = make("ContinuousGridWorld-v0", 1).unwrap();
        assert!(env.load(0, &start));
        env.step(
            Actions::index(Cols::new(&[action], 1, 1)),
            &mut rngs[..1],
            &mut rewards[..1],
            &mut ends[..1],
        );
        let state = env.save(0).unwrap();
        assert!((0..2).all(|i| (state[i] - expected[i]).abs() <= 0.0025 && (0.0..=1.0).contains(&state[i])));
        assert_eq!(ends[0], end, "{start:?}: {state:?}");
    }
}

#[test]
fn every_tile_coded_task_passes_the_check() {
    let tiled: Vec<_> = REGISTRY.iter().filter_map(|e| find(e.tiled?.id).ok()).collect();
    assert!(tiled.len() >= 5, "{tiled:?}");
    for e in tiled {
        let plain = find(e.id.strip_prefix("tiles:").unwrap()).unwrap();
        assert_eq!(check_batch_env(|n| e.make(n), 1), check_batch_env(|n| plain.make(n), 1), "{}", e.id);
    }
    // 10 tilings of 10 x 10.
    assert_eq!(
        find("tiles:DegrisMountainCar-v0").unwrap().make(1).unwrap().spec().observation.obs_dim(),
        1000
    );
}
