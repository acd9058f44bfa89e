//! Which files of a checkpoint's folder belong to its model, by their names: what programs read along with the weights.
//! They are copied together and replaced together; everything else in such a folder is its owner's.
//!
//! The names are those of transformers, sentencepiece, Mistral, vLLM and llama.cpp's converter.

use formats::container::parse_part_stem;

/// The file with the settings, which every checkpoint has.
pub const CONFIG: &str = "config.json";

/// The folder of further chat templates, each a file that ends in `.jinja`.
pub const TEMPLATES: &str = "additional_chat_templates";

/// The settings of an adapter (PEFT), which programs apply to the weights of the same folder.
pub const ADAPTER: &str = "adapter_config.json";

/// What a file of a checkpoint's folder is to its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The settings: [`CONFIG`].
    Settings,
    /// Weights, or an index of them.
    Weights,
    /// A tokenizer in any form, chat templates, settings of generation: whatever the form of the weights.
    Companion,
    /// About the weights as they are stored, or about other inputs than text: it holds for a copy of the very tensors.
    AsFiled,
    /// A text for people about the model.
    Text,
}

/// The companions with fixed names.
const COMPANIONS: [&str; 16] = [
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "sentencepiece.model",
    "special_tokens_map.json",
    "spiece.model",
    "tekken.json",
    "tiktoken.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
];

const AS_FILED: [&str; 8] = [
    "hf_quant_config.json",
    "modules.json",
    "params.json",
    "preprocessor_config.json",
    "processor_config.json",
    "quant_config.json",
    "quantize_config.json",
    "video_preprocessor_config.json",
];

const TEXTS: [&str; 4] = ["LICENSE", "LICENSE.md", "LICENSE.txt", "README.md"];

/// What a file of this name is to the model of its folder; `None` for whatever is not known to be a part of one. A name may
/// be one in the folder [`TEMPLATES`], behind a slash.
pub fn part(name: &str) -> Option<Part> {
    // Versions of Mistral's tokenizers have a number behind the name.
    let companion = COMPANIONS.contains(&name)
        || name.starts_with("tokenizer.model.v")
        || name.ends_with(".tiktoken")
        || name.strip_prefix(TEMPLATES).is_some_and(|rest| rest.starts_with('/') && rest.ends_with(".jinja"));
    match name {
        CONFIG => Some(Part::Settings),
        _ if companion => Some(Part::Companion),
        _ if AS_FILED.contains(&name) => Some(Part::AsFiled),
        _ if TEXTS.contains(&name) => Some(Part::Text),
        _ if is_weights(name) => Some(Part::Weights),
        _ => None,
    }
}

/// Whether weights have this name in a checkpoint: whole, in parts or in a variant (`model.fp16`), or their index. A file
/// with another name may be weights too, but is not looked for by it.
fn is_weights(name: &str) -> bool {
    let name = name.strip_suffix(".index.json").unwrap_or(name);
    let Some((stem, ending)) = name.rsplit_once('.') else { return false };
    let stem = parse_part_stem(stem).map_or(stem, |(stem, ..)| stem);
    match ending {
        "safetensors" => stem == "model" || stem.starts_with("model.") || stem.starts_with("consolidated"),
        "bin" => stem.starts_with("pytorch_model"),
        "pth" => stem.starts_with("consolidated"),
        "h5" => stem == "tf_model",
        "msgpack" => stem == "flax_model",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_known_by_their_names() {
        for (names, wanted) in [
            (&["config.json"][..], Some(Part::Settings)),
            (
                &[
                    "tokenizer.json",
                    "tokenizer.model.v3",
                    "qwen.tiktoken",
                    "chat_template.json",
                    "additional_chat_templates/rag.jinja",
                ],
                Some(Part::Companion),
            ),
            (&["preprocessor_config.json", "params.json"], Some(Part::AsFiled)),
            (&["README.md", "LICENSE", "LICENSE.txt"], Some(Part::Text)),
            (
                &[
                    "model.safetensors",
                    "model-00002-of-00003.safetensors",
                    "model.safetensors.index.json",
                    "model.fp16-00001-of-00002.safetensors",
                    "consolidated.safetensors",
                    "consolidated.00.pth",
                    "pytorch_model.bin",
                    "pytorch_model-00001-of-00002.bin",
                    "pytorch_model.bin.index.json",
                    "tf_model.h5",
                ],
                Some(Part::Weights),
            ),
            (
                &[
                    "notes.txt",
                    "other.safetensors",
                    "model.gguf",
                    "training_args.bin",
                    "optimizer.pt",
                    "adapter_model.safetensors",
                    "models.safetensors",
                    "additional_chat_templates",
                    "additional_chat_templates/notes.txt",
                    "my-tokenizer.json",
                    "config.json.old",
                    "model",
                    "",
                ],
                None,
            ),
        ] {
            names.iter().for_each(|name| assert_eq!(part(name), wanted, "{name}"));
        }
    }
}
