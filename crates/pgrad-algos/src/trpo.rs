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

use crate::algorithm::{AlgoConfig, Algorithm, BuildError, Phase, PhaseObserver, Report, Setup};
use crate::common::{ModelSettings, NormalizeSettings, RecurrentSettings, load_finite, rollout_algorithm};
use crate::natural::{CriticFit, check_gradient, longest_step, move_along, natural_flops};
use crate::vine::{TrpoBatch, TrpoCritic, TrpoNatural, VineSettings};
use pgrad_agent::{
    ActorCritic, AgentError, Critic, LocalPolicy, ObsNormalizer, PolicyProblem, Rollout, Trunk,
};
use pgrad_env::{BatchResult, EnvSpec, Episode};
use pgrad_num::cg::{self, CgScratch};
use pgrad_num::line_search::{BacktrackParams, Trial as Try, backtrack};
use pgrad_num::linop::{Damped, FnOp};
use pgrad_num::{Record, RecordError, Team, kernels};
use pgrad_optim::{Local, LocalMetric, LocalTrial, Trial};
use pgrad_settings::{Settings, above, choice, settings};

/// The registry's line.
pub const ENTRY: crate::AlgoEntry = crate::AlgoEntry {
    name: "trpo",
    title: "Trust Region Policy Optimization",
    source: "Schulman et al. 2015, arXiv:1502.05477",
    config: || Box::new(TrpoConfig::default()),
};

choice! {
    /// What bounds a step.
    pub enum Constraint {
        /// The mean divergence over the states is at most delta.
        MeanKl = "mean-kl",
        /// The largest divergence of a state is at most delta.
        MaxKl = "max-kl",
        /// Nothing: the mean divergence has a price.
        Penalty = "penalty",
    }
}

settings! {
    /// Trust Region Policy Optimization.
    pub struct TrpoSettings {
        /// What bounds a step.
        constraint: Constraint = Constraint::MeanKl, source: "Schulman et al. 2015, section 8.1";
        /// Largest KL(old, new) of a step (delta). Raising it makes steps longer.
        delta: f64 = 0.01, range: above(0.0), unit: "nats", source: "Schulman et al. 2015, Table 2",
            when: constraint is "mean-kl" | "max-kl";
        /// Price of the mean KL(old, new) (C), in units of the surrogate. Raising it makes steps shorter.
        penalty_coef: f64 = 10.0, range: above(0.0), unit: "per nat", when: constraint is "penalty";
        /// Each step that the line search tries is this part of the one before.
        backtrack_ratio: f64 = 0.8, range: 0.01..=0.99, source: "Stable-Baselines3 contrib, TRPO";
        /// Most steps that it tries; when none is good, the policy stays as it is.
        backtrack_tries: usize = 10, range: 1..=1000, unit: "steps", source: "Stable-Baselines3 contrib, TRPO";
    }
}

/// All settings of TRPO.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrpoConfig {
    /// The batch.
    pub batch: TrpoBatch,
    /// The algorithm.
    pub trpo: TrpoSettings,
    /// Single path or vine.
    pub vine: VineSettings,
    /// The direction.
    pub natural: TrpoNatural,
    /// The critic.
    pub critic: TrpoCritic,
    /// The networks.
    pub model: ModelSettings,
    /// Their memory.
    pub recurrent: RecurrentSettings,
    /// Normalisation.
    pub normalize: NormalizeSettings,
}

/// TRPO at work.
pub struct Trpo {
    config: TrpoConfig,
    steps: u64,
    /// What divergences have left of the step size.
    step_scale: f64,
    model: ActorCritic,
    rollout: Rollout,
    problem: PolicyProblem,
    critic: CriticFit,
    /// `g`, `s` and the parameters on trial.
    vectors: [Vec<f32>; 3],
    scratch: CgScratch<f32>,
    observer: PhaseObserver,
}

impl std::fmt::Debug for Trpo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trpo")
            .field("config", &self.config)
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}

