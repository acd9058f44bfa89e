//! What can be wrong with a vocabulary.

/// Why a vocabulary cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Metadata without a vocabulary.
    #[error("the model has no vocabulary (tokenizer.ggml.tokens), without which texts are no tokens")]
    NoTokenizer,
    /// A kind of tokenizer that is not supported.
    #[error("tokenizer kind {name:?} is not supported")]
    UnknownTokenizer {
        /// The value of `tokenizer.ggml.model`.
        name: String,
        /// The supported kinds, separated by commas.
        known: &'static str,
    },
    /// A pre-tokenizer that is not known.
    #[error("{what}")]
    UnknownPreTokenizer {
        /// What is wrong, with the name.
        what: String,
        /// What to do about it, with the known names.
        hint: String,
    },
    /// A vocabulary that is damaged or incomplete.
    #[error("{why}")]
    InvalidVocabulary {
        /// The key, what was expected and what was found.
        why: String,
    },
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
