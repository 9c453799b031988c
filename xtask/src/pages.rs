//! What a Markdown page claims about other files: links, and code that it names.
//!
//! A link to a source file whose text is code names something in that file: [`Ppo::iterate`](../ppo.rs) is an
//! item, [`returns::gae`](../ppo.rs) a line of it. The rendered book leads to the line where it is today, and
//! shows the whole item where `<!-- code -->` follows the link.

use crate::items::line_of;
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// All files under `folder` whose name ends in `.ext` (every file when `ext` is empty), in name order.
///
/// # Errors
/// When a folder cannot be read.
pub fn files(folder: &Path, ext: &str) -> Result<Vec<PathBuf>> {
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

/// Checks `text`, the page that lies at `path`; `read` gives the text of a file, or `None` when there is
/// none. A line for each thing that is wrong.
pub fn check(path: &Path, text: &str, read: &dyn Fn(&Path) -> Option<String>) -> Vec<String> {
    let mut problems = Vec::new();
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut fenced = false;
    for (number, line) in text.lines().enumerate() {
        fenced ^= line.trim_start().starts_with("```");
        if fenced {
            continue;
        }
        let wrong = links(line).into_iter().filter_map(|link| link.wrong(path, folder, text, read));
        problems.extend(wrong.map(|why| format!("{}:{}: {why}", path.display(), number + 1)));
    }
    problems
}

/// A link of a line of Markdown.
#[derive(Debug, PartialEq)]
pub struct Link<'a> {
    /// What is shown.
    pub label: &'a str,
    /// Where it leads.
    pub target: &'a str,
}

impl<'a> Link<'a> {
    /// The code that the link names in its target, when that is a source file.
    pub fn code(&self) -> Option<&'a str> {
        let source = Path::new(self.target).extension().is_some_and(|e| e == "rs" || e == "py");
        self.label.strip_prefix('`')?.strip_suffix('`').filter(|_| source)
    }

    fn wrong(
        &self,
        page: &Path,
        folder: &Path,
        text: &str,
        read: &dyn Fn(&Path) -> Option<String>,
    ) -> Option<String> {
        let target = self.target;
        let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
        if target.contains("://") || target.starts_with("mailto:") {
            return None; // Other people's pages are not ours to check.
        }
        let found = match file {
            "" => Some(text.to_owned()),
            file => read(&normal(&folder.join(file))),
        };
        let Some(found) = found else { return Some(format!("there is nothing at `{target}`")) };
        if let Some(code) = self.code().filter(|code| line_of(&found, code).is_none()) {
            return Some(format!("`{file}` has no `{code}`"));
        }
        let is_page = file.is_empty() || file.ends_with(".md");
        match fragment {
            "" => None,
            _ if !is_page => Some(format!("`{target}`: name the item, not its line: [`item`]({file})")),
            _ if anchors(&found).contains(fragment) => None,
            _ => Some(format!(
                "`{}` has no heading `#{fragment}`",
                if file.is_empty() { page } else { Path::new(file) }.display()
            )),
        }
    }
}

/// The links of a line, in order; none inside code.
pub fn links(line: &str) -> Vec<Link<'_>> {
    let (mut found, mut code, mut open) = (Vec::new(), false, None);
    for (i, c) in line.char_indices() {
        match c {
            '`' => code = !code,
            '[' if !code => open = Some(i + 1),
            ']' if !code => {
                let target = line[i + 1..].strip_prefix('(').and_then(|rest| rest.split_once(')'));
                if let (Some(start), Some((target, _))) = (open.take(), target) {
                    found.push(Link { label: &line[start..i], target });
                }
            }
            _ => {}
        }
    }
    found
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
pub fn normal(path: &Path) -> PathBuf {
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

    const SOURCE: &str = "fn a() {\n    two[0] = one();\n}\n";

    fn checked(text: &str) -> Vec<String> {
        check(Path::new("book/src/page.md"), text, &|path| match path.to_str() {
            Some("src/a.rs") => Some(SOURCE.to_owned()),
            Some("book/src/other.md") => Some("# Title\n## What a run *leaves*: files\n".to_owned()),
            _ => None,
        })
    }

    #[test]
    fn what_is_right_is_left_alone() {
        let text = "See [`a`](../../src/a.rs), [`two[0]`](../../src/a.rs), [x](other.md#what-a-run-leaves-files), `[no](link)`,\n\
                    ![picture](../../src/a.rs) [web](https://example.org) [here](#top)\n# Top\n\n\
                    ```rust\n[x](gone.md)\n```\n";
        assert_eq!(checked(text), Vec::<String>::new());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, expected) in [
            ("[x](gone.md)", "there is nothing at `gone.md`"),
            ("[x](other.md#nowhere)", "`other.md` has no heading `#nowhere`"),
            ("[x](#nowhere)", "`book/src/page.md` has no heading `#nowhere`"),
            ("[a.rs:3](../../src/a.rs#L3)", "`../../src/a.rs#L3`: name the item, not its line"),
            ("[`a`](../../src/b.rs)", "there is nothing at `../../src/b.rs`"),
            ("x\n[`a`](../../src/a.rs), [`three`](../../src/a.rs)", "2: `../../src/a.rs` has no `three`"),
        ] {
            let problems = checked(text);
            assert_eq!(problems.len(), 1, "{text}: {problems:?}");
            assert!(problems[0].contains(expected), "{text}: {problems:?}");
        }
    }
}
