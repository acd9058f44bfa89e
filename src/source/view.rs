//! Views: tensors that are computed from what is stored while they are read. Rows in another order, ternary weights
//! from two-bit codes or from the floats that they are trained as, numbers that follow from the settings.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::OnceLock;

use formats::block::{DType, Foreign};
use formats::model::{Encoding, Tensor};

use super::{Source, Stored};
use crate::error::{Error, Result};

/// How a tensor of the model is computed from a tensor in a file.
#[derive(Debug)]
pub struct View {
    /// The tensor in the file.
    pub stored: Tensor,
    /// The order of its rows.
    pub rows: RowOrder,
    /// How its numbers are computed.
    pub values: Values,
}

/// The order of rows. It changes within attention heads only: rotary embeddings (RoPE) pair the dimensions of a head as
/// halves in Hugging Face's files, and as neighbours in GGUF's files of some architectures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowOrder {
    /// As stored.
    Same,
    /// Within each `head` rows, the two halves that are stored one after the other are interleaved.
    Interleave {
        /// Rows of a head, an even number.
        head: u64,
    },
    /// Within each `head` rows, even rows come before odd ones: the inverse of [`RowOrder::Interleave`].
    Separate {
        /// Rows of a head, an even number.
        head: u64,
    },
}

impl RowOrder {
    /// The index of the stored row that becomes row `row` of the tensor.
    pub fn source(self, row: u64) -> u64 {
        match self {
            Self::Same => row,
            Self::Interleave { head } => {
                let (base, at) = (row - row % head, row % head);
                base + at % 2 * (head / 2) + at / 2
            }
            Self::Separate { head } => {
                let (base, at) = (row - row % head, row % head);
                base + at % (head / 2) * 2 + at / (head / 2)
            }
        }
    }

    /// This order applied after another.
    ///
    /// # Panics
    /// If both change the order and are not inverses, which no caller asks for.
    pub fn after(self, first: Self) -> Self {
        match (first, self) {
            (other, Self::Same) | (Self::Same, other) => other,
            (Self::Interleave { head: a }, Self::Separate { head: b })
            | (Self::Separate { head: a }, Self::Interleave { head: b })
                if a == b =>
            {
                Self::Same
            }
            _ => unreachable!("rows are reordered once"),
        }
    }
}

/// How the numbers of a tensor are computed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Values {
    /// The stored numbers, in the stored type.
    Stored,
    /// The stored numbers as f32.
    Decoded,
    /// The stored numbers, multiplied by one number, or each of the stacked matrices by its own. Copies have the stored
    /// bytes, since the factors are in a tensor that is copied too.
    Scaled {
        /// One factor, or one for each matrix.
        factors: Vec<f32>,
    },
    /// The blocks that a layout of another program holds, in the byte order of the source.
    Repacked(Foreign),
    /// Hugging Face's packed BitNet weights (transformers' `integrations/bitnet`): byte (r, c) of `[rows / 4, cols]`
    /// has the weights of rows r, r + rows/4, r + rows/2 and r + 3 rows/4 in column c, from the lowest two bits up,
    /// each as the weight's sign plus one.
    Packed {
        /// The magnitude of all weights that are not zero.
        scale: f32,
    },
    /// MLX's codes of `bits` bits, packed into the stored rows from the lowest bit up, and for each `group` of weights of a
    /// row a scale and an offset: weight = scale · code + offset.
    Affine {
        /// Bits of a code, 1 to 8.
        bits: u32,
        /// Weights that share a scale; divides the rows.
        group: u64,
        /// The tensor with the scales, `[rows, cols / group]`.
        scales: Box<Tensor>,
        /// The tensor with the offsets, of the same shape.
        biases: Box<Tensor>,
    },
    /// BitNet's master weights: floats that the model rounds to -1, 0 or 1 times their mean magnitude (arXiv
    /// 2402.17764, the `absmean` function).
    Master {
        /// The magnitude, computed when it is first asked for.
        scale: OnceLock<f32>,
    },
    /// Numbers that are in no file.
    Fixed(Vec<f32>),
}

/// Elements that are read at a time to find the magnitude of master weights.
const BAND: u64 = 1 << 20;

impl View {
    /// The name of the stored type, for reports.
    pub fn name(&self) -> String {
        match &self.values {
            Values::Stored | Values::Decoded | Values::Scaled { .. } | Values::Repacked(_) => {
                self.stored.encoding.name()
            }
            Values::Packed { .. } => "2-bit".into(),
            Values::Affine { bits, .. } => format!("MLX {bits}-bit"),
            Values::Master { .. } => format!("{} master", self.stored.encoding.name()),
            Values::Fixed(_) => "settings".into(),
        }
    }

