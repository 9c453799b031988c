//! `T` steps of `N` environments under one policy, whole episodes of them, or a vine.

mod episodes;
mod memory;
mod vine;

pub use episodes::EpisodesShape;
pub(crate) use memory::{SequenceWork, StateOf, bits_agree, forget};
pub use vine::{Branch, VineActions, VineShape};

use crate::bootstrap::resolve;
use crate::normalize::{ObsNormalizer, RewardNormalizer};
use crate::{ActorCritic, AgentError, CHUNK};
use pgrad_env::{Actions as EnvActions, BatchResult, End, EnvSpec, Episode, MakeError, Space, VecEnv};
use pgrad_nn::NetworkTape;
use pgrad_num::{Cols, ColsMut, Moments, Real, Record, RecordError, Stream, Tb, TbMut, Team, kernels};
use pgrad_rl::dist::{ActionDist, Actions, ActionsMut};

/// Purpose number of the streams that actions are sampled from.
const STREAM_ACTION: u32 = 4;

/// How much a rollout holds and how it is cut for the threads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RolloutShape {
    /// Environments, `N` in the papers.
    pub n_envs: usize,
    /// Steps of each environment, `T` in the papers.
    pub n_steps: usize,
    /// Environments of one shard. A shard is collected by one thread without waiting for the others; the
    /// number of shards follows from the configuration alone, never from the number of threads.
    pub envs_per_shard: usize,
    /// Bootstrap from the value of the final observation where a time limit cut an episode.
    pub bootstrap_truncated: bool,
}

/// What a return estimator sees of one shard: time-major, `[T, B]`.
#[derive(Debug)]
pub struct Paths<'a> {
    /// Rewards `r_t`.
    pub reward: Tb<'a, f32>,
    /// Values `V(s_t)`.
    pub v: Tb<'a, f32>,
    /// Values of what follows step `t`; see [`crate::bootstrap`].
    pub v_next: Tb<'a, f32>,
    /// 1 where row `t + 1` continues the same path.
    pub carry: Tb<'a, f32>,
    /// `π_θ(a_t|s_t)/π_θold(a_t|s_t)` as of the last [`Rollout::evaluate_ratios`]; 1 before it.
    pub ratio: Tb<'a, f32>,
    /// To write: the advantages `Â_t`.
    pub adv: TbMut<'a, f32>,
    /// To write: the value targets.
    pub ret: TbMut<'a, f32>,
}

/// Environments of one thread's piece of work.
struct Shard {
    env: VecEnv,
    rngs: Vec<Stream>,
    seen: Moments,
    work: StepWork,
    /// Number of the shard's first environment in the run.
    first: usize,
    /// Samples whose states are to be kept, in order, and their states.
    keep: Vec<u32>,
    kept: Vec<Vec<f64>>,
    /// What the actor remembers, `[state_rows x B]`; empty without a memory.
    state: Vec<f32>,
}

/// What the environments of a shard went through, and what learning needs of it. A sample is a row (it is
/// gathered as one piece); sample `t·B + b` is step `t` of environment `b` of the shard. A batch of whole
/// episodes is one column of samples, `B = 1`, in which the episodes follow each other.
#[derive(Debug)]
pub(crate) struct Samples {
    /// Number of the shard's first environment in the run.
    first: usize,
    /// Environments of the shard.
    b: usize,
    /// Where each environment's samples begin in a column of whole episodes; empty otherwise.
    runs: Vec<usize>,
    pub(crate) obs: Vec<f32>,
    pub(crate) index_actions: Vec<u32>,
    pub(crate) real_actions: Vec<f32>,
    pub(crate) masks: Vec<bool>,
    pub(crate) logp: Vec<f32>,
    /// The distribution's parameters under `π_θold`, a row each; empty unless they are kept.
    pub(crate) params: Vec<f32>,
    ratio: Vec<f32>,
    reward: Vec<f32>,
    ends: Vec<End>,
    /// Flat indices of truncated steps, and their final observations, a row each.
    cut: Vec<u32>,
    cut_obs: Vec<f32>,
    v_cut: Vec<f32>,
    /// Observations after the last step, a row each.
    last_obs: Vec<f32>,
    v_last: Vec<f32>,
    pub(crate) v: Vec<f32>,
    v_next: Vec<f32>,
    carry: Vec<f32>,
    pub(crate) adv: Vec<f32>,
    pub(crate) ret: Vec<f32>,
    /// Weights of several actions in one state; empty where each state has one.
    pub(crate) weight: Vec<f32>,
    /// Of recurrent networks.
    states: Option<memory::States>,
    error: Option<AgentError>,
}

/// All samples of a rollout, by number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SampleSet<'a> {
    data: &'a [Samples],
    /// The numbers before some were left out; empty when none was.
    kept: &'a [u32],
    /// Samples of a full shard; only the last one may have fewer.
    shard_len: u32,
    pub(crate) masked: bool,
    /// Actions of each sample: 1, or the branches of a vine, which have weights.
    pub(crate) branching: usize,
    pub(crate) weighted: bool,
    /// Whether the samples were drawn with the present parameters, by a model whose outputs must then have the bits that
    /// they had; looked at by debug builds only.
    pub(crate) same_bits: bool,
    /// Numbers of a state of the actor and of the critic.
    state_rows: [usize; 2],
}

impl<'a> SampleSet<'a> {
    /// The shard's data and the index in it, of sample `i`.
    #[inline]
    pub(crate) fn get(&self, i: u32) -> (&'a Samples, usize) {
        let i = if self.kept.is_empty() { i } else { self.kept[i as usize] };
        // Division of 32 bits: a gather does one for every sample.
        let (shard, at) = (i / self.shard_len, i % self.shard_len);
        (&self.data[shard as usize], at as usize)
    }
    /// Numbers of a state.
    pub(crate) fn state_rows(&self, owner: StateOf) -> usize {
        self.state_rows[usize::from(owner == StateOf::Critic)]
    }
    /// Whether the samples have the parameters of the policy that drew them.
    pub(crate) fn keeps_params(&self) -> bool {
        !self.data[0].params.is_empty()
    }
}

