//! Settings and parts that siblings have in common.

use crate::algorithm::{BuildError, Setup};
use crate::memory::Sizes;
use pgrad_collect::{Collector, EpisodesShape, Normalizers, RolloutShape};
use pgrad_engine::Paths;
use pgrad_env::{EnvSpec, MakeError, Space};
use pgrad_math::returns;
use pgrad_model::{
    ActorCritic, Critic, ModelShape, ObsNormalizer, Recurrence, Rescale, RewardNormalizer,
    Trunk as ModelTrunk,
};
use pgrad_nn::{Activation as NnActivation, Cell};
use pgrad_num::{Record, RecordError, kernels};
use pgrad_optim::{Adam, AdamParams, RunParts, StepRule};
use pgrad_settings::{above, choice, settings};

choice! {
    /// Activation function of hidden units.
    pub enum Activation {
        /// The hyperbolic tangent.
        Tanh = "tanh",
        /// The positive part.
        Relu = "relu",
    }
}

choice! {
    /// The weight of an action's score (psi) when there is a critic. The critic's target is the lambda-return
    /// either way.
    pub enum Psi {
        /// Generalised advantage estimation: the lambda-return minus V(s).
        Gae = "gae",
        /// The lambda-return itself, an estimate of Q(s, a), without subtracting V(s), and so with more
        /// variance; with lambda 1, the reward-to-go plus the critic's value after the data.
        LambdaReturn = "lambda-return",
    }
}

