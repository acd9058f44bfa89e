//! The model that a command reads.

use std::path::{Path, PathBuf};

use clap::Args;
use ggufkit::arch::{ignored_settings_note, unknown_tensors_note};
use ggufkit::checkpoint::setting_notes;
use ggufkit::disk::RunFiles;
use ggufkit::source::Source;
use ggufkit::tokenizer::{doubts, pre_tokenizer_note};
use ggufkit::{Options, Result, open_in, plan};

use super::super::{advice, note};

/// What was unusual about a model's files, and what they leave open, for the running command's user. With what a command
/// that runs the model refuses by itself.
pub fn notes(source: &Source) -> Vec<String> {
    let (metadata, tensors) = (&source.model.metadata, &source.model.tensors);
    let refused = [pre_tokenizer_note(metadata), unknown_tensors_note(metadata, tensors)];
    said(notes_to_run(source).chain(setting_notes(source)).chain(refused.into_iter().flatten()))
}

/// What was unusual about a model's files, and what they leave open, where the model can be run.
fn notes_to_run(source: &Source) -> impl Iterator<Item = String> {
    let metadata = &source.model.metadata;
    source.model.notes.iter().cloned().chain(doubts(metadata)).chain(ignored_settings_note(metadata))
}

/// Notes as the running command says them.
fn said(notes: impl Iterator<Item = String>) -> Vec<String> {
    notes.map(|text| advice::note(&text).into_owned()).collect()
}

/// The model that a command reads, and how.
#[derive(Debug, Args)]
pub struct Input {
    /// The model: a Hugging Face checkpoint folder, a .gguf (any shard of a split model), a .safetensors, or a llama2.c
    /// .bin
    #[arg(value_name = "IN")]
    pub input: PathBuf,
    /// The tokenizer of a llama2.c checkpoint: its tokenizer.bin, or the tokenizer.model (SentencePiece) that it was made of
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// GGUF name of the pre-tokenizer (e.g. llama-bpe), in case ggufkit does not recognise that of a checkpoint, or a
    /// GGUF does not name its own
    #[arg(long, value_name = "NAME")]
    pub pre_tokenizer: Option<String>,
    /// Read files in pieces instead of memory-mapping them; for network drives and for files that may become shorter
    #[arg(long)]
    pub no_mmap: bool,
    /// The files that this run of the program reads and writes
    #[arg(skip)]
    pub run: RunFiles,
}

impl Input {
    /// Opens the model with GGUF's tensor names.
    pub fn open(&self) -> Result<Source> {
        open_in(&self.run, &self.input, &self.options(false))
    }

    /// Opens the model to measure or run it, and prints what its files leave open: a figure or a text is of the model as it
    /// was read.
    pub fn open_to_run(&self) -> Result<Source> {
        let source = self.open()?;
        source.need_model(false)?;
        said(notes_to_run(&source)).iter().for_each(|text| note(text));
        Ok(source)
    }

    /// Opens the model to say what becomes of it, and prints the same.
    pub fn open_noted(&self) -> Result<Source> {
        let source = self.open()?;
        notes(&source).iter().for_each(|text| note(text));
        Ok(source)
    }

    /// Opens the model with the tensor names and the order of its files.
    pub fn open_as_filed(&self) -> Result<Source> {
        open_in(&self.run, &self.input, &self.options(true))
    }

    /// Opens the model for a copy with the same tensors. GGUF and llama2.c outputs get GGUF's tensor names, because
    /// nothing runs them with other names; safetensors outputs keep the names of the source's files.
    /// `name` is the one that the model gets, if it gets one.
    pub fn open_for(&self, out: &Path, name: Option<String>) -> Result<Source> {
        let ending = out.extension().unwrap_or_default();
        let as_filed = plan::is_folder(out) || ending.eq_ignore_ascii_case("safetensors");
        open_in(&self.run, &self.input, &Options { name, ..self.options(as_filed) })
    }

    /// Opens another model of the same run, under GGUF's tensor names, and prints what its files leave open.
    pub fn open_beside(&self, path: &Path) -> Result<Source> {
        let source = open_in(&self.run, path, &self.options(false))?;
        source.need_model(false)?;
        said(notes_to_run(&source)).iter().for_each(|text| note(&format!("{}: {text}", path.display())));
        Ok(source)
    }

    /// The options for opening the model; with `as_filed`, tensors keep the names of its files.
    pub fn options(&self, as_filed: bool) -> Options {
        Options {
            no_mmap: self.no_mmap,
            tokenizer: self.tokenizer.clone(),
            pre_tokenizer: self.pre_tokenizer.clone(),
            name: None,
            as_filed,
        }
    }
}
