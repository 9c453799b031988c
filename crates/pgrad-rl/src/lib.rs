//! Returns, surrogates and action distributions: pure functions on slices.
