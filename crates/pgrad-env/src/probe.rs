//! Tiny tasks with known answers.
