//! Texts as the tokens of an open model: the text files, and the tokenizer of the model's metadata. Splitting texts is the
//! work of the crate [`tokenizer`], whose items that are needed here too are named below.

#[cfg(test)]
mod tests;
mod text;
pub mod text_file;

pub use ::tokenizer::{
    ADDED_SCORE, Difference, Normalizer, PREPEND_SCHEME, Prepend, Stream, Tokenizer, doubts, is_phi3,
    keeps_spaces, pre, pre_tokenizer_note,
};
pub use text::{Text, tokenizer_of};
