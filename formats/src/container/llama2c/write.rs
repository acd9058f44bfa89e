//! The writer of checkpoints. A model that the format cannot describe is refused: its readers have everything else
//! hard-coded, and would silently compute something wrong.

use std::collections::HashMap;

use super::config::{Config, FIELDS, LAYER, Storage};
use super::read::PLAUSIBLE;
use super::{EPSILON, FORMAT, FREQ_BASE, KNOWN, MAGIC};
use crate::container::{Layout, OutFile};
use crate::error::{Error, Fault, Result};
use crate::metadata::{Metadata, Value};
use crate::model::{ByteOrder, Encoding, Tensor};

/// What the caller of [`layout`] chooses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// 0 for `run.c` and its ports, 2 for `runq.c`; 1 has no known reader of its own.
    pub version: u32,
    /// The byte order of every number in the file: that of the machine that will run it.
    pub order: ByteOrder,
    /// Version 2 with an eighth number in its header, the head size, which only the fork for Windows 95 and old Macs reads.
    /// Source: `run-smol.c` of Daviljoe193/smollerlm-for-windows95.
    pub fork: bool,
}

impl Options {
    /// A version of llama2.c itself, not of the fork.
    pub fn new(version: u32, order: ByteOrder) -> Self {
        Self { version, order, fork: false }
    }
}

/// The most bytes of rotary tables that are written: those of a million positions with a head size of 128.
const MAX_TABLES: u64 = 512 << 20;

type Checked<T> = std::result::Result<T, Fault>;

