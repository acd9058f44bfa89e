//! Changes of metadata, parsed from the command line.

mod value;

use std::borrow::Cow;
#[cfg(unix)]
use std::ffi::OsStr;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use formats::metadata::{Kind, Metadata, Value};

use crate::arch::keys::{self, Form};
use crate::arch::{by_model_type, by_name};
use crate::checkpoint;
use crate::disk::RunFiles;
use crate::error::{Error, Result};
use crate::source::Source;
use crate::text::{letters_apart, shell_word};
use crate::tokenizer::text_file;
use value::file_value;
pub use value::parse_value;

/// The longest key of a GGUF, in bytes.
const MOST_KEY: usize = 65535;

/// A change of metadata.
#[derive(Debug, Clone, PartialEq)]
pub enum Edit {
    /// Sets a key to a value, in the syntax of [`parse_value`].
    Set(String, String),
    /// Sets a key to the contents of a file: text for a string, JSON for an array.
    SetFile(String, PathBuf),
    /// Renames a key without moving it.
    Rename(String, String),
    /// Removes a key.
    Remove(String),
}

impl Edit {
    /// Applies the change. Gives notes on what may not be meant: a key that is set or removed and not there, as a misspelt one
    /// is; a value of another type than the key had; the encoding of a text that was converted. Whether programs still read
    /// the model is checked when all changes are made.
    ///
    /// # Errors
    /// [`Error::Usage`] if a key that is to be renamed does not exist, if the new name already exists, or if a value does
    /// not parse; those of [`RunFiles::read_text`] and [`text_file::strict`] for the file.
    pub fn apply(&self, metadata: &mut Metadata, run: &RunFiles) -> Result<Vec<String>> {
        let usage = |why: String| Error::usage(why);
        let mut notes = Vec::new();
        if let Self::Set(key, _) | Self::SetFile(key, _) | Self::Rename(_, key) = self
            && key.starts_with("split.")
        {
            let option = self.option();
            return Err(usage(format!("{option} {key}: the split.* keys follow from the files"))
                .or("use `ggufkit split` and `ggufkit merge`"));
        }
        let named = self.keys().last().filter(|_| !matches!(self, Self::Remove(_)));
        if let Some(key) = named.filter(|key| !(1..=MOST_KEY).contains(&key.len())) {
            let (option, found) = (self.option(), key.len());
            return Err(usage(format!(
                "{option}: a key must have from 1 to {MOST_KEY} bytes (found {found})"
            )));
        }
        match self {
            Self::Set(key, text) => {
                let value = parse_value(text, usual(key, text, metadata))
                    .map_err(|e| usage(format!("--set {key}: {e}")).or(other_type(key, metadata)))?;
                // Whoever writes the type means the text.
                let long = key == "general.description" || key.starts_with("tokenizer.chat_template");
                if long && value.as_str() == Some(text) && Path::new(text).is_file() {
                    let file = shell_word(text.as_ref());
                    notes.push(format!(
                        "--set {key}: the value is the name of a file, not what is in it: `ggufkit edit IN OUT --set-file {key}={file}` sets that"
                    ));
                }
                notes.extend(set("--set", key, value, metadata));
            }
            Self::SetFile(key, path) => {
                let (key, kind) = match key.split_once(':') {
                    Some((key, kind)) => (key, Some(kind)),
                    None => (key.as_str(), None),
                };
                let name = path.display().to_string();
                let decoded = text_file::strict(&name, run.read_text(path)?).map_err(|e| {
                    let iconv = format!(
                        "save it as UTF-8; from Latin-1, for example: iconv -f latin1 -t utf-8 {name} > {name}.utf8"
                    );
                    let hint = e.hint().map_or(iconv, Cow::into_owned);
                    Error::refused(format!("--set-file {key}: {e}")).or(hint)
                })?;
                let form = usual(key, &decoded.text, metadata);
                let value = file_value(&decoded.text, kind, form)
                    .map_err(|e| usage(format!("--set-file {key}: {}: {e}", path.display())))?;
                notes.extend(decoded.notes);
                notes.extend(set("--set-file", key, value, metadata));
            }
            Self::Rename(key, to) => {
                if !metadata.rename(key, to) {
                    let exists = metadata.get(key).is_some();
                    let why = if exists { format!("{to} already exists") } else { "no such key".to_string() };
                    return Err(usage(format!("--rename {key}: {why}")));
                }
            }
            Self::Remove(key) => {
                if metadata.remove(key).is_none() {
                    let similar = similar(key, metadata);
                    notes.push(format!("--remove {key}: there is no such key{similar}"));
                }
            }
        }
        Ok(notes)
    }

