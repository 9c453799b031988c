//! Runs in need: a checkpoint that cannot be used, a folder that goes away, an iteration that does not end.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

mod driver_common;

use driver_common::{Runner, config, result};
use pgrad_num::Array;
use pgrad_run::checkpoint::CheckpointStore;
use pgrad_run::clock::{Clock, WallTime};
use pgrad_run::driver::{self, Event, Options, Rescued};
use pgrad_run::storage::FsStorage;
use pgrad_run::tensors;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tempfile::tempdir;

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (entry, to) = (entry.unwrap(), to);
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_whole_checkpoint_that_cannot_be_used_is_passed_over() {
    let dir = tempdir().unwrap();
    let (run, whole) = (dir.path().join("run"), dir.path().join("whole"));
    Runner::default().train(&whole, config("CartPole-v1", &["steps=1100"])).unwrap();
    let mut runner = Runner { stop_after: Some(3), ..Runner::default() };
    let stopped = runner.train(&run, config("CartPole-v1", &["steps=1100"])).unwrap().progress.steps;

    // One more, all digests right, with a parameter that is none.
    let store = CheckpointStore::new(Arc::new(FsStorage), run.join("checkpoints"), 5);
    let mut files = store.load(stopped).unwrap().files;
    let (record, _) = tensors::decode(&files["state.safetensors"]).unwrap();
    let mut broken = pgrad_num::Record::new();
    for (name, array) in record.iter() {
        let array = match array {
            Array::F32(values) if name == "algo.theta" => {
                let mut values = values.clone();
                values[1] = f32::INFINITY;
                Array::F32(values)
            }
            other => other.clone(),
        };
        broken.put(name, array);
    }
    files.insert("state.safetensors".into(), tensors::encode(&broken, None).unwrap());
    let files: Vec<(&str, &[u8])> = files.iter().map(|(n, b)| (n.as_str(), b.as_slice())).collect();
    store.save(stopped + 96, &files).unwrap();

    let mut runner = Runner::default();
    runner.resume(&run).unwrap();
    assert_eq!(runner.notices.len(), 1, "{:?}", runner.notices);
    let expected = [format!("step-{}", stopped + 96), "theta".into(), "skipped checkpoint".into()];
    assert!(expected.iter().all(|part| runner.notices[0].contains(part)), "{:?}", runner.notices);
    assert!(result(&run) == result(&whole));
}

#[cfg(unix)]
#[test]
fn a_folder_that_is_moved_keeps_its_run_and_one_that_is_removed_ends_it() {
    for moved in [true, false] {
        let dir = tempdir().unwrap();
        let (run, old) = (dir.path().join("run"), dir.path().join("old"));
        let mut listen = |event: Event<'_>| {
            if matches!(event, Event::Iteration(p) if p.iterations == 2) {
                if moved {
                    fs::rename(&run, &old).unwrap();
                } else {
                    fs::remove_dir_all(&run).unwrap();
                }
                fs::create_dir(&run).unwrap();
            }
        };
        let options = Options { run_dir: Some(run.clone()), ..Options::new(&mut listen) };
        let done = driver::train(config("CartPole-v1", &["steps=1100"]), options);
        assert_eq!(fs::read_dir(&run).unwrap().count(), 0, "another folder of this name is not touched");
        if moved {
            done.unwrap();
            let whole = dir.path().join("whole");
            Runner::default().train(&whole, config("CartPole-v1", &["steps=1100"])).unwrap();
            assert!(result(&old) == result(&whole));
        } else {
            assert_eq!(done.unwrap_err().exit_code(), 74);
        }
    }
}

/// A second for each iteration.
#[derive(Debug)]
struct Iterations(Arc<AtomicU64>);

impl Clock for Iterations {
    fn now(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed))
    }
    fn wall(&self) -> WallTime {
        WallTime::from_unix_secs(0)
    }
}

#[test]
fn a_run_that_is_rescued_within_an_iteration_goes_on_with_the_same_bits() {
    let dir = tempdir().unwrap();
    let [run, rescued, whole] = ["run", "rescued", "whole"].map(|name| dir.path().join(name));
    Runner::default().train(&whole, config("CartPole-v1", &["steps=1100"])).unwrap();
    let now = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let mut listen = |_: Event<'_>| {};
    let mut options = Options { run_dir: Some(run.clone()), ..Options::new(&mut listen) };
    let rescue = Arc::clone(&options.rescue);
    assert_eq!(rescue.save_and(|saved| saved.unwrap()), Rescued::Nothing);
    let (seconds, halt) = (Arc::clone(&now), Arc::clone(&stop));
    let mut listen = |event: Event<'_>| {
        let Event::Iteration(progress) = event else { return };
        seconds.fetch_add(1, Ordering::Relaxed);
        if progress.iterations == 4 {
            // What a thread that watches the clock would do while the fourth iteration goes on.
            let step = progress.steps / 4 * 3;
            assert_eq!(rescue.save_and(|saved| saved.unwrap()), Rescued::Step(step));
            copy(&run, &rescued);
            halt.store(true, Ordering::Relaxed);
        }
    };
    options = Options { listen: &mut listen, clock: Arc::new(Iterations(now)), stop, ..options };
    assert!(driver::train(config("CartPole-v1", &["steps=1100"]), options).unwrap().stopped);

    let mut runner = Runner::default();
    runner.resume(&rescued).unwrap();
    assert_eq!(runner.notices, Vec::<String>::new());
    assert!(result(&rescued) == result(&whole));
}

#[test]
fn metrics_of_another_run_are_not_continued() {
    let dir = tempdir().unwrap();
    let (run, other) = (dir.path().join("run"), dir.path().join("other"));
    for (path, seed) in [(&run, "seed=1"), (&other, "seed=2")] {
        let mut runner = Runner { stop_after: Some(3), ..Runner::default() };
        runner.train(path, config("CartPole-v1", &["steps=1100", seed])).unwrap();
    }
    fs::copy(other.join("metrics.jsonl"), run.join("metrics.jsonl")).unwrap();
    let mut runner = Runner::default();
    let steps = runner.resume(&run).unwrap().progress.steps;
    assert_eq!(runner.notices.len(), 1, "{:?}", runner.notices);
    assert!(runner.notices[0].contains("of another run"), "{:?}", runner.notices);
    let rows = driver_common::metrics(&run);
    assert!(rows.first().unwrap().0 > 3 * 96 && rows.last().unwrap().0 == steps);
    let aside = fs::read_dir(&run).unwrap().filter(|e| {
        e.as_ref().unwrap().file_name().to_string_lossy().starts_with("metrics.jsonl.not-of-step-")
    });
    assert_eq!(aside.count(), 1, "what was there is kept");
}
