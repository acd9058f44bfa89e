//! A model's settings (hyperparameters): read from config.json in either of its dialects or from a GGUF's metadata, and
//! written as either.

use std::path::Path;

use formats::metadata::{Metadata, Value, WrongValue};
use serde_json::{Map, Value as Json, json};

use super::class::class_of;
use super::ignored;
use super::rope::{self, Scaling, shortest};
use super::settings::{MOST, Reader, float_name, shown, wrong};
use super::{Arch, Class, Dim, by_name};
use crate::error::Error;

/// Why settings cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The class or the architecture is not one of [`super::ARCHS`].
    #[error("architecture {name:?} is not supported; supported: {known}")]
    UnknownArchitecture {
        /// The name.
        name: String,
        /// The supported names, separated by commas.
        known: String,
    },
    /// A setting is missing, invalid or not supported.
    #[error("{0}")]
    Invalid(String),
}

impl ConfigError {
    /// The error, with the file that has the settings.
    pub fn in_file(self, file: &Path) -> Error {
        let file = file.to_path_buf();
        match self {
            Self::UnknownArchitecture { name, known } => Error::UnknownArchitecture { file, name, known },
            Self::Invalid(why) => Error::InvalidConfig { file, why },
        }
    }
}

impl From<String> for ConfigError {
    fn from(why: String) -> Self {
        Self::Invalid(why)
    }
}

impl From<WrongValue> for ConfigError {
    fn from(e: WrongValue) -> Self {
        Self::Invalid(e.to_string())
    }
}

impl From<&str> for ConfigError {
    fn from(why: &str) -> Self {
        Self::Invalid(why.into())
    }
}

/// The settings that all supported architectures have. Lengths are in elements, contexts in tokens.
#[derive(Debug, Clone)]
pub struct Config {
    /// The architecture.
    pub arch: &'static Arch,
    /// Its name in the file, which may be one of its other names.
    pub name: &'static str,
    /// The class of transformers that config.json names.
    pub class: &'static Class,
    /// Number of layers (`num_hidden_layers`).
    pub layers: u64,
    /// Length of a token's hidden state (`hidden_size`).
    pub hidden: u64,
    /// Rows of the up and gate projections (`intermediate_size`).
    pub intermediate: u64,
    /// Attention heads, which are query heads.
    pub heads: u64,
    /// Key/value heads; divides `heads`. Fewer than `heads` with grouped-query attention.
    pub kv_heads: u64,
    /// Length of an attention head (`head_dim`).
    pub head: u64,
    /// Whether the length of a head was given, rather than computed as `hidden / heads`.
    pub head_given: bool,
    /// Rows of the token embedding (`vocab_size`).
    pub vocab: u64,
    /// The longest context in tokens (`max_position_embeddings`).
    pub context: u64,
    /// Epsilon of the RMS norms.
    pub epsilon: f64,
    /// Base of the RoPE frequencies (`rope_theta`).
    pub theta: f64,
    /// RoPE scaling.
    pub scaling: Scaling,
    /// Whether embeddings are tied: the token embedding is the output matrix too.
    pub tied: bool,
    /// Whether each token attends to those before it alone; in embedding models also to those behind it (`is_causal`).
    pub causal: bool,
    /// Whether config.json names the class of the base model (`LlamaModel`), which has no output matrix.
    pub base: bool,
    /// What GGUF runtimes will not compute as trained, for the user.
    pub notes: Vec<String>,
}

/// The largest supported number of layers: more than any model has, few enough that a list of its tensors fits into
/// memory.
const MOST_LAYERS: u64 = 4096;
/// The largest supported length of a head: longer than any, short enough for a table of its frequencies.
const MOST_HEAD: u64 = 1 << 16;

