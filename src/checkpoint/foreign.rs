//! Weights that are no checkpoint of transformers, though they are in the same container: adapters, other programs'
//! layouts, other models, or anything else in tensors. Their tensors' names say what they are, and the user is told the way
//! from them to a model.

use std::path::Path;

use formats::model::{Encoding, Tensor};
use serde_json::Value as Json;

use super::{CONFIG, adapters, other_models, read_json};
use crate::arch::ARCHS;
use crate::scheme::is_integer;
use crate::source::{Foreign, Use};
use crate::text::listed;

/// The way from what DeepSpeed's ZeRO-3 saves to a model.
pub const ZERO3: &str = "run zero_to_fp32.py, which DeepSpeed puts beside its checkpoint (python3 zero_to_fp32.py . FOLDER), and \
                         convert what it makes; or train with stage3_gather_16bit_weights_on_model_save";

/// Keys of a config.json, of which a language model has at least one.
const DESCRIBES: [&str; 5] = ["architectures", "model_type", "hidden_size", "n_embd", "d_model"];

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

/// Whether the tensors of one of several files in a folder are known to be no part of a checkpoint: an adapter, what an
/// optimizer keeps, a projector, a model that is no language model, or weights in Mistral's own layout.
pub fn is_other(tensors: &[Tensor]) -> bool {
    adapters::by_names(tensors).is_some()
        || is_mistral(tensors)
        || is_projector(tensors)
        || adapters::is_wrapped(tensors)
        || other_models::recognise(tensors, None).is_some()
}

