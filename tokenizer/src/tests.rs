//! What the tests share.

mod bytes;
mod hostile;
mod pieces;
mod words;

use formats::metadata::{Array, Kind, Metadata, Value};

use super::Tokenizer;
pub use super::testing::*;

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
