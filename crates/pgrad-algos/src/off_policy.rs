//! What methods have in common that learn about one policy from the actions of another.

use crate::algorithm::{BuildError, Setup};
use crate::common::{Activation, ModelSettings};
use crate::state::Saved;
use pgrad_collect::Stepper;
use pgrad_env::{EnvSpec, Space};
use pgrad_math::dist::Actions;
use pgrad_model::{ActorCritic, AgentError, Critic, Policy, Trunk};
use pgrad_nn::NetworkTape;
use pgrad_num::{Cols, ColsMut, Record, RecordError, kernels};
use pgrad_settings::{choice, settings};

choice! {
    /// Policy whose actions are taken while learning.
    pub enum BehaviourKind {
        /// The uniform distribution over actions.
        Uniform = "uniform",
        /// A policy from a file.
        Policy = "policy",
        /// The policy being learnt, mixed with uniformly random actions.
        SoftTarget = "soft-target",
    }
}

settings! {
    /// The behaviour policy b.
    pub struct BehaviourSettings {
        /// Policy whose actions are taken while learning.
        behaviour: BehaviourKind = BehaviourKind::Uniform, source: "Degris, White, Sutton 2012, section 4";
        /// Path of the behaviour policy, a `policy.safetensors` with the same observations and actions.
        behaviour_policy: String = String::new(), when: behaviour is "policy";
        /// Probability of drawing an action uniformly instead of from the policy being learnt (before masks).
        /// Bounds importance weights by 1/(1 - behaviour_epsilon).
        behaviour_epsilon: f64 = 0.5, range: 0.0..=1.0, when: behaviour is "soft-target";
        /// Divide all step sizes by the squared norm of the value's gradient; with binary features, this is
        /// the number of active features.
        normalize_step: bool = true, source: "RLPark, OffPolicyControlTests";
    }
}

settings! {
    /// Function approximation.
    pub struct FeatureSettings {
        /// Units in each hidden layer; an empty list gives the linear function of the papers, which starts at
        /// 0.
        hidden: Vec<usize> = Vec::new(), range: 1..=8192, unit: "units",
            source: "Degris, White, Sutton 2012, section 3";
        /// Activation function of the hidden units.
        activation: Activation = Activation::Tanh;
    }
}

impl BehaviourSettings {
    /// The file that has to be read, and the setting that names it.
    pub(crate) fn file(&self) -> Option<(&'static str, &str)> {
        let asked = self.behaviour == BehaviourKind::Policy && !self.behaviour_policy.is_empty();
        asked.then_some(("behaviour_policy", self.behaviour_policy.as_str()))
    }
    /// Refuses what is not a choice among alternatives, and the policy of a `file` that does not fit.
    pub(crate) fn check(&self, file: Option<&[u8]>, env: &EnvSpec) -> Result<(), BuildError> {
        check_discrete(env)?;
        if self.behaviour == BehaviourKind::Policy {
            Behaviour::from_file(self, file, env)?;
        }
        Ok(())
    }
    /// As [`BehaviourSettings::check`], of a method that asks for the values of all actions in the next
    /// state.
    pub(crate) fn check_values(&self, file: Option<&[u8]>, env: &EnvSpec) -> Result<(), BuildError> {
        check_masks(env)?;
        self.check(file, env)
    }
}

impl FeatureSettings {
    /// Builds a policy (or the values of all actions) and what critic the algorithm needs.
    pub(crate) fn build(
        &self,
        env: &EnvSpec,
        critic: Critic,
        seed: impl Into<Option<u64>>,
    ) -> Result<ActorCritic, BuildError> {
        let Self { hidden, activation } = self.clone();
        let linear = hidden.is_empty();
        let settings = ModelSettings { hidden, activation, ..ModelSettings::default() };
        let mut model = settings.build(env, critic, Trunk::Separate, seed)?;
        if linear {
            model.theta.fill(0.0);
        }
        Ok(model)
    }
}

