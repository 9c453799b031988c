//! Natural policy gradient. Kakade 2002, "A Natural Policy Gradient", NIPS 14.
//!
//! `θ ← θ + α F⁻¹ ∇η(θ)`, with the Fisher matrix `F = E[ ∇ log π_θ(a|s) ∇ log π_θ(a|s)ᵀ ]` of the policy: the
//! steepest ascent when a step is measured by how much it changes the policy, and so the same whatever the
//! policy's parameters are. `F` is never formed: `F⁻¹ ∇η` is found by conjugate gradient.

use crate::natural::*;
use crate::prelude::*;

/// NPG at work.
struct Npg {
    config: NpgConfig,
    critic: CriticFit,
    vectors: Vectors,
}

impl Method for Npg {
    type Source = Collector;

    fn iterate(&mut self, agent: &mut Agent<Collector>) -> Result<Report, AgentError> {
        let Self { config, critic, vectors: Vectors { g, s, theta, scratch } } = self;
        let NpgConfig { npg: c, natural, .. } = config;
        let scale = agent.step_scale();

        let (batch, model, engine) = agent.collect()?; // run π_θ
        let data = critic.estimate(engine, model, batch, natural, config.batch.gamma)?; // Ψ_t, V_t^targ
        let mut local = natural.around(engine, model, &data);
        let surrogate_old = local.gradient(g); // g = ∇η(θ)
        check_gradient(model, g)?;
        let product = FnOp::new(g.len(), |v: &[f32], out: &mut [f32]| local.fisher_mul(v, out));
        let mut f = Damped { inner: product, damping: natural.cg_damping as f32 }; // F
        let solved = cg::solve(&mut f, g, s, natural.cg(), scratch)?; // s = F⁻¹ ∇η
        let s_f_s = solved.quadratic_form; // sᵀ F s
        let theta_old = &model.theta[model.actor().params.clone()];
        let alpha = scale * step_length(c, s_f_s);
        move_along(theta_old, alpha, s, theta); // θ + α F⁻¹ ∇η
        let taken = Some(local.trial(theta));
        let entropy = local.entropy();
        model.set_policy(theta)?;
        let report = report_step(taken, surrogate_old, alpha);
        let report = report_direction(report, entropy, g, &solved);
        critic.fit(engine, model, &data, scale, report)
    }

    state! { critic }
}

/// `α`: fixed, or such that `½ α² sᵀFs = δ`.
fn step_length(c: &NpgSettings, s_f_s: f64) -> f64 {
    match c.step {
        Step::Fixed => c.step_size,
        Step::Kl => longest_step(c.delta, s_f_s),
    }
}

choice! {
    /// How the length of a step is chosen.
    pub enum Step {
        /// A fixed multiple of the natural gradient.
        Fixed = "fixed",
        /// The length for which the mean KL divergence is delta, to second order.
        Kl = "kl",
    }
}

settings! {
    /// Natural policy gradient.
    pub struct NpgSettings {
        /// How the length of a step is chosen.
        step: Step = Step::Kl, source: "Kakade 2002; Rajeswaran et al. 2017, Algorithm 1";
        /// Multiple of the natural gradient (alpha).
        step_size: f64 = 0.1, range: above(0.0), source: "Tianshou, NPG", when: step is "fixed";
        /// Mean KL(old, new) of a step, to second order (delta). A larger value makes steps longer.
        delta: f64 = 0.01, range: above(0.0), unit: "nats", source: "Rajeswaran et al. 2017, Table 2",
            when: step is "kl";
    }
}

config! {
    name: "npg", title: "Natural policy gradient", source: "Kakade 2002, NIPS 14";
    /// All settings of NPG.
    pub struct NpgConfig {
        batch: BatchSettings,
        npg: NpgSettings,
        natural: NaturalSettings,
        critic: CriticSettings,
        model: ModelSettings,
        recurrent: RecurrentSettings,
        normalize: NormalizeSettings,
    }
}

impl AlgoConfig for NpgConfig {
    fn check(&self, _env: &EnvSpec) -> Result<(), BuildError> {
        self.batch.check((&self.critic, Critic::State), &self.recurrent)
    }
    fn resolve(&mut self) {
        self.batch.resolve(&mut self.recurrent, &self.critic);
    }
    fn needs(&self, env: &EnvSpec, threads: usize) -> Result<Needs, BuildError> {
        let networks = (&self.model, &self.recurrent);
        natural_needs((env, threads), &self.batch, networks, (&self.critic, Critic::State))
    }
    fn assemble(&self, setup: &Setup<'_>) -> Result<Box<dyn Algorithm>, BuildError> {
        let collector = |model: &ActorCritic| self.batch.build(&self.normalize, model, setup);
        let (networks, critic) = ((&self.model, &self.recurrent), (&self.critic, Critic::State));
        let (agent, critic, vectors) = natural(setup, &self.batch, networks, critic, collector)?;
        Ok(agent.runs(Npg { config: self.clone(), critic, vectors }))
    }
}
