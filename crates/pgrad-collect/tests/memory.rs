//! Recurrent models in a collector and an engine, against one network that is taken through each
//! environment's whole history in `f64`, step by step, and forgets where an episode ended; and the bits of a
//! first pass.

#![expect(clippy::unwrap_used, reason = "helpers of tests may stop a test")]

mod common;

use common::{OBS, Seen, Task, relative_difference, tasks, wide};
use pgrad_collect::{Collector, RolloutShape};
use pgrad_engine::{
    Cpu, Engine, Estimated, Fisher, Minibatch, Minibatches, Objective, Paths, PolicyChunk, PolicyTerm,
    ValueChunk, ValueTerm,
};
use pgrad_env::{Action, BoxSpace, Each, End, Env, EnvSpec, Obs, Space, Step};
use pgrad_math::dist::Actions;
use pgrad_model::{ActorCritic, Critic, ModelShape, Part, Recurrence, Trunk};
use pgrad_nn::{Activation, Cell};
use pgrad_num::{Cols, ColsMut, Record, Stream};
use pgrad_optim::{Local, LocalMetric, LocalTrial};
use pgrad_testkit::check_gradient;
use std::{cmp::Ordering, sync::Mutex};

const LENGTH: usize = 4;
const STEPS: usize = 12;

fn model(cell: Cell, trunk: Trunk, action: Space, seed: u64) -> ActorCritic {
    let shape = ModelShape {
        obs_dim: OBS,
        action,
        hidden: vec![5],
        activation: Activation::Tanh,
        trunk,
        critic: Critic::State,
        log_std_init: -0.3,
    };
    let memory = Recurrence { cell, size: 3, sequence_length: LENGTH, span: None };
    let mut model = ActorCritic::with_memory(shape, vec![5], Some(memory), true, seed).unwrap();
    // The heads' initial gain of 0.01 would hide what the memory does.
    for view in model.views().into_iter().filter(|v| v.name.contains("logits") || v.name.contains("mean")) {
        model.theta[view.range].iter_mut().for_each(|w| *w *= 50.0);
    }
    model
}

struct Case {
    task: Task,
    model: ActorCritic,
    collector: Collector,
    engine: Engine,
    shape: RolloutShape,
}

impl Case {
    /// A rollout after another one under the same parameters, so that memories go back beyond its start.
    fn new(task: Task, cell: Cell, trunk: Trunk, n_envs: usize, envs_per_shard: usize) -> Self {
        task.log.lock().unwrap().clear();
        let model = model(cell, trunk, task.action.clone(), 3);
        let shape = RolloutShape { n_envs, n_steps: STEPS, envs_per_shard, bootstrap_truncated: true };
        let cpu = Cpu::new(2).unwrap();
        let mut collector = Collector::steps(shape, task.make(), &model, (None, None), 5, &cpu).unwrap();
        let mut engine = Engine::new(&cpu)
            .with_values(&model, collector.spec(), envs_per_shard)
            .with_gradients(&model, n_envs * STEPS);
        collector.start().unwrap();
        for _ in 0..2 {
            engine.values(&model, collector.collect(&model).unwrap()).unwrap();
        }
        Self { task, model, collector, engine, shape }
    }
    fn len(&self) -> usize {
        self.collector.store().len()
    }
    /// Shard's first environment, environments of the shard, row and environment (of the run) of sample `i`.
    fn place(&self, i: usize) -> (usize, usize) {
        let size = self.shape.envs_per_shard;
        let first = i / (size * STEPS) * size;
        let b = size.min(self.shape.n_envs - first);
        let at = i % (size * STEPS);
        (at / b, first + at % b)
    }
    fn seen(&self, env: usize, t: usize) -> Seen {
        self.task.log.lock().unwrap()[env][t].clone()
    }
}

/// One environment's network in `f64`: an observation in, outputs out, and on to the next step.
struct Slow<'a> {
    part: &'a Part,
    theta: Vec<f64>,
    state: Vec<f64>,
}

