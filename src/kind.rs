//! What a file is, by its content: models and their parts, results of this program and of llama.cpp's, texts, and the usual
//! files of other programs. Where a file of one kind is given for another, the message says what it is.
//!
//! Signatures are those of the formats' own specifications.

use std::collections::BTreeSet;
use std::fmt;

use calibration::imatrix;
use formats::container::{self, gguf, safetensors};
use formats::model::{Format, Input};
use formats::{Error, Fault};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// The group that it belongs to.
    pub class: Class,
    /// In words, as an object: "a PNG image".
    pub what: &'static str,
    /// How to get at what is in it, with the file as `FILE`; empty if there is no such way.
    pub hint: &'static str,
}

/// Groups of files of which one is given for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A model, a file of weights, or an archive that may hold one.
    Model,
    /// A tokenizer.
    Tokenizer,
    /// Settings, or an index, of a checkpoint.
    Settings,
    /// An importance matrix, in either format.
    Imatrix,
    /// A logits file of llama-perplexity's format.
    Logits,
    /// A file of sensitivities.
    Sensitivities,
    /// A recipe.
    Recipe,
    /// Anything else that is text.
    Text,
    /// A file of another program.
    Other,
    /// Nothing.
    Empty,
}

/// What a text of no other kind is.
pub const TEXT: &str = "a text";

const fn kind(class: Class, what: &'static str) -> Kind {
    Kind { class, what, hint: "" }
}

const fn other(what: &'static str, hint: &'static str) -> Kind {
    Kind { class: Class::Other, what, hint }
}

/// A kind of file that is to be given somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Its class.
    pub class: Class,
    /// What it is, as an object.
    pub what: &'static str,
    /// How one comes about.
    pub hint: &'static str,
}

/// Files that options take.
impl Wanted {
    /// `--imatrix`.
    pub const IMATRIX: Self = Self {
        class: Class::Imatrix,
        what: "an importance matrix",
        hint: "`ggufkit calibrate MODEL TEXT -o FILE` makes one, as does llama-imatrix",
    };
    /// `--logits`.
    pub const LOGITS: Self = Self {
        class: Class::Logits,
        what: "a logits file",
        hint: "`ggufkit eval MODEL TEXT --save-logits FILE` and `llama-perplexity --kl-divergence-base FILE` write such files; \
               --reference takes a model itself",
    };
    /// `--recipe`.
    pub const RECIPE: Self = Self {
        class: Class::Recipe,
        what: "a recipe",
        hint: "docs/schemes.md describes recipes; `ggufkit quantize --print-recipe q4_k_m` prints an example",
    };
    /// `--sensitivity`.
    pub const SENSITIVITIES: Self = Self {
        class: Class::Sensitivities,
        what: "a sensitivity file",
        hint: "`ggufkit sensitivity MODEL TEXT -o FILE` makes such files",
    };
    /// `--tokenizer`.
    pub const TOKENIZER: Self = Self {
        class: Class::Tokenizer,
        what: "a tokenizer of llama2.c",
        hint: "name the checkpoint's tokenizer.bin, or the SentencePiece tokenizer.model it was made of",
    };
    /// A text to measure on.
    pub const TEXT: Self = Self {
        class: Class::Text,
        what: "a text",
        hint: "name a text file; the texts of a folder can be put into one: cat FOLDER/*.txt > text.txt",
    };
}

const fn model(what: &'static str, hint: &'static str) -> Kind {
    Kind { class: Class::Model, what, hint }
}

const ZIP: &str =
    "unpack it first: unzip FILE (a .docx or .odt document is a zip too: save it as plain text)";
const TABLE: &str = "write its column of texts into a text file first";
const CONVERT: &str =
    "weights are read from safetensors, GGUF, PyTorch and llama2.c files: take the model's safetensors";
const NUMPY: &str = "weights are read from safetensors, GGUF, PyTorch and llama2.c files: take the model's safetensors, or write \
                     these with Python's safetensors.numpy.save_file";

