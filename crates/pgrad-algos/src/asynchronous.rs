//! What asynchronous actor-learners have in common: Mnih, Badia, Mirza, Graves, Lillicrap, Harley, Silver, Kavukcuoglu
//! 2016, arXiv:1602.01783, section 4.
//!
//! Every actor-learner is a thread with an environment of its own and a copy `θ′` of the parameters. It copies the
//! shared `θ`, acts for up to `t_max` steps, adds up the gradient `dθ` of these steps, and applies it to the shared `θ`
//! without waiting for anybody: meanwhile others have changed it, so that the gradient of one `θ` moves another. How
//! many updates came in between is the *staleness* of a gradient.
//!
//! All threads stop at the ends of their segments after a number of steps of all together: that is an iteration, and
//! what is seen between two of them is a consistent state.

use crate::algorithm::{BuildError, Phase, PhaseObserver, Report, Reproducible, Setup};
use crate::common::{Activation, ModelSettings, Schedule, load_finite};
use crate::off_policy::{Target as Policy, alternative, check_masks, greedy, soften};
use pgrad_agent::{ActorCritic, AgentError, Critic, Segment, SegmentPasses, Stepper, Trunk, Turns, tensors};
use pgrad_env::{End, EnvSpec, Episode, Space};
use pgrad_num::{Array, Cols, Record, RecordError, SharedVec, Stream, Team, kernels};
use pgrad_optim::{Hogwild, HogwildRule, RmsPropParams, Schedule as Factor, clip_global_norm};
use pgrad_settings::{Settings, above, choice, settings, to_toml};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Purpose number of the streams that the values of ε are drawn from.
const STREAM_EPSILON: u32 = 6;
/// Episodes of one actor-learner in an iteration that there is room for without asking for memory.
const EPISODES: usize = 1 << 16;
/// Bins of the histogram of staleness: 0, 1, 2, 3, 4 to 7, 8 and more.
const BINS: usize = 6;

choice! {
    /// How a gradient changes the shared parameters.
    pub enum AsyncOptimizer {
        /// RMSProp whose mean squares all actor-learners share.
        SharedRmsprop = "shared-rmsprop",
        /// RMSProp with mean squares of each actor-learner's own.
        Rmsprop = "rmsprop",
        /// Momentum, each actor-learner's own.
        Momentum = "momentum",
    }
}

settings! {
    /// Asynchronous actor-learners.
    pub struct AsyncSettings {
        /// Actor-learners, each of which is a thread with an environment of its own. Part of the results; with one the
        /// method is an ordinary online one, and reproducible.
        workers: usize = 16, range: 1..=256, unit: "threads", source: "Mnih et al. 2016, section 5.1";
        /// Steps between two updates of an actor-learner (t_max, I_AsyncUpdate); fewer where an episode ends.
        n_steps: usize = 5, range: 1..=4096, unit: "steps", source: "Mnih et al. 2016, section 5.1";
        /// Discount of what comes later.
        gamma: f64 = 0.99, range: 0.0..=1.0, source: "Mnih et al. 2016, section 8";
        /// Bootstrap from the value of the final observation where a time limit cut an episode. Off treats
        /// the cut as an end of the task: a common mistake, kept to show its effect.
        bootstrap_time_limit: bool = true, source: "Pardo et al. 2018, Eq. 6";
        /// Steps of all actor-learners together between two looks of the runner (metrics, checkpoints, a stop on
        /// request). With one actor-learner it has no effect on what is learnt; more of them wait for the last one
        /// there.
        steps_per_iteration: u64 = 10_000, range: 1..=1_000_000_000, unit: "environment steps";
        /// How a gradient changes the shared parameters.
        optimizer: AsyncOptimizer = AsyncOptimizer::SharedRmsprop, source: "Mnih et al. 2016, section 4.5";
        /// Step size.
        learning_rate: f64 = 1e-3, range: above(0.0), source: "Mnih et al. 2016, section 5.1 (drawn from 1e-4 to 1e-2)";
        /// How `learning_rate` changes over the run.
        learning_rate_schedule: Schedule = Schedule::Linear, source: "Mnih et al. 2016, section 8";
        /// Decay of the mean of squared gradients in RMSProp (alpha in the paper).
        rmsprop_decay: f64 = 0.99, range: 0.0..=0.999_999, source: "Mnih et al. 2016, section 8",
            when: optimizer is "shared-rmsprop" | "rmsprop";
        /// Added to the mean square in RMSProp, inside the root.
        rmsprop_epsilon: f64 = 1e-5, range: above(0.0), source: "OpenAI baselines, a2c",
            when: optimizer is "shared-rmsprop" | "rmsprop";
        /// Part of the momentum that stays at an update (alpha in the paper).
        momentum: f64 = 0.99, range: 0.0..=0.999_999, source: "Mnih et al. 2016, section 8",
            when: optimizer is "momentum";
        /// Longest gradient of all parameters together; longer ones are scaled down.
        max_grad_norm: Option<f64> = None, range: above(0.0), source: "Mnih et al. 2016, section 8 (tuned; no value is given)";
        /// Write down the order in which actor-learners copy and change the shared parameters, one at a time, so that
        /// the run can be followed bit for bit (`replay`). It costs speed.
        record: bool = false;
        /// The `turns.safetensors` of a recorded run that is to be followed.
        replay: String = String::new(), when: record is "false";
    }
}

