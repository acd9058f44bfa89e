//! How models are filed. Each container is a folder or file with a reader and a writer:
//!
//! * a reader takes an [`Input`] and gives a [`Model`] whose tensors say where their bytes lie;
//! * a writer takes metadata and tensors and gives a [`Layout`] of the same tensors, placed.
//!
//! A layout is all that is to be known before the first weight is read: lengths, headers, places. Reading a
//! written file gives the layout's tensors back.

pub mod gguf;
pub mod llama2c;
pub mod safetensors;
#[cfg(test)]
mod testing;

use crate::error::{Error, Fault, Result};
use crate::model::{ByteOrder, Format, Input, Model, Tensor};

/// Files that are to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// One, or several for a split model.
    pub files: Vec<OutFile>,
    /// The tensors as given, in the same order, placed in the files. Bytes between places are zero.
    pub tensors: Vec<Tensor>,
}

/// A file that is to be written.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OutFile {
    /// Its length.
    pub len: u64,
    /// Bytes that are known beforehand, with their offset: headers and tables.
    pub fixed: Vec<(u64, Vec<u8>)>,
}

/// The name (without its ending) of part `no` (from 0) of `count`, as llama.cpp and Hugging Face write it.
pub fn part_stem(stem: &str, no: usize, count: usize) -> String {
    format!("{stem}-{:05}-of-{count:05}", no + 1)
}

/// The inverse of [`part_stem`]: the model's stem, the part's number (from 0) and the number of parts.
pub fn parse_part_stem(name: &str) -> Option<(&str, usize, usize)> {
    let (rest, count) = name.rsplit_once("-of-")?;
    let (stem, no) = rest.rsplit_once('-')?;
    let number = |s: &str| (s.len() >= 5 && s.bytes().all(|b| b.is_ascii_digit())).then(|| s.parse().ok())?;
    let (no, count): (usize, usize) = (number(no)?, number(count)?);
    (1 <= no && no <= count).then_some((stem, no - 1, count))
}

/// Tells which container a file is by its content.
///
/// # Errors
/// [`Fault::NotAModel`] with what was found; [`Fault::More`] if more of the file is needed to tell.
pub fn sniff(input: &Input) -> Result<Format> {
    let b = input.bytes;
    if b.len() < 64 && (b.len() as u64) < input.len {
        return Err(Error::of(input.name, Fault::More(input.len.min(4096))));
    }
    let not = |why: &str| Error::of(input.name, Fault::NotAModel(why.to_string()));
    if b.starts_with(b"GGUF") {
        return Ok(Format::Gguf { version: 0 });
    }
    if [b"tjgg", b"fmgg", b"lmgg"].iter().any(|magic| b.starts_with(&magic[..])) {
        return Err(not("a GGML file from before GGUF (2023); convert it with a llama.cpp of that time"));
    }
    if b.starts_with(b"PK\x03\x04") {
        return Err(not("a zip archive, perhaps a PyTorch checkpoint; only safetensors are read"));
    }
    if let Some(format) = llama2c::sniff(input) {
        return Ok(format);
    }
    if safetensors::looks_like(input) {
        return Ok(Format::Safetensors);
    }
    if llama2c::tokenizer::looks_like(input)? {
        return Ok(Format::Llama2cTokenizer);
    }
    Err(not("neither GGUF, safetensors nor llama2.c"))
}

/// Reads a single file of any container. A shard of a split GGUF gives that shard alone.
///
/// # Errors
/// Whatever is wrong with the file; [`Fault::More`] if the input is a prefix that is too short.
pub fn read(input: &Input) -> Result<Model> {
    match sniff(input)? {
        Format::Gguf { .. } => gguf::read(input),
        Format::Safetensors => safetensors::read(input),
        Format::Llama2c { .. } => llama2c::read(input),
        Format::Llama2cTokenizer => llama2c::tokenizer::read(input),
    }
}

/// Reads numbers in one byte order, and never beyond the end.
#[derive(Clone)]
pub(crate) struct Cursor<'a> {
    input: &'a Input<'a>,
    /// The next byte.
    pub at: u64,
    /// The order of the numbers.
    pub order: ByteOrder,
}

impl<'a> Cursor<'a> {
    pub fn new(input: &'a Input<'a>, order: ByteOrder) -> Self {
        Self { input, at: 0, order }
    }

    /// An error at the byte `at`.
    pub fn fault(&self, at: u64, fault: Fault) -> Error {
        Error::at(self.input.name, at, fault)
    }

    /// Bytes between here and the end of the file.
    pub fn left(&self) -> u64 {
        self.input.len - self.at
    }

    /// The next `n` bytes; `what` they are is for the message.
    pub fn take(&mut self, n: u64, what: impl FnOnce() -> String) -> Result<&'a [u8]> {
        if n > self.left() {
            let end = self.at.saturating_add(n);
            return Err(self.fault(self.at, Fault::Ends { what: what(), end, len: self.input.len }));
        }
        let end = self.at + n;
        let bytes = usize::try_from(end).ok().and_then(|end| self.input.bytes.get(self.at as usize..end));
        let bytes = bytes.ok_or_else(|| self.fault(self.at, Fault::More(end)))?;
        self.at = end;
        Ok(bytes)
    }

    pub fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let order = self.order;
        self.take(N as u64, || what.to_string()).map(|b| order.le(b.try_into().expect("N bytes were taken")))
    }

    pub fn u32(&mut self, what: &str) -> Result<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub fn u64(&mut self, what: &str) -> Result<u64> {
        self.array(what).map(u64::from_le_bytes)
    }
}
