//! Adapters: what a finetune has learned beside the weights of its base model, which are in another place. The settings
//! beside them (adapter_config.json), or the names of their tensors, say so.

use std::path::Path;

use formats::model::Tensor;
use serde_json::Value as Json;

use super::{CONFIG, read_json};
use crate::disk::ADAPTER;
use crate::source::{Foreign, Use};

/// How parts of the names of adapters' tensors begin, and what such adapters are called: PEFT's, and those of kohya's,
/// LyCORIS's and diffusers' scripts.
const NAMES: [(&str, &str); 25] = [
    ("lora_", "LoRA"),
    ("lokr_", "LoKr"),
    ("hada_", "LoHa"),
    ("ia3_l", "IA3"),
    ("oft_", "OFT"),
    ("boft_", "BOFT"),
    ("vera_A", "VeRA"),
    ("vera_B", "VeRA"),
    ("vera_lambda_", "VeRA"),
    ("randlora_", "RandLoRA"),
    ("fourierft_", "FourierFT"),
    ("waveft_", "WaveFT"),
    ("hra_", "HRA"),
    ("bone_", "Bone"),
    ("miss_", "MiSS"),
    ("shira_", "SHiRA"),
    ("road_", "RoAd"),
    ("c3a_", "C3A"),
    ("gralora_", "GraLoRA"),
    ("delora_", "DeLoRA"),
    ("trainable_tokens_", "trainable tokens"),
    ("poly_lora_", "Poly"),
    ("adaption_", ADAPTION),
    ("prompt_embeddings", PROMPT_TUNING),
    ("prompt_encoder", PROMPT_TUNING),
];

const ADAPTION: &str = "LLaMA-Adapter";
const PROMPT_TUNING: &str = "prompt tuning";

/// Methods of PEFT whose tensors are inputs of the model or of its attention, and those that compute something else beside
/// the weights: neither can be merged into them.
const PROMPTS: [&str; 7] = [
    "PROMPT_TUNING",
    "MULTITASK_PROMPT_TUNING",
    "PREFIX_TUNING",
    "P_TUNING",
    "CPT",
    "CARTRIDGE",
    PROMPT_TUNING,
];
const BESIDE: [&str; 4] = ["ADAPTION_PROMPT", "XLORA", "POLY", ADAPTION];

/// What PEFT puts in front of the names of all tensors.
const PEFT: &str = "base_model.model.";

const MERGE: &str = "merge it into its base model first (in Python with peft: model.merge_and_unload(), then \
                     model.save_pretrained(FOLDER)) and convert that folder";

const MERGE_MLX: &str = "merge it into its base model first (with MLX: mlx_lm.fuse --model BASE --adapter-path FOLDER) and \
                         convert the folder that this makes";

/// The kind of adapter that a tensor is a part of.
pub fn kind(name: &str) -> Option<&'static str> {
    // Most parts of most names begin as none of the list does, which their first byte shows.
    let begins = |part: &str, start: &str| {
        part.as_bytes().first() == start.as_bytes().first() && part.starts_with(start)
    };
    let place = |part| NAMES.iter().position(|(start, _)| begins(part, start));
    name.split('.').filter_map(place).min().map(|first| NAMES[first].1)
}

/// The kind of the adapter that these tensors are, by their names, if they are an adapter alone.
pub fn by_names(tensors: &[Tensor]) -> Option<&'static str> {
    // Some have modules that were trained as a whole besides: the output matrix, norms.
    let kinds: Vec<_> = tensors.iter().filter_map(|t| kind(&t.name)).collect();
    kinds.first().copied().filter(|_| 2 * kinds.len() > tensors.len())
}

/// Whether these tensors have the names of PEFT's wrapper, and most are no weights of modules: an adapter of any method.
pub fn is_wrapped(tensors: &[Tensor]) -> bool {
    let own = |t: &&Tensor| !t.name.ends_with(".weight") && !t.name.ends_with(".bias");
    let wrapped = tensors.iter().all(|t| t.name.starts_with(PEFT));
    wrapped && 2 * tensors.iter().filter(own).count() > tensors.len()
}

