//! Text to token ids and back, by the vocabulary in a GGUF's metadata (`tokenizer.*`).
//!
//! A vocabulary is one of three kinds: SentencePiece's byte-pair encoding, byte-level byte-pair encoding (after a
//! pre-tokenizer, [`pre`], has split the text into words) or a unigram model. Before that, a text is split at special tokens.
//! Ids are those that llama.cpp gives for the same file, also where the models' own tokenizers give others; where llama.cpp
//! would stop the process (a vocabulary without a token for a byte, say), that part of the text gets no ids. Three things that
//! files say and llama.cpp does not do are done, as SentencePiece does them: byte fallback of unigram models, normalization of
//! the other kind, and symbols that the model itself has. Sources: llama.cpp's llama-vocab.cpp and unicode.cpp, and
//! SentencePiece.
//!
//! ```
//! use formats::metadata::{Array, Metadata, Value};
//!
//! let mut metadata = Metadata::new();
//! metadata.set("tokenizer.ggml.model", Value::text("gpt2"));
//! metadata.set("tokenizer.ggml.pre", Value::text("gpt-2"));
//! metadata.set("tokenizer.ggml.tokens", Value::Array(Array::of_strings(["a", "b", "ab"])));
//! metadata.set("tokenizer.ggml.merges", Value::Array(Array::of_strings(["a b"])));
//! let tokenizer = tokenizer::Tokenizer::from_metadata(&metadata)?;
//! assert_eq!(tokenizer.encode("abba", false, false), [2, 1, 0]);
//! assert_eq!(tokenizer.decode(&[2, 1, 0]), b"abba");
//! # Ok::<(), tokenizer::Error>(())
//! ```

#![forbid(unsafe_code)]

mod bpe;
mod decode;
mod doubts;
mod error;
mod normal;
pub mod pre;
mod read;
mod roles;
mod special;
mod spm;
mod symbols;
#[doc(hidden)]
pub mod testing;
#[cfg(test)]
mod tests;
mod tokens;
mod trie;
mod unigram;

use std::borrow::Cow;

use formats::metadata::Metadata;

pub use decode::Stream;
pub use doubts::doubts;
pub use error::{Error, Result};
pub use normal::Normalizer;
use normal::Prefix;
pub use pre::unusable_note as pre_tokenizer_note;
use roles::Roles;
use special::{Fragment, Specials};
pub use special::{is_phi3, keeps_spaces};
pub use symbols::ADDED_SCORE;
use tokens::Tokens;

/// How the text between special tokens is encoded.
enum Scheme {
    SentencePiece(Box<spm::Merger>, Normalizer),
    ByteLevel(Box<bpe::Merger>),
    Unigram(Box<unigram::Viterbi>),
}

/// What is added to texts: what the file says, or else the default of its kind of vocabulary.
#[derive(PartialEq)]
struct Rules {
    add_bos: bool,
    add_eos: bool,
    /// A space is put before a text, and before text that follows a special token.
    space_prefix: bool,
    /// How, if the file says so ([`PREPEND_SCHEME`]).
    prepend: Option<Prepend>,
    /// Tokens have U+2581 in place of spaces.
    escaped_spaces: bool,
}

impl Rules {
    /// Whether a space is put before a part of a text, which may be its first.
    fn prefix(&self, first: bool) -> Prefix {
        match (self.space_prefix, self.prepend) {
            (false, _) => Prefix::None,
            (true, None) => Prefix::Always,
            (true, Some(Prepend::First)) if !first => Prefix::None,
            (true, Some(_)) => Prefix::UnlessSpace,
        }
    }
}

/// The key of [`Prepend`], which other programs do not read: they put a space before every text, and before text that
/// follows a special token.
pub const PREPEND_SCHEME: &str = "ggufkit.tokenizer.prepend_scheme";

/// Where a space is put before text, as `Metaspace` of the `tokenizers` crate does it: never before a space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prepend {
    /// Before a text, and before text that follows a special token.
    Always,
    /// At the beginning of a text only.
    First,
}

impl Prepend {
    /// The scheme of this name.
    pub fn of(name: &str) -> Option<Self> {
        [Self::Always, Self::First].into_iter().find(|scheme| scheme.name() == name)
    }

    /// Its name, in the file and in tokenizer.json.
    pub fn name(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::First => "first",
        }
    }
}

/// What two tokenizers with the same tokens do differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference {
    /// They split texts at other places, since one puts a space before them, or has another character in place of spaces.
    Spaces,
    /// They put other tokens before or behind texts.
    Added,
    /// They have another token for what has none.
    Unknown,
    /// They end generation at other tokens.
    Ends,
}

/// A vocabulary, ready to encode and decode.
pub struct Tokenizer {
    tokens: Tokens,
    scheme: Scheme,
    rules: Rules,
    roles: Roles,
    specials: Specials,
    /// The chat template, or what is wrong with it: only a chat needs it.
    chat_template: std::result::Result<Option<String>, String>,
}

impl Tokenizer {
    /// What another tokenizer with the same tokens makes otherwise of texts; the first of [`Difference`]'s, or `None`.
    pub fn differs(&self, other: &Self) -> Option<Difference> {
        let spaces = |of: &Self| (of.rules.space_prefix, of.rules.prepend, of.rules.escaped_spaces);
        let begins = |of: &Self| (of.rules.add_bos, of.roles.bos);
        let ends = |of: &Self| of.roles.eos.filter(|_| of.rules.add_eos);
        if spaces(self) != spaces(other) {
            Some(Difference::Spaces)
        } else if begins(self) != begins(other) || ends(self) != ends(other) {
            Some(Difference::Added)
        } else if self.roles.unknown != other.roles.unknown {
            Some(Difference::Unknown)
        } else if self.roles != other.roles {
            Some(Difference::Ends)
        } else {
            None
        }
    }

