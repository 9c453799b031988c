//! The command is killed, stopped and starved, and resumed: nothing that was saved is lost, and the bits are
//! the same.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test whose command cannot be started fails")]

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;
use tempfile::TempDir;

fn pgrad(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("pgrad"));
    command.current_dir(dir).args(args).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn code(command: &mut Command) -> i32 {
    command.status().unwrap().code().unwrap()
}

const SMALL: &[&str] = &[
    "train",
    "reinforce",
    "CartPole-v1",
    "--preset",
    "none",
    "--steps",
    "12000",
    "--set",
    "hidden=8",
    "--set",
    "checkpoint_secs=0.001",
    "--threads",
    "1",
    "-q",
    "--run-dir",
];

fn kill(child: &Child, signal: &str) {
    let status = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// Steps and losses of the rows, without what depends on the clock.
fn rows(run: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let row = |line: &str| {
        let mut row: serde_json::Value = serde_json::from_str(line).unwrap();
        row.as_object_mut().unwrap().retain(|name, _| !name.starts_with("time/"));
        row
    };
    text.lines().map(row).collect()
}

#[test]
fn a_run_that_is_killed_again_and_again_ends_with_the_same_bits() {
    let dir = TempDir::new().unwrap();
    assert_eq!(code(pgrad(dir.path(), SMALL).arg("whole")), 0);
    let (run, whole) = (dir.path().join("run"), dir.path().join("whole"));
    // Killed the later the more often it was begun: at the start, while it saves, while it trains.
    for millis in 0.. {
        let mut command = match run.join("config.toml").exists() {
            true => pgrad(dir.path(), &["resume", "run", "-q"]),
            false => {
                let mut command = pgrad(dir.path(), SMALL);
                command.arg("run");
                command
            }
        };
        let mut child = command.spawn().unwrap();
        sleep(Duration::from_millis(1 + 12 * millis));
        // It may have come to its end just now.
        let _ = child.kill();
        let status = child.wait().unwrap();
        if status.code() == Some(0) {
            break;
        }
        assert_eq!(status.signal(), Some(9), "{millis}: {status:?}");
    }
    assert_eq!(
        fs::read(run.join("policy.safetensors")).unwrap(),
        fs::read(whole.join("policy.safetensors")).unwrap()
    );
    assert_eq!(rows(&run), rows(&whole));
    let left = fs::read_dir(&run)
        .unwrap()
        .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().contains(".tmp-"));
    assert_eq!(left.count(), 0, "half-written files are removed");
}

#[test]
fn every_signal_that_asks_to_stop_saves() {
    for signal in ["-HUP", "-USR1", "-TERM", "-XCPU"] {
        let dir = TempDir::new().unwrap();
        let run = dir.path().join("run");
        let args = ["train", "reinforce", "CartPole-v1", "--steps", "1e9", "-q", "--run-dir", "run"];
        let mut child = pgrad(dir.path(), &args).spawn().unwrap();
        while fs::metadata(run.join("metrics.jsonl")).map_or(0, |m| m.len()) == 0 {
            sleep(Duration::from_millis(10));
        }
        kill(&child, signal);
        assert_eq!(child.wait().unwrap().code(), Some(75), "{signal}");
        assert_eq!(fs::read_dir(run.join("checkpoints")).unwrap().count(), 1, "{signal}");
    }
}

/// One iteration of this takes minutes.
#[test]
fn an_iteration_that_does_not_end_is_left() {
    let dir = TempDir::new().unwrap();
    let args = [
        "train",
        "ppo",
        "CartPole-v1",
        "--preset",
        "none",
        "--steps",
        "1e9",
        "-q",
        "--run-dir",
        "run",
        "--set",
        "n_steps=8192",
        "--set",
        "n_envs=64",
        "--set",
        "epochs=100",
        "--set",
        "hidden=256,256",
    ];
    let mut child = pgrad(dir.path(), &args).spawn().unwrap();
    while !dir.path().join("run/metrics.jsonl").exists() {
        sleep(Duration::from_millis(10));
    }
    sleep(Duration::from_millis(200));
    kill(&child, "-TERM");
    assert_eq!(child.wait().unwrap().code(), Some(75));
    assert_eq!(fs::metadata(dir.path().join("run/metrics.jsonl")).unwrap().len(), 0, "no iteration was done");
}

#[test]
fn a_policy_that_is_a_pipe_or_a_link_is_refused() {
    let dir = TempDir::new().unwrap();
    assert_eq!(code(pgrad(dir.path(), SMALL).arg("run")), 0);
    let policy = dir.path().join("run/policy.safetensors");
    fs::remove_file(&policy).unwrap();
    assert!(Command::new("mkfifo").arg(&policy).status().unwrap().success());
    assert_eq!(code(&mut pgrad(dir.path(), &["eval", "run"])), 65);
    fs::remove_file(&policy).unwrap();
    symlink("/dev/zero", &policy).unwrap();
    assert_eq!(code(&mut pgrad(dir.path(), &["eval", "run"])), 65);
}
