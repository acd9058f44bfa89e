//! The keys of a GGUF's metadata whose values programs take in one type only: a reader of u32 refuses a file in which the
//! same number is u64 (llama.cpp: "key has wrong type"). And those without which no program reads a model.
//!
//! Source: the constants of gguf-py (`constants.py`) with the types that its writer gives them, and llama.cpp's loader
//! (`llama-model-loader.cpp`, `llama-vocab.cpp`).

use std::fmt;

use formats::metadata::{Kind, Metadata, Value};

use super::by_name;

/// The type of a value: a single one, or a list of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One value of this kind, which is no array.
    One(Kind),
    /// An array of values of this kind.
    List(Kind),
}

use Form::{List, One};

impl Form {
    /// The type of a value.
    pub fn of(value: &Value) -> Self {
        match value {
            Value::Array(array) => List(array.kind()),
            other => One(other.kind()),
        }
    }
}

/// As it is written in front of a value: `u32`, `[str]`.
impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            One(kind) => f.write_str(kind.name()),
            List(kind) => write!(f, "[{}]", kind.name()),
        }
    }
}

/// Keys by their ends, with the types that are taken; the first is the one that is written.
type Table = &'static [(&'static [Form], &'static [&'static str])];

const COUNT: &[Form] = &[One(Kind::U32)];
const COUNTS: &[Form] = &[One(Kind::U32), List(Kind::U32), List(Kind::I32)];
const FLOAT: &[Form] = &[One(Kind::F32)];
const SWITCH: &[Form] = &[One(Kind::Bool)];
const TEXT: &[Form] = &[One(Kind::String)];
const TEXTS: &[Form] = &[List(Kind::String)];

/// Keys that begin with `general.`. What is not listed is a text, if it is one of [`GENERAL_TEXTS`].
#[rustfmt::skip]
const GENERAL: Table = &[
    (COUNT, &["alignment", "file_type", "quantization_version", "base_model.count", "dataset.count"]),
    (TEXTS, &["tags", "languages"]),
    (&[One(Kind::I32)], &["sampling.top_k", "sampling.penalty_last_n", "sampling.mirostat"]),
    (FLOAT, &[
        "sampling.top_p", "sampling.min_p", "sampling.xtc_probability", "sampling.xtc_threshold", "sampling.temp",
        "sampling.penalty_repeat", "sampling.mirostat_tau", "sampling.mirostat_eta",
    ]),
];

/// The last parts of keys that begin with `general.` and have texts, also in the descriptions of base models and data sets.
const GENERAL_TEXTS: &[&str] = &[
    "architecture",
    "type",
    "name",
    "author",
    "version",
    "organization",
    "finetune",
    "basename",
    "description",
    "quantized_by",
    "size_label",
    "license",
    "link",
    "url",
    "doi",
    "uuid",
    "repo_url",
    "sequence",
];

/// Keys that begin with `tokenizer.`.
#[rustfmt::skip]
const TOKENIZER: Table = &[
    (TEXT, &["ggml.model", "ggml.pre", "chat_template", "huggingface.json", "rwkv.world"]),
    (TEXTS, &["ggml.tokens", "ggml.merges", "chat_templates"]),
    (&[List(Kind::F32)], &["ggml.scores"]),
    // Old converters wrote u32, which is read as it is.
    (&[List(Kind::I32), List(Kind::U32)], &["ggml.token_type"]),
    (COUNT, &["ggml.token_type_count"]),
    (SWITCH, &[
        "ggml.add_bos_token", "ggml.add_eos_token", "ggml.add_sep_token", "ggml.add_space_prefix",
        "ggml.remove_extra_whitespaces", "ggml.normalizer.lowercase", "ggml.normalizer.strip_accents",
    ]),
    (&[List(Kind::U8), List(Kind::I8)], &["ggml.precompiled_charsmap"]),
];