/// What the tensors of safetensors files in `folder` are, if they are no checkpoint that can be read: an adapter, weights
/// in Mistral's own layout, no language model, a checkpoint without its config.json, or anything else without settings.
/// `None` if config.json says what they are.
pub fn recognise(tensors: &[Tensor], folder: &Path) -> Option<Foreign> {
    let has = |name: &str| tensors.iter().any(|t| t.name == name);
    let ends = |end: &str| tensors.iter().any(|t| t.name.ends_with(end));
    let config = folder.join(CONFIG).is_file();
    let no_model =
        |what: String, hint: &str| Some(Foreign { what, hint: hint.into(), remains: Use::Tensors });
    let Some(first) = tensors.first() else {
        if config {
            return None; // the first tensor that is missing is named
        }
        return no_model("has no tensors".into(), "take the file with the model's weights");
    };
    let empty: Vec<&Tensor> = tensors.iter().filter(|t| t.elements() == 0).collect();
    if 2 * empty.len() > tensors.len() {
        let (name, n, all) = (&empty[0].name, empty.len(), tensors.len());
        return no_model(
            format!(
                "has no weights in {n} of {all} tensors (such as {name}), as DeepSpeed's ZeRO-3 leaves them in a file of one process"
            ),
            ZERO3,
        );
    }
    let integers = |t: &Tensor| matches!(t.encoding, Encoding::Blocks(d) if is_integer(d));
    if tensors.iter().all(integers) {
        let (name, kind) = (&first.name, first.encoding.name());
        let what = format!("has integers only (tensor {name} is {kind}), which are no weights of a model");
        return no_model(what, "take the file with the model's weights");
    }
    if let Some(adapter) = adapters::recognise(tensors, folder) {
        return Some(adapter);
    }
    if is_mistral(tensors) {
        let params = if folder.join("params.json").is_file() { "params.json, " } else { "" };
        return no_model(
            format!(
                "has its weights in Mistral's own layout ({params}names like layers.0.attention.wq.weight), which is not read"
            ),
            "take the weights of the same model in transformers' layout: config.json with model-00001-of-0000N.safetensors \
             or model.safetensors, which most repositories have too; otherwise transformers' \
             convert_mistral_weights_to_hf.py makes them",
        );
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
    let described = |settings: &Json| DESCRIBES.iter().any(|key| settings.get(key).is_some());
    match model_settings {
        _ if !config => Some(unknown(tensors, None)),
        Some(settings) if !decoder && settings.is_object() && !described(&settings) => {
            Some(unknown(tensors, Some(&settings)))
        }
        _ => None,
    }
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

/// Tensors of which little is known but that no supported architecture has them. `config` is the config.json beside them.
fn unknown(tensors: &[Tensor], config: Option<&Json>) -> Foreign {
    const SHOWN: usize = 3;
    let names: Vec<&str> = tensors.iter().take(SHOWN).map(|t| t.name.as_str()).collect();
    let are = match tensors.len() {
        1 => format!("its only tensor is {}", names[0]),
        n if n > SHOWN => format!("its tensors are {} and {} more", names.join(", "), n - SHOWN),
        _ => format!("its tensors are {}", listed(&names)),
    };
    let likely = other_models::likely(tensors, config).map(|what| format!(" ({what})")).unwrap_or_default();
    let known: Vec<&str> = ARCHS.iter().map(|arch| arch.name).collect();
    Foreign {
        what: format!("has no layers of a supported architecture ({}): {are}{likely}", known.join(", ")),
        hint: format!(
            "a checkpoint has a {CONFIG} that describes the model, and names like model.layers.0.self_attn.q_proj.weight; {}",
            other_models::AS_IT_IS
        ),
        remains: Use::Named,
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use formats::block::DType;
    use formats::model::Location;
    use serde_json::json;

    fn tensor(name: &str, dtype: DType, shape: &[u64]) -> Tensor {
        let (encoding, location) = (Encoding::Blocks(dtype), Location::default());
        Tensor { name: name.into(), shape: shape.to_vec(), encoding, location }
    }

    fn tensors(names: &[&str]) -> Vec<Tensor> {
        names.iter().map(|name| tensor(name, DType::F32, &[1])).collect()
    }

    #[test]
    fn kinds_of_weights_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let what = |names: &[&str]| recognise(&tensors(names), dir.path()).map(|f| f.what);
        let mistral =
            ["tok_embeddings.weight", "layers.0.attention.wq.weight", "layers.0.attention.wk.weight"];
        assert!(what(&mistral).unwrap().contains("Mistral's own layout (names"));
        assert!(
            what(&["model.layers.0.self_attn.q_proj.weight"]).unwrap().contains("without its config.json")
        );
        std::fs::write(dir.path().join("params.json"), "{}").unwrap();
        std::fs::write(dir.path().join(CONFIG), json!({"model_type": "llama"}).to_string()).unwrap();
        assert!(recognise(&tensors(&mistral), dir.path()).unwrap().what.contains("params.json, names"));
        assert!(recognise(&tensors(&["model.layers.0.self_attn.q_proj.weight"]), dir.path()).is_none());
        assert!(recognise(&tensors(&["x"]), dir.path()).is_none() && recognise(&[], dir.path()).is_none());
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
    fn what_is_not_known_is_no_model() {
        let dir = tempfile::tempdir().unwrap();
        let found = |tensors: &[Tensor]| recognise(tensors, dir.path()).unwrap();
        let one = found(&tensors(&["w"]));
        assert!(
            one.what.contains("no layers of a supported architecture (llama, ") && one.what.ends_with("is w")
        );
        assert!(one.remains == Use::Named && one.hint.contains("--set general.architecture"), "{one:?}");
        let five = found(&tensors(&["a", "b", "c", "d", "e"])).what;
        assert!(five.ends_with("its tensors are a, b, c and 2 more"), "{five}");
        let none = found(&[]);
        assert!(none.what == "has no tensors" && none.remains == Use::Tensors);
        let ids = [tensor("ids", DType::I64, &[4]), tensor("mask", DType::U8, &[4])];
        assert!(found(&ids).what.contains("integers only (tensor ids is i64)"));
        let zero =
            [tensor("a", DType::F32, &[0]), tensor("b", DType::BF16, &[0]), tensor("c", DType::F32, &[4])];
        let zero = found(&zero);
        assert!(zero.what.contains("2 of 3 tensors (such as a)") && zero.hint.contains("zero_to_fp32.py"));
        // Settings that describe no model say no more than none.
        std::fs::write(dir.path().join(CONFIG), json!({"in_features": 64}).to_string()).unwrap();
        assert!(found(&tensors(&["linear.weight"])).what.contains("is linear.weight"));
    }
}
