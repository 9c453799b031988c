//! Studies: what is read, what is measured, what is on the disk afterwards.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use pgrad_env::{Actions, BatchEnv, BatchResult, End, EnvSpec, VecEnv};
use pgrad_num::{ColsMut, Stream};
use pgrad_run::{
    config::RunConfig,
    driver,
    eval::{EvalOptions, evaluate_run},
};
use pgrad_study::{
    AnyStudy, CURVES, EntryError, Evaluated, Measure, RESULTS, REVISION, RunRow, SOURCES, STUDIES,
    SUMMARY_JSON, SUMMARY_MD, Study, StudyError, StudyEvent, StudyOptions, StudyResult, eval_seed,
    run_digest, run_study, scores::Verdict,
};
use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

const TINY: &str = r#"
title = "Tiny"
note = "Two tasks."
episodes = 7

[[entry]]
label = "pole"
env = "CartPole-v1"
steps = 1000
seeds = { first = 3, count = 3 }
settings = { n_envs = 4, n_steps = 64, epochs = 2, minibatch_size = 64 }
[[entry.anchor]]
measure = "E"
value = 1.0
source = "below every score"
[[entry.anchor]]
measure = "T"
value = 501.0
source = "above every score"

[[entry]]
env = "Pendulum-v1"
algo = "ppo"
steps = 900
preset = false
seeds = { first = 5, count = 2 }
settings = { n_envs = 2, n_steps = 225, minibatch_size = 50 }
"#;

/// What the second entry cannot get more than, and what it can.
const BOUNDS: &str = r#"
[[entry.anchor]]
measure = "E"
value = 0.0
at_most = true
source = "every reward is negative"
[[entry.anchor]]
measure = "T"
value = -1e6
at_most = true
source = "no bound"
"#;

fn tiny() -> Study {
    Study::parse(TINY, "tiny.toml", "tiny").unwrap()
}

/// Runs a study; how many runs it did, and what it noticed.
fn run(study: &Study, out: &Path, threads: usize, seeds: Option<u64>) -> (StudyResult, usize, Vec<String>) {
    let (mut runs, mut notices) = (0, Vec::new());
    let mut listen = |event: StudyEvent<'_>| match event {
        StudyEvent::Run(_) => runs += 1,
        StudyEvent::Notice(text) => notices.push(text.to_owned()),
        StudyEvent::Failed(f) => notices.push(f.reason.clone()),
        StudyEvent::Progress(p) => assert!(p.runs <= p.total_runs && p.total_steps >= 900),
    };
    let options = StudyOptions { threads, seeds, ..StudyOptions::new(out, &mut listen) };
    let result = run_study(study, options).unwrap();
    (result, runs, notices)
}

/// A line without what differs from time to time.
fn timeless(row: &RunRow) -> RunRow {
    RunRow { seconds: 0.0, ..row.clone() }
}

fn timeless_all(result: &StudyResult) -> Vec<RunRow> {
    result.rows.iter().map(timeless).collect()
}

fn read(out: &Path, name: &str) -> String {
    fs::read_to_string(out.join(name)).unwrap()
}

#[test]
fn a_file_is_read() {
    let study = tiny();
    assert_eq!((study.title.as_str(), study.note.as_str(), study.episodes), ("Tiny", "Two tasks.", 7));
    let [pole, pendulum] = &study.entries[..] else { panic!("two entries") };
    assert_eq!((pole.label.as_str(), pole.first_seed, pole.seeds), ("pole", 3, 3));
    assert_eq!(
        (pole.config.algo(), pole.config.env_id(), pole.config.run.steps),
        ("ppo", "CartPole-v1", 1000)
    );
    // Its own settings over the preset's, and those over the defaults.
    assert_eq!(pole.config.get("epochs"), Some(2u32.into()));
    assert_eq!(pole.config.get("lambda"), RunConfig::new("ppo", "CartPole-v1").unwrap().get("lambda"));
    assert_ne!(pole.config.get("lambda"), Some(0.95.into()));
    assert_eq!(pole.anchors[1].measure, Measure::T);
    assert_eq!((pole.anchors[1].value, pole.anchors[1].standard_error), (501.0, 0.0));
    // Without the preset: the defaults.
    assert_eq!(pendulum.label, "ppo Pendulum-v1 900");
    assert_eq!(pendulum.config.get("gamma"), Some(0.99.into()));
    assert!(pendulum.anchors.is_empty());
}

#[test]
fn every_environments_name_can_be_part_of_a_label() {
    for id in ["MinAtar/Freeway-v1", "tiles:MountainCar-v0"] {
        let text = TINY.replace("Pendulum-v1", id);
        let study = Study::parse(&text, "tiny.toml", "tiny").unwrap();
        assert_eq!(study.entries[1].label, format!("ppo {id} 900"));
    }
}

