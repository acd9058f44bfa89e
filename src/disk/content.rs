//! What a run writes under the names that its user gave, and what is there already: a result of one kind takes the place of
//! another, but not of a model.

#![deny(unsafe_code)]

use std::collections::BTreeSet;
use std::fmt;
use std::io::Read;
use std::path::Path;

use formats::container::{self, gguf, safetensors};
use formats::model::Format;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::{InFile, Part, part};
use crate::error::{Error, Result};

/// A file that a run writes under a name that its user gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output {
    /// What names it, for messages: `--report`.
    pub option: &'static str,
    /// What it is, as an object: "an importance matrix".
    pub what: &'static str,
    /// A usual name of such a file.
    pub usual: &'static str,
    /// Whether it may take the place of a model.
    over_model: bool,
}

/// A note on files that a run replaces, or would replace, if it is a dry run.
pub fn replaced_note(files: &str, dry_run: bool) -> String {
    let is = if dry_run { "would be" } else { "is" };
    format!("an existing file {is} replaced when all is done: {files}")
}

/// A file that is replaced, in words: with what it leads to, if the user has named a link.
pub fn replaced_name(path: &Path, named: bool) -> String {
    match std::fs::canonicalize(path) {
        Ok(real) if named && path.is_symlink() => {
            format!("{} (a link to {})", path.display(), real.display())
        }
        _ => path.display().to_string(),
    }
}

impl Output {
    /// A model. It takes the place of any file but a text.
    pub const fn model(option: &'static str) -> Self {
        Self { option, what: "a model", usual: "model.gguf", over_model: true }
    }

    /// Anything else, which does not take the place of a model. `what` and `usual` are the fields.
    pub const fn result(option: &'static str, what: &'static str, usual: &'static str) -> Self {
        Self { option, what, usual, over_model: false }
    }

    /// Looks at what is at the path of a file that is to be written: says whether a file is replaced.
    ///
    /// # Errors
    /// [`Error::Refused`] for a model where something else is to be written; [`Error::Usage`] for a text where no text of its
    /// kind is, if the user has named it.
    pub(super) fn replaces(self, path: &Path, named: bool) -> Result<bool> {
        if !path.is_file() {
            return Ok(false);
        }
        let shown = path.display();
        let replace = |found| format!("{shown}: is {found}, and {} would replace it", self.what);
        let hint = || format!("choose another name ({}), or remove the file first", self.option);
        if !self.over_model
            && let Some(found) = model_at(path)
        {
            return Err(Error::refused(replace(found)).or(hint()));
        }
        if named && let Some(found) = text_at(path).filter(|_| !self.is_again(path)) {
            return Err(Error::usage(replace(found)).or(hint()));
        }
        Ok(true)
    }

    /// Whether a text is an earlier one of the kind that is to be written: recipes may have any name.
    fn is_again(self, path: &Path) -> bool {
        let is_recipe =
            |start: Vec<u8>| start.split(|&b| b == b'\n').any(|line| line.starts_with(b"base = "));
        self.usual.ends_with(".toml") && start_of(path).is_some_and(is_recipe)
    }
}

/// The endings of names of texts that somebody has written.
const TEXTS: [&str; 9] = ["txt", "md", "rst", "csv", "tsv", "log", "org", "tex", "adoc"];

/// The first bytes of a file.
fn start_of(path: &Path) -> Option<Vec<u8>> {
    let mut start = Vec::new();
    std::fs::File::open(path).ok()?.take(4096).read_to_end(&mut start).ok()?;
    Some(start)
}

/// What a file is, if by its name and its content it is a text that somebody has written.
fn text_at(path: &Path) -> Option<&'static str> {
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    let is_named = path.file_name().and_then(|n| n.to_str()).and_then(part) == Some(Part::Text);
    if !is_named && !TEXTS.contains(&&*ending) {
        return None;
    }
    let start = start_of(path)?;
    let is_text = !start.is_empty()
        && !start.contains(&0)
        && std::str::from_utf8(&start).map_or_else(|e| e.error_len().is_none(), |_| true);
    is_text.then_some("a text")
}

