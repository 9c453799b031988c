//! The Jacobian of a batch, kept in factors, for many products with it at the same parameters.
//!
//! The row of output `r` is made of one block for each layer, `∂y_r/∂W_l = s_l^r h_{l-1}ᵀ`, with the slopes
//! `s_l^r = ∂y_r/∂z_l` of a sample. Once they are known, a tangent needs one matrix product a layer instead
//! of two, and so does a cotangent: nothing has to pass through the layers above any more. What takes their
//! place costs as much as there are outputs, so it pays when these are few.

use crate::activation::{Below, times_slope};
use crate::layers::AnyLayer;
use crate::moments::Affine;
use crate::network::Network;
use crate::tape::NetworkTape;
use pgrad_num::gemm::{Mat, Write, add_outer, add_row_sums, matmul};
use pgrad_num::{Aligned, Cols, ColsMut, Real, simd};

/// The slopes `∂y_r/∂z_l` of a batch: for each layer but the last a matrix `[rows x cols]` for each output
/// that depends on the input.
#[derive(Clone, Debug)]
pub struct Jacobian<R: Real> {
    slopes: Vec<Aligned<R>>,
    max_cols: usize,
}

/// Products with the Jacobian by the slopes of the outputs, of networks whose layers are all affine under
/// their activations.
impl Network {
    /// Whether products by way of a [`Jacobian`] are possible, and cheaper than [`Network::jvp`] and
    /// [`Network::vjp`]: there are layers between hidden ones to be saved, and few outputs.
    #[must_use]
    pub fn jacobian_pays(&self) -> bool {
        self.is_affine()
            && self.hidden().len() > 1
            && self.hidden().iter().all(|l| 16 * self.slope_rows() <= l.n_outputs())
    }
    /// Room for the slopes of batches of up to `max_cols` samples.
    #[must_use]
    pub fn jacobian<R: Real>(&self, max_cols: usize) -> Jacobian<R> {
        let room = |l: &AnyLayer| Aligned::new(self.slope_rows() * l.n_outputs() * max_cols);
        Jacobian { slopes: self.hidden().iter().map(room).collect(), max_cols }
    }
    /// Numbers of a [`Jacobian`] for one sample.
    #[must_use]
    pub fn jacobian_len(&self) -> usize {
        self.slope_rows() * self.hidden().iter().map(|l| l.n_outputs()).sum::<usize>()
    }
    /// The layers below the last one.
    fn hidden(&self) -> &[AnyLayer] {
        &self.layers[..self.layers.len() - 1]
    }
    /// Outputs that depend on the input.
    fn slope_rows(&self) -> usize {
        self.maps(self.layers.len() - 1)[0].rows
    }

    /// Computes the slopes of the batch last seen by `forward`.
    ///
    /// # Panics
    /// When the sizes do not fit the network and the batch.
    pub fn linearize<R: Real>(&self, theta: &[R], tape: &NetworkTape<R>, jacobian: &mut Jacobian<R>) {
        let (n, room) = (tape.layers.cols, jacobian.max_cols);
        assert!(n <= room, "the batch has {n} samples, the Jacobian room for {room}");
        assert_eq!(theta.len(), self.n_params());
        let hidden = self.hidden();
        for l in (0..hidden.len()).rev() {
            let (rows, activation) = (hidden[l].n_outputs(), hidden[l].activation());
            let (here, above) = jacobian.slopes.split_at_mut(l + 1);
            let (h, map) = (tape.layers.output(l, rows), &self.maps(l + 1)[0]);
            for (r, s) in here[l].chunks_exact_mut(rows * n).take(self.slope_rows()).enumerate() {
                if l + 1 < hidden.len() {
                    let above = &above[0][r * map.rows * n..(r + 1) * map.rows * n];
                    Below::new(s, activation, h)
                        .product(map.weights(theta).t(), Mat::new(above, map.rows, n));
                } else {
                    let w = &theta[map.weight.clone()][r * rows..(r + 1) * rows];
                    s.chunks_exact_mut(n).zip(w).for_each(|(row, w)| row.fill(*w));
                    times_slope(activation, s, h.data());
                }
            }
        }
    }

