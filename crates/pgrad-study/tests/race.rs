//! A race of methods to a score.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

use pgrad_study::{AnyStudy, KINDS, MeasuredResult, StudyEvent, StudyOptions, run_measured};
use tempfile::tempdir;

fn race(text: &str) -> Result<MeasuredResult, String> {
    let study = AnyStudy::parse_with(text, "race.toml", "race", KINDS).map_err(|e| e.to_string())?;
    let AnyStudy::Measured(study) = study else { panic!("a race measures") };
    let dir = tempdir().unwrap();
    let mut listen = |_: StudyEvent<'_>| ();
    Ok(run_measured(&study, StudyOptions::new(dir.path(), &mut listen)).unwrap())
}

#[test]
fn a_race_finds_who_is_there_first() {
    let text = r#"
kind = "race"
title = "t"
note = "n"
[parameters]
env = "CartPole-v1"
seeds = 2
first_seed = 1
steps = 4000
seconds = 1000.0
[[parameters.runners]]
label = "easy"
algo = "a3c"
settings = { workers = 2, steps_per_iteration = 500, hidden = [8] }
reference = 5.0
[[parameters.runners]]
label = "never"
algo = "a2c"
settings = { n_envs = 4, hidden = [8] }
steps = 8000
reference = 1000.0
baseline = "easy"
"#;
    let result = race(text).unwrap();
    let get = |name: &str| result.findings.quantities.iter().find(|q| q.name == name).unwrap().value;
    // 100 episodes of some 20 steps come first; whoever never gets there counts with the whole run.
    assert!(
        (1000.0..4000.0).contains(&get("easy: steps to reference")),
        "{}",
        get("easy: steps to reference")
    );
    assert_eq!(get("never: steps to reference"), 8000.0);
    assert!(get("easy: return") > 5.0 && get("never: return") < 500.0);
    assert_eq!(get("easy: return in time"), get("easy: return"), "over long before");
    let (easy, never) = (get("easy: seconds to reference"), get("never: seconds to reference"));
    assert!(easy > 0.0 && never > 0.0);
    assert!((get("never: speed-up") - easy / never).abs() < 1e-12);
    assert!(result.findings.text.contains("| easy | 5 | 2 of 2 |"), "{}", result.findings.text);
    assert!(result.findings.text.contains("| never | 1000 | 0 of 2 |"));
    let rows = result.findings.results.unwrap().rows;
    assert_eq!(rows.len(), 4);

    let wrong = |from: &str, to: &str| race(&text.replace(from, to)).map(drop).unwrap_err();
    assert!(wrong("baseline = \"easy\"", "baseline = \"eazy\"").contains("there is no `eazy`"));
    assert!(wrong("label = \"never\"", "label = \"easy\"").contains("two runners are called `easy`"));
    assert!(wrong("n_envs = 4", "n_env = 4").contains("n_env"));
}
