//! The live line while something takes long.

use crate::terminal::{self, Style, YELLOW, duration, grouped, harmless};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pgrad_run::driver::Progress;
use std::io::{self, IsTerminal};

/// Name of the KL in an algorithm's report.
const KL: &str = "learn/kl";

/// The line on the standard error; nothing at all when that is no terminal, or when it is not wanted.
pub(crate) struct LiveLine {
    bar: Option<ProgressBar>,
}

impl LiveLine {
    pub(crate) fn new(wanted: bool) -> Self {
        if !wanted || !io::stderr().is_terminal() {
            return Self { bar: None };
        }
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{bar:12} {wide_msg}") {
            bar.set_style(style);
        }
        Self { bar: Some(bar) }
    }
    /// `done` of `all`, and what `text` says of it.
    pub(crate) fn show(&self, done: u64, all: u64, text: impl FnOnce() -> String) {
        if let Some(bar) = &self.bar {
            bar.set_message(text());
            bar.set_length(all);
            bar.set_position(done.min(all));
        }
    }
    /// A line of its own that is worth attention, above the live one.
    pub(crate) fn note(&self, text: &str) {
        self.line(&format!("{} {}\n", Style::stderr().paint(YELLOW, "note:"), harmless(text)));
    }
    /// A line of its own above the live one.
    pub(crate) fn say(&self, text: &str) {
        self.line(&format!("{}\n", harmless(text)));
    }
    fn line(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| terminal::to_stderr(line)),
            None => terminal::to_stderr(line),
        }
    }
}

impl Drop for LiveLine {
    /// What follows is a summary or an error.
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Everything behind the bar while training.
pub(crate) fn training_text(p: &Progress) -> String {
    let mut parts = vec![
        format!("{}/{}", grouped(p.steps), grouped(p.total_steps)),
        format!("{} steps/s", grouped(p.steps_per_second.max(0.0) as u64)),
    ];
    if let Some(mean) = p.return_mean_100 {
        parts.push(format!("return {mean:.1}"));
    }
    if let Some(kl) = p.report.get(KL) {
        parts.push(format!("KL {kl:.4}"));
    }
    parts.push(format!("{} left", duration(p.seconds_left)));
    parts.join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgrad_algos::Report;
    use pgrad_run::config::RunConfig;
    use pgrad_run::trainer::Trainer;

    #[test]
    fn ppo_reports_its_kl_under_the_name_that_is_shown() {
        let mut config = RunConfig::new("ppo", "CartPole-v1").unwrap();
        config.apply_pair("epochs=1", "test").unwrap();
        let report = Trainer::new(config, 1).unwrap().iterate().unwrap();
        assert!(report.get(KL).is_some());
    }

    #[test]
    fn the_line_says_what_is_known() {
        let mut progress = Progress {
            steps: 40_000,
            total_steps: 100_000,
            iterations: 1,
            seconds: 2.0,
            steps_per_second: 20_000.4,
            seconds_left: 3.0,
            episodes: 0,
            return_mean_100: None,
            length_mean_100: None,
            report: Report::default(),
        };
        assert_eq!(training_text(&progress), "40 000/100 000  20 000 steps/s  3.0 s left");
        progress.return_mean_100 = Some(123.456);
        progress.report = Report::default().with(KL, 0.01234);
        assert_eq!(
            training_text(&progress),
            "40 000/100 000  20 000 steps/s  return 123.5  KL 0.0123  3.0 s left"
        );
    }
}
