//! The environments of an EnvPool, two for each of the run's.
//!
//! EnvPool begins the next episode in the step after the one that ended the last. An environment of the run
//! is therefore two of the pool, which take turns: where an episode of one ends, the other stands at the
//! beginning of its own already, and while that one is stepped the first begins its next episode in the same
//! call. So neither a final nor a first observation is ever missing, every step that is asked for is one, and
//! beginning an episode costs no call of its own.
//!
//! What is asked of the environments of the run, and what came of it, lies in the memory as with Gymnasium's:
//! [`Turns::ask`] and [`Turns::settle`] translate.

use crate::layout::{BAD, Layout, PoolLayout, RUNNING, STEP, TERMINATED, TRUNCATED, Trouble, aligned};
use crate::shared::Shared;
use crate::spaces::Spaces;

/// The pool's command to begin episodes; that to step is [`STEP`].
const BEGIN: u8 = 2;
/// Its type of a step that begins an episode. How many steps it has counted says less: Atari's count goes on
/// where an episode ends with a life.
const FIRST: i32 = 0;

/// Who is whose, and who stands where.
#[derive(Debug)]
pub(crate) struct Turns {
    at: PoolLayout,
    layout: Layout,
    /// Bytes of a row of each part of an observation, and of an action.
    parts: Vec<usize>,
    action_bytes: usize,
    /// The pool's number of each environment of the run: `b` or `n + b`.
    active: Vec<i32>,
    /// Whether that one stands at the beginning of an episode.
    standing: Vec<bool>,
    /// Those of the pool that begin their next episode in the next step.
    pending: Vec<i32>,
    /// First observations of all of the pool, part after part, a row each.
    firsts: Vec<u8>,
    /// What the pool was asked for: rows, of which the first `asked` are of the environments `slots`.
    ids: Vec<i32>,
    slots: Vec<usize>,
    command: u8,
    todo: Vec<u8>,
    // What the pool says.
    env_id: Vec<i32>,
    step_type: Vec<i32>,
    done: Vec<u8>,
    trunc: Vec<u8>,
    reward: Vec<f32>,
    row: Vec<u8>,
}

