//! Studies with a kind of their own: what is read, what is judged, what is on the disk afterwards.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use pgrad_study::{
    AnyStudy, Bench, Csv, Findings, KINDS, Kind, MeasuredStudy, Measurement, Quantity, RESULTS, STUDIES,
    SUMMARY_JSON, SUMMARY_MD, Source, Study, StudyError, StudyEvent, StudyOptions, number, run_measured,
};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use toml::Spanned;

/// Areas of squares.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Squares {
    side: Spanned<f64>,
    #[serde(default)]
    train: bool,
}

impl Measurement for Squares {
    fn check(&mut self, source: &Source<'_>) -> Result<(), StudyError> {
        if *self.side.get_ref() > 0.0 {
            return Ok(());
        }
        Err(source
            .error(self.side.span().start, format!("`side` is above 0, but got {}", self.side.get_ref())))
    }
    fn quantities(&self) -> Vec<String> {
        vec!["area".into(), "diagonal".into()]
    }
    fn extent(&self) -> String {
        "one square".into()
    }
    fn has_seeds(&self) -> bool {
        self.train
    }
    fn measure(&self, bench: &mut Bench<'_>) -> Result<Findings, StudyError> {
        let side = *self.side.get_ref();
        if bench.stopped() {
            return Err(StudyError::Stopped);
        }
        bench.progress(1, 2, 0, 0);
        bench.notice("half");
        let mut diagonal = 2f64.sqrt() * side;
        let mut results = Some(Csv {
            header: vec!["side", "area"],
            rows: vec![vec![side.to_string(), (side * side).to_string()]],
        });
        if self.train {
            let study = Study::parse(RUNS, "runs.toml", "runs").unwrap();
            let trained = bench.train(&study)?;
            diagonal = trained.rows.len() as f64;
            results = None;
        }
        Ok(Findings {
            quantities: vec![
                Quantity::exact("area", side * side),
                Quantity::sampled("diagonal", diagonal, 0.25),
            ],
            results,
            text: "A line below.".into(),
            pictures: vec![("square.svg".into(), "<svg></svg>".into())],
        })
    }
}

const RUNS: &str = r#"
title = "Runs"
episodes = 2
[[entry]]
label = "pole"
env = "CartPole-v1"
steps = 300
seeds = { first = 1, count = 3 }
settings = { n_envs = 4, n_steps = 64, epochs = 1, minibatch_size = 64 }
"#;

const TEXT: &str = r#"
kind = "squares"
title = "Squares"
note = "One of them."

[parameters]
side = 3.0

[[anchor]]
quantity = "area"
value = 9.0
at_least = 8.9
at_most = 9.1
source = "Euclid"

[[anchor]]
quantity = "diagonal"
value = 5.0
at_least = 4.5
source = "nobody"
"#;

const MINE: &[Kind] = &[Kind::of::<Squares>("squares")];

fn read(text: &str) -> Result<MeasuredStudy, StudyError> {
    match AnyStudy::parse_with(text, "mine.toml", "mine", MINE)? {
        AnyStudy::Measured(study) => Ok(study),
        AnyStudy::Runs(_) => panic!("not a study of runs"),
    }
}

#[test]
fn what_is_wrong_in_a_file_is_said_with_its_line() {
    let cases = [
        ("\"squares\"", "\"square\"", "mine.toml:2: there is no kind `square`", "did you mean `squares`?"),
        ("title =", "titel =", "mine.toml:3: unknown field `titel`", "did you mean `title`?"),
        ("side = 3.0", "sides = 3.0", "mine.toml:7: unknown field `sides`", "did you mean `side`?"),
        ("side = 3.0", "side = -3.0", "mine.toml:7: `side` is above 0, but got -3", ""),
        ("side = 3.0", "side = \"3\"", "mine.toml:7: ", "expected"),
        ("side = 3.0", "", "mine.toml:6: missing field `side`", ""),
        ("\"area\"", "\"aera\"", "mine.toml:10: there is no quantity `aera`", "did you mean `area`?"),
        ("at_least = 8.9", "at_lest = 8.9", "mine.toml:12: unknown field `at_lest`", "mean `at_least`?"),
        ("at_least = 8.9", "at_least = 9.2", "mine.toml:9: `at_least` = 9.2 is above `at_most`", ""),
        ("at_least = 4.5", "", "mine.toml:16: an anchor has `at_least`, `at_most` or both", ""),
        ("value = 5.0", "value = nan", "mine.toml:16: ", "are finite"),
        ("source = \"nobody\"", "", "mine.toml:16: missing field `source`", ""),
    ];
    for (right, wrong, place, hint) in cases {
        assert!(TEXT.contains(right), "{right}");
        let e = read(&TEXT.replacen(right, wrong, 1)).unwrap_err();
        assert!(
            e.to_string().contains(place) && e.to_string().contains(hint),
            "{wrong}: {place} {hint} in\n{e}"
        );
        assert_eq!(e.exit_code(), 64, "{e}");
    }
    // Both sorts are read by the same door; each is refused at the other's.
    assert!(
        matches!(AnyStudy::parse_with(RUNS, "r", "r", MINE).unwrap(), AnyStudy::Runs(s) if s.entries.len() == 1)
    );
    let named = format!("kind = \"runs\"\n{RUNS}");
    assert!(matches!(AnyStudy::parse_with(&named, "r", "r", MINE).unwrap(), AnyStudy::Runs(_)));
    let e = Study::parse(TEXT, "mine.toml", "mine").unwrap_err().to_string();
    assert!(e.contains("mine.toml:2: ") && e.contains("squares"), "{e}");
}

