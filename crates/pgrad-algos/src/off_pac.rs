//! Off-Policy Actor-Critic. Degris, White, Sutton 2012, "Off-Policy Actor-Critic", ICML, arXiv:1205.4839.
//!
//! Actions come from a behaviour policy `b`; what is learnt is another policy `π_u`, by the gradient
//! `E_b[ ρ ψ Q^π ]` with `ρ = π_u(a|s) / b(a|s)` and `ψ = ∇_u ln π_u(a|s)` (section 2.2). Algorithm 1, after every
//! step, with `φ = ∇_v v̂(s)` (for a linear critic the features of `s`):
//!
//! ```text
//! δ   = r + γ(s') v̂(s') − v̂(s)
//! e_v ← ρ (φ + γ λ e_v)
//! v   ← v + α_v [δ e_v − γ(s') (1 − λ) (wᵀe_v) φ']      the critic, GTD(λ)
//! w   ← w + α_w [δ e_v − (wᵀφ) φ]
//! e_u ← ρ (ψ + γ λ e_u)
//! u   ← u + α_u δ e_u                                    the actor
//! ```

use crate::algorithm::{AlgoConfig, Algorithm, BuildError, Phase, PhaseObserver, Report, Setup};
use crate::off_policy::{
    self, Behaviour, BehaviourSettings, FeatureSettings, Means, Target, check_auxiliary, norm,
    off_policy_config,
};
use crate::online::{Online, OnlineSettings, Updates, online_algorithm};
use pgrad_agent::bootstrap::after_step;
use pgrad_agent::{ActorCritic, AgentError, Critic, ObsNormalizer, Traces};
use pgrad_env::{EnvSpec, Episode};
use pgrad_num::{Record, RecordError, Team, kernels};
use pgrad_settings::{Settings, above, settings};

/// The registry's line.
pub const ENTRY: crate::AlgoEntry = crate::AlgoEntry {
    name: "off-pac",
    title: "Off-Policy Actor-Critic, with a GTD(lambda) critic",
    source: "Degris, White, Sutton 2012, arXiv:1205.4839",
    config: || Box::new(OffPacConfig::default()),
};

settings! {
    /// Off-policy actor-critic.
    pub struct OffPacSettings {
        /// Step size of the critic (alpha_v).
        alpha_v: f64 = 0.05, range: above(0.0), source: "RLPark, OffPolicyControlTests";
        /// Step size of the critic's auxiliary weights (alpha_w); 0 is TD(lambda) with importance weights.
        alpha_w: f64 = 0.0001, range: 0.0..=1e6, source: "RLPark, OffPolicyControlTests";
        /// Step size of the policy (alpha_u).
        alpha_u: f64 = 1.0, range: above(0.0), source: "RLPark, OffPolicyControlTests";
        /// How long the traces of policy and critic last: 0 is the one-step method.
        lambda: f64 = 0.0, range: 0.0..=1.0, source: "RLPark, OffPolicyControlTests";
    }
}

off_policy_config! {
    /// All settings of Off-PAC.
    OffPacConfig { off_pac: OffPacSettings } of OffPac, check: |_| Ok(())
}

/// Off-PAC at work.
pub struct OffPac {
    config: OffPacSettings,
    normalize: bool,
    run: Online,
    behaviour: Behaviour,
    /// Auxiliary weights of the critic.
    w: Vec<f32>,
    e_v: Traces,
    e_u: Traces,
    /// Room for `φ'`.
    phi_next: Vec<f32>,
}

impl std::fmt::Debug for OffPac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OffPac")
            .field("config", &self.config)
            .field("steps", &self.run.steps)
            .finish_non_exhaustive()
    }
}

