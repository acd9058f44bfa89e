//! bitnet.cpp's I2_S: ternary weights of two bits each, with one scale for the whole tensor.
//!
//! The n weights of a tensor are stored row by row in n / 4 bytes, 128 weights in 32 bytes: byte p of a block holds weights
//! p, p + 32, p + 64 and p + 96 in its bits 7:6, 5:4, 3:2 and 1:0, each as the code t + 1 of t in −1, 0, 1. One f32 follows,
//! the scale, and 28 bytes of zeros. A weight is t · scale; the code 3 is invalid. This is the layout of the published
//! files, which bitnet.cpp's quantizer writes on x86 and ik_llama.cpp's `dequantize_row_ms_i2s` reads.
//!
//! Two more layouts have the same number in GGUF: blocks of 64 weights, if the quantizer ran on ARM, and four rows
//! interleaved, if it was built without `ACT_PARALLEL`. Nothing in a file distinguishes them, so neither is supported:
//! such files are read as this layout, and give the right number of wrong weights.

/// Weights in a block. Rows are whole blocks.
pub const WEIGHTS: usize = 128;

/// Bytes of the codes in a block.
pub const BYTES: usize = 32;

/// Bytes after the codes of a tensor: four of the scale, and zeros.
pub const TAIL: u64 = 32;

/// The type's number in GGUF. It was that of a type that has been removed from ggml, whose tensors have another length.
pub const GGUF: u32 = 36;

/// The values of `general.architecture` that only bitnet.cpp's files have. Its files of other models, as of Llama 3 with 1.58
/// bits, have those models' architectures.
pub const ARCHITECTURES: [&str; 3] = ["bitnet-b1.58", "bitnet-25", "bitnet"];

/// Bytes of the codes of so many weights; `None` if they are not whole blocks.
pub fn code_bytes(elements: u64) -> Option<u64> {
    elements.is_multiple_of(WEIGHTS as u64).then_some(elements / 4)
}

/// Bytes of a tensor of so many weights; `None` if they are not whole blocks.
pub fn tensor_bytes(elements: u64) -> Option<u64> {
    code_bytes(elements)?.checked_add(TAIL)
}

/// The byte and the shift of the code of a weight, by its index in a block.
#[inline(always)]
fn position(weight: usize) -> (usize, usize) {
    (weight % BYTES, 6 - 2 * (weight % WEIGHTS / BYTES))
}

/// The code of weight `i` of whole blocks: 0, 1 or 2, or 3, which is invalid.
///
/// # Panics
/// If there are fewer weights.
#[inline(always)]
pub fn code(codes: &[u8], i: usize) -> u8 {
    let (byte, shift) = position(i);
    codes[i / WEIGHTS * BYTES + byte] >> shift & 3
}

/// Unpacks weights from index `skip` of the first block on. Invalid codes become NaN.
///
/// # Panics
/// If `codes` has fewer weights than `skip` and the length of `out` together.
pub fn decode(codes: &[u8], skip: usize, scale: f32, out: &mut [f32]) {
    let values = [-scale, 0.0, scale, f32::NAN];
    if skip == 0 {
        let (blocks, _) = codes.as_chunks::<BYTES>();
        let (outs, rest) = out.as_chunks_mut::<WEIGHTS>();
        for (block, out) in blocks.iter().zip(outs.iter_mut()) {
            for (quarter, out) in out.as_chunks_mut::<BYTES>().0.iter_mut().enumerate() {
                for (x, byte) in out.iter_mut().zip(block) {
                    *x = values[usize::from(byte >> (6 - 2 * quarter) & 3)];
                }
            }
        }
        let done = outs.len() * WEIGHTS;
        assert!(blocks.len() >= outs.len());
        rest.iter_mut().enumerate().for_each(|(i, x)| *x = values[usize::from(code(codes, done + i))]);
        return;
    }
    out.iter_mut().enumerate().for_each(|(i, x)| *x = values[usize::from(code(codes, skip + i))]);
}

/// Packs whole blocks of weights, each of which is `magnitude`, its negative, or zero.
///
/// # Errors
/// The index of the first weight that is none of these.
///
/// # Panics
/// If `x` is not whole blocks, or `codes` is not a quarter as long.
pub fn encode(x: &[f32], magnitude: f32, codes: &mut [u8]) -> Result<(), usize> {
    let ((blocks, rest), (outs, _)) = (x.as_chunks::<WEIGHTS>(), codes.as_chunks_mut::<BYTES>());
    assert!(rest.is_empty() && blocks.len() == outs.len(), "whole blocks");
    for (n, (x, out)) in blocks.iter().zip(outs).enumerate() {
        let mut sound = true;
        for p in 0..BYTES {
            let mut byte = 0;
            for quarter in 0..4 {
                let x = x[BYTES * quarter + p];
                sound &= (x == 0.0) | (x.abs() == magnitude);
                byte |= (u8::from(x >= 0.0) + u8::from(x > 0.0)) << (6 - 2 * quarter);
            }
            out[p] = byte;
        }
        if let (false, Some(i)) = (sound, x.iter().position(|&x| x != 0.0 && x.abs() != magnitude)) {
            return Err(n * WEIGHTS + i);
        }
    }
    Ok(())
}

