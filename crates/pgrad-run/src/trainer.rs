//! A method at work on its environments, and nothing around it: no folder, no clock, no terminal.
//!
//! ```
//! use pgrad_run::{config::RunConfig, trainer::Trainer};
//!
//! let mut config = RunConfig::new("ppo", "CartPole-v1")?;
//! config.apply_pair("steps=2000", "here")?;
//! let mut trainer = Trainer::new(config, 1)?;
//! while !trainer.is_done() {
//!     let report = trainer.iterate()?;
//!     println!("{}: {:?}, {:?}", trainer.steps(), trainer.return_mean_100(), report.get("loss/policy"));
//! }
//! std::fs::write(std::env::temp_dir().join("policy.safetensors"), trainer.policy(1).to_bytes()?)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//! [`driver`](crate::driver) keeps one in a run folder, with checkpoints and metrics.

use crate::{
    actions::{self, ClippingWatch},
    config::{RunConfig, RunConfigError},
    metrics::MetricsRow,
};
use pgrad_algos::{Algorithm, PhaseObserver, Report};
use pgrad_engine::Cpu;
use pgrad_env::Episode;
use pgrad_model::{AgentError, Policy};
use pgrad_num::{Record, RecordError};

/// Finished episodes that the mean return looks back on.
const RECENT: usize = 100;

/// A method at work on its environments.
pub struct Trainer {
    config: RunConfig,
    cpu: Cpu,
    algo: Box<dyn Algorithm>,
    started: bool,
    iterations: u64,
    recent: Recent,
    report: Report,
    clipping: ClippingWatch,
    notices: Vec<String>,
    env_metrics: Vec<(&'static str, f64)>,
}

impl std::fmt::Debug for Trainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trainer")
            .field("config", &self.config)
            .field("steps", &self.steps())
            .finish_non_exhaustive()
    }
}

impl Trainer {
    /// Makes the environments, not yet started, and the method with `threads` threads; results do not depend
    /// on their number. An asynchronous method has as many as it has actor-learners.
    ///
    /// # Errors
    /// When the configuration cannot be used or does not fit into memory, an environment cannot be made or a
    /// thread cannot be started.
    pub fn new(config: RunConfig, threads: usize) -> Result<Self, RunConfigError> {
        config.check_memory(threads)?;
        let cpu = config.cpu(threads).map_err(RunConfigError::Threads)?;
        let algo = config.build(&cpu)?;
        let notices = actions::notes(&algo.spec().action, algo.model().rescaled());
        Ok(Self {
            config,
            cpu,
            algo,
            clipping: ClippingWatch::default(),
            notices,
            started: false,
            iterations: 0,
            recent: Recent::default(),
            report: Report::default(),
            env_metrics: Vec::new(),
        })
    }

    /// Starts the environments. [`Trainer::iterate`] does it when neither this nor [`Trainer::load`] was
    /// called.
    ///
    /// # Errors
    /// When an environment breaks its contract.
    pub fn start(&mut self) -> Result<(), AgentError> {
        self.started = true;
        let done = self.algo.start();
        self.hear();
        done
    }
    /// Takes in what there is to tell of the environments.
    fn hear(&mut self) {
        let news = self.config.env_news();
        self.notices.extend(news.notices);
        self.env_metrics = news.metrics;
    }
    /// One iteration: collect, then learn. It may be called beyond the configured steps; schedules stay at
    /// their ends then.
    ///
    /// # Errors
    /// When something is not finite or an environment breaks its contract: see [`AgentError`]. The trainer
    /// can then only [`load`](Trainer::load) an earlier state.
    pub fn iterate(&mut self) -> Result<Report, AgentError> {
        if !self.started {
            self.start()?;
        }
        let done = self.algo.iterate();
        self.hear();
        if !self.env_metrics.is_empty() {
            self.env_metrics.push(("env/lost_steps", self.algo.lost_steps() as f64));
        }
        self.report = done?;
        self.notices.extend(self.clipping.look(self.report.get("learn/action_clipped")));
        self.iterations += 1;
        for episode in self.algo.episodes() {
            self.recent.add(episode);
        }
        Ok(self.report)
    }

