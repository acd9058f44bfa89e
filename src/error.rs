//! The errors of the library: what is wrong, where, and what can be done about it.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

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
    /// An infinite or undefined number.
    #[error("tensor {tensor}: {} is {value}", weight.map_or("its scale".into(), |i| format!("weight {i}")))]
    NotFinite {
        /// The tensor's name.
        tensor: String,
        /// The index of the weight in the tensor, row by row; `None` for the scale of the whole tensor.
        weight: Option<u64>,
        /// The number.
        value: f32,
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
    #[error("{}: has settings but no weights", path.display())]
    NoWeights {
        /// The folder.
        path: PathBuf,
    },
    /// A model without a tokenizer, where one is needed.
    #[error("{}has no tokenizer (tokenizer.ggml.model)", path.as_ref().map_or("the model ".into(), |p| format!("{}: ", p.display())))]
    NoTokenizer {
        /// The model, where its path is known.
        path: Option<PathBuf>,
    },
    /// A kind of tokenizer that is not supported.
    #[error("tokenizer kind {name:?} is not supported")]
    UnknownTokenizer {
        /// The value of `tokenizer.ggml.model`.
        name: String,
        /// The supported kinds, separated by commas.
        known: &'static str,
    },
    /// A pre-tokenizer that is not known: a name in a GGUF, or the splitting rules of a tokenizer.json.
    #[error("{what}")]
    UnknownPreTokenizer {
        /// The name, or the file and its rules.
        what: String,
        /// What to do about it, with the known names.
        hint: String,
    },
    /// A vocabulary in a GGUF that is damaged or incomplete.
    #[error("{why}")]
    InvalidVocabulary {
        /// The key, what was expected and what was found.
        why: String,
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
    #[error("{}: no .safetensors file in this folder", folder.display())]
    NoModel {
        /// The folder.
        folder: PathBuf,
        /// Whether it is a model's folder in the hub's cache, which has checkpoints in `snapshots/`.
        hub_cache: bool,
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
    /// A file that another process is writing.
    #[error("{}: another process is writing this file", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// Not enough free space for a result.
    #[error("{}: not enough space: {} needed, {} free", path.display(), crate::text::bytes(*needed), crate::text::bytes(*free))]
    NoSpace {
        /// The first file of the result.
        path: PathBuf,
        /// Bytes of the result.
        needed: u64,
        /// Bytes that are free on its file system.
        free: u64,
    },
    /// An output path that is one of the inputs. Wrong usage.
    #[error("{}: is an input of this run and cannot be its output", path.display())]
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
}

/// The first of several names, how many follow, and the verb for them: "a is", "a and 2 more are".
fn several(names: &[String], one: &str, more: &str) -> String {
    match names {
        [] => format!("(unnamed) {one}"),
        [name] => format!("{name} {one}"),
        [name, rest @ ..] => format!("{name} and {} more {more}", rest.len()),
    }
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

    /// What the user can do about it.
    pub fn hint(&self) -> Option<Cow<'_, str>> {
        const ORIGINAL: &str = "start from the original weights, in bf16, f16 or f32";
        const DAMAGED: &str = "the file is damaged; download or convert it again";
        let text = match self {
            Self::Refused { hint, .. } | Self::Usage { hint, .. } => return hint.as_deref().map(Cow::from),
            Self::UnknownArchitecture { known, .. } => return Some(format!("supported: {known}").into()),
            Self::UnknownTokenizer { known, .. } => return Some(format!("supported: {known}").into()),
            Self::UnknownPreTokenizer { hint, .. } => hint,
            Self::SplitPart { part, count, .. } => {
                let stem =
                    formats::container::part_stem("NAME", part.saturating_sub(1) as usize, *count as usize);
                return Some(format!("name it {stem}.gguf, in the folder of the other parts").into());
            }
            Self::UnsupportedQuantization { .. } => ORIGINAL,
            Self::MissingTensors { .. } => {
                "check that no file of the model is missing, and that config.json belongs to these weights"
            }
            Self::UnexpectedTensors { .. } => {
                "check that config.json names the right architecture, and that all files belong to one model"
            }
            Self::WrongShape { .. } => "check that the settings (config.json) belong to these weights",
            Self::UnsupportedType { operation, .. } if *operation == FROM_CHECKPOINT => ORIGINAL,
            Self::NotFinite { .. } | Self::InvalidCode { .. } => DAMAGED,
            Self::NoWeights { .. } => {
                "without weights only --dry-run works; weights are read from .safetensors files"
            }
            Self::NoTokenizer { .. } => "for a llama2.c checkpoint, name its tokenizer.bin: --tokenizer FILE",
            Self::VocabularyMismatch { .. } => {
                "the tokenizer's files and the weights belong to different models; take both from one checkpoint"
            }
            Self::NoChatTemplate => {
                "leave out --chat to continue a text, or set a template with `ggufkit edit --set-file \
                 tokenizer.chat_template:str=FILE`"
            }
            Self::ChatTemplate { .. } => {
                "leave out --chat to continue a text that is written in the model's own chat format"
            }
            Self::UnknownToken { .. } => "check that the tokenizer belongs to this model",
            Self::NoModel { hub_cache: true, .. } => {
                "this is the hub's cache: name the folder in snapshots/ that has a config.json"
            }
            Self::NoModel { .. } => "name the file itself if it is a GGUF or a llama2.c checkpoint",
            Self::LfsPointer { .. } => "run `git lfs pull` in its folder, or download the file from the hub",
            Self::NotWritable { .. } => {
                "name a regular file: a model is written at many offsets, which devices and pipes do not allow"
            }
            Self::NoSpace { .. } => "free some space or write to another disk; nothing was changed",
            Self::WouldOverwrite { .. } => "write to another file",
            Self::Io { source, what, .. } => match source.kind() {
                io::ErrorKind::StorageFull => "free some space or write to another disk",
                io::ErrorKind::PermissionDenied => "check the permissions of the file and its folder",
                io::ErrorKind::ReadOnlyFilesystem => "write to another folder",
                io::ErrorKind::NotFound if *what == "create" => {
                    "check the path; missing folders are not created"
                }
                io::ErrorKind::NotFound => "check the path",
                _ => return None,
            },
            Self::Statistics(e) => match fault(e) {
                Some(calibration::Fault::Mismatch { .. } | calibration::Fault::Unlike { .. }) => {
                    "an imatrix belongs to one model, or to others with the same tensor names and shapes"
                }
                Some(calibration::Fault::NotAnImatrix(_)) => {
                    "`ggufkit calibrate MODEL TEXT -o FILE` makes one, as does llama-imatrix"
                }
                _ => return None,
            },
            _ => return None,
        };
        Some(text.into())
    }

    /// The process's exit status: 2 for wrong usage, 1 for everything else.
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Self::Usage { .. } | Self::WouldOverwrite { .. }) { 2 } else { 1 }
    }
}

