//! Studies that measure something else than scores of training runs: gradients, exact flows, grids.
//!
//! Such a study is a TOML file too. It names its kind; parameters, published values and protocol are data:
//! ```toml
//! kind = "kakade"
//! title = "Natural against vanilla gradient flows"
//! note = "What was done and how."
//!
//! [parameters]                    # what they are depends on the kind
//! target_reward = 1.9
//!
//! [[anchor]]
//! quantity = "natural time to 1.9"  # one of those that the kind measures
//! value = 2.4                     # as published
//! at_least = 2.3                  # what counts as the same: one bound or both
//! at_most = 2.5
//! source = "Kakade 2002, section 5"
//! ```
//!
//! # A new kind
//!
//! 1. `study/kinds/NAME.rs`: a struct with the parameters (`Deserialize`, `deny_unknown_fields`) that
//!    implements [`Measurement`]: [`check`](Measurement::check) refuses what cannot be measured,
//!    [`quantities`](Measurement::quantities) names what it measures (each may depend on the parameters), and
//!    [`measure`](Measurement::measure) measures and returns [`Findings`]. It asks
//!    [`Bench::stopped`] now and then, and tells [`Bench::progress`]. It writes no files: that is done here.
//! 2. `study/kinds/mod.rs`: its line in [`KINDS`].
//! 3. `studies/NAME.toml`, and its line in [`STUDIES`](super::STUDIES).
//!
//! Reading, unknown keys, names of quantities, verdicts, tables, files and the command line follow by
//! themselves. Pictures come from [`render_lines_svg`](pgrad_draw::plot::render_lines_svg) and
//! [`render_heat_map_svg`](pgrad_draw::heat_map::render_heat_map_svg). A kind outside pgrad is passed to
//! [`AnyStudy::parse_with`].

use super::file::{self, Source};
use super::kinds::KINDS;
use super::rows::Folder;
use super::work;
use super::{
    EmbeddedStudy, RESULTS, REVISION, SOURCES, STUDIES, SUMMARY_JSON, SUMMARY_MD, Study, StudyError,
    StudyEvent, StudyOptions, StudyProgress, StudyResult, VERSION, maker,
};
use pgrad_run::clock::Clock;
use pgrad_run::run_dir;
use pgrad_run::storage::{FsStorage, Storage, parent_of};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

/// A study of either sort, as its file says.
#[derive(Debug)]
pub enum AnyStudy {
    /// Algorithms x environments x seeds: a file without `kind`, or with `kind = "runs"`.
    Runs(Study),
    /// A measurement.
    Measured(MeasuredStudy),
}

impl AnyStudy {
    /// The study with this name, or else in this file.
    ///
    /// # Errors
    /// When there is none, or it is wrong in any way: with the line.
    pub fn load(name_or_file: &str) -> Result<Self, StudyError> {
        let (text, origin) = text_of(name_or_file)?;
        Self::parse_with(&text, &origin, name_or_file, KINDS)
    }
    /// The study in a text, which may be of one of these kinds. `origin` names the text in errors, `name` the
    /// study in tables.
    ///
    /// # Errors
    /// When it is wrong in any way: with the line.
    pub fn parse_with(text: &str, origin: &str, name: &str, kinds: &[Kind]) -> Result<Self, StudyError> {
        let source = Source { text, origin };
        let Some((kind, at)) = file::kind(&source)? else {
            return Ok(Self::Runs(file::parse(text, origin, name)?));
        };
        match kinds.iter().find(|k| k.name == kind) {
            Some(found) => Ok(Self::Measured((found.parse)(&source, name, found.name)?)),
            None => {
                let names = || [file::RUNS].into_iter().chain(kinds.iter().map(|k| k.name));
                let known = names().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
                let hint = pgrad_settings::suggest(&kind, names());
                let hint = hint.map_or_else(String::new, |s| format!("; did you mean `{s}`?"));
                Err(source.error(at, format!("there is no kind `{kind}` of study; there are {known}{hint}")))
            }
        }
    }
    /// Title of its tables.
    #[must_use]
    pub fn title(&self) -> &str {
        match self {
            Self::Runs(study) => &study.title,
            Self::Measured(study) => &study.title,
        }
    }
    /// How much it is, for a list.
    #[must_use]
    pub fn extent(&self) -> String {
        match self {
            Self::Runs(study) => {
                let runs: u64 = study.entries.iter().map(|e| e.seeds).sum();
                format!("{} entries, {runs} runs", study.entries.len())
            }
            Self::Measured(study) => study.measurement.extent(),
        }
    }
}

