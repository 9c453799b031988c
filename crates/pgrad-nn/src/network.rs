//! A network: layers, one after the other.

use crate::activation::{Activation, Below, times_slope};
use crate::layer::{Init, LayerSpec, ShapeError};
use crate::layers::{AnyLayer, Dense, Head};
use crate::moments::{Affine, LayerSums};
use crate::tape::{LayerTapes, NetworkTape, Sequences};
use pgrad_num::{Aligned, Cols, ColsMut, Real, Stream};
use std::ops::Range;

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

/// Layers one after the other; their parameters lie in one vector in the same order.
///
/// A network with a memory needs to know, before each `forward`, how the columns of the batch make sequences:
/// [`NetworkTape::begin`]. Its outputs for a column have the same bits whatever other columns are computed
/// with it, and whether the steps of a sequence come one by one or all at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    pub(crate) layers: Vec<AnyLayer>,
    /// Where the parameters of each layer lie.
    params: Vec<Range<usize>>,
    /// All affine maps, and where those of each layer lie.
    affine: Vec<Affine>,
    maps: Vec<Range<usize>>,
}

/// What is made of the cotangents on their way down.
enum Take<'a, R> {
    Gradient(&'a mut [R]),
    Moments(&'a mut [LayerSums<R>]),
}

impl Network {
    /// Layers that are described, from `inputs` features to `heads`.
    ///
    /// # Errors
    /// When a layer is empty or not known, or a linear head comes after a free one.
    pub fn new(inputs: usize, layers: &[LayerSpec], heads: Vec<Head>) -> Result<Self, ShapeError> {
        let mut width = inputs;
        let mut all = Vec::new();
        for spec in layers {
            let layer = AnyLayer::from_spec(spec, width)?;
            width = layer.n_outputs();
            all.push(layer);
        }
        all.push(Dense::heads(width, heads)?.into());
        Self::of(all)
    }
    /// A multilayer perceptron: `inputs` features through `hidden` layers to `heads`.
    ///
    /// # Errors
    /// As [`Network::new`].
    pub fn mlp(
        inputs: usize,
        hidden: &[usize],
        activation: Activation,
        heads: Vec<Head>,
    ) -> Result<Self, ShapeError> {
        let layers: Vec<_> = hidden.iter().map(|units| Dense::spec(activation, *units)).collect();
        Self::new(inputs, &layers, heads)
    }
    /// These layers.
    ///
    /// # Errors
    /// When a layer has no inputs, or only such outputs as depend on no input.
    ///
    /// # Panics
    /// When there is no layer, one has another number of inputs than the one below has outputs, or the last
    /// one ends in an activation: outputs may be overwritten, and its slope is told by them.
    pub fn of(layers: Vec<AnyLayer>) -> Result<Self, ShapeError> {
        let fits = layers.windows(2).all(|w| w[0].n_outputs() == w[1].n_inputs());
        assert!(fits, "each layer reads the outputs of the one below");
        assert!(layers.last().is_some_and(|l| l.activation().is_none()), "a network ends in outputs");
        let empty = |l: &AnyLayer| l.n_inputs() == 0 || l.forward_flops() == 0;
        if let Some(layer) = layers.iter().position(empty) {
            return Err(ShapeError::EmptyLayer {
                layer: if layers[layer].n_inputs() == 0 { layer } else { layer + 1 },
            });
        }
        let (mut params, mut affine, mut maps) = (Vec::new(), Vec::new(), Vec::new());
        let mut at = 0;
        for layer in &layers {
            let first = affine.len();
            affine.extend(layer.affine().into_iter().map(|map| map.shifted(at)));
            maps.push(first..affine.len());
            params.push(at..at + layer.n_params());
            at += layer.n_params();
        }
        Ok(Self { layers, params, affine, maps })
    }

    fn first(&self) -> &AnyLayer {
        &self.layers[0]
    }
    fn last(&self) -> &AnyLayer {
        &self.layers[self.layers.len() - 1]
    }
    /// Numbers of a sequence's state; 0 without a memory.
    #[must_use]
    pub fn state_rows(&self) -> usize {
        self.layers.iter().map(|l| l.state_rows()).sum()
    }
    /// Number of input features.
    #[must_use]
    pub fn n_inputs(&self) -> usize {
        self.first().n_inputs()
    }
    /// Number of output rows: the heads', in order.
    #[must_use]
    pub fn n_outputs(&self) -> usize {
        self.last().n_outputs()
    }
    /// Number of parameters.
    #[must_use]
    pub fn n_params(&self) -> usize {
        self.params.last().map_or(0, |range| range.end)
    }
    /// Number of floating-point operations of `forward` for one sample (products and sums of matrices).
    #[must_use]
    pub fn forward_flops(&self) -> usize {
        self.layers.iter().map(|l| l.forward_flops()).sum()
    }
    /// Number of floating-point operations of `vjp` for one sample, without the input's cotangent.
    #[must_use]
    pub fn vjp_flops(&self) -> usize {
        let [_, input] = self.first().vjp_flops();
        self.layers.iter().map(|l| l.vjp_flops().iter().sum::<usize>()).sum::<usize>() - input
    }
    /// Numbers of a tape for one sample, about.
    #[must_use]
    pub fn tape_len(&self) -> usize {
        let kept: usize = self.layers.iter().map(|l| l.n_outputs() + l.tape_len()).sum();
        kept + 2 * self.widest()
    }
    /// The most rows that any layer reads.
    fn widest(&self) -> usize {
        self.layers.iter().map(|l| l.n_inputs()).max().unwrap_or(0)
    }
    /// The named pieces of the parameter vector, in order.
    #[must_use]
    pub fn views(&self) -> Vec<View> {
        let (mut views, mut at) = (Vec::new(), 0);
        for (l, layer) in self.layers.iter().enumerate() {
            let same = |other: &&AnyLayer| other.prefix(0) == layer.prefix(0);
            let prefix = layer.prefix(self.layers[..l].iter().filter(same).count());
            for (name, shape) in layer.pieces() {
                let len = shape.iter().product::<usize>();
                views.push(View { name: format!("{prefix}{name}"), shape, range: at..at + len });
                at += len;
            }
        }
        views
    }
    /// Initial parameters: each layer's own, as its file says.
    pub fn init<R: Real>(&self, how: Init, rng: &mut Stream) -> Vec<R> {
        self.layers.iter().flat_map(|l| l.init(how, rng)).map(R::of).collect()
    }
    /// A tape for batches of up to `max_cols` samples; with a memory, one step of each.
    #[must_use]
    pub fn tape<R: Real>(&self, max_cols: usize) -> NetworkTape<R> {
        self.tape_of(1, max_cols)
    }
    /// A tape for batches of up to `max_steps` steps of `max_cols` sequences.
    #[must_use]
    pub fn tape_of<R: Real>(&self, max_steps: usize, max_cols: usize) -> NetworkTape<R> {
        let n = max_steps * max_cols;
        let zeros = Aligned::new;
        let layers = LayerTapes {
            own: self.layers.iter().map(|l| l.tape(max_steps, max_cols)).collect(),
            outputs: self.layers.iter().map(|l| zeros(l.n_outputs() * n)).collect(),
            delta: [zeros(self.widest() * n), zeros(self.widest() * n)],
            cols: 0,
            max_cols: n,
        };
        NetworkTape { layers, sequences: (self.state_rows() > 0).then(Sequences::default) }
    }

    /// `Y = f(θ, X)`, `[n_outputs x cols]`, on the tape.
    ///
    /// # Panics
    /// When `theta` or `x` has another size than this network or the sequences that began, or the batch is
    /// larger than the tape.
    pub fn forward<'t, R: Real>(
        &self,
        theta: &[R],
        x: Cols<'_, R>,
        tape: &'t mut NetworkTape<R>,
    ) -> ColsMut<'t, R> {
        assert_eq!((theta.len(), x.rows()), (self.n_params(), self.n_inputs()));
        let (n, mut input) = (x.cols(), x);
        if let Some(Sequences { steps, cols }) = tape.sequences {
            assert_eq!(n, steps * cols, "columns of the sequences that began");
        }
        tape.layers.cols = n;
        let LayerTapes { own, outputs, .. } = &mut tape.layers;
        for (l, (layer, (own, h))) in self.layers.iter().zip(own.iter_mut().zip(outputs)).enumerate() {
            let rows = layer.n_outputs();
            let h = &mut h[..rows * n];
            layer.forward(&theta[self.params[l].clone()], input, ColsMut::new(h, rows, n), own);
            input = Cols::new(h, rows, n);
        }
        ColsMut::new(tape.outputs_mut(), self.n_outputs(), n)
    }

    /// `∂θ += J_θᵀ ∂Y` for the batch last seen by `forward`, and `∂X = J_Xᵀ ∂Y` on request.
    ///
    /// # Panics
    /// When the sizes do not fit the network and the batch.
    pub fn vjp<R: Real>(
        &self,
        theta: &[R],
        x: Cols<'_, R>,
        tape: &mut NetworkTape<R>,
        d_out: Cols<'_, R>,
        d_theta: &mut [R],
        d_x: Option<ColsMut<'_, R>>,
    ) {
        assert_eq!(d_theta.len(), self.n_params());
        self.backward(theta, x, &mut tape.layers, d_out, &mut Take::Gradient(d_theta), d_x);
    }

    /// Takes the cotangents of the outputs down to the input, layer by layer.
    fn backward<R: Real>(
        &self,
        theta: &[R],
        x: Cols<'_, R>,
        tape: &mut LayerTapes<R>,
        d_out: Cols<'_, R>,
        take: &mut Take<'_, R>,
        mut d_x: Option<ColsMut<'_, R>>,
    ) {
        let LayerTapes { own, outputs, delta: [above, below], cols: n, .. } = tape;
        let (n, mut above, mut below) = (*n, above, below);
        assert_eq!((theta.len(), x.rows(), x.cols()), (self.n_params(), self.n_inputs(), n));
        assert_eq!((d_out.rows(), d_out.cols()), (self.n_outputs(), n));
        for (l, (layer, own)) in self.layers.iter().zip(own).enumerate().rev() {
            let (rows, inputs) = (layer.n_outputs(), layer.n_inputs());
            let last = l + 1 == self.layers.len();
            let d_z = if last { d_out } else { Cols::new(&above[..rows * n], rows, n) };
            let (x, d_x) = if l == 0 {
                (x, d_x.as_mut().map(|d_x| Below::new(d_x.data_mut(), None, x)))
            } else {
                let x = Cols::new(&outputs[l - 1][..inputs * n], inputs, n);
                let activation = self.layers[l - 1].activation();
                (x, Some(Below::new(&mut below[..inputs * n], activation, x)))
            };
            let theta = &theta[self.params[l].clone()];
            match take {
                Take::Gradient(d_theta) => {
                    layer.vjp(theta, x, own, d_z, Some(&mut d_theta[self.params[l].clone()]), d_x);
                }
                Take::Moments(sums) => {
                    layer.add_cotangent_moments(d_z, &mut sums[self.maps[l].clone()]);
                    if d_x.is_some() {
                        layer.vjp(theta, x, own, d_z, None, d_x);
                    }
                }
            }
            std::mem::swap(&mut above, &mut below);
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
        tape: &mut NetworkTape<R>,
        v_theta: &[R],
        mut out: ColsMut<'_, R>,
    ) {
        let LayerTapes { own, outputs, delta: [below, above], cols: n, .. } = &mut tape.layers;
        let (n, mut below, mut above) = (*n, below, above);
        assert_eq!((theta.len(), x.rows(), x.cols()), (self.n_params(), self.n_inputs(), n));
        assert_eq!((v_theta.len(), out.rows(), out.cols()), (self.n_params(), self.n_outputs(), n));
        let (mut input, mut v_input) = (x, None);
        for (l, (layer, own)) in self.layers.iter().zip(own).enumerate() {
            let (rows, params) = (layer.n_outputs(), self.params[l].clone());
            let last = l + 1 == self.layers.len();
            let v_h = if last { out.data_mut() } else { &mut above[..rows * n] };
            let v_z = ColsMut::new(v_h, rows, n);
            layer.jvp(&theta[params.clone()], input, v_input, own, &v_theta[params], v_z);
            if !last {
                input = Cols::new(&outputs[l][..rows * n], rows, n);
                times_slope(layer.activation(), v_h, input.data()); // ḣ = φ'(z) ż
                std::mem::swap(&mut below, &mut above);
                v_input = Some(Cols::new(&below[..rows * n], rows, n));
            }
        }
    }

    /// The affine maps of all layers, from the input on.
    ///
    /// # Panics
    /// When there is more to a layer than affine maps: its Kronecker factors are not known.
    #[must_use]
    pub fn affine(&self) -> &[Affine] {
        assert!(self.is_affine(), "a layer of this network has no Kronecker factors");
        &self.affine
    }
    /// The affine maps of layer `l`.
    pub(crate) fn maps(&self, l: usize) -> &[Affine] {
        &self.affine[self.maps[l].clone()]
    }
    /// Whether all layers are affine maps under their activations.
    pub(crate) fn is_affine(&self) -> bool {
        self.maps.iter().all(|maps| !maps.is_empty())
    }
    /// Adds the batch last seen by `forward` to the sums of [`Network::affine`]'s inputs.
    ///
    /// # Panics
    /// When the sizes do not fit the network and the batch.
    pub fn add_input_moments<R: Real>(
        &self,
        x: Cols<'_, R>,
        tape: &NetworkTape<R>,
        sums: &mut [LayerSums<R>],
    ) {
        let n = tape.layers.cols;
        assert_eq!((x.rows(), x.cols()), (self.n_inputs(), n));
        for (l, layer) in self.layers.iter().enumerate() {
            let x = tape.layers.input(l, layer.n_inputs(), x);
            layer.add_input_moments(x, &mut sums[self.maps[l].clone()]);
        }
    }
    /// Adds, for every sample of the batch last seen by `forward`, the outer product of each map's cotangent
    /// with itself, when the outputs have the cotangent `d_out`: `Σ g gᵀ`.
    ///
    /// # Panics
    /// When the sizes do not fit the network and the batch.
    pub fn add_cotangent_moments<R: Real>(
        &self,
        theta: &[R],
        x: Cols<'_, R>,
        tape: &mut NetworkTape<R>,
        d_out: Cols<'_, R>,
        sums: &mut [LayerSums<R>],
    ) {
        self.backward(theta, x, &mut tape.layers, d_out, &mut Take::Moments(sums), None);
    }
}
