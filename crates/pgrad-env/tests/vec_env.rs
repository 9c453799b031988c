//! The shard of environments: time limits, resets, statistics, errors, masks, saved state.

#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

use pgrad_env::{
    Action, Actions, BoxSpace, Each, End, Env, EnvError, EnvSpec, Obs, RandomActions, Space, Step, VecEnv,
};
use pgrad_num::{Cols, ColsMut, RecordError, Stream};
use pgrad_testkit::{CountingAllocator, assert_allocates_nothing};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// What a [`Counter`] writes or returns at one step of one episode.
#[derive(Clone, Copy, Debug)]
enum Bad {
    Obs(usize, f32),
    Reward(f64),
    Shape(usize),
}

/// Counts: the observation is `(start, steps)`, the reward `start + steps`, the start is random. It ends by
/// itself after `ends_after` steps.
#[derive(Clone)]
struct Counter {
    limit: Option<u32>,
    ends_after: u32,
    saves: bool,
    bad: Option<(u64, u32, Bad)>,
    start: f64,
    steps: u32,
    episode: u64,
}

fn counter(limit: Option<u32>, ends_after: u32) -> Counter {
    Counter { limit, ends_after, saves: true, bad: None, start: 0.0, steps: 0, episode: 0 }
}

impl Counter {
    /// Writes the observation; a bad reward, if it is time for one.
    fn write(&self, obs: &mut Obs<'_>) -> Option<f64> {
        let mut seen = [self.start as f32, self.steps as f32, 0.0];
        let (mut n, mut reward) = (2, None);
        match self.bad.filter(|(episode, step, _)| (*episode, *step) == (self.episode, self.steps)) {
            Some((.., Bad::Obs(index, x))) => seen[index] = x,
            Some((.., Bad::Reward(r))) => reward = Some(r),
            Some((.., Bad::Shape(got))) => n = got,
            None => {}
        }
        obs.write(&seen[..n]);
        reward
    }
}

impl Env for Counter {
    fn spec(&self) -> EnvSpec {
        EnvSpec {
            id: "Counter".into(),
            observation: BoxSpace::unbounded(2).into(),
            action: Space::Discrete { n: 3 },
            max_episode_steps: self.limit,
            reward_threshold: None,
            masks_actions: true,
        }
    }
    fn reset(&mut self, rng: &mut Stream, obs: &mut Obs<'_>) {
        self.episode += u64::from(self.steps > 0);
        self.start = f64::from(rng.uniform_f32());
        self.steps = 0;
        self.write(obs);
    }
    fn step(&mut self, _: Action<'_>, _: &mut Stream, obs: &mut Obs<'_>) -> Step {
        self.steps += 1;
        let reward = self.write(obs).unwrap_or(self.start + f64::from(self.steps));
        let end = if self.steps >= self.ends_after { End::Terminated } else { End::Running };
        Step { reward, end }
    }
    fn action_mask(&self, mask: &mut [bool]) {
        mask[(self.steps % 3) as usize] = false;
        if self.steps == 4 {
            mask.fill(false);
        }
    }
    fn save(&self) -> Option<Vec<f64>> {
        self.saves.then(|| vec![self.start, f64::from(self.steps), self.episode as f64])
    }
    fn load(&mut self, state: &[f64]) -> bool {
        (self.start, self.steps, self.episode) = (state[0], state[1] as u32, state[2] as u64);
        true
    }
}

fn started(n: usize, first: usize, make: impl FnMut() -> Counter) -> VecEnv {
    let mut envs = VecEnv::new(Box::new(Each::new(n, make)), 5, first);
    envs.start().unwrap();
    envs
}

fn step(envs: &mut VecEnv) -> Result<(), EnvError> {
    let actions = vec![0; envs.len()];
    envs.step(Actions::index(Cols::new(&actions, 1, actions.len())))
}

#[test]
fn the_limit_cuts_and_shows_the_last_and_the_first_state() {
    let mut envs = started(3, 0, || counter(Some(4), u32::MAX));
    for episode in 0..3 {
        let starts: Vec<f32> = envs.obs().row(0).to_vec();
        for t in 1..=4u32 {
            step(&mut envs).unwrap();
            let last = t == 4;
            assert_eq!(envs.ends(), [if last { End::Truncated } else { End::Running }; 3]);
            assert_eq!(envs.rewards()[1], f64::from(starts[1]) + f64::from(t));
            assert_eq!(envs.obs().row(1), [if last { 0.0 } else { t as f32 }; 3]);
            assert_eq!(envs.position(2), if last { (episode + 1, 0) } else { (episode, t) });
        }
        // The old episode's last observation here, the new one's first there.
        assert_eq!(envs.final_obs().row(0), starts);
        assert_eq!(envs.final_obs().row(1), [4.0; 3]);
        assert!((0..3).all(|b| envs.obs().at(0, b) != starts[b]));
    }
}

