//! The `pgrad` command.
fn main() {}