    /// Bytes `range` of the tensor `t` that this is the view of, in the source's byte order.
    pub(super) fn read<'a>(
        &self,
        source: &'a Source,
        t: &Tensor,
        range: Range<u64>,
    ) -> Result<Cow<'a, [u8]>> {
        if let Values::Stored | Values::Scaled { .. } | Values::Repacked(_) = self.values {
            let blocks = |range: Range<u64>| match self.values {
                Values::Repacked(layout) => self.repacked(source, t, layout, range),
                _ => source.stored_read(&self.stored, range),
            };
            let row = row_bytes(t);
            if self.rows == RowOrder::Same || row == 0 {
                return blocks(range);
            }
            let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
            let mut at = range.start;
            while at < range.end {
                let (n, skip) = (at / row, at % row);
                let take = (row - skip).min(range.end - at);
                let from = self.rows.source(n) * row + skip;
                bytes.extend_from_slice(&blocks(from..from + take)?);
                at += take;
            }
            return Ok(Cow::Owned(bytes));
        }
        // Computed numbers are f32, or bf16 where that holds them exactly.
        let size = if t.encoding == Encoding::Blocks(DType::BF16) { 2 } else { 4 };
        let (first, last) = (range.start / size, range.end.div_ceil(size));
        let x = self.numbers(source, t, first..last)?;
        if let Some(i) = x.iter().position(|x| !x.is_finite()) {
            let (tensor, weight) = (t.name.clone(), first + i as u64);
            return Err(match self.values {
                Values::Packed { .. } => Error::InvalidCode { tensor, weight },
                _ => Error::NotFinite { tensor, weight: Some(weight), row: None, value: Some(x[i]) },
            });
        }
        let order = source.model.order;
        let mut bytes = Vec::with_capacity(x.len() * size as usize);
        for x in x {
            match size {
                2 => bytes.extend(order.le::<2>([x.to_le_bytes()[2], x.to_le_bytes()[3]])),
                _ => bytes.extend(order.le::<4>(x.to_le_bytes())),
            }
        }
        let skip = (range.start - first * size) as usize;
        Ok(Cow::Owned(bytes[skip..skip + (range.end - range.start) as usize].to_vec()))
    }

    /// Bytes `range` of the blocks that a layout of another program holds: the rows that it stores together are unpacked
    /// together.
    fn repacked<'a>(
        &self,
        source: &Source,
        t: &Tensor,
        layout: Foreign,
        range: Range<u64>,
    ) -> Result<Cow<'a, [u8]>> {
        let row = layout.dtype().bytes_for(t.cols()).expect("rows are whole blocks");
        if row == 0 || range.is_empty() {
            return Ok(Cow::Owned(Vec::new()));
        }
        let together = layout.rows(t.cols()) as u64;
        let group = row * together;
        let (first, last) = (range.start / group, range.end.div_ceil(group));
        let stored = layout.bytes_for(t.cols() * together).expect("rows are whole blocks");
        let bytes = source.stored_read(&self.stored, first * stored..last * stored)?;
        let unpacked = layout.unpack(t.cols() as usize, &bytes);
        let skip = (range.start - first * group) as usize;
        Ok(Cow::Owned(unpacked[skip..skip + (range.end - range.start) as usize].to_vec()))
    }

    /// Elements `range` of the tensor `t`, for decoding.
    pub(super) fn fetch<'a>(&self, source: &'a Source, t: &Tensor, range: Range<u64>) -> Result<Stored<'a>> {
        match (&self.values, t.encoding) {
            (Values::Stored | Values::Repacked(_), Encoding::Blocks(dtype)) => {
                let bytes = |n| dtype.bytes_for(n).expect("ranges start and end with a block");
                Ok(Stored::Blocks(dtype, self.read(source, t, bytes(range.start)..bytes(range.end))?))
            }
            _ => Ok(Stored::Computed(self.numbers(source, t, range)?)),
        }
    }

    /// Elements `range` of the tensor `t`; NaN for the invalid two-bit code 3.
    fn numbers(&self, source: &Source, t: &Tensor, range: Range<u64>) -> Result<Vec<f32>> {
        let mut out = vec![0f32; (range.end - range.start) as usize];
        if let Values::Fixed(x) = &self.values {
            out.copy_from_slice(&x[range.start as usize..range.end as usize]);
            return Ok(out);
        }
        let (mut at, mut rest) = (range.start, &mut out[..]);
        let cols = t.cols().max(1);
        while at < range.end {
            let (row, skip) = (at / cols, at % cols);
            let n = (cols - skip).min(range.end - at);
            let (x, after) = rest.split_at_mut(n as usize);
            self.part_of_row(source, t, self.rows.source(row), skip, x)?;
            (rest, at) = (after, at + n);
        }
        Ok(out)
    }

    /// Elements of stored row `row`, from column `skip` on.
    fn part_of_row(&self, source: &Source, t: &Tensor, row: u64, skip: u64, out: &mut [f32]) -> Result<()> {
        let (cols, n) = (t.cols(), out.len() as u64);
        let stored = |out: &mut [f32]| {
            let at = row * cols + skip;
            source.stored_fetch(&self.stored, at..at + n)?.decode(&t.name, source.model.order, out)
        };
        match &self.values {
            Values::Stored | Values::Decoded => stored(out)?,
            Values::Scaled { factors } => {
                stored(out)?;
                let matrix = t.rows() / super::stacked(t).max(1);
                let factor = if factors.len() == 1 { factors[0] } else { factors[(row / matrix) as usize] };
                out.iter_mut().for_each(|x| *x *= factor);
            }
            Values::Packed { scale } => {
                let quarter = (t.rows() / 4).max(1);
                let at = row % quarter * cols + skip;
                let codes = source.stored_read(&self.stored, at..at + n)?;
                let shift = 2 * (row / quarter);
                let values = [-scale, 0.0, *scale, f32::NAN];
                for (x, code) in out.iter_mut().zip(codes.iter()) {
                    *x = values[usize::from(code >> shift & 3)];
                }
            }
            Values::Affine { bits, group, scales, biases } => {
                // Codes continue over the words of a row, which as little-endian bytes are one row of bits.
                let (bits, group) = (u64::from(*bits), *group);
                let (first, last) = (skip * bits / 8, ((skip + n) * bits).div_ceil(8));
                let start = row * row_bytes(&self.stored);
                let codes = source.stored_read(&self.stored, start + first..start + last)?;
                let (from, to) = (skip / group, (skip + n).div_ceil(group));
                let per_row = cols / group;
                let numbers = |t: &Tensor| -> Result<Vec<f32>> {
                    let mut x = vec![0f32; (to - from) as usize];
                    let at = row * per_row;
                    source.stored_fetch(t, at + from..at + to)?.decode(
                        &t.name,
                        source.model.order,
                        &mut x,
                    )?;
                    Ok(x)
                };
                let (scales, biases) = (numbers(scales)?, numbers(biases)?);
                for (i, x) in out.iter_mut().enumerate() {
                    let col = skip + i as u64;
                    let (byte, shift) = ((col * bits / 8 - first) as usize, col * bits % 8);
                    let next = codes.get(byte + 1).copied().unwrap_or(0);
                    let code = u16::from_le_bytes([codes[byte], next]) >> shift & ((1 << bits) - 1);
                    let g = (col / group - from) as usize;
                    *x = scales[g] * f32::from(code) + biases[g];
                }
            }
            Values::Master { scale } => {
                stored(out)?;
                let scale = match scale.get() {
                    Some(scale) => *scale,
                    None => {
                        let found = magnitude(source, &self.stored)?;
                        *scale.get_or_init(|| found)
                    }
                };
                for x in out {
                    // + 0.0: no packed type has a -0.0. NaN stays NaN, and is refused later.
                    *x = (*x / scale).round_ties_even().clamp(-1.0, 1.0) * scale + 0.0;
                }
            }
            Values::Repacked(_) => unreachable!("blocks are read as stored ones are"),
            Values::Fixed(_) => unreachable!("numbers that are in no file have no stored rows"),
        }
        Ok(())
    }
}

