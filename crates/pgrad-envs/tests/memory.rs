//! The tasks that need a memory: velocities are hidden and nothing else is changed; the T-maze is the
//! paper's.

#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

use pgrad_env::{Actions, End, RandomActions, VecEnv};
use pgrad_envs::make;
use pgrad_num::Cols;

#[test]
fn a_task_without_velocities_is_the_task_with_zeros_in_their_place() {
    for (id, plain, hidden) in [
        ("CartPoleNoVel-v1", "CartPole-v1", &[1, 3][..]),
        ("PendulumNoVel-v1", "Pendulum-v1", &[2]),
        ("MountainCarContinuousNoVel-v0", "MountainCarContinuous-v0", &[1]),
    ] {
        let [mut a, mut b] = [id, plain].map(|id| VecEnv::new(make(id, 3).unwrap(), 7, 0));
        let (spec, other) = (a.spec().clone(), b.spec().clone());
        assert_eq!(
            (spec.id.as_str(), &spec.action, &spec.observation),
            (id, &other.action, &other.observation)
        );
        assert_eq!(
            (spec.max_episode_steps, spec.reward_threshold),
            (other.max_episode_steps, other.reward_threshold)
        );
        let mut random = RandomActions::new(&spec.action, 3, 1, 0);
        a.start().unwrap();
        b.start().unwrap();
        let (mut moved, mut ended) = (false, false);
        for _ in 0..1200 {
            let actions = random.draw();
            a.step(actions).unwrap();
            b.step(actions).unwrap();
            assert_eq!((a.rewards(), a.ends()), (b.rewards(), b.ends()));
            ended |= a.ends().iter().any(|e| *e != End::Running);
            for (own, all) in [(a.obs(), b.obs()), (a.final_obs(), b.final_obs())] {
                for r in 0..own.rows() {
                    if hidden.contains(&r) {
                        assert_eq!(own.row(r), [0.0; 3]);
                        moved |= all.row(r).iter().any(|x| *x != 0.0);
                    } else {
                        assert_eq!(own.row(r), all.row(r), "{id}, number {r}");
                    }
                }
            }
        }
        assert!(moved && ended, "{id}");
        // What is hidden is saved all the same.
        let mut again = VecEnv::new(make(id, 3).unwrap(), 7, 0);
        assert!(again.load(&a.save()).unwrap());
        for _ in 0..50 {
            let actions = random.draw();
            a.step(actions).unwrap();
            again.step(actions).unwrap();
            assert_eq!((a.obs().data(), a.rewards()), (again.obs().data(), again.rewards()));
        }
    }
}

const NORTH: u32 = 0;
const EAST: u32 = 1;
const WEST: u32 = 2;
const SOUTH: u32 = 3;

/// Plays one episode with `policy(step, observation, sign)`; returns its return and length.
fn play(envs: &mut VecEnv, policy: impl Fn(usize, [f32; 3], [f32; 3]) -> u32) -> (f64, u32) {
    envs.restart().unwrap();
    envs.clear_finished();
    let see = |envs: &VecEnv| [0, 1, 2].map(|i| envs.obs().at(i, 0));
    let sign = see(envs);
    for t in 0.. {
        let action = [policy(t, see(envs), sign)];
        envs.step(Actions::index(Cols::new(&action, 1, 1))).unwrap();
        if let Some(e) = envs.finished().first() {
            return (e.episode_return, e.length);
        }
    }
    unreachable!()
}

#[test]
fn the_t_maze_pays_who_remembers_the_sign() {
    for (id, length) in [("TMaze10-v0", 10), ("TMaze50-v0", 50), ("TMaze100-v0", 100)] {
        let mut envs = VecEnv::new(make(id, 1).unwrap(), 5, 0);
        envs.start().unwrap();
        let junction = [0.0, 1.0, 0.0];
        let (north, south) = ([0.0, 1.0, 1.0], [1.0, 1.0, 0.0]);
        let turn = |sign| if sign == north { NORTH } else { SOUTH };
        for _ in 0..40 {
            let found = play(&mut envs, |t, seen, sign| {
                let place = t.min(length);
                let expected = match place {
                    0 => sign,
                    p if p == length => junction,
                    _ => [1.0, 0.0, 1.0],
                };
                assert!(sign == north || sign == south);
                assert_eq!(seen, expected, "{id}, step {t}");
                if seen == junction { turn(sign) } else { EAST }
            });
            assert_eq!(found, (4.0, length as u32 + 1));
            let wrong = play(
                &mut envs,
                |_, seen, sign| {
                    if seen == junction { NORTH + SOUTH - turn(sign) } else { EAST }
                },
            );
            assert!((wrong.0 + 0.1).abs() < 1e-12 && wrong.1 == length as u32 + 1);
        }
        let mut signs = [0, 0];
        let always: Vec<f64> = (0..400)
            .map(|_| play(&mut envs, |_, seen, _| if seen == junction { NORTH } else { EAST }).0)
            .collect();
        for r in &always {
            signs[usize::from(*r > 0.0)] += 1;
        }
        // Equal chances: within four standard deviations of 200.
        assert!(signs.iter().all(|n| (160..=240).contains(n)), "{signs:?}");
    }
}

#[test]
fn walls_of_the_t_maze_hurt_and_its_time_runs_out() {
    let mut envs = VecEnv::new(make("TMaze10-v0", 1).unwrap(), 5, 0);
    envs.start().unwrap();
    for action in [NORTH, SOUTH, WEST] {
        let (total, length) = play(&mut envs, |_, _, _| action);
        assert_eq!(length, 200);
        assert!((total + 20.0).abs() < 1e-9, "{action}: {total}");
        assert_eq!(envs.ends(), [End::Truncated]);
    }
    // East at the junction is a wall too, and the way back is free.
    let (total, length) = play(&mut envs, |t, _, _| if t < 11 { EAST } else { [EAST, WEST][t % 2] });
    assert_eq!(length, 200);
    assert!((total + 0.1).abs() < 1e-9, "{total}");
}