/// Buffers of one step of one shard.
struct StepWork {
    x: Vec<f32>,
    index_actions: Vec<u32>,
    real_actions: Vec<f32>,
    clipped: Vec<f32>,
    masks: Vec<bool>,
    mask_scratch: Vec<bool>,
    tape: NetworkTape<f32>,
    /// No state is forgotten before it is looked at: that is done when the episode ends.
    fresh: Vec<bool>,
}

/// A run of consecutive samples whose values are computed together.
struct Piece {
    shard: usize,
    from: usize,
    len: usize,
    v: [f32; CHUNK],
}

/// One thread's buffers for values.
struct ValueWork {
    x: Vec<f32>,
    tape: NetworkTape<f32>,
    ratios: RatioWork,
    /// Of a recurrent actor, and of its critic.
    walks: Option<[memory::Walk; 2]>,
}

/// One thread's buffers for ratios.
struct RatioWork {
    x: Vec<f32>,
    tape: NetworkTape<f32>,
    taken: TakenWork,
}

/// One thread's buffers for what actions were taken.
struct TakenWork {
    index_actions: Vec<u32>,
    real_actions: Vec<f32>,
    masks: Vec<bool>,
    /// Samples that there is room for.
    room: usize,
}

/// Samples of lost episodes, which are not learnt from. The others are numbered as if those were not there, but for
/// sequences of recurrent models: there the numbers stay, and a sequence with a lost step is left out as a whole.
#[derive(Debug, Default)]
struct Lost {
    /// Of every sample, shard after shard; empty when none is lost.
    flags: Vec<bool>,
    /// The numbers that the others had; empty when none is lost, and with sequences.
    kept: Vec<u32>,
    /// How many are left out of this batch, and of all so far.
    n: usize,
    total: u64,
}

/// `T` steps of `N` environments: the data `D_k` of one iteration, and the environments that go on.
pub struct Rollout {
    shape: RolloutShape,
    spec: EnvSpec,
    shards: Vec<Shard>,
    data: Vec<Samples>,
    /// All advantages, shard after shard.
    adv: Vec<f32>,
    /// What is left out.
    lost: Lost,
    pieces: Vec<Piece>,
    work: Vec<ValueWork>,
    obs_norm: Option<ObsNormalizer>,
    reward_norm: Option<RewardNormalizer>,
    /// Digest of the parameters that drew a recurrent policy's samples, in debug builds.
    drawn_by: Option<u64>,
    /// Present when batches are whole episodes; `shape.n_steps` has no meaning then.
    whole: Option<episodes::Whole>,
    /// Present when samples are states with several rollouts each.
    vine: Option<vine::Vine>,
}

impl std::fmt::Debug for Rollout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rollout")
            .field("env", &self.spec.id)
            .field("shape", &self.shape)
            .finish_non_exhaustive()
    }
}

impl Rollout {
    /// Environments made by `make(n)` in shards, for the policies of `model`.
    ///
    /// # Errors
    /// When `make` fails.
    ///
    /// # Panics
    /// When a size of `shape` is 0, or the sequences of a recurrent model do not fill `n_steps`.
    pub fn new(
        shape: RolloutShape,
        make: impl Fn(usize) -> BatchResult,
        model: &ActorCritic,
        obs_norm: Option<ObsNormalizer>,
        mut reward_norm: Option<RewardNormalizer>,
        seed: u64,
        threads: usize,
    ) -> Result<Self, MakeError> {
        assert!(shape.n_envs > 0 && shape.n_steps > 0 && shape.envs_per_shard > 0);
        let (mut shards, mut data) = (Vec::new(), Vec::new());
        let mut pieces = Vec::new();
        for first in (0..shape.n_envs).step_by(shape.envs_per_shard) {
            let b = shape.envs_per_shard.min(shape.n_envs - first);
            let samples = b * shape.n_steps;
            for from in (0..samples).step_by(CHUNK) {
                let len = CHUNK.min(samples - from);
                pieces.push(Piece { shard: shards.len(), from, len, v: [0.0; CHUNK] });
            }
            let mut env = VecEnv::new(make(b)?, seed, first);
            env.reserve_episodes(samples);
            let mut samples = Samples::new(env.spec(), first, b, shape.n_steps);
            samples.states = memory::States::new(model, shape.n_steps, b);
            data.push(samples);
            shards.push(Shard::new(env, first, model, seed));
        }
        if let Some(norm) = &mut reward_norm {
            norm.reserve(shape.n_steps * shape.envs_per_shard);
        }
        let spec = shards[0].env.spec().clone();
        // A policy alone is never asked for values.
        let critic = if model.has_critic() { &model.critic().net } else { &model.actor().net };
        let most = shape.envs_per_shard.min(shape.n_envs);
        let work = (0..threads)
            .map(|_| ValueWork {
                x: vec![0.0; critic.n_inputs() * CHUNK],
                tape: critic.tape(CHUNK),
                ratios: RatioWork::new(
                    &spec,
                    model,
                    model.recurrence().map_or(CHUNK, |r| r.sequence_length * most),
                ),
                walks: model.recurrence().map(|r| {
                    let critic = if model.has_critic() { model.critic() } else { model.actor() };
                    [model.actor(), critic].map(|part| memory::Walk::new(part, r.sequence_length, most))
                }),
            })
            .collect();
        let adv = vec![0.0; shape.n_envs * shape.n_steps];
        Ok(Self {
            shape,
            spec,
            shards,
            data,
            adv,
            lost: Lost::default(),
            pieces,
            work,
            obs_norm,
            reward_norm,
            drawn_by: None,
            whole: None,
            vine: None,
        })
    }
    /// From now on keeps the parameters of the distribution that each action was drawn from: the exact divergence
    /// of a later policy from `π_θold` needs them ([`PolicyChunk::params_old`](crate::PolicyChunk::params_old)).
    pub fn keep_policy_params(&mut self, model: &ActorCritic) {
        for data in &mut self.data {
            data.params = vec![0.0; data.logp.len() * model.dist().n_outputs()];
        }
    }
    /// What the environments are.
    #[must_use]
    pub fn spec(&self) -> &EnvSpec {
        &self.spec
    }
    /// Number of samples, `T · N` but for those of lost episodes; with whole episodes that of the last batch, with a
    /// vine that of its states.
    #[must_use]
    pub fn len(&self) -> usize {
        self.vine.as_ref().map_or(self.adv.len() - self.lost.n, vine::Vine::len)
    }
    /// Steps of lost episodes ([`End::Lost`]) that were not learnt from, of all batches so far.
    #[must_use]
    pub fn lost_steps(&self) -> u64 {
        self.lost.total
    }
    /// Whether samples of this batch are left out.
    pub(crate) fn has_lost(&self) -> bool {
        self.lost.n > 0
    }
    /// Steps that the environments did for the last batch: one for each sample, and with a vine those of its trunk and
    /// of its rollouts.
    #[must_use]
    pub fn steps(&self) -> u64 {
        (self.adv.len() - self.lost.n) as u64 + self.vine.as_ref().map_or(0, vine::Vine::steps)
    }
    /// Whether there are no samples: whole episodes before the first [`Rollout::collect`].
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The normaliser of observations, if there is one.
    #[must_use]
    pub fn obs_norm(&self) -> Option<&ObsNormalizer> {
        self.obs_norm.as_ref()
    }
    /// Starts a first episode everywhere.
    ///
    /// # Errors
    /// When an environment breaks its contract.
    pub fn start(&mut self) -> Result<(), AgentError> {
        for shard in &mut self.shards {
            shard.env.start()?;
        }
        Ok(())
    }
    /// Episodes that ended during the last [`Rollout::collect`], shard by shard; with whole episodes those of
    /// the batch.
    pub fn episodes(&self) -> impl Iterator<Item = &Episode> {
        let shards = if self.whole.is_some() { &[] } else { &self.shards[..] };
        let whole = self.whole.iter().flat_map(episodes::Whole::finished);
        whole.chain(shards.iter().flat_map(|s| s.env.finished()))
    }

