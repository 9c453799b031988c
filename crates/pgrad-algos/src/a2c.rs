//! Advantage actor-critic with `N` environments in step. Mnih, Badia, Mirza, Graves, Lillicrap, Harley, Silver,
//! Kavukcuoglu 2016, arXiv:1602.01783, Algorithm S3; without the asynchrony as in OpenAI baselines, a2c.
//!
//! For each iteration, run `π_θ` in `N` environments for `t_max` steps, `R ← r_i + γ R` backwards from
//! `R = V(s_t)` (0 after a terminal state), and take one step of RMSProp on all of it along
//!
//! `E[ ∇ log π_θ(a_i|s_i) (R_i − V(s_i)) + c₂ ∇S[π_θ](s_i) − c₁ ∇(R_i − V_θ(s_i))² ]`.

use crate::algorithm::{AlgoConfig, Algorithm, BuildError, Phase, PhaseObserver, Report, Setup};
use crate::common::{
    ModelSettings, NormalizeSettings, Psi, RecurrentSettings, RolloutSettings, Schedule, TrunkSettings,
    check_losses, clip_finite, load_finite, rollout_algorithm,
};
use pgrad_agent::{
    ActorCritic, AgentError, Critic, GradientPass, Learner, LossSums, ObsNormalizer, Paths, PolicyChunk,
    Rollout, ValueChunk,
};
use pgrad_env::{EnvSpec, Episode};
use pgrad_num::{Record, RecordError, Team, kernels};
use pgrad_optim::{RmsProp, RmsPropParams, Schedule as Factor};
use pgrad_rl::{returns, surrogate};
use pgrad_settings::{Settings, above, choice, settings, settings_like};

/// The registry's line.
pub const ENTRY: crate::AlgoEntry = crate::AlgoEntry {
    name: "a2c",
    title: "Advantage actor-critic, environments in step",
    source: "Mnih et al. 2016, arXiv:1602.01783",
    config: || Box::new(A2cConfig::default()),
};

choice! {
    /// What advantages and the critic's targets are made of.
    pub enum Advantage {
        /// Rewards up to the end of the rollout and the value behind it, minus V(s).
        NStep = "n-step",
        /// Generalised advantage estimation: the lambda-return minus V(s).
        Gae = "gae",
        /// The lambda-return itself, an estimate of Q(s, a), with V(s) not taken off.
        LambdaReturn = "lambda-return",
        /// V-trace: several steps on the same rollout, each step back weighed by the ratio of the present policy to
        /// the one that acted.
        Vtrace = "vtrace",
    }
}

settings! {
    /// Advantage actor-critic.
    pub struct A2cSettings {
        /// What advantages and the critic's targets are made of.
        advantage: Advantage = Advantage::NStep, source: "Mnih et al. 2016, Algorithm S3";
        /// Mixes long and short advantages: 0 is the one-step residual, 1 the whole return.
        lambda: f64 = 0.95, range: 0.0..=1.0, source: "Schulman et al. 2016, section 6.3",
            when: advantage is "gae" | "lambda-return" | "vtrace";
        /// Steps on the same rollout. The second one finds the data stale.
        epochs: usize = 2, range: 2..=1000, unit: "epochs", when: advantage is "vtrace";
        /// Largest weight of a temporal difference, and of a step's gradient, in V-trace. Lowering it pulls the
        /// values from those of the present policy to those of the one that acted.
        rho_bar: f64 = 1.0, range: above(0.0), source: "Espeholt et al. 2018, section 4.1",
            when: advantage is "vtrace";
        /// Largest weight of what a step passes back in V-trace. Lowering it has less variance and takes longer.
        c_bar: f64 = 1.0, range: above(0.0), source: "Espeholt et al. 2018, section 4.1",
            when: advantage is "vtrace";
        /// Step size of RMSProp.
        learning_rate: f64 = 7e-4, range: above(0.0), source: "OpenAI baselines, a2c";
        /// How `learning_rate` changes over the run.
        learning_rate_schedule: Schedule = Schedule::Linear, source: "OpenAI baselines, a2c";
        /// Decay of the mean of squared gradients in RMSProp.
        rmsprop_decay: f64 = 0.99, range: 0.0..=0.999_999, source: "OpenAI baselines, a2c";
        /// Added to the mean square in RMSProp, inside the root.
        rmsprop_epsilon: f64 = 1e-5, range: above(0.0), source: "OpenAI baselines, a2c";
        /// Weight of the squared error of the critic (c1).
        value_coef: f64 = 0.5, range: 0.0..=1e6, source: "OpenAI baselines, a2c";
        /// Weight of the entropy bonus (c2). Raising it keeps the policy more random.
        entropy_coef: f64 = 0.01, range: 0.0..=1e6, unit: "per nat", source: "OpenAI baselines, a2c";
        /// Longest gradient of all parameters together; longer ones are scaled down.
        max_grad_norm: Option<f64> = Some(0.5), range: above(0.0), source: "OpenAI baselines, a2c";
    }
}

