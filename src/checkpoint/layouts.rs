//! What is said of tensors that the architecture of config.json does not have: who writes such names, and the way from them to
//! names that are read.

use std::path::PathBuf;

use serde_json::Value as Json;

use super::{CONFIG, adapters, fused, other_models};
use crate::arch::Expected;
use crate::error::Error;

/// A layout of tensors other than transformers', and how it is told by their names.
struct Layout {
    /// Whose it is, as the end of a sentence that begins with the path.
    what: &'static str,
    /// Parts of names, of which one is in the name of a tensor.
    parts: &'static [&'static str],
    /// How a checkpoint comes of it.
    hint: &'static str,
}

const LAYOUTS: &[Layout] = &[
    Layout {
        what: "has GGUF's names",
        parts: &["token_embd.", "blk.0."],
        hint: "convert the GGUF that these tensors were made of; `ggufkit convert MODEL.gguf OUT.safetensors` keeps its settings \
               beside them",
    },
    Layout {
        what: "has LitGPT's names",
        parts: &[".attn.qkv.", ".attn.attn.", ".norm_1.", ".mlp.fc_1."],
        hint: "let LitGPT write transformers' names: litgpt convert_from_litgpt CHECKPOINT OUT",
    },
    Layout {
        what: "has torchtune's names",
        parts: &[".attn.q_proj.", ".attn.output_proj.", ".sa_norm."],
        hint: "let torchtune write transformers' names: in the recipe, checkpointer: torchtune.training.FullModelHFCheckpointer",
    },
    Layout {
        what: "has Megatron's names",
        parts: &[
            ".linear_qkv.",
            ".linear_fc1.",
            ".self_attention.query_key_value.",
            "embedding.word_embeddings.",
        ],
        hint: "let Megatron or NeMo write transformers' names (Megatron Bridge: export_ckpt; NeMo: llm.export_ckpt with target \
               \"hf\")",
    },
    Layout {
        what: "has its weights in flat tensors of FSDP, without their names and shapes",
        parts: &["flat_param"],
        hint: "save the whole model where it was trained: with accelerate's fsdp_state_dict_type FULL_STATE_DICT, or \
               torch.distributed.fsdp's StateDictType.FULL_STATE_DICT",
    },
    Layout {
        what: "has layers of experts",
        parts: &[".experts.", "block_sparse_moe."],
        hint: "mixtures of experts are not supported: llama.cpp's convert_hf_to_gguf.py makes a GGUF of many of them, with which \
               convert, quantize and verify work",
    },
    Layout {
        what: "has fused projections (the rows of several matrices in one) of other sizes or types than the settings ask for",
        parts: &[".qkv_proj.", ".gate_up_proj.", ".W_pack."],
        hint: "floats of qkv_proj and gate_up_proj are read where they have all rows of the model; save the model in \
               transformers' layout, and unquantized, in the program that wrote it",
    },
];

/// The error for stored tensors that an architecture does not have, with those of its own that are `missing`. `file` is the
/// checkpoint; `left_over` are at least one.
pub fn unexpected(
    file: PathBuf,
    left_over: Vec<String>,
    missing: &[String],
    architecture: &str,
    expected: &[Expected],
) -> Error {
    let shown = file.display();
    if let Some((name, kind)) = left_over.iter().find_map(|name| Some((name, adapters::kind(name)?))) {
        let kind = adapters::describe(&Json::Null, kind);
        return Error::refused(format!(
            "{}: has {kind} beside its weights that is not merged into them (tensor {name})",
            shown
        ))
        .or("merge it first (in Python with peft: model.merge_and_unload(), then model.save_pretrained(FOLDER))");
    }
    if let Some(name) = left_over.iter().find(|name| other_models::is_optimizers(name)) {
        return Error::refused(format!(
            "{}: has the state of an optimizer beside its weights (tensor {name})",
            shown
        ))
        .or("save the model alone: in Python, model.save_pretrained(FOLDER)");
    }
    let layout = |l: &&Layout| left_over.iter().find(|name| l.parts.iter().any(|part| name.contains(part)));
    if let Some((found, name)) = LAYOUTS.iter().find_map(|l| Some((l, layout(&l)?)))
        && (!missing.is_empty() || fused::is_fused(name) || found.what.contains("experts"))
    {
        return Error::refused(format!("{shown}: {} (tensor {name}), which are not read", found.what))
            .or(found.hint);
    }
    if missing.is_empty() {
        return match more_layers(&left_over, expected) {
            Some((name, has, says)) => Error::refused(format!(
                "{shown}: has {has} layers (tensor {name}), but config.json says num_hidden_layers: {says}"
            ))
            .or(format!(
                "take the {CONFIG} that belongs to these weights; if they are one model of {has} layers, write \
                 \"num_hidden_layers\": {has} into it"
            )),
            None => Error::UnexpectedTensors { file, names: left_over, architecture: architecture.into() },
        };
    }
    if left_over.iter().any(|name| name.ends_with("fc.weight"))
        && missing.iter().all(|name| !name.contains("q_proj"))
    {
        return Error::refused(format!(
            "{shown}: is a draft model (EAGLE: tensor fc.weight), which guesses tokens for a base model and is none alone"
        ))
        .or("convert the base model; programs for EAGLE (vLLM, SGLang) take the draft model as it is");
    }
    let and = |names: &[String]| match names.len() {
        1 => String::new(),
        n => format!(" and {} more", n - 1),
    };
    let (are, is) =
        (if left_over.len() == 1 { "is" } else { "are" }, if missing.len() == 1 { "is" } else { "are" });
    Error::refused(format!(
        "{shown}: tensor {}{} {are} not part of the architecture {architecture}, and {}{} of it {is} missing",
        left_over[0],
        and(&left_over),
        missing[0],
        and(missing)
    ))
    .or(format!(
        "`ggufkit inspect IN --tensors` lists what is there: either {CONFIG} belongs to another model, or the program that wrote \
         the weights has names of its own; have it write transformers' names (model.layers.0.self_attn.q_proj.weight)"
    ))
}

