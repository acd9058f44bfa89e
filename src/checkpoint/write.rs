//! Writing a model of a supported architecture as a checkpoint that Hugging Face's transformers loads.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use formats::block::DType;
use formats::metadata::{Array, Metadata, Value};
use formats::model::{Encoding, Tensor};
use serde_json::json;

use super::{bias_switch, card, check_shape, left_out, quantized, rows, vocab};
use crate::arch::config::ConfigError;
use crate::arch::rope::Scaling;
use crate::arch::{Config, Expected, Presence, is_idle};
use crate::disk::{self, TEMPLATES};
use crate::error::{Error, Result};
use crate::source::view::{RowOrder, Values, View};
use crate::source::{Export, Source, scales};
use crate::text_file;
use crate::tokenizer::doubts;

/// The largest `rope_freqs.weight` that is read, in elements: for attention heads of 2048.
const MOST_FREQS: u64 = 1024;

/// The longest file that is copied beside the weights, in bytes: no tokenizer is longer.
const MOST_COMPANION: u64 = 256 << 20;

/// The endings of the files beside the weights that transformers reads as texts in UTF-8.
const TEXTS: [&str; 3] = ["json", "jinja", "txt"];

/// Gives a model Hugging Face's names and row order, and the files of a checkpoint besides the weights.
///
/// # Errors
/// [`Error::Refused`] for an architecture or settings that are not supported, and for weights that are no model;
/// [`Error::MissingTensors`], [`Error::UnexpectedTensors`] and [`Error::WrongShape`]; [`Error::Io`] for files that cannot
/// be read.
pub fn export(mut source: Source) -> Result<Source> {
    source.refuse_rotated("written as a checkpoint")?;
    source.need_model(false)?;
    let path = source.path.clone();
    let config = match &source.hub {
        Some(hub) => {
            source.model.notes.retain(|note| !hub.of_vocabulary.contains(note));
            hub.config.clone()
        }
        None => {
            let refused = |why: ConfigError| {
                let path = path.display();
                Error::refused(format!("{path}: cannot be written as a Hugging Face checkpoint: {why}"))
                    .or("write one .safetensors file instead of a folder: it keeps GGUF's names and metadata")
            };
            read_config(&source)?.map_err(refused)?
        }
    };
    let expected = config.arch.expected(&config);
    let by_name: HashMap<&str, &Expected> = expected.iter().map(|e| (e.gguf.as_str(), e)).collect();
    // Weights are read multiplied by their scales.
    let scales: HashSet<usize> = scales::pairs(&source.model).into_iter().map(|(_, scale)| scale).collect();
    let tensors = std::mem::take(&mut source.model.tensors);
    let mut views = std::mem::take(&mut source.views);
    views.resize_with(tensors.len(), || None);
    let mut seen = HashSet::new();
    for (i, (t, view)) in tensors.into_iter().zip(views).enumerate() {
        if t.name == "rope_freqs.weight" {
            continue; // config.json has the RoPE scaling
        }
        if scales.contains(&i) || is_idle(&t.name) {
            continue;
        }
        let e = *by_name.get(t.name.as_str()).ok_or_else(|| {
            let (file, names) = (path.clone(), vec![t.name.clone()]);
            Error::UnexpectedTensors { file, names, architecture: config.class.name.into() }
        })?;
        check_shape(&t, &e.shape)?;
        let back = match rows(config.arch, &config, e.rule) {
            RowOrder::Interleave { head } => RowOrder::Separate { head },
            order => order,
        };
        let (tensor, view) = renamed(t, view, &e.hub, back);
        seen.insert(e.gguf.as_str());
        source.model.tensors.push(tensor);
        source.views.push(view);
    }
    let needed = |e: &&Expected| e.rule.presence == Presence::Always && !seen.contains(e.gguf.as_str());
    if let Some(e) = expected.iter().find(needed) {
        return Err(Error::MissingTensors { file: path, names: vec![e.gguf.clone()] });
    }
    let (export, notes) = files(&source, &config)?;
    source.model.notes.extend(notes);
    source.export = Some(export);
    let mut text = Metadata::new();
    text.set("format", Value::text("pt"));
    source.model.metadata = text;
    Ok(source)
}

