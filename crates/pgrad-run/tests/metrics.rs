//! `metrics.jsonl` through crashes, full disks and resumes.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use pgrad_num::Stream;
use pgrad_run::metrics::{
    Cut, JsonlWriter, Mark, MetricsError, MetricsLog, MetricsRow, MetricsSink, read_log,
};
use pgrad_run::storage::{Fate, SimOp, SimStorage, Storage};
use std::path::Path;
use std::sync::Arc;

const PATH: &str = "run/metrics.jsonl";
const ENOSPC: i32 = 28;

fn disk() -> SimStorage {
    let sim = SimStorage::new();
    sim.create_dir(Path::new("run")).unwrap();
    sim.fork()
}

fn storage(sim: &SimStorage) -> Arc<dyn Storage> {
    Arc::new(sim.clone())
}

/// The row of update `i`, the same at every run but for `time/seconds`.
fn row(i: u64, seconds: f64) -> MetricsRow {
    let mut row = MetricsRow::new(i * 128);
    let mut random = Stream::new(i, 5, 0);
    row.push("train/return_mean_100", if i < 2 { f64::NAN } else { random.normal() * 100.0 });
    row.push("loss/policy", random.normal() * 1e-9);
    row.push("time/seconds", seconds);
    row
}

fn log(sim: &SimStorage) -> MetricsLog {
    read_log(sim, Path::new(PATH)).unwrap()
}

fn text(sim: &SimStorage) -> String {
    String::from_utf8(sim.read(Path::new(PATH), 1 << 20).unwrap()).unwrap()
}

#[test]
fn lines_are_json_that_reads_back_bit_for_bit() {
    let sim = disk();
    let mut writer = JsonlWriter::create(storage(&sim), Path::new(PATH)).unwrap();
    let numbers = [0.0, -0.0, 1.0, 0.1, 1.0 / 3.0, 1e300, -5e-324, f64::MAX, 1e21, 123_456_789.125];
    for (i, number) in numbers.iter().enumerate() {
        let mut row = MetricsRow::new(i as u64);
        row.push("x", *number);
        writer.write(&row).unwrap();
    }
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        writer.write(&MetricsRow { step: u64::MAX, values: vec![("a", 1.0), ("x", bad)] }).unwrap();
    }
    for line in text(&sim).lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(value["step"].is_u64(), "{line}");
        assert!(value["x"].is_number() || value["x"].is_null(), "{line}");
    }
    assert!(text(&sim).ends_with("{\"step\":18446744073709551615,\"a\":1.0,\"x\":null}\n"));
    let log = log(&sim);
    for (row, number) in log.rows.iter().zip(numbers) {
        assert_eq!(row.get("x").unwrap().to_bits(), number.to_bits());
    }
    assert!(log.rows[numbers.len()..].iter().all(|r| r.get("x").unwrap().is_nan()));
    assert_eq!(log.series("x").len(), numbers.len());
    assert_eq!(log.series("a"), [(u64::MAX, 1.0); 3]);
    assert_eq!(log.names(), ["a", "x"]);
    assert_eq!(log.torn, None);
}

#[test]
fn a_file_is_never_begun_over_another() {
    let sim = disk();
    JsonlWriter::create(storage(&sim), Path::new(PATH)).unwrap();
    assert!(JsonlWriter::create(storage(&sim), Path::new(PATH)).is_err());
}

/// A run of 12 rows is cut after any byte, resumed at any step whose rows are whole, and finished: the file
/// is that of the uninterrupted run.
#[test]
fn a_resumed_file_equals_an_uninterrupted_one() {
    let sim = disk();
    let mut writer = JsonlWriter::create(storage(&sim), Path::new(PATH)).unwrap();
    for i in 0..12 {
        writer.write(&row(i, i as f64)).unwrap();
    }
    let whole = log(&sim).without_time();
    let bytes = text(&sim).into_bytes();
    // NaN is not equal to itself, so rows are compared as text.
    let same = |a: &MetricsLog| format!("{:?}", a.without_time()) == format!("{whole:?}");
    let mut torn = 0;
    for cut in 0..=bytes.len() {
        let after = disk();
        after.append(Path::new(PATH), &bytes[..cut]).unwrap();
        let found = log(&after);
        torn += usize::from(found.torn.is_some());
        let rows = bytes[..cut].iter().filter(|b| **b == b'\n').count();
        assert_eq!(found.rows.len(), rows);
        for resumed_at in [0, rows.saturating_sub(3), rows.saturating_sub(1)] {
            let fork = after.fork();
            let step = resumed_at as u64 * 128;
            let (mut writer, what) = JsonlWriter::resume(storage(&fork), Path::new(PATH), step, &[]).unwrap();
            let kept = rows.min(resumed_at + 1);
            assert_eq!((what.rows_kept, what.rows_dropped), (kept, rows - kept));
            for i in kept as u64..12 {
                writer.write(&row(i, -1.0)).unwrap();
            }
            assert!(same(&log(&fork)), "cut at {cut}, resumed at {resumed_at}");
            assert_eq!(text(&fork).lines().count(), 12);
        }
    }
    assert_eq!(torn, bytes.len() - 12, "every cut inside a line is seen");
}

