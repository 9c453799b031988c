//! An environment that remembers what it showed and what was done to it, and a model in `f64` over what it
//! remembers: the outside view of a rollout.
#![allow(dead_code, unreachable_pub, reason = "several test binaries share it, each uses a part")]

use pgrad_env::{Action, BatchResult, BoxSpace, Each, End, Env, EnvSpec, Obs, Part, Space, Step};
use pgrad_math::dist::Actions;
use pgrad_model::ActorCritic;
use pgrad_num::{Cols, Stream};
use std::sync::{Arc, Mutex};

/// Numbers of an observation.
pub const OBS: usize = 3;

/// One step, as the environment saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub obs: Vec<f32>,
    pub mask: Vec<bool>,
    pub index: Vec<u32>,
    pub real: Vec<f32>,
    pub reward: f64,
    pub end: End,
    /// The observation that followed: the final one where the episode ended.
    pub next: Vec<f32>,
    /// The mask of that observation.
    pub next_mask: Vec<bool>,
}

/// The steps of each environment of a run.
pub type Log = Arc<Mutex<Vec<Vec<Seen>>>>;

/// What a [`Recorder`] is.
#[derive(Clone)]
pub struct Task {
    pub action: Space,
    pub masked: bool,
    pub limit: Option<u32>,
    /// Factor on the rewards.
    pub scale: f64,
    /// Factor on the observations.
    pub obs_scale: f32,
    pub log: Log,
}

impl Task {
    pub fn new(action: Space, masked: bool, limit: Option<u32>) -> Self {
        Self { action, masked, limit, scale: 1.0, obs_scale: 1.0, log: Log::default() }
    }
    pub fn make(&self) -> impl Fn(usize) -> BatchResult + use<> {
        let task = self.clone();
        Each::maker(move || Recorder {
            task: task.clone(),
            number: None,
            obs: vec![0.0; OBS],
            mask: Vec::new(),
            elapsed: 0,
        })
    }
}

/// Random observations, masks, rewards and endings.
pub struct Recorder {
    task: Task,
    /// Counted by first starts: environments that are made and never started do not count.
    number: Option<usize>,
    obs: Vec<f32>,
    mask: Vec<bool>,
    elapsed: u32,
}

impl Recorder {
    fn draw(&mut self, rng: &mut Stream) {
        self.obs = (0..OBS).map(|_| self.task.obs_scale * rng.normal() as f32).collect();
        self.mask = vec![true; self.task.action.mask_dim()];
        if self.task.masked {
            let mut from = 0;
            for n in self.task.action.choices() {
                let kept = rng.below(n as u32) as usize;
                for i in 0..n {
                    self.mask[from + i] = i == kept || rng.below(3) > 0;
                }
                from += n;
            }
        }
    }
}

impl Env for Recorder {
    fn spec(&self) -> EnvSpec {
        EnvSpec {
            id: "Recorder".into(),
            observation: BoxSpace::unbounded(OBS).into(),
            action: self.task.action.clone(),
            max_episode_steps: self.task.limit,
            reward_threshold: None,
            masks_actions: self.task.masked,
        }
    }
    fn reset(&mut self, rng: &mut Stream, obs: &mut Obs<'_>) {
        if self.number.is_none() {
            let mut log = self.task.log.lock().unwrap();
            self.number = Some(log.len());
            log.push(Vec::new());
        }
        self.elapsed = 0;
        self.draw(rng);
        obs.write(&self.obs);
    }
    fn step(&mut self, action: Action<'_>, rng: &mut Stream, obs: &mut Obs<'_>) -> Step {
        let (shown, mask) = (self.obs.clone(), self.mask.clone());
        self.draw(rng);
        self.elapsed += 1;
        let reward = self.task.scale * (rng.normal() + 0.3);
        let terminated = rng.below(12) == 0;
        let truncated = self.task.limit.is_some_and(|l| self.elapsed >= l);
        let (index, real) = match action {
            Action::Discrete(i) => (vec![i as u32], Vec::new()),
            Action::MultiDiscrete(a) | Action::MultiBinary(a) => (a.to_vec(), Vec::new()),
            Action::Box(a) => (Vec::new(), a.to_vec()),
            Action::Product { choices, numbers } => (choices.to_vec(), numbers.to_vec()),
        };
        let end = match (terminated, truncated) {
            (true, _) => End::Terminated,
            (false, true) => End::Truncated,
            (false, false) => End::Running,
        };
        let (next, next_mask) = (self.obs.clone(), self.mask.clone());
        let seen = Seen { obs: shown, mask, index, real, reward, end, next, next_mask };
        self.task.log.lock().unwrap()[self.number.unwrap()].push(seen);
        obs.write(&self.obs);
        // The time limit is not the environment's business.
        Step { reward, end: if terminated { End::Terminated } else { End::Running } }
    }
    fn action_mask(&self, mask: &mut [bool]) {
        mask.copy_from_slice(&self.mask);
    }
}

/// Every kind of action space, and masks where they have a meaning.
pub fn tasks(limit: Option<u32>) -> Vec<Task> {
    vec![
        Task::new(Space::Discrete { n: 4 }, false, limit),
        Task::new(Space::Discrete { n: 4 }, true, limit),
        Task::new(Space::MultiDiscrete { nvec: vec![2, 3] }, false, limit),
        Task::new(Space::MultiDiscrete { nvec: vec![3, 2] }, true, limit),
        Task::new(Space::MultiBinary { n: 3 }, false, limit),
        Task::new(Space::Box(BoxSpace::unbounded(2)), false, limit),
        Task::new(hybrid(), false, limit),
        Task::new(hybrid(), true, limit),
    ]
}

