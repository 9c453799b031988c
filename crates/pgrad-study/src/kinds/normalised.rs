//! Variants of one algorithm over several tasks, in one number each: scores of which a random policy has 0
//! and the best run of a task has 1, averaged over tasks and seeds (Schulman et al. 2017, section 6.1 and
//! Table 1).

use crate::{
    Bench, Entry, Evaluated, Findings, Measure, Measurement, Quantity, Source, Study, StudyError, number,
};
use pgrad_run::config::RunConfig;
use pgrad_run::stats::{mean, standard_error};
use serde::Deserialize;
use toml::Spanned;

/// What is compared, from the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Normalised {
    /// Which score of a run.
    measure: Measure,
    /// Episodes of each evaluation.
    episodes: Spanned<usize>,
    algo: String,
    /// A preset's name; none: the defaults.
    preset: Option<String>,
    /// Environment steps of each run.
    steps: u64,
    first_seed: u64,
    seeds: Spanned<u64>,
    /// The tasks.
    envs: Spanned<Vec<String>>,
    /// What has the score 0.
    random: Variant,
    /// What is compared, best first as published.
    variants: Spanned<Vec<Variant>>,
    /// `[variant][task]`, made of the rest; the last variant is the random one.
    #[serde(skip)]
    entries: Vec<Vec<Entry>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Variant {
    label: String,
    #[serde(default)]
    settings: toml::Table,
    /// Environment steps, where it is given others than the rest.
    steps: Option<u64>,
}

/// The scores of one variant on one task.
type Scores = Vec<f64>;

/// Scores as fractions of the way from the random policy's mean to the best run.
fn normalised(scores: &[f64], random: f64, best: f64) -> Scores {
    scores.iter().map(|s| (s - random) / (best - random)).collect()
}

impl Normalised {
    fn entry(&self, variant: &Variant, env: &str) -> Result<Entry, String> {
        let config = match &self.preset {
            Some(name) => RunConfig::with_preset(&self.algo, env, name),
            None => RunConfig::without_preset(&self.algo, env),
        };
        let mut config = config.map_err(|e| e.to_string())?;
        let text = toml::to_string(&variant.settings).map_err(|e| e.to_string())?;
        config.apply_toml(&text, &variant.label).map_err(|e| e.to_string())?;
        config.run.steps = variant.steps.unwrap_or(self.steps);
        let entry = Entry {
            label: format!("{} {env}", variant.label),
            config,
            iterations: None,
            evaluated: Evaluated::default(),
            first_seed: self.first_seed,
            seeds: *self.seeds.get_ref(),
            anchors: Vec::new(),
        };
        entry.check().map_err(|e| format!("{}: {e}", entry.label))?;
        Ok(entry)
    }
    fn variants(&self) -> &[Variant] {
        self.variants.get_ref()
    }
    /// `[variant][task]`, each with the scores of its seeds, as they are.
    fn table(&self, raw: &[Vec<Scores>], scaled: &[Vec<Scores>]) -> String {
        let mut text =
            format!("Mean {} over seeds, ± one standard error.\n\n| task | random |", self.measure);
        for variant in self.variants() {
            text += &format!(" {} |", variant.label);
        }
        text += &format!("\n|---|{}\n", "--:|".repeat(raw.len()));
        let cell = |scores: &Scores| format!(" {:.1} ± {:.1} |", mean(scores), standard_error(scores));
        let (random, variants) = (&raw[raw.len() - 1], &raw[..raw.len() - 1]);
        for (task, env) in self.envs.get_ref().iter().enumerate() {
            text += &format!("| {env} |{}", cell(&random[task]));
            text.extend(variants.iter().map(|v| cell(&v[task])));
            text.push('\n');
        }
        text +=
            "\nThe same, of which the random policy has 0 and the best run of the task has 1.\n\n| task |";
        for variant in self.variants() {
            text += &format!(" {} |", variant.label);
        }
        text += &format!("\n|---|{}\n", "--:|".repeat(scaled.len()));
        let cell = |scores: &Scores| format!(" {:.2} ± {:.2} |", mean(scores), standard_error(scores));
        for (task, env) in self.envs.get_ref().iter().enumerate() {
            text += &format!("| {env} |");
            text.extend(scaled.iter().map(|v| cell(&v[task])));
            text.push('\n');
        }
        text
    }
}

impl Measurement for Normalised {
    fn check(&mut self, source: &Source<'_>) -> Result<(), StudyError> {
        if *self.episodes.get_ref() == 0 {
            return Err(source.error(self.episodes.span().start, "`episodes` is at least 1"));
        }
        if *self.seeds.get_ref() < 2 {
            return Err(source.error(self.seeds.span().start, "a standard error needs two seeds at least"));
        }
        if self.envs.get_ref().is_empty() {
            return Err(source.error(self.envs.span().start, "`envs` names a task at least"));
        }
        let at = self.variants.span().start;
        if self.variants().len() < 2 {
            return Err(source.error(at, "there is nothing to compare with fewer than two variants"));
        }
        let labels: Vec<_> = self.variants().iter().chain([&self.random]).map(|v| &v.label).collect();
        if let Some(twice) = labels.iter().enumerate().find(|(i, l)| labels[..*i].contains(l)) {
            return Err(source.error(at, format!("two variants are called `{}`", twice.1)));
        }
        let row = |variant: &Variant| {
            self.envs.get_ref().iter().map(|env| self.entry(variant, env)).collect::<Result<Vec<_>, _>>()
        };
        let rows = self.variants().iter().chain([&self.random]).map(row).collect::<Result<Vec<_>, _>>();
        self.entries = rows.map_err(|message| source.error(at, message))?;
        Ok(())
    }

