//! What every method has, held once: model, engine, experience, steps, step size, phases, saving.

use crate::{
    algorithm::{Algorithm, Phase, PhaseObserver, Report, Reproducible, Setup},
    common::{Schedule, load_finite},
};
use pgrad_collect::{Candidates, Collector};
use pgrad_engine::{Batch, Engine};
use pgrad_env::{EnvSpec, Episode};
use pgrad_model::{ActorCritic, AgentError, Clipping, ObsNormalizer, Policy};
use pgrad_num::{Record, RecordError, kernels};

/// Where experience comes from: environments that go on from iteration to iteration.
pub trait Source: Send {
    /// Starts a first episode everywhere.
    ///
    /// # Errors
    /// When an environment breaks its contract.
    fn start(&mut self) -> Result<(), AgentError>;
    /// What the environments are.
    fn spec(&self) -> &EnvSpec;
    /// Episodes that ended during the last iteration.
    fn episodes(&self) -> Box<dyn Iterator<Item = &Episode> + '_>;
    /// Steps of one iteration; where they vary, of the last one.
    fn steps_per_iteration(&self) -> u64;
    /// Steps that were not learnt from because their environment failed, so far.
    fn lost_steps(&self) -> u64 {
        0
    }
    /// How many numbers of actions lay outside their bounds since this was last asked.
    fn take_clipping(&mut self) -> Clipping;
    /// The normaliser of observations, if there is one.
    fn obs_norm(&self) -> Option<&ObsNormalizer> {
        None
    }
    /// Whether the same settings give the same experience again.
    fn reproducible(&self) -> Reproducible {
        Reproducible::Yes
    }
    /// A file that lets another run follow this one: see [`Algorithm::recording`].
    fn recording(&self) -> Option<Vec<u8>> {
        None
    }
    /// Saves environments, streams and normalisers.
    fn save(&self) -> Record;
    /// Restores what [`Source::save`] saved. Returns whether the environments continue exactly.
    ///
    /// # Errors
    /// When the record does not fit.
    fn load(&mut self, from: &Record) -> Result<bool, RecordError>;
}

/// What an algorithm's file implements: its iteration, and the state that it alone has.
pub trait Method: Send {
    /// Where its experience comes from.
    type Source: Source;
    /// One iteration: collect, then learn.
    ///
    /// # Errors
    /// When something is not finite or an environment breaks its contract: see [`AgentError`].
    fn iterate(&mut self, agent: &mut Agent<Self::Source>) -> Result<Report, AgentError>;
    /// The policy that is handed out, of the model's parameters.
    fn policy(&self, model: &ActorCritic) -> ActorCritic {
        model.clone()
    }
    /// Adds the state that the method alone has.
    fn save(&self, _to: &mut Record) {}
    /// Restores what [`Method::save`] saved.
    ///
    /// # Errors
    /// When the record does not fit.
    fn load(&mut self, _from: &Record) -> Result<(), RecordError> {
        Ok(())
    }
    /// After loading: the environments could not go on, and new episodes begin.
    fn restart(&mut self) {}
    /// A divergence has multiplied the step size by `factor`, for what is no step size of
    /// [`Agent::step_size`].
    fn shrink(&mut self, _factor: f64) {}
}

/// What a method works with.
pub struct Agent<S> {
    /// Policy and critic.
    pub model: ActorCritic,
    /// What computes.
    pub engine: Engine,
    /// The environments.
    pub source: S,
    steps: u64,
    /// Steps of the batch at hand. They count when the iteration has succeeded.
    collected: u64,
    total_steps: u64,
    /// What divergences have left of the step size.
    step_scale: f64,
    observer: PhaseObserver,
}

impl<S> Agent<S> {
    /// `value` as a schedule has it after the steps so far.
    #[must_use]
    pub fn annealed(&self, value: f64, schedule: Schedule) -> f64 {
        value * pgrad_optim::Schedule::from(schedule).factor(self.steps, self.total_steps)
    }
    /// A step size as its schedule, and the divergences so far, have left it.
    #[must_use]
    pub fn step_size(&self, value: f64, schedule: Schedule) -> f64 {
        self.annealed(value, schedule) * self.step_scale
    }
    /// What divergences have left of all step sizes.
    #[must_use]
    pub fn step_scale(&self) -> f64 {
        self.step_scale
    }
    /// Tells the observer that a phase begins.
    pub fn phase(&mut self, phase: Phase) {
        (self.observer)(phase);
    }
    /// Counts environment steps.
    pub fn count(&mut self, steps: u64) {
        self.steps += steps;
    }
    /// Environment steps so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }
}

impl Agent<Collector> {
    /// An agent at rest that learns from batches of `collector`; its engine has room for values of them.
    pub(crate) fn collecting(setup: &Setup<'_>, model: ActorCritic, collector: Collector) -> Self {
        Self::new(setup, model, collector)
            .with_room(|engine, model, c| engine.with_values(model, c.spec(), c.envs_per_shard()))
    }
    /// Runs the policy in the environments; lends what came of it, and what learns from it.
    ///
    /// # Errors
    /// As [`Collector::collect`].
    pub fn collect(&mut self) -> Result<(Batch<'_>, &mut ActorCritic, &mut Engine), AgentError> {
        let Self { model, engine, source, collected, observer, .. } = self;
        observer(Phase::Collect);
        let batch = source.collect(model)?;
        *collected = batch.steps();
        observer(Phase::Learn);
        Ok((batch, model, engine))
    }
}