#[test]
fn the_folder_has_the_table_with_verdicts_and_the_command() {
    let tmp = tempfile::tempdir().unwrap();
    let out = tmp.path().join("a/b");
    let study = read(TEXT).unwrap();
    let mut heard = Vec::new();
    let mut listen = |event: StudyEvent<'_>| match event {
        StudyEvent::Progress(p) => heard.push(format!("{}/{}", p.runs, p.total_runs)),
        StudyEvent::Notice(text) => heard.push(text.to_owned()),
        other => panic!("{other:?}"),
    };
    let options = StudyOptions {
        command: Some("pgrad study mine.toml".into()),
        ..StudyOptions::new(&out, &mut listen)
    };
    let result = run_measured(&study, options).unwrap();
    assert_eq!(heard, ["1/2", "half"]);
    assert!(!result.all_within());
    let file = |name: &str| fs::read_to_string(out.join(name)).unwrap();
    assert_eq!(file(RESULTS), "side,area\n3,9\n");
    assert_eq!(file("square.svg"), "<svg></svg>");
    let markdown = file(SUMMARY_MD);
    assert_eq!(markdown, result.to_markdown());
    for part in [
        "# Squares\n\nOne of them.\n",
        "| quantity | ours | standard error | published | our bound | verdict |",
        "| area | 9 | exact | 9 | 8.9 to 9.1 | within our bound |",
        "| diagonal | 4.243 | 0.25 | 5 | ≥ 4.5 | outside our bound |",
        "A line below.",
        "![square](square.svg)",
        "- area, 9: Euclid",
        "Made by `pgrad study mine.toml`, pgrad ",
    ] {
        assert!(markdown.contains(part), "{part} in\n{markdown}");
    }
    assert_eq!(file(SUMMARY_JSON), format!("{:#}\n", result.to_json()));
    let json: serde_json::Value = serde_json::from_str(&file(SUMMARY_JSON)).unwrap();
    assert_eq!(json["kind"], "squares");
    assert_eq!(json["quantities"][0]["anchors"][0]["verdict"], "within our bound");
    assert_eq!(json["quantities"][1]["anchors"][0]["verdict"], "outside our bound");
    assert_eq!(json["quantities"][1]["standard_error"], 0.25);
    assert_eq!(json["command"], "pgrad study mine.toml");
}

fn quietly(
    study: &MeasuredStudy,
    out: &Path,
    seeds: Option<u64>,
    stop: bool,
) -> Result<Findings, StudyError> {
    let mut listen = |_: StudyEvent<'_>| {};
    let stop = Arc::new(AtomicBool::new(stop));
    let options = StudyOptions { seeds, stop, ..StudyOptions::new(out, &mut listen) };
    Ok(run_measured(study, options)?.findings)
}

#[test]
fn a_stop_leaves_no_table_and_seeds_are_refused_where_there_are_none() {
    let tmp = tempfile::tempdir().unwrap();
    let study = read(TEXT).unwrap();
    let e = quietly(&study, tmp.path(), None, true).unwrap_err();
    assert!(matches!(e, StudyError::Stopped) && e.exit_code() == 75, "{e}");
    assert!(!tmp.path().join(SUMMARY_MD).exists());
    let e = quietly(&study, tmp.path(), Some(2), false).unwrap_err();
    assert!(e.to_string().contains("kind `squares` has no choice of seeds") && e.exit_code() == 64, "{e}");
    assert!(matches!(quietly(&study, tmp.path(), Some(0), false).unwrap_err(), StudyError::NoSeeds));
}

#[test]
fn a_measurement_can_train_and_goes_on_where_it_stopped() {
    let tmp = tempfile::tempdir().unwrap();
    let study = read(&TEXT.replace("side = 3.0", "side = 3.0\ntrain = true")).unwrap();
    let e = quietly(&study, tmp.path(), None, true).unwrap_err();
    assert!(matches!(e, StudyError::Stopped), "{e}");
    assert_eq!(quietly(&study, tmp.path(), Some(2), false).unwrap().quantities[1].value, 2.0);
    let csv = |_: ()| fs::read_to_string(tmp.path().join(RESULTS)).unwrap();
    let before = csv(());
    assert_eq!(before.lines().count(), 3);
    assert_eq!(quietly(&study, tmp.path(), None, false).unwrap().quantities[1].value, 3.0);
    assert!(csv(()).starts_with(&before), "the seconds, too, are those of the first time");
    assert_eq!(csv(()).lines().count(), 4);
}

#[test]
fn numbers_have_four_digits() {
    let cases = [
        (0.0, "0"),
        (1.9, "1.9"),
        (-11.6569, "-11.66"),
        (0.05, "0.05"),
        (2_700_000.0, "2.7e6"),
        (999.96, "1000"),
        (123_456.0, "123456"),
        (9.9996e-4, "0.001"),
        (1.26e-6, "1.26e-6"),
        (100.0, "100"),
    ];
    for (x, text) in cases {
        assert_eq!(number(x), text);
    }
}

#[test]
fn studies_that_come_with_pgrad_are_right() {
    for embedded in STUDIES {
        let study = AnyStudy::load(embedded.name).unwrap();
        assert!(!study.title().is_empty() && !study.extent().is_empty(), "{}", embedded.name);
        if let AnyStudy::Measured(study) = study {
            // A race may compare our own methods, where no number is published.
            assert!(!study.anchors.is_empty() || study.kind == "race", "{}", embedded.name);
            assert!(KINDS.iter().any(|k| k.name == study.kind), "{}", embedded.name);
        }
    }
}
