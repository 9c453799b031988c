//! Reading a study's file.

use super::{Anchor, Entry, EntryError, Measure, Study, StudyError};
use crate::config::{RunConfig, RunConfigError};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use toml::Spanned;

/// Largest file that is read.
pub(super) const MAX_LEN: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StudyFile {
    title: String,
    #[serde(default)]
    note: String,
    #[serde(default = "hundred")]
    episodes: Spanned<usize>,
    entry: Spanned<Vec<Spanned<EntryFile>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryFile {
    label: Option<String>,
    env: String,
    #[serde(default = "ppo")]
    algo: String,
    steps: Spanned<toml::Value>,
    seeds: Seeds,
    #[serde(default = "yes")]
    preset: bool,
    #[serde(default)]
    settings: BTreeMap<Spanned<String>, toml::Value>,
    #[serde(default)]
    anchor: Vec<AnchorFile>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seeds {
    first: u64,
    count: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnchorFile {
    measure: Measure,
    value: f64,
    #[serde(default)]
    standard_error: f64,
    source: String,
}

fn hundred() -> Spanned<usize> {
    Spanned::new(0..0, 100)
}
fn ppo() -> String {
    "ppo".to_owned()
}
fn yes() -> bool {
    true
}

/// A text with its name: where something stands in it.
struct Source<'a> {
    text: &'a str,
    origin: &'a str,
}

impl Source<'_> {
    /// Line, from 1, of a byte of the text.
    fn line(&self, at: usize) -> usize {
        1 + self.text.as_bytes()[..at.min(self.text.len())].iter().filter(|b| **b == b'\n').count()
    }
    fn error(&self, at: usize, message: impl Into<String>) -> StudyError {
        StudyError::File { origin: self.origin.to_owned(), line: self.line(at), message: message.into() }
    }
    /// Sets `key` of a configuration. Errors name the line where it stands.
    fn set(
        &self,
        config: &mut RunConfig,
        at: usize,
        key: &str,
        value: &toml::Value,
    ) -> Result<(), StudyError> {
        let line = toml::Table::from_iter([(key.to_owned(), value.clone())]).to_string();
        // Empty lines bring it to the line that it has in the file.
        let text = format!("{}{line}", "\n".repeat(self.line(at) - 1));
        config.apply_toml(&text, self.origin).map_err(|e| match e {
            RunConfigError::Settings(e) => StudyError::Setting(e),
            other => self.error(at, other.to_string()),
        })
    }
}

pub(super) fn parse(text: &str, origin: &str, name: &str) -> Result<Study, StudyError> {
    let source = Source { text, origin };
    let file: StudyFile =
        toml::from_str(text).map_err(|e| source.error(e.span().map_or(0, |s| s.start), e.message()))?;
    if *file.episodes.get_ref() == 0 {
        return Err(source.error(file.episodes.span().start, "`episodes` is at least 1"));
    }
    let study = Study {
        name: name.to_owned(),
        title: file.title,
        note: file.note.trim().to_owned(),
        episodes: file.episodes.into_inner(),
        entries: Vec::new(),
    };
    let at = file.entry.span().start;
    let entries = file.entry.into_inner();
    if entries.is_empty() {
        return Err(source.error(at, "a study has at least one [[entry]]"));
    }
    entries.into_iter().try_fold(study, |mut study, spanned| {
        let at = spanned.span().start;
        let entry = entry(&source, at, spanned.into_inner())?;
        entry.check().map_err(|e| source.error(at, e.to_string()))?;
        if study.entries.iter().any(|e| e.label == entry.label) {
            let cause = EntryError::Label;
            return Err(source.error(at, StudyError::Entry { entry: entry.label, cause }.to_string()));
        }
        study.entries.push(entry);
        Ok(study)
    })
}

fn entry(source: &Source<'_>, at: usize, file: EntryFile) -> Result<Entry, StudyError> {
    let env = pgrad_envs::find(&file.env).map_err(|e| source.error(at, e.to_string()))?;
    let config = if file.preset {
        RunConfig::new(&file.algo, env.id)
    } else {
        RunConfig::custom(&file.algo, env.id, Arc::new(env.make))
    };
    let mut config = config.map_err(|e| source.error(at, e.to_string()))?;
    source.set(&mut config, file.steps.span().start, "steps", file.steps.get_ref())?;
    for (key, value) in &file.settings {
        let start = key.span().start;
        match key.get_ref().as_str() {
            own @ ("seed" | "steps" | "algo" | "env") => {
                let message = format!("`{own}` is given by the entry itself, not by its settings");
                return Err(source.error(start, message));
            }
            key => source.set(&mut config, start, key, value)?,
        }
    }
    Ok(Entry {
        label: file.label.unwrap_or_else(|| format!("{} {} {}", file.algo, env.id, config.run.steps)),
        config,
        first_seed: file.seeds.first,
        seeds: file.seeds.count,
        anchors: file.anchor.into_iter().map(Anchor::from).collect(),
    })
}

impl From<AnchorFile> for Anchor {
    fn from(a: AnchorFile) -> Self {
        Self { measure: a.measure, value: a.value, standard_error: a.standard_error, source: a.source }
    }
}
