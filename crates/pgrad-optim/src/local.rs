//! What a step rule may ask of the problem that it climbs.

use pgrad_num::Real;

/// A problem known around the present parameters by its value and gradient.
pub trait Local<R: Real> {
    /// Number of parameters.
    fn dim(&self) -> usize;
    /// Writes `∇L(θ)` and returns `L(θ)`.
    fn gradient(&mut self, gradient: &mut [R]) -> f64;
}

/// A [`Local`] problem with a metric: the Fisher matrix `F`, applied and never formed.
pub trait LocalMetric<R: Real>: Local<R> {
    /// `out = F v`, with `F = Jᵀ F_out J / batch`.
    fn fisher_mul(&mut self, v: &[R], out: &mut [R]);
}

/// What a trial evaluation finds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trial {
    /// The surrogate `L(θ)`.
    pub surrogate: f64,
    /// Mean `KL(π_old ‖ π_θ)`.
    pub kl: f64,
    /// The largest `KL(π_old ‖ π_θ)` of a state.
    pub largest_kl: f64,
}

/// A [`LocalMetric`] problem that can be evaluated elsewhere.
pub trait LocalTrial<R: Real>: LocalMetric<R> {
    /// Surrogate and mean divergence at other parameters.
    fn trial(&mut self, theta: &[R]) -> Trial;
}