/// Keys that begin with the name of an architecture.
#[rustfmt::skip]
const SETTINGS: Table = &[
    (COUNT, &[
        "vocab_size", "context_length", "embedding_length", "block_count", "expert_count", "expert_used_count",
        "expert_shared_count", "expert_gating_func", "leading_dense_block_count", "attention.key_length",
        "attention.value_length", "rope.dimension_count", "rope.scaling.original_context_length",
    ]),
    (COUNTS, &[
        "feed_forward_length", "attention.head_count", "attention.head_count_kv", "attention.sliding_window",
        "expert_feed_forward_length", "expert_shared_feed_forward_length",
    ]),
    (FLOAT, &[
        "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon", "attention.scale", "attn_logit_softcapping",
        "final_logit_softcapping", "attention.clamp_kqv", "attention.max_alibi_bias", "rope.freq_base", "rope.freq_base_swa",
        "rope.scale_linear", "rope.scaling.factor", "rope.scaling.attn_factor", "rope.scaling.yarn_ext_factor",
        "rope.scaling.yarn_attn_factor", "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow",
        "rope.scaling.yarn_log_multiplier", "expert_weights_scale", "embedding_scale", "residual_scale", "logit_scale",
    ]),
    (SWITCH, &["attention.causal", "use_parallel_residual", "expert_weights_norm", "rope.scaling.finetuned"]),
    (TEXT, &["rope.scaling.type", "tensor_data_layout"]),
];

/// The types that programs take for a key, the usual one first; `None` for keys that are not known. `arch` is the file's
/// architecture.
pub fn forms(key: &str, arch: &str) -> Option<&'static [Form]> {
    let find =
        |table: Table, end: &str| table.iter().find(|(_, ends)| ends.contains(&end)).map(|(forms, _)| *forms);
    if let Some(end) = key.strip_prefix("general.") {
        let last = end.rsplit('.').next().unwrap_or(end);
        return find(GENERAL, end).or_else(|| (GENERAL_TEXTS.contains(&last)).then_some(TEXT));
    }
    if let Some(end) = key.strip_prefix("tokenizer.") {
        let named = end.starts_with("chat_template.");
        let id = end.starts_with("ggml.") && end.ends_with("_token_id");
        return find(TOKENIZER, end).or(named.then_some(TEXT)).or(id.then_some(COUNT));
    }
    let of = |arch: &str| (!arch.is_empty()).then(|| key.strip_prefix(arch)?.strip_prefix('.')).flatten();
    let end = of(arch)
        .or_else(|| key.split_once('.').filter(|(first, _)| by_name(first).is_some()).map(|(_, end)| end))?;
    find(SETTINGS, end)
}

/// Names of settings in config.json and in the tokenizer's files, with the keys of a GGUF that say the same: behind the
/// name of the architecture, or whole.
#[rustfmt::skip]
const OF_HUB: &[(&str, &str)] = &[
    ("rope_theta", "rope.freq_base"),
    ("max_position_embeddings", "context_length"),
    ("hidden_size", "embedding_length"),
    ("num_hidden_layers", "block_count"),
    ("intermediate_size", "feed_forward_length"),
    ("num_attention_heads", "attention.head_count"),
    ("num_key_value_heads", "attention.head_count_kv"),
    ("head_dim", "attention.key_length"),
    ("rms_norm_eps", "attention.layer_norm_rms_epsilon"),
    ("vocab_size", "vocab_size"),
    ("sliding_window", "attention.sliding_window"),
    ("rope_scaling", "rope.scaling.type"),
    ("is_causal", "attention.causal"),
    ("num_local_experts", "expert_count"),
    ("num_experts", "expert_count"),
    ("num_experts_per_tok", "expert_used_count"),
    ("bos_token_id", "tokenizer.ggml.bos_token_id"),
    ("eos_token_id", "tokenizer.ggml.eos_token_id"),
    ("unk_token_id", "tokenizer.ggml.unknown_token_id"),
    ("pad_token_id", "tokenizer.ggml.padding_token_id"),
    ("add_bos_token", "tokenizer.ggml.add_bos_token"),
    ("add_eos_token", "tokenizer.ggml.add_eos_token"),
    ("chat_template", "tokenizer.chat_template"),
    ("temperature", "general.sampling.temp"),
    ("top_k", "general.sampling.top_k"),
    ("top_p", "general.sampling.top_p"),
];

/// The key of a GGUF of this architecture that says what a name of config.json says; `None` if there is none, or none that
/// is known.
pub fn of_hub(name: &str, arch: &str) -> Option<String> {
    let (_, key) = OF_HUB.iter().find(|(hub, _)| *hub == name)?;
    let whole = key.starts_with("general.") || key.starts_with("tokenizer.");
    Some(if whole { key.to_string() } else { format!("{arch}.{key}") })
}

/// A key that programs need to read a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needed {
    /// The key.
    pub key: String,
    /// The key without the architecture's name.
    pub part: &'static str,
    /// What it says, as the end of a sentence: "how many layers the model has".
    pub says: &'static str,
}

