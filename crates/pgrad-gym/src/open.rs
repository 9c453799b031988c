//! Gymnasium's environments by name.

use crate::batch::GymBatch;
use crate::known::{package_of, pip_of};
use crate::monitor::Monitor;
use crate::name::{News, Source, parse_name};
use crate::process::{StartError, Starting, indented};
use crate::settings::GymSettings;
use crate::spaces::Spaces;
use pgrad_env::{BatchEnv, EnvSpec, MakeError, MakeErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// What all batches of a run share.
pub(crate) struct Context {
    pub(crate) recipe: Recipe,
    /// Batches that there are.
    pub(crate) batches: AtomicUsize,
    pub(crate) spaces: Spaces,
    pub(crate) spec: EnvSpec,
    pub(crate) monitor: Monitor,
}

/// What a process needs to know to make environments.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    pub(crate) source: Source,
    /// Name as the source takes it.
    pub(crate) name: String,
    pub(crate) settings: GymSettings,
    kwargs: serde_json::Value,
    cores: usize,
    drawn: bool,
}

impl Recipe {
    /// The time that a step, a reset or a `close` has.
    pub(crate) fn step(&self) -> Duration {
        Duration::from_secs_f64(self.settings.env_step_secs)
    }
    fn new(id: &str, settings: &GymSettings, drawn: bool) -> Result<Self, MakeError> {
        let (source, name) = parse_name(id)?;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let kwargs = kwargs(&settings.env_kwargs)?;
        if source == Source::EnvPool {
            let ours =
                ["num_envs", "batch_size", "num_threads", "seed", "env_seed", "env_type", "max_num_players"];
            if let Some(key) = ours.iter().find(|key| kwargs.get(key).is_some()) {
                let e = MakeError::new(
                    MakeErrorKind::Usage,
                    format!("`env_kwargs` has `{key}`, which pgrad sets itself"),
                );
                return Err(e.with_hint("`n_envs`, `seed` and `env_threads` are settings of the run"));
            }
        }
        Ok(Self { source, name: name.to_owned(), settings: settings.clone(), kwargs, cores, drawn })
    }
    /// What the process is told first, to make `n` environments.
    pub(crate) fn setup(&self, n: usize, pool: Option<&PoolPlan>) -> serde_json::Value {
        let mut setup =
            serde_json::json!({ "id": self.name, "kwargs": self.kwargs, "n": n, "drawn": self.drawn });
        if let Some(PoolPlan { seeds, threads, watched }) = pool {
            let threads = (*threads).min(2 * n);
            setup["pool"] = serde_json::json!({ "threads": threads, "seeds": seeds, "watched": watched });
        }
        setup
    }
    /// The name, with its prefix.
    fn id(&self) -> String {
        let prefix = match self.source {
            Source::Gymnasium => crate::GYM_PREFIX,
            Source::EnvPool => crate::ENVPOOL_PREFIX,
        };
        format!("{prefix}{}", self.name)
    }
}

/// An environment of Gymnasium or EnvPool, looked at and ready to be made.
pub struct Gym {
    context: Arc<Context>,
    limit: Option<u64>,
    versions: String,
}

impl std::fmt::Debug for Gym {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gym").field("spec", &self.context.spec).finish_non_exhaustive()
    }
}

/// The keyword arguments of [`GymSettings::env_kwargs`].
fn kwargs(text: &str) -> Result<serde_json::Value, MakeError> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(serde_json::json!({}));
    }
    if let Ok(value @ serde_json::Value::Object(_)) = serde_json::from_str(text) {
        return Ok(value);
    }
    let table = toml::from_str::<toml::Table>(&format!("kwargs = {text}"));
    let value = table.ok().and_then(|mut t| t.remove("kwargs")).filter(toml::Value::is_table);
    value.and_then(|v| serde_json::to_value(v).ok()).ok_or_else(|| {
        MakeError::new(
            MakeErrorKind::Usage,
            format!("`env_kwargs` = {text:?} is neither a TOML table nor a JSON object"),
        )
        .with_hint("for example `{ gravity = -5.0 }`")
    })
}

/// How the process of an EnvPool is to work.
pub(crate) struct PoolPlan {
    /// Two for each environment.
    pub(crate) seeds: Vec<i64>,
    pub(crate) threads: usize,
    /// Whether both sides look for each other's answers for a while before they sleep.
    pub(crate) watched: bool,
}

