//! bitnet.cpp's I2_S: ternary weights in two bits each, under one scale for the whole tensor.
//!
//! The n weights of a tensor stand row after row in n / 4 bytes, 128 in 32: byte p of a block has weights p, p + 32,
//! p + 64 and p + 96 in its bits 7:6, 5:4, 3:2 and 1:0, each as the code t + 1 of t in −1, 0, 1. One f32 follows, the
//! scale, and 28 bytes of zeros. A weight is t · scale; the code 3 means nothing. This is the layout of the published
//! files, which bitnet.cpp's quantizer writes on x86 and ik_llama.cpp's `dequantize_row_ms_i2s` reads.
//!
//! The same number stands for two more layouts: blocks of 64 weights where the quantizer ran on ARM, and four
//! rows side by side where it was built without `ACT_PARALLEL`. Nothing in a file tells which it is, so neither is
//! supported: files of theirs are read as this one, and give the right number of wrong weights.

/// Weights of a block; rows are whole blocks.
pub const WEIGHTS: usize = 128;

/// Bytes of a block.
pub const BYTES: usize = 32;

/// Bytes behind the codes: the scale, four of them, and zeros.
pub const TAIL: u64 = 32;

/// The type's number in GGUF, where the architecture is one of [`ARCHITECTURES`]; elsewhere it stood for a type that was
/// removed.
pub const GGUF: u32 = 36;

/// What `general.architecture` is in bitnet.cpp's files.
pub const ARCHITECTURES: [&str; 3] = ["bitnet-b1.58", "bitnet-25", "bitnet"];

/// Bytes of the codes of so many weights; `None` if they do not fill whole blocks.
pub fn code_bytes(elements: u64) -> Option<u64> {
    elements.is_multiple_of(WEIGHTS as u64).then_some(elements / 4)
}

/// Bytes of a tensor of so many weights; `None` if they do not fill whole blocks.
pub fn tensor_bytes(elements: u64) -> Option<u64> {
    code_bytes(elements)?.checked_add(TAIL)
}

/// The bits above which the code of a weight stands, and its byte, by its place in a block.
#[inline(always)]
fn place(weight: usize) -> (usize, usize) {
    (weight % BYTES, 6 - 2 * (weight % WEIGHTS / BYTES))
}

/// The code of weight `i` of whole blocks: 0, 1, 2, or 3, which means nothing.
///
/// # Panics
/// If there are fewer weights.
#[inline(always)]
pub fn code(codes: &[u8], i: usize) -> u8 {
    let (byte, shift) = place(i);
    codes[i / WEIGHTS * BYTES + byte] >> shift & 3
}

/// Unpacks weights from number `skip` of the first block on; not a number where a code means nothing.
///
/// # Panics
/// If `codes` has fewer than `skip` and `out` ask for.
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

/// Packs whole blocks of weights, which are `magnitude`, its negative, or zero.
///
/// # Errors
/// The first weight that is none of these.
///
/// # Panics
/// If `x` does not fill blocks, or `codes` is not a quarter as long.
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

/// The first weight whose code means nothing, in the codes of whole blocks.
pub fn first_without_value(codes: &[u8]) -> Option<usize> {
    let both = |byte: &u8| byte & byte >> 1 & 0x55 != 0;
    let block = codes.iter().position(both)? / BYTES;
    (block * WEIGHTS..(block + 1) * WEIGHTS).find(|&i| code(codes, i) == 3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the layout says, weight by weight.
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
        // −1 in the first quarter, 0 in the second, 1 in the third; in the last by turns.
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
    fn a_code_of_three_is_found_and_is_no_number() {
        for at in [0, 31, 32, 64, 95, 127, 128, 200, 255] {
            let mut codes = packed(&[0; 256]);
            let (block, within) = (at / 128, at % 128);
            codes[32 * block + within % 32] |= 3 << [6, 4, 2, 0][within / 32];
            assert_eq!(first_without_value(&codes), Some(at));
            let mut x = [0.0; 256];
            decode(&codes, 0, 1.0, &mut x);
            assert!(x.iter().enumerate().all(|(i, x)| x.is_nan() == (i == at)));
        }
        // Pairs that do not belong together are no three.
        assert_eq!(first_without_value(&[0b10_01_10_01; 32]), None);
        assert_eq!(first_without_value(&[]), None);
    }

    #[test]
    fn other_weights_are_refused_with_their_place() {
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
        fn codes_come_back(
            trits in prop::collection::vec(-1i8..=1, 128 * 3),
            scale in prop::num::f32::POSITIVE | prop::num::f32::NORMAL,
            range in (0usize..384, 0usize..384),
        ) {
            let scale = scale.abs();
            let x: Vec<f32> = trits.iter().map(|&t| f32::from(t) * scale).collect();
            let mut codes = vec![0xAA; 96];
            encode(&x, scale, &mut codes).unwrap();
            prop_assert_eq!(&codes, &packed(&trits));
            prop_assert_eq!(first_without_value(&codes), None);
            let mut back = vec![9.0; 384];
            decode(&codes, 0, scale, &mut back);
            prop_assert_eq!(&back, &x);
            // Any stretch of them.
            let (from, to) = (range.0.min(range.1), range.0.max(range.1));
            let mut part = vec![9.0; to - from];
            decode(&codes[from / 128 * 32..], from % 128, scale, &mut part);
            prop_assert_eq!(&part[..], &x[from..to]);
        }
    }
}
