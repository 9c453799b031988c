//! Action distributions over a batch of network outputs.
//!
//! A network's output is a batch `[n_outputs x cols]`, one column a sample. Work goes in two stages:
//! [`ActionDist::prepare`] turns raw outputs in place into *parameters*, once; everything else reads
//! parameters. Gradients (`*_vjp`, [`ActionDist::fisher_mul`]) are with respect to the **raw** outputs, so
//! that they go straight into the network's `vjp`.
//!
//! | distribution | raw outputs | parameters | an action |
//! |---|---|---|---|
//! | `Categorical` | `n` logits | log-probabilities | one index below `n` |
//! | `MultiCategorical` | logits of each choice, one after the other | log-probabilities | an index a choice |
//! | `Bernoulli` | `n` logits | the logits | `n` times 0 or 1 |
//! | `DiagGaussian` | `dim` means, then `dim` log standard deviations | the same | `dim` real numbers |
//! | `Product` | those of each part, one after the other | the same | all indices, all real numbers |
//!
//! Choices within one action are independent, and so are the parts of a product: log-probabilities, entropies
//! and divergences are sums over them.
//!
//! # Masks
//! A mask `[mask_rows x cols]` has a row for each alternative of each (multi-)categorical choice and says
//! `true` where it is allowed.
//! A forbidden one has probability exactly 0 and log-probability −∞; it is never drawn, adds nothing to
//! entropy and divergence, and gets no gradient. Parameters carry this, so the mask is given to `prepare`
//! only. A sample that allows nothing has no distribution: its parameters become NaN
//! ([`ActionDist::first_empty_choice`] finds it beforehand).

mod bernoulli;
mod categorical;
mod gaussian;

use pgrad_num::{Cols, ColsMut, Real, Stream, simd};
use std::ops::Range;

/// Columns that are worked on at a time: what a loop needs besides its rows fits into fixed buffers.
const BLOCK: usize = 64;

/// The columns `0..cols` in pieces of at most [`BLOCK`].
#[inline(always)]
fn blocks(cols: usize) -> impl Iterator<Item = Range<usize>> {
    (0..cols).step_by(BLOCK).map(
        #[inline(always)]
        move |start| start..(start + BLOCK).min(cols),
    )
}

/// A batch of actions, a column each: their indices and their real numbers.
#[derive(Clone, Copy, Debug)]
pub struct Actions<'a, R> {
    /// Alternatives by index, `[index_rows x cols]`: a row a choice, a row a bit (0 or 1).
    pub index: Cols<'a, u32>,
    /// Real numbers, `[real_rows x cols]`.
    pub real: Cols<'a, R>,
}

/// The mutable sibling of [`Actions`].
#[derive(Debug)]
pub struct ActionsMut<'a, R> {
    /// Alternatives by index.
    pub index: ColsMut<'a, u32>,
    /// Real numbers.
    pub real: ColsMut<'a, R>,
}

impl<'a, R> Actions<'a, R> {
    /// Actions that are alternatives alone.
    #[must_use]
    pub fn index(index: Cols<'a, u32>) -> Self {
        Self { real: Cols::new(&[], 0, index.cols()), index }
    }
    /// Actions that are real numbers alone.
    #[must_use]
    pub fn real(real: Cols<'a, R>) -> Self {
        Self { index: Cols::new(&[], 0, real.cols()), real }
    }
    /// Some of the rows.
    fn rows(self, index: &Range<usize>, real: &Range<usize>) -> Self {
        Self {
            index: self.index.row_range(index.start, index.end),
            real: self.real.row_range(real.start, real.end),
        }
    }
}

