//! llama2.c: the checkpoints of karpathy/llama2.c, and its [`tokenizer`] file.
//!
//! Versions 0, 1 and 2 are read and written in either byte order. No file says its order, and llama2.c itself
//! takes the machine's: a big-endian machine needs a big-endian file.
//!
//! | version | header | weights |
//! |---|---|---|
//! | 0 | seven i32 | f32, and the tables of the rotary embedding |
//! | 1 | magic, version, seven i32, a flag; 256 bytes | f32 |
//! | 2 | as 1, and the group size | norms f32, matrices i8 in groups under one f32 scale |
//!
//! A fork of version 2, with the length of heads in its header, is read and written too ([`Options::fork`]), and what the
//! Commodore 64 and the PlayStation Portable want of version 0 is written ([`expansion`]).
//!
//! Every kind of tensor is one stack of all layers. Tensors have no names there and get GGUF's; both programs
//! rotate neighbouring pairs, so that the weights themselves are the same. Version 0 has neither magic nor
//! version: it is known by its length, which follows from its header.
//! Source: `export.py`, `model.py`, `run.c` and `runq.c` of karpathy/llama2.c.

mod config;
mod quantize;
mod read;
mod reu;
pub mod tokenizer;
mod write;

pub use quantize::{group_size, quantize_group};
pub use read::{near_miss, read, sniff};
pub use reu::{Expansion, expansion};
pub use write::{Options, layout};

/// "ak42", most significant byte first.
const MAGIC: u32 = 0x616b_3432;
/// The name in messages about versions.
const FORMAT: &str = "llama2.c";
/// The versions that are read and written.
const KNOWN: &str = "0, 1, 2";
/// `run.c` adds this to the mean square before it takes the root.
const EPSILON: f32 = 1e-5;
/// The base of the rotary embedding's frequencies in `run.c`.
const FREQ_BASE: f32 = 10000.0;

#[cfg(test)]
mod tests;
