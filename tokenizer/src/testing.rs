//! Small vocabularies, for the tests of this crate and of those that use it.

use formats::metadata::{Array, Kind, Metadata, Value};

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
    let bytes = crate::bpe::byte_chars().map(|c| (c.to_string(), 0.0, NORMAL));
    let made = merges.iter().map(|merge| (merge.replacen(' ', "", 1), 0.0, NORMAL));
    let control = control.iter().map(|text| (text.to_string(), 0.0, CONTROL));
    let mut m = metadata("gpt2", &bytes.into_iter().chain(made).chain(control).collect::<Vec<_>>());
    m.set("tokenizer.ggml.pre", Value::text(pre));
    m.set("tokenizer.ggml.merges", Value::Array(Array::of_strings(merges)));
    m
}

/// The table in which these characters of one byte have these replacements.
pub fn table(replaced: &[(u8, &str)]) -> Vec<u8> {
    // The root's offset is 256, a character's unit is at 256 + byte, and what its end leads to at 512 + byte.
    let mut trie = vec![0xffu32; 1024];
    trie[0] = 256 << 10;
    let mut replacements = Vec::new();
    for &(byte, text) in replaced {
        let (at, end) = (256 + u32::from(byte), 512 + u32::from(byte));
        trie[at as usize] = (at ^ end) << 10 | 1 << 8 | u32::from(byte);
        trie[end as usize] = 1 << 31 | replacements.len() as u32;
        replacements.extend(text.as_bytes());
        replacements.push(0);
    }
    let units = trie.iter().flat_map(|unit| unit.to_le_bytes());
    4096u32.to_le_bytes().into_iter().chain(units).chain(replacements).collect()
}
