//! Weights that are a model, but no language model: of images, of vision alone, of speech and sound; and what training leaves
//! beside a model. They are in the same container, and settings say in the same way what they are. A language model that has
//! such parts besides (a vision tower, the value head of training) is one.

use formats::container::gguf::GGML_DIMS;
use formats::model::Tensor;
use serde_json::Value as Json;

use crate::source::{Foreign, Use};

/// A kind of model, and how it is told by the names of its tensors.
struct Kind {
    /// What it is, as the end of a sentence that begins with its path.
    what: &'static str,
    /// Beginnings of names, under any prefix that ends in a dot.
    starts: &'static [&'static str],
    /// Parts that are anywhere in a name.
    parts: &'static [&'static str],
    /// How it is used, or a language model comes of it.
    hint: &'static str,
}

/// What can be done with tensors of anything.
pub const AS_IT_IS: &str =
    "--set general.architecture=NAME writes a GGUF of the tensors under the names that they have";

const IMAGES: &str = "stable-diffusion.cpp and ComfyUI-GGUF convert models of images (stable-diffusion.cpp: sd -M convert -m \
                      FILE -o OUT); --set general.architecture=NAME writes a GGUF of the tensors under the names that they have";

const UNET: &str = "is the UNet or transformer of a diffusion model, which makes images or videos";

const SPEECH: &str = "whisper.cpp's models/convert-h5-to-ggml.py makes a file for whisper.cpp; --set general.architecture=NAME \
                      writes a GGUF of the tensors under the names that they have";

const VISION: &str = "llama.cpp's convert_hf_to_gguf.py --mmproj makes the part for vision of a language model, from the folder \
                      of the whole model; --set general.architecture=NAME writes a GGUF of the tensors under the names that \
                      they have";

const KINDS: &[Kind] = &[
    // A whole checkpoint has an autoencoder and a text encoder besides.
    Kind { what: UNET, starts: &["model.diffusion_model."], parts: &[], hint: IMAGES },
    Kind {
        what: "is an autoencoder of images (VAE)",
        starts: &[
            "encoder.down_blocks.",
            "decoder.up_blocks.",
            "encoder.down.0.",
            "decoder.up.0.",
            "first_stage_model.",
            "post_quant_conv.",
        ],
        parts: &[],
        hint: IMAGES,
    },
    Kind {
        what: UNET,
        starts: &[
            "down_blocks.",
            "double_blocks.",
            "joint_blocks.",
            "single_transformer_blocks.",
            "input_blocks.",
            "transformer_blocks.0.attn",
            "controlnet_cond_embedding.",
            "control_model.",
            "patch_embedding.",
            "x_embedder.",
            "img_in.",
            "time_embedding.",
            "time_embed.",
        ],
        parts: &[],
        hint: IMAGES,
    },
    Kind {
        what: "is the projector of a multimodal model (mmproj)",
        starts: &["mm_projector.", "multi_modal_projector.", "multimodal_projector."],
        parts: &[],
        hint: VISION,
    },
    Kind {
        what: "is a control vector, which belongs to a model",
        starts: &["direction.1", "direction.2"],
        parts: &[],
        hint: "llama.cpp's programs take one as a GGUF (llama-cli -m MODEL.gguf --control-vector FILE), which repeng's \
               export_gguf and llama.cpp's llama-cvector-generator write",
    },
    Kind {
        what: "is an importance matrix",
        starts: &[],
        parts: &[".in_sum2"],
        hint: "importance matrices are read as GGUF or .dat files (--imatrix FILE); ggufkit calibrate and llama.cpp's \
               llama-imatrix make them",
    },
    Kind {
        what: "has the values of a computation (a KV cache, logits or activations)",
        starts: &["key_cache.", "value_cache.", "past_key_values.", "logits", "hidden_states"],
        parts: &[],
        hint: "take the file with the model's weights",
    },
    Kind {
        what: "is a sparse autoencoder (SAE), which describes the activations of a model",
        starts: &["W_enc", "W_dec"],
        parts: &[],
        hint: AS_IT_IS,
    },
    Kind {
        what: "is a Whisper model, which recognises speech",
        starts: &["encoder.conv1.", "encoder.conv2."],
        parts: &[],
        hint: SPEECH,
    },
    Kind {
        what: "is a model of sound (an audio codec, a speech encoder or a vocoder)",
        starts: &[
            "quantizer.layers.0.codebook.",
            "quantizer.quantizers.",
            "feature_extractor.conv_layers.",
            "conv_pre.",
        ],
        parts: &[".codebook.embed", ".weight_g", "_codebook.embed"],
        hint: AS_IT_IS,
    },
    Kind {
        what: "is a model of vision (a CLIP or SigLIP model, a vision transformer)",
        starts: &[
            "vision_model.",
            "vision_tower.",
            "visual.",
            "visual_projection.",
            "text_model.encoder.",
            "vit.encoder.",
            "embeddings.patch_embeddings.",
        ],
        parts: &[],
        hint: VISION,
    },
];

