//! Decoding and encoding of rows in one call, for callers without kernels of their own.

use super::{DType, Encode, portable};

/// Why a row cannot be decoded or encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The type has no [`Block`](super::Block): it can be copied, but its values are not known to this crate.
    #[error("{} can be copied but not decoded", .0.name())]
    NoCodec(DType),
    /// A number of weights that is no multiple of the type's block.
    #[error("{weights} weights are not whole blocks of {} ({})", .dtype.info().weights, .dtype.name())]
    Weights {
        /// The type.
        dtype: DType,
        /// The number of weights.
        weights: usize,
    },
    /// Bytes that are not what the weights take.
    #[error("{weights} weights of {} take {expected} bytes, found {found}", .dtype.name())]
    Bytes {
        /// The type.
        dtype: DType,
        /// The number of weights.
        weights: usize,
        /// The number of bytes given.
        found: usize,
        /// The number of bytes that the weights take.
        expected: usize,
    },
    /// Not one importance for each weight.
    #[error("{weights} weights need as many importances, found {found}")]
    Importance {
        /// The number of weights.
        weights: usize,
        /// The number of importances.
        found: usize,
    },
}

impl DType {
    /// Decodes whole blocks, little-endian, into f32. The portable build of what the kernels do for each instruction set;
    /// all give the same bits.
    ///
    /// ```
    /// use formats::block::{DType, f32_to_f16};
    ///
    /// // A block of q4_0: the scale d as a half, then two codes a byte; x = d · (code − 8).
    /// let mut block = [0x97; 18];
    /// block[..2].copy_from_slice(&f32_to_f16(0.5).to_le_bytes());
    /// let mut x = [0.0; 32];
    /// DType::Q4_0.decode(&block, &mut x)?;
    /// assert_eq!((x[0], x[16]), (-0.5, 0.5));
    /// # Ok::<(), formats::block::CodecError>(())
    /// ```
    ///
    /// # Errors
    /// [`CodecError::NoCodec`], [`CodecError::Weights`] if `out` does not hold whole blocks, [`CodecError::Bytes`] if
    /// `bytes` is not as long as these.
    pub fn decode(self, bytes: &[u8], out: &mut [f32]) -> Result<(), CodecError> {
        self.check(out.len(), bytes.len())?;
        let (decode, _) = portable(self).ok_or(CodecError::NoCodec(self))?;
        decode(bytes, out);
        Ok(())
    }

    /// Encodes whole blocks, little-endian. Weights must be finite: of others the result means nothing. Importances, if
    /// given, are one for each weight, finite and not negative.
    ///
    /// ```
    /// use formats::block::{DType, Encode};
    ///
    /// let row: Vec<f32> = (0..512).map(|i| (i as f32 * 0.37).sin()).collect();
    /// let mut bytes = vec![0; DType::Q4_K.bytes_for(512).unwrap() as usize];
    /// assert_eq!(bytes.len(), 2 * 144);
    /// DType::Q4_K.encode(&row, &Encode::default(), &mut bytes)?;
    ///
    /// let mut decoded = vec![0.0; 512];
    /// DType::Q4_K.decode(&bytes, &mut decoded)?;
    /// assert!(row.iter().zip(&decoded).all(|(x, y)| (x - y).abs() < 0.1));
    /// # Ok::<(), formats::block::CodecError>(())
    /// ```
    ///
    /// # Errors
    /// As [`DType::decode`], and [`CodecError::Importance`] if there is not one importance for each weight.
    pub fn encode(self, x: &[f32], how: &Encode<'_>, bytes: &mut [u8]) -> Result<(), CodecError> {
        self.check(x.len(), bytes.len())?;
        if let Some(found) = how.importance.map(<[f32]>::len).filter(|&n| n != x.len()) {
            return Err(CodecError::Importance { weights: x.len(), found });
        }
        let (_, encode) = portable(self).ok_or(CodecError::NoCodec(self))?;
        encode(x, how, bytes);
        Ok(())
    }

    fn check(self, weights: usize, found: usize) -> Result<(), CodecError> {
        let info = self.info();
        if !weights.is_multiple_of(info.weights) {
            return Err(CodecError::Weights { dtype: self, weights });
        }
        match (weights / info.weights).checked_mul(info.bytes) {
            Some(expected) if expected == found => Ok(()),
            expected => {
                let expected = expected.unwrap_or(usize::MAX);
                Err(CodecError::Bytes { dtype: self, weights, found, expected })
            }
        }
    }
}
