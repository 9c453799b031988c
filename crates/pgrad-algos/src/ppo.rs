//! Proximal Policy Optimization. Schulman, Wolski, Dhariwal, Radford, Klimov 2017, arXiv:1707.06347.
//!
//! Algorithm 1: for each iteration, run `π_θold` in `N` environments for `T` steps, compute `Â_1 ... Â_T`,
//! then climb, with `K` epochs of minibatches of `M ≤ N T` samples,
//!
//! `L(θ) = E_t[ min(r_t Â_t, clip(r_t, 1−ε, 1+ε) Â_t) − c₁ (V_θ(s_t) − V_t^targ)² + c₂ S[π_θ](s_t) ]`
//! (Eqs. 7 and 9), with `r_t = π_θ(a_t|s_t) / π_θold(a_t|s_t)`. The other rows of the paper's Table 1 put
//! `r_t Â_t − β KL[π_θold, π_θ]` (Eq. 8) or `r_t Â_t` (Eq. 6) in place of the minimum.

use crate::algorithm::{AlgoConfig, Algorithm, BuildError, Phase, PhaseObserver, Report, Setup};
use crate::common::{
    ModelSettings, NormalizeSettings, Psi, RecurrentSettings, RolloutSettings, Schedule, TrunkSettings,
    check_losses, clip_finite, load_finite, rollout_algorithm,
};
use pgrad_agent::{
    ActorCritic, AgentError, Critic, GradientPass, Learner, LossSums, Minibatches, ObsNormalizer, Paths,
    PolicyChunk, Rollout, ValueChunk,
};
use pgrad_env::{EnvSpec, Episode};
use pgrad_num::{Record, RecordError, Team, kernels};
use pgrad_optim::{Adam, AdamParams, Schedule as Factor};
use pgrad_rl::{returns, surrogate};
use pgrad_settings::{Settings, above, choice, settings};

/// The registry's line.
pub const ENTRY: crate::AlgoEntry = crate::AlgoEntry {
    name: "ppo",
    title: "Proximal Policy Optimization",
    source: "Schulman et al. 2017, arXiv:1707.06347",
    config: || Box::new(PpoConfig::default()),
};

choice! {
    /// What keeps the new policy near the old one (Schulman et al. 2017, Table 1).
    pub enum Objective {
        /// The probability ratio is clipped (Eq. 7).
        Clip = "clip",
        /// A penalty on KL(old, new) whose weight adapts to a target after each iteration (Eq. 8, section 4).
        KlAdaptive = "kl-adaptive",
        /// A penalty on KL(old, new) of fixed weight.
        KlFixed = "kl-fixed",
        /// Nothing (Eq. 6).
        Unbounded = "none",
    }
}

choice! {
    /// What advantages and the critic's targets are made of.
    pub enum Advantage {
        /// Generalised advantage estimation: the lambda-return minus V(s); for lambda 1 the estimator of Eq. 10.
        Gae = "gae",
        /// The lambda-return itself, an estimate of Q(s, a), with V(s) not taken off.
        LambdaReturn = "lambda-return",
        /// V-trace, for data that later epochs find stale: each step back is weighed by the ratio of the present
        /// policy to the one that acted. Needs `recompute_advantage`.
        Vtrace = "vtrace",
    }
}

choice! {
    /// What state a sequence of a recurrent policy starts from in training.
    pub enum InitialState {
        /// The one that the rollout went through.
        Stored = "stored",
        /// The one that the present parameters reach from the start of the rollout, computed anew before each epoch but
        /// the first.
        Recomputed = "recomputed",
    }
}

