//! Files that belong to a model and are none: tokenizers, importance matrices, settings, adapters, parts for images. Given in
//! the model's place, they are named, with what to give instead.

use std::path::Path;

use calibration::imatrix;
use formats::model::{Format, Model};
use formats::{Error as FormatError, Fault};

use crate::disk::{self, InFile};
use crate::error::Error;
use crate::source::{Foreign, Use};

/// The longest file in the older format of importance matrices that is looked at, in bytes.
const MOST_IMATRIX: u64 = 256 << 20;
/// How many bytes of other files are looked at.
const START: u64 = 4096;

/// What the user is to do about an importance matrix in the place of a model.
const GIVE_IMATRIX: &str =
    "give the model as IN, and this file with --imatrix FILE; ggufkit calibrate --show FILE prints it";

/// What a GGUF or a tokenizer.bin is, if it is not a whole model.
pub fn of_model(model: &Model) -> Option<Foreign> {
    let metadata = &model.metadata;
    let text = |key: &str| metadata.text(key).unwrap_or_default();
    let (kind, architecture) = (text("general.type"), text("general.architecture"));
    let sums = model.tensors.iter().filter(|t| t.name.ends_with(".in_sum2")).count();
    let (what, hint, remains) = match model.format {
        Format::Llama2cTokenizer => (
            "is a tokenizer of llama2.c, not a model",
            "give the checkpoint that it belongs to as IN, and this file with --tokenizer FILE",
            Use::Copies,
        ),
        Format::Gguf { .. }
            if kind == "imatrix" || kind.is_empty() && architecture.is_empty() && sums > 0 =>
        {
            ("is an importance matrix, not a model", GIVE_IMATRIX, Use::Copies)
        }
        Format::Gguf { .. } if kind == "adapter" || metadata.get("adapter.type").is_some() => (
            "is a LoRA adapter for llama.cpp, not a model",
            "llama.cpp's programs take it beside its base model: llama-cli -m BASE.gguf --lora FILE; llama-export-lora merges both \
             into one model, which can be given here",
            Use::Types,
        ),
        Format::Gguf { .. } if kind == "mmproj" || architecture == "clip" => (
            "is the projector of a multimodal model (mmproj), not the language model",
            "give the GGUF of the language model itself; llama.cpp's programs take this file beside it: --mmproj FILE",
            Use::Types,
        ),
        Format::Gguf { .. } if architecture == "controlvector" => (
            "is a control vector, not a model",
            "llama.cpp's programs take it beside a model: llama-cli -m MODEL.gguf --control-vector FILE",
            Use::Copies,
        ),
        Format::Gguf { .. } if model.tensors.is_empty() => (
            match metadata.get("tokenizer.ggml.tokens") {
                Some(_) => "has a vocabulary and no weights",
                None => "has no weights",
            },
            "give the GGUF that has the model's weights",
            Use::Copies,
        ),
        _ => return None,
    };
    Some(Foreign { what: what.into(), hint: hint.into(), remains })
}

/// The error for a file that cannot be read as a model, if it is known what it is instead. `error` is what its reading gave.
pub fn explain(file: &InFile, error: &Error) -> Option<Error> {
    let Error::Format(FormatError { fault, .. }) = error else { return None };
    let start = file.read(0, file.len.min(START)).ok()?;
    // Of an archive, another fault may be found first.
    if !matches!(fault, Fault::NotAModel(_)) && !is_npz(&start) {
        return None;
    }
    let (what, hint) = known(file, &start)?;
    Some(Error::refused(format!("{}: is {what}, not a model", file.name())).or(hint))
}

