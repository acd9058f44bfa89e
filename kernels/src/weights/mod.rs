//! Packed types as integer kernels see them, in two families:
//!
//! * [`Weights`]: small integers under float scales, and in some a min: scale · (code − offset) + min.
//! * [`Nested`]: 256 weights whose groups have integer scales under one float: d · (scale · code) − dmin · min.

mod lattice;
mod legacy;
mod nested;
mod small;

use formats::block::DType;

pub use lattice::{Iq1M, Iq1S, Iq2S, Iq2Xs, Iq2Xxs, Iq3S, Iq3Xxs};
pub use legacy::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Tq1_0, Tq2_0};
pub use nested::{Iq4Xs, Q2K, Q3K, Q4K, Q5K, Q6K};
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub use small::{FP4_VALUES, IQ4_VALUES};
pub use small::{Iq4Nl, Mxfp4, Nvfp4, Q1_0, Q2_0};

/// A type whose weights are scale · (code − `OFFSET`) + min, `W` of them in `B` bytes.
pub trait Weights<const W: usize, const B: usize>: 'static {
    /// What codes are counted from. Those from 128 are signed bytes whose upper bit is turned over.
    const OFFSET: i32;
    /// Whether there is a min.
    const MIN: bool = false;
    /// Scales of a block, each of as many weights.
    const SCALES: usize = 1;
    /// Weights that have a scale in common, and activations too.
    const GROUP: usize = if W > 32 && W < 256 && Self::SCALES == 1 { 32 } else { W / Self::SCALES };
    /// The codes.
    fn codes(block: &[u8; B], out: &mut [u8; W]);
    /// The scale of group `g` of the block.
    fn scale(block: &[u8; B], g: usize) -> f32;
    /// The min.
    #[inline(always)]
    fn min(_: &[u8; B]) -> f32 {
        0.0
    }
}

/// A type of 256 weights in `B` bytes, d · (scale · code) + dmin · min, whose scales and mins are integers of sixteen
/// weights each.
pub trait Nested<const B: usize>: 'static {
    /// What the codes are counted from by processors that multiply unsigned numbers with signed ones.
    const OFFSET: i32;
    /// Whether there are mins.
    const MIN: bool = false;
    /// Whether four codes times activations are too much for sixteen bits.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    const LARGE: bool = false;
    /// scale · code is upper · 2^`LOW` + lower, both of eight bits; 0 where it has eight bits itself.
    const LOW: u32;
    /// The codes.
    fn codes(block: &[u8; B], out: &mut [i8; 256]);
    /// The integer scales.
    fn scales(block: &[u8; B]) -> [i16; 16];
    /// The integer mins.
    #[inline(always)]
    fn mins(_: &[u8; B]) -> [i16; 16] {
        [0; 16]
    }
    /// What the scales are multiplied by.
    fn d(block: &[u8; B]) -> f32;
    /// What the mins are multiplied by, with its sign.
    #[inline(always)]
    fn dmin(_: &[u8; B]) -> f32 {
        0.0
    }
}

/// Does something with a type of the family [`Weights`]; `None` if it is not of that.
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
                type $T = $crate::weights::$t;
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
            DType::IQ4_NL => one!(32, 18, Iq4Nl),
            DType::MXFP4 => one!(32, 17, Mxfp4),
            DType::NVFP4 => one!(64, 36, Nvfp4),
            DType::Q1_0 => one!(128, 18, Q1_0),
            DType::Q2_0 => one!(64, 18, Q2_0),
            _ => None,
        }
    }};
}
pub(super) use with_weights;

/// Does something with a type of the family [`Nested`]; `None` if it is not of that.
macro_rules! with_nested {
    ($dtype:expr, $B:ident, $T:ident => $body:expr) => {{
        use formats::block::DType;
        macro_rules! one {
            ($b:literal, $t:ident) => {{
                #[allow(unused)]
                const $B: usize = $b;
                #[allow(unused)]
                type $T = $crate::weights::$t;
                Some($body)
            }};
        }
        match $dtype {
            DType::Q2_K => one!(84, Q2K),
            DType::Q3_K => one!(110, Q3K),
            DType::Q4_K => one!(144, Q4K),
            DType::Q5_K => one!(176, Q5K),
            DType::Q6_K => one!(210, Q6K),
            DType::IQ4_XS => one!(136, Iq4Xs),
            DType::IQ1_S => one!(50, Iq1S),
            DType::IQ1_M => one!(56, Iq1M),
            DType::IQ2_XXS => one!(66, Iq2Xxs),
            DType::IQ2_XS => one!(74, Iq2Xs),
            DType::IQ2_S => one!(82, Iq2S),
            DType::IQ3_XXS => one!(98, Iq3Xxs),
            DType::IQ3_S => one!(110, Iq3S),
            _ => None,
        }
    }};
}
pub(super) use with_nested;

