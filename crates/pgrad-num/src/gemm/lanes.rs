//! Vectors of the width of the machine, for kernels that are written once for `f32` and `f64`.

use super::dots::{Dots, RowSums};
use super::tiles::{Flip, Tiles};
use super::vector::Vector;
use pulp::{Arch, Simd};

/// Rows and columns of the blocks that [`Lanes::flip`] turns over.
pub(crate) const BLOCK: usize = 8;

/// A scalar type that has vectors. Sealed: nobody else implements [`Real`](crate::Real).
pub trait Lanes: Copy {
    /// Steps of a product between two looks at the end of its loop: 1 where speed does not count, which is
    /// less code.
    const UNROLL: usize;
    /// A vector of [`Lanes::lanes`] numbers, which lie in it as in memory; any bits are one.
    type Vector<S: Simd>: Copy;
    /// Numbers of a vector.
    fn lanes<S: Simd>() -> usize;
    /// The same number in every lane.
    fn splat<S: Simd>(simd: S, x: Self) -> Self::Vector<S>;
    /// `a b + c`, rounded once.
    fn fma<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>, c: Self::Vector<S>) -> Self::Vector<S>;
    /// `a + b`.
    fn sum<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// Transposes a block of 8 × 8: `to[j * to_stride + i] = from[i * from_stride + j]`.
    ///
    /// # Safety
    /// Every `from[i * from_stride + j]` can be read and every `to[j * to_stride + i]` written, for
    /// `i, j < 8`; the two do not overlap.
    #[expect(unsafe_code, reason = "works on pointers: the bounds of a block are checked once by the caller")]
    unsafe fn flip<S: Simd>(simd: S, from: *const Self, from_stride: usize, to: *mut Self, to_stride: usize);
    /// Runs a kernel of this module for the widest vectors of the machine. The kernels are compiled once for
    /// each type, here, and not anew in every crate that multiplies.
    fn run(kernel: Kernel<'_, Self>);
    /// Numbers of a vector on this machine.
    fn machine_lanes() -> usize;
}

/// What [`Lanes::run`] runs.
#[derive(Debug)]
pub enum Kernel<'a, R> {
    /// The tiles of a strip.
    Tiles(Tiles<'a, R>),
    /// A transposed copy.
    Flip(Flip<'a, R>),
    /// A product with a single sample.
    Vector(Vector<'a, R>),
    /// Scalar products of rows.
    Dots(Dots<'a, R>),
    /// Sums of rows.
    RowSums(RowSums<'a, R>),
}

/// Asks for the length of a vector.
struct Ask<R>(std::marker::PhantomData<R>);

impl<R: Lanes> pulp::WithSimd for Ask<R> {
    type Output = usize;
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        R::lanes::<S>()
    }
}

/// [`Lanes::flip`], number by number.
///
/// # Safety
/// As [`Lanes::flip`].
#[expect(unsafe_code, reason = "see Lanes::flip")]
#[inline(always)]
unsafe fn flip_plainly<T: Copy>(from: *const T, from_stride: usize, to: *mut T, to_stride: usize) {
    for j in 0..BLOCK {
        for i in 0..BLOCK {
            // SAFETY: both are below 8, as the caller promises.
            unsafe { *to.add(j * to_stride + i) = *from.add(i * from_stride + j) };
        }
    }
}

/// [`Lanes::flip`] of `f32` in eight registers: pairs, then fours, then halves.
///
/// # Safety
/// As [`Lanes::flip`].
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "see Lanes::flip")]
#[inline(always)]
unsafe fn flip_in_registers(
    simd: pulp::x86::V3,
    from: *const f32,
    from_stride: usize,
    to: *mut f32,
    to_stride: usize,
) {
    use std::arch::x86_64::__m256;
    let avx = simd.avx;
    let row: [__m256; BLOCK] = std::array::from_fn(
        #[inline(always)]
        // SAFETY: row `i < 8` has 8 numbers, as the caller promises.
        |i| unsafe { from.add(i * from_stride).cast::<__m256>().read_unaligned() },
    );
    // Row pairs (0, 1), (2, 3), ...: [a0 b0 a1 b1 | a4 b4 a5 b5], [a2 b2 a3 b3 | a6 b6 a7 b7].
    let (mut pair, mut four) = (row, row);
    for i in 0..BLOCK / 2 {
        pair[2 * i] = avx._mm256_unpacklo_ps(row[2 * i], row[2 * i + 1]);
        pair[2 * i + 1] = avx._mm256_unpackhi_ps(row[2 * i], row[2 * i + 1]);
    }
    // Columns (0 | 4), (1 | 5), (2 | 6), (3 | 7) of the upper four rows, then of the lower four.
    for i in [0, 4] {
        for j in 0..2 {
            let (upper, lower) = (pair[i + j], pair[i + j + 2]);
            four[i + 2 * j] = avx._mm256_shuffle_ps::<0b01_00_01_00>(upper, lower);
            four[i + 2 * j + 1] = avx._mm256_shuffle_ps::<0b11_10_11_10>(upper, lower);
        }
    }
    for j in 0..BLOCK / 2 {
        let first = avx._mm256_permute2f128_ps::<0x20>(four[j], four[j + 4]);
        let second = avx._mm256_permute2f128_ps::<0x31>(four[j], four[j + 4]);
        // SAFETY: columns `j` and `j + 4` are below 8 and have room for 8 numbers, as the caller promises.
        unsafe {
            to.add(j * to_stride).cast::<__m256>().write_unaligned(first);
            to.add((j + 4) * to_stride).cast::<__m256>().write_unaligned(second);
        }
    }
}

/// The token of the instruction set that [`flip_in_registers`] needs, if `simd` implies it.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn avx2<S: Simd>(simd: S) -> Option<pulp::x86::V3> {
    let simd = &simd as &dyn std::any::Any;
    match (simd.downcast_ref::<pulp::x86::V3>(), simd.downcast_ref::<pulp::x86::V4>()) {
        (Some(v3), _) => Some(*v3),
        (None, Some(v4)) => Some(**v4),
        _ => None,
    }
}

