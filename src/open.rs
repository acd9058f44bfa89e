//! Opening a model: a path becomes a [`Source`], whatever the format.

mod other;
mod pieces;

use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use formats::container::{self, gguf, llama2c, pytorch, safetensors};
use formats::model::{Format, Input, Model, Tensor};

use crate::arch::by_name;
use crate::checkpoint::{self, Vocabulary};
use crate::disk::{self, InFile, Part, RunFiles};
use crate::error::{Error, Result};
use crate::source::{Source, Use, foreign, other_weights, scales};
use crate::text_file;
use crate::tokenizer::pre;

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

/// How the files of a checkpoint are called and read.
struct Files {
    /// The ending of their names.
    ending: &'static str,
    /// The name of the only one, in checkpoints of transformers.
    single: &'static str,
    /// The name of the index there, where there are several. In others, the beginning may be another.
    index: &'static str,
    /// Their reader.
    read: fn(&InFile) -> Result<Model>,
}

const SAFETENSORS: Files = Files {
    ending: ".safetensors",
    single: "model.safetensors",
    index: "model.safetensors.index.json",
    read: read_safetensors,
};

const PYTORCH: Files =
    Files { ending: ".bin", single: "pytorch_model.bin", index: "pytorch_model.bin.index.json", read };

/// The end of an index's name, after the ending of the files' names.
const INDEX: &str = ".index.json";

impl Files {
    /// The files of which this is the index, by its name.
    fn of_index(name: &str) -> Option<&'static Self> {
        [&SAFETENSORS, &PYTORCH]
            .into_iter()
            .find(|f| name.strip_suffix(INDEX).is_some_and(|n| n.ends_with(f.ending)))
    }
}

/// The longest index that is read, in bytes.
const MAX_INDEX: u64 = 256 << 20;

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

fn open_folder(run: &RunFiles, path: &Path, map: bool) -> Result<Source> {
    let entries = std::fs::read_dir(path).map_err(|e| Error::io(path, "read", e))?;
    let is_weights = |n: &String| {
        // Other .bin files are settings and states of training, or llama2.c's.
        let torch = n.trim_start_matches("._").starts_with("pytorch_model") && n.ends_with(PYTORCH.ending);
        (torch || n.ends_with(SAFETENSORS.ending)) && path.join(n).is_file()
    };
    let mut names: Vec<String> =
        entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).filter(is_weights).collect();
    names.sort();
    // macOS keeps attributes of NAME in ._NAME on disks of other systems.
    let (hidden, mut names): (Vec<String>, Vec<String>) = names.into_iter().partition(|n| n.starts_with('.'));
    let found = match open_checkpoint(run, path, &names, &SAFETENSORS, map)? {
        // An adapter, or Mistral's own layout, beside PyTorch's files is not the checkpoint.
        Some(source) if checkpoint::is_other(&source.model.tensors) => {
            open_checkpoint(run, path, &names, &PYTORCH, map)?.or(Some(source))
        }
        Some(source) => Some(source),
        None => open_checkpoint(run, path, &names, &PYTORCH, map)?,
    };
    let found = found.map(|mut source| {
        let (settings, old) = (path.join(checkpoint::CONFIG), disk::aside_name(Path::new(checkpoint::CONFIG)));
        if !settings.exists() && path.join(&old).is_file() {
            source.model.notes.push(format!(
                "there is {} and no {}: a run that was to replace this checkpoint did not end, and the weights may be of two \
                 models",
                old.display(),
                checkpoint::CONFIG
            ));
        }
        source
    });
    let Some(mut source) = found else {
        // An adapter in another format than is looked for here.
        if let Some(adapter) = checkpoint::adapter_alone(path, &other_weights(path)) {
            let (path, what) = (path.display(), adapter.what);
            return Err(Error::refused(format!("{path}: {what}")).or(adapter.hint));
        }
        if let Some(pipeline) = checkpoint::pipeline(path) {
            let (path, what) = (path.display(), pipeline.what);
            return Err(Error::refused(format!("{path}: {what}")).or(pipeline.hint));
        }
        if path.join(checkpoint::CONFIG).is_file() {
            return Ok(checkpoint::settings_only(path));
        }
        let hub_cache = path.join("snapshots").is_dir();
        return Err(Error::NoModel { folder: path.to_path_buf(), others: other_weights(path), hub_cache });
    };
    let read: HashSet<&OsStr> = source.files.iter().filter_map(|f| f.path.file_name()).collect();
    names.extend(hidden);
    names.retain(|n| !read.contains(OsStr::new(n)));
    if let [first, rest @ ..] = &names[..] {
        let others = if rest.is_empty() {
            format!("{first} is")
        } else {
            format!("{first} and {} more are", rest.len())
        };
        let (files, n) = (&source.files, source.files.len());
        let own = files[0].path.file_name().unwrap_or_default().to_string_lossy();
        let more = if n > 1 { format!(" and {} more", n - 1) } else { String::new() };
        source.model.notes.push(format!("{others} not read: the weights are in {own}{more}"));
    }
    Ok(source)
}