    /// The option of the command line that makes such a change.
    pub(super) fn option(&self) -> &'static str {
        match self {
            Self::Set(..) => "--set",
            Self::SetFile(..) => "--set-file",
            Self::Rename(..) => "--rename",
            Self::Remove(..) => "--remove",
        }
    }

    /// The keys that it changes.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        let (one, two) = match self {
            Self::Set(key, _) | Self::Remove(key) => (key.as_str(), None),
            Self::SetFile(key, _) => (key.split(':').next().unwrap_or(key), None),
            Self::Rename(key, to) => (key.as_str(), Some(to.as_str())),
        };
        std::iter::once(one).chain(two)
    }
}

/// Refuses changes of keys in a checkpoint that is copied with its files, where no program would see them: config.json and
/// the tokenizer's files say what the keys of a GGUF would, and config.json has names of its own. What is left are the texts
/// in the header of the weights: those that are there, and new keys of other names with a dot.
///
/// # Errors
/// [`Error::Usage`] with the first such key.
pub(super) fn refuse_settings(source: &Source, edits: &[Edit]) -> Result<()> {
    let header = &source.model.metadata;
    let config = source.filed.iter().find(|path| path.ends_with(checkpoint::CONFIG));
    let changed = || edits.iter().flat_map(|edit| edit.keys().map(move |key| (edit, key)));
    // Reading the settings is left to those who need them.
    if !changed().any(|(_, key)| header.get(key).is_none() || is_setting(key)) {
        return Ok(());
    }
    let settings = config.map(|path| checkpoint::read_json(path)).transpose()?.flatten();
    let settings = settings.unwrap_or_default();
    let is_refused = |key: &str| {
        let first = key.split('.').next().unwrap_or(key);
        // A text for whoever reads the weights, which no settings file has.
        let is_text = header.get(key).is_some() || key == WRITER;
        is_setting(key) || !is_text && (first == key || settings.get(first).is_some())
    };
    let Some((edit, key)) = changed().find(|(_, key)| is_refused(key)) else { return Ok(()) };
    let why = "a checkpoint has its settings in config.json and its tokenizer in files of its own";
    let arch =
        settings["model_type"].as_str().and_then(by_model_type).map_or("ARCHITECTURE", |(arch, _)| arch.name);
    let copy = "change these files in a copy of the folder";
    let hint = match keys::of_hub(key, arch) {
        _ if is_setting(key) => format!("name an output that ends in .gguf, or {copy}"),
        Some(own) => {
            format!("name an output that ends in .gguf, where the key is {own}; or {copy}")
        }
        None => format!("{copy}; of a .gguf, the keys are those that `ggufkit inspect` prints"),
    };
    Err(Error::usage(format!("{} {key}: {why}", edit.option())).or(hint))
}

/// The key in the header of safetensors that says which library has written them.
const WRITER: &str = "format";

/// Whether a key is one under which a GGUF has settings or a tokenizer.
fn is_setting(key: &str) -> bool {
    let first = key.split('.').next().unwrap_or(key);
    let named = ["general", "tokenizer"].contains(&first) || by_name(first).is_some();
    key.contains('.') && (named || keys::forms(key, first).is_some())
}

/// The type that a value gets for which the user names none: that of the key, unless programs take others only, or the text
/// is a list and the key has a single value, or the other way round; for a new key, the one that they take. `None` if nothing
/// is known of it.
fn usual(key: &str, text: &str, metadata: &Metadata) -> Option<Form> {
    let own = metadata.get(key).map(Form::of);
    let Some(taken) = taken(key, metadata) else { return own };
    let list = text.trim_start().starts_with('[');
    let is_alike = |form: &Form| matches!(form, Form::List(_)) == list;
    let own = own.filter(|own| taken.contains(own));
    // Some take one value for all layers, or a list of one for each. A template may begin like a list.
    let alike = own.filter(is_alike).or(taken.iter().copied().find(is_alike));
    alike.or(own).or(taken.first().copied())
}

/// The types that programs take for a key, if they are known.
fn taken(key: &str, metadata: &Metadata) -> Option<&'static [Form]> {
    keys::forms(key, metadata.text("general.architecture").unwrap_or_default())
}

/// How a value of another type is set, for one that does not fit.
fn other_type(key: &str, metadata: &Metadata) -> String {
    match taken(key, metadata) {
        Some(taken) => format!("programs take it as {} only", one_of(taken)),
        None => format!("a value of another type is written with that type: --set {key}=str:VALUE"),
    }
}