/// What llama.cpp's loader needs of every architecture, and then what the architectures that are computed here need.
const SETTINGS_NEEDED: [(&str, &str, bool); 6] = [
    ("block_count", "how many layers the model has", true),
    ("embedding_length", "the length of its hidden states", true),
    ("context_length", "the longest text that it was made for", true),
    ("attention.head_count", "how many attention heads it has", false),
    ("feed_forward_length", "the width of its feed-forward network", false),
    ("attention.layer_norm_rms_epsilon", "the epsilon of its norms", false),
];

/// The keys without which no program reads a language model with this metadata, whether or not they are there.
pub fn needed(metadata: &Metadata) -> Vec<Needed> {
    let arch = metadata.text("general.architecture").unwrap_or_default();
    let key = |key: &str, part, says| Needed { key: key.into(), part, says };
    let mut all = vec![key(
        "general.architecture",
        "general.architecture",
        "how the model is computed, and the names of all its settings",
    )];
    let known = by_name(arch).is_some();
    for (part, says, always) in SETTINGS_NEEDED {
        // Without an architecture, every setting is missing.
        if always || known || arch.is_empty() {
            all.push(key(&format!("{arch}.{part}"), part, says));
        }
    }
    let of_tokens = |name: &'static str, says| key(name, name, says);
    all.push(of_tokens(
        "tokenizer.ggml.model",
        "which kind of tokenizer the model has, or that it has none (no_vocab)",
    ));
    let kind = metadata.text("tokenizer.ggml.model");
    if !matches!(kind, None | Some("none" | "no_vocab")) {
        all.push(of_tokens("tokenizer.ggml.tokens", "the tokens"));
    }
    if kind == Some("gpt2") {
        all.push(of_tokens("tokenizer.ggml.merges", "which tokens are merged to others"));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_keys_have_types() {
        for (key, wanted) in [
            ("general.alignment", "u32"),
            ("general.name", "str"),
            ("general.license.link", "str"),
            ("general.base_model.3.repo_url", "str"),
            ("general.base_model.count", "u32"),
            ("general.tags", "[str]"),
            ("general.sampling.top_k", "i32"),
            ("general.sampling.temp", "f32"),
            ("tokenizer.ggml.fim_pre_token_id", "u32"),
            ("tokenizer.ggml.add_bos_token", "bool"),
            ("tokenizer.ggml.token_type", "[i32]"),
            ("tokenizer.chat_template.tool_use", "str"),
            ("mamba.block_count", "u32"),
            ("llama.rope.freq_base", "f32"),
            ("llama.attention.head_count_kv", "u32"),
            ("qwen2.attention.causal", "bool"),
        ] {
            assert_eq!(forms(key, "mamba").map(|f| f[0].to_string()).as_deref(), Some(wanted), "{key}");
        }
        for key in
            ["general.size", "split.no", "mine.block_count", "mamba", "mamba.x", "tokenizer.x_token_id", ""]
        {
            assert_eq!(forms(key, "mamba"), None, "{key}");
        }
        assert_eq!(forms(".block_count", ""), None);
    }

    #[test]
    fn names_of_config_json_have_keys_that_are_known() {
        for (hub, _) in OF_HUB {
            let key = of_hub(hub, "mamba").unwrap();
            assert!(forms(&key, "mamba").is_some() && key.contains('.'), "{hub} {key}");
        }
        assert_eq!(of_hub("rope_theta", "llama").as_deref(), Some("llama.rope.freq_base"));
        assert_eq!(of_hub("tie_word_embeddings", "llama"), None);
    }

    #[test]
    fn what_is_needed_follows_from_the_architecture_and_the_tokenizer() {
        let parts = |arch: &str, kind: Option<&str>| -> Vec<String> {
            let mut m = Metadata::new();
            m.set("general.architecture", Value::text(arch));
            kind.into_iter().for_each(|kind| m.set("tokenizer.ggml.model", Value::text(kind)));
            needed(&m).into_iter().map(|n| n.key).collect()
        };
        let has = |list: &[String], key: &str| list.iter().any(|k| k == key);
        let llama = parts("llama", Some("gpt2"));
        assert!(
            ["llama.block_count", "llama.feed_forward_length", "tokenizer.ggml.merges"]
                .iter()
                .all(|k| has(&llama, k))
        );
        let other = parts("mamba", Some("no_vocab"));
        assert!(has(&other, "mamba.block_count") && !has(&other, "mamba.feed_forward_length"));
        assert!(has(&other, "tokenizer.ggml.model") && !has(&other, "tokenizer.ggml.tokens"));
    }
}
