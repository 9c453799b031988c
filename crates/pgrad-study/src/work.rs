//! Running a study.

use crate::{
    Anchor, CURVES, Entry, EntryError, EntryResult, Evaluated, RunFailure, RunRow, SEED_LIMIT, SOURCES,
    SUMMARY_JSON, SUMMARY_MD, Study, StudyError, StudyEvent, StudyOptions, StudyProgress, StudyResult,
    VERSION, eval_seed,
    rows::{Folder, Point, curve_digest},
};
use pgrad_draw::plot::{Band, Curve, PlotOptions, render_svg};
use pgrad_model::AgentError;
use pgrad_run::{
    clock::Clock,
    config::{OnDivergence, RunConfig, RunConfigError},
    eval::{EvalError, EvalOptions, evaluate_run},
    run_dir,
    storage::parent_of,
    trainer::Trainer,
};
use std::{
    collections::BTreeMap,
    sync::{
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread,
    time::Duration,
};
use thiserror::Error;

/// Points of a learning curve.
const CURVE_POINTS: u64 = 100;
/// How often progress is told.
const TICK: Duration = Duration::from_millis(200);
/// Bytes of the digest that are kept: enough that no two runs have the same.
const DIGEST_BYTES: usize = 12;

impl Entry {
    /// Checks that it can be run.
    ///
    /// # Errors
    /// When it cannot.
    pub fn check(&self) -> Result<(), EntryError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || " ._-+()/:".contains(c);
        if !(1..=80).contains(&self.label.len()) || !self.label.chars().all(plain) {
            return Err(EntryError::Characters);
        }
        if self.seeds == 0 || self.first_seed.checked_add(self.seeds).is_none_or(|end| end > SEED_LIMIT) {
            return Err(EntryError::Seeds);
        }
        if self.iterations == Some(0) {
            return Err(EntryError::Iterations);
        }
        let comparable = |a: &Anchor| {
            let (v, se) = (a.value, a.standard_error);
            v.is_finite() && se.is_finite() && se >= 0.0 && !(a.at_most && se > 0.0)
        };
        if !self.anchors.iter().all(comparable) {
            return Err(EntryError::Anchor);
        }
        if self.config.run.on_divergence != OnDivergence::Stop {
            return Err(EntryError::Divergence);
        }
        Ok(self.config.check_at_home()?)
    }
}

/// One run to do.
struct Job<'s> {
    entry: &'s Entry,
    config: RunConfig,
    settings: String,
    /// The sources whose program is to do it, or did.
    sources: String,
}

impl<'s> Job<'s> {
    fn new(entry: &'s Entry, seed: u64, episodes: usize, sources: &str) -> Self {
        let settings = run_digest(entry, seed, episodes, sources);
        Self { entry, config: config_of(entry, seed), settings, sources: sources.to_owned() }
    }
    fn is_done_by(&self, row: &RunRow) -> bool {
        row.entry == self.entry.label
            && row.seed == self.config.run.seed
            && row.settings == self.settings
            && row.sources == self.sources
    }
}

/// What the run of `entry` with this seed is configured with.
fn config_of(entry: &Entry, seed: u64) -> RunConfig {
    let mut config = entry.config.for_another_run();
    config.run.seed = seed;
    config
}

/// Digest of everything that the scores of a run depend on, as its line has it: the settings of `entry` with
/// this seed, the episodes of an evaluation, pgrad's version and the digest of the sources that do it.
#[must_use]
pub fn run_digest(entry: &Entry, seed: u64, episodes: usize, sources: &str) -> String {
    let config = config_of(entry, seed);
    let (evaluated, iterations) = (entry.evaluated, entry.iterations);
    let all = format!(
        "pgrad {VERSION}, sources {sources}\nepisodes = {episodes}, {evaluated}, iterations = \
         {iterations:?}\n{}",
        config.to_toml(false)
    );
    blake3::hash(all.as_bytes()).to_hex()[..2 * DIGEST_BYTES].to_owned()
}

