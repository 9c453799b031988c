//! Environments by name: the one place that knows what a name stands for.
//!
//! A name is that of a native task (`CartPole-v1`, `tiles:MountainCar-v0`), or a scheme of [`SCHEMES`] with
//! what follows its colon. It is *found* first, without looking at anything but the name; its settings are
//! then laid over the defaults; and only then is it *opened*, which may read files or start processes, and
//! may fail. What was opened is kept, so that a file is read and a process is asked once.

use pgrad_env::{BatchResult, EnvSpec, MakeError, MakeErrorKind, spec_of};
use pgrad_envs::{EnvEntry, UnknownEnv};
use pgrad_gym::{Gym, GymSettings, OfEnvPool, OfGymnasium};
use pgrad_settings::Settings;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, LazyLock, OnceLock};

pub use pgrad_env::EnvMaker;

/// What a name stands for, with settings of its own where it has any.
pub trait EnvSource: fmt::Debug + Send + Sync {
    /// Settings of its own, beside those of the run and of the algorithm.
    fn settings(&self) -> Option<&dyn Settings> {
        None
    }
    /// The same, to change.
    fn settings_mut(&mut self) -> Option<&mut dyn Settings> {
        None
    }
    /// Whether opening it asks for something outside this program: a file, a library, a process.
    fn is_elsewhere(&self) -> bool {
        true
    }
    /// Whether each batch of it has processes of its own.
    fn has_processes(&self) -> bool {
        false
    }
    /// A copy.
    fn boxed_clone(&self) -> Box<dyn EnvSource>;
    /// The same, whose environments are made to be drawn, where that must be known beforehand.
    fn drawn(&self) -> Box<dyn EnvSource> {
        self.boxed_clone()
    }
    /// Finds out what the environment is, and how it is made.
    ///
    /// # Errors
    /// When there is no such environment, or it cannot be used here.
    fn open(&self) -> Result<Box<dyn OpenEnv>, MakeError>;
}

/// An environment that can be made.
pub trait OpenEnv: Send + Sync {
    /// What it is.
    fn spec(&self) -> &EnvSpec;
    /// Makes a batch of `n` copies (at least one).
    ///
    /// # Errors
    /// When they cannot be made.
    fn make(&self, n: usize) -> BatchResult;
    /// Whether an episode depends only on the random numbers at its beginning and on the actions, so that
    /// what an earlier one left behind can be seen.
    fn seeds_episodes(&self) -> bool {
        true
    }
    /// Lines about it, for whoever looks at it.
    fn about(&self) -> Vec<String> {
        Vec::new()
    }
    /// What is to be told of its copies since this was last asked.
    fn news(&self) -> EnvNews {
        EnvNews::default()
    }
}

/// What there is to tell of environments at work.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EnvNews {
    /// Lines for whoever watches the run.
    pub notices: Vec<String>,
    /// Numbers for the metrics.
    pub metrics: Vec<(&'static str, f64)>,
}

/// A kind of environments that are named `PREFIX` and something.
#[derive(Clone, Copy)]
pub struct Scheme {
    /// What the name begins with, colon included.
    pub prefix: &'static str,
    /// The form of the whole name.
    pub form: &'static str,
    /// What is behind it, in one line.
    pub title: &'static str,
    /// The source of a whole name, which has the prefix.
    pub source: fn(id: &str) -> Result<Box<dyn EnvSource>, MakeError>,
    /// The settings of its sources, as they are declared, where they have any.
    pub settings: Option<fn() -> &'static dyn Settings>,
}

impl fmt::Debug for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheme").field("form", &self.form).finish_non_exhaustive()
    }
}

