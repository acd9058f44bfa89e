//! Architectures: one constant value each, with the names of its tensors in Hugging Face checkpoints and in GGUF, their
//! shapes and the order of their rows. Converting in either direction, and planning without weights, read that one
//! value.

mod bitnet;
mod blk;
mod class;
pub mod config;
mod idle;
mod ignored;
pub mod keys;
mod layers;
mod llama;
pub mod llama_cpp;
mod qwen;
pub mod rope;
pub(crate) mod settings;
mod unknown;
pub mod values;

pub use blk::Blk;
pub use config::Config;
pub use idle::{is_idle, rotated};
pub use ignored::ignored_settings_note;
pub use unknown::unknown_tensors_note;

/// An architecture: a family of models with the same computation and tensor names.
#[derive(Debug)]
#[non_exhaustive]
pub struct Arch {
    /// `general.architecture` in a GGUF.
    pub name: &'static str,
    /// Other values of `general.architecture` that mean the same model, with keys that begin with that name.
    pub aliases: &'static [&'static str],
    /// The classes of transformers whose checkpoints are read; the first is the one that is written.
    pub classes: &'static [Class],
    /// How rotary embeddings (RoPE) pair the dimensions of a head in GGUF files.
    pub rotary: Rotary,
    /// The accepted names in config.json of the activation in the feed-forward network (`hidden_act`).
    pub activation: &'static [&'static str],
    /// Whether models are trained with 8-bit activations, with one scale for each token.
    pub int8_activations: bool,
    /// Whether GGUF files have the length of a head (`attention.key_length`) even where it is hidden size / heads.
    pub writes_head_length: bool,
    /// Whether GGUF files have `vocab_size` and `rope.dimension_count`.
    pub writes_vocab_size: bool,
    /// Whether llama.cpp's loader accepts `rope_freqs.weight`, the divisors of Llama 3's RoPE scaling. Otherwise it refuses
    /// files with it.
    pub rope_freqs: bool,
    /// Whether llama.cpp's loader accepts biases of the query, key and value projections, whatever the table of tensors says.
    pub qkv_biases: bool,
    /// Whether llama.cpp's loader accepts a bias for every matrix of a layer. Otherwise it refuses files with further
    /// biases.
    pub any_bias: bool,
    /// What users should know about the programs that run a GGUF of it; `None` if llama.cpp and its relatives do.
    pub programs: Option<fn(&Made) -> String>,
    /// Every tensor that a checkpoint may have, in groups. `{}` in a name is the number of the layer.
    pub tensors: &'static [&'static [Rule]],
}

/// What decides which programs run a GGUF, besides its architecture.
#[derive(Debug, Clone, Copy)]
pub struct Made<'a> {
    /// The architecture's name in the file.
    pub name: &'a str,
    /// Whether it has an output matrix of its own, `output.weight`.
    pub untied: bool,
    /// The names of its tensors' types, each once.
    pub types: &'a [String],
}

/// A class of Hugging Face's transformers, with its defaults for settings that config.json does not have.
#[derive(Debug)]
#[non_exhaustive]
pub struct Class {
    /// The name in `architectures`.
    pub name: &'static str,
    /// The `model_type` in config.json.
    pub model_type: &'static str,
    /// `max_position_embeddings`.
    pub context: u64,
    /// `rms_norm_eps`.
    pub epsilon: f64,
    /// `rope_theta`.
    pub theta: f64,
    /// `num_key_value_heads`, if its default is not the number of attention heads.
    pub kv_heads: Option<u64>,
    /// `head_dim`, if its default is not hidden size / heads.
    pub head: Option<u64>,
    /// Whether `sliding_window` has effect without `use_sliding_window`.
    pub sliding_window: bool,
    /// Whether `use_sliding_window` and `layer_types` have effect.
    pub sliding_layers: bool,
}

/// Which dimensions of a head rotary embeddings (RoPE) rotate as a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rotary {
    /// Neighbours (0, 1), (2, 3), ...: llama2.c, and llama in GGUF (llama.cpp's `LLAMA_ROPE_TYPE_NORM`). The rows of a
    /// Hugging Face checkpoint are reordered for it.
    Pairs,
    /// The first half with the second: (0, n/2), (1, n/2 + 1), ...: Hugging Face, and llama.cpp's
    /// `LLAMA_ROPE_TYPE_NEOX`.
    Halves,
}

/// A tensor of an architecture, in every layer or once.
#[derive(Debug)]
#[non_exhaustive]
pub struct Rule {
    /// Its name in Hugging Face checkpoints, with `{}` for the layer.
    pub hub: &'static str,
    /// Its name in GGUF, with `{}` for the layer.
    pub gguf: &'static str,
    /// Its shape, outermost dimension first.
    pub shape: &'static [Dim],
    /// The attention heads whose rows RoPE rotates, if any.
    pub heads: Heads,
    /// When it is required.
    pub presence: Presence,
}

/// A dimension of a tensor, by the settings that it follows from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum Dim {
    Vocab,
    Hidden,
    Intermediate,
    /// Attention heads × length of a head.
    Queries,
    /// Key/value heads × length of a head.
    Keys,
    Head,
}

