//! The vine: several short rollouts from each of some states along the paths (Schulman et al. 2015, section
//! 5.2).
//!
//! The trunk is a rollout of fixed length. Of each of `N` equal pieces of it one state is taken, all of a
//! piece being equally likely: the rollout set. An environment goes back into that state `K` times, each time
//! takes another action and then follows the policy for a bounded number of steps; the discounted rewards are
//! `Q̂(s_n, a_{n,k})`. The rollouts of one state meet the same random numbers, those of the environment and
//! those that draw the policy's actions, step by step, so that their differences come from their first
//! actions (common random numbers).
//!
//! A rollout ends where the task ends it or after its last step, and nothing is added for what would have
//! come then, as in the paper. A time limit does not end it: rollouts go on behind it.

use crate::shard::Shard;
use pgrad_engine::{Branches, Cpu, Samples};
use pgrad_env::{BatchResult, End, EnvSpec, MakeError, VecEnv};
use pgrad_math::dist::{ActionDist, ActionsMut};
use pgrad_model::{ActorCritic, AgentError, CHUNK, Clipping, ObsNormalizer, RewardNormalizer, action_rows};
use pgrad_num::{Cols, ColsMut, Stream, StreamPosition};

/// Purpose number of the stream that the rollout set is chosen by.
const STREAM_SET: u32 = 0x5653;
/// Purpose number of the streams that first actions are drawn from.
const STREAM_FIRST: u32 = 0x5646;
/// Purpose number of the streams that later actions are drawn from: one for each state.
const STREAM_LATER: u32 = 0x564c;
/// Purpose number of the streams of the environments: one for each state.
const STREAM_TASK: u32 = 0x5654;

/// The first actions of the rollouts from one state: the distribution `q(·|s_n)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VineActions {
    /// Every alternative of a discrete space once, the forbidden ones excepted.
    Every,
    /// So many from the policy.
    Policy(usize),
    /// So many from the uniform distribution over the alternatives that are allowed.
    Uniform(usize),
}

impl VineActions {
    /// Rollouts from each state, `K`; `None` when `dist` has no such actions.
    #[must_use]
    pub fn count(self, dist: &ActionDist) -> Option<usize> {
        match (self, dist) {
            (Self::Every, ActionDist::Categorical { n }) => Some(*n),
            (Self::Every, _) => None,
            (Self::Uniform(k), _) => (dist.real_rows() == 0).then_some(k),
            (Self::Policy(k), _) => Some(k),
        }
    }
}

/// How a vine grows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VineShape {
    /// States of the rollout set, `N`.
    pub n_states: usize,
    /// The first actions.
    pub actions: VineActions,
    /// Most steps of a rollout.
    pub length: usize,
    /// Discount of what comes later, `γ`.
    pub gamma: f64,
}

/// One rollout from a state of the rollout set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Branch<'a> {
    /// Number of the state in the rollout set.
    pub state: usize,
    /// The state's observation, normalised where observations are.
    pub obs: &'a [f32],
    /// The first action, as indices; empty where it is made of numbers.
    pub index_action: &'a [u32],
    /// The first action, as numbers; empty where it is made of indices.
    pub real_action: &'a [f32],
    /// `π_old(a|s)/q(a|s)`, scaled to sum 1 over the rollouts of a state; 0 for what is no rollout because
    /// the action is forbidden.
    pub weight: f32,
    /// `Q̂(s, a)`: the discounted rewards of the rollout.
    pub q: f32,
}

/// What grows the vine.
#[derive(Debug)]
pub(crate) struct Vine {
    shape: VineShape,
    /// Rollouts from each state, `K`.
    k: usize,
    seed: u64,
    /// Iterations so far: where its part of each stream begins.
    iteration: u64,
    groups: Vec<Group>,
    work: Vec<Grower>,
}

/// Some states whose rollouts are done together.
#[derive(Debug)]
struct Group {
    first: usize,
    /// What was stored of the first step: a row for each rollout.
    roots: Samples,
    weight: Vec<f32>,
    q: Vec<f64>,
    steps: u64,
    error: Option<AgentError>,
}

