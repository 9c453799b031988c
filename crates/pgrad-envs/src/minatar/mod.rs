//! MinAtar: five Atari games on a board of 10 x 10 cells, each channel a plane of bits.
//!
//! | | |
//! |---|---|
//! | observation | `[10 x 10 x C]` zeros and ones, channel innermost: number `(10 y + x) C + c` is channel `c` at row `y` (0 is the top), column `x` |
//! | action | `-v0`: `Discrete(6)`, [`Move::ALL`] in that order; `-v1`: the game's own moves only, [`Game::MOVES`] |
//! | sticky | with probability 0.1 the move before is made again instead of the one chosen |
//! | ramping | on: Asterix, SpaceInvaders and Seaquest get harder |
//! | reward, end | each game's own page |
//! | time limit | cut (truncated, not terminated) after 10 000 steps; none for Freeway, which ends by itself |
//! | threshold | none |
//!
//! The rules are those of the Python package MinAtar 1.0.15, step by step: order of events, timers and what
//! they are off by. Three things differ.
//! - The random numbers are another generator's.
//! - The move that a sticky first step of an episode repeats is [`Move::Noop`]. The package repeats the last
//!   move of the episode before, but an episode here depends on nothing before it.
//! - The package has no time limit. But who meets every ball in Breakout, or stays at the surface in
//!   Seaquest, plays for ever, and a score of whole episodes is then never known. The limit is far from what
//!   others need, and [`Rules::max_episode_steps`] takes it away.
//!
//! Source: K. Young, T. Tian, "MinAtar: An Atari-Inspired Testbed for Thorough and Reproducible Reinforcement
//! Learning Experiments", arXiv:1903.03176 (2019); the package `MinAtar`, version 1.0.15.

mod asterix;
mod breakout;
mod freeway;
mod seaquest;
mod space_invaders;

pub use asterix::Asterix;
pub use breakout::Breakout;
pub use freeway::Freeway;
pub use seaquest::Seaquest;
pub use space_invaders::SpaceInvaders;

use crate::scenery;
use pgrad_env::{
    Actions, BatchEnv, BoxSpace, Colour, Drawing, Dtype, End, EnvSpec, Picture, PictureError, Space,
};
use pgrad_num::{ColsMut, Stream, simd};

/// Cells of a side of the board.
const SIDE: i32 = 10;
/// Cells of the board.
const CELLS: usize = 100;
/// The most channels that a game has.
const MAX_CHANNELS: usize = 10;
/// Words of 32 bits that hold the cells of a channel.
const WORDS: usize = CELLS.div_ceil(32);
/// Copies that are written together.
const BLOCK: usize = 64;

/// Colour of each channel in pictures.
const COLOURS: [Colour; MAX_CHANNELS] = [
    scenery::GREEN,
    scenery::YELLOW,
    scenery::BLUE,
    scenery::ORANGE,
    scenery::PURPLE,
    scenery::PALE_BLUE,
    scenery::GREY,
    [240, 228, 66],
    [153, 153, 51],
    [255, 255, 255],
];

/// One bit for each cell of the board: bit `10 y + x`.
pub type Plane = u128;

/// All cells.
const BOARD: Plane = (1 << CELLS) - 1;
/// All cells of column 0.
const COLUMN: Plane = {
    let (mut column, mut y) = (0, 0);
    while y < SIDE {
        column |= 1 << (SIDE * y);
        y += 1;
    }
    column
};
/// All cells of row 0.
const ROW: Plane = (1 << SIDE) - 1;

/// The cell at column `x` and row `y`, or none when `x` is beside the board.
#[inline(always)]
fn cell(x: i32, y: i32) -> Plane {
    if (0..SIDE).contains(&x) { 1 << (SIDE * y + x) } else { 0 }
}

/// What the player does in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// Nothing.
    Noop,
    /// One column to the left.
    Left,
    /// One row up.
    Up,
    /// One column to the right.
    Right,
    /// One row down.
    Down,
    /// Shoot.
    Fire,
}

impl Move {
    /// The full action set: action `i` is `ALL[i]`.
    pub const ALL: [Self; 6] = [Self::Noop, Self::Left, Self::Up, Self::Right, Self::Down, Self::Fire];
}

/// Where a game's randomness comes from.
///
/// It is an argument so that a game can be given the numbers that the Python package drew, and then must do
/// what the package did.
pub trait Draw {
    /// True with probability `p`: a uniform number on `[0, 1)` is less than `p`.
    fn chance(&mut self, p: f64) -> bool;
    /// Uniform on `0..n`, `n > 0`.
    fn below(&mut self, n: u32) -> u32;
}

impl Draw for Stream {
    #[inline]
    fn chance(&mut self, p: f64) -> bool {
        self.uniform() < p
    }
    #[inline]
    fn below(&mut self, n: u32) -> u32 {
        Self::below(self, n)
    }
}

/// What a step of a game returned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Reward of the step.
    pub reward: f64,
    /// Whether the game is over.
    pub terminal: bool,
}

