//! The runner: the lowest floor that reads a clock, touches files or starts threads.
//!
//! - [`config`]: what to train, on what, with which settings; [`presets`] are known to work;
//! - [`mod@env`]: environments by name, native or from elsewhere;
//! - [`trainer`]: a method at work, without files, clock or terminal;
//! - [`driver`]: [`driver::train`] and [`driver::resume`], a trainer in a run folder;
//! - [`checkpoint`], [`storage`], [`tensors`], [`run_dir`]: what a run leaves on the disk, and how it
//!   survives crashes;
//! - [`metrics`]: what a run reports; [`actions`]: what is told of actions that are numbers;
//! - [`eval`], [`stats`]: how good a policy is, and how sure that is;
//! - [`mod@bench`]: how fast it is;
//! - [`memory`]: whether it fits;
//! - [`clock`]: the passing of time.
//!
//! **Must never know:** terminals, pictures, studies.

pub mod actions;
pub mod bench;
pub mod checkpoint;
pub mod clock;
pub mod config;
pub mod driver;
pub mod env;
pub mod eval;
pub mod memory;
pub mod metrics;
#[cfg(feature = "mujoco")]
pub mod mjcf;
pub mod presets;
pub mod run_dir;
pub mod stats;
pub mod storage;
pub mod tensors;
pub mod trainer;
