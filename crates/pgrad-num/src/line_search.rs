//! Backtracking line search.
