//! `pgrad bench`.

use crate::args::BenchArgs;
use crate::catalog;
use crate::failure::{Code, Failure, Result};
use crate::progress::LiveLine;
use crate::terminal::{self, BOLD, Style, grouped};
use pgrad_run::bench::{BenchError, EnvBench, TrainBench, bench_env, bench_train};
use pgrad_run::clock::{Clock, SystemClock};
use pgrad_run::config::RunConfig;
use pgrad_settings::{Value, above, apply_text, settings};
use serde_json::json;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

settings! {
    /// Options of bench
    struct Length {
        /// How long to measure.
        seconds: f64 = 5.0, range: above(0.0).to(3600.0), unit: "s";
    }
}

pub(crate) fn run(args: &BenchArgs) -> Result<ExitCode> {
    let mut length = Length::default();
    if let Some(text) = &args.seconds {
        apply_text("seconds", text, "--seconds", &mut [&mut length])?;
    }
    let config = catalog::config(&args.task, &args.settings, None)?;
    config.check()?;
    let threads = args.threads.count()?;
    let duration = Duration::from_secs_f64(length.seconds);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let style = Style::stdout();
    // What there is to tell of the environments is told whether it could be measured or not.
    let mut tell = |notice: &str| LiveLine::new(false).note(notice);
    let (text, json) = if args.env_only {
        let b = bench_env(&config, n_envs(&config), threads, duration, &clock);
        config.env_news().notices.iter().for_each(|notice| tell(notice));
        let b = b.map_err(failure)?;
        (env_text(&b, config.env_id(), threads, style), env_json(&b))
    } else {
        let b = bench_train(&config, threads, duration, &clock, &mut tell).map_err(failure)?;
        let task = format!("{} on {}", config.algo(), config.env_id());
        (train_text(&b, &task, config.threads(threads), style), train_json(&b))
    };
    if args.json {
        terminal::out(&format!("{json}\n"))?;
    } else {
        terminal::out(&text)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Copies of the environment that the configuration asks for; one when the algorithm has no such setting.
fn n_envs(config: &RunConfig) -> usize {
    match config.get("n_envs") {
        Some(Value::Int(n)) => usize::try_from(n).unwrap_or(1),
        _ => 1,
    }
}

fn train_json(b: &TrainBench) -> serde_json::Value {
    json!({
        "steps_per_second": b.steps_per_second,
        "rollout_seconds": b.rollout_seconds,
        "update_seconds": b.update_seconds,
        "update_gflops": b.update_gflops,
        "gemm_peak_gflops": b.gemm_peak_gflops,
        "update_share": b.update_share,
        "peak_rss_mib": b.peak_rss_mib,
        "iterations": b.iterations,
        "instruction_set": b.instruction_set,
    })
}

fn train_text(b: &TrainBench, task: &str, threads: usize, style: Style) -> String {
    format!(
        "{} {task}, {threads} threads, {}\n  \
         rollout   {:.3} ms an iteration\n  \
         update    {:.3} ms an iteration\n  \
         products  {:.1} GFLOP/s in the update, {:.0} % of the peak of {:.1} GFLOP/s (64 x 64 x 64, same threads)\n  \
         memory    {:.0} MiB at most\n  \
         measured  {} iterations, medians\n",
        style.paint(BOLD, &format!("{} steps/s", grouped(b.steps_per_second as u64))),
        b.instruction_set,
        1e3 * b.rollout_seconds,
        1e3 * b.update_seconds,
        b.update_gflops,
        100.0 * b.update_share,
        b.gemm_peak_gflops,
        b.peak_rss_mib,
        b.iterations,
    )
}

fn env_json(b: &EnvBench) -> serde_json::Value {
    json!({ "env_steps_per_second": b.env_steps_per_second, "n_envs": b.n_envs, "steps": b.steps })
}

fn env_text(b: &EnvBench, env: &str, threads: usize, style: Style) -> String {
    format!(
        "{} {} x {env} with random actions, {threads} threads\n",
        style.paint(BOLD, &format!("{} steps/s", grouped(b.env_steps_per_second as u64))),
        b.n_envs,
    )
}

fn failure(error: BenchError) -> Failure {
    match error {
        BenchError::Config(e) => e.into(),
        BenchError::Make(e) => e.into(),
        BenchError::Agent(e) if e.is_divergence() => Failure::of(Code::Bug, &e),
        BenchError::Agent(e) => Failure::of(Code::Data, &e),
        BenchError::Env(e) => Failure::of(Code::Data, &e),
        BenchError::Threads(_) => Failure::of(Code::Io, &error).hint("ask for fewer with --threads"),
    }
}
