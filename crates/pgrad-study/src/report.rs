//! The tables of a study.

use crate::scores::{Judgement, Summary, judge, judge_at_most};
use crate::stamp::maker;
use crate::{Anchor, Entry, Evaluated, Measure, REVISION, RunFailure, RunRow, SOURCES};
use pgrad_run::stats::Interval;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Seed of the resampling: intervals are the same whenever they are computed.
const BOOTSTRAP_SEED: u64 = 1;

/// A published score with the verdict on ours.
#[derive(Clone, Debug, PartialEq)]
pub struct JudgedAnchor {
    /// What was published.
    pub anchor: Anchor,
    /// The verdict; none when runs are missing, failed or are fewer than two.
    pub judgement: Option<Judgement>,
}

/// One measure of an entry over its seeds.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// Which.
    pub measure: Measure,
    /// One score a seed, in the order of the seeds.
    pub values: Vec<f64>,
    /// Their summary; none below two.
    pub summary: Option<Summary>,
    /// Published scores of this measure.
    pub anchors: Vec<JudgedAnchor>,
}

impl Score {
    /// The scores with those of the anchors that are of this measure, judged if all runs are there.
    pub(crate) fn new<'a>(
        measure: Measure,
        values: Vec<f64>,
        anchors: impl Iterator<Item = &'a Anchor>,
        complete: bool,
    ) -> Self {
        let judged = |a: &Anchor| {
            if a.at_most {
                return judge_at_most(&values, a.value, BOOTSTRAP_SEED);
            }
            judge(&values, a.value, a.standard_error, BOOTSTRAP_SEED)
        };
        let anchors = anchors.filter(|a| a.measure == measure).map(|a| JudgedAnchor {
            judgement: complete.then(|| judged(a).ok()).flatten(),
            anchor: a.clone(),
        });
        let anchors = anchors.collect();
        Self { measure, anchors, summary: Summary::of(&values, BOOTSTRAP_SEED).ok(), values }
    }
}

/// What came of an entry.
#[derive(Clone, Debug, PartialEq)]
pub struct EntryResult {
    /// Label.
    pub label: String,
    /// Environment.
    pub env: String,
    /// Algorithm.
    pub algo: String,
    /// Environment steps that were asked for.
    pub steps: u64,
    /// Iterations after which a run stopped, where that was asked for.
    pub iterations: Option<u64>,
    /// How the final policy acted when E was taken.
    pub evaluated: Evaluated,
    /// Final policy.
    pub e: Score,
    /// Last 100 training episodes.
    pub t: Score,
}

impl EntryResult {
    /// The result of an entry from its lines; `runs` is how many there should be.
    pub(super) fn new(entry: &Entry, rows: &[RunRow], runs: u64) -> Self {
        let complete = rows.len() as u64 == runs;
        let score = |measure, values: Vec<f64>| {
            let complete = complete && values.len() == rows.len();
            Score::new(measure, values, entry.anchors.iter(), complete)
        };
        Self {
            label: entry.label.clone(),
            env: entry.config.env_id().to_owned(),
            algo: entry.config.algo().to_owned(),
            steps: entry.config.run.steps,
            iterations: entry.iterations,
            evaluated: entry.evaluated,
            e: score(Measure::E, rows.iter().map(|r| r.e).collect()),
            t: score(Measure::T, rows.iter().filter_map(|r| r.t).collect()),
        }
    }
    /// The name of a measure in tables.
    fn measure_name(&self, measure: Measure) -> String {
        match (measure, self.evaluated) {
            (Measure::E, Evaluated::Stochastic) => "E (drawn)".to_owned(),
            _ => measure.to_string(),
        }
    }
    /// The scores.
    #[must_use]
    pub fn scores(&self) -> [&Score; 2] {
        [&self.e, &self.t]
    }
}

/// What a study found. The same is in the folder of the results.
#[derive(Clone, Debug)]
pub struct StudyResult {
    /// Name of the study.
    pub name: String,
    /// Its title.
    pub title: String,
    /// Its note.
    pub note: String,
    /// Episodes of each evaluation.
    pub episodes: usize,
    /// The command that makes it again.
    pub command: String,
    /// Version of pgrad.
    pub version: &'static str,
    /// Folder of the results.
    pub out: PathBuf,
    /// Whether it was stopped before its end. No summary was written then.
    pub stopped: bool,
    /// A line for every run that is done, in the order of the study.
    pub rows: Vec<RunRow>,
    /// How many of them were there before.
    pub reused: usize,
    /// Runs that failed.
    pub failures: Vec<RunFailure>,
    /// The entries with their scores.
    pub entries: Vec<EntryResult>,
}

