//! One algorithm on one task over a grid of two settings, as a heat map.

use crate::file::{self, EntryFile};
use crate::{Bench, Entry, Findings, Measure, Measurement, Quantity, Source, Study, StudyError, number};
use pgrad_draw::heat_map::{HeatMap, render_heat_map_svg};
use pgrad_draw::plot::PlotOptions;
use pgrad_run::stats;
use serde::Deserialize;
use toml::Spanned;

/// The grid, from the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Grid {
    /// Which score is compared.
    measure: Measure,
    /// Episodes of each evaluation.
    episodes: Spanned<usize>,
    /// The setting that changes from row to row.
    rows: Spanned<Axis>,
    /// The setting that changes from column to column.
    columns: Spanned<Axis>,
    /// What all cells have in common.
    entry: Spanned<Option<EntryFile>>,
    /// `[row][column]`, made of the rest.
    #[serde(skip)]
    cells: Vec<Vec<Entry>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Axis {
    setting: Spanned<String>,
    values: Vec<f64>,
}

impl Axis {
    fn name(&self) -> &str {
        self.setting.get_ref()
    }
}

/// What the runs of a cell scored.
struct Cell {
    mean: f64,
    error: f64,
}

impl Grid {
    fn axes(&self) -> [&Axis; 2] {
        [self.rows.get_ref(), self.columns.get_ref()]
    }
    /// The place with the best mean.
    fn best(scores: &[Vec<Cell>]) -> (usize, usize) {
        let places = scores.iter().enumerate().flat_map(|(r, row)| (0..row.len()).map(move |c| (r, c)));
        places.max_by(|a, b| scores[a.0][a.1].mean.total_cmp(&scores[b.0][b.1].mean)).unwrap_or((0, 0))
    }
    fn table(&self, scores: &[Vec<Cell>]) -> String {
        let [rows, columns] = self.axes();
        let mut text =
            format!("Mean {} of each cell, ± one standard error over seeds.\n\n|  |", self.measure);
        for value in &columns.values {
            text += &format!(" {} {value} |", columns.name());
        }
        text += &format!("\n|---|{}\n", "--:|".repeat(columns.values.len()));
        for (value, cells) in rows.values.iter().zip(scores).rev() {
            text += &format!("| {} {value} |", rows.name());
            for cell in cells {
                text += &format!(" {:.0} ± {:.0} |", cell.mean, cell.error);
            }
            text.push('\n');
        }
        let (row, column) = Self::best(scores);
        let best = &scores[row][column];
        let mut near = Vec::new();
        for (r, cells) in scores.iter().enumerate() {
            for (c, cell) in cells.iter().enumerate().filter(|(c, _)| (r, *c) != (row, column)) {
                if best.mean - cell.mean <= best.error.hypot(cell.error) {
                    near.push(format!("({}, {})", rows.values[r], columns.values[c]));
                }
            }
        }
        let near = if near.is_empty() { "none".to_owned() } else { near.join(", ") };
        text + &format!(
            "\nFramed: the best cell, ({}, {}). Other cells within one combined standard error of it: {near}.",
            rows.values[row], columns.values[column]
        )
    }
    fn picture(&self, scores: &[Vec<Cell>]) -> Result<String, StudyError> {
        let [rows, columns] = self.axes();
        let names = |axis: &Axis| axis.values.iter().map(f64::to_string).collect();
        let map = HeatMap {
            columns: names(columns),
            rows: names(rows),
            values: scores.iter().map(|row| row.iter().map(|c| c.mean).collect()).collect(),
            framed: vec![Self::best(scores)],
            decimals: 0,
        };
        let env = self.cells.iter().flatten().next().map_or("", |e| e.config.env_id());
        let options = PlotOptions {
            title: format!("{env}: mean {}", self.measure),
            x_label: columns.name().to_owned(),
            y_label: rows.name().to_owned(),
            ..PlotOptions::default()
        };
        Ok(render_heat_map_svg(&map, &options)?)
    }
}

