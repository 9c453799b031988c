//! Each broken environment is found, by its own finding and by no other.

use super::*;
use crate::{Action, Actions, BoxSpace, End, Obs, ObsSpace, Step};
use pgrad_num::{ColsMut, Stream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What a [`Walk`] does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    NoName,
    EmptyObservation,
    EmptyAction,
    EmptyChoice,
    BoundsLength,
    BoundsOrder,
    BoundsNan,
    ZeroLimit,
    Threshold,
    MaskOfNumbers,
    PanicInReset,
    PanicInStep,
    ShortObservation,
    LongObservation,
    NothingWritten,
    NoFinalObservation,
    NanObservation,
    InfiniteObservation,
    OutOfSpace,
    NanReward,
    HugeReward,
    OwnRandomness,
    RewardAfterEnd,
    LeftOver,
    ResetsItself,
    NeverEnds,
    MaskAllowsNothing,
    MaskNotAnnounced,
    StateRefused,
    StateIncomplete,
}

static CALLS: AtomicU64 = AtomicU64::new(0);

/// A random walk from about 0 to −1 or +1, observed as `(x, steps/50)`.
struct Walk {
    fault: Fault,
    x: f64,
    steps: f64,
    pending: f64,
}

fn walk(fault: Fault) -> Walk {
    Walk { fault, x: 0.0, steps: 0.0, pending: 0.0 }
}

impl Env for Walk {
    fn spec(&self) -> EnvSpec {
        let mut spec = EnvSpec {
            id: "Walk".into(),
            observation: BoxSpace::uniform(-1.5, 1.5, 2).into(),
            action: Space::Discrete { n: 2 },
            max_episode_steps: Some(60),
            reward_threshold: Some(1.0),
            masks_actions: false,
        };
        let bounds = |low: [f32; 2], high: &[f32]| ObsSpace::from(BoxSpace::new(low.to_vec(), high.to_vec()));
        match self.fault {
            Fault::NoName => spec.id = String::new(),
            Fault::EmptyObservation => spec.observation = BoxSpace::unbounded(0).into(),
            Fault::EmptyAction => spec.action = Space::Discrete { n: 0 },
            Fault::EmptyChoice => spec.action = Space::MultiDiscrete { nvec: vec![2, 0] },
            Fault::BoundsLength => spec.observation = bounds([-1.0; 2], &[1.0]),
            Fault::BoundsOrder => spec.observation = bounds([-1.0, 2.0], &[1.0, 1.0]),
            Fault::BoundsNan => spec.observation = bounds([-1.0, f32::NAN], &[1.0, 1.0]),
            Fault::ZeroLimit => spec.max_episode_steps = Some(0),
            Fault::Threshold => spec.reward_threshold = Some(f64::NAN),
            Fault::MaskOfNumbers => {
                spec.action = Space::Box(BoxSpace::uniform(-1.0, 1.0, 1));
                spec.masks_actions = true;
            }
            Fault::NeverEnds => spec.max_episode_steps = None,
            Fault::MaskAllowsNothing => spec.masks_actions = true,
            _ => {}
        }
        spec
    }
    fn reset(&mut self, rng: &mut Stream, obs: &mut Obs<'_>) {
        assert!(self.fault != Fault::PanicInReset, "no ground to stand on");
        if self.fault != Fault::LeftOver {
            self.x = 0.0;
        }
        self.x = 0.1 * self.x + rng.uniform_in(-0.1, 0.1);
        self.steps = 0.0;
        obs.write_f64(&[self.x, 0.0]);
    }
    fn step(&mut self, action: Action<'_>, rng: &mut Stream, obs: &mut Obs<'_>) -> Step {
        assert!(self.fault != Fault::PanicInStep || self.steps < 5.0, "tripped at {}", self.x);
        self.x += if action.index() == 1 { 0.3 } else { -0.3 };
        self.steps += 1.0;
        if self.fault == Fault::NeverEnds {
            self.x = self.x.clamp(-0.9, 0.9);
            self.steps = 0.0;
        }
        let over = self.x.abs() >= 1.0;
        let end = if over { End::Terminated } else { End::Running };
        let mut reward = if over { self.x } else { 0.0 };
        let late = self.steps > 3.0;
        let mut seen = [self.x, self.steps / 50.0];
        match self.fault {
            Fault::NanObservation if late => seen[1] = f64::NAN,
            Fault::InfiniteObservation if late => seen[0] = f64::INFINITY,
            Fault::OutOfSpace => seen[0] *= 1.5,
            Fault::NanReward if late => reward = f64::NAN,
            Fault::HugeReward if late => reward = 1e300,
            Fault::OwnRandomness => seen[1] = CALLS.fetch_add(1, Ordering::Relaxed) as f64 * 1e-9,
            Fault::RewardAfterEnd => reward = std::mem::replace(&mut self.pending, reward),
            Fault::ResetsItself if over => {
                self.x = rng.uniform_in(-0.1, 0.1);
                seen = [self.x, 0.0];
            }
            _ => {}
        }
        match self.fault {
            Fault::ShortObservation => obs.write_f64(&seen[..1]),
            Fault::LongObservation => obs.write_f64(&[seen[0], seen[1], 0.0]),
            Fault::NothingWritten if !over => {}
            Fault::NoFinalObservation if over => {}
            _ => obs.write_f64(&seen),
        }
        Step { reward, end }
    }
    fn action_mask(&self, mask: &mut [bool]) {
        match self.fault {
            Fault::MaskAllowsNothing if self.steps == 2.0 => mask.fill(false),
            Fault::MaskNotAnnounced => mask[1] = self.x < 0.5,
            _ => {}
        }
    }
    fn save(&self) -> Option<Vec<f64>> {
        match self.fault {
            // The pending reward belongs to the fault of another test.
            Fault::RewardAfterEnd | Fault::OwnRandomness => None,
            Fault::StateIncomplete => Some(vec![self.x, 0.0]),
            _ => Some(vec![self.x, self.steps]),
        }
    }
    fn load(&mut self, state: &[f64]) -> bool {
        (self.x, self.steps) = (state[0], state[1]);
        self.fault != Fault::StateRefused
    }
}

