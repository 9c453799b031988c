//! Keeps a [`Trainer`] in a run folder until its steps are done: metrics, checkpoints, stopping, resuming,
//! going back.

mod changes;
mod error;
mod rescue;

pub use error::{RunError, StateError};
pub use rescue::{Rescue, Rescued};

use crate::{
    checkpoint::{CheckpointError, CheckpointStore, Loaded},
    clock::{Clock, SystemClock},
    config::{OnDivergence, RunConfig},
    env::EnvMaker,
    metrics::{JsonlWriter, Mark, MetricsSink, TensorBoardWriter},
    run_dir::{self, RunDir, RunLabel},
    storage::{FsStorage, Storage, write_atomic},
    tensors,
    trainer::Trainer,
};
use error::{MARK, STATE};
use pgrad_algos::{Report, Reproducible};
use pgrad_model::AgentError;
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// Divergences in a row after which going back is given up.
const MAX_ROLLBACKS: i32 = 5;
/// What a divergence leaves of the step size.
const ROLLBACK_SCALE: f64 = 0.5;
/// Checkpoints in a row that may fail before the run stops.
const MAX_FAILED_SAVES: u32 = 3;
/// How much work a rescue may lose, at least ...
const KEEP_AFTER: Duration = Duration::from_millis(500);
/// ... and how many times longer than keeping a state takes it is not kept again.
const KEEP_SHARE: u32 = 50;
/// Largest configuration file that is read.
const MAX_CONFIG_LEN: u64 = 1 << 20;

/// What a caller hears of while a run goes on.
#[derive(Debug)]
pub enum Event<'a> {
    /// An iteration is done.
    Iteration(&'a Progress),
    /// Something worth a line: what was skipped, what could not be written, a divergence.
    Notice(&'a str),
}

/// Where a run stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// Environment steps done.
    pub steps: u64,
    /// Environment steps to do.
    pub total_steps: u64,
    /// Iterations done.
    pub iterations: u64,
    /// Seconds of work, those before a resume included.
    pub seconds: f64,
    /// Environment steps a second, since the command was started.
    pub steps_per_second: f64,
    /// Seconds left at this speed.
    pub seconds_left: f64,
    /// Episodes finished.
    pub episodes: u64,
    /// Mean return of the last 100 training episodes.
    pub return_mean_100: Option<f64>,
    /// Mean length of the last 100 training episodes.
    pub length_mean_100: Option<f64>,
    /// What the algorithm reports.
    pub report: Report,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Its folder.
    pub run_dir: PathBuf,
    /// Name of the algorithm.
    pub algo: String,
    /// Name of the environment.
    pub env: String,
    /// Seed.
    pub seed: u64,
    /// Whether it was stopped before its end; it can be resumed then.
    pub stopped: bool,
    /// Whether the same bits can be had again.
    pub reproducible: Reproducible,
    /// Whether the task counts as solved at some mean return, and at which.
    pub reward_threshold: Option<f64>,
    /// Where it stands.
    pub progress: Progress,
}

/// How to run.
pub struct Options<'a> {
    /// Threads; the results do not depend on it.
    pub threads: usize,
    /// The folder; a new one under `runs/` when there is none.
    pub run_dir: Option<PathBuf>,
    /// For [`resume`]: settings to change first, each as `key=value` and where it was given.
    pub changes: Vec<(String, &'static str)>,
    /// When this becomes true, the run is saved and ends after the present iteration.
    pub stop: Arc<AtomicBool>,
    /// Saves the run from another thread when the present iteration takes too long.
    pub rescue: Arc<Rescue>,
    /// Hears of progress.
    pub listen: &'a mut dyn FnMut(Event<'_>),
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Disk.
    pub storage: Arc<dyn Storage>,
}

impl std::fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("threads", &self.threads).finish_non_exhaustive()
    }
}

impl<'a> Options<'a> {
    /// One thread, a new folder, the real disk and clock.
    pub fn new(listen: &'a mut dyn FnMut(Event<'_>)) -> Self {
        Self {
            threads: 1,
            run_dir: None,
            changes: Vec::new(),
            stop: Arc::new(AtomicBool::new(false)),
            rescue: Arc::new(Rescue::default()),
            listen,
            clock: Arc::new(SystemClock::new()),
            storage: Arc::new(FsStorage),
        }
    }
}

