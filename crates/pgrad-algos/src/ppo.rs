//! Proximal Policy Optimization. Schulman, Wolski, Dhariwal, Radford, Klimov 2017, arXiv:1707.06347.
//!
//! Algorithm 1: for each iteration, run `π_θold` in `N` environments for `T` steps, compute `Â_1 ... Â_T`,
//! then climb, with `K` epochs of minibatches of `M ≤ N T` samples,
//!
//! `L(θ) = E_t[ min(r_t Â_t, clip(r_t, 1−ε, 1+ε) Â_t) − c₁ (V_θ(s_t) − V_t^targ)² + c₂ S[π_θ](s_t) ]`
//! (Eqs. 7 and 9), with `r_t = π_θ(a_t|s_t) / π_θold(a_t|s_t)`. The other rows of the paper's Table 1 put
//! `r_t Â_t − β KL[π_θold, π_θ]` (Eq. 8) or `r_t Â_t` (Eq. 6) in place of the minimum.

use crate::{
    algorithm::{AlgoConfig, Algorithm, BuildError, Report, Setup, config},
    common::{
        ModelSettings, NormalizeSettings, Psi, RecurrentSettings, RolloutSettings, Schedule, Totals,
        TrunkSettings, actor_critic, engine,
    },
    shell::{Agent, Method, Shell},
};
use pgrad_collect::Collector;
use pgrad_engine::{Batch, Engine, Estimated, Minibatches, Objective, Paths, PolicyTerm, ValueTerm};
use pgrad_env::EnvSpec;
use pgrad_math::returns;
use pgrad_model::{ActorCritic, AgentError};
use pgrad_num::{Record, RecordError};
use pgrad_optim::{Adam, AdamParams};
use pgrad_settings::{above, choice, settings};

/// The registry's line.
pub const ENTRY: crate::AlgoEntry = crate::AlgoEntry {
    name: "ppo",
    title: "Proximal Policy Optimization",
    source: "Schulman et al. 2017, arXiv:1707.06347",
    config: || Box::new(PpoConfig::default()),
};

/// PPO at work.
struct Ppo {
    config: PpoSettings,
    gamma: f32,
    /// β, where there is a penalty.
    beta: f64,
    minibatches: Minibatches,
    adam: Adam<f32>,
}

impl Method for Ppo {
    type Source = Collector;

    fn iterate(&mut self, agent: &mut Agent<Collector>) -> Result<Report, AgentError> {
        let Self { config: c, gamma, beta, minibatches, adam } = self;
        let alpha = agent.step_size(c.learning_rate, c.learning_rate_schedule);
        let epsilon = agent.annealed(c.clip, c.clip_schedule);
        let objective = objective(c, epsilon, *beta);

        let (batch, model, engine) = agent.collect()?; // run π_θold in N environments for T steps
        minibatches.follow(&batch);
        let mut data = estimate(c, *gamma, engine, model, batch, 0)?; // Â_t and V_t^targ
        let (mut totals, mut stopped) = (Totals::default(), false);
        'epochs: for epoch in 0..c.epochs {
            if epoch > 0 && c.recompute_advantage {
                data = estimate(c, *gamma, engine, model, data.into_batch(), epoch)?;
            }
            if epoch > 0 && c.initial_state == InitialState::Recomputed {
                engine.recompute_states(model, &mut data); // of a recurrent policy, with θ
            }
            for minibatch in minibatches.shuffled(epoch) {
                let losses = engine.gradient(model, &data, minibatch, &objective)?; // ∇L(θ), Eq. 9
                totals.add(&losses);
                if c.target_kl.is_some_and(|target| losses.mean().kl > 1.5 * target) {
                    stopped = true;
                    break 'epochs;
                }
                engine.step(model, adam, alpha, &losses, c.max_grad_norm); // θ
                totals.step(&losses);
            }
        }
        let report = (totals.report(c.entropy_coef, &data, alpha))
            .with("learn/kl", totals.mean().kl)
            .with("learn/kl_stopped", f64::from(u8::from(stopped)));
        Ok(match c.objective {
            Bound::Clip => {
                report.with("learn/clip_fraction", totals.mean().clipped).with("learn/clip", epsilon)
            }
            Bound::KlAdaptive => {
                let d = engine.divergence(model, &data, minibatches.all()); // d = E_t[KL[π_θold, π_θ]]
                let used = std::mem::replace(beta, adapted(*beta, d, c.kl_target));
                report.with("learn/kl_coef", used).with("learn/kl_after", d)
            }
            Bound::KlFixed => report.with("learn/kl_coef", *beta),
            Bound::Nothing => report,
        })
    }
    fn save(&self, to: &mut Record) {
        to.put("beta", vec![self.beta]);
        to.put_record("adam", self.adam.save());
        to.put_record("minibatches", self.minibatches.save());
    }
    fn load(&mut self, from: &Record) -> Result<(), RecordError> {
        self.beta = from.f64("beta")?;
        if !(self.beta.is_finite() && self.beta > 0.0) {
            return Err(RecordError::Value { name: "beta".into(), reason: "a weight is positive".into() });
        }
        self.adam.load(&from.record("adam"))?;
        self.minibatches.load(&from.record("minibatches"))
    }
}

