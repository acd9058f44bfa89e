//! The list of tokens: text, score and type of every id.

use std::collections::HashMap;

use serde_json::Value;

use crate::checkpoint::vocab::files::{Folder, unfit};
use crate::error::{Error, Result};

/// More rows than any published model has (the largest vocabulary has a million); the limit keeps a damaged
/// config.json from asking for all memory.
const MAX_ROWS: u64 = 1 << 22;

/// llama.cpp's types of tokens; the numbers are those of `tokenizer.ggml.token_type`.
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

/// The score of added tokens, and of all tokens where the source has no scores, as convert_hf_to_gguf.py has it.
pub const ADDED_SCORE: f32 = -1000.0;
/// The score of ids without a token.
const PADDING_SCORE: f32 = -10000.0;

/// One id.
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
    /// Its type: control tokens are not part of any text. Some that ought to be are not marked as special by
    /// their makers (deepseek-coder, command-r, gemma) and are known by their look.
    pub fn kind(&self) -> Type {
        if self.special || looks_special(&self.text) { Type::Control } else { Type::UserDefined }
    }

    /// Its text as llama.cpp wants it: user-defined tokens are looked for in the text as it was given.
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

/// Tokens by id, as many as the embedding has rows.
pub struct Tokens {
    rows: usize,
    list: HashMap<u32, Token>,
}

impl Tokens {
    /// No tokens for `rows` rows.
    pub fn new(rows: u64) -> Result<Self> {
        if rows == 0 || rows > MAX_ROWS {
            return Err(Error::refused(format!("a vocabulary of {rows} tokens makes no sense")));
        }
        Ok(Self { rows: rows as usize, list: HashMap::new() })
    }

    /// The rows of the embedding.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many ids have a token.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether an id has a row in the embedding.
    pub fn fits(&self, id: u32) -> bool {
        (id as usize) < self.rows
    }

    /// The token of an id.
    pub fn get(&self, id: u32) -> Option<&Token> {
        self.list.get(&id)
    }

    /// Gives an id its token. False, and nothing done, if it has no row.
    pub fn set(&mut self, id: u32, token: Token) -> bool {
        let fits = self.fits(id);
        if fits {
            self.list.insert(id, token);
        }
        fits
    }

    /// All rows in order; ids without a token are filled up, so that there are as many as the embedding has rows.
    pub fn into_list(mut self) -> Vec<Token> {
        (0..self.rows as u32)
            .map(|id| {
                self.list.remove(&id).unwrap_or_else(|| Token {
                    text: format!("[PAD{id}]").into_bytes(),
                    score: PADDING_SCORE,
                    kind: Type::Unused,
                })
            })
            .collect()
    }
}

/// The error of a vocabulary that has an id beyond the embedding.
pub fn too_many(file: &str, id: u32, rows: usize) -> Error {
    let most = u64::from(id) + 1;
    Error::refused(format!(
        "{file}: the tokenizer has an id {id}, so at least {most} tokens, but the embedding has {rows} rows"
    ))
    .or("the tokenizer's files and the weights are of different models; take them from one checkpoint")
}

/// The tokens of tokenizer_config.json's `added_tokens_decoder`, in the order of the file.
pub fn added_tokens_decoder(folder: &Folder, config: Option<&Value>) -> Result<Vec<Added>> {
    let file = folder.name("tokenizer_config.json");
    let Some(map) = config.and_then(|c| c.get("added_tokens_decoder")).and_then(Value::as_object) else {
        return Ok(Vec::new());
    };
    let one = |(key, value): (&String, &Value)| {
        let id = key.parse().ok();
        let text = value.get("content").and_then(Value::as_str);
        let (Some(id), Some(text)) = (id, text) else {
            return Err(unfit(&file, format!("added_tokens_decoder has no id and content in {key:?}")));
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
        None => Err(unfit(&file, format!("{text:?} has {id} for an id"))),
    };
    json.as_object().into_iter().flatten().map(one).collect()
}
