//! Environments of EnvPool: what EnvPool alone does, step for step; and a pool that goes wrong.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

#[expect(dead_code, reason = "what other tests use")]
mod common;

use common::{Seen, Trace, pool_seeds, python, run, settings};
use pgrad_env::{Actions, BoxSpace, End, EnvError, MakeErrorKind, ObsSpace, RandomActions, Space, VecEnv};
use pgrad_gym::{Gym, GymSettings, News, OnEnvError, OnOutOfBounds};
use pgrad_testkit::python_with;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// Plays actions in pools of one environment, with nothing but EnvPool's public interface. Each line in: the
/// seeds of two, which take turns, and the actions. Each line out: what was seen before and after every step.
const ALONE: &str = r#"
import json, sys, warnings
warnings.simplefilter("ignore")
import envpool, numpy as np
def flat(x):
    return [float(v) for k in x for v in flat(x[k])] if isinstance(x, dict) else np.ravel(x).tolist()
def text(xs):
    # Numbers as text: a parser of JSON need not read the last bit.
    return [repr(x) for x in xs]
name, kwargs = sys.argv[1], json.loads(sys.argv[2])
for line in sys.stdin:
    seeds, actions = json.loads(line)
    pools = [envpool.make(name, env_type="gymnasium", num_envs=1, seed=s, **kwargs) for s in seeds]
    kind = pools[0].action_space.dtype
    now = [flat(pool.reset()[0]) for pool in pools]
    turn, out = 0, []
    for a in actions:
        a = np.array([a if len(a) > 1 or kind.kind == "f" else a[0]], kind)
        obs, reward, terminated, truncated, info = pools[turn].step(a)
        over = bool(terminated[0] or truncated[0])
        out.append([text(now[turn]), repr(float(reward[0])), bool(terminated[0]), bool(truncated[0]), text(flat(obs))])
        now[turn] = flat(obs)
        if over:
            obs, _, _, _, info = pools[turn].step(a)
            assert info["elapsed_step"][0] == 0 or "episodic_life" in kwargs
            now[turn] = flat(obs)
            turn = 1 - turn
    print(json.dumps(out))
"#;

/// The actions that [`run`] draws, for each environment.
fn actions(space: &Space, n: usize, steps: usize, seed: u64) -> Vec<Vec<Vec<f64>>> {
    let mut random = RandomActions::new(space, n, seed, 0);
    let mut all = vec![Vec::new(); n];
    for _ in 0..steps {
        let drawn = random.draw();
        for (b, own) in all.iter_mut().enumerate() {
            let Actions { index, real } = drawn;
            let indices = (0..index.rows()).map(|i| f64::from(index.at(i, b)));
            own.push(indices.chain((0..real.rows()).map(|i| f64::from(real.at(i, b)))).collect());
        }
    }
    all
}

/// What EnvPool alone does.
fn alone(name: &str, kwargs: &Value, lines: &[([u32; 2], Vec<Vec<f64>>)]) -> Vec<Vec<Value>> {
    let mut child = std::process::Command::new(python())
        .args(["-c", ALONE, name, &kwargs.to_string()])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let text: Vec<String> = lines.iter().map(|line| serde_json::to_string(line).unwrap()).collect();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), (text.join("\n") + "\n").as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "it needs a Python with `envpool` (PGRAD_PYTHON)");
    String::from_utf8(out.stdout).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

fn number(value: &Value) -> f64 {
    value.as_str().unwrap().parse().unwrap()
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| number(x) as f32).collect()
}

/// A one-hot vector for an observation that is a choice.
fn like(space: &ObsSpace, obs: Vec<f32>) -> Vec<f32> {
    match space.single() {
        Some(Space::Discrete { n }) => (0..*n).map(|i| if obs[0] == i as f32 { 1.0 } else { 0.0 }).collect(),
        _ => obs,
    }
}

fn compare(trace: &Trace, space: &ObsSpace, expected: &[Vec<Value>]) -> [usize; 2] {
    let mut ended = [0, 0];
    for (b, (seen, expected)) in trace.iter().zip(expected).enumerate() {
        assert_eq!(seen.len(), expected.len());
        let (mut episode, mut step) = (0, 0);
        for (t, (seen, alone)) in seen.iter().zip(expected).enumerate() {
            let end = match (alone[2] == json!(true), alone[3] == json!(true)) {
                (false, false) => End::Running,
                (true, false) => End::Terminated,
                (false, true) => End::Truncated,
                both => panic!("{both:?}"),
            };
            let last = like(space, floats(&alone[4]));
            let expected = Seen {
                obs: like(space, floats(&alone[0])),
                reward: number(&alone[1]),
                end,
                last: (end != End::Running).then_some(last),
                place: (episode, step),
            };
            assert_eq!(*seen, expected, "environment {b}, step {t}");
            step += 1;
            if end != End::Running {
                ended[usize::from(end == End::Truncated)] += 1;
                (episode, step) = (episode + 1, 0);
            }
        }
    }
    ended
}