settings! {
    /// Proximal Policy Optimization.
    pub struct PpoSettings {
        /// What keeps the new policy near the old one.
        objective: Objective = Objective::Clip, source: "Schulman et al. 2017, Table 1";
        /// What advantages and the critic's targets are made of.
        advantage: Advantage = Advantage::Gae, source: "Schulman et al. 2017, Eq. 11";
        /// Mixes long and short advantages: 0 is the one-step residual, 1 the whole return (GAE).
        lambda: f64 = 0.95, range: 0.0..=1.0, source: "Schulman et al. 2017, Table 5";
        /// Passes over the data of an iteration (K).
        epochs: usize = 4, range: 1..=1000, unit: "epochs", source: "OpenAI baselines, ppo2";
        /// Samples of a minibatch (M); at most `n_envs` x `n_steps`.
        minibatch_size: usize = 256, range: 1..=1_073_741_824, unit: "samples", source: "Schulman et al. 2017, Table 5";
        /// How far the probability ratio may move before its gradient stops (epsilon).
        clip: f64 = 0.2, range: above(0.0), source: "Schulman et al. 2017, Table 1", when: objective is "clip";
        /// How `clip` changes over the run.
        clip_schedule: Schedule = Schedule::Constant, source: "Schulman et al. 2017, Table 5",
            when: objective is "clip";
        /// Weight of the penalty on KL(old, new) (beta); where it adapts, its first value. Raising it shortens
        /// steps.
        kl_coef: f64 = 1.0, range: above(0.0), unit: "per nat", source: "Schulman et al. 2017, section 6.1",
            when: objective is "kl-adaptive" | "kl-fixed";
        /// KL(old, new) of an iteration that the weight of the penalty aims at (d_targ): above 1.5 times this it
        /// doubles, below this divided by 1.5 it halves.
        kl_target: f64 = 0.01, range: above(0.0), unit: "nats", source: "Schulman et al. 2017, Table 1",
            when: objective is "kl-adaptive";
        /// Step size of Adam.
        learning_rate: f64 = 2.5e-4, range: above(0.0), source: "Schulman et al. 2017, Table 5";
        /// How `learning_rate` changes over the run.
        learning_rate_schedule: Schedule = Schedule::Constant, source: "Schulman et al. 2017, Table 5";
        /// Added to the root of the mean squared gradient in Adam.
        adam_epsilon: f64 = 1e-5, range: above(0.0), source: "OpenAI baselines, ppo2";
        /// Weight of the squared error of the critic (c1).
        value_coef: f64 = 0.5, range: 0.0..=1e6, source: "OpenAI baselines, ppo2";
        /// Weight of the entropy bonus (c2). Raising it keeps the policy more random.
        entropy_coef: f64 = 0.0, range: 0.0..=1e6, unit: "per nat", source: "Schulman et al. 2017, Eq. 9";
        /// Longest gradient of all parameters together; longer ones are scaled down.
        max_grad_norm: Option<f64> = Some(0.5), range: above(0.0), source: "OpenAI baselines, ppo2";
        /// Shift and scale the advantages of each minibatch to mean 0 and standard deviation 1.
        normalize_advantage: bool = true, source: "OpenAI baselines, ppo2";
        /// Bound the critic's move from the values of the rollout, too, by this much.
        value_clip: Option<f64> = None, range: above(0.0), source: "OpenAI baselines, ppo2";
        /// Stop the epochs of an iteration when the estimated KL(old, new) exceeds 1.5 times this.
        target_kl: Option<f64> = None, range: above(0.0), unit: "nats", source: "Spinning Up, ppo";
        /// Compute values and advantages anew before each epoch, not only before the first.
        recompute_advantage: bool = false, source: "Andrychowicz et al. 2021, section 3.5";
        /// What state a sequence of a recurrent policy starts from in training. Stored ones grow stale from one epoch to
        /// the next; recomputing costs another pass through the data before each epoch.
        initial_state: InitialState = InitialState::Stored, source: "Kapturowski et al. 2019, section 3",
            when: recurrent is "lstm" | "gru";
        /// Largest weight of a temporal difference in V-trace. Lowering it pulls the values from those of the present
        /// policy to those of the one that acted.
        rho_bar: f64 = 1.0, range: above(0.0), source: "Espeholt et al. 2018, section 4.1",
            when: advantage is "vtrace";
        /// Largest weight of what a step passes back in V-trace. Lowering it has less variance and takes longer.
        c_bar: f64 = 1.0, range: above(0.0), source: "Espeholt et al. 2018, section 4.1",
            when: advantage is "vtrace";
    }
}

