//! The name under which llama.cpp knows how a byte-level tokenizer splits a text before it merges.
//!
//! convert_hf_to_gguf.py finds the name by encoding a text and comparing the ids with those of known models, so
//! a model with an added token is unknown to it. Here the rules themselves are compared: tokenizer.json says
//! what is split off, and [`table`] has what llama.cpp splits off for each name.

use serde_json::{Value, json};

use crate::checkpoint::vocab::json::Json;
use crate::error::{Error, Result};
use crate::tokenizer::pre::table::{self, CONTIGUOUS_PUNCTUATION, DIGIT, GPT2, NUMBER, TABLE};

/// The name of a tokenizer.json's rules. `config` is its tokenizer_config.json.
///
/// # Errors
/// Rules that no name stands for, with the rules.
pub fn recognise(json: &Json, config: Option<&Value>) -> Result<&'static str> {
    let clean = config.and_then(|c| c.get("clean_up_tokenization_spaces")).and_then(Value::as_bool);
    let found = normalizer(&json.normalizer).zip(splits(&json.pre_tokenizer)).and_then(|(nfc, splits)| {
        let same_splits = |known: table::Splits| {
            known.len() == splits.len() && known.iter().zip(&splits).all(|(known, split)| same(known, split))
        };
        TABLE.iter().find(|row| {
            row.patterns_in_json().any(same_splits)
                && row.only.nfc.is_none_or(|known| known == nfc)
                && row.only.ignore_merges.is_none_or(|known| known == json.ignore_merges)
                && row.only.clean_spaces.is_none_or(|known| known == clean.unwrap_or(true))
        })
    });
    found.map(|row| row.name).ok_or_else(|| {
        let rules = json!({"normalizer": json.normalizer, "pre_tokenizer": json.pre_tokenizer});
        Error::refused(format!(
            "{}: the pre-tokenizer is none of those that llama.cpp knows: {rules}",
            json.name
        ))
        .or(format!(
            "name the one that splits alike with --pre-tokenizer NAME: {}",
            table::names(|_| true).join(", ")
        ))
    })
}

/// A pattern of the table is the whole one, or with … at its end the beginning of a long one.
fn same(known: &str, found: &str) -> bool {
    match known.strip_suffix('\u{2026}') {
        Some(start) => found.starts_with(start),
        None => known == found,
    }
}

/// Whether texts are put into Unicode's form C; `None` if more is done to them. llama.cpp does neither, but what
/// is typed is in form C nearly always.
fn normalizer(value: &Value) -> Option<bool> {
    match value.get("type").and_then(Value::as_str) {
        None if value.is_null() => Some(false),
        Some("NFC") => Some(true),
        Some("Sequence") => {
            let steps = value.get("normalizers")?.as_array()?;
            steps.iter().try_fold(false, |nfc, step| Some(nfc | normalizer(step)?))
        }
        _ => None,
    }
}

/// The patterns that are split off one after the other; `None` if that is not all that is done, or if the result
/// is not turned into the alphabet of bytes.
fn splits(value: &Value) -> Option<Vec<String>> {
    let (mut splits, mut byte_level) = (Vec::new(), false);
    collect(value, &mut splits, &mut byte_level)?;
    byte_level.then_some(splits)
}

