//! InvertedDoublePendulum-v4 and -v5: a cart keeps two poles, one on the other, upright.
//!
//! | | |
//! |---|---|
//! | observation | place of the cart, sines and cosines of the two angles, velocities (3) and constraint forces (v4: 3, of which two are always 0; v5: 1), both cut to `[-10, 10]` |
//! | action | `Box(-1.0, 1.0, (1,), float32)`: force on the cart |
//! | reward | `10 − 0.01 x² − (y − 2)² − 0.001 ω₁² − 0.005 ω₂²`; `x, y` the tip's place. In v5 the 10 is not paid for the step that ends the episode |
//! | first state | positions + uniform on `[-0.1, 0.1)`, velocities + 0.1 × normal |
//! | end | terminated when the tip is at a height of 1 or less; cut after 1000 steps |
//! | threshold | 9100 |
//!
//! A step is 5 of the physics, 0.05 s.
//!
//! Source: Gymnasium's `inverted_double_pendulum_v4.py`, `inverted_double_pendulum_v5.py`.

use super::{About, MEMORY, ModelFile, Outcome, Sim, Task, normal_noise, uniform_noise};
use pgrad_num::Stream;

/// InvertedDoublePendulum.
#[derive(Clone, Debug, PartialEq)]
pub struct InvertedDoublePendulum {
    /// Name with version.
    pub id: &'static str,
    /// Reward of a step for being upright.
    pub healthy_reward: f64,
    /// Whether the step that ends the episode is paid for that.
    pub healthy_reward_at_end: bool,
    /// Constraint forces that are seen.
    pub forces: usize,
    /// Spread of the first state.
    pub reset_noise_scale: f64,
}

impl InvertedDoublePendulum {
    /// Version 5.
    pub const V5: Self = Self {
        id: "InvertedDoublePendulum-v5",
        healthy_reward: 10.0,
        healthy_reward_at_end: false,
        forces: 1,
        reset_noise_scale: 0.1,
    };
    /// Version 4.
    pub const V4: Self =
        Self { id: "InvertedDoublePendulum-v4", healthy_reward_at_end: true, forces: 3, ..Self::V5 };
}

impl Task for InvertedDoublePendulum {
    fn about(&self) -> About {
        About {
            id: self.id.into(),
            model: ModelFile::Gymnasium("inverted_double_pendulum.xml"),
            bodies: vec![],
            frame_skip: 5,
            max_episode_steps: Some(1000),
            reward_threshold: Some(9100.0),
            contact_forces: false,
        }
    }
    fn reset(&self, sim: &mut Sim, rng: &mut Stream) {
        uniform_noise(sim.qpos_mut(), self.reset_noise_scale, rng);
        normal_noise(sim.qvel_mut(), self.reset_noise_scale, rng);
    }
    fn outcome(&self, _: &[f64; MEMORY], sim: &Sim, _: &[f32]) -> Outcome {
        let [x, _, y] = sim.site(0);
        let (v1, v2) = (sim.qvel()[1], sim.qvel()[2]);
        let terminated = y <= 1.0;
        let health = if terminated && !self.healthy_reward_at_end { 0.0 } else { self.healthy_reward };
        let distance = 0.01 * x * x + (y - 2.0) * (y - 2.0);
        let speed = 1e-3 * v1 * v1 + 5e-3 * v2 * v2;
        Outcome { reward: health - distance - speed, terminated }
    }
    fn observe(&self, sim: &Sim, obs: &mut Vec<f64>) {
        let angles = &sim.qpos()[1..];
        let cut = |x: &f64| x.clamp(-10.0, 10.0);
        obs.push(sim.qpos()[0]);
        obs.extend(angles.iter().map(|a| a.sin()));
        obs.extend(angles.iter().map(|a| a.cos()));
        obs.extend(sim.qvel().iter().map(cut));
        obs.extend(sim.constraint_forces()[..self.forces].iter().map(cut));
    }
}
