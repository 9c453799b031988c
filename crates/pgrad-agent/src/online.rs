//! One step of `N` environments at a time, for methods that learn at every step.
//!
//! A [`Stepper`] goes in two movements. [`Stepper::act`] draws `a_t ~ π(·|s_t)` in the present states;
//! [`Stepper::advance`] takes these actions, and [`Stepper::transition`] then tells, for each environment,
//! `s_t`, `a_t`, the reward, `s_{t+1}` and how the step ended. After an ending `s_{t+1}` is the *final*
//! observation of the old episode; the next `act` sees the first one of the new episode. A method that needs
//! `a_{t+1}` before it learns from step `t` (Sarsa) calls `act` once more before it asks for the transition.
//!
//! Observations are not normalised: at the first steps there is nothing to know their moments from, and moments
//! that move at every step change the meaning of what traces have gathered.

use crate::rollout::{action_rows, forget, mask_rows, transpose};
use crate::{ActorCritic, AgentError, Critic};
use pgrad_env::{Actions as EnvActions, BatchResult, End, EnvSpec, Episode, MakeError, Space, VecEnv};
use pgrad_nn::NetworkTape;
use pgrad_num::{Cols, ColsMut, Record, RecordError, Stream, kernels};
use pgrad_rl::dist::{ActionDist, Actions, ActionsMut};

/// Purpose number of the streams that actions are sampled from; the same as a rollout's.
const STREAM_ACTION: u32 = 4;

/// Restores what a network remembers; where the episodes do not go on, nothing.
pub(crate) fn load_state(
    from: &Record,
    name: &str,
    exact: bool,
    state: &mut [f32],
) -> Result<(), RecordError> {
    let saved = from.f32s(name, state.len())?;
    if !kernels::all_finite(saved) {
        return Err(RecordError::Value { name: name.into(), reason: "what is remembered is finite".into() });
    }
    state.copy_from_slice(saved);
    if !exact {
        state.fill(0.0);
    }
    Ok(())
}

/// What one environment went through in the last step.
#[derive(Clone, Copy, Debug)]
pub struct Transition<'a> {
    /// Environment.
    pub env: usize,
    /// Episode of that environment, from 0.
    pub episode: u64,
    /// Step `t` of the episode, from 0.
    pub step: u32,
    /// `s_t`, `[obs_dim x 1]`.
    pub obs: Cols<'a, f32>,
    /// `a_t`, one column; real actions as drawn, not clipped.
    pub action: Actions<'a, f32>,
    /// Which alternatives were allowed in `s_t`, one column; `None` without masks.
    pub mask: Option<Cols<'a, bool>>,
    /// Log-probability of `a_t` under the policy that drew it, when it drew it.
    pub logp: f32,
    /// The reward that followed.
    pub reward: f32,
    /// `s_{t+1}`, `[obs_dim x 1]`: the final observation where the episode ended.
    pub next_obs: Cols<'a, f32>,
    /// Which alternatives were allowed in `s_{t+1}`, one column, where the episode ended there; `None`
    /// elsewhere and without masks.
    pub next_mask: Option<Cols<'a, bool>>,
    /// How the step ended.
    pub end: End,
}

impl Transition<'_> {
    /// Whether the next step of this environment belongs to the same episode. Traces are forgotten when not.
    #[must_use]
    pub fn continues(&self) -> bool {
        self.end == End::Running
    }
    /// Whether the environment failed in this step: it did not happen, nothing is learnt from it, and traces are
    /// forgotten.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.end == End::Lost
    }
    /// `value`, which the error calls `what`.
    ///
    /// # Errors
    /// When it is not finite.
    pub fn finite(&self, what: &'static str, value: f32) -> Result<f32, AgentError> {
        if value.is_finite() {
            return Ok(value);
        }
        Err(AgentError::Step { what, env: self.env, episode: self.episode, step: self.step, value })
    }
}

