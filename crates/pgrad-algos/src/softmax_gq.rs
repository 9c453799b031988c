//! Softmax-GQ(λ): Greedy-GQ(λ) with the policy `π(a|s) ∝ exp(Q(s,a)/T)` in place of the greedy one. The third rival of
//! Off-PAC (Degris, White, Sutton 2012, section 4); GQ(λ) is from Maei and Sutton 2010, AGI.
//!
//! Actions come from a behaviour policy `b`; what is learnt are the values of `π`, by a stochastic gradient of the
//! projected Bellman error. After every step, with `ρ = π(a|s) / b(a|s)`, `φ = ∇_θ Q(s,a)` (for a linear function the
//! features of `s`, at `a`) and `φ̄ = Σ_a' π(a'|s') ∇_θ Q(s',a')`:
//!
//! ```text
//! δ = r + γ(s') Σ_a' π(a'|s') Q(s',a') − Q(s,a)
//! e ← φ + γ λ ρ e
//! θ ← θ + α_θ [δ e − γ(s') (1 − λ) (wᵀe) φ̄]
//! w ← w + α_w [δ e − (wᵀφ) φ]
//! ```

use crate::algorithm::{AlgoConfig, Algorithm, BuildError, Phase, PhaseObserver, Report, Setup};
use crate::off_policy::{
    self, Behaviour, BehaviourSettings, FeatureSettings, Means, Target, alternative, check_auxiliary,
    check_masks, norm, off_policy_config, with_temperature,
};
use crate::online::{Online, OnlineSettings, Updates, online_algorithm};
use pgrad_agent::bootstrap::after_step;
use pgrad_agent::{ActorCritic, AgentError, Critic, ObsNormalizer, Policy, Traces};
use pgrad_env::{EnvSpec, Episode};
use pgrad_num::{Record, RecordError, Team, kernels};
use pgrad_settings::{Settings, above, settings};

/// The registry's line.
pub const ENTRY: crate::AlgoEntry = crate::AlgoEntry {
    name: "softmax-gq",
    title: "Softmax-GQ(lambda)",
    source: "Degris, White, Sutton 2012, section 4; Maei and Sutton 2010",
    config: || Box::new(SoftmaxGqConfig::default()),
};

settings! {
    /// Softmax-GQ(λ).
    pub struct SoftmaxGqSettings {
        /// Step size of the values (alpha_theta).
        alpha_theta: f64 = 0.1, range: above(0.0), source: "RLPark, OffPolicyControlTests";
        /// Step size of the auxiliary weights (alpha_w); 0 leaves the gradient's correction out.
        alpha_w: f64 = 0.0005, range: 0.0..=1e6, source: "RLPark, OffPolicyControlTests";
        /// How long the trace lasts: 0 is the one-step method.
        lambda: f64 = 0.4, range: 0.0..=1.0, source: "RLPark, OffPolicyControlTests";
        /// Temperature of the policy (T), in units of the return: a lower one is closer to the greedy policy.
        temperature: f64 = 0.1, range: above(0.0), source: "RLPark, OffPolicyControlTests";
    }
}

impl SoftmaxGqSettings {
    fn target(&self) -> Target {
        Target::Softmax { temperature: self.temperature as f32 }
    }
}

off_policy_config! {
    /// All settings of Softmax-GQ(λ).
    SoftmaxGqConfig { softmax_gq: SoftmaxGqSettings } of SoftmaxGq, check: check_masks
}

/// Softmax-GQ(λ) at work. The network of the policy holds `Q`; the policy that is handed out has `Q/T`.
pub struct SoftmaxGq {
    config: SoftmaxGqSettings,
    normalize: bool,
    run: Online,
    behaviour: Behaviour,
    /// Auxiliary weights.
    w: Vec<f32>,
    e: Traces,
    /// Room for `π(·|s)`, `π(·|s')` and a cotangent of `Q`.
    pi: Vec<f32>,
    pi_next: Vec<f32>,
    d_q: Vec<f32>,
    /// Room for `φ̄`.
    phi_bar: Vec<f32>,
}

impl std::fmt::Debug for SoftmaxGq {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SoftmaxGq")
            .field("config", &self.config)
            .field("steps", &self.run.steps)
            .finish_non_exhaustive()
    }
}

