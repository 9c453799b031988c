//! The multilayer perceptron.

mod factors;
mod jacobian;

pub use factors::{Layer, LayerSums};
pub use jacobian::Jacobian;

use crate::init::orthogonal;
use pgrad_num::gemm::{Mat, Write, matmul};
use pgrad_num::kernels::BLOCK;
use pgrad_num::{Cols, ColsMut, Real, Stream, simd};
use std::ops::Range;
use thiserror::Error;

/// What a hidden unit does with its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `tanh(z)`.
    Tanh,
    /// `max(z, 0)`.
    Relu,
}

impl Activation {
    /// The gain that keeps the scale of the signal, for [`orthogonal`]: `√2`, as in the reference
    /// implementations of the family (OpenAI baselines use it for `tanh` too).
    #[must_use]
    pub fn gain(self) -> f64 {
        std::f64::consts::SQRT_2
    }
    /// Derivative, from the activation's value `h`.
    #[inline(always)]
    fn slope<R: Real>(self, h: R) -> R {
        match self {
            Self::Tanh => (-h).mul_add(h, R::ONE),
            Self::Relu => {
                if h > R::ZERO {
                    R::ONE
                } else {
                    R::ZERO
                }
            }
        }
    }
}

/// A group of output rows.
#[derive(Clone, Debug, PartialEq)]
pub enum Head {
    /// `W h + b`, with `W` orthogonal of this gain at the start and `b = 0`.
    Linear {
        /// Name, for example `value`.
        name: &'static str,
        /// Number of outputs.
        rows: usize,
        /// Gain of the initial weights.
        gain: f64,
    },
    /// Outputs that do not depend on the input: only a bias (a Gaussian's free log-std).
    Free {
        /// Name, for example `log_std`.
        name: &'static str,
        /// Number of outputs.
        rows: usize,
        /// Initial value.
        value: f64,
    },
}

impl Head {
    /// Number of outputs.
    #[must_use]
    pub fn rows(&self) -> usize {
        match self {
            Self::Linear { rows, .. } | Self::Free { rows, .. } => *rows,
        }
    }
}

/// A named piece of the flat parameter vector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Name, for example `hidden.0.weight`.
    pub name: String,
    /// Shape: `[out, in]` for weights, `[out]` for biases.
    pub shape: Vec<usize>,
    /// Where it lies.
    pub range: Range<usize>,
}

/// A network shape that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ShapeError {
    /// A layer without units.
    #[error("layer {layer} of the network has no units")]
    EmptyLayer {
        /// Which layer, from 0; the last one is the output.
        layer: usize,
    },
    /// A linear head after a free one.
    #[error("linear heads come before free ones, but `{name}` follows a free head")]
    HeadOrder {
        /// Name of the head.
        name: &'static str,
    },
}

/// A fully connected network: hidden layers `h = φ(W x + b)`, then heads.
///
/// The parameters lie in one vector: for each hidden layer `W` (`[out x in]`, row after row) and `b`; then
/// the stacked weights of all linear heads, their biases, and the free heads. [`Mlp::views`] names them.
#[derive(Clone, Debug, PartialEq)]
pub struct Mlp {
    /// Width of the input and of each hidden layer.
    widths: Vec<usize>,
    activation: Activation,
    heads: Vec<Head>,
    /// Start of each hidden layer's weights, then of the heads' weights.
    starts: Vec<usize>,
    linear_rows: usize,
    free_rows: usize,
}

/// What `forward` remembers for `vjp` and `jvp`, and their work space. Made once, for a largest batch.
#[derive(Clone, Debug)]
pub struct Tape<R> {
    hidden: Vec<Vec<R>>,
    out: Vec<R>,
    delta: [Vec<R>; 2],
    max_cols: usize,
    cols: usize,
}

impl<R> Tape<R> {
    fn span(&self) -> usize {
        self.out.len() / self.max_cols * self.cols
    }
    /// The outputs of the last `forward`, row after row.
    #[must_use]
    pub fn outputs(&self) -> &[R] {
        &self.out[..self.span()]
    }
    /// The outputs of the last `forward`, to overwrite: derivatives do not need them.
    pub fn outputs_mut(&mut self) -> &mut [R] {
        let span = self.span();
        &mut self.out[..span]
    }
}

