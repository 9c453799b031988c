//! What one step of one environment leaves for learning.

use pgrad_env::End;
use pgrad_math::dist::Actions;
use pgrad_model::AgentError;
use pgrad_num::Cols;

/// What one environment went through in the last step.
#[derive(Clone, Copy, Debug)]
pub struct Transition<'a> {
    /// Environment.
    pub env: usize,
    /// Episode of that environment, from 0.
    pub episode: u64,
    /// Step `t` of the episode, from 0.
    pub step: u32,
    /// `s_t`, `[obs_dim x 1]`.
    pub obs: Cols<'a, f32>,
    /// `a_t`, one column; real actions as drawn, not clipped.
    pub action: Actions<'a, f32>,
    /// Which alternatives were allowed in `s_t`, one column; `None` without masks.
    pub mask: Option<Cols<'a, bool>>,
    /// Log-probability of `a_t` under the policy that drew it, when it drew it.
    pub logp: f32,
    /// The reward that followed.
    pub reward: f32,
    /// `s_{t+1}`, `[obs_dim x 1]`: the final observation where the episode ended.
    pub next_obs: Cols<'a, f32>,
    /// Which alternatives were allowed in `s_{t+1}`, one column, where the episode ended there; `None`
    /// elsewhere and without masks.
    pub next_mask: Option<Cols<'a, bool>>,
    /// How the step ended.
    pub end: End,
}

impl Transition<'_> {
    /// Whether the next step of this environment belongs to the same episode. Traces are forgotten when not.
    #[must_use]
    pub fn continues(&self) -> bool {
        self.end == End::Running
    }
    /// Whether the environment failed in this step: it did not happen, nothing is learnt from it, and traces
    /// are forgotten.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.end == End::Lost
    }
    /// `value`, which the error calls `what`.
    ///
    /// # Errors
    /// When it is not finite.
    pub fn finite(&self, what: &'static str, value: f32) -> Result<f32, AgentError> {
        if value.is_finite() {
            return Ok(value);
        }
        Err(AgentError::Step { what, env: self.env, episode: self.episode, step: self.step, value })
    }
}
