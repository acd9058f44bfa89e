//! Weights that are no checkpoint of transformers, though they are in the same container: adapters, other programs'
//! layouts. Their tensors' names say what they are, and the user is told the way from them to a model.

use std::path::{Path, PathBuf};

use formats::model::Tensor;
use serde_json::Value as Json;

use super::{CONFIG, read_json};
use crate::error::Error;
use crate::source::Foreign;

/// The settings of a PEFT adapter.
const ADAPTER: &str = "adapter_config.json";

/// Parts of the names of a LoRA adapter's tensors: PEFT's, and those of kohya's and diffusers' scripts.
const LORA: [&str; 7] = [
    "lora_A",
    "lora_B",
    "lora_embedding_A",
    "lora_embedding_B",
    "lora_magnitude_vector",
    "lora_up",
    "lora_down",
];

const MERGE: &str = "merge it into its base model first (in Python with peft: model.merge_and_unload(), then \
                     model.save_pretrained(FOLDER)) and convert that folder; for a separate adapter, llama.cpp's \
                     convert_lora_to_gguf.py makes a GGUF";

/// Whether a tensor is part of a LoRA adapter.
fn is_lora(name: &str) -> bool {
    name.split('.').any(|part| LORA.contains(&part))
}

/// Whether these tensors are a LoRA adapter alone.
fn is_adapter(tensors: &[Tensor]) -> bool {
    // Some have modules that were trained as a whole besides: the output matrix, norms.
    2 * tensors.iter().filter(|t| is_lora(&t.name)).count() > tensors.len()
}

/// Whether these tensors have the names of Mistral's own layout, which are those of Meta's first Llama.
fn is_mistral(tensors: &[Tensor]) -> bool {
    tensors
        .iter()
        .any(|t| [".attention.wq.weight", ".attention.wk.weight"].iter().any(|end| t.name.ends_with(end)))
}

/// Whether the tensors of one of several files in a folder are known to be no part of a checkpoint.
pub fn is_other(tensors: &[Tensor]) -> bool {
    is_adapter(tensors) || is_mistral(tensors)
}

/// What the tensors of safetensors files in `folder` are, if they are no checkpoint that can be read: an adapter, weights
/// in Mistral's own layout, a checkpoint without its config.json. `None` if that is not known.
pub fn recognise(tensors: &[Tensor], folder: &Path) -> Option<Foreign> {
    let has = |name: &str| tensors.iter().any(|t| t.name == name);
    let ends = |end: &str| tensors.iter().any(|t| t.name.ends_with(end));
    let config = folder.join(CONFIG).is_file();
    let adapter = read_json(&folder.join(ADAPTER)).ok().flatten();
    if is_adapter(tensors) || !config && adapter.is_some() && !ends("layers.0.input_layernorm.weight") {
        let what = adapter.as_ref().map_or_else(|| "a LoRA adapter".into(), describe);
        return Some(Foreign {
            what: format!("is {what}, not a model"),
            hint: MERGE.into(),
            lacks_settings: false,
        });
    }
    if is_mistral(tensors) {
        let params = if folder.join("params.json").is_file() { "params.json, " } else { "" };
        return Some(Foreign {
            what: format!(
                "has its weights in Mistral's own layout ({params}names like layers.0.attention.wq.weight), which is not read"
            ),
            hint: "take the weights of the same model in transformers' layout: config.json with model-00001-of-0000N.safetensors \
                   or model.safetensors, which most repositories have too; otherwise transformers' \
                   convert_mistral_weights_to_hf.py makes them"
                .into(),
            lacks_settings: false,
        });
    }
    let decoder = ends("layers.0.self_attn.q_proj.weight") || ends("layers.0.self_attn.qkv_proj.weight");
    if !config && (decoder || has("transformer.wte.weight") || has("wte.weight")) {
        return Some(Foreign {
            what: format!("is a checkpoint without its {CONFIG}, which says how the model is computed"),
            hint: format!(
                "put the model's {CONFIG} and tokenizer files beside the weights; --set general.architecture=NAME converts \
                 the tensors under the names that they have, which llama.cpp does not run"
            ),
            lacks_settings: true,
        });
    }
    None
}

