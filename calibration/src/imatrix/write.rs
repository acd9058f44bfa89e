//! The newer kind of file: a GGUF as llama-imatrix writes it.

use formats::block::DType;
use formats::container::gguf::{Options, Split, layout};
use formats::metadata::{Array, Metadata, Value};
use formats::model::{ByteOrder, Encoding, Location, Tensor};

use super::{CHUNKS, COUNTS, DATASETS, KIND, SIZE, SUMS, is_own};
use crate::error::{Error, Fault, Result};
use crate::statistics::{Entry, Statistics};

/// Writes a little-endian GGUF with the keys, tensors and order of llama-imatrix, followed by the keys of
/// [`Statistics::metadata`]. An unknown number or size of chunks is written as 0, since llama-quantize refuses a file without it.
///
/// Reading it gives the same statistics [in tokens](Statistics::in_tokens), bit for bit, except for counts beyond 2^24, which
/// are rounded to f32, and for notes.
///
/// # Errors
/// [`Fault::Unwritable`] if there are no entries or one has no name; [`Error::Format`] for names of more than 55 bytes.
pub fn write(statistics: &Statistics) -> Result<Vec<u8>> {
    let file = &statistics.file;
    let unwritable = |why: &str| Err(Error::new(file, None, Fault::Unwritable(why.into())));
    if statistics.entries.is_empty() {
        return unwritable("nothing was measured");
    }
    if statistics.entries.contains_key("") {
        return unwritable("an entry has no name");
    }
    let statistics = &*statistics.in_tokens();
    let tensors: Vec<Tensor> =
        statistics.entries.iter().flat_map(|(name, entry)| described(name, entry)).collect();
    let options = Options { order: ByteOrder::Little, split: Split::None };
    let layout = layout(file, &metadata(statistics), &tensors, options)?;
    let mut bytes = vec![0; layout.files[0].len as usize];
    for (at, fixed) in &layout.files[0].fixed {
        bytes[*at as usize..][..fixed.len()].copy_from_slice(fixed);
    }
    let mut put = |t: &Tensor, numbers: &mut dyn Iterator<Item = f32>| {
        let bytes = &mut bytes[t.location.offset as usize..][..t.location.len as usize];
        bytes.as_chunks_mut::<4>().0.iter_mut().zip(numbers).for_each(|(b, x)| *b = x.to_le_bytes());
    };
    for (pair, entry) in layout.tensors.as_chunks::<2>().0.iter().zip(statistics.entries.values()) {
        put(&pair[0], &mut entry.sums().iter().copied());
        put(&pair[1], &mut entry.counts().iter().map(|&n| n as f32));
    }
    Ok(bytes)
}

/// The two tensors of an entry. As usual in GGUF, an outermost dimension of one is omitted.
fn described(name: &str, entry: &Entry) -> [Tensor; 2] {
    let matrices = entry.counts().len() as u64;
    [(SUMS, entry.cols() as u64), (COUNTS, 1)].map(|(suffix, cols)| Tensor {
        name: format!("{name}{suffix}"),
        shape: if matrices == 1 { vec![cols] } else { vec![matrices, cols] },
        encoding: Encoding::Blocks(DType::F32),
        location: Location::default(),
    })
}

fn metadata(statistics: &Statistics) -> Metadata {
    let number = |n: Option<u64>| Value::U32(n.unwrap_or(0).try_into().unwrap_or(u32::MAX));
    let mut metadata = Metadata::new();
    metadata.set(KIND, Value::text("imatrix"));
    metadata.set(DATASETS, Value::Array(Array::of_strings(&statistics.datasets)));
    metadata.set(CHUNKS, number(statistics.chunks));
    metadata.set(SIZE, number(statistics.chunk_size));
    for (key, value) in statistics.metadata.iter().filter(|(key, _)| !is_own(key)) {
        metadata.set(key, value.clone());
    }
    metadata
}
