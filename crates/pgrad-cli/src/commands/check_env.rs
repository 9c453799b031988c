//! `pgrad check-env`.

use crate::args::CheckEnvArgs;
use crate::failure::{Code, Failure, Result};
use crate::terminal::{self, GREEN, Style};
use pgrad_env::check_batch_env;
use pgrad_settings::{apply_text, settings};
use std::process::ExitCode;

settings! {
    /// Options of check-env
    struct CheckOptions {
        /// Seed of the check.
        seed: u64 = 1;
    }
}

pub(crate) fn run(args: &CheckEnvArgs) -> Result<ExitCode> {
    let mut options = CheckOptions::default();
    apply_text("seed", &args.seed, "--seed", &mut [&mut options])?;
    let entry = crate::catalog::env(&args.env)?;
    let findings = check_batch_env(entry.make, options.seed);
    if findings.is_empty() {
        let verdict = Style::stdout().paint(GREEN, "nothing wrong");
        terminal::out(&format!("{}: {verdict} found\n", entry.id))?;
        return Ok(ExitCode::SUCCESS);
    }
    Err(Failure {
        code: Code::Data,
        problems: findings.iter().map(|f| (format!("{}: {f}", entry.id), None)).collect(),
        silent: false,
    })
}
