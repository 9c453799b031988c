//! What methods have in common that learn at every step of their environments.

use crate::algorithm::{Phase, PhaseObserver, Setup};
use crate::common::{Schedule, load_finite};
use crate::off_policy::Behaviour;
use pgrad_agent::{ActorCritic, AgentError, PointGradients, Stepper};
use pgrad_env::MakeError;
use pgrad_num::{Record, RecordError, kernels};
use pgrad_optim::Schedule as Factor;
use pgrad_settings::settings;

settings! {
    /// Learning at every step.
    pub struct OnlineSettings {
        /// Environments stepped together (N). Each has traces of its own; what they teach in a step is added
        /// up. The books have one.
        n_envs: usize = 1, range: 1..=4096, unit: "environments", source: "Sutton and Barto 2018, section 13.5";
        /// Steps of each environment between two looks of the runner (metrics, checkpoints, a stop on request).
        /// It has no effect on what is learnt: every step learns.
        n_steps: usize = 1000, range: 1..=1_048_576, unit: "steps";
        /// Discount of what comes later.
        gamma: f64 = 0.99, range: 0.0..=1.0, source: "Mnih et al. 2016, supplement";
        /// Bootstrap from the value of the final observation where a time limit cut an episode. Off treats
        /// the cut as an end of the task: a common mistake, kept to show its effect.
        bootstrap_time_limit: bool = true, source: "Pardo et al. 2018, Eq. 6";
        /// How all step sizes change over the run.
        step_size_schedule: Schedule = Schedule::Constant, source: "Sutton and Barto 2018, section 13.5";
    }
}

/// Environments, model and parameters' updates of a method that learns at every step.
pub(crate) struct Online {
    pub(crate) settings: OnlineSettings,
    total_steps: u64,
    pub(crate) steps: u64,
    /// Steps in which an environment failed, since this was built.
    pub(crate) lost: u64,
    /// What divergences have left of the step sizes.
    pub(crate) step_scale: f64,
    pub(crate) model: ActorCritic,
    pub(crate) stepper: Stepper,
    pub(crate) point: PointGradients,
    /// Room for `∇_θ log π(a|s)`.
    pub(crate) score: Vec<f32>,
    /// Room for the gradient of a value.
    pub(crate) gradient: Vec<f32>,
    /// What a step adds to all parameters.
    update: Vec<f32>,
    pub(crate) observer: PhaseObserver,
}

impl Online {
    pub(crate) fn new(
        settings: &OnlineSettings,
        model: ActorCritic,
        setup: &Setup<'_>,
    ) -> Result<Self, MakeError> {
        let episodes = settings.n_envs * settings.n_steps;
        Ok(Self {
            settings: settings.clone(),
            total_steps: setup.total_steps,
            steps: 0,
            lost: 0,
            step_scale: 1.0,
            stepper: Stepper::new(settings.n_envs, setup.make_env, &model, setup.seed, episodes)?,
            point: PointGradients::new(&model),
            score: vec![0.0; model.actor().params.len()],
            gradient: vec![0.0; model.theta.len() - model.actor().params.len()],
            update: vec![0.0; model.theta.len()],
            observer: Box::new(drop),
            model,
        })
    }
    pub(crate) fn steps_per_iteration(&self) -> u64 {
        (self.settings.n_envs * self.settings.n_steps) as u64
    }
    /// The factor on all step sizes, now.
    pub(crate) fn factor(&self) -> f64 {
        Factor::from(self.settings.step_size_schedule).factor(self.steps, self.total_steps) * self.step_scale
    }
    /// The step sizes of policy and critic, now.
    pub(crate) fn step_sizes(&self, alpha_theta: f64, alpha_w: f64) -> (f32, f32) {
        let factor = self.factor();
        ((alpha_theta * factor) as f32, (alpha_w * factor) as f32)
    }
    /// Takes actions of the present policy in all environments.
    pub(crate) fn step(&mut self) -> Result<(), AgentError> {
        (self.observer)(Phase::Collect);
        self.stepper.act(&self.model)?;
        self.stepper.advance()?;
        (self.observer)(Phase::Learn);
        Ok(())
    }
    /// As [`Online::step`], and then draws the actions that follow.
    pub(crate) fn step_and_draw(&mut self) -> Result<(), AgentError> {
        (self.observer)(Phase::Collect);
        self.stepper.act(&self.model)?;
        self.stepper.advance()?;
        self.stepper.act(&self.model)?;
        (self.observer)(Phase::Learn);
        Ok(())
    }
    /// Takes actions of a behaviour policy in all environments.
    pub(crate) fn step_off_policy(&mut self, behaviour: &mut Behaviour) -> Result<(), AgentError> {
        (self.observer)(Phase::Collect);
        behaviour.act(&mut self.stepper, &self.model)?;
        self.stepper.advance()?;
        (self.observer)(Phase::Learn);
        Ok(())
    }
    /// Where a step writes what it adds to the parameters of policy and critic.
    pub(crate) fn updates(&mut self) -> Updates<'_> {
        let (d_theta, d_w) = self.update.split_at_mut(self.model.actor().params.end);
        Updates {
            model: &self.model,
            stepper: &self.stepper,
            point: &mut self.point,
            score: &mut self.score,
            gradient: &mut self.gradient,
            d_theta,
            d_w,
        }
    }
    /// Adds the update to the parameters; nothing is added when part of it is not finite.
    pub(crate) fn learn(&mut self) -> Result<(), AgentError> {
        if let Some(i) = kernels::first_non_finite(&self.update) {
            let (tensor, index) = self.model.parameter_name(i);
            let (step, value) = (self.steps, self.update[i]);
            return Err(AgentError::Update { tensor, index, step, value });
        }
        kernels::axpy(1.0, &self.update, &mut self.model.theta);
        self.update.fill(0.0);
        let lost = self.stepper.lost();
        self.lost += lost;
        self.steps += self.settings.n_envs as u64 - lost;
        Ok(())
    }
    pub(crate) fn save(&self) -> Record {
        let mut r = Record::new();
        r.put("steps", vec![self.steps]);
        r.put("step_scale", vec![self.step_scale]);
        r.put("theta", self.model.theta.clone());
        r.put_record("stepper", self.stepper.save());
        r
    }
    /// Restores what [`Online::save`] saved. Returns whether the environments continue exactly.
    pub(crate) fn load(&mut self, from: &Record) -> Result<bool, RecordError> {
        load_finite(from, "theta", &mut self.model.theta)?;
        self.update.fill(0.0);
        self.steps = from.u64("steps")?;
        self.step_scale = from.f64("step_scale")?;
        self.stepper.load(&from.record("stepper"))
    }
}

