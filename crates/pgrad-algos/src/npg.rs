//! Natural policy gradient. Kakade 2002, "A Natural Policy Gradient", NIPS 14.
//!
//! `θ ← θ + α F⁻¹ ∇η(θ)`, with the Fisher matrix `F = E[ ∇ log π_θ(a|s) ∇ log π_θ(a|s)ᵀ ]` of the policy: the
//! steepest ascent when a step is measured by how much it changes the policy, and so the same whatever the policy's
//! parameters are. `F` is never formed: `F⁻¹ ∇η` is found by conjugate gradient.

use crate::algorithm::{AlgoConfig, Algorithm, BuildError, Phase, PhaseObserver, Report, Setup};
use crate::common::{ModelSettings, NormalizeSettings, RecurrentSettings, load_finite, rollout_algorithm};
use crate::natural::{
    BatchSettings, CriticFit, CriticSettings, NaturalSettings, check_gradient, check_step, longest_step,
    move_along, natural_flops,
};
use pgrad_agent::{ActorCritic, AgentError, Critic, ObsNormalizer, PolicyProblem, Rollout, Trunk};
use pgrad_env::{EnvSpec, Episode};
use pgrad_num::cg::{self, CgScratch};
use pgrad_num::linop::{Damped, FnOp};
use pgrad_num::{Record, RecordError, Team, kernels};
use pgrad_optim::{Local, LocalMetric, LocalTrial};
use pgrad_settings::{Settings, above, choice, settings};

/// The registry's line.
pub const ENTRY: crate::AlgoEntry = crate::AlgoEntry {
    name: "npg",
    title: "Natural policy gradient",
    source: "Kakade 2002, NIPS 14",
    config: || Box::new(NpgConfig::default()),
};

choice! {
    /// How long a step is.
    pub enum Step {
        /// A fixed multiple of the natural gradient.
        Fixed = "fixed",
        /// As long as makes the mean divergence delta, to second order.
        Kl = "kl",
    }
}

settings! {
    /// Natural policy gradient.
    pub struct NpgSettings {
        /// How long a step is.
        step: Step = Step::Kl, source: "Kakade 2002; Rajeswaran et al. 2017, Algorithm 1";
        /// The multiple of the natural gradient (alpha).
        step_size: f64 = 0.1, range: above(0.0), source: "Tianshou, NPG", when: step is "fixed";
        /// Mean KL(old, new) of a step to second order (delta). Raising it makes steps longer.
        delta: f64 = 0.01, range: above(0.0), unit: "nats", source: "Rajeswaran et al. 2017, Table 2",
            when: step is "kl";
    }
}

/// All settings of NPG.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NpgConfig {
    /// The batch.
    pub batch: BatchSettings,
    /// The algorithm.
    pub npg: NpgSettings,
    /// The direction.
    pub natural: NaturalSettings,
    /// The critic.
    pub critic: CriticSettings,
    /// The networks.
    pub model: ModelSettings,
    /// Their memory.
    pub recurrent: RecurrentSettings,
    /// Normalisation.
    pub normalize: NormalizeSettings,
}

/// NPG at work.
pub struct Npg {
    config: NpgConfig,
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

impl std::fmt::Debug for Npg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Npg")
            .field("config", &self.config)
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}

impl Algorithm for Npg {
    fn iterate(&mut self, team: &Team) -> Result<Report, AgentError> {
        let Self { config, model, rollout, problem, critic, vectors, scratch, observer, .. } = self;
        let NpgConfig { npg: c, natural, .. } = config;
        let [g, s, theta] = vectors;

        observer(Phase::Collect);
        rollout.collect(model, team)?; // run π_θ
        observer(Phase::Learn);
        critic.estimate(model, rollout, natural, config.batch.gamma, team)?; // Ψ_t, V_t^targ
        problem.gather(model, rollout, natural.normalize_advantage, natural.fisher_every, team);
        let mut local = problem.around(model, natural.fisher.into(), team);
        let surrogate_old = local.gradient(g); // g = ∇η(θ)
        check_gradient(model, g)?;
        let product = FnOp::new(g.len(), |v: &[f32], out: &mut [f32]| local.fisher_mul(v, out));
        let mut f = Damped { inner: product, damping: natural.cg_damping as f32 }; // F
        let solved = cg::solve(&mut f, g, s, natural.cg(), scratch)?; // s = F⁻¹ ∇η
        let s_f_s = solved.quadratic_form; // sᵀ F s
        let theta_old = &model.theta[model.actor().params.clone()];
        let alpha = self.step_scale * step_length(c, s_f_s);
        move_along(theta_old, alpha, s, theta); // θ + α F⁻¹ ∇η
        let taken = local.trial(theta);
        let entropy = local.entropy();
        check_step(model, theta)?;
        let params = model.actor().params.clone();
        model.theta[params].copy_from_slice(theta);
        let value_loss = critic.fit(model, rollout, self.step_scale, team)?;
        self.steps += rollout.len() as u64;
        observer(Phase::Done);
        Ok(Report::default()
            .with("learn/surrogate", taken.surrogate - surrogate_old)
            .with("learn/kl", taken.kl)
            .with("learn/largest_kl", taken.largest_kl)
            .with("learn/step_size", alpha)
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

/// `α`: fixed, or such that `½ α² sᵀFs = δ`.
fn step_length(c: &NpgSettings, s_f_s: f64) -> f64 {
    match c.step {
        Step::Fixed => c.step_size,
        Step::Kl => longest_step(c.delta, s_f_s),
    }
}

impl AlgoConfig for NpgConfig {
    fn parts(&self) -> Vec<&dyn Settings> {
        let Self { batch, npg, natural, critic, model, recurrent, normalize } = self;
        vec![batch, npg, natural, critic, model, recurrent, normalize]
    }
    fn parts_mut(&mut self) -> Vec<&mut dyn Settings> {
        let Self { batch, npg, natural, critic, model, recurrent, normalize } = self;
        vec![batch, npg, natural, critic, model, recurrent, normalize]
    }
    fn boxed_clone(&self) -> Box<dyn AlgoConfig> {
        Box::new(self.clone())
    }
    fn check(&self, _env: &EnvSpec) -> Result<(), BuildError> {
        self.batch.check(Some(&self.critic))?;
        self.recurrent.check_batch(&self.batch, &self.critic)
    }
    fn build(&self, setup: &Setup<'_>) -> Result<Box<dyn Algorithm>, BuildError> {
        Ok(Box::new(Npg::new(self, setup)?))
    }
}

impl Npg {
    /// NPG with its environments, not yet started.
    ///
    /// # Errors
    /// When settings do not fit together.
    pub fn new(config: &NpgConfig, setup: &Setup<'_>) -> Result<Self, BuildError> {
        config.check(setup.spec)?;
        let (critic, hidden) = (Critic::State, &config.critic.critic_hidden);
        let memory = config.recurrent.of_batch(&config.batch, &config.critic);
        let model = config.model.build_on(memory, setup.spec, critic, Trunk::Separate, hidden, setup.seed)?;
        let rollout = config.batch.build(&config.normalize, &model, setup)?;
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
