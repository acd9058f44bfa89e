//! The model that a command reads.

use std::path::{Path, PathBuf};

use clap::Args;
use ggufkit::source::Source;
use ggufkit::{Options, Result, open, plan};

/// Where a model comes from.
#[derive(Debug, Args)]
pub struct Input {
    /// A folder as it comes from a hub, a .gguf (any part of a split), a .safetensors, or a llama2.c .bin
    #[arg(value_name = "IN")]
    pub input: PathBuf,
    /// The tokenizer.bin that belongs to a llama2.c checkpoint
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// The name in GGUF of a checkpoint's pre-tokenizer, where ggufkit does not recognise it
    #[arg(long, value_name = "NAME")]
    pub pre_tokenizer: Option<String>,
    /// Read in pieces instead of mapping: for network drives and files that may change
    #[arg(long)]
    pub no_mmap: bool,
}

impl Input {
    /// The model, under GGUF's names.
    pub fn open(&self) -> Result<Source> {
        open(&self.input, &self.options(false))
    }

    /// The model with the names and the order that its files have.
    pub fn open_as_filed(&self) -> Result<Source> {
        open(&self.input, &self.options(true))
    }

    /// The model for a result that is to have the same tensors: under GGUF's names if it is a GGUF or a llama2.c
    /// checkpoint, which nothing runs under others; else as its files have them.
    pub fn open_for(&self, out: &Path) -> Result<Source> {
        let ending = out.extension().unwrap_or_default();
        let as_filed = plan::is_folder(out) || ending.eq_ignore_ascii_case("safetensors");
        open(&self.input, &self.options(as_filed))
    }

    /// How the model is opened; with `as_filed`, under the names that its files have.
    pub fn options(&self, as_filed: bool) -> Options {
        Options {
            no_mmap: self.no_mmap,
            tokenizer: self.tokenizer.clone(),
            pre_tokenizer: self.pre_tokenizer.clone(),
            as_filed,
        }
    }
}
