//! Values of metadata as users write them, on the command line or in files.

use std::fmt;

use formats::metadata::{Array, Kind, Value};
use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};

use crate::arch::keys::Form;

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
pub(super) fn file_value(
    text: &str,
    kind: Option<&str>,
    usual: Option<Form>,
) -> std::result::Result<Value, String> {
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
}
