//! Episodes that are lost because their environment failed: not learnt from, and nobody else notices.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

use pgrad_collect::{Collector, EpisodesShape, RolloutShape, Stepper};
use pgrad_engine::{Cpu, Engine, Estimated, Fisher, Minibatches, Paths, Store};
use pgrad_env::{Action, BatchResult, BoxSpace, Each, End, Env, EnvSpec, Obs, Space, Step};
use pgrad_model::{ActorCritic, Critic, ModelShape, Recurrence, RewardNormalizer, Trunk};
use pgrad_nn::{Activation, Cell};
use pgrad_num::Stream;
use pgrad_optim::Local;
use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering},
};

const N: usize = 5;
const STEPS: usize = 12;

/// Episodes of 5 steps, ended and cut by turns; the reward of its step `s` is `100·b + s`, so that each
/// sample can be told. Fails in some of its steps, counted over all episodes.
struct Fails {
    b: usize,
    s: usize,
    t: u32,
    lost: Vec<usize>,
}

impl Env for Fails {
    fn spec(&self) -> EnvSpec {
        EnvSpec {
            id: "Fails".into(),
            observation: BoxSpace::unbounded(2).into(),
            action: Space::Discrete { n: 3 },
            max_episode_steps: None,
            reward_threshold: None,
            masks_actions: false,
        }
    }
    fn reset(&mut self, rng: &mut Stream, obs: &mut Obs<'_>) {
        self.t = 0;
        obs.write_f64(&[rng.normal(), 0.0]);
    }
    fn step(&mut self, action: Action<'_>, rng: &mut Stream, obs: &mut Obs<'_>) -> Step {
        self.t += 1;
        let s = self.s;
        self.s += 1;
        obs.write_f64(&[rng.normal(), action.index() as f64]);
        let end = match self.t {
            _ if self.lost.contains(&s) => End::Lost,
            5 if (s / 5).is_multiple_of(2) => End::Terminated,
            5 => End::Truncated,
            _ => End::Running,
        };
        Step { reward: (100 * self.b + s) as f64, end }
    }
}

/// Makes environments of which number 1 fails in the steps `lost`.
fn make(lost: &[usize]) -> impl Fn(usize) -> BatchResult + use<> {
    let (next, lost) = (AtomicUsize::new(0), lost.to_vec());
    Each::maker(move || {
        let b = next.fetch_add(1, Ordering::Relaxed);
        Fails { b, s: 0, t: 0, lost: if b == 1 { lost.clone() } else { Vec::new() } }
    })
}

fn model(memory: Option<usize>) -> ActorCritic {
    let shape = ModelShape {
        obs_dim: 2,
        action: Space::Discrete { n: 3 },
        hidden: vec![4],
        activation: Activation::Tanh,
        trunk: Trunk::Separate,
        critic: Critic::State,
        log_std_init: 0.0,
    };
    let memory =
        memory.map(|length| Recurrence { cell: Cell::Lstm, size: 3, sequence_length: length, span: None });
    let mut model = ActorCritic::with_memory(shape, vec![4], memory, true, 5).unwrap();
    let mut rng = Stream::new(9, 0, 0);
    model.theta.iter_mut().for_each(|x| *x += 0.3 * rng.normal() as f32);
    model
}

/// A collector that has collected `times` times.
fn collected(lost: &[usize], memory: Option<usize>, times: usize) -> (Collector, ActorCritic) {
    let model = model(memory);
    let shape = RolloutShape { n_envs: N, n_steps: STEPS, envs_per_shard: 2, bootstrap_truncated: true };
    let cpu = Cpu::new(2).unwrap();
    let mut collector = Collector::steps(shape, make(lost), &model, (None, None), 3, &cpu).unwrap();
    collector.start().unwrap();
    for _ in 0..times {
        collector.collect(&model).unwrap();
    }
    (collector, model)
}

/// Advantages and targets are the rewards.
fn estimated<'a>(collector: &'a mut Collector, model: &ActorCritic) -> Estimated<'a> {
    estimated_by(collector, model, |r| r)
}

fn estimated_by<'a>(
    collector: &'a mut Collector,
    model: &ActorCritic,
    adv_of: impl Fn(f32) -> f32 + Sync,
) -> Estimated<'a> {
    let spec = collector.spec().clone();
    let mut engine = Engine::new(&Cpu::new(2).unwrap()).with_values(model, &spec, 2);
    let data = engine.values(model, collector.batch()).unwrap();
    let estimate = |p: Paths<'_>| {
        let (mut adv, mut ret) = (p.adv, p.ret);
        adv.data_mut().iter_mut().zip(p.reward.data()).for_each(|(a, r)| *a = adv_of(*r));
        ret.data_mut().copy_from_slice(p.reward.data());
    };
    engine.estimate(data, estimate).unwrap()
}

/// The numbers of all samples.
fn order(store: &Store) -> Vec<u32> {
    let mut order = Vec::new();
    store.write_order(&mut order);
    order
}

