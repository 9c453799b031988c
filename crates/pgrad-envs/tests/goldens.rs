//! The native environments against trajectories recorded from the real Gymnasium
//! (`goldens/gymnasium/make.py`).

#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

use pgrad_env::{Actions, BatchEnv, BoxSpace, End, EnvSpec, Space, VecEnv};
use pgrad_num::{Cols, ColsMut, Stream};
use std::path::Path;

const TASKS: [&str; 5] =
    ["CartPole-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1"];
const TOLERANCE: f64 = 1e-9;

/// One recorded step.
#[derive(Clone, Debug)]
struct Row {
    state: Vec<f64>,
    action: f32,
    obs: Vec<f32>,
    reward: f64,
    terminated: bool,
    truncated: bool,
}

impl Row {
    /// How the step ended, in our terms: what ends at the limit by itself is terminated.
    fn end(&self) -> End {
        match (self.terminated, self.truncated) {
            (true, _) => End::Terminated,
            (false, true) => End::Truncated,
            (false, false) => End::Running,
        }
    }
}

/// The recorded file of a task.
fn file(task: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../goldens/gymnasium/{task}.csv"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The trajectories of a task.
fn golden(task: &str) -> Vec<Vec<Row>> {
    let text = file(task);
    let mut lines = text.lines().filter(|l| !l.starts_with('#'));
    let header: Vec<&str> = lines.next().unwrap().split(',').collect();
    let count = |name: &str| header.iter().filter(|h| h.starts_with(name)).count();
    let (states, observations) = (count("state"), count("obs"));
    let mut trajectories: Vec<Vec<Row>> = Vec::new();
    for line in lines {
        let cells: Vec<&str> = line.split(',').collect();
        assert_eq!(cells.len(), header.len(), "{task}: {line}");
        let f64s = |from: usize, n: usize| cells[from..from + n].iter().map(|c| c.parse().unwrap()).collect();
        let (number, step): (usize, usize) = (cells[0].parse().unwrap(), cells[1].parse().unwrap());
        let after = 3 + states;
        let row = Row {
            state: f64s(2, states),
            action: cells[2 + states].parse().unwrap(),
            obs: cells[after..after + observations].iter().map(|c| c.parse().unwrap()).collect(),
            reward: cells[after + observations].parse().unwrap(),
            terminated: cells[after + observations + 1] == "1",
            truncated: cells[after + observations + 2] == "1",
        };
        if step == 0 {
            assert_eq!(number, trajectories.len());
            trajectories.push(Vec::new());
        }
        trajectories[number].push(row);
    }
    trajectories
}

/// The actions `a`, one for each environment, as a task with this action space takes them.
fn with_actions<T>(space: &Space, a: &[f32], f: impl FnOnce(Actions<'_>) -> T) -> T {
    if matches!(space, Space::Box(_)) {
        f(Actions::real(Cols::new(a, 1, a.len())))
    } else {
        let indices: Vec<u32> = a.iter().map(|x| *x as u32).collect();
        f(Actions::index(Cols::new(&indices, 1, a.len())))
    }
}

/// Distance of two single-precision numbers in units of the last place.
fn ulps(a: f32, b: f32) -> u32 {
    let order = |x: f32| if x.is_sign_negative() { -(x.abs().to_bits() as i32) } else { x.to_bits() as i32 };
    order(a).abs_diff(order(b))
}

/// Largest difference of two states; angles that are wrapped count modulo 2π.
fn distance(task: &str, a: &[f64], b: &[f64]) -> f64 {
    use std::f64::consts::TAU;
    assert_eq!(a.len(), b.len());
    let difference = |i: usize| {
        let d = (a[i] - b[i]).abs();
        if task == "Acrobot-v1" && i < 2 { d.min((d - TAU).abs()) } else { d }
    };
    (0..a.len()).map(difference).fold(0.0, f64::max)
}

#[test]
fn the_files_hold_what_they_must() {
    for task in TASKS {
        let trajectories = golden(task);
        let ended = |f: fn(&Row) -> bool| trajectories.iter().filter(|t| f(&t[t.len() - 1])).count();
        assert!(trajectories.len() >= 10, "{task}");
        assert!(ended(|r| r.truncated) >= 1, "{task} never reaches its time limit");
        assert!(task == "Pendulum-v1" || ended(|r| r.terminated) >= 5, "{task} never terminates");
        for t in &trajectories {
            assert!(t[..t.len() - 1].iter().all(|r| !r.terminated && !r.truncated), "{task}");
        }
    }
}

#[test]
fn spaces_limits_and_thresholds_are_gymnasiums() {
    for task in TASKS {
        let text = file(task);
        let entry = |name: &str| -> Option<Vec<String>> {
            let line = text.lines().find_map(|l| l.strip_prefix(&format!("# {name},")))?;
            Some(line.split(',').map(String::from).collect())
        };
        let numbers =
            |name: &str| entry(name).map(|x| x.iter().map(|v| v.parse().unwrap()).collect::<Vec<f32>>());
        let bounds = |name: &str| {
            let (low, high) = (numbers(&format!("{name}_low"))?, numbers(&format!("{name}_high"))?);
            Some(Space::Box(BoxSpace::new(low, high)))
        };
        let threshold = entry("reward_threshold").unwrap()[0].clone();
        let expected = EnvSpec {
            id: task.into(),
            observation: bounds("observation").unwrap().into(),
            action: bounds("action")
                .unwrap_or_else(|| Space::Discrete { n: numbers("action_n").unwrap()[0] as usize }),
            max_episode_steps: Some(numbers("max_episode_steps").unwrap()[0] as u32),
            reward_threshold: (threshold != "None").then(|| threshold.parse().unwrap()),
            masks_actions: false,
        };
        assert_eq!(pgrad_envs::make(task, 1).unwrap().spec(), &expected);
    }
}

#[test]
fn every_step_is_gymnasiums() {
    for task in TASKS {
        let trajectories = golden(task);
        let rows: Vec<&Row> = trajectories.iter().flatten().collect();
        let next: Vec<Option<&Row>> =
            trajectories.iter().flat_map(|t| (1..=t.len()).map(|i| t.get(i))).collect();
        let n = rows.len();
        let mut env = pgrad_envs::make(task, n).unwrap();
        for (b, row) in rows.iter().enumerate() {
            assert!(env.load(b, &row.state), "{task}: {:?}", row.state);
        }
        let actions: Vec<f32> = rows.iter().map(|r| r.action).collect();
        let mut rngs = vec![Stream::new(0, 0, 0); n];
        let (mut rewards, mut ends) = (vec![f64::NAN; n], vec![End::Truncated; n]);
        let space = env.spec().action.clone();
        with_actions(&space, &actions, |a| env.step(a, &mut rngs, &mut rewards, &mut ends));
        let dim = env.spec().observation.obs_dim();
        let mut obs = vec![f32::NAN; dim * n];
        env.observe(ColsMut::new(&mut obs, dim, n));
        for (b, row) in rows.iter().enumerate() {
            let context = || format!("{task}, row {b}: {row:?}");
            for (i, expected) in row.obs.iter().enumerate() {
                let got = obs[i * n + b];
                // Near zero an ulp is less than the tolerance.
                let close = f64::from((got - expected).abs()) <= TOLERANCE;
                assert!(ulps(got, *expected) <= 1 || close, "{}: number {i} is {got}", context());
            }
            assert!((rewards[b] - row.reward).abs() <= TOLERANCE, "{}: {}", context(), rewards[b]);
            assert_eq!(ends[b] == End::Terminated, row.terminated, "{}", context());
            if let Some(next) = next[b] {
                let d = distance(task, &env.save(b).unwrap(), &next.state);
                assert!(d <= TOLERANCE, "{}: the next state is off by {d}", context());
            }
        }
    }
}

/// A task whose copies each follow one recorded trajectory: every episode starts in its first state, and,
/// when `led`, every step starts in its recorded state.
struct Follow {
    inner: Box<dyn BatchEnv>,
    trajectories: Vec<Vec<Row>>,
    step: Vec<usize>,
    led: bool,
}

impl BatchEnv for Follow {
    fn spec(&self) -> &EnvSpec {
        self.inner.spec()
    }
    fn len(&self) -> usize {
        self.inner.len()
    }
    fn reset(&mut self, b: usize, _: &mut Stream) {
        assert!(self.inner.load(b, &self.trajectories[b][0].state));
        self.step[b] = 0;
    }
    fn step(&mut self, actions: Actions<'_>, rngs: &mut [Stream], rewards: &mut [f64], ends: &mut [End]) {
        for b in 0..self.len() {
            let row = &self.trajectories[b][self.step[b]];
            assert!(!self.led || self.inner.load(b, &row.state));
            self.step[b] += 1;
        }
        self.inner.step(actions, rngs, rewards, ends);
    }
    fn observe(&self, obs: ColsMut<'_, f32>) {
        self.inner.observe(obs);
    }
    fn observe_one(&self, b: usize, obs: &mut [f32]) {
        self.inner.observe_one(b, obs);
    }
    fn save(&self, b: usize) -> Option<Vec<f64>> {
        self.inner.save(b)
    }
    fn load(&mut self, b: usize, state: &[f64]) -> bool {
        self.inner.load(b, state)
    }
}

fn follow(task: &str, trajectory: &[Row], led: bool) -> VecEnv {
    let inner = pgrad_envs::make(task, 1).unwrap();
    let mut envs = VecEnv::new(
        Box::new(Follow { inner, trajectories: vec![trajectory.to_vec()], step: vec![0], led }),
        1,
        0,
    );
    envs.start().unwrap();
    envs
}

#[test]
fn every_trajectory_ends_when_and_how_gymnasiums_does() {
    for task in TASKS {
        for (number, trajectory) in golden(task).iter().enumerate() {
            let mut envs = follow(task, trajectory, true);
            let space = envs.spec().action.clone();
            let mut sum = 0.0;
            for (step, row) in trajectory.iter().enumerate() {
                with_actions(&space, &[row.action], |a| envs.step(a)).unwrap();
                assert_eq!(envs.ends()[0], row.end(), "{task}, trajectory {number}, step {step}");
                sum += row.reward;
            }
            let episode = envs.finished()[0];
            assert_eq!(envs.finished().len(), 1);
            assert_eq!(episode.length as usize, trajectory.len());
            assert!((episode.episode_return - sum).abs() <= 1e-9 * trajectory.len() as f64);
        }
    }
}

/// The trajectories along which the dynamics amplifies rounding, and how many of their steps agree to 1e-9.
/// All others agree to their last step.
///
/// An upright pole is unstable: CartPole multiplies an error by about e^(3.7 t), 40 a second of 50 steps, as
/// long as it is balanced. The acrobot in full swing is chaotic, and so is a pendulum that passes the top.
const AMPLIFYING: [(&str, usize, usize); 6] = [
    ("CartPole-v1", 6, 200),
    ("CartPole-v1", 7, 200),
    ("CartPole-v1", 8, 200),
    ("Acrobot-v1", 7, 90),
    ("Acrobot-v1", 11, 150),
    ("Pendulum-v1", 3, 80),
];

#[test]
fn trajectories_run_freely_from_their_first_state() {
    for task in TASKS {
        for (number, trajectory) in golden(task).iter().enumerate() {
            let amplifying = AMPLIFYING.iter().find(|(t, n, _)| (*t, *n) == (task, number));
            let steps = amplifying.map_or(trajectory.len(), |(.., steps)| *steps);
            let mut envs = follow(task, trajectory, false);
            let space = envs.spec().action.clone();
            for (step, row) in trajectory[..steps].iter().enumerate() {
                with_actions(&space, &[row.action], |a| envs.step(a)).unwrap();
                let context = || format!("{task}, trajectory {number}, step {step}");
                assert_eq!(envs.ends()[0], row.end(), "{}", context());
                assert!((envs.rewards()[0] - row.reward).abs() <= TOLERANCE, "{}", context());
                let obs = if row.end() == End::Running { envs.obs() } else { envs.final_obs() };
                for (got, expected) in obs.data().iter().zip(&row.obs) {
                    let close = f64::from((got - expected).abs()) <= TOLERANCE;
                    assert!(ulps(*got, *expected) <= 1 || close, "{}: {got}, not {expected}", context());
                }
                if let Some(next) = trajectory.get(step + 1) {
                    let state = envs.save();
                    let d = distance(task, state.f64s("states", next.state.len()).unwrap(), &next.state);
                    assert!(d <= TOLERANCE, "{}: the state is off by {d}", context());
                }
            }
        }
    }
}

/// Where one trajectory ends up, from its first state with `nudge` added to its (first) angle or position.
fn last_state(task: &str, trajectory: &[Row], nudge: f64) -> Vec<f64> {
    let mut env = pgrad_envs::make(task, 1).unwrap();
    let mut start = trajectory[0].state.clone();
    start[if task == "CartPole-v1" { 2 } else { 0 }] += nudge;
    assert!(env.load(0, &start));
    let space = env.spec().action.clone();
    let (mut rewards, mut ends) = ([0.0], [End::Running]);
    for row in trajectory {
        let mut rng = [Stream::new(0, 0, 0)];
        with_actions(&space, &[row.action], |a| env.step(a, &mut rng, &mut rewards, &mut ends));
    }
    env.save(0).unwrap()
}

#[test]
fn the_trajectories_said_to_amplify_do() {
    for (task, number, _) in AMPLIFYING {
        let trajectory = &golden(task)[number];
        let apart = distance(task, &last_state(task, trajectory, 1e-14), &last_state(task, trajectory, 0.0));
        assert!(apart > TOLERANCE, "{task}, trajectory {number}: 1e-14 grew to {apart} only");
    }
}
