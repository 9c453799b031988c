//! What Kronecker-factored curvature needs of a network: second moments of each layer's inputs and cotangents.

use super::{Activation, Mlp, Relu, Tanh, Tape, for_activation, times_slope};
use pgrad_num::gemm::{Mat, Write, add_outer, add_row_sums, matmul_then};
use pgrad_num::{Cols, Real};
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
            let x = Cols::new(x, cols, n);
            add_outer(&mut self.inputs, x, x);
            add_row_sums(&mut self.input_sum, x);
        }
        self.samples += n;
    }
    fn add_cotangents(&mut self, g: &[R], n: usize) {
        let g = Cols::new(g, g.len() / n, n);
        add_outer(&mut self.cotangents, g, g);
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
        // `above` holds the cotangent of what `w` makes of the layer below it.
        let (mut w, mut above) = (self.head_params(theta).0, Mat::new(linear, self.linear_rows, n));
        for l in (0..depth).rev() {
            let rows = self.widths[l + 1];
            let (dz, h) = (&mut next[..rows * n], &tape.hidden[l][..rows * n]);
            for_activation!(self.activation, |P| matmul_then(
                dz,
                Write::Replace,
                w.t(),
                above,
                #[inline(always)]
                |i, j, d| times_slope::<R, P>(d, &h[i * n + j..]),
            ));
            std::mem::swap(&mut current, &mut next);
            sums[l].add_cotangents(&current[..rows * n], n);
            above = Mat::new(&current[..rows * n], rows, n);
            w = self.hidden_params(theta, l).0;
        }
    }
}
