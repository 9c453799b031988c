//! What actor-critics have in common that learn by gradients from a number of steps.

use crate::algorithm::{BuildError, Report, Setup};
use crate::common::{ModelSettings, NormalizeSettings, RecurrentSettings, RolloutSettings, TrunkSettings};
use crate::memory::{Needs, Sizes};
use crate::shell::Agent;
use pgrad_collect::Collector;
use pgrad_engine::{Estimated, LossSums, Losses, Minibatches, Objective, PolicyTerm};
use pgrad_env::EnvSpec;
use pgrad_model::{ActorCritic, Critic};

/// The networks of such an actor-critic.
pub(crate) type Networks<'a> = (&'a ModelSettings, Option<&'a RecurrentSettings>, &'a TrunkSettings);

/// Policy and critic; without parameters where there is no seed.
fn networks(
    env: &EnvSpec,
    rollout: &RolloutSettings,
    (model, recurrent, trunk): Networks<'_>,
    minibatch: usize,
    seed: impl Into<Option<u64>>,
) -> Result<ActorCritic, BuildError> {
    let memory = recurrent.and_then(|r| r.recurrence(rollout.n_steps, minibatch));
    model.build_on(memory, env, Critic::State, trunk.trunk.into(), &model.hidden, seed)
}

/// What it takes, with `vectors` over all parameters (parameters and gradient included), of which a
/// checkpoint holds `saved`, and with the curvature or not.
pub(crate) fn actor_critic_needs(
    (env, threads): (&EnvSpec, usize),
    rollout: &RolloutSettings,
    nets: Networks<'_>,
    minibatch: usize,
    (vectors, saved): (usize, usize),
    curvature: bool,
) -> Result<Needs, BuildError> {
    let model = networks(env, rollout, nets, minibatch, None)?;
    let sizes = Sizes::new(&model, env, rollout.n_envs, threads).vectors(vectors, saved);
    let sizes = rollout.sizes(sizes, minibatch);
    Ok(if curvature { sizes.curvature() } else { sizes }.all())
}

/// Policy, critic and environments, and minibatches of `minibatch` samples; the engine has room for their
/// gradients.
pub(crate) fn actor_critic(
    setup: &Setup<'_>,
    rollout: &RolloutSettings,
    nets: Networks<'_>,
    normalize: &NormalizeSettings,
    minibatch: usize,
) -> Result<(Agent<Collector>, Minibatches), BuildError> {
    let model = networks(setup.spec, rollout, nets, minibatch, setup.seed)?;
    let collector = rollout.build(normalize, &model, setup)?;
    let minibatches = Minibatches::of(collector.store(), minibatch, setup.seed);
    let agent = Agent::collecting(setup, model, collector)
        .with_room(|engine, model, _| engine.with_gradients(model, minibatch));
    Ok((agent, minibatches))
}

/// Sums over the minibatches of an iteration.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    sums: LossSums,
    samples: usize,
    grad_norm: f64,
    steps: usize,
    stopped: bool,
}

impl Totals {
    /// Adds what was computed of a minibatch.
    pub(crate) fn add(&mut self, losses: &Losses) {
        self.sums.add(&losses.sums);
        self.samples += losses.n;
    }
    /// Counts a step along its gradient.
    pub(crate) fn step(&mut self, losses: &Losses) {
        self.grad_norm += losses.norm;
        self.steps += 1;
    }
    /// Notes that the policy has moved too far for another step.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
    }
    /// Means over all samples.
    pub(crate) fn mean(&self) -> LossSums {
        self.sums.mean(self.samples)
    }
    /// What became of the terms of `objective`.
    pub(crate) fn report(&self, objective: &Objective<'_>, data: &Estimated<'_>, alpha: f64) -> Report {
        let mean = self.mean();
        Report::default()
            .with("learn/policy_loss", -mean.surrogate - objective.entropy * mean.entropy)
            .with("learn/value_loss", mean.value_loss)
            .with("learn/entropy", mean.entropy)
            .with("learn/explained_variance", data.explained_variance())
            .with("learn/grad_norm", self.grad_norm / self.steps.max(1) as f64)
            .with("learn/updates", self.steps as f64)
            .with("learn/learning_rate", alpha)
    }
    /// Adds how far the policy has moved, and what its objective has against that.
    pub(crate) fn report_distance(&self, report: Report, objective: &Objective<'_>) -> Report {
        let mean = self.mean();
        let report = report
            .with("learn/kl", mean.kl)
            .with("learn/kl_stopped", f64::from(u8::from(self.stopped)))
            .with("learn/kl_coef", (objective.kl > 0.0).then_some(objective.kl));
        let Some(PolicyTerm::Clip { epsilon }) = objective.policy else { return report };
        report.with("learn/clip_fraction", mean.clipped).with("learn/clip", epsilon)
    }
}
