//! Changes of metadata, parsed from the command line.

use std::borrow::Cow;
#[cfg(unix)]
use std::ffi::OsStr;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use formats::metadata::{Array, Kind, Metadata, Value};
use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};

use crate::arch::by_name;
use crate::arch::keys::{self, Form};
use crate::disk::RunFiles;
use crate::error::{Error, Result};
use crate::text::letters_apart;
use crate::tokenizer::text_file;

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
        match self {
            Self::Set(key, text) => {
                let value = parse_value(text, usual(key, text, metadata))
                    .map_err(|e| usage(format!("--set {key}: {e}")).or(other_type(key, metadata)))?;
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

/// Refuses changes of settings in a checkpoint that is copied with its files, in which config.json and the tokenizer's files
/// say what the keys of a GGUF would: programs would not see them.
///
/// # Errors
/// [`Error::Usage`] with the first such key.
pub(super) fn refuse_settings(edits: &[Edit]) -> Result<()> {
    let is_setting = |key: &str| {
        let first = key.split('.').next().unwrap_or(key);
        key.contains('.') && (["general", "tokenizer"].contains(&first) || by_name(first).is_some())
    };
    for edit in edits {
        if let Some(key) = edit.keys().find(|key| is_setting(key)) {
            let why = "a checkpoint has its settings in config.json and its tokenizer in files of its own";
            return Err(Error::usage(format!("{} {key}: {why}", edit.option()))
                .or("name an output that ends in .gguf, or change these files in a copy of the folder"));
        }
    }
    Ok(())
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

/// A question that names the key of the model that differs from `key` in a letter or two, if there is one.
fn similar(key: &str, metadata: &Metadata) -> String {
    let near = metadata.iter().map(|(own, _)| (letters_apart(key, own), own)).min();
    near.filter(|n| n.0 <= 2).map_or(String::new(), |(_, own)| format!(" (is {own} meant?)"))
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

/// Parses a value: `u32:7`, `f32:1e-5`, `str:text`, `bool:true`, `[i32]:[1, 2]`. Without a type, the value gets the type
/// `usual`; without that too, a bool, integer or decimal number if the text looks like one, and otherwise a string.
///
/// # Errors
/// A message if the text does not parse, or does not fit the type.
pub fn parse_value(text: &str, usual: Option<Form>) -> std::result::Result<Value, String> {
    if let Some((kind, rest)) = text.split_once(':') {
        if let Some(kind) = Kind::from_name(kind).filter(|&k| k != Kind::Array) {
            return scalar(kind, rest);
        }
        if let Some(kind) = array_kind(kind) {
            return array(kind, rest);
        }
    }
    match usual {
        Some(Form::List(kind)) => array(kind, text),
        Some(Form::One(kind)) => scalar(kind, text),
        None => {
            let kinds = [Kind::Bool, Kind::U32, Kind::I32, Kind::U64, Kind::I64, Kind::F32, Kind::F64];
            let guess = kinds.into_iter().find_map(|kind| scalar(kind, text).ok());
            Ok(guess.unwrap_or_else(|| Value::text(text)))
        }
    }
}

/// "[str]" → string.
fn array_kind(text: &str) -> Option<Kind> {
    Kind::from_name(text.strip_prefix('[')?.strip_suffix(']')?).filter(|&k| k != Kind::Array)
}

fn scalar(kind: Kind, text: &str) -> std::result::Result<Value, String> {
    fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
        text.trim().parse().ok()
    }
    let value = match kind {
        Kind::U8 => number(text).map(Value::U8),
        Kind::I8 => number(text).map(Value::I8),
        Kind::U16 => number(text).map(Value::U16),
        Kind::I16 => number(text).map(Value::I16),
        Kind::U32 => number(text).map(Value::U32),
        Kind::I32 => number(text).map(Value::I32),
        Kind::U64 => number(text).map(Value::U64),
        Kind::I64 => number(text).map(Value::I64),
        // "inf" and "nan" would parse, but no metadata should contain them. Nor is a small number zero.
        Kind::F32 => number(text)
            .filter(|x: &f32| x.is_finite() && (*x != 0.0 || number(text) == Some(0f64)))
            .map(Value::F32),
        Kind::F64 => number(text).filter(|x: &f64| x.is_finite()).map(Value::F64),
        Kind::Bool => number(text).map(Value::Bool),
        Kind::String => Some(Value::text(text)),
        Kind::Array => None,
    };
    value.ok_or_else(|| format!("{text:?} is not a valid {}", kind.name()))
}

fn array(kind: Kind, json: &str) -> std::result::Result<Value, String> {
    let mut reader = serde_json::Deserializer::from_str(json);
    let array = Elements(kind).deserialize(&mut reader).and_then(|array| reader.end().map(|()| array));
    array.map(Value::Array).map_err(|e| match e.to_string().split_once(NO_VALUE) {
        Some((_, why)) => why.rsplit_once(" at line ").map_or(why, |(why, _)| why).to_string(),
        None => format!("is not a JSON array: {e}"),
    })
}

/// Marks an error of a value, whose place in the text says nothing to who has written the values.
const NO_VALUE: &str = "\u{0}";

/// The elements of a JSON array, of this kind each. They are encoded one by one: as a tree, a list of short numbers would
/// take many times the memory of its text.
struct Elements(Kind);

impl<'de> DeserializeSeed<'de> for Elements {
    type Value = Array;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> std::result::Result<Array, D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Elements {
    type Value = Array;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Array, A::Error> {
        let kind = self.0;
        let mut failed = None;
        let values = std::iter::from_fn(|| {
            let value = list.next_element::<serde_json::Value>().transpose()?.and_then(|v| {
                let value = match &v {
                    serde_json::Value::String(s) => scalar(kind, s),
                    // A string array takes strings only: 1 and "1" are different tokens.
                    _ if kind == Kind::String => Err(format!("{v} is not a string")),
                    v => scalar(kind, &v.to_string()),
                };
                value.map_err(|why| A::Error::custom(format!("{NO_VALUE}{why}")))
            });
            value.map_err(|e| failed = Some(e)).ok()
        });
        let array = Array::new(kind, values);
        failed.map_or_else(|| Ok(array.expect("all values have been made of this kind")), Err)
    }
}

/// The value that a file's text is: of the type that the user names, or else of the usual one.
fn file_value(text: &str, kind: Option<&str>, usual: Option<Form>) -> std::result::Result<Value, String> {
    match (kind, usual) {
        (Some("str"), _) | (None, None | Some(Form::One(Kind::String))) => Ok(Value::text(text)),
        (Some(kind), _) => match array_kind(kind) {
            Some(kind) => array(kind, text),
            None => {
                Err(format!("the type must be str or an array type such as [str] or [f32] (found {kind})"))
            }
        },
        (None, Some(Form::List(kind))) => array(kind, text),
        (None, Some(Form::One(kind))) => scalar(kind, text.trim()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_by_type() {
        for (text, value) in [
            ("u32:7", Value::U32(7)),
            ("i8:-1", Value::I8(-1)),
            ("u64:18446744073709551615", Value::U64(u64::MAX)),
            ("f32:1e-5", Value::F32(1e-5)),
            ("str:u32:7", Value::text("u32:7")),
            ("true", Value::Bool(true)),
            ("7", Value::U32(7)),
            ("-7", Value::I32(-7)),
            ("5000000000", Value::U64(5_000_000_000)),
            ("0.5", Value::F32(0.5)),
            ("llama", Value::text("llama")),
            ("", Value::text("")),
            ("[str]:[\"a\",\"1\"]", Value::Array(Array::of_strings(["a", "1"]))),
            ("[i32]:[]", Value::Array(Array::new(Kind::I32, &[]).unwrap())),
        ] {
            assert_eq!(parse_value(text, None), Ok(value), "{text}");
        }
        assert_eq!(parse_value("7", Some(Form::One(Kind::F32))), Ok(Value::F32(7.0)));
        assert_eq!(parse_value("7", Some(Form::One(Kind::String))), Ok(Value::text("7")));
        for text in
            ["f32:1e-60", "u8:256", "u32:-1", "bool:2", "f32:inf", "[u8]:[300]", "[str]:[1]", "[u8]:7"]
        {
            assert!(parse_value(text, None).is_err(), "{text}");
        }
    }

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
