//! A model with its open files: GGUF's tensor names and metadata keys whatever the format. [`crate::open()`] makes one
//! of a path.

pub(crate) mod foreign;
mod hub;
mod instead;
pub mod sample;
pub mod scales;
mod stored;
pub mod view;

use std::borrow::Cow;
use std::ops::Range;
use std::path::{Path, PathBuf};

use formats::block::i2_s;
use formats::model::{Encoding, Format, Model, Tensor};

use crate::arch::rotated;
use crate::disk::{InFile, RunFiles};
use crate::error::{Error, Result};
pub use hub::{Export, Hub};
pub use instead::{Instead, other_weights};
pub use stored::Stored;
pub use view::View;

/// What weights are that are no model which can be read: an adapter, another program's layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// What they are, as the end of a sentence that begins with their path: "is a LoRA adapter, not a model".
    pub what: String,
    /// How a model comes of them.
    pub hint: String,
    /// What can be done with them nevertheless.
    pub remains: Use,
}

/// What can be done with weights that are no model. That nothing can run them holds for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Their tensors can be copied as safetensors.
    Tensors,
    /// A whole model, whose tensors can be put into a GGUF, under the names that they have, if the user names an architecture.
    Named,
    /// A GGUF for other purposes, which can be copied as it is.
    Copies,
    /// What can be copied, and quantized to a GGUF for programs other than llama.cpp.
    Types,
}

/// A model and its open files.
pub struct Source {
    /// The path that was opened.
    pub path: PathBuf,
    /// Metadata and tensors.
    pub model: Model,
    /// The files with the weights; a tensor's location has an index into these.
    pub files: Vec<InFile>,
    /// Files that were read besides: an index, a tokenizer, settings.
    pub beside: Vec<PathBuf>,
    /// A view for each tensor that is not used as it is stored. As long as the list of tensors, or empty if there is
    /// none.
    pub views: Vec<Option<View>>,
    /// Whether there are settings only: tensors have shapes, but no bytes.
    pub weightless: bool,
    /// What the weights are, where they are known to be no model that can be read. Their tensors can be copied.
    pub foreign: Option<Foreign>,
    /// The files of the run that reads it.
    pub run: RunFiles,
    /// What the checkpoint says, where the source is a Hugging Face checkpoint.
    pub hub: Option<Hub>,
    /// The files of the checkpoint besides its weights, where its tensors were left as they were filed: they hold for a copy
    /// of the very same tensors. The settings are the last.
    pub filed: Vec<PathBuf>,
    /// The option that gave the tokenizer, or its pre-tokenizer, where that is not the source's own.
    pub tokenizer_option: Option<&'static str>,
    /// What is written besides the weights, where the result is to be a Hugging Face checkpoint.
    pub export: Option<Export>,
}

/// The number of matrices in a tensor: the product of all dimensions but the last two (experts are stacked), else 1.
pub fn stacked(t: &Tensor) -> u64 {
    t.shape[..t.shape.len().saturating_sub(2)].iter().product()
}

impl Source {
    pub(crate) fn new(path: &Path, model: Model, files: Vec<InFile>) -> Self {
        Self {
            path: path.to_path_buf(),
            model,
            files,
            beside: Vec::new(),
            views: Vec::new(),
            weightless: false,
            foreign: None,
            run: RunFiles::default(),
            hub: None,
            filed: Vec::new(),
            tokenizer_option: None,
            export: None,
        }
    }

    /// Whether the tensors have GGUF's names: all that were given these when they were opened, and the safetensors that were
    /// made of a GGUF, but no checkpoint whose tensors were left as they were filed.
    pub fn has_gguf_names(&self) -> bool {
        let own = matches!(self.model.format, Format::Safetensors | Format::PyTorch);
        !own || self.filed.is_empty() && self.model.metadata.get("general.architecture").is_some()
    }

    /// The context length that the model was made for, in tokens; `None` if its metadata does not say.
    pub fn context_length(&self) -> Option<usize> {
        let arch = self.model.metadata.text("general.architecture").unwrap_or("llama");
        let length = self.model.metadata.get(&format!("{arch}.context_length"))?.as_u64()?;
        usize::try_from(length).ok().filter(|n| *n > 0)
    }

    /// The tokens of each chunk of a text, with a note for the user if the model's context length matters. `given` is what
    /// the user asked for with `option`; otherwise chunks have `usual` tokens, or as many as the model was made for.
    /// Beyond its context length, most models predict nearly at random, and every figure is of that.
    pub fn chunk_length(&self, given: Option<usize>, usual: usize, option: &str) -> (usize, Option<String>) {
        let most = self.context_length().unwrap_or(usize::MAX);
        let note = match given {
            Some(n) if n > most => format!(
                "the chunks have {n} tokens, but the model's context length is {most}, and its predictions beyond that \
                 are worth little: use {option} {most}"
            ),
            None if usual > most => {
                format!(
                    "the chunks have {most} tokens, the model's context length, instead of {usual} ({option})"
                )
            }
            _ => return (given.unwrap_or(usual), None),
        };
        (given.unwrap_or(most), Some(note))
    }

    /// The output matrix, if it has the very bytes of the token embedding: then embeddings are tied, whatever the file says.
    ///
    /// # Errors
    /// Those of [`Self::read`].
    pub fn output_is_embedding(&self) -> Result<Option<usize>> {
        const STEP: u64 = 1 << 20;
        let find = |name: &str| self.model.tensors.iter().position(|t| t.name == name);
        let (Some(output), Some(embedding)) = (find("output.weight"), find("token_embd.weight")) else {
            return Ok(None);
        };
        let [a, b] = [output, embedding].map(|i| &self.model.tensors[i]);
        if self.weightless || (&a.shape, a.encoding, a.location.len) != (&b.shape, b.encoding, b.location.len)
        {
            return Ok(None);
        }
        for start in (0..a.location.len).step_by(STEP as usize) {
            let range = start..a.location.len.min(start + STEP);
            if self.read(output, range.clone())? != self.read(embedding, range)? {
                return Ok(None);
            }
        }
        Ok(Some(output))
    }

