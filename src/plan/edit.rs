//! Changes of metadata, parsed from the command line.

#[cfg(unix)]
use std::ffi::OsStr;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use formats::metadata::{Array, Kind, Metadata, Value};
use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};

use crate::disk::RunFiles;
use crate::error::{Error, Result};

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
    /// Applies the change. Gives a note if a key that is set or removed is not there, which is what a misspelt one looks
    /// like.
    ///
    /// # Errors
    /// [`Error::Usage`] if a key that is to be renamed does not exist, if the new name already exists, or if a value does
    /// not parse; those of [`RunFiles::read_text`] for the file.
    pub fn apply(&self, metadata: &mut Metadata, run: &RunFiles) -> Result<Option<String>> {
        let usage = |why: String| Error::usage(why);
        let mut note = None;
        match self {
            Self::Set(key, _) if key.starts_with("split.") => {
                return Err(usage(format!(
                    "--set {key}: the split.* keys follow from the files; use `ggufkit split` and `ggufkit merge`"
                )));
            }
            Self::Set(key, text) => {
                let value =
                    parse_value(text, metadata.get(key)).map_err(|e| usage(format!("--set {key}: {e}")))?;
                note = added("--set", key, &value, metadata);
                metadata.set(key, value);
            }
            Self::SetFile(key, path) => {
                let (key, kind) = match key.split_once(':') {
                    Some((key, kind)) => (key, Some(kind)),
                    None => (key.as_str(), None),
                };
                let bytes = run.read_text(path)?;
                let value = file_value(bytes, kind, metadata.get(key))
                    .map_err(|e| usage(format!("--set-file {key}: {}: {e}", path.display())))?;
                note = added("--set-file", key, &value, metadata);
                metadata.set(key, value);
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
                    note = Some(format!("--remove {key}: there is no such key{}", similar(key, metadata)));
                }
            }
        }
        Ok(note)
    }
}

/// The name that the changes give a model; `None` if they give it none.
pub fn name(edits: &[Edit]) -> Option<String> {
    let text = edits.iter().rev().find_map(|edit| match edit {
        Edit::Set(key, text) if key == "general.name" => Some(text),
        _ => None,
    })?;
    // What does not parse is said where the changes are made.
    parse_value(text, Some(&Value::text(""))).ok()?.as_str().map(str::to_string)
}

/// A note on a key that is new.
fn added(option: &str, key: &str, value: &Value, metadata: &Metadata) -> Option<String> {
    if metadata.get(key).is_some() {
        return None;
    }
    let kind = match value {
        Value::Array(a) => format!("[{}]", a.kind().name()),
        other => other.kind().name().to_string(),
    };
    Some(format!("{option} {key}: the key is new, with a value of type {kind}{}", similar(key, metadata)))
}

/// A question that names the key of the model that differs from `key` in a letter or two, if there is one.
fn similar(key: &str, metadata: &Metadata) -> String {
    let near = metadata.iter().map(|(own, _)| (letters_apart(key, own), own)).min();
    near.filter(|n| n.0 <= 2).map_or(String::new(), |(_, own)| format!(" (is {own} meant?)"))
}

/// The least number of letters to insert, remove or replace that makes one text of the other (Levenshtein's distance);
/// 3 stands for more than two.
fn letters_apart(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > 2 || a.len() > 256 {
        return 3;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()].min(3)
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

/// Parses a value: `u32:7`, `f32:1e-5`, `str:text`, `bool:true`, `[i32]:[1, 2]`. Without a type, the value gets the type of
/// `existing`; a new key gets a bool, integer or decimal number if the text looks like one, and otherwise a string.
///
/// # Errors
/// A message if the text does not parse, or does not fit the type.
pub fn parse_value(text: &str, existing: Option<&Value>) -> std::result::Result<Value, String> {
    if let Some((kind, rest)) = text.split_once(':') {
        if let Some(kind) = Kind::from_name(kind).filter(|&k| k != Kind::Array) {
            return scalar(kind, rest);
        }
        if let Some(kind) = array_kind(kind) {
            return array(kind, rest);
        }
    }
    match existing {
        Some(Value::Array(a)) => array(a.kind(), text),
        Some(value) => scalar(value.kind(), text),
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
        // "inf" and "nan" would parse, but no metadata should contain them.
        Kind::F32 => number(text).filter(|x: &f32| x.is_finite()).map(Value::F32),
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

fn file_value(
    bytes: Vec<u8>,
    kind: Option<&str>,
    existing: Option<&Value>,
) -> std::result::Result<Value, String> {
    let text = || std::str::from_utf8(&bytes).map_err(|_| "is not UTF-8".to_string());
    match (kind, existing) {
        (Some("str"), _) | (None, None | Some(Value::String(_))) => Ok(Value::String(bytes)),
        (Some(kind), _) => match array_kind(kind) {
            Some(kind) => array(kind, text()?),
            None => {
                Err(format!("the type must be str or an array type such as [str] or [f32] (found {kind})"))
            }
        },
        (None, Some(Value::Array(a))) => array(a.kind(), text()?),
        (None, Some(value)) => scalar(value.kind(), text()?.trim()),
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
        assert_eq!(parse_value("7", Some(&Value::F32(1.0))), Ok(Value::F32(7.0)));
        assert_eq!(parse_value("7", Some(&Value::text(""))), Ok(Value::text("7")));
        for text in ["u8:256", "u32:-1", "bool:2", "f32:inf", "[u8]:[300]", "[str]:[1]", "[u8]:7"] {
            assert!(parse_value(text, None).is_err(), "{text}");
        }
    }

    #[test]
    fn edits_say_what_is_wrong() {
        let mut m = Metadata::new();
        m.set("a", Value::U32(1));
        m.set("b", Value::U32(1));
        assert_eq!(Edit::Set("a".into(), "2".into()).apply(&mut m, &RunFiles::default()).unwrap(), None);
        assert_eq!(m.get("a"), Some(&Value::U32(2)));
        for bad in [
            Edit::Rename("a".into(), "b".into()),
            Edit::Rename("x".into(), "y".into()),
            Edit::Set("a".into(), "-1".into()),
        ] {
            assert!(matches!(bad.apply(&mut m, &RunFiles::default()), Err(Error::Usage { .. })), "{bad:?}");
        }
    }

    #[test]
    fn keys_that_are_not_there_are_named() {
        let mut m = Metadata::new();
        m.set("general.name", Value::text("x"));
        m.set("tokenizer.chat_template", Value::text(""));
        let mut said = |edit: Edit| edit.apply(&mut m, &RunFiles::default()).unwrap().unwrap_or_default();
        let set = |key: &str| Edit::Set(key.into(), "7".into());
        assert_eq!(said(set("general.name")), "");
        assert_eq!(said(set("general.size")), "--set general.size: the key is new, with a value of type u32");
        assert!(said(set("tokenizer.chat_tempalte")).ends_with("(is tokenizer.chat_template meant?)"));
        assert_eq!(
            said(Edit::Remove("general.names".into())),
            "--remove general.names: there is no such key (is general.name meant?)"
        );
        assert_eq!(said(Edit::Remove("general.name".into())), "");
        for (a, b, n) in [
            ("", "", 0),
            ("ab", "ab", 0),
            ("ab", "b", 1),
            ("ab", "ba", 2),
            ("abc", "xyz", 3),
            ("a", "abcd", 3),
        ] {
            assert_eq!(letters_apart(a, b), n, "{a} {b}");
        }
    }
}
