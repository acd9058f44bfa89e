//! A text as a model's tokens, and the tokenizer of an open model.

use std::path::Path;

use super::Tokenizer;
use crate::disk::RunFiles;
use crate::error::{Error, Result};
use crate::source::Source;

/// A text as a model's tokens.
pub struct Text {
    /// All tokens, with BOS if the vocabulary adds it.
    pub tokens: Vec<u32>,
    /// BOS, if the vocabulary adds it to texts.
    pub first: Option<u32>,
}

impl Text {
    /// Reads a text file; invalid UTF-8 is replaced.
    ///
    /// # Errors
    /// Those of [`RunFiles::read_text`] and [`Text::new`].
    pub fn read(run: &RunFiles, path: &Path, tokenizer: &Tokenizer) -> Result<Self> {
        let bytes = run.read_text(path)?;
        Self::new(&String::from_utf8_lossy(&bytes), tokenizer)
    }

    /// Encodes a text.
    ///
    /// # Errors
    /// [`Error::Refused`] for a vocabulary that adds EOS to texts.
    pub fn new(text: &str, tokenizer: &Tokenizer) -> Result<Self> {
        if tokenizer.add_eos() {
            return Err(Error::refused(
                "the vocabulary adds EOS to every text (tokenizer.ggml.add_eos_token), so chunks cannot be scored",
            )
            .or("set tokenizer.ggml.add_eos_token to false with `ggufkit edit`"));
        }
        // llama-perplexity leaves out the last line break of a file.
        let text = text.strip_suffix('\n').unwrap_or(text);
        Ok(Self {
            tokens: tokenizer.encode(text, true, false),
            first: tokenizer.bos().filter(|_| tokenizer.add_bos()),
        })
    }
}

impl Tokenizer {
    /// The tokenizer of an open model.
    ///
    /// # Errors
    /// [`Error::NoTokenizer`]; those of [`Tokenizer::from_metadata`].
    pub fn of(source: &Source) -> Result<Self> {
        let metadata = &source.model.metadata;
        if metadata.get("tokenizer.ggml.model").is_none() {
            return Err(Error::NoTokenizer { path: Some(source.path.clone()) });
        }
        Self::from_metadata(metadata)
    }
}
