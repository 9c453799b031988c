//! Settings of foreign environments.

use pgrad_settings::{above, choice, settings, settings_like};

choice! {
    /// What to do when an environment fails.
    pub enum OnEnvError {
        /// Restart it, as long as the budget of restarts lasts.
        Restart = "restart",
        /// Continue without it.
        Drop = "drop",
        /// Stop the run with an error.
        Stop = "stop",
    }
}

choice! {
    /// What to do about an observation outside the bounds of its space.
    pub enum OnOutOfBounds {
        /// Count it, and report the first one.
        Report = "report",
        /// Stop the run with an error.
        Stop = "stop",
    }
}

choice! {
    /// Whether the action masks of an environment are obeyed.
    pub enum ActionMasks {
        /// Obeyed where it has them: a method `action_masks()`, or else `info["action_mask"]` from its first
        /// reset on. A message says which.
        Obey = "obey",
        /// Not asked for.
        Ignore = "ignore",
    }
}

settings! {
    /// Environments in Python.
    pub struct GymSettings {
        /// Python interpreter that runs the environments: a path, or a name on PATH. It needs the packages
        /// `gymnasium` and `numpy` (and `envpool` for `envpool:`), and whatever the environment itself needs.
        python: String = "python3".to_owned(), range: 1..=4096, resume: free;
        /// Keyword arguments for the environment, as a TOML inline table or a JSON object, such as
        /// `{ gravity = -5.0 }`.
        env_kwargs: String = String::new(), range: 0..=65_536;
        /// Parts of a `Dict` or `Tuple` observation that are used, with commas between; all when empty. They
        /// are named as `check-env` names them, with dots between levels, and a name stands for all below it.
        obs_parts: String = String::new(), range: 0..=65_536;
        /// Number of processes per shard (`gym:`), each running several environments. 0 uses as many as give
        /// one process per core over all shards, but at least one per shard.
        env_workers: usize = 0, range: 0..=1024, unit: "processes", resume: free;
        /// Number of threads per shard in its EnvPool process (`envpool:`). 0 uses as many as give one thread
        /// per core over all shards, but at least one per shard.
        env_threads: usize = 0, range: 0..=1024, unit: "threads", resume: free;
        /// Time limit for a step, a reset or a `close`. A process that exceeds it is killed.
        env_step_secs: f64 = 60.0, range: above(0.0).to(86_400.0), unit: "s", resume: free;
        /// Time limit for starting a process and creating its environments.
        env_start_secs: f64 = 300.0, range: above(0.0).to(86_400.0), unit: "s", resume: free;
        /// What to do when an environment raises an exception, hangs or dies. In any case, its episode's data
        /// since the last update are discarded.
        on_env_error: OnEnvError = OnEnvError::Restart;
        /// Restarts allowed in a run; the next failure ends the run.
        env_restarts: u64 = 20, range: 0..=1_000_000_000, unit: "restarts", when: on_env_error is "restart",
            resume: free;
        /// Restarts allowed for one environment per 1000 of its episodes; its next failure ends the run.
        env_restarts_each: u64 = 3, range: 0..=1_000_000_000, unit: "restarts", when: on_env_error is "restart",
            resume: free;
        /// Whether actions that an environment forbids in a state are never chosen. Masks are for `Discrete`
        /// and `MultiDiscrete` actions, also as parts of others: true or 1 for each alternative that is
        /// allowed.
        action_masks: ActionMasks = ActionMasks::Obey;
        /// What to do about observations outside the bounds of their space. Wrong shapes or types and
        /// non-finite numbers always stop the run.
        on_out_of_bounds: OnOutOfBounds = OnOutOfBounds::Report, resume: free;
    }
}

settings_like! {
    /// Environments of Gymnasium.
    pub struct OfGymnasium(GymSettings) without env_threads {}
}

settings_like! {
    /// Environments of EnvPool.
    pub struct OfEnvPool(GymSettings) without env_workers | action_masks | obs_parts {}
}
