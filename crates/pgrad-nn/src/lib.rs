//! Networks over one flat parameter vector.
//!
//! A network is a function of parameters `θ` and a batch `X`; it owns neither. It offers
//! - `forward`: `Y = f(θ, X)`, remembering what the derivatives need on a [`NetworkTape`];
//! - `vjp`: output cotangent to parameter gradient, `∂θ += J_θᵀ ∂Y`, and on request to the input;
//! - `jvp`: parameter tangent to output tangent, `Ẏ = J_θ θ̇`.
//!
//! The two are adjoint, `<u, jvp(v)> = <vjp(u), v>`, which is all that natural gradients need.
//! A [`Network`] is a list of layers, each a [`Layer`]: fully connected ([`Dense`], the heads too) or
//! recurrent ([`Recurrent`]: LSTM or GRU). Derivatives go through time, and the state is forgotten exactly
//! where it is told to be. Second moments of the inputs and cotangents of affine maps ([`LayerSums`]) are
//! what Kronecker-factored curvature needs. Columns are samples: `X` is `[features x batch]`, the batch
//! contiguous, and `Y = W X + b`.
//!
//! A layer is a file of `layers/` with `impl Layer`, and its line in `layers.rs`; a [`LayerSpec`] then makes
//! it. What is to come has its place:
//! - a convolution is such a file. Its maps are applied to patches, so it adds the moments of patches for
//!   K-FAC;
//! - several encoders for the named parts of an observation are one layer that holds a list of networks,
//!   gives each its rows of the input, and stacks their outputs;
//! - observations stored as bytes are an input of another type at the first layer alone: [`Network::forward`]
//!   hands its `x` to no other, and that layer turns bytes into reals as it gathers them.
//!
//! **Must never know:** what the outputs mean.

mod activation;
mod init;
mod jacobian;
mod layer;
mod layers;
mod moments;
mod network;
mod tape;

pub use activation::{Activation, Below};
pub use init::orthogonal;
pub use jacobian::Jacobian;
pub use layer::{Init, Layer, LayerSpec, Memory, ShapeError};
pub use layers::{AnyLayer, Cell, Dense, Head, Recurrent};
pub use moments::{Affine, LayerSums};
pub use network::{Network, View};
pub use tape::NetworkTape;
