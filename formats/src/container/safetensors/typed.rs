//! Typed metadata as JSON, for containers whose metadata is text: an array of `[key, kind, value]` in order. Nothing is
//! lost but the payload of a NaN.
//!
//! * Integers and bools are those of JSON. Finite floats are numbers that parse to the same float; the others are the
//!   strings "NaN", "inf" and "-inf".
//! * Strings are strings, or arrays of bytes where they are not UTF-8.
//! * Arrays are `[kind, [value, ...]]`. A byte of an array of bools that is neither 0 nor 1 is a number.

use std::fmt::{self, Write as _};

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, SeqAccess, Unexpected, Visitor};
use serde_json::{Value as Json, json};

use super::MAX_KEYS;
use crate::metadata::{Array, Kind, Metadata, Value};

/// Metadata as JSON.
pub fn to_json(metadata: &Metadata) -> Json {
    metadata.iter().map(|(key, value)| json!([key, value.kind().name(), encode(value)])).collect()
}

/// The text of [`to_json`], written value by value: as a tree, an array of bools takes a hundred times its bytes.
pub fn to_text(metadata: &Metadata) -> String {
    let mut text = String::from("[");
    for (i, (key, value)) in metadata.iter().enumerate() {
        let comma = if i > 0 { "," } else { "" };
        let _ = write!(text, "{comma}[{},{},", Json::from(key), Json::from(value.kind().name()));
        match value {
            Value::Array(a) => {
                let _ = write!(text, "[{},[", Json::from(a.kind().name()));
                for (j, item) in items(a).enumerate() {
                    let _ = write!(text, "{}{item}", if j > 0 { "," } else { "" });
                }
                text += "]]";
            }
            value => {
                let _ = write!(text, "{}", encode(value));
            }
        }
        text.push(']');
    }
    text.push(']');
    text
}

/// The third part of an entry of [`to_json`].
pub fn encode(value: &Value) -> Json {
    match value {
        Value::U8(v) => (*v).into(),
        Value::I8(v) => (*v).into(),
        Value::U16(v) => (*v).into(),
        Value::I16(v) => (*v).into(),
        Value::U32(v) => (*v).into(),
        Value::I32(v) => (*v).into(),
        Value::U64(v) => (*v).into(),
        Value::I64(v) => (*v).into(),
        Value::F32(v) => {
            // The fewest digits that mean this f32, unless parsing them as f64 and rounding gives another.
            let short = v.to_string().parse::<f64>().ok().filter(|d| *d as f32 == *v);
            float(short.unwrap_or_else(|| f64::from(*v)))
        }
        Value::F64(v) => float(*v),
        Value::Bool(v) => (*v).into(),
        Value::String(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text.into(),
            Err(_) => bytes.as_slice().into(),
        },
        Value::Array(a) => {
            json!([a.kind().name(), items(a).collect::<Vec<_>>()])
        }
    }
}

/// The values of an array as [`encode`] has them, one after another: all at once they take many times the array's memory.
pub fn items(a: &Array) -> Box<dyn Iterator<Item = Json> + '_> {
    match a.kind() {
        Kind::Bool => Box::new(a.bytes().iter().map(|&b| if b < 2 { (b == 1).into() } else { b.into() })),
        _ => Box::new(a.values().map(|v| encode(&v))),
    }
}

fn float(v: f64) -> Json {
    match serde_json::Number::from_f64(v) {
        Some(number) => Json::Number(number),
        None => if v.is_nan() {
            NAN
        } else if v > 0.0 {
            INFINITE
        } else {
            MINUS_INFINITE
        }
        .into(),
    }
}

const NAN: &str = "NaN";
const INFINITE: &str = "inf";
const MINUS_INFINITE: &str = "-inf";

/// Metadata from the text of what [`to_json`] gives.
///
/// # Errors
/// A text: another structure, a number out of the range of its kind, an empty or duplicate key.
pub fn from_json(json: &Json) -> Result<Metadata, String> {
    json.deserialize_seq(Entries).map_err(|e| e.to_string())
}

/// Metadata from the text of what [`to_json`] makes, without a tree of JSON values in between.
pub(super) fn from_text(text: &str) -> Result<Metadata, String> {
    let mut json = serde_json::Deserializer::from_str(text);
    let metadata = json.deserialize_seq(Entries).and_then(|metadata| json.end().map(|()| metadata));
    metadata.map_err(|e| e.to_string())
}

/// All entries.
struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Metadata;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an array of metadata entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Metadata, A::Error> {
        let mut metadata = Metadata::new();
        while let Some((key, value)) = seq.next_element_seed(Entry)? {
            if key.is_empty() {
                return Err(A::Error::custom("a key is empty"));
            }
            if metadata.len() == MAX_KEYS {
                return Err(A::Error::custom(format!("more than {MAX_KEYS} keys")));
            }
            if metadata.get(&key).is_some() {
                return Err(A::Error::custom(format!("key {key:?} appears twice")));
            }
            metadata.push(key, value);
        }
        Ok(metadata)
    }
}

/// `[key, kind, value]`.
struct Entry;