    /// Runs the policy for `T` steps in each environment, or for a batch of whole episodes. Steps of lost episodes are no
    /// samples; where nothing else came, the environments are run again.
    ///
    /// # Errors
    /// When an environment or the policy gives something that is not finite, or an environment breaks its
    /// contract. Normalisers are then unchanged.
    pub fn collect(&mut self, model: &ActorCritic, team: &Team) -> Result<(), AgentError> {
        if self.whole.is_some() {
            self.collect_episodes(model, team)?;
            self.lost.total += self.whole.as_mut().map_or(0, episodes::Whole::take_lost);
            return Ok(());
        }
        loop {
            self.collect_steps(model, team)?;
            self.find_lost();
            if !self.is_empty() {
                return Ok(());
            }
        }
    }

    /// Finds the steps of lost episodes, from their first one in this batch on.
    fn find_lost(&mut self) {
        let Lost { flags, kept, n, total } = &mut self.lost;
        flags.clear();
        kept.clear();
        *n = 0;
        if self.data.iter().all(|d| !d.ends.contains(&End::Lost)) {
            return;
        }
        for data in &self.data {
            let (from, b) = (flags.len(), data.b);
            flags.resize(from + data.ends.len(), false);
            let flags = &mut flags[from..];
            mark_lost(&data.ends, b, flags);
            if let Some(states) = &data.states {
                let rows = states.length * b;
                for sequences in flags.chunks_exact_mut(rows) {
                    for i in 0..b {
                        let any = (i..rows).step_by(b).any(|at| sequences[at]);
                        (i..rows).step_by(b).for_each(|at| sequences[at] = any);
                    }
                }
            }
        }
        *n = flags.iter().filter(|lost| **lost).count();
        *total += *n as u64;
        if self.data[0].states.is_none() {
            kept.extend((0..flags.len() as u32).filter(|i| !flags[*i as usize]));
        }
    }

    fn collect_steps(&mut self, model: &ActorCritic, team: &Team) -> Result<(), AgentError> {
        if cfg!(debug_assertions) {
            self.drawn_by = model.recurrence().map(|_| digest(model));
        }
        let RolloutShape { n_steps: steps, envs_per_shard, .. } = self.shape;
        let norm = self.obs_norm.as_ref();
        if let Some(vine) = &self.vine {
            vine.choose(&mut self.shards, steps, envs_per_shard);
        }
        team.each_zip(&mut self.shards, &mut self.data, |_, shard, data| {
            data.ratio.fill(1.0);
            data.error = shard.collect(model, norm, data, steps).err();
        });
        self.first_error()?;
        let reward_norm = self.vine.as_ref().and_then(|_| self.reward_norm.clone());
        if let Some(norm) = &mut self.reward_norm {
            for data in &self.data {
                norm.observe(data.first, data.b, &data.reward, &data.ends);
            }
            for data in &mut self.data {
                norm.apply(&mut data.reward);
            }
        }
        if let Some(vine) = &mut self.vine {
            // Under the policy that ran along the trunk: observations are not yet normalised by what it saw.
            let (obs, reward) = (self.obs_norm.as_ref(), self.reward_norm.as_ref());
            if let Err(e) = vine.grow(&self.shards, model, obs, reward, team) {
                self.reward_norm = reward_norm;
                return Err(e);
            }
        }
        if let Some(norm) = &mut self.obs_norm {
            for shard in &self.shards {
                norm.merge(&shard.seen);
            }
        }
        Ok(())
    }