choice! {
    /// When an actor-learner draws its ε.
    pub enum EpsilonDraw {
        /// At the start of every episode.
        Episode = "episode",
        /// Once for the whole run.
        Once = "once",
    }
}

settings! {
    /// Exploration and target network of the methods that learn action values.
    pub struct AsyncValueSettings {
        /// First of the three values that an actor-learner's ε falls to (epsilon 1).
        epsilon_1: f64 = 0.1, range: 0.0..=1.0, source: "Mnih et al. 2016, section 5.1";
        /// Second value (epsilon 2).
        epsilon_2: f64 = 0.01, range: 0.0..=1.0, source: "Mnih et al. 2016, section 5.1";
        /// Third value (epsilon 3), drawn with what the probabilities of the others leave.
        epsilon_3: f64 = 0.5, range: 0.0..=1.0, source: "Mnih et al. 2016, section 5.1";
        /// Probability of `epsilon_1`.
        epsilon_1_probability: f64 = 0.4, range: 0.0..=1.0, source: "Mnih et al. 2016, section 5.1";
        /// Probability of `epsilon_2`.
        epsilon_2_probability: f64 = 0.3, range: 0.0..=1.0, source: "Mnih et al. 2016, section 5.1";
        /// When an actor-learner draws its ε.
        epsilon_draw: EpsilonDraw = EpsilonDraw::Episode, source: "Mnih et al. 2016, section 4 (periodically)";
        /// Steps of all actor-learners over which every ε falls from 1 to its value.
        epsilon_steps: u64 = 4_000_000, range: 0..=1_000_000_000_000, unit: "environment steps",
            source: "Mnih et al. 2016, section 5.1";
        /// Steps of all actor-learners after which the target network becomes a copy of the present one (I_target).
        /// Raising it makes targets steadier, and older.
        target_steps: u64 = 40_000, range: 1..=1_000_000_000_000, unit: "environment steps",
            source: "Mnih et al. 2016, section 8";
    }
}

settings! {
    /// The network of action values.
    pub struct QNetworkSettings {
        /// Units of each hidden layer; an empty list gives a linear function.
        hidden: Vec<usize> = vec![64, 64], range: 1..=8192, unit: "units";
        /// What hidden units do.
        activation: Activation = Activation::Relu, source: "Mnih et al. 2016, section 8";
        /// Orthogonal initial weights with gain sqrt 2 (hidden) and 0.01 (values); off draws uniform weights of width
        /// 1/sqrt(inputs).
        orthogonal_init: bool = true, source: "OpenAI baselines, ppo2";
    }
}

impl QNetworkSettings {
    /// A model whose policy's outputs are `Q(s, ·)`: its most probable action is the greedy one.
    pub(crate) fn build(&self, env: &EnvSpec, seed: u64) -> Result<ActorCritic, BuildError> {
        let Self { hidden, activation, orthogonal_init } = self.clone();
        let settings = ModelSettings { hidden, activation, orthogonal_init, ..ModelSettings::default() };
        settings.build(env, Critic::None, Trunk::Separate, seed)
    }
}

impl AsyncSettings {
    /// Refuses what is not a recording; whether it is one of this run is seen when that is built.
    pub(crate) fn check(&self, file: Option<&[u8]>) -> Result<(), BuildError> {
        if self.file().is_none() {
            return Ok(());
        }
        let bytes = file.ok_or_else(|| self.refuse_recording("it was not read".into()))?;
        read_recording(bytes).map_err(|reason| self.refuse_recording(reason))?;
        Ok(())
    }
    fn refuse_recording(&self, reason: String) -> BuildError {
        BuildError::Inconsistent { key: "replay", value: format!("`{}`", self.replay), reason }
    }
    pub(crate) fn file(&self) -> Option<(&'static str, &str)> {
        (!self.record && !self.replay.is_empty()).then_some(("replay", self.replay.as_str()))
    }
    fn rule(&self) -> HogwildRule {
        let params = RmsPropParams { decay: self.rmsprop_decay, epsilon: self.rmsprop_epsilon };
        match self.optimizer {
            AsyncOptimizer::SharedRmsprop => HogwildRule::SharedRmsProp(params),
            AsyncOptimizer::Rmsprop => HogwildRule::RmsProp(params),
            AsyncOptimizer::Momentum => HogwildRule::Momentum { momentum: self.momentum },
        }
    }
}

