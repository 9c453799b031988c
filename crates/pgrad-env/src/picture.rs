//! What an environment looks like to a person.

use thiserror::Error;

/// One picture of an environment in its present state.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// Steps a second at which a film runs as fast as the task.
    pub frames_per_second: f64,
    /// What is seen.
    pub content: Content,
}

/// What a picture is made of.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Shapes, to be drawn at any size.
    Drawing(Drawing),
    /// Pixels that the environment's own renderer made.
    Pixels {
        /// Pixels of a row.
        width: u32,
        /// Rows.
        height: u32,
        /// Red, green and blue of each pixel, from the upper left corner row by row.
        rgb: Vec<u8>,
    },
}

/// Shapes on a white ground, later ones over earlier ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawing {
    /// The left and the right edge.
    pub x: [f64; 2],
    /// The lower and the upper edge; a unit is as long as one of `x`.
    pub y: [f64; 2],
    /// The shapes.
    pub shapes: Vec<Shape>,
}

/// Red, green and blue.
pub type Colour = [u8; 3];

/// A shape of one colour.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Its colour.
    pub colour: Colour,
    /// What it is.
    pub form: Form,
}

/// What a shape is, in the drawing's units.
#[derive(Clone, Debug, PartialEq)]
pub enum Form {
    /// A line from point to point.
    Line {
        /// At least two points.
        points: Vec<[f64; 2]>,
        /// Its width.
        width: f64,
    },
    /// A filled polygon.
    Polygon(Vec<[f64; 2]>),
    /// A filled circle.
    Disc {
        /// Its centre.
        centre: [f64; 2],
        /// Its radius.
        radius: f64,
    },
}

impl Drawing {
    /// An empty drawing between these edges.
    #[must_use]
    pub fn new(x: [f64; 2], y: [f64; 2]) -> Self {
        Self { x, y, shapes: Vec::new() }
    }
    fn with(mut self, colour: Colour, form: Form) -> Self {
        self.shapes.push(Shape { colour, form });
        self
    }
    /// Adds a line from point to point.
    #[must_use]
    pub fn line(self, colour: Colour, width: f64, points: impl Into<Vec<[f64; 2]>>) -> Self {
        self.with(colour, Form::Line { points: points.into(), width })
    }
    /// Adds a filled polygon.
    #[must_use]
    pub fn polygon(self, colour: Colour, points: impl Into<Vec<[f64; 2]>>) -> Self {
        self.with(colour, Form::Polygon(points.into()))
    }
    /// Adds a filled rectangle, from its lower left to its upper right corner.
    #[must_use]
    pub fn rectangle(self, colour: Colour, [x0, y0]: [f64; 2], [x1, y1]: [f64; 2]) -> Self {
        self.polygon(colour, [[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    }
    /// Adds a bar of this width from one point to another, with square ends that reach half the width beyond
    /// them.
    #[must_use]
    pub fn bar(self, colour: Colour, width: f64, from: [f64; 2], to: [f64; 2]) -> Self {
        let (dx, dy) = (to[0] - from[0], to[1] - from[1]);
        let length = dx.hypot(dy);
        // A bar without length is a square.
        let (ux, uy) = if length > 0.0 { (dx / length, dy / length) } else { (1.0, 0.0) };
        let h = width / 2.0;
        let corner = |p: [f64; 2], along: f64, across: f64| {
            [p[0] + h * (along * ux - across * uy), p[1] + h * (along * uy + across * ux)]
        };
        self.polygon(
            colour,
            [corner(from, -1.0, -1.0), corner(to, 1.0, -1.0), corner(to, 1.0, 1.0), corner(from, -1.0, 1.0)],
        )
    }
    /// Adds a filled circle.
    #[must_use]
    pub fn disc(self, colour: Colour, centre: [f64; 2], radius: f64) -> Self {
        self.with(colour, Form::Disc { centre, radius })
    }
    /// The drawing as a picture of a task with so many steps a second.
    #[must_use]
    pub fn at(self, frames_per_second: f64) -> Picture {
        Picture { frames_per_second, content: Content::Drawing(self) }
    }
}

/// Why there is no picture.
#[derive(Clone, Debug, PartialEq, Error)]
#[error("`{id}` cannot be drawn: {reason}")]
pub struct PictureError {
    /// Name of the environment.
    pub id: String,
    /// What is missing.
    pub reason: String,
}

impl PictureError {
    /// The environment has no pictures.
    #[must_use]
    pub fn none(id: &str) -> Self {
        Self { id: id.to_owned(), reason: "it has no picture".to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_a_rectangle_along_its_points() {
        let drawing = Drawing::new([0.0, 1.0], [0.0, 1.0]).bar([1, 2, 3], 2.0, [0.0, 0.0], [0.0, 5.0]);
        let Form::Polygon(corners) = &drawing.shapes[0].form else { panic!("{drawing:?}") };
        assert_eq!(corners, &[[1.0, -1.0], [1.0, 6.0], [-1.0, 6.0], [-1.0, -1.0]]);
        let dot = Drawing::new([0.0, 1.0], [0.0, 1.0]).bar([1, 2, 3], 2.0, [3.0, 3.0], [3.0, 3.0]);
        let Form::Polygon(corners) = &dot.shapes[0].form else { panic!("{dot:?}") };
        assert_eq!(corners, &[[2.0, 2.0], [4.0, 2.0], [4.0, 4.0], [2.0, 4.0]]);
    }
}
