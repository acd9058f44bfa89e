//! Opening a model: a path becomes a [`Source`], whatever the format.

mod folder;
mod other;
mod pieces;

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use formats::container::{self, gguf, llama2c, pytorch, safetensors};
use formats::model::{Format, Model, Tensor};

use crate::arch::by_name;
use crate::checkpoint::{self, Vocabulary};
use crate::disk::{self, InFile, Part, RunFiles};
use crate::error::{Error, Result};
use crate::source::{Source, Use, foreign, scales};
use crate::tokenizer::pre;
use folder::{Files, INDEX, PYTORCH, SAFETENSORS, open_folder, open_index};

/// How to open a model.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Read files in pieces instead of mapping them into memory.
    pub no_mmap: bool,
    /// The tokenizer.bin of a llama2.c checkpoint, or the SentencePiece model that it was made of.
    pub tokenizer: Option<PathBuf>,
    /// The pre-tokenizer's name in GGUF, where a checkpoint's own is not recognised, or a GGUF does not name it.
    pub pre_tokenizer: Option<String>,
    /// The name that the model is to get (`general.name`), where the user gives one: some of what is done to texts follows
    /// from it.
    pub name: Option<String>,
    /// Leave the tensors of a Hugging Face checkpoint under their own names and in their own row order.
    pub as_filed: bool,
}

/// Opens a model as the only source of a run: [`open_in`] with files of its own.
///
/// # Errors
/// Those of [`open_in`].
pub fn open(path: &Path, options: &Options) -> Result<Source> {
    open_in(&RunFiles::default(), path, options)
}

/// Opens a GGUF, safetensors or PyTorch file (any part of a split model opens all), the folder of a checkpoint or its
/// index, a llama2.c checkpoint or tokenizer. All files that are read are noted in `run`.
///
/// # Errors
/// [`Error::Usage`] for options of which only one can count;
/// [`Error::WouldOverwrite`] if the run is to write one of the files;
/// [`Error::Io`] for files that cannot be read; [`Error::Format`] for files that do not follow their format;
/// [`Error::NoModel`], [`Error::SplitPart`], [`Error::NotAFile`], [`Error::LfsPointer`]; those of
/// [`checkpoint::translate`] for Hugging Face checkpoints.
pub fn open_in(run: &RunFiles, path: &Path, options: &Options) -> Result<Source> {
    if options.tokenizer.is_some() && options.pre_tokenizer.is_some() {
        return Err(Error::usage(
            "--pre-tokenizer has no effect beside --tokenizer: neither a tokenizer.bin nor a tokenizer.model has a \
             pre-tokenizer",
        )
        .or("leave out --pre-tokenizer"));
    }
    let map = !options.no_mmap;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut source = if path.is_dir() {
        open_folder(run, path, map)?
    } else if let Some(of) = Files::of_index(&name) {
        open_index(run, path, of, map)?
    } else {
        open_file(run, path, map)?
    };
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
    // Safetensors that were made of a GGUF have its metadata and names in themselves. Where an architecture was written into
    // a checkpoint, config.json still says more of it.
    let has_settings = |source: &Source| {
        let named = source.model.metadata.text("general.architecture").is_some_and(|a| by_name(a).is_some());
        let hub = |t: &Tensor| t.name.ends_with("layers.0.input_layernorm.weight");
        named && folder.join(checkpoint::CONFIG).is_file() && source.model.tensors.iter().any(hub)
    };
    let foreign_names = matches!(source.model.format, Format::Safetensors | Format::PyTorch)
        && (source.model.metadata.get("general.architecture").is_none() || has_settings(&source));
    source.foreign = match foreign_names {
        true => checkpoint::recognise(&source.model.tensors, folder),
        false => other::of_model(&source.model),
    };
    // What refuses such a file says so itself; what copies or shows it, as a note.
    let note = source
        .foreign
        .as_ref()
        .filter(|f| options.as_filed || !matches!(f.remains, Use::Tensors | Use::Named));
    let note = note.filter(|_| source.model.format != Format::Llama2cTokenizer);
    source.model.notes.extend(note.map(|foreign| format!("this {}", foreign.what)));
    let is_checkpoint = foreign_names && folder.join(checkpoint::CONFIG).is_file();
    if is_checkpoint && !options.as_filed {
        source.need_model(false)?;
        let vocabulary = match &options.tokenizer {
            Some(_) => Vocabulary::Elsewhere,
            None => Vocabulary::Folder {
                pre_tokenizer: options.pre_tokenizer.as_deref(),
                name: options.name.as_deref(),
            },
        };
        source = checkpoint::translate(source, folder, vocabulary)?;
    } else if is_checkpoint {
        source.filed = checkpoint::beside(folder, |part| part != Part::Weights);
    }
    if matches!(source.model.format, Format::Gguf { .. }) {
        foreign::apply(&mut source);
        scales::apply(&mut source)?;
    }
    if let Some(path) = &options.tokenizer {
        let tokenizer = checkpoint::vocab::tokenizer_file(run, path, map)?;
        llama2c::tokenizer::attach(&mut source.model, &tokenizer)?;
        source.beside.push(path.clone());
    }
    // That of a checkpoint was set while its tokenizer was read.
    if let Some(name) = options.pre_tokenizer.as_deref().filter(|_| !is_checkpoint) {
        let note = pre::set(&mut source.model.metadata, name);
        source.model.notes.extend(note);
    }
    let tokenizer = options.tokenizer.as_ref().map(|_| "--tokenizer");
    source.tokenizer_option = tokenizer.or(options.pre_tokenizer.as_ref().map(|_| "--pre-tokenizer"));
    source.beside.iter().try_for_each(|path| run.note(path))?;
    source.run = run.clone();
    Ok(source)
}