impl<'a> Slow<'a> {
    fn new(part: &'a Part, theta: &[f64]) -> Self {
        Self { part, theta: theta[part.params.clone()].to_vec(), state: vec![0.0; part.net.state_rows()] }
    }
    /// The outputs for `obs`; the state stays.
    fn look(&self, obs: &[f32]) -> (Vec<f64>, Vec<f64>) {
        let mut tape = self.part.net.tape::<f64>(1);
        tape.begin(1, Cols::new(&self.state, self.state.len(), 1), &[false]);
        let x = wide(obs);
        let out = self.part.net.forward(&self.theta, Cols::new(&x, OBS, 1), &mut tape).into_data().to_vec();
        let mut next = self.state.clone();
        tape.last_state(ColsMut::new(&mut next, self.state.len(), 1));
        (out, next)
    }
    fn step(&mut self, seen: &Seen) -> Vec<f64> {
        let (out, next) = self.look(&seen.obs);
        self.state = next;
        out
    }
    fn end(&mut self, end: End) {
        if end != End::Running {
            self.state.fill(0.0);
        }
    }
}

fn logp(model: &ActorCritic, task: &Task, out: &[f64], seen: &Seen) -> f64 {
    let (dist, rows) = (model.dist(), model.policy_rows());
    let mut params = out[rows].to_vec();
    let n = params.len();
    let mask = task.masked.then(|| Cols::new(&seen.mask, dist.mask_rows(), 1));
    dist.prepare(ColsMut::new(&mut params, n, 1), mask);
    let (real, mut logp) = (wide(&seen.real), [0.0]);
    let actions = Actions {
        index: Cols::new(&seen.index, dist.index_rows(), 1),
        real: Cols::new(&real, dist.real_rows(), 1),
    };
    dist.logp(Cols::new(&params, n, 1), actions, &mut logp);
    logp[0]
}

/// Of each sample by its number: `log π`, `V`, `v_next`. The second rollout starts from the state that `old`
/// reached, and with `stored` every sequence does: derivatives by `new` then go back to its first step.
struct Found {
    logp: Vec<f64>,
    v: Vec<f64>,
    v_next: Vec<f64>,
}

fn slow(case: &Case, old: &[f64], new: &[f64], stored: bool) -> Found {
    let n = case.len();
    let mut found = Found { logp: vec![0.0; n], v: vec![0.0; n], v_next: vec![0.0; n] };
    let m = &case.model;
    for env in 0..case.shape.n_envs {
        // What the parameters that drew the data remember, and what the others make of it from the start.
        let mut drawn = [m.actor(), m.critic()].map(|p| Slow::new(p, old));
        let mut now = [m.actor(), m.critic()].map(|p| Slow::new(p, new));
        for t in 0..STEPS {
            let seen = case.seen(env, t);
            for s in &mut drawn {
                s.step(&seen);
                s.end(seen.end);
            }
        }
        for (now, drawn) in now.iter_mut().zip(&drawn) {
            now.state.clone_from(&drawn.state);
        }
        for t in 0..STEPS {
            if stored && t % LENGTH == 0 {
                for (now, drawn) in now.iter_mut().zip(&drawn) {
                    now.state.clone_from(&drawn.state);
                }
            }
            let seen = case.seen(env, STEPS + t);
            let i = (0..n).find(|i| case.place(*i) == (t, env)).unwrap();
            let [actor, critic] = &mut now;
            found.logp[i] = logp(m, &case.task, &actor.step(&seen), &seen);
            found.v[i] = critic.step(&seen)[0];
            found.v_next[i] = match seen.end {
                End::Terminated | End::Lost => 0.0,
                // Where an episode was cut: the final observation, in the state that the episode had reached.
                End::Truncated | End::Running => critic.look(&seen.next).0[0],
            };
            drawn.iter_mut().for_each(|s| drop(s.step(&seen)));
            now.iter_mut().chain(&mut drawn).for_each(|s| s.end(seen.end));
        }
    }
    found
}

/// What the learner shows of every sample, and what the rollout holds.
struct Shown {
    logp: Vec<f32>,
    logp_old: Vec<f32>,
}

/// Writes each sample's number as its advantage, so that a chunk's samples are known, and a target.
fn numbered<'a>(collector: &'a mut Collector, engine: &mut Engine, model: &ActorCritic) -> Estimated<'a> {
    let first: Vec<(u32, usize)> = {
        let mut at = 0;
        let shards = collector.store().shards.iter();
        let place = |s: &pgrad_engine::Samples| {
            at += s.reward.len();
            (s.reward[0].to_bits(), at - s.reward.len())
        };
        shards.map(place).collect()
    };
    let data = engine.values(model, collector.batch()).unwrap();
    let number = |p: Paths<'_>| {
        // Shards come in any order.
        let own = p.reward.data()[0].to_bits();
        let from = first.iter().find(|(reward, _)| *reward == own).unwrap().1;
        let (mut adv, mut ret) = (p.adv, p.ret);
        for (i, (a, r)) in adv.data_mut().iter_mut().zip(ret.data_mut()).enumerate() {
            *a = (from + i) as f32;
            *r = ((from + i) as f32 * 0.7).sin();
        }
    };
    engine.estimate(data, number).unwrap()
}

