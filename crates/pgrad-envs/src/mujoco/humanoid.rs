//! Humanoid-v4 and -v5: a human figure of seventeen actuated joints walks forward without falling.
//!
//! | | |
//! |---|---|
//! | observation | positions without `x, y` (22), velocities (23), then of every body inertia (10 each), velocity (6 each), of every degree of freedom the actuator's force, and of every body the contact force (6 each) |
//! | action | `Box(-0.4, 0.4, (17,), float32)`: torques |
//! | reward | `1.25 Δx/Δt` of the centre of mass `+ healthy − 0.1 Σ aᵢ²`, in v5 `− min(5·10⁻⁷ Σ fᵢ², 10)` over the contact forces |
//! | healthy | height within (1, 2) |
//! | first state | everything + uniform on `[-0.01, 0.01)` |
//! | end | terminated when not healthy; cut after 1000 steps |
//! | threshold | none |
//!
//! A step is 5 of the physics, 0.015 s. In v4 the world counts as a body and the root's six degrees of
//! freedom are among the forces: numbers that are always 0, 376 in all. v5 leaves them out, 348. v4 has no
//! cost of contact, and pays the step that ends an episode for health too.
//!
//! Source: Gymnasium's `humanoid_v4.py`, `humanoid_v5.py`.

use super::{About, MEMORY, ModelFile, Outcome, Sim, Task, sum_of_squares, uniform_noise};
use pgrad_num::Stream;

/// Humanoid.
#[derive(Clone, Debug, PartialEq)]
pub struct Humanoid {
    /// Name with version.
    pub id: &'static str,
    /// Reward for a speed of 1 m/s.
    pub forward_reward_weight: f64,
    /// Cost of a sum of squared torques of 1.
    pub ctrl_cost_weight: f64,
    /// Cost of a sum of squared contact forces of 1.
    pub contact_cost_weight: f64,
    /// The cost of contact is at most this.
    pub contact_cost_limit: f64,
    /// Reward of a step for being healthy.
    pub healthy_reward: f64,
    /// Whether the step that ends the episode is paid for health.
    pub healthy_reward_at_end: bool,
    /// Heights between which it is healthy.
    pub healthy_z: (f64, f64),
    /// Spread of the first state.
    pub reset_noise_scale: f64,
    /// Whether the numbers of the world and of the root, which are always 0, are seen.
    pub constant_numbers: bool,
}

impl Humanoid {
    /// Version 5.
    pub const V5: Self = Self {
        id: "Humanoid-v5",
        forward_reward_weight: 1.25,
        ctrl_cost_weight: 0.1,
        contact_cost_weight: 5e-7,
        contact_cost_limit: 10.0,
        healthy_reward: 5.0,
        healthy_reward_at_end: false,
        healthy_z: (1.0, 2.0),
        reset_noise_scale: 1e-2,
        constant_numbers: false,
    };
    /// Version 4.
    pub const V4: Self = Self {
        id: "Humanoid-v4",
        contact_cost_weight: 0.0,
        healthy_reward_at_end: true,
        constant_numbers: true,
        ..Self::V5
    };
}

/// What both humanoids see.
pub(super) fn observe(sim: &Sim, constant_numbers: bool, obs: &mut Vec<f64>) {
    let (bodies, freedoms) = if constant_numbers { (0, 0) } else { (1, 6) };
    obs.extend_from_slice(&sim.qpos()[2..]);
    obs.extend_from_slice(sim.qvel());
    obs.extend_from_slice(sim.inertias()[bodies..].as_flattened());
    obs.extend_from_slice(sim.body_velocities()[bodies..].as_flattened());
    obs.extend_from_slice(&sim.actuator_forces()[freedoms..]);
    obs.extend_from_slice(sim.contact_forces()[bodies..].as_flattened());
}

impl Task for Humanoid {
    fn about(&self) -> About {
        About {
            id: self.id.into(),
            model: ModelFile::Gymnasium("humanoid.xml"),
            bodies: vec![],
            frame_skip: 5,
            max_episode_steps: Some(1000),
            reward_threshold: None,
            contact_forces: true,
        }
    }
    fn reset(&self, sim: &mut Sim, rng: &mut Stream) {
        uniform_noise(sim.qpos_mut(), self.reset_noise_scale, rng);
        uniform_noise(sim.qvel_mut(), self.reset_noise_scale, rng);
    }
    fn memory(&self, sim: &Sim) -> [f64; MEMORY] {
        [sim.mass_centre_x(), 0.0, 0.0, 0.0, 0.0, 0.0]
    }
    fn outcome(&self, before: &[f64; MEMORY], sim: &Sim, _: &[f32]) -> Outcome {
        let z = sim.qpos()[2];
        let healthy = self.healthy_z.0 < z && z < self.healthy_z.1;
        let speed = (sim.mass_centre_x() - before[0]) / sim.dt();
        let health = if healthy || self.healthy_reward_at_end { self.healthy_reward } else { 0.0 };
        let control = self.ctrl_cost_weight * sum_of_squares(sim.ctrl());
        let forces = sum_of_squares(sim.contact_forces().as_flattened());
        let contact = (self.contact_cost_weight * forces).min(self.contact_cost_limit);
        let reward = self.forward_reward_weight * speed + health - (control + contact);
        Outcome { reward, terminated: !healthy }
    }
    fn observe(&self, sim: &Sim, obs: &mut Vec<f64>) {
        observe(sim, self.constant_numbers, obs);
    }
}
