//! TD actor-critic and TD(λ) actor-critic. Sutton and Barto, "Reinforcement Learning", 2nd edition, 2018,
//! section 13.5.
//!
//! After every step, with the TD error `δ = R + γ v̂(S′,w) − v̂(S,w)` and eligibility traces,
//!
//! `z^w ← γ λ^w z^w + ∇v̂(S,w)`, `z^θ ← γ λ^θ z^θ + I ∇ln π(A|S,θ)`,
//! `w ← w + α^w δ z^w`, `θ ← θ + α^θ δ z^θ`, `I ← γ I`.
//!
//! With `λ^θ = λ^w = 0` a trace is the last gradient: one-step actor-critic, `Ψ = δ`.

use crate::algorithm::{AlgoConfig, Algorithm, BuildError, Phase, PhaseObserver, Report, Setup};
use crate::common::ModelSettings;
use crate::online::{Means, Online, OnlineSettings, Updates, online_algorithm};
use pgrad_agent::bootstrap::after_step;
use pgrad_agent::{ActorCritic, AgentError, Critic, ObsNormalizer, Traces, Trunk};
use pgrad_env::{EnvSpec, Episode};
use pgrad_num::{Record, RecordError, Team, kernels};
use pgrad_settings::{Settings, above, settings};

/// The registry's line.
pub const ENTRY: crate::AlgoEntry = crate::AlgoEntry {
    name: "td-ac",
    title: "TD and TD(lambda) actor-critic, learning at every step",
    source: "Sutton and Barto 2018, section 13.5",
    config: || Box::new(TdAcConfig::default()),
};

settings! {
    /// TD(λ) actor-critic.
    pub struct TdAcSettings {
        /// Step size of the policy (alpha^theta).
        alpha_theta: f64 = 0.001953125, range: above(0.0), source: "Sutton and Barto 2018, Figure 13.2";
        /// Step size of the critic (alpha^w).
        alpha_w: f64 = 0.015625, range: above(0.0), source: "Sutton and Barto 2018, Figure 13.2";
        /// How long the policy's trace lasts (lambda^theta): 0 is the one-step method, 1 credits an action with
        /// everything that follows it.
        lambda_policy: f64 = 0.0, range: 0.0..=1.0, source: "Sutton and Barto 2018, section 13.5";
        /// How long the critic's trace lasts (lambda^w): 0 is TD(0), 1 learns from whole returns.
        lambda_value: f64 = 0.0, range: 0.0..=1.0, source: "Sutton and Barto 2018, section 13.5";
        /// Weigh the policy's gradient of step t of an episode by gamma^t (I), as the gradient of the first
        /// state's value demands. Off: every step counts the same, as most programs have it.
        discount_policy: bool = true, source: "Sutton and Barto 2018, section 13.5";
    }
}

/// All settings of the TD(λ) actor-critic.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TdAcConfig {
    /// The steps.
    pub online: OnlineSettings,
    /// The algorithm.
    pub td_ac: TdAcSettings,
    /// The networks.
    pub model: ModelSettings,
}

/// TD(λ) actor-critic at work.
pub struct TdAc {
    config: TdAcSettings,
    run: Online,
    z_theta: Traces,
    z_w: Traces,
    /// `I` of each environment.
    discount: Vec<f32>,
}

impl std::fmt::Debug for TdAc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TdAc")
            .field("config", &self.config)
            .field("steps", &self.run.steps)
            .finish_non_exhaustive()
    }
}

