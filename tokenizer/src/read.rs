//! Reading a tokenizer from a GGUF's metadata.

use formats::metadata::{Array, Kind, Metadata, Value};

use super::normal::Normalizer;
use super::pre::table::{self, Bos};
use super::roles::Roles;
use super::special::Specials;
use super::symbols::Symbols;
use super::tokens::{Attributes, Tokens};
use super::{PREPEND_SCHEME, Prepend, Rules, Scheme, Tokenizer, bpe, spm, unigram};
use crate::error::{Error, Result};

/// The kinds of tokenizers by which files say that they have none.
const NO_VOCABULARY: [&str; 2] = ["no_vocab", "none"];

/// What follows from a vocabulary's kind and its switches, without its tokens.
pub(super) struct Sort<'a> {
    /// The kind: `llama`, `gpt2`, ...
    pub model: &'a str,
    /// The pre-tokenizer.
    pub pre: &'a str,
    /// Whether tokens are in the byte alphabet.
    pub byte_level: bool,
    /// The ids of BOS, EOS and the unknown token, where the file names none.
    pub ids: [Option<u32>; 3],
    /// What is added to texts.
    pub rules: Rules,
}

/// Reads what follows from a vocabulary's kind and its switches.
pub(super) fn sort(metadata: &Metadata) -> Result<Sort<'_>> {
    let file = Keys(metadata);
    let Some(model) = metadata.get(&key("model")) else {
        return Err(Error::NoTokenizer);
    };
    let model = model.as_str().ok_or_else(|| file.wrong("model", "a string"))?;
    if NO_VOCABULARY.contains(&model) || metadata.get(&key("tokens")).is_none() {
        return Err(Error::NoTokenizer);
    }
    let gemma4 = model == "gemma4";
    let pre =
        if gemma4 { "gemma4" } else { file.text("pre")?.filter(|p| !p.is_empty()).unwrap_or("default") };
    // Defaults where the file says nothing.
    let byte_level = gemma4 || model == "gpt2";
    let row = table::find(pre);
    let bos = row.map_or(Bos::IfAsked, |row| row.bos);
    let (ids, add_bos, add_eos, space_prefix) = match model {
        "llama" => ([Some(1), Some(2), Some(0)], true, false, true),
        "t5" => ([None, Some(1), Some(2)], false, true, false),
        "gpt2" => {
            ([Some(11).filter(|_| bos != Bos::IfNamed), Some(11), None], bos == Bos::Usual, false, false)
        }
        "gemma4" => ([None; 3], true, false, false),
        _ => {
            return Err(Error::UnknownTokenizer { name: model.into(), known: "llama, gpt2, gemma4, t5" });
        }
    };
    let rules = Rules {
        add_bos: file.flag("add_bos_token")?.unwrap_or(add_bos) || (byte_level && bos == Bos::Always),
        add_eos: file.flag("add_eos_token")?.unwrap_or(add_eos),
        space_prefix: file.flag("add_space_prefix")?.unwrap_or(space_prefix),
        prepend: metadata.text(PREPEND_SCHEME).and_then(Prepend::of),
        escaped_spaces: !byte_level || row.is_some_and(|row| row.raw),
    };
    Ok(Sort { model, pre, byte_level, ids, rules })
}

/// Reads the keys under `tokenizer.`.
pub fn read(metadata: &Metadata) -> Result<Tokenizer> {
    let file = Keys(metadata);
    let Sort { model, pre, byte_level, ids, rules } = sort(metadata)?;
    file.check_ids()?;
    let mut tokens = file.tokens()?;
    // llama.cpp does this for unigram models only.
    let normalizer = |symbols: Option<Symbols>| {
        let merge_spaces = file.flag("remove_extra_whitespaces")?.unwrap_or(false);
        let table = file.array("precompiled_charsmap")?;
        if table.is_some_and(|t| !matches!(t.kind(), Kind::U8 | Kind::I8) && !t.is_empty()) {
            return Err(file.wrong("precompiled_charsmap", "an array of bytes"));
        }
        Ok(Normalizer::new(table.map_or(&[][..], Array::bytes), merge_spaces)?.with(symbols))
    };

    let mut normalizer = match byte_level {
        true => None,
        false => Some(normalizer(Symbols::mark(&mut tokens))?),
    };
    // A unigram model uses the attributes in the file, before `Roles::find` changes those of tokens that are known by
    // their text.
    let unigram = if model == "t5" {
        let unknown = file.id("unknown").or(ids[2]).filter(|id| (*id as usize) < tokens.len());
        Some(unigram::Viterbi::new(&tokens, unknown, normalizer.take().unwrap_or_default())?)
    } else {
        None
    };
    let roles = Roles::find(&mut tokens, |part| file.id(part), ids);
    let scheme = match unigram {
        Some(viterbi) => Scheme::Unigram(Box::new(viterbi)),
        None if byte_level => {
            let merges = file.array("merges")?.ok_or_else(|| file.missing("merges"))?;
            if merges.kind() != Kind::String {
                return Err(file.wrong("merges", "an array of strings"));
            }
            Scheme::ByteLevel(Box::new(bpe::Merger::new(&tokens, merges.strings(), pre)?))
        }
        None => {
            let merger = spm::Merger::new(&tokens, roles.unknown);
            Scheme::SentencePiece(Box::new(merger), normalizer.take().unwrap_or_default())
        }
    };
    let [name, arch] = ["general.name", "general.architecture"].map(|k| metadata.text(k).unwrap_or_default());
    let specials = Specials::new(&tokens, name, arch, pre);
    let chat_template = metadata
        .read("tokenizer.chat_template", "a string in UTF-8", |v| v.as_str().map(str::to_string))
        .map_err(|e| e.to_string());
    Ok(Tokenizer { tokens, scheme, rules, roles, specials, chat_template })
}

