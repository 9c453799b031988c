//! Numbers that are not finite are stopped before they reach a normaliser, a buffer or a parameter, and
//! named; the last checkpoint stays good.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

mod driver_common;

use driver_common::{METHODS, Method, Runner, config as named, custom};
use pgrad_env::{Action, BoxSpace, Each, End, Env, EnvError, EnvSpec, Obs, Space, Step};
use pgrad_model::AgentError;
use pgrad_num::{Array, Record, Stream};
use pgrad_run::{driver::RunError, env::EnvMaker, trainer::Trainer};
use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};
use tempfile::tempdir;

/// Environments; each does 10 steps in an iteration.
const N_ENVS: usize = 6;

#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    /// Number 1 of the observation that follows step `at` (from 1).
    Obs,
    /// Number 1 of the observation of reset `at` (from 0).
    Reset,
    /// The rewards of step `at` and of the `more` steps after it.
    Reward { more: u64 },
}

#[derive(Clone, Copy, Debug)]
struct Fault {
    env: usize,
    at: u64,
    what: What,
    value: f64,
}

#[derive(Clone)]
struct Task {
    fault: Option<Fault>,
    action: Space,
    /// Length of every episode, which the task ends itself, or a time limit.
    length: u64,
    terminates: bool,
    started: Arc<AtomicUsize>,
}

impl Task {
    fn new(length: u64, fault: impl Into<Option<Fault>>) -> Self {
        let fault = fault.into();
        Self { fault, action: Space::Discrete { n: 2 }, length, terminates: false, started: Arc::default() }
    }
    fn maker(&self) -> EnvMaker {
        let task = self.clone();
        Arc::new(Each::maker(move || Faulty {
            task: task.clone(),
            number: None,
            steps: 0,
            resets: 0,
            x: 0.0,
        }))
    }
    fn build(&self, pairs: &[&str]) -> Trainer {
        self.build_with(&METHODS[0], pairs).unwrap()
    }
    /// `None` for a method whose iteration is not 10 steps of each environment.
    fn build_with(&self, m: &Method, pairs: &[&str]) -> Option<Trainer> {
        let config = m.custom("Faulty", self.maker(), &[m.ten_steps?, pairs].concat());
        Some(Trainer::new(config, 2).unwrap())
    }
}

/// Random observations, and one number that is wrong.
struct Faulty {
    task: Task,
    number: Option<usize>,
    steps: u64,
    resets: u64,
    x: f64,
}

impl Faulty {
    fn fault(&self, matches: impl Fn(&Fault) -> bool) -> Option<f64> {
        self.task.fault.filter(|f| self.number == Some(f.env) && matches(f)).map(|f| f.value)
    }
}

impl Env for Faulty {
    fn spec(&self) -> EnvSpec {
        EnvSpec {
            id: "Faulty".into(),
            observation: BoxSpace::unbounded(2).into(),
            action: self.task.action.clone(),
            max_episode_steps: (!self.task.terminates).then_some(self.task.length as u32),
            reward_threshold: None,
            masks_actions: false,
        }
    }
    fn reset(&mut self, rng: &mut Stream, obs: &mut Obs<'_>) {
        self.number.get_or_insert_with(|| self.task.started.fetch_add(1, Ordering::SeqCst));
        self.x = rng.normal();
        let bad = self.fault(|f| f.what == What::Reset && f.at == self.resets);
        self.resets += 1;
        obs.write_f64(&[self.x, bad.unwrap_or(0.0)]);
    }
    fn step(&mut self, action: Action<'_>, rng: &mut Stream, obs: &mut Obs<'_>) -> Step {
        if let Action::Box(a) = action {
            assert!(a.iter().all(|a| a.is_finite()), "an environment is never given {a:?}");
        }
        self.steps += 1;
        self.x = rng.normal();
        let bad = self.fault(|f| f.what == What::Obs && f.at == self.steps);
        obs.write_f64(&[self.x, bad.unwrap_or(0.0)]);
        let reward = self
            .fault(|f| matches!(f.what, What::Reward { more } if (f.at..=f.at + more).contains(&self.steps)));
        let over = self.task.terminates && self.steps.is_multiple_of(self.task.length);
        let end = if over { End::Terminated } else { End::Running };
        Step { reward: reward.unwrap_or(self.x), end }
    }
    fn save(&self) -> Option<Vec<f64>> {
        Some(vec![self.number? as f64, self.steps as f64, self.resets as f64, self.x])
    }
    fn load(&mut self, state: &[f64]) -> bool {
        let [number, steps, resets, x] = state else { return false };
        (self.number, self.x) = (Some(*number as usize), *x);
        (self.steps, self.resets) = (*steps as u64, *resets as u64);
        true
    }
}

