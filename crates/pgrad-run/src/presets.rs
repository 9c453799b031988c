//! Settings that are known to work, by environment and algorithm: data, compiled in.
//!
//! A pair has one preset that is taken unless another is asked for, [`TUNED`]: what we found to learn best
//! within the steps that it gives. Beside it there may be others with a name of their own, which
//! `--preset NAME` chooses: `paper` is what the method's authors published. Their files are
//! `presets/ENV/ALGO.toml` and `presets/ENV/ALGO.NAME.toml`; a family of tasks that share settings shares the
//! file.

/// A preset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preset {
    /// Environment.
    pub env: &'static str,
    /// Algorithm.
    pub algo: &'static str,
    /// Its own name: [`TUNED`] unless the file has another.
    pub name: &'static str,
    /// The file, for messages.
    pub path: &'static str,
    /// The settings, as TOML.
    pub toml: &'static str,
}

/// The preset that is taken unless another is asked for.
pub const TUNED: &str = "tuned";

macro_rules! preset {
    ($env:literal, $algo:literal) => {
        preset!($env, $algo, "tuned", concat!("presets/", $env, "/", $algo, ".toml"))
    };
    ($env:expr, $algo:literal, $name:literal, $path:expr) => {
        Preset {
            env: $env,
            algo: $algo,
            name: $name,
            path: $path,
            toml: include_str!(concat!("../../../", $path)),
        }
    };
    // Of Gymnasium: a file's name takes no colon.
    (gym $env:literal, $algo:literal) => {
        preset!(concat!("gym:", $env), $algo, "tuned", concat!("presets/gym/", $env, "/", $algo, ".toml"))
    };
}

/// The presets of a MuJoCo task, of both versions: those with files of their own, and those of all tasks.
#[cfg(feature = "mujoco")]
macro_rules! mujoco {
    ($task:literal, own: [$($own:literal),*], shared: [$($shared:literal),*]) => {
        &[
            $(
                preset!(concat!($task, "-v5"), $own, "tuned", concat!("presets/MuJoCo/", $task, "/", $own, ".toml")),
                preset!(concat!($task, "-v4"), $own, "tuned", concat!("presets/MuJoCo/", $task, "/", $own, ".toml")),
            )*
            $(
                preset!(concat!($task, "-v5"), $shared, "tuned", concat!("presets/MuJoCo/", $shared, ".toml")),
                preset!(concat!($task, "-v4"), $shared, "tuned", concat!("presets/MuJoCo/", $shared, ".toml")),
            )*
            preset!(concat!($task, "-v5"), "ppo", "paper", "presets/MuJoCo/ppo.paper.toml"),
            preset!(concat!($task, "-v4"), "ppo", "paper", "presets/MuJoCo/ppo.paper.toml"),
        ]
    };
}

/// The presets of the feature `mujoco`, task by task.
#[cfg(feature = "mujoco")]
static MUJOCO: &[&[Preset]] = &[
    mujoco!("HalfCheetah", own: ["trpo"], shared: ["ppo", "npg", "a2c"]),
    mujoco!("Hopper", own: ["a2c"], shared: ["ppo", "trpo", "npg"]),
    mujoco!("Walker2d", own: ["a2c"], shared: ["ppo", "trpo", "npg"]),
    mujoco!("Ant", own: [], shared: ["ppo", "trpo", "npg", "a2c"]),
    mujoco!("Humanoid", own: [], shared: ["ppo", "trpo", "npg", "a2c"]),
    mujoco!("HumanoidStandup", own: [], shared: ["ppo", "trpo", "npg", "a2c"]),
    mujoco!("Swimmer", own: ["ppo", "trpo", "npg", "a2c"], shared: []),
    mujoco!("Reacher", own: [], shared: ["ppo", "trpo", "npg", "a2c"]),
    mujoco!("Pusher", own: [], shared: ["ppo", "trpo", "npg", "a2c"]),
    mujoco!("InvertedPendulum", own: [], shared: ["ppo", "trpo", "npg", "a2c"]),
    mujoco!("InvertedDoublePendulum", own: ["trpo", "npg"], shared: ["ppo", "a2c"]),
];
#[cfg(not(feature = "mujoco"))]
static MUJOCO: &[&[Preset]] = &[];

/// The presets of this program's own tasks.
static OWN: &[Preset] = &[
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
    preset!("TMaze50-v0", "ppo"),
    preset!("CartPole-v1", "trpo"),
    preset!("Acrobot-v1", "trpo"),
    preset!("MountainCar-v0", "trpo"),
    preset!("MountainCarContinuous-v0", "trpo"),
    preset!("Pendulum-v1", "trpo"),
    preset!("MinAtar/Breakout-v1", "ppo"),
    preset!("MinAtar/Breakout-v1", "a3c"),
    preset!("MinAtar/Breakout-v1", "async-q"),
    preset!("MinAtar/Breakout-v1", "async-sarsa"),
    preset!("MinAtar/Breakout-v1", "async-nstep-q"),
    preset!("MinAtar/Asterix-v1", "ppo"),
    preset!("MinAtar/Freeway-v1", "ppo"),
    preset!("MinAtar/SpaceInvaders-v1", "ppo"),
    preset!("MinAtar/Seaquest-v1", "ppo"),
    preset!(gym "LunarLander-v3", "ppo"),
    preset!(gym "LunarLander-v3", "a2c"),
    preset!(gym "LunarLander-v3", "trpo"),
    preset!(gym "LunarLander-v3", "npg"),
    preset!(gym "BipedalWalker-v3", "ppo"),
    preset!(gym "BipedalWalker-v3", "a2c"),
    preset!(gym "BipedalWalker-v3", "trpo"),
    preset!(gym "BipedalWalker-v3", "npg"),
    preset!(gym "LunarLanderContinuous-v3", "ppo"),
    preset!(gym "BipedalWalkerHardcore-v3", "ppo"),
];

/// All presets.
pub fn all() -> impl Iterator<Item = &'static Preset> {
    OWN.iter().chain(MUJOCO.iter().copied().flatten())
}

/// The preset called `name` of `algo` for `env`. A task of Gymnasium or EnvPool that is native as well
/// (`gym:CartPole-v1`) has that one's, and EnvPool's has Gymnasium's (`envpool:LunarLander-v3`).
#[must_use]
pub fn find(algo: &str, env: &str, name: &str) -> Option<&'static Preset> {
    let of = |env: &str| all().find(|p| p.algo == algo && p.env == env && p.name == name);
    let [gym, envpool] = [pgrad_gym::GYM_PREFIX, pgrad_gym::ENVPOOL_PREFIX].map(|p| env.strip_prefix(p));
    of(env).or_else(|| of(gym.or(envpool)?)).or_else(|| of(&format!("{}{}", pgrad_gym::GYM_PREFIX, envpool?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environments_in_python_have_those_of_the_same_task() {
        let path = |env: &str| find("ppo", env, TUNED).map(|p| p.path);
        assert_eq!(path("gym:CartPole-v1"), path("CartPole-v1"));
        assert_eq!(path("envpool:CartPole-v1"), path("CartPole-v1"));
        assert!(path("envpool:LunarLander-v3").is_some());
        assert_eq!(path("envpool:LunarLander-v3"), path("gym:LunarLander-v3"));
        assert_eq!(path("LunarLander-v3"), None);
    }

    #[test]
    fn none_hides_another() {
        for p in all() {
            assert_eq!(find(p.algo, p.env, p.name), Some(p));
            assert!(find(p.algo, p.env, TUNED).is_some(), "{} has no preset to take by default", p.path);
        }
    }
}
