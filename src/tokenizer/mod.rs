//! Texts as the tokens of an open model: the [`tokenizer`](::tokenizer) crate, and the files that it reads no more of than
//! their metadata.

#[cfg(test)]
mod tests;
mod text;
pub mod text_file;

pub use ::tokenizer::*;
pub use text::{Text, tokenizer_of};
