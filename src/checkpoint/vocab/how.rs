//! How a SentencePiece model makes tokens of a text, as far as a GGUF can say it, and notes on what it cannot say.
//!
//! A GGUF's vocabulary is "llama" (pairs are merged by score) or "t5" (unigram: the most likely segmentation). Tables of
//! normalizations and the removal of spaces have keys that llama.cpp reads for "t5" only. [`crate::tokenizer`] reads them
//! for both, and has byte fallback for both, so that figures are of the tokens that the model learned; a note says on how
//! many lines of a sample text llama.cpp gives others.

use std::collections::HashSet;

use formats::metadata::{Array, Kind, Metadata, Value};
use serde_json::Value as Json;

use crate::checkpoint::vocab::base64;
use crate::checkpoint::vocab::files::unfit;
use crate::checkpoint::vocab::json;
use crate::checkpoint::vocab::sentencepiece::Settings;
use crate::checkpoint::vocab::tokens::{Token, Tokens, Type};
use crate::error::Result;
use crate::text::{first_of, visible};
use crate::tokenizer::{ADDED_SCORE, Normalizer, PREPEND_SCHEME, Prepend, Tokenizer, is_phi3, keeps_spaces};

/// A text with what tokenizers differ in: scripts, code, numbers, spaces, line ends, characters in several forms.
const SAMPLE: &str = include_str!("sample.txt");

const MERGE_SPACES: &str = "tokenizer.ggml.remove_extra_whitespaces";
const CHARSMAP: &str = "tokenizer.ggml.precompiled_charsmap";
const TYPES: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const SPACE_PREFIX: &str = "tokenizer.ggml.add_space_prefix";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";

/// The kind of a GGUF's vocabulary.
pub fn kind(settings: &Settings) -> &'static str {
    if settings.unigram { "t5" } else { "llama" }
}

/// What a GGUF says of the space before a text; `None` where programs do by themselves what the model does.
pub fn space_prefix(settings: &Settings) -> Option<bool> {
    Some(settings.space_prefix).filter(|prefix| settings.unigram || !prefix)
}

/// Writes what a model says of texts, and of a unigram model the roles of tokens that the kind "t5" has otherwise.
///
/// # Errors
/// [`Error::Vocabulary`](crate::Error::Vocabulary) for a damaged table of normalizations.
pub fn write(
    settings: &Settings,
    tokens: &[Token],
    metadata: &mut Metadata,
    notes: &mut Vec<String>,
) -> Result<()> {
    if settings.unigram || settings.merge_spaces {
        metadata.set(MERGE_SPACES, Value::Bool(settings.merge_spaces));
    }
    if !settings.charsmap.is_empty() {
        let table = Array::new(Kind::U8, settings.charsmap.iter().map(|&b| Value::U8(b)));
        metadata.set(CHARSMAP, Value::Array(table.expect("all values are bytes")));
    }
    if let Some(prepend) = settings.prepend {
        metadata.set(PREPEND_SCHEME, Value::text(prepend.name()));
    }
    roles(settings, tokens, metadata);
    let own = Tokenizer::from_metadata(metadata)?;
    let others = others(settings, tokens, &own, metadata);
    if !settings.unigram && !tokens.iter().any(|token| token.kind == Type::Byte) {
        notes.push(
            "the vocabulary has no tokens of bytes: llama.cpp ends with an error at a text that has characters without a token, \
             which ggufkit takes for <unk>, as the model's own tokenizer does"
                .into(),
        );
    }
    let learned = if settings.unread { "" } else { ": ggufkit splits texts as the model learned" };
    let t5 = "the tokenizer is a unigram model, so the GGUF's vocabulary is of the kind \"t5\"";
    let only = "Programs that know \"llama\" vocabularies only do not load it";
    if others.is_empty() {
        if settings.unigram {
            let learned = learned.replace("ggufkit splits", "ggufkit and llama.cpp split");
            notes.push(format!("{t5}{learned}. {only}"));
        }
        return Ok(());
    }
    let differ = lines_that_differ(&own, &as_llama_cpp(settings, tokens, metadata))?;
    let others = others.join("; ");
    notes.push(match settings.unigram {
        true => format!("{t5}{learned}. llama.cpp gives other tokens for {differ}: {others}. {only}"),
        false if settings.unread => {
            format!("llama.cpp gives other tokens for {differ} than the model learned: {others}")
        }
        false => format!(
            "ggufkit splits texts as the model's own tokenizer does, and llama.cpp gives other tokens for {differ}: {others}"
        ),
    });
    Ok(())
}