impl Mlp {
    /// A network from `input` features through `hidden` layers to `heads`.
    ///
    /// # Errors
    /// When a layer is empty, or a linear head comes after a free one.
    pub fn new(
        input: usize,
        hidden: &[usize],
        activation: Activation,
        heads: Vec<Head>,
    ) -> Result<Self, ShapeError> {
        let mut widths = vec![input];
        widths.extend_from_slice(hidden);
        if let Some(layer) = widths.iter().position(|w| *w == 0) {
            return Err(ShapeError::EmptyLayer { layer });
        }
        let (mut linear_rows, mut free_rows) = (0, 0);
        for head in &heads {
            match head {
                Head::Linear { name, .. } if free_rows > 0 => return Err(ShapeError::HeadOrder { name }),
                Head::Linear { rows, .. } => linear_rows += rows,
                Head::Free { rows, .. } => free_rows += rows,
            }
        }
        if linear_rows == 0 {
            return Err(ShapeError::EmptyLayer { layer: widths.len() });
        }
        let mut starts = vec![0];
        for w in widths.windows(2) {
            starts.push(starts[starts.len() - 1] + w[0] * w[1] + w[1]);
        }
        Ok(Self { widths, activation, heads, starts, linear_rows, free_rows })
    }

    /// Number of input features.
    #[must_use]
    pub fn n_inputs(&self) -> usize {
        self.widths[0]
    }
    /// Number of output rows: the heads', in order.
    #[must_use]
    pub fn n_outputs(&self) -> usize {
        self.linear_rows + self.free_rows
    }
    /// Number of parameters.
    #[must_use]
    pub fn n_params(&self) -> usize {
        self.starts[self.starts.len() - 1] + self.last_width() * self.linear_rows + self.n_outputs()
    }
    fn last_width(&self) -> usize {
        self.widths[self.widths.len() - 1]
    }
    /// Number of floating-point operations of `forward` for one sample (products and sums of matrices).
    #[must_use]
    pub fn forward_flops(&self) -> usize {
        2 * (self.widths.windows(2).map(|w| w[0] * w[1]).sum::<usize>()
            + self.last_width() * self.linear_rows)
    }
    /// Number of floating-point operations of `vjp` for one sample, without the input's gradient.
    #[must_use]
    pub fn vjp_flops(&self) -> usize {
        let first = self.widths.get(1).map_or(self.linear_rows, |w| *w);
        2 * self.forward_flops() - 2 * self.widths[0] * first
    }

    /// The named pieces of the parameter vector, in order.
    #[must_use]
    pub fn views(&self) -> Vec<View> {
        let mut views = Vec::new();
        let mut at = 0;
        let mut add = |name: String, shape: Vec<usize>| {
            let len = shape.iter().product::<usize>();
            views.push(View { name, shape, range: at..at + len });
            at += len;
        };
        for (l, w) in self.widths.windows(2).enumerate() {
            add(format!("hidden.{l}.weight"), vec![w[1], w[0]]);
            add(format!("hidden.{l}.bias"), vec![w[1]]);
        }
        for head in &self.heads {
            if let Head::Linear { name, rows, .. } = head {
                add(format!("{name}.weight"), vec![*rows, self.last_width()]);
            }
        }
        for head in &self.heads {
            match head {
                Head::Linear { name, rows, .. } => add(format!("{name}.bias"), vec![*rows]),
                Head::Free { name, rows, .. } => add((*name).to_owned(), vec![*rows]),
            }
        }
        views
    }

    /// Initial parameters: orthogonal weights with the activation's gain in hidden layers and each head's
    /// own gain, biases 0, free heads at their value. With `orthogonal_init` off, weights are uniform on
    /// `±1/√in`.
    pub fn init<R: Real>(&self, orthogonal_init: bool, rng: &mut Stream) -> Vec<R> {
        let mut theta = Vec::with_capacity(self.n_params());
        let mut weights = |rows: usize, cols: usize, gain: f64, theta: &mut Vec<R>| {
            if orthogonal_init {
                theta.extend(orthogonal(rows, cols, gain, rng).into_iter().map(R::of));
            } else {
                let bound = 1.0 / (cols as f64).sqrt();
                theta.extend((0..rows * cols).map(|_| R::of(rng.uniform_in(-bound, bound))));
            }
        };
        for w in self.widths.windows(2) {
            weights(w[1], w[0], self.activation.gain(), &mut theta);
            theta.extend(std::iter::repeat_n(R::ZERO, w[1]));
        }
        for head in &self.heads {
            if let Head::Linear { rows, gain, .. } = head {
                weights(*rows, self.last_width(), *gain, &mut theta);
            }
        }
        for head in &self.heads {
            let (rows, value) = match head {
                Head::Linear { rows, .. } => (*rows, 0.0),
                Head::Free { rows, value, .. } => (*rows, *value),
            };
            theta.extend(std::iter::repeat_n(R::of(value), rows));
        }
        theta
    }

