//! The one act loop: a policy looks at observations, an action is chosen, and the environments take it.

use crate::{
    ActorCritic, AgentError, forget,
    normalize::ObsNormalizer,
    scale::{Clipping, Door},
};
use pgrad_env::{Actions as EnvActions, EnvError, EnvSpec, Space, VecEnv};
use pgrad_math::dist::{ActionDist, Actions, ActionsMut};
use pgrad_nn::NetworkTape;
use pgrad_num::{Cols, ColsMut, kernels};

/// A policy at work on up to `B` observations at once. All numbers are batch-innermost, `[rows x n]`.
///
/// Rollouts, one-step methods, candidates for parameters and finished policies all act here: [`Actor::look`],
/// [`Actor::forward`], [`Actor::choose`], [`Actor::take`].
#[derive(Debug)]
pub struct Actor {
    /// Observations of the present batch, `n`.
    n: usize,
    tape: NetworkTape<f32>,
    /// No state is forgotten before it is looked at: that is done when the episode ends.
    fresh: Vec<bool>,
    /// What the policy remembers before it acts; no rows without a memory.
    pub state: Vec<f32>,
    /// What it looks at, normalised.
    pub obs: Vec<f32>,
    /// Outputs of the policy; after a choice the parameters of the distribution.
    pub params: Vec<f32>,
    /// Which alternatives are allowed; no rows without masks.
    pub masks: Vec<bool>,
    mask_scratch: Vec<bool>,
    /// The alternatives that were chosen.
    pub index: Vec<u32>,
    /// The numbers that were chosen, as drawn: neither rescaled nor clipped.
    pub real: Vec<f32>,
    /// The way of the numbers to the environment.
    door: Door,
    /// The numbers as the environment takes them.
    passed: Vec<f32>,
    /// How many of them lay outside their bounds.
    clipping: Clipping,
}

impl Actor {
    /// For the policies of `model` in `b` environments like `spec`.
    pub fn new(model: &ActorCritic, spec: &EnvSpec, b: usize) -> Self {
        let mut actor = Self::alone(model, b);
        (actor.masks, actor.mask_scratch) =
            (vec![true; mask_rows(spec) * b], Vec::with_capacity(mask_rows(spec)));
        actor
    }
    /// For the policies of `model` on up to `b` observations that come without environments.
    pub fn alone(model: &ActorCritic, b: usize) -> Self {
        let (net, dist) = (&model.actor().net, model.dist());
        let (index, real) = (dist.index_rows(), dist.real_rows());
        Self {
            n: b,
            tape: net.tape(b),
            fresh: vec![false; b],
            state: vec![0.0; net.state_rows() * b],
            obs: vec![0.0; model.shape().obs_dim * b],
            params: vec![0.0; dist.n_outputs() * b],
            masks: Vec::new(),
            mask_scratch: Vec::new(),
            index: vec![0; index * b],
            real: vec![0.0; real * b],
            door: Door::new(&model.shape().action, model.rescaled()),
            passed: vec![0.0; real * b],
            clipping: Clipping::default(),
        }
    }