/// Where what is left over are whole layers beyond those that the settings count: the first such tensor, the number of layers
/// that are stored, and the number that the settings say.
fn more_layers<'a>(left_over: &'a [String], expected: &[Expected]) -> Option<(&'a String, usize, usize)> {
    let of = |name: &str| {
        let (_, rest) = name.rsplit_once(".layers.").or_else(|| Some(("", name.strip_prefix("layers.")?)))?;
        let (layer, rest) = rest.split_once('.')?;
        Some((layer.parse::<usize>().ok()?, rest.to_string()))
    };
    let own: Vec<(usize, String)> = expected.iter().filter_map(|e| of(&e.hub)).collect();
    let layers = own.iter().map(|(layer, _)| layer + 1).max()?;
    let mut most = 0;
    for name in left_over {
        let (layer, rest) = of(name)?;
        if layer < layers || layer > 1 << 16 || !own.iter().any(|(_, own)| *own == rest) {
            return None;
        }
        most = most.max(layer + 1);
    }
    Some((left_over.first()?, most, layers))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::Config;
    use serde_json::json;

    fn error(left_over: &[&str], missing: &[&str]) -> Error {
        let config = Config::from_hub(&json!({
            "architectures": ["LlamaForCausalLM"], "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2,
            "num_attention_heads": 2, "vocab_size": 8,
        }))
        .unwrap();
        let strings = |names: &[&str]| names.iter().map(|n| n.to_string()).collect::<Vec<_>>();
        unexpected("m".into(), strings(left_over), &strings(missing), "llama", &config.arch.expected(&config))
    }

    #[test]
    fn what_is_beside_a_whole_model_is_named() {
        let unmerged = error(&["a.weight", "m.q_proj.lora_A.default.weight"], &[]);
        assert!(
            unmerged.to_string().contains("lora_A") && unmerged.hint().unwrap().contains("merge_and_unload")
        );
        let trained = error(&["a.weight", "optimizer.exp_avg.a.weight"], &[]);
        assert!(trained.to_string().contains("the state of an optimizer beside"));
        let other = error(&["a"], &[]);
        assert!(matches!(other, Error::UnexpectedTensors { .. }), "{other}");
        assert!(other.hint().unwrap().contains("save_pretrained leave them out"));
    }

    #[test]
    fn layouts_of_other_programs_are_named_with_the_way_out() {
        let missing = &["model.embed_tokens.weight", "model.norm.weight"];
        for (name, says, way) in [
            ("blk.0.attn_q.weight", "GGUF's names", "MODEL.gguf"),
            ("layers.0.attn.q_proj.weight", "torchtune's names", "FullModelHFCheckpointer"),
            ("transformer.h.1.attn.qkv.weight", "LitGPT's names", "convert_from_litgpt"),
            ("decoder.layers.0.self_attention.linear_qkv.weight", "Megatron's names", "export_ckpt"),
            ("model._flat_param", "flat tensors of FSDP", "FULL_STATE_DICT"),
            ("model.layers.0.mlp.experts.0.w1.weight", "layers of experts", "convert_hf_to_gguf.py"),
            ("model.layers.0.self_attn.qkv_proj.weight", "fused projections", "unquantized"),
            ("fc.weight", "a draft model", "base model"),
            (
                "model/norm/weight",
                "model.embed_tokens.weight and 1 more of it are missing",
                "transformers' names",
            ),
        ] {
            let error = error(&[name], missing);
            let hint = error.hint().unwrap();
            assert!(error.to_string().contains(says) && error.to_string().contains(name), "{error}");
            assert!(hint.contains(way) && !hint.contains("save_pretrained"), "{hint}");
        }
    }

    #[test]
    fn layers_beyond_those_of_the_settings_are_counted() {
        let layer = ["model.layers.2.mlp.up_proj.weight", "model.layers.3.input_layernorm.weight"];
        let found = error(&layer, &[]);
        assert!(
            found.to_string().contains("has 4 layers") && found.to_string().contains("num_hidden_layers: 2")
        );
        assert!(found.hint().unwrap().contains("\"num_hidden_layers\": 4"));
        for other in ["model.layers.2.eh_proj.weight", "model.layers.1.norm.weight", "x"] {
            assert!(matches!(error(&[layer[0], other], &[]), Error::UnexpectedTensors { .. }), "{other}");
        }
    }
}
