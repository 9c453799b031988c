//! The MuJoCo tasks of Gymnasium, on the real MuJoCo library.
//!
//! | task | observation (v4, v5) | action | reward | episode ends |
//! |---|---|---|---|---|
//! | [`HalfCheetah`] | 17 | 6 | speed, cost of control | never |
//! | [`Hopper`] | 11 | 3 | speed, being healthy, cost of control | when it falls |
//! | [`Walker2d`] | 17 | 6 | speed, being healthy, cost of control | when it falls |
//! | [`Ant`] | 27, 105 | 8 | speed, being healthy, costs of control and (v5) contact | when it falls or jumps |
//! | [`Humanoid`] | 376, 348 | 17 | speed, being healthy, costs of control and (v5) contact | when it falls |
//! | [`HumanoidStandup`] | 376, 348 | 17 | height, costs of control and impact | never |
//! | [`Swimmer`] | 8 | 2 | speed, cost of control | never |
//! | [`Reacher`] | 11, 10 | 2 | distance to the target, cost of control | never |
//! | [`Pusher`] | 23 | 7 | distances, cost of control | never |
//! | [`InvertedPendulum`] | 4 | 1 | 1 a step | when the pole falls |
//! | [`InvertedDoublePendulum`] | 11, 9 | 1 | 10 a step, penalties of distance and speed | when the tip is low |
//!
//! All episodes are cut after 1000 steps, those of Reacher after 50 and those of Pusher after 100. What a
//! task is, and what differs between its v4 and v5, is in its file: a struct of numbers with a constant for
//! each version. [`Mujoco`] makes a batch of any [`Task`], also of your own.
//!
//! # What agrees with Gymnasium, and how far
//! Observation, reward and end of every step agree with the real Gymnasium on the same library, from the same
//! state and under the same actions (`goldens/mujoco/make.py`). Only the random numbers of first states are
//! another generator's. As there, quantities that MuJoCo derives from the state (positions of bodies, contact
//! forces) are those of the last substep's start; a state whose numbers explode is reset inside the library,
//! which the episode does not notice.
//!
//! # State
//! What is saved of a copy is the library's whole state of integration, with the solver's warm start, and
//! what the next step looks back on; so a run continues bit for bit.
//!
//! # Files
//! Model files are read when a batch's maker is opened ([`open`], [`Mujoco::load`]), from the folder that
//! `cargo xtask mujoco` makes or the one that the variable `PGRAD_MUJOCO_MODELS` names.
//!
//! Source: Gymnasium 1.3.0, `gymnasium/envs/mujoco`; E. Todorov, T. Erez, Y. Tassa, "MuJoCo: A physics engine
//! for model-based control", IROS 2012.

mod ant;
mod described;
mod half_cheetah;
mod hopper;
mod humanoid;
mod humanoid_standup;
mod inverted_double_pendulum;
mod inverted_pendulum;
mod pusher;
mod reacher;
mod render;
mod sim;
mod swimmer;
mod walker2d;

pub use ant::Ant;
pub use described::{Described, Limit, Noise, Quantity, Seen, Term};
pub use half_cheetah::HalfCheetah;
pub use hopper::Hopper;
pub use humanoid::Humanoid;
pub use humanoid_standup::HumanoidStandup;
pub use inverted_double_pendulum::InvertedDoublePendulum;
pub use inverted_pendulum::InvertedPendulum;
pub use pusher::Pusher;
pub use reacher::Reacher;
pub use sim::{Model, ModelFile, Sim, models_folder};
pub use swimmer::Swimmer;
pub use walker2d::Walker2d;

use pgrad_env::{
    Actions, BatchEnv, BoxSpace, End, EnvMaker, EnvSpec, MakeError, Picture, PictureError, Space,
};
use pgrad_num::{ColsMut, Stream};
use std::ops::{Add, Mul};
use std::sync::Arc;

/// Numbers of [`Task::memory`].
pub const MEMORY: usize = 6;