impl AsyncValueSettings {
    /// Checks the probabilities, and that the task is one choice among alternatives that are always there.
    pub(crate) fn check(&self, env: &EnvSpec) -> Result<(), BuildError> {
        if !matches!(env.action, Space::Discrete { .. }) {
            return Err(BuildError::Environment {
                env: env.id.clone(),
                reason: format!("the method is for one choice among alternatives, not for {}", env.action),
            });
        }
        check_masks(env)?;
        let sum = self.epsilon_1_probability + self.epsilon_2_probability;
        if sum > 1.0 + 1e-9 {
            return Err(BuildError::Inconsistent {
                key: "epsilon_2_probability",
                value: self.epsilon_2_probability.to_string(),
                reason: format!("with `epsilon_1_probability` it makes {sum}, more than 1"),
            });
        }
        Ok(())
    }
    /// The value that ε falls to, drawn.
    fn draw(&self, stream: &mut Stream) -> f64 {
        let u = stream.uniform();
        if u < self.epsilon_1_probability {
            self.epsilon_1
        } else if u < self.epsilon_1_probability + self.epsilon_2_probability {
            self.epsilon_2
        } else {
            self.epsilon_3
        }
    }
    /// ε after `frames` steps of all actor-learners.
    fn anneal(&self, end: f64, frames: u64) -> f64 {
        let part = if self.epsilon_steps == 0 { 1.0 } else { frames as f64 / self.epsilon_steps as f64 };
        1.0 + (end - 1.0) * part.min(1.0)
    }
}

/// The settings that a recording and the run that follows it agree in.
fn comparable(parts: &[&dyn Settings]) -> String {
    let own = |line: &&str| !line.starts_with("record =") && !line.starts_with("replay =");
    to_toml(parts, false).lines().filter(own).map(|line| format!("{line}\n")).collect()
}

/// The turns and the settings of a recording.
fn read_recording(bytes: &[u8]) -> Result<(Vec<u8>, String), String> {
    let (record, note) = tensors::decode(bytes).map_err(|e| e.to_string())?;
    match record.get("turns") {
        Ok(Array::U8(turns)) => Ok((turns.clone(), note.unwrap_or_default())),
        Ok(_) => Err("its turns are not bytes".into()),
        Err(e) => Err(e.to_string()),
    }
}

/// `max_a Q(s_i, a)`.
pub(crate) fn largest(q: Cols<'_, f32>, i: usize) -> f32 {
    (1..q.rows()).fold(q.at(0, i), |best, a| if q.at(a, i) > best { q.at(a, i) } else { best })
}

/// A number on a pair of cache lines of its own, so that counting it does not slow down who reads its neighbours.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Alone<T>(T);

/// What actor-learners share.
#[derive(Debug)]
struct Shared {
    theta: SharedVec,
    rule: Hogwild,
    /// The target network's parameters, and how often they were renewed.
    target: Option<(SharedVec, Alone<AtomicU64>)>,
    target_steps: u64,
    /// `T`: steps of all actor-learners.
    frames: Alone<AtomicU64>,
    /// Updates of `θ` by all actor-learners.
    updates: Alone<AtomicU64>,
    /// The iteration ends when `T` is here.
    goal: AtomicU64,
    /// Somebody cannot go on.
    failed: AtomicBool,
    turns: Turns,
    learning_rate: f64,
    schedule: Factor,
    total_steps: u64,
    /// What divergences have left of the step size, as bits.
    step_scale: AtomicU64,
}

impl Shared {
    fn failed(&self) -> bool {
        self.failed.load(Relaxed)
    }
    /// The step size after `frames` steps.
    fn alpha(&self, frames: u64) -> f64 {
        let scale = f64::from_bits(self.step_scale.load(Relaxed));
        scale * self.learning_rate * self.schedule.factor(frames, self.total_steps)
    }
    /// `θ⁻ ← θ` if one of the steps `from..to` was one of `T mod I_target = 0`.
    fn renew_target(&self, from: u64, to: u64) {
        let Some((target, version)) = &self.target else { return };
        if from / self.target_steps == to / self.target_steps {
            return;
        }
        let mut block = [0.0; SharedVec::BLOCK];
        for start in self.theta.blocks() {
            self.theta.read_block(start, &mut block);
            target.write_block(start, &block);
        }
        version.0.fetch_add(1, Relaxed);
    }
}

/// How an actor-learner explores.
#[derive(Debug)]
struct Exploration {
    settings: AsyncValueSettings,
    stream: Stream,
    /// What its ε falls to.
    end: f64,
    column: Vec<f32>,
    pi: Vec<f32>,
}