/// The longest JSON file that is looked into, in bytes: no tokenizer is longer.
const MOST_JSON: u64 = 256 << 20;

/// How files of models begin that are not read: GGML's from before GGUF, PyTorch's from before 1.6, HDF5.
const OLDER: [&[u8]; 5] =
    [b"tjgg", b"fmgg", b"lmgg", b"\x80\x02\x8a\x0al\xfc\x9c\x46\xf9", b"\x89HDF\r\n\x1a\n"];

/// What a file is, if it is a model or a part of one: by its content, and where that does not say it, by the name that parts
/// of checkpoints have. `None` for anything else, also if it cannot be read.
fn model_at(path: &Path) -> Option<&'static str> {
    let by_name = || match part(path.file_name()?.to_str()?)? {
        Part::Settings => Some("the settings of a checkpoint"),
        Part::Weights => Some("a file of a checkpoint's weights"),
        Part::Companion | Part::AsFiled => Some("a file of a checkpoint (its tokenizer or settings)"),
        Part::Text => None,
    };
    let file = match InFile::open(path, false) {
        // A clone without Git LFS has these in place of the weights.
        Err(Error::LfsPointer { .. }) => return Some("a Git LFS pointer to a model's file"),
        Err(_) => return by_name(),
        Ok(file) => file,
    };
    of_content(&file).or_else(by_name)
}

/// What a file is by its content, if that is a model or a part of one.
fn of_content(file: &InFile) -> Option<&'static str> {
    let start = file.read(0, file.len.min(4096)).ok()?.into_owned();
    if OLDER.iter().any(|magic| start.starts_with(magic)) {
        return Some("a model in an older format");
    }
    if start.trim_ascii_start().starts_with(b"{") && file.len <= MOST_JSON {
        return json(&file.read(0, file.len).ok()?);
    }
    // A SentencePiece model: pieces, each field 1 with its length, and in it field 1 again.
    if let [0x0a, len, 0x0a, ..] = start[..]
        && start.get(2 + usize::from(len)) == Some(&0x0a)
    {
        return Some("a SentencePiece tokenizer");
    }
    match file.parse(container::sniff).ok()? {
        Format::Gguf { .. } => {
            // An importance matrix is a GGUF as well. A damaged GGUF may have been a model.
            let is_imatrix = file.parse(gguf::read).is_ok_and(|model| {
                let mut names = model.tensors.iter().map(|t| &t.name);
                model.metadata.text("general.type") == Some("imatrix")
                    || !model.tensors.is_empty()
                        && names.all(|n| n.ends_with(".in_sum2") || n.ends_with(".counts"))
            });
            (!is_imatrix).then_some("a model (GGUF)")
        }
        Format::Safetensors => {
            let is_logits = file.parse(safetensors::read).is_ok_and(|model| {
                let mut names: Vec<&str> = model.tensors.iter().map(|t| t.name.as_str()).collect();
                names.sort_unstable();
                names == ["ids", "logits"]
            });
            (!is_logits).then_some("a file of weights (safetensors)")
        }
        Format::PyTorch => Some("a file of weights (PyTorch)"),
        Format::Llama2cTokenizer => Some("a tokenizer (llama2.c)"),
        _ => Some("a model (llama2.c)"),
    }
}