settings_like! {
    /// The rollout of A2C: data of one iteration.
    pub struct A2cRollout(RolloutSettings) {
        n_envs = 16, source: "OpenAI baselines, a2c";
        n_steps = 5, source: "Mnih et al. 2016, supplement";
        gamma, source: "Mnih et al. 2016, supplement";
    }
}

/// All settings of A2C.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct A2cConfig {
    /// The rollout.
    pub rollout: A2cRollout,
    /// The algorithm.
    pub a2c: A2cSettings,
    /// The networks.
    pub model: ModelSettings,
    /// Their memory.
    pub recurrent: RecurrentSettings,
    /// How they lie together.
    pub trunk: TrunkSettings,
    /// Normalisation.
    pub normalize: NormalizeSettings,
}

/// A2C at work.
pub struct A2c {
    config: A2cSettings,
    gamma: f64,
    total_steps: u64,
    steps: u64,
    /// What divergences have left of the step size.
    step_scale: f64,
    model: ActorCritic,
    rollout: Rollout,
    learner: Learner,
    samples: Vec<u32>,
    rmsprop: RmsProp<f32>,
    gradient: Vec<f32>,
    observer: PhaseObserver,
}

impl std::fmt::Debug for A2c {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("A2c")
            .field("config", &self.config)
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}

impl Algorithm for A2c {
    fn iterate(&mut self, team: &Team) -> Result<Report, AgentError> {
        let Self { config: c, model, rollout, learner, samples, rmsprop, gradient, observer, .. } = self;
        let alpha = self.step_scale
            * c.learning_rate
            * Factor::from(c.learning_rate_schedule).factor(self.steps, self.total_steps);

        observer(Phase::Collect);
        rollout.collect(model, team)?; // run π_θ in N environments for t_max steps
        observer(Phase::Learn);
        rollout.write_order(samples);
        let n = samples.len();
        let mut total = Totals::default();
        for epoch in 0..c.epochs() {
            rollout.evaluate(model, team)?; // V(s_i), and V of what follows
            if epoch > 0 {
                rollout.evaluate_ratios(model, team)?; // π_θ/μ
            }
            rollout.estimate(team, |p| estimate(p, c, self.gamma as f32))?; // R_i − V(s_i), and R_i
            let GradientPass { sums, norm } = learner.gradient(
                model,
                rollout,
                samples,
                team,
                gradient,
                |p| policy_loss(p, c, n),
                |v| value_loss(v, c, n),
            ); // dθ, downhill
            total.add(&sums, epoch)?;
            let scale = clip_finite(gradient, norm, c.max_grad_norm, model, epoch, 0)?;
            let (theta, ends) = model.theta_and_ends();
            rmsprop.step_parts(team, ends, theta, gradient, scale, alpha); // θ
            total.grad_norm += norm;
        }
        self.steps += rollout.len() as u64;
        observer(Phase::Done);
        Ok(total.report(c, rollout, alpha))
    }

    rollout_algorithm!();

    fn learn_flops(&self) -> f64 {
        let epochs = self.config.epochs();
        let sample = (self.model.value_flops() + self.model.update_flops()) * epochs
            + self.model.actor().net.forward_flops() * (epochs - 1);
        sample as f64 * self.rollout.len() as f64
    }
    fn save(&self) -> Record {
        let mut r = Record::new();
        r.put("steps", vec![self.steps]);
        r.put("step_scale", vec![self.step_scale]);
        r.put("theta", self.model.theta.clone());
        r.put_record("rmsprop", self.rmsprop.save());
        r.put_record("rollout", self.rollout.save());
        r
    }
    fn load(&mut self, from: &Record) -> Result<bool, RecordError> {
        load_finite(from, "theta", &mut self.model.theta)?;
        self.steps = from.u64("steps")?;
        self.step_scale = from.f64("step_scale")?;
        self.rmsprop.load(&from.record("rmsprop"))?;
        self.rollout.load(&from.record("rollout"))
    }
}

impl A2cSettings {
    /// Steps on the same rollout.
    fn epochs(&self) -> usize {
        if self.advantage == Advantage::Vtrace { self.epochs } else { 1 }
    }
}

/// `R_i − V(s_i)`, and the critic's targets `R_i`.
fn estimate(p: Paths<'_>, c: &A2cSettings, gamma: f32) {
    let lambda = c.lambda as f32;
    match c.advantage {
        Advantage::NStep => {
            let Paths { reward, v, v_next, carry, adv, mut ret, .. } = p;
            returns::reward_to_go(reward, Some(v_next), carry, gamma, ret.reborrow()); // R ← r_i + γ R
            returns::subtract(ret.as_tb(), v, adv);
        }
        Advantage::Gae => Psi::Gae.estimate(p, gamma, lambda),
        Advantage::LambdaReturn => Psi::LambdaReturn.estimate(p, gamma, lambda),
        Advantage::Vtrace => {
            let Paths { reward, v, v_next, carry, ratio, adv, ret } = p;
            let (rho_bar, c_bar) = (c.rho_bar as f32, c.c_bar as f32);
            // ρ_i (r_i + γ vs_{i+1} − V(s_i)), and vs_i: Espeholt et al. 2018, section 4.2.
            returns::vtrace(reward, v, v_next, carry, ratio, gamma, lambda, rho_bar, c_bar, ret, adv);
        }
    }
}