impl Context {
    fn batches(&self) -> usize {
        self.batches.load(Ordering::Relaxed).max(1)
    }
    /// Processes, or threads, for one batch: as many as asked for, else as many as are one for each core with all batches
    /// that there are.
    fn share_of_cores(&self, asked: usize) -> usize {
        if asked == 0 { self.recipe.cores.div_ceil(self.batches()) } else { asked }
    }
    /// Processes for a batch of `n`.
    pub(crate) fn workers(&self, n: usize) -> usize {
        match self.recipe.source {
            Source::EnvPool => 1,
            Source::Gymnasium => self.share_of_cores(self.recipe.settings.env_workers).min(n),
        }
    }
    /// What the process of a pool with these seeds is told.
    pub(crate) fn pool_plan(&self, seeds: Vec<i64>) -> PoolPlan {
        let threads = self.share_of_cores(self.recipe.settings.env_threads);
        // Who looks while others work takes a core from them; a pool of one thread has the core of who would look.
        PoolPlan { seeds, threads, watched: threads > 1 && self.batches() < self.recipe.cores }
    }
    /// A failure to start, for who asked.
    pub(crate) fn explain(&self, error: &StartError) -> MakeError {
        explain(&self.recipe.id(), &self.recipe.settings.python, error)
    }
}

fn explain(id: &str, python: &str, error: &StartError) -> MakeError {
    match error {
        StartError::Spawn { python, error, missing } => {
            let kind = if *missing { MakeErrorKind::Usage } else { MakeErrorKind::Io };
            let e = MakeError::new(kind, format!("`{id}`: cannot start `{python}`: {error}"));
            if *missing { e.with_hint("--python PATH names the Python that has gymnasium") } else { e }
        }
        StartError::Death(death) => {
            MakeError::new(MakeErrorKind::Data, format!("`{id}`: the process that makes it {death}"))
        }
        StartError::Refused { text, missing: Some(module), .. } => {
            let last = text.lines().last().unwrap_or_default();
            MakeError::new(
                MakeErrorKind::Usage,
                format!("`{id}`: `{python}` has no module `{module}` ({last})"),
            )
            .with_hint(how_to_get(id, python, module))
        }
        StartError::Refused { text, bad: true, .. } => {
            MakeError::new(MakeErrorKind::Data, format!("`{id}`: {text}"))
        }
        StartError::Refused { text, kinds, .. } => {
            // Gymnasium's own errors about names and missing packages are the caller's to mend.
            let usage = [
                "UnknownName",
                "NameNotFound",
                "NamespaceNotFound",
                "VersionNotFound",
                "UnregisteredEnv",
                "DependencyNotInstalled",
                "DeprecatedEnv",
            ];
            let last = text.lines().last().unwrap_or_default();
            let said = last.split_once(": ").map_or(last, |(_, said)| said);
            if kinds.iter().any(|k| usage.contains(&k.as_str())) {
                let e = MakeError::new(MakeErrorKind::Usage, format!("`{id}`: {said}"));
                let unknown = kinds.iter().any(|k| k == "NameNotFound" || k == "NamespaceNotFound");
                return if unknown { e.with_hint(where_to_look(id, python)) } else { e };
            }
            let kind = if kinds.iter().any(|k| k == "TypeError") {
                MakeErrorKind::Usage
            } else {
                MakeErrorKind::Data
            };
            MakeError::new(kind, format!("cannot make `{id}`: it raised\n{}", indented(text)))
        }
    }
}

/// How to have a module that is missing.
fn how_to_get(id: &str, python: &str, module: &str) -> String {
    let root = module.split('.').next().unwrap_or(module);
    match pip_of(root) {
        Some(pip) => format!("`{python} -m pip install {pip}`"),
        // The module that the name begins with may be a file of the user's own, found from the folder that it is in.
        None if parse_name(id).is_ok_and(|(_, name)| name.split([':', '.']).next() == Some(root)) => {
            format!(
                "run this in the folder that has `{root}`, or add that folder to PYTHONPATH; if it is part of a \
                 package, install that for `{python}`"
            )
        }
        None => format!("install the package that has `{root}` for `{python}`"),
    }
}