/// All settings of PPO.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PpoConfig {
    /// The rollout.
    pub rollout: RolloutSettings,
    /// The algorithm.
    pub ppo: PpoSettings,
    /// The networks.
    pub model: ModelSettings,
    /// Their memory.
    pub recurrent: RecurrentSettings,
    /// How they lie together.
    pub trunk: TrunkSettings,
    /// Normalisation.
    pub normalize: NormalizeSettings,
}

/// PPO at work.
pub struct Ppo {
    config: PpoSettings,
    gamma: f64,
    total_steps: u64,
    steps: u64,
    /// What divergences have left of the step size.
    step_scale: f64,
    /// β, where there is a penalty.
    beta: f64,
    model: ActorCritic,
    rollout: Rollout,
    learner: Learner,
    minibatches: Minibatches,
    adam: Adam<f32>,
    gradient: Vec<f32>,
    observer: PhaseObserver,
}

impl std::fmt::Debug for Ppo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ppo")
            .field("config", &self.config)
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}

impl Algorithm for Ppo {
    fn iterate(&mut self, team: &Team) -> Result<Report, AgentError> {
        let Self { config: c, model, rollout, learner, minibatches, adam, gradient, observer, .. } = self;
        let alpha =
            c.learning_rate * Factor::from(c.learning_rate_schedule).factor(self.steps, self.total_steps);
        let bound = match c.objective {
            Objective::Clip => {
                Bound::Clip(c.clip * Factor::from(c.clip_schedule).factor(self.steps, self.total_steps)) // ε
            }
            Objective::KlAdaptive | Objective::KlFixed => Bound::Penalty(self.beta),
            Objective::Unbounded => Bound::Nothing,
        };

        observer(Phase::Collect);
        rollout.collect(model, team)?; // run π_θold in N environments for T steps
        observer(Phase::Learn);
        minibatches.follow(rollout);
        let mut total = Totals::default();
        'epochs: for epoch in 0..c.epochs {
            if epoch == 0 || c.recompute_advantage {
                rollout.evaluate(model, team)?; // V(s_t), and V of what follows
                if c.advantage == Advantage::Vtrace && epoch > 0 {
                    rollout.evaluate_ratios(model, team)?; // π_θ/π_θold, 1 in the first epoch
                }
                rollout.estimate(team, |p| estimate(p, c, self.gamma as f32))?; // Â_t and V_t^targ
            }
            if epoch > 0 && c.initial_state == InitialState::Recomputed {
                rollout.recompute_states(model, team); // of a recurrent policy, with θ
            }
            minibatches.shuffle();
            for minibatch in 0..minibatches.count() {
                let samples = minibatches.get(minibatch);
                let n = samples.len();
                let (mean, std) =
                    if c.normalize_advantage { rollout.advantage_moments(samples) } else { (0.0, 1.0) };
                let GradientPass { sums, norm } = learner.gradient(
                    model,
                    rollout,
                    samples,
                    team,
                    gradient,
                    |p| policy_loss(p, c, bound, mean, std, n),
                    |v| value_loss(v, c, n),
                ); // −∇L(θ), Eq. 9
                total.add(&sums, n, epoch, minibatch)?;
                if c.target_kl.is_some_and(|target| sums.kl / n as f64 > 1.5 * target) {
                    total.stopped = true;
                    break 'epochs;
                }
                let scale = clip_finite(gradient, norm, c.max_grad_norm, model, epoch, minibatch)?;
                let (theta, ends) = model.theta_and_ends();
                adam.step_parts(team, ends, theta, gradient, scale, alpha * self.step_scale); // θ
                total.grad_norm += norm;
                total.updates += 1;
            }
        }
        if c.objective == Objective::KlAdaptive {
            let sums = learner.look(model, rollout, minibatches.all(), team, divergence);
            total.kl_after = sums.kl / rollout.len() as f64; // d = E_t[KL[π_θold, π_θ]]
            self.beta = adapted(self.beta, total.kl_after, c.kl_target);
        }
        self.steps += rollout.len() as u64;
        observer(Phase::Done);
        Ok(total.report(c, rollout, alpha * self.step_scale, bound))
    }

    rollout_algorithm!();

    fn learn_flops(&self) -> f64 {
        let c = &self.config;
        let evaluations = if c.recompute_advantage { c.epochs } else { 1 };
        let ratios = if c.advantage == Advantage::Vtrace { evaluations - 1 } else { 0 };
        let states = if c.initial_state == InitialState::Recomputed { c.epochs - 1 } else { 0 };
        let looks = ratios + states + usize::from(c.objective == Objective::KlAdaptive);
        let own_critic = if self.model.is_separate() { states } else { 0 };
        let sample = self.model.value_flops() * (evaluations + own_critic)
            + self.model.actor().net.forward_flops() * looks
            + self.model.update_flops() * c.epochs;
        sample as f64 * self.rollout.len() as f64
    }
    fn save(&self) -> Record {
        let mut r = Record::new();
        r.put("steps", vec![self.steps]);
        r.put("step_scale", vec![self.step_scale]);
        r.put("beta", vec![self.beta]);
        r.put("theta", self.model.theta.clone());
        r.put_record("adam", self.adam.save());
        r.put_record("minibatches", self.minibatches.save());
        r.put_record("rollout", self.rollout.save());
        r
    }
    fn load(&mut self, from: &Record) -> Result<bool, RecordError> {
        let beta = from.f64("beta")?;
        if !(beta.is_finite() && beta > 0.0) {
            return Err(RecordError::Value { name: "beta".into(), reason: "a weight is positive".into() });
        }
        load_finite(from, "theta", &mut self.model.theta)?;
        self.beta = beta;
        self.steps = from.u64("steps")?;
        self.step_scale = from.f64("step_scale")?;
        self.adam.load(&from.record("adam"))?;
        self.minibatches.load(&from.record("minibatches"))?;
        self.rollout.load(&from.record("rollout"))
    }
}

