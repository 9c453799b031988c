//! The Python of the tests.

use std::io;
use std::path::Path;

/// The Python of the tests: `PGRAD_PYTHON`, else `python3`.
#[must_use]
pub fn python() -> String {
    std::env::var("PGRAD_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

/// A program in `dir` that starts [`python`] with one more variable in its environment.
///
/// # Errors
/// When it cannot be written.
#[cfg(unix)]
pub fn python_with(dir: &Path, variable: &str, value: &str) -> io::Result<String> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = dir.join(format!("python-{variable}"));
    let text = format!("#!/bin/sh\n{variable}='{value}' exec '{}' \"$@\"\n", python());
    std::fs::write(&path, text)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    Ok(path.display().to_string())
}
