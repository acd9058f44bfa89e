//! A tokenizer from a GGUF's metadata.

use formats::metadata::{Array, Kind, Metadata, Value};

use super::pre::table::{self, Bos};
use super::special::{Roles, Specials};
use super::tokens::{Attributes, Tokens};
use super::{Rules, Scheme, Tokenizer, bpe, spm, unigram};
use crate::error::{Error, Result};

/// Reads the keys under `tokenizer.`.
pub fn read(metadata: &Metadata) -> Result<Tokenizer> {
    let file = Keys(metadata);
    let Some(model) = metadata.get(&key("model")) else {
        return Err(Error::refused("the model has no tokenizer: tokenizer.ggml.model is missing"));
    };
    let model = model.as_str().ok_or_else(|| Error::refused("tokenizer.ggml.model is not a text"))?;
    let gemma4 = model == "gemma4";
    let pre =
        if gemma4 { "gemma4" } else { file.text("pre")?.filter(|p| !p.is_empty()).unwrap_or("default") };
    let mut tokens = file.tokens()?;

    // What holds where the file says nothing: begin, end and unknown token, and what is put around a text.
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
            let why = format!("tokenizer.ggml.model is {model:?}, which is not known");
            return Err(Error::refused(why).or("the kinds that are known are llama, gpt2, gemma4 and t5"));
        }
    };
    let rules = Rules {
        add_bos: file.flag("add_bos_token")?.unwrap_or(add_bos) || (byte_level && bos == Bos::Always),
        add_eos: file.flag("add_eos_token")?.unwrap_or(add_eos),
        space_prefix: file.flag("add_space_prefix")?.unwrap_or(space_prefix),
        escaped_spaces: !byte_level || row.is_some_and(|row| row.raw),
    };
    let merge_spaces = file.flag("remove_extra_whitespaces")?.unwrap_or(false);

    // A unigram model takes the tokens as the file has them, before any is known by its text.
    let unigram = if model == "t5" {
        if file.array("precompiled_charsmap")?.is_some_and(|map| !map.is_empty()) {
            return Err(Error::refused(
                "the tokenizer replaces characters by a table (tokenizer.ggml.precompiled_charsmap), which is \
                 not known here",
            ));
        }
        let unknown = file.id("unknown").or(ids[2]).filter(|id| (*id as usize) < tokens.len());
        Some(unigram::Viterbi::new(&tokens, unknown, merge_spaces)?)
    } else {
        None
    };
    let roles = Roles::find(&mut tokens, |part| file.id(part), ids);
    let scheme = match unigram {
        Some(viterbi) => Scheme::Unigram(Box::new(viterbi)),
        None if byte_level => {
            let merges = file.array("merges")?.ok_or_else(|| file.missing("merges"))?;
            if merges.kind() != Kind::String {
                return Err(file.wrong("merges", "texts"));
            }
            Scheme::ByteLevel(Box::new(bpe::Merger::new(&tokens, merges.strings(), pre)?))
        }
        None => Scheme::SentencePiece(Box::new(spm::Merger::new(&tokens, roles.unknown))),
    };
    let [name, arch] = ["general.name", "general.architecture"].map(|k| metadata.text(k).unwrap_or_default());
    let specials = Specials::new(&tokens, name, arch, pre);
    let chat_template = metadata.text("tokenizer.chat_template").map(str::to_string);
    Ok(Tokenizer { tokens, scheme, rules, roles, specials, chat_template })
}

fn key(name: &str) -> String {
    format!("tokenizer.ggml.{name}")
}

/// The keys under `tokenizer.ggml.`.
struct Keys<'a>(&'a Metadata);

impl<'a> Keys<'a> {
    fn missing(&self, name: &str) -> Error {
        Error::refused(format!("{} is missing", key(name)))
    }

    fn wrong(&self, name: &str, what: &str) -> Error {
        Error::refused(format!("{} does not have {what}", key(name)))
    }

    fn text(&self, name: &str) -> Result<Option<&'a str>> {
        let Some(value) = self.0.get(&key(name)) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.wrong(name, "a text"))
    }

    fn flag(&self, name: &str) -> Result<Option<bool>> {
        match self.0.get(&key(name)) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(self.wrong(name, "true or false")),
        }
    }

    /// The id of a part, which may be out of range; llama.cpp passes over such.
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
            return Err(Error::refused(format!("{} has {found} values for {tokens} tokens", key(name))));
        }
        Ok(Some(array))
    }

    fn tokens(&self) -> Result<Tokens> {
        let array = self.array("tokens")?.ok_or_else(|| self.missing("tokens"))?;
        if array.kind() != Kind::String {
            return Err(self.wrong("tokens", "texts"));
        }
        if array.is_empty() {
            return Err(Error::refused("the tokenizer has no tokens"));
        }
        let n = array.len();
        if u32::try_from(n).is_err() {
            return Err(Error::refused(format!("{n} tokens are more than ids can number")));
        }
        // An empty text would be found everywhere; llama.cpp calls it so, too.
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
                let kind = |v: Value| v.as_i128().ok_or_else(|| self.wrong("token_type", "whole numbers"));
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
            // Minus zero is zero, also to an order that tells them apart.
            Some(score) if !score.is_nan() => Ok(score as f32 + 0.0),
            _ => Err(self.wrong("scores", "numbers only")),
        }
    }
}
