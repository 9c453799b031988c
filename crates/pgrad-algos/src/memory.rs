//! How much memory a run takes, by part, computed from its sizes before any of it is taken.
//!
//! Each sum here mirrors what a constructor allocates; a test of the runner (`tests/memory.rs`) compares them
//! with what is allocated. Whole episodes, whose length nobody knows, and the state of environments are not
//! counted.

use pgrad_env::{EnvSpec, Episode};
use pgrad_model::{ActorCritic, CHUNK, action_rows, mask_rows};
use pgrad_nn::Network;

/// Bytes of a number.
const NUMBER: f64 = 4.0;
/// Partial sums of a batch, at most.
const LANES: usize = pgrad_engine::LANES;

/// What one part of a run takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Need {
    /// The part.
    pub part: &'static str,
    /// Bytes.
    pub bytes: f64,
    /// What makes it smaller: settings, or what else it depends on.
    pub depends_on: &'static str,
}

/// What a run takes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Needs(Vec<Need>);

impl Needs {
    /// The parts, the largest first.
    #[must_use]
    pub fn parts(&self) -> &[Need] {
        &self.0
    }
    /// Bytes of all parts.
    #[must_use]
    pub fn bytes(&self) -> f64 {
        self.0.iter().map(|need| need.bytes).sum()
    }
    /// These parts.
    #[must_use]
    pub fn of(mut parts: Vec<Need>) -> Self {
        parts.sort_by(|a, b| b.bytes.total_cmp(&a.bytes));
        Self(parts)
    }
}

/// Adds up what a method takes.
pub(crate) struct Sizes<'a> {
    model: &'a ActorCritic,
    env: &'a EnvSpec,
    threads: f64,
    parts: Vec<Need>,
    /// Bytes that a checkpoint holds.
    saved: f64,
}

/// What `net` remembers of `samples` samples.
fn tape(net: &Network, samples: usize) -> f64 {
    NUMBER * net.tape_len() as f64 * samples as f64
}