impl<'a, R> ActionsMut<'a, R> {
    /// Actions that are alternatives alone.
    #[must_use]
    pub fn index(index: ColsMut<'a, u32>) -> Self {
        Self { real: ColsMut::new(&mut [], 0, index.cols()), index }
    }
    /// Actions that are real numbers alone.
    #[must_use]
    pub fn real(real: ColsMut<'a, R>) -> Self {
        Self { index: ColsMut::new(&mut [], 0, real.cols()), real }
    }
    /// A shared view of the same actions.
    #[must_use]
    pub fn as_actions(&self) -> Actions<'_, R> {
        Actions { index: self.index.as_cols(), real: self.real.as_cols() }
    }
    /// A shorter borrow of the same view.
    pub fn reborrow(&mut self) -> ActionsMut<'_, R> {
        ActionsMut { index: self.index.reborrow(), real: self.real.reborrow() }
    }
    /// Some of the rows.
    fn rows(&mut self, index: &Range<usize>, real: &Range<usize>) -> ActionsMut<'_, R> {
        ActionsMut {
            index: self.index.row_range_mut(index.start, index.end),
            real: self.real.row_range_mut(real.start, real.end),
        }
    }
}

/// A part of a product, and which rows are its own.
struct Piece<'d> {
    dist: &'d ActionDist,
    outputs: Range<usize>,
    mask: Range<usize>,
    index: Range<usize>,
    real: Range<usize>,
}

impl Piece<'_> {
    /// Its rows of outputs, parameters or the like.
    fn outputs_of<'a, R: Real>(&self, x: Cols<'a, R>) -> Cols<'a, R> {
        x.row_range(self.outputs.start, self.outputs.end)
    }
}

/// The family of an action distribution and its size.
///
/// # Panics
/// Shapes and the range of an index are the caller's invariants: every method panics when a view does not fit
/// `n_outputs`, `index_rows`, `real_rows` and the number of columns, and when an index is out of range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActionDist {
    /// One of `n` alternatives, from `n` logits.
    Categorical {
        /// Number of alternatives.
        n: usize,
    },
    /// Several independent choices; choice `k` has `nvec[k]` alternatives.
    MultiCategorical {
        /// Number of alternatives of each choice.
        nvec: Vec<usize>,
    },
    /// `n` independent bits, from `n` logits (`log p/(1-p)`).
    Bernoulli {
        /// Number of bits.
        n: usize,
    },
    /// A Gaussian with diagonal covariance.
    DiagGaussian {
        /// Number of components of an action.
        dim: usize,
    },
    /// Independent parts of one action.
    Product {
        /// The parts, in the order of their outputs.
        parts: Vec<ActionDist>,
    },
}

