//! The reader of one file.

use std::collections::HashSet;

use safetensors::Dtype;

use super::json::Text;
use super::{FORMAT, MAX_HEADER, MAX_KEYS, METADATA, TYPED, typed};
use crate::block::{DType, TYPES};
use crate::container::Cursor;
use crate::error::{Fault, Result};
use crate::metadata::{Metadata, Value};
use crate::model::{ByteOrder, Encoding, Format, Input, Location, Model, Tensor, elements};

/// The longest entry of a tensor, in bytes. It limits the number of dimensions.
const MAX_ENTRY: usize = 1 << 20;

/// Whether the file starts as a safetensors file does: with a length that can be the header's, then a brace. That holds
/// for a truncated file too: reading it tells what is missing.
pub fn looks_like(input: &Input) -> bool {
    let Some((len, rest)) = input.bytes.split_first_chunk::<8>() else { return false };
    (2..=MAX_HEADER).contains(&u64::from_le_bytes(*len)) && rest.first() == Some(&b'{')
}

/// Reads one file. Tensors are in the order of their data. Text metadata is read as strings, typed metadata as it was
/// when it was written.
///
/// # Errors
/// [`Fault::More`] if `input` is a prefix that ends before the tensor data. Else what the `safetensors` crate refuses, and
/// duplicate names, empty metadata keys, more than 65,536 of them, entries of over 1 MiB and a header that does not begin
/// with its brace: [`Fault::Header`], [`Fault::TooMany`], [`Fault::Ends`], [`Fault::Duplicate`], [`Fault::Offset`],
/// [`Fault::Shape`], [`Fault::TensorType`], [`Fault::Text`], [`Fault::Metadata`].
pub fn read(input: &Input) -> Result<Model> {
    let mut c = Cursor::new(input, ByteOrder::Little);
    let len = c.u64("the header's length")?;
    if len > MAX_HEADER {
        let what = "the header's length".into();
        return Err(c.fault(0, Fault::TooMany { what, found: len, most: MAX_HEADER }));
    }
    let header = c.take(len, || "the header".into())?;
    let text = Text::new(input.name, header, 8)?;
    if !text.text.starts_with('{') {
        return Err(c.fault(8, Fault::Header("does not start with a brace".into())));
    }

    let mut metadata = None;
    let mut entries = Vec::new();
    text.entries(text.text, |key, value| {
        let name: String = text.parse(key)?;
        if name != METADATA {
            entries.push((key, tensor(&text, name, value)?));
        } else if metadata.replace(strings(&text, value)?).is_some() {
            return Err(text.fault(key, Fault::Duplicate { what: "key", name }));
        }
        Ok(())
    })?;

    // By name, and by position among equals: duplicates are neighbours, the second one later in the file.
    entries.sort_unstable_by(|(a_key, a), (b_key, b)| {
        a.name.cmp(&b.name).then(a_key.as_ptr().cmp(&b_key.as_ptr()))
    });
    if let Some([_, (key, t)]) = entries.windows(2).find(|pair| pair[0].1.name == pair[1].1.name) {
        return Err(text.fault(key, Fault::Duplicate { what: "tensor", name: t.name.clone() }));
    }
    // The data of tensors is contiguous; tensors of no bytes come before the one that starts at the same offset.
    entries.sort_by_key(|(_, t)| (t.location.offset, t.location.len));
    let start = 8 + len;
    let mut expected = 0u64;
    let mut tensors = Vec::with_capacity(entries.len());
    for (key, mut t) in entries {
        let Location { offset, len, .. } = t.location;
        if offset != expected {
            return Err(text.fault(key, Fault::Offset { tensor: t.name, found: offset, expected }));
        }
        expected += len; // the end in the header, which `tensor` has checked
        let end = start.saturating_add(expected);
        if end > input.len {
            let what = format!("tensor {}", t.name);
            return Err(text.fault(key, Fault::Ends { what, end, len: input.len }));
        }
        t.location.offset += start;
        tensors.push(t);
    }
    let end = start + expected;
    if end != input.len {
        let why = format!("{} bytes follow the data of the last tensor", input.len - end);
        return Err(c.fault(end, Fault::Header(why)));
    }
    Ok(Model {
        format: Format::Safetensors,
        order: ByteOrder::Little,
        alignment: 1,
        metadata: metadata.unwrap_or_default(),
        tensors,
        notes: Vec::new(),
    })
}