/// What the numbers of samples stand for.
fn rewards(data: &Estimated<'_>, ids: &[u32]) -> BTreeSet<usize> {
    ids.iter().map(|i| data.advantage_moments(&[*i]).0 as usize).collect()
}

/// The steps `steps` of environment 1, and all of the first `rows` of the others.
fn expected(from: usize, steps: impl Fn(usize) -> bool) -> BTreeSet<usize> {
    (0..N)
        .flat_map(|b| (from..from + STEPS).map(move |s| (b, s)))
        .filter(|(b, s)| *b != 1 || steps(*s))
        .map(|(b, s)| 100 * b + s)
        .collect()
}

#[test]
fn samples_of_lost_episodes_are_none() {
    // The failing step in the middle, at the end, in the first and the last row, and twice.
    for (lost, gone) in [
        (vec![], vec![]),
        (vec![7], vec![5, 6, 7]),
        (vec![0], vec![0]),
        (vec![4], vec![0, 1, 2, 3, 4]),
        (vec![11], vec![10, 11]),
        (vec![1, 2, 9], vec![0, 1, 2, 8, 9]),
    ] {
        let (mut collector, model) = collected(&lost, None, 1);
        assert_eq!(collector.lost_steps() as usize, gone.len());
        assert_eq!(collector.finished().filter(|e| e.end == End::Lost).count(), 0, "a lost episode is none");
        let data = estimated(&mut collector, &model);
        let kept = expected(0, |s| !gone.contains(&s));
        assert_eq!((data.len(), data.steps()), (N * STEPS - gone.len(), (N * STEPS - gone.len()) as u64));
        assert_eq!(rewards(&data, &order(&data)), kept, "{lost:?}");
        let mut minibatches = Minibatches::new(N * STEPS, 16, 1);
        minibatches.follow(&data);
        minibatches.shuffle();
        assert_eq!(rewards(&data, minibatches.all()), kept, "{lost:?}");
        let in_minibatches: usize = (0..minibatches.count()).map(|i| minibatches.get(i).len()).sum();
        assert_eq!(in_minibatches, kept.len());
        let mean = kept.iter().sum::<usize>() as f64 / kept.len() as f64;
        assert!((data.advantage_moments(&order(&data)).0 - mean).abs() < 1e-9);
    }
}

#[test]
fn only_what_came_since_the_last_update_is_left_out_and_then_all_is_as_before() {
    // Step 12 is in the episode that began in step 10: its first two steps were learnt from already.
    let (mut second, model) = collected(&[12], None, 2);
    let data = estimated(&mut second, &model);
    assert_eq!(rewards(&data, &order(&data)), expected(STEPS, |s| s != 12));
    let (third, _) = collected(&[12], None, 3);
    assert_eq!((third.store().len(), third.lost_steps()), (N * STEPS, 1));
}

#[test]
fn others_see_the_same_bits() {
    let acts = |lost: &[usize]| {
        let saved = collected(lost, None, 2).0.save();
        (0..3).map(|i| saved.record(&format!("env{i}"))).collect::<Vec<_>>()
    };
    let (clean, failed) = (acts(&[]), acts(&[7]));
    // Neither environment 2 to 4, nor the one beside the failing one.
    assert_eq!(clean[1..], failed[1..]);
    let first = |r: &pgrad_num::Record| r.f64s("returns", 2).unwrap()[0].to_bits();
    assert_eq!(first(&clean[0]), first(&failed[0]));
}

#[test]
fn where_nothing_is_left_the_environments_run_again() {
    let model = model(None);
    let shape = RolloutShape { n_envs: 1, n_steps: 3, envs_per_shard: 1, bootstrap_truncated: true };
    let all_lost = Each::maker(|| Fails { b: 0, s: 0, t: 0, lost: (0..7).collect() });
    let cpu = Cpu::new(1).unwrap();
    let mut collector = Collector::steps(shape, all_lost, &model, (None, None), 3, &cpu).unwrap();
    collector.start().unwrap();
    collector.collect(&model).unwrap();
    assert_eq!(collector.lost_steps(), 7);
    let data = estimated(&mut collector, &model);
    assert_eq!(data.len(), 2);
    assert_eq!(rewards(&data, &order(&data)), BTreeSet::from([7, 8]));
}

#[test]
fn a_sequence_with_a_lost_step_is_left_out_as_a_whole() {
    let (mut collector, model) = collected(&[6], Some(4), 1);
    let data = estimated(&mut collector, &model);
    // The episode is steps 5 and 6: of the sequence of steps 4 to 7.
    let kept = expected(0, |s| !(4..8).contains(&s));
    let order = order(&data);
    assert_eq!(order.len(), data.len());
    assert_eq!(rewards(&data, &order), kept);
    let mut minibatches = Minibatches::of(collected(&[], Some(4), 1).0.store(), 8, 1);
    minibatches.follow(&data);
    minibatches.shuffle();
    assert_eq!(rewards(&data, minibatches.all()), kept);
    assert_eq!(minibatches.count(), kept.len().div_ceil(8));
    // A problem over all samples goes through the same ones: they fill its sums, and it runs through.
    let mut engine = Engine::new(&Cpu::new(1).unwrap()).with_local_problem(&model, N * STEPS);
    assert!(engine.local(&model, &data, Fisher::KlHessian, false, 1).entropy() > 0.0);
}