impl Config {
    /// Reads config.json.
    ///
    /// # Errors
    /// [`ConfigError::UnknownArchitecture`]; [`ConfigError::Invalid`] for missing or invalid numbers and for settings
    /// that GGUF runtimes do not support.
    pub fn from_hub(json: &Json) -> Result<Self, ConfigError> {
        let mut notes = Vec::new();
        let (arch, class, base) = class_of(json, &mut notes)?;
        let read = Reader(json);
        let (layers, hidden) = (read.count("num_hidden_layers")?, read.count("hidden_size")?);
        let heads = read.count("num_attention_heads")?;
        let kv_heads = read.optional("num_key_value_heads")?.or(class.kv_heads).unwrap_or(heads);
        let head_given = read.optional("head_dim")?;
        let head = match head_given.or(class.head) {
            Some(head) => head,
            None if hidden.is_multiple_of(heads) => hidden / heads,
            None => {
                let why = format!("hidden_size {hidden} is not a multiple of num_attention_heads {heads}");
                return Err(why.into());
            }
        };
        if layers > MOST_LAYERS {
            return Err(format!("num_hidden_layers must be at most {MOST_LAYERS} (found {layers})").into());
        }
        if !heads.is_multiple_of(kv_heads) {
            let why =
                format!("num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}");
            return Err(why.into());
        }
        if !head.is_multiple_of(2) || head > MOST_HEAD || head > MOST / heads {
            return Err(format!(
                "head_dim must be even, at most {MOST_HEAD}, and at most {MOST} in all attention heads (found {heads} \
                 heads of {head})"
            )
            .into());
        }
        let context = CONTEXT.iter().find_map(|key| read.optional(key).transpose());
        let context = context.transpose()?.unwrap_or(class.context);
        // Two dialects: "rope_theta" and "rope_scaling" at the top, or both in "rope_parameters".
        // Where a file has both, transformers takes the first.
        let null = Json::Null;
        let mut rope = &null;
        let mut theta = read.float("rope_theta")?;
        for key in ["rope_parameters", "rope_scaling"] {
            match &json[key] {
                Json::Null | Json::Bool(false) => {}
                found if float_name(found).is_some() => return Err(wrong(key, "an object", found).into()),
                Json::Object(map) if map.values().any(|v| v.is_object() && float_name(v).is_none()) => {
                    let why =
                        format!("{key} differs between layers, which is not supported for {}", arch.name);
                    return Err(why.into());
                }
                Json::Object(map) if map.is_empty() => {}
                found @ Json::Object(_) => {
                    rope = found;
                    theta = Reader(rope).float("rope_theta")?.or(theta);
                }
                other => return Err(wrong(key, "an object", other).into()),
            }
        }
        let theta = theta.unwrap_or(class.theta);
        let (kind, contradiction) = rope::named(rope).map_err(|why| format!("RoPE scaling: {why}"))?;
        notes.extend(contradiction);
        let scaling = if kind.as_deref() == Some("dynamic") {
            notes.push(
                "dynamic RoPE scaling is left out: no GGUF runtime computes it for this architecture".into(),
            );
            Scaling::None
        } else {
            Scaling::from_hub(rope, context)?
        };
        if matches!(scaling, Scaling::Llama3 { .. }) && !arch.rope_freqs {
            return Err(format!(
                "RoPE scaling: type \"llama3\" is not supported for {}: no GGUF runtime computes it for this architecture",
                arch.name
            )
            .into());
        }
        notes.extend(scaling.note());
        let act = &json["hidden_act"];
        if !act.is_null() && !act.as_str().is_some_and(|act| arch.activation.contains(&act)) {
            let expected = arch.activation[0];
            return Err(
                format!("hidden_act must be {expected:?} for {} (found {})", arch.name, shown(act)).into()
            );
        }
        let tied = read.flag("tie_word_embeddings")?.unwrap_or(false);
        if let Some(part) =
            Reader(rope).float("partial_rotary_factor")?.or(read.float("partial_rotary_factor")?)
            && part != 1.0
        {
            return Err(format!("partial_rotary_factor must be 1 for {} (found {part})", arch.name).into());
        }
        let window = match read.flag("use_sliding_window")? {
            Some(false) => None,
            Some(true) => read.window()?,
            None if class.sliding_window => read.window()?,
            None => None,
        };
        if let Some(window) = window.filter(|&w| w < context) {
            notes.push(format!(
                "sliding-window attention ({window} tokens) is left out: GGUF runtimes attend to the whole context for {}",
                arch.name
            ));
        }
        let known = ignored::Known { class, head, theta, context, window: window.is_some() };
        notes.extend(ignored::note(json, &known));
        Ok(Self {
            arch,
            name: arch.name,
            class,
            layers,
            hidden,
            intermediate: read.count("intermediate_size")?,
            heads,
            kv_heads,
            head,
            head_given: head_given.is_some(),
            vocab: read.count("vocab_size")?,
            context,
            epsilon: read.float("rms_norm_eps")?.unwrap_or(class.epsilon),
            theta,
            scaling,
            tied,
            causal: read.flag("is_causal")?.unwrap_or(true),
            base,
            notes,
        })
    }

