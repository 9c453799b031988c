//! The data of one iteration, and what becomes of them: collected, valued, estimated.
//!
//! A collector fills a [`Store`] and lends it as a [`Batch`]. Each later stage takes the one before by value,
//! so that no gradient can be asked of data that have no estimates: [`Batch`] →
//! [`Engine::values`](crate::Engine::values) → [`Valued`] → [`Engine::estimate`](crate::Engine::estimate) →
//! [`Estimated`].

use crate::bootstrap::resolve;
use pgrad_env::{End, EnvSpec};
use pgrad_model::{ActorCritic, AgentError, Role, States, action_rows, mark_lost, mask_rows};
use pgrad_num::{Tb, TbMut, kernels};
use std::ops::Deref;

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
    /// `π_θ(a_t|s_t)/π_old(a_t|s_t)` as of the last [`Engine::ratios`](crate::Engine::ratios); 1 before it.
    pub ratio: Tb<'a, f32>,
    /// To write: the advantages `Â_t`, or whatever else weighs the score.
    pub adv: TbMut<'a, f32>,
    /// To write: the value targets.
    pub ret: TbMut<'a, f32>,
}

/// What the environments of a shard went through, and what learning needs of it. A sample is a row (it is
/// gathered as one piece); sample `t·B + b` is step `t` of environment `b` of the shard. A batch of whole
/// episodes is one column of samples, `B = 1`, in which the episodes follow each other.
#[derive(Debug)]
pub struct Samples {
    /// Number of the shard's first environment in the run.
    pub first: usize,
    /// Environments of the shard, `B`.
    pub b: usize,
    /// Where each environment's samples begin in a column of whole episodes; empty otherwise.
    pub runs: Vec<usize>,
    /// Observations, normalised where observations are, `[n x obs_dim]`.
    pub obs: Vec<f32>,
    /// Alternatives of the actions, `[n x index_rows]`.
    pub index_actions: Vec<u32>,
    /// Numbers of the actions, as drawn, `[n x real_rows]`.
    pub real_actions: Vec<f32>,
    /// Which alternatives were allowed, `[n x mask_dim]`.
    pub masks: Vec<bool>,
    /// `log π_old(a_t|s_t)`.
    pub logp: Vec<f32>,
    /// The distribution's parameters under `π_old`, `[n x n_outputs]`; empty unless they are kept.
    pub params: Vec<f32>,
    /// `π_θ(a_t|s_t)/π_old(a_t|s_t)`.
    pub ratio: Vec<f32>,
    /// Rewards.
    pub reward: Vec<f32>,
    /// How each step ended.
    pub ends: Vec<End>,
    /// Flat indices of truncated steps, ascending.
    pub cut: Vec<u32>,
    /// Their final observations, a row each.
    pub cut_obs: Vec<f32>,
    /// Observations after the last step, a row for each environment.
    pub last_obs: Vec<f32>,
    /// Weights of several actions in one state; empty where each state has one.
    pub weight: Vec<f32>,
    /// States of recurrent networks.
    pub states: Option<States>,
    /// `Â_t`.
    pub adv: Vec<f32>,
    /// Value targets.
    pub ret: Vec<f32>,
    pub(crate) v_cut: Vec<f32>,
    pub(crate) v_last: Vec<f32>,
    pub(crate) v: Vec<f32>,
    pub(crate) v_next: Vec<f32>,
    pub(crate) carry: Vec<f32>,
    /// What went wrong with this shard, until somebody asks.
    pub error: Option<AgentError>,
}

/// Steps of `b` environments that are cut within `steps` rows, if nothing but the time limit cuts any; there
/// is room for more when there are more.
#[must_use]
pub fn cuts(spec: &EnvSpec, b: usize, steps: usize) -> usize {
    let each = spec.max_episode_steps.map_or(0, |limit| steps / limit.max(1) as usize + 1);
    b * each.min(steps)
}

impl Samples {
    /// Room for `steps` rows of `b` environments, of which `first` is the first.
    #[must_use]
    pub fn new(spec: &EnvSpec, first: usize, b: usize, steps: usize) -> Self {
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
            cut_obs: Vec::with_capacity(cuts(spec, b, steps) * obs_dim),
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
    /// Number of rows, `T`.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.reward.len() / self.b
    }
    /// Step and environment (of the run) of flat index `i`.
    pub fn place(&self, i: usize) -> (usize, usize) {
        match self.runs.partition_point(|start| *start <= i).checked_sub(1) {
            Some(env) => (i - self.runs[env], env),
            None => (i / self.b, self.first + i % self.b),
        }
    }
    /// The error of a number of sample `i` that is not finite, called `what`.
    pub fn not_finite(&self, what: &'static str, i: usize, value: f32) -> AgentError {
        let (step, env) = self.place(i);
        match what {
            "value" => AgentError::Value { env, step, value },
            _ => AgentError::Estimate { what, env, step, value },
        }
    }

