//! One environment.

use crate::{ObsSpace, Picture, PictureError, Space};
use pgrad_num::{Cols, Stream};

/// What an environment is, apart from its state.
#[derive(Clone, Debug, PartialEq)]
pub struct EnvSpec {
    /// Name, for example `CartPole-v1`.
    pub id: String,
    /// Space of observations.
    pub observation: ObsSpace,
    /// Space of actions.
    pub action: Space,
    /// Steps after which an episode is cut (truncated), if any.
    pub max_episode_steps: Option<u32>,
    /// Mean return at which the task counts as solved, if it has one.
    pub reward_threshold: Option<f64>,
    /// Whether [`Env::action_mask`] forbids anything, ever.
    pub masks_actions: bool,
}

/// How a step left the episode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// The episode goes on.
    #[default]
    Running,
    /// The task ended the episode: nothing follows, the value of what follows is 0.
    Terminated,
    /// Something outside the task (a time limit) cut the episode: the value of what would have followed is
    /// that of the final observation.
    Truncated,
    /// The environment failed in this step (it raised, hung or died): the step did not happen, and what the
    /// episode gave since the last update is not learnt from. No task ends so; a supervised one may be lost.
    Lost,
}

/// What a step returned, apart from the observation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Reward of the step.
    pub reward: f64,
    /// Whether and how the episode ended.
    pub end: End,
}

/// The action of one environment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action<'a> {
    /// Of a `Discrete` space.
    Discrete(usize),
    /// Of a `MultiDiscrete` space: one alternative for each choice.
    MultiDiscrete(&'a [u32]),
    /// Of a `MultiBinary` space: 0 or 1 for each switch.
    MultiBinary(&'a [u32]),
    /// Of a `Box` space: inside the bounds.
    Box(&'a [f32]),
    /// Of a product of spaces.
    Product {
        /// The alternatives of its choices and switches, one after the other ([`Space::index_dim`]).
        choices: &'a [u32],
        /// The numbers of its boxes, one after the other ([`Space::real_dim`]).
        numbers: &'a [f32],
    },
}

impl Action<'_> {
    /// The alternative of a `Discrete` action.
    ///
    /// # Panics
    /// When the action is of another space: the environment's own [`EnvSpec::action`] says which it is.
    #[must_use]
    pub fn index(&self) -> usize {
        match self {
            Self::Discrete(i) => *i,
            other => panic!("the environment asked for the index of {other:?}"),
        }
    }
    /// The numbers of a `Box` action, or of all boxes of a product.
    ///
    /// # Panics
    /// When the action is of another space.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        match self {
            Self::Box(x) | Self::Product { numbers: x, .. } => x,
            other => panic!("the environment asked for the numbers of {other:?}"),
        }
    }
    /// The choices of a `MultiDiscrete`, the switches of a `MultiBinary` action, or all of both in a product.
    ///
    /// # Panics
    /// When the action is of another space.
    #[must_use]
    pub fn choices(&self) -> &[u32] {
        match self {
            Self::MultiDiscrete(x) | Self::MultiBinary(x) | Self::Product { choices: x, .. } => x,
            other => panic!("the environment asked for the choices of {other:?}"),
        }
    }
}

/// The actions of a batch of environments, a column each: alternatives and numbers.
#[derive(Clone, Copy, Debug)]
pub struct Actions<'a> {
    /// Alternatives, `[index_dim x batch]`: a row for each choice and each switch.
    pub index: Cols<'a, u32>,
    /// Numbers of the boxes, `[real_dim x batch]`.
    pub real: Cols<'a, f32>,
}

impl<'a> Actions<'a> {
    /// Actions of a space without boxes.
    #[must_use]
    pub fn index(index: Cols<'a, u32>) -> Self {
        Self { real: Cols::new(&[], 0, index.cols()), index }
    }
    /// Actions of a `Box` space.
    #[must_use]
    pub fn real(real: Cols<'a, f32>) -> Self {
        Self { index: Cols::new(&[], 0, real.cols()), real }
    }
}

/// Where an environment writes its observation.
///
/// It records how many numbers were written, so that a wrong shape is an error with a message and neither a
/// panic nor a silent broadcast.
#[derive(Debug)]
pub struct Obs<'a> {
    data: &'a mut [f32],
    written: Option<usize>,
}

