//! Acrobot-v1: swing the tip of a two-link arm above a line, with a torque at the elbow only.
//!
//! | | |
//! |---|---|
//! | state | `θ₁, θ₂` (rad, in `[-π, π]`; 0 hangs down, `θ₂` relative to the first link), `θ̇₁` in ±4π, `θ̇₂` in ±9π (rad/s), f64 |
//! | observation | `cos θ₁, sin θ₁, cos θ₂, sin θ₂, θ̇₁, θ̇₂` in f32; `Box(±[1, 1, 1, 1, 4π, 9π])` |
//! | action | `Discrete(3)`: torque −1, 0 or +1 N m |
//! | reward | −1 each step, 0 on the step that reaches the height |
//! | first state | each number uniform on `[-0.1, 0.1)`, rounded to f32 |
//! | end | terminated when `−cos θ₁ − cos(θ₁ + θ₂) > 1`; cut after 500 steps |
//! | threshold | −100 |
//!
//! Constants: both links have mass `m = 1` kg, length `l = 1` m, centre of mass at `l_c = 0.5` m and moment
//! of inertia `I = 1` kg m²; `g = 9.8`. With torque `τ`, the equations of the book (not those of the paper):
//!
//! ```text
//! d₁ = m l_c² + m (l² + l_c² + 2 l l_c cos θ₂) + 2I        d₂ = m (l_c² + l l_c cos θ₂) + I
//! φ₂ = m l_c g cos(θ₁ + θ₂ − π/2)
//! φ₁ = −m l l_c θ̇₂² sin θ₂ − 2 m l l_c θ̇₁ θ̇₂ sin θ₂ + (m l_c + m l) g cos(θ₁ − π/2) + φ₂
//! θ̈₂ = (τ + d₂/d₁ φ₁ − m l l_c θ̇₁² sin θ₂ − φ₂) / (m l_c² + I − d₂²/d₁)
//! θ̈₁ = −(d₂ θ̈₂ + φ₁) / d₁
//! ```
//!
//! One step of the classical Runge-Kutta method of fourth order with `Δt = 0.2` s; then the angles are
//! wrapped and the speeds clipped.
//!
//! Source: R. S. Sutton, "Generalization in reinforcement learning: successful examples using sparse coarse
//! coding", NIPS 8 (1996); R. S. Sutton, A. G. Barto, *Reinforcement Learning: An Introduction*, 1st edition,
//! section 11.3; Gymnasium's `Acrobot-v1`.

use crate::scenery::{BLUE, GREY, YELLOW};
use crate::state::{State, parse, round};
use pgrad_env::{Actions, BatchEnv, BoxSpace, Drawing, End, EnvSpec, Picture, PictureError, Space};
use pgrad_num::trig::{SINCOS_MAX, sincos1};
use pgrad_num::{ColsMut, Stream, simd};
use std::f64::consts::{PI, TAU};

const DT: f64 = 0.2;
const GRAVITY: f64 = 9.8;
const MASS: f64 = 1.0;
const LENGTH: f64 = 1.0;
const CENTRE: f64 = 0.5;
const INERTIA: f64 = 1.0;
const MAX_SPEED_1: f64 = 4.0 * PI;
const MAX_SPEED_2: f64 = 9.0 * PI;

/// A batch of Acrobot-v1.
#[derive(Clone, Debug)]
pub struct Acrobot {
    spec: EnvSpec,
    /// `θ₁, θ₂, θ̇₁, θ̇₂`, then `cos θ₁, sin θ₁, cos θ₂, sin θ₂`, which the end, the observation and the next
    /// step all need.
    state: State<8>,
}

