//! What Kronecker-factored curvature needs of a layer: second moments of its inputs and cotangents.

use pgrad_num::gemm::{Mat, add_outer, add_row_sums};
use pgrad_num::{Cols, Real};
use std::ops::Range;

/// An affine map `Z = W X + b`: where its parameters lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Affine {
    /// Outputs.
    pub rows: usize,
    /// Inputs; 0 for a free head, which has only a bias.
    pub cols: usize,
    /// Its weights, `[rows x cols]`, row after row.
    pub weight: Range<usize>,
    /// Its biases.
    pub bias: Range<usize>,
}

impl Affine {
    /// `W`.
    pub(crate) fn weights<'a, R>(&self, theta: &'a [R]) -> Mat<'a, R> {
        Mat::new(&theta[self.weight.clone()], self.rows, self.cols)
    }
    /// The same map where its layer's parameters begin at `start`.
    pub(crate) fn shifted(self, start: usize) -> Self {
        let shift = |r: Range<usize>| r.start + start..r.end + start;
        Self { weight: shift(self.weight), bias: shift(self.bias), ..self }
    }
}

/// Sums over samples, of one affine map: `Σ x xᵀ`, `Σ x`, the number of samples, and `Σ g gᵀ` with `g` the
/// cotangent of `Z`.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerSums<R> {
    /// `Σ x xᵀ`, `[cols x cols]`.
    pub inputs: Vec<R>,
    /// `Σ x`, `[cols]`.
    pub input_sum: Vec<R>,
    /// Samples in the two sums above.
    pub samples: usize,
    /// `Σ g gᵀ`, `[rows x rows]`.
    pub cotangents: Vec<R>,
}

impl<R: Real> LayerSums<R> {
    /// No samples yet.
    #[must_use]
    pub fn new(map: &Affine) -> Self {
        Self {
            inputs: vec![R::ZERO; map.cols * map.cols],
            input_sum: vec![R::ZERO; map.cols],
            samples: 0,
            cotangents: vec![R::ZERO; map.rows * map.rows],
        }
    }
    /// No samples again.
    pub fn clear(&mut self) {
        self.inputs.fill(R::ZERO);
        self.input_sum.fill(R::ZERO);
        self.samples = 0;
        self.cotangents.fill(R::ZERO);
    }
    /// Adds samples of the inputs; of a map without any, their number alone.
    pub fn add_inputs(&mut self, x: Cols<'_, R>) {
        if !self.input_sum.is_empty() {
            add_outer(&mut self.inputs, x, x);
            add_row_sums(&mut self.input_sum, x);
        }
        self.samples += x.cols();
    }
    /// Adds samples of the cotangents.
    pub fn add_cotangents(&mut self, g: Cols<'_, R>) {
        add_outer(&mut self.cotangents, g, g);
    }
}
