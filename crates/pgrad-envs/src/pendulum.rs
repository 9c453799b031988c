//! Pendulum-v1: swing a pendulum up and hold it there, with a torque that is too weak to lift it at once.
//!
//! | | |
//! |---|---|
//! | state | angle `θ` (rad, 0 is upright, not wrapped), `θ̇` in `[-8, 8]` rad/s, f64 |
//! | observation | `cos θ, sin θ, θ̇` in f32; `Box(±[1, 1, 8])` |
//! | action | `Box(-2.0, 2.0, (1,), float32)`: torque `u` in N m |
//! | reward | `−(θ² + 0.1 θ̇² + 0.001 u²)` before the step, `θ` wrapped to `[-π, π)` |
//! | first state | `θ` uniform on `[-π, π)`, `θ̇` uniform on `[-1, 1)` |
//! | end | cut after 200 steps; never terminated |
//! | threshold | none |
//!
//! Constants: `g = 10`, `m = 1` kg, `l = 1` m, `Δt = 0.05` s. The new speed moves the angle:
//!
//! ```text
//! θ̇ ← clip(θ̇ + (3g/(2l) sin θ + 3/(m l²) u) Δt, −8, 8);   θ ← θ + θ̇ Δt
//! ```
//!
//! # Precision
//! As in Gymnasium the action is f32, and `u²`, `0.001 u²` and `3u` are f32 products; all else is f64.
//!
//! Source: Gymnasium's `Pendulum-v1`.

use crate::scenery;
use crate::state::{State, parse, round};
use pgrad_env::{Actions, BatchEnv, BoxSpace, End, EnvSpec, Picture, PictureError, Space};
use pgrad_num::trig::{SINCOS_MAX, sincos1};
use pgrad_num::{ColsMut, Stream, simd};
use std::f64::consts::{PI, TAU};

const MAX_SPEED: f64 = 8.0;
const MAX_TORQUE: f32 = 2.0;
const DT: f64 = 0.05;
const GRAVITY: f64 = 10.0;

/// A batch of Pendulum-v1.
#[derive(Clone, Debug)]
pub struct Pendulum {
    spec: EnvSpec,
    /// `θ, θ̇`, then `cos θ` and `sin θ`, which both the observation and the next step need.
    state: State<4>,
}

impl Pendulum {
    /// `n` copies.
    ///
    /// # Panics
    /// When `n` is 0.
    #[must_use]
    pub fn new(n: usize) -> Self {
        let high = vec![1.0, 1.0, MAX_SPEED as f32];
        let spec = EnvSpec {
            id: "Pendulum-v1".into(),
            observation: BoxSpace::new(high.iter().map(|x| -x).collect(), high).into(),
            action: Space::Box(BoxSpace::uniform(-MAX_TORQUE, MAX_TORQUE, 1)),
            max_episode_steps: Some(200),
            reward_threshold: None,
            masks_actions: false,
        };
        let mut envs = Self { spec, state: State::new(n) };
        for b in 0..n {
            envs.set(b, 0.0, 0.0);
        }
        envs
    }
    fn set(&mut self, b: usize, theta: f64, speed: f64) {
        let (sin, cos) = sincos1(theta);
        self.state.set(b, [theta, speed, cos, sin]);
    }
}

/// `x` wrapped to `[-π, π)`: `(x + π) mod 2π − π`, the remainder having the sign of `2π`.
#[inline(always)]
fn wrap(x: f64) -> f64 {
    let shifted = x + PI;
    // With one rounding this is the exact remainder, unless the quotient was rounded across an integer.
    let rest = (-(shifted * (1.0 / TAU)).floor()).mul_add(TAU, shifted);
    let rest = if rest < 0.0 { rest + TAU } else { rest };
    let rest = if rest >= TAU { rest - TAU } else { rest };
    rest - PI
}

#[inline(always)]
fn step(
    theta: &mut [f64],
    speed: &mut [f64],
    cos: &mut [f64],
    sin: &mut [f64],
    actions: &[f32],
    rewards: &mut [f64],
) {
    let n = theta.len();
    let (speed, cos, sin) = (&mut speed[..n], &mut cos[..n], &mut sin[..n]);
    let (actions, rewards) = (&actions[..n], &mut rewards[..n]);
    for b in 0..n {
        let u = actions[b].clamp(-MAX_TORQUE, MAX_TORQUE);
        let (angle, w) = (wrap(theta[b]), speed[b]);
        let cost = angle * angle + 0.1 * (w * w) + f64::from(0.001f32 * (u * u));
        rewards[b] = -cost;
        let acceleration = 3.0 * GRAVITY / 2.0 * sin[b] + f64::from(3.0 * u);
        let w = (w + acceleration * DT).clamp(-MAX_SPEED, MAX_SPEED);
        theta[b] += w * DT;
        speed[b] = w;
        (sin[b], cos[b]) = sincos1(theta[b]);
    }
}

impl BatchEnv for Pendulum {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }
    fn len(&self) -> usize {
        self.state.len()
    }
    fn reset(&mut self, b: usize, rng: &mut Stream) {
        let (theta, speed) = (rng.uniform_in(-PI, PI), rng.uniform_in(-1.0, 1.0));
        self.set(b, theta, speed);
    }
    fn step(&mut self, actions: Actions<'_>, _: &mut [Stream], rewards: &mut [f64], ends: &mut [End]) {
        let actions = actions.real.row(0);
        let [theta, speed, cos, sin] = self.state.rows_mut();
        simd!(|| step(theta, speed, cos, sin, actions, rewards));
        ends.fill(End::Running);
    }
    fn observe(&self, mut obs: ColsMut<'_, f32>) {
        for (to, i) in [2, 3, 1].into_iter().enumerate() {
            round(self.state.row(i), obs.row_mut(to));
        }
    }
    fn observe_one(&self, b: usize, obs: &mut [f32]) {
        let [_, speed, cos, sin] = self.state.get(b);
        for (to, x) in obs.iter_mut().zip([cos, sin, speed]) {
            *to = x as f32;
        }
    }
    fn save(&self, b: usize) -> Option<Vec<f64>> {
        let [theta, speed, ..] = self.state.get(b);
        Some(vec![theta, speed])
    }
    fn load(&mut self, b: usize, state: &[f64]) -> bool {
        let state = parse::<2>(state).filter(|[theta, _]| theta.abs() <= SINCOS_MAX);
        state.map(|[theta, speed]| self.set(b, theta, speed)).is_some()
    }
    fn picture(&mut self, b: usize) -> Result<Picture, PictureError> {
        let [theta, ..] = self.state.get(b);
        Ok(scenery::pendulum(theta).at(1.0 / DT))
    }
}
