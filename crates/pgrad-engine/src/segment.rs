//! The steps that an actor-learner takes between two looks at the shared parameters, and what networks make
//! of them.

use crate::{Transition, bootstrap::after_step, memory::bits_agree};
use pgrad_env::{End, EnvSpec};
use pgrad_math::dist::Actions;
use pgrad_model::{ActorCritic, AgentError, action_rows, load_state, mask_rows};
use pgrad_nn::NetworkTape;
use pgrad_num::{Cols, ColsMut, Record, RecordError};

/// The steps `t_start..t` that an actor-learner takes with one copy of the parameters: up to `t_max`, fewer
/// where an episode ends.
#[derive(Debug)]
pub struct Segment {
    t_max: usize,
    len: usize,
    obs: Field<f32>,
    /// `s_{i+1}`: the final observation where the episode ended.
    next_obs: Field<f32>,
    index: Field<u32>,
    real: Field<f32>,
    masks: Field<bool>,
    /// Log-probabilities that the actions were drawn with.
    logp: Vec<f32>,
    reward: Vec<f32>,
    end: End,
    /// Environment, episode and step of the first step.
    place: (usize, u64, u32),
}

/// One kind of numbers: gathered as rows, worked on as columns.
#[derive(Debug)]
struct Field<T> {
    dim: usize,
    rows: Vec<T>,
    columns: Vec<T>,
}

impl<T: Copy> Field<T> {
    fn new(dim: usize, t_max: usize, zero: T) -> Self {
        Self { dim, rows: vec![zero; dim * t_max], columns: vec![zero; dim * t_max] }
    }
    fn row(&self, i: usize) -> &[T] {
        &self.rows[i * self.dim..(i + 1) * self.dim]
    }
    fn set(&mut self, i: usize, row: &[T]) {
        self.rows[i * self.dim..(i + 1) * self.dim].copy_from_slice(row);
    }
    fn transpose(&mut self, n: usize) {
        for d in 0..self.dim {
            for (i, to) in self.columns[d * n..(d + 1) * n].iter_mut().enumerate() {
                *to = self.rows[i * self.dim + d];
            }
        }
    }
    fn cols(&self, n: usize) -> Cols<'_, T> {
        Cols::new(&self.columns[..self.dim * n], self.dim, n)
    }
}