impl StudyResult {
    /// The scores of the entry called `label`, a number for each seed; none when no run of it has one.
    pub(super) fn values(&self, label: &str, measure: Measure) -> &[f64] {
        let found = self.entries.iter().find(|r| r.label == label);
        found.map_or(&[], |r| match measure {
            Measure::E => &r.e.values,
            Measure::T => &r.t.values,
        })
    }
    /// The tables as Markdown.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut out = format!("# {}\n\n", self.title);
        let mut line = |text: String| {
            out.push_str(&text);
            out.push('\n');
        };
        if !self.note.is_empty() {
            line(format!("{}\n", self.note));
        }
        let drawn = if self.entries.iter().any(|e| e.evaluated == Evaluated::Stochastic) {
            " E (drawn): the same, but actions drawn."
        } else {
            ""
        };
        line(format!(
            "E: mean return of the final policy over {} episodes, most probable actions, normaliser frozen.{drawn} \
             T: mean return of the last 100 training episodes, actions drawn. Both per seed; the table is over \
             seeds.\n",
            self.episodes
        ));
        line(table(&self.entries));
        line(format!("{LEGEND}\n"));
        let all = || self.entries.iter().flat_map(EntryResult::scores).flat_map(|s| &s.anchors);
        if all().any(|a| a.anchor.at_most) {
            line(
                "An anchor with ≤ is what nobody can get more than, on average. Bounded: our scores do not speak against \
                 it. Exceeded: the lower end of the interval of our mean is above it.\n"
                    .into(),
            );
        }
        for (row, lost) in self.rows.iter().filter_map(|r| Some((r, r.lost.filter(|lost| *lost > 0)?))) {
            line(format!(
                "- **episodes lost**: {}, seed {}: the environment failed in {lost} of {} episodes, and E is the mean of \
                 the others",
                row.entry, row.seed, self.episodes
            ));
        }
        for failure in &self.failures {
            line(format!("- **failed**: {}, seed {}: {}", failure.entry, failure.seed, failure.reason));
        }
        if all().next().is_some() {
            line("Anchors:\n".into());
        }
        for (entry, score) in self.entries.iter().flat_map(|e| e.scores().map(|s| (e, s))) {
            for JudgedAnchor { anchor, .. } in &score.anchors {
                let error = match anchor.standard_error {
                    _ if anchor.at_most => "an upper bound".to_owned(),
                    0.0 => "standard error not published".to_owned(),
                    se => format!("standard error {se}"),
                };
                line(format!(
                    "- {}, {} {}{}: {} ({error})",
                    entry.label,
                    entry.measure_name(anchor.measure),
                    sign(anchor),
                    anchor.value,
                    anchor.source
                ));
            }
        }
        let (runs, seconds) = (self.rows.len(), self.rows.iter().map(|r| r.seconds).sum::<f64>());
        line(format!(
            "\nMade by `{}`, {}: {runs} runs, {seconds:.0} s of training on one thread each.",
            self.command,
            maker(self.version)
        ));
        for (sources, entries) in self.others() {
            line(format!("\nMade before, by sources {sources}, and not done again: {}.", entries.join(", ")));
        }
        out
    }
    /// Sources of other programs whose runs count, each with its entries.
    fn others(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut others: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for row in self.rows.iter().filter(|r| r.sources != SOURCES) {
            let entries = others.entry(&row.sources).or_default();
            if entries.last() != Some(&row.entry.as_str()) {
                entries.push(&row.entry);
            }
        }
        others
    }

    /// The same for programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let entries: Vec<Value> = self
            .entries
            .iter()
            .map(|e| {
                json!({
                    "entry": e.label, "env": e.env, "algo": e.algo, "steps": e.steps,
                    "iterations": e.iterations, "evaluation": e.evaluated.to_string(),
                    "E": score_json(&e.e), "T": score_json(&e.t),
                })
            })
            .collect();
        let failures: Vec<Value> = self
            .failures
            .iter()
            .map(|f| json!({ "entry": f.entry, "seed": f.seed, "reason": f.reason }))
            .collect();
        json!({
            "study": self.name, "title": self.title, "command": self.command, "version": self.version,
            "sources": SOURCES, "revision": REVISION, "episodes": self.episodes, "runs": self.rows.len(),
            "seconds": self.rows.iter().map(|r| r.seconds).sum::<f64>(),
            "entries": entries, "failures": failures, "accepted": self.others(),
        })
    }
}

