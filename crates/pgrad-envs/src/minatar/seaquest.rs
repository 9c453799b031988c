//! Seaquest: rescue divers, shoot what attacks, and come up for air.
//!
//! | | |
//! |---|---|
//! | channels | 10: submarine's front, its back, own bullet, trail (one cell behind fish, enemies, divers), enemy's bullet, fish, enemy submarine, oxygen gauge, gauge of divers on board, diver |
//! | moves | all six; rows 0 (the surface) to 8 |
//! | reward | 1 for a fish or an enemy submarine shot; `oxygen / 20`, rounded down, for coming up with 6 divers |
//! | first state | submarine at the surface, column 5, facing left; 200 oxygen; nothing else |
//! | end | terminated on meeting a fish, an enemy or its bullet; without oxygen; on coming up without divers |
//!
//! Oxygen falls by 1 a step below the surface. Coming up costs one diver and fills it again. Every
//! `spawn_speed` steps a fish, or one time in three a submarine, comes in at a random row of 1 to 8 from
//! either side, unless that row holds one that goes the other way; every 30th step a diver does. They move
//! every `move_speed + 1` (divers 6) steps, bullets every step; an enemy submarine shoots every 11th.
//!
//! Ramping: each time that the player comes up `spawn_speed` (20 at first) falls by 1, down to 1, and every
//! other time `move_speed` (5 at first) too, down to 2.
//!
//! # What the package does that one might not expect
//! All of it is kept, so that scores can be compared.
//! - Coming up with 6 divers leaves -1 on board, not 0. With fewer than 0 one can come up again and again.
//! - At the surface time costs nothing: a submarine that stays where it starts is never met, and the game
//!   never ends.
//! - A bullet or diver that goes takes the first *equal* entry off the list, which may be an earlier one that
//!   has not moved yet; the later one then gets its turn. That shows in the order of the list only.
//!
//! Source: see the [module](super).

use super::{Draw, Game, Move, Numbers, Outcome, Plane, SIDE, cell};

const MAX_OXYGEN: i32 = 200;
const MAX_DIVERS: i32 = 6;
const SPAWN_SPEED: i32 = 20;
const DIVER_SPAWN_SPEED: i32 = 30;
const MOVE_SPEED: i32 = 5;
const FASTEST: i32 = 2;
const DIVER_SPEED: i32 = 5;
const SHOT_COOL_DOWN: i32 = 5;
const ENEMY_SHOT_INTERVAL: i32 = 10;
const BOTTOM: i32 = SIDE - 1;
/// Entries of each list that room is made for. At most one comes in a step and none stays longer than 60, the
/// slowest crossing.
const ROOM: usize = 64;
/// Entries that a loaded list may have, so that with those to come there is room.
const LOADED: i32 = 32;

/// A bullet.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bullet {
    x: i32,
    y: i32,
    right: bool,
}

/// A fish, a diver or an enemy submarine.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Swimmer {
    x: i32,
    y: i32,
    right: bool,
    /// Steps until it moves.
    timer: i32,
    /// Steps until an enemy submarine shoots; 0 for others.
    shot_timer: i32,
}

impl Bullet {
    fn forward(&mut self) {
        self.x += if self.right { 1 } else { -1 };
    }
}

impl Swimmer {
    fn forward(&mut self) {
        self.x += if self.right { 1 } else { -1 };
    }
    fn trail(&self) -> Plane {
        cell(if self.right { self.x - 1 } else { self.x + 1 }, self.y)
    }
}

fn is_outside(x: i32) -> bool {
    !(0..SIDE).contains(&x)
}

/// Removes the first entry that equals entry `i`.
fn remove<T: PartialEq>(list: &mut Vec<T>, i: usize) {
    if let Some(first) = list.iter().position(|x| *x == list[i]) {
        list.remove(first);
    }
}

/// The player's submarine.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Boat {
    x: i32,
    y: i32,
    right: bool,
    oxygen: i32,
    /// See the top of this page for negative ones.
    divers: i32,
    shot_timer: i32,
    /// Whether it is at the surface and that has been counted.
    surfaced: bool,
}

impl Boat {
    const START: Self =
        Self { x: 5, y: 0, right: false, oxygen: MAX_OXYGEN, divers: 0, shot_timer: 0, surfaced: true };
    fn is_at(&self, x: i32, y: i32) -> bool {
        (x, y) == (self.x, self.y)
    }
    fn takes_diver(&self, diver: &Swimmer) -> bool {
        self.is_at(diver.x, diver.y) && self.divers < MAX_DIVERS
    }
}

/// When what comes next comes, and how fast.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Pace {
    spawn_speed: i32,
    spawn_timer: i32,
    diver_timer: i32,
    move_speed: i32,
    /// Times that it got harder.
    ramp_index: i32,
}