/// What was chosen in the states of all environments: a row for each.
#[derive(Debug)]
struct Choice {
    obs: Vec<f32>,
    masks: Vec<bool>,
    index: Vec<u32>,
    real: Vec<f32>,
    logp: Vec<f32>,
    /// Episode and step.
    places: Vec<(u64, u32)>,
}

impl Choice {
    fn new(spec: &EnvSpec, n: usize) -> Self {
        let (index_rows, real_rows) = action_rows(spec);
        Self {
            obs: vec![0.0; spec.observation.obs_dim() * n],
            masks: vec![true; mask_rows(spec) * n],
            index: vec![0; index_rows * n],
            real: vec![0.0; real_rows * n],
            logp: vec![0.0; n],
            places: vec![(0, 0); n],
        }
    }
}

/// `N` environments that are stepped together, one step at a time.
pub struct Stepper {
    env: VecEnv,
    /// Number of the first environment in the run.
    first: usize,
    rngs: Vec<Stream>,
    tape: NetworkTape<f32>,
    /// What the policy remembers, `[state_rows x N]`; empty without a memory.
    state: Vec<f32>,
    /// Nobody forgets anything before it acts: states are forgotten where episodes end.
    fresh: Vec<bool>,
    /// What was chosen in the present states, if `chosen`.
    present: Choice,
    chosen: bool,
    /// What the last step took, and what came of it; `next_obs` has a row for each environment.
    taken: Choice,
    next_obs: Vec<f32>,
    reward: Vec<f32>,
    ends: Vec<End>,
    /// Batch-innermost: what distributions and environments work on.
    outputs: Vec<f32>,
    masks: Vec<bool>,
    mask_scratch: Vec<bool>,
    index: Vec<u32>,
    real: Vec<f32>,
}

impl std::fmt::Debug for Stepper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stepper")
            .field("env", &self.env.spec().id)
            .field("n_envs", &self.env.len())
            .finish_non_exhaustive()
    }
}

impl Stepper {
    /// `n_envs` environments made by `make(n_envs)`, for the policies of `model`. At most `episodes` may end
    /// between two calls of [`Stepper::clear_episodes`] before memory is allocated.
    ///
    /// # Errors
    /// When `make` fails.
    ///
    /// # Panics
    /// When `n_envs` is 0.
    pub fn new(
        n_envs: usize,
        make: impl Fn(usize) -> BatchResult,
        model: &ActorCritic,
        seed: u64,
        episodes: usize,
    ) -> Result<Self, MakeError> {
        Self::numbered(0, n_envs, make, model, seed, episodes)
    }
    /// As [`Stepper::new`], for the environments `first..first + n_envs` of a run: their streams and their names in
    /// errors.
    ///
    /// # Errors
    /// When `make` fails.
    ///
    /// # Panics
    /// As [`Stepper::new`].
    pub fn numbered(
        first: usize,
        n_envs: usize,
        make: impl Fn(usize) -> BatchResult,
        model: &ActorCritic,
        seed: u64,
        episodes: usize,
    ) -> Result<Self, MakeError> {
        assert!(n_envs > 0, "there is at least one environment");
        let mut env = VecEnv::new(make(n_envs)?, seed, first);
        env.reserve_episodes(episodes);
        let spec = env.spec();
        let choice = || Choice::new(spec, n_envs);
        let (present, taken) = (choice(), choice());
        Ok(Self {
            first,
            rngs: (0..n_envs).map(|b| Stream::new(seed, STREAM_ACTION, (first + b) as u32)).collect(),
            tape: model.actor().net.tape(n_envs),
            state: vec![0.0; model.actor().net.state_rows() * n_envs],
            fresh: vec![false; n_envs],
            chosen: false,
            next_obs: taken.obs.clone(),
            reward: vec![0.0; n_envs],
            ends: vec![End::Running; n_envs],
            outputs: vec![0.0; model.dist().n_outputs() * n_envs],
            masks: taken.masks.clone(),
            mask_scratch: Vec::with_capacity(mask_rows(spec)),
            index: taken.index.clone(),
            real: taken.real.clone(),
            present,
            taken,
            env,
        })
    }
    /// What the environments are.
    #[must_use]
    pub fn spec(&self) -> &EnvSpec {
        self.env.spec()
    }
    /// Number of environments.
    #[must_use]
    pub fn n_envs(&self) -> usize {
        self.env.len()
    }
    /// Episode of environment `b`, from 0, and the step that it is at.
    ///
    /// # Panics
    /// When `b` is not below [`Stepper::n_envs`].
    #[must_use]
    pub fn position(&self, b: usize) -> (u64, u32) {
        self.env.position(b)
    }
    /// Starts a first episode everywhere.
    ///
    /// # Errors
    /// When an environment breaks its contract.
    pub fn start(&mut self) -> Result<(), AgentError> {
        self.chosen = false;
        self.state.fill(0.0);
        Ok(self.env.start()?)
    }
    /// What a recurrent policy remembers before the actions that come next, `[state_rows x N]`: nothing (0) where an
    /// episode begins; no rows without a memory.
    #[must_use]
    pub fn state(&self) -> &[f32] {
        &self.state
    }
    /// Episodes that ended since [`Stepper::clear_episodes`].
    pub fn episodes(&self) -> impl Iterator<Item = &Episode> {
        self.env.finished().iter()
    }
    /// Forgets the ended episodes.
    pub fn clear_episodes(&mut self) {
        self.env.clear_finished();
    }

