//! What a process is told, so that it makes the environments that are wanted.

use crate::kwargs::Kwargs;
use crate::name::{Source, parse_name};
use crate::settings::{ActionMasks, GymSettings};
use pgrad_env::{MakeError, MakeErrorKind};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What a process needs to know to make environments.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    pub(crate) source: Source,
    /// Name as the source takes it.
    pub(crate) name: String,
    pub(crate) settings: GymSettings,
    kwargs: Kwargs,
    pub(crate) cores: usize,
    drawn: bool,
    /// Where action masks come from.
    pub(crate) masks: MaskSource,
}

/// Where the action masks of an environment come from, in the words of worker.py.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum MaskSource {
    /// The process finds out.
    Look,
    /// There are none, or they are not wanted.
    None,
    /// A method `action_masks()`.
    Method,
    /// `info["action_mask"]`.
    Info,
}

impl MaskSource {
    /// What Python calls it.
    pub(crate) fn python(self) -> Option<&'static str> {
        match self {
            Self::Look | Self::None => None,
            Self::Method => Some("action_masks()"),
            Self::Info => Some("info[\"action_mask\"]"),
        }
    }
}

impl Recipe {
    /// The time that a step, a reset or a `close` has.
    pub(crate) fn step(&self) -> Duration {
        Duration::from_secs_f64(self.settings.env_step_secs)
    }
    pub(crate) fn new(id: &str, settings: &GymSettings, drawn: bool) -> Result<Self, MakeError> {
        let (source, name) = parse_name(id)?;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let kwargs = Kwargs::parse(&settings.env_kwargs)?;
        if source == Source::EnvPool {
            let ours =
                ["num_envs", "batch_size", "num_threads", "seed", "env_seed", "env_type", "max_num_players"];
            if let Some(key) = ours.iter().find(|key| kwargs.has(key)) {
                let e = MakeError::new(
                    MakeErrorKind::Usage,
                    format!("`env_kwargs` has `{key}`, which pgrad sets itself"),
                );
                return Err(e.with_hint("`n_envs`, `seed` and `env_threads` are settings of the run"));
            }
        }
        let masks = match settings.action_masks {
            ActionMasks::Obey if source == Source::Gymnasium => MaskSource::Look,
            _ => MaskSource::None,
        };
        Ok(Self { source, name: name.to_owned(), settings: settings.clone(), kwargs, cores, drawn, masks })
    }
    /// What the process is told first, to make `n` environments.
    pub(crate) fn setup(&self, n: usize, pool: Option<&PoolPlan>) -> serde_json::Value {
        let mut setup = serde_json::json!({
            "id": self.name, "kwargs": self.kwargs.as_json(), "n": n, "drawn": self.drawn, "masks": self.masks,
            "parts": self.parts().collect::<Vec<_>>(),
        });
        if let Some(PoolPlan { seeds, threads, watched }) = pool {
            let threads = (*threads).min(2 * n);
            setup["pool"] = serde_json::json!({ "threads": threads, "seeds": seeds, "watched": watched });
        }
        setup
    }
    /// The parts of an observation that are used; none where all are.
    fn parts(&self) -> impl Iterator<Item = &str> {
        self.settings.obs_parts.split(',').map(str::trim).filter(|name| !name.is_empty())
    }
    /// The name, with its prefix.
    pub(crate) fn id(&self) -> String {
        let prefix = match self.source {
            Source::Gymnasium => crate::GYM_PREFIX,
            Source::EnvPool => crate::ENVPOOL_PREFIX,
        };
        format!("{prefix}{}", self.name)
    }
}

/// How the process of an EnvPool is to work.
pub(crate) struct PoolPlan {
    /// Two for each environment.
    pub(crate) seeds: Vec<i64>,
    pub(crate) threads: usize,
    /// Whether both sides look for each other's answers for a while before they sleep.
    pub(crate) watched: bool,
}
