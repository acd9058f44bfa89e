//! The containers: GGUF, safetensors, llama2.c and PyTorch. Each has a reader and, but for PyTorch's, a writer:
//!
//! * a reader takes an [`Input`] and returns a [`Model`] whose tensors say where their bytes are;
//! * a writer takes metadata and tensors and returns a [`Layout`] of the same tensors with their locations.
//!
//! A layout is known before the first weight is read: lengths, headers, locations. Reading the written file gives the
//! layout's tensors back.

pub mod gguf;
pub mod llama2c;
pub mod pytorch;
pub mod safetensors;
#[cfg(test)]
mod testing;

use std::borrow::Cow;

use crate::error::{Error, Fault, Result};
use crate::model::{ByteOrder, Format, Input, Model, Tensor};

/// The files of a model that is to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// One file, or several for a split model.
    pub files: Vec<OutFile>,
    /// The tensors as given, in the same order, with their locations in the files. Bytes between them are zero.
    pub tensors: Vec<Tensor>,
}

/// A file that is to be written.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OutFile {
    /// Its length in bytes.
    pub len: u64,
    /// Bytes that are known beforehand (headers and tables), with their offsets in the file.
    pub fixed: Vec<(u64, Vec<u8>)>,
}

/// The name, without extension, of part `no` (from 0) of `count`, as llama.cpp and Hugging Face write it.
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

/// Recognises the container of a file by its content.
///
/// # Errors
/// [`Fault::NotAModel`] with what was found; [`Fault::More`] if more of the file is needed.
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
    if let Some(known) = other_kind(b) {
        return Err(not(known));
    }
    if pytorch::looks_like(input) {
        return Ok(Format::PyTorch);
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
    Err(not(&unknown(b)))
}

/// What is said of a file of no known kind, which is often what a download left.
fn unknown(b: &[u8]) -> String {
    const NEITHER: &str = "neither GGUF, safetensors, llama2.c nor PyTorch";
    let start = &b[..b.len().min(4096)];
    let is_text = std::str::from_utf8(&start[..start.len().min(40)])
        .is_ok_and(|text| text.chars().all(|c| !c.is_control() || c.is_ascii_whitespace()));
    match start {
        [] => "the file is empty".into(),
        _ if start.iter().all(|&b| b == 0) => {
            format!("{NEITHER}: it begins with zeros alone, as a download that is not complete")
        }
        _ if is_text => {
            let text = String::from_utf8_lossy(&start[..start.len().min(40)]);
            let words: Vec<&str> = text.split_whitespace().collect();
            format!("{NEITHER}, but text: {:?}", words.join(" "))
        }
        _ => NEITHER.into(),
    }
}

/// What a file is that is taken for a model, by its first bytes.
fn other_kind(b: &[u8]) -> Option<&'static str> {
    const KINDS: [(&[u8], &str); 10] = [
        (
            b"\x00\x05\x16\x07",
            "an AppleDouble file of macOS (attributes of another file), not the file itself",
        ),
        (
            b"\x80\x02\x8a\x0al\xfc\x9c\x46\xf9",
            "a PyTorch checkpoint from before version 1.6 (2020); load it with torch.load and save it again with torch.save",
        ),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file, perhaps of Keras; only safetensors are read"),
        (b"\x93NUMPY", "an array of NumPy, not a model"),
        (b"\x1f\x8b", "compressed with gzip; unpack it first"),
        (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it first"),
        (b"\xfd7zXZ", "compressed with xz; unpack it first"),
        (b"<!doctype", WEB_PAGE),
        (b"<html", WEB_PAGE),
        (b"<?xml", "an XML document, perhaps the error of a server; download the file again"),
    ];
    const WEB_PAGE: &str = "a web page; the download failed, or was of the page about the file";
    // The text of a page may begin after empty lines, and in letters of either case.
    let text = b.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(b).trim_ascii_start();
    let is = |start: &[u8]| {
        let text = if start[0] == b'<' { text } else { b };
        text.get(..start.len()).is_some_and(|found| found.eq_ignore_ascii_case(start))
    };
    KINDS.iter().find(|(start, _)| is(start)).map(|(_, kind)| *kind)
}

/// What a file is, by its first bytes, if it is known to be no model: the error of [`sniff`] for it.
pub fn is_other(input: &Input) -> Option<Error> {
    other_kind(input.bytes).map(|kind| Error::of(input.name, Fault::NotAModel(kind.into())))
}

/// Reads a single file of any container. A part of a split GGUF gives the model of that part alone.
///
/// ```
/// use formats::{Fault, container, model::Input};
///
/// let error = container::read(&Input::whole("notes.txt", b"Once upon a time")).unwrap_err();
/// assert!(matches!(error.fault, Fault::NotAModel(_)));
/// assert_eq!(
///     error.to_string(),
///     "notes.txt: not a model file: neither GGUF, safetensors, llama2.c nor PyTorch, but text: \"Once upon a time\""
/// );
///
/// // Of a longer file, the reader says how much it needs.
/// let error = container::read(&Input { name: "x.gguf", bytes: b"GGUF", len: 1 << 30 }).unwrap_err();
/// assert_eq!(error.fault, Fault::More(4096));
/// ```
///
/// # Errors
/// Those of [`sniff`] and of the container's reader: [`gguf::read`], [`safetensors::read`], [`pytorch::read`],
/// [`llama2c::read`], [`llama2c::tokenizer::read`]. [`Fault::More`] if more of the file is needed.
pub fn read(input: &Input) -> Result<Model> {
    match sniff(input)? {
        Format::Gguf { .. } => gguf::read(input),
        Format::Safetensors => safetensors::read(input),
        // Of a long file, `pytorch::read` reads less: the directory of the archive is at its end.
        Format::PyTorch => pytorch::read(input.name, input.len, |range| {
            let ends = [range.start, range.end].map(|at| usize::try_from(at).unwrap_or(usize::MAX));
            let bytes = input.bytes.get(ends[0]..ends[1]).map(Cow::Borrowed);
            bytes.ok_or_else(|| Error::of(input.name, Fault::More(range.end)))
        }),
        Format::Llama2c { .. } => llama2c::read(input),
        Format::Llama2cTokenizer => llama2c::tokenizer::read(input),
    }
}

/// Reads numbers of one byte order, and never beyond the end of the file.
#[derive(Clone)]
pub(crate) struct Cursor<'a> {
    input: &'a Input<'a>,
    /// The offset of the next byte.
    pub at: u64,
    /// The byte order of the numbers.
    pub order: ByteOrder,
}

impl<'a> Cursor<'a> {
    pub fn new(input: &'a Input<'a>, order: ByteOrder) -> Self {
        Self { input, at: 0, order }
    }

    /// An error at offset `at`.
    pub fn fault(&self, at: u64, fault: Fault) -> Error {
        Error::at(self.input.name, at, fault)
    }

    /// The bytes between `at` and the end of the file.
    pub fn left(&self) -> u64 {
        self.input.len - self.at
    }

    /// The next `n` bytes; `what` names them in errors.
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