    /// Computes `V(s_t)` of all samples and of what follows them, and resolves the endings. Without a critic
    /// all values are 0: there is nothing to bootstrap from.
    ///
    /// # Errors
    /// When a value is not finite.
    pub fn evaluate(&mut self, model: &ActorCritic, team: &Team) -> Result<(), AgentError> {
        let Self { data, pieces, work, shape, .. } = self;
        let bootstrap = shape.bootstrap_truncated;
        if !model.has_critic() {
            data.iter_mut().for_each(|data| data.resolve_without_values(bootstrap));
            return Ok(());
        }
        if model.recurrence().is_some() {
            team.each_with(data, work, |_, data, work| {
                if let Some([_, walk]) = &mut work.walks {
                    data.error = data.evaluate_with_memory(model, walk, bootstrap).err();
                }
            });
            return self.first_error();
        }
        let rows = &*data;
        team.each_with(pieces, work, |_, piece, work| {
            work.values(model, &rows[piece.shard].obs, piece.from, piece.len, &mut piece.v);
        });
        for piece in pieces.iter() {
            let v = &piece.v[..piece.len];
            let data = &mut data[piece.shard];
            if let Some(i) = kernels::first_non_finite(v) {
                let (step, env) = data.place(piece.from + i);
                return Err(AgentError::Value { env, step, value: v[i] });
            }
            data.v[piece.from..piece.from + piece.len].copy_from_slice(v);
        }
        team.each_with(data, work, |_, data, work| {
            data.error = data.evaluate_ends(model, work, bootstrap).err();
        });
        self.first_error()
    }

    /// Computes `π_θ(a_t|s_t)/π_θold(a_t|s_t)` of all samples: how stale the data are for the present parameters.
    ///
    /// # Errors
    /// When a ratio is not finite.
    pub fn evaluate_ratios(&mut self, model: &ActorCritic, team: &Team) -> Result<(), AgentError> {
        let Self { data, pieces, work, spec, .. } = self;
        if model.recurrence().is_some() {
            let masked = spec.masks_actions;
            team.each_with(data, work, |_, data, work| data.ratios_with_memory(model, work, masked));
            return self.first_error();
        }
        let rows = &*data;
        team.each_with(pieces, work, |_, piece, work| {
            let ratio = &mut piece.v[..piece.len];
            work.ratios.ratios(model, &rows[piece.shard], piece.from, spec.masks_actions, ratio);
        });
        for piece in pieces.iter() {
            let ratio = &piece.v[..piece.len];
            let data = &mut data[piece.shard];
            if let Some(i) = kernels::first_non_finite(ratio) {
                let (step, env) = data.place(piece.from + i);
                return Err(AgentError::Estimate { what: "ratio", env, step, value: ratio[i] });
            }
            data.ratio[piece.from..piece.from + piece.len].copy_from_slice(ratio);
        }
        Ok(())
    }

    /// Computes the states that the sequences of a recurrent model start from anew with the present parameters, from the
    /// states at the start of the rollout on. Otherwise they are those of the rollout. Without a memory there is nothing
    /// to do.
    pub fn recompute_states(&mut self, model: &ActorCritic, team: &Team) {
        team.each_with(&mut self.data, &mut self.work, |_, data, work| {
            if let Some([actor, critic]) = &mut work.walks {
                data.recompute_states(model, StateOf::Actor, actor);
                if model.is_separate() {
                    data.recompute_states(model, StateOf::Critic, critic);
                }
            }
        });
    }

    /// The numbers of all samples; those of a recurrent model sequence after sequence.
    #[must_use]
    pub fn order(&self) -> Vec<u32> {
        let mut order = Vec::with_capacity(self.len());
        self.write_order(&mut order);
        order
    }
    /// [`Rollout::order`] into a buffer: it changes when samples are lost.
    pub fn write_order(&self, to: &mut Vec<u32>) {
        to.clear();
        match self.sequences() {
            None => to.extend(0..self.len() as u32),
            Some((length, sequences)) => {
                let steps = 0..length as u32;
                to.extend(
                    sequences.flat_map(|(first, stride)| steps.clone().map(move |t| first + t * stride)),
                );
            }
        }
    }

    /// Steps of a sequence of a recurrent model, and of each sequence its first sample and how far apart the numbers of
    /// its samples are.
    pub(crate) fn sequences(&self) -> Option<(usize, impl Iterator<Item = (u32, u32)> + '_)> {
        let length = self.data[0].states.as_ref()?.length;
        let mut start = 0;
        let shards = self.data.iter().map(move |d| {
            let first = start;
            start += d.reward.len();
            (first, d)
        });
        let sequences = shards.flat_map(move |(first, d)| {
            let firsts = (0..d.rows()).step_by(length).flat_map(move |t| t * d.b..(t + 1) * d.b);
            let kept = firsts.filter(move |at| !self.lost.flags.get(first + at).is_some_and(|lost| *lost));
            kept.map(move |at| ((first + at) as u32, d.b as u32))
        });
        Some((length, sequences))
    }

