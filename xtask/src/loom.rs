//! Models of what threads share without locks, in all orders that the memory model allows.

use anyhow::Result;
use xtask::command::{cargo, run};

/// Crates with models, which are library tests whose names begin with `loom_`.
const CRATES: &[&str] = &["pgrad-num", "pgrad-collect"];

/// Runs the models: the atomics are loom's, and each model is run in every interleaving of its threads.
///
/// # Errors
/// When one fails.
pub(crate) fn run_models() -> Result<()> {
    for name in CRATES {
        let args = ["test", "--locked", "--release", "-p", name, "--lib", "loom_"];
        // A folder of its own, so that other builds need not be made anew.
        run(cargo(&args).env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", "target/loom"))?;
    }
    Ok(())
}
