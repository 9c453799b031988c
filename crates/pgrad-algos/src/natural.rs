//! What natural policy gradient and TRPO have in common: settings, and the critic that is fitted beside them.

use crate::actor_critic::Totals;
use crate::algorithm::{BuildError, Report, Setup};
use crate::common::{ModelSettings, NormalizeSettings, Psi, RecurrentSettings, default_shard};
use crate::memory::{Needs, Sizes};
use crate::shell::Agent;
use crate::state::Saved;
use pgrad_collect::{Collector, EpisodesShape, RolloutShape};
use pgrad_engine::{
    Batch as Collected, Engine, Estimated, Fisher as FisherKind, LocalPolicy, Minibatches, Objective,
    ValueTerm,
};
use pgrad_env::{EnvSpec, MakeError};
use pgrad_model::{ActorCritic, AgentError, Critic, Role, Trunk};
use pgrad_num::cg::{CgInfo, CgParams, CgScratch};
use pgrad_num::{Record, RecordError, kernels};
use pgrad_optim::{Adam, AdamParams, Trial};
use pgrad_settings::{above, choice, settings};

choice! {
    /// Estimate of the Fisher matrix.
    pub enum Fisher {
        /// The Hessian of the mean KL divergence: the expectation over actions in closed form.
        KlHessian = "kl-hessian",
        /// The covariance of the scores of the actions taken.
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
    /// What makes up the data of an iteration.
    pub enum Batch {
        /// A fixed number of steps from each environment.
        Steps = "steps",
        /// Complete episodes.
        Episodes = "episodes",
    }
}

settings! {
    /// The batch: data of one iteration.
    pub struct BatchSettings {
        /// What makes up the data of an iteration.
        batch: Batch = Batch::Steps, source: "Schulman et al. 2015, section 5.1";
        /// Number of environments stepped together (N).
        n_envs: usize = 8, range: 1..=65_536, unit: "environments", source: "Schulman et al. 2017, Table 5";
        /// Steps per environment and iteration (T).
        n_steps: usize = 128, range: 1..=1_048_576, unit: "steps", source: "Schulman et al. 2017, Table 5",
            when: batch is "steps";
        /// Complete episodes per iteration, distributed evenly over the environments; at least one each.
        n_episodes: usize = 20, range: 1..=1_048_576, unit: "episodes",
            source: "Schulman et al. 2016, section 6.1",
            when: batch is "episodes";
        /// Discount factor of future rewards.
        gamma: f64 = 0.99, range: 0.0..=1.0, source: "Schulman et al. 2015, Table 2";
        /// Bootstrap from the value of the final observation when a time limit cuts an episode short. If
        /// false, the cut counts as the end of the task: a common mistake, kept to show its effect.
        bootstrap_time_limit: bool = true, source: "Pardo et al. 2018, Eq. 6";
        /// Environments per shard, the unit of collection: one thread runs a whole shard without waiting for
        /// the others. Unset: half of `n_envs`, but at least 4 and at most 32. Affects results; the number of
        /// threads does not.
        envs_per_shard: Option<usize> = None, range: 1..=65_536, unit: "environments";
    }
}

impl RecurrentSettings {
    /// Refuses what a memory does not go with.
    fn check_batch(&self, batch: &BatchSettings, critic: &CriticSettings) -> Result<(), BuildError> {
        if self.is_on() && batch.batch == Batch::Episodes {
            let reason = "sequences cannot be cut from complete episodes; set `batch=steps`, or leave \
                `recurrent` at `none`";
            return Err(BuildError::setting("recurrent", &self.recurrent, reason));
        }
        self.check(batch.n_steps, critic.minibatch_size)
    }
}

impl BatchSettings {
    /// Samples of an iteration; 0 when only the episodes know.
    pub(crate) fn samples(&self) -> usize {
        if self.batch == Batch::Steps { self.n_envs * self.n_steps } else { 0 }
    }
    /// Refuses fewer episodes than environments, batches that cannot be numbered, and what critic and memory
    /// do not go with.
    pub(crate) fn check(
        &self,
        (critic, kind): (&CriticSettings, Critic),
        recurrent: &RecurrentSettings,
    ) -> Result<(), BuildError> {
        let refuse = |key, value: usize, reason: String| Err(BuildError::setting(key, &value, reason));
        let samples = self.samples();
        let size = if kind == Critic::None { 0 } else { critic.minibatch_size };
        match self.batch {
            Batch::Episodes if self.n_episodes < self.n_envs => refuse(
                "n_episodes",
                self.n_episodes,
                format!("each of the n_envs = {} environments plays at least one episode", self.n_envs),
            ),
            Batch::Steps if u32::try_from(samples).is_err() => refuse(
                "n_steps",
                self.n_steps,
                format!("an iteration would have {samples} samples, but at most {} are possible", u32::MAX),
            ),
            Batch::Steps if size > samples => refuse(
                "minibatch_size",
                size,
                format!(
                    "an iteration has n_envs x n_steps = {} x {} = {samples} samples; use at most that many",
                    self.n_envs, self.n_steps
                ),
            ),
            _ => recurrent.check_batch(self, critic),
        }
    }
    /// Builds the environments and their storage.
    pub(crate) fn build(
        &self,
        normalize: &NormalizeSettings,
        model: &ActorCritic,
        setup: &Setup<'_>,
    ) -> Result<Collector, MakeError> {
        let norms = normalize.build(self.n_envs, model.shape().obs_dim, self.gamma);
        let (make, seed, cpu) = (setup.make_env, setup.seed, &setup.cpu);
        let RolloutShape { n_envs, envs_per_shard, bootstrap_truncated, .. } = self.shape();
        match self.batch {
            Batch::Steps => Collector::steps(self.shape(), make, model, norms, seed, cpu),
            Batch::Episodes => {
                let n_episodes = self.n_episodes;
                let shape = EpisodesShape { n_envs, n_episodes, envs_per_shard, bootstrap_truncated };
                Collector::episodes(shape, make, model, norms, seed, cpu)
            }
        }
    }
    /// Writes down the defaults that follow from other settings, those of a memory too.
    pub(crate) fn resolve(&mut self, recurrent: &mut RecurrentSettings, critic: &CriticSettings) {
        recurrent.resolve(self.n_steps, critic.minibatch_size);
        self.envs_per_shard.get_or_insert(default_shard(self.n_envs));
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
        /// The weight of an action's score (psi).
        psi: Psi = Psi::Gae,
            source: "Schulman et al. 2016, Eq. 1; Schulman et al. 2015, section 5.1 (lambda-return, lambda 1)";
        /// Trade-off between bias and variance of the advantages: 0 uses the one-step residual, 1 the full
        /// return (GAE).
        lambda: f64 = 0.95, range: 0.0..=1.0, source: "Stable-Baselines3 contrib, TRPO";
        /// Shift and scale the advantages of an iteration to mean 0 and standard deviation 1.
        normalize_advantage: bool = true, source: "Stable-Baselines3 contrib, TRPO";
        /// Estimate of the Fisher matrix.
        fisher: Fisher = Fisher::KlHessian, source: "Schulman et al. 2015, Appendix C";
        /// Estimate the Fisher matrix from every k-th sample; the gradient uses all of them. A larger value
        /// saves time and makes the direction noisier.
        fisher_every: usize = 1, range: 1..=1_000_000, unit: "samples",
            source: "Schulman et al. 2015, Appendix C.1";
        /// Maximum iterations of conjugate gradient, each one product with the Fisher matrix.
        cg_iterations: usize = 10, range: 1..=10_000, unit: "products",
            source: "Schulman et al. 2015, Appendix C";
        /// Stop conjugate gradient when the norm of the residual falls to this fraction of the gradient's.
        cg_tolerance: f64 = 1e-10, range: 0.0..=1.0, source: "OpenAI baselines, trpo_mpi";
        /// Added to the diagonal of the Fisher matrix. A larger value shortens steps along directions in
        /// which the policy hardly changes.
        cg_damping: f64 = 0.1, range: 0.0..=1e6, source: "Stable-Baselines3 contrib, TRPO";
    }
}

impl NaturalSettings {
    /// The policy's problem around the parameters of `model`, which drew the data.
    pub(crate) fn around<'a>(
        &self,
        engine: &'a mut Engine,
        model: &'a ActorCritic,
        data: &Estimated<'_>,
    ) -> LocalPolicy<'a> {
        engine.local(model, data, self.fisher.into(), self.normalize_advantage, self.fisher_every)
    }
    /// When the search for the direction stops.
    pub(crate) fn cg(&self) -> CgParams {
        CgParams { max_iterations: self.cg_iterations, tolerance: self.cg_tolerance }
    }
}

