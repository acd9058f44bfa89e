//! The int8 groups of version 2.

use super::write::check_architecture;
use crate::error::{Error, Fault, Result};
use crate::metadata::{Metadata, Value};
use crate::model::Tensor;

/// The smallest group size. In smaller groups, the scale would take a byte or more for each weight.
const LEAST: u32 = 4;

/// The largest group size that divides `dim` and `hidden_dim`, found by halving `wanted`.
///
/// `export.py` of llama2.c considers `dim` alone, but `runq.c` reads whole groups of every row: where the group size does
/// not divide `hidden_dim`, the length of the rows of `w2`, it silently drops their ends and uses wrong scales.
///
/// # Errors
/// [`Fault::Unsupported`] if no size of at least 4 does, or for another architecture than Llama; [`Fault::Metadata`] if a
/// size is missing.
pub fn group_size(metadata: &Metadata, tensors: &[Tensor], wanted: u32) -> Result<u32> {
    const NAME: &str = "llama2.c v2";
    let number = |key: &str| {
        metadata.get(key).and_then(Value::as_u64).filter(|&n| n > 0).ok_or_else(|| {
            let why = "must be a positive number".to_string();
            Error::of(NAME, Fault::Metadata { key: key.into(), why })
        })
    };
    check_architecture(metadata).map_err(|fault| Error::of(NAME, fault))?;
    let (dim, hidden) = (number("llama.embedding_length")?, number("llama.feed_forward_length")?);
    // Rows of a Llama have one of these lengths. Others are refused by the layout.
    let rows = tensors.iter().filter(|t| t.shape.len() == 2).map(Tensor::cols);
    let rows: std::collections::BTreeSet<u64> = rows.chain([dim, hidden]).collect();
    let mut size = wanted;
    while size >= LEAST && !rows.iter().all(|n| n % u64::from(size) == 0) {
        size /= 2;
    }
    if size >= LEAST {
        return Ok(size);
    }
    let why = format!(
        "no group size of at least {LEAST}, halved from {wanted}, divides both dim {dim} and hidden_dim {hidden}, \
         as runq.c needs it; ask for another group size, or write llama2.c version 0"
    );
    Err(Error::of(NAME, Fault::Unsupported(why)))
}

/// Quantizes one group as `quantize_q80` of `export.py` does, and returns its scale: the largest magnitude divided by 127.
/// Codes are rounded to the nearest integer, ties to even. A group that is all zero, or too small for a scale, becomes
/// zeros and not NaN. `codes` must be as long as `x`.
#[inline(always)]
pub fn quantize_group(x: &[f32], codes: &mut [i8]) -> f32 {
    let scale = x.iter().fold(0f32, |m, w| m.max(w.abs())) / 127.0;
    if scale == 0.0 {
        codes.fill(0);
        return 0.0;
    }
    for (code, w) in codes.iter_mut().zip(x) {
        // Only where the scale is subnormal does the clamp change anything.
        *code = (w / scale).round_ties_even().clamp(-127.0, 127.0) as i8;
    }
    scale
}
