//! TD actor-critic and TD(λ) actor-critic. Sutton and Barto, "Reinforcement Learning", 2nd edition, 2018,
//! section 13.5.
//!
//! After every step, with the TD error `δ = R + γ v̂(S′,w) − v̂(S,w)` and eligibility traces,
//!
//! `z^w ← γ λ^w z^w + ∇v̂(S,w)`, `z^θ ← γ λ^θ z^θ + I ∇ln π(A|S,θ)`,
//! `w ← w + α^w δ z^w`, `θ ← θ + α^θ δ z^θ`, `I ← γ I`.
//!
//! With `λ^θ = λ^w = 0` a trace is the last gradient: one-step actor-critic, `Ψ = δ`.

use crate::online::{Means, Online, OnlineSettings, Updates, online, online_needs};
use crate::prelude::*;

/// TD(λ) actor-critic at work.
struct TdAc {
    config: TdAcSettings,
    z_theta: Traces,
    z_w: Traces,
    /// `I` of each environment.
    discount: Vec<f32>,
}

impl Method for TdAc {
    type Source = Online;

    fn iterate(&mut self, agent: &mut Agent<Online>) -> Result<Report, AgentError> {
        let Self { config: c, z_theta, z_w, discount } = self;
        let (gamma, bootstrap) = agent.source.discount();
        let (decay_theta, decay_w) = (gamma * c.lambda_policy as f32, gamma * c.lambda_value as f32);
        let mut means = Means::default();
        for _ in 0..agent.begin() {
            let [alpha_theta, alpha_w] = agent.step_sizes([c.alpha_theta, c.alpha_w]);
            agent.step()?; // A ~ π(·|S,θ); take A, observe S′, R
            let Updates { model, stepper, point, score, gradient, d_theta, d_w } = agent.updates();
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
                means.add(delta, v, -logp);
            }
            agent.learn()?;
        }
        let factor = agent.factor();
        Ok((means.report("learn/entropy")) // the mean of −ln π(A|S,θ)
            .with("learn/alpha_theta", c.alpha_theta * factor)
            .with("learn/alpha_w", c.alpha_w * factor))
    }

    state! { z_theta, z_w, discount: 1.0 }
}

settings! {
    /// TD(λ) actor-critic.
    pub struct TdAcSettings {
        /// Step size of the policy (alpha^theta).
        alpha_theta: f64 = 0.001953125, range: above(0.0), source: "Sutton and Barto 2018, Figure 13.2";
        /// Step size of the critic (alpha^w).
        alpha_w: f64 = 0.015625, range: above(0.0), source: "Sutton and Barto 2018, Figure 13.2";
        /// Decay of the policy's trace (lambda^theta): 0 is the one-step method, 1 credits an action with
        /// everything that follows.
        lambda_policy: f64 = 0.0, range: 0.0..=1.0, source: "Sutton and Barto 2018, section 13.5";
        /// Decay of the critic's trace (lambda^w): 0 is TD(0), 1 learns from full returns.
        lambda_value: f64 = 0.0, range: 0.0..=1.0, source: "Sutton and Barto 2018, section 13.5";
        /// Weight the policy's gradient at step t of an episode by gamma^t (I), as required by the gradient
        /// of the first state's value. If false, every step counts the same, as in most programs.
        discount_policy: bool = true, source: "Sutton and Barto 2018, section 13.5";
    }
}

config! {
    name: "td-ac", title: "TD and TD(lambda) actor-critic, learning at every step",
    source: "Sutton and Barto 2018, section 13.5";
    /// All settings of the TD(λ) actor-critic.
    pub struct TdAcConfig {
        online: OnlineSettings,
        td_ac: TdAcSettings,
        model: ModelSettings,
    }
}

impl AlgoConfig for TdAcConfig {
    fn needs(&self, env: &EnvSpec, threads: usize) -> Result<Needs, BuildError> {
        let model = self.model.build(env, Critic::State, Trunk::Separate, None)?;
        Ok(online_needs(&self.online, &model, (env, threads), 0, true))
    }
    fn assemble(&self, setup: &Setup<'_>) -> Result<Box<dyn Algorithm>, BuildError> {
        let model = self.model.build(setup.spec, Critic::State, Trunk::Separate, setup.seed)?;
        let n_envs = self.online.n_envs;
        let td_ac = TdAc {
            config: self.td_ac.clone(),
            z_theta: Traces::new(n_envs, model.actor().params.len()),
            z_w: Traces::new(n_envs, model.critic().params.len()),
            discount: vec![1.0; n_envs],
        };
        online(&self.online, model, setup, td_ac)
    }
}
