//! What a user or a machine gets wrong: refused early where that is possible, with a message that helps and
//! the right exit code, and without harm to what was saved.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

mod driver_common;

use driver_common::{Runner, config, result};
use pgrad_run::config::RunConfig;
use pgrad_run::driver::{RunError, read_config};
use pgrad_run::metrics::read_log;
use pgrad_run::storage::{Entry, EntryKind, FsStorage, Operation, Storage, StorageError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tempfile::tempdir;

#[track_caller]
fn says(error: &RunError, code: u8, parts: &[&str]) {
    let text = error.to_string();
    assert_eq!(error.exit_code(), code, "{text}");
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

// ---- configuration ----

#[test]
fn wrong_settings_are_refused_with_help() {
    for (pair, parts) in [
        ("gama=0.9", &["gama", "did you mean `gamma`"][..]),
        ("minibatch_sice=64", &["did you mean `minibatch_size`"]),
        ("gamma=fast", &["gamma", "a number", "fast"]),
        ("n_steps=1.5", &["n_steps", "1.5"]),
        ("n_steps=-1", &["n_steps", "-1"]),
        ("n_steps=0", &["n_steps", "0"]),
        ("gamma=1.5", &["gamma", "1.5", "[0, 1]"]),
        ("gamma=nan", &["gamma"]),
        ("learning_rate=inf", &["learning_rate"]),
        ("learning_rate=0", &["learning_rate", "0"]),
        ("max_grad_norm=-1", &["max_grad_norm", "-1"]),
        ("trunk=common", &["trunk", "separate", "shared"]),
        ("hidden=64,0", &["hidden", "0"]),
        ("keep_checkpoints=1", &["keep_checkpoints"]),
        ("normalize_obs=maybe", &["normalize_obs", "maybe"]),
        ("gamma", &["gamma"]),
    ] {
        let mut config = RunConfig::new("ppo", "CartPole-v1").unwrap();
        let before = config.to_toml(false);
        let error = RunError::from(config.apply_pair(pair, "--set").unwrap_err());
        says(&error, 64, parts);
        assert_eq!(config.to_toml(false), before, "{pair} changed something");
    }
}

#[test]
fn a_wrong_file_is_refused_with_all_its_errors_and_their_lines() {
    let mut config = RunConfig::new("ppo", "CartPole-v1").unwrap();
    let before = config.to_toml(false);
    let text = "gamma = 0.5\nlamda = 0.9\nn_steps = \"many\"\n\nclip = -0.1\n";
    let error = RunError::from(config.apply_toml(text, "my.toml").unwrap_err());
    says(&error, 64, &["my.toml:2", "lambda", "my.toml:3", "n_steps", "many", "my.toml:5", "clip", "-0.1"]);
    let error = RunError::from(config.apply_toml("gamma = = 1", "my.toml").unwrap_err());
    says(&error, 64, &["my.toml", "1"]);
    assert_eq!(config.to_toml(false), before);
}

#[test]
fn sizes_that_do_not_fit_are_refused_before_anything_is_made() {
    let dir = tempdir().unwrap();
    let run = dir.path().join("run");
    for (pairs, parts) in [
        (&["minibatch_size=97"][..], &["minibatch_size", "97", "12 x 8 = 96"][..]),
        (&["n_envs=65536", "n_steps=1048576"], &["n_steps", "samples"]),
    ] {
        let error = Runner::default().train(&run, config("CartPole-v1", pairs)).unwrap_err();
        says(&error, 64, parts);
        assert!(!run.exists());
    }
}

// ---- folders ----

#[test]
fn a_folder_that_is_no_run_is_not_resumed() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir(at("empty")).unwrap();
    std::fs::write(at("file"), "x").unwrap();
    for (name, part) in
        [("missing", "does not exist"), ("empty", "has no `config.toml`"), ("file", "is not a folder")]
    {
        let error = Runner::default().resume(&at(name)).unwrap_err();
        says(&error, 65, &[name, part]);
        says(&read_config(&FsStorage, &at(name), None).unwrap_err(), 65, &[name, part]);
    }
    assert_eq!(std::fs::read_dir(at("empty")).unwrap().count(), 0, "nothing was left there");
}

#[test]
fn a_folder_in_use_is_not_taken() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let small = || config("CartPole-v1", &["steps=96"]);
    std::fs::create_dir(at("full")).unwrap();
    std::fs::write(at("full").join("thesis.tex"), "x").unwrap();
    std::fs::write(at("file"), "x").unwrap();
    let error = Runner::default().train(&at("full"), small()).unwrap_err();
    says(&error, 64, &["not empty", "pgrad resume", "--run-dir"]);
    assert_eq!(std::fs::read_dir(at("full")).unwrap().count(), 1);
    says(&Runner::default().train(&at("file"), small()).unwrap_err(), 64, &["is not a folder"]);
    // A folder that cannot be made: its parent is a file.
    let error = Runner::default().train(&at("file").join("run"), small()).unwrap_err();
    says(&error, 74, &["cannot create the folder", "file/run"]);
    Runner::default().train(&at("run"), small()).unwrap();
    let before = result(&at("run"));
    says(&Runner::default().train(&at("run"), small()).unwrap_err(), 64, &["pgrad resume"]);
    assert!(result(&at("run")) == before);
}

