//! One file for each command.

pub(crate) mod bench;
pub(crate) mod check_env;
pub(crate) mod completions;
pub(crate) mod eval;
pub(crate) mod list;
pub(crate) mod plot;
pub(crate) mod show;
pub(crate) mod signals;
pub(crate) mod study;
pub(crate) mod train;
