//! Reading a checkpoint: its tensors under GGUF's names, and its settings, model card and tokenizer as GGUF's metadata.

use std::collections::HashMap;
use std::path::Path;
use std::sync::OnceLock;

use formats::block::DType;
use formats::metadata::{Metadata, Value};
use formats::model::{ByteOrder, Encoding, Format, Location, Model, Tensor};
use serde_json::Value as Json;

use super::bitnet::{self, Form};
use super::{bias_switch, card, check_shape, read_json, rows, vocab};
use crate::arch::{Config, Expected, Presence};
use crate::error::{Error, FROM_CHECKPOINT, Result};
use crate::scheme::is_integer;
use crate::source::view::{RowOrder, Values, View};
use crate::source::{Hub, Source};

/// The file with the settings, which every checkpoint has.
pub const CONFIG: &str = "config.json";

/// Files that belong to a checkpoint besides its weights and settings.
const COMPANIONS: [&str; 11] = [
    "generation_config.json",
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "README.md",
    "LICENSE",
];

/// Endings of tensors that old checkpoints have and no runtime reads: tables that are computed from the settings.
const IGNORED: [&str; 3] = [".rotary_emb.inv_freq", ".attention.masked_bias", ".attention.bias"];

/// Where a checkpoint's vocabulary comes from.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Vocabulary<'a> {
    /// From the tokenizer files of the folder.
    Folder {
        /// The pre-tokenizer's name in GGUF, where the checkpoint's own is not recognised.
        pre_tokenizer: Option<&'a str>,
    },
    /// From elsewhere: the caller adds it afterwards.
    Elsewhere,
}

/// Gives the safetensors of the checkpoint in `folder` GGUF's names, row order and metadata. A source without weights
/// gets tensors from the settings alone.
///
/// # Errors
/// [`Error::InvalidConfig`], [`Error::UnknownArchitecture`] and [`Error::UnsupportedQuantization`] for config.json;
/// [`Error::MissingTensors`], [`Error::UnexpectedTensors`], [`Error::WrongShape`], [`Error::UnsupportedType`] for the
/// weights; those of [`vocab::read`] for the tokenizer; [`Error::Io`] for files that cannot be read.
pub fn translate(mut source: Source, folder: &Path, vocabulary: Vocabulary<'_>) -> Result<Source> {
    let path = folder.join(CONFIG);
    let json =
        read_json(&path)?.ok_or_else(|| Error::io(&path, "open", std::io::ErrorKind::NotFound.into()))?;
    let config = Config::from_hub(&json).map_err(|e| e.in_file(&path))?;
    let form =
        bitnet::form(&json).map_err(|why| Error::UnsupportedQuantization { file: path.clone(), why })?;
    let expected = config.arch.expected(&config);
    source.model.notes.extend(config.notes.iter().cloned());
    let (tensors, views) = match source.weightless {
        true => imagined(&config, &json, &expected)?,
        false => tensors(&mut source, &config, &json, form, &expected)?,
    };
    let weights = tensors.iter().map(Tensor::elements).sum();
    source.model.metadata = metadata(folder, &config, &json, weights, vocabulary, &mut source)?;
    (source.model.tensors, source.views) = (tensors, views);
    if let Some((tensor, view)) = rope_freqs(&config) {
        source.model.tensors.insert(0, tensor);
        source.views.insert(0, Some(view));
    }
    source.beside.push(path);
    let companions = COMPANIONS.iter().map(|name| folder.join(name)).filter(|p| p.is_file()).collect();
    source.hub = Some(Hub { config, json, companions });
    Ok(source)
}

type Tensors = (Vec<Tensor>, Vec<Option<View>>);

