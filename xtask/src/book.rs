//! The documents say what is true: links, names of code, tables of scores, names of metrics, lists of pages
//! and dependencies.

use crate::scores;
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use xtask::command::{cargo, root, run as run_command};
use xtask::items::text_of;
use xtask::pages::{check, files};

/// Heading of the part of an algorithm's page that explains what it logs.
const METRICS_HEADING: &str = "## Logged metrics";
/// The page that explains what is logged whatever the algorithm.
const RUNS_PAGE: &str = "book/src/concepts/runs.md";

/// Calls by which a method logs what others may log as well, the file and the function that have the names.
const SHARED_METRICS: [(&str, &str, &str); 9] = [
    ("totals.report(", "actor_critic", "Totals::report"),
    ("totals.report_distance(", "actor_critic", "Totals::report_distance"),
    ("means.report(", "online", "Means::report"),
    ("report_step(", "natural", "report_step"),
    ("report_direction(", "natural", "report_direction"),
    ("critic.fit(", "natural", "CriticFit::fit"),
    ("source.report(", "asynchronous/driver", "ActorLearners::report"),
    ("source.value_report(", "asynchronous/driver", "ActorLearners::report"),
    ("source.value_report(", "asynchronous/values", "ActorLearners::value_report"),
];

/// Checks all documents; with `fix`, makes tables of scores anew.
///
/// # Errors
/// When anything is wrong that was not mended.
pub(crate) fn run(fix: bool) -> Result<()> {
    let root = root();
    let mut found = Vec::new();
    let pages = documents(&root)?;
    for page in &pages {
        let text = std::fs::read_to_string(root.join(page))?;
        let read = |path: &Path| match root.join(path) {
            folder if folder.is_dir() => Some(String::new()),
            file => std::fs::read(file).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        };
        let tables = scores::check(&page.display().to_string(), &text, |file| {
            std::fs::read_to_string(root.join(file)).ok()
        });
        found.extend(tables.problems.into_iter().chain(check(page, &text, &read)));
        if fix && !tables.stale.is_empty() {
            std::fs::write(root.join(page), tables.mended)?;
            println!("{}: {} tables of scores made anew", page.display(), tables.stale.len());
        } else {
            found.extend(tables.stale.into_iter().map(|s| format!("{s} (`cargo xtask book --fix`)")));
        }
    }
    found.extend(algorithm_pages(&root)?);
    found.extend(summary(&root, &pages)?);
    found.extend(dependencies(&root)?);
    for line in &found {
        println!("{line}");
    }
    if !found.is_empty() {
        bail!("{} things in the documents are wrong", found.len());
    }
    println!("book: {} documents are right", pages.len());
    Ok(())
}

/// Renders the book with mdBook. What does that is built without optimisation: it runs for a second.
///
/// # Errors
/// When mdBook warns of something, or a link of the rendered pages leads nowhere.
pub(crate) fn render() -> Result<()> {
    let mut args = vec!["run", "--quiet", "--locked", "--profile", "unoptimised", "-p", "xtask"];
    args.extend(["--features", "book", "--bin", "book", "--", "build"]);
    run_command(&mut cargo(&args))
}

/// The documents, relative to the root.
fn documents(root: &Path) -> Result<Vec<PathBuf>> {
    let mut all: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(root)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "md") {
            all.push(path);
        }
    }
    for folder in ["book/src", "benchmarks"] {
        all.extend(files(&root.join(folder), "md")?);
    }
    let mut all: Vec<PathBuf> = all.iter().map(|p| p.strip_prefix(root).unwrap_or(p).to_owned()).collect();
    all.sort();
    Ok(all)
}

/// Every file of a method has a page of its name, which says how to train each algorithm of the file and
/// explains exactly what they log; what is logged for all of them is explained once.
fn algorithm_pages(root: &Path) -> Result<Vec<String>> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).with_context(|| path.to_owned());
    let mut all = logged(&read("crates/pgrad-run/src/trainer.rs")?, "row.push(\"");
    all.extend(logged(&read("crates/pgrad-run/src/driver/mod.rs")?, "row.push(\""));
    all.extend(logged(&read("crates/pgrad-algos/src/shell.rs")?, ".with(\""));
    all.insert("step".to_owned());
    let mut found = unexplained(RUNS_PAGE, &read(RUNS_PAGE)?, &all);
    // What several methods log is in one place, which a call shows.
    let mut shared = Vec::new();
    for (call, file, function) in SHARED_METRICS {
        let source = read(&format!("crates/pgrad-algos/src/{file}.rs"))?;
        let function = text_of(&source, function).with_context(|| format!("{file}.rs has no {function}"))?;
        shared.push((call, logged(&function, ".with(\"")));
    }
    for file in files(&root.join("crates/pgrad-algos/src"), "rs")? {
        let source = std::fs::read_to_string(&file)?;
        let mut names = logged(&source, ".with(\"");
        names.extend(logged(&source, "means.report(\""));
        for (_, metrics) in shared.iter().filter(|(call, _)| source.contains(*call)) {
            names.extend(metrics.iter().cloned());
        }
        let algorithms: Vec<&str> =
            source.split("config! {\n").skip(1).filter_map(|c| between(c, "    name: \"", "\"")).collect();
        if algorithms.is_empty() {
            continue;
        }
        let stem = file.file_stem().unwrap_or_default().to_string_lossy().replace('_', "-");
        let path = format!("book/src/algorithms/{stem}.md");
        let Ok(page) = read(&path) else {
            found.push(format!("{} has no page {path}", file.display()));
            continue;
        };
        found.extend(unexplained(&path, &page, &names));
        let untold = algorithms.iter().filter(|name| !page.contains(&format!("pgrad train {name} ")));
        found.extend(untold.map(|name| format!("{path}: does not say `pgrad train {name} ...`")));
    }
    Ok(found)
}

