//! Actor and critic over one flat parameter vector.

use crate::{AgentError, CHUNK, scale::can_be_rescaled};
use pgrad_env::Space;
use pgrad_math::dist::ActionDist;
use pgrad_nn::{Activation, Cell, Dense, Head, Init, Network, NetworkTape, Recurrent, ShapeError, View};
use pgrad_num::{Cols, ColsMut, Stream, kernels};
use std::ops::Range;

/// Purpose number of the stream that initial parameters come from.
const STREAM_INIT: u32 = 2;

/// Whether actor and critic share their hidden layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trunk {
    /// Two networks.
    Separate,
    /// One network with two heads.
    Shared,
}

/// One of the two that a model is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The policy.
    Actor,
    /// What judges it.
    Critic,
}

/// What the critic tells of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Critic {
    /// There is no critic: the model is a policy alone.
    None,
    /// `V(s)`, one number.
    State,
    /// `Q(s, a)` of every action of a discrete space.
    Action,
}

/// Sequences that pass through a recurrent network together, at most: what it keeps of their steps then fits
/// the second cache at the usual lengths. Part of the results: sums over a minibatch are made of the sums of
/// such pieces.
const SEQUENCES: usize = 32;

/// A recurrent layer between the observation and the hidden layers of each network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recurrence {
    /// Which layer.
    pub cell: Cell,
    /// Its units.
    pub size: usize,
    /// Steps of a sequence in training: derivatives go back to its first step, and no further.
    pub sequence_length: usize,
    /// The largest number of steps that units remember for at first.
    pub span: Option<usize>,
}

/// How many samples go through a network together: `cols` sequences of `steps` steps. Without a memory every
/// sample is a sequence of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkShape {
    /// Steps of a sequence.
    pub steps: usize,
    /// Sequences.
    pub cols: usize,
}

impl ChunkShape {
    /// Samples of a full chunk.
    #[must_use]
    pub fn samples(self) -> usize {
        self.steps * self.cols
    }
}

/// What a model looks like: enough to build it again.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelShape {
    /// Numbers of an observation.
    pub obs_dim: usize,
    /// Space of actions.
    pub action: Space,
    /// Widths of the hidden layers.
    pub hidden: Vec<usize>,
    /// Activation function of the hidden units.
    pub activation: Activation,
    /// Whether actor and critic share their hidden layers; [`Trunk::Separate`] when there is no critic.
    pub trunk: Trunk,
    /// What the critic tells.
    pub critic: Critic,
    /// Initial log standard deviation of a Gaussian policy.
    pub log_std_init: f64,
}

impl ModelShape {
    /// The distribution over actions that fits the action space. That of a product has one Gaussian, for the
    /// numbers of all its boxes, after the choices: where a network has its free outputs.
    #[must_use]
    pub fn dist(&self) -> ActionDist {
        let of = |space: &Space| match space {
            Space::Discrete { n } => ActionDist::Categorical { n: *n },
            Space::MultiDiscrete { nvec } => ActionDist::MultiCategorical { nvec: nvec.clone() },
            Space::MultiBinary { n } => ActionDist::Bernoulli { n: *n },
            numbers => ActionDist::DiagGaussian { dim: numbers.real_dim() },
        };
        let Space::Product { parts } = &self.action else { return of(&self.action) };
        let choices = parts.iter().map(|part| &part.space).filter(|space| space.real_dim() == 0).map(of);
        let dim = self.action.real_dim();
        let numbers = (dim > 0).then_some(ActionDist::DiagGaussian { dim });
        ActionDist::Product { parts: choices.chain(numbers).collect() }
    }
    /// The heads of the policy: logits of what it chooses among, means and a free log-std of its numbers.
    fn policy_heads(&self) -> Vec<Head> {
        // A gain of 0.01 makes the first policy nearly uniform, whatever the observation (Andrychowicz et
        // al. 2021, section 3.2).
        let linear = |name, rows| Head::Linear { name, rows, gain: 0.01 };
        let dim = self.action.real_dim();
        let logits = self.dist().n_outputs() - 2 * dim;
        let mut heads = Vec::new();
        if logits > 0 {
            heads.push(linear("logits", logits));
        }
        if dim > 0 {
            heads.push(linear("mean", dim));
            heads.push(Head::Free { name: "log_std", rows: dim, value: self.log_std_init });
        }
        heads
    }
    /// Outputs of the critic: none, 1, or one for each action.
    ///
    /// # Panics
    /// With [`Critic::Action`] in an action space that is not discrete.
    #[must_use]
    pub fn critic_rows(&self) -> usize {
        match (self.critic, &self.action) {
            (Critic::None, _) => 0,
            (Critic::State, _) => 1,
            (Critic::Action, Space::Discrete { n }) => *n,
            (Critic::Action, other) => panic!("a critic of actions needs a discrete space, not {other:?}"),
        }
    }
    /// The policy's own network, as it stands alone ([`Trunk::Separate`]).
    ///
    /// # Errors
    /// When a layer is empty.
    pub fn actor(&self) -> Result<Network, ShapeError> {
        Network::mlp(self.obs_dim, &self.hidden, self.activation, self.policy_heads())
    }
}