/// Trains from the start, in a folder of its own.
///
/// # Errors
/// See [`RunError`]; everything that is wrong with the configuration is found before anything is made.
pub fn train(mut config: RunConfig, mut options: Options<'_>) -> Result<Summary, RunError> {
    config.anchor();
    config.check()?;
    config.resolve();
    check_memory(&config, &mut options)?;
    let label = RunLabel {
        env: config.env_id(),
        algo: config.algo(),
        seed: config.run.seed,
        wall: options.clock.wall(),
    };
    let dir = RunDir::create(options.run_dir.as_deref(), &label)?;
    options.storage = dir.storage(&options.storage);
    write_atomic(&*options.storage, &dir.config(), config.to_toml(true).as_bytes())?;
    options.storage.create_dir(&dir.checkpoints())?;
    let disk = || Arc::clone(&options.storage);
    let rows = JsonlWriter::create(disk(), &dir.metrics())?;
    let events = TensorBoardWriter::create(disk(), dir.root(), Arc::clone(&options.clock))?;
    let mut run = Run::new(config, dir, options)?;
    run.sinks = vec![Box::new(rows), Box::new(events)];
    run.start()?;
    run.finish()
}

/// Continues a run to the number of steps that it was configured for, as if it had never been interrupted.
/// Settings that results do not depend on, and the number of steps, may have been changed; the run's folder
/// keeps a record of that.
///
/// # Errors
/// See [`RunError`].
pub fn resume(run_dir: &Path, options: Options<'_>) -> Result<Summary, RunError> {
    resume_with(run_dir, None, options)
}

/// [`resume`] for environments of the caller's own.
///
/// # Errors
/// See [`RunError`].
pub fn resume_with(
    run_dir: &Path,
    make_env: Option<EnvMaker>,
    mut options: Options<'_>,
) -> Result<Summary, RunError> {
    let dir = RunDir::open(run_dir)?;
    options.storage = dir.storage(&options.storage);
    let mut config = read_config(&*options.storage, run_dir, make_env)?;
    for (pair, origin) in &options.changes {
        config.apply_pair(pair, origin)?;
    }
    config.anchor();
    let store = store(&config, &dir, &options);
    let mut loaded = match store.load_newest() {
        Ok(loaded) => Some(loaded),
        // Stopped before the first checkpoint: the start is the newest state that there is.
        Err(CheckpointError::NoneValid { skipped, .. }) if skipped.is_empty() => None,
        Err(e) => return Err(e.into()),
    };
    for skipped in loaded.iter().flat_map(|l| &l.skipped) {
        (options.listen)(Event::Notice(&format!("skipped checkpoint {skipped}")));
    }
    let changed = match &loaded {
        Some(loaded) => changes::find(&config, &dir, &store.path(loaded.step), loaded)?,
        None => Vec::new(),
    };
    config.check()?;
    check_memory(&config, &mut options)?;
    for change in &changed {
        (options.listen)(Event::Notice(&changes::notice(change, &config)));
    }
    let mut run = Run::new(config, dir, options)?;
    let mut unusable = None;
    while let Some(whole) = &loaded {
        let Err(e) = run.restore(whole) else { break };
        run.notice(&format!("skipped checkpoint {e}"));
        loaded = match store.load_before(whole.step) {
            Ok(before) => Some(before),
            // What is wrong with the newest one says most.
            Err(_) => return Err(unusable.unwrap_or(e)),
        };
        unusable = unusable.or(Some(e));
    }
    let step = loaded.as_ref().map_or(0, |l| l.step);
    let storage = Arc::clone(&run.options.storage);
    changes::keep(&*storage, &run.dir, step, &changed)?;
    if !run.options.changes.is_empty() {
        write_atomic(&*storage, &run.dir.config(), run.trainer.config().to_toml(true).as_bytes())?;
    }
    let marks = match &loaded {
        Some(_) => marks(&store, step),
        None => Vec::new(),
    };
    // What was done after the checkpoint is done again.
    store.discard_after(step)?;
    let (rows, cut) = JsonlWriter::resume(Arc::clone(&storage), &run.dir.metrics(), step, &marks)?;
    let whole = marks.first().map_or(0, |mark| mark.length);
    if let Some(aside) = &cut.aside {
        run.notice(&format!(
            "`{}` is not what this run wrote up to step {step} (cut short, changed, or of another run): {} of its rows \
             are kept; all of it is now `{}`",
            run_dir::METRICS,
            cut.rows_kept,
            aside.display()
        ));
    } else if rows.mark().is_some_and(|mark| mark.length < whole) {
        run.notice(&format!("`{}` was gone: its rows up to step {step} are lost", run_dir::METRICS));
    }
    let clock = Arc::clone(&run.options.clock);
    let events = TensorBoardWriter::resume(storage, run.dir.root(), clock, step)?;
    run.sinks = vec![Box::new(rows), Box::new(events)];
    match loaded {
        None => run.start()?,
        // A kill may have come between the checkpoint and what stands beside it.
        Some(_) => run.write_beside(&run.trainer.policy(1).to_bytes()?)?,
    }
    run.finish()
}

