//! What a check can find.

use crate::End;
use std::fmt;
use thiserror::Error;

/// How bad a [`Finding`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Training runs; it may not mean what was intended.
    Warning,
    /// Training would stop, or learn from something false.
    Error,
}

/// Where in a check something was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Episode of the check, from 0.
    pub episode: u64,
    /// Step of the episode; 0 is the reset.
    pub step: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.step {
            0 => write!(f, "episode {}, reset", self.episode),
            step => write!(f, "episode {}, step {step}", self.episode),
        }
    }
}

/// Which of the two spaces of a specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The observation space.
    Observation,
    /// The action space.
    Action,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Observation => "observation",
            Self::Action => "action",
        })
    }
}

/// How two runs that must agree differ at one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Difference {
    /// In the observation.
    Observation {
        /// Which number of the observation.
        index: usize,
        /// Its value in the first run.
        first: f32,
        /// Its value in the second run.
        second: f32,
    },
    /// In the reward.
    Reward {
        /// In the first run.
        first: f64,
        /// In the second run.
        second: f64,
    },
    /// In whether and how the episode ended.
    End {
        /// In the first run.
        first: End,
        /// In the second run.
        second: End,
    },
    /// In the action mask.
    Mask,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Observation { index, first, second } => {
                write!(f, "component {index} of the observation is {first} in one and {second} in the other")
            }
            Self::Reward { first, second } => {
                write!(f, "the reward is {first} in one and {second} in the other")
            }
            Self::End { first, second } => {
                write!(f, "the step leaves the episode {first:?} in one and {second:?} in the other")
            }
            Self::Mask => write!(f, "the action masks differ"),
        }
    }
}

