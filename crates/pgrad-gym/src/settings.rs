//! Settings of foreign environments.

use pgrad_settings::{above, choice, settings, settings_like};

choice! {
    /// What to do when an environment fails.
    pub enum OnEnvError {
        /// Start it anew, as long as the budget lasts.
        Restart = "restart",
        /// Do without it from then on.
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

settings! {
    /// Environments in Python.
    pub struct GymSettings {
        /// The Python that runs the environments: a name that is found on the path, or a path. It must have the
        /// packages `gymnasium` and `numpy` (and `envpool` for `envpool:`), and what the environment needs.
        python: String = "python3".to_owned(), range: 1..=4096;
        /// Keyword arguments of the environment, as a TOML inline table or a JSON object: `{ gravity = -5.0 }`.
        env_kwargs: String = String::new(), range: 0..=65_536;
        /// Processes for the environments of a shard (`gym:`); each runs several of them. 0 is as many as make one for
        /// each core with those of the other shards, but at least one.
        env_workers: usize = 0, range: 0..=1024, unit: "processes";
        /// Threads of the process that steps the environments of a shard (`envpool:`). 0 is as many as make one for each
        /// core with those of the other shards, but at least one.
        env_threads: usize = 0, range: 0..=1024, unit: "threads";
        /// Longest time that a step, a reset or a `close` may take. A process that takes longer is ended.
        env_step_secs: f64 = 60.0, range: above(0.0).to(86_400.0), unit: "s";
        /// Longest time that starting a process and making its environments may take.
        env_start_secs: f64 = 300.0, range: above(0.0).to(86_400.0), unit: "s";
        /// What to do when an environment raises, hangs or dies. What its episode gave since the last update is not
        /// learnt from, whatever is done.
        on_env_error: OnEnvError = OnEnvError::Restart;
        /// Restarts of a whole run, after which the next failure ends it.
        env_restarts: u64 = 20, range: 0..=1_000_000_000, unit: "restarts", when: on_env_error is "restart";
        /// Restarts of one environment in 1000 of its episodes, after which its next failure ends the run.
        env_restarts_each: u64 = 3, range: 0..=1_000_000_000, unit: "restarts", when: on_env_error is "restart";
        /// What to do about observations outside the bounds of their space. Wrong shapes and types, and numbers that
        /// are not finite, always stop the run.
        on_out_of_bounds: OnOutOfBounds = OnOutOfBounds::Report;
    }
}

settings_like! {
    /// Environments of Gymnasium.
    pub struct OfGymnasium(GymSettings) without env_threads {}
}

settings_like! {
    /// Environments of EnvPool.
    pub struct OfEnvPool(GymSettings) without env_workers {}
}
