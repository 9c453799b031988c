//! Q actor-critic. Sutton, McAllester, Singh, Mansour 2000, "Policy gradient methods for reinforcement
//! learning with function approximation" (Theorem 1: `Ψ = Q`); as an algorithm, Silver 2015, lecture 7
//! ("QAC").
//!
//! After every step, with the action `a′ ~ π_θ(s′,·)` that will be taken next (Sarsa),
//!
//! `δ = r + γ Q_w(s′,a′) − Q_w(s,a)`,
//! `θ ← θ + α ∇_θ log π_θ(s,a) Q_w(s,a)`, `w ← w + β δ ∇_w Q_w(s,a)`.

use crate::off_policy::alternative;
use crate::online::{Means, Online, OnlineSettings, Updates, online, online_needs};
use crate::prelude::*;

/// Q actor-critic at work.
struct Qac {
    config: QacSettings,
}

impl Method for Qac {
    type Source = Online;

    fn iterate(&mut self, agent: &mut Agent<Online>) -> Result<Report, AgentError> {
        let c = &self.config;
        let (gamma, bootstrap) = agent.source.discount();
        let mut means = Means::default();
        for _ in 0..agent.begin() {
            let [alpha_theta, alpha_w] = agent.step_sizes([c.alpha_theta, c.alpha_w]);
            agent.step_and_draw()?; // sample reward r, transition s′; then a′ ~ π_θ(s′,·)
            let Updates { model, stepper, point, score, gradient, d_theta, d_w } = agent.updates();
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
                means.add(delta, q, -logp);
            }
            agent.learn()?;
        }
        let factor = agent.factor();
        Ok((means.report("learn/entropy")) // the mean of −log π_θ(s,a)
            .with("learn/alpha_theta", c.alpha_theta * factor)
            .with("learn/alpha_w", c.alpha_w * factor))
    }
}

settings! {
    /// Q actor-critic.
    pub struct QacSettings {
        /// Step size of the policy (alpha).
        alpha_theta: f64 = 0.001953125, range: above(0.0), source: "Sutton and Barto 2018, Figure 13.2";
        /// Step size of the critic (beta).
        alpha_w: f64 = 0.015625, range: above(0.0), source: "Sutton and Barto 2018, Figure 13.2";
    }
}

config! {
    name: "qac", title: "Q actor-critic: the critic learns by Sarsa",
    source: "Sutton et al. 2000; Silver 2015, lecture 7";
    /// All settings of Q actor-critic.
    pub struct QacConfig {
        online: OnlineSettings,
        qac: QacSettings,
        model: ModelSettings,
    }
}

impl AlgoConfig for QacConfig {
    fn check(&self, env: &EnvSpec) -> Result<(), BuildError> {
        if matches!(env.action, Space::Discrete { .. }) {
            return Ok(());
        }
        let reason = format!(
            "its actions are {}, but the critic of qac has one output Q(s, a) for each action of a Discrete \
             space; use td-ac or nac, whose critics estimate the value of states",
            env.action
        );
        Err(BuildError::environment(env, reason))
    }
    fn needs(&self, env: &EnvSpec, threads: usize) -> Result<Needs, BuildError> {
        let model = self.model.build(env, Critic::Action, Trunk::Separate, None)?;
        Ok(online_needs(&self.online, &model, (env, threads), 0, false))
    }
    fn assemble(&self, setup: &Setup<'_>) -> Result<Box<dyn Algorithm>, BuildError> {
        let model = self.model.build(setup.spec, Critic::Action, Trunk::Separate, setup.seed)?;
        online(&self.online, model, setup, Qac { config: self.qac.clone() })
    }
}