#[test]
fn an_end_on_the_limit_stays_a_termination() {
    let mut envs = started(1, 0, || counter(Some(4), 4));
    for _ in 0..4 {
        step(&mut envs).unwrap();
    }
    assert_eq!(envs.ends(), [End::Terminated]);
    assert_eq!(envs.finished()[0].end, End::Terminated);
}

#[test]
fn episodes_are_counted() {
    // Environment 10 ends after 2 steps, 11 after 3, 12 after 4.
    let lengths = [2, 3, 4];
    let mut made = 0;
    let mut envs = started(3, 10, || {
        made += 1;
        counter(Some(100), lengths[made - 1])
    });
    let starts: Vec<f64> = envs.obs().row(0).iter().map(|x| f64::from(*x)).collect();
    for _ in 0..4 {
        step(&mut envs).unwrap();
    }
    assert_eq!(envs.finished().iter().map(|e| e.env).collect::<Vec<_>>(), [10, 11, 10, 12]);
    for (b, n) in lengths.into_iter().enumerate() {
        let episode = envs.finished().iter().find(|e| e.env == 10 + b).unwrap();
        let expected = f64::from(n) * starts[b] + f64::from(n * (n + 1) / 2);
        assert!((episode.episode_return - expected).abs() < 1e-12, "{episode:?}");
        assert_eq!((episode.length, episode.end), (n, End::Terminated));
    }
    envs.clear_finished();
    assert!(envs.finished().is_empty());
}

/// Steps until the first error, and says how many episodes were counted by then.
fn first_error(bad: (u64, u32, Bad), limit: u32) -> (EnvError, usize) {
    let mut made = 0;
    let batch = Each::new(3, || {
        made += 1;
        Counter { bad: (made == 2).then_some(bad), ..counter(Some(limit), u32::MAX) }
    });
    let mut envs = VecEnv::new(Box::new(batch), 5, 20);
    if let Err(e) = envs.start() {
        return (e, envs.finished().len());
    }
    for _ in 0..100 {
        let counted = envs.finished().len();
        if let Err(e) = step(&mut envs) {
            assert_eq!(envs.finished().len(), counted, "the failing step counted an episode");
            return (e, counted);
        }
    }
    panic!("{bad:?} was not found");
}

#[test]
fn bad_observations_rewards_and_shapes_are_named() {
    // In the first and a later episode; at the reset, amid the episode, and on its last step.
    for (episode, step) in [(0, 0), (0, 1), (0, 5), (2, 0), (2, 3), (2, 5)] {
        let place = format!("environment 21 (`Counter`), episode {episode}, step {step}");
        // A reset that fails belongs to the step that ended the episode before.
        let whole = if step == 0 { u64::saturating_sub(episode, 1) } else { episode };
        let counted = 3 * whole as usize;
        let error = |bad| {
            let (error, n) = first_error((episode, step, bad), 5);
            assert_eq!(n, counted, "{error}");
            error.to_string()
        };
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for index in 0..2 {
                let expected = format!("{place}: component {index} of the observation is {value}");
                assert_eq!(error(Bad::Obs(index, value)), expected);
            }
        }
        for got in [0, 1, 3] {
            let expected = format!("{place}: the observation has {got} numbers, its space has 2");
            assert_eq!(error(Bad::Shape(got)), expected);
        }
        if step > 0 {
            for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, -1e39] {
                assert_eq!(error(Bad::Reward(value)), format!("{place}: the reward is {value}"));
            }
        }
    }
}

#[test]
fn masks_are_handed_on_and_must_allow_something() {
    let mut envs = started(2, 6, || counter(Some(50), u32::MAX));
    let (mut masks, mut scratch) = (vec![false; 6], Vec::new());
    for t in 0..4 {
        envs.action_masks(ColsMut::new(&mut masks, 3, 2), &mut scratch).unwrap();
        for i in 0..3 {
            assert_eq!(masks[2 * i..2 * i + 2], [i != t % 3; 2]);
        }
        step(&mut envs).unwrap();
    }
    let error = envs.action_masks(ColsMut::new(&mut masks, 3, 2), &mut scratch).unwrap_err();
    assert_eq!(error, EnvError::Mask { id: "Counter".into(), env: 6, episode: 0, step: 4, choice: 0 });
}

