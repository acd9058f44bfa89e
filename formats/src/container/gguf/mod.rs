//! GGUF: llama.cpp's container. Versions 1 to 3 are read, in either byte order; version 3 is written.
//!
//! Layout: magic, version, counts, metadata, tensor infos, padding, tensor data. Version 3 is version 2 with
//! either byte order allowed; version 1 has 32-bit lengths. All numbers but the magic, tensor data included,
//! are in one order, and the version's low 16 bits are zero when it is read in the wrong one.
//!
//! Source: the GGUF specification in ggml (`docs/gguf.md`), and what its reader checks (`gguf.cpp`).

mod read;
mod split;
mod write;

pub use read::read;
pub(crate) use split::assign;
pub use split::{Split, join, split_of};
pub use write::{Options, layout};

/// The alignment of tensor data, in bytes, in files without [`ALIGNMENT_KEY`].
pub const DEFAULT_ALIGNMENT: u64 = 32;
/// The metadata key of another alignment.
pub const ALIGNMENT_KEY: &str = "general.alignment";
/// The longest name of a tensor, in bytes: ggml keeps names in 64 bytes with a NUL (`GGML_MAX_NAME`).
pub const MAX_NAME: usize = 63;
/// The most dimensions of a tensor (`GGML_MAX_DIMS`).
pub const MAX_DIMS: usize = 4;
/// The longest string, in bytes, and the longest array, in values, that ggml reads.
const MAX_LEN: u64 = 1 << 30;

#[cfg(test)]
mod tests;