/// One actor-learner: a thread's copy of the parameters, its environment, and the segment that it learns from.
#[repr(align(128))]
pub(crate) struct ActorLearner {
    number: usize,
    shared: Arc<Shared>,
    max_grad_norm: f64,
    /// `θ′`.
    pub(crate) model: ActorCritic,
    /// `θ⁻`.
    pub(crate) target: Vec<f32>,
    target_version: Option<u64>,
    stepper: Stepper,
    pub(crate) segment: Segment,
    pub(crate) passes: SegmentPasses,
    /// `dθ`.
    pub(crate) d_theta: Vec<f32>,
    /// Cotangents of the steps of a segment: of `log π`, `H`, `V` (or of `Q`).
    pub(crate) d_logp: Vec<f32>,
    pub(crate) d_entropy: Vec<f32>,
    pub(crate) d_v: Vec<f32>,
    /// `π(·|s_t)` behind the last step: see [`ActorLearner::next_policy`].
    pub(crate) pi_next: Vec<f32>,
    pub(crate) bootstrap_time_limit: bool,
    /// Momentum, or mean squares.
    own: Vec<f32>,
    exploration: Option<Exploration>,
    /// Updates and steps of all actor-learners when `θ` was copied.
    copied_at: u64,
    frames: u64,
    pub(crate) sums: Sums,
    outcome: Result<(), AgentError>,
}

impl ActorLearner {
    /// `dθ ← 0`, `θ′ ← θ`, `t_start = t`. Whether there is anything to do: until `T > T_max`.
    pub(crate) fn synchronize(&mut self) -> Result<bool, AgentError> {
        let Self { number, shared, model, target, target_version, copied_at, frames, .. } = self;
        let over = || shared.failed() || shared.frames.0.load(Relaxed) >= shared.goal.load(Relaxed);
        let copied = shared.turns.take(*number, over, || {
            *copied_at = shared.updates.0.load(Relaxed);
            *frames = shared.frames.0.load(Relaxed);
            shared.theta.read(&mut model.theta); // θ′
            if let Some((theta, version)) = &shared.target {
                let version = version.0.load(Relaxed);
                if *target_version != Some(version) {
                    theta.read(target); // θ⁻
                    *target_version = Some(version);
                }
            }
        })?;
        self.d_theta.fill(0.0);
        self.segment.clear();
        Ok(copied.is_some())
    }
    /// Whether the segment goes on: until a terminal `s_t` or `t − t_start = t_max`.
    pub(crate) fn is_acting(&self) -> bool {
        !self.segment.is_over()
    }
    /// `a_t ~ π(·|s_t; θ′)`; take it, receive `r_t` and `s_{t+1}`.
    pub(crate) fn act(&mut self) -> Result<(), AgentError> {
        self.stepper.act(&self.model)?;
        self.step()
    }
    /// `a_t` ε-greedy in `Q(s_t, ·; θ′)`; take it, receive `r_t` and `s_{t+1}`.
    pub(crate) fn act_greedily(&mut self) -> Result<(), AgentError> {
        self.draw()?;
        self.sums.epsilon += f64::from(self.epsilon());
        self.step()?;
        let Self { exploration, segment, .. } = self;
        if let Some(e) = exploration
            && segment.end() != End::Running
            && e.settings.epsilon_draw == EpsilonDraw::Episode
        {
            e.end = e.settings.draw(&mut e.stream);
        }
        Ok(())
    }
    /// Draws the next action, ε-greedy, without taking it.
    fn draw(&mut self) -> Result<(), AgentError> {
        let epsilon = self.epsilon();
        let Self { stepper, model, passes, exploration, .. } = self;
        let Some(e) = exploration else { return Ok(()) };
        stepper.act_with(model.dist(), |obs, out| {
            let q = passes.q_aside(model, &model.theta, obs);
            soften(q, epsilon, Policy::Greedy, &mut e.column, &mut e.pi, out);
        })
    }
    fn step(&mut self) -> Result<(), AgentError> {
        self.stepper.advance()?;
        self.segment.push(&self.stepper.transition(0));
        Ok(())
    }
    /// The present ε.
    pub(crate) fn epsilon(&self) -> f32 {
        self.exploration.as_ref().map_or(0.0, |e| e.settings.anneal(e.end, self.frames) as f32)
    }
    /// Draws `a′`, the action that follows the last step, and writes `π(·|s_t)`: 1 for it and 0 for the others. Where
    /// the episode ended there is none to draw: then all that ε-greedy might have drawn.
    pub(crate) fn next_policy(&mut self) -> Result<(), AgentError> {
        if self.segment.end() == End::Running {
            self.draw()?;
            self.pi_next.fill(0.0);
            self.pi_next[alternative(self.stepper.drawn(0))] = 1.0;
            return Ok(());
        }
        let epsilon = self.epsilon();
        let Self { model, passes, segment, pi_next, .. } = self;
        let best = greedy(passes.q_aside(model, &model.theta, segment.last_obs()).data());
        let n = pi_next.len() as f32;
        pi_next.fill(epsilon / n);
        pi_next[best] += 1.0 - epsilon;
        Ok(())
    }
    /// What a return starts from behind the last step: 0 after a terminal state, else what `value` says of `s_t`, the
    /// final observation where a time limit cut the episode.
    pub(crate) fn after_last(&mut self, value: impl FnOnce(&mut Self) -> f32) -> Result<f32, AgentError> {
        let v = if self.segment.end() == End::Terminated { 0.0 } else { value(self) };
        let last = self.segment.len() - 1;
        self.segment.finite("value", last, self.segment.after(last, v, self.bootstrap_time_limit))
    }
    /// Asynchronous update of `θ` using `dθ`.
    pub(crate) fn update(&mut self) -> Result<(), AgentError> {
        let Self { number, shared, d_theta, own, segment, sums, copied_at, .. } = self;
        let norm = clip_global_norm(d_theta, self.max_grad_norm);
        // A mean square has room for squares of numbers up to this.
        if !norm.is_finite() || norm.min(self.max_grad_norm) >= f64::from(f32::MAX).sqrt() {
            let worse = |a: usize, b: usize| if d_theta[b].abs() > d_theta[a].abs() { b } else { a };
            let worst = || (1..d_theta.len()).fold(0, worse);
            let index = kernels::first_non_finite(d_theta).unwrap_or_else(worst);
            let (tensor, i) = self.model.parameter_name(index);
            return Err(AgentError::Update { tensor, index: i, step: self.frames, value: d_theta[index] });
        }
        let steps = segment.len() as u64;
        shared.turns.take(
            *number,
            || shared.failed(),
            || {
                let stale = shared.updates.0.fetch_add(1, Relaxed) - *copied_at;
                let before = shared.frames.0.fetch_add(steps, Relaxed); // T
                shared.rule.step(&shared.theta, own, d_theta, shared.alpha(before)); // θ
                shared.renew_target(before, before + steps); // θ⁻
                sums.count(steps, norm, stale);
            },
        )?;
        Ok(())
    }
    fn panic(&self, payload: &(dyn std::any::Any + Send)) -> AgentError {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        let (episode, step) = self.stepper.position(0);
        AgentError::Panic {
            env: self.number,
            episode,
            step,
            message: text.unwrap_or("(it said nothing)").into(),
        }
    }
}