/// Refuses a run that does not fit into memory, and warns of one that nearly does not.
fn check_memory(config: &RunConfig, options: &mut Options<'_>) -> Result<(), RunError> {
    if let Some(warning) = config.check_memory(options.threads)? {
        (options.listen)(Event::Notice(&warning));
    }
    Ok(())
}

/// What the checkpoints up to `step` say of the metrics, newest first.
fn marks(store: &CheckpointStore, step: u64) -> Vec<Mark> {
    let steps = store.steps().unwrap_or_default();
    let of = |step| store.load(step).ok()?.files.get(MARK).and_then(|text| serde_json::from_slice(text).ok());
    let mut marks: Vec<Option<Mark>> = steps.into_iter().filter(|s| *s <= step).map(of).collect();
    // Without that of the step itself nothing is known of what comes before it.
    if marks.first().is_none_or(Option::is_none) {
        marks.clear();
    }
    marks.into_iter().flatten().collect()
}

/// The configuration of the run in `run_dir`.
///
/// # Errors
/// When there is none or it is wrong.
pub fn read_config(
    storage: &dyn Storage,
    run_dir: &Path,
    make_env: Option<EnvMaker>,
) -> Result<RunConfig, RunError> {
    run_dir::check(run_dir)?;
    let path = run_dir.join(run_dir::CONFIG);
    let text = String::from_utf8_lossy(&storage.read(&path, MAX_CONFIG_LEN)?).into_owned();
    let origin = path.display().to_string();
    let mut config = match make_env {
        None => RunConfig::from_toml(&text, &origin)?,
        Some(make) => RunConfig::custom_from_toml(&text, &origin, make)?,
    };
    config.keep_old_meaning(&text)?;
    Ok(config)
}

fn store(config: &RunConfig, dir: &RunDir, options: &Options<'_>) -> CheckpointStore {
    CheckpointStore::new(Arc::clone(&options.storage), dir.checkpoints(), config.run.keep_checkpoints)
}

/// A run at work.
struct Run<'a> {
    trainer: Trainer,
    dir: RunDir,
    store: CheckpointStore,
    sinks: Vec<Box<dyn MetricsSink>>,
    options: Options<'a>,
    /// When this process began.
    began: Duration,
    /// Seconds of work and steps done before that.
    seconds_before: f64,
    steps_before: u64,
    /// The newest checkpoint.
    saved_step: Option<u64>,
    /// When a checkpoint was last saved or tried.
    saved_at: Duration,
    failed_saves: u32,
    has_lost_rows: bool,
    /// When the state was last kept for [`Rescue`], and how long that took.
    kept_at: Duration,
    keeping: Duration,
}

impl<'a> Run<'a> {
    fn new(config: RunConfig, dir: RunDir, options: Options<'a>) -> Result<Self, RunError> {
        let store = store(&config, &dir, &options);
        let trainer = Trainer::new(config, options.threads)?;
        let now = options.clock.now();
        Ok(Self {
            trainer,
            dir,
            store,
            sinks: Vec::new(),
            options,
            began: now,
            seconds_before: 0.0,
            steps_before: 0,
            saved_step: None,
            saved_at: now,
            failed_saves: 0,
            has_lost_rows: false,
            kept_at: now,
            keeping: Duration::ZERO,
        })
    }

    fn start(&mut self) -> Result<(), RunError> {
        let done = self.trainer.start();
        self.tell_news();
        done.map_err(|cause| self.agent_error(cause))
    }
    /// Tells what there is to tell of the environments.
    fn tell_news(&mut self) {
        for notice in self.trainer.take_notices() {
            self.notice(&notice);
        }
    }

