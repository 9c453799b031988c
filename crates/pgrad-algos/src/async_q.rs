//! Asynchronous one-step Q-learning and Sarsa. Mnih, Badia, Mirza, Graves, Lillicrap, Harley, Silver,
//! Kavukcuoglu 2016, arXiv:1602.01783, Algorithm 1 and section 4.2.
//!
//! Each actor-learner thread acts ε-greedily with an ε of its own and adds up, over `I_AsyncUpdate` steps or
//! to the end of the episode,
//!
//! `dθ ← dθ + ∂(y − Q(s,a;θ))² / ∂θ`, where for Q-learning `y = r + γ max_a′ Q(s′,a′;θ⁻)`, and for Sarsa
//! `y = r + γ Q(s′,a′;θ⁻)` with the action `a′` that is taken in `s′` (`y = r` for a terminal `s′`),
//!
//! then updates the shared `θ` with `dθ`, asynchronously. The shared target network `θ⁻` becomes a copy of
//! `θ` every `I_target` steps of all threads. A thread reads `θ` once for each such piece of an episode.
//! Where a time limit cut the episode nobody takes an `a′`: in Sarsa the mean over what ε-greedy might have
//! taken stands for it.

use crate::asynchronous::{ActorLearner, ActorLearners, largest, value_config};
use crate::prelude::*;

/// What `y` looks ahead with: what the two differ in.
#[derive(Clone, Copy, PartialEq)]
enum Target {
    /// `max_a′ Q(s′,a′;θ⁻)`.
    Max,
    /// `Q(s′,a′;θ⁻)`.
    Sarsa,
}

/// One of the two at work. The network of the policy holds `Q`: its most probable action is the greedy one.
struct AsyncQ {
    target: Target,
    gamma: f32,
}

impl Method for AsyncQ {
    type Source = ActorLearners;

    fn iterate(&mut self, agent: &mut Agent<ActorLearners>) -> Result<Report, AgentError> {
        let Self { target, gamma } = *self;
        agent.run(|w| {
            while w.synchronize()? {
                // dθ ← 0; until T > T_max
                while w.is_acting() {
                    w.act_greedily()?; // a: ε-greedy in Q(s,·;θ); s′, r; until I_AsyncUpdate steps or terminal s
                }
                if target == Target::Sarsa {
                    w.next_policy()?; // a′ of the last step
                }
                let ActorLearner {
                    model,
                    target: theta,
                    segment: s,
                    passes,
                    d_theta,
                    d_v: d_q,
                    d_logp: y,
                    sums,
                    ..
                } = w;
                let n = s.len();
                let q_next = passes.q_aside(model, theta, s.next_obs()); // Q(s′,·;θ⁻)
                for i in 0..n {
                    let v_next = match target {
                        Target::Max => largest(q_next, i), // max_a′ Q(s′,a′;θ⁻)
                        Target::Sarsa if i + 1 < n => q_next.at(s.action(i + 1), i), // Q(s′,a′;θ⁻)
                        Target::Sarsa => {
                            w.pi_next.iter().enumerate().map(|(a, pi)| pi * q_next.at(a, i)).sum()
                        }
                    };
                    y[i] = s.reward(i) + gamma * s.after(i, v_next, w.bootstrap_time_limit); // y
                }
                let q = passes.q(model, s); // Q(s,·;θ)
                for i in 0..n {
                    let q = q.at(s.action(i), i);
                    let error = s.finite("TD error", i, y[i] - q)?;
                    d_q[i] = -2.0 * error; // ∂(y − Q(s,a;θ))²
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
    name: "async-q", title: "Asynchronous one-step Q-learning", source: "Mnih et al. 2016, arXiv:1602.01783";
    /// All settings of asynchronous one-step Q-learning.
    pub struct AsyncQConfig, |gamma| AsyncQ { target: Target::Max, gamma }
}

value_config! {
    name: "async-sarsa", title: "Asynchronous one-step Sarsa", source: "Mnih et al. 2016, arXiv:1602.01783";
    /// All settings of asynchronous one-step Sarsa.
    pub struct AsyncSarsaConfig, |gamma| AsyncQ { target: Target::Sarsa, gamma }
}
