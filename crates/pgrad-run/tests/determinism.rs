//! The same seed gives the same bits, for any number of threads and with every method; evaluating changes
//! nothing.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

mod driver_common;

use driver_common::{METHODS, Method, Runner, result};
use pgrad_model::Policy;
use pgrad_run::eval::{EvalError, EvalOptions, evaluate};
use std::path::Path;
use tempfile::tempdir;

const CONTINUOUS: &[&str] = &["normalize_obs=true", "normalize_reward=true"];
const DISCRETE: &[&str] = &["learning_rate_schedule=linear"];

/// Trains for at least five wide iterations and returns how many there were.
fn train(m: &Method, dir: &Path, env: &str, pairs: &[&str], threads: usize) -> usize {
    let mut runner = Runner { threads, ..Runner::default() };
    let config = m.config(env, &[m.wide, &["steps=1920"], pairs].concat());
    assert!(!runner.train(dir, config).unwrap().stopped);
    runner.progress.len()
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    for m in METHODS {
        m.each_variant(|name, env, pairs| {
            let dir = tempdir().unwrap();
            let at = |threads: usize| dir.path().join(format!("{threads}"));
            for threads in [1, 2, 4] {
                let iterations = train(m, &at(threads), env, pairs, threads);
                assert!(iterations >= 5, "{name}: {iterations} iterations");
                assert!(result(&at(threads)) == result(&at(1)), "{name}: {threads} threads differ");
            }
        });
    }
}

#[test]
fn another_seed_gives_another_run() {
    for m in METHODS {
        let dir = tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let (env, pairs) = m.variants[0];
        train(m, &at("a"), env, &[pairs, &["seed=1"]].concat(), 1);
        train(m, &at("b"), env, &[pairs, &["seed=2"]].concat(), 1);
        assert_ne!(result(&at("a")).0, result(&at("b")).0, "{}", m.algo);
    }
}

#[test]
fn every_method_has_a_row() {
    for entry in pgrad_algos::REGISTRY {
        assert!(METHODS.iter().any(|m| m.algo == entry.name), "{} has no row", entry.name);
    }
}

/// Every file of a folder with its content.
fn snapshot(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut entries: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files.extend(snapshot(&path));
        } else {
            files.push((path.clone(), std::fs::read(&path).unwrap()));
        }
    }
    files
}

#[test]
fn an_evaluation_is_reproducible_and_changes_nothing() {
    for (env, pairs) in [("CartPole-v1", DISCRETE), ("Pendulum-v1", CONTINUOUS)] {
        let dir = tempdir().unwrap();
        let run = dir.path().join("run");
        train(&METHODS[0], &run, env, pairs, 1);
        let before = snapshot(&run);
        let make = pgrad_envs::find(env).unwrap().open().unwrap();
        let bytes = std::fs::read(run.join("policy.safetensors")).unwrap();
        let eval = |options: EvalOptions| {
            evaluate(Policy::from_bytes(&bytes).unwrap(), |n| make(n), &options).unwrap()
        };
        for stochastic in [false, true] {
            let options = EvalOptions { episodes: 30, seed: 7, stochastic, ..EvalOptions::default() };
            let found = eval(options);
            assert_eq!((found.returns.len(), found.lengths.len()), (30, 30));
            assert_eq!(eval(options), found);
            assert_ne!(eval(EvalOptions { seed: 8, ..options }), found);
            // Episode i is the same whatever is evaluated beside it, batches included.
            let more = eval(EvalOptions { episodes: 300, ..options });
            assert_eq!(more.returns[..30], found.returns);
            assert_ne!(more.returns[256..286], found.returns, "the second batch is not the first again");
            let few = eval(EvalOptions { episodes: 3, ..options });
            assert_eq!(few.returns, found.returns[..3]);
        }
        assert!(snapshot(&run) == before, "the folder of the run is as it was");
    }
}

#[test]
fn a_policy_is_not_evaluated_on_another_task() {
    let dir = tempdir().unwrap();
    train(&METHODS[0], &dir.path().join("run"), "CartPole-v1", DISCRETE, 1);
    let policy =
        || Policy::from_bytes(&std::fs::read(dir.path().join("run/policy.safetensors")).unwrap()).unwrap();
    let make = pgrad_envs::find("Pendulum-v1").unwrap().open().unwrap();
    let error = evaluate(policy(), |n| make(n), &EvalOptions::default()).unwrap_err();
    assert!(matches!(error, EvalError::Mismatch { policy_obs: 4, env_obs: 3, .. }), "{error}");
    let make = pgrad_envs::find("CartPole-v1").unwrap().open().unwrap();
    let none = EvalOptions { episodes: 0, ..EvalOptions::default() };
    assert!(matches!(evaluate(policy(), |n| make(n), &none), Err(EvalError::NoEpisodes)));
    let short = EvalOptions { max_steps: 3, ..EvalOptions::default() };
    assert!(matches!(evaluate(policy(), |n| make(n), &short), Err(EvalError::Endless { steps: 3, .. })));
}
