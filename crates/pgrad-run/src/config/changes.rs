//! What a configuration has become since a run was begun, and what its end depends on.

use super::{RunConfig, RunConfigError};
use pgrad_algos::Schedule;
use pgrad_settings::FieldType;
use std::collections::{BTreeMap, BTreeSet};

/// A setting that has another value than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its name.
    pub key: String,
    /// Its value before, as TOML; none where it did not apply.
    pub before: Option<String>,
    /// Its value now.
    pub now: Option<String>,
    /// Whether results do not depend on it.
    pub free: bool,
}

/// Settings that came later, and what runs without them did.
const LATER: [(&str, &str); 3] = [("rescale_actions", "none"), ("action_masks", "ignore"), ("obs_parts", "")];

impl RunConfig {
    /// The settings that are others than in `before`, which [`RunConfig::to_toml`] wrote without comments.
    #[must_use]
    pub fn changes_since(&self, before: &str) -> Vec<Change> {
        let now = self.to_toml(false);
        let lines = |text: &str| -> BTreeMap<String, String> {
            let pairs = text.lines().filter_map(|line| line.split_once(" = "));
            pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
        };
        let (mut before, now) = (lines(before), lines(&now));
        for (key, old) in LATER.iter().filter(|(key, _)| now.contains_key(*key)) {
            before.entry((*key).to_owned()).or_insert_with(|| format!("{old:?}"));
        }
        let keys: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
        let is_free =
            |key: &str| self.parts().iter().find_map(|p| p.declaration(key)).is_some_and(|s| s.free);
        keys.into_iter()
            .filter(|key| before.get(*key) != now.get(*key))
            .map(|key| Change {
                key: key.clone(),
                before: before.get(key).cloned(),
                now: now.get(key).cloned(),
                free: is_free(key),
            })
            .collect()
    }
    /// Gives settings that the run of `text` is older than the value that is what it did.
    pub(crate) fn keep_old_meaning(&mut self, text: &str) -> Result<(), RunConfigError> {
        for (key, old) in LATER {
            let is_there = text.lines().any(|line| line.trim_start_matches(['#', ' ']).starts_with(key));
            if !is_there && self.parts().iter().any(|p| p.declaration(key).is_some()) {
                self.apply_pair(&format!("{key}={old}"), "an older run")?;
            }
        }
        Ok(())
    }
    /// The schedules that fall over the whole run, and so depend on its number of steps.
    #[must_use]
    pub fn schedules(&self) -> Vec<&'static str> {
        let parts = self.parts();
        let (kind, constant) = (Schedule::kind(None), Schedule::Constant.to_value());
        parts
            .iter()
            .flat_map(|p| p.declarations().iter().map(move |s| (s, p.get(s.key))))
            .filter(|(s, value)| s.kind == kind && *value != Some(constant.clone()) && s.applies(&parts))
            .map(|(s, _)| s.key)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_changed_is_named_and_what_results_depend_on_is_told_from_the_rest() {
        let config = RunConfig::new("ppo", "gym:CartPole-v1").unwrap();
        let before = config.to_toml(false);
        assert_eq!(config.changes_since(&before), []);
        let free = [
            "steps",
            "checkpoint_steps",
            "checkpoint_secs",
            "keep_checkpoints",
            "log_every",
            "python",
            "env_workers",
            "env_step_secs",
            "env_start_secs",
            "env_restarts",
            "env_restarts_each",
            "on_out_of_bounds",
        ];
        let declared: Vec<&str> =
            config.parts().iter().flat_map(|p| p.declarations()).filter(|s| s.free).map(|s| s.key).collect();
        assert_eq!(declared, free);
        let mut other = config.clone();
        for pair in ["log_every=7", "gamma=0.5", "objective=kl-fixed"] {
            other.apply_pair(pair, "--set").unwrap();
        }
        let change = |key: &str, before: Option<&str>, now: Option<&str>| Change {
            key: key.to_owned(),
            before: before.map(str::to_owned),
            now: now.map(str::to_owned),
            free: free.contains(&key),
        };
        let changes = other.changes_since(&before);
        assert!(changes.contains(&change("log_every", Some("1"), Some("7"))), "{changes:?}");
        assert!(changes.contains(&change("gamma", Some("0.98"), Some("0.5"))), "{changes:?}");
        assert!(
            changes.contains(&change("objective", Some("\"clip\""), Some("\"kl-fixed\""))),
            "{changes:?}"
        );
        assert!(changes.contains(&change("clip_schedule", Some("\"linear\""), None)), "{changes:?}");
    }

    #[test]
    fn the_schedules_that_fall_over_the_run_are_known() {
        let mut config = RunConfig::without_preset("ppo", "CartPole-v1").unwrap();
        assert_eq!(config.schedules(), [""; 0]);
        config.apply_pair("learning_rate_schedule=linear", "--set").unwrap();
        config.apply_pair("clip_schedule=linear", "--set").unwrap();
        assert_eq!(config.schedules(), ["clip_schedule", "learning_rate_schedule"]);
        config.apply_pair("objective=kl-fixed", "--set").unwrap();
        assert_eq!(config.schedules(), ["learning_rate_schedule"], "the clip does not apply");
        assert_eq!(
            RunConfig::without_preset("a2c", "CartPole-v1").unwrap().schedules(),
            ["learning_rate_schedule"]
        );
    }
}
