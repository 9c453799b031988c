//! The files of a study's results, and what says by whom they were made.

/// The line of every run.
pub const RESULTS: &str = "results.csv";
/// The learning curves.
pub const CURVES: &str = "curves.csv";
/// The table for people.
pub const SUMMARY_MD: &str = "summary.md";
/// The table for programs.
pub const SUMMARY_JSON: &str = "summary.json";

/// Version of pgrad, and part of the digest of a run.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Digest of the sources that this program was built from, as far as the bits of a run depend on them: the
/// crates from the numbers up to this one, and the versions of those that they use. Every line of a study has
/// it. `unknown` when the build could not tell.
pub const SOURCES: &str = env!("PGRAD_SOURCES");
/// The commit that this program was built from, with a `+` where sources had been changed after it; `unknown`
/// when it was not built in pgrad's repository.
pub const REVISION: &str = env!("PGRAD_REVISION");

/// Who made it, for tables.
pub(crate) fn maker(version: &str) -> String {
    format!("pgrad {version} (sources {SOURCES}, revision {REVISION})")
}
