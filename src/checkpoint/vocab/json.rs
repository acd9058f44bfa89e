//! tokenizer.json (the `tokenizers` crate's file), and vocab.json with merges.txt (GPT-2's).
//!
//! A BPE model in tokenizer.json is one of two kinds: byte-level, where every byte is written as a printable character
//! ("gpt2" in a GGUF); or over characters, with `<0xNN>` tokens for unknown ones, as converted SentencePiece models are
//! ("llama" in a GGUF).

use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::checkpoint::vocab::files::{Folder, parse, parse_part, unfit, wrong};
use crate::checkpoint::vocab::tokens::{ADDED_SCORE, Added, Token, Tokens, Type, too_many};
use crate::error::{Error, Result};

/// The name of the file.
pub const FILE: &str = "tokenizer.json";

/// The parts of a tokenizer.json that are used.
pub struct Json {
    /// The path of the file, for messages.
    pub name: String,
    pub added: Vec<Added>,
    pub normalizer: Value,
    pub pre_tokenizer: Value,
    pub post_processor: Value,
    decoder: Value,
    byte_fallback: Option<bool>,
    pub ignore_merges: bool,
    vocab: Vec<(String, u32)>,
    pub merges: Vec<String>,
}

/// The file's structure. Values that are interpreted later stay JSON.
#[derive(Deserialize)]
struct Root<'a> {
    #[serde(default)]
    added_tokens: Option<Vec<AddedToken>>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
    #[serde(borrow)]
    model: &'a RawValue,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct Model<'a> {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    #[serde(borrow, default)]
    vocab: Option<&'a RawValue>,
    #[serde(borrow, default)]
    merges: Option<&'a RawValue>,
    #[serde(default)]
    byte_fallback: Option<bool>,
    #[serde(default)]
    ignore_merges: Option<bool>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
}

/// The object of tokens and ids, in the order of the file, with duplicate keys.
struct Vocab(Vec<(String, u32)>);

impl<'de> Deserialize<'de> for Vocab {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Vocab;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of tokens and their ids")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Vocab, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Vocab(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// A merge is one string with a space in its middle, or (since transformers 4.45) a pair.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a merge must be a pair of tokens, or two tokens with a space between them")]
enum Merge {
    Text(String),
    Pair(String, String),
}

impl Merge {
    /// The merge as llama.cpp reads it: two tokens with a space between them; `None` if it is not a pair. Spaces inside
    /// a token become U+0120, the space of the byte alphabet.
    fn text(self) -> Option<String> {
        let (a, b) = match &self {
            Self::Text(text) => text.split_once(' ').filter(|(_, b)| !b.contains(' '))?,
            Self::Pair(a, b) => (a.as_str(), b.as_str()),
        };
        let whole = !a.is_empty() && !b.is_empty();
        whole.then(|| format!("{} {}", a.replace(' ', "\u{120}"), b.replace(' ', "\u{120}")))
    }
}

/// Reads tokenizer.json; `None` if there is none. Without `whole`, its model is not read: beside a tokenizer.model,
/// only its added tokens and post-processor are needed, whatever kind its own model is.
///
/// # Errors
/// [`Error::Format`] for invalid JSON, with the byte offset, and for merges that are not pairs; [`Error::Refused`] for
/// models other than BPE.
pub fn read(folder: &mut Folder, whole: bool) -> Result<Option<Json>> {
    let Some(text) = folder.text(FILE)? else { return Ok(None) };
    let name = folder.name(FILE);
    let root: Root = parse(&name, &text)?;
    let added = root.added_tokens.unwrap_or_default();
    let mut json = Json {
        name,
        added: added.into_iter().map(|a| Added { id: a.id, text: a.content, special: a.special }).collect(),
        normalizer: root.normalizer,
        pre_tokenizer: root.pre_tokenizer,
        post_processor: root.post_processor,
        decoder: root.decoder,
        byte_fallback: None,
        ignore_merges: false,
        vocab: Vec::new(),
        merges: Vec::new(),
    };
    if whole {
        json.read_model(&text, root.model)?;
    }
    Ok(Some(json))
}

