//! Asynchronous methods against their papers' boxes: runs whose interleaving is known are recomputed in `f64`
//! from what the environments saw, with gradients by finite differences.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

#[path = "../../pgrad-collect/tests/common/mod.rs"]
mod common;

use common::{Batch, Memory, OBS, Seen, Task, relative_difference, tasks, wide};
use pgrad_algos::{
    A3cConfig, AlgoConfig, Algorithm, AsyncNstepQConfig, AsyncOptimizer, AsyncQConfig, AsyncSarsaConfig,
    AsyncSettings, AsyncValueSettings, BuildError, Groups, Report, Reproducible, Schedule, Setup,
};
use pgrad_engine::Cpu;
use pgrad_env::{
    Action, BatchResult, BoxSpace, Each, End, Env, EnvSpec, Obs, Space, Step, probe::MaskedAction, spec_of,
};
use pgrad_model::{ActorCritic, AgentError, Part, tensors};
use pgrad_nn::Activation;
use pgrad_num::{Array, Cols, ColsMut, Record, Stream};
use pgrad_settings::apply_pair;
use pgrad_testkit::finite_difference_gradient;

/// Steps of the whole run that schedules refer to.
const TOTAL: u64 = 400;

/// A method as its paper has it.
trait Equations: AlgoConfig + Default {
    fn learners(&self) -> &AsyncSettings;
    fn values(&self) -> Option<&AsyncValueSettings> {
        None
    }
    /// `dθ` of a segment, and what follows it where it did not end.
    fn gradient(
        &self,
        slow: &Slow,
        theta: &[f64],
        target: &[f64],
        s: &[Seen],
        next: Option<&Seen>,
    ) -> Vec<f64>;
}

/// Copies of `θ` and `θ⁻`, and the number of updates then.
type Copied = (Vec<f64>, Vec<f64>, usize);

/// The state of a recomputation, in `f64`.
struct Slow {
    model: ActorCritic,
    masked: bool,
    gamma: f64,
    bootstrap: bool,
    theta: Vec<f64>,
    target: Vec<f64>,
    /// Mean squares or momentum: one, or one for each actor-learner.
    moments: Vec<Vec<f64>>,
    frames: u64,
    staleness: Vec<u64>,
    grad_norms: Vec<f64>,
    /// What the networks of the actor-learner that comes next remember.
    memory: Memory,
}

impl Slow {
    /// The outputs of a network over observations, one step after the other, and its state behind the last
    /// one.
    fn walk(part: &Part, theta: &[f64], state: &[f64], all: &[&[f32]]) -> (Vec<Vec<f64>>, Vec<f64>) {
        let (mut tape, mut state) = (part.net.tape::<f64>(1), state.to_vec());
        let mut outputs = Vec::new();
        for obs in all {
            let (x, rows) = (wide(obs), state.len());
            if rows > 0 {
                tape.begin(1, Cols::new(&state, rows, 1), &[false]);
            }
            let out = part.net.forward(&theta[part.params.clone()], Cols::new(&x, OBS, 1), &mut tape);
            outputs.push(out.into_data().to_vec());
            if rows > 0 {
                tape.last_state(ColsMut::new(&mut state, rows, 1));
            }
        }
        (outputs, state)
    }
    /// `V(s_i)` of the steps of a segment and of what followed.
    fn values(&self, theta: &[f64], s: &[Seen]) -> Vec<f64> {
        let obs: Vec<&[f32]> = s.iter().map(|s| &s.obs[..]).chain([&s[s.len() - 1].next[..]]).collect();
        let (out, _) = Self::walk(self.model.critic(), theta, &self.memory.critic, &obs);
        out.iter().map(|out| out[0]).collect()
    }
    /// What is remembered behind a segment.
    fn remember(&self, theta: &[f64], s: &[Seen]) -> Memory {
        let obs: Vec<&[f32]> = s.iter().map(|s| &s.obs[..]).collect();
        let after = |part, state: &[f64]| Self::walk(part, theta, state, &obs).1;
        let mut memory = self.memory.clone();
        if !memory.actor.is_empty() {
            memory.actor = after(self.model.actor(), &memory.actor);
            memory.critic = after(self.model.critic(), &memory.critic);
        }
        if s[s.len() - 1].end != End::Running {
            memory.actor.fill(0.0);
            memory.critic.fill(0.0);
        }
        memory
    }
    /// All outputs of the network of action values.
    fn q(&self, theta: &[f64], obs: &[f32]) -> Vec<f64> {
        let part = self.model.actor();
        let mut tape = part.net.tape::<f64>(1);
        let x = wide(obs);
        part.net.forward(&theta[part.params.clone()], Cols::new(&x, OBS, 1), &mut tape).into_data().to_vec()
    }
    /// The value of what follows a step, of which `v` is the value of `s'`.
    fn after(&self, end: End, v: impl FnOnce() -> f64) -> f64 {
        if end == End::Running || end == End::Truncated && self.bootstrap { v() } else { 0.0 }
    }
    /// The gradient of `Σ (y_i − Q(s_i, a_i; θ))²`.
    fn fit(&self, theta: &[f64], s: &[Seen], y: &[f64]) -> Vec<f64> {
        let loss = |x: &[f64]| {
            s.iter().zip(y).map(|(s, y)| (y - self.q(x, &s.obs)[s.index[0] as usize]).powi(2)).sum()
        };
        finite_difference_gradient(loss, theta)
    }
}