/// What an algorithm knows, apart from where its environments and their streams stand.
fn knowledge(algo: &Trainer) -> Vec<(String, Array)> {
    let all = algo.save().record("algo");
    let world = ["experience.env", "experience.actions", "minibatches"];
    all.iter()
        .filter(|(name, _)| !world.iter().any(|w| name.starts_with(w)))
        .map(|(name, array)| (name.to_owned(), array.clone()))
        .collect()
}

/// Whether all that an algorithm knows is finite. (The state of a broken environment is not, of course.)
fn all_finite(algo: &Trainer) -> bool {
    knowledge(algo).iter().all(|(_, array)| match array {
        Array::F32(x) => x.iter().all(|v| v.is_finite()),
        Array::F64(x) => x.iter().all(|v| v.is_finite()),
        Array::U64(_) | Array::U8(_) => true,
    })
}

/// One good iteration, then one that must fail without a trace.
#[track_caller]
fn second_iteration_fails(algo: &mut Trainer) -> AgentError {
    algo.iterate().unwrap();
    fails_without_a_trace(algo)
}

#[track_caller]
fn fails_without_a_trace(algo: &mut Trainer) -> AgentError {
    let before = knowledge(algo);
    assert!(before.iter().any(|(name, _)| name == "theta"));
    let error = algo.iterate().unwrap_err();
    assert!(knowledge(algo) == before, "{error}: something has changed");
    assert!(all_finite(algo), "{error}");
    error
}

/// The value as single precision has it: 1e39 is too large for it.
fn same(a: f64, b: f64) -> bool {
    a as f32 == b as f32 || (a.is_nan() && b.is_nan())
}

const BAD: [f64; 5] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e39, -1e39];
/// Calls `test` with every method that does 10 steps an iteration, normalising, on a task.
fn each_method(task: impl Fn() -> Task, test: impl Fn(&mut Trainer)) {
    for m in METHODS {
        if let Some(mut algo) = task().build_with(m, NORMALIZED) {
            test(&mut algo);
        }
    }
}

const NORMALIZED: &[&str] = &["normalize_obs=true", "normalize_reward=true"];

#[test]
fn observations_are_named_with_environment_episode_step_and_index() {
    // Episodes of 5 steps; the second iteration does steps 11 to 20. First, final, middle, last and final.
    for terminates in [false, true] {
        for at in [11, 15, 16, 20] {
            for faulty in [0, N_ENVS - 1] {
                for bad in BAD {
                    let fault = Fault { env: faulty, at, what: What::Obs, value: bad };
                    let task = || Task { terminates, ..Task::new(5, fault) };
                    let (at_episode, at_step) = ((at - 1) / 5, (at - 1) % 5 + 1);
                    each_method(task, |algo| {
                        let error = second_iteration_fails(algo);
                        let AgentError::Env(EnvError::Observation {
                            env,
                            episode,
                            step,
                            component,
                            value,
                            ..
                        }) = error
                        else {
                            panic!("{error}")
                        };
                        assert_eq!((env, episode, u64::from(step)), (faulty, at_episode, at_step));
                        assert_eq!(&*component, "component 1");
                        assert!(same(f64::from(value), bad), "{value} {bad}");
                    });
                }
            }
        }
    }
}

#[test]
fn observations_of_a_reset_are_named_as_step_0() {
    // Reset 3 follows step 15, reset 4 the last step.
    for reset in [3, 4] {
        for faulty in [0, N_ENVS - 1] {
            for bad in BAD {
                let fault = Fault { env: faulty, at: reset, what: What::Reset, value: bad };
                each_method(
                    || Task::new(5, fault),
                    |algo| {
                        let error = second_iteration_fails(algo);
                        let AgentError::Env(EnvError::Observation { env, episode, step, component, .. }) =
                            error
                        else {
                            panic!("{error}")
                        };
                        assert_eq!((env, episode, step, &*component), (faulty, reset, 0, "component 1"));
                    },
                );
            }
        }
    }
    let first = Fault { env: 4, at: 0, what: What::Reset, value: f64::NAN };
    let mut algo = Trainer::new(custom("Faulty", Task::new(5, first).maker(), &["n_envs=6"]), 2).unwrap();
    let error = algo.iterate().unwrap_err();
    assert!(
        matches!(&error, AgentError::Env(EnvError::Observation { env: 4, episode: 0, step: 0, component, .. }) if &**component == "component 1"),
        "{error}"
    );
}

