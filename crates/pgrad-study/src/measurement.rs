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
//! 1. `kinds/NAME.rs`: a struct with the parameters (`Deserialize`, `deny_unknown_fields`) that
//!    implements [`Measurement`]: [`check`](Measurement::check) refuses what cannot be measured,
//!    [`quantities`](Measurement::quantities) names what it measures (each may depend on the parameters), and
//!    [`measure`](Measurement::measure) measures and returns [`Findings`]. It asks
//!    [`Bench::stopped`] now and then, and tells [`Bench::progress`]. It writes no files: that is done here.
//! 2. `kinds/mod.rs`: its line in [`KINDS`](crate::KINDS).
//! 3. `studies/NAME.toml`, and its line in [`STUDIES`](crate::STUDIES).
//!
//! Reading, unknown keys, names of quantities, verdicts, tables, files and the command line follow by
//! themselves. Pictures come from [`render_lines_svg`](pgrad_draw::plot::render_lines_svg) and
//! [`render_heat_map_svg`](pgrad_draw::heat_map::render_heat_map_svg). A kind outside pgrad is passed to
//! [`AnyStudy::parse_with`](crate::AnyStudy::parse_with).

use crate::rows::Folder;
use crate::work;
use crate::{Source, Study, StudyError, StudyEvent, StudyProgress, StudyResult};
use pgrad_run::clock::Clock;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

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
    /// Measures. What is found depends neither on the number of threads nor on the time, unless it is time
    /// that is measured.
    ///
    /// # Errors
    /// When it was stopped ([`StudyError::Stopped`]) or cannot be measured.
    fn measure(&self, bench: &mut Bench<'_>) -> Result<Findings, StudyError>;
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
    pub(crate) fn range(&self) -> String {
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
    pub(crate) stop: &'a AtomicBool,
    pub(crate) listen: &'a mut dyn FnMut(StudyEvent<'_>),
    pub(crate) clock: &'a dyn Clock,
    pub(crate) folder: &'a Folder<'a>,
    pub(crate) command: &'a str,
    pub(crate) began: Duration,
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
    /// Trains and evaluates all runs of `study` that are not in the folder yet. Their lines are the
    /// `results.csv` of the measurement, which then has no [`Findings::results`] of its own.
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
    /// Whether it was computed and not sampled.
    pub exact: bool,
    /// Its standard error; none when it is exact, or when it was not estimated.
    pub standard_error: Option<f64>,
}

impl Quantity {
    /// A number without a sampling error.
    pub fn exact(name: impl Into<String>, value: f64) -> Self {
        Self { name: name.into(), value, exact: true, standard_error: None }
    }
    /// A number with a standard error.
    pub fn sampled(name: impl Into<String>, value: f64, standard_error: f64) -> Self {
        Self { name: name.into(), value, exact: false, standard_error: Some(standard_error) }
    }
    /// A number that was sampled, but whose error is not known.
    pub fn estimated(name: impl Into<String>, value: f64) -> Self {
        Self { name: name.into(), value, exact: false, standard_error: None }
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
    pub(crate) fn to_text(&self) -> String {
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
