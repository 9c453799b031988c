//! A vine: its `Q̂` against dynamic programming, its surrogate against the formula in `f64`, its gradient
//! against the exact expectation; common random numbers, the rollout set, steps, threads, resuming.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

use pgrad_collect::{Collector, RolloutShape, VineActions, VineShape};
use pgrad_engine::{Cpu, Engine, Fisher};
use pgrad_env::{Action, BoxSpace, Each, End, Env, EnvError, EnvSpec, Obs, Space, Step};
use pgrad_math::dist::Actions;
use pgrad_model::{ActorCritic, AgentError, Critic, ModelShape, ObsNormalizer, RewardNormalizer, Trunk};
use pgrad_nn::Activation;
use pgrad_num::{Cols, Stream};
use pgrad_optim::{Local, LocalMetric, LocalTrial};
use pgrad_testkit::{Dense, finite_difference_gradient, finite_difference_jvp, random_vector};

const GAMMA: f64 = 0.9;

fn model(obs_dim: usize, action: Space, hidden: &[usize]) -> ActorCritic {
    let shape = ModelShape {
        obs_dim,
        action,
        hidden: hidden.to_vec(),
        activation: Activation::Tanh,
        trunk: Trunk::Separate,
        critic: Critic::None,
        log_std_init: -0.4,
    };
    let mut model = ActorCritic::new(shape, true, 5).unwrap();
    let mut rng = Stream::new(9, 0, 0);
    model.theta.iter_mut().for_each(|x| *x += 0.5 * rng.normal() as f32);
    model
}

const TRUNK: RolloutShape =
    RolloutShape { n_envs: 5, n_steps: 24, envs_per_shard: 2, bootstrap_truncated: true };

fn vine(n_states: usize, actions: VineActions, length: usize) -> VineShape {
    VineShape { n_states, actions, length, gamma: GAMMA }
}

fn grow<E: Env + Clone + 'static>(
    env: &E,
    model: &ActorCritic,
    shape: VineShape,
    threads: usize,
) -> Collector {
    let (make, cpu) = (&Each::maker(|| env.clone()), Cpu::new(threads).unwrap());
    let mut collector = Collector::vine(TRUNK, shape, make, model, (None, None), 3, &cpu).unwrap();
    collector.start().unwrap();
    collector
}

/// An engine with room for the local problem of `samples` states.
fn engine(model: &ActorCritic, samples: usize) -> Engine {
    Engine::new(&Cpu::new(1).unwrap()).with_local_problem(model, samples)
}

fn spec(id: &str, obs: usize, action: Space, limit: Option<u32>, masks_actions: bool) -> EnvSpec {
    let observation = BoxSpace::unbounded(obs).into();
    EnvSpec {
        id: id.into(),
        observation,
        action,
        max_episode_steps: limit,
        reward_threshold: None,
        masks_actions,
    }
}

/// Three places and three ways; the last place sometimes ends it. The observation is the place, one-hot.
#[derive(Clone, Default)]
struct Places {
    at: usize,
    limit: Option<u32>,
}

/// Mean reward, probability of ending, probabilities of the next place.
fn places(s: usize, a: usize) -> (f64, f64, [f64; 3]) {
    let stay = [0.1, 0.2, 0.7][(s + a) % 3];
    let next = match a {
        0 => [stay, 1.0 - stay, 0.0],
        1 => [0.0, stay, 1.0 - stay],
        _ => [1.0 - stay, 0.0, stay],
    };
    let reward = [[1.0, -1.0, 0.5], [0.0, 2.0, -2.0], [3.0, 0.3, -0.7]][s][a];
    (reward, if s == 2 { 0.3 } else { 0.0 }, next)
}

impl Env for Places {
    fn spec(&self) -> EnvSpec {
        spec("Places", 3, Space::Discrete { n: 3 }, self.limit, false)
    }
    fn reset(&mut self, rng: &mut Stream, obs: &mut Obs<'_>) {
        self.at = rng.below(3) as usize;
        obs.write_one_hot(self.at);
    }
    fn step(&mut self, action: Action<'_>, rng: &mut Stream, obs: &mut Obs<'_>) -> Step {
        let (reward, ends, next) = places(self.at, action.index());
        let (u, noise, over) = (rng.uniform(), rng.normal(), rng.uniform() < ends);
        self.at = if u < next[0] {
            0
        } else if u < next[0] + next[1] {
            1
        } else {
            2
        };
        obs.write_one_hot(self.at);
        Step { reward: reward + noise, end: if over { End::Terminated } else { End::Running } }
    }
    fn save(&self) -> Option<Vec<f64>> {
        Some(vec![self.at as f64])
    }
    fn load(&mut self, state: &[f64]) -> bool {
        self.at = state[0] as usize;
        true
    }
}

