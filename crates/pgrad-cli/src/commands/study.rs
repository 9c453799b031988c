//! `pgrad study`.

use crate::args::StudyArgs;
use crate::commands::signals::{Deadline, stop_on_signals};
use crate::failure::{Code, Failure, Result};
use crate::progress::LiveLine;
use crate::terminal::{self, Style, YELLOW, duration, grouped, quoted};
use pgrad_settings::{apply_text, settings};
use pgrad_study::{
    AnyStudy, EntryError, MeasuredResult, OtherSeeds, RESULTS, RunRow, SUMMARY_MD, StudyError, StudyEvent,
    StudyOptions, StudyProgress, StudyResult, run_measured, run_study,
};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Folder of the results when none is named.
const OUT: &str = "studies-out";

settings! {
    /// Options of study
    struct Seeds {
        /// Run only the first N seeds of each entry.
        seeds: Option<u64> = None, range: 1..=1_000_000, unit: "seeds";
    }
}

pub(crate) fn run(args: &StudyArgs) -> Result<ExitCode> {
    let mut seeds = Seeds::default();
    let range = args.seeds.as_deref().and_then(|text| text.split_once(".."));
    let other_seeds = range.map(|(first, last)| other_seeds(first, last)).transpose()?;
    if let (Some(text), None) = (&args.seeds, other_seeds) {
        apply_text("seeds", text, "--seeds", &mut [&mut seeds])?;
    }
    let threads = args.threads.count()?;
    let study = AnyStudy::load(&args.study).map_err(failure)?;
    let out = args.out.clone().unwrap_or_else(|| default_out(&args.study));
    let command = command(args, &out);
    let loud = args.verbosity.loud();
    let line = LiveLine::new(loud);
    let mut listen = |event: StudyEvent<'_>| match event {
        StudyEvent::Progress(p) => line.show(p.steps, p.total_steps, || text(&p)),
        StudyEvent::Run(row) if loud => line.say(&done(row)),
        StudyEvent::Run(_) => {}
        StudyEvent::Failed(f) => line.note(&format!("{}, seed {} failed: {}", f.entry, f.seed, f.reason)),
        StudyEvent::Notice(notice) => line.note(notice),
    };
    let stop = stop_on_signals()?;
    let again = command.clone();
    // What is in the folder is whole: a run that is not finished has no line.
    let _deadline = Deadline::new(&stop, move || {
        let text =
            format!("stopped within an iteration; `{again}` does the runs again that were not finished");
        terminal::to_stderr(&format!("{} {text}\n", Style::stderr().paint(YELLOW, "note:")));
        std::process::exit(Code::Stopped as i32);
    })?;
    let options = StudyOptions {
        threads,
        seeds: seeds.seeds,
        other_seeds,
        accept: args.accept.clone(),
        command: Some(command.clone()),
        stop,
        ..StudyOptions::new(out, &mut listen)
    };
    let (json, words, code) = match &study {
        AnyStudy::Runs(study) => {
            let result = run_study(study, options).map_err(failure)?;
            let code = match &result {
                StudyResult { stopped: true, .. } => Code::Stopped.into(),
                StudyResult { failures, .. } if !failures.is_empty() => Code::Data.into(),
                _ => ExitCode::SUCCESS,
            };
            (result.to_json(), closing(&result, &command, Style::stdout()), code)
        }
        AnyStudy::Measured(study) => {
            let result = run_measured(study, options).map_err(failure)?;
            (result.to_json(), closing_measured(&result), ExitCode::SUCCESS)
        }
    };
    drop(line);
    if args.verbosity.json {
        terminal::out(&format!("{json}\n"))?;
    } else if loud {
        terminal::out(&words)?;
    }
    Ok(code)
}

/// The seeds from `first` to `last`, both included; as many as an entry has where there is no last one.
fn other_seeds(first: &str, last: &str) -> Result<OtherSeeds> {
    let wrong = || {
        Failure::usage(format!("--seeds: `{first}..{last}` is no range of seeds"))
            .hint("`50001..` takes as many seeds as the study has, `50001..50010` takes ten")
    };
    let first: u64 = first.parse().map_err(|_| wrong())?;
    let count = match last {
        "" => None,
        last => {
            let last: u64 = last.parse().map_err(|_| wrong())?;
            Some(last.checked_sub(first).and_then(|n| n.checked_add(1)).ok_or_else(wrong)?)
        }
    };
    Ok(OtherSeeds { first, count })
}