impl Acrobot {
    /// `n` copies.
    ///
    /// # Panics
    /// When `n` is 0.
    #[must_use]
    pub fn new(n: usize) -> Self {
        let high = vec![1.0, 1.0, 1.0, 1.0, MAX_SPEED_1 as f32, MAX_SPEED_2 as f32];
        let spec = EnvSpec {
            id: "Acrobot-v1".into(),
            observation: BoxSpace::new(high.iter().map(|x| -x).collect(), high).into(),
            action: Space::Discrete { n: 3 },
            max_episode_steps: Some(500),
            reward_threshold: Some(-100.0),
            masks_actions: false,
        };
        let mut envs = Self { spec, state: State::new(n) };
        for b in 0..n {
            envs.set(b, [0.0; 4]);
        }
        envs
    }
    fn set(&mut self, b: usize, [theta1, theta2, speed1, speed2]: [f64; 4]) {
        let (sin1, cos1) = sincos1(theta1);
        let (sin2, cos2) = sincos1(theta2);
        self.state.set(b, [theta1, theta2, speed1, speed2, cos1, sin1, cos2, sin2]);
    }
}

/// `(θ̈₁, θ̈₂)`. The constants are put in: all masses, lengths and inertias are 1, `l_c` is 1/2.
#[inline(always)]
fn accelerations(sin1: f64, cos1: f64, sin2: f64, cos2: f64, w1: f64, w2: f64, torque: f64) -> (f64, f64) {
    const COUPLING: f64 = MASS * LENGTH * CENTRE;
    const D1: f64 = MASS * CENTRE * CENTRE + MASS * (LENGTH * LENGTH + CENTRE * CENTRE) + 2.0 * INERTIA;
    const D2: f64 = MASS * CENTRE * CENTRE + INERTIA;
    let d1 = (2.0 * COUPLING).mul_add(cos2, D1);
    let d2 = COUPLING.mul_add(cos2, D2);
    // cos(x − π/2) = sin x
    let phi2 = MASS * CENTRE * GRAVITY * sin1.mul_add(cos2, cos1 * sin2);
    let phi1 = (MASS * (CENTRE + LENGTH) * GRAVITY).mul_add(sin1, phi2)
        - COUPLING * sin2 * (w2 * 2.0f64.mul_add(w1, w2));
    let ratio = d2 / d1;
    let a2 = (ratio.mul_add(phi1, torque) - COUPLING * (w1 * w1) * sin2 - phi2) / (D2 - d2 * ratio);
    let a1 = -d2.mul_add(a2, phi1) / d1;
    (a1, a2)
}

/// `x` wrapped to `[-π, π]`.
#[inline(always)]
fn wrap(x: f64) -> f64 {
    // Adding 1.5 * 2^52 rounds to the nearest integer.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    let turns = x.mul_add(1.0 / TAU, ROUND) - ROUND;
    (-turns).mul_add(TAU, x)
}