#[test]
fn every_step_is_that_of_envpool_alone() {
    // Discrete actions, both endings; real ones of 64 bits, all cut at once; a choice as observation; named
    // parts.
    for (name, kwargs, steps) in [
        ("CartPole-v1", json!({"max_episode_steps": 17}), 150),
        ("CartPole-v1", json!({"max_episode_steps": 1}), 9),
        ("HalfCheetah-v4", json!({"max_episode_steps": 9}), 40),
        ("FrozenLake-v1", json!({}), 80),
        ("CheetahRun-v1", json!({"max_episode_steps": 11}), 30),
        // An episode ends with a life, and the game goes on.
        ("Breakout-v5", json!({"episodic_life": true, "img_height": 4, "img_width": 4, "stack_num": 1}), 150),
    ] {
        let n = 5;
        let own = GymSettings { env_start_secs: 60.0, env_threads: 2, ..settings(&kwargs) };
        let gym = Gym::open(&format!("envpool:{name}"), &own).unwrap();
        let (trace, env) = run(&gym, n, steps, 3).unwrap();
        let lines: Vec<_> = actions(&gym.spec().action, n, steps, 3)
            .into_iter()
            .enumerate()
            .map(|(b, a)| (pool_seeds(3, b), a))
            .collect();
        let [terminated, truncated] = compare(&trace, &gym.spec().observation, &alone(name, &kwargs, &lines));
        assert!(truncated > 0 || kwargs["max_episode_steps"].is_null(), "{name}");
        assert!(
            terminated > n
                || !kwargs["max_episode_steps"].is_null() && kwargs["max_episode_steps"] != json!(17),
            "{name}"
        );
        assert_eq!(env.finished().len(), terminated + truncated, "{name}");
        assert_eq!(gym.news().notices, Vec::<String>::new(), "{name}");
    }
}

/// The space of its mask says int8, and the array is of bool.
#[test]
fn an_array_is_believed_over_its_space() {
    let gym = Gym::open("envpool:Snake-v1", &settings(&json!({}))).unwrap();
    let (trace, _) = run(&gym, 2, 40, 3).unwrap();
    let masks = trace.iter().flatten().map(|seen| &seen.obs[seen.obs.len() - 4..]);
    let allowed: Vec<f32> = masks.flatten().copied().collect();
    assert!(allowed.iter().all(|x| *x == 0.0 || *x == 1.0) && allowed.contains(&1.0));
}

/// Neither the threads nor the other environments matter, and `restart` begins an episode.
#[test]
fn environments_do_not_depend_on_each_other() {
    let with = |n: usize, threads: usize| {
        let own = GymSettings { env_threads: threads, ..settings(&json!({})) };
        let gym = Gym::open("envpool:CartPole-v1", &own).unwrap();
        let mut env = VecEnv::new(gym.make(n), 5, 0);
        env.start().unwrap();
        let mut seen = Vec::new();
        for t in 0..120 {
            let right = vec![u32::from(t % 3 == 0); n];
            env.step(Actions::index(pgrad_num::Cols::new(&right, 1, n))).unwrap();
            if t == 20 || t == 21 || t > 80 && t % 6 == 5 {
                env.restart().unwrap();
                assert_eq!(env.position(0).1, 0);
            }
            // It goes on from where the episode begins, at rest but for a twentieth; the pole would be far
            // away.
            let begins = env.position(1).1 <= 1;
            assert!(!begins || (0..3).step_by(2).all(|i| env.obs().at(i, 1).abs() < 0.06), "{t}");
            let obs: Vec<f32> = (0..4).map(|i| env.obs().at(i, 1)).collect();
            seen.push((obs, env.ends()[1], env.position(1)));
        }
        seen
    };
    let (two, seven) = (with(2, 1), with(7, 2));
    assert!(two.iter().filter(|s| s.1 == End::Terminated).count() > 3);
    assert_eq!(two, seven);
}

/// A Python that takes the module `envpool` from a folder of the tests.
fn with_module(dir: &Path, folder: &str) -> String {
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    python_with(dir, "PYTHONPATH", &modules.display().to_string()).unwrap()
}

fn fake(dir: &Path, kwargs: &Value) -> GymSettings {
    GymSettings { python: with_module(dir, "fake_envpool"), ..settings(kwargs) }
}

fn metric(news: &News, name: &str) -> f64 {
    news.metrics.iter().find(|(n, _)| *n == name).unwrap().1
}

