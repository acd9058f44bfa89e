//! What can go wrong in a stage, and the way out where there is one.

mod too_little_memory;

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

use crate::text;

pub use too_little_memory::TooLittleMemory;

/// The result of every stage.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed stage.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file is not what its format wants, or a format cannot hold the model.
    #[error(transparent)]
    Format(#[from] formats::Error),
    /// A file of statistics is not what its format wants, or not of the model.
    #[error(transparent)]
    Statistics(Box<calibration::Error>), // with two files' names and sizes it is large, and results are everywhere
    /// The system refused.
    #[error("{path}: cannot {what}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// "open", "read", "write", ...
        what: &'static str,
        /// The system's words.
        source: io::Error,
    },
    /// Something that this tool will not do.
    #[error("{why}")]
    Refused {
        /// The reason.
        why: String,
        /// The way out.
        hint: Option<String>,
    },
    /// Options that contradict each other or the files.
    #[error("{why}")]
    Usage {
        /// The reason.
        why: String,
        /// The way out.
        hint: Option<String>,
    },
    /// A check found something. What it found has been reported.
    #[error("{0}")]
    Failed(String),
    /// A weight is NaN or infinite.
    #[error("tensor {tensor}: weight {index} (row {row}) is {}", .value.map_or("NaN or infinite".into(), |x| x.to_string()))]
    NotFinite {
        /// The tensor's name.
        tensor: String,
        /// The weight's index in the tensor, rows one after another; the first of its block if `value` is not known.
        index: u64,
        /// The row that it is in.
        row: u64,
        /// The weight; `None` if only its block's scale was looked at.
        value: Option<f32>,
    },
    /// An activation overflowed while the model was run on a text.
    #[error("the inputs of {matrix} are not finite on this text")]
    InputsNotFinite {
        /// The name of the matrix that takes these inputs.
        matrix: String,
    },
    /// A weight is too large for the type that its tensor was to get.
    #[error("tensor {tensor}: weight {index} is {value}, which {encoding} cannot hold")]
    OutOfRange {
        /// The tensor's name.
        tensor: String,
        /// The weight's index in the tensor, rows one after another.
        index: u64,
        /// The weight.
        value: f32,
        /// The name of the type.
        encoding: String,
    },
    /// The disk has too little free space for the output.
    #[error("{}: {} needed, {} free", .path.display(), text::bytes(*.need), text::bytes(*.free))]
    NoSpace {
        /// The first output file.
        path: PathBuf,
        /// Bytes of all output files together.
        need: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// A text that does not fill the chunks that are needed of it.
    #[error("{name} has {found} tokens: a context of {context} tokens needs at least {need}")]
    TextTooShort {
        /// The text's name.
        name: String,
        /// Its tokens.
        found: usize,
        /// Tokens per chunk.
        context: usize,
        /// The tokens that it should have at least.
        need: usize,
        /// The options that set the context.
        option: &'static str,
    },
    /// A context that is longer than the model's.
    #[error("--context {context}: the model's context length is {limit} tokens")]
    ContextTooLong {
        /// The context that was asked for, in tokens.
        context: u64,
        /// The model's context length.
        limit: u64,
    },
    /// A text was tokenized with another model's vocabulary.
    #[error("token {token} is not in the vocabulary of {vocab} tokens")]
    UnknownToken {
        /// The token's number.
        token: u32,
        /// Tokens of the vocabulary.
        vocab: usize,
    },
    /// No file of any choice of types is as small as was asked for.
    #[error("{asked} is too little: the smallest possible is {smallest}")]
    BudgetTooSmall {
        /// What was asked for, with its unit.
        asked: String,
        /// What the smallest types give, with its unit.
        smallest: String,
        /// How the types could get smaller.
        smaller: &'static str,
    },
    /// No choice of types lets the model run in the memory that was given.
    #[error(transparent)]
    TooLittleMemory(#[from] Box<TooLittleMemory>),
    /// A file of sensitivities lacks a tensor, or has it with another shape.
    #[error("tensor {tensor}: its sensitivity to quantization errors is not known")]
    UnknownSensitivity {
        /// The tensor's name.
        tensor: String,
    },
    /// No type of those to choose from fits a tensor's rows.
    #[error("tensor {tensor}: none of the types to choose from fits its rows of {cols} weights")]
    NoTypeLeft {
        /// The tensor's name.
        tensor: String,
        /// Weights per row.
        cols: u64,
    },
    /// A state folder was written by a run with another model, plan, text or method.
    #[error("{}: holds the state of a different run", .folder.display())]
    OtherState {
        /// The folder.
        folder: PathBuf,
    },
    /// A file in a state folder does not match its checksum, or is cut short.
    #[error("{}: damaged (its checksum does not match)", .path.display())]
    DamagedState {
        /// The file.
        path: PathBuf,
    },
    /// Two models whose predictions cannot be compared.
    #[error("{} and {} have different vocabularies ({why})", .first.display(), .second.display())]
    OtherVocabulary {
        /// One model.
        first: PathBuf,
        /// The other.
        second: PathBuf,
        /// In what they differ.
        why: String,
    },
}

impl Error {
    /// An error of the system at a path.
    pub fn io(path: &Path, what: &'static str, source: io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), what, source }
    }

    /// Something that this tool will not do.
    pub fn refused(why: impl Into<String>) -> Self {
        Self::Refused { why: why.into(), hint: None }
    }

    /// Wrong usage.
    pub fn usage(why: impl Into<String>) -> Self {
        Self::Usage { why: why.into(), hint: None }
    }

    /// The same with a way out.
    #[must_use]
    pub fn or(mut self, way_out: impl Into<String>) -> Self {
        if let Self::Refused { hint, .. } | Self::Usage { hint, .. } = &mut self {
            *hint = Some(way_out.into());
        }
        self
    }

    /// What the reader can do about it.
    pub fn hint(&self) -> Option<Cow<'_, str>> {
        self.hint_with_values().map(Cow::Owned).or_else(|| self.fixed_hint().map(Cow::Borrowed))
    }

    /// Hints with values of the error in them.
    fn hint_with_values(&self) -> Option<String> {
        match self {
            Self::OutOfRange { tensor, .. } => {
                Some(format!("use bf16 or f32 for it: --tensor '^{}$=bf16'", regex::escape(tensor)))
            }
            Self::ContextTooLong { limit, .. } => Some(format!("use --context {limit} or less")),
            Self::TextTooShort { option, .. } => {
                Some(format!("give a longer text or a shorter context ({option})"))
            }
            Self::BudgetTooSmall { smaller, .. } => {
                Some(format!("ask for more, use {smaller}, or take a smaller model"))
            }
            Self::TooLittleMemory(e) => Some(e.hint()),
            _ => None,
        }
    }

    fn fixed_hint(&self) -> Option<&str> {
        match self {
            Self::NotFinite { .. } => {
                Some("ask whoever made the checkpoint; ggufkit verify lists every such tensor")
            }
            Self::InputsNotFinite { .. } => Some(
                "the model overflows on this text; ggufkit verify MODEL lists weights that are NaN or infinite",
            ),
            Self::NoSpace { .. } => Some("free some space or write to another disk; nothing was changed"),
            Self::UnknownToken { .. } => Some("does the tokenizer belong to this model?"),
            Self::UnknownSensitivity { .. } => {
                Some("measure this very model: ggufkit sensitivity MODEL TEXT -o FILE")
            }
            Self::NoTypeLeft { .. } => {
                Some("allow more with --types, f16 for one, or give it one with --tensor REGEX=TYPE")
            }
            Self::OtherState { .. } => Some(
                "the model, the plan, the text or the method has changed: name another folder, or remove this one",
            ),
            Self::DamagedState { .. } => Some("remove the state folder and start again"),
            Self::OtherVocabulary { .. } => Some("compare models that share a tokenizer"),
            Self::Refused { hint, .. } | Self::Usage { hint, .. } => hint.as_deref(),
            Self::Io { source, what, .. } => match source.kind() {
                io::ErrorKind::StorageFull => Some("free some space or write to another disk"),
                io::ErrorKind::PermissionDenied => Some("check the permissions of the file and its folder"),
                io::ErrorKind::ReadOnlyFilesystem => Some("write to another folder"),
                io::ErrorKind::NotFound if *what == "create" => Some("check the path; folders are not made"),
                io::ErrorKind::NotFound => Some("check the path"),
                _ => None,
            },
            Self::Statistics(e) => match fault(e) {
                Some(calibration::Fault::Mismatch { .. } | calibration::Fault::Unlike { .. }) => {
                    Some("an imatrix belongs to one model, or to others of the same shape and names")
                }
                Some(calibration::Fault::NotAnImatrix(_)) => {
                    Some("`ggufkit calibrate MODEL TEXT -o FILE` makes one, as llama-imatrix does")
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// The process's exit status: 2 for wrong usage, 1 for the rest.
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Self::Usage { .. } | Self::ContextTooLong { .. }) { 2 } else { 1 }
    }
}

impl From<calibration::Error> for Error {
    fn from(e: calibration::Error) -> Self {
        Self::Statistics(Box::new(e))
    }
}

fn fault(e: &calibration::Error) -> Option<&calibration::Fault> {
    match e {
        calibration::Error::Statistics { fault, .. } => Some(fault),
        calibration::Error::Format(_) => None,
    }
}