impl Algorithm for SoftmaxGq {
    fn iterate(&mut self, _team: &Team) -> Result<Report, AgentError> {
        let Self { config: c, normalize, run, behaviour, w, e, pi, pi_next, d_q, phi_bar } = self;
        let (gamma, bootstrap) = (run.settings.gamma as f32, run.settings.bootstrap_time_limit);
        let (lambda, target) = (c.lambda as f32, c.target());
        let mut means = Means::default();
        run.stepper.clear_episodes();
        for _ in 0..run.settings.n_steps {
            let (alpha_theta, alpha_w) = run.step_sizes(c.alpha_theta, c.alpha_w);
            run.step_off_policy(behaviour)?; // a ~ b(·|s); take a, observe r, s'
            let Updates { model, stepper, point, score: phi, d_theta, .. } = run.updates();
            for b in 0..stepper.n_envs() {
                let t = stepper.transition(b);
                if t.is_lost() {
                    e.reset(b);
                    continue; // the step did not happen
                }
                let a = alternative(t.action);
                let q_next = point.outputs(model, t.next_obs);
                target.probabilities(q_next, pi_next); // π(·|s')
                let q_next = t.finite("value", kernels::dot(q_next, pi_next) as f32)?; // Σ_a' π(a'|s') Q(s',a')
                let q = point.outputs(model, t.obs);
                target.probabilities(q, pi); // π(·|s)
                let q = t.finite("value", q[a])?; // Q(s,a)
                let rho = t.finite("importance weight", pi[a] / t.logp.exp())?; // ρ = π(a|s) / b(a|s)
                let gamma_next = after_step(t.end, gamma, bootstrap); // γ(s')
                let delta = t.finite("TD error", t.reward + gamma_next * q_next - q)?; // δ
                point.output_gradient(model, t.next_obs, pi_next, phi_bar); // φ̄
                d_q.fill(0.0);
                d_q[a] = 1.0;
                point.output_gradient(model, t.obs, d_q, phi); // φ
                let scale = 1.0 / norm(*normalize, phi);

                let e = e.accumulate(b, gamma * lambda * rho, 1.0, phi); // e
                let correction = gamma_next * (1.0 - lambda) * kernels::dot(w, e) as f32;
                let w_phi = kernels::dot(w, phi) as f32;
                kernels::axpy(alpha_theta * scale * delta, e, d_theta); // θ
                kernels::axpy(-alpha_theta * scale * correction, phi_bar, d_theta);
                kernels::axpy(alpha_w * scale * delta, e, w); // w
                kernels::axpy(-alpha_w * scale * w_phi, phi, w);
                if !t.continues() {
                    e.fill(0.0); // the next episode begins
                }
                means.add(delta, q, rho);
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
        let actor = &self.run.model.actor().net;
        (4 * actor.forward_flops() + 2 * actor.vjp_flops()) as f64 * self.steps_per_iteration() as f64
    }
    fn policy(&self, batch: usize) -> Policy {
        let model = with_temperature(&self.run.model, self.config.temperature as f32); // Q/T
        Policy::new(&self.spec().id, model, None, batch)
    }
    fn save(&self) -> Record {
        off_policy::save(&self.run, &self.behaviour, &[("e", &self.e)], &self.w)
    }
    fn load(&mut self, from: &Record) -> Result<bool, RecordError> {
        let traces = &mut [("e", &mut self.e)];
        off_policy::load(from, &mut self.run, &self.behaviour, traces, &mut self.w)
    }
}

impl SoftmaxGq {
    /// Softmax-GQ(λ) with its environments, not yet started.
    ///
    /// # Errors
    /// When the settings do not fit the environment, or the behaviour policy's file does not.
    pub fn new(config: &SoftmaxGqConfig, setup: &Setup<'_>) -> Result<Self, BuildError> {
        config.check(setup.spec)?;
        let model = config.features.build(setup.spec, Critic::None, setup.seed)?;
        let n_envs = config.online.n_envs;
        let file = config.behaviour_file.as_deref();
        let target = config.softmax_gq.target();
        let (parameters, actions) = (model.actor().params.len(), model.dist().n_outputs());
        Ok(Self {
            config: config.softmax_gq.clone(),
            normalize: config.behaviour.normalize_step,
            behaviour: Behaviour::new(&config.behaviour, file, setup.spec, target, &model, n_envs)?,
            w: vec![0.0; parameters],
            e: Traces::new(n_envs, parameters),
            pi: vec![0.0; actions],
            pi_next: vec![0.0; actions],
            d_q: vec![0.0; actions],
            phi_bar: vec![0.0; parameters],
            run: Online::new(&config.online, model, setup)?,
        })
    }
}
