//! The tokenizer of a Hugging Face checkpoint as a GGUF's `tokenizer.*` keys.
//!
//! A folder has its tokenizer in one of three forms: tokenizer.model (`sentencepiece`), tokenizer.json, or vocab.json
//! with merges.txt (`json`). From any of them, tokens are assigned to rows of the embedding (`tokens`), the roles of
//! special tokens are found in further files (`special`), and the pre-tokenizer of a byte-level tokenizer is recognised
//! (`pre`). Keys, value types and their order are those of llama.cpp's convert_hf_to_gguf.py.

mod alone;
mod base64;
mod choice;
mod export;
mod files;
mod how;
mod json;
mod lists;
mod pre;
mod protobuf;
mod sentencepiece;
mod special;
mod template;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tokens;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use formats::metadata::{Array, Kind, Metadata, Value};

use crate::error::{Error, Result};
use crate::tokenizer::pre::table;
use files::{Folder, TOKENIZER_CONFIG, switch, unfit};
use lists::Merges;
use sentencepiece::{Content, Settings};
use special::Special;
use tokens::{Token, Tokens, added_tokens_decoder, added_tokens_json};

pub use alone::tokenizer_file;
pub use export::{files, holds};

/// What is needed besides the tokenizer's files.
pub struct Wanted<'a> {
    /// The architecture's GGUF name ("llama", "qwen2", "qwen3", "bitnet-b1.58").
    pub arch: &'a str,
    /// Rows of the token embedding (config.json's vocab_size): ids without a token are padded.
    pub rows: u64,
    /// The model's name (`general.name`), by which programs know which tokens take the whitespace beside them.
    pub name: Option<&'a str>,
    /// config.json, parsed.
    pub config: &'a serde_json::Value,
    /// The pre-tokenizer's name if the user gives one (--pre-tokenizer NAME); otherwise it is recognised.
    pub pre: Option<&'a str>,
}

/// A tokenizer as GGUF's metadata.
pub struct Vocabulary {
    /// The `tokenizer.*` keys, in the order and with the value types of convert_hf_to_gguf.py.
    pub metadata: Metadata,
    /// Notes for the user.
    pub notes: Vec<String>,
    /// Those of the notes that are about a GGUF's vocabulary: what it cannot say, or has in addition.
    pub gguf_notes: Vec<String>,
    /// The files that were read.
    pub files: Vec<PathBuf>,
}

/// The form of the tokenizer, which decides what is written.
enum Source {
    SentencePiece(Settings),
    ByteLevel { pre: String, merges: Merges },
}

