//! Learning curves as SVG and PNG; lines over any axis as SVG.
//!
//! Runs with the same label are seeds of one experiment: their mean is drawn as a line, with a band around
//! it. The picture needs no fonts or libraries of the system, so that it is the same everywhere.

use crate::pixels::{png, shrink};
use crate::style::{AXIS, FAMILY, FONT, GRID, PALETTE, TEXT};
use pgrad_run::stats::{self, StatsError};
use pgrad_run::storage::{FsStorage, StorageError, write_atomic};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::register_font;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use thiserror::Error;

/// Most points of a line; longer curves are thinned by averaging neighbours.
const MAX_POINTS: usize = 400;
/// Most points of a line that is not a learning curve; of longer ones every so manieth is drawn.
const MAX_LINE_POINTS: usize = 2_000;
/// Resamples of the band at each point of a line: it is drawn, not quoted.
const BAND_RESAMPLES: usize = 1_000;

/// The curve of one run.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Name in the legend; runs with the same label are seeds of one experiment.
    pub label: String,
    /// Environment steps and values, steps never falling.
    pub points: Vec<(u64, f64)>,
}

/// The band around the mean of several seeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Band {
    /// From the lowest to the highest seed.
    MinMax,
    /// 95 % percentile bootstrap interval of the mean.
    Bootstrap95,
}

/// Any line, with or without a band: `x` never falls.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Line {
    /// Name in the legend.
    pub label: String,
    /// `(x, y)`.
    pub points: Vec<(f64, f64)>,
    /// `(x, low, high)` of the band; may be empty.
    pub band: Vec<(f64, f64, f64)>,
}

/// How an axis is divided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scale {
    /// Evenly.
    #[default]
    Linear,
    /// By powers of ten; what is not above 0 is left out.
    Log10,
}

impl Scale {
    fn has(self, x: f64) -> bool {
        drawable(x) && (self == Self::Linear || x > 0.0)
    }
    fn place(self, x: f64) -> f64 {
        match self {
            Self::Linear => x,
            Self::Log10 => x.log10(),
        }
    }
    fn label(self, place: f64) -> String {
        match self {
            Self::Linear => short_number(place),
            // Powers of ten as they are where they are short to write.
            Self::Log10 if place.fract() == 0.0 && (-2.0..=4.0).contains(&place) => {
                short_number(10f64.powf(place))
            }
            Self::Log10 if place.fract() == 0.0 => format!("1e{place}").replace('-', "\u{2212}"),
            Self::Log10 => format!("{:.1e}", 10f64.powf(place)).replace('-', "\u{2212}"),
        }
    }
}

/// How a picture looks.
#[derive(Clone, Debug, PartialEq)]
pub struct PlotOptions {
    /// Above the picture; empty for none.
    pub title: String,
    /// Below the axis of steps.
    pub x_label: String,
    /// Beside the axis of values.
    pub y_label: String,
    /// How the horizontal axis is divided.
    pub x_scale: Scale,
    /// How the vertical axis is divided.
    pub y_scale: Scale,
    /// A value with its name, drawn as a dashed line.
    pub threshold: Option<(f64, String)>,
    /// The band around the mean of several seeds.
    pub band: Band,
    /// Width and height in points.
    pub size: (u32, u32),
    /// Pixels a point in PNG files; 2 is crisp on fine screens.
    pub pixel_ratio: u32,
}

impl Default for PlotOptions {
    fn default() -> Self {
        Self {
            title: String::new(),
            x_label: "environment steps".into(),
            y_label: "episode return".into(),
            x_scale: Scale::Linear,
            y_scale: Scale::Linear,
            threshold: None,
            band: Band::MinMax,
            size: (900, 560),
            pixel_ratio: 2,
        }
    }
}

