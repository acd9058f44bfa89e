//! What was measured, and how much it makes each weight count.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Fault, Result};

/// Measurements of a model's matrices while it read a text.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Statistics {
    /// The name of the file that they come from, for messages and as a record.
    pub file: String,
    /// Under the names of the tensors, as GGUF has them.
    pub entries: BTreeMap<String, Arc<Entry>>,
    /// The texts' names.
    pub datasets: Vec<String>,
    /// Chunks of text that were read, where the file says so.
    pub chunks: Option<u64>,
    /// Tokens of a chunk, where the file says so.
    pub chunk_size: Option<u64>,
    /// What was put right, for people to read.
    pub notes: Vec<String>,
}

/// Measurements of one tensor: of a matrix, or of several that are stacked (experts).
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The mean squares of the inputs: one for each column of each matrix, matrix after matrix. Finite, not negative.
    pub means: Vec<f32>,
    /// How often each matrix was measured, or one number for all. In tokens, or in chunks where a file has no more.
    pub counts: Vec<u64>,
}

/// How much each weight of a tensor counts: as much as its column's inputs are large.
#[derive(Debug, Clone)]
pub struct Importance {
    entry: Arc<Entry>,
    /// Weights of a row.
    cols: u64,
    /// Rows of a matrix.
    rows: u64,
}

/// An [`Importance`] that is read in stretches.
#[derive(Debug)]
pub struct Columns<'a> {
    of: &'a Importance,
    /// Values that do not lie side by side.
    values: Vec<f32>,
    /// Where the first of them stands, and their number, if they are the same wherever in a matrix that is so.
    held: Option<(usize, usize)>,
}

impl Statistics {
    /// The importance of the weights of a tensor of this shape (outermost dimension first), if it was measured.
    ///
    /// # Errors
    /// [`Fault::Mismatch`] if another size was measured.
    pub fn importance(&self, name: &str, shape: &[u64]) -> Result<Option<Importance>> {
        let Some(entry) = self.entries.get(name) else { return Ok(None) };
        let cols = shape.last().copied().unwrap_or(1);
        let rows = shape.len().checked_sub(2).map_or(1, |i| shape[i]);
        let matrices = shape[..shape.len().saturating_sub(2)].iter().product::<u64>();
        let found = entry.means.len() as u64;
        if cols.checked_mul(matrices) != Some(found) {
            let fault = Fault::Mismatch { tensor: name.to_string(), found, cols, matrices };
            return Err(Error::new(&self.file, None, fault));
        }
        Ok(Some(Importance { entry: entry.clone(), cols, rows: rows.max(1) }))
    }
}

impl Importance {
    /// To read it.
    pub fn columns(&self) -> Columns<'_> {
        Columns { of: self, values: Vec::new(), held: None }
    }

    /// Where the value of a weight stands.
    fn index(&self, weight: u64) -> usize {
        (weight / (self.cols * self.rows) * self.cols + weight % self.cols) as usize
    }
}

impl Columns<'_> {
    /// What each of the weights `range` of the tensor counts; they are counted through all rows and matrices.
    ///
    /// # Panics
    /// If the tensor has fewer weights.
    pub fn of(&mut self, range: Range<u64>) -> &[f32] {
        let Importance { entry, cols, rows } = self.of;
        let (at, len) = (self.of.index(range.start), (range.end - range.start) as usize);
        let left = (cols - range.start % cols) as usize;
        if len <= left {
            return &entry.means[at..at + len];
        }
        // Within a matrix, what starts in the same column is the same: mostly every piece of the work.
        let matrix = cols * rows;
        let one = range.start / matrix == (range.end - 1) / matrix;
        if one && self.held == Some((at, len)) {
            return &self.values;
        }
        self.held = one.then_some((at, len));
        self.values.clear();
        self.values.extend_from_slice(&entry.means[at..at + left]);
        let mut next = range.start + left as u64;
        while next < range.end {
            let (at, n) = (self.of.index(next), (range.end - next).min(*cols));
            self.values.extend_from_slice(&entry.means[at..at + n as usize]);
            next += n;
        }
        &self.values
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn statistics(means: Vec<f32>) -> Statistics {
        let entry = Arc::new(Entry { means, counts: vec![1] });
        Statistics {
            file: "x.gguf".into(),
            entries: [("a".to_string(), entry)].into(),
            ..Statistics::default()
        }
    }

    proptest! {
        #[test]
        fn every_weight_has_its_columns_importance(
            (matrices, rows, cols) in (1..4u64, 1..5u64, 1..9u64),
            cuts in proptest::collection::vec((0..200u64, 1..60u64), 1..20),
        ) {
            let s = statistics((0..matrices * cols).map(|i| i as f32).collect());
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
    fn another_size_is_said_with_both_numbers() {
        let s = statistics(vec![1.0; 12]);
        assert!(s.importance("b", &[4, 12]).unwrap().is_none());
        assert!(s.importance("a", &[12]).unwrap().is_some());
        let text = |shape: &[u64]| s.importance("a", shape).unwrap_err().to_string();
        assert_eq!(text(&[4, 16]), "x.gguf: a has 12 values, but in the model it has 16 (16 columns)");
        assert_eq!(
            text(&[2, 4, 12]),
            "x.gguf: a has 12 values, but in the model it has 24 (12 columns of 2 matrices)"
        );
        // Stacked matrices may have one size with one matrix of more columns; nothing tells them apart.
        assert!(s.importance("a", &[3, 5, 4]).unwrap().is_some());
        assert!(s.importance("a", &[0, 5, 12]).is_err());
    }
}
