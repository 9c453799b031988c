//! States of recurrent networks in a batch.
//!
//! Each environment's `T` steps are cut into sequences of `L`. What is kept is the state of each network
//! before the first step of every sequence; sequence `k·B + b` of a shard is steps `k·L ..` of its
//! environment `b`. The actor's states are those it acted with. The critic's are found when the values are
//! computed, after the rollout; where both share a trunk, the actor's are the critic's.
//!
//! A state is forgotten where an episode ends, exactly there: `V` of the final observation of a cut episode
//! is that of the state before it is forgotten.

use crate::batch::{SampleSet, Samples};
use pgrad_env::End;
use pgrad_model::{ActorCritic, AgentError, CHUNK, ChunkShape, Part, Role, Trunk, forget};
use pgrad_nn::NetworkTape;
use pgrad_num::{Cols, ColsMut, kernels, rows_to_columns, transpose};

/// Whether two rows of numbers are the same, bit for bit.
pub(crate) fn bits_agree(a: &[f32], b: &[f32]) -> bool {
    a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// Brings sequences of a minibatch before a network.
#[derive(Debug)]
pub(crate) struct SequenceWork {
    /// The samples, in the order of the columns.
    pub(crate) order: Vec<u32>,
    state: Vec<f32>,
    fresh: Vec<bool>,
    /// Steps of a sequence.
    length: usize,
    /// Sequences, and numbers of a state.
    cols: usize,
    rows: usize,
}

impl SequenceWork {
    pub(crate) fn new(model: &ActorCritic, chunk: ChunkShape) -> Self {
        let critic = if model.has_critic() { model.critic().net.state_rows() } else { 0 };
        let rows = model.actor().net.state_rows().max(critic);
        let samples = if model.recurrence().is_some() { chunk.samples() } else { 0 };
        Self {
            order: Vec::with_capacity(samples),
            state: vec![0.0; rows * chunk.cols],
            fresh: vec![false; samples],
            length: chunk.steps,
            cols: 0,
            rows: 0,
        }
    }

    /// Finds the order of the columns of some sequences, what they start from and where episodes end in them.
    ///
    /// # Panics
    /// When they are not whole sequences.
    pub(crate) fn find<S: ExactSizeIterator<Item = u32>>(
        &mut self,
        set: SampleSet<'_>,
        owner: Role,
        sequences: impl ExactSizeIterator<Item = S>,
    ) {
        let (length, cols, rows) = (self.length, sequences.len(), set.state_rows(owner));
        (self.cols, self.rows) = (cols, rows);
        self.order.clear();
        self.order.resize(length * cols, 0);
        for (c, sequence) in sequences.enumerate() {
            assert_eq!(sequence.len(), length, "a minibatch holds whole sequences of {length} steps");
            let mut before: Option<(&Samples, usize)> = None;
            for (t, id) in sequence.enumerate() {
                let (data, at) = set.get(id);
                let (row, b) = (at / data.b, data.b);
                if let Some((data, last)) = before {
                    assert_eq!(last + b, at, "the steps of a sequence follow each other");
                    self.fresh[t * cols + c] = data.ends[last] != End::Running;
                } else {
                    assert_eq!(row % length, 0, "a sequence begins where states are kept");
                    let number = row / length * b + at % b;
                    let states = data.states.as_ref().map_or(&[][..], |s| s.of(owner));
                    for (r, x) in states[number * rows..(number + 1) * rows].iter().enumerate() {
                        self.state[r * cols + c] = *x;
                    }
                    self.fresh[c] = false;
                }
                self.order[t * cols + c] = id;
                before = Some((data, at));
            }
        }
    }
    /// Whether there are sequences.
    pub(crate) fn is_used(&self) -> bool {
        !self.order.is_empty()
    }
    /// Tells a network's tape of the sequences that were found.
    pub(crate) fn tell(&self, tape: &mut NetworkTape<f32>) {
        let (rows, cols) = (self.rows, self.cols);
        let state = Cols::new(&self.state[..rows * cols], rows, cols);
        tape.begin(self.length, state, &self.fresh[..self.order.len()]);
    }
}

/// Takes a network through all steps of a shard, one sequence of all its environments after the other.
#[derive(Debug)]
pub(crate) struct Walk {
    length: usize,
    tape: NetworkTape<f32>,
    /// For single steps from states on the way.
    aside: NetworkTape<f32>,
    x: Vec<f32>,
    state: Vec<f32>,
    fresh: Vec<bool>,
    aside_state: Vec<f32>,
}

impl Walk {
    /// For shards of up to `b` environments.
    pub(crate) fn new(part: &Part, length: usize, b: usize) -> Self {
        let (net, most) = (&part.net, b.max(CHUNK));
        Self {
            length,
            tape: net.tape_of(length, b),
            aside: net.tape(most),
            x: vec![0.0; net.n_inputs() * most.max(length * b)],
            state: vec![0.0; net.state_rows() * b],
            fresh: vec![false; (length * b).max(most)],
            aside_state: vec![0.0; net.state_rows() * most],
        }
    }
    /// Starts from the states of `b` environments, a row each.
    fn start(&mut self, rows: &[f32], b: usize) {
        let state = &mut self.state[..rows.len()];
        rows_to_columns(rows, state, b);
    }
    /// The outputs for the sequences from row `t` on, `[n_outputs x L·B]`.
    fn sequence(&mut self, part: &Part, theta: &[f32], data: &Rows<'_>, t: usize) -> &mut [f32] {
        let (b, dim, rows) = (data.b, part.net.n_inputs(), part.net.state_rows());
        let (from, n) = (t * b, self.length * b);
        let x = &mut self.x[..dim * n];
        rows_to_columns(&data.obs[from * dim..(from + n) * dim], x, n);
        let fresh = &mut self.fresh[..n];
        for (i, fresh) in fresh.iter_mut().enumerate() {
            *fresh = i >= b && data.ends[from + i - b] != End::Running;
        }
        self.tape.begin(self.length, Cols::new(&self.state[..rows * b], rows, b), fresh);
        part.net.forward(theta, Cols::new(x, dim, n), &mut self.tape).into_data()
    }
    /// Takes the states on to the end of the sequences from row `t` on.
    fn go_on(&mut self, part: &Part, data: &Rows<'_>, t: usize) {
        let (b, rows) = (data.b, part.net.state_rows());
        let state = &mut self.state[..rows * b];
        self.tape.last_state(ColsMut::new(state, rows, b));
        let last = (t + self.length - 1) * b;
        forget(state, &data.ends[last..last + b]);
    }
    /// Values of the observations `obs`, a row each, seen in the states `aside_state`.
    fn values_aside(&mut self, part: &Part, theta: &[f32], obs: &[f32], v: &mut [f32]) {
        let (n, dim, rows) = (v.len(), part.net.n_inputs(), part.net.state_rows());
        let x = &mut self.x[..dim * n];
        rows_to_columns(obs, x, n);
        let fresh = &mut self.fresh[..n];
        fresh.fill(false);
        self.aside.begin(1, Cols::new(&self.aside_state[..rows * n], rows, n), fresh);
        let out = part.net.forward(theta, Cols::new(x, dim, n), &mut self.aside).into_data();
        v.copy_from_slice(&out[..n]);
    }
}

/// What a walk reads of a shard.
struct Rows<'a> {
    b: usize,
    obs: &'a [f32],
    ends: &'a [End],
}