/// The heads that a tensor's rows belong to, if RoPE rotates them, so that their order depends on [`Rotary`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Heads {
    None,
    Query,
    Key,
}

/// When a tensor is required.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Presence {
    /// In every checkpoint.
    Always,
    /// Unless embeddings are tied.
    Untied,
    /// Never: some models have it.
    Optional,
}

/// All supported architectures.
pub static ARCHS: &[&Arch] = &[&llama::LLAMA, &qwen::QWEN2, &qwen::QWEN3, &bitnet::BITNET];

/// The architecture with this name in GGUF (`general.architecture`), or with it as another name.
pub fn by_name(name: &str) -> Option<&'static Arch> {
    ARCHS.iter().find(|a| a.name == name || a.aliases.contains(&name)).copied()
}

/// The class of transformers with this name, and its architecture.
pub fn by_class(name: &str) -> Option<(&'static Arch, &'static Class)> {
    ARCHS.iter().find_map(|&arch| Some((arch, arch.classes.iter().find(|c| c.name == name)?)))
}

/// The class of the base model with this name (`LlamaModel`), as the class that has an output matrix besides
/// (`LlamaForCausalLM`), and its architecture.
pub fn by_base_class(name: &str) -> Option<(&'static Arch, &'static Class)> {
    by_class(&format!("{}ForCausalLM", name.strip_suffix("Model")?))
}

/// The class that transformers' `AutoModelForCausalLM` takes for this `model_type`, and its architecture.
pub fn by_model_type(name: &str) -> Option<(&'static Arch, &'static Class)> {
    ARCHS.iter().find_map(|&arch| Some((arch, arch.classes.iter().find(|c| c.model_type == name)?)))
}

/// The names of all supported classes, for messages.
pub fn class_names() -> String {
    let names = ARCHS.iter().flat_map(|a| a.classes).map(|c| c.name);
    names.collect::<Vec<_>>().join(", ")
}

/// A tensor that a model with certain settings has.
#[derive(Debug, Clone)]
pub struct Expected {
    /// Its name in Hugging Face checkpoints.
    pub hub: String,
    /// Its name in GGUF.
    pub gguf: String,
    /// Its shape, outermost dimension first.
    pub shape: Vec<u64>,
    /// The rule that it comes from.
    pub rule: &'static Rule,
}

impl Arch {
    /// This name of the architecture, where it is one of its names, and otherwise the first of them.
    pub fn named(&self, name: &str) -> &'static str {
        self.aliases.iter().find(|alias| **alias == name).copied().unwrap_or(self.name)
    }

    /// The rule of the tensor with this name in GGUF, with `{}` for the layer.
    pub fn rule(&self, gguf: &str) -> Option<&'static Rule> {
        self.tensors.iter().copied().flatten().find(|rule| rule.gguf == gguf)
    }

    /// Whether models may have a bias of this matrix of a layer (`attn_q`).
    pub fn has_bias(&self, matrix: &str) -> bool {
        self.any_bias
            || self.qkv_biases && ["attn_q", "attn_k", "attn_v"].contains(&matrix)
            || self.rule(&format!("blk.{{}}.{matrix}.bias")).is_some()
    }

    /// Every tensor that a model with these settings may have: the layers in order, then the others.
    pub fn expected(&self, config: &Config) -> Vec<Expected> {
        let one = |rule: &'static Rule, layer: &str| Expected {
            hub: rule.hub.replace("{}", layer),
            gguf: rule.gguf.replace("{}", layer),
            shape: rule.shape.iter().map(|&d| config.dim(d)).collect(),
            rule,
        };
        let (layered, others): (Vec<&Rule>, Vec<&Rule>) =
            self.tensors.iter().copied().flatten().partition(|r| r.hub.contains("{}"));
        let layers = (0..config.layers).map(|n| n.to_string());
        let in_layers = layers.flat_map(|n| layered.iter().map(move |r| one(r, &n)).collect::<Vec<_>>());
        in_layers.chain(others.iter().map(|r| one(r, ""))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut classes = std::collections::HashSet::new();
        for arch in ARCHS {
            for name in [&[arch.name], arch.aliases].concat() {
                assert!(std::ptr::eq(by_name(name).unwrap(), *arch), "{name}");
                assert_eq!(arch.named(name), name);
            }
            let base = arch.classes[0].name.replace("ForCausalLM", "Model");
            assert!(std::ptr::eq(by_base_class(&base).unwrap().0, *arch), "{base}");
            let class = by_model_type(arch.classes[0].model_type).unwrap().1;
            assert!(std::ptr::eq(class, &arch.classes[0]), "{}", class.name);
            assert!(arch.classes.iter().all(|c| classes.insert(c.name)));
            let mut names = std::collections::HashSet::new();
            for rule in arch.tensors.iter().copied().flatten() {
                assert!(names.insert(rule.hub) && names.insert(rule.gguf), "{}", rule.hub);
                assert_eq!(rule.hub.contains("{}"), rule.gguf.contains("{}"), "{}", rule.hub);
            }
        }
    }
}
