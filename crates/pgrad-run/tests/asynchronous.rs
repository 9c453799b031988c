//! Runs of actor-learners that race: what is recorded can be had again, what is stopped goes on, what breaks
//! is named.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

mod driver_common;

use driver_common::{Runner, result};
use pgrad_algos::Reproducible;
use pgrad_env::{Action, BoxSpace, Each, End, Env, EnvSpec, Obs, Space, Step};
use pgrad_num::Stream;
use pgrad_run::config::RunConfig;
use pgrad_run::env::EnvMaker;
use pgrad_run::metrics::read_log;
use pgrad_run::storage::FsStorage;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::tempdir;

const SMALL: &[&str] =
    &["workers=3", "hidden=8", "steps=6000", "steps_per_iteration=1000", "checkpoint_secs=1e6"];

fn config(algo: &str, pairs: &[&str]) -> RunConfig {
    config_of(algo, "CartPole-v1", pairs)
}

fn config_of(algo: &str, env: &str, pairs: &[&str]) -> RunConfig {
    let mut config = RunConfig::new(algo, env).unwrap();
    for pair in SMALL.iter().chain(pairs) {
        config.apply_pair(pair, "test").unwrap();
    }
    config
}

fn replay(run: &Path) -> String {
    format!("replay=\"{}\"", run.join("turns.safetensors").display())
}

/// What was learnt, and what was logged of it, apart from whether it is reproducible.
fn learnt(run: &Path) -> driver_common::Result_ {
    let (policy, mut rows) = result(run);
    rows.iter_mut().for_each(|(_, values)| values.retain(|(name, _)| name != "learn/reproducible"));
    (policy, rows)
}

#[test]
fn a_recorded_race_is_run_once_more_bit_for_bit() {
    let memory = &["recurrent=gru", "recurrent_size=8"][..];
    for (algo, env, own) in [
        ("a3c", "CartPole-v1", &[][..]),
        ("a3c", "CartPoleNoVel-v1", memory),
        ("async-sarsa", "CartPole-v1", &[]),
    ] {
        let config = |algo, pairs: &[&str]| config_of(algo, env, &[own, pairs].concat());
        let dir = tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let summary = Runner::default().train(&at("first"), config(algo, &["record=true"])).unwrap();
        assert_eq!(summary.reproducible, Reproducible::ByRecording);
        let follow = replay(&at("first"));
        let summary = Runner::default().train(&at("again"), config(algo, &[&follow])).unwrap();
        assert_eq!(summary.reproducible, Reproducible::Yes);
        assert!(learnt(&at("again")) == learnt(&at("first")), "{algo}");
        assert!(!at("again").join("turns.safetensors").exists());

        // A recording that was stopped and resumed is one recording; following it may be stopped, too.
        let mut runner = Runner { stop_after: Some(2), ..Runner::default() };
        assert!(runner.train(&at("pieces"), config(algo, &["record=true"])).unwrap().stopped);
        Runner::default().resume(&at("pieces")).unwrap();
        let follow = replay(&at("pieces"));
        let mut runner = Runner { stop_after: Some(3), ..Runner::default() };
        assert!(runner.train(&at("followed"), config(algo, &[&follow])).unwrap().stopped);
        Runner::default().resume(&at("followed")).unwrap();
        assert!(learnt(&at("followed")) == learnt(&at("pieces")), "{algo}");

        // Another length of the run is another run.
        let error =
            Runner::default().train(&at("longer"), config(algo, &[&follow, "steps=9000"])).unwrap_err();
        assert_eq!(error.exit_code(), 64, "{error}");
        assert!(error.to_string().contains("recorded with `steps = 6000`"), "{error}");
    }
}

#[test]
fn a_race_that_nobody_wrote_down_says_so_and_is_resumed_all_the_same() {
    let dir = tempdir().unwrap();
    let run = dir.path().join("run");
    let mut runner = Runner { stop_after: Some(2), threads: 1, ..Runner::default() };
    let summary = runner.train(&run, config("async-nstep-q", &[])).unwrap();
    assert_eq!((summary.reproducible, summary.stopped), (Reproducible::No, true));
    let before = summary.progress.steps;
    assert!((2000..2100).contains(&before), "{before}");
    let summary = Runner::default().resume(&run).unwrap();
    // Each iteration goes up to three segments beyond its end.
    assert!(!summary.stopped && (6000..7100).contains(&summary.progress.steps));
    let log = read_log(&FsStorage, &run.join("metrics.jsonl")).unwrap();
    assert!(log.rows.iter().all(|r| r.get("learn/reproducible") == Some(0.0)));
    let bins = ["0", "1", "2", "3", "4_to_7", "8_up"];
    let shares = |r: &pgrad_run::metrics::Row| {
        bins.iter().map(|b| r.get(&format!("learn/staleness_{b}")).unwrap()).sum::<f64>()
    };
    assert!(log.rows.iter().all(|r| (shares(r) - 1.0).abs() < 1e-12), "a histogram has all updates");
}

/// Panics in the second environment that was started, at this step.
struct Fragile {
    started: Arc<AtomicUsize>,
    number: Option<usize>,
    steps: u64,
}

impl Env for Fragile {
    fn spec(&self) -> EnvSpec {
        EnvSpec {
            id: "Fragile".into(),
            observation: BoxSpace::unbounded(1).into(),
            action: Space::Discrete { n: 2 },
            max_episode_steps: Some(10),
            reward_threshold: None,
            masks_actions: false,
        }
    }
    fn reset(&mut self, _: &mut Stream, obs: &mut Obs<'_>) {
        self.number.get_or_insert_with(|| self.started.fetch_add(1, Ordering::SeqCst));
        obs.write(&[0.5]);
    }
    fn step(&mut self, _: Action<'_>, _: &mut Stream, obs: &mut Obs<'_>) -> Step {
        self.steps += 1;
        assert!(self.number != Some(1) || self.steps < 3000, "a wheel came off");
        obs.write(&[0.5]);
        Step { reward: 1.0, end: End::Running }
    }
    fn save(&self) -> Option<Vec<f64>> {
        Some(vec![self.number? as f64, self.steps as f64])
    }
    fn load(&mut self, state: &[f64]) -> bool {
        (self.number, self.steps) = (Some(state[0] as usize), state[1] as u64);
        true
    }
}

#[test]
fn a_panic_in_one_thread_ends_the_run_and_keeps_the_checkpoint() {
    let started = Arc::new(AtomicUsize::new(0));
    let make: EnvMaker =
        Arc::new(Each::maker(move || Fragile { started: Arc::clone(&started), number: None, steps: 0 }));
    let mut config = RunConfig::custom("a3c", "Fragile", make).unwrap();
    for pair in SMALL.iter().chain(&["steps=10000000", "checkpoint_steps=1"]) {
        config.apply_pair(pair, "test").unwrap();
    }
    let dir = tempdir().unwrap();
    let run = dir.path().join("run");
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let error = Runner::default().train(&run, config).unwrap_err();
    std::panic::set_hook(hook);
    let said = error.to_string();
    assert_eq!(error.exit_code(), 70, "{said}");
    assert!(said.contains("actor-learner 1: environment 1, episode 299, step "), "{said}");
    assert!(said.contains("a wheel came off") && said.contains("the checkpoint of step "), "{said}");
    assert!(run.join("policy.safetensors").exists());
    assert!(std::fs::read_dir(run.join("checkpoints")).unwrap().count() > 0);
}
