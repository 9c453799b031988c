//! What is left when training is over: a policy that loads from bytes and acts.

use crate::{
    act::Actor,
    card::{self, PartCard},
    model::{ActorCritic, Critic, ModelShape, Recurrence, Trunk},
    normalize::ObsNormalizer,
    scale::can_be_rescaled,
    tensors::{self, TensorsError},
};
use pgrad_env::{Actions as EnvActions, BoxSpace, ObsSpace, Part, Space};
use pgrad_math::dist::ActionsMut;
use pgrad_nn::{Activation, Cell};
use pgrad_num::{Cols, ColsMut, Record, RecordError, Stream, kernels, rows_to_columns, transpose};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Version of the format.
const FORMAT: u32 = 5;
/// What is written where actions have no parts, so that older versions read it ...
const FORMAT_RESCALED: u32 = 4;
/// ... and where nothing is rescaled either.
const FORMAT_PLAIN: u32 = 3;
/// More parameters than this are taken for a damaged file, before anything is allocated.
const MAX_PARAMETERS: usize = 1 << 31;

/// Why a policy cannot be used.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// The bytes are not a readable file of tensors.
    #[error(transparent)]
    Tensors(#[from] TensorsError),
    /// The description of the policy is missing or cannot be read.
    #[error("not a pgrad policy: {0}")]
    Card(String),
    /// The file was written by a newer version.
    #[error("the policy has format {got}, but this version reads formats up to {FORMAT}: use a newer pgrad")]
    Version {
        /// Format of the file.
        got: u32,
    },
    /// The tensors do not fit the description.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// An observation with a wrong number of numbers.
    #[error("an observation for this policy has {expected} numbers, but got {got}")]
    Observation {
        /// Numbers that the policy needs.
        expected: usize,
        /// Numbers given.
        got: usize,
    },
    /// An observation that is not finite.
    #[error("component {index} of the observation is {value}")]
    NonFinite {
        /// Which number.
        index: usize,
        /// Its value.
        value: f32,
    },
    /// A mask with a wrong number of entries, or that allows nothing.
    #[error(
        "an action mask for this policy has {expected} entries, of which each choice allows at least one"
    )]
    Mask {
        /// Entries that the policy needs.
        expected: usize,
    },
}

/// An action, owned.
#[derive(Clone, Debug, PartialEq)]
pub enum ActionValue {
    /// Of a `Discrete` space.
    Discrete(usize),
    /// Of a `MultiDiscrete` space.
    MultiDiscrete(Vec<u32>),
    /// Of a `MultiBinary` space.
    MultiBinary(Vec<u32>),
    /// Of a `Box` space, inside the bounds.
    Box(Vec<f32>),
    /// Of a product of spaces: each part with its name.
    Product(Vec<(String, ActionValue)>),
}

impl ActionValue {
    /// The action of `space` with these alternatives and numbers ([`Space::index_dim`], [`Space::real_dim`]).
    fn new(space: &Space, index: &[u32], real: &[f32]) -> Self {
        match space {
            Space::Discrete { .. } => Self::Discrete(index[0] as usize),
            Space::MultiDiscrete { .. } => Self::MultiDiscrete(index.to_vec()),
            Space::MultiBinary { .. } => Self::MultiBinary(index.to_vec()),
            Space::Box(_) => Self::Box(real.to_vec()),
            Space::Product { parts } => {
                let (mut index, mut real) = (index, real);
                let part = |Part { name, space }: &Part| {
                    let own = (&index[..space.index_dim()], &real[..space.real_dim()]);
                    (index, real) = (&index[own.0.len()..], &real[own.1.len()..]);
                    (name.clone(), Self::new(space, own.0, own.1))
                };
                Self::Product(parts.iter().map(part).collect())
            }
        }
    }
}

/// How a policy is described in its file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Card {
    format: u32,
    env: String,
    obs_dim: usize,
    action: String,
    sizes: Vec<usize>,
    /// Of a box.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    action_dtype: Option<String>,
    /// Of a product.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    action_parts: Vec<PartCard>,
    /// Which numbers of an action the network chooses in units of their range; absent where none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rescaled: Vec<bool>,
    observation: Vec<PartCard>,
    hidden: Vec<usize>,
    /// Absent when the critic has the policy's widths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    critic_hidden: Option<Vec<usize>>,
    activation: String,
    trunk: String,
    critic: String,
    log_std_init: f64,
    obs_clip: Option<f64>,
    /// Absent without a memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    recurrent: Option<Memory>,
}

