//! Trust Region Policy Optimization. Schulman, Levine, Moritz, Jordan, Abbeel 2015, arXiv:1502.05477.
//!
//! `maximise L_θold(θ) = E[ π_θ(a|s)/π_θold(a|s) Â ]  subject to  E[ KL(π_θold(·|s) ‖ π_θ(·|s)) ] ≤ δ` (Eq. 14).
//!
//! Section 6 and Appendix C: the direction `s = F⁻¹ g` by conjugate gradient, with `F` the Hessian of the
//! divergence; the longest step that the quadratic model allows, `β = √(2δ / sᵀ F s)`; then a line search that
//! shortens it until the surrogate improves and the divergence is within `δ`.
//!
//! Section 5 has two ways to the expectations. Single path: the actions along paths, with `Â` by a critic. Vine: some
//! actions in each of some states `s_n` along the paths, with `Q̂` by rollouts, and for a state
//! `L_n(θ) = Σ_k (π_θ/q) Q̂ / Σ_k (π_θ/q)`, or with every action once `L_n(θ) = Σ_a π_θ(a|s_n) Q̂(s_n, a)`.

use crate::{
    algorithm::{AlgoConfig, Algorithm, BuildError, Report, Setup, config},
    common::{ModelSettings, NormalizeSettings, RecurrentSettings, engine},
    natural::{CriticFit, check_gradient, longest_step, move_along},
    shell::{Agent, Method, Shell},
    vine::{TrpoBatch, TrpoCritic, TrpoNatural, VineSettings},
};
use pgrad_collect::Collector;
use pgrad_engine::LocalPolicy;
use pgrad_env::{BatchResult, EnvSpec};
use pgrad_model::{AgentError, Critic, Trunk};
use pgrad_num::{
    Record, RecordError,
    cg::{self, CgScratch},
    kernels,
    line_search::{BacktrackParams, Trial as Try, backtrack},
    linop::{Damped, FnOp},
};
use pgrad_optim::{Local, LocalMetric, LocalTrial, Trial};
use pgrad_settings::{above, choice, settings};

/// The registry's line.
pub const ENTRY: crate::AlgoEntry = crate::AlgoEntry {
    name: "trpo",
    title: "Trust Region Policy Optimization",
    source: "Schulman et al. 2015, arXiv:1502.05477",
    config: || Box::new(TrpoConfig::default()),
};

/// TRPO at work.
struct Trpo {
    config: TrpoConfig,
    critic: CriticFit,
    /// `g`, `s` and the parameters on trial.
    vectors: [Vec<f32>; 3],
    scratch: CgScratch<f32>,
}

impl Method for Trpo {
    type Source = Collector;

    fn iterate(&mut self, agent: &mut Agent<Collector>) -> Result<Report, AgentError> {
        let Self { config, critic, vectors, scratch } = self;
        let TrpoConfig { trpo: c, natural, .. } = config;
        let ([g, s, theta], scale) = (vectors, agent.step_scale());

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
        let search = backtrack(backtracking(c), beta, |step| {
            move_along(theta_old, step, s, theta); // θ = θ_old + β s
            judge(c, local.trial(theta), surrogate_old)
        });
        let entropy = local.entropy();
        let taken = search.last.filter(|_| search.step.is_some());
        if taken.is_some() {
            model.set_policy(theta)?; // otherwise θ stays θ_old
        }
        let report = Report::default()
            .with("learn/surrogate", taken.map_or(0.0, |t| t.surrogate - surrogate_old))
            .with("learn/kl", taken.map_or(0.0, |t| t.kl))
            .with("learn/largest_kl", taken.map_or(0.0, |t| t.largest_kl))
            .with("learn/step_size", search.step.unwrap_or(0.0))
            .with("learn/tries", search.tries as f64)
            .with("learn/accepted", f64::from(u8::from(taken.is_some())))
            .with("learn/entropy", entropy)
            .with("learn/grad_norm", kernels::sum_of_squares(g, 0.0).sqrt())
            .with("learn/cg_products", solved.iterations as f64)
            .with("learn/cg_residual", solved.relative_residual);
        critic.fit(engine, model, &data, scale, report)
    }
    fn save(&self, to: &mut Record) {
        self.critic.save(to);
    }
    fn load(&mut self, from: &Record) -> Result<(), RecordError> {
        self.critic.load(from)
    }
}

/// The longest step that the quadratic model of what bounds it allows.
fn first_step(c: &TrpoSettings, s_f_s: f64, local: &mut LocalPolicy<'_>, s: &[f32]) -> f64 {
    match c.constraint {
        Constraint::MeanKl => longest_step(c.delta, s_f_s),
        Constraint::MaxKl => longest_step(c.delta, local.largest_quadratic_form(s)),
        Constraint::Penalty => 1.0 / c.penalty_coef, // the maximum of gᵀ β s − C/2 β² sᵀFs
    }
}

fn backtracking(c: &TrpoSettings) -> BacktrackParams {
    BacktrackParams { ratio: c.backtrack_ratio, max_tries: c.backtrack_tries }
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
        self.batch.check(self.vine.single_path().then_some(&self.critic))?;
        self.recurrent.check_batch(&self.batch, &self.critic)?;
        self.vine.check(&self.batch, &self.recurrent, env)
    }
    fn check_env(&self, make: &dyn Fn(usize) -> BatchResult) -> Result<(), BuildError> {
        self.vine.check_env(make)
    }
    fn assemble(&self, setup: &Setup<'_>) -> Result<Box<dyn Algorithm>, BuildError> {
        let (single_path, hidden) = (self.vine.single_path(), &self.critic.critic_hidden);
        let kind = if single_path { Critic::State } else { Critic::None };
        let memory = self.recurrent.of_batch(&self.batch, &self.critic);
        let model = self.model.build_on(memory, setup.spec, kind, Trunk::Separate, hidden, setup.seed)?;
        let collector = self.vine.build(&self.batch, &self.normalize, &model, setup)?;
        let critic = CriticFit::new(&self.critic, &model, &collector, setup);
        let engine = critic
            .room(engine(setup, &model, &collector), &model)
            .with_local_problem(&model, collector.store().len());
        let n_params = model.actor().net.n_params();
        let vectors = std::array::from_fn(|_| vec![0.0; n_params]);
        let trpo = Trpo { config: self.clone(), critic, vectors, scratch: CgScratch::new(n_params) };
        Ok(Shell::boxed(setup, model, engine, collector, trpo))
    }
}
