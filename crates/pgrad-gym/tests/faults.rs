//! Environments that raise, hang and die; the others do not notice.
#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test panics when something is wrong, and watches deadlines"
)]

#[expect(dead_code, reason = "what other tests use")]
mod common;

use common::{Trace, open, processes, python, run, seeds, settings};
use pgrad_env::{End, EnvError, VecEnv};
use pgrad_gym::{Gym, GymSettings, News, OnEnvError};
use serde_json::{Map, Value, json};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const SEED: u64 = 7;
const STEPS: usize = 60;

/// How an environment fails, and what is said of it.
const RAISES: &[(&str, &str)] = &[
    ("raise", "RuntimeError: as planned"),
    ("exit-by-exception", "SystemExit: 3"),
    ("import", "ModuleNotFoundError: No module named 'no_such_module_of_pgrad'"),
    ("stdin", "EOFError"),
    ("memory", "MemoryError: Unable to allocate"),
];
const DIES: &[(&str, &str)] = &[
    ("exit 0", "exited with code 0"),
    ("exit 1", "exited with code 1"),
    ("segfault", "was killed by SIGSEGV"),
    ("abort", "was killed by SIGABRT"),
    ("kill SIGKILL", "was killed by SIGKILL"),
    ("fork", "exited with code 1"),
    ("grandchild", "exited with code 1"),
];
const HANGS: &[&str] = &["sleep", "busy", "deadlock", "kill SIGSTOP"];

/// A fault in the second episode of environment `b` of a run.
fn fault(faults: &mut Map<String, Value>, b: usize, step: u32, how: &str) {
    let seed = seeds(SEED, b).nth(1).unwrap();
    faults.insert(seed.to_string(), json!([step, how]));
}

fn metric(news: &News, name: &str) -> f64 {
    news.metrics.iter().find(|(n, _)| *n == name).unwrap().1
}

/// Where environment `b` lost an episode.
fn lost(trace: &Trace, b: usize) -> Vec<(u64, u32)> {
    trace[b].iter().filter(|s| s.end == End::Lost).map(|s| s.place).collect()
}

/// Each fault in an environment of its own, in a process of its own; environment 0 has none.
#[test]
fn one_environment_fails_and_the_others_are_as_without_it() {
    let all: Vec<(&str, &str)> = [RAISES, DIES]
        .concat()
        .into_iter()
        .chain(HANGS.iter().map(|h| (*h, "did not answer within 1s")))
        .collect();
    let n = 1 + 2 * all.len();
    let (mut faults, mut planned) = (Map::new(), Vec::new());
    for (how, said) in &all {
        // In a reset, and in the second step of an episode.
        for step in [0, 2] {
            let b = planned.len() + 1;
            fault(&mut faults, b, step, how);
            planned.push((b, step, *how, *said));
        }
    }
    let with = |faults: Value| {
        let gym =
            open("Planned-v0", &GymSettings { env_workers: n, ..settings(&json!({ "faults": faults })) });
        let (trace, env) = run(&gym, n, 20, SEED).unwrap();
        (gym, trace, env)
    };
    let (_, clean, _) = with(json!({}));
    let (gym, trace, env) = with(Value::Object(faults));
    let news = gym.news();
    let text = news.notices.join("\n");
    assert_eq!(trace[0], clean[0]);
    for (b, step, how, said) in planned {
        let notice =
            format!("environment {b} (`gym:tests.misbehaving:Planned-v0`), episode 1, step {step}: ");
        let notice =
            news.notices.iter().find(|t| t.starts_with(&notice)).unwrap_or_else(|| panic!("{how}: {text}"));
        assert!(notice.contains(said) && notice.contains("it was restarted"), "{how}: {notice}");
        // An episode that never began was not lost.
        let places = if step == 0 { vec![] } else { vec![(1, step - 1)] };
        assert_eq!(lost(&trace, b), places, "{how}");
        // Until then it is as without the fault, and afterwards it goes on.
        let same = clean[b].iter().zip(&trace[b]).take_while(|(a, b)| a == b).count();
        let first = trace[b].iter().position(|s| s.place.0 == 1).unwrap();
        assert_eq!(same, first + step.saturating_sub(1) as usize, "{how} in step {step}");
        let after = &trace[b][same + usize::from(step > 0)..];
        assert!(after.iter().any(|s| s.end != End::Lost && s.obs != [0.0; 3]), "{how}");
        assert!(after.iter().all(|s| s.place.0 > u64::from(step > 0)), "{how}");
    }
    assert_eq!(metric(&news, "env/restarts") as usize, 2 * all.len());
    assert_eq!(metric(&news, "env/lost_episodes") as usize, all.len());
    assert_eq!(env.lost_episodes() as usize, all.len());
    let ended = trace.iter().flatten().filter(|s| matches!(s.end, End::Terminated | End::Truncated)).count();
    assert_eq!(env.finished().len(), ended, "a lost episode is none that finished");
    // A traceback, also of what hung, and what a process said when it died.
    assert!(text.contains("in go_wrong") && text.contains("in fail"), "{text}");
    assert!(text.contains("time.sleep") || text.contains("line"), "{text}");
    drop(env);
    assert_eq!(processes("sleep\u{0}61"), Vec::<u32>::new(), "what an environment started ends with it");
}

