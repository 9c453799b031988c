//! Asynchronous advantage actor-critic. Mnih, Badia, Mirza, Graves, Lillicrap, Harley, Silver, Kavukcuoglu 2016,
//! arXiv:1602.01783, Algorithm S3.
//!
//! Each actor-learner thread, until `T > T_max`: copy the shared parameters, act for `t_max` steps or to the end of the
//! episode, and with `R` backwards from `V(s_t)` (0 after a terminal state) add up
//!
//! `dθ ← dθ + ∇_θ′ log π(a_i|s_i;θ′) (R − V(s_i;θ′_v)) + β ∇_θ′ H(π(s_i;θ′))`,
//! `dθ_v ← dθ_v + ∂(R − V(s_i;θ′_v))² / ∂θ′_v`,
//!
//! then update the shared parameters with `dθ` and `dθ_v`, asynchronously.

use crate::algorithm::{AlgoConfig, Algorithm, BuildError, PhaseObserver, Report, Reproducible, Setup};
use crate::asynchronous::{ActorLearner, ActorLearners, AsyncSettings, async_algorithm, async_config};
use crate::common::{ModelSettings, RecurrentSettings, TrunkSettings};
use pgrad_agent::{ActorCritic, AgentError, Critic, ObsNormalizer};
use pgrad_env::{EnvSpec, Episode};
use pgrad_num::{Record, RecordError, Team};
use pgrad_settings::{Settings, settings, settings_like};

/// The registry's line.
pub const ENTRY: crate::AlgoEntry = crate::AlgoEntry {
    name: "a3c",
    title: "Asynchronous advantage actor-critic",
    source: "Mnih et al. 2016, arXiv:1602.01783",
    config: || Box::new(A3cConfig::default()),
};

settings! {
    /// Asynchronous advantage actor-critic.
    pub struct A3cSettings {
        /// Weight of the entropy bonus (beta). Raising it keeps the policy more random.
        entropy_coef: f64 = 0.01, range: 0.0..=1e6, unit: "per nat", source: "Mnih et al. 2016, supplement";
        /// Weight of the squared error of the critic.
        value_coef: f64 = 0.5, range: 0.0..=1e6, source: "OpenAI baselines, a2c (Algorithm S3 has 1)";
    }
}

settings_like! {
    /// A recurrent layer between the observation and the hidden layers: one for the actor and one for the critic, or one
    /// for both on a shared trunk. A segment is a sequence: gradients go back to its first step.
    pub struct A3cMemory(RecurrentSettings) without sequence_length {
        recurrent, source: "Mnih et al. 2016, section 5 (A3C, LSTM)";
    }
}

/// All settings of A3C.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct A3cConfig {
    /// The actor-learners.
    pub learners: AsyncSettings,
    /// The algorithm.
    pub a3c: A3cSettings,
    /// The networks.
    pub model: ModelSettings,
    /// What they remember.
    pub recurrent: A3cMemory,
    /// How they lie together.
    pub trunk: TrunkSettings,
    /// Bytes of the recording that is followed.
    pub recording: Option<Vec<u8>>,
}

/// A3C at work.
pub struct A3c {
    config: A3cSettings,
    gamma: f64,
    run: ActorLearners,
}

impl std::fmt::Debug for A3c {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("A3c")
            .field("config", &self.config)
            .field("steps", &self.run.steps())
            .finish_non_exhaustive()
    }
}

impl Algorithm for A3c {
    fn iterate(&mut self, team: &Team) -> Result<Report, AgentError> {
        let Self { config: c, gamma, run } = self;
        let (gamma, beta, c_v) = (*gamma as f32, c.entropy_coef as f32, c.value_coef as f32);
        run.run(team, |w| {
            while w.synchronize()? {
                // dθ ← 0, dθ_v ← 0; θ′ ← θ, θ′_v ← θ_v; until T > T_max
                while w.is_acting() {
                    w.act()?; // a_t ~ π(a_t|s_t; θ′); r_t, s_{t+1}; until terminal s_t or t − t_start = t_max
                }
                w.passes.forward(&w.model, &w.segment); // π(·|s_i; θ′), V(s_i; θ′_v)
                let mut ret = w.after_last(|w| w.passes.value(&w.model, &w.segment))?; // R
                let ActorLearner { model, segment: s, passes, d_theta, d_logp, d_entropy, d_v, sums, .. } = w;
                let n = s.len();
                let out = passes.outputs(n);
                for i in (0..n).rev() {
                    ret = s.reward(i) + gamma * ret; // R ← r_i + γ R
                    let adv = s.finite("advantage", i, ret - out.v[i])?; // R − V(s_i; θ′_v)
                    d_logp[i] = -adv; // ∇ log π(a_i|s_i; θ′) (R − V(s_i; θ′_v)), downhill
                    d_entropy[i] = -beta; // β ∇ H(π(s_i; θ′))
                    d_v[i] = -2.0 * c_v * adv; // ∂(R − V(s_i; θ′_v))² / ∂θ′_v
                    sums.add(out.v[i], adv);
                    sums.add_policy(out.logp[i] * adv, out.entropy[i]);
                }
                passes.backward(model, s, &d_logp[..n], &d_entropy[..n], &d_v[..n], d_theta); // dθ, dθ_v
                w.update()?; // asynchronous update of θ using dθ and of θ_v using dθ_v
            }
            Ok(())
        })?;
        let mean = run.means();
        let report = Report::default()
            .with("learn/policy_loss", -mean.objective - c.entropy_coef * mean.entropy)
            .with("learn/value_loss", mean.squared_error)
            .with("learn/entropy", mean.entropy)
            .with("learn/value", mean.value);
        Ok(run.report(report))
    }

    async_algorithm!();

    fn learn_flops(&self) -> f64 {
        let model = &self.run.model;
        let sample = model.actor().net.forward_flops() + model.update_flops();
        sample as f64 * self.steps_per_iteration() as f64
    }
}

impl AlgoConfig for A3cConfig {
    fn parts(&self) -> Vec<&dyn Settings> {
        vec![&self.learners, &self.a3c, &self.model, &self.recurrent, &self.trunk]
    }
    fn parts_mut(&mut self) -> Vec<&mut dyn Settings> {
        let Self { learners, a3c, model, recurrent, trunk, recording: _ } = self;
        vec![learners, a3c, model, recurrent, trunk]
    }
    fn check(&self, _env: &EnvSpec) -> Result<(), BuildError> {
        self.learners.check(self.recording.as_deref())
    }
    fn build(&self, setup: &Setup<'_>) -> Result<Box<dyn Algorithm>, BuildError> {
        Ok(Box::new(A3c::new(self, setup)?))
    }
    async_config!();
}

impl A3c {
    /// A3C with its environments, not yet started.
    ///
    /// # Errors
    /// When settings do not fit together.
    pub fn new(config: &A3cConfig, setup: &Setup<'_>) -> Result<Self, BuildError> {
        config.check(setup.spec)?;
        let (memory, hidden) = (config.recurrent.layer(config.learners.n_steps), &config.model.hidden);
        let trunk = config.trunk.trunk.into();
        let model = config.model.build_on(memory, setup.spec, Critic::State, trunk, hidden, setup.seed)?;
        let recording = config.recording.as_deref();
        let run = ActorLearners::new(&config.learners, None, &config.parts(), recording, model, setup)?;
        Ok(Self { config: config.a3c.clone(), gamma: config.learners.gamma, run })
    }
}