/// Why a picture was not made.
#[derive(Debug, Error)]
pub enum PlotError {
    /// Nothing to draw.
    #[error("no run given: name one or more run folders")]
    NoRuns,
    /// A run without a single value.
    #[error("run `{label}` has no finite value yet: let it train longer, or choose another metric")]
    Empty {
        /// Its label.
        label: String,
    },
    /// Steps that go back.
    #[error("run `{label}` has a point at step {step} after one at step {before}")]
    Order {
        /// Its label.
        label: String,
        /// The lower step.
        step: u64,
        /// The higher step before it.
        before: u64,
    },
    /// A file name that does not say what to draw.
    #[error("`{path}` does not end in `.svg` or `.png`: choose one of them", path = path.display())]
    Extension {
        /// The file.
        path: PathBuf,
    },
    /// A line whose `x` goes back.
    #[error("line `{label}` has a point at {x} after one at {before}")]
    Back {
        /// Its label.
        label: String,
        /// The lower place.
        x: f64,
        /// The higher place before it.
        before: f64,
    },
    /// A heat map whose parts do not fit together.
    #[error(
        "a heat map needs at least one column and one row, and a value for each of the {columns} x {rows} \
         cells"
    )]
    Cells {
        /// Number of columns.
        columns: usize,
        /// Number of rows.
        rows: usize,
    },
    /// A size that cannot be drawn.
    #[error(
        "a picture of {width} x {height} points with {pixel_ratio} pixels a point cannot be drawn; width \
         and height are 200 to 4000, the ratio 1 to 4"
    )]
    Size {
        /// Width in points.
        width: u32,
        /// Height in points.
        height: u32,
        /// Pixels a point.
        pixel_ratio: u32,
    },
    /// The band could not be computed.
    #[error(transparent)]
    Stats(#[from] StatsError),
    /// The file could not be written.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The drawing library failed.
    #[error("drawing failed: {0}")]
    Draw(String),
}

impl PlotError {
    /// Exit code of a command that ends with this error: 64 bad usage, 65 bad input, 70 our bug, 74 output
    /// failed.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NoRuns | Self::Extension { .. } | Self::Size { .. } => 64,
            Self::Empty { .. } | Self::Order { .. } | Self::Stats(_) => 65,
            Self::Storage(_) => 74,
            Self::Back { .. } | Self::Cells { .. } | Self::Draw(_) => 70,
        }
    }
}

/// Draws the curves to `out`, whose name ends in `.svg` or `.png`. An earlier picture is replaced.
///
/// # Errors
/// When there is nothing to draw, the name ends otherwise, or the file cannot be written.
pub fn plot(curves: &[Curve], out: &Path, options: &PlotOptions) -> Result<(), PlotError> {
    let extension = out.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
    let bytes = match extension.as_deref() {
        Some("svg") => render_svg(curves, options)?.into_bytes(),
        Some("png") => render_png(curves, options)?,
        _ => return Err(PlotError::Extension { path: out.to_owned() }),
    };
    Ok(write_atomic(&FsStorage, out, &bytes)?)
}

/// The curves as the text of an SVG file.
///
/// # Errors
/// When there is nothing to draw.
pub fn render_svg(curves: &[Curve], options: &PlotOptions) -> Result<String, PlotError> {
    let groups = prepare(curves, options)?;
    svg(options.size, |area, units| draw(area, &groups, options, units))
}

/// Lines as the text of an SVG file. [`PlotOptions::band`] does not matter: lines bring their own.
///
/// # Errors
/// When there is nothing to draw, or a line goes back.
pub fn render_lines_svg(lines: &[Line], options: &PlotOptions) -> Result<String, PlotError> {
    check_size(options)?;
    if lines.is_empty() {
        return Err(PlotError::NoRuns);
    }
    let groups = lines.iter().map(|l| line_group(l, options)).collect::<Result<Vec<_>, _>>()?;
    svg(options.size, |area, units| draw(area, &groups, options, units))
}

