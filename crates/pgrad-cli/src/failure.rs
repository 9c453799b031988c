//! How the command fails: one message, a hint, an exit code.

use crate::terminal::{BOLD_RED, CYAN, NotWritten, Style, harmless};
use pgrad_env::MakeError;
use pgrad_envs::UnknownEnv;
use pgrad_run::config::RunConfigError;
use pgrad_run::driver::RunError;
use pgrad_run::env::EnvNameError;
use pgrad_settings::{ConfigErrors, suggest};
use std::io;
use std::panic::UnwindSafe;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Where our own bugs are to be reported.
const REPORT_TO: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/issues");

/// Exit codes, those of `sysexits.h` where it has one. Schedulers act on them: 64 and 65 are never worth a
/// retry, 75 always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// Bad usage or configuration.
    Usage = 64,
    /// Bad input file, or bad data from an environment.
    Data = 65,
    /// Our bug.
    Bug = 70,
    /// Input or output failed.
    Io = 74,
    /// Stopped on request; `pgrad resume` continues.
    Stopped = 75,
}

impl Code {
    /// The code that a lower floor chose.
    pub(crate) fn of(number: u8) -> Self {
        match number {
            64 => Self::Usage,
            65 => Self::Data,
            74 => Self::Io,
            75 => Self::Stopped,
            _ => Self::Bug,
        }
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What the process returns.
    pub(crate) code: Code,
    /// What was expected, what came and where; each problem with its hint.
    pub(crate) problems: Vec<(String, Option<String>)>,
    /// Nobody reads our output any more (`pgrad list | head`): not worth a message.
    pub(crate) silent: bool,
}

/// What every command returns.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, problems: vec![(message.into(), None)], silent: false }
    }
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::Usage, message)
    }
    /// The same with a hint for the last problem.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        if let Some((_, to)) = self.problems.last_mut() {
            *to = Some(hint.into());
        }
        self
    }
    /// The same with `hint` for every problem that has none.
    pub(crate) fn hint_where_none(mut self, hint: &str) -> Self {
        for (_, slot) in &mut self.problems {
            slot.get_or_insert_with(|| hint.to_owned());
        }
        self
    }
    /// Takes the advice of messages `problem; advice` as their hint.
    pub(crate) fn split_advice(mut self) -> Self {
        for (message, hint) in &mut self.problems {
            if let (None, Some((problem, advice))) = (&hint, message.split_once("; ")) {
                (*message, *hint) = (problem.to_owned(), Some(advice.to_owned()));
            }
        }
        self
    }
    /// The same with the place in front of every message.
    pub(crate) fn at(mut self, place: &str) -> Self {
        for (message, _) in &mut self.problems {
            *message = format!("{place}: {message}");
        }
        self
    }
    /// An error of a lower floor, whose text may have lines `hint: ...` after each problem.
    pub(crate) fn of(code: Code, error: &dyn std::error::Error) -> Self {
        let mut failure = Self { code, problems: Vec::new(), silent: false };
        for line in error.to_string().lines() {
            match line.trim_start().strip_prefix("hint: ") {
                Some(hint) if !failure.problems.is_empty() => failure = failure.hint(hint),
                _ => failure.problems.push((line.to_owned(), None)),
            }
        }
        failure
    }
    /// A name that is not in a list of names.
    pub(crate) fn unknown_name<'a>(
        what: &str,
        name: &str,
        known: impl IntoIterator<Item = &'a str> + Clone,
        list: &str,
    ) -> Self {
        let all = known.clone().into_iter().collect::<Vec<_>>().join(", ");
        let hint = match suggest(name, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("`{list}` describes them"),
        };
        Self::usage(format!("there is no {what} `{name}`; there are {all}")).hint(hint)
    }
    /// A file that could not be read. A missing one is bad usage, anything else is I/O.
    pub(crate) fn reading(path: &Path, error: &io::Error) -> Self {
        let message = format!("cannot read `{}`: {error}", path.display());
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => {
                Self::usage(message).hint("give the path of a file that exists")
            }
            io::ErrorKind::FileTooLarge => Self::new(Code::Data, message),
            io::ErrorKind::InvalidData => Self::new(Code::Data, message).hint("the file must be UTF-8 text"),
            _ => Self::new(Code::Io, message),
        }
    }
    /// The message as it is printed: `error:` lines, each followed by its `hint:`.
    pub(crate) fn render(&self, style: Style) -> String {
        let mut out = String::new();
        for (message, hint) in &self.problems {
            out.push_str(&format!("{} {}\n", style.paint(BOLD_RED, "error:"), harmless(message)));
            if let Some(hint) = hint {
                out.push_str(&format!("  {} {}\n", style.paint(CYAN, "hint:"), harmless(hint)));
            }
        }
        out
    }
}

/// Silent when the reader has gone away, as `head` does.
impl From<NotWritten> for Failure {
    fn from(NotWritten(error): NotWritten) -> Self {
        let mut failure = Self::new(Code::Io, format!("cannot write to standard output: {error}"));
        failure.silent = error.kind() == io::ErrorKind::BrokenPipe;
        failure
    }
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        let problems = errors.0.iter().map(|e| (e.to_string(), e.hint())).collect();
        Self { code: Code::Usage, problems, silent: false }
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        let code = Code::of(error.exit_code());
        match error {
            RunError::Config(e) => e.into(),
            RunError::RunDir(e) => Self::of(code, &e).split_advice(),
            RunError::Storage(e) => Self::of(code, &e).split_advice(),
            other => Self::of(code, &other),
        }
    }
}

