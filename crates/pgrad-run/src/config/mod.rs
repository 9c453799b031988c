//! The configuration of a run: what to train, on what, with which settings.

mod changes;
mod error;

pub use changes::Change;
pub use error::RunConfigError;

use crate::{
    env::{EnvMaker, EnvNews, NamedEnv},
    memory,
    presets::{self, Preset},
    storage::{FsStorage, Storage},
};
use pgrad_algos::{AlgoConfig, AlgoEntry, Algorithm, Needs, Setup};
use pgrad_engine::Cpu;
use pgrad_env::{BatchResult, Each, Env, EnvSpec, MakeError};
use pgrad_settings::{
    ConfigErrors, Given, Settings, Value, apply_pair, apply_toml, check_given, choice, read_key, settings,
    suggest, to_toml,
};
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The name by which no preset is asked for.
pub const NO_PRESET: &str = "none";

/// The setting that names a program.
const PYTHON: &str = "python";

/// Largest file that a setting may name.
const MAX_FILE_LEN: u64 = 1 << 30;

choice! {
    /// What to do when learning diverges.
    pub enum OnDivergence {
        /// Stop with an error; the last checkpoint remains valid.
        Stop = "stop",
        /// Return to the last good iteration and continue with half the step size, at most five times in a
        /// row.
        Rollback = "rollback",
    }
}

settings! {
    /// The run.
    pub struct RunSettings {
        /// Total number of environment steps. The last iteration is completed, so a run may exceed this by up
        /// to one iteration. A schedule that decays over the run decays over these steps.
        steps: u64 = 1_000_000, range: 1..=1_000_000_000_000, unit: "environment steps", resume: free;
        /// Seed of all random streams.
        seed: u64 = 1, range: 0..=9_007_199_254_740_991;
        /// Save a checkpoint every this many environment steps, in addition to `checkpoint_secs`; 0 disables
        /// it.
        checkpoint_steps: u64 = 0, range: 0..=1_000_000_000_000, unit: "environment steps", resume: free;
        /// Save a checkpoint every this many seconds.
        checkpoint_secs: f64 = 30.0, range: pgrad_settings::above(0.0), unit: "s", resume: free;
        /// Number of checkpoints to keep.
        keep_checkpoints: usize = 2, range: 2..=1000, unit: "checkpoints", resume: free;
        /// Write a row of metrics every this many iterations.
        log_every: u64 = 1, range: 1..=1_000_000, unit: "iterations", resume: free;
        /// What to do when learning diverges, that is, when a number is not finite.
        on_divergence: OnDivergence = OnDivergence::Stop;
    }
}

/// An [`EnvMaker`] for an [`Env`] of the caller's own: `make` makes one copy.
pub fn env_maker<E: Env + 'static>(make: impl Fn() -> E + Send + Sync + 'static) -> EnvMaker {
    Arc::new(Each::maker(make))
}

/// What to train, on what, with which settings.
#[derive(Clone)]
pub struct RunConfig {
    algo: &'static AlgoEntry,
    env: NamedEnv,
    /// Settings of the run itself.
    pub run: RunSettings,
    settings: Box<dyn AlgoConfig>,
    /// What was asked for over the defaults and the preset; the last place of each setting.
    given: Vec<Given>,
}

impl fmt::Debug for RunConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunConfig")
            .field("algo", &self.algo.name)
            .field("env", &self.env.id())
            .finish_non_exhaustive()
    }
}

