//! ContinuousGridWorld-v0: the continuous grid world of the off-policy experiments of Degris, White, Sutton
//! (2012): walk from the lower left to the upper right corner, around smooth puddles.
//!
//! | | |
//! |---|---|
//! | state | `x`, `y` in `[0, 1]`, f64 |
//! | observation | the state, rounded to f32; `Box(0.0, 1.0, (2,), float32)` |
//! | action | `Discrete(5)`: −0.05 or +0.05 along `x`, −0.05 or +0.05 along `y`, stay |
//! | noise | uniform on ±0.0025 for each number, added to every move |
//! | reward | `−1 − 2 Σ_k N(x; μ_xk, σ_xk) N(y; μ_yk, σ_yk)` at the new place, the last one included |
//! | first state | (0.2, 0.4), always |
//! | end | terminated where `|1 − x| + |1 − y| < 0.1`; cut after 5000 steps |
//! | threshold | none |
//!
//! `N` are normal densities (at the middle of a puddle the reward is −107); the three puddles:
//!
//! | `μ_x` | `σ_x` | `μ_y` | `σ_y` |
//! |--:|--:|--:|--:|
//! | 0.3 | 0.1 | 0.6 | 0.03 |
//! | 0.4 | 0.03 | 0.5 | 0.1 |
//! | 0.8 | 0.03 | 0.9 | 0.1 |
//!
//! Source: T. Degris, M. White, R. S. Sutton, "Off-Policy Actor-Critic", ICML 2012, section 4; constants from
//! the first author's library RLPark (`OffPACPuddleWorld.java`, `PuddleWorld.java`).

use crate::scenery::{GREEN, INK, PALE_BLUE};
use crate::state::{State, parse, round};
use pgrad_env::{Actions, BatchEnv, BoxSpace, Drawing, End, EnvSpec, Picture, PictureError, Space};
use pgrad_num::{ColsMut, Stream};
use std::f64::consts::TAU;

const STEP: f64 = 0.05;
const NOISE: f64 = 0.0025;
const START: [f64; 2] = [0.2, 0.4];
const GOAL_DISTANCE: f64 = 0.1;
const PUDDLE_WEIGHT: f64 = 2.0;
/// `μ_x, σ_x, μ_y, σ_y`.
const PUDDLES: [[f64; 4]; 3] = [[0.3, 0.1, 0.6, 0.03], [0.4, 0.03, 0.5, 0.1], [0.8, 0.03, 0.9, 0.1]];
/// The move along `x` and `y` of each action.
const MOVES: [[f64; 2]; 5] = [[-STEP, 0.0], [STEP, 0.0], [0.0, -STEP], [0.0, STEP], [0.0, 0.0]];

/// A batch of ContinuousGridWorld-v0.
#[derive(Clone, Debug)]
pub struct ContinuousGridWorld {
    spec: EnvSpec,
    /// `x, y`.
    state: State<2>,
}

impl ContinuousGridWorld {
    /// `n` copies.
    ///
    /// # Panics
    /// When `n` is 0.
    #[must_use]
    pub fn new(n: usize) -> Self {
        let spec = EnvSpec {
            id: "ContinuousGridWorld-v0".into(),
            observation: BoxSpace::uniform(0.0, 1.0, 2).into(),
            action: Space::Discrete { n: MOVES.len() },
            max_episode_steps: Some(5000),
            reward_threshold: None,
            masks_actions: false,
        };
        Self { spec, state: State::new(n) }
    }
    /// The reward for arriving at `(x, y)`.
    #[must_use]
    pub fn reward(x: f64, y: f64) -> f64 {
        let density = |x: f64, mean: f64, std: f64| {
            let z = (x - mean) / std;
            (-0.5 * z * z).exp() / (std * TAU.sqrt())
        };
        let puddles = PUDDLES.iter().map(|[mx, sx, my, sy]| density(x, *mx, *sx) * density(y, *my, *sy));
        -1.0 - PUDDLE_WEIGHT * puddles.sum::<f64>()
    }
}

impl BatchEnv for ContinuousGridWorld {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }
    fn len(&self) -> usize {
        self.state.len()
    }
    fn reset(&mut self, b: usize, _: &mut Stream) {
        self.state.set(b, START);
    }
    fn step(&mut self, actions: Actions<'_>, rngs: &mut [Stream], rewards: &mut [f64], ends: &mut [End]) {
        let actions = actions.index.row(0);
        for (b, rng) in rngs.iter_mut().enumerate() {
            let (from, by) = (self.state.get(b), MOVES[actions[b] as usize]);
            let [x, y] = [0, 1].map(|i| (from[i] + by[i] + rng.uniform_in(-NOISE, NOISE)).clamp(0.0, 1.0));
            self.state.set(b, [x, y]);
            rewards[b] = Self::reward(x, y);
            let at_goal = (1.0 - x) + (1.0 - y) < GOAL_DISTANCE;
            ends[b] = if at_goal { End::Terminated } else { End::Running };
        }
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
        let state = parse::<2>(state).filter(|s| s.iter().all(|x| (0.0..=1.0).contains(x)));
        state.map(|state| self.state.set(b, state)).is_some()
    }
    fn picture(&mut self, b: usize) -> Result<Picture, PictureError> {
        let [x, y] = self.state.get(b);
        let near = 1.0 - GOAL_DISTANCE;
        let mut drawing = Drawing::new([0.0, 1.0], [0.0, 1.0]);
        for [mx, sx, my, sy] in PUDDLES {
            drawing =
                drawing.rectangle(PALE_BLUE, [mx - 2.0 * sx, my - 2.0 * sy], [mx + 2.0 * sx, my + 2.0 * sy]);
        }
        Ok(drawing.polygon(GREEN, [[near, 1.0], [1.0, near], [1.0, 1.0]]).disc(INK, [x, y], 0.015).at(20.0))
    }
}