#[test]
fn each_fault_has_its_finding_and_its_message() {
    type Is = fn(&Finding) -> bool;
    let cases: [(Fault, Is, &str); 30] = [
        (Fault::NoName, |f| matches!(f, Finding::NoName), "no name"),
        (
            Fault::EmptyObservation,
            |f| matches!(f, Finding::EmptySpace { role: Role::Observation, .. }),
            "the observation space",
        ),
        (
            Fault::EmptyAction,
            |f| matches!(f, Finding::EmptySpace { role: Role::Action, .. }),
            "`Discrete(0)` is empty",
        ),
        (Fault::EmptyChoice, |f| matches!(f, Finding::EmptySpace { .. }), "MultiDiscrete([2 0])"),
        (
            Fault::BoundsLength,
            |f| matches!(f, Finding::BoundsLength { low: 2, high: 1, .. }),
            "2 lower and 1 upper",
        ),
        (
            Fault::BoundsOrder,
            |f| matches!(f, Finding::Bounds { index: 1, .. }),
            "component 1 of the observation space has the empty range from 2 to 1",
        ),
        (Fault::BoundsNan, |f| matches!(f, Finding::Bounds { index: 1, .. }), "from NaN to 1"),
        (Fault::ZeroLimit, |f| matches!(f, Finding::ZeroLimit), "limit is 0"),
        (Fault::Threshold, |f| matches!(f, Finding::Threshold { .. }), "threshold is NaN"),
        (
            Fault::MaskOfNumbers,
            |f| matches!(f, Finding::MaskWithoutAlternatives { .. }),
            "`Box(-1.0, 1.0, (1,), float32)` cannot be masked",
        ),
        (
            Fault::PanicInReset,
            |f| matches!(f, Finding::Panic { during: "reset", .. }),
            "episode 0, reset: `reset` panicked: no ground",
        ),
        (
            Fault::PanicInStep,
            |f| matches!(f, Finding::Panic { during: "step", place: Place { step: 6, .. }, .. }),
            "tripped at",
        ),
        (
            Fault::ShortObservation,
            |f| matches!(f, Finding::Shape { expected: 2, got: 1, .. }),
            "episode 0, step 1: the observation has 1 numbers, its space has 2",
        ),
        (Fault::LongObservation, |f| matches!(f, Finding::Shape { got: 3, .. }), "has 3 numbers"),
        (Fault::NothingWritten, |f| matches!(f, Finding::NotWritten { .. }), "no observation was written"),
        (
            Fault::NoFinalObservation,
            |f| matches!(f, Finding::MissingFinalObservation { end: End::Terminated, .. }),
            "final observation was not written",
        ),
        (
            Fault::NanObservation,
            |f| matches!(f, Finding::ObservationNotFinite { index: 1, .. }),
            "component 1 of the observation is NaN",
        ),
        (
            Fault::InfiniteObservation,
            |f| matches!(f, Finding::ObservationNotFinite { index: 0, .. }),
            "component 0 of the observation is inf",
        ),
        (Fault::OutOfSpace, |f| matches!(f, Finding::OutOfSpace { index: 0, .. }), "-1.5 to 1.5"),
        (Fault::NanReward, |f| matches!(f, Finding::RewardNotFinite { .. }), "the reward is NaN"),
        (Fault::HugeReward, |f| matches!(f, Finding::RewardNotFinite { .. }), "single precision"),
        (
            Fault::OwnRandomness,
            |f| matches!(f, Finding::Nondeterministic { place: Place { episode: 0, step: 1 }, .. }),
            "same seed and the same actions differ: component 1 of the observation",
        ),
        (
            Fault::RewardAfterEnd,
            |f| {
                matches!(f, Finding::RewardAfterEnd { place: Place { episode: 1, step: 1 }, expected, got }
                if *expected == 0.0 && got.abs() >= 1.0)
            },
            "paid after the end of the episode",
        ),
        (
            Fault::LeftOver,
            |f| matches!(f, Finding::LeftOver { place: Place { episode: 1, step: 0 }, .. }),
            "set every field in `reset`",
        ),
        (Fault::ResetsItself, |f| matches!(f, Finding::ResetsItself), "by itself"),
        (Fault::NeverEnds, |f| matches!(f, Finding::NeverEnds { steps: ENDLESS }), "max_episode_steps"),
        (
            Fault::MaskAllowsNothing,
            |f| matches!(f, Finding::MaskAllowsNothing { choice: 0, place: Place { step: 2, .. } }),
            "allows no alternative of choice 0",
        ),
        (
            Fault::MaskNotAnnounced,
            |f| matches!(f, Finding::MaskNotAnnounced { index: 1, .. }),
            "set `EnvSpec::masks_actions`",
        ),
        (
            Fault::StateRefused,
            |f| matches!(f, Finding::StateRefused { place: Place { episode: 0, step: 0 } }),
            "`load` refuses",
        ),
        (
            Fault::StateIncomplete,
            |f| {
                matches!(
                    f,
                    Finding::RestoreNotExact { difference: Difference::Observation { index: 1, .. }, .. }
                )
            },
            "restored at episode",
        ),
    ];
    for (fault, is, message) in cases {
        let findings = check_env(|| walk(fault), 1);
        assert!(findings.len() == 1 && is(&findings[0]), "{fault:?}: {findings:?}");
        let text = findings[0].to_string();
        assert!(text.contains(message), "{fault:?}: {text}");
        let warning = matches!(fault, Fault::ResetsItself | Fault::NeverEnds);
        assert_eq!(findings[0].severity() == Severity::Warning, warning, "{fault:?}");
    }
}