impl ActionDist {
    /// Number of network outputs (rows of raw outputs and of parameters).
    #[must_use]
    pub fn n_outputs(&self) -> usize {
        match self {
            Self::Categorical { n } | Self::Bernoulli { n } => *n,
            Self::MultiCategorical { nvec } => nvec.iter().sum(),
            Self::DiagGaussian { dim } => 2 * dim,
            Self::Product { parts } => parts.iter().map(Self::n_outputs).sum(),
        }
    }
    /// Indices of an action: choices and bits.
    #[must_use]
    pub fn index_rows(&self) -> usize {
        match self {
            Self::Categorical { .. } => 1,
            Self::MultiCategorical { nvec } => nvec.len(),
            Self::Bernoulli { n } => *n,
            Self::DiagGaussian { .. } => 0,
            Self::Product { parts } => parts.iter().map(Self::index_rows).sum(),
        }
    }
    /// Real numbers of an action.
    #[must_use]
    pub fn real_rows(&self) -> usize {
        match self {
            Self::DiagGaussian { dim } => *dim,
            Self::Product { parts } => parts.iter().map(Self::real_rows).sum(),
            _ => 0,
        }
    }
    /// Number of rows of a mask: none for `Bernoulli` and `DiagGaussian`.
    #[must_use]
    pub fn mask_rows(&self) -> usize {
        match self {
            Self::Product { parts } => parts.iter().map(Self::mask_rows).sum(),
            leaf => leaf.sizes().iter().sum(),
        }
    }
    /// Sizes of the choices of a (multi-)categorical; empty for the others.
    fn sizes(&self) -> &[usize] {
        match self {
            Self::Categorical { n } => std::slice::from_ref(n),
            Self::MultiCategorical { nvec } => nvec,
            Self::Bernoulli { .. } | Self::DiagGaussian { .. } | Self::Product { .. } => &[],
        }
    }
    /// `(choice, rows of its logits)` of a (multi-)categorical.
    #[inline(always)]
    fn choices(&self) -> impl Iterator<Item = (usize, Range<usize>)> {
        let mut start = 0;
        self.sizes().iter().enumerate().map(move |(k, n)| {
            start += n;
            (k, start - n..start)
        })
    }
    /// The parts of a product, and which rows are theirs.
    fn pieces(parts: &[Self]) -> impl Iterator<Item = Piece<'_>> {
        let (mut outputs, mut mask, mut index, mut real) = (0..0, 0..0, 0..0, 0..0);
        let next = |rows: &mut Range<usize>, n: usize| {
            *rows = rows.end..rows.end + n;
            rows.clone()
        };
        parts.iter().map(move |dist| Piece {
            dist,
            outputs: next(&mut outputs, dist.n_outputs()),
            mask: next(&mut mask, dist.mask_rows()),
            index: next(&mut index, dist.index_rows()),
            real: next(&mut real, dist.real_rows()),
        })
    }
    fn check(&self, what: &str, rows: usize) {
        assert_eq!(rows, self.n_outputs(), "{what} of {self:?} have {} rows", self.n_outputs());
    }
    fn check_shape<R>(&self, actions: &Actions<'_, R>, cols: usize) {
        let shape = |rows: usize, cols: usize| (rows, cols);
        assert_eq!(
            [
                shape(actions.index.rows(), actions.index.cols()),
                shape(actions.real.rows(), actions.real.cols())
            ],
            [shape(self.index_rows(), cols), shape(self.real_rows(), cols)],
            "the shape of the actions does not fit {self:?}"
        );
    }
    /// Checks shapes, and that every index is one.
    fn check_actions<R>(&self, actions: &Actions<'_, R>, cols: usize) {
        self.check_shape(actions, cols);
        self.check_indices(actions.index);
    }
    fn check_indices(&self, index: Cols<'_, u32>) {
        if let Self::Product { parts } = self {
            for p in Self::pieces(parts) {
                p.dist.check_indices(index.row_range(p.index.start, p.index.end));
            }
            return;
        }
        for k in 0..index.rows() {
            let n = self.sizes().get(k).map_or(2, |n| *n);
            let largest = simd!(|| index.row(k).iter().fold(0, |m, i| if *i > m { *i } else { m }));
            assert!((largest as usize) < n || index.cols() == 0, "action {largest} of choice {k}: {self:?}");
        }
    }

    /// The first `(sample, choice)` for which a mask `[mask_rows x cols]` allows no alternative.
    #[must_use]
    pub fn first_empty_choice(&self, mask: Cols<'_, bool>) -> Option<(usize, usize)> {
        assert_eq!(mask.rows(), self.mask_rows(), "a mask of {self:?} has {} rows", self.mask_rows());
        (0..mask.cols()).find_map(|c| {
            let (mut from, mut choice) = (0, 0);
            let mut empty = |n: usize| {
                (from, choice) = (from + n, choice + 1);
                (from - n..from).all(|r| !mask.at(r, c)).then_some((c, choice - 1))
            };
            match self {
                Self::Product { parts } => parts.iter().flat_map(Self::sizes).find_map(|n| empty(*n)),
                leaf => leaf.sizes().iter().find_map(|n| empty(*n)),
            }
        })
    }

    /// Turns raw outputs into parameters, in place. Shapes: `out` `[n_outputs x cols]`, `mask`
    /// `[mask_rows x cols]`.
    ///
    /// (Multi-)categorical: `z_i - max z - ln Σ_j exp(z_j - max z)` over the allowed alternatives of each
    /// choice, −∞ for the forbidden ones. `Bernoulli`, `DiagGaussian`: nothing to do.
    ///
    /// # Panics
    /// When a mask is given to a distribution that has none; otherwise see [`ActionDist`].
    pub fn prepare<R: Real>(&self, mut out: ColsMut<'_, R>, mask: Option<Cols<'_, bool>>) {
        self.check("raw outputs", out.rows());
        if let Some(mask) = mask {
            assert_eq!(
                (mask.rows(), mask.cols()),
                (self.mask_rows(), out.cols()),
                "the shape of the mask does not fit {self:?}"
            );
        }
        if let Self::Product { parts } = self {
            for p in Self::pieces(parts) {
                let own = mask.map(|m| m.row_range(p.mask.start, p.mask.end)).filter(|m| m.rows() > 0);
                p.dist.prepare(out.row_range_mut(p.outputs.start, p.outputs.end), own);
            }
            return;
        }
        if let Some(mask) = mask {
            simd!(|| categorical::forbid(&mut out, mask));
        }
        simd!(|| {
            for (_, rows) in self.choices() {
                categorical::log_softmax(&mut out, rows);
            }
        });
    }

    /// `log π(a)`: natural logarithm of the probability (density, for `DiagGaussian`) of each sample's
    /// action. Shapes: `params` `[n_outputs x cols]`, `logp` `[cols]`.
    ///
    /// `Bernoulli`: `Σ_i a_i ln p_i + (1 - a_i) ln(1 - p_i)`, `p = 1/(1 + exp(-z))`.
    /// `DiagGaussian`: `-Σ_i ((a_i - μ_i)/σ_i)²/2 + ln σ_i + ln(2π)/2`.
    pub fn logp<R: Real>(&self, params: Cols<'_, R>, actions: Actions<'_, R>, logp: &mut [R]) {
        self.check("parameters", params.rows());
        assert_eq!(logp.len(), params.cols(), "one log-probability a sample");
        self.check_actions(&actions, params.cols());
        logp.fill(R::ZERO);
        self.add_logp(params, actions, logp);
    }
    fn add_logp<R: Real>(&self, params: Cols<'_, R>, actions: Actions<'_, R>, logp: &mut [R]) {
        match self {
            Self::Categorical { .. } | Self::MultiCategorical { .. } => simd!(|| {
                for (k, rows) in self.choices() {
                    categorical::logp(params, rows, actions.index.row(k), logp);
                }
            }),
            Self::Bernoulli { .. } => simd!(|| bernoulli::logp(params, actions.index, logp)),
            Self::DiagGaussian { .. } => simd!(|| gaussian::logp(params, actions.real, logp)),
            Self::Product { parts } => {
                for p in Self::pieces(parts) {
                    let params = p.outputs_of(params);
                    p.dist.add_logp(params, actions.rows(&p.index, &p.real), logp);
                }
            }
        }
    }

    /// **Adds** `d_logp ∂ log π(a) / ∂ raw outputs` to `d_out` `[n_outputs x cols]`.
    ///
    /// Categorical: `1[i = a] - p_i`. Bernoulli: `a_i - p_i`. Gaussian, with `z = (a - μ)/σ`: `z/σ` for a
    /// mean, `z² - 1` for a log standard deviation.
    pub fn logp_vjp<R: Real>(
        &self,
        params: Cols<'_, R>,
        actions: Actions<'_, R>,
        d_logp: &[R],
        d_out: ColsMut<'_, R>,
    ) {
        self.vjp(params, Some((actions, d_logp)), None, d_out);
    }

    /// `H(π) = -E[log π(a)]` of each sample, in nats (differential entropy for `DiagGaussian`).
    ///
    /// (Multi-)categorical: `-Σ p ln p`. Bernoulli: `-Σ p ln p + (1-p) ln(1-p)`.
    /// Gaussian: `Σ ln σ_i + ln(2πe)/2`.
    pub fn entropy<R: Real>(&self, params: Cols<'_, R>, entropy: &mut [R]) {
        self.check("parameters", params.rows());
        assert_eq!(entropy.len(), params.cols(), "one entropy a sample");
        entropy.fill(R::ZERO);
        self.add_entropy(params, entropy);
    }
    fn add_entropy<R: Real>(&self, params: Cols<'_, R>, entropy: &mut [R]) {
        match self {
            Self::Categorical { .. } | Self::MultiCategorical { .. } => simd!(|| {
                for (_, rows) in self.choices() {
                    categorical::entropy(params, rows, entropy);
                }
            }),
            Self::Bernoulli { .. } => simd!(|| bernoulli::entropy(params, entropy)),
            Self::DiagGaussian { .. } => simd!(|| gaussian::entropy(params, entropy)),
            Self::Product { parts } => {
                for p in Self::pieces(parts) {
                    p.dist.add_entropy(p.outputs_of(params), entropy);
                }
            }
        }
    }

    /// **Adds** `d_entropy ∂H / ∂ raw outputs` to `d_out` `[n_outputs x cols]`.
    ///
    /// Categorical: `-p_i (ln p_i + H)`, `H` the entropy of that choice. Bernoulli: `-p_i (1 - p_i) z_i`.
    /// Gaussian: 0 for a mean, 1 for a log standard deviation.
    pub fn entropy_vjp<R: Real>(&self, params: Cols<'_, R>, d_entropy: &[R], d_out: ColsMut<'_, R>) {
        self.vjp(params, None, Some(d_entropy), d_out);
    }

    /// [`ActionDist::logp_vjp`] and [`ActionDist::entropy_vjp`] in one pass: saves one exponential an output.
    pub fn logp_entropy_vjp<R: Real>(
        &self,
        params: Cols<'_, R>,
        actions: Actions<'_, R>,
        d_logp: &[R],
        d_entropy: &[R],
        d_out: ColsMut<'_, R>,
    ) {
        self.vjp(params, Some((actions, d_logp)), Some(d_entropy), d_out);
    }

    fn vjp<R: Real>(
        &self,
        params: Cols<'_, R>,
        logp: Option<(Actions<'_, R>, &[R])>,
        d_entropy: Option<&[R]>,
        d_out: ColsMut<'_, R>,
    ) {
        let cols = params.cols();
        self.check("parameters", params.rows());
        self.check("cotangents", d_out.rows());
        assert_eq!(d_out.cols(), cols, "one column of cotangents a sample");
        assert!(d_entropy.is_none_or(|d| d.len() == cols), "one cotangent of the entropy a sample");
        if let Some((actions, d)) = &logp {
            assert_eq!(d.len(), cols, "one cotangent of the log-probability a sample");
            self.check_actions(actions, cols);
        }
        self.add_vjp(params, logp, d_entropy, d_out);
    }
    fn add_vjp<R: Real>(
        &self,
        params: Cols<'_, R>,
        logp: Option<(Actions<'_, R>, &[R])>,
        d_entropy: Option<&[R]>,
        mut d_out: ColsMut<'_, R>,
    ) {
        match self {
            Self::Categorical { .. } | Self::MultiCategorical { .. } => simd!(|| {
                for (k, rows) in self.choices() {
                    let own = logp.map(|(a, d)| (a.index.row(k), d));
                    categorical::vjp(params, rows, own, d_entropy, &mut d_out);
                }
            }),
            Self::Bernoulli { .. } => {
                simd!(|| bernoulli::vjp(params, logp.map(|(a, d)| (a.index, d)), d_entropy, &mut d_out));
            }
            Self::DiagGaussian { .. } => {
                simd!(|| gaussian::vjp(params, logp.map(|(a, d)| (a.real, d)), d_entropy, &mut d_out));
            }
            Self::Product { parts } => {
                for p in Self::pieces(parts) {
                    let own = logp.map(|(a, d)| (a.rows(&p.index, &p.real), d));
                    let d_out = d_out.row_range_mut(p.outputs.start, p.outputs.end);
                    p.dist.add_vjp(p.outputs_of(params), own, d_entropy, d_out);
                }
            }
        }
    }

    /// `KL(old ‖ new) = E_old[log π_old(a) - log π_new(a)]` of each sample, in nats.
    ///
    /// Gaussian: `Σ ln(σ_new/σ_old) + (σ_old² + (μ_old - μ_new)²) / 2σ_new² - 1/2`. Infinite where `new`
    /// forbids what `old` allows.
    pub fn kl<R: Real>(&self, params_old: Cols<'_, R>, params_new: Cols<'_, R>, kl: &mut [R]) {
        self.check("old parameters", params_old.rows());
        self.check("new parameters", params_new.rows());
        assert_eq!(params_old.cols(), params_new.cols(), "as many old samples as new ones");
        assert_eq!(kl.len(), params_new.cols(), "one divergence a sample");
        kl.fill(R::ZERO);
        self.add_kl(params_old, params_new, kl);
    }
    fn add_kl<R: Real>(&self, params_old: Cols<'_, R>, params_new: Cols<'_, R>, kl: &mut [R]) {
        match self {
            // A sum over all alternatives of all choices: their borders do not matter.
            Self::Categorical { .. } | Self::MultiCategorical { .. } => {
                simd!(|| categorical::kl(params_old, params_new, kl));
            }
            Self::Bernoulli { .. } => simd!(|| bernoulli::kl(params_old, params_new, kl)),
            Self::DiagGaussian { .. } => simd!(|| gaussian::kl(params_old, params_new, kl)),
            Self::Product { parts } => {
                for p in Self::pieces(parts) {
                    p.dist.add_kl(p.outputs_of(params_old), p.outputs_of(params_new), kl);
                }
            }
        }
    }

    /// **Adds** `d_kl ∂ KL(old ‖ new) / ∂ raw new outputs` to `d_out` `[n_outputs x cols]`.
    ///
    /// Categorical, Bernoulli: `p_new - p_old`. Gaussian: `(μ_new - μ_old)/σ_new²` for a mean,
    /// `1 - (σ_old² + (μ_old - μ_new)²)/σ_new²` for a log standard deviation.
    pub fn kl_vjp<R: Real>(
        &self,
        params_old: Cols<'_, R>,
        params_new: Cols<'_, R>,
        d_kl: &[R],
        d_out: ColsMut<'_, R>,
    ) {
        self.check("old parameters", params_old.rows());
        self.check("new parameters", params_new.rows());
        self.check("cotangents", d_out.rows());
        let cols = params_new.cols();
        assert!(
            params_old.cols() == cols && d_out.cols() == cols && d_kl.len() == cols,
            "old and new parameters and cotangents have one column a sample"
        );
        self.add_kl_vjp(params_old, params_new, d_kl, d_out);
    }
    fn add_kl_vjp<R: Real>(
        &self,
        params_old: Cols<'_, R>,
        params_new: Cols<'_, R>,
        d_kl: &[R],
        mut d_out: ColsMut<'_, R>,
    ) {
        match self {
            Self::Categorical { .. } | Self::MultiCategorical { .. } => {
                simd!(|| categorical::kl_vjp(params_old, params_new, d_kl, &mut d_out));
            }
            Self::Bernoulli { .. } => {
                simd!(|| bernoulli::kl_vjp(params_old, params_new, d_kl, &mut d_out));
            }
            Self::DiagGaussian { .. } => {
                simd!(|| gaussian::kl_vjp(params_old, params_new, d_kl, &mut d_out));
            }
            Self::Product { parts } => {
                for p in Self::pieces(parts) {
                    let d_out = d_out.row_range_mut(p.outputs.start, p.outputs.end);
                    p.dist.add_kl_vjp(p.outputs_of(params_old), p.outputs_of(params_new), d_kl, d_out);
                }
            }
        }
    }

    /// `out = F v` for each sample, with the Fisher matrix of the raw outputs
    /// `F = E[∇ log π(a) ∇ log π(a)ᵀ]`, which is the Hessian of `KL(old ‖ new)` (and of `KL(new ‖ old)`)
    /// at `new = old`. Shapes: all `[n_outputs x cols]`.
    ///
    /// Categorical: `p ⊙ (v - <p, v>)` a choice. Bernoulli: `p (1-p) v`. Gaussian: `v/σ²` for a mean, `2v`
    /// for a log standard deviation.
    pub fn fisher_mul<R: Real>(&self, params: Cols<'_, R>, v: Cols<'_, R>, mut out: ColsMut<'_, R>) {
        self.check("parameters", params.rows());
        self.check("vectors", v.rows());
        self.check("products", out.rows());
        let cols = params.cols();
        assert!(v.cols() == cols && out.cols() == cols, "one vector and one product a sample");
        match self {
            Self::Categorical { .. } | Self::MultiCategorical { .. } => simd!(|| {
                for (_, rows) in self.choices() {
                    categorical::fisher_mul(params, rows, v, &mut out);
                }
            }),
            Self::Bernoulli { .. } => simd!(|| bernoulli::fisher_mul(params, v, &mut out)),
            Self::DiagGaussian { .. } => simd!(|| gaussian::fisher_mul(params, v, &mut out)),
            Self::Product { parts } => {
                for p in Self::pieces(parts) {
                    p.dist.fisher_mul(
                        p.outputs_of(params),
                        p.outputs_of(v),
                        out.row_range_mut(p.outputs.start, p.outputs.end),
                    );
                }
            }
        }
    }

    /// Draws an action a sample; column `c` uses `rngs[c]` only.
    ///
    /// A stream moves by the same number of words whatever is drawn: one for each choice or bit (inverse
    /// distribution function of one [`Stream::uniform_f32`]), one [`Stream::normal`] for each component of
    /// a Gaussian (`μ + σ ε`); the parts of a product in order. An alternative of probability 0 is never
    /// drawn.
    pub fn sample<R: Real>(&self, params: Cols<'_, R>, rngs: &mut [Stream], mut actions: ActionsMut<'_, R>) {
        self.check_sampling(params, &actions);
        assert_eq!(rngs.len(), params.cols(), "one random stream a sample");
        match self {
            Self::Categorical { .. } | Self::MultiCategorical { .. } => {
                for (k, rows) in self.choices() {
                    categorical::sample(params, rows, rngs, actions.index.row_mut(k));
                }
            }
            Self::Bernoulli { .. } => bernoulli::sample(params, rngs, &mut actions.index),
            Self::DiagGaussian { .. } => gaussian::sample(params, rngs, &mut actions.real),
            Self::Product { parts } => {
                for p in Self::pieces(parts) {
                    let params = p.outputs_of(params);
                    p.dist.sample(params, rngs, actions.rows(&p.index, &p.real));
                }
            }
        }
    }

    /// The most probable action of each sample: the first of the largest log-probabilities, 1 where a bit's
    /// logit is above 0, the mean.
    pub fn mode<R: Real>(&self, params: Cols<'_, R>, mut actions: ActionsMut<'_, R>) {
        self.check_sampling(params, &actions);
        match self {
            Self::Categorical { .. } | Self::MultiCategorical { .. } => simd!(|| {
                for (k, rows) in self.choices() {
                    categorical::mode(params, rows, actions.index.row_mut(k));
                }
            }),
            Self::Bernoulli { .. } => simd!(|| bernoulli::mode(params, &mut actions.index)),
            Self::DiagGaussian { dim } => {
                actions.real.data_mut().copy_from_slice(params.row_range(0, *dim).data());
            }
            Self::Product { parts } => {
                for p in Self::pieces(parts) {
                    let params = p.outputs_of(params);
                    p.dist.mode(params, actions.rows(&p.index, &p.real));
                }
            }
        }
    }

    fn check_sampling<R: Real>(&self, params: Cols<'_, R>, actions: &ActionsMut<'_, R>) {
        self.check("parameters", params.rows());
        self.check_shape(&actions.as_actions(), params.cols());
    }
}
