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
//!
//! Choices within one action are independent, so log-probabilities, entropies and divergences are sums
//! over them.
//!
//! # Masks
//! A mask `[n_outputs x cols]` of a (multi-)categorical says `true` where an alternative is allowed.
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

/// A batch of actions: `[action_rows x cols]`.
#[derive(Clone, Copy, Debug)]
pub enum Actions<'a, R> {
    /// Alternatives by index: `Categorical` (1 row), `MultiCategorical` (a row a choice), `Bernoulli`
    /// (a row a bit, 0 or 1).
    Index(Cols<'a, u32>),
    /// Real vectors: `DiagGaussian`.
    Real(Cols<'a, R>),
}

/// The mutable sibling of [`Actions`].
#[derive(Debug)]
pub enum ActionsMut<'a, R> {
    /// Alternatives by index.
    Index(ColsMut<'a, u32>),
    /// Real vectors.
    Real(ColsMut<'a, R>),
}

impl<R: Real> ActionsMut<'_, R> {
    /// A shared view of the same actions.
    #[must_use]
    pub fn as_actions(&self) -> Actions<'_, R> {
        match self {
            Self::Index(a) => Actions::Index(a.as_cols()),
            Self::Real(a) => Actions::Real(a.as_cols()),
        }
    }
    /// A shorter borrow of the same view.
    pub fn reborrow(&mut self) -> ActionsMut<'_, R> {
        match self {
            Self::Index(a) => ActionsMut::Index(a.reborrow()),
            Self::Real(a) => ActionsMut::Real(a.reborrow()),
        }
    }
}

/// The family of an action distribution and its size.
///
/// # Panics
/// Shapes, the kind of the actions and the range of an index are the caller's invariants: every method
/// panics when a view does not fit `n_outputs`, `action_rows` and the number of columns, when real actions
/// are given to a discrete distribution or the reverse, and when an index is out of range.
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
}

impl ActionDist {
    /// Number of network outputs (rows of raw outputs and of parameters).
    #[must_use]
    pub fn n_outputs(&self) -> usize {
        match self {
            Self::Categorical { n } | Self::Bernoulli { n } => *n,
            Self::MultiCategorical { nvec } => nvec.iter().sum(),
            Self::DiagGaussian { dim } => 2 * dim,
        }
    }
    /// Number of rows of a batch of actions.
    #[must_use]
    pub fn action_rows(&self) -> usize {
        match self {
            Self::Categorical { .. } => 1,
            Self::MultiCategorical { nvec } => nvec.len(),
            Self::Bernoulli { n } => *n,
            Self::DiagGaussian { dim } => *dim,
        }
    }
    /// Number of rows of a mask: 0 where masks have no meaning (`Bernoulli`, `DiagGaussian`).
    #[must_use]
    pub fn mask_rows(&self) -> usize {
        self.sizes().iter().sum()
    }
    /// Whether actions are indices ([`Actions::Index`]).
    #[must_use]
    pub fn is_discrete(&self) -> bool {
        !matches!(self, Self::DiagGaussian { .. })
    }
    /// Sizes of the choices of a (multi-)categorical; empty for the others.
    fn sizes(&self) -> &[usize] {
        match self {
            Self::Categorical { n } => std::slice::from_ref(n),
            Self::MultiCategorical { nvec } => nvec,
            Self::Bernoulli { .. } | Self::DiagGaussian { .. } => &[],
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
    fn check(&self, what: &str, rows: usize) {
        assert_eq!(rows, self.n_outputs(), "{what} of {self:?} have {} rows", self.n_outputs());
    }
    fn check_actions<'a, R>(&self, actions: Actions<'a, R>, cols: usize) -> Actions<'a, R> {
        let (discrete, shape) = match &actions {
            Actions::Index(a) => (true, (a.rows(), a.cols())),
            Actions::Real(a) => (false, (a.rows(), a.cols())),
        };
        assert_eq!(discrete, self.is_discrete(), "the actions are of the wrong kind for {self:?}");
        assert_eq!(shape, (self.action_rows(), cols), "the shape of the actions does not fit {self:?}");
        if let Actions::Index(a) = &actions {
            for k in 0..a.rows() {
                let n = self.sizes().get(k).map_or(2, |n| *n);
                let largest = simd!(|| a.row(k).iter().fold(0, |m, i| if *i > m { *i } else { m }));
                assert!((largest as usize) < n || cols == 0, "action {largest} of choice {k}: {self:?}");
            }
        }
        actions
    }

