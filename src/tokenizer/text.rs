//! A text file in a model's tokens, and the tokenizer that an open model brings.

use std::path::Path;

use super::Tokenizer;
use crate::error::{Error, Result};
use crate::source::Source;

/// A text in a model's tokens.
pub struct Text {
    /// All of them.
    pub tokens: Vec<u32>,
    /// What begins a text.
    pub first: Option<u32>,
}

impl Text {
    /// Reads a file, which need not be valid UTF-8 everywhere.
    ///
    /// # Errors
    /// The system's; a vocabulary that ends every text with a token, over which nothing is scored.
    pub fn read(path: &Path, tokenizer: &Tokenizer) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, "read", e))?;
        Self::new(&String::from_utf8_lossy(&bytes), tokenizer)
    }

    /// A text.
    ///
    /// # Errors
    /// A vocabulary that ends every text with a token.
    pub fn new(text: &str, tokenizer: &Tokenizer) -> Result<Self> {
        if tokenizer.add_eos() {
            return Err(Error::refused(
                "the vocabulary ends every text with a token, so chunks cannot be scored",
            )
            .or("set tokenizer.ggml.add_eos_token to false with `ggufkit edit`"));
        }
        // llama-perplexity ends a file's text before its last line break; one token among thousands.
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
    /// [`Error::Refused`] if the model has none, or what [`Tokenizer::from_metadata`] finds wrong with it.
    pub fn of(source: &Source) -> Result<Self> {
        let metadata = &source.model.metadata;
        if metadata.get("tokenizer.ggml.model").is_none() {
            let why = format!("{}: has no tokenizer", source.path.display());
            return Err(
                Error::refused(why).or("for a llama2.c checkpoint, name its tokenizer.bin: --tokenizer FILE")
            );
        }
        Self::from_metadata(metadata)
    }
}
