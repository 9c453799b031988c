//! `pgrad check-env`.

use crate::args::CheckEnvArgs;
use crate::failure::{Code, Failure, Result};
use crate::progress::LiveLine;
use crate::terminal::{self, GREEN, Style, YELLOW, grouped};
use pgrad_env::{Finding, Severity, check_batch_env_while};
use pgrad_model::Rescale;
use pgrad_run::actions::{notes, rescaled_note};
use pgrad_run::clock::{Clock, SystemClock};
use pgrad_settings::{Settings, Value, above, apply_pair, apply_text, settings};
use std::process::ExitCode;

settings! {
    /// Options of check-env
    struct Check {
        /// Seed of the check.
        seed: u64 = 1, range: 0..=9_007_199_254_740_991;
        /// Time after which it is stopped.
        seconds: f64 = 120.0, range: above(0.0).to(1e9), unit: "s";
    }
}

pub(crate) fn run(args: &CheckEnvArgs) -> Result<ExitCode> {
    let mut options = Check::default();
    apply_text("seed", &args.seed, "--seed", &mut [&mut options])?;
    apply_text("seconds", &args.seconds, "--seconds", &mut [&mut options])?;
    let mut env = crate::catalog::env(&args.env)?;
    // What fails is to be seen, not mended.
    if let Some(own) = env.settings_mut().filter(|own| own.get("on_env_error").is_some()) {
        // It is one of its values; a refusal would only leave the default.
        let _ = own.set("on_env_error", &Value::Text("stop".to_owned()));
    }
    let python = args.python.iter().map(|path| (format!("python={path}"), "--python"));
    for (pair, option) in python.chain(args.set.iter().map(|pair| (pair.clone(), "--set"))) {
        let mut parts: Vec<&mut dyn Settings> = env.settings_mut().into_iter().collect();
        apply_pair(&pair, option, &mut parts)?;
    }
    let python = env.settings_mut().is_some_and(|own| own.get("python").is_some());
    let open = env.open()?;
    // A panic of the environment is a finding here, not a bug of ours.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let (clock, live) = (SystemClock::new(), LiveLine::new(true));
    let began = clock.now();
    let mut go_on = |steps: u64| {
        let seconds = clock.now().saturating_sub(began).as_secs_f64();
        live.show((seconds * 10.0) as u64, (options.seconds * 10.0) as u64, || {
            format!("{} steps checked  {seconds:.0} of at most {:.0} s", grouped(steps), options.seconds)
        });
        seconds < options.seconds
    };
    let findings = check_batch_env_while(|n| open.make(n), options.seed, &mut go_on);
    drop(live);
    std::panic::set_hook(hook);
    let mut findings = findings?;
    if !open.seeds_episodes() {
        // Another episode than the first has other random numbers, and need not be like one of a new
        // environment.
        findings.retain(|f| !matches!(f, Finding::RewardAfterEnd { .. } | Finding::LeftOver { .. }));
    }
    let style = Style::stdout();
    let tell: fn(&Finding) -> String = if python { Finding::in_python } else { Finding::to_string };
    let mut out = verdict(env.id(), &findings, tell, style)?;
    for line in open.about() {
        out.push_str(&format!("  {line}\n"));
    }
    let action = &open.spec().action;
    let rescaled = Rescale::Far.numbers(action);
    let notes = rescaled_note(action, &rescaled).into_iter().chain(notes(action, &rescaled));
    for notice in env.news().notices.into_iter().chain(notes) {
        out.push_str(&format!("  {} {notice}\n", style.paint(YELLOW, "notice:")));
    }
    terminal::out(&out)?;
    Ok(ExitCode::SUCCESS)
}

/// What is said of an environment that can be trained on, in the words of `tell`.
///
/// # Errors
/// When it cannot: all that is wrong.
fn verdict(id: &str, findings: &[Finding], tell: fn(&Finding) -> String, style: Style) -> Result<String> {
    let (errors, warnings): (Vec<_>, Vec<_>) = findings.iter().partition(|f| f.severity() == Severity::Error);
    if errors.is_empty() {
        let stopped = warnings.iter().any(|f| matches!(f, Finding::Stopped { .. }));
        let verdict = match (stopped, warnings.is_empty()) {
            (true, _) => style.paint(YELLOW, "not checked to the end"),
            (false, true) => style.paint(GREEN, "nothing wrong found"),
            (false, false) => style.paint(GREEN, "fit for training"),
        };
        let mut out = format!("{id}: {verdict}\n");
        for warning in warnings {
            out.push_str(&format!("  {} {}\n", style.paint(YELLOW, "warning:"), tell(warning)));
        }
        return Ok(out);
    }
    let all = errors.into_iter().chain(warnings);
    Err(Failure {
        code: Code::Data,
        problems: all.map(|f| (format!("{id}: {}", tell(f)), None)).collect(),
        silent: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_65_and_warnings_are_not() {
        let endless = Finding::NeverEnds { steps: 10_000 };
        let nameless = Finding::NoName;
        let plain = Style::plain();
        assert_eq!(verdict("E", &[], Finding::to_string, plain).unwrap(), "E: nothing wrong found\n");
        let text = verdict("E", std::slice::from_ref(&endless), Finding::to_string, plain).unwrap();
        assert_eq!(text, format!("E: fit for training\n  warning: {endless}\n"));
        let stopped = verdict("E", &[Finding::Stopped { steps: 7 }], Finding::to_string, plain).unwrap();
        assert!(
            stopped.starts_with("E: not checked to the end\n  warning: stopped after 7 steps"),
            "{stopped}"
        );
        let failure =
            verdict("E", &[endless.clone(), nameless.clone()], Finding::to_string, plain).unwrap_err();
        assert_eq!(failure.code as u8, 65);
        let messages: Vec<_> = failure.problems.iter().map(|(m, _)| m.as_str()).collect();
        assert_eq!(messages, [format!("E: {nameless}"), format!("E: {endless}")], "the worst first");
    }
}
