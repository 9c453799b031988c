//! REINFORCE. Williams 1992, "Simple statistical gradient-following algorithms for connectionist reinforcement
//! learning", Machine Learning 8.
//!
//! Episodic REINFORCE: play whole episodes under `π_θ`, then climb along
//!
//! `∇J(θ) ≈ (1/K) Σ_episodes Σ_t Ψ_t ∇log π_θ(a_t|s_t)`
//!
//! (Williams 1992, Theorem 2), where `Ψ_t` is the return of the episode, the return that followed `a_t`, or that
//! minus a baseline `b(s_t)` (Williams' reinforcement comparison; forms 1 to 3 of Schulman et al. 2016, Eq. 1).
//! All three have the same mean and fall in variance. The baseline is a `V_w` that is regressed on the returns
//! (Sutton and Barto 2018, section 13.4).
//!
//! Nothing is learnt before an episode has ended. Where a time limit cut one, the sums of forms 1 and 2 stop:
//! there is no critic to ask what would have come. Form 3 has one, and adds `V_w(final observation)`.

use crate::algorithm::{AlgoConfig, Algorithm, BuildError, Phase, PhaseObserver, Report, Setup};
use crate::common::{
    EpisodeSettings, ModelSettings, NormalizeSettings, Schedule, StepRule, check_gradient, check_losses,
    load_finite, rollout_algorithm,
};
use pgrad_agent::{
    ActorCritic, AgentError, Critic, GradientPass, Learner, LossSums, ObsNormalizer, PolicyChunk, Rollout,
    Trunk, ValueChunk,
};
use pgrad_env::{EnvSpec, Episode};
use pgrad_num::{Record, RecordError, Team, kernels};
use pgrad_optim::{Schedule as Factor, clip_global_norm};
use pgrad_rl::{returns, surrogate};
use pgrad_settings::{Settings, above, choice, settings};

/// The registry's line.
pub const ENTRY: crate::AlgoEntry = crate::AlgoEntry {
    name: "reinforce",
    title: "REINFORCE, with the return, the reward-to-go or a baseline",
    source: "Williams 1992, Machine Learning 8",
    config: || Box::new(ReinforceConfig::default()),
};

choice! {
    /// What weighs the score of an action.
    pub enum Psi {
        /// The return of the whole episode.
        Total = "total",
        /// The return that followed the action.
        ToGo = "to-go",
        /// The return that followed the action, minus a learnt value of the state.
        Baseline = "baseline",
    }
}

choice! {
    /// How a gradient becomes a step.
    pub enum Optimizer {
        /// Along the gradient, as in the paper.
        Sgd = "sgd",
        /// Adam.
        Adam = "adam",
    }
}

settings! {
    /// REINFORCE.
    pub struct ReinforceSettings {
        /// What weighs the score of an action.
        psi: Psi = Psi::Baseline, source: "Schulman et al. 2016, Eq. 1, forms 1 to 3";
        /// How a gradient becomes a step.
        optimizer: Optimizer = Optimizer::Sgd, source: "Williams 1992, Eq. 1";
        /// Step size of the policy (α).
        learning_rate: f64 = 0.001_953_125, range: above(0.0), source: "Sutton and Barto 2018, Figure 13.2";
        /// How the step sizes change over the run.
        learning_rate_schedule: Schedule = Schedule::Constant, source: "Williams 1992, Eq. 1";
        /// Step size of the baseline's regression on the returns.
        value_learning_rate: f64 = 0.015_625, range: above(0.0), source: "Sutton and Barto 2018, Figure 13.2",
            when: psi is "baseline";
        /// Bootstrap from the value of the final observation where a time limit cut an episode. Off treats the
        /// cut as an end of the task.
        bootstrap_time_limit: bool = true, source: "Pardo et al. 2018, Eq. 6", when: psi is "baseline";
        /// Weigh step t by gamma to the t, the gradient of the discounted return from the start. Off, as most
        /// do, counts late states as much as early ones. The return of the whole episode has the weight in it.
        discount_states: bool = false, source: "Sutton and Barto 2018, section 13.3",
            when: psi is "to-go" | "baseline";
        /// Shift and scale the weights of a batch to mean 0 and standard deviation 1. Then they are no longer
        /// those of the paper.
        normalize_psi: bool = false, source: "SLM-Lab, REINFORCE";
        /// Weight of the entropy bonus. Raising it keeps the policy more random.
        entropy_coef: f64 = 0.0, range: 0.0..=1e6, unit: "per nat", source: "Williams and Peng 1991";
        /// Longest gradient of a network; longer ones are scaled down.
        max_grad_norm: Option<f64> = None, range: above(0.0), source: "SLM-Lab, REINFORCE";
        /// Added to the root of the mean squared gradient in Adam.
        adam_epsilon: f64 = 1e-8, range: above(0.0), source: "Kingma and Ba 2015, Algorithm 1",
            when: optimizer is "adam";
    }
}