/// What a task is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct About {
    /// Name of the environment.
    pub id: String,
    /// Its model.
    pub model: ModelFile,
    /// Bodies that the task looks at, for [`Sim::body`].
    pub bodies: Vec<String>,
    /// Steps of the physics in one of the task.
    pub frame_skip: u32,
    /// An episode is cut after so many steps.
    pub max_episode_steps: Option<u32>,
    /// Return at which the task counts as solved.
    pub reward_threshold: Option<f64>,
    /// Whether [`Sim::contact_forces`] are wanted after a step; they cost time.
    pub contact_forces: bool,
}

/// What a step of a task returned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Reward of the step.
    pub reward: f64,
    /// Whether the episode is over.
    pub terminated: bool,
}

/// A task on a model: what is rewarded, what is seen, where it starts and when it is over.
///
/// ```no_run
/// use pgrad_envs::mujoco::{About, ModelFile, Mujoco, Outcome, Sim, Task, MEMORY};
/// use pgrad_num::Stream;
///
/// /// Hold a pole of one's own upright.
/// #[derive(Clone, Debug)]
/// struct Pole;
///
/// impl Task for Pole {
///     fn about(&self) -> About {
///         About {
///             id: "Pole-v0".into(),
///             model: ModelFile::Path("pole.xml".into()),
///             bodies: vec![],
///             frame_skip: 2,
///             max_episode_steps: Some(500),
///             reward_threshold: None,
///             contact_forces: false,
///         }
///     }
///     fn reset(&self, sim: &mut Sim, rng: &mut Stream) {
///         sim.qpos_mut().iter_mut().for_each(|q| *q += rng.uniform_in(-0.1, 0.1));
///     }
///     fn outcome(&self, _: &[f64; MEMORY], sim: &Sim, _: &[f32]) -> Outcome {
///         let angle = sim.qpos()[0];
///         Outcome { reward: angle.cos(), terminated: angle.abs() > 1.0 }
///     }
///     fn observe(&self, sim: &Sim, obs: &mut Vec<f64>) {
///         obs.extend(sim.qpos());
///         obs.extend(sim.qvel());
///     }
/// }
///
/// let make = Mujoco::load(Pole)?;
/// let envs = make(16)?;
/// # Ok::<(), pgrad_env::MakeError>(())
/// ```
pub trait Task: Clone + std::fmt::Debug + Send + Sync + 'static {
    /// Model, limits and what is needed of the physics.
    fn about(&self) -> About;
    /// Moves a copy from the model's own first state to the first one of an episode.
    fn reset(&self, sim: &mut Sim, rng: &mut Stream);
    /// What the next step's reward looks back on. Numbers that MuJoCo derives must be kept here: after a
    /// state was loaded they are not there until the next step.
    fn memory(&self, _sim: &Sim) -> [f64; MEMORY] {
        [0.0; MEMORY]
    }
    /// Reward and end, after the physics of a step; `before` is the memory that the step began with.
    fn outcome(&self, before: &[f64; MEMORY], sim: &Sim, action: &[f32]) -> Outcome;
    /// Appends the observation. Always as many numbers.
    fn observe(&self, sim: &Sim, obs: &mut Vec<f64>);
}

/// A batch of a [`Task`]: a simulation for each copy, one model for all.
#[derive(Debug)]
pub struct Mujoco<T> {
    spec: EnvSpec,
    task: T,
    sims: Vec<Sim>,
    memory: Vec<[f64; MEMORY]>,
    /// `[len x obs_dim]`: the observation of a copy in one piece.
    obs: Vec<f64>,
    /// One observation, as a task writes it.
    scratch: Vec<f64>,
    /// One action.
    action: Vec<f32>,
}

