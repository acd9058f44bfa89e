//! Text to ids and back, by the vocabulary that a GGUF carries.
//!
//! Everything comes from the file's own `tokenizer.*` keys. A vocabulary is one of three kinds: SentencePiece's
//! byte-pair encoding (`spm`), byte-level byte-pair encoding (`bpe`, whose words `pre` finds) or a unigram
//! model (`unigram`). Around all of them, texts are cut at the tokens that stand for themselves (`special`).
//! Ids are those that llama.cpp gives for the same file, including its views where the models' own tokenizers
//! differ; where it would stop the process (a vocabulary without a token for a byte, say), the text goes on.
//! Sources: llama.cpp's llama-vocab.cpp and unicode.cpp, and SentencePiece.

mod bpe;
mod decode;
pub(crate) mod pre;
mod read;
mod special;
mod spm;
#[cfg(test)]
mod tests;
mod text;
mod tokens;
mod trie;
mod unigram;

use std::borrow::Cow;

use formats::metadata::Metadata;

use crate::error::Result;
pub use decode::Stream;
use special::{Fragment, Roles, Specials};
pub use text::Text;
use tokens::Tokens;

/// How the text between special tokens is cut.
enum Scheme {
    SentencePiece(Box<spm::Merger>),
    ByteLevel(Box<bpe::Merger>),
    Unigram(Box<unigram::Viterbi>),
}

/// What a file says about texts, besides the tokens; where it says nothing, the default of its kind.
struct Rules {
    add_bos: bool,
    add_eos: bool,
    /// A space goes before a text, and before what follows a special token.
    space_prefix: bool,
    /// Tokens have U+2581 for a space.
    escaped_spaces: bool,
}

/// A vocabulary, ready to encode and decode.
pub struct Tokenizer {
    tokens: Tokens,
    scheme: Scheme,
    rules: Rules,
    roles: Roles,
    specials: Specials,
    chat_template: Option<String>,
}

impl Tokenizer {
    /// The tokenizer of a GGUF's metadata.
    ///
    /// # Errors
    /// No or unknown `tokenizer.ggml.model` or `tokenizer.ggml.pre`, with those that are known; missing arrays,
    /// arrays of another kind or with fewer values than there are tokens; scores that are not numbers; a
    /// unigram model with a table of normalizations or with tokens of more than 4096 bytes.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self> {
        read::read(metadata)
    }

    /// The ids of a text. With `bos_eos`, the begin and the end are added if the vocabulary has them added to a
    /// text. With `special`, control tokens that are written in the text are recognised; without, they are text
    /// like any other, as what a user types must be.
    pub fn encode(&self, text: &str, bos_eos: bool, special: bool) -> Vec<u32> {
        let mut out = Vec::new();
        out.extend(self.roles.bos.filter(|_| bos_eos && self.rules.add_bos));
        let mut after_special = true;
        for fragment in self.specials.partition(text, special) {
            match fragment {
                Fragment::Token(id) => {
                    out.push(id);
                    after_special = true;
                }
                Fragment::Text(text) => {
                    match &self.scheme {
                        Scheme::SentencePiece(merger) => {
                            let prefix = self.rules.space_prefix && after_special;
                            merger.encode(&self.tokens, text, prefix, &mut out);
                        }
                        Scheme::ByteLevel(merger) => {
                            merger.encode(&self.tokens, text, self.rules.escaped_spaces, &mut out);
                        }
                        Scheme::Unigram(viterbi) => viterbi.encode(text, self.rules.space_prefix, &mut out),
                    }
                    after_special = false;
                }
            }
        }
        out.extend(self.roles.eos.filter(|_| bos_eos && self.rules.add_eos));
        out
    }

    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there are no tokens; there always are.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.roles.bos
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<u32> {
        self.roles.eos
    }

    /// The token that ends a turn of a chat.
    pub fn eot(&self) -> Option<u32> {
        self.roles.eot
    }

    /// Whether texts begin with [`Self::bos`].
    pub fn add_bos(&self) -> bool {
        self.rules.add_bos
    }

    /// Whether texts end with [`Self::eos`].
    pub fn add_eos(&self) -> bool {
        self.rules.add_eos
    }

    /// Whether a model that gives this token has said all: the end of the text or of the turn, and tokens that
    /// are known by their text to mean it.
    pub fn is_end(&self, id: u32) -> bool {
        self.roles.ends.contains(&id)
    }

    /// The text of a token as the file has it, with U+2581 or the alphabet of bytes; bytes that are not UTF-8 are
    /// replaced. Empty for an id that is not there.
    pub fn token(&self, id: u32) -> Cow<'_, str> {
        String::from_utf8_lossy(self.tokens.text(id))
    }

    /// The template that makes one text of a chat (`tokenizer.chat_template`).
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }

    /// Whether two vocabularies give every id the same meaning: the same kind and the same tokens in the same
    /// order. How texts are cut may differ.
    pub fn same_vocabulary(&self, other: &Self) -> bool {
        std::mem::discriminant(&self.scheme) == std::mem::discriminant(&other.scheme)
            && self.tokens.same_as(&other.tokens)
    }

    /// A number that is the same on every host for vocabularies that are the same to [`Self::same_vocabulary`].
    pub fn fingerprint(&self) -> u64 {
        let kind = match &self.scheme {
            Scheme::SentencePiece(_) => 0,
            Scheme::ByteLevel(_) => 1,
            Scheme::Unigram(_) => 2,
        };
        self.tokens.hash(kind)
    }
}
