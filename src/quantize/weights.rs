//! The weights of a band as the encoders read them.

use std::borrow::Cow;
use std::ops::Range;

use formats::block::DType;
use formats::model::ByteOrder;

use crate::error::Result;
use crate::source::Stored;
use kernels::{self, Codec};

/// A band's weights, decoded piece by piece.
pub enum Weights<'a> {
    /// Blocks of a type, little-endian.
    Blocks {
        /// The type.
        dtype: DType,
        /// Its decoder.
        codec: Box<dyn Codec>,
        /// Whole blocks.
        bytes: Cow<'a, [u8]>,
    },
    /// Weights that are decoded already.
    Floats(Vec<f32>),
}

impl<'a> Weights<'a> {
    /// The weights of `count` stored elements of the tensor `name`.
    ///
    /// # Errors
    /// [`crate::Error::Refused`] if the type cannot be decoded.
    pub fn new(stored: &'a Stored<'_>, name: &str, order: ByteOrder, count: u64) -> Result<Self> {
        if let Stored::Blocks(dtype, _) = stored
            && let Some(codec) = kernels::codec(*dtype)
        {
            return Ok(Self::Blocks { dtype: *dtype, codec, bytes: stored.little_endian(order) });
        }
        let mut x = vec![0.0; count as usize];
        stored.decode(name, order, &mut x)?;
        Ok(Self::Floats(x))
    }

    /// The number of weights.
    pub fn len(&self) -> usize {
        match self {
            Self::Blocks { dtype, bytes, .. } => bytes.len() / dtype.info().bytes * dtype.info().weights,
            Self::Floats(x) => x.len(),
        }
    }

    /// Pieces must start and end at multiples of this.
    pub fn unit(&self) -> usize {
        match self {
            Self::Blocks { dtype, .. } => dtype.info().weights,
            Self::Floats(_) => 1,
        }
    }

    /// Decodes weights `at`, a range of whole units.
    pub fn decode(&self, at: Range<usize>, out: &mut [f32]) {
        match self {
            Self::Blocks { dtype, codec, bytes } => {
                let bytes_for = |n: usize| n / dtype.info().weights * dtype.info().bytes;
                codec.decode(&bytes[bytes_for(at.start)..bytes_for(at.end)], out);
            }
            Self::Floats(x) => out.copy_from_slice(&x[at]),
        }
    }
}
