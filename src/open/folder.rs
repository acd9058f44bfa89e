//! Which files of a folder are the model. Names say where to look first: those that transformers gives to the only file, to
//! an index and to numbered parts. A set that is not whole gives way to another one that is; where names say nothing, contents
//! do. What is not read is named.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use formats::Fault;
use formats::container::{self, pytorch, safetensors};
use formats::model::{Format, Input, Model};

use super::{Shards, open_all, other};
use crate::checkpoint;
use crate::disk::{self, InFile, RunFiles};
use crate::error::{Error, Result};
use crate::kind;
use crate::source::{Instead, Source, other_weights};
use crate::text;
use crate::text_file;

/// How the files of a checkpoint are called and read.
pub struct Files {
    /// The ending of their names, in small letters.
    pub ending: &'static str,
    /// The name of the only one, in checkpoints of transformers.
    single: &'static str,
    /// The name of the index there, where there are several. In others, the beginning may be another.
    index: &'static str,
    /// Their reader.
    pub read: fn(&InFile) -> Result<Model>,
}

pub const SAFETENSORS: Files = Files {
    ending: ".safetensors",
    single: "model.safetensors",
    index: "model.safetensors.index.json",
    read: |file| read(file, Format::Safetensors),
};

pub const PYTORCH: Files = Files {
    ending: ".bin",
    single: "pytorch_model.bin",
    index: "pytorch_model.bin.index.json",
    read: |file| read(file, Format::PyTorch),
};

/// The end of an index's name, after the ending of the files' names.
pub const INDEX: &str = ".index.json";

/// The longest index that is read, in bytes.
const MAX_INDEX: u64 = 256 << 20;

impl Files {
    /// The files of which this is the index, by its name. That of a variant has its name in the middle:
    /// `model.safetensors.index.fp16.json`.
    pub fn of_index(name: &str) -> Option<&'static Self> {
        let (stem, rest) = name.rsplit_once(".index.")?;
        let is_index = rest.strip_suffix("json").is_some_and(|v| v.is_empty() || v.ends_with('.'));
        [&SAFETENSORS, &PYTORCH].into_iter().find(|f| is_index && stem.ends_with(f.ending))
    }

    /// The name of a part of several taken apart, in small letters: the model's, the part's number from 0, their count.
    fn part(&self, name: &str) -> Option<(String, usize, usize)> {
        let small = name.to_ascii_lowercase();
        let (stem, no, count) = container::parse_part_stem(small.strip_suffix(self.ending)?)?;
        Some((stem.into(), no, count))
    }
}

/// Files that may be the model.
enum Choice {
    /// Those that an index names.
    Index(PathBuf),
    /// These.
    Files(Vec<String>),
    /// The parts of one model, of which some are missing: their names without number, their count, and the names there are.
    Incomplete(String, usize, BTreeMap<usize, String>),
    /// One of several sets: the first file of each.
    Several(Vec<String>),
    /// Those of these that belong to one model, by their contents.
    Odd(Vec<String>),
}

/// Why files are not the model.
enum Failed {
    /// They are not whole, and others may be.
    Incomplete(Error),
    Other(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        let incomplete = match &error {
            Error::MissingPart { .. } | Error::LfsPointer { .. } => true,
            Error::Io { source, .. } => source.kind() == ErrorKind::NotFound,
            Error::Format(e) => matches!(e.fault, Fault::Ends { .. } | Fault::NotAModel(_)),
            _ => false,
        };
        if incomplete { Self::Incomplete(error) } else { Self::Other(error) }
    }
}

