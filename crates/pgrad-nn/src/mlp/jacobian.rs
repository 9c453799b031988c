//! The Jacobian of a batch, kept in factors, for many products with it at the same parameters.
//!
//! The row of output `r` is made of one block for each layer, `∂y_r/∂W_l = s_l^r h_{l-1}ᵀ`, with the slopes
//! `s_l^r = ∂y_r/∂z_l` of a sample. Once they are known, a tangent needs one matrix product a layer instead of two, and
//! so does a cotangent: nothing has to pass through the layers above any more. What takes their place costs as much as
//! there are outputs, so it pays when these are few.

use super::{Activation, Mlp, Relu, Tanh, Tape, for_activation, times_slope};
use pgrad_num::gemm::{Mat, Write, add_outer, add_row_sums, matmul};
use pgrad_num::{Cols, ColsMut, Real, simd};

/// The slopes `∂y_r/∂z_l` of a batch: for each hidden layer a matrix `[rows x cols]` for each output.
#[derive(Clone, Debug)]
pub struct Jacobian<R> {
    slopes: Vec<Vec<R>>,
    max_cols: usize,
}

impl Mlp {
    /// Whether products by way of a [`Jacobian`] are cheaper than [`Mlp::jvp`] and [`Mlp::vjp`]: there are layers
    /// between hidden ones to be saved, and few outputs.
    #[must_use]
    pub fn jacobian_pays(&self) -> bool {
        let hidden = &self.widths[1..];
        hidden.len() > 1 && hidden.iter().all(|w| 16 * self.linear_rows <= *w)
    }
    /// Room for the slopes of batches of up to `max_cols` samples.
    #[must_use]
    pub fn jacobian<R: Real>(&self, max_cols: usize) -> Jacobian<R> {
        let room = |w: &usize| vec![R::ZERO; self.linear_rows * w * max_cols];
        Jacobian { slopes: self.widths[1..].iter().map(room).collect(), max_cols }
    }
    /// Numbers of a [`Jacobian`] for one sample.
    #[must_use]
    pub fn jacobian_len(&self) -> usize {
        self.linear_rows * self.widths[1..].iter().sum::<usize>()
    }

    /// Computes the slopes of the batch last seen by `forward`.
    ///
    /// # Panics
    /// When the sizes do not fit the network and the batch.
    pub fn linearize<R: Real>(&self, theta: &[R], tape: &Tape<R>, jacobian: &mut Jacobian<R>) {
        let n = tape.cols;
        assert!(
            n <= jacobian.max_cols,
            "the batch has {n} samples, the Jacobian room for {}",
            jacobian.max_cols
        );
        assert_eq!(theta.len(), self.n_params());
        let depth = tape.hidden.len();
        for l in (0..depth).rev() {
            let rows = self.widths[l + 1];
            let h = &tape.hidden[l][..rows * n];
            let (here, above) = jacobian.slopes.split_at_mut(l + 1);
            for (r, s) in here[l].chunks_exact_mut(rows * n).take(self.linear_rows).enumerate() {
                if l + 1 == depth {
                    let (w, _) = self.head_weights(theta);
                    for (row, w) in s.chunks_exact_mut(n).zip(&w[r * rows..(r + 1) * rows]) {
                        row.fill(*w);
                    }
                } else {
                    let width = self.widths[l + 2];
                    let (w, _) = self.hidden_params(theta, l + 1);
                    let above = &above[0][r * width * n..(r + 1) * width * n];
                    matmul(s, Write::Replace, w.t(), Mat::new(above, width, n));
                }
                for_activation!(self.activation, |P| simd!(|| times_slope::<R, P>(s, h)));
            }
        }
    }

