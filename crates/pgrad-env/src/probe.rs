//! Tiny tasks with known answers: each can fail for one reason only.
//!
//! The first five are the probe environments of A. L. Jones, "Debugging reinforcement learning systems"
//! (2021): an agent that solves one and not the next has its defect in what the next one adds. Those whose
//! action matters come with discrete and with continuous actions, and so do the others, where it is ignored.
//!
//! | probe | adds | answer |
//! |---|---|---|
//! | [`ConstantReward`] | a value | V = 1 |
//! | [`ObservedReward`] | a value that depends on the observation | V(o) = o |
//! | [`DelayedReward`] | discounting | V(0) = γ, V(1) = 1 |
//! | [`ActionReward`] | a policy | action 1, V = 1; continuous: a = 2, V = 0 |
//! | [`ObservedActionReward`] | a policy that depends on the observation | action 1 iff o > 0, V = 1; continuous: a = 2o, V = 0 |
//! | [`EndlessReward`] | a time limit | V = 1/(1 − γ) |
//! | [`RightChoices`] | several choices at once | choices `[2, 0, 1]`, V = 1 |
//! | [`RightSwitches`] | several switches at once | switches `[1, 0, 1]`, V = 1 |
//! | [`RememberedSign`] | a memory | action 1 iff the first observation was 1, V(last step) = 1 |
//! | [`MaskedAction`] | a mask | action 2, V = 1; where that is forbidden, action 1, V = 0.5 |

use crate::{Action, BoxSpace, End, Env, EnvSpec, Obs, Part, Space, Step};
use pgrad_num::Stream;

/// What the actions of a probe are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ActionKind {
    /// `Discrete(2)`.
    #[default]
    Discrete,
    /// `Box(-4, 4, [1])`.
    Continuous,
    /// Both at once: `Dict('side': Discrete(2), 'number': Box(-4, 4, [1]))`.
    Hybrid,
}

impl ActionKind {
    fn space(self) -> Space {
        match self {
            Self::Discrete => Space::Discrete { n: 2 },
            Self::Continuous => Space::Box(BoxSpace::uniform(-4.0, 4.0, 1)),
            Self::Hybrid => {
                let part = |name: &str, kind: Self| Part { name: name.into(), space: kind.space() };
                Space::Product { parts: vec![part("side", Self::Discrete), part("number", Self::Continuous)] }
            }
        }
    }
    /// The reward of `action` when `right` is: ±1 for a discrete action (alternative 1 iff `right > 0`),
    /// `−(a − right)²` for a number; the sum for both.
    fn reward(self, action: Action<'_>, right: f64) -> f64 {
        let side = |chosen: usize| if (chosen == 1) == (right > 0.0) { 1.0 } else { -1.0 };
        let number = || -(f64::from(action.values()[0]) - right).powi(2);
        match self {
            Self::Discrete => side(action.index()),
            Self::Continuous => number(),
            Self::Hybrid => side(action.choices()[0] as usize) + number(),
        }
    }
}

fn spec(id: &str, observation: Space, action: Space) -> EnvSpec {
    EnvSpec {
        id: id.into(),
        observation: observation.into(),
        action,
        max_episode_steps: None,
        reward_threshold: None,
        masks_actions: false,
    }
}

fn one_number() -> Space {
    Space::Box(BoxSpace::uniform(-1.0, 1.0, 1))
}

/// −1 or +1, equally likely.
fn sign(rng: &mut Stream) -> f64 {
    if rng.below(2) == 1 { 1.0 } else { -1.0 }
}

/// Restores one number, if it is one of `possible`.
fn load_one(to: &mut f64, state: &[f64], possible: &[f64]) -> bool {
    match state {
        [x] if possible.contains(x) => {
            *to = *x;
            true
        }
        _ => false,
    }
}

/// Observation 0, one step, reward 1 whatever the action. **Answer:** the value is 1.
///
/// An agent that fails has a defect in its value loss or its optimiser.
#[derive(Clone, Debug, Default)]
pub struct ConstantReward {
    kind: ActionKind,
}

