//! Reading a checkpoint: its tensors under GGUF's names, and its settings, model card and tokenizer as GGUF's metadata.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use formats::block::DType;
use formats::metadata::{Metadata, Value};
use formats::model::{ByteOrder, Encoding, Format, Location, Model, Tensor};
use serde_json::Value as Json;

use super::names::Names;
use super::place::placed;
use super::quantized::{self, Form, is_float};
use super::write::made_config;
use super::{beside, bias_switch, bitnet, card, check_shape, fused, layouts, read_json, rows, vocab};
use crate::arch::config::ConfigError;
use crate::arch::settings::Reader;
use crate::arch::{Config, Expected, Presence};
use crate::disk::{self, CONFIG, Part};
use crate::error::{Error, FROM_CHECKPOINT, Result};
use crate::source::view::{RowOrder, Values, View};
use crate::source::{Hub, Source};

/// Where a checkpoint's vocabulary comes from.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Vocabulary<'a> {
    /// From the tokenizer files of the folder.
    Folder {
        /// The pre-tokenizer's name in GGUF, where the checkpoint's own is not recognised.
        pre_tokenizer: Option<&'a str>,
        /// The name that the model gets, where that is not its own: programs know by it what is done to texts.
        name: Option<&'a str>,
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
    let mut json =
        read_json(&path)?.ok_or_else(|| Error::io(&path, "open", std::io::ErrorKind::NotFound.into()))?;
    let mut config = Config::from_hub(&json).map_err(|e| e.in_file(&path))?;
    quantized::check_types(&json).map_err(|why| ConfigError::from(why).in_file(&path))?;
    let expected = config.arch.expected(&config);
    source.model.notes.extend(config.notes.iter().cloned());
    let (tensors, views) = match source.weightless {
        true => imagined(&path, &config, &json, &expected)?,
        false => tensors(&mut source, &mut config, &json, &expected, &path)?,
    };
    complete(&mut json, &config);
    let weights = tensors.iter().map(Tensor::elements).sum();
    let (metadata, of_vocabulary) = metadata(folder, &config, &json, weights, vocabulary, &mut source)?;
    source.model.metadata = metadata;
    (source.model.tensors, source.views) = (tensors, views);
    if let Some((tensor, view)) = rope_freqs(&config) {
        source.model.tensors.insert(0, tensor);
        source.views.insert(0, Some(view));
    }
    source.beside.push(path);
    let companions = beside(folder, |part| matches!(part, Part::Companion | Part::Text));
    source.model.notes.extend(through_links(folder, &source.beside));
    if disk::leads_out(folder, &folder.join(CONFIG)) {
        json = own_settings(&config, &json, &source.model.tensors);
    }
    source.hub = Some(Hub { config, json, companions, of_vocabulary });
    Ok(source)
}

/// A note on files that were read through links that lead out of the folder. People make checkpoints of links to the files
/// of others, so they are read, as far as nothing but settings and tokens is taken from them.
fn through_links(folder: &Path, read: &[PathBuf]) -> Option<String> {
    let mut out: Vec<&PathBuf> = read.iter().filter(|path| disk::leads_out(folder, path)).collect();
    out.sort();
    out.dedup();
    let (first, n) = (out.first()?.display(), out.len());
    Some(match n {
        1 => format!("{first}: is a link that leads out of the folder: it is read, and not copied"),
        n => format!(
            "{first} and {} more are links that lead out of the folder: they are read, and not copied",
            n - 1
        ),
    })
}

/// A config.json of what is known of a model, in place of one that is not copied: the settings alone, without other keys
/// of `json`. `tensors` are the model's, under GGUF's names.
fn own_settings(config: &Config, json: &Json, tensors: &[Tensor]) -> Json {
    let names: HashSet<&str> = tensors.iter().map(|t| t.name.as_str()).collect();
    let mut own = made_config(config, None, None, |e| names.contains(e.gguf.as_str()));
    for key in ["bos_token_id", "eos_token_id", "pad_token_id"] {
        let is_id = |value: &Json| value.is_u64();
        let value = &json[key];
        if is_id(value) || value.as_array().is_some_and(|list| list.iter().all(is_id)) {
            own[key] = value.clone();
        }
    }
    own
}

/// Writes into config.json what was found out beyond it, for checkpoints that are made of this one: the class that loads
/// the tensors' names, and whether there is an output matrix.
fn complete(json: &mut Json, config: &Config) {
    if config.base || !json.is_object() {
        return;
    }
    if json["architectures"][0] != config.class.name {
        json["architectures"] = serde_json::json!([config.class.name]);
    }
    if config.tied || json["tie_word_embeddings"] == true {
        json["tie_word_embeddings"] = config.tied.into();
    }
}