/// A tensor's entry. The crate's own struct has `usize` here, too small on a 32-bit host for the header of a 5 GB file.
#[derive(serde::Deserialize)]
struct Entry {
    dtype: Dtype,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// A tensor from its entry. The offset is still relative to the end of the header.
fn tensor(text: &Text, name: String, entry: &str) -> Result<Tensor> {
    if entry.len() > MAX_ENTRY {
        let what = format!("the length of the entry of tensor {name}");
        let fault = Fault::TooMany { what, found: entry.len() as u64, most: MAX_ENTRY as u64 };
        return Err(text.fault(entry, fault));
    }
    let info: Entry = match serde_json::from_str(entry) {
        Ok(info) => info,
        Err(e) => return Err(unknown_type(text, &name, entry).unwrap_or_else(|| text.bad(entry, &e))),
    };
    let type_name = info.dtype.to_string();
    let Some(dtype) = DType::from_safetensors(&type_name) else {
        let why = "not known to this program".into();
        return Err(text.fault(entry, Fault::TensorType { tensor: name, id: type_name, why }));
    };
    let (shape, (from, to)) = (info.shape, info.data_offsets);
    let wrong =
        |why: String| text.fault(entry, Fault::Shape { tensor: name.clone(), shape: shape.clone(), why });
    let n = elements(&shape).ok_or_else(|| wrong("the number of elements overflows".into()))?;
    let len = dtype
        .bytes_for(n)
        .ok_or_else(|| wrong(format!("as {type_name} its size overflows or is not whole bytes")))?;
    let Some(given) = to.checked_sub(from) else {
        return Err(text.fault(entry, Fault::Header(format!("tensor {name} ends before it starts"))));
    };
    if given != len {
        return Err(wrong(format!("as {type_name} it takes {len} bytes, data_offsets give it {given}")));
    }
    let location = Location { file: 0, offset: from, len };
    Ok(Tensor { name, shape, encoding: Encoding::Blocks(dtype), location })
}

/// The fault of an entry that could not be parsed because of an unknown type.
fn unknown_type(text: &Text, name: &str, entry: &str) -> Option<crate::Error> {
    #[derive(serde::Deserialize)]
    struct Typed {
        dtype: String,
    }
    let id = serde_json::from_str::<Typed>(entry).ok()?.dtype;
    if DType::from_safetensors(&id).is_some() {
        return None;
    }
    let known: Vec<&str> = TYPES.iter().filter_map(|t| t.safetensors).collect();
    let why = format!("unknown, known are {}", known.join(", "));
    Some(text.fault(entry, Fault::TensorType { tensor: name.to_string(), id, why }))
}

/// The value of `__metadata__`, which is null in some files of 2023.
fn strings(text: &Text, value: &str) -> Result<Metadata> {
    let mut metadata = Metadata::new();
    if value == "null" {
        return Ok(metadata);
    }
    let mut keys = HashSet::new();
    let mut from_gguf = None;
    text.entries(value, |at, value| {
        let key: String = text.parse(at)?;
        if key.is_empty() {
            let problem = "empty".into();
            return Err(text.fault(at, Fault::Text { what: "a metadata key".into(), problem }));
        }
        if keys.len() == MAX_KEYS {
            let what = "the number of metadata keys".into();
            let fault = Fault::TooMany { what, found: MAX_KEYS as u64 + 1, most: MAX_KEYS as u64 };
            return Err(text.fault(at, fault));
        }
        if !keys.insert(key.clone()) {
            return Err(text.fault(at, Fault::Duplicate { what: "metadata key", name: key }));
        }
        let bad = |why: String| text.fault(value, Fault::Metadata { key: key.clone(), why });
        if !value.starts_with('"') {
            return Err(bad("is not a string, as all metadata of safetensors must be".into()));
        }
        let string: String = text.parse(value)?;
        if key == TYPED {
            from_gguf = Some(typed::from_text(&string).map_err(bad)?);
        } else {
            metadata.push(key, Value::String(string.into_bytes()));
        }
        Ok(())
    })?;
    let Some(mut typed) = from_gguf else { return Ok(metadata) };
    // The format key was written for other readers. Other keys were added by other programs, and are kept.
    metadata.remove(FORMAT);
    let keys: HashSet<String> = typed.iter().map(|(key, _)| key.to_string()).collect();
    for (key, value) in metadata.iter().filter(|(key, _)| !keys.contains(*key)) {
        typed.push(key.to_string(), value.clone());
    }
    Ok(typed)
}