/// How a recurrent layer is described.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Memory {
    cell: String,
    size: usize,
}

/// A trained policy: network, distribution, action space and the normaliser of observations.
///
/// A recurrent one remembers what it has seen, for each observation of a batch by itself. Tell it when an
/// episode begins: [`Policy::reset`], or [`Policy::reset_one`] in a batch. Others have nothing to forget, and
/// it does no harm.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut policy = pgrad_model::Policy::from_bytes(&std::fs::read("policy.safetensors")?)?;
/// let action = policy.act(&[0.0, 0.1, 0.0, -0.1])?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Policy {
    env_id: String,
    observation: ObsSpace,
    model: ActorCritic,
    obs_norm: Option<ObsNormalizer>,
    actor: Actor,
    batch: usize,
    /// What is remembered of each observation of a batch, a row each.
    states: Vec<f32>,
}

impl Policy {
    /// The policy of `model` with its normaliser, for batches of up to `batch` observations, of which nothing
    /// is known but their numbers: see [`Policy::with_observation`].
    #[must_use]
    pub fn new(env_id: &str, model: ActorCritic, obs_norm: Option<ObsNormalizer>, batch: usize) -> Self {
        Self {
            states: vec![0.0; model.actor().net.state_rows() * batch],
            actor: Actor::alone(&model, batch),
            env_id: env_id.to_owned(),
            observation: BoxSpace::unbounded(model.shape().obs_dim).into(),
            obs_norm,
            model,
            batch,
        }
    }
    /// Name of the task that it was trained on.
    #[must_use]
    pub fn env_id(&self) -> &str {
        &self.env_id
    }
    /// Numbers of an observation.
    #[must_use]
    pub fn obs_dim(&self) -> usize {
        self.model.shape().obs_dim
    }
    /// Space of its actions.
    #[must_use]
    pub fn action_space(&self) -> &Space {
        &self.model.shape().action
    }
    /// The same policy for batches of up to `batch` observations.
    #[must_use]
    pub fn with_batch(self, batch: usize) -> Self {
        Self::new(&self.env_id, self.model, self.obs_norm, batch).with_observation(self.observation)
    }
    /// The same policy, which knows what its observations are.
    ///
    /// # Panics
    /// When they have another number of numbers.
    #[must_use]
    pub fn with_observation(self, observation: ObsSpace) -> Self {
        assert_eq!(observation.obs_dim(), self.obs_dim(), "numbers of an observation");
        Self { observation, ..self }
    }
    /// Space of its observations.
    #[must_use]
    pub fn observation_space(&self) -> &ObsSpace {
        &self.observation
    }

    /// Whether it remembers what it has seen.
    #[must_use]
    pub fn is_recurrent(&self) -> bool {
        self.model.recurrence().is_some()
    }
    /// Forgets everything: episodes begin.
    pub fn reset(&mut self) {
        self.states.fill(0.0);
    }
    /// Forgets what it has seen of observation `i` of a batch: an episode begins there.
    ///
    /// # Panics
    /// When the policy was made for fewer observations.
    pub fn reset_one(&mut self, i: usize) {
        let rows = self.states.len() / self.batch;
        self.states[i * rows..(i + 1) * rows].fill(0.0);
    }

    /// The most probable action.
    ///
    /// # Errors
    /// When the observation has a wrong size or is not finite.
    pub fn act(&mut self, obs: &[f32]) -> Result<ActionValue, PolicyError> {
        self.decide(obs, None, None)
    }
    /// An action drawn from the policy.
    ///
    /// # Errors
    /// As [`Policy::act`].
    pub fn sample(&mut self, obs: &[f32], rng: &mut Stream) -> Result<ActionValue, PolicyError> {
        self.decide(obs, None, Some(rng))
    }
    /// The most probable action among those that `mask` allows ([`Space::mask_dim`] entries).
    ///
    /// # Errors
    /// As [`Policy::act`], and when the mask has a wrong size or allows nothing.
    pub fn act_masked(&mut self, obs: &[f32], mask: &[bool]) -> Result<ActionValue, PolicyError> {
        self.decide(obs, Some(mask), None)
    }

