//! What can be wrong with a setting, and with a text of settings.

use std::fmt;
use thiserror::Error;

/// What is wrong with one setting: what came and what was expected. [`SettingError::hint`] says how to mend
/// it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SettingError {
    /// No setting has this name.
    #[error("there is no setting `{key}`")]
    Unknown {
        /// The name that came.
        key: String,
        /// The most similar name, if one is similar.
        suggestion: Option<String>,
    },
    /// A value of another type.
    #[error("`{key}` takes {expected}, but got {got}")]
    Type {
        /// Name of the setting; for an entry of a list with its index, `hidden[1]`.
        key: String,
        /// Type of the setting.
        expected: String,
        /// What came.
        got: String,
        /// Default of the setting, as TOML.
        default: String,
    },
    /// A number outside the range, or not finite; a text of a wrong length.
    #[error("`{key}` takes {expected}, but got {got}")]
    Range {
        /// Name of the setting; for an entry of a list with its index, `hidden[1]`.
        key: String,
        /// Type and range of the setting.
        expected: String,
        /// What came.
        got: String,
        /// Default of the setting, as TOML.
        default: String,
    },
    /// A text that is not one of the alternatives.
    #[error("`{key}` takes one of {alternatives}, but got {got}")]
    Choice {
        /// Name of the setting.
        key: String,
        /// The alternatives, with commas.
        alternatives: String,
        /// What came.
        got: String,
        /// The most similar alternative, if one is similar.
        suggestion: Option<String>,
        /// Default of the setting, as TOML.
        default: String,
    },
    /// Settings that are fine one by one and do not fit together. Made by whoever uses them.
    #[error("{message}")]
    Conflict {
        /// Which settings with which values, and what does not fit.
        message: String,
        /// How to mend it.
        hint: Option<String>,
    },
}

impl SettingError {
    /// How to mend it, in one sentence.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown { suggestion, .. } => suggestion.as_ref().map(|s| format!("did you mean `{s}`?")),
            Self::Conflict { hint, .. } => hint.clone(),
            Self::Choice { suggestion: Some(s), .. } => Some(format!("did you mean `{s}`?")),
            Self::Type { key, default, .. }
            | Self::Range { key, default, .. }
            | Self::Choice { key, default, .. } => {
                let key = key.split('[').next().unwrap_or(key);
                Some(format!("the default is `{key} = {default}`"))
            }
        }
    }
}

/// What is wrong with a text of settings, and where.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// A setting that is wrong.
    #[error("{place}: {error}")]
    Setting {
        /// Where.
        place: Place,
        /// What.
        error: SettingError,
    },
    /// A text that is not TOML; a key that is written twice.
    #[error("{place}: {message}")]
    Syntax {
        /// Where.
        place: Place,
        /// What the TOML reader found.
        message: String,
    },
    /// A `[section]` or a dotted key.
    #[error("{place}: `{key}` opens a section, but settings are plain lines `key = value`")]
    Section {
        /// Where.
        place: Place,
        /// Name of the section.
        key: String,
    },
    /// More errors than are worth telling.
    #[error("{origin}: {count} more errors like these")]
    More {
        /// Name of the text.
        origin: String,
        /// How many.
        count: usize,
    },
    /// A `key=value` without `=`, or without a key.
    #[error("{place}: expected `key=value`, but got `{got}`")]
    Pair {
        /// Where.
        place: Place,
        /// What came.
        got: String,
    },
}

impl ConfigError {
    /// How to mend it, in one sentence.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Setting { error, .. } => error.hint(),
            Self::Syntax { .. } | Self::More { .. } => None,
            Self::Section { .. } => Some("remove the section's line and the dots in keys".to_owned()),
            Self::Pair { .. } => Some("for example `gamma=0.99`, without spaces".to_owned()),
        }
    }
}

/// Where a setting was read: a file and its line, or an option of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Name of the file, the preset or the option.
    pub origin: String,
    /// Line, from 1, when it is a text of many lines.
    pub line: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin)?;
        self.line.map_or(Ok(()), |line| write!(f, ":{line}"))
    }
}

/// Everything that is wrong with a text of settings, in the order of its lines. `Display` has one line for
/// each error and, after it, one for its hint.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct ConfigErrors(
    /// The errors; at least one.
    pub Vec<ConfigError>,
);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
            if let Some(hint) = error.hint() {
                write!(f, "\n  hint: {hint}")?;
            }
        }
        Ok(())
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}