/// What keeps the new policy near the old one, in one iteration.
#[derive(Clone, Copy, Debug)]
enum Bound {
    /// The ratio is clipped to `1 ± ε`.
    Clip(f64),
    /// A penalty `β KL[π_θold, π_θ]`.
    Penalty(f64),
    Nothing,
}

/// `Â_t` and `V_t^targ`.
fn estimate(p: Paths<'_>, c: &PpoSettings, gamma: f32) {
    let (lambda, rho_bar, c_bar) = (c.lambda as f32, c.rho_bar as f32, c.c_bar as f32);
    match c.advantage {
        Advantage::Gae => Psi::Gae.estimate(p, gamma, lambda), // Â_t, Eq. 11; V_t^targ = Â_t + V(s_t)
        Advantage::LambdaReturn => Psi::LambdaReturn.estimate(p, gamma, lambda),
        Advantage::Vtrace => {
            let Paths { reward, v, v_next, carry, ratio, mut adv, mut ret } = p;
            let (vs, adv_rho) = (ret.reborrow(), adv.reborrow());
            returns::vtrace(reward, v, v_next, carry, ratio, gamma, lambda, rho_bar, c_bar, vs, adv_rho);
            // The surrogate has the ratio itself: Â_t = r_t + γ vs_{t+1} − V(s_t), without V-trace's weight.
            returns::one_step_advantage(reward, v, v_next, carry, ret.as_tb(), gamma, adv);
        }
    }
}

/// Adds the gradient of the negative objective (Eqs. 6, 7 or 8) and of `−c₂ S` (Eq. 9), averaged over a minibatch of
/// `n`.
fn policy_loss(mut p: PolicyChunk<'_>, c: &PpoSettings, bound: Bound, mean: f64, std: f64, n: usize) {
    let [ratio, objective, d_logp, entropy] = p.work;
    let (mean, scale) = (mean as f32, (1.0 / (std + 1e-8)) as f32);
    p.adv.iter_mut().for_each(|a| *a = (*a - mean) * scale);
    if let Bound::Clip(epsilon) = bound {
        let clipped = surrogate::clip(p.logp, p.logp_old, p.adv, epsilon as f32, ratio, objective, d_logp); // L^CLIP, Eq. 7
        p.sums.clipped += clipped as f64;
    } else {
        surrogate::ratio(p.logp, p.logp_old, p.adv, ratio, objective, d_logp); // L^CPI = r_t Â_t, Eq. 6
    }
    p.sums.surrogate += kernels::sum(objective);
    let kl = ratio;
    if let Bound::Penalty(beta) = bound {
        p.dist.kl(p.params_old, p.params, kl);
        p.sums.kl += kernels::sum(kl);
        p.sums.surrogate -= beta * kernels::sum(kl); // L^KLPEN = r_t Â_t − β KL[π_θold, π_θ], Eq. 8
        kl.fill((beta / n as f64) as f32);
        p.dist.kl_vjp(p.params_old, p.params, kl, p.d_out.reborrow());
    } else {
        surrogate::kl_k3(p.logp, p.logp_old, kl);
        p.sums.kl += kernels::sum(kl);
    }
    p.dist.entropy(p.params, entropy); // S[π_θ]
    p.sums.entropy += kernels::sum(entropy);
    kernels::scale(-1.0 / n as f32, d_logp);
    entropy.fill(-c.entropy_coef as f32 / n as f32);
    p.dist.logp_entropy_vjp(p.params, p.actions, d_logp, entropy, p.d_out);
}