/// An adapter in words, by its settings: `a LoRA adapter (r 8, of acme/base)`.
fn describe(config: &Json) -> String {
    let kind = match config["peft_type"].as_str() {
        Some("LORA") | None => "LoRA",
        Some(other) => other,
    };
    let rank = config["r"].as_u64().map(|r| format!("r {r}"));
    let base =
        config["base_model_name_or_path"].as_str().filter(|b| !b.is_empty()).map(|b| format!("of {b}"));
    let about: Vec<String> = rank.into_iter().chain(base).collect();
    let about = if about.is_empty() { String::new() } else { format!(" ({})", about.join(", ")) };
    let article = if kind.starts_with(['A', 'E', 'I', 'O']) { "an" } else { "a" };
    format!("{article} {kind} adapter{about}")
}

/// The error for tensors that an architecture does not have. `file` is the checkpoint; `names` are at least one.
pub fn unexpected(file: PathBuf, names: Vec<String>, architecture: &str) -> Error {
    if let Some(lora) = names.iter().find(|name| is_lora(name)) {
        return Error::refused(format!(
            "{}: has a LoRA adapter beside its weights that is not merged into them (tensor {lora})",
            file.display()
        ))
        .or("merge it first (in Python with peft: model.merge_and_unload(), then model.save_pretrained(FOLDER))");
    }
    Error::UnexpectedTensors { file, names, architecture: architecture.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::block::DType;
    use formats::model::{Encoding, Location};
    use serde_json::json;

    fn tensors(names: &[&str]) -> Vec<Tensor> {
        let (encoding, location) = (Encoding::Blocks(DType::F32), Location::default());
        let tensor = |name: &&str| Tensor { name: name.to_string(), shape: vec![1], encoding, location };
        names.iter().map(tensor).collect()
    }

    #[test]
    fn kinds_of_weights_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let what = |names: &[&str]| recognise(&tensors(names), dir.path()).map(|f| f.what);
        let peft = ["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", "x.lora_B.weight"];
        assert_eq!(what(&peft).as_deref(), Some("is a LoRA adapter, not a model"));
        assert!(
            what(&["lora_unet_x.lora_down.weight", "lora_unet_x.lora_up.weight", "lora_unet_x.alpha"])
                .is_some()
        );
        let mistral =
            ["tok_embeddings.weight", "layers.0.attention.wq.weight", "layers.0.attention.wk.weight"];
        assert!(what(&mistral).unwrap().contains("Mistral's own layout (names"));
        assert!(
            what(&["model.layers.0.self_attn.q_proj.weight"]).unwrap().contains("without its config.json")
        );
        assert_eq!(what(&["w"]), None);
        assert_eq!(what(&[]), None);

        let adapter = json!({"peft_type": "IA3", "base_model_name_or_path": "a/b"});
        std::fs::write(dir.path().join(ADAPTER), adapter.to_string()).unwrap();
        let ia3 = ["base_model.model.model.layers.0.mlp.down_proj.ia3_l"];
        let says = recognise(&tensors(&ia3), dir.path()).unwrap().what;
        assert_eq!(says, "is an IA3 adapter (of a/b), not a model");
        std::fs::write(dir.path().join("params.json"), "{}").unwrap();
        std::fs::write(dir.path().join(CONFIG), "{}").unwrap();
        assert!(recognise(&tensors(&mistral), dir.path()).unwrap().what.contains("params.json, names"));
        assert!(recognise(&tensors(&["model.layers.0.self_attn.q_proj.weight"]), dir.path()).is_none());
    }

    #[test]
    fn adapters_are_described() {
        for (config, text) in [
            (
                json!({"peft_type": "LORA", "r": 8, "base_model_name_or_path": "a/b"}),
                "a LoRA adapter (r 8, of a/b)",
            ),
            (json!({"r": 16}), "a LoRA adapter (r 16)"),
            (json!({"peft_type": "PROMPT_TUNING", "base_model_name_or_path": ""}), "a PROMPT_TUNING adapter"),
            (json!([]), "a LoRA adapter"),
        ] {
            assert_eq!(describe(&config), text);
        }
    }

    #[test]
    fn an_adapter_that_was_not_merged_is_named() {
        let unmerged = vec!["a.weight".to_string(), "m.q_proj.lora_A.default.weight".to_string()];
        let error = unexpected("m".into(), unmerged, "llama");
        assert!(error.to_string().contains("lora_A") && error.hint().unwrap().contains("merge_and_unload"));
        assert!(matches!(unexpected("m".into(), vec!["a".into()], "llama"), Error::UnexpectedTensors { .. }));
    }
}