/// The text of a study with its origin.
pub(super) fn text_of(name_or_file: &str) -> Result<(String, String), StudyError> {
    if let Some(EmbeddedStudy { name, toml }) = STUDIES.iter().find(|s| s.name == name_or_file) {
        return Ok(((*toml).to_owned(), format!("studies/{name}.toml")));
    }
    let path = Path::new(name_or_file);
    if FsStorage.kind(path)?.is_none() {
        let names = || STUDIES.iter().map(|s| s.name);
        return Err(StudyError::Unknown {
            name: name_or_file.to_owned(),
            known: names().collect::<Vec<_>>().join(", "),
            suggestion: pgrad_settings::suggest(name_or_file, names()).map(str::to_owned),
        });
    }
    let bytes = FsStorage.read(path, file::MAX_LEN)?;
    Ok((String::from_utf8_lossy(&bytes).into_owned(), name_or_file.to_owned()))
}

/// Something to measure: its parameters, and how.
pub trait Measurement: fmt::Debug + Send + Sync {
    /// Refuses parameters that cannot be measured, and makes ready what follows from them. `source` gives an
    /// error the line of a [`toml::Spanned`] value.
    ///
    /// # Errors
    /// When the parameters are wrong: what was expected, and what came.
    fn check(&mut self, source: &Source<'_>) -> Result<(), StudyError>;
    /// Names of what is measured; anchors refer to them.
    fn quantities(&self) -> Vec<String>;
    /// How much it is, for a list: "3 methods, 20 seeds".
    fn extent(&self) -> String;
    /// Whether it takes fewer seeds when it is asked to ([`Bench::seeds`]). Asking one that does not is
    /// refused.
    fn has_seeds(&self) -> bool {
        false
    }
    /// Measures. What is found depends neither on the number of threads nor on the time, unless it is time that is
    /// measured.
    ///
    /// # Errors
    /// When it was stopped ([`StudyError::Stopped`]) or cannot be measured.
    fn measure(&self, bench: &mut Bench<'_>) -> Result<Findings, StudyError>;
}

/// A kind of measurement, by its name in files.
#[derive(Clone, Copy)]
pub struct Kind {
    /// Its name.
    pub name: &'static str,
    parse: fn(&Source<'_>, &str, &'static str) -> Result<MeasuredStudy, StudyError>,
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kind").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Kind {
    /// The kind called `name` whose parameters are `M`.
    #[must_use]
    pub const fn of<M: Measurement + DeserializeOwned + 'static>(name: &'static str) -> Self {
        Self { name, parse: file::measured::<M> }
    }
}

/// A published value, and what counts as the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    /// The quantity.
    pub quantity: String,
    /// The value.
    pub value: f64,
    /// Lowest value of ours that counts as the same.
    pub at_least: Option<f64>,
    /// Highest value of ours that counts as the same.
    pub at_most: Option<f64>,
    /// Who published it, where, with which protocol.
    pub source: String,
}

impl Bound {
    /// Whether a value of ours counts as the same.
    #[must_use]
    pub fn holds(&self, ours: f64) -> bool {
        ours.is_finite()
            && self.at_least.is_none_or(|low| ours >= low)
            && self.at_most.is_none_or(|high| ours <= high)
    }
    fn range(&self) -> String {
        match (self.at_least, self.at_most) {
            (Some(low), Some(high)) => format!("{} to {}", number(low), number(high)),
            (Some(low), None) => format!("≥ {}", number(low)),
            (None, Some(high)) => format!("≤ {}", number(high)),
            (None, None) => "any".to_owned(),
        }
    }
}

/// A study that measures.
#[derive(Debug)]
pub struct MeasuredStudy {
    /// Name or file, as the command takes it.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// Title of the table.
    pub title: String,
    /// What was done and how, as Markdown.
    pub note: String,
    /// What is measured.
    pub measurement: Box<dyn Measurement>,
    /// Published values.
    pub anchors: Vec<Bound>,
}

