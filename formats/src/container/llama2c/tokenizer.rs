//! tokenizer.bin
use crate::error::Result;
use crate::model::{Input, Model};

/// Whether the file looks like a tokenizer.bin.
pub fn looks_like(_input: &Input) -> Result<bool> {
    Ok(false)
}

/// Reads a tokenizer.bin.
pub fn read(_input: &Input) -> Result<Model> {
    todo!()
}
