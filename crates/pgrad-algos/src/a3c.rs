//! Asynchronous advantage actor-critic. Mnih, Badia, Mirza, Graves, Lillicrap, Harley, Silver, Kavukcuoglu
//! 2016, arXiv:1602.01783, Algorithm S3.
//!
//! Each actor-learner thread, until `T > T_max`: copy the shared parameters, act for `t_max` steps or to the
//! end of the episode, and with `R` backwards from `V(s_t)` (0 after a terminal state) add up
//!
//! `dθ ← dθ + ∇_θ′ log π(a_i|s_i;θ′) (R − V(s_i;θ′_v)) + β ∇_θ′ H(π(s_i;θ′))`,
//! `dθ_v ← dθ_v + ∂(R − V(s_i;θ′_v))² / ∂θ′_v`,
//!
//! then update the shared parameters with `dθ` and `dθ_v`, asynchronously.

use crate::asynchronous::{ActorLearner, ActorLearners, AsyncSettings};
use crate::prelude::*;

/// A3C at work.
struct A3c {
    config: A3cConfig,
}

impl Method for A3c {
    type Source = ActorLearners;

    fn iterate(&mut self, agent: &mut Agent<ActorLearners>) -> Result<Report, AgentError> {
        let A3cConfig { learners, a3c: c, .. } = &self.config;
        let (gamma, beta, c_v) = (learners.gamma as f32, c.entropy_coef as f32, c.value_coef as f32);
        agent.run(|w| {
            while w.synchronize()? {
                // dθ ← 0, dθ_v ← 0; θ′ ← θ, θ′_v ← θ_v; until T > T_max
                while w.is_acting() {
                    w.act()?; // a_t ~ π(a_t|s_t; θ′); r_t, s_{t+1}; until terminal s_t or t − t_start = t_max
                }
                w.passes.forward(&w.model, &w.segment); // π(·|s_i; θ′), V(s_i; θ′_v)
                let mut ret = w.after_last(|w| w.passes.value(&w.model, &w.segment))?; // R
                let ActorLearner { model, segment: s, passes, d_theta, d_logp, d_entropy, d_v, sums, .. } = w;
                let n = s.len();
                let out = passes.outputs(n);
                for i in (0..n).rev() {
                    ret = s.reward(i) + gamma * ret; // R ← r_i + γ R
                    let adv = s.finite("advantage", i, ret - out.v[i])?; // R − V(s_i; θ′_v)
                    d_logp[i] = -adv; // ∇ log π(a_i|s_i; θ′) (R − V(s_i; θ′_v)), downhill
                    d_entropy[i] = -beta; // β ∇ H(π(s_i; θ′))
                    d_v[i] = -2.0 * c_v * adv; // ∂(R − V(s_i; θ′_v))² / ∂θ′_v
                    sums.add(out.v[i], adv);
                    sums.add_policy(out.logp[i] * adv, out.entropy[i]);
                }
                passes.backward(model, s, &d_logp[..n], &d_entropy[..n], &d_v[..n], d_theta); // dθ, dθ_v
                w.update()?; // asynchronous update of θ using dθ and of θ_v using dθ_v
            }
            Ok(())
        })?;
        let mean = agent.source.means();
        let report = Report::default()
            .with("learn/policy_loss", -mean.objective - c.entropy_coef * mean.entropy)
            .with("learn/value_loss", mean.squared_error)
            .with("learn/entropy", mean.entropy)
            .with("learn/value", mean.value);
        Ok(agent.source.report(report))
    }
}

settings! {
    /// Asynchronous advantage actor-critic.
    pub struct A3cSettings {
        /// Weight of the entropy bonus (beta). A larger value keeps the policy more random.
        entropy_coef: f64 = 0.01, range: 0.0..=1e6, unit: "per nat", source: "Mnih et al. 2016, supplement";
        /// Weight of the critic's squared error.
        value_coef: f64 = 0.5, range: 0.0..=1e6, source: "OpenAI baselines, a2c (Algorithm S3 has 1)";
    }
}

settings_like! {
    /// A recurrent layer below the hidden layers.
    ///
    /// One each for actor and critic, or a single one with a shared trunk. A segment is a sequence: gradients
    /// go back to its first step.
    pub struct A3cMemory(RecurrentSettings) without sequence_length {
        recurrent, source: "Mnih et al. 2016, section 5 (A3C, LSTM)";
    }
}

config! {
    name: "a3c", title: "Asynchronous advantage actor-critic", source: "Mnih et al. 2016, arXiv:1602.01783";
    /// All settings of A3C.
    pub struct A3cConfig {
        learners: AsyncSettings,
        a3c: A3cSettings,
        model: ModelSettings,
        recurrent: A3cMemory,
        trunk: TrunkSettings,
    }
    with recording of learners
}

impl A3cConfig {
    /// Policy and critic; without parameters where there is no seed.
    fn networks(&self, env: &EnvSpec, seed: impl Into<Option<u64>>) -> Result<ActorCritic, BuildError> {
        let (memory, hidden) = (self.recurrent.layer(self.learners.n_steps), &self.model.hidden);
        self.model.build_on(memory, env, Critic::State, self.trunk.trunk.into(), hidden, seed)
    }
}

impl AlgoConfig for A3cConfig {
    fn threads(&self, _asked: usize) -> usize {
        self.learners.workers
    }
    fn check(&self, _env: &EnvSpec) -> Result<(), BuildError> {
        self.learners.check(self.recording.as_deref())
    }
    fn needs(&self, env: &EnvSpec, _threads: usize) -> Result<Needs, BuildError> {
        Ok(self.learners.needs(&self.networks(env, None)?, env, false))
    }
    fn assemble(&self, setup: &Setup<'_>) -> Result<Box<dyn Algorithm>, BuildError> {
        let model = self.networks(setup.spec, setup.seed)?;
        let recording = self.recording.as_deref();
        let learners = ActorLearners::new(&self.learners, None, &self.parts(), recording, &model, setup)?;
        Ok(Agent::new(setup, model, learners).runs(A3c { config: self.clone() }))
    }
}