    fn decide(
        &mut self,
        obs: &[f32],
        mask: Option<&[bool]>,
        rng: Option<&mut Stream>,
    ) -> Result<ActionValue, PolicyError> {
        let expected = self.obs_dim();
        if obs.len() != expected {
            return Err(PolicyError::Observation { expected, got: obs.len() });
        }
        if let Some(index) = kernels::first_non_finite(obs) {
            return Err(PolicyError::NonFinite { index, value: obs[index] });
        }
        let space = self.action_space().clone();
        let mask = match mask {
            None => None,
            Some(mask) => {
                let expected = space.mask_dim();
                let cols = (mask.len() == expected && expected > 0).then(|| Cols::new(mask, expected, 1));
                let usable = cols.filter(|m| self.model.dist().first_empty_choice(*m).is_none());
                Some(usable.ok_or(PolicyError::Mask { expected })?)
            }
        };
        self.decide_batch(Cols::new(obs, expected, 1), mask, rng.map(std::slice::from_mut));
        let EnvActions { index, real } = self.actor.chosen(&space);
        Ok(ActionValue::new(&space, index.data(), real.data()))
    }

    /// Actions for a batch of observations `[obs_dim x cols]`: the most probable ones, or drawn with a stream
    /// for each column. Real actions are in the environment's units, and clipped to the bounds of their
    /// space.
    ///
    /// # Panics
    /// When a shape does not fit or the batch is larger than the policy was made for.
    pub fn act_batch(
        &mut self,
        obs: Cols<'_, f32>,
        mask: Option<Cols<'_, bool>>,
        rngs: Option<&mut [Stream]>,
        mut actions: ActionsMut<'_, f32>,
    ) {
        self.decide_batch(obs, mask, rngs);
        let EnvActions { index, real } = self.actor.chosen(&self.model.shape().action);
        actions.index.data_mut().copy_from_slice(index.data());
        actions.real.data_mut().copy_from_slice(real.data());
    }
    fn decide_batch(
        &mut self,
        obs: Cols<'_, f32>,
        mask: Option<Cols<'_, bool>>,
        rngs: Option<&mut [Stream]>,
    ) {
        self.look(obs);
        let (rows, cols) = (self.states.len() / self.batch, obs.cols());
        self.actor.remember();
        transpose(&self.actor.state[..rows * cols], &mut self.states[..rows * cols], cols);
        let dist = self.model.dist();
        self.actor.choose(dist, mask, |params, _, actions| match rngs {
            Some(rngs) => dist.sample(params, rngs, actions),
            None => dist.mode(params, actions),
        });
    }

    /// The raw outputs of the policy's distribution for a batch of observations `[obs_dim x cols]`, before
    /// masks. What it remembers stays as it was.
    ///
    /// # Panics
    /// When a shape does not fit or the batch is larger than the policy was made for.
    pub fn outputs(&mut self, obs: Cols<'_, f32>, mut out: ColsMut<'_, f32>) {
        self.look(obs);
        out.data_mut().copy_from_slice(&self.actor.params[..self.model.dist().n_outputs() * obs.cols()]);
    }

    /// Takes the observations through the network.
    fn look(&mut self, obs: Cols<'_, f32>) {
        let (rows, cols) = (self.states.len() / self.batch, obs.cols());
        assert!(cols <= self.batch, "the policy was made for {} observations at once", self.batch);
        rows_to_columns(&self.states[..rows * cols], &mut self.actor.state[..rows * cols], cols);
        self.actor.look(obs, self.obs_norm.as_ref());
        self.actor.forward(&self.model, &self.model.theta[self.model.actor().params.clone()]);
    }