/// `π(a|s)` of the places, in `f64`.
fn policy(model: &ActorCritic, theta: &[f64]) -> [[f64; 3]; 3] {
    let mut tape = model.actor().net.tape::<f64>(3);
    let x = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
    let mut out = model.actor().net.forward(theta, Cols::new(&x, 3, 3), &mut tape);
    model.dist().prepare(out.reborrow(), None);
    std::array::from_fn(|s| std::array::from_fn(|a| out.as_cols().at(a, s).exp()))
}

/// `Q_L(s, a)`: the expected discounted rewards of at most `L` steps.
fn exact_q(pi: &[[f64; 3]; 3], length: usize) -> [[f64; 3]; 3] {
    let mut q = [[0.0; 3]; 3];
    for _ in 0..length {
        let v: [f64; 3] = std::array::from_fn(|s| (0..3).map(|a| pi[s][a] * q[s][a]).sum());
        q = std::array::from_fn(|s| {
            std::array::from_fn(|a| {
                let (reward, ends, next) = places(s, a);
                reward + GAMMA * (1.0 - ends) * (0..3).map(|n| next[n] * v[n]).sum::<f64>()
            })
        });
    }
    q
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|v| f64::from(*v)).collect()
}

/// Mean and its standard error.
fn mean(x: &[f64]) -> (f64, f64) {
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    (mean, (x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0) / n).sqrt())
}

#[test]
fn q_is_the_expected_return_of_so_many_steps_whatever_the_time_limit() {
    let model = model(3, Space::Discrete { n: 3 }, &[4]);
    let pi = policy(&model, &wide(&model.theta));
    for (actions, length) in [
        (VineActions::Every, 1),
        (VineActions::Every, 4),
        (VineActions::Policy(5), 4),
        (VineActions::Uniform(3), 7),
    ] {
        // A limit of two steps: episodes of the trunk are cut, rollouts are not.
        let env = Places { limit: Some(2), ..Places::default() };
        let mut collector = grow(&env, &model, vine(100, actions, length), 1);
        // One value for each state: the rollouts of one are not independent.
        let mut q: [[Vec<f64>; 3]; 3] = Default::default();
        for _ in 0..120 {
            collector.collect(&model).unwrap();
            let mut last = (usize::MAX, 0);
            for b in collector.branches() {
                let (s, a) = (b.obs.iter().position(|x| *x == 1.0).unwrap(), b.index_action[0] as usize);
                if (b.state, a) != last {
                    q[s][a].push(f64::from(b.q));
                }
                last = (b.state, a);
            }
        }
        // Rollouts that were cut by the limit would have this answer; those of one step have another one than
        // of two.
        let (exact, wrong) = (exact_q(&pi, length), exact_q(&pi, 2));
        let mut far = 0;
        for (s, row) in q.iter().enumerate() {
            for (a, samples) in row.iter().enumerate() {
                let (got, error) = mean(samples);
                let off = (got - exact[s][a]) / error;
                assert!(
                    samples.len() > 100 && off.abs() < 4.0,
                    "{actions:?} {s} {a}: {got}, {}",
                    exact[s][a]
                );
                far += usize::from(((got - wrong[s][a]) / error).abs() > 6.0);
            }
        }
        assert!(far > 0, "{actions:?} {length}: another length would be another answer");
    }
}

/// The expected gradient of `L_n` in place `s`, over all first actions that may be drawn, given `Q`.
fn expected_gradient(model: &ActorCritic, actions: VineActions, q: &[[f64; 3]; 3], s: usize) -> Vec<f64> {
    let theta = wide(&model.theta);
    let pi = policy(model, &theta)[s];
    let score: Vec<Vec<f64>> =
        (0..3).map(|a| finite_difference_gradient(|t| policy(model, t)[s][a].ln(), &theta)).collect();
    let tuples: Vec<(Vec<usize>, f64)> = match actions {
        VineActions::Every => vec![(vec![0, 1, 2], 1.0)],
        VineActions::Policy(2) => (0..9).map(|i| (vec![i / 3, i % 3], pi[i / 3] * pi[i % 3])).collect(),
        VineActions::Uniform(2) => (0..9).map(|i| (vec![i / 3, i % 3], 1.0 / 9.0)).collect(),
        other => panic!("{other:?}"),
    };
    let mut gradient = vec![0.0; theta.len()];
    for (tuple, p) in tuples {
        let weight = |a: usize| if matches!(actions, VineActions::Policy(_)) { 1.0 } else { pi[a] };
        let sum: f64 = tuple.iter().map(|a| weight(*a)).sum();
        let v: f64 = tuple.iter().map(|a| weight(*a) * q[s][*a] / sum).sum();
        for a in tuple {
            let factor = p * weight(a) / sum * (q[s][a] - v);
            gradient.iter_mut().zip(&score[a]).for_each(|(g, d)| *g += factor * d);
        }
    }
    gradient
}

