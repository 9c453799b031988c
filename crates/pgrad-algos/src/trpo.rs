//! Trust Region Policy Optimization. Schulman, Levine, Moritz, Jordan, Abbeel 2015, arXiv:1502.05477.
//!
//! `maximise L_θold(θ) = E[ π_θ(a|s)/π_θold(a|s) Â ]  subject to  E[ KL(π_θold(·|s) ‖ π_θ(·|s)) ] ≤ δ` (Eq.
//! 14).
//!
//! Section 6 and Appendix C: the direction `s = F⁻¹ g` by conjugate gradient, with `F` the Hessian of the
//! divergence; the longest step that the quadratic model allows, `β = √(2δ / sᵀ F s)`; then a line search
//! that shortens it until the surrogate improves and the divergence is within `δ`.
//!
//! Section 5 has two ways to the expectations. Single path: the actions along paths, with `Â` by a critic.
//! Vine: some actions in each of some states `s_n` along the paths, with `Q̂` by rollouts, and for a state
//! `L_n(θ) = Σ_k (π_θ/q) Q̂ / Σ_k (π_θ/q)`, or with every action once `L_n(θ) = Σ_a π_θ(a|s_n) Q̂(s_n, a)`.

use crate::natural::*;
use crate::prelude::*;
use crate::vine::{TrpoBatch, TrpoCritic, TrpoNatural, VineSettings};

/// TRPO at work.
struct Trpo {
    config: TrpoConfig,
    critic: CriticFit,
    vectors: Vectors,
}

impl Method for Trpo {
    type Source = Collector;

    fn iterate(&mut self, agent: &mut Agent<Collector>) -> Result<Report, AgentError> {
        let Self { config, critic, vectors: Vectors { g, s, theta, scratch } } = self;
        let TrpoConfig { trpo: c, natural, .. } = config;
        let scale = agent.step_scale();

        let (batch, model, engine) = agent.collect()?; // run π_θold; a vine: Q̂(s_n, a_n,k), section 5.2
        let data = critic.estimate(engine, model, batch, natural, config.batch.gamma)?; // Ψ_t, V_t^targ
        let mut local = natural.around(engine, model, &data);
        let surrogate_old = local.gradient(g); // g = ∇L_θold(θ_old)
        check_gradient(model, g)?;
        let product = FnOp::new(g.len(), |v: &[f32], out: &mut [f32]| local.fisher_mul(v, out));
        let mut f = Damped { inner: product, damping: natural.cg_damping as f32 }; // F
        let solved = cg::solve(&mut f, g, s, natural.cg(), scratch)?; // s = F⁻¹ g, Appendix C
        let s_f_s = solved.quadratic_form; // sᵀ F s
        let theta_old = &model.theta[model.actor().params.clone()];
        let beta = scale * first_step(c, s_f_s, &mut local, s); // β = √(2δ / sᵀFs)
        let tries = BacktrackParams { ratio: c.backtrack_ratio, max_tries: c.backtrack_tries };
        let search = backtrack(tries, beta, |step| {
            move_along(theta_old, step, s, theta); // θ = θ_old + β s
            judge(c, local.trial(theta), surrogate_old)
        });
        let alpha = search.step.unwrap_or(0.0);
        let taken = search.last.filter(|_| search.step.is_some());
        let entropy = local.entropy();
        if taken.is_some() {
            model.set_policy(theta)?; // otherwise θ stays θ_old
        }
        let accepted = f64::from(u8::from(taken.is_some()));
        let report = report_step(taken, surrogate_old, alpha);
        let report = report.with("learn/tries", search.tries as f64).with("learn/accepted", accepted);
        let report = report_direction(report, entropy, g, &solved);
        critic.fit(engine, model, &data, scale, report)
    }

    state! { critic }
}

/// The longest step that the quadratic model of what bounds it allows.
fn first_step(c: &TrpoSettings, s_f_s: f64, local: &mut LocalPolicy<'_>, s: &[f32]) -> f64 {
    match c.constraint {
        Constraint::MeanKl => longest_step(c.delta, s_f_s),
        Constraint::MaxKl => longest_step(c.delta, local.largest_quadratic_form(s)),
        Constraint::Penalty => 1.0 / c.penalty_coef, // the maximum of gᵀ β s − C/2 β² sᵀFs
    }
}

