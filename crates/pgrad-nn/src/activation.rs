//! What a layer does with its outputs, one by one, after everything else.

use pgrad_num::gemm::{Mat, Write, matmul, matmul_then};
use pgrad_num::kernels::BLOCK;
use pgrad_num::{Cols, Real, simd};

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

/// An activation as a type: loops over it compile to straight vector code.
trait Phi {
    /// `φ(z)` in place.
    fn apply<R: Real>(z: &mut [R]);
    /// `∂z = φ'(z) ∂h` in place, from `h = φ(z)`.
    fn times_slope<R: Real>(d: &mut [R], h: &[R]);
}

/// None at all.
struct Identity;

impl Phi for Identity {
    #[inline(always)]
    fn apply<R: Real>(_: &mut [R]) {}
    #[inline(always)]
    fn times_slope<R: Real>(_: &mut [R], _: &[R]) {}
}

struct Tanh;

impl Phi for Tanh {
    #[inline(always)]
    fn apply<R: Real>(z: &mut [R]) {
        let (blocks, rest) = z.as_chunks_mut::<BLOCK>();
        for block in blocks {
            R::tanh_block(block);
        }
        for z in rest {
            *z = z.tanh();
        }
    }
    #[inline(always)]
    fn times_slope<R: Real>(d: &mut [R], h: &[R]) {
        for (d, h) in d.iter_mut().zip(h) {
            *d *= (-*h).mul_add(*h, R::ONE);
        }
    }
}

struct Relu;

impl Phi for Relu {
    #[inline(always)]
    fn apply<R: Real>(z: &mut [R]) {
        for z in z {
            *z = z.at_least(R::ZERO);
        }
    }
    #[inline(always)]
    fn times_slope<R: Real>(d: &mut [R], h: &[R]) {
        for (d, h) in d.iter_mut().zip(h) {
            *d *= if *h > R::ZERO { R::ONE } else { R::ZERO };
        }
    }
}

/// `$body` with the type `$phi` of an activation or none.
macro_rules! for_activation {
    ($activation:expr, |$phi:ident| $body:expr) => {
        match $activation {
            Some(Activation::Tanh) => {
                type $phi = Tanh;
                $body
            }
            Some(Activation::Relu) => {
                type $phi = Relu;
                $body
            }
            None => {
                type $phi = Identity;
                $body
            }
        }
    };
}

/// `h = φ(W x + b)`, the activation inside the product.
pub(crate) fn affine<R: Real>(
    h: &mut [R],
    activation: Option<Activation>,
    w: Mat<'_, R>,
    b: &[R],
    x: Mat<'_, R>,
    n: usize,
) {
    if n < BLOCK {
        // Rows of a few samples are shorter than a block: then blocks of several rows.
        matmul(h, Write::Bias(b), w, x);
        for_activation!(activation, |P| simd!(|| P::apply(h)));
    } else {
        for_activation!(activation, |P| matmul_then(
            h,
            Write::Bias(b),
            w,
            x,
            #[inline(always)]
            |_, _, z| P::apply(z),
        ));
    }
}

/// `∂z = φ'(z) ∂h` in place, from `h = φ(z)`.
pub(crate) fn times_slope<R: Real>(activation: Option<Activation>, d: &mut [R], h: &[R]) {
    for_activation!(activation, |P| simd!(|| P::times_slope(d, h)));
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
        let Self { d, activation, x } = self;
        let (x, n) = (x.data(), x.cols());
        for_activation!(activation, |P| matmul_then(
            d,
            Write::Replace,
            a,
            b,
            #[inline(always)]
            |i, j, d| P::times_slope(d, &x[i * n + j..]),
        ));
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