/// A control group whose processes may use 256 MiB; `None` where this program may not make one.
struct LittleMemory(PathBuf);

impl LittleMemory {
    fn new() -> Option<Self> {
        let name = format!("pgrad-test-{}", std::process::id());
        let limits: [(&str, &[(&str, &str)]); 2] = [
            ("/sys/fs/cgroup/memory", &[("memory.swappiness", "0"), ("memory.limit_in_bytes", "268435456")]),
            ("/sys/fs/cgroup", &[("memory.swap.max", "0"), ("memory.max", "268435456")]),
        ];
        limits.iter().find_map(|(parent, limits)| {
            let group = Self(Path::new(parent).join(&name));
            std::fs::create_dir(&group.0).ok()?;
            limits.iter().try_for_each(|(file, limit)| std::fs::write(group.0.join(file), limit)).ok()?;
            Some(group)
        })
    }
}

impl Drop for LittleMemory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Whom the kernel ends for want of memory is replaced like others, and it is said why. Needs the right to
/// make a control group; where there is none, the test says so and is over.
#[test]
fn the_kernel_ends_who_takes_too_much_memory() {
    let Some(group) = LittleMemory::new() else {
        eprintln!("not tested: no control group with a limit of memory can be made here");
        return;
    };
    let mut faults = Map::new();
    fault(&mut faults, 1, 3, &format!("out-of-memory {}", group.0.join("cgroup.procs").display()));
    let gym = open(
        "Planned-v0",
        &GymSettings { env_workers: 2, env_step_secs: 30.0, ..settings(&json!({ "faults": faults })) },
    );
    let (trace, env) = run(&gym, 2, STEPS, SEED).unwrap();
    let text = gym.news().notices.join("\n");
    assert!(
        text.contains("environment 1 (`gym:tests.misbehaving:Planned-v0`), episode 1, step 3: "),
        "{text}"
    );
    assert!(
        text.contains("was killed by SIGKILL (the kernel killed a process because memory ran out"),
        "{text}"
    );
    assert_eq!((lost(&trace, 1), lost(&trace, 0), env.lost_episodes()), (vec![(1, 2)], vec![], 1));
}