/// Where the table of metrics of a page and what is logged differ.
fn unexplained(path: &str, page: &str, logged: &BTreeSet<String>) -> Vec<String> {
    let explained = explained(page);
    let missing = logged
        .difference(&explained)
        .map(|name| format!("{path}: `{name}` is logged but not explained under \"{METRICS_HEADING}\""));
    let extra = explained
        .difference(logged)
        .map(|name| format!("{path}: `{name}` is explained but not logged (what all log is in {RUNS_PAGE})"));
    missing.chain(extra).collect()
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    text.split_once(before)?.1.split_once(after).map(|(inner, _)| inner)
}

/// The names that a source logs by calls that begin with `call`.
fn logged(source: &str, call: &str) -> BTreeSet<String> {
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    code.split(call)
        .skip(1)
        .filter_map(|rest| rest.split_once('"'))
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// The names in the first column of the table of metrics.
fn explained(page: &str) -> BTreeSet<String> {
    let section = page.split_once(METRICS_HEADING).map_or("", |(_, rest)| rest);
    let section = section.split("\n## ").next().unwrap_or_default();
    first_column(section)
}

/// The names in backticks in the first column of tables.
fn first_column(text: &str) -> BTreeSet<String> {
    text.lines().filter_map(|l| between(l.strip_prefix("| ")?, "`", "`")).map(str::to_owned).collect()
}

/// Every page of the book stands in its table of contents.
fn summary(root: &Path, pages: &[PathBuf]) -> Result<Vec<String>> {
    let contents = std::fs::read_to_string(root.join("book/src/SUMMARY.md"))?;
    let ours = pages
        .iter()
        .filter_map(|p| p.strip_prefix("book/src").ok())
        .filter(|p| *p != Path::new("SUMMARY.md"));
    Ok(ours
        .filter(|p| !contents.contains(&format!("({})", p.display())))
        .map(|p| format!("book/src/SUMMARY.md: does not list {}", p.display()))
        .collect())
}

/// Every direct dependency has its line in DEPENDENCIES.md, and nothing else has one.
fn dependencies(root: &Path) -> Result<Vec<String>> {
    let manifest = std::fs::read_to_string(root.join("Cargo.toml"))?;
    let page = std::fs::read_to_string(root.join("DEPENDENCIES.md"))?;
    let (used, explained) = (direct_dependencies(&manifest), first_column(&page));
    let missing =
        used.difference(&explained).map(|n| format!("DEPENDENCIES.md: `{n}` is used but not explained"));
    let extra =
        explained.difference(&used).map(|n| format!("DEPENDENCIES.md: `{n}` is explained but not used"));
    Ok(missing.chain(extra).collect())
}

/// The names of `[workspace.dependencies]` that are not ours.
fn direct_dependencies(manifest: &str) -> BTreeSet<String> {
    let section = manifest.split_once("[workspace.dependencies]\n").map_or("", |(_, rest)| rest);
    let section = section.split("\n[").next().unwrap_or_default();
    let entries = section.lines().filter_map(|l| l.split_once(" = "));
    entries.filter(|(_, value)| !value.contains("path = ")).map(|(name, _)| name.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn logged_and_explained_names_are_found() {
        let source = "r.with(\"learn/kl\", x)\n  .with(\"learn/clip\", y)\n#[cfg(test)] .with(\"no\", 1)";
        assert_eq!(logged(source, ".with(\""), set(&["learn/kl", "learn/clip"]));
        let page = "# P\n| `a` | before |\n## Logged metrics\n\n| name | meaning |\n|---|---|\n| `learn/kl` | `x` |\n| [`b`] | |\n## Next\n| `c` | |\n";
        assert_eq!(explained(page), set(&["learn/kl", "b"]));
        assert_eq!(explained("# no such heading"), set(&[]));
    }

    #[test]
    fn direct_dependencies_are_found() {
        let manifest = "[x]\nno = \"1\"\n[workspace.dependencies]\nours = { path = \"crates/ours\" }\n\nserde = { version = \"1\" }\n# tests only\ntempfile = \"3\"  # why\n\n[profile.release]\nlto = \"thin\"\n";
        assert_eq!(direct_dependencies(manifest), set(&["serde", "tempfile"]));
    }
}
