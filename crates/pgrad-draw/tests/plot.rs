//! Pictures of learning curves.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use pgrad_draw::heat_map::{HeatMap, render_heat_map_svg};
use pgrad_draw::plot::{
    Band, Curve, Line, PlotError, PlotOptions, Scale, plot, render_lines_svg, render_png, render_svg,
};
use pgrad_num::Stream;

/// A curve that rises from 20 towards `top`, with noise.
fn learning(label: &str, seed: u64, top: f64) -> Curve {
    let mut random = Stream::new(seed, 9, 0);
    let rate = random.uniform_in(6.0, 14.0);
    let points = (1..=200u64)
        .map(|i| {
            let t = i as f64 / 200.0;
            let noise = 12.0 * random.normal() * (1.0 - t);
            (i * 512, (20.0 + (top - 20.0) * (1.0 - (-rate * t * t).exp()) + noise).min(500.0))
        })
        .collect();
    Curve { label: label.into(), points }
}

fn curves() -> Vec<Curve> {
    let mut all: Vec<Curve> = (0..5).map(|s| learning("ppo", s, 500.0)).collect();
    all.extend((5..10).map(|s| learning("a2c", s, 420.0)));
    all.push(learning("reinforce", 11, 250.0));
    all
}

fn options() -> PlotOptions {
    PlotOptions {
        title: "CartPole-v1".into(),
        threshold: Some((475.0, "solved at".into())),
        ..PlotOptions::default()
    }
}

/// Width, height and RGB pixels of a PNG file; checks the length and order of its chunks.
fn decode(file: &[u8]) -> (usize, usize, Vec<u8>) {
    let mut rest = file.strip_prefix(b"\x89PNG\r\n\x1a\n").unwrap();
    let mut chunks = Vec::new();
    while let Some((len, after)) = rest.split_first_chunk::<4>() {
        let len = u32::from_be_bytes(*len) as usize;
        chunks.push((&after[..4], &after[4..4 + len]));
        rest = &after[4 + len + 4..];
    }
    assert_eq!(chunks.iter().map(|c| c.0).collect::<Vec<_>>(), [b"IHDR", b"IDAT", b"IEND"]);
    let number = |i: usize| u32::from_be_bytes(chunks[0].1[i..i + 4].try_into().unwrap()) as usize;
    let (width, height) = (number(0), number(4));
    let data = miniz_oxide::inflate::decompress_to_vec_zlib(chunks[1].1).unwrap();
    let mut pixels: Vec<u8> = Vec::new();
    for (y, row) in data.chunks_exact(1 + width * 3).enumerate() {
        assert_eq!(row[0], 2, "filter of the row");
        for (x, v) in row[1..].iter().enumerate() {
            let above = if y == 0 { 0 } else { pixels[(y - 1) * width * 3 + x] };
            pixels.push(v.wrapping_add(above));
        }
    }
    assert_eq!(pixels.len(), width * height * 3);
    (width, height, pixels)
}

fn count(pixels: &[u8], colour: [u8; 3]) -> usize {
    pixels.as_chunks::<3>().0.iter().filter(|p| **p == colour).count()
}

#[test]
fn a_png_has_its_size_its_lines_and_its_text() {
    let (width, height, pixels) = decode(&render_png(&curves(), &options()).unwrap());
    assert_eq!((width, height), (1800, 1120));
    // The three lines in their colours, the white ground, and dark text.
    for colour in [[0, 114, 178], [213, 94, 0], [0, 158, 115]] {
        let n = count(&pixels, colour);
        assert!((1_500..60_000).contains(&n), "{colour:?}: {n}");
    }
    assert!(count(&pixels, [255, 255, 255]) > width * height / 2);
    let dark = count(&pixels, [40, 40, 40]);
    assert!((500..40_000).contains(&dark), "{dark} pixels of text");
    // Corners are empty: nothing is cut off there.
    for corner in [0, width - 1, (height - 1) * width, height * width - 1] {
        assert_eq!(pixels[corner * 3..corner * 3 + 3], [255, 255, 255]);
    }
}

