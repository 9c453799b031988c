//! A study of either sort.

use crate::file::{self, Kind};
use crate::{KINDS, MeasuredStudy, Source, Study, StudyError, embedded};

/// A study of either sort, as its file says.
#[derive(Debug)]
pub enum AnyStudy {
    /// Algorithms x environments x seeds: a file without `kind`, or with `kind = "runs"`.
    Runs(Study),
    /// A measurement.
    Measured(MeasuredStudy),
}

impl AnyStudy {
    /// The study with this name, or else in this file.
    ///
    /// # Errors
    /// When there is none, or it is wrong in any way: with the line.
    pub fn load(name_or_file: &str) -> Result<Self, StudyError> {
        let (text, origin) = embedded::text_of(name_or_file)?;
        Self::parse_with(&text, &origin, name_or_file, KINDS)
    }
    /// The study in a text, which may be of one of these kinds. `origin` names the text in errors, `name` the
    /// study in tables.
    ///
    /// # Errors
    /// When it is wrong in any way: with the line.
    pub fn parse_with(text: &str, origin: &str, name: &str, kinds: &[Kind]) -> Result<Self, StudyError> {
        let source = Source { text, origin };
        let Some((kind, at)) = file::kind(&source)? else {
            return Ok(Self::Runs(file::parse(text, origin, name)?));
        };
        match kinds.iter().find(|k| k.name == kind) {
            Some(found) => Ok(Self::Measured((found.parse)(&source, name, found.name)?)),
            None => {
                let names = || [file::RUNS].into_iter().chain(kinds.iter().map(|k| k.name));
                let known = names().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
                let hint = pgrad_settings::suggest(&kind, names());
                let hint = hint.map_or_else(String::new, |s| format!("; did you mean `{s}`?"));
                Err(source.error(at, format!("there is no kind `{kind}` of study; there are {known}{hint}")))
            }
        }
    }
    /// Title of its tables.
    #[must_use]
    pub fn title(&self) -> &str {
        match self {
            Self::Runs(study) => &study.title,
            Self::Measured(study) => &study.title,
        }
    }
    /// How much it is, for a list.
    #[must_use]
    pub fn extent(&self) -> String {
        match self {
            Self::Runs(study) => {
                let runs: u64 = study.entries.iter().map(|e| e.seeds).sum();
                format!("{} entries, {runs} runs", study.entries.len())
            }
            Self::Measured(study) => study.measurement.extent(),
        }
    }
}
