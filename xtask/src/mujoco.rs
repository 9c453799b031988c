//! Gets the MuJoCo library and the model files of Gymnasium's tasks, for the feature `mujoco`.
//!
//! Both come from Python packages: the library from `mujoco`, in the version that the crate `mujoco-rs`
//! binds, the models from `gymnasium`. They go to a folder of `target`, where `.cargo/config.toml` lets the
//! crate look for the library. Nothing of theirs is committed.

use anyhow::{Context, Result, anyhow, bail};
use std::path::{Path, PathBuf};
use std::process::Command;
use xtask::command::{output, root, run as run_command};

/// The folder of it all. Its name says how to make it, because it stands in what the build of `mujoco-rs`
/// says when it is missing.
const FOLDER: &str = "target/cargo-xtask-mujoco";
/// Version of Gymnasium that the models are of, and that the tests compare with.
const GYMNASIUM: &str = "1.3.0";
/// What both packages were found to be, written last.
const STAMP: &str = "versions.txt";
/// What the tests compare with, and what makes it.
const TRAJECTORIES: &str = "trajectories";
const SCRIPT: &str = "goldens/mujoco/trajectories.py";
/// Prints the folders of the packages, one a line.
const WHERE: &str = "\
from importlib.util import find_spec
for name in ('mujoco', 'gymnasium'):
    print(find_spec(name).submodule_search_locations[0])
";

/// Gets what is not there yet.
///
/// # Errors
/// When there is no Python, its packages cannot be installed, or they do not hold what they must.
pub(crate) fn run() -> Result<()> {
    packages()?;
    trajectories()
}

/// Library and models.
fn packages() -> Result<()> {
    let versions = versions()?;
    let folder = root().join(FOLDER);
    if std::fs::read_to_string(folder.join(STAMP)).is_ok_and(|text| text == versions) {
        println!("{FOLDER} has {}", versions.trim_end().replace('\n', " and "));
        return Ok(());
    }
    println!("getting {} into {FOLDER}", versions.trim_end().replace('\n', " and "));
    let package = |line: &str| line.replace(' ', "==").replace("gymnasium==", "gymnasium[mujoco]==");
    let packages: Vec<String> = versions.lines().map(package).collect();
    make_python(&folder.join("python"), &packages)?;
    let found = output(Command::new(python()).args(["-c", WHERE]))?;
    let (mujoco, gymnasium) = found.trim().split_once('\n').context("the folders of the packages")?;
    library(Path::new(mujoco), &folder.join("lib"))?;
    let models = Path::new(gymnasium).join("envs/mujoco/assets");
    copy_all(&models, &folder.join("models"), |name| name.ends_with(".xml"))?;
    std::fs::write(folder.join(STAMP), versions).with_context(|| format!("writing {STAMP}"))?;
    println!("now `cargo run --release --features mujoco -- train ppo HalfCheetah-v5` works");
    Ok(())
}

/// Trajectories of the real Gymnasium, made again when what makes them has changed.
fn trajectories() -> Result<()> {
    let (folder, script) = (root().join(FOLDER).join(TRAJECTORIES), root().join(SCRIPT));
    let text = std::fs::read_to_string(&script).with_context(|| SCRIPT)?;
    let stamp = folder.join(STAMP);
    let made_by = format!("{}\n{text}", versions()?);
    if std::fs::read_to_string(&stamp).is_ok_and(|made| made == made_by) {
        return Ok(());
    }
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    // MuJoCo writes what it remarks on into the working folder.
    run_command(Command::new(python()).arg(&script).arg(&folder).current_dir(&folder))?;
    std::fs::write(&stamp, made_by).with_context(|| stamp.display().to_string())
}

/// The Python that has both packages, once [`run`] has made it.
fn python() -> PathBuf {
    root().join(FOLDER).join("python/bin/python")
}

/// What is to be had: a line `NAME VERSION` for each package.
fn versions() -> Result<String> {
    let path = root().join("Cargo.lock");
    let lock = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let mujoco =
        bound(&lock).ok_or_else(|| anyhow!("Cargo.lock does not say which MuJoCo `mujoco-rs` binds"))?;
    Ok(format!("mujoco {mujoco}\ngymnasium {GYMNASIUM}\n"))
}

/// The version of MuJoCo that the locked `mujoco-rs` binds: what is behind `+mj-` in its own version.
fn bound(lock: &str) -> Option<&str> {
    let (_, rest) = lock.split_once("name = \"mujoco-rs\"\nversion = \"")?;
    let (version, _) = rest.split_once('"')?;
    Some(version.split_once("+mj-")?.1)
}

fn make_python(folder: &Path, packages: &[String]) -> Result<()> {
    if output(Command::new("python3").arg("--version")).is_err() {
        bail!("there is no `python3`; install it (Debian, Ubuntu: apt-get install python3 python3-venv)");
    }
    run_command(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder)).context(
        "`python3` cannot make a virtual environment (Debian, Ubuntu: apt-get install python3-venv)",
    )?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    run_command(Command::new(python()).args(pip).args(packages))
        .with_context(|| format!("pip cannot install {}", packages.join(" ")))
}

/// Copies the library of the package to `to`, under its own name and the one that is linked with.
fn library(package: &Path, to: &Path) -> Result<()> {
    let is_library =
        |name: &str| name.starts_with("libmujoco.") && (name.contains(".so") || name.ends_with(".dylib"));
    let copied = copy_all(package, to, is_library)?;
    let name = &copied[0];
    let linked = if name.ends_with(".dylib") { "libmujoco.dylib" } else { "libmujoco.so" };
    if name != linked {
        let _ = std::fs::remove_file(to.join(linked));
        #[cfg(unix)]
        std::os::unix::fs::symlink(name, to.join(linked)).with_context(|| format!("linking {linked}"))?;
        #[cfg(not(unix))]
        std::fs::copy(to.join(name), to.join(linked)).with_context(|| format!("copying {linked}"))?;
    }
    Ok(())
}

/// Copies the files of a folder that `wanted` names, and returns their names: at least one.
fn copy_all(from: &Path, to: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    std::fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if wanted(&name) {
            std::fs::copy(entry.path(), to.join(&name)).with_context(|| format!("copying {name}"))?;
            names.push(name);
        }
    }
    if names.is_empty() {
        bail!("{} does not hold what was expected of this version", from.display());
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_says_which_version_is_bound() {
        let lock = "[[package]]\nname = \"mujoco-rs\"\nversion = \"7.0.0+mj-3.17.0\"\nsource = \"x\"\n";
        assert_eq!(bound(lock), Some("3.17.0"));
        assert_eq!(bound("[[package]]\nname = \"mujoco\"\nversion = \"7.0.0\"\n"), None);
        assert!(versions().unwrap_or_default().starts_with("mujoco 3."), "the lock of this workspace");
    }
}
