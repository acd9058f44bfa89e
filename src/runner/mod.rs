//! The runner computes a model's logits on the CPU, from any file that can be read, with the weights as they are
//! stored.
//!
//! [`Network`] has a model's weights by their roles, [`State`] is the KV cache, and [`forward`] is the whole
//! computation in reading order. Products of weights and activations are in [`linear`]. Equal input gives equal logits
//! on any number of threads and on every instruction set.

pub mod bench;
mod forward;
pub mod layerwise;
pub mod linear;
mod network;
pub mod sample;
mod state;
mod ternary;
#[cfg(test)]
mod tests;

pub use forward::{Run, forward};
pub use network::{Network, Options};
pub use state::State;

pub use kernels::attention::KvType;
