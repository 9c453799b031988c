//! Q actor-critic. Sutton, McAllester, Singh, Mansour 2000, "Policy gradient methods for reinforcement learning
//! with function approximation" (Theorem 1: `Ψ = Q`); as an algorithm, Silver 2015, lecture 7 ("QAC").
//!
//! After every step, with the action `a′ ~ π_θ(s′,·)` that will be taken next (Sarsa),
//!
//! `δ = r + γ Q_w(s′,a′) − Q_w(s,a)`,
//! `θ ← θ + α ∇_θ log π_θ(s,a) Q_w(s,a)`, `w ← w + β δ ∇_w Q_w(s,a)`.

use crate::algorithm::{AlgoConfig, Algorithm, BuildError, Phase, PhaseObserver, Report, Setup};
use crate::common::ModelSettings;
use crate::online::{Means, Online, OnlineSettings, Updates, online_algorithm};
use pgrad_agent::bootstrap::after_step;
use pgrad_agent::{ActorCritic, AgentError, Critic, ObsNormalizer, Trunk};
use pgrad_env::{EnvSpec, Episode, Space};
use pgrad_num::{Record, RecordError, Team, kernels};
use pgrad_rl::dist::Actions;
use pgrad_settings::{Settings, above, settings};

/// The registry's line.
pub const ENTRY: crate::AlgoEntry = crate::AlgoEntry {
    name: "qac",
    title: "Q actor-critic: the critic learns by Sarsa",
    source: "Sutton et al. 2000; Silver 2015, lecture 7",
    config: || Box::new(QacConfig::default()),
};

settings! {
    /// Q actor-critic.
    pub struct QacSettings {
        /// Step size of the policy (alpha).
        alpha_theta: f64 = 0.001953125, range: above(0.0), source: "Sutton and Barto 2018, Figure 13.2";
        /// Step size of the critic (beta).
        alpha_w: f64 = 0.015625, range: above(0.0), source: "Sutton and Barto 2018, Figure 13.2";
    }
}

/// All settings of Q actor-critic.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QacConfig {
    /// The steps.
    pub online: OnlineSettings,
    /// The algorithm.
    pub qac: QacSettings,
    /// The networks.
    pub model: ModelSettings,
}

/// Q actor-critic at work.
pub struct Qac {
    config: QacSettings,
    run: Online,
}

impl std::fmt::Debug for Qac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Qac")
            .field("config", &self.config)
            .field("steps", &self.run.steps)
            .finish_non_exhaustive()
    }
}

impl Algorithm for Qac {
    fn iterate(&mut self, _team: &Team) -> Result<Report, AgentError> {
        let Self { config: c, run } = self;
        let (gamma, bootstrap) = (run.settings.gamma as f32, run.settings.bootstrap_time_limit);
        let mut means = Means::default();
        run.stepper.clear_episodes();
        for _ in 0..run.settings.n_steps {
            let (alpha_theta, alpha_w) = run.step_sizes(c.alpha_theta, c.alpha_w);
            run.step_and_draw()?; // sample reward r, transition s′; then a′ ~ π_θ(s′,·)
            let Updates { model, stepper, point, score, gradient, d_theta, d_w } = run.updates();
            for b in 0..stepper.n_envs() {
                let t = stepper.transition(b);
                if t.is_lost() {
                    continue; // the step did not happen
                }
                let q_next = if t.continues() {
                    point.values(model, t.next_obs)[alternative(stepper.drawn(b))] // Q_w(s′,a′)
                } else {
                    point.expected_value(model, t.next_obs, t.next_mask) // no action follows: its mean
                };
                let q_next = after_step(t.end, q_next, bootstrap);
                let q_next = t.finite("value", q_next)?;
                let q = point.value_gradient(model, t.obs, alternative(t.action), gradient);
                let q = t.finite("value", q)?; // Q_w(s,a), ∇_w Q_w(s,a)
                let delta = t.finite("TD error", t.reward + gamma * q_next - q)?; // δ
                let logp = point.score(model, &t, score); // ∇_θ log π_θ(s,a)
                kernels::axpy(alpha_theta * q, score, d_theta); // θ
                kernels::axpy(alpha_w * delta, gradient, d_w); // w
                means.add(delta, q, logp);
            }
            run.learn()?;
        }
        (run.observer)(Phase::Done);
        let factor = run.factor();
        Ok(Report::default()
            .with("learn/td_error", means.td_error())
            .with("learn/td_error_rms", means.td_error_rms())
            .with("learn/value", means.value())
            .with("learn/entropy", means.entropy())
            .with("learn/alpha_theta", c.alpha_theta * factor)
            .with("learn/alpha_w", c.alpha_w * factor))
    }

    online_algorithm!();

    fn learn_flops(&self) -> f64 {
        let model = &self.run.model;
        (model.value_flops() + model.update_flops()) as f64 * self.steps_per_iteration() as f64
    }
    fn save(&self) -> Record {
        self.run.save()
    }
    fn load(&mut self, from: &Record) -> Result<bool, RecordError> {
        self.run.load(from)
    }
}

impl AlgoConfig for QacConfig {
    fn parts(&self) -> Vec<&dyn Settings> {
        vec![&self.online, &self.qac, &self.model]
    }
    fn parts_mut(&mut self) -> Vec<&mut dyn Settings> {
        vec![&mut self.online, &mut self.qac, &mut self.model]
    }
    fn boxed_clone(&self) -> Box<dyn AlgoConfig> {
        Box::new(self.clone())
    }
    fn check(&self, env: &EnvSpec) -> Result<(), BuildError> {
        if matches!(env.action, Space::Discrete { .. }) {
            return Ok(());
        }
        Err(BuildError::Environment {
            env: env.id.clone(),
            reason: format!(
                "its actions are {}, and the critic of qac has one output Q(s, a) for each action of a Discrete \
                 space; take td-ac or nac, whose critics tell the value of states",
                env.action
            ),
        })
    }
    fn build(&self, setup: &Setup<'_>) -> Result<Box<dyn Algorithm>, BuildError> {
        Ok(Box::new(Qac::new(self, setup)?))
    }
}

impl Qac {
    /// The actor-critic with its environments, not yet started.
    ///
    /// # Errors
    /// When the actions are not of a discrete space, or no network can be built for the environment.
    pub fn new(config: &QacConfig, setup: &Setup<'_>) -> Result<Self, BuildError> {
        config.check(setup.spec)?;
        let model = config.model.build(setup.spec, Critic::Action, Trunk::Separate, setup.seed)?;
        Ok(Self { config: config.qac.clone(), run: Online::new(&config.online, model, setup)? })
    }
}

/// The index of an action of a discrete space.
fn alternative(action: Actions<'_, f32>) -> usize {
    match action {
        Actions::Index(a) => a.at(0, 0) as usize,
        Actions::Real(_) => unreachable!("only discrete spaces are let in"),
    }
}
