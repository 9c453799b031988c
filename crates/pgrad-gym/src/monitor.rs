//! What failed, how often it may, and what is to be told of it.

use crate::name::News;
use crate::settings::{GymSettings, OnEnvError, OnOutOfBounds};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Episodes of one environment that its budget is for.
const EPISODES: u64 = 1000;
/// Notices that wait to be told; more are only counted.
const MAX_NOTICES: usize = 100;
/// Longest time before a restart.
const MAX_BACK_OFF: Duration = Duration::from_secs(5);

/// What is to be done about a failure.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Start the environment anew, after some time.
    Restart(Duration),
    /// Do without it.
    Drop,
    /// Stop, with these words.
    Stop(String),
}

#[derive(Debug, Default)]
struct Counts {
    notices: Vec<String>,
    restarts: u64,
    lost_episodes: u64,
    out_of_bounds: u64,
    dropped: u64,
    /// Of each environment that ever failed.
    each: BTreeMap<usize, u64>,
    /// Failures of an environment since it last finished an episode.
    in_a_row: BTreeMap<usize, u32>,
}

/// The count of all batches of a run.
#[derive(Debug)]
pub(crate) struct Monitor {
    id: String,
    on_error: OnEnvError,
    on_bounds: OnOutOfBounds,
    budget: u64,
    budget_each: u64,
    counts: Mutex<Counts>,
}

impl Monitor {
    pub(crate) fn new(id: &str, settings: &GymSettings) -> Self {
        Self {
            id: id.to_owned(),
            on_error: settings.on_env_error,
            on_bounds: settings.on_out_of_bounds,
            budget: settings.env_restarts,
            budget_each: settings.env_restarts_each,
            counts: Mutex::default(),
        }
    }
    fn with<T>(&self, f: impl FnOnce(&mut Counts) -> T) -> T {
        f(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }
    fn notice(counts: &mut Counts, text: String) {
        if counts.notices.len() < MAX_NOTICES {
            counts.notices.push(text);
        }
    }
    pub(crate) fn tell(&self, text: String) {
        self.with(|counts| Self::notice(counts, text));
    }
    /// Environment `env` of the run failed at some place, in its episode `episode`.
    pub(crate) fn failed(&self, env: usize, place: &str, episode: u64, reason: &str) -> Verdict {
        self.with(|counts| {
            let what = format!("environment {env} (`{}`), {place}: {reason}", self.id);
            match self.on_error {
                OnEnvError::Stop => Verdict::Stop(reason.to_owned()),
                OnEnvError::Drop => {
                    counts.dropped += 1;
                    Self::notice(counts, format!("{what}\n  the run continues without it"));
                    Verdict::Drop
                }
                OnEnvError::Restart => {
                    let own = counts.each.entry(env).or_default();
                    let allowed = self.budget_each.saturating_mul(1 + episode / EPISODES);
                    let spent = if *own >= allowed {
                        Some(format!(
                            "env_restarts_each = {}: it was restarted {own} times",
                            self.budget_each
                        ))
                    } else if counts.restarts >= self.budget {
                        Some(format!("env_restarts = {} of the run are used up", self.budget))
                    } else {
                        None
                    };
                    if let Some(spent) = spent {
                        return Verdict::Stop(format!("{reason}\n  no restart is left ({spent})"));
                    }
                    *own += 1;
                    counts.restarts += 1;
                    let n = counts.restarts;
                    Self::notice(
                        counts,
                        format!("{what}\n  it was restarted (restart {n} of {})", self.budget),
                    );
                    let row = counts.in_a_row.entry(env).or_default();
                    *row += 1;
                    // At once the first time, then longer and longer.
                    let wait = if *row > 1 {
                        Duration::from_millis(50) * (1 << (*row - 2).min(10))
                    } else {
                        Duration::ZERO
                    };
                    Verdict::Restart(wait.min(MAX_BACK_OFF))
                }
            }
        })
    }
    /// An environment finished an episode.
    pub(crate) fn finished(&self, env: usize) {
        self.with(|counts| {
            counts.in_a_row.remove(&env);
        });
    }
    /// An episode under way was lost.
    pub(crate) fn lost(&self) {
        self.with(|counts| counts.lost_episodes += 1);
    }
    /// An observation lay outside its bounds; the words that the run is to end with, if it is.
    pub(crate) fn out_of_bounds(&self, env: usize, place: &str, what: &str) -> Option<String> {
        self.with(|counts| {
            counts.out_of_bounds += 1;
            if self.on_bounds == OnOutOfBounds::Stop {
                return Some(format!("{what} (on_out_of_bounds = \"stop\")"));
            }
            if counts.out_of_bounds == 1 {
                let id = &self.id;
                Self::notice(
                    counts,
                    format!(
                        "environment {env} (`{id}`), {place}: {what}; it is used anyway; further ones are \
                         only counted (`env/out_of_bounds`)"
                    ),
                );
            }
            None
        })
    }
    /// Whether an observation ever lay outside its bounds, or an environment ever failed: numbers worth a
    /// metric.
    pub(crate) fn news(&self) -> News {
        self.with(|counts| News {
            notices: std::mem::take(&mut counts.notices),
            metrics: vec![
                ("env/restarts", counts.restarts as f64),
                ("env/dropped", counts.dropped as f64),
                ("env/lost_episodes", counts.lost_episodes as f64),
                ("env/out_of_bounds", counts.out_of_bounds as f64),
            ],
        })
    }
}
