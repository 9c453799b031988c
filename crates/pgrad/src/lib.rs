//! Policy gradients from REINFORCE to PPO: fast, exact, resumable.
//!
//! This crate only re-exports what a user of the library needs; the floors below are documented in their own
//! crates. See `examples/custom_env.rs` for an environment of one's own, trained in some fifty lines,
//! `examples/trainer.rs` for a training loop of one's own, and `examples/use_policy.rs` for a trained policy
//! that is asked for actions.
//!
//! With `default-features = false` there is no training code: a [`Policy`] loads from bytes and acts.

pub use pgrad_env::{
    Action, BatchEnv, BoxSpace, Each, End, Env, EnvError, EnvSpec, Obs, Part, Space, Step, check_env,
};
pub use pgrad_model::{ActionValue, Policy, PolicyError};
pub use pgrad_num::Stream;

#[cfg(feature = "train")]
pub use pgrad_algos as algos;
#[cfg(feature = "studies")]
pub use pgrad_draw as draw;
#[cfg(feature = "train")]
pub use pgrad_envs as envs;
#[cfg(feature = "train")]
pub use pgrad_run as run;
#[cfg(feature = "train")]
pub use pgrad_run::{
    config::{RunConfig, env_maker},
    driver::{Event, Options, Progress, RunError, Summary, resume, resume_with, train},
    eval::{EvalOptions, Evaluation, evaluate},
    trainer::Trainer,
};
#[cfg(feature = "studies")]
pub use pgrad_study as study;