/// The first bytes of files that have others than those of texts there.
const BINARY: [(&[u8], Kind); 42] = [
    (b"\x1f\x8b", other("a gzip archive", "unpack it first: gunzip -c FILE > NEW")),
    (b"\x28\xb5\x2f\xfd", other("a zstd archive", "unpack it first: zstd -d FILE -o NEW")),
    (b"\x50\x2a\x4d\x18", other("a zstd archive", "unpack it first: zstd -d FILE -o NEW")),
    (b"\xfd7zXZ\0", other("an xz archive", "unpack it first: xz -dc FILE > NEW")),
    (b"BZh", other("a bzip2 archive", "unpack it first: bunzip2 -c FILE > NEW")),
    (b"\x04\x22\x4d\x18", other("an lz4 archive", "unpack it first: lz4 -dc FILE > NEW")),
    (b"7z\xbc\xaf\x27\x1c", other("a 7z archive", "unpack it first: 7z x FILE")),
    (b"Rar!\x1a\x07", other("a rar archive", "unpack it first")),
    (b"PK\x05\x06", other("an empty zip archive", "")),
    (b"PAR1", other("a Parquet file", TABLE)),
    (b"ARROW1", other("an Arrow file", TABLE)),
    (b"SQLite format 3\0", other("an SQLite database", TABLE)),
    (b"\x89HDF\r\n\x1a\n", model("an HDF5 file, perhaps of Keras", CONVERT)),
    (b"tjgg", OLDER),
    (b"fmgg", OLDER),
    (b"lmgg", OLDER),
    (
        b"\x80\x02\x8a\x0al\xfc\x9c\x46\xf9",
        model(
            "a model in an older format (PyTorch's from before version 1.6, 2020)",
            "load it with torch.load and save it again with torch.save",
        ),
    ),
    (b"\x93NUMPY", model("an array of NumPy (.npy, .npz)", NUMPY)),
    (b"%PDF-", PDF),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", other("an older Office document", "save it as plain text first")),
    (
        b"\x00\x05\x16\x07",
        other("an AppleDouble file of macOS (attributes of another file), not the file itself", ""),
    ),
    (b"\x89PNG\r\n\x1a\n", other("a PNG image", "")),
    (b"\xff\xd8\xff", other("a JPEG image", "")),
    (b"GIF8", other("a GIF image", "")),
    (b"II*\0", other("a TIFF image", "")),
    (b"MM\0*", other("a TIFF image", "")),
    (b"BM", other("a BMP image", "")),
    (b"8BPS", other("a Photoshop image", "")),
    (b"\0\0\x01\0", other("an icon", "")),
    (b"RIFF", other("a sound, a video or a WebP image (RIFF)", "")),
    (b"OggS", other("a sound or a video (Ogg)", "")),
    (b"fLaC", other("a sound (FLAC)", "")),
    (b"ID3", other("a sound (MP3)", "")),
    (b"\x1a\x45\xdf\xa3", other("a video (Matroska or WebM)", "")),
    (b"\x7fELF", other("a program or a library (ELF)", "")),
    (b"MZ", other("a program or a library of Windows", "")),
    (b"\xcf\xfa\xed\xfe", other("a program or a library of macOS", "")),
    (b"\xca\xfe\xba\xbe", other("a program of macOS or a Java class", "")),
    (b"\0asm", other("a WebAssembly module", "")),
    (b"wOFF", other("a font", "")),
    (b"wOF2", other("a font", "")),
    (b"\0\x01\0\0\0", other("a font", "")),
];
const OLDER: Kind = model(
    "a model in an older format (GGML's from before GGUF, 2023)",
    "convert it with a llama.cpp of that time",
);
const PDF: Kind = other("a PDF", "extract its text first: pdftotext FILE text.txt");

const PAGE: Kind = kind(Class::Text, "a web page (HTML)");

/// The first bytes of texts of some kinds, in small letters.
const TEXTS: [(&[u8], Kind); 8] = [
    (
        b"version https://git-lfs.github.com/spec/",
        other(
            "a Git LFS pointer, not the file itself",
            "run `git lfs pull` in its folder, or download the file from the hub",
        ),
    ),
    (b"%pdf-", PDF),
    (b"{\\rtf", other("an RTF document", "save it as plain text first")),
    (b"<!doctype html", PAGE),
    (b"<html", PAGE),
    (b"<?xml", kind(Class::Text, "an XML document")),
    (b"{%", kind(Class::Text, "a chat template")),
    (b"{{", kind(Class::Text, "a chat template")),
];

/// The longest JSON file that is looked into, in bytes: no tokenizer is longer.
const MOST_JSON: u64 = 256 << 20;
/// The longest file in the older format of importance matrices that is looked at, in bytes.
const MOST_IMATRIX: u64 = 256 << 20;
/// How many bytes of other files are looked at.
const START: u64 = 4096;

