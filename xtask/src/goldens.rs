//! Makes the goldens again.

use anyhow::{Result, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use xtask::command::{root, run as run_command};
use xtask::pages::files;

/// What makes the goldens of a folder.
const SCRIPT: &str = "make.py";

type Contents = BTreeMap<PathBuf, Vec<u8>>;

/// Runs every script under `goldens/` and says which files changed.
///
/// # Errors
/// When a script fails: it says at its top what it needs.
pub(crate) fn run() -> Result<()> {
    let folder = root().join("goldens");
    let before = contents(&folder)?;
    let scripts: Vec<_> = before.keys().filter(|f| f.file_name().is_some_and(|n| n == SCRIPT)).collect();
    if scripts.is_empty() {
        bail!("there is no {SCRIPT} under {}", folder.display());
    }
    let python = std::env::var_os("PGRAD_PYTHON").unwrap_or_else(|| "python3".into());
    for script in scripts {
        run_command(Command::new(&python).arg(script))?;
    }
    let changes = changes(&before, &contents(&folder)?);
    for (what, file) in &changes {
        println!("{what}: {}", file.strip_prefix(root()).unwrap_or(file).display());
    }
    println!("goldens: {} of {} files changed", changes.len(), before.len());
    Ok(())
}

fn contents(folder: &Path) -> Result<Contents> {
    files(folder, "")?.into_iter().map(|f| Ok((f.clone(), std::fs::read(f)?))).collect()
}

/// What differs, in name order.
fn changes(before: &Contents, after: &Contents) -> Vec<(&'static str, PathBuf)> {
    let mut all: Vec<&PathBuf> = before.keys().chain(after.keys()).collect();
    all.sort();
    all.dedup();
    all.into_iter()
        .filter_map(|file| {
            let what = match (before.get(file), after.get(file)) {
                (Some(old), Some(new)) if old == new => return None,
                (Some(_), Some(_)) => "changed",
                (None, _) => "new",
                (_, None) => "gone",
            };
            Some((what, file.clone()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_difference_is_named() {
        let of = |entries: &[(&str, &str)]| -> Contents {
            entries.iter().map(|(f, text)| (PathBuf::from(f), text.as_bytes().to_vec())).collect()
        };
        let before = of(&[("a", "1"), ("b", "1"), ("c", "1")]);
        let after = of(&[("a", "1"), ("b", "2"), ("d", "1")]);
        let expected = [("changed", "b".into()), ("gone", "c".into()), ("new", "d".into())];
        assert_eq!(changes(&before, &after), expected);
    }
}
