//! Actor-critic using Kronecker-factored trust region. Wu, Mansimov, Grosse, Liao, Ba 2017, arXiv:1708.05144.
//!
//! Each iteration runs `π_θ` in `N` environments for `T` steps, computes advantages `Â_t`, and takes one
//! natural step on
//!
//! `L(θ) = E_t[ log π_θ(a_t|s_t) Â_t − c₁ (V_θ(s_t) − V_t^targ)² + c₂ S[π_θ](s_t) ]`:
//!
//! `θ ← θ + η F̂⁻¹ ∇L`, with `F̂` the Kronecker-factored Fisher matrix of
//! `p(a, v|s) = π_θ(a|s) N(v; V_θ(s), 1)` (section 3.1) and `η = min(η_max, √(2δ / ΔθᵀF̂Δθ))`, which bounds
//! the modelled divergence by `δ` (section 3.2).

use crate::prelude::*;
use pgrad_optim::{Kfac, KfacParams, clip_scale};
use std::ops::Range;

/// ACKTR at work.
struct Acktr {
    config: AcktrConfig,
    minibatches: Minibatches,
    kfac: Kfac,
    gradient: Vec<f32>,
    direction: Vec<f32>,
    velocity: Vec<f32>,
}

impl Method for Acktr {
    type Source = Collector;

    fn iterate(&mut self, agent: &mut Agent<Collector>) -> Result<Report, AgentError> {
        let Self { config, minibatches, kfac, gradient, direction, velocity } = self;
        let AcktrConfig { rollout, acktr: c, .. } = &*config;
        let (gamma, lambda) = (rollout.gamma as f32, c.lambda as f32);
        let objective = objective(c);
        let eta_max = agent.step_size(c.learning_rate, c.learning_rate_schedule);

        let (batch, model, engine) = agent.collect()?; // run π_θ in N environments for T steps
        let data = engine.values(model, batch)?; // V(s_t), and V of what follows
        let data = engine.estimate(data, |p| c.psi.estimate(p, gamma, lambda))?; // Â_t and V_t^targ
        minibatches.follow(&data);
        let losses = engine.gradient(model, &data, minibatches.whole(0), &objective)?; // ∇L
        let mut totals = Totals::default();
        totals.add(&losses);
        totals.step(&losses);
        let curvature = engine.curvature(model, &data); // E[x̄ x̄ᵀ], E[g gᵀ] of each layer
        kfac.observe(|i| curvature.moments(i));
        kfac.factor().map_err(|e| AgentError::Loss {
            what: "pivot of the curvature",
            epoch: 0,
            minibatch: 0,
            value: e.pivot,
        })?;
        gradient.copy_from_slice(engine.descent());
        let scale = clip_scale(losses.norm, c.max_grad_norm.unwrap_or(f64::INFINITY));
        if scale < 1.0 {
            kernels::scale(scale as f32, gradient);
        }
        kfac.precondition(gradient, direction); // Δθ = −F̂⁻¹ ∇L
        let mut steps = [0.0; 2];
        for (step, part) in steps.iter_mut().zip(networks(model)) {
            let (delta, g) = (&direction[part.clone()], &gradient[part.clone()]);
            let quadratic = kernels::dot(delta, g); // ΔθᵀF̂Δθ
            let eta = eta_max.min((2.0 * c.trust_region / quadratic.max(f64::MIN_POSITIVE)).sqrt());
            let velocity = &mut velocity[part.clone()];
            kernels::scale(c.momentum as f32, velocity);
            kernels::axpy(((1.0 - c.momentum) * eta) as f32, delta, velocity);
            kernels::axpy(-1.0, velocity, &mut model.theta[part]); // θ
            *step = eta;
        }
        Ok(totals.report(&objective, &data, eta_max).with("learn/step_size", steps[0]))
    }

    state! { velocity, kfac }
}

/// `L`: `log π_θ(a_t|s_t) Â_t − c₁ (V_θ(s_t) − V_t^targ)² + c₂ S[π_θ](s_t)`.
fn objective(c: &AcktrSettings) -> Objective<'static> {
    Objective {
        policy: Some(PolicyTerm::Score),                      // log π_θ(a_t|s_t) Â_t
        value: Some(ValueTerm::Squared { c1: c.value_coef }), // c₁ (V_θ(s_t) − V_t^targ)²
        entropy: c.entropy_coef,                              // c₂ S[π_θ](s_t)
        ..Objective::default()
    }
}