impl From<RunConfigError> for Failure {
    fn from(error: RunConfigError) -> Self {
        match error {
            RunConfigError::Settings(errors) => errors.into(),
            RunConfigError::Env(unknown) => unknown.into(),
            RunConfigError::Make(e) => e.into(),
            other => Self::of(Code::Usage, &other).split_advice(),
        }
    }
}

impl From<MakeError> for Failure {
    fn from(error: MakeError) -> Self {
        let failure = Self::new(Code::of(error.exit_code()), error.message);
        match error.hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl From<EnvNameError> for Failure {
    fn from(error: EnvNameError) -> Self {
        match error {
            EnvNameError::Unknown(e) => e.into(),
            EnvNameError::Make(e) => e.into(),
        }
    }
}

impl From<UnknownEnv> for Failure {
    fn from(error: UnknownEnv) -> Self {
        if let Some(feature) = error.feature {
            let message = format!("`{}` needs a pgrad that was built with `{}`", error.id, feature.name);
            return Self::usage(message)
                .hint(format!("{}; `gym:{}` is Gymnasium's own", feature.how, error.id));
        }
        if error.untiled.is_some() {
            return Self::usage(error.to_string()).hint("`pgrad list envs` shows which can be tile-coded");
        }
        let hint = pgrad_envs::did_you_mean(&error.near).unwrap_or_else(|| {
            "`pgrad list envs` describes those that there are; `gym:ID` is one of Gymnasium, `gym:MODULE:ID` one \
             that a Python module registers"
                .to_owned()
        });
        Self::usage(format!("there is no environment `{}`", error.id)).hint(hint)
    }
}

/// The run that is being written to, for the message of a panic.
static RUN_DIR: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Remembers the run folder, so that a panic can say what was saved.
pub(crate) fn remember_run(dir: &Path) {
    if let Ok(mut slot) = RUN_DIR.lock() {
        *slot = Some(dir.to_owned());
    }
}

/// Makes a panic say that it is our bug, where to report it, and what was saved. Only the first one: what
/// other threads say after it is its echo.
pub(crate) fn install_panic_hook() {
    static SAID: AtomicBool = AtomicBool::new(false);
    std::panic::set_hook(Box::new(|info| {
        let text = info.payload().downcast_ref::<String>().map(String::as_str);
        let what = text.or_else(|| info.payload().downcast_ref::<&str>().copied());
        let place = info.location().map_or_else(String::new, |l| format!(" ({}:{})", l.file(), l.line()));
        let run_dir = RUN_DIR.lock().ok().and_then(|dir| dir.clone());
        if !SAID.swap(true, Ordering::SeqCst) {
            let failure = bug(&format!("{}{place}", what.unwrap_or("no message")), run_dir);
            crate::terminal::to_stderr(&failure.render(Style::stderr()));
        }
    }));
}

/// Our own bug, while `run_dir` was being written to.
fn bug(what: &str, run_dir: Option<PathBuf>) -> Failure {
    let saved = match run_dir {
        Some(dir) => {
            format!("everything up to the last checkpoint is saved: `pgrad resume {}`", dir.display())
        }
        None => "no run had started, so nothing is lost".to_owned(),
    };
    Failure::new(Code::Bug, format!("pgrad has a bug: {what}")).hint(format!(
        "please report it at {REPORT_TO} with the command and this text (version {}); {saved}",
        env!("CARGO_PKG_VERSION")
    ))
}

/// Runs `command`; a panic becomes the exit code of a bug.
pub(crate) fn guarded(command: impl FnOnce() -> ExitCode + UnwindSafe) -> ExitCode {
    // The hook has said what there is to say.
    std::panic::catch_unwind(command).unwrap_or_else(|_| Code::Bug.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bug_says_where_to_report_it_and_what_is_saved() {
        let text = |dir: Option<&str>| {
            let failure = bug("index out of range (a.rs:1)", dir.map(PathBuf::from));
            assert_eq!(failure.code as u8, 70);
            failure
                .problems
                .iter()
                .map(|(m, h)| format!("{m}\n{}", h.as_deref().unwrap_or("")))
                .collect::<String>()
        };
        let with = text(Some("runs/x"));
        assert!(
            with.starts_with("pgrad has a bug: index out of range (a.rs:1)\nplease report it at https://")
        );
        assert!(with.contains("up to the last checkpoint is saved: `pgrad resume runs/x`"));
        assert!(text(None).contains("nothing is lost"));
    }

    #[test]
    fn a_panic_becomes_70() {
        let quiet = std::panic::resume_unwind as fn(Box<dyn std::any::Any + Send>) -> !;
        assert_eq!(guarded(move || quiet(Box::new(()))), ExitCode::from(70));
        assert_eq!(guarded(|| ExitCode::SUCCESS), ExitCode::SUCCESS);
    }
}
