//! Vectors of the width of the machine, for kernels that are written once for `f32` and `f64`.

use pulp::{Simd, bytemuck};

/// Rows and columns of the blocks that [`Lanes::flip`] turns over.
pub(crate) const BLOCK: usize = 8;

/// A scalar type that has vectors. Sealed: nobody else implements [`Real`](crate::Real).
pub trait Lanes: Copy {
    /// A vector of [`Lanes::lanes`] numbers.
    type Vector<S: Simd>: Copy;
    /// Numbers of a vector.
    fn lanes<S: Simd>() -> usize;
    /// The same number in every lane.
    fn splat<S: Simd>(simd: S, x: Self) -> Self::Vector<S>;
    /// `a b + c`, rounded once.
    fn fma<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>, c: Self::Vector<S>) -> Self::Vector<S>;
    /// The first numbers of a slice.
    fn load<S: Simd>(simd: S, from: &[Self]) -> Self::Vector<S>;
    /// Overwrites the first numbers of a slice.
    fn store<S: Simd>(simd: S, to: &mut [Self], x: Self::Vector<S>);
    /// Transposes a block of 8 × 8: `to[j * to_stride + i] = from[i * from_stride + j]`.
    fn flip<S: Simd>(simd: S, from: &[Self], from_stride: usize, to: &mut [Self], to_stride: usize);
}

/// [`Lanes::flip`], number by number.
#[inline(always)]
fn flip_plainly<T: Copy>(from: &[T], from_stride: usize, to: &mut [T], to_stride: usize) {
    for j in 0..BLOCK {
        let row = &mut to[j * to_stride..][..BLOCK];
        for i in 0..BLOCK {
            row[i] = from[i * from_stride + j];
        }
    }
}

/// [`Lanes::flip`] of `f32` in eight registers: pairs, then fours, then halves.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn flip_in_registers(
    simd: pulp::x86::V3,
    from: &[f32],
    from_stride: usize,
    to: &mut [f32],
    to_stride: usize,
) {
    use std::arch::x86_64::__m256;
    let avx = simd.avx;
    let row: [__m256; BLOCK] = std::array::from_fn(
        #[inline(always)]
        |i| pulp::cast(f32::load(simd, &from[i * from_stride..])),
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
        f32::store(simd, &mut to[j * to_stride..], pulp::cast(first));
        f32::store(simd, &mut to[(j + 4) * to_stride..], pulp::cast(second));
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
    ($ty:ty, $vector:ident, $lanes:ident, $splat:ident, $fma:ident, $flip:item) => {
        impl Lanes for $ty {
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
            fn load<S: Simd>(_: S, from: &[Self]) -> S::$vector {
                bytemuck::pod_read_unaligned(bytemuck::cast_slice(&from[..S::$lanes]))
            }
            #[inline(always)]
            fn store<S: Simd>(_: S, to: &mut [Self], x: S::$vector) {
                to[..S::$lanes].copy_from_slice(bytemuck::cast_slice(&[x]));
            }
            $flip
        }
    };
}

lanes!(
    f32,
    f32s,
    F32_LANES,
    splat_f32s,
    mul_add_f32s,
    #[inline(always)]
    fn flip<S: Simd>(simd: S, from: &[f32], from_stride: usize, to: &mut [f32], to_stride: usize) {
        #[cfg(target_arch = "x86_64")]
        if let Some(v3) = avx2(simd) {
            flip_in_registers(v3, from, from_stride, to, to_stride);
            return;
        }
        flip_plainly(from, from_stride, to, to_stride);
    }
);
lanes!(
    f64,
    f64s,
    F64_LANES,
    splat_f64s,
    mul_add_f64s,
    #[inline(always)]
    fn flip<S: Simd>(_: S, from: &[f64], from_stride: usize, to: &mut [f64], to_stride: usize) {
        flip_plainly(from, from_stride, to, to_stride);
    }
);