/// What a measurement may use.
pub struct Bench<'a> {
    /// Threads; what is found does not depend on it.
    pub threads: usize,
    /// Only so many seeds of each thing measured; never given when [`Measurement::has_seeds`] is false.
    pub seeds: Option<u64>,
    stop: &'a AtomicBool,
    listen: &'a mut dyn FnMut(StudyEvent<'_>),
    clock: &'a dyn Clock,
    folder: &'a Folder<'a>,
    command: &'a str,
    began: Duration,
}

impl fmt::Debug for Bench<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bench")
            .field("threads", &self.threads)
            .field("seeds", &self.seeds)
            .finish_non_exhaustive()
    }
}

impl Bench<'_> {
    /// Whether it was asked to stop.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
    /// Seconds since it began, for what measures time.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.clock.now().saturating_sub(self.began).as_secs_f64()
    }
    /// The flag behind [`stopped`](Self::stopped), for threads.
    #[must_use]
    pub fn stop_flag(&self) -> &AtomicBool {
        self.stop
    }
    /// Tells where it stands: `parts` of `total_parts` are done, with `steps` of `total_steps` environment
    /// steps (0 of 0 when it takes none).
    pub fn progress(&mut self, parts: usize, total_parts: usize, steps: u64, total_steps: u64) {
        let seconds = self.clock.now().saturating_sub(self.began).as_secs_f64();
        let p = StudyProgress { runs: parts, total_runs: total_parts, steps, total_steps, seconds };
        (self.listen)(StudyEvent::Progress(p));
    }
    /// Says something worth a line.
    pub fn notice(&mut self, text: &str) {
        (self.listen)(StudyEvent::Notice(text));
    }
    /// `work(0), .., work(n - 1)` on the threads there are, in this order; progress is told after each. What
    /// `work` returns for an index may depend on nothing else.
    ///
    /// # Errors
    /// The first error of `work`, [`StudyError::Stopped`], or a thread that could not be started.
    pub fn map<T: Send>(
        &mut self,
        n: usize,
        work: impl Fn(usize) -> Result<T, StudyError> + Sync,
    ) -> Result<Vec<T>, StudyError> {
        let (next, stop) = (AtomicUsize::new(0), self.stop);
        let mut found: Vec<Option<T>> = (0..n).map(|_| None).collect();
        thread::scope(|scope| {
            let (sender, receiver) = channel();
            for i in 0..self.threads.clamp(1, n.max(1)) {
                let (sender, next, work) = (sender.clone(), &next, &work);
                let worker = move || {
                    while !stop.load(Ordering::Relaxed) {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        if i >= n || sender.send((i, work(i))).is_err() {
                            return;
                        }
                    }
                };
                thread::Builder::new()
                    .name(format!("study-{i}"))
                    .spawn_scoped(scope, worker)
                    .map_err(StudyError::Threads)?;
            }
            drop(sender);
            for (done, (i, result)) in receiver.iter().enumerate() {
                found[i] = Some(result?);
                self.progress(done + 1, n, 0, 0);
            }
            Ok::<(), StudyError>(())
        })?;
        found.into_iter().collect::<Option<Vec<T>>>().ok_or(StudyError::Stopped)
    }
    /// Trains and evaluates all runs of `study` that are not in the folder yet. Their lines are the `results.csv`
    /// of the measurement, which then has no [`Findings::results`] of its own.
    ///
    /// # Errors
    /// When an entry cannot be run, a run failed, the folder cannot be written, or it was stopped.
    pub fn train(&mut self, study: &Study) -> Result<StudyResult, StudyError> {
        let parts = work::Parts {
            threads: self.threads,
            seeds: self.seeds,
            accept: Vec::new(),
            command: self.command.to_owned(),
            stop: self.stop,
            clock: self.clock,
        };
        let result = work::collect(study, self.folder, parts, self.listen)?;
        if result.stopped {
            return Err(StudyError::Stopped);
        }
        match result.failures.first() {
            Some(f) => {
                let reason = format!("{}, seed {}: {}", f.entry, f.seed, f.reason);
                Err(StudyError::Measure { reason })
            }
            None => Ok(result),
        }
    }
}