impl ConstantReward {
    /// With actions of this kind.
    #[must_use]
    pub fn new(kind: ActionKind) -> Self {
        Self { kind }
    }
}

impl Env for ConstantReward {
    fn spec(&self) -> EnvSpec {
        spec("ConstantReward", one_number(), self.kind.space())
    }
    fn reset(&mut self, _: &mut Stream, obs: &mut Obs<'_>) {
        obs.write(&[0.0]);
    }
    fn step(&mut self, _: Action<'_>, _: &mut Stream, obs: &mut Obs<'_>) -> Step {
        obs.write(&[0.0]);
        Step { reward: 1.0, end: End::Terminated }
    }
    fn save(&self) -> Option<Vec<f64>> {
        Some(Vec::new())
    }
    fn load(&mut self, state: &[f64]) -> bool {
        state.is_empty()
    }
}

/// Observation −1 or +1 at random, one step, the reward is the observation. **Answer:** the value is the
/// observation.
///
/// An agent that passes [`ConstantReward`] and fails here does not pass gradients through its network, or
/// mixes up the samples of a batch.
#[derive(Clone, Debug, Default)]
pub struct ObservedReward {
    kind: ActionKind,
    observed: f64,
}

impl ObservedReward {
    /// With actions of this kind.
    #[must_use]
    pub fn new(kind: ActionKind) -> Self {
        Self { kind, observed: 1.0 }
    }
}

impl Env for ObservedReward {
    fn spec(&self) -> EnvSpec {
        spec("ObservedReward", one_number(), self.kind.space())
    }
    fn reset(&mut self, rng: &mut Stream, obs: &mut Obs<'_>) {
        self.observed = sign(rng);
        obs.write_f64(&[self.observed]);
    }
    fn step(&mut self, _: Action<'_>, _: &mut Stream, obs: &mut Obs<'_>) -> Step {
        obs.write_f64(&[self.observed]);
        Step { reward: self.observed, end: End::Terminated }
    }
    fn save(&self) -> Option<Vec<f64>> {
        Some(vec![self.observed])
    }
    fn load(&mut self, state: &[f64]) -> bool {
        load_one(&mut self.observed, state, &[-1.0, 1.0])
    }
}

/// Observation 0, then 1; two steps; reward 0, then 1. **Answer:** V(0) = γ and V(1) = 1.
///
/// An agent that passes the probes before and fails here discounts or bootstraps wrongly.
#[derive(Clone, Debug, Default)]
pub struct DelayedReward {
    kind: ActionKind,
    step: f64,
}

impl DelayedReward {
    /// With actions of this kind.
    #[must_use]
    pub fn new(kind: ActionKind) -> Self {
        Self { kind, step: 0.0 }
    }
}

impl Env for DelayedReward {
    fn spec(&self) -> EnvSpec {
        spec("DelayedReward", one_number(), self.kind.space())
    }
    fn reset(&mut self, _: &mut Stream, obs: &mut Obs<'_>) {
        self.step = 0.0;
        obs.write(&[0.0]);
    }
    fn step(&mut self, _: Action<'_>, _: &mut Stream, obs: &mut Obs<'_>) -> Step {
        let reward = self.step;
        let end = if self.step == 1.0 { End::Terminated } else { End::Running };
        self.step = 1.0;
        obs.write(&[1.0]);
        Step { reward, end }
    }
    fn save(&self) -> Option<Vec<f64>> {
        Some(vec![self.step])
    }
    fn load(&mut self, state: &[f64]) -> bool {
        load_one(&mut self.step, state, &[0.0, 1.0])
    }
}

/// Observation 0, one step. Discrete: reward +1 for action 1, −1 for action 0. Continuous: reward
/// `−(a − 2)²`. **Answer:** action 1 and value 1; continuous: a = 2 and value 0 (minus the variance of the
/// policy).
///
/// An agent that passes the probes before and fails here has a defect in its policy gradient.
#[derive(Clone, Debug, Default)]
pub struct ActionReward {
    kind: ActionKind,
}

