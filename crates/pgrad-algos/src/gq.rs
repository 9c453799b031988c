//! Greedy-GQ(λ) and Softmax-GQ(λ). Maei, Szepesvári, Bhatnagar, Sutton 2010, "Toward Off-Policy Learning
//! Control with Function Approximation", ICML; the traces are those of GQ(λ), Maei and Sutton 2010, AGI. The
//! second and the third rival of Off-PAC (Degris, White, Sutton 2012, section 4).
//!
//! Actions come from a behaviour policy `b`; what is learnt are the values of another policy `π`, by a
//! stochastic gradient of the projected Bellman error. After every step, with `ρ = π(a|s) / b(a|s)`,
//! `φ = ∇_θ Q(s,a)` (for a linear function the features of `s`, at `a`) and
//! `φ̄ = Σ_a' π(a'|s') ∇_θ Q(s',a')`:
//!
//! ```text
//! δ = r + γ(s') Σ_a' π(a'|s') Q(s',a') − Q(s,a)
//! e ← φ + γ λ ρ e
//! θ ← θ + α_θ [δ e − γ(s') (1 − λ) (wᵀe) φ̄]
//! w ← w + α_w [δ e − (wᵀφ) φ]
//! ```
//!
//! The two differ in `π`: Greedy-GQ has the policy that is greedy in `Q`, Softmax-GQ
//! `π(a|s) ∝ exp(Q(s,a)/T)`.

use crate::off_policy::{
    Behaviour, BehaviourSettings, FeatureSettings, Target, alternative, check_auxiliary, off_policy,
    with_temperature,
};
use crate::online::{Means, Online, OnlineSettings, Updates, online, online_needs};
use crate::prelude::*;

/// Greedy-GQ(λ) or Softmax-GQ(λ) at work. The network of the policy holds `Q`.
struct Gq {
    /// `π`: what the two differ in.
    target: Target,
    config: SoftmaxGqSettings,
    behaviour: Behaviour,
    /// Auxiliary weights.
    w: Vec<f32>,
    e: Traces,
    /// Room for `π(·|s)`, `π(·|s')` and a cotangent of `Q`.
    room: [Vec<f32>; 3],
    /// Room for `φ̄`.
    phi_bar: Vec<f32>,
}

impl Method for Gq {
    type Source = Online;

    fn iterate(&mut self, agent: &mut Agent<Online>) -> Result<Report, AgentError> {
        let Self { target, config: c, behaviour, w, e, room: [pi, pi_next, d_q], phi_bar } = self;
        let (gamma, bootstrap) = agent.source.discount();
        let lambda = c.lambda as f32;
        let mut means = Means::default();
        for _ in 0..agent.begin() {
            let [alpha_theta, alpha_w] = agent.step_sizes([c.alpha_theta, c.alpha_w]);
            agent.step_off_policy(behaviour)?; // a ~ b(·|s); take a, observe r, s'
            let Updates { model, stepper, point, score: phi, d_theta, .. } = agent.updates();
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
                let scale = 1.0 / behaviour.norm(phi);

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
            check_auxiliary(w, agent.steps())?;
            agent.learn()?;
        }
        Ok(means.report("learn/rho").with("learn/rho_max", means.largest()))
    }
    fn policy(&self, model: &ActorCritic) -> ActorCritic {
        match self.target {
            Target::Greedy => model.clone(), // the most probable action is the greedy one
            Target::Softmax { temperature } => with_temperature(model, temperature), // Q/T
        }
    }

    state! { behaviour, w, e }
}

settings! {
    /// Softmax-GQ(λ).
    pub struct SoftmaxGqSettings {
        /// Step size of the values (alpha_theta).
        alpha_theta: f64 = 0.1, range: above(0.0), source: "RLPark, OffPolicyControlTests";
        /// Step size of the auxiliary weights (alpha_w); 0 drops the gradient correction.
        alpha_w: f64 = 0.0005, range: 0.0..=1e6, source: "RLPark, OffPolicyControlTests";
        /// Decay of the trace (lambda): 0 is the one-step method.
        lambda: f64 = 0.4, range: 0.0..=1.0, source: "RLPark, OffPolicyControlTests";
        /// Temperature of the policy (T), in units of the return. A lower value is closer to the greedy
        /// policy.
        temperature: f64 = 0.1, range: above(0.0), source: "RLPark, OffPolicyControlTests";
    }
}

