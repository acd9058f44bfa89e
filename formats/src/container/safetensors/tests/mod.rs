//! Tests against the `safetensors` crate, hand-made hostile files and published ones.

mod hostile;
mod real;
mod round_trip;
mod shards;
mod typed;

use crate::block::DType;
use crate::container::Layout;
use crate::model::{Encoding, Place, Tensor};

/// A file of this header and this many bytes of data.
fn file(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![7; data]].concat()
}

/// A tensor that is not placed yet.
fn tensor(name: &str, dtype: DType, shape: &[u64]) -> Tensor {
    let place = Place { file: 0, offset: 0, len: 0 };
    Tensor { name: name.into(), shape: shape.to_vec(), encoding: Encoding::Blocks(dtype), place }
}

/// The files of a layout. Each tensor's bytes count up from its index in the layout.
fn materialise(layout: &Layout) -> Vec<Vec<u8>> {
    let mut files: Vec<Vec<u8>> = layout.files.iter().map(|f| vec![0; f.len as usize]).collect();
    for (file, out) in files.iter_mut().zip(&layout.files) {
        for (at, bytes) in &out.fixed {
            file[*at as usize..][..bytes.len()].copy_from_slice(bytes);
        }
    }
    for (i, t) in layout.tensors.iter().enumerate() {
        let bytes = &mut files[t.place.file][t.place.offset as usize..][..t.place.len as usize];
        bytes.iter_mut().enumerate().for_each(|(j, b)| *b = (i + j) as u8);
    }
    files
}
