//! Weights that are no checkpoint of transformers, though they are in the same container: adapters, other programs'
//! layouts. Their tensors' names say what they are, and the user is told the way from them to a model.

use std::path::{Path, PathBuf};

use formats::model::Tensor;
use serde_json::Value as Json;

use super::{CONFIG, other_models, read_json};
use crate::disk::ADAPTER;
use crate::error::Error;
use crate::source::{Foreign, Use};
use crate::text::listed;

/// How parts of the names of adapters' tensors begin, and what such adapters are called: PEFT's, and those of kohya's,
/// LyCORIS's and diffusers' scripts.
const ADAPTERS: [(&str, &str); 9] = [
    ("lora_", "LoRA"),
    ("lokr_", "LoKr"),
    ("hada_", "LoHa"),
    ("ia3_l", "IA3"),
    ("oft_", "OFT"),
    ("boft_", "BOFT"),
    ("vera_lambda_", "VeRA"),
    ("randlora_", "RandLoRA"),
    ("prompt_embeddings", "prompt tuning"),
];

const MERGE: &str = "merge it into its base model first (in Python with peft: model.merge_and_unload(), then \
                     model.save_pretrained(FOLDER)) and convert that folder; for a separate adapter, llama.cpp's \
                     convert_lora_to_gguf.py makes a GGUF";

const MERGE_MLX: &str = "merge it into its base model first (with MLX: mlx_lm.fuse --model BASE --adapter-path FOLDER) and \
                         convert the folder that this makes";

const PROMPT: &str = "learned prompts cannot be merged into weights, and a GGUF cannot hold them: convert the base model, or \
                      train an adapter that can be merged (LoRA)";

/// The kind of adapter that a tensor is a part of.
fn adapter_kind(name: &str) -> Option<&'static str> {
    let begins = |start: &str| name.split('.').any(|part| part.starts_with(start));
    ADAPTERS.iter().find(|(start, _)| begins(start)).map(|(_, kind)| *kind)
}

/// The kind of the adapter that these tensors are, if they are an adapter alone.
fn adapter(tensors: &[Tensor]) -> Option<&'static str> {
    // Some have modules that were trained as a whole besides: the output matrix, norms.
    let kinds: Vec<_> = tensors.iter().filter_map(|t| adapter_kind(&t.name)).collect();
    kinds.first().copied().filter(|_| 2 * kinds.len() > tensors.len())
}

/// Whether these tensors have the names of Mistral's own layout, which are those of Meta's first Llama.
fn is_mistral(tensors: &[Tensor]) -> bool {
    tensors
        .iter()
        .any(|t| [".attention.wq.weight", ".attention.wk.weight"].iter().any(|end| t.name.ends_with(end)))
}

/// The parts of names that the projector of a multimodal model begins with, which some keep in a file of its own.
const PROJECTORS: [&str; 4] =
    ["mm_projector", "multi_modal_projector", "vision_projector", "modality_projection"];

/// Whether these tensors are a projector from another model's vectors into the model's.
fn is_projector(tensors: &[Tensor]) -> bool {
    let is = |t: &Tensor| t.name.split('.').any(|part| PROJECTORS.contains(&part));
    !tensors.is_empty() && tensors.iter().all(is)
}

/// Whether these tensors have the names of PEFT's wrapper, and most are no weights of modules: an adapter of any method.
fn is_wrapped_adapter(tensors: &[Tensor]) -> bool {
    let own = |t: &&Tensor| !t.name.ends_with(".weight") && !t.name.ends_with(".bias");
    let wrapped = tensors.iter().all(|t| t.name.starts_with("base_model.model."));
    wrapped && 2 * tensors.iter().filter(own).count() > tensors.len()
}

/// Whether the tensors of one of several files in a folder are known to be no part of a checkpoint: an adapter, what an
/// optimizer keeps, a projector, a model that is no language model, or weights in Mistral's own layout.
pub fn is_other(tensors: &[Tensor]) -> bool {
    adapter(tensors).is_some()
        || is_mistral(tensors)
        || is_projector(tensors)
        || is_wrapped_adapter(tensors)
        || other_models::recognise(tensors, None).is_some()
}

