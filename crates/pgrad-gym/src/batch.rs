//! A batch of Gymnasium's environments in some worker processes.
//!
//! Every episode has a seed of its own, drawn from the environment's stream when it begins. So an episode
//! depends on nothing but that seed and the actions: not on the process that runs it, nor on what was before.
//! The seed of the next episode is known beforehand (nothing else draws from the stream), and where an
//! episode ends its worker begins the next one at once: the reset that follows finds it done.
//!
//! An EnvPool is one process that steps all environments in one call. Its environments have seeds of their
//! own for as long as the process lives, two for each of ours (`worker.py` says why), and go on with their
//! own numbers from episode to episode. So an episode depends on those seeds and on the actions in that
//! environment, but on no other one.

mod observations;

use crate::context::Context;
use crate::layout::{
    BAD, NOTHING, PENDING, RAISED, REBUILD, RESET, RUNNING, STEP, TERMINATED, TRUNCATED, Trouble,
};
use crate::monitor::{Monitor, Verdict};
use crate::name::Source;
use crate::process::{Death, StartError, Starting, Worker, indented};
use crate::recipe::PoolPlan;
use pgrad_env::{Actions, BatchEnv, End, EnvSpec, Picture, PictureError};
use pgrad_num::{ColsMut, Stream};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Where an environment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In an episode, or before its first reset.
    Good,
    /// It failed and must be made anew.
    Broken,
    /// It was in an episode when its process went; the next step tells.
    Gone,
    /// The run goes on without it.
    Dropped,
}

/// Some environments in one process.
struct Group {
    range: Range<usize>,
    worker: Option<Worker>,
}

/// Environments stepped together.
pub(crate) struct GymBatch {
    context: Arc<Context>,
    spec: EnvSpec,
    groups: Vec<Group>,
    /// Number of the first environment in the run.
    first: usize,
    state: Vec<State>,
    /// Seeds of the next episodes.
    next_seed: Vec<i64>,
    /// Environments whose next episode was begun by their worker, with that seed.
    begun: Vec<bool>,
    /// `[len x dim]`, a row each.
    obs: Vec<f32>,
    begun_obs: Vec<f32>,
    /// `[len x mask_dim]`, a byte each, 0 for what is forbidden; empty without masks.
    masks: Vec<u8>,
    begun_masks: Vec<u8>,
    episode: Vec<u64>,
    step: Vec<u32>,
    /// A row of bytes, and a worker's bytes.
    row: Vec<u8>,
    rows: Vec<u8>,
    action_bytes: Vec<u8>,
    status: Vec<u8>,
    first_status: Vec<u8>,
    todo: Vec<u8>,
    fault: Option<(usize, String)>,
    /// Pools that were started, and what the seeds of the next one come from: the environments' streams.
    pools: i64,
    pool_base: Vec<i64>,
}

/// What failed in the reset that followed an episode's end is no fault of the step that ended it.
const AFTERWARDS: &str = "in the reset that followed: ";

/// The seed of an episode. 31 bits: every generator takes that.
fn draw_seed(rng: &mut Stream) -> i64 {
    i64::from(rng.bits32() >> 1)
}