    /// A tape for batches of up to `max_cols` samples.
    #[must_use]
    pub fn tape<R: Real>(&self, max_cols: usize) -> Tape<R> {
        let widest = *self.widths.iter().max().unwrap_or(&0);
        Tape {
            hidden: self.widths[1..].iter().map(|w| vec![R::ZERO; w * max_cols]).collect(),
            out: vec![R::ZERO; self.n_outputs() * max_cols],
            delta: [vec![R::ZERO; widest * max_cols], vec![R::ZERO; widest * max_cols]],
            max_cols,
            cols: 0,
        }
    }

    /// `Y = f(θ, X)`, `[n_outputs x cols]`, on the tape.
    ///
    /// # Panics
    /// When `theta` or `x` has another size than this network, or the batch is larger than the tape.
    pub fn forward<'t, R: Real>(&self, theta: &[R], x: Cols<'_, R>, tape: &'t mut Tape<R>) -> ColsMut<'t, R> {
        assert_eq!(theta.len(), self.n_params());
        assert_eq!(x.rows(), self.n_inputs());
        let n = x.cols();
        tape.cols = n;
        let mut input = x.data();
        for (l, h) in tape.hidden.iter_mut().enumerate() {
            let (w, b) = self.hidden_params(theta, l);
            let h = &mut h[..self.widths[l + 1] * n];
            matmul(h, Write::Replace, w, Mat::new(input, self.widths[l], n));
            add_bias_and_activate(h, b, n, self.activation);
            input = h;
        }
        let (w, bias) = self.head_params(theta);
        let out = &mut tape.out[..self.n_outputs() * n];
        let (linear, free) = out.split_at_mut(self.linear_rows * n);
        matmul(linear, Write::Replace, w, Mat::new(input, self.last_width(), n));
        for (row, b) in linear.chunks_exact_mut(n).zip(bias) {
            simd!(|| row.iter_mut().for_each(|y| *y += *b));
        }
        for (row, b) in free.chunks_exact_mut(n).zip(&bias[self.linear_rows..]) {
            row.fill(*b);
        }
        ColsMut::new(out, self.n_outputs(), n)
    }

    /// `∂θ += J_θᵀ ∂Y` for the batch last seen by `forward`, and `∂X = J_Xᵀ ∂Y` on request.
    ///
    /// # Panics
    /// When the sizes do not fit the network and the batch.
    pub fn vjp<R: Real>(
        &self,
        theta: &[R],
        x: Cols<'_, R>,
        tape: &mut Tape<R>,
        d_out: Cols<'_, R>,
        d_theta: &mut [R],
        d_x: Option<ColsMut<'_, R>>,
    ) {
        let n = tape.cols;
        assert_eq!((x.rows(), x.cols()), (self.n_inputs(), n));
        assert_eq!((d_out.rows(), d_out.cols()), (self.n_outputs(), n));
        assert_eq!(d_theta.len(), self.n_params());
        let layers = tape.hidden.len();
        let last = self.last_width();
        let d_linear = &d_out.data()[..self.linear_rows * n];

        // Heads.
        let top = if layers == 0 { x.data() } else { &tape.hidden[layers - 1][..last * n] };
        let (d_w, d_b) = d_theta[self.starts[layers]..].split_at_mut(self.linear_rows * last);
        matmul(d_w, Write::Add, Mat::new(d_linear, self.linear_rows, n), Mat::new(top, last, n).t());
        for (r, d) in d_b.iter_mut().enumerate() {
            *d += row_sum(d_out.row(r));
        }
        let (w, _) = self.head_params(theta);
        let [current, next] = &mut tape.delta;
        let (mut current, mut next) = (current, next);
        if layers == 0 {
            if let Some(mut d_x) = d_x {
                matmul(d_x.data_mut(), Write::Replace, w.t(), Mat::new(d_linear, self.linear_rows, n));
            }
            return;
        }
        matmul(&mut current[..last * n], Write::Replace, w.t(), Mat::new(d_linear, self.linear_rows, n));

        // Hidden layers, from the last to the first; `current` holds the cotangent of h_l.
        for l in (0..layers).rev() {
            let (rows, cols) = (self.widths[l + 1], self.widths[l]);
            let dz = &mut current[..rows * n];
            let (d_w, rest) = d_theta[self.starts[l]..].split_at_mut(rows * cols);
            through_activation(dz, &tape.hidden[l][..rows * n], &mut rest[..rows], n, self.activation);
            let input = if l == 0 { x.data() } else { &tape.hidden[l - 1][..cols * n] };
            matmul(d_w, Write::Add, Mat::new(dz, rows, n), Mat::new(input, cols, n).t());
            let (w, _) = self.hidden_params(theta, l);
            if l > 0 {
                matmul(&mut next[..cols * n], Write::Replace, w.t(), Mat::new(dz, rows, n));
                std::mem::swap(&mut current, &mut next);
            } else if let Some(mut d_x) = d_x {
                matmul(d_x.data_mut(), Write::Replace, w.t(), Mat::new(dz, rows, n));
                return;
            }
        }
    }

