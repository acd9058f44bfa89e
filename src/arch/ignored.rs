//! Settings that have effect in other classes or architectures than the one that a file names. transformers and llama.cpp
//! ignore them, and so do we; but a file that has them was often made of a model of another class, and computes something else
//! under this name.

use formats::metadata::{Metadata, Value};
use serde_json::Value as Json;

use super::settings::shown;
use super::{Class, by_name};

/// What is known of the model when these keys are looked at.
pub(super) struct Known {
    /// The class that config.json names.
    pub class: &'static Class,
    /// The length of an attention head.
    pub head: u64,
    /// The base of the RoPE frequencies.
    pub theta: f64,
    /// The longest context, in tokens.
    pub context: u64,
    /// Whether there is a sliding window that a note of its own speaks of.
    pub window: bool,
}

/// The value with which a key changes nothing. `null`, `false` and empty lists are none in any case.
#[derive(Clone, Copy)]
enum Idle {
    /// No other value.
    Never,
    /// Zero.
    Zero,
    /// One: a factor.
    One,
    /// A list of nothing but ones.
    Ones,
    /// 1/√head: the usual factor of attention scores.
    PerHead,
    /// The length of a head, whose square root divides attention scores.
    Head,
    /// The base of the RoPE frequencies.
    Theta,
    /// At least the context length.
    Context,
    /// The names of rotary position embeddings.
    Rotary,
    /// A list of nothing but "full_attention".
    Full,
}

/// The keys, with the classes of transformers or of the models' own code that read them.
const KEYS: &[(&str, Idle)] = &[
    // Granite, Cohere, MiniCPM, Falcon-H1: factors (muP).
    ("attention_multiplier", Idle::PerHead),
    ("embedding_multiplier", Idle::One),
    ("residual_multiplier", Idle::One),
    ("logits_scaling", Idle::One),
    ("logit_scale", Idle::One),
    ("scale_emb", Idle::One),
    ("scale_depth", Idle::Never),
    ("dim_model_base", Idle::Never),
    ("lm_head_multiplier", Idle::One),
    ("key_multiplier", Idle::One),
    ("attention_in_multiplier", Idle::One),
    ("attention_out_multiplier", Idle::One),
    // Gemma, Grok: limits and scales of scores.
    ("final_logit_softcapping", Idle::Zero),
    ("attn_logit_softcapping", Idle::Zero),
    ("query_pre_attn_scalar", Idle::Head),
    // SmolLM3, Llama 4, Gemma 3: layers of other kinds.
    ("no_rope_layers", Idle::Ones),
    ("no_rope_layer_interval", Idle::Zero),
    ("attention_chunk_size", Idle::Context),
    ("attn_temperature_tuning", Idle::Zero),
    ("rope_local_base_freq", Idle::Theta),
    ("layer_types", Idle::Full),
    // Norms of queries and keys, and limits of them: Llama 4, OLMo, Phi, StableLM.
    ("use_qk_norm", Idle::Zero),
    ("qk_norm", Idle::Zero),
    ("qk_layernorm", Idle::Zero),
    ("clip_qkv", Idle::Zero),
    // Falcon, GPT-NeoX, MPT, Bloom.
    ("alibi", Idle::Zero),
    ("use_alibi", Idle::Zero),
    ("parallel_attn", Idle::Zero),
    ("new_decoder_architecture", Idle::Zero),
    ("use_parallel_residual", Idle::Zero),
    ("parallel_residual", Idle::Zero),
    ("position_embedding_type", Idle::Rotary),
    ("rotary_emb_base", Idle::Theta),
    ("rotary_pct", Idle::One),
    ("rotary_dim", Idle::Head),
    ("sliding_window", Idle::Context),
];

