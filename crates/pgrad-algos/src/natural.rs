//! What natural policy gradient and TRPO have in common: settings, and the critic that is fitted beside them.

use crate::algorithm::{BuildError, Setup};
use crate::common::{self, NormalizeSettings, Psi, RecurrentSettings, default_shard};
use pgrad_agent::{
    ActorCritic, AgentError, EpisodesShape, Fisher as FisherKind, GradientPass, Learner, Minibatches,
    Recurrence, Rollout, RolloutShape, ValueChunk,
};
use pgrad_env::MakeError;
use pgrad_num::cg::CgParams;
use pgrad_num::{Record, RecordError, Team, kernels};
use pgrad_optim::{Adam, AdamParams};
use pgrad_rl::surrogate;
use pgrad_settings::{above, choice, settings};

choice! {
    /// Which estimate of the Fisher matrix measures steps.
    pub enum Fisher {
        /// The Hessian of the mean divergence, the expectation over actions in closed form.
        KlHessian = "kl-hessian",
        /// The covariance of the scores of the actions that were taken.
        Empirical = "empirical",
    }
}

impl From<Fisher> for FisherKind {
    fn from(f: Fisher) -> Self {
        match f {
            Fisher::KlHessian => Self::KlHessian,
            Fisher::Empirical => Self::Empirical,
        }
    }
}

choice! {
    /// What an iteration learns from.
    pub enum Batch {
        /// A number of steps of each environment.
        Steps = "steps",
        /// Whole episodes.
        Episodes = "episodes",
    }
}

settings! {
    /// The batch: data of one iteration.
    pub struct BatchSettings {
        /// What an iteration learns from.
        batch: Batch = Batch::Steps, source: "Schulman et al. 2015, section 5.1";
        /// Environments stepped together (N).
        n_envs: usize = 8, range: 1..=65_536, unit: "environments", source: "Schulman et al. 2017, Table 5";
        /// Steps of each environment in an iteration (T).
        n_steps: usize = 128, range: 1..=1_048_576, unit: "steps", source: "Schulman et al. 2017, Table 5",
            when: batch is "steps";
        /// Whole episodes of an iteration, shared out evenly; at least one for each environment.
        n_episodes: usize = 20, range: 1..=1_048_576, unit: "episodes", source: "Schulman et al. 2016, section 6.1",
            when: batch is "episodes";
        /// Discount of what comes later.
        gamma: f64 = 0.99, range: 0.0..=1.0, source: "Schulman et al. 2015, Table 2";
        /// Bootstrap from the value of the final observation where a time limit cut an episode. Off treats
        /// the cut as an end of the task: a common mistake, kept to show its effect.
        bootstrap_time_limit: bool = true, source: "Pardo et al. 2018, Eq. 6";
        /// Environments of one shard, which one thread collects without waiting for the others; without a
        /// number, half of `n_envs`, but at least 4 and at most 32. Part of the results: the number of threads
        /// is not.
        envs_per_shard: Option<usize> = None, range: 1..=65_536, unit: "environments";
    }
}

impl RecurrentSettings {
    /// Refuses what a memory does not go with.
    pub(crate) fn check_batch(
        &self,
        batch: &BatchSettings,
        critic: &CriticSettings,
    ) -> Result<(), BuildError> {
        if self.is_on() && batch.batch == Batch::Episodes {
            return Err(BuildError::Inconsistent {
                key: "recurrent",
                value: self.recurrent.to_string(),
                reason: "sequences are cut from a number of steps, not from whole episodes; give `batch=steps`, or \
                         leave `recurrent` at `none`"
                    .to_owned(),
            });
        }
        self.check(batch.n_steps, critic.minibatch_size)
    }
    /// The recurrent layer for a batch.
    pub(crate) fn of_batch(&self, batch: &BatchSettings, critic: &CriticSettings) -> Option<Recurrence> {
        self.recurrence(batch.n_steps, critic.minibatch_size)
    }
}

