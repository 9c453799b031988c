//! The MuJoCo tasks against trajectories that the real Gymnasium makes on the same library, model files and
//! machine (`goldens/mujoco/trajectories.py`, which `cargo xtask mujoco` runs).
#![cfg(feature = "mujoco")]
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

use pgrad_env::{
    Actions, BatchEnv, BoxSpace, Content, End, EnvSpec, RandomActions, Space, VecEnv, check_batch_env,
};
use pgrad_envs::mujoco::{
    About, Ant, HalfCheetah, Hopper, Humanoid, HumanoidStandup, InvertedDoublePendulum, InvertedPendulum,
    MEMORY, Model, ModelFile, Mujoco, Outcome, Pusher, Reacher, Sim, Swimmer, Task, Walker2d,
};
use pgrad_num::{Cols, Stream};
use pgrad_testkit::{CountingAllocator, assert_allocates_nothing};
use std::path::Path;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Every number of an observation and every reward agree to this, relative to its size where that is above 1:
/// forces of contact and inertias reach thousands.
const TOLERANCE: f64 = 1e-9;

/// Runs `$f` with each task in turn.
macro_rules! each_task {
    ($f:ident) => {
        each_task!($f: HalfCheetah, Hopper, Walker2d, Ant, Humanoid, HumanoidStandup, Swimmer, Reacher,
            Pusher, InvertedPendulum, InvertedDoublePendulum)
    };
    ($f:ident: $($task:ident),*) => {
        $( $f($task::V4); $f($task::V5); )*
    };
}

/// A recorded file.
struct Numbers {
    task: String,
    all: Vec<f64>,
    at: usize,
}

impl Numbers {
    fn of(task: &str) -> Self {
        let folder =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/cargo-xtask-mujoco/trajectories");
        let path = folder.join(format!("{task}.f64"));
        let bytes = std::fs::read(&path)
            .unwrap_or_else(|e| panic!("{}: {e}; `cargo xtask mujoco` makes it", path.display()));
        let all = bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
        Self { task: task.to_owned(), all, at: 0 }
    }
    fn take(&mut self, n: usize) -> Vec<f64> {
        self.at += n;
        self.all[self.at - n..self.at].to_vec()
    }
    fn one(&mut self) -> f64 {
        self.take(1)[0]
    }
    fn size(&mut self) -> usize {
        self.one() as usize
    }
}

/// What stands before the trajectories.
struct Header {
    spec: EnvSpec,
    nq: usize,
    nv: usize,
    nu: usize,
    nobs: usize,
    trajectories: usize,
    /// Mean, standard deviation, least and greatest of first states, positions before velocities.
    first: [Vec<f64>; 4],
}

impl Header {
    fn read(from: &mut Numbers) -> Self {
        let limit = from.one() as u32;
        let threshold = Some(from.one()).filter(|x| x.is_finite());
        let [nq, nv, nu, nobs, trajectories] = std::array::from_fn(|_| from.size());
        let single = |x: Vec<f64>| x.into_iter().map(|x| x as f32).collect();
        let action = BoxSpace::new(single(from.take(nu)), single(from.take(nu)));
        let spec = EnvSpec {
            id: from.task.clone(),
            observation: BoxSpace::unbounded(nobs).into(),
            action: Space::Box(action),
            max_episode_steps: Some(limit),
            reward_threshold: threshold,
            masks_actions: false,
        };
        let first = std::array::from_fn(|_| from.take(nq + nv));
        Self { spec, nq, nv, nu, nobs, trajectories, first }
    }
}

fn envs<T: Task>(task: T, n: usize) -> Mujoco<T> {
    let model = Model::load(&task.about()).unwrap();
    Mujoco::new(task, &model, n).unwrap()
}

