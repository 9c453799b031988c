//! Linear operators that are applied, never formed.

use crate::{Real, kernels};

/// A square linear operator.
pub trait LinOp<R: Real> {
    /// Number of rows and columns.
    fn dim(&self) -> usize;
    /// `out = A v`.
    fn apply(&mut self, v: &[R], out: &mut [R]);
}

impl<R: Real, A: LinOp<R> + ?Sized> LinOp<R> for &mut A {
    fn dim(&self) -> usize {
        (**self).dim()
    }
    fn apply(&mut self, v: &[R], out: &mut [R]) {
        (**self).apply(v, out);
    }
}

/// An operator given by a closure `(v, out)`.
#[derive(Clone, Debug)]
pub struct FnOp<F> {
    dim: usize,
    apply: F,
}

impl<F> FnOp<F> {
    /// The operator of `dim` rows and columns that `apply` writes.
    pub fn new<R: Real>(dim: usize, apply: F) -> Self
    where
        F: FnMut(&[R], &mut [R]),
    {
        Self { dim, apply }
    }
}

impl<R: Real, F: FnMut(&[R], &mut [R])> LinOp<R> for FnOp<F> {
    fn dim(&self) -> usize {
        self.dim
    }
    fn apply(&mut self, v: &[R], out: &mut [R]) {
        (self.apply)(v, out);
    }
}

/// A matrix that is there, row after row.
#[derive(Clone, Copy, Debug)]
pub struct Dense<'a, R> {
    data: &'a [R],
    dim: usize,
}

impl<'a, R> Dense<'a, R> {
    /// A `[dim x dim]` matrix.
    ///
    /// # Panics
    /// When `data.len() != dim * dim`.
    #[must_use]
    pub fn new(data: &'a [R], dim: usize) -> Self {
        assert_eq!(data.len(), dim * dim, "a [{dim} x {dim}] matrix needs {} elements", dim * dim);
        Self { data, dim }
    }
}

impl<R: Real> LinOp<R> for Dense<'_, R> {
    fn dim(&self) -> usize {
        self.dim
    }
    fn apply(&mut self, v: &[R], out: &mut [R]) {
        for (i, o) in out.iter_mut().enumerate() {
            *o = R::of(kernels::dot(&self.data[i * self.dim..(i + 1) * self.dim], v));
        }
    }
}

/// `A + damping I`.
#[derive(Clone, Debug)]
pub struct Damped<A, R> {
    /// `A`.
    pub inner: A,
    /// What is added to the diagonal.
    pub damping: R,
}

impl<R: Real, A: LinOp<R>> LinOp<R> for Damped<A, R> {
    fn dim(&self) -> usize {
        self.inner.dim()
    }
    fn apply(&mut self, v: &[R], out: &mut [R]) {
        self.inner.apply(v, out);
        kernels::axpy(self.damping, v, out);
    }
}

/// `xᵀ A x`, in double precision; `product` receives `A x`.
///
/// # Panics
/// When a length is not the operator's.
pub fn quadratic_form<R: Real>(a: &mut impl LinOp<R>, x: &[R], product: &mut [R]) -> f64 {
    assert!(x.len() == a.dim() && product.len() == a.dim(), "the operator has {} rows", a.dim());
    a.apply(x, product);
    kernels::dot(x, product)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgrad_testkit as testkit;

    #[test]
    fn operators_agree_with_the_dense_matrix() {
        let n = 19;
        let a = testkit::Dense::random_spd(n, 0.5, 3);
        let read = testkit::Dense::of_operator(n, n, |v, out| Dense::new(a.data(), n).apply(v, out));
        assert!(read.max_difference(&a) < 1e-15);
        let mut damped =
            Damped { inner: FnOp::new(n, |v: &[f64], out: &mut [f64]| a.mul_into(v, out)), damping: 0.25 };
        assert_eq!(damped.dim(), n);
        let read = testkit::Dense::of_operator(n, n, |v, out| damped.apply(v, out));
        let shifted = testkit::Dense::from_fn(n, n, |i, j| a.at(i, j) + if i == j { 0.25 } else { 0.0 });
        assert!(read.max_difference(&shifted) < 1e-14);
        let x = testkit::random_vector(1, n);
        let slow: f64 = x.iter().zip(shifted.mul(&x)).map(|(x, y)| x * y).sum();
        assert!((quadratic_form(&mut damped, &x, &mut vec![0.0; n]) - slow).abs() < 1e-12);
    }
}
