//! Importance matrices (imatrix) of llama.cpp: for every matrix of a model, the mean square of each of its inputs.
//!
//! There are two kinds of file; [`read`] recognises them. Newer ones are GGUFs with two f32 tensors for each measured
//! tensor: `<name>.in_sum2` of shape `[matrices, columns]` holds the sums of the squared inputs, and `<name>.counts`, of
//! shape `[matrices, 1]` or a single number, the numbers of tokens. `imatrix.datasets`, `imatrix.chunk_count` and
//! `imatrix.chunk_size` describe the text. The older kind, `.dat`, is in [`legacy`].
//!
//! Source: `tools/imatrix/imatrix.cpp` of llama.cpp.

pub mod legacy;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;

use formats::block::DType;
use formats::container::gguf;
use formats::metadata::{Metadata, Value};
use formats::model::{ByteOrder, Encoding, Input, Tensor};

use crate::error::{Error, Fault, Result};
use crate::statistics::{Entry, Statistics, Unit};

pub use write::write;

/// The key of a hash of the calibration text, in [`Statistics::metadata`].
pub const HASH: &str = "ggufkit.calibration.hash";

const SUMS: &str = ".in_sum2";
const COUNTS: &str = ".counts";
const KIND: &str = "general.type";
const DATASETS: &str = "imatrix.datasets";
const CHUNKS: &str = "imatrix.chunk_count";
const SIZE: &str = "imatrix.chunk_size";
/// Keys that are fields of [`Statistics`].
const OWN_KEYS: [&str; 4] = [KIND, DATASETS, CHUNKS, SIZE];

/// Whether a key is a field of [`Statistics`], or describes the layout of the file that it is in.
fn is_own(key: &str) -> bool {
    OWN_KEYS.contains(&key) || key == gguf::ALIGNMENT_KEY || gguf::SPLIT_KEYS.contains(&key)
}

/// The most entries of a file. The largest models have some 70,000 matrices, with every expert counted; an entry may have
/// twenty bytes in the file and takes many times that in memory.
const MOST_ENTRIES: u64 = 1 << 17;

/// Refuses more entries than a model can have matrices.
fn check_count(name: &str, found: u64) -> Result<()> {
    let (what, most) = ("the number of entries".to_string(), MOST_ENTRIES);
    match found > most {
        true => Err(formats::Error::of(name, formats::Fault::TooMany { what, found, most }).into()),
        false => Ok(()),
    }
}

/// Reads an importance matrix, of either kind and byte order. `name` is the file's, for errors, and `bytes` are all of it.
///
/// # Errors
/// [`Error::Format`] for a malformed container and for more entries than any model has matrices; [`Fault::NotAnImatrix`], [`Fault::Incomplete`], [`Fault::Type`],
/// [`Fault::Sizes`] or [`Fault::Value`] for invalid content.
pub fn read(name: &str, bytes: &[u8]) -> Result<Statistics> {
    if bytes.starts_with(b"GGUF") { read_gguf(name, bytes) } else { legacy::read(name, bytes) }
}

