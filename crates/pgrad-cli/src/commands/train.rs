//! `pgrad train` and `pgrad resume`.

use crate::args::{ResumeArgs, TrainArgs, Verbosity};
use crate::catalog;
use crate::commands::signals::{Deadline, stop_on_signals};
use crate::failure::{self, Code, Result};
use crate::progress::{LiveLine, training_text};
use crate::terminal::{self, BOLD, GREEN, Style, YELLOW, duration, grouped, quoted};
use pgrad_algos::Reproducible;
use pgrad_run::clock::{Clock, SystemClock};
use pgrad_run::driver::{self, Event, Options, Rescued, RunError, Summary};
use pgrad_run::run_dir::{RUNS, RunLabel, TURNS};
use serde_json::json;
use std::cell::Cell;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

pub(crate) fn train(args: &TrainArgs) -> Result<ExitCode> {
    let config = catalog::config(&args.task, &args.settings, args.steps.as_deref())?;
    let threads = args.threads.count()?;
    // The name is chosen here, so that it can be told before the run ends.
    let run_dir = args.run_dir.clone().unwrap_or_else(|| {
        let wall = SystemClock::new().wall();
        let (env, algo, seed) = (config.env_id(), config.algo(), config.run.seed);
        Path::new(RUNS).join(RunLabel { env, algo, seed, wall }.unique_name())
    });
    drive(&run_dir, threads, args.verbosity, |mut options| {
        options.run_dir = Some(run_dir.clone());
        driver::train(config, options)
    })
}

pub(crate) fn resume(args: &ResumeArgs) -> Result<ExitCode> {
    let threads = args.threads.count()?;
    let given = [("steps", &args.steps, "--steps"), ("python", &args.python, "--python")];
    drive(&args.run, threads, args.verbosity, |mut options| {
        options.changes = given
            .into_iter()
            .filter_map(|(key, value, option)| Some((format!("{key}={}", value.as_ref()?), option)))
            .collect();
        driver::resume(&args.run, options)
    })
}

/// Runs with the live line and the signals, and says how it ended.
fn drive(
    run_dir: &Path,
    threads: usize,
    verbosity: Verbosity,
    run: impl FnOnce(Options<'_>) -> std::result::Result<Summary, RunError>,
) -> Result<ExitCode> {
    let stop = stop_on_signals()?;
    let loud = verbosity.loud();
    let line = LiveLine::new(loud);
    let worked = Cell::new(false);
    let mut listen = |event: Event<'_>| match event {
        Event::Iteration(progress) => {
            if !worked.replace(true) {
                failure::remember_run(run_dir);
            }
            line.show(progress.steps, progress.total_steps, || training_text(progress));
        }
        // A skipped checkpoint or a divergence is worth a line even with --quiet and --json.
        Event::Notice(text) => line.note(text),
    };
    let mut options = Options::new(&mut listen);
    options.threads = threads;
    let (rescue, dir, json) = (Arc::clone(&options.rescue), run_dir.to_owned(), verbosity.json);
    let deadline = Deadline::new(&stop, move || rescue.save_and(|saved| leave(&dir, json, saved)))?;
    options.stop = stop;
    let summary = run(options);
    drop(deadline);
    let summary = summary?;
    drop(line);
    if verbosity.json {
        terminal::out(&format!("{}\n", to_json(&summary)))?;
    } else if loud {
        terminal::out(&closing(&summary, worked.get(), Style::stdout()))?;
    }
    Ok(if summary.stopped { Code::Stopped.into() } else { ExitCode::SUCCESS })
}

/// Ends the process within an iteration that does not end in time. Environments in processes of their own end
/// with it.
fn leave(run_dir: &Path, json: bool, saved: std::result::Result<Rescued, RunError>) {
    let code = match saved {
        Err(error) => {
            let failure = failure::Failure::from(error);
            terminal::to_stderr(&failure.render(Style::stderr()));
            failure.code
        }
        Ok(saved) => {
            let resume = format!("`pgrad resume {}`", quoted(run_dir));
            let at = match saved {
                Rescued::Step(step) => {
                    format!("step {} is saved; {resume} continues from there", grouped(step))
                }
                Rescued::Nothing => format!("nothing was learnt yet; {resume} starts again"),
            };
            terminal::to_stderr(&format!(
                "{} stopped within an iteration: {at}\n",
                Style::stderr().paint(YELLOW, "note:")
            ));
            if json {
                let steps = match saved {
                    Rescued::Step(step) => step,
                    Rescued::Nothing => 0,
                };
                let text =
                    json!({ "run_dir": run_dir.display().to_string(), "steps": steps, "stopped": true });
                // There is nobody left to tell.
                let _ = terminal::out(&format!("{text}\n"));
            }
            Code::Stopped
        }
    };
    std::process::exit(code as i32);
}

fn to_json(s: &Summary) -> serde_json::Value {
    json!({
        "run_dir": s.run_dir.display().to_string(),
        "algo": s.algo,
        "env": s.env,
        "seed": s.seed,
        "steps": s.progress.steps,
        "seconds": s.progress.seconds,
        "steps_per_second": s.progress.steps_per_second,
        "train_return_mean_100": s.progress.return_mean_100,
        "stopped": s.stopped,
        "reproducible": s.reproducible != Reproducible::No,
    })
}

