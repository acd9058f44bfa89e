//! What a model's metadata says that other files than a GGUF have no place for.

use std::collections::HashSet;

use formats::metadata::{Metadata, Value};

use super::vocab;
use crate::text::{cut, first_of, visible};

/// The most keys that are named.
const NAMED: usize = 4;

/// Keys about the file that has them, such as the types of its weights, rather than about the model.
const OF_FILE: [&str; 5] = [
    "general.architecture",
    "general.type",
    "general.file_type",
    "general.quantization_version",
    "general.alignment",
];

/// The same, by their beginnings: how a file was made of another.
const OF_MAKING: [&str; 3] = ["split.", "quantize.", "ggufkit."];

/// Ends of the settings that config.json has, or that follow from those and from the tensors.
const SETTINGS: [&str; 23] = [
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "vocab_size",
    "tensor_data_layout",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.causal",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.attn_factor",
    "rope.scaling.yarn_ext_factor",
    "rope.scaling.yarn_attn_factor",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
];

/// The keys of a model's metadata that a checkpoint does not hold. `card` are those that its model card and its
/// generation_config.json hold. Keys of the tokenizer count only where that is written.
pub fn of_checkpoint(metadata: &Metadata, card: &HashSet<String>, tokenizer: bool) -> Option<String> {
    let is_held = |key: &str| match key.starts_with("tokenizer.") {
        true => !tokenizer || vocab::holds(key),
        false => card.contains(key) || is_setting(metadata, key),
    };
    note(metadata, "a checkpoint has", is_held)
}

/// The keys of a model's metadata that llama2.c's files do not hold.
pub fn of_llama2c(metadata: &Metadata) -> Option<String> {
    // What a file is called says these, too.
    const NAMES: [&str; 2] = ["general.name", "general.size_label"];
    // The rest of what they say of texts is told where the tokenizer is written.
    let is_held = |key: &str| match key.strip_prefix("tokenizer.") {
        Some(end) => !end.starts_with("chat_template") && vocab::holds(key),
        None => NAMES.contains(&key) || is_setting(metadata, key),
    };
    note(metadata, "llama2.c's files have", is_held)
}

/// Whether a key has a setting of the model's architecture that files of every format hold.
fn is_setting(metadata: &Metadata, key: &str) -> bool {
    let arch = metadata.text("general.architecture").unwrap_or_default();
    key.strip_prefix(arch).and_then(|rest| rest.strip_prefix('.')).is_some_and(|end| SETTINGS.contains(&end))
}

/// A note on the keys that are not held; `None` if there are none. `files` have no place for them.
fn note(metadata: &Metadata, files: &str, is_held: impl Fn(&str) -> bool) -> Option<String> {
    let lost: Vec<String> = metadata
        .iter()
        .filter(|(key, value)| {
            let of_file = OF_FILE.contains(key) || OF_MAKING.iter().any(|start| key.starts_with(start));
            !of_file && !says_nothing(value) && !is_held(key)
        })
        .map(|(key, _)| cut(&visible(key), 80))
        .collect();
    let (them, are) = if lost.len() == 1 { ("this key", "is") } else { ("these keys", "are") };
    let names = first_of(&lost, NAMED);
    (!lost.is_empty())
        .then(|| format!("{files} no place for {them} of the metadata, which {are} left out: {names}"))
}

/// Whether a value is what programs take where there is none.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Bool(yes) => !yes,
        Value::Array(array) => array.is_empty(),
        other => other.as_i128() == Some(0) || other.as_f64() == Some(0.0) || other.as_str() == Some(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_without_a_place_are_named() {
        let mut m = Metadata::new();
        for (key, value) in [
            ("general.architecture", Value::text("llama")),
            ("general.file_type", Value::U32(7)),
            ("llama.block_count", Value::U32(2)),
            ("llama.expert_count", Value::U32(0)),
            ("llama.use_parallel_residual", Value::Bool(false)),
            ("split.count", Value::U32(2)),
            ("tokenizer.ggml.model", Value::text("llama")),
            ("tokenizer.ggml.bos_token_id", Value::U32(1)),
        ] {
            m.set(key, value);
        }
        let card = HashSet::from(["general.license".to_string()]);
        assert_eq!(of_checkpoint(&m, &card, true), None);
        assert_eq!(of_llama2c(&m), None);
        m.set("general.license", Value::text("mit"));
        m.set("tokenizer.chat_template.rag", Value::text("x"));
        assert_eq!(of_checkpoint(&m, &card, true), None);
        let said = of_llama2c(&m).unwrap();
        assert!(
            said.ends_with("which are left out: general.license and tokenizer.chat_template.rag"),
            "{said}"
        );
        m.set("llama.logit_scale", Value::F32(0.5));
        assert_eq!(
            of_checkpoint(&m, &card, true).as_deref(),
            Some(
                "a checkpoint has no place for this key of the metadata, which is left out: llama.logit_scale"
            )
        );
        // Another architecture's settings, and keys that nobody knows.
        for key in ["qwen2.block_count", "own.\u{1b}[2J", "tokenizer.ggml.fim_pre_token_id", "a", "b"] {
            m.set(key, Value::U32(5));
        }
        let said = of_checkpoint(&m, &HashSet::new(), true).unwrap();
        let names = "general.license, llama.logit_scale, qwen2.block_count, own.\\u{1b}[2J and 3 more";
        assert!(said.ends_with(names), "{said}");
        let said = of_checkpoint(&m, &HashSet::new(), false).unwrap();
        assert!(said.ends_with("and 2 more"), "{said}");
    }
}
