//! What must hold before a change is accepted, in one command.

use crate::command::{cargo, run as run_command};
use crate::{book, floors, mujoco, reference, test};
use anyhow::{Context, Result};
use std::time::{Duration, Instant};

type Step = (&'static str, fn() -> Result<()>);

const STEPS: &[Step] = &[
    ("format", || run_command(&mut cargo(&["fmt", "--all", "--check"]))),
    ("floors", floors::run),
    ("book", || book::run(false)),
    ("mujoco", mujoco::run),
    ("lints", lints),
    ("facade", facade),
    ("documentation", documentation),
    ("python", || test::python().map(|_| ())),
    ("build tests", test::build),
    ("reference", || reference::run(true)),
];

/// Runs every step; the tests come last, so that the output ends with their results.
///
/// # Errors
/// At the first step that fails.
pub(crate) fn run() -> Result<()> {
    let mut times = Vec::new();
    for (name, step) in STEPS {
        let time = timed(name, *step)?;
        println!("{name}: {:.1} s\n", time.as_secs_f64());
        times.push((name, time));
    }
    println!("step             seconds");
    for (name, time) in times {
        println!("{name:15} {:8.1}", time.as_secs_f64());
    }
    println!("\n== tests");
    test::run(&[]).context("step `tests`")
}

#[expect(clippy::disallowed_methods, reason = "a task is no part of the library")]
fn timed(name: &str, step: fn() -> Result<()>) -> Result<Duration> {
    println!("== {name}");
    let start = Instant::now();
    step().with_context(|| format!("step `{name}`"))?;
    Ok(start.elapsed())
}

fn lints() -> Result<()> {
    let mut args = vec!["clippy", "--workspace", "--all-targets", "--all-features", "--locked"];
    args.extend(["--", "-D", "warnings"]);
    run_command(&mut cargo(&args))
}

/// A trained policy is used without the training code.
fn facade() -> Result<()> {
    let args = ["check", "-p", "pgrad", "--no-default-features", "--example", "use_policy", "--locked"];
    run_command(&mut cargo(&args))
}

fn documentation() -> Result<()> {
    let mut command = cargo(&["doc", "--workspace", "--no-deps", "--locked"]);
    run_command(command.env("RUSTDOCFLAGS", "-D warnings"))
}
