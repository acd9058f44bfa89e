//! Opening a model: a path becomes a [`Source`], whatever the format.

mod pieces;

use std::path::{Path, PathBuf};

use formats::container::{self, gguf, llama2c, safetensors};
use formats::model::{Format, Input, Model};

use crate::checkpoint::{self, Vocabulary};
use crate::disk::InFile;
use crate::error::{Error, Result};
use crate::source::{Source, foreign, scales};

/// How to open a model.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Read files in pieces instead of mapping them into memory.
    pub no_mmap: bool,
    /// The tokenizer.bin of a llama2.c checkpoint.
    pub tokenizer: Option<PathBuf>,
    /// The pre-tokenizer's name in GGUF, where a checkpoint's own is not recognised.
    pub pre_tokenizer: Option<String>,
    /// Leave the tensors of a Hugging Face checkpoint under their own names and in their own row order.
    pub as_filed: bool,
}

/// The ending of the name of a sharded safetensors checkpoint's index.
const INDEX: &str = "safetensors.index.json";

/// The longest index that is read, in bytes.
const MAX_INDEX: u64 = 256 << 20;

/// Opens a GGUF or safetensors file (any part of a split model opens all), a folder of safetensors or its index, a
/// llama2.c checkpoint or tokenizer.
///
/// # Errors
/// [`Error::Io`] for files that cannot be read; [`Error::Format`] for files that do not follow their format;
/// [`Error::NoModel`], [`Error::SplitPart`], [`Error::NotAFile`], [`Error::LfsPointer`]; those of
/// [`checkpoint::translate`] for Hugging Face checkpoints.
pub fn open(path: &Path, options: &Options) -> Result<Source> {
    let map = !options.no_mmap;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut source = if path.is_dir() {
        open_folder(path, map)?
    } else if name.ends_with(INDEX) {
        open_index(path, map)?
    } else {
        open_file(path, map)?
    };
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
    // Safetensors that were made of a GGUF have its metadata and names in themselves.
    let is_checkpoint = source.model.format == Format::Safetensors
        && source.model.metadata.get("general.architecture").is_none()
        && folder.join(checkpoint::CONFIG).is_file();
    if is_checkpoint && !options.as_filed {
        let vocabulary = match &options.tokenizer {
            Some(_) => Vocabulary::Elsewhere,
            None => Vocabulary::Folder { pre_tokenizer: options.pre_tokenizer.as_deref() },
        };
        source = checkpoint::translate(source, folder, vocabulary)?;
    }
    if matches!(source.model.format, Format::Gguf { .. }) {
        foreign::apply(&mut source);
        scales::apply(&mut source)?;
    }
    if let Some(path) = &options.tokenizer {
        let file = InFile::open(path, map)?;
        let tokenizer = file.parse(llama2c::tokenizer::read)?;
        llama2c::tokenizer::attach(&mut source.model, &tokenizer)?;
        source.beside.push(path.clone());
    }
    Ok(source)
}

/// A file, with the other parts if it is one of several.
fn open_file(path: &Path, map: bool) -> Result<Source> {
    let file = InFile::open(path, map)?;
    let model = file.parse(container::read).map_err(|e| match pieces::explain(path, &e) {
        Some(piece) => piece,
        None => explain(e, &file),
    })?;
    let part = path.file_stem().and_then(|s| s.to_str()).and_then(container::parse_part_stem);
    match model.format {
        Format::Gguf { .. } => {
            let split =
                gguf::split_of(&model.metadata).map_err(|e| formats::Error::of(file.name(), e.into()))?;
            let Some((no, count)) = split else { return Ok(Source::new(path, model, vec![file])) };
            if no == 0
                && let Some(model) = pieces::glued(&file, &model, count)?
            {
                return Ok(Source::new(path, model, vec![file]));
            }
            let Some((stem, _, named)) = part.filter(|part| part.2 as u64 == count) else {
                return Err(Error::SplitPart { file: file.name().into(), part: no.saturating_add(1), count });
            };
            let (files, shards) = open_all(path.parent(), part_names(stem, named, "gguf"), map, gguf::read)?;
            Ok(Source::new(path, gguf::join(shards)?, files))
        }
        Format::Safetensors => match part {
            Some((stem, _, count)) if count > 1 => {
                let index = path.with_file_name(format!("{stem}.{INDEX}"));
                if index.is_file() {
                    return open_index(&index, map);
                }
                let names = part_names(stem, count, "safetensors");
                let (files, shards) = open_all(path.parent(), names, map, safetensors::read)?;
                Ok(Source::new(path, safetensors::join(shards)?, files))
            }
            _ => Ok(Source::new(path, model, vec![file])),
        },
        _ => Ok(Source::new(path, model, vec![file])),
    }
}

