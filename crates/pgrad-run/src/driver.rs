//! Runs an algorithm to its end: metrics, checkpoints, stopping, resuming, going back.

use crate::checkpoint::{CheckpointError, CheckpointStore, Loaded};
use crate::clock::{Clock, SystemClock};
use crate::config::{OnDivergence, RunConfig, RunConfigError};
use crate::env::EnvMaker;
use crate::metrics::{JsonlWriter, MetricsError, MetricsRow, MetricsSink, TensorBoardWriter};
use crate::run_dir::{RunDir, RunDirError, RunLabel};
use crate::storage::{FsStorage, Storage, StorageError, write_atomic};
use crate::tensors::{self, TensorsError};
use pgrad_agent::{AgentError, PolicyError};
use pgrad_algos::{Algorithm, Report, Reproducible};
use pgrad_num::{Record, RecordError, Team};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use thiserror::Error;

/// The state's file in a checkpoint.
const STATE: &str = "state.safetensors";
/// Finished episodes that `return_mean_100` looks back on.
const RECENT: usize = 100;
/// Divergences in a row after which going back is given up.
const MAX_ROLLBACKS: u32 = 5;
/// What a divergence leaves of the step size.
const ROLLBACK_SCALE: f64 = 0.5;
/// Checkpoints in a row that may fail before the run stops.
const MAX_FAILED_SAVES: u32 = 3;
/// Largest configuration file that is read.
const MAX_CONFIG_LEN: u64 = 1 << 20;

/// Why a run ended before its time. [`RunError::exit_code`] is what a command returns.
#[derive(Debug, Error)]
pub enum RunError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] RunConfigError),
    /// The folder cannot be used.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    /// Storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A checkpoint could not be saved or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The metrics of an earlier part of the run cannot be read.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// A checkpoint is whole, but does not fit this configuration.
    #[error("{path}: {cause}\n  hint: it was saved under other settings or by another version", path = path.display())]
    State {
        /// The checkpoint.
        path: PathBuf,
        /// What does not fit.
        cause: StateError,
    },
    /// An iteration could not be done.
    #[error("run `{run}`, after {steps} steps: {cause}\n  hint: {hint}", run = run.display())]
    Agent {
        /// Folder of the run.
        run: PathBuf,
        /// Environment steps done.
        steps: u64,
        /// What went wrong.
        cause: AgentError,
        /// What is safe, and what may help.
        hint: String,
    },
    /// The policy could not be written.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// A thread could not be started.
    #[error("a thread could not be started: {0}\n  hint: ask for fewer with --threads")]
    Threads(std::io::Error),
}

/// What does not fit in a saved state.
#[derive(Debug, Error)]
pub enum StateError {
    /// The file cannot be read.
    #[error(transparent)]
    Tensors(#[from] TensorsError),
    /// An entry is missing or wrong.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The checkpoint has no state.
    #[error("it has no `{STATE}`")]
    Missing,
}

impl RunError {
    /// 64 configuration, 65 input file or environment data, 70 learning diverged, 74 input or output
    /// failed, 75 try again.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(e) => e.exit_code(),
            Self::RunDir(e) => e.exit_code(),
            Self::Checkpoint(e) => e.exit_code(),
            Self::Metrics(e) => e.exit_code(),
            Self::State { .. } => 65,
            Self::Agent { cause, .. } if cause.is_divergence() || cause.is_panic() => 70,
            Self::Agent { .. } => 65,
            Self::Policy(_) => 70,
            Self::Storage(_) | Self::Threads(_) => 74,
        }
    }
}

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
    /// When this becomes true, the run is saved and ends after the present iteration.
    pub stop: Arc<AtomicBool>,
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
            stop: Arc::new(AtomicBool::new(false)),
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
pub fn train(config: RunConfig, options: Options<'_>) -> Result<Summary, RunError> {
    config.check()?;
    let label = RunLabel {
        env: config.env_id(),
        algo: config.algo(),
        seed: config.run.seed,
        wall: options.clock.wall(),
    };
    let dir = RunDir::create(options.run_dir.as_deref(), &label)?;
    write_atomic(&*options.storage, &dir.config(), config.to_toml(true).as_bytes())?;
    options.storage.create_dir(&dir.checkpoints())?;
    let jsonl = JsonlWriter::create(Arc::clone(&options.storage), &dir.metrics())?;
    let events =
        TensorBoardWriter::create(Arc::clone(&options.storage), dir.root(), Arc::clone(&options.clock))?;
    let mut run = Run::new(config, dir, vec![Box::new(jsonl), Box::new(events)], options)?;
    run.start()?;
    run.go_on()
}