    /// The policy as a file: safetensors with a description in JSON and a digest of it all. The same training
    /// gives the same bytes.
    ///
    /// # Errors
    /// When the file would be too large for the format.
    pub fn to_bytes(&self) -> Result<Vec<u8>, PolicyError> {
        let shape = self.model.shape();
        let mut record = Record::new();
        for view in self.model.views() {
            record.put(&view.name, self.model.theta[view.range].to_vec());
        }
        if let Some(norm) = &self.obs_norm {
            record.put_record("obs_norm", norm.save());
        }
        let (action, sizes) = card::kind_of(&shape.action);
        let action_dtype = match &shape.action {
            Space::Box(b) => {
                // Bounds may be infinite, which JSON cannot say.
                record.put("action.low", b.low.clone());
                record.put("action.high", b.high.clone());
                Some(b.dtype.to_string())
            }
            _ => None,
        };
        let action_parts = match &shape.action {
            Space::Product { parts } => card::cards(parts),
            _ => Vec::new(),
        };
        let memory = self.model.recurrence().map(|r| Memory {
            cell: match r.cell {
                Cell::Lstm => "lstm".into(),
                Cell::Gru => "gru".into(),
            },
            size: r.size,
        });
        let card = Card {
            format: match (action_parts.is_empty(), self.model.rescaled().is_empty()) {
                (false, _) => FORMAT,
                (true, false) => FORMAT_RESCALED,
                (true, true) => FORMAT_PLAIN,
            },
            env: self.env_id.clone(),
            obs_dim: shape.obs_dim,
            action: action.into(),
            sizes,
            action_dtype,
            action_parts,
            rescaled: self.model.rescaled().to_vec(),
            observation: card::cards(self.observation.parts()),
            hidden: shape.hidden.clone(),
            critic_hidden: Some(self.model.critic_hidden())
                .filter(|h| *h != shape.hidden)
                .map(<[usize]>::to_vec),
            activation: match shape.activation {
                Activation::Tanh => "tanh".into(),
                Activation::Relu => "relu".into(),
            },
            trunk: match shape.trunk {
                Trunk::Separate => "separate".into(),
                Trunk::Shared => "shared".into(),
            },
            critic: match shape.critic {
                Critic::None => "none".into(),
                Critic::State => "state".into(),
                Critic::Action => "action".into(),
            },
            log_std_init: shape.log_std_init,
            obs_clip: self.obs_norm.as_ref().map(ObsNormalizer::clip),
            recurrent: memory,
        };
        let card = serde_json::to_string(&card).map_err(|e| PolicyError::Card(e.to_string()))?;
        Ok(tensors::seal(&record, &card)?)
    }

    /// Reads a policy. Everything is checked before anything is built; files are data, never code.
    ///
    /// # Errors
    /// When the bytes are not a policy, of a newer format, or damaged.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PolicyError> {
        let (record, note) = tensors::unseal(bytes)?;
        let note = note.ok_or_else(|| PolicyError::Card("the file has no policy description".into()))?;
        let version: serde_json::Value =
            serde_json::from_str(&note).map_err(|e| PolicyError::Card(e.to_string()))?;
        let got = version.get("format").and_then(serde_json::Value::as_u64).unwrap_or(0);
        if got > u64::from(FORMAT) {
            return Err(PolicyError::Version { got: u32::try_from(got).unwrap_or(u32::MAX) });
        }
        let card: Card = serde_json::from_value(version).map_err(|e| PolicyError::Card(e.to_string()))?;
        let shape = card.shape(&record)?;
        let critic_hidden = card.critic_hidden.clone().unwrap_or(shape.hidden.clone());
        let recurrence = card.recurrence()?;
        if !card.rescaled.is_empty() && !can_be_rescaled(&shape.action, &card.rescaled) {
            return Err(PolicyError::Card("numbers without a range are rescaled".into()));
        }
        let mut model = ActorCritic::with_memory(shape, critic_hidden, recurrence, false, 0)
            .map_err(|e| PolicyError::Card(e.to_string()))?
            .with_rescaled(card.rescaled.clone());
        for view in model.views() {
            let values = record.f32s(&view.name, view.range.len())?;
            if !kernels::all_finite(values) {
                let reason = "a parameter is not finite".into();
                return Err(RecordError::Value { name: view.name, reason }.into());
            }
            model.theta[view.range].copy_from_slice(values);
        }
        let obs_norm = match card.obs_clip {
            None => None,
            Some(clip) if clip > 0.0 => {
                let mut norm = ObsNormalizer::new(card.obs_dim, clip);
                norm.load(&record.record("obs_norm"))?;
                Some(norm)
            }
            Some(clip) => {
                return Err(PolicyError::Card(format!("the clipping range of observations is {clip}")));
            }
        };
        let unlike = || PolicyError::Card("the observation space is not valid".into());
        let observation = card::observation(&card.observation, card.obs_dim).ok_or_else(unlike)?;
        Ok(Self::new(&card.env, model, obs_norm, 1).with_observation(observation))
    }
}