    /// The length of a dimension in elements.
    pub fn dim(&self, dim: Dim) -> u64 {
        match dim {
            Dim::Vocab => self.vocab,
            Dim::Hidden => self.hidden,
            Dim::Intermediate => self.intermediate,
            Dim::Queries => self.heads * self.head,
            Dim::Keys => self.kv_heads * self.head,
            Dim::Head => self.head,
        }
    }

    /// The settings as GGUF's keys (`llama.block_count`, ...): counts as u32, the rest as f32.
    pub fn metadata(&self) -> Metadata {
        let mut metadata = Metadata::new();
        let arch = self.name;
        let count = |n: u64| Value::U32(u32::try_from(n).expect("config.json is read with limits"));
        let mut set = |key: &str, value| metadata.set(&format!("{arch}.{key}"), value);
        set("block_count", count(self.layers));
        set("context_length", count(self.context));
        set("embedding_length", count(self.hidden));
        set("feed_forward_length", count(self.intermediate));
        set("attention.head_count", count(self.heads));
        set("attention.head_count_kv", count(self.kv_heads));
        set("rope.freq_base", Value::F32(self.theta as f32));
        set("attention.layer_norm_rms_epsilon", Value::F32(self.epsilon as f32));
        if self.head_given || self.arch.writes_head_length {
            set("attention.key_length", count(self.head));
            set("attention.value_length", count(self.head));
        }
        if self.arch.writes_vocab_size {
            set("vocab_size", count(self.vocab));
            set("rope.dimension_count", count(self.head));
        }
        if !self.causal {
            metadata.set(&format!("{arch}.attention.causal"), Value::Bool(false));
        }
        self.scaling.metadata(arch, &mut metadata);
        metadata
    }