type Tensors = (Vec<Tensor>, Vec<Option<View>>);

/// The stored tensors under GGUF's names, and the views that put their rows into GGUF's order. Where the output matrix
/// turns out to be the token embedding, or to be missing from a base model, `config` is tied afterwards. `file` is
/// config.json, for messages.
fn tensors(
    source: &mut Source,
    config: &mut Config,
    json: &Json,
    expected: &[Expected],
    file: &Path,
) -> Result<Tensors> {
    let (stored, note) = fused::split(std::mem::take(&mut source.model.tensors), expected);
    source.model.notes.extend(note);
    let names = Names::new(&stored, &source.model.metadata, expected);
    source.model.notes.extend(names.notes.iter().cloned());
    let (form, note) = quantized::form(file, json, config.arch, &stored, &names)?;
    source.model.notes.extend(note);
    let scales = scales(source, &stored)?;
    let (divide, note) = match form {
        Form::Plain | Form::Mlx => (false, None),
        Form::Ternary { scale, .. } => {
            bitnet::divide(scale, &scales.values().filter(|s| s.is_finite()).copied().collect::<Vec<_>>())
        }
    };
    source.model.notes.extend(note);
    let by_name: HashMap<&str, &Tensor> = stored.iter().map(|t| (t.name.as_str(), t)).collect();
    let consumed = |t: &Tensor| match form {
        Form::Plain => false,
        Form::Ternary { .. } => scales.contains_key(t.name.as_str()),
        Form::Mlx => quantized::is_mlx_part(&t.name, &by_name),
    };
    let left_over = stored
        .iter()
        .enumerate()
        .filter(|(i, t)| names.place[*i].is_none() && names.idle.binary_search(i).is_err() && !consumed(t));
    let (files, left_over): (Vec<usize>, Vec<String>) =
        left_over.map(|(_, t)| (t.location.file, t.name.clone())).unzip();
    let (found, notes) = placed(source, &stored, &names, expected, config)?;
    source.model.notes.extend(notes);
    let present: HashSet<usize> = found.iter().map(|(_, e)| *e).collect();
    let needed = |e: &Expected| match e.rule.presence {
        Presence::Always => true,
        Presence::Untied => !config.tied,
        Presence::Optional => false,
    };
    let missing = expected.iter().enumerate().filter(|(i, e)| needed(e) && !present.contains(i));
    let missing: Vec<String> = missing.map(|(_, e)| names.stored_name(&e.hub)).collect();
    if !left_over.is_empty() {
        let placed = stored.iter().zip(&names.place).filter(|(_, place)| place.is_some());
        let placed: BTreeSet<usize> = placed.map(|(t, _)| t.location.file).collect();
        if let Some(&own) = placed.first()
            && !files.iter().any(|file| placed.contains(file))
        {
            let (path, own) = (source.files[files[0]].path.display(), source.files[own].path.display());
            let (first, arch) = (&left_over[0], config.arch.name);
            return Err(Error::refused(format!(
                "{path}: none of its tensors is a part of the architecture {arch} (the first is {first})"
            ))
            .or(format!(
                "if it is no part of the model, move it elsewhere, or name the model's own file: {own}"
            )));
        }
        let (file, name) = (source.path.clone(), config.arch.name);
        return Err(layouts::unexpected(file, left_over, &missing, name, expected));
    }
    if !missing.is_empty() {
        return Err(Error::MissingTensors { file: source.path.clone(), names: missing });
    }
    let left_out = match form {
        Form::Ternary { .. } => {
            let unsupported = |why| Error::UnsupportedQuantization { file: file.to_path_buf(), why };
            Some(bitnet::LeftOut::of(json).map_err(unsupported)?)
        }
        Form::Plain | Form::Mlx => None,
    };
    let (mut tensors, mut views) = (Vec::new(), Vec::new());
    for &(i, e) in &found {
        let (t, e) = (&stored[i], &expected[e]);
        let order = rows(config.arch, config, e.rule);
        let excluded = left_out.as_ref().is_some_and(|out| out.has(&e.hub));
        let master = matches!(form, Form::Ternary { masters: true, .. }) && !excluded;
        let (tensor, view) = match form {
            Form::Ternary { .. }
                if (master || !is_float(t.encoding)) && e.shape.len() == 2 && e.hub.contains(".layers.") =>
            {
                let scale = scales.get(format!("{}_scale", t.name).as_str()).copied();
                ternary(&source.path, t, e, order, scale.map(|s| if divide { 1.0 / s } else { s }))?
            }
            Form::Mlx if !is_float(t.encoding) => quantized::affine(t, e, order, &by_name)?,
            _ => plain(t, e, order)?,
        };
        tensors.push(tensor);
        views.push(view);
    }
    source.model.notes.extend(quantized::mlx_note(&views));
    source.model.notes.extend(bias_note(json, found.iter().map(|(_, e)| &expected[*e])));
    Ok((tensors, views))
}

