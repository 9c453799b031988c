//! What is climbed, as data: the vocabulary of the papers.
//!
//! `L(θ) = (1/n) Σ_t [ policy term − β KL[π_old, π_θ](s_t) + c₂ S[π_θ](s_t) − value term ]`
//!
//! over the `n` samples of a minibatch. The engine descends `−L`.

use pgrad_math::{
    dist::{ActionDist, Actions},
    surrogate,
};
use pgrad_num::{Cols, ColsMut, kernels};

/// How the policy's term depends on `log π_θ(a_t|s_t)` and `Ψ_t`; `r_t = π_θ(a_t|s_t)/π_old(a_t|s_t)`.
#[derive(Clone, Copy)]
pub enum PolicyTerm<'f> {
    /// `Ψ_t log π_θ(a_t|s_t)`: its gradient is the score times `Ψ_t` (Williams 1992).
    Score,
    /// `r_t Ψ_t` (Schulman et al. 2017, Eq. 6).
    Ratio,
    /// `min(r_t Ψ_t, clip(r_t, 1−ε, 1+ε) Ψ_t)` (Schulman et al. 2017, Eq. 7).
    Clip {
        /// `ε`.
        epsilon: f64,
    },
    /// What the vocabulary lacks, on the CPU only: adds the gradient of what is to be *descended* with
    /// respect to the policy's raw outputs, with entropy and divergence where they are wanted.
    Custom(&'f (dyn Fn(PolicyChunk<'_>) + Sync)),
}

/// What the critic's values should come near to.
#[derive(Clone, Copy)]
pub enum ValueTerm<'f> {
    /// `c₁ (V_θ(s_t) − V_t^targ)²` (Schulman et al. 2017, Eq. 9).
    Squared {
        /// `c₁`.
        c1: f64,
    },
    /// The larger of that and `c₁ (V_old + clip(V_θ − V_old, −range, range) − V_t^targ)²` (OpenAI baselines,
    /// ppo2).
    SquaredClipped {
        /// `c₁`.
        c1: f64,
        /// How far the value may move from that of the rollout before its gradient stops.
        range: f64,
    },
    /// What the vocabulary lacks, on the CPU only: writes the gradient of what is to be descended.
    Custom(&'f (dyn Fn(ValueChunk<'_>) + Sync)),
}

impl ValueTerm<'_> {
    /// The squared error, clipped where a range is given.
    #[must_use]
    pub fn squared(c1: f64, range: Option<f64>) -> Self {
        range.map_or(Self::Squared { c1 }, |range| Self::SquaredClipped { c1, range })
    }
}

/// An objective to climb. Terms that are not named are not there.
#[derive(Clone, Copy, Default)]
pub struct Objective<'f> {
    /// The policy's term.
    pub policy: Option<PolicyTerm<'f>>,
    /// Shift and scale `Ψ` over each minibatch to mean 0 and standard deviation 1.
    pub standardize: bool,
    /// `β`, the price of `KL[π_old, π_θ]` in closed form, per nat.
    pub kl: f64,
    /// `c₂`, the weight of the entropy, per nat.
    pub entropy: f64,
    /// The critic's term.
    pub value: Option<ValueTerm<'f>>,
    /// What sums over the samples are divided by; their number where nothing is said.
    pub divisor: Option<f64>,
}

/// Sums over the samples of a minibatch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossSums {
    /// The policy's term and what its divergence costs (to be climbed).
    pub surrogate: f64,
    /// Entropy of the policy.
    pub entropy: f64,
    /// `KL(π_old ‖ π_θ)`: exact where it has a price, an estimate beside a ratio, 0 beside a score.
    pub kl: f64,
    /// Samples whose ratio was clipped.
    pub clipped: f64,
    /// Squared error of the critic.
    pub value_loss: f64,
}

impl LossSums {
    /// Adds the sums of other samples.
    pub fn add(&mut self, other: &Self) {
        self.surrogate += other.surrogate;
        self.entropy += other.entropy;
        self.kl += other.kl;
        self.clipped += other.clipped;
        self.value_loss += other.value_loss;
    }
    /// Means over `n` samples.
    #[must_use]
    pub fn mean(self, n: usize) -> Self {
        let n = n as f64;
        Self {
            surrogate: self.surrogate / n,
            entropy: self.entropy / n,
            kl: self.kl / n,
            clipped: self.clipped / n,
            value_loss: self.value_loss / n,
        }
    }
}

