//! How good a policy is.

use crate::config::RunConfig;
use crate::stats;
use pgrad_agent::Policy;
use pgrad_env::{Actions as EnvActions, BatchResult, End, EnvError, MakeError, PictureError, Space, VecEnv};
use pgrad_num::{Cols, ColsMut, Stream};
use pgrad_rl::dist::ActionsMut;
use thiserror::Error;

/// Purpose number of the streams that a stochastic policy draws from.
const STREAM_EVAL: u32 = 5;
/// Environments stepped together.
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
    /// Longest episode of an environment without a time limit.
    pub max_steps: u32,
}

impl Default for EvalOptions {
    fn default() -> Self {
        Self { episodes: 100, seed: 1_000_000, stochastic: false, max_steps: 1_000_000 }
    }
}

/// What an evaluation found.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Return of each episode.
    pub returns: Vec<f64>,
    /// Length of each episode.
    pub lengths: Vec<u32>,
}

impl Evaluation {
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
    #[error("an episode of `{env}` had not ended after {steps} steps, and the environment has no time limit")]
    Endless {
        /// Name of the environment.
        env: String,
        /// Steps waited for.
        steps: u32,
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
            Self::Env(_) | Self::Mismatch { .. } | Self::Endless { .. } | Self::Picture(_) => 65,
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

/// Runs `policy` for whole episodes, with its normaliser as it is.
///
/// Each episode has an environment of its own, and only its first episode counts: otherwise short episodes
/// would be counted more often than long ones. Episode `i` depends on the seed and on `i` alone.
///
/// # Errors
/// When the policy does not fit the environment, it cannot be made or breaks its contract, or an episode does not
/// end.
pub fn evaluate(
    policy: Policy,
    make_env: impl Fn(usize) -> BatchResult,
    options: &EvalOptions,
) -> Result<Evaluation, EvalError> {
    if options.episodes == 0 {
        return Err(EvalError::NoEpisodes);
    }
    let mut policy = policy.with_batch(BATCH.min(options.episodes));
    let mut found = Evaluation { returns: Vec::new(), lengths: Vec::new() };
    for first in (0..options.episodes).step_by(BATCH) {
        let n = BATCH.min(options.episodes - first);
        let env = VecEnv::new(make_env(n)?, options.seed, first);
        evaluate_batch(&mut policy, env, first, options, &mut found, &mut |_| Ok(()))?;
    }
    Ok(found)
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
    if options.episodes == 0 {
        return Err(EvalError::NoEpisodes);
    }
    let mut policy = policy.with_batch(1);
    let mut found = Evaluation { returns: Vec::new(), lengths: Vec::new() };
    for episode in 0..options.episodes {
        let env = VecEnv::new(make_env(1)?, options.seed, episode);
        evaluate_batch(&mut policy, env, episode, options, &mut found, watch)?;
    }
    Ok(found)
}

fn evaluate_batch(
    policy: &mut Policy,
    mut env: VecEnv,
    first: usize,
    options: &EvalOptions,
    found: &mut Evaluation,
    watch: &mut dyn FnMut(&mut VecEnv) -> Result<(), EvalError>,
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
    let rows = spec.action.action_dim();
    let mask_rows = if spec.masks_actions { spec.action.mask_dim() } else { 0 };
    let (mut indices, mut numbers) = (vec![0u32; rows * n], vec![0.0f32; rows * n]);
    let (mut masks, mut mask_scratch) = (vec![true; mask_rows * n], Vec::new());
    let mut done: Vec<Option<(f64, u32)>> = vec![None; n];
    env.start()?;
    policy.reset();
    for _ in 0..options.max_steps {
        watch(&mut env)?;
        if mask_rows > 0 {
            env.action_masks(ColsMut::new(&mut masks, mask_rows, n), &mut mask_scratch)?;
        }
        let mask = (mask_rows > 0).then(|| Cols::new(&masks[..], mask_rows, n));
        let streams = options.stochastic.then_some(&mut rngs[..]);
        let actions = if matches!(spec.action, Space::Box(_)) {
            policy.act_batch(env.obs(), mask, streams, ActionsMut::Real(ColsMut::new(&mut numbers, rows, n)));
            EnvActions::Real(Cols::new(&numbers, rows, n))
        } else {
            policy.act_batch(
                env.obs(),
                mask,
                streams,
                ActionsMut::Index(ColsMut::new(&mut indices, rows, n)),
            );
            EnvActions::Index(Cols::new(&indices, rows, n))
        };
        env.step(actions)?;
        for (i, end) in env.ends().iter().enumerate() {
            if *end != End::Running {
                policy.reset_one(i);
            }
            if *end == End::Lost && done[i].is_none() && env.is_dropped(i) {
                return Err(env.lost_for_good(i).into());
            }
        }
        for episode in env.finished() {
            done[episode.env - first].get_or_insert((episode.episode_return, episode.length));
        }
        env.clear_finished();
        if done.iter().all(Option::is_some) {
            for (episode_return, length) in done.into_iter().flatten() {
                found.returns.push(episode_return);
                found.lengths.push(length);
            }
            return Ok(());
        }
    }
    Err(EvalError::Endless { env: spec.id, steps: options.max_steps })
}