/// All schemes, in the order in which they are listed.
pub static SCHEMES: &[Scheme] = &[
    #[cfg(feature = "mujoco")]
    Scheme {
        prefix: crate::mjcf::PREFIX,
        form: "mjcf:FILE.toml",
        title: "your own MuJoCo model; the file describes its observations, its rewards and when an episode \
            ends",
        source: crate::mjcf::source,
        settings: None,
    },
    Scheme {
        prefix: pgrad_gym::GYM_PREFIX,
        form: "gym:[MODULE:]ID",
        title: "any environment of Gymnasium, in Python processes",
        source: |id| {
            pgrad_gym::check_name(id)?;
            Ok(Box::new(GymSource { id: id.to_owned(), settings: OfGymnasium::default(), drawn: false }))
        },
        settings: Some(|| {
            static DECLARED: LazyLock<GymSettings> = LazyLock::new(GymSettings::default);
            &*DECLARED
        }),
    },
    Scheme {
        prefix: pgrad_gym::ENVPOOL_PREFIX,
        form: "envpool:ID",
        title: "any environment of EnvPool, in one Python process",
        source: |id| {
            pgrad_gym::check_name(id)?;
            Ok(Box::new(GymSource { id: id.to_owned(), settings: OfEnvPool::default(), drawn: false }))
        },
        // Declared above.
        settings: None,
    },
];

/// Why no environment could be found, or made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EnvNameError {
    /// No environment has that name.
    #[error(transparent)]
    Unknown(#[from] UnknownEnv),
    /// A name of a scheme that cannot be one.
    #[error(transparent)]
    Make(#[from] MakeError),
}

/// An environment that was found by its name.
#[derive(Clone)]
pub struct NamedEnv {
    id: String,
    source: Box<dyn EnvSource>,
    /// Opened once for all copies that have the same settings.
    opened: Arc<OnceLock<Result<Box<dyn OpenEnv>, MakeError>>>,
}

/// Says where an environment is that is no native one, where Gymnasium or a package for it is known to have
/// it.
fn elsewhere(unknown: UnknownEnv) -> EnvNameError {
    let id = &unknown.id;
    let hint = if unknown.feature.is_some() || unknown.untiled.is_some() {
        None
    } else if let Some((package, name)) = pgrad_gym::registered(id) {
        Some(format!("the Python package `{package}` has it: `{name}`"))
    } else if unknown.near.is_empty() {
        let near = pgrad_envs::nearest(id, pgrad_gym::IDS.iter().copied());
        let near: Vec<String> = near.iter().map(|id| format!("{}{id}", pgrad_gym::GYM_PREFIX)).collect();
        pgrad_envs::did_you_mean(&near.iter().map(String::as_str).collect::<Vec<_>>())
    } else {
        None
    };
    match hint {
        Some(hint) => {
            let message = format!("there is no native environment `{id}`");
            MakeError::new(MakeErrorKind::Usage, message).with_hint(hint).into()
        }
        None => unknown.into(),
    }
}

impl Clone for Box<dyn EnvSource> {
    fn clone(&self) -> Self {
        (**self).boxed_clone()
    }
}

impl fmt::Debug for NamedEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamedEnv").field("id", &self.id).field("source", &self.source).finish_non_exhaustive()
    }
}

impl NamedEnv {
    /// The environment called `id`. Nothing is made yet.
    ///
    /// # Errors
    /// When no environment has, or could have, that name.
    pub fn find(id: &str) -> Result<Self, EnvNameError> {
        let source = match SCHEMES.iter().find(|s| id.starts_with(s.prefix)) {
            Some(scheme) => (scheme.source)(id)?,
            None => Box::new(Native(pgrad_envs::find(id).map_err(elsewhere)?)),
        };
        Ok(Self::of(id, source))
    }
    /// The whole name of the environment that somebody means who writes `id`, if there is one: its own, or
    /// `gym:LunarLander-v3` for `LunarLander-v3`.
    #[must_use]
    pub fn meant(id: &str) -> Option<String> {
        match Self::find(id) {
            Ok(env) => Some(env.id),
            Err(_) => pgrad_gym::registered(id).map(|(_, name)| name),
        }
    }
    /// Environments of the caller's own.
    #[must_use]
    pub fn custom(id: &str, make: EnvMaker) -> Self {
        Self::of(id, Box::new(Custom(make)))
    }
    /// The environment `id` that `source` makes.
    #[must_use]
    pub fn of(id: &str, source: Box<dyn EnvSource>) -> Self {
        Self { id: id.to_owned(), source, opened: Arc::default() }
    }
    /// Its name.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
    /// Whether opening it asks for something outside this program.
    #[must_use]
    pub fn is_elsewhere(&self) -> bool {
        self.source.is_elsewhere()
    }
    /// Whether each batch of it has processes of its own.
    #[must_use]
    pub fn has_processes(&self) -> bool {
        self.source.has_processes()
    }
    /// Its own settings, if it has any.
    #[must_use]
    pub fn settings(&self) -> Option<&dyn Settings> {
        self.source.settings()
    }
    /// The same, to change; it is opened anew afterwards.
    pub fn settings_mut(&mut self) -> Option<&mut dyn Settings> {
        self.source.settings()?;
        self.opened = Arc::default();
        self.source.settings_mut()
    }
    /// The same environment for another run, whose news are its own.
    #[must_use]
    pub fn for_another_run(&self) -> Self {
        Self::of(&self.id, self.source.clone())
    }
    /// The same environment, made to be drawn.
    #[must_use]
    pub fn drawn(&self) -> Self {
        Self::of(&self.id, self.source.drawn())
    }
    /// The environment, opened the first time that it is asked for.
    ///
    /// # Errors
    /// When it cannot be used here.
    pub fn open(&self) -> Result<&dyn OpenEnv, MakeError> {
        self.opened.get_or_init(|| self.source.open()).as_ref().map(|open| &**open).map_err(Clone::clone)
    }
    /// What is to be told since this was last asked; nothing where it was never opened.
    #[must_use]
    pub fn news(&self) -> EnvNews {
        match self.opened.get() {
            Some(Ok(open)) => open.news(),
            _ => EnvNews::default(),
        }
    }
}

