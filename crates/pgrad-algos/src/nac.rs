//! Natural actor-critic with advantage parameters. Bhatnagar, Sutton, Ghavamzadeh, Lee 2009, "Natural
//! actor-critic algorithms", Algorithm 3, discounted; the natural gradient of compatible features is that of
//! Kakade 2002 and Peters and Schaal 2008.
//!
//! With compatible features `ψ(s,a) = ∇_θ log π_θ(a|s)`, after every step,
//!
//! `δ = r + γ V_v(s′) − V_v(s)`, `v ← v + α δ ∇V_v(s)`,
//! `w ← w + α_a (δ − ψᵀ w) ψ`, `θ ← θ + β w`.
//!
//! `w` is a stochastic least-squares fit of the advantage: it goes to `E[ψψᵀ]⁻¹ E[δ ψ] = F⁻¹ ∇J`, so that `θ`
//! moves along the natural gradient, and `F` is never formed. (LSTD-Q(λ), the other way to `w`, needs a matrix
//! over all parameters.)

use crate::algorithm::{AlgoConfig, Algorithm, BuildError, Phase, PhaseObserver, Report, Setup};
use crate::common::ModelSettings;
use crate::online::{Means, Online, OnlineSettings, Updates, online_algorithm};
use pgrad_agent::bootstrap::after_step;
use pgrad_agent::{ActorCritic, AgentError, Critic, ObsNormalizer, Trunk};
use pgrad_env::{EnvSpec, Episode};
use pgrad_num::{Record, RecordError, Team, kernels};
use pgrad_settings::{Settings, above, settings};

/// The registry's line.
pub const ENTRY: crate::AlgoEntry = crate::AlgoEntry {
    name: "nac",
    title: "Natural actor-critic with compatible features, learning at every step",
    source: "Bhatnagar et al. 2009, Algorithm 3; Peters and Schaal 2008",
    config: || Box::new(NacConfig::default()),
};

settings! {
    /// Natural actor-critic.
    pub struct NacSettings {
        /// Step size of the policy (beta). It must be the smallest: `w` and the critic follow the policy.
        alpha_theta: f64 = 0.0001, range: above(0.0);
        /// Step size of the critic (alpha).
        alpha_w: f64 = 0.015625, range: above(0.0), source: "Sutton and Barto 2018, Figure 13.2";
        /// Step size of the advantage's parameters. It must be less than 2 over the squared length of the
        /// features, else the fit diverges.
        alpha_advantage: f64 = 0.01, range: above(0.0);
    }
}

/// All settings of the natural actor-critic.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NacConfig {
    /// The steps.
    pub online: OnlineSettings,
    /// The algorithm.
    pub nac: NacSettings,
    /// The networks.
    pub model: ModelSettings,
}

/// Natural actor-critic at work.
pub struct Nac {
    config: NacSettings,
    run: Online,
    /// Parameters of the advantage `ψᵀ w`: the natural gradient.
    w: Vec<f32>,
    /// What a step adds to them.
    d_advantage: Vec<f32>,
}

impl std::fmt::Debug for Nac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nac")
            .field("config", &self.config)
            .field("steps", &self.run.steps)
            .finish_non_exhaustive()
    }
}

impl Algorithm for Nac {
    fn iterate(&mut self, _team: &Team) -> Result<Report, AgentError> {
        let Self { config: c, run, w, d_advantage } = self;
        let (gamma, bootstrap) = (run.settings.gamma as f32, run.settings.bootstrap_time_limit);
        let mut means = Means::default();
        run.stepper.clear_episodes();
        for _ in 0..run.settings.n_steps {
            let (beta, alpha) = run.step_sizes(c.alpha_theta, c.alpha_w);
            let alpha_a = (c.alpha_advantage * run.factor()) as f32;
            run.step()?; // a ~ π_θ(s,·); observe r, s′
            let Updates { model, stepper, point, score, gradient, d_theta, d_w } = run.updates();
            d_advantage.fill(0.0);
            for b in 0..stepper.n_envs() {
                let t = stepper.transition(b);
                if t.is_lost() {
                    continue; // the step did not happen
                }
                let v_next = t.finite("value", point.values(model, t.next_obs)[0])?; // V(s′)
                let v = t.finite("value", point.value_gradient(model, t.obs, 0, gradient))?; // V(s), ∇V(s)
                let delta = t.reward + gamma * after_step(t.end, v_next, bootstrap) - v;
                let delta = t.finite("TD error", delta)?; // δ
                let logp = point.score(model, &t, score); // ψ
                kernels::axpy(alpha * delta, gradient, d_w); // v
                let error = delta - kernels::dot(score, w) as f32; // δ − ψᵀ w
                kernels::axpy(alpha_a * error, score, d_advantage); // w
                means.add(delta, v, logp);
            }
            for ((d, w), d_w) in d_theta.iter_mut().zip(w.iter()).zip(d_advantage.iter()) {
                *d = beta * (w + d_w); // θ, along the new w
            }
            run.learn()?;
            kernels::axpy(1.0, d_advantage, w);
        }
        (run.observer)(Phase::Done);
        let factor = run.factor();
        Ok(Report::default()
            .with("learn/td_error", means.td_error())
            .with("learn/td_error_rms", means.td_error_rms())
            .with("learn/value", means.value())
            .with("learn/entropy", means.entropy())
            .with("learn/natural_gradient_norm", kernels::sum_of_squares(w, 0.0).sqrt())
            .with("learn/alpha_theta", c.alpha_theta * factor)
            .with("learn/alpha_w", c.alpha_w * factor)
            .with("learn/alpha_advantage", c.alpha_advantage * factor))
    }

    online_algorithm!();

    fn learn_flops(&self) -> f64 {
        let model = &self.run.model;
        (model.value_flops() + model.update_flops()) as f64 * self.steps_per_iteration() as f64
    }
    fn save(&self) -> Record {
        let mut r = self.run.save();
        r.put("w", self.w.clone());
        r
    }
    fn load(&mut self, from: &Record) -> Result<bool, RecordError> {
        let w = from.f32s("w", self.w.len())?;
        if !kernels::all_finite(w) {
            return Err(RecordError::Value { name: "w".into(), reason: "a parameter is not finite".into() });
        }
        self.w.copy_from_slice(w);
        self.run.load(from)
    }
}

impl AlgoConfig for NacConfig {
    fn parts(&self) -> Vec<&dyn Settings> {
        vec![&self.online, &self.nac, &self.model]
    }
    fn parts_mut(&mut self) -> Vec<&mut dyn Settings> {
        vec![&mut self.online, &mut self.nac, &mut self.model]
    }
    fn boxed_clone(&self) -> Box<dyn AlgoConfig> {
        Box::new(self.clone())
    }
    fn check(&self, _env: &EnvSpec) -> Result<(), BuildError> {
        Ok(())
    }
    fn build(&self, setup: &Setup<'_>) -> Result<Box<dyn Algorithm>, BuildError> {
        Ok(Box::new(Nac::new(self, setup)?))
    }
}

impl Nac {
    /// The actor-critic with its environments, not yet started.
    ///
    /// # Errors
    /// When no network can be built for the environment.
    pub fn new(config: &NacConfig, setup: &Setup<'_>) -> Result<Self, BuildError> {
        config.check(setup.spec)?;
        let model = config.model.build(setup.spec, Critic::State, Trunk::Separate, setup.seed)?;
        let n = model.actor().params.len();
        Ok(Self {
            config: config.nac.clone(),
            w: vec![0.0; n],
            d_advantage: vec![0.0; n],
            run: Online::new(&config.online, model, setup)?,
        })
    }
}
