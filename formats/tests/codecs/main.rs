//! Encoders and decoders of every type, as they are compiled in the library. Here, and not beside the code: the crate is
//! compiled a second time for the tests beside the code, and encoders are most of it.

use formats::block::{CodecError, DType, Encode};

mod blocks;
mod grids;
mod lattices;
#[path = "../../src/published.rs"]
mod published;
mod snapshot;

fn decode(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    let blocks = bytes.len() / dtype.info().bytes;
    let mut x = vec![0.0; blocks * dtype.info().weights];
    dtype.decode(&bytes[..blocks * dtype.info().bytes], &mut x).unwrap();
    x
}

fn encode_with(dtype: DType, x: &[f32], how: &Encode) -> Option<Vec<u8>> {
    let mut bytes = vec![0xA5; dtype.bytes_for(x.len() as u64)? as usize];
    match dtype.encode(x, how, &mut bytes) {
        Ok(()) => Some(bytes),
        Err(CodecError::NoCodec(_)) => None,
        Err(e) => panic!("{e}"),
    }
}
