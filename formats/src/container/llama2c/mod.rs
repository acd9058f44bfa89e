//! llama2.c's files.
pub mod tokenizer;
use crate::error::Result;
use crate::model::{Format, Input, Model};

/// Tells the version.
pub fn sniff(_input: &Input) -> Option<Format> {
    None
}

/// Reads a checkpoint.
pub fn read(_input: &Input) -> Result<Model> {
    todo!()
}
