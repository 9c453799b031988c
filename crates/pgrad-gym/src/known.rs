//! Names that environments of Gymnasium are known by, without asking a Python.
//!
//! It is data for messages only: what there is decides Gymnasium when a process is started.

use crate::name::GYM_PREFIX;

/// What Gymnasium itself registers, in the versions from 1.0 to 1.4, without what it has deprecated.
pub static IDS: &[&str] = &[
    "CartPole-v1",
    "MountainCar-v0",
    "MountainCarContinuous-v0",
    "Pendulum-v1",
    "Acrobot-v1",
    "phys2d/CartPole-v1",
    "phys2d/Pendulum-v0",
    "LunarLander-v3",
    "LunarLanderContinuous-v3",
    "BipedalWalker-v3",
    "BipedalWalkerHardcore-v3",
    "CarRacing-v3",
    "Blackjack-v1",
    "FrozenLake-v1",
    "FrozenLake8x8-v1",
    "CliffWalking-v1",
    "CliffWalking-v0",
    "CliffWalkingSlippery-v1",
    "Taxi-v4",
    "Taxi-v3",
    "tabular/Blackjack-v0",
    "tabular/CliffWalking-v0",
    "Reacher-v5",
    "Reacher-v4",
    "Pusher-v5",
    "Pusher-v4",
    "InvertedPendulum-v5",
    "InvertedPendulum-v4",
    "InvertedDoublePendulum-v5",
    "InvertedDoublePendulum-v4",
    "HalfCheetah-v5",
    "HalfCheetah-v4",
    "Hopper-v5",
    "Hopper-v4",
    "Swimmer-v5",
    "Swimmer-v4",
    "Walker2d-v5",
    "Walker2d-v4",
    "Ant-v5",
    "Ant-v4",
    "Humanoid-v5",
    "Humanoid-v4",
    "HumanoidStandup-v5",
    "HumanoidStandup-v4",
];

/// A Python package that registers environments when its module is imported.
#[derive(Debug)]
pub(crate) struct Package {
    /// What its IDs begin with; what they contain, after a `*`.
    marks: &'static [&'static str],
    /// What is imported.
    pub(crate) module: &'static str,
    /// What pip installs.
    pub(crate) pip: &'static str,
}

static PACKAGES: &[Package] = &[
    Package { marks: &["ALE/", "*NoFrameskip-v"], module: "ale_py", pip: "ale-py" },
    Package { marks: &["MiniGrid-", "BabyAI-"], module: "minigrid", pip: "minigrid" },
    Package {
        marks: &["highway-", "merge-", "roundabout-", "parking-", "intersection-", "racetrack-"],
        module: "highway_env",
        pip: "highway-env",
    },
    Package {
        marks: &[
            "Fetch",
            "HandReach",
            "HandManipulate",
            "AntMaze_",
            "PointMaze_",
            "AdroitHand",
            "FrankaKitchen",
        ],
        module: "gymnasium_robotics",
        pip: "gymnasium-robotics",
    },
    Package { marks: &["Meta-World/"], module: "metaworld", pip: "metaworld" },
    Package { marks: &["dm_control/"], module: "shimmy", pip: "'shimmy[dm-control]'" },
    Package { marks: &["Vizdoom"], module: "vizdoom.gymnasium_wrapper", pip: "vizdoom" },
    Package { marks: &["MiniWorld-"], module: "miniworld", pip: "miniworld" },
    Package { marks: &["MiniHack-"], module: "minihack", pip: "minihack" },
    Package { marks: &["NetHack"], module: "nle", pip: "nle" },
    Package { marks: &["Panda"], module: "panda_gym", pip: "panda-gym" },
    Package { marks: &["PyFlyt/"], module: "PyFlyt.gym_envs", pip: "PyFlyt" },
    Package { marks: &["FlappyBird-"], module: "flappy_bird_gymnasium", pip: "flappy-bird-gymnasium" },
    Package { marks: &["gym_pusht/"], module: "gym_pusht", pip: "gym-pusht" },
    Package { marks: &["gym_aloha/"], module: "gym_aloha", pip: "gym-aloha" },
    Package { marks: &["gym_xarm/"], module: "gym_xarm", pip: "gym-xarm" },
];

/// The package that registers `id`, which names no module.
pub(crate) fn package_of(id: &str) -> Option<&'static Package> {
    let is_of = |mark: &str| mark.strip_prefix('*').map_or(id.starts_with(mark), |part| id.contains(part));
    PACKAGES.iter().find(|p| p.marks.iter().any(|mark| is_of(mark)))
}

/// What pip installs to have `module`, where it is known.
pub(crate) fn pip_of(module: &str) -> Option<&'static str> {
    let root = |module: &'static str| module.split('.').next();
    let asked = module.split('.').next();
    match asked {
        Some("gymnasium" | "numpy") => Some("gymnasium numpy"),
        Some("envpool") => Some("envpool"),
        _ => PACKAGES.iter().find(|p| root(p.module) == asked).map(|p| p.pip),
    }
}

/// Which package registers `id`, and the whole name by which it is found here.
///
/// ```
/// use pgrad_gym::registered;
/// assert_eq!(registered("LunarLander-v3"), Some(("gymnasium", "gym:LunarLander-v3".to_owned())));
/// assert_eq!(registered("ALE/Pong-v5"), Some(("ale-py", "gym:ale_py:ALE/Pong-v5".to_owned())));
/// assert_eq!(registered("LunarLander"), None);
/// ```
#[must_use]
pub fn registered(id: &str) -> Option<(&'static str, String)> {
    if IDS.contains(&id) {
        return Some(("gymnasium", format!("{GYM_PREFIX}{id}")));
    }
    package_of(id).map(|p| (p.pip, format!("{GYM_PREFIX}{}:{id}", p.module)))
}
