//! The container of the result, and the program that it is for.

use clap::ValueEnum;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use formats::model::ByteOrder;
use ggufkit::machine::{MACHINES, Machine};
use ggufkit::plan::Container;

/// A byte order.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Endian {
    /// x86, ARM, nearly every published file
    Little,
    /// PowerPC, s390x, SPARC
    Big,
}

impl From<Endian> for ByteOrder {
    fn from(e: Endian) -> Self {
        match e {
            Endian::Little => Self::Little,
            Endian::Big => Self::Big,
        }
    }
}

/// A container, where the ending of the name does not tell.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum FormatName {
    /// llama.cpp's
    Gguf,
    /// Hugging Face's
    Safetensors,
    /// karpathy/llama2.c's .bin
    Llama2c,
}

impl From<FormatName> for Container {
    fn from(f: FormatName) -> Self {
        match f {
            FormatName::Gguf => Self::Gguf,
            FormatName::Safetensors => Self::Safetensors,
            FormatName::Llama2c => Self::Llama2c,
        }
    }
}

/// The names of machines, with what they are.
pub fn machines() -> impl TypedValueParser<Value = &'static Machine> {
    let value = |m: &'static Machine| PossibleValue::new(m.name).help(m.what);
    PossibleValuesParser::new(MACHINES.iter().map(value))
        .map(|name| Machine::find(&name).expect("the parser lets names of machines through"))
}
