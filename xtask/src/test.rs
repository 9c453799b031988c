//! All there is to test, and what it needs, from nothing.

use crate::mujoco;
use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use xtask::command::{cargo, output, root, run as run_command};

/// Tests read this variable: a Python that has what they compare with.
const VARIABLE: &str = "PGRAD_PYTHON";
/// What the tests import: TensorBoard reads the event files back, and environments of Gymnasium and EnvPool
/// are run.
const IMPORT: &str = "from tensorboard.backend.event_processing import event_accumulator; import envpool, gymnasium, numpy; \
                      assert int(gymnasium.__version__.split('.')[0]) >= 1";
/// All crates, with the features that have tests.
pub(crate) const EVERYTHING: [&str; 3] = ["--workspace", "--features", "mujoco"];
/// What pip installs for it.
const PACKAGES: [&str; 4] = ["tensorboard>=2.14", "gymnasium>=1.0", "numpy", "envpool==1.2.5"];

/// Runs the tests, with `rest` in place of `--workspace` when there is anything.
///
/// # Errors
/// When something that they need cannot be had, or a test fails.
pub(crate) fn run(rest: &[&str]) -> Result<()> {
    let python = python()?;
    if rest.is_empty() {
        mujoco::run()?;
    }
    cargo_test(rest, &python)
}

/// Compiles the tests of everything; what they link with is there already.
///
/// # Errors
/// When they do not compile.
pub(crate) fn build() -> Result<()> {
    run_command(cargo(&["test", "--locked", "--no-run"]).args(EVERYTHING))
}

fn cargo_test(rest: &[&str], python: &Path) -> Result<()> {
    let mut command = cargo(&["test", "--locked"]);
    if rest.is_empty() {
        command.args(EVERYTHING);
    }
    run_command(command.args(rest).env(VARIABLE, python))
}

/// Whether this Python can do `import`.
pub(crate) fn can_import(python: &OsStr, import: &str) -> bool {
    output(Command::new(python).args(["-c", import])).is_ok()
}

/// A Python that has what the tests need: the one that was named, the system's, or one made for them.
///
/// # Errors
/// When there is none and none can be made.
pub(crate) fn python() -> Result<PathBuf> {
    if let Some(given) = std::env::var_os(VARIABLE) {
        if !can_import(&given, IMPORT) {
            bail!(
                "{VARIABLE} is {given:?}, which cannot do `{IMPORT}`: install the packages {PACKAGES:?} for it"
            );
        }
        return Ok(given.into());
    }
    if can_import(OsStr::new("python3"), IMPORT) {
        return Ok("python3".into());
    }
    let folder = root().join("target/test-python");
    let python = folder.join("bin/python");
    if !can_import(python.as_os_str(), IMPORT) {
        println!(
            "the tests read event files back with TensorBoard and run Gymnasium and EnvPool: making a Python for them in target/test-python"
        );
        make(&folder, &python)
            .with_context(|| format!("or set {VARIABLE} to a Python that has the packages {PACKAGES:?}"))?;
    }
    Ok(python)
}

fn make(folder: &Path, python: &Path) -> Result<()> {
    if output(Command::new("python3").arg("--version")).is_err() {
        bail!("there is no `python3`; install it (Debian, Ubuntu: apt-get install python3 python3-venv)");
    }
    run_command(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder)).context(
        "`python3` cannot make a virtual environment (Debian, Ubuntu: apt-get install python3-venv)",
    )?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    run_command(Command::new(python).args(pip).args(PACKAGES))
        .with_context(|| format!("pip cannot install {PACKAGES:?}"))?;
    // Says why, where `can_import` would only say that.
    output(Command::new(python).args(["-c", IMPORT])).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_told_from_what_is_not() {
        let python = OsStr::new("python3");
        assert!(can_import(python, "import sys"));
        assert!(!can_import(python, "import no_such_module_of_pgrad"));
        assert!(!can_import(OsStr::new("no-such-python"), "import sys"));
    }
}
