//! A look at a finished file: whether its numbers are numbers, and how far they are from another model's.

use formats::block::DType;
use formats::model::{ByteOrder, Encoding, Tensor};
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use crate::error::{Error, Result};
use crate::quantize::Outcome;
use crate::source::Source;

/// Elements that are looked at in one go.
const BAND: u64 = 1 << 20;

/// What was found in a tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// Its name.
    pub name: String,
    /// Its encoding.
    pub encoding: Encoding,
    /// The element, or the first element of the block, that is infinite or not a number.
    pub not_finite: Option<u64>,
    /// The difference from the reference's tensor.
    pub outcome: Option<Outcome>,
}

/// Looks at every tensor; with a reference, compares it with the tensor of the same name.
///
/// # Errors
/// The system's; tensors that the two models do not share, or whose shapes differ.
pub fn verify(source: &Source, reference: Option<&Source>) -> Result<Vec<Finding>> {
    if let Some(reference) = reference {
        same_tensors(source, reference)?;
    }
    // Tensors in parallel, bands within one after another: sums do not depend on the number of threads.
    source.model.tensors.par_iter().map(|t| tensor(source, t, reference)).collect()
}

fn same_tensors(source: &Source, reference: &Source) -> Result<()> {
    let only = |a: &Source, b: &Source| {
        let names: std::collections::HashSet<_> = b.model.tensors.iter().map(|t| &t.name).collect();
        a.model.tensors.iter().find(|t| !names.contains(&t.name)).map(|t| t.name.clone())
    };
    for (a, b) in [(source, reference), (reference, source)] {
        if let Some(name) = only(a, b) {
            let (a, b) = (a.path.display(), b.path.display());
            return Err(Error::Failed(format!("tensor {name} is in {a} but not in {b}")));
        }
    }
    Ok(())
}

fn tensor(source: &Source, t: &Tensor, reference: Option<&Source>) -> Result<Finding> {
    let other = match reference {
        None => None,
        Some(r) => {
            let other = r.model.tensors.iter().find(|o| o.name == t.name).expect("same_tensors has looked");
            if other.shape != t.shape {
                let why =
                    format!("tensor {} has shape {:?}, the reference has {:?}", t.name, t.shape, other.shape);
                return Err(Error::Failed(why));
            }
            Some((r, other))
        }
    };
    let mut finding = Finding { name: t.name.clone(), encoding: t.encoding, not_finite: None, outcome: None };
    let total = t.elements();
    let step = (BAND / t.cols().max(1)).max(1) * t.cols().max(1);
    let mut at = 0;
    while at < total {
        let range = at..(at + step).min(total);
        if finding.not_finite.is_none() {
            finding.not_finite = first_not_finite(source, t, range.clone())?.map(|i| at + i);
        }
        if let Some((r, other)) = other {
            let n = (range.end - range.start) as usize;
            let (mut x, mut y) = (vec![0f32; n], vec![0f32; n]);
            r.fetch(other, range.clone())?.decode(&t.name, r.model.order, &mut x)?;
            source.fetch(t, range.clone())?.decode(&t.name, source.model.order, &mut y)?;
            let sums = x.iter().zip(&y).fold(Outcome::default(), |mut sum, (&x, &y)| {
                let e = f64::from(x) - f64::from(y);
                // Bits that are equal are no error, even where they are no number.
                let error = if x.to_bits() == y.to_bits() { 0.0 } else { e * e };
                sum.add(Outcome { error, energy: f64::from(x) * f64::from(x) });
                sum
            });
            finding.outcome.get_or_insert_default().add(sums);
        }
        at = range.end;
    }
    Ok(finding)
}

/// The first element of `range` (counted from its start) that lies in a block with an infinite or undefined scale.
fn first_not_finite(source: &Source, t: &Tensor, range: std::ops::Range<u64>) -> Result<Option<u64>> {
    let order = source.model.order;
    let bad = |dtype: DType, bytes: &[u8]| {
        let mut bytes = std::borrow::Cow::Borrowed(bytes);
        if order == ByteOrder::Big {
            dtype.swap(bytes.to_mut());
        }
        dtype.first_not_finite(&bytes).map(|block| (block * dtype.info().weights) as u64)
    };
    Ok(match t.encoding {
        Encoding::Blocks(dtype) => {
            let bytes = |n| dtype.bytes_for(n).unwrap_or(t.place.len);
            bad(dtype, &source.read(t, bytes(range.start)..bytes(range.end))?)
        }
        Encoding::Int8Groups { size } => {
            let size = u64::from(size);
            let (first, last) = (range.start / size, range.end.div_ceil(size));
            let codes = t.elements();
            let scales = source.read(t, codes + 4 * first..codes + 4 * last)?;
            bad(DType::F32, &scales).map(|group| ((first + group) * size).saturating_sub(range.start))
        }
    })
}