fn objective<'f>(
    policy: &'f (dyn Fn(PolicyChunk<'_>) + Sync),
    value: &'f (dyn Fn(ValueChunk<'_>) + Sync),
) -> Objective<'f> {
    let (policy, value) = (Some(PolicyTerm::Custom(policy)), Some(ValueTerm::Custom(value)));
    Objective { policy, value, ..Objective::default() }
}

fn order(data: &Estimated<'_>) -> Vec<u32> {
    let mut order = Vec::new();
    data.write_order(&mut order);
    order
}

/// What the engine shows of every sample under `model`, and what the batch holds; with `recomputed`, from the
/// states that `model` reaches.
fn shown(case: &mut Case, model: &ActorCritic, recomputed: bool) -> Shown {
    let n = case.len();
    let found = Mutex::new(Shown { logp: vec![f32::NAN; n], logp_old: vec![f32::NAN; n] });
    let see = |p: PolicyChunk<'_>| {
        let mut found = found.lock().unwrap();
        for (k, i) in p.adv.iter().enumerate() {
            found.logp[*i as usize] = p.logp[k];
            found.logp_old[*i as usize] = p.logp_old[k];
        }
    };
    let Case { collector, engine, model: old, .. } = case;
    let mut data = numbered(collector, engine, old);
    if recomputed {
        engine.recompute_states(model, &mut data);
    }
    let objective = objective(&see, &|v| v.d_v.fill(0.0));
    engine.gradient(model, &data, Minibatch::whole(&order(&data), 0), &objective).unwrap();
    found.into_inner().unwrap()
}

/// `V`, `v_next` and the ratio of every sample under `model`, from the states that are kept.
fn values(case: &mut Case, model: &ActorCritic) -> [Vec<f64>; 3] {
    let found = Mutex::new(Vec::new());
    let Case { collector, engine, model: old, .. } = case;
    let mut data = engine.values(old, collector.batch()).unwrap();
    engine.ratios(model, &mut data).unwrap();
    let look = |p: Paths<'_>| {
        let all = [p.v.data(), p.v_next.data(), p.ratio.data()].map(wide);
        found.lock().unwrap().push((p.reward.data()[0].to_bits(), all));
    };
    engine.estimate(data, look).unwrap();
    let mut found = found.into_inner().unwrap();
    let shards = &collector.store().shards;
    found.sort_by_key(|(own, _)| shards.iter().position(|s| s.reward[0].to_bits() == *own));
    [0, 1, 2].map(|k| found.iter().flat_map(|(_, all)| all[k].clone()).collect())
}

fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for cell in [Cell::Lstm, Cell::Gru] {
        for trunk in [Trunk::Separate, Trunk::Shared] {
            for (k, task) in tasks(Some(7)).into_iter().enumerate() {
                // Shards of one environment, uneven ones, and more sequences than go through a network
                // together.
                let (n, size) = [(1, 1), (5, 3), (13, 13)][k % 3];
                all.push(Case::new(task, cell, trunk, n, size));
            }
        }
    }
    all
}

#[test]
fn log_probabilities_and_values_are_those_of_a_network_taken_through_each_history() {
    let mut ends = [0; 3];
    for mut case in cases() {
        let theta = wide(&case.model.theta);
        let found = slow(&case, &theta, &theta, true);
        let model = case.model.clone();
        let [v, v_next, _] = values(&mut case, &model);
        let shown = shown(&mut case, &model, false);
        assert!(relative_difference(&wide(&shown.logp), &found.logp) < 1e-5);
        assert!(relative_difference(&v, &found.v) < 1e-5);
        assert!(relative_difference(&v_next, &found.v_next) < 1e-5);
        for env in case.task.log.lock().unwrap().iter() {
            env.iter().skip(STEPS).for_each(|s| ends[s.end as usize] += 1);
        }
    }
    assert!(ends.iter().all(|n| *n > 20), "every ending occurs: {ends:?}");
}

