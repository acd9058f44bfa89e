//! A few of a model's weights, by which it is known again: what was measured on one model says nothing of another that has
//! the same shapes.
//!
//! Weights are compared as numbers, not as bytes: a checkpoint in bf16, the GGUF in f16 that was made of it and what was
//! quantized from that are one model, and differ by what their types round.

use std::fmt::Write as _;

use formats::model::Tensor;

use super::Source;
use crate::arch::Blk;
use crate::error::{Error, Result};
use crate::order;

/// Matrices of layers that are looked at, at most.
const MATRICES: usize = 8;
/// Rows of each.
const ROWS: usize = 2;
/// Weights of each row.
const COLS: usize = 16;

/// Up to this relative difference, weights are the same but for their types: rounding to bf16 costs 0.002, q8_0 0.006.
const SAME: f64 = 0.01;
/// From this one on, weights have nothing in common: independent ones differ by about 1.4, ternary ones from their masters
/// by about 0.6.
const OTHER: f64 = 0.9;

/// A sample of a model's weights, in bf16.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample(Vec<u16>);

/// A model on which something was measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// The name of its file or folder.
    pub name: String,
    /// Some of its weights.
    pub sample: Sample,
}

impl Sample {
    /// The sample of a model. `None` if it has no weights, or none that can be decoded.
    ///
    /// # Errors
    /// Those of [`Source::fetch`].
    pub fn of(source: &Source) -> Result<Option<Self>> {
        let tensors = &source.model.tensors;
        let is_matrix = |t: &Tensor| {
            let weight = Blk::parse(&t.name).and_then(|blk| blk.weight()).is_some();
            weight && t.shape.len() == 2 && t.rows() > 1 && t.cols() > 1
        };
        let mut all: Vec<usize> = (0..tensors.len()).filter(|&i| is_matrix(&tensors[i])).collect();
        // Formats differ in the order of tensors.
        order::by_key(&mut all, |&i| &tensors[i].name);
        if source.weightless || all.is_empty() {
            return Ok(None);
        }
        let count = all.len().min(MATRICES);
        let mut sample = Vec::new();
        for &i in (0..count).map(|k| &all[k * all.len() / count]) {
            let t = &tensors[i];
            let (rows, cols) = (t.rows(), t.cols());
            let mut row = vec![0f32; cols as usize];
            for k in 0..ROWS as u64 {
                let start = rows * (2 * k + 1) / (2 * ROWS as u64) * cols;
                let decoded = source
                    .fetch(i, start..start + cols)
                    .and_then(|stored| stored.decode(&t.name, source.model.order, &mut row));
                match decoded {
                    Err(Error::UnsupportedType { .. }) => return Ok(None),
                    other => other?,
                }
                sample.extend((0..COLS).map(|c| rounded(row[c * row.len() / COLS])));
            }
        }
        Ok(Some(Self(sample)))
    }

    /// The relative difference of two models' weights: 0 if they are equal, about 1.4 if they have nothing in common.
    /// `None` for models with different numbers of matrices, and for weights that are no numbers.
    fn difference(&self, other: &Self) -> Option<f64> {
        let values = |bits: &u16| f64::from(f32::from_bits(u32::from(*bits) << 16));
        let (mut sum, mut count) = (0.0, 0);
        for (a, b) in self.0.chunks(ROWS * COLS).zip(other.0.chunks(ROWS * COLS)) {
            let square = |x: &[u16]| x.iter().map(|x| values(x).powi(2)).sum::<f64>();
            let most = square(a).max(square(b));
            if most > 0.0 {
                sum += a.iter().zip(b).map(|(a, b)| (values(a) - values(b)).powi(2)).sum::<f64>() / most;
                count += 1;
            }
        }
        let found = (sum / f64::from(count.max(1))).sqrt();
        (self.0.len() == other.0.len() && found.is_finite()).then_some(found)
    }

    /// The sample as a text: hexadecimal digits, four for each weight.
    pub fn text(&self) -> String {
        self.0.iter().fold(String::new(), |mut text, bits| {
            let _ = write!(text, "{bits:04x}");
            text
        })
    }