macro_rules! lanes {
    ($ty:ident, $unroll:literal, $vector:ident, $lanes:ident, $splat:ident, $fma:ident, $add:ident, |$simd:ident, $block:ident| $flip:expr) => {
        impl Lanes for $ty {
            const UNROLL: usize = $unroll;
            type Vector<S: Simd> = S::$vector;
            #[inline(always)]
            fn lanes<S: Simd>() -> usize {
                S::$lanes
            }
            #[inline(always)]
            fn splat<S: Simd>(simd: S, x: Self) -> S::$vector {
                simd.$splat(x)
            }
            #[inline(always)]
            fn fma<S: Simd>(simd: S, a: S::$vector, b: S::$vector, c: S::$vector) -> S::$vector {
                simd.$fma(a, b, c)
            }
            #[inline(always)]
            fn sum<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$add(a, b)
            }
            #[expect(unsafe_code, reason = "see Lanes::flip")]
            #[inline(always)]
            unsafe fn flip<S: Simd>(
                $simd: S,
                from: *const Self,
                from_stride: usize,
                to: *mut Self,
                to_stride: usize,
            ) {
                let $block = (from, from_stride, to, to_stride);
                // SAFETY: the caller's promise, passed on.
                unsafe { $flip }
            }
            fn run(kernel: Kernel<'_, Self>) {
                let machine = Arch::new();
                match kernel {
                    Kernel::Tiles(kernel) => machine.dispatch(kernel),
                    Kernel::Flip(kernel) => machine.dispatch(kernel),
                    Kernel::Vector(kernel) => machine.dispatch(kernel),
                    Kernel::Dots(kernel) => machine.dispatch(kernel),
                    Kernel::RowSums(kernel) => machine.dispatch(kernel),
                }
            }
            fn machine_lanes() -> usize {
                Arch::new().dispatch(Ask::<Self>(std::marker::PhantomData))
            }
        }
    };
}

lanes!(f32, 4, f32s, F32_LANES, splat_f32s, mul_add_f32s, add_f32s, |simd, block| {
    #[cfg(target_arch = "x86_64")]
    if let Some(v3) = avx2(simd) {
        return flip_in_registers(v3, block.0, block.1, block.2, block.3);
    }
    let _ = simd;
    flip_plainly(block.0, block.1, block.2, block.3);
});
lanes!(f64, 1, f64s, F64_LANES, splat_f64s, mul_add_f64s, add_f64s, |_simd, block| flip_plainly(
    block.0, block.1, block.2, block.3
));