    /// `v_next` and `carry`, if the values of what follows are finite.
    pub(crate) fn resolve_finite(&mut self, bootstrap_truncated: bool) -> Result<(), AgentError> {
        if let Some(i) = kernels::first_non_finite(&self.v_last) {
            return Err(AgentError::Value { env: self.first + i, step: self.rows(), value: self.v_last[i] });
        }
        if let Some(i) = kernels::first_non_finite(&self.v_cut) {
            return Err(self.not_finite("value", self.cut[i] as usize, self.v_cut[i]));
        }
        self.resolve(bootstrap_truncated);
        Ok(())
    }
    /// `v_next` and `carry` where every value is 0.
    pub(crate) fn resolve_without_values(&mut self, bootstrap_truncated: bool) {
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
    /// Lets `estimate` write advantages and targets.
    pub(crate) fn estimate(&mut self, estimate: impl Fn(Paths<'_>)) -> Result<(), AgentError> {
        let (t, b) = (self.rows(), self.b);
        estimate(Paths {
            reward: Tb::new(&self.reward, t, b),
            v: Tb::new(&self.v, t, b),
            v_next: Tb::new(&self.v_next, t, b),
            carry: Tb::new(&self.carry, t, b),
            ratio: Tb::new(&self.ratio, t, b),
            adv: TbMut::new(&mut self.adv, t, b),
            ret: TbMut::new(&mut self.ret, t, b),
        });
        self.check_estimates()
    }
    /// The error of an advantage or a target that is not finite.
    ///
    /// # Errors
    /// The first one.
    pub fn check_estimates(&self) -> Result<(), AgentError> {
        for (what, x) in [("advantage", &self.adv), ("return", &self.ret)] {
            if let Some(i) = kernels::first_non_finite(x) {
                return Err(self.not_finite(what, i, x[i]));
            }
        }
        Ok(())
    }

    /// Makes room for `rows` rows of what is written while playing.
    pub fn grow(&mut self, rows: usize) {
        fn to<T: Copy>(x: &mut Vec<T>, before: usize, n: usize, fill: T) {
            let width = x.len() / before;
            x.resize(n * width, fill);
        }
        let (before, n) = (self.ends.len(), rows * self.b);
        to(&mut self.obs, before, n, 0.0);
        to(&mut self.index_actions, before, n, 0);
        to(&mut self.real_actions, before, n, 0.0);
        to(&mut self.masks, before, n, true);
        to(&mut self.logp, before, n, 0.0);
        to(&mut self.reward, before, n, 0.0);
        to(&mut self.ends, before, n, End::Running);
    }
    /// Forgets all samples.
    pub fn clear(&mut self) {
        self.runs.clear();
        self.obs.clear();
        self.index_actions.clear();
        self.real_actions.clear();
        self.masks.clear();
        self.logp.clear();
        self.reward.clear();
        self.ends.clear();
        self.cut.clear();
        self.cut_obs.clear();
    }
    /// Takes over what was stored before a step.
    pub fn copy_step(&mut self, from: &Samples) {
        self.obs.copy_from_slice(&from.obs);
        self.masks.copy_from_slice(&from.masks);
        self.index_actions.copy_from_slice(&from.index_actions);
        self.real_actions.copy_from_slice(&from.real_actions);
    }

    /// Makes all vectors that are written after collecting as long as the rewards.
    pub fn fit(&mut self) {
        let n = self.reward.len();
        self.ratio.clear();
        self.ratio.resize(n, 1.0);
        for x in [&mut self.v, &mut self.v_next, &mut self.carry, &mut self.adv, &mut self.ret] {
            x.resize(n, 0.0);
        }
    }
}

/// All samples of a batch, by number.
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
    /// Whether the samples were drawn with the present parameters, by a model whose outputs must then have
    /// the bits that they had; looked at by debug builds only.
    pub(crate) same_bits: bool,
    /// Numbers of a state of the actor and of the critic.
    state_rows: [usize; 2],
}

impl<'a> SampleSet<'a> {
    /// The shard and the index in it, of sample `i`.
    #[inline]
    pub(crate) fn place(&self, i: u32) -> (u32, u32) {
        let i = if self.kept.is_empty() { i } else { self.kept[i as usize] };
        // A division takes longer than all else; small runs have a single shard.
        if self.data.len() == 1 { (0, i) } else { (i / self.shard_len, i % self.shard_len) }
    }
    /// The data of a shard.
    #[inline]
    pub(crate) fn shard(&self, number: u32) -> &'a Samples {
        &self.data[number as usize]
    }
    /// The shard's data and the index in it, of sample `i`.
    #[inline]
    pub(crate) fn get(&self, i: u32) -> (&'a Samples, usize) {
        let (shard, at) = self.place(i);
        (self.shard(shard), at as usize)
    }
    /// Numbers of a state.
    pub(crate) fn state_rows(&self, owner: Role) -> usize {
        self.state_rows[usize::from(owner == Role::Critic)]
    }
    /// Whether the samples have the parameters of the policy that drew them.
    pub(crate) fn keeps_params(&self) -> bool {
        !self.data[0].params.is_empty()
    }
}