/// One thread's environments: one for each rollout of a group.
struct Grower {
    shard: Shard,
    /// Where a step is stored.
    row: Samples,
    running: Vec<bool>,
    uniform: Vec<f32>,
}

impl std::fmt::Debug for Grower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grower").finish_non_exhaustive()
    }
}

impl<'a> Branch<'a> {
    /// The rollouts of a vine, state by state.
    pub(crate) fn all(branches: &'a Branches) -> impl Iterator<Item = Self> {
        let Branches { samples: s, per_state: k, states: n, .. } = branches;
        (0..n * k).map(move |i| Branch {
            state: i / k,
            obs: row(&s.obs, *n, i / k),
            index_action: row(&s.index_actions, n * k, i),
            real_action: row(&s.real_actions, n * k, i),
            weight: s.weight[i],
            q: s.ret[i],
        })
    }
}

/// Row `i` of `n`.
fn row<T>(data: &[T], n: usize, i: usize) -> &[T] {
    let width = data.len() / n;
    &data[i * width..(i + 1) * width]
}

impl Vine {
    /// A vine on the environments that `make(n)` makes, and the memory for its rollouts.
    ///
    /// # Panics
    /// When a size is 0, or there are no such first actions ([`VineActions::count`]).
    pub(crate) fn new(
        shape: VineShape,
        make: impl Fn(usize) -> BatchResult,
        model: &ActorCritic,
        spec: &EnvSpec,
        seed: u64,
        cpu: &Cpu,
    ) -> Result<(Self, Branches), MakeError> {
        let k = shape.actions.count(model.dist()).unwrap_or(0);
        let sizes = k > 0 && shape.n_states > 0 && shape.length > 0;
        assert!(sizes, "a vine has states, actions and steps: {shape:?}");
        // As many states as fill a chunk.
        let together = (CHUNK / k).max(1);
        let b = together * k;
        let groups = (0..shape.n_states).step_by(together).map(|first| Group {
            first,
            roots: Samples::new(spec, 0, b, 1),
            weight: vec![0.0; b],
            q: vec![0.0; b],
            steps: 0,
            error: None,
        });
        let work = cpu.scratch(|| {
            let mut env = VecEnv::new(make(b)?, seed, 0).without_time_limit();
            env.reserve_episodes(b * shape.length);
            Ok(Grower {
                shard: Shard::new(env, 0, model, seed),
                row: Samples::new(spec, 0, b, 1),
                running: vec![true; b],
                uniform: vec![0.0; model.dist().n_outputs() * b],
            })
        });
        let mut samples = Samples::new(spec, 0, 1, shape.n_states);
        let (index_rows, real_rows) = action_rows(spec);
        samples.index_actions.resize(shape.n_states * k * index_rows, 0);
        samples.real_actions.resize(shape.n_states * k * real_rows, 0.0);
        for x in [&mut samples.weight, &mut samples.ret, &mut samples.adv] {
            x.resize(shape.n_states * k, 0.0);
        }
        let work = work.into_iter().collect::<Result<_, MakeError>>()?;
        let branches = Branches { samples, per_state: k, states: shape.n_states, steps: 0 };
        Ok((Self { k, seed, iteration: 0, groups: groups.collect(), work, shape }, branches))
    }
    pub(crate) fn iteration(&self) -> u64 {
        self.iteration
    }
    /// How many numbers of actions lay outside their bounds since this was last asked.
    pub(crate) fn take_clipping(&mut self) -> Clipping {
        Clipping::sum(self.work.iter_mut().map(|w| w.shard.actor.take_clipping()))
    }
    pub(crate) fn set_iteration(&mut self, iteration: u64) {
        self.iteration = iteration;
    }

