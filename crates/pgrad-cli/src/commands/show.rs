//! `pgrad show`.

use crate::args::ShowArgs;
use crate::catalog;
use crate::failure::Result;
use crate::terminal;
use std::process::ExitCode;

pub(crate) fn run(args: &ShowArgs) -> Result<ExitCode> {
    let config = catalog::config(&args.task, &args.settings, args.steps.as_deref())?;
    terminal::out(&config.to_toml(true))?;
    Ok(ExitCode::SUCCESS)
}
