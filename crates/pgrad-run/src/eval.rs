//! How good a policy is.

use crate::{config::RunConfig, stats};
use pgrad_env::{Actions as EnvActions, BatchResult, End, EnvError, MakeError, PictureError, VecEnv};
use pgrad_math::dist::ActionsMut;
use pgrad_model::Policy;
use pgrad_num::{Cols, ColsMut, Stream};
use thiserror::Error;

/// Purpose number of the streams that a stochastic policy draws from.
const STREAM_EVAL: u32 = 5;
/// Environments stepped together, unless it is said otherwise.
const BATCH: usize = 256;

/// How to evaluate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvalOptions {
    /// Episodes.
    pub episodes: usize,
    /// Seed of the environments' and the policy's streams.
    pub seed: u64,
    /// Draw actions from the policy instead of taking the most probable one.
    pub stochastic: bool,
    /// Steps after which an episode has no end.
    pub max_steps: u32,
    /// Environments stepped together.
    pub n_envs: usize,
}

impl Default for EvalOptions {
    fn default() -> Self {
        Self { episodes: 100, seed: 1_000_000, stochastic: false, max_steps: 1_000_000, n_envs: BATCH }
    }
}

/// What an evaluation found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evaluation {
    /// Return of each episode that came to its end.
    pub returns: Vec<f64>,
    /// Length of each of these.
    pub lengths: Vec<u32>,
    /// Episodes that were lost because the environment failed in them. All figures are of the others alone.
    pub episodes_lost: usize,
    /// Episodes that had not ended after [`EvalOptions::max_steps`], which do not count either.
    pub episodes_unfinished: usize,
}

/// How far an evaluation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvalProgress {
    /// Episodes that are over, in one way or another.
    pub done: usize,
    /// All episodes.
    pub episodes: usize,
    /// Steps in all of them so far.
    pub steps: u64,
}

impl Evaluation {
    /// Episodes that are over, or were given up.
    fn done(&self) -> usize {
        self.returns.len() + self.episodes_lost + self.episodes_unfinished
    }
    /// Mean return.
    #[must_use]
    pub fn return_mean(&self) -> f64 {
        stats::mean(&self.returns)
    }
    /// Standard deviation of the returns over episodes.
    #[must_use]
    pub fn return_std(&self) -> f64 {
        stats::std(&self.returns)
    }
    /// Smallest return.
    #[must_use]
    pub fn return_min(&self) -> f64 {
        self.returns.iter().copied().fold(f64::INFINITY, f64::min)
    }
    /// Largest return.
    #[must_use]
    pub fn return_max(&self) -> f64 {
        self.returns.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }
    /// Mean length.
    #[must_use]
    pub fn length_mean(&self) -> f64 {
        stats::mean(&self.lengths.iter().map(|l| f64::from(*l)).collect::<Vec<_>>())
    }
}

/// Why an evaluation could not be done.
#[derive(Debug, Error)]
pub enum EvalError {
    /// The environment broke its contract.
    #[error(transparent)]
    Env(#[from] EnvError),
    /// The policy is for another environment.
    #[error(
        "the policy takes {policy_obs} numbers and acts in {policy_action}, but `{env}` gives {env_obs} \
         numbers and takes {env_action}"
    )]
    Mismatch {
        /// Name of the environment.
        env: String,
        /// Numbers of an observation for the policy.
        policy_obs: usize,
        /// Actions of the policy.
        policy_action: String,
        /// Numbers of an observation of the environment.
        env_obs: usize,
        /// Actions of the environment.
        env_action: String,
    },
    /// An episode without end.
    #[error("an episode of `{env}` had not ended after {steps} steps")]
    Endless {
        /// Name of the environment.
        env: String,
        /// Steps waited for.
        steps: u32,
    },
    /// The environment failed in every episode.
    #[error(
        "`{env}` failed in each of {episodes} episodes, so there is no return\n  hint: `pgrad check-env` looks for defects of environments"
    )]
    Lost {
        /// Name of the environment.
        env: String,
        /// Episodes that were asked for.
        episodes: usize,
    },
    /// The environments cannot be made.
    #[error(transparent)]
    Make(#[from] MakeError),
    /// The environment has no pictures, and one was asked for.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// Nothing to do.
    #[error("an evaluation needs at least one episode")]
    NoEpisodes,
}

impl EvalError {
    /// Exit code of a command that ends with this error.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NoEpisodes => 64,
            Self::Make(e) => e.exit_code(),
            Self::Env(_)
            | Self::Mismatch { .. }
            | Self::Endless { .. }
            | Self::Lost { .. }
            | Self::Picture(_) => 65,
        }
    }
}

/// [`evaluate`] in the environments of a run.
///
/// # Errors
/// As [`evaluate`], and when the environments cannot be made.
pub fn evaluate_run(
    policy: Policy,
    config: &RunConfig,
    options: &EvalOptions,
) -> Result<Evaluation, EvalError> {
    evaluate(policy, |n| config.make_env(n), options)
}

/// The same for somebody who watches: `tell` hears after every step how far it is. Episodes that do not end
/// are given up and counted ([`Evaluation::episodes_unfinished`]).
///
/// # Errors
/// As [`evaluate_run`]; that an episode does not end, only when none does.
pub fn evaluate_run_telling(
    policy: Policy,
    config: &RunConfig,
    options: &EvalOptions,
    tell: &mut dyn FnMut(EvalProgress),
) -> Result<Evaluation, EvalError> {
    let watch = &mut |_: &mut VecEnv, progress| {
        tell(progress);
        Ok(())
    };
    in_batches(false, policy, |n| config.make_env(n), options, watch)
}

