//! Keys that were removed: where programs take another value for one than the model had, they read another model, without a
//! word.

use formats::metadata::{Metadata, Value};
use formats::model::Tensor;

use crate::arch::{Config, by_name, keys, llama_cpp};
use crate::tokenizer::{Difference, Tokenizer};

/// What comes of a key that is gone.
#[derive(Debug, PartialEq)]
pub(super) struct Gone {
    /// What programs do without it, as the rest of a sentence that begins with the key.
    pub why: &'static str,
    /// For what may be meant: what is to be thought of, for a note.
    pub note: Option<&'static str>,
}

/// The names of the kinds of vocabularies whose tokens are chosen by their scores.
const BY_SCORE: [&str; 3] = ["llama", "t5", "plamo2"];

/// Epsilons of norms, which have no default.
const EPSILONS: [&str; 3] =
    ["attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon", "attention.group_norm_epsilon"];

/// Whether a setting has the value that programs take without its key: a built-in one, or that of other keys.
fn is_default(after: &Metadata, arch: &str, end: &str, had: &Value) -> bool {
    let count = |end: &str| after.get(&format!("{arch}.{end}")).and_then(Value::as_u64);
    let per_head = || count("embedding_length")?.checked_div(count("attention.head_count")?);
    let derived = match end {
        "attention.head_count_kv" => count("attention.head_count"),
        "attention.key_length" | "attention.value_length" => per_head(),
        "rope.dimension_count" => count("attention.key_length").or_else(per_head),
        "rope.scaling.original_context_length" => count("context_length"),
        _ => None,
    };
    let number = match had {
        Value::Bool(switch) => Some(f64::from(u8::from(*switch))),
        other => other.as_f64().or(other.as_i128().map(|n| n as f64)),
    };
    derived.is_some_and(|n| had.as_u64() == Some(n))
        || number.is_some_and(|number| llama_cpp::is_default(arch, end, number))
        || end == "rope.scaling.type" && had.as_str() == Some("linear")
}

