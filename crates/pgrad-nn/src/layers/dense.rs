//! The fully connected layer.

use crate::activation::{Activation, Below, affine};
use crate::init::orthogonal;
use crate::layer::{Init, Layer, LayerSpec, ShapeError};
use crate::moments::{Affine, LayerSums};
use pgrad_num::gemm::{Mat, Write, add_outer, add_row_sums, matmul};
use pgrad_num::{Cols, ColsMut, Real, Stream};

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

/// A fully connected layer `h = φ(W x + b)`, or the heads of a network, stacked.
///
/// The parameters are the stacked weights of all linear heads (`[out x in]`, row after row), their biases,
/// and the free heads. A hidden layer is one linear head without a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Dense {
    inputs: usize,
    activation: Option<Activation>,
    heads: Vec<Head>,
    linear_rows: usize,
    free_rows: usize,
}

impl Dense {
    /// The kind and size of a hidden layer.
    #[must_use]
    pub fn spec(activation: Activation, units: usize) -> LayerSpec {
        LayerSpec { kind: activation.name().into(), sizes: vec![units] }
    }
    /// The heads of a network, on `inputs` features.
    ///
    /// # Errors
    /// When a linear head comes after a free one.
    pub fn heads(inputs: usize, heads: Vec<Head>) -> Result<Self, ShapeError> {
        let (mut linear_rows, mut free_rows) = (0, 0);
        for head in &heads {
            match head {
                Head::Linear { name, .. } if free_rows > 0 => return Err(ShapeError::HeadOrder { name }),
                Head::Linear { rows, .. } => linear_rows += rows,
                Head::Free { rows, .. } => free_rows += rows,
            }
        }
        Ok(Self { inputs, activation: None, heads, linear_rows, free_rows })
    }
    /// Weights; biases of all heads.
    fn params<'a, R>(&self, theta: &'a [R]) -> (Mat<'a, R>, &'a [R]) {
        let (w, b) = theta.split_at(self.linear_rows * self.inputs);
        (Mat::new(w, self.linear_rows, self.inputs), b)
    }
}

impl Layer for Dense {
    type Tape<R: Real> = ();

    fn from_spec(spec: &LayerSpec, inputs: usize) -> Option<Self> {
        let activation = Activation::ALL.into_iter().find(|a| a.name() == spec.kind)?;
        let [units] = spec.sizes[..] else { return None };
        let heads = vec![Head::Linear { name: "", rows: units, gain: activation.gain() }];
        let activation = Some(activation);
        Some(Self { inputs, activation, heads, linear_rows: units, free_rows: 0 })
    }
    fn n_inputs(&self) -> usize {
        self.inputs
    }
    fn n_outputs(&self) -> usize {
        self.linear_rows + self.free_rows
    }
    fn n_params(&self) -> usize {
        self.linear_rows * self.inputs + self.n_outputs()
    }
    fn pieces(&self) -> Vec<(String, Vec<usize>)> {
        let joined =
            |name: &str, what: &str| if name.is_empty() { what.into() } else { format!("{name}.{what}") };
        let weights = self.heads.iter().filter_map(|head| match head {
            Head::Linear { name, rows, .. } => Some((joined(name, "weight"), vec![*rows, self.inputs])),
            Head::Free { .. } => None,
        });
        let biases = self.heads.iter().map(|head| match head {
            Head::Linear { name, rows, .. } => (joined(name, "bias"), vec![*rows]),
            Head::Free { name, rows, .. } => ((*name).to_owned(), vec![*rows]),
        });
        weights.chain(biases).collect()
    }
    fn prefix(&self, number: usize) -> String {
        if self.activation.is_some() { format!("hidden.{number}.") } else { String::new() }
    }
    /// Orthogonal weights with each head's own gain, biases 0, free heads at their value. With `orthogonal`
    /// off, weights are uniform on `±1/√in`.
    fn init(&self, how: Init, rng: &mut Stream) -> Vec<f64> {
        let mut theta = Vec::with_capacity(self.n_params());
        for head in &self.heads {
            let Head::Linear { rows, gain, .. } = head else { continue };
            if how.orthogonal {
                theta.extend(orthogonal(*rows, self.inputs, *gain, rng));
            } else {
                let bound = 1.0 / (self.inputs as f64).sqrt();
                theta.extend((0..rows * self.inputs).map(|_| rng.uniform_in(-bound, bound)));
            }
        }
        for head in &self.heads {
            let (rows, value) = match head {
                Head::Linear { rows, .. } => (*rows, 0.0),
                Head::Free { rows, value, .. } => (*rows, *value),
            };
            theta.extend(std::iter::repeat_n(value, rows));
        }
        theta
    }
    fn forward_flops(&self) -> usize {
        2 * self.linear_rows * self.inputs
    }
    fn vjp_flops(&self) -> [usize; 2] {
        [self.forward_flops(); 2]
    }
    fn activation(&self) -> Option<Activation> {
        self.activation
    }
    /// The linear heads stacked as one map, the free heads stacked as one (if any).
    fn affine(&self) -> Vec<Affine> {
        let (rows, cols) = (self.linear_rows, self.inputs);
        let bias = rows * cols..rows * (cols + 1);
        let free = bias.end..self.n_params();
        let linear = Affine { rows, cols, weight: 0..bias.start, bias };
        let free = Affine { rows: free.len(), cols: 0, weight: free.start..free.start, bias: free };
        std::iter::once(linear).chain((free.rows > 0).then_some(free)).collect()
    }