    /// Chooses the rollout set: each shard is told which of its states to keep.
    pub(crate) fn choose(&self, shards: &mut [Shard], steps: usize, envs_per_shard: usize) {
        let total: usize = shards.iter().map(|s| s.env.len() * steps).sum();
        let piece = total as f64 / self.shape.n_states as f64;
        let mut rng = stream(self.seed, STREAM_SET, 0, self.iteration);
        shards.iter_mut().for_each(|s| s.keep.clear());
        for j in 0..self.shape.n_states {
            let sample = (((j as f64 + rng.uniform()) * piece) as usize).min(total - 1);
            let shard = sample / (envs_per_shard * steps);
            shards[shard].keep.push((sample - shard * envs_per_shard * steps) as u32);
        }
    }

    /// Does the rollouts from the states that the shards have kept.
    pub(crate) fn grow(
        &mut self,
        shards: &[Shard],
        branches: &mut Branches,
        model: &ActorCritic,
        (obs_norm, reward_norm): (Option<&ObsNormalizer>, Option<&RewardNormalizer>),
        cpu: &Cpu,
    ) -> Result<(), AgentError> {
        let Self { shape, k, seed, iteration, groups, work } = self;
        let Branches { samples, steps, .. } = branches;
        let states: Vec<&[f64]> = shards.iter().flat_map(|s| &s.kept).map(Vec::as_slice).collect();
        cpu.each_with(groups, work, |_, group, grower| {
            let states = &states[group.first..];
            group.error = grower
                .grow(group, states, shape, *k, (*seed, *iteration), model, obs_norm, reward_norm)
                .err();
        });
        if let Some(e) = groups.iter_mut().find_map(|g| g.error.take()) {
            return Err(e);
        }
        *steps = groups.iter().map(|g| g.steps).sum();
        *iteration += 1;
        for group in groups.iter() {
            let b = group.q.len();
            for i in 0..b.min((shape.n_states - group.first) * *k) {
                let (to, state) = (group.first * *k + i, group.first + i / *k);
                if i % *k == 0 {
                    set_row(&group.roots.obs, b, i, &mut samples.obs, state);
                    set_row(&group.roots.masks, b, i, &mut samples.masks, state);
                }
                set_row(&group.roots.index_actions, b, i, &mut samples.index_actions, to);
                set_row(&group.roots.real_actions, b, i, &mut samples.real_actions, to);
                samples.weight[to] = group.weight[i];
                samples.ret[to] = group.q[i] as f32;
            }
        }
        for state in 0..shape.n_states {
            let own = state * *k..(state + 1) * *k;
            let (weight, q) = (&samples.weight[own.clone()], &samples.ret[own.clone()]);
            // A constant makes no difference to the estimator; without it rounding makes less.
            let mean: f64 = weight.iter().zip(q).map(|(w, q)| f64::from(*w) * f64::from(*q)).sum();
            for (adv, q) in samples.adv[own].iter_mut().zip(q) {
                *adv = (f64::from(*q) - mean) as f32;
            }
        }
        samples.check_estimates()
    }
}

/// Copies row `i` of `n` to row `to`.
fn set_row<T: Copy>(from: &[T], n: usize, i: usize, data: &mut [T], to: usize) {
    let from = row(from, n, i);
    data[to * from.len()..(to + 1) * from.len()].copy_from_slice(from);
}

/// Stream `index` of a purpose, where iteration `iteration` begins: 2³² words for each.
fn stream(seed: u64, purpose: u32, index: usize, iteration: u64) -> Stream {
    let mut stream = Stream::new(seed, purpose, index as u32);
    stream.set_position(StreamPosition(iteration << 32));
    stream
}

