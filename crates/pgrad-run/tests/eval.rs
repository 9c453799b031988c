//! Evaluation counts what an environment fails in.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

use pgrad_env::{Action, BoxSpace, Each, End, Env, EnvSpec, Obs, Space, Step};
use pgrad_num::Stream;
use pgrad_run::config::{RunConfig, env_maker};
use pgrad_run::eval::{
    EvalError, EvalOptions, EvalProgress, Evaluation, evaluate, evaluate_run, evaluate_run_telling,
};
use pgrad_run::trainer::Trainer;

/// Ten steps of reward 1; in some episodes the third step breaks it, or ends it with -100.
#[derive(Clone, Copy)]
struct Fragile {
    share: f64,
    breaks: bool,
    bad: bool,
    t: u32,
}

impl Fragile {
    fn new(share: f64, breaks: bool) -> Self {
        Self { share, breaks, bad: false, t: 0 }
    }
}

impl Env for Fragile {
    fn spec(&self) -> EnvSpec {
        EnvSpec {
            id: "Fragile".into(),
            observation: Space::Box(BoxSpace::unbounded(1)).into(),
            action: Space::Discrete { n: 2 },
            max_episode_steps: None,
            reward_threshold: None,
            masks_actions: false,
        }
    }
    fn reset(&mut self, rng: &mut Stream, obs: &mut Obs<'_>) {
        (self.t, self.bad) = (0, rng.uniform_in(0.0, 1.0) < self.share);
        obs.write_f64(&[0.0]);
    }
    fn step(&mut self, _: Action<'_>, _: &mut Stream, obs: &mut Obs<'_>) -> Step {
        self.t += 1;
        obs.write_f64(&[0.0]);
        match (self.bad && self.t == 3, self.breaks) {
            (true, true) => Step { reward: 0.0, end: End::Lost },
            (true, false) => Step { reward: -100.0, end: End::Terminated },
            _ => Step { reward: 1.0, end: if self.t == 10 { End::Terminated } else { End::Running } },
        }
    }
}

fn found(share: f64, breaks: bool) -> Result<Evaluation, EvalError> {
    let config = RunConfig::custom("ppo", "Fragile", env_maker(|| Fragile::new(0.0, false))).unwrap();
    let policy = Trainer::new(config, 1).unwrap().policy(1);
    let options = EvalOptions { episodes: 600, ..EvalOptions::default() };
    evaluate(policy, |n| Ok(Box::new(Each::new(n, || Fragile::new(share, breaks)))), &options)
}

#[test]
fn a_lost_episode_is_counted_and_not_replaced_by_another() {
    // The same episodes, told as endings: they are what is lost.
    let all = found(0.1, false).unwrap();
    let bad = all.returns.iter().filter(|r| **r < 0.0).count();
    assert!((30..=90).contains(&bad), "{bad} of 600 at a tenth");
    assert_eq!((all.returns.len(), all.episodes_lost), (600, 0));
    let others = found(0.1, true).unwrap();
    assert_eq!((others.returns.len(), others.episodes_lost), (600 - bad, bad));
    assert!(others.returns.iter().all(|r| *r == 10.0));
    let error = found(1.0, true).unwrap_err();
    assert!(matches!(&error, EvalError::Lost { episodes: 600, .. }), "{error}");
    assert_eq!(error.exit_code(), 65);
}

/// Ten steps; a share of the episodes never ends.
struct Sticks {
    share: f64,
    inner: Fragile,
}

impl Env for Sticks {
    fn spec(&self) -> EnvSpec {
        self.inner.spec()
    }
    fn reset(&mut self, rng: &mut Stream, obs: &mut Obs<'_>) {
        self.inner.reset(rng, obs);
        self.inner.bad = rng.uniform_in(0.0, 1.0) < self.share;
    }
    fn step(&mut self, action: Action<'_>, rng: &mut Stream, obs: &mut Obs<'_>) -> Step {
        let stuck = std::mem::take(&mut self.inner.bad);
        let step = self.inner.step(action, rng, obs);
        self.inner.bad = stuck;
        if stuck { Step { reward: 1.0, end: End::Running } } else { step }
    }
}