#[test]
fn what_is_wrong_in_a_file_is_said_with_its_line() {
    let cases = [
        ("episodes = 7", "episode = 7", "tiny.toml:4: unknown field `episode`"),
        ("episodes = 7", "episodes = 0", "tiny.toml:4: `episodes` is at least 1"),
        ("episodes = 7", "episodes = -7", "tiny.toml:4: "),
        ("title = \"Tiny\"", "title = Tiny", "tiny.toml:2: "),
        ("env = \"CartPole-v1\"", "env = \"CartPol-v1\"", "tiny.toml:6: "),
        ("algo = \"ppo\"", "algo = \"pop\"", "did you mean `ppo`"),
        ("env = \"Pendulum-v1\"\n", "", "tiny.toml:21: missing field `env`"),
        ("steps = 900", "steps = 0", "tiny.toml:24: `steps` takes"),
        ("steps = 900", "steps = \"many\"", "tiny.toml:24: `steps` takes"),
        ("steps = 1000", "steps = 1000\niterations = 0", "tiny.toml:6: `iterations` is at least 1"),
        ("preset = false", "evaluation = \"random\"", "tiny.toml:25: unknown variant `random`"),
        ("preset = false", "presets = false", "tiny.toml:25: unknown field `presets`"),
        ("count = 3 }", "count = 0 }", "tiny.toml:6: "),
        ("first = 3", "first = 1000000000000", "tiny.toml:6: seeds must be below 1000000000000"),
        ("first = 3, count", "last = 3, count", "tiny.toml:10: unknown field `last`"),
        ("epochs = 2", "epoch = 2", "tiny.toml:11: there is no setting `epoch`"),
        ("epochs = 2", "epoch = 2", "did you mean `epochs`?"),
        ("epochs = 2", "epochs = 0", "tiny.toml:11: `epochs` takes"),
        ("epochs = 2", "seed = 2", "tiny.toml:11: `seed` is given by the entry"),
        ("epochs = 2", "on_divergence = \"rollback\"", "`on_divergence` is \"stop\" in a study"),
        ("minibatch_size = 50", "minibatch_size = 451", "tiny.toml:21: `minibatch_size` = 451"),
        ("measure = \"T\"", "measure = \"X\"", "tiny.toml:17: unknown variant `X`"),
        ("value = 501.0", "value = nan", "an anchor is a finite number"),
        ("value = 501.0", "value = 501.0\nstandard_error = -1.0", "its standard error is finite and not"),
        ("value = 501.0", "value = 501.0\nat_most = 1", "tiny.toml:19: "),
        (
            "value = 501.0",
            "value = 501.0\nat_most = true\nstandard_error = 1.0",
            "a bound has no standard error",
        ),
        ("source = \"above every score\"", "", "missing field `source`"),
        ("label = \"pole\"", "label = \"a,b\"", "tiny.toml:6: a label has 1 to 80"),
        ("label = \"pole\"", "label = \"ppo Pendulum-v1 900\"", "tiny.toml:21: entry `ppo Pendulum-v1 900`"),
    ];
    for (right, wrong, expected) in cases {
        assert!(TINY.contains(right), "{right}");
        let e = Study::parse(&TINY.replacen(right, wrong, 1), "tiny.toml", "tiny").unwrap_err();
        assert!(e.to_string().contains(expected), "{wrong}: expected `{expected}` in\n{e}");
        assert_eq!(e.exit_code(), 64, "{e}");
    }
    let e = Study::parse("title = \"x\"\nentry = []", "x.toml", "x").unwrap_err().to_string();
    assert!(e.contains("x.toml:2: ") && e.contains("[[entry]]"), "{e}");
}

#[test]
fn studies_that_come_with_pgrad_are_right_and_keep_to_the_reporting_seeds() {
    for embedded in STUDIES {
        let AnyStudy::Runs(study) = AnyStudy::load(embedded.name).unwrap() else { continue };
        for entry in &study.entries {
            entry.check().unwrap();
            // Seeds from 10 001 on are for tuning. Long runs have fewer than 20; a rival that is there for
            // the comparison alone has no anchor.
            assert!(
                entry.first_seed + entry.seeds <= 10_001 && (3..=100).contains(&entry.seeds),
                "{}",
                entry.label
            );
        }
    }
    let e = Study::load("ppo-clasic").unwrap_err();
    assert!(e.to_string().contains("did you mean `ppo-classic`?"), "{e}");
    assert_eq!(e.exit_code(), 64);
}