fn key(name: &str) -> String {
    format!("tokenizer.ggml.{name}")
}

/// The keys under `tokenizer.ggml.`.
struct Keys<'a>(&'a Metadata);

impl<'a> Keys<'a> {
    fn missing(&self, name: &str) -> Error {
        Error::InvalidVocabulary { why: format!("{} is missing", key(name)) }
    }

    /// A value of the wrong type.
    fn wrong(&self, name: &str, expected: &str) -> Error {
        Error::InvalidVocabulary { why: format!("{} must be {expected}", key(name)) }
    }

    fn text(&self, name: &str) -> Result<Option<&'a str>> {
        let Some(value) = self.0.get(&key(name)) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.wrong(name, "a string"))
    }

    fn flag(&self, name: &str) -> Result<Option<bool>> {
        match self.0.get(&key(name)) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(self.wrong(name, "true or false")),
        }
    }

    /// Checks that all ids of tokens with a role are integers.
    fn check_ids(&self) -> Result<()> {
        let id = |key: &str| key.strip_prefix("tokenizer.ggml.")?.strip_suffix("_token_id").map(|_| ());
        for (key, value) in self.0.iter().filter(|(key, _)| id(key).is_some()) {
            if value.as_i128().is_none() {
                let why = format!("metadata key {key} must be an integer (found {})", value.describe());
                return Err(Error::InvalidVocabulary { why });
            }
        }
        Ok(())
    }

    /// The id of a token with a role (`bos`, `eos`, ...). It may be out of range; llama.cpp ignores such ids.
    fn id(&self, part: &str) -> Option<u32> {
        let id = self.0.get(&key(&format!("{part}_token_id")))?.as_u64()?;
        u32::try_from(id).ok()
    }

    fn array(&self, name: &str) -> Result<Option<&'a Array>> {
        let Some(value) = self.0.get(&key(name)) else { return Ok(None) };
        value.as_array().map(Some).ok_or_else(|| self.wrong(name, "an array"))
    }

    /// An array with at least one value for each token.
    fn array_for(&self, name: &str, tokens: usize) -> Result<Option<&'a Array>> {
        let Some(array) = self.array(name)? else { return Ok(None) };
        if array.len() < tokens {
            let found = array.len();
            let why = format!("{} must have {tokens} values, one for each token (found {found})", key(name));
            return Err(Error::InvalidVocabulary { why });
        }
        Ok(Some(array))
    }

    fn tokens(&self) -> Result<Tokens> {
        let array = self.array("tokens")?.ok_or_else(|| self.missing("tokens"))?;
        if array.kind() != Kind::String {
            return Err(self.wrong("tokens", "an array of strings"));
        }
        if array.is_empty() {
            return Err(Error::InvalidVocabulary { why: format!("{} is empty", key("tokens")) });
        }
        let n = array.len();
        if u32::try_from(n).is_err() {
            let why = format!("{} must have fewer than 2^32 values (found {n})", key("tokens"));
            return Err(Error::InvalidVocabulary { why });
        }
        // An empty text would be found everywhere; llama.cpp gives it this name, too.
        let texts = array.strings().enumerate().map(|(i, text)| match text {
            [] => format!("[EMPTY_{i}]").into_bytes().into(),
            text => text.into(),
        });
        let texts: Vec<_> = texts.collect();
        let scores = match self.array_for("scores", n)? {
            Some(array) => array.values().take(n).map(|v| self.score(&v)).collect::<Result<_>>()?,
            None => vec![0.0; n],
        };
        let normal = Attributes { normal: true, ..Attributes::default() };
        let attributes = match self.array_for("token_type", n)? {
            Some(array) => {
                let kind =
                    |v: Value| v.as_i128().ok_or_else(|| self.wrong("token_type", "an array of integers"));
                let of = |v| Ok(Attributes::of_type(kind(v)?));
                array.values().take(n).map(of).collect::<Result<_>>()?
            }
            None => vec![normal; n],
        };
        Ok(Tokens::new(texts, scores, attributes))
    }

    fn score(&self, value: &Value) -> Result<f32> {
        let score = value.as_f64().or_else(|| value.as_i128().map(|v| v as f64));
        match score {
            // + 0.0 makes -0.0 positive: `total_cmp` tells them apart.
            Some(score) if !score.is_nan() => Ok(score as f32 + 0.0),
            _ => Err(self.wrong("scores", "an array of numbers")),
        }
    }
}