/// The greatest difference, relative to sizes above 1.
fn distance(ours: &[f64], theirs: &[f64]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    // A number that is not finite is as far as can be.
    let far = |d: f64| if d.is_nan() { f64::INFINITY } else { d };
    ours.iter().zip(theirs).map(|(a, b)| far((a - b).abs() / b.abs().max(1.0))).fold(0.0, f64::max)
}

#[expect(clippy::print_stdout, reason = "how close it is, for who runs this with --nocapture")]
fn follows_gymnasium<T: Task>(task: T) {
    let id = task.about().id;
    let mut from = Numbers::of(&id);
    let header = Header::read(&mut from);
    // The second copy does something else meanwhile, and the first must not notice.
    let mut env = envs(task, 2);
    assert_eq!(env.spec(), &header.spec, "{id}");
    let mut rngs = [Stream::new(1, 1, 0), Stream::new(1, 1, 1)];
    let (mut rewards, mut ends) = ([0.0; 2], [End::Running; 2]);
    let (mut steps, mut terminations, mut worst) = (0, 0, 0.0f64);
    for trajectory in 0..header.trajectories {
        let n = from.size();
        let (qpos, qvel) = (from.take(header.nq), from.take(header.nv));
        env.start_at(0, &qpos, &qvel);
        env.reset(1, &mut rngs[1]);
        let obs = from.take(header.nobs);
        let d = distance(env.observation(0), &obs);
        assert!(d <= TOLERANCE, "{id}, trajectory {trajectory}, first observation: {d}");
        let mut ended = false;
        for step in 0..n {
            let action = from.take(header.nu);
            let both: Vec<f32> = action.iter().flat_map(|a| [*a as f32, 0.5 * *a as f32]).collect();
            env.step(Actions::real(Cols::new(&both, header.nu, 2)), &mut rngs, &mut rewards, &mut ends);
            let (obs, reward) = (from.take(header.nobs), from.one());
            let terminated = from.one() == 1.0;
            let place = format!("{id}, trajectory {trajectory}, step {step}");
            let d = distance(env.observation(0), &obs).max(distance(&rewards[..1], &[reward]));
            assert!(d <= TOLERANCE, "{place}: {d}, reward {} {reward}", rewards[0]);
            assert_eq!(ends[0] == End::Terminated, terminated, "{place}");
            worst = worst.max(d);
            ended |= terminated;
            steps += 1;
        }
        terminations += usize::from(ended);
    }
    assert_eq!(from.at, from.all.len(), "{id}: the whole file was read");
    assert!(header.trajectories >= 5 && steps >= 1000, "{id}: {steps} steps");
    let never = ["HalfCheetah", "HumanoidStandup", "Swimmer", "Reacher", "Pusher"];
    assert_eq!(terminations == 0, never.iter().any(|n| id[..id.len() - 3] == **n), "{id}: {terminations}");
    println!("{id}: {steps} steps, {terminations} trajectories with an end, greatest difference {worst:e}");
}

#[test]
fn every_step_is_gymnasiums() {
    each_task!(follows_gymnasium);
}

/// First states of ours against the moments of Gymnasium's.
fn starts_alike<T: Task>(task: T) {
    let id = task.about().id;
    let header = Header::read(&mut Numbers::of(&id));
    let [mean, deviation, least, greatest] = &header.first;
    let n = 400;
    let mut env = envs(task, 1);
    let mut rng = Stream::new(5, 1, 0);
    let states: Vec<Vec<f64>> = (0..n)
        .map(|_| {
            env.reset(0, &mut rng);
            [env.sim(0).qpos(), env.sim(0).qvel()].concat()
        })
        .collect();
    for i in 0..header.nq + header.nv {
        let x: Vec<f64> = states.iter().map(|s| s[i]).collect();
        let m = x.iter().sum::<f64>() / n as f64;
        let d = (x.iter().map(|x| (x - m) * (x - m)).sum::<f64>() / n as f64).sqrt();
        let (low, high) = x.iter().fold((f64::MAX, f64::MIN), |(a, b), x| (a.min(*x), b.max(*x)));
        // Both are samples of 400: means within five standard errors of their difference, spreads within a
        // quarter.
        let error = 5.0 * deviation[i] * (2.0 / n as f64).sqrt() + 1e-12;
        assert!((m - mean[i]).abs() <= error, "{id}, number {i}: mean {m}, theirs {}", mean[i]);
        assert!((d - deviation[i]).abs() <= 0.25 * deviation[i] + 1e-12, "{id}, number {i}: spread {d}");
        // Whatever is uniform has hard bounds, and both samples come close to them.
        let width = greatest[i] - least[i];
        let slack = if deviation[i] > 0.25 * width { 0.05 * width } else { 0.6 * width };
        assert!(low >= least[i] - slack - 1e-12 && high <= greatest[i] + slack + 1e-12, "{id}, number {i}");
    }
}

