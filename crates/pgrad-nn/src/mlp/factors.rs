//! What Kronecker-factored curvature needs of a network: second moments of each layer's inputs and cotangents.

use super::{Activation, Mlp, Tape};
use pgrad_num::gemm::{Mat, Write, matmul};
use pgrad_num::{Cols, Real, simd};
use std::ops::Range;

/// A layer `Z = W X + b`: where its parameters lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Outputs.
    pub rows: usize,
    /// Inputs; 0 for a free head, which has only a bias.
    pub cols: usize,
    /// Its weights, `[rows x cols]`, row after row.
    pub weight: Range<usize>,
    /// Its biases.
    pub bias: Range<usize>,
}

/// Sums over samples, of one layer: `Σ x xᵀ`, `Σ x`, the number of samples, and `Σ g gᵀ` with `g` the cotangent
/// of `Z`.
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
    pub fn new(layer: &Layer) -> Self {
        Self {
            inputs: vec![R::ZERO; layer.cols * layer.cols],
            input_sum: vec![R::ZERO; layer.cols],
            samples: 0,
            cotangents: vec![R::ZERO; layer.rows * layer.rows],
        }
    }
    /// No samples again.
    pub fn clear(&mut self) {
        self.inputs.fill(R::ZERO);
        self.input_sum.fill(R::ZERO);
        self.samples = 0;
        self.cotangents.fill(R::ZERO);
    }
    fn add_inputs(&mut self, x: &[R], n: usize) {
        let cols = self.input_sum.len();
        if cols > 0 {
            matmul(&mut self.inputs, Write::Add, Mat::new(x, cols, n), Mat::new(x, cols, n).t());
        }
        for (sum, row) in self.input_sum.iter_mut().zip(x.chunks_exact(n)) {
            *sum += row.iter().fold(R::ZERO, |s, v| s + *v);
        }
        self.samples += n;
    }
    fn add_cotangents(&mut self, g: &[R], n: usize) {
        let rows = g.len() / n;
        matmul(&mut self.cotangents, Write::Add, Mat::new(g, rows, n), Mat::new(g, rows, n).t());
    }
}

/// `∂z = φ'(z) ∂h` in place.
#[inline(always)]
fn through<R: Real>(dz: &mut [R], h: &[R], slope: impl Fn(R) -> R) {
    for (d, h) in dz.iter_mut().zip(h) {
        *d *= slope(*h);
    }
}

impl Mlp {
    /// The layers: hidden ones, the linear heads stacked as one, the free heads stacked as one (if any).
    #[must_use]
    pub fn layers(&self) -> Vec<Layer> {
        let depth = self.widths.len() - 1;
        let mut layers: Vec<Layer> = (0..depth)
            .map(|l| {
                let (rows, cols, start) = (self.widths[l + 1], self.widths[l], self.starts[l]);
                let bias = start + rows * cols;
                Layer { rows, cols, weight: start..bias, bias: bias..bias + rows }
            })
            .collect();
        let (rows, cols, start) = (self.linear_rows, self.last_width(), self.starts[depth]);
        let bias = start + rows * cols;
        layers.push(Layer { rows, cols, weight: start..bias, bias: bias..bias + rows });
        if self.free_rows > 0 {
            let bias = bias + rows..bias + rows + self.free_rows;
            layers.push(Layer { rows: self.free_rows, cols: 0, weight: bias.start..bias.start, bias });
        }
        layers
    }

    /// Adds the batch last seen by `forward` to the sums of [`Mlp::layers`]' inputs.
    ///
    /// # Panics
    /// When the sizes do not fit the network and the batch.
    pub fn add_input_moments<R: Real>(&self, x: Cols<'_, R>, tape: &Tape<R>, sums: &mut [LayerSums<R>]) {
        let n = tape.cols;
        assert_eq!((x.rows(), x.cols()), (self.n_inputs(), n));
        let inputs = std::iter::once(x.data()).chain(tape.hidden.iter().map(Vec::as_slice));
        for ((sum, input), width) in sums.iter_mut().zip(inputs).zip(&self.widths) {
            sum.add_inputs(&input[..width * n], n);
        }
        if self.free_rows > 0
            && let Some(free) = sums.last_mut()
        {
            free.samples += n;
        }
    }

    /// Adds, for every sample of the batch last seen by `forward`, the outer product of each layer's cotangent
    /// with itself, when the outputs have the cotangent `d_out`: `Σ g gᵀ`.
    ///
    /// # Panics
    /// When the sizes do not fit the network and the batch.
    pub fn add_cotangent_moments<R: Real>(
        &self,
        theta: &[R],
        tape: &mut Tape<R>,
        d_out: Cols<'_, R>,
        sums: &mut [LayerSums<R>],
    ) {
        let n = tape.cols;
        assert_eq!((d_out.rows(), d_out.cols()), (self.n_outputs(), n));
        assert_eq!(theta.len(), self.n_params());
        let depth = tape.hidden.len();
        let (linear, free) = d_out.data().split_at(self.linear_rows * n);
        sums[depth].add_cotangents(linear, n);
        if self.free_rows > 0 {
            sums[depth + 1].add_cotangents(free, n);
        }
        let [current, next] = &mut tape.delta;
        let (mut current, mut next) = (current, next);
        let (w, _) = self.head_params(theta);
        for l in (0..depth).rev() {
            // The cotangent of h_l, through what lies above it; then of z_l.
            let rows = self.widths[l + 1];
            if l == depth - 1 {
                matmul(
                    &mut current[..rows * n],
                    Write::Replace,
                    w.t(),
                    Mat::new(linear, self.linear_rows, n),
                );
            } else {
                let (w, _) = self.hidden_params(theta, l + 1);
                let above = self.widths[l + 2];
                matmul(
                    &mut next[..rows * n],
                    Write::Replace,
                    w.t(),
                    Mat::new(&current[..above * n], above, n),
                );
                std::mem::swap(&mut current, &mut next);
            }
            let dz = &mut current[..rows * n];
            let h = &tape.hidden[l];
            match self.activation {
                Activation::Tanh => simd!(|| through(dz, h, |h| Activation::Tanh.slope(h))),
                Activation::Relu => simd!(|| through(dz, h, |h| Activation::Relu.slope(h))),
            }
            sums[l].add_cotangents(dz, n);
        }
    }
}