impl Measurement for Grid {
    fn check(&mut self, source: &Source<'_>) -> Result<(), StudyError> {
        if *self.episodes.get_ref() == 0 {
            return Err(source.error(self.episodes.span().start, "`episodes` is at least 1"));
        }
        for axis in [&self.rows, &self.columns] {
            let values = &axis.get_ref().values;
            if values.len() < 2 || !values.iter().is_sorted_by(|a, b| a < b) {
                let message = "`values` are at least two numbers, each above the one before";
                return Err(source.error(axis.span().start, message));
            }
        }
        let at = self.entry.span().start;
        let Some(common) = self.entry.get_mut().take() else {
            return Err(source.error(at, "missing `entry`"));
        };
        let common = file::entry(source, at, common)?;
        if let Some(anchor) = common.anchors.first() {
            let message = format!("anchors of a grid are those of its quantities, not {}", anchor.measure);
            return Err(source.error(at, message));
        }
        if common.seeds < 2 {
            return Err(source.error(at, "a standard error needs two seeds at least"));
        }
        let [rows, columns] = self.axes();
        let cell = |row: f64, column: f64| {
            let mut entry = common.clone();
            for (axis, value) in [(rows, row), (columns, column)] {
                let start = axis.setting.span().start;
                source.set(&mut entry.config, start, axis.name(), &toml::Value::Float(value))?;
            }
            entry.label = format!("{} {row} {} {column}", rows.name(), columns.name());
            entry.check().map_err(|e| source.error(at, e.to_string()))?;
            Ok(entry)
        };
        let row = |row: &f64| columns.values.iter().map(|column| cell(*row, *column)).collect();
        self.cells = rows.values.iter().map(row).collect::<Result<_, StudyError>>()?;
        Ok(())
    }

    fn quantities(&self) -> Vec<String> {
        let [rows, columns] = self.axes();
        let last = |axis: &Axis| [axis.values[0], axis.values[axis.values.len() - 1]];
        let [low, high] = last(columns);
        vec![
            format!("best {}", rows.name()),
            format!("best {}", columns.name()),
            format!("best mean {}", self.measure),
            format!("loss with {} {low} in the best row", columns.name()),
            format!("loss with {} {high} in the best row", columns.name()),
        ]
    }

    fn extent(&self) -> String {
        let cells = self.cells.iter().map(Vec::len).sum::<usize>();
        let runs: u64 = self.cells.iter().flatten().map(|e| e.seeds).sum();
        format!("{cells} cells, {runs} runs")
    }

    fn has_seeds(&self) -> bool {
        true
    }

    fn measure(&self, bench: &mut Bench<'_>) -> Result<Findings, StudyError> {
        if bench.seeds == Some(1) {
            return Err(StudyError::Measure { reason: "a standard error needs two seeds at least".into() });
        }
        let study = Study::of_entries(*self.episodes.get_ref(), self.cells.iter().flatten());
        let trained = bench.train(&study)?;
        let cell = |entry: &Entry| {
            let values = trained.values(&entry.label, self.measure);
            if values.is_empty() {
                let reason = format!("{}: no episode was finished, so that it has no score", entry.label);
                return Err(StudyError::Measure { reason });
            }
            let error = stats::standard_error(values);
            Ok(Cell { mean: stats::mean(values), error })
        };
        let mut scores = Vec::new();
        for row in &self.cells {
            scores.push(row.iter().map(cell).collect::<Result<Vec<Cell>, StudyError>>()?);
        }
        let [rows, columns] = self.axes();
        let (row, column) = Self::best(&scores);
        let best = &scores[row][column];
        let loss = |other: &Cell| (best.mean - other.mean, best.error.hypot(other.error));
        let last = columns.values.len() - 1;
        let values =
            [(rows.values[row], None), (columns.values[column], None), (best.mean, Some(best.error))];
        let losses = [0, last].map(|c| loss(&scores[row][c])).map(|(v, e)| (v, Some(e)));
        let names = self.quantities().into_iter();
        let quantities = names
            .zip(values.into_iter().chain(losses))
            .map(|(name, (value, standard_error))| Quantity { name, value, exact: false, standard_error })
            .collect();
        let seconds: f64 = trained.rows.iter().map(|r| r.seconds).sum();
        let text = format!(
            "{}\n\n{} runs, {} s of training on one thread each.",
            self.table(&scores),
            trained.rows.len(),
            number(seconds.round())
        );
        Ok(Findings {
            quantities,
            results: None,
            text,
            pictures: vec![("heat-map.svg".into(), self.picture(&scores)?)],
        })
    }
}
