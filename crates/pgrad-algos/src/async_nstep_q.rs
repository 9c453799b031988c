//! Asynchronous n-step Q-learning. Mnih, Badia, Mirza, Graves, Lillicrap, Harley, Silver, Kavukcuoglu 2016,
//! arXiv:1602.01783, Algorithm S2.
//!
//! Each actor-learner thread, until `T > T_max`: copy the shared parameters, act ε-greedily with an ε of its
//! own for `t_max` steps or to the end of the episode, and with `R` backwards from `max_a Q(s_t,a;θ⁻)` (0
//! after a terminal state) add up
//!
//! `R ← r_i + γ R`, `dθ ← dθ + ∂(R − Q(s_i,a_i;θ′))² / ∂θ′`,
//!
//! then update the shared `θ` with `dθ`, asynchronously. The shared target network `θ⁻` becomes a copy of `θ`
//! every `I_target` steps of all threads.

use crate::asynchronous::{ActorLearner, ActorLearners, largest, value_config};
use crate::prelude::*;

/// Asynchronous n-step Q-learning at work. The network of the policy holds `Q`: its most probable action is
/// the greedy one.
struct AsyncNstepQ {
    gamma: f32,
}

impl Method for AsyncNstepQ {
    type Source = ActorLearners;

    fn iterate(&mut self, agent: &mut Agent<ActorLearners>) -> Result<Report, AgentError> {
        let gamma = self.gamma;
        agent.run(|w| {
            while w.synchronize()? {
                // dθ ← 0; θ′ ← θ; until T > T_max
                while w.is_acting() {
                    w.act_greedily()?; // a_t: ε-greedy in Q(s_t,·;θ′); r_t, s_{t+1}; until terminal s_t or t_max steps
                }
                let mut ret = w.after_last(|w| {
                    largest(w.passes.q_aside(&w.model, &w.target, w.segment.last_obs()), 0) // R = max_a Q(s_t,a;θ⁻)
                })?;
                let ActorLearner { model, segment: s, passes, d_theta, d_v: d_q, sums, .. } = w;
                let n = s.len();
                let q = passes.q(model, s); // Q(s_i,·;θ′)
                for i in (0..n).rev() {
                    ret = s.reward(i) + gamma * ret; // R ← r_i + γ R
                    let q = q.at(s.action(i), i);
                    let error = s.finite("TD error", i, ret - q)?;
                    d_q[i] = -2.0 * error; // ∂(R − Q(s_i,a_i;θ′))²
                    sums.add(q, error);
                }
                passes.q_backward(model, s, &d_q[..n], d_theta); // dθ
                w.update()?; // asynchronous update of θ using dθ; θ⁻ ← θ if T mod I_target = 0
            }
            Ok(())
        })?;
        Ok(agent.source.value_report())
    }
}

value_config! {
    name: "async-nstep-q", title: "Asynchronous n-step Q-learning",
    source: "Mnih et al. 2016, arXiv:1602.01783";
    /// All settings of asynchronous n-step Q-learning.
    pub struct AsyncNstepQConfig, |gamma| AsyncNstepQ { gamma }
}