#[test]
fn a_second_writer_is_locked_out() {
    let dir = tempdir().unwrap();
    let run = dir.path().join("run");
    let errors = Arc::new(Mutex::new(Vec::new()));
    let (path, seen) = (run.clone(), Arc::clone(&errors));
    let hook = Box::new(move |_: &pgrad_run::driver::Progress| {
        seen.lock().unwrap().push(Runner::default().resume(&path).unwrap_err());
        let other = config("CartPole-v1", &["steps=96"]);
        seen.lock().unwrap().push(Runner::default().train(&path, other).unwrap_err());
    });
    let mut runner = Runner { hook, ..Runner::default() };
    runner.train(&run, config("CartPole-v1", &["steps=192"])).unwrap();
    let errors = errors.lock().unwrap();
    assert_eq!(errors.len(), 4);
    for pair in errors.chunks(2) {
        let number = std::process::id().to_string();
        says(&pair[0], 75, &["in use by another process", &number]);
        says(&pair[1], 64, &["not empty"]);
    }
    // The first one was not disturbed, and the lock is free again.
    Runner::default().resume(&run).unwrap();
    let alone = dir.path().join("alone");
    Runner::default().train(&alone, config("CartPole-v1", &["steps=192"])).unwrap();
    assert!(result(&run) == result(&alone));
}

// ---- checkpoints and configuration of an earlier run ----

const MANY: &[&str] = &["steps=960", "checkpoint_steps=1", "keep_checkpoints=3"];

