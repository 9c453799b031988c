//! Many copies of one environment in step.

use crate::{Action, Actions, End, Env, EnvSpec, MakeError, Obs, Picture, PictureError, Space};
use pgrad_num::{ColsMut, Stream};
use std::sync::Arc;

/// A batch of environments, or why there is none.
pub type BatchResult = Result<Box<dyn BatchEnv>, MakeError>;

/// Makes a batch of so many copies (at least one).
pub type EnvMaker = Arc<dyn Fn(usize) -> BatchResult + Send + Sync>;

/// What the environments of `make` are, where only one of them can tell: it is made and dropped.
///
/// # Errors
/// When it cannot be made.
pub fn spec_of(make: &dyn Fn(usize) -> BatchResult) -> Result<EnvSpec, MakeError> {
    Ok(make(1)?.spec().clone())
}

/// Many copies of one environment, stepped together; the state is laid out batch-innermost.
///
/// A `BatchEnv` neither counts steps nor resets by itself: [`VecEnv`](crate::VecEnv) does, the same way for
/// every task.
pub trait BatchEnv: Send {
    /// What the environments are.
    fn spec(&self) -> &EnvSpec;
    /// Number of copies.
    fn len(&self) -> usize;
    /// Whether there are no copies.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Told once, before anything else: the number of the first copy in the run, for messages.
    fn numbered(&mut self, _first: usize) {}
    /// Starts an episode in copy `b`.
    fn reset(&mut self, b: usize, rng: &mut Stream);
    /// Starts an episode in every copy.
    fn reset_all(&mut self, rngs: &mut [Stream]) {
        for (b, rng) in rngs.iter_mut().enumerate() {
            self.reset(b, rng);
        }
    }
    /// Whether copy `b` failed and the run goes on without it: its steps are `Lost` for ever.
    fn is_dropped(&self, _b: usize) -> bool {
        false
    }
    /// Why nothing of the last reset or step may be used, with the copy that is to blame. Asked for after
    /// each.
    fn fault(&mut self) -> Option<(usize, String)> {
        None
    }
    /// Steps all copies. `rewards` and `ends` have a place for each copy; `ends` is `Running` or
    /// `Terminated`, or `Truncated` where the task itself cuts episodes; `Lost` where the environment failed.
    fn step(&mut self, actions: Actions<'_>, rngs: &mut [Stream], rewards: &mut [f64], ends: &mut [End]);
    /// Writes the observations of the present states, `[obs_dim x len]`.
    fn observe(&self, obs: ColsMut<'_, f32>);
    /// Writes the observation of copy `b` only.
    fn observe_one(&self, b: usize, obs: &mut [f32]);
    /// Writes which alternatives copy `b` allows (all true beforehand).
    fn action_mask(&self, _b: usize, _mask: &mut [bool]) {}
    /// Numbers that the last observation of copy `b` was written with, when that is not its space's.
    fn wrong_shape(&self, _b: usize) -> Option<usize> {
        None
    }
    /// Whether [`BatchEnv::wrong_shape`] has something to say of any copy.
    fn any_wrong_shape(&self) -> bool {
        (0..self.len()).any(|b| self.wrong_shape(b).is_some())
    }
    /// The state of copy `b`, or `None` when it cannot be saved.
    fn save(&self, b: usize) -> Option<Vec<f64>>;
    /// Restores what [`BatchEnv::save`] returned; `false` when `state` cannot be a state.
    fn load(&mut self, b: usize, state: &[f64]) -> bool;
    /// What copy `b` looks like.
    ///
    /// # Errors
    /// When there is no picture of it.
    fn picture(&mut self, _b: usize) -> Result<Picture, PictureError> {
        Err(PictureError::none(&self.spec().id))
    }
}

impl<B: BatchEnv + ?Sized> BatchEnv for Box<B> {
    fn spec(&self) -> &EnvSpec {
        (**self).spec()
    }
    fn len(&self) -> usize {
        (**self).len()
    }
    fn numbered(&mut self, first: usize) {
        (**self).numbered(first);
    }
    fn reset(&mut self, b: usize, rng: &mut Stream) {
        (**self).reset(b, rng);
    }
    fn reset_all(&mut self, rngs: &mut [Stream]) {
        (**self).reset_all(rngs);
    }
    fn is_dropped(&self, b: usize) -> bool {
        (**self).is_dropped(b)
    }
    fn fault(&mut self) -> Option<(usize, String)> {
        (**self).fault()
    }
    fn step(&mut self, actions: Actions<'_>, rngs: &mut [Stream], rewards: &mut [f64], ends: &mut [End]) {
        (**self).step(actions, rngs, rewards, ends);
    }
    fn observe(&self, obs: ColsMut<'_, f32>) {
        (**self).observe(obs);
    }
    fn observe_one(&self, b: usize, obs: &mut [f32]) {
        (**self).observe_one(b, obs);
    }
    fn action_mask(&self, b: usize, mask: &mut [bool]) {
        (**self).action_mask(b, mask);
    }
    fn wrong_shape(&self, b: usize) -> Option<usize> {
        (**self).wrong_shape(b)
    }
    fn any_wrong_shape(&self) -> bool {
        (**self).any_wrong_shape()
    }
    fn save(&self, b: usize) -> Option<Vec<f64>> {
        (**self).save(b)
    }
    fn load(&mut self, b: usize, state: &[f64]) -> bool {
        (**self).load(b, state)
    }
    fn picture(&mut self, b: usize) -> Result<Picture, PictureError> {
        (**self).picture(b)
    }
}

/// A [`BatchEnv`] of separate environments.
#[derive(Debug)]
pub struct Each<E> {
    spec: EnvSpec,
    envs: Vec<E>,
    /// `[len x obs_dim]`: an environment writes its observation in one piece.
    obs: Vec<f32>,
    wrong: Vec<Option<usize>>,
    choices: Vec<u32>,
    numbers: Vec<f32>,
}

impl<E: Env> Each<E> {
    /// `n` environments made by `make`.
    ///
    /// # Panics
    /// When `n` is 0.
    pub fn new(n: usize, mut make: impl FnMut() -> E) -> Self {
        assert!(n > 0, "a batch has at least one environment");
        let envs: Vec<E> = (0..n).map(|_| make()).collect();
        let spec = envs[0].spec();
        let obs = vec![0.0; n * spec.observation.obs_dim()];
        let (choices, numbers) = (vec![0; spec.action.index_dim()], vec![0.0; spec.action.real_dim()]);
        Self { obs, wrong: vec![None; n], choices, numbers, envs, spec }
    }
    /// Makes batches of environments made by `make`, which cannot fail.
    pub fn maker(make: impl Fn() -> E) -> impl Fn(usize) -> BatchResult
    where
        E: 'static,
    {
        move |n| Ok(Box::new(Self::new(n, &make)))
    }
    /// Runs `write` on copy `b`'s observation and remembers whether its shape was right.
    fn with_obs<T>(&mut self, b: usize, write: impl FnOnce(&mut E, &mut Obs<'_>) -> T) -> T {
        let dim = self.spec.observation.obs_dim();
        let mut obs = Obs::new(&mut self.obs[b * dim..(b + 1) * dim]);
        let result = write(&mut self.envs[b], &mut obs);
        let written = obs.written().unwrap_or(0);
        self.wrong[b] = (written != dim).then_some(written);
        result
    }
}

impl<E: Env> BatchEnv for Each<E> {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }
    fn len(&self) -> usize {
        self.envs.len()
    }
    fn reset(&mut self, b: usize, rng: &mut Stream) {
        self.with_obs(b, |env, obs| env.reset(rng, obs));
    }
    fn step(&mut self, actions: Actions<'_>, rngs: &mut [Stream], rewards: &mut [f64], ends: &mut [End]) {
        let mut choices = std::mem::take(&mut self.choices);
        let mut numbers = std::mem::take(&mut self.numbers);
        for b in 0..self.envs.len() {
            for (i, c) in choices.iter_mut().enumerate() {
                *c = actions.index.at(i, b);
            }
            for (i, x) in numbers.iter_mut().enumerate() {
                *x = actions.real.at(i, b);
            }
            let action = match self.spec.action {
                Space::Discrete { .. } => Action::Discrete(choices[0] as usize),
                Space::MultiDiscrete { .. } => Action::MultiDiscrete(&choices),
                Space::MultiBinary { .. } => Action::MultiBinary(&choices),
                Space::Box(_) => Action::Box(&numbers),
                Space::Product { .. } => Action::Product { choices: &choices, numbers: &numbers },
            };
            let step = self.with_obs(b, |env, obs| env.step(action, &mut rngs[b], obs));
            rewards[b] = step.reward;
            ends[b] = step.end;
        }
        self.choices = choices;
        self.numbers = numbers;
    }
    fn observe(&self, mut obs: ColsMut<'_, f32>) {
        let dim = obs.rows();
        for b in 0..self.envs.len() {
            for i in 0..dim {
                obs.set(i, b, self.obs[b * dim + i]);
            }
        }
    }
    fn observe_one(&self, b: usize, obs: &mut [f32]) {
        let dim = obs.len();
        obs.copy_from_slice(&self.obs[b * dim..(b + 1) * dim]);
    }
    fn action_mask(&self, b: usize, mask: &mut [bool]) {
        self.envs[b].action_mask(mask);
    }
    fn wrong_shape(&self, b: usize) -> Option<usize> {
        self.wrong[b]
    }
    fn save(&self, b: usize) -> Option<Vec<f64>> {
        // The last observation belongs to the state: nothing else can rebuild it.
        let mut state = self.envs[b].save()?;
        let dim = self.spec.observation.obs_dim();
        state.extend(self.obs[b * dim..(b + 1) * dim].iter().map(|x| f64::from(*x)));
        Some(state)
    }
    fn load(&mut self, b: usize, state: &[f64]) -> bool {
        let dim = self.spec.observation.obs_dim();
        let Some(own) = state.len().checked_sub(dim) else { return false };
        if !self.envs[b].load(&state[..own]) {
            return false;
        }
        for (to, from) in self.obs[b * dim..(b + 1) * dim].iter_mut().zip(&state[own..]) {
            *to = *from as f32;
        }
        true
    }
    fn picture(&mut self, b: usize) -> Result<Picture, PictureError> {
        self.envs[b].picture()
    }
}