    /// `Ẏ = J_θ θ̇`, as [`Network::jvp`], by the slopes of [`Network::linearize`].
    ///
    /// # Panics
    /// When the sizes do not fit the network and the batch.
    pub fn jvp_by<R: Real>(
        &self,
        jacobian: &Jacobian<R>,
        x: Cols<'_, R>,
        tape: &mut NetworkTape<R>,
        v_theta: &[R],
        mut out: ColsMut<'_, R>,
    ) {
        let tape = &mut tape.layers;
        let n = tape.cols;
        assert_eq!((x.rows(), x.cols()), (self.n_inputs(), n));
        assert_eq!((out.rows(), out.cols()), (self.n_outputs(), n));
        assert_eq!(v_theta.len(), self.n_params());
        let mut at = 0;
        let last = self.layers.len() - 1;
        let top = tape.input(last, self.layers[last].n_inputs(), x);
        for map in self.maps(last) {
            let (rows, v_b) = (at..at + map.rows, &v_theta[map.bias.clone()]);
            at = rows.end;
            let y = &mut out.data_mut()[rows.start * n..rows.end * n];
            if map.cols > 0 {
                matmul(y, Write::Bias(v_b), map.weights(v_theta), top.into());
            } else {
                y.chunks_exact_mut(n).zip(v_b).for_each(|(row, b)| row.fill(*b));
            }
        }
        for (l, slopes) in jacobian.slopes.iter().enumerate() {
            let map = &self.maps(l)[0];
            let [dz, _] = &mut tape.delta;
            let dz = &mut dz[..map.rows * n];
            let input = if l == 0 { x.data() } else { &tape.outputs[l - 1][..map.cols * n] };
            matmul(dz, Write::Replace, map.weights(v_theta), Mat::new(input, map.cols, n)); // Ẇ_l h_{l-1}
            let v_b = &v_theta[map.bias.clone()];
            let outputs = out.data_mut().chunks_exact_mut(n);
            for (y, s) in outputs.zip(slopes.chunks_exact(map.rows * n).take(self.slope_rows())) {
                simd!(|| add_columns_dots(y, s, dz, v_b)); // ẏ_r += s_l^r · (Ẇ_l h_{l-1} + ḃ_l)
            }
        }
    }

    /// `∂θ += J_θᵀ ∂Y`, as [`Network::vjp`], by the slopes of [`Network::linearize`].
    ///
    /// # Panics
    /// When the sizes do not fit the network and the batch.
    pub fn vjp_by<R: Real>(
        &self,
        jacobian: &Jacobian<R>,
        x: Cols<'_, R>,
        tape: &mut NetworkTape<R>,
        d_out: Cols<'_, R>,
        d_theta: &mut [R],
    ) {
        let tape = &mut tape.layers;
        let n = tape.cols;
        assert_eq!((x.rows(), x.cols()), (self.n_inputs(), n));
        assert_eq!((d_out.rows(), d_out.cols()), (self.n_outputs(), n));
        assert_eq!(d_theta.len(), self.n_params());
        let mut at = 0;
        let last = self.layers.len() - 1;
        let top = tape.input(last, self.layers[last].n_inputs(), x);
        for map in self.maps(last) {
            let d = d_out.row_range(at, at + map.rows);
            add_gradient(map, d, top, d_theta);
            at += map.rows;
        }
        for (l, slopes) in jacobian.slopes.iter().enumerate() {
            let map = &self.maps(l)[0];
            let [dz, _] = &mut tape.delta;
            let dz = &mut dz[..map.rows * n];
            dz.fill(R::ZERO);
            let d_linear = d_out.data().chunks_exact(n).take(self.slope_rows());
            for (d, s) in d_linear.zip(slopes.chunks_exact(map.rows * n)) {
                simd!(|| add_scaled_columns(dz, s, d)); // ∂z_l = Σ_r ∂y_r s_l^r
            }
            let input = if l == 0 { x } else { Cols::new(&tape.outputs[l - 1][..map.cols * n], map.cols, n) };
            add_gradient(map, Cols::new(dz, map.rows, n), input, d_theta);
        }
    }
}

/// `∂W += ∂Z Xᵀ` and `∂b += ∂Z 1`.
fn add_gradient<R: Real>(map: &Affine, d_z: Cols<'_, R>, x: Cols<'_, R>, d_theta: &mut [R]) {
    if map.cols > 0 {
        add_outer(&mut d_theta[map.weight.clone()], d_z, x);
    }
    add_row_sums(&mut d_theta[map.bias.clone()], d_z);
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