/// `studies-out/NAME`, also for the path of a file.
fn default_out(study: &str) -> PathBuf {
    Path::new(OUT).join(Path::new(study).file_stem().unwrap_or_else(|| study.as_ref()))
}

/// The command that makes the same results again, from the same folder.
fn command(args: &StudyArgs, out: &Path) -> String {
    let mut text = format!("pgrad study {}", quoted(Path::new(&args.study)));
    if let Some(seeds) = &args.seeds {
        text.push_str(&format!(" --seeds {seeds}"));
    }
    for sources in &args.accept {
        text.push_str(&format!(" --accept {sources}"));
    }
    if args.out.is_some() {
        text.push_str(&format!(" --out {}", quoted(out)));
    }
    text
}

fn text(p: &StudyProgress) -> String {
    if p.total_steps == 0 {
        return format!("{}/{} parts  {}", p.runs, p.total_runs, duration(p.seconds));
    }
    let speed = p.steps as f64 / p.seconds.max(1e-9);
    let left = p.total_steps.saturating_sub(p.steps) as f64 / speed.max(1e-9);
    let mut text = format!("{}/{} runs  {} steps/s", p.runs, p.total_runs, grouped(speed as u64));
    if p.steps > 0 {
        text.push_str(&format!("  {} left", duration(left)));
    }
    text
}

fn done(row: &RunRow) -> String {
    let t = row.t.map_or_else(String::new, |t| format!(", T {t:.1}"));
    format!("{}, seed {}: E {:.1}{t} ({})", row.entry, row.seed, row.e, duration(row.seconds))
}

fn closing(result: &StudyResult, command: &str, style: Style) -> String {
    let out = &result.out;
    if result.stopped {
        let verdict = style.paint(YELLOW, "Stopped");
        let (done, results) = (result.rows.len(), quoted(&out.join(RESULTS)));
        return format!(
            "{verdict} with {done} runs in {results}\n\nNext:\n  {command}   continues where it stopped\n"
        );
    }
    let files = [SUMMARY_MD, RESULTS].map(|name| quoted(&out.join(name)));
    format!(
        "{}\nThe table is in {}, the score of every run in {}\n",
        result.to_markdown(),
        files[0],
        files[1]
    )
}

fn closing_measured(result: &MeasuredResult) -> String {
    let files = [SUMMARY_MD, RESULTS].map(|name| quoted(&result.out.join(name)));
    format!("{}\nThe table is in {}, all that was measured in {}\n", result.to_markdown(), files[0], files[1])
}

fn failure(error: StudyError) -> Failure {
    let code = Code::of(error.exit_code());
    match error {
        StudyError::Setting(errors) => errors.into(),
        StudyError::Entry { entry, cause: EntryError::Config(error) } => {
            Failure::from(error).at(&format!("entry `{entry}`"))
        }
        StudyError::RunDir(e) => Failure::of(code, &e).split_advice(),
        StudyError::Storage(e) => Failure::of(code, &e).split_advice(),
        StudyError::Plot(e) => Failure::of(code, &e).split_advice(),
        other => Failure::of(code, &other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_have_a_folder_of_their_name() {
        assert_eq!(default_out("ppo-classic"), Path::new("studies-out/ppo-classic"));
        assert_eq!(default_out("a/b/mine.toml"), Path::new("studies-out/mine"));
    }

    #[test]
    fn the_line_says_what_is_known() {
        let mut p = StudyProgress { runs: 0, total_runs: 4, steps: 0, total_steps: 4000, seconds: 0.0 };
        assert_eq!(text(&p), "0/4 runs  0 steps/s");
        (p.runs, p.steps, p.seconds) = (1, 1000, 2.0);
        assert_eq!(text(&p), "1/4 runs  500 steps/s  6.0 s left");
        (p.steps, p.total_steps) = (0, 0);
        assert_eq!(text(&p), "1/4 parts  2.0 s");
    }
}
