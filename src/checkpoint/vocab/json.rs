//! tokenizer.json (the `tokenizers` crate's file), and vocab.json with merges.txt (GPT-2's).
//!
//! A BPE model in tokenizer.json is one of two kinds: byte-level, where every byte is written as a printable character
//! ("gpt2" in a GGUF); or over characters, with `<0xNN>` tokens for unknown ones, as converted SentencePiece models are
//! ("llama" in a GGUF). A unigram model is always a converted SentencePiece model ("t5").

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::checkpoint::vocab::files::{Folder, parse, parse_part, parse_tree, unfit, wrong};
use crate::checkpoint::vocab::lists::{Limited, MOST_MERGES, Merges, Vocab};
use crate::checkpoint::vocab::tokens::{ADDED_SCORE, Added, Token, Tokens, Type, too_many};
use crate::error::{Error, Result};

/// The name of the file.
pub const FILE: &str = "tokenizer.json";

/// The longest normalizer, pre-tokenizer, post-processor or decoder that is read, in bytes: as trees of values they take
/// many times that. The largest published ones are tables of normalizations of 320 kB.
const MOST_RULES: usize = 4 << 20;

/// The parts of a tokenizer.json that are used.
pub struct Json {
    /// The path of the file, for messages.
    pub name: String,
    pub added: Vec<Added>,
    added_ids: HashSet<u32>,
    /// The added tokens that take the whitespace beside them.
    pub strips: Vec<Strips>,
    /// The added tokens that are found in a text as words of their own only.
    pub single_words: Vec<Added>,
    pub normalizer: Value,
    pub pre_tokenizer: Value,
    pub post_processor: Value,
    decoder: Value,
    byte_fallback: Option<bool>,
    pub ignore_merges: bool,
    vocab: Vec<(String, u32)>,
    /// Of a unigram model: the scores of the vocabulary's tokens.
    scores: Vec<f32>,
    /// Of a unigram model: the token of characters that have none.
    unknown: Option<u32>,
    pub merges: Merges,
}

/// An added token that takes the whitespace before it (left) or behind it (right) out of a text.
pub struct Strips {
    pub id: u32,
    pub text: String,
    pub left: bool,
    pub right: bool,
}

/// The file's structure. Values that are interpreted later stay JSON.
#[derive(Deserialize)]
struct Root<'a> {
    #[serde(default)]
    added_tokens: Limited<AddedToken>,
    #[serde(borrow, default)]
    normalizer: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pre_tokenizer: Option<&'a RawValue>,
    #[serde(borrow, default)]
    post_processor: Option<&'a RawValue>,
    #[serde(borrow, default)]
    decoder: Option<&'a RawValue>,
    #[serde(borrow)]
    model: &'a RawValue,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    single_word: bool,
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
    unk_id: Option<u32>,
    #[serde(default)]
    ignore_merges: Option<bool>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
}

/// A token of a unigram model and its score.
#[derive(Deserialize)]
struct Piece(String, f64);

