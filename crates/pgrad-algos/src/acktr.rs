//! Actor-critic using Kronecker-factored trust region. Wu, Mansimov, Grosse, Liao, Ba 2017, arXiv:1708.05144.
//!
//! Each iteration runs `π_θ` in `N` environments for `T` steps, computes advantages `Â_t`, and takes one natural
//! step on
//!
//! `L(θ) = E_t[ log π_θ(a_t|s_t) Â_t − c₁ (V_θ(s_t) − V_t^targ)² + c₂ S[π_θ](s_t) ]`:
//!
//! `θ ← θ + η F̂⁻¹ ∇L`, with `F̂` the Kronecker-factored Fisher matrix of `p(a, v|s) = π_θ(a|s) N(v; V_θ(s), 1)`
//! (section 3.1) and `η = min(η_max, √(2δ / ΔθᵀF̂Δθ))`, which bounds the modelled divergence by `δ` (section 3.2).

use crate::algorithm::{AlgoConfig, Algorithm, BuildError, Phase, PhaseObserver, Report, Setup};
use crate::common::{
    ModelSettings, NormalizeSettings, Psi, RolloutSettings, Schedule, TrunkSettings, check_losses,
    clip_finite, load_finite, rollout_algorithm,
};
use pgrad_agent::{
    ActorCritic, AgentError, Critic, Curvature, GradientPass, Learner, ObsNormalizer, PolicyChunk, Rollout,
    ValueChunk,
};
use pgrad_env::{EnvSpec, Episode};
use pgrad_num::{Record, RecordError, Team, kernels};
use pgrad_optim::{Kfac, KfacParams, KroneckerBlock, Schedule as Factor};
use pgrad_rl::surrogate;
use pgrad_settings::{Settings, above, settings, settings_like};
use std::ops::Range;

/// The registry's line.
pub const ENTRY: crate::AlgoEntry = crate::AlgoEntry {
    name: "acktr",
    title: "Actor-critic with a Kronecker-factored trust region",
    source: "Wu et al. 2017, arXiv:1708.05144",
    config: || Box::new(AcktrConfig::default()),
};

settings! {
    /// Actor-critic with a Kronecker-factored trust region.
    pub struct AcktrSettings {
        /// What weighs the score of an action.
        psi: Psi = Psi::Gae, source: "Wu et al. 2017, section 3.1; Schulman et al. 2016, Eq. 1";
        /// Mixes long and short advantages: 0 is the one-step residual, 1 the return of the whole rollout with
        /// the critic's value behind it, as in the paper.
        lambda: f64 = 1.0, range: 0.0..=1.0, source: "Wu et al. 2017, section 3.1";
        /// Longest step along the natural direction (eta max).
        learning_rate: f64 = 0.25, range: above(0.0), source: "OpenAI baselines, acktr";
        /// How `learning_rate` changes over the run.
        learning_rate_schedule: Schedule = Schedule::Linear, source: "OpenAI baselines, acktr";
        /// Largest divergence of a step, as the quadratic model has it (delta); of each network, when actor and
        /// critic are two.
        trust_region: f64 = 1e-3, range: above(0.0), unit: "nats", source: "Wu et al. 2017, section 5";
        /// Added to the curvature (lambda in Martens and Grosse 2015, section 6.3).
        damping: f64 = 0.01, range: above(0.0), source: "OpenAI baselines, acktr";
        /// Decay of the running averages of the curvature.
        stats_decay: f64 = 0.99, range: 0.0..=0.9999, source: "OpenAI baselines, acktr";
        /// Part of the last step that the next one keeps.
        momentum: f64 = 0.9, range: 0.0..=0.9999, source: "OpenAI baselines, acktr";
        /// Weight of the squared error of the critic (c1).
        value_coef: f64 = 0.5, range: 0.0..=1e6, source: "OpenAI baselines, acktr";
        /// Weight of the entropy bonus (c2). Raising it keeps the policy more random.
        entropy_coef: f64 = 0.01, range: 0.0..=1e6, unit: "per nat", source: "OpenAI baselines, acktr";
        /// Longest gradient of all parameters together; longer ones are scaled down.
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

/// All settings of ACKTR.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AcktrConfig {
    /// The rollout.
    pub rollout: AcktrRollout,
    /// The algorithm.
    pub acktr: AcktrSettings,
    /// The networks.
    pub model: ModelSettings,
    /// How they lie together.
    pub trunk: TrunkSettings,
    /// Normalisation.
    pub normalize: NormalizeSettings,
}

/// ACKTR at work.
pub struct Acktr {
    config: AcktrSettings,
    gamma: f64,
    total_steps: u64,
    steps: u64,
    /// What divergences have left of the step size.
    step_scale: f64,
    model: ActorCritic,
    rollout: Rollout,
    learner: Learner,
    samples: Vec<u32>,
    curvature: Curvature,
    kfac: Kfac,
    gradient: Vec<f32>,
    direction: Vec<f32>,
    velocity: Vec<f32>,
    observer: PhaseObserver,
}

impl std::fmt::Debug for Acktr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acktr")
            .field("config", &self.config)
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}