impl Grower {
    fn grow(
        &mut self,
        group: &mut Group,
        states: &[&[f64]],
        shape: &VineShape,
        k: usize,
        (seed, iteration): (u64, u64),
        model: &ActorCritic,
        obs_norm: Option<&ObsNormalizer>,
        reward_norm: Option<&RewardNormalizer>,
    ) -> Result<(), AgentError> {
        let Self { shard, row, running, uniform } = self;
        let b = running.len();
        let of = |purpose, index| stream(seed, purpose, index, iteration);
        // Where there are fewer states than places, the last one fills them, to no purpose.
        let at = |i: usize| (i / k).min(states.len() - 1);
        for i in 0..b {
            let state = group.first + i / k;
            shard.env.branch(i, states[at(i)], of(STREAM_TASK, state))?;
            shard.rngs[i] = of(STREAM_FIRST, state * k + i % k);
            running[i] = i / k < states.len();
        }
        shard.env.observe()?;
        shard.env.clear_finished();
        row.cut.clear();
        row.cut_obs.clear();
        group.steps = 0;
        group.q.fill(0.0);
        shard.look(obs_norm, row, 0);
        let dist = model.dist();
        shard.act(model, row, 0, |params, mask, rngs, actions| match shape.actions {
            VineActions::Policy(_) => dist.sample(params, rngs, actions),
            VineActions::Uniform(_) => draw_uniform(dist, mask, rngs, actions, uniform),
            VineActions::Every => each_once(mask, k, actions, running),
        })?;
        for (first, own) in group.weight.chunks_exact_mut(k).enumerate().map(|(n, own)| (n * k, own)) {
            for (i, w) in own.iter_mut().enumerate() {
                let i = first + i;
                *w = match shape.actions {
                    VineActions::Policy(_) => 0.0,
                    VineActions::Uniform(_) => row.logp[i], // q is the same for all of a state
                    VineActions::Every if running[i] => row.logp[i],
                    VineActions::Every => f32::NEG_INFINITY,
                };
            }
            // Where all are improbable, one is the least so.
            let largest = own.iter().fold(f32::NEG_INFINITY, |m, w| m.max(*w));
            own.iter_mut().for_each(|w| *w = if *w > f32::NEG_INFINITY { (*w - largest).exp() } else { 0.0 });
            let sum: f32 = own.iter().sum();
            own.iter_mut().for_each(|w| *w /= sum);
        }
        group.roots.copy_step(row);
        let mut discount = 1.0;
        for t in 0..shape.length {
            if t == 1 {
                // From here on the rollouts of a state draw by the same numbers.
                (0..b).for_each(|i| shard.rngs[i] = of(STREAM_LATER, group.first + i / k));
            }
            if t > 0 {
                shard.look(obs_norm, row, 0);
                shard.act(model, row, 0, |params, _, rngs, actions| dist.sample(params, rngs, actions))?;
            }
            shard.advance(obs_norm, row, 0)?;
            if let Some(norm) = reward_norm {
                norm.apply(&mut row.reward);
            }
            for i in 0..b {
                if running[i] {
                    group.q[i] += discount * f64::from(row.reward[i]);
                    group.steps += 1;
                    running[i] = row.ends[i] == End::Running;
                }
            }
            discount *= shape.gamma;
            if !running.contains(&true) {
                break;
            }
            row.cut.clear();
            row.cut_obs.clear();
        }
        Ok(())
    }
}

/// Draws from the uniform distribution over what is allowed.
fn draw_uniform(
    dist: &ActionDist,
    mask: Option<Cols<'_, bool>>,
    rngs: &mut [Stream],
    actions: ActionsMut<'_, f32>,
    params: &mut [f32],
) {
    params.fill(0.0);
    let (rows, b) = (dist.n_outputs(), rngs.len());
    dist.prepare(ColsMut::new(params, rows, b), mask);
    dist.sample(Cols::new(params, rows, b), rngs, actions);
}

/// Alternative `i mod k` for rollout `i`. Where it is forbidden, there is no rollout: the first one that is
/// allowed takes its place, for the environment's sake.
fn each_once(mask: Option<Cols<'_, bool>>, k: usize, actions: ActionsMut<'_, f32>, running: &mut [bool]) {
    let mut actions = actions.index;
    for (i, running) in running.iter_mut().enumerate() {
        let allows = |a: usize| mask.is_none_or(|m| m.at(a, i));
        *running &= allows(i % k);
        let a = if allows(i % k) { i % k } else { (0..k).find(|a| allows(*a)).unwrap_or(0) };
        actions.set(0, i, a as u32);
    }
}
