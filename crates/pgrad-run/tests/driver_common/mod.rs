//! What the tests of whole runs share.
#![allow(dead_code, unreachable_pub, reason = "several test binaries share it, each uses a part")]

use pgrad_run::clock::{Clock, SystemClock};
use pgrad_run::config::RunConfig;
use pgrad_run::driver::{self, Event, Options, Progress, RunError, Summary};
use pgrad_run::env::EnvMaker;
use pgrad_run::metrics::{Row, read_log};
use pgrad_run::storage::{FsStorage, Storage};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Small enough to be quick, large enough for several shards, minibatches and updates.
const SMALL: &[&str] = &[
    "n_envs=12",
    "envs_per_shard=4",
    "n_steps=8",
    "minibatch_size=40",
    "epochs=2",
    "hidden=8,8",
    "checkpoint_secs=1e6",
];

/// How whole runs of a method are tested: a row of [`METHODS`].
pub struct Method {
    pub algo: &'static str,
    /// Settings that make it quick: an iteration of about 100 steps of 12 environments, or of one where it
    /// has no more.
    pub small: &'static [&'static str],
    /// What makes an iteration wide: work for four threads wherever it has any.
    pub wide: &'static [&'static str],
    /// An environment and settings each; together they have everything that a checkpoint of the method may
    /// hold.
    pub variants: &'static [(&'static str, &'static [&'static str])],
    /// Settings for 6 environments in 3 shards that do 10 steps each in an iteration; `None` where an
    /// iteration is something else.
    pub ten_steps: Option<&'static [&'static str]>,
}

/// The same for the methods with a natural gradient.
const NATURAL: &[&str] =
    &["n_envs=12", "envs_per_shard=4", "n_steps=8", "minibatch_size=40", "hidden=8,8", "checkpoint_secs=1e6"];

/// The same for the methods that learn at every step.
const ONLINE: &[&str] = &["n_envs=6", "n_steps=16", "hidden=8", "checkpoint_secs=1e6"];

/// The same for asynchronous methods: with one actor-learner they are reproducible.
const ASYNC: &[&str] = &["workers=1", "steps_per_iteration=90", "hidden=8", "checkpoint_secs=1e6"];

const ASYNC_VALUES: &[&str] = &[
    "workers=1",
    "steps_per_iteration=90",
    "hidden=8",
    "checkpoint_secs=1e6",
    "target_steps=130",
    "epsilon_steps=500",
];

/// Six shards, and minibatches of three chunks (two and a half, really).
const WIDE: &[&str] = &["n_envs=24", "n_steps=16", "minibatch_size=160"];

const TEN_STEPS: &[&str] = &["n_envs=6", "n_steps=10", "envs_per_shard=2", "minibatch_size=20"];

const NORMALIZED: &[&str] = &["normalize_obs=true", "normalize_reward=true"];

