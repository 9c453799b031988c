//! Films of a policy at work, as GIF or MP4.
//!
//! A task says what it looks like ([`Picture`]): shapes are drawn here, pixels of a renderer are taken as
//! they are. GIF needs nothing; MP4 is made by the program `ffmpeg`, because a codec is no part of this
//! project.

use crate::pixels::shrink;
use pgrad_env::{Content, Drawing, Form, Picture};
use pgrad_model::Policy;
use pgrad_run::{
    config::RunConfig,
    eval::{EvalError, EvalOptions, Evaluation, evaluate_watched},
    storage::{FsStorage, StorageError, write_atomic},
};
use plotters::prelude::*;
use std::{
    ffi::OsStr,
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};
use thiserror::Error;

/// Height of a drawing in pixels.
const HEIGHT: u32 = 400;
/// Widest drawing in pixels.
const MAX_WIDTH: u32 = 1_600;
/// A drawing is made finer by this and averaged: edges without steps.
const FINER: u32 = 3;
/// Most frames a second of a GIF: viewers slow shorter delays down.
const MAX_GIF_RATE: f64 = 50.0;

/// One frame: red, green and blue of each pixel, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Pixels of a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `width · height` pixels of three bytes.
    pub rgb: Vec<u8>,
}

/// A film that was made.
#[derive(Clone, Debug, PartialEq)]
pub struct Film {
    /// Its file.
    pub path: PathBuf,
    /// Frames in it.
    pub frames: usize,
    /// Its length.
    pub duration_secs: f64,
    /// The episodes that it shows.
    pub shown: Evaluation,
}

/// Why there is no film.
#[derive(Debug, Error)]
pub enum VideoError {
    /// The episodes could not be run, or the task cannot be drawn.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// The file's name says no format.
    #[error("`{path}` does not end in `.gif` or `.mp4`: choose one of them", path = path.display())]
    Format {
        /// The name.
        path: PathBuf,
    },
    /// No `ffmpeg`.
    #[error("cannot make `{path}`: the program `ffmpeg` was not found\n  hint: install it, or choose a file \
        name that ends in `.gif`", path = path.display())]
    NoEncoder {
        /// The film.
        path: PathBuf,
    },
    /// `ffmpeg` failed.
    #[error("cannot make `{path}`: ffmpeg: {reason}", path = path.display())]
    Encoder {
        /// The film.
        path: PathBuf,
        /// Its last words.
        reason: String,
    },
    /// The environment changed the size of its pictures, or gave no pixels.
    #[error("frame {frame} has {got:?} pixels, but earlier frames have {expected:?}")]
    Size {
        /// The frame.
        frame: usize,
        /// Width and height of the first frame.
        expected: (u32, u32),
        /// Width and height of this one.
        got: (u32, u32),
    },
    /// The environment draws nothing.
    #[error("the environment's frames have {} by {} pixels: there is nothing to show", size.0, size.1)]
    Empty {
        /// Width and height of a frame.
        size: (u32, u32),
    },
    /// The file could not be written.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl VideoError {
    /// Exit code of a command that ends with this error.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Format { .. } => 64,
            Self::Eval(e) => e.exit_code(),
            Self::Size { .. } | Self::Empty { .. } => 65,
            Self::NoEncoder { .. } | Self::Encoder { .. } | Self::Storage(_) => 74,
        }
    }
}

/// Draws a picture: shapes at a height of 400 pixels, pixels as they are.
#[must_use]
pub fn render(picture: Picture) -> Frame {
    match picture.content {
        Content::Pixels { width, height, rgb } => Frame { width, height, rgb },
        Content::Drawing(drawing) => draw(&drawing),
    }
}

