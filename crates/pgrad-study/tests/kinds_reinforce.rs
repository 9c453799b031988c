//! The measurements about REINFORCE, made small: what must hold of them whatever the numbers are.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use pgrad_study::{
    AnyStudy, EmbeddedStudy, KINDS, MeasuredResult, STUDIES, StudyEvent, StudyOptions, run_measured,
};

/// The embedded study with other parameters.
fn measure(name: &str, changes: &[(&str, &str)], threads: usize) -> MeasuredResult {
    let EmbeddedStudy { toml, .. } = STUDIES.iter().find(|s| s.name == name).unwrap();
    let mut text = (*toml).to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    // One task is enough.
    if let Some((second, _)) = text.match_indices("[[parameters.tasks]]").nth(1) {
        text.truncate(second);
    }
    let AnyStudy::Measured(study) = AnyStudy::parse_with(&text, "test", name, KINDS).unwrap() else {
        panic!("{name} measures")
    };
    let dir = tempfile::tempdir().unwrap();
    let mut listen = |_: StudyEvent<'_>| ();
    let options = StudyOptions { threads, ..StudyOptions::new(dir.path(), &mut listen) };
    run_measured(&study, options).unwrap()
}

fn quantity(result: &MeasuredResult, name: &str) -> f64 {
    result.findings.quantities.iter().find(|q| q.name == name).unwrap().value
}

#[test]
fn the_corridor_starts_where_it_says_and_climbs() {
    let run = |episodes: &str, p: &str| {
        let changes = [("episodes = 1000", episodes), ("seeds = 100", "seeds = 4"), ("p_right = 0.05", p)];
        measure("short-corridor", &changes, 1)
    };
    // At p = 0.5 the value is (1 - 4) / 0.25; one episode hardly moves it.
    let start = run("episodes = 1", "p_right = 0.5");
    assert!((quantity(&start, "REINFORCE: v") + 12.0).abs() < 0.05);
    assert!((quantity(&start, "REINFORCE: p right") - 0.5).abs() < 0.02);
    let later = run("episodes = 300", "p_right = 0.05");
    for label in ["REINFORCE", "with baseline"] {
        assert!(quantity(&later, &format!("{label}: p right")) > 0.2, "{label} left p = 0.05");
    }
}

#[test]
fn estimates_that_are_the_same_have_the_same_variance_and_forms_1_and_2_no_bias() {
    let changes = [
        ("episodes = 2000", "episodes = 150"),
        ("critic_batches = 150", "critic_batches = 6"),
        ("imperfect_after = 3", "imperfect_after = 1"),
        ("steps = 12_000", "steps = 4_096"),
    ];
    let cut = |result: &MeasuredResult| result.findings.results.clone().unwrap().rows;
    let result = measure("variance", &changes, 1);
    let rows = cut(&result);
    assert_eq!(rows, cut(&measure("variance", &changes, 2)), "threads change nothing");
    for critic in ["converged", "imperfect"] {
        let get = |psi: &str, column: usize| -> f64 {
            rows.iter().find(|r| r[1] == psi && r[2] == critic).unwrap()[column].parse().unwrap()
        };
        // One step, lambda = 0 and the residual are one thing.
        for same in ["n = 1", "lambda = 0"] {
            for column in [3, 4] {
                let (a, b) = (get(same, column), get("form 6", column));
                assert!((a - b).abs() <= 1e-4 * b.abs().max(1e-9), "{critic} {same}: {a}, {b}");
            }
        }
        // More steps than the variance of few.
        assert!(get("n = 1", 3) < get("n = 20", 3));
    }
    let off = |form: &str| -> f64 {
        rows.iter().find(|r| r[1] == form && r[2] == "converged").unwrap()[5].parse().unwrap()
    };
    for form in ["form 1", "form 2"] {
        assert!(off(form) < 4.0, "{form} has the mean of form 3: {}", off(form));
    }
    assert!(off("n = 1") > off("form 2"), "one step of a hardly fitted critic is biased");
    assert_eq!(result.findings.pictures.len(), 2);
}