/// What a file is, by its content and for texts by its name too, and what to give in its place.
fn known(file: &InFile, start: &[u8]) -> Option<(String, String)> {
    let folder = disk::folder(&file.path).display().to_string();
    let name = file.path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let of_folder = format!("name the folder of the checkpoint, {folder}, or its weights");
    let tokenizer = format!(
        "{of_folder}; for a llama2.c checkpoint, give that as IN and this file with --tokenizer FILE"
    );
    let said = |what: &str, hint: &str| Some((what.to_string(), hint.to_string()));
    if is_sentencepiece(start) {
        return said("a tokenizer (a SentencePiece model)", &tokenizer);
    }
    if is_npz(start) || start.starts_with(b"\x93NUMPY") {
        return said(
            "an array of NumPy (.npy, .npz)",
            "weights are read from safetensors, GGUF, PyTorch and llama2.c files: take the model's safetensors, or write these \
             with Python's safetensors.numpy.save_file",
        );
    }
    if start.starts_with(b"_logits_") {
        return said(
            "a file of logits",
            "give the model as IN, and this file with --logits FILE of ggufkit eval",
        );
    }
    let is_text = std::str::from_utf8(start).map_or_else(|e| e.error_len().is_none(), |_| true)
        && !start.iter().any(|&b| b < 9);
    if !is_text {
        return is_old_imatrix(file).then(|| ("an importance matrix".into(), GIVE_IMATRIX.into()));
    }
    let is = |names: &[&str]| names.contains(&&*name);
    let ends = |ending: &str| name.ends_with(ending);
    if ends(".jinja") {
        return said("a chat template", &of_folder);
    }
    if start.trim_ascii_start().starts_with(b"{") || ends(".json") {
        return if is(&[
            "tokenizer.json",
            "vocab.json",
            "added_tokens.json",
            "special_tokens_map.json",
            "tokenizer_config.json",
        ]) {
            said("a part of a tokenizer", &of_folder)
        } else if start.windows(19).any(|w| w == b"ggufkit sensitivity") {
            said("a file of sensitivities", "give the model as IN, and this file with --sensitivity FILE")
        } else if is(&["config.json", "generation_config.json", "adapter_config.json", "params.json"]) {
            said("a file of settings", &of_folder)
        } else {
            said("a JSON file", &of_folder)
        };
    }
    if is(&["merges.txt", "vocab.txt", "tokenizer.model", "qwen.tiktoken"]) || ends(".tiktoken") {
        return said("a part of a tokenizer", &of_folder);
    }
    if ends(".toml") {
        return said(
            "a recipe or another TOML file",
            "give the model as IN, and a recipe with --recipe FILE",
        );
    }
    ends(".txt").then(|| ("a text".into(), "give the model first, and the text after it".into()))
}

/// Whether these are the first bytes of a SentencePiece model: a message whose first field is the first piece, which begins
/// with its text and then has its score (`sentencepiece_model.proto`).
fn is_sentencepiece(start: &[u8]) -> bool {
    let [0x0a, piece, 0x0a, text, rest @ ..] = start else { return false };
    text < piece && rest.get(usize::from(*text)) == Some(&0x15)
}

/// Whether these are the first bytes of a zip archive whose first member is an array of NumPy.
fn is_npz(start: &[u8]) -> bool {
    let Some(header) = start.get(..30).filter(|header| header.starts_with(b"PK\x03\x04")) else {
        return false;
    };
    let length = usize::from(u16::from_le_bytes([header[26], header[27]]));
    start.get(30..30 + length).is_some_and(|name| name.ends_with(b".npy"))
}

/// Whether a file is an importance matrix in llama-imatrix's older format.
fn is_old_imatrix(file: &InFile) -> bool {
    file.len <= MOST_IMATRIX
        && file.read(0, file.len).is_ok_and(|bytes| imatrix::read(file.name(), &bytes).is_ok())
}

/// The error for part `no` (from 0) of a split model in `folder`, which is not there. `names` are those of all parts, in order.
pub fn missing_part(
    folder: &Path,
    names: impl Iterator<Item = impl AsRef<Path>>,
    no: usize,
    count: usize,
) -> Error {
    /// Parts that are looked for: a file's name can promise any number.
    const MOST: usize = 10_000;
    let mut name = String::new();
    let mut missing = 0;
    for (i, part) in names.take(MOST.max(no + 1)).enumerate() {
        if i == no {
            name = part.as_ref().display().to_string();
        }
        missing += usize::from(!folder.join(part.as_ref()).exists());
    }
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    Error::MissingPart { name, folder: folder.to_path_buf(), part: no + 1, count, missing }
}