#[test]
fn on_the_first_pass_every_ratio_is_exactly_one() {
    for mut case in cases() {
        let model = case.model.clone();
        let shown = shown(&mut case, &model, false);
        for (a, b) in shown.logp.iter().zip(&shown.logp_old) {
            assert_eq!(a.to_bits(), b.to_bits());
        }
        // As V-trace needs them, and in minibatches of any size and order.
        assert!(values(&mut case, &model)[2].iter().all(|r| *r == 1.0));
        let n = case.len();
        let Case { collector, engine, .. } = &mut case;
        for size in [LENGTH, 2 * LENGTH, 5 * LENGTH] {
            let mut minibatches = Minibatches::of(collector.store(), size, 1);
            let data = numbered(collector, engine, &model);
            let same = |p: PolicyChunk<'_>| {
                assert!(p.logp.iter().zip(p.logp_old).all(|(a, b)| a.to_bits() == b.to_bits()));
            };
            let objective = objective(&same, &|v| v.d_v.fill(0.0));
            let mut all = Vec::new();
            for minibatch in minibatches.shuffled(0) {
                all.extend_from_slice(minibatch.ids);
                engine.gradient(&model, &data, minibatch, &objective).unwrap();
            }
            all.sort_unstable();
            assert_eq!(all, (0..n as u32).collect::<Vec<_>>());
        }
    }
}

#[test]
fn stored_states_stay_and_recomputed_ones_follow_the_parameters() {
    for mut case in cases() {
        let old = case.model.clone();
        // With the parameters that drew the data, nothing changes.
        let same = shown(&mut case, &old, true);
        assert!(same.logp.iter().zip(&same.logp_old).all(|(a, b)| a.to_bits() == b.to_bits()));
        let mut new = old.clone();
        new.theta.iter_mut().enumerate().for_each(|(i, w)| *w += 0.2 * (i as f32).sin());
        let (theta_old, theta_new) = (wide(&old.theta), wide(&new.theta));
        let [stored, recomputed] = [true, false].map(|stored| slow(&case, &theta_old, &theta_new, stored));
        let first = shown(&mut case, &new, false);
        assert!(relative_difference(&wide(&first.logp), &stored.logp) < 1e-4);
        let second = shown(&mut case, &new, true);
        assert!(relative_difference(&wide(&second.logp), &recomputed.logp) < 1e-4);
        assert!(relative_difference(&stored.logp, &recomputed.logp) > 1e-3, "the two differ");
        // And the ratios of V-trace are of the same states.
        let expected: Vec<f64> =
            second.logp.iter().zip(&second.logp_old).map(|(a, b)| f64::from(a - b).exp()).collect();
        assert!(relative_difference(&values(&mut case, &new)[2], &expected) < 1e-5);
    }
}

/// `Σ w log π`, with a weight for each sample.
fn policy_loss(p: PolicyChunk<'_>) {
    let [d_logp, zero, ..] = p.work;
    for (d, i) in d_logp.iter_mut().zip(p.adv.iter()) {
        *d = (*i * 0.3).cos();
    }
    zero.fill(0.0);
    p.dist.logp_entropy_vjp(p.params, p.actions, d_logp, zero, p.d_out);
}

/// `Σ ½ (V − target)²`.
fn value_loss(p: ValueChunk<'_>) {
    let ValueChunk { v, ret, d_v, .. } = p;
    for ((d, v), ret) in d_v.iter_mut().zip(v).zip(ret) {
        *d = v - ret;
    }
}

#[test]
fn gradients_go_back_to_the_start_of_a_sequence_and_are_those_of_finite_differences() {
    for mut case in cases() {
        let (n, model) = (case.len(), case.model.clone());
        let theta = wide(&model.theta);
        let mut minibatches = Minibatches::of(case.collector.store(), n, 1);
        minibatches.shuffle();
        let data = numbered(&mut case.collector, &mut case.engine, &model);
        let all = Minibatch::whole(minibatches.get(0), 0);
        case.engine.gradient(&model, &data, all, &objective(&policy_loss, &value_loss)).unwrap();
        let gradient = case.engine.descent().to_vec();
        let loss = |new: &[f64]| -> f64 {
            let found = slow(&case, &theta, new, true);
            (0..n)
                .map(|i| {
                    let target = f64::from((i as f32 * 0.7).sin());
                    f64::from((i as f32 * 0.3).cos()) * found.logp[i] + 0.5 * (found.v[i] - target).powi(2)
                })
                .sum()
        };
        if n > 100 {
            continue; // Finite differences of the larger cases take long; their parts are covered above.
        }
        let worst = check_gradient(loss, &theta, &wide(&gradient));
        assert!(worst.relative_error < 2e-3, "{worst:?}");
    }
}

