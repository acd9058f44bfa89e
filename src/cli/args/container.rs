//! Options for the output format, its byte order and the program that will read it.

use clap::ValueEnum;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use formats::model::ByteOrder;
use ggufkit::machine::{MACHINES, Machine};
use ggufkit::plan::Container;

/// A byte order.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Endian {
    /// Little-endian: x86, ARM, and nearly every published file
    Little,
    /// Big-endian: PowerPC, s390x, SPARC
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

/// An output format, for when the file name's extension does not determine it.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum FormatName {
    /// GGUF, the format of llama.cpp
    Gguf,
    /// safetensors, the format of Hugging Face
    Safetensors,
    /// The .bin format of karpathy/llama2.c
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

/// A parser for the names of target machines; the help lists each with its description.
pub fn machines() -> impl TypedValueParser<Value = &'static Machine> {
    let value = |m: &'static Machine| PossibleValue::new(m.name).help(m.description);
    PossibleValuesParser::new(MACHINES.iter().map(value))
        .map(|name| Machine::find(&name).expect("the parser accepts only known names"))
}