    /// `Ẏ = J_θ θ̇`, as [`Mlp::jvp`], by the slopes of [`Mlp::linearize`].
    ///
    /// # Panics
    /// When the sizes do not fit the network and the batch.
    pub fn jvp_by<R: Real>(
        &self,
        jacobian: &Jacobian<R>,
        x: Cols<'_, R>,
        tape: &mut Tape<R>,
        v_theta: &[R],
        mut out: ColsMut<'_, R>,
    ) {
        let n = tape.cols;
        assert_eq!((x.rows(), x.cols()), (self.n_inputs(), n));
        assert_eq!((out.rows(), out.cols()), (self.n_outputs(), n));
        assert_eq!(v_theta.len(), self.n_params());
        let last = self.last_width();
        let top = tape.hidden.last().map_or(x.data(), |h| &h[..last * n]);
        let (v_w, v_b) = self.head_params(v_theta);
        let (linear, free) = out.data_mut().split_at_mut(self.linear_rows * n);
        matmul(linear, Write::Bias(&v_b[..self.linear_rows]), v_w, Mat::new(top, last, n));
        for (row, b) in free.chunks_exact_mut(n).zip(&v_b[self.linear_rows..]) {
            row.fill(*b);
        }
        let mut input = x.data();
        for (l, (h, slopes)) in tape.hidden.iter().zip(&jacobian.slopes).enumerate() {
            let (rows, cols) = (self.widths[l + 1], self.widths[l]);
            let (v_w, v_b) = self.hidden_params(v_theta, l);
            let dz = &mut tape.delta[0][..rows * n];
            matmul(dz, Write::Replace, v_w, Mat::new(input, cols, n)); // Ẇ_l h_{l-1}
            for (y, s) in linear.chunks_exact_mut(n).zip(slopes.chunks_exact(rows * n)) {
                simd!(|| add_columns_dots(y, s, dz, v_b)); // ẏ_r += s_l^r · (Ẇ_l h_{l-1} + ḃ_l)
            }
            input = &h[..rows * n];
        }
    }

    /// `∂θ += J_θᵀ ∂Y`, as [`Mlp::vjp`], by the slopes of [`Mlp::linearize`].
    ///
    /// # Panics
    /// When the sizes do not fit the network and the batch.
    pub fn vjp_by<R: Real>(
        &self,
        jacobian: &Jacobian<R>,
        x: Cols<'_, R>,
        tape: &mut Tape<R>,
        d_out: Cols<'_, R>,
        d_theta: &mut [R],
    ) {
        let n = tape.cols;
        assert_eq!((x.rows(), x.cols()), (self.n_inputs(), n));
        assert_eq!((d_out.rows(), d_out.cols()), (self.n_outputs(), n));
        assert_eq!(d_theta.len(), self.n_params());
        let (layers, last) = (tape.hidden.len(), self.last_width());
        let top = tape.hidden.last().map_or(x.data(), |h| &h[..last * n]);
        let d_linear = &d_out.data()[..self.linear_rows * n];
        let (d_w, d_b) = d_theta[self.starts[layers]..].split_at_mut(self.linear_rows * last);
        add_outer(d_w, d_out.row_range(0, self.linear_rows), Cols::new(top, last, n));
        add_row_sums(d_b, d_out);
        let mut input = x.data();
        for (l, (h, slopes)) in tape.hidden.iter().zip(&jacobian.slopes).enumerate() {
            let (rows, cols) = (self.widths[l + 1], self.widths[l]);
            let dz = &mut tape.delta[0][..rows * n];
            dz.fill(R::ZERO);
            for (d, s) in d_linear.chunks_exact(n).zip(slopes.chunks_exact(rows * n)) {
                simd!(|| add_scaled_columns(dz, s, d)); // ∂z_l = Σ_r ∂y_r s_l^r
            }
            let (d_w, rest) = d_theta[self.starts[l]..].split_at_mut(rows * cols);
            let dz = Cols::new(dz, rows, n);
            add_row_sums(&mut rest[..rows], dz);
            add_outer(d_w, dz, Cols::new(input, cols, n));
            input = &h[..rows * n];
        }
    }

    /// The weights of the linear heads, row after row; biases of all heads.
    fn head_weights<'a, R>(&self, theta: &'a [R]) -> (&'a [R], &'a [R]) {
        theta[self.starts[self.starts.len() - 1]..].split_at(self.linear_rows * self.last_width())
    }
}

/// `y_j += Σ_i s_ij (z_ij + b_i)`.
#[inline(always)]
fn add_columns_dots<R: Real>(y: &mut [R], s: &[R], z: &[R], b: &[R]) {
    let n = y.len();
    for ((s, z), b) in s.chunks_exact(n).zip(z.chunks_exact(n)).zip(b) {
        for ((y, s), z) in y.iter_mut().zip(s).zip(z) {
            *y = s.mul_add(*z + *b, *y);
        }
    }
}

/// `z_ij += d_j s_ij`.
#[inline(always)]
fn add_scaled_columns<R: Real>(z: &mut [R], s: &[R], d: &[R]) {
    let n = d.len();
    for (z, s) in z.chunks_exact_mut(n).zip(s.chunks_exact(n)) {
        for ((z, s), d) in z.iter_mut().zip(s).zip(d) {
            *z = s.mul_add(*d, *z);
        }
    }
}
