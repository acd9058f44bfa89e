//! GGUF: llama.cpp's container. Versions 1 to 3 are read, in either byte order; version 3 is written.
//!
//! Layout: magic, version, counts, metadata, tensor infos, padding, tensor data. Version 3 is version 2 with
//! either byte order allowed; version 1 has 32-bit lengths. All numbers but the magic, tensor data included,
//! are in one order, and the version's low 16 bits are zero when it is read in the wrong one.
//!
//! Source: the GGUF specification in ggml (`docs/gguf.md`), and what its reader checks (`gguf.cpp`).

use crate::model::{Model, Tensor};

mod numbers;
mod read;
mod split;
mod write;

pub use read::read;
pub(crate) use split::assign;
pub use split::{SPLIT_KEYS, Split, holds_all, join, settle_alone, split_of};
pub use write::{Options, layout, layout_of};

/// The alignment of tensor data, in bytes, in files without [`ALIGNMENT_KEY`].
pub const DEFAULT_ALIGNMENT: u64 = 32;
/// The metadata key of another alignment.
pub const ALIGNMENT_KEY: &str = "general.alignment";
/// The longest name of a tensor, in bytes, that ggml reads: it keeps names in 64 bytes with a NUL (`GGML_MAX_NAME`).
pub const GGML_NAME: usize = 63;
/// The most dimensions of a tensor that ggml reads (`GGML_MAX_DIMS`).
pub const GGML_DIMS: usize = 4;
/// The longest name of a tensor, in bytes, that is read and written here. The container itself has no limit, and models of
/// images have long ones.
const MOST_NAME: usize = 65535;
/// The most dimensions of a tensor that are read and written here: those of NumPy and PyTorch.
const MOST_DIMS: usize = 64;
/// The longest string, in bytes, and the longest array, in values, that ggml reads.
const MAX_LEN: u64 = 1 << 30;

/// The offset behind the last tensor and its padding, where another file would begin that was put behind this one; `None`
/// for a model without tensors.
pub fn end(model: &Model) -> Option<u64> {
    let ends = model.tensors.iter().map(|t| t.location.offset.saturating_add(t.location.len));
    ends.max().map(|end| end.checked_next_multiple_of(model.alignment).unwrap_or(u64::MAX))
}

/// Why ggml, and so llama.cpp and what is built on it, does not read a GGUF with this tensor, though the container can hold
/// it; `None` if it does.
pub fn beyond_ggml(t: &Tensor) -> Option<String> {
    if t.shape.len() > GGML_DIMS {
        return Some(format!("tensor {} has {} dimensions, more than {GGML_DIMS}", t.name, t.shape.len()));
    }
    let len = t.name.len();
    (len > GGML_NAME).then(|| format!("the name of tensor {} has {len} bytes, more than {GGML_NAME}", t.name))
}

#[cfg(test)]
mod tests;
