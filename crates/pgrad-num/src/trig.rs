//! `sin` and `cos` together, in double precision, vectorised.
//!
//! Reduction: `x = k π/2 + r` with `|r| ≤ π/4`, where `π/2 = P1 + P2 + P3` (Cody and Waite, *Software Manual
//! for the Elementary Functions*, 1980). With a fused multiply-add `x − k P1` is exact, so two more terms
//! keep `r` right to its last place. Then a polynomial for each of the two functions, and the quadrant
//! `k mod 4` says which of them is which, and their signs.
//!
//! The polynomials are our own minimax fits: the exchange algorithm of Remez in 60-digit arithmetic for
//! `S(z) = (sin r / r − 1) / z` and `C(z) = (cos r − 1 + z/2) / z²` on `0 < z = r² ≤ 1.0001 (π/4)²`, six
//! coefficients each, with weights that make the error of `sin r` and `cos r` relative: 1.1e-17 and 1.1e-18
//! after the coefficients are rounded to double precision.

use crate::simd;

/// Largest `|x|` for which [`sincos1`] keeps its bound.
pub const SINCOS_MAX: f64 = 1e5;

// π/2 in three parts of 53 bits each.
const P1: f64 = std::f64::consts::FRAC_PI_2;
const P2: f64 = 6.123_233_995_736_766e-17;
const P3: f64 = -1.497_384_904_859_169_8e-33;
// Adding 1.5 * 2^52 rounds to the nearest integer and leaves it in the low bits.
const ROUND: f64 = 6_755_399_441_055_744.0;

const S: [f64; 6] = [
    -0.166_666_666_666_666_3,
    0.008_333_333_333_322_113,
    -0.000_198_412_698_295_848_52,
    2.755_731_361_970_196e-6,
    -2.505_074_749_058_121_3e-8,
    1.589_621_389_909_221e-10,
];
const C: [f64; 6] = [
    0.041_666_666_666_666_595,
    -0.001_388_888_888_887_305,
    2.480_158_728_884_654_4e-5,
    -2.755_731_417_776_597e-7,
    2.087_570_062_871_298e-9,
    -1.135_852_522_041_719_1e-11,
];

#[inline(always)]
fn poly(c: &[f64; 6], z: f64) -> f64 {
    c[5].mul_add(z, c[4]).mul_add(z, c[3]).mul_add(z, c[2]).mul_add(z, c[1]).mul_add(z, c[0])
}

/// `(sin x, cos x)` for `|x| ≤ 1e5`, in radians: within 2 ulp, and within 2.3e-16.
///
/// NaN for NaN and the infinities; the sine of −0 is +0. Beyond [`SINCOS_MAX`] the bound is lost bit by bit,
/// and beyond 1e15 the result means nothing: [`sincos`] is right everywhere. There is no branch inside, so
/// that a loop over a slice vectorises within [`simd`].
#[inline(always)]
#[must_use]
pub fn sincos1(x: f64) -> (f64, f64) {
    let shifted = x.mul_add(std::f64::consts::FRAC_2_PI, ROUND);
    let k = shifted - ROUND;
    let quadrant = shifted.to_bits();
    let r = (-k).mul_add(P3, (-k).mul_add(P2, (-k).mul_add(P1, x)));
    let z = r * r;
    let s = (r * z).mul_add(poly(&S, z), r);
    let c = (z * z).mul_add(poly(&C, z), (-0.5f64).mul_add(z, 1.0));
    let odd = quadrant & 1 == 1;
    let (sin, cos) = (if odd { c } else { s }, if odd { s } else { c });
    // Quadrants 2 and 3 have a negative sine, 1 and 2 a negative cosine.
    let sin_sign = (quadrant & 2) << 62;
    let cos_sign = (quadrant.wrapping_add(1) & 2) << 62;
    (f64::from_bits(sin.to_bits() ^ sin_sign), f64::from_bits(cos.to_bits() ^ cos_sign))
}