/// What the tensors of safetensors files in `folder` are, if they are no checkpoint that can be read: an adapter, weights
/// in Mistral's own layout, no language model, a checkpoint without its config.json. `None` if that is not known.
pub fn recognise(tensors: &[Tensor], folder: &Path) -> Option<Foreign> {
    let has = |name: &str| tensors.iter().any(|t| t.name == name);
    let ends = |end: &str| tensors.iter().any(|t| t.name.ends_with(end));
    let config = folder.join(CONFIG).is_file();
    let settings = read_json(&folder.join(ADAPTER)).ok().flatten();
    let kind = adapter(tensors);
    if kind.is_some() || !config && settings.is_some() && !ends("layers.0.input_layernorm.weight") {
        let what = describe(settings.as_ref().unwrap_or(&Json::Null), kind.unwrap_or("LoRA"));
        // MLX's names are PEFT's in small letters.
        let mlx = tensors.iter().any(|t| t.name.ends_with(".lora_a"));
        let hint = match kind {
            Some("prompt tuning") => PROMPT,
            _ if mlx => MERGE_MLX,
            _ => MERGE,
        };
        return Some(Foreign {
            what: format!("is {what}, not a model"),
            hint: hint.into(),
            remains: Use::Tensors,
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
            remains: Use::Tensors,
        });
    }
    let model_settings = read_json(&folder.join(CONFIG)).ok().flatten();
    if let Some(other) = other_models::recognise(tensors, model_settings.as_ref()) {
        return Some(other);
    }
    let decoder = ends("layers.0.self_attn.q_proj.weight") || ends("layers.0.self_attn.qkv_proj.weight");
    if !config && (decoder || has("transformer.wte.weight") || has("wte.weight")) {
        let renamed =
            renamed_config(folder).map_or(String::new(), |name| format!("rename {name} to {CONFIG}, or "));
        return Some(Foreign {
            what: format!("is a checkpoint without its {CONFIG}, which says how the model is computed"),
            hint: format!(
                "{renamed}put the model's {CONFIG} and tokenizer files beside the weights; --set general.architecture=NAME converts \
                 the tensors under the names that they have, which llama.cpp does not run"
            ),
            remains: Use::Named,
        });
    }
    None
}

/// A file that may be config.json under another name: in other letters, or as a copy (`config (1).json`).
fn renamed_config(folder: &Path) -> Option<String> {
    let entries =
        std::fs::read_dir(if folder.as_os_str().is_empty() { Path::new(".") } else { folder }).ok()?;
    let is = |name: &String| {
        let small = name.to_ascii_lowercase();
        small == CONFIG || small.starts_with("config (") && small.ends_with(".json")
    };
    entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).filter(is).min()
}

/// What a folder without weights that are looked for is, if it has an adapter's settings and files: `others` are the names
/// of its files with weights in other formats.
pub fn adapter_alone(folder: &Path, others: &[String]) -> Option<Foreign> {
    let settings = read_json(&folder.join(ADAPTER)).ok().flatten()?;
    let config = folder.join(CONFIG).is_file();
    let has = others.iter().any(|name| name.starts_with("adapter"));
    if config && !has {
        return None; // the settings of a model, whose weights are elsewhere
    }
    // MLX's settings name no method of PEFT's, but what was trained.
    let mlx = settings.get("fine_tune_type").is_some() || settings.get("lora_parameters").is_some();
    Some(Foreign {
        what: format!("is {}, not a model", describe(&settings, "LoRA")),
        hint: if mlx { MERGE_MLX } else { MERGE }.into(),
        remains: Use::Tensors,
    })
}

/// What a folder without weights is, if it is a pipeline of diffusers, whose models are in folders of their own.
pub fn pipeline(folder: &Path) -> Option<Foreign> {
    let index = read_json(&folder.join("model_index.json")).ok().flatten()?;
    let class = index.get("_class_name")?.as_str()?;
    let parts: Vec<&str> =
        index.as_object()?.keys().map(String::as_str).filter(|name| !name.starts_with('_')).collect();
    let parts: Vec<&str> = parts.into_iter().filter(|name| folder.join(name).is_dir()).collect();
    let of = if parts.is_empty() { String::new() } else { format!("; its parts are {}", listed(&parts)) };
    Some(Foreign {
        what: format!(
            "is a pipeline of diffusers ({class}), which makes images or sound, not a language model{of}"
        ),
        hint: "stable-diffusion.cpp and ComfyUI-GGUF convert models of images, from the files of the parts"
            .into(),
        remains: Use::Tensors,
    })
}

