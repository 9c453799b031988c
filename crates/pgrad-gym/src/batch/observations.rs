//! Reading and checking what the environments of a batch returned: observations and action masks.

use super::GymBatch;
use crate::layout::{STEP, TRUNCATED, aligned};
use crate::spaces::RowError;

impl GymBatch {
    /// Reads and checks the observation of environment `b`, the present one or that of the episode that was
    /// begun.
    pub(super) fn read_obs(&mut self, b: usize, begun: bool) {
        let g = self.group_of(b);
        let group = &self.groups[g];
        let Some(worker) = &group.worker else { return };
        let (n, i) = (worker.layout.n, b - group.range.start);
        let mut from = if begun { worker.layout.first } else { worker.layout.obs };
        let mut at = 0;
        for bytes in self.context.spaces.observation_bytes() {
            worker.shared.read(from + i * bytes, &mut self.row[at..at + bytes]);
            from += aligned(n * bytes);
            at += bytes;
        }
        let dim = self.spec.observation.obs_dim();
        let to = if begun { &mut self.begun_obs } else { &mut self.obs };
        let result = self.context.spaces.decode(&self.row, &mut to[b * dim..(b + 1) * dim]);
        if let Err(e) = result {
            self.bad_obs(b, begun, e);
        }
        self.read_mask(b, begun);
    }
    /// Reads the action mask of environment `b`, which the worker has checked.
    fn read_mask(&mut self, b: usize, begun: bool) {
        let dim = self.context.spaces.mask_dim();
        if dim == 0 {
            return;
        }
        let group = &self.groups[self.group_of(b)];
        let Some(worker) = &group.worker else { return };
        let (from, to) = match begun {
            true => (worker.layout.first_masks, &mut self.begun_masks),
            false => (worker.layout.masks, &mut self.masks),
        };
        worker.shared.read(from + (b - group.range.start) * dim, &mut to[b * dim..(b + 1) * dim]);
    }
    /// The episode that was begun is the present one.
    pub(super) fn take_begun(&mut self, b: usize) {
        let dim = self.spec.observation.obs_dim();
        let at = b * dim..(b + 1) * dim;
        self.obs[at.clone()].copy_from_slice(&self.begun_obs[at]);
        let dim = self.context.spaces.mask_dim();
        let at = b * dim..(b + 1) * dim;
        self.masks[at.clone()].copy_from_slice(&self.begun_masks[at]);
    }
    #[cold]
    fn bad_obs(&mut self, b: usize, begun: bool, error: RowError) {
        match error {
            RowError::Refused(text) => self.refuse(b, text),
            RowError::OutOfBounds(text) => {
                let place = if begun { self.next_place(b) } else { self.place(b) };
                if let Some(text) = self.monitor().out_of_bounds(self.first + b, &place, &text) {
                    self.refuse(b, text);
                }
            }
        }
    }
    /// Reads the observations of a whole group at once, where each is one row of one part.
    pub(super) fn read_group(&mut self, g: usize) {
        let group = &self.groups[g];
        let range = group.range.clone();
        let Some(worker) = &group.worker else { return };
        let bytes = self.row.len();
        self.rows.resize(range.len() * bytes, 0);
        worker.shared.read(worker.layout.obs, &mut self.rows);
        let dim = self.spec.observation.obs_dim();
        for (i, b) in range.enumerate() {
            if self.todo[b] != STEP || self.status[i] > TRUNCATED {
                continue;
            }
            let (row, to) = (&self.rows[i * bytes..(i + 1) * bytes], &mut self.obs[b * dim..(b + 1) * dim]);
            if let Err(e) = self.context.spaces.decode(row, to) {
                self.bad_obs(b, false, e);
            }
            self.read_mask(b, false);
        }
    }
}
