//! Tests against the `safetensors` crate, hand-made hostile files and published ones.

mod hostile;
mod real;
mod round_trip;
mod shards;
mod typed;

use crate::block::DType;
use crate::container::testing::materialise;
use crate::model::{Encoding, Location, Tensor};

/// A file with this header and so many bytes of data.
fn file(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![7; data]].concat()
}

/// A tensor without a location.
fn tensor(name: &str, dtype: DType, shape: &[u64]) -> Tensor {
    let location = Location::default();
    Tensor { name: name.into(), shape: shape.to_vec(), encoding: Encoding::Blocks(dtype), location }
}
