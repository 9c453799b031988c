//! KakadeMdp-v0: two states, each with an action that stays and one that crosses.
//!
//! | | |
//! |---|---|
//! | state | `i` (0) or `j` (1) |
//! | observation | which, as one-hot; `Discrete(2)` |
//! | action | `Discrete(2)`: 0 crosses to the other state, 1 stays |
//! | reward | staying in `i` gives 1, staying in `j` gives 2, crossing gives 0 |
//! | first state | `i` with probability 0.8, else `j` |
//! | end | never terminated; cut after 100 steps |
//! | threshold | none |
//!
//! A policy is two numbers, the probabilities `a` of staying in `i` and `b` of staying in `j`. Over long
//! times
//!
//! ```text
//! ρ(i) = (1 − b) / ((1 − a) + (1 − b)),   ρ(j) = 1 − ρ(i)        part of the time spent in each
//! η = a ρ(i) + 2 b ρ(j)                                          average reward
//! ```
//!
//! Best is to stay in `j`: `η = 2`. A vanilla policy gradient that starts at `a = 0.8`, `b = 0.1` first
//! learns to stay in `i`, since `j` is seen too rarely for its reward to count, and then hardly moves: the
//! task on which the natural gradient was shown.
//!
//! Source: S. Kakade, "A natural policy gradient", NIPS 14 (2002), section 5 and figure 1. The text of the
//! paper gives actions, first policy and first distribution; the rewards are those of its figure. The task
//! has no end; the limit of 100 steps is ours.

use crate::state::{State, parse};
use pgrad_env::{Actions, BatchEnv, End, EnvSpec, Space};
use pgrad_num::{ColsMut, Stream, simd};

/// A batch of KakadeMdp-v0.
#[derive(Clone, Debug)]
pub struct KakadeMdp {
    spec: EnvSpec,
    /// 0 for `i`, 1 for `j`.
    state: State<1>,
}

impl KakadeMdp {
    /// Rewards of staying in `i` and in `j`.
    pub const STAY: [f64; 2] = [1.0, 2.0];
    /// Probability of `i` as the first state.
    pub const FIRST_I: f64 = 0.8;

    /// `n` copies.
    ///
    /// # Panics
    /// When `n` is 0.
    #[must_use]
    pub fn new(n: usize) -> Self {
        let spec = EnvSpec {
            id: "KakadeMdp-v0".into(),
            observation: Space::Discrete { n: 2 }.into(),
            action: Space::Discrete { n: 2 },
            max_episode_steps: Some(100),
            reward_threshold: None,
            masks_actions: false,
        };
        Self { spec, state: State::new(n) }
    }
}

#[inline(always)]
fn step(state: &mut [f64], actions: &[u32], rewards: &mut [f64]) {
    let n = state.len();
    let (actions, rewards) = (&actions[..n], &mut rewards[..n]);
    for b in 0..n {
        let (stay, s) = (f64::from(actions[b]), state[b]);
        let [i, j] = KakadeMdp::STAY;
        rewards[b] = stay * (i + s * (j - i));
        state[b] = if actions[b] == 1 { s } else { 1.0 - s };
    }
}

impl BatchEnv for KakadeMdp {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }
    fn len(&self) -> usize {
        self.state.len()
    }
    fn reset(&mut self, b: usize, rng: &mut Stream) {
        let j = rng.uniform() >= Self::FIRST_I;
        self.state.set(b, [f64::from(u8::from(j))]);
    }
    fn step(&mut self, actions: Actions<'_>, _: &mut [Stream], rewards: &mut [f64], ends: &mut [End]) {
        let actions = actions.index.row(0);
        let [state] = self.state.rows_mut();
        simd!(|| step(state, actions, rewards));
        ends.fill(End::Running);
    }
    fn observe(&self, mut obs: ColsMut<'_, f32>) {
        for (b, s) in self.state.row(0).iter().enumerate() {
            obs.row_mut(0)[b] = 1.0 - *s as f32;
            obs.row_mut(1)[b] = *s as f32;
        }
    }
    fn observe_one(&self, b: usize, obs: &mut [f32]) {
        let [s] = self.state.get(b);
        obs.copy_from_slice(&[1.0 - s as f32, s as f32]);
    }
    fn save(&self, b: usize) -> Option<Vec<f64>> {
        Some(self.state.get(b).to_vec())
    }
    fn load(&mut self, b: usize, state: &[f64]) -> bool {
        let state = parse::<1>(state).filter(|[s]| [0.0, 1.0].contains(s));
        state.map(|state| self.state.set(b, state)).is_some()
    }
}
