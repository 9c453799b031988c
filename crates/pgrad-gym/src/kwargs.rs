//! Keyword arguments on their way from a setting to Python.

use pgrad_env::{MakeError, MakeErrorKind};
use serde_json::Value as Json;
use std::fmt::Write as _;

/// A table of keyword arguments, as text that Python's `json` reads: JSON, and `Infinity`, `-Infinity` and
/// `NaN`, which JSON lacks and environments take (`healthy_z_range = [0.7, inf]`).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Kwargs {
    json: String,
    keys: Vec<String>,
}

impl Kwargs {
    /// Reads [`GymSettings::env_kwargs`](crate::GymSettings::env_kwargs): a TOML table or a JSON object. What
    /// arrives in Python is what was written: whole numbers, numbers, texts, truth values, lists and tables,
    /// to any depth.
    pub(crate) fn parse(text: &str) -> Result<Self, MakeError> {
        let text = if text.trim().is_empty() { "{}" } else { text.trim() };
        // Passed on as it is: Python reads numbers of any length.
        if let Ok(Json::Object(object)) = serde_json::from_str(text) {
            return Ok(Self {
                json: text.to_owned(),
                keys: object.into_iter().map(|(key, _)| key).collect(),
            });
        }
        let table = toml::from_str::<toml::Table>(&format!("kwargs = {text}"));
        let Some(toml::Value::Table(table)) = table.ok().and_then(|mut t| t.remove("kwargs")) else {
            let e = format!("`env_kwargs` = {text:?} is neither a TOML table nor a JSON object");
            return Err(MakeError::new(MakeErrorKind::Usage, e).with_hint("for example `{ gravity = -5.0 }`"));
        };
        let keys = table.keys().cloned().collect();
        let mut json = String::new();
        write_value(&mut json, "", &toml::Value::Table(table)).map_err(|at| {
            let e = format!(
                "`env_kwargs` has a date or a time at `{at}`, which Python would get as something else"
            );
            MakeError::new(MakeErrorKind::Usage, e)
                .with_hint("write it as text, in quotes, if the environment takes that")
        })?;
        Ok(Self { json, keys })
    }
    pub(crate) fn has(&self, key: &str) -> bool {
        self.keys.iter().any(|k| k == key)
    }
    pub(crate) fn as_json(&self) -> &str {
        &self.json
    }
}

/// Appends `value`; where it is one that cannot be written, says which, by its key.
fn write_value(json: &mut String, at: &str, value: &toml::Value) -> Result<(), String> {
    match value {
        toml::Value::String(text) => json.push_str(&quoted(text)),
        toml::Value::Boolean(x) => json.push_str(if *x { "true" } else { "false" }),
        toml::Value::Integer(x) => json.push_str(&x.to_string()),
        toml::Value::Float(x) if x.is_nan() => json.push_str("NaN"),
        toml::Value::Float(x) if x.is_infinite() => {
            json.push_str(if *x > 0.0 { "Infinity" } else { "-Infinity" });
        }
        // With a point or an exponent, so that it stays a float.
        toml::Value::Float(x) => json.push_str(&format!("{x:?}")),
        toml::Value::Datetime(_) => return Err(at.to_owned()),
        toml::Value::Array(items) => {
            json.push('[');
            for (i, item) in items.iter().enumerate() {
                json.push_str(if i > 0 { "," } else { "" });
                write_value(json, &format!("{at}[{i}]"), item)?;
            }
            json.push(']');
        }
        toml::Value::Table(table) => {
            json.push('{');
            for (i, (key, value)) in table.iter().enumerate() {
                // Writing to a string cannot fail.
                let _ = write!(json, "{}{}:", if i > 0 { "," } else { "" }, quoted(key));
                let dot = if at.is_empty() { "" } else { "." };
                write_value(json, &format!("{at}{dot}{key}"), value)?;
            }
            json.push('}');
        }
    }
    Ok(())
}

fn quoted(text: &str) -> String {
    Json::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> String {
        Kwargs::parse(text).unwrap().as_json().to_owned()
    }

    #[test]
    fn what_was_written_arrives() {
        let toml = r#"{ a = 1, b = 1.0, c = [0.7, inf, [-inf, nan]], d = { e = true, "f g" = "x\"\u00e9" }, h = 1e300 }"#;
        assert_eq!(
            json(toml),
            r#"{"a":1,"b":1.0,"c":[0.7,Infinity,[-Infinity,NaN]],"d":{"e":true,"f g":"x\"é"},"h":1e300}"#
        );
        let long = r#"{"n": 123456789012345678901234567890, "x": 2.0, "none": null}"#;
        assert_eq!(json(long), long, "JSON goes on as it is");
        assert_eq!(json("  "), "{}");
        let kwargs = Kwargs::parse("{ seed = 1 }").unwrap();
        assert!(kwargs.has("seed") && !kwargs.has("see"));
    }

    #[test]
    fn what_cannot_be_carried_is_refused_by_its_key() {
        let e = Kwargs::parse("{ a = { days = [1, 2024-05-01] } }").unwrap_err();
        assert!(e.kind == MakeErrorKind::Usage && e.message.contains("`a.days[1]`"), "{e}");
        for text in ["7", "[1]", "{ a = }", "{\"a\": Infinity}"] {
            let e = Kwargs::parse(text).unwrap_err();
            assert!(e.message.contains("neither a TOML table nor a JSON object"), "{e}");
        }
    }
}