/// The cores that each task of the processes with a mark in their environment may run on.
fn allowed(mark: &str) -> Vec<String> {
    let line = |status: &str, key: &str| -> Option<String> {
        status.lines().find_map(|l| l.strip_prefix(key)).map(|v| v.trim().to_owned())
    };
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").unwrap().flatten().map(|p| p.path()) {
        let text = |name: &str| fs::read(process.join(name)).unwrap_or_default();
        let ours =
            line(&String::from_utf8_lossy(&text("status")), "PPid:") == Some(std::process::id().to_string());
        if ours && String::from_utf8_lossy(&text("environ")).contains(mark) {
            let tasks = fs::read_dir(process.join("task")).unwrap().flatten();
            let status = tasks.filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
            found.extend(status.filter_map(|s| line(&s, "Cpus_allowed_list:")));
        }
    }
    found
}

/// A pool of one thread stays on a core, with all its tasks; one of more threads may be anywhere.
#[test]
fn a_pool_of_one_thread_stays_near() {
    let dir = tempfile::tempdir().unwrap();
    let everywhere = fs::read_to_string("/proc/self/status").unwrap();
    let everywhere = everywhere.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
    for threads in [1, 2] {
        let mark = format!("PGRAD_TEST_POOL={threads}");
        let python = python_with(dir.path(), "PGRAD_TEST_POOL", &threads.to_string()).unwrap();
        let own = GymSettings { python, env_threads: threads, ..settings(&json!({})) };
        let gym = Gym::open("envpool:CartPole-v1", &own).unwrap();
        let (_, env) = run(&gym, 4, 200, 1).unwrap();
        let cores = allowed(&mark);
        assert!(cores.len() > threads, "its own thread and those of the pool: {cores:?}");
        if threads == 1 {
            assert!(cores.iter().all(|c| c.parse::<usize>().is_ok() && *c == cores[0]), "{cores:?}");
        } else {
            assert!(cores.iter().all(|c| c == everywhere), "{cores:?}");
        }
        drop(env);
    }
}

#[test]
fn what_a_pool_returns_is_checked() {
    let dir = tempfile::tempdir().unwrap();
    let clean =
        run(&Gym::open("envpool:Fake-v1", &fake(dir.path(), &json!({}))).unwrap(), 4, 20, 1).unwrap().0;
    for (how, said) in [
        ("order", "EnvPool answered for ["),
        ("began", "after 4 steps and 0 beginnings EnvPool's steps are of the types [0, "),
        (
            "dtype",
            "the observation of all is ndarray of shape (4, 3) and dtype float64, and should be of shape (4, 3) and",
        ),
        ("shape", "shape (4, 2) and dtype float32, and should be of shape (4, 3)"),
        ("short", "shape (3, 3) and dtype float32, and should be of shape (4, 3)"),
        ("no-reward", "the column `reward` is ndarray of shape (4,) and dtype int32"),
        ("rewards", "the column `reward` is ndarray of shape (3,)"),
        ("nan", "component 2 of the observation is NaN"),
        ("reward", "the reward is inf"),
    ] {
        let gym = Gym::open("envpool:Fake-v1", &fake(dir.path(), &json!({"fault": [2, how]}))).unwrap();
        let error = run(&gym, 4, 20, 1).map(drop).unwrap_err().to_string();
        assert!(error.contains(said) && error.contains("episode 0, step 2: "), "{how}: {error}");
    }
    let bounds = fake(dir.path(), &json!({"fault": [2, "bounds"]}));
    let gym = Gym::open("envpool:Fake-v1", &bounds).unwrap();
    assert_eq!(run(&gym, 4, 20, 1).unwrap().0[0], clean[0]);
    assert_eq!(metric(&gym.news(), "env/out_of_bounds"), 1.0);
    let strict = GymSettings { on_out_of_bounds: OnOutOfBounds::Stop, ..bounds };
    let error = run(&Gym::open("envpool:Fake-v1", &strict).unwrap(), 4, 20, 1).map(drop).unwrap_err();
    assert!(error.to_string().contains("environment 1 (`envpool:Fake-v1`)"), "{error}");
}

