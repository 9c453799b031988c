//! Concrete environments, one file each, native and vectorised over the batch.
//!
//! Each keeps its state in `f64`, as Gymnasium does, and agrees with Gymnasium step by step; only the random
//! numbers of the first states are another generator's. Tasks that Gymnasium does not have name their own source. [`make`] makes one by its name, [`REGISTRY`] lists
//! them. To add an environment, write its file and add its line to the registry.
//!
//! ```
//! use pgrad_env::{RandomActions, VecEnv};
//!
//! let mut envs = VecEnv::new(pgrad_envs::make("CartPole-v1", 8)?, 1, 0);
//! let mut random = RandomActions::new(&envs.spec().action, envs.len(), 1, 0);
//! envs.start()?;
//! while envs.finished().is_empty() {
//!     envs.step(random.draw())?;
//! }
//! assert!(envs.finished()[0].episode_return >= 1.0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Must never know:** learning, policies, files, clocks.

mod acrobot;
mod cart_pole;
mod continuous_grid_world;
mod degris_mountain_car;
mod degris_pendulum;
mod mountain_car;
mod mountain_car_continuous;
mod pendulum;
mod registry;
mod state;

pub use acrobot::Acrobot;
pub use cart_pole::CartPole;
pub use continuous_grid_world::ContinuousGridWorld;
pub use degris_mountain_car::DegrisMountainCar;
pub use degris_pendulum::DegrisPendulum;
pub use mountain_car::MountainCar;
pub use mountain_car_continuous::MountainCarContinuous;
pub use pendulum::Pendulum;
pub use registry::{EnvEntry, REGISTRY, UnknownEnv, find, make};