/// An adapter in words, by its settings, or by its tensors where these do not say: `a LoRA adapter (r 8, of acme/base)`.
fn describe(config: &Json, by_tensors: &str) -> String {
    let kind = match config["peft_type"].as_str() {
        Some("LORA") => "LoRA",
        Some(other) => other,
        None => by_tensors,
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
    if let Some((name, kind)) = names.iter().find_map(|name| Some((name, adapter_kind(name)?))) {
        let kind = describe(&Json::Null, kind);
        return Error::refused(format!(
            "{}: has {kind} beside its weights that is not merged into them (tensor {name})",
            file.display()
        ))
        .or("merge it first (in Python with peft: model.merge_and_unload(), then model.save_pretrained(FOLDER))");
    }
    if let Some(name) = names.iter().find(|name| name.ends_with("_flat_param")) {
        return Error::refused(format!(
            "{}: has the weights of many modules in one list, as FSDP keeps them while it trains (tensor {name})",
            file.display()
        ))
        .or("save the model with FSDP's full state dict (accelerate: fsdp_state_dict_type: FULL_STATE_DICT)");
    }
    if let Some(name) = names.iter().find(|name| other_models::is_optimizers(name)) {
        return Error::refused(format!(
            "{}: has the state of an optimizer beside its weights (tensor {name})",
            file.display()
        ))
        .or("save the model alone: in Python, model.save_pretrained(FOLDER)");
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
        let mlx = ["model.layers.0.self_attn.q_proj.lora_a", "model.layers.0.self_attn.q_proj.lora_b"];
        let found = recognise(&tensors(&mlx), dir.path()).unwrap();
        assert!(found.what.contains("LoRA adapter") && found.hint.contains("mlx_lm.fuse"), "{found:?}");
        for (names, says) in [
            (&["lycoris_x.lokr_w1", "lycoris_x.lokr_w2"][..], "a LoKr adapter"),
            (&["x.hada_w1_a", "x.hada_w1_b"], "a LoHa adapter"),
            (&["base_model.model.model.layers.0.self_attn.k_proj.ia3_l"], "an IA3 adapter"),
            (&["x.oft_r"], "an OFT adapter"),
            (&["prompt_embeddings"], "a prompt tuning adapter"),
        ] {
            assert_eq!(what(names).unwrap(), format!("is {says}, not a model"));
        }

        let adapter = json!({"peft_type": "IA3", "base_model_name_or_path": "a/b"});
        std::fs::write(dir.path().join(ADAPTER), adapter.to_string()).unwrap();
        let ia3 = ["base_model.model.model.layers.0.mlp.down_proj.ia3_l"];
        let says = recognise(&tensors(&ia3), dir.path()).unwrap().what;
        assert_eq!(says, "is an IA3 adapter (of a/b), not a model");
        let alone = |others: &[&str]| {
            let others: Vec<String> = others.iter().map(|n| n.to_string()).collect();
            adapter_alone(dir.path(), &others).map(|found| found.what)
        };
        assert_eq!(alone(&["adapter_model.bin"]).as_deref(), Some("is an IA3 adapter (of a/b), not a model"));
        assert!(alone(&["adapters.npz"]).is_some() && alone(&[]).is_some());
        std::fs::write(dir.path().join("params.json"), "{}").unwrap();
        std::fs::write(dir.path().join(CONFIG), "{}").unwrap();
        assert!(recognise(&tensors(&mistral), dir.path()).unwrap().what.contains("params.json, names"));
        assert!(recognise(&tensors(&["model.layers.0.self_attn.q_proj.weight"]), dir.path()).is_none());
        let others = ["adapter_model.bin".to_string()];
        assert!(adapter_alone(dir.path(), &[]).is_none() && adapter_alone(dir.path(), &others).is_some());
    }

    #[test]
    fn what_lies_beside_a_model_is_told_from_its_parts() {
        for (names, other) in [
            (&["model.mm_projector.0.weight", "model.mm_projector.0.bias"][..], true),
            (&["multi_modal_projector.linear_1.weight"], true),
            (&["base_model.model.model.layers.0.self_attn.q_proj.bone_block"], true),
            (&["model.norm.weight.exp_avg", "step", "x.exp_avg_sq"], true),
            (&["vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight"], true),
            (&["base_model.model.model.norm.weight"], false),
            (&["model.mm_projector.0.weight", "model.norm.weight"], false),
            (&["model.norm.weight"], false),
            (&[], false),
        ] {
            assert_eq!(is_other(&tensors(names)), other, "{names:?}");
        }
    }

    #[test]
    fn a_config_under_another_name_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config (2).json"), "{}").unwrap();
        std::fs::write(dir.path().join("config_old.txt"), "{}").unwrap();
        let found = recognise(&tensors(&["model.layers.0.self_attn.q_proj.weight"]), dir.path()).unwrap();
        assert!(found.hint.starts_with("rename config (2).json to config.json, or put"), "{found:?}");
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
            assert_eq!(describe(&config, "LoRA"), text);
        }
    }

    #[test]
    fn an_adapter_that_was_not_merged_is_named() {
        let unmerged = vec!["a.weight".to_string(), "m.q_proj.lora_A.default.weight".to_string()];
        let error = unexpected("m".into(), unmerged, "llama");
        assert!(error.to_string().contains("lora_A") && error.hint().unwrap().contains("merge_and_unload"));
        let trained = vec!["a.weight".to_string(), "optimizer.exp_avg.a.weight".into()];
        assert!(
            unexpected("m".into(), trained, "llama").to_string().contains("the state of an optimizer beside")
        );
        assert!(matches!(unexpected("m".into(), vec!["a".into()], "llama"), Error::UnexpectedTensors { .. }));
    }
}
