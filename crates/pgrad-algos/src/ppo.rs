//! Proximal Policy Optimization. Schulman, Wolski, Dhariwal, Radford, Klimov 2017, arXiv:1707.06347.
//!
//! Algorithm 1: for each iteration, run `π_θold` in `N` environments for `T` steps, compute `Â_1 ... Â_T`,
//! then climb, with `K` epochs of minibatches of `M ≤ N T` samples,
//!
//! `L(θ) = E_t[ min(r_t Â_t, clip(r_t, 1−ε, 1+ε) Â_t) − c₁ (V_θ(s_t) − V_t^targ)² + c₂ S[π_θ](s_t) ]`
//! (Eqs. 7 and 9), with `r_t = π_θ(a_t|s_t) / π_θold(a_t|s_t)`. The other rows of the paper's Table 1 put
//! `r_t Â_t − β KL[π_θold, π_θ]` (Eq. 8) or `r_t Â_t` (Eq. 6) in place of the minimum.

use crate::prelude::*;

/// PPO at work.
struct Ppo {
    config: PpoConfig,
    /// β, where there is a penalty.
    beta: f64,
    minibatches: Minibatches,
    adam: Adam<f32>,
}

impl Method for Ppo {
    type Source = Collector;

    fn iterate(&mut self, agent: &mut Agent<Collector>) -> Result<Report, AgentError> {
        let Self { config, beta, minibatches, adam } = self;
        let c = &config.ppo;
        let alpha = agent.step_size(c.learning_rate, c.learning_rate_schedule);
        let objective = objective(c, agent.annealed(c.clip, c.clip_schedule), *beta);

        let (batch, model, engine) = agent.collect()?; // run π_θold in N environments for T steps
        minibatches.follow(&batch);
        let mut data = estimate(config, engine, model, batch, 0)?; // Â_t and V_t^targ
        let mut totals = Totals::default();
        'epochs: for epoch in 0..c.epochs {
            if epoch > 0 && c.recompute_advantage {
                data = estimate(config, engine, model, data.into_batch(), epoch)?;
            }
            if epoch > 0 && c.initial_state == InitialState::Recomputed {
                engine.recompute_states(model, &mut data); // of a recurrent policy, with θ
            }
            for minibatch in minibatches.shuffled(epoch) {
                let losses = engine.gradient(model, &data, minibatch, &objective)?; // ∇L(θ), Eq. 9
                totals.add(&losses);
                if c.target_kl.is_some_and(|target| losses.mean().kl > 1.5 * target) {
                    totals.stop();
                    break 'epochs;
                }
                engine.step(model, adam, alpha, &losses, c.max_grad_norm); // θ
                totals.step(&losses);
            }
        }
        // d = E_t[KL[π_θold, π_θ]], section 4
        let all = minibatches.all();
        let d = (c.objective == Bound::KlAdaptive).then(|| engine.divergence(model, &data, all));
        *beta = d.map_or(*beta, |d| adapted(*beta, d, c.kl_target));
        let report = totals.report(&objective, &data, alpha);
        Ok(totals.report_distance(report, &objective).with("learn/kl_after", d))
    }

    state! { beta, adam, minibatches }
}

/// `L(θ)`, Eq. 9, with the surrogate of Eq. 6, 7 or 8.
fn objective(c: &PpoSettings, epsilon: f64, beta: f64) -> Objective<'static> {
    let (policy, kl) = match c.objective {
        Bound::Clip => (PolicyTerm::Clip { epsilon }, 0.0), // min(r_t Â_t, clip(r_t, 1−ε, 1+ε) Â_t), Eq. 7
        Bound::KlAdaptive | Bound::KlFixed => (PolicyTerm::Ratio, beta), // r_t Â_t − β KL[π_θold, π_θ], Eq. 8
        Bound::Nothing => (PolicyTerm::Ratio, 0.0),         // r_t Â_t, Eq. 6
    };
    Objective {
        policy: Some(policy),
        kl,
        value: Some(ValueTerm::squared(c.value_coef, c.value_clip)), // c₁ (V_θ(s_t) − V_t^targ)²
        entropy: c.entropy_coef,                                     // c₂ S[π_θ](s_t)
        standardize: c.normalize_advantage,
        ..Objective::default()
    }
}

