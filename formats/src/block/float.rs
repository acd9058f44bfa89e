//! Plain numbers, one weight in a block, and conversions of half precision. Rounding is to the nearest, ties to even.

use super::{Block, Effort};

/// An IEEE half as f32, exactly. It has no branches, so that loops over it become vector code. NaNs become quiet, as with
/// the instruction of the processor.
#[inline(always)]
pub fn f16_to_f32(h: u16) -> f32 {
    let sign = u32::from(h & 0x8000) << 16;
    let magnitude = u32::from(h & 0x7FFF) << 13;
    let normal = magnitude + (112 << 23);
    // A subnormal half is a multiple of 2^-24. As the mantissa of a float with the exponent of 2^-14, it is that plus 2^-14.
    let subnormal = (f32::from_bits(magnitude + (113 << 23)) - f32::from_bits(113 << 23)).to_bits();
    let quiet = if magnitude > 0x1F << 23 { 1 << 22 } else { 0 };
    let special = magnitude | 0xFF << 23 | quiet;
    let bits = if magnitude < 1 << 23 { subnormal } else { normal };
    let bits = if magnitude >= 0x1F << 23 { special } else { bits };
    f32::from_bits(sign | bits)
}

/// The nearest IEEE half of an f32; infinite from 65520 on.
#[inline(always)]
pub fn f32_to_f16(x: f32) -> u16 {
    let bits = x.to_bits();
    let sign = (bits >> 16) & 0x8000;
    let magnitude = bits & 0x7FFF_FFFF;
    let normal = (magnitude.wrapping_sub(112 << 23)).wrapping_add(0xFFF + ((magnitude >> 13) & 1)) >> 13;
    // The last digit of 0.5 has the value of the smallest subnormal half: adding it rounds.
    let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
    let nan = 0x7E00 | (magnitude >> 13) & 0x3FF;
    let special = if magnitude > 0x7F80_0000 { nan } else { 0x7C00 };
    let half = if magnitude < 0x3880_0000 { subnormal } else { normal };
    let half = if magnitude >= 0x4780_0000 { special } else { half };
    (sign | half) as u16
}

/// A bfloat16 as f32.
#[inline(always)]
pub fn bf16_to_f32(b: u16) -> f32 {
    f32::from_bits(u32::from(b) << 16)
}

/// The nearest bfloat16 of an f32. A NaN stays a quiet NaN.
#[inline(always)]
pub fn f32_to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) >> 16;
    let nan = bits >> 16 | 0x40;
    (if bits & 0x7FFF_FFFF > 0x7F80_0000 { nan } else { rounded }) as u16
}

macro_rules! plain {
    ($($(#[$doc:meta])* $name:ident $bytes:literal, $from:expr, $to:expr;)*) => {$(
        $(#[$doc])*
        pub struct $name;

        impl Block<1, $bytes> for $name {
            #[inline(always)]
            fn decode(bytes: &[u8; $bytes], out: &mut [f32; 1]) {
                out[0] = $from(*bytes);
            }
            #[inline(always)]
            fn encode(x: &[f32; 1], _: Option<&[f32; 1]>, _: Effort, bytes: &mut [u8; $bytes]) {
                *bytes = $to(x[0]);
            }
        }
    )*};
}

plain! {
    /// IEEE single precision.
    F32 4, f32::from_le_bytes, f32::to_le_bytes;
    /// IEEE half.
    F16 2, |b| f16_to_f32(u16::from_le_bytes(b)), |x| f32_to_f16(x).to_le_bytes();
    /// bfloat16.
    Bf16 2, |b| bf16_to_f32(u16::from_le_bytes(b)), |x| f32_to_bf16(x).to_le_bytes();
    /// IEEE double precision; decoding rounds to f32.
    F64 8, |b| f64::from_le_bytes(b) as f32, |x| f64::from(x).to_le_bytes();
    /// Integers; encoding rounds and saturates.
    I8 1, |b| f32::from(i8::from_le_bytes(b)), |x: f32| (x.round_ties_even() as i8).to_le_bytes();
    /// As [`I8`].
    I16 2, |b| f32::from(i16::from_le_bytes(b)), |x: f32| (x.round_ties_even() as i16).to_le_bytes();
    /// As [`I8`]; decoding rounds to f32.
    I32 4, |b| i32::from_le_bytes(b) as f32, |x: f32| (x.round_ties_even() as i32).to_le_bytes();
    /// As [`I32`].
    I64 8, |b| i64::from_le_bytes(b) as f32, |x: f32| (x.round_ties_even() as i64).to_le_bytes();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_decodes_as_in_the_half_crate() {
        for h in 0..=u16::MAX {
            assert_eq!(f16_to_f32(h).to_bits(), half::f16::from_bits(h).to_f32().to_bits(), "{h:#x}");
            let bf = half::bf16::from_bits(h).to_f32();
            let ours = bf16_to_f32(h);
            assert!(ours.to_bits() == bf.to_bits() || ours.is_nan() && bf.is_nan(), "{h:#x}");
        }
    }

    /// Every exponent, and mantissas around every tie of both half formats.
    #[test]
    fn rounding_is_as_in_the_half_crate() {
        let low = [0u32, 1, 0xFFF, 0x1000, 0x1001, 0x1FFF, 0x2000, 0x3000, 0x7FFF, 0x8000, 0x8001, 0xFFFF];
        for top in 0..=u16::MAX {
            for mantissa in low {
                let x = f32::from_bits(u32::from(top) << 16 | mantissa);
                assert_eq!(f32_to_f16(x), half::f16::from_f32(x).to_bits(), "{:#x}", x.to_bits());
                assert_eq!(f32_to_bf16(x), half::bf16::from_f32(x).to_bits(), "{:#x}", x.to_bits());
            }
        }
    }

    /// All f32: takes a minute in a release build.
    #[test]
    #[ignore = "slow"]
    fn every_f32_rounds_as_in_the_half_crate() {
        for bits in 0..=u32::MAX {
            let x = f32::from_bits(bits);
            assert_eq!(f32_to_f16(x), half::f16::from_f32(x).to_bits(), "{bits:#x}");
            assert_eq!(f32_to_bf16(x), half::bf16::from_f32(x).to_bits(), "{bits:#x}");
        }
    }
}
