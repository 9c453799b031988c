//! What several tasks look like.

use pgrad_env::{Colour, Drawing};

pub(crate) const INK: Colour = [40, 40, 40];
pub(crate) const GREY: Colour = [170, 170, 170];
pub(crate) const BLUE: Colour = [0, 114, 178];
pub(crate) const ORANGE: Colour = [213, 94, 0];
pub(crate) const YELLOW: Colour = [230, 159, 0];
pub(crate) const GREEN: Colour = [0, 158, 115];
pub(crate) const PALE_BLUE: Colour = [170, 210, 235];
pub(crate) const PURPLE: Colour = [204, 121, 167];

/// A cart at `x` on a track as far as `limit`, its pole leaning by `theta` from upright, `length` long.
pub(crate) fn cart_and_pole(x: f64, theta: f64, length: f64, limit: f64) -> Drawing {
    let (hinge, tip) = ([x, 0.0], [x + length * theta.sin(), length * theta.cos()]);
    Drawing::new([-limit, limit], [-0.6, 2.2])
        .line(GREY, 0.02, [[-limit, -0.3], [limit, -0.3]])
        .rectangle(INK, [x - 0.3, -0.3], [x + 0.3, 0.0])
        .bar(YELLOW, 0.1, hinge, tip)
        .disc(BLUE, hinge, 0.05)
}

/// A car at `position` in the valley `sin 3x` between two ends, with a flag at `goal`.
pub(crate) fn valley(position: f64, ends: [f64; 2], goal: f64) -> Drawing {
    let height = |x: f64| 0.45 * (3.0 * x).sin() + 0.55;
    let at = |i: u32| ends[0] + (ends[1] - ends[0]) * f64::from(i) / 100.0;
    let ground: Vec<[f64; 2]> = (0..=100).map(at).map(|x| [x, height(x)]).collect();
    let slope = (0.45 * 3.0 * (3.0 * position).cos()).atan();
    // `along` and `above` the ground where the car stands.
    let beside = |along: f64, above: f64| {
        let (sin, cos) = slope.sin_cos();
        [position + along * cos - above * sin, height(position) + along * sin + above * cos]
    };
    Drawing::new(ends, [0.0, 1.25])
        .line(GREY, 0.01, ground)
        .line(INK, 0.008, [[goal, height(goal)], [goal, height(goal) + 0.2]])
        .polygon(
            GREEN,
            [[goal, height(goal) + 0.2], [goal + 0.07, height(goal) + 0.17], [goal, height(goal) + 0.14]],
        )
        .polygon(INK, [beside(-0.06, 0.02), beside(0.06, 0.02), beside(0.06, 0.07), beside(-0.06, 0.07)])
        .disc(GREY, beside(-0.035, 0.02), 0.02)
        .disc(GREY, beside(0.035, 0.02), 0.02)
}

/// A pendulum of length 1 at `theta` from upright, counted anticlockwise.
pub(crate) fn pendulum(theta: f64) -> Drawing {
    let tip = [-theta.sin(), theta.cos()];
    Drawing::new([-1.4, 1.4], [-1.4, 1.4]).bar(ORANGE, 0.2, [0.0, 0.0], tip).disc(INK, [0.0, 0.0], 0.06)
}
