//! What is read of a tensor, for encoders.

use std::borrow::Cow;
use std::ops::Range;

use formats::block::DType;
use formats::model::ByteOrder;

use crate::error::Result;
use crate::source::Stored;
use kernels::{self, Codec};

/// A band's weights, to be had in pieces.
pub enum Weights<'a> {
    /// Blocks of a type, little-endian.
    Blocks {
        /// The type.
        dtype: DType,
        /// What unpacks it.
        codec: Box<dyn Codec>,
        /// Whole blocks.
        bytes: Cow<'a, [u8]>,
    },
    /// Numbers.
    Floats(Vec<f32>),
}

impl<'a> Weights<'a> {
    /// Those of a tensor's stretch of `count` elements.
    ///
    /// # Errors
    /// The type cannot be decoded.
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

    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Blocks { dtype, bytes, .. } => bytes.len() / dtype.info().bytes * dtype.info().weights,
            Self::Floats(x) => x.len(),
        }
    }

    /// Pieces start and end with whole numbers of this.
    pub fn unit(&self) -> usize {
        match self {
            Self::Blocks { dtype, .. } => dtype.info().weights,
            Self::Floats(_) => 1,
        }
    }

    /// Unpacks weights `at`, which are whole units.
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
