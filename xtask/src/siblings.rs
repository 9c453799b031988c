//! How much neighbouring algorithms differ: `cargo xtask siblings`.

use anyhow::{Context, Result};
use xtask::command::root;

/// Neighbours, in the order of the papers.
const PAIRS: &[(&str, &str)] = &[
    ("npg", "trpo"),
    ("a2c", "ppo"),
    ("a2c", "acktr"),
    ("td_ac", "qac"),
    ("td_ac", "nac"),
    ("td_ac", "off_pac"),
];

/// Prints, for each pair, the lines of code of both files and how many of them the other does not have: in the body of
/// `iterate`, and in all.
pub(crate) fn run() -> Result<()> {
    println!("{:<16} {:>12} {:>18} {:>14}", "pair", "code lines", "iterate differs", "file differs");
    for (a, b) in PAIRS {
        let read = |name: &str| {
            let path = root().join(format!("crates/pgrad-algos/src/{name}.rs"));
            let text =
                std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok::<_, anyhow::Error>(code(&text, name))
        };
        let (x, y) = (read(a)?, read(b)?);
        println!(
            "{:<16} {:>12} {:>18} {:>14}",
            format!("{a} / {b}"),
            format!("{} / {}", x.len(), y.len()),
            differing(iterate(&x), iterate(&y)),
            differing(&x, &y)
        );
    }
    Ok(())
}

/// The lines of code: no comments, no documentation, no tests, no blank lines; the algorithm's own name taken out.
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

/// The body of `iterate`.
fn iterate(lines: &[String]) -> &[String] {
    let from = lines.iter().position(|l| l.starts_with("fn iterate(")).unwrap_or(lines.len());
    let len = lines[from..].iter().skip(1).position(|l| l.starts_with("fn ")).map_or(0, |n| n + 1);
    &lines[from..from + len]
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
        assert_eq!(iterate(&a), ["fn iterate() {", "x", "y", "}"]);
    }
}