/// `sin x` and `cos x` of every element: [`sincos1`] where it is right, the standard library beyond.
///
/// # Panics
/// When the lengths differ.
pub fn sincos(x: &[f64], sin: &mut [f64], cos: &mut [f64]) {
    assert!(x.len() == sin.len() && x.len() == cos.len(), "x, sin and cos have one length");
    let small = simd!(|| {
        let mut largest = 0.0f64;
        for i in 0..x.len() {
            (sin[i], cos[i]) = sincos1(x[i]);
            largest = if x[i].abs() > largest { x[i].abs() } else { largest };
        }
        largest <= SINCOS_MAX
    });
    if !small {
        for i in 0..x.len() {
            if x[i].abs() > SINCOS_MAX {
                (sin[i], cos[i]) = x[i].sin_cos();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Stream;
    use std::f64::consts::{FRAC_PI_2, PI};

    fn ulps(got: f64, exact: f64) -> f64 {
        let ulp = f64::from_bits(exact.abs().to_bits() + 1) - exact.abs();
        (got - exact).abs() / ulp
    }

    /// Worst error in ulp and in absolute terms against the standard library (itself within 0.6 ulp).
    fn worst(x: &[f64]) -> (f64, f64) {
        let (mut s, mut c) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        sincos(x, &mut s, &mut c);
        let mut worst = (0.0f64, 0.0f64);
        for i in 0..x.len() {
            let (es, ec) = x[i].sin_cos();
            worst.0 = worst.0.max(ulps(s[i], es)).max(ulps(c[i], ec));
            worst.1 = worst.1.max((s[i] - es).abs()).max((c[i] - ec).abs());
        }
        worst
    }

    #[test]
    fn sincos_is_within_its_bound() {
        let mut rng = Stream::new(1, 0, 0);
        for range in [1e-300, 1e-8, 0.1, 0.8, 1.6, PI, 10.0, 100.0, 1e3, 1e4, SINCOS_MAX] {
            let x: Vec<f64> = (0..100_000).map(|_| rng.uniform_in(-range, range)).collect();
            let (ulp, absolute) = worst(&x);
            assert!(ulp <= 2.0 && absolute <= 2.3e-16, "range {range}: {ulp} ulp, {absolute}");
        }
    }

    #[test]
    fn relative_accuracy_survives_the_zeros() {
        // The nearest doubles to k π/2 are where the reduction cancels most.
        let x: Vec<f64> = (-63_661..=63_661)
            .flat_map(|k| {
                let x = f64::from(k) * FRAC_PI_2;
                [x, x.next_up(), x.next_down()]
            })
            .collect();
        let (ulp, _) = worst(&x);
        assert!(ulp <= 2.0, "{ulp} ulp");
    }

    #[test]
    fn beyond_its_range_the_standard_library_takes_over() {
        let x = [1.1e5, -3e9, 1e22, f64::MAX, 1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0];
        let (mut s, mut c) = ([0.0; 9], [0.0; 9]);
        sincos(&x, &mut s, &mut c);
        for i in 0..4 {
            assert_eq!((s[i], c[i]), x[i].sin_cos());
        }
        for i in 5..8 {
            assert!(s[i].is_nan() && c[i].is_nan());
        }
        assert_eq!((s[8], c[8]), (0.0, 1.0));
    }

    #[test]
    fn results_do_not_depend_on_the_place_in_the_slice() {
        let x: Vec<f64> = (0..67).map(|i| (f64::from(i) - 33.0) * 0.717).collect();
        let (mut s, mut c) = ([0.0; 67], [0.0; 67]);
        sincos(&x, &mut s, &mut c);
        for i in 0..x.len() {
            let (s1, c1) = sincos1(x[i]);
            assert_eq!((s1.to_bits(), c1.to_bits()), (s[i].to_bits(), c[i].to_bits()));
        }
    }
}
