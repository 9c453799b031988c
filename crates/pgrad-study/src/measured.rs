//! Running a measurement: its tables, verdicts and files.

use crate::rows::Folder;
use crate::stamp::maker;
use crate::{
    Bench, Bound, Findings, MeasuredStudy, Quantity, RESULTS, REVISION, SOURCES, SUMMARY_JSON, SUMMARY_MD,
    StudyError, StudyOptions, VERSION, number,
};
use pgrad_run::run_dir;
use pgrad_run::storage::parent_of;
use serde_json::{Value, json};
use std::path::PathBuf;

/// What came of a study that measures. The same is in the folder of the results.
#[derive(Clone, Debug)]
pub struct MeasuredResult {
    /// Name of the study.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// Its title.
    pub title: String,
    /// Its note.
    pub note: String,
    /// The command that makes it again.
    pub command: String,
    /// Version of pgrad.
    pub version: &'static str,
    /// Folder of the results.
    pub out: PathBuf,
    /// What was found.
    pub findings: Findings,
    /// Published values.
    pub anchors: Vec<Bound>,
    /// Seconds that it took.
    pub seconds: f64,
}

/// Runs a study that measures, and writes its tables.
///
/// # Errors
/// When it cannot be measured, or is stopped: no table has been written then. When the folder is in use or
/// cannot be written.
pub fn run_measured(study: &MeasuredStudy, options: StudyOptions<'_>) -> Result<MeasuredResult, StudyError> {
    let StudyOptions { threads, out, seeds, other_seeds, accept, command, stop, listen, clock, storage } =
        options;
    if seeds == Some(0) {
        return Err(StudyError::NoSeeds);
    }
    if seeds.is_some() && !study.measurement.has_seeds() {
        return Err(StudyError::SeedsIgnored { kind: study.kind });
    }
    if other_seeds.is_some() {
        return Err(StudyError::OtherSeedsIgnored { kind: study.kind });
    }
    if !accept.is_empty() {
        return Err(StudyError::AcceptIgnored { kind: study.kind });
    }
    let command = command.unwrap_or_else(|| format!("pgrad study {}", study.name));
    storage.create_dir_all(&out)?;
    storage.sync_dir(parent_of(&out))?;
    let lock = run_dir::lock(&out, false)?;
    let storage = lock.storage(&storage);
    let folder = Folder { storage: &*storage, root: &out };
    let began = clock.now();
    let mut bench = Bench {
        threads,
        seeds,
        stop: &stop,
        listen,
        clock: &*clock,
        folder: &folder,
        command: &command,
        began,
    };
    let findings = study.measurement.measure(&mut bench)?;
    debug_assert!(
        findings.quantities.iter().map(|q| &q.name).eq(&study.measurement.quantities()),
        "a measurement finds what it names"
    );
    let seconds = clock.now().saturating_sub(began).as_millis() as f64 / 1000.0;
    let result = MeasuredResult {
        name: study.name.clone(),
        kind: study.kind,
        title: study.title.clone(),
        note: study.note.clone(),
        command,
        version: VERSION,
        out: out.clone(),
        findings,
        anchors: study.anchors.clone(),
        seconds,
    };
    if let Some(csv) = &result.findings.results {
        folder.write(RESULTS, &csv.to_text())?;
    }
    for (name, svg) in &result.findings.pictures {
        folder.write(name, svg)?;
    }
    folder.write(SUMMARY_MD, &result.to_markdown())?;
    folder.write(SUMMARY_JSON, &format!("{:#}\n", result.to_json()))?;
    Ok(result)
}

impl MeasuredResult {
    /// The published values of a quantity.
    fn anchors_of<'s>(&'s self, quantity: &'s str) -> impl Iterator<Item = &'s Bound> {
        self.anchors.iter().filter(move |a| a.quantity == quantity)
    }
    /// Whether every bound holds.
    #[must_use]
    pub fn all_within(&self) -> bool {
        self.findings.quantities.iter().all(|q| self.anchors_of(&q.name).all(|a| a.holds(q.value)))
    }
    /// The tables as Markdown.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut out = format!("# {}\n\n", self.title);
        if !self.note.is_empty() {
            out += &format!("{}\n\n", self.note);
        }
        out += &table(&self.findings.quantities, &self.anchors);
        if !self.findings.text.is_empty() {
            out += &format!("\n{}\n", self.findings.text.trim());
        }
        for (name, _) in &self.findings.pictures {
            out += &format!("\n![{}]({name})\n", name.trim_end_matches(".svg"));
        }
        if !self.anchors.is_empty() {
            out += "\nAnchors:\n\n";
        }
        for a in &self.anchors {
            out += &format!("- {}, {}: {}\n", a.quantity, number(a.value), a.source);
        }
        out += &format!("\nMade by `{}`, {}, in {:.1} s.\n", self.command, maker(self.version), self.seconds);
        out
    }
    /// The same for programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let quantities: Vec<Value> = self
            .findings
            .quantities
            .iter()
            .map(|q| {
                let anchors: Vec<Value> = self
                    .anchors_of(&q.name)
                    .map(|a| {
                        json!({
                            "value": a.value, "at_least": a.at_least, "at_most": a.at_most,
                            "source": a.source, "verdict": verdict(a, q.value),
                        })
                    })
                    .collect();
                json!({
                    "quantity": q.name, "value": q.value, "exact": q.exact, "standard_error": q.standard_error,
                    "anchors": anchors,
                })
            })
            .collect();
        let pictures: Vec<&str> = self.findings.pictures.iter().map(|(name, _)| name.as_str()).collect();
        json!({
            "study": self.name, "kind": self.kind, "title": self.title, "command": self.command,
            "version": self.version, "sources": SOURCES, "revision": REVISION, "seconds": self.seconds, "quantities": quantities,
            "pictures": pictures,
        })
    }
}

/// The table of what was measured. The bounds are ours: the published number stands beside them.
pub(crate) fn table(quantities: &[Quantity], anchors: &[Bound]) -> String {
    let mut out =
        "| quantity | ours | standard error | published | our bound | verdict |\n|---|--:|--:|--:|:-:|---|\n"
            .to_owned();
    for q in quantities {
        let cells = |cell: &dyn Fn(&Bound) -> String| {
            let all: Vec<String> = anchors.iter().filter(|a| a.quantity == q.name).map(cell).collect();
            if all.is_empty() { "–".to_owned() } else { all.join("; ") }
        };
        let error = match q.standard_error {
            Some(error) => number(error),
            None if q.exact => "exact".to_owned(),
            None => "sampled, not estimated".to_owned(),
        };
        out += &format!(
            "| {} | {} | {error} | {} | {} | {} |\n",
            q.name,
            number(q.value),
            cells(&|a| number(a.value)),
            cells(&Bound::range),
            cells(&|a| verdict(a, q.value).to_owned()),
        );
    }
    out
}

pub(crate) fn verdict(anchor: &Bound, ours: f64) -> &'static str {
    if anchor.holds(ours) { "within our bound" } else { "outside our bound" }
}