impl<'de> DeserializeSeed<'de> for Entry {
    type Value = (String, Value);

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Self::Value, D::Error> {
        d.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Entry {
    type Value = (String, Value);

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("[key, kind, value]")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let key: String = seq.next_element()?.ok_or_else(|| A::Error::invalid_length(0, &self))?;
        let kind = next_kind(&mut seq)?.ok_or_else(|| A::Error::invalid_length(1, &self))?;
        let value = seq.next_element_seed(One(kind))?.ok_or_else(|| A::Error::invalid_length(2, &self))?;
        Ok((key, value))
    }
}

fn next_kind<'de, A: SeqAccess<'de>>(seq: &mut A) -> Result<Option<Kind>, A::Error> {
    let Some(name) = seq.next_element::<String>()? else { return Ok(None) };
    let unknown = || A::Error::custom(format!("unknown kind {name:?}"));
    Kind::from_name(&name).map(Some).ok_or_else(unknown)
}

/// One value of a kind.
struct One(Kind);

impl One {
    fn integer<E: Error>(&self, v: i128, found: Unexpected) -> Result<Value, E> {
        let value = match self.0 {
            Kind::U8 => v.try_into().ok().map(Value::U8),
            Kind::I8 => v.try_into().ok().map(Value::I8),
            Kind::U16 => v.try_into().ok().map(Value::U16),
            Kind::I16 => v.try_into().ok().map(Value::I16),
            Kind::U32 => v.try_into().ok().map(Value::U32),
            Kind::I32 => v.try_into().ok().map(Value::I32),
            Kind::U64 => v.try_into().ok().map(Value::U64),
            Kind::I64 => v.try_into().ok().map(Value::I64),
            // Other writers of JSON write floats that are integers without a point.
            Kind::F32 => Some(Value::F32(v as f32)),
            Kind::F64 => Some(Value::F64(v as f64)),
            Kind::Bool | Kind::String | Kind::Array => None,
        };
        value.ok_or_else(|| E::invalid_value(found, self))
    }
}

impl<'de> DeserializeSeed<'de> for One {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for One {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.0 {
            Kind::Array => f.write_str("[kind, [value, ...]]"),
            kind => write!(f, "a value of kind {}", kind.name()),
        }
    }

    fn visit_bool<E: Error>(self, v: bool) -> Result<Value, E> {
        match self.0 {
            Kind::Bool => Ok(Value::Bool(v)),
            _ => Err(E::invalid_type(Unexpected::Bool(v), &self)),
        }
    }

    fn visit_u64<E: Error>(self, v: u64) -> Result<Value, E> {
        self.integer(v.into(), Unexpected::Unsigned(v))
    }

    fn visit_i64<E: Error>(self, v: i64) -> Result<Value, E> {
        self.integer(v.into(), Unexpected::Signed(v))
    }

    fn visit_f64<E: Error>(self, v: f64) -> Result<Value, E> {
        match self.0 {
            Kind::F32 if (v as f32).is_finite() => Ok(Value::F32(v as f32)),
            Kind::F64 if v.is_finite() => Ok(Value::F64(v)),
            _ => Err(E::invalid_value(Unexpected::Float(v), &self)),
        }
    }

    fn visit_str<E: Error>(self, v: &str) -> Result<Value, E> {
        let special = match v {
            NAN => Some(f64::NAN),
            INFINITE => Some(f64::INFINITY),
            MINUS_INFINITE => Some(f64::NEG_INFINITY),
            _ => None,
        };
        match (self.0, special) {
            (Kind::String, _) => Ok(Value::text(v)),
            (Kind::F32, Some(v)) => Ok(Value::F32(v as f32)),
            (Kind::F64, Some(v)) => Ok(Value::F64(v)),
            _ => Err(E::invalid_type(Unexpected::Str(v), &self)),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        match self.0 {
            Kind::String => {
                let mut bytes = Vec::new();
                while let Some(byte) = seq.next_element()? {
                    bytes.push(byte);
                }
                Ok(Value::String(bytes))
            }
            Kind::Array => {
                let kind = next_kind(&mut seq)?.ok_or_else(|| A::Error::invalid_length(0, &self))?;
                if kind == Kind::Array {
                    return Err(A::Error::custom("an array of arrays, which GGUF readers do not support"));
                }
                let values = seq.next_element_seed(Many(kind))?;
                values.map(Value::Array).ok_or_else(|| A::Error::invalid_length(1, &self))
            }
            _ => Err(A::Error::invalid_type(Unexpected::Seq, &self)),
        }
    }
}

/// The values of an array.
struct Many(Kind);

impl<'de> DeserializeSeed<'de> for Many {
    type Value = Array;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Array, D::Error> {
        d.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Many {
    type Value = Array;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "an array of values of kind {}", self.0.name())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Array, A::Error> {
        let (mut bytes, mut count) = (Vec::new(), 0);
        if self.0 == Kind::Bool {
            while let Some(byte) = seq.next_element_seed(Byte)? {
                bytes.push(byte);
            }
            count = bytes.len();
        } else {
            while let Some(value) = seq.next_element_seed(One(self.0))? {
                bytes.extend(value.to_le());
                count += 1;
            }
        }
        Ok(Array::from_encoded(self.0, count, bytes))
    }
}

/// A byte of an array of bools.
struct Byte;

impl<'de> DeserializeSeed<'de> for Byte {
    type Value = u8;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<u8, D::Error> {
        d.deserialize_any(self)
    }
}

impl Visitor<'_> for Byte {
    type Value = u8;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a bool or a byte")
    }

    fn visit_bool<E: Error>(self, v: bool) -> Result<u8, E> {
        Ok(v.into())
    }

    fn visit_u64<E: Error>(self, v: u64) -> Result<u8, E> {
        u8::try_from(v).map_err(|_| E::invalid_value(Unexpected::Unsigned(v), &self))
    }
}