#[test]
fn a_pool_whose_process_ends_is_replaced_with_all_its_environments() {
    let dir = tempfile::tempdir().unwrap();
    let (n, steps) = (4, 20);
    let clean =
        run(&Gym::open("envpool:Fake-v1", &fake(dir.path(), &json!({}))).unwrap(), n, steps, 1).unwrap().0;
    for (how, said) in [
        ("raise", "RuntimeError: as planned"),
        ("exit", "exited with code 3"),
        ("hang", "did not answer within 1s"),
    ] {
        let own = fake(dir.path(), &json!({"fault": [6, how]}));
        let gym = Gym::open("envpool:Fake-v1", &own).unwrap();
        let (trace, env) = run(&gym, n, steps, 1).unwrap();
        let news = gym.news();
        let text = news.notices.join("\n");
        assert!(text.contains(said) && text.contains(") of environments 0 to 3 "), "{how}: {text}");
        // Each pool goes wrong in its sixth call that steps: thrice in 20 steps.
        let restarts = 3.0;
        assert_eq!(metric(&news, "env/restarts"), restarts, "{how}: {text}");
        let mut fresh = std::collections::BTreeSet::new();
        for b in 0..n {
            assert_eq!(trace[b][..5], clean[b][..5], "{how}");
            let lost: Vec<usize> = (0..steps).filter(|t| trace[b][*t].end == End::Lost).collect();
            assert_eq!(lost, [5, 11, 17], "{how}");
            // Every pool has other seeds: what an environment shows first.
            fresh.extend([0, 6, 12, 18].map(|t| trace[b][t].obs[0] as u32));
            assert!(
                [6, 12, 18].iter().all(|t| trace[b][*t].obs[2] == 0.0 && trace[b][*t].place.1 == 0),
                "{how}"
            );
        }
        assert!(fresh.len() >= 4 * n - 1, "{how}: {fresh:?}");
        assert_eq!(env.lost_episodes() as usize, 3 * n, "{how}");
        assert_eq!(metric(&news, "env/lost_episodes") as usize, 3 * n, "{how}");
        let ended =
            trace.iter().flatten().filter(|s| matches!(s.end, End::Terminated | End::Truncated)).count();
        assert_eq!(env.finished().len(), ended, "{how}");
    }
    let own = |on_env_error, env_restarts| GymSettings {
        on_env_error,
        env_restarts,
        ..fake(dir.path(), &json!({"fault": [6, "exit"]}))
    };
    let stopped = |own: &GymSettings| match run(&Gym::open("envpool:Fake-v1", own).unwrap(), n, steps, 1) {
        Err(EnvError::Failed { reason, .. }) => reason.to_string(),
        other => panic!("{:?}", other.map(|_| ())),
    };
    assert!(stopped(&own(OnEnvError::Stop, 20)).contains("exited with code 3"));
    assert!(stopped(&own(OnEnvError::Restart, 2)).contains("env_restarts = 2 of the run are used up"));
    // One goes with each process; the others go on.
    let gym = Gym::open("envpool:Fake-v1", &own(OnEnvError::Drop, 20)).unwrap();
    let (trace, env) = run(&gym, n, 14, 1).unwrap();
    assert_eq!((0..n).map(|b| env.is_dropped(b)).collect::<Vec<_>>(), [true, true, false, false]);
    assert!(trace[2][12..].iter().all(|s| s.end != End::Lost));
}

#[test]
fn what_cannot_be_made_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let fails = |id: &str, settings: GymSettings| Gym::open(id, &settings).map(drop).unwrap_err();
    let usual = || settings(&json!({}));
    let e = fails("envpool:CartPole-v9", usual());
    assert!(
        e.kind == MakeErrorKind::Usage
            && e.message.contains("no task `CartPole-v9`; did you mean `CartPole-v"),
        "{e}"
    );
    let e = fails(
        "envpool:CartPole-v1",
        GymSettings { python: with_module(dir.path(), "no_envpool"), ..usual() },
    );
    assert!(e.kind == MakeErrorKind::Usage && e.message.contains("has no module `envpool`"), "{e}");
    assert!(e.hint.unwrap().contains("-m pip install envpool"));
    let e = fails("envpool:CartPole-v1", settings(&json!({"num_threads": 3})));
    assert!(e.kind == MakeErrorKind::Usage && e.message.contains("`num_threads`, which pgrad sets"), "{e}");
    let e = fails("envpool:CartPole-v1", settings(&json!({"no_such": 3})));
    assert!(e.kind == MakeErrorKind::Usage && e.message.contains("no_such"), "{e}");
    let e = fails("envpool:Fake-v1", fake(dir.path(), &json!({"players": 2})));
    assert!(e.kind == MakeErrorKind::Data && e.message.contains("several players"), "{e}");
    for name in ["envpool:", "envpool:a b", "envpool:m:CartPole-v1"] {
        assert_eq!(fails(name, usual()).kind, MakeErrorKind::Usage, "{name}");
    }
    // EnvPool says the smallest positive number where it means no bound.
    let gym = Gym::open("envpool:LunarLander-v3", &usual()).unwrap();
    assert_eq!(gym.spec().observation, BoxSpace::unbounded(8).into());
    assert_eq!(gym.own_limit(), Some(1000));
}
