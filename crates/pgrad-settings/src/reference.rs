//! The settings for readers: help for a terminal, a page for the book, and the test of a registry.

use crate::setting::plain;
use crate::{Kind, Setting, Settings};

/// The settings for a terminal of `width` columns: under the title of each struct, each setting with its
/// meaning, its alternatives and its facts.
#[must_use]
pub fn reference_text(settings: &[&dyn Settings], width: usize) -> String {
    let mut out = String::new();
    for group in settings {
        out.push_str(&format!("{}:\n", group.title()));
        for setting in group.declarations() {
            out.push_str(&format!("  {}\n", setting.key));
            let mut texts = vec![format!("      {}", setting.help)];
            texts.extend(alternatives(setting).iter().map(|(name, help)| format!("        {name}: {help}")));
            texts.push(format!("      [{}]", setting.facts()));
            for line in texts.iter().flat_map(|text| wrap(text, width)) {
                out.push_str(&line);
                out.push('\n');
            }
        }
        out.push('\n');
    }
    out
}

/// The settings as a Markdown table for the book, under a heading for each struct.
#[must_use]
pub fn reference_markdown(settings: &[&dyn Settings]) -> String {
    let cell = |text: &str| text.replace('|', "\\|");
    let mut out = String::new();
    for group in settings {
        out.push_str(&format!("## {}\n\n", group.title()));
        out.push_str("| setting | meaning | type | allowed | default | unit | source |\n");
        out.push_str("|---|---|---|---|---|---|---|\n");
        for setting in group.declarations() {
            let mut meaning = setting.help.clone();
            for (name, help) in alternatives(setting) {
                meaning.push_str(&format!("<br>`{name}`: {help}"));
            }
            if let Some(when) = &setting.when {
                meaning.push_str(&format!("<br>Only when {when}."));
            }
            if setting.free {
                meaning.push_str("<br>May be changed on resume.");
            }
            out.push_str(&format!(
                "| `{}` | {} | {} | {} | `{}` | {} | {} |\n",
                setting.key,
                cell(&meaning),
                setting.kind.type_name(),
                cell(&setting.kind.allowed()),
                cell(&plain(&setting.default)),
                setting.unit.unwrap_or("-"),
                cell(setting.source.unwrap_or("-")),
            ));
        }
        out.push('\n');
    }
    out
}

/// What is wrong with declarations, one sentence each; empty when nothing is. For the registry's test.
///
/// Keys must be `lower_snake_case` and unique over all structs, help a sentence of printable ASCII or of the
/// Greek and mathematical letters that papers use, and the default must be allowed. What a setting's `when`
/// names must be another setting, one that always applies, and values that it takes.
#[must_use]
pub fn check_declarations(settings: &[&dyn Settings]) -> Vec<String> {
    let mut findings = Vec::new();
    let mut seen = std::collections::BTreeMap::new();
    for group in settings {
        for setting in group.declarations() {
            let key = setting.key;
            let mut find = |text: String| findings.push(format!("`{key}` of \"{}\" {text}", group.title()));
            if let Some(first) = seen.insert(key, group.title()) {
                find(format!("is also declared in \"{first}\""));
            }
            if !key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
                find("has a name that is not lower_snake_case".to_owned());
            }
            let mut texts = vec![("help", setting.help.as_str())];
            texts.extend(alternatives(setting));
            for (name, help) in texts {
                if !help.ends_with('.') {
                    find(format!("has a text ({name}) that is not a sentence: \"{help}\""));
                }
                if let Some(c) = help.chars().find(|&c| !is_common(c)) {
                    find(format!("has a text ({name}) with the character {c:?}"));
                }
            }
            if let Err(error) = setting.check(&setting.default) {
                find(format!("has a default that it does not take: {error}"));
            }
            let Some(when) = &setting.when else { continue };
            let Some(other) = settings.iter().find_map(|s| s.declaration(when.key)) else {
                find(format!("depends on `{}`, which is not there", when.key));
                continue;
            };
            if other.when.is_some() || other.key == key {
                find(format!("depends on `{}`, which does not always apply", when.key));
            }
            for value in when.values {
                if let Err(error) = other.check(&other.kind.parse(value)) {
                    find(format!("depends on an impossible value: {error}"));
                }
            }
        }
    }
    findings
}

/// Characters that every terminal and font shows: printable ASCII, Latin letters, Greek, the usual signs.
fn is_common(c: char) -> bool {
    matches!(c, ' '..='~' | '\u{a1}'..='\u{17f}' | 'Α'..='ω') || "≤≥≠∞‖√∈∑→".contains(c)
}

/// Names and help of a choice's alternatives; nothing for other kinds.
pub(crate) fn alternatives(setting: &Setting) -> Vec<(&str, &str)> {
    match &setting.kind {
        Kind::Choice(all) => all.iter().map(|a| (a.name, a.help.as_str())).collect(),
        _ => Vec::new(),
    }
}

/// Breaks text at spaces into lines of at most `width` characters; the indentation is kept on every line.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let indent = " ".repeat(text.len() - text.trim_start().len());
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let full = !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width;
        if full {
            lines.push(std::mem::take(&mut line));
        }
        line.push_str(if line.is_empty() { &indent } else { " " });
        line.push_str(word);
    }
    lines.push(line);
    lines
}