/// The rules of one game, and one board of it.
pub trait Game: Clone + Send {
    /// Its name in ids, for example `Breakout`.
    const NAME: &'static str;
    /// Planes of the observation, at most 10.
    const CHANNELS: usize;
    /// The moves that do something here: the minimal action set.
    const MOVES: &'static [Move];
    /// Whether it ends by itself, whatever is played.
    const ENDS: bool = false;
    /// A board as it may stand before the first step.
    fn new() -> Self;
    /// Starts a game.
    fn start(&mut self, draw: &mut impl Draw);
    /// Plays one step.
    fn play(&mut self, action: Move, ramping: bool, draw: &mut impl Draw) -> Outcome;
    /// Writes the planes of the observation, one for each channel.
    fn paint(&self, planes: &mut [Plane]);
    /// Appends the whole state as numbers.
    fn save(&self, out: &mut Vec<f64>);
    /// The state that [`Game::save`] wrote, or `None` when the numbers cannot be the state of a game that
    /// goes on.
    fn load(state: &mut Numbers<'_>) -> Option<Self>;
}

/// Whole numbers of a saved state, read one after the other.
#[derive(Debug)]
pub struct Numbers<'a>(std::slice::Iter<'a, f64>);

impl<'a> Numbers<'a> {
    /// All of `state`.
    #[must_use]
    pub fn new(state: &'a [f64]) -> Self {
        Self(state.iter())
    }
    /// The next number, when it is whole and in `low..=high`.
    pub fn within(&mut self, low: i32, high: i32) -> Option<i32> {
        let x = *self.0.next()?;
        (x.fract() == 0.0 && x >= f64::from(low) && x <= f64::from(high)).then_some(x as i32)
    }
    /// The next number, when it is 0 or 1.
    pub fn bit(&mut self) -> Option<bool> {
        Some(self.within(0, 1)? == 1)
    }
    /// Whether all numbers were read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.len() == 0
    }
    /// `rows` rows of ten cells from row `first` on, one number a row.
    fn rows(&mut self, first: i32, rows: i32) -> Option<Plane> {
        (first..first + rows)
            .try_fold(0, |plane, y| Some(plane | (self.within(0, (1 << SIDE) - 1)? as Plane) << (SIDE * y)))
    }
}

/// What [`Numbers::rows`] reads.
fn save_rows(plane: Plane, first: i32, rows: i32, out: &mut Vec<f64>) {
    out.extend((first..first + rows).map(|y| (plane >> (SIDE * y) & ROW) as f64));
}

/// How a game is set up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// Probability that a step repeats the move before it.
    pub sticky_action_prob: f64,
    /// Whether Asterix, SpaceInvaders and Seaquest get harder.
    pub difficulty_ramping: bool,
    /// Offer [`Game::MOVES`] only (`-v1`) instead of all six moves (`-v0`).
    pub minimal_actions: bool,
    /// Steps after which an episode is cut, if any. Without effect where [`Game::ENDS`].
    pub max_episode_steps: Option<u32>,
}

impl Default for Rules {
    /// Those of the package: 0.1, on; the minimal action set; and a limit of 10 000 steps.
    fn default() -> Self {
        Self {
            sticky_action_prob: 0.1,
            difficulty_ramping: true,
            minimal_actions: true,
            max_episode_steps: Some(10_000),
        }
    }
}

/// A batch of one of the games.
#[derive(Clone, Debug)]
pub struct MinAtar<G> {
    spec: EnvSpec,
    rules: Rules,
    games: Vec<G>,
    /// Moves made last.
    last: Vec<Move>,
}

impl<G: Game> MinAtar<G> {
    /// `n` copies. The id says the game and the action set; it does not say the other rules.
    ///
    /// # Panics
    /// When `n` is 0, or the probability is not in `[0, 1]`.
    #[must_use]
    pub fn new(n: usize, rules: Rules) -> Self {
        assert!(n > 0, "a batch has at least one environment");
        assert!((0.0..=1.0).contains(&rules.sticky_action_prob), "a probability is in [0, 1]");
        let actions = if rules.minimal_actions { G::MOVES.len() } else { Move::ALL.len() };
        let spec = EnvSpec {
            id: format!("MinAtar/{}-v{}", G::NAME, u8::from(rules.minimal_actions)),
            observation: BoxSpace::uniform(0.0, 1.0, CELLS * G::CHANNELS)
                .shaped(&[SIDE as usize, SIDE as usize, G::CHANNELS], Dtype::Bool)
                .into(),
            action: Space::Discrete { n: actions },
            max_episode_steps: rules.max_episode_steps.filter(|_| !G::ENDS),
            reward_threshold: None,
            masks_actions: false,
        };
        Self { spec, rules, games: (0..n).map(|_| G::new()).collect(), last: vec![Move::Noop; n] }
    }
    /// Starts an episode in copy `b` with the random numbers of `draw`.
    pub fn start(&mut self, b: usize, draw: &mut impl Draw) {
        self.last[b] = Move::Noop;
        self.games[b].start(draw);
    }
    /// Steps copy `b` with action `action` and the random numbers of `draw`.
    ///
    /// # Panics
    /// When there is no such action.
    #[inline]
    pub fn step_one(&mut self, b: usize, action: usize, draw: &mut impl Draw) -> Outcome {
        let chosen = if self.rules.minimal_actions { G::MOVES[action] } else { Move::ALL[action] };
        let sticks = draw.chance(self.rules.sticky_action_prob);
        let action = if sticks { self.last[b] } else { chosen };
        self.last[b] = action;
        self.games[b].play(action, self.rules.difficulty_ramping, draw)
    }
}

