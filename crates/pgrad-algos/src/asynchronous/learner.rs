//! One actor-learner.

use super::{
    settings::{AsyncValueSettings, EpsilonDraw},
    shared::Shared,
};
use crate::off_policy::{Target as Policy, alternative, greedy, soften};
use pgrad_collect::Stepper;
use pgrad_engine::{Segment, SegmentPasses};
use pgrad_env::End;
use pgrad_model::{ActorCritic, AgentError};
use pgrad_num::{Stream, kernels};
use pgrad_optim::clip_global_norm;
use std::sync::{Arc, atomic::Ordering::Relaxed};

/// Bins of the histogram of staleness: 0, 1, 2, 3, 4 to 7, 8 and more.
const BINS: usize = 6;

/// How an actor-learner explores.
#[derive(Debug)]
pub(super) struct Exploration {
    pub(super) settings: AsyncValueSettings,
    pub(super) stream: Stream,
    /// What its ε falls to.
    pub(super) end: f64,
    pub(super) column: Vec<f32>,
    pub(super) pi: Vec<f32>,
}

/// One actor-learner: a thread's copy of the parameters, its environment, and the segment that it learns
/// from.
#[repr(align(128))]
pub(crate) struct ActorLearner {
    pub(super) number: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) max_grad_norm: f64,
    /// `θ′`.
    pub(crate) model: ActorCritic,
    /// `θ⁻`.
    pub(crate) target: Vec<f32>,
    pub(super) target_version: Option<u64>,
    pub(super) stepper: Stepper,
    pub(crate) segment: Segment,
    pub(crate) passes: SegmentPasses,
    /// `dθ`.
    pub(crate) d_theta: Vec<f32>,
    /// Cotangents of the steps of a segment: of `log π`, `H`, `V` (or of `Q`).
    pub(crate) d_logp: Vec<f32>,
    pub(crate) d_entropy: Vec<f32>,
    pub(crate) d_v: Vec<f32>,
    /// `π(·|s_t)` behind the last step: see [`ActorLearner::next_policy`].
    pub(crate) pi_next: Vec<f32>,
    pub(crate) bootstrap_time_limit: bool,
    /// Momentum, or mean squares.
    pub(super) own: Vec<f32>,
    pub(super) exploration: Option<Exploration>,
    /// Updates and steps of all actor-learners when `θ` was copied.
    pub(super) copied_at: u64,
    pub(super) frames: u64,
    pub(crate) sums: Sums,
    /// Steps that were not learnt from.
    pub(super) lost: u64,
    pub(super) outcome: Result<(), AgentError>,
}

