//! MinAtar's games against the Python package, step by step.
//!
//! `goldens/minatar/make.py` plays the package and writes down every random number that it draws, in order,
//! with its kind and range. Here the same numbers are handed to our games, and everything must come out the
//! same: what is drawn and when, the reward and the end of every step, all bits of the observation, and every
//! variable of the state. Observation and state are compared through a hash over all steps so far, so that a
//! file holds some bytes a step and still nothing can differ anywhere.
//!
//! This is stricter than to start each step in a recorded state, which cannot see a timer that is never
//! reset, or to compare distributions. What it cannot see is how a uniform number is made of our stream's
//! bits: `laws.rs` and the stream's own tests do.

#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

use pgrad_env::{Actions, BatchEnv, End};
use pgrad_envs::minatar::{
    Asterix, Breakout, Draw, Freeway, Game, MinAtar, Move, Outcome, Rules, Seaquest, SpaceInvaders,
};
use pgrad_num::{Cols, ColsMut, Stream};
use std::path::Path;

/// Numbers that the package drew, still to be handed out.
struct Recorded<'a> {
    left: &'a str,
}

impl Recorded<'_> {
    fn take(&mut self) -> &str {
        assert!(self.left.len() >= 3, "the package drew no more numbers");
        let (token, left) = self.left.split_at(3);
        self.left = left;
        token
    }
}

impl Draw for Recorded<'_> {
    fn chance(&mut self, p: f64) -> bool {
        let units = u32::from_str_radix(self.take(), 16).expect("the package drew a whole number here");
        f64::from(units) / 4096.0 < p
    }
    fn below(&mut self, n: u32) -> u32 {
        let token = self.take();
        let digits = token.strip_prefix('=').expect("the package drew a uniform number here");
        let (of, value) = digits.split_at(1);
        assert_eq!(of.parse(), Ok(n), "the package drew from another range");
        value.parse().unwrap()
    }
}

/// Up to 20 steps.
struct Line<'a> {
    actions: Vec<usize>,
    outcomes: Vec<Outcome>,
    draws: &'a str,
    digest: u64,
}

struct Trajectory<'a> {
    what: &'a str,
    rules: Rules,
    start_draws: &'a str,
    /// Where it starts, when not in the state after the reset.
    state: Option<Vec<f64>>,
    lines: Vec<Line<'a>>,
}

fn line(text: &str) -> Line<'_> {
    let cells: Vec<&str> = text.split(' ').collect();
    let [actions, rewards, draws, digest] = cells[..] else { panic!("{text}") };
    let mut outcomes: Vec<Outcome> = Vec::new();
    for c in rewards.chars() {
        match c {
            '!' => outcomes.last_mut().unwrap().terminal = true,
            '.' => outcomes.push(Outcome { reward: 0.0, terminal: false }),
            c => outcomes.push(Outcome { reward: f64::from(c.to_digit(36).unwrap()), terminal: false }),
        }
    }
    let actions: Vec<usize> = actions.chars().map(|c| c.to_digit(10).unwrap() as usize).collect();
    assert_eq!(actions.len(), outcomes.len(), "{text}");
    Line { actions, outcomes, draws, digest: u64::from_str_radix(digest, 16).unwrap() }
}

fn trajectories(text: &str) -> Vec<Trajectory<'_>> {
    let mut all: Vec<Trajectory<'_>> = Vec::new();
    for text in text.lines().filter(|l| !l.starts_with('#')) {
        let (first, rest) = text.split_once(' ').unwrap_or((text, ""));
        match first {
            "trajectory" => {
                let mut cells = rest.splitn(3, ' ');
                let sticky_action_prob = cells.next().unwrap().parse().unwrap();
                let difficulty_ramping = cells.next().unwrap() == "1";
                let rules = Rules {
                    sticky_action_prob,
                    difficulty_ramping,
                    minimal_actions: false,
                    ..Rules::default()
                };
                let what = cells.next().unwrap();
                all.push(Trajectory { what, rules, start_draws: "", state: None, lines: Vec::new() });
            }
            "start" => all.last_mut().unwrap().start_draws = rest,
            "state" => {
                all.last_mut().unwrap().state = Some(rest.split(' ').map(|x| x.parse().unwrap()).collect());
            }
            _ => all.last_mut().unwrap().lines.push(line(text)),
        }
    }
    all
}

fn golden<G: Game>() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../goldens/minatar");
    std::fs::read_to_string(folder.join(format!("{}.txt", G::NAME))).unwrap()
}

