//! How much of an algorithm's file is its method, and how much neighbours differ: `cargo xtask siblings`.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use xtask::command::root;
use xtask::items::text_of;
use xtask::pages::files;

/// Neighbours, in the order of the papers.
const PAIRS: &[(&str, &str)] = &[
    ("npg", "trpo"),
    ("a2c", "ppo"),
    ("a2c", "acktr"),
    ("td_ac", "qac"),
    ("td_ac", "nac"),
    ("td_ac", "off_pac"),
];

/// Prints two tables. For each file that declares an algorithm: its lines of code, and how many of them are
/// the method itself, which is `iterate` and the functions of the file that it calls, directly or through
/// others (objectives, estimates, lengths of steps). The rest is what surrounds it: settings, state,
/// construction. For each pair: how many lines are in one of both only, of the body of `iterate` and in all.
/// A line of code is one that has more than a comment; settings count.
pub(crate) fn run() -> Result<()> {
    let mut sources = BTreeMap::new();
    for path in files(&root().join("crates/pgrad-algos/src"), "rs")? {
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if text.contains("config! {\n    name: ") {
            sources.insert(name, text);
        }
    }
    println!("{:<16} {:>12} {:>8} {:>8}", "file", "code lines", "method", "share");
    let (mut all, mut methods) = (0, 0);
    let row = |name: &str, lines: usize, method: usize| {
        let share = 100.0 * method as f64 / lines as f64;
        println!("{name:<16} {lines:>12} {method:>8} {share:>6.1} %");
    };
    for (name, text) in &sources {
        let (lines, method) = (code(text, name).len(), method(text));
        (all, methods) = (all + lines, methods + method);
        row(name, lines, method);
    }
    row("all", all, methods);
    println!("\n{:<16} {:>12} {:>18} {:>14}", "pair", "code lines", "iterate differs", "file differs");
    for (a, b) in PAIRS {
        let read = |name: &str| {
            let text = sources.get(name).with_context(|| format!("no algorithm in {name}.rs"))?;
            let iterate = text_of(text, "iterate").with_context(|| format!("no `iterate` in {name}.rs"))?;
            Ok::<_, anyhow::Error>((code(text, name), code(&iterate, name)))
        };
        let ((x, x_iterate), (y, y_iterate)) = (read(a)?, read(b)?);
        println!(
            "{:<16} {:>12} {:>18} {:>14}",
            format!("{a} / {b}"),
            format!("{} / {}", x.len(), y.len()),
            differing(&x_iterate, &y_iterate),
            differing(&x, &y)
        );
    }
    Ok(())
}

/// The lines of code: no comments, no documentation, no tests, no blank lines; the algorithm's own name taken
/// out.
fn code(text: &str, name: &str) -> Vec<String> {
    let type_name: String = name
        .split('_')
        .flat_map(|w| w.chars().take(1).flat_map(char::to_uppercase).chain(w.chars().skip(1)))
        .collect();
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    text.lines()
        .map(|l| l.split("//").next().unwrap_or_default().trim())
        .filter(|l| !l.is_empty())
        .map(|l| l.replace(&type_name, "Name").replace(name, "name"))
        .collect()
}

/// Lines of code of `iterate` and of the file's functions that it calls, directly or through others.
fn method(text: &str) -> usize {
    let mut left: Vec<&str> = text.lines().filter_map(function).filter(|name| *name != "iterate").collect();
    let mut reached = text_of(text, "iterate").unwrap_or_default();
    while let Some(i) = left.iter().position(|name| calls(&reached, name)) {
        reached += &text_of(text, left.swap_remove(i)).unwrap_or_default();
    }
    code(&reached, "iterate").len()
}

/// The name of the function that a line begins.
fn function(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = line.strip_prefix("pub(crate) ").or(line.strip_prefix("pub ")).unwrap_or(line);
    line.strip_prefix("fn ")?.split(['(', '<']).next()
}

/// Whether `text` calls a function called `name`.
fn calls(text: &str, name: &str) -> bool {
    let in_name = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(&format!("{name}(")).any(|(i, _)| !text[..i].ends_with(in_name))
}

/// Lines of either that are not in the longest common subsequence.
fn differing(a: &[String], b: &[String]) -> usize {
    let mut row = vec![0; b.len() + 1];
    for x in a {
        let mut diagonal = 0;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if x == y { diagonal + 1 } else { above.max(row[j]) };
            diagonal = above;
        }
    }
    a.len() + b.len() - 2 * row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn what_differs_is_counted_on_both_sides() {
        assert_eq!(differing(&lines("a b c d"), &lines("a x c d")), 2);
        assert_eq!(differing(&lines("a b c d"), &lines("a c d")), 1);
        assert_eq!(differing(&lines("a b"), &lines("c")), 3);
        assert_eq!(differing(&lines("a b c"), &lines("a b c")), 0);
    }

    #[test]
    fn only_code_counts_and_names_do_not() {
        let a = code("/// Doc.\nstruct TdAc { // why\n\nfn iterate() {\nx\ny\n}\nfn td_ac() {}\n", "td_ac");
        let b = code("struct Qac {\nfn iterate() {\nx\nz\n}\nfn qac() {}\n", "qac");
        assert_eq!(differing(&a, &b), 2);
    }

    #[test]
    fn the_method_is_what_iterate_reaches() {
        let text = "\
impl Method for X {
    fn iterate(&mut self) {
        // why
        objective(self.c);
    }
    fn save(&self) {}
}
fn objective(c: u8) {
    min_term(c)
}
fn term(c: u8) -> u8 { c }
fn min_term(c: u8) -> u8 { c }
";
        assert_eq!(method(text), 3 + 3 + 1);
    }
}
