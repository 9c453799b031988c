//! What the tasks share with the program that renders the book.
//!
//! **Must never know:** what a task does.

#![expect(clippy::print_stdout, reason = "a task talks to the terminal")]

pub mod command;
pub mod items;
pub mod pages;
