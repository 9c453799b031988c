//! Names, and what is told: the same on every system.

use pgrad_env::{MakeError, MakeErrorKind};

/// What the names begin with.
pub const GYM_PREFIX: &str = "gym:";

/// The name behind the prefix, as Gymnasium takes it: `ID` or `MODULE:ID`.
///
/// # Errors
/// When it cannot be one.
pub fn check_name(id: &str) -> Result<&str, MakeError> {
    let name = id.strip_prefix(GYM_PREFIX).unwrap_or(id);
    let module_and_id = name.split_once(':').map_or((None, name), |(module, id)| (Some(module), id));
    let plain = |s: &str| !s.is_empty() && s.chars().all(|c| c.is_alphanumeric() || "._-/".contains(c));
    if module_and_id.0.is_none_or(plain) && plain(module_and_id.1) {
        return Ok(name);
    }
    Err(MakeError::new(
        MakeErrorKind::Usage,
        format!("`{id}` cannot be the name of an environment of Gymnasium"),
    )
    .with_hint("`gym:ID`, or `gym:MODULE:ID` where a module registers it, as in `gym:CartPole-v1`"))
}

/// What there is to tell of the environments of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct News {
    /// Lines for whoever watches.
    pub notices: Vec<String>,
    /// Numbers for the metrics.
    pub metrics: Vec<(&'static str, f64)>,
}
