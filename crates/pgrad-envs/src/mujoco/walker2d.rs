//! Walker2d-v4 and -v5: two flat legs of six joints walk forward without falling.
//!
//! | | |
//! |---|---|
//! | observation | positions without `x` (8), velocities (9) cut to `[-10, 10]` |
//! | action | `Box(-1.0, 1.0, (6,), float32)`: torques of the six joints |
//! | reward | `Δx/Δt + healthy − 0.001 Σ aᵢ²` |
//! | healthy | height within (0.8, 2), angle within ±1 |
//! | first state | everything + uniform on `[-0.005, 0.005)` |
//! | end | terminated when not healthy; cut after 1000 steps |
//! | threshold | none |
//!
//! A step is 4 of the physics, 0.008 s. In v4 the step that ends an episode is paid for health too, in v5 it
//! is not; and v5 has a model of its own, in which both feet rub alike.
//!
//! # Precision
//! As in Gymnasium the cost of control is computed in single precision.
//!
//! Source: Gymnasium's `walker2d_v4.py`, `walker2d_v5.py`.

use super::{About, MEMORY, ModelFile, Outcome, Sim, Task, sum_of_squares, uniform_noise};
use pgrad_num::Stream;

/// Walker2d.
#[derive(Clone, Debug, PartialEq)]
pub struct Walker2d {
    /// Name with version.
    pub id: &'static str,
    /// File of the model.
    pub model: &'static str,
    /// Reward for a speed of 1 m/s.
    pub forward_reward_weight: f64,
    /// Cost of a sum of squared torques of 1.
    pub ctrl_cost_weight: f32,
    /// Reward of a step for being healthy.
    pub healthy_reward: f64,
    /// Whether the step that ends the episode is paid for health.
    pub healthy_reward_at_end: bool,
    /// Heights between which it is healthy.
    pub healthy_z: (f64, f64),
    /// Greatest angle to either side that is healthy.
    pub healthy_angle: f64,
    /// Spread of the first state.
    pub reset_noise_scale: f64,
}

impl Walker2d {
    /// Version 5.
    pub const V5: Self = Self {
        id: "Walker2d-v5",
        model: "walker2d_v5.xml",
        forward_reward_weight: 1.0,
        ctrl_cost_weight: 1e-3,
        healthy_reward: 1.0,
        healthy_reward_at_end: false,
        healthy_z: (0.8, 2.0),
        healthy_angle: 1.0,
        reset_noise_scale: 5e-3,
    };
    /// Version 4.
    pub const V4: Self =
        Self { id: "Walker2d-v4", model: "walker2d.xml", healthy_reward_at_end: true, ..Self::V5 };
}

impl Task for Walker2d {
    fn about(&self) -> About {
        About {
            id: self.id.into(),
            model: ModelFile::Gymnasium(self.model),
            bodies: vec![],
            frame_skip: 4,
            max_episode_steps: Some(1000),
            reward_threshold: None,
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
        let (z, angle) = (sim.qpos()[1], sim.qpos()[2]);
        let healthy = self.healthy_z.0 < z && z < self.healthy_z.1 && angle.abs() < self.healthy_angle;
        let speed = (sim.qpos()[0] - before[0]) / sim.dt();
        let health = if healthy || self.healthy_reward_at_end { self.healthy_reward } else { 0.0 };
        let control = f64::from(self.ctrl_cost_weight * sum_of_squares(action));
        Outcome { reward: self.forward_reward_weight * speed + health - control, terminated: !healthy }
    }
    fn observe(&self, sim: &Sim, obs: &mut Vec<f64>) {
        obs.extend_from_slice(&sim.qpos()[1..]);
        obs.extend(sim.qvel().iter().map(|v| v.clamp(-10.0, 10.0)));
    }
}
