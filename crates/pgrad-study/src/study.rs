//! What a study is.

use pgrad_run::config::RunConfig;
use std::fmt;

/// Training seeds of a study are below this; those of its evaluations are not.
pub const SEED_LIMIT: u64 = 1_000_000_000_000;

/// Seed of the evaluation that belongs to a training seed: `seed` + [`SEED_LIMIT`]. `pgrad eval --seed` takes
/// it too.
#[must_use]
pub fn eval_seed(seed: u64) -> u64 {
    seed + SEED_LIMIT
}

/// Which score of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
pub enum Measure {
    /// Final policy, most probable actions.
    E,
    /// Last 100 training episodes.
    T,
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::E => "E",
            Self::T => "T",
        })
    }
}

/// How the actions of the final policy are chosen when it is scored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Evaluated {
    /// The most probable action.
    #[default]
    Greedy,
    /// Actions are drawn from the policy.
    Stochastic,
}

impl fmt::Display for Evaluated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Greedy => "greedy",
            Self::Stochastic => "stochastic",
        })
    }
}

/// A published score.
#[derive(Clone, Debug, PartialEq)]
pub struct Anchor {
    /// What it is compared with.
    pub measure: Measure,
    /// The score.
    pub value: f64,
    /// Its standard error over seeds; 0 when it was not published.
    pub standard_error: f64,
    /// Whether it is an upper bound, not a score to be reached.
    pub at_most: bool,
    /// Who published it, where, with which protocol.
    pub source: String,
}

/// One algorithm on one environment, with several seeds.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Name in tables; letters, digits, spaces and `._-+()/:` only.
    pub label: String,
    /// What is run. The seed in it does not matter.
    pub config: RunConfig,
    /// Iterations after which a run stops, though it has not done all its steps.
    pub iterations: Option<u64>,
    /// How the final policy acts when E is taken.
    pub evaluated: Evaluated,
    /// First seed; the others follow it.
    pub first_seed: u64,
    /// Number of seeds.
    pub seeds: u64,
    /// Published scores.
    pub anchors: Vec<Anchor>,
}

/// A study.
#[derive(Clone, Debug)]
pub struct Study {
    /// Name or file, as the command takes it.
    pub name: String,
    /// Title of the table.
    pub title: String,
    /// What was done and how, as Markdown.
    pub note: String,
    /// Episodes of each evaluation.
    pub episodes: usize,
    /// What is run.
    pub entries: Vec<Entry>,
}

/// Seeds to try a study on that are not its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherSeeds {
    /// The first.
    pub first: u64,
    /// How many; as many as an entry has of its own when none.
    pub count: Option<u64>,
}

impl Study {
    /// The same entries on other seeds. Those that `kept` keeps stand before theirs, for comparison.
    #[must_use]
    pub fn on_seeds(&self, other: OtherSeeds, kept: impl Fn(&Entry) -> bool) -> Self {
        let OtherSeeds { first, count } = other;
        let entries = self.entries.iter().flat_map(|entry| {
            let seeds = count.unwrap_or(entry.seeds);
            let last = first.saturating_add(seeds).saturating_sub(1);
            let label = format!("{} (seeds {first}-{last})", entry.label);
            let fresh = Entry { label, first_seed: first, seeds, ..entry.clone() };
            kept(entry).then(|| entry.clone()).into_iter().chain([fresh])
        });
        Self { entries: entries.collect(), ..self.clone() }
    }
    /// A study without a name: the runs that a measurement is made of.
    pub(crate) fn of_entries<'e>(episodes: usize, entries: impl Iterator<Item = &'e Entry>) -> Self {
        let nothing = String::new;
        Self {
            name: nothing(),
            title: nothing(),
            note: nothing(),
            episodes,
            entries: entries.cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Streams are made of a seed: an evaluation that had a training run's would begin with the same
    /// episodes.
    #[test]
    fn no_evaluation_has_the_seed_of_a_training_run() {
        assert_eq!(eval_seed(3), 1_000_000_000_003);
        let (first, last) = (eval_seed(0), eval_seed(SEED_LIMIT - 1));
        assert!(first >= SEED_LIMIT && last > first, "{first} {last}");
    }
}
