//! Crashes, failing disks, damage and hostile files against the checkpoint store.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use pgrad_num::{Record, Stream};
use pgrad_run::checkpoint::{CheckpointError, CheckpointStore, Defect, FORMAT_VERSION, Manifest};
use pgrad_run::storage::{Fate, FsStorage, Operation, SimOp, SimStorage, Storage, StorageError};
use pgrad_run::tensors;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const DIR: &str = "run/checkpoints";
const ENOSPC: i32 = 28;
const EIO: i32 = 5;
const EROFS: i32 = 30;

fn disk() -> SimStorage {
    let sim = SimStorage::new();
    sim.create_dir(Path::new("run")).unwrap();
    sim.fork()
}

fn store(sim: &SimStorage) -> CheckpointStore {
    CheckpointStore::new(Arc::new(sim.clone()), DIR, 2)
}

/// The state of a small run at `step`: different in every file at every step.
fn state_files(step: u64) -> Vec<(&'static str, Vec<u8>)> {
    let mut record = Record::new();
    record.put("policy", (0..64).map(|i| i as f32 * 0.5 + step as f32).collect::<Vec<f32>>());
    record.put("moments", vec![step as f64; 8]);
    record.put("step", vec![step]);
    let state = tensors::encode(&record, None).unwrap();
    let text = format!("note = \"step {step}\"\n").into_bytes();
    vec![("state.safetensors", state), ("notes.toml", text)]
}

fn save(store: &CheckpointStore, step: u64) -> Result<pgrad_run::checkpoint::Saved, CheckpointError> {
    let files = state_files(step);
    let files: Vec<(&str, &[u8])> = files.iter().map(|(n, b)| (*n, b.as_slice())).collect();
    store.save(step, &files)
}