/// An environment that merely raises costs the others of its process nothing; one that kills it, their
/// episodes.
#[test]
fn a_process_is_shared() {
    let one = |how: &str| {
        let mut faults = Map::new();
        fault(&mut faults, 2, 3, how);
        let gym =
            open("Planned-v0", &GymSettings { env_workers: 2, ..settings(&json!({ "faults": faults })) });
        let (trace, env) = run(&gym, 6, STEPS, SEED).unwrap();
        assert_eq!(metric(&gym.news(), "env/restarts"), 1.0);
        (trace, env)
    };
    let (clean, _) = {
        let gym = open("Planned-v0", &settings(&json!({})));
        run(&gym, 6, STEPS, SEED).unwrap()
    };
    let (raised, env) = one("raise");
    for b in [0, 1, 3, 4, 5] {
        assert_eq!(raised[b], clean[b], "environment {b}");
    }
    assert_eq!((lost(&raised, 2), env.lost_episodes()), (vec![(1, 2)], 1));
    let (died, env) = one("kill SIGKILL");
    for b in 3..6 {
        assert_eq!(died[b], clean[b], "environment {b}");
    }
    for b in 0..3 {
        assert!(lost(&died, b).len() <= 1, "environment {b}");
    }
    assert_eq!(lost(&died, 2), [(1, 2)]);
    assert!(env.lost_episodes() > 1);
    // Who stepped before the process went, and ended an episode thereby, has it.
    let same = |b: usize| clean[b].iter().zip(&died[b]).take_while(|(a, b)| a == b).count();
    assert!((0..3).all(|b| same(b) >= 3), "all were as before until then");
}

/// One raise, in every place of a rollout, with few and many environments, under every policy.
#[test]
fn a_raise_anywhere_in_a_rollout() {
    const T: usize = 8;
    for n in [1, 4, 16] {
        let b = n - 1;
        let with = |on_env_error, faults: Value, close: Option<&str>| {
            let own = settings(&json!({ "faults": faults, "close": close }));
            let gym = open("Planned-v0", &GymSettings { on_env_error, env_workers: 1, ..own });
            let done = run(&gym, n, 5 * T, SEED);
            (done, gym)
        };
        let (clean, _) = with(OnEnvError::Stop, json!({}), None).0.unwrap();
        let same_others = |trace: &Trace, what: &str| {
            assert!((0..b).all(|other| trace[other] == clean[other]), "{what}");
        };
        // When the environment is closed.
        let (done, gym) = with(OnEnvError::Stop, json!({}), Some("raise"));
        let (trace, env) = done.unwrap();
        assert_eq!(trace, clean, "{n} environments, close");
        drop(env);
        assert!(gym.news().notices.join("\n").contains("as planned"), "{n} environments, close");
        // First, middle and last step of a rollout, and the reset after an episode.
        for at in [Some(0), Some(T / 2), Some(T - 1), None] {
            let what = format!("{n} environments, step {at:?}");
            let chosen = (T..4 * T).find(|g| {
                let seen = &clean[b][*g];
                seen.place.0 >= 1 && at.map_or(seen.end != End::Running, |at| g % T == at)
            });
            let g = chosen.unwrap();
            let (episode, step) = clean[b][g].place;
            let (episode, step) = if at.is_some() { (episode, step + 1) } else { (episode + 1, 0) };
            let seed = seeds(SEED, b).nth(episode as usize).unwrap();
            let faults = json!({ seed.to_string(): [step, "raise"] });
            // Up to here nothing is different; a reset fails behind the end of an episode.
            let before = g + usize::from(at.is_none());

            let (done, gym) = with(OnEnvError::Restart, faults.clone(), None);
            let (trace, env) = done.unwrap();
            same_others(&trace, &what);
            assert_eq!(trace[b][..before], clean[b][..before], "{what}");
            let lost_steps: Vec<usize> = (0..5 * T).filter(|g| trace[b][*g].end == End::Lost).collect();
            let expected: Vec<usize> = at.map(|_| g).into_iter().collect();
            assert_eq!(lost_steps, expected, "{what}");
            assert_eq!(env.lost_episodes() as usize, expected.len(), "{what}");
            assert_eq!(metric(&gym.news(), "env/restarts"), 1.0, "{what}");

            let (done, _) = with(OnEnvError::Drop, faults.clone(), None);
            if n > 1 {
                let (trace, env) = done.unwrap();
                same_others(&trace, &what);
                assert_eq!(trace[b][..before], clean[b][..before], "{what}");
                assert!(trace[b][before..].iter().all(|s| s.end == End::Lost), "{what}");
                assert!(env.is_dropped(b), "{what}");
            } else {
                let error = done.map(drop).unwrap_err().to_string();
                assert!(error.contains("no environment is left"), "{what}: {error}");
            }

            match with(OnEnvError::Stop, faults, None).0 {
                Err(EnvError::Failed { env, episode: e, reason, .. }) => {
                    // A reset that fails is part of the step that ended the episode before.
                    assert_eq!((env, e), (b, clean[b][g].place.0), "{what}");
                    assert!(reason.contains("RuntimeError: as planned"), "{what}: {reason}");
                }
                Err(e) => panic!("{what}: {e}"),
                Ok(_) => panic!("{what}: it goes on"),
            }
        }
    }
}