impl<S: Source + 'static> Agent<S> {
    /// An agent at rest, whose engine has room for nothing yet.
    pub(crate) fn new(setup: &Setup<'_>, model: ActorCritic, source: S) -> Self {
        Self {
            model,
            engine: Engine::new(&setup.cpu),
            source,
            steps: 0,
            collected: 0,
            total_steps: setup.total_steps,
            step_scale: 1.0,
            observer: Box::new(drop),
        }
    }
    /// Makes room in the engine.
    pub(crate) fn with_room(mut self, room: impl FnOnce(Engine, &ActorCritic, &S) -> Engine) -> Self {
        self.engine = room(self.engine, &self.model, &self.source);
        self
    }
    /// The algorithm that `method` is with this agent.
    pub(crate) fn runs(self, method: impl Method<Source = S> + 'static) -> Box<dyn Algorithm> {
        Box::new(Shell { agent: self, method })
    }
}

/// A method with its agent: an [`Algorithm`].
struct Shell<M: Method> {
    agent: Agent<M::Source>,
    method: M,
}

impl<M: Method> Algorithm for Shell<M> {
    fn start(&mut self) -> Result<(), AgentError> {
        self.agent.source.start()
    }
    fn iterate(&mut self) -> Result<Report, AgentError> {
        self.agent.collected = 0;
        let done = self.method.iterate(&mut self.agent);
        // Also of an iteration that failed: the next one counts anew.
        let clipped = self.agent.source.take_clipping().share();
        let report = done?.with("learn/action_clipped", clipped);
        let model = &self.agent.model;
        if let Some(i) = kernels::first_non_finite(&model.theta) {
            let (tensor, index) = model.parameter_name(i);
            return Err(AgentError::Parameter { tensor, index, value: model.theta[i] });
        }
        self.agent.steps += self.agent.collected;
        self.agent.phase(Phase::Done);
        Ok(report)
    }
    fn observe_phases(&mut self, observer: PhaseObserver) {
        self.agent.observer = observer;
    }
    fn flops(&self) -> f64 {
        self.agent.engine.flops()
    }
    fn steps(&self) -> u64 {
        self.agent.steps
    }
    fn steps_per_iteration(&self) -> u64 {
        self.agent.source.steps_per_iteration().max(1)
    }
    fn spec(&self) -> &EnvSpec {
        self.agent.source.spec()
    }
    fn lost_steps(&self) -> u64 {
        self.agent.source.lost_steps()
    }
    fn episodes(&self) -> Box<dyn Iterator<Item = &Episode> + '_> {
        self.agent.source.episodes()
    }
    fn obs_norm(&self) -> Option<&ObsNormalizer> {
        self.agent.source.obs_norm()
    }
    fn model(&self) -> &ActorCritic {
        &self.agent.model
    }
    fn scale_step_size(&mut self, factor: f64) {
        self.agent.step_scale *= factor;
        self.method.shrink(factor);
    }
    fn save(&self) -> Record {
        let Agent { model, source, steps, step_scale, .. } = &self.agent;
        let mut r = Record::new();
        r.put("steps", vec![*steps]);
        r.put("step_scale", vec![*step_scale]);
        r.put("theta", model.theta.clone());
        r.put_record("experience", source.save());
        self.method.save(&mut r);
        r
    }
    fn load(&mut self, from: &Record) -> Result<bool, RecordError> {
        let Agent { model, source, steps, step_scale, .. } = &mut self.agent;
        load_finite(from, "theta", &mut model.theta)?;
        *steps = from.u64("steps")?;
        *step_scale = from.f64("step_scale")?;
        self.method.load(from)?;
        let exact = source.load(&from.record("experience"))?;
        if !exact {
            self.method.restart();
        }
        Ok(exact)
    }
    fn reproducible(&self) -> Reproducible {
        self.agent.source.reproducible()
    }
    fn recording(&self) -> Option<Vec<u8>> {
        self.agent.source.recording()
    }
    fn policy(&self, batch: usize) -> Policy {
        let model = self.method.policy(self.model());
        Policy::new(&self.spec().id, model, self.obs_norm().cloned(), batch)
            .with_observation(self.spec().observation.clone())
    }
}

impl Source for Collector {
    fn start(&mut self) -> Result<(), AgentError> {
        self.start()
    }
    fn spec(&self) -> &EnvSpec {
        self.spec()
    }
    fn episodes(&self) -> Box<dyn Iterator<Item = &Episode> + '_> {
        Box::new(self.finished())
    }
    fn steps_per_iteration(&self) -> u64 {
        self.store().steps()
    }
    fn lost_steps(&self) -> u64 {
        self.lost_steps()
    }
    fn take_clipping(&mut self) -> Clipping {
        self.take_clipping()
    }
    fn obs_norm(&self) -> Option<&ObsNormalizer> {
        self.obs_norm()
    }
    fn save(&self) -> Record {
        self.save()
    }
    fn load(&mut self, from: &Record) -> Result<bool, RecordError> {
        self.load(from)
    }
}

impl Source for Candidates {
    fn start(&mut self) -> Result<(), AgentError> {
        self.start()
    }
    fn spec(&self) -> &EnvSpec {
        self.spec()
    }
    fn episodes(&self) -> Box<dyn Iterator<Item = &Episode> + '_> {
        Box::new(self.episodes())
    }
    fn steps_per_iteration(&self) -> u64 {
        self.steps()
    }
    fn take_clipping(&mut self) -> Clipping {
        self.take_clipping()
    }
    fn save(&self) -> Record {
        self.save()
    }
    fn load(&mut self, from: &Record) -> Result<bool, RecordError> {
        self.load(from)
    }
}