    /// Draws `a_t ~ π_θ(·|s_t)` in the present states, unless actions are drawn already.
    ///
    /// # Errors
    /// When an output of the policy or a number of an action is not finite, or a mask allows nothing.
    pub fn act(&mut self, model: &ActorCritic) -> Result<(), AgentError> {
        if self.chosen {
            return Ok(());
        }
        let (n, rows) = (self.env.len(), model.actor().net.state_rows());
        if rows > 0 {
            self.tape.begin(1, Cols::new(&self.state, rows, n), &self.fresh);
        }
        let out = model.policy_outputs(self.env.obs(), &mut self.tape).into_data();
        self.outputs.copy_from_slice(out);
        if rows > 0 {
            self.tape.last_state(ColsMut::new(&mut self.state, rows, n));
        }
        self.draw(model.dist())
    }
    /// Draws `a_t ~ b(·|s_t)` of a behaviour policy in the present states, unless actions are drawn already.
    /// `outputs` gets the observations `[obs_dim x N]` and writes the raw outputs of `dist`,
    /// `[n_outputs x N]`; masks are applied to them.
    ///
    /// # Errors
    /// As [`Stepper::act`].
    ///
    /// # Panics
    /// When `dist` is not one of the model's action space.
    pub fn act_with(
        &mut self,
        dist: &ActionDist,
        outputs: impl FnOnce(Cols<'_, f32>, ColsMut<'_, f32>),
    ) -> Result<(), AgentError> {
        if self.chosen {
            return Ok(());
        }
        outputs(self.env.obs(), ColsMut::new(&mut self.outputs, dist.n_outputs(), self.env.len()));
        self.draw(dist)
    }