    fn finish(mut self) -> Result<Summary, RunError> {
        let mut stopped = false;
        while !self.trainer.is_done() && !stopped {
            self.iterate()?;
            let progress = self.progress();
            let last = self.trainer.is_done();
            if last || progress.iterations.is_multiple_of(self.trainer.config().run.log_every) {
                self.log(&progress)?;
            }
            (self.options.listen)(Event::Iteration(&progress));
            stopped = !last && self.options.stop.load(Ordering::Relaxed);
            if !last && !stopped && self.is_checkpoint_due() {
                self.try_save()?;
            }
            self.keep();
        }
        if self.saved_step != Some(self.trainer.steps()) {
            self.save()?;
        }
        let (config, algo) = (self.trainer.config(), self.trainer.algorithm());
        Ok(Summary {
            run_dir: self.dir.root().to_owned(),
            algo: config.algo().to_owned(),
            env: config.env_id().to_owned(),
            seed: config.run.seed,
            stopped,
            reproducible: algo.reproducible(),
            reward_threshold: algo.spec().reward_threshold,
            progress: self.progress(),
        })
    }

    /// One iteration; when learning diverges and the configuration says so, back and again with a smaller
    /// step.
    fn iterate(&mut self) -> Result<(), RunError> {
        let rollback = self.trainer.config().run.on_divergence == OnDivergence::Rollback;
        let good = rollback.then(|| self.trainer.save());
        for tries in 1.. {
            let done = self.trainer.iterate();
            self.tell_news();
            let Err(cause) = done else { break };
            let good = good.as_ref().filter(|_| cause.is_divergence() && tries <= MAX_ROLLBACKS);
            let Some(good) = good else { return Err(self.agent_error(cause)) };
            let path = self.dir.root().to_owned();
            self.trainer.load(good).map_err(|e| RunError::State { path, cause: e.into() })?;
            let scale = ROLLBACK_SCALE.powi(tries);
            self.trainer.scale_step_size(scale);
            self.notice(&format!(
                "diverged after {} steps ({cause}); returned to the last good update and continuing with \
                 {scale} times the step size",
                self.trainer.steps()
            ));
        }
        Ok(())
    }

    fn notice(&mut self, text: &str) {
        (self.options.listen)(Event::Notice(text));
    }

    fn agent_error(&self, cause: AgentError) -> RunError {
        let saved = self.saved_step.map_or_else(
            || "no checkpoint has been saved yet".to_owned(),
            |s| format!("the checkpoint of step {s} is good"),
        );
        let help = match (cause.is_divergence(), self.trainer.config().run.on_divergence) {
            (false, _) => "`pgrad check-env` finds such defects".to_owned(),
            (true, OnDivergence::Stop) => {
                "a smaller step size, normalize_obs = true where the algorithm has it, or on_divergence = \
                 \"rollback\" may help"
                    .to_owned()
            }
            (true, OnDivergence::Rollback) => format!(
                "the run rolled back {MAX_ROLLBACKS} times, each time to a smaller step size; normalize_obs = true, \
                 normalize_reward = true or a smaller network may help"
            ),
        };
        RunError::Agent {
            run: self.dir.root().to_owned(),
            steps: self.trainer.steps(),
            cause,
            hint: format!("{saved}; {help}"),
        }
    }

    fn progress(&self) -> Progress {
        let trainer = &self.trainer;
        let here = (self.options.clock.now().saturating_sub(self.began)).as_secs_f64();
        let (steps, total_steps) = (trainer.steps(), trainer.config().run.steps);
        let steps_per_second = (steps - self.steps_before) as f64 / here.max(1e-9);
        Progress {
            steps,
            total_steps,
            iterations: trainer.iterations(),
            seconds: self.seconds_before + here,
            steps_per_second,
            seconds_left: total_steps.saturating_sub(steps) as f64 / steps_per_second.max(1e-9),
            episodes: trainer.episodes(),
            return_mean_100: trainer.return_mean_100(),
            length_mean_100: trainer.length_mean_100(),
            report: trainer.report(),
        }
    }

