//! 'Did you mean'.

/// The candidate that `word` was most likely meant to be, if one is near: the fewest insertions, deletions,
/// replacements and swaps of neighbours, at most a third of the word's letters (at least one). Case and the
/// difference between `-`, `_` and a space do not count.
///
/// ```
/// assert_eq!(pgrad_settings::suggest("n-step", ["epochs", "n_steps"]), Some("n_steps"));
/// assert_eq!(pgrad_settings::suggest("n_stepps", ["n_step", "n_steps", "n_stops"]), Some("n_steps"));
/// assert_eq!(pgrad_settings::suggest("colour", ["epochs", "n_steps"]), None);
/// ```
#[must_use]
pub fn suggest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |s: &str| s.to_lowercase().replace(['-', ' '], "_");
    let word = plain(word);
    let limit = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|c| (strsim::damerau_levenshtein(&word, &plain(c)), c))
        .filter(|&(distance, c)| distance <= limit && distance < c.chars().count())
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, c)| c)
}
