//! Natural policy gradient. Kakade 2002, "A Natural Policy Gradient", NIPS 14.
//!
//! `θ ← θ + α F⁻¹ ∇η(θ)`, with the Fisher matrix `F = E[ ∇ log π_θ(a|s) ∇ log π_θ(a|s)ᵀ ]` of the policy: the
//! steepest ascent when a step is measured by how much it changes the policy, and so the same whatever the policy's
//! parameters are. `F` is never formed: `F⁻¹ ∇η` is found by conjugate gradient.

use crate::{
    algorithm::{AlgoConfig, Algorithm, BuildError, Report, Setup, config},
    common::{ModelSettings, NormalizeSettings, RecurrentSettings, engine},
    natural::{
        BatchSettings, CriticFit, CriticSettings, NaturalSettings, check_gradient, longest_step, move_along,
    },
    shell::{Agent, Method, Shell},
};
use pgrad_collect::Collector;
use pgrad_env::EnvSpec;
use pgrad_model::{AgentError, Critic, Trunk};
use pgrad_num::{
    Record, RecordError,
    cg::{self, CgScratch},
    kernels,
    linop::{Damped, FnOp},
};
use pgrad_optim::{Local, LocalMetric, LocalTrial};
use pgrad_settings::{above, choice, settings};

/// The registry's line.
pub const ENTRY: crate::AlgoEntry = crate::AlgoEntry {
    name: "npg",
    title: "Natural policy gradient",
    source: "Kakade 2002, NIPS 14",
    config: || Box::new(NpgConfig::default()),
};

/// NPG at work.
struct Npg {
    config: NpgConfig,
    critic: CriticFit,
    /// `g`, `s` and the parameters on trial.
    vectors: [Vec<f32>; 3],
    scratch: CgScratch<f32>,
}

impl Method for Npg {
    type Source = Collector;

    fn iterate(&mut self, agent: &mut Agent<Collector>) -> Result<Report, AgentError> {
        let Self { config, critic, vectors, scratch } = self;
        let NpgConfig { npg: c, natural, .. } = config;
        let ([g, s, theta], scale) = (vectors, agent.step_scale());

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
        let taken = local.trial(theta);
        let entropy = local.entropy();
        model.set_policy(theta)?;
        let report = Report::default()
            .with("learn/surrogate", taken.surrogate - surrogate_old)
            .with("learn/kl", taken.kl)
            .with("learn/largest_kl", taken.largest_kl)
            .with("learn/step_size", alpha)
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
        self.batch.check(Some(&self.critic))?;
        self.recurrent.check_batch(&self.batch, &self.critic)
    }
    fn assemble(&self, setup: &Setup<'_>) -> Result<Box<dyn Algorithm>, BuildError> {
        let hidden = &self.critic.critic_hidden;
        let memory = self.recurrent.of_batch(&self.batch, &self.critic);
        let model =
            self.model.build_on(memory, setup.spec, Critic::State, Trunk::Separate, hidden, setup.seed)?;
        let collector = self.batch.build(&self.normalize, &model, setup)?;
        let critic = CriticFit::new(&self.critic, &model, &collector, setup);
        let engine = critic
            .room(engine(setup, &model, &collector), &model)
            .with_local_problem(&model, collector.store().len());
        let n_params = model.actor().net.n_params();
        let vectors = std::array::from_fn(|_| vec![0.0; n_params]);
        let npg = Npg { config: self.clone(), critic, vectors, scratch: CgScratch::new(n_params) };
        Ok(Shell::boxed(setup, model, engine, collector, npg))
    }
}