/// Why a run has no scores.
#[derive(Debug, Error)]
enum RunStop {
    /// It was asked to stop.
    #[error("stopped")]
    Stopped,
    #[error(transparent)]
    Config(#[from] RunConfigError),
    #[error("{cause} (after {steps} steps)")]
    Agent { cause: AgentError, steps: u64 },
    #[error(transparent)]
    Eval(#[from] EvalError),
}

/// What the workers share.
struct Shared<'a> {
    stop: &'a AtomicBool,
    /// Set when the study cannot go on: its results cannot be written.
    abort: &'a AtomicBool,
    steps: &'a AtomicU64,
    clock: &'a dyn Clock,
    episodes: usize,
}

/// Trains and evaluates one run, on the thread that calls.
fn run(job: &Job<'_>, shared: &Shared<'_>) -> Result<(RunRow, Vec<Point>), RunStop> {
    let total = job.config.run.steps;
    let began = shared.clock.now();
    let mut trainer = Trainer::new(job.config.clone(), 1)?;
    let mut curve = Vec::new();
    while !trainer.is_done() && job.entry.iterations.is_none_or(|most| trainer.iterations() < most) {
        if shared.stop.load(Ordering::Relaxed) || shared.abort.load(Ordering::Relaxed) {
            return Err(RunStop::Stopped);
        }
        let before = trainer.steps();
        trainer.iterate().map_err(|cause| RunStop::Agent { cause, steps: before })?;
        let steps = trainer.steps();
        shared.steps.fetch_add(steps - before, Ordering::Relaxed);
        let mark = |steps: u64| u128::from(steps) * u128::from(CURVE_POINTS) / u128::from(total);
        if let Some(mean) = trainer.return_mean_100().filter(|_| mark(steps) > mark(before)) {
            curve.push((steps, mean));
        }
    }
    // To the millisecond, as it is written: a line that is read again is the same.
    let seconds = shared.clock.now().saturating_sub(began).as_millis() as f64 / 1000.0;
    let seed = job.config.run.seed;
    let options = EvalOptions {
        episodes: shared.episodes,
        seed: eval_seed(seed),
        stochastic: job.entry.evaluated == Evaluated::Stochastic,
        ..EvalOptions::default()
    };
    let found = evaluate_run(trainer.policy(1), &job.config, &options)?;
    let row = RunRow {
        entry: job.entry.label.clone(),
        env: job.config.env_id().to_owned(),
        algo: job.config.algo().to_owned(),
        steps: trainer.steps(),
        seed,
        e: found.return_mean(),
        t: trainer.return_mean_100(),
        seconds,
        settings: job.settings.clone(),
        sources: SOURCES.to_owned(),
        lost: Some(found.episodes_lost as u64),
        curve: Some(curve_digest(&curve)),
    };
    Ok((row, curve))
}

/// Runs a study, or what is missing of it, and writes its tables.
///
/// A run that fails does not stop the others: it is in [`StudyResult::failures`], and its entry is not
/// judged.
///
/// # Errors
/// When an entry cannot be run: nothing has been written then. When the folder is in use, cannot be written,
/// or holds something else: the lines that were written before are good.
pub fn run_study(study: &Study, options: StudyOptions<'_>) -> Result<StudyResult, StudyError> {
    // Before anything is written.
    let own = study;
    let fresh = options.other_seeds.map(|other| own.on_seeds(other, |_| false));
    jobs(fresh.as_ref().unwrap_or(own), options.seeds, &[], &[])?;
    let StudyOptions { threads, out, seeds, other_seeds, accept, command, stop, listen, clock, storage } =
        options;
    let command = command.unwrap_or_else(|| format!("pgrad study {}", study.name));
    storage.create_dir_all(&out)?;
    storage.sync_dir(parent_of(&out))?;
    let lock = run_dir::lock(&out, false)?;
    let storage = lock.storage(&storage);
    let folder = Folder { storage: &*storage, root: &out };
    let rows = folder.rows()?;
    let is_there = |entry: &Entry| {
        let alone = Study::of_entries(own.episodes, std::iter::once(entry));
        let jobs = jobs(&alone, None, &accept, &rows);
        jobs.is_ok_and(|jobs| jobs.iter().all(|j| rows.iter().any(|r| j.is_done_by(r))))
    };
    let beside = other_seeds.map(|other| own.on_seeds(other, is_there));
    let study = beside.as_ref().unwrap_or(own);
    let result = collect(
        study,
        &folder,
        Parts { threads, seeds, accept, command, stop: &stop, clock: &*clock },
        listen,
    )?;
    if !result.stopped {
        pictures(study, &result, &folder, listen)?;
        folder.write(SUMMARY_MD, &result.to_markdown())?;
        folder.write(SUMMARY_JSON, &format!("{:#}\n", result.to_json()))?;
    }
    Ok(result)
}

/// What [`collect`] needs of the options.
pub(super) struct Parts<'a> {
    pub(super) threads: usize,
    pub(super) seeds: Option<u64>,
    pub(super) accept: Vec<String>,
    pub(super) command: String,
    pub(super) stop: &'a AtomicBool,
    pub(super) clock: &'a dyn Clock,
}

