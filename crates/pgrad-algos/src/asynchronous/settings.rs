//! Settings of asynchronous actor-learners.

use super::recording::read_recording;
use crate::{
    algorithm::BuildError,
    common::{Activation, ModelSettings, Schedule},
    memory::{Needs, Sizes},
    off_policy::{check_discrete, check_masks},
};
use pgrad_env::EnvSpec;
use pgrad_model::{ActorCritic, Critic, Trunk};
use pgrad_num::Stream;
use pgrad_optim::{HogwildRule, RmsPropParams};
use pgrad_settings::{above, choice, settings};

choice! {
    /// How a gradient changes the shared parameters.
    pub enum AsyncOptimizer {
        /// RMSProp with mean squares shared by all actor-learners.
        SharedRmsprop = "shared-rmsprop",
        /// RMSProp with separate mean squares for each actor-learner.
        Rmsprop = "rmsprop",
        /// Momentum SGD with a separate momentum for each actor-learner.
        Momentum = "momentum",
    }
}

settings! {
    /// Asynchronous actor-learners.
    pub struct AsyncSettings {
        /// Number of actor-learners, each a thread with its own environment. Affects results; with a single
        /// one, the method is an ordinary online method and reproducible.
        workers: usize = 16, range: 1..=256, unit: "threads", source: "Mnih et al. 2016, section 5.1";
        /// Steps between two updates of an actor-learner (t_max, I_AsyncUpdate); fewer at the end of an
        /// episode.
        n_steps: usize = 5, range: 1..=4096, unit: "steps", source: "Mnih et al. 2016, section 5.1";
        /// Discount factor of future rewards.
        gamma: f64 = 0.99, range: 0.0..=1.0, source: "Mnih et al. 2016, section 8";
        /// Bootstrap from the value of the final observation when a time limit cuts an episode short. If
        /// false, the cut counts as the end of the task: a common mistake, kept to show its effect.
        bootstrap_time_limit: bool = true, source: "Pardo et al. 2018, Eq. 6";
        /// Steps of all actor-learners together per iteration, after which metrics and checkpoints are
        /// written. With a single actor-learner it does not affect learning; several wait for each other at
        /// the end of an iteration.
        steps_per_iteration: u64 = 10_000, range: 1..=1_000_000_000, unit: "environment steps";
        /// How a gradient changes the shared parameters.
        optimizer: AsyncOptimizer = AsyncOptimizer::SharedRmsprop, source: "Mnih et al. 2016, section 4.5";
        /// Step size.
        learning_rate: f64 = 1e-3, range: above(0.0),
            source: "Mnih et al. 2016, section 5.1 (drawn from 1e-4 to 1e-2)";
        /// How `learning_rate` changes over the run.
        learning_rate_schedule: Schedule = Schedule::Linear, source: "Mnih et al. 2016, section 8";
        /// Decay of the mean of squared gradients in RMSProp (alpha in the paper).
        rmsprop_decay: f64 = 0.99, range: 0.0..=0.999_999, source: "Mnih et al. 2016, section 8",
            when: optimizer is "shared-rmsprop" | "rmsprop";
        /// Added to the mean square in RMSProp, inside the root.
        rmsprop_epsilon: f64 = 1e-5, range: above(0.0), source: "OpenAI baselines, a2c",
            when: optimizer is "shared-rmsprop" | "rmsprop";
        /// Fraction of the momentum kept at an update (alpha in the paper).
        momentum: f64 = 0.99, range: 0.0..=0.999_999, source: "Mnih et al. 2016, section 8",
            when: optimizer is "momentum";
        /// Maximum norm of the gradient over all parameters; longer gradients are scaled down to it.
        max_grad_norm: Option<f64> = None, range: above(0.0),
            source: "Mnih et al. 2016, section 8 (tuned; no value is given)";
        /// Record the order in which actor-learners read and change the shared parameters, one at a time, so
        /// that the run can be replayed bit for bit (`replay`). Slower.
        record: bool = false;
        /// Path of the `turns.safetensors` of a recorded run to replay.
        replay: String = String::new(), when: record is "false";
    }
}

choice! {
    /// When an actor-learner draws its ε.
    pub enum EpsilonDraw {
        /// At the start of every episode.
        Episode = "episode",
        /// Once for the whole run.
        Once = "once",
    }
}

settings! {
    /// Exploration and target network of the methods that learn action values.
    pub struct AsyncValueSettings {
        /// First of the three final values of an actor-learner's ε (epsilon 1).
        epsilon_1: f64 = 0.1, range: 0.0..=1.0, source: "Mnih et al. 2016, section 5.1";
        /// Second final value (epsilon 2).
        epsilon_2: f64 = 0.01, range: 0.0..=1.0, source: "Mnih et al. 2016, section 5.1";
        /// Third final value (epsilon 3), which has the remaining probability.
        epsilon_3: f64 = 0.5, range: 0.0..=1.0, source: "Mnih et al. 2016, section 5.1";
        /// Probability of `epsilon_1`.
        epsilon_1_probability: f64 = 0.4, range: 0.0..=1.0, source: "Mnih et al. 2016, section 5.1";
        /// Probability of `epsilon_2`.
        epsilon_2_probability: f64 = 0.3, range: 0.0..=1.0, source: "Mnih et al. 2016, section 5.1";
        /// When an actor-learner draws its ε.
        epsilon_draw: EpsilonDraw = EpsilonDraw::Episode,
            source: "Mnih et al. 2016, section 4 (periodically)";
        /// Steps of all actor-learners together over which every ε falls from 1 to its final value.
        epsilon_steps: u64 = 4_000_000, range: 0..=1_000_000_000_000, unit: "environment steps",
            source: "Mnih et al. 2016, section 5.1";
        /// Steps of all actor-learners together between two copies of the network to the target network
        /// (I_target). A larger value makes targets more stable, but older.
        target_steps: u64 = 40_000, range: 1..=1_000_000_000_000, unit: "environment steps",
            source: "Mnih et al. 2016, section 8";
    }
}