#[test]
fn a_missing_file_is_begun_anew() {
    let sim = disk();
    let (mut writer, cut) = JsonlWriter::resume(storage(&sim), Path::new(PATH), 500, &[]).unwrap();
    assert_eq!(cut, Cut { rows_kept: 0, rows_dropped: 0, bytes_dropped: 0, torn: None, aside: None });
    writer.write(&row(4, 0.0)).unwrap();
    assert_eq!(log(&sim).rows.len(), 1);
}

#[test]
fn a_tail_of_zeros_is_cut_off() {
    let sim = disk();
    let mut writer = JsonlWriter::create(storage(&sim), Path::new(PATH)).unwrap();
    writer.write(&row(1, 0.0)).unwrap();
    let good = text(&sim);
    sim.corrupt(Path::new(PATH), |b| b.resize(b.len() + 4096, 0));
    assert_eq!(log(&sim).torn.unwrap().offset, good.len() as u64);
    let (_, cut) = JsonlWriter::resume(storage(&sim), Path::new(PATH), 128, &[]).unwrap();
    assert_eq!((cut.rows_kept, cut.rows_dropped, cut.bytes_dropped), (1, 0, 4096));
    assert_eq!(cut.torn.unwrap().offset, good.len() as u64);
    assert_eq!(text(&sim), good);
}

#[test]
fn damage_before_the_end_is_an_error_with_its_line() {
    let good = "{\"step\":1,\"x\":1.0}\n";
    for (bad, reason) in [
        ("{\"step\":1,\"x\":1.0\n", "EOF"),
        ("{\"x\":1.0,\"step\":1}\n", "first key"),
        ("{\"step\":-1}\n", "-1"),
        ("{\"step\":1.5}\n", "1.5"),
        ("{\"step\":0,\"x\":2}\n", "step 0 comes after step 1"),
        ("{\"step\":1,\"x\":\"text\"}\n", "text"),
        ("{\"step\":1,\"x\":1,\"x\":2}\n", "twice"),
        ("{\"step\":1,\"step\":2}\n", "twice"),
        ("[1]\n", "invalid type"),
        ("\n", "EOF"),
        ("\u{0}\u{0}\n", "expected value"),
    ] {
        let sim = disk();
        sim.append(Path::new(PATH), format!("{good}{bad}{good}").as_bytes()).unwrap();
        for result in [
            read_log(&sim, Path::new(PATH)).map(drop),
            JsonlWriter::resume(storage(&sim), Path::new(PATH), 9, &[]).map(drop),
        ] {
            let e = result.unwrap_err();
            assert!(matches!(e, MetricsError::Line { line: 2, .. }), "{bad:?}: {e}");
            assert!(e.to_string().contains(reason), "{bad:?}: {e}");
            assert_eq!(e.exit_code(), 65);
        }
    }
}

/// A row that does not fit on the disk leaves no trace, and later rows follow the ones before it.
#[test]
fn a_full_disk_costs_only_the_rows_that_did_not_fit() {
    for sticky in [false, true] {
        for call in 0..12 {
            let sim = disk();
            let mut writer = JsonlWriter::create(storage(&sim), Path::new(PATH)).unwrap();
            let first = sim.call_count();
            if sticky {
                sim.fail_from(first + call, ENOSPC);
            } else {
                sim.fail_at(first + call, ENOSPC);
            }
            let mut written = Vec::new();
            for i in 0..8 {
                if i == 6 {
                    sim.fail_at(usize::MAX, ENOSPC);
                }
                match writer.write(&row(i, 0.0)) {
                    Ok(()) => written.push(i * 128),
                    Err(e) => {
                        assert_eq!(e.exit_code(), 74);
                        assert!(e.to_string().contains("disk is full"), "{e}");
                        assert!(e.to_string().contains(PATH), "{e}");
                    }
                }
            }
            let steps: Vec<u64> = log(&sim).rows.iter().map(|r| r.step).collect();
            assert_eq!(steps, written, "call {call}, sticky {sticky}");
            assert!(written.ends_with(&[6 * 128, 7 * 128]));
            assert_eq!(log(&sim).torn, None);
        }
    }
}