settings! {
    /// The critic, fitted to the returns of each iteration after the policy's step.
    pub struct CriticSettings {
        /// Units in each hidden layer of the critic; an empty list makes the critic linear.
        critic_hidden: Vec<usize> = vec![64, 64], range: 1..=8192, unit: "units", source: "Stable-Baselines3 contrib, TRPO";
        /// Passes over the data of each iteration.
        critic_epochs: usize = 10, range: 1..=1000, unit: "epochs", source: "Stable-Baselines3 contrib, TRPO";
        /// Samples per minibatch; at most those of an iteration.
        minibatch_size: usize = 128, range: 1..=1_073_741_824, unit: "samples",
            source: "Stable-Baselines3 contrib, TRPO";
        /// Step size of Adam.
        critic_learning_rate: f64 = 1e-3, range: above(0.0), source: "Stable-Baselines3 contrib, TRPO";
        /// Added to the root mean square of the gradient in Adam (epsilon).
        adam_epsilon: f64 = 1e-5, range: above(0.0), source: "Stable-Baselines3, ActorCriticPolicy";
    }
}

/// What becomes of the critic in an iteration: `(V_θ(s_t) − V_t^targ)²` over its samples, by Adam. Nothing,
/// where the model has no critic because a vine tells values.
pub(crate) struct CriticFit {
    config: CriticSettings,
    adam: Option<Adam<f32>>,
    minibatches: Minibatches,
}