/// `Â_t` and `V_t^targ` of the data, with the present parameters.
fn estimate<'a>(
    PpoConfig { rollout, ppo: c, .. }: &PpoConfig,
    engine: &mut Engine,
    model: &ActorCritic,
    batch: Batch<'a>,
    epoch: usize,
) -> Result<Estimated<'a>, AgentError> {
    let mut data = engine.values(model, batch)?; // V(s_t), and V of what follows
    if c.advantage == Advantage::Vtrace && epoch > 0 {
        engine.ratios(model, &mut data)?; // π_θ/π_θold, 1 in the first epoch
    }
    let (gamma, lambda) = (rollout.gamma as f32, c.lambda as f32);
    let (rho_bar, c_bar) = (c.rho_bar as f32, c.c_bar as f32);
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

/// β for the next iteration, when this one moved the policy by `d` (section 4). It is kept within 2⁻³⁰ and
/// 2³⁰, from where it can come back.
fn adapted(beta: f64, d: f64, d_targ: f64) -> f64 {
    let factor = match d {
        d if d < d_targ / 1.5 => 0.5,
        d if d > d_targ * 1.5 => 2.0,
        _ => 1.0,
    };
    (beta * factor).clamp(2f64.powi(-30), 2f64.powi(30))
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
        value_coef: f64 = 0.5, range: 0.0..=1e6, source: "Stable-Baselines3, PPO (ppo2 halves the error)";
        /// Weight of the entropy bonus (c2). A larger value keeps the policy more random.
        entropy_coef: f64 = 0.0, range: 0.0..=1e6, unit: "per nat", source: "Schulman et al. 2017, Eq. 9";
        /// Maximum norm of the gradient over all parameters; longer gradients are scaled down to it.
        max_grad_norm: Option<f64> = Some(0.5), range: above(0.0), source: "OpenAI baselines, ppo2";
        /// Shift and scale the advantages of each minibatch to mean 0 and standard deviation 1.
        normalize_advantage: bool = true, source: "OpenAI baselines, ppo2";
        /// Clip the critic's values to within this distance of those of the rollout; with
        /// `recompute_advantage`, of those at the start of the epoch.
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
    name: "ppo", title: "Proximal Policy Optimization", source: "Schulman et al. 2017, arXiv:1707.06347";
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
        self.rollout.check(c.minibatch_size, Some(&self.recurrent))?;
        if c.advantage == Advantage::Vtrace && (!c.recompute_advantage || c.epochs == 1) {
            let reason = "V-trace corrects for data that grow stale from one epoch to the next; set \
                `recompute_advantage=true` and at least 2 `epochs`, or leave `advantage` at `gae`";
            return Err(BuildError::setting("advantage", &c.advantage, reason));
        }
        c.initial_state.check(c.epochs)
    }
    fn resolve(&mut self) {
        self.recurrent.resolve(self.rollout.n_steps, self.ppo.minibatch_size);
        self.rollout.resolve();
    }
    fn needs(&self, env: &EnvSpec, threads: usize) -> Result<Needs, BuildError> {
        let (at, networks) = ((env, threads), (&self.model, Some(&self.recurrent), &self.trunk));
        // Parameters, gradient, Adam's two moments.
        actor_critic_needs(at, &self.rollout, networks, self.ppo.minibatch_size, (4, 3), false)
    }
    fn assemble(&self, setup: &Setup<'_>) -> Result<Box<dyn Algorithm>, BuildError> {
        let (c, networks) = (&self.ppo, (&self.model, Some(&self.recurrent), &self.trunk));
        let (mut agent, minibatches) =
            actor_critic(setup, &self.rollout, networks, &self.normalize, c.minibatch_size)?;
        if matches!(c.objective, Bound::KlAdaptive | Bound::KlFixed) {
            agent.source.keep_policy_params(&agent.model);
        }
        let n = agent.model.theta.len();
        let adam = Adam::new(n, AdamParams { epsilon: c.adam_epsilon, ..AdamParams::default() });
        Ok(agent.runs(Ppo { config: self.clone(), beta: c.kl_coef, minibatches, adam }))
    }
}