impl GymBatch {
    pub(crate) fn new(context: Arc<Context>, n: usize) -> Self {
        context.batches.fetch_add(1, Ordering::Relaxed);
        let dim = context.spec.observation.obs_dim();
        let bytes: usize = context.spaces.observation_bytes().sum();
        Self {
            spec: context.spec.clone(),
            groups: Vec::new(),
            first: 0,
            state: vec![State::Good; n],
            next_seed: vec![-1; n],
            begun: vec![false; n],
            obs: vec![0.0; n * dim],
            begun_obs: vec![0.0; n * dim],
            masks: vec![1; n * context.spaces.mask_dim()],
            begun_masks: vec![1; n * context.spaces.mask_dim()],
            episode: vec![0; n],
            step: vec![0; n],
            row: vec![0; bytes],
            rows: Vec::new(),
            action_bytes: vec![0; context.spaces.action_bytes()],
            status: Vec::new(),
            first_status: Vec::new(),
            todo: vec![NOTHING; n],
            fault: None,
            pools: 0,
            pool_base: vec![0; n],
            context,
        }
    }
    /// Shares the environments out to processes, the first time that any is needed: all batches of the run
    /// are there then.
    fn divide(&mut self) {
        if self.groups.is_empty() {
            let n = self.len();
            let workers = self.context.workers(n);
            let range = |w: usize| w * n / workers..(w + 1) * n / workers;
            self.groups = (0..workers).map(|w| Group { range: range(w), worker: None }).collect();
        }
    }
    fn monitor(&self) -> &Monitor {
        &self.context.monitor
    }
    fn group_of(&self, b: usize) -> usize {
        self.groups.partition_point(|g| g.range.end <= b)
    }
    fn place(&self, b: usize) -> String {
        format!("episode {}, step {}", self.episode[b], self.step[b])
    }
    fn next_place(&self, b: usize) -> String {
        format!("episode {}, step 0", self.episode[b] + 1)
    }
    fn refuse(&mut self, b: usize, text: String) {
        self.fault.get_or_insert((b, text));
    }
    /// Environment `b` failed; what is to be done about it. A fault is remembered, and dropping done.
    fn failed(&mut self, b: usize, reason: &str) -> Option<Duration> {
        let place = self.place(b);
        self.failed_at(b, &place, "", reason)
    }
    /// The same in the reset that followed an episode's end, in the same step.
    fn failed_next(&mut self, b: usize, reason: &str) -> Option<Duration> {
        let place = self.next_place(b);
        self.failed_at(b, &place, AFTERWARDS, reason)
    }
    /// The words `when` go before what ends the run: it is told with the place of the step.
    fn failed_at(&mut self, b: usize, place: &str, when: &str, reason: &str) -> Option<Duration> {
        match self.monitor().failed(self.first + b, place, self.episode[b], reason) {
            Verdict::Restart(wait) => Some(wait),
            Verdict::Drop => {
                self.state[b] = State::Dropped;
                if self.state.iter().all(|s| *s == State::Dropped) {
                    self.refuse(b, format!("{when}{reason}\n  no environment is left"));
                }
                None
            }
            Verdict::Stop(text) => {
                self.state[b] = State::Broken;
                self.refuse(b, format!("{when}{text}"));
                None
            }
        }
    }
    /// What a pool is told, if these are pools: two seeds for each environment, other ones for each pool.
    fn pool_plan(&mut self) -> Option<PoolPlan> {
        if self.context.recipe.source != Source::EnvPool {
            return None;
        }
        let (n, pools) = (self.len(), self.pools);
        self.pools += 1;
        // An odd factor: as many seeds as there are, before one comes again.
        let seed = |i: usize| self.pool_base[i % n] + (2 * pools + (i / n) as i64) * 0x9e37_79b1;
        let seeds = (0..2 * n).map(|i| seed(i) & 0x7fff_ffff).collect();
        Some(self.context.pool_plan(seeds))
    }
    /// Starts the processes that are not there, all at once. Those that cannot be started are told with the
    /// first environment of theirs.
    fn start_workers(&mut self, groups: Range<usize>) -> Vec<(usize, StartError)> {
        let mut failed = Vec::new();
        let mut starting: Vec<(usize, Starting)> = Vec::new();
        for g in groups {
            if self.groups[g].worker.is_none() {
                let pool = self.pool_plan();
                match Starting::new(&self.context.recipe, self.groups[g].range.len(), pool) {
                    Ok(s) => starting.push((g, s)),
                    Err(e) => failed.push((g, e)),
                }
            }
        }
        for (g, s) in starting {
            match s.finish() {
                Ok((worker, _)) if worker.spaces != self.context.spaces => {
                    let b = self.groups[g].range.start;
                    self.refuse(b, "its spaces have changed since it was first made".to_owned());
                }
                Ok((worker, _)) => self.groups[g].worker = Some(worker),
                Err(e) => failed.push((g, e)),
            }
        }
        failed
    }
    /// Lets the workers of some groups do what `todo` says, and waits. What went wrong in environments
    /// (numbered in the batch), and which groups lost their process, which of their environments had not
    /// answered.
    fn work(&mut self, groups: Range<usize>) -> (Vec<Trouble>, Vec<(usize, Death)>) {
        for group in &mut self.groups[groups.clone()] {
            let todo = &self.todo[group.range.clone()];
            let Some(worker) = &mut group.worker else { continue };
            if todo.iter().all(|t| *t == NOTHING) {
                continue;
            }
            worker.shared.write(worker.layout.todo, todo);
            self.status.clear();
            self.status.extend(todo.iter().map(|t| if *t == NOTHING { RUNNING } else { PENDING }));
            worker.shared.write(worker.layout.status, &self.status);
            // Only where an episode ends does a worker write it.
            self.status.fill(PENDING);
            worker.shared.write(worker.layout.first_status, &self.status);
            worker.ring();
        }
        let deadline = self.context.recipe.step();
        let (mut troubles, mut deaths) = (Vec::new(), Vec::new());
        for g in groups {
            let group = &mut self.groups[g];
            let Some(worker) = &mut group.worker else { continue };
            if self.todo[group.range.clone()].iter().all(|t| *t == NOTHING) {
                continue;
            }
            match worker.wait(deadline) {
                Ok(found) => {
                    troubles
                        .extend(found.into_iter().map(|t| Trouble { env: t.env + group.range.start, ..t }));
                }
                Err(death) => deaths.push((g, death)),
            }
        }
        (troubles, deaths)
    }
    /// How the environments of a group answered.
    fn read_status(&mut self, g: usize) {
        let Some(worker) = &self.groups[g].worker else { return };
        let n = worker.layout.n;
        self.status.resize(n, 0);
        self.first_status.resize(n, 0);
        worker.shared.read(worker.layout.status, &mut self.status);
        worker.shared.read(worker.layout.first_status, &mut self.first_status);
    }
    /// The episode of environment `b` is lost: it does not count as finished, and nothing of it as ended.
    fn lose(&mut self, b: usize) {
        self.monitor().lost();
        if self.state[b] != State::Dropped {
            self.state[b] = State::Broken;
        }
        self.begun[b] = false;
    }
    /// The process of group `g` is gone. `during` says what it was asked for. All environments of it that
    /// were in an episode, or had not answered, have lost it.
    fn bury(&mut self, g: usize, death: &Death, during: &str) -> Vec<usize> {
        self.read_status(g);
        let range = self.groups[g].range.clone();
        let pid = self.groups[g].worker.as_ref().map_or(0, Worker::pid);
        let asked = |b: usize| self.todo[b] != NOTHING && self.state[b] != State::Dropped;
        // They are gone through in order: the first that has not answered, or whose next episode has not
        // begun.
        let next = |b: usize| {
            self.todo[b] == STEP
                && matches!(self.status[b - range.start], TERMINATED | TRUNCATED)
                && self.first_status[b - range.start] == PENDING
        };
        let culprit = match self.context.recipe.source {
            Source::Gymnasium => {
                range.clone().find(|b| asked(*b) && (self.status[b - range.start] == PENDING || next(*b)))
            }
            // All at once.
            Source::EnvPool => None,
        };
        let in_next = culprit.is_some_and(next);
        let during = if in_next { "reset" } else { during };
        let others = range.clone().find(|b| self.state[*b] != State::Dropped);
        let (begin, end) = (self.first + range.start, self.first + range.end - 1);
        let reason = match culprit {
            Some(_) => format!("its process ({pid}) {death} (during a {during})"),
            None => format!("the process ({pid}) of environments {begin} to {end} {death}"),
        };
        self.groups[g].worker = None;
        if let Some(b) = culprit.or(others) {
            if in_next {
                self.failed_next(b, &reason);
            } else {
                self.failed(b, &reason);
            }
            let rest = range.clone().filter(|other| *other != b && self.state[*other] == State::Good).count();
            if rest > 0 {
                self.monitor()
                    .tell(format!("  {rest} other environments of that process lost their episodes with it"));
            }
        }
        range.collect()
    }
    /// Begins an episode in environment `b`, however often it takes. What is learnt from waits for it.
    fn begin(&mut self, b: usize, rng: &mut Stream, mut seed: i64) {
        let g = self.group_of(b);
        let mut wait = Duration::ZERO;
        loop {
            if self.state[b] == State::Dropped || self.fault.is_some() {
                return;
            }
            if !wait.is_zero() {
                std::thread::sleep(wait);
            }
            if self.groups[g].worker.is_none() {
                // The others of the process learn of it when they are stepped.
                for other in self.groups[g].range.clone() {
                    if self.state[other] == State::Good && self.next_seed[other] >= 0 && other != b {
                        self.state[other] = State::Gone;
                    }
                }
                if let Some((_, e)) = self.start_workers(g..g + 1).pop() {
                    match self.failed(b, &self.context.explain(&e).to_string()) {
                        Some(longer) => wait = longer,
                        None => return,
                    }
                    seed = draw_seed(rng);
                    continue;
                }
                if self.fault.is_some() {
                    return;
                }
                if self.state[b] == State::Broken {
                    self.state[b] = State::Good;
                }
            }
            self.todo.fill(NOTHING);
            self.todo[b] = if self.state[b] == State::Broken { REBUILD } else { RESET };
            self.send_seeds(b, seed);
            let (troubles, deaths) = self.work(g..g + 1);
            let failed = if let Some((_, death)) = deaths.into_iter().next() {
                for other in self.bury(g, &death, "reset") {
                    if other != b && self.state[other] == State::Good {
                        self.state[other] = State::Gone;
                    }
                }
                if self.state[b] != State::Dropped {
                    self.state[b] = State::Broken;
                }
                wait = Duration::ZERO;
                true
            } else {
                self.read_status(g);
                self.heed(b, &troubles, &mut wait)
            };
            if !failed {
                self.state[b] = State::Good;
                self.read_obs(b, false);
                return;
            }
            seed = draw_seed(rng);
        }
    }
    /// Whether environment `b` failed in what it was asked, with what is to be done about it.
    fn heed(&mut self, b: usize, troubles: &[Trouble], wait: &mut Duration) -> bool {
        let status = self.status[b - self.groups[self.group_of(b)].range.start];
        for t in troubles.iter().filter(|t| t.env == b && t.during == "close") {
            let number = self.first + b;
            self.monitor().tell(format!("environment {number}: closing it raised\n{}", indented(&t.text)));
        }
        let found = troubles.iter().find(|t| t.env == b && t.during != "close");
        match (status, found) {
            (RUNNING, _) => false,
            (BAD, Some(t)) => {
                self.refuse(b, t.text.clone());
                true
            }
            (_, t) => {
                let (during, text) = t.map_or(("reset", ""), |t| (&t.during, &t.text));
                self.state[b] = State::Broken;
                *wait = self.failed(b, &raised(during, text)).unwrap_or_default();
                true
            }
        }
    }
    /// Writes the seed of the reset that comes, for environment `b`.
    fn send_seeds(&mut self, b: usize, seed: i64) {
        let g = self.group_of(b);
        let i = b - self.groups[g].range.start;
        if let Some(worker) = &self.groups[g].worker {
            worker.shared.write(worker.layout.seeds + 8 * i, &[seed]);
        }
    }
    /// What follows every beginning of an episode: the seed of the next one is known.
    fn after_begin(&mut self, b: usize, rng: &Stream) {
        self.step[b] = 0;
        self.begun[b] = false;
        self.next_seed[b] = draw_seed(&mut rng.clone());
        self.pool_base[b] = self.next_seed[b];
        self.send_seeds(b, self.next_seed[b]);
    }
    fn write_actions(&mut self, actions: Actions<'_>) {
        for group in &self.groups {
            let Some(worker) = &group.worker else { continue };
            for b in group.range.clone().filter(|b| self.todo[*b] == STEP) {
                self.context.spaces.encode(actions, b, &mut self.action_bytes);
                let at = worker.layout.actions + (b - group.range.start) * self.action_bytes.len();
                worker.shared.write(at, &self.action_bytes);
            }
        }
    }
    /// How the step of group `g` came out.
    fn settle(&mut self, g: usize, troubles: &[Trouble], rewards: &mut [f64], ends: &mut [End]) {
        self.read_status(g);
        let range = self.groups[g].range.clone();
        if let Some(worker) = &self.groups[g].worker {
            worker.shared.read(worker.layout.rewards, &mut rewards[range.clone()]);
        }
        let whole = self.context.spaces.observation_bytes().count() == 1;
        if whole {
            self.read_group(g);
        }
        for (i, b) in range.enumerate() {
            if self.todo[b] != STEP {
                rewards[b] = 0.0;
                continue;
            }
            let found = || troubles.iter().find(|t| t.env == b && t.during == "step");
            match self.status[i] {
                RUNNING | TERMINATED | TRUNCATED => {
                    if !whole {
                        self.read_obs(b, false);
                    }
                }
                BAD => {
                    let text = found().map_or_else(String::new, |t| t.text.clone());
                    self.refuse(b, text);
                    continue;
                }
                _ => {
                    let text = found().map_or_else(String::new, |t| t.text.clone());
                    self.failed(b, &raised("step", &text));
                    self.lose(b);
                    (rewards[b], ends[b]) = (0.0, End::Lost);
                    continue;
                }
            }
            if self.status[i] == RUNNING {
                continue;
            }
            ends[b] = if self.status[i] == TERMINATED { End::Terminated } else { End::Truncated };
            match self.first_status[i] {
                RUNNING => {
                    self.begun[b] = true;
                    self.read_obs(b, true);
                }
                BAD => {
                    let text = troubles.iter().find(|t| t.env == b && t.during == "reset");
                    let text = text.map_or_else(String::new, |t| t.text.clone());
                    self.refuse(b, format!("{AFTERWARDS}{text}"));
                }
                RAISED => {
                    let text = troubles.iter().find(|t| t.env == b && t.during == "reset");
                    let text = text.map_or_else(String::new, |t| t.text.clone());
                    self.state[b] = State::Broken;
                    self.failed_next(b, &raised("reset", &text));
                }
                _ => {}
            }
        }
    }
    /// What is left of a step whose process went.
    fn settle_death(&mut self, g: usize, death: &Death, rewards: &mut [f64], ends: &mut [End]) {
        self.read_status(g);
        let (status, range) = (self.status.clone(), self.groups[g].range.clone());
        // What had ended before is whole, its final observation too.
        let done: Vec<bool> =
            range.clone().map(|b| self.todo[b] == STEP && matches!(status[b - range.start], 1 | 2)).collect();
        if let Some(worker) = &self.groups[g].worker {
            let mut all = vec![0.0; range.len()];
            worker.shared.read(worker.layout.rewards, &mut all);
            for b in range.clone().filter(|b| done[b - range.start]) {
                rewards[b] = all[b - range.start];
            }
        }
        for b in range.clone().filter(|b| done[b - range.start]) {
            self.read_obs(b, false);
            ends[b] = if status[b - range.start] == TERMINATED { End::Terminated } else { End::Truncated };
        }
        self.bury(g, death, "step");
        for b in range.clone() {
            if done[b - range.start] {
                self.begun[b] = false;
                if self.state[b] != State::Dropped {
                    self.state[b] = State::Broken;
                }
            } else {
                if self.todo[b] == STEP {
                    self.lose(b);
                }
                (rewards[b], ends[b]) = (0.0, End::Lost);
            }
        }
    }
}

