//! Tile coding: a bounded observation as binary features.
//!
//! A tiling cuts the box of observations into `tiles` equal intervals for each number; an observation lies in
//! exactly one of its `tiles^d` tiles. Several tilings, each shifted by a part of a tile, see the same
//! observation: near observations share most of their tiles, far ones none. A linear function of the features
//! is then piecewise constant with a resolution of one `tilings`-th of a tile, while every sample teaches a
//! neighbourhood as wide as a tile.
//!
//! With `n` tilings of `m` intervals over `[low, high]`, the unit of shift is
//! `u = (high − low)/((m + 1) n − 1)` and a tile is `n u` wide. Tiling `k` begins at `low + s u` with
//! `s = (2i + 1) k mod n` for number `i`: odd multiples keep the tilings from lining up along a diagonal.
//! What lies outside belongs to the outermost tile. So every tiling has exactly `m^d` tiles, and the last
//! ones end where the box does.
//!
//! Source: R. S. Sutton, A. G. Barto, *Reinforcement Learning: An Introduction*, 2nd edition, section 9.5.4;
//! the width of the tiles is that of the experiments of Degris, White, Sutton 2012
//! (`BoundedSmallPartitionFactory` of their library RLPark, without its random jitter).

use crate::{Actions, BatchEnv, BoxSpace, Dtype, End, EnvSpec, Picture, PictureError, Space};
use pgrad_num::{ColsMut, Stream};
use thiserror::Error;

/// What stands before the name of a task whose observations are tile-coded.
pub const TILES_PREFIX: &str = "tiles:";

/// How observations are cut into tiles. The default is that of Degris, White, Sutton 2012: with the model's
/// own bias, 11 features are active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TileCoding {
    /// Tilings, each shifted against the others. More of them resolve finer, at the cost of more active
    /// features.
    pub tilings: usize,
    /// Intervals of each number of the observation in one tiling. More of them generalise less.
    pub tiles: usize,
    /// Most tiles of all tilings together that have a feature each; where there are more, tiles share
    /// features by hashing within their tiling.
    pub memory: usize,
    /// Whether there is one more feature that is always active. The models of this library have a bias of
    /// their own, which is that feature: a second one would be learnt twice as fast.
    pub bias: bool,
}

impl Default for TileCoding {
    fn default() -> Self {
        Self { tilings: 10, tiles: 10, memory: 16_384, bias: false }
    }
}

/// Why observations cannot be tile-coded.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum TileError {
    /// The observations are not numbers between bounds.
    #[error("tile coding needs a Box observation space, not {space}")]
    NotBox {
        /// The space of observations.
        space: String,
    },
    /// A number without finite bounds, or with nothing between them.
    #[error(
        "tile coding needs finite bounds, but component {index} of the observation is in [{low}, \
        {high}]"
    )]
    Bounds {
        /// Which number.
        index: usize,
        /// Its lower bound.
        low: f32,
        /// Its upper bound.
        high: f32,
    },
    /// Sizes that make no tiles.
    #[error(
        "{tilings} tilings of {tiles} intervals in a memory of {memory} tiles: each size must be at least \
         1, and the memory needs at least one tile per tiling"
    )]
    Sizes {
        /// Tilings.
        tilings: usize,
        /// Intervals.
        tiles: usize,
        /// Memory.
        memory: usize,
    },
}

/// Finds the active tiles of an observation.
#[derive(Clone, Debug, PartialEq)]
pub struct TileCoder {
    coding: TileCoding,
    low: Vec<f64>,
    /// Units of shift in one, for each number.
    per_unit: Vec<f64>,
    /// Features of one tiling.
    block: usize,
    hashed: bool,
}

