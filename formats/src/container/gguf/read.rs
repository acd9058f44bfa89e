//! The reader. Every length is compared with what is left of the file before anything is allocated.

use std::collections::HashSet;
use std::mem::take;

use super::numbers::{Info, Numbers};
use super::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAX_LEN, MOST_DIMS, MOST_NAME};
use crate::block::Foreign;
use crate::container::Cursor;
use crate::error::{Fault, Result};
use crate::metadata::{Array, Kind, Metadata, Value};
use crate::model::{ByteOrder, Encoding, Format, Input, Location, Model, Tensor, elements};

/// Reads one GGUF file: version 1, 2 or 3, either byte order.
///
/// # Errors
/// [`Fault::More`] if `input` is a prefix that ends before the tensor data. Else what ggml's reader refuses is refused
/// here too, except for version 1, a key that is there twice with the same value (which is kept once, with a note), longer
/// names, more dimensions, and types of other programs: [`Fault::NotAModel`], [`Fault::Version`], [`Fault::Ends`], [`Fault::TooMany`], [`Fault::Text`],
/// [`Fault::ValueType`], [`Fault::NestedArray`], [`Fault::Duplicate`], [`Fault::Alignment`], [`Fault::Metadata`],
/// [`Fault::TensorType`], [`Fault::Shape`], [`Fault::Offset`].
pub fn read(input: &Input) -> Result<Model> {
    let mut c = Cursor::new(input, ByteOrder::Little);
    if c.take(4, || "the magic".into())? != b"GGUF" {
        return Err(c.fault(0, Fault::NotAModel("the first four bytes are not GGUF".into())));
    }
    let version = c.u32("the version")?;
    let (version, order) = match version {
        v if v & 0xFFFF == 0 && v != 0 => (v.swap_bytes(), ByteOrder::Big),
        v => (v, ByteOrder::Little),
    };
    if !(1..=3).contains(&version) {
        return Err(c.fault(4, Fault::Version { format: "GGUF", found: version, known: "1, 2, 3" }));
    }
    c.order = order;
    let mut r = Reader { c, wide: version > 1, notes: Vec::new() };

    // A metadata entry takes at least a key of one byte, a type and a value of one byte.
    let n_tensors = r.count("the number of tensors", if r.wide { 24 } else { 16 })?;
    let n_kv = r.count("the number of metadata entries", if r.wide { 14 } else { 10 })?;

    let mut metadata = Metadata::new();
    let mut alignment_at = 0;
    for _ in 0..n_kv {
        let at = r.c.at;
        let key = r.name("a metadata key")?;
        let value = r.value(&key)?;
        if key == ALIGNMENT_KEY {
            alignment_at = at;
        }
        match metadata.get(&key) {
            None => metadata.push(key, value),
            // Some writers repeat general.architecture. With one value there is only one way to read it.
            Some(first) if *first == value && r.notes.len() < 16 => {
                r.notes
                    .push(format!("metadata key {key} is there twice with the same value and is kept once"));
            }
            Some(_) => return Err(r.c.fault(at, Fault::Duplicate { what: "metadata key", name: key })),
        }
    }
    let alignment = match metadata.get(ALIGNMENT_KEY) {
        None => DEFAULT_ALIGNMENT,
        Some(Value::U32(a)) if a.is_power_of_two() => u64::from(*a),
        Some(Value::U32(a)) => return Err(r.c.fault(alignment_at, Fault::Alignment(u64::from(*a)))),
        Some(other) => {
            let why = format!("has type {}, expected u32", other.kind().name());
            return Err(r.c.fault(alignment_at, Fault::Metadata { key: ALIGNMENT_KEY.into(), why }));
        }
    };

    let mut infos = Vec::new();
    for _ in 0..n_tensors {
        infos.push(r.info()?);
    }
    let mut names = HashSet::with_capacity(infos.len());
    for info in &infos {
        if !names.insert(info.name.as_str()) {
            let name = info.name.clone();
            return Err(r.c.fault(info.at, Fault::Duplicate { what: "tensor", name }));
        }
    }
    drop(names);
    let start = r.c.at.checked_next_multiple_of(alignment).unwrap_or(u64::MAX);
    let numbers = Numbers::of(&metadata, &infos, alignment, input.len.saturating_sub(start));
    let mut tensors = Vec::with_capacity(infos.len());
    let mut expected = 0u64;
    for info in &mut infos {
        let tensor = r.tensor(info, &numbers)?;
        let Location { offset, len, .. } = tensor.location;
        if offset != expected {
            return Err(r.c.fault(info.at, Fault::Offset { tensor: tensor.name, found: offset, expected }));
        }
        expected = expected
            .checked_add(len)
            .and_then(|end| end.checked_next_multiple_of(alignment))
            .filter(|&end| end < 1 << 62)
            .ok_or_else(|| {
                let why = "the sizes of the tensors overflow".into();
                r.c.fault(
                    info.at,
                    Fault::Shape { tensor: tensor.name.clone(), shape: tensor.shape.clone(), why },
                )
            })?;
        tensors.push(tensor);
    }

    // Offsets count from the start of the data, which is aligned in the file.
    let mut beyond = None;
    for (tensor, info) in tensors.iter_mut().zip(&infos) {
        tensor.location.offset = tensor.location.offset.saturating_add(start);
        let end = tensor.location.offset.saturating_add(tensor.location.len);
        if end > input.len && tensor.location.len > 0 {
            // The last of them says how long the file should be.
            beyond = Some((info.at, format!("tensor {}", tensor.name), end));
        }
    }
    if let Some((at, what, end)) = beyond {
        return Err(r.c.fault(at, Fault::Ends { what, end, len: input.len }));
    }
    let end = start.saturating_add(expected);
    if input.len > end && !tensors.is_empty() {
        r.notes.push(behind(input, end));
    }
    Ok(Model { format: Format::Gguf { version }, order, alignment, metadata, tensors, notes: r.notes })
}