/// The parameters of a network of the model.
fn theta_of<'a>(model: &'a ActorCritic, part: &Part) -> &'a [f32] {
    &model.theta[part.params.clone()]
}

impl Samples {
    /// With a critic that remembers: values of all rows, of what follows them and of the final observations,
    /// and its states on the way.
    pub(crate) fn evaluate_with_memory(
        &mut self,
        model: &ActorCritic,
        walk: &mut Walk,
        bootstrap_truncated: bool,
    ) -> Result<(), AgentError> {
        let (t_end, part) = (self.rows(), model.critic());
        let (theta, state_rows, dim) = (theta_of(model, part), part.net.state_rows(), part.net.n_inputs());
        let shared = model.shape().trunk == Trunk::Shared;
        let Self { b, obs, ends, cut, cut_obs, v_cut, last_obs, v_last, v, states, .. } = self;
        let Some(states) = states else { return Ok(()) };
        let (b, length) = (*b, states.length);
        let data = Rows { b, obs, ends };
        v_cut.clear();
        v_cut.resize(cut.len(), 0.0);
        let first = b * state_rows;
        walk.start(&(if shared { &states.actor } else { &states.critic })[..first], b);
        let mut done = 0;
        for t in (0..t_end).step_by(length) {
            if !shared {
                let at = t / length * first;
                transpose(&walk.state[..first], &mut states.critic[at..at + first], b);
            }
            let n = length * b;
            v[t * b..t * b + n].copy_from_slice(&walk.sequence(part, theta, &data, t)[..n]);
            // The final observations of episodes cut on the way, from the states that had been reached.
            let here = cut[done..].partition_point(|at| (*at as usize) < t * b + n);
            for group in cut[done..done + here].chunks(CHUNK) {
                let m = group.len();
                for (c, at) in group.iter().enumerate() {
                    let at = *at as usize - t * b;
                    for (r, x) in walk.tape.state_after(at / b, at % b).enumerate() {
                        walk.aside_state[r * m + c] = x;
                    }
                }
                let obs = &cut_obs[done * dim..(done + m) * dim];
                walk.values_aside(part, theta, obs, &mut v_cut[done..done + m]);
                done += m;
            }
            walk.go_on(part, &data, t);
        }
        if !shared {
            states.critic_after.copy_from_slice(&walk.state[..first]);
        }
        walk.aside_state[..first].copy_from_slice(&walk.state[..first]);
        walk.values_aside(part, theta, last_obs, v_last);
        if let Some(i) = kernels::first_non_finite(&self.v) {
            return Err(self.not_finite("value", i, self.v[i]));
        }
        self.resolve_finite(bootstrap_truncated)
    }