/// Sums `KL[π_θold, π_θ]`.
fn divergence(p: PolicyChunk<'_>) {
    let [kl, ..] = p.work;
    p.dist.kl(p.params_old, p.params, kl);
    p.sums.kl += kernels::sum(kl);
}

/// β for the next iteration, when this one moved the policy by `d` (section 4). It is kept within 2⁻³⁰ and 2³⁰, from
/// where it can come back.
fn adapted(beta: f64, d: f64, d_targ: f64) -> f64 {
    let beta = if d < d_targ / 1.5 {
        beta / 2.0
    } else if d > d_targ * 1.5 {
        beta * 2.0
    } else {
        beta
    };
    beta.clamp(2f64.powi(-30), 2f64.powi(30))
}

/// The gradient of `c₁ (V_θ(s_t) − V_t^targ)²` (Eq. 9), averaged over a minibatch of `n`.
fn value_loss(chunk: ValueChunk<'_>, c: &PpoSettings, n: usize) {
    let ValueChunk { v, v_old, ret, d_v, work, sums } = chunk;
    match c.value_clip {
        None => surrogate::squared(v, ret, work, d_v),
        Some(range) => surrogate::squared_clipped(v, v_old, ret, range as f32, work, d_v),
    }
    sums.value_loss += 2.0 * kernels::sum(work);
    // The vocabulary's loss is half the square, the paper's the square.
    kernels::scale((2.0 * c.value_coef / n as f64) as f32, d_v);
}

/// Sums over the minibatches of an iteration.
#[derive(Debug, Default)]
struct Totals {
    sums: LossSums,
    samples: usize,
    grad_norm: f64,
    updates: usize,
    stopped: bool,
    /// `KL[π_θold, π_θ]` after the last epoch, where β adapts.
    kl_after: f64,
}

impl Totals {
    fn add(&mut self, sums: &LossSums, n: usize, epoch: usize, minibatch: usize) -> Result<(), AgentError> {
        check_losses(sums, epoch, minibatch)?;
        self.sums.add(sums);
        self.samples += n;
        Ok(())
    }
    fn report(&self, c: &PpoSettings, rollout: &Rollout, alpha: f64, bound: Bound) -> Report {
        let mean = self.sums.mean(self.samples);
        let report = Report::default()
            .with("learn/policy_loss", -mean.surrogate - c.entropy_coef * mean.entropy)
            .with("learn/value_loss", mean.value_loss)
            .with("learn/entropy", mean.entropy)
            .with("learn/kl", mean.kl)
            .with("learn/explained_variance", rollout.explained_variance().unwrap_or(f64::NAN))
            .with("learn/grad_norm", self.grad_norm / self.updates.max(1) as f64)
            .with("learn/updates", self.updates as f64)
            .with("learn/kl_stopped", f64::from(u8::from(self.stopped)))
            .with("learn/learning_rate", alpha);
        match bound {
            Bound::Clip(epsilon) => {
                report.with("learn/clip_fraction", mean.clipped).with("learn/clip", epsilon)
            }
            Bound::Penalty(beta) if c.objective == Objective::KlAdaptive => {
                report.with("learn/kl_coef", beta).with("learn/kl_after", self.kl_after)
            }
            Bound::Penalty(beta) => report.with("learn/kl_coef", beta),
            Bound::Nothing => report,
        }
    }
}

