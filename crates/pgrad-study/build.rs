//! Stamps the program with what its results depend on: a digest of the sources, and the revision that they
//! are of.
//!
//! `PGRAD_SOURCES` is a digest of everything that decides the bits of a run: the sources of the crates from
//! the numbers up to this one (those that draw aside), and the lock file, which pins the crates below them.
//! `PGRAD_REVISION` is the commit, with `+` where what is built differs from it. Both are `unknown` where
//! they cannot be told, in an unpacked archive for example.

use std::{
    env, fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

/// The crates that the numbers of a run come from.
const CRATES: [&str; 14] = [
    "pgrad-num",
    "pgrad-settings",
    "pgrad-math",
    "pgrad-nn",
    "pgrad-optim",
    "pgrad-env",
    "pgrad-envs",
    "pgrad-space",
    "pgrad-model",
    "pgrad-engine",
    "pgrad-collect",
    "pgrad-algos",
    "pgrad-run",
    "pgrad-study",
];
const UNKNOWN: &str = "unknown";

/// Programs of this crate link with MuJoCo like those of `pgrad-envs`.
#[path = "../pgrad-envs/build.rs"]
mod mujoco;

fn main() -> ExitCode {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("../..");
    let paths: Vec<PathBuf> = CRATES
        .iter()
        .map(|c| format!("crates/{c}/src").into())
        .chain([PathBuf::from("Cargo.lock")])
        .collect();
    for path in &paths {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    let sources = digest(&root, &paths).map_or_else(|_| UNKNOWN.to_owned(), |d| format!("{d:016x}"));
    println!("cargo::rustc-env=PGRAD_SOURCES={sources}");
    println!(
        "cargo::rustc-env=PGRAD_REVISION={}",
        revision(&root, &paths).unwrap_or_else(|| UNKNOWN.to_owned())
    );
    mujoco::main()
}

/// The digest of all files below the paths. The hasher of the standard library may be another one in another
/// release of Rust: results then count as made by other sources, which they may be.
fn digest(root: &Path, paths: &[PathBuf]) -> io::Result<u64> {
    let mut files = Vec::new();
    for path in paths {
        list(root, path, &mut files)?;
    }
    files.sort();
    let mut hasher = DefaultHasher::new();
    for file in files {
        // The name with one separator on every system; lines end in one way, too.
        let name: Vec<_> = file.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        let text: Vec<u8> = fs::read(root.join(&file))?.into_iter().filter(|b| *b != b'\r').collect();
        (name, text).hash(&mut hasher);
    }
    Ok(hasher.finish())
}

fn list(root: &Path, path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let full = root.join(path);
    if !fs::metadata(&full)?.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(full)? {
        list(root, &path.join(entry?.file_name()), files)?;
    }
    Ok(())
}

/// The commit of this very repository; not that of one that the sources were unpacked into.
fn revision(root: &Path, paths: &[PathBuf]) -> Option<String> {
    let git = |args: &[&str]| {
        let out = Command::new("git").arg("-C").arg(root).args(args).output().ok()?;
        out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
    };
    let top = git(&["rev-parse", "--show-toplevel"])?;
    if fs::canonicalize(top).ok()? != fs::canonicalize(root).ok()? {
        return None;
    }
    // A commit adds a line to the log of HEAD. Not every clone keeps one, but a path that is missing would
    // make every build start anew.
    let log = root.join(git(&["rev-parse", "--git-path", "logs/HEAD"])?);
    let watched = if log.exists() { log } else { root.join(git(&["rev-parse", "--git-path", "HEAD"])?) };
    println!("cargo::rerun-if-changed={}", watched.display());
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let names = paths.iter().filter_map(|p| p.to_str());
    let same = git(&[&["diff", "--quiet", "HEAD", "--"], &names.collect::<Vec<_>>()[..]].concat()).is_some();
    Some(if same { commit } else { commit + "+" })
}
