//! Batches of whole episodes, each from its reset to its end.
//!
//! Every environment plays a number of episodes that is fixed beforehand. Taking instead the first `K`
//! episodes that end would prefer short ones. An environment that has played its share goes on with its shard
//! until all of the shard are done; what it does then is no data, counts as no episode, and is given up
//! before the next batch, so that every episode of a batch was played under one policy.
//!
//! The samples are laid one after another, environment by environment, as one column `[T, 1]`: `carry` keeps
//! the episodes apart, nothing is padded, and whatever works on a rollout works on them.

use crate::shard::Shard;
use pgrad_engine::{Cpu, Samples, Store};
use pgrad_env::{End, EnvSpec, Episode};
use pgrad_model::{ActorCritic, AgentError, ObsNormalizer, RewardNormalizer, mark_lost};
use pgrad_num::Cols;

/// Steps after which an episode counts as endless.
const LONGEST: u32 = 1 << 20;
/// Rows that a shard has room for at first; the room doubles whenever it is full.
const FIRST_ROWS: usize = 256;

/// How many whole episodes a batch holds and how it is cut for the threads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EpisodesShape {
    /// Environments, `N`.
    pub n_envs: usize,
    /// Episodes of a batch, `K ≥ N`. Environment `i` plays `K / N` of them, and one more when `i < K mod N`.
    pub n_episodes: usize,
    /// Environments of one shard. The environments of a shard step together until the last one has played its
    /// episodes: with few in a shard less is played in vain.
    pub envs_per_shard: usize,
    /// Bootstrap from the value of the final observation where a time limit cut an episode.
    pub bootstrap_truncated: bool,
}

/// The batches of whole episodes.
#[derive(Debug)]
pub(crate) struct Whole {
    played: Vec<Played>,
    finished: Vec<Episode>,
    /// Steps of lost episodes, since they were last asked for.
    lost: u64,
}

impl Whole {
    /// Steps of lost episodes since this was last asked.
    pub(crate) fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
    /// Episodes of the batch.
    pub(crate) fn finished(&self) -> &[Episode] {
        &self.finished
    }
}

/// What a shard played, rows of `B` as in a rollout of fixed length.
#[derive(Debug)]
struct Played {
    samples: Samples,
    /// Episodes of each environment.
    share: Vec<usize>,
    /// Of those, episodes still to be played.
    left: Vec<usize>,
    /// Samples of each environment; what comes after is no data.
    len: Vec<usize>,
    /// Observations of the environments that still play, `[obs_dim x n]`.
    column: Vec<f32>,
}

impl Whole {
    /// Takes over what `store` has for each shard, and leaves a column for whole episodes in its place.
    pub(crate) fn new(shape: &EpisodesShape, store: &mut Store, spec: &EnvSpec) -> Self {
        let EpisodesShape { n_envs, n_episodes, bootstrap_truncated, .. } = *shape;
        let column = Store::new(vec![Samples::new(spec, 0, 1, 0)], spec, usize::MAX, bootstrap_truncated);
        let played = std::mem::replace(store, column).shards.into_iter().map(|samples| {
            let envs = samples.first..samples.first + samples.b;
            let share: Vec<usize> =
                envs.map(|i| n_episodes / n_envs + usize::from(i < n_episodes % n_envs)).collect();
            let b = samples.b;
            Played { left: share.clone(), share, len: vec![0; b], column: Vec::new(), samples }
        });
        Self { played: played.collect(), finished: Vec::with_capacity(n_episodes), lost: 0 }
    }
    /// Plays a batch of whole episodes.
    pub(crate) fn collect(
        &mut self,
        shards: &mut [Shard],
        store: &mut Store,
        model: &ActorCritic,
        (obs_norm, reward_norm): (Option<&mut ObsNormalizer>, Option<&mut RewardNormalizer>),
        cpu: &Cpu,
    ) -> Result<(), AgentError> {
        let [column] = &mut store.shards[..] else { return Ok(()) };
        let norm = obs_norm.as_deref();
        cpu.each_zip(shards, &mut self.played, |_, shard, played| {
            played.samples.error = played.play(shard, model, norm).err();
        });
        if let Some(e) = self.played.iter_mut().find_map(|p| p.samples.error.take()) {
            return Err(e);
        }
        let played: usize = self.played.iter().flat_map(|p| &p.len).sum();
        if u32::try_from(played).is_err() {
            return Err(AgentError::Batch { samples: played });
        }
        column.clear();
        self.finished.clear();
        for (shard, played) in shards.iter().zip(&mut self.played) {
            played.append_to(column);
            played.left.copy_from_slice(&played.share);
            for episode in shard.env.finished() {
                let left = &mut played.left[episode.env - played.samples.first];
                if *left > 0 {
                    *left -= 1;
                    self.finished.push(*episode);
                }
            }
        }
        let n = column.reward.len();
        self.lost += (played - n) as u64;
        column.fit();
        if let Some(norm) = obs_norm {
            for shard in shards.iter() {
                norm.merge(&shard.seen);
            }
        }
        if let Some(norm) = reward_norm {
            for (env, from) in column.runs.iter().enumerate() {
                let to = column.runs.get(env + 1).copied().unwrap_or(n);
                norm.observe(env, 1, &column.reward[*from..to], &column.ends[*from..to]);
            }
            norm.apply(&mut column.reward);
        }
        Ok(())
    }
}