#[test]
fn a_sound_environment_has_no_findings() {
    for seed in 0..20 {
        assert_eq!(check_env(|| walk(Fault::None), seed), []);
    }
}

/// An environment of one step whose observation, in a space of any kind, is given.
struct Shows {
    space: Space,
    obs: Vec<f32>,
}

impl Env for Shows {
    fn spec(&self) -> EnvSpec {
        EnvSpec { observation: self.space.clone().into(), ..walk(Fault::None).spec() }
    }
    fn reset(&mut self, _: &mut Stream, obs: &mut Obs<'_>) {
        obs.write(&self.obs);
    }
    fn step(&mut self, _: Action<'_>, _: &mut Stream, obs: &mut Obs<'_>) -> Step {
        obs.write(&self.obs);
        Step { reward: 0.0, end: End::Terminated }
    }
}

#[test]
fn observations_are_held_against_every_kind_of_space() {
    let choices = || Space::MultiDiscrete { nvec: vec![2, 3] };
    let pixel = || Space::Box(BoxSpace::uniform(0.0, 1e7, 1).shaped(&[1], crate::Dtype::U32));
    let cases: [(Space, &[f32], Option<usize>); 15] = [
        // What rounding does is no finding, for real numbers.
        (Space::Box(BoxSpace::uniform(-1.0, 1.0, 1)), &[1.000_000_1], None),
        (Space::Box(BoxSpace::uniform(-1.0, 1.0, 1)), &[-1.000_01], Some(0)),
        (Space::Box(BoxSpace::uniform(0.0, 1000.0, 1)), &[1000.0005], None),
        (Space::Box(BoxSpace::uniform(0.0, 0.0, 1)), &[0.1], Some(0)),
        (pixel(), &[1e7], None),
        (pixel(), &[1e7 + 1.0], Some(0)),
        (Space::Discrete { n: 3 }, &[0.0, 1.0, 0.0], None),
        (Space::Discrete { n: 3 }, &[0.0, 1.0, 0.5], Some(2)),
        (Space::Discrete { n: 3 }, &[1.0, 1.0, 0.0], Some(0)),
        (choices(), &[0.0, 1.0, 1.0, 0.0, 0.0], None),
        (choices(), &[0.0, 1.0, 0.0, 0.0, 0.0], Some(2)),
        (Space::MultiBinary { n: 2 }, &[1.0, 1.0], None),
        (Space::MultiBinary { n: 2 }, &[1.0, 2.0], Some(1)),
        (Space::Box(BoxSpace::unbounded(1)), &[1e30], None),
        (Space::Box(BoxSpace::new(vec![0.0, 0.0], vec![1.0, f32::INFINITY])), &[1.0, -0.1], Some(1)),
    ];
    for (space, obs, wrong) in cases {
        let findings = check_env(|| Shows { space: space.clone(), obs: obs.to_vec() }, 1);
        match (wrong, &findings[..]) {
            (None, []) => {}
            (Some(i), [Finding::OutOfSpace { index, .. }]) if *index == i => {}
            _ => panic!("{space} {obs:?}: {findings:?}"),
        }
    }
}