impl TileCoder {
    /// Tiles over the box `bounds`.
    ///
    /// # Errors
    /// When a bound is not finite, or a size makes no tiles.
    pub fn new(bounds: &BoxSpace, coding: TileCoding) -> Result<Self, TileError> {
        let TileCoding { tilings, tiles, memory, .. } = coding;
        if tilings == 0 || tiles == 0 || memory < tilings {
            return Err(TileError::Sizes { tilings, tiles, memory });
        }
        let units = ((tiles + 1) * tilings - 1) as f64;
        let mut per_unit = Vec::with_capacity(bounds.dim());
        for (index, (low, high)) in bounds.low.iter().zip(&bounds.high).enumerate() {
            let width = f64::from(*high) - f64::from(*low);
            if !(width.is_finite() && width > 0.0) {
                return Err(TileError::Bounds { index, low: *low, high: *high });
            }
            per_unit.push(units / width);
        }
        let whole = u32::try_from(bounds.dim()).ok().and_then(|d| tiles.checked_pow(d));
        let direct = whole.filter(|w| w.checked_mul(tilings).is_some_and(|all| all <= memory));
        Ok(Self {
            coding,
            low: bounds.low.iter().map(|x| f64::from(*x)).collect(),
            per_unit,
            block: direct.unwrap_or(memory / tilings),
            hashed: direct.is_none(),
        })
    }
    /// How it cuts.
    #[must_use]
    pub fn coding(&self) -> TileCoding {
        self.coding
    }
    /// Number of features, the bias included if there is one.
    #[must_use]
    pub fn features(&self) -> usize {
        self.coding.tilings * self.block + usize::from(self.coding.bias)
    }
    /// Whether tiles share features.
    #[must_use]
    pub fn is_hashed(&self) -> bool {
        self.hashed
    }
    /// The interval of number `i` of the observation, which is `x`, in tiling `k`: from 0 to `tiles − 1`.
    #[must_use]
    pub fn interval(&self, k: usize, i: usize, x: f32) -> usize {
        let TileCoding { tilings, tiles, .. } = self.coding;
        let shift = ((2 * i + 1) * k % tilings) as f64;
        let units = (f64::from(x) - self.low[i]) * self.per_unit[i] - shift;
        // A negative number or NaN becomes 0, a large one the largest.
        ((units / tilings as f64) as usize).min(tiles - 1)
    }
    /// Writes the active feature of each tiling for the observation `obs`. A bias, the last feature, is not
    /// among them.
    ///
    /// # Panics
    /// When `obs` has another size than the box, or `active` than the tilings.
    pub fn active(&self, obs: &[f32], active: &mut [u32]) {
        assert_eq!((obs.len(), active.len()), (self.low.len(), self.coding.tilings));
        for (k, to) in active.iter_mut().enumerate() {
            let intervals = obs.iter().enumerate().map(|(i, x)| self.interval(k, i, *x));
            let tile = if self.hashed {
                hash(k, intervals) as usize % self.block
            } else {
                // A number in base `tiles`, the first digit least.
                intervals.rev().fold(0, |at, c| at * self.coding.tiles + c)
            };
            *to = (k * self.block + tile) as u32;
        }
    }
}

/// A number that is the same on every machine, and looks drawn at random for other intervals or another
/// tiling.
fn hash(tiling: usize, intervals: impl Iterator<Item = usize>) -> u32 {
    // Multiplication by odd numbers (from the golden ratio and from the square root of 2) spreads low bits to
    // high ones; the shifts bring them back.
    let mix = |h: u64, x: usize| {
        let h = (h ^ x as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let h = (h ^ (h >> 32)).wrapping_mul(0x6a09_e667_f3bc_c909);
        h ^ (h >> 29)
    };
    (intervals.fold(mix(0, tiling + 1), mix) >> 32) as u32
}

/// A task whose observations are tile-coded: 0/1 features, exactly one active in each tiling, and on request
/// a bias that is always active, the last one.
///
/// Its name is that of the task with [`TILES_PREFIX`] before it. All else is the task's own. A number of the
/// task's observation that is not finite is passed on in its place, so that it is noticed.
///
/// ```
/// use pgrad_env::probe::{ActionKind, ObservedReward};
/// use pgrad_env::{Each, TileCoded, TileCoding, BatchEnv};
///
/// let task = Each::new(2, || ObservedReward::new(ActionKind::Discrete));
/// let coded = TileCoded::new(Box::new(task), TileCoding { tilings: 4, tiles: 8, ..TileCoding::default() })?;
/// assert_eq!(coded.spec().observation.obs_dim(), 4 * 8);
/// # Ok::<(), pgrad_env::TileError>(())
/// ```
pub struct TileCoded {
    inner: Box<dyn BatchEnv>,
    spec: EnvSpec,
    coder: TileCoder,
    /// Active feature of each tiling, `[len x tilings]`.
    active: Vec<u32>,
    /// First number of each copy's observation that is not finite: which one, and its value.
    bad: Vec<Option<(usize, f32)>>,
    /// One observation of the task.
    obs: Vec<f32>,
}

impl std::fmt::Debug for TileCoded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TileCoded")
            .field("id", &self.spec.id)
            .field("coder", &self.coder)
            .finish_non_exhaustive()
    }
}

