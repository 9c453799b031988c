//! The value of a setting, whatever its type.

use std::fmt;

/// The value of a setting, as it is read and written. `Display` writes it as TOML.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number; wide enough for every `u64` and for what is too small or too large.
    Int(i128),
    /// A number.
    Float(f64),
    /// Text, the name of an alternative, or `none`.
    Text(String),
    /// A list.
    List(Vec<Value>),
}

impl Value {
    /// What this is, in the words of an error message: ``the text `abc` ``, `the number 1.5`.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Bool(_) => format!("`{self}`"),
            Self::Int(_) => format!("the whole number {self}"),
            Self::Float(x) if x.is_nan() => "NaN, which is not a number".to_owned(),
            Self::Float(_) => format!("the number {self}"),
            Self::Text(s) if s.is_empty() => "an empty text".to_owned(),
            Self::Text(s) => format!("the text `{s}`"),
            Self::List(_) => format!("the list {self}"),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(x) => write!(f, "{x}"),
            Self::Int(x) => write!(f, "{x}"),
            Self::Float(x) if x.is_nan() => f.write_str("nan"),
            // `{:?}` is the shortest text that reads back as the same number, and always has a point or an
            // exponent, as TOML asks.
            Self::Float(x) => write!(f, "{x:?}"),
            Self::Text(s) => write_basic_string(f, s),
            Self::List(items) => {
                f.write_str("[")?;
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        f.write_str(", ")?;
                    }
                    write!(f, "{item}")?;
                }
                f.write_str("]")
            }
        }
    }
}

/// Writes `s` as a TOML basic string: on one line, with everything escaped that has to be.
fn write_basic_string(f: &mut fmt::Formatter<'_>, s: &str) -> fmt::Result {
    f.write_str("\"")?;
    for c in s.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            c if c.is_control() => write!(f, "\\u{:04X}", u32::from(c))?,
            c => write!(f, "{c}")?,
        }
    }
    f.write_str("\"")
}

impl From<bool> for Value {
    fn from(x: bool) -> Self {
        Self::Bool(x)
    }
}
impl From<u32> for Value {
    fn from(x: u32) -> Self {
        Self::Int(i128::from(x))
    }
}
impl From<u64> for Value {
    fn from(x: u64) -> Self {
        Self::Int(i128::from(x))
    }
}
impl From<usize> for Value {
    fn from(x: usize) -> Self {
        Self::Int(x as i128)
    }
}
impl From<f64> for Value {
    fn from(x: f64) -> Self {
        Self::Float(x)
    }
}
impl From<&str> for Value {
    fn from(x: &str) -> Self {
        Self::Text(x.to_owned())
    }
}
impl From<String> for Value {
    fn from(x: String) -> Self {
        Self::Text(x)
    }
}
