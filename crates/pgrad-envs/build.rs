//! With the feature `mujoco`: says what to do when the library is missing, and lets programs find it where it
//! was linked from. The crates whose programs link with it share this file.

use std::path::PathBuf;
use std::process::ExitCode;

pub(crate) fn main() -> ExitCode {
    let variable = "MUJOCO_DYNAMIC_LINK_DIR";
    // Cargo runs a build script again whenever the script itself changes; a path named here would be looked
    // for in the folder of each crate that shares this file, and where it is missing every build would start
    // anew.
    println!("cargo::rerun-if-env-changed={variable}");
    let (Some(_), Some(folder)) = (std::env::var_os("CARGO_FEATURE_MUJOCO"), std::env::var_os(variable))
    else {
        return ExitCode::SUCCESS;
    };
    let folder = PathBuf::from(folder);
    let os = std::env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    let name = match os.as_str() {
        "windows" => "mujoco.lib",
        "macos" => "libmujoco.dylib",
        _ => "libmujoco.so",
    };
    println!("cargo::rerun-if-changed={}", folder.join(name).display());
    if !folder.join(name).is_file() {
        println!("cargo::error=the MuJoCo library is not in {}: run `cargo xtask mujoco`", folder.display());
        return ExitCode::FAILURE;
    }
    if os != "windows" {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{}", folder.display());
    }
    ExitCode::SUCCESS
}