/// What llama.cpp does otherwise than a model that is written so.
fn others(settings: &Settings, tokens: &[Token], own: &Tokenizer, metadata: &Metadata) -> Vec<String> {
    let mut others: Vec<String> = Vec::new();
    let mut add = |yes: bool, what: &str| others.extend(yes.then(|| what.to_string()));
    let (prefix, merges) = (own.space_prefix(), settings.merge_spaces);
    let table = !settings.charsmap.is_empty();
    let has_bytes = tokens.iter().any(|token| token.kind == Type::Byte);
    let kind = "for this kind of vocabulary";
    if settings.unigram {
        add(
            has_bytes,
            &format!("it has no byte fallback {kind}, so characters without a token become <unk>"),
        );
        add(merges && !prefix, "it puts a space before texts, where the model puts none");
    } else {
        add(table, &format!("it does not replace characters (such as \u{ff21} by A) {kind}"));
        add(merges, &format!("it does not remove extra spaces {kind}"));
    }
    if prefix && metadata.get(PREPEND_SCHEME).is_some() {
        add(true, "it puts a space before texts that begin with one, where the model puts none");
        add(settings.prepend == Some(Prepend::First), "it puts a space behind special tokens too");
    }
    if let Some(first) = own.symbols().first().filter(|_| prefix || merges) {
        let text = visible(&own.token(*first));
        let space = if prefix { "it puts a space behind" } else { "it removes the spaces beside" };
        others.push(format!("{space} the model's own symbols, such as {text}, where the model does not"));
    }
    others
}

/// The metadata by which our tokenizer does what llama.cpp does with these.
fn as_llama_cpp(settings: &Settings, tokens: &[Token], metadata: &Metadata) -> Metadata {
    let mut as_there = metadata.clone();
    as_there.remove(PREPEND_SCHEME);
    let score = |token: &Token| if token.kind == Type::UserDefined { ADDED_SCORE } else { token.score };
    let scores = Array::new(Kind::F32, tokens.iter().map(|token| Value::F32(score(token))));
    as_there.set(SCORES, Value::Array(scores.expect("all are f32")));
    if settings.unigram {
        let kind = |token: &Token| if token.kind == Type::Byte { Type::Unused } else { token.kind };
        let kinds = Array::new(Kind::I32, tokens.iter().map(|token| Value::I32(kind(token) as i32)));
        as_there.set(TYPES, Value::Array(kinds.expect("all are i32")));
        if settings.merge_spaces {
            as_there.set(SPACE_PREFIX, Value::Bool(true));
        }
    } else {
        as_there.remove(MERGE_SPACES);
        as_there.remove(CHARSMAP);
    }
    as_there
}

/// Says in the metadata whether texts begin with BOS, where nothing else says so and programs would add a token that is no BOS,
/// or one that the model's own tokenizer does not add. `json` is the class of the tokenizer, if it was read from a
/// tokenizer.json.
pub fn begin(
    settings: &Settings,
    json: Option<Option<&str>>,
    tokens: &[Token],
    metadata: &mut Metadata,
    notes: &mut Vec<String>,
) {
    let kind = |id: u32| tokens.get(id as usize).map(|token| token.kind);
    let id =
        |role: &str| u32::try_from(metadata.get(&format!("tokenizer.ggml.{role}_token_id"))?.as_u64()?).ok();
    let has_bos = match (id("bos"), json) {
        (Some(id), _) => !matches!(kind(id), Some(Type::Byte)),
        // Of a tokenizer.json, the id that programs take.
        (None, json) => settings.bos.or(json.and(Some(1))).and_then(kind) == Some(Type::Control),
    };
    let says = metadata.get(ADD_BOS).cloned();
    // These classes put BOS before texts whatever tokenizer.json says; of others, its post-processor does.
    let by_class = |class: &str| {
        ["Llama", "CodeLlama", "Gemma", "Cohere", "llama", "mistral", "gemma", "cohere"]
            .iter()
            .any(|name| class.starts_with(name))
    };
    if !has_bos {
        if says == Some(Value::Bool(true)) {
            notes.push(
                "the tokenizer's settings ask for BOS before texts (add_bos_token), but it has no such token: none is added"
                    .into(),
            );
        }
        metadata.set(ADD_BOS, Value::Bool(false));
    } else if says.is_none() && json.flatten().is_some_and(|class| !by_class(class)) {
        metadata.set(ADD_BOS, Value::Bool(false));
    }
}

