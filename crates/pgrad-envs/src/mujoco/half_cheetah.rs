//! HalfCheetah-v4 and -v5: a flat cheetah of seven links runs as fast as it can.
//!
//! | | |
//! |---|---|
//! | observation | positions without `x` (8), velocities (9) |
//! | action | `Box(-1.0, 1.0, (6,), float32)`: torques of the six joints |
//! | reward | `Δx/Δt − 0.1 Σ aᵢ²` |
//! | first state | positions + uniform on `[-0.1, 0.1)`, velocities + 0.1 × normal |
//! | end | cut after 1000 steps; never terminated |
//! | threshold | 4800 |
//!
//! A step is 5 of the physics, 0.05 s. v4 and v5 are the same task.
//!
//! # Precision
//! As in Gymnasium the cost of control is computed in single precision.
//!
//! Source: Gymnasium's `half_cheetah_v4.py`, `half_cheetah_v5.py`.

use super::{About, MEMORY, ModelFile, Outcome, Sim, Task, normal_noise, sum_of_squares, uniform_noise};
use pgrad_num::Stream;

/// HalfCheetah.
#[derive(Clone, Debug, PartialEq)]
pub struct HalfCheetah {
    /// Name with version.
    pub id: &'static str,
    /// Reward for a speed of 1 m/s.
    pub forward_reward_weight: f64,
    /// Cost of a sum of squared torques of 1.
    pub ctrl_cost_weight: f32,
    /// Spread of the first state.
    pub reset_noise_scale: f64,
}

impl HalfCheetah {
    /// Version 5.
    pub const V5: Self = Self {
        id: "HalfCheetah-v5",
        forward_reward_weight: 1.0,
        ctrl_cost_weight: 0.1,
        reset_noise_scale: 0.1,
    };
    /// Version 4: the same.
    pub const V4: Self = Self { id: "HalfCheetah-v4", ..Self::V5 };
}

impl Task for HalfCheetah {
    fn about(&self) -> About {
        About {
            id: self.id.into(),
            model: ModelFile::Gymnasium("half_cheetah.xml"),
            bodies: vec![],
            frame_skip: 5,
            max_episode_steps: Some(1000),
            reward_threshold: Some(4800.0),
            contact_forces: false,
        }
    }
    fn reset(&self, sim: &mut Sim, rng: &mut Stream) {
        uniform_noise(sim.qpos_mut(), self.reset_noise_scale, rng);
        normal_noise(sim.qvel_mut(), self.reset_noise_scale, rng);
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
        obs.extend_from_slice(&sim.qpos()[1..]);
        obs.extend_from_slice(sim.qvel());
    }
}
