//! One step of `N` environments at a time, for methods that learn at every step.
//!
//! A [`Stepper`] goes in two movements. [`Stepper::act`] draws `a_t ~ π(·|s_t)` in the present states;
//! [`Stepper::advance`] takes these actions, and [`Stepper::transition`] then tells, for each environment,
//! `s_t`, `a_t`, the reward, `s_{t+1}` and how the step ended. After an ending `s_{t+1}` is the *final*
//! observation of the old episode; the next `act` sees the first one of the new episode. A method that needs
//! `a_{t+1}` before it learns from step `t` (Sarsa) calls `act` once more before it asks for the transition.
//!
//! Observations are not normalised: at the first steps there is nothing to know their moments from, and
//! moments that move at every step change the meaning of what traces have gathered.

use pgrad_engine::Transition;
use pgrad_env::{BatchResult, End, EnvSpec, Episode, MakeError, VecEnv};
use pgrad_math::dist::{ActionDist, Actions};
use pgrad_model::{Actor, ActorCritic, AgentError, Clipping, action_rows, load_state, mask_rows};
use pgrad_num::{Cols, ColsMut, Record, RecordError, Stream, kernels, rows_to_columns, transpose};

/// Purpose number of the streams that actions are sampled from; the same as a rollout's.
const STREAM_ACTION: u32 = 4;

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
    rngs: Vec<Stream>,
    actor: Actor,
    /// What was chosen in the present states, if `chosen`.
    present: Choice,
    chosen: bool,
    /// What the last step took, and what came of it; `next_obs` has a row for each environment.
    taken: Choice,
    next_obs: Vec<f32>,
    reward: Vec<f32>,
    ends: Vec<End>,
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
    /// As [`Stepper::new`], for the environments `first..first + n_envs` of a run: their streams and their
    /// names in errors.
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
            rngs: (0..n_envs).map(|b| Stream::new(seed, STREAM_ACTION, (first + b) as u32)).collect(),
            actor: Actor::new(model, spec, n_envs),
            chosen: false,
            next_obs: taken.obs.clone(),
            reward: vec![0.0; n_envs],
            ends: vec![End::Running; n_envs],
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
        self.actor.state.fill(0.0);
        Ok(self.env.start()?)
    }
    /// What a recurrent policy remembers before the actions that come next, `[state_rows x N]`: nothing (0)
    /// where an episode begins; no rows without a memory.
    #[must_use]
    pub fn state(&self) -> &[f32] {
        &self.actor.state
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
        self.actor.look(self.env.obs(), None);
        self.actor.forward(model, &model.theta[model.actor().params.clone()]);
        self.actor.remember();
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
        outputs(self.env.obs(), ColsMut::new(&mut self.actor.params, dist.n_outputs(), self.env.len()));
        self.draw(dist)
    }

    /// Draws actions from the raw outputs, and remembers what they were drawn from.
    fn draw(&mut self, dist: &ActionDist) -> Result<(), AgentError> {
        let Self { env, rngs, actor, present, .. } = self;
        actor.choose_in(env, dist, |params, _, actions| dist.sample(params, rngs, actions))?;
        actor.logp(dist, &mut present.logp);
        transpose(&actor.index, &mut present.index, env.len());
        transpose(&actor.real, &mut present.real, env.len());
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
        transpose(&self.actor.masks, &mut self.present.masks, n);
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
        self.actor.take(&mut self.env)?;
        std::mem::swap(&mut self.present, &mut self.taken);
        self.chosen = false;
        self.ends.copy_from_slice(self.env.ends());
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

    /// How many numbers of actions lay outside their bounds since this was last asked.
    pub fn take_clipping(&mut self) -> Clipping {
        self.actor.take_clipping()
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
            env: self.env.first() + b,
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
        if !self.actor.state.is_empty() {
            r.put("state", self.actor.state.clone());
        }
        r.put("drawn", vec![u8::from(self.chosen)]);
        if self.chosen {
            r.put("drawn_index", self.actor.index.iter().map(|i| u64::from(*i)).collect::<Vec<u64>>());
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
        if !self.actor.state.is_empty() {
            load_state(from, "state", exact, &mut self.actor.state)?;
        }
        self.chosen = false;
        if from.u8s("drawn", 1)?[0] == 0 || !exact {
            return Ok(exact);
        }
        let n = self.env.len();
        let refuse = |reason: &str| RecordError::Value { name: "drawn_index".into(), reason: reason.into() };
        let choices = self.env.spec().action.choices();
        for (i, (to, x)) in
            self.actor.index.iter_mut().zip(from.u64s("drawn_index", self.present.index.len())?).enumerate()
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
        transpose(&self.actor.index, &mut self.present.index, n);
        rows_to_columns(real, &mut self.actor.real, n);
        self.actor.see_masks(&mut self.env).map_err(|e| refuse(&e.to_string()))?;
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
    Actions { index: column(&choice.index, b, n), real: column(&choice.real, b, n) }
}