impl BatchSettings {
    /// Samples of an iteration; 0 when only the episodes know.
    pub(crate) fn samples(&self) -> usize {
        if self.batch == Batch::Steps { self.n_envs * self.n_steps } else { 0 }
    }
    /// Refuses fewer episodes than environments and batches that cannot be numbered.
    pub(crate) fn check(&self, critic: Option<&CriticSettings>) -> Result<(), BuildError> {
        let refuse = |key, value: usize, reason| {
            Err(BuildError::Inconsistent { key, value: value.to_string(), reason })
        };
        let (samples, size) = (self.samples(), critic.map_or(0, |c| c.minibatch_size));
        match self.batch {
            Batch::Episodes if self.n_episodes < self.n_envs => refuse(
                "n_episodes",
                self.n_episodes,
                format!("each of the n_envs = {} environments plays one episode at least", self.n_envs),
            ),
            Batch::Steps if u32::try_from(samples).is_err() => refuse(
                "n_steps",
                self.n_steps,
                format!("an iteration would have {samples} samples; at most {} fit", u32::MAX),
            ),
            Batch::Steps if size > samples => refuse(
                "minibatch_size",
                size,
                format!(
                    "an iteration has n_envs x n_steps = {} x {} = {samples} samples; take at most that many",
                    self.n_envs, self.n_steps
                ),
            ),
            _ => Ok(()),
        }
    }
    /// Builds the environments and their storage.
    pub(crate) fn build(
        &self,
        normalize: &NormalizeSettings,
        model: &ActorCritic,
        setup: &Setup<'_>,
    ) -> Result<Rollout, MakeError> {
        let (obs, reward) = normalize.build(self.n_envs, model.shape().obs_dim, self.gamma);
        let (make, seed, threads) = (setup.make_env, setup.seed, setup.threads);
        let RolloutShape { n_envs, envs_per_shard, bootstrap_truncated, .. } = self.shape();
        match self.batch {
            Batch::Steps => Rollout::new(self.shape(), make, model, obs, reward, seed, threads),
            Batch::Episodes => {
                let n_episodes = self.n_episodes;
                let shape = EpisodesShape { n_envs, n_episodes, envs_per_shard, bootstrap_truncated };
                Rollout::whole_episodes(shape, make, model, obs, reward, seed, threads)
            }
        }
    }
    /// A rollout of a number of steps.
    pub(crate) fn shape(&self) -> RolloutShape {
        RolloutShape {
            n_envs: self.n_envs,
            n_steps: self.n_steps,
            envs_per_shard: self.envs_per_shard.unwrap_or(default_shard(self.n_envs)),
            bootstrap_truncated: self.bootstrap_time_limit,
        }
    }
}

settings! {
    /// The natural direction `F⁻¹ g`.
    pub struct NaturalSettings {
        /// What weighs the score of an action.
        psi: Psi = Psi::Gae, source: "Schulman et al. 2016, Eq. 1; Schulman et al. 2015, section 5.1 (lambda-return, lambda 1)";
        /// Mixes long and short advantages: 0 is the one-step residual, 1 the whole return (GAE).
        lambda: f64 = 0.95, range: 0.0..=1.0, source: "Stable-Baselines3 contrib, TRPO";
        /// Shift and scale the advantages of an iteration to mean 0 and standard deviation 1.
        normalize_advantage: bool = true, source: "Stable-Baselines3 contrib, TRPO";
        /// Which estimate of the Fisher matrix measures steps.
        fisher: Fisher = Fisher::KlHessian, source: "Schulman et al. 2015, Appendix C";
        /// Every how manieth sample makes the Fisher matrix; the gradient takes all. Raising it saves time and
        /// makes the direction noisier.
        fisher_every: usize = 1, range: 1..=1_000_000, unit: "samples", source: "Schulman et al. 2015, Appendix C.1";
        /// Most products with the Fisher matrix in a search for the direction.
        cg_iterations: usize = 10, range: 1..=10_000, unit: "products", source: "Schulman et al. 2015, Appendix C";
        /// Stop that search when the residual is this part of the gradient.
        cg_tolerance: f64 = 1e-10, range: 0.0..=1.0, source: "OpenAI baselines, trpo_mpi";
        /// Added to the diagonal of the Fisher matrix. Raising it shortens steps along directions in which the
        /// policy hardly changes.
        cg_damping: f64 = 0.1, range: 0.0..=1e6, source: "Stable-Baselines3 contrib, TRPO";
    }
}

impl NaturalSettings {
    /// When the search for the direction stops.
    pub(crate) fn cg(&self) -> CgParams {
        CgParams { max_iterations: self.cg_iterations, tolerance: self.cg_tolerance }
    }
}

