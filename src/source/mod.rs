//! The first stage: a path becomes a model with open files behind it.

pub mod scales;
mod stored;
pub mod view;

use std::borrow::Cow;
use std::ops::Range;
use std::path::{Path, PathBuf};

use formats::block::i2_s;
use formats::container::{self, gguf, llama2c, safetensors};
use formats::model::{Encoding, Format, Input, Model, Tensor};

use crate::disk::InFile;
use crate::error::{Error, Result};
use crate::hub::{self, Export, Hub};
pub use stored::Stored;
pub use view::View;

/// How to open a model.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Read in pieces instead of mapping.
    pub no_mmap: bool,
    /// The tokenizer.bin of a llama2.c checkpoint.
    pub tokenizer: Option<PathBuf>,
    /// The pre-tokenizer's name in GGUF, where a checkpoint's own is not recognised.
    pub pre_tokenizer: Option<String>,
    /// Leave the tensors of a Hugging Face checkpoint under its names and in its order.
    pub as_filed: bool,
}

/// A model and its open files.
pub struct Source {
    /// What was asked for.
    pub path: PathBuf,
    /// What the files say.
    pub model: Model,
    /// The files, in the order that tensors' places refer to.
    pub files: Vec<InFile>,
    /// Files that were read besides: an index, a tokenizer, settings.
    pub beside: Vec<PathBuf>,
    /// One for each tensor, or none at all where every tensor is what is stored.
    pub views: Vec<Option<View>>,
    /// Whether there are settings only: tensors have shapes, and no bytes anywhere.
    pub weightless: bool,
    /// What the checkpoint says, where the source is one of Hugging Face's.
    pub hub: Option<Hub>,
    /// What is written besides the weights, where the result is to be such a checkpoint.
    pub export: Option<Export>,
}

/// How many matrices are stacked in a tensor; one in what is none.
pub fn stacked(t: &Tensor) -> u64 {
    t.shape[..t.shape.len().saturating_sub(2)].iter().product()
}

/// The ending of the index of sharded safetensors.
const INDEX: &str = "safetensors.index.json";