pub static METHODS: &[Method] = &[
    Method {
        algo: "ppo",
        small: SMALL,
        wide: WIDE,
        variants: &[
            ("CartPole-v1", &["trunk=shared", "learning_rate_schedule=linear", "clip_schedule=linear"]),
            ("CartPole-v1", &["objective=kl-adaptive", "learning_rate=0.01"]),
            (
                "Pendulum-v1",
                &[
                    "normalize_obs=true",
                    "normalize_reward=true",
                    "learning_rate_schedule=linear",
                    "log_every=2",
                ],
            ),
            ("Pendulum-v1", &["trunk=shared", "advantage=vtrace", "recompute_advantage=true"]),
            #[cfg(feature = "mujoco")]
            ("Hopper-v5", &["normalize_obs=true", "normalize_reward=true"]),
            (
                "CartPoleNoVel-v1",
                &["recurrent=lstm", "recurrent_size=8", "sequence_length=2", "initial_state=recomputed"],
            ),
            (
                "PendulumNoVel-v1",
                &[
                    "recurrent=gru",
                    "recurrent_size=8",
                    "trunk=shared",
                    "normalize_obs=true",
                    "sequence_length=2",
                ],
            ),
        ],
        ten_steps: Some(TEN_STEPS),
    },
    Method {
        algo: "a2c",
        small: &["n_envs=12", "envs_per_shard=4", "n_steps=8", "hidden=8,8", "checkpoint_secs=1e6"],
        wide: &["n_envs=24", "n_steps=16"],
        variants: &[
            ("CartPole-v1", &["trunk=shared", "learning_rate=0.01"]),
            ("CartPole-v1", &["advantage=vtrace", "learning_rate=0.01"]),
            ("CartPoleNoVel-v1", &["recurrent=gru", "recurrent_size=8", "learning_rate=0.01"]),
            ("Pendulum-v1", &["normalize_obs=true", "normalize_reward=true", "advantage=gae", "lambda=0.9"]),
        ],
        ten_steps: Some(&["n_envs=6", "n_steps=10", "envs_per_shard=2"]),
    },
    Method {
        algo: "npg",
        small: NATURAL,
        wide: WIDE,
        variants: &[
            ("CartPole-v1", &["fisher=empirical"]),
            ("Pendulum-v1", NORMALIZED),
            ("CartPoleNoVel-v1", &["recurrent=gru", "recurrent_size=8"]),
        ],
        ten_steps: Some(TEN_STEPS),
    },
    Method {
        algo: "trpo",
        small: NATURAL,
        wide: WIDE,
        variants: &[
            ("CartPole-v1", &["constraint=max-kl", "delta=0.1"]),
            ("CartPole-v1", &["constraint=penalty"]),
            ("PendulumNoVel-v1", &["recurrent=lstm", "recurrent_size=8", "normalize_obs=true"]),
            ("Pendulum-v1", NORMALIZED),
        ],
        ten_steps: Some(TEN_STEPS),
    },
    Method {
        algo: "trpo",
        // States enough for several groups of rollouts.
        small: &[
            "n_envs=12",
            "envs_per_shard=4",
            "n_steps=8",
            "vine_states=40",
            "vine_length=2",
            "hidden=8,8",
            "checkpoint_secs=1e6",
        ],
        wide: &["n_envs=24", "n_steps=16", "vine_states=100"],
        variants: &[
            ("CartPole-v1", &["sampling=vine-every", "steps=5000"]),
            ("CartPole-v1", &["sampling=vine-uniform", "fisher=empirical", "steps=5000"]),
            ("Pendulum-v1", &["sampling=vine", "normalize_obs=true", "normalize_reward=true", "steps=6000"]),
        ],
        ten_steps: None,
    },
    Method {
        algo: "cem",
        small: &["population=8", "elite_fraction=0.4", "hidden=4", "checkpoint_secs=1e6"],
        wide: &["population=12"],
        variants: &[
            ("CartPole-v1", &["steps=6000", "episodes_per_candidate=2"]),
            ("Pendulum-v1", &["steps=15000", "extra_iterations=3"]),
        ],
        // An iteration is of whole episodes.
        ten_steps: None,
    },
    Method {
        algo: "off-pac",
        small: ONLINE,
        wide: &["n_steps=32"],
        variants: &[
            ("CartPole-v1", &["alpha_w=1e-4"]),
            ("CartPole-v1", &["behaviour=soft-target", "lambda=0.8", "step_size_schedule=linear"]),
        ],
        ten_steps: None,
    },
    Method {
        algo: "q-lambda",
        small: ONLINE,
        wide: &["n_steps=32"],
        variants: &[("CartPole-v1", &["lambda=0.8", "behaviour=soft-target"])],
        ten_steps: None,
    },
    Method {
        algo: "greedy-gq",
        small: ONLINE,
        wide: &["n_steps=32"],
        variants: &[("CartPole-v1", &["lambda=0.4", "alpha_w=1e-4", "step_size_schedule=linear"])],
        ten_steps: None,
    },
    Method {
        algo: "softmax-gq",
        small: ONLINE,
        wide: &["n_steps=32"],
        variants: &[("CartPole-v1", &["lambda=0.4", "alpha_w=1e-4", "behaviour=soft-target"])],
        ten_steps: None,
    },
    Method {
        algo: "acktr",
        small: &["n_envs=12", "envs_per_shard=4", "n_steps=8", "hidden=8,8", "checkpoint_secs=1e6"],
        wide: &["n_envs=24", "n_steps=16"],
        variants: &[("CartPole-v1", &["trunk=shared"]), ("Pendulum-v1", NORMALIZED)],
        ten_steps: Some(&["n_envs=6", "n_steps=10", "envs_per_shard=2"]),
    },
    Method {
        algo: "reinforce",
        // Shards of unequal size, environments with unequal numbers of episodes.
        small: &[
            "n_envs=11",
            "n_episodes=15",
            "envs_per_shard=3",
            "hidden=8",
            "checkpoint_secs=1e6",
            "max_grad_norm=1",
        ],
        wide: &[],
        variants: &[
            ("CartPole-v1", &["psi=to-go", "steps=6000"]),
            ("CartPole-v1", &["psi=baseline", "optimizer=adam", "normalize_obs=true", "steps=6000"]),
            ("Pendulum-v1", &["psi=baseline", "normalize_obs=true", "normalize_reward=true", "steps=20000"]),
        ],
        // An iteration is of whole episodes.
        ten_steps: None,
    },
    Method {
        algo: "td-ac",
        small: ONLINE,
        wide: &["n_steps=32"],
        variants: &[
            ("CartPole-v1", &["lambda_policy=0.8", "lambda_value=0.9"]),
            ("Pendulum-v1", &["alpha_theta=1e-6", "alpha_w=1e-4"]),
        ],
        // It learns at every step: a fault in the middle of an iteration has learning before it.
        ten_steps: None,
    },
    Method {
        algo: "qac",
        small: ONLINE,
        wide: &["n_steps=32"],
        variants: &[("CartPole-v1", &["step_size_schedule=linear"])],
        ten_steps: None,
    },
    Method {
        algo: "nac",
        small: ONLINE,
        wide: &["n_steps=32"],
        variants: &[("CartPole-v1", &[])],
        ten_steps: None,
    },
    Method {
        algo: "a3c",
        small: ASYNC,
        wide: &[],
        variants: &[
            ("CartPole-v1", &["trunk=shared"]),
            ("CartPole-v1", &["optimizer=rmsprop", "record=true"]),
            ("Pendulum-v1", &["optimizer=momentum", "learning_rate=1e-5"]),
            ("CartPoleNoVel-v1", &["recurrent=lstm", "recurrent_size=8"]),
        ],
        ten_steps: None,
    },
    Method {
        algo: "async-q",
        small: ASYNC_VALUES,
        wide: &[],
        variants: &[("CartPole-v1", &[]), ("Acrobot-v1", &["optimizer=momentum", "learning_rate=1e-5"])],
        ten_steps: None,
    },
    Method {
        algo: "async-sarsa",
        small: ASYNC_VALUES,
        wide: &[],
        variants: &[("CartPole-v1", &["optimizer=rmsprop"])],
        ten_steps: None,
    },
    Method {
        algo: "async-nstep-q",
        small: ASYNC_VALUES,
        wide: &[],
        variants: &[("CartPole-v1", &["epsilon_draw=once"])],
        ten_steps: None,
    },
];