impl Pace {
    const START: Self = Self {
        spawn_speed: SPAWN_SPEED,
        spawn_timer: SPAWN_SPEED,
        diver_timer: DIVER_SPAWN_SPEED,
        move_speed: MOVE_SPEED,
        ramp_index: 0,
    };
    fn ramp(&mut self) {
        if self.spawn_speed == 1 && self.move_speed == FASTEST {
            return;
        }
        if self.move_speed > FASTEST && self.ramp_index % 2 == 1 {
            self.move_speed -= 1;
        }
        self.spawn_speed = (self.spawn_speed - 1).max(1);
        self.ramp_index += 1;
    }
}

/// One game of Seaquest.
#[derive(Clone, Debug, PartialEq)]
pub struct Seaquest {
    boat: Boat,
    pace: Pace,
    own_bullets: Vec<Bullet>,
    enemy_bullets: Vec<Bullet>,
    fish: Vec<Swimmer>,
    enemies: Vec<Swimmer>,
    divers: Vec<Swimmer>,
}

impl Seaquest {
    fn spawn_enemy(&mut self, draw: &mut impl Draw) {
        let right = draw.chance(0.5);
        let shoots = draw.chance(1.0 / 3.0);
        let y = 1 + draw.below(8) as i32;
        if self.enemies.iter().chain(&self.fish).any(|s| s.y == y && s.right != right) {
            return;
        }
        let x = if right { 0 } else { SIDE - 1 };
        let (list, shot_timer) =
            if shoots { (&mut self.enemies, ENEMY_SHOT_INTERVAL) } else { (&mut self.fish, 0) };
        list.push(Swimmer { x, y, right, timer: self.pace.move_speed, shot_timer });
    }
    fn spawn_diver(&mut self, draw: &mut impl Draw) {
        let right = draw.chance(0.5);
        let y = 1 + draw.below(8) as i32;
        let x = if right { 0 } else { SIDE - 1 };
        self.divers.push(Swimmer { x, y, right, timer: DIVER_SPEED, shot_timer: 0 });
    }
    fn steer(&mut self, action: Move) {
        let boat = &mut self.boat;
        match action {
            Move::Fire if boat.shot_timer == 0 => {
                self.own_bullets.push(Bullet { x: boat.x, y: boat.y, right: boat.right });
                boat.shot_timer = SHOT_COOL_DOWN;
            }
            Move::Left => (boat.x, boat.right) = ((boat.x - 1).max(0), false),
            Move::Right => (boat.x, boat.right) = ((boat.x + 1).min(SIDE - 1), true),
            Move::Up => boat.y = (boat.y - 1).max(0),
            Move::Down => boat.y = (boat.y + 1).min(BOTTOM - 1),
            Move::Noop | Move::Fire => {}
        }
    }
    fn move_own_bullets(&mut self, outcome: &mut Outcome) {
        for i in (0..self.own_bullets.len()).rev() {
            let bullet = &mut self.own_bullets[i];
            bullet.forward();
            let bullet = *bullet;
            let hit = |list: &[Swimmer]| list.iter().position(|s| (s.x, s.y) == (bullet.x, bullet.y));
            if !is_outside(bullet.x) {
                if let Some(fish) = hit(&self.fish) {
                    self.fish.remove(fish);
                } else if let Some(enemy) = hit(&self.enemies) {
                    self.enemies.remove(enemy);
                } else {
                    continue;
                }
                outcome.reward += 1.0;
            }
            remove(&mut self.own_bullets, i);
        }
    }
    fn move_divers(&mut self) {
        for i in (0..self.divers.len()).rev() {
            let diver = &mut self.divers[i];
            let mut rescued = self.boat.takes_diver(diver);
            if !rescued && diver.timer > 0 {
                diver.timer -= 1;
                continue;
            }
            if !rescued {
                diver.timer = DIVER_SPEED;
                diver.forward();
                rescued = self.boat.takes_diver(diver);
            }
            if rescued {
                self.boat.divers += 1;
            } else if !is_outside(diver.x) {
                continue;
            }
            remove(&mut self.divers, i);
        }
    }
    /// Moves entry `i` of the fish or the enemies, when it is its turn. Whether it is still there, and what
    /// it is.
    fn swim(&mut self, i: usize, is_fish: bool, outcome: &mut Outcome) -> (bool, Swimmer) {
        let list = if is_fish { &mut self.fish } else { &mut self.enemies };
        let swimmer = &mut list[i];
        outcome.terminal |= self.boat.is_at(swimmer.x, swimmer.y);
        if swimmer.timer > 0 {
            swimmer.timer -= 1;
            return (true, *swimmer);
        }
        swimmer.timer = self.pace.move_speed;
        swimmer.forward();
        let swimmer = *swimmer;
        if !is_outside(swimmer.x) {
            if self.boat.is_at(swimmer.x, swimmer.y) {
                outcome.terminal = true;
                return (true, swimmer);
            }
            let hit = self.own_bullets.iter().position(|b| (b.x, b.y) == (swimmer.x, swimmer.y));
            let Some(bullet) = hit else { return (true, swimmer) };
            self.own_bullets.remove(bullet);
            outcome.reward += 1.0;
        }
        // No earlier entry equals it: none is outside, and a bullet in one's cell would have hit that one
        // before.
        list.remove(i);
        (false, swimmer)
    }
    fn move_enemies(&mut self, outcome: &mut Outcome) {
        for i in (0..self.enemies.len()).rev() {
            let (is_there, mut enemy) = self.swim(i, false, outcome);
            // One that has just gone shoots all the same.
            if enemy.shot_timer == 0 {
                enemy.shot_timer = ENEMY_SHOT_INTERVAL;
                self.enemy_bullets.push(Bullet { x: enemy.x, y: enemy.y, right: enemy.right });
            } else {
                enemy.shot_timer -= 1;
            }
            if is_there {
                self.enemies[i] = enemy;
            }
        }
    }
    fn move_enemy_bullets(&mut self, outcome: &mut Outcome) {
        for i in (0..self.enemy_bullets.len()).rev() {
            let Bullet { x, y, .. } = self.enemy_bullets[i];
            outcome.terminal |= self.boat.is_at(x, y);
            self.enemy_bullets[i].forward();
            let x = self.enemy_bullets[i].x;
            if is_outside(x) {
                remove(&mut self.enemy_bullets, i);
            } else {
                outcome.terminal |= self.boat.is_at(x, y);
            }
        }
    }
    fn come_up(&mut self, ramping: bool, outcome: &mut Outcome) {
        let boat = &mut self.boat;
        boat.surfaced = true;
        if boat.divers == MAX_DIVERS {
            boat.divers = 0;
            outcome.reward += f64::from(boat.oxygen * SIDE / MAX_OXYGEN);
        }
        boat.oxygen = MAX_OXYGEN;
        boat.divers -= 1;
        if ramping {
            self.pace.ramp();
        }
    }
}

