//! Settings and parts that siblings have in common.

use crate::algorithm::{BuildError, Setup};
use pgrad_agent::{
    ActorCritic, Critic, ModelShape, ObsNormalizer, RewardNormalizer, Rollout, RolloutShape,
    Trunk as ModelTrunk,
};
use pgrad_env::EnvSpec;
use pgrad_nn::Activation as NnActivation;
use pgrad_settings::{above, choice, settings};

choice! {
    /// What hidden units do with their input.
    pub enum Activation {
        /// The hyperbolic tangent.
        Tanh = "tanh",
        /// The positive part.
        Relu = "relu",
    }
}

choice! {
    /// Whether actor and critic share their hidden layers.
    pub enum Trunk {
        /// Two networks.
        Separate = "separate",
        /// One network with two heads.
        Shared = "shared",
    }
}

choice! {
    /// How a setting changes over a run.
    pub enum Schedule {
        /// It stays the same.
        Constant = "constant",
        /// It falls in a straight line to zero at the end of the run.
        Linear = "linear",
    }
}

impl From<Schedule> for pgrad_optim::Schedule {
    fn from(s: Schedule) -> Self {
        match s {
            Schedule::Constant => Self::Constant,
            Schedule::Linear => Self::Linear,
        }
    }
}

settings! {
    /// The rollout: data of one iteration.
    pub struct RolloutSettings {
        /// Environments stepped together (N). More environments decorrelate the data and speed up the
        /// collection; with more of them each learns from shorter pieces.
        n_envs: usize = 8, range: 1..=65_536, unit: "environments", source: "Schulman et al. 2017, Table 5";
        /// Steps of each environment in an iteration (T).
        n_steps: usize = 128, range: 1..=1_048_576, unit: "steps", source: "Schulman et al. 2017, Table 5";
        /// Discount of what comes later.
        gamma: f64 = 0.99, range: 0.0..=1.0, source: "Schulman et al. 2017, Table 5";
        /// Bootstrap from the value of the final observation where a time limit cut an episode. Off treats
        /// the cut as an end of the task: a common mistake, kept to show its effect.
        bootstrap_time_limit: bool = true, source: "Pardo et al. 2018, Eq. 6";
        /// Environments of one shard, which one thread collects without waiting for the others; without a
        /// number, half of `n_envs`, but at least 4 and at most 32. Part of the results: the number of threads
        /// is not.
        envs_per_shard: Option<usize> = None, range: 1..=65_536, unit: "environments";
    }
}

settings! {
    /// The networks.
    pub struct ModelSettings {
        /// Units of each hidden layer; an empty list gives a linear model.
        hidden: Vec<usize> = vec![64, 64], range: 1..=8192, unit: "units", source: "Schulman et al. 2017, section 6.1";
        /// What hidden units do.
        activation: Activation = Activation::Tanh, source: "Schulman et al. 2017, section 6.1";
        /// Orthogonal initial weights with gain sqrt 2 (hidden), 0.01 (policy) and 1 (value); off draws
        /// uniform weights of width 1/sqrt(inputs).
        orthogonal_init: bool = true, source: "OpenAI baselines, ppo2";
        /// Initial log standard deviation of a Gaussian policy.
        log_std_init: f64 = 0.0, range: -10.0..=5.0, unit: "nats", source: "OpenAI baselines, ppo2";
    }
}

settings! {
    /// How actor and critic lie together.
    pub struct TrunkSettings {
        /// Whether actor and critic share their hidden layers.
        trunk: Trunk = Trunk::Separate, source: "Schulman et al. 2017, section 6.1";
    }
}

settings! {
    /// Running normalisation.
    pub struct NormalizeSettings {
        /// Shift and scale observations to mean 0 and variance 1.
        normalize_obs: bool = false, source: "OpenAI baselines, VecNormalize";
        /// Divide rewards by the standard deviation of the discounted return.
        normalize_reward: bool = false, source: "OpenAI baselines, VecNormalize";
        /// Largest normalised observation.
        clip_obs: f64 = 10.0, range: above(0.0), source: "OpenAI baselines, VecNormalize",
            when: normalize_obs is "true";
        /// Largest normalised reward.
        clip_reward: f64 = 10.0, range: above(0.0), source: "OpenAI baselines, VecNormalize",
            when: normalize_reward is "true";
    }
}

impl From<Trunk> for ModelTrunk {
    fn from(t: Trunk) -> Self {
        match t {
            Trunk::Separate => Self::Separate,
            Trunk::Shared => Self::Shared,
        }
    }
}

impl ModelSettings {
    /// Builds a policy and what critic the algorithm needs for an environment.
    pub(crate) fn build(
        &self,
        env: &EnvSpec,
        critic: Critic,
        trunk: ModelTrunk,
        seed: u64,
    ) -> Result<ActorCritic, BuildError> {
        let shape = ModelShape {
            obs_dim: env.observation.obs_dim(),
            action: env.action.clone(),
            hidden: self.hidden.clone(),
            activation: match self.activation {
                Activation::Tanh => NnActivation::Tanh,
                Activation::Relu => NnActivation::Relu,
            },
            trunk,
            critic,
            log_std_init: self.log_std_init,
        };
        ActorCritic::new(shape, self.orthogonal_init, seed).map_err(|e| BuildError::Environment {
            env: env.id.clone(),
            reason: format!("no network can be built for it: {e}"),
        })
    }
}

impl RolloutSettings {
    /// Samples of an iteration, `N T`.
    pub(crate) fn samples(&self) -> usize {
        self.n_envs * self.n_steps
    }
    /// Checks that the samples of an iteration can be numbered.
    pub(crate) fn check(&self) -> Result<(), BuildError> {
        let samples = self.samples();
        if u32::try_from(samples).is_err() {
            return Err(BuildError::Inconsistent {
                key: "n_steps",
                value: self.n_steps.to_string(),
                reason: format!("an iteration would have {samples} samples; at most {} fit", u32::MAX),
            });
        }
        Ok(())
    }
    /// Builds the environments and their storage.
    pub(crate) fn build(
        &self,
        normalize: &NormalizeSettings,
        model: &ActorCritic,
        setup: &Setup<'_>,
    ) -> Rollout {
        let shape = RolloutShape {
            n_envs: self.n_envs,
            n_steps: self.n_steps,
            envs_per_shard: self.envs_per_shard.unwrap_or(self.n_envs.div_ceil(2).clamp(4, 32)),
            bootstrap_truncated: self.bootstrap_time_limit,
        };
        let obs_dim = model.shape().obs_dim;
        let obs_norm = normalize.normalize_obs.then(|| ObsNormalizer::new(obs_dim, normalize.clip_obs));
        let reward_norm = normalize
            .normalize_reward
            .then(|| RewardNormalizer::new(self.n_envs, self.gamma, normalize.clip_reward));
        Rollout::new(shape, setup.make_env, model, obs_norm, reward_norm, setup.seed, setup.threads)
    }
}