fn draw(drawing: &Drawing) -> Frame {
    let (width_units, height_units) = (drawing.x[1] - drawing.x[0], drawing.y[1] - drawing.y[0]);
    // Both even: most video codecs ask for it.
    let even = |x: f64| ((x / 2.0).round() as u32).max(1) * 2;
    let width = even(f64::from(HEIGHT) * width_units / height_units).min(MAX_WIDTH);
    let height = even(f64::from(width) * height_units / width_units).min(HEIGHT);
    let (fine_width, fine_height) = (width * FINER, height * FINER);
    let scale = f64::from(fine_width) / width_units;
    let place = |p: &[f64; 2]| {
        let (x, y) = ((p[0] - drawing.x[0]) * scale, (drawing.y[1] - p[1]) * scale);
        (x.round() as i32, y.round() as i32)
    };
    let length = |x: f64| (x * scale).round().max(1.0) as u32;
    let mut fine = vec![255; fine_width as usize * fine_height as usize * 3];
    {
        let area = BitMapBackend::with_buffer(&mut fine, (fine_width, fine_height)).into_drawing_area();
        for shape in &drawing.shapes {
            let [r, g, b] = shape.colour;
            let colour = RGBColor(r, g, b);
            let places = |points: &[[f64; 2]]| points.iter().map(place).collect::<Vec<_>>();
            // Into memory, and what lies outside is cut: nothing can fail.
            let _ = match &shape.form {
                Form::Polygon(points) => area.draw(&Polygon::new(places(points), colour.filled())),
                Form::Line { points, width } => {
                    area.draw(&PathElement::new(places(points), colour.stroke_width(length(*width))))
                }
                Form::Disc { centre, radius } => {
                    area.draw(&Circle::new(place(centre), length(*radius), colour.filled()))
                }
            };
        }
    }
    Frame { width, height, rgb: shrink(&fine, width as usize, height as usize, FINER as usize) }
}

/// Runs `policy` for whole episodes in the environments of a run and makes a film of them: the same episodes
/// that [`evaluate_run`](pgrad_run::eval::evaluate_run) runs first. The first state of an episode is the
/// first frame; the state after its last step is not shown.
///
/// # Errors
/// When the episodes cannot be run, the task cannot be drawn, or the file cannot be written. An earlier file
/// of that name is then still there.
pub fn film(
    path: &Path,
    policy: Policy,
    config: &RunConfig,
    options: &EvalOptions,
) -> Result<Film, VideoError> {
    let format = Format::of(path)?;
    let config = config.drawn();
    let mut encoder: Option<Encoder> = None;
    let mut failed = None;
    let watched = evaluate_watched(policy, |n| config.make_env(n), options, &mut |env| {
        if failed.is_some() {
            return Ok(());
        }
        let picture = env.picture(0)?;
        let rate = picture.frames_per_second;
        let show = || {
            let frame = render(picture);
            match &mut encoder {
                Some(encoder) => encoder.add(frame),
                None => Encoder::start(format, path, rate, frame).map(|started| encoder = Some(started)),
            }
        };
        failed = show().err();
        Ok(())
    });
    if let Some(e) = failed {
        return Err(e);
    }
    let shown = watched?;
    // An evaluation has at least one episode, and an episode at least one step.
    let Some(encoder) = encoder else { return Err(EvalError::NoEpisodes.into()) };
    let (frames, rate) = (encoder.frames, encoder.rate);
    encoder.finish(path)?;
    Ok(Film { path: path.to_owned(), frames, duration_secs: frames as f64 / rate, shown })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Gif,
    Mp4,
}

impl Format {
    fn of(path: &Path) -> Result<Self, VideoError> {
        match path.extension().and_then(OsStr::to_str).map(str::to_lowercase).as_deref() {
            Some("gif") => Ok(Self::Gif),
            Some("mp4") => Ok(Self::Mp4),
            _ => Err(VideoError::Format { path: path.to_owned() }),
        }
    }
}

/// A film in the making.
struct Encoder {
    /// Frames a second, as written.
    rate: f64,
    /// Every so manieth picture is a frame.
    stride: usize,
    pictures: usize,
    frames: usize,
    last: Frame,
    to: Sink,
}

enum Sink {
    Gif { file: gif::Encoder<Vec<u8>>, delay: u16 },
    Mp4 { child: Child, temporary: PathBuf },
}

