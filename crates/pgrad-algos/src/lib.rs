//! One file per algorithm, one registry line each.