/// What was learnt, where it is, and what to type next. `worked` is false when the run was complete before.
fn closing(s: &Summary, worked: bool, style: Style) -> String {
    let p = &s.progress;
    let run = quoted(&s.run_dir);
    let (verb, steps) = if s.stopped {
        ("Stopped", format!("{} of {}", grouped(p.steps), grouped(p.total_steps)))
    } else {
        ("Trained", grouped(p.steps))
    };
    let mut out = format!(
        "{} {} on {}, seed {}: {steps} steps in {}{}\n",
        style.paint(BOLD, verb),
        s.algo,
        s.env,
        s.seed,
        duration(p.seconds),
        if worked {
            format!(" ({} steps/s)", grouped(p.steps_per_second as u64))
        } else {
            "; nothing was left to do".to_owned()
        }
    );
    match p.return_mean_100 {
        Some(mean) => {
            out.push_str(&format!(
                "  return     {mean:.1}, mean of the last {} episodes of training",
                p.episodes.min(100)
            ));
            if let Some(threshold) = s.reward_threshold {
                out.push_str(&if mean >= threshold {
                    style.paint(GREEN, &format!("; above the task's threshold of {threshold}"))
                } else {
                    style.paint(YELLOW, &format!("; below the task's threshold of {threshold}"))
                });
            }
        }
        None => out.push_str("  return     unknown: no episode of training has ended yet"),
    }
    match s.reproducible {
        Reproducible::Yes => {}
        Reproducible::ByRecording => out.push_str(&format!(
            "\n  again      the same bits with --set record=false --set replay={}",
            quoted(&s.run_dir.join(TURNS))
        )),
        Reproducible::No => out.push_str(&style.paint(
            YELLOW,
            "\n  again      not reproducible: threads raced (record=true records their order)",
        )),
    }
    out.push_str(&format!("\n  run folder {run}\n\nNext:\n"));
    if s.stopped {
        out.push_str(&format!("  pgrad resume {run}   continues where it stopped\n"));
    }
    out.push_str(&format!("  pgrad eval {run}   evaluates the trained policy over 100 episodes\n"));
    out.push_str(&format!("  pgrad plot {run}   draws the learning curve\n"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgrad_algos::Report;
    use pgrad_run::driver::Progress;
    use std::path::PathBuf;

    fn summary(mean: Option<f64>, stopped: bool) -> Summary {
        let progress = Progress {
            steps: 40_960,
            total_steps: 100_000,
            iterations: 40,
            seconds: 2.0,
            steps_per_second: 20_480.0,
            seconds_left: 0.0,
            episodes: 77,
            return_mean_100: mean,
            length_mean_100: mean,
            report: Report::default(),
        };
        let run_dir = PathBuf::from("my runs/1");
        Summary {
            run_dir,
            algo: "ppo".into(),
            env: "E".into(),
            seed: 3,
            stopped,
            reproducible: Reproducible::Yes,
            reward_threshold: Some(475.0),
            progress,
        }
    }

    #[test]
    fn the_closing_words_say_what_was_learnt_and_what_to_type() {
        let plain = Style::plain();
        let text = closing(&summary(Some(480.0), false), true, plain);
        assert!(
            text.starts_with("Trained ppo on E, seed 3: 40 960 steps in 2.0 s (20 480 steps/s)\n"),
            "{text}"
        );
        assert!(text.contains(
            "480.0, mean of the last 77 episodes of training; above the task's threshold of 475\n"
        ));
        assert!(text.contains("pgrad eval 'my runs/1'") && text.contains("pgrad plot 'my runs/1'"));
        assert!(!text.contains("resume"));
        let text = closing(&summary(Some(470.0), true), true, plain);
        assert!(text.starts_with("Stopped ppo on E, seed 3: 40 960 of 100 000 steps"), "{text}");
        assert!(
            text.contains("below the task's threshold of 475") && text.contains("pgrad resume 'my runs/1'")
        );
        assert!(!text.contains("again"));
        let with = |reproducible| {
            let s = Summary { reproducible, ..summary(None, false) };
            (closing(&s, true, plain), to_json(&s)["reproducible"].as_bool())
        };
        let (text, json) = with(Reproducible::No);
        assert!(text.contains("not reproducible: threads raced") && json == Some(false), "{text}");
        let (text, json) = with(Reproducible::ByRecording);
        assert!(text.contains("replay='my runs/1/turns.safetensors'") && json == Some(true), "{text}");
        assert!(closing(&summary(None, false), false, plain).contains("in 2.0 s; nothing was left to do"));
        assert!(closing(&summary(None, false), true, plain).contains("no episode of training has ended"));
    }

    #[test]
    fn the_json_has_the_promised_keys() {
        let json = to_json(&summary(None, false));
        let mut keys: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        let promised = [
            "algo",
            "env",
            "reproducible",
            "run_dir",
            "seconds",
            "seed",
            "steps",
            "steps_per_second",
            "stopped",
            "train_return_mean_100",
        ];
        assert_eq!(keys, promised);
        assert!(json["train_return_mean_100"].is_null());
    }
}
