//! Packed types as integer kernels see them: small integers, scales, and in some an offset.

use formats::block::{DType, f16_to_f32};

/// A type whose weights are scale · (code − `OFFSET`) + min, `W` of them in `B` bytes.
pub(super) trait Weights<const W: usize, const B: usize>: 'static {
    /// What codes are counted from.
    const OFFSET: i32;
    /// Whether there is a min.
    const MIN: bool = false;
    /// The codes.
    fn codes(block: &[u8; B], out: &mut [u8; W]);
    /// The scale.
    fn scale(block: &[u8; B]) -> f32;
    /// The min.
    #[inline(always)]
    fn min(_: &[u8; B]) -> f32 {
        0.0
    }
}

#[inline(always)]
fn half<const B: usize>(block: &[u8; B], at: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// Four bits each: the first half of the codes in the low ones.
#[inline(always)]
fn nibbles(bytes: &[u8], out: &mut [u8; 32]) {
    for j in 0..16 {
        out[j] = bytes[j] & 15;
        out[j + 16] = bytes[j] >> 4;
    }
}

/// A fifth bit each.
#[inline(always)]
fn fifths(bytes: &[u8], out: &mut [u8; 32]) {
    for j in 0..32 {
        out[j] |= (bytes[j / 8] >> (j % 8) & 1) << 4;
    }
}

pub(super) struct Q4_0;
impl Weights<32, 18> for Q4_0 {
    const OFFSET: i32 = 8;
    #[inline(always)]
    fn codes(block: &[u8; 18], out: &mut [u8; 32]) {
        nibbles(&block[2..], out);
    }
    #[inline(always)]
    fn scale(block: &[u8; 18]) -> f32 {
        half(block, 0)
    }
}

pub(super) struct Q4_1;
impl Weights<32, 20> for Q4_1 {
    const OFFSET: i32 = 0;
    const MIN: bool = true;
    #[inline(always)]
    fn codes(block: &[u8; 20], out: &mut [u8; 32]) {
        nibbles(&block[4..], out);
    }
    #[inline(always)]
    fn scale(block: &[u8; 20]) -> f32 {
        half(block, 0)
    }
    #[inline(always)]
    fn min(block: &[u8; 20]) -> f32 {
        half(block, 2)
    }
}

pub(super) struct Q5_0;
impl Weights<32, 22> for Q5_0 {
    const OFFSET: i32 = 16;
    #[inline(always)]
    fn codes(block: &[u8; 22], out: &mut [u8; 32]) {
        nibbles(&block[6..], out);
        fifths(&block[2..6], out);
    }
    #[inline(always)]
    fn scale(block: &[u8; 22]) -> f32 {
        half(block, 0)
    }
}

pub(super) struct Q5_1;
impl Weights<32, 24> for Q5_1 {
    const OFFSET: i32 = 0;
    const MIN: bool = true;
    #[inline(always)]
    fn codes(block: &[u8; 24], out: &mut [u8; 32]) {
        nibbles(&block[8..], out);
        fifths(&block[4..8], out);
    }
    #[inline(always)]
    fn scale(block: &[u8; 24]) -> f32 {
        half(block, 0)
    }
    #[inline(always)]
    fn min(block: &[u8; 24]) -> f32 {
        half(block, 2)
    }
}

pub(super) struct Q8_0;
impl Weights<32, 34> for Q8_0 {
    const OFFSET: i32 = 128;
    #[inline(always)]
    fn codes(block: &[u8; 34], out: &mut [u8; 32]) {
        for j in 0..32 {
            out[j] = block[2 + j] ^ 0x80;
        }
    }
    #[inline(always)]
    fn scale(block: &[u8; 34]) -> f32 {
        half(block, 0)
    }
}

pub(super) struct Tq1_0;
impl Weights<256, 54> for Tq1_0 {
    const OFFSET: i32 = 1;
    #[inline(always)]
    fn codes(block: &[u8; 54], out: &mut [u8; 256]) {
        // First byte, bytes, first weight and digits of the three parts.
        for (byte, count, weight, digits) in [(0, 32, 0, 5), (32, 16, 160, 5), (48, 4, 240, 4)] {
            let mut power = 1u8;
            for n in 0..digits {
                for i in 0..count {
                    let fraction = block[byte + i].wrapping_mul(power);
                    out[weight + n * count + i] = ((u16::from(fraction) * 3) >> 8) as u8;
                }
                power = power.wrapping_mul(3);
            }
        }
    }
    #[inline(always)]
    fn scale(block: &[u8; 54]) -> f32 {
        half(block, 52)
    }
}

pub(super) struct Tq2_0;
impl Weights<256, 66> for Tq2_0 {
    const OFFSET: i32 = 1;
    #[inline(always)]
    fn codes(block: &[u8; 66], out: &mut [u8; 256]) {
        for h in 0..2 {
            for n in 0..4 {
                for i in 0..32 {
                    out[128 * h + 32 * n + i] = block[32 * h + i] >> (2 * n) & 3;
                }
            }
        }
    }
    #[inline(always)]
    fn scale(block: &[u8; 66]) -> f32 {
        half(block, 64)
    }
}

/// Does something with the integers of a type; `None` if it has none here, and is multiplied as floats.
macro_rules! with_weights {
    ($dtype:expr, $W:ident, $B:ident, $T:ident => $body:expr) => {{
        use formats::block::DType;
        macro_rules! one {
            ($w:literal, $b:literal, $t:ident) => {{
                #[allow(unused)]
                const $W: usize = $w;
                #[allow(unused)]
                const $B: usize = $b;
                #[allow(unused)]
                type $T = $crate::kernels::weights::$t;
                Some($body)
            }};
        }
        match $dtype {
            DType::Q4_0 => one!(32, 18, Q4_0),
            DType::Q4_1 => one!(32, 20, Q4_1),
            DType::Q5_0 => one!(32, 22, Q5_0),
            DType::Q5_1 => one!(32, 24, Q5_1),
            DType::Q8_0 => one!(32, 34, Q8_0),
            DType::TQ1_0 => one!(256, 54, Tq1_0),
            DType::TQ2_0 => one!(256, 66, Tq2_0),
            _ => None,
        }
    }};
}
pub(super) use with_weights;

/// The weights under one scale, and what codes are counted from; `None` for types that are multiplied as floats.
pub fn integer(dtype: DType) -> Option<(usize, i32)> {
    with_weights!(dtype, W, B, T => (W, <T as Weights<W, B>>::OFFSET))
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::block::TYPES;
    use proptest::prelude::*;

    proptest! {
        /// Codes, scale and min are what the type decodes to.
        #[test]
        fn codes_are_the_weights(bytes in proptest::collection::vec(0u8..=255, 66)) {
            for info in TYPES {
                let found = with_weights!(info.dtype, W, B, T => {
                    let mut bytes = bytes.clone();
                    bytes.truncate(B);
                    // A scale that is a number.
                    for field in info.fields.iter().filter(|f| f.width == 2) {
                        bytes[field.at + 1] &= 0xBB;
                    }
                    let block: &[u8; B] = bytes[..].try_into().unwrap();
                    let mut codes = [0; W];
                    T::codes(block, &mut codes);
                    let (d, m) = (<T as Weights<W, B>>::scale(block), <T as Weights<W, B>>::min(block));
                    let mut truth = vec![0f32; W];
                    crate::kernels::codec(info.dtype).unwrap().decode(&bytes, &mut truth);
                    for (c, x) in codes.iter().zip(truth) {
                        let w = d * (f32::from(*c) - <T as Weights<W, B>>::OFFSET as f32) + m;
                        prop_assert_eq!(w, x, "{}", info.name);
                    }
                });
                prop_assert_eq!(found.is_some(), integer(info.dtype).is_some());
            }
        }
    }
}