    /// Draws actions from the raw outputs, and remembers what they were drawn from.
    fn draw(&mut self, dist: &ActionDist) -> Result<(), AgentError> {
        let Self { env, first, rngs, present, outputs, masks, mask_scratch, index, real, .. } = self;
        let (n, first) = (env.len(), *first);
        if let Some(i) = kernels::first_non_finite(outputs) {
            let (episode, step) = env.position(i % n);
            let (index, value) = (i / n, outputs[i]);
            return Err(AgentError::Output {
                network: "policy",
                env: first + i % n,
                episode,
                step,
                index,
                value,
            });
        }
        let mask_rows = masks.len() / n;
        if mask_rows > 0 {
            env.action_masks(ColsMut::new(masks, mask_rows, n), mask_scratch)?;
        }
        let mask = (mask_rows > 0).then(|| Cols::new(&masks[..], mask_rows, n));
        let mut params = ColsMut::new(outputs, dist.n_outputs(), n);
        dist.prepare(params.reborrow(), mask);
        let params = params.as_cols();
        let mut actions = if dist.is_discrete() {
            ActionsMut::Index(ColsMut::new(index, dist.action_rows(), n))
        } else {
            ActionsMut::Real(ColsMut::new(real, dist.action_rows(), n))
        };
        dist.sample(params, rngs, actions.reborrow());
        dist.logp(params, actions.as_actions(), &mut present.logp);
        if let Some(i) = kernels::first_non_finite(real) {
            let (episode, step) = env.position(i % n);
            let env = first + i % n;
            return Err(AgentError::Action { env, episode, step, index: i / n, value: real[i] });
        }
        transpose(index, &mut present.index, n);
        transpose(real, &mut present.real, n);
        self.show();
        self.chosen = true;
        Ok(())
    }

    /// Writes the present observations and masks as rows, and where they are.
    fn show(&mut self) {
        let n = self.env.len();
        for (b, place) in self.present.places.iter_mut().enumerate() {
            *place = self.env.position(b);
        }
        transpose(self.env.obs().data(), &mut self.present.obs, n);
        transpose(&self.masks, &mut self.present.masks, n);
    }

    /// Takes the actions that were drawn.
    ///
    /// # Errors
    /// When a reward or an observation is not finite, or an environment breaks its contract.
    ///
    /// # Panics
    /// When no actions were drawn since the last step.
    pub fn advance(&mut self) -> Result<(), AgentError> {
        assert!(self.chosen, "actions are drawn before they are taken");
        let n = self.env.len();
        let space = &self.env.spec().action;
        let actions = if let Space::Box(bounds) = space {
            for (i, row) in self.real.chunks_exact_mut(n).enumerate() {
                let (low, high) = (bounds.low[i], bounds.high[i]);
                row.iter_mut().for_each(|a| *a = a.clamp(low, high));
            }
            EnvActions::Real(Cols::new(&self.real, bounds.dim(), n))
        } else {
            EnvActions::Index(Cols::new(&self.index, space.action_dim(), n))
        };
        self.env.step(actions)?;
        std::mem::swap(&mut self.present, &mut self.taken);
        self.chosen = false;
        self.ends.copy_from_slice(self.env.ends());
        forget(&mut self.state, &self.ends);
        for (to, r) in self.reward.iter_mut().zip(self.env.rewards()) {
            *to = *r as f32;
        }
        transpose(self.env.obs().data(), &mut self.next_obs, n);
        let last = self.env.final_obs();
        for (b, row) in self.next_obs.chunks_exact_mut(last.rows().max(1)).enumerate() {
            if self.ends[b] != End::Running {
                row.iter_mut().enumerate().for_each(|(d, x)| *x = last.at(d, b));
            }
        }
        Ok(())
    }

