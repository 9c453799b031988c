//! Runs that earlier versions left behind are read, evaluated and continued: `goldens/runs/VERSION`, one for
//! each kind of state. A version adds its own and keeps those before it.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

use pgrad_model::Policy;
use pgrad_run::driver::{Options, read_config, resume};
use pgrad_run::eval::{EvalOptions, evaluate_run};
use pgrad_run::storage::FsStorage;
use std::fs;
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../goldens/runs").join(name)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Mean return of the run's policy over 20 episodes.
fn score(run: &Path) -> f64 {
    let config = read_config(&FsStorage, run, None).unwrap();
    let policy = Policy::from_bytes(&fs::read(run.join("policy.safetensors")).unwrap()).unwrap();
    let options = EvalOptions { episodes: 20, seed: 5, ..EvalOptions::default() };
    evaluate_run(policy, &config, &options).unwrap().return_mean()
}

#[test]
fn runs_of_earlier_versions_are_read_evaluated_and_continued() {
    for (name, before, after) in
        [("0.1.0/ppo", 25.1, 14.45), ("0.1.0/lstm", 152.85, 127.5), ("0.1.0/acktr", 39.25, 17.75)]
    {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        copy(&golden(name), &run);
        assert_eq!(score(&run), before, "{name}");
        let mut notices = Vec::new();
        let mut listen = |event: pgrad_run::driver::Event<'_>| {
            if let pgrad_run::driver::Event::Notice(text) = event {
                notices.push(text.to_owned());
            }
        };
        let changes = vec![("steps=2048".to_owned(), "test")];
        let summary = resume(&run, Options { changes, ..Options::new(&mut listen) }).unwrap();
        assert_eq!(summary.progress.steps, 2048, "{name}");
        // All of it was there: the steps alone are told, and what depends on them.
        let told = |n: &String| n.contains("steps") && !n.contains("new episodes") && !n.contains("skipped");
        assert!(notices.iter().all(told), "{name}: {notices:?}");
        let rows = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        assert!(rows.starts_with(&fs::read_to_string(golden(name).join("metrics.jsonl")).unwrap()), "{name}");
        assert_eq!(score(&run), after, "{name}");
    }
}
