//! A text as a model's tokens, and the tokenizer of an open model.

use std::path::Path;

use super::{Tokenizer, text_file};
use crate::disk::RunFiles;
use crate::error::{Error, Result};
use crate::source::Source;

/// A text as a model's tokens.
pub struct Text {
    /// All tokens, with BOS if the vocabulary adds it.
    pub tokens: Vec<u32>,
    /// BOS, if the vocabulary adds it to texts.
    pub first: Option<u32>,
    /// Notes of reading the file, for the user.
    pub notes: Vec<String>,
}

impl Text {
    /// Reads a text file.
    ///
    /// # Errors
    /// Those of [`text_file::read`] and [`Text::new`].
    pub fn read(run: &RunFiles, path: &Path, tokenizer: &Tokenizer) -> Result<Self> {
        let file = text_file::read(run, path)?;
        Ok(Self { notes: file.notes, ..Self::new(&file.text, tokenizer)? })
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
            notes: Vec::new(),
        })
    }
}

/// The tokenizer of an open model.
///
/// # Errors
/// [`Error::Vocabulary`], with the model's path; see [`Tokenizer::from_metadata`].
pub fn tokenizer_of(source: &Source) -> Result<Tokenizer> {
    Tokenizer::from_metadata(&source.model.metadata)
        .map_err(|error| Error::Vocabulary { path: Some(source.path.clone()), error })
}
