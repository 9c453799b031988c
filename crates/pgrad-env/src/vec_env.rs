//! A shard of environments: time limits, automatic reset, episode statistics, saved state.

use crate::{Actions, BatchEnv, End, EnvError, EnvSpec, Picture, PictureError};
use pgrad_num::{Cols, ColsMut, Record, RecordError, Stream, kernels};

/// Purpose number of the environments' random streams.
const STREAM_ENV: u32 = 1;

/// A finished episode.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Episode {
    /// Sum of the rewards.
    pub episode_return: f64,
    /// Number of steps.
    pub length: u32,
    /// How it ended.
    pub end: End,
    /// Environment, counted over the whole run.
    pub env: usize,
}

/// A shard of environments with everything that belongs to running them.
///
/// An episode that ends is started anew in the same step: [`VecEnv::obs`] then already shows the first
/// observation of the next episode, and [`VecEnv::final_obs`] the last one of the old.
pub struct VecEnv {
    env: Box<dyn BatchEnv>,
    spec: EnvSpec,
    /// Number of the shard's first environment in the run.
    first: usize,
    rngs: Vec<Stream>,
    elapsed: Vec<u32>,
    episode: Vec<u64>,
    returns: Vec<f64>,
    obs: Vec<f32>,
    final_obs: Vec<f32>,
    /// A row for each environment.
    final_masks: Vec<bool>,
    rewards: Vec<f64>,
    ends: Vec<End>,
    finished: Vec<Episode>,
    /// Episodes that failed, ever: they are not among the finished.
    lost_episodes: u64,
    /// Number of alternatives of each choice of an action.
    choices: Vec<usize>,
    /// One observation, `[obs_dim]`.
    column: Vec<f32>,
}

impl std::fmt::Debug for VecEnv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VecEnv")
            .field("id", &self.spec.id)
            .field("first", &self.first)
            .finish_non_exhaustive()
    }
}

/// Adds the rewards to the returns; whether all rewards are finite in single precision.
#[inline(always)]
fn add_rewards(rewards: &[f64], returns: &mut [f64]) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    let mut bad = false;
    for (sum, r) in returns.iter_mut().zip(rewards) {
        *sum += r;
        bad |= (*r as f32).to_bits() & EXPONENT == EXPONENT;
    }
    !bad
}

/// Counts a step everywhere and cuts episodes at the limit; whether any episode ended.
#[inline(always)]
fn count_steps(limit: u32, elapsed: &mut [u32], ends: &mut [End]) -> bool {
    let mut ended = false;
    for (steps, end) in elapsed.iter_mut().zip(ends) {
        *steps = steps.saturating_add(1);
        let cut = *steps >= limit && *end == End::Running;
        *end = if cut { End::Truncated } else { *end };
        ended |= *end != End::Running;
    }
    ended
}