/// The tensor under its Hugging Face name, with the view that puts its rows into Hugging Face's order.
fn renamed(t: Tensor, view: Option<View>, name: &str, back: RowOrder) -> (Tensor, Option<View>) {
    let mut tensor = Tensor { name: name.into(), ..t.clone() };
    let view = match view {
        Some(view) => Some(View { rows: back.after(view.rows), ..view }),
        None => match t.encoding {
            // llama2.c's groups may span rows, bitnet.cpp's scale is that of the whole tensor, and safetensors has no
            // such types: the weights are written as f32.
            Encoding::Int8Groups { .. } | Encoding::I2S => {
                tensor.encoding = Encoding::Blocks(DType::F32);
                tensor.location.len = 4 * tensor.elements();
                Some(View { stored: t, rows: back, values: Values::Decoded })
            }
            Encoding::Foreign(_) => unreachable!("{} has a view with the blocks of a type", t.name),
            Encoding::Blocks(_) if back == RowOrder::Same => None,
            Encoding::Blocks(_) => Some(View { stored: t, rows: back, values: Values::Stored }),
        },
    };
    (tensor, view)
}

/// The settings of a GGUF or a llama2.c checkpoint.
fn read_config(source: &Source) -> Result<std::result::Result<Config, ConfigError>> {
    let find = |name: &str| source.model.tensors.iter().position(|t| t.name == name);
    let Some(embedding) = find("token_embd.weight") else {
        return Ok(Err("there is no token_embd.weight".into()));
    };
    let vocab = source.model.tensors[embedding].rows();
    let freqs = match find("rope_freqs.weight") {
        Some(i) if source.model.tensors[i].elements() <= MOST_FREQS => {
            let n = source.model.tensors[i].elements();
            let mut x = vec![0f32; n as usize];
            source.fetch(i, 0..n)?.decode("rope_freqs.weight", source.model.order, &mut x)?;
            Some(x)
        }
        Some(_) => return Ok(Err(format!("rope_freqs.weight has more than {MOST_FREQS} elements").into())),
        None => None,
    };
    let tied = find("output.weight").is_none();
    let config = Config::from_gguf(&source.model.metadata, vocab, tied, freqs.as_deref());
    Ok(config.and_then(|config| match config.scaling {
        Scaling::Attention { attention, .. } => Err(format!(
            "{}.rope.scaling.attn_factor is {attention}, and config.json can give such a factor to YaRN alone",
            config.name
        )
        .into()),
        _ => Ok(config),
    }))
}

/// config.json, and the files that are copied or made besides the weights; with notes on those that are not copied.
fn files(source: &Source, config: &Config) -> Result<(Export, Vec<String>)> {
    let (mut files, mut notes) = (Vec::new(), Vec::new());
    if let Some(hub) = &source.hub {
        let mut json = hub.json.clone();
        quantized::forget(&mut json); // the weights are written dequantized
        files = read_beside(source, &hub.companions, &mut notes)?;
        return Ok((Export { config: json, files }, notes));
    }
    let metadata = &source.model.metadata;
    let id = |key: &str| metadata.get(&format!("tokenizer.ggml.{key}_token_id"))?.as_u64();
    let (bos, eos) = (id("bos"), id("eos"));
    let mut generation = json!({});
    for (key, id) in [("bos_token_id", bos), ("eos_token_id", eos), ("pad_token_id", id("padding"))] {
        if let Some(id) = id {
            generation[key] = json!(id);
        }
    }
    // Generation ends with the end of a turn and of a message, too.
    let mut ends: Vec<u64> = [eos, id("eot"), id("eom")].into_iter().flatten().collect();
    let mut seen = HashSet::new();
    ends.retain(|id| seen.insert(*id));
    if ends.len() > 1 {
        generation["eos_token_id"] = json!(ends);
    }
    let parameters = source.model.tensors.iter().map(Tensor::elements).sum();
    let mut card = card::made(metadata, parameters);
    card.kept.extend(card::write_sampling(metadata, &mut generation));
    files.push(("generation_config.json".into(), format!("{generation:#}\n").into_bytes()));
    files.extend(card.text.map(|text| ("README.md".into(), text.into_bytes())));
    let mut has_tokenizer = false;
    let copy = "copy the tokenizer files of the original model into the folder";
    match has_vocabulary(metadata).then(|| vocab::files(metadata, Some(config.context), &mut notes)) {
        Some(Ok(made)) => {
            files.extend(made);
            has_tokenizer = true;
            notes.extend(doubts(metadata));
        }
        Some(Err(why)) => notes.push(format!("the tokenizer is not written ({why}): {copy}")),
        None => {
            notes.push(format!("the source has no vocabulary, so the checkpoint has no tokenizer: {copy}"))
        }
    }
    notes.extend(left_out::of_checkpoint(metadata, &card.kept, has_tokenizer));
    let names: HashSet<&str> = source.model.tensors.iter().map(|t| t.name.as_str()).collect();
    let json = made_config(config, bos, eos, |e| names.contains(e.hub.as_str()));
    Ok((Export { config: json, files }, notes))
}

