//! Reads tokenizer.model: a SentencePiece model (BPE or unigram), which is a protocol buffer.
//!
//! Fields that are read (sentencepiece_model.proto): 1, repeated: a piece, with 1: text, 2: score (f32), 3: type; 2:
//! the trainer's settings, with 3: the algorithm, 24: whether spaces end words, 41 and 42: the ids of BOS and EOS; 3: the
//! normalizer, with 2: its table, 3: whether a space is put before a text, 4: whether extra spaces are removed, 5: whether
//! spaces become U+2581. All others are skipped. Fields that are missing have the values that the format gives them.

use std::collections::HashSet;

use crate::checkpoint::vocab::files::{Folder, unfit, wrong};
use crate::checkpoint::vocab::json::Json;
use crate::checkpoint::vocab::protobuf::{Field, Fields};
use crate::checkpoint::vocab::tokens::{
    ADDED_SCORE, Added, MOST_TOKENS, Token, Tokens, Type, added_tokens_json, too_many,
};
use crate::error::Result;
use crate::tokenizer::Prepend;

/// The name of the file.
pub const FILE: &str = "tokenizer.model";

/// How a model makes tokens of a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Of all segmentations the most likely one is taken (unigram), rather than merging pairs by their score (BPE).
    pub unigram: bool,
    /// A space is put before a text.
    pub space_prefix: bool,
    /// Where exactly, if a tokenizer.json says so.
    pub prepend: Option<Prepend>,
    /// Several spaces become one, and those at both ends of a text are dropped.
    pub merge_spaces: bool,
    /// The table by which characters are replaced first (`precompiled_charsmap`); empty if there is none.
    pub charsmap: Vec<u8>,
    /// Tokens at the beginning and the end of a text, as the trainer named them.
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    /// There are steps that nothing here does, so some texts get other tokens.
    pub unread: bool,
}

/// A model that was read.
pub struct Pieces {
    /// The name of the file in the folder.
    pub file: String,
    pub list: Vec<Token>,
    pub settings: Settings,
}

/// Fills the vocabulary: the pieces, then added_tokens.json, then `listed`, tokenizer_config.json's added tokens, where
/// later ones replace earlier ones; then those that only tokenizer.json has. Added tokens without a row in the embedding are
/// left out.
///
/// # Errors
/// [`Error::VocabularyMismatch`](crate::Error::VocabularyMismatch) for more pieces than the embedding has rows.
pub fn fill(
    folder: &mut Folder,
    model: Pieces,
    listed: &[Added],
    json: Option<&Json>,
    tokens: &mut Tokens,
) -> Result<Settings> {
    let rows = tokens.rows();
    if let Some(last) = u32::try_from(model.list.len() - 1).ok().filter(|last| !tokens.fits(*last)) {
        return Err(too_many(&folder.name(&model.file), last, rows));
    }
    for (id, token) in (0..).zip(model.list) {
        tokens.set(id, token);
    }
    let is_symbol = |tokens: &Tokens, added: &Added| own_kind(tokens, added) == Some(Type::UserDefined);
    let from_files = added_tokens_json(folder)?;
    let known: HashSet<u32> = from_files.iter().chain(listed).map(|added| added.id).collect();
    for added in from_files {
        if !is_symbol(tokens, &added) {
            let text = added.text.into_bytes();
            tokens.add(added.id, Token { text, score: ADDED_SCORE, kind: Type::UserDefined });
        }
    }
    for added in listed {
        if added.special || !is_symbol(tokens, added) {
            tokens.add(added.id, added.token());
        }
    }
    for added in json.iter().flat_map(|json| &json.added).filter(|added| !known.contains(&added.id)) {
        let own = own_kind(tokens, added).unwrap_or(Type::Normal);
        if own == Type::Normal || (added.special && own == Type::UserDefined) {
            tokens.add(added.id, added.token());
        }
    }
    Ok(model.settings)
}