/// Lays out a checkpoint. Tensors have the names of GGUF and are given in any order. Versions 0 and 1 hold f32 only, version
/// 2 int8 groups of one size for matrices and f32 for norms. `name` is the target's, for errors.
///
/// Version 2 accepts any group size that divides each tensor, so that the files of other programs can be copied;
/// [`super::group_size`] gives one that `runq.c` reads correctly.
///
/// # Errors
/// [`Fault::Unsupported`] for everything that the readers of llama2.c would get wrong, [`Fault::Metadata`] for keys that are
/// missing or contradict the tensors, [`Fault::Shape`], [`Fault::Duplicate`] and [`Fault::Version`].
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
    if let Some(t) = tensors.iter().find(|t| !is_known(&t.name, config.layers)) {
        return Err(unknown_tensor(&t.name));
    }
    let group = tensors.iter().find_map(|t| match t.encoding {
        Encoding::Int8Groups { size } => Some((size, t.name.as_str())),
        Encoding::Blocks(_) | Encoding::I2S | Encoding::Foreign(_) => None,
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
    Fault::Metadata { key: key.into(), why: "is missing, but required by llama2.c".into() }
}

/// A number that must be the same for all layers.
fn number(metadata: &Metadata, key: &str) -> Checked<Option<u64>> {
    match metadata.get(key) {
        None => Ok(None),
        Some(v @ Value::Array(_)) if v.as_common_u64().is_none() => {
            Err(Fault::Unsupported(format!("{key} differs between layers; llama2.c has one number for all")))
        }
        Some(v) => v.as_common_u64().map(Some).ok_or_else(|| {
            let why = format!("must be a non-negative integer (found {v:?})");
            Fault::Metadata { key: key.into(), why }
        }),
    }
}

/// Checks that the architecture is Llama.
pub(super) fn check_architecture(metadata: &Metadata) -> Checked<()> {
    let architecture = metadata.get("general.architecture").ok_or_else(|| missing("general.architecture"))?;
    if architecture.as_str() != Some("llama") {
        let name = architecture.as_str().unwrap_or("not text");
        let why =
            format!("the architecture is {name:?}; llama2.c supports only \"llama\". Write a GGUF instead");
        return Err(Fault::Unsupported(why));
    }
    Ok(())
}

/// Checks what `run.c` has hard-coded besides the sizes.
fn check_arithmetic(metadata: &Metadata) -> Checked<()> {
    check_architecture(metadata)?;
    let float = |key: &str| -> Checked<Option<(f64, f32)>> {
        Ok(metadata.read(key, "a float", Value::as_f64)?.map(|v| (v, v as f32)))
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
    // Without a type, llama.cpp treats the factor as a linear one; factors of 0 and 1 scale nothing.
    let kind = metadata.read_text("llama.rope.scaling.type")?;
    let scales = |key| Ok::<_, Fault>(float(key)?.is_some_and(|(_, f)| f != 0.0 && f != 1.0));
    let scaled = match kind {
        Some("none") => false,
        Some(kind) if kind != "linear" => true,
        _ => scales("llama.rope.scaling.factor")? || scales("llama.rope.scale_linear")?,
    };
    // It multiplies cosines and sines whatever the type.
    let factor = float("llama.rope.scaling.attn_factor")?;
    if scaled || factor.is_some_and(|(_, f)| f != 1.0) {
        let kind = kind.filter(|_| scaled).unwrap_or(if scaled { "linear" } else { "attn_factor" });
        let why = format!(
            "the rotary embedding is scaled ({kind}), which llama2.c does not support. Write a GGUF instead"
        );
        return Err(Fault::Unsupported(why));
    }
    if number(metadata, "llama.expert_count")?.is_some_and(|n| n > 0) {
        let why = "the model has experts, which llama2.c does not support. Write a GGUF instead";
        return Err(Fault::Unsupported(why.into()));
    }
    Ok(())
}

/// The numbers of the header, from the metadata and the tensors.
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
    // In version 0, a larger number would fit an i32, but would not show the byte order of the file.
    let limit = if version == 0 { PLAUSIBLE } else { 1 << 31 };
    for (n, field) in config.numbers().into_iter().zip(FIELDS) {
        if !(1..limit).contains(&n) {
            let why = format!("{field} is {n}; llama2.c v{version} takes 1 to {}", limit - 1);
            return Err(Fault::Unsupported(why));
        }
    }
    if !(1..1 << 31).contains(&config.head) {
        return Err(Fault::Unsupported(format!("llama2.c does not support a head size of {}", config.head)));
    }
    match config.fault(options.fork) {
        Some((_, why)) => Err(Fault::Unsupported(format!("{why}, as llama2.c needs it"))),
        None => Ok(config),
    }
}

/// Checks the head size, which in llama2.c is dim / n_heads (in the fork, that of the header), all of it rotated.
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
fn is_known(name: &str, layers: u64) -> bool {
    let Some(stem) = name.strip_suffix(".weight") else { return false };
    if ["token_embd", "output_norm", "output"].contains(&stem) {
        return true;
    }
    let Some((layer, kind)) = stem.strip_prefix("blk.").and_then(|s| s.split_once('.')) else { return false };
    let number = layer.parse::<u64>().ok().filter(|&i| i < layers && i.to_string() == layer);
    number.is_some() && LAYER.contains(&kind)
}

fn unknown_tensor(name: &str) -> Fault {
    let has = |part: &str| name.contains(part);
    let why = if name.ends_with(".bias") {
        "it has no biases"
    } else if has("rope_freqs") {
        "it does not scale the rotary embedding"
    } else if has("attn_q_norm") || has("attn_k_norm") {
        "it has no norms of queries and keys"
    } else if has("_exps") || has("_shexp") || has("ffn_gate_inp") {
        "it has no experts"
    } else if has("attn_qkv") {
        "its queries, keys and values are separate tensors; split this one first"
    } else {
        "it has only the tensors of a plain Llama with the number of layers of the metadata"
    };
    Fault::Unsupported(format!("llama2.c cannot hold tensor {name}: {why}. Write a GGUF instead"))
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

/// The cosines and sines of version 0, each `[position][pair]`: `precompute_freqs_cis` of `model.py`. Its readers skip
/// them. They are computed in double precision by the same code on every machine, since those of C libraries differ in the
/// last digit, and rounded.
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
