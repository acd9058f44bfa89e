//! Reads tokenizer.model: a SentencePiece model (BPE or unigram), which is a protocol buffer.
//!
//! Fields that are read (sentencepiece_model.proto): 1, repeated: a piece, with 1: text, 2: score (f32), 3: type; 2:
//! the trainer's settings, with 3: the algorithm. All others are skipped.

use std::collections::HashSet;

use formats::{Error as FormatError, Fault};

use crate::checkpoint::vocab::files::{Folder, unfit, wrong};
use crate::checkpoint::vocab::tokens::{
    ADDED_SCORE, Token, Tokens, Type, added_tokens_decoder, added_tokens_json,
};
use crate::error::Result;

/// The name of the file.
pub const FILE: &str = "tokenizer.model";

/// Reads the vocabulary: the pieces, then added_tokens.json, then tokenizer_config.json's added tokens, where later
/// ones replace earlier ones. Ids without a row in the embedding are left out, with a note.
pub fn read(
    folder: &mut Folder,
    config: Option<&serde_json::Value>,
    mut tokens: Tokens,
    notes: &mut Vec<String>,
) -> Result<Tokens> {
    let bytes = folder.bytes(FILE)?.unwrap_or_default();
    let name = folder.name(FILE);
    let pieces = pieces(&name, &bytes)?;
    let (rows, found) = (tokens.rows(), pieces.len());
    if found > rows {
        notes.push(format!(
            "{name}: {found} pieces, but the embedding has {rows} rows: the last pieces are left out"
        ));
    }
    for (id, token) in pieces.into_iter().take(rows).enumerate() {
        tokens.set(id as u32, token);
    }
    let mut out = Vec::new();
    for added in added_tokens_json(folder)? {
        let token =
            Token { text: added.text.clone().into_bytes(), score: ADDED_SCORE, kind: Type::UserDefined };
        if !tokens.set(added.id, token) {
            out.push(added.id);
        }
    }
    for added in added_tokens_decoder(folder, config)? {
        if !tokens.set(added.id, added.token()) {
            out.push(added.id);
        }
    }
    if let Some(first) = out.first() {
        let n = out.len();
        notes.push(format!(
            "added tokens beyond the embedding's {rows} rows are left out: id {first}, {n} in all"
        ));
    }
    Ok(tokens)
}

/// The pieces of a model, each with its score and type as they are in the file.
fn pieces(name: &str, bytes: &[u8]) -> Result<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut known = HashSet::new();
    let mut fields = Fields::new(name, bytes, 0);
    while let Some((number, value, at)) = fields.next()? {
        match (number, value) {
            (1, Field::Bytes(piece, start)) => {
                let token = piece_of(name, piece, start)?;
                if token.text.is_empty() {
                    return Err(wrong(name, at, format!("piece {} has no text", tokens.len())));
                }
                if !known.insert(token.text.clone()) {
                    let text = String::from_utf8_lossy(&token.text).into_owned();
                    return Err(wrong(name, at, format!("piece {text:?} appears twice")));
                }
                tokens.push(token);
            }
            (2, Field::Bytes(trainer, start)) => {
                let mut fields = Fields::new(name, trainer, start);
                while let Some((number, value, at)) = fields.next()? {
                    if let (3, Field::Number(algorithm @ 3..)) = (number, value) {
                        let what = format!(
                            "SentencePiece algorithm {algorithm} is not supported; only unigram and BPE are"
                        );
                        return Err(wrong(name, at, what));
                    }
                }
            }
            (1 | 2, _) => {
                return Err(wrong(name, at, "not a SentencePiece model: a field has the wrong type"));
            }
            _ => {}
        }
    }
    if tokens.is_empty() {
        return Err(unfit(name, "not a SentencePiece model: it has no pieces"));
    }
    Ok(tokens)
}

fn piece_of(name: &str, piece: &[u8], start: usize) -> Result<Token> {
    let mut token = Token { text: Vec::new(), score: 0.0, kind: Type::Normal };
    let mut fields = Fields::new(name, piece, start);
    while let Some((number, value, at)) = fields.next()? {
        match (number, value) {
            (1, Field::Bytes(text, start)) => {
                if let Err(e) = std::str::from_utf8(text) {
                    return Err(wrong(name, start + e.valid_up_to(), "the text of a piece is not UTF-8"));
                }
                token.text = text.to_vec();
            }
            (2, Field::Word(score)) => token.score = f32::from_le_bytes(score),
            (3, Field::Number(kind)) => {
                token.kind = match kind {
                    // 4 is user-defined. convert_hf_to_gguf.py leaves those as normal pieces, and llama.cpp
                    // merges them by their score like SentencePiece.
                    1 | 4 => Type::Normal,
                    2 => Type::Unknown,
                    3 => Type::Control,
                    5 => Type::Unused,
                    6 => Type::Byte,
                    _ => return Err(wrong(name, at, format!("piece type must be 1 to 6 (found {kind})"))),
                }
            }
            (1..=3, _) => {
                return Err(wrong(name, at, "not a SentencePiece model: a field has the wrong type"));
            }
            _ => {}
        }
    }
    Ok(token)
}

