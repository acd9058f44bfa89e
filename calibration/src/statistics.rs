//! Measurements of the inputs of matrices, and the importance of each weight that follows.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use formats::metadata::Metadata;

use crate::error::{Error, Fault, Result};

/// The number of tokens of a chunk where a file does not state it: the default of llama-imatrix.
pub const CHUNK_SIZE: u64 = 512;

/// Measurements of the inputs of a model's matrices while it read a calibration set.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Statistics {
    /// The name of the file that they come from, for errors and notes.
    pub file: String,
    /// The measurements by tensor, under the names of GGUF.
    pub entries: BTreeMap<String, Arc<Entry>>,
    /// The unit of the entries' counts.
    pub unit: Unit,
    /// The names of the texts.
    pub datasets: Vec<String>,
    /// The number of chunks of text that were read, if known.
    pub chunks: Option<u64>,
    /// The number of tokens of a chunk, if known.
    pub chunk_size: Option<u64>,
    /// Other metadata, such as [`crate::imatrix::HASH`].
    pub metadata: Metadata,
    /// What was corrected or converted, for people to read.
    pub notes: Vec<String>,
}

/// What the counts of [`Statistics`] count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Unit {
    /// Tokens: vectors of inputs.
    #[default]
    Tokens,
    /// Chunks of text of one length, which is often unknown. A `.dat` file has nothing else.
    Chunks,
}

/// Measurements of one tensor: of a matrix, or of several that are stacked (experts).
///
/// Sums and counts are kept as in files: from means, the sums could not be restored exactly.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    sums: Vec<f32>,
    counts: Vec<u64>,
}

/// The importance of each weight of a tensor: the mean square of the inputs of its column.
#[derive(Debug, Clone)]
pub struct Importance {
    entry: Arc<Entry>,
    /// The number of weights in a row.
    cols: u64,
    /// The number of rows in a matrix.
    rows: u64,
}

/// A reader of an [`Importance`], range by range.
#[derive(Debug)]
pub struct Columns<'a> {
    of: &'a Importance,
    /// The values of the last range.
    values: Vec<f32>,
    /// The index and number of the values, if the range was in one matrix: then they can be used again.
    held: Option<(usize, usize)>,
}

impl Entry {
    /// From the sums of the squared inputs, one for each column of each matrix, matrix after matrix, and the number of
    /// measurements of each matrix, or one number for all of them.
    ///
    /// `None` if there are no sums, if their number is not a multiple of that of the counts, or if one of them is negative
    /// or not finite.
    pub fn new(mut sums: Vec<f32>, counts: Vec<u64>) -> Option<Self> {
        let even = !sums.is_empty() && sums.len().checked_rem(counts.len()) == Some(0);
        let valid = even && sums.iter().all(|x| x.is_finite() && *x >= 0.0);
        sums.iter_mut().for_each(|x| *x += 0.0); // makes -0.0 positive
        valid.then_some(Self { sums, counts })
    }

    /// The sums of the squared inputs, finite and not negative.
    pub fn sums(&self) -> &[f32] {
        &self.sums
    }

    /// The number of measurements of each matrix, or one number for all of them.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// The number of sums for each count: the columns of a matrix.
    pub fn cols(&self) -> usize {
        self.sums.len() / self.counts.len()
    }

    /// The sums and the count of each matrix.
    pub fn matrices(&self) -> impl ExactSizeIterator<Item = (&[f32], u64)> {
        self.sums.chunks_exact(self.cols()).zip(self.counts.iter().copied())
    }

    /// The mean squares of the inputs. For matrices that were not measured they are 1, as in llama-quantize: all columns are
    /// equally important.
    pub fn means(&self) -> Vec<f32> {
        let mut means = Vec::with_capacity(self.sums.len());
        self.append_means(0..self.sums.len(), &mut means);
        means
    }

    fn append_means(&self, range: Range<usize>, to: &mut Vec<f32>) {
        let cols = self.cols();
        let mut next = range.start;
        while next < range.end {
            let end = (next / cols * cols + cols).min(range.end);
            match self.counts[next / cols] {
                0 => to.resize(to.len() + end - next, 1.0),
                count => to.extend(self.sums[next..end].iter().map(|x| x / count as f32)),
            }
            next = end;
        }
    }