impl Psi {
    /// Writes `Ψ_t` as the advantage, and `V_t^targ`.
    pub(crate) fn estimate(self, p: Paths<'_>, gamma: f32, lambda: f32) {
        let Paths { reward, v, v_next, carry, mut adv, mut ret, .. } = p;
        match self {
            Self::Gae => {
                returns::gae(reward, v, v_next, carry, gamma, lambda, adv.reborrow()); // Â_t
                returns::add(adv.as_tb(), v, ret); // V_t^targ = Â_t + V(s_t)
            }
            Self::LambdaReturn => {
                returns::lambda_return(reward, v_next, carry, gamma, lambda, ret.reborrow()); // V_t^targ = G_t
                returns::lambda_return(reward, v_next, carry, gamma, lambda, adv); // Q̂_t = G_t
            }
        }
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
    /// Recurrent layer that remembers earlier observations.
    pub enum Recurrent {
        /// Nothing.
        Nothing = "none",
        /// Long short-term memory.
        Lstm = "lstm",
        /// A gated recurrent unit.
        Gru = "gru",
    }
}

choice! {
    /// Recurrent state from which a sequence starts in training.
    pub enum InitialState {
        /// The state that the rollout had reached.
        Stored = "stored",
        /// The state that the current parameters reach from the start of the rollout, recomputed before each
        /// epoch but the first.
        Recomputed = "recomputed",
    }
}

impl InitialState {
    /// Refuses to recompute states where there is but one epoch.
    pub(crate) fn check(self, epochs: usize) -> Result<(), BuildError> {
        if self == Self::Recomputed && epochs == 1 {
            let reason = "in the first epoch the states are those of the rollout; set at least 2 `epochs`, \
                or leave `initial_state` at `stored`";
            return Err(BuildError::setting("initial_state", &self, reason));
        }
        Ok(())
    }
}

choice! {
    /// How a setting changes over a run.
    pub enum Schedule {
        /// It stays constant.
        Constant = "constant",
        /// It falls linearly to zero at the end of the run.
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
        /// Number of environments stepped together (N). More environments decorrelate the data and speed up
        /// collection; for the same batch size, each contributes a shorter piece.
        n_envs: usize = 8, range: 1..=65_536, unit: "environments", source: "Schulman et al. 2017, Table 5";
        /// Steps per environment and iteration (T).
        n_steps: usize = 128, range: 1..=1_048_576, unit: "steps", source: "Schulman et al. 2017, Table 5";
        /// Discount factor of future rewards.
        gamma: f64 = 0.99, range: 0.0..=1.0, source: "Schulman et al. 2017, Table 5";
        /// Bootstrap from the value of the final observation when a time limit cuts an episode short. If
        /// false, the cut counts as the end of the task: a common mistake, kept to show its effect.
        bootstrap_time_limit: bool = true, source: "Pardo et al. 2018, Eq. 6";
        /// Environments per shard, the unit of collection: one thread runs a whole shard without waiting for
        /// the others. Unset: half of `n_envs`, but at least 4 and at most 32. Affects results; the number of
        /// threads does not.
        envs_per_shard: Option<usize> = None, range: 1..=65_536, unit: "environments";
    }
}

settings! {
    /// Whole episodes: data of one iteration.
    pub struct EpisodeSettings {
        /// Number of environments stepped together (N).
        n_envs: usize = 1, range: 1..=65_536, unit: "environments", source: "Williams 1992, section 6";
        /// Complete episodes per iteration (K), distributed evenly over the environments; at least one each.
        /// More episodes make the gradient less noisy and updates rarer.
        n_episodes: usize = 1, range: 1..=1_048_576, unit: "episodes", source: "Williams 1992, section 6";
        /// Discount factor of future rewards.
        gamma: f64 = 0.99, range: 0.0..=1.0, source: "Schulman et al. 2017, Table 5";
        /// Environments per shard, the unit of collection: one thread runs a whole shard without waiting for
        /// the others, until the last of its environments has played its episodes. Unset: half of `n_envs`,
        /// but at least 4 and at most 32. Affects results; the number of threads does not.
        envs_per_shard: Option<usize> = None, range: 1..=65_536, unit: "environments";
    }
}

choice! {
    /// Numbers of a Box action that the policy chooses in units of their range.
    pub enum RescaleActions {
        /// Those bounded on both sides, unless a standard Gaussian covers the range as it is: one about 0
        /// with a half-width of 0.25 to 4.
        Far = "far",
        /// All that are bounded on both sides.
        All = "all",
        /// None: the policy chooses in the environment's own units.
        Nothing = "none",
    }
}

impl From<RescaleActions> for Rescale {
    fn from(r: RescaleActions) -> Self {
        match r {
            RescaleActions::Far => Self::Far,
            RescaleActions::All => Self::All,
            RescaleActions::Nothing => Self::Nothing,
        }
    }
}

settings! {
    /// The networks.
    pub struct ModelSettings {
        /// Units in each hidden layer; an empty list makes the model linear.
        hidden: Vec<usize> = vec![64, 64], range: 1..=8192, unit: "units",
            source: "Schulman et al. 2017, section 6.1";
        /// Activation function of the hidden units.
        activation: Activation = Activation::Tanh, source: "Schulman et al. 2017, section 6.1";
        /// Initialise weights as orthogonal matrices with gain sqrt 2 (hidden layers), 0.01 (policy) and 1
        /// (value). If false, draw them uniformly from +-1/sqrt(inputs).
        orthogonal_init: bool = true, source: "OpenAI baselines, ppo2";
        /// Initial log standard deviation of a Gaussian policy.
        log_std_init: f64 = 0.0, range: -10.0..=5.0, unit: "nats", source: "OpenAI baselines, ppo2";
        /// Numbers of a Box action that the policy chooses in units of their range: -1 stands for the lower
        /// bound and 1 for the upper one. A Gaussian policy starts near 0 with a standard deviation of 1 and
        /// cannot find what is far from that.
        rescale_actions: RescaleActions = RescaleActions::Far;
    }
}

settings! {
    /// A recurrent layer below the hidden layers.
    ///
    /// One each for actor and critic, or a single one with a shared trunk.
    pub struct RecurrentSettings {
        /// Recurrent layer that remembers earlier observations of an episode. Without one, the policy sees
        /// only the current observation.
        recurrent: Recurrent = Recurrent::Nothing, source: "Hochreiter and Schmidhuber 1997; Cho et al. 2014";
        /// Units in the recurrent layer.
        recurrent_size: usize = 64, range: 1..=8192, unit: "units", source: "RL Baselines3 Zoo, ppo_lstm",
            when: recurrent is "lstm" | "gru";
        /// Steps per training sequence; must divide the steps of an iteration and the samples of a minibatch.
        /// Gradients go back to the first step of a sequence and no further: longer sequences can learn
        /// longer dependencies, but fewer are computed side by side. Unset: the longest possible, up to 32;
        /// sizes for which that would be below 8 are refused.
        sequence_length: Option<usize> = None, range: 1..=1_048_576, unit: "steps",
            source: "Werbos 1990; Kapturowski et al. 2019",
            when: recurrent is "lstm" | "gru";
        /// Largest number of steps for which units remember at the start of training; each unit starts with a
        /// different span up to this. Set it to the time over which something must be remembered. Unset: all
        /// units forget about equally fast.
        memory_span: Option<usize> = None, range: 2..=1_048_576, unit: "steps",
            source: "Tallec and Ollivier 2018, section 2.2",
            when: recurrent is "lstm" | "gru";
    }
}

impl RecurrentSettings {
    /// Longest sequence, where nobody says how long.
    const DEFAULT_LENGTH: usize = 32;
    /// Shortest sequence that is taken without being asked for, unless an iteration is shorter still.
    const SHORTEST_DEFAULT: usize = 8;

