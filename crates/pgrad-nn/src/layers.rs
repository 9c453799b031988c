//! The layers that there are: each is a file of this folder, and a line of the list at the end.

use crate::activation::Below;
use crate::layer::{Layer, LayerSpec, Memory, ShapeError};
use crate::moments::LayerSums;
use pgrad_num::{Cols, ColsMut, Real};
use std::ops::Deref;

/// Makes one layer of them all. What does not compute on a batch is reached through [`Layer`] itself.
macro_rules! layers {
    ($($file:ident: $kind:ident,)*) => {
        $(mod $file;
        pub use $file::$kind;)*

        /// A layer of a network.
        #[derive(Clone, Debug, PartialEq)]
        pub enum AnyLayer {
            $(#[doc = concat!("[`", stringify!($kind), "`].")] $kind($kind),)*
        }

        /// The tape of an [`AnyLayer`].
        #[derive(Clone, Debug)]
        pub(crate) enum AnyTape<R: Real> {
            $($kind(<$kind as Layer>::Tape<R>),)*
        }

        $(impl From<$kind> for AnyLayer {
            fn from(layer: $kind) -> Self {
                Self::$kind(layer)
            }
        })*

        impl Deref for AnyLayer {
            type Target = dyn Layer;
            fn deref(&self) -> &Self::Target {
                match self { $(Self::$kind(layer) => layer,)* }
            }
        }

        /// As in [`Layer`].
        impl AnyLayer {
            pub(crate) fn from_spec(spec: &LayerSpec, inputs: usize) -> Result<Self, ShapeError> {
                let layer = None$(.or_else(|| $kind::from_spec(spec, inputs).map(Self::$kind)))*;
                layer.ok_or_else(|| ShapeError::Unknown(spec.clone()))
            }
            pub(crate) fn tape<R: Real>(&self, max_steps: usize, max_cols: usize) -> AnyTape<R> {
                match self { $(Self::$kind(layer) => AnyTape::$kind(layer.tape::<R>(max_steps, max_cols)),)* }
            }
            pub(crate) fn forward<R: Real>(
                &self, theta: &[R], x: Cols<'_, R>, h: ColsMut<'_, R>, tape: &mut AnyTape<R>,
            ) {
                match (self, tape) {
                    $((Self::$kind(layer), AnyTape::$kind(tape)) => layer.forward(theta, x, h, tape),)*
                    _ => other_tape(),
                }
            }
            pub(crate) fn vjp<R: Real>(
                &self, theta: &[R], x: Cols<'_, R>, tape: &mut AnyTape<R>, d_z: Cols<'_, R>,
                d_theta: Option<&mut [R]>, d_x: Option<Below<'_, R>>,
            ) {
                match (self, tape) {
                    $((Self::$kind(layer), AnyTape::$kind(tape)) =>
                        layer.vjp(theta, x, tape, d_z, d_theta, d_x),)*
                    _ => other_tape(),
                }
            }
            pub(crate) fn jvp<R: Real>(
                &self, theta: &[R], x: Cols<'_, R>, v_x: Option<Cols<'_, R>>, tape: &mut AnyTape<R>,
                v_theta: &[R], v_z: ColsMut<'_, R>,
            ) {
                match (self, tape) {
                    $((Self::$kind(layer), AnyTape::$kind(tape)) =>
                        layer.jvp(theta, x, v_x, tape, v_theta, v_z),)*
                    _ => other_tape(),
                }
            }
            pub(crate) fn add_input_moments<R: Real>(&self, x: Cols<'_, R>, sums: &mut [LayerSums<R>]) {
                match self { $(Self::$kind(layer) => layer.add_input_moments(x, sums),)* }
            }
            pub(crate) fn add_cotangent_moments<R: Real>(&self, d_z: Cols<'_, R>, sums: &mut [LayerSums<R>]) {
                match self { $(Self::$kind(layer) => layer.add_cotangent_moments(d_z, sums),)* }
            }
        }

        impl<R: Real> AnyTape<R> {
            pub(crate) fn memory(&self) -> Option<&dyn Memory<R>> {
                match self { $(Self::$kind(tape) => $kind::memory(tape),)* }
            }
            pub(crate) fn memory_mut(&mut self) -> Option<&mut dyn Memory<R>> {
                match self { $(Self::$kind(tape) => $kind::memory_mut(tape),)* }
            }
        }
    };
}

layers! {
    dense: Dense,
    recurrent: Recurrent,
}

pub use dense::Head;
pub use recurrent::Cell;

fn other_tape() -> ! {
    panic!("the tape is that of another network")
}