/// A policy (or the values of all actions) that learns off-policy, what critic it needs, and the behaviour
/// policy.
pub(crate) fn off_policy(
    setup: &Setup<'_>,
    n_envs: usize,
    (behaviour, file): (&BehaviourSettings, Option<&[u8]>),
    features: &FeatureSettings,
    critic: Critic,
    target: Target,
) -> Result<(ActorCritic, Behaviour), BuildError> {
    let model = features.build(setup.spec, critic, setup.seed)?;
    let behaviour = Behaviour::new(behaviour, file, setup.spec, target, &model, n_envs)?;
    Ok((model, behaviour))
}

/// The policy that is learnt, as a function of the outputs of its network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Target {
    /// The action of the largest output, the first one of equals.
    Greedy,
    /// `π(a|s) ∝ exp(y_a / T)`.
    Softmax {
        /// `T`.
        temperature: f32,
    },
}

impl Target {
    /// Writes the probabilities of all actions.
    pub(crate) fn probabilities(self, outputs: &[f32], pi: &mut [f32]) {
        let best = greedy(outputs);
        match self {
            Self::Greedy => {
                pi.fill(0.0);
                pi[best] = 1.0;
            }
            Self::Softmax { temperature } => {
                for (p, y) in pi.iter_mut().zip(outputs) {
                    *p = kernels::exp1((y - outputs[best]) / temperature);
                }
                let total: f32 = pi.iter().sum();
                pi.iter_mut().for_each(|p| *p /= total);
            }
        }
    }
}

/// The action of the largest output, the first one of equals.
pub(crate) fn greedy(outputs: &[f32]) -> usize {
    let larger = |best: usize, a: usize| if outputs[a] > outputs[best] { a } else { best };
    (1..outputs.len()).fold(0, larger)
}

/// The index of an action of a discrete space.
///
/// # Panics
/// With numbers: [`BehaviourSettings::check`] refuses their spaces.
pub(crate) fn alternative(action: Actions<'_, f32>) -> usize {
    action.index.at(0, 0) as usize
}

/// The behaviour policy at work.
pub(crate) struct Behaviour {
    actor: BehaviourActor,
    normalize_step: bool,
}

/// Who acts.
enum BehaviourActor {
    Uniform,
    Policy { policy: Box<Policy>, bytes: Vec<u8> },
    SoftTarget { epsilon: f32, target: Target, tape: Box<NetworkTape<f32>>, column: Vec<f32>, pi: Vec<f32> },
}

impl Behaviour {
    /// The policy in a file, when that is asked for and fits.
    fn from_file(c: &BehaviourSettings, file: Option<&[u8]>, env: &EnvSpec) -> Result<Policy, BuildError> {
        let wrong = |reason: String| BuildError::Inconsistent {
            key: "behaviour_policy",
            value: format!("`{}`", c.behaviour_policy),
            reason,
        };
        let bytes = file.ok_or_else(|| {
            wrong(
                "`behaviour` is `policy`, which needs the path of a finished run's \
                `policy.safetensors`"
                    .into(),
            )
        })?;
        let policy = Policy::from_bytes(bytes).map_err(|e| wrong(e.to_string()))?;
        if policy.obs_dim() != env.observation.obs_dim() || *policy.action_space() != env.action {
            return Err(wrong(format!(
                "it was trained on `{}`, with {} observation components and actions {}; `{}` has {} and {}",
                policy.env_id(),
                policy.obs_dim(),
                policy.action_space(),
                env.id,
                env.observation.obs_dim(),
                env.action
            )));
        }
        Ok(policy)
    }
    fn new(
        c: &BehaviourSettings,
        file: Option<&[u8]>,
        env: &EnvSpec,
        target: Target,
        model: &ActorCritic,
        n_envs: usize,
    ) -> Result<Self, BuildError> {
        let actor = match c.behaviour {
            BehaviourKind::Uniform => BehaviourActor::Uniform,
            BehaviourKind::Policy => BehaviourActor::Policy {
                policy: Box::new(Self::from_file(c, file, env)?.with_batch(n_envs)),
                bytes: file.unwrap_or_default().to_vec(),
            },
            BehaviourKind::SoftTarget => BehaviourActor::SoftTarget {
                epsilon: c.behaviour_epsilon as f32,
                target,
                tape: Box::new(model.actor().net.tape(n_envs)),
                column: vec![0.0; model.dist().n_outputs()],
                pi: vec![0.0; model.dist().n_outputs()],
            },
        };
        Ok(Self { actor, normalize_step: c.normalize_step })
    }
    /// Draws `a_t ~ b(·|s_t)` in the present states.
    pub(crate) fn act(&mut self, stepper: &mut Stepper, model: &ActorCritic) -> Result<(), AgentError> {
        stepper.act_with(model.dist(), |obs, mut out| match &mut self.actor {
            BehaviourActor::Uniform => out.data_mut().fill(0.0),
            BehaviourActor::Policy { policy, .. } => policy.outputs(obs, out),
            BehaviourActor::SoftTarget { epsilon, target, tape, column, pi } => {
                let outputs = model.policy_outputs(obs, tape);
                soften(outputs.as_cols(), *epsilon, *target, column, pi, out);
            }
        })
    }
    /// The bytes of its file.
    fn file(&self) -> &[u8] {
        match &self.actor {
            BehaviourActor::Policy { bytes, .. } => bytes,
            _ => &[],
        }
    }
    /// What a step size is divided by: `‖∇Q‖²` or `‖∇V‖²`, the number of active features when these are
    /// binary; or 1.
    pub(crate) fn norm(&self, gradient: &[f32]) -> f32 {
        if self.normalize_step {
            (kernels::dot(gradient, gradient) as f32).max(f32::MIN_POSITIVE)
        } else {
            1.0
        }
    }
}