fn largest(q: &[f64]) -> f64 {
    q.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

impl Equations for A3cConfig {
    fn learners(&self) -> &AsyncSettings {
        &self.learners
    }
    fn gradient(&self, slow: &Slow, theta: &[f64], _: &[f64], s: &[Seen], _: Option<&Seen>) -> Vec<f64> {
        let last = &s[s.len() - 1];
        let v = slow.values(theta, s);
        let mut ret = slow.after(last.end, || v[s.len()]);
        let mut returns = vec![0.0; s.len()];
        for i in (0..s.len()).rev() {
            ret = s[i].reward + slow.gamma * ret;
            returns[i] = ret;
        }
        let adv: Vec<f64> = (0..s.len()).map(|i| returns[i] - v[i]).collect();
        let mut batch = Batch::new(s, slow.masked);
        batch.memory = slow.memory.clone();
        let loss = |x: &[f64]| {
            let (logp, entropy) = batch.policy(&slow.model, x);
            let v = batch.values(&slow.model, x, &batch.obs);
            (0..s.len())
                .map(|i| {
                    -logp[i] * adv[i] - self.a3c.entropy_coef * entropy[i]
                        + self.a3c.value_coef * (returns[i] - v[i]).powi(2)
                })
                .sum()
        };
        finite_difference_gradient(loss, theta)
    }
}

impl Equations for AsyncQConfig {
    fn learners(&self) -> &AsyncSettings {
        &self.learners
    }
    fn values(&self) -> Option<&AsyncValueSettings> {
        Some(&self.values)
    }
    fn gradient(&self, slow: &Slow, theta: &[f64], target: &[f64], s: &[Seen], _: Option<&Seen>) -> Vec<f64> {
        let y = |s: &Seen| s.reward + slow.gamma * slow.after(s.end, || largest(&slow.q(target, &s.next)));
        slow.fit(theta, s, &s.iter().map(y).collect::<Vec<_>>())
    }
}

impl Equations for AsyncSarsaConfig {
    fn learners(&self) -> &AsyncSettings {
        &self.learners
    }
    fn values(&self) -> Option<&AsyncValueSettings> {
        Some(&self.values)
    }
    fn gradient(
        &self,
        slow: &Slow,
        theta: &[f64],
        target: &[f64],
        s: &[Seen],
        next: Option<&Seen>,
    ) -> Vec<f64> {
        let epsilon = self.values.epsilon_1;
        let follow = |i: usize| {
            let q = slow.q(target, &s[i].next);
            if s[i].end == End::Running {
                return q[s.get(i + 1).or(next).unwrap().index[0] as usize];
            }
            // Nobody acts in the final observation: the mean over what ε-greedy might have done.
            let own = slow.q(theta, &s[i].next);
            let best = (0..own.len()).fold(0, |best, a| if own[a] > own[best] { a } else { best });
            (1.0 - epsilon) * q[best] + epsilon * q.iter().sum::<f64>() / q.len() as f64
        };
        let y = |i: usize| s[i].reward + slow.gamma * slow.after(s[i].end, || follow(i));
        slow.fit(theta, s, &(0..s.len()).map(y).collect::<Vec<_>>())
    }
}

impl Equations for AsyncNstepQConfig {
    fn learners(&self) -> &AsyncSettings {
        &self.learners
    }
    fn values(&self) -> Option<&AsyncValueSettings> {
        Some(&self.values)
    }
    fn gradient(&self, slow: &Slow, theta: &[f64], target: &[f64], s: &[Seen], _: Option<&Seen>) -> Vec<f64> {
        let last = &s[s.len() - 1];
        let mut ret = slow.after(last.end, || largest(&slow.q(target, &last.next)));
        let mut y = vec![0.0; s.len()];
        for i in (0..s.len()).rev() {
            ret = s[i].reward + slow.gamma * ret;
            y[i] = ret;
        }
        slow.fit(theta, s, &y)
    }
}

impl Slow {
    fn new(c: &impl Equations, model: &ActorCritic, masked: bool) -> Self {
        let l = c.learners();
        let shared = l.optimizer == AsyncOptimizer::SharedRmsprop;
        let start = if l.optimizer == AsyncOptimizer::Momentum { 0.0 } else { 1.0 };
        let moments = vec![vec![start; model.theta.len()]; if shared { 1 } else { l.workers }];
        Self {
            masked,
            gamma: l.gamma,
            bootstrap: l.bootstrap_time_limit,
            theta: wide(&model.theta),
            target: wide(&model.theta),
            moments,
            frames: 0,
            staleness: Vec::new(),
            grad_norms: Vec::new(),
            memory: Memory::default(),
            model: model.clone(),
        }
    }
    /// What the turns make of what the environments saw.
    fn follow(&mut self, c: &impl Equations, turns: &[u8], log: &[Vec<Seen>]) {
        let l = c.learners();
        let mut place = vec![0; l.workers];
        let mut copies: Vec<Option<Copied>> = vec![None; l.workers];
        let critic = if self.model.has_critic() { self.model.critic() } else { self.model.actor() };
        let states = [self.model.actor(), critic].map(|part| vec![0.0; part.net.state_rows()]);
        let [actor, critic] = states;
        let mut memories = vec![Memory { actor, critic }; l.workers];
        for w in turns.iter().map(|w| usize::from(*w)) {
            let Some((theta, target, copied_at)) = copies[w].take() else {
                copies[w] = Some((self.theta.clone(), self.target.clone(), self.staleness.len()));
                continue;
            };
            let rest = &log[w][place[w]..];
            let ended = rest.iter().take(l.n_steps).position(|s| s.end != End::Running);
            let n = ended.map_or(l.n_steps, |i| i + 1);
            place[w] += n;
            self.memory = memories[w].clone();
            memories[w] = self.remember(&theta, &rest[..n]);
            let mut d = c.gradient(self, &theta, &target, &rest[..n], rest.get(n));
            let norm = d.iter().map(|x| x * x).sum::<f64>().sqrt();
            self.grad_norms.push(norm);
            if let Some(max) = l.max_grad_norm.filter(|max| norm > *max) {
                d.iter_mut().for_each(|x| *x *= max / norm);
            }
            self.staleness.push((self.staleness.len() - copied_at) as u64);
            self.update(l, w, &d);
            let before = self.frames;
            self.frames += n as u64;
            if let Some(values) = c.values()
                && (before + 1..=self.frames).any(|t| t.is_multiple_of(values.target_steps))
            {
                self.target = self.theta.clone();
            }
        }
        assert!(copies.iter().all(Option::is_none), "every copy was followed by an update");
    }
    fn update(&mut self, l: &AsyncSettings, w: usize, d: &[f64]) {
        let done = self.frames as f64 / TOTAL as f64;
        let linear = l.learning_rate_schedule == Schedule::Linear;
        let alpha = l.learning_rate * if linear { 1.0 - done } else { 1.0 };
        let own = w.min(self.moments.len() - 1);
        for ((x, m), d) in self.theta.iter_mut().zip(&mut self.moments[own]).zip(d) {
            if l.optimizer == AsyncOptimizer::Momentum {
                *m = l.momentum * *m + (1.0 - l.momentum) * d;
                *x -= alpha * *m;
            } else {
                *m = l.rmsprop_decay * *m + (1.0 - l.rmsprop_decay) * d * d;
                *x -= alpha * d / (*m + l.rmsprop_epsilon).sqrt();
            }
        }
    }
}

fn config<C: Equations>(pairs: &[&str]) -> C {
    let mut c = C::default();
    let small =
        ["workers=3", "n_steps=4", "steps_per_iteration=20", "gamma=0.9", "hidden=4", "activation=tanh"];
    let values = ["epsilon_1=0.3", "epsilon_2=0.3", "epsilon_3=0.3", "epsilon_steps=0", "target_steps=25"];
    let values = if c.values().is_some() { &values[..] } else { &[] };
    for pair in small.iter().chain(values).chain(&["rmsprop_decay=0.9", "learning_rate=0.02"]).chain(pairs) {
        apply_pair(pair, "test", &mut c.parts_mut()).unwrap();
    }
    c
}

fn try_build(
    c: &dyn AlgoConfig,
    make: &dyn Fn(usize) -> BatchResult,
    seed: u64,
) -> Result<Box<dyn Algorithm>, BuildError> {
    let mut algo = c.build(&Setup {
        spec: &spec_of(make).unwrap(),
        make_env: make,
        seed,
        total_steps: TOTAL,
        cpu: Cpu::new(c.threads(1)).unwrap(),
    })?;
    algo.start().unwrap();
    Ok(algo)
}

fn build(c: &dyn AlgoConfig, task: &Task) -> Box<dyn Algorithm> {
    task.log.lock().unwrap().clear();
    let make = task.make();
    let algo = c.build(&Setup {
        spec: &spec_of(&make).unwrap(),
        make_env: &make,
        seed: 2,
        total_steps: TOTAL,
        cpu: Cpu::new(c.threads(1)).unwrap(),
    });
    let mut algo = algo.unwrap();
    task.log.lock().unwrap().clear();
    algo.start().unwrap();
    algo
}

/// The turns of a recording, and what it says of the run.
fn read(recording: &[u8]) -> (Vec<u8>, String) {
    let (record, note) = tensors::decode(recording).unwrap();
    let Array::U8(turns) = record.get("turns").unwrap() else { panic!() };
    (turns.clone(), note.unwrap())
}

fn write(turns: &[u8], note: &str) -> Vec<u8> {
    let mut record = Record::new();
    record.put("turns", turns.to_vec());
    tensors::seal(&record, note).unwrap()
}

/// A configuration that follows `turns`, with the note that its recordings have.
fn following<C: Equations>(pairs: &[&str], task: &Task, turns: &[u8]) -> C {
    let recorded = build(&config::<C>(&[pairs, &["record=true"]].concat()), task);
    let (_, note) = read(&recorded.recording().unwrap());
    let mut c = config::<C>(&[pairs, &["replay=somewhere"]].concat());
    c.take_file(&write(turns, &note));
    c
}

/// Rounds in which `n` actor-learners copy `θ`, and then change it in one of several orders.
fn rounds(n: u8, rounds: u16) -> Vec<u8> {
    let round = |k: u16| {
        let (n, k) = (n, (k % 100) as u8);
        let copy = (0..n).map(move |i| (i + k) % n);
        let change = (0..n).map(move |i| if k % 2 == 0 { (i + k / 2) % n } else { n - 1 - i });
        copy.chain(change)
    };
    (0..rounds).flat_map(round).collect()
}

/// Follows a known interleaving for `iterations` and recomputes all of it; returns the recomputation and the
/// last report.
fn follows_its_equations<C: Equations>(pairs: &[&str], task: &Task, iterations: usize) -> (Slow, Report) {
    let workers = config::<C>(pairs).learners().workers;
    let turns = rounds(workers as u8, 200);
    let c = following::<C>(pairs, task, &turns);
    let mut algo = build(&c, task);
    let first = wide(&algo.model().theta);
    let mut slow = Slow::new(&c, algo.model(), task.masked);
    let mut report = Report::default();
    for _ in 0..iterations {
        report = algo.iterate().unwrap();
    }
    let (taken, steps) = (algo.save().u64("experience.turns_taken").unwrap() as usize, algo.steps());
    let (theta, seen) =
        (wide(&algo.model().theta), task.log.lock().unwrap().iter().map(Vec::len).sum::<usize>());
    assert_eq!(seen as u64, steps, "the steps of all actor-learners are T");
    // Some more, to see which actions followed.
    algo.iterate().unwrap();
    slow.follow(&c, &turns[..taken], &task.log.lock().unwrap());
    assert_eq!(slow.frames, steps);
    let change = |now: &[f64]| now.iter().zip(&first).map(|(n, b)| n - b).collect::<Vec<_>>();
    let error = relative_difference(&change(&theta), &change(&slow.theta));
    assert!(error < 5e-4, "{pairs:?} on {}: {error:e}", task.action);
    (slow, report)
}

#[test]
fn a3c_follows_algorithm_s3_for_every_action_space() {
    for task in tasks(Some(9)) {
        follows_its_equations::<A3cConfig>(&["trunk=separate"], &task, 5);
        follows_its_equations::<A3cConfig>(&["trunk=shared"], &task, 5);
        let ends: Vec<End> = task.log.lock().unwrap().iter().flatten().map(|s| s.end).collect();
        assert!(ends.contains(&End::Terminated) && ends.contains(&End::Truncated));
    }
}

/// Segments of four steps in episodes of up to nine: a state is carried over one or two ends of segments, and
/// forgotten at the end of the episode. Every actor-learner goes on from what earlier parameters remembered.
#[test]
fn a3c_with_a_memory_follows_algorithm_s3() {
    let all = tasks(Some(9));
    for (task, pairs) in [
        (&all[0], ["recurrent=lstm", "trunk=separate"]),
        (&all[1], ["recurrent=gru", "trunk=separate"]),
        (&all[0], ["recurrent=gru", "trunk=shared"]),
        (&all[5], ["recurrent=lstm", "trunk=shared"]),
    ] {
        follows_its_equations::<A3cConfig>(&[&["recurrent_size=3"], &pairs[..]].concat(), task, 5);
        let log = task.log.lock().unwrap();
        let ends: Vec<End> = log.iter().flatten().map(|s| s.end).collect();
        assert!(ends.contains(&End::Terminated) && ends.contains(&End::Truncated));
    }
}

#[test]
fn the_value_methods_follow_their_boxes() {
    let task = discrete();
    follows_its_equations::<AsyncQConfig>(&[], &task, 5);
    follows_its_equations::<AsyncSarsaConfig>(&[], &task, 5);
    follows_its_equations::<AsyncNstepQConfig>(&[], &task, 5);
    let ends: Vec<End> = task.log.lock().unwrap().iter().flatten().map(|s| s.end).collect();
    assert!(ends.contains(&End::Terminated) && ends.contains(&End::Truncated));
}

#[test]
fn staleness_counts_the_updates_in_between() {
    // Every round is three copies and then three updates: 0, 1 and 2 others came before.
    let (slow, report) = follows_its_equations::<A3cConfig>(&["steps_per_iteration=200"], &discrete(), 1);
    let share =
        |s: u64| slow.staleness.iter().filter(|x| **x == s).count() as f64 / slow.staleness.len() as f64;
    for (bin, s) in [("learn/staleness_0", 0), ("learn/staleness_1", 1), ("learn/staleness_2", 2)] {
        assert_eq!(report.get(bin), Some(share(s)), "{bin}");
        assert!((share(s) - 1.0 / 3.0).abs() < 1e-12);
    }
    assert_eq!(report.get("learn/staleness_max"), Some(2.0));
    assert!((report.get("learn/staleness_mean").unwrap() - 1.0).abs() < 1e-12);
    assert_eq!(report.get("learn/updates"), Some(slow.staleness.len() as f64));
    let norm = slow.grad_norms.iter().sum::<f64>() / slow.grad_norms.len() as f64;
    assert!((report.get("learn/grad_norm").unwrap() / norm - 1.0).abs() < 1e-3);
    // Others wait for nobody: nine updates while one gradient is made.
    let mut turns = vec![0u8];
    turns.extend([1; 18]);
    turns.push(0);
    let c = following::<A3cConfig>(&["workers=2", "steps_per_iteration=1000"], &discrete(), &turns);
    let mut algo = build(&c, &discrete());
    let error = algo.iterate().unwrap_err();
    assert!(
        matches!(&error, AgentError::Worker { cause, .. }
        if matches!(**cause, AgentError::Replay { turn: 20, turns: 20, .. })),
        "{error}"
    );
    assert_eq!(algo.save().u64("experience.updates").unwrap(), 10);
}

#[test]
fn a_recorded_run_is_followed_bit_for_bit() {
    fn check<C: Equations>(pairs: &[&str]) {
        let task = discrete();
        let all = |more: &'static str| [pairs, &["workers=4", "steps_per_iteration=150", more]].concat();
        let mut recorded = build(&config::<C>(&all("record=true")), &task);
        (0..4).for_each(|_| _ = recorded.iterate().unwrap());
        assert_eq!(recorded.reproducible(), Reproducible::ByRecording);
        let bytes = recorded.recording().unwrap();
        let mut c = config::<C>(&all("replay=somewhere"));
        c.take_file(&bytes);
        let mut again = build(&c, &task);
        assert_eq!((again.reproducible(), again.recording()), (Reproducible::Yes, None));
        let report = (0..4).map(|_| again.iterate().unwrap()).last().unwrap();
        assert!(report.get("learn/updates").unwrap() > 30.0);
        let (mut a, mut b) = (recorded.save(), again.save());
        assert_eq!(a.u64("experience.turns_taken"), b.u64("experience.turns_taken"));
        let without = |r: &Record| {
            r.iter()
                .filter(|(name, _)| *name != "experience.turns")
                .map(|(n, x)| (n.to_owned(), x.clone()))
                .collect::<Vec<_>>()
        };
        assert!(without(&a) == without(&b), "parameters, moments, environments, streams");
        // Half of it, saved, loaded and followed to the end: the turns go on where they were.
        let mut half = build(&c, &task);
        (0..2).for_each(|_| _ = half.iterate().unwrap());
        let mut rest = build(&c, &task);
        assert!(!rest.load(&half.save()).unwrap(), "the recorder cannot be saved");
        (a, b) = (half.save(), rest.save());
        assert_eq!(a.u64("experience.turns_taken"), b.u64("experience.turns_taken"));
        assert_eq!(a.get("theta"), b.get("theta"));
    }
    check::<A3cConfig>(&[]);
    check::<A3cConfig>(&["optimizer=rmsprop"]);
    check::<A3cConfig>(&["recurrent=lstm", "recurrent_size=4"]);
    check::<AsyncQConfig>(&[]);
    check::<AsyncSarsaConfig>(&["optimizer=momentum", "momentum=0.9"]);
    check::<AsyncNstepQConfig>(&[]);
}

#[test]
fn a_recording_of_another_run_is_refused() {
    let (task, turns) = (discrete(), rounds(3, 5));
    let make = task.make();
    let good = following::<A3cConfig>(&[], &task, &turns);
    try_build(&good, &make, 2).unwrap();
    let error = try_build(&good, &make, 3).map(drop).unwrap_err().to_string();
    assert!(error.contains("recorded with `seed = 2`") && error.contains("`seed = 3`"), "{error}");
    let mut other = good.clone();
    apply_pair("learning_rate=0.5", "test", &mut other.parts_mut()).unwrap();
    let error = try_build(&other, &make, 2).map(drop).unwrap_err().to_string();
    assert!(error.contains("learning_rate = 0.02") && error.contains("learning_rate = 0.5"), "{error}");
    for (bytes, what) in [(&b"none"[..], "starts with 8 bytes"), (b"nonsense", "claims")] {
        let mut bad = good.clone();
        bad.take_file(bytes);
        let error = bad.check(&spec_of(&make).unwrap()).unwrap_err().to_string();
        assert!(error.contains("replay") && error.contains(what), "{error}");
    }
}

#[test]
fn one_actor_learner_is_reproducible_and_a_recording_changes_nothing() {
    let after = |pairs: &[&str]| {
        let c = config::<A3cConfig>(&[&["workers=1"], pairs].concat());
        let mut algo = build(&c, &discrete());
        while algo.steps() < 120 {
            assert_eq!(algo.iterate().unwrap().get("learn/reproducible"), Some(1.0));
        }
        assert_eq!(algo.reproducible(), Reproducible::Yes);
        algo.model().theta.clone()
    };
    assert_eq!(after(&[]), after(&[]));
    assert_eq!(after(&[]), after(&["record=true"]));
    let two = config::<A3cConfig>(&["workers=2"]);
    let mut algo = build(&two, &discrete());
    assert_eq!(algo.reproducible(), Reproducible::No);
    assert_eq!(algo.iterate().unwrap().get("learn/reproducible"), Some(0.0));
}

#[test]
fn a_team_that_is_too_small_is_refused() {
    let (c, make) = (config::<A3cConfig>(&[]), discrete().make());
    assert_eq!(c.threads(1), 3);
    let setup = Setup {
        spec: &spec_of(&make).unwrap(),
        make_env: &make,
        seed: 1,
        total_steps: 10,
        cpu: Cpu::new(2).unwrap(),
    };
    let error = c.build(&setup).map(|_| ()).unwrap_err();
    assert!(matches!(error, BuildError::Inconsistent { key: "workers", .. }), "{error}");
}

// ---- failures ----

/// Goes wrong in one environment, at one step.
#[derive(Clone)]
struct Broken {
    number: Option<usize>,
    started: std::sync::Arc<std::sync::atomic::AtomicUsize>,
    steps: u32,
    how: How,
}

#[derive(Clone, Copy, PartialEq)]
enum How {
    Panic,
    Reward(f64),
}

impl Env for Broken {
    fn spec(&self) -> EnvSpec {
        EnvSpec {
            id: "Broken".into(),
            observation: BoxSpace::unbounded(1).into(),
            action: Space::Discrete { n: 2 },
            max_episode_steps: Some(7),
            reward_threshold: None,
            masks_actions: false,
        }
    }
    fn reset(&mut self, _: &mut Stream, obs: &mut Obs<'_>) {
        let count = || self.started.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        self.number.get_or_insert_with(count);
        obs.write(&[1.0]);
    }
    fn step(&mut self, _: Action<'_>, _: &mut Stream, obs: &mut Obs<'_>) -> Step {
        self.steps += 1;
        obs.write(&[1.0]);
        let mut reward = 1.0;
        if self.number == Some(1) && self.steps == 24 {
            match self.how {
                How::Panic => panic!("the wheel came off"),
                How::Reward(r) => reward = r,
            }
        }
        Step { reward, end: End::Running }
    }
}

fn breaks<C: Equations>(how: How, pairs: &[&str]) -> (AgentError, Box<dyn Algorithm>) {
    let started = std::sync::Arc::default();
    let broken = Broken { number: None, started, steps: 0, how };
    let make = Each::maker(move || broken.clone());
    // Endless for the others: only a stop ends it. The replay makes all of them take part.
    let with = |more| config::<C>(&[&["steps_per_iteration=1000000", more], pairs].concat());
    let c = with("record=true");
    let setup = Setup {
        spec: &spec_of(&make).unwrap(),
        make_env: &make,
        seed: 2,
        total_steps: TOTAL,
        cpu: Cpu::new(3).unwrap(),
    };
    let note = read(&c.build(&setup).unwrap().recording().unwrap()).1;
    let mut c = with("replay=somewhere");
    c.take_file(&write(&rounds(3, 200), &note));
    let mut algo = c.build(&setup).unwrap();
    algo.start().unwrap();
    (algo.iterate().unwrap_err(), algo)
}

#[test]
fn one_that_fails_stops_all_and_is_named() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let (error, _) = breaks::<A3cConfig>(How::Panic, &[]);
    std::panic::set_hook(hook);
    assert!(error.is_panic() && !error.is_divergence());
    let said = error.to_string();
    // Step 24 of the environment is in its fourth episode of 7.
    assert!(said.contains("actor-learner 1: environment 1, episode 3, step 2"), "{said}");
    assert!(said.contains("the wheel came off"), "{said}");

    let (error, _) = breaks::<AsyncQConfig>(How::Reward(f64::NAN), &[]);
    assert!(
        matches!(&error, AgentError::Worker { worker: 1, cause }
        if matches!(**cause, AgentError::Env(_))),
        "{error}"
    );
    assert!(!error.is_divergence());

    for (error, algo) in [
        breaks::<A3cConfig>(How::Reward(1e30), &[]),
        breaks::<AsyncNstepQConfig>(How::Reward(1e30), &[]),
        // A norm that is not finite cannot be brought down to the longest one.
        breaks::<A3cConfig>(How::Reward(3e38), &["max_grad_norm=0.5"]),
    ] {
        // The gradient is beyond single precision: nothing of it reaches θ.
        assert!(error.is_divergence(), "{error}");
        let said = error.to_string();
        assert!(
            said.starts_with("actor-learner 1: environment step ") && said.contains("the update of `"),
            "{said}"
        );
        let record = algo.save();
        assert!(record.f32s("theta", algo.model().theta.len()).unwrap().iter().all(|x| x.is_finite()));
    }
}

