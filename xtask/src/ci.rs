//! What must hold before a change is accepted, in one command.

use crate::{book, comments, floors, mujoco, reference, test};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::process::Command;
use std::time::{Duration, Instant};
use xtask::command::{cargo, output, root, run as run_command};
use xtask::pages::files;

type Step = (&'static str, fn() -> Result<()>);

const STEPS: &[Step] = &[
    ("format", format),
    ("comments", comments::run),
    ("floors", floors::run),
    ("book", || book::run(false)),
    ("rendered book", book::render),
    ("mujoco", mujoco::run),
    ("lints", lints),
    ("facade", facade),
    ("documentation", documentation),
    ("python", || test::python().map(|_| ())),
    ("build tests", test::build),
    ("second build", second_build),
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

/// `cargo fmt` does not find modules that a macro declares, such as those of the methods: every file is asked
/// for.
fn format() -> Result<()> {
    run_command(&mut cargo(&["fmt", "--all", "--check"]))?;
    let sources = files(&root().join("crates"), "rs")?;
    run_command(Command::new("rustfmt").arg("--check").args(sources))
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

/// A build of what is built already compiles nothing, with the default features and with all that have tests.
/// The build scripts decide that, whatever the profile, so the release build need not be made for it.
fn second_build() -> Result<()> {
    run_command(&mut cargo(&["check", "--locked"]))?;
    let everything = [&["test", "--no-run"][..], &test::EVERYTHING[..]].concat();
    for args in [&["check"][..], &everything[..]] {
        let messages = output(cargo(args).args(["--locked", "--message-format", "json", "--quiet"]))?;
        let compiled = compiled(&messages)?;
        if !compiled.is_empty() {
            bail!(
                "`cargo {}` compiles again what was built just before: {}\n\
                 `CARGO_LOG=cargo::core::compiler::fingerprint=info cargo {0}` says why",
                args.join(" "),
                compiled.join(", ")
            );
        }
    }
    Ok(())
}

/// The targets that cargo's messages, one JSON object a line, say were compiled.
fn compiled(messages: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut artifacts = 0;
    for line in messages.lines() {
        let message: Value =
            serde_json::from_str(line).with_context(|| format!("a message of cargo: {line}"))?;
        if message["reason"] == "compiler-artifact" {
            artifacts += 1;
            if message["fresh"] == false {
                names.push(message["target"]["name"].as_str().unwrap_or("?").to_owned());
            }
        }
    }
    if artifacts == 0 {
        bail!("cargo names nothing that was built");
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_compiled_is_told_from_what_was_there() {
        let artifact = |name: &str, fresh: bool| {
            format!(
                "{{\"reason\":\"compiler-artifact\",\"target\":{{\"name\":\"{name}\"}},\"fresh\":{fresh}}}\n"
            )
        };
        let end = "{\"reason\":\"build-finished\",\"success\":true}\n";
        let messages = artifact("pgrad_num", true) + &artifact("pgrad", false) + end;
        assert_eq!(compiled(&messages).unwrap(), ["pgrad"]);
        assert!(compiled(&(artifact("pgrad_num", true) + end)).unwrap().is_empty());
        assert!(compiled(end).is_err(), "silence is no success");
        assert!(compiled("warning: what\n").is_err());
    }
}