    /// `Ẏ = J_θ θ̇` for the batch last seen by `forward`.
    ///
    /// # Panics
    /// When the sizes do not fit the network and the batch.
    pub fn jvp<R: Real>(
        &self,
        theta: &[R],
        x: Cols<'_, R>,
        tape: &mut Tape<R>,
        v_theta: &[R],
        out: ColsMut<'_, R>,
    ) {
        self.jvp_from(theta, x, None, tape, v_theta, out);
    }

    /// `Ẏ = J_θ θ̇ + J_X Ẋ` for the batch last seen by `forward`; without `v_x` the input has no tangent.
    ///
    /// # Panics
    /// When the sizes do not fit the network and the batch.
    pub fn jvp_from<R: Real>(
        &self,
        theta: &[R],
        x: Cols<'_, R>,
        v_x: Option<Cols<'_, R>>,
        tape: &mut Tape<R>,
        v_theta: &[R],
        mut out: ColsMut<'_, R>,
    ) {
        let n = tape.cols;
        assert_eq!((x.rows(), x.cols()), (self.n_inputs(), n));
        assert_eq!((out.rows(), out.cols()), (self.n_outputs(), n));
        assert_eq!(v_theta.len(), self.n_params());
        let [current, next] = &mut tape.delta;
        let (mut current, mut next) = (current, next);
        let mut input = x.data();
        // ż = Ẇ x + W ẋ + ḃ and ḣ = φ'(z) ż.
        for (l, h) in tape.hidden.iter().enumerate() {
            let (rows, cols) = (self.widths[l + 1], self.widths[l]);
            let ((w, _), (v_w, v_b)) = (self.hidden_params(theta, l), self.hidden_params(v_theta, l));
            let dz = &mut next[..rows * n];
            matmul(dz, Write::Replace, v_w, Mat::new(input, cols, n));
            if l > 0 {
                matmul(dz, Write::Add, w, Mat::new(&current[..cols * n], cols, n));
            } else if let Some(v_x) = v_x {
                matmul(dz, Write::Add, w, Mat::new(v_x.data(), cols, n));
            }
            let h = &h[..rows * n];
            tangent_through_activation(dz, h, v_b, n, self.activation);
            std::mem::swap(&mut current, &mut next);
            input = h;
        }
        let last = self.last_width();
        let ((w, _), (v_w, v_b)) = (self.head_params(theta), self.head_params(v_theta));
        let (linear, free) = out.data_mut().split_at_mut(self.linear_rows * n);
        matmul(linear, Write::Replace, v_w, Mat::new(input, last, n));
        if !tape.hidden.is_empty() {
            matmul(linear, Write::Add, w, Mat::new(&current[..last * n], last, n));
        } else if let Some(v_x) = v_x {
            matmul(linear, Write::Add, w, Mat::new(v_x.data(), last, n));
        }
        for (row, b) in linear.chunks_exact_mut(n).zip(v_b) {
            row.iter_mut().for_each(|y| *y += *b);
        }
        for (row, b) in free.chunks_exact_mut(n).zip(&v_b[self.linear_rows..]) {
            row.fill(*b);
        }
    }

    /// Weights and biases of hidden layer `l`.
    fn hidden_params<'a, R>(&self, theta: &'a [R], l: usize) -> (Mat<'a, R>, &'a [R]) {
        let (rows, cols) = (self.widths[l + 1], self.widths[l]);
        let (w, b) = theta[self.starts[l]..self.starts[l + 1]].split_at(rows * cols);
        (Mat::new(w, rows, cols), b)
    }
    /// Stacked weights of the linear heads; biases of all heads.
    fn head_params<'a, R>(&self, theta: &'a [R]) -> (Mat<'a, R>, &'a [R]) {
        let (w, b) =
            theta[self.starts[self.starts.len() - 1]..].split_at(self.linear_rows * self.last_width());
        (Mat::new(w, self.linear_rows, self.last_width()), b)
    }
}

