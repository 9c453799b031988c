//! `pgrad eval`.

use crate::{
    args::EvalArgs,
    failure::{Code, Failure, Result},
    progress::LiveLine,
    terminal::{self, BOLD, GREEN, Style, YELLOW, grouped, quoted},
};
use pgrad_draw::video::{Film, VideoError, film};
use pgrad_env::EnvError;
use pgrad_model::Policy;
use pgrad_run::{
    driver::read_config,
    eval::{EvalError, EvalOptions, Evaluation, evaluate_run_telling},
    run_dir::POLICY,
    storage::{FsStorage, Storage as _},
};
use pgrad_settings::{apply_text, settings};
use serde_json::json;
use std::{io, path::Path, process::ExitCode};

/// The count of restarts among the numbers that environments have to tell.
const RESTARTS: &str = "env/restarts";
/// Longest policy that is read.
const MAX_POLICY_LEN: u64 = 4 << 30;

settings! {
    /// Options of eval
    struct Episodes {
        /// Number of episodes to run.
        episodes: usize = 100, range: 1..=10_000_000, unit: "episodes";
        /// Seed of the environments and of a stochastic policy, far from the seeds used in training.
        seed: u64 = 1_000_000, range: 0..=9_007_199_254_740_991;
        /// Steps after which an episode is given up.
        max_steps: u32 = 1_000_000, range: 1..=4_294_967_295, unit: "steps";
        /// Number of environments that exist at the same time.
        n_envs: usize = 256, range: 1..=65_536, unit: "environments";
        /// Number of episodes in the film.
        video_episodes: usize = 1, range: 1..=10_000, unit: "episodes";
    }
}

