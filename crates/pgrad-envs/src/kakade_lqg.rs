//! KakadeLqg-v0: keep a number near 0 that noise drives away, for 20 steps.
//!
//! | | |
//! |---|---|
//! | state | `x` and the step `t`, 0 to 19, f64 |
//! | observation | `x`; `Box(−∞.0, ∞.0, (1,), float32)` |
//! | action | `Box(−∞.0, ∞.0, (1,), float32)`: the push `u` |
//! | reward | `−x²` after the step |
//! | first state | `x = 0` |
//! | end | terminated after 20 steps: the horizon belongs to the task, nothing follows it; never cut |
//! | threshold | none |
//!
//! ```text
//! x ← 0.7 x + u + ε,   ε ~ N(0, 1)
//! ```
//!
//! With `u ~ N(k x, σ²)` the variance of `x` follows `P ← (0.7 + k)² P + σ² + 1` from 0, and the mean return
//! is `−Σ P` over the 20 steps: −20 at best (`k = −0.7`, `σ = 0`), −33.8 for the paper's first policy
//! (`k = −0.5`, `σ² = 0.625`).
//!
//! Source: S. Kakade, "A natural policy gradient", NIPS 14 (2002), section 5: dynamics, noise, cost and
//! length of a trajectory. That `x` starts at 0, and that each cost is that of the state reached, are ours;
//! starting at the stationary distribution changes the first cost to 33.9.

use crate::state::{State, parse, round};
use pgrad_env::{Actions, BatchEnv, BoxSpace, End, EnvSpec, Space};
use pgrad_num::{ColsMut, Stream};

/// A batch of KakadeLqg-v0.
#[derive(Clone, Debug)]
pub struct KakadeLqg {
    spec: EnvSpec,
    /// `x, t`.
    state: State<2>,
}

impl KakadeLqg {
    /// What is left of `x` after a step.
    pub const DECAY: f64 = 0.7;
    /// Steps of an episode.
    pub const HORIZON: usize = 20;

    /// `n` copies.
    ///
    /// # Panics
    /// When `n` is 0.
    #[must_use]
    pub fn new(n: usize) -> Self {
        let spec = EnvSpec {
            id: "KakadeLqg-v0".into(),
            observation: BoxSpace::unbounded(1).into(),
            action: Space::Box(BoxSpace::unbounded(1)),
            max_episode_steps: None,
            reward_threshold: None,
            masks_actions: false,
        };
        Self { spec, state: State::new(n) }
    }
}

impl BatchEnv for KakadeLqg {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }
    fn len(&self) -> usize {
        self.state.len()
    }
    fn reset(&mut self, b: usize, _: &mut Stream) {
        self.state.set(b, [0.0, 0.0]);
    }
    fn step(&mut self, actions: Actions<'_>, rngs: &mut [Stream], rewards: &mut [f64], ends: &mut [End]) {
        let actions = actions.real.row(0);
        let [x, t] = self.state.rows_mut();
        for b in 0..x.len() {
            x[b] = Self::DECAY * x[b] + f64::from(actions[b]) + rngs[b].normal();
            t[b] += 1.0;
            rewards[b] = -x[b] * x[b];
            ends[b] = if t[b] >= Self::HORIZON as f64 { End::Terminated } else { End::Running };
        }
    }
    fn observe(&self, mut obs: ColsMut<'_, f32>) {
        round(self.state.row(0), obs.row_mut(0));
    }
    fn observe_one(&self, b: usize, obs: &mut [f32]) {
        obs[0] = self.state.get(b)[0] as f32;
    }
    fn save(&self, b: usize) -> Option<Vec<f64>> {
        Some(self.state.get(b).to_vec())
    }
    fn load(&mut self, b: usize, state: &[f64]) -> bool {
        let step = |t: f64| t.fract() == 0.0 && (0.0..=Self::HORIZON as f64).contains(&t);
        let state = parse::<2>(state).filter(|[_, t]| step(*t));
        state.map(|state| self.state.set(b, state)).is_some()
    }
}
