//! The choices for a tensor's type and for the output's container.

use formats::block::{DType, Family};

/// A tensor's type in the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The type that the tensor has in the source.
    Keep,
    /// This type.
    To(DType),
    /// bitnet.cpp's I2_S: ternary weights with one scale for the whole tensor.
    I2S,
}

/// The format of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// `.gguf`.
    Gguf,
    /// `.safetensors`, or a checkpoint folder.
    Safetensors,
    /// llama2.c's `.bin`, with a tokenizer file.
    Llama2c,
    /// llama2.c's weights as an image for a RAM expansion, in a folder with a configuration and a tokenizer.
    Expansion,
}

impl Container {
    /// What the files are, in words.
    pub fn files(self) -> &'static str {
        match self {
            Self::Gguf => "a GGUF",
            Self::Safetensors => "safetensors",
            Self::Llama2c => "a llama2.c file",
            Self::Expansion => "the three files of a memory expansion",
        }
    }
}

/// Whether a type holds plain integers such as indices, and not weights.
pub fn is_integer(d: DType) -> bool {
    d.info().family == Family::Integer
}