/// Samples of lost episodes, which are not learnt from. The others are numbered as if those were not there,
/// but for sequences of recurrent models: there the numbers stay, and a sequence with a lost step is left out
/// as a whole.
#[derive(Debug, Default)]
struct Lost {
    /// Of every sample, shard after shard; empty when none is lost.
    flags: Vec<bool>,
    /// The numbers that the others had; empty when none is lost, and with sequences.
    kept: Vec<u32>,
    /// How many are left out of this batch.
    n: usize,
}

/// States that have several rollouts each: what a vine is learnt from.
#[derive(Debug)]
pub struct Branches {
    /// A row for each state; actions, weights, `Q̂` and advantages have `per_state` rows for each.
    pub samples: Samples,
    /// Rollouts from each state, `K`.
    pub per_state: usize,
    /// Number of states, `N`.
    pub states: usize,
    /// Steps of all rollouts together.
    pub steps: u64,
}

/// Memory for the data of one iteration. It belongs to whoever collects, and is used again in every
/// iteration.
#[derive(Debug)]
pub struct Store {
    /// The samples of each shard.
    pub shards: Vec<Samples>,
    /// Present when the samples are states with several rollouts each.
    pub branches: Option<Branches>,
    masked: bool,
    shard_len: u32,
    bootstrap_truncated: bool,
    /// All advantages, shard after shard.
    adv: Vec<f32>,
    lost: Lost,
    /// Digest of the parameters that drew a recurrent policy's samples, in debug builds.
    drawn_by: Option<u64>,
}

impl Store {
    /// A store of some shards of at most `shard_len` samples each, of which only the last has fewer.
    /// `bootstrap_truncated`: whether the value of the final observation counts where a time limit cut an
    /// episode.
    #[must_use]
    pub fn new(shards: Vec<Samples>, spec: &EnvSpec, shard_len: usize, bootstrap_truncated: bool) -> Self {
        let adv = vec![0.0; shards.iter().map(|s| s.adv.len()).sum()];
        Self {
            shards,
            branches: None,
            masked: spec.masks_actions,
            // Sample numbers fit in 32 bits, and so does this (an only shard may be longer: it is never
            // left).
            shard_len: u32::try_from(shard_len).unwrap_or(u32::MAX),
            bootstrap_truncated,
            adv,
            lost: Lost::default(),
            drawn_by: None,
        }
    }
    /// From now on keeps the parameters of the distribution that each action was drawn from: the exact
    /// divergence of a later policy from `π_old` needs them.
    pub fn keep_policy_params(&mut self, model: &ActorCritic) {
        for data in &mut self.shards {
            data.params = vec![0.0; data.logp.len() * model.dist().n_outputs()];
        }
    }
    /// Number of samples: steps but for those of lost episodes, or the states of a vine.
    #[must_use]
    pub fn len(&self) -> usize {
        self.branches.as_ref().map_or(self.adv.len() - self.lost.n, |b| b.states)
    }
    /// Whether there are no samples.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Steps that the environments did: one for each sample, and with a vine those of its trunk and of its
    /// rollouts.
    #[must_use]
    pub fn steps(&self) -> u64 {
        (self.adv.len() - self.lost.n) as u64 + self.branches.as_ref().map_or(0, |b| b.steps)
    }
    /// Whether samples of this batch are left out.
    pub(crate) fn has_lost(&self) -> bool {
        self.lost.n > 0
    }
    /// Samples that are left out.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.lost.n
    }
    /// The environments have filled the shards, under the policy of `model`: finds what is lost, and lends
    /// the rest.
    pub fn collected(&mut self, model: &ActorCritic) -> Batch<'_> {
        self.drawn_by = (cfg!(debug_assertions) && model.recurrence().is_some()).then(|| digest(model));
        self.adv.resize(self.shards.iter().map(|s| s.adv.len()).sum(), 0.0);
        self.find_lost();
        Batch(self)
    }

    /// The batch last collected, once more.
    pub fn batch(&mut self) -> Batch<'_> {
        Batch(self)
    }

    /// Finds the steps of lost episodes, from their first one in this batch on.
    fn find_lost(&mut self) {
        let Lost { flags, kept, n } = &mut self.lost;
        flags.clear();
        kept.clear();
        *n = 0;
        if self.shards.iter().all(|d| !d.ends.contains(&End::Lost)) {
            return;
        }
        for data in &self.shards {
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
        if self.shards[0].states.is_none() {
            kept.extend((0..flags.len() as u32).filter(|i| !flags[*i as usize]));
        }
    }

    /// Writes the numbers of all samples; those of a recurrent model sequence after sequence.
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
    /// Steps of a sequence of a recurrent model, and of each sequence its first sample and how far apart the
    /// numbers of its samples are.
    pub(crate) fn sequences(&self) -> Option<(usize, impl Iterator<Item = (u32, u32)> + '_)> {
        let length = self.shards[0].states.as_ref()?.length;
        let mut start = 0;
        let shards = self.shards.iter().map(move |d| {
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
    /// Whether the time limit's value counts.
    pub(crate) fn bootstrap_truncated(&self) -> bool {
        self.bootstrap_truncated
    }
    /// Whether actions are masked.
    pub(crate) fn masked(&self) -> bool {
        self.masked
    }
    /// The first error of a shard.
    ///
    /// # Errors
    /// That one.
    pub fn first_error(&mut self) -> Result<(), AgentError> {
        self.shards.iter_mut().find_map(|d| d.error.take()).map_or(Ok(()), Err)
    }

    /// The samples, for gathering.
    pub(crate) fn samples(&self, model: &ActorCritic) -> SampleSet<'_> {
        let critic_rows = if model.has_critic() { model.critic().net.state_rows() } else { 0 };
        let all = SampleSet {
            data: &self.shards,
            kept: &self.lost.kept,
            shard_len: self.shard_len,
            masked: self.masked,
            branching: 1,
            weighted: false,
            same_bits: cfg!(debug_assertions) && self.drawn_by == Some(digest(model)),
            state_rows: [model.actor().net.state_rows(), critic_rows],
        };
        match &self.branches {
            None => all,
            Some(branches) => SampleSet {
                data: std::slice::from_ref(&branches.samples),
                kept: &[],
                shard_len: u32::MAX,
                branching: branches.per_state,
                weighted: true,
                ..all
            },
        }
    }
}

/// What was collected.
#[derive(Debug)]
pub struct Batch<'a>(pub(crate) &'a mut Store);

/// A batch whose samples, and what follows them, have values.
#[derive(Debug)]
pub struct Valued<'a>(pub(crate) &'a mut Store);