// ---- settings ----

fn discrete() -> Task {
    Task::new(Space::Discrete { n: 4 }, false, Some(9))
}

/// Follows its equations with each of the values.
fn each_value<C: Equations>(key: &str, values: &[&str], others: &[&str]) {
    for value in values {
        let pair = format!("{key}={value}");
        follows_its_equations::<C>(&[others, &[&pair]].concat(), &discrete(), 4);
    }
}

fn model_with<C: Equations>(pairs: &[&str]) -> ActorCritic {
    build(&config::<C>(pairs), &discrete()).model().clone()
}

fn workers_are_environments_and_threads<C: Equations>() {
    each_value::<C>("workers", &["1", "2"], &[]);
    let task = discrete();
    let c = config::<C>(&["workers=5"]);
    drop(build(&c, &task));
    assert_eq!((task.log.lock().unwrap().len(), c.threads(2)), (5, 5));
    assert_ne!(C::default().parts()[0].get("workers"), None);
}

fn steps_per_iteration_is_obeyed<C: Equations>() {
    let after = |n: &str| {
        let c = config::<C>(&["workers=1", &format!("steps_per_iteration={n}")]);
        let mut algo = build(&c, &discrete());
        let mut iterations = 0;
        while algo.steps() < 120 {
            algo.iterate().unwrap();
            iterations += 1;
        }
        (iterations, algo.steps_per_iteration(), algo.model().theta.clone())
    };
    let (many, few) = (after("1"), after("120"));
    assert_eq!((few.0, few.1, many.1), (1, 120, 1));
    assert!(many.0 > 30);
    assert_eq!(many.2, few.2, "one actor-learner learns the same");
}

