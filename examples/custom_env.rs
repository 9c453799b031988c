//! An environment of one's own, checked and trained: `cargo run --release -p pgrad --example custom_env`.

use pgrad::{Action, BoxSpace, End, Env, EnvSpec, Event, Obs, Options, RunConfig, Space, Step, Stream};

/// A boat crosses a river one unit wide to a jetty at y = 0; the current pushes it towards larger y.
#[derive(Default)]
struct River {
    x: f64,
    y: f64,
}

impl Env for River {
    fn spec(&self) -> EnvSpec {
        EnvSpec {
            id: "River-v0".into(),
            observation: BoxSpace::unbounded(2).into(),
            action: Space::Box(BoxSpace::uniform(-1.0, 1.0, 1)), // the rudder
            max_episode_steps: Some(100),
            reward_threshold: Some(-0.1),
            masks_actions: false,
        }
    }
    fn reset(&mut self, rng: &mut Stream, obs: &mut Obs<'_>) {
        (self.x, self.y) = (0.0, rng.uniform_in(-0.5, 0.5));
        obs.write_f64(&[self.x, self.y]);
    }
    fn step(&mut self, action: Action<'_>, _: &mut Stream, obs: &mut Obs<'_>) -> Step {
        let current = 4.0 * self.x * (1.0 - self.x); // strongest in the middle
        self.x = (self.x + 0.05).min(1.0);
        self.y += 0.05 * (current + 2.0 * f64::from(action.values()[0]));
        obs.write_f64(&[self.x, self.y]);
        let landed = self.x >= 1.0;
        Step {
            reward: if landed { -self.y.abs() } else { 0.0 },
            end: if landed { End::Terminated } else { End::Running },
        }
    }
    fn save(&self) -> Option<Vec<f64>> {
        Some(vec![self.x, self.y])
    }
    fn load(&mut self, state: &[f64]) -> bool {
        let [x, y] = *state else { return false };
        (self.x, self.y) = (x, y);
        true
    }
}

#[expect(clippy::print_stdout, reason = "an example talks to its reader")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let findings = pgrad::check_env(River::default, 1);
    assert!(findings.is_empty(), "{findings:?}");
    let mut config = RunConfig::custom("ppo", "River-v0", pgrad::env_maker(River::default))?;
    for pair in ["steps=100000", "n_envs=16", "learning_rate=1e-3", "gamma=1"] {
        config.apply_pair(pair, "custom_env")?;
    }
    let mut listen = |_: Event<'_>| ();
    let summary = pgrad::train(config, Options::new(&mut listen))?;
    println!("{:?}: {:.3}", summary.run_dir, summary.progress.return_mean_100.unwrap_or(f64::NAN));
    Ok(())
}
