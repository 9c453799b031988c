//! InvertedPendulum-v4 and -v5: a cart keeps a pole upright.
//!
//! | | |
//! |---|---|
//! | observation | place of the cart and angle of the pole, their speeds |
//! | action | `Box(-3.0, 3.0, (1,), float32)`: force on the cart |
//! | reward | 1 a step; in v5 not for the step that ends the episode |
//! | first state | everything + uniform on `[-0.01, 0.01)` |
//! | end | terminated when the angle leaves ±0.2, or a number is not finite; cut after 1000 steps |
//! | threshold | 950 |
//!
//! A step is 2 of the physics, 0.04 s.
//!
//! Source: Gymnasium's `inverted_pendulum_v4.py`, `inverted_pendulum_v5.py`.

use super::{About, MEMORY, ModelFile, Outcome, Sim, Task, uniform_noise};
use pgrad_num::Stream;

/// InvertedPendulum.
#[derive(Clone, Debug, PartialEq)]
pub struct InvertedPendulum {
    /// Name with version.
    pub id: &'static str,
    /// Whether the step that ends the episode is paid.
    pub reward_at_end: bool,
    /// Spread of the first state.
    pub reset_noise_scale: f64,
}

impl InvertedPendulum {
    /// Version 5.
    pub const V5: Self = Self { id: "InvertedPendulum-v5", reward_at_end: false, reset_noise_scale: 0.01 };
    /// Version 4.
    pub const V4: Self = Self { id: "InvertedPendulum-v4", reward_at_end: true, ..Self::V5 };
}

impl Task for InvertedPendulum {
    fn about(&self) -> About {
        About {
            id: self.id.into(),
            model: ModelFile::Gymnasium("inverted_pendulum.xml"),
            bodies: vec![],
            frame_skip: 2,
            max_episode_steps: Some(1000),
            reward_threshold: Some(950.0),
            contact_forces: false,
        }
    }
    fn reset(&self, sim: &mut Sim, rng: &mut Stream) {
        uniform_noise(sim.qpos_mut(), self.reset_noise_scale, rng);
        uniform_noise(sim.qvel_mut(), self.reset_noise_scale, rng);
    }
    fn outcome(&self, _: &[f64; MEMORY], sim: &Sim, _: &[f32]) -> Outcome {
        let finite = sim.qpos().iter().chain(sim.qvel()).all(|x| x.is_finite());
        let terminated = !finite || sim.qpos()[1].abs() > 0.2;
        let reward = if terminated && !self.reward_at_end { 0.0 } else { 1.0 };
        Outcome { reward, terminated }
    }
    fn observe(&self, sim: &Sim, obs: &mut Vec<f64>) {
        obs.extend_from_slice(sim.qpos());
        obs.extend_from_slice(sim.qvel());
    }
}