/// Reads tokenizer.json; `None` if there is none. Without `whole`, its model is not read: beside a tokenizer.model,
/// only its added tokens and post-processor are needed, whatever kind its own model is.
///
/// # Errors
/// [`Error::Format`] for invalid JSON, with the byte offset, and for merges that are not pairs; [`Error::Refused`] for
/// models other than BPE and Unigram.
pub fn read(folder: &mut Folder, whole: bool) -> Result<Option<Json>> {
    let Some(text) = folder.json(FILE)? else { return Ok(None) };
    let name = folder.name(FILE);
    let root: Root = parse(&name, &text)?;
    let rules = |what: &str, part: Option<&RawValue>| match part {
        None => Ok(Value::Null),
        Some(part) if part.get().len() > MOST_RULES => {
            let (found, most) = (part.get().len(), MOST_RULES);
            Err(unfit(&name, format!("the {what} must have at most {most} bytes (found {found})")))
        }
        Some(part) => parse_tree(&name, &text, part, MOST_RULES as u64),
    };
    let (normalizer, pre_tokenizer) =
        (rules("normalizer", root.normalizer)?, rules("pre-tokenizer", root.pre_tokenizer)?);
    let (post_processor, decoder) =
        (rules("post-processor", root.post_processor)?, rules("decoder", root.decoder)?);
    let strips = |a: &AddedToken| match (a.lstrip, a.rstrip) {
        (false, false) => None,
        (left, right) => Some(Strips { id: a.id, text: a.content.clone(), left, right }),
    };
    let single_word = |a: &AddedToken| {
        a.single_word.then(|| Added { id: a.id, text: a.content.clone(), special: a.special })
    };
    let added = root.added_tokens.0;
    let mut json = Json {
        strips: added.iter().filter_map(strips).collect(),
        single_words: added.iter().filter_map(single_word).collect(),
        added_ids: added.iter().map(|a| a.id).collect(),
        added: added.into_iter().map(|a| Added { id: a.id, text: a.content, special: a.special }).collect(),
        name: name.clone(),
        normalizer,
        pre_tokenizer,
        post_processor,
        decoder,
        byte_fallback: None,
        ignore_merges: false,
        vocab: Vec::new(),
        scores: Vec::new(),
        unknown: None,
        merges: Merges::default(),
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
            Some("Unigram") => {
                let vocab = model.vocab.ok_or_else(|| unfit(name, "the model has no vocab"))?;
                let pieces: Limited<Piece> = parse_part(name, text, vocab)?;
                // As many as there may be tokens.
                let pieces = pieces.0.into_iter().zip(0..);
                (self.vocab, self.scores) =
                    pieces.map(|(Piece(text, score), id)| ((text, id), score as f32)).unzip();
                (self.byte_fallback, self.unknown) = (model.byte_fallback, model.unk_id);
                return Ok(());
            }
            kind => {
                let kind = kind.unwrap_or("without a type");
                return Err(Error::refused(format!(
                    "{name}: the model is {kind}; only BPE and Unigram are supported"
                ))
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
        let merges = parse_part(name, text, model.merges.ok_or_else(|| missing("merges"))?)?;
        self.byte_fallback = model.byte_fallback;
        self.ignore_merges = model.ignore_merges.unwrap_or(false);
        self.vocab = vocab.0.into_iter().map(|(text, id)| (text.into_owned(), id)).collect();
        self.merges = merges;
        Ok(())
    }

    /// Whether this is a unigram model.
    pub fn is_unigram(&self) -> bool {
        !self.scores.is_empty()
    }

    /// Whether the model was read.
    pub fn has_model(&self) -> bool {
        !self.vocab.is_empty()
    }

    /// The texts and ids of the model's vocabulary.
    pub fn tokens(&self) -> impl Iterator<Item = (&str, u32)> + Clone {
        self.vocab.iter().map(|(text, id)| (text.as_str(), *id))
    }

    /// Whether an id is that of an added token.
    pub fn is_added(&self, id: u32) -> bool {
        self.added_ids.contains(&id)
    }

    /// Whether this is a converted SentencePiece model, which llama.cpp runs as "llama" or, if unigram, as "t5".
    pub fn is_sentencepiece(&self) -> bool {
        self.is_unigram() || (self.byte_fallback == Some(true) && !self.is_byte_level())
    }

    /// Whether a step writes texts in the byte alphabet.
    fn is_byte_level(&self) -> bool {
        let is = |step: &Value| step.get("type").and_then(Value::as_str) == Some("ByteLevel");
        let lists = ["normalizers", "pretokenizers", "processors", "decoders"];
        let any = |part: &Value| {
            let mut steps = lists.iter().filter_map(|list| part.get(*list)?.as_array()).flatten();
            is(part) || steps.any(is)
        };
        [&self.normalizer, &self.pre_tokenizer, &self.post_processor, &self.decoder].into_iter().any(any)
    }

    /// Refuses a vocabulary of characters, which has no pre-tokenizer.
    pub fn check_byte_level(&self) -> Result<()> {
        if self.vocab.is_empty()
            || self.is_byte_level()
            || begin_with_spaces(self.tokens().map(|(text, _)| text)).is_gt()
        {
            Ok(())
        } else {
            Err(over_characters(&self.name))
        }
    }

    /// The tokens of a converted SentencePiece model. Byte and control tokens are known by their text; scores are the
    /// negative ranks of the merges. `named` are the tokens that tokenizer_config.json gives a role.
    ///
    /// llama.cpp merges the pair with the highest score first, tokenizer.json the one with the lowest rank. With the
    /// equal scores that convert_hf_to_gguf.py writes, it merges from left to right instead, and two lines of English
    /// in three get other tokens than the model was trained with; with these scores none does.
    pub fn sentencepiece_tokens(&self, named: &[String], mut tokens: Tokens) -> Result<Tokens> {
        self.fill(&mut tokens, ADDED_SCORE)?;
        // Not more than rows: ids are distinct.
        let count = self.vocab.iter().filter(|v| tokens.fits(v.1)).count() as u32;
        let base: HashSet<u32> = self.vocab.iter().map(|v| v.1).collect();
        let named: HashSet<&[u8]> = named.iter().map(String::as_bytes).collect();
        if let Some(gap) = (0..count).find(|&id| tokens.get(id).is_none()) {
            let what = format!("the vocabulary has {count} tokens, but none with id {gap}");
            return Err(unfit(&self.name, what));
        }
        let mut ranks: HashMap<String, usize> = HashMap::new();
        for (rank, merge) in self.merges.iter().enumerate() {
            ranks.entry(merge.replacen(' ', "", 1)).or_insert(rank);
        }
        for (i, (text, id)) in self.vocab.iter().enumerate() {
            if let Some(token) = tokens.get(*id).filter(|token| token.kind == Type::Normal) {
                // Tokens that no merge makes come last.
                let rank = || ranks.get(text).copied().unwrap_or(self.merges.len());
                let score = self.scores.get(i).copied().unwrap_or_else(|| 0.0 - rank() as f32);
                tokens.set(*id, Token { score, ..token.clone() });
            }
        }
        if let Some((id, token)) = self.unknown.and_then(|id| Some((id, tokens.get(id)?.clone()))) {
            tokens.set(id, Token { kind: Type::Unknown, score: 0.0, ..token });
        }
        for id in 0..tokens.rows() as u32 {
            let Some(token) = tokens.get(id) else { continue };
            let in_base = base.contains(&id) && token.kind == Type::Normal;
            let named = named.contains(&token.text[..]);
            let kind = match () {
                () if in_base && self.byte_fallback == Some(true) && is_byte(&token.text) => Type::Byte,
                () if named && token.kind != Type::Unknown => Type::Control,
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
        let known: HashSet<&str> = self
            .vocab
            .iter()
            .map(|v| v.0.as_str())
            .chain(self.added.iter().map(|a| a.text.as_str()))
            .collect();
        for added in more {
            if tokens.get(added.id).is_none() && !known.contains(added.text.as_str()) {
                tokens.add(added.id, added.token());
            }
        }
        Ok(tokens)
    }

    /// Sets the vocabulary's tokens, then the added tokens, of which those without a row are left out.
    fn fill(&self, tokens: &mut Tokens, score: f32) -> Result<()> {
        let mut texts: HashMap<u32, &str> = self.added.iter().map(|a| (a.id, a.text.as_str())).collect();
        let vocab = self.vocab.iter().map(|(text, id)| (Cow::from(text), *id));
        fill(&self.name, vocab, score, |id| texts.contains_key(&id), tokens)?;
        // What the vocabulary has for the ids and the texts of added tokens.
        let mut ids: HashMap<&str, Option<u32>> =
            self.added.iter().map(|a| (a.text.as_str(), None)).collect();
        texts.clear();
        for (text, id) in &self.vocab {
            if let Some(known) = ids.get_mut(text.as_str()) {
                *known = Some(*id);
            }
            if self.is_added(*id) {
                texts.insert(*id, text);
            }
        }
        for added in &self.added {
            if let Some(id) = ids[added.text.as_str()].filter(|&id| id != added.id && tokens.fits(added.id)) {
                let what = format!("the token {:?} has the ids {id} and {}", added.text, added.id);
                return Err(unfit(&self.name, what));
            }
            if let Some(&text) = texts.get(&added.id).filter(|&&text| text != added.text) {
                let what = format!("the id {} has the tokens {text:?} and {:?}", added.id, added.text);
                return Err(unfit(&self.name, what));
            }
            texts.insert(added.id, &added.text);
            // It would be found under its last id only.
            if tokens.fits(added.id) {
                ids.insert(&added.text, Some(added.id));
            }
            tokens.add(added.id, added.token());
        }
        Ok(())
    }
}

/// Sets the tokens of a vocabulary. Tokens without a row are an error, unless they are listed as added tokens.
fn fill<'a>(
    file: &str,
    vocab: impl Iterator<Item = (Cow<'a, str>, u32)> + Clone,
    score: f32,
    is_added: impl Fn(u32) -> bool,
    tokens: &mut Tokens,
) -> Result<()> {
    let beyond = vocab.clone().map(|v| v.1).filter(|&id| !tokens.fits(id) && !is_added(id)).max();
    if let Some(last) = beyond {
        return Err(too_many(file, last, tokens.rows()));
    }
    for (text, id) in vocab {
        if let Some(other) = tokens.get(id) {
            let other = String::from_utf8_lossy(&other.text);
            return Err(unfit(file, format!("the id {id} has the tokens {other:?} and {text:?}")));
        }
        tokens.set(id, Token { text: text.into_owned().into_bytes(), score, kind: Type::Normal });
    }
    Ok(())
}

/// What more of a vocabulary's tokens begin with: the space of the byte alphabet (greater), or that of SentencePiece (less).
fn begin_with_spaces<'a>(texts: impl Iterator<Item = &'a str> + Clone) -> std::cmp::Ordering {
    let count = |space: char| texts.clone().filter(|text| text.starts_with(space)).count();
    count('\u{120}').cmp(&count('\u{2581}'))
}

/// The error of merges of characters without bytes.
fn over_characters(name: &str) -> Error {
    let why = format!(
        "{name}: the tokenizer is BPE over characters without byte fallback: it is not byte-level, so no pre-tokenizer fits it, and \
         llama.cpp has no such vocabulary"
    );
    Error::refused(why).or("if it was made of a SentencePiece model, put that beside it as tokenizer.model; without its tokenizer's files, a \
         folder is converted to a GGUF without a vocabulary, for programs that give token ids")
}

/// Whether a token stands for a byte: `<0xNN>`.
fn is_byte(text: &[u8]) -> bool {
    matches!(text, [b'<', b'0', b'x', a, b, b'>'] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit())
}

/// The tokens of vocab.json, and added tokens from other files.
pub fn vocab_json(folder: &mut Folder, added: Vec<Added>, mut tokens: Tokens) -> Result<Tokens> {
    const FILE: &str = "vocab.json";
    let text = folder.json(FILE)?.ok_or_else(|| unfit(&folder.name(FILE), "the file is missing"))?;
    let name = folder.name(FILE);
    let vocab: Vocab = parse(&name, &text)?;
    if begin_with_spaces(vocab.0.iter().map(|(text, _)| &**text)).is_lt() {
        return Err(over_characters(&name));
    }
    let of_added: HashSet<u32> = added.iter().map(|a| a.id).collect();
    fill(&name, vocab.0.iter().cloned(), 0.0, |id| of_added.contains(&id), &mut tokens)?;
    for added in added {
        match tokens.get(added.id) {
            Some(token) if token.text != added.text.as_bytes() => {
                let (text, other) = (&added.text, String::from_utf8_lossy(&token.text));
                return Err(unfit(
                    &name,
                    format!("the id {} has the tokens {other:?} and {text:?}", added.id),
                ));
            }
            _ => tokens.add(added.id, added.token()),
        }
    }
    Ok(tokens)
}

/// The merges of merges.txt: two tokens a line, after a line with the version. Empty if there is no such file.
///
/// # Errors
/// [`Error::Format`] for lines that are not pairs, with the byte offset, and for more merges than any model has.
pub fn merges_txt(folder: &mut Folder) -> Result<Merges> {
    const FILE: &str = "merges.txt";
    let mut merges = Merges::default();
    let Some(text) = folder.text(FILE)? else { return Ok(merges) };
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let mut words = line.split_whitespace();
        let pair = match (words.next(), words.next(), words.next()) {
            _ if at == 0 && line.starts_with("#version") => true,
            (None, ..) => true,
            (Some(_), Some(_), None) if merges.len() == MOST_MERGES => {
                let what = format!("there are more than {MOST_MERGES} merges, which no model has");
                return Err(wrong(&folder.name(FILE), at, what));
            }
            (Some(a), Some(b), None) => merges.push(a, b),
            _ => false,
        };
        if !pair {
            let what = format!("merge {} is not a pair of tokens: {:?}", merges.len(), line.trim_end());
            return Err(wrong(&folder.name(FILE), at, what));
        }
        at += line.len();
    }
    Ok(merges)
}