/// The operation of [`Error::UnsupportedType`] for weights of a checkpoint.
pub(crate) const FROM_CHECKPOINT: &str = "read as a checkpoint's weights";

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_place_and_hints_the_way_on() {
        let names = ["a.weight".to_string(), "b.weight".into(), "c.weight".into()];
        let missing = |n: usize| Error::MissingTensors { file: "m".into(), names: names[..n].to_vec() };
        assert_eq!(missing(1).to_string(), "m: tensor a.weight is missing");
        assert_eq!(missing(3).to_string(), "m: tensor a.weight and 2 more are missing");
        let scale = Error::NotFinite { tensor: "t".into(), weight: None, value: f32::NAN };
        assert_eq!(scale.to_string(), "tensor t: its scale is NaN");
        let part = Error::SplitPart { file: "x.gguf".into(), part: 2, count: 3 };
        assert!(part.hint().unwrap().contains("NAME-00002-of-00003.gguf"), "{:?}", part.hint());
        let overwrite = Error::WouldOverwrite { path: "x".into() };
        assert_eq!((overwrite.exit_code(), missing(1).exit_code()), (2, 1));
        assert_eq!(Error::usage("x").or("y").hint().as_deref(), Some("y"));
        assert_eq!(Error::Busy { path: "x".into() }.or("ignored").hint(), None);
    }
}