/// The policies, their budgets, and what is fatal.
#[test]
fn a_failure_is_answered_as_was_asked() {
    let gym_at = |at: u32, on_env_error, total, each, every: bool, n: usize| {
        let mut faults = Map::new();
        for b in 0..n {
            for seed in seeds(SEED, b).take(if every { 200 } else { 0 }).chain(seeds(SEED, 0).nth(1)) {
                faults.insert(seed.to_string(), json!([at, "raise"]));
            }
        }
        let own = settings(&json!({ "faults": faults }));
        open(
            "Planned-v0",
            &GymSettings {
                on_env_error,
                env_restarts: total,
                env_restarts_each: each,
                env_workers: 1,
                ..own
            },
        )
    };
    let gym_of = |on_env_error, total, each, every, n| gym_at(1, on_env_error, total, each, every, n);
    let stopped = |gym: &Gym, n| match run(gym, n, STEPS, SEED) {
        Err(EnvError::Failed { env, episode, step, reason, .. }) => (env, episode, step, reason),
        Err(e) => panic!("{e}"),
        Ok(_) => panic!("it goes on"),
    };
    let (env, episode, step, reason) = stopped(&gym_of(OnEnvError::Stop, 20, 3, false, 2), 2);
    assert_eq!((env, episode), (0, 1));
    assert!(step <= 1 && reason.contains("RuntimeError: as planned"), "{reason}");
    // The place is that of the step that ended the episode before: the words say that it was not the step.
    let (env, episode, step, reason) = stopped(&gym_at(0, OnEnvError::Stop, 20, 3, false, 2), 2);
    assert!((env, episode) == (0, 0) && step > 1, "episode {episode}, step {step}");
    assert!(reason.starts_with("in the reset that followed: it raised during reset"), "{reason}");
    // Every first step fails: the budgets run out.
    let gym = gym_of(OnEnvError::Restart, 5, 1000, true, 1);
    let reason = stopped(&gym, 1).3;
    assert!(reason.contains("no restart is left (env_restarts = 5"), "{reason}");
    assert_eq!(metric(&gym.news(), "env/restarts"), 5.0);
    let reason = stopped(&gym_of(OnEnvError::Restart, 1000, 3, true, 1), 1).3;
    assert!(reason.contains("no restart is left (env_restarts_each = 3"), "{reason}");
    // Dropped: the other one goes on as ever.
    let gym = gym_of(OnEnvError::Drop, 20, 3, false, 2);
    let (trace, env) = run(&gym, 2, STEPS, SEED).unwrap();
    let clean = run(&open("Planned-v0", &settings(&json!({}))), 2, STEPS, SEED).unwrap().0;
    assert_eq!(trace[1], clean[1]);
    assert!(env.is_dropped(0) && !env.is_dropped(1));
    let first = trace[0].iter().position(|s| s.end == End::Lost).unwrap();
    assert!(trace[0][first..].iter().all(|s| s.end == End::Lost));
    assert_eq!(metric(&gym.news(), "env/dropped"), 1.0);
    // And when none is left, it is over.
    let reason = stopped(&gym_of(OnEnvError::Drop, 20, 3, true, 2), 2).3;
    assert!(reason.contains("no environment is left"), "{reason}");
}

