//! REINFORCE. Williams 1992, "Simple statistical gradient-following algorithms for connectionist
//! reinforcement learning", Machine Learning 8.
//!
//! Episodic REINFORCE: play whole episodes under `π_θ`, then climb along
//!
//! `∇J(θ) ≈ (1/K) Σ_episodes Σ_t Ψ_t ∇log π_θ(a_t|s_t)`
//!
//! (Williams 1992, Theorem 2), where `Ψ_t` is the return of the episode, the return that followed `a_t`, or
//! that minus a baseline `b(s_t)` (Williams' reinforcement comparison; forms 1 to 3 of Schulman et al. 2016,
//! Eq. 1). All three have the same mean and fall in variance. The baseline is a `V_w` that is regressed on
//! the returns (Sutton and Barto 2018, section 13.4).
//!
//! Nothing is learnt before an episode has ended. Where a time limit cut one, the sums of forms 1 and 2 stop:
//! there is no critic to ask what would have come. Form 3 has one, and adds `V_w(final observation)`.

use crate::prelude::*;

/// REINFORCE at work.
struct Reinforce {
    config: ReinforceConfig,
    minibatches: Minibatches,
    /// The policy's step rule, and the baseline's if there is one.
    policy: Rule,
    baseline: Option<Rule>,
}

impl Method for Reinforce {
    type Source = Collector;

    fn iterate(&mut self, agent: &mut Agent<Collector>) -> Result<Report, AgentError> {
        let Self { config, minibatches, policy, baseline } = self;
        let ReinforceConfig { episodes, reinforce: c, .. } = &*config;
        let (gamma, k) = (episodes.gamma as f32, episodes.n_episodes);
        let alpha = agent.step_size(c.learning_rate, c.learning_rate_schedule);
        let alpha_w = agent.step_size(c.value_learning_rate, c.learning_rate_schedule);

        let (batch, model, engine) = agent.collect()?; // K whole episodes under π_θ
        let data = engine.values(model, batch)?; // b(s_t) = V_w(s_t)
        let data = engine.estimate(data, |p| estimate(p, c, gamma))?; // Ψ_t and G_t
        minibatches.follow(&data);
        let losses = engine.gradient(model, &data, minibatches.whole(0), &objective(c, k))?; // ∇J(θ)
        let norm = engine.step_network(model, Role::Actor, policy, alpha, c.max_grad_norm); // θ
        let (mean, std) = data.advantage_moments(minibatches.all());
        let (sums, n) = (losses.sums, losses.n as f64);
        let report = Report::default()
            .with("learn/policy_loss", -(sums.surrogate + c.entropy_coef * sums.entropy) / k as f64)
            .with("learn/psi_mean", mean)
            .with("learn/psi_std", std)
            .with("learn/entropy", sums.entropy / n)
            .with("learn/batch_steps", n)
            .with("learn/grad_norm", norm)
            .with("learn/learning_rate", alpha);
        let Some(rule) = baseline else { return Ok(report) };
        let norm = engine.step_network(model, Role::Critic, rule, alpha_w, c.max_grad_norm); // w
        Ok(report
            .with("learn/value_loss", sums.value_loss / n)
            .with("learn/explained_variance", data.explained_variance())
            .with("learn/value_grad_norm", norm)
            .with("learn/value_learning_rate", alpha_w))
    }

    state! { policy, baseline }
}

/// `(1/K) Σ_t ( Ψ_t log π(a_t|s_t) + β S[π](s_t) − ½ (G_t − V_w(s_t))² )`.
fn objective(c: &ReinforceSettings, k: usize) -> Objective<'static> {
    Objective {
        policy: Some(PolicyTerm::Score),
        standardize: c.normalize_psi,
        entropy: c.entropy_coef,
        value: (c.psi == Psi::Baseline).then_some(ValueTerm::Squared { c1: 0.5 }),
        divisor: Some(k as f64),
        ..Objective::default()
    }
}

/// `Ψ_t`, and the baseline's targets `G_t`.
fn estimate(p: Paths<'_>, c: &ReinforceSettings, gamma: f32) {
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
}

choice! {
    /// The weight of an action's score (psi).
    pub enum Psi {
        /// The return of the whole episode.
        Total = "total",
        /// The return that follows the action.
        ToGo = "to-go",
        /// The return that follows the action, minus a learnt value of the state.
        Baseline = "baseline",
    }
}

choice! {
    /// Optimiser of the policy and the baseline.
    pub enum Optimizer {
        /// Plain gradient ascent, as in the paper.
        Sgd = "sgd",
        /// Adam.
        Adam = "adam",
    }
}

