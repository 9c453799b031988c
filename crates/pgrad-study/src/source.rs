//! The text of a study, and errors that say where something stands in it.

use crate::StudyError;
use pgrad_run::config::{RunConfig, RunConfigError};
use serde::de::DeserializeOwned;

/// A text with its name: where something stands in it.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    pub(crate) text: &'a str,
    pub(crate) origin: &'a str,
}

impl Source<'_> {
    /// Line, from 1, of a byte of the text.
    #[must_use]
    pub fn line(&self, at: usize) -> usize {
        1 + self.text.as_bytes()[..at.min(self.text.len())].iter().filter(|b| **b == b'\n').count()
    }
    /// An error about what begins at a byte of the text.
    #[must_use]
    pub fn error(&self, at: usize, message: impl Into<String>) -> StudyError {
        StudyError::File { origin: self.origin.to_owned(), line: self.line(at), message: message.into() }
    }
    /// Reads the text. An unknown key is answered with the one that was probably meant.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, StudyError> {
        toml::from_str(self.text).map_err(|e| {
            let message = e.message();
            let mut names = message.split('`').skip(1).step_by(2);
            let meant = match names.next() {
                Some(got) if message.starts_with("unknown ") => pgrad_settings::suggest(got, names),
                _ => None,
            };
            let hint = meant.map_or_else(String::new, |m| format!("; did you mean `{m}`?"));
            self.error(e.span().map_or(0, |s| s.start), format!("{message}{hint}"))
        })
    }
    /// Sets `key` of a configuration. Errors name the line where it stands.
    pub(crate) fn set(
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