    fn tape<R: Real>(&self, _: usize, _: usize) {}

    fn forward<R: Real>(&self, theta: &[R], x: Cols<'_, R>, mut h: ColsMut<'_, R>, (): &mut ()) {
        let (w, b) = self.params(theta);
        let (b, b_free) = b.split_at(self.linear_rows);
        let n = x.cols();
        let (linear, free) = h.data_mut().split_at_mut(self.linear_rows * n);
        affine(linear, self.activation, w, b, x.into());
        for (row, b) in free.chunks_exact_mut(n).zip(b_free) {
            row.fill(*b);
        }
    }
    fn vjp<R: Real>(
        &self,
        theta: &[R],
        x: Cols<'_, R>,
        (): &mut (),
        d_z: Cols<'_, R>,
        d_theta: Option<&mut [R]>,
        d_x: Option<Below<'_, R>>,
    ) {
        let d_linear = d_z.row_range(0, self.linear_rows);
        if let Some(d_theta) = d_theta {
            let (d_w, d_b) = d_theta.split_at_mut(self.linear_rows * self.inputs);
            add_outer(d_w, d_linear, x);
            add_row_sums(d_b, d_z);
        }
        if let Some(d_x) = d_x {
            d_x.product(self.params(theta).0.t(), d_linear.into()); // ∂x = Wᵀ ∂z
        }
    }
    fn jvp<R: Real>(
        &self,
        theta: &[R],
        x: Cols<'_, R>,
        v_x: Option<Cols<'_, R>>,
        (): &mut (),
        v_theta: &[R],
        mut v_z: ColsMut<'_, R>,
    ) {
        let ((w, _), (v_w, v_b)) = (self.params(theta), self.params(v_theta));
        let (v_b, v_b_free) = v_b.split_at(self.linear_rows);
        let n = x.cols();
        let (linear, free) = v_z.data_mut().split_at_mut(self.linear_rows * n);
        matmul(linear, Write::Bias(v_b), v_w, x.into()); // ż = Ẇ x + ḃ + W ẋ
        if let Some(v_x) = v_x {
            matmul(linear, Write::Add, w, v_x.into());
        }
        for (row, b) in free.chunks_exact_mut(n).zip(v_b_free) {
            row.fill(*b);
        }
    }

    fn add_input_moments<R: Real>(&self, x: Cols<'_, R>, sums: &mut [LayerSums<R>]) {
        sums.iter_mut().for_each(|map| map.add_inputs(x));
    }
    fn add_cotangent_moments<R: Real>(&self, d_z: Cols<'_, R>, sums: &mut [LayerSums<R>]) {
        let rows = [0, self.linear_rows, self.n_outputs()];
        for (map, rows) in sums.iter_mut().zip(rows.windows(2)) {
            map.add_cotangents(d_z.row_range(rows[0], rows[1]));
        }
    }
}
