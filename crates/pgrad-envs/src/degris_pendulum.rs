//! DegrisPendulum-v0: the pendulum of the off-policy experiments of Degris, White, Sutton (2012).
//!
//! | | |
//! |---|---|
//! | state | angle `θ` (rad, 0 is upright) in `[-π, π)`, `v` in `±(π/4)/Δt` (±78.5), f64 |
//! | observation | the state, rounded to f32; `Box(±[π, (π/4)/Δt])` |
//! | action | `Discrete(3)`: torque −2, 0, 2 |
//! | reward | `cos θ` after the step |
//! | first state | `θ` uniform on `[-π, π)`, `v = 0` |
//! | end | cut after 5000 steps; never terminated |
//! | threshold | none |
//!
//! Constants: `m = l = 1`, `g = 9.8`, `Δt = 0.01`. The acceleration is added to the speed *without* a factor
//! `Δt`, which stands in the friction instead: so the task was defined and its results were measured.
//!
//! ```text
//! v ← clip(v − Δt v + m g l sin θ + τ, ±(π/4)/Δt);   θ ← θ + v Δt, wrapped to [-π, π)
//! ```
//!
//! Source: T. Degris, M. White, R. S. Sutton, "Off-Policy Actor-Critic", ICML 2012, section 4; constants from
//! the first author's library RLPark (`SwingPendulum.java`).

use crate::scenery;
use crate::state::{State, parse, round};
use pgrad_env::{Actions, BatchEnv, BoxSpace, End, EnvSpec, Picture, PictureError, Space};
use pgrad_num::trig::sincos1;
use pgrad_num::{ColsMut, Stream, simd};
use std::f64::consts::{FRAC_PI_4, PI, TAU};

const DT: f64 = 0.01;
const GRAVITY: f64 = 9.8;
const TORQUE: f64 = 2.0;
const MAX_SPEED: f64 = FRAC_PI_4 / DT;

/// A batch of DegrisPendulum-v0.
#[derive(Clone, Debug)]
pub struct DegrisPendulum {
    spec: EnvSpec,
    /// `θ, v`.
    state: State<2>,
}

impl DegrisPendulum {
    /// `n` copies.
    ///
    /// # Panics
    /// When `n` is 0.
    #[must_use]
    pub fn new(n: usize) -> Self {
        let high = vec![PI as f32, MAX_SPEED as f32];
        let spec = EnvSpec {
            id: "DegrisPendulum-v0".into(),
            observation: BoxSpace::new(high.iter().map(|x| -x).collect(), high).into(),
            action: Space::Discrete { n: 3 },
            max_episode_steps: Some(5000),
            reward_threshold: None,
            masks_actions: false,
        };
        Self { spec, state: State::new(n) }
    }
}

#[inline(always)]
fn step(theta: &mut [f64], speed: &mut [f64], actions: &[u32], rewards: &mut [f64]) {
    let n = theta.len();
    let (speed, actions, rewards) = (&mut speed[..n], &actions[..n], &mut rewards[..n]);
    for b in 0..n {
        let torque = (actions[b] as i32 - 1) as f64 * TORQUE;
        let (sin, _) = sincos1(theta[b]);
        let v = (speed[b] - DT * speed[b] + GRAVITY * sin + torque).clamp(-MAX_SPEED, MAX_SPEED);
        let angle = theta[b] + v * DT;
        let angle = if angle >= PI { angle - TAU } else { angle };
        let angle = if angle < -PI { angle + TAU } else { angle };
        speed[b] = v;
        theta[b] = angle;
        (_, rewards[b]) = sincos1(angle);
    }
}

impl BatchEnv for DegrisPendulum {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }
    fn len(&self) -> usize {
        self.state.len()
    }
    fn reset(&mut self, b: usize, rng: &mut Stream) {
        self.state.set(b, [rng.uniform_in(-PI, PI), 0.0]);
    }
    fn step(&mut self, actions: Actions<'_>, _: &mut [Stream], rewards: &mut [f64], ends: &mut [End]) {
        let actions = actions.index.row(0);
        let [theta, speed] = self.state.rows_mut();
        simd!(|| step(theta, speed, actions, rewards));
        ends.fill(End::Running);
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
        let state = parse::<2>(state).filter(|[theta, v]| theta.abs() <= PI && v.abs() <= MAX_SPEED);
        state.map(|state| self.state.set(b, state)).is_some()
    }
    fn picture(&mut self, b: usize) -> Result<Picture, PictureError> {
        let [theta, _] = self.state.get(b);
        Ok(scenery::pendulum(theta).at(30.0))
    }
}
