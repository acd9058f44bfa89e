//! What is wrong with a model file: its name, the byte, and the fault.

/// The result of every reader and writer in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A fault in a file, with the byte at which it is.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
#[error("{file}: {fault}{}", .at.map(|at| format!(" (at byte {at})")).unwrap_or_default())]
pub struct Error {
    /// The file's name, as the caller gave it in [`Input`](crate::model::Input).
    pub file: String,
    /// The offset in the file at which the faulty item starts, where it has one.
    pub at: Option<u64>,
    /// What is wrong.
    pub fault: Fault,
}

impl Error {
    /// A fault at a byte of a file.
    pub fn at(file: &str, at: u64, fault: Fault) -> Self {
        Self { file: file.to_string(), at: Some(at), fault }
    }

    /// A fault of the file as a whole.
    pub fn of(file: &str, fault: Fault) -> Self {
        Self { file: file.to_string(), at: None, fault }
    }
}

/// Everything that can be wrong with a model file, or with a model that is to be written as one. A caller that reads a
/// file piece by piece acts on [`Fault::More`]; the others are for people to read.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// None of the formats that this crate reads.
    #[error("not a model file: {0}")]
    NotAModel(String),
    /// A file of PyTorch's with several dictionaries of tensors, of which none has a usual name.
    #[error("has several dictionaries of tensors, {}{}, and which of them is the model is not known", under.join(", "),
        if *more > 0 { format!(" and {more} more") } else { String::new() })]
    SeveralStates {
        /// The keys that lead to the first of them, as Python writes them: `["model"]["net"]`.
        under: Vec<String>,
        /// How many there are besides.
        more: usize,
    },
    /// A version of a format that this crate does not read.
    #[error("{format} version {found} is not supported (known: {known})")]
    Version {
        /// The container.
        format: &'static str,
        /// The version in the file.
        found: u32,
        /// The versions that are read.
        known: &'static str,
    },
    /// An item ends beyond the end of the file.
    #[error("{what} ends at byte {end}, but the file has {len} bytes (truncated download?)")]
    Ends {
        /// The item.
        what: String,
        /// The offset of the first byte after the item.
        end: u64,
        /// The file's length.
        len: u64,
    },
    /// The item is in the file, but beyond the bytes that the reader was given: call again with at least so many. Callers
    /// that give the whole file never see this.
    #[error("the first {0} bytes of the file are needed")]
    More(u64),
    /// A declared length or count that cannot be right.
    #[error("{what} is {found}, expected at most {most}")]
    TooMany {
        /// What is counted.
        what: String,
        /// The number in the file.
        found: u64,
        /// The largest number that could be right.
        most: u64,
    },
    /// Text that is not UTF-8 where the format requires it, or empty where it must not be.
    #[error("{what} is {problem}")]
    Text {
        /// The item.
        what: String,
        /// "empty", "not UTF-8", ...
        problem: String,
    },
    /// A metadata value type that GGUF does not have.
    #[error("metadata key {key} has value type {found}, expected 0 to 12")]
    ValueType {
        /// The key.
        key: String,
        /// The number in the file.
        found: u32,
    },
    /// An array of arrays: in the GGUF specification, but in no known file and supported by no reader.
    #[error("metadata key {0} is an array of arrays, which no GGUF reader supports")]
    NestedArray(String),
    /// Two items of the same name where names must be unique.
    #[error("{what} {name:?} appears twice")]
    Duplicate {
        /// "metadata key" or "tensor".
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A tensor type that is unknown or was removed.
    #[error("tensor {tensor} has type {id}: {why}")]
    TensorType {
        /// The tensor.
        tensor: String,
        /// The type number, or name, in the file.
        id: String,
        /// What the type was, or that it is unknown.
        why: String,
    },
    /// A shape that the format cannot hold, or whose size overflows.
    #[error("tensor {tensor} has shape {shape:?}: {why}")]
    Shape {
        /// The tensor.
        tensor: String,
        /// Outermost dimension first.
        shape: Vec<u64>,
        /// What is wrong with it.
        why: String,
    },
    /// Tensor data that does not follow the data of the tensor before.
    #[error("tensor {tensor} has offset {found}, expected {expected}")]
    Offset {
        /// The tensor.
        tensor: String,
        /// The offset in the file.
        found: u64,
        /// The offset that the format requires.
        expected: u64,
    },
    /// A `general.alignment` that is not a power of two.
    #[error("general.alignment must be a power of two (found {0})")]
    Alignment(u64),
    /// A metadata value of the wrong type, or out of range.
    #[error("metadata key {key}: {why}")]
    Metadata {
        /// The key.
        key: String,
        /// What was expected and what was found.
        why: String,
    },
    /// A header that is malformed: the JSON of a safetensors file or of its index, the numbers of a llama2.c checkpoint.
    #[error("malformed header: {0}")]
    Header(String),
    /// The files of a split model that do not belong together.
    #[error("{0}")]
    Split(String),
    /// A model that the target format cannot hold, or a file that its programs cannot use.
    #[error("{0}")]
    Unsupported(String),
}

impl From<crate::metadata::WrongValue> for Fault {
    fn from(e: crate::metadata::WrongValue) -> Self {
        Self::Metadata { key: e.key, why: format!("must be {} (found {})", e.expected, e.found) }
    }
}
