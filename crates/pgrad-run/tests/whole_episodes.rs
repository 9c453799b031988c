//! Runs that learn from whole episodes: the same bits for any number of threads, and stopped and resumed.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

mod driver_common;

use driver_common::{Runner, result};
use pgrad_run::config::RunConfig;
use tempfile::tempdir;

/// Shards of unequal size, environments with unequal numbers of episodes.
const SMALL: &[&str] =
    &["n_envs=11", "n_episodes=15", "envs_per_shard=3", "hidden=8", "checkpoint_secs=1e6", "max_grad_norm=1"];
const CASES: &[(&str, &[&str])] = &[
    ("CartPole-v1", &["psi=to-go", "steps=6000"]),
    ("CartPole-v1", &["psi=baseline", "optimizer=adam", "normalize_obs=true", "steps=6000"]),
    ("Pendulum-v1", &["psi=baseline", "normalize_obs=true", "normalize_reward=true", "steps=20000"]),
];

fn config(env: &str, pairs: &[&str]) -> RunConfig {
    let mut config = RunConfig::new("reinforce", env).unwrap();
    for pair in SMALL.iter().chain(pairs) {
        config.apply_pair(pair, "test").unwrap();
    }
    config
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    for (env, pairs) in CASES {
        let dir = tempdir().unwrap();
        let at = |threads: usize| dir.path().join(format!("{threads}"));
        for threads in [1, 2, 4] {
            let mut runner = Runner { threads, ..Runner::default() };
            runner.train(&at(threads), config(env, pairs)).unwrap();
            assert!(runner.progress.len() > 5);
            assert!(result(&at(threads)) == result(&at(1)), "{env} {pairs:?}: {threads} threads differ");
        }
    }
}

#[test]
fn stopping_and_resuming_changes_nothing() {
    for (env, pairs) in CASES {
        let dir = tempdir().unwrap();
        let (whole, pieces) = (dir.path().join("whole"), dir.path().join("pieces"));
        Runner::default().train(&whole, config(env, pairs)).unwrap();
        let piece = |threads| Runner { threads, stop_after: Some(2), ..Runner::default() };
        let mut summary = piece(1).train(&pieces, config(env, pairs)).unwrap();
        let mut stops = 0;
        while summary.stopped {
            stops += 1;
            let mut runner = piece(1 + stops % 2);
            summary = runner.resume(&pieces).unwrap();
            assert_eq!(runner.notices, Vec::<String>::new(), "nothing to say of an exact continuation");
        }
        assert!(stops > 2);
        assert!(result(&pieces) == result(&whole), "{env} {pairs:?}: stopped {stops} times");
    }
}