/// Writes the bits of `words` (`[channels][WORDS]`, a place for each copy of the block) as zeros and ones.
#[inline(always)]
fn write_block(words: &[[[u32; BLOCK]; WORDS]], copies: usize, data: &mut [f32], n: usize, first: usize) {
    let channels = words.len();
    // In the order of memory: a row after the other.
    for at in 0..CELLS {
        for (c, words) in words.iter().enumerate() {
            let from = (at * channels + c) * n + first;
            let (word, bit) = (&words[at / 32], at % 32);
            let to = &mut data[from..from + copies];
            // A full block has a length that the compiler knows.
            if let Ok(to) = <&mut [f32; BLOCK]>::try_from(&mut *to) {
                write_bit(word, bit, to);
            } else {
                write_bit(&word[..copies], bit, to);
            }
        }
    }
}

#[inline(always)]
fn write_bit(words: &[u32], bit: usize, to: &mut [f32]) {
    for (to, w) in to.iter_mut().zip(words) {
        *to = (w >> bit & 1) as f32;
    }
}

impl<G: Game> BatchEnv for MinAtar<G> {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }
    fn len(&self) -> usize {
        self.games.len()
    }
    fn reset(&mut self, b: usize, rng: &mut Stream) {
        self.start(b, rng);
    }
    fn step(&mut self, actions: Actions<'_>, rngs: &mut [Stream], rewards: &mut [f64], ends: &mut [End]) {
        let actions = actions.index.row(0);
        for b in 0..self.games.len() {
            let outcome = self.step_one(b, actions[b] as usize, &mut rngs[b]);
            rewards[b] = outcome.reward;
            ends[b] = if outcome.terminal { End::Terminated } else { End::Running };
        }
    }
    fn observe(&self, mut obs: ColsMut<'_, f32>) {
        let n = self.games.len();
        let data = obs.data_mut();
        let mut planes = [0; MAX_CHANNELS];
        let mut words = [[[0u32; BLOCK]; WORDS]; MAX_CHANNELS];
        for (block, games) in self.games.chunks(BLOCK).enumerate() {
            for (b, game) in games.iter().enumerate() {
                game.paint(&mut planes[..G::CHANNELS]);
                for (words, plane) in words.iter_mut().zip(&planes[..G::CHANNELS]) {
                    for (w, word) in words.iter_mut().enumerate() {
                        word[b] = (plane >> (32 * w)) as u32;
                    }
                }
            }
            let words = &words[..G::CHANNELS];
            simd!(|| write_block(words, games.len(), data, n, block * BLOCK));
        }
    }
    fn observe_one(&self, b: usize, obs: &mut [f32]) {
        let mut planes = [0; MAX_CHANNELS];
        self.games[b].paint(&mut planes[..G::CHANNELS]);
        obs.fill(0.0);
        for (c, plane) in planes[..G::CHANNELS].iter().enumerate() {
            // The bits that are set: few.
            let mut left = *plane;
            while left != 0 {
                obs[left.trailing_zeros() as usize * G::CHANNELS + c] = 1.0;
                left &= left - 1;
            }
        }
    }
    fn save(&self, b: usize) -> Option<Vec<f64>> {
        let mut out = vec![f64::from(self.last[b] as u8)];
        self.games[b].save(&mut out);
        Some(out)
    }
    fn load(&mut self, b: usize, state: &[f64]) -> bool {
        let mut numbers = Numbers::new(state);
        let last = numbers.within(0, Move::ALL.len() as i32 - 1);
        let (Some(last), Some(game)) = (last, G::load(&mut numbers)) else { return false };
        if !numbers.is_empty() {
            return false;
        }
        self.last[b] = Move::ALL[last as usize];
        self.games[b] = game;
        true
    }
    fn picture(&mut self, b: usize) -> Result<Picture, PictureError> {
        let mut planes = [0; MAX_CHANNELS];
        self.games[b].paint(&mut planes[..G::CHANNELS]);
        let side = f64::from(SIDE);
        let mut drawing = Drawing::new([0.0, side], [0.0, side]).rectangle(scenery::INK, [0.0; 2], [side; 2]);
        for (plane, colour) in planes.iter().zip(COLOURS) {
            for at in (0..SIDE * SIDE).filter(|at| plane >> at & 1 == 1) {
                let (x, y) = (f64::from(at % SIDE), side - f64::from(at / SIDE));
                drawing = drawing.rectangle(colour, [x, y - 1.0], [x + 1.0, y]);
            }
        }
        Ok(drawing.at(15.0))
    }
}
