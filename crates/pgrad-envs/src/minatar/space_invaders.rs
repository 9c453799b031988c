//! SpaceInvaders: shoot the aliens before they shoot you or land.
//!
//! | | |
//! |---|---|
//! | channels | 6: cannon, alien, alien while all move left, the same to the right, own bullet, alien's bullet |
//! | moves | no-op, left, right, fire |
//! | reward | 1 for an alien |
//! | first state | cannon at column 5; 4 rows of 6 aliens in columns 2 to 7, moving left |
//! | end | terminated when a bullet or an alien is at the cannon, or when aliens in row 9 turn |
//!
//! Bullets move one row a step; the cannon shoots every fifth step at most. The aliens move every
//! `min(aliens, move_interval)` steps, so that the last one moves every step; at the edge they go down a row
//! and turn. Every tenth step the alien nearest in columns (the lower column of two, its lowest alien)
//! shoots. A step: cannon, own bullets, aliens' bullets, aliens, aliens' shot, hits. When none is left a new
//! wave comes.
//!
//! Ramping: with each wave `move_interval` (12 at first) falls by 1, down to 6.

use super::{BOARD, COLUMN, Draw, Game, Move, Numbers, Outcome, Plane, ROW, SIDE, cell, save_rows};

const SHOT_COOL_DOWN: i32 = 5;
const MOVE_INTERVAL: i32 = 12;
const SHORTEST_INTERVAL: i32 = 6;
const SHOT_INTERVAL: i32 = 10;
const BOTTOM: i32 = SIDE - 1;
const BOTTOM_ROW: Plane = ROW << (SIDE * BOTTOM);
/// Rows 0 to 3, columns 2 to 7.
const WAVE: Plane = {
    let row = 0b00_1111_1100;
    row | row << 10 | row << 20 | row << 30
};

/// One game of SpaceInvaders.
#[derive(Clone, Debug, PartialEq)]
pub struct SpaceInvaders {
    x: i32,
    /// -1 or 1.
    alien_dir: i32,
    move_interval: i32,
    alien_move_timer: i32,
    alien_shot_timer: i32,
    /// Times that it got harder.
    ramp_index: i32,
    shot_timer: i32,
    own_bullets: Plane,
    alien_bullets: Plane,
    aliens: Plane,
}

impl SpaceInvaders {
    fn alien_count(&self) -> i32 {
        self.aliens.count_ones() as i32
    }
    /// The lowest alien of the column nearest to the cannon.
    fn shooter(&self) -> Plane {
        for distance in 0..SIDE {
            for x in [self.x - distance, self.x + distance] {
                if (0..SIDE).contains(&x) {
                    let column = self.aliens & COLUMN << x;
                    if column != 0 {
                        return 1 << column.ilog2();
                    }
                }
            }
        }
        0
    }
}

impl Game for SpaceInvaders {
    const NAME: &'static str = "SpaceInvaders";
    const CHANNELS: usize = 6;
    const MOVES: &'static [Move] = &[Move::Noop, Move::Left, Move::Right, Move::Fire];

    fn new() -> Self {
        Self {
            x: 5,
            alien_dir: -1,
            move_interval: MOVE_INTERVAL,
            alien_move_timer: MOVE_INTERVAL,
            alien_shot_timer: SHOT_INTERVAL,
            ramp_index: 0,
            shot_timer: 0,
            own_bullets: 0,
            alien_bullets: 0,
            aliens: WAVE,
        }
    }
    fn start(&mut self, _: &mut impl Draw) {
        *self = Self::new();
    }
    #[inline]
    fn play(&mut self, action: Move, ramping: bool, _: &mut impl Draw) -> Outcome {
        match action {
            Move::Fire if self.shot_timer == 0 => {
                self.own_bullets |= cell(self.x, BOTTOM);
                self.shot_timer = SHOT_COOL_DOWN;
            }
            Move::Left => self.x = (self.x - 1).max(0),
            Move::Right => self.x = (self.x + 1).min(SIDE - 1),
            _ => {}
        }
        let cannon = cell(self.x, BOTTOM);
        self.own_bullets >>= SIDE;
        self.alien_bullets = self.alien_bullets << SIDE & BOARD;
        let mut terminal = (self.alien_bullets | self.aliens) & cannon != 0;
        if self.alien_move_timer == 0 {
            self.alien_move_timer = self.alien_count().min(self.move_interval);
            let edge = if self.alien_dir < 0 { COLUMN } else { COLUMN << (SIDE - 1) };
            if self.aliens & edge != 0 {
                self.alien_dir = -self.alien_dir;
                terminal |= self.aliens & BOTTOM_ROW != 0;
                // Row 9 comes back as row 0: the game is over, but the last observation shows it.
                self.aliens = self.aliens << SIDE & BOARD | self.aliens >> (SIDE * BOTTOM);
            } else if self.alien_dir < 0 {
                self.aliens >>= 1;
            } else {
                self.aliens <<= 1;
            }
            terminal |= self.aliens & cannon != 0;
        }
        if self.alien_shot_timer == 0 {
            self.alien_shot_timer = SHOT_INTERVAL;
            self.alien_bullets |= self.shooter();
        }
        let hits = self.aliens & self.own_bullets;
        self.aliens &= !hits;
        self.own_bullets &= !hits;
        self.shot_timer = (self.shot_timer - 1).max(0);
        self.alien_move_timer -= 1;
        self.alien_shot_timer -= 1;
        if self.aliens == 0 {
            if self.move_interval > SHORTEST_INTERVAL && ramping {
                self.move_interval -= 1;
                self.ramp_index += 1;
            }
            self.aliens = WAVE;
        }
        Outcome { reward: f64::from(hits.count_ones()), terminal }
    }
    #[inline]
    fn paint(&self, planes: &mut [Plane]) {
        let (left, right) = if self.alien_dir < 0 { (self.aliens, 0) } else { (0, self.aliens) };
        let cannon = cell(self.x, BOTTOM);
        planes.copy_from_slice(&[cannon, self.aliens, left, right, self.own_bullets, self.alien_bullets]);
    }
    /// `x`, direction, move interval, aliens' move and shot timers, ramp index, own shot timer, then own
    /// bullets, aliens' bullets and aliens, each as ten rows of ten bits.
    fn save(&self, out: &mut Vec<f64>) {
        let timers = [self.alien_move_timer, self.alien_shot_timer, self.ramp_index, self.shot_timer];
        out.extend([self.x, self.alien_dir, self.move_interval].map(f64::from));
        out.extend(timers.map(f64::from));
        for plane in [self.own_bullets, self.alien_bullets, self.aliens] {
            save_rows(plane, 0, SIDE, out);
        }
    }
    fn load(state: &mut Numbers<'_>) -> Option<Self> {
        let game = Self {
            x: state.within(0, SIDE - 1)?,
            alien_dir: state.within(-1, 1)?,
            move_interval: state.within(SHORTEST_INTERVAL, MOVE_INTERVAL)?,
            alien_move_timer: state.within(0, MOVE_INTERVAL)?,
            alien_shot_timer: state.within(0, SHOT_INTERVAL)?,
            ramp_index: state.within(0, MOVE_INTERVAL - SHORTEST_INTERVAL)?,
            shot_timer: state.within(0, SHOT_COOL_DOWN)?,
            own_bullets: state.rows(0, SIDE)?,
            alien_bullets: state.rows(0, SIDE)?,
            aliens: state.rows(0, SIDE)?,
        };
        (game.alien_dir != 0 && game.aliens != 0).then_some(game)
    }
}