impl Method {
    /// Its preset for `env`, made small.
    pub fn config(&self, env: &str, pairs: &[&str]) -> RunConfig {
        with(RunConfig::new(self.algo, env).unwrap(), &[self.small, pairs].concat())
    }
    /// For an environment that is not in the registry, made small.
    pub fn custom(&self, id: &str, make: EnvMaker, pairs: &[&str]) -> RunConfig {
        with(RunConfig::custom(self.algo, id, make).unwrap(), &[self.small, pairs].concat())
    }
    /// Calls `test` with each variant, its name first.
    pub fn each_variant(&self, test: impl Fn(&str, &str, &[&str])) {
        for (env, pairs) in self.variants {
            test(&format!("{} on {env}, {pairs:?}", self.algo), env, pairs);
        }
    }
}

/// Tests that are not about the method use this one.
pub fn config(env: &str, pairs: &[&str]) -> RunConfig {
    METHODS[0].config(env, pairs)
}

pub fn custom(id: &str, make: EnvMaker, pairs: &[&str]) -> RunConfig {
    METHODS[0].custom(id, make, pairs)
}

fn with(mut config: RunConfig, pairs: &[&str]) -> RunConfig {
    for pair in pairs {
        config.apply_pair(pair, "test").unwrap();
    }
    config
}

