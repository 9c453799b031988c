//! Conjugate gradient.