/// Runs `policy` for whole episodes, with its normaliser as it is.
///
/// Each episode has an environment of its own, and only its first episode counts: otherwise short episodes
/// would be counted more often than long ones. Episode `i` depends on the seed and on `i` alone. One that is
/// lost is counted as lost ([`Evaluation::episodes_lost`]) and not replaced by another, which would leave out
/// just the episodes in which the environment fails.
///
/// # Errors
/// When the policy does not fit the environment, it cannot be made or breaks its contract, an episode does
/// not end, or all are lost.
pub fn evaluate(
    policy: Policy,
    make_env: impl Fn(usize) -> BatchResult,
    options: &EvalOptions,
) -> Result<Evaluation, EvalError> {
    in_batches(true, policy, make_env, options, &mut |_, _| Ok(()))
}

/// [`evaluate`], one episode after the other, with `watch` called before every step.
///
/// # Errors
/// As [`evaluate`], and what `watch` returns.
pub fn evaluate_watched(
    policy: Policy,
    make_env: impl Fn(usize) -> BatchResult,
    options: &EvalOptions,
    watch: &mut dyn FnMut(&mut VecEnv) -> Result<(), EvalError>,
) -> Result<Evaluation, EvalError> {
    in_batches(true, policy, make_env, &EvalOptions { n_envs: 1, ..*options }, &mut |env, _| watch(env))
}

/// What is called before every step.
type Watch<'w> = dyn FnMut(&mut VecEnv, EvalProgress) -> Result<(), EvalError> + 'w;

/// Batch after batch of environments; where `all` is set, all episodes must end.
fn in_batches(
    all: bool,
    policy: Policy,
    make_env: impl Fn(usize) -> BatchResult,
    options: &EvalOptions,
    watch: &mut Watch<'_>,
) -> Result<Evaluation, EvalError> {
    let (episodes, batch) = (options.episodes, options.n_envs.max(1));
    if episodes == 0 {
        return Err(EvalError::NoEpisodes);
    }
    let mut policy = policy.with_batch(batch.min(episodes));
    let (mut found, mut steps) = (Evaluation::default(), 0);
    for first in (0..episodes).step_by(batch) {
        let env = VecEnv::new(make_env(batch.min(episodes - first))?, options.seed, first);
        let id = env.spec().id.clone();
        evaluate_batch(&mut policy, env, first, options, (&mut found, &mut steps), watch)?;
        if found.episodes_lost == episodes {
            return Err(EvalError::Lost { env: id, episodes });
        }
        let none = found.returns.is_empty() && found.done() == episodes;
        if found.episodes_unfinished > 0 && (all || none) {
            return Err(EvalError::Endless { env: id, steps: options.max_steps });
        }
    }
    Ok(found)
}

fn evaluate_batch(
    policy: &mut Policy,
    mut env: VecEnv,
    first: usize,
    options: &EvalOptions,
    (found, steps): (&mut Evaluation, &mut u64),
    watch: &mut Watch<'_>,
) -> Result<(), EvalError> {
    let (spec, n) = (env.spec().clone(), env.len());
    if policy.obs_dim() != spec.observation.obs_dim() || *policy.action_space() != spec.action {
        return Err(EvalError::Mismatch {
            env: spec.id,
            policy_obs: policy.obs_dim(),
            policy_action: policy.action_space().to_string(),
            env_obs: spec.observation.obs_dim(),
            env_action: spec.action.to_string(),
        });
    }
    let mut rngs: Vec<Stream> =
        (0..n).map(|i| Stream::new(options.seed, STREAM_EVAL, (first + i) as u32)).collect();
    let (index_rows, real_rows) = (spec.action.index_dim(), spec.action.real_dim());
    let mask_rows = if spec.masks_actions { spec.action.mask_dim() } else { 0 };
    let (mut indices, mut numbers) = (vec![0u32; index_rows * n], vec![0.0f32; real_rows * n]);
    let (mut masks, mut mask_scratch) = (vec![true; mask_rows * n], Vec::new());
    // What came of the first episode of each environment: its return and length, or that it was lost.
    let mut done: Vec<Option<Result<(f64, u32), End>>> = vec![None; n];
    env.start()?;
    policy.reset();
    let before = found.done();
    for _ in 0..options.max_steps {
        let progress = EvalProgress {
            done: before + done.iter().flatten().count(),
            episodes: options.episodes,
            steps: *steps,
        };
        *steps += n as u64;
        watch(&mut env, progress)?;
        if mask_rows > 0 {
            env.action_masks(ColsMut::new(&mut masks, mask_rows, n), &mut mask_scratch)?;
        }
        let mask = (mask_rows > 0).then(|| Cols::new(&masks[..], mask_rows, n));
        let streams = options.stochastic.then_some(&mut rngs[..]);
        let chosen = ActionsMut {
            index: ColsMut::new(&mut indices, index_rows, n),
            real: ColsMut::new(&mut numbers, real_rows, n),
        };
        policy.act_batch(env.obs(), mask, streams, chosen);
        env.step(EnvActions {
            index: Cols::new(&indices, index_rows, n),
            real: Cols::new(&numbers, real_rows, n),
        })?;
        for (i, end) in env.ends().iter().enumerate() {
            if *end != End::Running {
                policy.reset_one(i);
            }
            if *end == End::Lost {
                done[i].get_or_insert(Err(End::Lost));
            }
        }
        for episode in env.finished() {
            done[episode.env - first].get_or_insert(Ok((episode.episode_return, episode.length)));
        }
        env.clear_finished();
        if done.iter().all(Option::is_some) {
            break;
        }
    }
    for outcome in done {
        match outcome {
            Some(Ok((episode_return, length))) => {
                found.returns.push(episode_return);
                found.lengths.push(length);
            }
            Some(Err(_)) => found.episodes_lost += 1,
            None => found.episodes_unfinished += 1,
        }
    }
    Ok(())
}