/// The text of an SVG file of this size, drawn by `draw`, which is told the units a point.
pub(crate) fn svg(
    (width, height): (u32, u32),
    draw: impl FnOnce(&DrawingArea<SVGBackend<'_>, Shift>, u32) -> Result<(), PlotError>,
) -> Result<String, PlotError> {
    // The library writes whole numbers; at ten a point a line keeps its shape however much it is enlarged.
    const UNITS: u32 = 10;
    let mut text = String::new();
    {
        let backend = SVGBackend::with_string(&mut text, (width * UNITS, height * UNITS));
        draw(&backend.into_drawing_area(), UNITS)?;
    }
    let fine = format!("width=\"{}\" height=\"{}\"", width * UNITS, height * UNITS);
    Ok(text.replacen(&fine, &format!("width=\"{width}\" height=\"{height}\""), 1))
}

/// The curves as the bytes of a PNG file.
///
/// # Errors
/// When there is nothing to draw.
pub fn render_png(curves: &[Curve], options: &PlotOptions) -> Result<Vec<u8>, PlotError> {
    // Drawn finer and averaged: lines without steps.
    const FINER: u32 = 2;
    let groups = prepare(curves, options)?;
    let (width, height) = (options.size.0 * options.pixel_ratio, options.size.1 * options.pixel_ratio);
    let fine = (width * FINER, height * FINER);
    let mut buffer = vec![255; fine.0 as usize * fine.1 as usize * 3];
    {
        let backend = BitMapBackend::with_buffer(&mut buffer, fine);
        draw(&backend.into_drawing_area(), &groups, options, options.pixel_ratio * FINER)?;
    }
    let pixels = shrink(&buffer, width as usize, height as usize, FINER as usize);
    Ok(png(&pixels, width, height))
}

/// The line and band of one label.
struct Group {
    label: String,
    line: Vec<(f64, f64)>,
    /// Steps with the lower and upper end; empty for a single run.
    band: Vec<(f64, f64, f64)>,
}

pub(crate) fn check_size(options: &PlotOptions) -> Result<(), PlotError> {
    let (width, height) = options.size;
    let pixel_ratio = options.pixel_ratio;
    if !(200..=4000).contains(&width) || !(200..=4000).contains(&height) || !(1..=4).contains(&pixel_ratio) {
        return Err(PlotError::Size { width, height, pixel_ratio });
    }
    Ok(())
}

/// A line at its places on the axes.
fn line_group(line: &Line, options: &PlotOptions) -> Result<Group, PlotError> {
    let label: String = line.label.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    for pair in line.points.windows(2) {
        if pair[1].0 < pair[0].0 {
            return Err(PlotError::Back { label, x: pair[1].0, before: pair[0].0 });
        }
    }
    let (sx, sy) = (options.x_scale, options.y_scale);
    let inside = line.points.iter().filter(|(x, y)| sx.has(*x) && sy.has(*y));
    let points: Vec<(f64, f64)> = inside.map(|(x, y)| (sx.place(*x), sy.place(*y))).collect();
    if points.is_empty() {
        return Err(PlotError::Empty { label });
    }
    let inside = line.band.iter().filter(|(x, low, high)| sx.has(*x) && sy.has(*low) && sy.has(*high));
    let band = inside.map(|(x, low, high)| (sx.place(*x), sy.place(*low), sy.place(*high))).collect();
    Ok(Group { label, line: few(points), band })
}

fn prepare(curves: &[Curve], options: &PlotOptions) -> Result<Vec<Group>, PlotError> {
    check_size(options)?;
    if curves.is_empty() {
        return Err(PlotError::NoRuns);
    }
    let mut by_label: BTreeMap<&str, Vec<Vec<(f64, f64)>>> = BTreeMap::new();
    let mut order: Vec<&str> = Vec::new();
    for curve in curves {
        for pair in curve.points.windows(2) {
            if pair[1].0 < pair[0].0 {
                let label = curve.label.clone();
                return Err(PlotError::Order { label, step: pair[1].0, before: pair[0].0 });
            }
        }
        let (sx, sy) = (options.x_scale, options.y_scale);
        let points = curve.points.iter().map(|(s, v)| (*s as f64, *v));
        let inside = points.filter(|(s, v)| sx.has(*s) && sy.has(*v));
        let points = thin(&inside.map(|(s, v)| (sx.place(s), sy.place(v))).collect::<Vec<_>>());
        if points.is_empty() {
            return Err(PlotError::Empty { label: curve.label.clone() });
        }
        if !order.contains(&curve.label.as_str()) {
            order.push(&curve.label);
        }
        by_label.entry(&curve.label).or_default().push(points);
    }
    order.iter().map(|label| group(label, &by_label[label], options.band)).collect()
}

/// Whether a value has a place on an axis: finite, and so far from overflow that spans of it are finite too.
pub(crate) fn drawable(value: f64) -> bool {
    value.abs() <= 1e300
}

/// At most [`MAX_POINTS`] points: the means of equal spans of steps.
fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= MAX_POINTS {
        return points.to_vec();
    }
    let (first, last) = (points[0].0, points[points.len() - 1].0);
    let span = ((last - first) / MAX_POINTS as f64).max(f64::MIN_POSITIVE);
    let cell = |step: f64| (((step - first) / span) as usize).min(MAX_POINTS - 1);
    points
        .chunk_by(|a, b| cell(a.0) == cell(b.0))
        .map(|same| {
            let n = same.len() as f64;
            (same.iter().map(|p| p.0).sum::<f64>() / n, same.iter().map(|p| p.1).sum::<f64>() / n)
        })
        .collect()
}

