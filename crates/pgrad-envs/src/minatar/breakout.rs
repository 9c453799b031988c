//! Breakout: a ball breaks three rows of bricks, and must not pass the paddle.
//!
//! | | |
//! |---|---|
//! | channels | 4: paddle, ball, trail (where the ball was a step ago), brick |
//! | moves | no-op, left, right |
//! | reward | 1 for a brick |
//! | first state | full rows 1 to 3; paddle at column 4; ball at row 3 in the left or right corner, on its way down |
//! | end | terminated when the ball reaches row 9 beside the paddle |
//!
//! The ball moves one cell a step along a diagonal. A wall turns it sideways, a brick or the paddle turns it
//! up or down; the paddle's far edge, met from outside, turns it right round. A ball that hits a brick on the
//! step after it broke one flies through. When none is left, the rows are filled as the ball comes to row 9.
//!
//! Ramping has no meaning here.

use super::{Draw, Game, Move, Numbers, Outcome, Plane, ROW, SIDE, cell, save_rows};

/// Rows 1 to 3.
const WALL: Plane = ROW << 10 | ROW << 20 | ROW << 30;
const BOTTOM: i32 = SIDE - 1;

/// One game of Breakout.
#[derive(Clone, Debug, PartialEq)]
pub struct Breakout {
    x: i32,
    y: i32,
    /// Velocity of the ball, each -1 or 1.
    dx: i32,
    dy: i32,
    paddle: i32,
    /// Whether the step before met a brick.
    strike: bool,
    last_x: i32,
    last_y: i32,
    bricks: Plane,
}

impl Breakout {
    /// The direction's number in the package: 0 up left, 1 up right, 2 down right, 3 down left.
    fn direction(&self) -> u8 {
        match (self.dx > 0, self.dy > 0) {
            (false, false) => 0,
            (true, false) => 1,
            (true, true) => 2,
            (false, true) => 3,
        }
    }
}

impl Game for Breakout {
    const NAME: &'static str = "Breakout";
    const CHANNELS: usize = 4;
    const MOVES: &'static [Move] = &[Move::Noop, Move::Left, Move::Right];

    fn new() -> Self {
        Self { x: 0, y: 3, dx: 1, dy: 1, paddle: 4, strike: false, last_x: 0, last_y: 3, bricks: WALL }
    }
    fn start(&mut self, draw: &mut impl Draw) {
        let (x, dx) = [(0, 1), (9, -1)][draw.below(2) as usize];
        *self = Self { x, dx, last_x: x, ..Self::new() };
    }
    #[inline]
    fn play(&mut self, action: Move, _: bool, _: &mut impl Draw) -> Outcome {
        let mut outcome = Outcome { reward: 0.0, terminal: false };
        match action {
            Move::Left => self.paddle = (self.paddle - 1).max(0),
            Move::Right => self.paddle = (self.paddle + 1).min(SIDE - 1),
            _ => {}
        }
        (self.last_x, self.last_y) = (self.x, self.y);
        let (mut x, mut y) = (self.x + self.dx, self.y + self.dy);
        if !(0..SIDE).contains(&x) {
            x = x.clamp(0, SIDE - 1);
            self.dx = -self.dx;
        }
        let struck = self.strike;
        self.strike = false;
        if y < 0 {
            y = 0;
            self.dy = -self.dy;
        } else if self.bricks & cell(x, y) != 0 {
            self.strike = true;
            if !struck {
                outcome.reward = 1.0;
                self.bricks &= !cell(x, y);
                y = self.last_y;
                self.dy = -self.dy;
            }
        } else if y == BOTTOM {
            if self.bricks == 0 {
                self.bricks = WALL;
            }
            if self.x == self.paddle {
                self.dy = -self.dy;
                y = self.last_y;
            } else if x == self.paddle {
                (self.dx, self.dy) = (-self.dx, -self.dy);
                y = self.last_y;
            } else {
                outcome.terminal = true;
            }
        }
        (self.x, self.y) = (x, y);
        outcome
    }
    #[inline]
    fn paint(&self, planes: &mut [Plane]) {
        planes[0] = cell(self.paddle, BOTTOM);
        planes[1] = cell(self.x, self.y);
        planes[2] = cell(self.last_x, self.last_y);
        planes[3] = self.bricks;
    }
    /// `x, y`, direction, paddle, strike, last `x, y`, bricks of rows 1 to 3 as ten bits each.
    fn save(&self, out: &mut Vec<f64>) {
        out.extend([self.x, self.y].map(f64::from));
        out.push(f64::from(self.direction()));
        out.push(f64::from(self.paddle));
        out.push(f64::from(u8::from(self.strike)));
        out.extend([self.last_x, self.last_y].map(f64::from));
        save_rows(self.bricks, 1, 3, out);
    }
    fn load(state: &mut Numbers<'_>) -> Option<Self> {
        // In row 9 the ball is lost.
        let (x, y) = (state.within(0, SIDE - 1)?, state.within(0, BOTTOM - 1)?);
        let (dx, dy) = [(-1, -1), (1, -1), (1, 1), (-1, 1)][state.within(0, 3)? as usize];
        Some(Self {
            x,
            y,
            dx,
            dy,
            paddle: state.within(0, SIDE - 1)?,
            strike: state.bit()?,
            last_x: state.within(0, SIDE - 1)?,
            last_y: state.within(0, BOTTOM - 1)?,
            bricks: state.rows(1, 3)?,
        })
    }
}
