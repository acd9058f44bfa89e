//! The writer: version 3, either byte order, any alignment, any number of shards.

use std::collections::HashSet;

use super::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MOST_DIMS, MOST_NAME, split};
use crate::block::i2_s;
use crate::container::{Layout, OutFile};
use crate::error::{Error, Fault, Result};
use crate::metadata::{Kind, Metadata, Value};
use crate::model::{ByteOrder, Encoding, Location, Tensor, elements};

/// What the caller of [`layout`] chooses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// The byte order of every number in the files.
    pub order: ByteOrder,
    /// How tensors are divided among files.
    pub split: split::Split,
}

/// Lays out a GGUF of version 3. Tensors are in the file in the order given; the alignment is that of `metadata`. `name` is
/// the target's, for errors.
///
/// # Errors
/// What [`super::read`] would refuse: [`Fault::Metadata`] for an alignment that is not a power of two of type u32,
/// [`Fault::Text`] for the length of a key or a name, [`Fault::Duplicate`], [`Fault::Shape`], [`Fault::Unsupported`] for a
/// type that GGUF does not have, and [`Fault::Split`] for too many parts. Names and shapes that only ggml does not read are
/// written: [`super::beyond_ggml`].
pub fn layout(name: &str, metadata: &Metadata, tensors: &[Tensor], options: Options) -> Result<Layout> {
    layout_of(name, metadata, tensors.to_vec(), options)
}

/// The same for tensors that are given away: of a million, a second list takes much memory.
///
/// # Errors
/// Those of [`layout`].
pub fn layout_of(name: &str, metadata: &Metadata, tensors: Vec<Tensor>, options: Options) -> Result<Layout> {
    let bad = |fault| Error::of(name, fault);
    let alignment = match metadata.get(ALIGNMENT_KEY) {
        None => DEFAULT_ALIGNMENT,
        Some(Value::U32(a)) if a.is_power_of_two() => u64::from(*a),
        Some(v) => {
            let why = format!("must be a power of two of type u32 (found {v:?})");
            return Err(bad(Fault::Metadata { key: ALIGNMENT_KEY.into(), why }));
        }
    };
    for (key, _) in metadata.iter() {
        if key.is_empty() || key.len() > 65535 {
            let problem = format!("{} bytes long, expected 1 to 65535", key.len());
            return Err(bad(Fault::Text { what: "a metadata key".into(), problem }));
        }
    }
    let mut names = HashSet::with_capacity(tensors.len());
    if let Some(t) = tensors.iter().find(|t| !names.insert(t.name.as_str())) {
        return Err(bad(Fault::Duplicate { what: "tensor", name: t.name.clone() }));
    }
    drop(names);
    let mut placed = tensors;
    let mut total = 0u64;
    for t in &mut placed {
        t.location = Location { file: 0, offset: 0, len: stored_bytes(t).map_err(bad)? };
        let padded = t.location.len.checked_next_multiple_of(alignment);
        total = padded.and_then(|n| total.checked_add(n)).filter(|&n| n < 1 << 62).ok_or_else(|| {
            let why = "the sizes of the tensors overflow".into();
            bad(Fault::Shape { tensor: t.name.clone(), shape: t.shape.clone(), why })
        })?;
    }
    let shards = split::assign(&placed, alignment, options.split);
    let mut files = Vec::with_capacity(shards.len());
    for (i, range) in shards.iter().enumerate() {
        let mut own = if i == 0 { metadata.clone() } else { Metadata::new() };
        if shards.len() == 1 {
            // They may be those of the file that the metadata was read from.
            split::settle_alone(&mut own, placed.len());
        } else {
            split::annotate(&mut own, i, shards.len(), placed.len()).map_err(bad)?;
            if i > 0 && alignment != DEFAULT_ALIGNMENT {
                own.set(ALIGNMENT_KEY, Value::U32(alignment as u32));
            }
        }
        files.push(file(i, &own, &mut placed[range.clone()], alignment, options.order));
    }
    Ok(Layout { files, tensors: placed })
}