impl Encoder {
    fn start(format: Format, path: &Path, rate: f64, first: Frame) -> Result<Self, VideoError> {
        let size = (first.width, first.height);
        if size.0 == 0 || size.1 == 0 {
            return Err(VideoError::Empty { size });
        }
        let (to, stride, rate) = match format {
            Format::Gif => {
                let stride = (rate / MAX_GIF_RATE).ceil().max(1.0);
                // Delays are whole hundredths of a second.
                let delay = (100.0 * stride / rate).round().clamp(2.0, 1_000.0);
                let small =
                    |x: u32| u16::try_from(x).map_err(|_| gif_error(path, &"the picture is too large"));
                let mut file = gif::Encoder::new(Vec::new(), small(size.0)?, small(size.1)?, &[])
                    .map_err(|e| gif_error(path, &e))?;
                file.set_repeat(gif::Repeat::Infinite).map_err(|e| gif_error(path, &e))?;
                (Sink::Gif { file, delay: delay as u16 }, stride as usize, 100.0 / delay)
            }
            Format::Mp4 => {
                let temporary = temporary(path);
                (Sink::Mp4 { child: ffmpeg(path, &temporary, size, rate)?, temporary }, 1, rate)
            }
        };
        let mut encoder = Self { rate, stride, pictures: 1, frames: 0, last: first.clone(), to };
        encoder.write(first, true, path)?;
        Ok(encoder)
    }

    fn add(&mut self, frame: Frame) -> Result<(), VideoError> {
        let expected = (self.last.width, self.last.height);
        if (frame.width, frame.height) != expected {
            let got = (frame.width, frame.height);
            return Err(VideoError::Size { frame: self.pictures, expected, got });
        }
        self.pictures += 1;
        if !(self.pictures - 1).is_multiple_of(self.stride) {
            return Ok(());
        }
        self.write(frame, false, Path::new(""))
    }

    fn write(&mut self, frame: Frame, first: bool, path: &Path) -> Result<(), VideoError> {
        self.frames += 1;
        match &mut self.to {
            Sink::Gif { file, delay } => {
                // Only what changed: the rest of the picture stays.
                let part =
                    if first { [0, 0, frame.width, frame.height] } else { changed(&self.last, &frame) };
                let mut image = cut(&frame, part);
                image.delay = *delay;
                file.write_frame(&image).map_err(|e| gif_error(path, &e))?;
            }
            Sink::Mp4 { child, .. } => {
                // What went wrong is in its last words, which `finish` reads.
                if let Some(input) = &mut child.stdin
                    && input.write_all(&frame.rgb).is_err()
                {
                    child.stdin = None;
                }
            }
        }
        self.last = frame;
        Ok(())
    }

    fn finish(self, path: &Path) -> Result<(), VideoError> {
        match self.to {
            Sink::Gif { file, .. } => {
                let bytes = file.into_inner().map_err(|e| gif_error(path, &e))?;
                Ok(write_atomic(&FsStorage, path, &bytes)?)
            }
            Sink::Mp4 { child, temporary } => {
                // Closes its input and reads what it says.
                let output = child.wait_with_output().map_err(|e| encoder_error(path, &e.to_string()))?;
                if !output.status.success() {
                    // Nothing of ours is left behind; that it cannot be removed changes nothing.
                    let _ = std::fs::remove_file(&temporary);
                    let words = String::from_utf8_lossy(&output.stderr);
                    let last = words.lines().last().unwrap_or("it gave no reason").to_owned();
                    return Err(encoder_error(path, &last));
                }
                std::fs::rename(&temporary, path).map_err(|e| encoder_error(path, &e.to_string()))
            }
        }
    }
}

fn gif_error(path: &Path, reason: &dyn std::fmt::Display) -> VideoError {
    encoder_error(path, &format!("the GIF encoder: {reason}"))
}

fn encoder_error(path: &Path, reason: &str) -> VideoError {
    VideoError::Encoder { path: path.to_owned(), reason: reason.to_owned() }
}

/// A name beside `path`, with its ending.
fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or("film.mp4");
    path.with_file_name(format!(".{}-{name}", std::process::id()))
}

