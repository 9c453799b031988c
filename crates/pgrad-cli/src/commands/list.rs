//! `pgrad list`.

use crate::args::{ListArgs, ListWhat};
use crate::failure::{Code, Failure, Result};
use crate::terminal::{self, BOLD, Style};
use pgrad_run::env::SCHEMES;
use pgrad_run::presets::{self, TUNED};
use pgrad_study::{AnyStudy, STUDIES};
use std::process::ExitCode;

pub(crate) fn run(args: &ListArgs) -> Result<ExitCode> {
    let rows: Vec<[String; 3]> = match args.what {
        ListWhat::Algos => pgrad_algos::REGISTRY
            .iter()
            .map(|a| [a.name.to_owned(), a.title.to_owned(), a.source.to_owned()])
            .collect(),
        ListWhat::Envs => pgrad_envs::REGISTRY
            .iter()
            .map(|entry| {
                // What is missing is said where the task stands: the others can be listed.
                let spec = match entry.spec() {
                    Ok(spec) => spec,
                    Err(e) => return [entry.id.to_owned(), entry.title.to_owned(), e.message],
                };
                let solved = spec.reward_threshold.map(|t| format!("solved at a return of {t}"));
                let tiled = entry.tiled.and_then(|tiled| pgrad_envs::find(tiled.id).ok());
                let tiled = tiled.map(|tiled| format!("also as {}", tiled.id));
                let more: Vec<String> = solved.into_iter().chain(tiled).collect();
                [entry.id.to_owned(), entry.title.to_owned(), more.join("; ")]
            })
            .chain(SCHEMES.iter().map(|s| [s.form.to_owned(), s.title.to_owned(), String::new()]))
            .collect(),
        ListWhat::Presets => presets::all()
            .map(|p| {
                let train = format!("pgrad train {} {}", p.algo, p.env);
                let chosen = if p.name == TUNED { String::new() } else { format!(" --preset {}", p.name) };
                [p.env.to_owned(), p.algo.to_owned(), train + &chosen]
            })
            .collect(),
        ListWhat::Studies => STUDIES
            .iter()
            .map(|s| {
                let study = AnyStudy::load(s.name).map_err(|e| Failure::of(Code::Bug, &e))?;
                Ok([s.name.to_owned(), study.title().to_owned(), study.extent()])
            })
            .collect::<Result<_>>()?,
    };
    terminal::out(&table(&rows, Style::stdout()))?;
    Ok(ExitCode::SUCCESS)
}

/// Rows in columns; the first is bold.
fn table(rows: &[[String; 3]], style: Style) -> String {
    let width = |column: usize| rows.iter().map(|r| r[column].chars().count()).max().unwrap_or(0);
    let (first, second) = (width(0), width(1));
    let mut out = String::new();
    for [name, title, more] in rows {
        let name = style.paint(BOLD, &format!("{name:first$}"));
        out.push_str(format!("{name}  {title:second$}  {more}").trim_end());
        out.push('\n');
    }
    out
}