/// The bytes of a tensor's data, if GGUF can hold it.
fn stored_bytes(t: &Tensor) -> std::result::Result<u64, Fault> {
    let wrong = |why: String| Fault::Shape { tensor: t.name.clone(), shape: t.shape.clone(), why };
    if t.name.is_empty() || t.name.len() > MOST_NAME {
        let problem = format!("{} bytes long, expected 1 to {MOST_NAME}", t.name.len());
        return Err(Fault::Text { what: "the name of a tensor".into(), problem });
    }
    if t.shape.len() > MOST_DIMS {
        return Err(wrong(format!("expected at most {MOST_DIMS} dimensions")));
    }
    let name = t.encoding.name();
    if type_id(t.encoding).is_none() {
        let why = format!("GGUF cannot hold {name} (tensor {}); give it another type", t.name);
        return Err(Fault::Unsupported(why));
    }
    let block = t.encoding.unit();
    if !t.cols().is_multiple_of(block) {
        return Err(wrong(format!("a row of {name} must be a multiple of {block} weights")));
    }
    elements(&t.shape).and_then(|n| t.encoding.bytes(n)).ok_or_else(|| wrong("its size overflows".into()))
}

/// The number of a tensor's type, if GGUF can hold it.
fn type_id(encoding: Encoding) -> Option<u32> {
    match encoding {
        Encoding::Blocks(dtype) => dtype.info().gguf,
        Encoding::I2S => Some(i2_s::GGUF),
        Encoding::Int8Groups { .. } | Encoding::Foreign(_) => None,
    }
}

/// Lays out one file and sets the locations of its tensors.
fn file(i: usize, metadata: &Metadata, tensors: &mut [Tensor], alignment: u64, order: ByteOrder) -> OutFile {
    let mut w = Writer { out: b"GGUF".to_vec(), order };
    w.number(&3u32.to_le_bytes());
    w.number(&(tensors.len() as u64).to_le_bytes());
    w.number(&(metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata.iter() {
        w.string(key.as_bytes());
        w.number(&(value.kind() as u32).to_le_bytes());
        w.value(value);
    }
    let mut offset = 0u64;
    for t in tensors.iter_mut() {
        w.string(t.name.as_bytes());
        w.number(&(t.shape.len() as u32).to_le_bytes());
        for d in t.shape.iter().rev() {
            w.number(&d.to_le_bytes());
        }
        w.number(&type_id(t.encoding).expect("checked by stored_bytes").to_le_bytes());
        w.number(&offset.to_le_bytes());
        t.location = Location { file: i, offset, len: t.location.len };
        offset += t.location.len.next_multiple_of(alignment);
    }
    let header = w.out.len() as u64;
    let start = header.next_multiple_of(alignment);
    tensors.iter_mut().for_each(|t| t.location.offset += start);
    let len = if tensors.is_empty() { header } else { start + offset };
    OutFile { len, fixed: vec![(0, w.out)] }
}

struct Writer {
    out: Vec<u8>,
    order: ByteOrder,
}

impl Writer {
    /// Little-endian bytes of a number.
    fn number(&mut self, le: &[u8]) {
        match self.order {
            ByteOrder::Little => self.out.extend(le),
            ByteOrder::Big => self.out.extend(le.iter().rev()),
        }
    }

    fn string(&mut self, s: &[u8]) {
        self.number(&(s.len() as u64).to_le_bytes());
        self.out.extend(s);
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::String(s) => self.string(s),
            Value::Array(a) => {
                self.number(&(a.kind() as u32).to_le_bytes());
                self.number(&(a.len() as u64).to_le_bytes());
                match (self.order, a.kind()) {
                    (ByteOrder::Little, _) => self.out.extend(a.bytes()),
                    (ByteOrder::Big, Kind::String) => a.strings().for_each(|s| self.string(s)),
                    (ByteOrder::Big, kind) => {
                        a.bytes().chunks_exact(kind.size()).for_each(|b| self.number(b))
                    }
                }
            }
            scalar => self.number(&scalar.to_le()),
        }
    }
}