#[test]
fn the_gradient_is_that_of_the_estimator_and_with_every_action_the_policy_gradient_itself() {
    let model = model(3, Space::Discrete { n: 3 }, &[]);
    let theta = wide(&model.theta);
    let pi = policy(&model, &theta);
    let q = exact_q(&pi, 3);
    for actions in [VineActions::Every, VineActions::Policy(2), VineActions::Uniform(2)] {
        let expected: Vec<Vec<f64>> = (0..3).map(|s| expected_gradient(&model, actions, &q, s)).collect();
        let mut collector = grow(&Places::default(), &model, vine(96, actions, 3), 1);
        let mut engine = engine(&model, 96);
        let n = theta.len();
        let mut off = vec![Vec::new(); n];
        for _ in 0..400 {
            let data = collector.collect(&model).unwrap().of_vine();
            let mut g = vec![0.0f32; n];
            engine.local(&model, &data, Fisher::KlHessian, false, 1).gradient(&mut g);
            let k = collector.branches().count() / 96;
            let states: Vec<usize> = collector
                .branches()
                .step_by(k)
                .map(|b| b.obs.iter().position(|x| *x == 1.0).unwrap())
                .collect();
            for i in 0..n {
                let want = states.iter().map(|s| expected[*s][i]).sum::<f64>() / 96.0;
                off[i].push(f64::from(g[i]) - want);
            }
        }
        for (i, off) in off.iter().enumerate() {
            let (mean, error) = mean(off);
            assert!(mean.abs() < 4.5 * error + 1e-6, "{actions:?} {i}: off by {mean} ± {error}");
        }
        // What is expected is worth the name: it is far from 0, and that of every action is Σ_a ∇π Q.
        let largest = expected.iter().flatten().fold(0.0f64, |m, x| m.max(x.abs()));
        let precise = off.iter().map(|o| mean(o).1).fold(0.0, f64::max);
        assert!(largest > 15.0 * precise, "{actions:?}: {largest} {precise}");
        for (s, expected) in expected.iter().enumerate() {
            let exact = finite_difference_gradient(
                |t| (0..3).map(|a| policy(&model, t)[s][a] * q[s][a]).sum(),
                &theta,
            );
            // Self-normalised, K = 2 draws from the policy: 1 − 1/K of it.
            let factor = match actions {
                VineActions::Every => 1.0,
                VineActions::Policy(k) => 1.0 - 1.0 / k as f64,
                VineActions::Uniform(_) => continue,
            };
            for (e, x) in expected.iter().zip(&exact) {
                assert!((e - factor * x).abs() < 1e-6 * largest, "{actions:?}: {e} {x}");
            }
        }
    }
}

/// The observation says nothing, rewards are noisy, and later draws depend on nothing but the stream.
#[derive(Clone)]
struct Noise {
    action: Space,
}

impl Env for Noise {
    fn spec(&self) -> EnvSpec {
        spec("Noise", 1, self.action.clone(), None, false)
    }
    fn reset(&mut self, _: &mut Stream, obs: &mut Obs<'_>) {
        obs.write(&[0.3]);
    }
    fn step(&mut self, action: Action<'_>, rng: &mut Stream, obs: &mut Obs<'_>) -> Step {
        obs.write(&[0.3]);
        let a = match action {
            Action::Discrete(i) => i as f64,
            Action::Box(x) => f64::from(x[0]),
            other => panic!("{other:?}"),
        };
        Step { reward: a + 10.0 * rng.normal(), end: End::Running }
    }
    fn save(&self) -> Option<Vec<f64>> {
        Some(Vec::new())
    }
    fn load(&mut self, _: &[f64]) -> bool {
        true
    }
}