    /// What is trained on what, with which settings.
    #[must_use]
    pub fn config(&self) -> &RunConfig {
        &self.config
    }
    /// The method, to look at: its model, what its environments are, whether it is reproducible.
    #[must_use]
    pub fn algorithm(&self) -> &dyn Algorithm {
        &*self.algo
    }
    /// The threads.
    #[must_use]
    pub fn cpu(&self) -> &Cpu {
        &self.cpu
    }
    /// Environment steps done.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.algo.steps()
    }
    /// Whether the configured steps are done.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.steps() >= self.config.run.steps
    }
    /// Iterations done.
    #[must_use]
    pub fn iterations(&self) -> u64 {
        self.iterations
    }
    /// Episodes finished.
    #[must_use]
    pub fn episodes(&self) -> u64 {
        self.recent.episodes
    }
    /// Episodes that finished in the last iteration.
    pub fn finished(&self) -> impl Iterator<Item = &Episode> {
        self.algo.episodes()
    }
    /// Mean return of the last 100 training episodes.
    #[must_use]
    pub fn return_mean_100(&self) -> Option<f64> {
        mean(self.recent.returns.iter().copied())
    }
    /// Mean length of the last 100 training episodes.
    #[must_use]
    pub fn length_mean_100(&self) -> Option<f64> {
        // A sum of whole numbers: exact.
        mean(self.recent.lengths.iter().map(|l| *l as f64))
    }
    /// What the last iteration reported.
    #[must_use]
    pub fn report(&self) -> Report {
        self.report
    }
    /// A row of metrics: where training stands, what the last iteration reported, and the environments' own
    /// numbers.
    #[must_use]
    pub fn row(&self) -> MetricsRow {
        let mut row = MetricsRow::new(self.steps());
        row.push("iteration", self.iterations as f64);
        row.push("train/episodes", self.episodes() as f64);
        row.push("train/return_mean_100", self.return_mean_100().unwrap_or(f64::NAN));
        row.push("train/length_mean_100", self.length_mean_100().unwrap_or(f64::NAN));
        row.values.extend(self.report.iter());
        row.values.extend(&self.env_metrics);
        row
    }
    /// What there is to tell of environments and actions since this was last asked, also after a start or an
    /// iteration that failed.
    #[must_use]
    pub fn take_notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }
    /// A copy of the present policy, for batches of up to `batch` observations.
    #[must_use]
    pub fn policy(&self, batch: usize) -> Policy {
        self.algo.policy(batch)
    }

    /// Tells `observer` of the phases of every later iteration.
    pub fn observe_phases(&mut self, observer: PhaseObserver) {
        self.algo.observe_phases(observer);
    }
    /// Multiplies the step size from now on: what follows a divergence.
    pub fn scale_step_size(&mut self, factor: f64) {
        self.algo.scale_step_size(factor);
    }
    /// Everything that what comes next depends on; [`tensors::encode`](crate::tensors::encode) makes bytes of
    /// it.
    #[must_use]
    pub fn save(&self) -> Record {
        let mut record = Record::new();
        record.put_record("algo", self.algo.save());
        record.put_record("recent", self.recent.save());
        record.put("iterations", vec![self.iterations]);
        record
    }
    /// Restores what [`Trainer::save`] saved, of a trainer with the same configuration. Returns whether the
    /// environments go on exactly where they were; those that cannot save their state begin new episodes.
    ///
    /// # Errors
    /// When the record does not fit.
    pub fn load(&mut self, from: &Record) -> Result<bool, RecordError> {
        self.recent.load(&from.record("recent"))?;
        self.iterations = from.u64("iterations")?;
        self.started = true;
        self.algo.load(&from.record("algo"))
    }
}

fn mean(x: impl ExactSizeIterator<Item = f64>) -> Option<f64> {
    let n = x.len();
    (n > 0).then(|| x.sum::<f64>() / n as f64)
}

/// Returns and lengths of the last episodes, in a ring.
#[derive(Debug, Default)]
struct Recent {
    returns: Vec<f64>,
    lengths: Vec<u64>,
    episodes: u64,
}

impl Recent {
    fn add(&mut self, episode: &Episode) {
        let at = (self.episodes % RECENT as u64) as usize;
        if at == self.returns.len() {
            self.returns.push(0.0);
            self.lengths.push(0);
        }
        self.returns[at] = episode.episode_return;
        self.lengths[at] = u64::from(episode.length);
        self.episodes += 1;
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