/// `h = φ(h + b)`, one pass.
fn add_bias_and_activate<R: Real>(h: &mut [R], bias: &[R], n: usize, activation: Activation) {
    // The activation is matched outside the loops, so that each compiles to straight vector code.
    match activation {
        // Rows that are shorter than a block, of a few samples: then blocks of several rows.
        Activation::Tanh if n < BLOCK => simd!(|| {
            for (row, b) in h.chunks_exact_mut(n).zip(bias) {
                for z in row {
                    *z += *b;
                }
            }
            let (blocks, rest) = h.as_chunks_mut::<BLOCK>();
            blocks.iter_mut().for_each(R::tanh_block);
            for z in rest {
                *z = z.tanh();
            }
        }),
        Activation::Tanh => simd!(|| {
            for (row, b) in h.chunks_exact_mut(n).zip(bias) {
                let mut blocks = row.chunks_exact_mut(BLOCK);
                for block in blocks.by_ref() {
                    if let Ok(block) = <&mut [R; BLOCK]>::try_from(block) {
                        for z in block.iter_mut() {
                            *z += *b;
                        }
                        R::tanh_block(block);
                    }
                }
                for z in blocks.into_remainder() {
                    *z = (*z + *b).tanh();
                }
            }
        }),
        Activation::Relu => simd!(|| {
            for (row, b) in h.chunks_exact_mut(n).zip(bias) {
                for z in row {
                    *z = (*z + *b).at_least(R::ZERO);
                }
            }
        }),
    }
}

/// `ḣ = φ'(z) (ż + ḃ)` in place.
fn tangent_through_activation<R: Real>(dz: &mut [R], h: &[R], v_b: &[R], n: usize, activation: Activation) {
    match activation {
        Activation::Tanh => simd!(|| tangent_through(dz, h, v_b, n, |h| Activation::Tanh.slope(h))),
        Activation::Relu => simd!(|| tangent_through(dz, h, v_b, n, |h| Activation::Relu.slope(h))),
    }
}

#[inline(always)]
fn tangent_through<R: Real>(dz: &mut [R], h: &[R], v_b: &[R], n: usize, slope: impl Fn(R) -> R) {
    for ((dz, h), b) in dz.chunks_exact_mut(n).zip(h.chunks_exact(n)).zip(v_b) {
        for (d, h) in dz.iter_mut().zip(h) {
            *d = slope(*h) * (*d + *b);
        }
    }
}

const LANES: usize = 16;

/// `∂z = φ'(z) ∂h` in place, and the bias gradient `∂b += Σ_samples ∂z`, in one pass.
fn through_activation<R: Real>(d: &mut [R], h: &[R], d_bias: &mut [R], n: usize, activation: Activation) {
    match activation {
        Activation::Tanh => simd!(|| through(d, h, d_bias, n, |h| Activation::Tanh.slope(h))),
        Activation::Relu => simd!(|| through(d, h, d_bias, n, |h| Activation::Relu.slope(h))),
    }
}

#[inline(always)]
fn through<R: Real>(d: &mut [R], h: &[R], d_bias: &mut [R], n: usize, slope: impl Fn(R) -> R) {
    for ((d, h), d_b) in d.chunks_exact_mut(n).zip(h.chunks_exact(n)).zip(d_bias) {
        let mut acc = [R::ZERO; LANES];
        let mut tail = R::ZERO;
        let (mut dc, hc) = (d.chunks_exact_mut(LANES), h.chunks_exact(LANES));
        let h_tail = hc.remainder();
        for (d, h) in dc.by_ref().zip(hc) {
            for i in 0..LANES {
                d[i] *= slope(h[i]);
                acc[i] += d[i];
            }
        }
        for (d, h) in dc.into_remainder().iter_mut().zip(h_tail) {
            *d *= slope(*h);
            tail += *d;
        }
        *d_b += fold(acc) + tail;
    }
}

/// `Σ x` with a fixed number of lanes.
pub(crate) fn row_sum<R: Real>(x: &[R]) -> R {
    simd!(|| {
        let mut acc = [R::ZERO; LANES];
        let chunks = x.chunks_exact(LANES);
        let mut tail = R::ZERO;
        for v in chunks.remainder() {
            tail += *v;
        }
        for c in chunks {
            for i in 0..LANES {
                acc[i] += c[i];
            }
        }
        fold(acc) + tail
    })
}

#[inline(always)]
fn fold<R: Real>(mut acc: [R; LANES]) -> R {
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for i in 0..width {
            acc[i] += acc[i + width];
        }
    }
    acc[0]
}
