//! The collector: a policy acts, and what came of it is stored.
//!
//! It gathers `T` steps of `N` environments, whole episodes ([`Collector::episodes`]), or a vine
//! ([`Collector::vine`]). Environments are cut into shards, by the configuration alone; a shard runs for a
//! whole iteration without waiting for the others. A batch does not depend on where its shards ran.

use crate::{
    episodes::{EpisodesShape, Whole},
    shard::Shard,
    vine::{Branch, Vine, VineShape},
};
use pgrad_engine::{Batch, Cpu, Samples, Store};
use pgrad_env::{BatchResult, EnvSpec, Episode, MakeError, VecEnv};
use pgrad_model::{ActorCritic, AgentError, Clipping, ObsNormalizer, RewardNormalizer, States};
use pgrad_num::{Record, RecordError, Stream, kernels};

/// How much a batch holds and how it is cut for the threads.
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

/// Running normalisers: of observations, and of rewards.
pub type Normalizers = (Option<ObsNormalizer>, Option<RewardNormalizer>);

/// Environments that go on from iteration to iteration, and the memory for what they go through.
pub struct Collector {
    cpu: Cpu,
    shape: RolloutShape,
    spec: EnvSpec,
    pub(crate) shards: Vec<Shard>,
    pub(crate) store: Store,
    pub(crate) obs_norm: Option<ObsNormalizer>,
    pub(crate) reward_norm: Option<RewardNormalizer>,
    /// Steps of lost episodes so far.
    lost: u64,
    /// Present when batches are whole episodes; `shape.n_steps` has no meaning then.
    pub(crate) whole: Option<Whole>,
    /// Present when samples are states with several rollouts each.
    pub(crate) vine: Option<Vine>,
}

impl std::fmt::Debug for Collector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collector")
            .field("env", &self.spec.id)
            .field("shape", &self.shape)
            .finish_non_exhaustive()
    }
}

