//! A run whose environments fail more than a thousand times: descriptors and memory must stay as they are.

use crate::test::python;
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use xtask::command::{cargo, root, run as run_command};

/// Restarts that are asked for.
const RESTARTS: f64 = 1000.0;
/// Growth of the resident memory from the first third on that is none: what an allocator keeps.
const GROWTH: f64 = 1.05;
const SETTINGS: [&str; 9] = [
    "n_envs=8",
    "n_steps=64",
    "minibatch_size=128",
    "envs_per_shard=4",
    "hidden=16,16",
    "env_restarts=1000000",
    "env_restarts_each=1000000",
    "checkpoint_secs=1e6",
    "normalize_obs=true",
];

/// Descriptors and resident KiB of a process; `None` when it is gone.
fn look(pid: u32) -> Option<(usize, f64)> {
    let folder = Path::new("/proc").join(pid.to_string());
    let descriptors = std::fs::read_dir(folder.join("fd")).ok()?.count();
    let status = std::fs::read_to_string(folder.join("status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    Some((descriptors, line.trim().trim_end_matches("kB").trim().parse().ok()?))
}

/// Runs it.
///
/// # Errors
/// When the run fails, restarts are fewer than asked for, or something grows.
pub(crate) fn run() -> Result<()> {
    let python = python()?;
    run_command(&mut cargo(&["build", "--locked", "--release", "-p", "pgrad-cli"]))?;
    let folder = root().join("target/soak");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).context("target/soak cannot be removed")?;
    }
    let mut command = Command::new(root().join("target/release/pgrad"));
    command
        .args([
            "train",
            "ppo",
            "gym:tests.misbehaving:Soak-v0",
            "--preset",
            "none",
            "--steps",
            "25000",
            "--quiet",
        ])
        .arg("--run-dir")
        .arg(&folder)
        .arg("--python")
        .arg(&python)
        .args(SETTINGS.iter().flat_map(|s| ["--set", s]))
        // Where `tests.misbehaving` is found.
        .current_dir(root().join("crates/pgrad-gym"))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = command.spawn().context("pgrad cannot be started")?;
    let mut seen = Vec::new();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        seen.extend(look(child.id()));
        std::thread::sleep(Duration::from_millis(250));
    };
    if !status.success() {
        bail!("the run failed ({status}); its notices: {}", folder.display());
    }
    let rows = std::fs::read_to_string(folder.join("metrics.jsonl"))?;
    let last: serde_json::Value = serde_json::from_str(rows.lines().last().unwrap_or_default())?;
    let restarts = last["env/restarts"].as_f64().context("the metrics do not count restarts")?;
    let third = seen.len() / 3;
    if restarts < RESTARTS || third < 5 {
        bail!("{restarts} restarts in {} looks: too few to say anything", seen.len());
    }
    // The usual number of descriptors (a process that is just being replaced has more or fewer) and the most
    // memory.
    let middle = |part: &[(usize, f64)]| {
        let mut counts: Vec<usize> = part.iter().map(|s| s.0).collect();
        counts.sort_unstable();
        (counts[counts.len() / 2], part.iter().map(|s| s.1).fold(0.0, f64::max))
    };
    let (first, end) = (middle(&seen[third..2 * third]), middle(&seen[2 * third..]));
    println!(
        "{restarts} restarts: descriptors {} in the second third and {} in the last, resident {} KiB and {} KiB",
        first.0, end.0, first.1, end.1
    );
    if end.0 > first.0 || end.1 > GROWTH * first.1 {
        bail!("something grows with the restarts");
    }
    Ok(())
}
