//! Pusher-v4 and -v5: an arm of seven joints pushes a cylinder to a goal.
//!
//! | | |
//! |---|---|
//! | observation | angles (7), their speeds (7), places of the fingertip, the cylinder and the goal (9) |
//! | action | `Box(-2.0, 2.0, (7,), float32)`: torques |
//! | reward | `−0.5 ‖cylinder − fingertip‖ − ‖cylinder − goal‖ − 0.1 Σ aᵢ²`; v4 takes the places before the step, v5 those after it |
//! | first state | the cylinder uniform on `[-0.3, 0) × [-0.2, 0.2)`, further than 0.17 from the goal; angles at 0; their speeds + uniform on `[-0.005, 0.005)` |
//! | end | cut after 100 steps; never terminated |
//! | threshold | 0 |
//!
//! A step is 5 of the physics, 0.05 s. v5 has a model of its own, in which the cylinder weighs what it did
//! before MuJoCo 3. Gymnasium refuses to make v4 with MuJoCo 3, where its cylinder is too heavy; here it can
//! be made, and is what Gymnasium's file says on this library.
//!
//! # Precision
//! As in Gymnasium the cost of control is computed in single precision.
//!
//! Source: Gymnasium's `pusher_v4.py`, `pusher_v5.py`.

use super::{
    About, MEMORY, ModelFile, Outcome, Sim, Task, difference, length, sum_of_squares, uniform_noise,
};
use pgrad_num::Stream;

/// Pusher.
#[derive(Clone, Debug, PartialEq)]
pub struct Pusher {
    /// Name with version.
    pub id: &'static str,
    /// File of the model.
    pub model: &'static str,
    /// Cost of a distance of 1 m between cylinder and fingertip.
    pub near_weight: f64,
    /// Cost of a distance of 1 m between cylinder and goal.
    pub distance_weight: f64,
    /// Cost of a sum of squared torques of 1.
    pub ctrl_cost_weight: f32,
    /// Whether a step is paid for where it ended, not for where it began.
    pub reward_after_step: bool,
}

impl Pusher {
    /// Version 5.
    pub const V5: Self = Self {
        id: "Pusher-v5",
        model: "pusher_v5.xml",
        near_weight: 0.5,
        distance_weight: 1.0,
        ctrl_cost_weight: 0.1,
        reward_after_step: true,
    };
    /// Version 4.
    pub const V4: Self = Self { id: "Pusher-v4", model: "pusher.xml", reward_after_step: false, ..Self::V5 };
}

const FINGERTIP: usize = 0;
const CYLINDER: usize = 1;
const GOAL: usize = 2;

impl Task for Pusher {
    fn about(&self) -> About {
        About {
            id: self.id.into(),
            model: ModelFile::Gymnasium(self.model),
            bodies: vec!["tips_arm".into(), "object".into(), "goal".into()],
            frame_skip: 5,
            max_episode_steps: Some(100),
            reward_threshold: Some(0.0),
            contact_forces: false,
        }
    }
    fn reset(&self, sim: &mut Sim, rng: &mut Stream) {
        let cylinder = loop {
            let place = [rng.uniform_in(-0.3, 0.0), rng.uniform_in(-0.2, 0.2)];
            if length(&place) > 0.17 {
                break place;
            }
        };
        let qpos = sim.qpos_mut();
        let n = qpos.len();
        qpos[n - 4..n - 2].copy_from_slice(&cylinder);
        qpos[n - 2..].fill(0.0);
        let qvel = sim.qvel_mut();
        let n = qvel.len();
        uniform_noise(&mut qvel[..n - 4], 0.005, rng);
        qvel[n - 4..].fill(0.0);
    }
    fn memory(&self, sim: &Sim) -> [f64; MEMORY] {
        let near = difference(sim.body(CYLINDER), sim.body(FINGERTIP));
        let far = difference(sim.body(CYLINDER), sim.body(GOAL));
        [near[0], near[1], near[2], far[0], far[1], far[2]]
    }
    fn outcome(&self, before: &[f64; MEMORY], sim: &Sim, action: &[f32]) -> Outcome {
        let gaps = if self.reward_after_step { &self.memory(sim) } else { before };
        let (near, far) = (length(&gaps[..3]), length(&gaps[3..]));
        let control = f64::from(self.ctrl_cost_weight * sum_of_squares(action));
        let reward = -far * self.distance_weight - control - near * self.near_weight;
        Outcome { reward, terminated: false }
    }
    fn observe(&self, sim: &Sim, obs: &mut Vec<f64>) {
        obs.extend_from_slice(&sim.qpos()[..7]);
        obs.extend_from_slice(&sim.qvel()[..7]);
        for body in [FINGERTIP, CYLINDER, GOAL] {
            obs.extend_from_slice(&sim.body(body));
        }
    }
}