/// The type of the model's own token that is listed among the added ones. Its symbols stay as they are if they are, since text
/// goes on behind them.
fn own_kind(tokens: &Tokens, added: &Added) -> Option<Type> {
    let token = tokens.get(added.id)?;
    let same = match token.kind {
        Type::UserDefined => token.text == added.text.replace('\u{2581}', " ").as_bytes(),
        _ => token.text == added.text.as_bytes(),
    };
    same.then_some(token.kind)
}

/// Reads all pieces of a model, and how it splits texts. `name` is the file's, for messages.
pub fn whole(name: &str, bytes: &[u8]) -> Result<(Vec<Token>, Settings)> {
    let settings = outline(name, bytes)?;
    let mut tokens = Vec::new();
    pieces(name, bytes, |token| tokens.push(token))?;
    Ok((tokens, settings))
}

/// Checks that a file is whole and has the pieces of a model.
///
/// # Errors
/// What is damaged, with its place.
pub fn check(name: &str, bytes: &[u8]) -> Result<()> {
    let mut count = 0u64;
    pieces(name, bytes, |_| count += 1)?;
    match count {
        0 => Err(unfit(name, "not a SentencePiece model: it has no pieces")),
        _ => Ok(()),
    }
}

/// Reads everything but the pieces, which it counts.
fn outline(name: &str, bytes: &[u8]) -> Result<Settings> {
    let mut settings = Settings {
        unigram: true,
        space_prefix: true,
        prepend: None,
        merge_spaces: true,
        charsmap: Vec::new(),
        bos: Some(1),
        eos: Some(2),
        unread: false,
    };
    let mut pieces = 0u64;
    let mut fields = Fields::new(name, bytes, 0);
    while let Some((number, value, at)) = fields.next()? {
        match (number, value) {
            (1, Field::Bytes(..)) => {
                pieces += 1;
                if pieces > MOST_TOKENS {
                    let what = format!("there are more than {MOST_TOKENS} pieces, which no model has");
                    return Err(wrong(name, at, what));
                }
            }
            (2, Field::Bytes(trainer, start)) => trained(name, trainer, start, &mut settings)?,
            (3, Field::Bytes(normalizer, start)) => normalized(name, normalizer, start, &mut settings)?,
            (1..=3, _) => {
                return Err(wrong(name, at, "not a SentencePiece model: a field has the wrong type"));
            }
            _ => {}
        }
    }
    if pieces == 0 {
        return Err(unfit(name, "not a SentencePiece model: it has no pieces"));
    }
    Ok(settings)
}

/// Reads the trainer's settings.
fn trained(name: &str, trainer: &[u8], start: usize, settings: &mut Settings) -> Result<()> {
    let mut fields = Fields::new(name, trainer, start);
    while let Some((number, value, at)) = fields.next()? {
        match (number, value) {
            (3, Field::Number(algorithm @ (1 | 2))) => settings.unigram = algorithm == 1,
            (3, Field::Number(algorithm)) => {
                let what =
                    format!("SentencePiece algorithm {algorithm} is not supported; only unigram and BPE are");
                return Err(wrong(name, at, what));
            }
            (24, Field::Number(1..)) => {
                let what = "the model has spaces at the end of words (treat_whitespace_as_suffix), which no GGUF \
                            can say";
                return Err(wrong(name, at, what));
            }
            // -1, a number of 64 bits, stands for none.
            (41, Field::Number(id)) => settings.bos = u32::try_from(id).ok(),
            (42, Field::Number(id)) => settings.eos = u32::try_from(id).ok(),
            _ => {}
        }
    }
    Ok(())
}

