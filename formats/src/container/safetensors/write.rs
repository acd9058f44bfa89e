//! The writer. Tensors are in the order of the `safetensors` crate, those with the largest numbers first, so that in a
//! memory-mapped file every number is aligned.

use std::collections::HashSet;

use safetensors::Dtype;
use serde::Deserialize as _;
use serde::de::IntoDeserializer as _;

use super::{FORMAT, MAX_HEADER, MAX_KEYS, METADATA, PYTORCH, TYPED, typed};
use crate::container::gguf::{Split, assign};
use crate::container::{Layout, OutFile};
use crate::error::{Error, Fault, Result};
use crate::metadata::Metadata;
use crate::model::{Encoding, Location, Tensor, elements};

/// What the caller of [`layout`] chooses.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Options {
    /// How tensors are divided among files, in the order given.
    pub split: Split,
}

/// Lays out one file, or several, which need an [`super::index`] beside them. `name` is the target's and `shard_names`
/// gives that of file `no` (from 0) of `count`; both are for errors.
///
/// Metadata that is all strings is written to every file. Other metadata is written to the first file, as JSON under one
/// key; in the others that JSON is empty.
///
/// # Errors
/// What [`super::read`] would refuse: [`Fault::Text`], [`Fault::Duplicate`], [`Fault::Shape`], [`Fault::TooMany`]; and
/// [`Fault::Unsupported`] for tensor types that safetensors does not have.
pub fn layout(
    name: &str,
    metadata: &Metadata,
    tensors: &[Tensor],
    options: Options,
    shard_names: &dyn Fn(usize, usize) -> String,
) -> Result<Layout> {
    let bad = |fault| Error::of(name, fault);
    let settings = Settings::new(metadata).map_err(bad)?;
    let mut names = HashSet::new();
    let mut placed = Vec::with_capacity(tensors.len());
    let mut types = Vec::with_capacity(tensors.len());
    let mut total = 0u64;
    for t in tensors {
        if t.name == METADATA {
            let problem = "reserved for the metadata".into();
            return Err(bad(Fault::Text { what: format!("tensor name {METADATA:?}"), problem }));
        }
        if !names.insert(t.name.as_str()) {
            return Err(bad(Fault::Duplicate { what: "tensor", name: t.name.clone() }));
        }
        let (dtype, len) = stored(t).map_err(bad)?;
        total = total.checked_add(len).filter(|&n| n < 1 << 62).ok_or_else(|| {
            let why = "the sizes of the tensors overflow".into();
            bad(Fault::Shape { tensor: t.name.clone(), shape: t.shape.clone(), why })
        })?;
        types.push(dtype);
        placed.push(Tensor { location: Location { file: 0, offset: 0, len }, ..t.clone() });
    }

    let shards = assign(&placed, 1, options.split);
    let count = shards.len();
    let mut files = Vec::with_capacity(count);
    for (i, range) in shards.into_iter().enumerate() {
        let own = settings.of_file(i);
        let file = file(i, own, &mut placed[range.clone()], &types[range]).map_err(|fault| {
            let name = if count > 1 { shard_names(i, count) } else { name.to_string() };
            Error::of(&name, fault)
        })?;
        files.push(file);
    }
    Ok(Layout { files, tensors: placed })
}

/// A tensor's type and the length of its data in bytes, if safetensors can hold it.
fn stored(t: &Tensor) -> std::result::Result<(Dtype, u64), Fault> {
    let dtype = match t.encoding {
        Encoding::Blocks(dtype) => dtype.info().safetensors.map(|name| (dtype, name)),
        Encoding::Int8Groups { .. } | Encoding::I2S | Encoding::Foreign(_) => None,
    };
    let type_name = t.encoding.name();
    let unsupported = || {
        let tensor = &t.name;
        Fault::Unsupported(format!("safetensors cannot hold {type_name} (tensor {tensor})"))
    };
    let (dtype, name) = dtype.ok_or_else(unsupported)?;
    let id =
        Dtype::deserialize(name.into_deserializer()).map_err(|_: serde::de::value::Error| unsupported())?;
    let wrong = |why: String| Fault::Shape { tensor: t.name.clone(), shape: t.shape.clone(), why };
    let n = elements(&t.shape).ok_or_else(|| wrong("the number of elements overflows".into()))?;
    let len = dtype
        .bytes_for(n)
        .ok_or_else(|| wrong(format!("as {type_name} its size overflows or is not whole bytes")))?;
    Ok((id, len))
}

