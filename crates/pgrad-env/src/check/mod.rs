//! Finds what is wrong with an environment.
//!
//! # What is checked, and how
//! The specification is read first. Then the environment is driven for some episodes by random (allowed)
//! actions, as [`VecEnv`](crate::VecEnv) would, and everything that it returns is looked at. Then the same is
//! done again and again, and must come out the same:
//!
//! - by another environment with the same seed: nothing may be random but what comes from the stream;
//! - by a new environment for the second and later episodes, with the stream where it stood: nothing of an
//!   episode may be left over in the next;
//! - by an environment restored from a saved state, where there is one;
//! - for batches: by copies alone and in a batch.
//!
//! # Reward after the end
//! Nobody steps a pgrad environment after its end: the caller resets it at once, and what a step after the
//! end does is undefined. A reward can come after the end of its episode in one way only: it is paid in the
//! next episode. That is [`Finding::RewardAfterEnd`]: an episode in a used environment pays what the same
//! episode (same random numbers, same actions) in a new one does not.

mod finding;
mod run;
#[cfg(test)]
mod tests;

use crate::{BatchEnv, BatchResult, Each, Env, EnvSpec, MakeError, Space};
pub use finding::{Difference, Finding, Place, Role, Severity};
use run::{Ended, Run};

/// Steps that are looked at.
const STEPS: u32 = 1500;
/// Episodes with a longer time limit are cut here, so that several are seen.
const CUT: u32 = 300;
/// Steps after which an episode without a time limit counts as endless.
const ENDLESS: u32 = 10_000;
/// Episodes that a new environment repeats.
const REPEATED: usize = 3;
/// Steps at which a state is saved, and steps that are compared afterwards.
const SAVED_AT: [usize; 5] = [0, 1, 7, 40, 200];
const COMPARED: usize = 100;
/// Copies of the batch whose copies are compared with single ones.
const COPIES: usize = 7;
const COPY_STEPS: u32 = 200;

/// Checks environments made by `make`; what it finds is what `pgrad check-env` prints. Each kind of finding
/// comes once, where it was met first.
///
/// Makes about 10 environments and some thousand steps. A panic of the environment is caught and reported
/// (the process's panic hook still runs).
pub fn check_env<E: Env>(make: impl Fn() -> E, seed: u64) -> Vec<Finding> {
    let mut go_on = |_| true;
    let mut findings = Findings::new(&mut go_on);
    // What ended the check early is among the findings.
    let _ = check(&|n| Ok(Each::new(n, &make)), seed, &mut findings);
    findings.found
}

/// Checks batch environments made by `make(n)`: all that [`check_env`] checks, and that the copies in a batch
/// do not depend on each other.
///
/// # Errors
/// When `make` fails.
pub fn check_batch_env(make: impl Fn(usize) -> BatchResult, seed: u64) -> Result<Vec<Finding>, MakeError> {
    check_batch_env_while(make, seed, &mut |_| true)
}

/// [`check_batch_env`] as long as `go_on` says so: it is asked before every step, with the number of steps so
/// far. That the check was stopped is a finding.
///
/// # Errors
/// When `make` fails.
pub fn check_batch_env_while(
    make: impl Fn(usize) -> BatchResult,
    seed: u64,
    go_on: &mut dyn FnMut(u64) -> bool,
) -> Result<Vec<Finding>, MakeError> {
    let mut findings = Findings::new(go_on);
    // What else ended a check early is among the findings.
    let unmade = |result| if let Err(Ended::Unmade(e)) = result { Err(e) } else { Ok(()) };
    unmade(check(&make, seed, &mut findings))?;
    // What is wrong with one alone would only be found again.
    if findings.found.iter().all(|f| f.severity() == Severity::Warning)
        && !findings.found.iter().any(|f| matches!(f, Finding::Stopped { .. }))
        && run::two_can_exist(&make, seed, &mut findings)
    {
        unmade(run::compare_copies(&make, seed, &mut findings))?;
    }
    Ok(findings.found)
}

/// Findings, the first of each kind.
struct Findings<'g> {
    found: Vec<Finding>,
    /// Steps so far, and whether there may be more.
    steps: u64,
    go_on: &'g mut dyn FnMut(u64) -> bool,
}