/// The checkpoint in a folder, of files of one format; `None` if there are none of these among `names`.
fn open_checkpoint(
    run: &RunFiles,
    path: &Path,
    names: &[String],
    of: &'static Files,
    map: bool,
) -> Result<Option<Source>> {
    let names: Vec<String> = names.iter().filter(|n| n.ends_with(of.ending)).cloned().collect();
    let index = path.join(of.index);
    // Where both are, transformers reads the single file.
    if index.is_file() && !names.iter().any(|n| n == of.single) {
        return Ok(Some(Source { path: path.to_path_buf(), ..open_index(run, &index, of, map)? }));
    }
    if names.is_empty() {
        return Ok(None);
    }
    let chosen = one_checkpoint(path, &names, of.single, of.ending)?;
    let own = chosen.as_ref().unwrap_or(&names);
    let (mut files, mut shards) = open_all(run, Some(path), (&|| own.iter(), own.len()), map, of.read)?;
    if chosen.is_none() && !shards.iter().all(|(_, model)| checkpoint::is_other(&model.tensors)) {
        let own: Vec<bool> = shards.iter().map(|(_, model)| !checkpoint::is_other(&model.tensors)).collect();
        let mut keep = own.iter();
        files.retain(|_| *keep.next().expect("one for each file"));
        let mut keep = own.iter();
        shards.retain(|_| *keep.next().expect("one for each file"));
    }
    Ok(Some(Source::new(path, safetensors::join(shards)?, files)))
}

/// Which of the files in a folder are the checkpoint, by their names, which have this ending; `None` if these do not say.
/// `single` is the name of the only file, or with a number the beginning of the parts' names, in transformers. Some
/// repositories have the weights a second time, under other names (`consolidated.safetensors`), or adapters beside them.
///
/// # Errors
/// [`Error::Refused`] for two complete sets of parts, and for parts of which some are missing.
fn one_checkpoint(
    folder: &Path,
    names: &[String],
    single: &str,
    ending: &str,
) -> Result<Option<Vec<String>>> {
    if names.iter().any(|n| n == single) {
        return Ok(Some(vec![single.into()])); // the file that transformers reads
    }
    let mut sets: BTreeMap<(&str, usize), HashSet<usize>> = BTreeMap::new();
    for name in names {
        let stem = name.strip_suffix(ending).unwrap_or(name);
        if let Some((stem, no, count)) = container::parse_part_stem(stem) {
            sets.entry((stem, count)).or_default().insert(no);
        }
    }
    let whole: Vec<(&str, usize)> =
        sets.iter().filter(|((_, count), parts)| parts.len() == *count).map(|(set, _)| *set).collect();
    let files = |(stem, count): (&str, usize)| -> Vec<String> {
        (0..count).map(|no| format!("{}{ending}", container::part_stem(stem, no, count))).collect()
    };
    let usual = single.strip_suffix(ending).unwrap_or(single);
    let usual: Vec<(&str, usize)> = whole.iter().filter(|(stem, _)| *stem == usual).copied().collect();
    match (&whole[..], &usual[..], sets.first_key_value()) {
        ([one], _, _) | (_, [one], _) => Ok(Some(files(*one))),
        ([first, second, ..], _, _) => {
            let (a, b) = (files(*first).swap_remove(0), files(*second).swap_remove(0));
            Err(Error::refused(format!("{}: there are two models, of {a} and of {b}", folder.display()))
                .or("name a part of the one that is meant"))
        }
        // A name without a number may be a whole model beside a part of another one.
        ([], _, Some((set, parts))) if parts.len() == names.len() => {
            let missing = (0..set.1).find(|no| !parts.contains(no)).unwrap_or(0);
            let names = (0..set.1).map(|no| format!("{}{ending}", container::part_stem(set.0, no, set.1)));
            Err(other::missing_part(folder, names, missing, set.1))
        }
        _ => Ok(None),
    }
}

fn open_index(run: &RunFiles, index: &Path, of: &Files, map: bool) -> Result<Source> {
    let file = run.open(index, map)?;
    if file.len > MAX_INDEX {
        let (name, len) = (file.name(), file.len);
        return Err(Error::refused(format!(
            "{name}: an index must have at most {MAX_INDEX} bytes (found {len})"
        )));
    }
    let json = text_file::strict(file.name(), file.read(0, file.len)?.into_owned())?.text.into_bytes();
    let names = safetensors::read_index(file.name(), &json)?;
    let (files, shards) = open_all(run, index.parent(), (&|| names.iter(), names.len()), map, of.read)?;
    safetensors::check_index(file.name(), &json, &shards)?;
    let mut source = Source::new(index, safetensors::join(shards)?, files);
    source.beside.push(index.to_path_buf());
    Ok(source)
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

/// Reads a file of a checkpoint in safetensors, which may be another by its content.
fn read_safetensors(file: &InFile) -> Result<Model> {
    let start = file.read(0, file.len.min(4096))?;
    let input = Input { name: file.name(), bytes: &start, len: file.len };
    if start.starts_with(b"GGUF") {
        let name = file.name();
        return Err(Error::refused(format!("{name}: is a GGUF by its content, not safetensors"))
            .or("name this file itself rather than its folder; a GGUF has all that belongs to a model"));
    }
    container::is_other(&input).map_or_else(|| file.parse(safetensors::read), |e| Err(e.into()))
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
