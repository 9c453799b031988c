//! Freeway: cross eight lanes of cars, again and again.
//!
//! | | |
//! |---|---|
//! | channels | 7: chicken, car, then one for the trail (the cell behind) of cars of each speed, 1 to 5 |
//! | moves | no-op, up, down |
//! | reward | 1 for reaching row 0 |
//! | first state | chicken at row 9; all cars at column 0, with random speeds and directions |
//! | end | terminated after 2501 steps |
//!
//! The chicken stays in column 4 and can move every third step. A car that it meets, before or after the car
//! has moved, sends it back to row 9. At row 0 it goes back too, and every car gets a new speed and
//! direction. A car of speed `s` moves every `s + 1` steps and comes in again at the other side.
//!
//! The 2501 steps are the game's own end: the package, and so this file, calls it a termination and not a
//! time limit, although the observation does not show the time. Ramping has no meaning here.

use super::{Draw, Game, Move, Numbers, Outcome, Plane, SIDE, cell};

const LANES: usize = 8;
const COLUMN: i32 = 4;
const START: i32 = SIDE - 1;
/// Steps that the chicken waits between moves, this one included.
const PLAYER_SPEED: i32 = 3;
const TIME_LIMIT: i32 = 2500;
const SLOWEST: i32 = 5;

#[derive(Clone, Copy, Debug, PartialEq)]
struct Car {
    x: i32,
    /// Steps until it moves.
    timer: i32,
    /// Steps between moves, and the sign of its direction.
    speed: i32,
}

/// One game of Freeway.
#[derive(Clone, Debug, PartialEq)]
pub struct Freeway {
    y: i32,
    move_timer: i32,
    terminate_timer: i32,
    /// The car of row `i + 1`.
    cars: [Car; LANES],
}

impl Freeway {
    fn new_speeds(&mut self, draw: &mut impl Draw) {
        for car in &mut self.cars {
            car.timer = 1 + draw.below(SLOWEST as u32) as i32;
        }
        for car in &mut self.cars {
            car.speed = if draw.chance(0.5) { -car.timer } else { car.timer };
        }
    }
}

impl Game for Freeway {
    const NAME: &'static str = "Freeway";
    const CHANNELS: usize = 7;
    const MOVES: &'static [Move] = &[Move::Noop, Move::Up, Move::Down];
    const ENDS: bool = true;

    fn new() -> Self {
        Self {
            y: START,
            move_timer: PLAYER_SPEED,
            terminate_timer: TIME_LIMIT,
            cars: [Car { x: 0, timer: 1, speed: 1 }; LANES],
        }
    }
    fn start(&mut self, draw: &mut impl Draw) {
        *self = Self::new();
        self.new_speeds(draw);
    }
    #[inline]
    fn play(&mut self, action: Move, _: bool, draw: &mut impl Draw) -> Outcome {
        let mut outcome = Outcome { reward: 0.0, terminal: false };
        if self.move_timer == 0 && matches!(action, Move::Up | Move::Down) {
            self.move_timer = PLAYER_SPEED;
            self.y = if action == Move::Up { self.y - 1 } else { (self.y + 1).min(START) };
        }
        if self.y == 0 {
            outcome.reward = 1.0;
            self.new_speeds(draw);
            self.y = START;
        }
        for (i, car) in self.cars.iter_mut().enumerate() {
            let lane = i as i32 + 1;
            if (car.x, lane) == (COLUMN, self.y) {
                self.y = START;
            }
            if car.timer == 0 {
                car.timer = car.speed.abs();
                car.x = (car.x + car.speed.signum()).rem_euclid(SIDE);
                if (car.x, lane) == (COLUMN, self.y) {
                    self.y = START;
                }
            } else {
                car.timer -= 1;
            }
        }
        self.move_timer = (self.move_timer - 1).max(0);
        self.terminate_timer -= 1;
        outcome.terminal = self.terminate_timer < 0;
        outcome
    }
    #[inline]
    fn paint(&self, planes: &mut [Plane]) {
        planes.fill(0);
        planes[0] = cell(COLUMN, self.y);
        for (i, car) in self.cars.iter().enumerate() {
            let lane = i as i32 + 1;
            planes[1] |= cell(car.x, lane);
            let behind = (car.x - car.speed.signum()).rem_euclid(SIDE);
            planes[1 + car.speed.unsigned_abs() as usize] |= cell(behind, lane);
        }
    }
    /// `y`, move timer, terminate timer, then `x`, timer and signed speed of each car.
    fn save(&self, out: &mut Vec<f64>) {
        out.extend([self.y, self.move_timer, self.terminate_timer].map(f64::from));
        for car in &self.cars {
            out.extend([car.x, car.timer, car.speed].map(f64::from));
        }
    }
    fn load(state: &mut Numbers<'_>) -> Option<Self> {
        let mut game = Self {
            y: state.within(1, START)?,
            move_timer: state.within(0, PLAYER_SPEED)?,
            terminate_timer: state.within(0, TIME_LIMIT)?,
            ..Self::new()
        };
        for car in &mut game.cars {
            let (x, timer) = (state.within(0, SIDE - 1)?, state.within(0, SLOWEST)?);
            let speed = state.within(-SLOWEST, SLOWEST)?;
            if speed == 0 {
                return None;
            }
            *car = Car { x, timer, speed };
        }
        Some(game)
    }
}
