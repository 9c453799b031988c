//! The types that a setting can have.

use crate::{FloatRange, IntRange, SettingError, Value, suggest};

/// Most entries of a list.
const MAX_ENTRIES: usize = 64;

/// One alternative of a choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alternative {
    /// Its name in files and on the command line.
    pub name: &'static str,
    /// What it means.
    pub help: String,
}

/// Type and range of a setting.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Int(IntRange),
    /// A number.
    Float(FloatRange),
    /// One of several names.
    Choice(Vec<Alternative>),
    /// A list of whole numbers, each in the range. May be empty.
    List(IntRange),
    /// Text with that many characters.
    Text(IntRange),
    /// The inner type, or `none`.
    Optional(Box<Kind>),
}

/// The text that stands for the absent value of an optional setting.
const NONE: &str = "none";

impl Kind {
    /// The type and range as they stand in an error message: `a number in [0, 1]`.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Bool => "`true` or `false`".to_owned(),
            Self::Int(range) => format!("a whole number, {range}"),
            Self::Float(range) if *range == FloatRange::FINITE => range.to_string(),
            Self::Float(range) => format!("a number in {range}"),
            Self::Choice(all) => all.iter().map(|a| format!("`{}`", a.name)).collect::<Vec<_>>().join(", "),
            Self::List(range) => format!("a list of whole numbers, each {range}"),
            Self::Text(range) if *range == IntRange::ALL => "text".to_owned(),
            Self::Text(range) => format!("text of {range} characters"),
            Self::Optional(inner) => format!("{}, or `none`", inner.describe()),
        }
    }

    /// The range as it stands in help: `1 to 100`, `[0, 1]`, `clip | none`.
    #[must_use]
    pub fn allowed(&self) -> String {
        match self {
            Self::Bool => "true | false".to_owned(),
            Self::Int(range) => range.to_string(),
            Self::Float(range) => range.to_string(),
            Self::Choice(all) => all.iter().map(|a| a.name).collect::<Vec<_>>().join(" | "),
            Self::List(range) => format!("list, each {range}"),
            Self::Text(range) if *range == IntRange::ALL => "text".to_owned(),
            Self::Text(range) => format!("text, {range} characters"),
            Self::Optional(inner) => format!("{} | none", inner.allowed()),
        }
    }

    /// A short name of the type: `bool`, `integer`, `number`, `choice`, `list`, `text`.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int(_) => "integer",
            Self::Float(_) => "number",
            Self::Choice(_) => "choice",
            Self::List(_) => "list",
            Self::Text(_) => "text",
            Self::Optional(inner) => inner.type_name(),
        }
    }

    /// The value that somebody means who writes `text` on a command line: text without quotes, `1e6` and
    /// `1_000_000`, `64,64` or `[64, 64]`. What cannot be read stays text, which [`Kind::check`] then
    /// refuses.
    #[must_use]
    pub fn parse(&self, text: &str) -> Value {
        let text = text.trim();
        let as_text = || Value::Text(unquoted(text).to_owned());
        match self {
            Self::Bool => text.parse().map_or_else(|_| as_text(), Value::Bool),
            Self::Int(_) => number(text).map_or_else(as_text, |x| whole(&x).map_or(x, Value::Int)),
            Self::Float(_) => number(text).unwrap_or_else(as_text),
            Self::Choice(_) | Self::Text(_) => as_text(),
            Self::List(range) => {
                let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
                let inner = inner.trim().trim_end_matches(',');
                if inner.is_empty() {
                    return Value::List(Vec::new());
                }
                Value::List(inner.split(',').map(|item| Self::Int(*range).parse(item)).collect())
            }
            Self::Optional(inner) => {
                if is_none(unquoted(text)) {
                    NONE.into()
                } else {
                    inner.parse(text)
                }
            }
        }
    }

    /// `value` in its normal form (a whole `1e6` becomes an integer, `1` becomes `1.0` for a number), or
    /// what is wrong with it.
    ///
    /// # Errors
    /// When the type is another one or the value lies outside the range. The message names the setting's
    /// `key` and `default`.
    pub fn check(&self, key: &str, default: &Value, value: &Value) -> Result<Value, SettingError> {
        self.check_as(key, default, value, &self.describe())
    }

    fn check_as(
        &self,
        key: &str,
        default: &Value,
        value: &Value,
        expected: &str,
    ) -> Result<Value, SettingError> {
        let wrong_type = || SettingError::Type {
            key: key.to_owned(),
            expected: expected.to_owned(),
            got: value.describe(),
            default: default.to_string(),
        };
        let out_of_range = |got: String| SettingError::Range {
            key: key.to_owned(),
            expected: expected.to_owned(),
            got,
            default: default.to_string(),
        };
        match self {
            Self::Bool => match value {
                Value::Bool(_) => Ok(value.clone()),
                _ => Err(wrong_type()),
            },
            Self::Int(range) => {
                let x = whole(value).ok_or_else(wrong_type)?;
                if range.contains(x) { Ok(Value::Int(x)) } else { Err(out_of_range(value.describe())) }
            }
            Self::Float(range) => {
                let x = match *value {
                    Value::Float(x) => x,
                    Value::Int(x) => x as f64,
                    _ => return Err(wrong_type()),
                };
                if range.contains(x) { Ok(Value::Float(x)) } else { Err(out_of_range(value.describe())) }
            }
            Self::Choice(all) => match value {
                Value::Text(name) if all.iter().any(|a| a.name == name) => Ok(value.clone()),
                _ => Err(SettingError::Choice {
                    key: key.to_owned(),
                    alternatives: expected.to_owned(),
                    got: value.describe(),
                    suggestion: match value {
                        Value::Text(name) => suggest(name, all.iter().map(|a| a.name)).map(str::to_owned),
                        _ => None,
                    },
                    default: default.to_string(),
                }),
            },
            Self::List(range) => {
                let Value::List(items) = value else { return Err(wrong_type()) };
                if items.len() > MAX_ENTRIES {
                    return Err(SettingError::Range {
                        key: key.to_owned(),
                        expected: format!("at most {MAX_ENTRIES} entries"),
                        got: format!("{} of them", items.len()),
                        default: default.to_string(),
                    });
                }
                let kind = Self::Int(*range);
                let each = kind.describe();
                let check = |(i, item)| kind.check_as(&format!("{key}[{i}]"), default, item, &each);
                items.iter().enumerate().map(check).collect::<Result<_, _>>().map(Value::List)
            }
            Self::Text(range) => {
                let Value::Text(text) = value else { return Err(wrong_type()) };
                let count = text.chars().count();
                if range.contains(count as i128) {
                    return Ok(value.clone());
                }
                Err(out_of_range(if count == 0 { value.describe() } else { format!("{count} characters") }))
            }
            Self::Optional(inner) => match value {
                Value::Text(text) if is_none(text) => Ok(NONE.into()),
                _ => inner.check_as(key, default, value, expected),
            },
        }
    }
}