impl ActionReward {
    /// With actions of this kind.
    #[must_use]
    pub fn new(kind: ActionKind) -> Self {
        Self { kind }
    }
}

impl Env for ActionReward {
    fn spec(&self) -> EnvSpec {
        spec("ActionReward", one_number(), self.kind.space())
    }
    fn reset(&mut self, _: &mut Stream, obs: &mut Obs<'_>) {
        obs.write(&[0.0]);
    }
    fn step(&mut self, action: Action<'_>, _: &mut Stream, obs: &mut Obs<'_>) -> Step {
        obs.write(&[0.0]);
        Step { reward: self.kind.reward(action, 2.0), end: End::Terminated }
    }
    fn save(&self) -> Option<Vec<f64>> {
        Some(Vec::new())
    }
    fn load(&mut self, state: &[f64]) -> bool {
        state.is_empty()
    }
}

/// Observation `o` = −1 or +1 at random, one step. Discrete: reward +1 for action 1 when `o > 0` and for
/// action 0 when `o < 0`, −1 otherwise. Continuous: reward `−(a − 2o)²`. **Answer:** the action that agrees
/// with the observation, value 1; continuous: a = 2o, value 0 (minus the variance of the policy).
///
/// An agent that passes the probes before and fails here pairs observations with other samples' actions or
/// advantages.
#[derive(Clone, Debug, Default)]
pub struct ObservedActionReward {
    kind: ActionKind,
    observed: f64,
}

impl ObservedActionReward {
    /// With actions of this kind.
    #[must_use]
    pub fn new(kind: ActionKind) -> Self {
        Self { kind, observed: 1.0 }
    }
}

impl Env for ObservedActionReward {
    fn spec(&self) -> EnvSpec {
        spec("ObservedActionReward", one_number(), self.kind.space())
    }
    fn reset(&mut self, rng: &mut Stream, obs: &mut Obs<'_>) {
        self.observed = sign(rng);
        obs.write_f64(&[self.observed]);
    }
    fn step(&mut self, action: Action<'_>, _: &mut Stream, obs: &mut Obs<'_>) -> Step {
        obs.write_f64(&[self.observed]);
        Step { reward: self.kind.reward(action, 2.0 * self.observed), end: End::Terminated }
    }
    fn save(&self) -> Option<Vec<f64>> {
        Some(vec![self.observed])
    }
    fn load(&mut self, state: &[f64]) -> bool {
        load_one(&mut self.observed, state, &[-1.0, 1.0])
    }
}

/// Observation 0 and reward 1 for ever, cut by a time limit only. **Answer:** the value is `1/(1 − γ)`.
///
/// An agent that takes the limit for the end of the task finds less: with `n` steps left and no bootstrap the
/// return is `(1 − γⁿ)/(1 − γ)`, whose mean over an episode of `L` steps is
/// `(1 − γ (1 − γᴸ) / (L (1 − γ))) / (1 − γ)`.
#[derive(Clone, Debug)]
pub struct EndlessReward {
    kind: ActionKind,
    limit: u32,
}

impl EndlessReward {
    /// With actions of this kind, cut after `limit` steps.
    #[must_use]
    pub fn new(kind: ActionKind, limit: u32) -> Self {
        Self { kind, limit }
    }
}

impl Env for EndlessReward {
    fn spec(&self) -> EnvSpec {
        EnvSpec {
            max_episode_steps: Some(self.limit),
            ..spec("EndlessReward", one_number(), self.kind.space())
        }
    }
    fn reset(&mut self, _: &mut Stream, obs: &mut Obs<'_>) {
        obs.write(&[0.0]);
    }
    fn step(&mut self, _: Action<'_>, _: &mut Stream, obs: &mut Obs<'_>) -> Step {
        obs.write(&[0.0]);
        Step { reward: 1.0, end: End::Running }
    }
    fn save(&self) -> Option<Vec<f64>> {
        Some(Vec::new())
    }
    fn load(&mut self, state: &[f64]) -> bool {
        state.is_empty()
    }
}