settings! {
    /// The critic, fitted to the returns of each iteration after the policy's step.
    pub struct CriticSettings {
        /// Units of each hidden layer of the critic; an empty list gives a linear critic.
        critic_hidden: Vec<usize> = vec![64, 64], range: 1..=8192, unit: "units", source: "Stable-Baselines3 contrib, TRPO";
        /// Passes over the data of an iteration.
        critic_epochs: usize = 10, range: 1..=1000, unit: "epochs", source: "Stable-Baselines3 contrib, TRPO";
        /// Samples of a minibatch; at most those of an iteration.
        minibatch_size: usize = 128, range: 1..=1_073_741_824, unit: "samples", source: "Stable-Baselines3 contrib, TRPO";
        /// Step size of Adam.
        critic_learning_rate: f64 = 1e-3, range: above(0.0), source: "Stable-Baselines3 contrib, TRPO";
        /// Added to the root of the mean squared gradient in Adam.
        adam_epsilon: f64 = 1e-5, range: above(0.0), source: "Stable-Baselines3, ActorCriticPolicy";
    }
}

/// What becomes of the critic in an iteration; nothing where the model has none, because a vine tells values.
#[derive(Debug)]
pub(crate) struct CriticFit(Option<Fit>);

impl CriticFit {
    /// A fit to the batches of `rollout`.
    pub(crate) fn new(
        config: &CriticSettings,
        model: &ActorCritic,
        rollout: &Rollout,
        setup: &Setup<'_>,
    ) -> Self {
        Self(model.has_critic().then(|| Fit::new(config, model, rollout, setup)))
    }
    /// `V(s_t)`, V of what follows, `Ψ_t` and `V_t^targ`.
    pub(crate) fn estimate(
        &self,
        model: &ActorCritic,
        rollout: &mut Rollout,
        natural: &NaturalSettings,
        gamma: f64,
        team: &Team,
    ) -> Result<(), AgentError> {
        if self.0.is_none() {
            return Ok(());
        }
        rollout.evaluate(model, team)?;
        rollout.estimate(team, |p| natural.psi.estimate(p, gamma as f32, natural.lambda as f32))
    }
    /// As [`Fit::fit`].
    pub(crate) fn fit(
        &mut self,
        model: &mut ActorCritic,
        rollout: &Rollout,
        scale: f64,
        team: &Team,
    ) -> Result<Option<f64>, AgentError> {
        self.0.as_mut().map(|fit| fit.fit(model, rollout, scale, team)).transpose()
    }
    /// What the values of the rollout explain of the returns.
    pub(crate) fn explained_variance(&self, rollout: &Rollout) -> Option<f64> {
        self.0.as_ref().map(|_| rollout.explained_variance().unwrap_or(f64::NAN))
    }
    pub(crate) fn save(&self, out: &mut Record) {
        if let Some(fit) = &self.0 {
            out.put_record("critic", fit.save());
        }
    }
    pub(crate) fn load(&mut self, from: &Record) -> Result<(), RecordError> {
        self.0.as_mut().map_or(Ok(()), |fit| fit.load(&from.record("critic")))
    }
}

/// The critic's own problem: `(V_θ(s_t) − V_t^targ)²` over the samples of an iteration, by Adam.
#[derive(Debug)]
struct Fit {
    config: CriticSettings,
    learner: Learner,
    minibatches: Minibatches,
    adam: Adam<f32>,
    gradient: Vec<f32>,
}

impl Fit {
    fn new(config: &CriticSettings, model: &ActorCritic, rollout: &Rollout, setup: &Setup<'_>) -> Self {
        let minibatches = Minibatches::of(rollout, config.minibatch_size, setup.seed);
        let params = AdamParams { epsilon: config.adam_epsilon, ..AdamParams::default() };
        Self {
            config: config.clone(),
            learner: Learner::of_critic(model, minibatches.size(), setup.threads),
            minibatches,
            adam: Adam::new(model.critic().params.len(), params),
            gradient: vec![0.0; model.theta.len()],
        }
    }