/// What was there at a sync survives any crash after it; a resume at that step always works.
#[test]
fn rows_before_a_sync_survive_every_crash() {
    let sim = disk();
    let mut writer = JsonlWriter::create(storage(&sim), Path::new(PATH)).unwrap();
    let mut synced = vec![];
    for i in 0..6 {
        writer.write(&row(i, 0.0)).unwrap();
        if i % 2 == 1 {
            writer.sync().unwrap();
            synced.push((sim.op_count(), i));
        }
    }
    let whole = text(&sim);
    let mut holes = 0;
    for k in synced[0].0..=sim.op_count() {
        let last = synced.iter().rev().find(|(n, _)| *n <= k).unwrap().1;
        for seed in 0..40 {
            let mut random = Stream::new(seed, 3, k as u32);
            let after = sim.crash(k, |_, op| match op {
                SimOp::Write { data, .. } if random.below(2) == 0 => {
                    Fate::Torn(random.below(data.len() as u32) as usize)
                }
                _ if random.below(2) == 0 => Fate::Lost,
                _ => Fate::Kept,
            });
            // Writes reach the disk in any order, so later rows may stand behind holes: all of that is
            // cut, and what the resume needs is there.
            let (_, cut) = JsonlWriter::resume(storage(&after), Path::new(PATH), last * 128, &[]).unwrap();
            assert_eq!(cut.rows_kept, last as usize + 1);
            holes += usize::from(cut.torn.is_some());
            let needed: Vec<&str> = whole.lines().take(cut.rows_kept).collect();
            assert_eq!(text(&after).lines().collect::<Vec<_>>(), needed, "{k} operations, seed {seed}");
        }
    }
    assert!(holes > 50, "{holes}");
}

#[test]
#[should_panic(expected = "is not a valid metric name")]
fn names_that_would_break_the_line_are_refused() {
    let sim = disk();
    let mut writer = JsonlWriter::create(storage(&sim), Path::new(PATH)).unwrap();
    let _ = writer.write(&MetricsRow { step: 0, values: vec![("a\"b", 1.0)] });
}

/// What a checkpoint says of the file decides what is continued, and what is not of this run is put aside
/// whole.
#[test]
fn metrics_that_a_checkpoint_does_not_know_are_put_aside() {
    let (sim, path) = (disk(), Path::new(PATH));
    let mut writer = JsonlWriter::create(storage(&sim), path).unwrap();
    let mut marks = Vec::new();
    for i in 1..=4 {
        let mut row = MetricsRow::new(i * 100);
        row.push("loss", i as f64);
        writer.write(&row).unwrap();
        marks.insert(0, writer.mark().unwrap());
    }
    let whole = sim.read(path, 10_000).unwrap();
    let resumed = |bytes: &[u8], marks: &[Mark]| {
        let sim = disk();
        sim.write_new(path, bytes).unwrap();
        let (writer, cut) = JsonlWriter::resume(storage(&sim), path, 300, marks).unwrap();
        let left = sim.read(path, 10_000).unwrap();
        assert!(writer.mark().unwrap().is_of(&left));
        let aside = cut.aside.as_ref().map(|aside| sim.read(aside, 10_000).unwrap());
        (left.len() as u64, aside, cut)
    };
    // As it was written: the rows after step 300 are done again.
    let (left, aside, cut) = resumed(&whole, &marks[1..]);
    assert_eq!((left, aside, cut.rows_kept, cut.rows_dropped), (marks[1].length, None, 3, 1));
    // A digit of the third row, and the second row cut off in its middle.
    let mut flipped = whole.clone();
    flipped[marks[2].length as usize + 12] ^= 1;
    let short = whole[..marks[3].length as usize + 5].to_vec();
    for (bytes, mark) in [(flipped, &marks[2]), (short, &marks[3])] {
        let (left, aside, cut) = resumed(&bytes, &marks[1..]);
        assert_eq!((left, aside), (mark.length, Some(bytes)), "{cut:?}");
    }
    // Of another run altogether.
    let (left, aside, cut) = resumed(b"{\"step\":100}\n", &marks[1..]);
    assert_eq!((left, aside.unwrap().len(), cut.rows_kept), (0, 13, 0));
}