settings! {
    /// The network of action values.
    pub struct QNetworkSettings {
        /// Units in each hidden layer; an empty list makes the function linear.
        hidden: Vec<usize> = vec![64, 64], range: 1..=8192, unit: "units";
        /// Activation function of the hidden units.
        activation: Activation = Activation::Relu, source: "Mnih et al. 2016, section 8";
        /// Initialise weights as orthogonal matrices with gain sqrt 2 (hidden layers) and 0.01 (values). If
        /// false, draw them uniformly from +-1/sqrt(inputs).
        orthogonal_init: bool = true, source: "OpenAI baselines, ppo2";
    }
}

impl QNetworkSettings {
    /// A model whose policy's outputs are `Q(s, ·)`: its most probable action is the greedy one.
    pub(crate) fn build(
        &self,
        env: &EnvSpec,
        seed: impl Into<Option<u64>>,
    ) -> Result<ActorCritic, BuildError> {
        let Self { hidden, activation, orthogonal_init } = self.clone();
        let settings = ModelSettings { hidden, activation, orthogonal_init, ..ModelSettings::default() };
        settings.build(env, Critic::None, Trunk::Separate, seed)
    }
}

impl AsyncSettings {
    /// What its actor-learners take, with a target network or not.
    pub(crate) fn needs(&self, model: &ActorCritic, env: &EnvSpec, target: bool) -> Needs {
        let target = usize::from(target);
        let shared = usize::from(self.optimizer == AsyncOptimizer::SharedRmsprop);
        // What is shared: parameters, the policy that is handed out, mean squares, the target. Each has
        // parameters, a gradient, mean squares that are not shared, and the target.
        let vectors = 2 + shared + target;
        let sizes = Sizes::new(model, env, self.workers, self.workers).vectors(vectors, vectors);
        sizes.learners(self.workers, 3 - shared + target, self.n_steps).all()
    }
    /// Refuses what is not a recording; whether it is one of this run is seen when that is built.
    pub(crate) fn check(&self, file: Option<&[u8]>) -> Result<(), BuildError> {
        if self.file().is_none() {
            return Ok(());
        }
        let bytes = file.ok_or_else(|| self.refuse_recording("it was not read".into()))?;
        read_recording(bytes).map_err(|reason| self.refuse_recording(reason))?;
        Ok(())
    }
    pub(super) fn refuse_recording(&self, reason: String) -> BuildError {
        BuildError::Inconsistent { key: "replay", value: format!("`{}`", self.replay), reason }
    }
    pub(crate) fn file(&self) -> Option<(&'static str, &str)> {
        (!self.record && !self.replay.is_empty()).then_some(("replay", self.replay.as_str()))
    }
    pub(super) fn rule(&self) -> HogwildRule {
        let params = RmsPropParams { decay: self.rmsprop_decay, epsilon: self.rmsprop_epsilon };
        match self.optimizer {
            AsyncOptimizer::SharedRmsprop => HogwildRule::SharedRmsProp(params),
            AsyncOptimizer::Rmsprop => HogwildRule::RmsProp(params),
            AsyncOptimizer::Momentum => HogwildRule::Momentum { momentum: self.momentum },
        }
    }
}

impl AsyncValueSettings {
    /// Checks the probabilities, and that the task is one choice among alternatives that are always there.
    pub(crate) fn check(&self, env: &EnvSpec) -> Result<(), BuildError> {
        check_discrete(env)?;
        check_masks(env)?;
        let sum = self.epsilon_1_probability + self.epsilon_2_probability;
        if sum > 1.0 + 1e-9 {
            let reason = format!("together with `epsilon_1_probability` it adds up to {sum}, more than 1");
            return Err(BuildError::setting("epsilon_2_probability", &self.epsilon_2_probability, reason));
        }
        Ok(())
    }
    /// The value that ε falls to, drawn.
    pub(super) fn draw(&self, stream: &mut Stream) -> f64 {
        let u = stream.uniform();
        if u < self.epsilon_1_probability {
            self.epsilon_1
        } else if u < self.epsilon_1_probability + self.epsilon_2_probability {
            self.epsilon_2
        } else {
            self.epsilon_3
        }
    }
    /// ε after `frames` steps of all actor-learners.
    pub(super) fn anneal(&self, end: f64, frames: u64) -> f64 {
        let part = if self.epsilon_steps == 0 { 1.0 } else { frames as f64 / self.epsilon_steps as f64 };
        1.0 + (end - 1.0) * part.min(1.0)
    }
}