#[test]
fn rewards_are_named_with_environment_episode_and_step() {
    for at in [11, 15, 16, 20] {
        for faulty in [0, N_ENVS - 1] {
            for bad in BAD {
                let fault = Fault { env: faulty, at, what: What::Reward { more: 0 }, value: bad };
                each_method(
                    || Task::new(5, fault),
                    |algo| {
                        let error = second_iteration_fails(algo);
                        let AgentError::Env(EnvError::Reward { env, episode, step, value, .. }) = error
                        else {
                            panic!("{error}")
                        };
                        assert_eq!((env, episode, u64::from(step)), (faulty, (at - 1) / 5, (at - 1) % 5 + 1));
                        assert!(same(value, bad), "{value} {bad}");
                    },
                );
            }
        }
    }
}

#[test]
fn a_broken_environment_ends_the_run_and_its_checkpoint_stays_good() {
    let fault = Fault { env: 5, at: 33, what: What::Obs, value: f64::NAN };
    let config = |task: &Task| {
        let pairs = [
            "n_envs=6",
            "n_steps=10",
            "envs_per_shard=2",
            "minibatch_size=20",
            "steps=360",
            "checkpoint_steps=1",
        ];
        custom("Faulty", task.maker(), &pairs)
    };
    for mode in ["stop", "rollback"] {
        let dir = tempdir().unwrap();
        let run = dir.path().join("run");
        let task = Task::new(5, fault);
        let mut config = config(&task);
        config.apply_pair(&format!("on_divergence={mode}"), "test").unwrap();
        let mut runner = Runner::default();
        let error = runner.train(&run, config).unwrap_err();
        assert_eq!(error.exit_code(), 65);
        let text = error.to_string();
        for part in
            ["environment 5", "episode 6", "step 3", "NaN", "180 steps", "check-env", "step 180 is good"]
        {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
        assert!(text.contains(&run.display().to_string()), "{text}");
        assert_eq!(runner.notices, Vec::<String>::new(), "going back does not mend an environment");
        // Resumed as it is, it fails at the same place; mended, it goes on to the end.
        let again = Runner::default().resume_with(&run, task.maker()).unwrap_err();
        assert_eq!(again.to_string(), text);
        let mended = Runner::default().resume_with(&run, Task::new(5, None).maker()).unwrap();
        assert_eq!((mended.stopped, mended.progress.steps), (false, 360));
    }
}

// ---- what is finite comes in, what comes out is not ----

/// Replaces the parameters called `name`.
fn set(algo: &mut Trainer, name: &str, values: &[f32]) {
    let view = algo.algorithm().model().views().into_iter().find(|v| v.name == name).unwrap();
    let mut theta = algo.algorithm().model().theta.clone();
    theta[view.range].copy_from_slice(values);
    let mut record = Record::new();
    for (key, array) in algo.save().iter() {
        record.put(key, if key == "algo.theta" { Array::from(theta.clone()) } else { array.clone() });
    }
    assert!(algo.load(&record).unwrap());
}

const LINEAR: &[&str] = &["hidden="];
/// No advantage is clipped or normalised, and what comes late counts in full.
const PLAIN: &[&str] = &["hidden=", "gamma=1", "lambda=1", "normalize_advantage=false"];

#[test]
fn outputs_of_the_policy_are_named() {
    // Shown after steps 11, 12 and 19, acted on in the step after.
    for (at, episode_then, step_then) in [(11, 2, 1), (12, 2, 2), (19, 3, 4)] {
        for faulty in [0, N_ENVS - 1] {
            for sign in [1.0, -1.0] {
                let fault = Fault { env: faulty, at, what: What::Obs, value: 1e30 };
                let mut algo = Task::new(5, fault).build(LINEAR);
                algo.iterate().unwrap();
                set(&mut algo, "actor.logits.weight", &[0.0, 0.0, 0.0, 1e10 * sign]);
                let error = fails_without_a_trace(&mut algo);
                let AgentError::Output { network, env, episode, step, index, value } = error else {
                    panic!("{error}")
                };
                assert_eq!(
                    (network, env, episode, step, index),
                    ("policy", faulty, episode_then, step_then, 1)
                );
                assert_eq!(value, f32::INFINITY * sign);
            }
        }
    }
}

#[test]
fn infinite_actions_are_named_and_never_reach_an_environment() {
    for bounds in [BoxSpace::unbounded(2), BoxSpace::uniform(-1.0, 1.0, 2)] {
        let task = Task { action: Space::Box(bounds), ..Task::new(5, None) };
        let mut algo = task.build(LINEAR);
        algo.iterate().unwrap();
        set(&mut algo, "actor.log_std", &[0.0, 100.0]);
        let error = fails_without_a_trace(&mut algo);
        assert!(matches!(error, AgentError::Action { env: 0, episode: 2, step: 0, index: 1, .. }), "{error}");
        assert!(error.is_divergence());
    }
}

#[test]
fn values_are_named() {
    // Episodes of 7 steps, the second iteration does steps 11 to 20. Row t shows what followed step 10 + t;
    // step 14 is cut (row 3), and what follows step 20 is beyond the last row.
    for (at, row) in [(11, 1), (14, 3), (19, 9), (20, 10)] {
        for faulty in [0, N_ENVS - 1] {
            let fault = Fault { env: faulty, at, what: What::Obs, value: 1e30 };
            let mut algo = Task::new(7, fault).build(LINEAR);
            algo.iterate().unwrap();
            set(&mut algo, "actor.logits.weight", &[0.0; 4]);
            set(&mut algo, "critic.value.weight", &[0.0, -1e10]);
            let error = fails_without_a_trace(&mut algo);
            let AgentError::Value { env, step, value } = error else { panic!("{error}") };
            assert_eq!((env, step, value), (faulty, row, f32::NEG_INFINITY));
        }
    }
}

#[test]
fn advantages_are_named() {
    // Finite rewards whose sum is not: steps 13 to 16 are rows 2 to 5.
    for faulty in [0, N_ENVS - 1] {
        let fault = Fault { env: faulty, at: 13, what: What::Reward { more: 3 }, value: 1e38 };
        let error = second_iteration_fails(&mut Task::new(1000, fault).build(PLAIN));
        let AgentError::Estimate { what, env, step, value } = error else { panic!("{error}") };
        assert_eq!((what, env, step, value), ("advantage", faulty, 0, f32::INFINITY));
    }
}

#[test]
fn losses_are_named() {
    // The square of 1e30 is too large.
    let fault = Fault { env: 3, at: 15, what: What::Reward { more: 0 }, value: 1e30 };
    let pairs = &["hidden=", "minibatch_size=60"];
    let error = second_iteration_fails(&mut Task::new(1000, fault).build(pairs));
    assert!(matches!(error, AgentError::Loss { what: "value loss", epoch: 0, minibatch: 0, .. }), "{error}");
}

#[test]
fn gradients_are_named_with_tensor_and_index() {
    // An error of 1e12 times an input of 1e30.
    let task = Task::new(1000, Fault { env: 3, at: 14, what: What::Obs, value: 1e30 });
    let mut algo = task.build(&["hidden=", "minibatch_size=60"]);
    algo.iterate().unwrap();
    set(&mut algo, "actor.logits.weight", &[0.0; 4]);
    set(&mut algo, "critic.value.weight", &[0.0; 2]);
    set(&mut algo, "critic.value.bias", &[1e12]);
    let error = fails_without_a_trace(&mut algo);
    let AgentError::Gradient { tensor, index, epoch, minibatch, value } = error else { panic!("{error}") };
    assert_eq!((&tensor[..], index, epoch, minibatch), ("critic.value.weight", 1, 0, 0));
    assert!(!value.is_finite());
}

#[test]
fn rewards_that_sum_beyond_single_precision_do_not_spoil_the_normaliser() {
    let fault = Fault { env: 2, at: 11, what: What::Reward { more: 9 }, value: 3e38 };
    let mut algo = Task::new(1000, fault).build(NORMALIZED);
    algo.iterate().unwrap();
    // Divided by their spread they can be learnt from.
    for _ in 0..3 {
        algo.iterate().unwrap();
        assert!(all_finite(&algo));
    }
}

// ---- going back ----

/// Absurd rewards while a counter of all steps ever done, which no going back turns back, is in a range.
struct Spell {
    done: Arc<AtomicU64>,
    from: u64,
    to: u64,
}

impl Env for Spell {
    fn spec(&self) -> EnvSpec {
        EnvSpec {
            id: "Spell".into(),
            observation: BoxSpace::unbounded(1).into(),
            action: Space::Discrete { n: 2 },
            max_episode_steps: Some(100),
            reward_threshold: None,
            masks_actions: false,
        }
    }
    fn reset(&mut self, _: &mut Stream, obs: &mut Obs<'_>) {
        obs.write(&[1.0]);
    }
    fn step(&mut self, action: Action<'_>, rng: &mut Stream, obs: &mut Obs<'_>) -> Step {
        obs.write_f64(&[rng.normal()]);
        let absurd = (self.from..self.to).contains(&self.done.fetch_add(1, Ordering::SeqCst));
        Step { reward: if absurd { 3e38 } else { action.index() as f64 }, end: End::Running }
    }
    fn save(&self) -> Option<Vec<f64>> {
        Some(Vec::new())
    }
    fn load(&mut self, state: &[f64]) -> bool {
        state.is_empty()
    }
}

fn spell(from: u64, to: u64) -> EnvMaker {
    let done = Arc::new(AtomicU64::new(0));
    Arc::new(Each::maker(move || Spell { done: Arc::clone(&done), from, to }))
}

/// Steps of an iteration.
const ITERATION: u64 = 96;
const SPELL: &[&str] = &["learning_rate=0.001", "steps=768", "checkpoint_steps=1"];

fn learning_rate(runner: &Runner) -> f64 {
    runner.progress.last().unwrap().report.get("learn/learning_rate").unwrap()
}

#[test]
fn a_divergence_is_gone_back_from_with_a_smaller_step() {
    let dir = tempdir().unwrap();
    let run = dir.path().join("run");
    // The fourth iteration and the first try to repeat it.
    let make = spell(3 * ITERATION + 5, 5 * ITERATION);
    let config = custom("Spell", Arc::clone(&make), &[SPELL, &["on_divergence=rollback"]].concat());
    let mut runner = Runner { stop_after: Some(6), ..Runner::default() };
    assert!(runner.train(&run, config).unwrap().stopped);
    assert_eq!(runner.notices.len(), 2, "{:?}", runner.notices);
    for (notice, scale) in runner.notices.iter().zip(["0.5 times", "0.25 times"]) {
        for part in [scale, "288 steps", "advantage"] {
            assert!(notice.contains(part), "{part} is not in: {notice}");
        }
    }
    let rates: Vec<f64> =
        runner.progress.iter().map(|p| p.report.get("learn/learning_rate").unwrap()).collect();
    assert_eq!(rates, [0.001, 0.001, 0.001, 0.00025, 0.00025, 0.00025]);
    // The smaller step outlives the process.
    let mut runner = Runner::default();
    assert_eq!(runner.resume_with(&run, make).unwrap().progress.steps, 768);
    assert_eq!(learning_rate(&runner), 0.00025);
}

#[test]
fn going_back_is_given_up_after_five_times() {
    let dir = tempdir().unwrap();
    let run = dir.path().join("run");
    let make = spell(3 * ITERATION, u64::MAX);
    let config = custom("Spell", make, &[SPELL, &["on_divergence=rollback"]].concat());
    let mut runner = Runner::default();
    let error = runner.train(&run, config).unwrap_err();
    assert_eq!(runner.notices.len(), 5, "{:?}", runner.notices);
    assert!(runner.notices[4].contains("0.03125 times"), "{:?}", runner.notices);
    assert_eq!(error.exit_code(), 70);
    let text = error.to_string();
    assert!(text.contains("step 288 is good") && text.contains("rolled back 5 times"), "{text}");
    assert!(!text.contains("on_divergence"), "advice that was followed already: {text}");
    let sane = Runner::default().resume_with(&run, spell(0, 0)).unwrap();
    assert_eq!((sane.stopped, sane.progress.steps), (false, 768));
}

#[test]
fn without_going_back_a_divergence_ends_the_run() {
    let dir = tempdir().unwrap();
    let run = dir.path().join("run");
    let config = custom("Spell", spell(3 * ITERATION, 5 * ITERATION), SPELL);
    let mut runner = Runner::default();
    let error = runner.train(&run, config).unwrap_err();
    assert!(matches!(error, RunError::Agent { steps: 288, .. }), "{error}");
    assert_eq!((error.exit_code(), runner.notices.len()), (70, 0));
    assert!(error.to_string().contains("on_divergence = \"rollback\" may help"), "{error}");
}

#[test]
fn a_step_size_that_is_far_too_large_is_found_out() {
    let dir = tempdir().unwrap();
    let run = dir.path().join("run");
    let pairs = ["learning_rate=200", "learning_rate_schedule=constant", "steps=960"];
    let mut runner = Runner::default();
    let error = runner.train(&run, named("Pendulum-v1", &pairs)).unwrap_err();
    assert_eq!(error.exit_code(), 70, "{error}");
    let run = dir.path().join("back");
    let pairs = [&pairs[..], &["on_divergence=rollback"]].concat();
    let mut runner = Runner::default();
    let summary = runner.train(&run, named("Pendulum-v1", &pairs)).unwrap();
    assert!(!summary.stopped && !runner.notices.is_empty());
    let rate = learning_rate(&runner);
    assert!(rate <= 100.0 && (200.0 / rate).log2().fract() == 0.0, "halved some times: {rate}");
    pgrad_model::Policy::from_bytes(&std::fs::read(run.join("policy.safetensors")).unwrap()).unwrap();
}