#[test]
fn rollouts_of_one_state_differ_by_their_first_action_alone() {
    for (action, actions) in [
        (Space::Discrete { n: 4 }, VineActions::Every),
        (Space::Discrete { n: 4 }, VineActions::Policy(6)),
        (Space::Box(BoxSpace::unbounded(1)), VineActions::Policy(3)),
    ] {
        let model = model(1, action.clone(), &[]);
        let mut collector = grow(&Noise { action }, &model, vine(40, actions, 30), 1);
        let mut iterations = Vec::new();
        for _ in 0..2 {
            collector.collect(&model).unwrap();
            let branches: Vec<(usize, f64, f64)> = collector
                .branches()
                .map(|b| {
                    let a =
                        b.index_action.first().map_or_else(|| f64::from(b.real_action[0]), |i| f64::from(*i));
                    (b.state, a, f64::from(b.q))
                })
                .collect();
            let k = branches.len() / 40;
            let mut rest = Vec::new();
            for own in branches.chunks_exact(k) {
                // Whatever is not the first action is the same number for all of them.
                let after: Vec<f64> = own.iter().map(|(_, a, q)| q - a).collect();
                assert!(own.iter().all(|b| b.0 == own[0].0));
                assert!(after.iter().all(|x| (x - after[0]).abs() < 2e-4), "{after:?}");
                rest.push(after[0]);
            }
            // And another one in each state and iteration: a standard deviation of about 10/√(1 − γ²).
            let spread = mean(&rest).1 * 40f64.sqrt();
            assert!((10.0..40.0).contains(&spread), "{spread}");
            let firsts: Vec<f64> = branches.iter().map(|b| b.1).collect();
            if actions != VineActions::Every {
                assert!(firsts.chunks_exact(k).any(|c| c.iter().any(|a| *a != c[0])), "drawn one by one");
            }
            iterations.push((rest, firsts));
        }
        assert_ne!(iterations[0].0, iterations[1].0);
        assert!(actions == VineActions::Every || iterations[0].1 != iterations[1].1);
    }
}

/// A random walk through observations of three numbers with any kind of actions, with masks where it is told.
#[derive(Clone)]
struct Wander {
    action: Space,
    masked: bool,
    /// What is shown, and the seed of the mask.
    state: [f64; 4],
}

impl Wander {
    fn draw(&mut self, rng: &mut Stream, obs: &mut Obs<'_>) {
        self.state = [rng.normal(), rng.normal(), rng.normal(), f64::from(rng.below(1 << 20))];
        obs.write_f64(&self.state[..3]);
    }
}

impl Env for Wander {
    fn spec(&self) -> EnvSpec {
        spec("Wander", 3, self.action.clone(), Some(7), self.masked)
    }
    fn reset(&mut self, rng: &mut Stream, obs: &mut Obs<'_>) {
        self.draw(rng, obs);
    }
    fn step(&mut self, action: Action<'_>, rng: &mut Stream, obs: &mut Obs<'_>) -> Step {
        let a = match action {
            Action::Discrete(i) => i as f64,
            Action::MultiDiscrete(a) | Action::MultiBinary(a) => a.iter().map(|x| f64::from(*x)).sum(),
            Action::Box(a) => a.iter().map(|x| f64::from(*x)).sum(),
            Action::Product { choices, numbers } => {
                let choices = choices.iter().map(|x| f64::from(*x)).sum::<f64>();
                choices + numbers.iter().map(|x| f64::from(*x)).sum::<f64>()
            }
        };
        if let (true, Action::Discrete(i)) = (self.masked, action) {
            let mut mask = [true; 4];
            self.action_mask(&mut mask);
            assert!(mask[i], "a forbidden action was taken");
        }
        let reward = a * self.state[0] + rng.normal();
        self.draw(rng, obs);
        Step { reward, end: if rng.below(10) == 0 { End::Terminated } else { End::Running } }
    }
    fn action_mask(&self, mask: &mut [bool]) {
        let seed = self.state[3] as usize;
        let (n, kept) = (mask.len(), seed % mask.len());
        let first = match &self.action {
            Space::MultiDiscrete { nvec } => nvec[0],
            _ => n,
        };
        // At least one of each choice is left.
        for i in 0..n {
            mask[i] = i == kept || i == 0 || i == first || (seed >> i) & 1 == 0;
        }
    }
    fn save(&self) -> Option<Vec<f64>> {
        Some(self.state.to_vec())
    }
    fn load(&mut self, state: &[f64]) -> bool {
        self.state.copy_from_slice(state);
        true
    }
}

/// Every kind of actions with every kind of first actions that it has.
fn cases() -> Vec<(Wander, VineActions)> {
    let wander = |action, masked| Wander { action, masked, state: [0.0; 4] };
    let mut all = Vec::new();
    for (action, masked) in [
        (Space::Discrete { n: 4 }, false),
        (Space::Discrete { n: 4 }, true),
        (Space::MultiDiscrete { nvec: vec![2, 3] }, true),
        (Space::MultiBinary { n: 3 }, false),
        (Space::Box(BoxSpace::unbounded(2)), false),
    ] {
        if matches!(action, Space::Discrete { .. }) {
            all.push((wander(action.clone(), masked), VineActions::Every));
        }
        if !matches!(action, Space::Box(_)) {
            all.push((wander(action.clone(), masked), VineActions::Uniform(3)));
        }
        all.push((wander(action, masked), VineActions::Policy(3)));
    }
    all
}

const STATES: usize = 83;

