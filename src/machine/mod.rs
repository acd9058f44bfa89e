//! What result a program on some machine needs (`--for`): the container, the byte order, the types, and what it cannot use.

mod list;
#[cfg(test)]
mod tests;

use formats::block::{DType, Family};
use formats::model::ByteOrder;

use crate::scheme::Container;

pub use list::MACHINES;

/// A program on a kind of machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Machine {
    /// What `--for` calls it.
    pub name: &'static str,
    /// The machine and the program.
    pub what: &'static str,
    /// The container that it reads.
    pub reads: Reads,
    /// The order of the numbers.
    pub order: ByteOrder,
    /// The scheme that `quantize` takes if none is asked for.
    pub scheme: &'static str,
    /// The types that matrices may have, where the container leaves a choice.
    pub types: Types,
    /// What else it cannot use.
    pub limits: &'static [Limit],
    /// What to do there: `{model}` and `{tokenizer}` are the files' names.
    pub there: &'static str,
}

/// A container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// GGUF.
    Gguf,
    /// llama2.c's checkpoint, with a tokenizer.bin.
    Llama2c {
        /// 0 or 2.
        version: u32,
        /// With the length of heads in the header.
        fork: bool,
    },
    /// Three files in a folder: [`formats::container::llama2c::expansion`].
    Expansion {
        /// The name of the one with the weights.
        weights: &'static str,
    },
}

/// Types of matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Types {
    /// All.
    All,
    /// None but these.
    Only(&'static [DType]),
    /// All but those of a family.
    But(Family),
}

/// What a program cannot use, beyond its container and types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Files of more than so many bytes.
    File(u64),
    /// Models of several files.
    OneFile,
    /// Matrices, or keys of a context, of 2^31 elements or more, which are counted in an `int`.
    Elements,
    /// A classifier that is not the embedding.
    Shared,
    /// Widths that are no multiple of this.
    Multiple(u64),
    /// Not wrong, but to be told: a context of fewer tokens than the program writes if nothing is said.
    Steps(u64),
    /// Models larger than imac-llm's static buffers.
    Buffers,
    /// What does not fit llama98.c's heap.
    Heap98,
    /// Other architectures than these.
    Architectures(&'static [&'static str]),
    /// Models that llama.cpp refuses.
    NotForLlamaCpp,
    /// Not wrong, but to be told: BPE whose rules of splitting came after it.
    PlainBpe,
    /// Other kinds of vocabularies than this.
    Vocabulary(&'static str),
    /// Tables of rotary frequencies, which it overlooks.
    NoFrequencies,
}

impl Machine {
    /// The one of this name, in any case.
    pub fn find(name: &str) -> Option<&'static Self> {
        MACHINES.iter().find(|m| m.name.eq_ignore_ascii_case(name))
    }

    /// The container.
    pub fn container(&self) -> Container {
        match self.reads {
            Reads::Gguf => Container::Gguf,
            Reads::Llama2c { .. } => Container::Llama2c,
            Reads::Expansion { .. } => Container::Expansion,
        }
    }

    /// Whether it can use matrices of a type.
    pub fn takes(&self, dtype: DType) -> bool {
        match self.types {
            Types::All => true,
            Types::Only(all) => all.contains(&dtype),
            Types::But(family) => dtype.info().family != family,
        }
    }
}
