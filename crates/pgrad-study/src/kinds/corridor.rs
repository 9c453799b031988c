//! REINFORCE on the short corridor with switched actions (Sutton and Barto 2018, section 13.3).
//!
//! The policy is one number, the probability `p` of going right, so that its value is known without playing:
//! `v(p) = (2p − 4) / (p (1 − p))`, greatest at `p = 2 − √2`, where it is −11.66.

use crate::{Bench, Csv, Findings, Measurement, Quantity, Source, StudyError, number};
use pgrad_draw::plot::{Line, PlotOptions, render_lines_svg};
use pgrad_num::{Array, Record};
use pgrad_run::config::RunConfig;
use pgrad_run::trainer::Trainer;
use serde::Deserialize;

const ENV: &str = "ShortCorridor-v0";

/// What is measured.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Corridor {
    /// Episodes of each run.
    episodes: usize,
    /// Seeds of each method, from 1.
    seeds: u64,
    /// Probability of going right at the start.
    p_right: f64,
    /// A method counts as having learnt when the mean of `v(p)` over the seeds has reached this.
    learnt: f64,
    /// The methods.
    methods: Vec<Method>,
}

/// Settings of REINFORCE under a name.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Method {
    label: String,
    settings: toml::Table,
}

/// `v(p)` of the first place.
fn value(p: f64) -> f64 {
    (2.0 * p - 4.0) / (p * (1.0 - p))
}

fn failed(reason: impl std::fmt::Display) -> StudyError {
    StudyError::Measure { reason: reason.to_string() }
}

impl Method {
    fn config(&self, seed: u64) -> Result<RunConfig, StudyError> {
        let mut config = RunConfig::new("reinforce", ENV).map_err(failed)?;
        let text = toml::to_string(&self.settings).map_err(failed)?;
        config.apply_toml(&text, &self.label).map_err(failed)?;
        config.run.seed = seed;
        config.check().map_err(failed)?;
        Ok(config)
    }
    /// `p` before the first and after every episode.
    fn run(&self, corridor: &Corridor, seed: u64) -> Result<Vec<f64>, StudyError> {
        let mut trainer = Trainer::new(self.config(seed)?, 1).map_err(failed)?;
        trainer.start().map_err(failed)?;
        let model = trainer.algorithm().model();
        let views = model.views();
        let [weight, bias] = ["actor.logits.weight", "actor.logits.bias"].map(|name| {
            views.iter().find(|v| v.name == name).map(|v| v.range.clone()).filter(|range| range.len() == 2)
        });
        let (Some(weight), Some(bias)) = (weight, bias) else {
            return Err(failed("the policy of the corridor is linear: give `hidden = []`"));
        };
        // The observation is always 1: what counts are sums of weight and bias.
        let mut theta = model.theta.clone();
        theta[weight.clone()].fill(0.0);
        theta[bias.start] = 0.0;
        theta[bias.start + 1] = (corridor.p_right / (1.0 - corridor.p_right)).ln() as f32;
        let mut record = Record::new();
        for (key, array) in trainer.save().iter() {
            record.put(key, if key == "algo.theta" { Array::from(theta.clone()) } else { array.clone() });
        }
        trainer.load(&record).map_err(failed)?;
        let p = |trainer: &Trainer| {
            let theta = &trainer.algorithm().model().theta;
            let logit = |i: usize| f64::from(theta[weight.start + i]) + f64::from(theta[bias.start + i]);
            1.0 / (1.0 + (logit(0) - logit(1)).exp())
        };
        let mut all = vec![p(&trainer)];
        let mut played = 0;
        while played < corridor.episodes {
            trainer.iterate().map_err(failed)?;
            let more = trainer.finished().count();
            all.extend(std::iter::repeat_n(p(&trainer), more));
            played += more;
        }
        all.truncate(corridor.episodes + 1);
        Ok(all)
    }
}

fn mean_and_error(x: &[f64]) -> (f64, f64) {
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    (mean, (variance / n).sqrt())
}