#[test]
fn the_band_of_the_seeds_is_drawn_around_their_mean() {
    // Two seeds at 0 and 10: the band fills the picture between them, the mean runs through its middle.
    let flat = |v: f64| Curve { label: "x".into(), points: vec![(0, v), (1_000, v)] };
    let options = PlotOptions { pixel_ratio: 1, ..PlotOptions::default() };
    let (width, height, both) = decode(&render_png(&[flat(0.0), flat(10.0)], &options).unwrap());
    let colour_at = |pixels: &[u8], y: usize| pixels[(y * width + width / 2) * 3..][..3].to_vec();
    // One part of the line's colour on four parts of white, whichever way it is rounded.
    let is_band = |p: &[u8]| p.iter().zip([204, 227, 240]).all(|(got, want)| got.abs_diff(want) <= 1);
    let rows: Vec<usize> = (0..height).filter(|y| colour_at(&both, *y) == [0, 114, 178]).collect();
    let band: Vec<usize> = (0..height).filter(|y| is_band(&colour_at(&both, *y))).collect();
    assert!(rows.len() >= 2 && band.len() > height / 2, "{} {}", rows.len(), band.len());
    let middle = (band[0] + band[band.len() - 1]) / 2;
    assert!(rows.iter().all(|y| y.abs_diff(middle) <= 3), "{rows:?} around {middle}");
    let (_, _, single) = decode(&render_png(&[flat(0.0)], &options).unwrap());
    assert!(!single.as_chunks::<3>().0.iter().any(|p| is_band(p)));
}

#[test]
fn pictures_are_the_same_every_time() {
    for band in [Band::MinMax, Band::Bootstrap95] {
        let options = PlotOptions { band, ..options() };
        assert_eq!(render_png(&curves(), &options).unwrap(), render_png(&curves(), &options).unwrap());
        assert_eq!(render_svg(&curves(), &options).unwrap(), render_svg(&curves(), &options).unwrap());
    }
    let bands = [Band::MinMax, Band::Bootstrap95]
        .map(|band| render_svg(&curves(), &PlotOptions { band, ..options() }).unwrap());
    assert_ne!(bands[0], bands[1]);
}

#[test]
fn an_svg_says_what_it_shows() {
    let svg = render_svg(&curves(), &options()).unwrap();
    assert!(svg.starts_with("<svg width=\"900\" height=\"560\" viewBox=\"0 0 9000 5600\""), "{svg:.200}");
    assert!(svg.trim_end().ends_with("</svg>"));
    for text in [
        "CartPole-v1",
        "environment steps",
        "episode return",
        "ppo (5 seeds)",
        "a2c (5 seeds)",
        "\nreinforce\n",
        "solved at 475",
        "100k",
    ] {
        assert!(svg.contains(text), "no {text:?}");
    }
    assert!(!svg.contains("NaN") && !svg.contains("\"inf"));
    assert!(svg.len() < 200_000, "{} bytes", svg.len());
}

#[test]
fn names_cannot_break_out_of_the_svg() {
    let mut curve = learning("</text><script>alert(1)</script>\u{1b}\0", 1, 100.0);
    let options = PlotOptions { title: "a < b & \"c\"".into(), ..PlotOptions::default() };
    let svg = render_svg(std::slice::from_ref(&curve), &options).unwrap();
    assert!(!svg.contains("<script") && svg.contains("&lt;script"));
    assert!(svg.contains("a &lt; b &amp;"));
    assert!(!svg.chars().any(|c| c.is_control() && c != '\n'));
    curve.label.clear();
    render_svg(&[curve], &options).unwrap();
}

#[test]
fn odd_curves_are_drawn() {
    let curve = |points: &[(u64, f64)]| Curve { label: "x".into(), points: points.to_vec() };
    for runs in [
        vec![curve(&[(0, 0.0)])],
        vec![curve(&[(5, 1.0)]), curve(&[(5, 2.0)])],
        vec![curve(&[(1, 3.0), (2, 3.0)])],
        vec![curve(&[(0, 1.0), (10, 2.0)]), curve(&[(20, 1.0), (30, 2.0)])],
        vec![curve(&[(1, f64::NAN), (2, 1.0), (3, f64::INFINITY), (4, 2.0)])],
        vec![curve(&[(u64::MAX - 1, -1e300), (u64::MAX, 1e300)])],
        vec![curve(&[(1, f64::MIN), (2, 1.0), (3, f64::MAX)])],
        vec![curve(&[(1, 1e-300), (2, 2e-300)])],
        vec![curve(&[(1_000_000, 1.0), (1_000_000, 2.0), (1_000_001, 2.0)])],
    ] {
        for threshold in [None, Some((475.0, "solved at".into()))] {
            let options = PlotOptions { pixel_ratio: 1, threshold, ..options() };
            let svg = render_svg(&runs, &options).unwrap();
            assert!(!svg.contains("NaN"), "{runs:?}");
            decode(&render_png(&runs, &options).unwrap());
        }
    }
}