/// The surrogate and the divergence of a vine from their definitions, in `f64`.
struct Slow<'a> {
    model: &'a ActorCritic,
    collector: &'a Collector,
    k: usize,
    x: Vec<f64>,
    mask: Option<Vec<bool>>,
    theta_old: Vec<f64>,
}

impl<'a> Slow<'a> {
    fn new(model: &'a ActorCritic, env: &Wander, collector: &'a Collector, states: &[usize]) -> Self {
        let k = collector.branches().count() / STATES;
        let n = states.len();
        let branches: Vec<_> = collector.branches().collect();
        let mut x = vec![0.0; 3 * n];
        let dim = env.action.mask_dim();
        let mut mask = vec![true; dim * n];
        for (j, state) in states.iter().enumerate() {
            for d in 0..3 {
                x[d * n + j] = f64::from(branches[state * k].obs[d]);
            }
        }
        // The masks are known to the environment alone; the root's are in what is forbidden: weights of 0.
        let masked = env.masked && matches!(env.action, Space::Discrete { .. }) && k == 4;
        if masked {
            for (j, state) in states.iter().enumerate() {
                for a in 0..4 {
                    mask[a * n + j] = branches[state * k + a].weight > 0.0;
                }
            }
        }
        Self { model, collector, k, x, mask: masked.then_some(mask), theta_old: wide(&model.theta) }
    }
    fn n(&self) -> usize {
        self.x.len() / 3
    }
    fn params(&self, theta: &[f64]) -> Vec<f64> {
        let (net, dist, n) = (&self.model.actor().net, self.model.dist(), self.n());
        let mut tape = net.tape::<f64>(n);
        let mut out = net.forward(theta, Cols::new(&self.x, 3, n), &mut tape);
        dist.prepare(out.reborrow(), self.mask.as_ref().map(|m| Cols::new(m, dist.mask_rows(), n)));
        out.into_data().to_vec()
    }
    /// `L(θ) − L(θ_old)`, with a scale.
    fn surrogate(&self, theta: &[f64]) -> f64 {
        let (dist, n, k) = (self.model.dist(), self.n(), self.k);
        let params = [self.params(theta), self.params(&self.theta_old)];
        let mut sums = vec![[0.0; 4]; n];
        for (i, b) in self.collector.branches().enumerate() {
            if b.weight == 0.0 {
                continue;
            }
            let one: Vec<Vec<f64>> =
                params.iter().map(|p| (0..dist.n_outputs()).map(|r| p[r * n + i / k]).collect()).collect();
            let logp: Vec<f64> = one
                .iter()
                .map(|p| {
                    let real = wide(b.real_action);
                    let actions = Actions {
                        index: Cols::new(b.index_action, dist.index_rows(), 1),
                        real: Cols::new(&real, dist.real_rows(), 1),
                    };
                    let mut logp = [0.0];
                    dist.logp(Cols::new(p, dist.n_outputs(), 1), actions, &mut logp);
                    logp[0]
                })
                .collect();
            let (w, q, r) = (f64::from(b.weight), f64::from(b.q), (logp[0] - logp[1]).exp());
            let s = &mut sums[i / k];
            (s[0], s[1], s[2], s[3]) = (s[0] + w * r * q, s[1] + w * r, s[2] + w * q, s[3] + w);
        }
        sums.iter().map(|s| s[0] / s[1] - s[2] / s[3]).sum::<f64>() / n as f64
    }
    fn kl(&self, theta: &[f64]) -> Vec<f64> {
        let (rows, n) = (self.model.dist().n_outputs(), self.n());
        let (old, new) = (self.params(&self.theta_old), self.params(theta));
        let mut kl = vec![0.0; n];
        self.model.dist().kl(Cols::new(&old, rows, n), Cols::new(&new, rows, n), &mut kl);
        kl
    }
}

fn close(what: &str, got: &[f64], expected: &[f64], tolerance: f64) {
    let largest = expected.iter().fold(1e-9f64, |m, x| m.max(x.abs()));
    for (g, e) in got.iter().zip(expected) {
        assert!((g - e).abs() <= tolerance * largest, "{what}: {got:?} {expected:?}");
    }
}

