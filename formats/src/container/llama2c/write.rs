//! The writer of checkpoints: what the format cannot say is refused, since every reader of it has the rest
//! hard-coded and would go wrong without a word.

use std::collections::HashMap;

use super::config::{Config, FIELDS, LAYER, Storage};
use super::read::PLAUSIBLE;
use super::{EPSILON, FORMAT, FREQ_BASE, KNOWN, MAGIC};
use crate::container::{Layout, OutFile};
use crate::error::{Error, Fault, Result};
use crate::metadata::{Metadata, Value};
use crate::model::{ByteOrder, Encoding, Tensor};

/// What a checkpoint's writer is free to choose.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// 0 for `run.c` and its ports, 2 for `runq.c`; 1 has no known reader of its own.
    pub version: u32,
    /// The order of every number in the file: that of the machine that will run it.
    pub order: ByteOrder,
    /// Version 2 with an eighth number in its header, the length of a head: what the fork for Windows 95 and old Macs
    /// reads, and nothing else. Source: `run-smol.c` of Daviljoe193/smollerlm-for-windows95.
    pub fork: bool,
}

impl Options {
    /// A version of llama2.c's own.
    pub fn new(version: u32, order: ByteOrder) -> Self {
        Self { version, order, fork: false }
    }
}

/// The most that is made of rotary tables: a million positions of heads of 128.
const MAX_TABLES: u64 = 512 << 20;

type Checked<T> = std::result::Result<T, Fault>;

/// Lays out a checkpoint. Tensors have GGUF's names and come in any order; versions 0 and 1 take f32 only,
/// version 2 int8 groups of one size for matrices and f32 for norms. `name` is the target's, for messages.
///
/// Version 2 takes any group size that divides each tensor, so that files of others can be copied; see
/// [`super::group_size`] for one that works.
///
/// # Errors
/// [`Fault::Unsupported`] for everything that llama2.c's readers would get wrong.
pub fn layout(name: &str, metadata: &Metadata, tensors: &[Tensor], options: Options) -> Result<Layout> {
    lay_out(metadata, tensors, options).map_err(|fault| Error::of(name, fault))
}

fn lay_out(metadata: &Metadata, tensors: &[Tensor], options: Options) -> Checked<Layout> {
    let Options { version, order, fork } = options;
    if version > 2 || fork && version != 2 {
        return Err(Fault::Version { format: FORMAT, found: version, known: KNOWN });
    }
    check_arithmetic(metadata)?;
    let by_name = index(tensors)?;
    let config = config(metadata, tensors, &by_name, options)?;
    check_heads(metadata, config)?;
    if let Some(t) = tensors.iter().find(|t| !has_place(&t.name, config.layers)) {
        return Err(no_place(&t.name));
    }
    let group = tensors.iter().find_map(|t| match t.encoding {
        Encoding::Int8Groups { size } => Some((size, t.name.as_str())),
        Encoding::Blocks(_) | Encoding::I2S => None,
    });
    let storage = Storage { version, group: group.map_or(1, |g| g.0), fork };
    if version == 2 && (storage.group == 0 || storage.group > i32::MAX as u32) {
        return Err(Fault::Unsupported(format!("a group size of {} cannot be written", storage.group)));
    }
    if let Some((kind, n)) = config.ungrouped(storage.group).filter(|_| version == 2) {
        let why = format!("groups of {} do not divide the {n} weights of {kind}", storage.group);
        return Err(Fault::Unsupported(why));
    }
    let len = u64::try_from(config.len(storage)).ok().filter(|&len| len < 1 << 63);
    let len = len.ok_or_else(|| Fault::Unsupported("the file would have 2^63 bytes or more".into()))?;

    let mut placed = tensors.to_vec();
    for wanted in config.tensors(storage) {
        let i = *by_name.get(wanted.name.as_str()).ok_or_else(|| {
            Fault::Unsupported(format!("the model has no tensor {}, which llama2.c needs", wanted.name))
        })?;
        let t = &mut placed[i];
        if t.shape != wanted.shape {
            let why = format!("the model's sizes, and llama2.c, ask for {:?}", wanted.shape);
            return Err(Fault::Shape { tensor: wanted.name, shape: t.shape.clone(), why });
        }
        if t.encoding != wanted.encoding {
            return Err(wrong_encoding(t, version, group));
        }
        t.location = wanted.location;
    }
    let mut fixed = vec![(0, header(config, storage, order))];
    if version == 0 {
        fixed.push((config.tables_at(), tables(config, order)?));
    }
    Ok(Layout { files: vec![OutFile { len, fixed }], tensors: placed })
}

