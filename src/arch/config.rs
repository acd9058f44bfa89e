//! A model's settings: from config.json in either of its dialects, from a GGUF's metadata, and to both.

use formats::metadata::{Metadata, Value};
use serde_json::{Map, Value as Json, json};

use super::rope::{Scaling, shortest};
use super::{Arch, Class, Dim, by_class, by_name, class_names};

/// The settings that the architectures share. Lengths are in elements, contexts in tokens.
#[derive(Debug, Clone)]
pub struct Config {
    /// The architecture.
    pub arch: &'static Arch,
    /// The class that config.json names.
    pub class: &'static Class,
    /// Number of layers.
    pub layers: u64,
    /// Length of a token's vector.
    pub hidden: u64,
    /// Length of the feed-forward layer's vector.
    pub intermediate: u64,
    /// Query heads.
    pub heads: u64,
    /// Key and value heads; divides `heads`.
    pub kv_heads: u64,
    /// Length of a head.
    pub head: u64,
    /// Whether the size of a head was given, rather than computed.
    pub head_given: bool,
    /// Rows of the embedding.
    pub vocab: u64,
    /// The longest context.
    pub context: u64,
    /// Epsilon of the norms.
    pub epsilon: f64,
    /// Base of the rotary frequencies.
    pub theta: f64,
    /// Rotary scaling.
    pub scaling: Scaling,
    /// Whether the embedding serves as output.
    pub tied: bool,
    /// What runtimes will not compute as trained, in words.
    pub notes: Vec<String>,
}

/// More than any model has, and few enough that a list of its tensors fits into memory.
const MOST_LAYERS: u64 = 4096;
/// Longer than any head, and short enough for a table of its frequencies.
const MOST_HEAD: u64 = 1 << 16;
/// More elements than any tensor's dimension.
const MOST: u64 = 1 << 31;

impl Config {
    /// Reads config.json.
    ///
    /// # Errors
    /// What is wrong with it, in words: no architecture or an unknown one, missing or impossible numbers, and settings
    /// that the runtimes would not compute.
    pub fn from_hub(json: &Json) -> Result<Self, String> {
        let name = json["architectures"].get(0).and_then(Json::as_str);
        let name = name.ok_or("names no architecture (\"architectures\")")?;
        let (arch, class) = by_class(name)
            .ok_or_else(|| format!("the architecture {name} is not known; known are {}", class_names()))?;
        let read = Reader(json);
        let (layers, hidden) = (read.count("num_hidden_layers")?, read.count("hidden_size")?);
        let heads = read.count("num_attention_heads")?;
        let kv_heads = read.optional("num_key_value_heads")?.or(class.kv_heads).unwrap_or(heads);
        let head_given = read.optional("head_dim")?;
        let head = match head_given.or(class.head) {
            Some(head) => head,
            None if hidden.is_multiple_of(heads) => hidden / heads,
            None => return Err(format!("{heads} heads do not divide a hidden size of {hidden}")),
        };
        if layers > MOST_LAYERS {
            return Err(format!("num_hidden_layers is {layers}, more than {MOST_LAYERS}"));
        }
        if !heads.is_multiple_of(kv_heads) {
            return Err(format!("{kv_heads} key/value heads do not divide {heads} heads"));
        }
        if !head.is_multiple_of(2) || head > MOST_HEAD || head > MOST / heads {
            return Err(format!("{heads} heads of {head} cannot be"));
        }
        let context = read.optional("max_position_embeddings")?.unwrap_or(class.context);
        // Two dialects: "rope_theta" and "rope_scaling" at the top, or both in "rope_parameters".
        // Where somebody has put the first into a file of the second, transformers takes the first.
        let null = Json::Null;
        let mut rope = &null;
        let mut theta = read.float("rope_theta")?;
        for key in ["rope_parameters", "rope_scaling"] {
            match &json[key] {
                Json::Null => {}
                Json::Object(map) if map.values().any(Json::is_object) => {
                    return Err(format!(
                        "{key} differs from layer to layer, which runtimes do not compute for {}",
                        arch.name
                    ));
                }
                Json::Object(map) if map.is_empty() => {}
                found @ Json::Object(_) => {
                    rope = found;
                    theta = Reader(rope).float("rope_theta")?.or(theta);
                }
                other => return Err(format!("{key} is {other}, which is no rotary scaling that can be")),
            }
        }
        let theta = theta.unwrap_or(class.theta);
        let mut notes = Vec::new();
        let dynamic = rope["rope_type"] == "dynamic" || rope["type"] == "dynamic";
        let scaling = if dynamic {
            notes.push(
                "dynamic rope scaling is left out: no runtime of GGUF computes it for this architecture"
                    .into(),
            );
            Scaling::None
        } else {
            Scaling::from_hub(rope, context)?
        };
        if let Some(act) = json["hidden_act"].as_str()
            && !arch.activation.contains(&act)
        {
            return Err(format!(
                "hidden_act is {act:?}, and runtimes compute {:?} for {}",
                arch.activation[0], arch.name
            ));
        }
        if let Some(part) =
            Reader(rope).float("partial_rotary_factor")?.or(read.float("partial_rotary_factor")?)
            && part != 1.0
        {
            return Err(format!(
                "partial_rotary_factor is {part}, which runtimes do not compute for {}",
                arch.name
            ));
        }
        let window = match json.get("use_sliding_window").and_then(Json::as_bool) {
            Some(false) => None,
            Some(true) => read.optional("sliding_window")?,
            None if class.sliding_window => read.optional("sliding_window")?,
            None => None,
        };
        if let Some(window) = window.filter(|&w| w < context) {
            notes.push(format!(
                "the model attends to the last {window} tokens only; runtimes of GGUF attend to all for {}",
                arch.name
            ));
        }
        Ok(Self {
            arch,
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
            tied: json["tie_word_embeddings"].as_bool().unwrap_or(false),
            notes,
        })
    }