#[test]
fn the_surrogate_is_that_of_the_samples_that_are_left() {
    // The last step fails: all before it is the same with and without the failure.
    let gradient = |lost: &[usize], without: &[usize]| {
        let (mut collector, model) = collected(lost, None, 1);
        let adv = |r: f32| if without.contains(&(r as usize)) { 0.0 } else { 1.0 + 0.01 * r };
        let data = estimated_by(&mut collector, &model, adv);
        let mut engine = Engine::new(&Cpu::new(1).unwrap()).with_local_problem(&model, N * STEPS);
        let mut g = vec![0.0; model.actor().params.len()];
        engine.local(&model, &data, Fisher::KlHessian, false, 1).gradient(&mut g);
        (g, data.len() as f32)
    };
    let (left, n) = gradient(&[11], &[]);
    let (zeroed, all) = gradient(&[], &[110, 111]);
    assert_eq!((n, all), (58.0, 60.0));
    for (a, b) in left.iter().zip(&zeroed) {
        assert!((a * n - b * all).abs() < 1e-3 * (1.0 + b.abs() * all), "{a} {b}");
    }
    assert!(left.iter().any(|g| g.abs() > 1e-3));
}

#[test]
fn a_batch_of_whole_episodes_has_all_its_episodes() {
    let shape = EpisodesShape { n_envs: N, n_episodes: 2 * N, envs_per_shard: 2, bootstrap_truncated: true };
    let (model, cpu) = (model(None), Cpu::new(1).unwrap());
    for (lost, steps, gone) in [(vec![], 0..10, 0), (vec![6], 0..12, 2), (vec![0, 3], 4..14, 4)] {
        let mut collector = Collector::episodes(shape, make(&lost), &model, (None, None), 3, &cpu).unwrap();
        collector.start().unwrap();
        collector.collect(&model).unwrap();
        assert_eq!(collector.lost_steps(), gone);
        assert_eq!(collector.finished().filter(|e| e.env == 1 && e.length == 5).count(), 2);
        let data = estimated(&mut collector, &model);
        let own = |s: usize| steps.contains(&s) && !(gone == 2 && (s == 5 || s == 6));
        let kept: BTreeSet<usize> = (0..N)
            .flat_map(|b| (0..20).map(move |s| (b, s)))
            .filter(|(b, s)| if *b == 1 { own(*s) } else { *s < 10 })
            .map(|(b, s)| 100 * b + s)
            .collect();
        assert_eq!(rewards(&data, &order(&data)), kept, "{lost:?}");
        assert_eq!(data.len(), 10 * N);
    }
}

#[test]
fn a_step_that_did_not_happen_is_told_from_an_end() {
    let model = model(None);
    let mut stepper = Stepper::new(2, make(&[2]), &model, 5, 10).unwrap();
    stepper.start().unwrap();
    let mut seen = Vec::new();
    for _ in 0..4 {
        stepper.act(&model).unwrap();
        stepper.advance().unwrap();
        let t = stepper.transition(1);
        seen.push((t.is_lost(), t.continues(), stepper.lost()));
        assert!(!stepper.transition(0).is_lost());
    }
    assert_eq!(seen, [(false, true, 0), (false, true, 0), (true, false, 1), (false, true, 0)]);
    assert_eq!(stepper.episodes().count(), 0);
}

/// Environment 1 loses what it gave in steps 1 to 3.
#[test]
fn rewards_of_lost_episodes_do_not_scale_others() {
    use End::{Lost, Running, Terminated};
    let (zero, one) = ([1.0, -2.0, 0.5, 3.0, 1.0, 0.25], [2.0, 700.0, -900.0, 800.0, -1.0, 4.0]);
    let ends = [Terminated, Running, Running, Lost, Running, Running];
    let scaled = |norm: &RewardNormalizer| {
        let mut x = [0.01];
        norm.apply(&mut x);
        f64::from(x[0])
    };
    let mut norm = RewardNormalizer::new(2, 0.9, 10.0);
    let rows: Vec<f32> = zero.iter().zip(&one).flat_map(|(a, b)| [*a, *b]).collect();
    norm.observe(0, 2, &rows, &ends.map(|end| [Running, end]).concat());
    let mut kept = RewardNormalizer::new(2, 0.9, 10.0);
    kept.observe(0, 1, &zero, &[Running; 6]);
    kept.observe(1, 1, &[one[0], one[4], one[5]], &[Terminated, Running, Running]);
    assert!((scaled(&norm) / scaled(&kept) - 1.0).abs() < 1e-5, "{} {}", scaled(&norm), scaled(&kept));
    // Also where nothing is left.
    norm.observe(1, 1, &[5.0, 6.0], &[Running, Lost]);
    assert!((scaled(&norm) / scaled(&kept) - 1.0).abs() < 1e-5);
}