/// A number that was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantity {
    /// Its name: one of [`Measurement::quantities`].
    pub name: String,
    /// Its value.
    pub value: f64,
    /// Its standard error; none when it is exact.
    pub standard_error: Option<f64>,
}

impl Quantity {
    /// A number without a sampling error.
    pub fn exact(name: impl Into<String>, value: f64) -> Self {
        Self { name: name.into(), value, standard_error: None }
    }
    /// A number with a standard error.
    pub fn sampled(name: impl Into<String>, value: f64, standard_error: f64) -> Self {
        Self { name: name.into(), value, standard_error: Some(standard_error) }
    }
}

/// The lines of `results.csv`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Csv {
    /// Names of the columns.
    pub header: Vec<&'static str>,
    /// The lines; no cell has a comma or a line break.
    pub rows: Vec<Vec<String>>,
}

impl Csv {
    fn to_text(&self) -> String {
        let mut text = self.header.join(",") + "\n";
        for row in &self.rows {
            text += &(row.join(",") + "\n");
        }
        text
    }
}

/// What a measurement found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Findings {
    /// One number for each of [`Measurement::quantities`], in that order.
    pub quantities: Vec<Quantity>,
    /// All that was measured; none after [`Bench::train`], which writes it.
    pub results: Option<Csv>,
    /// Markdown below the table; may be empty.
    pub text: String,
    /// Names (ending in `.svg`) and texts of pictures.
    pub pictures: Vec<(String, String)>,
}

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
    let StudyOptions { threads, out, seeds, accept, command, stop, listen, clock, storage } = options;
    if seeds == Some(0) {
        return Err(StudyError::NoSeeds);
    }
    if seeds.is_some() && !study.measurement.has_seeds() {
        return Err(StudyError::SeedsIgnored { kind: study.kind });
    }
    if !accept.is_empty() {
        return Err(StudyError::AcceptIgnored { kind: study.kind });
    }
    let command = command.unwrap_or_else(|| format!("pgrad study {}", study.name));
    storage.create_dir_all(&out)?;
    storage.sync_dir(parent_of(&out))?;
    let _lock = run_dir::lock(&out, false)?;
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
    /// Whether every anchor holds.
    #[must_use]
    pub fn all_reproduced(&self) -> bool {
        self.findings.quantities.iter().all(|q| self.anchors_of(&q.name).all(|a| a.holds(q.value)))
    }
    /// The tables as Markdown.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut out = format!("# {}\n\n", self.title);
        if !self.note.is_empty() {
            out += &format!("{}\n\n", self.note);
        }
        out += "| quantity | ours | standard error | anchor | counts as the same | verdict |\n";
        out += "|---|--:|--:|--:|:-:|---|\n";
        for q in &self.findings.quantities {
            let cells = |cell: &dyn Fn(&Bound) -> String| {
                let all: Vec<String> = self.anchors_of(&q.name).map(cell).collect();
                if all.is_empty() { "–".to_owned() } else { all.join("; ") }
            };
            out += &format!(
                "| {} | {} | {} | {} | {} | {} |\n",
                q.name,
                number(q.value),
                q.standard_error.map_or_else(|| "exact".to_owned(), number),
                cells(&|a| number(a.value)),
                cells(&Bound::range),
                cells(&|a| verdict(a, q.value).to_owned()),
            );
        }
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
                    "quantity": q.name, "value": q.value, "standard_error": q.standard_error,
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

fn verdict(anchor: &Bound, ours: f64) -> &'static str {
    if anchor.holds(ours) { "reproduced" } else { "short" }
}

/// Four significant digits: `0`, `1.9`, `-11.66`, `2.7e6`.
#[must_use]
pub fn number(x: f64) -> String {
    if x == 0.0 || !x.is_finite() {
        return x.to_string();
    }
    let text = format!("{x:.3e}");
    // Rounding may carry: the exponent is that of the rounded number.
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let short = |t: &str| {
        if t.contains('.') { t.trim_end_matches('0').trim_end_matches('.').to_owned() } else { t.to_owned() }
    };
    match exponent {
        -3..=5 => short(&format!("{x:.*}", (3 - exponent).max(0) as usize)),
        _ => format!("{}e{exponent}", short(digits)),
    }
}