/// `raised in its step`, with the traceback.
fn raised(during: &str, text: &str) -> String {
    format!("it raised during {during}\n{}", indented(text))
}

impl BatchEnv for GymBatch {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }
    fn len(&self) -> usize {
        self.state.len()
    }
    fn numbered(&mut self, first: usize) {
        self.first = first;
    }
    fn is_dropped(&self, b: usize) -> bool {
        self.state[b] == State::Dropped
    }
    fn fault(&mut self) -> Option<(usize, String)> {
        self.fault.take()
    }
    fn reset(&mut self, b: usize, rng: &mut Stream) {
        self.divide();
        let mut seed = draw_seed(rng);
        if self.state[b] == State::Broken {
            // It may have been that seed's fault.
            seed = draw_seed(rng);
        }
        if self.next_seed[b] >= 0 {
            self.episode[b] += 1;
        }
        if self.begun[b] && seed == self.next_seed[b] {
            self.take_begun(b);
            self.monitor().finished(self.first + b);
        } else {
            self.step[b] = 0;
            self.begin(b, rng, seed);
        }
        self.after_begin(b, rng);
    }
    fn reset_all(&mut self, rngs: &mut [Stream]) {
        self.divide();
        let seeds: Vec<i64> = rngs.iter_mut().map(draw_seed).collect();
        self.pool_base.copy_from_slice(&seeds);
        // Processes start, and environments reset, side by side; what fails is gone through one by one.
        let failed = self.start_workers(0..self.groups.len());
        if let Some((g, e)) = failed.into_iter().next() {
            let b = self.groups[g].range.start;
            let reason = self.context.explain(&e).to_string();
            if self.failed(b, &reason).is_none() && self.fault.is_some() {
                return;
            }
        }
        for b in 0..self.len() {
            let there = self.groups[self.group_of(b)].worker.is_some();
            self.todo[b] = match self.state[b] {
                State::Dropped => NOTHING,
                _ if !there => NOTHING,
                State::Broken => REBUILD,
                _ => RESET,
            };
            self.send_seeds(b, seeds[b]);
        }
        let todo = self.todo.clone();
        let (troubles, deaths) = self.work(0..self.groups.len());
        let mut again = vec![false; self.len()];
        for g in 0..self.groups.len() {
            if let Some((_, death)) = deaths.iter().find(|(dead, _)| *dead == g) {
                for b in self.bury(g, death, "reset") {
                    again[b] = true;
                    if self.state[b] != State::Dropped {
                        self.state[b] = State::Broken;
                    }
                }
                continue;
            }
            self.read_status(g);
            for b in self.groups[g].range.clone() {
                let mut wait = Duration::ZERO;
                again[b] = todo[b] == NOTHING || self.heed(b, &troubles, &mut wait);
                if !again[b] {
                    self.state[b] = State::Good;
                    self.read_obs(b, false);
                }
                self.read_status(g);
            }
        }
        for b in 0..self.len() {
            if self.next_seed[b] >= 0 {
                self.episode[b] += 1;
            }
            self.step[b] = 0;
            if again[b] {
                let seed = draw_seed(&mut rngs[b]);
                self.begin(b, &mut rngs[b], seed);
            }
            self.after_begin(b, &rngs[b]);
        }
    }
    fn step(&mut self, actions: Actions<'_>, _: &mut [Stream], rewards: &mut [f64], ends: &mut [End]) {
        rewards.fill(0.0);
        ends.fill(End::Running);
        for b in 0..self.len() {
            self.todo[b] = NOTHING;
            match self.state[b] {
                State::Good => {
                    self.todo[b] = STEP;
                    self.step[b] += 1;
                }
                State::Gone => {
                    self.lose(b);
                    ends[b] = End::Lost;
                    // Its process is there again, with an environment that was never reset.
                    self.state[b] = State::Good;
                }
                State::Broken | State::Dropped => ends[b] = End::Lost,
            }
        }
        self.write_actions(actions);
        let (troubles, deaths) = self.work(0..self.groups.len());
        for g in 0..self.groups.len() {
            match deaths.iter().find(|(dead, _)| *dead == g) {
                Some((_, death)) => self.settle_death(g, death, rewards, ends),
                None => self.settle(g, &troubles, rewards, ends),
            }
        }
    }
    fn observe(&self, mut obs: ColsMut<'_, f32>) {
        let dim = obs.rows();
        for b in 0..self.len() {
            for i in 0..dim {
                obs.set(i, b, self.obs[b * dim + i]);
            }
        }
    }
    fn observe_one(&self, b: usize, obs: &mut [f32]) {
        let dim = obs.len();
        obs.copy_from_slice(&self.obs[b * dim..(b + 1) * dim]);
    }
    fn action_mask(&self, b: usize, mask: &mut [bool]) {
        // Without masks there are no entries, and all is allowed.
        let own = self.masks.iter().skip(b * mask.len());
        mask.iter_mut().zip(own).for_each(|(to, from)| *to = *from != 0);
    }
    fn save(&self, _b: usize) -> Option<Vec<f64>> {
        None
    }
    fn load(&mut self, _b: usize, _state: &[f64]) -> bool {
        false
    }
    fn picture(&mut self, b: usize) -> Result<Picture, PictureError> {
        let failed = |reason: String| PictureError { id: self.spec.id.clone(), reason };
        let deadline = Duration::from_secs_f64(self.context.recipe.settings.env_start_secs);
        let group = self.groups.iter_mut().find(|g| g.range.contains(&b));
        let worker = group.and_then(|g| g.worker.as_mut().map(|worker| (b - g.range.start, worker)));
        let (i, worker) = worker.ok_or_else(|| failed("its process is gone".to_owned()))?;
        worker.picture(i, deadline).map_err(failed)
    }
}

impl Drop for GymBatch {
    fn drop(&mut self) {
        self.context.batches.fetch_sub(1, Ordering::Relaxed);
        // Side by side.
        self.groups.iter_mut().filter_map(|g| g.worker.as_mut()).for_each(Worker::leave);
        let step = self.context.recipe.step();
        for group in &mut self.groups {
            let first = self.first + group.range.start;
            if let Some(worker) = group.worker.take() {
                for t in worker.close(step) {
                    let number = first + t.env;
                    self.context
                        .monitor
                        .tell(format!("environment {number}: closing it failed\n{}", indented(&t.text)));
                }
            }
        }
    }
}
