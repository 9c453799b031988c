//! `pgrad plot`.

use crate::args::PlotArgs;
use crate::failure::{Code, Failure, Result};
use crate::terminal::{self, GREEN, Style};
use pgrad_draw::plot::{Band, Curve, PlotOptions, plot};
use pgrad_run::config::RunConfig;
use pgrad_run::driver::read_config;
use pgrad_run::metrics::{MetricsLog, read_log};
use pgrad_run::run_dir::METRICS;
use pgrad_run::storage::FsStorage;
use pgrad_settings::{apply_text, settings, suggest};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

/// What is drawn when nothing else is asked for.
const RETURN: &str = "train/return_mean_100";
/// Seeds from which on an interval says more than the extremes.
const SEEDS_FOR_INTERVAL: usize = 5;

settings! {
    /// Options of plot
    struct Picture {
        /// Width of the picture.
        width: u32 = 900, range: 200..=4000, unit: "points";
        /// Height of the picture.
        height: u32 = 560, range: 200..=4000, unit: "points";
    }
}

pub(crate) fn run(args: &PlotArgs) -> Result<ExitCode> {
    let mut picture = Picture::default();
    for (key, text) in [("width", &args.width), ("height", &args.height)] {
        if let Some(text) = text {
            apply_text(key, text, &format!("--{key}"), &mut [&mut picture])?;
        }
    }
    let metric = args.metric.as_deref().unwrap_or(RETURN);
    let mut runs = Vec::new();
    for run in &args.runs {
        let config = read_config(&FsStorage, run, None)?;
        let path = run.join(METRICS);
        let log = read_log(&FsStorage, &path).map_err(|e| Failure::of(Code::of(e.exit_code()), &e))?;
        runs.push((config, points(&log, metric, &path)?));
    }
    let envs: BTreeSet<&str> = runs.iter().map(|(c, _)| c.env_id()).collect();
    let labels = labels(&runs.iter().map(|(c, _)| c).collect::<Vec<_>>());
    let threshold = match runs.first() {
        Some((first, _)) if envs.len() == 1 && metric == RETURN => {
            // A picture needs no environment: without one it only lacks the line.
            first.env_spec().ok().and_then(|spec| spec.reward_threshold)
        }
        _ => None,
    };
    let options = PlotOptions {
        title: envs.into_iter().collect::<Vec<_>>().join(", "),
        y_label: if metric == RETURN { "return (mean of 100 episodes)".into() } else { metric.to_owned() },
        threshold: threshold.map(|t| (t, "threshold".to_owned())),
        band: if runs.len() >= SEEDS_FOR_INTERVAL { Band::Bootstrap95 } else { Band::MinMax },
        size: (picture.width, picture.height),
        ..PlotOptions::default()
    };
    let curves: Vec<Curve> =
        labels.into_iter().zip(runs).map(|(label, (_, points))| Curve { label, points }).collect();
    plot(&curves, &args.out, &options)
        .map_err(|e| Failure::of(Code::of(e.exit_code()), &e).split_advice())?;
    let written = Style::stdout().paint(GREEN, &args.out.display().to_string());
    terminal::out(&format!("{written}\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// The series of `metric`, which has to be there.
fn points(log: &MetricsLog, metric: &str, path: &Path) -> Result<Vec<(u64, f64)>> {
    let points = log.series(metric);
    let names = log.names();
    if !points.is_empty() || names.is_empty() || names.iter().any(|n| n == metric) {
        return Ok(points);
    }
    let failure =
        Failure::usage(format!("`{}` has no metric `{metric}`; it has {}", path.display(), names.join(", ")));
    Err(match suggest(metric, names.iter().map(String::as_str)) {
        Some(near) => failure.hint(format!("did you mean `{near}`?")),
        None => failure,
    })
}

/// A label for each run: its algorithm, its environment where there are several, and the settings in which
/// the runs of that algorithm on that environment differ. What differs in the seed alone has one label.
fn labels(runs: &[&RunConfig]) -> Vec<String> {
    let task = |c: &RunConfig| (c.algo(), c.env_id().to_owned());
    let several_envs = runs.iter().any(|c| c.env_id() != runs[0].env_id());
    runs.iter()
        .map(|run| {
            let siblings: Vec<_> = runs.iter().filter(|c| task(c) == task(run)).collect();
            let mut label = run.algo().to_owned();
            if several_envs {
                label.push_str(&format!(" {}", run.env_id()));
            }
            for setting in run.parts().iter().flat_map(|p| p.declarations()) {
                let (key, value) = (setting.key, run.get(setting.key));
                if key != "seed" && siblings.iter().any(|c| c.get(key) != value) {
                    label.push_str(&format!(" {key}={}", value.map(|v| v.to_string()).unwrap_or_default()));
                }
            }
            label
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(env: &str, pairs: &[&str]) -> RunConfig {
        let mut config = RunConfig::new("ppo", env).unwrap();
        pairs.iter().for_each(|p| config.apply_pair(p, "--set").unwrap());
        config
    }

    #[test]
    fn labels_name_what_differs_besides_the_seed() {
        let label = |runs: &[RunConfig]| labels(&runs.iter().collect::<Vec<_>>());
        let seeds = [config("CartPole-v1", &["seed=1"]), config("CartPole-v1", &["seed=2"])];
        assert_eq!(label(&seeds), ["ppo", "ppo"]);
        let clips = [config("CartPole-v1", &["clip=0.1"]), config("CartPole-v1", &["clip=0.3", "seed=7"])];
        assert_eq!(label(&clips), ["ppo clip=0.1", "ppo clip=0.3"]);
        let envs = [config("CartPole-v1", &[]), config("Pendulum-v1", &[])];
        assert_eq!(label(&envs), ["ppo CartPole-v1", "ppo Pendulum-v1"]);
    }
}