/// Asks for the first `len` bytes of a file.
fn need(input: &Input, len: u64) -> Result<(), Error> {
    let len = len.min(input.len);
    match (input.bytes.len() as u64) < len {
        true => Err(Error::of(input.name, Fault::More(len))),
        false => Ok(()),
    }
}

/// Whether bytes may be the beginning of a text in an encoding whose letters are bytes.
pub fn may_be_text(start: &[u8]) -> bool {
    !start[..start.len().min(512)].iter().any(|&b| b < 9)
}

/// What a file is; `None` if that is not known.
///
/// # Errors
/// [`Fault::More`] if more of the file is needed.
pub fn of(input: &Input) -> Result<Option<Kind>, Error> {
    need(input, START)?;
    let start = &input.bytes[..input.bytes.len().min(START as usize)];
    if start.is_empty() {
        return Ok(Some(kind(Class::Empty, "empty")));
    }
    // Texts in UTF-16 say so by the first character.
    if start.starts_with(b"\xFF\xFE") || start.starts_with(b"\xFE\xFF") {
        return Ok(Some(kind(Class::Text, "a text (UTF-16)")));
    }
    // Bytes that no text begins with.
    let no_text = |magic: &[u8]| !magic.iter().all(|b| (0x20..0x7f).contains(b));
    if let Some((_, kind)) = BINARY.iter().find(|(magic, _)| no_text(magic) && start.starts_with(magic)) {
        return Ok(Some(*kind));
    }
    // The header of a tar archive may be all letters, as is the first word of a GGUF that was cut.
    let of_letters = start.get(257..262) == Some(b"ustar") || start == b"GGUF";
    if may_be_text(start) && !of_letters { text(input, start).map(Some) } else { binary(input, start) }
}

fn text(input: &Input, start: &[u8]) -> Result<Kind, Error> {
    let text = start.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(start).trim_ascii_start();
    let is = |magic: &[u8]| text.get(..magic.len()).is_some_and(|found| found.eq_ignore_ascii_case(magic));
    if let Some((_, kind)) = TEXTS.iter().find(|(magic, _)| is(magic)) {
        return Ok(*kind);
    }
    let is_recipe = || text.split(|&b| b == b'\n').any(|line| line.starts_with(b"base = "));
    match text.first() {
        Some(b'{') if input.len <= MOST_JSON => {
            need(input, input.len)?;
            let own = start.windows(19).any(|w| w == b"ggufkit sensitivity");
            let found = json(input.bytes).unwrap_or(kind(Class::Text, TEXT));
            Ok(if own { SENSITIVITIES } else { found })
        }
        Some(b'[') if input.len <= MOST_JSON => {
            need(input, input.len)?;
            let is_json = serde_json::from_slice::<IgnoredAny>(input.bytes).is_ok();
            Ok(match (is_json, is_recipe()) {
                (true, _) => kind(Class::Text, "a JSON file"),
                (_, true) => kind(Class::Recipe, "a recipe"),
                _ => kind(Class::Text, TEXT),
            })
        }
        _ if is_recipe() => Ok(kind(Class::Recipe, "a recipe")),
        _ => Ok(kind(Class::Text, TEXT)),
    }
}

fn binary(input: &Input, start: &[u8]) -> Result<Option<Kind>, Error> {
    if let Some((_, kind)) = BINARY.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Ok(Some(*kind));
    }
    let at = |range: std::ops::Range<usize>| start.get(range).unwrap_or_default();
    let known = match () {
        () if at(257..262) == b"ustar" => other("a tar archive", "unpack it first: tar xf FILE"),
        () if start.starts_with(b"_logits_") => kind(Class::Logits, "a file of logits"),
        () if is_sentencepiece(start) => kind(Class::Tokenizer, "a tokenizer (a SentencePiece model)"),
        () if is_npz(start) => model("an array of NumPy (.npy, .npz)", NUMPY),
        () if at(4..8) == b"TFL3" => model("a TensorFlow Lite model", CONVERT),
        () if at(4..8) == b"ftyp" => other("a video, a sound or an image (MP4)", ""),
        () if is_onnx(start) => model("an ONNX model", CONVERT),
        // The directory, which says more, is at the end of an archive.
        () if start.starts_with(b"PK\x03\x04") => match first_member(start).ends_with(b"data.pkl") {
            true => kind(Class::Model, "a file of weights (PyTorch)"),
            false => model("a zip archive", ZIP),
        },
        () => match weights(input)? {
            Some(kind) => kind,
            None if start[0] == 0x80 && (2..=5).contains(&at(1..2).first().copied().unwrap_or(0)) => other(
                "a pickle of Python",
                "a pickle is a program: it is not read. Take the model's safetensors",
            ),
            None => return Ok(is_old_imatrix(input)?.then_some(IMATRIX)),
        },
    };
    Ok(Some(known))
}