impl Idle {
    /// Whether a value changes nothing, so that there is nothing to say.
    fn is(self, value: &Json, known: &Known) -> bool {
        match value {
            Json::Null | Json::Bool(false) => return true,
            Json::Array(list) if list.is_empty() => return true,
            _ => {}
        }
        let number = value.as_f64();
        let near = |wanted: f64| number.is_some_and(|x| (x - wanted).abs() <= 1e-4 * wanted.abs());
        let all = |test: &dyn Fn(&Json) -> bool| value.as_array().is_some_and(|list| list.iter().all(test));
        match self {
            Self::Never => false,
            Self::Zero => number == Some(0.0),
            Self::One => near(1.0),
            Self::Ones => all(&|x| x.as_f64() == Some(1.0) || x == true),
            Self::PerHead => near(1.0 / (known.head as f64).sqrt()),
            Self::Head => near(known.head as f64),
            Self::Theta => near(known.theta),
            // Some writers say 0 or -1 where there is no window.
            Self::Context => number.is_some_and(|x| x <= 0.0 || x >= known.context as f64),
            Self::Rotary => {
                value.as_str().is_some_and(|name| name.starts_with("rope") || name.starts_with("rotary"))
            }
            Self::Full => all(&|x| x == "full_attention"),
        }
    }
}

/// A note on all keys that the class ignores and that would change what is computed.
pub(super) fn note(json: &Json, known: &Known) -> Option<String> {
    // What a class knows, or what is spoken of elsewhere.
    let own = |key: &str| {
        ["sliding_window", "layer_types"].contains(&key) && (known.class.sliding_layers || known.window)
            || key == "sliding_window" && known.class.sliding_window
            // Said to be without effect.
            || ["sliding_window", "max_window_layers"].contains(&key) && json["use_sliding_window"] == false
    };
    let found: Vec<String> = KEYS
        .iter()
        .filter(|(key, idle)| !own(key) && json.get(key).is_some_and(|value| !idle.is(value, known)))
        .map(|(key, _)| format!("{key} ({})", shown(&json[key])))
        .collect();
    let (list, are, they) = listed(&found)?;
    let class = known.class.name;
    Some(format!(
        "config.json has {list}, which {are} of this architecture ({class}): {they} ignored, as transformers does; if the model \
         is of another class under this name, it computes something else than it was trained to"
    ))
}

/// Keys of a GGUF behind the architecture's name that llama.cpp reads for other architectures than those here, with the
/// value that changes nothing. Source: `load_arch_hparams` of its models.
const GGUF_KEYS: [(&str, f64); 9] = [
    ("attention.scale", 0.0),
    ("attention.clamp_kqv", 0.0),
    ("attention.max_alibi_bias", 0.0),
    ("attn_logit_softcapping", 0.0),
    ("final_logit_softcapping", 0.0),
    ("logit_scale", 1.0),
    ("embedding_scale", 1.0),
    ("residual_scale", 1.0),
    ("use_parallel_residual", 0.0),
];

/// A note on all keys of a GGUF's metadata that its architecture ignores and that would change what is computed. None for an
/// architecture that is not known here.
pub fn ignored_settings_note(metadata: &Metadata) -> Option<String> {
    let arch = metadata.text("general.architecture")?;
    by_name(arch)?;
    let number = |value: &Value| match value {
        Value::Bool(switch) => Some(f64::from(u8::from(*switch))),
        value => value.as_f64().or(value.as_i128().map(|n| n as f64)),
    };
    let found: Vec<String> = GGUF_KEYS
        .iter()
        .filter_map(|(end, idle)| {
            let key = format!("{arch}.{end}");
            let value =
                metadata.get(&key).filter(|value| ![Some(*idle), Some(0.0)].contains(&number(value)))?;
            Some(format!("{key} ({})", value.describe()))
        })
        .collect();
    let (list, are, they) = listed(&found)?;
    Some(format!(
        "the metadata has {list}, which {are} of the architecture {arch}: {they} ignored, as llama.cpp does; if the model is of \
         another architecture under this name, it computes something else than it was trained to"
    ))
}

/// Settings as the beginning of a sentence, with its verbs.
fn listed(found: &[String]) -> Option<(String, &'static str, &'static str)> {
    let (last, all) = found.split_last()?;
    Some(match all {
        [] => (last.clone(), "is no setting", "it is"),
        all => (format!("{} and {last}", all.join(", ")), "are no settings", "they are"),
    })
}

