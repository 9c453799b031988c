//! Which method is there first: by the clock, and by the number of steps.
//!
//! Runs go one after the other, alone on the machine. Unlike everything else, what is found depends on the
//! machine and on what else it does: such a study is for a quiet one.

use crate::{Bench, Csv, Findings, Measurement, Quantity, Source, StudyError, number};
use pgrad_draw::plot::{Line, PlotOptions, render_lines_svg};
use pgrad_run::config::RunConfig;
use pgrad_run::stats::{mean, standard_error};
use pgrad_run::trainer::Trainer;
use serde::Deserialize;

/// Episodes that a mean return is taken over.
const EPISODES: u64 = 100;
/// Points of a curve in the picture.
const POINTS: usize = 100;

/// What is measured.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Race {
    /// The task.
    env: String,
    /// Seeds of each runner, from `first_seed`.
    seeds: u64,
    first_seed: u64,
    /// Environment steps of each run.
    steps: u64,
    /// Seconds after which runners are compared. A run that is over by then counts with how it ended.
    seconds: f64,
    /// Who runs.
    runners: Vec<Runner>,
}

/// A method with its settings, under a name.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Runner {
    label: String,
    algo: String,
    #[serde(default)]
    settings: toml::Table,
    /// Threads, of a method whose results do not depend on them.
    #[serde(default = "one")]
    threads: usize,
    /// Environment steps, where it is given others than the rest.
    steps: Option<u64>,
    /// Mean return of the last 100 episodes of training that has to be reached.
    reference: f64,
    /// Another runner, over whose time to the reference this one's is divided into.
    baseline: Option<String>,
}

fn one() -> usize {
    1
}

fn failed(reason: impl std::fmt::Display) -> StudyError {
    StudyError::Measure { reason: reason.to_string() }
}

/// Where a run stood after an iteration.
#[derive(Clone, Copy, Debug)]
struct Point {
    steps: u64,
    seconds: f64,
    /// Mean return of the last 100 episodes; not a number before there were so many.
    score: f64,
}

impl Runner {
    fn config(&self, race: &Race, seed: u64) -> Result<RunConfig, StudyError> {
        let mut config = RunConfig::new(&self.algo, &race.env).map_err(failed)?;
        let text = toml::to_string(&self.settings).map_err(failed)?;
        config.apply_toml(&text, &self.label).map_err(failed)?;
        config.run.seed = seed;
        config.run.steps = self.steps.unwrap_or(race.steps);
        config.check().map_err(failed)?;
        Ok(config)
    }
    fn run(&self, race: &Race, seed: u64, bench: &Bench<'_>) -> Result<Vec<Point>, StudyError> {
        let mut trainer = Trainer::new(self.config(race, seed)?, self.threads).map_err(failed)?;
        trainer.start().map_err(failed)?;
        let mut points = Vec::new();
        let began = bench.seconds();
        while !trainer.is_done() {
            if bench.stopped() {
                return Err(StudyError::Stopped);
            }
            trainer.iterate().map_err(failed)?;
            let score =
                trainer.return_mean_100().filter(|_| trainer.episodes() >= EPISODES).unwrap_or(f64::NAN);
            points.push(Point { steps: trainer.steps(), seconds: bench.seconds() - began, score });
        }
        Ok(points)
    }
    /// Where the reference was reached; where the run ended, when it was not.
    fn reached(&self, points: &[Point]) -> (Point, bool) {
        let found = points.iter().find(|p| p.score >= self.reference);
        (*found.unwrap_or(&points[points.len() - 1]), found.is_some())
    }
}

/// How a run stood after `seconds`.
fn after(points: &[Point], seconds: f64) -> f64 {
    let before = points.iter().take_while(|p| p.seconds <= seconds).last();
    before.map_or(f64::NAN, |p| p.score)
}

/// The quotient of two means with its standard error, to first order in the errors of the means.
fn ratio(above: &[f64], below: &[f64]) -> (f64, f64) {
    let value = mean(above) / mean(below);
    let relative = |x: &[f64]| standard_error(x) / mean(x);
    (value, value * relative(above).hypot(relative(below)))
}

fn sampled(name: String, x: &[f64]) -> Quantity {
    Quantity::sampled(name, mean(x), standard_error(x))
}