    /// Fits the critic to the targets of `rollout`; returns the mean squared error on the way. `scale` multiplies the step size.
    fn fit(
        &mut self,
        model: &mut ActorCritic,
        rollout: &Rollout,
        scale: f64,
        team: &Team,
    ) -> Result<f64, AgentError> {
        let params = model.critic().params.clone();
        let alpha = self.config.critic_learning_rate * scale;
        self.minibatches.follow(rollout);
        let (mut loss, mut samples) = (0.0, 0);
        for epoch in 0..self.config.critic_epochs {
            self.minibatches.shuffle();
            for minibatch in 0..self.minibatches.count() {
                let ids = self.minibatches.get(minibatch);
                let n = ids.len();
                let GradientPass { sums, norm } = self.learner.gradient(
                    model,
                    rollout,
                    ids,
                    team,
                    &mut self.gradient,
                    |_| {},
                    |v| {
                        squared_error(v, n);
                    },
                );
                let gradient = &self.gradient[params.clone()];
                if !sums.value_loss.is_finite() {
                    let (what, value) = ("value loss", sums.value_loss);
                    return Err(AgentError::Loss { what, epoch, minibatch, value });
                }
                if !norm.is_finite() {
                    common::check_gradient(model, &self.gradient, epoch, minibatch)?;
                }
                self.adam.step(&mut model.theta[params.clone()], gradient, alpha);
                loss += sums.value_loss;
                samples += n;
            }
        }
        Ok(loss / samples as f64)
    }

    fn save(&self) -> Record {
        let mut r = Record::new();
        r.put_record("adam", self.adam.save());
        r.put_record("minibatches", self.minibatches.save());
        r
    }
    fn load(&mut self, from: &Record) -> Result<(), RecordError> {
        self.adam.load(&from.record("adam"))?;
        self.minibatches.load(&from.record("minibatches"))
    }
}

/// The gradient of `(V_θ(s_t) − V_t^targ)²`, averaged over a minibatch of `n`.
fn squared_error(chunk: ValueChunk<'_>, n: usize) {
    let ValueChunk { v, ret, d_v, work, sums, .. } = chunk;
    surrogate::squared(v, ret, work, d_v);
    sums.value_loss += 2.0 * kernels::sum(work);
    kernels::scale((2.0 / n as f64) as f32, d_v);
}

/// The length `√(2δ / sᵀFs)` of the longest step along `s` whose divergence is `δ` in the quadratic model; 0 along a
/// direction of no length.
pub(crate) fn longest_step(delta: f64, s_f_s: f64) -> f64 {
    if s_f_s > 0.0 { (2.0 * delta / s_f_s).sqrt() } else { 0.0 }
}

/// Floating-point operations of an iteration's learning for one sample, with one trial.
pub(crate) fn natural_flops(model: &ActorCritic, natural: &NaturalSettings, critic: &CriticSettings) -> f64 {
    let net = &model.actor().net;
    let fit = if model.has_critic() {
        let value = &model.critic().net;
        value.forward_flops() + critic.critic_epochs * (value.forward_flops() + value.vjp_flops())
    } else {
        0
    };
    // A tangent goes through two products where a value goes through one, except at the input.
    let jvp = net.vjp_flops();
    let products = natural.cg_iterations as f64 / natural.fisher_every as f64;
    (2 * net.forward_flops() + net.vjp_flops()) as f64
        + products * (jvp + net.vjp_flops()) as f64
        + fit as f64
}

/// The error of a gradient of the policy that is not finite.
pub(crate) fn check_gradient(model: &ActorCritic, gradient: &[f32]) -> Result<(), AgentError> {
    kernels::first_non_finite(gradient).map_or(Ok(()), |i| {
        let (tensor, index) = model.parameter_name(model.actor().params.start + i);
        Err(AgentError::Gradient { tensor, index, epoch: 0, minibatch: 0, value: gradient[i] })
    })
}

/// The error of parameters of the policy that are not finite.
pub(crate) fn check_step(model: &ActorCritic, theta: &[f32]) -> Result<(), AgentError> {
    kernels::first_non_finite(theta).map_or(Ok(()), |i| {
        let (tensor, index) = model.parameter_name(model.actor().params.start + i);
        Err(AgentError::Parameter { tensor, index, value: theta[i] })
    })
}

/// `θ = θ_old + step s`.
pub(crate) fn move_along(theta_old: &[f32], step: f64, s: &[f32], theta: &mut [f32]) {
    theta.copy_from_slice(theta_old);
    kernels::axpy(step as f32, s, theta);
}