/// `L(θ)`, Eq. 9, with the surrogate of Eq. 6, 7 or 8.
fn objective(c: &PpoSettings, epsilon: f64, beta: f64) -> Objective<'static> {
    let (policy, kl) = match c.objective {
        Bound::Clip => (PolicyTerm::Clip { epsilon }, 0.0), // min(r_t Â_t, clip(r_t, 1−ε, 1+ε) Â_t), Eq. 7
        Bound::KlAdaptive | Bound::KlFixed => (PolicyTerm::Ratio, beta), // r_t Â_t − β KL[π_θold, π_θ], Eq. 8
        Bound::Nothing => (PolicyTerm::Ratio, 0.0),         // r_t Â_t, Eq. 6
    };
    let c1 = c.value_coef;
    let value = match c.value_clip {
        None => ValueTerm::Squared { c1 }, // c₁ (V_θ(s_t) − V_t^targ)²
        Some(range) => ValueTerm::SquaredClipped { c1, range },
    };
    Objective {
        policy: Some(policy),
        kl,
        entropy: c.entropy_coef, // c₂ S[π_θ](s_t)
        value: Some(value),
        standardize: c.normalize_advantage,
        ..Objective::default()
    }
}

/// `Â_t` and `V_t^targ` of the data, with the present parameters.
fn estimate<'a>(
    c: &PpoSettings,
    gamma: f32,
    engine: &mut Engine,
    model: &ActorCritic,
    batch: Batch<'a>,
    epoch: usize,
) -> Result<Estimated<'a>, AgentError> {
    let mut data = engine.values(model, batch)?; // V(s_t), and V of what follows
    if c.advantage == Advantage::Vtrace && epoch > 0 {
        engine.ratios(model, &mut data)?; // π_θ/π_θold, 1 in the first epoch
    }
    let (lambda, rho_bar, c_bar) = (c.lambda as f32, c.rho_bar as f32, c.c_bar as f32);
    engine.estimate(data, |p| match c.advantage {
        Advantage::Gae => Psi::Gae.estimate(p, gamma, lambda), // Â_t, Eq. 11; V_t^targ = Â_t + V(s_t)
        Advantage::LambdaReturn => Psi::LambdaReturn.estimate(p, gamma, lambda),
        Advantage::Vtrace => {
            let Paths { reward, v, v_next, carry, ratio, mut adv, mut ret } = p;
            let (vs, adv_rho) = (ret.reborrow(), adv.reborrow());
            returns::vtrace(reward, v, v_next, carry, ratio, gamma, lambda, rho_bar, c_bar, vs, adv_rho);
            // The surrogate has the ratio itself: Â_t = r_t + γ vs_{t+1} − V(s_t), without V-trace's weight.
            returns::one_step_advantage(reward, v, v_next, carry, ret.as_tb(), gamma, adv);
        }
    })
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