/// Gradient, metric and trials around `θ_old`, against the learner's gradient and against each other.
#[test]
fn the_local_problem_of_a_recurrent_policy() {
    for mut case in cases().into_iter().filter(|c| c.model.is_separate()) {
        let (model, n, cpu) = (case.model.clone(), case.len(), Cpu::new(2).unwrap());
        // Activations kept and computed anew.
        let found = [usize::MAX, 0].map(|kept| {
            let mut local_engine = Engine::new(&cpu).with_local_problem_keeping(&model, n, kept);
            let data = numbered(&mut case.collector, &mut case.engine, &model);
            let mut local = local_engine.local(&model, &data, Fisher::KlHessian, false, 1);
            let dim = local.dim();
            let (mut g, mut f_v) = (vec![0.0; dim], vec![0.0; dim]);
            let surrogate = local.gradient(&mut g);
            let theta = model.theta[model.actor().params.clone()].to_vec();
            let still = local.trial(&theta);
            assert_eq!((still.kl, still.largest_kl), (0.0, 0.0));
            assert!((still.surrogate - surrogate).abs() < 1e-9 * surrogate.abs());
            // To second order the divergence of a step is ½ vᵀ F v.
            let v: Vec<f32> = (0..dim).map(|i| (i as f32 * 1.3).sin()).collect();
            local.fisher_mul(&v, &mut f_v);
            let form: f64 = v.iter().zip(&f_v).map(|(v, f)| f64::from(v * f)).sum();
            let h = 1e-3 / form.sqrt();
            let kl = |h: f64| {
                let moved: Vec<f64> =
                    theta.iter().zip(&v).map(|(t, v)| f64::from(*t) + h * f64::from(*v)).collect();
                slow_kl(&case, &wide(&model.theta), &moved)
            };
            let second = (kl(h) + kl(-h)) / (h * h);
            assert!((second - form).abs() < 0.005 * form, "{second}, not {form}");
            (g, f_v)
        });
        assert_eq!(found[0], found[1]);
        let loss = |p: PolicyChunk<'_>| {
            let [d_logp, zero, ..] = p.work;
            d_logp.iter_mut().zip(p.adv.iter()).for_each(|(d, a)| *d = a / n as f32);
            zero.fill(0.0);
            p.dist.logp_entropy_vjp(p.params, p.actions, d_logp, zero, p.d_out);
        };
        let data = numbered(&mut case.collector, &mut case.engine, &model);
        let all = order(&data);
        let objective = objective(&loss, &value_loss);
        case.engine.gradient(&model, &data, Minibatch::whole(&all, 0), &objective).unwrap();
        let whole = case.engine.descent();
        let own = &whole[model.actor().params.clone()];
        assert!(relative_difference(&wide(&found[0].0), &wide(own)) < 1e-4);
    }
}

/// Mean `KL(π_old ‖ π_θ)` in `f64`, sequences starting from the states of `old`.
fn slow_kl(case: &Case, old: &[f64], actor: &[f64]) -> f64 {
    let (m, dist) = (&case.model, case.model.dist());
    let mut new = old.to_vec();
    new[m.actor().params.clone()].copy_from_slice(actor);
    let mut sum = 0.0;
    for env in 0..case.shape.n_envs {
        let mut drawn = Slow::new(m.actor(), old);
        let mut now = Slow::new(m.actor(), &new);
        for t in 0..2 * STEPS {
            if t % LENGTH == 0 {
                now.state.clone_from(&drawn.state);
            }
            let seen = case.seen(env, t);
            let prepared = |out: Vec<f64>| {
                let mut params = out[m.policy_rows()].to_vec();
                let rows = params.len();
                let mask = case.task.masked.then(|| Cols::new(&seen.mask, dist.mask_rows(), 1));
                dist.prepare(ColsMut::new(&mut params, rows, 1), mask);
                params
            };
            let (a, b) = (prepared(drawn.step(&seen)), prepared(now.step(&seen)));
            if t >= STEPS {
                let mut kl = [0.0];
                dist.kl(Cols::new(&a, a.len(), 1), Cols::new(&b, b.len(), 1), &mut kl);
                sum += kl[0];
            }
            drawn.end(seen.end);
            now.end(seen.end);
        }
    }
    sum / case.len() as f64
}