/// Tensors by name.
fn index(tensors: &[Tensor]) -> Checked<HashMap<&str, usize>> {
    let mut by_name = HashMap::with_capacity(tensors.len());
    for (i, t) in tensors.iter().enumerate() {
        if by_name.insert(t.name.as_str(), i).is_some() {
            return Err(Fault::Duplicate { what: "tensor", name: t.name.clone() });
        }
    }
    Ok(by_name)
}

fn missing(key: &str) -> Fault {
    Fault::Metadata { key: key.into(), why: "is missing, and llama2.c cannot do without".into() }
}

/// A number that is one for all layers.
fn number(metadata: &Metadata, key: &str) -> Checked<Option<u64>> {
    match metadata.get(key) {
        None => Ok(None),
        Some(Value::Array(_)) => {
            Err(Fault::Unsupported(format!("{key} differs between layers; llama2.c has one number for all")))
        }
        Some(v) => v.as_u64().map(Some).ok_or_else(|| {
            let why = format!("must be a number that is not negative, is {v:?}");
            Fault::Metadata { key: key.into(), why }
        }),
    }
}

/// That it is a Llama.
pub(super) fn check_architecture(metadata: &Metadata) -> Checked<()> {
    let architecture = metadata.get("general.architecture").ok_or_else(|| missing("general.architecture"))?;
    if architecture.as_str() != Some("llama") {
        let name = architecture.as_str().unwrap_or("not text");
        let why = format!("the architecture is {name:?}; llama2.c runs only \"llama\". Write a GGUF instead");
        return Err(Fault::Unsupported(why));
    }
    Ok(())
}

/// What `run.c` has hard-coded besides the sizes.
fn check_arithmetic(metadata: &Metadata) -> Checked<()> {
    check_architecture(metadata)?;
    let float = |key: &str| match metadata.get(key) {
        None => Ok(None),
        Some(v) => match v.as_f64() {
            Some(v) => Ok(Some((v, v as f32))),
            None => Err(Fault::Metadata { key: key.into(), why: format!("must be a float, is {v:?}") }),
        },
    };
    let close = |a: f32, b: f32| (a - b).abs() <= b * 2.0 * f32::EPSILON;
    let key = "llama.attention.layer_norm_rms_epsilon";
    let (shown, epsilon) = float(key)?.ok_or_else(|| missing(key))?;
    if !close(epsilon, EPSILON) {
        let why = format!("{key} is {shown}; llama2.c has 1e-5 built in. Write a GGUF instead");
        return Err(Fault::Unsupported(why));
    }
    let key = "llama.rope.freq_base";
    if let Some((shown, _)) = float(key)?.filter(|&(_, base)| !close(base, FREQ_BASE)) {
        let why = format!("{key} is {shown}; llama2.c has 10000 built in. Write a GGUF instead");
        return Err(Fault::Unsupported(why));
    }
    // Without a type, llama.cpp takes the factor for a linear one; factors of 0 and 1 are none.
    let kind = metadata.get("llama.rope.scaling.type").map(|v| v.as_str().unwrap_or("not text"));
    let scales = |key| Ok(float(key)?.is_some_and(|(_, f)| f != 0.0 && f != 1.0));
    let scaled = match kind {
        Some("none") => false,
        Some(kind) if kind != "linear" => true,
        _ => scales("llama.rope.scaling.factor")? || scales("llama.rope.scale_linear")?,
    };
    if scaled {
        let kind = kind.unwrap_or("linear");
        let why =
            format!("the rotary embedding is scaled ({kind}), which llama2.c cannot. Write a GGUF instead");
        return Err(Fault::Unsupported(why));
    }
    if number(metadata, "llama.expert_count")?.is_some_and(|n| n > 0) {
        let why = "the model has experts, which llama2.c does not know. Write a GGUF instead";
        return Err(Fault::Unsupported(why.into()));
    }
    Ok(())
}

