//! Asynchronous one-step Q-learning. Mnih, Badia, Mirza, Graves, Lillicrap, Harley, Silver, Kavukcuoglu 2016,
//! arXiv:1602.01783, Algorithm 1.
//!
//! Each actor-learner thread acts ε-greedily with an ε of its own and adds up, over `I_AsyncUpdate` steps or to the end
//! of the episode,
//!
//! `y = r + γ max_a′ Q(s′,a′;θ⁻)` (`r` for a terminal `s′`), `dθ ← dθ + ∂(y − Q(s,a;θ))² / ∂θ`,
//!
//! then updates the shared `θ` with `dθ`, asynchronously. The shared target network `θ⁻` becomes a copy of `θ` every
//! `I_target` steps of all threads. A thread reads `θ` once for each such piece of an episode.

use crate::algorithm::{AlgoConfig, Algorithm, BuildError, PhaseObserver, Report, Reproducible, Setup};
use crate::asynchronous::{
    ActorLearner, ActorLearners, AsyncSettings, AsyncValueSettings, QNetworkSettings, async_algorithm,
    async_config, async_value_method, largest,
};
use pgrad_agent::{ActorCritic, AgentError, ObsNormalizer};
use pgrad_env::{EnvSpec, Episode};
use pgrad_num::{Record, RecordError, Team};
use pgrad_settings::Settings;

/// The registry's line.
pub const ENTRY: crate::AlgoEntry = crate::AlgoEntry {
    name: "async-q",
    title: "Asynchronous one-step Q-learning",
    source: "Mnih et al. 2016, arXiv:1602.01783",
    config: || Box::new(AsyncQConfig::default()),
};

async_value_method! {
    /// All settings of asynchronous one-step Q-learning.
    AsyncQConfig,
    /// Asynchronous one-step Q-learning at work. The network of the policy holds `Q`: its most probable action is the greedy one.
    AsyncQ
}

impl Algorithm for AsyncQ {
    fn iterate(&mut self, team: &Team) -> Result<Report, AgentError> {
        let Self { gamma, run } = self;
        let gamma = *gamma as f32;
        run.run(team, |w| {
            while w.synchronize()? {
                // dθ ← 0; until T > T_max
                while w.is_acting() {
                    w.act_greedily()?; // a: ε-greedy in Q(s,·;θ); s′, r; until I_AsyncUpdate steps or terminal s
                }
                let ActorLearner {
                    model,
                    target,
                    segment: s,
                    passes,
                    d_theta,
                    d_v: d_q,
                    d_logp: y,
                    sums,
                    ..
                } = w;
                let n = s.len();
                let q_next = passes.q_aside(model, target, s.next_obs()); // Q(s′,·;θ⁻)
                for i in 0..n {
                    let v_next = s.after(i, largest(q_next, i), w.bootstrap_time_limit); // max_a′, 0 for terminal s′
                    y[i] = s.reward(i) + gamma * v_next; // y
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
        Ok(run.value_report())
    }

    async_algorithm!();

    fn learn_flops(&self) -> f64 {
        let net = &self.run.model.actor().net;
        (3 * net.forward_flops() + net.vjp_flops()) as f64 * self.steps_per_iteration() as f64
    }
}