#[test]
fn first_states_are_spread_like_gymnasiums() {
    each_task!(starts_alike);
}

#[test]
fn a_state_that_was_saved_in_the_air_continues_exactly() {
    // The laws of all environments see episodes; here the numbers that MuJoCo derives must not be missed: Ant
    // looks back on the torso's place, Reacher-v4 on the fingertip's.
    fn saved<T: Task>(task: T) {
        let id = task.about().id;
        let mut original = envs(task.clone(), 1);
        let mut restored = envs(task, 1);
        let mut random = RandomActions::new(&original.spec().action, 1, 2, 0);
        let mut rngs = [Stream::new(2, 1, 0)];
        original.reset(0, &mut rngs[0]);
        let (mut rewards, mut ends) = ([0.0; 1], [End::Running; 1]);
        for _ in 0..17 {
            original.step(random.draw(), &mut rngs, &mut rewards, &mut ends);
        }
        assert!(restored.load(0, &original.save(0).unwrap()), "{id}");
        for step in 0..30 {
            let actions = random.draw();
            original.step(actions, &mut rngs, &mut rewards, &mut ends);
            let reward = rewards[0];
            restored.step(actions, &mut rngs, &mut rewards, &mut ends);
            assert_eq!(
                (restored.observation(0), rewards[0]),
                (original.observation(0), reward),
                "{id}, step {step}"
            );
        }
    }
    each_task!(saved);
}

#[test]
fn every_task_passes_the_check() {
    fn passes<T: Task>(task: T) {
        let make = Mujoco::load(task).unwrap();
        assert_eq!(check_batch_env(|n| make(n), 3), Ok(vec![]));
    }
    each_task!(passes);
}

#[test]
fn states_that_cannot_be_are_refused() {
    fn refused<T: Task>(task: T) {
        let id = task.about().id;
        let mut env = envs(task, 1);
        env.reset(0, &mut Stream::new(1, 1, 0));
        let state = env.save(0).unwrap();
        assert!(env.load(0, &state), "{id}");
        assert!(!env.load(0, &state[1..]) && !env.load(0, &[&state[..], &[0.0]].concat()), "{id}");
        for i in 0..state.len() {
            let mut changed = state.clone();
            changed[i] = f64::NAN;
            assert!(!env.load(0, &changed), "{id}: number {i}");
        }
        assert_eq!(env.save(0).unwrap(), state, "{id}: a refused state was loaded");
    }
    each_task!(refused);
}

#[test]
fn stepping_a_task_allocates_nothing() {
    for id in ["HalfCheetah-v5", "Ant-v5"] {
        let mut envs = VecEnv::new(pgrad_envs::make(id, 4).unwrap(), 1, 0);
        envs.start().unwrap();
        envs.reserve_episodes(1000);
        let mut random = RandomActions::new(&envs.spec().action, 4, 1, 0);
        assert_allocates_nothing(|| {
            for _ in 0..300 {
                envs.step(random.draw()).unwrap();
            }
        });
    }
}

