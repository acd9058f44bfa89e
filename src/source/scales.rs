//! Scales of whole tensors. NVFP4's block scales have few bits, so a matrix may have one more scale for all of them, in
//! an f32 tensor of its own: `blk.0.attn_q.scale` for `blk.0.attn_q.weight`, with one number, or one for each of
//! several stacked matrices. llama.cpp multiplies the matrix's products by it.

use std::collections::HashMap;

use formats::block::DType;
use formats::model::{Encoding, Model};

use super::view::{RowOrder, Values, View};
use super::{Source, stacked};
use crate::error::{Error, Result};

/// The name of the tensor with the scale of a matrix; `None` for a name that does not end in `.weight`.
pub fn name_of(weight: &str) -> Option<String> {
    Some(format!("{}.scale", weight.strip_suffix(".weight")?))
}

/// The NVFP4 matrices that have a scale: pairs of the index of the matrix and of the tensor with its scale.
pub fn pairs(model: &Model) -> Vec<(usize, usize)> {
    let packed = Encoding::Blocks(DType::NVFP4);
    if !model.tensors.iter().any(|t| t.encoding == packed) {
        return Vec::new();
    }
    let names: HashMap<&str, usize> =
        model.tensors.iter().enumerate().map(|(i, t)| (t.name.as_str(), i)).collect();
    let weights = model.tensors.iter().enumerate().filter(|(_, t)| t.encoding == packed);
    weights.filter_map(|(i, t)| Some((i, *names.get(name_of(&t.name)?.as_str())?))).collect()
}

/// Gives matrices with a scale a view that multiplies by it.
///
/// # Errors
/// [`Error::Refused`] for scales of another shape or type; [`Error::NotFinite`]; [`Error::Io`] if they cannot be read.
pub(crate) fn apply(source: &mut Source) -> Result<()> {
    for (weight, scale) in pairs(&source.model) {
        let (t, s) = (&source.model.tensors[weight], &source.model.tensors[scale]);
        let (matrices, n) = (stacked(t), s.elements());
        if n != 1 && n != matrices || !s.encoding.is_plain() {
            let (shape, kind) = (crate::text::shape(&s.shape), s.encoding.name());
            return Err(Error::refused(format!(
                "tensor {}: expected one number, or one for each of the {matrices} matrices of {}, found shape {shape} of \
                 type {kind}",
                s.name, t.name
            )));
        }
        let mut factors = vec![0.0; n as usize];
        source.stored_fetch(s, 0..n)?.decode(&s.name, source.model.order, &mut factors)?;
        if let Some(&value) = factors.iter().find(|x| !x.is_finite()) {
            return Err(Error::NotFinite {
                tensor: t.name.clone(),
                weight: None,
                row: None,
                value: Some(value),
            });
        }
        let view = View { stored: t.clone(), rows: RowOrder::Same, values: Values::Scaled { factors } };
        source.views.resize_with(source.model.tensors.len(), || None);
        source.views[weight] = Some(view);
    }
    Ok(())
}