choice! {
    /// What keeps the new policy close to the old one (Schulman et al. 2017, Table 1).
    pub enum Bound {
        /// The probability ratio is clipped (Eq. 7).
        Clip = "clip",
        /// A penalty on KL(old, new) whose weight adapts to a target after each iteration (Eq. 8, section 4).
        KlAdaptive = "kl-adaptive",
        /// A penalty on KL(old, new) with a fixed weight.
        KlFixed = "kl-fixed",
        /// No penalty and no clipping (Eq. 6).
        Nothing = "none",
    }
}

choice! {
    /// How advantages and the critic's targets are estimated.
    pub enum Advantage {
        /// Generalised advantage estimation: the lambda-return minus V(s); with lambda 1, the estimator of
        /// Eq. 10.
        Gae = "gae",
        /// The lambda-return itself, an estimate of Q(s, a), without subtracting V(s).
        LambdaReturn = "lambda-return",
        /// V-trace, for data that are stale in later epochs: each step back is weighted by the ratio of the
        /// current policy to the one that acted. Requires `recompute_advantage`.
        Vtrace = "vtrace",
    }
}

choice! {
    /// Recurrent state from which a sequence starts in training.
    pub enum InitialState {
        /// The state that the rollout had reached.
        Stored = "stored",
        /// The state that the current parameters reach from the start of the rollout, recomputed before each
        /// epoch but the first.
        Recomputed = "recomputed",
    }
}

settings! {
    /// Proximal Policy Optimization.
    pub struct PpoSettings {
        /// What keeps the new policy close to the old one.
        objective: Bound = Bound::Clip, source: "Schulman et al. 2017, Table 1";
        /// How advantages and the critic's targets are estimated.
        advantage: Advantage = Advantage::Gae, source: "Schulman et al. 2017, Eq. 11";
        /// Trade-off between bias and variance of the advantages: 0 uses the one-step residual, 1 the full
        /// return (GAE).
        lambda: f64 = 0.95, range: 0.0..=1.0, source: "Schulman et al. 2017, Table 5";
        /// Passes over the data of each iteration (K).
        epochs: usize = 4, range: 1..=1000, unit: "epochs", source: "OpenAI baselines, ppo2";
        /// Samples per minibatch (M); at most `n_envs` x `n_steps`.
        minibatch_size: usize = 256, range: 1..=1_073_741_824, unit: "samples",
            source: "Schulman et al. 2017, Table 5";
        /// How far the probability ratio may move before its gradient stops (epsilon).
        clip: f64 = 0.2, range: above(0.0),
            source: "Schulman et al. 2017, Table 1", when: objective is "clip";
        /// How `clip` changes over the run.
        clip_schedule: Schedule = Schedule::Constant, source: "Schulman et al. 2017, Table 5",
            when: objective is "clip";
        /// Weight of the penalty on KL(old, new) (beta), or its initial value if it adapts. A larger value
        /// shortens steps.
        kl_coef: f64 = 1.0, range: above(0.0), unit: "per nat", source: "Schulman et al. 2017, section 6.1",
            when: objective is "kl-adaptive" | "kl-fixed";
        /// Target KL(old, new) per iteration for the adaptive penalty (d_targ): above 1.5 times the target
        /// its weight doubles, below the target divided by 1.5 it halves.
        kl_target: f64 = 0.01, range: above(0.0), unit: "nats", source: "Schulman et al. 2017, Table 1",
            when: objective is "kl-adaptive";
        /// Step size of Adam.
        learning_rate: f64 = 2.5e-4, range: above(0.0), source: "Schulman et al. 2017, Table 5";
        /// How `learning_rate` changes over the run.
        learning_rate_schedule: Schedule = Schedule::Constant, source: "Schulman et al. 2017, Table 5";
        /// Added to the root mean square of the gradient in Adam (epsilon).
        adam_epsilon: f64 = 1e-5, range: above(0.0), source: "OpenAI baselines, ppo2";
        /// Weight of the critic's squared error (c1).
        value_coef: f64 = 0.5, range: 0.0..=1e6, source: "OpenAI baselines, ppo2";
        /// Weight of the entropy bonus (c2). A larger value keeps the policy more random.
        entropy_coef: f64 = 0.0, range: 0.0..=1e6, unit: "per nat", source: "Schulman et al. 2017, Eq. 9";
        /// Maximum norm of the gradient over all parameters; longer gradients are scaled down to it.
        max_grad_norm: Option<f64> = Some(0.5), range: above(0.0), source: "OpenAI baselines, ppo2";
        /// Shift and scale the advantages of each minibatch to mean 0 and standard deviation 1.
        normalize_advantage: bool = true, source: "OpenAI baselines, ppo2";
        /// Clip the critic's values to within this distance of those of the rollout.
        value_clip: Option<f64> = None, range: above(0.0), source: "OpenAI baselines, ppo2";
        /// End an iteration's epochs when the estimated KL(old, new) exceeds 1.5 times this.
        target_kl: Option<f64> = None, range: above(0.0), unit: "nats", source: "Spinning Up, ppo";
        /// Recompute values and advantages before each epoch, not only before the first.
        recompute_advantage: bool = false, source: "Andrychowicz et al. 2021, section 3.5";
        /// Recurrent state from which a sequence starts in training. Stored states grow stale from one epoch
        /// to the next; recomputing them costs another pass over the data before each epoch.
        initial_state: InitialState = InitialState::Stored, source: "Kapturowski et al. 2019, section 3",
            when: recurrent is "lstm" | "gru";
        /// Truncation of the weight of a temporal difference in V-trace. A smaller value moves the learnt
        /// values from those of the current policy towards those of the policy that acted.
        rho_bar: f64 = 1.0, range: above(0.0), source: "Espeholt et al. 2018, section 4.1",
            when: advantage is "vtrace";
        /// Truncation of the weight that a step passes back to earlier steps in V-trace. A smaller value
        /// reduces variance and slows learning.
        c_bar: f64 = 1.0, range: above(0.0), source: "Espeholt et al. 2018, section 4.1",
            when: advantage is "vtrace";
    }
}