#[test]
fn a_study_can_be_a_file() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("mine.toml");
    fs::write(&path, TINY).unwrap();
    assert_eq!(Study::load(path.to_str().unwrap()).unwrap().entries.len(), 2);
    fs::write(&path, TINY.replace("episodes", "episode")).unwrap();
    let e = Study::load(path.to_str().unwrap()).unwrap_err().to_string();
    assert!(e.contains("mine.toml:4: "), "{e}");
}

#[test]
fn the_scores_are_those_of_train_and_eval() {
    let tmp = tempfile::tempdir().unwrap();
    // The second task's policy is measured with drawn actions.
    let drawn = TINY.replace("preset = false", "preset = false\nevaluation = \"stochastic\"");
    let study = Study::parse(&drawn, "tiny.toml", "tiny").unwrap();
    let (result, ..) = run(&study, &tmp.path().join("out"), 1, None);
    assert_eq!(result.rows.len(), 5);
    for (row, entry, seed) in
        [(&result.rows[1], &study.entries[0], 4), (&result.rows[4], &study.entries[1], 6)]
    {
        let mut config = entry.config.clone();
        config.run.seed = seed;
        let mut listen = |_: driver::Event<'_>| {};
        let run_dir = tmp.path().join(format!("{}-{seed}", config.env_id()));
        let options = driver::Options { run_dir: Some(run_dir.clone()), ..driver::Options::new(&mut listen) };
        let summary = driver::train(config.clone(), options).unwrap();
        let policy =
            pgrad_model::Policy::from_bytes(&fs::read(run_dir.join("policy.safetensors")).unwrap()).unwrap();
        let stochastic = entry.evaluated == Evaluated::Stochastic;
        assert_eq!(stochastic, config.env_id() == "Pendulum-v1");
        let options =
            EvalOptions { episodes: 7, seed: eval_seed(seed), stochastic, ..EvalOptions::default() };
        let found = evaluate_run(policy, &config, &options).unwrap();
        assert_eq!((row.seed, row.steps), (seed, summary.progress.steps));
        assert_eq!(row.e, found.return_mean(), "{}", row.entry);
        assert_eq!(row.t, summary.progress.return_mean_100, "{}", row.entry);
    }
    assert_ne!(result.rows[0].e, result.rows[1].e, "other seeds, other runs");
    // 256 steps an iteration: 1000 are asked for, 1024 done; 450 an iteration: exact.
    assert_eq!((result.rows[0].steps, result.rows[3].steps), (1024, 900));
    // The table says so where actions were drawn, and only there.
    let markdown = result.to_markdown();
    for part in
        ["| pole | 1000 | 3 | E |", "| ppo Pendulum-v1 900 | 900 | 2 | E (drawn) |", "but actions drawn"]
    {
        assert!(markdown.contains(part), "{part} in\n{markdown}");
    }
    let json = result.to_json();
    assert_eq!(
        (&json["entries"][0]["evaluation"], &json["entries"][1]["evaluation"]),
        (&"greedy".into(), &"stochastic".into())
    );
    // Greedy scores are other rows.
    let (greedy, runs, _) = run(&tiny(), &result.out, 1, None);
    assert_eq!((greedy.reused, runs), (3, 2));
    assert_ne!(greedy.rows[3].e, result.rows[3].e);
    assert_eq!(greedy.rows[3].t, result.rows[3].t);
}

#[test]
fn a_run_can_be_counted_in_iterations() {
    let tmp = tempfile::tempdir().unwrap();
    let three = TINY.replace("steps = 1000", "steps = 100_000\niterations = 3");
    let study = Study::parse(&three, "tiny.toml", "tiny").unwrap();
    let (result, ..) = run(&study, &tmp.path().join("out"), 1, Some(2));
    // 4 x 64 steps each; the other entry does all its steps.
    assert_eq!(result.rows.iter().map(|r| r.steps).collect::<Vec<_>>(), [768, 768, 900, 900]);
    let markdown = result.to_markdown();
    assert!(
        markdown.contains("| pole | 3 iterations | 2 |") && markdown.contains("| 900 | 2 |"),
        "{markdown}"
    );
    assert_eq!(result.to_json()["entries"][0]["iterations"], 3);
    // Two iterations are another run.
    let two = Study::parse(&three.replace("iterations = 3", "iterations = 2"), "tiny.toml", "tiny").unwrap();
    let (result, runs, _) = run(&two, &result.out, 1, Some(1));
    assert_eq!((runs, result.rows[0].steps), (1, 512));
}

/// Lines without digests, as older versions wrote them and this one takes them.
fn undigested(text: &str) -> String {
    without_cells(text, 2)
}

