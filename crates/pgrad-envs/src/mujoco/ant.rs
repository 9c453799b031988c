//! Ant-v4 and -v5: a body on four legs of two joints walks forward.
//!
//! | | |
//! |---|---|
//! | observation | positions without `x, y` (13), velocities (14); v5 also the contact forces on every body but the world (78), cut to `[-1, 1]` |
//! | action | `Box(-1.0, 1.0, (8,), float32)`: torques of the eight joints |
//! | reward | `Δx/Δt` of the torso `+ healthy − 0.5 Σ aᵢ²`, in v5 `− 0.0005 Σ fᵢ²` over the cut contact forces |
//! | healthy | height within [0.2, 1], all numbers of the state finite |
//! | first state | positions + uniform on `[-0.1, 0.1)`, velocities + 0.1 × normal |
//! | end | terminated when not healthy; cut after 1000 steps |
//! | threshold | 6000 |
//!
//! A step is 5 of the physics, 0.05 s. v4 leaves out the contact forces, and pays the step that ends an
//! episode for health too.
//!
//! # Precision
//! As in Gymnasium the cost of control is computed in single precision.
//!
//! Source: Gymnasium's `ant_v4.py`, `ant_v5.py`.

use super::{About, MEMORY, ModelFile, Outcome, Sim, Task, normal_noise, sum_of_squares, uniform_noise};
use pgrad_num::Stream;

/// Ant.
#[derive(Clone, Debug, PartialEq)]
pub struct Ant {
    /// Name with version.
    pub id: &'static str,
    /// Reward for a speed of 1 m/s.
    pub forward_reward_weight: f64,
    /// Cost of a sum of squared torques of 1.
    pub ctrl_cost_weight: f32,
    /// Cost of a sum of squared contact forces of 1.
    pub contact_cost_weight: f64,
    /// Whether contact forces are seen and cost.
    pub contact_forces: bool,
    /// Contact forces are cut to this size.
    pub contact_force_limit: f64,
    /// Reward of a step for being healthy.
    pub healthy_reward: f64,
    /// Whether the step that ends the episode is paid for health.
    pub healthy_reward_at_end: bool,
    /// Least and greatest healthy height.
    pub healthy_z: (f64, f64),
    /// Spread of the first state.
    pub reset_noise_scale: f64,
}

impl Ant {
    /// Version 5.
    pub const V5: Self = Self {
        id: "Ant-v5",
        forward_reward_weight: 1.0,
        ctrl_cost_weight: 0.5,
        contact_cost_weight: 5e-4,
        contact_forces: true,
        contact_force_limit: 1.0,
        healthy_reward: 1.0,
        healthy_reward_at_end: false,
        healthy_z: (0.2, 1.0),
        reset_noise_scale: 0.1,
    };
    /// Version 4.
    pub const V4: Self =
        Self { id: "Ant-v4", contact_forces: false, healthy_reward_at_end: true, ..Self::V5 };

    fn cut(&self, force: f64) -> f64 {
        force.clamp(-self.contact_force_limit, self.contact_force_limit)
    }
}

impl Task for Ant {
    fn about(&self) -> About {
        About {
            id: self.id.into(),
            model: ModelFile::Gymnasium("ant.xml"),
            bodies: vec!["torso".into()],
            frame_skip: 5,
            max_episode_steps: Some(1000),
            reward_threshold: Some(6000.0),
            contact_forces: self.contact_forces,
        }
    }
    fn reset(&self, sim: &mut Sim, rng: &mut Stream) {
        uniform_noise(sim.qpos_mut(), self.reset_noise_scale, rng);
        normal_noise(sim.qvel_mut(), self.reset_noise_scale, rng);
    }
    fn memory(&self, sim: &Sim) -> [f64; MEMORY] {
        [sim.body(0)[0], 0.0, 0.0, 0.0, 0.0, 0.0]
    }
    fn outcome(&self, before: &[f64; MEMORY], sim: &Sim, action: &[f32]) -> Outcome {
        let z = sim.qpos()[2];
        let finite = sim.qpos().iter().chain(sim.qvel()).all(|x| x.is_finite());
        let healthy = finite && self.healthy_z.0 <= z && z <= self.healthy_z.1;
        let speed = (sim.body(0)[0] - before[0]) / sim.dt();
        let health = if healthy || self.healthy_reward_at_end { self.healthy_reward } else { 0.0 };
        let control = f64::from(self.ctrl_cost_weight * sum_of_squares(action));
        let contact = if self.contact_forces {
            let squares = sim.contact_forces().as_flattened().iter().map(|f| self.cut(*f).powi(2));
            self.contact_cost_weight * squares.sum::<f64>()
        } else {
            0.0
        };
        let reward = self.forward_reward_weight * speed + health - (control + contact);
        Outcome { reward, terminated: !healthy }
    }
    fn observe(&self, sim: &Sim, obs: &mut Vec<f64>) {
        obs.extend_from_slice(&sim.qpos()[2..]);
        obs.extend_from_slice(sim.qvel());
        if self.contact_forces {
            obs.extend(sim.contact_forces()[1..].as_flattened().iter().map(|f| self.cut(*f)));
        }
    }
}
