//! What can be chosen for a tensor, and for the file.

use formats::block::{DType, Family};

/// A tensor's type in the result: the source's, or another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The source's type.
    Keep,
    /// This type.
    To(DType),
    /// bitnet.cpp's I2_S: one magnitude for a whole tensor.
    I2S,
}

/// The container that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// `.gguf`.
    Gguf,
    /// `.safetensors`, or a folder of them with an index.
    Safetensors,
    /// llama2.c's `.bin`, with its tokenizer beside it.
    Llama2c,
    /// The same weights as an image for a memory expansion, in a folder with settings and vocabulary.
    Expansion,
}

/// Whether a type holds integers: indices and codes, no weights.
pub fn is_integer(d: DType) -> bool {
    d.info().family == Family::Integer
}