impl TileCoded {
    /// `inner`, seen through tiles.
    ///
    /// # Errors
    /// When its observations are not a bounded box, or a size makes no tiles.
    pub fn new(inner: Box<dyn BatchEnv>, coding: TileCoding) -> Result<Self, TileError> {
        let coder = Self::coder_for(inner.spec(), coding)?;
        let spec = EnvSpec {
            id: format!("{TILES_PREFIX}{}", inner.spec().id),
            observation: BoxSpace::uniform(0.0, 1.0, coder.features()).into(),
            ..inner.spec().clone()
        };
        let n = inner.len();
        let mut coded = Self {
            obs: vec![0.0; inner.spec().observation.obs_dim()],
            active: vec![0; n * coding.tilings],
            bad: vec![None; n],
            inner,
            spec,
            coder,
        };
        (0..n).for_each(|b| coded.code(b));
        Ok(coded)
    }
    /// The coder of a task's observations.
    ///
    /// # Errors
    /// When its observations are not a bounded box, or a size makes no tiles.
    pub fn coder_for(spec: &EnvSpec, coding: TileCoding) -> Result<TileCoder, TileError> {
        match spec.observation.single() {
            // Bits have no range to be cut.
            Some(Space::Box(bounds)) if bounds.dtype != Dtype::Bool => TileCoder::new(bounds, coding),
            _ => Err(TileError::NotBox { space: spec.observation.to_string() }),
        }
    }
    /// Finds the tiles of copy `b`'s present observation.
    fn code(&mut self, b: usize) {
        let n = self.coder.coding.tilings;
        self.inner.observe_one(b, &mut self.obs);
        self.bad[b] = self.obs.iter().enumerate().find(|(_, x)| !x.is_finite()).map(|(i, x)| (i, *x));
        self.coder.active(&self.obs, &mut self.active[b * n..(b + 1) * n]);
    }
    /// What copy `b` shows: each feature that is not 0, and its value.
    fn shown(&self, b: usize) -> impl Iterator<Item = (usize, f32)> {
        let n = self.coder.coding.tilings;
        let tiles = self.active[b * n..(b + 1) * n].iter().map(|i| (*i as usize, 1.0));
        let bias = self.coder.coding.bias.then(|| (self.coder.features() - 1, 1.0));
        tiles.chain(bias).chain(self.bad[b])
    }
}

impl BatchEnv for TileCoded {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }
    fn len(&self) -> usize {
        self.inner.len()
    }
    fn reset(&mut self, b: usize, rng: &mut Stream) {
        self.inner.reset(b, rng);
        self.code(b);
    }
    fn step(&mut self, actions: Actions<'_>, rngs: &mut [Stream], rewards: &mut [f64], ends: &mut [End]) {
        self.inner.step(actions, rngs, rewards, ends);
        (0..self.len()).for_each(|b| self.code(b));
    }
    fn observe(&self, mut obs: ColsMut<'_, f32>) {
        obs.data_mut().fill(0.0);
        for b in 0..self.len() {
            for (i, x) in self.shown(b) {
                obs.set(i, b, x);
            }
        }
    }
    fn observe_one(&self, b: usize, obs: &mut [f32]) {
        obs.fill(0.0);
        for (i, x) in self.shown(b) {
            obs[i] = x;
        }
    }
    fn action_mask(&self, b: usize, mask: &mut [bool]) {
        self.inner.action_mask(b, mask);
    }
    fn wrong_shape(&self, b: usize) -> Option<usize> {
        self.inner.wrong_shape(b)
    }
    fn any_wrong_shape(&self) -> bool {
        self.inner.any_wrong_shape()
    }
    fn save(&self, b: usize) -> Option<Vec<f64>> {
        self.inner.save(b)
    }
    fn load(&mut self, b: usize, state: &[f64]) -> bool {
        let loaded = self.inner.load(b, state);
        if loaded {
            self.code(b);
        }
        loaded
    }
    fn picture(&mut self, b: usize) -> Result<Picture, PictureError> {
        self.inner.picture(b)
    }
}