/// All settings of REINFORCE.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReinforceConfig {
    /// The episodes.
    pub episodes: EpisodeSettings,
    /// The algorithm.
    pub reinforce: ReinforceSettings,
    /// The networks.
    pub model: ModelSettings,
    /// Normalisation.
    pub normalize: NormalizeSettings,
}

/// REINFORCE at work.
pub struct Reinforce {
    config: ReinforceSettings,
    gamma: f64,
    /// Episodes of a batch, `K`.
    k: usize,
    total_steps: u64,
    steps: u64,
    /// What divergences have left of the step size.
    step_scale: f64,
    model: ActorCritic,
    rollout: Rollout,
    learner: Learner,
    samples: Vec<u32>,
    /// The policy's step rule, and the baseline's if there is one.
    rules: Vec<StepRule>,
    gradient: Vec<f32>,
    observer: PhaseObserver,
}

impl std::fmt::Debug for Reinforce {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reinforce")
            .field("config", &self.config)
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}

impl Algorithm for Reinforce {
    fn iterate(&mut self, team: &Team) -> Result<Report, AgentError> {
        let Self { config: c, model, rollout, learner, samples, gradient, observer, k, .. } = self;
        let left = Factor::from(c.learning_rate_schedule).factor(self.steps, self.total_steps);
        let gamma = self.gamma as f32;

        observer(Phase::Collect);
        rollout.collect(model, team)?; // K whole episodes under π_θ
        observer(Phase::Learn);
        rollout.evaluate(model, team)?; // b(s_t) = V_w(s_t)
        rollout.estimate(team, |p| {
            let (r, carry, mut psi, mut ret) = (p.reward, p.carry, p.adv, p.ret);
            match c.psi {
                Psi::Total => returns::total_return(r, None, carry, gamma, psi.reborrow()), // Ψ_t = Σ_k γ^k r_k
                Psi::ToGo => returns::reward_to_go(r, None, carry, gamma, psi.reborrow()),  // Ψ_t = G_t
                Psi::Baseline => {
                    returns::reward_to_go(r, Some(p.v_next), carry, gamma, ret.reborrow()); // G_t
                    returns::subtract(ret.as_tb(), p.v, psi.reborrow()); // Ψ_t = G_t − b(s_t)
                }
            }
            if c.discount_states && c.psi != Psi::Total {
                returns::discount(carry, gamma, psi); // γ^t Ψ_t
            }
        })?;
        samples.clear();
        samples.extend(0..rollout.len() as u32);
        let (mean, std) = rollout.advantage_moments(samples);
        let (shift, scale) = if c.normalize_psi { (mean, 1.0 / (std + 1e-8)) } else { (0.0, 1.0) };
        let k = *k as f64;
        let GradientPass { sums, .. } = learner.gradient(
            model,
            rollout,
            samples,
            team,
            gradient,
            |p| policy_loss(p, shift as f32, (scale / k) as f32, c.entropy_coef / k),
            |v| value_loss(v, k),
        ); // −∇J(θ), and the gradient of ½ Σ_t (G_t − V_w(s_t))²
        check_losses(&sums, 0, 0)?;
        check_gradient(model, gradient, 0, 0)?;
        let parts = [(model.actor().params.clone(), c.learning_rate)];
        let critic = model.has_critic().then(|| (model.critic().params.clone(), c.value_learning_rate));
        let mut norms = [0.0; 2];
        for (i, (part, alpha)) in parts.into_iter().chain(critic).enumerate() {
            let g = &mut gradient[part.clone()];
            norms[i] = clip_global_norm(g, c.max_grad_norm.unwrap_or(f64::INFINITY));
            self.rules[i].step(&mut model.theta[part], g, alpha * left * self.step_scale); // θ ← θ + α ∇J(θ)
        }
        self.steps += rollout.len() as u64;
        observer(Phase::Done);
        Ok(self.report(&sums, mean, std, norms, left))
    }

    rollout_algorithm!();

    fn learn_flops(&self) -> f64 {
        (self.model.value_flops() + self.model.update_flops()) as f64 * self.rollout.len() as f64
    }
    fn save(&self) -> Record {
        let mut r = Record::new();
        r.put("steps", vec![self.steps]);
        r.put("step_scale", vec![self.step_scale]);
        r.put("theta", self.model.theta.clone());
        for (name, rule) in ["policy", "baseline"].iter().zip(&self.rules) {
            r.put_record(name, rule.save());
        }
        r.put_record("rollout", self.rollout.save());
        r
    }
    fn load(&mut self, from: &Record) -> Result<bool, RecordError> {
        load_finite(from, "theta", &mut self.model.theta)?;
        self.steps = from.u64("steps")?;
        self.step_scale = from.f64("step_scale")?;
        for (name, rule) in ["policy", "baseline"].iter().zip(&mut self.rules) {
            rule.load(&from.record(name))?;
        }
        self.rollout.load(&from.record("rollout"))
    }
}