settings! {
    /// REINFORCE.
    pub struct ReinforceSettings {
        /// The weight of an action's score (psi).
        psi: Psi = Psi::Baseline, source: "Schulman et al. 2016, Eq. 1, forms 1 to 3";
        /// Optimiser of the policy and the baseline.
        optimizer: Optimizer = Optimizer::Sgd, source: "Williams 1992, Eq. 1";
        /// Step size of the policy (α).
        learning_rate: f64 = 0.001_953_125, range: above(0.0), source: "Sutton and Barto 2018, Figure 13.2";
        /// How the step sizes change over the run.
        learning_rate_schedule: Schedule = Schedule::Constant, source: "Williams 1992, Eq. 1";
        /// Step size of the baseline, which is regressed on the returns.
        value_learning_rate: f64 = 0.015_625, range: above(0.0), source: "Sutton and Barto 2018, Figure 13.2",
            when: psi is "baseline";
        /// Bootstrap from the value of the final observation when a time limit cuts an episode short. If
        /// false, the cut counts as the end of the task.
        bootstrap_time_limit: bool = true, source: "Pardo et al. 2018, Eq. 6", when: psi is "baseline";
        /// Weight step t by gamma^t, which gives the gradient of the discounted return from the start. If
        /// false, as in most programs, late states count as much as early ones. With `psi = "total"` the
        /// weight is part of the return.
        discount_states: bool = false, source: "Sutton and Barto 2018, section 13.3",
            when: psi is "to-go" | "baseline";
        /// Shift and scale the weights of a batch to mean 0 and standard deviation 1. This differs from the
        /// paper.
        normalize_psi: bool = false, source: "SLM-Lab, REINFORCE";
        /// Weight of the entropy bonus. A larger value keeps the policy more random.
        entropy_coef: f64 = 0.0, range: 0.0..=1e6, unit: "per nat", source: "Williams and Peng 1991";
        /// Maximum norm of a network's gradient; longer gradients are scaled down to it.
        max_grad_norm: Option<f64> = None, range: above(0.0), source: "SLM-Lab, REINFORCE";
        /// Added to the root mean square of the gradient in Adam (epsilon).
        adam_epsilon: f64 = 1e-8, range: above(0.0), source: "Kingma and Ba 2015, Algorithm 1",
            when: optimizer is "adam";
    }
}

config! {
    name: "reinforce", title: "REINFORCE, with the return, the reward-to-go or a baseline",
    source: "Williams 1992, Machine Learning 8";
    /// All settings of REINFORCE.
    pub struct ReinforceConfig {
        episodes: EpisodeSettings,
        reinforce: ReinforceSettings,
        model: ModelSettings,
        normalize: NormalizeSettings,
    }
}

impl ReinforceConfig {
    /// Policy and baseline; without parameters where there is no seed.
    fn networks(&self, env: &EnvSpec, seed: impl Into<Option<u64>>) -> Result<ActorCritic, BuildError> {
        let critic = if self.reinforce.psi == Psi::Baseline { Critic::State } else { Critic::None };
        self.model.build(env, critic, Trunk::Separate, seed)
    }
}

impl AlgoConfig for ReinforceConfig {
    fn check(&self, _env: &EnvSpec) -> Result<(), BuildError> {
        self.episodes.check()
    }
    fn resolve(&mut self) {
        self.episodes.resolve();
    }
    fn needs(&self, env: &EnvSpec, threads: usize) -> Result<Needs, BuildError> {
        let model = self.networks(env, None)?;
        let (n, shard) = (self.episodes.n_envs, self.episodes.envs_per_shard);
        let shard = shard.unwrap_or(crate::default_shard(n));
        // Parameters, gradient, and Adam's two moments.
        let moments = if self.reinforce.optimizer == Optimizer::Adam { 2 } else { 0 };
        let sizes =
            Sizes::new(&model, env, n, threads).vectors(2 + moments, 1 + moments).rollout(n, 1, shard);
        Ok(sizes.gradients(usize::MAX).all())
    }
    fn assemble(&self, setup: &Setup<'_>) -> Result<Box<dyn Algorithm>, BuildError> {
        let c = &self.reinforce;
        let model = self.networks(setup.spec, setup.seed)?;
        let collector = self.episodes.build(c.bootstrap_time_limit, &self.normalize, &model, setup)?;
        let minibatches = Minibatches::of(collector.store(), usize::MAX, setup.seed);
        let agent = Agent::collecting(setup, model, collector)
            .with_room(|engine, model, _| engine.with_gradients(model, usize::MAX));
        let rule = |n| match c.optimizer {
            Optimizer::Sgd => Rule::Sgd,
            Optimizer::Adam => Rule::adam(n, c.adam_epsilon),
        };
        let policy = rule(agent.model.actor().params.len());
        let baseline = agent.model.has_critic().then(|| rule(agent.model.critic().params.len()));
        Ok(agent.runs(Reinforce { config: self.clone(), minibatches, policy, baseline }))
    }
}