/// Reads the tokenizer in a checkpoint's folder; `Ok(None)` if it has no tokenizer files at all.
///
/// # Errors
/// [`Error::Format`] for damaged files, with the byte offset where possible; [`Error::VocabularyMismatch`] for more
/// tokens than the embedding has rows; [`Error::Vocabulary`]; [`Error::Refused`] for kinds of tokenizers that
/// are not supported and missing files; [`Error::Io`] for files that cannot be read.
pub fn read(folder: &Path, wanted: &Wanted) -> Result<Option<Vocabulary>> {
    let path = folder;
    let mut folder = Folder::new(path);
    let mut notes = Vec::new();
    let model = choice::sentencepiece_file(&mut folder, &mut notes)?;
    if model.is_none() && !folder.has(json::FILE) && !folder.has("vocab.json") {
        return none(&folder);
    }
    let config = folder.object(TOKENIZER_CONFIG)?;
    let config = config.as_ref();
    let mut json = choice::json(&mut folder, model.as_deref(), &mut notes)?;
    let listed = added_tokens_decoder(&folder, config)?;
    let mut tokens = Tokens::new(wanted.rows)?;
    let pieces = match model {
        Some(file) => choice::pieces(&mut folder, file, json.as_ref(), class(config, wanted), &mut notes)?,
        None => None,
    };
    let (source, tokens) = if let Some(pieces) = pieces {
        let settings = sentencepiece::fill(&mut folder, pieces, &listed, json.as_ref(), &mut tokens)?;
        (Source::SentencePiece(settings), tokens)
    } else if let Some(json) = json.as_ref().filter(|json| json.is_sentencepiece()) {
        let settings = how::of_json(json, &mut notes)?;
        let tokens = json.sentencepiece_tokens(&special::named(config), tokens)?;
        (Source::SentencePiece(settings), tokens)
    } else {
        byte_level(&mut folder, wanted, config, json.as_mut(), &listed, tokens, &mut notes)?
    };
    notes.extend(tokens.note());
    let mut gguf_notes = Vec::new();
    if let Some(json) = &json {
        gguf_notes.extend(how::strips(json, &tokens, wanted.name.unwrap_or_default()));
        gguf_notes.extend(how::single_words(json, &tokens));
    }
    if wanted.pre.is_some() && !matches!(source, Source::ByteLevel { .. }) {
        notes.push("--pre-tokenizer is ignored: only byte-level tokenizers have a pre-tokenizer".into());
    }
    let special =
        Special::find(&mut folder, json.as_ref(), config, wanted.config, &listed, &tokens, &mut notes)?;
    let padding = tokens.rows() - tokens.len();
    if padding > 0 {
        let rows = tokens.rows();
        gguf_notes.push(format!("{padding} of the embedding's {rows} rows have no token: they are padded"));
    }

    let mut metadata = Metadata::new();
    let prefix = space_prefix(&folder, &source, wanted, config)?;
    if let Some(prefix) = prefix {
        metadata.set("tokenizer.ggml.add_space_prefix", Value::Bool(prefix));
    }
    let tokens = tokens.into_list();
    write_tokens(&source, &tokens, &mut metadata);
    special.write(&mut metadata);
    if let Source::ByteLevel { pre, .. } = &source
        && json.is_some()
        && table::find(pre).is_some_and(|row| row.bos == table::Bos::Usual)
        && metadata.get(ADD_BOS).is_none()
    {
        // tokenizer.json does not add BOS to a text, and llama.cpp would by this name.
        metadata.set(ADD_BOS, Value::Bool(false));
    }
    if let Source::SentencePiece(settings) = &source {
        let from_json = json.as_ref().filter(|json| json.has_model()).map(|_| class(config, wanted));
        how::begin(settings, from_json, &tokens, &mut metadata, &mut notes);
        how::write(settings, &tokens, &mut metadata, &mut gguf_notes)?;
    }
    template::write(&mut folder, config, &mut metadata, &mut notes);
    if wanted.arch == "llama" {
        by_size(wanted.rows, &mut metadata);
    }
    special::write_ends(&mut folder, wanted.config, &mut metadata, &mut gguf_notes)?;
    notes.extend(gguf_notes.iter().cloned());
    Ok(Some(Vocabulary { metadata, notes, gguf_notes, files: folder.read }))
}

const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";

/// What is said of a folder without a tokenizer that can be read: nothing, unless it has one in another form.
fn none(folder: &Folder) -> Result<Option<Vocabulary>> {
    let take = "take the tokenizer.json from the model's Hugging Face folder";
    for name in folder.list_here("") {
        let refused = |why: String| Error::refused(format!("{}: {why}", folder.path().display()));
        let start = if name.ends_with(".model") { folder.peek(&name)? } else { None };
        match start.map(|start| sentencepiece::content(&start)) {
            _ if name == "tekken.json" || name.ends_with(".tiktoken") => {}
            Some(Content::Other(what, _)) if what.contains("tiktoken") => {}
            Some(Content::Model)
                if sentencepiece::check(&name, &folder.look(&name)?.unwrap_or_default()).is_ok() =>
            {
                let why =
                    format!("{name} is a SentencePiece model, but has no name under which one is looked for");
                return Err(
                    refused(why).or(format!("if it is this model's, rename it to {}", sentencepiece::FILE))
                );
            }
            _ => continue,
        }
        return Err(refused(format!("{name} without a tokenizer.json is not supported")).or(take));
    }
    if folder.has("merges.txt") {
        let why = format!("{}: merges.txt without a vocab.json", folder.path().display());
        return Err(Error::refused(why));
    }
    Ok(None)
}

/// The class of the tokenizer, or the type of the model, by which programs know the class.
fn class<'a>(config: Option<&'a serde_json::Value>, wanted: &Wanted<'a>) -> Option<&'a str> {
    let text = |value: &'a serde_json::Value, key: &str| value.get(key)?.as_str();
    config.and_then(|c| text(c, "tokenizer_class")).or_else(|| text(wanted.config, "model_type"))
}

/// Whether a space is put before texts; `None` where programs do by themselves what the model does.
fn space_prefix(
    folder: &Folder,
    source: &Source,
    wanted: &Wanted,
    config: Option<&serde_json::Value>,
) -> Result<Option<bool>> {
    let given = switch(folder, config, "add_prefix_space")?;
    // convert_hf_to_gguf.py writes this for this architecture only.
    let given = given.filter(|_| wanted.arch == "llama");
    Ok(match source {
        Source::SentencePiece(settings) => given.or(how::space_prefix(settings)),
        Source::ByteLevel { .. } => given,
    })
}