    /// The same with sums and counts multiplied by `n`.
    pub(crate) fn times(&self, n: u64) -> Self {
        Self {
            sums: self.sums.iter().map(|x| (x * n as f32).min(f32::MAX)).collect(),
            counts: self.counts.iter().map(|c| c.saturating_mul(n)).collect(),
        }
    }
}

impl Statistics {
    /// The importance of the weights of a tensor of this shape (outermost dimension first); `None` if it was not measured.
    ///
    /// # Errors
    /// [`Fault::Mismatch`] if a matrix of another size was measured.
    pub fn importance(&self, name: &str, shape: &[u64]) -> Result<Option<Importance>> {
        let Some(entry) = self.entries.get(name) else { return Ok(None) };
        let cols = shape.last().copied().unwrap_or(1);
        let rows = shape.len().checked_sub(2).map_or(1, |i| shape[i]);
        let matrices = shape[..shape.len().saturating_sub(2)].iter().fold(1u64, |n, &d| n.saturating_mul(d));
        let found = entry.sums.len() as u64;
        if formats::model::elements(shape).is_none() || cols.checked_mul(matrices) != Some(found) {
            let fault = Fault::Mismatch { tensor: name.to_string(), found, cols, matrices };
            return Err(Error::new(&self.file, None, fault));
        }
        Ok(Some(Importance { entry: entry.clone(), cols, rows: rows.max(1) }))
    }

    /// The same with counts in tokens. Chunks of unknown size count as [`CHUNK_SIZE`] tokens. Means stay the same, except for
    /// rounding if the size is not a power of two.
    pub fn in_tokens(&self) -> Cow<'_, Self> {
        self.in_tokens_or(CHUNK_SIZE)
    }

    /// The same with counts in tokens. Chunks of unknown size count as `size` tokens.
    pub(crate) fn in_tokens_or(&self, size: u64) -> Cow<'_, Self> {
        if self.unit == Unit::Tokens {
            return Cow::Borrowed(self);
        }
        let size = self.chunk_size.unwrap_or(size);
        let entries = self.entries.iter().map(|(name, e)| (name.clone(), Arc::new(e.times(size)))).collect();
        Cow::Owned(Self { entries, unit: Unit::Tokens, chunk_size: Some(size), ..self.clone() })
    }
}

impl Importance {
    /// A reader of the importance.
    pub fn columns(&self) -> Columns<'_> {
        Columns { of: self, values: Vec::new(), held: None }
    }

    /// The index of the value of a weight.
    fn index(&self, weight: u64) -> usize {
        (weight / (self.cols * self.rows) * self.cols + weight % self.cols) as usize
    }
}