    /// Lets `estimate` write the advantages and value targets of every shard.
    ///
    /// # Errors
    /// When what it wrote is not finite.
    pub fn estimate(&mut self, team: &Team, estimate: impl Fn(Paths<'_>) + Sync) -> Result<(), AgentError> {
        team.each(&mut self.data, |_, data| {
            let (t, b) = (data.rows(), data.b);
            estimate(Paths {
                reward: Tb::new(&data.reward, t, b),
                v: Tb::new(&data.v, t, b),
                v_next: Tb::new(&data.v_next, t, b),
                carry: Tb::new(&data.carry, t, b),
                ratio: Tb::new(&data.ratio, t, b),
                adv: TbMut::new(&mut data.adv, t, b),
                ret: TbMut::new(&mut data.ret, t, b),
            });
            data.error = data.check_estimates().err();
        });
        self.first_error()?;
        let mut at = 0;
        for data in &self.data {
            self.adv[at..at + data.adv.len()].copy_from_slice(&data.adv);
            at += data.adv.len();
        }
        Ok(())
    }

    /// Mean and standard deviation of the advantages of some samples.
    #[must_use]
    pub fn advantage_moments(&self, samples: &[u32]) -> (f64, f64) {
        let n = samples.len() as f64;
        let mean = self.sum_of_advantages(samples, |a| a) / n;
        (mean, (self.sum_of_advantages(samples, |a| (a - mean) * (a - mean)) / n).sqrt())
    }
    /// `Σ f(Â)` over some samples, in 8 lanes: one would wait for its own last addition.
    fn sum_of_advantages(&self, samples: &[u32], f: impl Fn(f64) -> f64) -> f64 {
        let mut lanes = [0.0; 8];
        for samples in samples.chunks(lanes.len()) {
            for (lane, i) in lanes.iter_mut().zip(samples) {
                let i = self.lost.kept.get(*i as usize).unwrap_or(i);
                *lane += f(f64::from(self.adv[*i as usize]));
            }
        }
        lanes.iter().sum()
    }

    /// `1 − Var(target − V) / Var(target)`: 1 when the critic explains the targets, 0 when it does no better
    /// than a constant, negative when worse. `None` when the targets do not vary.
    #[must_use]
    pub fn explained_variance(&self) -> Option<f64> {
        let n = self.len() as f64;
        let each = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
            let mut from = 0;
            let pairs = |d: &Samples| -> f64 {
                let lost = self.lost.flags.get(from..from + d.ret.len());
                from += d.ret.len();
                let pair = |(r, v): (&f32, &f32)| f(f64::from(*r), f64::from(*v));
                let all = d.ret.iter().zip(&d.v);
                match lost {
                    None => all.map(pair).sum(),
                    Some(lost) => all.zip(lost).filter(|(_, lost)| !**lost).map(|(x, _)| pair(x)).sum(),
                }
            };
            self.data.iter().map(pairs).sum()
        };
        let (mean, mean_error) = (each(&|r, _| r) / n, each(&|r, v| r - v) / n);
        let total = each(&|r, _| (r - mean) * (r - mean));
        let left = each(&|r, v| (r - v - mean_error).powi(2));
        (total > 1e-12 * n).then(|| 1.0 - left / total)
    }

    /// The samples, for gathering.
    pub(crate) fn samples(&self, model: &ActorCritic) -> SampleSet<'_> {
        // Sample numbers fit in 32 bits, and so does this (an only shard may be longer: it is never left).
        let shard_len = self.shape.envs_per_shard * self.shape.n_steps;
        let shard_len =
            if self.whole.is_some() { u32::MAX } else { u32::try_from(shard_len).unwrap_or(u32::MAX) };
        let critic_rows = if model.has_critic() { model.critic().net.state_rows() } else { 0 };
        let all = SampleSet {
            data: &self.data,
            kept: &self.lost.kept,
            shard_len,
            masked: self.spec.masks_actions,
            branching: 1,
            weighted: false,
            same_bits: cfg!(debug_assertions) && self.drawn_by == Some(digest(model)),
            state_rows: [model.actor().net.state_rows(), critic_rows],
        };
        match &self.vine {
            None => all,
            Some(vine) => SampleSet {
                data: std::slice::from_ref(vine.samples()),
                kept: &[],
                shard_len: u32::MAX,
                branching: vine.branching(),
                weighted: true,
                ..all
            },
        }
    }

    fn first_error(&mut self) -> Result<(), AgentError> {
        self.data.iter_mut().find_map(|d| d.error.take()).map_or(Ok(()), Err)
    }

    /// Saves environments, streams and normalisers.
    #[must_use]
    pub fn save(&self) -> Record {
        let mut r = Record::new();
        for (i, shard) in self.shards.iter().enumerate() {
            r.put_record(&format!("env{i}"), shard.env.save());
            Stream::save_all(&shard.rngs, &format!("actions{i}"), &mut r);
            if let Some(states) = &self.data.get(i).and_then(|d| d.states.as_ref()) {
                r.put(&format!("state{i}"), shard.state.clone());
                r.put(&format!("critic_state{i}"), states.critic_after.clone());
            }
        }
        if let Some(norm) = &self.obs_norm {
            r.put_record("obs_norm", norm.save());
        }
        if let Some(norm) = &self.reward_norm {
            r.put_record("reward_norm", norm.save());
        }
        if let Some(vine) = &self.vine {
            r.put("vine", vec![vine.iteration()]);
        }
        r
    }
    /// Restores what [`Rollout::save`] saved. Returns whether the environments continue exactly.
    ///
    /// # Errors
    /// When the record does not fit.
    pub fn load(&mut self, from: &Record) -> Result<bool, RecordError> {
        let mut exact = true;
        for (i, shard) in self.shards.iter_mut().enumerate() {
            let goes_on = shard.env.load(&from.record(&format!("env{i}")))?;
            exact &= goes_on;
            Stream::load_all(&mut shard.rngs, &format!("actions{i}"), from)?;
            if let Some(states) = self.data.get_mut(i).and_then(|d| d.states.as_mut()) {
                for (name, to) in [("state", &mut shard.state), ("critic_state", &mut states.critic_after)] {
                    let name = format!("{name}{i}");
                    let values = from.f32s(&name, to.len())?;
                    if !kernels::all_finite(values) {
                        return Err(RecordError::Value { name, reason: "a state is finite".into() });
                    }
                    // What an environment begins anew, nobody remembers.
                    to.iter_mut().zip(values).for_each(|(to, x)| *to = if goes_on { *x } else { 0.0 });
                }
            }
        }
        if let Some(norm) = &mut self.obs_norm {
            norm.load(&from.record("obs_norm"))?;
        }
        if let Some(norm) = &mut self.reward_norm {
            norm.load(&from.record("reward_norm"))?;
        }
        if let Some(vine) = &mut self.vine {
            vine.set_iteration(from.u64("vine")?);
        }
        Ok(exact)
    }
}