impl Measurement for Race {
    fn check(&mut self, source: &Source<'_>) -> Result<(), StudyError> {
        let wrong = |message: String| Err(source.error(0, message));
        if self.seeds == 0 || self.runners.is_empty() {
            return wrong("`seeds` and `runners` are not empty".into());
        }
        for (i, runner) in self.runners.iter().enumerate() {
            let label = &runner.label;
            if self.runners[..i].iter().any(|r| r.label == *label) {
                return wrong(format!("two runners are called `{label}`"));
            }
            if let Some(base) = &runner.baseline
                && !self.runners[..i].iter().any(|r| r.label == *base)
            {
                return wrong(format!(
                    "the baseline of `{label}` is a runner before it, but there is no `{base}`"
                ));
            }
            runner.config(self, self.first_seed)?;
        }
        Ok(())
    }
    fn quantities(&self) -> Vec<String> {
        let each = |r: &Runner| {
            let names =
                ["return", "return in time", "steps a second", "seconds to reference", "steps to reference"];
            let more = r.baseline.is_some().then_some("speed-up");
            names.into_iter().chain(more).map(|what| format!("{}: {what}", r.label)).collect::<Vec<_>>()
        };
        self.runners.iter().flat_map(each).collect()
    }
    fn extent(&self) -> String {
        format!("{} runners, {} seeds, {} steps", self.runners.len(), self.seeds, self.steps)
    }
    fn has_seeds(&self) -> bool {
        true
    }
    fn measure(&self, bench: &mut Bench<'_>) -> Result<Findings, StudyError> {
        let seeds = bench.seeds.unwrap_or(self.seeds).min(self.seeds);
        let total = self.runners.len() * seeds as usize;
        let mut findings = Findings::default();
        let mut all: Vec<Vec<Vec<Point>>> = vec![Vec::new(); self.runners.len()];
        // Seed after seed, so that whatever else the machine does falls on all runners alike.
        for seed in self.first_seed..self.first_seed + seeds {
            for (runner, runs) in self.runners.iter().zip(&mut all) {
                let done = (seed - self.first_seed) as usize;
                bench.progress(done * self.runners.len() + runs.len().min(1), total, 0, 0);
                runs.push(runner.run(self, seed, bench)?);
            }
        }
        let (mut rows, mut lines) = (Vec::new(), Vec::new());
        let mut times: Vec<Vec<f64>> = Vec::new();
        findings.text = format!(
            "Means over {seeds} seeds. A run that did not reach its reference counts with its whole time.\n\n\
             | runner | reference | reached |\n|---|--:|--:|\n"
        );
        for (runner, runs) in self.runners.iter().zip(&all) {
            let name = |what: &str| format!("{}: {what}", runner.label);
            let each = |f: &dyn Fn(&[Point]) -> f64| runs.iter().map(|r| f(r)).collect::<Vec<f64>>();
            let last = |p: &[Point]| p[p.len() - 1];
            let seconds = each(&|p| runner.reached(p).0.seconds);
            findings.quantities.push(sampled(name("return"), &each(&|p| last(p).score)));
            findings.quantities.push(sampled(name("return in time"), &each(&|p| after(p, self.seconds))));
            let speed = each(&|p| last(p).steps as f64 / last(p).seconds);
            findings.quantities.push(sampled(name("steps a second"), &speed));
            findings.quantities.push(sampled(name("seconds to reference"), &seconds));
            let steps = each(&|p| runner.reached(p).0.steps as f64);
            findings.quantities.push(sampled(name("steps to reference"), &steps));
            if let Some(base) = &runner.baseline {
                let i = self.runners.iter().position(|r| r.label == *base);
                let (value, error) = i.map_or((f64::NAN, f64::NAN), |i| ratio(&times[i], &seconds));
                findings.quantities.push(Quantity::sampled(name("speed-up"), value, error));
            }
            times.push(seconds);
            let reached = runs.iter().filter(|r| runner.reached(r).1).count();
            findings.text +=
                &format!("| {} | {} | {reached} of {seeds} |\n", runner.label, number(runner.reference));
            for (seed, run) in (self.first_seed..).zip(runs) {
                let (at, there) = runner.reached(run);
                rows.push(vec![
                    runner.label.clone(),
                    seed.to_string(),
                    last(run).score.to_string(),
                    after(run, self.seconds).to_string(),
                    last(run).steps.to_string(),
                    last(run).seconds.to_string(),
                    there.to_string(),
                    at.steps.to_string(),
                    at.seconds.to_string(),
                ]);
            }
            let end = each(&|p| last(p).seconds).into_iter().fold(0.0, f64::max);
            let time = |i: usize| end * (i + 1) as f64 / POINTS as f64;
            let points = (0..POINTS).map(|i| (time(i), mean(&each(&|p| after(p, time(i))))));
            let points: Vec<(f64, f64)> = points.filter(|p| p.1.is_finite()).collect();
            lines.push(Line { label: runner.label.clone(), points, band: Vec::new() });
        }
        let options = PlotOptions {
            title: format!("{} by the clock", self.env),
            x_label: "seconds".into(),
            y_label: format!("return of the last {EPISODES} episodes, mean of {seeds} seeds"),
            ..PlotOptions::default()
        };
        findings.pictures.push(("race.svg".into(), render_lines_svg(&lines, &options)?));
        let header = vec![
            "runner",
            "seed",
            "return",
            "return_in_time",
            "steps",
            "seconds",
            "reached",
            "steps_to_reference",
            "seconds_to_reference",
        ];
        findings.results = Some(Csv { header, rows });
        Ok(findings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the spread of quotients of resampled means.
    #[test]
    fn the_error_of_a_quotient_is_its_spread() {
        let (above, below): (Vec<f64>, Vec<f64>) = (0..40)
            .map(|i| (4.0 + (f64::from(i) * 1.7).sin(), 2.0 + 0.3 * (f64::from(i) * 2.3).cos()))
            .unzip();
        let (value, error) = ratio(&above, &below);
        let mut state = 1u64;
        let mut draw = |x: &[f64]| {
            let sum: f64 = (0..x.len())
                .map(|_| {
                    state =
                        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    x[(state >> 33) as usize % x.len()]
                })
                .sum();
            sum / x.len() as f64
        };
        let quotients: Vec<f64> = (0..20_000).map(|_| draw(&above) / draw(&below)).collect();
        let (m, n) = (mean(&quotients), quotients.len() as f64);
        let spread = (quotients.iter().map(|q| (q - m).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
        assert!((value - m).abs() < 0.01, "{value} {m}");
        assert!((error / spread - 1.0).abs() < 0.05, "{error} {spread}");
    }
}
