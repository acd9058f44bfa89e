//! Ranges of a tensor's stored bytes, and their decoding.

use std::borrow::Cow;

use formats::block::{DType, i2_s};
use formats::model::ByteOrder;

use crate::error::{Error, Result};

/// A range of a tensor's elements as stored, in the byte order of the source.
#[non_exhaustive]
pub enum Stored<'a> {
    /// Whole blocks.
    Blocks(DType, Cow<'a, [u8]>),
    /// llama2.c's int8 groups: codes, and the scales of the groups that they belong to.
    Groups {
        /// One i8 for each element.
        codes: Cow<'a, [u8]>,
        /// One f32 for each group.
        scales: Cow<'a, [u8]>,
        /// Elements of a group.
        size: usize,
        /// Elements of the first group before the range.
        skip: usize,
    },
    /// bitnet.cpp's I2_S: codes, and the scale of the whole tensor.
    Ternary {
        /// Whole blocks.
        codes: Cow<'a, [u8]>,
        /// One f32.
        scale: Cow<'a, [u8]>,
        /// Elements of the first block before the range.
        skip: usize,
    },
    /// Numbers that were computed from what is stored.
    Computed(Vec<f32>),
}

impl Stored<'_> {
    /// The stored bytes, codes before scales, with every number little-endian.
    pub fn little_endian(&self, order: ByteOrder) -> Cow<'_, [u8]> {
        let to_little = |dtype: DType, bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            if order == ByteOrder::Big {
                dtype.swap(&mut bytes);
            }
            bytes
        };
        match self {
            Self::Blocks(_, bytes) if order == ByteOrder::Little => Cow::Borrowed(bytes),
            Self::Blocks(dtype, bytes) => Cow::Owned(to_little(*dtype, bytes)),
            Self::Groups { codes, scales, .. } => {
                Cow::Owned([codes.to_vec(), to_little(DType::F32, scales)].concat())
            }
            Self::Ternary { codes, scale, .. } => {
                Cow::Owned([codes.to_vec(), to_little(DType::F32, scale)].concat())
            }
            Self::Computed(x) => Cow::Owned(x.iter().flat_map(|x| x.to_le_bytes()).collect()),
        }
    }

    /// Decodes into `out`, one f32 for each element. `name` is the tensor's, for messages.
    ///
    /// # Errors
    /// [`Error::UnsupportedType`] for a type that can be copied but not decoded.
    pub fn decode(&self, name: &str, order: ByteOrder, out: &mut [f32]) -> Result<()> {
        match self {
            Self::Blocks(dtype, _) => {
                let codec = kernels::codec(*dtype).ok_or_else(|| {
                    let (tensor, dtype) = (name.into(), dtype.name().into());
                    Error::UnsupportedType { tensor, dtype, operation: "decoded, only copied" }
                })?;
                codec.decode(&self.little_endian(order), out);
            }
            Self::Groups { codes, scales, size, skip } => {
                for (i, (x, &q)) in out.iter_mut().zip(codes.iter()).enumerate() {
                    let at = (i + skip) / size * 4;
                    let scale = order.le::<4>(scales[at..at + 4].try_into().expect("four bytes"));
                    *x = f32::from(q as i8) * f32::from_le_bytes(scale);
                }
            }
            Self::Ternary { codes, scale, skip } => {
                let scale = order.le::<4>(scale[..4].try_into().expect("four bytes"));
                i2_s::decode(codes, *skip, f32::from_le_bytes(scale), out);
            }
            Self::Computed(x) => out.copy_from_slice(x),
        }
        Ok(())
    }
}