/// What makes it another behaviour: the bytes of its file.
impl Saved for Behaviour {
    fn save(&self, name: &str, to: &mut Record) {
        to.put(name, self.file().to_vec());
    }
    fn load(&mut self, name: &str, from: &Record) -> Result<(), RecordError> {
        let own = self.file();
        if from.u8s(name, own.len()).is_ok_and(|saved| saved == own) {
            return Ok(());
        }
        let reason = "the behaviour policy's file has changed since the run began";
        Err(RecordError::Value { name: name.into(), reason: reason.into() })
    }
}

/// `ln b` with `b = (1 − ε) π + ε / n`, for a batch.
pub(crate) fn soften(
    outputs: Cols<'_, f32>,
    epsilon: f32,
    target: Target,
    column: &mut [f32],
    pi: &mut [f32],
    mut out: ColsMut<'_, f32>,
) {
    let n = outputs.rows();
    for b in 0..outputs.cols() {
        column.iter_mut().enumerate().for_each(|(a, y)| *y = outputs.at(a, b));
        target.probabilities(column, pi);
        for (a, p) in pi.iter().enumerate() {
            // A greedy policy without random actions has probabilities of 0; ln 0 is no logit.
            let b_a = ((1.0 - epsilon) * p + epsilon / n as f32).max(f32::MIN_POSITIVE);
            out.set(a, b, b_a.ln());
        }
    }
}

/// That an action is one choice among alternatives.
pub(crate) fn check_discrete(env: &EnvSpec) -> Result<(), BuildError> {
    if matches!(env.action, Space::Discrete { .. }) {
        return Ok(());
    }
    let reason = format!("the method needs a `Discrete` action space, not {}", env.action);
    Err(BuildError::environment(env, reason))
}

/// That no action is ever forbidden: a method that asks for the best action in `s'` would need the mask of
/// `s'`.
pub(crate) fn check_masks(env: &EnvSpec) -> Result<(), BuildError> {
    if env.masks_actions {
        let reason = "the method considers all actions in the next state and cannot know which are allowed there; \
            `action_masks=ignore` ignores the masks of a Gymnasium environment";
        return Err(BuildError::environment(env, reason));
    }
    Ok(())
}

/// The model with all outputs of its policy divided by `temperature`.
pub(crate) fn with_temperature(model: &ActorCritic, temperature: f32) -> ActorCritic {
    let mut scaled = model.clone();
    for view in model.views().iter().filter(|v| v.name.starts_with("actor.logits")) {
        scaled.theta[view.range.clone()].iter_mut().for_each(|x| *x /= temperature);
    }
    scaled
}

/// That the auxiliary weights are finite.
pub(crate) fn check_auxiliary(w: &[f32], step: u64) -> Result<(), AgentError> {
    match kernels::first_non_finite(w) {
        None => Ok(()),
        Some(index) => Err(AgentError::Update { tensor: "w".into(), index, step, value: w[index] }),
    }
}
