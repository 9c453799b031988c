//! Reading a study's file.

use crate::{
    Anchor, Bound, Entry, EntryError, Evaluated, Measure, MeasuredStudy, Measurement, Source, Study,
    StudyError, embedded,
};
use pgrad_run::config::RunConfig;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt;
use toml::Spanned;

/// The kind of a study of training runs; a file without a kind is one.
pub(crate) const RUNS: &str = "runs";

#[derive(Deserialize)]
struct Head {
    kind: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, bound = "P: DeserializeOwned")]
struct MeasuredFile<P> {
    #[serde(rename = "kind")]
    _kind: String,
    title: String,
    #[serde(default)]
    note: String,
    parameters: P,
    #[serde(default)]
    anchor: Vec<Spanned<BoundFile>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BoundFile {
    quantity: Spanned<String>,
    value: f64,
    at_least: Option<f64>,
    at_most: Option<f64>,
    source: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StudyFile {
    #[serde(rename = "kind")]
    _kind: Option<String>,
    title: String,
    #[serde(default)]
    note: String,
    #[serde(default = "hundred")]
    episodes: Spanned<usize>,
    entry: Spanned<Vec<Spanned<EntryFile>>>,
}

/// A `[[entry]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EntryFile {
    label: Option<String>,
    env: String,
    #[serde(default = "ppo")]
    algo: String,
    steps: Spanned<toml::Value>,
    iterations: Option<u64>,
    seeds: Seeds,
    #[serde(default)]
    preset: PresetFile,
    #[serde(default)]
    evaluation: Evaluated,
    #[serde(default)]
    settings: BTreeMap<Spanned<String>, toml::Value>,
    #[serde(default)]
    anchor: Vec<AnchorFile>,
}

/// Which preset to start from.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum PresetFile {
    /// The tuned one if there is one, or none.
    Any(bool),
    /// The one of that name.
    Named(String),
}

impl Default for PresetFile {
    fn default() -> Self {
        Self::Any(true)
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seeds {
    first: u64,
    count: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AnchorFile {
    measure: Measure,
    value: f64,
    #[serde(default)]
    standard_error: f64,
    #[serde(default)]
    at_most: bool,
    source: String,
}

fn hundred() -> Spanned<usize> {
    Spanned::new(0..0, 100)
}
fn ppo() -> String {
    "ppo".to_owned()
}

/// The kind that a text names, with its place; none for a study of training runs.
pub(crate) fn kind(source: &Source<'_>) -> Result<Option<(String, usize)>, StudyError> {
    let kind = source.read::<Head>()?.kind;
    Ok(kind.map(|k| (k.get_ref().clone(), k.span().start)).filter(|(k, _)| k != RUNS))
}

/// Reads a study whose parameters are `M`.
pub(crate) fn measured<M: Measurement + DeserializeOwned + 'static>(
    source: &Source<'_>,
    name: &str,
    kind: &'static str,
) -> Result<MeasuredStudy, StudyError> {
    let mut file: MeasuredFile<M> = source.read()?;
    file.parameters.check(source)?;
    let known = file.parameters.quantities();
    let anchors = file.anchor.into_iter().map(|a| bound(source, a, &known)).collect::<Result<_, _>>()?;
    Ok(MeasuredStudy {
        name: name.to_owned(),
        kind,
        title: file.title,
        note: file.note.trim().to_owned(),
        measurement: Box::new(file.parameters),
        anchors,
    })
}

fn bound(source: &Source<'_>, spanned: Spanned<BoundFile>, known: &[String]) -> Result<Bound, StudyError> {
    let at = spanned.span().start;
    let BoundFile { quantity, value, at_least, at_most, source: origin } = spanned.into_inner();
    let (name_at, quantity) = (quantity.span().start, quantity.into_inner());
    if !known.contains(&quantity) {
        let hint = pgrad_settings::suggest(&quantity, known.iter().map(String::as_str));
        let hint = hint.map_or_else(String::new, |s| format!("; did you mean `{s}`?"));
        let all = known.iter().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", ");
        let message = format!("there is no quantity `{quantity}`; measured are {all}{hint}");
        return Err(source.error(name_at, message));
    }
    let limits = [at_least, at_most];
    if !value.is_finite() || !limits.iter().flatten().all(|l| l.is_finite()) {
        return Err(source.error(at, "`value`, `at_least` and `at_most` of an anchor are finite"));
    }
    match limits {
        [None, None] => Err(source.error(at, "an anchor has `at_least`, `at_most` or both")),
        [Some(low), Some(high)] if low > high => {
            Err(source.error(at, format!("`at_least` = {low} is above `at_most` = {high}")))
        }
        _ => Ok(Bound { quantity, value, at_least, at_most, source: origin }),
    }
}

/// A kind of measurement, by its name in files.
#[derive(Clone, Copy)]
pub struct Kind {
    /// Its name.
    pub name: &'static str,
    pub(crate) parse: fn(&Source<'_>, &str, &'static str) -> Result<MeasuredStudy, StudyError>,
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kind").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Kind {
    /// The kind called `name` whose parameters are `M`.
    #[must_use]
    pub const fn of<M: Measurement + DeserializeOwned + 'static>(name: &'static str) -> Self {
        Self { name, parse: measured::<M> }
    }
}

impl Study {
    /// The study of training runs with this name, or else in this file.
    /// [`AnyStudy::load`](crate::AnyStudy::load) reads those of other kinds too.
    ///
    /// # Errors
    /// When there is none, it is of another kind, or wrong in any way: with the line.
    pub fn load(name_or_file: &str) -> Result<Self, StudyError> {
        let (text, origin) = embedded::text_of(name_or_file)?;
        Self::parse(&text, &origin, name_or_file)
    }
    /// The study in a text. `origin` names the text in errors, `name` the study in tables.
    ///
    /// # Errors
    /// When it is wrong in any way: with the line.
    pub fn parse(text: &str, origin: &str, name: &str) -> Result<Self, StudyError> {
        parse(text, origin, name)
    }
}

pub(crate) fn parse(text: &str, origin: &str, name: &str) -> Result<Study, StudyError> {
    let source = Source { text, origin };
    if let Some((kind, at)) = kind(&source)? {
        let message =
            format!("a study of training runs has no kind, or the kind `{RUNS}`, but this has `{kind}`");
        return Err(source.error(at, message));
    }
    let file: StudyFile = source.read()?;
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

/// The entry that begins at a byte of the text.
pub(crate) fn entry(source: &Source<'_>, at: usize, file: EntryFile) -> Result<Entry, StudyError> {
    let config = match &file.preset {
        PresetFile::Any(true) => RunConfig::new(&file.algo, &file.env),
        PresetFile::Any(false) => RunConfig::without_preset(&file.algo, &file.env),
        PresetFile::Named(name) => RunConfig::with_preset(&file.algo, &file.env, name),
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
        label: file.label.unwrap_or_else(|| format!("{} {} {}", file.algo, file.env, config.run.steps)),
        config,
        iterations: file.iterations,
        evaluated: file.evaluation,
        first_seed: file.seeds.first,
        seeds: file.seeds.count,
        anchors: file.anchor.into_iter().map(Anchor::from).collect(),
    })
}

impl From<AnchorFile> for Anchor {
    fn from(a: AnchorFile) -> Self {
        let AnchorFile { measure, value, standard_error, at_most, source } = a;
        Self { measure, value, standard_error, at_most, source }
    }
}