fn hidden_is_obeyed<C: Equations>() {
    for (value, hidden) in [("", vec![]), ("3", vec![3]), ("5,2", vec![5, 2])] {
        let pair = format!("hidden={value}");
        assert_eq!(model_with::<C>(&[&pair]).shape().hidden, hidden);
        follows_its_equations::<C>(&[&pair], &discrete(), 2);
    }
}

fn activation_is_obeyed<C: Equations>() {
    for (pair, activation) in [("activation=tanh", Activation::Tanh), ("activation=relu", Activation::Relu)] {
        assert_eq!(model_with::<C>(&[pair]).shape().activation, activation);
    }
}

fn orthogonal_init_is_obeyed<C: Equations>() {
    let dot = |pair| {
        let model = model_with::<C>(&[pair, "hidden=3"]);
        let view = model.views().into_iter().find(|v| v.name == "actor.hidden.0.weight").unwrap();
        let w = wide(&model.theta[view.range]);
        (0..OBS).map(|i| w[i] * w[OBS + i]).sum::<f64>()
    };
    assert!(dot("orthogonal_init=true").abs() < 1e-6);
    assert!(dot("orthogonal_init=false").abs() > 1e-3);
}

fn record_and_replay_are_obeyed<C: Equations>() {
    assert!(build(&config::<C>(&["record=true"]), &discrete()).recording().is_some());
    assert!(build(&config::<C>(&[]), &discrete()).recording().is_none());
    let c = config::<C>(&["replay=a/file"]);
    assert_eq!(c.file(), Some(("replay", "a/file")));
    let error = c.check(&spec_of(&discrete().make()).unwrap()).unwrap_err();
    assert!(matches!(error, BuildError::Inconsistent { key: "replay", .. }), "{error}");
    assert_eq!(config::<C>(&[]).file(), None);
}

