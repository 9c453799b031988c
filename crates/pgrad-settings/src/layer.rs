//! Reading settings from TOML and from `key=value`, and writing them back.

use crate::reference::{alternatives, wrap};
use crate::setting::{plain, unknown};
use crate::{ConfigError, ConfigErrors, Place, Setting, SettingError, Settings, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Most errors of a text that are told one by one.
const MAX_ERRORS: usize = 10;

/// A setting that somebody gave, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Name of the setting.
    pub key: &'static str,
    /// The file and the line, or the option.
    pub place: Place,
}

/// Refuses settings that were given and do not apply beside the present values of `settings`: see the `when`
/// of [`settings!`](crate::settings).
///
/// # Errors
/// Every such setting, in the order in which they were given, with what it needs.
pub fn check_given(given: &[Given], settings: &[&dyn Settings]) -> Result<(), ConfigErrors> {
    let errors: Vec<ConfigError> = given
        .iter()
        .filter_map(|Given { key, place }| {
            let setting = settings.iter().find_map(|s| s.declaration(key))?;
            let when = setting.when.filter(|_| !setting.applies(settings))?;
            let present = settings.iter().find_map(|s| s.get(when.key))?;
            let values = when.values.join("` or `");
            let error = SettingError::Conflict {
                message: format!(
                    "`{key}` applies only when `{}` is `{values}`, but it is `{}`",
                    when.key,
                    plain(&present)
                ),
                hint: Some(format!("leave `{key}` out, or give `{}={}`", when.key, when.values[0])),
            };
            Some(ConfigError::Setting { place: place.clone(), error })
        })
        .collect();
    if errors.is_empty() { Ok(()) } else { Err(ConfigErrors(errors)) }
}

/// Lays the settings of a TOML text over `settings`, and returns which they were. The text is flat: lines of
/// `key = value`. `origin` names the text in errors (a file, a preset).
///
/// # Errors
/// What is wrong, in the order of the lines: the first ten errors, and how many there are more. Nothing has
/// changed then.
///
/// # Panics
/// When two of the structs declare the same key: [`check_declarations`](crate::check_declarations) finds it.
pub fn apply_toml(
    text: &str,
    origin: &str,
    settings: &mut [&mut dyn Settings],
) -> Result<Vec<Given>, ConfigErrors> {
    assert_no_key_twice(settings);
    let mut errors = Vec::new();
    let mut changes = Vec::new();
    let (mut line, mut seen, mut more) = (1, 0, 0);
    for (key, at, value) in entries(text, origin)? {
        // The entries are in the order of the lines, so each part of the text is looked at once.
        line += text.as_bytes()[seen..at].iter().filter(|&&b| b == b'\n').count();
        seen = at;
        let place = Place { origin: origin.to_owned(), line: Some(line) };
        if errors.len() >= MAX_ERRORS {
            let setting = find(&key, settings);
            let fine = setting.zip(value.ok()).is_some_and(|((_, setting), v)| setting.check(&v).is_ok());
            more += usize::from(!fine);
            continue;
        }
        let Some((which, setting)) = find(&key, settings) else {
            let error = unknown(&key, keys(settings));
            // A section that nobody knows is a section first.
            errors.push(match value {
                Ok(_) | Err(Unreadable::Other(_)) => ConfigError::Setting { place, error },
                Err(Unreadable::Table) => ConfigError::Section { place, key },
            });
            continue;
        };
        let checked = match value {
            Ok(value) => setting.check(&value),
            Err(Unreadable::Table) => {
                errors.push(ConfigError::Section { place, key });
                continue;
            }
            Err(Unreadable::Other(got)) => Err(SettingError::Type {
                key: key.clone(),
                expected: setting.kind.describe(),
                got: got.to_owned(),
                default: setting.default.to_string(),
            }),
        };
        match checked {
            Ok(value) => changes.push((which, setting.key, value, place)),
            Err(error) => errors.push(ConfigError::Setting { place, error }),
        }
    }
    if more > 0 {
        errors.push(ConfigError::More { origin: origin.to_owned(), count: more });
    }
    if !errors.is_empty() {
        return Err(ConfigErrors(errors));
    }
    let mut given = Vec::new();
    for (which, key, value, place) in changes {
        let set = settings[which].set(key, &value);
        set.map_err(|error| ConfigError::Setting { place: place.clone(), error })?;
        given.push(Given { key, place });
    }
    Ok(given)
}

/// Sets one setting from `key=value` as somebody types it: `n_steps=1e3`, `hidden=64,64`, `objective=clip`.
/// Returns which it was. `origin` names the option in errors (`--set`).
///
/// # Errors
/// When it is not `key=value`, there is no such key, or the setting does not take the value.
///
/// # Panics
/// As [`apply_toml`].
pub fn apply_pair(
    pair: &str,
    origin: &str,
    settings: &mut [&mut dyn Settings],
) -> Result<Given, ConfigErrors> {
    match pair.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => apply_text(key.trim(), value, origin, settings),
        _ => {
            let place = Place { origin: origin.to_owned(), line: None };
            Err(ConfigError::Pair { place, got: pair.to_owned() }.into())
        }
    }
}

