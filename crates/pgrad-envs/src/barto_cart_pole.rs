//! BartoCartPole-v0: the cart-pole of the TRPO and GAE papers: friction, a push of any size, 1000 steps.
//!
//! | | |
//! |---|---|
//! | state | `x` (m), `ẋ` (m/s), `θ` (rad, 0 is upright), `θ̇` (rad/s), all f64 |
//! | observation | the state, rounded to f32; `Box(±[4.8, ∞, 24°, ∞])` |
//! | action | `Box(−1.0, 1.0, (1,), float32)`: the force in units of 10 N |
//! | reward | `10 − (1 − cos θ) − 10⁻⁵ F²` while it stands; 0 for the step that ends the episode |
//! | first state | each number uniform on `[-0.05, 0.05)` |
//! | end | terminated when `|x| > 2.4` or `|θ| > 12°`; cut after 1000 steps |
//! | threshold | none; the most is 10 000 |
//!
//! Constants: gravity `g = 9.8`, cart 1 kg, pole `m = 0.1` kg, together `M = 1.1` kg, half length of the pole
//! `l = 0.5` m, friction of the cart `μ_c = 0.0005` N, of the pole `μ_p = 0.000002` N m s, step `τ = 0.02` s.
//! One explicit Euler step of
//!
//! ```text
//! temp = (F + m l θ̇² sin θ − μ_c sign ẋ) / M
//! θ̈ = (g sin θ − cos θ · temp − μ_p θ̇ / (m l)) / (l (4/3 − m cos² θ / M))
//! ẍ = temp − m l θ̈ cos θ / M
//! ```
//!
//! # What is ours
//! Both papers name the task, a linear policy of six parameters (so four observations, one action that is a
//! number, and a free standard deviation) and at most 1000 steps; they print neither reward nor range of the
//! force. Their figures have an axis of about 10 a step, which is the reward of the cart-pole in rllab, the
//! same group's library (Duan et al. 2016: 10 for standing, less small costs of angle and force): so it is
//! taken here. The force is what Barto, Sutton and Anderson's ±10 N become when any size is allowed; an
//! action of 1 is 10 N, so that a first policy with standard deviation 1 explores that range.
//!
//! Source: A. G. Barto, R. S. Sutton, C. W. Anderson, "Neuronlike adaptive elements that can solve difficult
//! learning control problems", IEEE SMC-13 (1983), appendix; Schulman et al. 2015, arXiv:1502.05477, section
//! 8.1 and arXiv:1506.02438, section 6.1; Duan et al. 2016, arXiv:1604.06778.

use crate::scenery;
use crate::state::{State, parse, round};
use pgrad_env::{Actions, BatchEnv, BoxSpace, End, EnvSpec, Picture, PictureError, Space};
use pgrad_num::trig::{SINCOS_MAX, sincos1};
use pgrad_num::{ColsMut, Stream, simd};

const GRAVITY: f64 = 9.8;
const MASS_POLE: f64 = 0.1;
const MASS: f64 = 1.0 + MASS_POLE;
const HALF_LENGTH: f64 = 0.5;
const POLE_MASS_LENGTH: f64 = MASS_POLE * HALF_LENGTH;
const FRICTION_CART: f64 = 0.0005;
const FRICTION_POLE: f64 = 0.000_002;
const FORCE: f64 = 10.0;
const TAU: f64 = 0.02;
const X_LIMIT: f64 = 2.4;
const THETA_LIMIT: f64 = 12.0 * std::f64::consts::TAU / 360.0;
const ALIVE: f64 = 10.0;
const FORCE_COST: f64 = 1e-5;

/// A batch of BartoCartPole-v0.
#[derive(Clone, Debug)]
pub struct BartoCartPole {
    spec: EnvSpec,
    /// `x, ẋ, θ, θ̇`.
    state: State<4>,
}

impl BartoCartPole {
    /// `n` copies.
    ///
    /// # Panics
    /// When `n` is 0.
    #[must_use]
    pub fn new(n: usize) -> Self {
        let high = vec![2.0 * X_LIMIT as f32, f32::INFINITY, (2.0 * THETA_LIMIT) as f32, f32::INFINITY];
        let spec = EnvSpec {
            id: "BartoCartPole-v0".into(),
            observation: BoxSpace::new(high.iter().map(|x| -x).collect(), high).into(),
            action: Space::Box(BoxSpace::uniform(-1.0, 1.0, 1)),
            max_episode_steps: Some(1000),
            reward_threshold: None,
            masks_actions: false,
        };
        Self { spec, state: State::new(n) }
    }
}

#[inline(always)]
fn sign(x: f64) -> f64 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        0.0
    }
}

#[inline(always)]
fn step(
    x: &mut [f64],
    x_dot: &mut [f64],
    theta: &mut [f64],
    theta_dot: &mut [f64],
    actions: &[f32],
    rewards: &mut [f64],
    ends: &mut [End],
) {
    let n = x.len();
    let (x_dot, theta, theta_dot) = (&mut x_dot[..n], &mut theta[..n], &mut theta_dot[..n]);
    let (actions, rewards, ends) = (&actions[..n], &mut rewards[..n], &mut ends[..n]);
    for b in 0..n {
        let force = FORCE * f64::from(actions[b].clamp(-1.0, 1.0));
        let (sin, cos) = sincos1(theta[b]);
        let w = theta_dot[b];
        let temp = (force + POLE_MASS_LENGTH * w * w * sin - FRICTION_CART * sign(x_dot[b])) / MASS;
        let torque = GRAVITY * sin - cos * temp - FRICTION_POLE * w / POLE_MASS_LENGTH;
        let theta_acc = torque / (HALF_LENGTH * (4.0 / 3.0 - MASS_POLE * cos * cos / MASS));
        let x_acc = temp - POLE_MASS_LENGTH * theta_acc * cos / MASS;
        x[b] += TAU * x_dot[b];
        x_dot[b] += TAU * x_acc;
        theta[b] += TAU * w;
        theta_dot[b] += TAU * theta_acc;
        let out = (x[b].abs() > X_LIMIT) | (theta[b].abs() > THETA_LIMIT);
        let (_, cos) = sincos1(theta[b]);
        rewards[b] = if out { 0.0 } else { ALIVE - (1.0 - cos) - FORCE_COST * force * force };
        ends[b] = if out { End::Terminated } else { End::Running };
    }
}

impl BatchEnv for BartoCartPole {
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
        let actions = actions.real.row(0);
        let [x, x_dot, theta, theta_dot] = self.state.rows_mut();
        simd!(|| step(x, x_dot, theta, theta_dot, actions, rewards, ends));
    }
    fn observe(&self, mut obs: ColsMut<'_, f32>) {
        for i in 0..4 {
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
        let state = parse::<4>(state).filter(|state| state[2].abs() <= SINCOS_MAX);
        state.map(|state| self.state.set(b, state)).is_some()
    }
    fn picture(&mut self, b: usize) -> Result<Picture, PictureError> {
        let [x, _, theta, _] = self.state.get(b);
        Ok(scenery::cart_and_pole(x, theta, 2.0 * HALF_LENGTH, X_LIMIT).at(1.0 / TAU))
    }
}
