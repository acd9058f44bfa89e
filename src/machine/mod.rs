//! The target machines of `--for`: which container, byte order and types their program reads, and its limits. Data only;
//! `plan/machine.rs` checks a plan against it.

mod list;
#[cfg(test)]
mod tests;

use formats::block::{DType, Family};
use formats::model::ByteOrder;

use crate::arch::llama_cpp;
use crate::scheme::Container;

pub use list::MACHINES;

/// A program on a kind of machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Machine {
    /// Its name for `--for`.
    pub name: &'static str,
    /// The machine and the program, in words.
    pub description: &'static str,
    /// The container that it reads.
    pub reads: Reads,
    /// The byte order that it reads.
    pub order: ByteOrder,
    /// The scheme that `quantize` uses by default.
    pub scheme: &'static str,
    /// The tensor types that it can read, for containers with a choice of types.
    pub types: Types,
    /// Its other limits.
    pub limits: &'static [Limit],
    /// Other programs on the same machines, by their names, for models that this one cannot run: what they lack in limits
    /// or save in memory. In the order in which they are looked at.
    pub others: &'static [&'static str],
    /// How to run the result: a command or an instruction, in which `{model}` and `{tokenizer}` stand for the files' names.
    pub run_hint: &'static str,
}

/// A container that a machine's program reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// GGUF.
    Gguf,
    /// A llama2.c checkpoint with a tokenizer.bin.
    Llama2c {
        /// The version: 0 (f32) or 2 (int8 groups).
        version: u32,
        /// Whether the header also has the head size, as in RunSmol's fork.
        fork: bool,
    },
    /// Three files in a folder: [`formats::container::llama2c::expansion`].
    Expansion {
        /// The name of the file with the weights.
        weights: &'static str,
    },
}

/// A set of tensor types for matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Types {
    /// All types.
    All,
    /// Only these types.
    Only(&'static [DType]),
    /// All types except those of one family.
    But(Family),
}

/// A limit of a program, in addition to its container and types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Files may have at most this many bytes.
    File(u64),
    /// The model must be a single file.
    OneFile,
    /// Matrices and the KV cache must have fewer than 2^31 elements, because an `int` counts them.
    Elements,
    /// Embeddings must be tied: the output matrix is the token embedding.
    TiedEmbeddings,
    /// The same for models of these architectures.
    TiedEmbeddingsOf(&'static [&'static str]),
    /// Row lengths must be a multiple of this.
    Multiple(u64),
    /// Only a note: the program generates this many tokens by default, and the model's context may be shorter.
    DefaultTokens(u64),
    /// The model must fit into imac-llm's static buffers.
    Buffers,
    /// The model must fit into llama98.c's heap.
    Heap98,
    /// The architecture must be one of these.
    Architectures(&'static [&'static str]),
    /// llama.cpp must be able to load the architecture.
    NotForLlamaCpp,
    /// Only a note: the program pre-tokenizes all BPE vocabularies as GPT-2 does.
    PlainBpe,
    /// The kind of vocabulary (`tokenizer.ggml.model`) must be this.
    Vocabulary(&'static str),
    /// Feed-forward matrices must have no biases, because the program does not know these tensors and refuses the file.
    NoFeedForwardBiases,
    /// The model must not have a table of rotary frequencies, because the program ignores it.
    NoFrequencies,
}

impl Limit {
    /// Whether the model alone decides it, so that no option of a conversion helps where it is exceeded.
    pub fn is_of_model(self) -> bool {
        match self {
            Self::TiedEmbeddings
            | Self::TiedEmbeddingsOf(_)
            | Self::Multiple(_)
            | Self::Buffers
            | Self::Architectures(_)
            | Self::Vocabulary(_)
            | Self::NoFrequencies => true,
            Self::File(_)
            | Self::OneFile
            | Self::Elements
            | Self::DefaultTokens(_)
            | Self::Heap98
            | Self::NotForLlamaCpp
            | Self::PlainBpe
            | Self::NoFeedForwardBiases => false,
        }
    }
}

impl Machine {
    /// The machine with this name, ignoring case.
    pub fn find(name: &str) -> Option<&'static Self> {
        MACHINES.iter().find(|m| m.name.eq_ignore_ascii_case(name))
    }

    /// The machines that a wrong name may mean: those whose name is spelled nearly like it, and those whose description
    /// or name contains it.
    pub fn near(name: &str) -> Vec<&'static Self> {
        let plain =
            |text: &str| text.to_lowercase().chars().filter(|c| c.is_alphanumeric()).collect::<String>();
        let wanted = plain(name);
        if wanted.len() < 2 {
            return Vec::new();
        }
        let near = |m: &&Self| {
            let own = plain(m.name);
            let contains =
                plain(m.description).contains(&wanted) || own.contains(&wanted) || wanted.contains(&own);
            contains || edits(&own, &wanted) <= 1 + wanted.len() / 5
        };
        MACHINES.iter().filter(near).collect()
    }

    /// The other programs on the same machines: [`Machine::others`].
    pub fn alternatives(&self) -> impl Iterator<Item = &'static Self> {
        self.others.iter().filter_map(|name| Self::find(name))
    }

    /// Whether it reads int8 alone, which takes about a quarter of f32.
    pub fn is_int8(&self) -> bool {
        matches!(self.reads, Reads::Llama2c { version: 2, .. })
    }

    /// The container that it reads.
    pub fn container(&self) -> Container {
        match self.reads {
            Reads::Gguf => Container::Gguf,
            Reads::Llama2c { .. } => Container::Llama2c,
            Reads::Expansion { .. } => Container::Expansion,
        }
    }

    /// The architectures that it computes; `None` if these are all that llama.cpp knows.
    pub fn architectures(&self) -> Option<&'static [&'static str]> {
        match self.container() {
            Container::Gguf => self.limits.iter().find_map(|limit| match limit {
                Limit::Architectures(all) => Some(*all),
                _ => None,
            }),
            _ => Some(llama_cpp::LLAMA2C),
        }
    }

    /// Whether it computes models of this architecture, by its name in GGUF.
    pub fn computes(&self, architecture: &str) -> bool {
        match self.architectures() {
            Some(all) => all.contains(&architecture),
            None => {
                !self.limits.contains(&Limit::NotForLlamaCpp)
                    || !llama_cpp::NOT_LOADED.contains(&architecture)
            }
        }
    }

    /// Whether it can read matrices of this type.
    pub fn takes(&self, dtype: DType) -> bool {
        match self.types {
            Types::All => true,
            Types::Only(all) => all.contains(&dtype),
            Types::But(family) => dtype.info().family != family,
        }
    }
}

/// The number of characters that have to be inserted, removed or replaced to make one text of the other (Levenshtein).
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