config! {
    /// All settings of PPO.
    pub struct PpoConfig {
        rollout: RolloutSettings,
        ppo: PpoSettings,
        model: ModelSettings,
        recurrent: RecurrentSettings,
        trunk: TrunkSettings,
        normalize: NormalizeSettings,
    }
}

impl AlgoConfig for PpoConfig {
    fn check(&self, _env: &EnvSpec) -> Result<(), BuildError> {
        let c = &self.ppo;
        self.rollout.check()?;
        self.rollout.check_minibatch(c.minibatch_size)?;
        if c.advantage == Advantage::Vtrace && (!c.recompute_advantage || c.epochs == 1) {
            let reason = "V-trace corrects for data that grow stale from one epoch to the next; set \
                `recompute_advantage=true` and at least 2 `epochs`, or leave `advantage` at `gae`";
            return Err(BuildError::setting("advantage", &c.advantage, reason));
        }
        if c.initial_state == InitialState::Recomputed && c.epochs == 1 {
            let reason = "in the first epoch the states are those of the rollout; set at least 2 `epochs`, \
                or leave `initial_state` at `stored`";
            return Err(BuildError::setting("initial_state", &c.initial_state, reason));
        }
        self.recurrent.check(self.rollout.n_steps, c.minibatch_size)
    }
    fn assemble(&self, setup: &Setup<'_>) -> Result<Box<dyn Algorithm>, BuildError> {
        let c = &self.ppo;
        let recurrence = self.recurrent.recurrence(self.rollout.n_steps, c.minibatch_size);
        let model = (&self.model, recurrence);
        let (model, mut collector) = actor_critic(setup, &self.rollout, model, &self.trunk, &self.normalize)?;
        if matches!(c.objective, Bound::KlAdaptive | Bound::KlFixed) {
            collector.keep_policy_params(&model);
        }
        let minibatches = Minibatches::of(collector.store(), c.minibatch_size, setup.seed);
        let engine = engine(setup, &model, &collector).with_gradients(&model, minibatches.size());
        let adam = AdamParams { epsilon: c.adam_epsilon, ..AdamParams::default() };
        let (adam, gamma) = (Adam::new(model.theta.len(), adam), self.rollout.gamma as f32);
        let ppo = Ppo { config: c.clone(), gamma, beta: c.kl_coef, minibatches, adam };
        Ok(Shell::boxed(setup, model, engine, collector, ppo))
    }
}