#[test]
fn what_cannot_be_drawn_is_named() {
    let tmp = tempfile::tempdir().unwrap();
    let out = |name: &str| tmp.path().join(name);
    let fine = [learning("x", 1, 10.0)];
    let empty = [Curve { label: "young".into(), points: vec![(1, f64::NAN)] }];
    let back = [Curve { label: "x".into(), points: vec![(2, 1.0), (1, 1.0)] }];
    let e = plot(&[], &out("a.svg"), &options()).unwrap_err();
    assert!(matches!(e, PlotError::NoRuns) && e.exit_code() == 64);
    let e = plot(&empty, &out("a.svg"), &options()).unwrap_err();
    assert!(e.to_string().contains("`young`") && e.exit_code() == 65);
    assert!(matches!(
        plot(&back, &out("a.svg"), &options()),
        Err(PlotError::Order { step: 1, before: 2, .. })
    ));
    for name in ["a.jpg", "a", "svg"] {
        let e = plot(&fine, &out(name), &options()).unwrap_err();
        assert!(matches!(e, PlotError::Extension { .. }), "{e}");
    }
    for (size, pixel_ratio) in [((0, 560), 1), ((900, 100_000), 1), ((900, 560), 0), ((900, 560), 99)] {
        let e = plot(&fine, &out("a.png"), &PlotOptions { size, pixel_ratio, ..options() }).unwrap_err();
        assert!(matches!(e, PlotError::Size { .. }), "{e}");
    }
    let e = plot(&fine, &out("none/a.svg"), &options()).unwrap_err();
    assert!(e.to_string().contains("none") && e.exit_code() == 74, "{e}");
    assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn a_file_is_written_and_replaced_whole() {
    let tmp = tempfile::tempdir().unwrap();
    for name in ["curve.svg", "curve.PNG"] {
        let out = tmp.path().join(name);
        plot(&curves()[..1], &out, &options()).unwrap();
        let first = std::fs::read(&out).unwrap();
        plot(&curves(), &out, &options()).unwrap();
        assert_ne!(std::fs::read(&out).unwrap(), first);
    }
    assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), 2);
    assert_eq!(std::fs::read(tmp.path().join("curve.PNG")).unwrap()[1..4], *b"PNG");
}

/// The places `(x, y)` of the first line in this colour.
fn polyline(svg: &str, colour: &str) -> Vec<(f64, f64)> {
    let line =
        svg.split("<polyline").map(|p| p.split('>').next().unwrap()).find(|p| p.contains(colour)).unwrap();
    let points = line.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
    let pair = |p: &str| p.split_once(',').map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap()));
    points.split_whitespace().map(|p| pair(p).unwrap()).collect()
}

fn powers() -> Line {
    let points = (-3..=6).map(|k| (10f64.powi(k), 1e-2 * 10f64.powi(-k))).collect();
    Line { label: "1 / t".into(), points, band: vec![] }
}

#[test]
fn logarithmic_axes_make_powers_a_straight_line() {
    let both = PlotOptions { x_scale: Scale::Log10, y_scale: Scale::Log10, ..PlotOptions::default() };
    let svg = render_lines_svg(&[powers()], &both).unwrap();
    let places = polyline(&svg, "#0072B2");
    assert_eq!(places.len(), 10);
    for pair in places.windows(2) {
        let (dx, dy) = (pair[1].0 - pair[0].0, pair[1].1 - pair[0].1);
        let (all_x, all_y) = (places[9].0 - places[0].0, places[9].1 - places[0].1);
        // Whole units of a tenth of a point.
        assert!((dx - all_x / 9.0).abs() <= 1.0 && (dy - all_y / 9.0).abs() <= 1.0, "{dx} {dy}");
        assert!(dx > 500.0 && dy > 300.0, "{dx} {dy}");
    }
    assert!(["\n1e6\n", "\n100\n", "\n0.01\n", "\n1e\u{2212}4\n"].iter().all(|l| svg.contains(l)), "{svg}");
    // Evenly divided, all but the last point sit at the left edge; without logarithms 0 has its place.
    let flat = polyline(&render_lines_svg(&[powers()], &PlotOptions::default()).unwrap(), "#0072B2");
    assert!(flat[7].0 - flat[0].0 < 0.02 * (flat[9].0 - flat[0].0));
}

#[test]
fn what_has_no_logarithm_is_left_out() {
    let both = PlotOptions { x_scale: Scale::Log10, y_scale: Scale::Log10, ..PlotOptions::default() };
    let mut line = powers();
    line.points.insert(0, (0.0, 1.0));
    line.points.push((1e7, -1.0));
    assert_eq!(polyline(&render_lines_svg(&[line], &both).unwrap(), "#0072B2").len(), 10);
    let none = Line { label: "none".into(), points: vec![(1.0, -1.0)], band: vec![] };
    let e = render_lines_svg(&[none], &both).unwrap_err();
    assert!(matches!(&e, PlotError::Empty { label } if label == "none"), "{e}");
}

