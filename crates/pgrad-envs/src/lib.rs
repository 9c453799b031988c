//! Concrete environments, one file each, native and vectorised over the batch.
//!
//! Each keeps its state in `f64`. Those that Gymnasium has agree with it step by step; only the random
//! numbers of the first states are another generator's. The others are the tasks of the papers, with known
//! answers; what a paper leaves open is said in the task's file. [`make`] makes one by its name, [`REGISTRY`]
//! lists them. To add an environment, write its file and add its line to the registry.
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
//! With the feature `mujoco` there are the MuJoCo tasks of Gymnasium as well, on the real library. They read
//! their model files, and nothing else here touches a file.
//!
//! **Must never know:** learning, policies, clocks.

mod acrobot;
mod barto_cart_pole;
mod cart_pole;
mod continuous_grid_world;
mod degris_mountain_car;
mod degris_pendulum;
mod kakade_lqg;
mod kakade_mdp;
pub mod minatar;
mod mountain_car;
mod mountain_car_continuous;
#[cfg(feature = "mujoco")]
pub mod mujoco;
mod no_velocity;
mod pendulum;
mod registry;
mod scenery;
mod short_corridor;
mod state;
mod t_maze;

pub use acrobot::Acrobot;
pub use barto_cart_pole::BartoCartPole;
pub use cart_pole::CartPole;
pub use continuous_grid_world::ContinuousGridWorld;
pub use degris_mountain_car::DegrisMountainCar;
pub use degris_pendulum::DegrisPendulum;
pub use kakade_lqg::KakadeLqg;
pub use kakade_mdp::KakadeMdp;
pub use mountain_car::MountainCar;
pub use mountain_car_continuous::MountainCarContinuous;
pub use no_velocity::NoVelocity;
pub use pendulum::Pendulum;
pub use registry::{
    EnvEntry, MakeByNameError, MissingFeature, REGISTRY, UnknownEnv, did_you_mean, find, make, nearest,
};
pub use short_corridor::ShortCorridor;
pub use t_maze::TMaze;