impl Algorithm for Trpo {
    fn iterate(&mut self, team: &Team) -> Result<Report, AgentError> {
        let Self { config, model, rollout, problem, critic, vectors, scratch, observer, .. } = self;
        let TrpoConfig { trpo: c, natural, .. } = config;
        let [g, s, theta] = vectors;

        observer(Phase::Collect);
        rollout.collect(model, team)?; // run π_θold; a vine: Q̂(s_n, a_n,k), section 5.2
        observer(Phase::Learn);
        critic.estimate(model, rollout, natural, config.batch.gamma, team)?; // Ψ_t, V_t^targ
        problem.gather(model, rollout, natural.normalize_advantage, natural.fisher_every, team);
        let mut local = problem.around(model, natural.fisher.into(), team);
        let surrogate_old = local.gradient(g); // g = ∇L_θold(θ_old)
        check_gradient(model, g)?;
        let product = FnOp::new(g.len(), |v: &[f32], out: &mut [f32]| local.fisher_mul(v, out));
        let mut f = Damped { inner: product, damping: natural.cg_damping as f32 }; // F
        let solved = cg::solve(&mut f, g, s, natural.cg(), scratch)?; // s = F⁻¹ g, Appendix C
        let s_f_s = solved.quadratic_form; // sᵀ F s
        let theta_old = &model.theta[model.actor().params.clone()];
        let beta = self.step_scale * first_step(c, s_f_s, &mut local, s); // β = √(2δ / sᵀFs)
        let search = backtrack(backtracking(c), beta, |step| {
            move_along(theta_old, step, s, theta); // θ = θ_old + β s
            judge(c, local.trial(theta), surrogate_old)
        });
        let entropy = local.entropy();
        if search.step.is_some() {
            let params = model.actor().params.clone();
            model.theta[params].copy_from_slice(theta); // otherwise θ stays θ_old
        }
        let value_loss = critic.fit(model, rollout, self.step_scale, team)?;
        self.steps += rollout.steps();
        observer(Phase::Done);
        let taken = search.last.filter(|_| search.step.is_some());
        Ok(Report::default()
            .with("learn/surrogate", taken.map_or(0.0, |t| t.surrogate - surrogate_old))
            .with("learn/kl", taken.map_or(0.0, |t| t.kl))
            .with("learn/largest_kl", taken.map_or(0.0, |t| t.largest_kl))
            .with("learn/step_size", search.step.unwrap_or(0.0))
            .with("learn/tries", search.tries as f64)
            .with("learn/accepted", f64::from(u8::from(taken.is_some())))
            .with("learn/entropy", entropy)
            .with("learn/grad_norm", kernels::sum_of_squares(g, 0.0).sqrt())
            .with("learn/cg_products", solved.iterations as f64)
            .with("learn/cg_residual", solved.relative_residual)
            .with("learn/value_loss", value_loss)
            .with("learn/explained_variance", critic.explained_variance(rollout)))
    }

    rollout_algorithm!();

    fn learn_flops(&self) -> f64 {
        natural_flops(&self.model, &self.config.natural, &self.config.critic) * self.rollout.len() as f64
    }
    fn save(&self) -> Record {
        let mut r = Record::new();
        r.put("steps", vec![self.steps]);
        r.put("step_scale", vec![self.step_scale]);
        r.put("theta", self.model.theta.clone());
        self.critic.save(&mut r);
        r.put_record("rollout", self.rollout.save());
        r
    }
    fn load(&mut self, from: &Record) -> Result<bool, RecordError> {
        load_finite(from, "theta", &mut self.model.theta)?;
        self.steps = from.u64("steps")?;
        self.step_scale = from.f64("step_scale")?;
        self.critic.load(from)?;
        self.rollout.load(&from.record("rollout"))
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

impl AlgoConfig for TrpoConfig {
    fn parts(&self) -> Vec<&dyn Settings> {
        let Self { batch, trpo, vine, natural, critic, model, recurrent, normalize } = self;
        vec![batch, trpo, vine, natural, critic, model, recurrent, normalize]
    }
    fn parts_mut(&mut self) -> Vec<&mut dyn Settings> {
        let Self { batch, trpo, vine, natural, critic, model, recurrent, normalize } = self;
        vec![batch, trpo, vine, natural, critic, model, recurrent, normalize]
    }
    fn boxed_clone(&self) -> Box<dyn AlgoConfig> {
        Box::new(self.clone())
    }
    fn check(&self, env: &EnvSpec) -> Result<(), BuildError> {
        self.batch.check(self.vine.single_path().then_some(&self.critic))?;
        if self.recurrent.is_on() && !self.vine.single_path() {
            return Err(BuildError::Inconsistent {
                key: "recurrent",
                value: self.recurrent.recurrent.to_string(),
                reason:
                    "a vine starts from states of the task, which do not say what a policy remembers; give \
                         `sampling=single-path`, or leave `recurrent` at `none`"
                        .to_owned(),
            });
        }
        self.recurrent.check_batch(&self.batch, &self.critic)?;
        self.vine.check(&self.batch, env)
    }
    fn check_env(&self, make: &dyn Fn(usize) -> BatchResult) -> Result<(), BuildError> {
        self.vine.check_env(make)
    }
    fn build(&self, setup: &Setup<'_>) -> Result<Box<dyn Algorithm>, BuildError> {
        Ok(Box::new(Trpo::new(self, setup)?))
    }
}

impl Trpo {
    /// TRPO with its environments, not yet started.
    ///
    /// # Errors
    /// When settings do not fit together.
    pub fn new(config: &TrpoConfig, setup: &Setup<'_>) -> Result<Self, BuildError> {
        config.check(setup.spec)?;
        config.check_env(setup.make_env)?;
        let (single_path, hidden) = (config.vine.single_path(), &config.critic.critic_hidden);
        let kind = if single_path { Critic::State } else { Critic::None };
        let memory = config.recurrent.of_batch(&config.batch, &config.critic);
        let model = config.model.build_on(memory, setup.spec, kind, Trunk::Separate, hidden, setup.seed)?;
        let rollout = config.vine.build(&config.batch, &config.normalize, &model, setup)?;
        let n_params = model.actor().net.n_params();
        Ok(Self {
            config: config.clone(),
            steps: 0,
            step_scale: 1.0,
            problem: PolicyProblem::new(&model, rollout.len(), setup.threads),
            critic: CriticFit::new(&config.critic, &model, &rollout, setup),
            vectors: std::array::from_fn(|_| vec![0.0; n_params]),
            scratch: CgScratch::new(n_params),
            observer: Box::new(drop),
            model,
            rollout,
        })
    }
}
