//! Named arrays as safetensors bytes: see [`pgrad_agent::tensors`], where a policy finds it without this
//! crate.

pub use pgrad_agent::tensors::*;
