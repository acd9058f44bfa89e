//! Metadata: ordered keys with typed values, kept exactly as they are in the file.

use std::borrow::Borrow;

use indexmap::IndexMap;

/// The type of a metadata value. The numbers are those of GGUF (`enum gguf_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs)]
pub enum Kind {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

/// Every kind with its name and the bytes of one value; 0 for strings and arrays, whose values differ in length.
pub const KINDS: [(Kind, &str, usize); 13] = [
    (Kind::U8, "u8", 1),
    (Kind::I8, "i8", 1),
    (Kind::U16, "u16", 2),
    (Kind::I16, "i16", 2),
    (Kind::U32, "u32", 4),
    (Kind::I32, "i32", 4),
    (Kind::F32, "f32", 4),
    (Kind::Bool, "bool", 1),
    (Kind::String, "str", 0),
    (Kind::Array, "array", 0),
    (Kind::U64, "u64", 8),
    (Kind::I64, "i64", 8),
    (Kind::F64, "f64", 8),
];

impl Kind {
    /// The kind with this number.
    pub fn from_id(id: u32) -> Option<Self> {
        KINDS.get(id as usize).map(|k| k.0)
    }

    /// The kind with this name, as [`Kind::name`] gives it.
    pub fn from_name(name: &str) -> Option<Self> {
        KINDS.iter().find(|k| k.1 == name).map(|k| k.0)
    }

    /// "u32", "str", "array", ...
    pub fn name(self) -> &'static str {
        KINDS[self as usize].1
    }

    /// The bytes of one value, or 0 for strings and arrays.
    pub fn size(self) -> usize {
        KINDS[self as usize].2
    }
}

