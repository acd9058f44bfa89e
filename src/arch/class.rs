//! Which class of transformers a config.json means: the one that it names, or the one that its `model_type` stands for.

use serde_json::Value as Json;

use super::config::ConfigError;
use super::settings::{Reader, wrong};
use super::{Arch, Class, by_base_class, by_class, by_model_type, class_names};

/// What programs that wrap a model write as its class: `torch.compile`, DataParallel, PEFT, TRL, and transformers'
/// classes that find the model's own.
const WRAPPERS: [&str; 8] = [
    "OptimizedModule",
    "DataParallel",
    "DistributedDataParallel",
    "FullyShardedDataParallel",
    "PeftModel",
    "PeftModelForCausalLM",
    "AutoModelForCausalLM",
    "AutoModelForCausalLMWithValueHead",
];

/// The architecture and the class that config.json names, and whether it is the class of the base model. Without a class,
/// and for a wrapper's, `model_type` decides, as in transformers.
pub(super) fn class_of(
    json: &Json,
    notes: &mut Vec<String>,
) -> Result<(&'static Arch, &'static Class, bool), ConfigError> {
    let named = match &json["architectures"] {
        Json::Null => None,
        Json::String(name) => Some(name.as_str()),
        Json::Array(list) if list.iter().all(|name| name.is_string() || name.is_null()) => {
            list.first().and_then(Json::as_str)
        }
        other => return Err(wrong("architectures", "a list of names of classes", other).into()),
    };
    let named = named.filter(|name| !name.is_empty());
    let unknown = |name: &str| ConfigError::UnknownArchitecture { name: name.into(), known: class_names() };
    if let Some(full) = named {
        // accelerate makes such a class when it shards a model.
        let name = full.strip_prefix("FSDP").unwrap_or(full);
        if let Some((arch, class)) = by_class(name) {
            return Ok((arch, class, false));
        }
        if let Some((arch, class)) = by_base_class(name) {
            return Ok((arch, class, true));
        }
        if !WRAPPERS.contains(&full) {
            return Err(unknown(full));
        }
    }
    let Some(kind) = Reader(json).text("model_type")?.filter(|kind| !kind.is_empty()) else {
        return Err(match named {
            Some(name) => unknown(name),
            None if json.get("hidden_size").is_none() => {
                let kind = match ["temperature", "max_length", "_from_model_config"].iter().any(|k| json.get(k).is_some()) {
                    true => "the settings for generating text (generation_config.json)",
                    false => "no settings of a model",
                };
                format!("has {kind}: there is no \"hidden_size\", \"architectures\" or \"model_type\"; take the config.json of \
                         the model that the weights belong to")
                .into()
            }
            None => "names neither its class (\"architectures\") nor its \"model_type\"; add the line of the model's class, \
                     such as \"architectures\": [\"LlamaForCausalLM\"]"
                .into(),
        });
    };
    let (arch, class) = by_model_type(kind).ok_or_else(|| unknown(kind))?;
    let class_name = class.name;
    notes.push(match named {
        Some(name) => format!(
            "config.json names {name}, which wraps models; by its model_type {kind} it is taken as {class_name}"
        ),
        None => format!(
            "config.json names no class (\"architectures\"); by its model_type {kind} it is taken as {class_name}"
        ),
    });
    Ok((arch, class, false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The name of the class, whether it is the base model's, and how many notes there are.
    fn class(json: Json) -> Result<(&'static str, bool, usize), String> {
        let mut notes = Vec::new();
        let (_, class, base) = class_of(&json, &mut notes).map_err(|e| e.to_string())?;
        Ok((class.name, base, notes.len()))
    }

    #[test]
    fn the_class_is_named_or_follows_from_the_kind_of_model() {
        for (json, name, base, notes) in [
            (json!({"architectures": ["Qwen3ForCausalLM"]}), "Qwen3ForCausalLM", false, 0),
            (json!({"architectures": "MistralForCausalLM"}), "MistralForCausalLM", false, 0),
            (json!({"architectures": ["MistralModel"]}), "MistralForCausalLM", true, 0),
            (json!({"architectures": ["BitNetModel"]}), "BitNetForCausalLM", true, 0),
            (json!({"architectures": ["FSDPQwen3ForCausalLM"]}), "Qwen3ForCausalLM", false, 0),
            (
                json!({"architectures": ["OptimizedModule"], "model_type": "qwen2"}),
                "Qwen2ForCausalLM",
                false,
                1,
            ),
            (json!({"model_type": "mistral"}), "MistralForCausalLM", false, 1),
            (json!({"architectures": [], "model_type": "bitnet"}), "BitNetForCausalLM", false, 1),
            (json!({"architectures": [""], "model_type": "qwen3"}), "Qwen3ForCausalLM", false, 1),
            (json!({"architectures": [null], "model_type": "llama"}), "LlamaForCausalLM", false, 1),
        ] {
            assert_eq!(class(json.clone()), Ok((name, base, notes)), "{json}");
        }
    }

    #[test]
    fn what_is_not_known_is_named() {
        for (json, says) in [
            (json!({"hidden_size": 8}), "\"architectures\": [\"LlamaForCausalLM\"]"),
            (json!({}), "no settings of a model"),
            (json!({"_from_model_config": true, "eos_token_id": 2}), "generation_config.json"),
            (json!({"model_type": 7}), "model_type"),
            (json!({"model_type": "t5"}), "\"t5\""),
            (json!({"architectures": ["T5Model"], "model_type": "llama"}), "\"T5Model\""),
            (json!({"architectures": ["Model"]}), "\"Model\""),
            (json!({"architectures": ["PeftModel"]}), "\"PeftModel\""),
        ] {
            assert!(class(json.clone()).unwrap_err().contains(says), "{json}");
        }
    }
}