    /// Environments that failed in the last step.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.ends.iter().filter(|end| **end == End::Lost).count() as u64
    }
    /// What the last step was in environment `b`.
    ///
    /// # Panics
    /// When `b` is not below [`Stepper::n_envs`].
    #[must_use]
    pub fn transition(&self, b: usize) -> Transition<'_> {
        let (episode, step) = self.taken.places[b];
        let n = self.env.len();
        let taken = &self.taken;
        let masked = !taken.masks.is_empty();
        Transition {
            env: self.first + b,
            episode,
            step,
            obs: column(&taken.obs, b, n),
            action: action(taken, b, n),
            mask: masked.then(|| column(&taken.masks, b, n)),
            logp: taken.logp[b],
            reward: self.reward[b],
            next_obs: column(&self.next_obs, b, n),
            next_mask: (masked && self.ends[b] != End::Running).then(|| {
                let mask = self.env.final_mask(b);
                Cols::new(mask, mask.len(), 1)
            }),
            end: self.ends[b],
        }
    }
    /// The action drawn in the present state of environment `b`, for [`Stepper::advance`] to take: `a_{t+1}`
    /// of the last transition when that continues.
    ///
    /// # Panics
    /// When no actions were drawn since the last step.
    #[must_use]
    pub fn drawn(&self, b: usize) -> Actions<'_, f32> {
        assert!(self.chosen, "no action is drawn");
        action(&self.present, b, self.env.len())
    }

    /// Saves environments, streams, and actions that are drawn but not taken.
    #[must_use]
    pub fn save(&self) -> Record {
        let mut r = Record::new();
        r.put_record("env", self.env.save());
        Stream::save_all(&self.rngs, "actions", &mut r);
        if !self.state.is_empty() {
            r.put("state", self.state.clone());
        }
        r.put("drawn", vec![u8::from(self.chosen)]);
        if self.chosen {
            r.put("drawn_index", self.index.iter().map(|i| u64::from(*i)).collect::<Vec<u64>>());
            r.put("drawn_real", self.present.real.clone());
            r.put("drawn_logp", self.present.logp.clone());
        }
        r
    }
    /// Restores what [`Stepper::save`] saved. Returns whether the environments continue exactly; when not,
    /// new episodes are started, and traces of the old ones must be forgotten.
    ///
    /// # Errors
    /// When the record does not fit.
    pub fn load(&mut self, from: &Record) -> Result<bool, RecordError> {
        let exact = self.env.load(&from.record("env"))?;
        Stream::load_all(&mut self.rngs, "actions", from)?;
        if !self.state.is_empty() {
            load_state(from, "state", exact, &mut self.state)?;
        }
        self.chosen = false;
        if from.u8s("drawn", 1)?[0] == 0 || !exact {
            return Ok(exact);
        }
        let n = self.env.len();
        let refuse = |reason: &str| RecordError::Value { name: "drawn_index".into(), reason: reason.into() };
        let choices = self.env.spec().action.choices();
        for (i, (to, x)) in
            self.index.iter_mut().zip(from.u64s("drawn_index", self.present.index.len())?).enumerate()
        {
            let alternatives = choices.get(i / n).map_or(2, |c| *c as u64);
            if *x >= alternatives {
                return Err(refuse("there is no such action"));
            }
            *to = *x as u32;
        }
        let real = from.f32s("drawn_real", self.present.real.len())?;
        let logp = from.f32s("drawn_logp", n)?;
        if !kernels::all_finite(real) || !kernels::all_finite(logp) {
            return Err(refuse("what belongs to it is not finite"));
        }
        self.present.real.copy_from_slice(real);
        self.present.logp.copy_from_slice(logp);
        transpose(&self.index, &mut self.present.index, n);
        let dim = real.len() / n;
        for (i, row) in self.real.chunks_exact_mut(n).enumerate() {
            row.iter_mut().enumerate().for_each(|(b, x)| *x = real[b * dim + i]);
        }
        let mask_rows = self.masks.len() / n;
        if mask_rows > 0 {
            let masks = ColsMut::new(&mut self.masks, mask_rows, n);
            self.env.action_masks(masks, &mut self.mask_scratch).map_err(|e| refuse(&e.to_string()))?;
        }
        self.show();
        self.chosen = true;
        Ok(exact)
    }
}

/// Row `b` of `n`, as one column.
fn column<T>(rows: &[T], b: usize, n: usize) -> Cols<'_, T> {
    let dim = rows.len() / n;
    Cols::new(&rows[b * dim..(b + 1) * dim], dim, 1)
}

fn action(choice: &Choice, b: usize, n: usize) -> Actions<'_, f32> {
    if choice.index.is_empty() {
        Actions::Real(column(&choice.real, b, n))
    } else {
        Actions::Index(column(&choice.index, b, n))
    }
}