/// ε of an actor-learner whose run stands at the beginning, by its seed.
fn epsilons<C: Equations>(pairs: &[&str], seeds: u64) -> Vec<f64> {
    let make = discrete().make();
    let c = config::<C>(&[&["workers=1", "steps_per_iteration=1", "n_steps=1"], pairs].concat());
    let first = |seed| try_build(&c, &make, seed).unwrap().iterate().unwrap().get("learn/epsilon").unwrap();
    (0..seeds).map(first).collect()
}

fn epsilon_is_drawn<C: Equations>() {
    let pairs = ["epsilon_1=0.1", "epsilon_2=0.01", "epsilon_3=0.5", "epsilon_1_probability=0.4"];
    for (second, third) in [("0.3", 0.3), ("0.1", 0.5)] {
        let pair = format!("epsilon_2_probability={second}");
        let found = epsilons::<C>(&[&pairs[..], &[&pair]].concat(), 1000);
        let share = |e: f64| found.iter().filter(|x| (**x - e).abs() < 1e-6).count() as f64 / 1000.0;
        let expected = [0.4, second.parse().unwrap(), third];
        for (got, p) in [0.1, 0.01, 0.5].map(share).into_iter().zip(expected) {
            assert!((got - p).abs() < 4.0 * (p * (1.0 - p) / 1000.0).sqrt(), "{got}, expected {p}");
        }
    }
    let wrong = config::<C>(&["epsilon_1_probability=0.8"]);
    let error = wrong.check(&spec_of(&discrete().make()).unwrap()).unwrap_err();
    assert!(matches!(error, BuildError::Inconsistent { key: "epsilon_2_probability", .. }), "{error}");
}