/// Switches, choices and numbers, with numbers between the choices.
pub fn hybrid() -> Space {
    let part = |(name, space): (&str, Space)| Part { name: name.to_owned(), space };
    let parts = [
        ("lamp", Space::MultiBinary { n: 1 }),
        ("aim", Space::Box(BoxSpace::unbounded(1))),
        ("gear", Space::Discrete { n: 3 }),
        ("grip", Space::MultiDiscrete { nvec: vec![2, 2] }),
        ("push", Space::Box(BoxSpace::unbounded(1))),
    ];
    Space::Product { parts: parts.map(part).to_vec() }
}

/// Samples side by side, columns as the library has them.
pub struct Batch {
    pub n: usize,
    pub obs: Vec<f64>,
    pub next: Vec<f64>,
    pub mask: Option<Vec<bool>>,
    pub index: Vec<u32>,
    pub real: Vec<f64>,
    /// What policy and critic remember before the first sample; none without a memory. With it the samples
    /// are the steps of a sequence.
    pub memory: Memory,
}

/// States of the policy's and the critic's network.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    pub actor: Vec<f64>,
    /// The policy's, where both share a trunk.
    pub critic: Vec<f64>,
}

/// A tape for `n` samples: side by side, or the steps of a sequence that starts from `state`.
fn tape(net: &pgrad_nn::Network, state: &[f64], n: usize) -> pgrad_nn::NetworkTape<f64> {
    if state.is_empty() {
        return net.tape(n);
    }
    let mut tape = net.tape_of(n, 1);
    tape.begin(n, Cols::new(state, state.len(), 1), &vec![false; n]);
    tape
}

fn columns<T: Copy>(rows: &[Vec<T>]) -> Vec<T> {
    (0..rows[0].len()).flat_map(|d| rows.iter().map(move |row| row[d])).collect()
}

impl Batch {
    pub fn new(seen: &[Seen], masked: bool) -> Self {
        let wide = |x: &[f32]| x.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
        let all = |f: &dyn Fn(&Seen) -> Vec<f64>| columns(&seen.iter().map(f).collect::<Vec<_>>());
        Self {
            n: seen.len(),
            obs: all(&|s| wide(&s.obs)),
            next: all(&|s| wide(&s.next)),
            mask: masked.then(|| columns(&seen.iter().map(|s| s.mask.clone()).collect::<Vec<_>>())),
            index: columns(&seen.iter().map(|s| s.index.clone()).collect::<Vec<_>>()),
            real: all(&|s| wide(&s.real)),
            memory: Memory::default(),
        }
    }
    /// The distribution's parameters, `[n_outputs x n]`.
    pub fn params(&self, model: &ActorCritic, theta: &[f64]) -> Vec<f64> {
        let (part, dist, n) = (model.actor(), model.dist(), self.n);
        let mut tape = tape(&part.net, &self.memory.actor, n);
        let x = Cols::new(&self.obs, OBS, n);
        let out = part.net.forward(&theta[part.params.clone()], x, &mut tape).into_data();
        let rows = model.policy_rows();
        let mut out = pgrad_num::ColsMut::new(&mut out[rows.start * n..rows.end * n], dist.n_outputs(), n);
        let mask_rows = dist.mask_rows();
        dist.prepare(out.reborrow(), self.mask.as_ref().map(|m| Cols::new(m, mask_rows, n)));
        out.into_data().to_vec()
    }
    /// `KL(π_old ‖ π_θ)` in the state of each sample.
    pub fn kl(&self, model: &ActorCritic, old: &[f64], theta: &[f64]) -> Vec<f64> {
        let (rows, mut kl) = (model.dist().n_outputs(), vec![0.0; self.n]);
        let (old, new) = (self.params(model, old), self.params(model, theta));
        model.dist().kl(Cols::new(&old, rows, self.n), Cols::new(&new, rows, self.n), &mut kl);
        kl
    }
    /// `log π_θ(a|s)` and `S[π_θ](s)` of each sample.
    pub fn policy(&self, model: &ActorCritic, theta: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let (dist, n) = (model.dist(), self.n);
        let params = self.params(model, theta);
        let params = Cols::new(&params, dist.n_outputs(), n);
        let actions = Actions {
            index: Cols::new(&self.index, dist.index_rows(), n),
            real: Cols::new(&self.real, dist.real_rows(), n),
        };
        let (mut logp, mut entropy) = (vec![0.0; n], vec![0.0; n]);
        dist.logp(params, actions, &mut logp);
        dist.entropy(params, &mut entropy);
        (logp, entropy)
    }
    /// `V_θ(s)` of the given observations.
    pub fn values(&self, model: &ActorCritic, theta: &[f64], obs: &[f64]) -> Vec<f64> {
        let part = model.critic();
        let mut tape = tape(&part.net, &self.memory.critic, self.n);
        let x = Cols::new(obs, OBS, self.n);
        part.net.forward(&theta[part.params.clone()], x, &mut tape).into_data()[..self.n].to_vec()
    }
}

pub fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|v| f64::from(*v)).collect()
}

/// `|a - b|` at the worst element over the largest `|b|`.
pub fn relative_difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let largest = b.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, |m: f64, d| if d.is_nan() { d } else { m.max(d) })
        / largest
}