impl Algorithm for TdAc {
    fn iterate(&mut self, _team: &Team) -> Result<Report, AgentError> {
        let Self { config: c, run, z_theta, z_w, discount } = self;
        let (gamma, bootstrap) = (run.settings.gamma as f32, run.settings.bootstrap_time_limit);
        let (decay_theta, decay_w) = (gamma * c.lambda_policy as f32, gamma * c.lambda_value as f32);
        let mut means = Means::default();
        run.stepper.clear_episodes();
        for _ in 0..run.settings.n_steps {
            let (alpha_theta, alpha_w) = run.step_sizes(c.alpha_theta, c.alpha_w);
            run.step()?; // A ~ π(·|S,θ); take A, observe S′, R
            let Updates { model, stepper, point, score, gradient, d_theta, d_w } = run.updates();
            for b in 0..stepper.n_envs() {
                let t = stepper.transition(b);
                if t.is_lost() {
                    z_w.reset(b);
                    z_theta.reset(b);
                    discount[b] = 1.0;
                    continue; // the step did not happen
                }
                let v_next = t.finite("value", point.values(model, t.next_obs)[0])?; // v̂(S′,w)
                let v = t.finite("value", point.value_gradient(model, t.obs, 0, gradient))?; // v̂(S,w), ∇v̂(S,w)
                let delta = t.reward + gamma * after_step(t.end, v_next, bootstrap) - v;
                let delta = t.finite("TD error", delta)?; // δ
                let logp = point.score(model, &t, score); // ∇ln π(A|S,θ)
                let i = if c.discount_policy { discount[b] } else { 1.0 };
                let z_w = z_w.accumulate(b, decay_w, 1.0, gradient); // z^w
                let z_theta = z_theta.accumulate(b, decay_theta, i, score); // z^θ
                kernels::axpy(alpha_w * delta, z_w, d_w); // w
                kernels::axpy(alpha_theta * delta, z_theta, d_theta); // θ
                discount[b] *= gamma; // I
                if !t.continues() {
                    z_w.fill(0.0); // the next episode begins
                    z_theta.fill(0.0);
                    discount[b] = 1.0;
                }
                means.add(delta, v, logp);
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
        let mut r = self.run.save();
        self.z_theta.save("z_theta", &mut r);
        self.z_w.save("z_w", &mut r);
        r.put("discount", self.discount.clone());
        r
    }
    fn load(&mut self, from: &Record) -> Result<bool, RecordError> {
        self.z_theta.load("z_theta", from)?;
        self.z_w.load("z_w", from)?;
        let n = self.discount.len();
        self.discount.copy_from_slice(from.f32s("discount", n)?);
        let exact = self.run.load(from)?;
        if !exact {
            // New episodes begin: nothing of the old ones may be credited to them.
            self.z_theta.clear();
            self.z_w.clear();
            self.discount.fill(1.0);
        }
        Ok(exact)
    }
}

impl AlgoConfig for TdAcConfig {
    fn parts(&self) -> Vec<&dyn Settings> {
        vec![&self.online, &self.td_ac, &self.model]
    }
    fn parts_mut(&mut self) -> Vec<&mut dyn Settings> {
        vec![&mut self.online, &mut self.td_ac, &mut self.model]
    }
    fn boxed_clone(&self) -> Box<dyn AlgoConfig> {
        Box::new(self.clone())
    }
    fn check(&self, _env: &EnvSpec) -> Result<(), BuildError> {
        Ok(())
    }
    fn build(&self, setup: &Setup<'_>) -> Result<Box<dyn Algorithm>, BuildError> {
        Ok(Box::new(TdAc::new(self, setup)?))
    }
}

impl TdAc {
    /// The actor-critic with its environments, not yet started.
    ///
    /// # Errors
    /// When no network can be built for the environment.
    pub fn new(config: &TdAcConfig, setup: &Setup<'_>) -> Result<Self, BuildError> {
        config.check(setup.spec)?;
        let model = config.model.build(setup.spec, Critic::State, Trunk::Separate, setup.seed)?;
        let n_envs = config.online.n_envs;
        Ok(Self {
            config: config.td_ac.clone(),
            z_theta: Traces::new(n_envs, model.actor().params.len()),
            z_w: Traces::new(n_envs, model.critic().params.len()),
            discount: vec![1.0; n_envs],
            run: Online::new(&config.online, model, setup)?,
        })
    }
}