/// What a [`Batch`] does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BatchFault {
    None,
    Length,
    EndsNotWritten,
    NothingObserved,
    HalfObserved,
    NoFinalObservation,
    CopiesDepend,
    ObserveOne,
}

struct Batch {
    inner: Each<Walk>,
    fault: BatchFault,
    over: bool,
}

impl BatchEnv for Batch {
    fn spec(&self) -> &EnvSpec {
        self.inner.spec()
    }
    fn len(&self) -> usize {
        self.inner.len() + usize::from(self.fault == BatchFault::Length && self.inner.len() > 1)
    }
    fn reset(&mut self, b: usize, rng: &mut Stream) {
        self.over = false;
        self.inner.reset(b, rng);
    }
    fn step(&mut self, actions: Actions<'_>, rngs: &mut [Stream], rewards: &mut [f64], ends: &mut [End]) {
        let before = ends.to_vec();
        self.inner.step(actions, rngs, rewards, ends);
        self.over = ends[0] != End::Running;
        for (end, before) in ends.iter_mut().zip(before) {
            if self.fault == BatchFault::EndsNotWritten && *end == End::Running {
                *end = before;
            }
        }
        if self.fault == BatchFault::CopiesDepend {
            let sum: f64 = rewards.iter().sum();
            rewards[rewards.len() - 1] = sum;
        }
    }
    fn observe(&self, mut obs: ColsMut<'_, f32>) {
        match self.fault {
            BatchFault::NothingObserved => {}
            BatchFault::NoFinalObservation if self.over => {}
            BatchFault::HalfObserved => {
                let mut whole = vec![0.0; 2 * self.inner.len()];
                self.inner.observe(ColsMut::new(&mut whole, 2, self.inner.len()));
                obs.row_mut(0).copy_from_slice(&whole[..self.inner.len()]);
            }
            _ => self.inner.observe(obs),
        }
    }
    fn observe_one(&self, b: usize, obs: &mut [f32]) {
        self.inner.observe_one(b, obs);
        if self.fault == BatchFault::ObserveOne {
            obs.swap(0, 1);
        }
    }
    fn save(&self, b: usize) -> Option<Vec<f64>> {
        self.inner.save(b)
    }
    fn load(&mut self, b: usize, state: &[f64]) -> bool {
        self.inner.load(b, state)
    }
}