#[test]
fn lines_keep_their_own_band_and_do_not_go_back() {
    let line = Line {
        label: "a".into(),
        points: vec![(-1.0, 0.0), (1.0, 1.0)],
        band: vec![(-1.0, -0.5, 0.5), (1.0, 0.5, 1.5)],
    };
    let svg = render_lines_svg(std::slice::from_ref(&line), &PlotOptions::default()).unwrap();
    assert_eq!(svg.matches("<polygon").count(), 1);
    assert!(polyline(&svg, "#0072B2")[1].0 > polyline(&svg, "#0072B2")[0].0);
    // A long line ends where it ends, however steeply.
    let mut points: Vec<(f64, f64)> = (0..10_000).map(|i| (f64::from(i), 0.0)).collect();
    points[9_999].1 = 1.0;
    let places = polyline(
        &render_lines_svg(&[Line { points, band: vec![], ..line.clone() }], &PlotOptions::default()).unwrap(),
        "#0072B2",
    );
    assert!((1_000..3_000).contains(&places.len()), "{}", places.len());
    let rise = places[0].1 - places[places.len() - 1].1;
    let short = Line { points: vec![(0.0, 0.0), (9_999.0, 1.0)], band: vec![], ..line.clone() };
    let ends = polyline(&render_lines_svg(&[short], &PlotOptions::default()).unwrap(), "#0072B2");
    assert!((rise - (ends[0].1 - ends[1].1)).abs() <= 1.0, "{rise}");
    let back = Line { points: vec![(1.0, 0.0), (0.5, 1.0)], ..line };
    let e = render_lines_svg(&[back], &PlotOptions::default()).unwrap_err();
    assert!(matches!(e, PlotError::Back { x: 0.5, before: 1.0, .. }), "{e}");
    assert!(matches!(render_lines_svg(&[], &PlotOptions::default()), Err(PlotError::NoRuns)));
}

#[test]
fn a_heat_map_has_a_cell_and_a_number_for_each_pair() {
    let map = HeatMap {
        columns: ["0", "0.5", "1"].map(String::from).to_vec(),
        rows: ["a", "b"].map(String::from).to_vec(),
        values: vec![vec![-10.0, 0.0, 5.0], vec![f64::NAN, 2.5, 10.0]],
        framed: vec![(1, 2)],
        decimals: 1,
    };
    let options = PlotOptions { title: "Grid".into(), ..PlotOptions::default() };
    let svg = render_heat_map_svg(&map, &options).unwrap();
    for text in ["\u{2212}10.0", "0.0", "5.0", "2.5", "10.0", "Grid", "0.5", ">\na\n<", ">\nb\n<"] {
        assert!(svg.contains(text), "{text} in {svg}");
    }
    assert!(!svg.contains("NaN"), "{svg}");
    // The rectangles, with their colours: the ground, five cells, one frame.
    let colours: Vec<&str> = svg
        .split("<rect ")
        .skip(1)
        .map(|r| r.split('>').next().unwrap())
        .filter(|r| !r.contains("#FFFFFF"))
        .collect();
    assert_eq!(colours.len(), 6, "{colours:?}");
    assert!(colours[0].contains("#440154") && colours[4].contains("#FDE725"), "{colours:?}");
    assert!(colours[5].contains("#D55E00") && colours[5].contains("fill=\"none\""), "{colours:?}");
    let place = |rect: &str, key: &str| -> f64 {
        rect.split(&format!("{key}=\"")).nth(1).unwrap().split('"').next().unwrap().parse().unwrap()
    };
    // Columns to the right, rows from the bottom.
    assert!(
        place(colours[1], "x") > place(colours[0], "x") && place(colours[1], " y") == place(colours[0], " y")
    );
    assert!(place(colours[4], " y") < place(colours[2], " y"));

    let mut wrong = map.clone();
    wrong.values[1].pop();
    for wrong in [wrong, HeatMap { columns: vec![], values: vec![vec![], vec![]], ..map }] {
        assert!(matches!(render_heat_map_svg(&wrong, &options), Err(PlotError::Cells { .. })));
    }
    let one = HeatMap {
        columns: vec!["x".into()],
        rows: vec!["y".into()],
        values: vec![vec![3.0]],
        framed: vec![],
        decimals: 0,
    };
    assert!(render_heat_map_svg(&one, &options).unwrap().contains(">\n3\n<"));
}