impl Shard {
    fn new(env: VecEnv, first: usize, model: &ActorCritic, seed: u64) -> Self {
        let (spec, b) = (env.spec(), env.len());
        let obs_dim = spec.observation.obs_dim();
        let (index_rows, real_rows) = action_rows(spec);
        let mask_rows = mask_rows(spec);
        Self {
            rngs: (0..b).map(|i| Stream::new(seed, STREAM_ACTION, (first + i) as u32)).collect(),
            seen: Moments::new(obs_dim),
            first,
            keep: Vec::new(),
            kept: Vec::new(),
            work: StepWork {
                x: vec![0.0; obs_dim * b],
                index_actions: vec![0; index_rows * b],
                real_actions: vec![0.0; real_rows * b],
                clipped: vec![0.0; real_rows * b],
                masks: vec![true; mask_rows * b],
                mask_scratch: Vec::with_capacity(mask_rows),
                tape: model.actor().net.tape(b),
                fresh: vec![false; b],
            },
            state: vec![0.0; model.actor().net.state_rows() * b],
            env,
        }
    }

    fn collect(
        &mut self,
        model: &ActorCritic,
        norm: Option<&ObsNormalizer>,
        data: &mut Samples,
        steps: usize,
    ) -> Result<(), AgentError> {
        self.env.clear_finished();
        data.cut.clear();
        data.cut_obs.clear();
        self.seen.clear();
        self.kept.clear();
        let b = self.env.len();
        if let Some(states) = &mut data.states {
            states.begin(b);
        }
        for t in 0..steps {
            self.keep_states(t)?;
            if norm.is_some() {
                self.seen.add_cols(self.env.obs());
            }
            if let Some(states) = &mut data.states {
                states.keep(t, &self.state, b);
            }
            self.step(model, norm, data, t)?;
        }
        self.present(norm);
        transpose(&self.work.x, &mut data.last_obs, b);
        Ok(())
    }

    /// One step of every environment, stored as row `t`.
    fn step(
        &mut self,
        model: &ActorCritic,
        norm: Option<&ObsNormalizer>,
        data: &mut Samples,
        t: usize,
    ) -> Result<(), AgentError> {
        self.look(norm, data, t);
        self.act(model, data, t, |params, _, rngs, actions| model.dist().sample(params, rngs, actions))?;
        self.advance(norm, data, t)
    }

    /// Stores the observations of step `t`.
    fn look(&mut self, norm: Option<&ObsNormalizer>, data: &mut Samples, t: usize) {
        let b = self.env.len();
        self.present(norm);
        let dim = self.work.x.len() / b;
        transpose(&self.work.x, &mut data.obs[t * b * dim..(t + 1) * b * dim], b);
    }

    /// Does what was decided in step `t`, and stores what came of it.
    fn advance(
        &mut self,
        norm: Option<&ObsNormalizer>,
        data: &mut Samples,
        t: usize,
    ) -> Result<(), AgentError> {
        let b = self.env.len();
        let rows = t * b..(t + 1) * b;
        let space = &self.env.spec().action;
        let work = &mut self.work;
        let actions = if let Space::Box(bounds) = space {
            work.clipped.copy_from_slice(&work.real_actions);
            for (i, row) in work.clipped.chunks_exact_mut(b).enumerate() {
                let (low, high) = (bounds.low[i], bounds.high[i]);
                row.iter_mut().for_each(|a| *a = a.clamp(low, high));
            }
            EnvActions::Real(Cols::new(&work.clipped, bounds.dim(), b))
        } else {
            EnvActions::Index(Cols::new(&work.index_actions, space.action_dim(), b))
        };
        self.env.step(actions)?;
        forget(&mut self.state, self.env.ends());
        for (to, r) in data.reward[rows.clone()].iter_mut().zip(self.env.rewards()) {
            *to = *r as f32;
        }
        data.ends[rows.clone()].copy_from_slice(self.env.ends());
        for i in 0..b {
            if self.env.ends()[i] == End::Truncated {
                data.cut.push((rows.start + i) as u32);
                let from = data.cut_obs.len();
                let obs = self.env.final_obs();
                data.cut_obs.extend((0..obs.rows()).map(|d| obs.at(d, i)));
                if let Some(norm) = norm {
                    norm.apply_one(&mut data.cut_obs[from..]);
                }
            }
        }
        Ok(())
    }

    /// Puts the present observations, normalised, into `work.x`.
    fn present(&mut self, norm: Option<&ObsNormalizer>) {
        let obs = self.env.obs();
        self.work.x.copy_from_slice(obs.data());
        if let Some(norm) = norm {
            norm.apply(ColsMut::new(&mut self.work.x, obs.rows(), obs.cols()));
        }
    }