fn open_folder(path: &Path, map: bool) -> Result<Source> {
    let index = path.join(format!("model.{INDEX}"));
    // Where both are, transformers reads the single file.
    if index.is_file() && !path.join("model.safetensors").is_file() {
        return Ok(Source { path: path.to_path_buf(), ..open_index(&index, map)? });
    }
    let entries = std::fs::read_dir(path).map_err(|e| Error::io(path, "read", e))?;
    let mut names: Vec<String> = entries
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .filter(|n| n.ends_with(".safetensors"))
        .collect();
    names.sort();
    if names.is_empty() && path.join(checkpoint::CONFIG).is_file() {
        return Ok(checkpoint::settings_only(path));
    }
    if names.is_empty() {
        let hub_cache = path.join("snapshots").is_dir();
        return Err(Error::NoModel { folder: path.to_path_buf(), hub_cache });
    }
    // Some checkpoints have the weights a second time (consolidated.safetensors); this is the file that transformers
    // reads.
    let mut note = None;
    if names.len() > 1 && names.iter().any(|n| n == "model.safetensors") {
        note = Some(format!(
            "{} other .safetensors files beside model.safetensors are not read",
            names.len() - 1
        ));
        names = vec!["model.safetensors".into()];
    }
    let (files, shards) = open_all(Some(path), names, map, safetensors::read)?;
    let mut source = Source::new(path, safetensors::join(shards)?, files);
    source.model.notes.extend(note);
    Ok(source)
}

fn open_index(index: &Path, map: bool) -> Result<Source> {
    let file = InFile::open(index, map)?;
    if file.len > MAX_INDEX {
        let (name, len) = (file.name(), file.len);
        return Err(Error::refused(format!(
            "{name}: an index must have at most {MAX_INDEX} bytes (found {len})"
        )));
    }
    let json = file.read(0, file.len)?;
    let names = safetensors::read_index(file.name(), &json)?;
    let (files, shards) = open_all(index.parent(), names, map, safetensors::read)?;
    safetensors::check_index(file.name(), &json, &shards)?;
    let mut source = Source::new(index, safetensors::join(shards)?, files);
    source.beside.push(index.to_path_buf());
    Ok(source)
}

/// The shards of a model: their files' names, and what each holds.
type Shards = Vec<(String, Model)>;

/// The names of all parts, one after another: a file's name can promise more than fit into memory.
fn part_names(stem: &str, count: usize, ending: &str) -> impl Iterator<Item = String> {
    (0..count).map(move |no| format!("{}.{ending}", container::part_stem(stem, no, count)))
}

fn open_all(
    folder: Option<&Path>,
    names: impl IntoIterator<Item = String>,
    map: bool,
    read: fn(&Input) -> formats::Result<Model>,
) -> Result<(Vec<InFile>, Shards)> {
    let (mut files, mut shards) = (Vec::new(), Vec::new());
    for name in names {
        let file = InFile::open(&folder.unwrap_or(Path::new("")).join(name), map)?;
        shards.push((file.name().to_string(), file.parse(read)?));
        files.push(file);
    }
    Ok((files, shards))
}

/// Explains a file of no known format that looks like a truncated llama2.c checkpoint.
fn explain(error: Error, file: &InFile) -> Error {
    if let Error::Format(formats::Error { fault: formats::Fault::NotAModel(_), .. }) = &error
        && let Ok(Some(near)) = file.parse(|input| Ok(llama2c::near_miss(input)))
    {
        return Error::refused(format!("{}: {near}", file.name()));
    }
    error
}