/// `None` is what Python users write.
fn is_none(text: &str) -> bool {
    text.eq_ignore_ascii_case(NONE)
}

/// `text` without the pair of quotes around it, if there is one.
fn unquoted(text: &str) -> &str {
    let strip = |quote| text.strip_prefix(quote)?.strip_suffix(quote);
    strip('"').or_else(|| strip('\'')).unwrap_or(text)
}

/// The number that `text` says: whole, or with a point or an exponent. Infinity and NaN are numbers here: the
/// range refuses them with a better message.
fn number(text: &str) -> Option<Value> {
    let text = text.trim();
    let digits =
        if text.contains(|c: char| c.is_ascii_digit()) { text.replace('_', "") } else { text.to_owned() };
    digits.parse().map(Value::Int).or_else(|_| digits.parse().map(Value::Float)).ok()
}

/// The whole number that `value` is, also when it is written as `1e6`.
fn whole(value: &Value) -> Option<i128> {
    match *value {
        Value::Int(x) => Some(x),
        // Up to 2^64 every whole f64 converts exactly.
        Value::Float(x) if x.fract() == 0.0 && x.abs() <= 2f64.powi(64) => Some(x as i128),
        _ => None,
    }
}

/// A Rust type that a setting's field can have: `bool`, `u32`, `u64`, `usize`, `f64`, `String`, `Vec<usize>`,
/// `Option` of a number, and every enum made with [`choice!`](crate::choice).
pub trait FieldType: Sized {
    /// What the `range:` of a declaration converts into.
    type Range;
    /// The kind with the given range, or with the widest one.
    fn kind(range: Option<Self::Range>) -> Kind;
    /// This value, for reading and writing.
    fn to_value(&self) -> Value;
    /// The field for a value that [`Kind::check`] has returned; `None` when it does not fit this type.
    fn from_value(value: &Value) -> Option<Self>;
}

/// The range of a type that needs none: it cannot be made.
#[derive(Clone, Copy, Debug)]
pub enum NoRange {}

impl FieldType for bool {
    type Range = NoRange;
    fn kind(_: Option<NoRange>) -> Kind {
        Kind::Bool
    }
    fn to_value(&self) -> Value {
        Value::Bool(*self)
    }
    fn from_value(value: &Value) -> Option<Self> {
        if let Value::Bool(x) = value { Some(*x) } else { None }
    }
}

