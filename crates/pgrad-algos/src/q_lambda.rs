//! Watkins's Q(λ). Watkins 1989; Sutton and Barto, "Reinforcement Learning", 1st edition, 1998, section 7.6:
//! the first rival of Off-PAC (Degris, White, Sutton 2012, section 4).
//!
//! Actions come from a behaviour policy; what is learnt are the values of the greedy policy. After every
//! step, with `φ = ∇_θ Q(s,a)` (for a linear function the features of `s`, at `a`):
//!
//! ```text
//! δ = r + γ(s') max_a' Q(s',a') − Q(s,a)
//! e ← φ + γ λ e    where a is greedy in s
//! e ← φ            elsewhere: what follows is not what the greedy policy does
//! θ ← θ + α δ e
//! ```
//!
//! With function approximation it may diverge: it follows no gradient.

use crate::off_policy::{
    Behaviour, BehaviourSettings, FeatureSettings, Target, alternative, greedy, off_policy,
};
use crate::online::{Means, Online, OnlineSettings, Updates, online, online_needs};
use crate::prelude::*;

/// Q(λ) at work. The network of the policy holds `Q`: its most probable action is the greedy one.
struct QLambda {
    config: QLambdaSettings,
    behaviour: Behaviour,
    e: Traces,
    /// Room for a cotangent of `Q`.
    d_q: Vec<f32>,
}

impl Method for QLambda {
    type Source = Online;

    fn iterate(&mut self, agent: &mut Agent<Online>) -> Result<Report, AgentError> {
        let Self { config: c, behaviour, e, d_q } = self;
        let (gamma, bootstrap) = agent.source.discount();
        let lambda = c.lambda as f32;
        let mut means = Means::default();
        for _ in 0..agent.begin() {
            let [alpha] = agent.step_sizes([c.alpha]);
            agent.step_off_policy(behaviour)?; // a ~ b(·|s); take a, observe r, s'
            let Updates { model, stepper, point, score: phi, d_theta, .. } = agent.updates();
            for b in 0..stepper.n_envs() {
                let t = stepper.transition(b);
                if t.is_lost() {
                    e.reset(b);
                    continue; // the step did not happen
                }
                let a = alternative(t.action);
                let q_next = point.outputs(model, t.next_obs);
                let q_next = t.finite("value", q_next[greedy(q_next)])?; // max_a' Q(s',a')
                let q = point.outputs(model, t.obs);
                let (best, q) = (q[greedy(q)], t.finite("value", q[a])?); // max_a Q(s,a), Q(s,a)
                let gamma_next = after_step(t.end, gamma, bootstrap); // γ(s')
                let delta = t.finite("TD error", t.reward + gamma_next * q_next - q)?; // δ
                d_q.fill(0.0);
                d_q[a] = 1.0;
                point.output_gradient(model, t.obs, d_q, phi); // φ
                let is_greedy = q >= best;
                let e = e.accumulate(b, if is_greedy { gamma * lambda } else { 0.0 }, 1.0, phi); // e
                kernels::axpy(alpha / behaviour.norm(phi) * delta, e, d_theta); // θ
                if !t.continues() {
                    e.fill(0.0); // the next episode begins
                }
                means.add(delta, q, if is_greedy { 1.0 } else { 0.0 });
            }
            agent.learn()?;
        }
        Ok(means.report("learn/greedy_fraction"))
    }

    state! { behaviour, e }
}

settings! {
    /// Q(λ).
    pub struct QLambdaSettings {
        /// Step size (alpha).
        alpha: f64 = 0.1, range: above(0.0), source: "RLPark, OffPolicyControlTests";
        /// Decay of the trace while actions are greedy (lambda): 0 is Q-learning.
        lambda: f64 = 0.6, range: 0.0..=1.0, source: "RLPark, OffPolicyControlTests";
    }
}

config! {
    name: "q-lambda", title: "Watkins's Q(lambda)",
    source: "Watkins 1989; Sutton and Barto 1998, section 7.6";
    /// All settings of Q(λ).
    pub struct QLambdaConfig {
        online: OnlineSettings,
        q_lambda: QLambdaSettings,
        behaviour: BehaviourSettings,
        features: FeatureSettings,
    }
    with behaviour_file of behaviour
}

impl AlgoConfig for QLambdaConfig {
    fn check(&self, env: &EnvSpec) -> Result<(), BuildError> {
        self.behaviour.check_values(self.behaviour_file.as_deref(), env)
    }
    fn needs(&self, env: &EnvSpec, threads: usize) -> Result<Needs, BuildError> {
        let model = self.features.build(env, Critic::None, None)?;
        Ok(online_needs(&self.online, &model, (env, threads), 0, true))
    }
    fn assemble(&self, setup: &Setup<'_>) -> Result<Box<dyn Algorithm>, BuildError> {
        let n_envs = self.online.n_envs;
        let behaviour = (&self.behaviour, self.behaviour_file.as_deref());
        let (model, behaviour) =
            off_policy(setup, n_envs, behaviour, &self.features, Critic::None, Target::Greedy)?;
        let q_lambda = QLambda {
            config: self.q_lambda.clone(),
            behaviour,
            e: Traces::new(n_envs, model.actor().params.len()),
            d_q: vec![0.0; model.dist().n_outputs()],
        };
        online(&self.online, model, setup, q_lambda)
    }
}