fn epsilon_draw_is_obeyed<C: Equations>() {
    let values = |draw: &str| {
        let pairs =
            [draw, "workers=1", "steps_per_iteration=1", "n_steps=1", "epsilon_1=0.1", "epsilon_2=0.7"];
        let mut algo = build(&config::<C>(&pairs), &discrete());
        let mut found: Vec<u64> = (0..300)
            .map(|_| (algo.iterate().unwrap().get("learn/epsilon").unwrap() * 100.0).round() as u64)
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    };
    assert_eq!(values("epsilon_draw=episode"), [10, 30, 70]);
    assert_eq!(values("epsilon_draw=once").len(), 1);
}

fn epsilon_is_annealed<C: Equations>() {
    let pairs = ["workers=1", "steps_per_iteration=1", "epsilon_steps=100", "epsilon_1=0.2", "epsilon_2=0.2"];
    let c = config::<C>(&[&pairs[..], &["epsilon_3=0.2"]].concat());
    let mut algo = build(&c, &discrete());
    while algo.steps() < 150 {
        let frames = algo.steps();
        let got = algo.iterate().unwrap().get("learn/epsilon").unwrap();
        let expected = 1.0 - 0.8 * (frames as f64 / 100.0).min(1.0);
        assert!((got - expected).abs() < 1e-6, "{got}, expected {expected}");
    }
}

