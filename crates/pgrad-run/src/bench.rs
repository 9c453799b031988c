//! How fast it is: environment steps a second, and how near learning comes to the machine's matrix product.

use crate::{
    clock::Clock,
    config::{RunConfig, RunConfigError},
    stats::median,
    trainer::Trainer,
};
use pgrad_algos::{Phase, default_shard};
use pgrad_engine::Cpu;
use pgrad_env::{EnvError, MakeError, RandomActions, VecEnv};
use pgrad_model::AgentError;
use pgrad_num::{
    gemm::{Mat, Write, matmul},
    kernels,
};
use pgrad_settings::Value;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use thiserror::Error;

/// Size of the matrices whose product is the yardstick.
const PEAK_SIZE: usize = 64;
/// Rounds that the time is divided into; the figures are medians over them.
const ROUNDS: usize = 7;

/// Why nothing could be measured.
#[derive(Debug, Error)]
pub enum BenchError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] RunConfigError),
    /// An iteration could not be done.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// An environment broke its contract.
    #[error(transparent)]
    Env(#[from] EnvError),
    /// The environments cannot be made.
    #[error(transparent)]
    Make(#[from] MakeError),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Threads(#[from] std::io::Error),
}

/// What training costs. All times are of one iteration; all figures are medians over the rounds.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainBench {
    /// Environment steps a second, collecting and learning.
    pub steps_per_second: f64,
    /// Seconds of collecting.
    pub rollout_seconds: f64,
    /// Seconds of learning: values, advantages, gradients, steps.
    pub update_seconds: f64,
    /// Matrix products of learning, in 10⁹ operations a second.
    pub update_gflops: f64,
    /// The product of 64 × 64 matrices on the same threads, in 10⁹ operations a second.
    pub gemm_peak_gflops: f64,
    /// `update_gflops / gemm_peak_gflops`, the median of the rounds' ratios.
    pub update_share: f64,
    /// Iterations measured.
    pub iterations: usize,
    /// Largest resident memory of the process, in MiB (Linux; 0 elsewhere).
    pub peak_rss_mib: f64,
    /// Instruction set in use.
    pub instruction_set: &'static str,
}

/// What environments cost.
#[derive(Clone, Debug, PartialEq)]
pub struct EnvBench {
    /// Steps a second of all environments together, random actions included.
    pub env_steps_per_second: f64,
    /// Environments.
    pub n_envs: usize,
    /// Steps of each environment that were measured.
    pub steps: usize,
}

/// Measures the product of 64 × 64 single-precision matrices on all threads, for about `duration`.
#[must_use]
pub fn gemm_peak_gflops(cpu: &Cpu, clock: &dyn Clock, duration: Duration) -> f64 {
    const N: usize = PEAK_SIZE;
    const PRODUCTS: usize = 200;
    let mut matrices: Vec<[Vec<f32>; 3]> =
        cpu.scratch(|| [vec![0.0; N * N], vec![0.5; N * N], vec![0.25; N * N]]);
    let mut pass = || {
        let start = clock.now();
        cpu.each(&mut matrices, |_, [c, a, b]| {
            for _ in 0..PRODUCTS {
                matmul(c, Write::Replace, Mat::new(a, N, N), Mat::new(b, N, N));
            }
        });
        (clock.now() - start).as_secs_f64()
    };
    pass();
    let (start, mut best) = (clock.now(), f64::INFINITY);
    while clock.now() - start < duration {
        best = best.min(pass());
    }
    (2 * N * N * N * PRODUCTS * cpu.threads()) as f64 / best / 1e9
}

/// Trains for about `duration` and measures. `tell` hears what there is to tell of the environments, also of
/// a failure.
///
/// # Errors
/// When the configuration cannot be used or an iteration fails.
pub fn bench_train(
    config: &RunConfig,
    threads: usize,
    duration: Duration,
    clock: &Arc<dyn Clock>,
    tell: &mut dyn FnMut(&str),
) -> Result<TrainBench, BenchError> {
    let mut config = config.clone();
    // Schedules must not run out, however fast the machine is.
    config.run.steps = 1_000_000_000_000;
    let mut trainer = Trainer::new(config, threads)?;
    let measured = measure(&mut trainer, duration, clock);
    trainer.take_notices().iter().for_each(|notice| tell(notice));
    measured
}