/// A task on a model that is not Gymnasium's.
#[derive(Clone, Debug)]
struct Own {
    model: ModelFile,
    bodies: Vec<String>,
}

impl Task for Own {
    fn about(&self) -> About {
        About {
            id: "Own-v0".into(),
            model: self.model.clone(),
            bodies: self.bodies.clone(),
            frame_skip: 1,
            max_episode_steps: None,
            reward_threshold: None,
            contact_forces: false,
        }
    }
    fn reset(&self, _: &mut Sim, _: &mut Stream) {}
    fn outcome(&self, _: &[f64; MEMORY], sim: &Sim, _: &[f32]) -> Outcome {
        Outcome { reward: sim.body(0)[2], terminated: false }
    }
    fn observe(&self, sim: &Sim, obs: &mut Vec<f64>) {
        obs.extend_from_slice(sim.qpos());
    }
}

#[test]
fn a_model_that_cannot_be_had_is_an_error_that_helps() {
    let message =
        |model: ModelFile, body: &str| match Mujoco::load(Own { model, bodies: vec![body.to_owned()] }) {
            Ok(_) => panic!("it was loaded"),
            Err(e) => (e.exit_code(), e.to_string()),
        };
    let (code, text) = message(ModelFile::Gymnasium("no_such_model.xml"), "torso");
    assert_eq!(code, 74);
    assert!(text.contains("no_such_model.xml") && text.contains("`cargo xtask mujoco` installs"), "{text}");
    let (code, text) = message(ModelFile::Path("nowhere/pole.xml".into()), "torso");
    assert!(code == 64 && text.contains("`Own-v0` needs the model `nowhere/pole.xml`"), "{text}");
    let dir = std::env::temp_dir().join(format!("pgrad-mujoco-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("bad.xml");
    std::fs::write(&file, "<mujoco><worldbody><geom type=\"sphere\"/></worldbody></mujoco>").unwrap();
    let (code, text) = message(ModelFile::Path(file.clone()), "torso");
    assert!(code == 65 && text.contains("MuJoCo cannot read") && text.contains("size"), "{text}");
    std::fs::write(
        &file,
        "<mujoco><worldbody><body name=\"ball\"><joint type=\"slide\"/><geom size=\"1\"/></body></worldbody></mujoco>",
    )
    .unwrap();
    let (code, text) = message(ModelFile::Path(file.clone()), "torso");
    assert!(code == 65 && text.contains("observes the body `torso`, but"), "{text}");
    let make = Mujoco::load(Own { model: ModelFile::Path(file), bodies: vec!["ball".into()] }).unwrap();
    assert_eq!(make(3).unwrap().spec().observation.obs_dim(), 1);
    std::fs::remove_dir_all(&dir).unwrap();
}

/// Needs EGL, which `.ci/run` installs.
#[test]
fn simulations_are_drawn_as_they_stand() {
    let drawn = |envs: &mut VecEnv| match envs.picture(0).unwrap().content {
        Content::Pixels { width, height, rgb } => {
            assert_eq!(rgb.len(), (width * height * 3) as usize);
            rgb
        }
        Content::Drawing(_) => panic!("MuJoCo gives pixels"),
    };
    // With a camera of its own and without.
    for id in ["HalfCheetah-v5", "InvertedPendulum-v5"] {
        let mut envs = VecEnv::new(pgrad_envs::make(id, 1).unwrap(), 7, 0);
        envs.start().unwrap();
        let first = drawn(&mut envs);
        let colours: std::collections::BTreeSet<&[u8]> = first.chunks(3).collect();
        assert!(colours.len() > 50, "{id}: {} colours", colours.len());
        assert_eq!(drawn(&mut envs), first, "{id}: looking changes nothing");
        let mut random = RandomActions::new(&envs.spec().action, 1, 7, 0);
        for _ in 0..5 {
            envs.step(random.draw()).unwrap();
        }
        assert_ne!(drawn(&mut envs), first, "{id}");
    }
}
