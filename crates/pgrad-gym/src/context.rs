//! What all batches of a run share, and how a failure to start is told.

use crate::known::{package_of, pip_of};
use crate::monitor::Monitor;
use crate::name::{Source, parse_name};
use crate::process::{StartError, indented};
use crate::recipe::{PoolPlan, Recipe};
use crate::spaces::Spaces;
use pgrad_env::{EnvSpec, MakeError, MakeErrorKind};
use std::sync::atomic::{AtomicUsize, Ordering};

/// What all batches of a run share.
pub(crate) struct Context {
    pub(crate) recipe: Recipe,
    /// Batches that there are.
    pub(crate) batches: AtomicUsize,
    pub(crate) spaces: Spaces,
    pub(crate) spec: EnvSpec,
    pub(crate) monitor: Monitor,
}

impl Context {
    fn batches(&self) -> usize {
        self.batches.load(Ordering::Relaxed).max(1)
    }
    /// Processes, or threads, for one batch: as many as asked for, else as many as are one for each core with
    /// all batches that there are.
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
        // Who looks while others work takes a core from them; a pool of one thread has the core of who would
        // look.
        PoolPlan { seeds, threads, watched: threads > 1 && self.batches() < self.recipe.cores }
    }
    /// A failure to start, for who asked.
    pub(crate) fn explain(&self, error: &StartError) -> MakeError {
        explain(&self.recipe.id(), &self.recipe.settings.python, error)
    }
}

pub(crate) fn explain(id: &str, python: &str, error: &StartError) -> MakeError {
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
        // The module that the name begins with may be a file of the user's own, found from the folder that it
        // is in.
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