/// What a JSON file is by the keys of its root, if that is a part of a checkpoint.
fn json(bytes: &[u8]) -> Option<&'static str> {
    let Keys(keys) = serde_json::from_slice(bytes).ok()?;
    let has = |key: &str| keys.contains(key);
    if has("model_type") || has("architectures") {
        return Some("the settings of a checkpoint");
    }
    if has("weight_map") {
        return Some("the index of a checkpoint");
    }
    let tokenizer =
        has("added_tokens") && has("model") || has("tokenizer_class") || has("added_tokens_decoder");
    tokenizer.then_some("a tokenizer")
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
    use std::fs;

    use super::*;

    #[test]
    fn models_are_known_by_their_content_and_results_are_none() {
        let dir = tempfile::tempdir().unwrap();
        let safetensors = |names: &[&str]| {
            let tensor =
                |name: &&str| format!(r#""{name}":{{"dtype":"I8","shape":[0],"data_offsets":[0,0]}}"#);
            let header = format!("{{{}}}", names.iter().map(tensor).collect::<Vec<_>>().join(","));
            [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat()
        };
        let is_model = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            fs::write(&path, bytes).unwrap();
            let report = Output::result("--report", "the page", "report.html");
            assert!(Output::model("OUT").replaces(&path, false).unwrap(), "a model replaces any");
            match report.replaces(&path, true) {
                Ok(replaced) => {
                    assert!(replaced, "{name}");
                    false
                }
                Err(e) => {
                    assert!(e.to_string().contains("the page would replace it"), "{e}");
                    assert!(e.hint().unwrap().contains("--report"), "{e}");
                    true
                }
            }
        };
        for (name, bytes) in [
            ("x", b"GGUF\x03\0\0\0 damaged".to_vec()),
            ("x", safetensors(&["a"])),
            ("x", safetensors(&["ids", "logits", "more"])),
            ("x", b"PK\x03\x04 and so on".to_vec()),
            ("x", b"\x80\x02\x8a\x0al\xfc\x9c\x46\xf9".to_vec()),
            ("x.json", br#"{"model_type": "llama"}"#.to_vec()),
            ("x.json", br#" {"version": "1.0", "added_tokens": [], "model": {"a": [1, {"b": 2}]}}"#.to_vec()),
            ("x.json", br#"{"metadata": {}, "weight_map": {"a": "b"}}"#.to_vec()),
            ("x.json", br#"{"tokenizer_class": "x"}"#.to_vec()),
            ("x", b"\x0a\x05\x0a\x03abc\x0a\x05\x0a\x03abd".to_vec()),
            ("merges.txt", b"#version: 0.2\na b\n".to_vec()),
            ("tokenizer.model", b"anything".to_vec()),
            ("config.json", b"{".to_vec()),
            ("x", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 988\n".to_vec()),
        ] {
            assert!(is_model(name, &bytes), "{name}: {}", String::from_utf8_lossy(&bytes));
        }
        for (name, bytes) in [
            ("x", safetensors(&["logits", "ids"])),
            ("x", b"_logits_\x03\0\0\0\x03\0\0\0\x01\0\0\0".to_vec()),
            (
                "x.json",
                br#"{"format": "ggufkit sensitivity 1", "origin": {}, "cache": {}, "matrices": []}"#.to_vec(),
            ),
            ("x.html", b"<!doctype html><p>x".to_vec()),
            ("x.toml", b"\n#\nbase = \"q4_0\"\n".to_vec()),
            ("x", b"{ not JSON".to_vec()),
            ("x", Vec::new()),
        ] {
            assert!(!is_model(name, &bytes), "{name}: {}", String::from_utf8_lossy(&bytes));
        }
        // Texts are kept from both, by their names: what is called otherwise is taken for an earlier result.
        let recipe = Output::result("--write-recipe", "a recipe", "recipe.toml");
        for (name, text, wanted) in [
            ("notes.txt", "mine", [true, true, true]),
            ("README.md", "# Mine\n", [true, true, true]),
            ("LICENSE", "All mine.\n", [true, true, true]),
            ("again.txt", "name = \"x\"\nbase = \"q4_0\"\nrules = []\n", [true, true, false]),
            ("empty.txt", "", [false; 3]),
            ("bytes.txt", "GGUF\0\0", [false, true, true]),
            ("mine", "mine", [false; 3]),
        ] {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            let outputs = [Output::model("OUT"), Output::result("-o", "logits", "base.kld"), recipe];
            assert_eq!(outputs.map(|o| o.replaces(&path, true).is_err()), wanted, "{name}");
        }
        let nothing = dir.path().join("nothing");
        assert!(!Output::result("-o", "x", "x").replaces(&nothing, true).unwrap());
    }
}