#[test]
fn surrogate_gradient_metric_and_divergence_are_those_of_the_definitions() {
    for (env, actions) in cases() {
        // Where the mask of a state cannot be told from outside, the test of thread counts and probes must
        // do.
        if env.masked && actions != VineActions::Every {
            continue;
        }
        let what = format!("{} {actions:?}", env.action);
        let model = model(3, env.action.clone(), &[4]);
        let mut collector = grow(&env, &model, vine(STATES, actions, 3), 1);
        let data = collector.collect(&model).unwrap().of_vine();
        assert_eq!(data.len(), STATES);
        let mut engines = [engine(&model, 1), engine(&model, 1)];
        let [first, second] = &mut engines;
        let mut local = first.local(&model, &data, Fisher::KlHessian, false, 1);
        let mut by_scores = second.local(&model, &data, Fisher::Empirical, false, 1);
        let slow = Slow::new(&model, &env, &collector, &(0..STATES).collect::<Vec<_>>());
        let mut g = vec![0.0f32; model.theta.len()];
        let old = local.gradient(&mut g);
        assert!(old.abs() < 1e-4, "relative to the old policy: {old}");
        let expected = finite_difference_gradient(|t| slow.surrogate(t), &slow.theta_old);
        close(&what, &wide(&g), &expected, 1e-3);
        for (i, size) in [0.1, 0.5].into_iter().enumerate() {
            let direction = random_vector(i as u64, model.theta.len());
            let theta: Vec<f32> =
                model.theta.iter().zip(&direction).map(|(t, d)| t + (size * d) as f32).collect();
            let trial = local.trial(&theta);
            let kl = slow.kl(&wide(&theta));
            let got = [trial.surrogate - old, trial.kl, trial.largest_kl];
            let mean_kl = kl.iter().sum::<f64>() / STATES as f64;
            let expected =
                [slow.surrogate(&wide(&theta)), mean_kl, kl.iter().fold(0.0, |m: f64, x| m.max(*x))];
            for (g, e) in got.iter().zip(expected) {
                assert!((g - e).abs() < 1e-4 + 2e-3 * e.abs(), "{what}: {got:?} {expected:?}");
            }
        }
        // The metric is that of the states; the covariance of the scores that of the actions, by their
        // weights.
        let v = random_vector(7, model.theta.len());
        let v32: Vec<f32> = v.iter().map(|x| *x as f32).collect();
        let mut fv = vec![0.0f32; v.len()];
        local.fisher_mul(&v32, &mut fv);
        let kl_gradient =
            |t: &[f64]| finite_difference_gradient(|t| slow.kl(t).iter().sum::<f64>() / STATES as f64, t);
        let dim = v.len();
        let expected = finite_difference_jvp(
            |t, out: &mut [f64]| out.copy_from_slice(&kl_gradient(t)),
            &slow.theta_old,
            &v,
            dim,
        );
        close(&what, &wide(&fv), &expected, 5e-3);
        let mut empirical = vec![0.0f32; dim];
        by_scores.fisher_mul(&v32, &mut empirical);
        if actions == VineActions::Every {
            // The expectation over all actions: the same matrix.
            close(&what, &wide(&empirical), &wide(&fv), 1e-4);
        } else {
            let scores = scores(&slow);
            let outer = Dense::from_fn(dim, dim, |i, j| {
                let each = scores.iter().map(|(w, s)| w * s[i] * s[j]);
                each.sum::<f64>() / STATES as f64
            });
            close(&what, &wide(&empirical), &outer.mul(&v), 2e-3);
        }
    }
}

/// Weight and `∇ log π_old(a|s)` of each branch.
fn scores(slow: &Slow<'_>) -> Vec<(f64, Vec<f64>)> {
    let (dist, n, k) = (slow.model.dist(), slow.n(), slow.k);
    let each = |i: usize, b: pgrad_collect::Branch<'_>| {
        let real = wide(b.real_action);
        let index = b.index_action.to_vec();
        let logp = |theta: &[f64]| {
            let params = slow.params(theta);
            let one: Vec<f64> = (0..dist.n_outputs()).map(|r| params[r * n + i / k]).collect();
            let actions = Actions {
                index: Cols::new(&index, dist.index_rows(), 1),
                real: Cols::new(&real, dist.real_rows(), 1),
            };
            let mut logp = [0.0];
            dist.logp(Cols::new(&one, dist.n_outputs(), 1), actions, &mut logp);
            logp[0]
        };
        (f64::from(b.weight), finite_difference_gradient(logp, &slow.theta_old))
    };
    slow.collector.branches().enumerate().map(|(i, b)| each(i, b)).collect()
}