/// A task of the registry.
#[derive(Clone, Copy, Debug)]
struct Native(&'static EnvEntry);

impl EnvSource for Native {
    fn is_elsewhere(&self) -> bool {
        self.0.is_elsewhere()
    }
    fn boxed_clone(&self) -> Box<dyn EnvSource> {
        Box::new(*self)
    }
    fn open(&self) -> Result<Box<dyn OpenEnv>, MakeError> {
        Made::open(self.0.open()?)
    }
}

/// Environments of the caller's own.
#[derive(Clone)]
struct Custom(EnvMaker);

impl fmt::Debug for Custom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Custom").finish_non_exhaustive()
    }
}

impl EnvSource for Custom {
    fn is_elsewhere(&self) -> bool {
        false
    }
    fn boxed_clone(&self) -> Box<dyn EnvSource> {
        Box::new(self.clone())
    }
    fn open(&self) -> Result<Box<dyn OpenEnv>, MakeError> {
        Made::open(Arc::clone(&self.0))
    }
}

/// An environment of Gymnasium or EnvPool, with the settings that it has.
#[derive(Clone, Debug)]
struct GymSource<S> {
    id: String,
    settings: S,
    drawn: bool,
}

impl<S: Settings + Deref<Target = GymSettings> + Clone> EnvSource for GymSource<S> {
    fn settings(&self) -> Option<&dyn Settings> {
        Some(&self.settings)
    }
    fn settings_mut(&mut self) -> Option<&mut dyn Settings> {
        Some(&mut self.settings)
    }
    fn has_processes(&self) -> bool {
        true
    }
    fn boxed_clone(&self) -> Box<dyn EnvSource> {
        Box::new(self.clone())
    }
    fn drawn(&self) -> Box<dyn EnvSource> {
        Box::new(Self { drawn: true, ..self.clone() })
    }
    fn open(&self) -> Result<Box<dyn OpenEnv>, MakeError> {
        let open = if self.drawn { Gym::open_drawn } else { Gym::open };
        Ok(Box::new(open(&self.id, &self.settings)?))
    }
}

impl OpenEnv for Gym {
    fn spec(&self) -> &EnvSpec {
        self.spec()
    }
    fn make(&self, n: usize) -> BatchResult {
        Ok(self.make(n))
    }
    fn seeds_episodes(&self) -> bool {
        self.seeds_episodes()
    }
    fn about(&self) -> Vec<String> {
        let spec = self.spec();
        let limit = self.own_limit().map_or_else(|| "none".to_owned(), |n| format!("{n} steps, its own"));
        vec![
            format!("observation  {}", spec.observation),
            format!("action       {}", spec.action),
            format!("time limit   {limit}"),
            format!("made by      {}", self.versions()),
        ]
        .into_iter()
        .chain(self.masks().map(|source| format!("masks        of {source}, obeyed")))
        .chain((!self.seeds_episodes()).then(|| {
            "not checked  whether state leaks from one episode into the next: its random numbers continue"
                .to_owned()
        }))
        .collect()
    }
    fn news(&self) -> EnvNews {
        let news = self.news();
        EnvNews { notices: news.notices, metrics: news.metrics }
    }
}

