//! Texts as the tokens of an open model: the text files, and the tokenizer of the model's metadata. Splitting texts is the
//! work of the crate [`tokenizer`], whose items are here too.

#[cfg(test)]
mod tests;
mod text;
pub mod text_file;

pub use ::tokenizer::*;
pub use text::{Text, tokenizer_of};