    /// Lets `draw` choose the actions of step `t`, from the policy's parameters, the masks and the streams, and stores
    /// them with their log-probabilities under the policy.
    fn act(
        &mut self,
        model: &ActorCritic,
        data: &mut Samples,
        t: usize,
        draw: impl FnOnce(Cols<'_, f32>, Option<Cols<'_, bool>>, &mut [Stream], ActionsMut<'_, f32>),
    ) -> Result<(), AgentError> {
        let b = self.env.len();
        let rows = t * b..(t + 1) * b;
        let Self { work, env, rngs, state, .. } = self;
        let dist: &ActionDist = model.dist();
        let dim = work.x.len() / b;
        let state_rows = state.len() / b;
        if state_rows > 0 {
            work.tape.begin(1, Cols::new(state, state_rows, b), &work.fresh);
        }
        let mut out = model.policy_outputs(Cols::new(&work.x, dim, b), &mut work.tape);
        if let Some(i) = kernels::first_non_finite(out.as_cols().data()) {
            let (episode, step) = env.position(i % b);
            return Err(AgentError::Output {
                network: "policy",
                env: data.first + i % b,
                episode,
                step,
                index: i / b,
                value: out.as_cols().data()[i],
            });
        }
        let mask_rows = work.masks.len() / b;
        if mask_rows > 0 {
            env.action_masks(ColsMut::new(&mut work.masks, mask_rows, b), &mut work.mask_scratch)?;
            transpose(&work.masks, &mut data.masks[rows.start * mask_rows..rows.end * mask_rows], b);
        }
        let mask = (mask_rows > 0).then(|| Cols::new(&work.masks[..], mask_rows, b));
        dist.prepare(out.reborrow(), mask);
        let params = out.as_cols();
        if !data.params.is_empty() {
            let outputs = params.rows();
            transpose(params.data(), &mut data.params[rows.start * outputs..rows.end * outputs], b);
        }
        let action_rows = dist.action_rows();
        let at = rows.start * action_rows..rows.end * action_rows;
        if dist.is_discrete() {
            let mut actions = ActionsMut::Index(ColsMut::new(&mut work.index_actions, action_rows, b));
            draw(params, mask, rngs, actions.reborrow());
            dist.logp(params, actions.as_actions(), &mut data.logp[rows]);
            transpose(&work.index_actions, &mut data.index_actions[at], b);
        } else {
            let mut actions = ActionsMut::Real(ColsMut::new(&mut work.real_actions, action_rows, b));
            draw(params, mask, rngs, actions.reborrow());
            dist.logp(params, actions.as_actions(), &mut data.logp[rows]);
            if let Some(i) = kernels::first_non_finite(&work.real_actions) {
                let (episode, step) = env.position(i % b);
                let (env, value) = (data.first + i % b, work.real_actions[i]);
                return Err(AgentError::Action { env, episode, step, index: i / b, value });
            }
            transpose(&work.real_actions, &mut data.real_actions[at], b);
        }
        if state_rows > 0 {
            work.tape.last_state(ColsMut::new(state, state_rows, b));
        }
        Ok(())
    }
}

impl Samples {
    fn new(spec: &EnvSpec, first: usize, b: usize, steps: usize) -> Self {
        let n = steps * b;
        let obs_dim = spec.observation.obs_dim();
        let (index_rows, real_rows) = action_rows(spec);
        Self {
            first,
            b,
            runs: Vec::new(),
            obs: vec![0.0; n * obs_dim],
            index_actions: vec![0; n * index_rows],
            real_actions: vec![0.0; n * real_rows],
            masks: vec![true; n * mask_rows(spec)],
            logp: vec![0.0; n],
            params: Vec::new(),
            ratio: vec![1.0; n],
            reward: vec![0.0; n],
            ends: vec![End::Running; n],
            // Every step may be cut; memory that is never touched costs nothing.
            cut: Vec::with_capacity(n),
            cut_obs: Vec::with_capacity(n * obs_dim),
            v_cut: Vec::with_capacity(n),
            last_obs: vec![0.0; b * obs_dim],
            v_last: vec![0.0; b],
            v: vec![0.0; n],
            v_next: vec![0.0; n],
            carry: vec![0.0; n],
            adv: vec![0.0; n],
            ret: vec![0.0; n],
            weight: Vec::new(),
            states: None,
            error: None,
        }
    }

    /// Rollout step and environment (of the run) of flat index `i`.
    fn place(&self, i: usize) -> (usize, usize) {
        match self.runs.partition_point(|start| *start <= i).checked_sub(1) {
            Some(env) => (i - self.runs[env], env),
            None => (i / self.b, self.first + i % self.b),
        }
    }
    /// Number of rows, `T`.
    fn rows(&self) -> usize {
        self.reward.len() / self.b
    }

    /// Ratios of all samples under a recurrent policy, from the states that their sequences start from.
    fn ratios_with_memory(&mut self, model: &ActorCritic, work: &mut ValueWork, masked: bool) {
        let mut ratio = std::mem::take(&mut self.ratio);
        if let Some([actor, _]) = &mut work.walks {
            self.walk_policy(model, actor, |from, outputs| {
                let n = outputs.cols();
                let to = &mut ratio[from..from + n];
                work.ratios.taken.ratios(model, outputs, self, from, masked, to);
            });
        }
        self.error = kernels::first_non_finite(&ratio).map(|i| {
            let (step, env) = self.place(i);
            AgentError::Estimate { what: "ratio", env, step, value: ratio[i] }
        });
        self.ratio = ratio;
    }

    /// Values after the last row and at cuts; then `v_next` and `carry`.
    fn evaluate_ends(
        &mut self,
        model: &ActorCritic,
        work: &mut ValueWork,
        bootstrap_truncated: bool,
    ) -> Result<(), AgentError> {
        self.v_cut.clear();
        self.v_cut.resize(self.cut.len(), 0.0);
        work.all_values(model, &self.last_obs, &mut self.v_last);
        work.all_values(model, &self.cut_obs, &mut self.v_cut);
        self.resolve_finite(bootstrap_truncated)
    }

    /// `v_next` and `carry`, if the values of what follows are finite.
    fn resolve_finite(&mut self, bootstrap_truncated: bool) -> Result<(), AgentError> {
        if let Some(i) = kernels::first_non_finite(&self.v_last) {
            return Err(AgentError::Value { env: self.first + i, step: self.rows(), value: self.v_last[i] });
        }
        if let Some(i) = kernels::first_non_finite(&self.v_cut) {
            let (step, env) = self.place(self.cut[i] as usize);
            return Err(AgentError::Value { env, step, value: self.v_cut[i] });
        }
        self.resolve(bootstrap_truncated);
        Ok(())
    }

    /// `v_next` and `carry` where every value is 0.
    fn resolve_without_values(&mut self, bootstrap_truncated: bool) {
        self.v_cut.clear();
        self.v_cut.resize(self.cut.len(), 0.0);
        self.v.fill(0.0);
        self.v_last.fill(0.0);
        self.resolve(bootstrap_truncated);
    }

    fn resolve(&mut self, bootstrap_truncated: bool) {
        let (t, b) = (self.rows(), self.b);
        resolve(
            &self.ends,
            Tb::new(&self.v, t, b),
            &self.v_last,
            &self.cut,
            &self.v_cut,
            bootstrap_truncated,
            TbMut::new(&mut self.v_next, t, b),
            TbMut::new(&mut self.carry, t, b),
        );
    }