/// Continues a run to the number of steps that it was configured for, as if it had never been interrupted.
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
    options: Options<'_>,
) -> Result<Summary, RunError> {
    let dir = RunDir::open(run_dir)?;
    let config = read_config(&*options.storage, run_dir, make_env)?;
    config.check()?;
    let store = store(&config, &dir, &options);
    let loaded = match store.load_newest(&config.digest()) {
        Ok(loaded) => Some(loaded),
        // Stopped before the first checkpoint: the start is the newest state that there is.
        Err(CheckpointError::NoneValid { skipped, .. }) if skipped.is_empty() => None,
        Err(e) => return Err(e.into()),
    };
    let step = loaded.as_ref().map_or(0, |l| l.step);
    for skipped in loaded.iter().flat_map(|l| &l.skipped) {
        (options.listen)(Event::Notice(&format!("skipped checkpoint {skipped}")));
    }
    store.discard_after(step)?;
    let (jsonl, _) = JsonlWriter::resume(Arc::clone(&options.storage), &dir.metrics(), step)?;
    let events = TensorBoardWriter::resume(
        Arc::clone(&options.storage),
        dir.root(),
        Arc::clone(&options.clock),
        step,
    )?;
    let mut run = Run::new(config, dir, vec![Box::new(jsonl), Box::new(events)], options)?;
    match loaded {
        None => run.start()?,
        Some(loaded) => {
            let path = store.path(loaded.step);
            let exact = run.restore(&loaded).map_err(|cause| RunError::State { path, cause })?;
            if !exact {
                run.notice("the environments cannot save their state: new episodes were started");
            }
            // A kill may have come between the checkpoint and what stands beside it.
            let policy = run.algo.policy(1).to_bytes()?;
            run.write_beside(&policy)?;
        }
    }
    run.go_on()
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
    crate::run_dir::check(run_dir)?;
    let path = run_dir.join(crate::run_dir::CONFIG);
    let text = String::from_utf8_lossy(&storage.read(&path, MAX_CONFIG_LEN)?).into_owned();
    let origin = path.display().to_string();
    Ok(match make_env {
        None => RunConfig::from_toml(&text, &origin)?,
        Some(make) => RunConfig::custom_from_toml(&text, &origin, make)?,
    })
}

fn store(config: &RunConfig, dir: &RunDir, options: &Options<'_>) -> CheckpointStore {
    CheckpointStore::new(Arc::clone(&options.storage), dir.checkpoints(), config.run.keep_checkpoints)
}

/// Returns and lengths of the last episodes.
#[derive(Debug, Default)]
pub struct Recent {
    returns: Vec<f64>,
    lengths: Vec<u64>,
    episodes: u64,
}

impl Recent {
    /// Takes in an episode.
    pub fn add(&mut self, episode_return: f64, length: u64) {
        let at = (self.episodes % RECENT as u64) as usize;
        if at == self.returns.len() {
            self.returns.push(episode_return);
            self.lengths.push(length);
        } else {
            self.returns[at] = episode_return;
            self.lengths[at] = length;
        }
        self.episodes += 1;
    }
    /// Mean return and mean length; `None` before the first episode.
    #[must_use]
    pub fn means(&self) -> Option<(f64, f64)> {
        let n = self.returns.len() as f64;
        (!self.returns.is_empty())
            .then(|| (self.returns.iter().sum::<f64>() / n, self.lengths.iter().sum::<u64>() as f64 / n))
    }
    fn save(&self) -> Record {
        let mut r = Record::new();
        r.put("returns", self.returns.clone());
        r.put("lengths", self.lengths.clone());
        r.put("episodes", vec![self.episodes]);
        r
    }
    fn load(&mut self, from: &Record) -> Result<(), RecordError> {
        self.episodes = from.u64("episodes")?;
        let kept = self.episodes.min(RECENT as u64) as usize;
        self.returns = from.f64s("returns", kept)?.to_vec();
        self.lengths = from.u64s("lengths", kept)?.to_vec();
        Ok(())
    }
}

/// A run at work.
struct Run<'a> {
    config: RunConfig,
    dir: RunDir,
    store: CheckpointStore,
    sinks: Vec<Box<dyn MetricsSink>>,
    options: Options<'a>,
    team: Team,
    algo: Box<dyn Algorithm>,
    recent: Recent,
    iterations: u64,
    report: Report,
    /// Seconds of work before this process.
    seconds_before: f64,
    /// Steps done before this process.
    steps_before: u64,
    began: Duration,
    saved_at: Duration,
    saved_step: Option<u64>,
    failed_saves: u32,
    lost_rows: u64,
    /// Numbers of the environments' own.
    env_metrics: Vec<(&'static str, f64)>,
}