impl RunConfig {
    /// The preset of `algo` for `env` where there is one, else defaults.
    ///
    /// # Errors
    /// When there is no such algorithm or environment, or the environment cannot be made here.
    pub fn new(algo: &str, env: &str) -> Result<Self, RunConfigError> {
        let mut config = Self::without_preset(algo, env)?;
        if let Some(preset) = presets::find(algo, env, presets::TUNED) {
            config.take(preset)?;
        }
        Ok(config)
    }
    /// The preset called `name` of `algo` for `env`; `none` is the defaults.
    ///
    /// # Errors
    /// When there is no such algorithm, environment or preset.
    pub fn with_preset(algo: &str, env: &str, name: &str) -> Result<Self, RunConfigError> {
        let mut config = Self::without_preset(algo, env)?;
        if name == NO_PRESET {
            return Ok(config);
        }
        let preset = presets::find(algo, env, name).ok_or_else(|| {
            let of_both = presets::all().filter(|p| p.algo == algo && p.env == env).map(|p| p.name);
            let known: Vec<&str> = of_both.chain([NO_PRESET]).collect();
            let (algo, env, name) = (algo.to_owned(), env.to_owned(), name.to_owned());
            RunConfigError::Preset { algo, env, name, known: known.join(", ") }
        })?;
        config.take(preset)?;
        Ok(config)
    }
    /// Lays a preset over these settings.
    fn take(&mut self, preset: &Preset) -> Result<(), RunConfigError> {
        self.apply_toml(preset.toml, preset.path)?;
        self.check_given()?;
        // Who asks for another mode than the preset's did not ask for what the preset gives to its own.
        self.given.clear();
        Ok(())
    }
    /// Defaults of `algo` for `env`, whatever its preset says.
    ///
    /// # Errors
    /// When there is no such algorithm or environment.
    pub fn without_preset(algo: &str, env: &str) -> Result<Self, RunConfigError> {
        Self::of(algo, NamedEnv::find(env)?)
    }
    /// Defaults of `algo`, for environments of the caller's own.
    ///
    /// # Errors
    /// When there is no such algorithm.
    pub fn custom(algo: &str, env_id: &str, make_env: EnvMaker) -> Result<Self, RunConfigError> {
        Self::of(algo, NamedEnv::custom(env_id, make_env))
    }
    /// Defaults of `algo`, for an environment.
    ///
    /// # Errors
    /// When there is no such algorithm.
    pub fn of(algo: &str, env: NamedEnv) -> Result<Self, RunConfigError> {
        let entry = pgrad_algos::find(algo).ok_or_else(|| {
            let names = || pgrad_algos::REGISTRY.iter().map(|e| e.name);
            RunConfigError::Algorithm {
                name: algo.to_owned(),
                known: names().collect::<Vec<_>>().join(", "),
                suggestion: suggest(algo, names()).map(str::to_owned),
            }
        })?;
        Ok(Self {
            settings: (entry.config)(),
            algo: entry,
            env,
            run: RunSettings::default(),
            given: Vec::new(),
        })
    }
    /// The configuration that [`RunConfig::to_toml`] wrote.
    ///
    /// # Errors
    /// When it is wrong in any way.
    pub fn from_toml(text: &str, origin: &str) -> Result<Self, RunConfigError> {
        let (algo, env) = (named(text, origin, "algo")?, named(text, origin, "env")?);
        let mut config =
            Self::new(algo.as_deref().unwrap_or("ppo"), env.as_deref().unwrap_or("CartPole-v1"))?;
        config.apply_toml(text, origin)?;
        Ok(config)
    }
    /// As [`RunConfig::from_toml`], for environments of the caller's own.
    ///
    /// # Errors
    /// When it is wrong in any way.
    pub fn custom_from_toml(text: &str, origin: &str, make_env: EnvMaker) -> Result<Self, RunConfigError> {
        let (algo, env) = (named(text, origin, "algo")?, named(text, origin, "env")?);
        let mut config =
            Self::custom(algo.as_deref().unwrap_or("ppo"), env.as_deref().unwrap_or("custom"), make_env)?;
        config.apply_toml(text, origin)?;
        Ok(config)
    }