impl Collector {
    /// A collector of `T` steps in each of `N` environments, which `make(n)` makes in shards, for the
    /// policies of `model`.
    ///
    /// # Errors
    /// When `make` fails.
    ///
    /// # Panics
    /// When a size of `shape` is 0, or the sequences of a recurrent model do not fill `n_steps`.
    pub fn steps(
        shape: RolloutShape,
        make: impl Fn(usize) -> BatchResult,
        model: &ActorCritic,
        (obs_norm, mut reward_norm): Normalizers,
        seed: u64,
        cpu: &Cpu,
    ) -> Result<Self, MakeError> {
        assert!(shape.n_envs > 0 && shape.n_steps > 0 && shape.envs_per_shard > 0);
        let (mut shards, mut data) = (Vec::new(), Vec::new());
        for first in (0..shape.n_envs).step_by(shape.envs_per_shard) {
            let b = shape.envs_per_shard.min(shape.n_envs - first);
            let mut env = VecEnv::new(make(b)?, seed, first);
            env.reserve_episodes(b * shape.n_steps);
            let mut samples = Samples::new(env.spec(), first, b, shape.n_steps);
            samples.states = States::new(model, shape.n_steps, b);
            data.push(samples);
            shards.push(Shard::new(env, first, model, seed));
        }
        if let Some(norm) = &mut reward_norm {
            norm.reserve(shape.n_steps * shape.envs_per_shard);
        }
        let spec = shards[0].env.spec().clone();
        let shard_len = shape.envs_per_shard * shape.n_steps;
        Ok(Self {
            cpu: cpu.clone(),
            store: Store::new(data, &spec, shard_len, shape.bootstrap_truncated),
            shape,
            spec,
            shards,
            obs_norm,
            reward_norm,
            lost: 0,
            whole: None,
            vine: None,
        })
    }
    /// A collector whose batches are whole episodes: [`Collector::collect`] plays `K` of them, and the batch
    /// says how many samples they have.
    ///
    /// # Errors
    /// When `make` fails.
    ///
    /// # Panics
    /// When a size of `shape` is 0, there are fewer episodes than environments, or the model is recurrent.
    pub fn episodes(
        shape: EpisodesShape,
        make: impl Fn(usize) -> BatchResult,
        model: &ActorCritic,
        norms: Normalizers,
        seed: u64,
        cpu: &Cpu,
    ) -> Result<Self, MakeError> {
        let EpisodesShape { n_envs, n_episodes, envs_per_shard, bootstrap_truncated } = shape;
        assert!(n_episodes >= n_envs, "every environment plays an episode at least");
        assert!(model.recurrence().is_none(), "batches of whole episodes are not cut into sequences");
        let fixed = RolloutShape { n_envs, n_steps: 1, envs_per_shard, bootstrap_truncated };
        let mut collector = Self::steps(fixed, make, model, norms, seed, cpu)?;
        collector.whole = Some(Whole::new(&shape, &mut collector.store, &collector.spec));
        Ok(collector)
    }
    /// A collector that grows a vine: [`Collector::collect`] runs the policy for `T` steps in each
    /// environment and then from states on the way. What came of it is the batch ([`Collector::branches`]);
    /// from the paths nothing is learnt.
    ///
    /// # Errors
    /// When `make` fails.
    ///
    /// # Panics
    /// When a size is 0; when there are no such first actions in this action space
    /// ([`VineActions::count`](crate::VineActions::count)); when the model is recurrent.
    pub fn vine(
        shape: RolloutShape,
        vine: VineShape,
        make: impl Fn(usize) -> BatchResult,
        model: &ActorCritic,
        norms: Normalizers,
        seed: u64,
        cpu: &Cpu,
    ) -> Result<Self, MakeError> {
        assert!(model.recurrence().is_none(), "states of the task alone do not say what a policy remembers");
        let mut collector = Self::steps(shape, &make, model, norms, seed, cpu)?;
        let (vine, branches) = Vine::new(vine, make, model, &collector.spec, seed, cpu)?;
        collector.store.branches = Some(branches);
        collector.vine = Some(vine);
        Ok(collector)
    }
    /// The rollouts of the vine, state by state; nothing without a vine.
    pub fn branches(&self) -> impl Iterator<Item = Branch<'_>> {
        self.store.branches.iter().flat_map(Branch::all)
    }
    /// From now on keeps the parameters of the distribution that each action was drawn from: the exact
    /// divergence of a later policy from `π_old` needs them
    /// ([`PolicyChunk::params_old`](pgrad_engine::PolicyChunk::params_old)).
    pub fn keep_policy_params(&mut self, model: &ActorCritic) {
        self.store.keep_policy_params(model);
    }
    /// The memory for batches: before the first one, what sizes they will have.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }
    /// The batch last collected, once more.
    pub fn batch(&mut self) -> Batch<'_> {
        self.store.batch()
    }
    /// What the environments are.
    #[must_use]
    pub fn spec(&self) -> &EnvSpec {
        &self.spec
    }
    /// Environments of a full shard.
    #[must_use]
    pub fn envs_per_shard(&self) -> usize {
        self.shape.envs_per_shard.min(self.shape.n_envs)
    }
    /// Steps of lost episodes ([`End::Lost`](pgrad_env::End::Lost)) that were not learnt from, of all batches
    /// so far.
    #[must_use]
    pub fn lost_steps(&self) -> u64 {
        self.lost
    }
    /// How many numbers of actions lay outside their bounds since this was last asked.
    pub fn take_clipping(&mut self) -> Clipping {
        let vine = self.vine.iter_mut().map(Vine::take_clipping);
        Clipping::sum(self.shards.iter_mut().map(|s| s.actor.take_clipping()).chain(vine))
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
    /// Episodes that ended during the last [`Collector::collect`], shard by shard; with whole episodes those
    /// of the batch.
    pub fn finished(&self) -> impl Iterator<Item = &Episode> {
        let shards = if self.whole.is_some() { &[] } else { &self.shards[..] };
        let whole = self.whole.iter().flat_map(Whole::finished);
        whole.chain(shards.iter().flat_map(|s| s.env.finished()))
    }

    /// Runs the policy for `T` steps in each environment, or for a batch of whole episodes. Steps of lost
    /// episodes are no samples; where nothing else came, the environments are run again.
    ///
    /// # Errors
    /// When an environment or the policy gives something that is not finite, or an environment breaks its
    /// contract. Normalisers are then unchanged.
    pub fn collect(&mut self, model: &ActorCritic) -> Result<Batch<'_>, AgentError> {
        if let Some(whole) = &mut self.whole {
            let norms = (self.obs_norm.as_mut(), self.reward_norm.as_mut());
            whole.collect(&mut self.shards, &mut self.store, model, norms, &self.cpu)?;
            self.lost += whole.take_lost();
            return Ok(self.store.collected(model));
        }
        loop {
            self.collect_steps(model)?;
            let batch = self.store.collected(model);
            self.lost += batch.lost() as u64;
            if !batch.is_empty() {
                break;
            }
        }
        Ok(self.store.batch())
    }

    fn collect_steps(&mut self, model: &ActorCritic) -> Result<(), AgentError> {
        let RolloutShape { n_steps: steps, envs_per_shard, .. } = self.shape;
        let norm = self.obs_norm.as_ref();
        if let Some(vine) = &self.vine {
            vine.choose(&mut self.shards, steps, envs_per_shard);
        }
        self.cpu.each_zip(&mut self.shards, &mut self.store.shards, |_, shard, data| {
            data.ratio.fill(1.0);
            data.error = shard.collect(model, norm, data, steps).err();
        });
        self.store.first_error()?;
        let reward_norm = self.vine.as_ref().and_then(|_| self.reward_norm.clone());
        if let Some(norm) = &mut self.reward_norm {
            for data in &self.store.shards {
                norm.observe(data.first, data.b, &data.reward, &data.ends);
            }
            for data in &mut self.store.shards {
                norm.apply(&mut data.reward);
            }
        }
        if let (Some(vine), Some(branches)) = (&mut self.vine, &mut self.store.branches) {
            // Under the policy that ran along the trunk: observations are not yet normalised by what it saw.
            let norms = (self.obs_norm.as_ref(), self.reward_norm.as_ref());
            if let Err(e) = vine.grow(&self.shards, branches, model, norms, &self.cpu) {
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

    /// Saves environments, streams and normalisers.
    #[must_use]
    pub fn save(&self) -> Record {
        let mut r = Record::new();
        for (i, shard) in self.shards.iter().enumerate() {
            r.put_record(&format!("env{i}"), shard.env.save());
            Stream::save_all(&shard.rngs, &format!("actions{i}"), &mut r);
            if let Some(states) = &self.store.shards.get(i).and_then(|d| d.states.as_ref()) {
                r.put(&format!("state{i}"), shard.actor.state.clone());
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
    /// Restores what [`Collector::save`] saved. Returns whether the environments continue exactly.
    ///
    /// # Errors
    /// When the record does not fit.
    pub fn load(&mut self, from: &Record) -> Result<bool, RecordError> {
        let mut exact = true;
        for (i, shard) in self.shards.iter_mut().enumerate() {
            let goes_on = shard.env.load(&from.record(&format!("env{i}")))?;
            exact &= goes_on;
            Stream::load_all(&mut shard.rngs, &format!("actions{i}"), from)?;
            if let Some(states) = self.store.shards.get_mut(i).and_then(|d| d.states.as_mut()) {
                for (name, to) in
                    [("state", &mut shard.actor.state), ("critic_state", &mut states.critic_after)]
                {
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