/// Making, closing, printing.
#[test]
fn failures_before_and_after_episodes() {
    let opening = |init: &str, start: f64| {
        let own = GymSettings { env_start_secs: start, ..settings(&json!({ "init": init })) };
        let began = Instant::now();
        let error = Gym::open("gym:tests.misbehaving:Planned-v0", &own).map(drop).unwrap_err();
        (error, began.elapsed())
    };
    let (e, _) = opening("raise", 30.0);
    assert!(e.exit_code() == 65 && e.message.contains("RuntimeError: as planned"), "{e}");
    let (e, _) = opening("exit 1", 30.0);
    assert!(e.exit_code() == 65 && e.message.contains("exited with code 1"), "{e}");
    let (e, time) = opening("busy", 2.0);
    assert!(e.message.contains("took more than 2.") && e.message.contains("in fail"), "{e}");
    assert!(time < Duration::from_secs(6), "{time:?}");
    for (close, said) in [
        ("raise", "as planned"),
        ("sleep", "environment 0: closing it failed\n    | its process did not close it within 1s"),
        ("exit 1", ""),
    ] {
        let gym = open("Planned-v0", &settings(&json!({})));
        let with =
            open("Planned-v0", &GymSettings { env_workers: 1, ..settings(&json!({ "close": close })) });
        let began = Instant::now();
        let (clean, closed) = (run(&gym, 2, 10, SEED).unwrap().0, run(&with, 2, 10, SEED).unwrap());
        assert_eq!(closed.0, clean);
        drop(closed.1);
        let news = with.news().notices.join("\n");
        assert!(news.contains(said), "{close}: {news}");
        assert!(began.elapsed() < Duration::from_secs(12), "{close}");
    }
    // What is printed goes nowhere, and blocks nobody: more than a pipe holds.
    let mut faults = Map::new();
    fault(&mut faults, 0, 2, "print");
    let gym = open("Planned-v0", &settings(&json!({ "faults": faults })));
    run(&gym, 2, 20, SEED).unwrap();
    let news = gym.news().notices.join("\n");
    assert!(news.contains("no fault is called print"), "it got through: {news}");
}

/// `close` has the time of a step, and what Python does at its end is done.
#[test]
fn an_end_is_an_ordinary_one() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let slow = settings(&json!({ "log": log.to_str().unwrap(), "seconds": 2.5 }));
    let gym = open("Tidy-v0", &GymSettings { env_step_secs: 20.0, env_workers: 1, ..slow });
    // The one that was asked what it is ends in the same way.
    let once = "closed\natexit\n".to_owned();
    assert_eq!(std::fs::read_to_string(&log).unwrap(), once);
    drop(run(&gym, 1, 3, SEED).unwrap());
    assert_eq!(std::fs::read_to_string(&log).unwrap(), once.repeat(2));
    assert_eq!(gym.news().notices, Vec::<String>::new());
    let left = std::fs::read_to_string(dir.path().join("log.shm")).unwrap();
    assert_eq!(left.lines().count(), 2);
    for name in left.lines() {
        let memory = Path::new("/dev/shm").join(name.trim_start_matches('/'));
        assert!(!memory.exists(), "{}", memory.display());
    }
    // A thread that never ends is not waited for.
    let stays = settings(&json!({ "log": log.to_str().unwrap(), "seconds": 0, "thread": true }));
    let began = Instant::now();
    let error = Gym::open("gym:tests.misbehaving:Tidy-v0", &stays).map(drop);
    assert!(error.is_ok() && began.elapsed() < Duration::from_secs(20), "{error:?}");
}

