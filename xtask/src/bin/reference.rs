//! Prints the book's reference page: algorithms, environments, presets and settings, from their
//! declarations.

#![expect(clippy::print_stdout, reason = "prints a page")]

use pgrad_run::config::RunSettings;
use pgrad_settings::{Settings, reference_markdown};

const HEAD: &str = "\
# Reference

<!-- Generated from the declarations by `cargo xtask reference`: do not edit. -->

";

const SETTINGS: &str = "\
# Settings

A setting is a line `key = value` in a `--config` file, or an option `--set key=value`. Later sources override
earlier ones: the defaults below, the preset of the algorithm for the environment, the file, the options.
`pgrad show ALGO ENV` prints the effective settings.

";

fn main() {
    let mut page = HEAD.to_owned();
    page.push_str("## Algorithms\n\n| name | what it is | source |\n|---|---|---|\n");
    for a in pgrad_algos::REGISTRY {
        page.push_str(&format!("| `{}` | {} | {} |\n", a.name, a.title, a.source));
    }
    page.push_str("\n## Environments\n\n");
    page.push_str(
        "| name | task | observation | action | steps at most | solved at |\n|---|---|---|---|---|---|\n",
    );
    for e in pgrad_envs::REGISTRY {
        let spec = e.spec().expect("without the feature `mujoco` nothing is needed");
        let limit = spec.max_episode_steps.map_or_else(|| "-".to_owned(), |n| n.to_string());
        let threshold = spec.reward_threshold.map_or_else(|| "-".to_owned(), |r| r.to_string());
        page.push_str(&format!(
            "| `{}` | {} | {} | {} | {limit} | {threshold} |\n",
            e.id, e.title, spec.observation, spec.action
        ));
    }
    for s in pgrad_run::env::SCHEMES {
        page.push_str(&format!("| `{}` | {} | | | | |\n", s.form, s.title));
    }
    page.push_str("\n## Presets\n\n| environment | algorithm | what it sets |\n|---|---|---|\n");
    for p in pgrad_run::presets::all() {
        let lines: Vec<&str> = p.toml.lines().filter(|l| !l.starts_with('#')).collect();
        page.push_str(&format!("| `{}` | `{}` | `{}` |\n", p.env, p.algo, lines.join("`, `")));
    }
    page.push('\n');
    page.push_str(SETTINGS);
    let run = RunSettings::default();
    page.push_str(&reference_markdown(&[&run]));
    for scheme in pgrad_run::env::SCHEMES {
        if let Some(settings) = scheme.settings {
            page.push_str(&reference_markdown(&[settings()]));
        }
    }
    // Groups that algorithms share appear once.
    let mut printed: Vec<String> = Vec::new();
    let mut used =
        String::from("## Which algorithm has which settings\n\n| algorithm | settings |\n|---|---|\n");
    for entry in pgrad_algos::REGISTRY {
        let config = (entry.config)();
        let parts: Vec<&dyn Settings> = config.parts();
        for part in &parts {
            let table = reference_markdown(&[*part]);
            if !printed.contains(&table) {
                page.push_str(&table);
                printed.push(table);
            }
        }
        let titles: Vec<&str> = std::iter::once(run.title()).chain(parts.iter().map(|p| p.title())).collect();
        used.push_str(&format!("| `{}` | {} |\n", entry.name, titles.join("; ")));
    }
    page.push_str(&used);
    print!("{page}");
}
