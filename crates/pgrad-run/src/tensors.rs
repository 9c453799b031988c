//! Named arrays as safetensors bytes: see [`pgrad_model::tensors`], where a policy finds it without this
//! crate.

pub use pgrad_model::tensors::*;