fn read_gguf(name: &str, bytes: &[u8]) -> Result<Statistics> {
    let model = gguf::read(&Input::whole(name, bytes))?;
    let not = |why: &str| Error::new(name, None, Fault::NotAnImatrix(why.to_string()));
    if let Some(kind) = model.metadata.text(KIND).filter(|&kind| kind != "imatrix") {
        return Err(not(&format!("general.type is {kind:?}")));
    }
    let split = gguf::split_of(&model.metadata).map_err(|e| formats::Error::of(name, e.into()))?;
    let mut notes = model.notes.clone();
    if let Some((no, count)) = split {
        if !gguf::holds_all(&model) {
            return Err(Error::new(name, None, Fault::Part { no: no.saturating_add(1), count }));
        }
        notes.push(format!(
            "{name}: says that it is one of {count} files, and has all tensors: it is read as the whole"
        ));
    }
    let mut pairs: BTreeMap<&str, [Option<&Tensor>; 2]> = BTreeMap::new();
    let mut others = 0;
    for t in &model.tensors {
        let part = |suffix| t.name.strip_suffix(suffix).filter(|entry| !entry.is_empty());
        match (part(SUMS), part(COUNTS)) {
            (Some(entry), _) => pairs.entry(entry).or_default()[0] = Some(t),
            (_, Some(entry)) => pairs.entry(entry).or_default()[1] = Some(t),
            _ => others += 1,
        }
    }
    if pairs.is_empty() {
        return Err(not("it has no tensor NAME.in_sum2"));
    }
    check_count(name, pairs.len() as u64)?;
    if others > 0 {
        notes.push(format!("{name}: {others} tensors that are neither sums nor counts are ignored"));
    }
    let (mut entries, mut unseen, mut matrices) = (BTreeMap::new(), 0, 0);
    for (entry, pair) in pairs {
        let half = |has, lacks| Error::new(name, None, Fault::Incomplete { entry: entry.into(), has, lacks });
        let (sums, counts) = match pair {
            [Some(sums), Some(counts)] => (sums, counts),
            [_, None] => return Err(half(SUMS, COUNTS)),
            [None, _] => return Err(half(COUNTS, SUMS)),
        };
        let values = numbers(name, bytes, model.order, sums)?;
        let counts: Vec<u64> =
            numbers(name, bytes, model.order, counts)?.into_iter().map(|n| n.round() as u64).collect();
        let fits = counts.len() == 1 || counts.len() as u64 == sums.rows();
        if values.is_empty() || !fits {
            let (values, counts) = (values.len() as u64, counts.len() as u64);
            let fault = Fault::Sizes { entry: entry.into(), values, counts };
            return Err(Error::new(name, Some(sums.location.offset), fault));
        }
        unseen += counts.iter().filter(|&&n| n == 0).count();
        matrices += counts.len();
        let value = Entry::new(values, counts).expect("the numbers and their sizes were checked");
        entries.insert(entry.to_string(), Arc::new(value));
    }
    if unseen > 0 {
        notes.push(format!(
            "{name}: {unseen} of {matrices} matrices (experts) were never used by the text; all their columns get the same importance"
        ));
    }
    let mut metadata = Metadata::new();
    let kept = model.metadata.iter().filter(|(key, _)| !is_own(key));
    kept.for_each(|(key, value)| metadata.set(key, value.clone()));
    Ok(Statistics {
        file: name.to_string(),
        entries,
        unit: Unit::Tokens,
        datasets: datasets(name, &model.metadata)?,
        chunks: integer(name, &model.metadata, CHUNKS)?.filter(|&n| n > 0),
        chunk_size: integer(name, &model.metadata, SIZE)?.filter(|&n| n > 0),
        metadata,
        notes,
    })
}

/// A tensor's numbers, which must be finite and not negative.
fn numbers(file: &str, bytes: &[u8], order: ByteOrder, t: &Tensor) -> Result<Vec<f32>> {
    if t.encoding != Encoding::Blocks(DType::F32) {
        let fault = Fault::Type { tensor: t.name.clone(), found: t.encoding.name() };
        return Err(Error::new(file, Some(t.location.offset), fault));
    }
    // The reader has checked that the location is within the file.
    let bytes = &bytes[t.location.offset as usize..][..t.location.len as usize];
    values(file, &t.name, t.location.offset, order, bytes)
}

/// The numbers at offset `at` of the file.
fn values(file: &str, tensor: &str, at: u64, order: ByteOrder, bytes: &[u8]) -> Result<Vec<f32>> {
    let value = |(i, b): (usize, &[u8; 4])| {
        let value = f32::from_le_bytes(order.le(*b));
        if value.is_finite() && value >= 0.0 {
            return Ok(value + 0.0); // makes -0.0 positive
        }
        let (tensor, index) = (tensor.to_string(), i as u64);
        Err(Error::new(file, Some(at + 4 * index), Fault::Value { tensor, index, value: value.into() }))
    };
    bytes.as_chunks::<4>().0.iter().enumerate().map(value).collect()
}

fn wrong(file: &str, key: &str, expected: &str, found: &Value) -> Error {
    let why = format!("has type {}, expected {expected}", found.kind().name());
    formats::Error::of(file, formats::Fault::Metadata { key: key.to_string(), why }).into()
}

fn integer(file: &str, metadata: &Metadata, key: &str) -> Result<Option<u64>> {
    let Some(value) = metadata.get(key) else { return Ok(None) };
    value.as_u64().map(Some).ok_or_else(|| wrong(file, key, "a non-negative integer", value))
}

fn datasets(file: &str, metadata: &Metadata) -> Result<Vec<String>> {
    let key = DATASETS;
    let Some(value) = metadata.get(key) else { return Ok(Vec::new()) };
    let array = value.as_array().ok_or_else(|| wrong(file, key, "an array", value))?;
    // Empty arrays may have any type.
    if array.kind() != formats::metadata::Kind::String && !array.is_empty() {
        return Err(wrong(file, key, "an array of strings", value));
    }
    Ok(array.strings().map(|s| String::from_utf8_lossy(s).into_owned()).collect())
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod written;