/// Share of the choices that are right.
fn share_right(choices: &[u32], right: &[u32]) -> f64 {
    let n = choices.iter().zip(right).filter(|(a, b)| a == b).count();
    n as f64 / right.len() as f64
}

/// Observation −1 or +1 at random, then 0 and 0; three steps. The last one pays +1 for action 1 after a first
/// observation of +1 and for action 0 after −1, and −1 otherwise. **Answer:** with a memory, that action, V =
/// γ² at the first step and 1 at the last; without one, 0 whatever it does.
///
/// An agent that passes the probes before and fails here loses or mixes up what it remembers, or learns
/// nothing from what it remembered.
#[derive(Clone, Debug, Default)]
pub struct RememberedSign {
    first: f64,
    step: f64,
}

impl Env for RememberedSign {
    fn spec(&self) -> EnvSpec {
        spec("RememberedSign", one_number(), Space::Discrete { n: 2 })
    }
    fn reset(&mut self, rng: &mut Stream, obs: &mut Obs<'_>) {
        (self.first, self.step) = (sign(rng), 0.0);
        obs.write_f64(&[self.first]);
    }
    fn step(&mut self, action: Action<'_>, _: &mut Stream, obs: &mut Obs<'_>) -> Step {
        self.step += 1.0;
        obs.write(&[0.0]);
        if self.step < 3.0 {
            return Step { reward: 0.0, end: End::Running };
        }
        Step { reward: ActionKind::Discrete.reward(action, self.first), end: End::Terminated }
    }
    fn save(&self) -> Option<Vec<f64>> {
        Some(vec![self.first, self.step])
    }
    fn load(&mut self, state: &[f64]) -> bool {
        let [first, step] = *state else { return false };
        (self.first, self.step) = (first, step);
        [-1.0, 1.0].contains(&first) && [0.0, 1.0, 2.0, 3.0].contains(&step)
    }
}

/// `MultiDiscrete([3, 2, 4])`, one step, observation 0: the reward is the share of right choices.
/// **Answer:** choices [`RightChoices::ANSWER`], value 1; at random 13/36.
#[derive(Clone, Copy, Debug, Default)]
pub struct RightChoices;

impl RightChoices {
    /// The right choices.
    pub const ANSWER: [u32; 3] = [2, 0, 1];
}

impl Env for RightChoices {
    fn spec(&self) -> EnvSpec {
        spec("RightChoices", one_number(), Space::MultiDiscrete { nvec: vec![3, 2, 4] })
    }
    fn reset(&mut self, _: &mut Stream, obs: &mut Obs<'_>) {
        obs.write(&[0.0]);
    }
    fn step(&mut self, action: Action<'_>, _: &mut Stream, obs: &mut Obs<'_>) -> Step {
        obs.write(&[0.0]);
        Step { reward: share_right(action.choices(), &Self::ANSWER), end: End::Terminated }
    }
    fn save(&self) -> Option<Vec<f64>> {
        Some(Vec::new())
    }
    fn load(&mut self, state: &[f64]) -> bool {
        state.is_empty()
    }
}

/// `MultiBinary(3)`, one step, observation 0: the reward is the share of right switches. **Answer:** switches
/// [`RightSwitches::ANSWER`], value 1; at random 1/2.
#[derive(Clone, Copy, Debug, Default)]
pub struct RightSwitches;

impl RightSwitches {
    /// The right switches.
    pub const ANSWER: [u32; 3] = [1, 0, 1];
}

impl Env for RightSwitches {
    fn spec(&self) -> EnvSpec {
        spec("RightSwitches", one_number(), Space::MultiBinary { n: 3 })
    }
    fn reset(&mut self, _: &mut Stream, obs: &mut Obs<'_>) {
        obs.write(&[0.0]);
    }
    fn step(&mut self, action: Action<'_>, _: &mut Stream, obs: &mut Obs<'_>) -> Step {
        obs.write(&[0.0]);
        Step { reward: share_right(action.choices(), &Self::ANSWER), end: End::Terminated }
    }
    fn save(&self) -> Option<Vec<f64>> {
        Some(Vec::new())
    }
    fn load(&mut self, state: &[f64]) -> bool {
        state.is_empty()
    }
}