#[test]
fn advantages_are_scaled_by_their_weighted_deviation() {
    for (env, actions) in cases() {
        let model = model(3, env.action.clone(), &[4]);
        let mut collector = grow(&env, &model, vine(STATES, actions, 3), 1);
        collector.collect(&model).unwrap();
        let mut gradients = [false, true].map(|normalize| {
            let mut engine = engine(&model, STATES);
            let data = collector.batch().of_vine();
            let mut g = vec![0.0f32; model.theta.len()];
            engine.local(&model, &data, Fisher::KlHessian, normalize, 1).gradient(&mut g);
            wide(&g)
        });
        let branches: Vec<_> = collector.branches().collect();
        let k = branches.len() / STATES;
        let mut variance = 0.0;
        for own in branches.chunks_exact(k) {
            let sum: f64 = own.iter().map(|b| f64::from(b.weight)).sum();
            assert!((sum - 1.0).abs() < 1e-5, "weights of a state: {sum}");
            let v: f64 = own.iter().map(|b| f64::from(b.weight * b.q)).sum();
            variance += own.iter().map(|b| f64::from(b.weight) * (f64::from(b.q) - v).powi(2)).sum::<f64>();
        }
        let std = (variance / STATES as f64).sqrt();
        gradients[1].iter_mut().for_each(|g| *g *= std);
        close("scaled", &gradients[1], &gradients[0], 1e-3);
    }
}

#[test]
fn the_number_of_threads_does_not_change_a_bit_and_a_saved_vine_goes_on() {
    type Bits = Vec<(Vec<u32>, Vec<u32>, u32, u32)>;
    let bits = |collector: &Collector| -> Bits {
        collector
            .branches()
            .map(|b| {
                let real = b.real_action.iter().chain(b.obs).map(|x| x.to_bits()).collect();
                (b.index_action.to_vec(), real, b.weight.to_bits(), b.q.to_bits())
            })
            .collect()
    };
    for (env, actions) in cases() {
        let model = model(3, env.action.clone(), &[4]);
        let run = |threads: usize| {
            let mut collector = grow(&env, &model, vine(STATES, actions, 3), threads);
            let mut all = Vec::new();
            for _ in 0..3 {
                collector.collect(&model).unwrap();
                all.push((bits(&collector), collector.store().steps()));
            }
            all
        };
        let one = run(1);
        assert!(one[0].0 != one[1].0);
        assert!(run(2) == one && run(4) == one, "{} {actions:?}", env.action);
        let mut whole = grow(&env, &model, vine(STATES, actions, 3), 1);
        whole.collect(&model).unwrap();
        let mut resumed = grow(&env, &model, vine(STATES, actions, 3), 1);
        assert!(resumed.load(&whole.save()).unwrap());
        resumed.collect(&model).unwrap();
        assert!(bits(&resumed) == one[1].0, "{} {actions:?}", env.action);
    }
}

/// Shows which environment it is and how many steps it did since the beginning; each episode has five.
#[derive(Clone)]
struct Clockwork {
    steps: f64,
    episode: f64,
}

impl Env for Clockwork {
    fn spec(&self) -> EnvSpec {
        spec("Clockwork", 2, Space::Discrete { n: 2 }, None, false)
    }
    fn reset(&mut self, _: &mut Stream, obs: &mut Obs<'_>) {
        self.episode = 0.0;
        obs.write_f64(&[self.steps, self.episode]);
    }
    fn step(&mut self, _: Action<'_>, _: &mut Stream, obs: &mut Obs<'_>) -> Step {
        (self.steps, self.episode) = (self.steps + 1.0, self.episode + 1.0);
        obs.write_f64(&[self.steps, self.episode]);
        Step { reward: 1.0, end: if self.episode == 5.0 { End::Terminated } else { End::Running } }
    }
    fn save(&self) -> Option<Vec<f64>> {
        Some(vec![self.steps, self.episode])
    }
    fn load(&mut self, state: &[f64]) -> bool {
        (self.steps, self.episode) = (state[0], state[1]);
        true
    }
}

#[test]
fn the_rollout_set_is_spread_over_the_trunk_and_every_step_is_counted() {
    let model = model(2, Space::Discrete { n: 2 }, &[]);
    // 120 steps, 40 states: one of every three; a rollout has what is left of an episode, but three at most.
    let mut collector =
        grow(&Clockwork { steps: 0.0, episode: 0.0 }, &model, vine(40, VineActions::Every, 3), 1);
    let mut counts = [0usize; 24];
    for iteration in 0..200 {
        collector.collect(&model).unwrap();
        let mut expected = 0;
        // Shards of 2, 2 and 1 environments: 48, 48 and 24 samples, and 16, 16 and 8 states of them.
        for (i, b) in collector.branches().enumerate() {
            let step = b.obs[0] as usize - 24 * iteration;
            let piece = i / 2 % 16;
            let width = if i / 2 < 32 { 48 / 16 / 2 } else { 3 };
            if i / 2 < 32 {
                assert!(step >= 3 * piece / 2 && step <= (3 * piece + 2) / 2, "{i}: {step}");
            } else {
                assert!((3 * piece..3 * piece + 3).contains(&step), "{i}: {step} {width}");
            }
            counts[step] += 1;
            let left = (5 - b.obs[1] as usize).min(3);
            assert_eq!(b.q, (0..left).map(|t| GAMMA.powi(t as i32)).sum::<f64>() as f32);
            expected += left;
        }
        assert_eq!(collector.store().steps(), 120 + expected as u64);
        // The trunk's episodes are the only ones that count.
        assert!(collector.finished().all(|e| e.length == 5) && collector.finished().count() <= 5 * 5);
    }
    // 200 iterations, 2 rollouts, 5 environments of which every third state is taken.
    assert!(counts.iter().all(|c| (500..830).contains(c)), "{counts:?}");
}

