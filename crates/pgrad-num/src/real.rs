//! The scalar type.

use crate::gemm::lanes::Lanes;
use crate::kernels;
use std::fmt::{Debug, Display};
use std::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Sub, SubAssign};

/// A real number: `f32` where speed counts, `f64` where a gradient is checked against finite differences.
pub trait Real:
    Lanes
    + Copy
    + Default
    + PartialOrd
    + Debug
    + Display
    + Send
    + Sync
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + DivAssign
    + 'static
{
    /// Zero.
    const ZERO: Self;
    /// One.
    const ONE: Self;
    /// Rounds from double precision.
    fn of(x: f64) -> Self;
    /// Widens to double precision.
    fn f64(self) -> f64;
    /// `self * a + b`, rounded once.
    #[must_use]
    fn mul_add(self, a: Self, b: Self) -> Self;
    /// Exponential, as [`Real::exp_slice`] computes it.
    #[must_use]
    fn exp(self) -> Self;
    /// Natural logarithm, as [`Real::ln_slice`] computes it.
    #[must_use]
    fn ln(self) -> Self;
    /// Hyperbolic tangent, as [`Real::tanh_slice`] computes it.
    #[must_use]
    fn tanh(self) -> Self;
    /// Square root.
    #[must_use]
    fn sqrt(self) -> Self;
    /// Absolute value.
    #[must_use]
    fn abs(self) -> Self;
    /// Neither infinite nor NaN.
    #[must_use]
    fn is_finite(self) -> bool;
    /// The larger of two numbers; `other` where `self` is NaN.
    #[inline(always)]
    #[must_use]
    fn at_least(self, other: Self) -> Self {
        if self > other { self } else { other }
    }
    /// The smaller of two numbers; `other` where `self` is NaN.
    #[inline(always)]
    #[must_use]
    fn at_most(self, other: Self) -> Self {
        if self < other { self } else { other }
    }
    /// [`Real::tanh`] of a block, in place: the same numbers, sooner.
    fn tanh_block(x: &mut [Self; kernels::BLOCK]);
    /// `tanh` of every element, in place.
    fn tanh_slice(x: &mut [Self]);
    /// `exp` of every element, in place.
    fn exp_slice(x: &mut [Self]);
    /// `ln` of every element, in place.
    fn ln_slice(x: &mut [Self]);
}

macro_rules! real {
    ($ty:ty, $tanh1:path, $tanh_block:path, $exp1:path, $ln1:path, $tanh:path, $exp:path, $ln:path) => {
        impl Real for $ty {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            #[inline(always)]
            fn of(x: f64) -> Self {
                x as Self
            }
            #[inline(always)]
            fn f64(self) -> f64 {
                f64::from(self)
            }
            #[inline(always)]
            fn mul_add(self, a: Self, b: Self) -> Self {
                <$ty>::mul_add(self, a, b)
            }
            #[inline(always)]
            fn exp(self) -> Self {
                $exp1(self)
            }
            #[inline(always)]
            fn ln(self) -> Self {
                $ln1(self)
            }
            #[inline(always)]
            fn tanh(self) -> Self {
                $tanh1(self)
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                <$ty>::sqrt(self)
            }
            #[inline(always)]
            fn abs(self) -> Self {
                <$ty>::abs(self)
            }
            #[inline(always)]
            fn is_finite(self) -> bool {
                <$ty>::is_finite(self)
            }
            #[inline(always)]
            fn tanh_block(x: &mut [Self; kernels::BLOCK]) {
                $tanh_block(x);
            }
            fn tanh_slice(x: &mut [Self]) {
                $tanh(x);
            }
            fn exp_slice(x: &mut [Self]) {
                $exp(x);
            }
            fn ln_slice(x: &mut [Self]) {
                $ln(x);
            }
        }
    };
}

real!(
    f32,
    kernels::tanh1,
    kernels::tanh_block,
    kernels::exp1,
    kernels::ln1,
    kernels::tanh_f32,
    kernels::exp_f32,
    kernels::ln_f32
);
real!(
    f64,
    f64::tanh,
    kernels::tanh_block_f64,
    f64::exp,
    f64::ln,
    kernels::tanh_f64,
    kernels::exp_f64,
    kernels::ln_f64
);
