//! What becomes of the elements of a product.

use crate::kernels::BLOCK;
use crate::{Real, simd};

/// What becomes of each element `c` of a product. `h` has the product's shape.
#[derive(Clone, Copy, Debug)]
pub enum Then<'a, R> {
    /// Nothing.
    Leave,
    /// `tanh(c)`.
    Tanh,
    /// `max(c, 0)`.
    Relu,
    /// `c (1 − h²)`: times the slope of `tanh` where it is `h`.
    TimesTanhSlope(&'a [R]),
    /// `c` where `h > 0`, else `0 c`: times the slope of `max(·, 0)` where it is `h`.
    TimesReluSlope(&'a [R]),
}

impl<R: Real> Then<'_, R> {
    /// The same to the elements of `c` without a product, in place.
    ///
    /// # Panics
    /// When `h` has another length.
    pub fn apply(self, c: &mut [R]) {
        self.check(c.len());
        self.apply_from(0, c);
    }

    /// `h` has an element for each of the product.
    pub(super) fn check(self, len: usize) {
        if let Self::TimesTanhSlope(h) | Self::TimesReluSlope(h) = self {
            assert_eq!(h.len(), len, "the slope has an element for each of the product");
        }
    }

    /// The elements from `at` on, in place.
    pub(super) fn apply_from(self, at: usize, c: &mut [R]) {
        match self {
            Self::Leave => {}
            Self::Tanh => simd!(|| {
                let (blocks, rest) = c.as_chunks_mut::<BLOCK>();
                for block in blocks {
                    R::tanh_block(block);
                }
                for c in rest {
                    *c = c.tanh();
                }
            }),
            Self::Relu => simd!(|| for c in c.iter_mut() {
                *c = c.at_least(R::ZERO);
            }),
            Self::TimesTanhSlope(h) => simd!(|| for (c, h) in c.iter_mut().zip(&h[at..]) {
                *c *= (-*h).mul_add(*h, R::ONE);
            }),
            Self::TimesReluSlope(h) => simd!(|| for (c, h) in c.iter_mut().zip(&h[at..]) {
                *c *= if *h > R::ZERO { R::ONE } else { R::ZERO };
            }),
        }
    }
}