/// The index of the first weight with an invalid code, in the codes of whole blocks.
///
/// # Panics
/// If the last block has an invalid code and is not whole.
pub fn first_invalid(codes: &[u8]) -> Option<usize> {
    let both = |byte: &u8| byte & byte >> 1 & 0x55 != 0;
    let block = codes.iter().position(both)? / BYTES;
    (block * WEIGHTS..(block + 1) * WEIGHTS).find(|&i| code(codes, i) == 3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The layout, written weight by weight.
    fn packed(trits: &[i8]) -> Vec<u8> {
        let mut bytes = vec![0; trits.len() / 4];
        for (i, t) in trits.iter().enumerate() {
            let (block, within) = (i / 128, i % 128);
            let quarter = within / 32;
            bytes[32 * block + within % 32] |= ((t + 1) as u8) << [6, 4, 2, 0][quarter];
        }
        bytes
    }

    #[test]
    fn a_block_is_laid_out_as_in_published_files() {
        // −1 in the first quarter, 0 in the second, 1 in the third; in the last they alternate.
        let trit = |i: usize| [-1, 0, 1, [-1, 0, 1][i % 3]][i / 32];
        let x: Vec<f32> = (0..128).map(|i| f32::from(trit(i) as i8) * 0.75).collect();
        let mut codes = [0xFF; 32];
        encode(&x, 0.75, &mut codes).unwrap();
        // 96 is a multiple of three.
        let wanted: Vec<u8> = (0..32).map(|p| [0b00_01_10_00, 0b00_01_10_01, 0b00_01_10_10][p % 3]).collect();
        assert_eq!(codes[..], wanted);
        let mut back = [9.0; 128];
        decode(&codes, 0, 0.75, &mut back);
        assert_eq!(back[..], x);
    }

    #[test]
    fn sizes() {
        assert_eq!(tensor_bytes(0), Some(32));
        assert_eq!(tensor_bytes(256), Some(96));
        assert_eq!(tensor_bytes(130), None);
        assert_eq!(tensor_bytes(u64::MAX - 127), Some((u64::MAX - 127) / 4 + 32));
    }

    #[test]
    fn invalid_codes_are_found_and_decode_to_nan() {
        for at in [0, 31, 32, 64, 95, 127, 128, 200, 255] {
            let mut codes = packed(&[0; 256]);
            let (block, within) = (at / 128, at % 128);
            codes[32 * block + within % 32] |= 3 << [6, 4, 2, 0][within / 32];
            assert_eq!(first_invalid(&codes), Some(at));
            let mut x = [0.0; 256];
            decode(&codes, 0, 1.0, &mut x);
            assert!(x.iter().enumerate().all(|(i, x)| x.is_nan() == (i == at)));
        }
        // Ones in neighbouring codes are not a code of three.
        assert_eq!(first_invalid(&[0b10_01_10_01; 32]), None);
        assert_eq!(first_invalid(&[]), None);
    }

    #[test]
    fn other_weights_are_refused_with_their_index() {
        let mut x = [0.5f32; 256];
        let mut codes = [0; 64];
        encode(&x, 0.5, &mut codes).unwrap();
        for wrong in [0.500_000_06, -0.25, f32::NAN, f32::INFINITY, 1e-30] {
            x[130] = wrong;
            assert_eq!(encode(&x, 0.5, &mut codes), Err(130), "{wrong}");
        }
        x[130] = -0.0;
        encode(&x, 0.5, &mut codes).unwrap();
        assert_eq!(code(&codes, 130), 1);
        // Without a magnitude all weights are zero.
        encode(&[0.0; 128], 0.0, &mut codes[..32]).unwrap();
        assert_eq!(codes[..32], [0x55; 32]);
    }

    proptest! {
        #[test]
        fn codes_round_trip(
            trits in prop::collection::vec(-1i8..=1, 128 * 3),
            scale in prop::num::f32::POSITIVE | prop::num::f32::NORMAL,
            range in (0usize..384, 0usize..384),
        ) {
            let scale = scale.abs();
            let x: Vec<f32> = trits.iter().map(|&t| f32::from(t) * scale).collect();
            let mut codes = vec![0xAA; 96];
            encode(&x, scale, &mut codes).unwrap();
            prop_assert_eq!(&codes, &packed(&trits));
            prop_assert_eq!(first_invalid(&codes), None);
            let mut back = vec![9.0; 384];
            decode(&codes, 0, scale, &mut back);
            prop_assert_eq!(&back, &x);
            // Any range of weights.
            let (from, to) = (range.0.min(range.1), range.0.max(range.1));
            let mut part = vec![9.0; to - from];
            decode(&codes[from / 128 * 32..], from % 128, scale, &mut part);
            prop_assert_eq!(&part[..], &x[from..to]);
        }
    }
}
