//! Development tasks: `cargo xtask TASK`.

#![expect(clippy::print_stdout, reason = "a task talks to the terminal")]

mod bits;
mod book;
mod ci;
mod comments;
mod floors;
mod goldens;
mod loom;
mod mujoco;
mod reference;
mod scores;
mod siblings;
mod soak;
mod test;

use anyhow::{Result, bail};
use std::process::ExitCode;

const HELP: &str = "\
cargo xtask TASK

  test [ARGS]          all tests, and what they need, from nothing; ARGS go to `cargo test`
                       in place of --workspace (`cargo xtask test -p pgrad-num`)
  ci                   what must hold before a change is accepted: format, lints, floors, documentation,
                       generated pages, the book, a second build that compiles nothing, tests
  floors               each crate depends on strictly lower floors only, and on what belongs to it
  reference [--check]  writes the book's page of settings; --check says whether it is up to date
  book [--fix]         links, names of code, tables of scores and names of metrics in the documents are right;
                       --fix makes the tables anew
  book --render        renders the book in target/book; warnings and broken links are errors
  bits [--fix] [--binary PATH] [WORD...]
                       short runs of every method and kind of network end with the parameters of
                       goldens/bits.txt; --fix writes the file anew; only runs that contain every WORD
  comments             no line of comment is wider than code may be
  siblings             how many lines of code neighbouring algorithms differ in
  goldens              makes the goldens again and says whether they changed
  loom                 models of what threads share without locks, in every interleaving (loom)
  soak                 a run whose environments fail 1000 times and more: descriptors and memory must not grow
  mujoco               gets the MuJoCo library and Gymnasium's models, for the feature `mujoco`
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            println!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[&str]) -> Result<()> {
    match args {
        ["floors"] => floors::run(),
        ["test", rest @ ..] => test::run(rest),
        ["ci"] => ci::run(),
        ["reference"] => reference::run(false),
        ["reference", "--check"] => reference::run(true),
        ["book"] => book::run(false),
        ["book", "--fix"] => book::run(true),
        ["book", "--render"] => book::render(),
        ["bits", rest @ ..] => {
            let (fix, rest) = rest.strip_prefix(&["--fix"]).map_or((false, rest), |rest| (true, rest));
            match rest {
                ["--binary", path, words @ ..] => bits::run(fix, Some(path), words),
                words => bits::run(fix, None, words),
            }
        }
        ["comments"] => comments::run(),
        ["siblings"] => siblings::run(),
        ["goldens"] => goldens::run(),
        ["loom"] => loom::run_models(),
        ["soak"] => soak::run(),
        ["mujoco"] => mujoco::run(),
        [] | ["help" | "--help" | "-h"] => {
            println!("{HELP}");
            Ok(())
        }
        other => bail!("there is no task `{}`\n\n{HELP}", other.join(" ")),
    }
}