/// Types as an enumeration: "u32", "u32 or [u32]".
pub(super) fn one_of(forms: &[Form]) -> String {
    forms.iter().map(Form::to_string).collect::<Vec<_>>().join(" or ")
}

/// Sets a key, with a note if it is new or gets another type.
fn set(option: &str, key: &str, value: Value, metadata: &mut Metadata) -> Option<String> {
    let form = Form::of(&value);
    let note = match metadata.get(key).map(Form::of) {
        None => Some(format!(
            "{option} {key}: the key is new, with a value of type {form}{}",
            similar(key, metadata)
        )),
        Some(own) if own != form => Some(format!("{option} {key}: its type changes from {own} to {form}")),
        Some(_) => None,
    };
    metadata.set(key, value);
    note
}

/// The name that the changes give a model; `None` if they give it none.
pub fn name(edits: &[Edit]) -> Option<String> {
    let text = edits.iter().rev().find_map(|edit| match edit {
        Edit::Set(key, text) if key == "general.name" => Some(text),
        _ => None,
    })?;
    // What does not parse is said where the changes are made.
    parse_value(text, Some(Form::One(Kind::String))).ok()?.as_str().map(str::to_string)
}

/// A question that names the key that may be meant: the one that means the same in a GGUF, for a name of config.json; else
/// the model's own, if `key` is that without the architecture before it, or with another one; else that of the model that
/// differs from `key` in a letter or two, if there is one.
fn similar(key: &str, metadata: &Metadata) -> String {
    let meant = |key: &str| format!(" (is {key} meant?)");
    if let Some(own) = metadata.text("general.architecture").and_then(|arch| keys::of_hub(key, arch)) {
        return meant(&own);
    }
    let of_another =
        |(first, _): &(&str, &str)| by_name(first).is_some() || keys::forms(key, first).is_some();
    let part = key.split_once('.').filter(of_another).map_or(key, |(_, part)| part);
    let own = metadata.text("general.architecture").map(|arch| format!("{arch}.{part}"));
    if let Some(own) = own.filter(|own| own != key && metadata.get(own).is_some()) {
        return meant(&own);
    }
    let near = metadata.iter().map(|(own, _)| (letters_apart(key, own), own)).min();
    near.filter(|n| n.0 <= 2).map_or(String::new(), |(_, own)| meant(own))
}

/// Splits "KEY=FILE", where the file's name is any that the system allows.
///
/// # Errors
/// A message if there is no equals sign, nothing before it, or a key that is no text.
pub fn key_file(text: OsString) -> std::result::Result<(String, PathBuf), String> {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        let bytes = text.as_bytes();
        if let Some(at) = bytes.iter().position(|&b| b == b'=').filter(|&at| at > 0)
            && let Ok(key) = str::from_utf8(&bytes[..at])
        {
            return Ok((key.into(), OsStr::from_bytes(&bytes[at + 1..]).into()));
        }
    }
    let (key, file) = key_value(&text.to_string_lossy())?;
    match text.to_str() {
        Some(_) => Ok((key, file.into())),
        None => Err(format!("{text:?} is not Unicode")),
    }
}