/// Accumulating eligibility traces, one for each environment, over the same parameters.
///
/// What is added to a trace keeps its effect on later updates, less by the decay at each step.
#[derive(Clone, Debug, PartialEq)]
pub struct Traces {
    z: Vec<f32>,
    n_params: usize,
}

impl Traces {
    /// Traces of zeros for `n_envs` environments over `n_params` parameters.
    #[must_use]
    pub fn new(n_envs: usize, n_params: usize) -> Self {
        Self { z: vec![0.0; n_envs * n_params], n_params }
    }
    /// `z_b ← decay · z_b + weight · gradient`; returns the new `z_b`.
    ///
    /// # Panics
    /// When there is no environment `b`, or the gradient has another length.
    pub fn accumulate(&mut self, b: usize, decay: f32, weight: f32, gradient: &[f32]) -> &mut [f32] {
        let z = &mut self.z[b * self.n_params..(b + 1) * self.n_params];
        assert_eq!(z.len(), gradient.len());
        pgrad_num::simd!(|| {
            for (z, g) in z.iter_mut().zip(gradient) {
                *z = decay * *z + weight * g;
            }
        });
        z
    }
    /// The trace of environment `b`.
    #[must_use]
    pub fn get(&self, b: usize) -> &[f32] {
        &self.z[b * self.n_params..(b + 1) * self.n_params]
    }
    /// Forgets environment `b`: its episode ended.
    pub fn reset(&mut self, b: usize) {
        self.z[b * self.n_params..(b + 1) * self.n_params].fill(0.0);
    }
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.z.fill(0.0);
    }
    /// Saves the traces as the entry `name`.
    pub fn save(&self, name: &str, out: &mut Record) {
        out.put(name, self.z.clone());
    }
    /// Restores what [`Traces::save`] saved.
    ///
    /// # Errors
    /// When the entry does not fit, or has a number that is not finite.
    pub fn load(&mut self, name: &str, from: &Record) -> Result<(), RecordError> {
        let z = from.f32s(name, self.z.len())?;
        if !kernels::all_finite(z) {
            return Err(RecordError::Value { name: name.into(), reason: "a trace is not finite".into() });
        }
        self.z.copy_from_slice(z);
        Ok(())
    }
}

/// Values and gradients at one state of one environment.
#[derive(Debug)]
pub struct PointGradients {
    actor: NetworkTape<f32>,
    critic: Option<NetworkTape<f32>>,
    d_out: Vec<f32>,
}