const SENSITIVITIES: Kind = kind(Class::Sensitivities, "a file of sensitivities");
const IMATRIX: Kind = kind(Class::Imatrix, "an importance matrix");

/// What a file in the format of a model is.
fn weights(input: &Input) -> Result<Option<Kind>, Error> {
    // What is damaged may have been a model.
    let parsed = |found: Result<formats::model::Model, Error>| match found {
        Err(e) if matches!(e.fault, Fault::More(_)) => Err(e),
        found => Ok(found.ok()),
    };
    let format = match container::sniff(input) {
        Err(e) if matches!(e.fault, Fault::More(_)) => return Err(e),
        Err(_) => return Ok(None),
        Ok(format) => format,
    };
    Ok(Some(match format {
        Format::Gguf { .. } => {
            let is_imatrix = parsed(gguf::read(input))?.is_some_and(|model| {
                let mut names = model.tensors.iter().map(|t| &t.name);
                model.metadata.text("general.type") == Some("imatrix")
                    || !model.tensors.is_empty()
                        && names.all(|n| n.ends_with(".in_sum2") || n.ends_with(".counts"))
            });
            if is_imatrix { IMATRIX } else { kind(Class::Model, "a model (GGUF)") }
        }
        Format::Safetensors => {
            let is_logits = parsed(safetensors::read(input))?.is_some_and(|model| {
                let mut names: Vec<&str> = model.tensors.iter().map(|t| t.name.as_str()).collect();
                names.sort_unstable();
                names == ["ids", "logits"]
            });
            match is_logits {
                true => other(
                    "a file of logits that ggufkit logits wrote",
                    "`ggufkit inspect --tensors FILE` lists what is in it",
                ),
                false => kind(Class::Model, "a file of weights (safetensors)"),
            }
        }
        Format::PyTorch => kind(Class::Model, "a file of weights (PyTorch)"),
        Format::Llama2cTokenizer => kind(Class::Tokenizer, "a tokenizer (llama2.c)"),
        Format::Llama2c { .. } => kind(Class::Model, "a model (llama2.c)"),
    }))
}

/// Whether these are the first bytes of a SentencePiece model: a message whose first field is the first piece, which begins
/// with its text, and then has its score or is followed by the next one (`sentencepiece_model.proto`).
fn is_sentencepiece(start: &[u8]) -> bool {
    let [0x0a, piece, 0x0a, text, rest @ ..] = start else { return false };
    let score = text < piece && rest.get(usize::from(*text)) == Some(&0x15);
    score || start.get(2 + usize::from(*piece)) == Some(&0x0a)
}

/// The name of the first member of a zip archive with these first bytes; empty if it is none.
fn first_member(start: &[u8]) -> &[u8] {
    let Some(header) = start.get(..30).filter(|header| header.starts_with(b"PK\x03\x04")) else {
        return &[];
    };
    let length = usize::from(u16::from_le_bytes([header[26], header[27]]));
    start.get(30..30 + length).unwrap_or_default()
}

/// Whether these are the first bytes of a zip archive whose first member is an array of NumPy.
pub fn is_npz(start: &[u8]) -> bool {
    first_member(start).ends_with(b".npy")
}

/// Whether these are the first bytes of an ONNX model: a message whose first field is the version, and whose second one is the
/// name of the program that wrote it, or what follows that (`onnx.proto`).
fn is_onnx(start: &[u8]) -> bool {
    matches!(start, [0x08, 1..=20, 0x12 | 0x1a | 0x22 | 0x3a, ..])
}

/// Whether a file is an importance matrix in llama-imatrix's older format.
fn is_old_imatrix(input: &Input) -> Result<bool, Error> {
    let first = input.bytes.first_chunk::<4>().copied().unwrap_or_default();
    // The number of entries, each of which has some bytes.
    let may_be = |count: u32| count > 0 && u64::from(count) < input.len / 16;
    let orders = [u32::from_le_bytes(first), u32::from_be_bytes(first)];
    if input.len > MOST_IMATRIX || !orders.into_iter().any(may_be) {
        return Ok(false);
    }
    need(input, input.len)?;
    Ok(imatrix::read(input.name, input.bytes).is_ok())
}