#[test]
fn a_shard_does_not_depend_on_how_environments_are_shared_out() {
    let trace = |first: usize, n: usize| {
        let mut envs = started(n, first, || counter(Some(7), u32::MAX));
        let mut rows = Vec::new();
        for _ in 0..30 {
            step(&mut envs).unwrap();
            for b in 0..n {
                rows.push((first + b, envs.obs().at(0, b), envs.rewards()[b], envs.final_obs().at(0, b)));
            }
        }
        rows.sort_by_key(|row| row.0);
        rows
    };
    let whole = trace(0, 5);
    let mut parts = trace(0, 2);
    parts.extend(trace(2, 3));
    assert_eq!(whole, parts);
}

#[test]
fn a_saved_shard_continues_exactly() {
    let make = || started(3, 2, || counter(Some(7), 5));
    let mut original = make();
    for _ in 0..13 {
        step(&mut original).unwrap();
    }
    original.clear_finished();
    let saved = original.save();
    let mut other = make();
    for _ in 0..4 {
        step(&mut other).unwrap();
    }
    other.clear_finished();
    assert_eq!(other.load(&saved), Ok(true));
    assert_eq!(other.save(), saved);
    for _ in 0..20 {
        assert_eq!(other.obs().data(), original.obs().data());
        step(&mut original).unwrap();
        step(&mut other).unwrap();
        assert_eq!((other.rewards(), other.ends()), (original.rewards(), original.ends()));
        assert_eq!(other.position(1), original.position(1));
    }
    assert_eq!(other.finished(), original.finished());
    assert!(!original.finished().is_empty());
}

#[test]
fn what_cannot_be_saved_starts_anew() {
    let make = || started(2, 0, || Counter { saves: false, ..counter(Some(7), u32::MAX) });
    let mut original = make();
    for _ in 0..3 {
        step(&mut original).unwrap();
    }
    let mut other = make();
    assert_eq!(other.load(&original.save()), Ok(false));
    assert_eq!((other.obs().row(1), other.position(0).1), (&[0.0f32; 2][..], 0));
}

#[test]
fn a_record_of_other_environments_is_refused() {
    let saved = started(2, 0, || counter(Some(7), 5)).save();
    let error = started(3, 0, || counter(Some(7), 5)).load(&saved).unwrap_err();
    assert_eq!(error, RecordError::Length { name: "streams".into(), expected: 3, got: 2 });
}

#[test]
fn stepping_allocates_nothing() {
    let mut envs = started(8, 0, || counter(Some(7), 5));
    envs.reserve_episodes(1000);
    let mut random = RandomActions::new(&envs.spec().action, 8, 1, 0);
    let (mut masks, mut scratch) = (vec![false; 24], Vec::with_capacity(3));
    assert_allocates_nothing(|| {
        for t in 0..50 {
            envs.step(random.draw()).unwrap();
            if t % 5 == 0 {
                envs.action_masks(ColsMut::new(&mut masks, 3, 8), &mut scratch).unwrap();
            }
        }
    });
    assert!(envs.finished().len() > 50);
}

#[test]
fn a_restart_gives_up_the_episodes_under_way_and_no_others() {
    let mut envs = started(2, 0, || counter(Some(4), u32::MAX));
    let first = envs.obs().row(0).to_vec();
    envs.restart().unwrap();
    assert_eq!(envs.obs().row(0), first, "nothing was under way");
    step(&mut envs).unwrap();
    envs.restart().unwrap();
    assert_eq!((envs.position(0), envs.position(1)), ((1, 0), (1, 0)));
    assert_eq!(envs.obs().row(1), [0.0, 0.0]);
    assert!(envs.obs().row(0).iter().zip(&first).all(|(new, old)| new != old), "other starts");
    assert!(envs.finished().is_empty(), "what was given up is not counted");
    let starts = envs.obs().row(0).to_vec();
    for _ in 0..4 {
        step(&mut envs).unwrap();
    }
    for (episode, start) in envs.finished().iter().zip(starts) {
        assert_eq!(episode.length, 4);
        assert!((episode.episode_return - 4.0 * f64::from(start) - 10.0).abs() < 1e-9);
    }
}