/// What a type's integer kernels ask of activations: the group, which is how many have a scale in common (16, 32 or 256), and
/// the offset, which is the code that stands for zero (0 to 128). `None` for types that are multiplied as floats.
pub fn integer(dtype: DType) -> Option<(usize, i32)> {
    with_weights!(dtype, W, B, T => (<T as Weights<W, B>>::GROUP, <T as Weights<W, B>>::OFFSET))
        .or_else(|| with_nested!(dtype, B, T => (256, <T as Nested<B>>::OFFSET)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::block::TYPES;
    use proptest::prelude::*;

    proptest! {
        /// Codes, scales and mins are what the type decodes to.
        #[test]
        fn codes_are_the_weights(bytes in proptest::collection::vec(0u8..=255, 210)) {
            for info in TYPES {
                let mut bytes = bytes[..info.bytes.min(210)].to_vec();
                // Scales that are numbers.
                for field in info.fields.iter().filter(|f| f.width == 2 && f.count == 1) {
                    bytes[field.at + 1] &= 0xBB;
                }
                if info.dtype == formats::block::DType::IQ1_M {
                    bytes[55] &= 0xBF;
                }
                let truth = || {
                    let mut truth = vec![0f32; info.weights];
                    crate::codec(info.dtype).unwrap().decode(&bytes, &mut truth);
                    truth
                };
                let plain = with_weights!(info.dtype, W, B, T => {
                    let block: &[u8; B] = bytes[..].try_into().unwrap();
                    let mut codes = [0; W];
                    T::codes(block, &mut codes);
                    let m = <T as Weights<W, B>>::min(block);
                    let scales = <T as Weights<W, B>>::SCALES;
                    for (k, (c, x)) in codes.iter().zip(truth()).enumerate() {
                        let d = <T as Weights<W, B>>::scale(block, k / (W / scales));
                        let w = d * (f32::from(*c) - <T as Weights<W, B>>::OFFSET as f32) + m;
                        prop_assert_eq!(w, x, "{}", info.name);
                    }
                });
                let nested = with_nested!(info.dtype, B, T => {
                    let block: &[u8; B] = bytes[..].try_into().unwrap();
                    let mut codes = [0; 256];
                    T::codes(block, &mut codes);
                    let (d, dmin) = (T::d(block), <T as Nested<B>>::dmin(block));
                    let (scales, mins) = (T::scales(block), <T as Nested<B>>::mins(block));
                    for (k, (c, x)) in codes.iter().zip(truth()).enumerate() {
                        let product = i32::from(scales[k / 16]) * i32::from(*c);
                        let w = f64::from(d) * f64::from(product) + f64::from(dmin) * f64::from(mins[k / 16]);
                        let near = 1e-6 * f64::from(x.abs() + dmin.abs() * f32::from(mins[k / 16]));
                        prop_assert!((w - f64::from(x)).abs() <= near, "{} {k}: {w} {x}", info.name);
                        let (low, most) = (<T as Nested<B>>::LOW, if <T as Nested<B>>::LARGE { 127 } else { 64 });
                        prop_assert!((-128..128).contains(&(product >> low)) && c.abs() <= most);
                        prop_assert!((0..256).contains(&(i32::from(*c) + <T as Nested<B>>::OFFSET)) || lattice(info.name));
                    }
                });
                prop_assert_eq!(plain.or(nested).is_some(), integer(info.dtype).is_some());
            }
        }
    }

    /// Types whose signs go to the activations.
    fn lattice(name: &str) -> bool {
        name.starts_with("iq2") || name.starts_with("iq3")
    }
}
