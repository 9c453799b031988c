//! What methods have in common that learn at every step of their environments.

use crate::algorithm::{Algorithm, BuildError, Phase, Report, Setup};
use crate::common::Schedule;
use crate::memory::{Needs, Sizes};
use crate::off_policy::Behaviour;
use crate::shell::{Agent, Method, Source};
use pgrad_collect::Stepper;
use pgrad_engine::PointGradients;
use pgrad_env::{EnvSpec, Episode};
use pgrad_model::{ActorCritic, AgentError, Clipping};
use pgrad_num::{Record, RecordError, kernels};
use pgrad_settings::settings;

settings! {
    /// Learning at every step.
    pub struct OnlineSettings {
        /// Number of environments stepped together (N). Each has its own traces; their updates at a step are
        /// summed. Textbooks use one.
        n_envs: usize = 1, range: 1..=4096, unit: "environments", source: "Sutton and Barto 2018, section 13.5";
        /// Steps per environment and iteration, after which metrics and checkpoints are written. Does not
        /// affect learning, which happens at every step.
        n_steps: usize = 1000, range: 1..=1_048_576, unit: "steps";
        /// Discount factor of future rewards.
        gamma: f64 = 0.99, range: 0.0..=1.0, source: "Mnih et al. 2016, supplement";
        /// Bootstrap from the value of the final observation when a time limit cuts an episode short. If
        /// false, the cut counts as the end of the task: a common mistake, kept to show its effect.
        bootstrap_time_limit: bool = true, source: "Pardo et al. 2018, Eq. 6";
        /// How all step sizes change over the run.
        step_size_schedule: Schedule = Schedule::Constant, source: "Sutton and Barto 2018, section 13.5";
    }
}

/// Environments that are stepped together, and room for what a step teaches.
pub(crate) struct Online {
    settings: OnlineSettings,
    stepper: Stepper,
    /// Steps in which an environment failed, since this was built.
    lost: u64,
    point: PointGradients,
    score: Vec<f32>,
    gradient: Vec<f32>,
    /// What a step adds to all parameters.
    update: Vec<f32>,
}

/// What such a method takes, with `vectors` over all parameters of its own and traces or not.
pub(crate) fn online_needs(
    settings: &OnlineSettings,
    model: &ActorCritic,
    (env, threads): (&EnvSpec, usize),
    vectors: usize,
    traces: bool,
) -> Needs {
    // Parameters, gradients, update.
    let sizes = Sizes::new(model, env, settings.n_envs, threads).vectors(3 + vectors, 1 + vectors);
    let sizes = if traces { sizes.traces(settings.n_envs) } else { sizes };
    sizes.all()
}

/// `method` at rest, learning at every step of its environments.
pub(crate) fn online<M: Method<Source = Online> + 'static>(
    settings: &OnlineSettings,
    model: ActorCritic,
    setup: &Setup<'_>,
    method: M,
) -> Result<Box<dyn Algorithm>, BuildError> {
    let episodes = settings.n_envs * settings.n_steps;
    let source = Online {
        settings: settings.clone(),
        stepper: Stepper::new(settings.n_envs, setup.make_env, &model, setup.seed, episodes)?,
        lost: 0,
        point: PointGradients::new(&model),
        score: vec![0.0; model.actor().params.len()],
        gradient: vec![0.0; model.theta.len() - model.actor().params.len()],
        update: vec![0.0; model.theta.len()],
    };
    Ok(Agent::new(setup, model, source).runs(method))
}

impl Source for Online {
    fn start(&mut self) -> Result<(), AgentError> {
        self.stepper.start()
    }
    fn spec(&self) -> &EnvSpec {
        self.stepper.spec()
    }
    fn episodes(&self) -> Box<dyn Iterator<Item = &Episode> + '_> {
        Box::new(self.stepper.episodes())
    }
    fn steps_per_iteration(&self) -> u64 {
        (self.settings.n_envs * self.settings.n_steps) as u64
    }
    fn lost_steps(&self) -> u64 {
        self.lost
    }
    fn take_clipping(&mut self) -> Clipping {
        self.stepper.take_clipping()
    }
    fn save(&self) -> Record {
        self.stepper.save()
    }
    fn load(&mut self, from: &Record) -> Result<bool, RecordError> {
        self.update.fill(0.0);
        self.stepper.load(from)
    }
}

impl Online {
    /// `γ`, and whether the value of the final observation counts where a time limit cut an episode.
    pub(crate) fn discount(&self) -> (f32, bool) {
        (self.settings.gamma as f32, self.settings.bootstrap_time_limit)
    }
}

