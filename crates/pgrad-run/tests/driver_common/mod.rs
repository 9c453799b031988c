//! What the tests of whole runs share.
#![allow(dead_code, unreachable_pub, reason = "several test binaries share it, each uses a part")]

use pgrad_run::clock::{Clock, SystemClock};
use pgrad_run::config::{EnvMaker, RunConfig};
use pgrad_run::driver::{self, Event, Options, Progress, RunError, Summary};
use pgrad_run::metrics::{Row, read_log};
use pgrad_run::storage::{FsStorage, Storage};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Small enough to be quick, large enough for several shards, minibatches and updates.
pub const SMALL: &[&str] = &[
    "n_envs=12",
    "envs_per_shard=4",
    "n_steps=8",
    "minibatch_size=40",
    "epochs=2",
    "hidden=8,8",
    "checkpoint_secs=1e6",
];

pub fn config(env: &str, pairs: &[&str]) -> RunConfig {
    with(RunConfig::new("ppo", env).unwrap(), pairs)
}

pub fn custom(id: &str, make: EnvMaker, pairs: &[&str]) -> RunConfig {
    with(RunConfig::custom("ppo", id, make).unwrap(), pairs)
}

fn with(mut config: RunConfig, pairs: &[&str]) -> RunConfig {
    for pair in SMALL.iter().chain(pairs) {
        config.apply_pair(pair, "test").unwrap();
    }
    config
}

/// How to run, and what was heard.
pub struct Runner {
    pub threads: usize,
    pub storage: Arc<dyn Storage>,
    pub clock: Arc<dyn Clock>,
    /// Called after each iteration, before what is saved.
    pub hook: Box<dyn FnMut(&Progress)>,
    /// Stop after this many iterations of this process.
    pub stop_after: Option<u64>,
    pub notices: Vec<String>,
    pub progress: Vec<Progress>,
}

impl Default for Runner {
    fn default() -> Self {
        Self {
            threads: 1,
            storage: Arc::new(FsStorage),
            clock: Arc::new(SystemClock::new()),
            hook: Box::new(|_| ()),
            stop_after: None,
            notices: Vec::new(),
            progress: Vec::new(),
        }
    }
}

impl Runner {
    fn run<T>(&mut self, dir: &Path, go: impl FnOnce(Options<'_>) -> T) -> T {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let (notices, progress, after) = (&mut self.notices, &mut self.progress, self.stop_after);
        let hook = &mut self.hook;
        let mut seen = 0;
        let mut listen = |event: Event<'_>| match event {
            Event::Notice(text) => notices.push(text.to_owned()),
            Event::Iteration(p) => {
                progress.push(p.clone());
                hook(p);
                seen += 1;
                if after.is_some_and(|n| seen >= n) {
                    flag.store(true, Ordering::Relaxed);
                }
            }
        };
        let mut options = Options::new(&mut listen);
        options.threads = self.threads;
        options.run_dir = Some(dir.to_owned());
        options.stop = stop;
        options.storage = Arc::clone(&self.storage);
        options.clock = Arc::clone(&self.clock);
        go(options)
    }
    pub fn train(&mut self, dir: &Path, config: RunConfig) -> Result<Summary, RunError> {
        self.run(dir, |options| driver::train(config, options))
    }
    pub fn resume(&mut self, dir: &Path) -> Result<Summary, RunError> {
        self.run(dir, |options| driver::resume(dir, options))
    }
    pub fn resume_with(&mut self, dir: &Path, make: EnvMaker) -> Result<Summary, RunError> {
        self.run(dir, |options| driver::resume_with(dir, Some(make), options))
    }
}

/// What two equal runs agree in: the policy's bytes, and the metrics apart from time (numbers as bits, so
/// that a NaN equals itself).
pub type Result_ = (Vec<u8>, Vec<(u64, Vec<(String, u64)>)>);

pub fn result(dir: &Path) -> Result_ {
    (std::fs::read(dir.join("policy.safetensors")).unwrap(), metrics(dir))
}

pub fn metrics(dir: &Path) -> Vec<(u64, Vec<(String, u64)>)> {
    let log = read_log(&FsStorage, &dir.join("metrics.jsonl")).unwrap();
    assert_eq!(log.torn, None);
    let bits =
        |row: &Row| (row.step, row.values.iter().map(|(n, v)| (n.clone(), v.to_bits())).collect::<Vec<_>>());
    log.without_time().iter().map(bits).collect()
}