settings_like! {
    /// Greedy-GQ(λ).
    pub struct GreedyGqSettings(SoftmaxGqSettings) without temperature {
        alpha_w = 0.0001, source: "RLPark, OffPolicyControlTests";
    }
}

config! {
    name: "greedy-gq", title: "Greedy-GQ(lambda)", source: "Maei, Szepesvari, Bhatnagar, Sutton 2010";
    /// All settings of Greedy-GQ(λ).
    pub struct GreedyGqConfig {
        online: OnlineSettings,
        greedy_gq: GreedyGqSettings,
        behaviour: BehaviourSettings,
        features: FeatureSettings,
    }
    with behaviour_file of behaviour
}

config! {
    name: "softmax-gq", title: "Softmax-GQ(lambda)",
    source: "Degris, White, Sutton 2012, section 4; Maei and Sutton 2010";
    /// All settings of Softmax-GQ(λ).
    pub struct SoftmaxGqConfig {
        online: OnlineSettings,
        softmax_gq: SoftmaxGqSettings,
        behaviour: BehaviourSettings,
        features: FeatureSettings,
    }
    with behaviour_file of behaviour
}

impl AlgoConfig for GreedyGqConfig {
    fn check(&self, env: &EnvSpec) -> Result<(), BuildError> {
        self.behaviour.check_values(self.behaviour_file.as_deref(), env)
    }
    fn needs(&self, env: &EnvSpec, threads: usize) -> Result<Needs, BuildError> {
        let model = self.features.build(env, Critic::None, None)?;
        Ok(online_needs(&self.online, &model, (env, threads), 2, true))
    }
    fn assemble(&self, setup: &Setup<'_>) -> Result<Box<dyn Algorithm>, BuildError> {
        let behaviour = (&self.behaviour, self.behaviour_file.as_deref());
        assemble(setup, &self.online, (&self.greedy_gq, Target::Greedy), behaviour, &self.features)
    }
}

impl AlgoConfig for SoftmaxGqConfig {
    fn check(&self, env: &EnvSpec) -> Result<(), BuildError> {
        self.behaviour.check_values(self.behaviour_file.as_deref(), env)
    }
    fn needs(&self, env: &EnvSpec, threads: usize) -> Result<Needs, BuildError> {
        let model = self.features.build(env, Critic::None, None)?;
        Ok(online_needs(&self.online, &model, (env, threads), 2, true))
    }
    fn assemble(&self, setup: &Setup<'_>) -> Result<Box<dyn Algorithm>, BuildError> {
        let behaviour = (&self.behaviour, self.behaviour_file.as_deref());
        let target = Target::Softmax { temperature: self.softmax_gq.temperature as f32 };
        assemble(setup, &self.online, (&self.softmax_gq, target), behaviour, &self.features)
    }
}

/// GQ(λ) of the policy `target`.
fn assemble(
    setup: &Setup<'_>,
    settings: &OnlineSettings,
    (config, target): (&SoftmaxGqSettings, Target),
    behaviour: (&BehaviourSettings, Option<&[u8]>),
    features: &FeatureSettings,
) -> Result<Box<dyn Algorithm>, BuildError> {
    let n_envs = settings.n_envs;
    let (model, behaviour) = off_policy(setup, n_envs, behaviour, features, Critic::None, target)?;
    let (parameters, actions) = (model.actor().params.len(), model.dist().n_outputs());
    let gq = Gq {
        target,
        config: config.clone(),
        behaviour,
        w: vec![0.0; parameters],
        e: Traces::new(n_envs, parameters),
        room: [(); 3].map(|()| vec![0.0; actions]),
        phi_bar: vec![0.0; parameters],
    };
    online(settings, model, setup, gq)
}
