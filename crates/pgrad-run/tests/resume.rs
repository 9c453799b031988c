//! A run that is stopped or killed and resumed ends with the same bits as one that never was.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

mod driver_common;

use driver_common::{METHODS, Runner, config, custom, result};
use pgrad_env::{Action, BoxSpace, Each, End, Env, EnvSpec, Obs, Space, Step};
use pgrad_num::Stream;
use pgrad_run::config::RunConfig;
use pgrad_run::driver::RunError;
use pgrad_run::env::EnvMaker;
use pgrad_run::run_dir::RunDirError;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tempfile::tempdir;

const CONTINUOUS: &[&str] = &[
    "normalize_obs=true",
    "normalize_reward=true",
    "learning_rate_schedule=linear",
    "clip_schedule=linear",
    "log_every=2",
];

/// Stops after every `k` iterations until the run is done; returns how often.
fn in_pieces(dir: &Path, config: RunConfig, k: u64, threads: impl Fn(usize) -> usize) -> usize {
    let mut runner = Runner { threads: threads(0), stop_after: Some(k), ..Runner::default() };
    let mut summary = runner.train(dir, config).unwrap();
    let mut stops = 0;
    while summary.stopped {
        stops += 1;
        let mut runner = Runner { threads: threads(stops), stop_after: Some(k), ..Runner::default() };
        summary = runner.resume(dir).unwrap();
        assert_eq!(runner.notices, Vec::<String>::new(), "nothing to say of an exact continuation");
    }
    stops
}

#[test]
fn stopping_and_resuming_changes_nothing() {
    for m in METHODS {
        m.each_variant(|name, env, pairs| {
            let config = || m.config(env, &[&["steps=1100"], pairs].concat());
            let dir = tempdir().unwrap();
            let whole = dir.path().join("whole");
            let iterations = Runner::default().train(&whole, config()).unwrap().progress.iterations;
            assert!(iterations >= 6, "{name}: {iterations} iterations");
            for k in [1, 5] {
                let pieces = dir.path().join(format!("pieces-of-{k}"));
                let stops = in_pieces(&pieces, config(), k, |i| 1 + i % 2);
                assert_eq!(stops as u64, (iterations - 1) / k, "{name}");
                assert!(result(&pieces) == result(&whole), "{name}: stopped after every {k} iterations");
            }
        });
    }
}

#[test]
fn a_finished_run_is_resumed_to_nothing() {
    let dir = tempdir().unwrap();
    let run = dir.path().join("run");
    Runner::default().train(&run, config("CartPole-v1", &["steps=200"])).unwrap();
    let before = result(&run);
    let mut runner = Runner::default();
    let summary = runner.resume(&run).unwrap();
    assert!(!summary.stopped && runner.progress.is_empty());
    assert_eq!(summary.progress.steps, 288);
    assert!(result(&run) == before);
}

#[test]
fn checkpoints_on_the_way_do_not_change_the_run() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let pairs = |extra: &'static str| [CONTINUOUS, &["steps=1000", extra]].concat();
    Runner::default().train(&at("few"), config("Pendulum-v1", &pairs("checkpoint_steps=0"))).unwrap();
    Runner::default().train(&at("many"), config("Pendulum-v1", &pairs("checkpoint_steps=1"))).unwrap();
    assert!(result(&at("few")) == result(&at("many")));
    let kept = |name: &str| std::fs::read_dir(at(name).join("checkpoints")).unwrap().count();
    assert_eq!((kept("few"), kept("many")), (1, 2));
}

// ---- kill -9 ----

const DIR_VARIABLE: &str = "PGRAD_TEST_RUN_DIR";
const KILLED: &[&str] = &["steps=20000", "checkpoint_steps=200"];

/// Names the task.
const ENV_VARIABLE: &str = "PGRAD_TEST_ENV";

fn killed_config(env: &str) -> RunConfig {
    config(env, &[CONTINUOUS, KILLED].concat())
}