impl CriticFit {
    /// A fit to the batches of `collector`.
    pub(crate) fn new(
        config: &CriticSettings,
        model: &ActorCritic,
        collector: &Collector,
        setup: &Setup<'_>,
    ) -> Self {
        let params = AdamParams { epsilon: config.adam_epsilon, ..AdamParams::default() };
        Self {
            config: config.clone(),
            adam: model.has_critic().then(|| Adam::new(model.critic().params.len(), params)),
            minibatches: Minibatches::of(collector.store(), config.minibatch_size, setup.seed),
        }
    }
    /// Room for it in an engine.
    pub(crate) fn room(&self, engine: Engine, model: &ActorCritic) -> Engine {
        let fits = self.adam.is_some();
        if fits { engine.with_critic_gradients(model, self.minibatches.size()) } else { engine }
    }
    /// `V(s_t)`, V of what follows, `Ψ_t` and `V_t^targ`.
    pub(crate) fn estimate<'a>(
        &self,
        engine: &mut Engine,
        model: &ActorCritic,
        batch: Collected<'a>,
        natural: &NaturalSettings,
        gamma: f64,
    ) -> Result<Estimated<'a>, AgentError> {
        if self.adam.is_none() {
            return Ok(batch.of_vine());
        }
        let data = engine.values(model, batch)?;
        engine.estimate(data, |p| natural.psi.estimate(p, gamma as f32, natural.lambda as f32))
    }
    /// Fits the critic to the targets; adds to the report the mean squared error on the way and what the
    /// values before explain of the targets. `scale` multiplies the step size.
    pub(crate) fn fit(
        &mut self,
        engine: &mut Engine,
        model: &mut ActorCritic,
        data: &Estimated<'_>,
        scale: f64,
        report: Report,
    ) -> Result<Report, AgentError> {
        let Self { config: c, adam: Some(adam), minibatches } = self else { return Ok(report) };
        let objective = Objective { value: Some(ValueTerm::Squared { c1: 1.0 }), ..Objective::default() };
        let mut totals = Totals::default();
        minibatches.follow(data);
        for epoch in 0..c.critic_epochs {
            for minibatch in minibatches.shuffled(epoch) {
                totals.add(&engine.gradient(model, data, minibatch, &objective)?);
                engine.step_network(model, Role::Critic, adam, c.critic_learning_rate * scale, None);
            }
        }
        Ok(report
            .with("learn/value_loss", totals.mean().value_loss)
            .with("learn/explained_variance", data.explained_variance()))
    }
}

impl Saved for CriticFit {
    fn save(&self, name: &str, to: &mut Record) {
        if let Some(adam) = &self.adam {
            let mut r = Record::new();
            r.put_record("adam", adam.save());
            r.put_record("minibatches", self.minibatches.save());
            to.put_record(name, r);
        }
    }
    fn load(&mut self, name: &str, from: &Record) -> Result<(), RecordError> {
        let Some(adam) = &mut self.adam else { return Ok(()) };
        adam.load(&from.record(name).record("adam"))?;
        self.minibatches.load(&from.record(name).record("minibatches"))
    }
}

/// Room for vectors over the policy's parameters.
pub(crate) struct Vectors {
    /// The gradient.
    pub(crate) g: Vec<f32>,
    /// The direction `F⁻¹ g`.
    pub(crate) s: Vec<f32>,
    /// The parameters on trial.
    pub(crate) theta: Vec<f32>,
    pub(crate) scratch: CgScratch<f32>,
}

