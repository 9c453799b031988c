//! Gymnasium's environments by name.

use crate::batch::GymBatch;
use crate::context::{Context, explain};
use crate::monitor::Monitor;
use crate::name::{News, Source};
use crate::process::{StartError, Starting};
use crate::recipe::{PoolPlan, Recipe};
use crate::settings::GymSettings;
use pgrad_env::{BatchEnv, EnvSpec, MakeError};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

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
        let mut recipe = Recipe::new(id, settings, drawn)?;
        let failed = |e: StartError| explain(id, &settings.python, &e);
        let pool = PoolPlan { seeds: vec![0, 0], threads: 1, watched: false };
        let pool = (recipe.source == Source::EnvPool).then_some(pool);
        let starting = Starting::new(&recipe, 1, pool).map_err(failed)?;
        let (mut worker, text) = starting.finish().map_err(failed)?;
        let spaces = worker.spaces.clone();
        worker.leave();
        worker.close(recipe.step());
        recipe.masks = text.masks;
        let spec = EnvSpec {
            id: id.to_owned(),
            observation: spaces.observation(),
            action: spaces.action(),
            // Its own, which it tells at the end of an episode.
            max_episode_steps: None,
            reward_threshold: text.reward_threshold,
            masks_actions: spaces.mask_dim() > 0,
        };
        let context = Context {
            batches: AtomicUsize::new(0),
            recipe,
            spaces,
            spec,
            monitor: Monitor::new(id, settings),
        };
        if let Some(note) = text.note {
            context.monitor.tell(note);
        }
        if let Some(source) = context.recipe.masks.python() {
            context.monitor.tell(format!(
                "action masks of `{source}` are obeyed; `action_masks = \"ignore\"` ignores them"
            ));
        }
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
    /// What Python calls the source of its action masks, where they are obeyed.
    #[must_use]
    pub fn masks(&self) -> Option<&'static str> {
        self.context.recipe.masks.python()
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