/// The kernel tells of the end of a thread, not of a process.
#[test]
fn what_a_short_lived_thread_forked_lives_on() {
    let gym = open("Threaded-v0", &settings(&json!({})));
    let (trace, _) = run(&gym, 1, 4, SEED).unwrap();
    assert_eq!(trace[0].iter().map(|s| s.reward).collect::<Vec<_>>(), [2.0; 4]);
    assert_eq!(gym.news().notices, Vec::<String>::new());
}

/// Memory that is cut short would end this process.
#[test]
fn the_memory_cannot_be_cut_short() {
    let mut faults = Map::new();
    fault(&mut faults, 0, 2, "truncate");
    let gym = open("Planned-v0", &settings(&json!({ "faults": faults })));
    run(&gym, 2, 20, SEED).unwrap();
    let news = gym.news().notices.join("\n");
    assert!(news.contains("PermissionError") && news.contains("it was restarted (restart 1"), "{news}");
}

/// Processes end with the run, also when it is killed, and whatever an environment is doing.
#[test]
fn no_process_outlives_the_run() {
    const MARK: &str = "PGRAD_GYM_TEST_RUN";
    if std::env::var_os(MARK).is_some() {
        // This is the run: it waits for an environment that hangs.
        let mut faults = Map::new();
        fault(&mut faults, 0, 1, "program");
        let own = GymSettings { env_step_secs: 600.0, ..settings(&json!({ "faults": faults })) };
        let gym = open("Planned-v0", &GymSettings { env_workers: 2, ..own });
        println!("working");
        let _ = run(&gym, 4, STEPS, SEED);
        return;
    }
    let me = std::env::current_exe().unwrap();
    let test = "no_process_outlives_the_run";
    let mut child = std::process::Command::new(me)
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(MARK, "1")
        .env("PGRAD_PYTHON", python())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("working")), "the run ended by itself");
    // The worker's command line ends in the number of its parent.
    let mark = format!("\u{0}{}\u{0}", child.id());
    let until = |what: &str, done: &dyn Fn(usize) -> bool| {
        let began = Instant::now();
        while !done(processes(&mark).len()) {
            assert!(began.elapsed() < Duration::from_secs(20), "{what}: {:?}", processes(&mark));
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    // Each of the two with a process that watches over what it starts.
    until("both workers are there", &|n| n == 4);
    let program = || processes("sleep\u{0}62").len();
    let began = Instant::now();
    while program() == 0 {
        assert!(began.elapsed() < Duration::from_secs(20), "no program was started");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    until("and gone", &|n| n == 0 && program() == 0);
}

/// A worker that dies while nothing is asked of it.
#[test]
fn an_idle_process_that_dies_is_noticed_at_the_next_step() {
    let mut faults = Map::new();
    let seed = seeds(SEED, 0).next().unwrap();
    faults.insert(seed.to_string(), json!([1, "later"]));
    let gym = open("Planned-v0", &GymSettings { env_workers: 1, ..settings(&json!({ "faults": faults })) });
    let mut env = VecEnv::new(gym.make(2), SEED, 0);
    let mut random = pgrad_env::RandomActions::new(&env.spec().action, 2, SEED, 0);
    env.start().unwrap();
    env.step(random.draw()).unwrap();
    assert_eq!(env.ends(), [End::Running; 2]);
    std::thread::sleep(Duration::from_millis(400));
    env.step(random.draw()).unwrap();
    assert_eq!(env.ends(), [End::Lost; 2]);
    let news = gym.news().notices.join("\n");
    assert!(news.contains("exited with code 4"), "{news}");
    env.step(random.draw()).unwrap();
    assert_eq!(env.ends(), [End::Running; 2]);
}
