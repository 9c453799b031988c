//! Concrete environments, one file each.