/// The files of the checkpoint that a source was read from, as they are, for a checkpoint of the very same tensors: names and
/// contents. None for a source that was not left as it was filed. With notes on those that are not copied.
///
/// # Errors
/// [`Error::Io`] if one cannot be read; [`Error::Refused`] if one is too long.
pub fn copied(source: &Source, notes: &mut Vec<String>) -> Result<Vec<(String, Vec<u8>)>> {
    read_beside(source, &source.filed, notes)
}

/// Files that are copied, with their names.
fn read_beside(
    source: &Source,
    paths: &[PathBuf],
    notes: &mut Vec<String>,
) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for path in paths {
        // Whoever made the folder may have linked a private file of whoever publishes the copy.
        if disk::leads_out(disk::folder(path), path) {
            let path = path.display();
            notes.push(format!("{path}: is a link that leads out of the folder: not copied"));
            continue;
        }
        let mut bytes = source.run.read(path, MOST_COMPANION)?;
        let name = path.display().to_string();
        // They are read here in any encoding that their byte order mark says, and by transformers in UTF-8 without a mark.
        let is_text = path.extension().is_some_and(|ending| TEXTS.iter().any(|text| ending == *text));
        if let Some(decoded) = text_file::by_mark(&name, &bytes).filter(|_| is_text) {
            let (text, note) = match decoded.valid {
                true => (Some(decoded.text), "is written as UTF-8 without a byte order mark"),
                false => (None, "is not of the encoding that its byte order mark says: copied as it is"),
            };
            bytes = text.map_or(bytes, String::into_bytes);
            notes.push(format!("{name}: {note}"));
        }
        files.push((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), bytes));
    }
    if let Some(templates) =
        paths.first().map(|path| disk::folder(path).join(TEMPLATES)).filter(|path| path.is_dir())
    {
        notes
            .push(format!("{}: chat templates in a folder of their own are not copied", templates.display()));
    }
    Ok(files)
}

/// A config.json of a model's settings, the ids of two tokens, and which of the tensors that a model may have it has.
pub(super) fn made_config(
    config: &Config,
    bos: Option<u64>,
    eos: Option<u64>,
    has: impl Fn(&Expected) -> bool,
) -> serde_json::Value {
    let mut json = config.to_hub("float32", bos, eos);
    for e in config.arch.expected(config).iter().filter(|e| e.rule.presence == Presence::Optional) {
        if has(e) {
            json[bias_switch(&e.hub)] = json!(true);
        }
    }
    json
}

/// Whether a model's metadata has a vocabulary.
fn has_vocabulary(metadata: &Metadata) -> bool {
    metadata.get("tokenizer.ggml.tokens").and_then(Value::as_array).is_some_and(|a: &Array| !a.is_empty())
}
