//! Asynchronous n-step Q-learning. Mnih, Badia, Mirza, Graves, Lillicrap, Harley, Silver, Kavukcuoglu 2016,
//! arXiv:1602.01783, Algorithm S2.
//!
//! Each actor-learner thread, until `T > T_max`: copy the shared parameters, act ε-greedily with an ε of its own for
//! `t_max` steps or to the end of the episode, and with `R` backwards from `max_a Q(s_t,a;θ⁻)` (0 after a terminal state)
//! add up
//!
//! `R ← r_i + γ R`, `dθ ← dθ + ∂(R − Q(s_i,a_i;θ′))² / ∂θ′`,
//!
//! then update the shared `θ` with `dθ`, asynchronously. The shared target network `θ⁻` becomes a copy of `θ` every
//! `I_target` steps of all threads.

use crate::algorithm::{AlgoConfig, Algorithm, BuildError, PhaseObserver, Report, Reproducible, Setup};
use crate::asynchronous::{
    ActorLearner, ActorLearners, AsyncSettings, AsyncValueSettings, QNetworkSettings, async_algorithm,
    largest,
};
use pgrad_agent::{ActorCritic, AgentError, ObsNormalizer};
use pgrad_env::{EnvSpec, Episode};
use pgrad_num::{Record, RecordError, Team};
use pgrad_settings::Settings;

/// The registry's line.
pub const ENTRY: crate::AlgoEntry = crate::AlgoEntry {
    name: "async-nstep-q",
    title: "Asynchronous n-step Q-learning",
    source: "Mnih et al. 2016, arXiv:1602.01783",
    config: || Box::new(AsyncNstepQConfig::default()),
};

/// All settings of asynchronous n-step Q-learning.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AsyncNstepQConfig {
    /// The actor-learners.
    pub learners: AsyncSettings,
    /// Exploration and target network.
    pub values: AsyncValueSettings,
    /// The network.
    pub network: QNetworkSettings,
    /// Bytes of the recording that is followed.
    pub recording: Option<Vec<u8>>,
}

/// Asynchronous n-step Q-learning at work. The network of the policy holds `Q`: its most probable action is the greedy one.
pub struct AsyncNstepQ {
    gamma: f64,
    run: ActorLearners,
}

impl std::fmt::Debug for AsyncNstepQ {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AsyncNstepQ").field("steps", &self.run.steps()).finish_non_exhaustive()
    }
}

impl Algorithm for AsyncNstepQ {
    fn iterate(&mut self, team: &Team) -> Result<Report, AgentError> {
        let Self { gamma, run } = self;
        let gamma = *gamma as f32;
        run.run(team, |w| {
            while w.synchronize()? {
                // dθ ← 0; θ′ ← θ; until T > T_max
                while w.is_acting() {
                    w.act_greedily()?; // a_t: ε-greedy in Q(s_t,·;θ′); r_t, s_{t+1}; until terminal s_t or t_max steps
                }
                let mut ret = w.after_last(|w| {
                    largest(w.passes.q_aside(&w.model, &w.target, w.segment.last_obs()), 0) // R = max_a Q(s_t,a;θ⁻)
                })?;
                let ActorLearner { model, segment: s, passes, d_theta, d_v: d_q, sums, .. } = w;
                let n = s.len();
                let q = passes.q(model, s); // Q(s_i,·;θ′)
                for i in (0..n).rev() {
                    ret = s.reward(i) + gamma * ret; // R ← r_i + γ R
                    let q = q.at(s.action(i), i);
                    let error = s.finite("TD error", i, ret - q)?;
                    d_q[i] = -2.0 * error; // ∂(R − Q(s_i,a_i;θ′))²
                    sums.add(q, error);
                }
                passes.q_backward(model, s, &d_q[..n], d_theta); // dθ
                w.update()?; // asynchronous update of θ using dθ; θ⁻ ← θ if T mod I_target = 0
            }
            Ok(())
        })?;
        let mean = run.means();
        let report = Report::default()
            .with("learn/td_error", mean.error)
            .with("learn/td_error_rms", mean.squared_error.sqrt())
            .with("learn/value", mean.value)
            .with("learn/epsilon", mean.epsilon);
        Ok(run.report(report))
    }

    async_algorithm!();

    fn learn_flops(&self) -> f64 {
        let net = &self.run.model.actor().net;
        (2 * net.forward_flops() + net.vjp_flops()) as f64 * self.steps_per_iteration() as f64
    }
}

impl AlgoConfig for AsyncNstepQConfig {
    fn parts(&self) -> Vec<&dyn Settings> {
        vec![&self.learners, &self.values, &self.network]
    }
    fn parts_mut(&mut self) -> Vec<&mut dyn Settings> {
        vec![&mut self.learners, &mut self.values, &mut self.network]
    }
    fn boxed_clone(&self) -> Box<dyn AlgoConfig> {
        Box::new(self.clone())
    }
    fn file(&self) -> Option<(&'static str, &str)> {
        self.learners.file()
    }
    fn take_file(&mut self, bytes: &[u8]) {
        self.recording = Some(bytes.to_vec());
    }
    fn threads(&self, _asked: usize) -> usize {
        self.learners.workers
    }
    fn check(&self, env: &EnvSpec) -> Result<(), BuildError> {
        self.values.check(env)?;
        self.learners.check(self.recording.as_deref())
    }
    fn build(&self, setup: &Setup<'_>) -> Result<Box<dyn Algorithm>, BuildError> {
        Ok(Box::new(AsyncNstepQ::new(self, setup)?))
    }
}

impl AsyncNstepQ {
    /// Asynchronous n-step Q-learning with its environments, not yet started.
    ///
    /// # Errors
    /// When settings do not fit together, or not to the environment.
    pub fn new(config: &AsyncNstepQConfig, setup: &Setup<'_>) -> Result<Self, BuildError> {
        let spec = (setup.make_env)(1).spec().clone();
        config.check(&spec)?;
        let model = config.network.build(&spec, setup.seed)?;
        let (values, recording) = (Some(&config.values), config.recording.as_deref());
        let run = ActorLearners::new(&config.learners, values, &config.parts(), recording, model, setup)?;
        Ok(Self { gamma: config.learners.gamma, run })
    }
}