    /// Refuses a source that has settings only.
    ///
    /// # Errors
    /// [`Error::NoWeights`].
    pub fn need_weights(&self) -> Result<()> {
        if !self.weightless {
            return Ok(());
        }
        let Instead { what, hint } = Instead::of(&self.path);
        Err(Error::NoWeights { path: self.path.clone(), what, hint })
    }

    /// Refuses weights that are known to be no model. `named`: whether the user has named the architecture of tensors
    /// whose settings are missing.
    ///
    /// # Errors
    /// [`Error::Refused`] with what they are, and how a model comes of them.
    pub fn need_model(&self, named: bool) -> Result<()> {
        match &self.foreign {
            Some(foreign) if !(named && foreign.remains == Use::Named) => Err(self.is_foreign(foreign)),
            _ => Ok(()),
        }
    }

    /// The same for writing a file that is no checkpoint. `copied`: whether it is a GGUF with the types of this one.
    ///
    /// # Errors
    /// Those of [`Self::need_model`].
    pub fn need_model_to_write(&self, named: bool, copied: bool) -> Result<()> {
        match &self.foreign {
            Some(Foreign { remains: Use::Types, .. }) => Ok(()),
            Some(Foreign { remains: Use::Copies, .. }) if copied => Ok(()),
            _ => self.need_model(named),
        }
    }

    fn is_foreign(&self, foreign: &Foreign) -> Error {
        let (path, what) = (self.path.display(), &foreign.what);
        Error::refused(format!("{path}: {what}")).or(&foreign.hint)
    }

    /// Refuses a model whose weights are stored rotated. `done` is what cannot be done with it.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn refuse_rotated(&self, done: &str) -> Result<()> {
        let Some(key) = rotated(&self.model.metadata) else { return Ok(()) };
        let file = self.path.display();
        Err(Error::refused(format!(
            "{file}: the weights are stored rotated ({key}) and mean nothing without that rotation, so the model cannot be {done}"
        ))
        .or("use PrismML's fork of llama.cpp, or start from the model's original checkpoint"))
    }

    /// The paths of all files that were read.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|f| &*f.path).chain(self.beside.iter().map(|p| &**p))
    }

    /// Bytes of the source's files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.len).sum()
    }

    /// The view of tensor `i`; `None` if it is used as it is stored.
    fn view(&self, i: usize) -> Option<&View> {
        self.views.get(i).and_then(Option::as_ref)
    }

    /// The name of the stored type of tensor `i`, for reports.
    pub fn stored_as(&self, i: usize) -> String {
        self.view(i).map_or_else(|| self.model.tensors[i].encoding.name(), View::name)
    }

    /// Bytes `range` of tensor `i`, in the byte order of the source.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read; [`Error::NotFinite`] and [`Error::InvalidCode`] for computed weights.
    pub fn read(&self, i: usize, range: Range<u64>) -> Result<Cow<'_, [u8]>> {
        let t = &self.model.tensors[i];
        self.view(i).map_or_else(|| self.stored_read(t, range.clone()), |v| v.read(self, t, range.clone()))
    }

    /// The stored bytes from which the elements `range` of tensor `i` can be decoded. The range starts and ends at the
    /// boundary of a block.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read; [`Error::UnsupportedType`] where a view decodes a type that cannot be.
    pub fn fetch(&self, i: usize, range: Range<u64>) -> Result<Stored<'_>> {
        let t = &self.model.tensors[i];
        self.view(i).map_or_else(|| self.stored_fetch(t, range.clone()), |v| v.fetch(self, t, range.clone()))
    }

    /// Advises the operating system that bytes `range` of tensor `i` will be read soon.
    pub fn will_read(&self, i: usize, range: Range<u64>) {
        // Reordered rows stay near their offset; what is computed from other bytes is small.
        let t = self.view(i).map_or(&self.model.tensors[i], |v| &v.stored);
        let (start, end) = (range.start.min(t.location.len), range.end.min(t.location.len));
        if let Some(file) = self.files.get(t.location.file) {
            file.will_read(t.location.offset + start, end - start);
        }
    }

    /// Advises the operating system that elements `range` of tensor `i` will be fetched soon.
    pub fn will_fetch(&self, i: usize, range: Range<u64>) {
        let of = |n| match self.model.tensors[i].encoding {
            Encoding::Blocks(dtype) => dtype.bytes_for(n).unwrap_or(0),
            Encoding::Int8Groups { .. } => n,
            Encoding::I2S => n / 4,
            Encoding::Foreign(f) => f.bytes_for(n).unwrap_or(0),
        };
        self.will_read(i, of(range.start)..of(range.end));
    }

    /// Bytes `range` of a tensor as a file has it, whatever its view.
    pub(crate) fn stored_read(&self, t: &Tensor, range: Range<u64>) -> Result<Cow<'_, [u8]>> {
        self.files[t.location.file].read(t.location.offset + range.start, range.end - range.start)
    }

    /// Elements `range` of a tensor as a file has it, whatever its view.
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
            Encoding::Foreign(_) => unreachable!("{} has a view with the blocks of a type", t.name),
        })
    }
}
