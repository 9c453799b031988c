//! What TRPO's vine sampling asks for: its settings, and which of the others apply to single paths only.

use crate::algorithm::{BuildError, Setup};
use crate::common::{NormalizeSettings, RecurrentSettings};
use crate::natural::{Batch, BatchSettings, CriticSettings, NaturalSettings};
use pgrad_collect::{Collector, VineActions, VineShape};
use pgrad_env::{BatchResult, EnvSpec, MakeError, Space};
use pgrad_model::{ActorCritic, Critic};
use pgrad_num::Stream;
use pgrad_settings::{choice, settings, settings_like};

choice! {
    /// How states are visited and action values are estimated.
    pub enum Sampling {
        /// Along paths: each action taken, with an advantage estimated by the critic.
        SinglePath = "single-path",
        /// Vine: from some states along the paths, several actions drawn from the policy, each followed by a
        /// rollout that estimates its value. The task must be able to save and restore its state.
        Vine = "vine",
        /// Vine with actions drawn uniformly; for discrete action spaces.
        VineUniform = "vine-uniform",
        /// Vine with every action once; for small `Discrete` action spaces.
        VineEvery = "vine-every",
    }
}

settings! {
    /// Sampling of states, actions and action values.
    pub struct VineSettings {
        /// How states are visited and action values are estimated.
        sampling: Sampling = Sampling::SinglePath, source: "Schulman et al. 2015, section 5";
        /// Number of states per iteration from which rollouts start (N), spread evenly over the steps of the
        /// batch.
        vine_states: usize = 125, range: 1..=1_048_576, unit: "states",
            source: "Schulman et al. 2015, Table 2 (500 rollouts, 4 from each state)",
            when: sampling is "vine" | "vine-uniform" | "vine-every";
        /// Rollouts from each state (K). A larger value makes the gradient less noisy and the iteration
        /// longer.
        vine_rollouts: usize = 4, range: 2..=1024, unit: "rollouts", source: "Schulman et al. 2015, Table 2",
            when: sampling is "vine" | "vine-uniform";
        /// Maximum steps of a rollout; rewards after them are ignored. A larger value looks further ahead at
        /// the price of noise and time.
        vine_length: usize = 50, range: 1..=1_048_576, unit: "steps", source: "Schulman et al. 2015, Table 2",
            when: sampling is "vine" | "vine-uniform" | "vine-every";
    }
}

settings_like! {
    /// The batch of TRPO: data of one iteration.
    pub struct TrpoBatch(BatchSettings) {
        bootstrap_time_limit, when: sampling is "single-path";
    }
}

settings_like! {
    /// The natural direction of TRPO.
    pub struct TrpoNatural(NaturalSettings) {
        psi, when: sampling is "single-path";
        lambda, when: sampling is "single-path";
    }
}

settings_like! {
    /// The critic of TRPO, fitted after the policy's step; a vine has none.
    pub struct TrpoCritic(CriticSettings) {
        critic_hidden, when: sampling is "single-path";
        critic_epochs, when: sampling is "single-path";
        minibatch_size, when: sampling is "single-path";
        critic_learning_rate, when: sampling is "single-path";
        adam_epsilon, when: sampling is "single-path";
    }
}

impl VineSettings {
    /// The first actions, where a vine grows.
    fn actions(&self) -> Option<VineActions> {
        match self.sampling {
            Sampling::SinglePath => None,
            Sampling::Vine => Some(VineActions::Policy(self.vine_rollouts)),
            Sampling::VineUniform => Some(VineActions::Uniform(self.vine_rollouts)),
            Sampling::VineEvery => Some(VineActions::Every),
        }
    }
    /// Whether data come from single paths.
    pub(crate) fn single_path(&self) -> bool {
        self.sampling == Sampling::SinglePath
    }
    /// The critic: rollouts of a vine tell values without one.
    pub(crate) fn critic(&self) -> Critic {
        if self.single_path() { Critic::State } else { Critic::None }
    }
    /// Refuses first actions that the space does not have, more states than steps, and a trunk of whole
    /// episodes.
    pub(crate) fn check(
        &self,
        batch: &BatchSettings,
        recurrent: &RecurrentSettings,
        env: &EnvSpec,
    ) -> Result<(), BuildError> {
        let refuse = |key, value: String, reason: String| Err(BuildError::setting(key, &value, reason));
        let Some(actions) = self.actions() else { return Ok(()) };
        if recurrent.is_on() {
            let reason = "a vine starts from saved states of the task, which do not include what a \
                recurrent policy remembers; set `sampling=single-path`, or leave `recurrent` at `none`";
            return refuse("recurrent", recurrent.recurrent.to_string(), reason.to_owned());
        }
        let fits = match actions {
            VineActions::Policy(_) => true,
            VineActions::Uniform(_) => env.action.real_dim() == 0,
            VineActions::Every => matches!(env.action, Space::Discrete { n } if n <= 1024),
        };
        if !fits {
            let reason = format!("`{}` has the actions {}; use `sampling=vine`", env.id, env.action);
            return refuse("sampling", self.sampling.to_string(), reason);
        }
        if batch.batch == Batch::Episodes {
            let reason = "a vine needs a fixed number of steps; set `batch=steps`".to_owned();
            return refuse("batch", batch.batch.to_string(), reason);
        }
        if self.vine_states > batch.samples() {
            let reason = format!(
                "the paths of an iteration have n_envs x n_steps = {} x {} = {} states; use at most that \
                 many",
                batch.n_envs,
                batch.n_steps,
                batch.samples()
            );
            return refuse("vine_states", self.vine_states.to_string(), reason);
        }
        Ok(())
    }
    /// Refuses an environment that cannot go back to a state.
    pub(crate) fn check_env(&self, make: &dyn Fn(usize) -> BatchResult) -> Result<(), BuildError> {
        // Single paths ask nothing of an environment, so none is made.
        if self.single_path() {
            return Ok(());
        }
        let mut env = make(1)?;
        env.reset(0, &mut Stream::new(0, 0, 0));
        if env.save(0).is_some_and(|state| env.load(0, &state)) {
            return Ok(());
        }
        let reason = format!(
            "`sampling` = {} returns it to earlier states, but it does not save and restore its state \
             (`Env::save`, `Env::load`); use `sampling=single-path`",
            self.sampling
        );
        Err(BuildError::environment(env.spec(), reason))
    }
    /// Builds the environments and their storage.
    pub(crate) fn build(
        &self,
        batch: &BatchSettings,
        normalize: &NormalizeSettings,
        model: &ActorCritic,
        setup: &Setup<'_>,
    ) -> Result<Collector, MakeError> {
        let Some(actions) = self.actions() else { return batch.build(normalize, model, setup) };
        let vine =
            VineShape { n_states: self.vine_states, actions, length: self.vine_length, gamma: batch.gamma };
        let norms = normalize.build(batch.n_envs, model.shape().obs_dim, batch.gamma);
        Collector::vine(batch.shape(), vine, setup.make_env, model, norms, setup.seed, &setup.cpu)
    }
}