impl Json {
    fn read_model(&mut self, text: &str, model: &RawValue) -> Result<()> {
        let name = &self.name;
        let model: Model = parse_part(name, text, model)?;
        match model.kind.as_deref() {
            Some("BPE") => {}
            // Early files have no type. Only BPE has merges.
            None if model.merges.is_some() => {}
            kind => {
                let kind = kind.unwrap_or("without a type");
                return Err(Error::refused(format!("{name}: the model is {kind}; only BPE is supported"))
                    .or("a SentencePiece model can be read from a tokenizer.model in the same folder"));
            }
        }
        for (what, affix) in [
            ("continuing_subword_prefix", model.continuing_subword_prefix),
            ("end_of_word_suffix", model.end_of_word_suffix),
        ] {
            if let Some(affix) = affix.filter(|a| !a.is_empty()) {
                return Err(unfit(
                    name,
                    format!("the model's {what} is {affix:?}, which llama.cpp does not support"),
                ));
            }
        }
        let missing = |what| unfit(name, format!("the model has no {what}"));
        let vocab: Vocab = parse_part(name, text, model.vocab.ok_or_else(|| missing("vocab"))?)?;
        let merges: Vec<Merge> = parse_part(name, text, model.merges.ok_or_else(|| missing("merges"))?)?;
        let merges: Result<Vec<String>> = merges
            .into_iter()
            .enumerate()
            .map(|(n, merge)| {
                merge.text().ok_or_else(|| unfit(name, format!("merge {n} is not a pair of tokens")))
            })
            .collect();
        self.byte_fallback = model.byte_fallback;
        self.ignore_merges = model.ignore_merges.unwrap_or(false);
        self.vocab = vocab.0;
        self.merges = merges?;
        Ok(())
    }

    /// Whether this is a converted SentencePiece model, which llama.cpp runs as "llama".
    pub fn is_sentencepiece(&self) -> bool {
        let decoder = self.decoder.get("type").and_then(Value::as_str);
        self.byte_fallback == Some(true) && decoder == Some("Sequence")
    }

    /// The tokens of a converted SentencePiece model. Byte and control tokens are known by their text; scores are the
    /// negative ranks of the merges. `named` are the tokens that tokenizer_config.json gives a role.
    ///
    /// llama.cpp merges the pair with the highest score first, tokenizer.json the one with the lowest rank. With the
    /// equal scores that convert_hf_to_gguf.py writes, it merges from left to right instead, and two lines of English
    /// in three get other tokens than the model was trained with; with these scores none does.
    pub fn sentencepiece_tokens(&self, named: &[String], mut tokens: Tokens) -> Result<Tokens> {
        self.fill(&mut tokens, ADDED_SCORE)?;
        let count = self.vocab.len() as u32; // not more than rows: ids are distinct
        let base: std::collections::HashSet<u32> = self.vocab.iter().map(|v| v.1).collect();
        if let Some(gap) = (0..count).find(|&id| tokens.get(id).is_none()) {
            let what = format!("the vocabulary has {count} tokens, but none with id {gap}");
            return Err(unfit(&self.name, what));
        }
        let mut ranks: HashMap<String, usize> = HashMap::new();
        for (rank, merge) in self.merges.iter().enumerate() {
            ranks.entry(merge.replacen(' ', "", 1)).or_insert(rank);
        }
        for (text, id) in &self.vocab {
            if let Some(token) = tokens.get(*id).filter(|token| token.kind == Type::Normal) {
                // Tokens that no merge makes come last.
                let rank = ranks.get(text).copied().unwrap_or(self.merges.len());
                tokens.set(*id, Token { score: 0.0 - rank as f32, ..token.clone() });
            }
        }
        for id in 0..tokens.rows() as u32 {
            let Some(token) = tokens.get(id) else { continue };
            let in_base = base.contains(&id) && token.kind == Type::Normal;
            let named = named.iter().any(|name| name.as_bytes() == token.text);
            let kind = match () {
                () if in_base && is_byte(&token.text) => Type::Byte,
                () if named => Type::Control,
                () => continue,
            };
            let score = if kind == Type::Byte { 0.0 } else { ADDED_SCORE };
            let token = Token { kind, score, ..token.clone() };
            tokens.set(id, token);
        }
        Ok(tokens)
    }

    /// The tokens of a byte-level vocabulary; `more` are added tokens from other files.
    pub fn byte_level_tokens(&self, more: Vec<Added>, mut tokens: Tokens) -> Result<Tokens> {
        self.fill(&mut tokens, 0.0)?;
        let known: std::collections::HashSet<&str> = self
            .vocab
            .iter()
            .map(|v| v.0.as_str())
            .chain(self.added.iter().map(|a| a.text.as_str()))
            .collect();
        for added in more {
            if tokens.get(added.id).is_none() && !known.contains(added.text.as_str()) {
                add(&self.name, &mut tokens, &added)?;
            }
        }
        Ok(tokens)
    }