/// Lines without their last cells.
fn without_cells(text: &str, n: usize) -> String {
    let less = |line: &str| line.rsplitn(n + 1, ',').last().unwrap_or_default().to_owned() + "\n";
    text.lines().map(less).collect()
}

#[test]
fn rows_say_what_made_them_and_those_of_other_sources_do_not_count() {
    let digest = SOURCES.len() == 16 && SOURCES.bytes().all(|b| b.is_ascii_hexdigit());
    assert!(digest, "the workspace's sources are at hand, but the stamp is `{SOURCES}`");
    let tmp = tempfile::tempdir().unwrap();
    let out = tmp.path().join("out");
    let (first, ..) = run(&tiny(), &out, 1, Some(1));
    assert!(first.rows.iter().all(|r| r.sources == SOURCES));
    let stamp = format!("(sources {SOURCES}, revision {REVISION})");
    assert!(read(&out, SUMMARY_MD).contains(&stamp), "{stamp}");
    let json: serde_json::Value = serde_json::from_str(&read(&out, SUMMARY_JSON)).unwrap();
    assert_eq!((&json["sources"], &json["revision"]), (&SOURCES.into(), &REVISION.into()));

    // In three episodes of an evaluation the environment failed.
    let (ours, lost) = (format!(",{SOURCES},0\n"), format!(",{SOURCES},3\n"));
    let text = undigested(&read(&out, RESULTS));
    fs::write(out.join(RESULTS), text.replacen(&ours, &lost, 1)).unwrap();
    let (marked, runs, _) = run(&tiny(), &out, 1, Some(1));
    assert_eq!((runs, marked.rows[0].lost, marked.rows[1].lost), (0, Some(3), Some(0)));
    assert_eq!(read(&out, SUMMARY_MD).matches("failed in 3 of 7 episodes").count(), 1);

    // One row was made by another program.
    let text = undigested(&read(&out, RESULTS));
    fs::write(out.join(RESULTS), text.replacen(&format!(",{SOURCES},0\n"), ",0123456789abcdef,0\n", 1))
        .unwrap();
    let (again, runs, notices) = run(&tiny(), &out, 1, Some(1));
    assert_eq!((runs, again.reused), (1, 1));
    assert!(notices[0].contains("1 lines of other runs"), "{notices:?}");
    assert!(notices[0].contains("1 of them made by other sources"), "{notices:?}");
    assert_eq!(again.entries[0].e.values.len(), 1);
    assert!(read(&out, RESULTS).contains(",0123456789abcdef,0,,"), "it stays");

    // Lines of a time when they did not say what made them.
    let (whole, old) = (read(&out, RESULTS), without_cells(&text, 2));
    fs::write(out.join(RESULTS), old.trim_end_matches('\n').to_owned() + "\ntorn,").unwrap();
    let (again, runs, notices) = run(&tiny(), &out, 1, Some(1));
    assert_eq!((runs, again.reused), (2, 0));
    assert!(notices[0].contains("2 of them made by other sources"), "{notices:?}");
    let now = read(&out, RESULTS);
    assert_eq!(now.lines().next(), whole.lines().next());
    assert_eq!(now.matches(",unknown,,,").count(), 2, "{now}");
}

