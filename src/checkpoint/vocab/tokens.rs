//! The tokens of a vocabulary: text, score and type of every id.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::arch::settings::Reader;
use crate::checkpoint::vocab::files::{Folder, TOKENIZER_CONFIG, unfit};
use crate::error::{Error, Result};

/// The most tokens of a vocabulary, or rows of an embedding (the largest published vocabulary has a million tokens). The
/// limit keeps files that are damaged or made to do harm from using all memory. Lower in unit tests, which go beyond it.
pub const MOST_TOKENS: u64 = if cfg!(test) { 1 << 19 } else { 1 << 21 };

/// The type of a token, with its number in `tokenizer.ggml.token_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Type {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

/// The score of added tokens, as in convert_hf_to_gguf.py. By it, [`crate::tokenizer`] tells them from a model's own symbols.
pub(crate) use crate::tokenizer::ADDED_SCORE;
/// The score of ids without a token.
const PADDING_SCORE: f32 = -10000.0;

/// A token of a vocabulary.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    pub text: Vec<u8>,
    pub score: f32,
    pub kind: Type,
}

/// A token that was added to a vocabulary: by tokenizer.json, tokenizer_config.json or added_tokens.json.
#[derive(Debug, Clone, PartialEq)]
pub struct Added {
    pub id: u32,
    pub text: String,
    pub special: bool,
}

impl Added {
    /// Its type. Control tokens are those marked as special, and some that are not marked (deepseek-coder, command-r,
    /// gemma) but look like it.
    pub fn kind(&self) -> Type {
        if self.special || looks_special(&self.text) { Type::Control } else { Type::UserDefined }
    }

    /// The token as llama.cpp expects it: user-defined tokens have plain spaces, since they are looked for in the
    /// original text.
    pub fn token(&self) -> Token {
        let kind = self.kind();
        let text =
            if kind == Type::UserDefined { self.text.replace('\u{2581}', " ") } else { self.text.clone() };
        Token { text: text.into_bytes(), score: ADDED_SCORE, kind }
    }
}

fn looks_special(text: &str) -> bool {
    let between = |start, end| text.starts_with(start) && text.ends_with(end);
    matches!(text, "<pad>" | "<mask>" | "<2mass>" | "[@BOS@]")
        || between("<|", "|>")
        || between("<\u{ff5c}", "\u{ff5c}>")
        || between("<unused", ">")
}

/// Tokens by id, at most as many as the embedding has rows.
pub struct Tokens {
    rows: usize,
    /// By id, up to the highest that has a token.
    list: Vec<Option<Token>>,
    /// The added tokens that have no row.
    left_out: BTreeMap<u32, Vec<u8>>,
}

impl Tokens {
    /// An empty vocabulary for an embedding of `rows` rows.
    ///
    /// # Errors
    /// [`Error::Refused`] for no rows, or more than 2,097,152.
    pub fn new(rows: u64) -> Result<Self> {
        if rows == 0 || rows > MOST_TOKENS {
            return Err(Error::refused(format!("vocab_size must be from 1 to {MOST_TOKENS} (found {rows})")));
        }
        Ok(Self { rows: rows as usize, list: Vec::new(), left_out: BTreeMap::new() })
    }

    /// The number of rows of the embedding.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of ids with a token.
    pub fn len(&self) -> usize {
        self.list.iter().flatten().count()
    }

    /// Whether an id has a row in the embedding.
    pub fn fits(&self, id: u32) -> bool {
        (id as usize) < self.rows
    }

    /// The token of an id.
    pub fn get(&self, id: u32) -> Option<&Token> {
        self.list.get(id as usize)?.as_ref()
    }

    /// Sets the token of an id. False, and nothing changes, if the id has no row.
    pub fn set(&mut self, id: u32, token: Token) -> bool {
        let fits = self.fits(id);
        if fits {
            let id = id as usize;
            if id >= self.list.len() {
                self.list.resize(id + 1, None);
            }
            self.list[id] = Some(token);
        }
        fits
    }

    /// Sets an added token. Without a row it is left out, as [`Self::note`] says: programs that load such a checkpoint
    /// run it as long as no text has the token.
    pub fn add(&mut self, id: u32, token: Token) {
        if !self.fits(id) {
            self.left_out.insert(id, token.text);
        } else {
            self.set(id, token);
        }
    }

    /// The id of an added token that was left out.
    pub fn left_out(&self, text: &str) -> Option<u32> {
        self.left_out.iter().find(|(_, own)| own[..] == *text.as_bytes()).map(|(id, _)| *id)
    }

    /// A note on the added tokens that were left out.
    pub fn note(&self) -> Option<String> {
        let (rows, (first, _), n) = (self.rows, self.left_out.first_key_value()?, self.left_out.len());
        Some(format!("added tokens beyond the embedding's {rows} rows are left out: id {first}, {n} in all"))
    }

    /// All tokens in the order of ids, as many as the embedding has rows; ids without a token get `[PADn]`.
    pub fn into_list(mut self) -> Vec<Token> {
        self.list.resize(self.rows, None);
        let list = self.list.into_iter().enumerate().map(|(id, token)| {
            token.unwrap_or_else(|| Token {
                text: format!("[PAD{id}]").into_bytes(),
                score: PADDING_SCORE,
                kind: Type::Unused,
            })
        });
        list.collect()
    }
}

/// The error of a vocabulary that has an id without a row in the embedding.
pub fn too_many(file: &str, id: u32, rows: usize) -> Error {
    Error::VocabularyMismatch { file: file.into(), id, rows }
}

/// The tokens of tokenizer_config.json's `added_tokens_decoder`, in the order of the file.
pub fn added_tokens_decoder(folder: &Folder, config: Option<&Value>) -> Result<Vec<Added>> {
    let file = folder.name(TOKENIZER_CONFIG);
    let Some(config) = config else { return Ok(Vec::new()) };
    let map = Reader(config).object("added_tokens_decoder").map_err(|why| unfit(&file, why))?;
    let Some(map) = map else { return Ok(Vec::new()) };
    let one = |(key, value): (&String, &Value)| {
        let id = key.parse().ok();
        let text = value.get("content").and_then(Value::as_str);
        let (Some(id), Some(text)) = (id, text) else {
            return Err(unfit(
                &file,
                format!("added_tokens_decoder: {key:?} must be an id with a \"content\""),
            ));
        };
        let special = value.get("special").and_then(Value::as_bool).unwrap_or(false);
        Ok(Added { id, text: text.to_string(), special })
    };
    map.iter().map(one).collect()
}

/// The tokens of added_tokens.json: text and id, in the order of the file.
pub fn added_tokens_json(folder: &mut Folder) -> Result<Vec<Added>> {
    const FILE: &str = "added_tokens.json";
    let Some(json) = folder.object(FILE)? else { return Ok(Vec::new()) };
    let file = folder.name(FILE);
    let one = |(text, id): (&String, &Value)| match id.as_u64().and_then(|id| u32::try_from(id).ok()) {
        Some(id) => Ok(Added { id, text: text.clone(), special: false }),
        None => Err(unfit(&file, format!("{text:?} must have a token id (found {id})"))),
    };
    json.as_object().into_iter().flatten().map(one).collect()
}
