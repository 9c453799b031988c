//! Tile coding: its laws, against counting and against slow sums from the definition.

#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

use pgrad_env::probe::{ActionKind, ConstantReward, ObservedReward, RightChoices};
use pgrad_env::{
    Action, BatchEnv, BoxSpace, Each, End, Env, EnvError, EnvSpec, Obs, RandomActions, Space, Step,
    TileCoded, TileCoder, TileCoding, TileError, VecEnv, check_batch_env,
};
use pgrad_num::Stream;

fn bounds() -> BoxSpace {
    BoxSpace::new(vec![-1.2, -0.07], vec![0.6, 0.07])
}

fn coder(tilings: usize, tiles: usize, memory: usize) -> TileCoder {
    TileCoder::new(&bounds(), TileCoding { tilings, tiles, memory, bias: true }).unwrap()
}

fn active(coder: &TileCoder, obs: &[f32]) -> Vec<u32> {
    let mut active = vec![u32::MAX; coder.coding().tilings];
    coder.active(obs, &mut active);
    active
}

/// Points of the box, its edges included.
fn grid(n: usize) -> impl Iterator<Item = [f32; 2]> {
    let at = move |i: usize, low: f32, high: f32| low + (high - low) * i as f32 / n as f32;
    (0..=n).flat_map(move |i| (0..=n).map(move |j| [at(i, -1.2, 0.6), at(j, -0.07, 0.07)]))
}

#[test]
fn every_tiling_has_exactly_one_active_tile_in_its_own_block() {
    for coder in [coder(10, 10, 16_384), coder(4, 7, 196), coder(8, 10, 100)] {
        let (tilings, features) = (coder.coding().tilings, coder.features());
        let block = ((features - 1) / tilings) as u32;
        assert_eq!(features - 1, tilings * block as usize);
        for obs in grid(97).chain([[-50.0, 1e30], [f32::NAN, 0.0]]) {
            for (k, tile) in active(&coder, &obs).into_iter().enumerate() {
                let own = k as u32 * block..(k as u32 + 1) * block;
                assert!(own.contains(&tile), "{obs:?}: tiling {k} activates {tile}, not one of {own:?}");
            }
        }
    }
}

#[test]
fn the_tiles_of_a_tiling_are_a_partition_into_boxes_of_one_size() {
    // Without hashing two observations share a tile exactly when they share every interval, and every tile is
    // met.
    let coder = coder(3, 5, 75);
    assert!(!coder.is_hashed() && coder.features() == 76);
    let mut seen = vec![None; 75];
    for obs in grid(200) {
        for (k, tile) in active(&coder, &obs).into_iter().enumerate() {
            let intervals = [coder.interval(k, 0, obs[0]), coder.interval(k, 1, obs[1])];
            assert_eq!(*seen[tile as usize].get_or_insert((k, intervals)), (k, intervals));
        }
    }
    assert!(seen.iter().all(Option::is_some), "a tile is never active");
    // Their width, by bisection of the inner edges: n u, with u = (high - low) / ((m + 1) n - 1).
    let unit = 1.8 / (6.0 * 3.0 - 1.0);
    for k in 0..3 {
        let edge = |c: usize| {
            let (mut low, mut high) = (-1.2f32, 0.6f32);
            for _ in 0..60 {
                let middle = 0.5 * (low + high);
                *(if coder.interval(k, 0, middle) < c { &mut low } else { &mut high }) = middle;
            }
            f64::from(high)
        };
        for c in 1..5 {
            let expected = -1.2 + unit * (k as f64 + 3.0 * c as f64);
            assert!((edge(c) - expected).abs() < 1e-6, "tiling {k}, edge {c}: {}", edge(c));
        }
    }
}

#[test]
fn tilings_are_shifted_by_odd_multiples_of_a_part_of_a_tile() {
    let coder = coder(10, 10, 16_384);
    let unit = [1.8 / 109.0, 0.14 / 109.0];
    for k in 0..10 {
        // Just before and after the end of the first interval.
        for (i, (low, shift)) in [(-1.2, k), (-0.07, 3 * k % 10)].into_iter().enumerate() {
            let edge = low + unit[i] * (shift as f64 + 10.0);
            let at = |x: f64| coder.interval(k, i, x as f32);
            assert_eq!(
                (at(edge - 0.01 * unit[i]), at(edge + 0.01 * unit[i])),
                (0, 1),
                "tiling {k}, number {i}"
            );
        }
    }
}

