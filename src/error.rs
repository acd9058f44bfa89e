//! The errors of the library: what is wrong, where, and what can be done about it.

mod hint;
mod too_little_memory;

use std::io;
use std::path::{Path, PathBuf};

pub use too_little_memory::TooLittleMemory;

/// The result of every stage.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed stage.
///
/// Errors that a caller may want to act on are variants with their context; [`Error::Refused`] and [`Error::Usage`] are
/// the rest, with their text. [`Error::hint`] says what a user can do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An architecture that is not supported: a class in config.json's `architectures`, or a GGUF's
    /// `general.architecture`.
    #[error("{}: architecture {name:?} is not supported", file.display())]
    UnknownArchitecture {
        /// The file that names it.
        file: PathBuf,
        /// The architecture's name.
        name: String,
        /// The supported names, separated by commas.
        known: String,
    },
    /// A setting of config.json, or of a GGUF's metadata, that is missing, invalid or not supported.
    #[error("{}: {why}", file.display())]
    InvalidConfig {
        /// The file.
        file: PathBuf,
        /// The setting, what was expected and what was found.
        why: String,
    },
    /// A checkpoint that is quantized by a method that is not supported.
    #[error("{}: {why}", file.display())]
    UnsupportedQuantization {
        /// The config.json.
        file: PathBuf,
        /// The method, and what is not supported of it.
        why: String,
    },
    /// A model that lacks tensors.
    #[error("{}: tensor {} missing", file.display(), several(names, "is", "are"))]
    MissingTensors {
        /// The file or folder.
        file: PathBuf,
        /// The tensors' names, at least one.
        names: Vec<String>,
    },
    /// Tensors that are not part of the model's architecture.
    #[error("{}: tensor {} not part of the architecture {architecture}", file.display(), several(names, "is", "are"))]
    UnexpectedTensors {
        /// The file or folder.
        file: PathBuf,
        /// The tensors' names, at least one.
        names: Vec<String>,
        /// The architecture's name in GGUF or its class in transformers.
        architecture: String,
    },
    /// Tensors that the computation of the model's architecture does not read, so that it would be that of another model.
    #[error("{}: tensor {} no part of the architecture {architecture} with {layers} layers", file.display(), several(names, "is", "are"))]
    UnreadTensors {
        /// The file.
        file: PathBuf,
        /// The tensors' names, at least one.
        names: Vec<String>,
        /// The architecture's name in GGUF.
        architecture: String,
        /// The number of layers that the metadata states.
        layers: u64,
    },
    /// A tensor whose shape contradicts the model's settings.
    #[error("tensor {tensor}: expected shape {expected:?}, found {found:?}")]
    WrongShape {
        /// The tensor's name.
        tensor: String,
        /// The shape that the settings ask for, outermost dimension first.
        expected: Vec<u64>,
        /// The shape in the file.
        found: Vec<u64>,
    },
    /// A tensor type that cannot be used in this way.
    #[error("tensor {tensor}: type {dtype} cannot be {operation}")]
    UnsupportedType {
        /// The tensor's name.
        tensor: String,
        /// The type's name.
        dtype: String,
        /// "decoded", "encoded", ...
        operation: &'static str,
    },
    /// A weight is NaN or infinite, or the scale of a tensor.
    #[error("tensor {tensor}: {} is {}", which(*weight, *row), value.map_or("NaN or infinite".into(), |x| x.to_string()))]
    NotFinite {
        /// The tensor's name.
        tensor: String,
        /// The index of the weight in the tensor, row by row; `None` for the scale of the whole tensor. The first weight of
        /// its block if `value` is not known.
        weight: Option<u64>,
        /// The row of the weight, if the tensor has rows.
        row: Option<u64>,
        /// The number; `None` if only the scale of the weight's block was looked at.
        value: Option<f32>,
    },
    /// A two-bit code of a ternary tensor that stands for no weight.
    #[error("tensor {tensor}: weight {weight} has the code 3; ternary codes are 0, 1 and 2")]
    InvalidCode {
        /// The tensor's name.
        tensor: String,
        /// The index of the weight in the tensor, row by row.
        weight: u64,
    },
    /// Settings without weights, where weights are needed.
    #[error("{}: has settings but no weights{}", path.display(), only(what))]
    NoWeights {
        /// The folder.
        path: PathBuf,
        /// What is there in their place; empty if nothing is known.
        what: String,
        /// The way from there to a model; empty if there is none.
        hint: String,
    },
    /// A vocabulary that cannot be used, or none where one is needed.
    #[error("{}", of_model(path.as_deref(), error))]
    Vocabulary {
        /// The model, where its path is known.
        path: Option<PathBuf>,
        /// What is wrong with it.
        error: tokenizer::Error,
    },
    /// A file that was given for a text and is none.
    #[error("{name}: this is {what}, not a text")]
    NotAText {
        /// The file.
        name: String,
        /// What it is.
        what: String,
        /// How to make a text of it.
        hint: String,
    },
    /// A tokenizer with ids for which the token embedding has no rows.
    #[error("{file}: token id {id} is out of range: the token embedding has {rows} rows")]
    VocabularyMismatch {
        /// The tokenizer's file.
        file: String,
        /// The largest id.
        id: u32,
        /// Rows of the token embedding.
        rows: usize,
    },
    /// A model without a chat template, where one is needed.
    #[error("the model has no chat template (tokenizer.chat_template)")]
    NoChatTemplate,
    /// A chat template that is damaged, refuses the messages or does not end.
    #[error("{why}")]
    ChatTemplate {
        /// What is wrong, with the line where that is known.
        why: String,
    },
    /// A token id outside of the vocabulary.
    #[error("token {token} is out of range: the vocabulary has {vocabulary} tokens")]
    UnknownToken {
        /// The id.
        token: u32,
        /// The size of the vocabulary.
        vocabulary: usize,
    },
    /// More tokens than the KV cache has room for.
    #[error("{tokens} tokens do not fit into a context of {context}")]
    ContextFull {
        /// Tokens of the sequence, with those that were to be added.
        tokens: usize,
        /// The capacity of the KV cache.
        context: usize,
    },
    /// A folder without a model.
    #[error("{}: no weights in this folder{}", folder.display(), only(what))]
    NoModel {
        /// The folder.
        folder: PathBuf,
        /// What is there in their place; empty if nothing is known.
        what: String,
        /// The way from there to a model; empty if there is none.
        hint: String,
    },
    /// One part of a split model whose name is not that of a part, so that the others cannot be found.
    #[error("{file}: is part {part} of {count} of a split model, but is not named like one")]
    SplitPart {
        /// The file.
        file: String,
        /// The part's number, counted from 1.
        part: u64,
        /// The number of parts.
        count: u64,
    },
    /// A part of a split model that is not there.
    #[error("{}: part {part} of {count} of the model is missing{}", folder.join(name).display(),
        if *missing > 1 { format!(", and {} more of its parts", missing - 1) } else { String::new() })]
    MissingPart {
        /// The part's file name.
        name: String,
        /// The folder in which it was looked for.
        folder: PathBuf,
        /// The part's number, counted from 1.
        part: usize,
        /// The number of parts.
        count: usize,
        /// How many parts are not there, at least this one.
        missing: usize,
    },
    /// A path to read that is a folder, a device or a pipe.
    #[error("{}: is not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// A Git LFS pointer in place of the file.
    #[error("{}: is a Git LFS pointer; the file itself was not downloaded", path.display())]
    LfsPointer {
        /// The file.
        path: PathBuf,
    },
    /// A path to write that is a folder, a device or a pipe.
    #[error("{}: cannot write a regular file here", path.display())]
    NotWritable {
        /// The path.
        path: PathBuf,
    },
    /// A folder where a file is to be written. Wrong usage.
    #[error("{}: is a folder{}, and {what} is one file", path.display(), if path.is_dir() { "" } else { ", by the / at its end" })]
    IsAFolder {
        /// The path.
        path: PathBuf,
        /// What was to be written: "an importance matrix".
        what: &'static str,
        /// A usual name of such a file.
        usual: &'static str,
    },
    /// A file that was rewritten while the run read it, so that a result would be of two states of it.
    #[error("{}: has changed while it was read, so the result would be of two states of it", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// Not enough free space for a result.
    #[error("{}: not enough space: {} needed, {} free", path.display(), crate::text::bytes(*need), crate::text::bytes(*free))]
    NoSpace {
        /// The first file of the result.
        path: PathBuf,
        /// Bytes of the result.
        need: u64,
        /// Bytes that are free on its file system.
        free: u64,
    },
    /// An output path that is one of the inputs. Wrong usage.
    #[error("{}: is read in this run and cannot be its output", path.display())]
    WouldOverwrite {
        /// The input.
        path: PathBuf,
    },
    /// A file that does not follow its format, or a format that cannot hold the model.
    #[error(transparent)]
    Format(#[from] formats::Error),
    /// A file of activation statistics that does not follow its format, or does not belong to the model.
    #[error(transparent)]
    Statistics(Box<calibration::Error>), // boxed: it holds two files' names and sizes, and every result has its size
    /// A file operation that failed.
    #[error("{}: cannot {what}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// "open", "read", "write", "create", ...
        what: &'static str,
        /// The operating system's error.
        source: io::Error,
    },
    /// Anything else that is wrong with the input or not supported.
    #[error("{why}")]
    Refused {
        /// What is wrong.
        why: String,
        /// What the user can do about it.
        hint: Option<String>,
    },
    /// Wrong usage: options that contradict each other or the files.
    #[error("{why}")]
    Usage {
        /// What is wrong.
        why: String,
        /// What the user can do about it.
        hint: Option<String>,
    },
    /// A check that found a problem, which has been reported.
    #[error("{0}")]
    Failed(String),
    /// A figure that was measured, and reported, is beyond the limit that the user gave it.
    #[error("{0}")]
    LimitMissed(String),
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
    /// A text that does not fill the chunks that are needed of it.
    #[error("{name}: has {found} token{}, but chunks of {context} tokens ({option}) need at least {need}", if *found == 1 { "" } else { "s" })]
    TextTooShort {
        /// The text's name.
        name: String,
        /// Its tokens.
        found: usize,
        /// Tokens per chunk.
        context: usize,
        /// The tokens that it should have at least.
        need: usize,
        /// The longest context for which it is long enough, if there is one.
        shorter: Option<usize>,
        /// The option that sets the context.
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
    /// No file of any choice of types is as small as was asked for.
    #[error("{asked} is too little: the smallest possible is {smallest}")]
    BudgetTooSmall {
        /// What was asked for, with its unit.
        asked: String,
        /// What the smallest types give, with its unit.
        smallest: String,
        /// The option that asks for that.
        enough: String,
        /// A question whether another unit is meant.
        unit: Option<Box<str>>,
        /// What would let the types get so small, as was found out: each a change of the options.
        ways: Vec<String>,
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
    /// What was measured on one model is given for another.
    #[error("{what} were measured on another model, {name}: its weights are not those of {}", path.display())]
    OtherModel {
        /// What was measured, with its file: "s.json: the sensitivities".
        what: String,
        /// The name of the file or folder of the model that it was measured on.
        name: String,
        /// The model that it is given for.
        path: PathBuf,
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

/// The first of several names, how many follow, and the verb for them: "a is", "a and 2 more are".
fn several(names: &[String], one: &str, more: &str) -> String {
    match names {
        [] => format!("(unnamed) {one}"),
        [name] => format!("{name} {one}"),
        [name, rest @ ..] => format!("{name} and {} more {more}", rest.len()),
    }
}

/// What is in a folder in place of weights: ", only a.pth".
fn only(what: &str) -> String {
    if what.is_empty() { String::new() } else { format!(", only {what}") }
}

impl Error {
    /// A failed file operation (`what`: "open", "read", ...) on a path.
    pub fn io(path: &Path, what: &'static str, source: io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), what, source }
    }

    /// [`Error::Refused`] without a hint.
    pub fn refused(why: impl Into<String>) -> Self {
        Self::Refused { why: why.into(), hint: None }
    }

    /// [`Error::Usage`] without a hint.
    pub fn usage(why: impl Into<String>) -> Self {
        Self::Usage { why: why.into(), hint: None }
    }

    /// Adds a hint to [`Error::Refused`] or [`Error::Usage`]. The other variants have their own.
    #[must_use]
    pub fn or(mut self, text: impl Into<String>) -> Self {
        if let Self::Refused { hint, .. } | Self::Usage { hint, .. } = &mut self {
            *hint = Some(text.into());
        }
        self
    }

    /// The process's exit status: 2 for wrong usage, 3 for a limit that a measurement missed, 1 for everything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage { .. }
            | Self::WouldOverwrite { .. }
            | Self::IsAFolder { .. }
            | Self::ContextTooLong { .. } => 2,
            Self::LimitMissed(_) => 3,
            _ => 1,
        }
    }
}

/// What an importance matrix consists of, in [`Error::OtherModel`].
pub(crate) const IMPORTANCE: &str = "importances";

/// The operation of [`Error::UnsupportedType`] for weights of a checkpoint.
pub(crate) const FROM_CHECKPOINT: &str = "read as a checkpoint's weights";

/// Which number of a tensor an error is about.
fn which(weight: Option<u64>, row: Option<u64>) -> String {
    match (weight, row) {
        (Some(weight), Some(row)) => format!("weight {weight} (row {row})"),
        (Some(weight), None) => format!("weight {weight}"),
        (None, _) => "its scale".into(),
    }
}

/// What is wrong with a vocabulary; a model's path stands in place of "the model".
fn of_model(path: Option<&Path>, error: &tokenizer::Error) -> String {
    let text = error.to_string();
    match path {
        Some(path) => format!("{}: {}", path.display(), text.strip_prefix("the model ").unwrap_or(&text)),
        None => text,
    }
}

impl From<tokenizer::Error> for Error {
    fn from(error: tokenizer::Error) -> Self {
        Self::Vocabulary { path: None, error }
    }
}

impl From<calibration::Error> for Error {
    fn from(e: calibration::Error) -> Self {
        Self::Statistics(Box::new(e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_place_and_hints_the_way_on() {
        let names = ["a.weight".to_string(), "b.weight".into(), "c.weight".into()];
        let missing = |n: usize| Error::MissingTensors { file: "m".into(), names: names[..n].to_vec() };
        assert_eq!(missing(1).to_string(), "m: tensor a.weight is missing");
        assert_eq!(missing(3).to_string(), "m: tensor a.weight and 2 more are missing");
        let scale = Error::NotFinite { tensor: "t".into(), weight: None, row: None, value: Some(f32::NAN) };
        assert_eq!(scale.to_string(), "tensor t: its scale is NaN");
        let part = Error::SplitPart { file: "x.gguf".into(), part: 2, count: 3 };
        assert!(part.hint().unwrap().contains("NAME-00002-of-00003.gguf"), "{:?}", part.hint());
        let overwrite = Error::WouldOverwrite { path: "x".into() };
        assert_eq!((overwrite.exit_code(), missing(1).exit_code()), (2, 1));
        assert_eq!(Error::usage("x").or("y").hint().as_deref(), Some("y"));
        assert_eq!(
            Error::NoModel { folder: "x".into(), what: "a".into(), hint: "b".into() }
                .or("ignored")
                .hint()
                .as_deref(),
            Some("b")
        );
    }
}
