//! Comments are no wider than code: rustfmt sees to code alone.

use anyhow::{Context, Result, bail};
use std::fmt::Write as _;
use xtask::command::root;
use xtask::pages::files;

/// As `max_width` in rustfmt.toml.
const WIDTH: usize = 110;

/// # Errors
/// When a file cannot be read, or a line of comment is too wide: which ones.
pub(crate) fn run() -> Result<()> {
    let (mut wide, mut read) = (String::new(), 0);
    for folder in ["crates", "xtask", "presets", "studies", "benchmarks", "examples"] {
        for (kind, mark) in [("rs", "//"), ("toml", "#"), ("py", "#")] {
            for path in files(&root().join(folder), kind)? {
                let text = std::fs::read_to_string(&path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                read += 1;
                for (number, length) in too_wide(&text, mark) {
                    let path = path.strip_prefix(root()).unwrap_or(&path);
                    writeln!(wide, "{}:{number}: {length} characters", path.display())?;
                }
            }
        }
    }
    if wide.is_empty() {
        println!("comments: {read} files, none wider than {WIDTH}");
        return Ok(());
    }
    bail!("lines of comment with more than {WIDTH} characters; wrap them:\n{wide}")
}

/// Lines that are a comment as a whole and too wide, with their lengths. One that cannot be broken, an
/// address, may be.
fn too_wide(text: &str, mark: &str) -> Vec<(usize, usize)> {
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line, line.chars().count()));
    let comment = |line: &str| line.trim_start().starts_with(mark);
    let breaks = |line: &str| {
        let words = line.trim_start().trim_start_matches(['/', '!', '#', ' ', '-']);
        words.contains(' ') && !words.starts_with('|')
    };
    lines.filter(|(_, l, n)| *n > WIDTH && comment(l) && breaks(l)).map(|(i, _, n)| (i, n)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_wide_comments_that_can_be_broken_are_found() {
        let code = format!("let x = \"{}\";", "a b ".repeat(40));
        let address = format!("    /// <https://example.org/{}>", "a".repeat(100));
        let [fits, wide] = [110, 111]
            .map(|n| format!("    //! {}", "é ".repeat(60).chars().take(n - 8).collect::<String>()));
        let text = [code, address, fits, wide].join("\n");
        assert_eq!(too_wide(&text, "//"), [(4, 111)]);
        assert_eq!(too_wide(&text, "#"), []);
    }
}