/// Does the runs that are missing in the folder, and writes their lines, not yet the tables.
pub(super) fn collect(
    study: &Study,
    folder: &Folder<'_>,
    parts: Parts<'_>,
    listen: &mut Listen<'_>,
) -> Result<StudyResult, StudyError> {
    let Parts { threads, seeds, accept, command, stop, clock } = parts;
    let mut rows = folder.rows()?;
    if let Some(sources) = accept.iter().find(|s| !rows.iter().any(|r| r.sources == **s)) {
        return Err(StudyError::Accept { sources: sources.clone(), folder: folder.root.to_owned() });
    }
    let jobs = jobs(study, seeds, &accept, &rows)?;
    let todo: Vec<&Job<'_>> = jobs.iter().filter(|j| !rows.iter().any(|r| j.is_done_by(r))).collect();
    let reused = jobs.len() - todo.len();
    let others: Vec<&RunRow> = rows.iter().filter(|r| !jobs.iter().any(|j| j.is_done_by(r))).collect();
    if !others.is_empty() {
        let older = others.iter().filter(|r| r.sources != SOURCES).count();
        let text = format!(
            "`{}` has {} lines of other runs (other settings, seeds or versions), {older} of them made by other sources \
             than this program's {SOURCES}; they stay and do not count",
            folder.root.display(),
            others.len()
        );
        listen(StudyEvent::Notice(&text));
    }

    let (abort, steps) = (AtomicBool::new(false), AtomicU64::new(0));
    let shared = Shared { stop, abort: &abort, steps: &steps, clock, episodes: study.episodes };
    let mut failures = Vec::new();
    work(&todo, threads, &shared, listen, &mut |done, listen| match done {
        Ok((row, curve)) => {
            folder.add(&row, &curve)?;
            listen(StudyEvent::Run(&row));
            rows.push(row);
            Ok(())
        }
        Err(failure) => {
            listen(StudyEvent::Failed(&failure));
            failures.push(failure);
            Ok(())
        }
    })?;

    let missing = jobs.iter().filter(|j| !rows.iter().any(|r| j.is_done_by(r))).count();
    let stopped = missing > failures.len();
    failures
        .sort_by_key(|f| jobs.iter().position(|j| j.entry.label == f.entry && j.config.run.seed == f.seed));
    let ours: Vec<RunRow> =
        jobs.iter().filter_map(|j| rows.iter().find(|r| j.is_done_by(r)).cloned()).collect();
    let other = rows.iter().filter(|r| !jobs.iter().any(|j| j.is_done_by(r)));
    folder.rewrite(ours.iter().chain(other))?;
    Ok(StudyResult {
        name: study.name.clone(),
        title: study.title.clone(),
        note: study.note.clone(),
        episodes: study.episodes,
        command,
        version: VERSION,
        entries: entries(study, &jobs, &ours),
        stopped,
        rows: ours,
        reused,
        failures,
        out: folder.root.to_owned(),
    })
}

/// The runs of a study. An entry all of whose runs are among `rows`, made by one of the sources `accept`, is
/// theirs.
fn jobs<'s>(
    study: &'s Study,
    seeds: Option<u64>,
    accept: &[String],
    rows: &[RunRow],
) -> Result<Vec<Job<'s>>, StudyError> {
    if seeds == Some(0) || study.entries.is_empty() {
        return Err(StudyError::NoSeeds);
    }
    let mut jobs = Vec::new();
    for (i, entry) in study.entries.iter().enumerate() {
        let wrong = |cause| StudyError::Entry { entry: entry.label.clone(), cause };
        entry.check().map_err(wrong)?;
        entry.config.check().map_err(|e| wrong(e.into()))?;
        if study.entries[..i].iter().any(|e| e.label == entry.label) {
            return Err(wrong(EntryError::Label));
        }
        let count = entry.seeds.min(seeds.unwrap_or(u64::MAX));
        let of = |sources: &str| -> Vec<Job<'s>> {
            let seeds = (0..count).map(|k| entry.first_seed + k);
            seeds.map(|seed| Job::new(entry, seed, study.episodes, sources)).collect()
        };
        let done = |jobs: &Vec<Job<'s>>| jobs.iter().all(|j| rows.iter().any(|r| j.is_done_by(r)));
        let ours = of(SOURCES);
        let theirs = if done(&ours) { None } else { accept.iter().map(|s| of(s)).find(done) };
        jobs.extend(theirs.unwrap_or(ours));
    }
    Ok(jobs)
}