impl Source {
    /// Opens a GGUF or safetensors file (any part of a split opens all), a folder of safetensors or its index, a
    /// llama2.c checkpoint or tokenizer.
    ///
    /// # Errors
    /// The system's, or whatever is wrong with the files.
    pub fn open(path: &Path, options: &Options) -> Result<Self> {
        let map = !options.no_mmap;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut source = if path.is_dir() {
            Self::open_folder(path, map)?
        } else if name.ends_with(INDEX) {
            Self::open_index(path, map)?
        } else {
            Self::open_file(path, map)?
        };
        let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
        // Safetensors that were made of a GGUF say what they are themselves.
        let checkpoint = source.model.format == Format::Safetensors
            && source.model.metadata.get("general.architecture").is_none()
            && folder.join(hub::CONFIG).is_file();
        if checkpoint && !options.as_filed {
            source = hub::translate(source, folder, options)?;
        }
        if matches!(source.model.format, Format::Gguf { .. }) {
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

    pub(crate) fn new(path: &Path, model: Model, files: Vec<InFile>) -> Self {
        Self {
            path: path.to_path_buf(),
            model,
            files,
            beside: Vec::new(),
            views: Vec::new(),
            weightless: false,
            hub: None,
            export: None,
        }
    }

    /// A file, with the other parts if it is one of several.
    fn open_file(path: &Path, map: bool) -> Result<Self> {
        let file = InFile::open(path, map)?;
        let model = file.parse(container::read).map_err(|e| explain(e, &file))?;
        let part = path.file_stem().and_then(|s| s.to_str()).and_then(container::parse_part_stem);
        match model.format {
            Format::Gguf { .. } => match (gguf::split_of(&model.metadata), part) {
                (None, _) => Ok(Self::new(path, model, vec![file])),
                (Some((_, count)), Some((stem, _, named))) if count == named as u64 => {
                    let names = part_names(stem, named, "gguf");
                    let (files, shards) = open_all(path.parent(), &names, map, gguf::read)?;
                    Ok(Self::new(path, gguf::join(shards)?, files))
                }
                (Some((no, count)), _) => {
                    let why =
                        format!("{} is part {} of a split of {count}, by its contents", file.name(), no + 1);
                    let wanted = container::part_stem("NAME", no as usize, count as usize);
                    Err(Error::refused(why).or(format!("name it {wanted}.gguf, beside the other parts")))
                }
            },
            Format::Safetensors => match part {
                Some((stem, _, count)) if count > 1 => {
                    let index = path.with_file_name(format!("{stem}.{INDEX}"));
                    if index.is_file() {
                        return Self::open_index(&index, map);
                    }
                    let (files, shards) = open_all(
                        path.parent(),
                        &part_names(stem, count, "safetensors"),
                        map,
                        safetensors::read,
                    )?;
                    Ok(Self::new(path, safetensors::join(shards)?, files))
                }
                _ => Ok(Self::new(path, model, vec![file])),
            },
            _ => Ok(Self::new(path, model, vec![file])),
        }
    }

    fn open_folder(path: &Path, map: bool) -> Result<Self> {
        let index = path.join(format!("model.{INDEX}"));
        // Where both are, transformers reads the single file.
        if index.is_file() && !path.join("model.safetensors").is_file() {
            return Self::open_index(&index, map);
        }
        let entries = std::fs::read_dir(path).map_err(|e| Error::io(path, "read", e))?;
        let mut names: Vec<String> = entries
            .filter_map(|e| e.ok()?.file_name().into_string().ok())
            .filter(|n| n.ends_with(".safetensors"))
            .collect();
        names.sort();
        if names.is_empty() && path.join(hub::CONFIG).is_file() {
            return Ok(hub::settings_only(path));
        }
        if names.is_empty() {
            let hint = match path.join("snapshots").is_dir() {
                true => "this is a hub's cache: name the folder in snapshots/ that has config.json",
                false => "name the file itself if it is a GGUF or a llama2.c checkpoint",
            };
            return Err(
                Error::refused(format!("{}: no .safetensors in this folder", path.display())).or(hint)
            );
        }
        // Where a hub offers the weights a second time (consolidated.safetensors), this is the file that its
        // own library reads.
        let mut note = None;
        if names.len() > 1 && names.iter().any(|n| n == "model.safetensors") {
            note =
                Some(format!("{} other .safetensors beside model.safetensors are not read", names.len() - 1));
            names = vec!["model.safetensors".into()];
        }
        let (files, shards) = open_all(Some(path), &names, map, safetensors::read)?;
        let mut source = Self::new(path, safetensors::join(shards)?, files);
        source.model.notes.extend(note);
        Ok(source)
    }

    fn open_index(index: &Path, map: bool) -> Result<Self> {
        let file = InFile::open(index, map)?;
        if file.len > 256 << 20 {
            return Err(Error::refused(format!("{}: an index of {} bytes", file.name(), file.len)));
        }
        let json = file.read(0, file.len)?;
        let names = safetensors::read_index(file.name(), &json)?;
        let (files, shards) = open_all(index.parent(), &names, map, safetensors::read)?;
        safetensors::check_index(file.name(), &json, &shards)?;
        let mut source = Self::new(index, safetensors::join(shards)?, files);
        source.beside.push(index.to_path_buf());
        Ok(source)
    }

    /// Refuses settings without weights, where weights are what it is about.
    ///
    /// # Errors
    /// There are none.
    pub fn need_weights(&self) -> Result<()> {
        if !self.weightless {
            return Ok(());
        }
        Err(Error::refused(format!("{}: has settings but no weights", self.path.display()))
            .or("without them only --dry-run works; weights are read from .safetensors"))
    }

    /// Bytes of the source's files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.len).sum()
    }

    /// The view of tensor `i`, if it is not simply what is stored.
    fn view(&self, i: usize) -> Option<&View> {
        self.views.get(i).and_then(Option::as_ref)
    }

    /// What the stored form of tensor `i` is called.
    pub fn stored_as(&self, i: usize) -> String {
        self.view(i).map_or_else(|| self.model.tensors[i].encoding.name(), View::name)
    }

    /// Bytes `range` of tensor `i`, in the byte order of the source.
    ///
    /// # Errors
    /// The system's.
    pub fn read(&self, i: usize, range: Range<u64>) -> Result<Cow<'_, [u8]>> {
        let t = &self.model.tensors[i];
        self.view(i).map_or_else(|| self.stored_read(t, range.clone()), |v| v.read(self, t, range.clone()))
    }

