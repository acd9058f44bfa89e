//! What is wrong with a file: who (file), where (byte), what (fault).

/// The result of every reader and writer in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A fault in a file, with its place.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{file}: {fault}{}", .at.map(|at| format!(" (at byte {at})")).unwrap_or_default())]
pub struct Error {
    /// The file's name, as given by whoever opened it.
    pub file: String,
    /// Byte offset in the file at which the faulty item starts, where there is one.
    pub at: Option<u64>,
    /// What is wrong.
    pub fault: Fault,
}

impl Error {
    /// A fault at a byte of a file.
    pub fn at(file: &str, at: u64, fault: Fault) -> Self {
        Self { file: file.to_string(), at: Some(at), fault }
    }

    /// A fault of a file as a whole.
    pub fn of(file: &str, fault: Fault) -> Self {
        Self { file: file.to_string(), at: None, fault }
    }
}

/// Everything that can be wrong with a model file, or with a model that is to be written as one.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Fault {
    /// Not one of the formats that this crate knows.
    #[error("not a model file: {0}")]
    NotAModel(String),
    /// A version that this crate does not know.
    #[error("{format} version {found} is not supported (known: {known})")]
    Version {
        /// The container.
        format: &'static str,
        /// The version in the file.
        found: u32,
        /// The versions that can be read.
        known: &'static str,
    },
    /// Something reaches beyond the end of the file.
    #[error("{what} ends at byte {end} but the file has {len} (truncated download?)")]
    Ends {
        /// The item.
        what: String,
        /// The byte after the item's last one.
        end: u64,
        /// The file's length.
        len: u64,
    },
    /// The item lies in the file, but beyond the prefix that the reader was given: call again with
    /// at least this many bytes. Never seen by callers who give the whole file.
    #[error("the first {0} bytes of the file are needed")]
    More(u64),
    /// A declared length or count that cannot be true.
    #[error("{what} is {found}, at most {most} can be right here")]
    TooMany {
        /// What is counted.
        what: String,
        /// The number in the file.
        found: u64,
        /// The largest number that could be right.
        most: u64,
    },
    /// Text that is not UTF-8 where the format asks for it, or empty where it must not be.
    #[error("{what} is {problem}")]
    Text {
        /// The item.
        what: String,
        /// "empty", "not UTF-8", ...
        problem: String,
    },
    /// A metadata value type that the format does not have.
    #[error("metadata key {key} has value type {found}, known are 0 to 12")]
    ValueType {
        /// The key.
        key: String,
        /// The number in the file.
        found: u32,
    },
    /// An array of arrays: in the GGUF specification, in no file or reader.
    #[error("metadata key {0} is an array of arrays, which no GGUF reader supports")]
    NestedArray(String),
    /// Two of a kind that must be unique.
    #[error("{what} {name:?} appears twice")]
    Duplicate {
        /// "metadata key" or "tensor".
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A tensor's type number stands for nothing (any more).
    #[error("tensor {tensor} has type {id}: {why}")]
    TensorType {
        /// The tensor.
        tensor: String,
        /// The type number, or name, in the file.
        id: String,
        /// What it was, or that it is unknown.
        why: String,
    },
    /// A shape that the format cannot hold or that overflows.
    #[error("tensor {tensor} has shape {shape:?}: {why}")]
    Shape {
        /// The tensor.
        tensor: String,
        /// Outermost dimension first.
        shape: Vec<u64>,
        /// The rule that it breaks.
        why: String,
    },
    /// Tensor data that is not where the format wants it.
    #[error("tensor {tensor} has offset {found}, expected {expected}")]
    Offset {
        /// The tensor.
        tensor: String,
        /// The offset in the file.
        found: u64,
        /// The only offset that is right.
        expected: u64,
    },
    /// `general.alignment` that is no power of two.
    #[error("alignment {0} is not a power of two")]
    Alignment(u64),
    /// A metadata value that has the wrong type or that makes no sense.
    #[error("metadata key {key}: {why}")]
    Metadata {
        /// The key.
        key: String,
        /// What was found and expected.
        why: String,
    },
    /// The JSON header of a safetensors file or its index.
    #[error("bad header: {0}")]
    Header(String),
    /// The files of a split model do not belong together.
    #[error("{0}")]
    Split(String),
    /// The target format cannot hold this model.
    #[error("{0}")]
    Unsupported(String),
}
