//! What a run is said to take of memory, against what it takes.

#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

use pgrad_run::config::RunConfig;
use pgrad_run::driver::{Options, train};
use pgrad_testkit::{CountingAllocator, most_bytes_during};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// What is allocated at the same time lies between these multiples of what is said.
const MARGIN: std::ops::RangeInclusive<f64> = 0.75..=1.15;
const THREADS: usize = 2;

/// Bytes that a first iteration takes, with its checkpoint, and those that are said.
fn taken_and_said(algo: &str, env: &str, pairs: &[&str]) -> (f64, f64) {
    let mut config = RunConfig::without_preset(algo, env).unwrap();
    for pair in ["steps=1", "checkpoint_steps=1"].iter().chain(pairs) {
        config.apply_pair(pair, "test").unwrap();
    }
    let said = config.needs(THREADS).unwrap().bytes();
    let dir = tempfile::tempdir().unwrap();
    let mut listen = |_: pgrad_run::driver::Event<'_>| {};
    let run_dir = Some(dir.path().join("run"));
    let options = Options { threads: THREADS, run_dir, ..Options::new(&mut listen) };
    let (taken, done) = most_bytes_during(|| train(config, options));
    done.unwrap();
    (taken as f64, said)
}

#[test]
fn what_is_said_is_what_is_taken() {
    const WIDE: &str = "hidden=[1024, 1024]";
    const PLAIN: &str = "orthogonal_init=false";
    let mut wrong = Vec::new();
    for (algo, env, pairs) in [
        ("ppo", "MinAtar/Breakout-v1", &["n_steps=4096", "epochs=1", "hidden=[4]"][..]),
        ("ppo", "CartPole-v1", &["n_steps=65536", "epochs=1", "hidden=[4]"]),
        ("ppo", "CartPole-v1", &[WIDE, PLAIN, "n_steps=16", "minibatch_size=64", "epochs=1"]),
        ("ppo", "CartPole-v1", &[WIDE, PLAIN, "n_steps=16", "minibatch_size=64", "epochs=1", "trunk=shared"]),
        ("ppo", "CartPole-v1", &["recurrent=lstm", "recurrent_size=512", PLAIN, "n_steps=64", "epochs=1"]),
        ("a2c", "CartPole-v1", &[WIDE, PLAIN]),
        ("acktr", "CartPole-v1", &[WIDE, PLAIN]),
        ("acktr", "MinAtar/Breakout-v1", &["hidden=[16]", "n_envs=32"]),
        ("trpo", "CartPole-v1", &[WIDE, "critic_hidden=[16]", PLAIN, "n_steps=64", "cg_iterations=1"]),
        ("npg", "MinAtar/Breakout-v1", &["hidden=[8]", "n_steps=1024", "cg_iterations=1"]),
        ("reinforce", "CartPole-v1", &[WIDE, PLAIN]),
        ("cem", "CartPole-v1", &[WIDE, PLAIN, "population=10"]),
        ("a3c", "CartPole-v1", &[WIDE, PLAIN, "workers=3", "steps_per_iteration=60"]),
        ("async-q", "CartPole-v1", &[WIDE, PLAIN, "workers=3", "steps_per_iteration=60"]),
        ("td-ac", "CartPole-v1", &[WIDE, PLAIN, "n_envs=4", "n_steps=2"]),
        ("nac", "CartPole-v1", &[WIDE, PLAIN, "n_steps=2"]),
        ("qac", "CartPole-v1", &[WIDE, PLAIN, "n_steps=2"]),
        ("off-pac", "tiles:MountainCar-v0", &["n_envs=64", "n_steps=2"]),
        ("greedy-gq", "tiles:MountainCar-v0", &["n_envs=64", "n_steps=2"]),
        ("q-lambda", "tiles:MountainCar-v0", &["n_envs=64", "n_steps=2"]),
    ] {
        let (taken, said) = taken_and_said(algo, env, pairs);
        if !MARGIN.contains(&(taken / said)) {
            let (taken, said) = (taken / 1e6, said / 1e6);
            wrong.push(format!("{algo} {env} {pairs:?}: {taken:.1} MB, but {said:.1} MB were said"));
        }
    }
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn what_cannot_fit_is_refused_before_anything_is_made() {
    let mut config = RunConfig::without_preset("acktr", "tiles:Acrobot-v1").unwrap();
    config.apply_pair("hidden=[8192, 8192, 8192, 8192, 8192, 8192]", "test").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut listen = |_: pgrad_run::driver::Event<'_>| {};
    let run_dir = Some(dir.path().join("run"));
    let refused = train(config, Options { run_dir, ..Options::new(&mut listen) }).unwrap_err();
    assert_eq!(refused.exit_code(), 64);
    let text = refused.to_string();
    assert!(text.starts_with("the run needs about ") && text.contains(" curvature (hidden"), "{text}");
    assert!(text.ends_with("hint: lower hidden, the observation's size"), "{text}");
    assert!(!dir.path().join("run").exists());
}
