//! Conversions of rows as the target's plain instructions do them: compiled here, once for every crate that needs them.
//! The kernels have builds of the same bodies for wider instruction sets, which give the same bits.

use super::{Block, DType, Encode, Visitor};

/// Unpacks whole blocks, as many as fit both slices.
pub type DecodeRow = fn(&[u8], &mut [f32]);
/// Packs whole blocks, as many as fit both slices.
///
/// # Panics
/// If there are fewer importances than weights.
pub type EncodeRow = fn(&[f32], &Encode<'_>, &mut [u8]);

/// The conversions of a type's rows, little-endian; `None` if the type can be copied but not decoded. [`DType::decode`] and
/// [`DType::encode`] are these with checked lengths.
pub fn portable(dtype: DType) -> Option<(DecodeRow, EncodeRow)> {
    dtype.visit(Functions)
}

struct Functions;

impl Visitor for Functions {
    type Out = (DecodeRow, EncodeRow);
    // A constant, so that a type is compiled in one unit only.
    fn visit<const W: usize, const B: usize, T: Block<W, B>>(self) -> Self::Out {
        match const { B / 8 % 5 } {
            0 => (a::decode::<W, B, T>, a::encode::<W, B, T>),
            1 => (b::decode::<W, B, T>, b::encode::<W, B, T>),
            2 => (c::decode::<W, B, T>, c::encode::<W, B, T>),
            3 => (d::decode::<W, B, T>, d::encode::<W, B, T>),
            _ => (e::decode::<W, B, T>, e::encode::<W, B, T>),
        }
    }
}

/// The compiler makes a unit of what is in a module, and encoders are most of this crate: so types are dealt out among five,
/// about evenly by what they take to compile, and as many cores have something to do.
macro_rules! units {
    ($($module:ident)*) => {
        $(mod $module {
            use crate::block::{Block, Encode, decode_blocks, encode_blocks};

            pub fn decode<const W: usize, const B: usize, T: Block<W, B>>(bytes: &[u8], out: &mut [f32]) {
                decode_blocks::<W, B, T>(bytes, out);
            }

            pub fn encode<const W: usize, const B: usize, T: Block<W, B>>(
                x: &[f32],
                how: &Encode<'_>,
                bytes: &mut [u8],
            ) {
                encode_blocks::<W, B, T>(x, how, bytes);
            }
        })*
    };
}
units!(a b c d e);
