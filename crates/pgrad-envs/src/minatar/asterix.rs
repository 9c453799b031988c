//! Asterix: gather gold that crosses the board, and keep out of the enemies' way.
//!
//! | | |
//! |---|---|
//! | channels | 4: player, enemy, trail (one cell behind whatever moves), gold |
//! | moves | no-op, left, up, right, down; rows 1 to 8 |
//! | reward | 1 for gold |
//! | first state | player at column 5, row 5; nothing else |
//! | end | terminated when the player and an enemy are in one cell |
//!
//! Each of the rows 1 to 8 holds at most one enemy or gold. Every `spawn_speed` steps one comes in at a free
//! row, from either side, gold one time in three; every `move_speed` steps all move one cell. What the player
//! touches is looked at before and after they move.
//!
//! Ramping: every 102 steps `spawn_speed` (10 at first) falls by 1, and every other time `move_speed` (5 at
//! first) too, both down to 1.

use super::{Draw, Game, Move, Numbers, Outcome, Plane, SIDE, cell};

const ROWS: usize = 8;
const SPAWN_SPEED: i32 = 10;
const MOVE_SPEED: i32 = 5;
const RAMP_INTERVAL: i32 = 100;

/// What crosses a row.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Crossing {
    x: i32,
    right: bool,
    gold: bool,
}

/// One game of Asterix.
#[derive(Clone, Debug, PartialEq)]
pub struct Asterix {
    x: i32,
    y: i32,
    spawn_speed: i32,
    spawn_timer: i32,
    move_speed: i32,
    move_timer: i32,
    ramp_timer: i32,
    /// Times that it got harder.
    ramp_index: i32,
    /// What crosses row `i + 1`.
    rows: [Option<Crossing>; ROWS],
}

impl Asterix {
    fn spawn(&mut self, draw: &mut impl Draw) {
        let right = draw.chance(0.5);
        let gold = draw.chance(1.0 / 3.0);
        let free = self.rows.iter().filter(|r| r.is_none()).count();
        if free == 0 {
            return;
        }
        let chosen = draw.below(free as u32) as usize;
        if let Some(row) = self.rows.iter_mut().filter(|r| r.is_none()).nth(chosen) {
            *row = Some(Crossing { x: if right { 0 } else { SIDE - 1 }, right, gold });
        }
    }
    /// What happens when the player is where the crossing of row `i + 1` is.
    #[inline]
    fn touch(&mut self, i: usize, outcome: &mut Outcome) {
        if let Some(c) = self.rows[i]
            && c.x == self.x
            && i as i32 + 1 == self.y
        {
            if c.gold {
                self.rows[i] = None;
                outcome.reward += 1.0;
            } else {
                outcome.terminal = true;
            }
        }
    }
    fn ramp(&mut self) {
        if self.spawn_speed == 1 && self.move_speed == 1 {
            return;
        }
        if self.ramp_timer >= 0 {
            self.ramp_timer -= 1;
            return;
        }
        if self.move_speed > 1 && self.ramp_index % 2 == 1 {
            self.move_speed -= 1;
        }
        if self.spawn_speed > 1 {
            self.spawn_speed -= 1;
        }
        self.ramp_index += 1;
        self.ramp_timer = RAMP_INTERVAL;
    }
}

impl Game for Asterix {
    const NAME: &'static str = "Asterix";
    const CHANNELS: usize = 4;
    const MOVES: &'static [Move] = &[Move::Noop, Move::Left, Move::Up, Move::Right, Move::Down];

    fn new() -> Self {
        Self {
            x: 5,
            y: 5,
            spawn_speed: SPAWN_SPEED,
            spawn_timer: SPAWN_SPEED,
            move_speed: MOVE_SPEED,
            move_timer: MOVE_SPEED,
            ramp_timer: RAMP_INTERVAL,
            ramp_index: 0,
            rows: [None; ROWS],
        }
    }
    fn start(&mut self, _: &mut impl Draw) {
        *self = Self::new();
    }
    #[inline]
    fn play(&mut self, action: Move, ramping: bool, draw: &mut impl Draw) -> Outcome {
        let mut outcome = Outcome { reward: 0.0, terminal: false };
        if self.spawn_timer == 0 {
            self.spawn(draw);
            self.spawn_timer = self.spawn_speed;
        }
        match action {
            Move::Left => self.x = (self.x - 1).max(0),
            Move::Right => self.x = (self.x + 1).min(SIDE - 1),
            Move::Up => self.y = (self.y - 1).max(1),
            Move::Down => self.y = (self.y + 1).min(ROWS as i32),
            Move::Noop | Move::Fire => {}
        }
        for i in 0..ROWS {
            self.touch(i, &mut outcome);
        }
        if self.move_timer == 0 {
            self.move_timer = self.move_speed;
            for i in 0..ROWS {
                if let Some(c) = &mut self.rows[i] {
                    c.x += if c.right { 1 } else { -1 };
                    if !(0..SIDE).contains(&c.x) {
                        self.rows[i] = None;
                    }
                    self.touch(i, &mut outcome);
                }
            }
        }
        self.spawn_timer -= 1;
        self.move_timer -= 1;
        if ramping {
            self.ramp();
        }
        outcome
    }
    #[inline]
    fn paint(&self, planes: &mut [Plane]) {
        let [mut enemy, mut trail, mut gold] = [0; 3];
        for (i, row) in self.rows.iter().enumerate() {
            if let Some(c) = row {
                let y = i as i32 + 1;
                *(if c.gold { &mut gold } else { &mut enemy }) |= cell(c.x, y);
                trail |= cell(if c.right { c.x - 1 } else { c.x + 1 }, y);
            }
        }
        planes.copy_from_slice(&[cell(self.x, self.y), enemy, trail, gold]);
    }
    /// `x, y`, spawn speed and timer, move speed and timer, ramp timer and index, then for each row -1 or
    /// `x + 10 right + 20 gold`.
    fn save(&self, out: &mut Vec<f64>) {
        let Self { x, y, spawn_speed, spawn_timer, move_speed, move_timer, ramp_timer, ramp_index, rows } =
            self;
        let numbers = [x, y, spawn_speed, spawn_timer, move_speed, move_timer, ramp_timer, ramp_index];
        out.extend(numbers.map(|x| f64::from(*x)));
        out.extend(rows.iter().map(|row| {
            row.map_or(-1.0, |c| f64::from(c.x + SIDE * i32::from(c.right) + 2 * SIDE * i32::from(c.gold)))
        }));
    }
    fn load(state: &mut Numbers<'_>) -> Option<Self> {
        let mut game = Self {
            x: state.within(0, SIDE - 1)?,
            y: state.within(1, ROWS as i32)?,
            spawn_speed: state.within(1, SPAWN_SPEED)?,
            spawn_timer: state.within(0, SPAWN_SPEED)?,
            move_speed: state.within(1, MOVE_SPEED)?,
            move_timer: state.within(0, MOVE_SPEED)?,
            ramp_timer: state.within(-1, RAMP_INTERVAL)?,
            // Each time one of two speeds falls.
            ramp_index: state.within(0, SPAWN_SPEED + 2 * MOVE_SPEED)?,
            rows: [None; ROWS],
        };
        for row in &mut game.rows {
            let code = state.within(-1, 4 * SIDE - 1)?;
            if code >= 0 {
                let (right, gold) = (code / SIDE % 2 == 1, code >= 2 * SIDE);
                *row = Some(Crossing { x: code % SIDE, right, gold });
            }
        }
        Some(game)
    }
}