/// One thing that is wrong with an environment: what came, where, what was expected, and how to mend it.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum Finding {
    /// It failed: it raised, hung or died, or what it returned cannot be used.
    #[error("{place}: {reason}")]
    Failed {
        /// Where.
        place: Place,
        /// What happened.
        reason: String,
    },
    /// The name is empty.
    #[error("the specification has no name; give `EnvSpec::id` one: run folders and presets use it")]
    NoName,
    /// A space without a single number or alternative.
    #[error("the {role} space `{space}` is empty; a space needs at least one number, switch or alternative")]
    EmptySpace {
        /// Which space.
        role: Role,
        /// The space.
        space: String,
    },
    /// The two bounds of a box have different lengths.
    #[error(
        "the {role} space has {low} lower and {high} upper bounds; give every number one of each \
         (`BoxSpace::uniform` does)"
    )]
    BoundsLength {
        /// Which space.
        role: Role,
        /// Number of lower bounds.
        low: usize,
        /// Number of upper bounds.
        high: usize,
    },
    /// Bounds between which no finite number lies.
    #[error(
        "component {index} of the {role} space has the empty range from {low} to {high}; \
         the lower bound must not be above the upper one, nor NaN (infinite bounds: -inf below, inf above)"
    )]
    Bounds {
        /// Which space.
        role: Role,
        /// Which number.
        index: usize,
        /// Its lower bound.
        low: f32,
        /// Its upper bound.
        high: f32,
    },
    /// A time limit of 0 steps.
    #[error("the time limit is 0 steps; use `None` for no limit")]
    ZeroLimit,
    /// A threshold that no return can be compared with.
    #[error("the reward threshold is {value}; use a finite number, or `None` when the task has none")]
    Threshold {
        /// The threshold.
        value: f64,
    },
    /// A mask for actions that are not alternatives.
    #[error(
        "`masks_actions` is set, but actions of `{space}` cannot be masked; only Discrete and MultiDiscrete \
         actions can be"
    )]
    MaskWithoutAlternatives {
        /// The action space.
        space: String,
    },
    /// A panic.
    #[error(
        "{place}: `{during}` panicked: {message}; an environment must not panic on an action of its space"
    )]
    Panic {
        /// Where.
        place: Place,
        /// The function that was called.
        during: &'static str,
        /// What it said.
        message: String,
    },
    /// An observation of the wrong length.
    #[error(
        "{place}: the observation has {got} numbers, its space has {expected}; \
         write {expected} numbers or correct `EnvSpec::observation`"
    )]
    Shape {
        /// Where.
        place: Place,
        /// Numbers of the observation space.
        expected: usize,
        /// Numbers written.
        got: usize,
    },
    /// No observation.
    #[error("{place}: no observation was written; write one in `reset` and in every `step`")]
    NotWritten {
        /// Where.
        place: Place,
    },
    /// No observation on a step that ended an episode.
    #[error(
        "{place}: the episode ended ({end:?}) and its final observation was not written; write the state that \
         the last step led to, not the next episode's: a cut episode is bootstrapped from it"
    )]
    MissingFinalObservation {
        /// Where.
        place: Place,
        /// How the episode ended.
        end: End,
    },
    /// An observation that is not finite.
    #[error("{place}: {component} of the observation is {value}; it must be finite")]
    ObservationNotFinite {
        /// Where.
        place: Place,
        /// Which number of all.
        index: usize,
        /// The same by part and shape ([`ObsSpace::component`](crate::ObsSpace::component)).
        component: String,
        /// Its value.
        value: f32,
    },
    /// An observation outside its space.
    #[error(
        "{place}: {component} of the observation is {value}; its space says {expected}; \
         widen `EnvSpec::observation` or clip what is written"
    )]
    OutOfSpace {
        /// Where.
        place: Place,
        /// Which number of all.
        index: usize,
        /// The same by part and shape.
        component: String,
        /// Its value.
        value: f32,
        /// What the space allows there.
        expected: String,
    },
    /// A reward that is not finite in single precision.
    #[error("{place}: the reward is {value}; it must be finite in single precision")]
    RewardNotFinite {
        /// Where.
        place: Place,
        /// The reward.
        value: f64,
    },
    /// Two runs with one seed and the same actions differ.
    #[error(
        "{place}: two environments with the same seed and the same actions differ: {difference}; \
         draw all randomness from the `rng` that is passed in, and share no state between environments"
    )]
    Nondeterministic {
        /// Where they differ first.
        place: Place,
        /// How.
        difference: Difference,
    },
    /// A reward of an ended episode is paid in the next one.
    #[error(
        "{place}: the reward is {got}; a new environment with the same random numbers and actions pays \
         {expected}: a reward is paid after the end of the episode that earned it; pay it on the last step, and \
         clear it in `reset`"
    )]
    RewardAfterEnd {
        /// Where they differ first.
        place: Place,
        /// Reward of the new environment.
        expected: f64,
        /// Reward of the one that had an episode before.
        got: f64,
    },
    /// Something of an ended episode is left in the next one.
    #[error(
        "{place}: an environment that has already played an episode behaves differently from a new one \
         given the same random numbers and actions: {difference}; set every field in `reset`"
    )]
    LeftOver {
        /// Where they differ first.
        place: Place,
        /// How; the new environment is the first.
        difference: Difference,
    },
    /// Random numbers are drawn on the last step of an episode only.
    #[error(
        "random numbers are drawn on every step that ends an episode and on no other: does `step` start the \
         next episode by itself? Leave that to the caller, and write the final observation of the old one"
    )]
    ResetsItself,
    /// No end and no time limit.
    #[error(
        "no episode ended within {steps} steps of random actions, and there is no time limit; set \
         `EnvSpec::max_episode_steps`, or no return is ever counted"
    )]
    NeverEnds {
        /// Steps made.
        steps: u32,
    },
    /// The check was stopped before its end.
    #[error("stopped after {steps} steps: not everything was checked, and what was not may still be wrong")]
    Stopped {
        /// Steps made.
        steps: u64,
    },
    /// A second one cannot be there at the same time.
    #[error(
        "a second one cannot be started beside the first: {reason}\n  if only one can exist at a time, train with \
         `n_envs=1` and evaluate with `pgrad eval RUN --n-envs 1`; whether copies depend on each other was not checked"
    )]
    OneAtATime {
        /// What became of the second.
        reason: String,
    },
    /// A mask that forbids every alternative of a choice.
    #[error(
        "{place}: the action mask allows no alternative of choice {choice}; allow at least one \
        alternative"
    )]
    MaskAllowsNothing {
        /// Where.
        place: Place,
        /// Which choice (0 for `Discrete`).
        choice: usize,
    },
    /// A mask that nobody will ask for.
    #[error(
        "{place}: the action mask forbids entry {index}, but `masks_actions` is false, so the mask is never \
         used; set `EnvSpec::masks_actions`"
    )]
    MaskNotAnnounced {
        /// Where.
        place: Place,
        /// First entry forbidden.
        index: usize,
    },
    /// A saved state that is refused.
    #[error("{place}: `load` refuses what `save` returned; accept it, or return `None` from `save`")]
    StateRefused {
        /// Where the state was saved.
        place: Place,
    },
    /// A saved state that does not continue as the original.
    #[error(
        "{place}: an environment restored at {saved} continues differently: {difference}; `save` must return \
         everything that `step` and `reset` depend on, or `None`"
    )]
    RestoreNotExact {
        /// Where the state was saved.
        saved: Place,
        /// Where they differ first.
        place: Place,
        /// How; the original is the first.
        difference: Difference,
    },
    /// A batch of another size than asked for.
    #[error("a batch of {expected} was asked for; `len` is {got}")]
    BatchLength {
        /// Copies asked for.
        expected: usize,
        /// Copies said to be there.
        got: usize,
    },
    /// A step that leaves an entry of `ends` as it was.
    #[error("{place}: `step` does not write `ends`; write `Running` where the episode continues")]
    EndNotWritten {
        /// Where.
        place: Place,
    },
    /// A copy in a batch that differs from one alone.
    #[error(
        "{place}: copy {copy} of a batch of {len} differs from one alone with the same random numbers and \
         actions: {difference}; a copy may depend on its own state, action and stream only"
    )]
    CopyDepends {
        /// Where they differ first.
        place: Place,
        /// Which copy.
        copy: usize,
        /// Size of the batch.
        len: usize,
        /// How; the one alone is the first.
        difference: Difference,
    },
    /// `observe` and `observe_one` differ.
    #[error("{place}: `observe` and `observe_one` differ for copy {copy}: {difference}")]
    ObserveOne {
        /// Where.
        place: Place,
        /// Which copy.
        copy: usize,
        /// How; `observe` is the first.
        difference: Difference,
    },
}