    fn quantities(&self) -> Vec<String> {
        let labels = self.variants().iter().map(|v| v.label.clone());
        let ahead = self.variants().windows(2).map(|v| format!("{} ahead of {}", v[0].label, v[1].label));
        labels.chain(ahead).collect()
    }

    fn extent(&self) -> String {
        let (variants, tasks) = (self.variants().len(), self.envs.get_ref().len());
        format!("{variants} variants, {tasks} tasks, {} seeds", self.seeds.get_ref())
    }

    fn has_seeds(&self) -> bool {
        true
    }

    fn measure(&self, bench: &mut Bench<'_>) -> Result<Findings, StudyError> {
        if bench.seeds == Some(1) {
            return Err(StudyError::Measure { reason: "a standard error needs two seeds at least".into() });
        }
        let study = Study::of_entries(*self.episodes.get_ref(), self.entries.iter().flatten());
        let trained = bench.train(&study)?;
        let scores = |entry: &Entry| {
            let values = trained.values(&entry.label, self.measure);
            if values.len() < 2 {
                let reason = format!("{}: fewer than two runs finished an episode", entry.label);
                return Err(StudyError::Measure { reason });
            }
            Ok(values.to_vec())
        };
        let row = |entries: &Vec<Entry>| entries.iter().map(scores).collect::<Result<Vec<_>, _>>();
        let raw = self.entries.iter().map(row).collect::<Result<Vec<_>, StudyError>>()?;
        let scaled = scale(&raw);
        let overall: Vec<(f64, f64)> = scaled.iter().map(|tasks| overall(tasks)).collect();
        let ahead = overall.windows(2).map(|v| (v[0].0 - v[1].0, v[0].1.hypot(v[1].1)));
        let quantities = self
            .quantities()
            .into_iter()
            .zip(overall.iter().copied().chain(ahead))
            .map(|(name, (value, error))| Quantity::sampled(name, value, error))
            .collect();
        let seconds: f64 = trained.rows.iter().map(|r| r.seconds).sum();
        let text = format!(
            "{}\n{} runs, {} s of training on one thread each.",
            self.table(&raw, &scaled),
            trained.rows.len(),
            number(seconds.round())
        );
        Ok(Findings { quantities, text, ..Findings::default() })
    }
}

/// The mean over tasks of a variant's mean scores, and its standard error.
fn overall(tasks: &[Scores]) -> (f64, f64) {
    let means: Vec<f64> = tasks.iter().map(|s| mean(s)).collect();
    let square = tasks.iter().map(|s| standard_error(s).powi(2)).sum::<f64>();
    (mean(&means), square.sqrt() / tasks.len() as f64)
}

/// Each task's scores as fractions of the way from the random policy, the last of `raw`, to its best run.
fn scale(raw: &[Vec<Scores>]) -> Vec<Vec<Scores>> {
    let (random, variants) = (&raw[raw.len() - 1], &raw[..raw.len() - 1]);
    let ends: Vec<(f64, f64)> = (0..random.len())
        .map(|task| {
            let all = variants.iter().flat_map(|v| &v[task]).copied();
            (mean(&random[task]), all.fold(f64::NEG_INFINITY, f64::max))
        })
        .collect();
    variants
        .iter()
        .map(|v| v.iter().zip(&ends).map(|(s, (random, best))| normalised(s, *random, *best)).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_run_of_a_task_has_one_and_the_random_policy_nothing() {
        // Two variants on two tasks with two seeds; the random policy last.
        let raw = vec![
            vec![vec![10.0, 6.0], vec![-1.0, -2.0]],
            vec![vec![2.0, 4.0], vec![-3.0, -5.0]],
            vec![vec![1.0, 3.0], vec![-6.0, -4.0]],
        ];
        let expected = vec![vec![vec![1.0, 0.5], vec![1.0, 0.75]], vec![vec![0.0, 0.25], vec![0.5, 0.0]]];
        assert_eq!(scale(&raw), expected);
        // The best run may be of any variant: of the second, here.
        let other = vec![raw[1].clone(), raw[0].clone(), raw[2].clone()];
        assert_eq!(scale(&other), vec![expected[1].clone(), expected[0].clone()]);
    }

    /// By hand: scores of 0 and 2 have the mean 1 and the standard error 1, those of 3 and 9 the mean 6 and
    /// the error 3; over both tasks the mean is 3.5 and its error √(1 + 9) / 2.
    #[test]
    fn over_tasks_errors_add_as_those_of_a_mean() {
        let (mean, error) = overall(&[vec![0.0, 2.0], vec![3.0, 9.0]]);
        assert_eq!(mean, 3.5);
        assert!((error - 10f64.sqrt() / 2.0).abs() < 1e-12, "{error}");
        let (_, alone) = overall(&[vec![3.0, 9.0]]);
        assert!((alone - 3.0).abs() < 1e-12, "{alone}");
    }
}