/// Splits "KEY=VALUE".
///
/// # Errors
/// A message if there is no equals sign, or nothing before it.
pub fn key_value(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_string(), value.to_string())),
        _ => Err(format!("{text:?} must have the form KEY=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::metadata::Array;

    #[test]
    fn edits_say_what_is_wrong() {
        let mut m = Metadata::new();
        m.set("a", Value::U32(1));
        m.set("b", Value::U32(1));
        let none: Vec<String> = Vec::new();
        assert_eq!(Edit::Set("a".into(), "2".into()).apply(&mut m, &RunFiles::default()).unwrap(), none);
        assert_eq!(m.get("a"), Some(&Value::U32(2)));
        for bad in [
            Edit::Rename("a".into(), "b".into()),
            Edit::Rename("x".into(), "y".into()),
            Edit::Set("a".into(), "-1".into()),
            Edit::Set("split.count".into(), "2".into()),
            Edit::Rename("a".into(), "split.count".into()),
            Edit::Rename("a".into(), String::new()),
            Edit::Set("a".repeat(65536), "2".into()),
            Edit::SetFile(":str".into(), "x".into()),
        ] {
            assert!(matches!(bad.apply(&mut m, &RunFiles::default()), Err(Error::Usage { .. })), "{bad:?}");
        }
    }

    #[test]
    fn a_key_keeps_its_type_or_gets_the_one_that_programs_take() {
        let mut m = Metadata::new();
        m.set("general.architecture", Value::text("mamba"));
        for (key, value) in [
            ("a.u8", Value::U8(1)),
            ("a.text", Value::text("x")),
            ("a.list", Value::Array(Array::of_strings(["x"]))),
            ("mamba.block_count", Value::U64(2)),
            ("mamba.feed_forward_length", Value::Array(Array::new(Kind::I32, [Value::I32(8)]).unwrap())),
        ] {
            m.set(key, value);
        }
        let mut set = |key: &str, text: &str| {
            let notes = Edit::Set(key.into(), text.into()).apply(&mut m, &RunFiles::default());
            (m.get(key).map(|v| Form::of(v).to_string()).unwrap_or_default(), notes)
        };
        for (key, text, form, note) in [
            ("a.u8", "7", "u8", ""),
            ("a.u8", "u32:300", "u32", "its type changes from u8 to u32"),
            ("a.text", "7", "str", ""),
            ("a.text", "i32:7", "i32", "from str to i32"),
            ("a.list", "[\"7\"]", "[str]", ""),
            ("a.list", "[u8]:[7]", "[u8]", "from [str] to [u8]"),
            // What programs take as one type only.
            ("mamba.block_count", "3", "u32", "from u64 to u32"),
            ("mamba.feed_forward_length", "[8, 9]", "[i32]", ""),
            ("mamba.attention.head_count", "[8, 9]", "[u32]", "is new"),
            ("mamba.attention.head_count", "8", "u32", "from [u32] to u32"),
            ("mamba.attention.head_count", "[8, 9]", "[u32]", "from u32 to [u32]"),
            ("tokenizer.chat_template", "[INST] x", "str", "is new"),
            ("tokenizer.chat_template", "[]", "str", ""),
            ("mamba.attention.scale", "1", "f32", "is new"),
            ("mamba.attention.causal", "false", "bool", "is new"),
            ("general.version", "2", "str", "is new"),
            ("general.tags", "[\"a\"]", "[str]", "is new"),
            ("tokenizer.ggml.eot_token_id", "7", "u32", "is new"),
            ("mine.size", "7", "u32", "is new"),
            // Without the architecture's name, and with another one.
            ("block_count", "3", "u32", "is mamba.block_count meant?"),
            ("llama.block_count", "3", "u32", "is mamba.block_count meant?"),
            ("gpt2.block_count", "3", "u32", "is mamba.block_count meant?"),
            ("general.license", "Cargo.toml", "str", "of type str"),
            ("general.description", "Cargo.toml", "str", "--set-file general.description=Cargo.toml"),
        ] {
            let (found, notes) = set(key, text);
            let notes = notes.unwrap().join("\n");
            assert!(
                found == form && notes.contains(note) && notes.is_empty() == note.is_empty(),
                "{key} {notes}"
            );
        }
        for (key, text, says, hint) in [
            ("a.u8", "x", "\"x\" is not a valid u32", "--set a.u8=str:VALUE"),
            ("mamba.block_count", "3.5", "is not a valid u32", "programs take it as u32 only"),
            ("mamba.attention.head_count", "x", "is not a valid u32", "u32 or [u32] or [i32]"),
            ("mamba.attention.causal", "0", "\"0\" is not a valid bool", "bool only"),
        ] {
            let why = set(key, text).1.unwrap_err();
            assert!(
                why.to_string().contains(says) && why.hint().unwrap().contains(hint),
                "{why} {:?}",
                why.hint()
            );
        }
    }

    #[test]
    fn keys_that_are_not_there_are_named() {
        let mut m = Metadata::new();
        m.set("general.name", Value::text("x"));
        m.set("tokenizer.chat_template", Value::text(""));
        let mut said = |edit: Edit| edit.apply(&mut m, &RunFiles::default()).unwrap().join("\n");
        let set = |key: &str| Edit::Set(key.into(), "7".into());
        assert_eq!(said(set("general.name")), "");
        assert_eq!(said(set("general.size")), "--set general.size: the key is new, with a value of type u32");
        assert!(said(set("tokenizer.chat_tempalte")).ends_with("(is tokenizer.chat_template meant?)"));
        assert_eq!(
            said(Edit::Remove("general.names".into())),
            "--remove general.names: there is no such key (is general.name meant?)"
        );
        assert_eq!(said(Edit::Remove("general.name".into())), "");
    }
}