/// Lays out file `i` and sets the locations of its tensors.
fn file(
    i: usize,
    settings: &str,
    tensors: &mut [Tensor],
    types: &[Dtype],
) -> std::result::Result<OutFile, Fault> {
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by(|&a, &b| types[b].cmp(&types[a]).then_with(|| tensors[a].name.cmp(&tensors[b].name)));

    let mut header = format!("{{{settings}");
    let mut offset = 0u64;
    for t in order {
        let (t, dtype) = (&mut tensors[t], types[t]);
        let end = offset + t.location.len; // `layout` has checked the sum
        let comma = if header.len() > 1 { "," } else { "" };
        let name = quoted(&t.name);
        let shape: Vec<String> = t.shape.iter().map(u64::to_string).collect();
        let shape = shape.join(",");
        header += &format!(
            r#"{comma}{name}:{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[{offset},{end}]}}"#
        );
        t.location = Location { file: i, offset, len: t.location.len };
        offset = end;
    }
    header.push('}');
    // The data starts at a multiple of the size of the largest numbers.
    while header.len() % 8 != 0 {
        header.push(' ');
    }
    let len = header.len() as u64;
    if len > MAX_HEADER {
        let what = "the header's length".into();
        return Err(Fault::TooMany { what, found: len, most: MAX_HEADER });
    }
    tensors.iter_mut().for_each(|t| t.location.offset += 8 + len);
    let fixed = [&len.to_le_bytes()[..], header.as_bytes()].concat();
    Ok(OutFile { len: 8 + len + offset, fixed: vec![(0, fixed)] })
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The text of the `__metadata__` entry, or nothing.
struct Settings {
    first: String,
    others: String,
}

impl Settings {
    fn new(metadata: &Metadata) -> std::result::Result<Self, Fault> {
        if metadata.len() > MAX_KEYS {
            let what = "the number of metadata keys".into();
            return Err(Fault::TooMany { what, found: metadata.len() as u64, most: MAX_KEYS as u64 });
        }
        if metadata.iter().any(|(key, _)| key.is_empty()) {
            return Err(Fault::Text { what: "a metadata key".into(), problem: "empty".into() });
        }
        // As JSON, texts are no shorter: a header that is too long is refused before it is made.
        let least: usize = metadata.iter().map(|(k, v)| k.len() + v.as_str().map_or(0, str::len)).sum();
        if least as u64 > MAX_HEADER {
            let what = "the header's length".into();
            return Err(Fault::TooMany { what, found: least as u64, most: MAX_HEADER });
        }
        // Text under the key of typed metadata would be read as that.
        let texts: Option<Vec<(&str, &str)>> = metadata
            .iter()
            .map(|(key, value)| Some((key, value.as_str().filter(|_| key != TYPED)?)))
            .collect();
        Ok(match texts {
            Some(texts) => {
                let first = entry(&texts);
                Self { others: first.clone(), first }
            }
            None => {
                let typed = typed::to_text(metadata);
                let with = |typed| entry(&[(FORMAT, PYTORCH), (TYPED, typed)]);
                Self { first: with(&typed), others: with("[]") }
            }
        })
    }

    fn of_file(&self, i: usize) -> &str {
        if i == 0 { &self.first } else { &self.others }
    }
}

fn entry(texts: &[(&str, &str)]) -> String {
    if texts.is_empty() {
        return String::new();
    }
    let texts: Vec<String> = texts.iter().map(|(k, v)| format!("{}:{}", quoted(k), quoted(v))).collect();
    format!("{}:{{{}}}", quoted(METADATA), texts.join(","))
}
