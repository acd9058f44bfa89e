//! The first stage: a path becomes a model with open files behind it.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use formats::block::DType;
use formats::container::{self, gguf, llama2c, safetensors};
use formats::model::{ByteOrder, Encoding, Format, Model, Tensor};

use crate::disk::InFile;
use crate::error::{Error, Result};
use crate::kernels;

/// How to open a model.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Read in pieces instead of mapping.
    pub no_mmap: bool,
    /// The tokenizer.bin of a llama2.c checkpoint.
    pub tokenizer: Option<PathBuf>,
}

/// A model and its open files.
pub struct Source {
    /// What was asked for.
    pub path: PathBuf,
    /// What the files say.
    pub model: Model,
    /// The files, in the order that tensors' places refer to.
    pub files: Vec<InFile>,
}

/// The name of the index in a folder of sharded safetensors.
const INDEX: &str = "model.safetensors.index.json";

impl Source {
    /// Opens a GGUF (any part of a split opens all), a safetensors file, a folder of them or its index, a
    /// llama2.c checkpoint or tokenizer.
    ///
    /// # Errors
    /// The system's, or whatever is wrong with the files.
    pub fn open(path: &Path, options: &Options) -> Result<Self> {
        let map = !options.no_mmap;
        let mut source = if path.is_dir() {
            Self::open_folder(path, map)?
        } else if path.file_name().is_some_and(|n| n.to_string_lossy().ends_with(".safetensors.index.json")) {
            Self::open_index(path, map)?
        } else {
            let file = InFile::open(path, map)?;
            let model = file.parse(container::read).map_err(|e| explain(e, &file))?;
            match gguf::split_of(&model.metadata) {
                Some((_, count)) if matches!(model.format, Format::Gguf { .. }) => {
                    Self::open_split(path, file, model, count, map)?
                }
                _ => Self { path: path.to_path_buf(), model, files: vec![file] },
            }
        };
        if let Some(path) = &options.tokenizer {
            let file = InFile::open(path, map)?;
            let tokenizer = file.parse(llama2c::tokenizer::read)?;
            llama2c::tokenizer::attach(&mut source.model, &tokenizer)?;
        }
        Ok(source)
    }

    fn open_split(path: &Path, file: InFile, model: Model, count: u64, map: bool) -> Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let tail = format!("-of-{count:05}.gguf");
        let stem = name.strip_suffix(&tail).and_then(|s| {
            let (stem, no) = s.split_at_checked(s.len().checked_sub(6)?)?;
            (no.starts_with('-') && no[1..].bytes().all(|b| b.is_ascii_digit())).then_some(stem)
        });
        let Some(stem) = stem else {
            let name = path.display();
            return Err(Error::Refused(format!(
                "{name} is part of a split of {count}, but is not named NAME-00001{tail}"
            )));
        };
        let (mut first, mut files, mut shards) = (Some((file, model)), Vec::new(), Vec::new());
        for no in 0..count {
            let path = path.with_file_name(gguf::shard_name(stem, no as usize, count as usize));
            let (file, model) = match first.take_if(|(f, _)| f.path == path) {
                Some(this) => this,
                None => {
                    let file = InFile::open(&path, map)?;
                    let model = file.parse(gguf::read)?;
                    (file, model)
                }
            };
            shards.push((file.name().to_string(), model));
            files.push(file);
        }
        let model = gguf::join(shards)?;
        Ok(Self { path: path.to_path_buf(), model, files })
    }

    fn open_folder(path: &Path, map: bool) -> Result<Self> {
        let index = path.join(INDEX);
        if index.is_file() {
            return Self::open_index(&index, map);
        }
        let entries = std::fs::read_dir(path).map_err(|e| Error::io(path, "read", e))?;
        let mut names: Vec<String> = entries
            .filter_map(|e| e.ok()?.file_name().into_string().ok())
            .filter(|n| n.ends_with(".safetensors"))
            .collect();
        names.sort();
        if names.is_empty() {
            return Err(Error::Refused(format!(
                "{}: no .safetensors in this folder\nname the file itself if it is a GGUF or a llama2.c checkpoint",
                path.display()
            )));
        }
        let (files, shards) = open_all(path, &names, map)?;
        Ok(Self { path: path.to_path_buf(), model: safetensors::join(shards)?, files })
    }

    fn open_index(index: &Path, map: bool) -> Result<Self> {
        let file = InFile::open(index, map)?;
        if file.len > 256 << 20 {
            return Err(Error::Refused(format!("{}: an index of {} bytes", file.name(), file.len)));
        }
        let json = file.read(0, file.len)?;
        let names = safetensors::read_index(file.name(), &json)?;
        let folder = index.parent().unwrap_or(Path::new("."));
        let (files, shards) = open_all(folder, &names, map)?;
        safetensors::check_index(file.name(), &json, &shards)?;
        Ok(Self { path: index.to_path_buf(), model: safetensors::join(shards)?, files })
    }

    /// Bytes of the source's files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.len).sum()
    }

    /// Stored bytes `range` of a tensor, as they are in the file.
    ///
    /// # Errors
    /// The system's.
    pub fn read(&self, tensor: &Tensor, range: std::ops::Range<u64>) -> Result<Cow<'_, [u8]>> {
        let place = tensor.place;
        self.files[place.file].read(place.offset + range.start, range.end - range.start)
    }

    /// What is needed to decode the elements `range` of a tensor, which start and end with a block.
    ///
    /// # Errors
    /// The system's, or that nobody can decode the type.
    pub fn fetch(&self, tensor: &Tensor, range: std::ops::Range<u64>) -> Result<Stored<'_>> {
        Ok(match tensor.encoding {
            Encoding::Blocks(dtype) => {
                let bytes = |n| dtype.bytes_for(n).expect("ranges start and end with a block");
                Stored::Blocks(dtype, self.read(tensor, bytes(range.start)..bytes(range.end))?)
            }
            Encoding::Int8Groups { size } => {
                let size = u64::from(size);
                let (first, last) = (range.start / size, range.end.div_ceil(size));
                let codes = tensor.elements();
                Stored::Groups {
                    codes: self.read(tensor, range.clone())?,
                    scales: self.read(tensor, codes + 4 * first..codes + 4 * last)?,
                    size: size as usize,
                    skip: (range.start % size) as usize,
                }
            }
        })
    }

    /// Advises that a tensor's elements `range` will be fetched soon.
    pub fn will_fetch(&self, tensor: &Tensor, range: std::ops::Range<u64>) {
        let of = |n| match tensor.encoding {
            Encoding::Blocks(dtype) => dtype.bytes_for(n).unwrap_or(0),
            Encoding::Int8Groups { .. } => n,
        };
        let (a, b) = (of(range.start), of(range.end));
        self.files[tensor.place.file].will_read(tensor.place.offset + a, b - a);
    }
}

