//! Swimmer-v4 and -v5: a chain of three links swims in a viscous plane.
//!
//! | | |
//! |---|---|
//! | observation | positions without `x, y` (3), velocities (5) |
//! | action | `Box(-1.0, 1.0, (2,), float32)`: torques of the two joints |
//! | reward | `Δx/Δt − 0.0001 Σ aᵢ²` |
//! | first state | everything + uniform on `[-0.1, 0.1)` |
//! | end | cut after 1000 steps; never terminated |
//! | threshold | 360 |
//!
//! A step is 4 of the physics, 0.04 s. v4 and v5 are the same task.
//!
//! # Precision
//! As in Gymnasium the cost of control is computed in single precision.
//!
//! Source: Gymnasium's `swimmer_v4.py`, `swimmer_v5.py`.

use super::{About, MEMORY, ModelFile, Outcome, Sim, Task, sum_of_squares, uniform_noise};
use pgrad_num::Stream;

/// Swimmer.
#[derive(Clone, Debug, PartialEq)]
pub struct Swimmer {
    /// Name with version.
    pub id: &'static str,
    /// Reward for a speed of 1 m/s.
    pub forward_reward_weight: f64,
    /// Cost of a sum of squared torques of 1.
    pub ctrl_cost_weight: f32,
    /// Spread of the first state.
    pub reset_noise_scale: f64,
}

impl Swimmer {
    /// Version 5.
    pub const V5: Self =
        Self { id: "Swimmer-v5", forward_reward_weight: 1.0, ctrl_cost_weight: 1e-4, reset_noise_scale: 0.1 };
    /// Version 4: the same.
    pub const V4: Self = Self { id: "Swimmer-v4", ..Self::V5 };
}

impl Task for Swimmer {
    fn about(&self) -> About {
        About {
            id: self.id.into(),
            model: ModelFile::Gymnasium("swimmer.xml"),
            bodies: vec![],
            frame_skip: 4,
            max_episode_steps: Some(1000),
            reward_threshold: Some(360.0),
            contact_forces: false,
        }
    }
    fn reset(&self, sim: &mut Sim, rng: &mut Stream) {
        uniform_noise(sim.qpos_mut(), self.reset_noise_scale, rng);
        uniform_noise(sim.qvel_mut(), self.reset_noise_scale, rng);
    }
    fn memory(&self, sim: &Sim) -> [f64; MEMORY] {
        [sim.qpos()[0], 0.0, 0.0, 0.0, 0.0, 0.0]
    }
    fn outcome(&self, before: &[f64; MEMORY], sim: &Sim, action: &[f32]) -> Outcome {
        let speed = (sim.qpos()[0] - before[0]) / sim.dt();
        let control = f64::from(self.ctrl_cost_weight * sum_of_squares(action));
        Outcome { reward: self.forward_reward_weight * speed - control, terminated: false }
    }
    fn observe(&self, sim: &Sim, obs: &mut Vec<f64>) {
        obs.extend_from_slice(&sim.qpos()[2..]);
        obs.extend_from_slice(sim.qvel());
    }
}