/// ε is the part of the actions that is drawn uniformly; the rest is greedy.
fn actions_are_epsilon_greedy<C: Equations>() {
    for epsilon in ["0", "0.4", "1"] {
        let [a, b, d] = [1, 2, 3].map(|i| format!("epsilon_{i}={epsilon}"));
        // θ stays where it is.
        let pairs = ["workers=1", "learning_rate=1e-12", "steps_per_iteration=4000", &a, &b, &d];
        let task = discrete();
        let c = config::<C>(&pairs);
        let mut algo = build(&c, &task);
        algo.iterate().unwrap();
        let slow = Slow::new(&c, algo.model(), false);
        let log = task.log.lock().unwrap();
        let greedy = log[0].iter().filter(|s| {
            let q = slow.q(&slow.theta, &s.obs);
            q[s.index[0] as usize] == largest(&q)
        });
        let (got, e) = (greedy.count() as f64 / log[0].len() as f64, epsilon.parse::<f64>().unwrap());
        assert!((got - (1.0 - 0.75 * e)).abs() < 0.03, "{got} with {epsilon}");
    }
}

/// A test for each setting of a method, called like it, and the list of them.
macro_rules! settings_that_are_tested {
    ($method:ident: $config:ty { $($key:ident => $body:block)* }) => {
        mod $method {
            use super::*;
            type Config = $config;
            $(#[test] fn $key() $body)*
            #[test] fn workers() { workers_are_environments_and_threads::<Config>(); }
            #[test] fn n_steps() { each_value::<Config>("n_steps", &["1", "7"], &[]); }
            #[test] fn gamma() { each_value::<Config>("gamma", &["0", "1"], &[]); }
            #[test] fn bootstrap_time_limit() { each_value::<Config>("bootstrap_time_limit", &["true", "false"], &[]); }
            #[test] fn steps_per_iteration() { steps_per_iteration_is_obeyed::<Config>(); }
            #[test] fn optimizer() { each_value::<Config>("optimizer", &["shared-rmsprop", "rmsprop", "momentum"], &[]); }
            #[test] fn learning_rate() { each_value::<Config>("learning_rate", &["0.05", "0.001"], &[]); }
            #[test] fn learning_rate_schedule() {
                each_value::<Config>("learning_rate_schedule", &["constant", "linear"], &[]);
            }
            #[test] fn rmsprop_decay() { each_value::<Config>("rmsprop_decay", &["0", "0.5"], &["rmsprop_epsilon=0.1"]); }
            #[test] fn rmsprop_epsilon() { each_value::<Config>("rmsprop_epsilon", &["1", "0.01"], &[]); }
            #[test] fn momentum() { each_value::<Config>("momentum", &["0", "0.9"], &["optimizer=momentum"]); }
            #[test] fn max_grad_norm() { each_value::<Config>("max_grad_norm", &["none", "0.5"], &[]); }
            #[test] fn record() { record_and_replay_are_obeyed::<Config>(); }
            #[test] fn replay() { record_and_replay_are_obeyed::<Config>(); }
            #[test] fn hidden() { hidden_is_obeyed::<Config>(); }
            #[test] fn activation() { activation_is_obeyed::<Config>(); }
            #[test] fn orthogonal_init() { orthogonal_init_is_obeyed::<Config>(); }

            #[test]
            fn no_setting_is_without_a_test() {
                let config = Config::default();
                let mut declared: Vec<&str> =
                    config.parts().iter().flat_map(|p| p.declarations().iter().map(|s| s.key)).collect();
                declared.sort_unstable();
                let mut tested = vec![
                    "workers", "n_steps", "gamma", "bootstrap_time_limit", "steps_per_iteration", "optimizer",
                    "learning_rate", "learning_rate_schedule", "rmsprop_decay", "rmsprop_epsilon", "momentum",
                    "max_grad_norm", "record", "replay", "hidden", "activation", "orthogonal_init",
                    $(stringify!($key)),*
                ];
                tested.sort_unstable();
                assert_eq!(tested[..], declared);
            }
        }
    };
}