/// How to run, and what was heard.
pub struct Runner {
    pub threads: usize,
    pub storage: Arc<dyn Storage>,
    pub clock: Arc<dyn Clock>,
    /// Called after each iteration, before what is saved.
    pub hook: Box<dyn FnMut(&Progress)>,
    /// Stop after this many iterations of this process.
    pub stop_after: Option<u64>,
    pub notices: Vec<String>,
    pub progress: Vec<Progress>,
}

impl Default for Runner {
    fn default() -> Self {
        Self {
            threads: 1,
            storage: Arc::new(FsStorage),
            clock: Arc::new(SystemClock::new()),
            hook: Box::new(|_| ()),
            stop_after: None,
            notices: Vec::new(),
            progress: Vec::new(),
        }
    }
}

impl Runner {
    fn run<T>(&mut self, dir: &Path, go: impl FnOnce(Options<'_>) -> T) -> T {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let (notices, progress, after) = (&mut self.notices, &mut self.progress, self.stop_after);
        let hook = &mut self.hook;
        let mut seen = 0;
        let mut listen = |event: Event<'_>| match event {
            Event::Notice(text) => notices.push(text.to_owned()),
            Event::Iteration(p) => {
                progress.push(p.clone());
                hook(p);
                seen += 1;
                if after.is_some_and(|n| seen >= n) {
                    flag.store(true, Ordering::Relaxed);
                }
            }
        };
        let mut options = Options::new(&mut listen);
        options.threads = self.threads;
        options.run_dir = Some(dir.to_owned());
        options.stop = stop;
        options.storage = Arc::clone(&self.storage);
        options.clock = Arc::clone(&self.clock);
        go(options)
    }
    pub fn train(&mut self, dir: &Path, config: RunConfig) -> Result<Summary, RunError> {
        self.run(dir, |options| driver::train(config, options))
    }
    pub fn resume(&mut self, dir: &Path) -> Result<Summary, RunError> {
        self.run(dir, |options| driver::resume(dir, options))
    }
    pub fn resume_with(&mut self, dir: &Path, make: EnvMaker) -> Result<Summary, RunError> {
        self.run(dir, |options| driver::resume_with(dir, Some(make), options))
    }
}

/// What two equal runs agree in: the policy's bytes, and the metrics apart from time (numbers as bits, so
/// that a NaN equals itself).
pub type Result_ = (Vec<u8>, Vec<(u64, Vec<(String, u64)>)>);

pub fn result(dir: &Path) -> Result_ {
    (std::fs::read(dir.join("policy.safetensors")).unwrap(), metrics(dir))
}

pub fn metrics(dir: &Path) -> Vec<(u64, Vec<(String, u64)>)> {
    let log = read_log(&FsStorage, &dir.join("metrics.jsonl")).unwrap();
    assert_eq!(log.torn, None);
    let bits =
        |row: &Row| (row.step, row.values.iter().map(|(n, v)| (n.clone(), v.to_bits())).collect::<Vec<_>>());
    log.without_time().iter().map(bits).collect()
}