    /// Sets the vocabulary's tokens, then the added tokens.
    fn fill(&self, tokens: &mut Tokens, score: f32) -> Result<()> {
        let ids = self.vocab.iter().map(|v| v.1).chain(self.added.iter().map(|a| a.id));
        if let Some(last) = ids.max().filter(|&id| !tokens.fits(id)) {
            return Err(too_many(&self.name, last, tokens.rows()));
        }
        fill(&self.name, &self.vocab, score, tokens)?;
        let ids: HashMap<&str, u32> = self.vocab.iter().map(|(text, id)| (text.as_str(), *id)).collect();
        let mut texts: HashMap<u32, &str> =
            self.vocab.iter().map(|(text, id)| (*id, text.as_str())).collect();
        for added in &self.added {
            if let Some(&id) = ids.get(added.text.as_str()).filter(|&&id| id != added.id) {
                let what = format!("the token {:?} has the ids {id} and {}", added.text, added.id);
                return Err(unfit(&self.name, what));
            }
            if let Some(&text) = texts.get(&added.id).filter(|&&text| text != added.text) {
                let what = format!("the id {} has the tokens {text:?} and {:?}", added.id, added.text);
                return Err(unfit(&self.name, what));
            }
            texts.insert(added.id, &added.text);
            add(&self.name, tokens, added)?;
        }
        Ok(())
    }
}

fn fill(file: &str, vocab: &[(String, u32)], score: f32, tokens: &mut Tokens) -> Result<()> {
    for (text, id) in vocab {
        if let Some(other) = tokens.get(*id) {
            let other = String::from_utf8_lossy(&other.text);
            return Err(unfit(file, format!("the id {id} has the tokens {other:?} and {text:?}")));
        }
        if !tokens.set(*id, Token { text: text.clone().into_bytes(), score, kind: Type::Normal }) {
            return Err(too_many(file, vocab.iter().map(|v| v.1).max().unwrap_or(*id), tokens.rows()));
        }
    }
    Ok(())
}

fn add(file: &str, tokens: &mut Tokens, added: &Added) -> Result<()> {
    if tokens.set(added.id, added.token()) { Ok(()) } else { Err(too_many(file, added.id, tokens.rows())) }
}

/// Whether a token stands for a byte: `<0xNN>`.
fn is_byte(text: &[u8]) -> bool {
    matches!(text, [b'<', b'0', b'x', a, b, b'>'] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit())
}

/// The tokens of vocab.json, and added tokens from other files.
pub fn vocab_json(folder: &mut Folder, added: Vec<Added>, mut tokens: Tokens) -> Result<Tokens> {
    const FILE: &str = "vocab.json";
    let text = folder.text(FILE)?.ok_or_else(|| unfit(&folder.name(FILE), "the file is missing"))?;
    let name = folder.name(FILE);
    let vocab: Vocab = parse(&name, &text)?;
    fill(&name, &vocab.0, 0.0, &mut tokens)?;
    for added in added {
        match tokens.get(added.id) {
            Some(token) if token.text != added.text.as_bytes() => {
                let (text, other) = (&added.text, String::from_utf8_lossy(&token.text));
                return Err(unfit(
                    &name,
                    format!("the id {} has the tokens {other:?} and {text:?}", added.id),
                ));
            }
            _ => add(&name, &mut tokens, &added)?,
        }
    }
    Ok(tokens)
}

/// The merges of merges.txt: two tokens a line, after a line with the version. Empty if there is no such file.
///
/// # Errors
/// [`Error::Format`] for lines that are not pairs, with the byte offset.
pub fn merges_txt(folder: &mut Folder) -> Result<Vec<String>> {
    const FILE: &str = "merges.txt";
    let Some(text) = folder.text(FILE)? else { return Ok(Vec::new()) };
    let mut merges = Vec::new();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let mut words = line.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            _ if at == 0 && line.starts_with("#version") => {}
            (None, ..) => {}
            (Some(a), Some(b), None) => merges.push(format!("{a} {b}")),
            _ => {
                let what = format!("merge {} is not a pair of tokens: {:?}", merges.len(), line.trim_end());
                return Err(wrong(&folder.name(FILE), at, what));
            }
        }
        at += line.len();
    }
    Ok(merges)
}