/// Adds the gradient of `−Σ_t (scale·(Ψ_t − shift) log π(a_t|s_t) + β S[π](s_t))`.
fn policy_loss(p: PolicyChunk<'_>, shift: f32, scale: f32, beta: f64) {
    let [value, d_logp, entropy, _] = p.work;
    p.adv.iter_mut().for_each(|psi| *psi = (*psi - shift) * scale);
    surrogate::score(p.logp, p.adv, value, d_logp); // Ψ_t log π(a_t|s_t)
    p.sums.surrogate += kernels::sum(value);
    p.dist.entropy(p.params, entropy); // S[π](s_t)
    p.sums.entropy += kernels::sum(entropy);
    kernels::scale(-1.0, d_logp);
    entropy.fill(-beta as f32);
    p.dist.logp_entropy_vjp(p.params, p.actions, d_logp, entropy, p.d_out);
}

/// The gradient of `½ Σ_t (G_t − V_w(s_t))²`, averaged over the `k` episodes.
fn value_loss(chunk: ValueChunk<'_>, k: f64) {
    let ValueChunk { v, ret, d_v, work, sums, .. } = chunk;
    surrogate::squared(v, ret, work, d_v);
    sums.value_loss += 2.0 * kernels::sum(work);
    kernels::scale((1.0 / k) as f32, d_v);
}

impl AlgoConfig for ReinforceConfig {
    fn parts(&self) -> Vec<&dyn Settings> {
        vec![&self.episodes, &self.reinforce, &self.model, &self.normalize]
    }
    fn parts_mut(&mut self) -> Vec<&mut dyn Settings> {
        vec![&mut self.episodes, &mut self.reinforce, &mut self.model, &mut self.normalize]
    }
    fn boxed_clone(&self) -> Box<dyn AlgoConfig> {
        Box::new(self.clone())
    }
    fn check(&self, _env: &EnvSpec) -> Result<(), BuildError> {
        self.episodes.check()
    }
    fn build(&self, setup: &Setup<'_>) -> Result<Box<dyn Algorithm>, BuildError> {
        Ok(Box::new(Reinforce::new(self, setup)?))
    }
}

impl Reinforce {
    /// REINFORCE with its environments, not yet started.
    ///
    /// # Errors
    /// When settings do not fit together.
    pub fn new(config: &ReinforceConfig, setup: &Setup<'_>) -> Result<Self, BuildError> {
        config.check(setup.spec)?;
        let c = &config.reinforce;
        let critic = if c.psi == Psi::Baseline { Critic::State } else { Critic::None };
        let model = config.model.build(setup.spec, critic, Trunk::Separate, setup.seed)?;
        let rollout = config.episodes.build(c.bootstrap_time_limit, &config.normalize, &model, setup)?;
        let networks = std::iter::once(model.actor()).chain(model.has_critic().then(|| model.critic()));
        let rule = |n| match c.optimizer {
            Optimizer::Sgd => StepRule::Sgd,
            Optimizer::Adam => StepRule::adam(n, c.adam_epsilon),
        };
        Ok(Self {
            rules: networks.map(|part| rule(part.params.len())).collect(),
            learner: Learner::new(&model, usize::MAX, setup.threads),
            gamma: config.episodes.gamma,
            k: config.episodes.n_episodes,
            total_steps: setup.total_steps,
            steps: 0,
            step_scale: 1.0,
            samples: Vec::new(),
            gradient: vec![0.0; model.theta.len()],
            config: c.clone(),
            observer: Box::new(drop),
            model,
            rollout,
        })
    }

    fn report(&self, sums: &LossSums, mean: f64, std: f64, norms: [f64; 2], left: f64) -> Report {
        let (c, n) = (&self.config, self.rollout.len() as f64);
        let alpha = left * self.step_scale;
        let report = Report::default()
            .with("learn/policy_loss", -sums.surrogate - c.entropy_coef * sums.entropy / self.k as f64)
            .with("learn/psi_mean", mean)
            .with("learn/psi_std", std)
            .with("learn/entropy", sums.entropy / n)
            .with("learn/batch_steps", n)
            .with("learn/grad_norm", norms[0])
            .with("learn/learning_rate", alpha * c.learning_rate);
        if c.psi != Psi::Baseline {
            return report;
        }
        report
            .with("learn/value_loss", sums.value_loss / n)
            .with("learn/explained_variance", self.rollout.explained_variance().unwrap_or(f64::NAN))
            .with("learn/value_grad_norm", norms[1])
            .with("learn/value_learning_rate", alpha * c.value_learning_rate)
    }
}