/// Environments that a function of this program makes.
pub(crate) struct Made {
    spec: EnvSpec,
    make: EnvMaker,
}

impl Made {
    pub(crate) fn open(make: EnvMaker) -> Result<Box<dyn OpenEnv>, MakeError> {
        Ok(Box::new(Self { spec: spec_of(&*make)?, make }))
    }
}

impl OpenEnv for Made {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }
    fn make(&self, n: usize) -> BatchResult {
        (self.make)(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{RunConfig, RunConfigError};
    use pgrad_settings::settings;
    use std::sync::atomic::{AtomicUsize, Ordering};

    settings! {
        /// Settings of a source
        struct Own {
            /// Which making fails.
            fails_at: usize = 1000, range: 0..=1000;
        }
    }

    /// `CartPole-v1`, whose making fails at some point.
    #[derive(Clone, Debug, Default)]
    struct Failing {
        own: Own,
        opened: Arc<AtomicUsize>,
    }
    struct FailingOpen {
        spec: EnvSpec,
        fails_at: usize,
        made: AtomicUsize,
    }
    impl EnvSource for Failing {
        fn settings(&self) -> Option<&dyn Settings> {
            Some(&self.own)
        }
        fn settings_mut(&mut self) -> Option<&mut dyn Settings> {
            Some(&mut self.own)
        }
        fn boxed_clone(&self) -> Box<dyn EnvSource> {
            Box::new(self.clone())
        }
        fn open(&self) -> Result<Box<dyn OpenEnv>, MakeError> {
            self.opened.fetch_add(1, Ordering::Relaxed);
            let spec = pgrad_envs::make("CartPole-v1", 1).unwrap().spec().clone();
            Ok(Box::new(FailingOpen { spec, fails_at: self.own.fails_at, made: AtomicUsize::new(0) }))
        }
    }
    impl OpenEnv for FailingOpen {
        fn spec(&self) -> &EnvSpec {
            &self.spec
        }
        fn make(&self, n: usize) -> BatchResult {
            if self.made.fetch_add(1, Ordering::Relaxed) == self.fails_at {
                return Err(MakeError::new(MakeErrorKind::Io, "no more of them").with_hint("wait"));
            }
            Ok(pgrad_envs::make("CartPole-v1", n).unwrap())
        }
    }

    #[test]
    fn an_environment_is_opened_once_for_each_of_its_settings() {
        let source = Failing::default();
        let opened = Arc::clone(&source.opened);
        let mut config = RunConfig::of("ppo", NamedEnv::of("x:CartPole", Box::new(source))).unwrap();
        config.check_at_home().unwrap();
        assert_eq!(opened.load(Ordering::Relaxed), 0, "nothing is asked for before it is needed");
        config.check().unwrap();
        config.clone().check().unwrap();
        config.build(&config.cpu(1).unwrap()).map(drop).unwrap();
        assert_eq!(opened.load(Ordering::Relaxed), 1);
        config.apply_pair("fails_at=999", "--set").unwrap();
        assert!(config.to_toml(false).contains("fails_at = 999"), "a run's file has them");
        config.check().unwrap();
        config.for_another_run().check().unwrap();
        assert_eq!(opened.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_making_that_fails_is_an_error_and_no_panic() {
        let each = pgrad_algos::REGISTRY.iter().map(|algo| (algo.name, 0));
        for (algo, fails_at) in each.chain([("ppo", 1), ("a3c", 2)]) {
            let mut source = Failing::default();
            source.own.fails_at = fails_at;
            let mut config = RunConfig::of(algo, NamedEnv::of("x:CartPole", Box::new(source))).unwrap();
            if algo == "ppo" {
                config.apply_pair("n_envs=32", "--set").unwrap();
            }
            let error = match config.build(&config.cpu(1).unwrap()) {
                Ok(_) => panic!("{algo}, {fails_at}"),
                Err(e) => e,
            };
            assert!(matches!(error, RunConfigError::Make(_)), "{error}");
            assert_eq!(
                (error.exit_code(), error.to_string().as_str()),
                (74, "no more of them\n  hint: wait")
            );
        }
    }
}