    /// Whether there is a memory.
    pub(crate) fn is_on(&self) -> bool {
        self.recurrent != Recurrent::Nothing
    }
    /// Refuses sequences that do not fill an iteration of `n_steps` or minibatches of `minibatch` samples,
    /// and sizes for which no useful length does: a default that is too short would change what is learnt
    /// without a word.
    pub(crate) fn check(&self, n_steps: usize, minibatch: usize) -> Result<(), BuildError> {
        if !self.is_on() {
            return Ok(());
        }
        let Some(length) = self.sequence_length else { return Self::check_default(n_steps, minibatch) };
        for (whole, what) in [(n_steps, "steps of an iteration"), (minibatch, "samples of a minibatch")] {
            if whole % length != 0 {
                return Err(BuildError::setting(
                    "sequence_length",
                    &length,
                    format!("sequences must fill the {whole} {what}; choose a length that divides {whole}"),
                ));
            }
        }
        Ok(())
    }
    fn check_default(n_steps: usize, minibatch: usize) -> Result<(), BuildError> {
        let fits = |n_steps: usize, minibatch: usize| {
            let length = Self::longest(n_steps, minibatch);
            length >= Self::SHORTEST_DEFAULT.min(n_steps)
        };
        if fits(n_steps, minibatch) {
            return Ok(());
        }
        // One of the two sizes a few steps away always fits: a multiple of the other's divisor.
        let nearest = |from: usize, fits: &dyn Fn(usize) -> bool| {
            (1..=from).flat_map(|d| [from + d, from - d]).find(|n| *n > 0 && fits(*n))
        };
        let others = [
            nearest(n_steps, &|n| fits(n, minibatch)).map(|n| format!("n_steps = {n}")),
            nearest(minibatch, &|m| fits(n_steps, m)).map(|m| format!("minibatch_size = {m}")),
        ];
        let others: Vec<_> = others.into_iter().flatten().collect();
        let longest = Self::longest(n_steps, minibatch);
        Err(BuildError::setting(
            "sequence_length",
            &"none",
            format!(
                "the longest sequences that fill {n_steps} steps and minibatches of {minibatch} samples have \
                 length {longest}, too short to learn what to remember; use {}, or set sequence_length = {longest} \
                 to train on such sequences",
                others.join(" or ")
            ),
        ))
    }
    /// The longest sequence that fills both, up to the longest that is taken by default.
    fn longest(n_steps: usize, minibatch: usize) -> usize {
        let fits = |length: &usize| n_steps.is_multiple_of(*length) && minibatch.is_multiple_of(*length);
        (1..=Self::DEFAULT_LENGTH).rev().find(fits).unwrap_or(1)
    }
    /// Writes down the length of sequences.
    pub(crate) fn resolve(&mut self, n_steps: usize, minibatch: usize) {
        if self.is_on() {
            self.sequence_length.get_or_insert_with(|| Self::longest(n_steps, minibatch));
        }
    }
    /// The recurrent layer for iterations of `n_steps` and minibatches of `minibatch` samples.
    pub(crate) fn recurrence(&self, n_steps: usize, minibatch: usize) -> Option<Recurrence> {
        self.layer(self.sequence_length.unwrap_or_else(|| Self::longest(n_steps, minibatch)))
    }
    /// The recurrent layer for sequences of `sequence_length` steps.
    pub(crate) fn layer(&self, sequence_length: usize) -> Option<Recurrence> {
        let cell = match self.recurrent {
            Recurrent::Nothing => return None,
            Recurrent::Lstm => Cell::Lstm,
            Recurrent::Gru => Cell::Gru,
        };
        let size = self.recurrent_size;
        Some(Recurrence { cell, size, sequence_length, span: self.memory_span })
    }
}

settings! {
    /// How actor and critic share their networks.
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
        /// Normalised observations are clipped to plus or minus this value.
        clip_obs: f64 = 10.0, range: above(0.0), source: "OpenAI baselines, VecNormalize",
            when: normalize_obs is "true";
        /// Normalised rewards are clipped to plus or minus this value.
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
    /// Builds a policy and what critic the algorithm needs for an environment. Without a seed it has no
    /// parameters: an outline.
    pub(crate) fn build(
        &self,
        env: &EnvSpec,
        critic: Critic,
        trunk: ModelTrunk,
        seed: impl Into<Option<u64>>,
    ) -> Result<ActorCritic, BuildError> {
        self.build_with(env, critic, trunk, &self.hidden, seed)
    }
    /// As [`ModelSettings::build`], with widths of the critic's own.
    pub(crate) fn build_with(
        &self,
        env: &EnvSpec,
        critic: Critic,
        trunk: ModelTrunk,
        critic_hidden: &[usize],
        seed: impl Into<Option<u64>>,
    ) -> Result<ActorCritic, BuildError> {
        self.build_on(None, env, critic, trunk, critic_hidden, seed)
    }
    /// As [`ModelSettings::build_with`], on a recurrent layer or not.
    pub(crate) fn build_on(
        &self,
        recurrence: Option<Recurrence>,
        env: &EnvSpec,
        critic: Critic,
        trunk: ModelTrunk,
        critic_hidden: &[usize],
        seed: impl Into<Option<u64>>,
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
        if env.action.leaves().iter().any(|(_, leaf)| matches!(leaf, Space::Product { .. })) {
            let reason = "its action space has a product in a product; put all parts into one, with names of their own";
            return Err(BuildError::environment(env, reason));
        }
        let critic_hidden = critic_hidden.to_vec();
        let model = match seed.into() {
            Some(seed) => {
                ActorCritic::with_memory(shape, critic_hidden, recurrence, self.orthogonal_init, seed)
            }
            None => ActorCritic::outline(shape, critic_hidden, recurrence),
        };
        let model =
            model.map_err(|e| BuildError::environment(env, format!("no network can be built: {e}")))?;
        Ok(model.with_rescaled(Rescale::from(self.rescale_actions).numbers(&env.action)))
    }
}

/// Environments of a shard, where nobody says how many.
#[must_use]
pub fn default_shard(n_envs: usize) -> usize {
    n_envs.div_ceil(2).clamp(4, 32)
}

impl NormalizeSettings {
    /// The normalisers of `n_envs` environments with observations of `obs_dim` numbers.
    pub(crate) fn build(&self, n_envs: usize, obs_dim: usize, gamma: f64) -> Normalizers {
        let obs = self.normalize_obs.then(|| ObsNormalizer::new(obs_dim, self.clip_obs));
        let reward = self.normalize_reward.then(|| RewardNormalizer::new(n_envs, gamma, self.clip_reward));
        (obs, reward)
    }
}

impl EpisodeSettings {
    /// Writes down the defaults that follow from other settings.
    pub(crate) fn resolve(&mut self) {
        self.envs_per_shard.get_or_insert(default_shard(self.n_envs));
    }
    /// Refuses fewer episodes than environments.
    pub(crate) fn check(&self) -> Result<(), BuildError> {
        if self.n_episodes < self.n_envs {
            return Err(BuildError::setting(
                "n_episodes",
                &self.n_episodes,
                format!("each of the n_envs = {} environments plays at least one episode", self.n_envs),
            ));
        }
        Ok(())
    }
    /// Builds the environments and their storage.
    pub(crate) fn build(
        &self,
        bootstrap_truncated: bool,
        normalize: &NormalizeSettings,
        model: &ActorCritic,
        setup: &Setup<'_>,
    ) -> Result<Collector, MakeError> {
        let shape = EpisodesShape {
            n_envs: self.n_envs,
            n_episodes: self.n_episodes,
            envs_per_shard: self.envs_per_shard.unwrap_or(default_shard(self.n_envs)),
            bootstrap_truncated,
        };
        let norms = normalize.build(self.n_envs, model.shape().obs_dim, self.gamma);
        Collector::episodes(shape, setup.make_env, model, norms, setup.seed, &setup.cpu)
    }
}

/// A step rule by choice.
#[derive(Clone, Debug)]
pub(crate) enum Rule {
    /// Down the gradient.
    Sgd,
    /// Adam.
    Adam(Adam<f32>),
}

impl StepRule for Rule {
    fn step_parts(
        &mut self,
        ends: &[usize],
        theta: &mut [f32],
        gradient: &[f32],
        scale: f64,
        alpha: f64,
        on: &impl RunParts,
    ) {
        match self {
            Self::Sgd => kernels::axpy((-alpha * scale) as f32, gradient, theta),
            Self::Adam(adam) => adam.step_parts(ends, theta, gradient, scale, alpha, on),
        }
    }
}

impl Rule {
    /// Adam at rest, for `n` parameters.
    pub(crate) fn adam(n: usize, epsilon: f64) -> Self {
        Self::Adam(Adam::new(n, AdamParams { epsilon, ..AdamParams::default() }))
    }
    /// Saves the state, if there is any.
    pub(crate) fn save(&self) -> Record {
        match self {
            Self::Sgd => Record::new(),
            Self::Adam(adam) => adam.save(),
        }
    }
    /// Restores what was saved.
    pub(crate) fn load(&mut self, from: &Record) -> Result<(), RecordError> {
        match self {
            Self::Sgd => Ok(()),
            Self::Adam(adam) => adam.load(from),
        }
    }
}

impl RolloutSettings {
    /// Writes down the defaults that follow from other settings.
    pub(crate) fn resolve(&mut self) {
        self.envs_per_shard.get_or_insert(default_shard(self.n_envs));
    }
    /// Adds what a rollout takes, and the gradients over minibatches of `minibatch` samples of it.
    pub(crate) fn sizes<'a>(&self, sizes: Sizes<'a>, minibatch: usize) -> Sizes<'a> {
        let shard = self.envs_per_shard.unwrap_or(default_shard(self.n_envs));
        sizes.rollout(self.n_envs, self.n_steps, shard).gradients(minibatch)
    }
    /// Samples of an iteration, `N T`.
    pub(crate) fn samples(&self) -> usize {
        self.n_envs * self.n_steps
    }
    /// Refuses more samples in an iteration than can be numbered, minibatches larger than an iteration, and
    /// sequences that do not fill both.
    pub(crate) fn check(
        &self,
        minibatch: usize,
        recurrent: Option<&RecurrentSettings>,
    ) -> Result<(), BuildError> {
        let (n, t, samples) = (self.n_envs, self.n_steps, self.samples());
        if u32::try_from(samples).is_err() {
            return Err(BuildError::setting(
                "n_steps",
                &self.n_steps,
                format!("an iteration would have {samples} samples, but at most {} are possible", u32::MAX),
            ));
        }
        if minibatch > samples {
            let reason = format!(
                "an iteration has n_envs x n_steps = {n} x {t} = {samples} samples; use at most that many"
            );
            return Err(BuildError::setting("minibatch_size", &minibatch, reason));
        }
        recurrent.map_or(Ok(()), |r| r.check(self.n_steps, minibatch))
    }
    /// Builds the environments and their storage.
    pub(crate) fn build(
        &self,
        normalize: &NormalizeSettings,
        model: &ActorCritic,
        setup: &Setup<'_>,
    ) -> Result<Collector, MakeError> {
        let shape = RolloutShape {
            n_envs: self.n_envs,
            n_steps: self.n_steps,
            envs_per_shard: self.envs_per_shard.unwrap_or(default_shard(self.n_envs)),
            bootstrap_truncated: self.bootstrap_time_limit,
        };
        let norms = normalize.build(self.n_envs, model.shape().obs_dim, self.gamma);
        Collector::steps(shape, setup.make_env, model, norms, setup.seed, &setup.cpu)
    }
}

