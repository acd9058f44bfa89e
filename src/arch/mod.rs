//! Architectures: one constant value each, which says how Hugging Face and GGUF call its tensors, what shapes they
//! have and how their rows are ordered. Converting either way, and planning without weights, read that one value.

mod bitnet;
mod blk;
pub mod config;
mod layers;
mod llama;
pub mod llama_cpp;
mod qwen;
pub mod rope;

pub use blk::Blk;
pub use config::Config;

/// A family of models that one program runs.
#[derive(Debug)]
pub struct Arch {
    /// `general.architecture` in a GGUF.
    pub name: &'static str,
    /// Hugging Face's classes whose checkpoints it reads; the first is the one that is written.
    pub classes: &'static [Class],
    /// How a rotary embedding pairs the dimensions of a head in GGUF's files.
    pub rotary: Rotary,
    /// The activation that the runtime computes in the feed-forward layer, as config.json calls it.
    pub activation: &'static [&'static str],
    /// Whether models are trained with 8-bit codes, one scale for a token, for what projections are multiplied with.
    pub int8: bool,
    /// Whether GGUF files of this architecture name the size of a head even where it is hidden size / heads.
    pub names_head: bool,
    /// Whether they repeat the vocabulary's size and the rotary dimensions.
    pub names_sizes: bool,
    /// Whether llama.cpp's loader takes a bias beside every matrix of a layer. Others refuse files with tensors that
    /// they do not ask for.
    pub any_bias: bool,
    /// What to tell whoever makes a GGUF of it about the programs that run it.
    pub note: Option<&'static str>,
    /// Every tensor that a checkpoint may have, in groups; `{}` stands for the layer.
    pub tensors: &'static [&'static [Rule]],
}

/// A class of Hugging Face's transformers, with what its configuration says where config.json is silent.
#[derive(Debug)]
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
    /// `num_key_value_heads`, where that is not the number of heads.
    pub kv_heads: Option<u64>,
    /// `head_dim`, where that is not hidden size / heads.
    pub head: Option<u64>,
    /// Whether `sliding_window` counts without `use_sliding_window`.
    pub sliding_window: bool,
}

/// Which dimensions of a head a rotary embedding turns together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotary {
    /// Neighbours (0, 1), (2, 3), ...: llama2.c, and llama in GGUF. Hugging Face's rows are reordered.
    Pairs,
    /// The first half with the second: (0, n/2), (1, n/2 + 1), ...: Hugging Face, and GGUF's "NEOX" kind.
    Halves,
}

/// A tensor of an architecture.
#[derive(Debug)]
pub struct Rule {
    /// Hugging Face's name, with `{}` for the layer.
    pub hub: &'static str,
    /// GGUF's.
    pub gguf: &'static str,
    /// Outermost dimension first.
    pub shape: &'static [Dim],
    /// Which of its rows a rotary embedding turns.
    pub heads: Heads,
    /// Whether it must be there.
    pub presence: Presence,
}

/// A dimension, by its name in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Dim {
    Vocab,
    Hidden,
    Intermediate,
    /// Heads × size of a head.
    Queries,
    /// Key/value heads × size of a head.
    Keys,
    Head,
}

/// The heads that a tensor's rows belong to, where their order matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Heads {
    None,
    Query,
    Key,
}

/// When a tensor must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// In every checkpoint.
    Always,
    /// Unless the embedding serves as output.
    Untied,
    /// Where the model was trained with it.
    Optional,
}

/// Every architecture.
pub static ARCHS: &[&Arch] = &[&llama::LLAMA, &qwen::QWEN2, &qwen::QWEN3, &bitnet::BITNET];

/// The architecture with this GGUF name.
pub fn by_name(name: &str) -> Option<&'static Arch> {
    ARCHS.iter().find(|a| a.name == name).copied()
}

/// The architecture, and the class, with this name in Hugging Face's transformers.
pub fn by_class(name: &str) -> Option<(&'static Arch, &'static Class)> {
    ARCHS.iter().find_map(|&arch| Some((arch, arch.classes.iter().find(|c| c.name == name)?)))
}

/// The names of all classes, for messages.
pub fn class_names() -> String {
    let names = ARCHS.iter().flat_map(|a| a.classes).map(|c| c.name);
    names.collect::<Vec<_>>().join(", ")
}

/// A tensor that a configuration asks for.
#[derive(Debug, Clone)]
pub struct Expected {
    /// Hugging Face's name.
    pub hub: String,
    /// GGUF's.
    pub gguf: String,
    /// Outermost dimension first.
    pub shape: Vec<u64>,
    /// The rule that it comes from.
    pub rule: &'static Rule,
}

impl Arch {
    /// Every tensor that a model with this configuration may have: the layers in order, then the others.
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
            assert!(std::ptr::eq(by_name(arch.name).unwrap(), *arch));
            assert!(arch.classes.iter().all(|c| classes.insert(c.name)));
            let mut names = std::collections::HashSet::new();
            for rule in arch.tensors.iter().copied().flatten() {
                assert!(names.insert(rule.hub) && names.insert(rule.gguf), "{}", rule.hub);
                assert_eq!(rule.hub.contains("{}"), rule.gguf.contains("{}"), "{}", rule.hub);
            }
        }
    }
}