/// A batch that can be learnt from: its samples have `Ψ_t` and targets.
#[derive(Debug)]
pub struct Estimated<'a>(pub(crate) &'a mut Store);

impl Deref for Batch<'_> {
    type Target = Store;
    fn deref(&self) -> &Store {
        self.0
    }
}

impl Deref for Valued<'_> {
    type Target = Store;
    fn deref(&self) -> &Store {
        self.0
    }
}

impl Deref for Estimated<'_> {
    type Target = Store;
    fn deref(&self) -> &Store {
        self.0
    }
}

impl<'a> Batch<'a> {
    /// A vine, whose rollouts are its estimates: the critic has no part in it.
    ///
    /// # Panics
    /// When the batch is no vine.
    #[must_use]
    pub fn of_vine(self) -> Estimated<'a> {
        assert!(self.branches.is_some(), "only rollouts from a state tell its value without a critic");
        Estimated(self.0)
    }
}

impl<'a> Valued<'a> {
    /// All shards have their estimates: they are laid one after another.
    pub(crate) fn estimated(self) -> Estimated<'a> {
        let Store { shards, adv, .. } = &mut *self.0;
        let mut at = 0;
        for data in &*shards {
            adv[at..at + data.adv.len()].copy_from_slice(&data.adv);
            at += data.adv.len();
        }
        Estimated(self.0)
    }
}

impl<'a> Estimated<'a> {
    /// The same data, to be valued and estimated anew with other parameters.
    #[must_use]
    pub fn into_batch(self) -> Batch<'a> {
        Batch(self.0)
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
    /// than a constant, negative when worse; NaN when the targets do not vary.
    #[must_use]
    pub fn explained_variance(&self) -> f64 {
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
            self.shards.iter().map(pairs).sum()
        };
        let (mean, mean_error) = (each(&|r, _| r) / n, each(&|r, v| r - v) / n);
        let total = each(&|r, _| (r - mean) * (r - mean));
        let left = each(&|r, v| (r - v - mean_error).powi(2));
        if total > 1e-12 * n { 1.0 - left / total } else { f64::NAN }
    }
}

/// Tells parameters apart, for debug builds.
fn digest(model: &ActorCritic) -> u64 {
    model
        .theta
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |h, x| (h ^ u64::from(x.to_bits())).wrapping_mul(0x0000_0100_0000_01b3))
}