    /// Writes a row of metrics. A full disk must not end a run that can go on: rows are given up before
    /// checkpoints are.
    fn log(&mut self, progress: &Progress) -> Result<(), RunError> {
        let mut row = self.trainer.row();
        row.push("time/seconds", progress.seconds);
        row.push("time/steps_per_second", progress.steps_per_second);
        let failed = self.sinks.iter_mut().fold(None, |failed, sink| sink.write(&row).err().or(failed));
        let Some(e) = failed else { return Ok(()) };
        if self.is_folder_gone() {
            return Err(e.into());
        }
        if !self.has_lost_rows {
            self.has_lost_rows = true;
            self.notice(&format!("a row of metrics was lost: {e}"));
        }
        Ok(())
    }

    /// Whether the run's folder was removed: nothing can be saved any more, however often it is tried.
    fn is_folder_gone(&self) -> bool {
        self.options.storage.kind(self.dir.root()).is_ok_and(|kind| kind.is_none())
    }

    /// Keeps the present state for [`Rescue`]; so rarely that it costs next to nothing.
    fn keep(&mut self) {
        let now = self.options.clock.now();
        if now.saturating_sub(self.kept_at) < KEEP_AFTER.max(KEEP_SHARE * self.keeping) {
            return;
        }
        let kept = rescue::Kept::new(
            &self.store,
            &self.options.storage,
            &self.dir,
            &self.trainer,
            self.progress().seconds,
            self.sinks.iter().find_map(|sink| sink.mark()),
        );
        self.options.rescue.keep(kept);
        self.kept_at = self.options.clock.now();
        self.keeping = self.kept_at.saturating_sub(now);
    }

    fn is_checkpoint_due(&self) -> bool {
        let run = &self.trainer.config().run;
        let since_steps = self.trainer.steps() - self.saved_step.unwrap_or(self.steps_before);
        let by_steps = run.checkpoint_steps > 0 && since_steps >= run.checkpoint_steps;
        let since = self.options.clock.now().saturating_sub(self.saved_at);
        by_steps || since.as_secs_f64() >= run.checkpoint_secs
    }

    /// Saves a checkpoint on the way: one that fails is tried again later.
    fn try_save(&mut self) -> Result<(), RunError> {
        let Err(e) = self.save() else { return Ok(()) };
        self.failed_saves += 1;
        if self.failed_saves >= MAX_FAILED_SAVES || self.is_folder_gone() {
            return Err(e);
        }
        self.saved_at = self.options.clock.now();
        self.notice(&format!("{e}; training continues and will try again"));
        Ok(())
    }

    /// Saves a checkpoint, and then what stands beside the checkpoints.
    fn save(&mut self) -> Result<(), RunError> {
        let rescue = Arc::clone(&self.options.rescue);
        // Nobody else saves meanwhile.
        let mut slot = rescue.lock();
        for sink in &mut self.sinks {
            sink.sync()?;
        }
        let step = self.trainer.steps();
        let mark = self.sinks.iter().find_map(|sink| sink.mark());
        rescue::Kept::new(
            &self.store,
            &self.options.storage,
            &self.dir,
            &self.trainer,
            self.progress().seconds,
            mark,
        )
        .save()?;
        *slot = rescue::Slot::Saved(step);
        (self.saved_at, self.saved_step) = (self.options.clock.now(), Some(step));
        self.kept_at = self.saved_at;
        self.failed_saves = 0;
        Ok(())
    }

    /// Writes what stands beside the checkpoints and is of the newest one: the policy, and the recording if
    /// there is one.
    fn write_beside(&self, policy: &[u8]) -> Result<(), RunError> {
        let recording = self.trainer.algorithm().recording();
        rescue::write_beside(&*self.options.storage, self.dir.root(), policy, recording.as_deref())
    }

    fn restore(&mut self, loaded: &Loaded) -> Result<(), RunError> {
        let exact = self
            .take(loaded)
            .map_err(|cause| RunError::State { path: self.store.path(loaded.step), cause })?;
        if !exact {
            self.notice("the environments cannot save their state: new episodes were started");
        }
        self.steps_before = self.trainer.steps();
        self.saved_step = Some(loaded.step);
        *self.options.rescue.lock() = rescue::Slot::Saved(loaded.step);
        Ok(())
    }

    /// Takes over the state of a checkpoint. Returns whether the environments continue exactly.
    fn take(&mut self, loaded: &Loaded) -> Result<bool, StateError> {
        let (record, _) =
            tensors::decode(loaded.files.get(STATE).ok_or(StateError::Missing { name: STATE })?)?;
        self.seconds_before = record.f64("seconds")?;
        Ok(self.trainer.load(&record)?)
    }
}
