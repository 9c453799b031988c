//! Settings that are known to work, by environment and algorithm: data, compiled in.

/// A preset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preset {
    /// Environment.
    pub env: &'static str,
    /// Algorithm.
    pub algo: &'static str,
    /// The settings, as TOML.
    pub toml: &'static str,
}

macro_rules! preset {
    ($env:literal, $algo:literal) => {
        Preset {
            env: $env,
            algo: $algo,
            toml: include_str!(concat!("../../../presets/", $env, "/", $algo, ".toml")),
        }
    };
}

/// All presets.
pub static PRESETS: &[Preset] = &[
    preset!("CartPole-v1", "acktr"),
    preset!("CartPole-v1", "a2c"),
    preset!("CartPole-v1", "a3c"),
    preset!("CartPole-v1", "async-q"),
    preset!("CartPole-v1", "async-sarsa"),
    preset!("CartPole-v1", "async-nstep-q"),
    preset!("CartPole-v1", "ppo"),
    preset!("CartPole-v1", "td-ac"),
    preset!("CartPole-v1", "qac"),
    preset!("CartPole-v1", "nac"),
    preset!("ShortCorridor-v0", "td-ac"),
    preset!("Acrobot-v1", "acktr"),
    preset!("CartPole-v1", "reinforce"),
    preset!("Acrobot-v1", "ppo"),
    preset!("MountainCar-v0", "acktr"),
    preset!("Acrobot-v1", "a2c"),
    preset!("MountainCar-v0", "a2c"),
    preset!("MountainCar-v0", "ppo"),
    preset!("MountainCarContinuous-v0", "a2c"),
    preset!("MountainCarContinuous-v0", "ppo"),
    preset!("Pendulum-v1", "acktr"),
    preset!("Pendulum-v1", "a2c"),
    preset!("Pendulum-v1", "ppo"),
    preset!("CartPoleNoVel-v1", "ppo"),
    preset!("PendulumNoVel-v1", "ppo"),
    preset!("MountainCarContinuousNoVel-v0", "ppo"),
    preset!("TMaze10-v0", "ppo"),
    preset!("CartPole-v1", "trpo"),
    preset!("Acrobot-v1", "trpo"),
    preset!("MountainCar-v0", "trpo"),
    preset!("MountainCarContinuous-v0", "trpo"),
    preset!("Pendulum-v1", "trpo"),
    preset!("MinAtar/Breakout-v1", "ppo"),
    preset!("MinAtar/Asterix-v1", "ppo"),
    preset!("MinAtar/Freeway-v1", "ppo"),
    preset!("MinAtar/SpaceInvaders-v1", "ppo"),
    preset!("MinAtar/Seaquest-v1", "ppo"),
];

/// The preset of `algo` for `env`.
#[must_use]
pub fn find(algo: &str, env: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|p| p.algo == algo && p.env == env)
}
