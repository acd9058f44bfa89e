//! What is wrong with statistics, or why they are not about a model.

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// A fault in a file of statistics, with its place.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// The file breaks off, or its container is not what the format wants.
    #[error(transparent)]
    Format(#[from] formats::Error),
    /// What the file says makes no sense, or none for the model.
    #[error("{file}: {fault}{}", .at.map(|at| format!(" (at byte {at})")).unwrap_or_default())]
    Statistics {
        /// The file's name, as given by whoever opened it.
        file: String,
        /// Byte offset in the file, where there is one.
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

/// Everything that can be wrong with statistics but the container that they are filed in.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Fault {
    /// Another kind of file.
    #[error("not an imatrix: {0}")]
    NotAnImatrix(String),
    /// One of the two tensors of an entry is missing.
    #[error("{entry} has {has} but no {lacks}")]
    Half {
        /// The tensor that is measured.
        entry: String,
        /// The suffix that is there.
        has: &'static str,
        /// The suffix that is not.
        lacks: &'static str,
    },
    /// Numbers that are not f32.
    #[error("{tensor} is {found}, expected f32")]
    Type {
        /// The tensor in the file of statistics.
        tensor: String,
        /// Its type.
        found: String,
    },
    /// An entry without values, or with counts that do not go with them.
    #[error("{entry} has {values} values and {counts} counts")]
    Sizes {
        /// The tensor that is measured.
        entry: String,
        /// The number of its values.
        values: u64,
        /// The number of its counts.
        counts: u64,
    },
    /// A mean square or a count that cannot be one.
    #[error("value {index} of {tensor} is {value}: it must be finite and not negative")]
    Value {
        /// The tensor in the file of statistics, or the entry.
        tensor: String,
        /// Which of its numbers, from 0.
        index: u64,
        /// The number.
        value: f64,
    },
    /// Measured on a matrix of another size.
    #[error("{tensor} has {found} values, but in the model it has {} ({cols} columns{})", .cols * .matrices,
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
    /// Statistics that do not go together.
    #[error(
        "{entry} has {values} values and {counts} counts, but in {other} {other_values} and {other_counts}"
    )]
    Unlike {
        /// The tensor that is measured.
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
    /// Sums that f32 cannot hold.
    #[error("value {index} of {entry} and the one in {other} add up to more than f32 can hold")]
    Overflow {
        /// The tensor that is measured.
        entry: String,
        /// Which of its numbers, from 0.
        index: u64,
        /// The other file.
        other: String,
    },
    /// Something that a kind of file has no room for.
    #[error("cannot be written: {0}")]
    Unwritable(String),
}
