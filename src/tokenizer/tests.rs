//! What the tests share: small vocabularies, and the files of large ones.

mod bytes;
mod files;
mod hostile;
mod pieces;
mod words;

use formats::metadata::{Array, Kind, Metadata, Value};

use super::Tokenizer;

/// Types of tokens.
pub const NORMAL: i32 = 1;
pub const UNKNOWN: i32 = 2;
pub const CONTROL: i32 = 3;
pub const USER_DEFINED: i32 = 4;
pub const BYTE: i32 = 6;

pub fn array(kind: Kind, values: impl IntoIterator<Item = Value>) -> Value {
    let values: Vec<Value> = values.into_iter().collect();
    Value::Array(Array::new(kind, &values).unwrap())
}

/// The keys of a vocabulary of texts, scores and types.
pub fn metadata(model: &str, tokens: &[(String, f32, i32)]) -> Metadata {
    let mut m = Metadata::new();
    m.set("tokenizer.ggml.model", Value::text(model));
    m.set("tokenizer.ggml.tokens", Value::Array(Array::of_strings(tokens.iter().map(|t| &t.0))));
    m.set("tokenizer.ggml.scores", array(Kind::F32, tokens.iter().map(|t| Value::F32(t.1))));
    m.set("tokenizer.ggml.token_type", array(Kind::I32, tokens.iter().map(|t| Value::I32(t.2))));
    m
}

/// A SentencePiece vocabulary: `<unk>` 0, `<s>` 1, `</s>` 2, byte b at 3 + b, and from 259 on these, whose scores
/// fall from 0.
pub fn sentencepiece(pieces: &[&str]) -> Metadata {
    let mut tokens =
        vec![("<unk>".into(), 0.0, UNKNOWN), ("<s>".into(), 0.0, CONTROL), ("</s>".into(), 0.0, CONTROL)];
    tokens.extend((0..=255).map(|b| (format!("<0x{b:02X}>"), 0.0, BYTE)));
    tokens.extend(pieces.iter().zip(0u8..).map(|(piece, i)| (piece.to_string(), -f32::from(i), NORMAL)));
    metadata("llama", &tokens)
}

/// A byte-level vocabulary: byte b at b, then what the merges make in their order, then these control tokens.
pub fn byte_level(pre: &str, merges: &[&str], control: &[&str]) -> Metadata {
    let bytes = super::bpe::byte_chars().map(|c| (c.to_string(), 0.0, NORMAL));
    let made = merges.iter().map(|merge| (merge.replacen(' ', "", 1), 0.0, NORMAL));
    let control = control.iter().map(|text| (text.to_string(), 0.0, CONTROL));
    let mut m = metadata("gpt2", &bytes.into_iter().chain(made).chain(control).collect::<Vec<_>>());
    m.set("tokenizer.ggml.pre", Value::text(pre));
    m.set("tokenizer.ggml.merges", Value::Array(Array::of_strings(merges)));
    m
}

/// The metadata with one key set.
pub fn with(mut m: Metadata, key: &str, value: Value) -> Metadata {
    m.set(&format!("tokenizer.ggml.{key}"), value);
    m
}

pub fn made(m: &Metadata) -> Tokenizer {
    Tokenizer::from_metadata(m).unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
