//! Repacks bitnet.cpp's I2_S into a block type that the kernels support.

use formats::block::{DType, i2_s};
use formats::model::Tensor;
use kernels::parallel;

use crate::error::{Error, Result};
use crate::source::{Source, Stored};

/// 1.0 as little-endian f16, the scale of every block. The tensor's own scale is an f32, which f16 may not hold exactly.
const ONE: [u8; 2] = [0x00, 0x3C];

/// Blocks, or pairs of them, that a thread repacks at a time.
const PIECE: usize = 1 << 10;

/// Blocks with the same weights and block scales of 1: their type, their bytes, and the scale of the tensor. TQ2_0 has
/// the same four weights in a byte, in the reverse order; rows that are not a multiple of 256 weights become Q2_0.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read; [`Error::InvalidCode`]; [`Error::NotFinite`] for the scale.
pub fn repack(source: &Source, t: &Tensor) -> Result<(DType, Vec<u8>, f32)> {
    let Stored::Ternary { codes, scale, .. } = source.stored_fetch(t, 0..t.elements())? else {
        unreachable!("{} is {}", t.name, t.encoding.name());
    };
    let scale = source.model.order.le::<4>(scale[..4].try_into().expect("four bytes"));
    let scale = f32::from_le_bytes(scale);
    if !scale.is_finite() {
        return Err(Error::NotFinite { tensor: t.name.clone(), weight: None, row: None, value: Some(scale) });
    }
    if let Some(weight) = i2_s::first_invalid(&codes) {
        return Err(Error::InvalidCode { tensor: t.name.clone(), weight: weight as u64 });
    }
    let dtype = if t.cols().is_multiple_of(256) { DType::TQ2_0 } else { DType::Q2_0 };
    let mut bytes = vec![0; dtype.bytes_for(t.elements()).expect("rows are whole blocks") as usize];
    match dtype {
        DType::TQ2_0 => {
            const CODES: usize = 2 * i2_s::BYTES;
            parallel::chunks_mut(&mut bytes, PIECE * 66, &|i, blocks| {
                let codes = codes[i * PIECE * CODES..].chunks_exact(CODES);
                for (block, codes) in blocks.chunks_exact_mut(66).zip(codes) {
                    for (out, byte) in block.iter_mut().zip(codes) {
                        let halves = byte.rotate_left(4);
                        *out = halves >> 2 & 0x33 | (halves & 0x33) << 2;
                    }
                    block[64..].copy_from_slice(&ONE);
                }
            });
        }
        _ => {
            parallel::chunks_mut(&mut bytes, PIECE * 2 * 18, &|i, blocks| {
                let codes = codes[i * PIECE * i2_s::BYTES..].chunks_exact(i2_s::BYTES);
                for (blocks, codes) in blocks.chunks_exact_mut(2 * 18).zip(codes) {
                    for (h, block) in blocks.chunks_exact_mut(18).enumerate() {
                        block[..2].copy_from_slice(&ONE);
                        for (j, out) in block[2..].iter_mut().enumerate() {
                            let code = |i: usize| i2_s::code(codes, 64 * h + 4 * j + i) << (2 * i);
                            *out = code(0) | code(1) | code(2) | code(3);
                        }
                    }
                }
            });
        }
    }
    Ok((dtype, bytes, scale))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::InFile;
    use formats::container::gguf;
    use formats::metadata::{Metadata, Value};
    use formats::model::{ByteOrder, Encoding, Location};

    /// A source with one tensor, all of whose codes and scale are told.
    fn made(folder: &std::path::Path, cols: u64, codes: &[u8], scale: f32) -> Source {
        let mut m = Metadata::new();
        m.set("general.architecture", Value::text("bitnet"));
        let shape = vec![4 * codes.len() as u64 / cols, cols];
        let t = Tensor { name: "a".into(), shape, encoding: Encoding::I2S, location: Location::default() };
        let options = gguf::Options { order: ByteOrder::Little, split: gguf::Split::None };
        let layout = gguf::layout("a.gguf", &m, &[t], options).unwrap();
        let mut bytes = layout.files[0].fixed[0].1.clone();
        bytes.resize(layout.tensors[0].location.offset as usize, 0);
        bytes.extend(codes.iter().copied().chain(scale.to_le_bytes()));
        bytes.resize(layout.files[0].len as usize, 0);
        let path = folder.join("a.gguf");
        std::fs::write(&path, bytes).unwrap();
        let file = InFile::open(&path, false).unwrap();
        let model = file.parse(gguf::read).unwrap();
        Source::new(&path, model, vec![file])
    }

    #[test]
    fn blocks_have_the_same_weights() {
        let folder = tempfile::tempdir().unwrap();
        let any = |i: usize| (i * i * 7 + i / 3) % 3;
        let codes: Vec<u8> =
            (0..192).map(|i| (0..4).map(|k| (any(4 * i + k) << (2 * k)) as u8).sum()).collect();
        for (cols, dtype) in
            [(256, DType::TQ2_0), (768, DType::TQ2_0), (128, DType::Q2_0), (384, DType::Q2_0)]
        {
            let source = made(folder.path(), cols, &codes, -0.3);
            let (found, bytes, scale) = repack(&source, &source.model.tensors[0]).unwrap();
            assert_eq!((found, scale), (dtype, -0.3));
            let (mut x, mut wanted) = (vec![0f32; 768], vec![0f32; 768]);
            kernels::codec(dtype).unwrap().decode(&bytes, &mut x);
            i2_s::decode(&codes, 0, 1.0, &mut wanted);
            assert_eq!(x, wanted, "{cols}");
        }
    }

    #[test]
    fn invalid_codes_and_scales_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut codes = [0x55; 64];
        for scale in [f32::NAN, f32::INFINITY] {
            let source = made(folder.path(), 256, &codes, scale);
            assert!(repack(&source, &source.model.tensors[0]).unwrap_err().to_string().contains("scale"));
        }
        codes[33] = 0x5D;
        let source = made(folder.path(), 256, &codes, 1.0);
        let e = repack(&source, &source.model.tensors[0]).unwrap_err().to_string();
        assert!(e.contains("weight 193 has the code 3"), "{e}");
    }
}