fn ffmpeg(
    path: &Path,
    temporary: &Path,
    (width, height): (u32, u32),
    rate: f64,
) -> Result<Child, VideoError> {
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24"]);
    command.args(["-s", &format!("{width}x{height}"), "-r", &rate.to_string(), "-i", "-"]);
    // Players want even sizes and this order of colours.
    command.args(["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p", "-movflags", "+faststart"]);
    command.arg(temporary).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().map_err(|e| {
        if e.kind() == io::ErrorKind::NotFound {
            return VideoError::NoEncoder { path: path.to_owned() };
        }
        encoder_error(path, &e.to_string())
    })
}

/// The smallest rectangle `[left, top, width, height]` outside which both frames are equal; one pixel when
/// they are equal.
fn changed(before: &Frame, now: &Frame) -> [u32; 4] {
    let stride = now.width as usize * 3;
    let (mut left, mut right, mut top, mut bottom) = (usize::MAX, 0, usize::MAX, 0);
    for (y, (a, b)) in before.rgb.chunks_exact(stride).zip(now.rgb.chunks_exact(stride)).enumerate() {
        let Some(first) = a.iter().zip(b).position(|(a, b)| a != b) else { continue };
        let last = a.iter().zip(b).rposition(|(a, b)| a != b).unwrap_or(first);
        left = left.min(first / 3);
        right = right.max(last / 3);
        top = top.min(y);
        bottom = y;
    }
    if top == usize::MAX {
        return [0, 0, 1, 1];
    }
    [left as u32, top as u32, (right - left + 1) as u32, (bottom - top + 1) as u32]
}

