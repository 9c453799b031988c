//! What there is: algorithms, environments, and the settings of an algorithm.

use crate::args::{SettingArgs, Task};
use crate::failure::{Code, Failure, Result};
use pgrad_algos::AlgoEntry;
use pgrad_run::config::{RunConfig, RunSettings};
use pgrad_run::env::NamedEnv;
use pgrad_settings::{Settings, Value, read_key, reference_text};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Columns of help.
const HELP_WIDTH: usize = 96;

/// The algorithm when none is named.
pub(crate) const DEFAULT_ALGO: &str = "ppo";
/// The environment when none is named.
pub(crate) const DEFAULT_ENV: &str = "CartPole-v1";

/// The algorithm called `name`.
///
/// # Errors
/// When there is none, with what was probably meant.
pub(crate) fn algo(name: &str) -> Result<&'static AlgoEntry> {
    pgrad_algos::find(name).ok_or_else(|| {
        let names = pgrad_algos::REGISTRY.iter().map(|e| e.name);
        let failure = Failure::unknown_name("algorithm", name, names, "pgrad list algos");
        if let Some(env) = NamedEnv::meant(name) {
            return failure.hint(format!("give the algorithm first: `pgrad train {DEFAULT_ALGO} {env}`"));
        }
        failure
    })
}

/// The environment called `id`.
///
/// # Errors
/// When there is none, with what was probably meant.
pub(crate) fn env(id: &str) -> Result<NamedEnv> {
    Ok(NamedEnv::find(id)?)
}

/// The long help of all settings of an algorithm, those of the run first.
pub(crate) fn settings_help(algo: &AlgoEntry) -> String {
    let (run, config) = (RunSettings::default(), (algo.config)());
    let mut parts: Vec<&dyn Settings> = vec![&run];
    parts.extend(config.parts());
    format!(
        "Settings of {name} (as `--set KEY=VALUE`, or as lines `KEY = VALUE` of the --config file). Presets\n\
         have values of their own: `pgrad show {name} ENV` prints what would be used.\n\n{all}",
        name = algo.name,
        all = reference_text(&parts, HELP_WIDTH)
    )
}

/// The configuration that was asked for: defaults, then the preset, then the file, then the options; `steps`
/// is what `--steps` said.
///
/// # Errors
/// When a name or a setting is wrong, or the settings do not fit together. What an environment from elsewhere
/// has to say to them comes when it is opened: [`RunConfig::check`].
pub(crate) fn config(task: &Task, args: &SettingArgs, steps: Option<&str>) -> Result<RunConfig> {
    let file = match &args.config {
        Some(path) => {
            let text = read_config(path).map_err(|e| Failure::reading(path, &e))?;
            Some((text, path.display().to_string()))
        }
        None => None,
    };
    let named = |key: &str| -> Result<Option<String>> {
        let Some((text, origin)) = &file else { return Ok(None) };
        match read_key(text, origin, key)? {
            Some(Value::Text(name)) => Ok(Some(name)),
            _ => Ok(None),
        }
    };
    // A name in the file is looked up like one that was typed, but the message says where it stands.
    let from_file = |failure: Failure| match &file {
        Some((_, origin)) => failure.at(origin),
        None => failure,
    };
    let algo = match (&task.algo, named("algo")?) {
        (Some(name), _) => algo(name)?,
        (None, Some(name)) => algo(&name).map_err(from_file)?,
        (None, None) => algo(DEFAULT_ALGO)?,
    };
    let env = match (&task.env, named("env")?) {
        (Some(id), _) => env(id)?,
        (None, Some(id)) => env(&id).map_err(from_file)?,
        (None, None) => env(DEFAULT_ENV)?,
    };
    let all = format!("`pgrad show {} {}` prints all settings", algo.name, env.id());
    let mut config = match &args.preset {
        Some(name) => RunConfig::with_preset(algo.name, env.id(), name)?,
        None => RunConfig::new(algo.name, env.id())?,
    };
    if let Some((text, origin)) = &file {
        config.apply_toml(text, origin).map_err(|e| Failure::from(e).hint_where_none(&all))?;
    }
    // All that is wrong with the options is said at once.
    let mut problems = Vec::new();
    let typed = args
        .options()
        .chain(steps.map(|text| ("steps", "--steps", text)))
        .map(|(key, option, text)| (format!("{key}={text}"), option));
    for (pair, option) in args.set.iter().map(|pair| (pair.clone(), "--set")).chain(typed) {
        if let Err(error) = config.apply_pair(&pair, option) {
            problems.extend(Failure::from(error).problems);
        }
    }
    if !problems.is_empty() {
        return Err(Failure { code: Code::Usage, problems, silent: false }.hint_where_none(&all));
    }
    // To show settings nothing has to be installed.
    config.check_at_home()?;
    Ok(config)
}

/// The text of a configuration, which may come through a pipe but not without end.
fn read_config(path: &Path) -> io::Result<String> {
    const MAX_LEN: u64 = 1 << 20;
    let mut text = String::new();
    File::open(path)?.take(MAX_LEN + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_LEN {
        let what = format!("it has more than {MAX_LEN} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
    }
    Ok(text)
}
