//! Element-wise functions and reductions over slices, vectorised for the machine they run on.
//!
//! The loops are plain Rust; [`simd`] compiles each once per instruction set and picks at run time, so
//! that a portable binary reaches the wide units. An element's result never depends on its place in the
//! slice, and reductions use a fixed number of virtual lanes: the same bits for every vector width.

use crate::Real;
use pulp::Arch;

/// Runs `|| body` compiled for the best instruction set of this machine:
/// [`kernels::simd`](crate::kernels::simd) with a closure that is always inlined.
///
/// ```
/// let mut x = [1.0f64; 8];
/// pgrad_num::simd!(|| x.iter_mut().for_each(|v| *v = v.mul_add(2.0, 1.0)));
/// assert_eq!(x, [3.0; 8]);
/// ```
#[macro_export]
macro_rules! simd {
    (|| $body:expr) => {
        $crate::kernels::simd(
            #[inline(always)]
            || $body,
        )
    };
}

/// Runs `f` compiled for the best instruction set of this machine.
///
/// `f` must be inlined into each of the versions, and so must what it calls (`#[inline(always)]`): a closure
/// of more than a few instructions that is called from several places is otherwise compiled once, for the
/// oldest machine, where every `mul_add` is a function call. The macro [`simd!`](crate::simd) sees to it.
#[inline(always)]
pub fn simd<T>(f: impl FnOnce() -> T) -> T {
    Arch::new().dispatch(f)
}

/// Name of the instruction set that [`simd`] uses here.
#[must_use]
pub fn instruction_set() -> &'static str {
    let name = format!("{:?}", Arch::new());
    match name.as_str() {
        n if n.starts_with("V4") => "x86-64-v4 (AVX-512)",
        n if n.starts_with("V3") => "x86-64-v3 (AVX2, FMA)",
        _ => "baseline",
    }
}

const LOG2_E: f32 = std::f32::consts::LOG2_E;
// ln 2 in two parts: the first has trailing zeros, so that n * LN2_HI is exact for |n| < 2^9.
const LN2_HI: f32 = 0.693_359_4;
const LN2_LO: f32 = -2.121_944_4e-4;
// Adding 1.5 * 2^23 rounds to the nearest integer and leaves it in the low bits.
const ROUND: f32 = 12_582_912.0;