/// What is reported, summed over the steps of an iteration.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sums {
    steps: u64,
    updates: u64,
    grad_norm: f64,
    stale: u64,
    stale_max: u64,
    stale_bins: [u64; BINS],
    pub(crate) epsilon: f64,
    /// Error of the value: what it should be minus what it is.
    pub(crate) error: f64,
    pub(crate) squared_error: f64,
    pub(crate) value: f64,
    /// Of the policy, to be climbed.
    pub(crate) objective: f64,
    pub(crate) entropy: f64,
}

impl Sums {
    fn count(&mut self, steps: u64, norm: f64, stale: u64) {
        self.steps += steps;
        self.updates += 1;
        self.grad_norm += norm;
        self.stale += stale;
        self.stale_max = self.stale_max.max(stale);
        let bin = match stale {
            0..=3 => stale as usize,
            4..=7 => 4,
            _ => 5,
        };
        self.stale_bins[bin] += 1;
    }
    /// Adds a step with its value and the error of that value.
    pub(crate) fn add(&mut self, value: f32, error: f32) {
        let error = f64::from(error);
        self.value += f64::from(value);
        self.error += error;
        self.squared_error += error * error;
    }
    /// Adds a step of a policy with its part of the objective and its entropy.
    pub(crate) fn add_policy(&mut self, objective: f32, entropy: f32) {
        self.objective += f64::from(objective);
        self.entropy += f64::from(entropy);
    }
    fn merge(&mut self, other: &Self) {
        self.steps += other.steps;
        self.updates += other.updates;
        self.grad_norm += other.grad_norm;
        self.stale += other.stale;
        self.stale_max = self.stale_max.max(other.stale_max);
        self.stale_bins.iter_mut().zip(other.stale_bins).for_each(|(a, b)| *a += b);
        self.epsilon += other.epsilon;
        self.error += other.error;
        self.squared_error += other.squared_error;
        self.value += other.value;
        self.objective += other.objective;
        self.entropy += other.entropy;
    }
}

/// The actor-learners of a run.
pub(crate) struct ActorLearners {
    settings: AsyncSettings,
    /// What a recording says of the run.
    note: String,
    shared: Arc<Shared>,
    learners: Vec<ActorLearner>,
    spec: EnvSpec,
    /// The shared parameters after the last iteration.
    pub(crate) model: ActorCritic,
    pub(crate) observer: PhaseObserver,
}