/// Reads the tokens, the pre-tokenizer's name and the merges of a byte-level tokenizer.
fn byte_level(
    folder: &mut Folder,
    wanted: &Wanted,
    config: Option<&serde_json::Value>,
    mut json: Option<&mut json::Json>,
    listed: &[tokens::Added],
    tokens: Tokens,
    notes: &mut Vec<String>,
) -> Result<(Source, Tokens)> {
    if let Some(name) = wanted.pre.filter(|name| table::find(name).is_none()) {
        notes.push(format!("pre-tokenizer {name:?} is not known here: it works only if llama.cpp knows it"));
    }
    if let Some(json) = &json {
        json.check_byte_level()?;
    }
    let by_class = || {
        let class = class(config, wanted).unwrap_or(wanted.arch);
        table::find_by_class(class).map(|row| row.name).ok_or_else(|| {
            Error::from(tokenizer::Error::UnknownPreTokenizer {
                what: format!("the pre-tokenizer of {class:?} is not known, and there is no tokenizer.json"),
                hint: "save the tokenizer with a tokenizer.json, or name its pre-tokenizer with --pre-tokenizer NAME"
                    .into(),
            })
        })
    };
    let pre = match (wanted.pre, &json) {
        (Some(name), _) => name,
        (None, Some(json)) => pre::recognise(json, switch(folder, config, "clean_up_tokenization_spaces")?)?,
        (None, None) => by_class()?,
    };
    let mut more = listed.to_vec();
    let known: HashSet<u32> = listed.iter().map(|a| a.id).collect();
    more.extend(added_tokens_json(folder)?.into_iter().filter(|a| !known.contains(&a.id)));
    let (tokens, mut merges) = match &mut json {
        Some(json) => (json.byte_level_tokens(more, tokens)?, std::mem::take(&mut json.merges)),
        None => (json::vocab_json(folder, more, tokens)?, Merges::default()),
    };
    if merges.is_empty() {
        merges = json::merges_txt(folder)?;
    }
    if merges.is_empty() {
        let file = folder.name(if json.is_some() { json::FILE } else { "merges.txt" });
        return Err(unfit(&file, "the tokenizer has no merges, without which llama.cpp does not load it"));
    }
    Ok((Source::ByteLevel { pre: pre.to_string(), merges }, tokens))
}

/// Writes the tokens, with their scores, types and merges.
fn write_tokens(source: &Source, tokens: &[Token], metadata: &mut Metadata) {
    let (model, pre) = match source {
        Source::SentencePiece(settings) => (how::kind(settings), "default"),
        Source::ByteLevel { pre, .. } => ("gpt2", pre.as_str()),
    };
    metadata.set("tokenizer.ggml.model", Value::text(model));
    metadata.set("tokenizer.ggml.pre", Value::text(pre));
    let texts = Array::of_strings(tokens.iter().map(|t| &t.text));
    metadata.set("tokenizer.ggml.tokens", Value::Array(texts));
    if !matches!(source, Source::ByteLevel { .. }) {
        let scores = tokens.iter().map(|t| Value::F32(t.score));
        metadata.set("tokenizer.ggml.scores", array(Kind::F32, scores));
    }
    let types = tokens.iter().map(|t| Value::I32(t.kind as i32));
    metadata.set("tokenizer.ggml.token_type", array(Kind::I32, types));
    if let Source::ByteLevel { merges, .. } = source {
        metadata.set("tokenizer.ggml.merges", Value::Array(Array::of_strings(merges.iter())));
    }
}

fn array(kind: Kind, values: impl Iterator<Item = Value>) -> Value {
    Value::Array(Array::new(kind, values).expect("all values are of the kind"))
}

/// Settings that convert_hf_to_gguf.py derives from the size of a Llama's vocabulary.
fn by_size(rows: u64, metadata: &mut Metadata) {
    match rows {
        // CodeLlama: the fill-in-the-middle tokens. convert_hf_to_gguf.py means to write all four; the
        // first three under names that its writer no longer has.
        32016 => {
            for (role, id) in [("fim_pre", 32007), ("fim_suf", 32008), ("fim_mid", 32009), ("eot", 32010)] {
                metadata.set(&format!("tokenizer.ggml.{role}_token_id"), Value::U32(id));
            }
        }
        // Granite's small models, and SmolLM.
        49152 => metadata.set(ADD_BOS, Value::Bool(false)),
        _ => {}
    }
}