impl<'g> Findings<'g> {
    fn new(go_on: &'g mut dyn FnMut(u64) -> bool) -> Self {
        Self { found: Vec::new(), steps: 0, go_on }
    }
    fn add(&mut self, finding: Finding) {
        let kind = std::mem::discriminant(&finding);
        if self.found.iter().all(|f| std::mem::discriminant(f) != kind) {
            self.found.push(finding);
        }
    }
    /// Counts a step that is about to be made.
    fn step(&mut self) -> Result<(), Ended> {
        if !(self.go_on)(self.steps) {
            self.add(Finding::Stopped { steps: self.steps });
            return Err(Ended::Found);
        }
        self.steps += 1;
        Ok(())
    }
}

/// The checks of a single environment; `Err` when going on makes no sense.
fn check<B: BatchEnv>(
    make: &impl Fn(usize) -> Result<B, MakeError>,
    seed: u64,
    out: &mut Findings<'_>,
) -> Result<(), Ended> {
    let mut first = Run::new(make, seed, out)?;
    if first.len() != 1 {
        out.add(Finding::BatchLength { expected: 1, got: first.len() });
        return Err(Ended::Found);
    }
    check_spec(first.spec(), out);
    if !out.found.is_empty() {
        return Err(Ended::Found);
    }
    let trace = first.record(STEPS, out)?;
    first.look_for_an_end(ENDLESS, out)?;
    trace.look_for_own_resets(out);
    // One at a time, for those that cannot exist twice.
    drop(first);

    let mut second = Run::new(make, seed, out)?;
    second.poison_ends();
    if let Some((place, difference)) = trace.compare(0, &mut second, usize::MAX, out)? {
        out.add(match difference {
            Difference::End { second: run::END_POISON, .. } => Finding::EndNotWritten { place },
            _ => Finding::Nondeterministic { place, difference },
        });
        return Err(Ended::Found);
    }
    drop(second);
    for start in trace.episodes().skip(1).take(REPEATED) {
        let mut new = Run::new(make, seed, out)?;
        new.start_where(&trace, start);
        if let Some((place, difference)) = trace.compare(start, &mut new, trace.episode_len(start), out)? {
            out.add(match difference {
                Difference::Reward { first, second } => {
                    Finding::RewardAfterEnd { place, expected: second, got: first }
                }
                d => Finding::LeftOver { place, difference: d.swapped() },
            });
        }
    }
    for at in SAVED_AT.into_iter().filter_map(|at| trace.amid(at)) {
        run::compare_restored(make, seed, &trace, at, out)?;
    }
    Ok(())
}

fn check_spec(spec: &EnvSpec, out: &mut Findings<'_>) {
    if spec.id.trim().is_empty() {
        out.add(Finding::NoName);
    }
    if spec.observation.obs_dim() == 0 {
        out.add(Finding::EmptySpace { role: Role::Observation, space: spec.observation.to_string() });
    }
    let parts = spec.observation.parts().iter().map(|part| (Role::Observation, &part.space));
    let actions = spec.action.leaves().into_iter().map(|(_, leaf)| (Role::Action, leaf));
    if spec.action.leaves().is_empty() {
        out.add(Finding::EmptySpace { role: Role::Action, space: spec.action.to_string() });
    }
    for (role, space) in parts.chain(actions) {
        let empty = match space {
            Space::Discrete { n } | Space::MultiBinary { n } => *n == 0,
            Space::MultiDiscrete { nvec } => nvec.is_empty() || nvec.contains(&0),
            // A part without numbers is none.
            Space::Box(b) => role == Role::Action && b.low.is_empty() && b.high.is_empty(),
            // A product in a product.
            Space::Product { .. } => true,
        };
        if empty {
            out.add(Finding::EmptySpace { role, space: space.to_string() });
        }
        if let Space::Box(b) = space {
            if b.low.len() != b.high.len() {
                out.add(Finding::BoundsLength { role, low: b.low.len(), high: b.high.len() });
            }
            for (index, (low, high)) in b.low.iter().zip(&b.high).enumerate() {
                // Also false for NaN.
                let possible = low <= high && *low < f32::INFINITY && *high > f32::NEG_INFINITY;
                if !possible {
                    out.add(Finding::Bounds { role, index, low: *low, high: *high });
                }
            }
        }
    }
    if spec.max_episode_steps == Some(0) {
        out.add(Finding::ZeroLimit);
    }
    if let Some(value) = spec.reward_threshold.filter(|t| !t.is_finite()) {
        out.add(Finding::Threshold { value });
    }
    if spec.masks_actions && spec.action.mask_dim() == 0 {
        out.add(Finding::MaskWithoutAlternatives { space: spec.action.to_string() });
    }
}
