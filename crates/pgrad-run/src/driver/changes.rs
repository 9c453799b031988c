//! Settings that were changed between the parts of a run.

use super::MAX_CONFIG_LEN;
use super::error::{RunError, StateError};
use crate::checkpoint::Loaded;
use crate::config::{Change, RunConfig};
use crate::run_dir::RunDir;
use crate::storage::{Storage, write_atomic};
use std::path::Path;

/// The settings in a checkpoint.
pub(super) const SETTINGS: &str = "settings.toml";

/// The settings that were changed since a checkpoint was saved in the folder `path`.
///
/// # Errors
/// When results depend on one of them.
pub(super) fn find(
    config: &RunConfig,
    dir: &RunDir,
    path: &Path,
    loaded: &Loaded,
) -> Result<Vec<Change>, RunError> {
    let Some(before) = loaded.files.get(SETTINGS) else {
        return Err(RunError::State { path: path.to_owned(), cause: StateError::Missing { name: SETTINGS } });
    };
    let (free, refused): (Vec<_>, Vec<_>) =
        config.changes_since(&String::from_utf8_lossy(before)).into_iter().partition(|c| c.free);
    if refused.is_empty() {
        return Ok(free);
    }
    Err(RunError::Changed { config: dir.config(), step: loaded.step, changes: refused })
}

/// One line for each setting that is refused, and how to go on.
pub(super) fn refusal(config: &Path, step: u64, changes: &[Change]) -> String {
    let line = |c: &Change| {
        format!(
            "`{}` was {} when the checkpoint of step {step} was saved, and is {} now; results depend on it\n",
            c.key,
            value(c.before.as_ref()),
            value(c.now.as_ref())
        )
    };
    let config = config.display();
    let hint = format!(
        "  hint: set it back in `{config}` to go on; `pgrad train --config {config}` begins a new run with it"
    );
    changes.iter().map(line).collect::<String>() + &hint
}

/// What is said of a setting that may be changed.
pub(super) fn notice(change: &Change, config: &RunConfig) -> String {
    let (now, before) = (value(change.now.as_ref()), value(change.before.as_ref()));
    let mut text = format!("`{}` is {now} (was {before})", change.key);
    let schedules = config.schedules();
    if change.key == "steps" && !schedules.is_empty() {
        text.push_str(&format!(
            "; `{}` now ends there, so the rest is not learnt as in a run that was begun with this number of steps",
            schedules.join("` and `")
        ));
    }
    text
}

fn value(value: Option<&String>) -> &str {
    value.map_or("not in use", String::as_str)
}

/// Adds the changes to the record in the run's folder, unless a resume that came no further has done so.
pub(super) fn keep(
    storage: &dyn Storage,
    dir: &RunDir,
    step: u64,
    changes: &[Change],
) -> Result<(), RunError> {
    let line = |c: &Change| {
        format!("{}\n", serde_json::json!({ "step": step, "setting": c.key, "from": c.before, "to": c.now }))
    };
    let lines: String = changes.iter().map(line).collect();
    let path = dir.changes();
    let mut text = match storage.kind(&path)? {
        Some(_) => String::from_utf8_lossy(&storage.read(&path, MAX_CONFIG_LEN)?).into_owned(),
        None => String::new(),
    };
    if !text.ends_with(&lines) {
        text.push_str(&lines);
        write_atomic(storage, &path, text.as_bytes())?;
    }
    Ok(())
}
