//! The bits of training: `cargo xtask bits`.
//!
//! Each line of `goldens/bits.txt` is a short run, and the digest of the parameters it ends with. A change
//! that only moves code leaves every digest as it is. A change that means to alter results says so in the
//! changelog and writes the file anew with `--fix`.

use anyhow::{Context, Result, bail};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use xtask::command::{cargo, root, run as run_command};

/// Compares every run with its digest, or writes the digests anew with `fix`. Only runs that contain all of
/// `words` are made. `binary` is the command to try; without one it is built.
///
/// # Errors
/// When a run fails or ends with other parameters.
pub(crate) fn run(fix: bool, binary: Option<&str>, words: &[&str]) -> Result<()> {
    let binary = match binary {
        Some(path) => PathBuf::from(path),
        None => build()?,
    };
    let table = root().join("goldens/bits.txt");
    let text = std::fs::read_to_string(&table).with_context(|| format!("cannot read {}", table.display()))?;
    let folder = std::env::temp_dir().join(format!("pgrad-bits-{}", std::process::id()));
    let mut written = String::new();
    let (mut made, mut different) = (0, Vec::new());
    for line in text.lines() {
        let Some((golden, case)) = line.split_once("  ").filter(|_| !line.starts_with('#')) else {
            writeln!(written, "{line}")?;
            continue;
        };
        if !words.iter().all(|word| case.contains(word)) {
            writeln!(written, "{line}")?;
            continue;
        }
        let digest = digest(&binary, case, &folder).with_context(|| format!("pgrad train {case}"))?;
        made += 1;
        if digest != golden {
            println!("{golden} is now {digest}: pgrad train {case}");
            different.push(case);
        }
        writeln!(written, "{digest}  {case}")?;
    }
    println!("{made} runs, {} with other parameters", different.len());
    if fix {
        std::fs::write(&table, written).with_context(|| format!("cannot write {}", table.display()))?;
    } else if !different.is_empty() {
        bail!(
            "training has other bits; if that is meant, say so in CHANGELOG.md and run `cargo xtask bits --fix`"
        );
    }
    Ok(())
}

fn build() -> Result<PathBuf> {
    run_command(&mut cargo(&["build", "--release", "--locked", "-p", "pgrad-cli"]))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    Ok(target.join("release/pgrad"))
}

/// The digest of the parameters that `pgrad train CASE` ends with.
fn digest(binary: &Path, case: &str, folder: &Path) -> Result<String> {
    let mut command = Command::new(binary);
    command.arg("train").args(case.split_whitespace()).args(["--quiet", "--threads", "2", "--run-dir"]);
    let out = command.arg(folder).stdin(Stdio::null()).output()?;
    let result = if out.status.success() {
        parameters(&folder.join("policy.safetensors"))
    } else {
        Err(anyhow::anyhow!("{}\n{}", out.status, String::from_utf8_lossy(&out.stderr)))
    };
    drop(std::fs::remove_dir_all(folder));
    result
}

/// FNV-1a over the numbers of a safetensors file, without its header.
fn parameters(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let header = bytes.first_chunk().map(|length| u64::from_le_bytes(*length) as usize);
    let numbers = header.and_then(|header| bytes.get(8 + header..)).context("no safetensors file")?;
    let hash = numbers
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3));
    Ok(format!("{hash:016x}"))
}
