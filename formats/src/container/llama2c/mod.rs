//! llama2.c: the checkpoints of karpathy/llama2.c, and its [`tokenizer`] file.
//!
//! Versions 0, 1 and 2 are read and written in either byte order. No file states its byte order, and llama2.c itself
//! assumes that of the machine: a big-endian machine needs a big-endian file.
//!
//! | version | header | weights |
//! |---|---|---|
//! | 0 | seven i32 | f32, and the cosines and sines of the rotary embedding |
//! | 1 | magic, version, seven i32, a flag; 256 bytes | f32 |
//! | 2 | as 1, and the group size | norms f32, matrices i8 in groups under one f32 scale |
//!
//! A fork of version 2, with the head size in its header, is read and written too ([`Options::fork`]), and the files of the
//! ports to the Commodore 64 and the PlayStation Portable are written ([`expansion`]).
//!
//! The tensors of all layers are stacked by kind. They have no names and get those of GGUF; both programs rotate
//! neighbouring pairs, so the weights are the same. Version 0 has neither a magic number nor a version: it is recognised
//! by its length, which follows from its header.
//!
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
/// The name of the format in errors.
const FORMAT: &str = "llama2.c";
/// The versions that are read and written.
const KNOWN: &str = "0, 1, 2";
/// The epsilon of RMSNorm in `run.c`.
const EPSILON: f32 = 1e-5;
/// The base of the rotary embedding's frequencies in `run.c`.
const FREQ_BASE: f32 = 10000.0;

#[cfg(test)]
mod tests;
