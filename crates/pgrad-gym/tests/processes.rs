//! How many processes there are. A test of its own: they are counted by whose they are.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

#[expect(dead_code, reason = "what other tests use")]
mod common;

use common::{open, processes, settings};
use pgrad_env::VecEnv;
use pgrad_gym::GymSettings;
use serde_json::json;

#[test]
fn there_is_one_process_for_each_core_of_the_whole_run_unless_somebody_says_otherwise() {
    let cores = std::thread::available_parallelism().unwrap().get();
    let mark = format!("\u{0}{}\u{0}", std::process::id());
    let counted = |env_workers: usize, shards: usize| {
        let gym = open("Planned-v0", &GymSettings { env_workers, ..settings(&json!({})) });
        let mut all: Vec<_> = (0..shards).map(|i| VecEnv::new(gym.make(3), 1, 3 * i)).collect();
        all.iter_mut().for_each(|env| env.start().unwrap());
        // Each has one that watches over it.
        processes(&mark).len() / 2
    };
    assert_eq!(counted(0, 1), cores.min(3));
    assert_eq!(counted(0, 2), 2 * cores.div_ceil(2).min(3));
    assert_eq!(counted(0, cores + 1), cores + 1);
    assert_eq!(counted(2, 2), 4);
}