/// Opens the model in a folder.
pub fn open_folder(run: &RunFiles, path: &Path, map: bool) -> Result<Source> {
    let entries = std::fs::read_dir(path).map_err(|e| Error::io(path, "read", e))?;
    let is_weights = |n: &String| {
        let small = n.to_ascii_lowercase();
        // Other .bin files are settings and states of training, or llama2.c's.
        let torch = small.trim_start_matches("._").starts_with("pytorch_model");
        (torch && small.ends_with(PYTORCH.ending) || small.ends_with(SAFETENSORS.ending))
            && path.join(n).is_file()
    };
    let mut names: Vec<String> =
        entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).filter(is_weights).collect();
    names.sort();
    // macOS keeps attributes of NAME in ._NAME on disks of other systems.
    let (hidden, mut names): (Vec<String>, Vec<String>) = names.into_iter().partition(|n| n.starts_with('.'));
    let Some(mut source) = best(run, path, &names, map)? else {
        return without_weights(path);
    };
    let (settings, old) = (path.join(checkpoint::CONFIG), disk::aside_name(Path::new(checkpoint::CONFIG)));
    if !settings.exists() && path.join(&old).is_file() {
        source.model.notes.push(format!(
            "there is {} and no {}: a run that was to replace this checkpoint did not end, and the weights may be of two \
             models",
            old.display(),
            checkpoint::CONFIG
        ));
    }
    let read: HashSet<&OsStr> = source.files.iter().filter_map(|f| f.path.file_name()).collect();
    names.extend(hidden);
    names.retain(|n| !read.contains(OsStr::new(n)));
    if let [first, rest @ ..] = &names[..] {
        let others = if rest.is_empty() {
            format!("{first} is")
        } else {
            format!("{first} and {} more are", rest.len())
        };
        source.model.notes.push(format!("{others} not read: the weights are in {}", first_of(&source)));
    }
    Ok(source)
}

/// The name of the first file with a model's weights, and how many more there are.
fn first_of(source: &Source) -> String {
    let own = source.files[0].path.file_name().unwrap_or_default().to_string_lossy();
    let n = source.files.len();
    let more = if n > 1 { format!(" and {} more", n - 1) } else { String::new() };
    format!("{own}{more}")
}

/// The first of a folder's sets of files with weights that is whole and a model; `None` if it has no such files.
fn best(run: &RunFiles, path: &Path, names: &[String], map: bool) -> Result<Option<Source>> {
    let mut failed: Option<Error> = None;
    let mut other = None;
    for of in [&SAFETENSORS, &PYTORCH] {
        let is_of = |n: &&String| n.to_ascii_lowercase().ends_with(of.ending);
        let names: Vec<String> = names.iter().filter(is_of).cloned().collect();
        for choice in choices(path, &names, of) {
            match open_choice(run, path, choice, of, map) {
                // An adapter, or Mistral's own layout, beside PyTorch's files is not the checkpoint.
                Ok(source) if checkpoint::is_other(&source.model.tensors) => {
                    other.get_or_insert(source);
                }
                Ok(mut source) => {
                    let name = first_of(&source);
                    let note = |error| format!("{error}: so the weights are read from {name}");
                    source.model.notes.extend(failed.map(note));
                    return Ok(Some(source));
                }
                Err(Failed::Incomplete(error)) => {
                    failed.get_or_insert(error);
                }
                Err(Failed::Other(error)) => return Err(error),
            }
        }
    }
    match (failed, other) {
        (Some(error), _) => Err(error),
        (None, other) => Ok(other),
    }
}

/// What a folder without files of weights is.
fn without_weights(path: &Path) -> Result<Source> {
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
    let instead = Instead::of(path);
    Err(Error::NoModel { folder: path.to_path_buf(), what: instead.what, hint: instead.hint })
}

/// The sets of files in a folder that may be the checkpoint, by their names, which have the ending of these files: the best
/// first. transformers reads the single file where there is an index too. Some repositories have the weights a second time,
/// under other names (`consolidated.safetensors`), or adapters beside them.
fn choices(folder: &Path, names: &[String], of: &Files) -> Vec<Choice> {
    let mut found = Vec::new();
    // Of two names that differ in the case of letters alone, the smaller letters come first.
    let single = names.iter().rev().find(|n| n.eq_ignore_ascii_case(of.single));
    found.extend(single.map(|name| Choice::Files(vec![name.clone()])));
    let index = folder.join(of.index);
    found.extend(index.is_file().then_some(Choice::Index(index)));
    let named = !found.is_empty();
    let mut sets: BTreeMap<(String, usize), BTreeMap<usize, String>> = BTreeMap::new();
    let mut numbered = 0;
    for name in names.iter().rev() {
        if let Some((stem, no, count)) = of.part(name) {
            sets.entry((stem, count)).or_default().entry(no).or_insert_with(|| name.clone());
            numbered += 1;
        }
    }
    let usual = |set: &&(String, usize)| of.single.strip_suffix(of.ending) == Some(&set.0);
    let whole: Vec<&(String, usize)> =
        sets.iter().filter(|(set, parts)| parts.len() == set.1).map(|(set, _)| set).collect();
    let of_usual: Vec<&(String, usize)> = whole.iter().copied().filter(usual).collect();
    let files = |set: &(String, usize)| Choice::Files(sets[set].values().cloned().collect());
    match (&whole[..], &of_usual[..]) {
        (_, [one]) => found.push(files(one)),
        // A set of another name is another model.
        _ if named => {}
        ([one], _) => found.push(files(one)),
        ([_, _, ..], _) => {
            found.push(Choice::Several(whole.iter().map(|set| sets[*set][&0].clone()).collect()))
        }
        ([], _) if numbered == 0 => {}
        // A name without a number may be a whole model beside a part of another one.
        ([], _) if numbered == names.len() => {
            let (set, parts) = sets.pop_first().expect("some have numbers");
            found.push(Choice::Incomplete(set.0, set.1, parts));
        }
        ([], _) => {}
    }
    if found.is_empty() && !names.is_empty() {
        found.push(Choice::Odd(names.to_vec()));
    }
    found
}

