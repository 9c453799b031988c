//! Declare a setting once: type, default, range, unit, source and help; everything else follows from it.
//!
//! - [`settings!`] declares a struct of settings, [`settings_like!`] one that differs from another in some
//!   defaults or conditions, [`choice!`] an enum of named alternatives;
//! - [`Settings`] is what the structs have in common: [`Settings::declarations`], `get`, `set`, `validate`;
//! - [`apply_toml`], [`apply_pair`] and [`apply_text`] lay one layer over another: defaults, then the preset,
//!   then a file, then the command line; nothing changes when anything is wrong, and every error says where,
//!   what came, what was expected and what was perhaps meant;
//! - [`check_given`] refuses what was given and does not apply: a setting may say `when` it does;
//! - [`to_toml`] writes the effective settings, [`reference_markdown`] the table of the book,
//!   [`reference_text`] the help of a terminal;
//! - [`check_declarations`] is the test of a registry; [`suggest`] is 'did you mean' for any list of names.
//!
//! ```
//! use pgrad_settings::{above, apply_pair, apply_toml, choice, settings, to_toml};
//!
//! choice! {
//!     /// How a step size changes over a run.
//!     pub enum Schedule {
//!         /// It stays the same.
//!         Constant = "constant",
//!         /// It falls in a straight line to zero.
//!         Linear = "linear",
//!     }
//! }
//! settings! {
//!     /// The rollout.
//!     pub struct RolloutSettings {
//!         /// Steps of each environment in an iteration (T). Raising it lowers the bias of advantages.
//!         n_steps: usize = 128, range: 1..=1_000_000, unit: "steps", source: "Schulman et al. 2017";
//!         /// Discount of what comes later.
//!         gamma: f64 = 0.99, range: 0.0..=1.0, source: "Schulman et al. 2017, table 5";
//!     }
//! }
//! settings! {
//!     /// The step.
//!     pub struct StepSettings {
//!         /// Step size of Adam.
//!         learning_rate: f64 = 2.5e-4, range: above(0.0);
//!         /// How the step size changes over the run.
//!         learning_rate_schedule: Schedule = Schedule::Linear;
//!         /// Units of each hidden layer.
//!         hidden: Vec<usize> = vec![64, 64], range: 1..=65_536, unit: "units";
//!         /// The epochs stop when the KL from the old policy exceeds this.
//!         target_kl: Option<f64> = None, range: above(0.0), unit: "nats";
//!     }
//! }
//!
//! let (mut rollout, mut step) = (RolloutSettings::default(), StepSettings::default());
//! apply_toml("gamma = 0.9\nhidden = [32]", "preset", &mut [&mut rollout, &mut step])?;
//! apply_pair("n_steps=1e3", "--set", &mut [&mut rollout, &mut step])?;
//! apply_pair("target_kl=0.02", "--set", &mut [&mut rollout, &mut step])?;
//! assert_eq!((rollout.gamma, rollout.n_steps, step.target_kl), (0.9, 1000, Some(0.02)));
//! assert_eq!(
//!     to_toml(&[&rollout, &step], false),
//!     "n_steps = 1000\ngamma = 0.9\nlearning_rate = 0.00025\nlearning_rate_schedule = \"linear\"\n\
//!      hidden = [32]\ntarget_kl = 0.02\n"
//! );
//!
//! let wrong = apply_toml("gamma = 1.5\nn_step = 1", "my.toml", &mut [&mut rollout, &mut step]).unwrap_err();
//! assert_eq!(
//!     wrong.to_string(),
//!     "my.toml:1: `gamma` takes a number in [0, 1], but got the number 1.5\n  \
//!      hint: the default is `gamma = 0.99`\n\
//!      my.toml:2: there is no setting `n_step`\n  \
//!      hint: did you mean `n_steps`?"
//! );
//! # Ok::<(), pgrad_settings::ConfigErrors>(())
//! ```
//!
//! **Must never know:** what a setting is for, files, terminals.

mod error;
mod kind;
mod layer;
mod range;
mod reference;
mod setting;
mod suggest;
mod value;

pub use error::{ConfigError, ConfigErrors, Place, SettingError};
pub use kind::{Alternative, FieldType, Kind, NoRange};
pub use layer::{Given, apply_pair, apply_text, apply_toml, check_given, read_key, to_toml};
pub use range::{FloatRange, IntRange, above};
pub use reference::{check_declarations, reference_markdown, reference_text};
pub use setting::{Condition, Setting, Settings, field_from, help_text, unknown};
pub use suggest::suggest;
pub use value::Value;
