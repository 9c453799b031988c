//! What every layer offers.

use crate::activation::{Activation, Below};
use crate::moments::{Affine, LayerSums};
use pgrad_num::{Cols, ColsMut, Real, Stream};
use std::fmt::Debug;
use thiserror::Error;

/// A network shape that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ShapeError {
    /// A layer without units.
    #[error("layer {layer} of the network has 0 units")]
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
    /// A layer that no file of this crate describes.
    #[error("there is no layer `{0}`")]
    Unknown(LayerSpec),
}

/// A layer as a file describes it: what it is, and its sizes. What it reads is as wide as what is below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerSpec {
    /// What it is, for example `tanh` (fully connected) or `lstm`.
    pub kind: String,
    /// Its sizes, for example the number of units.
    pub sizes: Vec<usize>,
}

impl std::fmt::Display for LayerSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.kind, self.sizes)
    }
}

/// How parameters are drawn at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Init {
    /// Orthogonal weights ([`orthogonal`](crate::orthogonal)) instead of uniform ones.
    pub orthogonal: bool,
    /// Steps that units with a memory remember for, at most.
    pub span: Option<usize>,
}

/// A layer `h = φ(z)`, with `z` a function of its parameters `θ` and its input `x`, and `φ` an activation or
/// nothing.
///
/// Matrices are `[rows x samples]`. Cotangents that a layer gets are those of `z`: whoever computes the
/// cotangent of `h` takes it through `φ` on the way ([`Below`]). A layer keeps neither its input nor its
/// outputs, which are handed to it again; `Tape` is what else it remembers.
pub trait Layer: Debug {
    /// What `forward` remembers for `vjp` and `jvp`, and their work space. Made once, for a largest batch.
    type Tape<R: Real>: Clone + Debug + Send
    where
        Self: Sized;

    /// The layer that is described, reading `inputs` features; none when another kind is described.
    fn from_spec(spec: &LayerSpec, inputs: usize) -> Option<Self>
    where
        Self: Sized;
    /// Number of input features.
    fn n_inputs(&self) -> usize;
    /// Number of outputs.
    fn n_outputs(&self) -> usize;
    /// Number of parameters.
    fn n_params(&self) -> usize;
    /// Names and shapes of the pieces of its parameters, in order.
    fn pieces(&self) -> Vec<(String, Vec<usize>)>;
    /// What stands before these names, for the `number`-th layer of its kind.
    fn prefix(&self, number: usize) -> String;
    /// Initial parameters.
    fn init(&self, how: Init, rng: &mut Stream) -> Vec<f64>;
    /// Number of floating-point operations of `forward` for one sample (products of matrices).
    fn forward_flops(&self) -> usize;
    /// Number of floating-point operations of `vjp` for one sample: of the parameters' gradient, and of the
    /// input's cotangent.
    fn vjp_flops(&self) -> [usize; 2];
    /// The `φ` that the layer ends in.
    fn activation(&self) -> Option<Activation> {
        None
    }
    /// The affine maps `Z = W X + b` that the layer consists of, if it is nothing but that under its
    /// activation: places in its own parameters. Kronecker factors, and products by way of a
    /// [`Jacobian`](crate::Jacobian), are for these.
    fn affine(&self) -> Vec<Affine> {
        Vec::new()
    }
    /// Numbers that a sequence's state has; 0 for a layer without a memory.
    fn state_rows(&self) -> usize {
        0
    }
    /// Numbers of a tape for one sample, about.
    fn tape_len(&self) -> usize {
        0
    }

    /// A tape for batches of up to `max_steps` steps of `max_cols` sequences.
    fn tape<R: Real>(&self, max_steps: usize, max_cols: usize) -> Self::Tape<R>
    where
        Self: Sized;
    /// The memory on a tape, of a layer that has one.
    fn memory<R: Real>(_: &Self::Tape<R>) -> Option<&dyn Memory<R>>
    where
        Self: Sized,
    {
        None
    }
    /// The same, to begin with.
    fn memory_mut<R: Real>(_: &mut Self::Tape<R>) -> Option<&mut dyn Memory<R>>
    where
        Self: Sized,
    {
        None
    }
    /// Writes `h`, the outputs.
    fn forward<R: Real>(&self, theta: &[R], x: Cols<'_, R>, h: ColsMut<'_, R>, tape: &mut Self::Tape<R>)
    where
        Self: Sized;
    /// From `d_z`, the cotangent of `z` in the batch last seen by `forward`: `∂θ += J_θᵀ ∂z`, and
    /// `∂x = J_xᵀ ∂z`; either on request.
    fn vjp<R: Real>(
        &self,
        theta: &[R],
        x: Cols<'_, R>,
        tape: &mut Self::Tape<R>,
        d_z: Cols<'_, R>,
        d_theta: Option<&mut [R]>,
        d_x: Option<Below<'_, R>>,
    ) where
        Self: Sized;
    /// `ż = J_θ θ̇ + J_x ẋ` for the batch last seen by `forward`; without `v_x` the input has no tangent.
    fn jvp<R: Real>(
        &self,
        theta: &[R],
        x: Cols<'_, R>,
        v_x: Option<Cols<'_, R>>,
        tape: &mut Self::Tape<R>,
        v_theta: &[R],
        v_z: ColsMut<'_, R>,
    ) where
        Self: Sized;
    /// Adds a batch to the second moments of the inputs of [`Layer::affine`]'s maps.
    fn add_input_moments<R: Real>(&self, _x: Cols<'_, R>, _sums: &mut [LayerSums<R>])
    where
        Self: Sized,
    {
    }
    /// Adds a batch to the second moments of the cotangents of [`Layer::affine`]'s maps.
    fn add_cotangent_moments<R: Real>(&self, _d_z: Cols<'_, R>, _sums: &mut [LayerSums<R>])
    where
        Self: Sized,
    {
    }
}

/// The tape of a layer with a memory. Sample `t·cols + c` is step `t` of sequence `c`.
pub trait Memory<R> {
    /// Numbers of a sequence's state.
    fn state_rows(&self) -> usize;
    /// Says what the next `forward` sees: `steps` steps of `state.cols()` sequences that start from `state`
    /// (`[state_rows x cols]`); where `fresh[t·cols + c]`, sequence `c` forgets its state before step `t`.
    ///
    /// # Panics
    /// When the tape was made for fewer steps or sequences.
    fn begin(&mut self, steps: usize, state: Cols<'_, R>, fresh: &[bool]);
    /// Number `row` of the state of sequence `c` after step `t` of the last `forward`, whose outputs were
    /// `h`.
    fn state_at(&self, h: &[R], row: usize, t: usize, c: usize) -> R;
    /// State of all sequences after the last step of the last `forward`, whose outputs were `h`:
    /// `[state_rows x cols]`.
    fn last_state(&self, h: &[R], state: &mut [R]);
}
