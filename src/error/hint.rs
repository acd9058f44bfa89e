//! What a user can do about each error.

use std::borrow::Cow;
use std::io;

use super::{Error, FROM_CHECKPOINT, IMPORTANCE};

impl Error {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<Cow<'_, str>> {
        const ORIGINAL: &str = "start from the original weights, in bf16, f16 or f32";
        const DAMAGED: &str = "the file is damaged; download or convert it again";
        let text = match self {
            Self::Refused { hint, .. } | Self::Usage { hint, .. } => return hint.as_deref().map(Cow::from),
            Self::UnknownArchitecture { known, .. } => return Some(format!("supported: {known}").into()),
            Self::NotAText { hint, .. } => hint,
            Self::SplitPart { part, count, .. } => {
                let stem =
                    formats::container::part_stem("NAME", part.saturating_sub(1) as usize, *count as usize);
                return Some(format!("name it {stem}.gguf, in the folder of the other parts").into());
            }
            Self::MissingPart { folder, count, missing, .. } => {
                let (here, folder) = (count.saturating_sub(*missing), folder.display());
                let are = if here == 1 { "is" } else { "are" };
                return Some(
                    format!("all parts belong into one folder, under their own names: {here} of {count} {are} in {folder}").into(),
                );
            }
            Self::Format(formats::Error { fault: formats::Fault::NotAModel(what), .. })
                if what.starts_with("neither") =>
            {
                "a model is a .gguf, a checkpoint's folder or its .safetensors, or llama2.c's .bin"
            }
            Self::Format(formats::Error { fault: formats::Fault::Ends { .. }, .. }) => {
                "the file is not complete: let its download end, or download or copy it again"
            }
            Self::UnsupportedQuantization { .. } => ORIGINAL,
            Self::MissingTensors { names, .. } if matches!(&names[..], [name] if name.ends_with("lm_head.weight")) => {
                "check that no file of the model is missing; if the token embedding is its output matrix too, write \
                 \"tie_word_embeddings\": true into config.json"
            }
            Self::MissingTensors { file, .. }
                if file.extension().is_some_and(|e| e == "gguf" || e == "bin") =>
            {
                "`ggufkit inspect --tensors FILE` lists what the file has; take the file of the whole model"
            }
            Self::MissingTensors { .. } => {
                "check that no file of the model is missing, and that config.json belongs to these weights"
            }
            Self::UnexpectedTensors { .. } => {
                "`ggufkit inspect --tensors MODEL` lists what is there; if only other programs use these tensors, save the model again \
                 without them (transformers' from_pretrained and save_pretrained leave them out)"
            }
            Self::UnreadTensors { .. } => {
                "the figures would be those of another model: run it in a program that knows this variant; quantize, convert \
                 to GGUF and verify work on any tensors"
            }
            Self::WrongShape { .. } => "check that the settings (config.json) belong to these weights",
            Self::UnsupportedType { operation, .. } if *operation == FROM_CHECKPOINT => ORIGINAL,
            Self::NotFinite { .. } => {
                "ask whoever made the checkpoint; `ggufkit verify MODEL` lists every such tensor"
            }
            Self::InvalidCode { .. } => DAMAGED,
            Self::NoWeights { hint, .. } | Self::NoModel { hint, .. } if !hint.is_empty() => hint,
            Self::NoWeights { .. } => {
                "without weights only --dry-run works; weights are read from .safetensors and pytorch_model.bin files"
            }
            Self::Vocabulary { error, .. } => match error {
                tokenizer::Error::NoTokenizer => {
                    "add --tokenizer FILE with the model's tokenizer.bin or tokenizer.model; or convert the checkpoint again, with its \
                 tokenizer files next to the weights"
                }
                tokenizer::Error::UnknownTokenizer { known, .. } => {
                    return Some(format!("supported: {known}").into());
                }
                tokenizer::Error::UnknownPreTokenizer { hint, .. } => hint,
                _ => {
                    "convert the model again from its checkpoint; what needs no text (convert, quantize, verify) works on this file"
                }
            },
            Self::VocabularyMismatch { .. } => {
                "the tokenizer's files and the weights belong to different models; take both from one checkpoint"
            }
            Self::NoChatTemplate => {
                "leave out --chat to continue a text, or set a template with `ggufkit edit IN OUT --set-file \
                 tokenizer.chat_template:str=FILE`"
            }
            Self::ChatTemplate { .. } => {
                "leave out --chat to continue a text that is written in the model's own chat format"
            }
            Self::UnknownToken { .. } => "check that the tokenizer belongs to this model",
            Self::NoModel { .. } => {
                "weights are read from .safetensors and pytorch_model.bin files, a GGUF or a llama2.c checkpoint where it is \
                 named itself"
            }
            Self::LfsPointer { .. } => "run `git lfs pull` in its folder, or download the file from the hub",
            Self::IsAFolder { path, usual, .. } if path.is_dir() => {
                return Some(
                    format!("name a file, in it or elsewhere: {}", path.join(usual).display()).into(),
                );
            }
            Self::IsAFolder { .. } => "there is no such folder: leave out the / to name a file",
            Self::NotAFile { path } if !path.is_dir() => {
                "give a regular file: what comes from a pipe or a device can be written into one first"
            }
            Self::NotWritable { .. } => {
                "name a regular file: a model is written at many offsets, which devices and pipes do not allow"
            }
            Self::NoSpace { .. } => "free some space or write to another disk; nothing was changed",
            Self::WouldOverwrite { .. } => "write to another file",
            Self::Changed { .. } => "run again when nothing writes to it",
            Self::OutOfRange { tensor, .. } => {
                return Some(
                    format!("use bf16 or f32 for it: --tensor '^{}$=bf16'", regex::escape(tensor)).into(),
                );
            }
            Self::ContextTooLong { limit, .. } => {
                return Some(format!("use --context {limit} or less").into());
            }
            Self::TextTooShort { option, need, shorter, .. } => {
                let shorter = shorter.map_or(String::new(), |n| format!("use {option} {n} or less; or "));
                return Some(format!("{shorter}give a text of at least {need} tokens").into());
            }
            Self::BudgetTooSmall { enough, ways, unit, .. } => {
                let first = unit.iter().fold(String::new(), |_, unit| format!("{unit} Or "));
                let first = format!("{first}use {enough} or more");
                let all = ways.iter().fold(first, |all, way| format!("{all}; or {way}"));
                return Some(format!("{all}; or take a smaller model").into());
            }
            Self::TooLittleMemory(e) => return Some(e.hint().into()),
            Self::InputsNotFinite { .. } => {
                "the model overflows on this text; `ggufkit verify MODEL` lists weights that are NaN or infinite"
            }
            Self::UnknownSensitivity { .. } => {
                "measure this very model: `ggufkit sensitivity MODEL TEXT -o FILE`"
            }
            Self::OtherModel { what, .. } if what.contains(IMPORTANCE) => {
                "measure this very model: `ggufkit calibrate MODEL TEXT -o FILE`"
            }
            Self::OtherModel { .. } => "measure this very model: `ggufkit sensitivity MODEL TEXT -o FILE`",
            Self::NoTypeLeft { .. } => {
                "allow more with --types, f16 for one, or give it one with --tensor REGEX=TYPE"
            }
            Self::OtherState { .. } => {
                "the model, the plan, the text or the method has changed: name another folder, or remove this one"
            }
            Self::DamagedState { .. } => "remove the state folder and start again",
            Self::OtherVocabulary { .. } => "compare models that share a tokenizer",
            Self::Io { source, what, path } => match source.kind() {
                io::ErrorKind::StorageFull => "free some space or write to another disk",
                io::ErrorKind::FileTooLarge => {
                    "raise the limit of file sizes (`ulimit -f`), or write to another disk"
                }
                io::ErrorKind::InvalidFilename => "use a shorter name: file systems take 255 bytes",
                io::ErrorKind::PermissionDenied => "check the permissions of the file and its folder",
                io::ErrorKind::ReadOnlyFilesystem => "write to another folder",
                io::ErrorKind::NotFound if *what == "create" => {
                    "check the path; missing folders are not created"
                }
                io::ErrorKind::NotFound if path.as_os_str() == "-" => {
                    "a file is named by its path; that of standard input is /dev/stdin, which may be a pipe for a text, not for a model"
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
                Some(calibration::Fault::Part { .. }) => {
                    "put the parts together first: llama-gguf-split --merge PART-00001-of-0000N.gguf WHOLE.gguf"
                }
                _ => return None,
            },
            _ => return None,
        };
        Some(text.into())
    }
}

fn fault(e: &calibration::Error) -> Option<&calibration::Fault> {
    match e {
        calibration::Error::Statistics { fault, .. } => Some(fault),
        calibration::Error::Format(_) => None,
    }
}