/// A note on biases that config.json does not switch on: transformers leaves them out then, and a GGUF's readers compute with
/// them, as do we.
fn bias_note<'a>(json: &Json, found: impl Iterator<Item = &'a Expected>) -> Option<String> {
    let off = |e: &&Expected| {
        e.rule.presence == Presence::Optional
            && e.hub.ends_with(".bias")
            && json[bias_switch(&e.hub)].as_bool() != Some(true)
    };
    let biases: Vec<&Expected> = found.filter(off).collect();
    let first = biases.first()?;
    let (name, switch) = (&first.hub, bias_switch(&first.hub));
    let more = if biases.len() > 1 { format!(" and {} more", biases.len() - 1) } else { String::new() };
    let says = match &json[switch] {
        Json::Null => format!("does not say {switch}: true"),
        _ => format!("says {switch}: false"),
    };
    Some(format!(
        "config.json {says}, but {name}{more} are there: they are kept and computed with; transformers leaves them out"
    ))
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
        source.stored_fetch(t, 0..1)?.decode(&t.name, source.model.order, &mut x)?;
        scales.insert(t.name.as_str(), x[0]);
    }
    Ok(scales)
}

/// The tensors that the settings ask for, in the type that config.json names, without weights.
///
/// # Errors
/// [`Error::UnsupportedQuantization`] for weights that config.json says are quantized by a method that is not supported.
fn imagined(file: &Path, config: &Config, json: &Json, expected: &[Expected]) -> Result<Tensors> {
    if bitnet::scale(json).is_ok_and(|scale| scale.is_none())
        && let Some(method) = quantized::said(json).filter(|method| method != quantized::MLX)
    {
        let why = format!("weights quantized by {method:?} are not supported");
        return Err(Error::UnsupportedQuantization { file: file.to_path_buf(), why });
    }
    let invalid = |why: String| ConfigError::from(why).in_file(file);
    let read = Reader(json);
    let dtype = read.text("dtype").and_then(|new| Ok(new.or(read.text("torch_dtype")?))).map_err(invalid)?;
    let dtype = match dtype.map(|name| name.strip_prefix("torch.").unwrap_or(name)) {
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

/// GGUF's metadata: architecture, model card, settings and vocabulary, in this order; and those notes that are about the
/// vocabulary as a GGUF has it.
fn metadata(
    folder: &Path,
    config: &Config,
    json: &Json,
    weights: u64,
    vocabulary: Vocabulary<'_>,
    source: &mut Source,
) -> Result<(Metadata, Vec<String>)> {
    let arch = config.arch.name;
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", Value::text(arch));
    let card = card::read(&card::About { folder, config: json, parameters: weights, experts: None });
    source.model.notes.extend(card.notes);
    source.beside.extend(card.files);
    let found = match vocabulary {
        Vocabulary::Elsewhere => None,
        Vocabulary::Folder { pre_tokenizer, name } => {
            let name = name.or(card.metadata.text("general.name"));
            let wanted = vocab::Wanted { arch, rows: config.vocab, name, config: json, pre: pre_tokenizer };
            vocab::read(folder, &wanted)?
        }
    };
    let mut keys: Vec<Metadata> = vec![card.metadata, config.metadata()];
    source.model.notes.extend(card.of_gguf.iter().cloned());
    let mut notes = card.of_gguf;
    match found {
        Some(v) => {
            source.model.notes.extend(v.notes);
            source.beside.extend(v.files);
            notes.extend(v.gguf_notes);
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
                let none = "no tokenizer files in the folder: a GGUF of it has no vocabulary, so programs can only give it token ids";
                notes.push(none.into());
                source.model.notes.push(none.into());
            }
        }
    }
    for (key, value) in keys.iter().flat_map(Metadata::iter) {
        metadata.set(key, value.clone());
    }
    Ok((metadata, notes))
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