    /// Name of the algorithm.
    #[must_use]
    pub fn algo(&self) -> &'static str {
        self.algo.name
    }
    /// Name of the environment.
    #[must_use]
    pub fn env_id(&self) -> &str {
        self.env.id()
    }
    /// The environment.
    #[must_use]
    pub fn env(&self) -> &NamedEnv {
        &self.env
    }
    /// Makes a batch of environments.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn make_env(&self, n: usize) -> BatchResult {
        self.env.open()?.make(n)
    }
    /// What the environment is. It is opened for that the first time.
    ///
    /// # Errors
    /// When it cannot be used here.
    pub fn env_spec(&self) -> Result<&EnvSpec, MakeError> {
        Ok(self.env.open()?.spec())
    }
    /// What is to be told of the environments since this was last asked.
    #[must_use]
    pub fn env_news(&self) -> EnvNews {
        self.env.news()
    }
    /// The same configuration for another run: what is told of its environments is its own.
    #[must_use]
    pub fn for_another_run(&self) -> Self {
        Self { env: self.env.for_another_run(), ..self.clone() }
    }
    /// The same configuration, with environments that are made to be drawn.
    #[must_use]
    pub fn drawn(&self) -> Self {
        Self { env: self.env.drawn(), ..self.clone() }
    }
    /// All settings, the run's and the algorithm's.
    #[must_use]
    pub fn parts(&self) -> Vec<&dyn Settings> {
        let mut parts: Vec<&dyn Settings> = vec![&self.run];
        parts.extend(self.env.settings());
        parts.extend(self.settings.parts());
        parts
    }
    fn with_parts<T>(&mut self, f: impl FnOnce(&mut [&mut dyn Settings]) -> T) -> T {
        let mut parts: Vec<&mut dyn Settings> = vec![&mut self.run];
        parts.extend(self.env.settings_mut());
        parts.extend(self.settings.parts_mut());
        f(&mut parts)
    }
    /// The value of a setting.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Value> {
        self.parts().iter().find_map(|p| p.get(key))
    }
    /// Lays the settings of a TOML text over these. `algo` and `env` may be named if they agree.
    ///
    /// # Errors
    /// Everything that is wrong with it, with line numbers; nothing has changed then.
    pub fn apply_toml(&mut self, text: &str, origin: &str) -> Result<(), RunConfigError> {
        let mut names = Names { algo: self.algo.name.to_owned(), env: self.env.id().to_owned() };
        let mut changed = self.clone();
        let given = changed.with_parts(|parts| {
            let mut all: Vec<&mut dyn Settings> = vec![&mut names];
            all.extend(parts.iter_mut().map(|p| &mut **p));
            apply_toml(text, origin, &mut all)
        })?;
        for (key, theirs, ours) in [("algo", &names.algo, self.algo.name), ("env", &names.env, self.env.id())]
        {
            if theirs != ours {
                let (theirs, ours) = (theirs.clone(), ours.to_owned());
                return Err(RunConfigError::Conflict { origin: origin.to_owned(), key, theirs, ours });
            }
        }
        *self = changed;
        given.into_iter().for_each(|g| self.remember(g));
        Ok(())
    }
    /// Changes one setting, given as `key=value`.
    ///
    /// # Errors
    /// When there is no such setting or it does not take this value; nothing has changed then.
    pub fn apply_pair(&mut self, pair: &str, origin: &str) -> Result<(), RunConfigError> {
        let given = self.with_parts(|parts| apply_pair(pair, origin, parts))?;
        self.remember(given);
        Ok(())
    }
    fn remember(&mut self, given: Given) {
        self.given.retain(|g| g.key != given.key);
        self.given.push(given);
    }
    /// Refuses what was asked for and does not apply.
    fn check_given(&self) -> Result<(), ConfigErrors> {
        check_given(&self.given, &self.parts())
    }
    /// All settings that apply as TOML, with their meaning as comments on request.
    #[must_use]
    pub fn to_toml(&self, with_comments: bool) -> String {
        let names = Names { algo: self.algo.name.to_owned(), env: self.env.id().to_owned() };
        let mut parts: Vec<&dyn Settings> = vec![&names];
        parts.extend(self.parts());
        to_toml(&parts, with_comments)
    }
    /// Writes down what is computed of other settings where nobody says otherwise (`envs_per_shard`,
    /// `sequence_length`), so that whoever looks at the run's settings sees what is in use. The settings have
    /// been checked.
    pub fn resolve(&mut self) {
        self.settings.resolve();
    }
    /// Makes a `python` that is given as a relative path absolute, so that the run is continued and evaluated
    /// from every folder. A plain name is looked for on the path, as ever.
    pub fn anchor(&mut self) {
        let Some(Value::Text(python)) = self.get(PYTHON) else { return };
        let path = Path::new(&python);
        if path.is_absolute() || path.components().count() < 2 {
            return;
        }
        if let Ok(Ok(absolute)) = std::path::absolute(path).map(|path| path.into_os_string().into_string()) {
            // It takes every text that is not too long; then what was given stays.
            self.with_parts(|parts| {
                let part = parts.iter_mut().find(|p| p.declaration(PYTHON).is_some());
                part.map(|p| p.set(PYTHON, &Value::Text(absolute)))
            });
        }
    }
    /// Checks that all settings that were asked for (the preset's apart) apply, and that the settings fit
    /// together and to the environment.
    ///
    /// # Errors
    /// Everything that does not apply, or the first contradiction.
    pub fn check(&self) -> Result<(), RunConfigError> {
        self.check_given()?;
        let settings = self.with_file()?;
        settings.check(self.env_spec()?)?;
        Ok(settings.check_env(&|n| self.make_env(n))?)
    }
    /// [`RunConfig::check`], but for what only an environment can tell that has to be asked for outside this
    /// program.
    ///
    /// # Errors
    /// As [`RunConfig::check`].
    pub fn check_at_home(&self) -> Result<(), RunConfigError> {
        if self.env.is_elsewhere() {
            self.check_given()?;
            return self.with_file().map(drop);
        }
        self.check()
    }
    /// How many threads it runs on, where `asked` were asked for: see [`AlgoConfig::threads`].
    #[must_use]
    pub fn threads(&self, asked: usize) -> usize {
        self.settings.threads(asked.max(1))
    }
    /// What a run with `threads` threads takes of memory.
    ///
    /// # Errors
    /// When the environment cannot be asked, or no network can be built for it.
    pub fn needs(&self, threads: usize) -> Result<Needs, RunConfigError> {
        Ok(self.settings.needs(self.env_spec()?, self.threads(threads))?)
    }
    /// Refuses a run that does not fit into the memory that there is; returns a warning when it nearly does
    /// not.
    ///
    /// # Errors
    /// As [`RunConfig::needs`], and when it does not fit.
    pub fn check_memory(&self, threads: usize) -> Result<Option<String>, RunConfigError> {
        Ok(memory::check(&self.needs(threads)?, memory::limit())?)
    }
    /// These threads.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn cpu(&self, asked: usize) -> std::io::Result<Cpu> {
        Cpu::new(self.threads(asked))
    }
    /// Builds the algorithm with its environments, not yet started.
    pub(crate) fn build(&self, cpu: &Cpu) -> Result<Box<dyn Algorithm>, RunConfigError> {
        self.check_given()?;
        let settings = self.with_file()?;
        let (seed, total_steps) = (self.run.seed, self.run.steps);
        let spec = self.env_spec()?;
        let make_env = &|n| self.make_env(n);
        Ok(settings.build(&Setup { spec, make_env, seed, total_steps, cpu: cpu.clone() })?)
    }
    /// The algorithm's settings, with the file that they name.
    fn with_file(&self) -> Result<Box<dyn AlgoConfig>, RunConfigError> {
        let mut settings = self.settings.clone();
        let named = settings.file().map(|(key, path)| (key, PathBuf::from(path)));
        if let Some((key, path)) = named {
            let read = FsStorage.read(&path, MAX_FILE_LEN);
            settings.take_file(&read.map_err(|cause| RunConfigError::File { key, cause })?);
        }
        Ok(settings)
    }
}