pub(crate) fn score_json(score: &Score) -> Value {
    let summary = score.summary.map(|s| {
        json!({
            "mean": s.mean, "std": s.std, "standard_error": s.standard_error,
            "mean_interval": [s.mean_interval.low, s.mean_interval.high],
            "iqm": s.iqm, "iqm_interval": [s.iqm_interval.low, s.iqm_interval.high],
            "min": s.min, "max": s.max,
        })
    });
    let anchors: Vec<Value> = score
        .anchors
        .iter()
        .map(|a| {
            json!({
                "value": a.anchor.value, "standard_error": a.anchor.standard_error, "at_most": a.anchor.at_most,
                "source": a.anchor.source, "verdict": a.judgement.map(|j| j.verdict.to_string()),
                "difference": a.judgement.map(|j| j.difference), "error": a.judgement.map(|j| j.error),
                "failed_seeds": a.judgement.map(|j| j.failed),
            })
        })
        .collect();
    json!({ "values": score.values, "summary": summary, "anchors": anchors })
}

/// What the table's verdicts mean.
pub(crate) const LEGEND: &str = "Difference: our mean minus the anchor, ± its standard error (ours, without failed seeds, and \
    the anchor's where it was published). A seed has failed that is below the anchor by more than a quarter of it. Beaten: our \
    mean is above the anchor by more than the 95 % intervals of both together. Reproduced: it is no worse than the anchor by \
    more than that standard error, nor by more than a tenth of the anchor. Intervals: percentile bootstrap over seeds, 10 000 \
    resamples.";

/// The table of entries, a line for each of their scores.
pub(crate) fn table(entries: &[EntryResult]) -> String {
    let mut out = "| entry | steps | seeds | measure | mean | std | 95 % interval of the mean | IQM | 95 % interval of the IQM \
                   | min | anchor | difference | verdict |\n\
                   |---|--:|--:|:-:|--:|--:|:-:|--:|:-:|--:|--:|--:|---|\n"
        .to_owned();
    for (entry, score) in entries.iter().flat_map(|e| e.scores().map(|s| (e, s))) {
        out += &format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} |\n",
            entry.label,
            entry.iterations.map_or_else(|| entry.steps.to_string(), |n| format!("{n} iterations")),
            score.values.len(),
            entry.measure_name(score.measure),
            numbers(score),
            cells(&score.anchors, |a| format!("{}{}", sign(&a.anchor), number(a.anchor.value))),
            cells(&score.anchors, |a| a
                .judgement
                .map_or_else(dash, |j| { format!("{:+.2} ± {}", j.difference, number(j.error)) })),
            cells(&score.anchors, |a| a
                .judgement
                .map_or_else(|| "not judged".to_owned(), |j| verdict(j, score.values.len()))),
        );
    }
    out
}

/// A verdict in words, with the seeds that failed.
fn verdict(judged: Judgement, seeds: usize) -> String {
    match judged.failed {
        0 => judged.verdict.to_string(),
        failed => format!("{}, {failed} of {seeds} seeds failed", judged.verdict),
    }
}

fn dash() -> String {
    "–".to_owned()
}

/// What stands before the number of an anchor.
fn sign(anchor: &Anchor) -> &'static str {
    if anchor.at_most { "≤ " } else { "" }
}

fn number(x: f64) -> String {
    format!("{x:.2}")
}

fn cells(anchors: &[JudgedAnchor], cell: impl Fn(&JudgedAnchor) -> String) -> String {
    if anchors.is_empty() { dash() } else { anchors.iter().map(cell).collect::<Vec<_>>().join("; ") }
}

/// The numbers of a line of the table, from the mean to the minimum.
fn numbers(score: &Score) -> String {
    let cells: [String; 6] = match &score.summary {
        Some(s) => {
            let interval = |i: Interval| format!("[{:.2}, {:.2}]", i.low, i.high);
            [
                number(s.mean),
                number(s.std),
                interval(s.mean_interval),
                number(s.iqm),
                interval(s.iqm_interval),
                number(s.min),
            ]
        }
        None => {
            let mean = score.values.first().map_or_else(dash, |v| number(*v));
            [mean, dash(), dash(), dash(), dash(), dash()]
        }
    };
    cells.join(" | ")
}