impl Algorithm for Acktr {
    fn iterate(&mut self, team: &Team) -> Result<Report, AgentError> {
        let Self { config: c, model, rollout, learner, curvature, kfac, observer, .. } = self;
        let Self { samples, gradient, direction, velocity, .. } = self;
        let eta_max = self.step_scale
            * c.learning_rate
            * Factor::from(c.learning_rate_schedule).factor(self.steps, self.total_steps);
        let (gamma, lambda) = (self.gamma as f32, c.lambda as f32);

        observer(Phase::Collect);
        rollout.collect(model, team)?; // run π_θ in N environments for T steps
        observer(Phase::Learn);
        rollout.evaluate(model, team)?; // V(s_t), and V of what follows
        rollout.estimate(team, |p| c.psi.estimate(p, gamma, lambda))?; // Â_t and V_t^targ
        rollout.write_order(samples);
        let n = samples.len();
        let GradientPass { sums, norm } = learner.gradient(
            model,
            rollout,
            samples,
            team,
            gradient,
            |p| policy_loss(p, c, n),
            |v| value_loss(v, c, n),
        ); // −∇L
        check_losses(&sums, 0, 0)?;
        let scale = clip_finite(gradient, norm, c.max_grad_norm, model, 0, 0)?;
        if scale < 1.0 {
            kernels::scale(scale as f32, gradient);
        }
        curvature.measure(model, rollout, team); // E[x̄ x̄ᵀ], E[g gᵀ] of each layer
        kfac.observe(|i| curvature.moments(i));
        kfac.factor().map_err(|e| AgentError::Loss {
            what: "pivot of the curvature",
            epoch: 0,
            minibatch: 0,
            value: e.pivot,
        })?;
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
        self.steps += rollout.len() as u64;
        observer(Phase::Done);
        let mean = sums.mean(n);
        Ok(Report::default()
            .with("learn/policy_loss", -mean.surrogate - c.entropy_coef * mean.entropy)
            .with("learn/value_loss", mean.value_loss)
            .with("learn/entropy", mean.entropy)
            .with("learn/explained_variance", rollout.explained_variance().unwrap_or(f64::NAN))
            .with("learn/grad_norm", norm)
            .with("learn/step_size", steps[0])
            .with("learn/learning_rate", eta_max))
    }

    rollout_algorithm!();

    fn learn_flops(&self) -> f64 {
        let sample = self.model.value_flops() + self.model.update_flops();
        sample as f64 * self.rollout.len() as f64
    }
    fn save(&self) -> Record {
        let mut r = Record::new();
        r.put("steps", vec![self.steps]);
        r.put("step_scale", vec![self.step_scale]);
        r.put("theta", self.model.theta.clone());
        r.put("velocity", self.velocity.clone());
        r.put_record("kfac", self.kfac.save());
        r.put_record("rollout", self.rollout.save());
        r
    }
    fn load(&mut self, from: &Record) -> Result<bool, RecordError> {
        load_finite(from, "theta", &mut self.model.theta)?;
        load_finite(from, "velocity", &mut self.velocity)?;
        self.steps = from.u64("steps")?;
        self.step_scale = from.f64("step_scale")?;
        self.kfac.load(&from.record("kfac"))?;
        self.rollout.load(&from.record("rollout"))
    }
}