impl Columns<'_> {
    /// The importance of each weight in `range`: indices into the flattened tensor.
    ///
    /// # Panics
    /// If the range ends beyond the tensor.
    pub fn of(&mut self, range: Range<u64>) -> &[f32] {
        let Importance { entry, cols, rows } = self.of;
        if range.is_empty() {
            return &[];
        }
        let (at, len) = (self.of.index(range.start), (range.end - range.start) as usize);
        // Within a matrix, ranges that start in the same column have the same values. Mostly, that is so for every band of work.
        let matrix = cols * rows;
        let one = range.start / matrix == (range.end - 1) / matrix;
        if one && self.held == Some((at, len)) {
            return &self.values;
        }
        self.held = one.then_some((at, len));
        self.values.clear();
        let mut next = range.start;
        while next < range.end {
            let (at, n) = (self.of.index(next), (range.end - next).min(cols - next % cols));
            entry.append_means(at..at + n as usize, &mut self.values);
            next += n;
        }
        &self.values
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn statistics(means: Vec<f32>, counts: u64) -> Statistics {
        // Multiplying by 3 and dividing again is exact for small integers.
        let sums = means.iter().map(|x| 3.0 * x).collect();
        let entry = Arc::new(Entry::new(sums, vec![3; counts as usize]).unwrap());
        Statistics {
            file: "x.gguf".into(),
            entries: [("a".to_string(), entry)].into(),
            ..Statistics::default()
        }
    }

    proptest! {
        #[test]
        fn every_weight_has_its_columns_importance(
            (matrices, rows, cols, one) in (1..4u64, 1..5u64, 1..9u64, proptest::bool::ANY),
            cuts in proptest::collection::vec((0..200u64, 1..60u64), 1..20),
        ) {
            let s = statistics((0..matrices * cols).map(|i| i as f32).collect(), if one { 1 } else { matrices });
            let shape = if matrices == 1 { vec![rows, cols] } else { vec![matrices, rows, cols] };
            let importance = s.importance("a", &shape).unwrap().unwrap();
            let total = matrices * rows * cols;
            let mut columns = importance.columns();
            for (start, len) in cuts {
                let start = start % total;
                let range = start..(start + len).min(total);
                let wanted: Vec<f32> = range.clone()
                    .map(|i| (i / (rows * cols) * cols + i % cols) as f32)
                    .collect();
                prop_assert_eq!(columns.of(range), &wanted[..]);
            }
        }
    }

    #[test]
    fn size_mismatches_name_both_sizes() {
        let s = statistics(vec![1.0; 12], 3);
        assert!(s.importance("b", &[4, 12]).unwrap().is_none());
        assert!(s.importance("a", &[12]).unwrap().is_some());
        let text = |shape: &[u64]| s.importance("a", shape).unwrap_err().to_string();
        assert_eq!(text(&[4, 16]), "x.gguf: a has 12 values, but in the model it has 16 (16 columns)");
        assert_eq!(
            text(&[2, 4, 12]),
            "x.gguf: a has 12 values, but in the model it has 24 (12 columns of 2 matrices)"
        );
        // Three stacked matrices of four columns have as many values as one matrix of twelve; nothing distinguishes them.
        assert!(s.importance("a", &[3, 5, 4]).unwrap().is_some());
        assert!(s.importance("a", &[0, 5, 12]).is_err());
    }

    #[test]
    fn shapes_that_overflow_are_refused() {
        let s = statistics(vec![1.0; 12], 3);
        for shape in
            [[u64::MAX, 2, 12], [u64::MAX, u64::MAX, 12], [1, u64::MAX, 12], [1 << 40, 1 << 40, u64::MAX]]
        {
            let error = s.importance("a", &shape).unwrap_err();
            assert!(matches!(error, Error::Statistics { fault: Fault::Mismatch { .. }, .. }), "{error}");
        }
    }

    #[test]
    fn entries_are_validated() {
        let valid = |sums: &[f32], counts: &[u64]| Entry::new(sums.to_vec(), counts.to_vec()).is_some();
        assert!(valid(&[1.0, 0.0, 3.0, 4.0], &[0, 7]));
        assert!(!valid(&[], &[]) && !valid(&[], &[1]) && !valid(&[1.0], &[]) && !valid(&[1.0; 3], &[1, 1]));
        assert!([-1.0, f32::NAN, f32::INFINITY].iter().all(|&x| !valid(&[1.0, x], &[1])));
        let entry = Entry::new(vec![-0.0, 2.0, 3.0, 4.0], vec![4, 0]).unwrap();
        assert_eq!(entry.means(), [0.0, 0.5, 1.0, 1.0]);
        assert!(entry.means()[0].is_sign_positive());
    }

    #[test]
    fn converting_chunks_to_tokens_keeps_means() {
        let mut s = statistics(vec![1.0, 2.0, 5.0, 0.0], 2);
        assert!(matches!(s.in_tokens(), Cow::Borrowed(_)));
        s.unit = Unit::Chunks;
        for (size, tokens) in [(None, 512), (Some(100), 100)] {
            s.chunk_size = size;
            let t = s.in_tokens();
            assert_eq!((t.unit, t.chunk_size), (Unit::Tokens, Some(tokens)));
            assert_eq!(t.entries["a"].counts(), [3 * tokens; 2]);
            assert_eq!(t.entries["a"].means(), s.entries["a"].means());
        }
    }
}