/// `x = n ln 2 + r` with `|r| <= ln 2 / 2`: returns `2^n` and `exp(r) - 1` (Taylor, degree 7: the
/// remainder is below 6e-9 of the result).
#[inline(always)]
fn exp_parts(x: f32) -> (f32, f32) {
    let shifted = x.mul_add(LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = (-n).mul_add(LN2_LO, (-n).mul_add(LN2_HI, x));
    let q = (1.0f32 / 5040.0)
        .mul_add(r, 1.0 / 720.0)
        .mul_add(r, 1.0 / 120.0)
        .mul_add(r, 1.0 / 24.0)
        .mul_add(r, 1.0 / 6.0)
        .mul_add(r, 0.5);
    let expm1 = (r * r).mul_add(q, r);
    let two_n = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    (two_n, expm1)
}

/// `exp(x)`: within 2 ulp on `[-87.3, 88.3]`, 0 below, infinite above, NaN for NaN.
#[inline(always)]
#[must_use]
pub fn exp1(x: f32) -> f32 {
    let (two_n, expm1) = exp_parts(x);
    let y = two_n.mul_add(expm1, two_n);
    let y = if x < -87.3 { 0.0 } else { y };
    if x > 88.3 { f32::INFINITY } else { y }
}

// tanh x ≈ x P(x²) / Q(x²), both of degree 4 with P(0) = Q(0) = 1: our own minimax fit of the relative error
// on
// |x| ≤ 8.9, 1.9e-8, by Lawson's iteration; then the coefficients of single precision around it with the smallest error.
const TANH_P: [f32; 4] = [0.133_904_22, 0.003_506_665_6, 2.078_849_1e-5, 1.359_851_25e-8];
const TANH_Q: [f32; 4] = [0.467_237_44, 0.025_919_331, 3.303_622_4e-4, 7.877_327e-7];
/// Where the fit reaches 1.
const TANH_MAX: f32 = 8.9;

/// 1 + c₀ z + c₁ z² + ...
#[inline(always)]
fn poly4(c: &[f32; 4], z: f32) -> f32 {
    c[3].mul_add(z, c[2]).mul_add(z, c[1]).mul_add(z, c[0]).mul_add(z, 1.0)
}

/// `x` within `±bound`, NaN for NaN.
#[inline(always)]
fn clamp(x: f32, bound: f32) -> f32 {
    let x = if x > bound { bound } else { x };
    if x < -bound { -bound } else { x }
}

/// `tanh(x)`: within 6 ulp everywhere, never beyond ±1, NaN for NaN.
///
/// A quotient of polynomials: fewer operations than an exponential, and its numerator and denominator do not
/// wait for each other.
#[inline(always)]
#[must_use]
pub fn tanh1(x: f32) -> f32 {
    let x = clamp(x, TANH_MAX);
    let z = x * x;
    clamp(x * poly4(&TANH_P, z) / poly4(&TANH_Q, z), 1.0)
}

/// `ln(x)`: within 2 ulp for normal numbers; −∞ at 0, NaN below, +∞ at +∞, NaN for NaN; subnormal numbers
/// count as the smallest normal one.
///
/// `x = 2^k m` with `m` in `[√½, √2)`; `ln m = 2 (s + s³/3 + s⁵/5 + ...)` with `s = (m-1)/(m+1)`.
#[inline(always)]
#[must_use]
pub fn ln1(x: f32) -> f32 {
    const SQRT_HALF_BITS: u32 = 0x3f35_04f3;
    let normal = if x < f32::MIN_POSITIVE { f32::MIN_POSITIVE } else { x };
    let shifted = normal.to_bits().wrapping_sub(SQRT_HALF_BITS);
    let k = ((shifted as i32) >> 23) as f32;
    let m = f32::from_bits((shifted & 0x007f_ffff).wrapping_add(SQRT_HALF_BITS));
    let f = m - 1.0;
    let s = f / (2.0 + f);
    let z = s * s;
    let p = (2.0f32 / 9.0).mul_add(z, 2.0 / 7.0).mul_add(z, 2.0 / 5.0).mul_add(z, 2.0 / 3.0);
    // 2s = f - s f, so that the leading term stays exact for x near 1.
    let tail = (s * z).mul_add(p, k.mul_add(LN2_LO, -(s * f)));
    let y = k.mul_add(LN2_HI, f + tail);
    let y = if x == 0.0 { f32::NEG_INFINITY } else { y };
    let y = if x == f32::INFINITY { f32::INFINITY } else { y };
    if x < 0.0 || x.is_nan() { f32::NAN } else { y }
}

/// Elements of a block: a loop of known length over it becomes straight vector code. Two vectors of AVX2:
/// enough to overlap, and few enough for the registers.
pub const BLOCK: usize = 16;

/// [`tanh1`] of a block.
#[inline(always)]
pub fn tanh_block(x: &mut [f32; BLOCK]) {
    for v in x {
        *v = tanh1(*v);
    }
}

/// `tanh` of a block, from the standard library.
#[inline(always)]
pub fn tanh_block_f64(x: &mut [f64; BLOCK]) {
    for v in x {
        *v = v.tanh();
    }
}

macro_rules! map_slice {
    ($(#[$doc:meta])* $name:ident, $ty:ty, $f:expr) => {
        $(#[$doc])*
        pub fn $name(x: &mut [$ty]) {
            simd!(|| {
                for v in x.iter_mut() {
                    *v = $f(*v);
                }
            });
        }
    };
}

map_slice!(/// [`tanh1`] of every element.
    tanh_f32, f32, tanh1);
map_slice!(/// [`exp1`] of every element.
    exp_f32, f32, exp1);
map_slice!(/// [`ln1`] of every element.
    ln_f32, f32, ln1);
map_slice!(/// `exp` of every element, from the standard library.
    exp_f64, f64, f64::exp);
map_slice!(/// `tanh` of every element, from the standard library.
    tanh_f64, f64, f64::tanh);
map_slice!(/// `ln` of every element, from the standard library.
    ln_f64, f64, f64::ln);

const LANES: usize = 16;

#[inline(always)]
fn fold_lanes(mut acc: [f64; LANES], tail: f64) -> f64 {
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for i in 0..width {
            acc[i] += acc[i + width];
        }
    }
    acc[0] + tail
}

#[inline(always)]
fn reduce<R: Real>(x: &[R], y: &[R], term: impl Fn(R, R) -> f64) -> f64 {
    assert_eq!(x.len(), y.len());
    let mut acc = [0.0f64; LANES];
    let (xs, ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let mut tail = 0.0;
    for (a, b) in xs.remainder().iter().zip(ys.remainder()) {
        tail += term(*a, *b);
    }
    for (a, b) in xs.zip(ys) {
        for i in 0..LANES {
            acc[i] += term(a[i], b[i]);
        }
    }
    fold_lanes(acc, tail)
}

/// `Σ x_i`, in double precision.
#[must_use]
pub fn sum<R: Real>(x: &[R]) -> f64 {
    simd!(|| reduce(x, x, |a, _| a.f64()))
}

/// `Σ x_i y_i`, in double precision.
///
/// # Panics
/// When the lengths differ.
#[must_use]
pub fn dot<R: Real>(x: &[R], y: &[R]) -> f64 {
    simd!(|| reduce(x, y, |a, b| a.f64() * b.f64()))
}

/// `Σ (x_i - center)²`, in double precision.
#[must_use]
pub fn sum_of_squares<R: Real>(x: &[R], center: f64) -> f64 {
    simd!(|| {
        reduce(x, x, |a, _| {
            let d = a.f64() - center;
            d * d
        })
    })
}

/// `y += a x`.
///
/// # Panics
/// When the lengths differ.
pub fn axpy<R: Real>(a: R, x: &[R], y: &mut [R]) {
    assert_eq!(x.len(), y.len());
    simd!(|| {
        for (yi, xi) in y.iter_mut().zip(x) {
            *yi = a.mul_add(*xi, *yi);
        }
    });
}

/// `x *= a`.
pub fn scale<R: Real>(a: R, x: &mut [R]) {
    simd!(|| {
        for v in x.iter_mut() {
            *v *= a;
        }
    });
}

/// Whether every element is finite.
///
/// `x − x` is 0 for a finite number and NaN otherwise, so one subtraction and one addition an element
/// decide, without a branch.
#[must_use]
#[expect(clippy::eq_op, reason = "x - x tells finite numbers from the others")]
pub fn all_finite<R: Real>(x: &[R]) -> bool {
    simd!(|| {
        let mut acc = [R::ZERO; LANES];
        let chunks = x.chunks_exact(LANES);
        let mut tail = R::ZERO;
        for v in chunks.remainder() {
            tail += *v - *v;
        }
        for c in chunks {
            for i in 0..LANES {
                acc[i] += c[i] - c[i];
            }
        }
        for a in acc {
            tail += a;
        }
        tail == R::ZERO
    })
}

/// Index of the first element that is not finite.
#[must_use]
pub fn first_non_finite<R: Real>(x: &[R]) -> Option<usize> {
    if all_finite(x) { None } else { x.iter().position(|v| !v.is_finite()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Distance in units of the last place of the exact result.
    fn ulps(got: f32, exact: f64) -> f64 {
        let e = exact as f32;
        let ulp = f64::from(f32::from_bits((e.abs().to_bits() + 1).min(0x7f7f_ffff)) - e.abs()).max(1e-45);
        (f64::from(got) - exact).abs() / ulp
    }

    /// Every 1009th float of the given sign and range.
    fn floats(low: f32, high: f32) -> impl Iterator<Item = f32> {
        (low.to_bits()..high.to_bits()).step_by(1009).map(f32::from_bits)
    }

    fn worst(range: impl Iterator<Item = f32>, f: fn(&mut [f32]), exact: fn(f64) -> f64) -> f64 {
        let x: Vec<f32> = range.collect();
        let mut y = x.clone();
        f(&mut y);
        x.iter().zip(&y).map(|(x, y)| ulps(*y, exact(f64::from(*x)))).fold(0.0, f64::max)
    }

    #[test]
    fn exp_is_within_its_bound() {
        assert!(worst(floats(1e-30, 88.3), exp_f32, f64::exp) <= 2.0);
        assert!(worst(floats(1e-30, 87.3).map(|x| -x), exp_f32, f64::exp) <= 2.0);
        let mut edge = [0.0, -87.4, -1e30, f32::NEG_INFINITY, 88.4, f32::INFINITY, f32::NAN];
        exp_f32(&mut edge);
        assert_eq!(&edge[..6], &[1.0, 0.0, 0.0, 0.0, f32::INFINITY, f32::INFINITY]);
        assert!(edge[6].is_nan());
    }

    #[test]
    fn tanh_is_within_its_bound() {
        // From the smallest subnormal number to the largest number.
        assert!(worst(floats(f32::from_bits(1), f32::MAX), tanh_f32, f64::tanh) <= 6.0);
        assert!(worst(floats(f32::from_bits(1), f32::MAX).map(|x| -x), tanh_f32, f64::tanh) <= 6.0);
        let mut edge = [0.0, f32::MAX, f32::INFINITY, f32::NEG_INFINITY, f32::MIN, -0.0, f32::NAN];
        tanh_f32(&mut edge);
        assert_eq!(&edge[..6], &[0.0, 1.0, 1.0, -1.0, -1.0, 0.0]);
        assert!(edge[5].is_sign_negative() && edge[6].is_nan());
    }

    #[test]
    fn tanh_never_exceeds_one_and_is_odd() {
        // Every number where rounding could lift it above 1.
        for bits in 6.0f32.to_bits()..10.0f32.to_bits() {
            let x = f32::from_bits(bits);
            let mut y = [x, -x];
            tanh_f32(&mut y);
            assert!(y[0] <= 1.0 && y[1] == -y[0], "tanh({x}) = {y:?}");
        }
    }

    #[test]
    fn ln_is_within_its_bound() {
        assert!(worst(floats(f32::MIN_POSITIVE, f32::MAX), ln_f32, f64::ln) <= 2.0);
        let mut edge = [0.0, 1.0, -1.0, f32::INFINITY, f32::NAN];
        ln_f32(&mut edge);
        assert_eq!((edge[0], edge[1], edge[3]), (f32::NEG_INFINITY, 0.0, f32::INFINITY));
        assert!(edge[2].is_nan() && edge[4].is_nan());
    }

    #[test]
    fn results_do_not_depend_on_the_place_in_the_slice() {
        let x: Vec<f32> = (0..67).map(|i| (i as f32 - 33.0) * 0.173).collect();
        let mut whole = x.clone();
        tanh_f32(&mut whole);
        for i in 0..x.len() {
            let mut one = [x[i]];
            tanh_f32(&mut one);
            assert_eq!(one[0].to_bits(), whole[i].to_bits());
        }
    }

    #[test]
    fn reductions_agree_with_slow_sums() {
        let x: Vec<f64> = (0..133).map(|i| (f64::from(i) * 0.7).sin()).collect();
        let y: Vec<f64> = (0..133).map(|i| (f64::from(i) * 0.3).cos()).collect();
        let slow = |f: &dyn Fn(usize) -> f64| (0..133).map(f).sum::<f64>();
        assert!((sum(&x) - slow(&|i| x[i])).abs() < 1e-12);
        assert!((dot(&x, &y) - slow(&|i| x[i] * y[i])).abs() < 1e-12);
        assert!((sum_of_squares(&x, 0.5) - slow(&|i| (x[i] - 0.5).powi(2))).abs() < 1e-12);
    }

    #[test]
    fn non_finite_numbers_are_found_wherever_they_stand() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for n in [1, 15, 16, 17, 64, 65] {
                for at in 0..n {
                    let mut x = vec![f32::MAX; n];
                    assert!(all_finite(&x));
                    x[at] = bad;
                    assert_eq!(first_non_finite(&x), Some(at));
                }
            }
        }
    }
}