    /// The length of a dimension.
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

    /// GGUF's keys, behind `general.architecture`: counts as u32, the rest as f32.
    pub fn metadata(&self) -> Metadata {
        let mut metadata = Metadata::new();
        let arch = self.arch.name;
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
        if self.head_given || self.arch.names_head {
            set("attention.key_length", count(self.head));
            set("attention.value_length", count(self.head));
        }
        if self.arch.names_sizes {
            set("vocab_size", count(self.vocab));
            set("rope.dimension_count", count(self.head));
        }
        self.scaling.metadata(arch, &mut metadata);
        metadata
    }

    /// Reads a GGUF's metadata. `vocab` is the embedding's number of rows, `tied` whether there is no output matrix,
    /// `freqs` the contents of `rope_freqs.weight`.
    ///
    /// # Errors
    /// What is missing, in words, or that no architecture here has that name.
    pub fn from_gguf(
        metadata: &Metadata,
        vocab: u64,
        tied: bool,
        freqs: Option<&[f32]>,
    ) -> Result<Self, String> {
        let name = metadata.text("general.architecture").ok_or("no general.architecture")?;
        let arch = by_name(name).ok_or_else(|| {
            let known: Vec<_> = super::ARCHS.iter().map(|a| a.name).collect();
            format!(
                "no Hugging Face names are known for the architecture {name:?}; known are {}",
                known.join(", ")
            )
        })?;
        let class = &arch.classes[0];
        let get = |key: &str| metadata.get(&format!("{name}.{key}"));
        let optional = |key: &str| match get(key) {
            None => Ok(None),
            Some(v) => match v.as_u64() {
                Some(n @ 1..=MOST) => Ok(Some(n)),
                _ => Err(format!("{name}.{key} is no count that can be")),
            },
        };
        let count = |key: &str| optional(key)?.ok_or_else(|| format!("no {name}.{key}"));
        let float = |key: &str| get(key).and_then(Value::as_f64).map(shortest);
        let (layers, hidden, heads) =
            (count("block_count")?, count("embedding_length")?, count("attention.head_count")?);
        let head_given = optional("attention.key_length")?;
        let head = head_given.unwrap_or(hidden / heads);
        let rotary = optional("rope.dimension_count")?;
        if optional("attention.value_length")?.is_some_and(|n| n != head) || rotary.is_some_and(|n| n != head)
        {
            return Err("keys, values and rotary dimensions of different lengths".into());
        }
        if layers > MOST_LAYERS || head == 0 || !head.is_multiple_of(2) || head > MOST_HEAD.min(MOST / heads)
        {
            return Err(format!("{layers} layers with {heads} heads of {head} cannot be"));
        }
        // Some converters write a zero for models without experts.
        if get("expert_count").is_some_and(|v| v.as_u64() != Some(0)) {
            return Err("a mixture of experts, whose Hugging Face names are not known".into());
        }
        let theta = float("rope.freq_base").unwrap_or(10000.0);
        Ok(Self {
            arch,
            class,
            layers,
            hidden,
            intermediate: count("feed_forward_length")?,
            heads,
            kv_heads: optional("attention.head_count_kv")?.unwrap_or(heads),
            head,
            head_given: head_given.is_some(),
            vocab,
            context: optional("context_length")?.unwrap_or(class.context),
            epsilon: float("attention.layer_norm_rms_epsilon")
                .ok_or_else(|| format!("no {name}.attention.layer_norm_rms_epsilon"))?,
            theta,
            scaling: Scaling::from_gguf(metadata, name, theta, freqs)?,
            tied,
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
        if self.head_given || self.arch.names_head || self.head * self.heads != self.hidden {
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
        set("bos_token_id", json!(bos));
        set("eos_token_id", json!(eos));
        set("torch_dtype", json!(dtype));
        set("dtype", json!(dtype));
        Json::Object(map)
    }
}

/// Numbers of config.json.
struct Reader<'a>(&'a Json);

impl Reader<'_> {
    /// A count that may be missing or null.
    fn optional(&self, key: &str) -> Result<Option<u64>, String> {
        match self.0.get(key) {
            None | Some(Json::Null) => Ok(None),
            Some(v) => match v.as_u64() {
                Some(n @ 1..=MOST) => Ok(Some(n)),
                _ => Err(format!("{key} is {v}, which is no count that can be")),
            },
        }
    }

    fn count(&self, key: &str) -> Result<u64, String> {
        self.optional(key)?.ok_or_else(|| format!("has no {key}"))
    }

    /// A positive number that may be missing or null.
    fn float(&self, key: &str) -> Result<Option<f64>, String> {
        match self.0.get(key) {
            None | Some(Json::Null) => Ok(None),
            Some(v) => match v.as_f64().filter(|&x| x > 0.0 && (x as f32).is_finite() && x as f32 > 0.0) {
                Some(x) => Ok(Some(x)),
                None => Err(format!("{key} is {v}, which is no number that can be")),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn llama() -> Json {
        json!({
            "architectures": ["LlamaForCausalLM"], "hidden_size": 256, "intermediate_size": 768,
            "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 512,
            "hidden_act": "silu", "rms_norm_eps": 1e-5,
        })
    }

    #[test]
    fn both_dialects_mean_the_same() {
        let mut old = llama();
        old["rope_theta"] = json!(500000.0);
        old["rope_scaling"] = json!({"type": "linear", "factor": 2.0});
        let mut new = llama();
        new["rope_parameters"] = json!({"rope_theta": 500000.0, "rope_type": "linear", "factor": 2.0});
        let (old, new) = (Config::from_hub(&old).unwrap(), Config::from_hub(&new).unwrap());
        assert_eq!(old.metadata(), new.metadata());
        assert_eq!(old.metadata().get("llama.rope.freq_base"), Some(&Value::F32(500000.0)));
        assert_eq!(old.metadata().get("llama.attention.key_length"), Some(&Value::U32(32)));
        assert_eq!(old.context, 2048, "what the class has where config.json is silent");
    }

    #[test]
    fn a_scaling_that_was_added_counts() {
        // As a model card says how to stretch the model, in a file that transformers 5 wrote.
        let mut json = llama();
        json["rope_parameters"] = json!({"rope_theta": 500000.0, "rope_type": "default"});
        json["rope_scaling"] = json!({"type": "linear", "factor": 2.0});
        let config = Config::from_hub(&json).unwrap();
        assert_eq!((config.theta, config.scaling), (500000.0, Scaling::Linear { factor: 2.0 }));
        json["rope_scaling"] = json!({});
        assert_eq!(Config::from_hub(&json).unwrap().scaling, Scaling::None);
    }

    #[test]
    fn there_and_back() {
        let config = Config::from_hub(&llama()).unwrap();
        let mut metadata = config.metadata();
        metadata.set("general.architecture", Value::text("llama"));
        let back = Config::from_gguf(&metadata, 512, false, None).unwrap();
        assert_eq!(back.metadata(), config.metadata());
        let again = Config::from_hub(&back.to_hub("bfloat16", Some(1), None)).unwrap();
        assert_eq!(again.metadata(), config.metadata());
        assert_eq!(again.epsilon, 1e-5);
    }

    #[test]
    fn odd_values_are_errors_or_settings() {
        let odd = [
            json!(null),
            json!(0),
            json!(-1),
            json!(3),
            json!(u64::MAX),
            json!(1e300),
            json!(1e-300),
            json!("x"),
            json!([]),
            json!({}),
            json!(true),
            json!([null]),
            json!({"rope_type": "llama3", "factor": -1}),
        ];
        let mut keys: Vec<String> = llama().as_object().unwrap().keys().cloned().collect();
        keys.extend(
            ["head_dim", "rope_theta", "rope_scaling", "rope_parameters", "sliding_window"].map(String::from),
        );
        for key in keys {
            for value in &odd {
                let mut json = llama();
                json[&key] = value.clone();
                if let Ok(config) = Config::from_hub(&json) {
                    config.metadata();
                    config.scaling.freqs(config.theta, config.head as usize);
                    for e in config.arch.expected(&config) {
                        assert!(formats::model::elements(&e.shape).is_some(), "{key}: {value}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_is_said() {
        let with = |key: &str, value: Json| {
            let mut json = llama();
            json[key] = value;
            Config::from_hub(&json).unwrap_err()
        };
        assert!(with("architectures", json!([])).contains("names no architecture"));
        assert!(with("architectures", json!(["FooForCausalLM"])).contains("known are LlamaForCausalLM"));
        assert!(with("num_hidden_layers", json!(-1)).contains("num_hidden_layers"));
        assert!(with("num_hidden_layers", json!(4_000_000_000u64)).contains("num_hidden_layers"));
        assert!(with("num_attention_heads", json!(7)).contains("do not divide"));
        assert!(with("num_key_value_heads", json!(3)).contains("do not divide"));
        assert!(with("hidden_act", json!("gelu")).contains("silu"));
        assert!(with("vocab_size", Json::Null).contains("has no vocab_size"));
        assert!(with("rope_scaling", json!({"type": "longrope"})).contains("longrope"));
        assert!(with("rope_theta", json!("much")).contains("rope_theta"));
        assert!(with("rope_scaling", json!("linear")).contains("rope_scaling"));
        let layers = json!({"full_attention": {"rope_type": "linear", "factor": 2.0}});
        assert!(with("rope_parameters", layers).contains("layer to layer"));
        let part = json!({"rope_type": "default", "partial_rotary_factor": 0.5});
        assert!(with("rope_parameters", part).contains("partial_rotary_factor"));
        for json in [json!(null), json!([]), json!({"architectures": "x"}), json!(7)] {
            assert!(Config::from_hub(&json).is_err());
        }
    }
}