/// What another program did is not done again when that is accepted: whole entries, and it is said.
#[test]
fn entries_of_other_sources_can_be_accepted() {
    const OTHERS: &str = "00000000000000aa";
    let (dir, study) = (tempfile::tempdir().unwrap(), tiny());
    let (first, ..) = run(&study, dir.path(), 2, None);
    // As if a program of other sources had done all runs but one, which nobody did.
    let path = dir.path().join(RESULTS);
    let mut text = undigested(&fs::read_to_string(&path).unwrap());
    for row in &first.rows[1..] {
        let entry = study.entries.iter().find(|e| e.label == row.entry).unwrap();
        let settings = run_digest(entry, row.seed, study.episodes, OTHERS);
        assert_eq!(run_digest(entry, row.seed, study.episodes, SOURCES), row.settings);
        text = text.replace(&format!("{},{SOURCES}", row.settings), &format!("{settings},{OTHERS}"));
    }
    let nobody = |line: &&str| !line.contains(&first.rows[0].settings);
    fs::write(&path, text.split_inclusive('\n').filter(nobody).collect::<String>()).unwrap();
    let accepting = |accept: &[&str]| {
        let mut runs = Vec::new();
        let mut listen = |event: StudyEvent<'_>| {
            if let StudyEvent::Run(row) = event {
                runs.push((row.entry.clone(), row.seed));
            }
        };
        let accept = accept.iter().map(|s| (*s).to_owned()).collect();
        let result = run_study(&study, StudyOptions { accept, ..StudyOptions::new(dir.path(), &mut listen) });
        (result, runs)
    };
    let (error, _) = accepting(&["00000000000000bb"]);
    let error = error.unwrap_err();
    assert!(error.exit_code() == 64 && error.to_string().contains("`00000000000000bb`"), "{error}");
    // The first entry was not done as a whole: one program does it.
    let picture = fs::read(dir.path().join("Pendulum-v1.svg")).unwrap();
    let (result, runs) = accepting(&[OTHERS]);
    let result = result.unwrap();
    assert_eq!(runs, [3, 4, 5].map(|seed| ("pole".to_owned(), seed)));
    assert_eq!(
        timeless_all(&result).iter().map(|r| (r.e, r.t)).collect::<Vec<_>>(),
        timeless_all(&first).iter().map(|r| (r.e, r.t)).collect::<Vec<_>>()
    );
    let label = &study.entries[1].label;
    let said = format!("Made before, by sources {OTHERS}, and not done again: {label}.");
    assert!(read(dir.path(), SUMMARY_MD).contains(&said));
    assert_eq!(result.to_json()["accepted"][OTHERS], serde_json::json!([label]));
    // Its curves are not there any more; its picture is not emptied.
    assert_eq!(fs::read(dir.path().join("Pendulum-v1.svg")).unwrap(), picture);
    let (result, runs) = accepting(&[]);
    assert_eq!((runs.len(), result.unwrap().to_json()["accepted"].to_string()), (2, "{}".to_owned()));
}

#[test]
fn the_folder_has_tables_curves_and_pictures() {
    let tmp = tempfile::tempdir().unwrap();
    let out = tmp.path().join("a/b");
    let study = Study::parse(&format!("{TINY}{BOUNDS}"), "tiny.toml", "tiny").unwrap();
    let (result, runs, notices) = run(&study, &out, 2, None);
    assert_eq!((runs, result.reused, result.stopped), (5, 0, false));
    assert_eq!(notices, Vec::<String>::new());

    let [pole, pendulum] = &result.entries[..] else { panic!("two entries") };
    assert_eq!(pole.e.values, result.rows[..3].iter().map(|r| r.e).collect::<Vec<_>>());
    assert_eq!(pole.t.values, result.rows[..3].iter().filter_map(|r| r.t).collect::<Vec<_>>());
    assert_eq!(pole.e.summary.unwrap().mean, pole.e.values.iter().sum::<f64>() / 3.0);
    assert_eq!(pole.e.anchors[0].judgement.unwrap().verdict, Verdict::Beaten);
    assert_eq!(pole.t.anchors[0].judgement.unwrap().verdict, Verdict::Short);
    assert!(pendulum.e.values.iter().all(|e| *e < 0.0));
    assert_eq!(pendulum.e.anchors[0].judgement.unwrap().verdict, Verdict::Bounded);
    assert_eq!(pendulum.t.anchors[0].judgement.unwrap().verdict, Verdict::Exceeded);

    let csv = read(&out, RESULTS);
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines[0], "entry,env,algo,steps,seed,E,T,seconds,settings,sources,lost,curve,digest");
    assert_eq!(lines.len(), 6);
    for (line, row) in lines[1..].iter().zip(&result.rows) {
        let RunRow { entry, env, steps, seed, e, .. } = row;
        assert!(line.starts_with(&format!("{entry},{env},ppo,{steps},{seed},{e},")), "{line}");
    }
    let markdown = read(&out, SUMMARY_MD);
    assert_eq!(markdown, result.to_markdown());
    for part in [
        "# Tiny",
        "| pole | 1000 | 3 | E |",
        "beaten",
        "short",
        "above every score",
        "pgrad study tiny",
        "± 71.32 | bounded |",
        "| pole | 1000 | 3 | T |",
        "short, 3 of 3 seeds failed |",
        "| ≤ -1000000.00 | +",
        " | exceeded |",
        "E ≤ 0: every reward is negative (an upper bound)",
    ] {
        assert!(markdown.contains(part), "{part} in\n{markdown}");
    }
    assert_eq!(read(&out, SUMMARY_JSON), format!("{:#}\n", result.to_json()));
    let json: serde_json::Value = serde_json::from_str(&read(&out, SUMMARY_JSON)).unwrap();
    // The reader rounds the last digit.
    let near = |value: &serde_json::Value, x: f64| (value.as_f64().unwrap() / x - 1.0).abs() < 1e-14;
    assert!(near(&json["entries"][0]["E"]["summary"]["mean"], pole.e.summary.unwrap().mean));
    assert_eq!(json["entries"][0]["T"]["anchors"][0]["verdict"], "short");
    assert_eq!(json["entries"][1]["E"]["anchors"][0]["at_most"], true);
    assert!(near(&json["entries"][1]["E"]["values"][1], result.rows[4].e));

    for env in ["CartPole-v1", "Pendulum-v1"] {
        assert!(read(&out, &format!("{env}.svg")).contains("</svg>"), "{env}");
    }
    // Each curve ends where the run ended, with its T.
    for row in &result.rows {
        let last = format!("{},{},{},{},{}", row.entry, row.seed, row.settings, row.steps, row.t.unwrap());
        assert!(read(&out, CURVES).lines().any(|l| l == last), "{last}");
    }
}