impl Turns {
    /// For a pool that has just begun all its first episodes.
    pub(crate) fn new(at: PoolLayout, layout: &Layout, spaces: &Spaces, shared: &Shared) -> Self {
        let n = layout.n;
        let parts: Vec<usize> = spaces.observation_bytes().collect();
        let mut turns = Self {
            at,
            layout: *layout,
            action_bytes: spaces.action_bytes(),
            active: (0..n as i32).collect(),
            standing: vec![true; n],
            pending: Vec::with_capacity(n),
            firsts: vec![0; parts.iter().map(|bytes| aligned(2 * n * bytes)).sum()],
            parts,
            ids: Vec::with_capacity(2 * n),
            slots: Vec::with_capacity(n),
            command: STEP,
            todo: vec![0; n],
            env_id: vec![0; 2 * n],
            step_type: vec![0; 2 * n],
            done: vec![0; 2 * n],
            trunc: vec![0; 2 * n],
            reward: vec![0.0; 2 * n],
            row: Vec::new(),
        };
        shared.read(turns.at.obs, &mut turns.firsts);
        turns
    }
    /// The environment of the run that `id` of the pool belongs to, and the other one that does.
    fn slot(&self, id: i32) -> usize {
        id as usize % self.layout.n
    }
    fn other(&self, id: i32) -> i32 {
        (id + self.layout.n as i32) % (2 * self.layout.n as i32)
    }
    /// The pool's number of environment `b`.
    pub(crate) fn active(&self, b: usize) -> usize {
        self.active[b] as usize
    }
    /// Whether the last [`Turns::ask`] has something for the process to do.
    pub(crate) fn is_asked(&self) -> bool {
        !self.ids.is_empty()
    }
    /// Turns what the memory asks of the environments of the run into what is asked of the pool. When that is
    /// nothing it is answered already, and `false`.
    pub(crate) fn ask(&mut self, shared: &Shared) -> bool {
        let mut todo = std::mem::take(&mut self.todo);
        shared.read(self.layout.todo, &mut todo);
        self.ids.clear();
        self.slots.clear();
        // Steps and resets never come together.
        if todo.contains(&STEP) {
            self.command = STEP;
            self.slots.extend((0..todo.len()).filter(|b| todo[*b] == STEP));
            self.ids.extend(self.slots.iter().map(|b| self.active[*b]).chain(self.pending.iter().copied()));
            self.row.resize(self.action_bytes, 0);
            for (k, id) in self.ids.iter().enumerate() {
                // The action in which an episode begins is not looked at, and still must be one.
                shared.read(self.layout.actions + self.slot(*id) * self.action_bytes, &mut self.row);
                shared.write(self.at.actions + k * self.action_bytes, &self.row);
            }
        } else {
            self.command = BEGIN;
            for b in (0..todo.len()).filter(|b| todo[*b] != 0) {
                if self.standing[b] {
                    self.show_first(shared, b, self.active[b], self.layout.obs);
                    shared.write(self.layout.status + b, &[RUNNING]);
                } else {
                    self.slots.push(b);
                    self.ids.push(self.active[b]);
                }
            }
        }
        self.todo = todo;
        shared.write(self.at.command, &[self.command]);
        shared.write(self.at.count, &[self.ids.len() as i64]);
        shared.write(self.at.ids, &self.ids);
        self.is_asked()
    }
    /// Shows the first observation of `id` as that of environment `b`, in the rows at `to`.
    fn show_first(&self, shared: &Shared, b: usize, id: i32, mut to: usize) {
        let mut from = 0;
        for bytes in &self.parts {
            let row = from + id as usize * bytes;
            shared.write(to + b * bytes, &self.firsts[row..row + bytes]);
            to += aligned(self.layout.n * bytes);
            from += aligned(2 * self.layout.n * bytes);
        }
    }
    /// Shows the observation in row `k` of the answer as that of environment `b`.
    fn show(&mut self, shared: &Shared, k: usize, b: usize) {
        let (mut from, mut to) = (self.at.obs, self.layout.obs);
        for bytes in &self.parts {
            self.row.resize(*bytes, 0);
            shared.read(from + k * bytes, &mut self.row);
            shared.write(to + b * bytes, &self.row);
            from += aligned(2 * self.layout.n * bytes);
            to += aligned(self.layout.n * bytes);
        }
    }
    /// Keeps the observation in row `k` of the answer as the first one of `id`.
    fn keep_first(&mut self, shared: &Shared, k: usize, id: i32) {
        let (mut from, mut to) = (self.at.obs, 0);
        for bytes in &self.parts {
            let row = to + id as usize * bytes;
            shared.read(from + k * bytes, &mut self.firsts[row..row + bytes]);
            let all = aligned(2 * self.layout.n * bytes);
            from += all;
            to += all;
        }
    }
    /// Turns what the pool answered into what came of the environments of the run.
    pub(crate) fn settle(&mut self, shared: &Shared, troubles: &mut Vec<Trouble>) {
        let k = self.ids.len();
        shared.read(self.at.env_id, &mut self.env_id[..k]);
        shared.read(self.at.step_type, &mut self.step_type[..k]);
        shared.read(self.at.done, &mut self.done[..k]);
        shared.read(self.at.trunc, &mut self.trunc[..k]);
        shared.read(self.at.reward, &mut self.reward[..k]);
        if troubles.is_empty()
            && let Err(text) = self.check()
        {
            troubles.push(Trouble { env: 0, during: "step".to_owned(), bad: true, text });
        }
        if let Some(trouble) = troubles.first_mut() {
            // It is nobody's in particular: the first one's that was asked for.
            trouble.env = self.slots[0];
            for b in &self.slots {
                shared.write(self.layout.status + b, &[BAD]);
            }
            return;
        }
        let slots = std::mem::take(&mut self.slots);
        if self.command == BEGIN {
            for (k, b) in slots.iter().enumerate() {
                self.keep_first(shared, k, self.active[*b]);
                self.standing[*b] = true;
                self.show(shared, k, *b);
                shared.write(self.layout.status + b, &[RUNNING]);
            }
            self.slots = slots;
            return;
        }
        for (k, id) in (slots.len()..).zip(std::mem::take(&mut self.pending)) {
            self.keep_first(shared, k, id);
        }
        for (k, b) in slots.iter().enumerate() {
            self.show(shared, k, *b);
            shared.write(self.layout.rewards + 8 * b, &[f64::from(self.reward[k])]);
            let status = match (self.done[k], self.trunc[k]) {
                (0, _) => RUNNING,
                (_, 0) => TERMINATED,
                _ => TRUNCATED,
            };
            shared.write(self.layout.status + b, &[status]);
            self.standing[*b] = status != RUNNING;
            if status != RUNNING {
                let (over, next) = (self.active[*b], self.other(self.active[*b]));
                self.pending.push(over);
                self.active[*b] = next;
                self.show_first(shared, *b, next, self.layout.first);
                shared.write(self.layout.first_status + b, &[RUNNING]);
            }
        }
        self.slots = slots;
    }
    /// Whether the pool did what it was asked for: an episode that begins must never pass for a step.
    fn check(&self) -> Result<(), String> {
        let k = self.ids.len();
        if self.env_id[..k] != self.ids[..] {
            return Err(format!(
                "EnvPool answered for {:?} when asked for {:?}",
                &self.env_id[..k],
                self.ids
            ));
        }
        let steps = if self.command == STEP { self.slots.len() } else { 0 };
        let began = |i: usize| self.step_type[i] == FIRST && self.done[i] == 0;
        let stepped = |i: usize| self.step_type[i] != FIRST && (self.done[i] != 0 || self.trunc[i] == 0);
        if (0..steps).all(stepped) && (steps..k).all(began) {
            return Ok(());
        }
        Err(format!(
            "after {steps} steps and {} beginnings EnvPool's steps are of the types {:?} (0 is a first one); over: \
             {:?}, cut: {:?}",
            k - steps,
            &self.step_type[..k],
            &self.done[..k],
            &self.trunc[..k]
        ))
    }
}
