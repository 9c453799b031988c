//! Every setting of a run does what it says: one test a setting, by name, and none may be missing.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

mod driver_common;

use driver_common::{Runner, config, metrics, result};
use pgrad_run::clock::{ManualClock, WallTime};
use pgrad_run::config::{RunConfig, RunSettings};
use pgrad_settings::Settings;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::tempdir;

macro_rules! settings_that_are_tested {
    ($($key:ident => $body:block)*) => {
        $(#[test] fn $key() $body)*
        const TESTED: &[&str] = &[$(stringify!($key)),*];
    };
}

#[test]
fn no_setting_is_without_a_test() {
    let mut tested = TESTED.to_vec();
    // A file of its own: tests/nonfinite.rs.
    tested.push("on_divergence");
    tested.sort_unstable();
    let mut declared: Vec<&str> = RunSettings::default().declarations().iter().map(|s| s.key).collect();
    declared.sort_unstable();
    assert_eq!(tested, declared);
}

/// Steps of the checkpoints that are left, in order.
fn checkpoints(run: &Path) -> Vec<u64> {
    let step = |e: std::io::Result<std::fs::DirEntry>| {
        let name = e.unwrap().file_name().into_string().unwrap();
        name.strip_prefix("step-").unwrap().parse().unwrap()
    };
    let mut steps: Vec<u64> = std::fs::read_dir(run.join("checkpoints")).unwrap().map(step).collect();
    steps.sort_unstable();
    steps
}

/// Trains CartPole; an iteration has 96 steps.
fn train(run: &Path, pairs: &[&str], runner: &mut Runner) {
    assert!(!runner.train(run, config("CartPole-v1", pairs)).unwrap().stopped);
}

settings_that_are_tested! {
    steps => {
        for (steps, done) in [(1, 96), (96, 96), (97, 192), (400, 480)] {
            let dir = tempdir().unwrap();
            let mut runner = Runner::default();
            train(&dir.path().join("run"), &[&format!("steps={steps}")], &mut runner);
            let last = runner.progress.last().unwrap();
            assert_eq!((last.steps, last.total_steps), (done, steps));
            assert_eq!(runner.progress.len() as u64, done / 96);
        }
    }
    seed => {
        let dir = tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (name, seed) in [("one", "seed=1"), ("again", "seed=1"), ("two", "seed=2")] {
            train(&at(name), &["steps=200", seed], &mut Runner::default());
        }
        assert!(result(&at("one")) == result(&at("again")));
        assert_ne!(result(&at("one")).0, result(&at("two")).0);
    }
    checkpoint_steps => {
        for (every, kept) in
            [(0, vec![960]), (1, vec![96, 192, 288, 384, 480, 576, 672, 768, 864, 960]), (200, vec![288, 576, 864, 960])]
        {
            let dir = tempdir().unwrap();
            let run = dir.path().join("run");
            let pairs = ["steps=960", "keep_checkpoints=100", &format!("checkpoint_steps={every}")];
            train(&run, &pairs, &mut Runner::default());
            assert_eq!(checkpoints(&run), kept);
        }
    }
    checkpoint_secs => {
        let dir = tempdir().unwrap();
        let run = dir.path().join("run");
        let clock = Arc::new(ManualClock::new(WallTime::from_unix_secs(1_800_000_000)));
        let mut runner = Runner { clock: Arc::<ManualClock>::clone(&clock), ..Runner::default() };
        // An iteration takes 10 s.
        runner.hook = Box::new(move |_| clock.advance(Duration::from_secs(10)));
        train(&run, &["steps=960", "keep_checkpoints=100", "checkpoint_secs=30"], &mut runner);
        assert_eq!(checkpoints(&run), [288, 576, 864, 960]);
        assert_eq!(runner.progress.last().unwrap().seconds, 90.0);
    }
    keep_checkpoints => {
        for (keep, kept) in [(2, vec![864, 960]), (3, vec![768, 864, 960])] {
            let dir = tempdir().unwrap();
            let run = dir.path().join("run");
            let pairs = ["steps=960", "checkpoint_steps=1", &format!("keep_checkpoints={keep}")];
            train(&run, &pairs, &mut Runner::default());
            assert_eq!(checkpoints(&run), kept);
        }
    }
    log_every => {
        for (every, rows) in [(1, vec![96, 192, 288, 384, 480]), (2, vec![192, 384, 480]), (100, vec![480])] {
            let dir = tempdir().unwrap();
            let run = dir.path().join("run");
            train(&run, &["steps=480", &format!("log_every={every}")], &mut Runner::default());
            let steps: Vec<u64> = metrics(&run).iter().map(|(step, _)| *step).collect();
            assert_eq!(steps, rows, "the last iteration is always there");
        }
    }
}

#[test]
fn defaults_that_follow_from_others_are_written_down() {
    let dir = tempdir().unwrap();
    let written = |algo: &str, pairs: &[&str]| {
        let mut config = RunConfig::without_preset(algo, "CartPole-v1").unwrap();
        for pair in ["steps=1", "hidden=4", "n_envs=6"].iter().chain(pairs) {
            config.apply_pair(pair, "test").unwrap();
        }
        let run = dir.path().join(format!("{algo}{}", pairs.len()));
        Runner::default().train(&run, config).unwrap();
        let text = std::fs::read_to_string(run.join("config.toml")).unwrap();
        let lines =
            text.lines().filter(|l| l.starts_with("envs_per_shard") || l.starts_with("sequence_length"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let (shard, length) = ("envs_per_shard = 4", "sequence_length = 10");
    assert_eq!(written("ppo", &["n_steps=20", "minibatch_size=30"]), [shard]);
    let recurrent = &["recurrent=lstm", "recurrent_size=4", "n_steps=20", "minibatch_size=30"];
    assert_eq!(written("ppo", recurrent), [shard, length]);
    assert_eq!(written("trpo", recurrent), [shard, length]);
    assert_eq!(written("reinforce", &["n_episodes=6"]), [shard]);
    let asked = [&recurrent[..], &["sequence_length=5", "envs_per_shard=3"]].concat();
    assert_eq!(written("npg", &asked), ["envs_per_shard = 3", "sequence_length = 5"]);
}