/// A run that was stopped after 6 iterations, with three checkpoints; and the whole one.
fn stopped_run(dir: &Path) -> (PathBuf, PathBuf) {
    let (whole, run) = (dir.join("whole"), dir.join("run"));
    Runner::default().train(&whole, config("CartPole-v1", MANY)).unwrap();
    let mut runner = Runner { stop_after: Some(6), ..Runner::default() };
    assert!(runner.train(&run, config("CartPole-v1", MANY)).unwrap().stopped);
    (whole, run)
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    let i = at % bytes.len();
    bytes[i] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

fn state(run: &Path, step: u64) -> PathBuf {
    run.join(format!("checkpoints/step-{step}/state.safetensors"))
}

#[test]
fn a_damaged_checkpoint_is_passed_over_and_said_so() {
    for damaged in [&[576][..], &[576, 480]] {
        let dir = tempdir().unwrap();
        let (whole, run) = stopped_run(dir.path());
        for (i, step) in damaged.iter().enumerate() {
            flip(&state(&run, *step), 1000 * (i + 1));
        }
        let mut runner = Runner::default();
        assert!(!runner.resume(&run).unwrap().stopped);
        assert_eq!(runner.notices.len(), damaged.len(), "{:?}", runner.notices);
        for (notice, step) in runner.notices.iter().zip(damaged) {
            assert!(notice.contains("skipped checkpoint"), "{notice}");
            assert!(notice.contains(&format!("step-{step}")), "{notice}");
        }
        assert_eq!(runner.progress[0].steps, 576 - 96 * damaged.len() as u64 + 96);
        assert!(result(&run) == result(&whole), "what was lost is done again, bit for bit");
    }
}

#[test]
fn without_a_valid_checkpoint_the_run_is_not_resumed() {
    let dir = tempdir().unwrap();
    let (_, run) = stopped_run(dir.path());
    flip(&state(&run, 576), 99);
    std::fs::remove_file(state(&run, 480)).unwrap();
    std::fs::write(state(&run, 384), b"").unwrap();
    let error = Runner::default().resume(&run).unwrap_err();
    says(&error, 65, &["no valid checkpoint", "step-576", "step-480", "step-384"]);
    assert!(state(&run, 576).exists(), "nothing was removed");
}

#[test]
fn a_configuration_that_was_changed_afterwards_is_noticed() {
    let dir = tempdir().unwrap();
    let (_, run) = stopped_run(dir.path());
    let file = run.join("config.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("\ngamma = 0.98"), "{text}");
    std::fs::write(&file, text.replace("\ngamma = 0.98", "\ngamma = 0.97")).unwrap();
    let error = Runner::default().resume(&run).unwrap_err();
    says(&error, 64, &["`gamma` was 0.98 when the checkpoint of step 576 was saved, and is 0.97 now"]);
    for step in [384, 480, 576] {
        assert!(state(&run, step).exists(), "nothing was removed");
    }
    // Comments and order are not the configuration.
    std::fs::write(&file, format!("# mine\n{text}")).unwrap();
    assert!(!Runner::default().resume(&run).unwrap().stopped);
}

#[test]
fn a_configuration_that_cannot_be_read_is_an_error_with_its_place() {
    let dir = tempdir().unwrap();
    let (_, run) = stopped_run(dir.path());
    let file = run.join("config.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    for (broken, parts) in [
        (text.replace("gamma = ", "gama = "), &["config.toml:", "gama", "gamma"][..]),
        (text.replace("\"CartPole-v1\"", "\"CartPole-v7\""), &["CartPole-v7", "CartPole-v1"]),
        (text.replace("\"ppo\"", "\"pop\""), &["pop", "ppo"]),
        (text.replace("gamma = ", "gamma = = "), &["config.toml"]),
    ] {
        assert_ne!(broken, text);
        std::fs::write(&file, broken).unwrap();
        says(&Runner::default().resume(&run).unwrap_err(), 64, parts);
    }
    std::fs::write(&file, text).unwrap();
    assert!(!Runner::default().resume(&run).unwrap().stopped);
}

// ---- a full disk ----

/// The file system, with a disk that can be full.
#[derive(Debug, Default)]
struct Disk {
    full: AtomicBool,
}

impl Disk {
    fn room(&self, operation: Operation, path: &Path) -> Result<(), StorageError> {
        const ENOSPC: i32 = 28;
        let cause = std::io::Error::from_raw_os_error(ENOSPC);
        match self.full.load(Ordering::SeqCst) {
            true => Err(StorageError { operation, path: path.to_owned(), cause }),
            false => Ok(()),
        }
    }
}

impl Storage for Disk {
    fn create_dir(&self, path: &Path) -> Result<(), StorageError> {
        self.room(Operation::CreateDir, path)?;
        FsStorage.create_dir(path)
    }
    fn create_dir_all(&self, path: &Path) -> Result<(), StorageError> {
        self.room(Operation::CreateDir, path)?;
        FsStorage.create_dir_all(path)
    }
    fn write_new(&self, path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
        self.room(Operation::Write, path)?;
        FsStorage.write_new(path, bytes)
    }
    fn append(&self, path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
        self.room(Operation::Write, path).inspect_err(|_| {
            // Half of it still finds room.
            FsStorage.append(path, &bytes[..bytes.len() / 2]).unwrap();
        })?;
        FsStorage.append(path, bytes)
    }
    fn truncate(&self, path: &Path, len: u64) -> Result<(), StorageError> {
        FsStorage.truncate(path, len)
    }
    fn sync_file(&self, path: &Path) -> Result<(), StorageError> {
        FsStorage.sync_file(path)
    }
    fn sync_dir(&self, path: &Path) -> Result<(), StorageError> {
        FsStorage.sync_dir(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<(), StorageError> {
        FsStorage.rename(from, to)
    }
    fn replace(&self, from: &Path, to: &Path) -> Result<(), StorageError> {
        FsStorage.replace(from, to)
    }
    fn list(&self, path: &Path) -> Result<Vec<Entry>, StorageError> {
        FsStorage.list(path)
    }
    fn kind(&self, path: &Path) -> Result<Option<EntryKind>, StorageError> {
        FsStorage.kind(path)
    }
    fn read(&self, path: &Path, max_len: u64) -> Result<Vec<u8>, StorageError> {
        FsStorage.read(path, max_len)
    }
    fn remove_file(&self, path: &Path) -> Result<(), StorageError> {
        FsStorage.remove_file(path)
    }
    fn remove_dir_all(&self, path: &Path) -> Result<(), StorageError> {
        FsStorage.remove_dir_all(path)
    }
}

/// A runner whose disk is full from iteration `from` on, until iteration `to`.
fn runner_with_full_disk(from: u64, to: u64) -> Runner {
    runner_with_disk_full_when(move |iteration| (from..to).contains(&iteration))
}

fn runner_with_disk_full_when(full: impl Fn(u64) -> bool + 'static) -> Runner {
    let disk = Arc::new(Disk::default());
    let storage = Arc::<Disk>::clone(&disk);
    let hook = Box::new(move |p: &pgrad_run::driver::Progress| {
        disk.full.store(full(p.iterations), Ordering::SeqCst);
    });
    Runner { storage, hook, ..Runner::default() }
}

#[test]
fn a_full_disk_that_is_cleared_in_time_costs_rows_and_no_result() {
    let dir = tempdir().unwrap();
    let (whole, run) = (dir.path().join("whole"), dir.path().join("run"));
    Runner::default().train(&whole, config("CartPole-v1", MANY)).unwrap();
    let mut runner = runner_with_full_disk(2, 4);
    assert!(!runner.train(&run, config("CartPole-v1", MANY)).unwrap().stopped);
    let count = |part: &str| runner.notices.iter().filter(|n| n.contains(part)).count();
    assert_eq!(count("training continues"), 2, "{:?}", runner.notices);
    assert_eq!(count("a row of metrics was lost"), 1, "{:?}", runner.notices);
    assert_eq!(count("the disk is full"), 3, "{:?}", runner.notices);
    let policy = |run: &Path| std::fs::read(run.join("policy.safetensors")).unwrap();
    assert!(policy(&run) == policy(&whole));
    let log = read_log(&FsStorage, &run.join("metrics.jsonl")).unwrap();
    let steps: Vec<u64> = log.rows.iter().map(|r| r.step / 96).collect();
    assert_eq!((steps, log.torn), (vec![1, 2, 5, 6, 7, 8, 9, 10], None), "no half row is left");
}

#[test]
fn a_disk_that_stays_full_ends_the_run_after_three_checkpoints() {
    let dir = tempdir().unwrap();
    let (whole, run) = (dir.path().join("whole"), dir.path().join("run"));
    Runner::default().train(&whole, config("CartPole-v1", MANY)).unwrap();
    let mut runner = runner_with_full_disk(3, u64::MAX);
    let error = runner.train(&run, config("CartPole-v1", MANY)).unwrap_err();
    says(&error, 74, &["480", "not saved", "the disk is full", "--run-dir"]);
    assert_eq!(runner.progress.len(), 5, "two more iterations were tried");
    let mut second = Runner::default();
    assert!(!second.resume(&run).unwrap().stopped);
    assert_eq!(second.progress[0].steps, 288, "the last checkpoint before the disk was full");
    assert!(result(&run) == result(&whole));
}

#[test]
fn a_disk_that_is_full_now_and_then_does_not_end_the_run() {
    let dir = tempdir().unwrap();
    let run = dir.path().join("run");
    // Two checkpoints of three fail, never three in a row.
    let mut runner = runner_with_disk_full_when(|iteration| iteration % 3 != 1);
    assert!(!runner.train(&run, config("CartPole-v1", MANY)).unwrap().stopped);
    let failed = runner.notices.iter().filter(|n| n.contains("training continues")).count();
    assert_eq!(failed, 6, "{:?}", runner.notices);
}

#[test]
fn a_disk_that_is_full_at_the_end_is_an_error_and_the_run_can_be_resumed() {
    let dir = tempdir().unwrap();
    let (whole, run) = (dir.path().join("whole"), dir.path().join("run"));
    Runner::default().train(&whole, config("CartPole-v1", MANY)).unwrap();
    let error = runner_with_full_disk(10, u64::MAX).train(&run, config("CartPole-v1", MANY)).unwrap_err();
    says(&error, 74, &["960", "the disk is full"]);
    assert!(!Runner::default().resume(&run).unwrap().stopped);
    assert!(result(&run) == result(&whole));
}

#[test]
fn a_disk_that_is_full_from_the_start_is_an_error() {
    let dir = tempdir().unwrap();
    let mut runner = runner_with_full_disk(0, u64::MAX);
    (runner.hook)(&no_progress());
    let error = runner.train(&dir.path().join("run"), config("CartPole-v1", MANY)).unwrap_err();
    says(&error, 74, &["the disk is full"]);
    assert!(runner.progress.is_empty(), "found out before any training");
}

fn no_progress() -> pgrad_run::driver::Progress {
    pgrad_run::driver::Progress {
        steps: 0,
        total_steps: 0,
        iterations: 0,
        seconds: 0.0,
        steps_per_second: 0.0,
        seconds_left: 0.0,
        episodes: 0,
        return_mean_100: None,
        length_mean_100: None,
        report: pgrad_algos::Report::default(),
    }
}
