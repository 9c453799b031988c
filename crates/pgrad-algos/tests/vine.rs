//! What TRPO's settings mean for a vine.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

use pgrad_algos::Setup;
use pgrad_engine::Cpu;
use pgrad_env::{Action, BatchResult, BoxSpace, Each, End, Env, EnvSpec, Obs, Space, Step, spec_of};
use pgrad_num::Stream;
use pgrad_settings::apply_pair;

/// A walk to and fro without an end: the reward is where it leads, and what comes later depends on it.
#[derive(Clone, Default)]
struct Walk {
    at: f64,
}

impl Env for Walk {
    fn spec(&self) -> EnvSpec {
        EnvSpec {
            id: "Walk".into(),
            observation: BoxSpace::unbounded(1).into(),
            action: Space::Discrete { n: 2 },
            max_episode_steps: Some(30),
            reward_threshold: None,
            masks_actions: false,
        }
    }
    fn reset(&mut self, rng: &mut Stream, obs: &mut Obs<'_>) {
        self.at = rng.normal();
        obs.write_f64(&[self.at]);
    }
    fn step(&mut self, action: Action<'_>, rng: &mut Stream, obs: &mut Obs<'_>) -> Step {
        self.at = 0.8 * self.at + 2.0 * action.index() as f64 - 1.0 + 0.1 * rng.normal();
        obs.write_f64(&[self.at]);
        Step { reward: (1.3 * self.at).sin(), end: End::Running }
    }
    fn save(&self) -> Option<Vec<f64>> {
        Some(vec![self.at])
    }
    fn load(&mut self, state: &[f64]) -> bool {
        self.at = state[0];
        true
    }
}

/// The policy after one iteration.
fn policy(gamma: &str, length: &str) -> Vec<f32> {
    let mut config = (pgrad_algos::find("trpo").unwrap().config)();
    let pairs = ["n_envs=4", "n_steps=25", "sampling=vine", "vine_states=20"];
    let own = [format!("gamma={gamma}"), format!("vine_length={length}")];
    for pair in pairs.into_iter().chain(own.iter().map(String::as_str)) {
        apply_pair(pair, "test", &mut config.parts_mut()).unwrap();
    }
    let make = Each::maker(Walk::default);
    let make: &dyn Fn(usize) -> BatchResult = &make;
    let spec = spec_of(make).unwrap();
    let setup =
        Setup { spec: &spec, make_env: make, seed: 2, total_steps: 1_000_000, cpu: Cpu::new(1).unwrap() };
    let mut trpo = config.build(&setup).unwrap();
    trpo.start().unwrap();
    trpo.iterate().unwrap();
    trpo.model().theta.clone()
}

/// With γ = 0 a rollout is worth its first reward, however long it is; with any other γ it is not.
#[test]
fn rollouts_are_discounted_by_gamma() {
    assert_eq!(policy("0", "9"), policy("0", "1"));
    let all = ["0", "0.5", "0.99", "1"].map(|gamma| policy(gamma, "9"));
    for (i, a) in all.iter().enumerate() {
        assert!(all[i + 1..].iter().all(|b| a != b), "{i}");
    }
}
