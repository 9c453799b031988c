//! TMaze10-v0, TMaze50-v0, TMaze100-v0: a sign at the start of a corridor says where to turn at its end.
//!
//! | | |
//! |---|---|
//! | state | place `0..=N` in the corridor, whether the goal is north or south |
//! | observation | 3 bits, `Box(0.0, 1.0, (3,), float32)`: at place 0 `011` (north) or `110` (south), in the corridor `101`, at the junction `010` |
//! | action | `Discrete(4)`: 0 north, 1 east, 2 west, 3 south |
//! | reward | at the junction 4 for the turn to the goal and −0.1 for the other one; −0.1 for a step against a wall; else 0 |
//! | first state | place 0, the goal north or south with equal chance |
//! | end | terminated by a turn at the junction; cut after `20 N` steps |
//! | threshold | 3.9 |
//!
//! `N` is in the name. The way takes `N` steps east and a turn, and is worth 4. Without a memory both signs
//! look the same at the junction: whatever a policy does there, a turn is worth `(4 − 0.1)/2 = 1.95` on
//! average, and so is at most the return. With a memory the sign has to be kept for `N` steps.
//!
//! Source: B. Bakker, "Reinforcement Learning with Long Short-Term Memory", NIPS 14 (2002), section 4. The
//! limit of `20 N` steps is ours; so is that going east at the junction, or west at place 0, is a step
//! against a wall.

use crate::scenery::{GREEN, INK, PALE_BLUE};
use crate::state::{State, parse};
use pgrad_env::{Actions, BatchEnv, BoxSpace, Drawing, End, EnvSpec, Picture, PictureError, Space};
use pgrad_num::{ColsMut, Stream};

const NORTH: u32 = 0;
const EAST: u32 = 1;
const WEST: u32 = 2;
const FOUND: f64 = 4.0;
const BUMP: f64 = -0.1;

/// A batch of T-mazes.
#[derive(Clone, Debug)]
pub struct TMaze {
    spec: EnvSpec,
    /// Place of the junction, `N`.
    length: f64,
    /// The place; 1 where the goal is north.
    state: State<2>,
}

impl TMaze {
    /// `n` copies with a corridor of `length` steps.
    ///
    /// # Panics
    /// When `n` or `length` is 0, or `length` is above 200 million.
    #[must_use]
    pub fn new(n: usize, length: u32) -> Self {
        assert!(
            (1..=200_000_000).contains(&length),
            "a corridor has a length, and its limit fits in 32 bits"
        );
        let spec = EnvSpec {
            id: format!("TMaze{length}-v0"),
            observation: BoxSpace::uniform(0.0, 1.0, 3).into(),
            action: Space::Discrete { n: 4 },
            max_episode_steps: Some(20 * length),
            reward_threshold: Some(3.9),
            masks_actions: false,
        };
        Self { spec, length: f64::from(length), state: State::new(n) }
    }
    fn bits(&self, place: f64, north: f64) -> [f32; 3] {
        if place == self.length {
            [0.0, 1.0, 0.0]
        } else if place > 0.0 {
            [1.0, 0.0, 1.0]
        } else if north == 1.0 {
            [0.0, 1.0, 1.0]
        } else {
            [1.0, 1.0, 0.0]
        }
    }
}

impl BatchEnv for TMaze {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }
    fn len(&self) -> usize {
        self.state.len()
    }
    fn reset(&mut self, b: usize, rng: &mut Stream) {
        self.state.set(b, [0.0, f64::from(rng.below(2))]);
    }
    fn step(&mut self, actions: Actions<'_>, _: &mut [Stream], rewards: &mut [f64], ends: &mut [End]) {
        let (actions, length) = (actions.index.row(0), self.length);
        let [place, north] = self.state.rows_mut();
        for (b, action) in actions.iter().enumerate() {
            let junction = place[b] == length;
            (rewards[b], ends[b]) = match *action {
                EAST if !junction => {
                    place[b] += 1.0;
                    (0.0, End::Running)
                }
                WEST if place[b] > 0.0 => {
                    place[b] -= 1.0;
                    (0.0, End::Running)
                }
                EAST | WEST => (BUMP, End::Running),
                turn if junction => {
                    let right = (turn == NORTH) == (north[b] == 1.0);
                    (if right { FOUND } else { BUMP }, End::Terminated)
                }
                _ => (BUMP, End::Running),
            };
        }
    }
    fn observe(&self, mut obs: ColsMut<'_, f32>) {
        for b in 0..self.len() {
            for (i, bit) in self.bits(self.state.row(0)[b], self.state.row(1)[b]).into_iter().enumerate() {
                obs.set(i, b, bit);
            }
        }
    }
    fn observe_one(&self, b: usize, obs: &mut [f32]) {
        let [place, north] = self.state.get(b);
        obs.copy_from_slice(&self.bits(place, north));
    }
    fn save(&self, b: usize) -> Option<Vec<f64>> {
        Some(self.state.get(b).to_vec())
    }
    fn load(&mut self, b: usize, state: &[f64]) -> bool {
        let fits = |[place, north]: &[f64; 2]| {
            (0.0..=self.length).contains(place) && place.fract() == 0.0 && [0.0, 1.0].contains(north)
        };
        let state = parse::<2>(state).filter(fits);
        state.map(|state| self.state.set(b, state)).is_some()
    }
    fn picture(&mut self, b: usize) -> Result<Picture, PictureError> {
        let [place, north] = self.state.get(b);
        let (end, sign) = (self.length, if north == 1.0 { 1.0 } else { -1.0 });
        let half = 0.05 * end.max(10.0);
        Ok(Drawing::new([-1.0, end + 1.0], [-4.0 * half, 4.0 * half])
            .rectangle(PALE_BLUE, [-0.5, -0.5], [end + 0.5, 0.5])
            .rectangle(PALE_BLUE, [end - 0.5, -1.5], [end + 0.5, 1.5])
            .rectangle(GREEN, [end - 0.5, sign - 0.5], [end + 0.5, sign + 0.5])
            .rectangle(GREEN, [-0.5, sign * 0.25 - 0.15], [0.5, sign * 0.25 + 0.15])
            .disc(INK, [place, 0.0], 0.3)
            .at(10.0))
    }
}
