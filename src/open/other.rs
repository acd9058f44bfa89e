//! Files that belong to a model and are none: tokenizers, importance matrices, settings, adapters, parts for images. Given in
//! the model's place, they are named, with what to give instead.

use std::collections::HashSet;
use std::path::Path;

use formats::container::parse_part_stem;
use formats::model::{Format, Model};
use formats::{Error as FormatError, Fault};

use crate::disk::{self, InFile};
use crate::error::Error;
use crate::kind::{self, Class};
use crate::source::{Foreign, Use};
use crate::text::shell_word;

const TEXT: &str = "give the model first, and the text after it";
/// What a model is.
const MODEL: &str = "a model is a .gguf, a checkpoint's folder or its .safetensors, or llama2.c's .bin";
/// How many bytes of other files are looked at.
const START: u64 = 4096;

/// What the user is to do about an importance matrix in the place of a model.
const GIVE_IMATRIX: &str =
    "give the model as IN, and this file with --imatrix FILE; `ggufkit calibrate --show FILE` prints it";

/// What a GGUF or a tokenizer.bin is, if it is not a whole model.
pub fn of_model(model: &Model) -> Option<Foreign> {
    let metadata = &model.metadata;
    let text = |key: &str| metadata.text(key).unwrap_or_default();
    let (kind, architecture) = (text("general.type"), text("general.architecture"));
    let sums = model.tensors.iter().filter(|t| t.name.ends_with(".in_sum2")).count();
    if let Some(foreign) = tokens_beyond(model) {
        return Some(foreign);
    }
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

/// A GGUF with more tokens than its token embedding has rows.
fn tokens_beyond(model: &Model) -> Option<Foreign> {
    let tokens = model.metadata.get("tokenizer.ggml.tokens")?.as_array()?.len() as u64;
    let rows = model.tensors.iter().find(|t| t.name == "token_embd.weight")?.rows();
    (matches!(model.format, Format::Gguf { .. }) && tokens > rows).then(|| Foreign {
        what: format!(
            "has a vocabulary of {tokens} tokens, more than the {rows} rows of its token embedding, so no program loads it"
        ),
        hint: "convert the checkpoint that it was made of again: its tokenizer's files and its weights may belong to different models"
            .into(),
        remains: Use::Copies,
    })
}

/// The error for a file that cannot be read as a model, if it is known what it is instead. `error` is what its reading gave.
pub fn explain(file: &InFile, error: &Error) -> Option<Error> {
    let Error::Format(FormatError { fault, .. }) = error else { return None };
    let start = file.read(0, file.len.min(START)).ok()?;
    // Of an archive, another fault may be found first.
    if !matches!(fault, Fault::NotAModel(_)) && !kind::is_npz(&start) {
        return None;
    }
    if let (Some(at), Fault::NotAModel(_)) = (gguf_within(&start), fault) {
        let name = file.name();
        return Some(
            Error::refused(format!(
                "{name}: a GGUF begins at byte {at}, after bytes that do not belong to it"
            ))
            .or(format!(
                "cut them off: tail -c +{} {} > NEW.gguf",
                at + 1,
                shell_word(name.as_ref())
            )),
        );
    }
    let (what, hint) = known(file, &start)?;
    let is_model = file.kind().is_some_and(|kind| kind.class == Class::Model);
    let not = if is_model { "which is not read" } else { "not a model" };
    Some(Error::refused(format!("{}: is {what}, {not}", file.name())).or(hint))
}

/// Where a GGUF of a known version begins, if not at the beginning.
fn gguf_within(start: &[u8]) -> Option<usize> {
    start
        .windows(8)
        .position(|w| w.starts_with(b"GGUF") && matches!(w[4..], [1..=3, 0, 0, 0] | [0, 0, 0, 1..=3]))
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
    let found = file.kind()?;
    let own = found.hint.replace("FILE", file.name());
    match found.class {
        Class::Tokenizer if !kind::may_be_text(start) => return said(found.what, &tokenizer),
        Class::Imatrix => return said(found.what, GIVE_IMATRIX),
        Class::Logits => {
            let hint = "give the model as IN, and this file with --logits FILE of `ggufkit eval`";
            return said(found.what, hint);
        }
        // Of these, the error says more.
        Class::Model if found.hint.is_empty() || found.what == "a zip archive" => return None,
        Class::Model | Class::Other if own.is_empty() => return said(found.what, MODEL),
        Class::Model | Class::Other => return said(found.what, &own),
        Class::Empty => return None,
        Class::Recipe => return said(found.what, "give the model as IN, and a recipe with --recipe FILE"),
        Class::Sensitivities => {
            return said(found.what, "give the model as IN, and this file with --sensitivity FILE");
        }
        Class::Tokenizer | Class::Settings | Class::Text => {}
    }
    if !kind::may_be_text(start) {
        return if found.class == Class::Text { said(found.what, TEXT) } else { None };
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
    ends(".txt").then(|| ("a text".into(), TEXT.into()))
}

/// How many files of a folder are parts of the same model as `part`, by their names; `None` if that is not named like one.
fn numbered(folder: &Path, part: &Path) -> Option<usize> {
    let of = |name: &Path| {
        let (stem, no, count) = parse_part_stem(name.file_stem()?.to_str()?)?;
        Some((stem.to_string(), count, name.extension()?.to_os_string(), no))
    };
    let (stem, count, ending, _) = of(part)?;
    let entries = std::fs::read_dir(folder).ok()?;
    let own = entries.filter_map(|entry| {
        let (a, b, c, no) = of(Path::new(&entry.ok()?.file_name()))?;
        ((a, b, c) == (stem.clone(), count, ending.clone())).then_some(no)
    });
    Some(own.collect::<HashSet<_>>().len())
}

/// The error for part `no` (from 0) of a split model in `folder`, which is not there. `names` are those of all parts, in order.
pub fn missing_part(
    folder: &Path,
    names: impl Iterator<Item = impl AsRef<Path>>,
    no: usize,
    count: usize,
) -> Error {
    /// The most parts that are looked for one by one: a file's name can promise any number.
    const MOST: usize = 10_000;
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let mut name = String::new();
    let mut missing = 0;
    for (i, part) in names.enumerate() {
        if i == no {
            name = part.as_ref().display().to_string();
            // Of numbered ones, the folder says which it has.
            if let Some(here) = (count > MOST).then(|| numbered(folder, part.as_ref())).flatten() {
                missing = count.saturating_sub(here).max(1);
                break;
            }
        }
        missing += usize::from(!folder.join(part.as_ref()).exists());
    }
    Error::MissingPart { name, folder: folder.to_path_buf(), part: no + 1, count, missing }
}
