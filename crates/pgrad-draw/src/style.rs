//! Letters and colours of all pictures.

use plotters::style::RGBColor;

/// DejaVu Sans (Latin, Greek), see `assets/LICENSE-DejaVu.txt`.
pub(crate) const FONT: &[u8] = include_bytes!("../assets/DejaVuSans-subset.ttf");
pub(crate) const FAMILY: &str = "sans-serif";

/// Okabe and Ito's colours, which colour-blind readers can tell apart.
pub(crate) const PALETTE: [RGBColor; 12] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(60, 60, 60),
    // Beyond those that everybody can tell apart: pictures of many methods.
    RGBColor(136, 34, 85),
    RGBColor(153, 153, 51),
    RGBColor(51, 34, 136),
    RGBColor(170, 68, 0),
    RGBColor(150, 150, 150),
];
pub(crate) const TEXT: RGBColor = RGBColor(40, 40, 40);
pub(crate) const GRID: RGBColor = RGBColor(225, 225, 225);
pub(crate) const AXIS: RGBColor = RGBColor(120, 120, 120);