/// Where the parameters of each network lie: each has a trust region of its own.
fn networks(model: &ActorCritic) -> impl Iterator<Item = Range<usize>> + use<> {
    let critic = model.is_separate().then(|| model.critic().params.clone());
    std::iter::once(model.actor().params.clone()).chain(critic)
}

settings! {
    /// Actor-critic with a Kronecker-factored trust region.
    pub struct AcktrSettings {
        /// The weight of an action's score (psi).
        psi: Psi = Psi::Gae, source: "Wu et al. 2017, section 3.1; Schulman et al. 2016, Eq. 1";
        /// Trade-off between bias and variance of the advantages: 0 uses the one-step residual, 1 the return
        /// of the whole rollout followed by the critic's value, as in the paper.
        lambda: f64 = 1.0, range: 0.0..=1.0, source: "Wu et al. 2017, section 3.1";
        /// Maximum step along the natural direction (eta max).
        learning_rate: f64 = 0.25, range: above(0.0), source: "OpenAI baselines, acktr";
        /// How `learning_rate` changes over the run.
        learning_rate_schedule: Schedule = Schedule::Linear, source: "OpenAI baselines, acktr";
        /// Largest KL divergence of a step in the quadratic model (delta); applies to each network if actor
        /// and critic are separate.
        trust_region: f64 = 1e-3, range: above(0.0), unit: "nats", source: "Wu et al. 2017, section 5";
        /// Damping added to the curvature (lambda in Martens and Grosse 2015, section 6.3).
        damping: f64 = 0.01, range: above(0.0), source: "OpenAI baselines, acktr";
        /// Decay of the running averages of the curvature.
        stats_decay: f64 = 0.99, range: 0.0..=0.9999, source: "OpenAI baselines, acktr";
        /// Fraction of the previous step that is added to the next one.
        momentum: f64 = 0.9, range: 0.0..=0.9999, source: "OpenAI baselines, acktr";
        /// Weight of the critic's squared error (c1).
        value_coef: f64 = 0.5, range: 0.0..=1e6, source: "OpenAI baselines, acktr";
        /// Weight of the entropy bonus (c2). A larger value keeps the policy more random.
        entropy_coef: f64 = 0.01, range: 0.0..=1e6, unit: "per nat", source: "OpenAI baselines, acktr";
        /// Maximum norm of the gradient over all parameters; longer gradients are scaled down to it.
        max_grad_norm: Option<f64> = Some(0.5), range: above(0.0), source: "OpenAI baselines, acktr";
    }
}

settings_like! {
    /// The rollout of ACKTR: data of one iteration.
    pub struct AcktrRollout(RolloutSettings) {
        n_envs = 32, source: "OpenAI baselines, acktr";
        n_steps = 20, source: "OpenAI baselines, acktr";
        gamma, source: "OpenAI baselines, acktr";
    }
}

config! {
    name: "acktr", title: "Actor-critic with a Kronecker-factored trust region",
    source: "Wu et al. 2017, arXiv:1708.05144";
    /// All settings of ACKTR.
    pub struct AcktrConfig {
        rollout: AcktrRollout,
        acktr: AcktrSettings,
        model: ModelSettings,
        trunk: TrunkSettings,
        normalize: NormalizeSettings,
    }
}

impl AlgoConfig for AcktrConfig {
    fn check(&self, _env: &EnvSpec) -> Result<(), BuildError> {
        self.rollout.check(self.rollout.samples(), None)
    }
    fn resolve(&mut self) {
        self.rollout.resolve();
    }
    fn needs(&self, env: &EnvSpec, threads: usize) -> Result<Needs, BuildError> {
        let (at, networks) = ((env, threads), (&self.model, None, &self.trunk));
        // Parameters, two gradients, direction, velocity.
        let samples = self.rollout.samples();
        actor_critic_needs(at, &self.rollout, networks, samples, (5, 2), true)
    }
    fn assemble(&self, setup: &Setup<'_>) -> Result<Box<dyn Algorithm>, BuildError> {
        let (c, networks) = (&self.acktr, (&self.model, None, &self.trunk));
        let (agent, minibatches) =
            actor_critic(setup, &self.rollout, networks, &self.normalize, self.rollout.samples())?;
        let agent = agent.with_room(|engine, model, _| engine.with_curvature(model));
        let kfac = agent.engine.kfac(KfacParams { damping: c.damping, stats_decay: c.stats_decay });
        let zeros = || vec![0.0; agent.model.theta.len()];
        let (gradient, direction, velocity) = (zeros(), zeros(), zeros());
        Ok(agent.runs(Acktr { config: self.clone(), minibatches, kfac, gradient, direction, velocity }))
    }
}
