//! HumanoidStandup-v4 and -v5: a human figure that lies on the floor gets up.
//!
//! | | |
//! |---|---|
//! | observation | as [`Humanoid`](super::Humanoid) of the same version |
//! | action | `Box(-0.4, 0.4, (17,), float32)`: torques |
//! | reward | `z/δt − 0.1 Σ aᵢ² − min(5·10⁻⁷ Σ fᵢ², 10) + 1`; `z` the height of the torso, `δt` a step of the physics, `f` the contact forces |
//! | first state | everything + uniform on `[-0.01, 0.01)` |
//! | end | cut after 1000 steps; never terminated |
//! | threshold | none |
//!
//! A step is 5 of the physics, 0.015 s. v4 differs only in the numbers of the observation that are always 0.
//!
//! Source: Gymnasium's `humanoidstandup_v4.py`, `humanoidstandup_v5.py`.

use super::{About, MEMORY, ModelFile, Outcome, Sim, Task, humanoid, sum_of_squares, uniform_noise};
use pgrad_num::Stream;

/// HumanoidStandup.
#[derive(Clone, Debug, PartialEq)]
pub struct HumanoidStandup {
    /// Name with version.
    pub id: &'static str,
    /// Reward for a height of 1 m, times the length of a step of the physics.
    pub height_reward_weight: f64,
    /// Cost of a sum of squared torques of 1.
    pub ctrl_cost_weight: f64,
    /// Cost of a sum of squared contact forces of 1.
    pub impact_cost_weight: f64,
    /// The cost of impact is at most this.
    pub impact_cost_limit: f64,
    /// Spread of the first state.
    pub reset_noise_scale: f64,
    /// Whether the numbers of the world and of the root, which are always 0, are seen.
    pub constant_numbers: bool,
}

impl HumanoidStandup {
    /// Version 5.
    pub const V5: Self = Self {
        id: "HumanoidStandup-v5",
        height_reward_weight: 1.0,
        ctrl_cost_weight: 0.1,
        impact_cost_weight: 0.5e-6,
        impact_cost_limit: 10.0,
        reset_noise_scale: 1e-2,
        constant_numbers: false,
    };
    /// Version 4.
    pub const V4: Self = Self { id: "HumanoidStandup-v4", constant_numbers: true, ..Self::V5 };
}

impl Task for HumanoidStandup {
    fn about(&self) -> About {
        About {
            id: self.id.into(),
            model: ModelFile::Gymnasium("humanoidstandup.xml"),
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
    fn outcome(&self, _: &[f64; MEMORY], sim: &Sim, _: &[f32]) -> Outcome {
        let height = self.height_reward_weight * (sim.qpos()[2] / sim.timestep());
        let control = self.ctrl_cost_weight * sum_of_squares(sim.ctrl());
        let forces = sum_of_squares(sim.contact_forces().as_flattened());
        let impact = (self.impact_cost_weight * forces).min(self.impact_cost_limit);
        Outcome { reward: height - control - impact + 1.0, terminated: false }
    }
    fn observe(&self, sim: &Sim, obs: &mut Vec<f64>) {
        humanoid::observe(sim, self.constant_numbers, obs);
    }
}
