//! safetensors: Hugging Face's container. Numbers are little-endian and there is no alignment.
//!
//! Layout: the header's length as a u64, the header as JSON, tensor data. The header is one object:
//! `{"__metadata__": {"key": "text"}, "name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}`;
//! offsets count from the end of the header, and the tensors fill the rest of the file without a gap.
//! Models of several files have a `model.safetensors.index.json` beside them that names each tensor's file.
//!
//! Source: the format's description and the `safetensors` crate, which parses each tensor's data type here. Duplicate
//! names, which the crate accepts, are refused.
//!
//! Metadata with types, as a GGUF has, is kept under one key: see [`typed`].

mod json;
mod read;
mod shards;
pub mod typed;
mod write;

pub use read::{looks_like, read};
pub use shards::{check_index, index, join, read_index};
pub use write::{Options, layout};

/// The longest header, in bytes, that the `safetensors` crate reads.
const MAX_HEADER: u64 = 100_000_000;
/// The header's key that is not a tensor.
const METADATA: &str = "__metadata__";
/// The metadata key under which typed metadata is kept.
const TYPED: &str = "gguf.metadata";
/// The metadata key of the framework that wrote the tensors, which transformers requires to be [`PYTORCH`].
const FORMAT: &str = "format";
/// A value of [`FORMAT`].
const PYTORCH: &str = "pt";
/// The most metadata keys: far more than any model has. A hostile header could hold millions.
const MAX_KEYS: usize = 1 << 16;

#[cfg(test)]
mod tests;