/// What a step of learning reads and writes.
pub(crate) struct Updates<'a> {
    pub(crate) model: &'a ActorCritic,
    pub(crate) stepper: &'a Stepper,
    pub(crate) point: &'a mut PointGradients,
    pub(crate) score: &'a mut [f32],
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
    entropy: f64,
}

impl Means {
    /// Adds a step with its TD error, the value of its state (or of its action), and `log π(a|s)`.
    pub(crate) fn add(&mut self, delta: f32, value: f32, logp: f32) {
        let delta = f64::from(delta);
        self.n += 1.0;
        self.delta += delta;
        self.delta_squared += delta * delta;
        self.value += f64::from(value);
        self.entropy -= f64::from(logp);
    }
    /// Mean TD error.
    pub(crate) fn td_error(&self) -> f64 {
        self.delta / self.n
    }
    /// Root of the mean squared TD error.
    pub(crate) fn td_error_rms(&self) -> f64 {
        (self.delta_squared / self.n).sqrt()
    }
    /// Mean value.
    pub(crate) fn value(&self) -> f64 {
        self.value / self.n
    }
    /// Mean of `−log π(a|s)`: an estimate of the entropy.
    pub(crate) fn entropy(&self) -> f64 {
        self.entropy / self.n
    }
}

/// The part of [`crate::Algorithm`] that is the same for all of them; `self.run` is the [`Online`].
macro_rules! online_algorithm {
    () => {
        fn start(&mut self) -> Result<(), AgentError> {
            self.run.stepper.start()
        }
        fn observe_phases(&mut self, observer: PhaseObserver) {
            self.run.observer = observer;
        }
        fn steps(&self) -> u64 {
            self.run.steps
        }
        fn lost_steps(&self) -> u64 {
            self.run.lost
        }
        fn steps_per_iteration(&self) -> u64 {
            self.run.steps_per_iteration()
        }
        fn spec(&self) -> &EnvSpec {
            self.run.stepper.spec()
        }
        fn episodes(&self) -> Box<dyn Iterator<Item = &Episode> + '_> {
            Box::new(self.run.stepper.episodes())
        }
        fn obs_norm(&self) -> Option<&ObsNormalizer> {
            None
        }
        fn model(&self) -> &ActorCritic {
            &self.run.model
        }
        fn scale_step_size(&mut self, factor: f64) {
            self.run.step_scale *= factor;
        }
    };
}
pub(crate) use online_algorithm;