/// What is in the names of models of other architectures, and what these are called.
const ARCHITECTURES: [(&str, &str); 10] = [
    ("attention.self.query.", "BERT"),
    ("SelfAttention.q.", "T5"),
    (".att.key.", "RWKV"),
    (".att.receptance.", "RWKV"),
    (".mixer.in_proj.", "Mamba"),
    ("attn.c_attn.", "GPT-2"),
    ("gpt_neox.layers.", "GPT-NeoX"),
    ("self_attention.query_key_value.", "BLOOM, Falcon or ChatGLM"),
    (".attention.wqkv.", "InternLM2"),
    ("transformer.blocks.0.", "MPT or OLMo"),
];

/// Keys of a config.json that describes a part of a model, and what that is.
const PARTS: [(&str, &str); 4] = [
    ("medusa_num_heads", "Medusa's heads, which guess tokens for a base model"),
    ("in_features", "a layer of sentence-transformers, which follows a model"),
    ("d_sae", "a sparse autoencoder (SAE), which describes the activations of a model"),
    ("projection_dim", "a projection between models"),
];

/// What tensors are by their names, or by the config.json beside them, where they are of no supported architecture: "names
/// of BERT".
pub fn likely(tensors: &[Tensor], config: Option<&Json>) -> Option<String> {
    let of = |(part, _): &&(&str, &str)| tensors.iter().any(|t| t.name.contains(part));
    let said = |(key, _): &&(&str, &str)| config.is_some_and(|config| config.get(key).is_some());
    let names = || ARCHITECTURES.iter().find(of).map(|(_, name)| format!("names of {name}"));
    PARTS.iter().find(said).map(|(_, what)| what.to_string()).or_else(names)
}

/// The part of a name that optimizers give what they keep for each weight: Adam, and SGD with momentum.
const OPTIMIZER: [&str; 4] = ["exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer"];

const TRAINED: &str = "training writes it beside the model, which is another file: model.safetensors, pytorch_model.bin or the \
                       parts of these";

/// The last parts of names that the layers and the embedding of a language model have.
const LANGUAGE: [&str; 10] = [
    "embed_tokens.weight",
    "wte.weight",
    "word_embeddings.weight",
    "tok_embeddings.weight",
    "lm_head.weight",
    "self_attn.q_proj.weight",
    "self_attn.qkv_proj.weight",
    "attn.c_attn.weight",
    "attention.query_key_value.weight",
    "mixer.in_proj.weight",
];

/// Parts of names of modules that are no language model, whatever is in them.
const BESIDE: [&str; 10] = [
    "vision_model",
    "vision_tower",
    "visual",
    "text_model",
    "encoder",
    "decoder",
    "audio_tower",
    "cond_stage_model",
    "conditioner",
    "first_stage_model",
];

/// Whether a name has one of these parts between its dots.
fn has_part(name: &str, parts: &[&str]) -> bool {
    name.split('.').any(|part| parts.contains(&part))
}

/// Whether a tensor is kept by an optimizer: by the names of PyTorch's, or as those of MLX and others are called.
pub fn is_optimizers(name: &str) -> bool {
    let state = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
    has_part(name, &OPTIMIZER)
        || [".m", ".v"].iter().any(|end| name.ends_with(end))
        || name.split_once("state.").is_some_and(|(before, rest)| before.is_empty() && state(rest))
}

fn is_language(name: &str) -> bool {
    name.ends_with("model.norm.weight")
        || LANGUAGE.iter().any(|end| name.ends_with(end)) && !has_part(name, &BESIDE)
}

/// Whether a name begins so, or does behind a dot.
fn begins(name: &str, start: &str) -> bool {
    name.match_indices(start).any(|(at, _)| at == 0 || name.as_bytes()[at - 1] == b'.')
}