/// What a policy loss sees of a chunk of samples, and what it must write: the gradient of the loss (to be
/// descended) with respect to the policy's raw outputs, added to `d_out`.
#[derive(Debug)]
pub struct PolicyChunk<'a> {
    /// The distribution.
    pub dist: &'a ActionDist,
    /// Its parameters under `π_θ`, prepared, `[n_outputs x cols]`.
    pub params: Cols<'a, f32>,
    /// Its parameters under `π_old`, prepared; no rows unless the batch keeps them.
    pub params_old: Cols<'a, f32>,
    /// The actions taken.
    pub actions: Actions<'a, f32>,
    /// `log π_θ(a_t|s_t)`.
    pub logp: &'a [f32],
    /// `log π_old(a_t|s_t)`.
    pub logp_old: &'a [f32],
    /// `Ψ_t`, free to be overwritten.
    pub adv: &'a mut [f32],
    /// To add to: the loss's gradient with respect to the raw outputs.
    pub d_out: ColsMut<'a, f32>,
    /// Four rows of work space.
    pub work: [&'a mut [f32]; 4],
    /// To add to.
    pub sums: &'a mut LossSums,
}

/// What a value loss sees of a chunk of samples, and what it must write: the gradient of the loss with
/// respect to `V_θ(s_t)`.
#[derive(Debug)]
pub struct ValueChunk<'a> {
    /// `V_θ(s_t)`.
    pub v: &'a [f32],
    /// `V_old(s_t)`, of the batch.
    pub v_old: &'a [f32],
    /// Targets.
    pub ret: &'a [f32],
    /// To write.
    pub d_v: &'a mut [f32],
    /// A row of work space.
    pub work: &'a mut [f32],
    /// To add to.
    pub sums: &'a mut LossSums,
}

/// An [`Objective`] over the samples of one minibatch.
#[derive(Clone, Copy)]
pub(crate) struct Loss<'f> {
    pub(crate) objective: Objective<'f>,
    /// What sums are divided by.
    pub(crate) divisor: f64,
    /// Mean and standard deviation of `Ψ` over the minibatch, where it is standardised.
    pub(crate) moments: Option<(f64, f64)>,
}

impl Loss<'_> {
    /// Adds the gradient of the policy's terms.
    pub(crate) fn policy(&self, mut p: PolicyChunk<'_>) {
        let Objective { policy, kl: beta, entropy: c2, .. } = self.objective;
        let (n, [ratio, objective, d_logp, entropy]) = (self.divisor, p.work);
        if let Some((mean, std)) = self.moments {
            let (mean, scale) = (mean as f32, (1.0 / (std + 1e-8)) as f32);
            p.adv.iter_mut().for_each(|psi| *psi = (*psi - mean) * scale);
        }
        match policy {
            None => return,
            Some(PolicyTerm::Custom(loss)) => {
                return loss(PolicyChunk { work: [ratio, objective, d_logp, entropy], ..p });
            }
            Some(PolicyTerm::Score) => surrogate::score(p.logp, p.adv, objective, d_logp),
            Some(PolicyTerm::Ratio) => {
                surrogate::ratio(p.logp, p.logp_old, p.adv, ratio, objective, d_logp);
            }
            Some(PolicyTerm::Clip { epsilon }) => {
                let epsilon = epsilon as f32;
                let clipped = surrogate::clip(p.logp, p.logp_old, p.adv, epsilon, ratio, objective, d_logp);
                p.sums.clipped += clipped as f64;
            }
        }
        p.sums.surrogate += kernels::sum(objective);
        let kl = ratio;
        if beta > 0.0 {
            p.dist.kl(p.params_old, p.params, kl);
            p.sums.kl += kernels::sum(kl);
            p.sums.surrogate -= beta * kernels::sum(kl);
            kl.fill((beta / n) as f32);
            p.dist.kl_vjp(p.params_old, p.params, kl, p.d_out.reborrow());
        } else if !matches!(policy, Some(PolicyTerm::Score)) {
            surrogate::kl_k3(p.logp, p.logp_old, kl);
            p.sums.kl += kernels::sum(kl);
        }
        p.dist.entropy(p.params, entropy);
        p.sums.entropy += kernels::sum(entropy);
        kernels::scale(-1.0 / n as f32, d_logp);
        entropy.fill(-c2 as f32 / n as f32);
        p.dist.logp_entropy_vjp(p.params, p.actions, d_logp, entropy, p.d_out);
    }

    /// Writes the gradient of the critic's term.
    pub(crate) fn value(&self, chunk: ValueChunk<'_>) {
        let c1 = match self.objective.value {
            None => return chunk.d_v.fill(0.0),
            Some(ValueTerm::Custom(loss)) => return loss(chunk),
            Some(ValueTerm::Squared { c1 } | ValueTerm::SquaredClipped { c1, .. }) => c1,
        };
        let ValueChunk { v, v_old, ret, d_v, work, sums } = chunk;
        match self.objective.value {
            Some(ValueTerm::SquaredClipped { range, .. }) => {
                surrogate::squared_clipped(v, v_old, ret, range as f32, work, d_v);
            }
            _ => surrogate::squared(v, ret, work, d_v),
        }
        // The kernel's loss is half the square.
        sums.value_loss += 2.0 * kernels::sum(work);
        kernels::scale((2.0 * c1 / self.divisor) as f32, d_v);
    }
}
