//! Checks of a finished file: weights that are NaN or infinite, and the difference from a reference model.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use formats::block::{DType, i2_s};
use formats::model::{ByteOrder, Encoding, Format, Tensor};

use crate::error::{Error, Result};
use crate::outcome::{Outcome, squared_error};
use crate::plan::bias;
use crate::source::{Source, Stored, scales};
use kernels::parallel;

/// Weights that are read together.
const BAND: u64 = 1 << 20;

/// The findings about a tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// Its name.
    pub name: String,
    /// Its encoding.
    pub encoding: Encoding,
    /// The index of the first weight that is NaN or infinite, or of the first weight of its block.
    pub not_finite: Option<u64>,
    /// The comparison with the reference's tensor.
    pub comparison: Option<Comparison>,
}

/// The difference of a tensor from the reference's tensor of the same name and shape.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// Whether they have the same numbers, whatever the byte order.
    pub equal: bool,
    /// The error relative to the reference, in f32; `None` if a type cannot be decoded.
    pub outcome: Option<Outcome>,
}

/// Checks every tensor. With a reference, compares it with the reference's tensor of the same name, if that has the same
/// shape.
///
/// # Errors
/// [`Error::Io`] if a file cannot be read; [`Error::NoWeights`] for a folder without weights; [`Error::Refused`] for a file of
/// a checkpoint that has none.
pub fn verify(source: &Source, reference: Option<&Source>) -> Result<Vec<Finding>> {
    source.need_weights()?;
    reference.map_or(Ok(()), Source::need_weights)?;
    // A GGUF may have a vocabulary alone.
    let checkpoint = |s: &Source| matches!(s.model.format, Format::Safetensors | Format::PyTorch);
    if let Some(empty) =
        [Some(source), reference].into_iter().flatten().find(|s| checkpoint(s) && s.model.tensors.is_empty())
    {
        return Err(Error::refused(format!(
            "{}: has no tensors, so there is nothing to check",
            empty.path.display()
        ))
        .or("take the file with the model's weights"));
    }
    // Tensors in parallel, bands within one after another: sums do not depend on the number of threads.
    let mut places: HashMap<&str, usize> = HashMap::new();
    for (i, t) in reference.iter().flat_map(|r| &r.model.tensors).enumerate() {
        places.entry(&t.name).or_insert(i);
    }
    let of = |i: usize| {
        let t: &Tensor = &source.model.tensors[i];
        let place = *places.get(t.name.as_str())?;
        reference.filter(|r| r.model.tensors[place].shape == t.shape).map(|r| (r, place))
    };
    parallel::try_map(source.model.tensors.len(), &|i| tensor(source, i, of(i)))
}

/// The differences of two models in their tensors' names and shapes, in words.
pub fn unmatched(source: &Source, reference: &Source) -> Vec<String> {
    // A scale tensor (NVFP4) is part of the tensor that it scales.
    let named = |s: &'_ Source| -> Vec<Tensor> {
        let scales: HashSet<_> = scales::pairs(&s.model).into_iter().map(|(_, scale)| scale).collect();
        let all = s.model.tensors.iter().enumerate();
        all.filter(|(i, _)| !scales.contains(i)).map(|(_, t)| t.clone()).collect()
    };
    let (ours, theirs) = (&named(source), &named(reference));
    let shapes: HashMap<_, _> = theirs.iter().map(|t| (&t.name, &t.shape)).collect();
    let names: HashSet<_> = ours.iter().map(|t| &t.name).collect();
    let (here, there) = (source.path.display(), reference.path.display());
    // Biases from bias correction are not in the model that was quantized.
    let corrected = |s: &Source| s.model.metadata.get("ggufkit.bias_correction").is_some();
    let (own, other) = (corrected(source), corrected(reference));
    let differs = ours.iter().filter_map(|t| match shapes.get(&t.name) {
        None if own && bias::is_bias(&t.name) => None,
        None => Some(format!("tensor {} is in {here} but not in {there}", t.name)),
        Some(shape) if **shape != t.shape => {
            Some(format!("tensor {} has shape {:?} in {here} and {shape:?} in {there}", t.name, t.shape))
        }
        _ => None,
    });
    let missing = theirs.iter().filter(|t| !(names.contains(&t.name) || other && bias::is_bias(&t.name)));
    differs.chain(missing.map(|t| format!("tensor {} is in {there} but not in {here}", t.name))).collect()
}