impl ActorLearners {
    /// Actor-learners at rest. `parts` are all settings of the method, `recording` the file of [`AsyncSettings::file`].
    pub(crate) fn new(
        settings: &AsyncSettings,
        values: Option<&AsyncValueSettings>,
        parts: &[&dyn Settings],
        recording: Option<&[u8]>,
        model: ActorCritic,
        setup: &Setup<'_>,
    ) -> Result<Self, BuildError> {
        let (n, spec) = (settings.workers, (setup.make_env)(1).spec().clone());
        if setup.threads < n {
            return Err(BuildError::Inconsistent {
                key: "workers",
                value: n.to_string(),
                reason: format!("each of them is a thread, and the team has {}", setup.threads),
            });
        }
        let note = format!(
            "env = {:?}\nseed = {}\nsteps = {}\n{}",
            spec.id,
            setup.seed,
            setup.total_steps,
            comparable(parts)
        );
        let turns = match (settings.record, recording) {
            (true, _) => Turns::record(),
            (false, Some(bytes)) => {
                let wrong = |reason| settings.refuse_recording(reason);
                let (turns, theirs) = read_recording(bytes).map_err(wrong)?;
                if let Some((a, b)) = theirs.lines().zip(note.lines()).find(|(a, b)| a != b) {
                    return Err(wrong(format!("it was recorded with `{a}`, but this run has `{b}`")));
                }
                Turns::replay(turns, n)
            }
            (false, None) => Turns::free(),
        };
        let shared = Arc::new(Shared {
            theta: SharedVec::new(&model.theta),
            rule: Hogwild::new(model.theta.len(), settings.rule()),
            target: values.map(|_| (SharedVec::new(&model.theta), Alone::default())),
            target_steps: values.map_or(1, |v| v.target_steps),
            frames: Alone::default(),
            updates: Alone::default(),
            goal: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            turns,
            learning_rate: settings.learning_rate,
            schedule: settings.learning_rate_schedule.into(),
            total_steps: setup.total_steps,
            step_scale: AtomicU64::new(1.0f64.to_bits()),
        });
        let episodes = EPISODES.min(settings.steps_per_iteration as usize + settings.n_steps);
        let n_outputs = model.dist().n_outputs();
        let learner = |number: usize| {
            let exploration = values.map(|settings| {
                let mut stream = Stream::new(setup.seed, STREAM_EPSILON, number as u32);
                let end = settings.draw(&mut stream);
                let (column, pi) = (vec![0.0; n_outputs], vec![0.0; n_outputs]);
                Exploration { settings: settings.clone(), stream, end, column, pi }
            });
            ActorLearner {
                number,
                bootstrap_time_limit: settings.bootstrap_time_limit,
                max_grad_norm: settings.max_grad_norm.unwrap_or(f64::INFINITY),
                target: if values.is_some() { model.theta.clone() } else { Vec::new() },
                target_version: None,
                stepper: Stepper::numbered(number, 1, setup.make_env, &model, setup.seed, episodes),
                segment: Segment::new(&spec, settings.n_steps),
                passes: SegmentPasses::new(&model, settings.n_steps),
                d_theta: vec![0.0; model.theta.len()],
                d_logp: vec![0.0; settings.n_steps],
                d_entropy: vec![0.0; settings.n_steps],
                d_v: vec![0.0; settings.n_steps],
                pi_next: vec![0.0; n_outputs],
                own: shared.rule.own(),
                exploration,
                copied_at: 0,
                frames: 0,
                sums: Sums::default(),
                outcome: Ok(()),
                model: model.clone(),
                shared: Arc::clone(&shared),
            }
        };
        Ok(Self {
            learners: (0..n).map(learner).collect(),
            settings: settings.clone(),
            note,
            observer: Box::new(drop),
            shared,
            spec,
            model,
        })
    }

    /// One iteration: `thread` on a thread for each actor-learner.
    ///
    /// # Errors
    /// What stopped one of them; the others were stopped then.
    pub(crate) fn run(
        &mut self,
        team: &Team,
        thread: impl Fn(&mut ActorLearner) -> Result<(), AgentError> + Sync,
    ) -> Result<(), AgentError> {
        (self.observer)(Phase::Learn);
        let shared = &*self.shared;
        shared.goal.store(self.steps() + self.settings.steps_per_iteration, Relaxed);
        shared.failed.store(false, Relaxed);
        shared.turns.begin();
        for w in &mut self.learners {
            w.stepper.clear_episodes();
            w.sums = Sums::default();
        }
        team.each(&mut self.learners, |_, w| {
            let outcome = catch_unwind(AssertUnwindSafe(|| thread(w)));
            w.outcome = outcome.unwrap_or_else(|payload| Err(w.panic(&*payload)));
            if w.outcome.is_err() {
                shared.failed.store(true, Relaxed);
            }
        });
        for w in &mut self.learners {
            std::mem::replace(&mut w.outcome, Ok(()))
                .map_err(|cause| AgentError::Worker { worker: w.number, cause: Box::new(cause) })?;
        }
        shared.theta.read(&mut self.model.theta);
        if let Some(i) = kernels::first_non_finite(&self.model.theta) {
            let (tensor, index) = self.model.parameter_name(i);
            return Err(AgentError::Parameter { tensor, index, value: self.model.theta[i] });
        }
        (self.observer)(Phase::Done);
        Ok(())
    }