type Done = Result<(RunRow, Vec<Point>), RunFailure>;
type Listen<'a> = dyn FnMut(StudyEvent<'_>) + 'a;

/// Does the jobs on `threads` threads; what is done comes to `finish`, on this thread.
fn work(
    todo: &[&Job<'_>],
    threads: usize,
    shared: &Shared<'_>,
    listen: &mut Listen<'_>,
    finish: &mut dyn FnMut(Done, &mut Listen<'_>) -> Result<(), StudyError>,
) -> Result<(), StudyError> {
    let began = shared.clock.now();
    let total_steps = todo.iter().map(|j| j.config.run.steps).sum();
    let progress = |runs| {
        StudyEvent::Progress(StudyProgress {
            runs,
            total_runs: todo.len(),
            steps: shared.steps.load(Ordering::Relaxed),
            total_steps,
            seconds: shared.clock.now().saturating_sub(began).as_secs_f64(),
        })
    };
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let (sender, receiver) = channel();
        let mut failed = None;
        for i in 0..threads.clamp(1, todo.len().max(1)) {
            let (sender, next) = (sender.clone(), &next);
            let worker = move || worker(todo, next, shared, &sender);
            if let Err(e) = thread::Builder::new().name(format!("study-{i}")).spawn_scoped(scope, worker) {
                shared.abort.store(true, Ordering::Relaxed);
                failed = Some(StudyError::Threads(e));
            }
        }
        drop(sender);
        let mut runs = 0;
        loop {
            match receiver.recv_timeout(TICK) {
                Ok(done) if failed.is_none() => {
                    runs += 1;
                    if let Err(e) = finish(done, listen) {
                        shared.abort.store(true, Ordering::Relaxed);
                        failed = Some(e);
                    }
                }
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            listen(progress(runs));
        }
        failed.map_or(Ok(()), Err)
    })
}

/// Takes one job after the other until none is left.
fn worker(todo: &[&Job<'_>], next: &AtomicUsize, shared: &Shared<'_>, sender: &Sender<Done>) {
    while let Some(job) = todo.get(next.fetch_add(1, Ordering::Relaxed)) {
        let done = match run(job, shared) {
            Ok(done) => Ok(done),
            Err(RunStop::Stopped) => return,
            Err(why) => Err(RunFailure {
                entry: job.entry.label.clone(),
                seed: job.config.run.seed,
                reason: why.to_string(),
            }),
        };
        if sender.send(done).is_err() {
            return;
        }
    }
}

fn entries(study: &Study, jobs: &[Job<'_>], rows: &[RunRow]) -> Vec<EntryResult> {
    let of = |entry: &Entry| {
        let rows: Vec<RunRow> = rows.iter().filter(|r| r.entry == entry.label).cloned().collect();
        let runs = jobs.iter().filter(|j| j.entry.label == entry.label).count();
        EntryResult::new(entry, &rows, runs as u64)
    };
    study.entries.iter().map(of).collect()
}

/// One picture for each environment, with a curve for each entry.
fn pictures(
    study: &Study,
    result: &StudyResult,
    folder: &Folder<'_>,
    listen: &mut Listen<'_>,
) -> Result<(), StudyError> {
    let mut by_env: BTreeMap<&str, Vec<Curve>> = BTreeMap::new();
    for (row, points) in result.rows.iter().zip(folder.curves(&result.rows)?) {
        by_env.entry(&row.env).or_default().push(Curve { label: row.entry.clone(), points });
    }
    for (env, mut curves) in by_env {
        let spec =
            study.entries.iter().find(|e| e.config.env_id() == env).and_then(|e| e.config.env_spec().ok());
        let options = PlotOptions {
            title: env.to_owned(),
            y_label: "return, mean of the last 100 episodes".to_owned(),
            threshold: spec.and_then(|s| s.reward_threshold).map(|t| (t, "solved at".to_owned())),
            band: Band::Bootstrap95,
            ..PlotOptions::default()
        };
        let name: String = env
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' })
            .collect();
        let name = format!("{}.svg", name.trim_start_matches('.'));
        let all = curves.len();
        curves.retain(|c| !c.points.is_empty());
        if curves.len() < all && folder.has(&name)? {
            let text =
                format!("`{name}` stays as it is: `{CURVES}` lacks {} of {all} curves", all - curves.len());
            listen(StudyEvent::Notice(&text));
        } else if !curves.is_empty() {
            folder.write(&name, &render_svg(&curves, &options)?)?;
        }
    }
    Ok(())
}
