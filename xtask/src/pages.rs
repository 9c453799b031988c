//! What a Markdown page claims about other files: links, and lines of code that it quotes.
//!
//! A link to a line of a source file is followed by the text that stands there:
//! `[ppo.rs:12](../ppo.rs#L12)<!-- "let x = 1;" -->`. A piece of code that the book includes is preceded by
//! the texts of its first and last line: `<!-- "fn f()" to "} // f" -->`, then the block with
//! `{{#include ../ppo.rs:12:20}}`. So a line number that has become wrong is found, and can be mended.

use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// All files under `folder` whose name ends in `.ext` (every file when `ext` is empty), in name order.
///
/// # Errors
/// When a folder cannot be read.
pub(crate) fn files(folder: &Path, ext: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in
            std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?
        {
            let path = entry?.path();
            if path.is_dir() {
                if path.file_name().is_none_or(|n| n != "__pycache__") {
                    open.push(path);
                }
            } else if ext.is_empty() || path.extension().is_some_and(|e| e == ext) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// What is wrong in a page, and the page with its line numbers mended.
#[derive(Debug, PartialEq)]
pub(crate) struct Checked {
    /// A line each, with the place in the page.
    pub(crate) problems: Vec<String>,
    /// Problems that the mended text does not have.
    pub(crate) stale: Vec<String>,
    /// The page with the line numbers of today.
    pub(crate) mended: String,
}

/// Checks `text`, the page that lies at `path`; `read` gives the text of a file, or `None` when there is none.
pub(crate) fn check(path: &Path, text: &str, read: &dyn Fn(&Path) -> Option<String>) -> Checked {
    let mut out = Checked { problems: Vec::new(), stale: Vec::new(), mended: String::new() };
    let folder = path.parent().unwrap_or(Path::new(""));
    let (mut fenced, mut quoted) = (false, None);
    for (number, line) in text.lines().enumerate() {
        let place = format!("{}:{}", path.display(), number + 1);
        let mended = if line.trim_start().starts_with("```") {
            fenced = !fenced;
            line.to_owned()
        } else if fenced {
            include(line, folder, quoted.as_ref(), read, &place, &mut out)
        } else {
            quoted = span(line).or(quoted.filter(|_| line.trim().is_empty()));
            links(line, path, folder, text, read, &place, &mut out)
        };
        out.mended.push_str(&mended);
        out.mended.push('\n');
    }
    out
}

/// The texts of `<!-- "first" to "last" -->`.
fn span(line: &str) -> Option<(String, String)> {
    let inner = line.trim().strip_prefix("<!-- \"")?.strip_suffix("\" -->")?;
    let (first, last) = inner.split_once("\" to \"")?;
    Some((first.to_owned(), last.to_owned()))
}

/// Checks the links of a line; returns it with line numbers mended.
fn links(
    line: &str,
    path: &Path,
    folder: &Path,
    text: &str,
    read: &dyn Fn(&Path) -> Option<String>,
    place: &str,
    out: &mut Checked,
) -> String {
    let (mut rest, mut mended) = (line, String::new());
    while let Some(open) = next_link(rest) {
        let close = open + rest[open..].find("](").unwrap_or(0);
        let Some(end) = rest[close..].find(')').map(|i| close + i) else { break };
        let (label, target) = (&rest[open + 1..close], &rest[close + 2..end]);
        mended.push_str(&rest[..open]);
        let after = &rest[end + 1..];
        let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
        let mut link = format!("[{label}]({target})");
        if target.contains("://") || target.starts_with("mailto:") {
            // Other people's pages are not ours to check.
        } else if let Some(number) = fragment.strip_prefix('L').and_then(|n| n.parse::<usize>().ok()) {
            let quote = after.strip_prefix("<!-- \"").and_then(|q| q.split_once("\" -->")).map(|q| q.0);
            match (quote, read(&normal(&folder.join(file)))) {
                (_, None) => out.problems.push(format!("{place}: there is no file `{file}`")),
                (None, _) => out.problems.push(format!(
                    "{place}: the link to `{target}` is not followed by the quoted line, `<!-- \"...\" -->`"
                )),
                (Some(quote), Some(source)) => match find(&source, quote, number) {
                    Err(why) => out.problems.push(format!("{place}: {why} `{file}`")),
                    Ok(now) => {
                        let old = format!(":{number}");
                        let shown = label.strip_suffix(&old).map(|name| format!("{name}:{now}"));
                        if now != number {
                            out.stale
                                .push(format!("{place}: `{quote}` is line {now} of `{file}`, not {number}"));
                        } else if shown.is_none() {
                            out.problems.push(format!(
                                "{place}: the text of the link to `{target}` must end in `{old}`"
                            ));
                        }
                        link = format!("[{}]({file}#L{now})", shown.as_deref().unwrap_or(label));
                    }
                },
            }
        } else {
            let target_path = if file.is_empty() { path.to_owned() } else { normal(&folder.join(file)) };
            let page = if file.is_empty() { Some(text.to_owned()) } else { read(&target_path) };
            match page {
                None => out.problems.push(format!("{place}: there is nothing at `{target}`")),
                Some(page) if !fragment.is_empty() && !anchors(&page).contains(fragment) => {
                    out.problems.push(format!("{place}: `{file}` has no heading `#{fragment}`"));
                }
                Some(_) => {}
            }
        }
        mended.push_str(&link);
        rest = after;
    }
    mended + rest
}

/// Where the next `[label](` begins that is not inside `code`.
fn next_link(line: &str) -> Option<usize> {
    let mut code = false;
    for (i, c) in line.char_indices() {
        match c {
            '`' => code = !code,
            '[' if !code => {
                let close = line[i..].find("](").map(|j| i + j)?;
                // Another opening bracket in between begins a link of its own.
                if !line[i + 1..close].contains(['[', ']']) {
                    return Some(i);
                }
            }
            _ => {}
        }
    }
    None
}

/// Checks a line of a code block that includes lines of a file; returns it mended.
fn include(
    line: &str,
    folder: &Path,
    quoted: Option<&(String, String)>,
    read: &dyn Fn(&Path) -> Option<String>,
    place: &str,
    out: &mut Checked,
) -> String {
    let Some(inner) = line.trim().strip_prefix("{{#include ").and_then(|l| l.strip_suffix("}}")) else {
        return line.to_owned();
    };
    let mut parts = inner.split(':');
    let file = parts.next().unwrap_or_default();
    let lines: Vec<usize> = parts.filter_map(|n| n.parse().ok()).collect();
    let Some(source) = read(&normal(&folder.join(file))) else {
        out.problems.push(format!("{place}: there is no file `{file}`"));
        return line.to_owned();
    };
    let [first, last] = lines[..] else { return line.to_owned() };
    let Some((first_text, last_text)) = quoted else {
        out.problems
            .push(format!("{place}: no `<!-- \"first line\" to \"last line\" -->` stands before the block"));
        return line.to_owned();
    };
    let now = find(&source, first_text, first).and_then(|a| Ok((a, find_after(&source, last_text, a)?)));
    match now {
        Err(why) => {
            out.problems.push(format!("{place}: {why} `{file}`"));
            line.to_owned()
        }
        Ok((a, b)) => {
            if (a, b) != (first, last) {
                out.stale.push(format!(
                    "{place}: the piece of `{file}` is lines {a} to {b}, not {first} to {last}"
                ));
            }
            format!("{{{{#include {file}:{a}:{b}}}}}")
        }
    }
}

/// The line (from 1) that contains `quote`: `near` when it does, else the only one that does.
fn find(source: &str, quote: &str, near: usize) -> Result<usize, String> {
    let all: Vec<usize> =
        source.lines().enumerate().filter(|(_, l)| l.contains(quote)).map(|(i, _)| i + 1).collect();
    match all[..] {
        _ if all.contains(&near) => Ok(near),
        [only] => Ok(only),
        [] => Err(format!("no line has `{quote}` in")),
        _ => Err(format!("line {near} has not `{quote}`, but {} others have, in", all.len())),
    }
}

/// The first line from `from` on that contains `quote`, or is `quote` when that is only a closing bracket.
fn find_after(source: &str, quote: &str, from: usize) -> Result<usize, String> {
    let fits = |line: &str| if quote.trim() == "}" { line == quote } else { line.contains(quote) };
    let found = source.lines().enumerate().skip(from - 1).find(|(_, l)| fits(l));
    found.map(|(i, _)| i + 1).ok_or_else(|| format!("no line after {from} has `{quote}` in"))
}

/// The names by which the headings of a page are linked.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut fenced = false;
    let headings = page.lines().filter(|l| {
        fenced ^= l.trim_start().starts_with("```");
        !fenced && l.starts_with('#')
    });
    headings
        .map(|l| {
            let title = l.trim_start_matches('#').trim().to_lowercase();
            let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

/// The path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir if out.file_name().is_some() => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "fn a() {\n    one();\n    two();\n    one(|| {});\n}\n";

    fn checked(text: &str) -> Checked {
        check(Path::new("book/src/page.md"), text, &|path| match path.to_str() {
            Some("src/a.rs") => Some(SOURCE.to_owned()),
            Some("book/src/other.md") => Some("# Title\n## What a run *leaves*: files\n".to_owned()),
            _ => None,
        })
    }

    #[test]
    fn what_is_right_is_left_alone() {
        let text = "See [a.rs:3](../../src/a.rs#L3)<!-- \"two();\" --> and [x](other.md#what-a-run-leaves-files), `[no](link)`,\n\
                    ![picture](../../src/a.rs) [web](https://example.org) [here](#top)\n# Top\n\n\
                    <!-- \"fn a\" to \"}\" -->\n\n```rust\n{{#include ../../src/a.rs:1:5}}\n```\n";
        let c = checked(text);
        assert_eq!((c.problems, c.stale), (vec![], vec![]));
        assert_eq!(c.mended, text);
    }

    #[test]
    fn moved_lines_are_found_and_mended() {
        let text = "| [a.rs:1](../../src/a.rs#L1)<!-- \"two()\" --> | x |\n\n<!-- \"two\" to \"}\" -->\n```rust\n{{#include ../../src/a.rs:1:2}}\n```\n";
        let c = checked(text);
        assert_eq!(c.problems, Vec::<String>::new());
        assert_eq!(
            c.stale,
            [
                "book/src/page.md:1: `two()` is line 3 of `../../src/a.rs`, not 1",
                "book/src/page.md:5: the piece of `../../src/a.rs` is lines 3 to 5, not 1 to 2"
            ]
        );
        let again = checked(&c.mended);
        assert_eq!((again.problems, again.stale), (vec![], vec![]));
        assert!(c.mended.contains("[a.rs:3](../../src/a.rs#L3)<!-- \"two()\" -->"), "{}", c.mended);
        assert!(c.mended.contains("{{#include ../../src/a.rs:3:5}}"), "{}", c.mended);
    }

    #[test]
    fn everything_that_cannot_be_mended_is_a_problem() {
        for (text, expected) in [
            ("[x](gone.md)", "there is nothing at `gone.md`"),
            ("[x](other.md#nowhere)", "`other.md` has no heading `#nowhere`"),
            ("[a.rs:3](../../src/a.rs#L3)", "is not followed by the quoted line"),
            ("[a.rs:3](../../src/b.rs#L3)<!-- \"two\" -->", "there is no file `../../src/b.rs`"),
            ("[a.rs:3](../../src/a.rs#L3)<!-- \"three\" -->", "no line has `three`"),
            ("[a.rs:3](../../src/a.rs#L3)<!-- \"one\" -->", "line 3 has not `one`, but 2 others have"),
            ("[a.rs](../../src/a.rs#L3)<!-- \"two\" -->", "must end in `:3`"),
            ("```\n{{#include ../../src/a.rs:1:2}}\n```", "no `<!-- \"first line\" to \"last line\" -->`"),
            (
                "<!-- \"two\" to \"fn a\" -->\n```\n{{#include ../../src/a.rs:3:5}}\n```",
                "no line after 3 has `fn a`",
            ),
        ] {
            let c = checked(text);
            assert_eq!(c.problems.len(), 1, "{text}: {c:?}");
            assert!(c.problems[0].contains(expected), "{text}: {c:?}");
        }
    }
}
