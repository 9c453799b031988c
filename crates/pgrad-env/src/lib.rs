//! Environments: what an agent acts in.
//!
//! - [`Space`], [`ObsSpace`]: what actions and observations look like;
//! - [`Env`]: one environment, the trait that a user implements;
//! - [`BatchEnv`]: many copies of one environment in step, the trait that the native tasks implement;
//!   [`Each`] makes a `BatchEnv` of any `Env`;
//! - [`End`]: how a step ended: `Running`, `Terminated` or `Truncated`, never a `done`;
//! - [`VecEnv`]: a shard of environments with their random streams, time limits, automatic reset and
//!   episode statistics, all of which can be saved and restored;
//! - [`RandomActions`]: random actions of any space;
//! - [`TileCoded`]: a task whose observations are binary features, one tile of each of several tilings;
//! - [`Picture`]: what an environment looks like to a person;
//! - [`check_env`]: finds what is wrong with an environment;
//! - [`probe`]: tiny tasks with known answers.
//!
//! **Must never know:** learning, policies, files, clocks.

mod batch;
mod check;
mod env;
mod error;
mod picture;
pub mod probe;
mod random;
mod tiles;
mod vec_env;

pub use batch::{BatchEnv, BatchResult, Each, EnvMaker, spec_of};
pub use check::{
    Difference, Finding, Place, Role, Severity, check_batch_env, check_batch_env_while, check_env,
};
pub use env::{Action, Actions, End, Env, EnvSpec, Obs, Step};
pub use error::{EnvError, MakeError, MakeErrorKind};
pub use pgrad_space::{BoxSpace, Dtype, ObsSpace, Part, Space};
pub use picture::{Colour, Content, Drawing, Form, Picture, PictureError, Shape};
pub use random::RandomActions;
pub use tiles::{TILES_PREFIX, TileCoded, TileCoder, TileCoding, TileError};
pub use vec_env::{Episode, VecEnv};