/// Bytes of a row; of an element where the tensor is a vector, whose elements are then reordered like rows.
fn row_bytes(t: &Tensor) -> u64 {
    let Encoding::Blocks(dtype) = t.encoding else { return 0 };
    dtype.bytes_for(if t.shape.len() < 2 { 1 } else { t.cols() }).unwrap_or(0)
}

/// The magnitude that master weights are rounded to: their mean magnitude, unless they are ternary already.
fn magnitude(source: &Source, stored: &Tensor) -> Result<f32> {
    let (mut sum, mut least, mut most) = (0f64, f32::INFINITY, 0f32);
    let total = stored.elements();
    let step = (BAND / stored.cols().max(1)).max(1) * stored.cols().max(1);
    let mut x = Vec::new();
    let mut at = 0;
    while at < total {
        let end = (at + step).min(total);
        x.resize((end - at) as usize, 0f32);
        source.stored_fetch(stored, at..end)?.decode(&stored.name, source.model.order, &mut x)?;
        for x in &x {
            let x = x.abs();
            sum += f64::from(x);
            most = most.max(x);
            least = if x > 0.0 { least.min(x) } else { least };
        }
        at = end;
    }
    let mean = (sum / total.max(1) as f64) as f32;
    Ok(if least == most { most } else { mean.max(1e-5) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_inverses() {
        let (there, back) = (RowOrder::Interleave { head: 8 }, RowOrder::Separate { head: 8 });
        let order: Vec<u64> = (0..16).map(|r| there.source(r)).collect();
        assert_eq!(order, [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15]);
        assert!((0..32).all(|r| back.source(there.source(r)) == r && there.source(back.source(r)) == r));
        assert_eq!(back.after(there), RowOrder::Same);
        assert_eq!(there.after(RowOrder::Same), there);
    }
}