impl Segment {
    /// An empty segment of up to `t_max` steps.
    #[must_use]
    pub fn new(spec: &EnvSpec, t_max: usize) -> Self {
        let (index_rows, real_rows) = action_rows(spec);
        let dim = spec.observation.obs_dim();
        Self {
            t_max,
            len: 0,
            obs: Field::new(dim, t_max, 0.0),
            next_obs: Field::new(dim, t_max, 0.0),
            index: Field::new(index_rows, t_max, 0),
            real: Field::new(real_rows, t_max, 0.0),
            masks: Field::new(mask_rows(spec), t_max, true),
            logp: vec![0.0; t_max],
            reward: vec![0.0; t_max],
            end: End::Running,
            place: (0, 0, 0),
        }
    }
    /// Forgets all steps.
    pub fn clear(&mut self) {
        self.len = 0;
        self.end = End::Running;
    }
    /// Adds a step.
    ///
    /// # Panics
    /// When the segment is over.
    pub fn push(&mut self, t: &Transition<'_>) {
        assert!(!self.is_over(), "a segment ends with its episode, or after t_max steps");
        let i = self.len;
        if i == 0 {
            self.place = (t.env, t.episode, t.step);
        }
        self.obs.set(i, t.obs.data());
        self.next_obs.set(i, t.next_obs.data());
        self.index.set(i, t.action.index.data());
        self.real.set(i, t.action.real.data());
        if let Some(mask) = t.mask {
            self.masks.set(i, mask.data());
        }
        self.logp[i] = t.logp;
        self.reward[i] = t.reward;
        self.end = t.end;
        self.len = i + 1;
        if self.is_over() {
            self.obs.transpose(self.len);
            self.next_obs.transpose(self.len);
            self.index.transpose(self.len);
            self.real.transpose(self.len);
            self.masks.transpose(self.len);
        }
    }
    /// Whether it has all its steps: `t − t_start = t_max`, or the episode ended. Views of batches are for
    /// segments that are over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.len == self.t_max || self.end != End::Running
    }
    /// Number of steps, `t − t_start`.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether there are no steps.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// How the last step ended.
    #[must_use]
    pub fn end(&self) -> End {
        self.end
    }
    /// `s_i`, `[obs_dim x len]`.
    #[must_use]
    pub fn obs(&self) -> Cols<'_, f32> {
        self.obs.cols(self.len)
    }
    /// `s_{i+1}`, `[obs_dim x len]`: the last one is the final observation where the episode ended.
    #[must_use]
    pub fn next_obs(&self) -> Cols<'_, f32> {
        self.next_obs.cols(self.len)
    }
    /// `s_t`, what followed the last step, `[obs_dim x 1]`.
    ///
    /// # Panics
    /// When there are no steps.
    #[must_use]
    pub fn last_obs(&self) -> Cols<'_, f32> {
        Cols::new(self.next_obs.row(self.len - 1), self.next_obs.dim, 1)
    }
    /// `a_i`, a column each.
    #[must_use]
    pub fn actions(&self) -> Actions<'_, f32> {
        Actions { index: self.index.cols(self.len), real: self.real.cols(self.len) }
    }
    /// `a_i` of a discrete space.
    ///
    /// # Panics
    /// With real actions.
    #[must_use]
    pub fn action(&self, i: usize) -> usize {
        self.index.row(i)[0] as usize
    }
    /// Which alternatives were allowed in `s_i`; `None` without masks.
    #[must_use]
    pub fn mask(&self) -> Option<Cols<'_, bool>> {
        (self.masks.dim > 0).then(|| self.masks.cols(self.len))
    }
    /// `log π(a_i|s_i)` when `a_i` was drawn.
    #[must_use]
    pub fn drawn_logp(&self) -> &[f32] {
        &self.logp[..self.len]
    }
    /// `r_i`.
    #[must_use]
    pub fn reward(&self, i: usize) -> f32 {
        self.reward[i]
    }
    /// The value of what follows step `i`, of which `value` is the value of `s_{i+1}`: 0 after a terminal
    /// state. `bootstrap_truncated` as in [`resolve`](crate::bootstrap::resolve).
    #[must_use]
    pub fn after(&self, i: usize, value: f32, bootstrap_truncated: bool) -> f32 {
        let end = if i + 1 == self.len { self.end } else { End::Running };
        after_step(end, value, bootstrap_truncated)
    }
    /// `value`, which belongs to step `i` and which the error calls `what`.
    ///
    /// # Errors
    /// When it is not finite.
    pub fn finite(&self, what: &'static str, i: usize, value: f32) -> Result<f32, AgentError> {
        if value.is_finite() {
            return Ok(value);
        }
        let (env, episode, first) = self.place;
        Err(AgentError::Step { what, env, episode, step: first + i as u32, value })
    }
}

/// Networks at work on the steps of a segment.
///
/// A recurrent network takes a segment as one sequence. What it starts from is kept: the policy's state is
/// the one it acted with ([`SegmentPasses::begin`]), the critic's is found in the forward passes of the
/// segments, one after the other ([`SegmentPasses::go_on`]). Gradients go back to the first step of a segment
/// and no further; what an earlier `θ′` remembered is not computed again.
#[derive(Debug)]
pub struct SegmentPasses {
    actor: NetworkTape<f32>,
    critic: Option<NetworkTape<f32>>,
    /// For values that nothing flows back through.
    aside: NetworkTape<f32>,
    /// What policy and critic remember before the first step; empty without a memory, the critic's with a
    /// shared trunk.
    actor_state: Vec<f32>,
    critic_state: Vec<f32>,
    /// What the critic remembers behind the last step.
    after: Vec<f32>,
    /// No episode ends inside a segment.
    fresh: Vec<bool>,
    d_out: Vec<f32>,
    v: Vec<f32>,
    logp: Vec<f32>,
    entropy: Vec<f32>,
    flops: u64,
}

/// What policy and critic say of the steps of a segment.
#[derive(Debug)]
pub struct SegmentOutputs<'a> {
    /// `V(s_i)`.
    pub v: &'a [f32],
    /// `log π(a_i|s_i)`.
    pub logp: &'a [f32],
    /// `H(π(·|s_i))`.
    pub entropy: &'a [f32],
}