/// Models with the names of their files.
type Shards = Vec<(String, Model)>;

fn open_all(folder: &Path, names: &[String], map: bool) -> Result<(Vec<InFile>, Shards)> {
    let (mut files, mut shards) = (Vec::new(), Vec::new());
    for name in names {
        let file = InFile::open(&folder.join(name), map)?;
        shards.push((file.name().to_string(), file.parse(safetensors::read)?));
        files.push(file);
    }
    Ok((files, shards))
}

/// A file that is nothing known may be a checkpoint that was cut off.
fn explain(error: Error, file: &InFile) -> Error {
    if let Error::Format(formats::Error { fault: formats::Fault::NotAModel(_), .. }) = &error
        && let Ok(Some(near)) = file.parse(|input| Ok(llama2c::near_miss(input)))
    {
        return Error::Refused(format!("{}: {near}", file.name()));
    }
    error
}

/// A run of a tensor's elements as stored, in the byte order of the source.
pub enum Stored<'a> {
    /// Whole blocks.
    Blocks(DType, Cow<'a, [u8]>),
    /// llama2.c's int8 groups: codes, and the scales of the groups that they touch.
    Groups {
        /// One for each element.
        codes: Cow<'a, [u8]>,
        /// f32 each.
        scales: Cow<'a, [u8]>,
        /// Elements under one scale.
        size: usize,
        /// Elements of the first group that come before the run.
        skip: usize,
    },
}

impl Stored<'_> {
    /// Decodes into `out`, one f32 for each element.
    ///
    /// # Errors
    /// The type can be copied but not decoded.
    pub fn decode(&self, name: &str, order: ByteOrder, out: &mut [f32]) -> Result<()> {
        match self {
            Self::Blocks(dtype, bytes) => {
                let codec = kernels::codec(*dtype).ok_or_else(|| {
                    let t = dtype.name();
                    Error::Refused(format!("tensor {name}: {t} can be copied but not decoded\nkeep its type with --tensor '^{name}$=keep'"))
                })?;
                match order {
                    ByteOrder::Little => codec.decode(bytes, out),
                    ByteOrder::Big => {
                        let mut bytes = bytes.to_vec();
                        dtype.swap(&mut bytes);
                        codec.decode(&bytes, out);
                    }
                }
            }
            Self::Groups { codes, scales, size, skip } => {
                for (i, (x, &q)) in out.iter_mut().zip(codes.iter()).enumerate() {
                    let at = (i + skip) / size * 4;
                    let scale = order.le::<4>(scales[at..at + 4].try_into().expect("four bytes"));
                    *x = f32::from(q as i8) * f32::from_le_bytes(scale);
                }
            }
        }
        Ok(())
    }
}
