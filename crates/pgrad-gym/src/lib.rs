//! Any environment of Gymnasium, or of EnvPool, in Python processes that are watched.
//!
//! - [`Gym`]: an environment by its name, looked at and ready to be made in batches;
//! - [`GymSettings`]: which Python, how many processes, deadlines, and what to do about failures.
//!
//! A batch has some worker processes, each with several environments, or one with an EnvPool; `worker.py` is
//! what they run. Actions, observations, rewards and endings lie in shared memory, and one byte over a socket
//! wakes the other side. Every answer is waited for with a deadline, and a process that dies is found by its
//! descriptor. Everything that an environment returns is looked at before it is learnt from: the worker
//! compares shapes and types, which only it can, and this side the numbers.
//!
//! This crate starts processes and reads the monotonic clock for its deadlines, which no crate below does.
//! What is learnt from depends on neither, but for what a deadline ends.
//!
//! **Must never know:** learning, policies, files.
//!
//! Linux only: [`Gym::open`] says so elsewhere.

#[cfg(target_os = "linux")]
mod batch;
#[cfg(target_os = "linux")]
mod context;
#[cfg(not(target_os = "linux"))]
mod elsewhere;
mod known;
#[cfg(target_os = "linux")]
mod kwargs;
#[cfg(target_os = "linux")]
mod layout;
#[cfg(target_os = "linux")]
mod monitor;
mod name;
#[cfg(target_os = "linux")]
mod open;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod recipe;
mod settings;
#[cfg(target_os = "linux")]
mod shared;
#[cfg(target_os = "linux")]
mod spaces;
#[cfg(target_os = "linux")]
mod turns;

#[cfg(not(target_os = "linux"))]
pub use elsewhere::Gym;
pub use known::{IDS, registered};
pub use name::{ENVPOOL_PREFIX, GYM_PREFIX, News, check_name};
#[cfg(target_os = "linux")]
pub use open::Gym;
pub use settings::{ActionMasks, GymSettings, OfEnvPool, OfGymnasium, OnEnvError, OnOutOfBounds};