/// What these tensors are, if they are known to be no language model. `config` is the config.json beside them.
pub fn recognise(tensors: &[Tensor], config: Option<&Json>) -> Option<Foreign> {
    let names = || tensors.iter().map(|t| t.name.as_str());
    let foreign = |what: String, hint: &str, remains| Foreign { what, hint: hint.into(), remains };
    let kept: Vec<&str> = names().filter(|name| is_optimizers(name)).collect();
    if let Some(first) = kept.first().filter(|_| 2 * kept.len() > tensors.len()) {
        let what = format!("is the state of an optimizer (tensor {first}), not a model");
        return Some(foreign(what, TRAINED, Use::Tensors));
    }
    if names().any(is_language) {
        return None;
    }
    // The settings of diffusers name a class so, and those of transformers in another way.
    if let Some(class) = config.and_then(|config| config.get("_class_name")?.as_str()) {
        let what = format!("is a part of a diffusion model ({class} of diffusers), not a language model");
        return Some(foreign(what, IMAGES, Use::Named));
    }
    let of = |kind: &&Kind| {
        names().find(|name| {
            let starts = || kind.starts.iter().any(|start| begins(name, start));
            starts() || kind.parts.iter().any(|part| name.contains(part))
        })
    };
    let (kind, name) = KINDS.iter().find_map(|kind| Some((kind, of(&kind)?)))?;
    let what = format!("{}, not a language model (tensor {name})", kind.what);
    // Convolutions over time or depth: llama.cpp loads no GGUF with them, and the programs that run such models do.
    let of_videos = kind.what == UNET && tensors.iter().any(|t| t.shape.len() > GGML_DIMS);
    Some(foreign(what, kind.hint, if of_videos { Use::Types } else { Use::Named }))
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
    fn what_is_no_language_model_is_named() {
        for (names, says) in [
            (&["0.exp_avg", "0.exp_avg_sq", "step"][..], "the state of an optimizer (tensor 0.exp_avg)"),
            (&["optimizer.state.model.norm.weight.momentum_buffer"], "the state of an optimizer"),
            (&["state.0.s", "state.1.s"], "the state of an optimizer"),
            (&["model.norm.weight.m", "model.norm.weight.v", "step"], "the state of an optimizer"),
            (&["control_model.time_embed.0.weight"], "diffusion"),
            (&["multi_modal_projector.linear_1.weight"], "mmproj"),
            (&["direction.1", "direction.2"], "control vector"),
            (&["model.layers.0.mlp.down_proj.weight.in_sum2"], "importance matrix"),
            (&["past_key_values.0.key"], "KV cache"),
            (&["W_enc", "b_enc"], "sparse autoencoder"),
            (&["down_blocks.0.resnets.0.conv1.weight", "mid_block.attentions.0.norm.weight"], "UNet"),
            (
                &[
                    "model.diffusion_model.input_blocks.0.0.weight",
                    "cond_stage_model.transformer.text_model.embed_tokens.weight",
                ],
                "diffusion",
            ),
            (&["double_blocks.0.img_attn.qkv.weight"], "diffusion"),
            (&["encoder.down_blocks.0.resnets.0.conv1.weight", "quant_conv.weight"], "autoencoder"),
            (&["decoder.up.0.block.0.conv1.weight", "post_quant_conv.weight"], "autoencoder of images"),
            (
                &[
                    "model.encoder.conv1.weight",
                    "model.decoder.layers.0.self_attn.q_proj.weight",
                    "model.decoder.embed_tokens.weight",
                ],
                "Whisper",
            ),
            (&["encoder.layers.0.conv.weight_g", "quantizer.layers.0.codebook.embed"], "model of sound"),
            (&["wav2vec2.feature_extractor.conv_layers.0.conv.weight"], "model of sound"),
            (
                &[
                    "vision_model.encoder.layers.0.self_attn.q_proj.weight",
                    "text_model.encoder.layers.0.self_attn.q_proj.weight",
                ],
                "model of vision",
            ),
            (&["vit.encoder.layer.0.attention.attention.query.weight"], "model of vision"),
            (&["visual.transformer.resblocks.0.ln_1.weight", "logit_scale"], "model of vision"),
        ] {
            let found = recognise(&tensors(names), None).unwrap_or_else(|| panic!("{names:?}"));
            assert!(found.what.contains(says) && found.what.contains(", not a"), "{found:?}");
            assert_eq!(found.remains == Use::Named, !says.contains("optimizer"));
        }
        let unet = json!({"_class_name": "AutoencoderKL", "sample_size": 64});
        let found = recognise(&tensors(&["w"]), Some(&unet)).unwrap();
        assert!(found.what.contains("AutoencoderKL of diffusers"), "{found:?}");
    }

    #[test]
    fn other_architectures_are_guessed() {
        let by_names = |name: &str| likely(&tensors(&[name]), None);
        assert_eq!(by_names("encoder.layer.0.attention.self.query.weight").as_deref(), Some("names of BERT"));
        assert_eq!(by_names("backbone.layers.0.mixer.in_proj.weight").as_deref(), Some("names of Mamba"));
        assert_eq!(by_names("w"), None);
        let medusa = likely(&tensors(&["0.0.linear.weight"]), Some(&json!({"medusa_num_heads": 3}))).unwrap();
        assert!(medusa.contains("Medusa"), "{medusa}");
    }

    #[test]
    fn a_language_model_may_have_more() {
        let qwen_vl = ["visual.blocks.0.attn.qkv.weight", "model.layers.0.self_attn.q_proj.weight"];
        for names in [
            &qwen_vl[..],
            &["vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight", "language_model.lm_head.weight"],
            &["model.layers.0.mlp.up_proj.weight", "model.embed_tokens.weight", "model.norm.weight.exp_avg"],
            &["transformer.wte.weight", "transformer.h.0.attn.c_attn.weight"],
            &["bert.encoder.layer.0.attention.self.query.weight", "bert.embeddings.word_embeddings.weight"],
            &["encoder.block.0.layer.0.SelfAttention.q.weight", "shared.weight"],
            &[
                "model.encoder.layers.0.self_attn.q_proj.weight",
                "model.decoder.layers.0.encoder_attn.q_proj.weight",
            ],
            &["my_down_blocks.0.weight", "my_logits"],
            &["w"],
            &[],
        ] {
            assert_eq!(recognise(&tensors(names), None), None, "{names:?}");
        }
    }
}