    /// Reads what [`Sample::text`] makes; `None` for another text.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        let valid = digits.len() <= 4 * MATRICES * ROWS * COLS && digits.iter().all(u8::is_ascii_hexdigit);
        let (fours, []) = digits.as_chunks::<4>() else { return None };
        if !valid {
            return None;
        }
        let bits = |four: &[u8; 4]| u16::from_str_radix(str::from_utf8(four).ok()?, 16).ok();
        fours.iter().map(bits).collect::<Option<Vec<u16>>>().map(Self)
    }
}

/// Rounds to bf16.
fn rounded(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() { 0x7fc0 } else { ((u64::from(bits) + 0x7fff + u64::from(bits >> 16 & 1)) >> 16) as u16 }
}

impl Measured {
    /// What is remembered of a model; `None` where [`Sample::of`] gives none.
    ///
    /// # Errors
    /// Those of [`Sample::of`].
    pub fn of(source: &Source) -> Result<Option<Self>> {
        // A folder may be named by `.`.
        let path = source.path.canonicalize().unwrap_or_else(|_| source.path.clone());
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Sample::of(source)?.map(|sample| Self { name, sample }))
    }

    /// Checks that what was measured on this model is of `source`. Gives a note if the weights differ by more than their
    /// types round: those of a version of the model that is quantized, or trained on. `what` was measured, with its file:
    /// "s.json: the sensitivities".
    ///
    /// # Errors
    /// [`Error::OtherModel`] if the weights have nothing in common; those of [`Sample::of`].
    pub fn check(&self, source: &Source, what: &str) -> Result<Option<String>> {
        let Some(found) = Sample::of(source)?.and_then(|own| own.difference(&self.sample)) else {
            return Ok(None);
        };
        let (name, path) = (&self.name, source.path.clone());
        match found {
            found if found <= SAME => Ok(None),
            found if found < OTHER => Ok(Some(format!(
                "{what} were measured on {name}, whose weights differ from these by {:.1} %, as those of a quantized or \
                 fine-tuned version of one model do: importances are about right then, and sensitivities of a fine-tuned version, \
                 but those of a quantized one are too small for the types that it has",
                100.0 * found
            ))),
            _ => Err(Error::OtherModel { what: what.into(), name: name.clone(), path }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_texts() {
        let sample = Sample(vec![0, 0x3f80, 0xbf80, 0xffff]);
        assert_eq!(sample.text(), "00003f80bf80ffff");
        assert_eq!(Sample::parse(&sample.text()), Some(sample));
        for bad in ["0", "00000", "000g", "+000", "é0", &"0".repeat(4 * MATRICES * ROWS * COLS + 4)] {
            assert_eq!(Sample::parse(bad), None, "{bad}");
        }
        assert_eq!([1.0, -1.0, 1.003_906_4, f32::MAX].map(rounded), [0x3f80, 0xbf80, 0x3f81, 0x7f80]);
        assert!(f32::from_bits(u32::from(rounded(f32::NAN)) << 16).is_nan());
    }

    #[test]
    fn differences_are_relative() {
        let mut random = crate::random::Random::new(1);
        let mut model = |scale: f32| -> Vec<f32> {
            let mut weight = || (0..6).map(|_| random.below(1000) as f32 / 1000.0 - 0.5).sum::<f32>() * scale;
            (0..MATRICES * ROWS * COLS).map(|_| weight()).collect()
        };
        let sample = |x: &[f32]| Sample(x.iter().map(|x| rounded(*x)).collect());
        let (a, b, large) = (model(0.02), model(0.02), model(20.0));
        let of = |x: &[f32], y: &[f32]| sample(x).difference(&sample(y)).unwrap();
        assert_eq!(of(&a, &a), 0.0);
        assert!(of(&a, &b) > OTHER && of(&a, &large) > OTHER, "{} {}", of(&a, &b), of(&a, &large));
        let other = |f: fn(f32) -> f32| -> Vec<f32> { a.iter().map(|x| f(*x)).collect() };
        assert!(of(&a, &other(|x| x * 1.003)) <= SAME);
        // Four bits, and one.
        let four = of(&a, &other(|x| (x / 0.01).round() * 0.01));
        let one = of(&a, &other(|x| 0.012 * x.signum()));
        assert!(four > SAME && four < one && one < OTHER, "{four} {one}");
        assert_eq!(sample(&a).difference(&sample(&a[..32])), None);
        assert_eq!(sample(&[f32::NAN; 32]).difference(&sample(&a[..32])), None);
        assert_eq!(of(&[0.0; 64], &[0.0; 64]), 0.0);
    }
}
