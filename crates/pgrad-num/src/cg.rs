//! Conjugate gradient: `A x = b` for a symmetric positive definite operator.

use crate::linop::LinOp;
use crate::{Real, kernels};

/// When to stop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CgParams {
    /// Most products with `A`. Default 10, the usual number for natural-gradient steps.
    pub max_iterations: usize,
    /// Stop when `|b - A x| <= tolerance |b|`. Default `1e-10`.
    pub tolerance: f64,
}

impl Default for CgParams {
    fn default() -> Self {
        Self { max_iterations: 10, tolerance: 1e-10 }
    }
}

/// What a solve did. Running out of iterations is an ordinary outcome.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CgInfo {
    /// Products with `A`.
    pub iterations: usize,
    /// `|b - A x| / |b|`, by the recurrence of the residual; 0 for `b = 0`.
    pub relative_residual: f64,
    /// Whether the residual reached the tolerance.
    pub converged: bool,
    /// `xᵀ A x`, without another product: `xᵀ (b - r)` with the residual `r`.
    pub quadratic_form: f64,
}

/// Why a solve cannot go on. `x` then holds the last good iterate.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum CgError {
    /// A direction `p` without positive curvature.
    #[error(
        "conjugate gradient needs a positive definite operator, but iteration {iteration} met a direction p \
         with curvature p'Ap = {curvature:e}; raise the damping"
    )]
    NotPositiveDefinite {
        /// `pᵀ A p`.
        curvature: f64,
        /// Iteration that met it, from 0.
        iteration: usize,
    },
    /// NaN or infinity.
    #[error("{what} of conjugate gradient is not finite at iteration {iteration}")]
    NonFinite {
        /// The number that went wrong.
        what: CgQuantity,
        /// Iteration, from 0.
        iteration: usize,
    },
}

/// A number inside a solve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgQuantity {
    /// `|b|²`.
    RightSide,
    /// `pᵀ A p`.
    Curvature,
    /// `|b - A x|²`.
    Residual,
}

impl std::fmt::Display for CgQuantity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::RightSide => "the right side",
            Self::Curvature => "the curvature",
            Self::Residual => "the residual",
        })
    }
}

/// Vectors that a solve needs; reused from solve to solve.
#[derive(Clone, Debug)]
pub struct CgScratch<R> {
    residual: Vec<R>,
    direction: Vec<R>,
    product: Vec<R>,
}

impl<R: Real> CgScratch<R> {
    /// Room for an operator of `dim` rows.
    #[must_use]
    pub fn new(dim: usize) -> Self {
        Self { residual: vec![R::ZERO; dim], direction: vec![R::ZERO; dim], product: vec![R::ZERO; dim] }
    }
}

/// Solves `A x = b` from `x = 0` (Hestenes and Stiefel 1952).
///
/// Iterate `k` minimises `xᵀAx/2 - bᵀx` over the first `k` powers of `A` applied to `b`, so that stopping
/// early still gives a direction with `bᵀx > 0`. Inner products are in double precision. The size of `b` does
/// not matter: it is brought near 1 by a power of two, which rounds nothing, so that no product underflows.
///
/// # Errors
/// [`CgError`]: a direction without positive curvature, or a number that is not finite.
///
/// # Panics
/// When the lengths of `b`, `x` and the scratch are not the operator's.
pub fn solve<R: Real>(
    a: &mut impl LinOp<R>,
    b: &[R],
    x: &mut [R],
    params: CgParams,
    scratch: &mut CgScratch<R>,
) -> Result<CgInfo, CgError> {
    let n = a.dim();
    assert!(b.len() == n && x.len() == n, "the operator has {n} rows, not {} and {}", b.len(), x.len());
    assert_eq!(scratch.residual.len(), n, "the scratch is for another operator");
    let finite = |value: f64, what: CgQuantity, iteration: usize| {
        if value.is_finite() { Ok(value) } else { Err(CgError::NonFinite { what, iteration }) }
    };
    x.fill(R::ZERO);
    let b_squared = finite(kernels::dot(b, b), CgQuantity::RightSide, 0)?;
    let size = if b_squared > 0.0 { b_squared.sqrt().log2().floor().exp2() } else { 1.0 };
    for (r, b) in scratch.residual.iter_mut().zip(b) {
        *r = R::of(b.f64() / size);
    }
    let mut solved = from_residual(a, x, b_squared / size / size, params, scratch, finite);
    if let Ok(info) = &mut solved {
        let ax = scratch.residual.iter().zip(b).map(|(r, b)| b.f64() / size - r.f64());
        info.quadratic_form = size * size * x.iter().zip(ax).map(|(x, ax)| x.f64() * ax).sum::<f64>();
    }
    for x in x {
        *x = R::of(x.f64() * size);
    }
    match solved {
        Err(CgError::NotPositiveDefinite { curvature, iteration }) => {
            Err(CgError::NotPositiveDefinite { curvature: curvature * size * size, iteration })
        }
        solved => solved,
    }
}

