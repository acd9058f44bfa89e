//! Model files as bytes, and nothing else: no disk, no threads, no statistics, no unsafe code.
//!
//! * [`model`]: what every container says: tensors and where their bytes lie; [`metadata`]: the settings beside them.
//! * [`block`]: how numbers are packed. One list of all tensor types, one file per family of codecs.
//! * [`container`]: how models are filed: GGUF, safetensors, llama2.c.
//! * [`error`]: who, where, what.
//!
//! A reader is a pure function from (a prefix of) a file's bytes and the file's length to a
//! [`model::Model`] that says where every tensor lies; whoever calls it decides between a memory map
//! and plain reads. A writer is a pure function from metadata and tensor shapes to a
//! [`container::Layout`]: the bytes that are known beforehand, and the place of each tensor.

#![forbid(unsafe_code)]

pub mod block;
pub mod container;
pub mod error;
pub mod metadata;
pub mod model;
#[cfg(test)]
mod published;

pub use error::{Error, Fault, Result};