impl<T: Task> Mujoco<T> {
    /// Reads the task's model; what is returned makes batches on it.
    ///
    /// # Errors
    /// When the model cannot be read, or does not have what the task looks at.
    pub fn load(task: T) -> Result<EnvMaker, MakeError> {
        let model = Model::load(&task.about())?;
        Ok(Arc::new(move |n| Ok(Box::new(Self::new(task.clone(), &model, n)?))))
    }
    /// `n` copies on a model.
    ///
    /// # Errors
    /// When there is no memory for so many.
    ///
    /// # Panics
    /// When `n` is 0.
    pub fn new(task: T, model: &Model, n: usize) -> Result<Self, MakeError> {
        assert!(n > 0, "a batch has at least one environment");
        let about = task.about();
        let sims = (0..n).map(|_| Sim::new(model)).collect::<Result<Vec<_>, _>>()?;
        let mut scratch = Vec::new();
        task.observe(&sims[0], &mut scratch);
        let dim = scratch.len();
        let action = model.action_space();
        let mut envs = Self {
            memory: vec![[0.0; MEMORY]; n],
            obs: vec![0.0; n * dim],
            scratch,
            action: vec![0.0; action.dim()],
            spec: EnvSpec {
                id: about.id,
                observation: BoxSpace::unbounded(dim).into(),
                action: Space::Box(action),
                max_episode_steps: about.max_episode_steps,
                reward_threshold: about.reward_threshold,
                masks_actions: false,
            },
            task,
            sims,
        };
        for b in 0..n {
            envs.note(b);
        }
        Ok(envs)
    }
    /// The observation of copy `b` in double precision.
    #[must_use]
    pub fn observation(&self, b: usize) -> &[f64] {
        let dim = self.scratch.len();
        &self.obs[b * dim..(b + 1) * dim]
    }
    /// The simulation of copy `b`.
    #[must_use]
    pub fn sim(&self, b: usize) -> &Sim {
        &self.sims[b]
    }
    /// Starts an episode of copy `b` at these positions and velocities.
    ///
    /// # Panics
    /// When they are not as many as the model has.
    pub fn start_at(&mut self, b: usize, qpos: &[f64], qvel: &[f64]) {
        self.start(b, |_, sim| {
            sim.qpos_mut().copy_from_slice(qpos);
            sim.qvel_mut().copy_from_slice(qvel);
        });
    }
    fn start(&mut self, b: usize, place: impl FnOnce(&T, &mut Sim)) {
        self.sims[b].reset();
        place(&self.task, &mut self.sims[b]);
        self.sims[b].forward();
        self.note(b);
    }
    /// Keeps what is seen of copy `b`, and what its next step looks back on.
    fn note(&mut self, b: usize) {
        self.memory[b] = self.task.memory(&self.sims[b]);
        self.scratch.clear();
        self.task.observe(&self.sims[b], &mut self.scratch);
        let dim = self.scratch.len();
        self.obs[b * dim..(b + 1) * dim].copy_from_slice(&self.scratch);
    }
}

impl<T: Task> BatchEnv for Mujoco<T> {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }
    fn len(&self) -> usize {
        self.sims.len()
    }
    fn reset(&mut self, b: usize, rng: &mut Stream) {
        self.start(b, |task, sim| task.reset(sim, rng));
    }
    fn step(&mut self, actions: Actions<'_>, _: &mut [Stream], rewards: &mut [f64], ends: &mut [End]) {
        let actions = actions.real;
        for b in 0..self.sims.len() {
            for (i, a) in self.action.iter_mut().enumerate() {
                *a = actions.at(i, b);
            }
            self.sims[b].step(&self.action);
            let outcome = self.task.outcome(&self.memory[b], &self.sims[b], &self.action);
            self.note(b);
            rewards[b] = outcome.reward;
            ends[b] = if outcome.terminated { End::Terminated } else { End::Running };
        }
    }
    fn observe(&self, mut obs: ColsMut<'_, f32>) {
        for b in 0..self.sims.len() {
            for (i, x) in self.observation(b).iter().enumerate() {
                obs.set(i, b, *x as f32);
            }
        }
    }
    fn observe_one(&self, b: usize, obs: &mut [f32]) {
        for (to, x) in obs.iter_mut().zip(self.observation(b)) {
            *to = *x as f32;
        }
    }
    fn save(&self, b: usize) -> Option<Vec<f64>> {
        let mut state = self.sims[b].save();
        state.extend(self.memory[b]);
        state.extend(self.observation(b));
        Some(state)
    }
    fn load(&mut self, b: usize, state: &[f64]) -> bool {
        let dim = self.scratch.len();
        let own = self.sims[b].state_len();
        if state.len() != own + MEMORY + dim || !state.iter().all(|x| x.is_finite()) {
            return false;
        }
        let (physics, rest) = state.split_at(own);
        if !self.sims[b].load(physics) {
            return false;
        }
        let (memory, obs) = rest.split_at(MEMORY);
        self.memory[b].copy_from_slice(memory);
        self.obs[b * dim..(b + 1) * dim].copy_from_slice(obs);
        true
    }
    fn picture(&mut self, b: usize) -> Result<Picture, PictureError> {
        let id = &self.spec.id;
        render::picture(&mut self.sims[b]).map_err(|reason| PictureError { id: id.clone(), reason })
    }
}

