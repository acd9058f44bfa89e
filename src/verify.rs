//! A look at a finished file: whether its numbers are numbers, and how far they are from another model's.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use formats::block::DType;
use formats::model::{ByteOrder, Encoding, Tensor};
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use crate::error::Result;
use crate::quantize::{Outcome, sums};
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
    /// The comparison with the reference's tensor.
    pub comparison: Option<Comparison>,
}

/// How a tensor is to the reference's of the same name and shape.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// The same numbers, whatever the byte order.
    pub equal: bool,
    /// By how much they differ, as f32; nothing where a type cannot be decoded.
    pub outcome: Option<Outcome>,
}

/// Looks at every tensor; with a reference, compares it with the tensor of the same name, if there is one of the
/// same shape.
///
/// # Errors
/// The system's; tensors that cannot be decoded.
pub fn verify(source: &Source, reference: Option<&Source>) -> Result<Vec<Finding>> {
    // Tensors in parallel, bands within one after another: sums do not depend on the number of threads.
    source.model.tensors.par_iter().map(|t| tensor(source, t, reference)).collect()
}

/// How the tensors of two models differ in name or shape, in words.
pub fn unmatched(source: &Source, reference: &Source) -> Vec<String> {
    let (ours, theirs) = (&source.model.tensors, &reference.model.tensors);
    let shapes: HashMap<_, _> = theirs.iter().map(|t| (&t.name, &t.shape)).collect();
    let names: HashSet<_> = ours.iter().map(|t| &t.name).collect();
    let (here, there) = (source.path.display(), reference.path.display());
    let differs = ours.iter().filter_map(|t| match shapes.get(&t.name) {
        None => Some(format!("tensor {} is in {here} but not in {there}", t.name)),
        Some(shape) if **shape != t.shape => {
            Some(format!("tensor {} has shape {:?} in {here} and {shape:?} in {there}", t.name, t.shape))
        }
        _ => None,
    });
    let missing = theirs.iter().filter(|t| !names.contains(&t.name));
    differs.chain(missing.map(|t| format!("tensor {} is in {there} but not in {here}", t.name))).collect()
}

fn tensor(source: &Source, t: &Tensor, reference: Option<&Source>) -> Result<Finding> {
    let find = |r: &'_ Source| r.model.tensors.iter().position(|o| o.name == t.name && o.shape == t.shape);
    let other = reference.and_then(|r| Some((r, &r.model.tensors[find(r)?])));
    let mut finding =
        Finding { name: t.name.clone(), encoding: t.encoding, not_finite: None, comparison: None };
    let total = t.elements();
    let step = (BAND / t.cols().max(1)).max(1) * t.cols().max(1);
    let mut all = Comparison { equal: true, outcome: Some(Outcome::default()) };
    let mut at = 0;
    while at < total {
        let range = at..(at + step).min(total);
        if finding.not_finite.is_none() {
            finding.not_finite = first_not_finite(source, t, range.clone())?.map(|i| at + i);
        }
        if let Some((r, other)) = other {
            let part = compare((source, t), (r, other), range.clone())?;
            all.equal &= part.equal;
            all.outcome = all.outcome.zip(part.outcome).map(|(mut sum, part)| {
                sum.add(part);
                sum
            });
        }
        at = range.end;
    }
    finding.comparison = other.map(|_| all);
    Ok(finding)
}

/// Compares elements `range` of two tensors of one shape.
fn compare(ours: (&Source, &Tensor), theirs: (&Source, &Tensor), range: Range<u64>) -> Result<Comparison> {
    let ((source, t), (reference, other)) = (ours, theirs);
    let (a, b) = (source.fetch(t, range.clone())?, reference.fetch(other, range.clone())?);
    let one_type = t.encoding == other.encoding;
    let same_bytes =
        one_type && a.little_endian(source.model.order) == b.little_endian(reference.model.order);
    let decodable = |e| !matches!(e, Encoding::Blocks(d) if crate::kernels::codec(d).is_none());
    if !decodable(t.encoding) || !decodable(other.encoding) {
        return Ok(Comparison { equal: same_bytes, outcome: same_bytes.then(Outcome::default) });
    }
    let n = (range.end - range.start) as usize;
    let (mut x, mut y) = (vec![0f32; n], vec![0f32; n]);
    b.decode(&t.name, reference.model.order, &mut x)?;
    a.decode(&t.name, source.model.order, &mut y)?;
    let mut outcome = sums(&x, &y);
    if same_bytes {
        outcome.error = 0.0; // even where they are no numbers
    }
    Ok(Comparison { equal: if one_type { same_bytes } else { outcome.error == 0.0 }, outcome: Some(outcome) })
}

/// The first element of `range` (counted from its start) that lies in a block with an infinite or undefined scale.
fn first_not_finite(source: &Source, t: &Tensor, range: Range<u64>) -> Result<Option<u64>> {
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