/// The header's numbers, from metadata and the tensors that are there.
fn config(
    metadata: &Metadata,
    tensors: &[Tensor],
    by_name: &HashMap<&str, usize>,
    options: Options,
) -> Checked<Config> {
    let version = options.version;
    let need = |key: &str| number(metadata, key)?.ok_or_else(|| missing(key));
    let heads = need("llama.attention.head_count")?;
    let embedding = by_name.get("token_embd.weight").map(|&i| &tensors[i]).ok_or_else(|| {
        Fault::Unsupported("the model has no tensor token_embd.weight, which llama2.c needs".into())
    })?;
    let vocab = embedding.shape.first().copied().unwrap_or(0);
    if let Some(declared) = number(metadata, "llama.vocab_size")?.filter(|&n| n != vocab) {
        let why = format!("is {declared}, but token_embd.weight has {vocab} rows");
        return Err(Fault::Metadata { key: "llama.vocab_size".into(), why });
    }
    let dim = need("llama.embedding_length")?;
    let head = match options.fork {
        true => number(metadata, "llama.attention.key_length")?,
        false => None,
    };
    let config = Config {
        dim,
        head: head.unwrap_or(dim / heads.max(1)),
        hidden: need("llama.feed_forward_length")?,
        layers: need("llama.block_count")?,
        heads,
        kv_heads: number(metadata, "llama.attention.head_count_kv")?.unwrap_or(heads),
        vocab,
        seq: need("llama.context_length")?,
        shared: !by_name.contains_key("output.weight"),
    };
    // A larger number would be a fine i32 in version 0, but nobody could tell the file's byte order.
    let limit = if version == 0 { PLAUSIBLE } else { 1 << 31 };
    for (n, field) in config.numbers().into_iter().zip(FIELDS) {
        if !(1..limit).contains(&n) {
            let why = format!("{field} is {n}; llama2.c v{version} takes 1 to {}", limit - 1);
            return Err(Fault::Unsupported(why));
        }
    }
    if !(1..1 << 31).contains(&config.head) {
        return Err(Fault::Unsupported(format!("heads of {} elements are not for llama2.c", config.head)));
    }
    match config.fault(options.fork) {
        Some((_, why)) => Err(Fault::Unsupported(format!("{why}, as llama2.c needs it"))),
        None => Ok(config),
    }
}

/// llama2.c's heads are dim / n_heads long (in the fork, as long as its header says), and rotated as a whole.
fn check_heads(metadata: &Metadata, config: Config) -> Checked<()> {
    for key in ["llama.attention.key_length", "llama.attention.value_length", "llama.rope.dimension_count"] {
        if let Some(n) = number(metadata, key)?.filter(|&n| n != config.head) {
            let head = config.head;
            let why = format!("{key} is {n}; llama2.c has dim / n_heads = {head}. Write a GGUF instead");
            return Err(Fault::Unsupported(why));
        }
    }
    Ok(())
}

/// Whether a tensor of this name is in a checkpoint of so many layers.
fn has_place(name: &str, layers: u64) -> bool {
    let Some(stem) = name.strip_suffix(".weight") else { return false };
    if ["token_embd", "output_norm", "output"].contains(&stem) {
        return true;
    }
    let Some((layer, kind)) = stem.strip_prefix("blk.").and_then(|s| s.split_once('.')) else { return false };
    let number = layer.parse::<u64>().ok().filter(|&i| i < layers && i.to_string() == layer);
    number.is_some() && LAYER.contains(&kind)
}

