//! The recommended sampling parameters of a model: `generation_config.json`.

use std::path::Path;

use formats::metadata::{Kind, Metadata, Value};
use serde_json::Value as Json;

use super::Card;
use crate::checkpoint::json;
use crate::text::listed;
use crate::text_file;

const NAME: &str = "generation_config.json";

/// The longest file that is read, in bytes; published ones have a few hundred.
const LIMIT: usize = 1 << 20;

/// The parameters: the key under `general.sampling`, the value type, and the names in the file, of which the last is
/// transformers' own.
const SETTINGS: [(&str, Kind, &[&str]); 12] = [
    ("sequence", Kind::String, &["sequence"]),
    ("top_k", Kind::I32, &["top_k"]),
    ("top_p", Kind::F32, &["top_p"]),
    ("min_p", Kind::F32, &["min_p"]),
    ("xtc_probability", Kind::F32, &["xtc_probability"]),
    ("xtc_threshold", Kind::F32, &["xtc_threshold"]),
    ("temp", Kind::F32, &["temperature"]),
    ("penalty_last_n", Kind::I32, &["penalty_last_n"]),
    ("penalty_repeat", Kind::F32, &["penalty_repeat", "repetition_penalty"]),
    ("mirostat", Kind::I32, &["mirostat"]),
    ("mirostat_tau", Kind::F32, &["mirostat_tau"]),
    ("mirostat_eta", Kind::F32, &["mirostat_eta"]),
];

/// Settings that change what is generated, and for which a GGUF has no keys.
const WITHOUT_KEYS: [&str; 8] = [
    "bad_words_ids",
    "begin_suppress_tokens",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "no_repeat_ngram_size",
    "sequence_bias",
    "stop_strings",
    "suppress_tokens",
];

/// Adds the parameters of the folder's generation config to the card.
pub fn read(card: &mut Card, folder: &Path) {
    let Some((bytes, whole)) = card.load(folder, NAME, LIMIT) else { return };
    if !whole {
        card.notes.push(format!("{NAME}: longer than {LIMIT} bytes: left out"));
        return;
    }
    let text = match text_file::strict(NAME, bytes) {
        Ok(decoded) => decoded.text,
        Err(why) => {
            card.notes.push(format!("{why}: left out"));
            return;
        }
    };
    let config: Json = match json::parse(text.as_bytes(), LIMIT as u64) {
        Ok(config @ Json::Object(_)) => config,
        Ok(_) => {
            card.notes.push(format!("{NAME}: not a JSON object: left out"));
            return;
        }
        Err(fault) => {
            let what = if fault.is_data() { "" } else { "not JSON: " };
            card.notes.push(format!("{NAME}: {what}left out: {fault}"));
            return;
        }
    };
    let is_set = |field: &&str| match config.get(*field) {
        None | Some(Json::Null) => false,
        Some(Json::Array(list)) => !list.is_empty(),
        Some(Json::Object(map)) => !map.is_empty(),
        Some(value) => *value != 0,
    };
    let others: Vec<&str> = WITHOUT_KEYS.into_iter().filter(is_set).collect();
    if !others.is_empty() {
        let what = listed(&others);
        card.of_gguf.push(format!("{NAME}: a GGUF has no place for {what}: programs generate texts without"));
    }
    for (key, kind, fields) in SETTINGS {
        let found = fields.iter().find_map(|f| Some((f, config.get(f).filter(|json| !json.is_null())?)));
        let Some((field, json)) = found else { continue };
        match value(json, kind) {
            Some(value) => card.metadata.set(&format!("general.sampling.{key}"), value),
            None => {
                let wanted = match kind {
                    Kind::I32 => "a 32-bit integer",
                    Kind::F32 => "a number that fits 32 bits",
                    _ => "text",
                };
                card.notes.push(format!("{NAME}: {field} is not {wanted}: left out"));
            }
        }
    }
}

/// Those of the parameters with which transformers draws tokens at random, rather than to take the likeliest.
const OF_SAMPLING: [&str; 4] = ["temperature", "top_k", "top_p", "min_p"];

/// Adds the parameters of a GGUF to the settings of a `generation_config.json`. Gives the keys that were written.
pub fn write(metadata: &Metadata, config: &mut Json) -> Vec<String> {
    let mut kept = Vec::new();
    for (key, kind, fields) in SETTINGS {
        let (key, Some(field)) = (format!("general.sampling.{key}"), fields.last()) else { continue };
        let Some(value) = metadata.get(&key).filter(|value| value.kind() == kind) else { continue };
        let json = match value {
            Value::I32(n) => Json::from(*n),
            // The shortest number that is the same in 32 bits.
            Value::F32(x) if x.is_finite() => {
                Json::from(x.to_string().parse::<f64>().unwrap_or(f64::from(*x)))
            }
            other => match other.as_str() {
                Some(text) => Json::from(text),
                None => continue,
            },
        };
        config[*field] = json;
        kept.push(key);
    }
    if OF_SAMPLING.iter().any(|field| config.get(field).is_some()) {
        // No temperature at all is the likeliest token.
        config["do_sample"] = (config["temperature"].as_f64() != Some(0.0)).into();
    }
    kept
}

/// A metadata value of this type; `None` if the JSON value is of another.
fn value(json: &Json, kind: Kind) -> Option<Value> {
    match kind {
        Kind::I32 => json.as_i64().and_then(|v| i32::try_from(v).ok()).map(Value::I32),
        Kind::F32 => json.as_f64().map(|v| v as f32).filter(|v| v.is_finite()).map(Value::F32),
        _ => json.as_str().map(Value::text),
    }
}