impl<'a> Obs<'a> {
    /// An observation of `data.len()` numbers, not yet written.
    #[must_use]
    pub fn new(data: &'a mut [f32]) -> Self {
        Self { data, written: None }
    }
    /// Writes the observation.
    pub fn write(&mut self, values: &[f32]) {
        let n = values.len().min(self.data.len());
        self.data[..n].copy_from_slice(&values[..n]);
        self.written = Some(values.len());
    }
    /// Writes the observation, rounding to single precision.
    pub fn write_f64(&mut self, values: &[f64]) {
        for (to, from) in self.data.iter_mut().zip(values) {
            *to = *from as f32;
        }
        self.written = Some(values.len());
    }
    /// Writes a discrete observation as one-hot. An index out of range is recorded as a wrong shape.
    pub fn write_one_hot(&mut self, index: usize) {
        self.data.fill(0.0);
        if let Some(x) = self.data.get_mut(index) {
            *x = 1.0;
            self.written = Some(self.data.len());
        } else {
            self.written = Some(index + 1);
        }
    }
    /// How many numbers the last write had; `None` when nothing was written.
    #[must_use]
    pub fn written(&self) -> Option<usize> {
        self.written
    }
}

/// One environment.
///
/// ```
/// use pgrad_env::{Action, BoxSpace, End, Env, EnvSpec, Obs, Space, Step};
/// use pgrad_num::Stream;
///
/// /// Walk to +1 on a line.
/// struct Walk { x: f64 }
/// impl Env for Walk {
///     fn spec(&self) -> EnvSpec {
///         EnvSpec {
///             id: "Walk".into(),
///             observation: BoxSpace::uniform(-1.0, 1.0, 1).into(),
///             action: Space::Discrete { n: 2 },
///             max_episode_steps: Some(50),
///             reward_threshold: None,
///             masks_actions: false,
///         }
///     }
///     fn reset(&mut self, rng: &mut Stream, obs: &mut Obs<'_>) {
///         self.x = rng.uniform_in(-0.5, 0.5);
///         obs.write_f64(&[self.x]);
///     }
///     fn step(&mut self, action: Action<'_>, _: &mut Stream, obs: &mut Obs<'_>) -> Step {
///         self.x = (self.x + if action.index() == 1 { 0.1 } else { -0.1 }).clamp(-1.0, 1.0);
///         obs.write_f64(&[self.x]);
///         let end = if self.x == 1.0 { End::Terminated } else { End::Running };
///         Step { reward: -0.1, end }
///     }
/// }
/// assert!(pgrad_env::check_env(|| Walk { x: 0.0 }, 1).is_empty());
/// ```
pub trait Env: Send {
    /// What this environment is. The time limit and the reset at an episode's end are done for it.
    fn spec(&self) -> EnvSpec;
    /// Starts an episode and writes its first observation. All randomness comes from `rng`.
    fn reset(&mut self, rng: &mut Stream, obs: &mut Obs<'_>);
    /// Does one step and writes the observation that follows it: the final one when the episode ends.
    fn step(&mut self, action: Action<'_>, rng: &mut Stream, obs: &mut Obs<'_>) -> Step;
    /// Writes which alternatives are allowed in the present state ([`Space::mask_dim`] entries, all true
    /// beforehand). Called only when [`EnvSpec::masks_actions`] says so.
    fn action_mask(&self, _mask: &mut [bool]) {}
    /// The whole state as numbers, or `None` when the environment cannot be saved: a resumed run then
    /// starts new episodes, and says so.
    fn save(&self) -> Option<Vec<f64>> {
        None
    }
    /// Restores what [`Env::save`] returned. `false` when `state` cannot be a state.
    fn load(&mut self, _state: &[f64]) -> bool {
        false
    }
    /// What the environment looks like in its present state: `pgrad eval --video` makes a film of it.
    ///
    /// # Errors
    /// When there is no picture of it.
    fn picture(&mut self) -> Result<Picture, PictureError> {
        Err(PictureError::none(&self.spec().id))
    }
}