/// The adapter that these tensors in `folder` are, if they are one: by their names, or as the settings of an adapter are
/// beside them and they are no model of their own.
pub fn recognise(tensors: &[Tensor], folder: &Path) -> Option<Foreign> {
    let settings = read_json(&folder.join(ADAPTER)).ok().flatten();
    let found = by_names(tensors);
    let ends = |end: &str| tensors.iter().any(|t| t.name.ends_with(end));
    let has = |part: &str| tensors.iter().any(|t| t.name.contains(part));
    let embeddings =
        ["embed_tokens.weight", "embed_tokens.base_layer.weight", "wte.weight", "word_embeddings.weight"];
    let whole = has(".mlp.") && embeddings.iter().any(|end| ends(end));
    let alone = !folder.join(CONFIG).is_file();
    // What MLX finetuned as a whole has its adapter's settings and no model's.
    let said = settings.as_ref().is_some_and(|settings| !whole || alone && is_mlx(settings));
    let part = alone && !tensors.is_empty() && !whole && tensors.iter().all(|t| t.name.starts_with(PEFT));
    if found.is_none() && !said && !part {
        return None;
    }
    let settings = settings.unwrap_or(Json::Null);
    // MLX's names are PEFT's in small letters.
    let mlx = tensors.iter().any(|t| t.name.ends_with(".lora_a")) || is_mlx(&settings);
    Some(foreign(&settings, found.unwrap_or(if said { "LoRA" } else { "PEFT" }), mlx))
}

/// What a folder without weights that are looked for is, if it has an adapter's settings and files: `others` are the names
/// of its files with weights in other formats.
pub fn alone(folder: &Path, others: &[String]) -> Option<Foreign> {
    let settings = read_json(&folder.join(ADAPTER)).ok().flatten()?;
    let config = folder.join(CONFIG).is_file();
    let has = others.iter().any(|name| name.starts_with("adapter"));
    if config && !has {
        return None; // the settings of a model, whose weights are elsewhere
    }
    Some(foreign(&settings, "LoRA", is_mlx(&settings)))
}

/// Whether an adapter's settings are MLX's, which name no method of PEFT's, but what was trained.
fn is_mlx(settings: &Json) -> bool {
    settings.get("fine_tune_type").is_some() || settings.get("lora_parameters").is_some()
}

fn foreign(settings: &Json, by_tensors: &str, mlx: bool) -> Foreign {
    let method = settings["peft_type"].as_str().unwrap_or(by_tensors);
    let hint = if mlx { MERGE_MLX.to_string() } else { way(method) };
    Foreign {
        what: format!("is {}, not a model", describe(settings, by_tensors)),
        hint,
        remains: Use::Tensors,
    }
}

/// How a model comes of an adapter of this method.
fn way(method: &str) -> String {
    let convert = "convert the base model, or train an adapter that can be merged (LoRA)";
    if PROMPTS.contains(&method) {
        return format!(
            "learned prompts cannot be merged into weights, and a GGUF cannot hold them: {convert}"
        );
    }
    if BESIDE.contains(&method) {
        return format!(
            "what it computes beside the weights cannot be merged into them, and a GGUF cannot hold it: {convert}"
        );
    }
    match method {
        "LoRA" | "LORA" => {
            format!("{MERGE}; for a separate adapter, llama.cpp's convert_lora_to_gguf.py makes a GGUF")
        }
        _ => MERGE.into(),
    }
}