#[test]
fn neighbours_share_tiles_and_strangers_share_none() {
    let coder = coder(10, 10, 16_384);
    let shared = |a: [f32; 2], b: [f32; 2]| {
        active(&coder, &a).iter().zip(active(&coder, &b)).filter(|(a, b)| **a == *b).count()
    };
    let unit = [1.8 / 109.0f32, 0.14 / 109.0];
    // 54.5 units from the lower bound of both: as far from an edge as can be.
    let middle = [-0.3, 0.0];
    for i in 0..2 {
        for s in 0..=12 {
            let mut moved = middle;
            moved[i] += s as f32 * unit[i];
            // A move of s units along one number crosses an edge of s of the ten tilings.
            assert_eq!(shared(middle, moved), 10 - s.min(10), "number {i}, {s} units");
        }
    }
    // In a straight line through both numbers the overlap falls no slower than along either.
    let moved = [middle[0] + 2.0 * unit[0], middle[1] + 2.0 * unit[1]];
    assert!((6..=8).contains(&shared(middle, moved)), "{}", shared(middle, moved));
}

#[test]
fn tiles_are_hashed_only_where_they_do_not_fit() {
    assert!(!coder(10, 10, 1000).is_hashed());
    assert_eq!(coder(10, 10, 1000).features(), 1001);
    let small = coder(10, 10, 999);
    assert!(small.is_hashed());
    assert_eq!(small.features(), 10 * 99 + 1);
    // Hashed tiles are spread: of 100 tiles in 99 places about 99 (1 - e^-1) = 63 places are taken.
    let taken: std::collections::BTreeSet<u32> = grid(200).flat_map(|obs| active(&small, &obs)).collect();
    assert!((580..=680).contains(&taken.len()), "{} of 990 places are taken", taken.len());
    // Without a bias there is a feature less, and the tiles are the same.
    let plain = TileCoding { bias: false, ..small.coding() };
    let plain = TileCoder::new(&bounds(), plain).unwrap();
    assert_eq!((plain.features(), active(&plain, &[0.1, 0.01])), (990, active(&small, &[0.1, 0.01])));
    // 400 numbers have more tiles than can be counted.
    let many = TileCoder::new(&BoxSpace::uniform(0.0, 1.0, 400), TileCoding::default()).unwrap();
    assert!(many.is_hashed() && many.features() == 16_380);
    let first = active(&many, &[0.0; 400]);
    assert_ne!(first, active(&many, &[1.0; 400]));
    // The same places on every machine and in every version.
    assert_eq!(active(&small, &[-0.5, 0.0])[..3], GOLDEN);
}
/// Recorded: policies that were saved depend on it.
const GOLDEN: [u32; 3] = [29, 164, 250];

#[test]
fn what_cannot_be_cut_is_refused() {
    let coding = TileCoding::default();
    for (low, high) in
        [(0.0, f32::INFINITY), (f32::NEG_INFINITY, 1.0), (1.0, 1.0), (2.0, 1.0), (f32::NAN, 1.0)]
    {
        let bounds = BoxSpace::new(vec![0.0, low], vec![1.0, high]);
        let found = TileCoder::new(&bounds, coding);
        assert!(matches!(found, Err(TileError::Bounds { index: 1, .. })), "[{low}, {high}]: {found:?}");
    }
    for (tilings, tiles, memory) in [(0, 10, 100), (10, 0, 100), (10, 10, 9)] {
        let sizes = TileCoding { tilings, tiles, memory, bias: false };
        assert_eq!(TileCoder::new(&bounds(), sizes), Err(TileError::Sizes { tilings, tiles, memory }));
    }
    let choices = EnvSpec {
        observation: Space::Discrete { n: 3 }.into(),
        ..Each::new(1, || RightChoices).spec().clone()
    };
    assert!(matches!(TileCoded::coder_for(&choices, coding), Err(TileError::NotBox { .. })));
}

fn coded(n: usize) -> Box<dyn BatchEnv> {
    let task = Each::new(n, || ObservedReward::new(ActionKind::Discrete));
    Box::new(
        TileCoded::new(
            Box::new(task),
            TileCoding { tilings: 4, tiles: 3, bias: true, ..TileCoding::default() },
        )
        .unwrap(),
    )
}