/// Makes batches of the task called `id`.
///
/// # Errors
/// When its model cannot be read.
///
/// # Panics
/// When there is no such task: the registry knows them all.
pub(crate) fn open(id: &str) -> Result<EnvMaker, MakeError> {
    match id {
        "HalfCheetah-v4" => Mujoco::load(HalfCheetah::V4),
        "HalfCheetah-v5" => Mujoco::load(HalfCheetah::V5),
        "Hopper-v4" => Mujoco::load(Hopper::V4),
        "Hopper-v5" => Mujoco::load(Hopper::V5),
        "Walker2d-v4" => Mujoco::load(Walker2d::V4),
        "Walker2d-v5" => Mujoco::load(Walker2d::V5),
        "Ant-v4" => Mujoco::load(Ant::V4),
        "Ant-v5" => Mujoco::load(Ant::V5),
        "Humanoid-v4" => Mujoco::load(Humanoid::V4),
        "Humanoid-v5" => Mujoco::load(Humanoid::V5),
        "HumanoidStandup-v4" => Mujoco::load(HumanoidStandup::V4),
        "HumanoidStandup-v5" => Mujoco::load(HumanoidStandup::V5),
        "Swimmer-v4" => Mujoco::load(Swimmer::V4),
        "Swimmer-v5" => Mujoco::load(Swimmer::V5),
        "Reacher-v4" => Mujoco::load(Reacher::V4),
        "Reacher-v5" => Mujoco::load(Reacher::V5),
        "Pusher-v4" => Mujoco::load(Pusher::V4),
        "Pusher-v5" => Mujoco::load(Pusher::V5),
        "InvertedPendulum-v4" => Mujoco::load(InvertedPendulum::V4),
        "InvertedPendulum-v5" => Mujoco::load(InvertedPendulum::V5),
        "InvertedDoublePendulum-v4" => Mujoco::load(InvertedDoublePendulum::V4),
        "InvertedDoublePendulum-v5" => Mujoco::load(InvertedDoublePendulum::V5),
        other => unreachable!("the registry has no `{other}`"),
    }
}

/// `Σ xᵢ²`, added up in NumPy's order: eight partial sums where there are eight numbers or more, halves of
/// more than 128 numbers apart. In single precision the order shows in the reward.
#[must_use]
pub fn sum_of_squares<X: Copy + Default + Add<Output = X> + Mul<Output = X>>(x: &[X]) -> X {
    let n = x.len();
    if n < 8 {
        return x.iter().fold(X::default(), |sum, x| sum + *x * *x);
    }
    if n > 128 {
        let half = n / 2 - n / 2 % 8;
        return sum_of_squares(&x[..half]) + sum_of_squares(&x[half..]);
    }
    let mut r: [X; 8] = std::array::from_fn(|i| x[i] * x[i]);
    let eights = x[8..].chunks_exact(8);
    let rest = eights.remainder();
    for eight in eights {
        for (r, x) in r.iter_mut().zip(eight) {
            *r = *r + *x * *x;
        }
    }
    let sum = ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]));
    rest.iter().fold(sum, |sum, x| sum + *x * *x)
}

/// Adds uniform noise from `[-scale, scale)` to every number.
fn uniform_noise(x: &mut [f64], scale: f64, rng: &mut Stream) {
    x.iter_mut().for_each(|x| *x += rng.uniform_in(-scale, scale));
}

/// Adds normal noise with this standard deviation to every number.
fn normal_noise(x: &mut [f64], scale: f64, rng: &mut Stream) {
    x.iter_mut().for_each(|x| *x += scale * rng.normal());
}

/// Difference of two places.
fn difference(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    std::array::from_fn(|i| a[i] - b[i])
}

/// Euclidean length.
fn length(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}