#[cfg(test)]
mod tests {
    use super::super::by_class;
    use super::*;
    use serde_json::json;

    fn known(class: &str) -> Known {
        let (_, class) = by_class(class).unwrap();
        Known { class, head: 64, theta: 10000.0, context: 4096, window: false }
    }

    #[test]
    fn settings_of_other_classes_are_named_where_they_would_change_something() {
        for (key, harmless, harmful) in [
            ("attention_multiplier", json!(0.125), json!(0.015_625)),
            ("logits_scaling", json!(1), json!(8.0)),
            ("query_pre_attn_scalar", json!(64), json!(256)),
            ("final_logit_softcapping", json!(null), json!(30.0)),
            ("no_rope_layers", json!([1, 1, 1]), json!([1, 1, 0])),
            ("alibi", json!(false), json!(true)),
            ("rotary_emb_base", json!(10000), json!(500_000)),
            ("layer_types", json!(["full_attention"]), json!(["full_attention", "sliding_attention"])),
            ("layer_types", json!([]), json!(["linear_attention"])),
            ("sliding_window", json!(4096), json!(1024)),
            ("sliding_window", json!(-1), json!(128)),
            ("position_embedding_type", json!("rope"), json!("alibi")),
            ("clip_qkv", json!(null), json!(8.0)),
        ] {
            let said = |value: &Json| note(&json!({ key: value }), &known("LlamaForCausalLM"));
            assert_eq!(said(&harmless), None, "{key}");
            let text = said(&harmful).unwrap_or_else(|| panic!("{key}"));
            assert!(text.contains(&format!("has {key} (")) && text.contains("LlamaForCausalLM"), "{text}");
        }
        let both = json!({"embedding_multiplier": 12.0, "residual_multiplier": 0.22, "other": 7});
        let text = note(&both, &known("MistralForCausalLM")).unwrap();
        assert!(
            text.contains("embedding_multiplier (12.0) and residual_multiplier (0.22), which are"),
            "{text}"
        );
    }

    #[test]
    fn keys_of_other_architectures_are_named_in_a_gguf_too() {
        let said = |arch: &str, key: &str, value: Value| {
            let mut m = Metadata::new();
            m.set("general.architecture", Value::text(arch));
            m.set(key, value);
            ignored_settings_note(&m)
        };
        for (key, value) in [
            ("llama.logit_scale", Value::F32(8.0)),
            ("llama.attention.scale", Value::F32(0.015)),
            ("llama.use_parallel_residual", Value::Bool(true)),
        ] {
            let text = said("llama", key, value).unwrap();
            assert!(text.contains(&format!("has {key} (")) && text.contains("architecture llama"), "{text}");
        }
        for (arch, key, value) in [
            ("llama", "llama.logit_scale", Value::F32(1.0)),
            ("llama", "llama.attn_logit_softcapping", Value::F32(0.0)),
            ("llama", "llama.use_parallel_residual", Value::Bool(false)),
            ("granite", "granite.logit_scale", Value::F32(8.0)),
            ("llama", "granite.logit_scale", Value::F32(8.0)),
        ] {
            assert_eq!(said(arch, key, value), None, "{key}");
        }
    }

    #[test]
    fn what_a_class_knows_itself_is_left_to_it() {
        let window = json!({"sliding_window": 128});
        let layers = json!({"layer_types": ["sliding_attention"]});
        for (class, of_window, of_layers) in [
            ("LlamaForCausalLM", true, true),
            ("MistralForCausalLM", false, true),
            ("Qwen2ForCausalLM", false, false),
            ("Qwen3ForCausalLM", false, false),
            ("BitNetForCausalLM", true, true),
        ] {
            assert_eq!(note(&window, &known(class)).is_some(), of_window, "{class}");
            assert_eq!(note(&layers, &known(class)).is_some(), of_layers, "{class}");
        }
    }
}