/// Writes the roles of tokens and what is added to texts, where nothing is said of them and the kind of vocabulary has other
/// defaults: "t5" than SentencePiece models of language models, "llama" than models with other ids.
fn roles(settings: &Settings, tokens: &[Token], metadata: &mut Metadata) {
    let is = |id: Option<u32>, kind| id.filter(|&id| tokens.get(id as usize).is_some_and(|t| t.kind == kind));
    let unknown = tokens.iter().position(|t| t.kind == Type::Unknown).map(|id| id as u32);
    for (role, id, usual) in [
        ("bos", is(settings.bos, Type::Control), 1),
        ("eos", is(settings.eos, Type::Control), 2),
        ("unknown", unknown, 0),
    ] {
        let key = format!("tokenizer.ggml.{role}_token_id");
        let needed = |id: &u32| settings.unigram || *id != usual;
        if let Some(id) = id.filter(needed).filter(|_| metadata.get(&key).is_none()) {
            metadata.set(&key, Value::U32(id));
        }
    }
    if !settings.unigram {
        return;
    }
    let has_bos = metadata.get("tokenizer.ggml.bos_token_id").is_some();
    for (key, default) in [(ADD_BOS, has_bos), (ADD_EOS, false)] {
        if metadata.get(key).is_none() {
            metadata.set(key, Value::Bool(default));
        }
    }
}

/// On how many lines of the sample text the tokenizer of other metadata gives other tokens, in words.
fn lines_that_differ(a: &Tokenizer, other: &Metadata) -> Result<String> {
    let b = Tokenizer::from_metadata(other)?;
    let mut sample = SAMPLE.to_string();
    if let Some(symbol) = a.symbols().first() {
        let symbol = a.token(*symbol);
        sample.push_str(&format!("a {symbol}b  {symbol} c\n"));
    }
    let lines = || sample.split_inclusive('\n');
    let differ = lines().filter(|line| a.encode(line, false, false) != b.encode(line, false, false)).count();
    Ok(format!("{differ} of {} lines of a sample text", lines().count()))
}

/// What a tokenizer.json of a converted SentencePiece model says of texts. Steps that nothing here does are named in a
/// note.
///
/// # Errors
/// [`Error::Format`](crate::Error::Format) for a table of normalizations that is not base64.
pub fn of_json(json: &json::Json, notes: &mut Vec<String>) -> Result<Settings> {
    let mut settings = Settings {
        unigram: json.is_unigram(),
        space_prefix: false,
        merge_spaces: false,
        charsmap: Vec::new(),
        bos: None,
        eos: None,
        prepend: None,
        unread: false,
    };
    let mut others: Vec<&str> = Vec::new();
    let mut strips = false;
    for step in steps(&json.normalizer, "normalizers") {
        let text = |key: &str| step.get(key).and_then(Json::as_str);
        let pattern = |key: &str| pattern(step, key);
        match text("type") {
            Some("Prepend") if text("prepend") == Some("\u{2581}") => settings.space_prefix = true,
            Some("Strip") => strips = true,
            Some("Replace") if pattern("String") == Some(" ") && text("content") == Some("\u{2581}") => {}
            Some("Replace") if pattern("Regex").is_some_and(|p| p.starts_with(" {2,}")) => {
                settings.merge_spaces = true;
            }
            Some("Precompiled") => {
                let table = text("precompiled_charsmap").unwrap_or_default();
                let wrong = || unfit(&json.name, "the table of normalizations is not base64");
                settings.charsmap = base64::decode(table).ok_or_else(wrong)?;
            }
            other => others.extend(other),
        }
    }
    // Spaces at the ends go with the extra ones, and other whitespace where the table makes spaces of it.
    let whitespace =
        || Some(Normalizer::new(&settings.charsmap, false).ok()?.replaced("\t\n\u{3000}") == "   ");
    if strips && !(settings.merge_spaces && whitespace() == Some(true)) {
        others.push("Strip");
    }
    for step in steps(&json.pre_tokenizer, "pretokenizers") {
        match step.get("type").and_then(Json::as_str) {
            Some("Metaspace") => {
                let scheme = step.get("prepend_scheme").and_then(Json::as_str);
                let old = step.get("add_prefix_space").and_then(Json::as_bool);
                let scheme = scheme.unwrap_or(if old.unwrap_or(true) { "always" } else { "never" });
                // What a normalizer has put there begins with a space.
                settings.prepend = Prepend::of(scheme).filter(|_| !settings.space_prefix);
                settings.space_prefix |= settings.prepend.is_some();
            }
            // Gemma's, after spaces have become U+2581: it splits nothing.
            Some("Split") if pattern(step, "String") == Some(" ") => {}
            other => others.extend(other),
        }
    }
    settings.unread = !others.is_empty();
    if settings.unread {
        let (name, list) = (&json.name, visible(&others.join(", ")));
        notes.push(format!(
            "{name} has steps that neither ggufkit nor a GGUF's other readers do with this kind of vocabulary, so some texts \
             get other tokens: {list}"
        ));
    }
    Ok(settings)
}