    /// Takes the observations, and normalises them.
    pub fn look(&mut self, obs: Cols<'_, f32>, norm: Option<&ObsNormalizer>) {
        self.n = obs.cols();
        let x = &mut self.obs[..obs.data().len()];
        x.copy_from_slice(obs.data());
        if let Some(norm) = norm {
            norm.apply(ColsMut::new(x, obs.rows(), self.n));
        }
    }
    /// The policy's raw outputs. `theta` stands for the parameters of the model's actor.
    pub fn forward(&mut self, model: &ActorCritic, theta: &[f32]) {
        let (n, net, rows) = (self.n, &model.actor().net, model.policy_rows());
        let state_rows = net.state_rows();
        if state_rows > 0 {
            let state = Cols::new(&self.state[..state_rows * n], state_rows, n);
            self.tape.begin(1, state, &self.fresh[..n]);
        }
        let dim = model.shape().obs_dim;
        let out = net.forward(theta, Cols::new(&self.obs[..dim * n], dim, n), &mut self.tape).into_data();
        self.params[..rows.len() * n].copy_from_slice(&out[rows.start * n..rows.end * n]);
    }
    /// Keeps what the policy remembers of what it has looked at.
    pub fn remember(&mut self) {
        let rows = self.state.len() / self.fresh.len();
        if rows > 0 {
            self.tape.last_state(ColsMut::new(&mut self.state[..rows * self.n], rows, self.n));
        }
    }
    /// Lets `draw` choose, from the parameters of the distribution and the mask.
    pub fn choose(
        &mut self,
        dist: &ActionDist,
        mask: Option<Cols<'_, bool>>,
        draw: impl FnOnce(Cols<'_, f32>, Option<Cols<'_, bool>>, ActionsMut<'_, f32>),
    ) {
        let (n, rows) = (self.n, dist.n_outputs());
        let mut params = ColsMut::new(&mut self.params[..rows * n], rows, n);
        dist.prepare(params.reborrow(), mask);
        let (index, real) = (dist.index_rows(), dist.real_rows());
        let actions = ActionsMut {
            index: ColsMut::new(&mut self.index[..index * n], index, n),
            real: ColsMut::new(&mut self.real[..real * n], real, n),
        };
        draw(params.as_cols(), mask, actions);
    }
    /// Asks the environments which alternatives are allowed.
    ///
    /// # Errors
    /// When a mask allows nothing.
    pub fn see_masks(&mut self, env: &mut VecEnv) -> Result<(), EnvError> {
        let rows = self.masks.len() / self.n;
        if rows == 0 {
            return Ok(());
        }
        env.action_masks(ColsMut::new(&mut self.masks, rows, self.n), &mut self.mask_scratch)
    }
    /// [`Actor::choose`] in the environments, with their masks. The outputs are looked at first, the numbers
    /// of actions after.
    ///
    /// # Errors
    /// When an output of the policy or a number of an action is not finite, or a mask allows nothing.
    pub fn choose_in(
        &mut self,
        env: &mut VecEnv,
        dist: &ActionDist,
        draw: impl FnOnce(Cols<'_, f32>, Option<Cols<'_, bool>>, ActionsMut<'_, f32>),
    ) -> Result<(), AgentError> {
        let (n, first) = (self.n, env.first());
        if let Some(i) = kernels::first_non_finite(&self.params) {
            let ((episode, step), env, value) = (env.position(i % n), first + i % n, self.params[i]);
            return Err(AgentError::Output { network: "policy", env, episode, step, index: i / n, value });
        }
        self.see_masks(env)?;
        let masks = std::mem::take(&mut self.masks);
        let rows = masks.len() / n;
        self.choose(dist, (rows > 0).then(|| Cols::new(&masks[..], rows, n)), draw);
        self.masks = masks;
        if let Some(i) = kernels::first_non_finite(&self.real) {
            let ((episode, step), env, value) = (env.position(i % n), first + i % n, self.real[i]);
            return Err(AgentError::Action { env, episode, step, index: i / n, value });
        }
        Ok(())
    }
    /// Log-probabilities of what was chosen.
    pub fn logp(&mut self, dist: &ActionDist, logp: &mut [f32]) {
        let (n, rows) = (self.n, dist.n_outputs());
        let chosen = Actions {
            index: Cols::new(&self.index, dist.index_rows(), n),
            real: Cols::new(&self.real, dist.real_rows(), n),
        };
        dist.logp(Cols::new(&self.params, rows, n), chosen, logp);
    }
    /// What was chosen, as the environment takes it: numbers are rescaled where the model says so, and
    /// clipped to the bounds of their space.
    pub fn chosen(&mut self, space: &Space) -> EnvActions<'_> {
        let (n, index, real) = (self.n, space.index_dim(), space.real_dim());
        let passed = &mut self.passed[..real * n];
        self.clipping.merge(self.door.pass(&self.real[..real * n], passed, n));
        EnvActions { index: Cols::new(&self.index[..index * n], index, n), real: Cols::new(passed, real, n) }
    }
    /// How many numbers of actions lay outside their bounds since this was last asked.
    pub fn take_clipping(&mut self) -> Clipping {
        std::mem::take(&mut self.clipping)
    }
    /// The environments take what was chosen; of episodes that end nothing is remembered.
    ///
    /// # Errors
    /// When a reward or an observation is not finite, or an environment breaks its contract.
    pub fn take(&mut self, env: &mut VecEnv) -> Result<(), AgentError> {
        let actions = self.chosen(&env.spec().action);
        env.step(actions)?;
        forget(&mut self.state, env.ends());
        Ok(())
    }
}

/// Rows of an action: as indices, as real numbers.
#[must_use]
pub fn action_rows(spec: &EnvSpec) -> (usize, usize) {
    (spec.action.index_dim(), spec.action.real_dim())
}

/// Entries of a mask; none where nothing is masked.
#[must_use]
pub fn mask_rows(spec: &EnvSpec) -> usize {
    if spec.masks_actions { spec.action.mask_dim() } else { 0 }
}
