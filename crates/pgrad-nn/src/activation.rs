//! What a layer does with its outputs, one by one, after everything else.

use pgrad_num::gemm::{Mat, Then, Write, matmul_then};
use pgrad_num::{Cols, Real};

/// What a hidden unit does with its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `tanh(z)`.
    Tanh,
    /// `max(z, 0)`.
    Relu,
}

impl Activation {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Tanh, Self::Relu];

    /// Its name, in files too.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tanh => "tanh",
            Self::Relu => "relu",
        }
    }
    /// The gain that keeps the scale of the signal, for [`orthogonal`](crate::orthogonal): `√2`, as in the
    /// reference implementations of the family (OpenAI baselines use it for `tanh` too).
    #[must_use]
    pub fn gain(self) -> f64 {
        std::f64::consts::SQRT_2
    }
}

/// `h = φ(W x + b)`, the activation inside the product.
pub(crate) fn affine<R: Real>(
    h: &mut [R],
    activation: Option<Activation>,
    w: Mat<'_, R>,
    b: &[R],
    x: Mat<'_, R>,
) {
    let then = match activation {
        Some(Activation::Tanh) => Then::Tanh,
        Some(Activation::Relu) => Then::Relu,
        None => Then::Leave,
    };
    matmul_then(h, Write::Bias(b), w, x, then);
}

/// `φ'(z) ·`, from `h = φ(z)`.
fn slope<R>(activation: Option<Activation>, h: &[R]) -> Then<'_, R> {
    match activation {
        Some(Activation::Tanh) => Then::TimesTanhSlope(h),
        Some(Activation::Relu) => Then::TimesReluSlope(h),
        None => Then::Leave,
    }
}

/// `∂z = φ'(z) ∂h` in place, from `h = φ(z)`.
pub(crate) fn times_slope<R: Real>(activation: Option<Activation>, d: &mut [R], h: &[R]) {
    slope(activation, h).apply(d);
}

/// Where a layer puts the cotangent of its input `x = φ(z)`: it writes `∂z = φ'(z) ∂x`, so that the slope of
/// the layer below costs no pass of its own over memory.
#[derive(Debug)]
pub struct Below<'a, R> {
    /// To be overwritten.
    d: &'a mut [R],
    activation: Option<Activation>,
    x: Cols<'a, R>,
}

impl<'a, R: Real> Below<'a, R> {
    pub(crate) fn new(d: &'a mut [R], activation: Option<Activation>, x: Cols<'a, R>) -> Self {
        Self { d, activation, x }
    }
    /// `∂z = φ'(z) (A B)`.
    pub fn product(self, a: Mat<'_, R>, b: Mat<'_, R>) {
        matmul_then(self.d, Write::Replace, a, b, slope(self.activation, self.x.data()));
    }
    /// Where to write `∂x`, before [`Below::finish`].
    pub fn buffer(&mut self) -> &mut [R] {
        self.d
    }
    /// `∂z = φ'(z) ∂x`, when `∂x` is written.
    pub fn finish(self) {
        times_slope(self.activation, self.d, self.x.data());
    }
}