impl AlgoConfig for PpoConfig {
    fn parts(&self) -> Vec<&dyn Settings> {
        vec![&self.rollout, &self.ppo, &self.model, &self.recurrent, &self.trunk, &self.normalize]
    }
    fn parts_mut(&mut self) -> Vec<&mut dyn Settings> {
        let Self { rollout, ppo, model, recurrent, trunk, normalize } = self;
        vec![rollout, ppo, model, recurrent, trunk, normalize]
    }
    fn boxed_clone(&self) -> Box<dyn AlgoConfig> {
        Box::new(self.clone())
    }
    fn check(&self, _env: &EnvSpec) -> Result<(), BuildError> {
        let (samples, size) = (self.rollout.samples(), self.ppo.minibatch_size);
        if size > samples {
            return Err(BuildError::Inconsistent {
                key: "minibatch_size",
                value: size.to_string(),
                reason: format!(
                    "an iteration has n_envs x n_steps = {} x {} = {samples} samples; take at most that many",
                    self.rollout.n_envs, self.rollout.n_steps
                ),
            });
        }
        if u32::try_from(samples).is_err() {
            return Err(BuildError::Inconsistent {
                key: "n_steps",
                value: self.rollout.n_steps.to_string(),
                reason: format!("an iteration would have {samples} samples; at most {} fit", u32::MAX),
            });
        }
        if self.ppo.advantage == Advantage::Vtrace && (!self.ppo.recompute_advantage || self.ppo.epochs == 1)
        {
            return Err(BuildError::Inconsistent {
                key: "advantage",
                value: Advantage::Vtrace.to_string(),
                reason: "data grow stale from one epoch to the next; give `recompute_advantage=true` and 2 `epochs` \
                         or more, or leave `advantage` at `gae`"
                    .to_owned(),
            });
        }
        if self.ppo.initial_state == InitialState::Recomputed && self.ppo.epochs == 1 {
            return Err(BuildError::Inconsistent {
                key: "initial_state",
                value: InitialState::Recomputed.to_string(),
                reason: "in the first epoch the states are those of the rollout; give 2 `epochs` or more, or leave \
                         `initial_state` at `stored`"
                    .to_owned(),
            });
        }
        self.recurrent.check(self.rollout.n_steps, size)
    }
    fn build(&self, setup: &Setup<'_>) -> Result<Box<dyn Algorithm>, BuildError> {
        Ok(Box::new(Ppo::new(self, setup)?))
    }
}

impl Ppo {
    /// PPO with its environments, not yet started.
    ///
    /// # Errors
    /// When settings do not fit together.
    pub fn new(config: &PpoConfig, setup: &Setup<'_>) -> Result<Self, BuildError> {
        config.check(setup.spec)?;
        let recurrence = config.recurrent.recurrence(config.rollout.n_steps, config.ppo.minibatch_size);
        let (trunk, hidden) = (config.trunk.trunk.into(), &config.model.hidden);
        let model =
            config.model.build_on(recurrence, setup.spec, Critic::State, trunk, hidden, setup.seed)?;
        let mut rollout = config.rollout.build(&config.normalize, &model, setup)?;
        if matches!(config.ppo.objective, Objective::KlAdaptive | Objective::KlFixed) {
            rollout.keep_policy_params(&model);
        }
        let minibatches = Minibatches::of(&rollout, config.ppo.minibatch_size, setup.seed);
        let adam = AdamParams { epsilon: config.ppo.adam_epsilon, ..AdamParams::default() };
        let n_params = model.theta.len();
        Ok(Self {
            learner: Learner::new(&model, minibatches.size(), setup.threads),
            gamma: config.rollout.gamma,
            total_steps: setup.total_steps,
            steps: 0,
            step_scale: 1.0,
            beta: config.ppo.kl_coef,
            adam: Adam::new(n_params, adam),
            gradient: vec![0.0; n_params],
            config: config.ppo.clone(),
            observer: Box::new(drop),
            model,
            rollout,
            minibatches,
        })
    }
}