/// A note on the bytes behind the last tensor, which nothing in a GGUF speaks of.
fn behind(input: &Input, end: u64) -> String {
    let bytes = input.len - end;
    let start = usize::try_from(end).ok().and_then(|end| input.bytes.get(end..));
    match start.is_some_and(|b| b.starts_with(b"GGUF")) {
        true => format!(
            "another GGUF begins at byte {end}, behind the last tensor: its {bytes} bytes are not read (two files glued to one?)"
        ),
        false => format!("{bytes} bytes behind the last tensor, from byte {end} on, are not read"),
    }
}

struct Reader<'a> {
    c: Cursor<'a>,
    /// Lengths and counts have 64 bits (from version 2 on).
    wide: bool,
    /// What was corrected, for people to read.
    notes: Vec<String>,
}

impl Reader<'_> {
    fn len(&mut self, what: &str) -> Result<u64> {
        if self.wide { self.c.u64(what) } else { self.c.u32(what).map(u64::from) }
    }

    /// A count of items of at least `size` bytes each, all of which must be in the rest of the file.
    fn count(&mut self, what: &str, size: u64) -> Result<u64> {
        let at = self.c.at;
        let found = self.len(what)?;
        self.fits(at, found, size, || format!("{what} ({found})"))?;
        Ok(found)
    }

    /// Whether the rest of the file can hold `found` items of at least `size` bytes.
    fn fits(&self, at: u64, found: u64, size: u64, what: impl Fn() -> String) -> Result<()> {
        if found > self.c.left() / size {
            let end = self.c.at.saturating_add(found.saturating_mul(size));
            return Err(self.c.fault(at, Fault::Ends { what: what(), end, len: self.c.at + self.c.left() }));
        }
        Ok(())
    }

    fn string(&mut self, what: &str) -> Result<&[u8]> {
        let at = self.c.at;
        let found = self.len(what)?;
        if found > MAX_LEN {
            let what = format!("the length of {what}");
            return Err(self.c.fault(at, Fault::TooMany { what, found, most: MAX_LEN }));
        }
        self.c.take(found, || what.to_string())
    }

    /// A key or a tensor's name.
    fn name(&mut self, what: &str) -> Result<String> {
        let at = self.c.at;
        let bytes = self.string(what)?.to_vec();
        let problem = match String::from_utf8(bytes) {
            Ok(s) if s.is_empty() => "empty",
            Ok(s) => return Ok(s),
            Err(_) => "not UTF-8",
        };
        Err(self.c.fault(at, Fault::Text { what: what.into(), problem: problem.into() }))
    }

    fn kind(&mut self, key: &str) -> Result<Kind> {
        let at = self.c.at;
        let found = self.c.u32("a value type")?;
        Kind::from_id(found).ok_or_else(|| self.c.fault(at, Fault::ValueType { key: key.into(), found }))
    }

    fn value(&mut self, key: &str) -> Result<Value> {
        match self.kind(key)? {
            Kind::String => Ok(Value::String(self.string(&format!("the value of {key}"))?.to_vec())),
            Kind::Array => Ok(Value::Array(self.values(key)?)),
            kind => {
                let mut bytes = self.c.take(kind.size() as u64, || format!("the value of {key}"))?.to_vec();
                if self.c.order == ByteOrder::Big {
                    bytes.reverse();
                }
                if kind == Kind::Bool && bytes[0] > 1 {
                    self.notes.push(format!(
                        "metadata key {key} is a bool of value {} and is read as true",
                        bytes[0]
                    ));
                }
                Ok(Value::from_le(kind, &bytes).expect("as many bytes as the kind has were taken"))
            }
        }
    }

    fn values(&mut self, key: &str) -> Result<Array> {
        let at = self.c.at;
        let kind = self.kind(key)?;
        if kind == Kind::Array {
            return Err(self.c.fault(at, Fault::NestedArray(key.into())));
        }
        let at = self.c.at;
        let what = || format!("the length of array {key}");
        let found = self.len(&what())?;
        let size = if kind != Kind::String { kind.size() as u64 } else { 4 + 4 * u64::from(self.wide) };
        if found > MAX_LEN {
            return Err(self.c.fault(at, Fault::TooMany { what: what(), found, most: MAX_LEN }));
        }
        self.fits(at, found, size, || format!("array {key} of {found} values"))?;
        let mut bytes;
        if kind == Kind::String {
            bytes = Vec::new();
            for _ in 0..found {
                let s = self.string(key)?;
                bytes.extend((s.len() as u64).to_le_bytes());
                bytes.extend(s);
            }
        } else {
            bytes = self.c.take(found * size, || format!("array {key}"))?.to_vec();
            if self.c.order == ByteOrder::Big {
                bytes.chunks_exact_mut(kind.size()).for_each(<[u8]>::reverse);
            }
        }
        Ok(Array::from_encoded(kind, found as usize, bytes))
    }

    /// A tensor info.
    fn info(&mut self) -> Result<Info> {
        let at = self.c.at;
        let name = self.name("a tensor's name")?;
        if name.len() > MOST_NAME {
            let what = "the length of a tensor's name".into();
            let fault = Fault::TooMany { what, found: name.len() as u64, most: MOST_NAME as u64 };
            return Err(self.c.fault(at, fault));
        }
        let what = format!("the shape of tensor {name}");
        let dims_at = self.c.at;
        let n_dims = self.c.u32(&what)?;
        if n_dims as usize > MOST_DIMS {
            let what = format!("the number of dimensions of tensor {name}");
            let fault = Fault::TooMany { what, found: n_dims.into(), most: MOST_DIMS as u64 };
            return Err(self.c.fault(dims_at, fault));
        }
        // The file has the fastest dimension first.
        let mut shape = (0..n_dims).map(|_| self.len(&what)).collect::<Result<Vec<_>>>()?;
        shape.reverse();
        let id_at = self.c.at;
        let id = self.c.u32(&format!("the type of tensor {name}"))?;
        let offset = self.c.u64(&format!("the offset of tensor {name}"))?;
        Ok(Info { at, dims_at, id_at, name, shape, id, offset })
    }

    /// The tensor of a tensor info, of which it takes the name and the shape: there may be a million. Its offset is still
    /// relative to the start of the tensor data.
    fn tensor(&self, info: &mut Info, numbers: &Numbers) -> Result<Tensor> {
        let Info { name, shape, id, offset, .. } = &*info;
        let encoding = numbers.encoding(info).map_err(|why| {
            self.c.fault(info.id_at, Fault::TensorType { tensor: name.clone(), id: id.to_string(), why })
        })?;
        let wrong = |why: String| {
            self.c.fault(info.dims_at, Fault::Shape { tensor: name.clone(), shape: shape.clone(), why })
        };
        let n = elements(shape).ok_or_else(|| wrong("the number of elements overflows".into()))?;
        let block = encoding.unit();
        if shape.last().copied().unwrap_or(1) % block != 0 {
            let name = match encoding {
                Encoding::Foreign(Foreign::PQ2_0) => {
                    "PrismML's pq2_0 (q2_0 with one scale for 128 weights)".into()
                }
                other => other.name(),
            };
            return Err(wrong(format!("a row of {name} is not a multiple of {block} weights")));
        }
        let len = encoding.bytes(n).ok_or_else(|| wrong("its size overflows".into()))?;
        let location = Location { file: 0, offset: *offset, len };
        Ok(Tensor { name: take(&mut info.name), shape: take(&mut info.shape), encoding, location })
    }
}
