//! The order of the crates, checked by a machine.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};
use xtask::command::{cargo, output, root};

/// Every crate and its floor. An edge goes only to a strictly lower floor.
const FLOORS: &[(&str, u8)] = &[
    ("pgrad-testkit", 0), // knows nothing of ours, and is for tests only
    ("pgrad-num", 0),
    ("pgrad-settings", 0),
    ("pgrad-space", 0),
    ("pgrad-math", 1),
    ("pgrad-nn", 1),
    ("pgrad-optim", 1),
    ("pgrad-env", 1),
    ("pgrad-envs", 2),
    ("pgrad-gym", 2),
    ("pgrad-model", 2),
    ("pgrad-engine", 3),
    ("pgrad-collect", 4),
    ("pgrad-algos", 5),
    ("pgrad-run", 6),
    ("pgrad-draw", 7),
    ("pgrad-study", 8),
    ("pgrad", 9),
    ("pgrad-cli", 9),
    ("xtask", 10),
];

/// Crates that only some of ours may depend on.
const DOORS: &[(&str, &[&str])] = &[
    ("clap", &["pgrad-cli"]),
    ("clap_complete", &["pgrad-cli"]),
    ("indicatif", &["pgrad-cli"]),
    ("anyhow", &["pgrad-cli", "xtask"]),
    ("pyo3", &[]),
    ("pgrad-gym", &["pgrad-run"]),
    ("rustix", &["pgrad-num", "pgrad-gym", "pgrad-run"]),
    ("memmap2", &["pgrad-gym"]),
    ("plotters", &["pgrad-draw"]),
    ("gif", &["pgrad-draw"]),
    ("miniz_oxide", &["pgrad-draw"]),
];

/// Edges down the floors that are forbidden all the same.
const NEVER: &[(&str, &str)] = &[
    ("pgrad-algos", "pgrad-envs"),
    ("pgrad-model", "pgrad-settings"),
    ("pgrad-engine", "pgrad-settings"),
    ("pgrad-collect", "pgrad-settings"),
];

/// What the facade must not pull in without its default features: a trained policy is used without the
/// code that trains.
const FACADE: &str = "pgrad";
const TRAINING: &[&str] = &["pgrad-algos", "pgrad-run", "pgrad-draw", "pgrad-study"];

/// For tests only.
const TESTKIT: &str = "pgrad-testkit";

/// Below this floor no file is touched, nothing is sent and no program is started.
const OUTSIDE_WORLD_FLOOR: u8 = 6;
/// Starts processes, and says so.
const DOOR_OUT: &str = "pgrad-gym";
const OUTSIDE_WORLD: &[&str] = &["std::fs", "std::net", "std::process", "std::os"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Normal,
    Build,
    Dev,
}

#[derive(Debug)]
struct Edge {
    to: String,
    kind: Kind,
    optional: bool,
}

#[derive(Debug)]
struct Package {
    name: String,
    folder: PathBuf,
    edges: Vec<Edge>,
}

/// Checks the workspace and prints what is wrong with it.
///
/// # Errors
/// When anything is, or when `cargo metadata` fails.
pub(crate) fn run() -> Result<()> {
    let args = ["metadata", "--no-deps", "--format-version", "1", "--locked"];
    let metadata: Value = serde_json::from_str(&output(&mut cargo(&args))?)?;
    let packages = parse(&metadata)?;
    let mut found = violations(&packages, FLOORS);
    for package in &packages {
        found.extend(source_violations(package, &root())?);
    }
    for line in &found {
        println!("{line}");
    }
    if !found.is_empty() {
        bail!("{} violations of the floors", found.len());
    }
    let edges: usize = packages.iter().map(|p| p.edges.len()).sum();
    println!("floors: {} crates and their {edges} dependencies are in order", packages.len());
    Ok(())
}

fn parse(metadata: &Value) -> Result<Vec<Package>> {
    let text = |v: &Value, key: &str| -> Result<String> {
        Ok(v[key].as_str().with_context(|| format!("`cargo metadata` has no `{key}`"))?.to_owned())
    };
    let list = |v: &Value, key: &str| -> Result<Vec<Value>> {
        Ok(v[key].as_array().with_context(|| format!("`cargo metadata` has no `{key}`"))?.clone())
    };
    list(metadata, "packages")?
        .iter()
        .map(|p| {
            let manifest = PathBuf::from(text(p, "manifest_path")?);
            let edges = list(p, "dependencies")?.into_iter().map(|d| {
                let kind = match d["kind"].as_str() {
                    None => Kind::Normal,
                    Some("build") => Kind::Build,
                    Some(_) => Kind::Dev,
                };
                Ok(Edge { to: text(&d, "name")?, kind, optional: d["optional"] == true })
            });
            Ok(Package {
                name: text(p, "name")?,
                folder: manifest.parent().unwrap_or(Path::new("")).to_owned(),
                edges: edges.collect::<Result<_>>()?,
            })
        })
        .collect()
}

