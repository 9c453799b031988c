//! One shard: environments that one thread runs for a whole iteration.

use pgrad_engine::Samples;
use pgrad_env::{End, EnvError, VecEnv};
use pgrad_math::dist::ActionsMut;
use pgrad_model::{Actor, ActorCritic, AgentError, ObsNormalizer};
use pgrad_num::{Cols, Moments, Stream, transpose};

/// Purpose number of the streams that actions are sampled from.
const STREAM_ACTION: u32 = 4;

/// Environments of one thread's piece of work.
pub(crate) struct Shard {
    pub(crate) env: VecEnv,
    pub(crate) rngs: Vec<Stream>,
    pub(crate) seen: Moments,
    pub(crate) actor: Actor,
    /// Number of the shard's first environment in the run.
    pub(crate) first: usize,
    /// Samples whose states are to be kept, in order, and their states.
    pub(crate) keep: Vec<u32>,
    pub(crate) kept: Vec<Vec<f64>>,
}

impl Shard {
    pub(crate) fn new(env: VecEnv, first: usize, model: &ActorCritic, seed: u64) -> Self {
        let (spec, b) = (env.spec(), env.len());
        let obs_dim = spec.observation.obs_dim();
        Self {
            actor: Actor::new(model, spec, b),
            rngs: (0..b).map(|i| Stream::new(seed, STREAM_ACTION, (first + i) as u32)).collect(),
            seen: Moments::new(obs_dim),
            first,
            keep: Vec::new(),
            kept: Vec::new(),
            env,
        }
    }

    pub(crate) fn collect(
        &mut self,
        model: &ActorCritic,
        norm: Option<&ObsNormalizer>,
        data: &mut Samples,
        steps: usize,
    ) -> Result<(), AgentError> {
        self.env.clear_finished();
        data.cut.clear();
        data.cut_obs.clear();
        self.seen.clear();
        self.kept.clear();
        let b = self.env.len();
        if let Some(states) = &mut data.states {
            states.begin(b);
        }
        for t in 0..steps {
            self.keep_states(t)?;
            if norm.is_some() {
                self.seen.add_cols(self.env.obs());
            }
            if let Some(states) = &mut data.states {
                states.keep(t, &self.actor.state, b);
            }
            self.step(model, norm, data, t)?;
        }
        self.actor.look(self.env.obs(), norm);
        transpose(&self.actor.obs, &mut data.last_obs, b);
        Ok(())
    }

    /// One step of every environment, stored as row `t`.
    pub(crate) fn step(
        &mut self,
        model: &ActorCritic,
        norm: Option<&ObsNormalizer>,
        data: &mut Samples,
        t: usize,
    ) -> Result<(), AgentError> {
        self.look(norm, data, t);
        self.act(model, data, t, |params, _, rngs, actions| model.dist().sample(params, rngs, actions))?;
        self.advance(norm, data, t)
    }

    /// Stores the observations of step `t`.
    pub(crate) fn look(&mut self, norm: Option<&ObsNormalizer>, data: &mut Samples, t: usize) {
        let b = self.env.len();
        self.actor.look(self.env.obs(), norm);
        store(&self.actor.obs, &mut data.obs, t, b);
    }

    /// Does what was decided in step `t`, and stores what came of it.
    pub(crate) fn advance(
        &mut self,
        norm: Option<&ObsNormalizer>,
        data: &mut Samples,
        t: usize,
    ) -> Result<(), AgentError> {
        let b = self.env.len();
        let rows = t * b..(t + 1) * b;
        self.actor.take(&mut self.env)?;
        for (to, r) in data.reward[rows.clone()].iter_mut().zip(self.env.rewards()) {
            *to = *r as f32;
        }
        data.ends[rows.clone()].copy_from_slice(self.env.ends());
        for i in 0..b {
            if self.env.ends()[i] == End::Truncated {
                data.cut.push((rows.start + i) as u32);
                let from = data.cut_obs.len();
                let obs = self.env.final_obs();
                data.cut_obs.extend((0..obs.rows()).map(|d| obs.at(d, i)));
                if let Some(norm) = norm {
                    norm.apply_one(&mut data.cut_obs[from..]);
                }
            }
        }
        Ok(())
    }

    /// Lets `draw` choose the actions of step `t`, from the policy's parameters, the masks and the streams,
    /// and stores them with their log-probabilities under the policy.
    pub(crate) fn act(
        &mut self,
        model: &ActorCritic,
        data: &mut Samples,
        t: usize,
        draw: impl FnOnce(Cols<'_, f32>, Option<Cols<'_, bool>>, &mut [Stream], ActionsMut<'_, f32>),
    ) -> Result<(), AgentError> {
        let Self { actor, env, rngs, .. } = self;
        let (b, dist) = (env.len(), model.dist());
        actor.forward(model, &model.theta[model.actor().params.clone()]);
        actor.choose_in(env, dist, |params, mask, actions| draw(params, mask, rngs, actions))?;
        actor.logp(dist, &mut data.logp[t * b..(t + 1) * b]);
        actor.remember();
        store(&actor.masks, &mut data.masks, t, b);
        store(&actor.index, &mut data.index_actions, t, b);
        store(&actor.real, &mut data.real_actions, t, b);
        if !data.params.is_empty() {
            store(&actor.params, &mut data.params, t, b);
        }
        Ok(())
    }

    /// Keeps the states of the samples of row `t` that were asked for.
    pub(crate) fn keep_states(&mut self, t: usize) -> Result<(), AgentError> {
        let b = self.env.len();
        while let Some(sample) = self.keep.get(self.kept.len()).filter(|i| **i as usize / b == t) {
            let env = *sample as usize % b;
            let (id, first) = (&self.env.spec().id, self.first);
            let state =
                self.env.state(env).ok_or_else(|| EnvError::NoState { id: id.clone(), env: first + env })?;
            self.kept.push(state);
        }
        Ok(())
    }
}

/// Writes columns `[dim x B]` as the rows of step `t`.
fn store<T: Copy>(columns: &[T], rows: &mut [T], t: usize, b: usize) {
    let n = columns.len();
    transpose(columns, &mut rows[t * n..(t + 1) * n], b);
}