macro_rules! whole_number {
    ($($ty:ty),*) => {$(
        impl FieldType for $ty {
            type Range = IntRange;
            fn kind(range: Option<IntRange>) -> Kind {
                let range = range.unwrap_or(IntRange::ALL);
                // What the type cannot hold is out of range as well.
                Kind::Int(IntRange { high: range.high.min(<$ty>::MAX as u64), ..range })
            }
            fn to_value(&self) -> Value {
                Value::from(*self)
            }
            fn from_value(value: &Value) -> Option<Self> {
                if let Value::Int(x) = value { Self::try_from(*x).ok() } else { None }
            }
        }
    )*};
}
whole_number!(u32, u64, usize);

impl FieldType for f64 {
    type Range = FloatRange;
    fn kind(range: Option<FloatRange>) -> Kind {
        Kind::Float(range.unwrap_or(FloatRange::FINITE))
    }
    fn to_value(&self) -> Value {
        Value::Float(*self)
    }
    fn from_value(value: &Value) -> Option<Self> {
        if let Value::Float(x) = value { Some(*x) } else { None }
    }
}

impl FieldType for String {
    type Range = IntRange;
    fn kind(range: Option<IntRange>) -> Kind {
        Kind::Text(range.unwrap_or(IntRange::ALL))
    }
    fn to_value(&self) -> Value {
        Value::Text(self.clone())
    }
    fn from_value(value: &Value) -> Option<Self> {
        if let Value::Text(x) = value { Some(x.clone()) } else { None }
    }
}

impl FieldType for Vec<usize> {
    type Range = IntRange;
    fn kind(range: Option<IntRange>) -> Kind {
        Kind::List(range.unwrap_or(IntRange::ALL))
    }
    fn to_value(&self) -> Value {
        Value::List(self.iter().map(|&x| Value::from(x)).collect())
    }
    fn from_value(value: &Value) -> Option<Self> {
        let Value::List(items) = value else { return None };
        items.iter().map(usize::from_value).collect()
    }
}

macro_rules! optional_number {
    ($($ty:ty),*) => {$(
        impl FieldType for Option<$ty> {
            type Range = <$ty as FieldType>::Range;
            fn kind(range: Option<Self::Range>) -> Kind {
                Kind::Optional(Box::new(<$ty>::kind(range)))
            }
            fn to_value(&self) -> Value {
                self.as_ref().map_or_else(|| NONE.into(), FieldType::to_value)
            }
            fn from_value(value: &Value) -> Option<Self> {
                if *value == Value::Text(NONE.to_owned()) {
                    return Some(None);
                }
                <$ty>::from_value(value).map(Some)
            }
        }
    )*};
}
optional_number!(u32, u64, usize, f64);

/// Declares an enum that is a setting's type: each alternative with its name in files and its help.
///
/// ```
/// pgrad_settings::choice! {
///     /// What bounds a step.
///     pub enum Objective {
///         /// The ratio is clipped.
///         Clip = "clip",
///         /// Nothing bounds it.
///         Unbounded = "none",
///     }
/// }
/// assert_eq!(Objective::Clip.to_string(), "clip");
/// assert_eq!(Objective::from_name("none"), Some(Objective::Unbounded));
/// ```
#[macro_export]
macro_rules! choice {
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident {
            $( $(#[doc = $help:literal])+ $variant:ident = $text:literal ),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name {
            $( $(#[doc = $help])+ #[doc = concat!("\n\nWritten `", $text, "`.")] $variant ),+
        }
        impl $name {
            /// All alternatives, in the order of their declaration.
            $vis const ALL: &'static [Self] = &[$(Self::$variant),+];
            /// The name in files and on the command line.
            #[must_use]
            $vis const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
            /// The alternative with this name.
            #[must_use]
            $vis fn from_name(name: &str) -> ::core::option::Option<Self> {
                match name { $($text => ::core::option::Option::Some(Self::$variant),)+ _ => ::core::option::Option::None }
            }
        }
        impl ::core::fmt::Display for $name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.write_str(self.name())
            }
        }
        impl $crate::FieldType for $name {
            type Range = $crate::NoRange;
            fn kind(_: ::core::option::Option<$crate::NoRange>) -> $crate::Kind {
                $crate::Kind::Choice(::std::vec![
                    $($crate::Alternative { name: $text, help: $crate::help_text(&[$($help),+]) }),+
                ])
            }
            fn to_value(&self) -> $crate::Value {
                self.name().into()
            }
            fn from_value(value: &$crate::Value) -> ::core::option::Option<Self> {
                match value {
                    $crate::Value::Text(name) => Self::from_name(name),
                    _ => ::core::option::Option::None,
                }
            }
        }
    };
}