fn measure(
    trainer: &mut Trainer,
    duration: Duration,
    clock: &Arc<dyn Clock>,
) -> Result<TrainBench, BenchError> {
    let times = Arc::new(Mutex::new(Times::default()));
    let (observed, watch) = (Arc::clone(&times), Arc::clone(clock));
    trainer.observe_phases(Box::new(move |phase| {
        let now = watch.now();
        observed.lock().unwrap_or_else(PoisonError::into_inner).enter(phase, now);
    }));
    trainer.iterate()?; // first touch of memory
    let round = duration / ROUNDS as u32;
    let mut rounds = Vec::new();
    let mut iterations = 0;
    for _ in 0..ROUNDS {
        let peak = gemm_peak_gflops(trainer.cpu(), &**clock, round / 10);
        *times.lock().unwrap_or_else(PoisonError::into_inner) = Times::default();
        let (start, before, mut n) = (clock.now(), trainer.steps(), 0);
        let flops = trainer.algorithm().flops();
        while n == 0 || clock.now() - start < round {
            trainer.iterate()?;
            n += 1;
        }
        let seconds = (clock.now() - start).as_secs_f64();
        let times = times.lock().unwrap_or_else(PoisonError::into_inner);
        let gflops = (trainer.algorithm().flops() - flops) / times.learn.as_secs_f64() / 1e9;
        let n = f64::from(n);
        rounds.push([
            (trainer.steps() - before) as f64 / seconds,
            times.collect.as_secs_f64() / n,
            times.learn.as_secs_f64() / n,
            gflops,
            peak,
            gflops / peak,
        ]);
        iterations += n as usize;
    }
    let [steps_per_second, rollout_seconds, update_seconds, update_gflops, gemm_peak_gflops, update_share] =
        std::array::from_fn(|i| median(&rounds.iter().map(|r| r[i]).collect::<Vec<_>>()));
    Ok(TrainBench {
        steps_per_second,
        rollout_seconds,
        update_seconds,
        update_gflops,
        gemm_peak_gflops,
        update_share,
        iterations,
        peak_rss_mib: peak_rss_mib(),
        instruction_set: kernels::instruction_set(),
    })
}

/// Steps `n_envs` environments with random actions for about `duration`.
///
/// # Errors
/// When an environment breaks its contract.
pub fn bench_env(
    config: &RunConfig,
    n_envs: usize,
    threads: usize,
    duration: Duration,
    clock: &Arc<dyn Clock>,
) -> Result<EnvBench, BenchError> {
    struct Shard {
        env: VecEnv,
        actions: RandomActions,
        result: Result<(), EnvError>,
    }
    const STEPS: usize = 256;
    /// Environments of a shard at most: few enough that their state stays in the cache.
    const SHARD: usize = 128;
    let cpu = Cpu::new(threads)?;
    // A few environments, each of which is much work, are still work for every thread, and some of them for
    // who is early.
    let shard = SHARD.min(n_envs.div_ceil(4 * threads)).max(1);
    let shard = match config.get("envs_per_shard") {
        // A shard is at least one process: there are as many as a run has.
        Some(Value::Int(n)) if config.env().has_processes() => {
            usize::try_from(n).unwrap_or(n_envs).min(n_envs)
        }
        _ if config.env().has_processes() => default_shard(n_envs),
        _ => shard,
    };
    let space = config.env_spec()?.action.clone();
    let mut shards = Vec::new();
    for first in (0..n_envs).step_by(shard) {
        let n = shard.min(n_envs - first);
        let mut env = VecEnv::new(config.make_env(n)?, config.run.seed, first);
        env.reserve_episodes(n * STEPS);
        let actions = RandomActions::new(&space, n, config.run.seed, first as u32);
        shards.push(Shard { env, actions, result: Ok(()) });
    }
    // All are there before the first starts: how many processes one has may depend on that.
    shards.iter_mut().try_for_each(|shard| shard.env.start())?;
    let pass = |shards: &mut [Shard]| -> Result<f64, EnvError> {
        let start = clock.now();
        cpu.each(shards, |_, shard| {
            shard.env.clear_finished();
            shard.result = (0..STEPS).try_for_each(|_| shard.env.step(shard.actions.draw()));
        });
        let seconds = (clock.now() - start).as_secs_f64();
        shards.iter().try_for_each(|s| s.result.clone())?;
        Ok(seconds)
    };
    pass(&mut shards)?;
    let (start, mut times) = (clock.now(), Vec::new());
    while times.is_empty() || clock.now() - start < duration {
        times.push(pass(&mut shards)?);
    }
    Ok(EnvBench {
        env_steps_per_second: (n_envs * STEPS) as f64 / median(&times),
        n_envs,
        steps: STEPS * times.len(),
    })
}