impl Measurement for Corridor {
    fn check(&mut self, source: &Source<'_>) -> Result<(), StudyError> {
        let wrong = |message: &str| Err(source.error(0, message));
        if self.episodes == 0 || self.seeds == 0 || self.methods.is_empty() {
            return wrong("`episodes`, `seeds` and `methods` are not empty");
        }
        if !(self.p_right > 0.0 && self.p_right < 1.0) {
            return wrong("`p_right` is a probability between 0 and 1");
        }
        for method in &self.methods {
            method.config(1)?;
        }
        Ok(())
    }
    fn quantities(&self) -> Vec<String> {
        let each = |m: &Method| {
            let label = &m.label;
            [format!("{label}: v"), format!("{label}: p right"), format!("{label}: episodes to learn")]
        };
        self.methods.iter().flat_map(each).collect()
    }
    fn extent(&self) -> String {
        format!("{} methods, {} seeds, {} episodes", self.methods.len(), self.seeds, self.episodes)
    }
    fn has_seeds(&self) -> bool {
        true
    }
    fn measure(&self, bench: &mut Bench<'_>) -> Result<Findings, StudyError> {
        let seeds = bench.seeds.unwrap_or(self.seeds).min(self.seeds);
        let total = self.methods.len() * seeds as usize;
        let mut findings = Findings::default();
        let (mut lines, mut rows) = (Vec::new(), Vec::new());
        for (m, method) in self.methods.iter().enumerate() {
            let mut runs = Vec::new();
            for seed in 1..=seeds {
                if bench.stopped() {
                    return Err(StudyError::Stopped);
                }
                bench.progress(m * seeds as usize + runs.len(), total, 0, 0);
                let p = method.run(self, seed)?;
                let last = p[self.episodes];
                rows.push(vec![
                    method.label.clone(),
                    seed.to_string(),
                    last.to_string(),
                    value(last).to_string(),
                ]);
                runs.push(p);
            }
            let at =
                |episode: usize| mean_and_error(&runs.iter().map(|p| value(p[episode])).collect::<Vec<_>>());
            let curve: Vec<(f64, f64)> = (0..=self.episodes).map(at).collect();
            let learnt = curve.iter().position(|(v, _)| *v >= self.learnt);
            let p = mean_and_error(&runs.iter().map(|p| p[self.episodes]).collect::<Vec<_>>());
            let (v, error) = curve[self.episodes];
            let name = |what: &str| format!("{}: {what}", method.label);
            findings.quantities.push(Quantity::sampled(name("v"), v, error));
            findings.quantities.push(Quantity::sampled(name("p right"), p.0, p.1));
            let learnt = learnt.map_or(f64::INFINITY, |e| e as f64);
            findings.quantities.push(Quantity::estimated(name("episodes to learn"), learnt));
            let band = curve.iter().enumerate().map(|(e, (v, s))| (e as f64, v - 2.0 * s, v + 2.0 * s));
            lines.push(Line {
                label: method.label.clone(),
                points: curve.iter().enumerate().map(|(e, (v, _))| (e as f64, *v)).collect(),
                band: band.collect(),
            });
        }
        let options = PlotOptions {
            title: "Short corridor with switched actions".into(),
            x_label: "episode".into(),
            y_label: format!("value of the start, mean of {seeds} seeds"),
            threshold: Some((value(2.0 - 2.0_f64.sqrt()), "best of all policies".into())),
            ..PlotOptions::default()
        };
        findings.pictures.push(("short-corridor.svg".into(), render_lines_svg(&lines, &options)?));
        findings.text = format!(
            "`v` is `(2p − 4) / (p (1 − p))` after {} episodes; a method has learnt when the mean of `v` over the \
             seeds has reached {}.",
            self.episodes,
            number(self.learnt)
        );
        findings.results = Some(Csv { header: vec!["method", "seed", "p_right", "v"], rows });
        Ok(findings)
    }
}