/// Adds the gradient of `−log π_θ(a|s) (R − V(s)) − c₂ S`, averaged over `n` samples.
fn policy_loss(p: PolicyChunk<'_>, c: &A2cSettings, n: usize) {
    let [objective, d_logp, entropy, _] = p.work;
    surrogate::score(p.logp, p.adv, objective, d_logp); // log π_θ(a|s) (R − V(s))
    p.sums.surrogate += kernels::sum(objective);
    p.dist.entropy(p.params, entropy); // S[π_θ]
    p.sums.entropy += kernels::sum(entropy);
    kernels::scale(-1.0 / n as f32, d_logp);
    entropy.fill(-c.entropy_coef as f32 / n as f32);
    p.dist.logp_entropy_vjp(p.params, p.actions, d_logp, entropy, p.d_out);
}

/// The gradient of `c₁ (R − V_θ(s))²`, averaged over `n` samples.
fn value_loss(chunk: ValueChunk<'_>, c: &A2cSettings, n: usize) {
    let ValueChunk { v, ret, d_v, work, sums, .. } = chunk;
    surrogate::squared(v, ret, work, d_v);
    sums.value_loss += 2.0 * kernels::sum(work);
    // The vocabulary's loss is half the square, the paper's the square.
    kernels::scale((2.0 * c.value_coef / n as f64) as f32, d_v);
}

/// Sums over the epochs of an iteration.
#[derive(Debug, Default)]
struct Totals {
    sums: LossSums,
    grad_norm: f64,
    epochs: usize,
}

impl Totals {
    fn add(&mut self, sums: &LossSums, epoch: usize) -> Result<(), AgentError> {
        check_losses(sums, epoch, 0)?;
        self.sums.add(sums);
        self.epochs += 1;
        Ok(())
    }
    fn report(&self, c: &A2cSettings, rollout: &Rollout, alpha: f64) -> Report {
        let mean = self.sums.mean(self.epochs * rollout.len());
        Report::default()
            .with("learn/policy_loss", -mean.surrogate - c.entropy_coef * mean.entropy)
            .with("learn/value_loss", mean.value_loss)
            .with("learn/entropy", mean.entropy)
            .with("learn/explained_variance", rollout.explained_variance().unwrap_or(f64::NAN))
            .with("learn/grad_norm", self.grad_norm / self.epochs as f64)
            .with("learn/updates", self.epochs as f64)
            .with("learn/learning_rate", alpha)
    }
}

impl AlgoConfig for A2cConfig {
    fn parts(&self) -> Vec<&dyn Settings> {
        vec![&self.rollout, &self.a2c, &self.model, &self.recurrent, &self.trunk, &self.normalize]
    }
    fn parts_mut(&mut self) -> Vec<&mut dyn Settings> {
        let Self { rollout, a2c, model, recurrent, trunk, normalize } = self;
        vec![rollout, a2c, model, recurrent, trunk, normalize]
    }
    fn boxed_clone(&self) -> Box<dyn AlgoConfig> {
        Box::new(self.clone())
    }
    fn check(&self, _env: &EnvSpec) -> Result<(), BuildError> {
        self.rollout.check()?;
        self.recurrent.check(self.rollout.n_steps, self.rollout.samples())
    }
    fn build(&self, setup: &Setup<'_>) -> Result<Box<dyn Algorithm>, BuildError> {
        Ok(Box::new(A2c::new(self, setup)?))
    }
}

impl A2c {
    /// A2C with its environments, not yet started.
    ///
    /// # Errors
    /// When settings do not fit together.
    pub fn new(config: &A2cConfig, setup: &Setup<'_>) -> Result<Self, BuildError> {
        config.check(setup.spec)?;
        let recurrence = config.recurrent.recurrence(config.rollout.n_steps, config.rollout.samples());
        let (trunk, hidden) = (config.trunk.trunk.into(), &config.model.hidden);
        let model =
            config.model.build_on(recurrence, setup.spec, Critic::State, trunk, hidden, setup.seed)?;
        let rollout = config.rollout.build(&config.normalize, &model, setup)?;
        let A2cSettings { rmsprop_decay: decay, rmsprop_epsilon: epsilon, .. } = config.a2c;
        let n_params = model.theta.len();
        Ok(Self {
            learner: Learner::new(&model, rollout.len(), setup.threads),
            samples: rollout.order(),
            gamma: config.rollout.gamma,
            total_steps: setup.total_steps,
            steps: 0,
            step_scale: 1.0,
            rmsprop: RmsProp::new(n_params, RmsPropParams { decay, epsilon }),
            gradient: vec![0.0; n_params],
            config: config.a2c.clone(),
            observer: Box::new(drop),
            model,
            rollout,
        })
    }
}