impl<'a> Run<'a> {
    fn new(
        config: RunConfig,
        dir: RunDir,
        sinks: Vec<Box<dyn MetricsSink>>,
        options: Options<'a>,
    ) -> Result<Self, RunError> {
        let team = Team::new(config.threads(options.threads)).map_err(RunError::Threads)?;
        let algo = config.build(team.threads())?;
        let now = options.clock.now();
        Ok(Self {
            store: store(&config, &dir, &options),
            config,
            dir,
            sinks,
            team,
            algo,
            recent: Recent::default(),
            iterations: 0,
            report: Report::default(),
            seconds_before: 0.0,
            steps_before: 0,
            began: now,
            saved_at: now,
            saved_step: None,
            failed_saves: 0,
            lost_rows: 0,
            env_metrics: Vec::new(),
            options,
        })
    }

    fn start(&mut self) -> Result<(), RunError> {
        self.algo.start().map_err(|cause| self.agent_error(cause))
    }

    fn notice(&mut self, text: &str) {
        (self.options.listen)(Event::Notice(text));
    }

    /// Passes on what there is to tell of the environments.
    fn hear_of_envs(&mut self) {
        let news = self.config.env_news();
        for notice in &news.notices {
            self.notice(notice);
        }
        self.env_metrics = news.metrics;
        if !self.env_metrics.is_empty() {
            self.env_metrics.push(("env/lost_steps", self.algo.lost_steps() as f64));
        }
    }

    fn go_on(mut self) -> Result<Summary, RunError> {
        let total = self.config.run.steps;
        let mut stopped = false;
        while self.algo.steps() < total {
            self.iterate()?;
            self.hear_of_envs();
            let progress = self.progress();
            let last = self.algo.steps() >= total;
            if last || self.iterations.is_multiple_of(self.config.run.log_every) {
                self.log(&progress);
            }
            (self.options.listen)(Event::Iteration(&progress));
            stopped = !last && self.options.stop.load(Ordering::Relaxed);
            if stopped {
                break;
            }
            if !last && self.is_checkpoint_due() {
                self.try_save()?;
            }
        }
        if self.saved_step != Some(self.algo.steps()) {
            self.save()?;
        }
        Ok(Summary {
            run_dir: self.dir.root().to_owned(),
            algo: self.config.algo().to_owned(),
            env: self.config.env_id().to_owned(),
            seed: self.config.run.seed,
            stopped,
            reproducible: self.algo.reproducible(),
            reward_threshold: self.algo.spec().reward_threshold,
            progress: self.progress(),
        })
    }

    /// One iteration; when learning diverges and the configuration says so, back and again with a smaller
    /// step.
    fn iterate(&mut self) -> Result<(), RunError> {
        let rollback = self.config.run.on_divergence == OnDivergence::Rollback;
        let good = rollback.then(|| self.algo.save());
        let mut tries = 0;
        self.report = loop {
            match self.algo.iterate(&self.team) {
                Ok(report) => break report,
                Err(cause) => {
                    let Some(good) = good.as_ref().filter(|_| cause.is_divergence() && tries < MAX_ROLLBACKS)
                    else {
                        return Err(self.agent_error(cause));
                    };
                    tries += 1;
                    let path = self.dir.root().to_owned();
                    self.algo.load(good).map_err(|e| RunError::State { path, cause: e.into() })?;
                    let scale = ROLLBACK_SCALE.powi(tries as i32);
                    self.algo.scale_step_size(scale);
                    self.notice(&format!(
                        "diverged after {} steps ({cause}); went back to the last good update and go on with \
                         {scale} times the step size",
                        self.algo.steps()
                    ));
                }
            }
        };
        self.iterations += 1;
        for episode in self.algo.episodes() {
            self.recent.add(episode.episode_return, u64::from(episode.length));
        }
        Ok(())
    }

    fn agent_error(&self, cause: AgentError) -> RunError {
        let saved = self.saved_step.map_or_else(
            || "no checkpoint was saved yet".to_owned(),
            |s| format!("the checkpoint of step {s} is good"),
        );
        let help = match (cause.is_divergence(), self.config.run.on_divergence) {
            (false, _) => "`pgrad check-env` looks for such defects".to_owned(),
            (true, OnDivergence::Stop) => {
                "a smaller step size, normalize_obs = true where the algorithm has it, or on_divergence = \
                 \"rollback\" may help"
                    .to_owned()
            }
            (true, OnDivergence::Rollback) => format!(
                "the run went back {MAX_ROLLBACKS} times, each time to a smaller step; normalize_obs = true, \
                 normalize_reward = true or a smaller network may help"
            ),
        };
        RunError::Agent {
            run: self.dir.root().to_owned(),
            steps: self.algo.steps(),
            cause,
            hint: format!("{saved}; {help}"),
        }
    }