/// What a step looks for: a `String` or a `Regex`.
fn pattern<'a>(step: &'a Json, key: &str) -> Option<&'a str> {
    step.get("pattern")?.get(key)?.as_str()
}

/// The steps of a normalizer or a pre-tokenizer: itself, or those in its sequence.
fn steps<'a>(value: &'a Json, list: &str) -> Vec<&'a Json> {
    match value.get(list).and_then(Json::as_array) {
        Some(steps) => steps.iter().collect(),
        None if value.is_null() => Vec::new(),
        None => vec![value],
    }
}

/// A note on added tokens that are found as words of their own only, which a GGUF cannot say.
pub fn single_words(json: &json::Json, tokens: &Tokens) -> Option<String> {
    let lost: Vec<String> =
        json.single_words.iter().filter(|a| tokens.fits(a.id)).map(|a| visible(&a.text)).collect();
    let is = if lost.len() == 1 { "is a token" } else { "are tokens" };
    let names = first_of(&lost, 3);
    (!lost.is_empty()).then(|| {
        format!(
            "{names} {is} in the model's own tokenizer only where no letter is beside them (single_word). A GGUF cannot say \
             that: llama.cpp and ggufkit find them within words, too"
        )
    })
}

/// A note on added tokens that take the whitespace beside them out of a text, which a GGUF cannot say. `name` is the
/// model's.
pub fn strips(json: &json::Json, tokens: &Tokens, name: &str) -> Option<String> {
    let by_name = |s: &&json::Strips| !s.left && is_phi3(name) && !keeps_spaces(&s.text);
    let lost: Vec<&json::Strips> =
        json.strips.iter().filter(|s| tokens.fits(s.id)).filter(|s| !by_name(s)).collect();
    let first = lost.first()?;
    let (n, text) = (lost.len(), visible(&first.text));
    let which = match (lost.iter().any(|s| s.left), lost.iter().any(|s| s.right)) {
        (true, false) => "before them (lstrip)",
        (false, _) => "behind them (rstrip)",
        (true, true) => "beside them (lstrip, rstrip)",
    };
    // Programs do this for all special tokens of a model with such a name.
    let right: HashSet<&str> = lost.iter().filter(|s| !s.left).map(|s| s.text.as_str()).collect();
    let all = json.added.iter().all(|a| right.contains(a.text.as_str()) || keeps_spaces(&a.text));
    let way = match all && right.len() == n {
        true => {
            ". They drop it if the model's name has \"phi-3\" in it: convert with --set general.name=phi-3-NAME"
        }
        false => "",
    };
    Some(format!(
        "{n} tokens take the whitespace {which} out of a text in the model's own tokenizer (the first is {text}). A GGUF cannot \
         say that: llama.cpp and ggufkit leave it in, which gives other tokens{way}"
    ))
}