    /// Computes the states before all sequences but the first ones anew.
    pub(crate) fn recompute_states(&mut self, model: &ActorCritic, owner: Role, walk: &mut Walk) {
        let (t_end, b) = (self.rows(), self.b);
        let part = if owner == Role::Actor { model.actor() } else { model.critic() };
        let Self { obs, ends, states, .. } = self;
        let Some(states) = states else { return };
        let (data, length, first) = (Rows { b, obs, ends }, states.length, b * part.net.state_rows());
        let rows = if owner == Role::Actor { &mut states.actor } else { &mut states.critic };
        walk.start(&rows[..first], b);
        for t in (0..t_end - length).step_by(length) {
            walk.sequence(part, theta_of(model, part), &data, t);
            walk.go_on(part, &data, t);
            let at = (t / length + 1) * first;
            transpose(&walk.state[..first], &mut rows[at..at + first], b);
        }
    }

    /// Calls `each` with the first sample and the policy's outputs (`[n x L·B]`) of the sequences that begin
    /// at one row, started from the states that are kept, for all such rows.
    pub(crate) fn walk_policy(
        &self,
        model: &ActorCritic,
        walk: &mut Walk,
        mut each: impl FnMut(usize, ColsMut<'_, f32>),
    ) {
        let (b, part, rows) = (self.b, model.actor(), model.policy_rows());
        let Some(states) = &self.states else { return };
        let (first, n) = (b * part.net.state_rows(), states.length * b);
        for t in (0..self.rows()).step_by(states.length) {
            let at = t / states.length * first;
            walk.start(&states.actor[at..at + first], b);
            let data = Rows { b, obs: &self.obs, ends: &self.ends };
            let out = walk.sequence(part, theta_of(model, part), &data, t);
            each(t * b, ColsMut::new(&mut out[rows.start * n..rows.end * n], rows.len(), n));
        }
    }
}