/// What comes of `key` having had this value and being gone from the metadata; `None` if the model is read as before.
///
/// Source of what programs do: llama.cpp's `llama-vocab.cpp` (scores of 0, all tokens of the normal type, ids and switches
/// by the kind of vocabulary), and its loader for settings.
pub(super) fn gone(after: &Metadata, key: &str, had: &Value, tensors: &[Tensor]) -> Option<Gone> {
    let refused = |why| Some(Gone { why, note: None });
    let kind = after.text("tokenizer.ggml.model").unwrap_or_default();
    let any =
        |other: &dyn Fn(&Value) -> bool| had.as_array().is_some_and(|list| list.values().any(|v| other(&v)));
    let of_tokens = key.starts_with("tokenizer.ggml.");
    // A vocabulary that is gone as a whole is not read otherwise. That it must be there is checked by itself.
    if of_tokens && (matches!(kind, "none" | "no_vocab") || after.get("tokenizer.ggml.tokens").is_none()) {
        return None;
    }
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
    let default = |note| Some(Gone { why: "without it, programs take their default", note: Some(note) });
    if of_tokens {
        let [with, without] = [&with, after].map(|metadata| Tokenizer::from_metadata(metadata).ok());
        let Some((with, without)) = with.zip(without) else {
            // A note of its own says that a pre-tokenizer is not named.
            let is_read = key != "tokenizer.ggml.pre" && keys::forms(key, "").is_some();
            return if is_read { default("texts may get other tokens") } else { None };
        };
        let another = |note| {
            Some(Gone { why: "without it, programs take their default, which is another", note: Some(note) })
        };
        return match with.differs(&without)? {
            Difference::Spaces => {
                refused("without it, programs treat spaces otherwise, and texts are split into other tokens")
            }
            Difference::Added => another("texts begin or end with other tokens"),
            Difference::Unknown => another("what has no token of its own gets another one"),
            Difference::Ends => another("generation ends at other tokens"),
        };
    }
    let arch = after.text("general.architecture")?;
    let end = key.strip_prefix(arch)?.strip_prefix('.')?;
    if end == "vocab_size" {
        let counted = after.get("tokenizer.ggml.tokens").is_some();
        return if counted {
            None
        } else {
            refused("without it and without tokens, programs know no vocabulary")
        };
    }
    // What is not known here of an architecture that is, no program reads.
    if keys::forms(key, arch).is_none() && by_name(arch).is_some() {
        return None;
    }
    if EPSILONS.contains(&end)
        && by_name(arch).is_none()
        && !EPSILONS.iter().any(|other| after.get(&format!("{arch}.{other}")).is_some())
    {
        return refused("no program reads the model without it: it says the epsilon of its norms");
    }
    let settings = |metadata: &Metadata| {
        by_name(arch)?;
        let find = |name: &str| tensors.iter().find(|t| t.name == name);
        let rows = find("token_embd.weight").map_or(0, Tensor::rows);
        Config::from_gguf(metadata, rows, find("output.weight").is_none(), None).ok()
    };
    let Some((with, without)) = settings(&with).zip(settings(after)) else {
        if is_default(after, arch, end, had) {
            return None;
        }
        let why = "without it, programs take their default, or refuse the model";
        return Some(Gone { why, note: Some("the model may have been trained with another value") });
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
            ("plamo2", &scores, floats(-1.0), Some(true)),
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
            ("llama", "tokenizer.ggml.unknown_token_id", Value::U32(3), Some(false)),
            ("llama", "tokenizer.ggml.add_space_prefix", Value::Bool(false), Some(true)),
            ("llama", "tokenizer.ggml.add_space_prefix", Value::Bool(true), None),
            ("t5", "tokenizer.ggml.add_space_prefix", Value::Bool(true), Some(true)),
            // A tokenizer that is not read here.
            ("bert", "tokenizer.ggml.add_bos_token", Value::Bool(true), Some(false)),
            ("rwkv", "tokenizer.ggml.eos_token_id", Value::U32(3), Some(false)),
            ("bert", "tokenizer.ggml.own_key", Value::U32(3), None),
            // None at all.
            ("no_vocab", &scores, floats(-1.0), None),
            ("none", &kinds, types(3), None),
            ("no_vocab", "tokenizer.ggml.add_space_prefix", Value::Bool(false), None),
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
        // An architecture that is not read here.
        let mut other = metadata("llama");
        other.set("general.architecture", Value::text("mamba"));
        for (key, n) in [("context_length", 64), ("embedding_length", 8), ("attention.head_count", 2)] {
            other.set(&format!("mamba.{key}"), Value::U32(n));
        }
        for (end, had, noted) in [
            ("expert_count", Value::U32(8), true),
            ("expert_count", Value::U32(0), false),
            ("expert_weights_norm", Value::Bool(true), true),
            ("expert_weights_norm", Value::Bool(false), false),
            ("attention.causal", Value::Bool(true), false),
            ("expert_weights_scale", Value::F32(1.0), false),
            ("expert_weights_scale", Value::F32(2.5), true),
            ("attn_logit_softcapping", Value::F32(50.0), false),
            ("final_logit_softcapping", Value::F32(50.0), true),
            ("rope.scaling.type", Value::text("linear"), false),
            ("rope.scaling.type", Value::text("yarn"), true),
            ("rope.scaling.original_context_length", Value::U32(64), false),
            ("attention.head_count_kv", Value::U32(2), false),
            ("attention.key_length", Value::U32(4), false),
            ("attention.value_length", Value::U32(8), true),
            ("rope.dimension_count", Value::U32(4), false),
            ("ssm.conv_kernel", Value::U32(4), true),
            ("logit_scale", Value::F32(0.0), false),
            ("rope.freq_base", Value::F32(10000.0), false),
            ("rope.freq_base", Value::F32(50000.0), true),
            // The default is the number of heads.
            ("attention.head_count_kv", Value::U32(0), true),
        ] {
            let found = gone(&other, &format!("mamba.{end}"), &had, &[]);
            assert_eq!(found.is_some(), noted, "{end} {had:?} {found:?}");
            assert!(found.is_none_or(|gone| gone.note.is_some()));
        }
        // What is said fits what changes.
        for (key, had, says) in [
            ("add_bos_token", Value::Bool(false), "begin or end"),
            ("bos_token_id", Value::U32(3), "begin or end"),
            ("eos_token_id", Value::U32(3), "generation ends at other tokens"),
            ("eot_token_id", Value::U32(3), "generation ends at other tokens"),
            ("unknown_token_id", Value::U32(3), "no token of its own"),
        ] {
            let found = gone(&metadata("llama"), &format!("tokenizer.ggml.{key}"), &had, &[]).unwrap();
            assert!(found.note.is_some_and(|note| note.contains(says)), "{key} {found:?}");
        }
        // With the whole vocabulary, its parts go.
        let mut without = metadata("llama");
        without.remove("tokenizer.ggml.tokens");
        assert_eq!(gone(&without, &kinds, &types(3), &[]), None);
    }
}