pub(crate) fn run(args: &EvalArgs) -> Result<ExitCode> {
    let mut episodes = Episodes::default();
    let given = [
        ("episodes", &args.episodes),
        ("seed", &args.seed),
        ("max_steps", &args.max_steps),
        ("n_envs", &args.n_envs),
        ("video_episodes", &args.video_episodes),
    ];
    for (key, text) in given {
        if let Some(text) = text {
            apply_text(key, text, &format!("--{}", key.replace('_', "-")), &mut [&mut episodes])?;
        }
    }
    let config = read_config(&FsStorage, &args.run, None)?;
    let policy = read_policy(&args.run)?;
    let options = EvalOptions {
        episodes: episodes.episodes,
        seed: episodes.seed,
        stochastic: args.stochastic,
        max_steps: episodes.max_steps,
        n_envs: episodes.n_envs,
    };
    let film = match &args.video {
        Some(path) => {
            let first = EvalOptions { episodes: episodes.video_episodes, ..options };
            let made = film(path, read_policy(&args.run)?, &config, &first);
            Some(made.map_err(|e| match e {
                VideoError::Eval(e) => failure(e, &options),
                e => Failure::of(Code::of(e.exit_code()), &e),
            })?)
        }
        None => None,
    };
    let live = LiveLine::new(!args.verbosity.quiet);
    let found = evaluate_run_telling(policy, &config, &options, &mut |p| {
        live.show(p.done as u64, p.episodes as u64, || {
            format!("{}/{} episodes  {} steps", p.done, p.episodes, grouped(p.steps))
        });
    });
    drop(live);
    for notice in config.env_news().notices.iter().filter(|_| !args.verbosity.quiet) {
        LiveLine::new(false).note(notice);
    }
    let found = found.map_err(|e| failure(e, &options))?;
    if args.verbosity.json {
        let restarts = config.env_news().metrics.into_iter().find(|(name, _)| *name == RESTARTS);
        terminal::out(&format!("{}\n", to_json(&found, restarts.map(|(_, n)| n), film.as_ref())))?;
    } else if !args.verbosity.quiet {
        let how = if args.stochastic { "stochastic" } else { "greedy" };
        let threshold = config.env_spec()?.reward_threshold;
        terminal::out(&report(&found, config.env_id(), how, threshold, options.max_steps, Style::stdout()))?;
        if let Some(film) = &film {
            terminal::out(&film_report(film))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn failure(e: EvalError, options: &EvalOptions) -> Failure {
    let code = Code::of(e.exit_code());
    match e {
        EvalError::Make(e) => e.into(),
        e @ EvalError::Endless { .. } => Failure::of(code, &e)
            .hint("the environment has no time limit, or a longer one; `--max-steps N` waits longer"),
        e @ EvalError::Env(EnvError::Failed { .. }) if options.n_envs > 1 => Failure::of(code, &e)
            .hint("if it cannot exist twice at the same time, `--n-envs 1` evaluates one after the other"),
        e => Failure::of(code, &e),
    }
}

fn read_policy(run: &Path) -> Result<Policy> {
    let path = run.join(POLICY);
    let bytes = FsStorage.read(&path, MAX_POLICY_LEN).map_err(|e| match e.cause.kind() {
        io::ErrorKind::NotFound => {
            Failure::new(Code::Data, format!("`{}` has no trained policy yet", run.display()))
                .hint(format!("`pgrad resume {}` continues training and saves one", quoted(run)))
        }
        io::ErrorKind::InvalidInput | io::ErrorKind::FileTooLarge => Failure::of(Code::Data, &e),
        _ => Failure::of(Code::Io, &e).split_advice(),
    })?;
    Policy::from_bytes(&bytes).map_err(|e| {
        Failure::of(Code::Data, &e)
            .at(&path.display().to_string())
            .hint("the file is damaged or from another version; `pgrad resume` writes it again")
    })
}

fn film_report(film: &Film) -> String {
    format!(
        "  film {}: {} of {} steps, {} frames, {:.1} s\n",
        quoted(&film.path),
        match film.shown.returns.len() {
            1 => "one episode".to_owned(),
            n => format!("{n} episodes"),
        },
        film.shown.lengths.iter().map(|l| u64::from(*l)).sum::<u64>(),
        film.frames,
        film.duration_secs,
    )
}

/// `restarts` are those of foreign environments.
fn to_json(found: &Evaluation, restarts: Option<f64>, film: Option<&Film>) -> serde_json::Value {
    let mut object = json!({
        "episodes": found.returns.len(),
        "episodes_lost": found.episodes_lost,
        "episodes_unfinished": found.episodes_unfinished,
        "return_mean": found.return_mean(),
        "return_std": found.return_std(),
        "return_min": found.return_min(),
        "return_max": found.return_max(),
        "length_mean": found.length_mean(),
    });
    if let Some(restarts) = restarts {
        object["env_restarts"] = json!(restarts as u64);
    }
    if let Some(film) = film {
        object["video"] = json!(film.path.display().to_string());
        object["video_frames"] = json!(film.frames);
    }
    object
}

fn report(
    found: &Evaluation,
    env: &str,
    how: &str,
    threshold: Option<f64>,
    max_steps: u32,
    style: Style,
) -> String {
    let mean = found.return_mean();
    let shown = style.paint(BOLD, &format!("return {mean:.2}"));
    let mut out = match found.returns.len() {
        // One episode says nothing about how returns spread.
        1 => format!("{shown} in one {how} episode of {env}\n  length {:.0}\n", found.length_mean()),
        n => format!(
            "{shown} over {n} {how} episodes of {env}\n  std {:.2}, min {:.2}, max {:.2}, mean length \
             {:.1}\n",
            found.return_std(),
            found.return_min(),
            found.return_max(),
            found.length_mean(),
        ),
    };
    let all = found.returns.len() + found.episodes_lost + found.episodes_unfinished;
    if found.episodes_lost > 0 {
        let lost = format!("{} of {all} episodes were lost and do not count", found.episodes_lost);
        out.push_str(&format!("  {}: the environment failed in them\n", style.paint(YELLOW, &lost)));
    }
    if found.episodes_unfinished > 0 {
        let given_up =
            format!("{} of {all} episodes were given up and do not count", found.episodes_unfinished);
        let given_up = style.paint(YELLOW, &given_up);
        out.push_str(&format!("  {given_up}: they had not ended after {max_steps} steps (`--max-steps`)\n"));
    }
    if let Some(threshold) = threshold {
        let (colour, word) = if mean >= threshold { (GREEN, "reached") } else { (YELLOW, "not reached") };
        out.push_str(&format!("  threshold {threshold} {}\n", style.paint(colour, word)));
    }
    out
}
