//! Watkins's Q(λ). Watkins 1989; Sutton and Barto, "Reinforcement Learning", 1st edition, 1998, section 7.6: the
//! first rival of Off-PAC (Degris, White, Sutton 2012, section 4).
//!
//! Actions come from a behaviour policy; what is learnt are the values of the greedy policy. After every step, with
//! `φ = ∇_θ Q(s,a)` (for a linear function the features of `s`, at `a`):
//!
//! ```text
//! δ = r + γ(s') max_a' Q(s',a') − Q(s,a)
//! e ← φ + γ λ e    where a is greedy in s;    e ← φ elsewhere: what follows is not what the greedy policy does
//! θ ← θ + α δ e
//! ```
//!
//! With function approximation it may diverge: it follows no gradient.

use crate::algorithm::{AlgoConfig, Algorithm, BuildError, Phase, PhaseObserver, Report, Setup};
use crate::off_policy::{
    self, Behaviour, BehaviourSettings, FeatureSettings, Means, Target, alternative, check_masks, greedy,
    norm, off_policy_config,
};
use crate::online::{Online, OnlineSettings, Updates, online_algorithm};
use pgrad_agent::bootstrap::after_step;
use pgrad_agent::{ActorCritic, AgentError, Critic, ObsNormalizer, Traces};
use pgrad_env::{EnvSpec, Episode};
use pgrad_num::{Record, RecordError, Team, kernels};
use pgrad_settings::{Settings, above, settings};

/// The registry's line.
pub const ENTRY: crate::AlgoEntry = crate::AlgoEntry {
    name: "q-lambda",
    title: "Watkins's Q(lambda)",
    source: "Watkins 1989; Sutton and Barto 1998, section 7.6",
    config: || Box::new(QLambdaConfig::default()),
};

settings! {
    /// Q(λ).
    pub struct QLambdaSettings {
        /// Step size (alpha).
        alpha: f64 = 0.1, range: above(0.0), source: "RLPark, OffPolicyControlTests";
        /// How long the trace lasts while actions are greedy: 0 is Q-learning.
        lambda: f64 = 0.6, range: 0.0..=1.0, source: "RLPark, OffPolicyControlTests";
    }
}

off_policy_config! {
    /// All settings of Q(λ).
    QLambdaConfig { q_lambda: QLambdaSettings } of QLambda, check: check_masks
}

/// Q(λ) at work. The network of the policy holds `Q`: its most probable action is the greedy one.
pub struct QLambda {
    config: QLambdaSettings,
    normalize: bool,
    run: Online,
    behaviour: Behaviour,
    e: Traces,
    /// Room for a cotangent of `Q`.
    d_q: Vec<f32>,
}

impl std::fmt::Debug for QLambda {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QLambda")
            .field("config", &self.config)
            .field("steps", &self.run.steps)
            .finish_non_exhaustive()
    }
}

impl Algorithm for QLambda {
    fn iterate(&mut self, _team: &Team) -> Result<Report, AgentError> {
        let Self { config: c, normalize, run, behaviour, e, d_q } = self;
        let (gamma, bootstrap) = (run.settings.gamma as f32, run.settings.bootstrap_time_limit);
        let lambda = c.lambda as f32;
        let mut means = Means::default();
        run.stepper.clear_episodes();
        for _ in 0..run.settings.n_steps {
            let alpha = (c.alpha * run.factor()) as f32;
            run.step_off_policy(behaviour)?; // a ~ b(·|s); take a, observe r, s'
            let Updates { model, stepper, point, score: phi, d_theta, .. } = run.updates();
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
                kernels::axpy(alpha / norm(*normalize, phi) * delta, e, d_theta); // θ
                if !t.continues() {
                    e.fill(0.0); // the next episode begins
                }
                means.add(delta, q, if is_greedy { 1.0 } else { 0.0 });
            }
            run.learn()?;
        }
        (run.observer)(Phase::Done);
        Ok(Report::default()
            .with("learn/td_error", means.td_error())
            .with("learn/td_error_rms", means.td_error_rms())
            .with("learn/value", means.value())
            .with("learn/greedy_fraction", means.rho()))
    }

    online_algorithm!();

    fn learn_flops(&self) -> f64 {
        let actor = &self.run.model.actor().net;
        (3 * actor.forward_flops() + actor.vjp_flops()) as f64 * self.steps_per_iteration() as f64
    }
    fn save(&self) -> Record {
        off_policy::save(&self.run, &self.behaviour, &[("e", &self.e)], &[])
    }
    fn load(&mut self, from: &Record) -> Result<bool, RecordError> {
        let traces = &mut [("e", &mut self.e)];
        off_policy::load(from, &mut self.run, &self.behaviour, traces, &mut [])
    }
}

impl QLambda {
    /// Q(λ) with its environments, not yet started.
    ///
    /// # Errors
    /// When the settings do not fit the environment, or the behaviour policy's file does not.
    pub fn new(config: &QLambdaConfig, setup: &Setup<'_>) -> Result<Self, BuildError> {
        config.check(setup.spec)?;
        let model = config.features.build(setup.spec, Critic::None, setup.seed)?;
        let n_envs = config.online.n_envs;
        let file = config.behaviour_file.as_deref();
        Ok(Self {
            config: config.q_lambda.clone(),
            normalize: config.behaviour.normalize_step,
            behaviour: Behaviour::new(&config.behaviour, file, setup.spec, Target::Greedy, &model, n_envs)?,
            e: Traces::new(n_envs, model.actor().params.len()),
            d_q: vec![0.0; model.dist().n_outputs()],
            run: Online::new(&config.online, model, setup)?,
        })
    }
}