impl SegmentPasses {
    /// For segments of up to `t_max` steps.
    #[must_use]
    pub fn new(model: &ActorCritic, t_max: usize) -> Self {
        let critic = model.is_separate().then(|| model.critic().net.tape_of(t_max, 1));
        let aside = if model.has_critic() { model.critic() } else { model.actor() };
        Self {
            actor: model.actor().net.tape_of(t_max, 1),
            critic_state: vec![0.0; if critic.is_some() { model.critic().net.state_rows() } else { 0 }],
            critic,
            actor_state: vec![0.0; model.actor().net.state_rows()],
            after: vec![0.0; aside.net.state_rows()],
            fresh: vec![false; t_max],
            aside: aside.net.tape(t_max),
            d_out: vec![0.0; model.actor().net.n_outputs() * t_max],
            v: vec![0.0; t_max],
            logp: vec![0.0; t_max],
            entropy: vec![0.0; t_max],
            flops: 0,
        }
    }
    /// Floating-point operations in matrix products since this was last asked.
    pub fn take_flops(&mut self) -> u64 {
        std::mem::take(&mut self.flops)
    }
    /// A segment begins; the policy remembers `state` (`[state_rows]`, none without a memory).
    ///
    /// # Panics
    /// When `state` has another size.
    pub fn begin(&mut self, state: &[f32]) {
        self.actor_state.copy_from_slice(state);
    }
    /// The critic goes on from where the last [`SegmentPasses::forward`] left it, over the steps of `s`;
    /// where the episode ended it forgets.
    pub fn go_on(&mut self, s: &Segment) {
        let rows = self.critic_state.len();
        if let Some(tape) = &mut self.critic
            && rows > 0
            && !s.is_empty()
        {
            tape.last_state(ColsMut::new(&mut self.critic_state, rows, 1));
            if s.end() != End::Running {
                self.critic_state.fill(0.0);
            }
        }
    }
    /// Saves what the critic remembers between two segments, if it remembers anything.
    pub fn save(&self, to: &mut Record) {
        if !self.critic_state.is_empty() {
            to.put("critic_state", self.critic_state.clone());
        }
    }
    /// Restores what [`SegmentPasses::save`] saved; forgets it when the environments do not continue exactly.
    ///
    /// # Errors
    /// When the record does not fit.
    pub fn load(&mut self, from: &Record, exact: bool) -> Result<(), RecordError> {
        if self.critic_state.is_empty() {
            return Ok(());
        }
        load_state(from, "critic_state", exact, &mut self.critic_state)
    }
    /// `V(s_t)` of what followed the last step of `s`, over which [`SegmentPasses::forward`] has just been;
    /// where the episode was cut, of its final observation, with what was remembered until then.
    pub fn value(&mut self, model: &ActorCritic, s: &Segment) -> f32 {
        let rows = self.after.len();
        if rows > 0 {
            let tape = self.critic.as_mut().unwrap_or(&mut self.actor);
            tape.last_state(ColsMut::new(&mut self.after, rows, 1));
            self.aside.begin(1, Cols::new(&self.after, rows, 1), &self.fresh[..1]);
        }
        self.flops += model.value_flops() as u64;
        model.values(s.last_obs(), &mut self.aside)[0]
    }
    /// Policy and critic over all steps: [`SegmentPasses::outputs`].
    ///
    /// The parameters of `model` are those that the actions were drawn with, so that the log-probabilities
    /// are, bit for bit, those of then. Builds with debug assertions look whether a recurrent policy's are.
    pub fn forward(&mut self, model: &ActorCritic, s: &Segment) {
        let n = s.len();
        let dist = model.dist();
        let critic = if self.critic.is_some() { model.value_flops() } else { 0 };
        self.flops += (n * (model.actor().net.forward_flops() + critic)) as u64;
        for (tape, state) in
            [(Some(&mut self.actor), &self.actor_state), (self.critic.as_mut(), &self.critic_state)]
        {
            if let Some(tape) = tape
                && !state.is_empty()
            {
                tape.begin(n, Cols::new(state, state.len(), 1), &self.fresh[..n]);
            }
        }
        // With a shared trunk the value is row 0 of the outputs, and the policy's rows follow.
        let (out, v) = if let Some(tape) = &mut self.critic {
            let v = &model.values(s.obs(), tape)[..n];
            (model.policy_outputs(s.obs(), &mut self.actor), v)
        } else {
            let theta = &model.theta[model.actor().params.clone()];
            let all = model.actor().net.forward(theta, s.obs(), &mut self.actor).into_data();
            let (v, out) = all.split_at_mut(n);
            (ColsMut::new(out, dist.n_outputs(), n), &*v)
        };
        self.v[..n].copy_from_slice(v);
        let mut params = out;
        dist.prepare(params.reborrow(), s.mask());
        dist.logp(params.as_cols(), s.actions(), &mut self.logp[..n]);
        dist.entropy(params.as_cols(), &mut self.entropy[..n]);
        debug_assert!(
            self.actor_state.is_empty() || bits_agree(&self.logp[..n], s.drawn_logp()),
            "the log-probabilities are those that the actions were drawn with"
        );
    }
    /// What the last [`SegmentPasses::forward`], over `n` steps, found.
    ///
    /// # Panics
    /// When a segment has fewer steps.
    #[must_use]
    pub fn outputs(&self, n: usize) -> SegmentOutputs<'_> {
        SegmentOutputs { v: &self.v[..n], logp: &self.logp[..n], entropy: &self.entropy[..n] }
    }
    /// Adds `Σ_i d_logp_i ∇ log π(a_i|s_i) + d_entropy_i ∇H_i + d_v_i ∇V(s_i)` of the last
    /// [`SegmentPasses::forward`] to `d_theta`.
    ///
    /// # Panics
    /// When a length does not fit.
    pub fn backward(
        &mut self,
        model: &ActorCritic,
        s: &Segment,
        d_logp: &[f32],
        d_entropy: &[f32],
        d_v: &[f32],
        d_theta: &mut [f32],
    ) {
        let (n, dist) = (s.len(), model.dist());
        let rows = model.policy_rows();
        let critic = if self.critic.is_some() { model.critic().net.vjp_flops() } else { 0 };
        self.flops += (n * (model.actor().net.vjp_flops() + critic)) as u64;
        let policy = rows.start * n..rows.end * n;
        let d_out = &mut self.d_out[..rows.end * n];
        d_out.fill(0.0);
        let params = Cols::new(&self.actor.outputs()[policy.clone()], rows.len(), n);
        let d_policy = ColsMut::new(&mut d_out[policy], rows.len(), n);
        dist.logp_entropy_vjp(params, s.actions(), d_logp, d_entropy, d_policy);
        if let Some(tape) = &mut self.critic {
            let (net, range) = (&model.critic().net, model.critic().params.clone());
            let d_v = Cols::new(d_v, 1, n);
            net.vjp(&model.theta[range.clone()], s.obs(), tape, d_v, &mut d_theta[range], None);
        } else {
            d_out[..n].copy_from_slice(d_v);
        }
        let (net, range) = (&model.actor().net, model.actor().params.clone());
        let d_out = Cols::new(d_out, rows.end, n);
        net.vjp(&model.theta[range.clone()], s.obs(), &mut self.actor, d_out, &mut d_theta[range], None);
    }
    /// `Q(s_i, a)` of all steps and actions, `[n_actions x len]`, of a model whose policy's outputs are
    /// action values.
    pub fn q(&mut self, model: &ActorCritic, s: &Segment) -> Cols<'_, f32> {
        self.flops += (s.len() * model.actor().net.forward_flops()) as u64;
        let out = model.policy_outputs(s.obs(), &mut self.actor);
        let (rows, cols) = (out.rows(), out.cols());
        Cols::new(out.into_data(), rows, cols)
    }
    /// `Q(s, a)` of all actions in `obs`, `[n_actions x cols]`, with the parameters `theta` in place of the
    /// model's; nothing flows back.
    ///
    /// # Panics
    /// When there are more columns than a segment has steps.
    pub fn q_aside(&mut self, model: &ActorCritic, theta: &[f32], obs: Cols<'_, f32>) -> Cols<'_, f32> {
        self.flops += (obs.cols() * model.actor().net.forward_flops()) as u64;
        let out = model.actor().net.forward(theta, obs, &mut self.aside);
        let (rows, cols) = (out.rows(), out.cols());
        Cols::new(out.into_data(), rows, cols)
    }
    /// Adds `Σ_i d_q_i ∇Q(s_i, a_i)` of the last [`SegmentPasses::q`] to `d_theta`.
    ///
    /// # Panics
    /// When a length does not fit.
    pub fn q_backward(&mut self, model: &ActorCritic, s: &Segment, d_q: &[f32], d_theta: &mut [f32]) {
        let (n, rows) = (s.len(), model.dist().n_outputs());
        self.flops += (n * model.actor().net.vjp_flops()) as u64;
        let d_out = &mut self.d_out[..rows * n];
        d_out.fill(0.0);
        for (i, d) in d_q[..n].iter().enumerate() {
            d_out[s.action(i) * n + i] = *d;
        }
        let d_out = Cols::new(d_out, rows, n);
        model.actor().net.vjp(&model.theta, s.obs(), &mut self.actor, d_out, d_theta, None);
    }
}