/// The hash FNV-1a, 64 bits.
fn hash(digest: &mut u64, bytes: impl IntoIterator<Item = u8>) {
    for byte in bytes {
        *digest = (*digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
}

fn hash_step<G: Game>(env: &MinAtar<G>, digest: &mut u64) {
    let dim = env.spec().observation.obs_dim();
    assert_eq!(dim, 100 * G::CHANNELS);
    let mut obs = vec![f32::NAN; dim];
    env.observe(ColsMut::new(&mut obs, dim, 1));
    let bit = |x: &f32| {
        assert!(*x == 0.0 || *x == 1.0, "the observation holds {x}");
        *x as u8
    };
    // The last byte is filled up with zeros.
    hash(
        digest,
        obs.chunks(8).map(|x| x.iter().enumerate().fold(0, |byte, (i, x)| byte | bit(x) << (7 - i))),
    );
    for x in env.save(0).unwrap() {
        hash(digest, (x as i32).to_le_bytes());
    }
}

/// What was met on the way.
#[derive(Default)]
struct Met {
    terminals: usize,
    steps: usize,
    rewards: f64,
}

fn follow<G: Game>() -> Met {
    let text = golden::<G>();
    let all = trajectories(&text);
    let mut met = Met::default();
    for (number, trajectory) in all.iter().enumerate() {
        let mut env = MinAtar::<G>::new(1, trajectory.rules);
        let mut draws = Recorded { left: trajectory.start_draws };
        env.start(0, &mut draws);
        assert_eq!(draws.left, "", "{}: the package drew more at the start", G::NAME);
        if let Some(state) = &trajectory.state {
            assert!(env.load(0, state), "{}, trajectory {number}: {state:?}", G::NAME);
            assert_eq!(env.save(0).as_ref(), Some(state), "{}", G::NAME);
        }
        let (mut digest, mut step) = (0xcbf2_9ce4_8422_2325, 0);
        for line in &trajectory.lines {
            draws.left = line.draws;
            for (action, expected) in line.actions.iter().zip(&line.outcomes) {
                let context = || format!("{}, {number} ({}), step {step}", G::NAME, trajectory.what);
                let outcome = env.step_one(0, *action, &mut draws);
                assert_eq!(outcome, *expected, "{}", context());
                hash_step(&env, &mut digest);
                step += 1;
                met.terminals += usize::from(outcome.terminal);
                met.rewards += outcome.reward;
            }
            let context = || format!("{}, {number} ({}), the steps up to {step}", G::NAME, trajectory.what);
            assert_eq!(draws.left, "", "{}: the package drew more", context());
            assert_eq!(digest, line.digest, "{}: an observation or a state differs", context());
        }
        let last = trajectory.lines.last().unwrap().outcomes.last().unwrap();
        assert!(last.terminal || step < 2000, "{}, {number}: it has no end", G::NAME);
        met.steps += step;
    }
    assert!(met.terminals >= 10, "{}: {} episodes end", G::NAME, met.terminals);
    for (what, holds) in [
        ("sticky", (|r: &Rules| r.sticky_action_prob == 0.1) as fn(&Rules) -> bool),
        ("not sticky", |r| r.sticky_action_prob == 0.0),
        ("ramping", |r| r.difficulty_ramping),
    ] {
        assert!(all.iter().any(|t| holds(&t.rules)), "{}: no trajectory is {what}", G::NAME);
    }
    met
}

#[test]
fn breakout_does_what_the_package_does() {
    // More than the 30 bricks of one wall in a trajectory: it was filled again.
    assert!(follow::<Breakout>().rewards > 100.0);
}

#[test]
fn asterix_does_what_the_package_does() {
    assert!(follow::<Asterix>().rewards > 50.0);
}

#[test]
fn freeway_does_what_the_package_does() {
    assert!(follow::<Freeway>().steps > 10 * 2501);
}

#[test]
fn space_invaders_does_what_the_package_does() {
    assert!(follow::<SpaceInvaders>().rewards > 200.0);
}

#[test]
fn seaquest_does_what_the_package_does() {
    assert!(follow::<Seaquest>().rewards > 100.0);
}

/// What a batch of `n` does when all take action `a(step)`: observations, rewards and ends of copy 0.
fn played<G: Game>(rules: Rules, steps: usize, a: impl Fn(usize) -> u32) -> Vec<(Vec<f32>, f64, End)> {
    let mut env = MinAtar::<G>::new(1, rules);
    let mut rng = [Stream::new(3, 1, 4)];
    env.reset(0, &mut rng[0]);
    let dim = 100 * G::CHANNELS;
    (0..steps)
        .map(|t| {
            let (mut rewards, mut ends) = ([f64::NAN], [End::Truncated]);
            env.step(Actions::index(Cols::new(&[a(t)], 1, 1)), &mut rng, &mut rewards, &mut ends);
            let mut obs = vec![f32::NAN; dim];
            env.observe(ColsMut::new(&mut obs, dim, 1));
            if ends[0] != End::Running {
                env.reset(0, &mut rng[0]);
            }
            (obs, rewards[0], ends[0])
        })
        .collect()
}

fn action_sets_agree<G: Game>(moves: &[Move]) {
    assert_eq!(G::MOVES, moves, "{}", G::NAME);
    let [minimal, full] = [true, false].map(|minimal_actions| Rules { minimal_actions, ..Rules::default() });
    let n = moves.len();
    let of_minimal = played::<G>(minimal, 400, |t| (t * t % 7 % n) as u32);
    let of_full =
        played::<G>(full, 400, |t| Move::ALL.iter().position(|m| *m == moves[t * t % 7 % n]).unwrap() as u32);
    assert!(of_minimal == of_full, "{}", G::NAME);
    let limit = |rules| MinAtar::<G>::new(1, rules).spec().max_episode_steps;
    assert_eq!(limit(minimal), if G::NAME == "Freeway" { None } else { Some(10_000) });
    assert_eq!(limit(Rules { max_episode_steps: None, ..minimal }), None);
    assert_eq!(MinAtar::<G>::new(1, minimal).spec().id, format!("MinAtar/{}-v1", G::NAME));
    assert_eq!(MinAtar::<G>::new(1, full).spec().id, format!("MinAtar/{}-v0", G::NAME));
}

#[test]
fn the_minimal_action_set_is_a_choice_from_the_full_one() {
    use Move::{Down, Fire, Left, Noop, Right, Up};
    action_sets_agree::<Breakout>(&[Noop, Left, Right]);
    action_sets_agree::<Asterix>(&[Noop, Left, Up, Right, Down]);
    action_sets_agree::<Freeway>(&[Noop, Up, Down]);
    action_sets_agree::<SpaceInvaders>(&[Noop, Left, Right, Fire]);
    action_sets_agree::<Seaquest>(&[Noop, Left, Up, Right, Down, Fire]);
}

/// How often the paddle does something else than it is told, when it is told left and right in turn.
fn share_stuck(sticky_action_prob: f64) -> f64 {
    let rules = Rules { sticky_action_prob, ..Rules::default() };
    let steps = 40_000;
    let paddle = |obs: &[f32]| (0..10).position(|x| obs[(90 + x) * 4] == 1.0).unwrap() as i32;
    let mut stuck = 0;
    let mut counted = 0;
    let seen = played::<Breakout>(rules, steps, |t| 1 + (t % 2) as u32);
    for (t, pair) in seen.windows(2).enumerate() {
        let (before, after) = (paddle(&pair[0].0), paddle(&pair[1].0));
        // At a wall, and after a reset, the paddle does not show what was done.
        if pair[0].2 == End::Running && (1..9).contains(&before) {
            let told = if (t + 1) % 2 == 0 { -1 } else { 1 };
            counted += 1;
            stuck += i32::from(after - before != told);
        }
    }
    assert!(counted > 10_000);
    f64::from(stuck) / f64::from(counted)
}

#[test]
fn an_action_sticks_as_often_as_the_rules_say() {
    assert_eq!(share_stuck(0.0), 0.0);
    // What sticks is the move made last. When that was itself stuck, sticking again makes the move that is
    // told now, and does not show: s = p (1 - s).
    let share = share_stuck(0.1);
    assert!((share - 0.1 / 1.1).abs() < 0.01, "{share}");
}

#[test]
fn ramping_is_what_makes_asterix_faster() {
    let speeds = |difficulty_ramping| {
        let rules =
            Rules { difficulty_ramping, sticky_action_prob: 0.0, minimal_actions: true, ..Rules::default() };
        let mut env = MinAtar::<Asterix>::new(1, rules);
        let mut rng = Stream::new(1, 2, 3);
        env.start(0, &mut rng);
        // Nobody is met in 2000 steps, because the end of a game is not the end of its clock.
        for _ in 0..2000 {
            env.step_one(0, 0, &mut rng);
        }
        let state = env.save(0).unwrap();
        (state[3], state[5])
    };
    assert_eq!(speeds(false), (10.0, 5.0));
    assert_eq!(speeds(true), (1.0, 1.0));
}

#[test]
fn no_move_is_left_over_from_the_episode_before() {
    let mut env = MinAtar::<Breakout>::new(1, Rules::default());
    let paddle = |env: &MinAtar<Breakout>| env.save(0).unwrap()[4];
    // The start draws a side for the ball; a step draws 0, which sticks, or 4095/4096, which does not.
    env.start(0, &mut Recorded { left: "=20" });
    env.step_one(0, 1, &mut Recorded { left: "fff" });
    assert_eq!(paddle(&env), 3.0, "to the left");
    env.step_one(0, 2, &mut Recorded { left: "000" });
    assert_eq!(paddle(&env), 2.0, "to the left again, instead of to the right");
    env.start(0, &mut Recorded { left: "=21" });
    env.step_one(0, 2, &mut Recorded { left: "000" });
    assert_eq!(paddle(&env), 4.0, "nothing, since nothing came before");
}