/// Where an ID may be found that Gymnasium does not know.
fn where_to_look(id: &str, python: &str) -> String {
    let name = id.strip_prefix(crate::GYM_PREFIX).unwrap_or(id);
    match name.split_once(':') {
        Some((module, _)) => format!("`{module}` was imported and registers no such ID"),
        None => match package_of(name) {
            Some(package) => format!(
                "`gym:{}:{name}` imports what registers it; `{python} -m pip install {}` where that is missing",
                package.module, package.pip
            ),
            None => format!("`gym:MODULE:{name}` imports the module that registers it"),
        },
    }
}

impl Gym {
    /// Starts a process that makes the environment `id` (with its prefix), and asks what it is.
    ///
    /// # Errors
    /// When there is none, or it cannot be used.
    pub fn open(id: &str, settings: &GymSettings) -> Result<Self, MakeError> {
        Self::open_with(id, settings, false)
    }
    /// The same, for environments whose pictures are wanted: they are told so when they are made.
    ///
    /// # Errors
    /// As [`Gym::open`].
    pub fn open_drawn(id: &str, settings: &GymSettings) -> Result<Self, MakeError> {
        Self::open_with(id, settings, true)
    }
    fn open_with(id: &str, settings: &GymSettings, drawn: bool) -> Result<Self, MakeError> {
        let recipe = Recipe::new(id, settings, drawn)?;
        let failed = |e: StartError| explain(id, &settings.python, &e);
        let pool = PoolPlan { seeds: vec![0, 0], threads: 1, watched: false };
        let pool = (recipe.source == Source::EnvPool).then_some(pool);
        let starting = Starting::new(&recipe, 1, pool).map_err(failed)?;
        let (mut worker, text) = starting.finish().map_err(failed)?;
        let spaces = worker.spaces.clone();
        worker.leave();
        worker.close(recipe.step());
        let spec = EnvSpec {
            id: id.to_owned(),
            observation: spaces.observation(),
            action: spaces.action(),
            // Its own, which it tells at the end of an episode.
            max_episode_steps: None,
            reward_threshold: text.reward_threshold,
            masks_actions: false,
        };
        let context = Context {
            batches: AtomicUsize::new(0),
            recipe,
            spaces,
            spec,
            monitor: Monitor::new(id, settings),
        };
        Ok(Self { context: Arc::new(context), limit: text.max_episode_steps, versions: text.versions })
    }
    /// What it is.
    #[must_use]
    pub fn spec(&self) -> &EnvSpec {
        &self.context.spec
    }
    /// A batch of `n` copies. Their processes are started when it is reset.
    ///
    /// # Panics
    /// When `n` is 0.
    #[must_use]
    pub fn make(&self, n: usize) -> Box<dyn BatchEnv> {
        assert!(n > 0, "a batch has at least one environment");
        Box::new(GymBatch::new(Arc::clone(&self.context), n))
    }
    /// The time limit that the environment has by itself.
    #[must_use]
    pub fn own_limit(&self) -> Option<u64> {
        self.limit
    }
    /// Whether every episode has a seed of its own; with EnvPool only every environment has.
    #[must_use]
    pub fn seeds_episodes(&self) -> bool {
        self.context.recipe.source == Source::Gymnasium
    }
    /// Versions of Gymnasium, numpy and Python.
    #[must_use]
    pub fn versions(&self) -> &str {
        &self.versions
    }
    /// What there is to tell of all copies since this was last asked; the numbers are totals.
    #[must_use]
    pub fn news(&self) -> News {
        self.context.monitor.news()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_had_from_the_package_that_has_it() {
        let hint = |id: &str, module: &str| how_to_get(id, "py", module);
        assert_eq!(hint("gym:ale_py:ALE/Pong-v5", "ale_py"), "`py -m pip install ale-py`");
        assert_eq!(hint("gym:CartPole-v1", "gymnasium"), "`py -m pip install gymnasium numpy`");
        assert_eq!(hint("envpool:Pong-v5", "envpool"), "`py -m pip install envpool`");
        assert_eq!(
            hint("gym:vizdoom.gymnasium_wrapper:VizdoomBasic-v0", "vizdoom"),
            "`py -m pip install vizdoom`"
        );
        assert!(
            hint("gym:mine.tasks:Maze-v0", "mine").starts_with("run this in the folder that has `mine`, or")
        );
        // What the module itself imports.
        assert_eq!(hint("gym:mine:Maze-v0", "pygame"), "install the package that has `pygame` for `py`");
    }
}
