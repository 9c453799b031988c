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
//! moves along the natural gradient, and `F` is never formed. (LSTD-Q(λ), the other way to `w`, needs a
//! matrix over all parameters.)

use crate::online::{Means, Online, OnlineSettings, Updates, online, online_needs};
use crate::prelude::*;

/// Natural actor-critic at work.
struct Nac {
    config: NacSettings,
    /// Parameters of the advantage `ψᵀ w`: the natural gradient.
    w: Vec<f32>,
    /// What a step adds to them.
    d_advantage: Vec<f32>,
}

impl Method for Nac {
    type Source = Online;

    fn iterate(&mut self, agent: &mut Agent<Online>) -> Result<Report, AgentError> {
        let Self { config: c, w, d_advantage } = self;
        let (gamma, bootstrap) = agent.source.discount();
        let mut means = Means::default();
        for _ in 0..agent.begin() {
            let [beta, alpha, alpha_a] = agent.step_sizes([c.alpha_theta, c.alpha_w, c.alpha_advantage]);
            agent.step()?; // a ~ π_θ(s,·); observe r, s′
            let Updates { model, stepper, point, score, gradient, d_theta, d_w } = agent.updates();
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
                means.add(delta, v, -logp);
            }
            for ((d, w), d_w) in d_theta.iter_mut().zip(w.iter()).zip(d_advantage.iter()) {
                *d = beta * (w + d_w); // θ, along the new w
            }
            agent.learn()?;
            kernels::axpy(1.0, d_advantage, w);
        }
        let factor = agent.factor();
        Ok((means.report("learn/entropy")) // the mean of −log π_θ(a|s)
            .with("learn/natural_gradient_norm", kernels::sum_of_squares(w, 0.0).sqrt())
            .with("learn/alpha_theta", c.alpha_theta * factor)
            .with("learn/alpha_w", c.alpha_w * factor)
            .with("learn/alpha_advantage", c.alpha_advantage * factor))
    }

    state! { w }
}

settings! {
    /// Natural actor-critic.
    pub struct NacSettings {
        /// Step size of the policy (beta). It must be the smallest, since `w` and the critic must keep up
        /// with the policy.
        alpha_theta: f64 = 0.0001, range: above(0.0);
        /// Step size of the critic (alpha).
        alpha_w: f64 = 0.015625, range: above(0.0), source: "Sutton and Barto 2018, Figure 13.2";
        /// Step size of the advantage's parameters. It must be less than 2 divided by the squared norm of the
        /// features; otherwise the fit diverges.
        alpha_advantage: f64 = 0.01, range: above(0.0);
    }
}

config! {
    name: "nac", title: "Natural actor-critic with compatible features, learning at every step",
    source: "Bhatnagar et al. 2009, Algorithm 3; Peters and Schaal 2008";
    /// All settings of the natural actor-critic.
    pub struct NacConfig {
        online: OnlineSettings,
        nac: NacSettings,
        model: ModelSettings,
    }
}

impl AlgoConfig for NacConfig {
    fn needs(&self, env: &EnvSpec, threads: usize) -> Result<Needs, BuildError> {
        let model = self.model.build(env, Critic::State, Trunk::Separate, None)?;
        Ok(online_needs(&self.online, &model, (env, threads), 1, false))
    }
    fn assemble(&self, setup: &Setup<'_>) -> Result<Box<dyn Algorithm>, BuildError> {
        let model = self.model.build(setup.spec, Critic::State, Trunk::Separate, setup.seed)?;
        let n = model.actor().params.len();
        let nac = Nac { config: self.nac.clone(), w: vec![0.0; n], d_advantage: vec![0.0; n] };
        online(&self.online, model, setup, nac)
    }
}