    /// Reads a GGUF's metadata. `vocab` is the number of rows of the token embedding, `tied` whether embeddings are
    /// tied (there is no `output.weight`), `freqs` the contents of `rope_freqs.weight`.
    ///
    /// # Errors
    /// [`ConfigError::UnknownArchitecture`]; [`ConfigError::Invalid`] for missing or invalid keys.
    pub fn from_gguf(
        metadata: &Metadata,
        vocab: u64,
        tied: bool,
        freqs: Option<&[f32]>,
    ) -> Result<Self, ConfigError> {
        let name = metadata.read_text("general.architecture")?.ok_or("has no general.architecture")?;
        let arch = by_name(name).ok_or_else(|| {
            let known: Vec<_> = super::ARCHS.iter().map(|a| a.name).collect();
            ConfigError::UnknownArchitecture { name: name.into(), known: known.join(", ") }
        })?;
        let name = arch.named(name);
        let class = &arch.classes[0];
        let key = |key: &str| format!("{name}.{key}");
        let positive = format!("a positive integer of at most {MOST}");
        let optional =
            |k: &str| metadata.read(&key(k), &positive, |v| v.as_u64().filter(|n| (1..=MOST).contains(n)));
        let count = |k: &str| optional(k)?.ok_or_else(|| ConfigError::Invalid(format!("has no {}", key(k))));
        let float = |k: &str| Ok::<_, ConfigError>(metadata.read_positive(&key(k))?.map(shortest));
        let (layers, hidden) = (count("block_count")?, count("embedding_length")?);
        // One number for all layers, or a list with as many as there are layers.
        let of_layers = |k: &str| -> Result<Option<u64>, ConfigError> {
            let Some((array, value)) = metadata.get(&key(k)).and_then(|v| Some((v.as_array()?, v))) else {
                return Ok(optional(k)?);
            };
            let in_range = |n: Option<u64>| n.filter(|n| (1..=MOST).contains(n));
            if array.values().any(|v| in_range(v.as_u64()).is_none()) {
                return Ok(optional(k)?);
            }
            let key = key(k);
            if array.len() as u64 != layers {
                let found = value.describe();
                let why =
                    format!("must be an integer, or a list of {layers}, one for each layer (found {found})");
                return Err(format!("metadata key {key} {why}").into());
            }
            match value.as_common_u64() {
                None => {
                    Err(format!("metadata key {key} differs between layers, which is not supported").into())
                }
                one => Ok(one),
            }
        };
        let count_of_layers =
            |k: &str| of_layers(k)?.ok_or_else(|| ConfigError::Invalid(format!("has no {}", key(k))));
        let heads = count_of_layers("attention.head_count")?;
        let head_given = optional("attention.key_length")?;
        let head = head_given.unwrap_or(hidden / heads);
        let rotary = optional("rope.dimension_count")?;
        if optional("attention.value_length")?.is_some_and(|n| n != head) || rotary.is_some_and(|n| n != head)
        {
            let why = "attention.key_length, attention.value_length and rope.dimension_count must be equal";
            return Err(why.into());
        }
        if layers > MOST_LAYERS || head == 0 || !head.is_multiple_of(2) || head > MOST_HEAD.min(MOST / heads)
        {
            return Err(format!(
                "expected at most {MOST_LAYERS} layers and an even head length of at most {MOST_HEAD} (found {layers} \
                 layers, {heads} attention heads of {head})"
            )
            .into());
        }
        // Some converters write a zero for models without experts.
        if metadata.read_count(&key("expert_count"))?.is_some_and(|n| n > 0) {
            return Err("mixtures of experts (expert_count) are not supported".into());
        }
        let theta = float("rope.freq_base")?.unwrap_or(10000.0);
        let context = optional("context_length")?.unwrap_or(class.context);
        Ok(Self {
            arch,
            name,
            class,
            layers,
            hidden,
            intermediate: count_of_layers("feed_forward_length")?,
            heads,
            kv_heads: of_layers("attention.head_count_kv")?.unwrap_or(heads),
            head,
            head_given: head_given.is_some(),
            vocab,
            context,
            epsilon: float("attention.layer_norm_rms_epsilon")?
                .ok_or_else(|| format!("has no {name}.attention.layer_norm_rms_epsilon"))?,
            theta,
            scaling: Scaling::from_gguf(metadata, name, theta, context, freqs)?,
            tied,
            causal: metadata
                .read(&key("attention.causal"), "true or false", |v| match v {
                    Value::Bool(causal) => Some(*causal),
                    _ => None,
                })?
                .unwrap_or(true),
            base: false,
            notes: Vec::new(),
        })
    }

    /// config.json in both dialects: old readers find "rope_theta", "rope_scaling" and "torch_dtype", new ones
    /// "rope_parameters" and "dtype".
    pub fn to_hub(&self, dtype: &str, bos: Option<u64>, eos: Option<u64>) -> Json {
        let mut rope = self.scaling.to_hub();
        rope["rope_theta"] = json!(self.theta);
        let mut map = Map::new();
        let mut set = |key: &str, value: Json| map.insert(key.into(), value);
        set("architectures", json!([self.class.name]));
        set("model_type", json!(self.class.model_type));
        set("hidden_size", json!(self.hidden));
        set("intermediate_size", json!(self.intermediate));
        set("num_hidden_layers", json!(self.layers));
        set("num_attention_heads", json!(self.heads));
        set("num_key_value_heads", json!(self.kv_heads));
        if self.head_given || self.arch.writes_head_length || self.head * self.heads != self.hidden {
            set("head_dim", json!(self.head));
        }
        set("vocab_size", json!(self.vocab));
        set("max_position_embeddings", json!(self.context));
        set("hidden_act", json!(self.arch.activation[0]));
        set("rms_norm_eps", json!(self.epsilon));
        set("rope_theta", json!(self.theta));
        set("rope_scaling", if self.scaling == Scaling::None { Json::Null } else { self.scaling.to_hub() });
        set("rope_parameters", rope);
        set("tie_word_embeddings", json!(self.tied));
        if !self.causal {
            set("is_causal", json!(false));
        }
        set("bos_token_id", json!(bos));
        set("eos_token_id", json!(eos));
        set("torch_dtype", json!(dtype));
        set("dtype", json!(dtype));
        Json::Object(map)
    }
}

/// The keys of the context length, the first one that is there counts: transformers' own, then those of older writers.
const CONTEXT: [&str; 4] = ["max_position_embeddings", "max_sequence_length", "n_ctx", "n_positions"];

#[cfg(test)]
mod tests;