/// Checks one tensor; `other` is the tensor that it is compared with, by its place in its model.
fn tensor(source: &Source, i: usize, other: Option<(&Source, usize)>) -> Result<Finding> {
    let t = &source.model.tensors[i];
    let mut finding =
        Finding { name: t.name.clone(), encoding: t.encoding, not_finite: None, comparison: None };
    let total = t.elements();
    let step = (BAND / t.cols().max(1)).max(1) * t.cols().max(1);
    finding.not_finite = first_not_finite(source, i)?;
    let Some((r, index)) = other else { return Ok(finding) };
    let other = &r.model.tensors[index];
    let decodable = |e| !matches!(e, Encoding::Blocks(d) if kernels::codec(d).is_none());
    if !decodable(t.encoding) || !decodable(other.encoding) {
        let equal = t.encoding == other.encoding && same_bytes((source, i), (r, index))?;
        finding.comparison = Some(Comparison { equal, outcome: equal.then(Outcome::default) });
        return Ok(finding);
    }
    let mut all = Comparison { equal: true, outcome: Some(Outcome::default()) };
    let mut at = 0;
    while at < total {
        let range = at..(at + step).min(total);
        at = range.end;
        let part = compare((source, i), (r, index), range)?;
        all.equal &= part.equal;
        all.outcome = all.outcome.zip(part.outcome).map(|(mut sum, part)| {
            sum.add(part);
            sum
        });
    }
    finding.comparison = Some(all);
    Ok(finding)
}

/// The ranges of a tensor's stored bytes that are read together, whole blocks each, with the type of their numbers.
fn pieces(t: &Tensor) -> impl Iterator<Item = (Range<u64>, DType)> {
    t.parts().into_iter().flat_map(|(part, dtype)| {
        let unit = dtype.info().bytes as u64;
        let step = (4 * BAND).next_multiple_of(unit);
        part.clone().step_by(step as usize).map(move |a| (a..(a + step).min(part.end), dtype))
    })
}

/// Reads such a range, as little-endian.
fn read_piece(source: &Source, i: usize, range: Range<u64>, dtype: DType) -> Result<Vec<u8>> {
    let mut bytes = source.read(i, range)?.into_owned();
    if source.model.order == ByteOrder::Big {
        dtype.swap(&mut bytes);
    }
    Ok(bytes)
}

fn same_bytes((source, i): (&Source, usize), (reference, other): (&Source, usize)) -> Result<bool> {
    for (range, dtype) in pieces(&source.model.tensors[i]) {
        if read_piece(source, i, range.clone(), dtype)? != read_piece(reference, other, range, dtype)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Compares weights `range` of two tensors of the same shape, both of types that can be decoded.
fn compare(ours: (&Source, usize), theirs: (&Source, usize), range: Range<u64>) -> Result<Comparison> {
    let ((source, i), (reference, k)) = (ours, theirs);
    let (t, other) = (&source.model.tensors[i], &reference.model.tensors[k]);
    let (a, b) = (source.fetch(i, range.clone())?, reference.fetch(k, range.clone())?);
    let one_type = t.encoding == other.encoding;
    let same_bytes =
        one_type && a.little_endian(source.model.order) == b.little_endian(reference.model.order);
    let n = (range.end - range.start) as usize;
    let (mut x, mut y) = (vec![0f32; n], vec![0f32; n]);
    b.decode(&t.name, reference.model.order, &mut x)?;
    a.decode(&t.name, source.model.order, &mut y)?;
    let mut outcome = squared_error(&x, &y);
    if same_bytes {
        outcome.error = 0.0; // even where they are NaN
    }
    // Weights that are computed while reading have no stored bytes to compare.
    let computed = matches!(a, Stored::Computed(_)) || matches!(b, Stored::Computed(_));
    let equal = if one_type && !computed { same_bytes } else { outcome.error == 0.0 };
    Ok(Comparison { equal, outcome: Some(outcome) })
}

/// The first weight that is NaN or infinite, or the first weight of a block with such a scale.
fn first_not_finite(source: &Source, i: usize) -> Result<Option<u64>> {
    let t = &source.model.tensors[i];
    for (range, dtype) in pieces(t) {
        let start = range.start;
        let bytes = read_piece(source, i, range, dtype)?;
        if t.encoding == Encoding::I2S && start < t.elements() / 4 {
            // In a range of codes, look for codes that have no value.
            if let Some(at) = i2_s::first_invalid(&bytes) {
                return Ok(Some(4 * start + at as u64));
            }
            continue;
        }
        let Some(block) = dtype.first_not_finite(&bytes) else { continue };
        let info = dtype.info();
        return Ok(Some(match t.encoding {
            Encoding::Blocks(_) => (start / info.bytes as u64 + block as u64) * info.weights as u64,
            // Only the scales, which follow the codes, can be NaN or infinite.
            Encoding::Int8Groups { size } => ((start - t.elements()) / 4 + block as u64) * u64::from(size),
            // The scale applies to all weights, so the first one is given.
            Encoding::I2S => 0,
            Encoding::Foreign(_) => unreachable!("{} has a view with the blocks of a type", t.name),
        }));
    }
    Ok(None)
}