    /// The first `(sample, choice)` for which a mask `[mask_rows x cols]` allows no alternative.
    #[must_use]
    pub fn first_empty_choice(&self, mask: Cols<'_, bool>) -> Option<(usize, usize)> {
        assert_eq!(mask.rows(), self.mask_rows(), "a mask of {self:?} has {} rows", self.mask_rows());
        (0..mask.cols()).find_map(|c| {
            self.choices().find(|(_, rows)| rows.clone().all(|r| !mask.at(r, c))).map(|(k, _)| (c, k))
        })
    }

    /// Turns raw outputs into parameters, in place. Shapes: `out` and `mask` `[n_outputs x cols]`.
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
            simd!(|| categorical::forbid(&mut out, mask));
        }
        simd!(|| {
            for (_, rows) in self.choices() {
                categorical::log_softmax(&mut out, rows);
            }
        });
    }

    /// `log π(a)`: natural logarithm of the probability (density, for `DiagGaussian`) of each sample's
    /// action. Shapes: `params` `[n_outputs x cols]`, `actions` `[action_rows x cols]`, `logp` `[cols]`.
    ///
    /// `Bernoulli`: `Σ_i a_i ln p_i + (1 - a_i) ln(1 - p_i)`, `p = 1/(1 + exp(-z))`.
    /// `DiagGaussian`: `-Σ_i ((a_i - μ_i)/σ_i)²/2 + ln σ_i + ln(2π)/2`.
    pub fn logp<R: Real>(&self, params: Cols<'_, R>, actions: Actions<'_, R>, logp: &mut [R]) {
        self.check("parameters", params.rows());
        assert_eq!(logp.len(), params.cols(), "one log-probability a sample");
        logp.fill(R::ZERO);
        match self.check_actions(actions, params.cols()) {
            Actions::Index(a) if matches!(self, Self::Bernoulli { .. }) => {
                simd!(|| bernoulli::logp(params, a, logp));
            }
            Actions::Index(a) => simd!(|| {
                for (k, rows) in self.choices() {
                    categorical::logp(params, rows, a.row(k), logp);
                }
            }),
            Actions::Real(a) => simd!(|| gaussian::logp(params, a, logp)),
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
        simd!(|| match self {
            Self::Categorical { .. } | Self::MultiCategorical { .. } => {
                for (_, rows) in self.choices() {
                    categorical::entropy(params, rows, entropy);
                }
            }
            Self::Bernoulli { .. } => bernoulli::entropy(params, entropy),
            Self::DiagGaussian { .. } => gaussian::entropy(params, entropy),
        });
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
        mut d_out: ColsMut<'_, R>,
    ) {
        let cols = params.cols();
        self.check("parameters", params.rows());
        self.check("cotangents", d_out.rows());
        assert_eq!(d_out.cols(), cols, "one column of cotangents a sample");
        assert!(d_entropy.is_none_or(|d| d.len() == cols), "one cotangent of the entropy a sample");
        let logp = logp.map(|(actions, d)| {
            assert_eq!(d.len(), cols, "one cotangent of the log-probability a sample");
            (self.check_actions(actions, cols), d)
        });
        let index = match logp {
            Some((Actions::Index(a), d)) => Some((a, d)),
            _ => None,
        };
        let real = match logp {
            Some((Actions::Real(a), d)) => Some((a, d)),
            _ => None,
        };
        simd!(|| match self {
            Self::Categorical { .. } | Self::MultiCategorical { .. } => {
                for (k, rows) in self.choices() {
                    let own = index.map(|(a, d)| (a.row(k), d));
                    categorical::vjp(params, rows, own, d_entropy, &mut d_out);
                }
            }
            Self::Bernoulli { .. } => bernoulli::vjp(params, index, d_entropy, &mut d_out),
            Self::DiagGaussian { .. } => gaussian::vjp(params, real, d_entropy, &mut d_out),
        });
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
        simd!(|| match self {
            Self::Categorical { .. } | Self::MultiCategorical { .. } => {
                // A sum over all alternatives of all choices: their borders do not matter.
                categorical::kl(params_old, params_new, kl);
            }
            Self::Bernoulli { .. } => bernoulli::kl(params_old, params_new, kl),
            Self::DiagGaussian { .. } => gaussian::kl(params_old, params_new, kl),
        });
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
        mut d_out: ColsMut<'_, R>,
    ) {
        self.check("old parameters", params_old.rows());
        self.check("new parameters", params_new.rows());
        self.check("cotangents", d_out.rows());
        let cols = params_new.cols();
        assert!(
            params_old.cols() == cols && d_out.cols() == cols && d_kl.len() == cols,
            "old and new parameters and cotangents have one column a sample"
        );
        simd!(|| match self {
            Self::Categorical { .. } | Self::MultiCategorical { .. } => {
                categorical::kl_vjp(params_old, params_new, d_kl, &mut d_out);
            }
            Self::Bernoulli { .. } => bernoulli::kl_vjp(params_old, params_new, d_kl, &mut d_out),
            Self::DiagGaussian { .. } => gaussian::kl_vjp(params_old, params_new, d_kl, &mut d_out),
        });
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
        simd!(|| match self {
            Self::Categorical { .. } | Self::MultiCategorical { .. } => {
                for (_, rows) in self.choices() {
                    categorical::fisher_mul(params, rows, v, &mut out);
                }
            }
            Self::Bernoulli { .. } => bernoulli::fisher_mul(params, v, &mut out),
            Self::DiagGaussian { .. } => gaussian::fisher_mul(params, v, &mut out),
        });
    }

    /// Draws an action a sample; column `c` uses `rngs[c]` only.
    ///
    /// A stream moves by the same number of words whatever is drawn: one for each choice or bit (inverse
    /// distribution function of one [`Stream::uniform_f32`]), one [`Stream::normal`] for each component of
    /// a Gaussian (`μ + σ ε`). An alternative of probability 0 is never drawn.
    pub fn sample<R: Real>(&self, params: Cols<'_, R>, rngs: &mut [Stream], mut actions: ActionsMut<'_, R>) {
        self.check_sampling(params, &actions);
        assert_eq!(rngs.len(), params.cols(), "one random stream a sample");
        match &mut actions {
            ActionsMut::Index(a) if matches!(self, Self::Bernoulli { .. }) => {
                bernoulli::sample(params, rngs, a);
            }
            ActionsMut::Index(a) => {
                for (k, rows) in self.choices() {
                    categorical::sample(params, rows, rngs, a.row_mut(k));
                }
            }
            ActionsMut::Real(a) => gaussian::sample(params, rngs, a),
        }
    }

    /// The most probable action of each sample: the first of the largest log-probabilities, 1 where a bit's
    /// logit is above 0, the mean.
    pub fn mode<R: Real>(&self, params: Cols<'_, R>, mut actions: ActionsMut<'_, R>) {
        self.check_sampling(params, &actions);
        simd!(|| match &mut actions {
            ActionsMut::Index(a) if matches!(self, Self::Bernoulli { .. }) => bernoulli::mode(params, a),
            ActionsMut::Index(a) => {
                for (k, rows) in self.choices() {
                    categorical::mode(params, rows, a.row_mut(k));
                }
            }
            ActionsMut::Real(a) => {
                for i in 0..a.rows() {
                    a.row_mut(i).copy_from_slice(params.row(i));
                }
            }
        });
    }

    fn check_sampling<R: Real>(&self, params: Cols<'_, R>, actions: &ActionsMut<'_, R>) {
        self.check("parameters", params.rows());
        let (discrete, shape) = match actions {
            ActionsMut::Index(a) => (true, (a.rows(), a.cols())),
            ActionsMut::Real(a) => (false, (a.rows(), a.cols())),
        };
        assert_eq!(discrete, self.is_discrete(), "the actions are of the wrong kind for {self:?}");
        assert_eq!(shape, (self.action_rows(), params.cols()), "the actions do not fit {self:?}");
    }
}