/// What a JSON file is by the keys of its root; `None` if it is not valid.
fn json(bytes: &[u8]) -> Option<Kind> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let Keys(keys) = serde_json::from_slice(bytes).ok()?;
    let has = |key: &str| keys.contains(key);
    let tokenizer =
        has("added_tokens") && has("model") || has("tokenizer_class") || has("added_tokens_decoder");
    Some(match () {
        () if has("model_type") || has("architectures") => {
            kind(Class::Settings, "the settings of a checkpoint")
        }
        () if has("weight_map") => kind(Class::Settings, "the index of a checkpoint"),
        () if has("format") && has("origin") && has("matrices") => SENSITIVITIES,
        () if has("_diffusers_version") => {
            kind(Class::Settings, "the settings of a diffusion model (diffusers)")
        }
        () if tokenizer => kind(Class::Tokenizer, "a tokenizer of a checkpoint (JSON)"),
        () => kind(Class::Text, "a JSON file"),
    })
}

/// The keys of a JSON object, without its values. Of many, only some are kept.
struct Keys(BTreeSet<String>);

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        const MOST: usize = 4096;
        struct Root;
        impl<'de> Visitor<'de> for Root {
            type Value = Keys;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Keys, A::Error> {
                let mut keys = BTreeSet::new();
                while let Some(key) = map.next_key::<String>()? {
                    map.next_value::<IgnoredAny>()?;
                    if keys.len() < MOST {
                        keys.insert(key);
                    }
                }
                Ok(Keys(keys))
            }
        }
        deserializer.deserialize_map(Root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(bytes: &[u8]) -> Option<(Class, &'static str)> {
        of(&Input::whole("x", bytes)).unwrap().map(|k| (k.class, k.what))
    }

    #[test]
    fn files_are_known_by_their_content() {
        for (bytes, expected, what) in [
            (&b""[..], Class::Empty, "empty"),
            (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", Class::Other, "a PNG image"),
            (b"\xff\xd8\xff\xe0\0\x10JFIF\0", Class::Other, "a JPEG image"),
            (b"\x08\x08\x12\x07pytorch", Class::Model, "an ONNX model"),
            (b"\x1c\0\0\0TFL3", Class::Model, "a TensorFlow Lite model"),
            (b"\x80\x04\x95\x05\0\0\0", Class::Other, "a pickle of Python"),
            (b"PK\x03\x04\x14\0", Class::Model, "a zip archive"),
            (b"\x7fELF\x02\x01\x01\0", Class::Other, "a program or a library (ELF)"),
            (b"_logits_\x03\0\0\0\x03\0\0\0\x01\0\0\0", Class::Logits, "a file of logits"),
            (b"GGUF\x03\0\0\0 damaged", Class::Model, "a model (GGUF)"),
            (b"\x0a\x0a\x0a\x03abc\x15\0\0\0\0", Class::Tokenizer, "a tokenizer (a SentencePiece model)"),
            (br#"{"model_type": "llama"}"#, Class::Settings, "the settings of a checkpoint"),
            (
                br#"{"format": "x", "origin": {}, "matrices": []}"#,
                Class::Sensitivities,
                "a file of sensitivities",
            ),
            (b"{\"a\": 1}", Class::Text, "a JSON file"),
            (b"[1, 2]", Class::Text, "a JSON file"),
            (b"{% for m in messages %}", Class::Text, "a chat template"),
            (b"\n<!DOCTYPE HTML><p>", Class::Text, "a web page (HTML)"),
            (b"# mine\nbase = \"q4_0\"\n", Class::Recipe, "a recipe"),
            (b"Once upon a time", Class::Text, "a text"),
            // Signatures of letters, in texts.
            (b"BMW and MZ are cars; PAR1, GGUF too", Class::Text, "a text"),
            (b"caf\xE9", Class::Text, "a text"),
        ] {
            assert_eq!(class(bytes), Some((expected, what)), "{}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(class(&[1, 2, 3, 200, 250, 9, 7]), None);
    }

    #[test]
    fn of_a_long_file_more_is_asked_for() {
        let input = Input { name: "x", bytes: b"{\"a\": 1", len: 10_000 };
        assert_eq!(of(&input).unwrap_err().fault, Fault::More(4096));
    }
}