/// What is wrong with the edges, a line each.
fn violations(packages: &[Package], floors: &[(&str, u8)]) -> Vec<String> {
    let mut found = Vec::new();
    let ours: BTreeMap<&str, &Package> = packages.iter().map(|p| (p.name.as_str(), p)).collect();
    let floor = |name: &str| floors.iter().find(|(n, _)| *n == name).map(|(_, f)| *f);
    for (name, _) in floors.iter().filter(|(n, _)| !ours.contains_key(n)) {
        found.push(format!("{name}: stands in the table of floors, but there is no such crate"));
    }
    for package in packages {
        let name = &package.name;
        if package.folder.file_name().is_none_or(|f| f != name.as_str()) {
            found.push(format!("{name}: its folder `{}` has another name", package.folder.display()));
        }
        let Some(mine) = floor(name) else {
            found.push(format!("{name}: has no floor; give it one in xtask/src/floors.rs"));
            continue;
        };
        for Edge { to, kind, .. } in &package.edges {
            if let Some((_, allowed)) = DOORS.iter().find(|(door, _)| door == to)
                && !allowed.contains(&name.as_str())
            {
                let whose = if allowed.is_empty() { "nowhere".into() } else { allowed.join(" and ") };
                found.push(format!("{name}: depends on {to}, which belongs to {whose}"));
            }
            if *kind == Kind::Dev || !ours.contains_key(to.as_str()) {
                continue;
            }
            if to == TESTKIT {
                found.push(format!("{name}: depends on {to}, which is for tests only"));
            }
            if let Some(theirs) = floor(to)
                && theirs >= mine
            {
                found.push(format!(
                    "{name} (floor {mine}): depends on {to} (floor {theirs}), which is not lower"
                ));
            }
            if NEVER.contains(&(name, to)) {
                found.push(format!("{name}: must never know {to}"));
            }
        }
    }
    found.extend(training_in_facade(&ours));
    found
}

/// Paths from the facade to the training code over edges that are always there.
fn training_in_facade(ours: &BTreeMap<&str, &Package>) -> Vec<String> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    let mut open: Vec<Vec<&str>> = vec![vec![FACADE]];
    while let Some(path) = open.pop() {
        let Some(package) = path.last().and_then(|name| ours.get(name)) else { continue };
        if !seen.insert(package.name.as_str()) {
            continue;
        }
        if TRAINING.contains(&package.name.as_str()) {
            let way = path.join(" -> ");
            found.push(format!("{FACADE}: pulls in {} without default features: {way}", package.name));
        }
        for edge in package.edges.iter().filter(|e| e.kind != Kind::Dev && !e.optional) {
            let mut next = path.clone();
            next.push(&edge.to);
            open.push(next);
        }
    }
    found.sort();
    found
}

/// What is wrong with the sources of a crate: a library says what it must never know, and the lower floors
/// do not touch the outside world.
fn source_violations(package: &Package, root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let (name, source) = (&package.name, package.folder.join("src"));
    let library = source.join("lib.rs");
    let floor = FLOORS.iter().find(|(n, _)| n == name).map(|(_, f)| *f);
    let is_floor = floor.is_some() && ![TESTKIT, FACADE].contains(&name.as_str());
    if is_floor && library.exists() && !std::fs::read_to_string(&library)?.contains("**Must never know:**") {
        found.push(format!("{name}: src/lib.rs does not say what the crate must never know"));
    }
    if floor.is_some_and(|f| f < OUTSIDE_WORLD_FLOOR) && ![TESTKIT, DOOR_OUT].contains(&name.as_str()) {
        for file in xtask::pages::files(&source, "rs")? {
            let text = std::fs::read_to_string(&file)?;
            for (line, word) in outside_world(&text) {
                let place = file.strip_prefix(root).unwrap_or(&file).display();
                found.push(format!("{place}:{line}: uses `{word}`, which belongs to pgrad-run and above"));
            }
        }
    }
    Ok(found)
}