/// The value of a field. Bytes come with their offset in the file.
#[derive(Clone, Copy)]
enum Field<'a> {
    Number(u64),
    Word([u8; 4]),
    Bytes(&'a [u8], usize),
    /// Eight bytes, which no field that is read has.
    Other,
}

/// The fields of a message, one by one.
struct Fields<'a> {
    name: &'a str,
    bytes: &'a [u8],
    /// The next byte, counted in `bytes`.
    at: usize,
    /// Where the message begins in the file.
    start: usize,
}

impl<'a> Fields<'a> {
    fn new(name: &'a str, bytes: &'a [u8], start: usize) -> Self {
        Self { name, bytes, at: 0, start }
    }

    /// The next field: its number, its value and its byte offset in the file.
    fn next(&mut self) -> Result<Option<(u64, Field<'a>, usize)>> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let at = self.start + self.at;
        let tag = self.number()?;
        let value = match tag & 7 {
            0 => Field::Number(self.number()?),
            1 => {
                self.take(8)?;
                Field::Other
            }
            2 => {
                let len = self.number()?;
                let start = self.start + self.at;
                Field::Bytes(self.take(len)?, start)
            }
            5 => Field::Word(self.take(4)?.try_into().expect("four bytes were taken")),
            kind => {
                let what =
                    format!("not a SentencePiece model: wire type {kind} (truncated or damaged download?)");
                return Err(wrong(self.name, at, what));
            }
        };
        if tag >> 3 == 0 {
            return Err(wrong(
                self.name,
                at,
                "not a SentencePiece model: field 0 (truncated or damaged download?)",
            ));
        }
        Ok(Some((tag >> 3, value, at)))
    }

    /// A varint: seven bits a byte, the lowest first.
    fn number(&mut self) -> Result<u64> {
        let at = self.at;
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(wrong(self.name, self.start + at, "not a SentencePiece model: a number of more than 64 bits"))
    }

    fn take(&mut self, n: u64) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        match usize::try_from(n).ok().and_then(|n| rest.get(..n)) {
            Some(taken) => {
                self.at += taken.len();
                Ok(taken)
            }
            None => {
                let at = (self.start + self.at) as u64;
                let (what, end) = ("an item".into(), at.saturating_add(n));
                let len = (self.start + self.bytes.len()) as u64;
                Err(FormatError::at(self.name, at, Fault::Ends { what, end, len }).into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::vocab::testing::{model, piece};

    #[test]
    fn pieces_keep_scores_and_types() {
        let file = model(&[
            piece("<unk>", 0.0, 2),
            piece("<s>", 0.0, 3),
            piece("a", -1e9, 1),
            piece("<0x0A>", 0.0, 6),
        ]);
        let tokens = pieces("m", &file).unwrap();
        let kinds: Vec<_> = tokens.iter().map(|t| t.kind).collect();
        assert_eq!(kinds, [Type::Unknown, Type::Control, Type::Normal, Type::Byte]);
        assert_eq!((&tokens[2].text[..], tokens[2].score), (&b"a"[..], -1e9));
    }

    #[test]
    fn errors_have_their_byte_offset() {
        let file = model(&[piece("<unk>", 0.0, 2), piece("a", -1.0, 1)]);
        let error = |bytes: &[u8]| pieces("m", bytes).unwrap_err().to_string();
        assert!(
            error(&file[..file.len() - 1]).contains("(at byte 30)"),
            "{}",
            error(&file[..file.len() - 1])
        );
        assert!(error(b"").contains("no pieces"));
        assert!(error(&[7]).contains("wire type 7"));
        assert!(error(&[0xff; 12]).contains("64 bits"));
        assert!(error(&model(&[piece("a", 0.0, 1), piece("a", 0.0, 1)])).contains("twice"));
        assert!(error(&model(&[piece("", 0.0, 1)])).contains("no text"));
        assert!(error(&model(&[piece("a", 0.0, 7)])).contains("found 7"));
        // A length of 2^60 must not be allocated.
        assert!(error(&[0x0a, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10]).contains("ends at"));
    }

    proptest::proptest! {
        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>) {
            let _ = pieces("m", &bytes);
        }

        #[test]
        fn damaged_models_never_panic(at in 0usize..60, byte: u8, cut in 0usize..60) {
            let mut file = model(&[piece("<unk>", 0.0, 2), piece("<s>", 0.0, 3), piece("ab", -1.0, 1)]);
            let at = at % file.len();
            file[at] = byte;
            file.truncate(file.len() - cut % file.len());
            let _ = pieces("m", &file);
        }
    }
}