/// A file, with the other parts if it is one of several.
fn open_file(run: &RunFiles, path: &Path, map: bool) -> Result<Source> {
    let file = run.open(path, map)?;
    let model = read(&file)?;
    let name = path.file_name().unwrap_or_default();
    let stem = Path::new(name).file_stem().unwrap_or_default().to_string_lossy();
    let part = container::parse_part_stem(&stem);
    match model.format {
        Format::Gguf { .. } => {
            let split =
                gguf::split_of(&model.metadata).map_err(|e| formats::Error::of(file.name(), e.into()))?;
            let Some((no, count)) = split else { return Ok(Source::new(path, model, vec![file])) };
            if let Some(model) = pieces::glued(&file, &model, count)? {
                return Ok(Source::new(path, model, vec![file]));
            }
            let Some((.., named)) = part.filter(|part| part.2 as u64 == count) else {
                return Err(Error::SplitPart { file: file.name().into(), part: no.saturating_add(1), count });
            };
            let names = || part_names(name, named, "gguf");
            let (files, shards) =
                open_all(run, path.parent(), (&names, named), map, |file| file.parse(gguf::read))?;
            Ok(Source::new(path, gguf::join(shards)?, files))
        }
        Format::Safetensors | Format::PyTorch => match part {
            Some((.., count)) if count > 1 => {
                let of = if model.format == Format::PyTorch { &PYTORCH } else { &SAFETENSORS };
                let mut index = disk::split_stem(name);
                index.push(of.ending);
                index.push(INDEX);
                let index = path.with_file_name(index);
                if index.is_file() {
                    return open_index(run, &index, of, map);
                }
                let ending = path.extension().unwrap_or_default().to_string_lossy();
                let names = || part_names(name, count, &ending);
                let (files, shards) = open_all(run, path.parent(), (&names, count), map, of.read)?;
                Ok(Source::new(path, safetensors::join(shards)?, files))
            }
            _ => Ok(Source::new(path, model, vec![file])),
        },
        _ => Ok(Source::new(path, model, vec![file])),
    }
}

/// The shards of a model: their files' names, and what each holds.
type Shards = Vec<(String, Model)>;

/// The names of all parts, one after another: a file's name can promise more than fit into memory.
fn part_names(name: &OsStr, count: usize, ending: &str) -> impl Iterator<Item = OsString> {
    (0..count).map(move |no| disk::part_name(name, no, count, ending))
}

/// Opens all parts of a model: `names` gives their names, `count` in number.
fn open_all<N: AsRef<Path>, I: Iterator<Item = N>>(
    run: &RunFiles,
    folder: Option<&Path>,
    (names, count): (&dyn Fn() -> I, usize),
    map: bool,
    read: fn(&InFile) -> Result<Model>,
) -> Result<(Vec<InFile>, Shards)> {
    let (mut files, mut shards) = (Vec::new(), Vec::new());
    let folder = folder.unwrap_or(Path::new(""));
    for (no, name) in names().enumerate() {
        let file = run.open(&folder.join(name), map).map_err(|error| match error {
            Error::Io { source, .. } if source.kind() == ErrorKind::NotFound => {
                other::missing_part(folder, names(), no, count)
            }
            error => error,
        })?;
        shards.push((file.name().to_string(), read(&file)?));
        files.push(file);
    }
    Ok((files, shards))
}

/// Reads a file of any container.
fn read(file: &InFile) -> Result<Model> {
    if !file.parse(|input| Ok(pytorch::looks_like(input)))? {
        return file.parse(container::read).map_err(|e| {
            let known = pieces::explain(&file.path, &e).or_else(|| other::explain(file, &e));
            known.unwrap_or_else(|| explain(e, file))
        });
    }
    // The directory of an archive is at its end.
    let model = pytorch::read(file.name(), file.len, |range| file.read(range.start, range.end - range.start));
    model.map_err(|error| match other::explain(file, &error).unwrap_or(error) {
        Error::Format(e) if matches!(e.fault, formats::Fault::NotAModel(_)) => Error::refused(e.to_string())
            .or("name the file with the model's weights: model.safetensors, pytorch_model.bin or a part of these"),
        Error::Format(e) if matches!(e.fault, formats::Fault::SeveralStates { .. }) => {
            let formats::Fault::SeveralStates { under, .. } = &e.fault else { unreachable!("it was just matched") };
            Error::refused(e.to_string()).or(format!(
                "write the one that is meant into a file of its own, in Python: torch.save(torch.load(FILE){}, NEW)",
                under[0]
            ))
        }
        Error::Format(e) => Error::refused(e.to_string()).or(
            "if the file is whole and from a source that you trust, write its weights as safetensors with transformers: \
             AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW)",
        ),
        other => other,
    })
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