fn open_choice(
    run: &RunFiles,
    path: &Path,
    choice: Choice,
    of: &'static Files,
    map: bool,
) -> std::result::Result<Source, Failed> {
    match choice {
        Choice::Index(index) => Ok(Source { path: path.to_path_buf(), ..of_index(run, &index, of, map)? }),
        Choice::Files(names) => {
            let (files, shards) = open_all(run, Some(path), (&|| names.iter(), names.len()), map, of.read)?;
            Ok(Source::new(path, safetensors::join(shards).map_err(Error::from)?, files))
        }
        Choice::Incomplete(stem, count, parts) => Err(missing(path, &stem, count, &parts, of).into()),
        Choice::Several(first) => {
            let folder = path.display();
            let all = text::first_of(&first, 3);
            let n = if first.len() == 2 { "two".into() } else { first.len().to_string() };
            let why = format!("{folder}: there are {n} models: those that begin with {all}");
            let hint = format!("name a part of the one that is meant: {}", path.join(&first[0]).display());
            Err(Failed::Other(Error::refused(why).or(hint)))
        }
        Choice::Odd(names) => open_odd(run, path, names, of, map),
    }
}

/// The error for parts of which some are missing, by those that are there.
fn missing(folder: &Path, stem: &str, count: usize, parts: &BTreeMap<usize, String>, of: &Files) -> Error {
    let missing = (0..count).find(|no| !parts.contains_key(no)).unwrap_or(0);
    let name = |no| match parts.get(&no) {
        Some(name) => name.clone(),
        None => format!("{}{}", container::part_stem(stem, no, count), of.ending),
    };
    other::missing_part(folder, (0..count).map(name), missing, count)
}

/// The model in files whose names do not say what they are: those that are known to be something else are left out, and so are
/// the parts of an incomplete model beside a whole one.
///
/// # Errors
/// [`Error::Refused`] for several whole models.
fn open_odd(
    run: &RunFiles,
    path: &Path,
    names: Vec<String>,
    of: &'static Files,
    map: bool,
) -> std::result::Result<Source, Failed> {
    let (files, shards) = open_all(run, Some(path), (&|| names.iter(), names.len()), map, of.read)?;
    let mut all: Vec<(String, InFile, (String, Model))> =
        names.into_iter().zip(files).zip(shards).map(|((name, file), shard)| (name, file, shard)).collect();
    if !all.iter().all(|(.., (_, model))| checkpoint::is_other(&model.tensors)) {
        let before = all.len();
        all.retain(|(.., (_, model))| !checkpoint::is_other(&model.tensors));
        let left: Vec<String> = all.iter().map(|(name, ..)| name.clone()).collect();
        // Without the others, names may say what the rest is.
        if left.len() < before
            && let Some(choice) = choices(path, &left, of).into_iter().find(|c| !matches!(c, Choice::Odd(_)))
        {
            return open_choice(run, path, choice, of, map);
        }
    }
    // One file under two names.
    let mut stamps = Vec::new();
    all.retain(|(_, file, _)| {
        let new = !stamps.contains(&file.stamp);
        stamps.push(file.stamp.clone());
        new
    });
    let is_part = |name: &str| of.part(name).is_some();
    if !twice(&all).is_empty() && all.iter().any(|(name, ..)| !is_part(name)) {
        all.retain(|(name, ..)| !is_part(name));
    }
    let twice = twice(&all);
    if let [first, .., last] = &twice[..] {
        let named = text::first_of(&twice, 3);
        let why = format!("{}: there are several models: {named} have the same tensors", path.display());
        let (first, last) = (path.join(first), path.join(last));
        let hint = format!("name the file that is meant: {} or {}", first.display(), last.display());
        return Err(Failed::Other(Error::refused(why).or(hint)));
    }
    let (files, shards): (Vec<InFile>, Shards) =
        all.into_iter().map(|(_, file, shard)| (file, shard)).unzip();
    Ok(Source::new(path, safetensors::join(shards).map_err(Error::from)?, files))
}