fn collect(step: &Value, splits: &mut Vec<String>, byte_level: &mut bool) -> Option<()> {
    let flag = |key, default| step.get(key).map_or(Some(default), Value::as_bool);
    match step.get("type")?.as_str()? {
        "Sequence" => {
            for step in step.get("pretokenizers")?.as_array()? {
                collect(step, splits, byte_level)?;
            }
        }
        "ByteLevel" => {
            *byte_level = true;
            // A space before the text: llama.cpp puts none there.
            if flag("add_prefix_space", true)? {
                return None;
            }
            if flag("use_regex", true)? {
                splits.push(GPT2.into());
            }
        }
        "Digits" => splits.push(if flag("individual_digits", false)? { DIGIT } else { NUMBER }.into()),
        "Punctuation" => match step.get("behavior")?.as_str()? {
            "Contiguous" => splits.push(CONTIGUOUS_PUNCTUATION.into()),
            _ => return None,
        },
        "Split" => {
            let pattern = step.get("pattern")?.get("Regex")?.as_str()?;
            // Files made from tiktoken's vocabularies throw away what does not match, which is nothing: the last
            // alternatives match any space, and the others match the rest.
            let whole = pattern.ends_with("|\\s+");
            match (step.get("behavior")?.as_str()?, flag("invert", false)?) {
                ("Isolated", _) => {}
                ("Removed", true) if whole => {}
                _ => return None,
            }
            // Some files have the line ends themselves in a set, others escapes.
            splits.push(pattern.replace('\r', "\\r").replace('\n', "\\n"));
        }
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(regex: &str) -> Value {
        json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false})
    }

    fn bytes(use_regex: bool) -> Value {
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex})
    }

    fn sequence(steps: &[Value]) -> Value {
        json!({"type": "Sequence", "pretokenizers": steps})
    }

    fn name(
        normalizer: Value,
        pre_tokenizer: Value,
        ignore_merges: bool,
        config: Value,
    ) -> Result<&'static str> {
        let file = json!({
            "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
            "model": {"type": "BPE", "vocab": {"a": 0}, "merges": [], "ignore_merges": ignore_merges},
        });
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tokenizer.json"), file.to_string()).unwrap();
        let json = crate::checkpoint::vocab::json::read(
            &mut crate::checkpoint::vocab::files::Folder::new(dir.path()),
            true,
        );
        recognise(&json.unwrap().unwrap(), Some(&config))
    }

    #[test]
    fn every_entry_is_found() {
        for row in TABLE {
            for patterns in row.patterns_in_json() {
                let mut steps: Vec<Value> = patterns.iter().map(|s| split(s)).collect();
                steps.push(bytes(false));
                let steps = sequence(&steps);
                let found =
                    [(false, true), (false, false), (true, true), (true, false)].map(|(nfc, clean)| {
                        let normalizer = if nfc { json!({"type": "NFC"}) } else { Value::Null };
                        let config = json!({"clean_up_tokenization_spaces": clean});
                        let ignore = row.only.ignore_merges.unwrap_or(false);
                        name(normalizer, steps.clone(), ignore, config).unwrap()
                    });
                assert!(found.contains(&row.name), "{}: {found:?}", row.name);
            }
        }
    }

    #[test]
    fn the_same_rules_in_other_words() {
        let null = || json!({});
        let gpt2 = |n| name(n, bytes(true), false, null()).unwrap();
        assert_eq!((gpt2(Value::Null), gpt2(json!({"type": "NFC"}))), ("gpt-2", "olmo"));
        let digits = json!({"type": "Digits", "individual_digits": true});
        let starcoder = |n, c| name(n, sequence(&[digits.clone(), bytes(true)]), false, c).unwrap();
        assert_eq!(starcoder(Value::Null, null()), "starcoder");
        assert_eq!(starcoder(Value::Null, json!({"clean_up_tokenization_spaces": false})), "smollm");
        assert_eq!(starcoder(json!({"type": "NFC"}), null()), "command-r");
        let removed = json!({
            "type": "Split", "pattern": {"Regex": table::LLAMA3}, "behavior": "Removed", "invert": true,
        });
        let llama =
            |ignore| name(Value::Null, sequence(&[removed.clone(), bytes(false)]), ignore, null()).unwrap();
        assert_eq!((llama(true), llama(false)), ("llama-bpe", "dbrx"));
        let empty = json!({"type": "Sequence", "normalizers": []});
        let coder = ["[\r\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", "[一-龥ࠀ-一가-퟿]+"].map(split);
        let coder = sequence(&[&coder[..], &[digits.clone(), bytes(false)]].concat());
        assert_eq!(name(empty, coder, false, null()).unwrap(), "deepseek-coder");
    }

    #[test]
    fn what_is_unknown_is_shown() {
        let error = name(json!({"type": "Lowercase"}), bytes(true), false, json!({})).unwrap_err();
        assert!(
            error
                .to_string()
                .contains(r#"{"normalizer":{"type":"Lowercase"},"pre_tokenizer":{"type":"ByteL"#)
        );
        assert!(error.hint().unwrap().contains("--pre-tokenizer NAME"), "{:?}", error.hint());
        assert!(error.hint().unwrap().contains("gpt-4o, "));
        for pre in [
            Value::Null,
            split("x"),
            sequence(&[split("x"), bytes(false)]),
            json!({"type": "ByteLevel", "add_prefix_space": true}),
            json!({"type": "Metaspace"}),
            json!([]),
        ] {
            assert!(name(Value::Null, pre, false, json!({})).is_err());
        }
    }
}