impl ActorLearner {
    /// `dθ ← 0`, `θ′ ← θ`, `t_start = t`. Whether there is anything to do: until `T > T_max`.
    pub(crate) fn synchronize(&mut self) -> Result<bool, AgentError> {
        let Self { number, shared, model, target, target_version, copied_at, frames, .. } = self;
        let over = || shared.failed() || shared.frames.get() >= shared.goal.load(Relaxed);
        let copied = shared.turns.take(*number, over, || {
            *copied_at = shared.updates.get();
            *frames = shared.frames.get();
            shared.theta.read(&mut model.theta); // θ′
            if let Some((theta, version)) = &shared.target {
                let version = version.get();
                if *target_version != Some(version) {
                    theta.read(target); // θ⁻
                    *target_version = Some(version);
                }
            }
        })?;
        self.d_theta.fill(0.0);
        self.passes.go_on(&self.segment);
        self.passes.begin(self.stepper.state());
        self.segment.clear();
        Ok(copied.is_some())
    }
    /// Whether the segment goes on: until a terminal `s_t` or `t − t_start = t_max`.
    pub(crate) fn is_acting(&self) -> bool {
        !self.segment.is_over()
    }
    /// `a_t ~ π(·|s_t; θ′)`; take it, receive `r_t` and `s_{t+1}`.
    pub(crate) fn act(&mut self) -> Result<(), AgentError> {
        self.sums.flops += self.model.actor().net.forward_flops() as u64;
        self.stepper.act(&self.model)?;
        self.step()
    }
    /// `a_t` ε-greedy in `Q(s_t, ·; θ′)`; take it, receive `r_t` and `s_{t+1}`.
    pub(crate) fn act_greedily(&mut self) -> Result<(), AgentError> {
        self.draw()?;
        self.sums.epsilon += f64::from(self.epsilon());
        self.step()?;
        let Self { exploration, segment, .. } = self;
        if let Some(e) = exploration
            && segment.end() != End::Running
            && e.settings.epsilon_draw == EpsilonDraw::Episode
        {
            e.end = e.settings.draw(&mut e.stream);
        }
        Ok(())
    }
    /// Draws the next action, ε-greedy, without taking it.
    fn draw(&mut self) -> Result<(), AgentError> {
        let epsilon = self.epsilon();
        let Self { stepper, model, passes, exploration, .. } = self;
        let Some(e) = exploration else { return Ok(()) };
        stepper.act_with(model.dist(), |obs, out| {
            let q = passes.q_aside(model, &model.theta, obs);
            soften(q, epsilon, Policy::Greedy, &mut e.column, &mut e.pi, out);
        })
    }
    fn step(&mut self) -> Result<(), AgentError> {
        self.stepper.advance()?;
        let transition = self.stepper.transition(0);
        if transition.is_lost() {
            // What the segment holds of the lost episode is not learnt from; another episode begins it anew.
            self.lost += self.segment.len() as u64 + 1;
            self.segment.clear();
        } else {
            self.segment.push(&transition);
        }
        Ok(())
    }
    /// The present ε.
    pub(crate) fn epsilon(&self) -> f32 {
        self.exploration.as_ref().map_or(0.0, |e| e.settings.anneal(e.end, self.frames) as f32)
    }
    /// Draws `a′`, the action that follows the last step, and writes `π(·|s_t)`: 1 for it and 0 for the
    /// others. Where the episode ended there is none to draw: then all that ε-greedy might have drawn.
    pub(crate) fn next_policy(&mut self) -> Result<(), AgentError> {
        if self.segment.end() == End::Running {
            self.draw()?;
            self.pi_next.fill(0.0);
            self.pi_next[alternative(self.stepper.drawn(0))] = 1.0;
            return Ok(());
        }
        let epsilon = self.epsilon();
        let Self { model, passes, segment, pi_next, .. } = self;
        let best = greedy(passes.q_aside(model, &model.theta, segment.last_obs()).data());
        let n = pi_next.len() as f32;
        pi_next.fill(epsilon / n);
        pi_next[best] += 1.0 - epsilon;
        Ok(())
    }
    /// What a return starts from behind the last step: 0 after a terminal state, else what `value` says of
    /// `s_t`, the final observation where a time limit cut the episode.
    pub(crate) fn after_last(&mut self, value: impl FnOnce(&mut Self) -> f32) -> Result<f32, AgentError> {
        let v = if self.segment.end() == End::Terminated { 0.0 } else { value(self) };
        let last = self.segment.len() - 1;
        self.segment.finite("value", last, self.segment.after(last, v, self.bootstrap_time_limit))
    }
    /// Asynchronous update of `θ` using `dθ`.
    pub(crate) fn update(&mut self) -> Result<(), AgentError> {
        let Self { number, shared, d_theta, own, segment, sums, copied_at, .. } = self;
        let norm = clip_global_norm(d_theta, self.max_grad_norm);
        // A mean square has room for squares of numbers up to this.
        if !norm.is_finite() || norm.min(self.max_grad_norm) >= f64::from(f32::MAX).sqrt() {
            let worse = |a: usize, b: usize| if d_theta[b].abs() > d_theta[a].abs() { b } else { a };
            let worst = || (1..d_theta.len()).fold(0, worse);
            let index = kernels::first_non_finite(d_theta).unwrap_or_else(worst);
            let (tensor, i) = self.model.parameter_name(index);
            return Err(AgentError::Update { tensor, index: i, step: self.frames, value: d_theta[index] });
        }
        let steps = segment.len() as u64;
        shared.turns.take(
            *number,
            || shared.failed(),
            || {
                let stale = shared.updates.add(1) - *copied_at;
                let before = shared.frames.add(steps); // T
                let backwards = *number % 2 == 1; // half of the threads
                shared.rule.step(&shared.theta, own, d_theta, shared.alpha(before), backwards); // θ
                shared.renew_target(before, before + steps); // θ⁻
                sums.count(steps, norm, stale);
            },
        )?;
        Ok(())
    }
    pub(super) fn panic(&self, payload: &(dyn std::any::Any + Send)) -> AgentError {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        let (episode, step) = self.stepper.position(0);
        AgentError::Panic {
            env: self.number,
            episode,
            step,
            message: text.unwrap_or("(it said nothing)").into(),
        }
    }
}

/// What is reported, summed over the steps of an iteration.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sums {
    pub(super) steps: u64,
    pub(super) updates: u64,
    pub(super) grad_norm: f64,
    pub(super) stale: u64,
    pub(super) stale_max: u64,
    pub(super) stale_bins: [u64; BINS],
    /// Floating-point operations of acting.
    pub(super) flops: u64,
    pub(crate) epsilon: f64,
    /// Error of the value: what it should be minus what it is.
    pub(crate) error: f64,
    pub(crate) squared_error: f64,
    pub(crate) value: f64,
    /// Of the policy, to be climbed.
    pub(crate) objective: f64,
    pub(crate) entropy: f64,
}

impl Sums {
    fn count(&mut self, steps: u64, norm: f64, stale: u64) {
        self.steps += steps;
        self.updates += 1;
        self.grad_norm += norm;
        self.stale += stale;
        self.stale_max = self.stale_max.max(stale);
        let bin = match stale {
            0..=3 => stale as usize,
            4..=7 => 4,
            _ => 5,
        };
        self.stale_bins[bin] += 1;
    }
    /// Adds a step with its value and the error of that value.
    pub(crate) fn add(&mut self, value: f32, error: f32) {
        let error = f64::from(error);
        self.value += f64::from(value);
        self.error += error;
        self.squared_error += error * error;
    }
    /// Adds a step of a policy with its part of the objective and its entropy.
    pub(crate) fn add_policy(&mut self, objective: f32, entropy: f32) {
        self.objective += f64::from(objective);
        self.entropy += f64::from(entropy);
    }
    pub(super) fn merge(&mut self, other: &Self) {
        self.steps += other.steps;
        self.updates += other.updates;
        self.grad_norm += other.grad_norm;
        self.stale += other.stale;
        self.stale_max = self.stale_max.max(other.stale_max);
        self.stale_bins.iter_mut().zip(other.stale_bins).for_each(|(a, b)| *a += b);
        self.epsilon += other.epsilon;
        self.error += other.error;
        self.squared_error += other.squared_error;
        self.value += other.value;
        self.objective += other.objective;
        self.entropy += other.entropy;
    }
}