/// `Discrete(3)` with rewards 0, 0.5 and 1, one step; the observation is one of two (`Discrete(2)`, one-hot),
/// and in observation 1 the best action is forbidden. **Answer:** action 2 with value 1 in observation 0,
/// action 1 with value 0.5 in observation 1.
///
/// A forbidden action has no reward (NaN), so that an agent that takes one is stopped there and then.
#[derive(Clone, Copy, Debug, Default)]
pub struct MaskedAction {
    observed: f64,
}

impl Env for MaskedAction {
    fn spec(&self) -> EnvSpec {
        let (observation, action) = (Space::Discrete { n: 2 }, Space::Discrete { n: 3 });
        EnvSpec { masks_actions: true, ..spec("MaskedAction", observation, action) }
    }
    fn reset(&mut self, rng: &mut Stream, obs: &mut Obs<'_>) {
        self.observed = f64::from(rng.below(2));
        obs.write_one_hot(self.observed as usize);
    }
    fn step(&mut self, action: Action<'_>, _: &mut Stream, obs: &mut Obs<'_>) -> Step {
        obs.write_one_hot(self.observed as usize);
        let forbidden = action.index() == 2 && self.observed == 1.0;
        let reward = if forbidden { f64::NAN } else { 0.5 * action.index() as f64 };
        Step { reward, end: End::Terminated }
    }
    fn action_mask(&self, mask: &mut [bool]) {
        mask[2] = self.observed == 0.0;
    }
    fn save(&self) -> Option<Vec<f64>> {
        Some(vec![self.observed])
    }
    fn load(&mut self, state: &[f64]) -> bool {
        load_one(&mut self.observed, state, &[0.0, 1.0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Actions, Each, RandomActions, VecEnv, check_env};
    use pgrad_num::{Cols, ColsMut};

    const KINDS: [ActionKind; 3] = [ActionKind::Discrete, ActionKind::Continuous, ActionKind::Hybrid];

    #[test]
    fn every_probe_passes_the_check() {
        for kind in KINDS {
            assert_eq!(check_env(|| ConstantReward::new(kind), 1), []);
            assert_eq!(check_env(|| ObservedReward::new(kind), 1), []);
            assert_eq!(check_env(|| DelayedReward::new(kind), 1), []);
            assert_eq!(check_env(|| ActionReward::new(kind), 1), []);
            assert_eq!(check_env(|| ObservedActionReward::new(kind), 1), []);
            assert_eq!(check_env(|| EndlessReward::new(kind, 20), 1), []);
        }
        assert_eq!(check_env(|| RightChoices, 1), []);
        assert_eq!(check_env(|| RightSwitches, 1), []);
        assert_eq!(check_env(MaskedAction::default, 1), []);
    }

    /// Observation, reward and end of each step of `steps` under the action that `policy` takes.
    fn play<E: Env + 'static>(
        make: impl FnMut() -> E,
        steps: usize,
        mut policy: impl FnMut(f32) -> f32,
    ) -> Vec<(f32, f64, End)> {
        let mut envs = VecEnv::new(Box::new(Each::new(1, make)), 3, 0);
        envs.start().unwrap();
        let (index, real) = (envs.spec().action.index_dim(), envs.spec().action.real_dim());
        (0..steps)
            .map(|_| {
                let obs = envs.obs().at(0, 0);
                let (side, number) = ([u32::from(policy(obs) > 0.0)], [policy(obs)]);
                let (index, real) =
                    (Cols::new(&side[..index], index, 1), Cols::new(&number[..real], real, 1));
                envs.step(Actions { index, real }).unwrap();
                (obs, envs.rewards()[0], envs.ends()[0])
            })
            .collect()
    }

    #[test]
    fn rewards_and_ends_are_as_documented() {
        for kind in KINDS {
            let best = |o: f32| if kind == ActionKind::Discrete { f32::from(o > 0.0) } else { 2.0 * o };
            for (obs, reward, end) in play(|| ConstantReward::new(kind), 9, |_| 0.0) {
                assert_eq!((obs, reward, end), (0.0, 1.0, End::Terminated));
            }
            let seen = play(|| ObservedReward::new(kind), 40, |_| 0.0);
            assert!(seen.iter().all(|(o, r, e)| f64::from(*o) == *r && *e == End::Terminated));
            assert!(seen.iter().any(|(o, ..)| *o == 1.0) && seen.iter().any(|(o, ..)| *o == -1.0));
            for (t, step) in play(|| DelayedReward::new(kind), 8, |_| 0.0).into_iter().enumerate() {
                let second = [(0.0, 0.0, End::Running), (1.0, 1.0, End::Terminated)];
                assert_eq!(step, second[t % 2]);
            }
            let top = if kind == ActionKind::Continuous { 0.0 } else { 1.0 };
            let (right, wrong) = (best(1.0), best(-1.0));
            assert_eq!(play(|| ActionReward::new(kind), 1, |_| right)[0].1, top);
            assert!(play(|| ActionReward::new(kind), 1, |_| wrong)[0].1 < 0.0);
            for (obs, reward, _) in play(|| ObservedActionReward::new(kind), 40, best) {
                assert_eq!((obs.abs(), reward), (1.0, top));
            }
            assert!(
                play(|| ObservedActionReward::new(kind), 40, |o| best(-o)).iter().all(|(_, r, _)| *r < 0.0)
            );
            for (t, step) in play(|| EndlessReward::new(kind, 5), 20, |_| 0.0).into_iter().enumerate() {
                let end = if t % 5 == 4 { End::Truncated } else { End::Running };
                assert_eq!(step, (0.0, 1.0, end));
            }
        }
    }

    /// Mean reward of `n` one-step episodes under random allowed actions, and the best one seen.
    fn random<E: Env + 'static>(make: impl FnMut() -> E, n: usize) -> (f64, f64) {
        let mut envs = VecEnv::new(Box::new(Each::new(n, make)), 3, 0);
        envs.start().unwrap();
        let dim = envs.spec().action.mask_dim();
        let mut masks = vec![false; dim * n];
        envs.action_masks(ColsMut::new(&mut masks, dim, n), &mut Vec::new()).unwrap();
        let mut random = RandomActions::new(&envs.spec().action, n, 1, 0);
        envs.step(random.draw_allowed(Cols::new(&masks, dim, n))).unwrap();
        let rewards = envs.rewards();
        (rewards.iter().sum::<f64>() / n as f64, rewards.iter().fold(0.0, |m: f64, r| m.max(*r)))
    }

    #[test]
    fn several_choices_switches_and_masks_pay_as_documented() {
        let close = |(mean, best): (f64, f64), expected: f64| {
            assert!((mean - expected).abs() < 0.01 && best == 1.0, "{mean} {best}");
        };
        close(random(|| RightChoices, 20_000), 13.0 / 36.0);
        close(random(|| RightSwitches, 20_000), 0.5);
        // Observation 0: (0 + 0.5 + 1) / 3; observation 1: (0 + 0.5) / 2.
        close(random(MaskedAction::default, 20_000), 0.5 * (0.5 + 0.25));
    }

    #[test]
    fn a_forbidden_action_is_stopped() {
        let mut envs = VecEnv::new(Box::new(Each::new(8, MaskedAction::default)), 3, 0);
        envs.start().unwrap();
        let forbidden = (0..8).find(|b| envs.obs().at(1, *b) == 1.0).unwrap();
        let error = envs.step(Actions::index(Cols::new(&[2; 8], 1, 8))).unwrap_err();
        assert!(matches!(error, crate::EnvError::Reward { env, .. } if env == forbidden), "{error}");
    }
}
