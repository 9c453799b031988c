//! Writing to the terminal: errors instead of panics when nobody reads, colours only where they are wanted.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

/// An SGR code of a colour or a weight.
pub(crate) type Colour = &'static str;
pub(crate) const BOLD: Colour = "1";
pub(crate) const BOLD_RED: Colour = "1;31";
pub(crate) const GREEN: Colour = "32";
pub(crate) const YELLOW: Colour = "33";
pub(crate) const CYAN: Colour = "36";

/// Whether to paint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    colours: bool,
}

impl Style {
    /// Of the standard output.
    pub(crate) fn stdout() -> Self {
        Self { colours: io::stdout().is_terminal() && colours_wanted() }
    }
    /// Of the standard error.
    pub(crate) fn stderr() -> Self {
        Self { colours: io::stderr().is_terminal() && colours_wanted() }
    }
    /// Without colours.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self { colours: false }
    }
    /// Whether to paint.
    pub(crate) fn wanted(self) -> bool {
        self.colours
    }
    /// `text` in a colour, or plain.
    pub(crate) fn paint(self, colour: Colour, text: &str) -> String {
        if self.colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// <https://no-color.org>: any non-empty value switches colours off.
fn colours_wanted() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}

/// Writes `text` to the standard output.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn out(text: &str) -> Result<(), NotWritten> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(NotWritten)
}

/// The standard output was not written to.
#[derive(Debug)]
pub(crate) struct NotWritten(pub(crate) io::Error);

/// Writes `text` to the standard error. When even that fails there is nobody left to tell.
pub(crate) fn to_stderr(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// `text` without anything that would act on a terminal: what comes from names, files and environments may
/// hold control characters, and marks that turn the direction of writing. Ends of lines stay.
pub(crate) fn harmless(text: &str) -> String {
    let turns = |c| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let acts = |c: char| (c.is_control() && c != '\n') || turns(c);
    if !text.chars().any(acts) {
        return text.to_owned();
    }
    text.chars().map(|c| if acts(c) { c.escape_default().to_string() } else { c.to_string() }).collect()
}

/// A path as it can be typed into a shell.
pub(crate) fn quoted(path: &Path) -> String {
    let text = harmless(&path.display().to_string());
    let plain = |c: char| c.is_alphanumeric() || "/._-+=:@%,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// `1234567` as `1 234 567`.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(c);
    }
    out
}

/// A duration for people: `3.2 s`, `4 min 05 s`, `2 h 07 min`.
pub(crate) fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    if seconds < 60.0 && whole < 60 {
        format!("{seconds:.1} s")
    } else if whole < 3600 {
        format!("{} min {:02} s", whole / 60, whole % 60)
    } else {
        format!("{} h {:02} min", whole / 3600, whole % 3600 / 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_on_a_terminal_is_shown() {
        assert_eq!(harmless("a\u{1b}[2Jb\r\u{7}\u{9b}\tc"), "a\\u{1b}[2Jb\\r\\u{7}\\u{9b}\\tc");
        assert_eq!(harmless("x\u{202e}y"), "x\\u{202e}y");
        assert_eq!(harmless("Grüße\n42 °"), "Grüße\n42 °");
        assert_eq!(quoted(Path::new("a\u{1b}b")), "'a\\u{1b}b'");
    }

    #[test]
    fn numbers_for_people() {
        let cases = [(0, "0"), (999, "999"), (1000, "1 000"), (1_234_567, "1 234 567")];
        assert!(cases.iter().all(|&(n, text)| grouped(n) == text));
        let cases = [
            (0.0, "0.0 s"),
            (3.21, "3.2 s"),
            (59.96, "1 min 00 s"),
            (245.0, "4 min 05 s"),
            (7620.0, "2 h 07 min"),
        ];
        for (seconds, text) in cases {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn paths_can_be_typed() {
        let cases = [("runs/a-1", "runs/a-1"), ("my runs", "'my runs'"), ("it's", "'it'\\''s'"), ("", "''")];
        assert!(cases.iter().all(|&(path, text)| quoted(Path::new(path)) == text));
    }

    #[test]
    fn paint_only_when_wanted() {
        assert_eq!(Style { colours: false }.paint(GREEN, "x"), "x");
        assert_eq!(Style { colours: true }.paint(GREEN, "x"), "\x1b[32mx\x1b[0m");
    }
}