impl<'a> Sizes<'a> {
    /// Of a method with a model like `model`, `envs` environments like `env`, and `threads` threads.
    pub(crate) fn new(model: &'a ActorCritic, env: &'a EnvSpec, envs: usize, threads: usize) -> Self {
        let actor = &model.actor().net;
        let obs = NUMBER * model.shape().obs_dim as f64;
        let mut sizes = Self { model, env, threads: threads as f64, parts: Vec::new(), saved: 0.0 };
        // Observation and final observation, the actor's own, and what the task writes.
        sizes.add("environments", envs as f64 * (tape(actor, 1) + 4.0 * obs), "n_envs");
        sizes
    }
    fn add(&mut self, part: &'static str, bytes: f64, depends_on: &'static str) {
        self.parts.push(Need { part, bytes, depends_on });
    }
    fn n_params(&self) -> f64 {
        self.model.n_params() as f64
    }
    /// Bytes of the passes of `samples` samples through all networks, their inputs included.
    fn passes(&self, samples: usize) -> f64 {
        let input = NUMBER * self.model.shape().obs_dim as f64 * samples as f64;
        let critic = if self.model.has_critic() { &self.model.critic().net } else { &self.model.actor().net };
        tape(&self.model.actor().net, samples) + tape(critic, samples) + input
    }
    /// So many vectors over all parameters, of which a checkpoint holds `saved`.
    pub(crate) fn vectors(mut self, vectors: usize, saved: usize) -> Self {
        let one = NUMBER * self.n_params();
        self.add("parameters, gradient and step rule", vectors as f64 * one, "hidden");
        self.saved += saved as f64 * one;
        self
    }
    /// A batch of `n_steps` steps of `n_envs` environments, and the passes that value them.
    pub(crate) fn rollout(mut self, n_envs: usize, n_steps: usize, envs_per_shard: usize) -> Self {
        let (env, model) = (self.env, self.model);
        let samples = n_envs as f64 * n_steps as f64;
        let obs = NUMBER * env.observation.obs_dim() as f64;
        let (index, real) = action_rows(env);
        // Log-probability, ratio, reward, two values, carry, advantage, target; the end, its place and value;
        // an episode may end, a minibatch takes it.
        let scalars = 8.0 * NUMBER + 1.0 + 3.0 * NUMBER + size_of::<Episode>() as f64;
        let each = obs + NUMBER * (index + real) as f64 + mask_rows(env) as f64 + scalars;
        let states = model.recurrence().map_or(0.0, |r| {
            let critic = if model.is_separate() { model.critic().net.state_rows() } else { 0 };
            NUMBER * (model.actor().net.state_rows() + critic + 3) as f64 / r.sequence_length as f64
        });
        // Room for final observations, and the pieces that are valued.
        let cut = pgrad_engine::cuts(env, n_envs, n_steps) as f64 * obs;
        self.add("rollout", samples * (each + states + 5.0) + cut, "n_steps, n_envs, the observation's size");
        let walk = |length| self.passes(length * envs_per_shard) + self.passes(CHUNK.max(envs_per_shard));
        let walks = model.recurrence().map_or(0.0, |r| walk(r.sequence_length));
        let values = self.threads * (self.passes(CHUNK) + walks);
        self.add("passes that value a batch", values, "hidden, --threads");
        self
    }
    /// Gradients over minibatches of up to `most` samples.
    pub(crate) fn gradients(mut self, most: usize) -> Self {
        let chunk = self.model.chunk(most).samples();
        let lanes = LANES.min(most.div_ceil(chunk)).max(1);
        self.add("partial gradients", NUMBER * self.n_params() * lanes as f64, "hidden");
        self.add("passes of a minibatch", self.threads * self.passes(chunk), "hidden, --threads");
        self
    }
    /// The Kronecker factors of the curvature.
    pub(crate) fn curvature(mut self) -> Self {
        let own = self.model.actor().net.affine().iter();
        let critic = self.model.is_separate().then(|| self.model.critic().net.affine());
        let (mut squares, mut largest) = (0.0, 0.0f64);
        for layer in own.chain(critic.iter().copied().flatten()) {
            let (rows, cols) = (layer.rows as f64, layer.cols as f64 + 1.0);
            squares += rows * rows + cols * cols;
            largest = largest.max(rows * cols);
        }
        // Sums in single precision in every lane; moments, averages and factors in double.
        let bytes = squares * (NUMBER * LANES as f64 + 3.0 * 8.0) + 2.0 * 8.0 * largest;
        self.add("curvature", bytes, "hidden, the observation's size");
        self.add("passes of the curvature", self.threads * self.passes(CHUNK), "hidden, --threads");
        self.saved += squares * 8.0;
        self
    }
    /// The policy's problem over `samples` samples.
    pub(crate) fn local(mut self, samples: usize) -> Self {
        let (net, dist) = (&self.model.actor().net, self.model.dist());
        let floats = net.tape_len() + if net.jacobian_pays() { net.jacobian_len() } else { 0 };
        let room = self.model.chunk(samples.div_ceil(2)).samples() as f64;
        let each =
            self.model.shape().obs_dim + 2 * dist.n_outputs() + dist.index_rows() + dist.real_rows() + 6;
        let passes = NUMBER * floats as f64;
        let kept = (samples as f64 * passes).min(pgrad_engine::KEPT_BYTES as f64);
        let samples = samples as f64 * (NUMBER * each as f64 + dist.mask_rows() as f64) + kept;
        self.add("policy's local problem", samples + self.threads * room * passes, "n_steps, n_envs, hidden");
        let vectors = (LANES + 6) as f64;
        self.add("products with the Fisher matrix", NUMBER * vectors * net.n_params() as f64, "hidden");
        self
    }
    /// Traces over all parameters for each environment.
    pub(crate) fn traces(mut self, n_envs: usize) -> Self {
        let bytes = NUMBER * self.n_params() * n_envs as f64;
        self.add("traces", bytes, "n_envs, hidden");
        self.saved += bytes;
        self
    }
    /// Candidates for the policy's parameters.
    pub(crate) fn candidates(mut self, n: usize) -> Self {
        self.add("candidates", NUMBER * self.n_params() * n as f64, "population, hidden");
        self
    }
    /// Actor-learners, each with so many vectors over all parameters and a segment of `n_steps` steps.
    pub(crate) fn learners(mut self, workers: usize, vectors: usize, n_steps: usize) -> Self {
        let vectors = NUMBER * self.n_params() * vectors as f64;
        let aside = self.model.shape().obs_dim as f64 * NUMBER * 2.0;
        let bytes = vectors + 1.5 * self.passes(n_steps) + aside * n_steps as f64;
        self.add("actor-learners", workers as f64 * bytes, "workers, n_steps, hidden");
        self
    }
    /// All of it, and what is kept to be saved: the state, its bytes, the file, and the policy beside it.
    pub(crate) fn all(mut self) -> Needs {
        let policy = NUMBER * self.n_params();
        self.add("what is kept to be saved", 4.0 * self.saved + 2.0 * policy, "hidden");
        Needs::of(self.parts)
    }
}