    /// The tokenizer of a GGUF's metadata.
    ///
    /// # Errors
    /// [`Error::NoTokenizer`], [`Error::UnknownTokenizer`], [`Error::UnknownPreTokenizer`];
    /// [`Error::InvalidVocabulary`] for missing arrays, arrays of the wrong type or
    /// with fewer values than there are tokens, scores that are not numbers, a damaged table of normalizations, and
    /// unigram models with tokens of more than 4096 bytes.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self> {
        read::read(metadata)
    }

    /// The ids of a text. With `bos_eos`, BOS and EOS are added if the vocabulary asks for it. With `special`, control
    /// tokens that are written in the text are recognised; without, they are encoded like other text, which is right
    /// for what a user types.
    pub fn encode(&self, text: &str, bos_eos: bool, special: bool) -> Vec<u32> {
        let mut out = Vec::new();
        out.extend(self.roles.bos.filter(|_| bos_eos && self.rules.add_bos));
        for (i, fragment) in self.specials.partition(text, special).into_iter().enumerate() {
            let prefix = self.rules.prefix(i == 0);
            match (fragment, &self.scheme) {
                (Fragment::Token(id), _) => out.push(id),
                (Fragment::Text(text), Scheme::SentencePiece(merger, normalizer)) => {
                    let text = normalizer.escaped(text, prefix);
                    merger.encode(&self.tokens, &text, normalizer, &mut out);
                }
                (Fragment::Text(text), Scheme::ByteLevel(merger)) => {
                    merger.encode(&self.tokens, text, self.rules.escaped_spaces, &mut out);
                }
                (Fragment::Text(text), Scheme::Unigram(viterbi)) => viterbi.encode(text, prefix, &mut out),
            }
        }
        out.extend(self.roles.eos.filter(|_| bos_eos && self.rules.add_eos));
        out
    }

    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Always false: a vocabulary has tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The token at the beginning of a text (BOS).
    pub fn bos(&self) -> Option<u32> {
        self.roles.bos
    }

    /// The token at the end of a text (EOS).
    pub fn eos(&self) -> Option<u32> {
        self.roles.eos
    }

    /// The token at the end of a turn of a chat (EOT).
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

    /// The token of what has no other (unknown).
    pub fn unknown(&self) -> Option<u32> {
        self.roles.unknown
    }

    /// Whether a space is put before a text.
    pub fn space_prefix(&self) -> bool {
        self.rules.space_prefix
    }

    /// How a space is put before texts, if the file says more than that one is.
    pub fn prepend_scheme(&self) -> Option<Prepend> {
        self.rules.prepend
    }

    /// The user-defined symbols of a SentencePiece model, by id: texts that stay whole, wherever they are.
    pub fn symbols(&self) -> Vec<u32> {
        (0..).zip(&self.tokens.attributes).filter(|(_, is)| is.symbol).map(|(id, _)| id).collect()
    }

    /// The tokens that are looked for in a text before anything else, by id: whether it is only looked for if special
    /// tokens are asked for, and whether it takes the whitespace before and behind it.
    pub fn specials(&self) -> Vec<(u32, bool, [bool; 2])> {
        self.specials.list()
    }

    /// Whether generation ends with this token: the end of the text or of the turn, and tokens that llama.cpp knows by
    /// their text to be ends.
    pub fn is_end(&self, id: u32) -> bool {
        self.roles.ends.contains(&id)
    }

    /// The text of a token as the file has it, with U+2581 for spaces or in the byte alphabet; invalid UTF-8 is
    /// replaced. Empty for an id that is out of range.
    pub fn token(&self, id: u32) -> Cow<'_, str> {
        String::from_utf8_lossy(self.tokens.text(id))
    }

    /// The chat template (`tokenizer.chat_template`); `None` if there is none.
    ///
    /// # Errors
    /// [`Error::InvalidVocabulary`] for one that is no text.
    pub fn chat_template(&self) -> Result<Option<&str>> {
        match &self.chat_template {
            Ok(text) => Ok(text.as_deref().filter(|text| !text.trim().is_empty())),
            Err(why) => Err(Error::InvalidVocabulary { why: why.clone() }),
        }
    }

    /// Whether another tokenizer gives a text the same tokens, with BOS and EOS where they add them.
    pub fn splits_as(&self, other: &Self, text: &str) -> bool {
        self.encode(text, true, false) == other.encode(text, true, false)
    }

    /// Whether two vocabularies give every id the same meaning: the same kind and the same tokens in the same order.
    /// How texts are split may differ.
    pub fn same_vocabulary(&self, other: &Self) -> bool {
        std::mem::discriminant(&self.scheme) == std::mem::discriminant(&other.scheme)
            && self.tokens.same_as(&other.tokens)
    }

    /// A hash that is equal for vocabularies that are the same by [`Self::same_vocabulary`], on every machine.
    pub fn fingerprint(&self) -> u64 {
        let kind = match &self.scheme {
            Scheme::SentencePiece(..) => 0,
            Scheme::ByteLevel(_) => 1,
            Scheme::Unigram(_) => 2,
        };
        self.tokens.hash(kind)
    }
}
