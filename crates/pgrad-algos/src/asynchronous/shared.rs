//! What actor-learners share.

use pgrad_collect::Turns;
use pgrad_num::{SharedCounter, SharedVec};
use pgrad_optim::{Hogwild, Schedule as Factor};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// What actor-learners share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) theta: SharedVec,
    pub(super) rule: Hogwild,
    /// The target network's parameters, and how often they were renewed.
    pub(super) target: Option<(SharedVec, SharedCounter)>,
    pub(super) target_steps: u64,
    /// `T`: steps of all actor-learners.
    pub(super) frames: SharedCounter,
    /// Updates of `θ` by all actor-learners.
    pub(super) updates: SharedCounter,
    /// The iteration ends when `T` is here.
    pub(super) goal: AtomicU64,
    /// Somebody cannot go on.
    pub(super) failed: AtomicBool,
    pub(super) turns: Turns,
    pub(super) learning_rate: f64,
    pub(super) schedule: Factor,
    pub(super) total_steps: u64,
    /// What divergences have left of the step size, as bits.
    pub(super) step_scale: AtomicU64,
}

impl Shared {
    pub(super) fn failed(&self) -> bool {
        self.failed.load(Relaxed)
    }
    /// The step size after `frames` steps.
    pub(super) fn alpha(&self, frames: u64) -> f64 {
        let scale = f64::from_bits(self.step_scale.load(Relaxed));
        scale * self.learning_rate * self.schedule.factor(frames, self.total_steps)
    }
    /// `θ⁻ ← θ` if one of the steps `from..to` was one of `T mod I_target = 0`.
    pub(super) fn renew_target(&self, from: u64, to: u64) {
        let Some((target, version)) = &self.target else { return };
        if from / self.target_steps == to / self.target_steps {
            return;
        }
        let mut block = [0.0; SharedVec::BLOCK];
        for start in self.theta.blocks() {
            self.theta.read_block(start, &mut block);
            target.write_block(start, &block);
        }
        version.add(1);
    }
}