/// At most about [`MAX_LINE_POINTS`] points, both ends among them: a line is exact, and is not averaged.
fn few(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let every = points.len().div_ceil(MAX_LINE_POINTS);
    let last = points.len() - 1;
    points.into_iter().enumerate().filter(|(i, _)| i % every == 0 || *i == last).map(|(_, p)| p).collect()
}

fn group(label: &str, runs: &[Vec<(f64, f64)>], band: Band) -> Result<Group, PlotError> {
    // Control characters would make the SVG invalid.
    let name: String = label.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if let [run] = runs {
        return Ok(Group { label: name, line: run.clone(), band: Vec::new() });
    }
    // Where all seeds have values: a mean over fewer of them would jump where one ends.
    let first = runs.iter().map(|r| r[0].0).fold(f64::NEG_INFINITY, f64::max);
    let last = runs.iter().map(|r| r[r.len() - 1].0).fold(f64::INFINITY, f64::min).max(first);
    let longest = runs.iter().map(Vec::len).max().unwrap_or(1).clamp(2, MAX_POINTS);
    let mut out = Group { label: format!("{name} ({} seeds)", runs.len()), line: vec![], band: vec![] };
    for i in 0..longest {
        let step = first + (last - first) * i as f64 / (longest - 1) as f64;
        let values: Vec<f64> = runs.iter().map(|run| at(run, step)).collect();
        let (low, high) = match band {
            Band::MinMax => values
                .iter()
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(*v), high.max(*v))),
            Band::Bootstrap95 => {
                let interval = stats::bootstrap(&values, i as u64, BAND_RESAMPLES, stats::mean)?;
                (interval.low, interval.high)
            }
        };
        out.line.push((step, stats::mean(&values)));
        out.band.push((step, low, high));
    }
    Ok(out)
}

/// The value of a curve at a step, by linear interpolation; its end values beyond its ends.
fn at(points: &[(f64, f64)], step: f64) -> f64 {
    let after = points.partition_point(|p| p.0 <= step);
    match (after.checked_sub(1).map(|i| points[i]), points.get(after)) {
        (Some(a), Some(b)) => a.1 + (step - a.0) / (b.0 - a.0) * (b.1 - a.1),
        (Some(a), None) => a.1,
        (None, Some(b)) => b.1,
        (None, None) => f64::NAN,
    }
}

/// `950`, `20k`, `1.5M`, `2G`.
fn short_number(x: f64) -> String {
    let (scaled, unit) = match x.abs() {
        a if a >= 1e9 => (x / 1e9, "G"),
        a if a >= 1e6 => (x / 1e6, "M"),
        a if a >= 1e3 => (x / 1e3, "k"),
        _ => (x, ""),
    };
    // Three decimals, without what says nothing, and a true minus sign.
    let digits = format!("{scaled:.3}");
    let digits = digits.trim_end_matches('0').trim_end_matches('.');
    match digits {
        "-0" => "0".into(),
        d => format!("{}{unit}", d.replace('-', "\u{2212}")),
    }
}