#[test]
fn results_do_not_depend_on_threads() {
    let tmp = tempfile::tempdir().unwrap();
    let (one, ..) = run(&tiny(), &tmp.path().join("one"), 1, None);
    let (four, ..) = run(&tiny(), &tmp.path().join("four"), 4, None);
    assert_eq!(timeless_all(&one), timeless_all(&four));
    assert_eq!(one.entries, four.entries);
    for picture in ["CartPole-v1.svg", "Pendulum-v1.svg"] {
        assert_eq!(read(&one.out, picture), read(&four.out, picture));
    }
}

#[test]
fn what_is_there_is_not_run_again() {
    let tmp = tempfile::tempdir().unwrap();
    let whole = run(&tiny(), &tmp.path().join("whole"), 1, None).0;
    let out = tmp.path().join("parts");
    let (first, runs, _) = run(&tiny(), &out, 1, Some(1));
    assert_eq!((first.rows.len(), runs), (2, 2));
    assert_eq!(first.entries[0].e.anchors[0].judgement, None, "one seed says nothing");
    let (second, runs, _) = run(&tiny(), &out, 1, None);
    assert_eq!((second.reused, runs), (2, 3));
    assert_eq!(timeless_all(&second), timeless_all(&whole));
    assert_eq!(read(&out, "CartPole-v1.svg"), read(&whole.out, "CartPole-v1.svg"));
    let before = read(&out, RESULTS);
    let (third, runs, _) = run(&tiny(), &out, 1, None);
    assert_eq!((third.reused, runs), (5, 0));
    assert_eq!(third.rows, second.rows, "the seconds, too, are those of the first time");
    assert_eq!(read(&out, RESULTS), before);

    // Other settings are other runs; the lines of the old ones stay.
    let other = Study::parse(&TINY.replace("epochs = 2", "epochs = 3"), "tiny.toml", "tiny").unwrap();
    let (fourth, runs, notices) = run(&other, &out, 1, None);
    assert_eq!((fourth.reused, runs), (2, 3));
    assert!(notices[0].contains("3 lines of other runs"), "{notices:?}");
    assert_ne!(fourth.rows[0].t, third.rows[0].t);
    assert_eq!(fourth.entries[0].e.values.len(), 3, "lines of other runs do not count");
    assert_eq!(run(&tiny(), &out, 1, None).0.rows, second.rows, "nothing was lost");
    // So do other lengths of the evaluation.
    let other = Study::parse(&TINY.replace("episodes = 7", "episodes = 8"), "tiny.toml", "tiny").unwrap();
    assert_eq!(run(&other, &out, 1, Some(1)).1, 2);
}

#[test]
fn a_curve_that_was_cut_short_is_not_joined_to_the_next() {
    let tmp = tempfile::tempdir().unwrap();
    let out = tmp.path().join("out");
    let (whole, ..) = run(&tiny(), &out, 1, Some(1));
    let curves = read(&out, CURVES);
    // The disk was full in the middle of the second run's curve: its line of results is missing too.
    let results = read(&out, RESULTS);
    let last = results.lines().next_back().unwrap();
    fs::write(out.join(RESULTS), results.strip_suffix(&format!("{last}\n")).unwrap()).unwrap();
    fs::write(out.join(CURVES), &curves[..curves.len() - 9]).unwrap();
    let (again, runs, _) = run(&tiny(), &out, 1, Some(1));
    assert_eq!((runs, again.reused), (1, 1));
    assert_eq!(timeless_all(&again), timeless_all(&whole));
    let of = |text: &str| text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(of(&read(&out, CURVES)), of(&curves));
    assert_eq!(run(&tiny(), &out, 1, Some(1)).0.reused, 2);
}

