//! The memory that a worker shares with us: where things lie, and what the bytes of its answers mean.

use crate::name::Source;
use crate::spaces::Spaces;
use serde::Deserialize;

// What an environment is asked to do, and how that ended. The same numbers are in worker.py.
pub(crate) const NOTHING: u8 = 0;
pub(crate) const STEP: u8 = 1;
pub(crate) const RESET: u8 = 2;
pub(crate) const REBUILD: u8 = 3;
pub(crate) const RUNNING: u8 = 0;
pub(crate) const TERMINATED: u8 = 1;
pub(crate) const TRUNCATED: u8 = 2;
pub(crate) const RAISED: u8 = 8;
pub(crate) const BAD: u8 = 9;
/// The worker has not come to it.
pub(crate) const PENDING: u8 = 255;

/// What went wrong in an environment, as the worker tells it.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub(crate) struct Trouble {
    pub(crate) env: usize,
    pub(crate) during: String,
    #[serde(default)]
    pub(crate) bad: bool,
    pub(crate) text: String,
}

/// Where things lie in the shared memory, for `n` environments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) n: usize,
    pub(crate) todo: usize,
    pub(crate) status: usize,
    pub(crate) first_status: usize,
    pub(crate) seeds: usize,
    pub(crate) rewards: usize,
    pub(crate) actions: usize,
    pub(crate) obs: usize,
    pub(crate) first: usize,
    /// Masks of the present states, and of those in which episodes begin.
    pub(crate) masks: usize,
    pub(crate) first_masks: usize,
    /// What an EnvPool takes and gives, where there is one.
    pub(crate) pool: Option<PoolLayout>,
    pub(crate) size: usize,
}

/// Where the rows lie that an EnvPool is asked for, and what it says of them: `2n` at most, of which `count`
/// are in use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PoolLayout {
    pub(crate) command: usize,
    pub(crate) count: usize,
    pub(crate) ids: usize,
    pub(crate) actions: usize,
    pub(crate) env_id: usize,
    pub(crate) step_type: usize,
    pub(crate) done: usize,
    pub(crate) trunc: usize,
    pub(crate) reward: usize,
    pub(crate) obs: usize,
}

/// Every array begins at a multiple of this.
pub(crate) fn aligned(bytes: usize) -> usize {
    bytes.next_multiple_of(64)
}

impl Layout {
    pub(crate) fn new(n: usize, spaces: &Spaces, source: Source) -> Self {
        let mut size = 0;
        let mut place = |bytes: usize| {
            let at = size;
            size += aligned(bytes);
            at
        };
        let (todo, status, first_status) = (place(n), place(n), place(n));
        let (seeds, rewards) = (place(8 * n), place(8 * n));
        let actions = place(n * spaces.action_bytes());
        let rows = || spaces.observation_bytes().map(|bytes| aligned(n * bytes)).sum();
        let (obs, first) = (place(rows()), place(rows()));
        let (masks, first_masks) = (place(n * spaces.mask_dim()), place(n * spaces.mask_dim()));
        let pool = (source == Source::EnvPool).then(|| {
            let m = 2 * n;
            let (command, count, ids) = (place(1), place(8), place(4 * m));
            let actions = place(m * spaces.action_bytes());
            let (env_id, step_type, done, trunc, reward) =
                (place(4 * m), place(4 * m), place(m), place(m), place(4 * m));
            let obs = place(spaces.observation_bytes().map(|bytes| aligned(m * bytes)).sum());
            PoolLayout { command, count, ids, actions, env_id, step_type, done, trunc, reward, obs }
        });
        Self {
            n,
            todo,
            status,
            first_status,
            seeds,
            rewards,
            actions,
            obs,
            first,
            masks,
            first_masks,
            pool,
            size,
        }
    }
    pub(crate) fn json(&self, spaces: &Spaces) -> serde_json::Value {
        serde_json::json!({
            "size": self.size, "todo": self.todo, "status": self.status, "first_status": self.first_status,
            "seeds": self.seeds, "rewards": self.rewards, "actions": self.actions,
            "action_bytes": spaces.action_bytes(), "action_places": spaces.action_places().collect::<Vec<_>>(),
            "obs": self.obs,
            "first": self.first, "masks": self.masks, "first_masks": self.first_masks, "mask_dim": spaces.mask_dim(),
            // Some under the names that EnvPool has for them.
            "pool": self.pool.map(|p| serde_json::json!({
                "command": p.command, "count": p.count, "ids": p.ids, "actions": p.actions, "info:env_id": p.env_id,
                "step_type": p.step_type, "done": p.done, "trunc": p.trunc, "reward": p.reward, "obs": p.obs,
            })),
        })
    }
}
