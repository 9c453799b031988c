//! MountainCar-v0: an underpowered car has to swing up to get out of a valley.
//!
//! | | |
//! |---|---|
//! | state | position in `[-1.2, 0.6]`, velocity in `[-0.07, 0.07]`, f64 |
//! | observation | the state, rounded to f32; `Box([-1.2 -0.07], [0.6 0.07], (2,), float32)` |
//! | action | `Discrete(3)`: accelerate left, not at all, right |
//! | reward | −1 each step, the last one included |
//! | first state | position uniform on `[-0.6, -0.4)`, velocity 0 |
//! | end | terminated at position ≥ 0.5 with velocity ≥ 0; cut after 200 steps |
//! | threshold | −110 |
//!
//! ```text
//! v ← clip(v + 0.001 (a − 1) − 0.0025 cos 3p, −0.07, 0.07)
//! p ← clip(p + v, −1.2, 0.6);   v ← 0 at the left wall when it points into it
//! ```
//!
//! Source: A. W. Moore, "Efficient memory-based learning for robot control", PhD thesis, Cambridge (1990);
//! R. S. Sutton, A. G. Barto, *Reinforcement Learning: An Introduction*, example 10.1; Gymnasium's
//! `MountainCar-v0`.

use crate::scenery;
use crate::state::{State, parse, round};
use pgrad_env::{Actions, BatchEnv, BoxSpace, End, EnvSpec, Picture, PictureError, Space};
use pgrad_num::trig::{SINCOS_MAX, sincos1};
use pgrad_num::{ColsMut, Stream, simd};

const MIN_POSITION: f64 = -1.2;
const MAX_POSITION: f64 = 0.6;
const MAX_SPEED: f64 = 0.07;
const GOAL: f64 = 0.5;
const FORCE: f64 = 0.001;
const GRAVITY: f64 = 0.0025;

/// A batch of MountainCar-v0.
#[derive(Clone, Debug)]
pub struct MountainCar {
    spec: EnvSpec,
    /// Position, velocity.
    state: State<2>,
}

impl MountainCar {
    /// `n` copies.
    ///
    /// # Panics
    /// When `n` is 0.
    #[must_use]
    pub fn new(n: usize) -> Self {
        let spec = EnvSpec {
            id: "MountainCar-v0".into(),
            observation: BoxSpace::new(
                vec![MIN_POSITION as f32, -MAX_SPEED as f32],
                vec![MAX_POSITION as f32, MAX_SPEED as f32],
            )
            .into(),
            action: Space::Discrete { n: 3 },
            max_episode_steps: Some(200),
            reward_threshold: Some(-110.0),
            masks_actions: false,
        };
        Self { spec, state: State::new(n) }
    }
}

#[inline(always)]
fn step(position: &mut [f64], velocity: &mut [f64], actions: &[u32], ends: &mut [End]) {
    let n = position.len();
    let (velocity, actions, ends) = (&mut velocity[..n], &actions[..n], &mut ends[..n]);
    for b in 0..n {
        let push = (actions[b] as i32 - 1) as f64 * FORCE;
        let (_, slope) = sincos1(3.0 * position[b]);
        let v = velocity[b] + (push - GRAVITY * slope);
        let v = v.clamp(-MAX_SPEED, MAX_SPEED);
        let p = (position[b] + v).clamp(MIN_POSITION, MAX_POSITION);
        let v = if (p == MIN_POSITION) & (v < 0.0) { 0.0 } else { v };
        position[b] = p;
        velocity[b] = v;
        ends[b] = if (p >= GOAL) & (v >= 0.0) { End::Terminated } else { End::Running };
    }
}

impl BatchEnv for MountainCar {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }
    fn len(&self) -> usize {
        self.state.len()
    }
    fn reset(&mut self, b: usize, rng: &mut Stream) {
        self.state.set(b, [rng.uniform_in(-0.6, -0.4), 0.0]);
    }
    fn step(&mut self, actions: Actions<'_>, _: &mut [Stream], rewards: &mut [f64], ends: &mut [End]) {
        let actions = actions.index.row(0);
        let [position, velocity] = self.state.rows_mut();
        simd!(|| step(position, velocity, actions, ends));
        rewards.fill(-1.0);
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
        let state = parse::<2>(state).filter(|[p, _]| p.abs() <= SINCOS_MAX / 3.0);
        state.map(|state| self.state.set(b, state)).is_some()
    }
    fn picture(&mut self, b: usize) -> Result<Picture, PictureError> {
        let [position, _] = self.state.get(b);
        Ok(scenery::valley(position, [MIN_POSITION, MAX_POSITION], GOAL).at(30.0))
    }
}
