//! The engine: everything that is computed from a batch.

use crate::{
    Cpu, Minibatch,
    batch::{Batch, Estimated, Paths, Store, Valued},
    curvature::Curvature,
    gradient::Gradients,
    local::{Fisher, LocalPolicy, PolicyProblem},
    objective::{Loss, LossSums, Objective},
    values::Values,
};
use pgrad_env::EnvSpec;
use pgrad_model::{ActorCritic, AgentError, Role};
use pgrad_num::kernels;
use pgrad_optim::{Kfac, KfacParams, KroneckerBlock, StepRule, clip_global_norm, clip_scale};

/// Computes values, ratios, gradients, products with the Fisher matrix, trials and curvature, and takes
/// steps.
///
/// This is the one executor there is, on the threads of this process: nothing above it knows a thread, a
/// buffer or the order in which partial sums are added ([`pgrad_model::CHUNK`], `lanes.rs`). A device would
/// be a second one behind the same functions. An engine has room for what its method asks for when it is
/// built, and allocates nothing after.
#[derive(Debug)]
pub struct Engine {
    cpu: Cpu,
    values: Option<Values>,
    gradients: Option<Gradients>,
    gradient: Vec<f32>,
    problem: Option<PolicyProblem>,
    curvature: Option<Curvature>,
    flops: f64,
}

/// What an objective came to over a minibatch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Losses {
    /// Sums over the samples.
    pub sums: LossSums,
    /// Samples.
    pub n: usize,
    /// Euclidean norm of the gradient of all parameters.
    pub norm: f64,
}

impl Losses {
    /// Means over the samples.
    #[must_use]
    pub fn mean(&self) -> LossSums {
        self.sums.mean(self.n)
    }
    /// The sums, if they are finite.
    fn finite(self, at: Minibatch<'_>) -> Result<Self, AgentError> {
        let Minibatch { epoch, number: minibatch, .. } = at;
        for (what, value) in [
            ("policy loss", self.sums.surrogate),
            ("entropy", self.sums.entropy),
            ("KL estimate", self.sums.kl),
            ("value loss", self.sums.value_loss),
        ] {
            if !value.is_finite() {
                return Err(AgentError::Loss { what, epoch, minibatch, value });
            }
        }
        Ok(self)
    }
}

impl Engine {
    /// An engine on the threads of `cpu`, with room for nothing yet.
    #[must_use]
    pub fn new(cpu: &Cpu) -> Self {
        Self {
            cpu: cpu.clone(),
            values: None,
            gradients: None,
            gradient: Vec::new(),
            problem: None,
            curvature: None,
            flops: 0.0,
        }
    }
    /// Room for values and ratios of batches whose shards have up to `envs_per_shard` environments.
    #[must_use]
    pub fn with_values(mut self, model: &ActorCritic, spec: &EnvSpec, envs_per_shard: usize) -> Self {
        self.values = Some(Values::new(model, spec, envs_per_shard, &self.cpu));
        self
    }
    /// Room for gradients over minibatches of up to `max_samples`.
    ///
    /// # Panics
    /// When the critic is one of actions.
    #[must_use]
    pub fn with_gradients(mut self, model: &ActorCritic, max_samples: usize) -> Self {
        self.gradients = Some(Gradients::new(model, max_samples, &self.cpu));
        self.gradient = vec![0.0; model.theta.len()];
        self
    }
    /// Room for gradients of the critic alone: the policy's part of every gradient is 0.
    ///
    /// # Panics
    /// When the model has no critic of states with a network of its own.
    #[must_use]
    pub fn with_critic_gradients(mut self, model: &ActorCritic, max_samples: usize) -> Self {
        self.gradients = Some(Gradients::of_critic(model, max_samples, &self.cpu));
        self.gradient = vec![0.0; model.theta.len()];
        self
    }
    /// Room for the policy's local problem over `samples` samples; it grows when there are more.
    ///
    /// # Panics
    /// When actor and critic share a network: the policy's parameters would not be its own.
    #[must_use]
    pub fn with_local_problem(mut self, model: &ActorCritic, samples: usize) -> Self {
        self.problem = Some(PolicyProblem::new(model, samples, &self.cpu));
        self
    }
    /// As [`Engine::with_local_problem`]; the activations of the first `kept` chunks only stay in memory. The
    /// results do not depend on it.
    ///
    /// # Panics
    /// As [`Engine::with_local_problem`].
    #[must_use]
    pub fn with_local_problem_keeping(mut self, model: &ActorCritic, samples: usize, kept: usize) -> Self {
        self.problem = Some(PolicyProblem::keeping(model, samples, &self.cpu, kept));
        self
    }
    /// Room for Kronecker factors of the curvature.
    ///
    /// # Panics
    /// When the critic is one of actions.
    #[must_use]
    pub fn with_curvature(mut self, model: &ActorCritic) -> Self {
        self.curvature = Some(Curvature::new(model, &self.cpu));
        self
    }
    /// Floating-point operations in matrix products so far, but for those of acting.
    #[must_use]
    pub fn flops(&self) -> f64 {
        self.flops
    }
    /// Counts floating-point operations that were done outside, at single states.
    pub fn count_flops(&mut self, flops: u64) {
        self.flops += flops as f64;
    }

