//! What is wrong with statistics, or why they do not belong to a model.

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// A fault in a file of statistics, with the byte at which it is.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// The file is truncated, or its container is malformed.
    #[error(transparent)]
    Format(#[from] formats::Error),
    /// The content is invalid, or does not belong to the model.
    #[error("{file}: {fault}{}", .at.map(|at| format!(" (at byte {at})")).unwrap_or_default())]
    Statistics {
        /// The file's name, as the caller gave it.
        file: String,
        /// The offset in the file, where there is one.
        at: Option<u64>,
        /// What is wrong.
        fault: Fault,
    },
}

impl Error {
    /// A fault at a byte of a file, or of the file as a whole.
    pub(crate) fn new(file: &str, at: Option<u64>, fault: Fault) -> Self {
        Self::Statistics { file: file.to_string(), at, fault }
    }
}

/// Everything that can be wrong with statistics, except for their container.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// A file of another kind.
    #[error("not an imatrix: {0}")]
    NotAnImatrix(String),
    /// One of several files, which has a part of the entries.
    #[error("is part {no} of {count} of an importance matrix that was split")]
    Part {
        /// Which part it is, from 1.
        no: u64,
        /// How many there are.
        count: u64,
    },
    /// An entry of which one of the two tensors is missing.
    #[error("{entry} has {has} but no {lacks}")]
    Incomplete {
        /// The tensor that was measured.
        entry: String,
        /// The suffix of the tensor that is there.
        has: &'static str,
        /// The suffix of the missing one.
        lacks: &'static str,
    },
    /// A tensor of another type than f32.
    #[error("{tensor} is {found}, expected f32")]
    Type {
        /// The tensor in the file of statistics.
        tensor: String,
        /// Its type.
        found: String,
    },
    /// An entry without values, or with a number of counts that does not divide them.
    #[error(
        "{entry} has {values} values and {counts} counts, expected the same number of values for each count"
    )]
    Sizes {
        /// The tensor that was measured.
        entry: String,
        /// The number of its values.
        values: u64,
        /// The number of its counts.
        counts: u64,
    },
    /// A mean square or a count that is negative or not finite.
    #[error("value {index} of {tensor} must be finite and not negative (found {value})")]
    Value {
        /// The tensor in the file of statistics, or the entry.
        tensor: String,
        /// The index of the number.
        index: u64,
        /// The number.
        value: f64,
    },
    /// Measurements of a matrix of another size.
    #[error("{tensor} has {found} values, but in the model it has {} ({cols} columns{})", .cols.saturating_mul(*.matrices),
        if *.matrices > 1 { format!(" of {matrices} matrices") } else { String::new() })]
    Mismatch {
        /// The tensor.
        tensor: String,
        /// Values in the file.
        found: u64,
        /// Columns in the model.
        cols: u64,
        /// Matrices that are stacked in the tensor.
        matrices: u64,
    },
    /// Two files whose entries have different sizes.
    #[error(
        "{entry} has {values} values and {counts} counts, but in {other} {other_values} and {other_counts}"
    )]
    Unlike {
        /// The tensor that was measured.
        entry: String,
        /// The number of its values.
        values: u64,
        /// The number of its counts.
        counts: u64,
        /// The other file.
        other: String,
        /// The number of its values there.
        other_values: u64,
        /// The number of its counts there.
        other_counts: u64,
    },
    /// A sum that is too large for f32.
    #[error("the sum of value {index} of {entry} and the one in {other} is too large for f32")]
    Overflow {
        /// The tensor that was measured.
        entry: String,
        /// The index of the number.
        index: u64,
        /// The other file.
        other: String,
    },
    /// Statistics that a kind of file cannot hold.
    #[error("cannot be written: {0}")]
    Unwritable(String),
}