/// An adapter in words, by its settings, or by its tensors where these do not say: `a LoRA adapter (r 8, of acme/base)`.
pub fn describe(config: &Json, by_tensors: &str) -> String {
    let kind = match config["peft_type"].as_str() {
        Some("LORA") => "LoRA",
        Some(other) => other,
        None if config["fine_tune_type"] == "full" => "finetune's",
        None => by_tensors,
    };
    let rank = config["r"].as_u64().map(|r| format!("r {r}"));
    let base =
        config["base_model_name_or_path"].as_str().filter(|b| !b.is_empty()).map(|b| format!("of {b}"));
    let about: Vec<String> = rank.into_iter().chain(base).collect();
    let about = if about.is_empty() { String::new() } else { format!(" ({})", about.join(", ")) };
    let article = if kind.starts_with(['A', 'E', 'I', 'O']) || kind == "HRA" || kind.starts_with("LN_") {
        "an"
    } else {
        "a"
    };
    format!("{article} {kind} adapter{about}")
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
    fn adapters_are_known_by_names_or_settings() {
        let dir = tempfile::tempdir().unwrap();
        let found = |names: &[&str]| recognise(&tensors(names), dir.path());
        let what = |names: &[&str]| found(names).map(|f| f.what);
        let peft = ["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", "x.lora_B.weight"];
        assert_eq!(what(&peft).as_deref(), Some("is a LoRA adapter, not a model"));
        assert!(found(&peft).unwrap().hint.contains("convert_lora_to_gguf.py"));
        assert!(
            what(&["lora_unet_x.lora_down.weight", "lora_unet_x.lora_up.weight", "lora_unet_x.alpha"])
                .is_some()
        );
        let mlx = ["model.layers.0.self_attn.q_proj.lora_a", "model.layers.0.self_attn.q_proj.lora_b"];
        let mlx = found(&mlx).unwrap();
        assert!(mlx.what.contains("LoRA adapter") && mlx.hint.contains("mlx_lm.fuse"), "{mlx:?}");
        for (names, says) in [
            (&["lycoris_x.lokr_w1", "lycoris_x.lokr_w2"][..], "a LoKr adapter"),
            (&["x.hada_w1_a", "x.hada_w1_b"], "a LoHa adapter"),
            (&["base_model.model.model.layers.0.self_attn.k_proj.ia3_l"], "an IA3 adapter"),
            (&["x.oft_r"], "an OFT adapter"),
            (&["x.q_proj.hra_u"], "an HRA adapter"),
            (&["x.q_proj.miss_block"], "a MiSS adapter"),
            (&["prompt_embeddings"], "a prompt tuning adapter"),
            // A method that is not known.
            (&["base_model.model.model.layers.1.mlp.up_proj.newer_w"], "a PEFT adapter"),
            (&["base_model.model.model.norm.weight"], "a PEFT adapter"),
        ] {
            assert_eq!(what(names).unwrap(), format!("is {says}, not a model"));
        }
        assert_eq!(what(&[]), None);
        assert_eq!(what(&["model.norm.weight"]), None);
        let ia3 = found(&["x.ia3_l"]).unwrap();
        assert!(ia3.hint.contains("merge_and_unload") && !ia3.hint.contains("lora_to_gguf"), "{ia3:?}");

        let norms = ["base_model.model.model.layers.0.input_layernorm.weight", "model.norm.weight"];
        assert_eq!(what(&norms), None);
        for (method, can) in [("LN_TUNING", true), ("ADAPTION_PROMPT", false), ("P_TUNING", false)] {
            let adapter = json!({"peft_type": method, "base_model_name_or_path": "a/b"});
            std::fs::write(dir.path().join(ADAPTER), adapter.to_string()).unwrap();
            let found = found(&norms).unwrap();
            assert!(found.what.contains(&format!("{method} adapter (of a/b), not a model")), "{found:?}");
            assert_eq!(found.hint.contains("merge_and_unload"), can, "{found:?}");
        }
        // A model beside an adapter's settings is a model.
        let whole = ["model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight"];
        assert_eq!(what(&whole), None);
        let alone = |others: &[&str]| {
            let others: Vec<String> = others.iter().map(|n| n.to_string()).collect();
            alone(dir.path(), &others).map(|found| found.what)
        };
        assert_eq!(
            alone(&["adapter_model.bin"]).as_deref(),
            Some("is a P_TUNING adapter (of a/b), not a model")
        );
        assert!(alone(&["adapters.npz"]).is_some() && alone(&[]).is_some());
        std::fs::write(dir.path().join(CONFIG), "{}").unwrap();
        assert!(alone(&[]).is_none() && alone(&["adapter_model.bin"]).is_some());
        std::fs::remove_file(dir.path().join(CONFIG)).unwrap();
        std::fs::write(dir.path().join(ADAPTER), json!({"fine_tune_type": "full"}).to_string()).unwrap();
        let full = found(&whole).unwrap();
        assert!(full.what.contains("finetune's adapter") && full.hint.contains("mlx_lm.fuse"), "{full:?}");
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
}