impl Agent<Online> {
    /// An iteration begins; it has this many steps of each environment.
    pub(crate) fn begin(&mut self) -> usize {
        self.source.stepper.clear_episodes();
        self.source.settings.n_steps
    }
    /// The factor on all step sizes, now.
    pub(crate) fn factor(&self) -> f64 {
        self.step_size(1.0, self.source.settings.step_size_schedule)
    }
    /// Step sizes, now.
    pub(crate) fn step_sizes<const N: usize>(&self, sizes: [f64; N]) -> [f32; N] {
        let factor = self.factor();
        sizes.map(|alpha| (alpha * factor) as f32)
    }
    /// Takes actions of the present policy in all environments.
    pub(crate) fn step(&mut self) -> Result<(), AgentError> {
        self.phase(Phase::Collect);
        self.source.stepper.act(&self.model)?;
        self.source.stepper.advance()?;
        self.phase(Phase::Learn);
        Ok(())
    }
    /// As [`Agent::step`], and then draws the actions that follow.
    pub(crate) fn step_and_draw(&mut self) -> Result<(), AgentError> {
        self.phase(Phase::Collect);
        self.source.stepper.act(&self.model)?;
        self.source.stepper.advance()?;
        self.source.stepper.act(&self.model)?;
        self.phase(Phase::Learn);
        Ok(())
    }
    /// Takes actions of a behaviour policy in all environments.
    pub(crate) fn step_off_policy(&mut self, behaviour: &mut Behaviour) -> Result<(), AgentError> {
        self.phase(Phase::Collect);
        behaviour.act(&mut self.source.stepper, &self.model)?;
        self.source.stepper.advance()?;
        self.phase(Phase::Learn);
        Ok(())
    }
    /// What the step was, and where it writes what it adds to the parameters of policy and critic.
    pub(crate) fn updates(&mut self) -> Updates<'_> {
        let Self { model, source, .. } = self;
        let Online { stepper, point, score, gradient, update, .. } = source;
        let (d_theta, d_w) = update.split_at_mut(model.actor().params.end);
        Updates { model, stepper, point, score, gradient, d_theta, d_w }
    }
    /// Adds the update to the parameters; nothing is added when part of it is not finite.
    pub(crate) fn learn(&mut self) -> Result<(), AgentError> {
        let step = self.steps();
        let Self { model, source, engine, .. } = self;
        let Online { update, point, stepper, .. } = source;
        if let Some(i) = kernels::first_non_finite(update) {
            let ((tensor, index), value) = (model.parameter_name(i), update[i]);
            return Err(AgentError::Update { tensor, index, step, value });
        }
        kernels::axpy(1.0, update, &mut model.theta);
        update.fill(0.0);
        engine.count_flops(point.take_flops());
        let (lost, all) = (stepper.lost(), stepper.n_envs() as u64);
        source.lost += lost;
        self.count(all - lost);
        Ok(())
    }
}

/// What a step of learning reads and writes.
pub(crate) struct Updates<'a> {
    pub(crate) model: &'a ActorCritic,
    pub(crate) stepper: &'a Stepper,
    pub(crate) point: &'a mut PointGradients,
    /// Room for `∇_θ log π(a|s)`.
    pub(crate) score: &'a mut [f32],
    /// Room for the gradient of a value.
    pub(crate) gradient: &'a mut [f32],
    /// To add to: the update of the policy's parameters.
    pub(crate) d_theta: &'a mut [f32],
    /// To add to: the update of the critic's parameters.
    pub(crate) d_w: &'a mut [f32],
}

/// Means over the steps of an iteration.
#[derive(Debug, Default)]
pub(crate) struct Means {
    n: f64,
    delta: f64,
    delta_squared: f64,
    value: f64,
    other: f64,
    other_max: f64,
}

impl Means {
    /// Adds a step with its TD error, the value of its state (or of its action), and a number of the method's
    /// own.
    pub(crate) fn add(&mut self, delta: f32, value: f32, other: f32) {
        let (delta, other) = (f64::from(delta), f64::from(other));
        self.n += 1.0;
        self.delta += delta;
        self.delta_squared += delta * delta;
        self.value += f64::from(value);
        self.other += other;
        self.other_max = self.other_max.max(other);
    }
    /// The means, that of the method's own number as `other`.
    pub(crate) fn report(&self, other: &'static str) -> Report {
        Report::default()
            .with("learn/td_error", self.delta / self.n)
            .with("learn/td_error_rms", (self.delta_squared / self.n).sqrt())
            .with("learn/value", self.value / self.n)
            .with(other, self.other / self.n)
    }
    /// The largest of the method's own numbers, or 0.
    pub(crate) fn largest(&self) -> f64 {
        self.other_max
    }
}
