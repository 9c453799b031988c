//! What recurrent networks remember before each sequence of a batch.

use crate::{ActorCritic, model::Role};
use pgrad_env::End;
use pgrad_num::{Record, RecordError, kernels, transpose};

/// States before the sequences of a shard, a row each.
#[derive(Debug)]
pub struct States {
    /// Steps of a sequence, `L`.
    pub length: usize,
    /// The states that the actor acted with.
    pub actor: Vec<f32>,
    /// Empty with a shared trunk or without a critic.
    pub critic: Vec<f32>,
    /// The critic's states after the last row, `[state_rows x B]`: where the next batch begins.
    pub critic_after: Vec<f32>,
}

impl States {
    /// For `rows` rows of `b` environments; nothing without a memory.
    ///
    /// # Panics
    /// When sequences do not fill the rows.
    #[must_use]
    pub fn new(model: &ActorCritic, rows: usize, b: usize) -> Option<Self> {
        let length = model.recurrence()?.sequence_length;
        assert_eq!(rows % length, 0, "sequences of {length} steps fill a rollout of {rows}");
        let sequences = rows / length * b;
        let critic_rows = if model.is_separate() { model.critic().net.state_rows() } else { 0 };
        Some(Self {
            length,
            actor: vec![0.0; sequences * model.actor().net.state_rows()],
            critic: vec![0.0; sequences * critic_rows],
            critic_after: vec![0.0; b * critic_rows],
        })
    }
    /// States of the actor or of the critic.
    #[must_use]
    pub fn of(&self, owner: Role) -> &[f32] {
        match owner {
            Role::Actor => &self.actor,
            Role::Critic => &self.critic,
        }
    }
    /// The critic goes on where it was.
    pub fn begin(&mut self, b: usize) {
        let first = self.critic_after.len();
        transpose(&self.critic_after, &mut self.critic[..first], b);
    }
    /// Keeps the actor's states `[state_rows x B]` before row `t`, if a sequence begins there.
    pub fn keep(&mut self, t: usize, state: &[f32], b: usize) {
        if t.is_multiple_of(self.length) {
            let at = t / self.length * state.len();
            transpose(state, &mut self.actor[at..at + state.len()], b);
        }
    }
}

/// Forgets the states (`[state_rows x B]`) of those whose episode ended.
pub fn forget(state: &mut [f32], ends: &[End]) {
    if ends.iter().any(|end| *end != End::Running) {
        for row in state.chunks_exact_mut(ends.len()) {
            for (x, _) in row.iter_mut().zip(ends).filter(|(_, end)| **end != End::Running) {
                *x = 0.0;
            }
        }
    }
}

/// Restores what a network remembers; where the episodes do not go on, nothing.
pub fn load_state(from: &Record, name: &str, exact: bool, state: &mut [f32]) -> Result<(), RecordError> {
    let saved = from.f32s(name, state.len())?;
    if !kernels::all_finite(saved) {
        return Err(RecordError::Value { name: name.into(), reason: "what is remembered is finite".into() });
    }
    state.copy_from_slice(saved);
    if !exact {
        state.fill(0.0);
    }
    Ok(())
}