/// The lowest and highest value to show, with some room, never equal.
fn value_range(groups: &[Group], threshold: Option<f64>) -> (f64, f64) {
    let values = groups.iter().flat_map(|g| {
        let band = g.band.iter().flat_map(|b| [b.1, b.2]);
        g.line.iter().map(|p| p.1).chain(band)
    });
    let (low, high) = values
        .chain(threshold.filter(|t| drawable(*t)))
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    let room = match high - low {
        span if span > 0.0 => 0.06 * span,
        _ => (0.1 * high.abs()).max(1.0),
    };
    (low - room, high + room)
}

pub(crate) fn load_font() -> Result<(), PlotError> {
    static LOADED: OnceLock<bool> = OnceLock::new();
    let loaded = *LOADED.get_or_init(|| register_font(FAMILY, FontStyle::Normal, FONT).is_ok());
    loaded.then_some(()).ok_or_else(|| PlotError::Draw("the embedded font is unreadable".into()))
}

/// Draws everything. `scale` is the number of the backend's units a point.
fn draw<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    groups: &[Group],
    options: &PlotOptions,
    scale: u32,
) -> Result<(), PlotError> {
    load_font()?;
    let failed = |e: DrawingAreaErrorKind<B::ErrorType>| PlotError::Draw(e.to_string());
    let s = scale;
    let font = |points: u32| (FAMILY, points * s).into_font().color(&TEXT);
    area.fill(&WHITE).map_err(failed)?;

    let steps = || groups.iter().flat_map(|g| g.line.iter().map(|p| p.0));
    let last = steps().fold(f64::NEG_INFINITY, f64::max);
    let first = steps().fold(f64::INFINITY, f64::min);
    // Training begins at 0; a curve that begins far from there (a part of a run) does not.
    let from_zero = options.x_scale == Scale::Linear && first >= 0.0 && first <= 0.25 * last;
    let x_low = if from_zero { 0.0 } else { first };
    let x_high = if last > x_low { last } else { x_low + 1.0 };
    let threshold = options.threshold.as_ref().filter(|(v, _)| options.y_scale.has(*v));
    let threshold = threshold.map(|(v, name)| (options.y_scale.place(*v), threshold_label(*v, name)));
    let (y_low, y_high) = value_range(groups, threshold.as_ref().map(|t| t.0));

    let mut builder = ChartBuilder::on(area);
    builder.margin(14 * s).margin_right(26 * s).x_label_area_size(50 * s).y_label_area_size(72 * s);
    if !options.title.is_empty() {
        builder.caption(&options.title, font(22));
    }
    let mut chart = builder.build_cartesian_2d(x_low..x_high, y_low..y_high).map_err(failed)?;
    chart
        .configure_mesh()
        .x_labels(8)
        .y_labels(8)
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID.stroke_width(s))
        .axis_style(AXIS.stroke_width(s))
        .x_label_formatter(&|x| options.x_scale.label(*x))
        .y_label_formatter(&|y| options.y_scale.label(*y))
        .label_style(font(15))
        .axis_desc_style(font(16))
        .x_desc(options.x_label.as_str())
        .y_desc(options.y_label.as_str())
        .set_all_tick_mark_size(5 * s)
        .draw()
        .map_err(failed)?;

    // Bands first, so that no line is covered.
    for (i, group) in groups.iter().enumerate() {
        let colour = PALETTE[i % PALETTE.len()];
        if !group.band.is_empty() {
            let upper = group.band.iter().map(|b| (b.0, b.2));
            let lower = group.band.iter().rev().map(|b| (b.0, b.1));
            let outline: Vec<(f64, f64)> = upper.chain(lower).collect();
            chart
                .draw_series(std::iter::once(Polygon::new(outline, colour.mix(0.2).filled())))
                .map_err(failed)?;
        }
    }
    if let Some((value, name)) = &threshold {
        let dash =
            DashedLineSeries::new([(x_low, *value), (x_high, *value)], 7 * s, 5 * s, AXIS.stroke_width(s));
        chart.draw_series(dash).map_err(failed)?.label(name.clone()).legend(move |(x, y)| {
            let dash = |from: i32| {
                let ends = [(from * s as i32, 0), ((from + 7) * s as i32, 0)];
                PathElement::new(ends, AXIS.stroke_width(s))
            };
            EmptyElement::at((x, y)) + dash(4) + dash(16)
        });
    }
    for (i, group) in groups.iter().enumerate() {
        let style = PALETTE[i % PALETTE.len()].stroke_width(2 * s);
        let line = match group.line.as_slice() {
            // A line needs two ends.
            [only] => vec![*only, *only],
            line => line.to_vec(),
        };
        chart
            .draw_series(LineSeries::new(line, style))
            .map_err(failed)?
            .label(group.label.clone())
            .legend(move |(x, y)| PathElement::new(swatch(x, y, s), style));
    }
    let margin = 10 * s;
    let swatch_width = 38 * s;
    let label_font = font(15);
    let mut text = MultiLineText::<_, String>::new((0, 0), label_font.clone());
    if let Some((_, name)) = &threshold {
        text.push_line(name.clone());
    }
    groups.iter().for_each(|g| text.push_line(g.label.clone()));
    let (w, h) = text.estimate_dimension().map_err(|e| PlotError::Draw(e.to_string()))?;
    let legend = (w + (swatch_width + 2 * margin) as i32, h + 2 * margin as i32);
    let plotting = chart.plotting_area();
    let (columns, rows) = plotting.get_pixel_range();
    let points = groups.iter().flat_map(|g| {
        let band = g.band.iter().flat_map(|b| [(b.0, b.1), (b.0, b.2)]);
        g.line.iter().copied().chain(band)
    });
    let points: Vec<(i32, i32)> = points
        .map(|p| plotting.map_coordinate(&p))
        .map(|(x, y)| (x - columns.start, y - rows.start))
        .collect();
    let (x, y) =
        emptiest_corner(&points, (columns.end - columns.start, rows.end - rows.start), legend, 10 * s as i32);
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::Coordinate(x, y))
        .margin(margin)
        .legend_area_size(swatch_width)
        .background_style(WHITE.mix(0.85))
        .border_style(GRID.stroke_width(s))
        .label_font(label_font)
        .draw()
        .map_err(failed)?;
    area.present().map_err(failed)
}