/// Numbers that wander, and can be saved.
struct Drift {
    x: [f32; OBS],
}

impl Drift {
    fn wander(&mut self, rng: &mut Stream, obs: &mut Obs<'_>) {
        self.x.iter_mut().for_each(|x| *x = 0.5 * *x + rng.normal() as f32);
        obs.write(&self.x);
    }
}

impl Env for Drift {
    fn spec(&self) -> EnvSpec {
        EnvSpec {
            id: "Drift".into(),
            observation: BoxSpace::unbounded(OBS).into(),
            action: Space::Discrete { n: 2 },
            max_episode_steps: Some(30),
            reward_threshold: None,
            masks_actions: false,
        }
    }
    fn reset(&mut self, rng: &mut Stream, obs: &mut Obs<'_>) {
        self.wander(rng, obs);
    }
    fn step(&mut self, _: Action<'_>, rng: &mut Stream, obs: &mut Obs<'_>) -> Step {
        self.wander(rng, obs);
        Step { reward: 1.0, end: if rng.below(9) == 0 { End::Terminated } else { End::Running } }
    }
    fn save(&self) -> Option<Vec<f64>> {
        Some(wide(&self.x))
    }
    fn load(&mut self, state: &[f64]) -> bool {
        state.iter().zip(&mut self.x).for_each(|(from, to)| *to = *from as f32);
        state.len() == OBS
    }
}

#[test]
fn a_collector_goes_on_from_what_was_saved_with_what_is_remembered() {
    for cell in [Cell::Lstm, Cell::Gru] {
        for trunk in [Trunk::Separate, Trunk::Shared] {
            let model = model(cell, trunk, Space::Discrete { n: 2 }, 3);
            let shape =
                RolloutShape { n_envs: 5, n_steps: STEPS, envs_per_shard: 2, bootstrap_truncated: true };
            let env = Each::maker(|| Drift { x: [0.0; OBS] });
            let cpu = Cpu::new(2).unwrap();
            let mut engine = Engine::new(&cpu).with_values(&model, &Drift { x: [0.0; OBS] }.spec(), 2);
            let collector = || {
                let mut c = Collector::steps(shape, &env, &model, (None, None), 5, &cpu).unwrap();
                c.start().unwrap();
                c
            };
            let mut go = |c: &mut Collector| {
                engine.values(&model, c.collect(&model).unwrap()).unwrap();
                let mut v = Vec::new();
                let data = engine.values(&model, c.batch()).unwrap();
                let found = Mutex::new(Vec::new());
                let look = |p: Paths<'_>| found.lock().unwrap().push(p.v_next.data().to_vec());
                engine.estimate(data, look).unwrap();
                let mut found = found.into_inner().unwrap();
                // Shards come in any order.
                found.sort_by(|a, b| {
                    a.len().cmp(&b.len()).then_with(|| {
                        let differ = a.iter().zip(b).find(|(x, y)| x != y);
                        differ.map_or(Ordering::Equal, |(x, y)| x.total_cmp(y))
                    })
                });
                found.iter().for_each(|shard| v.extend_from_slice(shard));
                v
            };
            let mut a = collector();
            go(&mut a);
            let saved = a.save();
            let expected = go(&mut a);
            let mut b = collector();
            assert!(b.load(&saved).unwrap());
            assert_eq!(go(&mut b), expected);
            // What is remembered matters: without it the values are others.
            let mut bare = Record::new();
            for (name, array) in saved.iter() {
                let zero = name.starts_with("state") || name.starts_with("critic_state");
                match saved.f32s(name, array.len()) {
                    Ok(x) if zero => bare.put(name, vec![0.0f32; x.len()]),
                    _ => bare.put(name, array.clone()),
                }
            }
            let mut c = collector();
            c.load(&bare).unwrap();
            assert_ne!(go(&mut c), expected);
        }
    }
}