#[test]
fn a_line_that_a_crash_cut_is_run_again_and_a_wrong_one_is_refused() {
    let tmp = tempfile::tempdir().unwrap();
    let out = tmp.path().join("out");
    let (whole, ..) = run(&tiny(), &out, 1, None);
    let path = out.join(RESULTS);
    let text = read(&out, RESULTS);
    fs::write(&path, &text[..text.len() - 9]).unwrap();
    // The new line does not go on where the torn one ends.
    let mut seen = Vec::new();
    let mut listen = |event: StudyEvent<'_>| {
        if matches!(event, StudyEvent::Run(_)) {
            seen = read(&out, RESULTS).lines().map(|l| l.split(',').count()).collect();
        }
    };
    let again = run_study(&tiny(), StudyOptions::new(&out, &mut listen)).unwrap();
    assert_eq!(seen, [13; 6]);
    assert_eq!(again.reused, 4);
    assert_eq!(timeless_all(&again), timeless_all(&whole));

    for (wrong, line) in [
        (text.replacen("Pendulum-v1,ppo,900", "Pendulum-v1,ppo,901", 1), 5),
        (text.replacen(",ppo,1024", ",1024", 1), 2),
        (text.replacen("entry,env", "entry;env", 1), 1),
        (text.replacen(&format!(",{},", whole.rows[1].e), ",NaN,", 1), 3),
    ] {
        assert_ne!(wrong, text);
        fs::write(&path, &wrong).unwrap();
        let mut listen = |_: StudyEvent<'_>| {};
        let e = run_study(&tiny(), StudyOptions::new(&out, &mut listen)).unwrap_err();
        assert!(matches!(&e, StudyError::Rows { line: l, .. } if *l == line), "{e}");
        assert_eq!(e.exit_code(), 65);
        assert_eq!(read(&out, RESULTS), wrong, "left as it was");
    }
}

#[test]
fn a_curve_that_was_changed_is_refused_and_what_a_crash_left_of_it_is_not() {
    let tmp = tempfile::tempdir().unwrap();
    let out = tmp.path().join("out");
    let (first, ..) = run(&tiny(), &out, 1, Some(1));
    let (curves, picture) = (read(&out, CURVES), read(&out, "CartPole-v1.svg"));
    let lines: Vec<&str> = curves.lines().collect();
    let cells: Vec<&str> = lines[1].split(',').collect();
    // The first try of a run, whose order nobody can repeat, ended after other points.
    let other = format!("{},{},{},7,1.5", cells[0], cells[1], cells[2]);
    fs::write(out.join(CURVES), curves.replacen(lines[1], &format!("{other}\n{}", lines[1]), 1)).unwrap();
    let (again, ..) = run(&tiny(), &out, 1, Some(1));
    assert_eq!((again.reused, read(&out, "CartPole-v1.svg")), (first.rows.len(), picture));
    let wrong = format!("{},{},{},{},{}", cells[0], cells[1], cells[2], cells[3], "1e9");
    fs::write(out.join(CURVES), curves.replacen(lines[1], &wrong, 1)).unwrap();
    let mut listen = |_: StudyEvent<'_>| {};
    let options = StudyOptions { seeds: Some(1), ..StudyOptions::new(&out, &mut listen) };
    let e = run_study(&tiny(), options).unwrap_err();
    assert_eq!((e.exit_code(), e.to_string().contains("was damaged or changed")), (65, true), "{e}");
}

#[test]
fn a_study_that_is_stopped_goes_on_later() {
    let tmp = tempfile::tempdir().unwrap();
    let out = tmp.path().join("out");
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let mut listen = |event: StudyEvent<'_>| {
        if matches!(event, StudyEvent::Run(_)) {
            flag.store(true, Ordering::Relaxed);
        }
    };
    // Long enough that the first worker is not through with everything before it hears of it.
    let study = Study::parse(&TINY.replace("steps = 900", "steps = 90_000"), "tiny.toml", "tiny").unwrap();
    let options = StudyOptions { stop, ..StudyOptions::new(&out, &mut listen) };
    let result = run_study(&study, options).unwrap();
    assert!(result.stopped);
    assert!((1..5).contains(&result.rows.len()), "{}", result.rows.len());
    assert!(!out.join(SUMMARY_MD).exists());
    let (again, runs, _) = run(&study, &out, 2, Some(1));
    assert!(!again.stopped && out.join(SUMMARY_MD).exists());
    assert_eq!(runs + again.reused, 2);
    assert!(again.reused >= 1);
}