/// Solves for what the residual holds, of which `b_squared` is the squared norm.
fn from_residual<R: Real>(
    a: &mut impl LinOp<R>,
    x: &mut [R],
    b_squared: f64,
    params: CgParams,
    scratch: &mut CgScratch<R>,
    finite: impl Fn(f64, CgQuantity, usize) -> Result<f64, CgError>,
) -> Result<CgInfo, CgError> {
    let CgScratch { residual, direction, product } = scratch;
    direction.copy_from_slice(residual);
    let mut squared = b_squared;
    let mut iterations = 0;
    loop {
        let relative_residual = if b_squared == 0.0 { 0.0 } else { (squared / b_squared).sqrt() };
        let converged = relative_residual <= params.tolerance || squared == 0.0;
        if converged || iterations == params.max_iterations {
            return Ok(CgInfo { iterations, relative_residual, converged, quadratic_form: 0.0 });
        }
        a.apply(direction, product);
        let curvature = finite(kernels::dot(direction, product), CgQuantity::Curvature, iterations)?;
        if curvature <= 0.0 {
            return Err(CgError::NotPositiveDefinite { curvature, iteration: iterations });
        }
        let alpha = R::of(squared / curvature);
        kernels::axpy(-alpha, product, residual);
        let squared_next = finite(kernels::dot(residual, residual), CgQuantity::Residual, iterations)?;
        kernels::axpy(alpha, direction, x);
        kernels::scale(R::of(squared_next / squared), direction);
        kernels::axpy(R::ONE, residual, direction);
        squared = squared_next;
        iterations += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linop::{Damped, Dense, FnOp};
    use pgrad_testkit::{Dense as Oracle, random_vector};

    fn exact() -> CgParams {
        CgParams { max_iterations: 200, tolerance: 1e-12 }
    }

    #[test]
    fn agrees_with_the_dense_solve() {
        for n in [1, 2, 7, 40] {
            let a = Oracle::random_spd(n, 0.5, n as u64);
            let b = random_vector(2, n);
            let (mut x, mut scratch) = (vec![f64::NAN; n], CgScratch::new(n));
            // Twice: the scratch and x carry nothing from one solve to the next.
            for _ in 0..2 {
                let info = solve(&mut Dense::new(a.data(), n), &b, &mut x, exact(), &mut scratch).unwrap();
                assert!(info.converged && info.relative_residual <= 1e-12);
                for (x, y) in x.iter().zip(a.solve(&b)) {
                    assert!((x - y).abs() < 1e-10, "{x} {y}");
                }
            }
            let damped = Oracle::from_fn(n, n, |i, j| a.at(i, j) + if i == j { 2.0 } else { 0.0 });
            let mut op = Damped { inner: Dense::new(a.data(), n), damping: 2.0 };
            solve(&mut op, &b, &mut x, exact(), &mut scratch).unwrap();
            for (x, y) in x.iter().zip(damped.solve(&b)) {
                assert!((x - y).abs() < 1e-10);
            }
        }
    }

    #[test]
    fn the_quadratic_form_comes_with_the_solution_wherever_it_stops() {
        let n = 30;
        let a = Oracle::random_spd(n, 1e-2, 3);
        let b = random_vector(4, n);
        for max_iterations in [0, 1, 2, 5, 10, 60] {
            let (mut x, mut scratch) = (vec![0.0; n], CgScratch::new(n));
            let params = CgParams { max_iterations, tolerance: 1e-14 };
            let info = solve(&mut Dense::new(a.data(), n), &b, &mut x, params, &mut scratch).unwrap();
            let slow: f64 = x.iter().zip(a.mul(&x)).map(|(x, ax)| x * ax).sum();
            assert!((info.quadratic_form - slow).abs() <= 1e-9 * slow, "{max_iterations}: {info:?} {slow}");
        }
    }

    #[test]
    fn ends_after_as_many_iterations_as_there_are_eigenvalues() {
        // Three different eigenvalues in ten dimensions.
        let mut products = 0;
        let mut op = FnOp::new(10, |v: &[f64], out: &mut [f64]| {
            products += 1;
            for i in 0..10 {
                out[i] = [1.0, 2.0, 5.0][i % 3] * v[i];
            }
        });
        let info =
            solve(&mut op, &random_vector(1, 10), &mut [0.0; 10], exact(), &mut CgScratch::new(10)).unwrap();
        assert!(info.converged);
        assert_eq!((info.iterations, products), (3, 3));
    }

    #[test]
    fn says_when_it_ran_out_of_iterations() {
        let n = 30;
        let a = Oracle::random_spd(n, 1e-3, 1);
        let b = random_vector(2, n);
        let mut x = vec![0.0; n];
        let params = CgParams { max_iterations: 4, tolerance: 1e-12 };
        let info = solve(&mut Dense::new(a.data(), n), &b, &mut x, params, &mut CgScratch::new(n)).unwrap();
        assert_eq!((info.iterations, info.converged), (4, false));
        let residual: f64 = b.iter().zip(a.mul(&x)).map(|(b, ax)| (b - ax).powi(2)).sum();
        let norm: f64 = b.iter().map(|b| b * b).sum();
        assert!((info.relative_residual - (residual / norm).sqrt()).abs() < 1e-12);
        assert!(b.iter().zip(&x).map(|(b, x)| b * x).sum::<f64>() > 0.0);
    }

    #[test]
    fn the_size_of_the_right_side_does_not_matter() {
        let n = 12;
        let a: Vec<f32> = Oracle::random_spd(n, 1e-3, 8).data().iter().map(|x| *x as f32).collect();
        let b: Vec<f32> = random_vector(2, n).iter().map(|x| *x as f32).collect();
        let run = |scale: f32| {
            let b: Vec<f32> = b.iter().map(|b| b * scale).collect();
            let mut x = vec![0.0f32; n];
            let params = CgParams { max_iterations: 7, tolerance: 0.0 };
            let info = solve(&mut Dense::new(&a, n), &b, &mut x, params, &mut CgScratch::new(n)).unwrap();
            (x, info)
        };
        let (x, info) = run(1.0);
        for power in [-90, -13, 40] {
            let scale = 2f32.powi(power);
            // The same bits, but for the power of two.
            let quadratic_form = info.quadratic_form * f64::from(scale).powi(2);
            let expected = (x.iter().map(|x| x * scale).collect(), CgInfo { quadratic_form, ..info });
            assert_eq!(run(scale), expected, "2^{power}");
        }
        // Numbers so small that hardly a bit is left of them: a product with them would be 0.
        let mut op = FnOp::new(2, |v: &[f32], out: &mut [f32]| {
            out.iter_mut().zip(v).for_each(|(o, v)| *o = 1e-3 * v);
        });
        let (b, mut x) = ([2.8e-44, -1.4e-44], [0.0; 2]);
        let info = solve(&mut op, &b, &mut x, CgParams::default(), &mut CgScratch::new(2)).unwrap();
        assert!(info.relative_residual < 1e-6);
        assert!(x.iter().zip(&b).all(|(x, b): (&f32, &f32)| (x / b / 1e3 - 1.0).abs() < 1e-2), "{x:?}");
    }

    #[test]
    fn a_zero_right_side_needs_nothing() {
        let mut op = FnOp::new(3, |_: &[f32], _: &mut [f32]| panic!("no product is needed"));
        let mut x = [7.0f32; 3];
        let info = solve(&mut op, &[0.0; 3], &mut x, CgParams::default(), &mut CgScratch::new(3)).unwrap();
        assert_eq!(
            info,
            CgInfo { iterations: 0, relative_residual: 0.0, converged: true, quadratic_form: 0.0 }
        );
        assert_eq!(x, [0.0; 3]);
    }

    #[test]
    fn an_indefinite_operator_is_named_with_its_curvature() {
        let mut op = FnOp::new(2, |v: &[f64], out: &mut [f64]| {
            out[0] = v[0];
            out[1] = -3.0 * v[1];
        });
        let mut x = [0.0; 2];
        let mut scratch = CgScratch::new(2);
        let error = solve(&mut op, &[0.0, 2.0], &mut x, CgParams::default(), &mut scratch).unwrap_err();
        assert_eq!(error, CgError::NotPositiveDefinite { curvature: -12.0, iteration: 0 });
        // The first direction is fine, the second is not; x keeps what the first gave.
        let error = solve(&mut op, &[2.0, 1.0], &mut x, CgParams::default(), &mut scratch).unwrap_err();
        assert!(matches!(error, CgError::NotPositiveDefinite { iteration: 1, curvature } if curvature < 0.0));
        assert_eq!(x, [10.0, 5.0]);
        let zero = solve(
            &mut FnOp::new(1, |_: &[f64], o: &mut [f64]| o[0] = 0.0),
            &[1.0],
            &mut [0.0],
            CgParams::default(),
            &mut CgScratch::new(1),
        );
        assert_eq!(zero, Err(CgError::NotPositiveDefinite { curvature: 0.0, iteration: 0 }));
    }

    #[test]
    fn numbers_that_are_not_finite_are_named() {
        let run = |b: f64, product: f64| {
            let mut x = [9.0; 2];
            let mut op = FnOp::new(2, |v: &[f64], out: &mut [f64]| {
                out.copy_from_slice(v);
                out[1] = product;
            });
            let result = solve(&mut op, &[1.0, b], &mut x, CgParams::default(), &mut CgScratch::new(2));
            assert!(x.iter().all(|x| x.is_finite()));
            result
        };
        let error = |what| Err(CgError::NonFinite { what, iteration: 0 });
        assert_eq!(run(f64::NAN, 1.0), error(CgQuantity::RightSide));
        assert_eq!(run(1.0, f64::NAN), error(CgQuantity::Curvature));
        assert_eq!(run(1.0, f64::INFINITY), error(CgQuantity::Curvature));
        assert_eq!(run(1e-200, 1e200), error(CgQuantity::Residual));
    }

    #[test]
    fn single_precision_comes_close() {
        let n = 40;
        let a = Oracle::random_spd(n, 1.0, 8);
        let b = random_vector(2, n);
        let a32: Vec<f32> = a.data().iter().map(|x| *x as f32).collect();
        let b32: Vec<f32> = b.iter().map(|x| *x as f32).collect();
        let mut x = vec![0.0f32; n];
        let params = CgParams { max_iterations: 100, tolerance: 1e-6 };
        let info = solve(&mut Dense::new(&a32, n), &b32, &mut x, params, &mut CgScratch::new(n)).unwrap();
        assert!(info.converged);
        for (x, y) in x.iter().zip(a.solve(&b)) {
            assert!((f64::from(*x) - y).abs() < 1e-5, "{x} {y}");
        }
    }
}