    /// What is needed to decode the elements `range` of tensor `i`, which start and end with a block.
    ///
    /// # Errors
    /// The system's, or that nobody can decode the type.
    pub fn fetch(&self, i: usize, range: Range<u64>) -> Result<Stored<'_>> {
        let t = &self.model.tensors[i];
        self.view(i).map_or_else(|| self.stored_fetch(t, range.clone()), |v| v.fetch(self, t, range.clone()))
    }

    /// Advises that bytes `range` of tensor `i` will be read soon.
    pub fn will_read(&self, i: usize, range: Range<u64>) {
        // Rows that are put in order stay near their place; what is computed from other bytes is small.
        let t = self.view(i).map_or(&self.model.tensors[i], |v| &v.stored);
        let (start, end) = (range.start.min(t.place.len), range.end.min(t.place.len));
        if let Some(file) = self.files.get(t.place.file) {
            file.will_read(t.place.offset + start, end - start);
        }
    }

    /// Advises that elements `range` of tensor `i` will be fetched soon.
    pub fn will_fetch(&self, i: usize, range: Range<u64>) {
        let of = |n| match self.model.tensors[i].encoding {
            Encoding::Blocks(dtype) => dtype.bytes_for(n).unwrap_or(0),
            Encoding::Int8Groups { .. } => n,
            Encoding::I2S => n / 4,
        };
        self.will_read(i, of(range.start)..of(range.end));
    }

    /// Bytes of a tensor as a file has it.
    pub(crate) fn stored_read(&self, t: &Tensor, range: Range<u64>) -> Result<Cow<'_, [u8]>> {
        self.files[t.place.file].read(t.place.offset + range.start, range.end - range.start)
    }

    /// Elements of a tensor as a file has it.
    pub(crate) fn stored_fetch(&self, t: &Tensor, range: Range<u64>) -> Result<Stored<'_>> {
        Ok(match t.encoding {
            Encoding::Blocks(dtype) => {
                let bytes = |n| dtype.bytes_for(n).expect("ranges start and end with a block");
                Stored::Blocks(dtype, self.stored_read(t, bytes(range.start)..bytes(range.end))?)
            }
            Encoding::Int8Groups { size } => {
                let size = u64::from(size);
                let (first, last) = (range.start / size, range.end.div_ceil(size));
                let codes = t.elements();
                Stored::Groups {
                    codes: self.stored_read(t, range.clone())?,
                    scales: self.stored_read(t, codes + 4 * first..codes + 4 * last)?,
                    size: size as usize,
                    skip: (range.start % size) as usize,
                }
            }
            Encoding::I2S => {
                let block = i2_s::WEIGHTS as u64;
                let bytes = |n: u64| n / block * i2_s::BYTES as u64;
                let (first, last) = (bytes(range.start), bytes(range.end.next_multiple_of(block)));
                let scale = t.elements() / 4;
                Stored::Ternary {
                    codes: self.stored_read(t, first..last)?,
                    scale: self.stored_read(t, scale..scale + 4)?,
                    skip: (range.start % block) as usize,
                }
            }
        })
    }
}

/// Models with the names of their files.
type Shards = Vec<(String, Model)>;

fn part_names(stem: &str, count: usize, ending: &str) -> Vec<String> {
    (0..count).map(|no| format!("{}.{ending}", container::part_stem(stem, no, count))).collect()
}

fn open_all(
    folder: Option<&Path>,
    names: &[String],
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

/// A file that is nothing known may be a checkpoint that was cut off.
fn explain(error: Error, file: &InFile) -> Error {
    if let Error::Format(formats::Error { fault: formats::Fault::NotAModel(_), .. }) = &error
        && let Ok(Some(near)) = file.parse(|input| Ok(llama2c::near_miss(input)))
    {
        return Error::refused(format!("{}: {near}", file.name()));
    }
    error
}