    fn progress(&self) -> Progress {
        let here = (self.options.clock.now().saturating_sub(self.began)).as_secs_f64();
        let (steps, total) = (self.algo.steps(), self.config.run.steps);
        let steps_per_second = (steps - self.steps_before) as f64 / here.max(1e-9);
        let means = self.recent.means();
        Progress {
            steps,
            total_steps: total,
            iterations: self.iterations,
            seconds: self.seconds_before + here,
            steps_per_second,
            seconds_left: total.saturating_sub(steps) as f64 / steps_per_second.max(1e-9),
            episodes: self.recent.episodes,
            return_mean_100: means.map(|m| m.0),
            length_mean_100: means.map(|m| m.1),
            report: self.report,
        }
    }

    /// Writes a row of metrics. A full disk must not end a run that can go on: rows are given up before
    /// checkpoints are.
    fn log(&mut self, progress: &Progress) {
        let mut row = MetricsRow::new(progress.steps);
        row.push("iteration", progress.iterations as f64);
        row.push("train/episodes", progress.episodes as f64);
        row.push("train/return_mean_100", progress.return_mean_100.unwrap_or(f64::NAN));
        row.push("train/length_mean_100", progress.length_mean_100.unwrap_or(f64::NAN));
        for (name, value) in progress.report.iter() {
            row.push(name, value);
        }
        for (name, value) in &self.env_metrics {
            row.push(name, *value);
        }
        row.push("time/seconds", progress.seconds);
        row.push("time/steps_per_second", progress.steps_per_second);
        let mut failed = None;
        for sink in &mut self.sinks {
            failed = sink.write(&row).err().or(failed);
        }
        if let Some(e) = failed {
            self.lost_rows += 1;
            if self.lost_rows == 1 {
                self.notice(&format!("a row of metrics was lost: {e}"));
            }
        }
    }

    fn is_checkpoint_due(&self) -> bool {
        let run = &self.config.run;
        let since_steps = self.algo.steps() - self.saved_step.unwrap_or(self.steps_before);
        let by_steps = run.checkpoint_steps > 0 && since_steps >= run.checkpoint_steps;
        let since = self.options.clock.now().saturating_sub(self.saved_at);
        by_steps || since.as_secs_f64() >= run.checkpoint_secs
    }

    /// Saves a checkpoint on the way: one that fails is tried again later.
    fn try_save(&mut self) -> Result<(), RunError> {
        match self.save() {
            Ok(()) => self.failed_saves = 0,
            Err(e) => {
                self.failed_saves += 1;
                if self.failed_saves >= MAX_FAILED_SAVES {
                    return Err(e);
                }
                self.saved_at = self.options.clock.now();
                self.notice(&format!("{e}; training goes on, and it will be tried again"));
            }
        }
        Ok(())
    }

    fn save(&mut self) -> Result<(), RunError> {
        for sink in &mut self.sinks {
            sink.sync()?;
        }
        let step = self.algo.steps();
        let mut record = Record::new();
        record.put_record("algo", self.algo.save());
        record.put_record("recent", self.recent.save());
        record.put("iterations", vec![self.iterations]);
        record.put("seconds", vec![self.progress().seconds]);
        let path = self.store.path(step);
        let state = tensors::encode(&record, None).map_err(|e| RunError::State { path, cause: e.into() })?;
        let policy = self.algo.policy(1).to_bytes()?;
        self.store.save(step, &[(STATE, &state)], &self.config.digest())?;
        self.write_beside(&policy)?;
        self.saved_at = self.options.clock.now();
        self.saved_step = Some(step);
        Ok(())
    }

    /// Writes what stands beside the checkpoints and is of the newest one: the policy, and the recording if there is one.
    fn write_beside(&self, policy: &[u8]) -> Result<(), RunError> {
        write_atomic(&*self.options.storage, &self.dir.policy(), policy)?;
        if let Some(recording) = self.algo.recording() {
            write_atomic(&*self.options.storage, &self.dir.turns(), &recording)?;
        }
        Ok(())
    }

    /// Restores a checkpoint. Returns whether the environments continue exactly.
    fn restore(&mut self, loaded: &Loaded) -> Result<bool, StateError> {
        let (record, _) = tensors::decode(loaded.files.get(STATE).ok_or(StateError::Missing)?)?;
        self.recent.load(&record.record("recent"))?;
        self.iterations = record.u64("iterations")?;
        self.seconds_before = record.f64("seconds")?;
        let exact = self.algo.load(&record.record("algo"))?;
        self.steps_before = self.algo.steps();
        self.saved_step = Some(loaded.step);
        Ok(exact)
    }
}