/// Reads parameters that were saved.
pub(crate) fn load_finite(from: &Record, name: &str, to: &mut [f32]) -> Result<(), RecordError> {
    let values = from.f32s(name, to.len())?;
    if !kernels::all_finite(values) {
        return Err(RecordError::Value { name: name.into(), reason: "what was learnt is finite".into() });
    }
    to.copy_from_slice(values);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_length_that_nobody_chose_is_never_short() {
        let memory = RecurrentSettings { recurrent: Recurrent::Lstm, ..RecurrentSettings::default() };
        let length = |n_steps, minibatch| {
            memory
                .check(n_steps, minibatch)
                .map(|()| memory.recurrence(n_steps, minibatch).unwrap().sequence_length)
        };
        assert_eq!(length(128, 1024).unwrap(), 32);
        assert_eq!(length(125, 1000).unwrap(), 25);
        assert_eq!(length(5, 40).unwrap(), 5, "a short iteration is one sequence");
        let message = length(125, 1024).unwrap_err().to_string();
        assert!(message.contains("have length 1, too short"), "{message}");
        assert!(
            message.contains("use n_steps = 128 or minibatch_size = 1025, or set sequence_length = 1"),
            "{message}"
        );
        let mut asked = memory.clone();
        asked.sequence_length = Some(1);
        asked.check(125, 1024).unwrap();
        RecurrentSettings::default().check(125, 1024).unwrap();
    }
}