/// Where the parameters of each network lie: each has a trust region of its own.
fn networks(model: &ActorCritic) -> impl Iterator<Item = Range<usize>> + use<> {
    let critic = model.is_separate().then(|| model.critic().params.clone());
    std::iter::once(model.actor().params.clone()).chain(critic)
}

/// Adds the gradient of `−log π_θ(a|s) Â − c₂ S`, averaged over `n` samples.
fn policy_loss(p: PolicyChunk<'_>, c: &AcktrSettings, n: usize) {
    let [objective, d_logp, entropy, _] = p.work;
    surrogate::score(p.logp, p.adv, objective, d_logp); // log π_θ(a|s) Â
    p.sums.surrogate += kernels::sum(objective);
    p.dist.entropy(p.params, entropy); // S[π_θ]
    p.sums.entropy += kernels::sum(entropy);
    kernels::scale(-1.0 / n as f32, d_logp);
    entropy.fill(-c.entropy_coef as f32 / n as f32);
    p.dist.logp_entropy_vjp(p.params, p.actions, d_logp, entropy, p.d_out);
}

/// The gradient of `c₁ (V_θ(s_t) − V_t^targ)²`, averaged over `n` samples.
fn value_loss(chunk: ValueChunk<'_>, c: &AcktrSettings, n: usize) {
    let ValueChunk { v, ret, d_v, work, sums, .. } = chunk;
    surrogate::squared(v, ret, work, d_v);
    sums.value_loss += 2.0 * kernels::sum(work);
    // The vocabulary's loss is half the square, the paper's the square.
    kernels::scale((2.0 * c.value_coef / n as f64) as f32, d_v);
}

impl AlgoConfig for AcktrConfig {
    fn parts(&self) -> Vec<&dyn Settings> {
        vec![&self.rollout, &self.acktr, &self.model, &self.trunk, &self.normalize]
    }
    fn parts_mut(&mut self) -> Vec<&mut dyn Settings> {
        vec![&mut self.rollout, &mut self.acktr, &mut self.model, &mut self.trunk, &mut self.normalize]
    }
    fn boxed_clone(&self) -> Box<dyn AlgoConfig> {
        Box::new(self.clone())
    }
    fn check(&self, _env: &EnvSpec) -> Result<(), BuildError> {
        self.rollout.check()
    }
    fn build(&self, setup: &Setup<'_>) -> Result<Box<dyn Algorithm>, BuildError> {
        Ok(Box::new(Acktr::new(self, setup)?))
    }
}

impl Acktr {
    /// ACKTR with its environments, not yet started.
    ///
    /// # Errors
    /// When settings do not fit together.
    pub fn new(config: &AcktrConfig, setup: &Setup<'_>) -> Result<Self, BuildError> {
        config.check(setup.spec)?;
        let model = config.model.build(setup.spec, Critic::State, config.trunk.trunk.into(), setup.seed)?;
        let rollout = config.rollout.build(&config.normalize, &model, setup)?;
        let curvature = Curvature::new(&model, setup.threads);
        let block = |l: &pgrad_nn::Affine| KroneckerBlock {
            rows: l.rows,
            cols: l.cols,
            weight: l.weight.clone(),
            bias: l.bias.clone(),
        };
        let AcktrSettings { damping, stats_decay, .. } = config.acktr;
        let n_params = model.theta.len();
        Ok(Self {
            learner: Learner::new(&model, rollout.len(), setup.threads),
            samples: (0..rollout.len() as u32).collect(),
            kfac: Kfac::new(
                curvature.layers().iter().map(block).collect(),
                KfacParams { damping, stats_decay },
            ),
            curvature,
            gamma: config.rollout.gamma,
            total_steps: setup.total_steps,
            steps: 0,
            step_scale: 1.0,
            gradient: vec![0.0; n_params],
            direction: vec![0.0; n_params],
            velocity: vec![0.0; n_params],
            config: config.acktr.clone(),
            observer: Box::new(drop),
            model,
            rollout,
        })
    }
}
