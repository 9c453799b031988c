//! The book's page of settings, generated from their declarations.

use anyhow::{Context, Result, bail};
use xtask::command::{cargo, output, root};

const PAGE: &str = "book/src/reference.md";

/// Writes the page, or checks that it is up to date.
///
/// # Errors
/// When the generator does not run, or the page is stale.
pub(crate) fn run(check: bool) -> Result<()> {
    // The profile of the tests, so that what is built for them is not built again.
    let mut args = vec!["run", "--quiet", "--locked", "--profile", "test", "-p", "xtask"];
    args.extend(["--features", "reference", "--bin", "reference"]);
    let fresh = output(&mut cargo(&args))?;
    let path = root().join(PAGE);
    let old = std::fs::read_to_string(&path).unwrap_or_default();
    if old == fresh {
        println!("{PAGE} is up to date");
    } else if check {
        bail!("{PAGE} is stale: `cargo xtask reference` writes it anew");
    } else {
        std::fs::write(&path, fresh).with_context(|| format!("cannot write {PAGE}"))?;
        println!("{PAGE} was written");
    }
    Ok(())
}