fn threshold_label(value: f64, name: &str) -> String {
    format!("{name} {}", short_number(value))
}

/// Where a box of size `inner` hides the fewest points: in one of the corners of `outer`, `gap` away from
/// its edges. Of equals the lower right corner, then the upper left one.
fn emptiest_corner(points: &[(i32, i32)], outer: (i32, i32), inner: (i32, i32), gap: i32) -> (i32, i32) {
    let (left, top) = (gap, gap);
    let (right, bottom) = (outer.0 - inner.0 - gap, outer.1 - inner.1 - gap);
    let hidden = |(x, y): (i32, i32)| {
        let inside = |p: &&(i32, i32)| (x..=x + inner.0).contains(&p.0) && (y..=y + inner.1).contains(&p.1);
        points.iter().filter(inside).count()
    };
    [(right, bottom), (left, top), (left, bottom), (right, top)]
        .into_iter()
        .min_by_key(|corner| hidden(*corner))
        .unwrap_or((right, bottom))
}

/// The line beside a name in the legend.
fn swatch(x: i32, y: i32, scale: u32) -> [(i32, i32); 2] {
    let s = scale as i32;
    [(x + 4 * s, y), (x + 32 * s, y)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (x, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (950.0, "950"),
            (0.25, "0.25"),
            (-200.0, "\u{2212}200"),
            (20_000.0, "20k"),
            (1_500_000.0, "1.5M"),
            (1_000_000.0, "1M"),
            (-1_250.0, "\u{2212}1.25k"),
            (2e9, "2G"),
        ] {
            assert_eq!(short_number(x), text);
        }
    }

    #[test]
    fn interpolation_and_ends() {
        let points = [(10.0, 1.0), (20.0, 3.0), (20.0, 5.0), (40.0, 9.0)];
        for (step, value) in [(5.0, 1.0), (10.0, 1.0), (15.0, 2.0), (20.0, 5.0), (30.0, 7.0), (50.0, 9.0)] {
            assert_eq!(at(&points, step), value, "{step}");
        }
    }

    #[test]
    fn mean_and_bands_by_hand() {
        let runs = [vec![(0.0, 0.0), (10.0, 10.0)], vec![(0.0, 4.0), (10.0, 4.0), (20.0, 9.0)]];
        let g = group("x", &runs, Band::MinMax).unwrap();
        assert_eq!(g.line, [(0.0, 2.0), (5.0, 4.5), (10.0, 7.0)]);
        assert_eq!(g.band, [(0.0, 0.0, 4.0), (5.0, 4.0, 5.0), (10.0, 4.0, 10.0)]);
        assert_eq!(g.label, "x (2 seeds)");
        // Of two seeds the bootstrap draws (a, a), (a, b), (b, a), (b, b): its ends are the seeds.
        assert_eq!(group("x", &runs, Band::Bootstrap95).unwrap().band, g.band);
        let single = group("x", &runs[..1], Band::MinMax).unwrap();
        assert!(single.band.is_empty() && single.label == "x" && single.line == runs[0]);
    }

    #[test]
    fn the_axis_of_values_has_room_and_never_vanishes() {
        let line = |values: &[f64]| {
            let line = values.iter().map(|v| (0.0, *v)).collect();
            vec![Group { label: String::new(), line, band: vec![(0.0, 20.0, 60.0)] }]
        };
        let close = |got: (f64, f64), low: f64, high: f64| {
            assert!((got.0 - low).abs() < 1e-9 && (got.1 - high).abs() < 1e-9, "{got:?}");
        };
        close(value_range(&line(&[0.0, 100.0]), None), -6.0, 106.0);
        close(value_range(&line(&[30.0]), None), 17.6, 62.4);
        close(value_range(&line(&[0.0]), Some(200.0)), -12.0, 212.0);
        close(value_range(&line(&[0.0, 100.0]), Some(f64::INFINITY)), -6.0, 106.0);
        let flat =
            |v: f64| value_range(&[Group { label: String::new(), line: vec![(0.0, v)], band: vec![] }], None);
        close(flat(500.0), 450.0, 550.0);
        close(flat(0.0), -1.0, 1.0);
    }

    #[test]
    fn thinning_keeps_the_mean() {
        let points: Vec<(f64, f64)> = (0..100_000).map(|i| (f64::from(i), f64::from(i % 2))).collect();
        let thinned = thin(&points);
        assert_eq!(thinned.len(), MAX_POINTS);
        assert!(thinned.iter().all(|p| (p.1 - 0.5).abs() < 0.01));
        assert!(thinned.windows(2).all(|w| w[0].0 < w[1].0));
        assert_eq!(thin(&points[..10]), points[..10]);
        // Many points at one step.
        assert_eq!(thin(&vec![(5.0, 2.0); 1_000]), [(5.0, 2.0)]);
    }

    #[test]
    fn the_legend_goes_where_nothing_is() {
        let corner = |points: &[(i32, i32)]| emptiest_corner(points, (100, 100), (30, 20), 5);
        assert_eq!(corner(&[]), (65, 75));
        assert_eq!(corner(&[(70, 80)]), (5, 5));
        assert_eq!(corner(&[(70, 80), (10, 10)]), (5, 75));
        assert_eq!(corner(&[(70, 80), (10, 10), (10, 80)]), (65, 5));
        assert_eq!(corner(&[(70, 80), (71, 80), (10, 10), (10, 80), (11, 80), (70, 10), (71, 10)]), (5, 5));
    }
}