settings_that_are_tested! { a3c: A3cConfig {
    entropy_coef => { each_value::<Config>("entropy_coef", &["0", "0.3"], &[]); }
    value_coef => { each_value::<Config>("value_coef", &["0", "1"], &["trunk=shared"]); }
    trunk => { each_value::<Config>("trunk", &["separate", "shared"], &[]); }
    recurrent => {
        for (value, first) in [("none", "hidden.0.weight"), ("lstm", "lstm.input.weight"), ("gru", "gru.input.weight")] {
            let views = model_with::<Config>(&[&format!("recurrent={value}")]).views();
            for owner in ["actor", "critic"] {
                let name = format!("{owner}.{first}");
                assert_eq!(views.iter().find(|v| v.name.starts_with(owner)).unwrap().name, name);
            }
        }
        each_value::<Config>("recurrent", &["lstm", "gru"], &["recurrent_size=2"]);
        let mut c = Config::default();
        let error = apply_pair("sequence_length=4", "test", &mut c.parts_mut()).unwrap_err().to_string();
        assert!(error.contains("`sequence_length`"), "a segment is the sequence: {error}");
    }
    recurrent_size => {
        for size in [2, 5] {
            let model = model_with::<Config>(&["recurrent=lstm", &format!("recurrent_size={size}")]);
            let shape = |name: &str| model.views().into_iter().find(|v| v.name == name).unwrap().shape;
            assert_eq!(shape("actor.lstm.recurrent.weight"), [4 * size, size]);
            assert_eq!(shape("critic.hidden.0.weight"), [4, size]);
        }
    }
    memory_span => {
        let kept = |pairs: &[&str]| {
            let model = model_with::<Config>(&[&["recurrent=lstm", "recurrent_size=50"], pairs].concat());
            let view = model.views().into_iter().find(|v| v.name == "actor.lstm.bias").unwrap();
            model.theta[view.range][50..100].iter().fold(0.0f64, |m, b| m.max(f64::from(*b).exp()))
        };
        assert!(kept(&[]) < 3.0, "{}", kept(&[]));
        assert!((80.0..=99.0).contains(&kept(&["memory_span=100"])), "{}", kept(&["memory_span=100"]));
    }
    rescale_actions => {
        let space = Space::Box(BoxSpace::new(vec![0.0, -1.0, 0.0], vec![255.0, 1.0, f32::INFINITY]));
        let task = Task::new(space, false, Some(9));
        let numbers = |how: &str| build(&config::<Config>(&[how]), &task).model().rescaled().to_vec();
        assert_eq!(numbers("rescale_actions=far"), [true, false, false]);
        assert_eq!(numbers("rescale_actions=all"), [true, true, false]);
        assert_eq!(numbers("rescale_actions=none"), [false; 0]);
    }
    log_std_init => {
        let task = Task::new(Space::Box(BoxSpace::unbounded(2)), false, Some(9));
        let model = build(&config::<Config>(&["log_std_init=-1.5"]), &task).model().clone();
        let view = model.views().into_iter().find(|v| v.name == "actor.log_std").unwrap();
        assert_eq!(model.theta[view.range], [-1.5, -1.5]);
    }
}}

macro_rules! settings_of_values {
    ($($method:ident: $config:ty;)*) => {$(
        settings_that_are_tested! { $method: $config {
            epsilon_1 => { actions_are_epsilon_greedy::<Config>(); }
            epsilon_2 => { epsilon_is_drawn::<Config>(); }
            epsilon_3 => { epsilon_is_drawn::<Config>(); }
            epsilon_1_probability => { epsilon_is_drawn::<Config>(); }
            epsilon_2_probability => { epsilon_is_drawn::<Config>(); }
            epsilon_draw => { epsilon_draw_is_obeyed::<Config>(); }
            epsilon_steps => { epsilon_is_annealed::<Config>(); }
            target_steps => { each_value::<Config>("target_steps", &["1", "10", "1000"], &[]); }
        }}
    )*};
}

settings_of_values! {
    async_q: AsyncQConfig;
    async_sarsa: AsyncSarsaConfig;
    async_nstep_q: AsyncNstepQConfig;
}

#[test]
fn action_values_are_of_alternatives_that_are_always_there() {
    let numbers = Task::new(Space::Box(BoxSpace::unbounded(2)), false, None);
    let error =
        config::<AsyncQConfig>(&[]).check(&spec_of(&numbers.make()).unwrap()).unwrap_err().to_string();
    assert!(error.contains("`Discrete` action space"), "{error}");
    let masked = spec_of(&Each::maker(MaskedAction::default)).unwrap();
    let error = config::<AsyncSarsaConfig>(&[]).check(&masked).unwrap_err().to_string();
    assert!(error.contains("allowed"), "{error}");
}