/// Trains or resumes as a command would: the process that the next test kills.
#[test]
#[ignore = "started by `kill_and_resume` as a process of its own"]
fn process_to_kill() {
    let dir = PathBuf::from(std::env::var(DIR_VARIABLE).unwrap());
    let mut runner = Runner { threads: 2, ..Runner::default() };
    match runner.resume(&dir) {
        Ok(_) => {}
        // Killed before its configuration was written: there is no run yet.
        Err(RunError::RunDir(RunDirError::NotARun { .. })) => {
            if dir.exists() {
                std::fs::remove_dir_all(&dir).unwrap();
            }
            runner.train(&dir, killed_config(&std::env::var(ENV_VARIABLE).unwrap())).unwrap();
        }
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn killed_at_any_moment_and_resumed() {
    kill_and_resume("Pendulum-v1", 20);
}

/// The reward of Reacher-v4 looks back on what MuJoCo derived in the step before.
#[cfg(feature = "mujoco")]
#[test]
fn killed_in_mujoco_and_resumed() {
    kill_and_resume("Reacher-v4", 10);
}

fn kill_and_resume(env: &str, enough: usize) {
    let dir = tempdir().unwrap();
    let (whole, killed) = (dir.path().join("whole"), dir.path().join("killed"));
    let said = dir.path().join("stderr");
    Runner::default().train(&whole, killed_config(env)).unwrap();
    let expected = result(&whole);
    let mut rng = Stream::new(std::process::id().into(), 0, 0);
    let (mut kills, mut tries, mut runs) = (0, 0, 0);
    while kills < enough {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "process_to_kill", "--quiet"])
            .env(DIR_VARIABLE, &killed)
            .env(ENV_VARIABLE, env)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&said).unwrap())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_micros(rng.below(60_000).into()));
        match child.try_wait().unwrap() {
            None => {
                child.kill().unwrap();
                child.wait().unwrap();
                // Those that came too early for anything to be there are not counted.
                let checkpoints = std::fs::read_dir(killed.join("checkpoints"));
                kills += usize::from(checkpoints.is_ok_and(|mut found| found.next().is_some()));
                tries += 1;
            }
            Some(status) => {
                let said = std::fs::read_to_string(&said).unwrap();
                assert!(status.success(), "after {kills} kills: {status}: {said}");
                assert!(result(&killed) == expected, "after {kills} kills");
                std::fs::remove_dir_all(&killed).unwrap();
                runs += 1;
            }
        }
        // The last one is not killed any more.
        if kills == enough {
            Runner::default().resume(&killed).unwrap();
            assert!(result(&killed) == expected, "after {kills} kills and {runs} runs to the end");
        }
        assert!(tries < 1000, "only {kills} of {tries} kills hit a run");
    }
}

/// What a kill leaves between the last checkpoint and the policy beside it: that of the checkpoint before.
#[test]
fn killed_behind_the_last_checkpoint() {
    let dir = tempdir().unwrap();
    let (whole, part) = (dir.path().join("whole"), dir.path().join("part"));
    let config = || config("CartPole-v1", &["steps=300"]);
    Runner::default().train(&whole, config()).unwrap();
    let expected = result(&whole);
    Runner { stop_after: Some(1), ..Runner::default() }.train(&part, config()).unwrap();
    std::fs::copy(part.join("policy.safetensors"), whole.join("policy.safetensors")).unwrap();
    assert!(result(&whole) != expected, "an older policy");
    Runner::default().resume(&whole).unwrap();
    assert!(result(&whole) == expected);
}

/// What a kill leaves between the first files of a run and its first checkpoint.
#[test]
fn killed_before_the_first_checkpoint() {
    let dir = tempdir().unwrap();
    let whole = dir.path().join("whole");
    let config = || config("CartPole-v1", &["steps=300"]);
    Runner::default().train(&whole, config()).unwrap();
    for left in [&["config.toml"][..], &["config.toml", "run.lock", "metrics.jsonl"]] {
        let run = dir.path().join(format!("left-{}", left.len()));
        std::fs::create_dir(&run).unwrap();
        for name in left {
            std::fs::copy(whole.join(name), run.join(name)).unwrap();
        }
        let summary = Runner::default().resume(&run).unwrap();
        assert_eq!(summary.progress.steps, 384);
        assert!(result(&run) == result(&whole), "{left:?}");
    }
}

// ---- an environment that cannot be saved ----

struct NoSave {
    x: f64,
}

impl Env for NoSave {
    fn spec(&self) -> EnvSpec {
        EnvSpec {
            id: "NoSave".into(),
            observation: BoxSpace::unbounded(1).into(),
            action: Space::Discrete { n: 2 },
            max_episode_steps: Some(50),
            reward_threshold: None,
            masks_actions: false,
        }
    }
    fn reset(&mut self, rng: &mut Stream, obs: &mut Obs<'_>) {
        self.x = rng.uniform_in(-1.0, 1.0);
        obs.write_f64(&[self.x]);
    }
    fn step(&mut self, action: Action<'_>, _: &mut Stream, obs: &mut Obs<'_>) -> Step {
        self.x += 0.1 * (action.index() as f64 - 0.5);
        obs.write_f64(&[self.x]);
        Step { reward: -self.x.abs(), end: End::Running }
    }
}

#[test]
fn environments_that_cannot_be_saved_start_anew_and_the_run_says_so() {
    let make: EnvMaker = Arc::new(Each::maker(|| NoSave { x: 0.0 }));
    let dir = tempdir().unwrap();
    let run = dir.path().join("run");
    let config = custom("NoSave", Arc::clone(&make), &["steps=960"]);
    let mut first = Runner { stop_after: Some(3), ..Runner::default() };
    assert!(first.train(&run, config).unwrap().stopped);
    let mut second = Runner::default();
    let summary = second.resume_with(&run, Arc::clone(&make)).unwrap();
    assert_eq!((summary.stopped, summary.progress.steps), (false, 960));
    assert_eq!(second.progress[0].steps, 4 * 96, "it goes on where it stopped");
    assert_eq!(second.notices.len(), 1, "{:?}", second.notices);
    assert!(second.notices[0].contains("cannot save their state"), "{:?}", second.notices);
    // The registry does not know it: asking for it by name is an error with a hint.
    let error = Runner::default().resume(&run).unwrap_err();
    assert_eq!(error.exit_code(), 64);
    assert!(error.to_string().contains("NoSave"), "{error}");
}
