//! A grid of two settings.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use pgrad_study::{
    AnyStudy, KINDS, MeasuredResult, StudyError, StudyEvent, StudyOptions, run_measured, run_study,
};
use std::path::Path;

const TEXT: &str = r#"
kind = "grid"
title = "Grid"

[parameters]
measure = "E"
episodes = 3
rows = { setting = "gamma", values = [0.5, 0.9] }
columns = { setting = "lambda", values = [0.0, 0.5, 1.0] }

[parameters.entry]
env = "CartPole-v1"
steps = 600
seeds = { first = 1, count = 2 }
settings = { n_envs = 2, n_steps = 100, epochs = 2, minibatch_size = 50, learning_rate = 0.01 }

[[anchor]]
quantity = "best gamma"
value = 0.5
at_least = 0.5
source = "there is no lower one"
"#;

fn read(text: &str) -> Result<AnyStudy, StudyError> {
    AnyStudy::parse_with(text, "grid.toml", "grid", KINDS)
}

fn run(text: &str, out: &Path, threads: usize, seeds: Option<u64>) -> Result<MeasuredResult, StudyError> {
    let AnyStudy::Measured(study) = read(text)? else { panic!("a grid measures") };
    let mut listen = |_: StudyEvent<'_>| {};
    run_measured(&study, StudyOptions { threads, seeds, ..StudyOptions::new(out, &mut listen) })
}

/// What a study of runs says of one cell.
fn cell(gamma: f64, lambda: f64) -> f64 {
    let text = format!(
        "title = \"cell\"\nepisodes = 3\n[[entry]]\nenv = \"CartPole-v1\"\nsteps = 600\n\
         seeds = {{ first = 1, count = 2 }}\nsettings = {{ n_envs = 2, n_steps = 100, epochs = 2, \
         minibatch_size = 50, learning_rate = 0.01, gamma = {gamma:?}, lambda = {lambda:?} }}"
    );
    let AnyStudy::Runs(study) = read(&text).unwrap() else { panic!("a study of runs") };
    let tmp = tempfile::tempdir().unwrap();
    let mut listen = |_: StudyEvent<'_>| {};
    let result = run_study(&study, StudyOptions::new(tmp.path(), &mut listen)).unwrap();
    0.5 * (result.rows[0].e + result.rows[1].e)
}

#[test]
fn each_cell_is_a_study_of_its_settings() {
    let tmp = tempfile::tempdir().unwrap();
    let result = run(TEXT, tmp.path(), 2, None).unwrap();
    let grid = [0.5, 0.9].map(|gamma| [0.0, 0.5, 1.0].map(|lambda| cell(gamma, lambda)));
    let best = grid.iter().flatten().copied().fold(f64::NEG_INFINITY, f64::max);
    let row = grid.iter().position(|r| r.contains(&best)).unwrap();
    let column = grid[row].iter().position(|v| *v == best).unwrap();
    let values: Vec<f64> = result.findings.quantities.iter().map(|q| q.value).collect();
    let expected = [[0.5, 0.9][row], [0.0, 0.5, 1.0][column], best, best - grid[row][0], best - grid[row][2]];
    // Equal means are ordered by place alone, so that the test needs a best cell.
    assert_eq!(grid.iter().flatten().filter(|v| **v == best).count(), 1, "{grid:?}");
    for (got, expected) in values.iter().zip(expected) {
        assert!((got - expected).abs() < 1e-9, "{values:?}, not {expected} in {grid:?}");
    }
    let results = std::fs::read_to_string(tmp.path().join("results.csv")).unwrap();
    assert_eq!(results.lines().count(), 1 + 6 * 2);
    let svg = std::fs::read_to_string(tmp.path().join("heat-map.svg")).unwrap();
    for mean in grid.iter().flatten() {
        assert!(svg.contains(&format!("\n{mean:.0}\n")), "{mean} in {svg}");
    }
    let again = run(TEXT, tmp.path(), 1, None).unwrap();
    assert_eq!(again.findings, result.findings, "read, not run again, and on one thread");
    let e = run(TEXT, tmp.path(), 1, Some(1)).unwrap_err();
    assert!(e.to_string().contains("two seeds"), "{e}");
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    for (right, wrong, expected) in [
        ("\"lambda\"", "\"lamda\"", "grid.toml:9: there is no setting `lamda`"),
        ("\"lambda\"", "\"lamda\"", "did you mean `lambda`?"),
        ("[0.5, 0.9]", "[0.5, 1.9]", "grid.toml:8: `gamma` takes"),
        ("[0.5, 0.9]", "[0.9, 0.5]", "grid.toml:8: `values` are at least two numbers"),
        ("[0.5, 0.9]", "[0.5]", "grid.toml:8: `values` are at least two numbers"),
        ("episodes = 3", "episodes = 0", "grid.toml:7: `episodes` is at least 1"),
        ("measure = \"E\"", "measure = \"X\"", "grid.toml:6: unknown variant `X`"),
        ("count = 2", "count = 1", "a standard error needs two seeds"),
        ("epochs = 2", "epoch = 2", "did you mean `epochs`?"),
        ("env = \"CartPole-v1\"", "env = \"CartPole\"", "did you mean `CartPole-v1`?"),
        ("\"best gamma\"", "\"best gama\"", "did you mean `best gamma`?"),
    ] {
        assert!(TEXT.contains(right), "{right}");
        let e = read(&TEXT.replacen(right, wrong, 1)).unwrap_err().to_string();
        assert!(e.contains(expected), "{wrong}: expected `{expected}` in\n{e}");
    }
}