#[inline(always)]
fn step(rows: [&mut [f64]; 8], actions: &[u32], rewards: &mut [f64], ends: &mut [End]) {
    let n = actions.len();
    let [theta1, theta2, speed1, speed2, cos1, sin1, cos2, sin2] = rows.map(|row| &mut row[..n]);
    let (rewards, ends) = (&mut rewards[..n], &mut ends[..n]);
    for b in 0..n {
        let torque = (actions[b] as i32 - 1) as f64;
        let (t1, t2, w1, w2) = (theta1[b], theta2[b], speed1[b], speed2[b]);
        let at = |h: f64, v1: f64, v2: f64, a1: f64, a2: f64| {
            let (s1, c1) = sincos1(h.mul_add(v1, t1));
            let (s2, c2) = sincos1(h.mul_add(v2, t2));
            let (u1, u2) = (h.mul_add(a1, w1), h.mul_add(a2, w2));
            let (b1, b2) = accelerations(s1, c1, s2, c2, u1, u2, torque);
            (u1, u2, b1, b2)
        };
        let (ka1, ka2) = accelerations(sin1[b], cos1[b], sin2[b], cos2[b], w1, w2, torque);
        let (kb_v1, kb_v2, kb1, kb2) = at(DT / 2.0, w1, w2, ka1, ka2);
        let (kc_v1, kc_v2, kc1, kc2) = at(DT / 2.0, kb_v1, kb_v2, kb1, kb2);
        let (kd_v1, kd_v2, kd1, kd2) = at(DT, kc_v1, kc_v2, kc1, kc2);
        let mean = |a: f64, b: f64, c: f64, d: f64| DT / 6.0 * (2.0f64.mul_add(b + c, a) + d);
        let t1 = wrap(t1 + mean(w1, kb_v1, kc_v1, kd_v1));
        let t2 = wrap(t2 + mean(w2, kb_v2, kc_v2, kd_v2));
        theta1[b] = t1;
        theta2[b] = t2;
        speed1[b] = (w1 + mean(ka1, kb1, kc1, kd1)).clamp(-MAX_SPEED_1, MAX_SPEED_1);
        speed2[b] = (w2 + mean(ka2, kb2, kc2, kd2)).clamp(-MAX_SPEED_2, MAX_SPEED_2);
        let (s1, c1) = sincos1(t1);
        let (s2, c2) = sincos1(t2);
        (sin1[b], cos1[b], sin2[b], cos2[b]) = (s1, c1, s2, c2);
        let height = -c1 - c1.mul_add(c2, -(s1 * s2));
        let up = height > 1.0;
        rewards[b] = if up { 0.0 } else { -1.0 };
        ends[b] = if up { End::Terminated } else { End::Running };
    }
}

impl BatchEnv for Acrobot {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }
    fn len(&self) -> usize {
        self.state.len()
    }
    fn reset(&mut self, b: usize, rng: &mut Stream) {
        self.set(b, std::array::from_fn(|_| f64::from(rng.uniform_in(-0.1, 0.1) as f32)));
    }
    fn step(&mut self, actions: Actions<'_>, _: &mut [Stream], rewards: &mut [f64], ends: &mut [End]) {
        let actions = actions.index.row(0);
        let rows = self.state.rows_mut();
        simd!(|| step(rows, actions, rewards, ends));
    }
    fn observe(&self, mut obs: ColsMut<'_, f32>) {
        for (to, i) in [4, 5, 6, 7, 2, 3].into_iter().enumerate() {
            round(self.state.row(i), obs.row_mut(to));
        }
    }
    fn observe_one(&self, b: usize, obs: &mut [f32]) {
        let [_, _, speed1, speed2, cos1, sin1, cos2, sin2] = self.state.get(b);
        for (to, x) in obs.iter_mut().zip([cos1, sin1, cos2, sin2, speed1, speed2]) {
            *to = x as f32;
        }
    }
    fn save(&self, b: usize) -> Option<Vec<f64>> {
        Some(self.state.get(b)[..4].to_vec())
    }
    fn load(&mut self, b: usize, state: &[f64]) -> bool {
        // The largest speeds move an angle by less than 100 within a step.
        let possible = |s: &[f64; 4]| s[0].abs().max(s[1].abs()) <= SINCOS_MAX / 2.0;
        let state = parse::<4>(state).filter(possible);
        state.map(|state| self.set(b, state)).is_some()
    }
    fn picture(&mut self, b: usize) -> Result<Picture, PictureError> {
        let [theta1, theta2, ..] = self.state.get(b);
        let elbow = [LENGTH * theta1.sin(), -LENGTH * theta1.cos()];
        let both = theta1 + theta2;
        let tip = [elbow[0] + LENGTH * both.sin(), elbow[1] - LENGTH * both.cos()];
        Ok(Drawing::new([-2.2, 2.2], [-2.2, 2.2])
            .line(GREY, 0.02, [[-2.2, 1.0], [2.2, 1.0]])
            .bar(BLUE, 0.2, [0.0, 0.0], elbow)
            .bar(BLUE, 0.2, elbow, tip)
            .disc(YELLOW, [0.0, 0.0], 0.1)
            .disc(YELLOW, elbow, 0.1)
            .at(15.0))
    }
}