/// A metadata value of another type, or out of the range, than its key has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("metadata key {key} must be {expected} (found {found})")]
pub struct WrongValue {
    /// The key.
    pub key: String,
    /// What its value must be, with its article: "a string".
    pub expected: String,
    /// The value's type, and the value unless it is an array.
    pub found: String,
}

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    /// Bytes, since tokens need not be UTF-8.
    String(Vec<u8>),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl Value {
    /// The value's kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::U8(_) => Kind::U8,
            Self::I8(_) => Kind::I8,
            Self::U16(_) => Kind::U16,
            Self::I16(_) => Kind::I16,
            Self::U32(_) => Kind::U32,
            Self::I32(_) => Kind::I32,
            Self::F32(_) => Kind::F32,
            Self::Bool(_) => Kind::Bool,
            Self::String(_) => Kind::String,
            Self::Array(_) => Kind::Array,
            Self::U64(_) => Kind::U64,
            Self::I64(_) => Kind::I64,
            Self::F64(_) => Kind::F64,
        }
    }

    /// A string value, from text.
    pub fn text(text: &str) -> Self {
        Self::String(text.as_bytes().to_vec())
    }

    /// The value of a fixed-size kind from its little-endian bytes; a bool is true unless it is 0. `None` for a
    /// wrong number of bytes and for strings and arrays.
    pub fn from_le(kind: Kind, b: &[u8]) -> Option<Self> {
        Some(match kind {
            Kind::U8 => Self::U8(u8::from_le_bytes(b.try_into().ok()?)),
            Kind::I8 => Self::I8(i8::from_le_bytes(b.try_into().ok()?)),
            Kind::U16 => Self::U16(u16::from_le_bytes(b.try_into().ok()?)),
            Kind::I16 => Self::I16(i16::from_le_bytes(b.try_into().ok()?)),
            Kind::U32 => Self::U32(u32::from_le_bytes(b.try_into().ok()?)),
            Kind::I32 => Self::I32(i32::from_le_bytes(b.try_into().ok()?)),
            Kind::F32 => Self::F32(f32::from_le_bytes(b.try_into().ok()?)),
            Kind::Bool => Self::Bool(u8::from_le_bytes(b.try_into().ok()?) != 0),
            Kind::U64 => Self::U64(u64::from_le_bytes(b.try_into().ok()?)),
            Kind::I64 => Self::I64(i64::from_le_bytes(b.try_into().ok()?)),
            Kind::F64 => Self::F64(f64::from_le_bytes(b.try_into().ok()?)),
            Kind::String | Kind::Array => return None,
        })
    }

    /// The bytes of the value in GGUF v3, little-endian, without its kind.
    pub fn to_le(&self) -> Vec<u8> {
        match self {
            Self::U8(v) => v.to_le_bytes().to_vec(),
            Self::I8(v) => v.to_le_bytes().to_vec(),
            Self::U16(v) => v.to_le_bytes().to_vec(),
            Self::I16(v) => v.to_le_bytes().to_vec(),
            Self::U32(v) => v.to_le_bytes().to_vec(),
            Self::I32(v) => v.to_le_bytes().to_vec(),
            Self::F32(v) => v.to_le_bytes().to_vec(),
            Self::Bool(v) => vec![u8::from(*v)],
            Self::String(s) => [&(s.len() as u64).to_le_bytes()[..], s].concat(),
            Self::Array(a) => {
                let head = [&(a.kind as u32).to_le_bytes()[..], &(a.count as u64).to_le_bytes()].concat();
                [&head[..], &a.bytes].concat()
            }
            Self::U64(v) => v.to_le_bytes().to_vec(),
            Self::I64(v) => v.to_le_bytes().to_vec(),
            Self::F64(v) => v.to_le_bytes().to_vec(),
        }
    }

    /// The value's type, and the value itself unless it is an array, for messages. Long texts are cut.
    pub fn describe(&self) -> String {
        const MOST: usize = 40;
        let kind = self.kind().name();
        match self {
            Self::String(s) => {
                let text = String::from_utf8_lossy(&s[..s.len().min(4 * MOST)]);
                let cut: String = text.chars().take(MOST).collect();
                let more = if cut.len() < s.len() { "…" } else { "" };
                format!("{kind} {cut:?}{more}")
            }
            Self::Array(a) => format!("an array of {} {}", a.len(), a.kind().name()),
            Self::Bool(v) => format!("{kind} {v}"),
            Self::F32(v) => format!("{kind} {v}"),
            Self::F64(v) => format!("{kind} {v}"),
            other => format!("{kind} {}", other.as_i128().unwrap_or_default()),
        }
    }

    /// The value as a `u64`, if it is an integer of any kind and not negative.
    pub fn as_u64(&self) -> Option<u64> {
        self.as_i128().and_then(|v| u64::try_from(v).ok())
    }

    /// The value as a `u64`, or the one number that all values of an array are: what may differ between layers is written
    /// either way.
    pub fn as_common_u64(&self) -> Option<u64> {
        let Some(array) = self.as_array() else { return self.as_u64() };
        let mut values = array.values().map(|v| v.as_u64());
        let first = values.next()??;
        values.all(|v| v == Some(first)).then_some(first)
    }

    /// The value as an `i128`, if it is an integer of any kind.
    pub fn as_i128(&self) -> Option<i128> {
        Some(match *self {
            Self::U8(v) => v.into(),
            Self::I8(v) => v.into(),
            Self::U16(v) => v.into(),
            Self::I16(v) => v.into(),
            Self::U32(v) => v.into(),
            Self::I32(v) => v.into(),
            Self::U64(v) => v.into(),
            Self::I64(v) => v.into(),
            _ => return None,
        })
    }

    /// The value as a float, of either float kind.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Self::F32(v) => Some(v.into()),
            Self::F64(v) => Some(v),
            _ => None,
        }
    }

    /// The value as text, if it is a string and valid UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(s) => std::str::from_utf8(s).ok(),
            _ => None,
        }
    }

    /// The value as an array.
    pub fn as_array(&self) -> Option<&Array> {
        match self {
            Self::Array(a) => Some(a),
            _ => None,
        }
    }
}

/// Values of one kind, kept encoded as in a little-endian GGUF v3 file: a vocabulary of a quarter million tokens is one
/// allocation, and reading and writing change nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    kind: Kind,
    count: usize,
    bytes: Vec<u8>,
}

impl Array {
    /// An array from values, which must all be of `kind`; `None` if one is not, or if `kind` is an array.
    pub fn new<V: Borrow<Value>>(kind: Kind, values: impl IntoIterator<Item = V>) -> Option<Self> {
        if kind == Kind::Array {
            return None;
        }
        let mut array = Self { kind, count: 0, bytes: Vec::new() };
        for value in values {
            let value = value.borrow();
            if value.kind() != kind {
                return None;
            }
            array.bytes.extend(value.to_le());
            array.count += 1;
        }
        Some(array)
    }

    /// An array of strings.
    pub fn of_strings<S: AsRef<[u8]>>(strings: impl IntoIterator<Item = S>) -> Self {
        let mut array = Self { kind: Kind::String, count: 0, bytes: Vec::new() };
        for s in strings {
            array.bytes.extend((s.as_ref().len() as u64).to_le_bytes());
            array.bytes.extend(s.as_ref());
            array.count += 1;
        }
        array
    }

    /// An array from its encoded bytes, of which the caller knows that they are `count` values of `kind`.
    pub(crate) fn from_encoded(kind: Kind, count: usize, bytes: Vec<u8>) -> Self {
        Self { kind, count, bytes }
    }

