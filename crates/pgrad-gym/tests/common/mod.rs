//! A Python that has Gymnasium, and environments run without learning.
#![expect(unreachable_pub, reason = "a module of each test")]

use pgrad_env::{End, EnvError, RandomActions, VecEnv};
use pgrad_gym::{Gym, GymSettings};
use pgrad_num::Stream;
use std::path::Path;

pub use pgrad_testkit::python;

/// Settings for an environment of `misbehaving.py`, with deadlines of a test.
pub fn settings(kwargs: &serde_json::Value) -> GymSettings {
    GymSettings {
        python: python(),
        env_kwargs: kwargs.to_string(),
        env_step_secs: 1.0,
        env_start_secs: 30.0,
        env_restarts: 1000,
        env_restarts_each: 1000,
        ..GymSettings::default()
    }
}

/// `gym:tests.misbehaving:ID`.
pub fn open(id: &str, settings: &GymSettings) -> Gym {
    Gym::open(&format!("gym:tests.misbehaving:{id}"), settings).unwrap()
}

/// The seeds that environment `b` of a run gives to its episodes, in order.
pub fn seeds(run_seed: u64, b: usize) -> impl Iterator<Item = u32> {
    let mut stream = Stream::new(run_seed, 1, b as u32);
    std::iter::repeat_with(move || stream.bits32() >> 1)
}

/// The seeds of the two environments of a pool that are environment `b`, in the first pool of a run.
pub fn pool_seeds(run_seed: u64, b: usize) -> [u32; 2] {
    let first = seeds(run_seed, b).next().unwrap();
    [first, first.wrapping_add(0x9e37_79b1) & 0x7fff_ffff]
}

/// One step of one environment: what was seen before it, what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub obs: Vec<f32>,
    pub reward: f64,
    pub end: End,
    pub last: Option<Vec<f32>>,
    pub place: (u64, u32),
}

/// What every environment went through.
pub type Trace = Vec<Vec<Seen>>;

/// Steps `n` environments with random actions.
pub fn run(gym: &Gym, n: usize, steps: usize, seed: u64) -> Result<(Trace, VecEnv), EnvError> {
    let mut env = VecEnv::new(gym.make(n), seed, 0);
    let mut random = RandomActions::new(&env.spec().action, n, seed, 0);
    env.start()?;
    let mut trace = vec![Vec::new(); n];
    for _ in 0..steps {
        let column =
            |obs: pgrad_num::Cols<'_, f32>, b: usize| (0..obs.rows()).map(|i| obs.at(i, b)).collect();
        let before: Vec<(Vec<f32>, (u64, u32))> =
            (0..n).map(|b| (column(env.obs(), b), env.position(b))).collect();
        env.step(random.draw())?;
        for (b, (obs, place)) in before.into_iter().enumerate() {
            let end = env.ends()[b];
            let last = matches!(end, End::Terminated | End::Truncated).then(|| column(env.final_obs(), b));
            trace[b].push(Seen { obs, reward: env.rewards()[b], end, last, place });
        }
    }
    Ok((trace, env))
}

/// Processes whose parent this is, or was (they are then somebody else's), by a mark in their command line.
pub fn processes(mark: &str) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let numbers = all.filter_map(|e| e.file_name().to_str()?.parse().ok());
    numbers
        .filter(|pid: &u32| {
            let path = Path::new("/proc").join(pid.to_string());
            let line = std::fs::read(path.join("cmdline")).unwrap_or_default();
            let dead = std::fs::read_to_string(path.join("stat")).is_ok_and(|s| s.contains(") Z "));
            !dead && String::from_utf8_lossy(&line).contains(mark)
        })
        .collect()
}