impl PointGradients {
    /// For `model`, actor and critic of which are two networks (or which has no critic).
    ///
    /// # Panics
    /// With a shared trunk: the parameters of actor and critic have traces and step sizes of their own.
    #[must_use]
    pub fn new(model: &ActorCritic) -> Self {
        assert!(model.is_separate() || !model.has_critic(), "actor and critic are two networks");
        let outputs = model.actor().net.n_outputs().max(model.shape().critic_rows());
        Self {
            actor: model.actor().net.tape(1),
            critic: model.has_critic().then(|| model.critic().net.tape(1)),
            d_out: vec![0.0; outputs],
        }
    }
    /// Writes `∇_θ log π_θ(a|s)` for the action of a transition, `[actor parameters]`; returns
    /// `log π_θ(a|s)` under the present parameters.
    ///
    /// # Panics
    /// When `score` has another length than the actor's parameters.
    pub fn score(&mut self, model: &ActorCritic, t: &Transition<'_>, score: &mut [f32]) -> f32 {
        let (part, dist) = (model.actor(), model.dist());
        let d_out = &mut self.d_out[..dist.n_outputs()];
        let mut out = model.policy_outputs(t.obs, &mut self.actor);
        dist.prepare(out.reborrow(), t.mask);
        let mut logp = [0.0];
        dist.logp(out.as_cols(), t.action, &mut logp);
        d_out.fill(0.0);
        dist.logp_vjp(out.as_cols(), t.action, &[1.0], ColsMut::new(d_out, dist.n_outputs(), 1));
        score.fill(0.0);
        let theta = &model.theta[part.params.clone()];
        part.net.vjp(theta, t.obs, &mut self.actor, Cols::new(d_out, d_out.len(), 1), score, None);
        logp[0]
    }
    /// `Σ_a π_θ(a|s) Q_w(s, a)` over the alternatives that `mask` allows: the value of a state of which no
    /// action was drawn. Not finite when nothing is allowed.
    ///
    /// # Panics
    /// When the critic is not one of actions.
    pub fn expected_value(
        &mut self,
        model: &ActorCritic,
        obs: Cols<'_, f32>,
        mask: Option<Cols<'_, bool>>,
    ) -> f32 {
        assert_eq!(model.shape().critic, Critic::Action, "the critic tells of every action");
        let mut out = model.policy_outputs(obs, &mut self.actor);
        model.dist().prepare(out.reborrow(), mask);
        let tape = self.critic.as_mut();
        let q = model.values(obs, tape.unwrap_or_else(|| panic!("this model is a policy alone")));
        let logp = self.actor.outputs();
        let mean: f64 = logp.iter().zip(q).map(|(l, q)| f64::from(l.exp()) * f64::from(*q)).sum();
        mean as f32
    }
    /// The policy's raw outputs in `obs`, `[n_outputs]`.
    pub fn outputs<'t>(&'t mut self, model: &ActorCritic, obs: Cols<'_, f32>) -> &'t [f32] {
        model.policy_outputs(obs, &mut self.actor).into_data()
    }
    /// Writes `Σ_i c_i ∇_θ y_i(s)`, the gradient of the policy's raw outputs `y` in `obs` with cotangent `c`
    /// (`[n_outputs]`), `[actor parameters]`: `∇_θ Q_θ(s, a)` for a network of action values and `c` = 1 at `a`.
    ///
    /// # Panics
    /// When a length does not fit.
    pub fn output_gradient(
        &mut self,
        model: &ActorCritic,
        obs: Cols<'_, f32>,
        cotangent: &[f32],
        gradient: &mut [f32],
    ) {
        model.policy_outputs(obs, &mut self.actor);
        let part = model.actor();
        gradient.fill(0.0);
        let (theta, d_out) = (&model.theta[part.params.clone()], Cols::new(cotangent, cotangent.len(), 1));
        part.net.vjp(theta, obs, &mut self.actor, d_out, gradient, None);
    }
    /// `V_w(s)`, or `Q_w(s, a)` of every action.
    ///
    /// # Panics
    /// When there is no critic.
    pub fn values<'t>(&'t mut self, model: &ActorCritic, obs: Cols<'_, f32>) -> &'t [f32] {
        let tape = self.critic.as_mut();
        model.values(obs, tape.unwrap_or_else(|| panic!("this model is a policy alone")))
    }
    /// Writes the gradient of output `i` of the critic in `obs` with respect to its parameters; returns the
    /// output: `∇_w V_w(s)` and `V_w(s)` for `i = 0`, or `∇_w Q_w(s, i)` and `Q_w(s, i)`.
    ///
    /// # Panics
    /// When there is no critic, no such output, or `gradient` has another length than the critic's
    /// parameters.
    pub fn value_gradient(
        &mut self,
        model: &ActorCritic,
        obs: Cols<'_, f32>,
        i: usize,
        gradient: &mut [f32],
    ) -> f32 {
        let value = self.values(model, obs)[i];
        let part = model.critic();
        let rows = model.shape().critic_rows();
        self.d_out[..rows].fill(0.0);
        self.d_out[i] = 1.0;
        gradient.fill(0.0);
        let (theta, d_out) = (&model.theta[part.params.clone()], Cols::new(&self.d_out[..rows], rows, 1));
        if let Some(tape) = &mut self.critic {
            part.net.vjp(theta, obs, tape, d_out, gradient, None);
        }
        value
    }
}