/// Lines (from 1) of code, comments and tests aside, that touch the outside world.
fn outside_world(text: &str) -> Vec<(usize, &'static str)> {
    let code = text.lines().enumerate().take_while(|(_, l)| l.trim() != "#[cfg(test)]");
    code.filter(|(_, l)| !l.trim_start().starts_with("//"))
        .flat_map(|(i, l)| OUTSIDE_WORLD.iter().filter(|w| l.contains(**w)).map(move |w| (i + 1, *w)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn package(name: &str, dependencies: &[(&str, Option<&str>, bool)]) -> Value {
        let dependencies: Vec<Value> = dependencies
            .iter()
            .map(|(to, kind, optional)| json!({"name": to, "kind": kind, "optional": optional}))
            .collect();
        json!({"name": name, "manifest_path": format!("/w/{name}/Cargo.toml"), "dependencies": dependencies})
    }

    fn found(packages: &[Value], floors: &[(&str, u8)]) -> Vec<String> {
        violations(&parse(&json!({"packages": packages})).unwrap(), floors)
    }

    #[test]
    fn a_good_graph_is_accepted() {
        let good = [
            package("pgrad-num", &[("gemm", None, false), ("pgrad-testkit", Some("dev"), false)]),
            package("pgrad-testkit", &[]),
            package("pgrad-algos", &[("pgrad-num", None, false)]),
            package("pgrad-run", &[("pgrad-algos", None, false), ("pgrad-num", Some("build"), false)]),
            package("pgrad", &[("pgrad-num", None, false), ("pgrad-run", None, true)]),
            package(
                "pgrad-cli",
                &[("pgrad-run", None, false), ("clap", None, false), ("anyhow", None, false)],
            ),
        ];
        let names: Vec<_> = good.iter().map(|p| p["name"].as_str().unwrap()).collect();
        let floors: Vec<_> = FLOORS.iter().copied().filter(|(n, _)| names.contains(n)).collect();
        assert_eq!(found(&good, &floors), Vec::<String>::new());
    }

    #[test]
    fn every_kind_of_bad_edge_is_found() {
        let bad = [
            package("pgrad-num", &[("pgrad-math", None, false), ("pgrad-testkit", None, false)]),
            package("pgrad-testkit", &[]),
            package("pgrad-math", &[("pgrad-nn", Some("build"), false)]),
            package("pgrad-nn", &[("clap", Some("dev"), false), ("pgrad-run", Some("dev"), false)]),
            package("pgrad-envs", &[("pyo3", None, true)]),
            package("pgrad-algos", &[("pgrad-envs", None, false)]),
            package("pgrad-run", &[("anyhow", None, false), ("pgrad-algos", None, false)]),
            package("pgrad", &[("pgrad-run", None, false)]),
            package("pgrad-new", &[]),
        ];
        let floors: Vec<_> = FLOORS
            .iter()
            .copied()
            .filter(|(n, _)| {
                ![
                    "pgrad-settings",
                    "pgrad-optim",
                    "pgrad-env",
                    "pgrad-space",
                    "pgrad-model",
                    "pgrad-engine",
                    "pgrad-collect",
                    "pgrad-gym",
                    "pgrad-draw",
                    "pgrad-study",
                    "xtask",
                ]
                .contains(n)
            })
            .collect();
        let expected = [
            "pgrad-cli: stands in the table of floors, but there is no such crate",
            "pgrad-num (floor 0): depends on pgrad-math (floor 1), which is not lower",
            "pgrad-num: depends on pgrad-testkit, which is for tests only",
            "pgrad-num (floor 0): depends on pgrad-testkit (floor 0), which is not lower",
            "pgrad-math (floor 1): depends on pgrad-nn (floor 1), which is not lower",
            "pgrad-nn: depends on clap, which belongs to pgrad-cli",
            "pgrad-envs: depends on pyo3, which belongs to nowhere",
            "pgrad-algos: must never know pgrad-envs",
            "pgrad-run: depends on anyhow, which belongs to pgrad-cli and xtask",
            "pgrad-new: has no floor; give it one in xtask/src/floors.rs",
            "pgrad: pulls in pgrad-algos without default features: pgrad -> pgrad-run -> pgrad-algos",
            "pgrad: pulls in pgrad-run without default features: pgrad -> pgrad-run",
        ];
        assert_eq!(found(&bad, &floors), expected);
    }

    #[test]
    fn a_folder_has_the_name_of_its_crate() {
        let mut p = package("pgrad-num", &[]);
        p["manifest_path"] = "/w/num/Cargo.toml".into();
        assert_eq!(found(&[p], &[("pgrad-num", 0)]), ["pgrad-num: its folder `/w/num` has another name"]);
    }

    #[test]
    fn the_outside_world_is_found_in_code_only() {
        let text = "//! std::fs in a comment\nuse std::fs::File;\nlet x = std::process::id();\n#[cfg(test)]\nuse std::net;";
        assert_eq!(outside_world(text), [(2, "std::fs"), (3, "std::process")]);
    }

    #[test]
    fn metadata_of_another_shape_is_an_error() {
        assert!(parse(&json!({})).is_err());
        assert!(parse(&json!({"packages": [{"name": "x"}]})).is_err());
    }
}
