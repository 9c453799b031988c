//! Studies: algorithms x environments x seeds, against published scores.
//!
//! A study is a TOML file; those that come with pgrad are [`STUDIES`], embedded like the presets.
//! ```toml
//! title = "PPO on classic control"
//! note = "What was done and how."
//! episodes = 100                  # of each evaluation; 100 when left out
//!
//! [[entry]]
//! label = "PPO short"             # "ALGO ENV STEPS" when left out; no two are equal
//! env = "CartPole-v1"
//! algo = "ppo"                    # when left out
//! steps = 100_000
//! iterations = 20                 # stop after so many, where a paper counts those; `steps` is then the most
//! seeds = { first = 1, count = 20 }
//! preset = true                   # when left out: from the preset, not the defaults; or a preset's name
//! evaluation = "greedy"           # when left out; "stochastic" draws the actions of E
//! settings = { gamma = 0.98 }     # laid over it
//! [[entry.anchor]]
//! measure = "E"
//! value = 500.0
//! standard_error = 0.0            # 0, and when left out: not published
//! at_most = false                 # when left out; true: a bound from above, see below
//! source = "RL Zoo, benchmark.md, one run"
//! ```
//! An anchor is a score to be reached, and the verdict is `beaten`, `reproduced` or `short`
//! ([`scores::Verdict`]), with the difference, its standard error and the seeds that failed
//! ([`scores::Judgement`]). With `at_most = true` it is what nobody can get more than (a policy without a
//! memory where one is needed): the verdict is `bounded`, or `exceeded` when the scores speak against it.
//! Such a bound is exact and has no standard error.
//!
//! Two scores are taken of every run, and never mixed:
//!
//! - **E**: mean return of the final policy over `episodes` episodes, most probable actions, normaliser
//!   frozen; the seed of the evaluation is [`eval_seed`] of the run's, which no training run of a study has.
//!   With `evaluation = "stochastic"` actions are drawn instead, for policies that are right to be random,
//!   and for comparison with scores that were taken so: tables then say `E (drawn)`, and all entries that are
//!   compared with each other should have it alike;
//! - **T**: mean return of the last 100 training episodes (of all, when there were fewer), actions drawn.
//!
//! A run gives the same bits as `pgrad train` with the same settings and seed, on one thread; runs go side by
//! side on several. What is measured depends on neither the number of threads nor the order.
//!
//! ```no_run
//! use pgrad_study::{Study, StudyEvent, StudyOptions, run_study};
//!
//! let study = Study::load("ppo-classic")?; // a name, or the path of a file
//! let mut listen = |event: StudyEvent<'_>| {
//!     if let StudyEvent::Run(row) = event {
//!         eprintln!("{} seed {}: E {}", row.entry, row.seed, row.e);
//!     }
//! };
//! let options = StudyOptions { threads: 2, ..StudyOptions::new("studies-out/ppo-classic", &mut listen) };
//! let result = run_study(&study, options)?;
//! eprintln!("{}", result.to_markdown());
//! # Ok::<(), pgrad_study::StudyError>(())
//! ```
//! The folder of the results holds [`RESULTS`] (a line for every run), [`CURVES`] (learning curves),
//! `summary.md`, `summary.json` and a picture for every environment. A study that was stopped is continued by
//! running it again with the same folder: runs whose line is there, made with the same settings by the same
//! sources ([`SOURCES`]), are not run again. Lines of other runs are kept and not counted: a mean is never
//! taken over rows that different programs made. Entries that one other program did as a whole count where
//! its sources are accepted ([`StudyOptions::accept`]), and the tables name them.
//!
//! A file with a `kind` measures something else than training runs, see [`Measurement`]; [`AnyStudy`] reads
//! both.
//!
//! **Must never know:** terminals.

mod any;
mod embedded;
mod error;
mod file;
mod kinds;
mod measured;
mod measurement;
mod options;
mod report;
mod rows;
pub mod scores;
mod source;
mod stamp;
mod stored;
mod study;
mod work;

pub use any::AnyStudy;
pub use embedded::{EmbeddedStudy, STUDIES};
pub use error::{EntryError, StudyError};
pub use file::Kind;
pub use kinds::KINDS;
pub use measured::{MeasuredResult, run_measured};
pub use measurement::{Bench, Bound, Csv, Findings, MeasuredStudy, Measurement, Quantity, number};
pub use options::{RunFailure, StudyEvent, StudyOptions, StudyProgress};
pub use report::{EntryResult, JudgedAnchor, Score, StudyResult};
pub use rows::RunRow;
pub use source::Source;
pub use stamp::{CURVES, RESULTS, REVISION, SOURCES, SUMMARY_JSON, SUMMARY_MD, VERSION};
pub use stored::retold;
pub use study::{Anchor, Entry, Evaluated, Measure, OtherSeeds, SEED_LIMIT, Study, eval_seed};
pub use work::{run_digest, run_study};