impl Played {
    /// Plays until every environment has played its episodes.
    fn play(
        &mut self,
        shard: &mut Shard,
        model: &ActorCritic,
        norm: Option<&ObsNormalizer>,
    ) -> Result<(), AgentError> {
        let Self { samples, share, left, len, column } = self;
        let b = samples.b;
        shard.env.restart()?;
        shard.env.clear_finished();
        shard.seen.clear();
        samples.cut.clear();
        samples.cut_obs.clear();
        left.copy_from_slice(share);
        let mut t = 0;
        while left.iter().any(|left| *left > 0) {
            if t == samples.rows() {
                samples.grow((2 * t).max(FIRST_ROWS));
            }
            if norm.is_some() {
                let obs = shard.env.obs();
                let plays = || (0..b).filter(|i| left[*i] > 0);
                column.clear();
                column.extend((0..obs.rows()).flat_map(|d| plays().map(move |i| obs.at(d, i))));
                shard.seen.add_cols(Cols::new(column, obs.rows(), plays().count()));
            }
            shard.step(model, norm, samples, t)?;
            t += 1;
            for (i, end) in shard.env.ends().iter().enumerate() {
                if left[i] == 0 {
                    continue;
                }
                len[i] = t;
                match end {
                    End::Running => {}
                    // It is played again; nothing comes of an environment that the run goes on without.
                    End::Lost if shard.env.is_dropped(i) => left[i] = 0,
                    End::Lost => {}
                    End::Terminated | End::Truncated => left[i] -= 1,
                }
                let (episode, steps) = shard.env.position(i);
                if steps >= LONGEST {
                    return Err(AgentError::Endless { env: samples.first + i, episode, steps });
                }
            }
        }
        Ok(())
    }

    /// Appends the data, environment after environment, to a column.
    fn append_to(&self, column: &mut Samples) {
        let (from, b) = (&self.samples, self.samples.b);
        let rows = self.len.iter().copied().max().unwrap_or(0) * b;
        let mut lost = Vec::new();
        if from.ends[..rows].contains(&End::Lost) {
            lost.resize(rows, false);
            mark_lost(&from.ends[..rows], b, &mut lost);
        }
        let is_lost = |at: usize| lost.get(at).is_some_and(|lost| *lost);
        for (i, len) in self.len.iter().enumerate() {
            let start = column.reward.len();
            let each = || (0..*len).map(|t| t * b + i).filter(|at| !is_lost(*at));
            column.runs.push(start);
            append_rows(&from.obs, &mut column.obs, from.ends.len(), each());
            append_rows(&from.index_actions, &mut column.index_actions, from.ends.len(), each());
            append_rows(&from.real_actions, &mut column.real_actions, from.ends.len(), each());
            append_rows(&from.masks, &mut column.masks, from.ends.len(), each());
            column.logp.extend(each().map(|at| from.logp[at]));
            column.reward.extend(each().map(|at| from.reward[at]));
            column.ends.extend(each().map(|at| from.ends[at]));
            let dim = from.cut_obs.len() / from.cut.len().max(1);
            for (at, obs) in from.cut.iter().zip(from.cut_obs.chunks_exact(dim.max(1))) {
                let (t, env) = (*at as usize / b, *at as usize % b);
                if env == i && t < *len {
                    let before = if lost.is_empty() {
                        t
                    } else {
                        each().take_while(|row| row < &(*at as usize)).count()
                    };
                    column.cut.push((start + before) as u32);
                    column.cut_obs.extend_from_slice(obs);
                }
            }
        }
    }
}

/// Appends some of the `n` rows that `from` holds.
fn append_rows<T: Copy>(from: &[T], to: &mut Vec<T>, n: usize, rows: impl Iterator<Item = usize>) {
    let width = from.len() / n.max(1);
    if width > 0 {
        rows.for_each(|at| to.extend_from_slice(&from[at * width..(at + 1) * width]));
    }
}
