//! Recognises the pre-tokenizer of a tokenizer.json: the name under which llama.cpp knows its splitting rules.
//!
//! convert_hf_to_gguf.py finds the name by encoding a text and comparing the ids with those of known models, so a model
//! with an added token is unknown to it. Here the rules themselves are compared: the normalizer and the patterns in
//! tokenizer.json with those of each name in [`table`].

use serde_json::{Value, json};

use crate::checkpoint::vocab::json::Json;
use crate::error::{Error, Result};
use crate::tokenizer::pre::table::{self, CONTIGUOUS_PUNCTUATION, DIGIT, GPT2, NUMBER, PreTokenizer, TABLE};

/// The name of the pre-tokenizer of a tokenizer.json. `clean` is `clean_up_tokenization_spaces` in the tokenizer_config.json
/// beside it.
///
/// # Errors
/// [`Error::Vocabulary`], with the rules.
pub fn recognise(json: &Json, clean: Option<bool>) -> Result<&'static str> {
    let found = normalizer(&json.normalizer).zip(splits(&json.pre_tokenizer)).and_then(|(nfc, splits)| {
        let splits: Vec<&str> = splits.iter().map(String::as_str).collect();
        find(&splits, nfc, json.ignore_merges, clean.unwrap_or(true))
    });
    found.map(|row| row.name).ok_or_else(|| {
        let rules = json!({"normalizer": json.normalizer, "pre_tokenizer": json.pre_tokenizer});
        let known = table::names(|_| true).join(", ");
        Error::from(tokenizer::Error::UnknownPreTokenizer {
            what: format!("{}: llama.cpp has no pre-tokenizer with these rules: {rules}", json.name),
            hint: format!("name one that splits in the same way with --pre-tokenizer NAME: {known}"),
        })
    })
}

/// The first row with these rules.
fn find(
    splits: &[&str],
    nfc: bool,
    ignore_merges: bool,
    clean_spaces: bool,
) -> Option<&'static PreTokenizer> {
    let same_splits = |known: table::Splits| {
        known.len() == splits.len() && known.iter().zip(splits).all(|(known, split)| same(known, split))
    };
    TABLE.iter().find(|row| {
        row.patterns_in_json().any(same_splits)
            && row.only.nfc.is_none_or(|known| known == nfc)
            && row.only.ignore_merges.is_none_or(|known| known == ignore_merges)
            && row.only.clean_spaces.is_none_or(|known| known == clean_spaces)
    })
}

/// What a checkpoint with these patterns must say to be recognised as this row: whether texts are normalized to form C,
/// and whether spaces are cleaned up in decoded text.
pub fn conditions(row: &PreTokenizer, splits: table::Splits) -> (bool, bool) {
    // Qwen's models do normalize, which does not tell theirs from others.
    let first = row.only.nfc.unwrap_or_else(|| row.classes.iter().any(|class| class.starts_with("Qwen")));
    let all = [(first, false), (first, true), (!first, false), (!first, true)];
    let fits = |&(nfc, clean): &(bool, bool)| {
        find(splits, nfc, row.ignore_merges, clean).is_some_and(|found| found.name == row.name)
    };
    all.into_iter().find(fits).unwrap_or(all[0])
}

/// Whether a pattern is that of the table, which may end in … for any that begin like it.
fn same(known: &str, found: &str) -> bool {
    match known.strip_suffix('\u{2026}') {
        Some(start) => found.starts_with(start),
        None => known == found,
    }
}

/// Whether texts are normalized to Unicode's form C (NFC); `None` if more is done to them. llama.cpp does not
/// normalize, but nearly all texts are in form C.
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

/// The patterns by which a text is split, one after the other; `None` for pre-tokenizers that do something else, or do
/// not end in the byte alphabet.
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
            // llama.cpp puts no space before the text.
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
            // Files made from tiktoken's vocabularies drop text that does not match. There is none: the last
            // alternatives match any whitespace, and the others everything else.
            let whole = pattern.ends_with("|\\s+");
            match (step.get("behavior")?.as_str()?, flag("invert", false)?) {
                ("Isolated", _) => {}
                ("Removed", true) if whole => {}
                _ => return None,
            }
            // Some files have line ends as characters, others as escapes.
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
        recognise(&json.unwrap().unwrap(), config["clean_up_tokenization_spaces"].as_bool())
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