fn no_place(name: &str) -> Fault {
    let has = |part: &str| name.contains(part);
    let why = if name.ends_with(".bias") {
        "it knows no biases"
    } else if has("rope_freqs") {
        "it knows no scaling of the rotary embedding"
    } else if has("attn_q_norm") || has("attn_k_norm") {
        "it knows no norms of queries and keys"
    } else if has("_exps") || has("_shexp") || has("ffn_gate_inp") {
        "it knows no experts"
    } else if has("attn_qkv") {
        "it has queries, keys and values apart; split the tensor first"
    } else {
        "it has just the tensors of a plain llama, of as many layers as the metadata say"
    };
    Fault::Unsupported(format!("llama2.c has no place for tensor {name}: {why}. Write a GGUF instead"))
}

fn wrong_encoding(t: &Tensor, version: u32, group: Option<(u32, &str)>) -> Fault {
    let (name, is) = (&t.name, t.encoding.name());
    Fault::Unsupported(match (version, t.shape.len(), t.encoding, group) {
        (2, 2, Encoding::Int8Groups { .. }, Some((size, first))) => {
            format!("tensor {name} is {is}, but {first} is int8/{size}; llama2.c v2 has one group size")
        }
        (2, 2, ..) => format!("tensor {name} is {is}; llama2.c v2 holds matrices as int8 groups only"),
        (2, ..) => format!("tensor {name} is {is}; llama2.c v2 holds norms as f32 only"),
        _ => format!("tensor {name} is {is}; llama2.c v{version} holds f32 only (version 2 holds int8)"),
    })
}

/// A number in the file's order.
fn put<const N: usize>(out: &mut Vec<u8>, order: ByteOrder, le: [u8; N]) {
    out.extend(order.le(le));
}

/// The header without its padding.
fn header(config: Config, storage: Storage, order: ByteOrder) -> Vec<u8> {
    let mut out = Vec::new();
    let Storage { version, group, fork } = storage;
    if version > 0 {
        put(&mut out, order, MAGIC.to_le_bytes());
        put(&mut out, order, version.to_le_bytes());
    }
    for (number, field) in config.numbers().into_iter().zip(FIELDS) {
        let number = number as i32; // `config` has checked the range
        let unshared = version == 0 && field == "vocab_size" && !config.shared;
        put(&mut out, order, if unshared { -number } else { number }.to_le_bytes());
    }
    if fork {
        put(&mut out, order, (config.head as i32).to_le_bytes());
    }
    if version > 0 {
        out.push(u8::from(config.shared));
    }
    if version == 2 {
        put(&mut out, order, group.to_le_bytes());
    }
    out
}

/// Version 0's cosines and sines, each [position][pair]: `precompute_freqs_cis` of `model.py`. Its readers skip
/// them. Functions are taken in double precision and rounded, and are the same code on every
/// machine, whatever its library's are like in the last place.
fn tables(config: Config, order: ByteOrder) -> Checked<Vec<u8>> {
    let (seq, head) = (config.seq, config.head);
    let bytes = u128::from(seq) * u128::from(head) * 4;
    if bytes > u128::from(MAX_TABLES) {
        let why = format!(
            "version 0 holds tables for every position, {bytes} bytes for a context of {seq}; \
             at most {MAX_TABLES} are written. Lower llama.context_length"
        );
        return Err(Fault::Unsupported(why));
    }
    let power = |i: u64| libm::pow(f64::from(FREQ_BASE), f64::from((2 * i) as f32 / head as f32));
    let frequencies: Vec<f32> = (0..head / 2).map(|i| 1.0 / power(i) as f32).collect();
    let mut out = Vec::with_capacity(bytes as usize);
    for function in [libm::cos, libm::sin] {
        for position in 0..seq {
            for f in &frequencies {
                let angle = position as f32 * f;
                put(&mut out, order, (function(f64::from(angle)) as f32).to_le_bytes());
            }
        }
    }
    Ok(out)
}
