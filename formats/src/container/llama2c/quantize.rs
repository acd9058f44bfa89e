//! Version 2's int8 groups.

use super::write::check_architecture;
use crate::error::{Error, Fault, Result};
use crate::metadata::{Metadata, Value};
use crate::model::Tensor;

/// Smaller groups would cost a byte or more of scale for each weight, and leave the scales unaligned.
const LEAST: u32 = 4;

/// The largest group size, got from `wanted` by halving, that divides `dim` and `hidden_dim`.
///
/// llama2.c's `export.py` looks at `dim` alone, but `runq.c` takes whole groups of every row: where the group
/// size does not divide the rows of `w2`, of `hidden_dim`, it drops their ends and pairs weights with wrong
/// scales, without an error.
///
/// # Errors
/// [`Fault::Unsupported`] if it falls below 4; [`Fault::Metadata`] if a size is missing.
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
    // The tensors' rows are these two; whatever else they are is the layout's to refuse.
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

/// Quantizes one group as `export.py` does and gives its scale: the largest magnitude over 127. Ties are
/// rounded to even. A group without a scale (all zero, or too small for one) becomes zeros, not NaN.
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