    /// The kind of its values.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The number of its values.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether it has no values.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Its values as in a little-endian GGUF v3 file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The encoded values, one by one: with their length for strings.
    fn encoded(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.bytes[..];
        (0..self.count).map_while(move |_| {
            let n = match self.kind {
                Kind::String => {
                    let len: [u8; 8] = rest.get(..8)?.try_into().ok()?;
                    usize::try_from(u64::from_le_bytes(len)).ok()?.checked_add(8)?
                }
                kind => kind.size(),
            };
            let (value, tail) = rest.split_at_checked(n)?;
            rest = tail;
            Some(value)
        })
    }

    /// The strings of an array of strings; nothing for another array.
    pub fn strings(&self) -> impl Iterator<Item = &[u8]> {
        self.encoded().filter(|_| self.kind == Kind::String).map(|s| &s[8..])
    }

    /// The values.
    pub fn values(&self) -> impl Iterator<Item = Value> {
        self.encoded().map(|b| match self.kind {
            Kind::String => Value::String(b[8..].to_vec()),
            kind => Value::from_le(kind, b).expect("the array was checked when it was made"),
        })
    }
}

/// Keys and values in the order of the file. Keys are unique. Finding one takes the same time however many there are.
#[derive(Debug, Clone, Default)]
pub struct Metadata(IndexMap<String, Value>);

impl PartialEq for Metadata {
    /// Equal keys and values in the same order.
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Metadata {
    /// No keys.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keys and values in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v))
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// The value of a key that may be missing, as `convert` makes it; `expected` says what that takes. A value that it does
    /// not take is an error rather than a missing one: what reads a setting goes through here.
    ///
    /// # Errors
    /// [`WrongValue`] if there is a value for which `convert` gives `None`.
    pub fn read<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, WrongValue> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let wrong = || WrongValue { key: key.into(), expected: expected.into(), found: value.describe() };
        convert(value).map(Some).ok_or_else(wrong)
    }

    /// A text that may be missing.
    ///
    /// # Errors
    /// [`WrongValue`] for another type, or bytes that are not UTF-8.
    pub fn read_text(&self, key: &str) -> Result<Option<&str>, WrongValue> {
        self.read(key, "a string of UTF-8", Value::as_str)
    }

    /// An integer that may be missing, of any integer type.
    ///
    /// # Errors
    /// [`WrongValue`] for another type, or a negative number.
    pub fn read_count(&self, key: &str) -> Result<Option<u64>, WrongValue> {
        self.read(key, "an integer that is not negative", Value::as_u64)
    }

    /// A finite number that may be missing, of either float type.
    ///
    /// # Errors
    /// [`WrongValue`] for another type, NaN and infinity.
    pub fn read_float(&self, key: &str) -> Result<Option<f64>, WrongValue> {
        self.read(key, "a finite float", |v| v.as_f64().filter(|x| x.is_finite()))
    }

    /// A positive finite number that may be missing, of either float type.
    ///
    /// # Errors
    /// [`WrongValue`] for another type, NaN, infinity, zero and negative numbers.
    pub fn read_positive(&self, key: &str) -> Result<Option<f64>, WrongValue> {
        self.read(key, "a positive float", |v| v.as_f64().filter(|&x| x > 0.0 && (x as f32).is_finite()))
    }

    /// An array that may be missing.
    ///
    /// # Errors
    /// [`WrongValue`] for a value that is none.
    pub fn read_array(&self, key: &str) -> Result<Option<&Array>, WrongValue> {
        self.read(key, "an array", Value::as_array)
    }

    /// The text of a key that has a string; `None` for another type too, for names in messages and reports.
    /// [`Metadata::read_text`] tells the two apart.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }

    /// Sets the value of a key, which keeps its position, or appends the key.
    pub fn set(&mut self, key: &str, value: Value) {
        match self.0.get_mut(key) {
            Some(v) => *v = value,
            None => _ = self.0.insert(key.to_string(), value),
        }
    }

    /// Removes a key and returns its value.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        self.0.shift_remove(key)
    }

    /// Renames a key, which keeps its position. Returns false and does nothing if there is no such key or the new name is
    /// taken.
    pub fn rename(&mut self, key: &str, to: &str) -> bool {
        match self.0.get_index_of(key) {
            Some(at) if !self.0.contains_key(to) => self.0.replace_index(at, to.to_string()).is_ok(),
            _ => false,
        }
    }

    /// Appends a key that is not there yet.
    pub(crate) fn push(&mut self, key: String, value: Value) {
        self.0.insert(key, value);
    }
}

#[cfg(test)]
mod tests;