impl Card {
    fn recurrence(&self) -> Result<Option<Recurrence>, PolicyError> {
        let Some(Memory { cell, size }) = &self.recurrent else { return Ok(None) };
        let cell = match cell.as_str() {
            "lstm" => Cell::Lstm,
            "gru" => Cell::Gru,
            _ => return Err(PolicyError::Card("invalid recurrent layer".into())),
        };
        Ok(Some(Recurrence { cell, size: *size, sequence_length: 1, span: None }))
    }
    fn shape(&self, record: &Record) -> Result<ModelShape, PolicyError> {
        let wrong = |what: &str| PolicyError::Card(format!("{what} is not valid"));
        if !self.sizes.iter().all(|n| (1..MAX_PARAMETERS).contains(n)) {
            return Err(wrong("the size of the action space"));
        }
        let bounds = |n| -> Result<_, PolicyError> {
            Ok([record.f32s("action.low", n)?.to_vec(), record.f32s("action.high", n)?.to_vec()])
        };
        // The tensors are in memory already; a description that needs more numbers than they have is wrong,
        // and must not make us allocate.
        let stored: usize = record.iter().map(|(_, a)| a.len()).sum();
        let action = match (&self.action[..], &self.action_parts[..]) {
            (card::PRODUCT, parts) => card::product(parts, stored),
            (kind, []) => card::space_of(kind, &self.sizes, self.action_dtype.as_deref(), bounds)?,
            _ => None,
        };
        let action =
            action.filter(|space| space.action_dim() > 0).ok_or_else(|| wrong("the action space"))?;
        let activation = match self.activation.as_str() {
            "tanh" => Activation::Tanh,
            "relu" => Activation::Relu,
            _ => return Err(wrong("the activation")),
        };
        let trunk = match self.trunk.as_str() {
            "separate" => Trunk::Separate,
            "shared" => Trunk::Shared,
            _ => return Err(wrong("the trunk")),
        };
        let critic = match self.critic.as_str() {
            "none" if trunk == Trunk::Separate => Critic::None,
            "state" => Critic::State,
            "action" if matches!(action, Space::Discrete { .. }) => Critic::Action,
            _ => return Err(wrong("the critic")),
        };
        let outputs = action.obs_dim();
        let most = stored.saturating_mul(2).saturating_add(2 * self.obs_dim.min(stored));
        let memory = self.recurrent.as_ref().map(|m| m.size);
        // Gates multiply what a recurrent layer needs: to count it as a plain layer is a lower bound.
        let square = |size: usize| size.checked_mul(size).is_some_and(|n| n <= most);
        let fits = |hidden: &[usize]| {
            let widths: Vec<usize> = std::iter::once(self.obs_dim)
                .chain(memory)
                .chain(hidden.iter().copied())
                .chain([outputs])
                .collect();
            let needed =
                widths.windows(2).try_fold(0usize, |sum, w| sum.checked_add(w[0].checked_mul(w[1])?));
            needed.is_some_and(|n| n <= most)
        };
        if self.critic_hidden.is_some() && trunk == Trunk::Shared {
            return Err(wrong("a critic of its own width on a shared trunk"));
        }
        if !fits(&self.hidden)
            || !memory.is_none_or(square)
            || self.critic_hidden.as_ref().is_some_and(|h| h.len() > most || !fits(h))
        {
            return Err(PolicyError::Card(format!(
                "the description needs more parameters than the {stored} in the file"
            )));
        }
        Ok(ModelShape {
            obs_dim: self.obs_dim,
            action,
            hidden: self.hidden.clone(),
            activation,
            trunk,
            critic,
            log_std_init: self.log_std_init,
        })
    }
}

#[cfg(test)]
mod tests;
