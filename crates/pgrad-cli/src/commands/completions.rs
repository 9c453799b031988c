//! `pgrad completions`.

use crate::args::{Cli, CompletionsArgs};
use crate::failure::Result;
use crate::terminal;
use clap::CommandFactory;
use std::process::ExitCode;

pub(crate) fn run(args: &CompletionsArgs) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "pgrad", &mut script);
    terminal::out(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
