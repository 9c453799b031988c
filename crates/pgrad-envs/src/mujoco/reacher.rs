//! Reacher-v4 and -v5: an arm of two joints reaches for a target in the plane.
//!
//! | | |
//! |---|---|
//! | observation | cosines and sines of the two angles, the target's place (2), the two speeds, fingertip − target (v4: 3 numbers, of which the last is always 0; v5: 2) |
//! | action | `Box(-1.0, 1.0, (2,), float32)`: torques of the two joints |
//! | reward | `−‖fingertip − target‖ − Σ aᵢ²`; v4 takes the places before the step, v5 those after it |
//! | first state | angles + uniform on `[-0.1, 0.1)`, speeds + uniform on `[-0.005, 0.005)`; the target uniform on the disc of radius 0.2, at rest |
//! | end | cut after 50 steps; never terminated |
//! | threshold | −3.75 |
//!
//! A step is 2 of the physics, 0.02 s.
//!
//! # Precision
//! As in Gymnasium the cost of control is computed in single precision.
//!
//! Source: Gymnasium's `reacher_v4.py`, `reacher_v5.py`.

use super::{
    About, MEMORY, ModelFile, Outcome, Sim, Task, difference, length, sum_of_squares, uniform_noise,
};
use pgrad_num::Stream;

/// Reacher.
#[derive(Clone, Debug, PartialEq)]
pub struct Reacher {
    /// Name with version.
    pub id: &'static str,
    /// Cost of a distance of 1 m.
    pub distance_weight: f64,
    /// Cost of a sum of squared torques of 1.
    pub ctrl_cost_weight: f32,
    /// Whether a step is paid for where it ended, not for where it began.
    pub reward_after_step: bool,
    /// Coordinates of fingertip − target that are seen.
    pub seen: usize,
}

impl Reacher {
    /// Version 5.
    pub const V5: Self = Self {
        id: "Reacher-v5",
        distance_weight: 1.0,
        ctrl_cost_weight: 1.0,
        reward_after_step: true,
        seen: 2,
    };
    /// Version 4.
    pub const V4: Self = Self { id: "Reacher-v4", reward_after_step: false, seen: 3, ..Self::V5 };
}

/// Fingertip − target.
fn gap(sim: &Sim) -> [f64; 3] {
    difference(sim.body(0), sim.body(1))
}

impl Task for Reacher {
    fn about(&self) -> About {
        About {
            id: self.id.into(),
            model: ModelFile::Gymnasium("reacher.xml"),
            bodies: vec!["fingertip".into(), "target".into()],
            frame_skip: 2,
            max_episode_steps: Some(50),
            reward_threshold: Some(-3.75),
            contact_forces: false,
        }
    }
    fn reset(&self, sim: &mut Sim, rng: &mut Stream) {
        let angles = sim.qpos().len() - 2;
        uniform_noise(&mut sim.qpos_mut()[..angles], 0.1, rng);
        let target = loop {
            let place = [rng.uniform_in(-0.2, 0.2), rng.uniform_in(-0.2, 0.2)];
            if length(&place) < 0.2 {
                break place;
            }
        };
        sim.qpos_mut()[angles..].copy_from_slice(&target);
        uniform_noise(&mut sim.qvel_mut()[..angles], 0.005, rng);
        sim.qvel_mut()[angles..].fill(0.0);
    }
    fn memory(&self, sim: &Sim) -> [f64; MEMORY] {
        let [x, y, z] = gap(sim);
        [x, y, z, 0.0, 0.0, 0.0]
    }
    fn outcome(&self, before: &[f64; MEMORY], sim: &Sim, action: &[f32]) -> Outcome {
        let distance = if self.reward_after_step { length(&gap(sim)) } else { length(&before[..3]) };
        let control = f64::from(self.ctrl_cost_weight * sum_of_squares(action));
        Outcome { reward: -distance * self.distance_weight - control, terminated: false }
    }
    fn observe(&self, sim: &Sim, obs: &mut Vec<f64>) {
        let angles = &sim.qpos()[..2];
        obs.extend(angles.iter().map(|a| a.cos()));
        obs.extend(angles.iter().map(|a| a.sin()));
        obs.extend_from_slice(&sim.qpos()[2..]);
        obs.extend_from_slice(&sim.qvel()[..2]);
        obs.extend_from_slice(&gap(sim)[..self.seen]);
    }
}