impl Game for Seaquest {
    const NAME: &'static str = "Seaquest";
    const CHANNELS: usize = 10;
    const MOVES: &'static [Move] = &Move::ALL;

    fn new() -> Self {
        Self {
            boat: Boat::START,
            pace: Pace::START,
            own_bullets: Vec::with_capacity(ROOM),
            enemy_bullets: Vec::with_capacity(ROOM),
            fish: Vec::with_capacity(ROOM),
            enemies: Vec::with_capacity(ROOM),
            divers: Vec::with_capacity(ROOM),
        }
    }
    fn start(&mut self, _: &mut impl Draw) {
        (self.boat, self.pace) = (Boat::START, Pace::START);
        self.own_bullets.clear();
        self.enemy_bullets.clear();
        self.fish.clear();
        self.enemies.clear();
        self.divers.clear();
    }
    #[inline]
    fn play(&mut self, action: Move, ramping: bool, draw: &mut impl Draw) -> Outcome {
        let mut outcome = Outcome { reward: 0.0, terminal: false };
        if self.pace.spawn_timer == 0 {
            self.spawn_enemy(draw);
            self.pace.spawn_timer = self.pace.spawn_speed;
        }
        if self.pace.diver_timer == 0 {
            self.spawn_diver(draw);
            self.pace.diver_timer = DIVER_SPAWN_SPEED;
        }
        self.steer(action);
        self.move_own_bullets(&mut outcome);
        self.move_divers();
        self.move_enemies(&mut outcome);
        self.move_enemy_bullets(&mut outcome);
        for i in (0..self.fish.len()).rev() {
            self.swim(i, true, &mut outcome);
        }
        // Each was set above when it was 0.
        self.pace.spawn_timer -= 1;
        self.pace.diver_timer -= 1;
        let boat = &mut self.boat;
        boat.shot_timer = (boat.shot_timer - 1).max(0);
        outcome.terminal |= boat.oxygen <= 0;
        if boat.y > 0 {
            boat.oxygen -= 1;
            boat.surfaced = false;
        } else if !boat.surfaced {
            if boat.divers == 0 {
                outcome.terminal = true;
            } else {
                self.come_up(ramping, &mut outcome);
            }
        }
        outcome
    }
    #[inline]
    fn paint(&self, planes: &mut [Plane]) {
        planes.fill(0);
        let boat = &self.boat;
        planes[0] = cell(boat.x, boat.y);
        planes[1] = cell(if boat.right { boat.x - 1 } else { boat.x + 1 }, boat.y);
        let bottom = |from: i32, to: i32| (from..to).fold(0, |plane, x| plane | cell(x, BOTTOM));
        planes[7] = bottom(0, boat.oxygen.max(0) * SIDE / MAX_OXYGEN);
        planes[8] = bottom(BOTTOM - boat.divers, BOTTOM);
        for (c, bullets) in [(2, &self.own_bullets), (4, &self.enemy_bullets)] {
            planes[c] = bullets.iter().fold(0, |plane, b| plane | cell(b.x, b.y));
        }
        for (c, swimmers) in [(5, &self.fish), (6, &self.enemies), (9, &self.divers)] {
            for s in swimmers {
                planes[c] |= cell(s.x, s.y);
                planes[3] |= s.trail();
            }
        }
    }
    /// `x, y`, facing right, oxygen, divers on board, shot timer, surfaced; spawn speed and timer, divers'
    /// timer, move speed, ramp index; the lengths of the lists of own bullets, enemies' bullets, fish,
    /// enemies and divers; and these lists: `x, y, right`, then timers.
    fn save(&self, out: &mut Vec<f64>) {
        let Boat { x, y, right, oxygen, divers, shot_timer, surfaced } = self.boat;
        let Pace { spawn_speed, spawn_timer, diver_timer, move_speed, ramp_index } = self.pace;
        out.extend([x, y, i32::from(right), oxygen, divers, shot_timer, i32::from(surfaced)].map(f64::from));
        out.extend([spawn_speed, spawn_timer, diver_timer, move_speed, ramp_index].map(f64::from));
        let bullets = [&self.own_bullets, &self.enemy_bullets];
        out.extend(bullets.map(|list| list.len() as f64));
        let swimmers = [(&self.fish, 1), (&self.enemies, 2), (&self.divers, 1)];
        out.extend(swimmers.map(|(list, _)| list.len() as f64));
        for b in bullets.into_iter().flatten() {
            out.extend([b.x, b.y, i32::from(b.right)].map(f64::from));
        }
        for (list, timers) in swimmers {
            for s in list {
                out.extend([s.x, s.y, i32::from(s.right)].map(f64::from));
                out.extend([s.timer, s.shot_timer].map(f64::from).iter().take(timers));
            }
        }
    }
    fn load(state: &mut Numbers<'_>) -> Option<Self> {
        let boat = Boat {
            x: state.within(0, SIDE - 1)?,
            y: state.within(0, BOTTOM - 1)?,
            right: state.bit()?,
            oxygen: state.within(0, MAX_OXYGEN)?,
            divers: state.within(i32::MIN / 2, MAX_DIVERS)?,
            shot_timer: state.within(0, SHOT_COOL_DOWN)?,
            surfaced: state.bit()?,
        };
        let pace = Pace {
            spawn_speed: state.within(1, SPAWN_SPEED)?,
            spawn_timer: state.within(0, SPAWN_SPEED)?,
            diver_timer: state.within(0, DIVER_SPAWN_SPEED)?,
            move_speed: state.within(FASTEST, MOVE_SPEED)?,
            ramp_index: state.within(0, SPAWN_SPEED)?,
        };
        // Whoever faces right came from the left, and coming up is counted at once.
        if boat.x == (if boat.right { 0 } else { SIDE - 1 }) || boat.surfaced != (boat.y == 0) {
            return None;
        }
        let mut game = Self { boat, pace, ..Self::new() };
        let mut lengths = [0; 5];
        for length in &mut lengths {
            *length = state.within(0, LOADED)?;
        }
        let [own_bullets, enemy_bullets, fish, enemies, divers] = lengths;
        for (list, n) in [(&mut game.own_bullets, own_bullets), (&mut game.enemy_bullets, enemy_bullets)] {
            for _ in 0..n {
                let (x, y) = (state.within(0, SIDE - 1)?, state.within(0, BOTTOM - 1)?);
                list.push(Bullet { x, y, right: state.bit()? });
            }
        }
        let lists =
            [(&mut game.fish, fish, 0), (&mut game.enemies, enemies, 1), (&mut game.divers, divers, 0)];
        for (list, n, shoots) in lists {
            for _ in 0..n {
                let (x, y, right) = (state.within(0, SIDE - 1)?, state.within(1, BOTTOM - 1)?, state.bit()?);
                let timer = state.within(0, MOVE_SPEED.max(DIVER_SPEED))?;
                let shot_timer = if shoots == 1 { state.within(0, ENEMY_SHOT_INTERVAL)? } else { 0 };
                list.push(Swimmer { x, y, right, timer, shot_timer });
            }
        }
        Some(game)
    }
}
