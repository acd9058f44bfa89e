//! The codecs of [`formats::block`], compiled for wider instruction sets of x86-64.

use formats::block::{Block, Visitor};

use super::isa::Set;
use super::{Codec, Compiled, Decoder, Encoder, Isa};

/// Takes a type's conversions for a set other than the portable one.
pub(super) struct Build(pub Isa);

impl Visitor for Build {
    type Out = Box<dyn Codec>;
    fn visit<const W: usize, const B: usize, T: Block<W, B>>(self) -> Box<dyn Codec> {
        let (decode, encode): (Decoder, Encoder) = match self.0.set() {
            // Where there is AVX-512 there is AVX2, whose encoders are taken for types of many weights to a block: their
            // short rows of lanes fill 256 bits, and in 512 the search takes a tenth longer (measured: 616 and 556
            // million weights a second for Q8_0, 550 and 460 for Q4_0).
            Set::Avx512 | Set::Vnni | Set::Amx => {
                // A constant, so that those that are not taken are not compiled.
                let encoder =
                    if const { W > 1 } { avx2::encoder::<W, B, T>() } else { avx512::encoder::<W, B, T>() };
                (avx512::decoder::<W, B, T>(), encoder)
            }
            Set::Avx2 => (avx2::decoder::<W, B, T>(), avx2::encoder::<W, B, T>()),
            Set::Portable => unreachable!("the portable ones are those of `formats`"),
        };
        Box::new(Compiled { decode, encode, _isa: self.0 })
    }
}

/// Defines a module of decoders and encoders, compiled with some features. The compiler makes a unit of what is in a module,
/// and encoders are most of this crate: so types are dealt out among five, about evenly by what they take to compile, and as
/// many cores have something to do.
macro_rules! codecs {
    ($name:ident, $features:literal) => {
        mod $name {
            use super::{Block, Decoder, Encoder};
            codecs!(@unit a, $features);
            codecs!(@unit b, $features);
            codecs!(@unit c, $features);
            codecs!(@unit d, $features);
            codecs!(@unit e, $features);

            // Constants, so that a type is compiled in one unit only.

            pub fn decoder<const W: usize, const B: usize, T: Block<W, B>>() -> Decoder {
                match const { B / 8 % 5 } {
                    0 => a::decode::<W, B, T>,
                    1 => b::decode::<W, B, T>,
                    2 => c::decode::<W, B, T>,
                    3 => d::decode::<W, B, T>,
                    _ => e::decode::<W, B, T>,
                }
            }

            pub fn encoder<const W: usize, const B: usize, T: Block<W, B>>() -> Encoder {
                match const { B / 8 % 5 } {
                    0 => a::encode::<W, B, T>,
                    1 => b::encode::<W, B, T>,
                    2 => c::encode::<W, B, T>,
                    3 => d::encode::<W, B, T>,
                    _ => e::encode::<W, B, T>,
                }
            }
        }
    };
    (@unit $module:ident, $features:literal) => {
        mod $module {
            use formats::block::{Block, Encode, decode_blocks, encode_blocks};

            #[target_feature(enable = $features)]
            pub fn decode<const W: usize, const B: usize, T: Block<W, B>>(bytes: &[u8], out: &mut [f32]) {
                decode_blocks::<W, B, T>(bytes, out);
            }

            #[target_feature(enable = $features)]
            pub fn encode<const W: usize, const B: usize, T: Block<W, B>>(
                x: &[f32],
                how: &Encode<'_>,
                bytes: &mut [u8],
            ) {
                encode_blocks::<W, B, T>(x, how, bytes);
            }
        }
    };
}
codecs!(avx2, "avx2,f16c");
codecs!(avx512, "avx512f,avx512bw,avx512vl,avx512dq,avx512cd,f16c");