    /// `V(s_t)` of all samples and of what follows them. The endings are resolved here
    /// ([`crate::bootstrap`]). Without a critic all values are 0: there is nothing to bootstrap from.
    ///
    /// # Errors
    /// When a value is not finite.
    ///
    /// # Panics
    /// Without [`Engine::with_values`].
    pub fn values<'a>(&mut self, model: &ActorCritic, batch: Batch<'a>) -> Result<Valued<'a>, AgentError> {
        let Batch(store) = batch;
        room(&mut self.values, "values").values(model, store, &self.cpu)?;
        self.flops += (model.value_flops() * store.len()) as f64;
        Ok(Valued(store))
    }
    /// `π_θ(a_t|s_t)/π_old(a_t|s_t)` of all samples: how stale the data are for the present parameters.
    ///
    /// # Errors
    /// When a ratio is not finite.
    ///
    /// # Panics
    /// Without [`Engine::with_values`].
    pub fn ratios(&mut self, model: &ActorCritic, data: &mut Valued<'_>) -> Result<(), AgentError> {
        let values = room(&mut self.values, "values");
        values.ratios(model, data.0, &self.cpu)?;
        self.flops += (model.actor().net.forward_flops() * data.len()) as f64;
        Ok(())
    }
    /// Lets `estimate` write the advantages and targets of every shard.
    ///
    /// # Errors
    /// When what it wrote is not finite.
    pub fn estimate<'a>(
        &mut self,
        data: Valued<'a>,
        estimate: impl Fn(Paths<'_>) + Sync,
    ) -> Result<Estimated<'a>, AgentError> {
        let store: &mut Store = &mut *data.0;
        self.cpu.each(&mut store.shards, |_, shard| shard.error = shard.estimate(&estimate).err());
        store.first_error()?;
        Ok(data.estimated())
    }
    /// Computes the states that the sequences of a recurrent model start from anew with the present
    /// parameters, from those at the start of the batch on. Otherwise they are those of the batch. Without a
    /// memory nothing is done.
    ///
    /// # Panics
    /// Without [`Engine::with_values`].
    pub fn recompute_states(&mut self, model: &ActorCritic, data: &mut Estimated<'_>) {
        let values = room(&mut self.values, "values");
        values.recompute_states(model, data.0, &self.cpu);
        let critic = if model.is_separate() { model.value_flops() } else { 0 };
        self.flops += ((model.actor().net.forward_flops() + critic) * data.len()) as f64;
    }

    /// `∇L(θ)` over a minibatch. It stays here, to be taken a step along.
    ///
    /// # Errors
    /// When a sum or the gradient is not finite.
    ///
    /// # Panics
    /// Without [`Engine::with_gradients`]; when a minibatch cuts a sequence.
    pub fn gradient(
        &mut self,
        model: &ActorCritic,
        data: &Estimated<'_>,
        minibatch: Minibatch<'_>,
        objective: &Objective<'_>,
    ) -> Result<Losses, AgentError> {
        let gradients = room(&mut self.gradients, "gradients");
        let (ids, n) = (minibatch.ids, minibatch.ids.len());
        let loss = Loss {
            objective: *objective,
            divisor: objective.divisor.unwrap_or(n as f64),
            moments: objective.standardize.then(|| data.advantage_moments(ids)),
        };
        let (sums, norm) =
            gradients.gradient(model, data.samples(model), ids, &self.cpu, &mut self.gradient, &loss);
        self.flops += (gradients.flops(model) * n) as f64;
        let losses = Losses { sums, n, norm }.finite(minibatch)?;
        if !norm.is_finite()
            && let Some(i) = kernels::first_non_finite(&self.gradient)
        {
            let (tensor, index) = model.parameter_name(i);
            let (Minibatch { epoch, number, .. }, value) = (minibatch, self.gradient[i]);
            return Err(AgentError::Gradient { tensor, index, epoch, minibatch: number, value });
        }
        Ok(losses)
    }
    /// The mean of `KL(π_old ‖ π_θ)` over some samples of a batch that keeps the parameters of `π_old`.
    ///
    /// # Panics
    /// As [`Engine::gradient`].
    pub fn divergence(&mut self, model: &ActorCritic, data: &Estimated<'_>, ids: &[u32]) -> f64 {
        let gradients = room(&mut self.gradients, "gradients");
        let sums = gradients.look(model, data.samples(model), ids, &self.cpu, |p| {
            let [kl, ..] = p.work;
            p.dist.kl(p.params_old, p.params, kl);
            p.sums.kl += kernels::sum(kl);
        });
        self.flops += (model.actor().net.forward_flops() * ids.len()) as f64;
        sums.kl / ids.len() as f64
    }
    /// What [`Engine::gradient`] last computed, downhill: `−∇L(θ)`.
    #[must_use]
    pub fn descent(&self) -> &[f32] {
        &self.gradient
    }
    /// A step of `rule` with step size `alpha` along the last gradient, which is first scaled down to
    /// `max_norm` where it is longer.
    pub fn step(
        &mut self,
        model: &mut ActorCritic,
        rule: &mut impl StepRule,
        alpha: f64,
        losses: &Losses,
        max_norm: Option<f64>,
    ) {
        let scale = clip_scale(losses.norm, max_norm.unwrap_or(f64::INFINITY));
        let (theta, ends) = model.theta_and_ends();
        rule.step_parts(ends, theta, &self.gradient, scale, alpha, &self.cpu);
    }

    /// A step of `rule` along the last gradient's part that belongs to one network, which is first scaled
    /// down to `max_norm` where it is longer. Returns the norm it had.
    ///
    /// # Panics
    /// When there is no such network, or `rule` is for another number of parameters.
    pub fn step_network(
        &mut self,
        model: &mut ActorCritic,
        role: Role,
        rule: &mut impl StepRule,
        alpha: f64,
        max_norm: Option<f64>,
    ) -> f64 {
        let params = model.part(role).params.clone();
        let gradient = &mut self.gradient[params.clone()];
        let norm = clip_global_norm(gradient, max_norm.unwrap_or(f64::INFINITY));
        let theta = &mut model.theta[params];
        rule.step_parts(&[theta.len()], theta, gradient, 1.0, alpha, &self.cpu);
        norm
    }

    /// The policy's problem around the parameters of `model`, which drew the data: surrogate, Fisher matrix,
    /// trials.
    ///
    /// With `standardize` the advantages are shifted and scaled to mean 0 and standard deviation 1. The
    /// metric is made of every `subsample`-th sample, or sequence of a recurrent policy, rounded up to whole
    /// chunks; 1 takes all.
    ///
    /// # Panics
    /// Without [`Engine::with_local_problem`], and when `subsample` is 0.
    pub fn local<'a>(
        &'a mut self,
        model: &'a ActorCritic,
        data: &Estimated<'_>,
        fisher: Fisher,
        standardize: bool,
        subsample: usize,
    ) -> LocalPolicy<'a> {
        let problem = room(&mut self.problem, "a local problem");
        problem.gather(model, data, standardize, subsample, &self.cpu);
        problem.around(model, fisher, &self.cpu, &mut self.flops)
    }

    /// Averages of the curvature's Kronecker factors, not yet observed.
    ///
    /// # Panics
    /// Without [`Engine::with_curvature`].
    #[must_use]
    pub fn kfac(&self, params: KfacParams) -> Kfac {
        let curvature = self.curvature.as_ref().expect("an engine with room for curvature");
        let block = |l: &pgrad_nn::Affine| KroneckerBlock {
            rows: l.rows,
            cols: l.cols,
            weight: l.weight.clone(),
            bias: l.bias.clone(),
        };
        Kfac::new(curvature.layers().iter().map(block).collect(), params)
    }
    /// Measures `E[x̄ x̄ᵀ]` and `E[g gᵀ]` of each layer over all samples of `data`, which `model` drew.
    ///
    /// # Panics
    /// Without [`Engine::with_curvature`].
    pub fn curvature(&mut self, model: &ActorCritic, data: &Store) -> &Curvature {
        let curvature = room(&mut self.curvature, "curvature");
        curvature.measure(model, data, &self.cpu);
        curvature
    }
}

/// The part that a method asked for when it built its engine.
fn room<'a, T>(part: &'a mut Option<T>, what: &str) -> &'a mut T {
    part.as_mut().unwrap_or_else(|| panic!("this engine has no room for {what}"))
}
