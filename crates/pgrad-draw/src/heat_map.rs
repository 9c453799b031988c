//! Heat maps as SVG.

use crate::plot::{PlotError, PlotOptions, check_size, drawable, load_font, svg};
use crate::style::{AXIS, FAMILY, PALETTE, TEXT};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// A value for every pair of columns and rows, as colours.
#[derive(Clone, Debug, PartialEq)]
pub struct HeatMap {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Names of the rows, from the bottom.
    pub rows: Vec<String>,
    /// `values[row][column]`; what is not finite stays empty.
    pub values: Vec<Vec<f64>>,
    /// Cells with a frame, as `(row, column)`.
    pub framed: Vec<(usize, usize)>,
    /// Decimals of the numbers in the cells.
    pub decimals: usize,
}

/// A heat map as the text of an SVG file: dark is low, bright is high, and each cell has its number. Of
/// `options` count the title, the labels of the axes and the size.
///
/// # Errors
/// When there is nothing to draw.
pub fn render_heat_map_svg(map: &HeatMap, options: &PlotOptions) -> Result<String, PlotError> {
    check_size(options)?;
    let (columns, rows) = (map.columns.len(), map.rows.len());
    let fits = map.values.len() == rows && map.values.iter().all(|r| r.len() == columns);
    if columns == 0 || rows == 0 || !fits {
        return Err(PlotError::Cells { columns, rows });
    }
    svg(options.size, |area, units| draw_heat_map(area, map, options, units))
}

/// Colours from low to high: dark blue, green, yellow, of rising lightness, so that it is read in grey too.
const RAMP: [RGBColor; 5] = [
    RGBColor(68, 1, 84),
    RGBColor(59, 82, 139),
    RGBColor(33, 145, 140),
    RGBColor(94, 201, 98),
    RGBColor(253, 231, 37),
];

/// The colour of a value between 0 and 1.
fn ramp(value: f64) -> RGBColor {
    let place = value.clamp(0.0, 1.0) * (RAMP.len() - 1) as f64;
    let below = (place as usize).min(RAMP.len() - 2);
    let part = place - below as f64;
    let mix = |a: u8, b: u8| (f64::from(a) + part * (f64::from(b) - f64::from(a))).round() as u8;
    let (RGBColor(r0, g0, b0), RGBColor(r1, g1, b1)) = (RAMP[below], RAMP[below + 1]);
    RGBColor(mix(r0, r1), mix(g0, g1), mix(b0, b1))
}

fn draw_heat_map<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    map: &HeatMap,
    options: &PlotOptions,
    scale: u32,
) -> Result<(), PlotError> {
    load_font()?;
    let failed = |e: DrawingAreaErrorKind<B::ErrorType>| PlotError::Draw(e.to_string());
    let s = scale;
    let font = |points: u32| (FAMILY, points * s).into_font().color(&TEXT);
    area.fill(&WHITE).map_err(failed)?;
    let (columns, rows) = (map.columns.len(), map.rows.len());
    let mut builder = ChartBuilder::on(area);
    builder.margin(14 * s).margin_right(26 * s).x_label_area_size(50 * s).y_label_area_size(72 * s);
    if !options.title.is_empty() {
        builder.caption(&options.title, font(22));
    }
    // The last number is inside.
    let (x_axis, y_axis) = ((0..columns - 1).into_segmented(), (0..rows - 1).into_segmented());
    let mut chart = builder.build_cartesian_2d(x_axis, y_axis).map_err(failed)?;
    let name = |names: &[String], place: &SegmentValue<usize>| match place {
        SegmentValue::CenterOf(i) => names.get(*i).map_or_else(String::new, |n| n.replace('-', "\u{2212}")),
        SegmentValue::Exact(_) | SegmentValue::Last => String::new(),
    };
    let edge = |i: usize, n: usize| if i < n { SegmentValue::Exact(i) } else { SegmentValue::Last };
    let corners = |row, column| {
        [(edge(column, columns), edge(row, rows)), (edge(column + 1, columns), edge(row + 1, rows))]
    };
    chart
        .configure_mesh()
        .disable_mesh()
        .axis_style(AXIS.stroke_width(s))
        .x_labels(columns)
        .y_labels(rows)
        .x_label_formatter(&|x| name(&map.columns, x))
        .y_label_formatter(&|y| name(&map.rows, y))
        .label_style(font(15))
        .axis_desc_style(font(16))
        .x_desc(options.x_label.as_str())
        .y_desc(options.y_label.as_str())
        .set_all_tick_mark_size(5 * s)
        .draw()
        .map_err(failed)?;

    let finite = || map.values.iter().flatten().copied().filter(|v| drawable(*v));
    let low = finite().fold(f64::INFINITY, f64::min);
    let high = finite().fold(f64::NEG_INFINITY, f64::max);
    let (pixel_columns, _) = chart.plotting_area().get_pixel_range();
    let cell_width = (pixel_columns.end - pixel_columns.start) as u32 / (columns as u32 * s);
    let points = (cell_width / 5).clamp(6, 15);
    for (row, values) in map.values.iter().enumerate() {
        for (column, value) in values.iter().enumerate().filter(|(_, v)| drawable(**v)) {
            let part = if high > low { (value - low) / (high - low) } else { 1.0 };
            let cell = Rectangle::new(corners(row, column), ramp(part).filled());
            chart.draw_series(std::iter::once(cell)).map_err(failed)?;
            let ink = if part > 0.6 { &TEXT } else { &WHITE };
            let centre = Pos::new(HPos::Center, VPos::Center);
            let style = (FAMILY, points * s).into_font().color(ink).pos(centre);
            let digits = format!("{value:.*}", map.decimals).replace('-', "\u{2212}");
            let middle = (SegmentValue::CenterOf(column), SegmentValue::CenterOf(row));
            let text = Text::new(digits, middle, style);
            chart.draw_series(std::iter::once(text)).map_err(failed)?;
        }
    }
    for &(row, column) in &map.framed {
        let frame = Rectangle::new(corners(row, column), PALETTE[1].stroke_width(4 * s));
        chart.draw_series(std::iter::once(frame)).map_err(failed)?;
    }
    area.present().map_err(failed)
}
