//! ShortCorridor-v0: three places that look alike, and in the second of them left is right.
//!
//! | | |
//! |---|---|
//! | state | place 0, 1 or 2 |
//! | observation | 1, wherever it is; `Box(0.0, 1.0, (1,), float32)`. (Not to be normalised: it would become 0.) |
//! | action | `Discrete(2)`: 0 left, 1 right |
//! | reward | −1 each step |
//! | first state | place 0 |
//! | end | terminated to the right of place 2; cut after 1000 steps, so that "always left" ends too |
//! | threshold | none |
//!
//! ```text
//! place 0: left stays, right goes to 1        place 1: left goes to 2, right goes to 0
//! place 2: left goes to 1, right ends
//! ```
//!
//! A policy sees nothing, so that it is one number, the probability `p` of going right, and
//!
//! ```text
//! v(place 0) = (2p − 4) / (p (1 − p)),   greatest at p = 2 − √2 = 0.586, where it is −11.66
//! ```
//!
//! A value-based method that acts greedily but for `ε = 0.1` gets −44.2 or −82.1. The formula is that of
//! episodes that are not cut; at `p` in `[0.1, 0.9]` the cut changes it by less than 10⁻³.
//!
//! Source: R. S. Sutton, A. G. Barto, "Reinforcement learning: an introduction", 2nd edition (2018), example
//! 13.1. The limit of 1000 steps is ours.

use crate::state::{State, parse};
use pgrad_env::{Actions, BatchEnv, BoxSpace, End, EnvSpec, Space};
use pgrad_num::{ColsMut, Stream, simd};

/// A batch of ShortCorridor-v0.
#[derive(Clone, Debug)]
pub struct ShortCorridor {
    spec: EnvSpec,
    /// The place.
    state: State<1>,
}

impl ShortCorridor {
    /// `n` copies.
    ///
    /// # Panics
    /// When `n` is 0.
    #[must_use]
    pub fn new(n: usize) -> Self {
        let spec = EnvSpec {
            id: "ShortCorridor-v0".into(),
            observation: BoxSpace::uniform(0.0, 1.0, 1).into(),
            action: Space::Discrete { n: 2 },
            max_episode_steps: Some(1000),
            reward_threshold: None,
            masks_actions: false,
        };
        Self { spec, state: State::new(n) }
    }
}

#[inline(always)]
fn step(place: &mut [f64], actions: &[u32], ends: &mut [End]) {
    let n = place.len();
    let (actions, ends) = (&actions[..n], &mut ends[..n]);
    for b in 0..n {
        let switched = place[b] == 1.0;
        let right = (actions[b] == 1) != switched;
        place[b] = (place[b] + if right { 1.0 } else { -1.0 }).max(0.0);
        ends[b] = if place[b] > 2.0 { End::Terminated } else { End::Running };
    }
}

impl BatchEnv for ShortCorridor {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }
    fn len(&self) -> usize {
        self.state.len()
    }
    fn reset(&mut self, b: usize, _: &mut Stream) {
        self.state.set(b, [0.0]);
    }
    fn step(&mut self, actions: Actions<'_>, _: &mut [Stream], rewards: &mut [f64], ends: &mut [End]) {
        let actions = actions.index.row(0);
        let [place] = self.state.rows_mut();
        simd!(|| step(place, actions, ends));
        rewards.fill(-1.0);
    }
    fn observe(&self, mut obs: ColsMut<'_, f32>) {
        obs.row_mut(0).fill(1.0);
    }
    fn observe_one(&self, _: usize, obs: &mut [f32]) {
        obs.fill(1.0);
    }
    fn save(&self, b: usize) -> Option<Vec<f64>> {
        Some(self.state.get(b).to_vec())
    }
    fn load(&mut self, b: usize, state: &[f64]) -> bool {
        // Past the end is a state too: that of an episode that has just ended.
        let state = parse::<1>(state).filter(|[place]| [0.0, 1.0, 2.0, 3.0].contains(place));
        state.map(|state| self.state.set(b, state)).is_some()
    }
}