/// A step must improve the surrogate and stay within the bound; a comparison with NaN is false.
fn judge(c: &TrpoSettings, t: Trial, surrogate_old: f64) -> Try<Trial> {
    let good = match c.constraint {
        Constraint::MeanKl => t.surrogate > surrogate_old && t.kl <= c.delta,
        Constraint::MaxKl => t.surrogate > surrogate_old && t.largest_kl <= c.delta,
        Constraint::Penalty => t.surrogate - c.penalty_coef * t.kl > surrogate_old,
    };
    if good { Try::Accept(t) } else { Try::Reject(t) }
}

choice! {
    /// What bounds a step.
    pub enum Constraint {
        /// The mean KL divergence over the states is at most delta.
        MeanKl = "mean-kl",
        /// The largest KL divergence of any state is at most delta.
        MaxKl = "max-kl",
        /// No bound: a penalty on the mean KL divergence.
        Penalty = "penalty",
    }
}

settings! {
    /// Trust Region Policy Optimization.
    pub struct TrpoSettings {
        /// What bounds a step.
        constraint: Constraint = Constraint::MeanKl, source: "Schulman et al. 2015, section 8.1";
        /// Largest KL(old, new) allowed for a step (delta). A larger value allows longer steps.
        delta: f64 = 0.01, range: above(0.0), unit: "nats", source: "Schulman et al. 2015, Table 2",
            when: constraint is "mean-kl" | "max-kl";
        /// Weight of the mean KL(old, new) (C), in units of the surrogate. A larger value makes steps
        /// shorter.
        penalty_coef: f64 = 10.0, range: above(0.0), unit: "per nat", when: constraint is "penalty";
        /// Factor by which the line search shortens the step at each try.
        backtrack_ratio: f64 = 0.8, range: 0.01..=0.99, source: "Stable-Baselines3 contrib, TRPO";
        /// Maximum number of tries; if none is accepted, the policy stays as it is.
        backtrack_tries: usize = 10, range: 1..=1000, unit: "steps", source: "Stable-Baselines3 contrib, TRPO";
    }
}

config! {
    name: "trpo", title: "Trust Region Policy Optimization", source: "Schulman et al. 2015, arXiv:1502.05477";
    /// All settings of TRPO.
    pub struct TrpoConfig {
        batch: TrpoBatch,
        trpo: TrpoSettings,
        vine: VineSettings,
        natural: TrpoNatural,
        critic: TrpoCritic,
        model: ModelSettings,
        recurrent: RecurrentSettings,
        normalize: NormalizeSettings,
    }
}

impl AlgoConfig for TrpoConfig {
    fn check(&self, env: &EnvSpec) -> Result<(), BuildError> {
        self.batch.check((&self.critic, self.vine.critic()), &self.recurrent)?;
        self.vine.check(&self.batch, &self.recurrent, env)
    }
    fn check_env(&self, make: &dyn Fn(usize) -> BatchResult) -> Result<(), BuildError> {
        self.vine.check_env(make)
    }
    fn resolve(&mut self) {
        self.batch.resolve(&mut self.recurrent, &self.critic);
    }
    fn needs(&self, env: &EnvSpec, threads: usize) -> Result<Needs, BuildError> {
        let networks = (&self.model, &self.recurrent);
        natural_needs((env, threads), &self.batch, networks, (&*self.critic, self.vine.critic()))
    }
    fn assemble(&self, setup: &Setup<'_>) -> Result<Box<dyn Algorithm>, BuildError> {
        let collector = |model: &ActorCritic| self.vine.build(&self.batch, &self.normalize, model, setup);
        let (networks, critic) = ((&self.model, &self.recurrent), (&*self.critic, self.vine.critic()));
        let (agent, critic, vectors) = natural(setup, &self.batch, networks, critic, collector)?;
        Ok(agent.runs(Trpo { config: self.clone(), critic, vectors }))
    }
}