#[test]
fn forbidden_actions_have_no_rollout_and_the_others_the_probabilities_of_the_policy() {
    let env = Wander { action: Space::Discrete { n: 4 }, masked: true, state: [0.0; 4] };
    let model = model(3, env.action.clone(), &[4]);
    let mut collector = grow(&env, &model, vine(STATES, VineActions::Every, 1), 1);
    collector.collect(&model).unwrap();
    let branches: Vec<_> = collector.branches().collect();
    let mut forbidden = 0;
    for own in branches.chunks_exact(4) {
        let mut tape = model.actor().net.tape(1);
        let logits = model.policy_outputs(Cols::new(own[0].obs, 3, 1), &mut tape).into_data().to_vec();
        let total: f32 = own.iter().zip(&logits).filter(|(b, _)| b.weight > 0.0).map(|(_, l)| l.exp()).sum();
        for (a, b) in own.iter().enumerate() {
            if b.weight == 0.0 {
                forbidden += 1;
                assert_eq!(b.q, 0.0);
            } else {
                assert_eq!(b.index_action, [a as u32]);
                assert!((b.weight - logits[a].exp() / total).abs() < 1e-5);
            }
        }
    }
    assert!(forbidden > 20);
    assert_eq!(collector.store().steps(), 120 + (4 * STATES - forbidden) as u64);
}

#[test]
fn observations_and_rewards_are_normalised_as_along_the_trunk() {
    let env = Noise { action: Space::Discrete { n: 4 } };
    let model = model(1, env.action.clone(), &[]);
    let make = &Each::maker(|| env.clone());
    let run = |norm: bool| {
        let obs = norm.then(|| ObsNormalizer::new(1, 10.0));
        let reward = norm.then(|| RewardNormalizer::new(5, GAMMA, 1e6));
        let shape = vine(40, VineActions::Every, 1);
        let mut collector =
            Collector::vine(TRUNK, shape, make, &model, (obs, reward), 3, &Cpu::new(1).unwrap()).unwrap();
        collector.start().unwrap();
        let mut obs = Vec::new();
        for _ in 0..2 {
            collector.collect(&model).unwrap();
            obs.push(collector.branches().next().unwrap().obs[0]);
        }
        (obs, collector.branches().map(|b| f64::from(b.q)).collect::<Vec<_>>())
    };
    let ((raw_obs, raw), (obs, scaled)) = (run(false), run(true));
    assert_eq!(raw_obs, [0.3, 0.3]);
    // The first iteration knows nothing of the observations, the second one that they are always the same.
    assert!(obs[0] != 0.0 && obs[1].abs() < 1e-3, "{obs:?}");
    let scale = scaled[0] / raw[0];
    assert!(scale < 0.2, "{scale}");
    assert!(raw.iter().zip(&scaled).all(|(r, s)| (s - scale * r).abs() < 1e-4));
}

/// Cannot be saved once it has moved.
#[derive(Clone)]
struct Forgetful {
    moved: bool,
}

impl Env for Forgetful {
    fn spec(&self) -> EnvSpec {
        spec("Forgetful", 1, Space::Discrete { n: 2 }, None, false)
    }
    fn reset(&mut self, _: &mut Stream, obs: &mut Obs<'_>) {
        obs.write(&[0.0]);
    }
    fn step(&mut self, _: Action<'_>, _: &mut Stream, obs: &mut Obs<'_>) -> Step {
        self.moved = true;
        obs.write(&[0.0]);
        Step { reward: 0.0, end: End::Running }
    }
    fn save(&self) -> Option<Vec<f64>> {
        (!self.moved).then(Vec::new)
    }
    fn load(&mut self, _: &[f64]) -> bool {
        true
    }
}

#[test]
fn a_state_that_cannot_be_kept_is_named() {
    let model = model(1, Space::Discrete { n: 2 }, &[]);
    let mut collector = grow(&Forgetful { moved: false }, &model, vine(60, VineActions::Every, 1), 1);
    let error = collector.collect(&model).unwrap_err();
    assert!(matches!(error, AgentError::Env(EnvError::NoState { .. })), "{error:?}");
    assert!(error.to_string().contains("Forgetful") && error.to_string().contains("save"), "{error}");
}
