//! Names, and what is told: the same on every system.

use pgrad_env::{MakeError, MakeErrorKind};

/// What the names of Gymnasium's environments begin with.
pub const GYM_PREFIX: &str = "gym:";
/// What the names of EnvPool's environments begin with.
pub const ENVPOOL_PREFIX: &str = "envpool:";

/// Where an environment comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// `gym:[MODULE:]ID`, as Gymnasium takes it.
    Gymnasium,
    /// `envpool:ID`.
    EnvPool,
}

/// Whether [`Gym::open`](crate::Gym::open) knows such a name.
///
/// # Errors
/// When it cannot be the name of an environment.
pub fn check_name(id: &str) -> Result<(), MakeError> {
    parse_name(id).map(drop)
}

/// Where the environment is to come from, and its name there.
pub(crate) fn parse_name(id: &str) -> Result<(Source, &str), MakeError> {
    let plain = |s: &str| !s.is_empty() && s.chars().all(|c| c.is_alphanumeric() || "._-/".contains(c));
    let usage = |of: &str, form: &str| {
        MakeError::new(MakeErrorKind::Usage, format!("`{id}` is not a valid {of} environment name"))
            .with_hint(form)
    };
    if let Some(name) = id.strip_prefix(ENVPOOL_PREFIX) {
        if plain(name) {
            return Ok((Source::EnvPool, name));
        }
        return Err(usage("EnvPool", "`envpool:ID`, as in `envpool:CartPole-v1`"));
    }
    let name = id.strip_prefix(GYM_PREFIX).unwrap_or(id);
    let (module, own) = name.split_once(':').map_or((None, name), |(module, own)| (Some(module), own));
    if module.is_none_or(plain) && plain(own) {
        return Ok((Source::Gymnasium, name));
    }
    let form = "`gym:ID`, or `gym:MODULE:ID` where a module registers it, as in `gym:CartPole-v1`";
    Err(usage("Gymnasium", form))
}

/// What there is to tell of the environments of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct News {
    /// Lines for whoever watches.
    pub notices: Vec<String>,
    /// Numbers for the metrics.
    pub metrics: Vec<(&'static str, f64)>,
}
