//! Off-Policy Actor-Critic. Degris, White, Sutton 2012, "Off-Policy Actor-Critic", ICML, arXiv:1205.4839.
//!
//! Actions come from a behaviour policy `b`; what is learnt is another policy `π_u`, by the gradient
//! `E_b[ ρ ψ Q^π ]` with `ρ = π_u(a|s) / b(a|s)` and `ψ = ∇_u ln π_u(a|s)` (section 2.2). Algorithm 1, after
//! every step, with `φ = ∇_v v̂(s)` (for a linear critic the features of `s`):
//!
//! ```text
//! δ   = r + γ(s') v̂(s') − v̂(s)
//! e_v ← ρ (φ + γ λ e_v)
//! v   ← v + α_v [δ e_v − γ(s') (1 − λ) (wᵀe_v) φ']      the critic, GTD(λ)
//! w   ← w + α_w [δ e_v − (wᵀφ) φ]
//! e_u ← ρ (ψ + γ λ e_u)
//! u   ← u + α_u δ e_u                                    the actor
//! ```

use crate::off_policy::{Behaviour, BehaviourSettings, FeatureSettings, Target, check_auxiliary, off_policy};
use crate::online::{Means, Online, OnlineSettings, Updates, online, online_needs};
use crate::prelude::*;

/// Off-PAC at work.
struct OffPac {
    config: OffPacSettings,
    behaviour: Behaviour,
    /// Auxiliary weights of the critic.
    w: Vec<f32>,
    e_v: Traces,
    e_u: Traces,
    /// Room for `φ'`.
    phi_next: Vec<f32>,
}

impl Method for OffPac {
    type Source = Online;

    fn iterate(&mut self, agent: &mut Agent<Online>) -> Result<Report, AgentError> {
        let Self { config: c, behaviour, w, e_v, e_u, phi_next } = self;
        let (gamma, bootstrap) = agent.source.discount();
        let lambda = c.lambda as f32;
        let mut means = Means::default();
        for _ in 0..agent.begin() {
            let [alpha_v, alpha_w, alpha_u] = agent.step_sizes([c.alpha_v, c.alpha_w, c.alpha_u]);
            agent.step_off_policy(behaviour)?; // a ~ b(·|s); take a, observe r, s'
            let Updates { model, stepper, point, score: psi, gradient: phi, d_theta: d_u, d_w: d_v } =
                agent.updates();
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
                let scale = 1.0 / behaviour.norm(phi);

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
            check_auxiliary(w, agent.steps())?;
            agent.learn()?;
        }
        Ok(means.report("learn/rho").with("learn/rho_max", means.largest()))
    }

    state! { behaviour, w, e_v, e_u }
}

settings! {
    /// Off-policy actor-critic.
    pub struct OffPacSettings {
        /// Step size of the critic (alpha_v).
        alpha_v: f64 = 0.05, range: above(0.0), source: "RLPark, OffPolicyControlTests";
        /// Step size of the critic's auxiliary weights (alpha_w); 0 gives TD(lambda) with importance weights.
        alpha_w: f64 = 0.0001, range: 0.0..=1e6, source: "RLPark, OffPolicyControlTests";
        /// Step size of the policy (alpha_u).
        alpha_u: f64 = 1.0, range: above(0.0), source: "RLPark, OffPolicyControlTests";
        /// Decay of the policy's and the critic's traces (lambda): 0 is the one-step method.
        lambda: f64 = 0.0, range: 0.0..=1.0, source: "RLPark, OffPolicyControlTests";
    }
}

config! {
    name: "off-pac", title: "Off-Policy Actor-Critic, with a GTD(lambda) critic",
    source: "Degris, White, Sutton 2012, arXiv:1205.4839";
    /// All settings of Off-PAC.
    pub struct OffPacConfig {
        online: OnlineSettings,
        off_pac: OffPacSettings,
        behaviour: BehaviourSettings,
        features: FeatureSettings,
    }
    with behaviour_file of behaviour
}

impl AlgoConfig for OffPacConfig {
    fn check(&self, env: &EnvSpec) -> Result<(), BuildError> {
        self.behaviour.check(self.behaviour_file.as_deref(), env)
    }
    fn needs(&self, env: &EnvSpec, threads: usize) -> Result<Needs, BuildError> {
        let model = self.features.build(env, Critic::State, None)?;
        Ok(online_needs(&self.online, &model, (env, threads), 1, true))
    }
    fn assemble(&self, setup: &Setup<'_>) -> Result<Box<dyn Algorithm>, BuildError> {
        let (n_envs, file) = (self.online.n_envs, self.behaviour_file.as_deref());
        let (behaviour, target) = ((&self.behaviour, file), Target::Softmax { temperature: 1.0 });
        let (model, behaviour) = off_policy(setup, n_envs, behaviour, &self.features, Critic::State, target)?;
        let features = model.critic().params.len();
        let off_pac = OffPac {
            config: self.off_pac.clone(),
            behaviour,
            w: vec![0.0; features],
            e_v: Traces::new(n_envs, features),
            e_u: Traces::new(n_envs, model.actor().params.len()),
            phi_next: vec![0.0; features],
        };
        online(&self.online, model, setup, off_pac)
    }
}