    fn sums(&self) -> Sums {
        let mut sums = Sums::default();
        self.learners.iter().for_each(|w| sums.merge(&w.sums));
        sums
    }
    /// Means over the steps of the last iteration.
    pub(crate) fn means(&self) -> Sums {
        let mut means = self.sums();
        let n = means.steps as f64;
        let Sums { epsilon, error, squared_error, value, objective, entropy, .. } = &mut means;
        [epsilon, error, squared_error, value, objective, entropy].into_iter().for_each(|x| *x /= n);
        means
    }
    /// What the last iteration did, for a method that learns action values.
    pub(crate) fn value_report(&self) -> Report {
        let mean = self.means();
        let report = Report::default()
            .with("learn/td_error", mean.error)
            .with("learn/td_error_rms", mean.squared_error.sqrt())
            .with("learn/value", mean.value)
            .with("learn/epsilon", mean.epsilon);
        self.report(report)
    }
    /// Adds what all asynchronous methods report of the last iteration.
    pub(crate) fn report(&self, report: Report) -> Report {
        let s = self.sums();
        let updates = s.updates as f64;
        let stale = |bin: usize| s.stale_bins[bin] as f64 / updates;
        report
            .with("learn/grad_norm", s.grad_norm / updates)
            .with("learn/learning_rate", self.shared.alpha(self.steps()))
            .with("learn/updates", updates)
            .with("learn/reproducible", f64::from(self.reproducible() != Reproducible::No))
            .with("learn/staleness_mean", s.stale as f64 / updates)
            .with("learn/staleness_max", s.stale_max as f64)
            .with("learn/staleness_0", stale(0))
            .with("learn/staleness_1", stale(1))
            .with("learn/staleness_2", stale(2))
            .with("learn/staleness_3", stale(3))
            .with("learn/staleness_4_to_7", stale(4))
            .with("learn/staleness_8_up", stale(5))
    }

    pub(crate) fn start(&mut self) -> Result<(), AgentError> {
        self.learners.iter_mut().try_for_each(|w| w.stepper.start())
    }
    pub(crate) fn steps(&self) -> u64 {
        self.shared.frames.0.load(Relaxed)
    }
    pub(crate) fn steps_per_iteration(&self) -> u64 {
        self.settings.steps_per_iteration
    }
    pub(crate) fn spec(&self) -> &EnvSpec {
        &self.spec
    }
    pub(crate) fn episodes(&self) -> impl Iterator<Item = &Episode> {
        self.learners.iter().flat_map(|w| w.stepper.episodes())
    }
    pub(crate) fn scale_step_size(&mut self, factor: f64) {
        let scale = f64::from_bits(self.shared.step_scale.load(Relaxed)) * factor;
        self.shared.step_scale.store(scale.to_bits(), Relaxed);
    }
    /// Whether the same settings give the same bits.
    pub(crate) fn reproducible(&self) -> Reproducible {
        match (self.settings.workers, self.settings.file(), self.settings.record) {
            (1, ..) | (_, Some(_), _) => Reproducible::Yes,
            (_, None, true) => Reproducible::ByRecording,
            (_, None, false) => Reproducible::No,
        }
    }
    /// The file that lets another run follow this one.
    pub(crate) fn recording(&self) -> Option<Vec<u8>> {
        let mut record = Record::new();
        record.put("turns", self.shared.turns.recorded()?);
        tensors::encode(&record, Some(&self.note)).ok()
    }

    pub(crate) fn save(&self) -> Record {
        let mut r = Record::new();
        r.put("steps", vec![self.steps()]);
        r.put("updates", vec![self.shared.updates.0.load(Relaxed)]);
        r.put("step_scale", vec![f64::from_bits(self.shared.step_scale.load(Relaxed))]);
        r.put("theta", self.model.theta.clone());
        r.put_record("rule", self.shared.rule.save());
        if let Some((target, version)) = &self.shared.target {
            let mut theta = self.model.theta.clone();
            target.read(&mut theta);
            r.put("target", theta);
            r.put("target_version", vec![version.0.load(Relaxed)]);
        }
        r.put("turns_taken", vec![self.shared.turns.taken()]);
        r.put("turns", self.shared.turns.recorded().unwrap_or_default());
        for w in &self.learners {
            let mut own = Record::new();
            own.put_record("stepper", w.stepper.save());
            own.put("moments", w.own.clone());
            if let Some(e) = &w.exploration {
                own.put("epsilon", vec![e.end]);
                Stream::save_all(std::slice::from_ref(&e.stream), "epsilons", &mut own);
            }
            r.put_record(&format!("worker{}", w.number), own);
        }
        r
    }
    /// Restores what [`ActorLearners::save`] saved. Returns whether the environments continue exactly.
    pub(crate) fn load(&mut self, from: &Record) -> Result<bool, RecordError> {
        load_finite(from, "theta", &mut self.model.theta)?;
        let shared = &*self.shared;
        shared.theta.write(&self.model.theta);
        shared.rule.load(&from.record("rule"))?;
        shared.frames.0.store(from.u64("steps")?, Relaxed);
        shared.updates.0.store(from.u64("updates")?, Relaxed);
        shared.step_scale.store(from.f64("step_scale")?.to_bits(), Relaxed);
        if let Some((target, version)) = &shared.target {
            let mut theta = self.model.theta.clone();
            load_finite(from, "target", &mut theta)?;
            target.write(&theta);
            version.0.store(from.u64("target_version")?, Relaxed);
        }
        let turns = match from.get("turns")? {
            Array::U8(turns) => turns.as_slice(),
            other => from.u8s("turns", other.len())?,
        };
        shared.turns.set(turns, from.u64("turns_taken")?);
        let mut exact = true;
        for w in &mut self.learners {
            let own = from.record(&format!("worker{}", w.number));
            exact &= w.stepper.load(&own.record("stepper"))?;
            shared.rule.load_own(&mut w.own, "moments", &own)?;
            w.target_version = None;
            if let Some(e) = &mut w.exploration {
                e.end = own.f64("epsilon")?;
                Stream::load_all(std::slice::from_mut(&mut e.stream), "epsilons", &own)?;
            }
        }
        Ok(exact)
    }
}