impl Finding {
    /// What is wrong, for somebody whose environment is a class in Python with Gymnasium's interface.
    /// `Display` is for an [`Env`](crate::Env) in Rust.
    #[must_use]
    pub fn in_python(&self) -> String {
        match self {
            Self::OutOfSpace { place, component, value, expected, .. } => format!(
                "{place}: {component} of the observation is {value}; its space says {expected}; widen \
                 `observation_space`, or clip what `reset` and `step` return"
            ),
            Self::Shape { place, expected, got } => format!(
                "{place}: the observation has {got} numbers, its space has {expected}; return {expected} or correct \
                 `observation_space`"
            ),
            Self::Nondeterministic { place, difference } => format!(
                "{place}: two environments with the same seed and the same actions differ: {difference}; draw all \
                 random numbers from `self.np_random`, which `super().reset(seed=seed)` seeds, and share no state \
                 between environments"
            ),
            Self::RewardAfterEnd { place, expected, got } => format!(
                "{place}: the reward is {got}; a new environment with the same seed and actions pays {expected}: a \
                 reward is paid after the end of the episode that earned it; return it from the last `step`, and \
                 clear it in `reset`"
            ),
            Self::LeftOver { place, difference } => format!(
                "{place}: an environment that has already played an episode behaves differently from a new one with \
                 the same seed and actions: {difference}; set every attribute that an episode changes in `reset`"
            ),
            Self::NeverEnds { steps } => format!(
                "no episode ended within {steps} steps of random actions, and there is no time limit, so no return \
                 may ever be counted; set one where the environment is registered, \
                 `gymnasium.register(..., max_episode_steps=1000)`, or wrap it in `gymnasium.wrappers.TimeLimit`"
            ),
            other => other.to_string(),
        }
    }
    /// How bad it is.
    #[must_use]
    pub fn severity(&self) -> Severity {
        match self {
            Self::ResetsItself | Self::NeverEnds { .. } | Self::OneAtATime { .. } | Self::Stopped { .. } => {
                Severity::Warning
            }
            _ => Severity::Error,
        }
    }
}