/// The names of the files that have a tensor which another one of them has too.
fn twice(all: &[(String, InFile, (String, Model))]) -> Vec<String> {
    let mut of: HashMap<&str, usize> = HashMap::new();
    let mut found = vec![false; all.len()];
    for (i, (.., (_, model))) in all.iter().enumerate() {
        for tensor in &model.tensors {
            let first = *of.entry(&tensor.name).or_insert(i);
            if first != i {
                (found[first], found[i]) = (true, true);
            }
        }
    }
    all.iter().zip(found).filter(|(_, twice)| *twice).map(|((name, ..), _)| name.clone()).collect()
}

/// Opens the files that an index names, as one model.
pub fn open_index(run: &RunFiles, index: &Path, of: &Files, map: bool) -> Result<Source> {
    of_index(run, index, of, map).map_err(|failed| match failed {
        Failed::Incomplete(error) | Failed::Other(error) => error,
    })
}

/// The same; an index that cannot be read is a set that is not whole.
fn of_index(run: &RunFiles, index: &Path, of: &Files, map: bool) -> std::result::Result<Source, Failed> {
    let file = run.open(index, map)?;
    if file.len > MAX_INDEX {
        let (name, len) = (file.name(), file.len);
        let why = format!("{name}: an index must have at most {MAX_INDEX} bytes (found {len})");
        return Err(Failed::Incomplete(Error::refused(why)));
    }
    let wrong = |e: formats::Error| {
        Error::refused(e.to_string()).or(
            "an index only says which file has which tensor: without it, the parts in a folder are known by the numbers in their \
             names. Download it again, or move it elsewhere and name the folder",
        )
    };
    let json =
        text_file::strict(file.name(), file.read(0, file.len)?.into_owned()).map_err(Failed::Incomplete)?;
    let json = json.text.into_bytes();
    let names = safetensors::read_index(file.name(), &json).map_err(|e| Failed::Incomplete(wrong(e)))?;
    let (files, shards) = open_all(run, index.parent(), (&|| names.iter(), names.len()), map, of.read)?;
    safetensors::check_index(file.name(), &json, &shards).map_err(wrong)?;
    let mut source = Source::new(index, safetensors::join(shards).map_err(Error::from)?, files);
    source.beside.push(index.to_path_buf());
    Ok(source)
}

/// Reads a file of a checkpoint, which may be of another format by its content.
fn read(file: &InFile, expected: Format) -> Result<Model> {
    let start = file.read(0, file.len.min(4096))?;
    let input = Input { name: file.name(), bytes: &start, len: file.len };
    if start.starts_with(b"GGUF") {
        let name = file.name();
        return Err(Error::refused(format!("{name}: is a GGUF by its content, whatever its name")).or(
            format!(
                "name this file itself rather than its folder: {name}; a GGUF has all that belongs to a model"
            ),
        ));
    }
    let is_text = start.len() >= 8 && kind::may_be_text(&start);
    let anything = expected == Format::PyTorch
        || is_text
        || pytorch::looks_like(&input)
        || container::is_other(&input).is_some();
    let mut model = if anything { super::read(file)? } else { file.parse(safetensors::read)? };
    if model.format != expected && matches!(model.format, Format::Safetensors | Format::PyTorch) {
        let name = file.path.file_name().unwrap_or_default().to_string_lossy();
        model.notes.push(format!("{name} is {} by its content, whatever its name", model.format));
    }
    Ok(model)
}
