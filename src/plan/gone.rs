//! Keys that were removed: where programs take another value for one than the model had, they read another model, without a
//! word.

use formats::metadata::{Metadata, Value};
use formats::model::Tensor;

use crate::arch::{Config, by_name, keys};
use crate::tokenizer::Tokenizer;

/// What comes of a key that is gone.
#[derive(Debug, PartialEq)]
pub(super) struct Gone {
    /// What programs do without it, as the rest of a sentence that begins with the key.
    pub why: &'static str,
    /// For what may be meant: what is to be thought of, for a note.
    pub note: Option<&'static str>,
}

/// The names of the kinds of vocabularies whose tokens are chosen by their scores.
const BY_SCORE: [&str; 2] = ["llama", "t5"];

/// What comes of `key` having had this value and being gone from the metadata; `None` if the model is read as before.
///
/// Source of what programs do: llama.cpp's `llama-vocab.cpp` (scores of 0, all tokens of the normal type, ids and switches
/// by the kind of vocabulary), and its loader for settings.
pub(super) fn gone(after: &Metadata, key: &str, had: &Value, tensors: &[Tensor]) -> Option<Gone> {
    let refused = |why| Some(Gone { why, note: None });
    let kind = after.text("tokenizer.ggml.model").unwrap_or_default();
    let any =
        |other: &dyn Fn(&Value) -> bool| had.as_array().is_some_and(|list| list.values().any(|v| other(&v)));
    match key {
        "tokenizer.ggml.scores" => {
            let counts = BY_SCORE.contains(&kind) && any(&|score| score.as_f64() != Some(0.0));
            return if counts {
                refused("without it, all tokens have the score 0, and texts are split into other tokens")
            } else {
                None
            };
        }
        "tokenizer.ggml.token_type" => {
            return if any(&|of| of.as_i128() != Some(1)) {
                refused(
                    "without it, all tokens are plain text: also control tokens, and those that stand for a byte",
                )
            } else {
                None
            };
        }
        "tokenizer.ggml.precompiled_charsmap" | "tokenizer.ggml.remove_extra_whitespaces" => {
            let normalizes =
                had == &Value::Bool(true) || had.as_array().is_some_and(|table| !table.is_empty());
            return if kind == "t5" && normalizes {
                refused("without it, texts are not normalized as those that the model learned from")
            } else {
                None
            };
        }
        _ => {}
    }
    let mut with = after.clone();
    with.set(key, had.clone());
    if key.starts_with("tokenizer.ggml.") {
        // A note of its own says that a pre-tokenizer is not named.
        let [with, without] = [&with, after].map(|metadata| Tokenizer::from_metadata(metadata).ok());
        let other = with.zip(without).is_some_and(|(with, without)| !with.adds_as(&without));
        return other.then_some(Gone {
            why: "without it, programs take their default, which is another",
            note: Some("texts begin or end with other tokens"),
        });
    }
    let arch = after.text("general.architecture")?;
    let end = key.strip_prefix(arch)?.strip_prefix('.')?;
    // That of the tokens is taken.
    if end == "vocab_size" || keys::forms(key, arch).is_none() {
        return None;
    }
    let settings = |metadata: &Metadata| {
        by_name(arch)?;
        let find = |name: &str| tensors.iter().find(|t| t.name == name);
        let rows = find("token_embd.weight").map_or(0, Tensor::rows);
        Config::from_gguf(metadata, rows, find("output.weight").is_none(), None).ok()
    };
    let Some((with, without)) = settings(&with).zip(settings(after)) else {
        return Some(Gone {
            why: "without it, programs take their default",
            note: Some("the model may have been trained with another value"),
        });
    };
    let same = (with.kv_heads, with.head, with.causal) == (without.kv_heads, without.head, without.causal)
        && (with.theta, with.epsilon, with.scaling) == (without.theta, without.epsilon, without.scaling);
    if same {
        None
    } else {
        refused("without it, programs compute with their default, which is another value")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::metadata::{Array, Kind};

    fn metadata(kind: &str) -> Metadata {
        let mut m = Metadata::new();
        for (key, value) in [
            ("general.architecture", Value::text("qwen2")),
            ("qwen2.block_count", Value::U32(1)),
            ("qwen2.embedding_length", Value::U32(8)),
            ("qwen2.context_length", Value::U32(64)),
            ("qwen2.attention.head_count", Value::U32(2)),
            ("qwen2.feed_forward_length", Value::U32(16)),
            ("qwen2.attention.layer_norm_rms_epsilon", Value::F32(1e-6)),
            ("tokenizer.ggml.model", Value::text(kind)),
            ("tokenizer.ggml.tokens", Value::Array(Array::of_strings(["<unk>", "<s>", "</s>", "a"]))),
        ] {
            m.set(key, value);
        }
        m
    }

    #[test]
    fn what_programs_take_for_a_key_counts() {
        let floats = |x: f32| Value::Array(Array::new(Kind::F32, vec![Value::F32(x); 4]).unwrap());
        let types = |n: i32| Value::Array(Array::new(Kind::I32, vec![Value::I32(n); 4]).unwrap());
        let [scores, kinds] = ["scores", "token_type"].map(|name| format!("tokenizer.ggml.{name}"));
        for (kind, key, had, refused) in [
            ("llama", &*scores, floats(-1.0), Some(true)),
            ("t5", &scores, floats(-1.0), Some(true)),
            ("llama", &scores, floats(0.0), None),
            ("bert", &scores, floats(-1.0), None),
            ("llama", &kinds, types(3), Some(true)),
            ("bert", &kinds, types(3), Some(true)),
            ("llama", &kinds, types(1), None),
            ("t5", "tokenizer.ggml.remove_extra_whitespaces", Value::Bool(true), Some(true)),
            ("t5", "tokenizer.ggml.remove_extra_whitespaces", Value::Bool(false), None),
            ("llama", "tokenizer.ggml.remove_extra_whitespaces", Value::Bool(true), None),
            ("llama", "tokenizer.ggml.bos_token_id", Value::U32(1), None),
            ("llama", "tokenizer.ggml.bos_token_id", Value::U32(3), Some(false)),
            ("llama", "tokenizer.ggml.add_bos_token", Value::Bool(true), None),
            ("llama", "tokenizer.ggml.add_bos_token", Value::Bool(false), Some(false)),
            ("llama", "tokenizer.ggml.eot_token_id", Value::U32(3), Some(false)),
            ("llama", "tokenizer.chat_template", Value::text("x"), None),
            ("llama", "qwen2.rope.freq_base", Value::F32(10000.0), None),
            ("llama", "qwen2.rope.freq_base", Value::F32(1e6), Some(true)),
            ("llama", "qwen2.rope.dimension_count", Value::U32(4), None),
            ("llama", "qwen2.attention.causal", Value::Bool(false), Some(true)),
            ("llama", "qwen2.vocab_size", Value::U32(4), None),
            ("llama", "qwen2.own_key", Value::U32(4), None),
            ("llama", "general.name", Value::text("x"), None),
        ] {
            let found = gone(&metadata(kind), key, &had, &[]);
            assert_eq!(
                found.as_ref().map(|gone| gone.note.is_none()),
                refused,
                "{kind} {key} {had:?} {found:?}"
            );
        }
        // An architecture whose defaults are not known here.
        let mut other = metadata("llama");
        other.set("general.architecture", Value::text("mamba"));
        let found = gone(&other, "mamba.expert_count", &Value::U32(8), &[]).unwrap();
        assert!(found.note.is_some());
    }
}