#[test]
fn episodes_that_do_not_end_are_given_up_and_counted() {
    let found = |share: f64, n_envs: usize, told: &mut Vec<EvalProgress>| {
        let make = move || Sticks { share, inner: Fragile::new(0.0, false) };
        let config = RunConfig::custom("ppo", "Sticks", env_maker(make)).unwrap();
        let policy = || Trainer::new(config.clone(), 1).unwrap().policy(1);
        let options = EvalOptions { episodes: 40, max_steps: 25, n_envs, ..EvalOptions::default() };
        let strict = evaluate_run(policy(), &config, &options);
        assert_eq!(strict.is_err(), share > 0.0, "who does not count them gets none");
        evaluate_run_telling(policy(), &config, &options, &mut |p| told.push(p))
    };
    let mut told = Vec::new();
    let some = found(0.3, 7, &mut told).unwrap();
    assert!((4..=25).contains(&some.episodes_unfinished), "{some:?}");
    assert_eq!(some.returns.len() + some.episodes_unfinished, 40);
    assert!(some.returns.iter().all(|r| *r == 10.0));
    assert_eq!(found(0.3, 256, &mut Vec::new()).unwrap(), some, "however many are stepped at once");
    assert!(told.windows(2).all(|w| w[0].done <= w[1].done && w[1].episodes == 40));
    assert!(told.windows(2).all(|w| w[0].steps < w[1].steps), "also from one batch to the next");
    assert!(told.last().unwrap().done >= 35 && told[1].steps == 7, "{told:?}");
    let none = found(1.0, 7, &mut Vec::new()).unwrap_err();
    assert!(matches!(none, EvalError::Endless { steps: 25, .. }), "{none}");
    assert_eq!(found(0.0, 1, &mut Vec::new()).unwrap().returns, [10.0; 40]);
}

/// Fifty steps, two actions: the return tells the actions that were taken, and the last digits the start.
#[derive(Clone, Copy, Default)]
struct Tells {
    t: u32,
    start: f64,
}

impl Env for Tells {
    fn spec(&self) -> EnvSpec {
        Fragile::new(0.0, false).spec()
    }
    fn reset(&mut self, rng: &mut Stream, obs: &mut Obs<'_>) {
        *self = Self { t: 0, start: rng.uniform() };
        obs.write_f64(&[0.0]);
    }
    fn step(&mut self, action: Action<'_>, _: &mut Stream, obs: &mut Obs<'_>) -> Step {
        obs.write_f64(&[0.0]);
        let own = if self.t == 0 { self.start } else { 0.0 };
        let reward = own + 2f64.powi(self.t as i32) * action.index() as f64;
        self.t += 1;
        Step { reward, end: if self.t == 40 { End::Terminated } else { End::Running } }
    }
}

/// Of 600 episodes, more than are played side by side, no two begin alike, and no two are drawn alike.
#[test]
fn every_episode_has_streams_of_its_own() {
    let told = |stochastic: bool, seed: u64| {
        let config = RunConfig::custom("ppo", "Fragile", env_maker(Tells::default)).unwrap();
        let policy = Trainer::new(config, 1).unwrap().policy(1);
        let options = EvalOptions { episodes: 600, stochastic, seed, ..EvalOptions::default() };
        evaluate(policy, |n| Ok(Box::new(Each::new(n, Tells::default))), &options).unwrap().returns
    };
    let distinct = |mut x: Vec<f64>| {
        x.sort_by(f64::total_cmp);
        x.dedup();
        x.len()
    };
    let (greedy, drawn) = (told(false, 7), told(true, 7));
    assert_eq!(distinct(greedy.iter().map(|x| x.fract()).collect()), 600, "starts");
    assert_eq!(distinct(drawn.iter().map(|x| x.trunc()).collect()), 600, "actions");
    // A return is a sum: what is drawn moves the last digits of its fraction.
    let same_starts = |x: &[f64], y: &[f64]| {
        x.iter().zip(y).all(|(x, y)| {
            let apart = (x.fract() - y.fract()).abs();
            apart.min(1.0 - apart) < 2e-3
        })
    };
    assert!(same_starts(&greedy, &drawn), "the same episodes, whoever acts");
    assert!(!same_starts(&greedy, &told(false, 8)), "another seed, other episodes");
}