    fn check_estimates(&self) -> Result<(), AgentError> {
        for (what, x) in [("advantage", &self.adv), ("return", &self.ret)] {
            if let Some(i) = kernels::first_non_finite(x) {
                let (step, env) = self.place(i);
                return Err(AgentError::Estimate { what, env, step, value: x[i] });
            }
        }
        Ok(())
    }
}

impl ValueWork {
    /// Values of `len` consecutive samples.
    fn values(&mut self, model: &ActorCritic, obs: &[f32], from: usize, len: usize, v: &mut [f32]) {
        let dim = self.x.len() / CHUNK;
        let x = &mut self.x[..dim * len];
        rows_to_columns(&obs[from * dim..(from + len) * dim], x, len);
        v[..len].copy_from_slice(model.values(Cols::new(x, dim, len), &mut self.tape));
    }
    fn all_values(&mut self, model: &ActorCritic, obs: &[f32], v: &mut [f32]) {
        for from in (0..v.len()).step_by(CHUNK) {
            let len = CHUNK.min(v.len() - from);
            self.values(model, obs, from, len, &mut v[from..from + len]);
        }
    }
}

impl RatioWork {
    /// `room` samples at once from a recurrent policy, [`CHUNK`] from another.
    fn new(spec: &EnvSpec, model: &ActorCritic, room: usize) -> Self {
        let net = &model.actor().net;
        let (index_rows, real_rows) = action_rows(spec);
        Self {
            x: vec![0.0; net.n_inputs() * CHUNK],
            tape: net.tape(CHUNK),
            taken: TakenWork {
                index_actions: vec![0; index_rows * room],
                real_actions: vec![0.0; real_rows * room],
                masks: vec![true; mask_rows(spec) * room],
                room,
            },
        }
    }
    /// Ratios of consecutive samples of a shard, as many as `ratio` has room for.
    fn ratios(&mut self, model: &ActorCritic, data: &Samples, from: usize, masked: bool, ratio: &mut [f32]) {
        let Self { x, tape, taken } = self;
        let outputs = model.policy_outputs(row_columns(&data.obs, x, CHUNK, from, ratio.len()), tape);
        taken.ratios(model, outputs, data, from, masked, ratio);
    }
}

impl TakenWork {
    /// Ratios of consecutive samples of a shard, for which the policy gives `outputs`.
    fn ratios(
        &mut self,
        model: &ActorCritic,
        mut outputs: ColsMut<'_, f32>,
        data: &Samples,
        from: usize,
        masked: bool,
        ratio: &mut [f32],
    ) {
        let (n, room, dist) = (ratio.len(), self.room, model.dist());
        let mask = masked.then(|| row_columns(&data.masks, &mut self.masks, room, from, n));
        dist.prepare(outputs.reborrow(), mask);
        let actions = if dist.is_discrete() {
            Actions::Index(row_columns(&data.index_actions, &mut self.index_actions, room, from, n))
        } else {
            Actions::Real(row_columns(&data.real_actions, &mut self.real_actions, room, from, n))
        };
        dist.logp(outputs.as_cols(), actions, ratio);
        for (ratio, logp_old) in ratio.iter_mut().zip(&data.logp[from..]) {
            *ratio -= *logp_old;
        }
        f32::exp_slice(ratio);
    }
}

/// The rows `from..from + n` as columns `[dim x n]`, in a buffer that has room for `room` of them.
fn row_columns<'a, T: Copy>(rows: &[T], to: &'a mut [T], room: usize, from: usize, n: usize) -> Cols<'a, T> {
    let dim = to.len() / room;
    let to = &mut to[..dim * n];
    rows_to_columns(&rows[from * dim..(from + n) * dim], to, n);
    Cols::new(to, dim, n)
}

/// Marks the steps of lost episodes of `b` environments, `[T, B]`.
pub(crate) fn mark_lost(ends: &[End], b: usize, flags: &mut [bool]) {
    for i in 0..b {
        let mut begin = i;
        for at in (i..ends.len()).step_by(b) {
            if ends[at] == End::Lost {
                (begin..=at).step_by(b).for_each(|at| flags[at] = true);
            }
            if ends[at] != End::Running {
                begin = at + b;
            }
        }
    }
}

/// Tells parameters apart, for debug builds.
fn digest(model: &ActorCritic) -> u64 {
    model
        .theta
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |h, x| (h ^ u64::from(x.to_bits())).wrapping_mul(0x0000_0100_0000_01b3))
}

/// Rows of an action: as indices, as real numbers.
pub(crate) fn action_rows(spec: &EnvSpec) -> (usize, usize) {
    match spec.action {
        Space::Box(_) => (0, spec.action.action_dim()),
        _ => (spec.action.action_dim(), 0),
    }
}

pub(crate) fn mask_rows(spec: &EnvSpec) -> usize {
    if spec.masks_actions { spec.action.mask_dim() } else { 0 }
}

/// `[dim x b]`, batch contiguous, to a row of `dim` for each sample.
pub(crate) fn transpose<T: Copy>(columns: &[T], rows: &mut [T], b: usize) {
    if b == 1 {
        return rows.copy_from_slice(columns);
    }
    let dim = columns.len() / b;
    for (i, row) in rows.chunks_exact_mut(dim.max(1)).enumerate() {
        for (d, x) in row.iter_mut().enumerate() {
            *x = columns[d * b + i];
        }
    }
}

/// A row for each sample to `[dim x n]`, batch contiguous.
pub(crate) fn rows_to_columns<T: Copy>(rows: &[T], columns: &mut [T], n: usize) {
    let dim = rows.len() / n.max(1);
    for (i, row) in rows.chunks_exact(dim.max(1)).enumerate() {
        for (d, x) in row.iter().enumerate() {
            columns[d * n + i] = *x;
        }
    }
}