impl VecEnv {
    /// Environments `first..first + env.len()` of a run with this seed. [`VecEnv::start`] must follow.
    #[must_use]
    pub fn new(mut env: Box<dyn BatchEnv>, seed: u64, first: usize) -> Self {
        env.numbered(first);
        let n = env.len();
        let spec = env.spec().clone();
        let dim = spec.observation.obs_dim();
        Self {
            choices: spec.action.choices(),
            column: vec![0.0; dim],
            first,
            rngs: (0..n).map(|b| Stream::new(seed, STREAM_ENV, (first + b) as u32)).collect(),
            elapsed: vec![0; n],
            episode: vec![0; n],
            returns: vec![0.0; n],
            obs: vec![0.0; dim * n],
            final_obs: vec![0.0; dim * n],
            final_masks: vec![true; spec.action.mask_dim() * n],
            rewards: vec![0.0; n],
            ends: vec![End::Running; n],
            finished: Vec::new(),
            lost_episodes: 0,
            spec,
            env,
        }
    }
    /// The same without a time limit: an episode goes on until the task itself ends it.
    #[must_use]
    pub fn without_time_limit(mut self) -> Self {
        self.spec.max_episode_steps = None;
        self
    }
    /// What the environments are.
    #[must_use]
    pub fn spec(&self) -> &EnvSpec {
        &self.spec
    }
    /// Number of the first of them in the run.
    #[must_use]
    pub fn first(&self) -> usize {
        self.first
    }
    /// Number of environments.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }
    /// Whether there are no environments.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
    /// Makes room for `episodes` finished episodes, so that stepping never allocates.
    pub fn reserve_episodes(&mut self, episodes: usize) {
        self.finished.reserve(episodes.saturating_sub(self.finished.len()));
    }
    /// Starts a first episode everywhere.
    ///
    /// # Errors
    /// When an observation is not finite or has a wrong shape.
    pub fn start(&mut self) -> Result<(), EnvError> {
        self.env.reset_all(&mut self.rngs);
        self.elapsed.fill(0);
        self.returns.fill(0.0);
        self.check_fault()?;
        self.observe()
    }
    /// Gives up the episodes under way, uncounted: every environment stands at the first observation of an
    /// episode afterwards. One that stands there already is left alone.
    ///
    /// # Errors
    /// As [`VecEnv::start`].
    pub fn restart(&mut self) -> Result<(), EnvError> {
        for b in 0..self.len() {
            if self.elapsed[b] > 0 {
                self.env.reset(b, &mut self.rngs[b]);
                self.elapsed[b] = 0;
                self.returns[b] = 0.0;
                self.episode[b] += 1;
                self.check_fault()?;
            }
        }
        self.observe()
    }
    /// Observations of the present states, `[obs_dim x len]`.
    #[must_use]
    pub fn obs(&self) -> Cols<'_, f32> {
        Cols::new(&self.obs, self.spec.observation.obs_dim(), self.len())
    }
    /// Final observations, `[obs_dim x len]`; the columns of environments whose last step ended an episode
    /// are valid.
    #[must_use]
    pub fn final_obs(&self) -> Cols<'_, f32> {
        Cols::new(&self.final_obs, self.spec.observation.obs_dim(), self.len())
    }
    /// Which alternatives the final state of environment `b` allowed
    /// ([`Space::mask_dim`](crate::Space::mask_dim) entries), where its last step ended an episode. Not
    /// checked: a terminal state may allow nothing.
    #[must_use]
    pub fn final_mask(&self, b: usize) -> &[bool] {
        let rows = self.final_masks.len() / self.len();
        &self.final_masks[b * rows..(b + 1) * rows]
    }
    /// Rewards of the last step.
    #[must_use]
    pub fn rewards(&self) -> &[f64] {
        &self.rewards
    }
    /// How the last step ended, for each environment.
    #[must_use]
    pub fn ends(&self) -> &[End] {
        &self.ends
    }
    /// Episode of environment `b` of the shard (from 0), and its step (0 after the reset).
    #[must_use]
    pub fn position(&self, b: usize) -> (u64, u32) {
        (self.episode[b], self.elapsed[b])
    }
    /// Episodes finished since [`VecEnv::clear_finished`].
    #[must_use]
    pub fn finished(&self) -> &[Episode] {
        &self.finished
    }
    /// Whether environment `b` failed and the run goes on without it.
    #[must_use]
    pub fn is_dropped(&self, b: usize) -> bool {
        self.env.is_dropped(b)
    }
    /// The error for whoever cannot do without environment `b`.
    #[must_use]
    pub fn lost_for_good(&self, b: usize) -> EnvError {
        EnvError::Failed {
            id: self.spec.id.clone(),
            env: self.first + b,
            episode: self.episode[b],
            step: self.elapsed[b],
            reason: "the environment failed and was dropped, but the method cannot continue without \
                it"
            .into(),
        }
    }
    /// Episodes that were lost since these environments were made.
    #[must_use]
    pub fn lost_episodes(&self) -> u64 {
        self.lost_episodes
    }
    /// Forgets the finished episodes.
    pub fn clear_finished(&mut self) {
        self.finished.clear();
    }
    /// Writes the action masks of the present states, `[mask_dim x len]`.
    ///
    /// # Errors
    /// When a mask allows nothing.
    pub fn action_masks(
        &self,
        mut masks: ColsMut<'_, bool>,
        scratch: &mut Vec<bool>,
    ) -> Result<(), EnvError> {
        scratch.resize(self.spec.action.mask_dim(), true);
        if !self.spec.masks_actions {
            masks.data_mut().fill(true);
            return Ok(());
        }
        for b in 0..self.len() {
            scratch.fill(true);
            self.env.action_mask(b, scratch);
            let mut from = 0;
            for (choice, n) in self.choices.iter().enumerate() {
                if !scratch[from..from + n].contains(&true) {
                    return Err(EnvError::Mask {
                        id: self.spec.id.clone(),
                        env: self.first + b,
                        episode: self.episode[b],
                        step: self.elapsed[b],
                        choice,
                    });
                }
                from += n;
            }
            for (i, allowed) in scratch.iter().enumerate() {
                masks.set(i, b, *allowed);
            }
        }
        Ok(())
    }
    /// Steps all environments; ended episodes are counted and started anew.
    ///
    /// # Errors
    /// When a reward or an observation is not finite, or an observation has a wrong shape. Nothing of the
    /// step has then reached the caller, and no episode was counted; the environments must be started anew
    /// or loaded before the next step.
    ///
    /// # Panics
    /// When `actions` do not have the rows of the action space.
    pub fn step(&mut self, actions: Actions<'_>) -> Result<(), EnvError> {
        self.env.step(actions, &mut self.rngs, &mut self.rewards, &mut self.ends);
        let limit = self.spec.max_episode_steps.unwrap_or(u32::MAX);
        let (rewards_finite, ended) = pgrad_num::simd!(|| {
            (
                add_rewards(&self.rewards, &mut self.returns),
                count_steps(limit, &mut self.elapsed, &mut self.ends),
            )
        });
        self.check_fault()?;
        if !rewards_finite {
            return Err(self.bad_reward());
        }
        // Also where an episode ended: the old episode's last observation, before anything is reset.
        self.observe()?;
        if ended {
            let counted = self.finished.len();
            self.next_episodes().inspect_err(|_| self.finished.truncate(counted))?;
        }
        Ok(())
    }
    /// Starts new episodes where one ended. The old one's last observation moves to `final_obs`.
    fn next_episodes(&mut self) -> Result<(), EnvError> {
        let n = self.len();
        for b in 0..n {
            if self.ends[b] == End::Running {
                continue;
            }
            if self.ends[b] == End::Lost {
                self.lost_episodes += 1;
            } else {
                self.finished.push(Episode {
                    episode_return: self.returns[b],
                    length: self.elapsed[b],
                    end: self.ends[b],
                    env: self.first + b,
                });
            }
            if self.spec.masks_actions {
                let rows = self.final_masks.len() / n;
                let mask = &mut self.final_masks[b * rows..(b + 1) * rows];
                mask.fill(true);
                self.env.action_mask(b, mask);
            }
            self.env.reset(b, &mut self.rngs[b]);
            self.elapsed[b] = 0;
            self.returns[b] = 0.0;
            self.episode[b] += 1;
            self.check_fault()?;
            self.env.observe_one(b, &mut self.column);
            let mut finite = true;
            for (i, x) in self.column.iter().enumerate() {
                let place = i * n + b;
                self.final_obs[place] = self.obs[place];
                self.obs[place] = *x;
                finite &= x.is_finite();
            }
            if !finite || self.env.wrong_shape(b).is_some() {
                self.check_obs(b)?;
            }
        }
        Ok(())
    }
    /// Reads the observations of the present states; [`VecEnv::step`] and the like do so by themselves.
    ///
    /// # Errors
    /// When an observation is not finite or has a wrong shape.
    pub fn observe(&mut self) -> Result<(), EnvError> {
        let (n, dim) = (self.len(), self.spec.observation.obs_dim());
        self.env.observe(ColsMut::new(&mut self.obs, dim, n));
        if self.env.any_wrong_shape() || !kernels::all_finite(&self.obs) {
            for b in 0..n {
                self.check_obs(b)?;
            }
        }
        Ok(())
    }
    /// The error of environment `b`'s present observation, if there is one.
    fn check_obs(&self, b: usize) -> Result<(), EnvError> {
        let (n, expected) = (self.len(), self.spec.observation.obs_dim());
        let (id, env, episode, step) =
            (|| self.spec.id.clone(), self.first + b, self.episode[b], self.elapsed[b]);
        if let Some(got) = self.env.wrong_shape(b) {
            return Err(EnvError::Shape { id: id(), env, episode, step, expected, got });
        }
        for index in 0..expected {
            let value = self.obs[index * n + b];
            if !value.is_finite() {
                let component = self.spec.observation.component(index).into();
                return Err(EnvError::Observation { id: id().into(), env, episode, step, component, value });
            }
        }
        Ok(())
    }
    /// The error of an environment that failed for good.
    fn check_fault(&mut self) -> Result<(), EnvError> {
        let Some((b, reason)) = self.env.fault() else { return Ok(()) };
        Err(EnvError::Failed {
            id: self.spec.id.clone(),
            env: self.first + b,
            episode: self.episode[b],
            step: self.elapsed[b],
            reason: reason.into(),
        })
    }
    fn bad_reward(&self) -> EnvError {
        let b = self.rewards.iter().position(|r| !(*r as f32).is_finite()).unwrap_or(0);
        EnvError::Reward {
            id: self.spec.id.clone(),
            env: self.first + b,
            episode: self.episode[b],
            step: self.elapsed[b],
            value: self.rewards[b],
        }
    }
    /// What environment `b` looks like now: after the last step of an episode, the first state of the next
    /// one.
    ///
    /// # Errors
    /// When there is no picture of it.
    pub fn picture(&mut self, b: usize) -> Result<Picture, PictureError> {
        self.env.picture(b)
    }
    /// The state of environment `b`, for [`VecEnv::branch`]; `None` when the task cannot save it.
    #[must_use]
    pub fn state(&self, b: usize) -> Option<Vec<f64>> {
        self.env.save(b)
    }
    /// Puts environment `b` into a state that [`VecEnv::state`] gave, of these environments or of others of
    /// the same task, as the first one of an episode; from there on its randomness comes from `rng`.
    /// Observations are up to date after [`VecEnv::observe`].
    ///
    /// # Errors
    /// When the environment refuses the state.
    pub fn branch(&mut self, b: usize, state: &[f64], rng: Stream) -> Result<(), EnvError> {
        if !self.env.load(b, state) {
            return Err(EnvError::State { id: self.spec.id.clone(), env: self.first + b });
        }
        self.rngs[b] = rng;
        self.elapsed[b] = 0;
        self.returns[b] = 0.0;
        self.episode[b] += 1;
        Ok(())
    }
    /// Saves the state of every environment, the streams and the unfinished episodes' statistics.
    /// Environments that cannot be saved are left out; `exact` is then 0.
    #[must_use]
    pub fn save(&self) -> Record {
        let mut r = Record::new();
        Stream::save_all(&self.rngs, "streams", &mut r);
        r.put("elapsed", self.elapsed.iter().map(|x| u64::from(*x)).collect::<Vec<u64>>());
        r.put("episode", self.episode.clone());
        r.put("returns", self.returns.clone());
        let states: Option<Vec<Vec<f64>>> = (0..self.len()).map(|b| self.env.save(b)).collect();
        r.put("exact", vec![u8::from(states.is_some())]);
        if let Some(states) = states {
            r.put("lengths", states.iter().map(|s| s.len() as u64).collect::<Vec<u64>>());
            r.put("states", states.concat());
        }
        r
    }
    /// Restores what [`VecEnv::save`] saved. Returns whether the continuation is exact; when it is not (the
    /// environments cannot be saved), new episodes are started.
    ///
    /// # Errors
    /// When the record does not fit these environments.
    pub fn load(&mut self, from: &Record) -> Result<bool, RecordError> {
        let n = self.len();
        Stream::load_all(&mut self.rngs, "streams", from)?;
        for (to, x) in self.elapsed.iter_mut().zip(from.u64s("elapsed", n)?) {
            *to = u32::try_from(*x).unwrap_or(u32::MAX);
        }
        self.episode.copy_from_slice(from.u64s("episode", n)?);
        self.returns.copy_from_slice(from.f64s("returns", n)?);
        let exact = from.u8s("exact", 1)?[0] == 1;
        let refuse = |reason: String| RecordError::Value { name: "states".into(), reason };
        if exact {
            let lengths = from.u64s("lengths", n)?;
            let total = lengths.iter().try_fold(0usize, |sum, l| sum.checked_add(usize::try_from(*l).ok()?));
            let total = total.ok_or_else(|| refuse("the lengths overflow".into()))?;
            let mut states = from.f64s("states", total)?;
            for (b, l) in lengths.iter().enumerate() {
                let (own, rest) = states.split_at(*l as usize);
                if !self.env.load(b, own) {
                    return Err(refuse(
                        EnvError::State { id: self.spec.id.clone(), env: self.first + b }.to_string(),
                    ));
                }
                states = rest;
            }
            self.observe().map_err(|e| refuse(e.to_string()))?;
        } else {
            self.start().map_err(|e| refuse(e.to_string()))?;
        }
        Ok(exact)
    }
}