settings! {
    /// Algorithm and environment.
    pub struct Names {
        /// The algorithm.
        algo: String = "ppo".to_owned();
        /// The environment.
        env: String = "CartPole-v1".to_owned();
    }
}

fn named(text: &str, origin: &str, key: &str) -> Result<Option<String>, RunConfigError> {
    Ok(match read_key(text, origin, key)? {
        Some(Value::Text(name)) => Some(name),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgrad_settings::check_declarations;

    #[test]
    fn every_algorithm_declares_its_settings_well() {
        for entry in pgrad_algos::REGISTRY {
            let config = RunConfig::new(entry.name, "CartPole-v1").unwrap();
            assert_eq!(check_declarations(&config.parts()), Vec::<String>::new());
        }
    }

    #[test]
    fn the_defaults_that_are_declared_are_those_in_use() {
        for entry in pgrad_algos::REGISTRY {
            for part in (entry.config)().parts() {
                for setting in part.declarations() {
                    let what = format!("{}: {}", entry.name, setting.key);
                    assert_eq!(part.get(setting.key).as_ref(), Some(&setting.default), "{what}");
                }
            }
        }
    }

    #[test]
    fn every_preset_is_accepted_and_fits_its_environment() {
        for preset in presets::all() {
            let config = RunConfig::with_preset(preset.algo, preset.env, preset.name).unwrap();
            // Those need a Python that has them.
            let elsewhere = preset.env.starts_with("gym:");
            if elsewhere { config.check_at_home() } else { config.check() }.unwrap();
        }
        let plain = |c: RunConfig| c.to_toml(false);
        let tuned = RunConfig::new("ppo", "CartPole-v1").unwrap();
        assert_eq!(
            plain(RunConfig::with_preset("ppo", "CartPole-v1", presets::TUNED).unwrap()),
            plain(tuned)
        );
        let defaults = RunConfig::without_preset("ppo", "CartPole-v1").unwrap();
        assert_eq!(plain(RunConfig::with_preset("ppo", "CartPole-v1", NO_PRESET).unwrap()), plain(defaults));
        let refused = RunConfig::with_preset("ppo", "CartPole-v1", "papr").unwrap_err().to_string();
        assert!(
            refused.contains("no preset `papr` of ppo for CartPole-v1; there are tuned, none"),
            "{refused}"
        );
    }

    #[test]
    fn a_configuration_comes_back_from_its_toml() {
        let mut config = RunConfig::new("ppo", "Pendulum-v1").unwrap();
        config.apply_pair("gamma=0.123456789", "--set").unwrap();
        for comments in [false, true] {
            let again = RunConfig::from_toml(&config.to_toml(comments), "config.toml").unwrap();
            assert_eq!(again.to_toml(false), config.to_toml(false));
        }
    }

    #[test]
    fn a_relative_python_is_made_absolute_and_a_name_stays() {
        let python = |given: &str| {
            let mut config = RunConfig::new("ppo", "gym:CartPole-v1").unwrap();
            config.apply_pair(&format!("python={given}"), "--python").unwrap();
            config.anchor();
            config.get("python").unwrap()
        };
        let here = std::env::current_dir().unwrap();
        let absolute = |end: &str| Value::Text(here.join(end).to_str().unwrap().to_owned());
        assert_eq!(python(".venv/bin/python"), absolute(".venv/bin/python"));
        assert_eq!(python("./python"), absolute("python"));
        assert_eq!(python("python3"), Value::Text("python3".to_owned()));
        assert_eq!(python("/usr/bin/python3"), Value::Text("/usr/bin/python3".to_owned()));
    }

    #[test]
    fn wrong_names_are_refused_with_a_hint() {
        let e = RunConfig::new("pop", "CartPole-v1").unwrap_err().to_string();
        assert!(e.contains("`pop`") && e.contains("did you mean `ppo`"), "{e}");
        let e = RunConfig::new("ppo", "CartPol-v1").unwrap_err().to_string();
        assert!(e.contains("CartPole-v1"), "{e}");
        let mut config = RunConfig::new("ppo", "CartPole-v1").unwrap();
        let before = config.to_toml(false);
        let e = config.apply_toml("env = \"Pendulum-v1\"\ngamma = 0.5", "my.toml").unwrap_err().to_string();
        assert!(e.contains("Pendulum-v1") && e.contains("CartPole-v1"), "{e}");
        assert_eq!(config.to_toml(false), before, "nothing changes when anything is wrong");
    }

    #[test]
    fn what_does_not_apply_is_refused_unless_it_is_the_presets() {
        // The preset of Acrobot normalises, the one of CartPole does not.
        let mut config = RunConfig::new("ppo", "CartPole-v1").unwrap();
        config.apply_pair("clip_obs=5", "--set").unwrap();
        let refused = config.check().unwrap_err().to_string();
        assert!(
            refused.contains("--set: `clip_obs` applies only when `normalize_obs` is `true`"),
            "{refused}"
        );
        assert_eq!(config.build(&config.cpu(1).unwrap()).map(|_| ()).unwrap_err().to_string(), refused);
        config.apply_pair("normalize_obs=true", "--set").unwrap();
        config.check().unwrap();
        assert!(config.to_toml(false).contains("clip_obs = 5.0"));
        // What a preset gave to its own mode is dropped with the mode.
        let mut config = RunConfig::new("ppo", "Acrobot-v1").unwrap();
        assert!(config.to_toml(false).contains("clip_obs"));
        config.apply_pair("normalize_obs=false", "--set").unwrap();
        config.check().unwrap();
        assert!(!config.to_toml(false).contains("clip_obs"));
        let again = RunConfig::from_toml(&config.to_toml(true), "config.toml").unwrap();
        again.check().unwrap();
        assert_eq!(again.to_toml(false), config.to_toml(false));
        let mut config = RunConfig::new("ppo", "CartPole-v1").unwrap();
        assert!(config.to_toml(false).contains("clip_schedule = \"linear\""), "the preset gives it");
        config.apply_pair("objective=kl-adaptive", "--set").unwrap();
        config.check().unwrap();
        let text = config.to_toml(false);
        assert!(!text.contains("clip_schedule") && text.contains("kl_target = 0.01"), "{text}");
        // A file is somebody's wish, and the last word counts.
        config.apply_toml("clip = 0.3\nkl_coef = 1.0", "my.toml").unwrap();
        let refused = config.check().unwrap_err().to_string();
        assert!(
            refused.starts_with("my.toml:1: `clip` applies only when `objective` is `clip`, but"),
            "{refused}"
        );
        config.apply_pair("objective=clip", "--set").unwrap();
        let refused = config.check().unwrap_err().to_string();
        assert!(
            refused.starts_with("my.toml:2: `kl_coef` applies only when `objective` is `kl-a"),
            "{refused}"
        );
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        let mut config = RunConfig::new("ppo", "CartPole-v1").unwrap();
        config.apply_pair("minibatch_size=257", "--set").unwrap();
        let e = config.check().unwrap_err().to_string();
        assert!(e.contains("minibatch_size") && e.contains("256"), "{e}");
    }
}