/// Reads the normalizer's settings.
fn normalized(name: &str, normalizer: &[u8], start: usize, settings: &mut Settings) -> Result<()> {
    let mut fields = Fields::new(name, normalizer, start);
    while let Some((number, value, at)) = fields.next()? {
        match (number, value) {
            (2, Field::Bytes(table, _)) => settings.charsmap = table.to_vec(),
            (3, Field::Number(yes)) => settings.space_prefix = yes != 0,
            (4, Field::Number(yes)) => settings.merge_spaces = yes != 0,
            (5, Field::Number(0)) => {
                let what = "the model keeps spaces as they are (escape_whitespaces), which no GGUF can say";
                return Err(wrong(name, at, what));
            }
            (2..=5, Field::Number(_)) => {}
            (2..=5, _) => {
                return Err(wrong(name, at, "not a SentencePiece model: a field has the wrong type"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Gives the pieces of a model, each with its score and type as they are in the file.
fn pieces(name: &str, bytes: &[u8], mut each: impl FnMut(Token)) -> Result<()> {
    let mut known: HashSet<&[u8]> = HashSet::new();
    let mut fields = Fields::new(name, bytes, 0);
    while let Some((number, value, at)) = fields.next()? {
        let (1, Field::Bytes(piece, start)) = (number, value) else { continue };
        let (text, score, kind) = piece_of(name, piece, start)?;
        if text.is_empty() {
            return Err(wrong(name, at, format!("piece {} has no text", known.len())));
        }
        if !known.insert(text) {
            let text = String::from_utf8_lossy(text).into_owned();
            return Err(wrong(name, at, format!("piece {text:?} appears twice")));
        }
        let text = match kind {
            // Looked for in the text before its spaces are replaced.
            Type::UserDefined => String::from_utf8_lossy(text).replace('\u{2581}', " ").into_bytes(),
            _ => text.to_vec(),
        };
        each(Token { text, score, kind });
    }
    Ok(())
}

fn piece_of<'a>(name: &'a str, piece: &'a [u8], start: usize) -> Result<(&'a [u8], f32, Type)> {
    let (mut found, mut score, mut token_type): (&[u8], _, _) = (&[], 0.0, Type::Normal);
    let mut fields = Fields::new(name, piece, start);
    while let Some((number, value, at)) = fields.next()? {
        match (number, value) {
            (1, Field::Bytes(text, start)) => {
                if let Err(e) = std::str::from_utf8(text) {
                    return Err(wrong(name, start + e.valid_up_to(), "the text of a piece is not UTF-8"));
                }
                found = text;
            }
            (2, Field::Word(bits)) => score = f32::from_le_bytes(bits),
            (3, Field::Number(kind)) => {
                token_type = match kind {
                    1 => Type::Normal,
                    2 => Type::Unknown,
                    3 => Type::Control,
                    // convert_hf_to_gguf.py leaves those as normal pieces, which llama.cpp would merge or not find;
                    // SentencePiece takes them wherever they are.
                    4 => Type::UserDefined,
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
    Ok((found, score, token_type))
}

/// What a file with the name of a SentencePiece model holds, by its content.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Content {
    /// A SentencePiece model, perhaps a damaged one.
    Model,
    /// Another file: what it is, and what to take instead.
    Other(&'static str, &'static str),
}

const TAKE_JSON: &str = "take the tokenizer.json from the model's Hugging Face folder";

/// Recognises what a file holds by its first bytes.
pub fn content(bytes: &[u8]) -> Content {
    if bytes.is_empty() {
        return Content::Other("is empty", "download the file again, or take the model's tokenizer.json");
    }
    // A SentencePiece model has zeros or other control characters within its first piece.
    let start = &bytes[..bytes.len().min(512)];
    let is_text = start.iter().all(|&b| b >= 0x20 || b"\t\r\n".contains(&b));
    let first = start.trim_ascii_start();
    match first.first() {
        _ if is_text && is_tiktoken(first) => {
            Content::Other("is a tiktoken vocabulary (Llama 3's)", TAKE_JSON)
        }
        _ if bytes.starts_with(b"PK\x03\x04") => Content::Other("is a zip archive", TAKE_JSON),
        _ if bytes.starts_with(&[0x1f, 0x8b]) => Content::Other("is compressed (gzip)", "unpack it"),
        Some(b'{') if is_text => Content::Other("is JSON, no SentencePiece model", TAKE_JSON),
        Some(b'<') if is_text => Content::Other("is a web page", "download the file itself"),
        _ if is_text => Content::Other("is text, no SentencePiece model", TAKE_JSON),
        _ => Content::Model,
    }
}

/// Whether a text begins with a line of tiktoken's: base64, a space and a rank.
fn is_tiktoken(text: &[u8]) -> bool {
    let line = text.split(|&b| b == b'\n').next().unwrap_or_default().trim_ascii();
    let mut words = line.split(|&b| b == b' ');
    let (Some(token), Some(rank), None) = (words.next(), words.next(), words.next()) else { return false };
    let base64 = |b: &u8| b.is_ascii_alphanumeric() || b"+/=".contains(b);
    !token.is_empty() && token.iter().all(base64) && !rank.is_empty() && rank.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::vocab::testing::{model, model_with, piece};

    fn all(name: &str, bytes: &[u8]) -> Result<Vec<Token>> {
        whole(name, bytes).map(|(tokens, _)| tokens)
    }

    #[test]
    fn pieces_keep_scores_and_types() {
        let file = model(&[
            piece("<unk>", 0.0, 2),
            piece("<s>", 0.0, 3),
            piece("a", -1e9, 1),
            piece("<0x0A>", 0.0, 6),
        ]);
        let tokens = all("m", &file).unwrap();
        let kinds: Vec<_> = tokens.iter().map(|t| t.kind).collect();
        assert_eq!(kinds, [Type::Unknown, Type::Control, Type::Normal, Type::Byte]);
        assert_eq!((&tokens[2].text[..], tokens[2].score), (&b"a"[..], -1e9));
    }

    #[test]
    fn errors_have_their_byte_offset() {
        let file = model(&[piece("<unk>", 0.0, 2), piece("a", -1.0, 1)]);
        let error = |bytes: &[u8]| all("m", bytes).unwrap_err().to_string();
        let cut = error(&file[..file.len() - 1]);
        let (at, end) = (file.len() - 2, file.len());
        assert!(
            cut.contains(&format!("ends at byte {end}")) && cut.contains(&format!("(at byte {at})")),
            "{cut}"
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

    #[test]
    fn more_pieces_than_any_model_has_are_only_counted() {
        let file = piece("a", 0.0, 1).repeat(MOST_TOKENS as usize + 1);
        let error = all("m", &file).unwrap_err().to_string();
        assert!(error.contains(&format!("more than {MOST_TOKENS} pieces")), "{error}");
    }

    #[test]
    fn what_is_missing_has_the_formats_defaults() {
        let settings = |file: &[u8]| outline("m", file).unwrap();
        let found = settings(&piece("a", 0.0, 1));
        assert!(found.unigram && found.space_prefix && found.merge_spaces && found.charsmap.is_empty());
        assert_eq!((found.bos, found.eos), (Some(1), Some(2)));
        // -1 as the id of BOS, 7 as that of EOS.
        let trainer = [&[0xc8, 0x02][..], &[0xff; 9], &[1, 0xd0, 0x02, 7, 0x18, 2]].concat();
        let found = settings(&model_with(&[piece("a", 0.0, 1)], &trainer, &[0x18, 0]));
        assert_eq!((found.bos, found.eos, found.unigram, found.space_prefix), (None, Some(7), false, false));
    }

    proptest::proptest! {
        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>) {
            let _ = all("m", &bytes);
        }

        #[test]
        fn damaged_models_never_panic(at in 0usize..60, byte: u8, cut in 0usize..60) {
            let mut file = model(&[piece("<unk>", 0.0, 2), piece("<s>", 0.0, 3), piece("ab", -1.0, 1)]);
            let at = at % file.len();
            file[at] = byte;
            file.truncate(file.len() - cut % file.len());
            let _ = (all("m", &file), content(&file));
        }
    }
}
