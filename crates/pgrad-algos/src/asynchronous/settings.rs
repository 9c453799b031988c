//! Settings of asynchronous actor-learners.

use super::recording::read_recording;
use crate::algorithm::BuildError;
use crate::common::{Activation, ModelSettings, Schedule};
use crate::off_policy::check_masks;
use pgrad_agent::{ActorCritic, Critic, Trunk};
use pgrad_env::{EnvSpec, Space};
use pgrad_num::Stream;
use pgrad_optim::{HogwildRule, RmsPropParams};
use pgrad_settings::{above, choice, settings};

choice! {
    /// How a gradient changes the shared parameters.
    pub enum AsyncOptimizer {
        /// RMSProp whose mean squares all actor-learners share.
        SharedRmsprop = "shared-rmsprop",
        /// RMSProp with mean squares of each actor-learner's own.
        Rmsprop = "rmsprop",
        /// Momentum, each actor-learner's own.
        Momentum = "momentum",
    }
}

settings! {
    /// Asynchronous actor-learners.
    pub struct AsyncSettings {
        /// Actor-learners, each of which is a thread with an environment of its own. Part of the results; with one the
        /// method is an ordinary online one, and reproducible.
        workers: usize = 16, range: 1..=256, unit: "threads", source: "Mnih et al. 2016, section 5.1";
        /// Steps between two updates of an actor-learner (t_max, I_AsyncUpdate); fewer where an episode ends.
        n_steps: usize = 5, range: 1..=4096, unit: "steps", source: "Mnih et al. 2016, section 5.1";
        /// Discount of what comes later.
        gamma: f64 = 0.99, range: 0.0..=1.0, source: "Mnih et al. 2016, section 8";
        /// Bootstrap from the value of the final observation where a time limit cut an episode. Off treats
        /// the cut as an end of the task: a common mistake, kept to show its effect.
        bootstrap_time_limit: bool = true, source: "Pardo et al. 2018, Eq. 6";
        /// Steps of all actor-learners together between two looks of the runner (metrics, checkpoints, a stop on
        /// request). With one actor-learner it has no effect on what is learnt; more of them wait for the last one
        /// there.
        steps_per_iteration: u64 = 10_000, range: 1..=1_000_000_000, unit: "environment steps";
        /// How a gradient changes the shared parameters.
        optimizer: AsyncOptimizer = AsyncOptimizer::SharedRmsprop, source: "Mnih et al. 2016, section 4.5";
        /// Step size.
        learning_rate: f64 = 1e-3, range: above(0.0), source: "Mnih et al. 2016, section 5.1 (drawn from 1e-4 to 1e-2)";
        /// How `learning_rate` changes over the run.
        learning_rate_schedule: Schedule = Schedule::Linear, source: "Mnih et al. 2016, section 8";
        /// Decay of the mean of squared gradients in RMSProp (alpha in the paper).
        rmsprop_decay: f64 = 0.99, range: 0.0..=0.999_999, source: "Mnih et al. 2016, section 8",
            when: optimizer is "shared-rmsprop" | "rmsprop";
        /// Added to the mean square in RMSProp, inside the root.
        rmsprop_epsilon: f64 = 1e-5, range: above(0.0), source: "OpenAI baselines, a2c",
            when: optimizer is "shared-rmsprop" | "rmsprop";
        /// Part of the momentum that stays at an update (alpha in the paper).
        momentum: f64 = 0.99, range: 0.0..=0.999_999, source: "Mnih et al. 2016, section 8",
            when: optimizer is "momentum";
        /// Longest gradient of all parameters together; longer ones are scaled down.
        max_grad_norm: Option<f64> = None, range: above(0.0), source: "Mnih et al. 2016, section 8 (tuned; no value is given)";
        /// Write down the order in which actor-learners copy and change the shared parameters, one at a time, so that
        /// the run can be followed bit for bit (`replay`). It costs speed.
        record: bool = false;
        /// The `turns.safetensors` of a recorded run that is to be followed.
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
        /// First of the three values that an actor-learner's ε falls to (epsilon 1).
        epsilon_1: f64 = 0.1, range: 0.0..=1.0, source: "Mnih et al. 2016, section 5.1";
        /// Second value (epsilon 2).
        epsilon_2: f64 = 0.01, range: 0.0..=1.0, source: "Mnih et al. 2016, section 5.1";
        /// Third value (epsilon 3), drawn with what the probabilities of the others leave.
        epsilon_3: f64 = 0.5, range: 0.0..=1.0, source: "Mnih et al. 2016, section 5.1";
        /// Probability of `epsilon_1`.
        epsilon_1_probability: f64 = 0.4, range: 0.0..=1.0, source: "Mnih et al. 2016, section 5.1";
        /// Probability of `epsilon_2`.
        epsilon_2_probability: f64 = 0.3, range: 0.0..=1.0, source: "Mnih et al. 2016, section 5.1";
        /// When an actor-learner draws its ε.
        epsilon_draw: EpsilonDraw = EpsilonDraw::Episode, source: "Mnih et al. 2016, section 4 (periodically)";
        /// Steps of all actor-learners over which every ε falls from 1 to its value.
        epsilon_steps: u64 = 4_000_000, range: 0..=1_000_000_000_000, unit: "environment steps",
            source: "Mnih et al. 2016, section 5.1";
        /// Steps of all actor-learners after which the target network becomes a copy of the present one (I_target).
        /// Raising it makes targets steadier, and older.
        target_steps: u64 = 40_000, range: 1..=1_000_000_000_000, unit: "environment steps",
            source: "Mnih et al. 2016, section 8";
    }
}

settings! {
    /// The network of action values.
    pub struct QNetworkSettings {
        /// Units of each hidden layer; an empty list gives a linear function.
        hidden: Vec<usize> = vec![64, 64], range: 1..=8192, unit: "units";
        /// What hidden units do.
        activation: Activation = Activation::Relu, source: "Mnih et al. 2016, section 8";
        /// Orthogonal initial weights with gain sqrt 2 (hidden) and 0.01 (values); off draws uniform weights of width
        /// 1/sqrt(inputs).
        orthogonal_init: bool = true, source: "OpenAI baselines, ppo2";
    }
}

impl QNetworkSettings {
    /// A model whose policy's outputs are `Q(s, ·)`: its most probable action is the greedy one.
    pub(crate) fn build(&self, env: &EnvSpec, seed: u64) -> Result<ActorCritic, BuildError> {
        let Self { hidden, activation, orthogonal_init } = self.clone();
        let settings = ModelSettings { hidden, activation, orthogonal_init, ..ModelSettings::default() };
        settings.build(env, Critic::None, Trunk::Separate, seed)
    }
}

impl AsyncSettings {
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
        if !matches!(env.action, Space::Discrete { .. }) {
            return Err(BuildError::Environment {
                env: env.id.clone(),
                reason: format!("the method is for one choice among alternatives, not for {}", env.action),
            });
        }
        check_masks(env)?;
        let sum = self.epsilon_1_probability + self.epsilon_2_probability;
        if sum > 1.0 + 1e-9 {
            return Err(BuildError::Inconsistent {
                key: "epsilon_2_probability",
                value: self.epsilon_2_probability.to_string(),
                reason: format!("with `epsilon_1_probability` it makes {sum}, more than 1"),
            });
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
