//! Token ids to bytes, and bytes that arrive in pieces to text.

use std::borrow::Cow;

use super::bpe::byte_of;
use super::spm::SPACE;
use super::{Scheme, Tokenizer};

impl Tokenizer {
    /// The bytes of a token, which need not be whole characters. Control tokens and the unknown token give their text
    /// with `special`, and nothing without. Ids that are out of range and unused tokens give nothing.
    pub fn piece(&self, id: u32, special: bool) -> Cow<'_, [u8]> {
        let Some(is) = self.tokens.attributes.get(id as usize) else { return Cow::default() };
        let text = self.tokens.text(id);
        if is.control || is.unknown {
            return if special { text.into() } else { Cow::default() };
        }
        if is.user_defined {
            return text.into();
        }
        if is.normal {
            return match &self.scheme {
                Scheme::ByteLevel(_) if !self.rules.escaped_spaces => from_alphabet(text).into(),
                _ => unescaped(text),
            };
        }
        let hex = text.get(3..5).filter(|_| is.byte).and_then(|hex| str::from_utf8(hex).ok());
        hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).map_or(Cow::default(), |b| vec![b].into())
    }

    /// The bytes of a text's tokens, without control tokens. If the vocabulary puts a space before a text, it is
    /// removed.
    pub fn decode(&self, ids: &[u32]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut at_start = self.rules.space_prefix;
        for &id in ids {
            let piece = self.piece(id, false);
            let skip = usize::from(at_start && piece.starts_with(b" "));
            at_start &= piece.is_empty();
            out.extend(&piece[skip..]);
        }
        out
    }

    /// A decoder for the bytes of a text from its start: see [`Stream`].
    pub fn stream(&self) -> Stream {
        Stream { held: Vec::new(), at_start: self.rules.space_prefix }
    }
}

/// The bytes of a text in the byte alphabet; other characters stand for themselves.
fn from_alphabet(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            match byte_of(c) {
                Some(b) => out.push(b),
                None => out.extend(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        out.extend(chunk.invalid());
    }
    out
}

/// The text with spaces in place of U+2581.
fn unescaped(text: &[u8]) -> Cow<'_, [u8]> {
    let mut space = [0; 4];
    let space = SPACE.encode_utf8(&mut space).as_bytes();
    if !text.windows(space.len()).any(|w| w == space) {
        return text.into();
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(&b) = rest.first() {
        match rest.strip_prefix(space) {
            Some(after) => {
                out.push(b' ');
                rest = after;
            }
            None => {
                out.push(b);
                rest = &rest[1..];
            }
        }
    }
    out.into()
}

/// Decodes UTF-8 that arrives in pieces, such as those of [`Tokenizer::piece`]: a character is given when all its bytes
/// are there. [`Tokenizer::stream`] makes one for the start of a text, which removes the space that the vocabulary puts
/// there; the default continues a text.
#[derive(Debug, Clone, Default)]
pub struct Stream {
    /// The first bytes of a character.
    held: Vec<u8>,
    /// Nothing was given yet, and a leading space was added by the vocabulary.
    at_start: bool,
}

impl Stream {
    /// Adds bytes, and gives the characters that they complete; U+FFFD for invalid UTF-8.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        let skip = usize::from(self.at_start && bytes.starts_with(b" "));
        self.at_start &= bytes.is_empty();
        self.held.extend(&bytes[skip..]);
        let held = std::mem::take(&mut self.held);
        let mut text = String::new();
        let mut rest = held.as_slice();
        while !rest.is_empty() {
            match str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    break;
                }
                Err(e) => {
                    let (valid, after) = rest.split_at(e.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    let Some(bad) = e.error_len() else {
                        self.held = after.to_vec();
                        break;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &after[bad..];
                }
            }
        }
        text
    }

    /// What is left at the end of a text: U+FFFD for an incomplete character.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.held).into_owned()
    }
}
