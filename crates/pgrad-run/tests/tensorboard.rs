//! Event files, read back by the real TensorBoard.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use pgrad_run::clock::{ManualClock, WallTime};
use pgrad_run::metrics::{MetricsRow, MetricsSink, TensorBoardWriter};
use pgrad_run::storage::FsStorage;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// Prints `tag step value wall_time` of every scalar as TensorBoard's loader gives them.
const READ_BACK: &str = r#"
import sys
try:
    from tensorboard.backend.event_processing import event_accumulator
except ImportError as e:
    sys.exit(f"{e}")
acc = event_accumulator.EventAccumulator(sys.argv[1], size_guidance={"scalars": 0})
acc.Reload()
for tag in sorted(acc.Tags()["scalars"]):
    for e in acc.Scalars(tag):
        print(tag, e.step, repr(e.value), repr(e.wall_time))
"#;

/// Scalars as TensorBoard reads them: tag, step, value, wall time.
fn read_back(dir: &Path) -> Vec<(String, u64, f32, f64)> {
    let python = pgrad_testkit::python();
    let out = Command::new(&python).args(["-c", READ_BACK]).arg(dir).output();
    let out = out.unwrap_or_else(|e| panic!("cannot start `{python}` (set PGRAD_PYTHON): {e}"));
    assert!(
        out.status.success(),
        "`{python}` could not read the event files. This test needs the package tensorboard: \
         `python3 -m pip install tensorboard`, or set PGRAD_PYTHON to an interpreter that has it.\n{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let text = String::from_utf8(out.stdout).unwrap();
    let number = |s: &str| s.parse::<f64>().unwrap();
    text.lines()
        .map(|line| {
            let f: Vec<&str> = line.split(' ').collect();
            (f[0].to_owned(), f[1].parse().unwrap(), number(f[2]) as f32, number(f[3]))
        })
        .collect()
}

fn row(step: u64) -> MetricsRow {
    let mut row = MetricsRow::new(step);
    row.push("loss/value", (step as f64).sqrt());
    row.push("train/return_mean_100", -1e-3 * step as f64);
    row
}

fn expected(steps: &[(u64, f64)]) -> Vec<(String, u64, f32, f64)> {
    ["loss/value", "train/return_mean_100"]
        .iter()
        .enumerate()
        .flat_map(|(i, tag)| {
            steps.iter().map(move |(s, wall)| ((*tag).to_owned(), *s, row(*s).values[i].1 as f32, *wall))
        })
        .collect()
}

#[test]
fn tensorboard_reads_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(WallTime::from_unix_secs(1_795_000_000)));
    let mut writer = TensorBoardWriter::create(Arc::new(FsStorage), dir.path(), clock.clone()).unwrap();
    let mut steps = Vec::new();
    for i in 1..=50u64 {
        clock.advance(Duration::from_millis(500));
        let step = i * i * 1_000_000_007;
        writer.write(&row(step)).unwrap();
        steps.push((step, 1_795_000_000.0 + 0.5 * i as f64));
    }
    writer.sync().unwrap();
    assert_eq!(read_back(dir.path()), expected(&steps));
}

/// Interrupted after step 700 (the last record torn), resumed at 400 with the wall clock an hour back.
#[test]
fn tensorboard_shows_a_resumed_run_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(WallTime::from_unix_secs(1_795_000_000)));
    let mut writer = TensorBoardWriter::create(Arc::new(FsStorage), dir.path(), clock.clone()).unwrap();
    for i in 1..=7 {
        writer.write(&row(i * 100)).unwrap();
    }
    let first = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
    let bytes = std::fs::read(&first).unwrap();
    std::fs::write(&first, &bytes[..bytes.len() - 5]).unwrap();
    clock.set_wall(WallTime::from_unix_secs(1_795_000_000 - 3_600));
    let mut writer = TensorBoardWriter::resume(Arc::new(FsStorage), dir.path(), clock, 400).unwrap();
    // Other steps than before the interruption: what the first file says beyond 400 must not show.
    for i in [450, 550, 650] {
        writer.write(&row(i)).unwrap();
    }
    let before = [100, 200, 300, 400].map(|s| (s, 1_795_000_000.0));
    let after = [450, 550, 650].map(|s| (s, 1_794_996_400.0));
    assert_eq!(read_back(dir.path()), expected(&[before.as_slice(), &after].concat()));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn values_that_are_not_finite_reach_tensorboard() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(WallTime::from_unix_secs(1_795_000_000)));
    let mut writer = TensorBoardWriter::create(Arc::new(FsStorage), dir.path(), clock).unwrap();
    for (step, value) in [(1, f64::NAN), (2, f64::INFINITY), (3, f64::NEG_INFINITY)] {
        writer.write(&MetricsRow { step, values: vec![("x", value)] }).unwrap();
    }
    let values: Vec<f32> = read_back(dir.path()).iter().map(|v| v.2).collect();
    assert!(values[0].is_nan());
    assert_eq!(values[1..], [f32::INFINITY, f32::NEG_INFINITY]);
}