/// Policy and critic; without parameters where there is no seed.
fn networks(
    env: &EnvSpec,
    batch: &BatchSettings,
    (model, recurrent): (&ModelSettings, &RecurrentSettings),
    (critic, kind): (&CriticSettings, Critic),
    seed: impl Into<Option<u64>>,
) -> Result<ActorCritic, BuildError> {
    let memory = recurrent.recurrence(batch.n_steps, critic.minibatch_size);
    model.build_on(memory, env, kind, Trunk::Separate, &critic.critic_hidden, seed)
}

/// What it takes: parameters, gradient, and Adam's moments of the critic.
pub(crate) fn natural_needs(
    (env, threads): (&EnvSpec, usize),
    batch: &BatchSettings,
    nets: (&ModelSettings, &RecurrentSettings),
    critic: (&CriticSettings, Critic),
) -> Result<Needs, BuildError> {
    let model = networks(env, batch, nets, critic, None)?;
    let shape = batch.shape();
    let steps = if batch.batch == Batch::Steps { shape.n_steps } else { 1 };
    let fits = model.has_critic();
    let sizes = Sizes::new(&model, env, shape.n_envs, threads)
        .vectors(if fits { 4 } else { 1 }, if fits { 3 } else { 1 })
        .rollout(shape.n_envs, steps, shape.envs_per_shard)
        .local(batch.samples());
    let sizes = if fits { sizes.gradients(critic.0.minibatch_size) } else { sizes };
    Ok(sizes.all())
}

/// Policy and critic, the environments that `collector` makes for them, and what goes with both. The engine
/// has room for the policy's local problem and the critic's fit.
pub(crate) fn natural(
    setup: &Setup<'_>,
    batch: &BatchSettings,
    nets: (&ModelSettings, &RecurrentSettings),
    critic: (&CriticSettings, Critic),
    collector: impl FnOnce(&ActorCritic) -> Result<Collector, MakeError>,
) -> Result<(Agent<Collector>, CriticFit, Vectors), BuildError> {
    let model = networks(setup.spec, batch, nets, critic, setup.seed)?;
    let collector = collector(&model)?;
    let fit = CriticFit::new(critic.0, &model, &collector, setup);
    let n = model.actor().net.n_params();
    let zeros = || vec![0.0; n];
    let vectors = Vectors { g: zeros(), s: zeros(), theta: zeros(), scratch: CgScratch::new(n) };
    let agent = Agent::collecting(setup, model, collector)
        .with_room(|engine, model, _| fit.room(engine, model))
        .with_room(|engine, model, c| engine.with_local_problem(model, c.store().len()));
    Ok((agent, fit, vectors))
}

/// What a step came to; nothing where none was taken.
pub(crate) fn report_step(taken: Option<Trial>, surrogate_old: f64, step: f64) -> Report {
    Report::default()
        .with("learn/surrogate", taken.map_or(0.0, |t| t.surrogate - surrogate_old))
        .with("learn/kl", taken.map_or(0.0, |t| t.kl))
        .with("learn/largest_kl", taken.map_or(0.0, |t| t.largest_kl))
        .with("learn/step_size", step)
}

/// Adds what there was at θ_old: entropy, gradient, and how its natural direction was found.
pub(crate) fn report_direction(report: Report, entropy: f64, g: &[f32], solved: &CgInfo) -> Report {
    report
        .with("learn/entropy", entropy)
        .with("learn/grad_norm", kernels::sum_of_squares(g, 0.0).sqrt())
        .with("learn/cg_products", solved.iterations as f64)
        .with("learn/cg_residual", solved.relative_residual)
}

/// The length `√(2δ / sᵀFs)` of the longest step along `s` whose divergence is `δ` in the quadratic model; 0
/// along a direction of no length.
pub(crate) fn longest_step(delta: f64, s_f_s: f64) -> f64 {
    if s_f_s > 0.0 { (2.0 * delta / s_f_s).sqrt() } else { 0.0 }
}

/// The error of a gradient of the policy that is not finite.
pub(crate) fn check_gradient(model: &ActorCritic, gradient: &[f32]) -> Result<(), AgentError> {
    kernels::first_non_finite(gradient).map_or(Ok(()), |i| {
        let (tensor, index) = model.parameter_name(model.actor().params.start + i);
        Err(AgentError::Gradient { tensor, index, epoch: 0, minibatch: 0, value: gradient[i] })
    })
}

/// `θ = θ_old + step s`.
pub(crate) fn move_along(theta_old: &[f32], step: f64, s: &[f32], theta: &mut [f32]) {
    theta.copy_from_slice(theta_old);
    kernels::axpy(step as f32, s, theta);
}