/// One network of a model: where its parameters and its outputs lie.
#[derive(Clone, Debug)]
pub struct Part {
    /// The network.
    pub net: Network,
    /// Its parameters in `θ`.
    pub params: Range<usize>,
    /// Prefix of its parameters' names.
    pub name: &'static str,
}

/// Policy and critic: `π_θ(a|s)` and `V_θ(s)`, with all parameters in one vector `θ`.
#[derive(Clone, Debug)]
pub struct ActorCritic {
    /// All parameters.
    pub theta: Vec<f32>,
    shape: ModelShape,
    critic_hidden: Vec<usize>,
    recurrence: Option<Recurrence>,
    /// Which numbers of an action are rescaled; empty where none is.
    rescaled: Vec<bool>,
    dist: ActionDist,
    /// The network that holds the policy, and with a shared trunk the critic too.
    actor: Part,
    /// The critic's own network, if it has one.
    critic: Option<Part>,
    /// Where the parameters of each network end.
    ends: Vec<usize>,
}

impl ActorCritic {
    /// A model with initial parameters from `seed`.
    ///
    /// # Errors
    /// When a layer is empty.
    ///
    /// # Panics
    /// With a shared trunk and no critic, or a critic of actions in a space that is not discrete.
    pub fn new(shape: ModelShape, orthogonal_init: bool, seed: u64) -> Result<Self, ShapeError> {
        let hidden = shape.hidden.clone();
        Self::with_critic(shape, hidden, orthogonal_init, seed)
    }
    /// A model whose critic has hidden layers of its own widths.
    ///
    /// # Errors
    /// When a layer is empty.
    ///
    /// # Panics
    /// As [`ActorCritic::new`]; when a shared trunk is to have other widths for the critic.
    pub fn with_critic(
        shape: ModelShape,
        critic_hidden: Vec<usize>,
        orthogonal_init: bool,
        seed: u64,
    ) -> Result<Self, ShapeError> {
        Self::with_memory(shape, critic_hidden, None, orthogonal_init, seed)
    }
    /// A model whose networks have a recurrent layer on the observation: one each, or one together on a
    /// shared trunk.
    ///
    /// # Errors
    /// When a layer is empty.
    ///
    /// # Panics
    /// As [`ActorCritic::with_critic`]; when a sequence has no steps.
    pub fn with_memory(
        shape: ModelShape,
        critic_hidden: Vec<usize>,
        recurrence: Option<Recurrence>,
        orthogonal_init: bool,
        seed: u64,
    ) -> Result<Self, ShapeError> {
        let mut model = Self::outline(shape, critic_hidden, recurrence)?;
        let init = Init { orthogonal: orthogonal_init, span: recurrence.and_then(|r| r.span) };
        let mut rng = Stream::new(seed, STREAM_INIT, 0);
        let theta: Vec<f32> = model.parts().flat_map(|part| part.net.init::<f32>(init, &mut rng)).collect();
        model.theta = theta;
        Ok(model)
    }
    /// A model that has no parameters yet, to be asked for its sizes: it takes next to no memory.
    ///
    /// # Errors
    /// When a layer is empty.
    ///
    /// # Panics
    /// As [`ActorCritic::with_memory`].
    pub fn outline(
        shape: ModelShape,
        critic_hidden: Vec<usize>,
        recurrence: Option<Recurrence>,
    ) -> Result<Self, ShapeError> {
        let same = critic_hidden == shape.hidden;
        assert!(same || shape.trunk == Trunk::Separate, "a shared trunk has one list of widths");
        assert!(recurrence.is_none_or(|r| r.sequence_length > 0), "a sequence has a step at least");
        let network = |hidden: &[usize], heads| {
            let memory = recurrence.map(|r| Recurrent::spec(r.cell, r.size));
            let hidden = hidden.iter().map(|units| Dense::spec(shape.activation, *units));
            let layers: Vec<_> = memory.into_iter().chain(hidden).collect();
            Network::new(shape.obs_dim, &layers, heads)
        };
        // Where there is no critic, its widths say nothing.
        let critic_hidden = if shape.critic == Critic::None { shape.hidden.clone() } else { critic_hidden };
        let dist = shape.dist();
        let value = Head::Linear { name: "value", rows: shape.critic_rows(), gain: 1.0 };
        let (actor, critic) = match (shape.trunk, shape.critic) {
            (Trunk::Shared, Critic::None) => panic!("a policy alone has nothing to share its trunk with"),
            (Trunk::Separate, Critic::None) => (network(&shape.hidden, shape.policy_heads())?, None),
            (Trunk::Separate, _) => {
                let critic = network(&critic_hidden, vec![value])?;
                (network(&shape.hidden, shape.policy_heads())?, Some(critic))
            }
            (Trunk::Shared, _) => {
                let heads = std::iter::once(value).chain(shape.policy_heads()).collect();
                (network(&shape.hidden, heads)?, None)
            }
        };
        let params = 0..actor.n_params();
        let name = if shape.trunk == Trunk::Shared { "shared" } else { "actor" };
        let critic = critic.map(|net| {
            let params = params.end..params.end + net.n_params();
            Part { net, params, name: "critic" }
        });
        let actor = Part { net: actor, params, name };
        let ends = std::iter::once(&actor).chain(&critic).map(|part| part.params.end).collect();
        let (theta, rescaled) = (Vec::new(), Vec::new());
        Ok(Self { theta, shape, critic_hidden, recurrence, rescaled, dist, actor, critic, ends })
    }
    /// The same model, whose policy chooses the numbers of an action that are marked in units of their range
    /// ([`Rescale::numbers`](crate::Rescale::numbers)); none where the list is empty.
    ///
    /// # Panics
    /// When the list has another length than an action, or a number that is marked has no range.
    #[must_use]
    pub fn with_rescaled(self, rescaled: Vec<bool>) -> Self {
        let fits = rescaled.is_empty() || can_be_rescaled(&self.shape.action, &rescaled);
        assert!(fits, "numbers with a range are rescaled, one mark each: {rescaled:?}");
        Self { rescaled, ..self }
    }
    /// Which numbers of an action are rescaled; empty where none is.
    #[must_use]
    pub fn rescaled(&self) -> &[bool] {
        &self.rescaled
    }
    /// Its networks, the one of the policy first.
    fn parts(&self) -> impl Iterator<Item = &Part> {
        std::iter::once(&self.actor).chain(&self.critic)
    }
    /// Number of all parameters.
    #[must_use]
    pub fn n_params(&self) -> usize {
        self.parts().map(|part| part.net.n_params()).sum()
    }
    /// Gives the network that holds the policy the parameters `theta`.
    ///
    /// # Errors
    /// When one of them is not finite: all stay as they were.
    ///
    /// # Panics
    /// When it has another number of them.
    pub fn set_policy(&mut self, theta: &[f32]) -> Result<(), AgentError> {
        let params = self.actor.params.clone();
        if let Some(i) = kernels::first_non_finite(theta) {
            let (tensor, index) = self.parameter_name(params.start + i);
            return Err(AgentError::Parameter { tensor, index, value: theta[i] });
        }
        self.theta[params].copy_from_slice(theta);
        Ok(())
    }
    /// The parameters, to be changed, and where those of each network end: the actor's first.
    pub fn theta_and_ends(&mut self) -> (&mut [f32], &[usize]) {
        (&mut self.theta, &self.ends)
    }
    /// What the model looks like.
    #[must_use]
    pub fn shape(&self) -> &ModelShape {
        &self.shape
    }
    /// Widths of the critic's hidden layers.
    #[must_use]
    pub fn critic_hidden(&self) -> &[usize] {
        &self.critic_hidden
    }
    /// The recurrent layer of the networks, if there is one.
    #[must_use]
    pub fn recurrence(&self) -> Option<Recurrence> {
        self.recurrence
    }
    /// How many samples of a minibatch of up to `max_samples` go through a network together.
    pub fn chunk(&self, max_samples: usize) -> ChunkShape {
        match self.recurrence {
            None => ChunkShape { steps: 1, cols: CHUNK },
            Some(r) => {
                let steps = r.sequence_length;
                ChunkShape { steps, cols: (max_samples / steps).clamp(1, SEQUENCES) }
            }
        }
    }
    /// The distribution over actions.
    #[must_use]
    pub fn dist(&self) -> &ActionDist {
        &self.dist
    }
    /// The network that holds the policy.
    #[must_use]
    pub fn actor(&self) -> &Part {
        &self.actor
    }
    /// Whether there is a critic.
    #[must_use]
    pub fn has_critic(&self) -> bool {
        self.shape.critic != Critic::None
    }
    /// The network that holds the critic: its own, or the shared one.
    ///
    /// # Panics
    /// When there is no critic.
    #[must_use]
    pub fn critic(&self) -> &Part {
        assert!(self.has_critic(), "this model is a policy alone");
        self.critic.as_ref().unwrap_or(&self.actor)
    }
    /// The network of one of both.
    ///
    /// # Panics
    /// When the critic is asked for and there is none.
    #[must_use]
    pub fn part(&self, role: Role) -> &Part {
        match role {
            Role::Actor => self.actor(),
            Role::Critic => self.critic(),
        }
    }
    /// Whether actor and critic are two networks.
    #[must_use]
    pub fn is_separate(&self) -> bool {
        self.critic.is_some()
    }
    /// Rows of the policy among the outputs of [`ActorCritic::actor`].
    #[must_use]
    pub fn policy_rows(&self) -> Range<usize> {
        let skip = if self.shape.trunk == Trunk::Shared { self.shape.critic_rows() } else { 0 };
        skip..skip + self.dist.n_outputs()
    }
    /// Names, shapes and places of all parameters.
    #[must_use]
    pub fn views(&self) -> Vec<View> {
        self.parts()
            .flat_map(|part| {
                part.net.views().into_iter().map(|v| View {
                    name: format!("{}.{}", part.name, v.name),
                    shape: v.shape,
                    range: v.range.start + part.params.start..v.range.end + part.params.start,
                })
            })
            .collect()
    }
    /// Name and index, within its tensor, of parameter `i`.
    #[must_use]
    pub fn parameter_name(&self, i: usize) -> (String, usize) {
        self.views()
            .into_iter()
            .find(|v| v.range.contains(&i))
            .map_or((String::new(), i), |v| (v.name, i - v.range.start))
    }
    /// The policy's raw outputs for a batch, `[dist.n_outputs() x cols]`.
    pub fn policy_outputs<'t>(&self, x: Cols<'_, f32>, tape: &'t mut NetworkTape<f32>) -> ColsMut<'t, f32> {
        let rows = self.policy_rows();
        let cols = x.cols();
        let out = self.actor.net.forward(&self.theta[self.actor.params.clone()], x, tape).into_data();
        ColsMut::new(&mut out[rows.start * cols..rows.end * cols], rows.len(), cols)
    }
    /// `V(s)` for a batch, or `Q(s, a)` of every action, `[critic_rows x cols]`.
    ///
    /// # Panics
    /// When there is no critic.
    pub fn values<'t>(&self, x: Cols<'_, f32>, tape: &'t mut NetworkTape<f32>) -> &'t mut [f32] {
        let part = self.critic();
        let span = self.shape.critic_rows() * x.cols();
        let out = part.net.forward(&self.theta[part.params.clone()], x, tape).into_data();
        &mut out[..span]
    }
    /// Floating-point operations of the critic for one sample; 0 without a critic.
    #[must_use]
    pub fn value_flops(&self) -> usize {
        if self.has_critic() { self.critic().net.forward_flops() } else { 0 }
    }
    /// Floating-point operations of one sample's forward and backward pass through all networks.
    #[must_use]
    pub fn update_flops(&self) -> usize {
        self.parts().map(|p| p.net.forward_flops() + p.net.vjp_flops()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgrad_env::BoxSpace;

    fn shape(trunk: Trunk, action: Space) -> ModelShape {
        ModelShape {
            obs_dim: 3,
            action,
            hidden: vec![8, 8],
            activation: Activation::Tanh,
            trunk,
            critic: Critic::State,
            log_std_init: -0.5,
        }
    }

    #[test]
    fn views_tile_the_parameters_and_are_named_once() {
        for trunk in [Trunk::Separate, Trunk::Shared] {
            let m =
                ActorCritic::new(shape(trunk, Space::Box(BoxSpace::uniform(-1.0, 1.0, 2))), true, 1).unwrap();
            let views = m.views();
            let mut at = 0;
            for v in &views {
                assert_eq!(v.range.start, at);
                assert_eq!(v.shape.iter().product::<usize>(), v.range.len());
                at = v.range.end;
            }
            assert_eq!(at, m.theta.len());
            let mut names: Vec<_> = views.iter().map(|v| v.name.clone()).collect();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), views.len());
        }
    }