/// Loads the newest checkpoint and checks that it is exactly what was saved at its step.
fn load_exact(sim: &SimStorage) -> Option<u64> {
    match store(sim).load_newest() {
        Ok(loaded) => {
            let expected = state_files(loaded.step);
            assert_eq!(loaded.files.len(), expected.len());
            for (name, bytes) in expected {
                assert_eq!(loaded.files[name], bytes, "step {}: {name}", loaded.step);
            }
            Some(loaded.step)
        }
        Err(CheckpointError::NoneValid { .. }) => None,
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn a_checkpoint_comes_back_and_old_ones_go() {
    let sim = disk();
    let store = store(&sim);
    for step in [10, 20, 30, 40] {
        let saved = save(&store, step).unwrap();
        assert!(saved.cleanup.is_none());
        assert_eq!(load_exact(&sim), Some(step));
    }
    assert_eq!(store.steps().unwrap(), [40, 30]);
    assert_eq!(sim.list(Path::new(DIR)).unwrap().len(), 2);
    assert_eq!(store.load(30).unwrap().step, 30);
    assert_eq!(store.verify(40).unwrap().step, 40);
    store.discard_after(30).unwrap();
    assert_eq!(store.steps().unwrap(), [30]);
}

#[test]
fn keeping_fewer_than_two_is_not_possible() {
    let sim = disk();
    let store = CheckpointStore::new(Arc::new(sim.clone()), DIR, 0);
    for step in [1, 2, 3] {
        save(&store, step).unwrap();
    }
    assert_eq!(store.steps().unwrap(), [3, 2]);
}

#[test]
fn damaged_checkpoints_do_not_count_as_kept() {
    let sim = disk();
    let store = store(&sim);
    save(&store, 10).unwrap();
    save(&store, 20).unwrap();
    sim.corrupt(Path::new("run/checkpoints/step-20/notes.toml"), |b| b[0] ^= 1);
    save(&store, 30).unwrap();
    assert_eq!(store.steps().unwrap(), [30, 20, 10]);
    save(&store, 40).unwrap();
    assert_eq!(store.steps().unwrap(), [40, 30]);
}

#[test]
fn saving_a_step_twice() {
    let sim = disk();
    let store = store(&sim);
    save(&store, 10).unwrap();
    // The same again is fine, another state is refused, and a damaged one is replaced.
    save(&store, 10).unwrap();
    let other = store.save(10, &[("state.safetensors", b"other")]);
    assert!(matches!(other, Err(CheckpointError::AlreadySaved { path }) if path.ends_with("step-10")));
    assert_eq!(load_exact(&sim), Some(10));
    sim.corrupt(Path::new("run/checkpoints/step-10/manifest.json"), |b| b.truncate(7));
    assert_eq!(load_exact(&sim), None);
    save(&store, 10).unwrap();
    assert_eq!(load_exact(&sim), Some(10));
    save(&store, 20).unwrap();
    let names: Vec<String> = sim.list(Path::new(DIR)).unwrap().into_iter().map(|e| e.name).collect();
    assert_eq!(names, ["step-10", "step-20"], "what was put aside is removed by the next save");
}

#[test]
fn leftovers_are_ignored_and_removed_by_the_next_save() {
    let sim = disk();
    let store = store(&sim);
    save(&store, 10).unwrap();
    sim.create_dir(Path::new("run/checkpoints/step-99.tmp-0123")).unwrap();
    sim.write_new(Path::new("run/checkpoints/step-99.tmp-0123/state.safetensors"), b"half").unwrap();
    let loaded = store.load_newest().unwrap();
    assert_eq!((loaded.step, loaded.skipped.len()), (10, 0));
    save(&store, 20).unwrap();
    assert_eq!(sim.list(Path::new(DIR)).unwrap().len(), 2);
}

/// After every operation of three saves (the third one prunes), with every kind of loss, the newest durable
/// checkpoint loads and is no older than the last save that returned `Ok`.
#[test]
fn no_crash_loses_a_saved_checkpoint() {
    let sim = disk();
    let store = store(&sim);
    // Number of operations done when a save returned Ok, and its step.
    let mut returned = vec![(0, None)];
    for step in [10, 20, 30, 40] {
        save(&store, step).unwrap();
        returned.push((sim.op_count(), Some(step)));
    }
    let ops = sim.ops();
    let mut crashes = 0;
    for k in 0..=ops.len() {
        let last_ok = returned.iter().rev().find(|(n, _)| *n <= k).unwrap().1;
        let mut check = |what: &str, fate: &mut dyn FnMut(usize, &SimOp) -> Fate| {
            crashes += 1;
            let after = sim.crash(k, fate);
            let found = load_exact(&after);
            assert!(found >= last_ok, "after {k} operations, {what}: found {found:?}, saved {last_ok:?}");
            // What is called a checkpoint is one: neither saving nor removing leaves half of one.
            for step in self::store(&after).steps().unwrap() {
                let verdict = self::store(&after).verify(step);
                assert!(verdict.is_ok(), "after {k} operations, {what}: {}", verdict.unwrap_err());
            }
            // The run goes on from there, and the next save works.
            let next = found.unwrap_or(0) + 5;
            save(&self::store(&after), next).unwrap();
            assert_eq!(load_exact(&after), Some(next), "after {k} operations, {what}");
        };
        check("all kept", &mut |_, _| Fate::Kept);
        check("all lost", &mut |_, _| Fate::Lost);
        for seed in 0..30 {
            let mut random = Stream::new(seed, 77, k as u32);
            check(&format!("random subset {seed}"), &mut |_, op| match (random.below(4), op) {
                (0, SimOp::Write { data, .. }) => Fate::Torn(random.below(data.len() as u32 + 1) as usize),
                (1, SimOp::Write { data, .. }) => Fate::Zeroed(random.below(data.len() as u32 + 1) as usize),
                (2, _) => Fate::Lost,
                _ if random.below(2) == 0 => Fate::Lost,
                _ => Fate::Kept,
            });
        }
        // The last write torn or zeroed, everything else kept.
        if let Some((last, SimOp::Write { data, .. })) =
            ops[..k].iter().enumerate().rev().find(|(_, op)| matches!(op, SimOp::Write { .. }))
        {
            let len = data.len();
            for n in (0..len).step_by(64).chain([1, len / 2, len - 1]) {
                for fate in [Fate::Torn(n), Fate::Zeroed(n)] {
                    check(&format!("{fate:?}"), &mut |i, _| if i == last { fate } else { Fate::Kept });
                }
            }
        }
    }
    assert!(ops.len() > 60, "{} operations", ops.len());
    assert!(crashes > 3_000, "{crashes} crashes");
}

fn storage_error(e: &CheckpointError) -> &StorageError {
    match e {
        CheckpointError::NotSaved { cause, .. } => cause,
        other => panic!("{other}"),
    }
}

/// Lets every call of a save fail in turn, once or from then on.
#[test]
fn every_failing_operation_is_named_and_harms_nothing() {
    let mut reported = std::collections::BTreeSet::new();
    for errno in [ENOSPC, EIO, EROFS] {
        for sticky in [false, true] {
            for call in 0.. {
                let sim = disk();
                for step in [10, 20] {
                    save(&store(&sim), step).unwrap();
                }
                sim.create_dir(Path::new("run/checkpoints/step-5.tmp-00")).unwrap();
                let sim = sim.fork();
                match sticky {
                    true => sim.fail_from(call, errno),
                    false => sim.fail_at(call, errno),
                }
                let result = save(&store(&sim), 30);
                let calls = sim.call_count();
                if call >= calls {
                    assert!(result.unwrap().cleanup.is_none());
                    break;
                }
                let after = sim.fork();
                match result {
                    Err(e) => {
                        let cause = storage_error(&e);
                        assert_eq!(cause.cause.raw_os_error(), Some(errno), "call {call}: {e}");
                        assert!(cause.path.starts_with("run"), "call {call}: {e}");
                        let text = e.to_string();
                        assert!(text.contains(&cause.operation.to_string()), "{text}");
                        assert!(text.contains(cause.path.to_str().unwrap()), "{text}");
                        let mend = match errno {
                            ENOSPC => "free some space",
                            EROFS => "read-only",
                            _ => "the device reports an error",
                        };
                        assert!(text.contains(mend), "{text}");
                        assert_eq!(e.exit_code(), 74);
                        reported.insert(cause.operation.to_string());
                        assert!(load_exact(&after) >= Some(20), "call {call}");
                        // What is durable holds, whatever else is lost.
                        assert!(load_exact(&sim.crash(sim.op_count(), |_, _| Fate::Lost)) >= Some(20));
                    }
                    Ok(saved) => {
                        // Only tidying up may fail without failing the save, or a look at an old
                        // checkpoint, which then merely does not count as valid.
                        assert_eq!(load_exact(&after), Some(30), "call {call}");
                        assert_eq!(load_exact(&sim.crash(sim.op_count(), |_, _| Fate::Lost)), Some(30));
                        if let Some(e) = saved.cleanup {
                            assert_eq!(e.cause.raw_os_error(), Some(errno));
                        }
                    }
                }
                // The disk is mended: the next save works and everything is tidy again.
                save(&store(&after), 40).unwrap();
                assert_eq!(load_exact(&after), Some(40));
                assert!(after.list(Path::new(DIR)).unwrap().iter().all(|e| !e.name.contains("tmp")));
            }
        }
    }
    for operation in [
        Operation::CreateDir,
        Operation::CreateFile,
        Operation::Write,
        Operation::SyncFile,
        Operation::SyncDir,
        Operation::Rename,
    ] {
        assert!(reported.contains(&operation.to_string()), "{operation} never failed a save: {reported:?}");
    }
}

#[test]
fn every_flipped_byte_and_every_truncation_is_refused() {
    let sim = disk();
    save(&store(&sim), 10).unwrap();
    save(&store(&sim), 20).unwrap();
    let mut cases = 0;
    for name in ["manifest.json", "state.safetensors", "notes.toml"] {
        let path = PathBuf::from(format!("{DIR}/step-20/{name}"));
        let good = sim.read(&path, 1 << 20).unwrap();
        let mut check = |what: String, bytes: Vec<u8>| {
            cases += 1;
            sim.corrupt(&path, |b| *b = bytes);
            match store(&sim).load(20) {
                Err(CheckpointError::Invalid(s)) => {
                    assert!(s.to_string().contains("step-20"), "{s}");
                    assert!(!matches!(s.defect, Defect::Storage(_)), "{what} of {name}: {s}");
                }
                other => panic!("{what} of {name}: {other:?}"),
            }
            let loaded = store(&sim).load_newest().unwrap();
            assert_eq!(loaded.step, 10, "{what} of {name}");
            assert_eq!(loaded.skipped.len(), 1);
        };
        for i in 0..good.len() {
            for mask in [0x01, 0x20, 0x80, 0xff] {
                let mut bytes = good.clone();
                bytes[i] ^= mask;
                check(format!("byte {i} ^ {mask:#x}"), bytes);
            }
            check(format!("cut to {i}"), good[..i].to_vec());
        }
        let mut longer = good.clone();
        longer.push(b'\n');
        check("a byte more".into(), longer);
        sim.corrupt(&path, |b| b.clone_from(&good));
    }
    assert_eq!(load_exact(&sim), Some(20));
    assert!(cases > 4_000, "{cases}");
}

/// A manifest with a right digest of itself, whatever it says: what an attacker would write.
fn sealed(manifest: &Manifest) -> Vec<u8> {
    let mut m = Manifest { digest: String::new(), ..manifest.clone() };
    let bytes = |m: &Manifest| [serde_json::to_vec_pretty(m).unwrap(), b"\n".to_vec()].concat();
    m.digest = blake3::hash(&bytes(&m)).to_hex().to_string();
    bytes(&m)
}

fn refused(sim: &SimStorage, what: &str) -> (Defect, String) {
    match store(sim).load(10) {
        Err(e @ CheckpointError::Invalid(_)) => {
            assert_eq!(e.exit_code(), 65);
            let text = e.to_string();
            match e {
                CheckpointError::Invalid(s) => (s.defect, text),
                _ => unreachable!(),
            }
        }
        other => panic!("{what}: {other:?}"),
    }
}

#[test]
fn hostile_manifests_are_refused() {
    let fresh = || {
        let sim = disk();
        save(&store(&sim), 10).unwrap();
        let manifest = store(&sim).verify(10).unwrap();
        (sim, manifest)
    };
    let manifest_path = PathBuf::from(format!("{DIR}/step-10/manifest.json"));
    let with = |change: &dyn Fn(&mut Manifest)| {
        let (sim, mut manifest) = fresh();
        change(&mut manifest);
        sim.corrupt(&manifest_path, |b| *b = sealed(&manifest));
        refused(&sim, "a hostile manifest")
    };
    let (sim, manifest) = fresh();
    sim.corrupt(&manifest_path, |b| *b = sealed(&manifest));
    assert_eq!(load_exact(&sim), Some(10), "the test seals manifests as the store does");

    let long = "a".repeat(129);
    for name in [
        "../state.safetensors",
        "/etc/passwd",
        "a/b",
        "a\\b",
        "..",
        ".",
        ".hidden",
        "",
        "a\0b",
        "State",
        "c:",
        "ä",
        "manifest.json",
        "a b",
        &long,
    ] {
        let (defect, text) = with(&|m| m.files[0].name = name.into());
        assert!(matches!(defect, Defect::FileName { .. }), "{name:?}: {text}");
        assert!(!text.contains('\0'));
    }
    let (defect, _) = with(&|m| m.files.push(m.files[1].clone()));
    assert!(matches!(defect, Defect::DuplicateFile { .. }));
    let (defect, _) = with(&|m| m.files.reverse());
    assert!(matches!(defect, Defect::DuplicateFile { .. }));
    for length in [u64::MAX, 1 << 62, 0] {
        let (defect, _) = with(&|m| m.files[0].length = length);
        assert!(matches!(defect, Defect::Length { expected, .. } if expected == length));
    }
    let (defect, _) = with(&|m| m.files[0].blake3 = m.files[1].blake3.clone());
    assert!(matches!(defect, Defect::FileDigest { .. }));
    let (defect, _) = with(&|m| m.files[0].blake3.clear());
    assert!(matches!(defect, Defect::FileDigest { .. }));
    let (defect, _) = with(&|m| m.step = 11);
    assert!(matches!(defect, Defect::Step { folder: 10, manifest: 11 }));
    let (defect, _) = with(&|m| m.kind = "pickle".into());
    assert!(matches!(defect, Defect::Kind { .. }));
    let (defect, _) = with(&|m| {
        let file = m.files[0].clone();
        m.files = (0..5_000)
            .map(|i| pgrad_run::checkpoint::FileEntry { name: format!("f{i:05}"), ..file.clone() })
            .collect();
    });
    assert!(matches!(defect, Defect::TooManyFiles { count: 5_000 }));

    for future in [FORMAT_VERSION + 1, u32::MAX, 0] {
        let (defect, text) = with(&|m| {
            m.format_version = future;
            m.code_version = "9.8.7\u{1b}[2J".into();
        });
        assert!(matches!(defect, Defect::FormatVersion { found, .. } if found == future));
        assert!(text.contains("pgrad 9.8.7"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }

    // Text that no honest writer makes.
    let (_, manifest) = fresh();
    let good = String::from_utf8(sealed(&manifest)).unwrap();
    let deep = format!("{}{}", "[".repeat(400_000), "]".repeat(400_000));
    for (text, what) in [
        (String::new(), "nothing"),
        ("{}".into(), "an empty object"),
        ("null".into(), "null"),
        (deep.clone(), "deep JSON"),
        (format!("{{\"format_version\":{FORMAT_VERSION},\"x\":{deep}}}"), "deep JSON in a field"),
        (good.replacen('{', "{\n  \"extra\": 1,", 1), "an unknown field"),
        (good.replacen("\"step\": 10", "\"step\": 10,\n  \"step\": 10", 1), "a field twice"),
        (good.replacen("\"step\": 10", "\"step\": 10.0", 1), "a fraction"),
        (good.replacen("\"step\": 10", "\"step\": -10", 1), "a negative step"),
        (good.replacen("\"length\": ", "\"length\": 1e400,\"l\":", 1), "an infinite length"),
        (good.replacen("\"files\": [", "\"files\": [[],", 1), "a wrong type"),
    ] {
        let (sim, _) = fresh();
        sim.corrupt(&manifest_path, |b| *b = text.clone().into_bytes());
        let (defect, message) = refused(&sim, what);
        assert!(matches!(defect, Defect::Malformed { .. }), "{what}: {message}");
    }
    for (text, what) in [
        (good.replace("  ", " "), "other spacing"),
        (good.replacen("\"step\"", "\"st\\u0065p\"", 1), "an escaped letter"),
        (good.trim_end().to_owned(), "no last line end"),
    ] {
        let (sim, _) = fresh();
        sim.corrupt(&manifest_path, |b| *b = text.clone().into_bytes());
        let (defect, message) = refused(&sim, what);
        assert!(matches!(defect, Defect::NotCanonical), "{what}: {message}");
    }
    let (sim, _) = fresh();
    sim.corrupt(&manifest_path, |b| b.resize(2 << 20, b' '));
    assert!(matches!(refused(&sim, "a huge manifest").0, Defect::Storage(_)));

    // Files that do not fit the manifest.
    let (sim, _) = fresh();
    sim.remove_file(Path::new("run/checkpoints/step-10/notes.toml")).unwrap();
    assert!(
        matches!(refused(&sim, "a missing file").0, Defect::MissingFile { name } if name == "notes.toml")
    );
    let (sim, _) = fresh();
    sim.remove_file(&manifest_path).unwrap();
    assert!(matches!(refused(&sim, "no manifest").0, Defect::NoManifest));
}

#[test]
fn what_else_lies_in_its_folder_is_nothing_to_a_checkpoint() {
    let sim = disk();
    save(&store(&sim), 10).unwrap();
    let whole = store(&sim).load(10).unwrap().files;
    sim.write_new(Path::new("run/checkpoints/step-10/.DS_Store"), b"x").unwrap();
    sim.create_dir(Path::new("run/checkpoints/step-10/sub")).unwrap();
    let loaded = store(&sim).load_newest().unwrap();
    assert_eq!((loaded.step, loaded.skipped.len()), (10, 0));
    assert_eq!(loaded.files, whole, "nothing of it is handed out");
    // A folder where a file should be is something else.
    sim.remove_file(Path::new("run/checkpoints/step-10/notes.toml")).unwrap();
    sim.create_dir(Path::new("run/checkpoints/step-10/notes.toml")).unwrap();
    match store(&sim).load(10) {
        Err(CheckpointError::Invalid(s)) => assert!(matches!(s.defect, Defect::NotRegular { .. }), "{s}"),
        other => panic!("{other:?}"),
    }
    // It goes with its checkpoint.
    for step in [20, 30, 40] {
        save(&store(&sim), step).unwrap();
    }
    assert!(!store(&sim).steps().unwrap().contains(&10));
}

#[test]
fn strange_names_among_the_checkpoints_are_reported() {
    let sim = disk();
    save(&store(&sim), 10).unwrap();
    for name in ["step-007", "step-", "step--1", "step-99999999999999999999", "other"] {
        sim.create_dir(&Path::new(DIR).join(name)).unwrap();
    }
    sim.write_new(&Path::new(DIR).join("step-11"), b"a file").unwrap();
    let loaded = store(&sim).load_newest().unwrap();
    assert_eq!((loaded.step, loaded.skipped.len()), (10, 5));
    assert!(loaded.skipped.iter().all(|s| matches!(s.defect, Defect::NotACheckpoint { .. })));
    // A file called like a newer checkpoint does not keep a run from going on.
    store(&sim).discard_after(10).unwrap();
    assert_eq!(store(&sim).steps().unwrap(), [10]);
}

#[test]
fn nothing_valid_says_what_was_looked_at() {
    let sim = disk();
    let e = store(&sim).load_newest().unwrap_err();
    assert!(e.to_string().contains("holds none at all"), "{e}");
    save(&store(&sim), 10).unwrap();
    save(&store(&sim), 20).unwrap();
    for step in [10, 20] {
        sim.remove_file(&Path::new(DIR).join(format!("step-{step}/manifest.json"))).unwrap();
    }
    let e = store(&sim).load_newest().unwrap_err();
    let text = e.to_string();
    assert!(text.contains("step-10") && text.contains("step-20") && text.contains("manifest"), "{text}");
    assert_eq!(e.exit_code(), 65);
}

#[test]
#[should_panic(expected = "is not a valid name for a file")]
fn the_program_cannot_write_outside_the_folder() {
    let _ = store(&disk()).save(10, &[("../x", b"")]);
}

#[test]
fn the_real_file_system_does_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("checkpoints");
    let store = CheckpointStore::new(Arc::new(FsStorage), &dir, 2);
    assert!(matches!(store.load_newest(), Err(CheckpointError::NoneValid { .. })));
    for step in [10, 20, 30] {
        save(&store, step).unwrap();
    }
    assert_eq!(store.steps().unwrap(), [30, 20]);
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 2);
    let state = dir.join("step-30/state.safetensors");
    let mut bytes = std::fs::read(&state).unwrap();
    bytes[9] ^= 4;
    std::fs::write(&state, bytes).unwrap();
    let loaded = store.load_newest().unwrap();
    assert_eq!((loaded.step, loaded.skipped.len()), (20, 1));
}

#[cfg(unix)]
#[test]
fn links_and_pipes_are_refused_without_opening_them() {
    use std::os::unix::fs::symlink;
    for pipe in [false, true] {
        for name in ["state.safetensors", "manifest.json"] {
            let folder = tempfile::tempdir().unwrap();
            let store = CheckpointStore::new(Arc::new(FsStorage), folder.path().join("checkpoints"), 2);
            save(&store, 10).unwrap();
            let target = store.path(10).join(name);
            let elsewhere = folder.path().join("elsewhere");
            std::fs::rename(&target, &elsewhere).unwrap();
            if pipe {
                assert!(std::process::Command::new("mkfifo").arg(&target).status().unwrap().success());
            } else {
                symlink(&elsewhere, &target).unwrap();
            }
            match store.load(10) {
                Err(CheckpointError::Invalid(s)) => {
                    assert!(matches!(s.defect, Defect::NotRegular { .. }), "{s}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
    // A link that looks like a checkpoint.
    let folder = tempfile::tempdir().unwrap();
    let store = CheckpointStore::new(Arc::new(FsStorage), folder.path().join("checkpoints"), 2);
    save(&store, 10).unwrap();
    symlink(store.path(10), store.path(20)).unwrap();
    let loaded = store.load_newest().unwrap();
    assert_eq!((loaded.step, loaded.skipped.len()), (10, 1));
}