/// The stored tensors under GGUF's names, and the views that put their rows into GGUF's order.
fn tensors(
    source: &mut Source,
    config: &Config,
    json: &Json,
    form: Form,
    expected: &[Expected],
) -> Result<Tensors> {
    let by_name: HashMap<&str, &Expected> = expected.iter().map(|e| (e.hub.as_str(), e)).collect();
    let stored = std::mem::take(&mut source.model.tensors);
    let scales = scales(source, &stored)?;
    let (divide, note) = match form {
        Form::Plain => (false, None),
        Form::Ternary(scale) => {
            bitnet::divide(scale, &scales.values().filter(|s| s.is_finite()).copied().collect::<Vec<_>>())
        }
    };
    source.model.notes.extend(note);
    let (mut tensors, mut views, mut unexpected) = (Vec::new(), Vec::new(), Vec::new());
    let mut output = None;
    for t in &stored {
        let Some(e) = by_name.get(t.name.as_str()) else {
            let scale = form != Form::Plain && scales.contains_key(t.name.as_str());
            if !scale && !IGNORED.iter().any(|ending| t.name.ends_with(ending)) {
                unexpected.push(t.name.clone());
            }
            continue;
        };
        if config.tied && e.rule.presence == Presence::Untied {
            output = Some(&t.name);
            continue;
        }
        let order = rows(config.arch, config, e.rule);
        let floats = is_float(t.encoding) && bitnet::left_out(json, &t.name);
        let (tensor, view) = match form {
            Form::Ternary(_) if !floats && e.shape.len() == 2 && e.hub.contains(".layers.") => {
                let scale = scales.get(format!("{}_scale", t.name).as_str()).copied();
                ternary(&source.path, t, e, order, scale.map(|s| if divide { 1.0 / s } else { s }))?
            }
            _ => plain(t, e, order)?,
        };
        tensors.push(tensor);
        views.push(view);
    }
    if !unexpected.is_empty() {
        let (file, architecture) = (source.path.clone(), config.arch.name.into());
        return Err(Error::UnexpectedTensors { file, names: unexpected, architecture });
    }
    let present: std::collections::HashSet<&str> = tensors.iter().map(|t| t.name.as_str()).collect();
    let needed = |e: &&Expected| match e.rule.presence {
        Presence::Always => true,
        Presence::Untied => !config.tied,
        Presence::Optional => false,
    };
    let missing: Vec<_> =
        expected.iter().filter(needed).filter(|e| !present.contains(e.gguf.as_str())).collect();
    if !missing.is_empty() {
        let names = missing.iter().map(|e| e.hub.clone()).collect();
        return Err(Error::MissingTensors { file: source.path.clone(), names });
    }
    if let Some(name) = output {
        source.model.notes.push(format!(
            "{name} is left out: config.json says that embeddings are tied (tie_word_embeddings)"
        ));
    }
    Ok((tensors, views))
}

/// A tensor of floats.
fn plain(t: &Tensor, e: &Expected, rows: RowOrder) -> Result<(Tensor, Option<View>)> {
    check_shape(t, &e.shape)?;
    if !is_float(t.encoding) {
        return Err(unsupported(t));
    }
    let tensor = Tensor { name: e.gguf.clone(), ..t.clone() };
    let view = (rows != RowOrder::Same).then(|| View { stored: t.clone(), rows, values: Values::Stored });
    Ok((tensor, view))
}

fn unsupported(t: &Tensor) -> Error {
    let dtype = t.encoding.name();
    Error::UnsupportedType { tensor: t.name.clone(), dtype, operation: FROM_CHECKPOINT }
}

/// Whether a tensor has floats, which need no scale to be weights.
fn is_float(encoding: Encoding) -> bool {
    matches!(encoding, Encoding::Blocks(d) if kernels::codec(d).is_some() && !is_integer(d))
}

/// A projection of a ternary model: two-bit codes with a scale, or floats to be rounded to three values (master
/// weights). `file` is the checkpoint, for messages.
fn ternary(
    file: &Path,
    t: &Tensor,
    e: &Expected,
    rows: RowOrder,
    scale: Option<f32>,
) -> Result<(Tensor, Option<View>)> {
    let packed = t.encoding == Encoding::Blocks(DType::U8);
    let mut wanted = e.shape.clone();
    if packed {
        wanted[0] /= 4;
    }
    if t.shape != wanted || packed && !e.shape[0].is_multiple_of(4) {
        return Err(Error::WrongShape { tensor: t.name.clone(), expected: wanted, found: t.shape.clone() });
    }
    let values = match (packed, scale) {
        (true, Some(scale)) if scale.is_finite() && scale > 0.0 => Values::Packed { scale },
        (true, Some(scale)) => {
            let why = format!("tensor {}_scale must give a positive, finite scale (found {scale})", t.name);
            return Err(Error::refused(why));
        }
        (true, None) => {
            let names = vec![format!("{}_scale", t.name)];
            return Err(Error::MissingTensors { file: file.to_path_buf(), names });
        }
        (false, _) if is_float(t.encoding) => Values::Master { scale: OnceLock::new() },
        (false, _) => {
            return Err(unsupported(t));
        }
    };
    // Weights whose scale is exact in bf16 are bf16; others, and those of master weights, are f32.
    let dtype = match values {
        Values::Packed { scale } if scale.to_bits() & 0xffff == 0 => DType::BF16,
        _ => DType::F32,
    };
    let mut tensor = Tensor {
        name: e.gguf.clone(),
        shape: e.shape.clone(),
        encoding: Encoding::Blocks(dtype),
        location: t.location,
    };
    tensor.location.len = dtype.bytes_for(tensor.elements()).expect("floats of any number have a size");
    Ok((tensor, Some(View { stored: t.clone(), rows, values })))
}