/// Time spent in each phase.
#[derive(Debug, Default)]
struct Times {
    collect: Duration,
    learn: Duration,
    open: Option<(Phase, Duration)>,
}

impl Times {
    fn enter(&mut self, phase: Phase, now: Duration) {
        if let Some((last, since)) = self.open.replace((phase, now)) {
            match last {
                Phase::Collect => self.collect += now - since,
                Phase::Learn => self.learn += now - since,
                Phase::Done => {}
            }
        }
    }
}

/// Largest resident memory of this process so far, in MiB; 0 where the system does not say.
#[must_use]
pub fn peak_rss_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::WallTime;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn phases_are_added_up() {
        let mut t = Times::default();
        for (phase, ms) in [
            (Phase::Collect, 0),
            (Phase::Learn, 5),
            (Phase::Done, 8),
            (Phase::Collect, 20),
            (Phase::Learn, 21),
        ] {
            t.enter(phase, Duration::from_millis(ms));
        }
        assert_eq!((t.collect, t.learn), (Duration::from_millis(6), Duration::from_millis(3)));
    }

    /// A millisecond passes whenever somebody looks.
    #[derive(Debug, Default)]
    struct Looks(AtomicU64);

    impl Clock for Looks {
        fn now(&self) -> Duration {
            Duration::from_millis(self.0.fetch_add(1, Ordering::Relaxed))
        }
        fn wall(&self) -> WallTime {
            WallTime::from_unix_secs(0)
        }
    }

    #[test]
    fn a_bench_measures_what_it_says() {
        let mut config = RunConfig::new("ppo", "CartPole-v1").unwrap();
        for pair in ["n_envs=4", "n_steps=16", "minibatch_size=32", "epochs=2"] {
            config.apply_pair(pair, "test").unwrap();
        }
        let clock: Arc<dyn Clock> = Arc::new(Looks::default());
        let b = bench_train(&config, 1, Duration::from_millis(700), &clock, &mut |_| {}).unwrap();
        assert!(b.iterations >= ROUNDS);
        // An iteration of 64 steps looks when it collects, when it learns and when it is done.
        assert!((b.rollout_seconds - 0.001).abs() < 1e-9 && (b.update_seconds - 0.001).abs() < 1e-9, "{b:?}");
        assert!(b.rollout_seconds + b.update_seconds < 64.0 / b.steps_per_second, "{b:?}");
        assert!(b.update_gflops > 0.0 && b.gemm_peak_gflops > 0.0, "{b:?}");
        let share = b.update_gflops / b.gemm_peak_gflops;
        assert!((b.update_share / share - 1.0).abs() < 1e-9, "{b:?}");
        let e = bench_env(&config, 200, 2, Duration::from_millis(20), &clock).unwrap();
        // A pass of 200 environments looks at its beginning and its end.
        assert!((e.env_steps_per_second - 200.0 * 256.0 / 0.001).abs() < 1e-3, "{e:?}");
        assert_eq!(e.n_envs, 200);
    }
}