impl Algorithm for OffPac {
    fn iterate(&mut self, _team: &Team) -> Result<Report, AgentError> {
        let Self { config: c, normalize, run, behaviour, w, e_v, e_u, phi_next } = self;
        let (gamma, bootstrap) = (run.settings.gamma as f32, run.settings.bootstrap_time_limit);
        let lambda = c.lambda as f32;
        let mut means = Means::default();
        run.stepper.clear_episodes();
        for _ in 0..run.settings.n_steps {
            let factor = run.factor();
            let [alpha_v, alpha_w, alpha_u] = [c.alpha_v, c.alpha_w, c.alpha_u].map(|a| (a * factor) as f32);
            run.step_off_policy(behaviour)?; // a ~ b(·|s); take a, observe r, s'
            let Updates { model, stepper, point, score: psi, gradient: phi, d_theta: d_u, d_w: d_v } =
                run.updates();
            for b in 0..stepper.n_envs() {
                let t = stepper.transition(b);
                if t.is_lost() {
                    e_v.reset(b);
                    e_u.reset(b);
                    continue; // the step did not happen
                }
                let logp = point.score(model, &t, psi); // ln π_u(a|s), ψ
                let rho = t.finite("importance weight", (logp - t.logp).exp())?; // ρ = π_u(a|s) / b(a|s)
                let v_next = t.finite("value", point.value_gradient(model, t.next_obs, 0, phi_next))?; // v̂(s'), φ'
                let v = t.finite("value", point.value_gradient(model, t.obs, 0, phi))?; // v̂(s), φ
                let gamma_next = after_step(t.end, gamma, bootstrap); // γ(s')
                let delta = t.finite("TD error", t.reward + gamma_next * v_next - v)?; // δ
                let scale = 1.0 / norm(*normalize, phi);

                let e_v = e_v.accumulate(b, rho * gamma * lambda, rho, phi); // e_v
                let correction = gamma_next * (1.0 - lambda) * kernels::dot(w, e_v) as f32;
                let w_phi = kernels::dot(w, phi) as f32;
                kernels::axpy(alpha_v * scale * delta, e_v, d_v); // v
                kernels::axpy(-alpha_v * scale * correction, phi_next, d_v);
                kernels::axpy(alpha_w * scale * delta, e_v, w); // w
                kernels::axpy(-alpha_w * scale * w_phi, phi, w);

                let e_u = e_u.accumulate(b, rho * gamma * lambda, rho, psi); // e_u
                kernels::axpy(alpha_u * scale * delta, e_u, d_u); // u
                if !t.continues() {
                    e_v.fill(0.0); // the next episode begins
                    e_u.fill(0.0);
                }
                means.add(delta, v, rho);
            }
            check_auxiliary(w, run.steps)?;
            run.learn()?;
        }
        (run.observer)(Phase::Done);
        Ok(Report::default()
            .with("learn/td_error", means.td_error())
            .with("learn/td_error_rms", means.td_error_rms())
            .with("learn/value", means.value())
            .with("learn/rho", means.rho())
            .with("learn/rho_max", means.rho_max()))
    }

    online_algorithm!();

    fn learn_flops(&self) -> f64 {
        let model = &self.run.model;
        (model.value_flops() + model.update_flops()) as f64 * self.steps_per_iteration() as f64
    }
    fn save(&self) -> Record {
        off_policy::save(&self.run, &self.behaviour, &[("e_v", &self.e_v), ("e_u", &self.e_u)], &self.w)
    }
    fn load(&mut self, from: &Record) -> Result<bool, RecordError> {
        let traces = &mut [("e_v", &mut self.e_v), ("e_u", &mut self.e_u)];
        off_policy::load(from, &mut self.run, &self.behaviour, traces, &mut self.w)
    }
}

impl OffPac {
    /// Off-PAC with its environments, not yet started.
    ///
    /// # Errors
    /// When the settings do not fit the environment, or the behaviour policy's file does not.
    pub fn new(config: &OffPacConfig, setup: &Setup<'_>) -> Result<Self, BuildError> {
        config.check(setup.spec)?;
        let model = config.features.build(setup.spec, Critic::State, setup.seed)?;
        let n_envs = config.online.n_envs;
        let file = config.behaviour_file.as_deref();
        let target = Target::Softmax { temperature: 1.0 };
        let features = model.critic().params.len();
        Ok(Self {
            config: config.off_pac.clone(),
            normalize: config.behaviour.normalize_step,
            behaviour: Behaviour::new(&config.behaviour, file, setup.spec, target, &model, n_envs)?,
            w: vec![0.0; features],
            e_v: Traces::new(n_envs, features),
            e_u: Traces::new(n_envs, model.actor().params.len()),
            phi_next: vec![0.0; features],
            run: Online::new(&config.online, model, setup)?,
        })
    }
}
