//! Networks over one flat parameter vector.
//!
//! A network is a function of parameters `θ` and a batch `X`; it owns neither. It offers
//! - `forward`: `Y = f(θ, X)`, remembering what the derivatives need on a [`Tape`];
//! - `vjp`: output cotangent to parameter gradient, `∂θ += J_θᵀ ∂Y`, and on request to the input;
//! - `jvp`: parameter tangent to output tangent, `Ẏ = J_θ θ̇`.
//!
//! The two are adjoint, `<u, jvp(v)> = <vjp(u), v>`, which is all that natural gradients need.
//! A [`Network`] is a multilayer perceptron ([`Mlp`]), on a recurrent layer ([`Recurrent`]: LSTM or GRU) or not; its
//! derivatives go through time, and the state is forgotten exactly where it is told to be.
//! Second moments of each layer's inputs and cotangents ([`LayerSums`]) are what Kronecker-factored curvature needs.
//! Columns are samples: `X` is `[features x batch]`, the batch contiguous, and `Y = W X + b`.
//!
//! **Must never know:** what the outputs mean.

mod init;
mod mlp;
mod network;
mod recurrent;

pub use init::orthogonal;
pub use mlp::{Activation, Head, Jacobian, Layer, LayerSums, Mlp, ShapeError, Tape, View};
pub use network::{Network, NetworkTape};
pub use recurrent::{Cell, Recurrent, RecurrentTape};
