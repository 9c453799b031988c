//! Runs in environments of Gymnasium: the same bits for any number of threads and processes, failures
//! survived, and resumed with new episodes.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

mod driver_common;

use driver_common::{Runner, metrics, result};
use pgrad_num::Stream;
use pgrad_run::config::RunConfig;
use pgrad_testkit::python_with;
use serde_json::{Map, Value, json};
use std::path::Path;
use tempfile::tempdir;

const ENV: &str = "gym:tests.misbehaving:Planned-v0";

/// A Python that finds `misbehaving.py`.
fn python(dir: &Path) -> String {
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pgrad-gym");
    python_with(dir, "PYTHONPATH", &modules.display().to_string()).unwrap()
}

fn config(algo: &str, dir: &Path, pairs: &[&str], faults: &Map<String, Value>) -> RunConfig {
    let mut config = RunConfig::new(algo, ENV).unwrap();
    let own = [
        format!("python={}", python(dir)),
        format!("env_kwargs={}", json!({ "faults": faults })),
        "env_workers=1".to_owned(),
        "env_step_secs=2".to_owned(),
    ];
    for pair in own.iter().map(String::as_str).chain(pairs.iter().copied()) {
        config.apply_pair(pair, "test").unwrap();
    }
    config
}

const PPO: &[&str] =
    &["n_envs=4", "n_steps=16", "minibatch_size=32", "hidden=8", "steps=256", "normalize_obs=true"];

/// A fault in the second episode of an environment.
fn fault(faults: &mut Map<String, Value>, b: u32, how: &str) {
    let mut stream = Stream::new(1, 1, b);
    stream.bits32();
    faults.insert((stream.bits32() >> 1).to_string(), json!([3, how]));
}

#[test]
fn threads_and_processes_change_no_bit_and_resuming_starts_new_episodes() {
    let dir = tempdir().unwrap();
    let mut bits = Vec::new();
    for (i, (threads, workers)) in [(1, 1), (2, 2)].into_iter().enumerate() {
        let run = dir.path().join(format!("run{i}"));
        let workers = format!("env_workers={workers}");
        let config = config("ppo", dir.path(), &[PPO, &[&workers]].concat(), &Map::new());
        let mut runner = Runner { threads, ..Runner::default() };
        let summary = runner.train(&run, config).unwrap();
        assert_eq!((summary.progress.steps, runner.notices.len()), (256, 0), "{:?}", runner.notices);
        bits.push(result(&run));
    }
    assert_eq!(bits[0], bits[1]);
    let run = dir.path().join("resumed");
    let mut first = Runner { stop_after: Some(2), ..Runner::default() };
    assert!(first.train(&run, config("ppo", dir.path(), PPO, &Map::new())).unwrap().stopped);
    let mut second = Runner::default();
    let summary = second.resume(&run).unwrap();
    assert_eq!((summary.stopped, summary.progress.steps), (false, 256));
    assert!(second.notices[0].contains("cannot save their state: new episodes"), "{:?}", second.notices);
    assert_ne!(result(&run).0, bits[0].0, "the episodes are others");
}

#[test]
fn every_kind_of_method_survives_failures() {
    let dir = tempdir().unwrap();
    let recurrent: Vec<&str> = [PPO, &["recurrent=lstm", "recurrent_size=4", "sequence_length=8"]].concat();
    let few: &[&str] = &["hidden=8", "steps=256"];
    let methods: &[(&str, &[&str], u64)] = &[
        ("ppo", PPO, 2),
        ("ppo", &recurrent, 2),
        ("trpo", &["n_envs=2", "n_steps=64", "hidden=8", "critic_hidden=8", "steps=256"], 2),
        ("reinforce", &["n_envs=2", "n_episodes=6", "hidden=8", "steps=128"], 2),
        ("td-ac", few, 1),
        ("a3c", &["workers=2", "hidden=8", "steps=256"], 2),
    ];
    for (i, (algo, pairs, failing)) in methods.iter().enumerate() {
        let run = dir.path().join(format!("{i}"));
        let mut faults = Map::new();
        fault(&mut faults, 0, "raise");
        fault(&mut faults, 1, "kill SIGKILL");
        let mut runner = Runner::default();
        let summary = runner
            .train(&run, config(algo, dir.path(), pairs, &faults))
            .unwrap_or_else(|e| panic!("{algo}: {e}"));
        assert!(!summary.stopped && summary.progress.episodes > 5, "{algo}");
        let notices = runner.notices.join("\n");
        assert!(notices.contains("RuntimeError: as planned"), "{algo}: {notices}");
        assert_eq!(notices.contains("was killed by SIGKILL"), *failing == 2, "{algo}: {notices}");
        let rows = metrics(&run);
        let last = |name: &str| {
            let found = rows.last().unwrap().1.iter().find(|(n, _)| n == name);
            f64::from_bits(found.unwrap_or_else(|| panic!("{algo}: {name}")).1)
        };
        assert_eq!(last("env/restarts"), *failing as f64, "{algo}: {notices}");
        assert!(last("env/lost_steps") >= *failing as f64, "{algo}");
        assert!(last("env/lost_episodes") >= *failing as f64, "{algo}");
    }
}

#[test]
fn a_failure_for_good_ends_the_run_with_its_place() {
    let dir = tempdir().unwrap();
    let mut faults = Map::new();
    fault(&mut faults, 0, "raise");
    let config = config("ppo", dir.path(), &[PPO, &["on_env_error=stop"]].concat(), &faults);
    let error = Runner::default().train(&dir.path().join("run"), config).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.exit_code(), 65);
    assert!(
        text.contains("environment 0 (`gym:tests.misbehaving:Planned-v0`), episode 1, step 3: "),
        "{text}"
    );
    assert!(text.contains("RuntimeError: as planned"), "{text}");
}

#[test]
fn what_there_is_to_tell_of_a_start_that_fails_is_told() {
    let dir = tempdir().unwrap();
    let (mut faults, mut stream) = (Map::new(), Stream::new(1, 1, 0));
    // No episode of the first environment can begin.
    for _ in 0..64 {
        faults.insert((stream.bits32() >> 1).to_string(), json!([0, "raise"]));
    }
    let pairs = [PPO, &["on_env_error=restart", "env_restarts=2"]].concat();
    let config = config("ppo", dir.path(), &pairs, &faults);
    let mut runner = Runner::default();
    let failed = runner.train(&dir.path().join("run"), config).unwrap_err();
    assert_eq!(failed.exit_code(), 65, "{failed}");
    assert!(runner.notices.iter().any(|n| n.contains("restarted")), "{:?}", runner.notices);
}
