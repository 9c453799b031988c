//! Tasks whose velocities are hidden: CartPoleNoVel-v1, PendulumNoVel-v1, MountainCarContinuousNoVel-v0.
//!
//! Each is the task without `NoVel` in its name, except that the velocities among the numbers of an
//! observation are 0. One observation no longer says where things are going, two of them do: a policy has to
//! remember.
//!
//! | task | observation | hidden |
//! |---|---|---|
//! | CartPoleNoVel-v1 | `x, 0, θ, 0` | `ẋ`, `θ̇` |
//! | PendulumNoVel-v1 | `cos θ, sin θ, 0` | `θ̇` |
//! | MountainCarContinuousNoVel-v0 | `x, 0` | `ẋ` |
//!
//! Source: RL Baselines3 Zoo, `MaskVelocityWrapper`.

use crate::{CartPole, MountainCarContinuous, Pendulum};
use pgrad_env::{Actions, BatchEnv, End, EnvSpec, Picture, PictureError};
use pgrad_num::{ColsMut, Stream};

/// A batch of tasks that show 0 instead of some numbers of their observations.
#[derive(Clone, Debug)]
pub struct NoVelocity<B> {
    spec: EnvSpec,
    task: B,
    hidden: &'static [usize],
}

impl NoVelocity<CartPole> {
    /// `n` copies of CartPoleNoVel-v1.
    ///
    /// # Panics
    /// When `n` is 0.
    #[must_use]
    pub fn new(n: usize) -> Self {
        Self::of(CartPole::new(n), "CartPoleNoVel-v1", &[1, 3])
    }
}

impl NoVelocity<Pendulum> {
    /// `n` copies of PendulumNoVel-v1.
    ///
    /// # Panics
    /// When `n` is 0.
    #[must_use]
    pub fn new(n: usize) -> Self {
        Self::of(Pendulum::new(n), "PendulumNoVel-v1", &[2])
    }
}

impl NoVelocity<MountainCarContinuous> {
    /// `n` copies of MountainCarContinuousNoVel-v0.
    ///
    /// # Panics
    /// When `n` is 0.
    #[must_use]
    pub fn new(n: usize) -> Self {
        Self::of(MountainCarContinuous::new(n), "MountainCarContinuousNoVel-v0", &[1])
    }
}

impl<B: BatchEnv> NoVelocity<B> {
    fn of(task: B, id: &str, hidden: &'static [usize]) -> Self {
        Self { spec: EnvSpec { id: id.into(), ..task.spec().clone() }, task, hidden }
    }
}

impl<B: BatchEnv> BatchEnv for NoVelocity<B> {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }
    fn len(&self) -> usize {
        self.task.len()
    }
    fn reset(&mut self, b: usize, rng: &mut Stream) {
        self.task.reset(b, rng);
    }
    fn step(&mut self, actions: Actions<'_>, rngs: &mut [Stream], rewards: &mut [f64], ends: &mut [End]) {
        self.task.step(actions, rngs, rewards, ends);
    }
    fn observe(&self, mut obs: ColsMut<'_, f32>) {
        self.task.observe(obs.reborrow());
        for i in self.hidden {
            obs.row_mut(*i).fill(0.0);
        }
    }
    fn observe_one(&self, b: usize, obs: &mut [f32]) {
        self.task.observe_one(b, obs);
        for i in self.hidden {
            obs[*i] = 0.0;
        }
    }
    fn save(&self, b: usize) -> Option<Vec<f64>> {
        self.task.save(b)
    }
    fn load(&mut self, b: usize, state: &[f64]) -> bool {
        self.task.load(b, state)
    }
    fn picture(&mut self, b: usize) -> Result<Picture, PictureError> {
        self.task.picture(b)
    }
}