/// The part of [`crate::Algorithm`] that is the same for all of them; `self.run` is the [`ActorLearners`].
macro_rules! async_algorithm {
    () => {
        fn start(&mut self) -> Result<(), AgentError> {
            self.run.start()
        }
        fn observe_phases(&mut self, observer: PhaseObserver) {
            self.run.observer = observer;
        }
        fn steps(&self) -> u64 {
            self.run.steps()
        }
        fn steps_per_iteration(&self) -> u64 {
            self.run.steps_per_iteration()
        }
        fn spec(&self) -> &EnvSpec {
            self.run.spec()
        }
        fn episodes(&self) -> Box<dyn Iterator<Item = &Episode> + '_> {
            Box::new(self.run.episodes())
        }
        fn obs_norm(&self) -> Option<&ObsNormalizer> {
            None
        }
        fn model(&self) -> &ActorCritic {
            &self.run.model
        }
        fn scale_step_size(&mut self, factor: f64) {
            self.run.scale_step_size(factor);
        }
        fn reproducible(&self) -> Reproducible {
            self.run.reproducible()
        }
        fn recording(&self) -> Option<Vec<u8>> {
            self.run.recording()
        }
        fn save(&self) -> Record {
            self.run.save()
        }
        fn load(&mut self, from: &Record) -> Result<bool, RecordError> {
            self.run.load(from)
        }
    };
}
pub(crate) use async_algorithm;

/// The part of [`AlgoConfig`] that follows from the actor-learners.
macro_rules! async_config {
    () => {
        fn boxed_clone(&self) -> Box<dyn AlgoConfig> {
            Box::new(self.clone())
        }
        fn file(&self) -> Option<(&'static str, &str)> {
            self.learners.file()
        }
        fn take_file(&mut self, bytes: &[u8]) {
            self.recording = Some(bytes.to_vec());
        }
        fn threads(&self, _asked: usize) -> usize {
            self.learners.workers
        }
    };
}
pub(crate) use async_config;

/// The settings of a method that learns action values, what the runner asks of them, and the method with nothing but
/// its `iterate` left to say.
macro_rules! async_value_method {
    ($(#[$config_doc:meta])+ $config:ident, $(#[$doc:meta])+ $algo:ident) => {
        $(#[$config_doc])+
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $config {
            /// The actor-learners.
            pub learners: AsyncSettings,
            /// Exploration and target network.
            pub values: AsyncValueSettings,
            /// The network.
            pub network: QNetworkSettings,
            /// Bytes of the recording that is followed.
            pub recording: Option<Vec<u8>>,
        }

        impl AlgoConfig for $config {
            fn parts(&self) -> Vec<&dyn Settings> {
                vec![&self.learners, &self.values, &self.network]
            }
            fn parts_mut(&mut self) -> Vec<&mut dyn Settings> {
                vec![&mut self.learners, &mut self.values, &mut self.network]
            }
            fn check(&self, env: &EnvSpec) -> Result<(), BuildError> {
                self.values.check(env)?;
                self.learners.check(self.recording.as_deref())
            }
            fn build(&self, setup: &Setup<'_>) -> Result<Box<dyn Algorithm>, BuildError> {
                Ok(Box::new($algo::new(self, setup)?))
            }
            async_config!();
        }

        $(#[$doc])+
        pub struct $algo {
            gamma: f64,
            run: ActorLearners,
        }

        impl std::fmt::Debug for $algo {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($algo)).field("steps", &self.run.steps()).finish_non_exhaustive()
            }
        }

        impl $algo {
            /// The method with its environments, not yet started.
            ///
            /// # Errors
            /// When settings do not fit together, or not to the environment.
            pub fn new(config: &$config, setup: &Setup<'_>) -> Result<Self, BuildError> {
                let spec = (setup.make_env)(1).spec().clone();
                config.check(&spec)?;
                let model = config.network.build(&spec, setup.seed)?;
                let (values, recording) = (Some(&config.values), config.recording.as_deref());
                let run = ActorLearners::new(&config.learners, values, &config.parts(), recording, model, setup)?;
                Ok(Self { gamma: config.learners.gamma, run })
            }
        }
    };
}
pub(crate) use async_value_method;