/// The scales of packed weights, by name: tensors of one float.
fn scales<'a>(source: &Source, stored: &'a [Tensor]) -> Result<HashMap<&'a str, f32>> {
    let mut scales = HashMap::new();
    let scale = |t: &&Tensor| t.name.ends_with(".weight_scale") && t.elements() == 1 && is_float(t.encoding);
    for t in stored.iter().filter(scale) {
        let mut x = [0f32];
        source.stored_fetch(t, 0..1)?.decode(&t.name, ByteOrder::Little, &mut x)?;
        scales.insert(t.name.as_str(), x[0]);
    }
    Ok(scales)
}

/// The tensors that the settings ask for, in the type that config.json names, without weights.
fn imagined(config: &Config, json: &Json, expected: &[Expected]) -> Result<Tensors> {
    let dtype = match json["dtype"].as_str().or(json["torch_dtype"].as_str()) {
        Some("float16") => DType::F16,
        Some("bfloat16") => DType::BF16,
        _ => DType::F32,
    };
    let wanted = |e: &&Expected| match e.rule.presence {
        Presence::Always => true,
        Presence::Untied => !config.tied,
        Presence::Optional => json[bias_switch(&e.hub)].as_bool() == Some(true),
    };
    let mut tensors = Vec::new();
    for e in expected.iter().filter(wanted) {
        let too_large = || Error::refused(format!("tensor {}: shape {:?} is too large", e.hub, e.shape));
        let n = formats::model::elements(&e.shape).ok_or_else(too_large)?;
        let len = dtype.bytes_for(n).ok_or_else(too_large)?;
        let location = Location { file: 0, offset: 0, len };
        let encoding = Encoding::Blocks(dtype);
        tensors.push(Tensor { name: e.gguf.clone(), shape: e.shape.clone(), encoding, location });
    }
    let views = tensors.iter().map(|_| None).collect();
    Ok((tensors, views))
}

/// The tensor `rope_freqs.weight`: the divisors of Llama 3's RoPE scaling.
fn rope_freqs(config: &Config) -> Option<(Tensor, View)> {
    let freqs = config.scaling.freqs(config.theta, config.head as usize)?;
    let len = 4 * freqs.len() as u64;
    let tensor = Tensor {
        name: "rope_freqs.weight".into(),
        shape: vec![freqs.len() as u64],
        encoding: Encoding::Blocks(DType::F32),
        location: Location { file: 0, offset: 0, len },
    };
    Some((tensor.clone(), View { stored: tensor, rows: RowOrder::Same, values: Values::Fixed(freqs) }))
}

/// GGUF's metadata: architecture, model card, settings and vocabulary, in this order.
fn metadata(
    folder: &Path,
    config: &Config,
    json: &Json,
    weights: u64,
    vocabulary: Vocabulary<'_>,
    source: &mut Source,
) -> Result<Metadata> {
    let arch = config.arch.name;
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", Value::text(arch));
    let card = card::read(&card::About { folder, config: json, parameters: weights, experts: None });
    source.model.notes.extend(card.notes);
    source.beside.extend(card.files);
    let found = match vocabulary {
        Vocabulary::Elsewhere => None,
        Vocabulary::Folder { pre_tokenizer } => {
            let wanted = vocab::Wanted { arch, rows: config.vocab, config: json, pre: pre_tokenizer };
            vocab::read(folder, &wanted)?
        }
    };
    let mut keys: Vec<Metadata> = vec![card.metadata, config.metadata()];
    match found {
        Some(v) => {
            source.model.notes.extend(v.notes);
            source.beside.extend(v.files);
            keys.push(v.metadata);
        }
        None => {
            let mut none = Metadata::new();
            none.set("tokenizer.ggml.model", Value::text("no_vocab"));
            // Readers that would otherwise count the tokens need it, whatever the architecture.
            none.set(
                &format!("{arch}.vocab_size"),
                Value::U32(u32::try_from(config.vocab).unwrap_or(u32::MAX)),
            );
            keys.push(none);
            if let Vocabulary::Folder { .. } = vocabulary {
                source.model.notes.push(
                    "no tokenizer files in the folder: a GGUF of it has no vocabulary, so programs can only give it token ids"
                        .into(),
                );
            }
        }
    }
    for (key, value) in keys.iter().flat_map(Metadata::iter) {
        metadata.set(key, value.clone());
    }
    source.model.notes.extend(config.arch.note.map(String::from));
    Ok(metadata)
}

/// A source without weights, for a folder that has settings only.
pub fn settings_only(folder: &Path) -> Source {
    let model = Model {
        format: Format::Safetensors,
        order: ByteOrder::Little,
        alignment: 1,
        metadata: Metadata::new(),
        tensors: Vec::new(),
        notes: Vec::new(),
    };
    Source { weightless: true, ..Source::new(folder, model, Vec::new()) }
}
