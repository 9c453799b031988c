//! A study on other seeds than its own, beside those.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use pgrad_study::{
    AnyStudy, KINDS, OtherSeeds, STUDIES, Study, StudyError, StudyEvent, StudyOptions, StudyResult,
    run_measured, run_study,
};
use std::path::Path;

const TEXT: &str = r#"
title = "One"
episodes = 3
[[entry]]
label = "pole"
env = "CartPole-v1"
steps = 512
seeds = { first = 1, count = 2 }
[[entry.anchor]]
measure = "E"
value = 1.0
source = "below every score"
"#;

fn run(out: &Path, other_seeds: Option<OtherSeeds>) -> Result<StudyResult, StudyError> {
    let mut listen = |_: StudyEvent<'_>| ();
    let study = Study::parse(TEXT, "one.toml", "one").unwrap();
    run_study(&study, StudyOptions { other_seeds, ..StudyOptions::new(out, &mut listen) })
}

fn labels(result: &StudyResult) -> Vec<(&str, Vec<u64>)> {
    let seeds = |label: &str| result.rows.iter().filter(|r| r.entry == label).map(|r| r.seed).collect();
    result.entries.iter().map(|e| (e.label.as_str(), seeds(&e.label))).collect()
}

#[test]
fn other_seeds_stand_beside_those_that_are_there() {
    let tmp = tempfile::tempdir().unwrap();
    let three = Some(OtherSeeds { first: 50_001, count: Some(3) });
    let alone = run(&tmp.path().join("alone"), three).unwrap();
    assert_eq!(labels(&alone), [("pole (seeds 50001-50003)", vec![50_001, 50_002, 50_003])]);
    let out = tmp.path().join("both");
    let own = run(&out, None).unwrap();
    let both = run(&out, three).unwrap();
    assert_eq!(
        labels(&both),
        [("pole", vec![1, 2]), ("pole (seeds 50001-50003)", vec![50_001, 50_002, 50_003])]
    );
    assert_eq!(both.reused, 2, "its own are not run again");
    assert_eq!(both.entries[0].e.values, own.entries[0].e.values);
    assert_eq!(both.entries[1].e.values, alone.entries[0].e.values);
    assert!(both.entries[1].e.anchors[0].judgement.is_some(), "they are judged, too");
    // As many as it has, without a last one; and they stay out of the way of its own.
    let two = run(&out, Some(OtherSeeds { first: 7, count: None })).unwrap();
    assert_eq!(labels(&two)[1], ("pole (seeds 7-8)", vec![7, 8]));
    assert_eq!(labels(&run(&out, None).unwrap()), labels(&own));
}

#[test]
fn seeds_that_evaluations_have_are_refused_and_so_are_others_of_a_measurement() {
    let tmp = tempfile::tempdir().unwrap();
    let out = tmp.path().join("out");
    let error = run(&out, Some(OtherSeeds { first: u64::MAX, count: Some(2) })).unwrap_err();
    assert!(error.to_string().contains("seeds must be below"), "{error}");
    let toml = STUDIES.iter().find(|s| s.name == "short-corridor").unwrap().toml;
    let AnyStudy::Measured(study) = AnyStudy::parse_with(toml, "test", "x", KINDS).unwrap() else { panic!() };
    let mut listen = |_: StudyEvent<'_>| ();
    let other_seeds = Some(OtherSeeds { first: 7, count: None });
    let options = StudyOptions { other_seeds, ..StudyOptions::new(&out, &mut listen) };
    let error = run_measured(&study, options).unwrap_err();
    assert!(error.to_string().starts_with("--seeds FIRST.. does not apply"), "{error}");
    assert_eq!(error.exit_code(), 64);
    assert!(!out.exists());
}