    #[test]
    fn a_shared_trunk_gives_the_value_and_the_policy_their_own_rows() {
        let m = ActorCritic::new(shape(Trunk::Shared, Space::Box(BoxSpace::uniform(-1.0, 1.0, 2))), true, 1)
            .unwrap();
        let mut tape = m.actor().net.tape(5);
        let x: Vec<f32> = (0..15).map(|i| i as f32 * 0.1).collect();
        let x = Cols::new(&x, 3, 5);
        let out = m.policy_outputs(x, &mut tape);
        assert_eq!((out.rows(), out.cols()), (4, 5));
        assert!(out.row(2).iter().all(|v| *v == -0.5), "log-std rows are the free head");
        let policy: Vec<f32> = out.row(0).to_vec();
        let values = m.values(x, &mut tape).to_vec();
        assert_eq!(values.len(), 5);
        assert_ne!(policy, values);
        let bias = m.views().into_iter().find(|v| v.name == "shared.value.bias").unwrap().range.start;
        let mut moved = m.clone();
        moved.theta[bias] += 1.0;
        let shifted = moved.values(x, &mut tape).to_vec();
        assert!(values.iter().zip(&shifted).all(|(a, b)| (b - a - 1.0).abs() < 1e-6));
        assert_eq!(moved.policy_outputs(x, &mut tape).row(0).to_vec(), policy);
    }

