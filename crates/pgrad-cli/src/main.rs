//! The `pgrad` command.
//!
//! - `args`: what can be typed;
//! - `commands`: one file for each command;
//! - `catalog`: what there is: algorithms, environments, presets, studies, settings;
//! - `failure`: messages, hints and exit codes;
//! - `progress`: the live line while training;
//! - `terminal`: writing, colours, numbers for people;
//! - `allocator`: what happens when there is no more memory.

mod allocator;
mod args;
mod catalog;
mod commands;
mod failure;
mod progress;
mod terminal;

use args::{Cli, Command};
use clap::{CommandFactory, FromArgMatches};
use failure::{Code, Result};
use std::ffi::OsString;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: allocator::OrExit = allocator::OrExit;

fn main() -> ExitCode {
    failure::install_panic_hook();
    failure::guarded(|| start(std::env::args_os().collect()))
}

fn start(args: Vec<OsString>) -> ExitCode {
    match parse(args).and_then(run) {
        Ok(code) => code,
        Err(failure) => {
            if !failure.silent {
                terminal::to_stderr(&failure.render(terminal::Style::stderr()));
            }
            failure.code.into()
        }
    }
}

/// The command that was typed, or the exit code when clap has already answered (help, version).
enum Parsed {
    Command(Box<Command>),
    Answered(ExitCode),
}

fn parse(args: Vec<OsString>) -> Result<Parsed> {
    let command = with_settings_help(Cli::command(), &args);
    match command.try_get_matches_from(args).and_then(|m| Cli::from_arg_matches(&m)) {
        Ok(cli) => Ok(Parsed::Command(Box::new(cli.command))),
        Err(error) if error.use_stderr() => {
            // clap knows best how to lay out its own errors; only its exit code is not ours.
            let _ = error.print();
            Ok(Parsed::Answered(Code::Usage.into()))
        }
        Err(help) => {
            let text = help.render();
            let coloured = terminal::Style::stdout().wanted();
            terminal::out(&if coloured { text.ansi().to_string() } else { text.to_string() })?;
            Ok(Parsed::Answered(ExitCode::SUCCESS))
        }
    }
}

/// Adds to `--help` of the commands that take settings what each setting means. Which settings there are
/// depends on the algorithm, so it is looked for in what was typed.
fn with_settings_help(command: clap::Command, args: &[OsString]) -> clap::Command {
    let mut typed = args.iter().skip(2).filter_map(|a| a.to_str());
    let algo = typed.find_map(pgrad_algos::find).or_else(|| pgrad_algos::find(catalog::DEFAULT_ALGO));
    let help = algo.map(catalog::settings_help).unwrap_or_default();
    ["train", "bench", "show"]
        .into_iter()
        .fold(command, |c, name| c.mut_subcommand(name, |sub| sub.after_long_help(help.clone())))
}

fn run(parsed: Parsed) -> Result<ExitCode> {
    let command = match parsed {
        Parsed::Command(command) => command,
        Parsed::Answered(code) => return Ok(code),
    };
    match *command {
        Command::Train(args) => commands::train::train(&args),
        Command::Resume(args) => commands::train::resume(&args),
        Command::Eval(args) => commands::eval::run(&args),
        Command::Study(args) => commands::study::run(&args),
        Command::Bench(args) => commands::bench::run(&args),
        Command::Plot(args) => commands::plot::run(&args),
        Command::List(args) => commands::list::run(&args),
        Command::Show(args) => commands::show::run(&args),
        Command::CheckEnv(args) => commands::check_env::run(&args),
        Command::Completions(args) => commands::completions::run(&args),
    }
}