#[test]
fn a_coded_task_is_the_task_seen_through_tiles() {
    let task = ObservedReward::new(ActionKind::Discrete);
    let Some(Space::Box(bounds)) = task.spec().observation.single().cloned() else { panic!("a box") };
    let coder =
        TileCoder::new(&bounds, TileCoding { tilings: 4, tiles: 3, bias: true, ..TileCoding::default() })
            .unwrap();
    let mut plain = VecEnv::new(Box::new(Each::new(3, || task.clone())), 5, 0);
    let mut coded = VecEnv::new(coded(3), 5, 0);
    plain.start().unwrap();
    coded.start().unwrap();
    assert_eq!(coded.spec().id, format!("tiles:{}", plain.spec().id));
    assert_eq!(coded.spec().observation, BoxSpace::uniform(0.0, 1.0, 13).into());
    let mut random = RandomActions::new(&plain.spec().action, 3, 5, 0);
    let expected = |obs: pgrad_num::Cols<'_, f32>, b: usize| {
        let x: Vec<f32> = (0..obs.rows()).map(|i| obs.at(i, b)).collect();
        let mut features = vec![0.0; 13];
        active(&coder, &x).iter().for_each(|i| features[*i as usize] = 1.0);
        features[12] = 1.0;
        features
    };
    let mut ended = 0;
    for _ in 0..200 {
        for b in 0..3 {
            let got: Vec<f32> = (0..13).map(|i| coded.obs().at(i, b)).collect();
            assert_eq!(got, expected(plain.obs(), b));
            assert_eq!(got.iter().sum::<f32>(), 5.0);
        }
        let actions = random.draw();
        plain.step(actions).unwrap();
        coded.step(actions).unwrap();
        assert_eq!((plain.rewards(), plain.ends()), (coded.rewards(), coded.ends()));
        for b in (0..3).filter(|b| plain.ends()[*b] != End::Running) {
            ended += 1;
            let got: Vec<f32> = (0..13).map(|i| coded.final_obs().at(i, b)).collect();
            assert_eq!(got, expected(plain.final_obs(), b));
        }
    }
    assert!(ended > 10);
    // Saved and loaded, it goes on the same.
    let saved = coded.save();
    let mut restored = VecEnv::new(self::coded(3), 5, 0);
    assert_eq!(restored.load(&saved), plain.load(&plain.save()));
    assert_eq!(restored.obs().data(), coded.obs().data());
}

#[test]
fn a_coded_task_passes_the_check() {
    let findings = check_batch_env(|n| Ok(coded(n)), 1);
    let plain = check_batch_env(Each::maker(|| ObservedReward::new(ActionKind::Discrete)), 1);
    assert_eq!(findings, plain);
}

/// A task whose observation is not finite in its third step.
struct Breaks(u32);

impl Env for Breaks {
    fn spec(&self) -> EnvSpec {
        EnvSpec {
            observation: BoxSpace::uniform(-1.0, 1.0, 2).into(),
            max_episode_steps: None,
            ..ConstantReward::new(ActionKind::Discrete).spec()
        }
    }
    fn reset(&mut self, _: &mut Stream, obs: &mut Obs<'_>) {
        self.0 = 0;
        obs.write(&[0.0, 0.0]);
    }
    fn step(&mut self, _: Action<'_>, _: &mut Stream, obs: &mut Obs<'_>) -> Step {
        self.0 += 1;
        obs.write(&[0.0, if self.0 == 3 { f32::NAN } else { 0.0 }]);
        Step { reward: 0.0, end: End::Running }
    }
}

#[test]
fn a_number_that_is_not_finite_does_not_hide_behind_a_tile() {
    let task = Box::new(Each::new(1, || Breaks(0)));
    let mut envs = VecEnv::new(Box::new(TileCoded::new(task, TileCoding::default()).unwrap()), 1, 0);
    envs.start().unwrap();
    let mut random = RandomActions::new(&envs.spec().action, 1, 1, 0);
    envs.step(random.draw()).unwrap();
    envs.step(random.draw()).unwrap();
    let error = envs.step(random.draw()).unwrap_err();
    assert!(
        matches!(&error, EnvError::Observation { component, step: 3, value, .. } if value.is_nan() && &**component == "component 1"),
        "{error}"
    );
}