#[test]
fn two_at_once_in_one_folder_are_refused() {
    let tmp = tempfile::tempdir().unwrap();
    let out = tmp.path().join("out");
    let mut inner = None;
    let mut listen = |event: StudyEvent<'_>| {
        if matches!(event, StudyEvent::Run(_)) && inner.is_none() {
            let mut listen = |_: StudyEvent<'_>| {};
            inner = Some(run_study(&tiny(), StudyOptions::new(&out, &mut listen)).map(|r| r.rows.len()));
        }
    };
    let options = StudyOptions { seeds: Some(1), ..StudyOptions::new(&out, &mut listen) };
    run_study(&tiny(), options).unwrap();
    let e = inner.unwrap().unwrap_err();
    assert_eq!(e.exit_code(), 75, "{e}");
}

/// Environments of which the one that starts at `start` has a reward that is not a number.
struct Broken {
    inner: Box<dyn BatchEnv>,
    start: f32,
    broken: bool,
}

impl BatchEnv for Broken {
    fn spec(&self) -> &EnvSpec {
        self.inner.spec()
    }
    fn len(&self) -> usize {
        self.inner.len()
    }
    fn reset(&mut self, b: usize, rng: &mut Stream) {
        self.inner.reset(b, rng);
        let mut obs = vec![0.0; 4];
        self.inner.observe_one(b, &mut obs);
        self.broken |= obs[0] == self.start;
    }
    fn step(&mut self, actions: Actions<'_>, rngs: &mut [Stream], rewards: &mut [f64], ends: &mut [End]) {
        self.inner.step(actions, rngs, rewards, ends);
        if self.broken {
            rewards[0] = f64::NAN;
        }
    }
    fn observe(&self, obs: ColsMut<'_, f32>) {
        self.inner.observe(obs);
    }
    fn observe_one(&self, b: usize, obs: &mut [f32]) {
        self.inner.observe_one(b, obs);
    }
    fn save(&self, b: usize) -> Option<Vec<f64>> {
        self.inner.save(b)
    }
    fn load(&mut self, b: usize, state: &[f64]) -> bool {
        self.inner.load(b, state)
    }
}

#[test]
fn a_run_that_fails_is_named_and_its_entry_not_judged() {
    let tmp = tempfile::tempdir().unwrap();
    let mut study = tiny();
    study.entries.truncate(1);
    let make = pgrad_envs::find("CartPole-v1").unwrap().open().unwrap();
    let mut env = VecEnv::new(make(1).unwrap(), 4, 0);
    env.start().unwrap();
    let start = env.obs().row(0)[0];
    let broken = move |n| -> BatchResult { Ok(Box::new(Broken { inner: make(n)?, start, broken: false })) };
    let mut config = RunConfig::custom("ppo", "CartPole-v1", Arc::new(broken)).unwrap();
    config.apply_toml("n_envs = 4\nn_steps = 64\nminibatch_size = 64\nsteps = 1000", "test").unwrap();
    study.entries[0].config = config;
    let (result, runs, notices) = run(&study, &tmp.path().join("out"), 2, None);
    assert_eq!((runs, result.stopped), (2, false));
    assert_eq!(result.rows.iter().map(|r| r.seed).collect::<Vec<_>>(), [3, 5]);
    assert_eq!(result.failures.len(), 1);
    let failure = &result.failures[0];
    assert_eq!((failure.entry.as_str(), failure.seed), ("pole", 4));
    assert!(failure.reason.contains("reward is NaN"), "{}", failure.reason);
    assert_eq!(notices, std::slice::from_ref(&failure.reason));
    assert!(result.entries[0].e.anchors.iter().all(|a| a.judgement.is_none()));
    let markdown = read(&result.out, SUMMARY_MD);
    assert!(markdown.contains("not judged") && markdown.contains("**failed**: pole, seed 4"), "{markdown}");
    // It is tried again.
    assert_eq!(run(&study, &result.out, 1, None).0.failures, result.failures);
}

#[test]
fn entries_made_by_hand_are_checked_before_anything_is_written() {
    let tmp = tempfile::tempdir().unwrap();
    let out = tmp.path().join("out");
    let refused = |study: &Study, seeds| {
        let mut listen = |_: StudyEvent<'_>| {};
        let e = run_study(study, StudyOptions { seeds, ..StudyOptions::new(&out, &mut listen) }).unwrap_err();
        assert!(!out.exists());
        e
    };
    let mut twice = tiny();
    twice.entries[1].label = "pole".into();
    assert!(matches!(refused(&twice, None), StudyError::Entry { cause: EntryError::Label, .. }));
    let mut unfit = tiny();
    unfit.entries[1].config.apply_pair("minibatch_size=451", "--set").unwrap();
    assert!(matches!(refused(&unfit, None), StudyError::Entry { cause: EntryError::Config(_), .. }));
    assert!(matches!(refused(&tiny(), Some(0)), StudyError::NoSeeds));
}