/// Sets the setting `key` from the text that somebody typed for it, and returns which it was. `origin` names
/// the option in errors.
///
/// # Errors
/// When there is no such key, or the setting does not take the value.
///
/// # Panics
/// As [`apply_toml`].
pub fn apply_text(
    key: &str,
    text: &str,
    origin: &str,
    settings: &mut [&mut dyn Settings],
) -> Result<Given, ConfigErrors> {
    assert_no_key_twice(settings);
    let place = Place { origin: origin.to_owned(), line: None };
    let result = match find(key, settings) {
        Some((which, setting)) => {
            settings[which].set(setting.key, &setting.kind.parse(text)).map(|()| setting.key)
        }
        None => Err(unknown(key, keys(settings))),
    };
    match result {
        Ok(key) => Ok(Given { key, place }),
        Err(error) => Err(ConfigError::Setting { place, error }.into()),
    }
}

/// The value of one key of a TOML text, before it is known which settings the text is for.
///
/// # Errors
/// When the text is not TOML.
pub fn read_key(text: &str, origin: &str, key: &str) -> Result<Option<Value>, ConfigErrors> {
    Ok(entries(text, origin)?.into_iter().find(|(k, ..)| k == key).and_then(|(.., value)| value.ok()))
}

/// The settings as TOML: one line each, in the order of declaration. With comments each has its meaning and
/// its facts above it, and each struct its title. A setting that does not apply is left out; with comments
/// its line is one, too. [`apply_toml`] reads it back to the same bits.
#[must_use]
pub fn to_toml(settings: &[&dyn Settings], with_comments: bool) -> String {
    let mut out = String::new();
    for group in settings {
        if with_comments {
            if !out.is_empty() {
                out.push('\n');
            }
            out.push_str(&format!("# ---- {} ----\n", group.title()));
        }
        for setting in group.declarations() {
            let Some(value) = group.get(setting.key) else { continue };
            let applies = setting.applies(settings);
            if with_comments {
                out.push('\n');
                for line in wrap(&setting.help, 100).into_iter().chain(wrap(&setting.facts(), 100)) {
                    out.push_str(&format!("# {line}\n"));
                }
                for (name, help) in alternatives(setting) {
                    for line in wrap(&format!("  {name}: {help}"), 100) {
                        out.push_str(&format!("# {line}\n"));
                    }
                }
            }
            match (applies, with_comments) {
                (true, _) => out.push_str(&format!("{} = {value}\n", setting.key)),
                (false, true) => out.push_str(&format!("# {} = {value}\n", setting.key)),
                (false, false) => {}
            }
        }
    }
    out
}

/// What TOML can say and no setting takes.
enum Unreadable {
    Table,
    Other(&'static str),
}

/// Name, byte position and value of every entry of a TOML text, in the order of the lines.
type Entries = Vec<(String, usize, Result<Value, Unreadable>)>;

fn entries(text: &str, origin: &str) -> Result<Entries, ConfigErrors> {
    let table = DeTable::parse(text).map_err(|error| {
        let line = error.span().map(|span| line_of(text, span.start));
        // The reader's own messages have several lines; the first says what is wrong.
        let message = error.message().lines().next().unwrap_or("not TOML").to_owned();
        ConfigError::Syntax { place: Place { origin: origin.to_owned(), line }, message }
    })?;
    let mut all: Entries = table
        .get_ref()
        .iter()
        .map(|(key, value)| (key.get_ref().to_string(), key.span().start, from_toml(value)))
        .collect();
    all.sort_by_key(|&(_, at, _)| at);
    Ok(all)
}

fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Value, Unreadable> {
    match value.get_ref() {
        DeValue::Boolean(x) => Ok(Value::Bool(*x)),
        DeValue::String(s) => Ok(Value::Text(s.to_string())),
        DeValue::Integer(x) => i128::from_str_radix(x.as_str(), x.radix())
            .map(Value::Int)
            .map_err(|_| Unreadable::Other("a whole number with too many digits")),
        DeValue::Float(x) => x
            .as_str()
            .parse()
            .map(Value::Float)
            .map_err(|_| Unreadable::Other("a number that cannot be read")),
        DeValue::Array(items) => items.iter().map(from_toml).collect::<Result<_, _>>().map(Value::List),
        DeValue::Datetime(_) => Err(Unreadable::Other("a date or a time")),
        DeValue::Table(_) => Err(Unreadable::Table),
    }
}

/// Line, from 1, of a byte position.
fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|&b| b == b'\n').count() + 1
}

fn keys<'a>(settings: &'a [&mut dyn Settings]) -> impl Iterator<Item = &'static str> + use<'a> {
    settings.iter().flat_map(|s| s.declarations()).map(|s| s.key)
}

/// Which struct declares `key`, and how.
fn find(key: &str, settings: &[&mut dyn Settings]) -> Option<(usize, &'static Setting)> {
    settings.iter().enumerate().find_map(|(i, s)| Some((i, s.declaration(key)?)))
}

fn assert_no_key_twice(settings: &[&mut dyn Settings]) {
    let mut all: Vec<_> = keys(settings).collect();
    all.sort_unstable();
    if let Some(pair) = all.windows(2).find(|pair| pair[0] == pair[1]) {
        panic!("two structs declare the setting `{}`", pair[0]);
    }
}