    #[test]
    fn a_critic_may_be_missing_or_tell_of_every_action() {
        let with = |trunk, critic| {
            let shape = ModelShape { critic, ..shape(trunk, Space::Discrete { n: 4 }) };
            ActorCritic::new(shape, true, 1).unwrap()
        };
        let alone = with(Trunk::Separate, Critic::None);
        assert!(!alone.has_critic() && alone.value_flops() == 0);
        assert!(alone.views().iter().all(|v| v.name.starts_with("actor.")));
        assert_eq!(alone.policy_rows(), 0..4);
        let x = Cols::new(&[1.0, -2.0, 0.5, 0.1, 0.2, 0.3], 3, 2);
        for (trunk, policy_rows) in [(Trunk::Separate, 0..4), (Trunk::Shared, 4..8)] {
            let m = with(trunk, Critic::Action);
            let mut tape = m.critic().net.tape(2);
            assert_eq!(m.values(x, &mut tape).len(), 8);
            assert_eq!(m.policy_rows(), policy_rows);
        }
        // The policy is the same network, with or without a critic beside it.
        let both = with(Trunk::Separate, Critic::State);
        assert_eq!(alone.theta, both.theta[both.actor().params.clone()]);
    }

    #[test]
    fn a_critic_may_have_widths_of_its_own() {
        let space = Space::Discrete { n: 4 };
        let model = |hidden: &[usize], critic: &[usize]| {
            let shape = ModelShape { hidden: hidden.to_vec(), ..shape(Trunk::Separate, space.clone()) };
            ActorCritic::with_critic(shape, critic.to_vec(), true, 1).unwrap()
        };
        let m = model(&[], &[20]);
        assert_eq!((m.actor().params.len(), m.critic().params.len()), (3 * 4 + 4, 3 * 20 + 20 + 20 + 1));
        assert_eq!(m.critic_hidden(), [20]);
        let alone =
            ModelShape { hidden: vec![], critic: Critic::None, ..shape(Trunk::Separate, space.clone()) };
        assert!(ActorCritic::with_critic(alone, vec![20], true, 1).unwrap().critic_hidden().is_empty());
        let same = model(&[8, 8], &[8, 8]);
        assert_eq!(same.theta, ActorCritic::new(shape(Trunk::Separate, space), true, 1).unwrap().theta);
    }

    #[test]
    fn the_first_policy_is_nearly_uniform() {
        let m = ActorCritic::new(shape(Trunk::Separate, Space::Discrete { n: 4 }), true, 1).unwrap();
        let mut tape = m.actor().net.tape(1);
        let out = m.policy_outputs(Cols::new(&[1.0, -2.0, 0.5], 3, 1), &mut tape).into_data().to_vec();
        assert!(out.iter().all(|l| l.abs() < 0.05), "{out:?}");
    }
}
