//! CartPole-v1: balance a pole on a cart by pushing the cart left or right.
//!
//! | | |
//! |---|---|
//! | state | `x` (m), `ẋ` (m/s), `θ` (rad, 0 is upright), `θ̇` (rad/s), all f64 |
//! | observation | the state, rounded to f32; `Box(±[4.8, ∞, 24°, ∞])` |
//! | action | `Discrete(2)`: push with −10 N or +10 N |
//! | reward | 1 each step, the last one included |
//! | first state | each number uniform on `[-0.05, 0.05)` |
//! | end | terminated when `|x| > 2.4` or `|θ| > 12°`; cut after 500 steps |
//! | threshold | 475 |
//!
//! Constants: gravity `g = 9.8`, cart 1 kg, pole `m = 0.1` kg, together `M = 1.1` kg, half length of the pole
//! `l = 0.5` m, step `τ = 0.02` s. No friction. One explicit Euler step of
//!
//! ```text
//! temp = (F + m l θ̇² sin θ) / M
//! θ̈ = (g sin θ − cos θ · temp) / (l (4/3 − m cos² θ / M))
//! ẍ = temp − m l θ̈ cos θ / M
//! ```
//!
//! Source: A. G. Barto, R. S. Sutton, C. W. Anderson, "Neuronlike adaptive elements that can solve difficult
//! learning control problems", IEEE SMC-13 (1983), without its friction; Gymnasium's `CartPole-v1`.

use crate::scenery;
use crate::state::{State, parse};
use pgrad_env::{Actions, BatchEnv, BoxSpace, End, EnvSpec, Picture, PictureError, Space};
use pgrad_num::simd;
use pgrad_num::trig::{SINCOS_MAX, sincos1};
use pgrad_num::{ColsMut, Stream};

const GRAVITY: f64 = 9.8;
const MASS_POLE: f64 = 0.1;
const MASS: f64 = 1.0 + MASS_POLE;
const HALF_LENGTH: f64 = 0.5;
const POLE_MASS_LENGTH: f64 = MASS_POLE * HALF_LENGTH;
const FORCE: f64 = 10.0;
const TAU: f64 = 0.02;
const X_LIMIT: f64 = 2.4;
const THETA_LIMIT: f64 = 12.0 * std::f64::consts::TAU / 360.0;

/// A batch of CartPole-v1.
#[derive(Clone, Debug)]
pub struct CartPole {
    spec: EnvSpec,
    /// `x, ẋ, θ, θ̇`.
    state: State<4>,
}

impl CartPole {
    /// `n` copies.
    ///
    /// # Panics
    /// When `n` is 0.
    #[must_use]
    pub fn new(n: usize) -> Self {
        let high = vec![2.0 * X_LIMIT as f32, f32::INFINITY, (2.0 * THETA_LIMIT) as f32, f32::INFINITY];
        let spec = EnvSpec {
            id: "CartPole-v1".into(),
            observation: BoxSpace::new(high.iter().map(|x| -x).collect(), high).into(),
            action: Space::Discrete { n: 2 },
            max_episode_steps: Some(500),
            reward_threshold: Some(475.0),
            masks_actions: false,
        };
        Self { spec, state: State::new(n) }
    }
}

#[inline(always)]
fn step(
    x: &mut [f64],
    x_dot: &mut [f64],
    theta: &mut [f64],
    theta_dot: &mut [f64],
    actions: &[u32],
    ends: &mut [End],
) {
    let n = x.len();
    let (x_dot, theta, theta_dot) = (&mut x_dot[..n], &mut theta[..n], &mut theta_dot[..n]);
    let (actions, ends) = (&actions[..n], &mut ends[..n]);
    for b in 0..n {
        let force = if actions[b] == 1 { FORCE } else { -FORCE };
        let (sin, cos) = sincos1(theta[b]);
        let w = theta_dot[b];
        let temp = (POLE_MASS_LENGTH * w * w).mul_add(sin, force) * (1.0 / MASS);
        let denominator = (cos * cos).mul_add(-HALF_LENGTH * MASS_POLE / MASS, HALF_LENGTH * 4.0 / 3.0);
        let theta_acc = (GRAVITY * sin - cos * temp) / denominator;
        let x_acc = (theta_acc * cos).mul_add(-POLE_MASS_LENGTH / MASS, temp);
        x[b] = TAU.mul_add(x_dot[b], x[b]);
        x_dot[b] = TAU.mul_add(x_acc, x_dot[b]);
        theta[b] = TAU.mul_add(w, theta[b]);
        theta_dot[b] = TAU.mul_add(theta_acc, w);
        let out = (x[b].abs() > X_LIMIT) | (theta[b].abs() > THETA_LIMIT);
        ends[b] = if out { End::Terminated } else { End::Running };
    }
}

impl BatchEnv for CartPole {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }
    fn len(&self) -> usize {
        self.state.len()
    }
    fn reset(&mut self, b: usize, rng: &mut Stream) {
        self.state.set(b, std::array::from_fn(|_| rng.uniform_in(-0.05, 0.05)));
    }
    fn step(&mut self, actions: Actions<'_>, _: &mut [Stream], rewards: &mut [f64], ends: &mut [End]) {
        let actions = actions.index.row(0);
        let [x, x_dot, theta, theta_dot] = self.state.rows_mut();
        simd!(|| step(x, x_dot, theta, theta_dot, actions, ends));
        rewards.fill(1.0);
    }
    fn observe(&self, mut obs: ColsMut<'_, f32>) {
        for i in 0..4 {
            crate::state::round(self.state.row(i), obs.row_mut(i));
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
        match parse::<4>(state) {
            Some(state) if state[2].abs() <= SINCOS_MAX => {
                self.state.set(b, state);
                true
            }
            _ => false,
        }
    }
    fn picture(&mut self, b: usize) -> Result<Picture, PictureError> {
        let [x, _, theta, _] = self.state.get(b);
        Ok(scenery::cart_and_pole(x, theta, 2.0 * HALF_LENGTH, X_LIMIT).at(1.0 / TAU))
    }
}
