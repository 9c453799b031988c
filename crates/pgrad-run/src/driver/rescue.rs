//! Saving a run that was asked to stop and does not come to the end of an iteration.

use super::changes::SETTINGS;
use super::error::{MARK, RunError, STATE};
use crate::checkpoint::CheckpointStore;
use crate::metrics::Mark;
use crate::run_dir::{self, RunDir};
use crate::storage::{Storage, write_atomic};
use crate::tensors;
use crate::trainer::Trainer;
use pgrad_model::Policy;
use pgrad_num::Record;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The state between two iterations, as it is saved.
pub(super) struct Kept {
    store: CheckpointStore,
    storage: Arc<dyn Storage>,
    root: PathBuf,
    step: u64,
    settings: String,
    state: Record,
    policy: Policy,
    recording: Option<Vec<u8>>,
    mark: Option<Mark>,
}

impl Kept {
    pub(super) fn new(
        store: &CheckpointStore,
        storage: &Arc<dyn Storage>,
        dir: &RunDir,
        trainer: &Trainer,
        seconds: f64,
        mark: Option<Mark>,
    ) -> Self {
        let mut state = trainer.save();
        state.put("seconds", vec![seconds]);
        Self {
            store: store.clone(),
            storage: Arc::clone(storage),
            root: dir.root().to_owned(),
            step: trainer.steps(),
            settings: trainer.config().to_toml(false),
            state,
            policy: trainer.policy(1),
            recording: trainer.algorithm().recording(),
            mark,
        }
    }

    /// Saves the checkpoint, and then what stands beside the checkpoints.
    pub(super) fn save(&self) -> Result<(), RunError> {
        let state = tensors::encode(&self.state, None)
            .map_err(|e| RunError::State { path: self.store.path(self.step), cause: e.into() })?;
        let policy = self.policy.to_bytes()?;
        // Strings and numbers: writing them cannot fail.
        let mark = self.mark.as_ref().map(|mark| serde_json::to_vec(mark).unwrap_or_default());
        let mut files = vec![(SETTINGS, self.settings.as_bytes()), (STATE, &state[..])];
        files.extend(mark.as_deref().map(|mark| (MARK, mark)));
        self.store.save(self.step, &files)?;
        write_beside(&*self.storage, &self.root, &policy, self.recording.as_deref())
    }
}

/// Writes what stands beside the checkpoints.
pub(super) fn write_beside(
    storage: &dyn Storage,
    root: &Path,
    policy: &[u8],
    recording: Option<&[u8]>,
) -> Result<(), RunError> {
    write_atomic(storage, &root.join(run_dir::POLICY), policy)?;
    if let Some(recording) = recording {
        write_atomic(storage, &root.join(run_dir::TURNS), recording)?;
    }
    Ok(())
}

/// The newest state that can be saved without the thread that trains.
#[derive(Default)]
pub(super) enum Slot {
    /// Nothing has been saved or kept yet: the run can begin anew.
    #[default]
    Nothing,
    /// The newest is the checkpoint of this step.
    Saved(u64),
    /// This is newer than any checkpoint.
    Kept(Box<Kept>),
}

/// What a rescue has saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rescued {
    /// The checkpoint of this step is the newest, and what came after it is done again by `resume`.
    Step(u64),
    /// There was nothing to save: `resume` begins anew.
    Nothing,
}

/// Saves a run from another thread than the one that trains, which may be within an iteration that takes
/// minutes or waits for an environment. What is saved is the state between two iterations, so a resumed run
/// has the same bits.
#[derive(Default)]
pub struct Rescue {
    slot: Mutex<Slot>,
}

impl std::fmt::Debug for Rescue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rescue").finish_non_exhaustive()
    }
}

impl Rescue {
    pub(super) fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
    pub(super) fn keep(&self, kept: Kept) {
        *self.lock() = Slot::Kept(Box::new(kept));
    }

    /// Saves what was kept last and calls `then`, which as a rule ends the process: until it returns, the
    /// thread that trains saves nothing.
    ///
    /// The state that is kept is at most half a second older than the last iteration that came to its end, or
    /// fifty times what keeping it takes.
    pub fn save_and<T>(&self, then: impl FnOnce(Result<Rescued, RunError>) -> T) -> T {
        let mut slot = self.lock();
        let saved = match &*slot {
            Slot::Nothing => Ok(Rescued::Nothing),
            Slot::Saved(step) => Ok(Rescued::Step(*step)),
            Slot::Kept(kept) => kept
                .storage
                .sync_file(&kept.root.join(run_dir::METRICS))
                .map_err(RunError::from)
                .and_then(|()| kept.save())
                .map(|()| Rescued::Step(kept.step)),
        };
        if let Ok(Rescued::Step(step)) = saved {
            *slot = Slot::Saved(step);
        }
        then(saved)
    }
}