#[test]
fn each_fault_of_a_batch_has_its_finding() {
    type Is = fn(&Finding) -> bool;
    let cases: [(BatchFault, Is); 7] = [
        (BatchFault::Length, |f| matches!(f, Finding::BatchLength { expected: 7, got: 8 })),
        (BatchFault::EndsNotWritten, |f| matches!(f, Finding::EndNotWritten { .. })),
        (BatchFault::NothingObserved, |f| matches!(f, Finding::NotWritten { .. })),
        (BatchFault::HalfObserved, |f| matches!(f, Finding::Shape { expected: 2, got: 1, .. })),
        (BatchFault::NoFinalObservation, |f| matches!(f, Finding::MissingFinalObservation { .. })),
        (BatchFault::CopiesDepend, |f| matches!(f, Finding::CopyDepends { copy: 6, len: 7, .. })),
        (BatchFault::ObserveOne, |f| matches!(f, Finding::ObserveOne { .. })),
    ];
    let found = |fault| {
        let make = move |n| -> BatchResult {
            Ok(Box::new(Batch { inner: Each::new(n, || walk(Fault::None)), fault, over: false }))
        };
        check_batch_env(make, 1).unwrap()
    };
    assert_eq!(found(BatchFault::None), []);
    for (fault, is) in cases {
        let findings = found(fault);
        assert!(findings.iter().any(is), "{fault:?}: {findings:?}");
        // One fault may show in more than one way, but never in none of its own.
        assert!(findings.len() <= 2, "{fault:?}: {findings:?}");
    }
}

/// A walk of which there can be one at a time.
struct Exclusive(Walk);

static EXIST: AtomicUsize = AtomicUsize::new(0);

impl Exclusive {
    fn new() -> Self {
        EXIST.fetch_add(1, Ordering::SeqCst);
        Self(walk(Fault::None))
    }
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        EXIST.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Env for Exclusive {
    fn spec(&self) -> EnvSpec {
        self.0.spec()
    }
    fn reset(&mut self, rng: &mut Stream, obs: &mut Obs<'_>) {
        assert_eq!(EXIST.load(Ordering::SeqCst), 1, "the port is taken");
        self.0.reset(rng, obs);
    }
    fn step(&mut self, action: Action<'_>, rng: &mut Stream, obs: &mut Obs<'_>) -> Step {
        self.0.step(action, rng, obs)
    }
}

#[test]
fn one_that_cannot_exist_twice_is_checked_alone() {
    let findings = check_batch_env(|n| Ok(Box::new(Each::new(n, Exclusive::new)) as _), 1).unwrap();
    assert!(
        matches!(&findings[..], [Finding::OneAtATime { reason }] if reason.contains("the port is taken")),
        "{findings:?}"
    );
    assert_eq!(findings[0].severity(), Severity::Warning);
    assert!(findings[0].to_string().contains("--n-envs 1"));
}

#[test]
fn a_check_ends_when_it_is_told_to() {
    let make = |n| Ok(Box::new(Each::new(n, || walk(Fault::None))) as Box<dyn BatchEnv>);
    let mut most = 0;
    assert_eq!(
        check_batch_env_while(make, 1, &mut |steps| {
            most = steps;
            true
        }),
        Ok(vec![])
    );
    assert!(most > 1000);
    for limit in [0, 1, 700, most] {
        let findings = check_batch_env_while(make, 1, &mut |steps| steps < limit).unwrap();
        assert_eq!(findings, [Finding::Stopped { steps: limit }]);
    }
}

/// What can be found in an environment in Python is told in Python's words.
#[test]
fn python_is_spoken_to_in_python() {
    let (place, difference) = (Place::default(), Difference::Mask);
    let findings = [
        (Finding::Shape { place, expected: 2, got: 3 }, "observation_space"),
        (
            Finding::OutOfSpace {
                place,
                index: 0,
                component: "x".into(),
                value: 2.0,
                expected: "0 to 1".into(),
            },
            "`observation_space`",
        ),
        (Finding::Nondeterministic { place, difference }, "`self.np_random`"),
        (Finding::RewardAfterEnd { place, expected: 0.0, got: 1.0 }, "`step`"),
        (Finding::LeftOver { place, difference }, "attribute"),
        (Finding::NeverEnds { steps: 10 }, "gymnasium.register"),
    ];
    for (finding, word) in findings {
        let text = finding.in_python();
        assert!(text.contains(word), "{text}");
        assert!(!text.contains("EnvSpec") && !text.contains("`rng`") && !text.contains("None"), "{text}");
        assert_ne!(text, finding.to_string());
    }
}