/// A part of a frame, with colours of its own.
fn cut(frame: &Frame, [left, top, width, height]: [u32; 4]) -> gif::Frame<'static> {
    /// 1 is the best choice of colours and the slowest; it matters for pictures of more than 256 colours
    /// only.
    const SPEED: i32 = 10;
    let rows = frame.rgb.chunks_exact(frame.width as usize * 3);
    let rows = rows.skip(top as usize).take(height as usize);
    let part: Vec<u8> =
        rows.flat_map(|row| &row[left as usize * 3..(left + width) as usize * 3]).copied().collect();
    // The caller has seen that the whole picture's sizes fit.
    let mut image = gif::Frame::from_rgb_speed(width as u16, height as u16, &part, SPEED);
    (image.left, image.top) = (left as u16, top as u16);
    image.dispose = gif::DisposalMethod::Keep;
    image
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pixel(frame: &Frame, x: u32, y: u32) -> [u8; 3] {
        let at = ((y * frame.width + x) * 3) as usize;
        [frame.rgb[at], frame.rgb[at + 1], frame.rgb[at + 2]]
    }

    #[test]
    fn shapes_are_where_they_are_said_to_be() {
        let drawing = Drawing::new([0.0, 2.0], [0.0, 1.0])
            .rectangle([255, 0, 0], [0.0, 0.5], [1.0, 1.0])
            .disc([0, 0, 255], [1.5, 0.25], 0.2)
            .line([0, 255, 0], 0.1, [[1.25, 0.75], [1.75, 0.75]]);
        let frame = render(drawing.at(10.0));
        assert_eq!((frame.width, frame.height, frame.rgb.len()), (800, 400, 800 * 400 * 3));
        let at = |x: f64, y: f64| pixel(&frame, (x * 400.0) as u32, ((1.0 - y) * 400.0) as u32);
        assert_eq!(at(0.5, 0.75), [255, 0, 0], "the upper left quarter");
        assert_eq!(at(0.5, 0.25), [255; 3], "below it nothing");
        assert_eq!(at(1.5, 0.25), [0, 0, 255]);
        assert_eq!(at(1.5, 0.48), [255; 3], "outside the circle");
        assert_eq!(at(1.5, 0.75), [0, 255, 0]);
        assert_eq!(at(1.5, 0.83), [255; 3], "above the line");
    }

    #[test]
    fn frames_without_pixels_are_refused() {
        for (width, height) in [(0, 0), (0, 5), (5, 0)] {
            for format in [Format::Gif, Format::Mp4] {
                let frame = Frame { width, height, rgb: Vec::new() };
                let e = Encoder::start(format, Path::new("film"), 10.0, frame).err().unwrap();
                assert!(matches!(e, VideoError::Empty { size } if size == (width, height)), "{e}");
                assert_eq!(e.exit_code(), 65);
            }
        }
    }

    #[test]
    fn a_long_drawing_stays_within_bounds() {
        let frame = render(Drawing::new([0.0, 100.0], [0.0, 1.0]).at(1.0));
        assert_eq!((frame.width, frame.height), (1600, 16));
    }

    #[test]
    fn what_changed_is_framed_tightly() {
        let before = Frame { width: 4, height: 3, rgb: vec![0; 36] };
        assert_eq!(changed(&before, &before), [0, 0, 1, 1]);
        let mut now = before.clone();
        now.rgb[(4 + 1) * 3] = 1;
        now.rgb[(2 * 4 + 2) * 3 + 2] = 1;
        assert_eq!(changed(&before, &now), [1, 1, 2, 2]);
        let image = cut(&now, [1, 1, 2, 2]);
        assert_eq!((image.left, image.top, image.width, image.height), (1, 1, 2, 2));
    }

    /// The frames of a GIF as a viewer shows them, with their delays.
    fn decode(bytes: &[u8]) -> (Vec<Frame>, Vec<u16>) {
        let mut options = gif::DecodeOptions::new();
        options.set_color_output(gif::ColorOutput::RGBA);
        let mut decoder = options.read_info(bytes).unwrap();
        let (width, height) = (u32::from(decoder.width()), u32::from(decoder.height()));
        let mut canvas = vec![0; (width * height * 3) as usize];
        let (mut frames, mut delays) = (Vec::new(), Vec::new());
        while let Some(part) = decoder.read_next_frame().unwrap() {
            for (i, pixel) in part.buffer.chunks_exact(4).enumerate() {
                let (x, y) = (i % usize::from(part.width), i / usize::from(part.width));
                let at = ((usize::from(part.top) + y) * width as usize + usize::from(part.left) + x) * 3;
                canvas[at..at + 3].copy_from_slice(&pixel[..3]);
            }
            frames.push(Frame { width, height, rgb: canvas.clone() });
            delays.push(part.delay);
        }
        (frames, delays)
    }

    #[test]
    fn a_gif_shows_what_was_drawn() {
        let at = |i: u32| {
            let x = f64::from(i.min(3)) * 0.2;
            render(
                Drawing::new([0.0, 1.0], [0.0, 0.5])
                    .rectangle([213, 94, 0], [x, 0.1], [x + 0.2, 0.3])
                    .disc([0, 114, 178], [x, 0.4], 0.05)
                    .at(20.0),
            )
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("film.gif");
        // The last two are the same as the one before them.
        let mut encoder = Encoder::start(Format::Gif, &path, 20.0, at(0)).unwrap();
        (1..6).for_each(|i| encoder.add(at(i)).unwrap());
        assert_eq!((encoder.frames, encoder.rate), (6, 20.0));
        encoder.finish(&path).unwrap();
        let (frames, delays) = decode(&std::fs::read(&path).unwrap());
        assert_eq!(delays, [5; 6]);
        for (i, frame) in frames.iter().enumerate() {
            assert!(*frame == at(i as u32), "frame {i}");
        }
        // A fast task loses every other picture, not its speed.
        let mut encoder = Encoder::start(Format::Gif, &path, 100.0, at(0)).unwrap();
        (1..6).for_each(|i| encoder.add(at(i)).unwrap());
        assert_eq!((encoder.frames, encoder.rate), (3, 50.0));
        let small = Frame { width: 2, height: 2, rgb: vec![0; 12] };
        assert!(matches!(encoder.add(small), Err(VideoError::Size { got: (2, 2), .. })));
    }

    #[test]
    fn names_say_the_format() {
        assert_eq!(Format::of(Path::new("a/b.GIF")).ok(), Some(Format::Gif));
        let e = Format::of(Path::new("a/b.avi")).unwrap_err().to_string();
        assert!(e.contains("`a/b.avi`") && e.contains(".gif"), "{e}");
    }
}
