//! MountainCarContinuous-v0: the car in the valley with a graded push, which costs.
//!
//! | | |
//! |---|---|
//! | state | position in `[-1.2, 0.6]`, velocity in `[-0.07, 0.07]`, and whether the episode is at its first state |
//! | observation | position and velocity in f32; `Box([-1.2 -0.07], [0.6 0.07], (2,), float32)` |
//! | action | `Box(-1.0, 1.0, (1,), float32)`: the push |
//! | reward | `−0.1 a²`, and 100 more on reaching the goal |
//! | first state | position uniform on `[-0.6, -0.4)`, velocity 0 |
//! | end | terminated at position ≥ 0.45 with velocity ≥ 0; cut after 999 steps |
//! | threshold | 90 |
//!
//! ```text
//! v ← clip(v + 0.0015 a − 0.0025 cos 3p, −0.07, 0.07)
//! p ← clip(p + v, −1.2, 0.6);   v ← 0 at the left wall when it points into it
//! ```
//!
//! # Precision
//! Gymnasium keeps the first state of an episode in f64 and rounds every later one to f32, and with such a
//! state NumPy also does the sums in f32, the product `3p` and the comparisons with the bounds included; the
//! push is f32 always. We do the same, or the two would drift apart by 1e-8 a step. A sum, difference or
//! product of f32 numbers done in f64 and then rounded is the f32 result, so both cases run through the same
//! code and differ only in whether they round.
//!
//! An action outside its bounds is clipped for the push but, as in Gymnasium, paid for in full.
//!
//! Source: MountainCar (see there) with the continuous action of A. de Broissia; Gymnasium's
//! `MountainCarContinuous-v0`.

use crate::scenery;
use crate::state::{State, parse, round};
use pgrad_env::{Actions, BatchEnv, BoxSpace, End, EnvSpec, Picture, PictureError, Space};
use pgrad_num::trig::{SINCOS_MAX, sincos1};
use pgrad_num::{ColsMut, Stream, simd};

const MIN_POSITION: f64 = -1.2;
const MAX_POSITION: f64 = 0.6;
const MAX_SPEED: f64 = 0.07;
const GOAL: f64 = 0.45;
const POWER: f64 = 0.0015;
const GRAVITY: f64 = 0.0025;

/// A batch of MountainCarContinuous-v0.
#[derive(Clone, Debug)]
pub struct MountainCarContinuous {
    spec: EnvSpec,
    /// Position, velocity, and 1 where the state is the first of its episode (0 elsewhere).
    state: State<3>,
}

impl MountainCarContinuous {
    /// `n` copies.
    ///
    /// # Panics
    /// When `n` is 0.
    #[must_use]
    pub fn new(n: usize) -> Self {
        let spec = EnvSpec {
            id: "MountainCarContinuous-v0".into(),
            observation: BoxSpace::new(
                vec![MIN_POSITION as f32, -MAX_SPEED as f32],
                vec![MAX_POSITION as f32, MAX_SPEED as f32],
            )
            .into(),
            action: Space::Box(BoxSpace::uniform(-1.0, 1.0, 1)),
            max_episode_steps: Some(999),
            reward_threshold: Some(90.0),
            masks_actions: false,
        };
        Self { spec, state: State::new(n) }
    }
}

/// [`f64::clamp`] for bounds that differ from lane to lane: without its check, which is a branch.
#[inline(always)]
fn clip(x: f64, low: f64, high: f64) -> f64 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

#[inline(always)]
fn step(
    position: &mut [f64],
    velocity: &mut [f64],
    first: &mut [f64],
    actions: &[f32],
    rewards: &mut [f64],
    ends: &mut [End],
) {
    let n = position.len();
    let (velocity, first, actions) = (&mut velocity[..n], &mut first[..n], &actions[..n]);
    let (rewards, ends) = (&mut rewards[..n], &mut ends[..n]);
    for b in 0..n {
        let wide = first[b] != 0.0;
        let single = |x: f64| f64::from(x as f32);
        let kept = |x: f64| if wide { x } else { single(x) };
        let a = actions[b];
        let (_, slope) = sincos1(kept(3.0 * position[b]));
        let slope = GRAVITY * slope;
        // NumPy multiplies an f32 push in f32; a clipped push is a Python float, and stays f64.
        let inside = a.abs() <= 1.0;
        let push = single(f64::from(a) * single(POWER));
        let inner = single(push - single(slope));
        let clipped = (if a > 0.0 { POWER } else { -POWER }) - slope;
        let change = if inside { inner } else { kept(clipped) };
        let v = kept(velocity[b] + change);
        let v = clip(v, kept(-MAX_SPEED), kept(MAX_SPEED));
        let p = clip(kept(position[b] + v), kept(MIN_POSITION), kept(MAX_POSITION));
        let v = if (p == kept(MIN_POSITION)) & (v < 0.0) { 0.0 } else { v };
        let goal = (p >= kept(GOAL)) & (v >= 0.0);
        let cost = f64::from(a) * f64::from(a) * 0.1;
        rewards[b] = if goal { 100.0 - cost } else { -cost };
        ends[b] = if goal { End::Terminated } else { End::Running };
        position[b] = single(p);
        velocity[b] = single(v);
        first[b] = 0.0;
    }
}

impl BatchEnv for MountainCarContinuous {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }
    fn len(&self) -> usize {
        self.state.len()
    }
    fn reset(&mut self, b: usize, rng: &mut Stream) {
        self.state.set(b, [rng.uniform_in(-0.6, -0.4), 0.0, 1.0]);
    }
    fn step(&mut self, actions: Actions<'_>, _: &mut [Stream], rewards: &mut [f64], ends: &mut [End]) {
        let actions = actions.real.row(0);
        let [position, velocity, first] = self.state.rows_mut();
        simd!(|| step(position, velocity, first, actions, rewards, ends));
    }
    fn observe(&self, mut obs: ColsMut<'_, f32>) {
        for i in 0..2 {
            round(self.state.row(i), obs.row_mut(i));
        }
    }
    fn observe_one(&self, b: usize, obs: &mut [f32]) {
        for (to, x) in obs.iter_mut().zip(self.state.get(b)) {
            *to = x as f32;
        }
    }
    fn save(&self, b: usize) -> Option<Vec<f64>> {
        Some(self.state.get(b).to_vec())
    }
    fn load(&mut self, b: usize, state: &[f64]) -> bool {
        let possible = |s: &[f64; 3]| s[0].abs() <= SINCOS_MAX / 3.0 && (s[2] == 0.0 || s[2] == 1.0);
        let state = parse::<3>(state).filter(possible);
        state.map(|state| self.state.set(b, state)).is_some()
    }
    fn picture(&mut self, b: usize) -> Result<Picture, PictureError> {
        let [position, ..] = self.state.get(b);
        Ok(scenery::valley(position, [MIN_POSITION, MAX_POSITION], GOAL).at(30.0))
    }
}
